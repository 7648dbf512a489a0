/*
 * lib/conn.c: lines, limits, deadlines and the last reply, over sockets and
 * pipes, and over a TLS that is a table of our own. A SOCK_SEQPACKET socket
 * shows where reads and writes were split: one packet, one call.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/clock.h"
#include "lib/conn.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

/* Of most tests: small, so that every line comes to its end somewhere. */
#define BUFFER 32

/* Enough for what must happen, little for what must not. */
#define SOON  2000
#define BRIEF 60

static struct conn c;
static struct conn_line line;
static unsigned char buffer[16384];
static int fds[4]; /* ours, the peer's; with pipes ours are 0 and 3 */
static int peer;

/* --- two ends ------------------------------------------------------------ */

static void
begin(int rfd, int wfd, size_t size)
{
	memset(buffer, 'B', sizeof(buffer));
	conn_init(&c, rfd, wfd, buffer, size);
	conn_set_timeout(&c, SOON);
}

static void
use_socket(int type, size_t size)
{
	assert_int_equal(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds), 0);
	peer = fds[1];
	begin(fds[0], fds[0], size);
}

static void
use_pipes(size_t size)
{
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(pipe2(fds + 2, O_CLOEXEC), 0);
	peer = fds[1];
	begin(fds[0], fds[3], size);
}

static void
use_tcp(size_t size)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	socklen_t len = sizeof(in);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(listener, (struct sockaddr *)&in, len), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(
	    getsockname(listener, (struct sockaddr *)&in, &len), 0);
	peer = fds[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(peer, (struct sockaddr *)&in, len), 0);
	fds[0] = accept(listener, NULL, NULL);
	assert_true(fds[0] >= 0);
	(void)close(listener);
	begin(fds[0], fds[0], size);
}

static int
set_up(void **state)
{
	(void)state;
	fds[0] = fds[1] = fds[2] = fds[3] = -1;
	return 0;
}

static void
close_fd(int i)
{
	if (fds[i] != -1)
		(void)close(fds[i]);
	fds[i] = -1;
}

static int
tear_down(void **state)
{
	int i;

	(void)state;
	for (i = 0; i < 4; i++)
		close_fd(i);
	return 0;
}

static void
say_bytes(const void *data, size_t len)
{
	assert_int_equal(
	    send(peer, data, len, MSG_NOSIGNAL | MSG_DONTWAIT), (int)len);
}

static void
say(const char *text)
{
	say_bytes(text, strlen(text));
}

/* One packet, or all that a stream has now, is `text`; NULL: nothing. */
static void
expect_heard(const char *text)
{
	char got[8192];
	ssize_t n = recv(peer, got, sizeof(got), MSG_DONTWAIT);

	if (text == NULL) {
		assert_int_equal(n, -1);
		assert_int_equal(errno, EAGAIN);
		return;
	}
	assert_int_equal(n, (int)strlen(text));
	assert_memory_equal(got, text, (size_t)n);
}

static void
expect_line(size_t max, const char *text)
{
	assert_int_equal(conn_read_line(&c, max, &line), CONN_OK);
	assert_false(line.too_long);
	assert_false(line.malformed);
	assert_string_equal(line.text, text);
	assert_int_equal(line.len, strlen(text));
}

static void
expect_too_long(size_t max)
{
	assert_int_equal(conn_read_line(&c, max, &line), CONN_OK);
	assert_true(line.too_long);
	assert_string_equal(line.text, "");
	assert_int_equal(line.len, 0);
}

/* --- lines --------------------------------------------------------------- */

static void
crlf_ends_a_line(void **state)
{
	(void)state;
	use_socket(SOCK_STREAM, BUFFER);
	say("EHLO x\r\n\r\n a b \t\r\nQUIT\r\n");
	expect_line(BUFFER, "EHLO x");
	expect_line(BUFFER, "");
	expect_line(BUFFER, " a b \t");
	assert_int_equal(conn_buffered(&c), 6);
	expect_line(BUFFER, "QUIT");
	assert_int_equal(conn_buffered(&c), 0);
	assert_int_equal(c.bytes_in, 24);
}

