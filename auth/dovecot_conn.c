/*
 * A connection to Dovecot's auth server: reached, introduced, then lines both
 * ways, each by a deadline. The server may be another program, or one that was
 * taken over: whatever it says is bounded here. What its answers to AUTH mean
 * is not known here.
 */
#include <sys/socket.h>
#include <sys/un.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/dns.h"
#include "lib/text.h"

#include "auth/dovecot.h"

/*
 * The minor version has meanings: from 1.2 on an empty initial response may be
 * told from none, from 1.3 on the server asks for channel bindings.
 */
#define VERSION_LINE "VERSION\t1\t4\n"
#define VERSION_MAJOR "1"

/* Lines of a handshake; one that has more talks without end. */
#define HANDSHAKE_MAX 256

static int
fail(char *err, const char *why)
{
	(void)text_copy(err, AUTH_ERROR_SIZE, why);
	return -1;
}

static int
fail_errno(char *err, const char *what)
{
	(void)snprintf(
	    err, AUTH_ERROR_SIZE, "%s: %s", what, strerror(errno));
	return -1;
}

/* --- bytes --------------------------------------------------------------- */

/* Waits for `events`. 0, or -1 with errno. */
static int
await(int fd, short events, int64_t deadline)
{
	struct pollfd pfd = {.fd = fd, .events = events};
	int left, n;

	do {
		left = clock_left(deadline);
		n = poll(&pfd, 1, left);
		if (n > 0)
			return 0;
		if (n == -1 && errno != EINTR)
			return -1;
	} while (left != 0);
	errno = ETIMEDOUT;
	return -1;
}

static int
send_all(int fd, const char *data, size_t len, int64_t deadline)
{
	ssize_t n;

	while (len > 0) {
		n = send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		} else if (n == -1 && errno != EAGAIN && errno != EINTR) {
			return -1;
		} else if (await(fd, POLLOUT, deadline) == -1) {
			return -1;
		}
	}
	return 0;
}

/* Reads more into the buffer. 0, or -1 with a line in `err`. */
static int
read_more(struct dovecot_conn *c, int64_t deadline, char *err)
{
	ssize_t n;

	if (c->start > 0) {
		memmove(c->in, c->in + c->start, c->end - c->start);
		c->end -= c->start;
		c->start = 0;
	}
	if (c->end == DOVECOT_LINE_SIZE)
		return fail(err, "its line is too long");
	for (;;) {
		n = recv(c->fd, c->in + c->end, DOVECOT_LINE_SIZE - c->end,
		    MSG_DONTWAIT);
		if (n > 0)
			break;
		if (n == 0)
			return fail(err, "it has hung up");
		if (errno != EAGAIN && errno != EINTR)
			return fail_errno(err, "it is lost");
		if (await(c->fd, POLLIN, deadline) == -1)
			return errno == ETIMEDOUT
			    ? fail(err, "it did not answer in time")
			    : fail_errno(err, "it is lost");
	}
	c->end += (size_t)n;
	return 0;
}

/* --- lines --------------------------------------------------------------- */

int
dovecot_conn_send(struct dovecot_conn *c,
    const struct dovecot_command *command, int64_t deadline, char *err)
{
	if (command->overflow)
		return fail(err, "the question is too long");
	if (send_all(c->fd, command->text, command->len, deadline) == -1)
		return fail_errno(err, "it takes no question");
	return 0;
}

int
dovecot_conn_receive(struct dovecot_conn *c, struct dovecot_line *line,
    int64_t deadline, char *err)
{
	char *start, *lf;
	size_t seen = 0;

	for (;;) {
		start = c->in + c->start;
		lf = memchr(start + seen, '\n', c->end - c->start - seen);
		if (lf != NULL)
			break;
		seen = c->end - c->start;
		if (read_more(c, deadline, err) == -1)
			return -1;
	}
	c->start = (size_t)(lf + 1 - c->in);
	if (dovecot_line_parse(line, start, (size_t)(lf - start)) == -1)
		return fail(err, "its line is malformed");
	return 0;
}

void
dovecot_conn_wipe(struct dovecot_conn *c)
{
	/* Behind what is unread there may be what was moved to the front. */
	explicit_bzero(c->in, c->start);
	explicit_bzero(c->in + c->end, sizeof(c->in) - c->end);
}

bool
dovecot_conn_is_quiet(const struct dovecot_conn *c)
{
	struct pollfd pfd = {.fd = c->fd, .events = POLLIN | POLLRDHUP};

	return c->start == c->end && poll(&pfd, 1, 0) == 0;
}

/* --- the handshake ------------------------------------------------------- */

static const struct {
	const char *word;
	unsigned flag;
} words[] = {
    {"private", DOVECOT_PRIVATE},
    {"plaintext", DOVECOT_PLAINTEXT},
    {"anonymous", DOVECOT_ANONYMOUS},
    {"channel-binding", DOVECOT_BINDING},
};

/* RFC 4422 section 3.1: what the name of a mechanism is made of. */
static bool
is_mechanism(const char *name)
{
	size_t len = strlen(name);

	return len > 0 && len < DOVECOT_MECHANISM_SIZE &&
	    strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == len;
}

/* One whose name is none is as if it had not been said. */
static void
take_mechanism(struct dovecot_conn *c, const struct dovecot_line *line)
{
	struct dovecot_mechanism *m = &c->mechanism[c->count];
	size_t i;

	if (c->count == DOVECOT_MECHANISMS_MAX || !is_mechanism(line->field[1]))
		return;
	(void)text_copy(m->name, sizeof(m->name), line->field[1]);
	m->flags = 0;
	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (dovecot_line_value(line, 2, words[i].word) != NULL)
			m->flags |= words[i].flag;
	c->count++;
}

