/*
 * auth.c against a keeper that is a thread of ours: whatever it answers, and
 * whenever, nothing but the right word to the question that was asked is a
 * success.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "auth.h"
#include "lib/clock.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

#define SECRET "pass-word-Zq7"
#define SOON   2000
#define BRIEF  60

static int pair[2]; /* the session's end, the keeper's */
static struct auth_channel channel, closed = {.fd = -1};
static struct message question, asked, answer;

/* What the keeper does with one question. */
static struct {
	pthread_t thread;
	const void *raw; /* these octets instead of `answer` */
	size_t raw_len;
	bool silent, hangs_up;
	int received;
} keeper;

static void *
keep(void *arg)
{
	(void)arg;
	keeper.received =
	    message_receive(pair[1], &asked, clock_in(SOON));
	if (keeper.received != 1 || keeper.silent)
		return NULL;
	if (keeper.hangs_up)
		(void)shutdown(pair[1], SHUT_RDWR);
	else if (keeper.raw != NULL)
		(void)send(pair[1], keeper.raw, keeper.raw_len, MSG_NOSIGNAL);
	else
		(void)message_send(pair[1], &answer, clock_in(SOON));
	return NULL;
}

static int
set_up(void **state)
{
	(void)state;
	memset(&keeper, 0, sizeof(keeper));
	message_wipe(&answer);
	message_init(&answer, ANSWER_VERDICT);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == -1)
		return -1;
	channel.fd = pair[0];
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	auth_hang_up(&channel);
	(void)close(pair[1]);
	return 0;
}

static enum auth_answer
ask_by_channel(int64_t deadline)
{
	return auth_ask(&channel, &question, deadline);
}

static void
start(enum message_type type)
{
	message_init(&question, type);
	message_put(&question, M_METHOD, "plain");
	message_put(&question, M_USER, "user");
	message_put(&question, M_PASSWORD, SECRET);
	assert_int_equal(pthread_create(&keeper.thread, NULL, keep, NULL), 0);
}

static void
finish(void)
{
	assert_int_equal(pthread_join(keeper.thread, NULL), 0);
	/* Wherever the question stood, its secret does not. */
	assert_null(memmem(
	    &question, sizeof(question), SECRET, sizeof(SECRET) - 1));
}

static enum auth_answer
ask_by(enum message_type type, int64_t ms)
{
	enum auth_answer result;

	start(type);
	result = ask_by_channel(clock_in(ms));
	finish();
	return result;
}

static enum auth_answer
ask(enum message_type type)
{
	return ask_by(type, SOON);
}

static void
expect_reason_alone(const char *reason)
{
	assert_string_equal(message_text(&question, M_REASON), reason);
	assert_null(message_get(&question, M_USER));
	assert_null(message_get(&question, M_RESULT));
	assert_null(message_get(&question, M_BACKEND));
}

/* --- answers ------------------------------------------------------------- */

static void
accepted(void **state)
{
	(void)state;
	message_put(&answer, M_RESULT, "accepted");
	message_put(&answer, M_USER, "login");
	message_put(&answer, M_BACKEND, "192.0.2.1:25");
	assert_int_equal(ask(ASK_VERDICT), AUTH_IS_ACCEPTED);
	assert_string_equal(message_text(&asked, M_PASSWORD), SECRET);
	assert_int_equal(asked.type, ASK_VERDICT);
	assert_string_equal(message_text(&question, M_USER), "login");
	assert_string_equal(
	    message_text(&question, M_BACKEND), "192.0.2.1:25");
	assert_null(message_get(&question, M_PASSWORD));
}

static void
denied(void **state)
{
	(void)state;
	message_put(&answer, M_RESULT, "denied");
	message_put(&answer, M_REASON, "wrong");
	message_put(&answer, M_CODE, "535 5.7.8");
	assert_int_equal(ask(ASK_VERDICT), AUTH_IS_DENIED);
	assert_string_equal(message_text(&question, M_REASON), "wrong");
	assert_string_equal(message_text(&question, M_CODE), "535 5.7.8");
}

