/*
 * lib/message: what is put is what arrives, and every way in which a packet can
 * be no message is refused whole.
 */
#include <sys/socket.h>
#include <sys/time.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/clock.h"
#include "lib/message.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

/* What a name, a length and a NUL add to a value. */
#define OVERHEAD 4

static struct message sent, got;
static int pair[2];

static int
set_up(void **state)
{
	(void)state;
	message_wipe(&sent);
	message_wipe(&got);
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
}

static int
tear_down(void **state)
{
	(void)state;
	(void)close(pair[0]);
	(void)close(pair[1]);
	return 0;
}

static void
pass_on(void)
{
	assert_int_equal(message_send(pair[0], &sent, clock_in(1000)), 0);
	assert_int_equal(message_receive(pair[1], &got, clock_in(1000)), 1);
}

static void
text_fields(void **state)
{
	size_t len = 0;

	(void)state;
	message_init(&sent, ASK_VERDICT);
	message_put(&sent, M_METHOD, "plain");
	message_put(&sent, M_USER, "");
	message_put(&sent, M_PASSWORD, "\xc3\xa9 \"x\"\r\n");
	message_put(&sent, M_AUTHZID, NULL);
	message_put_bytes(&sent, M_HELO, NULL, 3);
	message_put_number(&sent, M_ATTEMPT, UINT64_MAX);
	pass_on();
	assert_int_equal(got.type, ASK_VERDICT);
	assert_string_equal(message_get(&got, M_METHOD), "plain");
	assert_string_equal(message_get(&got, M_USER), "");
	assert_string_equal(
	    message_text(&got, M_PASSWORD), "\xc3\xa9 \"x\"\r\n");
	assert_null(message_get(&got, M_AUTHZID));
	assert_null(message_get(&got, M_HELO));
	assert_string_equal(message_text(&got, M_AUTHZID), "");
	assert_string_equal(
	    message_text(&got, M_ATTEMPT), "18446744073709551615");
	assert_non_null(message_get_bytes(&got, M_METHOD, &len));
	assert_int_equal(len, 5);
	assert_null(message_get_bytes(&got, M_DATA, &len));
}

static void
byte_fields(void **state)
{
	static const enum message_field all[] = {M_DATA, M_SIGNATURE, M_CHAIN,
	    M_RESPONSE, M_CHALLENGE, M_ENVIRONMENT};
	static const char bytes[] = "\0\xff\0\1\2\3";
	const void *p;
	size_t i, len;

	(void)state;
	message_init(&sent, ANSWER_CERTIFICATES);
	for (i = 0; i < LENGTH(all); i++)
		message_put_bytes(&sent, all[i], bytes, i + 1);
	pass_on();
	for (i = 0; i < LENGTH(all); i++) {
		p = message_get_bytes(&got, all[i], &len);
		assert_non_null(p);
		assert_int_equal(len, i + 1);
		assert_memory_equal(p, bytes, len);
		/* as a text it would end at the first octet */
		assert_null(message_get(&got, all[i]));
	}
}

static void
replacing(void **state)
{
	static const char secret[] = "correct horse battery staple";
	size_t len;

	(void)state;
	message_init(&sent, ASK_VERDICT);
	message_put(&sent, M_USER, "first");
	message_put(&sent, M_PASSWORD, secret);
	message_put(&sent, M_SALT, "salt");
	len = sent.len;
	message_put(&sent, M_PASSWORD, "short");
	assert_int_equal(sent.len, len - strlen(secret) + 5);
	/* neither in the message nor behind its end */
	assert_null(memmem(sent.bytes, sizeof(sent.bytes), "staple", 6));
	message_put(&sent, M_USER, "second, and longer");
	message_put(&sent, M_SALT, "");
	message_put(&sent, M_SALT, NULL);
	pass_on();
	assert_string_equal(message_text(&got, M_USER), "second, and longer");
	assert_string_equal(message_text(&got, M_PASSWORD), "short");
	assert_string_equal(message_get(&got, M_SALT), "");
}

static void
numbers(void **state)
{
	(void)state;
	message_init(&sent, ANSWER_VERDICT);
	message_put_number(&sent, M_DELAY, 15);
	message_put(&sent, M_CODE, "53x");
	message_put(&sent, M_KEY, "");
	assert_int_equal(message_get_number(&sent, M_DELAY, 15, 99), 15);
	assert_int_equal(message_get_number(&sent, M_DELAY, 14, 99), 99);
	assert_int_equal(message_get_number(&sent, M_CODE, 999, 99), 99);
	assert_int_equal(message_get_number(&sent, M_KEY, 999, 99), 99);
	assert_int_equal(message_get_number(&sent, M_SCHEME, 999, 99), 99);
}