/* Each is one line, refused as one, and what is behind it is untouched. */
static void
anything_else_is_malformed(void **state)
{
	static const struct {
		const char *text;
		size_t len;
	} bad[] = {
#define BAD(s) {s, sizeof(s) - 1}
	    BAD("a\nb\r\n"), BAD("\n\r\n"), BAD("a\n\r\n"),
	    BAD("a\rb\r\n"), BAD("\r\r\n"), BAD("a\r\r\n"),
	    BAD("\0\r\n"), BAD("a\0b\r\n"), BAD("a\0\r\n"),
	    BAD("\n\n\n\n\r\n"), BAD("a\n.\nb\r\n"),
#undef BAD
	};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(bad); i++) {
		use_socket(SOCK_STREAM, BUFFER);
		say_bytes(bad[i].text, bad[i].len);
		say("next\r\n");
		assert_int_equal(
		    conn_read_line(&c, BUFFER, &line), CONN_OK);
		assert_true(line.malformed);
		assert_false(line.too_long);
		expect_line(BUFFER, "next");
		assert_int_equal(conn_buffered(&c), 0);
		(void)tear_down(NULL);
	}
}

static void
by_hand_lf_ends_a_line(void **state)
{
	(void)state;
	use_pipes(BUFFER);
	c.lf_ends_line = true;
	assert_int_equal(write(peer, "a\nb\r\n\n\r\nc\rd\n", 12), 12);
	expect_line(BUFFER, "a");
	expect_line(BUFFER, "b");
	expect_line(BUFFER, "");
	expect_line(BUFFER, "");
	assert_int_equal(conn_read_line(&c, BUFFER, &line), CONN_OK);
	assert_true(line.malformed);
}

/* A line of `len` octets with its end, all of them `fill` but for that. */
static size_t
make_line(char *out, size_t len, char fill)
{
	memset(out, fill, len);
	memcpy(out + len - 2, "\r\n", 2);
	return len;
}

/* One octet under the limit, at it, over it; and far over it. */
static void
limits(void **state)
{
	static const size_t sizes[] = {BUFFER, BUFFER + 1, 100};
	char text[200];
	size_t i, len, max = BUFFER;

	(void)state;
	for (i = 0; i < LENGTH(sizes); i++) {
		for (len = 2; len < sizeof(text); len++) {
			use_socket(SOCK_STREAM, sizes[i]);
			say_bytes(text, make_line(text, len, 'x'));
			say("next\r\n");
			if (len > max) {
				expect_too_long(max);
			} else {
				text[len - 2] = '\0';
				expect_line(max, text);
			}
			expect_line(max, "next");
			(void)tear_down(NULL);
		}
	}
}

/* More than the buffer holds is never asked for. */
static void
the_buffer_is_a_limit_too(void **state)
{
	char text[BUFFER + 1];

	(void)state;
	use_socket(SOCK_STREAM, BUFFER);
	say_bytes(text, make_line(text, BUFFER, 'x'));
	say_bytes(text, make_line(text, BUFFER + 1, 'x'));
	say("next\r\n");
	assert_int_equal(conn_read_line(&c, 1000, &line), CONN_OK);
	assert_int_equal(line.len, BUFFER - 2);
	expect_too_long(1000);
	expect_line(1000, "next");
}

/* Long lines with CR and LF in all the wrong places. */
static const char *const monsters[] = {
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n",
    "\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\n",
    "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\r\n",
    "xxxxxxxxxxxxxxx\rxxxxxxxxxxxxxxxx\nxxxxxxxxxxxxxx\r\r\n",
    "xxxxxxxxxxxxxxx\nxxxxxxxxxxxxxxxx\rxxxxxxxxxxxxxx\n\r\n",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\rxxxxxxxxxxxxxx\r\n",
    "xxxxxxxxxxxxxx\r\rxxxxxxxxxxxxxx\rx\r\r\r\r\nxx\r\r\r\n",
};