/* Failing closed: what is not the very word is no success, and no denial. */
static void
other_results(void **state)
{
	static const char *const results[] = {NULL, "", "unavailable",
	    "Accepted", "ACCEPTED", "accepted ", " accepted", "accepte",
	    "acceptedx", "accepted\r\n", "ok", "OK", "1", "true", "Denied"};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(results); i++) {
		message_init(&answer, ANSWER_VERDICT);
		message_put(&answer, M_RESULT, results[i]);
		assert_int_equal(ask(ASK_VERDICT), AUTH_IS_UNAVAILABLE);
		assert_int_equal(ask(ASK_STEP), AUTH_IS_UNAVAILABLE);
	}
}

static void
exchanges(void **state)
{
	size_t len = 0;

	(void)state;
	message_init(&answer, ANSWER_CHALLENGE);
	message_put(&answer, M_CHALLENGE, "<1@x>");
	assert_int_equal(ask(ASK_EXCHANGE), AUTH_IS_CHALLENGE);
	assert_memory_equal(
	    message_get_bytes(&question, M_CHALLENGE, &len), "<1@x>", 5);
	assert_int_equal(len, 5);
	assert_int_equal(ask(ASK_STEP), AUTH_IS_CHALLENGE);
	/* Nobody asked for one. */
	assert_int_equal(ask(ASK_VERDICT), AUTH_IS_UNAVAILABLE);
	message_init(&answer, ANSWER_CHALLENGE);
	assert_int_equal(ask(ASK_EXCHANGE), AUTH_IS_UNAVAILABLE);
	message_init(&answer, ANSWER_VERDICT);
	message_put(&answer, M_RESULT, "accepted");
	assert_int_equal(ask(ASK_STEP), AUTH_IS_ACCEPTED);
}

static void
other_types(void **state)
{
	unsigned type;

	(void)state;
	for (type = 1; type < MESSAGE_TYPES; type++) {
		if (type == ANSWER_VERDICT)
			continue;
		(void)tear_down(NULL);
		(void)set_up(NULL);
		message_init(&answer, (enum message_type)type);
		message_put(&answer, M_RESULT, "accepted");
		message_put(&answer, M_USER, "root");
		assert_int_equal(ask(ASK_VERDICT), AUTH_IS_UNAVAILABLE);
		expect_reason_alone("the keeper answered another question");
	}
}

static void
a_failure_tells_why(void **state)
{
	char reason[600];

	(void)state;
	message_init(&answer, ANSWER_FAILURE);
	message_put(&answer, M_REASON, "no such module");
	message_put(&answer, M_USER, "user");
	assert_int_equal(ask(ASK_VERDICT), AUTH_IS_UNAVAILABLE);
	expect_reason_alone("no such module");
	memset(reason, 'r', sizeof(reason));
	reason[sizeof(reason) - 1] = '\0';
	message_put(&answer, M_REASON, reason);
	assert_int_equal(ask(ASK_VERDICT), AUTH_IS_UNAVAILABLE);
	assert_int_equal(strlen(message_text(&question, M_REASON)), 255);
}

/* --- no answer ----------------------------------------------------------- */

static void
there_is_no_keeper(void **state)
{
	(void)state;
	message_init(&question, ASK_VERDICT);
	message_put(&question, M_PASSWORD, SECRET);
	assert_int_equal(
	    auth_ask(&closed, &question, clock_in(SOON)), AUTH_IS_UNAVAILABLE);
	expect_reason_alone("there is no keeper");
	assert_null(memmem(
	    &question, sizeof(question), SECRET, sizeof(SECRET) - 1));
}

static void
silence(void **state)
{
	int64_t began = clock_ms();

	(void)state;
	keeper.silent = true;
	assert_int_equal(ask_by(ASK_VERDICT, BRIEF), AUTH_IS_UNAVAILABLE);
	assert_in_range(clock_ms() - began, BRIEF, SOON);
	expect_reason_alone("the keeper did not answer in time");
}

/*
 * A keeper that was too slow for one question must not have its answer taken
 * for that to the next: a refused login would be let in on it.
 */
