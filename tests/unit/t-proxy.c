/*
 * proxy.c between two sockets whose other ends are ours. The proxy runs in a
 * thread; what is said on one side is compared with what is heard on the other,
 * octet by octet. splice(2) is counted, and can be made to fail.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/clock.h"
#include "proxy.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

#define SOON  4000
#define BRIEF 80

#define LOST "421 lost\r\n"
#define IDLE "421 idle\r\n"

/* More than goes without splice. */
#define MUCH (3u << 20)

static struct conn client, upstream;
static unsigned char client_in[4096], upstream_in[4096];
static struct proxy proxy;
static int ours[2];   /* the proxy's: to the client, to the upstream */
static int theirs[2]; /* the client, the upstream */
static pthread_t thread;
static enum proxy_end result;
static bool running; /* until it is joined */
static atomic_bool over;
static atomic_uint splices;
static atomic_int splice_error;

/* In place of libc's. */
ssize_t
splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t len,
    unsigned flags)
{
	splices++;
	if (splice_error != 0) {
		errno = splice_error;
		return -1;
	}
	return syscall(SYS_splice, in, in_at, out, out_at, len, flags);
}

/* --- TLS that hides nothing ---------------------------------------------- */

struct tls {
	int fd;
	unsigned shutdowns;
};

static struct tls fake;

static enum tls_want
want(ssize_t n, size_t *moved, enum tls_want wait)
{
	if (n > 0) {
		*moved = (size_t)n;
		return TLS_DONE;
	}
	if (n == 0)
		return TLS_END;
	return errno == EAGAIN ? wait : TLS_ERROR;
}

/* By records. */
static enum tls_want
fake_read(struct tls *tls, void *buf, size_t len, size_t *moved)
{
	return want(recv(tls->fd, buf, len < 1000 ? len : 1000, MSG_DONTWAIT),
	    moved, TLS_WANT_READ);
}

static enum tls_want
fake_write(struct tls *tls, const void *buf, size_t len, size_t *moved)
{
	return want(send(tls->fd, buf, len < 1000 ? len : 1000,
			MSG_DONTWAIT | MSG_NOSIGNAL),
	    moved, TLS_WANT_WRITE);
}

static void
fake_shutdown(struct tls *tls)
{
	tls->shutdowns++;
}

static const struct tls_api fake_api = {
    .read = fake_read,
    .write = fake_write,
    .shutdown = fake_shutdown,
};

static void
use_tls(void)
{
	fake.fd = ours[0];
	fake.shutdowns = 0;
	client.tls = &fake;
	client.tls_api = &fake_api;
}

/* --- the proxy and its two peers ----------------------------------------- */