static void
limits(void **state)
{
	static char big[MESSAGE_SIZE];

	(void)state;
	memset(big, 'x', sizeof(big));
	message_init(&sent, ASK_STEP);
	message_put_bytes(&sent, M_PASSWORD, big, MESSAGE_SIZE - 1 - OVERHEAD);
	assert_false(sent.overflow);
	assert_int_equal(sent.len, MESSAGE_SIZE);
	pass_on();
	assert_int_equal(strlen(message_text(&got, M_PASSWORD)),
	    MESSAGE_SIZE - 1 - OVERHEAD);
	message_put(&sent, M_SALT, "");
	assert_true(sent.overflow);
	assert_int_equal(message_send(pair[0], &sent, clock_in(1000)), -1);
	assert_int_equal(errno, EMSGSIZE);

	message_init(&sent, ASK_STEP);
	assert_false(sent.overflow);
	message_put_bytes(&sent, M_PASSWORD, big, MESSAGE_SIZE - OVERHEAD);
	assert_true(sent.overflow);
	assert_null(message_get(&sent, M_PASSWORD));
	message_init(&sent, ASK_STEP);
	message_put_bytes(&sent, M_PASSWORD, big, SIZE_MAX);
	assert_true(sent.overflow);
}

/* Not sent at all: the other side would refuse the message anyway. */
static void
nul_in_text_put(void **state)
{
	(void)state;
	message_init(&sent, ASK_VERDICT);
	message_put_bytes(&sent, M_USER, "root\0x", 6);
	assert_true(sent.overflow);
	assert_int_equal(message_send(pair[0], &sent, clock_in(1000)), -1);
	assert_int_equal(errno, EMSGSIZE);
}

/* Sends raw octets; what message_receive() makes of them. */
static int
raw(const void *packet, size_t len)
{
	assert_int_equal(send(pair[0], packet, len, 0), (ssize_t)len);
	errno = 0;
	return message_receive(pair[1], &got, clock_in(1000));
}

static void
raw_good(void **state)
{
	const unsigned char two[] = {
	    ASK_STEP, M_USER, 0, 1, 'u', 0, M_DATA, 0, 2, 0, 0, 0};
	const unsigned char none[] = {ASK_MECHANISMS};

	(void)state;
	assert_int_equal(raw(two, sizeof(two)), 1);
	assert_string_equal(message_text(&got, M_USER), "u");
	assert_int_equal(raw(none, sizeof(none)), 1);
	assert_int_equal(got.type, ASK_MECHANISMS);
	assert_null(message_get(&got, M_USER));
}

static void
raw_bad(void **state)
{
	static const struct {
		const char *what;
		unsigned char octet[12];
		size_t len;
	} bad[] = {
	    {"type 0", {0}, 1},
	    {"unknown type", {MESSAGE_TYPES}, 1},
	    {"type 255", {255}, 1},
	    {"name alone", {ASK_STEP, M_USER}, 2},
	    {"half a length", {ASK_STEP, M_USER, 0}, 3},
	    {"length alone", {ASK_STEP, M_USER, 0, 0}, 4},
	    {"no NUL", {ASK_STEP, M_USER, 0, 1, 'u', 'v'}, 6},
	    {"no room for the NUL", {ASK_STEP, M_USER, 0, 2, 'u', 0}, 6},
	    {"length too great", {ASK_STEP, M_USER, 0xff, 0xff, 'u', 0}, 6},
	    {"trailing octet", {ASK_STEP, M_USER, 0, 1, 'u', 0, 0}, 7},
	    {"unknown field", {ASK_STEP, MESSAGE_FIELD_COUNT, 0, 0, 0}, 5},
	    {"field 255", {ASK_STEP, 255, 0, 0, 0}, 5},
	    {"NUL in a text", {ASK_STEP, M_USER, 0, 3, 'a', 0, 'b', 0}, 8},
	    {"a field twice", {ASK_STEP, M_USER, 0, 0, 0, M_USER, 0, 0, 0}, 9},
	    {"bad after good",
		{ASK_STEP, M_USER, 0, 1, 'u', 0, M_SALT, 0, 9, 0}, 10},
	};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(bad); i++) {
		if (raw(bad[i].octet, bad[i].len) != -1)
			fail_msg("taken: %s", bad[i].what);
		assert_int_equal(errno, EBADMSG);
		assert_null(message_get(&got, M_USER));
	}
}

