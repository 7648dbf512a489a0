/*
 * Two half-pipes and one poll loop. Backpressure is the buffer: a half reads no
 * more than it has room for. Where both sides are plain sockets, what goes to
 * the upstream is moved by splice(2) and never comes into this process, as soon
 * as there is enough of it to be worth a pipe; replies are always read, for the
 * last of them decides what a lost session may be told.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "lib/clock.h"

#include "proxy.h"

#define BUFFER_SIZE 65536

/* A half that has moved this much is spliced. */
#define SPLICE_FROM 131072

/* A pipe of this size; the kernel may give less. */
#define SPLICE_PIPE (1 << 20)

/* How long a client is waited for once its upstream has said its last. */
#define LAST_WAIT 2000

/* Replies, as far as they matter here. */
struct replies {
	char line[4], last[4]; /* code and what follows: now, of the last */
	size_t len;	       /* octets of the line now; 0: between lines */
};

struct half {
	struct conn *from, *to;
	unsigned char *buffer;
	size_t start, end;
	int pipe[2];	/* spliced through; -1: not */
	size_t in_pipe;
	bool ended;	/* from has no more */
	bool told;	/* and to knows it */
	bool broken;	/* to takes no more */
	bool lost;	/* from broke, and did not end */
	short want_in, want_out; /* what to poll for */
	uint64_t moved;
	bool spliceable;	 /* nothing in it is of interest */
	struct replies *replies; /* NULL: not followed */
};

static void
follow(struct replies *r, const unsigned char *p, size_t n)
{
	for (; n > 0; p++, n--) {
		if (*p == '\n') {
			for (; r->len < sizeof(r->line); r->len++)
				r->line[r->len] = ' ';
			memcpy(r->last, r->line, sizeof(r->last));
			r->len = 0;
			continue;
		}
		if (r->len < sizeof(r->line))
			r->line[r->len] = (char)*p;
		r->len++;
	}
}

static bool
said_goodbye(const struct replies *r)
{
	return memcmp(r->last, "221", 3) == 0 || memcmp(r->last, "421", 3) == 0;
}

/* Between two replies, not between two lines of one. */
static bool
is_between(const struct replies *r)
{
	return r->len == 0 && r->last[3] != '-';
}