static int
set_up(void **state)
{
	int i, pair[2];

	(void)state;
	for (i = 0; i < 2; i++) {
		if (socketpair(AF_UNIX,
			SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == -1)
			return -1;
		ours[i] = pair[0];
		theirs[i] = pair[1];
	}
	conn_init(&client, ours[0], ours[0], client_in, sizeof(client_in));
	conn_init(
	    &upstream, ours[1], ours[1], upstream_in, sizeof(upstream_in));
	memset(&proxy, 0, sizeof(proxy));
	proxy.client = &client;
	proxy.upstream = &upstream;
	proxy.timeout_ms = SOON;
	proxy.lost = LOST;
	proxy.idle = IDLE;
	splices = 0;
	splice_error = 0;
	return 0;
}

static int
tear_down(void **state)
{
	int i;

	(void)state;
	/* After a failure it may still be at work. */
	for (i = 0; running && i < 2; i++)
		(void)shutdown(ours[i], SHUT_RDWR);
	if (running)
		(void)pthread_join(thread, NULL);
	running = false;
	for (i = 0; i < 2; i++) {
		(void)close(ours[i]);
		if (theirs[i] != -1)
			(void)close(theirs[i]);
	}
	return 0;
}

static void *
run(void *arg)
{
	(void)arg;
	result = proxy_run(&proxy);
	over = true;
	return NULL;
}

static void
start(void)
{
	over = false;
	assert_int_equal(pthread_create(&thread, NULL, run, NULL), 0);
	running = true;
}

static enum proxy_end
finish(void)
{
	int i;

	for (i = 0; i < 2 * SOON / 10 && !over; i++)
		(void)usleep(10000);
	if (!over)
		fail_msg("the proxy goes on");
	assert_int_equal(pthread_join(thread, NULL), 0);
	running = false;
	return result;
}

static void
say(int to, const char *text)
{
	assert_int_equal(send(theirs[to], text, strlen(text), MSG_NOSIGNAL),
	    (int)strlen(text));
}

/* Exactly this, whatever comes behind it. */
static void
hear(int at, const char *text)
{
	struct pollfd pfd = {.fd = theirs[at], .events = POLLIN};
	size_t n = strlen(text), done = 0;
	char got[4096];
	ssize_t r;

	while (done < n) {
		assert_int_equal(poll(&pfd, 1, SOON), 1);
		r = recv(theirs[at], got + done, n - done, 0);
		assert_true(r > 0);
		done += (size_t)r;
	}
	assert_memory_equal(got, text, n);
}

static void
hear_end(int at)
{
	struct pollfd pfd = {.fd = theirs[at], .events = POLLIN};
	char got[1];

	assert_int_equal(poll(&pfd, 1, SOON), 1);
	assert_int_equal(recv(theirs[at], got, 1, 0), 0);
}

static void
say_end(int to)
{
	assert_int_equal(shutdown(theirs[to], SHUT_WR), 0);
}

enum { CLIENT, UPSTREAM };

/* The octet at this place of a long text. */
static unsigned char
pattern(size_t at)
{
	return (unsigned char)(at * 7 + at / 251 + at / 65536 * 13);
}

/* Sends what there is room for; how much has now been sent. */
static size_t
push(int from, size_t sent, size_t total)
{
	unsigned char buf[8192];
	size_t i, n = total - sent < sizeof(buf) ? total - sent : sizeof(buf);
	ssize_t r;

	for (i = 0; i < n; i++)
		buf[i] = pattern(sent + i);
	r = send(theirs[from], buf, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	return r > 0 ? sent + (size_t)r : sent;
}

/* Takes what is there and compares it. */
static size_t
pull(int at, size_t got)
{
	unsigned char buf[8192];
	ssize_t i, r = recv(theirs[at], buf, sizeof(buf), MSG_DONTWAIT);

	for (i = 0; i < r; i++)
		if (buf[i] != pattern(got + (size_t)i))
			fail_msg("octet %zu is another", got + (size_t)i);
	assert_int_not_equal(r, 0);
	return r > 0 ? got + (size_t)r : got;
}

static void
pump(int from, int to, size_t total)
{
	int64_t deadline = clock_in(10 * SOON);
	size_t sent = 0, got = 0;

	while (got < total) {
		struct pollfd fds[] = {
		    {.fd = sent < total ? theirs[from] : -1, .events = POLLOUT},
		    {.fd = theirs[to], .events = POLLIN}};

		assert_true(poll(fds, 2, clock_left(deadline)) > 0);
		if (fds[0].revents != 0)
			sent = push(from, sent, total);
		if (fds[1].revents != 0)
			got = pull(to, got);
	}
}

/* --- copying ------------------------------------------------------------- */

static void
small_talk(void **state)
{
	(void)state;
	start();
	say(CLIENT, "MAIL FROM:<>\r\n");
	hear(UPSTREAM, "MAIL FROM:<>\r\n");
	say(UPSTREAM, "250 ok\r\n");
	hear(CLIENT, "250 ok\r\n");
	say(CLIENT, "QUIT\r\n");
	hear(UPSTREAM, "QUIT\r\n");
	say(UPSTREAM, "221 bye\r\n");
	say_end(UPSTREAM);
	hear(CLIENT, "221 bye\r\n");
	hear_end(CLIENT);
	say_end(CLIENT);
	assert_int_equal(finish(), PROXY_DONE);
	assert_int_equal(proxy.bytes_up, 20);
	assert_int_equal(proxy.bytes_down, 17);
	assert_int_equal(splices, 0);
}

static void
end_well(void)
{
	say_end(CLIENT);
	hear_end(UPSTREAM);
	say(UPSTREAM, "221 bye\r\n");
	say_end(UPSTREAM);
	hear(CLIENT, "221 bye\r\n");
	assert_int_equal(finish(), PROXY_DONE);
}

static void
much_goes_up_by_splice(void **state)
{
	(void)state;
	start();
	pump(CLIENT, UPSTREAM, MUCH);
	end_well();
	assert_int_equal(proxy.bytes_up, MUCH);
	assert_true(splices > 1);
}

static void
much_comes_down(void **state)
{
	(void)state;
	start();
	pump(UPSTREAM, CLIENT, MUCH);
	/* Nothing in it was a good-bye. */
	say(UPSTREAM, "\r\n221 bye\r\n");
	say_end(UPSTREAM);
	hear(CLIENT, "\r\n221 bye\r\n");
	say_end(CLIENT);
	assert_int_equal(finish(), PROXY_DONE);
	assert_int_equal(proxy.bytes_down, MUCH + 11);
	assert_int_equal(splices, 0);
}

static void
tls_is_not_spliced(void **state)
{
	(void)state;
	use_tls();
	start();
	pump(CLIENT, UPSTREAM, MUCH);
	pump(UPSTREAM, CLIENT, MUCH);
	say(UPSTREAM, "\r\n");
	hear(CLIENT, "\r\n");
	end_well();
	assert_int_equal(splices, 0);
	assert_true(fake.shutdowns > 0);
}

/* A kernel, or a filter, that has no splice is no end of the message. */
static void
without_splice(void **state)
{
	static const int errors[] = {EINVAL, ENOSYS, EPERM};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(errors); i++) {
		splice_error = errors[i];
		start();
		pump(CLIENT, UPSTREAM, MUCH);
		end_well();
		(void)tear_down(NULL);
		(void)set_up(NULL);
	}
}

/* Pipes of a hand-typed session. */
static void
pipes(void **state)
{
	char got[64];
	int in[2], out[2];

	(void)state;
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	conn_init(&client, in[0], out[1], client_in, sizeof(client_in));
	start();
	assert_int_equal(write(in[1], "NOOP\r\n", 6), 6);
	hear(UPSTREAM, "NOOP\r\n");
	say(UPSTREAM, "250 ok\r\n221 bye\r\n");
	say_end(UPSTREAM);
	(void)close(in[1]);
	hear_end(UPSTREAM);
	assert_int_equal(finish(), PROXY_DONE);
	assert_int_equal(proxy.bytes_down, 17);
	assert_int_equal(read(out[0], got, sizeof(got)), 17);
	assert_int_equal(read(out[0], got, sizeof(got)), 0);
	(void)close(in[0]);
	(void)close(out[0]);
}

/* What was read before the hand-over goes first. */
static void
leftovers(void **state)
{
	(void)state;
	say(CLIENT, "first\r\n");
	say(UPSTREAM, "250 first\r\n");
	assert_int_equal(conn_peek(&client), 1);
	assert_int_equal(conn_peek(&upstream), 1);
	say(CLIENT, "second\r\n");
	say(UPSTREAM, "250 second\r\n");
	start();
	hear(UPSTREAM, "first\r\nsecond\r\n");
	hear(CLIENT, "250 first\r\n250 second\r\n");
	end_well();
	assert_int_equal(proxy.bytes_up, 15);
	assert_int_equal(proxy.bytes_down, 32);
}

/* A client that said all it had to say before the hand-over, and its end. */
static void
leftovers_and_an_end(void **state)
{
	(void)state;
	say(CLIENT, "QUIT\r\n");
	say_end(CLIENT);
	assert_int_equal(conn_peek(&client), 1);
	start();
	hear(UPSTREAM, "QUIT\r\n");
	hear_end(UPSTREAM);
	say(UPSTREAM, "221 bye\r\n");
	say_end(UPSTREAM);
	hear(CLIENT, "221 bye\r\n");
	assert_int_equal(finish(), PROXY_DONE);
}

/* A slow reader slows its writer: little is kept between them. */
static void
backpressure(void **state)
{
	int small = 4096, way;
	size_t sent, before, got;
	int64_t until;

	(void)state;
	for (way = 0; way < 2; way++) {
		(void)setsockopt(
		    ours[!way], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
		start();
		sent = 0;
		until = clock_in(300);
		do {
			before = sent;
			sent = push(way, sent, 64u << 20);
			if (sent == before)
				(void)usleep(1000);
		} while (clock_left(until) > 0);
		assert_in_range(sent, 1, 4u << 20);
		for (got = 0; got < sent;)
			got = pull(!way, got);
		say(UPSTREAM, "\r\n");
		hear(CLIENT, "\r\n");
		end_well();
		(void)tear_down(NULL);
		(void)set_up(NULL);
	}
}

/* --- ends ---------------------------------------------------------------- */

/* Replies lost at half-close. */
static void
a_client_that_says_no_more(void **state)
{
	(void)state;
	start();
	say(CLIENT, "a\r\nb\r\n");
	say_end(CLIENT);
	hear(UPSTREAM, "a\r\nb\r\n");
	hear_end(UPSTREAM);
	say(UPSTREAM, "250 a\r\n");
	hear(CLIENT, "250 a\r\n");
	(void)usleep(BRIEF * 1000);
	say(UPSTREAM, "250 b\r\n221 bye\r\n");
	say_end(UPSTREAM);
	hear(CLIENT, "250 b\r\n221 bye\r\n");
	hear_end(CLIENT);
	assert_int_equal(finish(), PROXY_DONE);
}

/* What the client is told behind `said`, when the upstream is gone then. */
static void
expect_last(const char *said, const char *last, enum proxy_end end)
{
	start();
	say(CLIENT, "x");
	hear(UPSTREAM, "x");
	say(UPSTREAM, said);
	hear(CLIENT, said);
	(void)close(theirs[UPSTREAM]);
	theirs[UPSTREAM] = -1;
	hear(CLIENT, last);
	hear_end(CLIENT);
	say_end(CLIENT);
	assert_int_equal(finish(), end);
	(void)tear_down(NULL);
	(void)set_up(NULL);
}

static void
a_lost_upstream(void **state)
{
	(void)state;
	expect_last("", LOST, PROXY_UPSTREAM_LOST);
	expect_last("354 go on\r\n", LOST, PROXY_UPSTREAM_LOST);
	expect_last("250-a\r\n250 b\r\n", LOST, PROXY_UPSTREAM_LOST);
	expect_last("250 421\r\n", LOST, PROXY_UPSTREAM_LOST);
	expect_last("2211\n", "", PROXY_DONE);
	expect_last("221 bye\r\n", "", PROXY_DONE);
	expect_last("421 bye\r\n", "", PROXY_DONE);
	expect_last("250 a\r\n421-bye\r\n421 bye\r\n", "", PROXY_DONE);
}

/* A client that leaves without QUIT has not lost its upstream. */
static void
a_client_that_just_leaves(void **state)
{
	(void)state;
	start();
	say(CLIENT, "RSET\r\n");
	hear(UPSTREAM, "RSET\r\n");
	say(UPSTREAM, "250 ok\r\n");
	hear(CLIENT, "250 ok\r\n");
	say_end(CLIENT);
	hear_end(UPSTREAM);
	say_end(UPSTREAM);
	assert_int_equal(finish(), PROXY_DONE);
}

/* A success that was begun is not completed by a line of ours. */
static void
a_reply_that_was_begun(void **state)
{
	(void)state;
	expect_last("2", "", PROXY_UPSTREAM_LOST);
	expect_last("250 ok", "", PROXY_UPSTREAM_LOST);
	expect_last("250 ok\r", "", PROXY_UPSTREAM_LOST);
	expect_last("221 by", "", PROXY_UPSTREAM_LOST);
	expect_last("354 go\r\n250 ok", "", PROXY_UPSTREAM_LOST);
}

/* Nor one of several lines. */
static void
a_reply_of_several_lines_that_was_begun(void **state)
{
	(void)state;
	expect_last("250-ok\r\n", "", PROXY_UPSTREAM_LOST);
	expect_last("354 go\r\n250-a\r\n250-b\r\n", "", PROXY_UPSTREAM_LOST);
}

static void
a_broken_client(void **state)
{
	char text[1024];
	int i;

	(void)state;
	start();
	say(CLIENT, "x");
	hear(UPSTREAM, "x");
	(void)close(theirs[CLIENT]);
	theirs[CLIENT] = -1;
	hear_end(UPSTREAM);
	memset(text, 'x', sizeof(text));
	for (i = 0; i < 100 && !over; i++) {
		(void)send(
		    theirs[UPSTREAM], text, sizeof(text), MSG_NOSIGNAL);
		(void)usleep(1000);
	}
	assert_int_equal(finish(), PROXY_CLIENT_LOST);
}

/* Nor is the upstream waited for, which may not mind the end of a client. */
static void
a_client_that_is_torn_off(void **state)
{
	struct pollfd pfd = {.events = POLLIN};

	(void)state;
	start();
	say(UPSTREAM, "250 x\r\n");
	pfd.fd = theirs[CLIENT];
	assert_int_equal(poll(&pfd, 1, SOON), 1);
	/* With something unread this is no end but an error. */
	(void)close(theirs[CLIENT]);
	theirs[CLIENT] = -1;
	assert_int_equal(finish(), PROXY_CLIENT_LOST);
	hear_end(UPSTREAM);
}

/* It reads no more, but what it said last is the client's to hear. */
static void
an_upstream_that_broke_off(void **state)
{
	(void)state;
	start();
	say(UPSTREAM, "552 too much\r\n421 bye\r\n");
	hear(CLIENT, "552 too much\r\n421 bye\r\n");
	assert_int_equal(shutdown(theirs[UPSTREAM], SHUT_RD), 0);
	say(CLIENT, "more");
	(void)usleep(BRIEF * 1000);
	say_end(UPSTREAM);
	hear_end(CLIENT);
	assert_int_equal(finish(), PROXY_DONE);
}

static void
an_idle_session(void **state)
{
	int64_t began;

	(void)state;
	proxy.timeout_ms = BRIEF;
	start();
	say(CLIENT, "DATA\r\n");
	hear(UPSTREAM, "DATA\r\n");
	say(UPSTREAM, "354 go\r\n");
	began = clock_ms();
	hear(CLIENT, "354 go\r\n" IDLE);
	assert_in_range(clock_ms() - began, BRIEF / 2, SOON);
	assert_int_equal(finish(), PROXY_TIMEOUT);
}

static void
an_idle_session_in_a_reply(void **state)
{
	char got[64];

	(void)state;
	proxy.timeout_ms = BRIEF;
	start();
	say(UPSTREAM, "250 o");
	hear(CLIENT, "250 o");
	assert_int_equal(finish(), PROXY_TIMEOUT);
	assert_int_equal(
	    recv(theirs[CLIENT], got, sizeof(got), MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
}

static void
what_moves_is_not_idle(void **state)
{
	int i;

	(void)state;
	proxy.timeout_ms = 3 * BRIEF;
	start();
	for (i = 0; i < 6; i++) {
		say(i % 2, "x");
		hear(!(i % 2), "x");
		(void)usleep(BRIEF * 1000);
	}
	assert_int_equal(finish(), PROXY_TIMEOUT);
}

/*
 * Replies that were read and could not be delivered: a line of ours behind
 * their torn end would be taken for a part of them.
 */
static void
an_idle_client_that_does_not_read(void **state)
{
	static char text[60000], got[sizeof(text) + 100];
	int small = 4096;
	size_t i, n = 0;
	ssize_t r;
	bool last;

	(void)state;
	/* A whole number of lines, less than the proxy's buffer holds. */
	for (i = 0; i < sizeof(text); i += 10)
		memcpy(text + i, "250 1234\r\n", 10);
	(void)setsockopt(
	    ours[CLIENT], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	proxy.timeout_ms = BRIEF;
	start();
	assert_int_equal(send(theirs[UPSTREAM], text, sizeof(text), 0),
	    (int)sizeof(text));
	/* It begins to read again once the time is over. */
	(void)usleep(3 * BRIEF * 1000);
	do {
		last = over;
		r = recv(theirs[CLIENT], got + n, sizeof(got) - n,
		    MSG_DONTWAIT);
		if (r > 0)
			n += (size_t)r;
		else
			(void)usleep(1000);
	} while (!last || r > 0);
	assert_int_equal(finish(), PROXY_TIMEOUT);
	assert_true(n < sizeof(text));
	assert_memory_equal(got, text, n);
}

/* The upstream has said its last; a client that talks on is not listened to. */
static void
an_endless_client(void **state)
{
	int64_t until = clock_in(SOON);
	char junk[4096];
	size_t sent = 0;

	(void)state;
	start();
	say(UPSTREAM, "221 bye\r\n");
	say_end(UPSTREAM);
	hear(CLIENT, "221 bye\r\n");
	while (!over && clock_left(until) > 0) {
		sent = push(CLIENT, sent, SIZE_MAX);
		(void)!recv(
		    theirs[UPSTREAM], junk, sizeof(junk), MSG_DONTWAIT);
	}
	assert_true(over);
	assert_int_equal(finish(), PROXY_DONE);
}

/* ------------------------------------------------------------------------- */

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(small_talk),
	    TEST(much_goes_up_by_splice),
	    TEST(much_comes_down),
	    TEST(tls_is_not_spliced),
	    TEST(without_splice),
	    TEST(pipes),
	    TEST(leftovers),
	    TEST(leftovers_and_an_end),
	    TEST(backpressure),
	    TEST(a_client_that_says_no_more),
	    TEST(a_lost_upstream),
	    TEST(a_client_that_just_leaves),
	    TEST(a_reply_that_was_begun),
	    TEST(a_reply_of_several_lines_that_was_begun),
	    TEST(a_broken_client),
	    TEST(a_client_that_is_torn_off),
	    TEST(an_upstream_that_broke_off),
	    TEST(an_idle_session),
	    TEST(an_idle_session_in_a_reply),
	    TEST(what_moves_is_not_idle),
	    TEST(an_idle_client_that_does_not_read),
	    TEST(an_endless_client),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