static void
expect_monster_and_next(void)
{
	/* Wherever its real end is, what is behind it is "next". */
	do
		assert_int_equal(conn_read_line(&c, 16, &line), CONN_OK);
	while (line.too_long || line.malformed);
	assert_string_equal(line.text, "next");
	assert_int_equal(conn_buffered(&c), 0);
}

static void
long_lines_octet_by_octet(void **state)
{
	size_t i, j, size;
	const char *m;

	(void)state;
	for (i = 0; i < LENGTH(monsters); i++) {
		for (size = 16; size <= 48; size++) {
			use_socket(SOCK_SEQPACKET, size);
			m = monsters[i];
			for (j = 0; m[j] != '\0'; j++)
				say_bytes(m + j, 1);
			for (j = 0; j < 6; j++)
				say_bytes(&"next\r\n"[j], 1);
			expect_monster_and_next();
			(void)tear_down(NULL);
		}
	}
}

static void
long_lines_in_every_split(void **state)
{
	size_t i, at, len;
	char text[128];

	(void)state;
	for (i = 0; i < LENGTH(monsters); i++) {
		len = strlen(monsters[i]);
		memcpy(text, monsters[i], len);
		memcpy(text + len, "next\r\n", 6);
		for (at = 1; at < len + 6; at++) {
			/* Packets longer than the room would be cut. */
			use_socket(SOCK_STREAM, 20);
			say_bytes(text, at);
			assert_int_equal(conn_await(&c), CONN_OK);
			say_bytes(text + at, len + 6 - at);
			expect_monster_and_next();
			(void)tear_down(NULL);
		}
	}
}

/* A batch longer than the buffer: each line is there, once, in order. */
static void
a_batch_longer_than_the_buffer(void **state)
{
	static const char words[] = "NOOP NOOP NOOP NOOP NOOP";
	char batch[16384], text[48];
	size_t len = 0;
	int i;

	(void)state;
	use_socket(SOCK_STREAM, BUFFER);
	for (i = 0; i < 500; i++)
		len += (size_t)snprintf(batch + len, sizeof(batch) - len,
		    "%.*s %d\r\n", i % 20, words, i);
	say_bytes(batch, len);
	for (i = 0; i < 500; i++) {
		(void)snprintf(
		    text, sizeof(text), "%.*s %d", i % 20, words, i);
		expect_line(BUFFER, text);
	}
}

static void
a_wiped_line_is_gone(void **state)
{
	(void)state;
	use_socket(SOCK_STREAM, BUFFER);
	say("c2VjcmV0\r\nnext\r\n");
	expect_line(BUFFER, "c2VjcmV0");
	conn_wipe_line(&line);
	assert_null(memmem(buffer, sizeof(buffer), "2VjcmV", 6));
	expect_line(BUFFER, "next");
	memset(&line, 0, sizeof(line));
	conn_wipe_line(&line);
}

/* --- ends and deadlines -------------------------------------------------- */

static void
an_unfinished_line_is_dropped(void **state)
{
	static const char *const texts[] = {"", "QUIT", "QUIT\r", "QUIT\n"};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(texts); i++) {
		use_socket(SOCK_STREAM, BUFFER);
		say("first\r\n");
		say(texts[i]);
		assert_int_equal(shutdown(peer, SHUT_WR), 0);
		expect_line(BUFFER, "first");
		(void)conn_print(&c, "250 ok\r\n");
		assert_int_equal(conn_read_line(&c, BUFFER, &line), CONN_EOF);
		assert_int_equal(conn_read_line(&c, BUFFER, &line), CONN_EOF);
		/* The reply that was due has been given all the same. */
		expect_heard("250 ok\r\n");
		(void)tear_down(NULL);
	}
}