static bool
would_wait(ssize_t n)
{
	return n == -1 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

/* --- one half ------------------------------------------------------------ */

static void
end_reading(struct half *h)
{
	h->ended = true;
	h->want_in = 0;
}

static void
end_writing(struct half *h)
{
	h->broken = true;
	h->want_out = 0;
	h->start = h->end = h->in_pipe = 0;
	end_reading(h);
}

/* What was read before the hand-over comes first. */
static ssize_t
receive(struct half *h)
{
	unsigned char *at = h->buffer + h->end;
	size_t room = BUFFER_SIZE - h->end, n = conn_buffered(h->from);

	if (n == 0)
		return conn_recv(h->from, at, room, &h->want_in);
	if (n > room)
		n = room;
	memcpy(at, h->from->in + h->from->in_start, n);
	h->from->in_start += n;
	return (ssize_t)n;
}

/* Reads while there is room; whether anything came. */
static bool
half_read(struct half *h)
{
	bool moved = false;
	ssize_t n;

	if (h->start == h->end)
		h->start = h->end = 0;
	h->want_in = 0;
	while (!h->ended && h->end < BUFFER_SIZE) {
		n = receive(h);
		if (n > 0) {
			if (h->replies != NULL)
				follow(h->replies, h->buffer + h->end,
				    (size_t)n);
			h->end += (size_t)n;
			h->want_in = 0;
			moved = true;
			/* A socket gives all it has at once, TLS by records. */
			if (h->from->tls == NULL)
				break;
		} else if (would_wait(n)) {
			break;
		} else if (n == 0 || errno != EINTR) {
			h->lost = n == -1;
			end_reading(h);
			moved = true;
		}
	}
	return moved;
}

static bool
half_write(struct half *h)
{
	bool moved = false;
	ssize_t n;

	h->want_out = 0;
	while (h->start < h->end) {
		n = conn_send(h->to, h->buffer + h->start, h->end - h->start,
		    &h->want_out);
		if (n > 0) {
			h->start += (size_t)n;
			h->moved += (size_t)n;
			h->want_out = 0;
			moved = true;
		} else if (would_wait(n)) {
			break;
		} else if (n == 0 || errno != EINTR) {
			end_writing(h);
			return true;
		}
	}
	return moved;
}

/* --- splice -------------------------------------------------------------- */

static bool
is_spliced(struct half *h)
{
	if (h->pipe[0] != -1)
		return true;
	if (!h->spliceable || h->moved < SPLICE_FROM || h->start < h->end ||
	    conn_buffered(h->from) > 0 || h->from->tls != NULL || h->to->tls != NULL ||
	    !h->from->is_socket || !h->to->is_socket)
		return false;
	if (pipe2(h->pipe, O_NONBLOCK | O_CLOEXEC) == -1) {
		h->pipe[0] = -1;
		return false;
	}
	(void)fcntl(h->pipe[1], F_SETPIPE_SZ, SPLICE_PIPE);
	return true;
}

/* A kernel, a filter or a kind of socket that has no splice: as before. */
static void
end_splicing(struct half *h)
{
	(void)close(h->pipe[0]);
	(void)close(h->pipe[1]);
	h->pipe[0] = -1;
	h->spliceable = false;
}

static bool
splice_in(struct half *h)
{
	ssize_t n;

	h->want_in = 0;
	if (h->ended || h->in_pipe > 0)
		return false;
	n = splice(h->from->rfd, NULL, h->pipe[1], NULL, SPLICE_PIPE,
	    SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (n > 0) {
		h->in_pipe += (size_t)n;
		return true;
	}
	if (would_wait(n)) {
		h->want_in = POLLIN;
		return false;
	}
	if (n == -1 &&
	    (errno == EINVAL || errno == ENOSYS || errno == EPERM)) {
		end_splicing(h);
	} else if (n == 0 || errno != EINTR) {
		h->lost = n == -1;
		end_reading(h);
	}
	return true;
}

static bool
splice_out(struct half *h)
{
	bool moved = false;
	ssize_t n;

	h->want_out = 0;
	while (h->in_pipe > 0) {
		n = splice(h->pipe[0], NULL, h->to->wfd, NULL, h->in_pipe,
		    SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
		if (n > 0) {
			h->in_pipe -= (size_t)n;
			h->moved += (size_t)n;
			moved = true;
		} else if (would_wait(n)) {
			h->want_out = POLLOUT;
			break;
		} else if (n == 0 || errno != EINTR) {
			end_writing(h);
			return true;
		}
	}
	return moved;
}

/* ------------------------------------------------------------------------- */

static bool
is_empty(const struct half *h)
{
	return h->start == h->end && h->in_pipe == 0;
}

/* Once all is delivered, the end is. */
static bool
carry_end(struct half *h)
{
	if (!h->ended || h->told || !is_empty(h))
		return false;
	h->told = true;
	if (!h->broken)
		conn_shutdown_write(h->to);
	return true;
}

static bool
move(struct half *h)
{
	bool moved;

	if (is_spliced(h)) {
		moved = splice_in(h);
		return splice_out(h) || moved;
	}
	moved = half_read(h);
	return half_write(h) || moved;
}

/* Waits for what the two halves want of the two connections. */
static void
wait_for(const struct half *up, const struct half *down, int64_t deadline)
{
	const struct conn *client = up->from, *upstream = down->from;
	const short at_client = up->want_in | down->want_out;
	const short at_upstream = down->want_in | up->want_out;
	struct pollfd fds[] = {
	    {.fd = client->rfd, .events = at_client & POLLIN},
	    {.fd = client->wfd, .events = at_client & POLLOUT},
	    {.fd = upstream->rfd, .events = at_upstream & POLLIN},
	    {.fd = upstream->wfd, .events = at_upstream & POLLOUT},
	};
	size_t i;

	/* One that nothing is wanted of would report its end for ever. */
	for (i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i].events == 0)
			fds[i].fd = -1;
	(void)poll(fds, sizeof(fds) / sizeof(fds[0]), clock_left(deadline));
}

/*
 * A last line of ours, if the client is between two replies: a reply that was
 * begun must not be completed, for its code may be a success.
 */
static void
say_last(struct conn *client, const struct replies *replies, const char *line)
{
	if (!is_between(replies))
		return;
	conn_set_timeout(client, LAST_WAIT);
	(void)conn_write(client, line, strlen(line));
	(void)conn_flush(client);
}

static enum proxy_end
copy(struct proxy *p, struct half *up, struct half *down)
{
	const struct replies *replies = down->replies;
	int64_t deadline = clock_in(p->timeout_ms);
	enum proxy_end end = PROXY_DONE;
	bool moved;

	for (;;) {
		moved = move(up);
		moved |= carry_end(up);
		moved |= move(down);
		/* Many a client hangs up as soon as it has its 221. */
		if (down->broken || (up->lost && up->told))
			return said_goodbye(replies) ? PROXY_DONE
						     : PROXY_CLIENT_LOST;
		if (down->ended && !down->told && is_empty(down)) {
			if (!said_goodbye(replies)) {
				say_last(p->client, replies, p->lost);
				/* A client that said no more was through. */
				end = up->told ? PROXY_DONE
					       : PROXY_UPSTREAM_LOST;
			}
			(void)carry_end(down);
			deadline = clock_in(LAST_WAIT);
		}
		if (down->told && (up->told || up->broken))
			return end;
		if (moved && !down->told)
			deadline = clock_in(p->timeout_ms);
		if (clock_left(deadline) == 0)
			break;
		if (!moved)
			wait_for(up, down, deadline);
	}
	if (down->told)
		return end;
	/* What it has not taken of a reply stands before any line of ours. */
	if (is_empty(down))
		say_last(p->client, replies, p->idle);
	return PROXY_TIMEOUT;
}

enum proxy_end
proxy_run(struct proxy *p)
{
	static unsigned char up_buffer[BUFFER_SIZE], down_buffer[BUFFER_SIZE];
	struct replies replies = {.len = 0};
	struct half up = {.from = p->client,
	    .to = p->upstream,
	    .buffer = up_buffer,
	    .pipe = {-1, -1},
	    .spliceable = true};
	struct half down = {.from = p->upstream,
	    .to = p->client,
	    .buffer = down_buffer,
	    .pipe = {-1, -1},
	    .replies = &replies};
	enum proxy_end end = copy(p, &up, &down);

	if (up.pipe[0] != -1) {
		(void)close(up.pipe[0]);
		(void)close(up.pipe[1]);
	}
	p->bytes_up = up.moved;
	p->bytes_down = down.moved;
	return end;
}
