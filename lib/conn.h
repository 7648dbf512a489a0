/*
 * A connection: buffered bytes under a deadline, plain or TLS. Blocking to its
 * caller, never past the deadline. It does not know SMTP beyond the end of a
 * line, and it never logs.
 */
#ifndef LIB_CONN_H
#define LIB_CONN_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tls.h"

/* Replies are gathered here until the peer must be waited for. */
#define CONN_OUT_SIZE 4096

enum conn_result {
	CONN_OK,
	CONN_EOF,     /* the peer will say no more */
	CONN_TIMEOUT, /* the deadline has come */
	CONN_STOPPED, /* SIGTERM has come: conn_heed_sigterm() */
	CONN_FAILED   /* the connection is broken: errno, or tls's error() */
};

struct conn {
	int rfd, wfd;	     /* one socket twice, or two ends of pipes */
	bool is_socket;	     /* non-blocking; else read and written in bits */
	bool stoppable;	     /* SIGTERM ends its waits for input */
	bool lf_ends_line;   /* typed by hand: a bare LF is a line's end */
	struct tls *tls;     /* NULL: plain */
	const struct tls_api *tls_api;
	int64_t deadline;    /* of every wait; see lib/clock.h */
	unsigned char *in;   /* the caller's memory */
	size_t in_size, in_start, in_end; /* unread: in[in_start, in_end) */
	unsigned char out[CONN_OUT_SIZE];
	size_t out_len;
	bool eof;	     /* the peer's end was seen, after in[] */
	bool failed;	     /* broken: every later call says so at once */
	uint64_t bytes_in, bytes_out; /* as its user sees them, not TLS's */
};

/* One line as conn_read_line() found it, without its end. */
struct conn_line {
	char *text; /* in the buffer, NUL at its end; until the next read */
	size_t len;
	bool too_long; /* over the limit: text is "", the line was skipped */
	bool malformed; /* holds a NUL, or a CR or LF that ends no line */
};

/*
 * From now on SIGTERM ends the waits for input of a `stoppable` connection with
 * CONN_STOPPED, and nothing else: for a process that serves to its end what was
 * begun. `mask` is put in force, with SIGTERM let in only by those waits.
 */
void conn_heed_sigterm(const sigset_t *mask);

/* Whether it has come; and poll(2) that it interrupts where it is heeded. */
bool conn_is_stopped(void);
int conn_poll(struct pollfd *fds, nfds_t n, int ms);

/*
 * Makes a connection over `rfd` and `wfd` (the same for a socket) that reads
 * into `buffer`. Sockets become non-blocking and lose Nagle's algorithm; the
 * fds stay the caller's, but for conn_shutdown_write().
 */
void conn_init(
    struct conn *c, int rfd, int wfd, void *buffer, size_t buffer_size);

/* Sets the deadline of the waits to come: `ms` milliseconds from now. */
void conn_set_timeout(struct conn *c, int64_t ms);

/*
 * Reads one line, CRLF at its end, of at most `max` octets with its end (at
 * most buffer_size). What was written is flushed before the peer is waited for.
 * A longer line is skipped to its end and reported in `line`, and nothing
 * behind it is lost. CONN_EOF drops an unfinished line.
 */
enum conn_result conn_read_line(
    struct conn *c, size_t max, struct conn_line *line);

/* Overwrites what conn_read_line() returned last: it was a secret. */
void conn_wipe_line(struct conn_line *line);

/* Reads and throws away `n` octets. */
enum conn_result conn_skip(struct conn *c, uint64_t n);

/*
 * Waits until something is buffered, so that its first octet can be looked at
 * before a line is asked for.
 */
enum conn_result conn_await(struct conn *c);

/*
 * Queues bytes to write, and writes when the queue is full. A failure stays in
 * the connection and is told by the next read, so replies need not check.
 */
enum conn_result conn_write(struct conn *c, const void *data, size_t len);
enum conn_result conn_print(struct conn *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Writes what is queued. */
enum conn_result conn_flush(struct conn *c);

/*
 * Whether the peer has said anything, or left, without waiting: 1 bytes are
 * there (buffered now), 0 nothing yet, -1 the peer has left or is broken. TLS's
 * own records do not count as bytes.
 */
int conn_peek(struct conn *c);

/* Forgets and wipes all input read so far (RFC 3207 section 4.2). */
void conn_forget_input(struct conn *c);

/* Unread octets in the buffer. */
static inline size_t
conn_buffered(const struct conn *c)
{
	return c->in_end - c->in_start;
}

/*
 * One read or write that does not wait, past the buffers, for copy loops.
 * > 0: octets; 0: the peer's end (read only); -1: errno, EAGAIN when it would
 * wait, then *events (POLLIN or POLLOUT) says for what.
 */
ssize_t conn_recv(struct conn *c, void *buf, size_t len, short *events);
ssize_t conn_send(struct conn *c, const void *buf, size_t len, short *events);

/*
 * Waits until `events` on the connection or the deadline. CONN_OK or
 * CONN_TIMEOUT.
 */
enum conn_result conn_wait(struct conn *c, short events);

/*
 * Runs the handshake of c->tls, which the caller has just set, to its end.
 * CONN_FAILED: tls's error() says why.
 */
enum conn_result conn_handshake(struct conn *c);

/*
 * Says that we will write no more: close_notify under TLS, then FIN; of two
 * pipes the one that is written to is closed.
 */
void conn_shutdown_write(struct conn *c);

/*
 * The end of a connection whose last reply should arrive: says that we will
 * write no more and reads what the peer had still to say, for `ms` at most. A
 * socket closed with unread input sends RST, which takes the reply away from
 * the peer.
 */
void conn_linger(struct conn *c, int64_t ms);

#endif