static void
silence_ends_at_the_deadline(void **state)
{
	static const char *const texts[] = {"", "NOOP", "NOOP\r"};
	int64_t began;
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(texts); i++) {
		use_socket(SOCK_STREAM, BUFFER);
		say(texts[i]);
		began = clock_ms();
		conn_set_timeout(&c, BRIEF);
		assert_int_equal(
		    conn_read_line(&c, BUFFER, &line), CONN_TIMEOUT);
		assert_in_range(clock_ms() - began, BRIEF, SOON);
		/* It is not broken: a last reply can be given. */
		(void)conn_print(&c, "421 late\r\n");
		assert_int_equal(conn_flush(&c), CONN_OK);
		expect_heard("421 late\r\n");
		(void)tear_down(NULL);
	}
}

/* A client that sends an octet now and then gets no more time for it. */
static void
a_trickle_does_not_stretch_the_deadline(void **state)
{
	int64_t began = clock_ms();
	pid_t pid;

	(void)state;
	use_socket(SOCK_STREAM, BUFFER);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		while (send(peer, "x", 1, MSG_NOSIGNAL) == 1)
			(void)usleep(10000);
		_exit(0);
	}
	conn_set_timeout(&c, BRIEF);
	assert_int_equal(conn_read_line(&c, BUFFER, &line), CONN_TIMEOUT);
	assert_in_range(clock_ms() - began, BRIEF, SOON);
	(void)kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* Half of a line that moved to the front leaves nothing where it was. */
static void
a_line_that_moved_is_gone_when_wiped(void **state)
{
	(void)state;
	use_socket(SOCK_STREAM, BUFFER);
	say("NOOP 1234567890123\r\nc2VjcmV0LXN");
	expect_line(BUFFER, "NOOP 1234567890123");
	say("l\r\n....");
	expect_line(BUFFER, "c2VjcmV0LXNl");
	conn_wipe_line(&line);
	assert_null(memmem(buffer, BUFFER, "cmV0", 4));
	assert_null(memmem(buffer, BUFFER, "LXN", 3));
}

static void
skipping(void **state)
{
	char chunk[100];

	(void)state;
	memset(chunk, '\n', sizeof(chunk));
	use_socket(SOCK_STREAM, BUFFER);
	say("BDAT 100\r\n");
	say_bytes(chunk, sizeof(chunk));
	say("next\r\n");
	expect_line(BUFFER, "BDAT 100");
	assert_int_equal(conn_skip(&c, 0), CONN_OK);
	assert_int_equal(conn_skip(&c, sizeof(chunk)), CONN_OK);
	expect_line(BUFFER, "next");
	conn_set_timeout(&c, BRIEF);
	assert_int_equal(conn_skip(&c, 1), CONN_TIMEOUT);
	say("abc");
	assert_int_equal(shutdown(peer, SHUT_WR), 0);
	assert_int_equal(conn_skip(&c, UINT64_MAX), CONN_EOF);
}

static void
a_broken_connection_stays_broken(void **state)
{
	(void)state;
	use_socket(SOCK_STREAM, BUFFER);
	say("left\r\n");
	close_fd(1);
	(void)conn_print(&c, "250 ok\r\n");
	assert_int_equal(conn_flush(&c), CONN_FAILED);
	assert_int_equal(errno, EPIPE);
	assert_int_equal(conn_flush(&c), CONN_FAILED);
	assert_int_equal(conn_write(&c, "x", 1), CONN_FAILED);
	assert_int_equal(conn_read_line(&c, BUFFER, &line), CONN_FAILED);
	assert_int_equal(conn_peek(&c), -1);
	conn_linger(&c, SOON);
}

/* --- writing ------------------------------------------------------------- */