static void
raw_too_long(void **state)
{
	static unsigned char packet[MESSAGE_SIZE + 1];
	const size_t len = MESSAGE_SIZE - 1 - OVERHEAD;

	(void)state;
	/* a message to the last octet that fits, and one octet that does not */
	packet[0] = ANSWER_SIGNATURE;
	packet[1] = M_DATA;
	packet[2] = (unsigned char)(len >> 8);
	packet[3] = (unsigned char)len;
	assert_int_equal(raw(packet, MESSAGE_SIZE), 1);
	assert_int_equal(raw(packet, MESSAGE_SIZE + 1), -1);
	assert_int_equal(errno, EBADMSG);
}

/* Descriptors that a hostile session sends along never enter our table. */
static void
descriptors_refused(void **state)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	char octet = ASK_MECHANISMS;
	struct iovec iov = {&octet, 1};
	struct msghdr msg = {.msg_iov = &iov,
	    .msg_iovlen = 1,
	    .msg_control = &control,
	    .msg_controllen = sizeof(control)};
	int lowest;

	(void)state;
	memset(&control, 0, sizeof(control));
	control.head.cmsg_level = SOL_SOCKET;
	control.head.cmsg_type = SCM_RIGHTS;
	control.head.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.head), &pair[0], sizeof(int));
	lowest = fcntl(0, F_DUPFD_CLOEXEC, 0);
	(void)close(lowest);
	assert_int_equal(sendmsg(pair[0], &msg, 0), 1);
	assert_int_equal(message_receive(pair[1], &got, clock_in(1000)), 1);
	assert_int_equal(fcntl(lowest, F_GETFD), -1);
}

static void
ends(void **state)
{
	(void)state;
	message_init(&sent, ASK_MECHANISMS);
	assert_int_equal(message_send(pair[0], &sent, clock_in(1000)), 0);
	(void)close(pair[0]);
	assert_int_equal(message_receive(pair[1], &got, clock_in(1000)), 1);
	assert_int_equal(message_receive(pair[1], &got, clock_in(1000)), 0);
	/* and no SIGPIPE */
	assert_int_equal(message_send(pair[1], &sent, clock_in(1000)), -1);
	assert_int_equal(errno, EPIPE);
	pair[0] = -1;
}

static void
deadlines(void **state)
{
	int64_t start = clock_ms();
	int i;

	(void)state;
	assert_int_equal(message_receive(pair[1], &got, clock_in(30)), -1);
	assert_int_equal(errno, ETIMEDOUT);
	assert_in_range(clock_ms() - start, 29, 1000);
	assert_int_equal(message_receive(pair[1], &got, start), -1);
	assert_int_equal(errno, ETIMEDOUT);
	/* nobody reads */
	message_init(&sent, ASK_MECHANISMS);
	for (i = 0; i < 10000; i++)
		if (message_send(pair[0], &sent, clock_in(10)) == -1)
			break;
	assert_int_equal(errno, ETIMEDOUT);
	/* what is there is taken, late as it is */
	assert_int_equal(message_receive(pair[1], &got, start), 1);
	assert_int_equal(message_receive(-1, &got, clock_in(1000)), -1);
	assert_int_equal(errno, EBADF);
}

static void
on_alarm(int sig)
{
	(void)sig;
}

static void
interrupted(void **state)
{
	const struct sigaction act = {.sa_handler = on_alarm};
	const struct itimerval often = {{0, 5000}, {0, 5000}};
	const struct itimerval never = {{0, 0}, {0, 0}};

	(void)state;
	assert_int_equal(sigaction(SIGALRM, &act, NULL), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
	assert_int_equal(message_receive(pair[1], &got, clock_in(40)), -1);
	assert_int_equal(errno, ETIMEDOUT);
	assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
}

static void
wiping(void **state)
{
	static const struct message nothing;

	(void)state;
	message_init(&sent, ASK_VERDICT);
	message_put(&sent, M_USER, "a user whose name is rather long");
	message_put(&sent, M_PASSWORD, "swordfish");
	/* a shorter message in its place hides nothing from the wipe */
	message_init(&sent, ASK_MECHANISMS);
	message_wipe(&sent);
	assert_memory_equal(&sent, &nothing, sizeof(sent));
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    T(text_fields),
	    T(byte_fields),
	    T(replacing),
	    T(numbers),
	    T(limits),
	    T(nul_in_text_put),
	    T(raw_good),
	    T(raw_bad),
	    T(raw_too_long),
	    T(descriptors_refused),
	    T(ends),
	    T(deadlines),
	    T(interrupted),
	    T(wiping),
	};

	return cmocka_run_group_tests_name("message", tests, NULL, NULL);
}