/*
 * Any numbers do that no other client of the server has: it hangs up on whoever
 * gives the process id of another. Ours may be the same in two containers.
 */
static int
introduce(struct dovecot_conn *c, int64_t deadline, char *err)
{
	char text[64];
	uint32_t id;
	int n;

	if (getrandom(&id, sizeof(id), 0) != (ssize_t)sizeof(id))
		return fail(err, "no random numbers");
	n = snprintf(text, sizeof(text), VERSION_LINE "CPID\t%" PRIu32 "\n",
	    (id & INT32_MAX) | 1);
	if (send_all(c->fd, text, (size_t)n, deadline) == -1)
		return fail_errno(err, "it takes no greeting");
	return 0;
}

/*
 * One line of the server's. 1: it was the last one, 0, or -1 with a line in
 * `err`. SPID, CUID and COOKIE are for others, and what is not known for later
 * versions.
 */
static int
take_line(struct dovecot_conn *c, const struct dovecot_line *line, char *err)
{
	if (dovecot_line_is(line, "MECH", 2))
		take_mechanism(c, line);
	if (!dovecot_line_is(line, "DONE", 1))
		return 0;
	return c->count > 0 ? 1 : fail(err, "it offers no mechanism");
}

/* Adds to a line of why. */
static void
hint(char *err, const char *text)
{
	size_t len = strlen(err);

	(void)snprintf(err + len, AUTH_ERROR_SIZE - len, "%s", text);
}

static int
shake_hands(struct dovecot_conn *c, int64_t deadline, char *err)
{
	struct dovecot_line line;
	int i, r = 0;

	if (introduce(c, deadline, err) == -1 ||
	    dovecot_conn_receive(c, &line, deadline, err) == -1)
		return -1;
	if (!dovecot_line_is(&line, "VERSION", 3))
		return fail(err, "it is no auth server");
	if (strcmp(line.field[1], VERSION_MAJOR) != 0)
		return fail(err, "its version is another one");
	for (i = 0; r == 0 && i < HANDSHAKE_MAX; i++) {
		r = dovecot_conn_receive(c, &line, deadline, err);
		if (r == 0)
			r = take_line(c, &line, err);
	}
	/* As on auth-userdb and auth-master. */
	if (r == -1 && c->count == 0)
		hint(err, "; it named no mechanism: is it for clients?");
	return r == 1 ? 0 : r == -1 ? -1 : fail(err, "its greeting has no end");
}

/* --- the way to it ------------------------------------------------------- */

static int
connect_to(const struct sockaddr *addr, socklen_t len, int64_t deadline,
    char *err)
{
	int fd, error = 0;
	socklen_t size = sizeof(error);

	fd = socket(addr->sa_family,
	    SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd == -1)
		return fail_errno(err, "socket");
	if (connect(fd, addr, len) == 0)
		return fd;
	/* A UNIX socket's queue that is full says EAGAIN: it is not in time. */
	if (errno == EINPROGRESS && await(fd, POLLOUT, deadline) == 0 &&
	    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0) {
		if (error == 0)
			return fd;
		errno = error;
	}
	(void)fail_errno(err, "connect");
	(void)close(fd);
	return -1;
}

static int
connect_unix(const char *path, int64_t deadline, char *err)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	if (text_copy(un.sun_path, sizeof(un.sun_path), path) == -1)
		return fail(err, "its path is too long");
	return connect_to(
	    (const struct sockaddr *)&un, sizeof(un), deadline, err);
}

/* The addresses in turn, each with its share of the time. */
static int
connect_host(
    const char *where, const char *resolver, int64_t deadline, char *err)
{
	struct dns_addr addrs[DNS_MAX_ADDRS];
	char host[DNS_NAME_SIZE];
	struct dns *dns;
	uint16_t port;
	int i, n, fd = -1;

	if (text_endpoint(where, host, sizeof(host), &port) == -1)
		return fail(err, "its address is not host:port");
	dns = dns_new(resolver, deadline);
	if (dns == NULL)
		return fail(err, "out of memory");
	n = dns_addresses(dns, host, port, addrs, DNS_MAX_ADDRS);
	dns_free(dns);
	if (n <= 0)
		return fail(err, n == 0 ? "its host has no address"
					: "its host name cannot be resolved");
	for (i = 0; fd == -1 && i < n; i++)
		fd = connect_to((const struct sockaddr *)&addrs[i].addr,
		    addrs[i].len,
		    clock_in((deadline - clock_ms()) / (n - i)), err);
	return fd;
}

struct dovecot_conn *
dovecot_conn_open(
    const char *where, const char *resolver, int64_t deadline, char *err)
{
	struct dovecot_conn *c = calloc(1, sizeof(*c));

	if (c == NULL) {
		(void)fail(err, "out of memory");
		return NULL;
	}
	c->opened = clock_ms();
	c->fd = *where == '/' ? connect_unix(where, deadline, err)
			      : connect_host(where, resolver, deadline, err);
	if (c->fd != -1 && shake_hands(c, deadline, err) == 0)
		return c;
	dovecot_conn_close(c);
	return NULL;
}

void
dovecot_conn_close(struct dovecot_conn *c)
{
	if (c == NULL)
		return;
	if (c->fd != -1)
		(void)close(c->fd);
	explicit_bzero(c->in, sizeof(c->in));
	free(c);
}

const struct dovecot_mechanism *
dovecot_conn_mechanism(const struct dovecot_conn *c, const char *name)
{
	size_t i;

	for (i = 0; i < c->count; i++)
		if (strcmp(c->mechanism[i].name, name) == 0)
			return &c->mechanism[i];
	return NULL;
}