/* One packet for all replies of a batch, and only when we must wait. */
static void
replies_are_gathered(void **state)
{
	(void)state;
	use_socket(SOCK_SEQPACKET, BUFFER);
	say("a\r\nb\r\nc\r\n");
	expect_line(BUFFER, "a");
	(void)conn_print(&c, "250 %s\r\n", "a");
	expect_line(BUFFER, "b");
	(void)conn_write(&c, "250 b\r\n", 7);
	expect_line(BUFFER, "c");
	(void)conn_print(&c, "250 %d\r\n", 3);
	expect_heard(NULL);
	conn_set_timeout(&c, 0);
	assert_int_equal(conn_read_line(&c, BUFFER, &line), CONN_TIMEOUT);
	expect_heard("250 a\r\n250 b\r\n250 3\r\n");
	expect_heard(NULL);
	assert_int_equal(c.bytes_out, 21);
}

static void
a_full_queue_is_written(void **state)
{
	static char big[2 * CONN_OUT_SIZE + 5];
	char got[CONN_OUT_SIZE + 1];
	int i;

	(void)state;
	memset(big, 'r', sizeof(big));
	use_socket(SOCK_SEQPACKET, BUFFER);
	assert_int_equal(conn_write(&c, big, sizeof(big)), CONN_OK);
	for (i = 0; i < 2; i++)
		assert_int_equal(recv(peer, got, sizeof(got), MSG_DONTWAIT),
		    CONN_OUT_SIZE);
	expect_heard(NULL);
	assert_int_equal(conn_flush(&c), CONN_OK);
	expect_heard("rrrrr");
}

static void
what_does_not_fit_a_line_is_not_cut(void **state)
{
	char text[3000];

	(void)state;
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	use_socket(SOCK_STREAM, BUFFER);
	assert_int_equal(conn_print(&c, "250 %s\r\n", text), CONN_FAILED);
	expect_heard(NULL);
}

/* Who does not read holds us no longer than the deadline. */
static void
slow_reader(void **state)
{
	static char big[1 << 20];
	int64_t began;
	int small = 4096;

	(void)state;
	use_socket(SOCK_STREAM, BUFFER);
	(void)setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	conn_set_timeout(&c, BRIEF);
	began = clock_ms();
	assert_int_equal(conn_write(&c, big, sizeof(big)), CONN_TIMEOUT);
	assert_in_range(clock_ms() - began, BRIEF, SOON);
	/* A reply half written: nothing may be said behind it. */
	assert_int_equal(conn_print(&c, "421 late\r\n"), CONN_FAILED);
	assert_int_equal(conn_read_line(&c, BUFFER, &line), CONN_FAILED);
}

/* --- looking, forgetting ------------------------------------------------- */

static void
peeking(void **state)
{
	(void)state;
	use_socket(SOCK_STREAM, BUFFER);
	assert_int_equal(conn_peek(&c), 0);
	say("x\r\n");
	assert_int_equal(conn_peek(&c), 1);
	assert_int_equal(conn_peek(&c), 1);
	assert_int_equal(conn_await(&c), CONN_OK);
	assert_int_equal(buffer[c.in_start], 'x');
	expect_line(BUFFER, "x");
	assert_int_equal(conn_peek(&c), 0);
	assert_int_equal(shutdown(peer, SHUT_WR), 0);
	assert_int_equal(conn_peek(&c), -1);
	assert_int_equal(conn_await(&c), CONN_EOF);
}

static void
what_came_before_the_end_is_seen_first(void **state)
{
	(void)state;
	use_socket(SOCK_STREAM, BUFFER);
	say("x\r\n");
	assert_int_equal(shutdown(peer, SHUT_WR), 0);
	assert_int_equal(conn_peek(&c), 1);
	expect_line(BUFFER, "x");
	assert_int_equal(conn_peek(&c), -1);
}

static void
forgotten_input_is_wiped(void **state)
{
	size_t i;

	(void)state;
	use_socket(SOCK_STREAM, BUFFER);
	say("STARTTLS\r\nAUTH PLAIN AGEAYg==\r\n");
	expect_line(BUFFER, "STARTTLS");
	assert_int_not_equal(conn_buffered(&c), 0);
	conn_forget_input(&c);
	assert_int_equal(conn_buffered(&c), 0);
	for (i = 0; i < BUFFER; i++)
		assert_int_equal(buffer[i], 0);
	/* No further than that. */
	assert_int_equal(buffer[BUFFER], 'B');
	say("EHLO x\r\n");
	expect_line(BUFFER, "EHLO x");
}

