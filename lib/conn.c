/*
 * A connection of bytes under a deadline. The three kinds of it, a socket, a
 * TLS session and a pair of pipes, differ only in conn_recv() and conn_send();
 * the rest is buffers and waiting.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/clock.h"

#include "lib/conn.h"

/* How long a handshake may still take when the service ends, milliseconds. */
#define HANDSHAKE_LAST 2000

static void
set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags != -1 && !(flags & O_NONBLOCK))
		(void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

void
conn_init(struct conn *c, int rfd, int wfd, void *buffer, size_t buffer_size)
{
	struct stat st;
	int on = 1;

	memset(c, 0, sizeof(*c));
	c->rfd = rfd;
	c->wfd = wfd;
	c->in = buffer;
	c->in_size = buffer_size;
	c->deadline = CLOCK_NEVER;
	c->is_socket = rfd == wfd && fstat(rfd, &st) == 0 &&
	    S_ISSOCK(st.st_mode);
	if (!c->is_socket)
		return;
	set_nonblocking(rfd);
	/* Fails on a UNIX socket, which has no such delay. */
	(void)setsockopt(rfd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

void
conn_set_timeout(struct conn *c, int64_t ms)
{
	c->deadline = clock_in(ms);
}

static volatile sig_atomic_t stopped;
static bool heeds_sigterm;
static sigset_t while_waiting;

static void
on_sigterm(int signal)
{
	(void)signal;
	stopped = 1;
}

void
conn_heed_sigterm(const sigset_t *mask)
{
	struct sigaction action = {.sa_handler = on_sigterm};
	sigset_t working = *mask;

	while_waiting = *mask;
	(void)sigdelset(&while_waiting, SIGTERM);
	(void)sigaddset(&working, SIGTERM);
	(void)sigaction(SIGTERM, &action, NULL);
	/* Last: one that has come already is for the handler. */
	(void)sigprocmask(SIG_SETMASK, &working, NULL);
	heeds_sigterm = true;
}

bool
conn_is_stopped(void)
{
	return stopped != 0;
}

int
conn_poll(struct pollfd *fds, nfds_t n, int ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000L};

	if (!heeds_sigterm)
		return poll(fds, n, ms);
	return ppoll(fds, n, ms == -1 ? NULL : &ts, &while_waiting);
}

enum conn_result
conn_wait(struct conn *c, short events)
{
	struct pollfd pfd = {.events = events};
	int n, left;

	pfd.fd = events & POLLOUT ? c->wfd : c->rfd;
	for (;;) {
		if (stopped && c->stoppable && events & POLLIN)
			return CONN_STOPPED;
		left = clock_left(c->deadline);
		n = conn_poll(&pfd, 1, left);
		if (n > 0)
			return CONN_OK;
		if (n == 0 && left == 0)
			return CONN_TIMEOUT;
		if (n == -1 && errno != EINTR)
			return CONN_FAILED;
	}
}

/* What OpenSSL wants, as conn_recv() and conn_send() tell it. */
static ssize_t
tls_result(enum tls_want want, const size_t *moved, short *events)
{
	switch (want) {
	case TLS_DONE:
		return (ssize_t)*moved;
	case TLS_END:
		return 0;
	case TLS_WANT_READ:
	case TLS_WANT_WRITE:
		*events = want == TLS_WANT_READ ? POLLIN : POLLOUT;
		errno = EAGAIN;
		return -1;
	case TLS_ERROR:
		break;
	}
	errno = EPROTO;
	return -1;
}

/*
 * The flags of a pipe or terminal are shared with whoever gave it to us, so it
 * stays blocking: it is asked first, and only as much is moved as is sure not
 * to block.
 */
static bool
pipe_ready(int fd, short events)
{
	struct pollfd pfd = {.fd = fd, .events = events};

	if (poll(&pfd, 1, 0) > 0)
		return true;
	errno = EAGAIN;
	return false;
}

ssize_t
conn_recv(struct conn *c, void *buf, size_t len, short *events)
{
	size_t moved = 0;

	*events = POLLIN;
	if (c->tls != NULL)
		return tls_result(
		    c->tls_api->read(c->tls, buf, len, &moved), &moved, events);
	if (c->is_socket)
		return recv(c->rfd, buf, len, MSG_DONTWAIT);
	if (!pipe_ready(c->rfd, POLLIN))
		return -1;
	return read(c->rfd, buf, len);
}

ssize_t
conn_send(struct conn *c, const void *buf, size_t len, short *events)
{
	size_t moved = 0;

	*events = POLLOUT;
	if (c->tls != NULL)
		return tls_result(
		    c->tls_api->write(c->tls, buf, len, &moved), &moved, events);
	if (c->is_socket)
		return send(c->wfd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (!pipe_ready(c->wfd, POLLOUT))
		return -1;
	return write(c->wfd, buf, len < PIPE_BUF ? len : PIPE_BUF);
}

static enum conn_result
fail(struct conn *c, enum conn_result r)
{
	if (r == CONN_FAILED)
		c->failed = true;
	return r;
}

/* One read into the buffer, without waiting. 1, 0 nothing there, -1 end. */
static int
fill_now(struct conn *c, short *events)
{
	ssize_t n;

	*events = POLLIN;
	if (c->failed || c->eof)
		return -1;
	if (c->in_start == c->in_end)
		c->in_start = c->in_end = 0;
	if (c->in_start > 0 && c->in_end == c->in_size) {
		memmove(c->in, c->in + c->in_start, conn_buffered(c));
		c->in_end -= c->in_start;
		c->in_start = 0;
		/* Half a line of a secret would be left where it came from. */
		explicit_bzero(c->in + c->in_end, c->in_size - c->in_end);
	}
	do
		n = conn_recv(
		    c, c->in + c->in_end, c->in_size - c->in_end, events);
	while (n == -1 && errno == EINTR);
	if (n > 0) {
		c->in_end += (size_t)n;
		c->bytes_in += (size_t)n;
		return 1;
	}
	if (n == -1 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	c->eof = true;
	c->failed = n == -1;
	return -1;
}

/* Reads something into the buffer, whatever it takes until the deadline. */
static enum conn_result
fill(struct conn *c)
{
	enum conn_result r;
	short events;

	/* The peer may be waiting for what we have not sent yet. */
	r = conn_flush(c);
	if (r != CONN_OK)
		return r;
	for (;;) {
		switch (fill_now(c, &events)) {
		case 1:
			return CONN_OK;
		case -1:
			return c->failed ? CONN_FAILED : CONN_EOF;
		}
		r = conn_wait(c, events);
		if (r != CONN_OK)
			return fail(c, r);
	}
}

enum conn_result
conn_await(struct conn *c)
{
	return conn_buffered(c) > 0 ? CONN_OK : fill(c);
}

int
conn_peek(struct conn *c)
{
	short events;

	return conn_buffered(c) > 0 ? 1 : fill_now(c, &events);
}

/*
 * The LF that ends the line at `p`, or NULL. Only CRLF ends a line on a network
 * socket: a bare LF taken for an end here and not by the backend (or the other
 * way round) is how mail is smuggled.
 */
static unsigned char *
line_end(const struct conn *c, unsigned char *p, size_t n)
{
	unsigned char *lf, *from = p;

	while ((lf = memchr(from, '\n', n - (size_t)(from - p))) != NULL) {
		if (c->lf_ends_line || (lf > p && lf[-1] == '\r'))
			return lf;
		from = lf + 1;
	}
	return NULL;
}

/* Takes the line at in_start that ends with the LF at `lf`. */
static void
take_line(
    struct conn *c, unsigned char *lf, size_t max, struct conn_line *line)
{
	unsigned char *p = c->in + c->in_start;
	size_t len = (size_t)(lf - p);

	c->in_start += len + 1;
	if (line->too_long || len + 1 > max) {
		line->too_long = true;
		*lf = '\0';
		line->text = (char *)lf;
		return;
	}
	if (len > 0 && p[len - 1] == '\r')
		len--;
	p[len] = '\0';
	line->text = (char *)p;
	line->len = len;
	line->malformed = memchr(p, '\0', len) != NULL ||
	    memchr(p, '\r', len) != NULL || memchr(p, '\n', len) != NULL;
}

enum conn_result
conn_read_line(struct conn *c, size_t max, struct conn_line *line)
{
	enum conn_result r;
	unsigned char *lf;

	memset(line, 0, sizeof(*line));
	if (max > c->in_size)
		max = c->in_size;
	for (;;) {
		lf = line_end(c, c->in + c->in_start, conn_buffered(c));
		if (lf != NULL) {
			take_line(c, lf, max, line);
			return CONN_OK;
		}
		if (conn_buffered(c) >= max) {
			/* Skipped, but for a CR that may be half an end. */
			line->too_long = true;
			c->in_start =
			    c->in_end - (c->in[c->in_end - 1] == '\r');
		}
		r = fill(c);
		if (r != CONN_OK)
			return r;
	}
}

void
conn_wipe_line(struct conn_line *line)
{
	if (line->text != NULL)
		explicit_bzero(line->text, line->len);
	line->len = 0;
}

enum conn_result
conn_skip(struct conn *c, uint64_t n)
{
	enum conn_result r;
	size_t have;

	for (;;) {
		have = conn_buffered(c);
		if (have > n)
			have = (size_t)n;
		c->in_start += have;
		n -= have;
		if (n == 0)
			return CONN_OK;
		r = fill(c);
		if (r != CONN_OK)
			return r;
	}
}

enum conn_result
conn_flush(struct conn *c)
{
	enum conn_result r;
	size_t done = 0;
	short events;
	ssize_t n;

	while (!c->failed && done < c->out_len) {
		n = conn_send(c, c->out + done, c->out_len - done, &events);
		if (n > 0) {
			done += (size_t)n;
			c->bytes_out += (size_t)n;
			continue;
		}
		if (n == -1 && errno == EINTR)
			continue;
		if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
			c->failed = true;
			break;
		}
		r = conn_wait(c, events);
		if (r != CONN_OK) {
			/* What is half written cannot be taken back. */
			c->failed = true;
			c->out_len = 0;
			return r;
		}
	}
	c->out_len = 0;
	return c->failed ? CONN_FAILED : CONN_OK;
}

enum conn_result
conn_write(struct conn *c, const void *data, size_t len)
{
	const unsigned char *p = data;
	enum conn_result r;
	size_t n;

	while (len > 0) {
		n = sizeof(c->out) - c->out_len;
		if (n == 0) {
			r = conn_flush(c);
			if (r != CONN_OK)
				return r;
			continue;
		}
		if (n > len)
			n = len;
		memcpy(c->out + c->out_len, p, n);
		c->out_len += n;
		p += n;
		len -= n;
	}
	return c->failed ? CONN_FAILED : CONN_OK;
}

enum conn_result
conn_print(struct conn *c, const char *format, ...)
{
	char text[2048];
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(text)) {
		c->failed = true;
		return CONN_FAILED;
	}
	return conn_write(c, text, (size_t)n);
}

void
conn_forget_input(struct conn *c)
{
	explicit_bzero(c->in, c->in_size);
	c->in_start = c->in_end = 0;
}

/*
 * In the middle of a handshake nothing can be said to the client, after it a
 * 421 can: one that goes on may end, if it does so soon.
 */
static void
hasten(struct conn *c)
{
	c->stoppable = false;
	if (c->deadline > clock_in(HANDSHAKE_LAST))
		c->deadline = clock_in(HANDSHAKE_LAST);
}

/* The handshake's calls and waits. */
static enum conn_result
shake_hands(struct conn *c)
{
	enum conn_result r;
	enum tls_want want;

	for (;;) {
		want = c->tls_api->handshake(c->tls);
		switch (want) {
		case TLS_DONE:
			return CONN_OK;
		case TLS_END:
			c->eof = true;
			return CONN_EOF;
		case TLS_ERROR:
			c->failed = true;
			return CONN_FAILED;
		case TLS_WANT_READ:
		case TLS_WANT_WRITE:
			break;
		}
		r = conn_wait(c, want == TLS_WANT_READ ? POLLIN : POLLOUT);
		if (r == CONN_STOPPED)
			hasten(c);
		else if (r != CONN_OK)
			return fail(c, r);
	}
}

enum conn_result
conn_handshake(struct conn *c)
{
	const bool stoppable = c->stoppable;
	enum conn_result r;

	if (!c->is_socket) {
		set_nonblocking(c->rfd);
		set_nonblocking(c->wfd);
	}
	r = shake_hands(c);
	c->stoppable = stoppable;
	return r;
}

void
conn_shutdown_write(struct conn *c)
{
	(void)conn_flush(c);
	if (c->tls != NULL && !c->failed)
		c->tls_api->shutdown(c->tls);
	if (c->is_socket) {
		(void)shutdown(c->wfd, SHUT_WR);
	} else if (c->wfd != -1) {
		/* The end of a pipe is told by closing it. */
		(void)close(c->wfd);
		c->wfd = -1;
	}
}

void
conn_linger(struct conn *c, int64_t ms)
{
	enum conn_result r;

	conn_set_timeout(c, ms);
	c->stoppable = false;
	conn_shutdown_write(c);
	if (!c->is_socket)
		return;
	do {
		c->in_start = c->in_end = 0;
		r = fill(c);
	} while (r == CONN_OK && clock_left(c->deadline) > 0);
}