static void
a_late_answer_is_nobodys(void **state)
{
	(void)state;
	keeper.silent = true;
	assert_int_equal(ask_by(ASK_VERDICT, BRIEF), AUTH_IS_UNAVAILABLE);
	message_put(&answer, M_RESULT, "accepted");
	message_put(&answer, M_USER, "first");
	(void)message_send(pair[1], &answer, clock_in(SOON));
	keeper.silent = false;
	message_init(&answer, ANSWER_VERDICT);
	message_put(&answer, M_RESULT, "denied");
	assert_int_not_equal(ask(ASK_VERDICT), AUTH_IS_ACCEPTED);
	assert_string_not_equal(message_text(&question, M_USER), "first");
}

static void
hanging_up(void **state)
{
	(void)state;
	keeper.hangs_up = true;
	assert_int_equal(ask(ASK_VERDICT), AUTH_IS_UNAVAILABLE);
	expect_reason_alone("the keeper has gone");
	/* And once more, to one that is known to have gone. */
	message_init(&question, ASK_VERDICT);
	message_put(&question, M_PASSWORD, SECRET);
	assert_int_equal(
	    ask_by_channel(clock_in(SOON)), AUTH_IS_UNAVAILABLE);
	assert_null(memmem(
	    &question, sizeof(question), SECRET, sizeof(SECRET) - 1));
}

static void
garbage(void **state)
{
	static const struct {
		const char *text;
		size_t len;
	} bad[] = {
#define BAD(s) {s, sizeof(s) - 1}
	    BAD("\0"), BAD("\xff"), BAD("accepted"),
	    BAD("\x08\x1a\0\x08"
		"accepted"), /* no NUL behind it */
	    BAD("\x08\xee\0\x01x\0"),
#undef BAD
	};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(bad); i++) {
		(void)tear_down(NULL);
		(void)set_up(NULL);
		keeper.raw = bad[i].text;
		keeper.raw_len = bad[i].len;
		assert_int_equal(ask(ASK_VERDICT), AUTH_IS_UNAVAILABLE);
		expect_reason_alone("the keeper's answer is broken");
	}
}

/* What does not fit is not sent, and what it held is wiped all the same. */
static void
too_much(void **state)
{
	static char big[MESSAGE_SIZE];

	(void)state;
	memset(big, 'x', sizeof(big) - 1);
	message_init(&question, ASK_VERDICT);
	message_put(&question, M_PASSWORD, SECRET);
	message_put(&question, M_USER, big);
	assert_int_equal(ask_by_channel(clock_in(SOON)),
	    AUTH_IS_UNAVAILABLE);
	assert_null(memmem(
	    &question, sizeof(question), SECRET, sizeof(SECRET) - 1));
	assert_int_equal(
	    recv(pair[1], big, sizeof(big), MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
}

/* --- any question -------------------------------------------------------- */

static int
ask_any(enum message_type type, enum message_type expected)
{
	int r;

	start(type);
	r = auth_question(&channel, &question, expected, clock_in(SOON));
	finish();
	return r;
}

static void
any_question(void **state)
{
	(void)state;
	message_init(&answer, ANSWER_MECHANISMS);
	message_put(&answer, M_CAN, "verify");
	assert_int_equal(ask_any(ASK_MECHANISMS, ANSWER_MECHANISMS), 0);
	assert_string_equal(message_text(&question, M_CAN), "verify");
	assert_int_equal(ask_any(ASK_SIGNATURE, ANSWER_SIGNATURE), -1);
	assert_null(message_get(&question, M_CAN));
	assert_string_equal(message_text(&question, M_REASON),
	    "the keeper answered another question");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(accepted),
	    TEST(denied),
	    TEST(other_results),
	    TEST(exchanges),
	    TEST(other_types),
	    TEST(a_failure_tells_why),
	    TEST(there_is_no_keeper),
	    TEST(silence),
	    TEST(a_late_answer_is_nobodys),
	    TEST(hanging_up),
	    TEST(garbage),
	    TEST(too_much),
	    TEST(any_question),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