/* --- kinds of connection ------------------------------------------------- */

static void
sockets_are_made_ready(void **state)
{
	socklen_t len = sizeof(int);
	int on = 0;

	(void)state;
	use_tcp(BUFFER);
	assert_true(c.is_socket);
	assert_true(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
	assert_int_equal(
	    getsockopt(fds[0], IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
	assert_int_not_equal(on, 0);
}

/* Their flags belong to whoever gave them to us as well. */
static void
pipes_stay_blocking_and_do_not_block(void **state)
{
	static char big[1 << 18];
	int64_t began = clock_ms();

	(void)state;
	use_pipes(BUFFER);
	assert_false(c.is_socket);
	assert_false(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
	assert_false(fcntl(fds[3], F_GETFL) & O_NONBLOCK);
	assert_int_equal(conn_peek(&c), 0);
	conn_set_timeout(&c, BRIEF);
	assert_int_equal(conn_read_line(&c, BUFFER, &line), CONN_TIMEOUT);
	conn_set_timeout(&c, BRIEF);
	assert_int_equal(conn_write(&c, big, sizeof(big)), CONN_TIMEOUT);
	assert_in_range(clock_ms() - began, 2 * BRIEF, SOON);
}

static void
pipes_end(void **state)
{
	char got[16];

	(void)state;
	use_pipes(BUFFER);
	assert_int_equal(write(peer, "a\r\n", 3), 3);
	close_fd(1);
	expect_line(BUFFER, "a");
	(void)conn_print(&c, "250 a\r\n");
	assert_int_equal(conn_read_line(&c, BUFFER, &line), CONN_EOF);
	assert_int_equal(read(fds[2], got, sizeof(got)), 7);
	close_fd(2);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)conn_print(&c, "250 b\r\n");
	assert_int_equal(conn_flush(&c), CONN_FAILED);
	(void)signal(SIGPIPE, SIG_DFL);
}

static void
a_pipes_end_is_told_by_closing_it(void **state)
{
	char got[16];

	(void)state;
	use_pipes(BUFFER);
	(void)conn_print(&c, "221 x\r\n");
	conn_shutdown_write(&c);
	fds[3] = -1;
	assert_int_equal(c.wfd, -1);
	assert_int_equal(read(fds[2], got, sizeof(got)), 7);
	assert_int_equal(read(fds[2], got, sizeof(got)), 0);
	conn_shutdown_write(&c);
	conn_linger(&c, SOON);
}

/* --- the last reply ------------------------------------------------------ */

/* What a client said and we never read must not take our reply from it. */
static void
the_last_reply_arrives(void **state)
{
	static char junk[40000];
	int64_t began;
	char got[64];

	(void)state;
	use_tcp(BUFFER);
	say_bytes(junk, sizeof(junk));
	(void)conn_print(&c, "421 bye\r\n");
	began = clock_ms();
	conn_linger(&c, BRIEF);
	assert_in_range(clock_ms() - began, BRIEF, SOON);
	close_fd(0);
	assert_int_equal(recv(peer, got, sizeof(got), 0), 9);
	assert_memory_equal(got, "421 bye\r\n", 9);
	assert_int_equal(recv(peer, got, sizeof(got), 0), 0);
}

static void
lingering_ends_with_the_peer(void **state)
{
	int64_t began = clock_ms();

	(void)state;
	use_tcp(BUFFER);
	say("QUIT\r\n");
	assert_int_equal(shutdown(peer, SHUT_WR), 0);
	conn_linger(&c, SOON);
	assert_in_range(clock_ms() - began, 0, SOON / 2);
}

static void
lingering_is_not_held_by_a_flood(void **state)
{
	static char junk[4096];
	int64_t began;
	pid_t pid;

	(void)state;
	use_tcp(BUFFER);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		while (send(peer, junk, sizeof(junk), MSG_NOSIGNAL) > 0)
			;
		_exit(0);
	}
	began = clock_ms();
	conn_linger(&c, BRIEF);
	assert_in_range(clock_ms() - began, BRIEF, SOON);
	(void)kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* --- TLS, as a table ----------------------------------------------------- */

struct step {
	enum tls_want want;
	const char *text; /* read: what came */
};

struct tls {
	const struct step *steps;
	size_t at, count;
	char written[64];
	size_t written_len;
	unsigned shutdowns;
};

static struct tls fake;

static enum tls_want
next_step(struct tls *tls, const struct step **step)
{
	if (tls->at == tls->count)
		return TLS_WANT_READ;
	*step = &tls->steps[tls->at++];
	return (*step)->want;
}

static enum tls_want
fake_handshake(struct tls *tls)
{
	const struct step *step;

	return next_step(tls, &step);
}

static enum tls_want
fake_read(struct tls *tls, void *buf, size_t len, size_t *moved)
{
	const struct step *step;
	enum tls_want want = next_step(tls, &step);

	if (want == TLS_DONE) {
		*moved = strlen(step->text);
		assert_true(*moved <= len);
		memcpy(buf, step->text, *moved);
	}
	return want;
}

/* Takes three octets a time. */
static enum tls_want
fake_write(struct tls *tls, const void *buf, size_t len, size_t *moved)
{
	const struct step *step;
	enum tls_want want = next_step(tls, &step);

	if (want == TLS_DONE) {
		*moved = len < 3 ? len : 3;
		memcpy(tls->written + tls->written_len, buf, *moved);
		tls->written_len += *moved;
	}
	return want;
}

static void
fake_shutdown(struct tls *tls)
{
	tls->shutdowns++;
}

static const struct tls_api fake_api = {
    .handshake = fake_handshake,
    .read = fake_read,
    .write = fake_write,
    .shutdown = fake_shutdown,
};

static void
use_tls(const struct step *steps, size_t count)
{
	use_socket(SOCK_STREAM, BUFFER);
	memset(&fake, 0, sizeof(fake));
	fake.steps = steps;
	fake.count = count;
	c.tls = &fake;
	c.tls_api = &fake_api;
}

/* What TLS waits for is what is polled for, whatever we are about. */
static void
tls_reads(void **state)
{
	static const struct step steps[] = {{TLS_WANT_READ, NULL},
	    {TLS_WANT_WRITE, NULL}, {TLS_DONE, "a\r"}, {TLS_DONE, "\nb\r\n"},
	    {TLS_END, NULL}};

	(void)state;
	use_tls(steps, LENGTH(steps));
	say("record");
	expect_line(BUFFER, "a");
	expect_line(BUFFER, "b");
	assert_int_equal(c.bytes_in, 6);
	assert_int_equal(conn_read_line(&c, BUFFER, &line), CONN_EOF);
}

static void
tls_breaks(void **state)
{
	static const struct step steps[] = {
	    {TLS_DONE, "a"}, {TLS_ERROR, NULL}};

	(void)state;
	use_tls(steps, LENGTH(steps));
	assert_int_equal(conn_read_line(&c, BUFFER, &line), CONN_FAILED);
	assert_int_equal(errno, EPROTO);
	/* No close_notify into a broken session. */
	conn_shutdown_write(&c);
	assert_int_equal(fake.shutdowns, 0);
}

static void
tls_writes(void **state)
{
	static const struct step steps[] = {{TLS_WANT_WRITE, NULL},
	    {TLS_DONE, NULL}, {TLS_WANT_READ, NULL}, {TLS_DONE, NULL},
	    {TLS_DONE, NULL}};

	(void)state;
	use_tls(steps, LENGTH(steps));
	say("record");
	(void)conn_print(&c, "250 ok\r\n");
	assert_int_equal(conn_flush(&c), CONN_OK);
	assert_int_equal(fake.written_len, 8);
	assert_memory_equal(fake.written, "250 ok\r\n", 8);
	assert_int_equal(c.bytes_out, 8);
	conn_shutdown_write(&c);
	assert_int_equal(fake.shutdowns, 1);
}

/* TLS that waits for ever, with nothing from the peer. */
static void
tls_has_deadlines(void **state)
{
	static const struct step write_waits[] = {{TLS_WANT_READ, NULL}};

	(void)state;
	use_tls(NULL, 0);
	assert_int_equal(conn_peek(&c), 0);
	conn_set_timeout(&c, BRIEF);
	assert_int_equal(conn_read_line(&c, BUFFER, &line), CONN_TIMEOUT);
	conn_set_timeout(&c, BRIEF);
	assert_int_equal(conn_handshake(&c), CONN_TIMEOUT);
	(void)tear_down(NULL);
	use_tls(write_waits, LENGTH(write_waits));
	conn_set_timeout(&c, BRIEF);
	(void)conn_print(&c, "250 ok\r\n");
	assert_int_equal(conn_flush(&c), CONN_TIMEOUT);
}

static void
tls_handshakes(void **state)
{
	static const struct step good[] = {
	    {TLS_WANT_READ, NULL}, {TLS_WANT_WRITE, NULL}, {TLS_DONE, NULL}};
	static const struct step ends[] = {{TLS_END, NULL}};
	static const struct step errs[] = {{TLS_ERROR, NULL}};

	(void)state;
	use_tls(good, LENGTH(good));
	say("record");
	assert_int_equal(conn_handshake(&c), CONN_OK);
	(void)tear_down(NULL);
	use_tls(ends, LENGTH(ends));
	assert_int_equal(conn_handshake(&c), CONN_EOF);
	assert_int_equal(conn_read_line(&c, BUFFER, &line), CONN_EOF);
	(void)tear_down(NULL);
	use_tls(errs, LENGTH(errs));
	assert_int_equal(conn_handshake(&c), CONN_FAILED);
	assert_int_equal(conn_read_line(&c, BUFFER, &line), CONN_FAILED);
}

/* ------------------------------------------------------------------------- */

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(crlf_ends_a_line),
	    TEST(anything_else_is_malformed),
	    TEST(by_hand_lf_ends_a_line),
	    TEST(limits),
	    TEST(the_buffer_is_a_limit_too),
	    TEST(long_lines_octet_by_octet),
	    TEST(long_lines_in_every_split),
	    TEST(a_batch_longer_than_the_buffer),
	    TEST(a_wiped_line_is_gone),
	    TEST(a_line_that_moved_is_gone_when_wiped),
	    TEST(an_unfinished_line_is_dropped),
	    TEST(silence_ends_at_the_deadline),
	    TEST(a_trickle_does_not_stretch_the_deadline),
	    TEST(skipping),
	    TEST(a_broken_connection_stays_broken),
	    TEST(replies_are_gathered),
	    TEST(a_full_queue_is_written),
	    TEST(what_does_not_fit_a_line_is_not_cut),
	    TEST(slow_reader),
	    TEST(peeking),
	    TEST(what_came_before_the_end_is_seen_first),
	    TEST(forgotten_input_is_wiped),
	    TEST(sockets_are_made_ready),
	    TEST(pipes_stay_blocking_and_do_not_block),
	    TEST(pipes_end),
	    TEST(a_pipes_end_is_told_by_closing_it),
	    TEST(the_last_reply_arrives),
	    TEST(lingering_ends_with_the_peer),
	    TEST(lingering_is_not_held_by_a_flood),
	    TEST(tls_reads),
	    TEST(tls_breaks),
	    TEST(tls_writes),
	    TEST(tls_has_deadlines),
	    TEST(tls_handshakes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
