/*
 * The memory that sessions share: how many of one source are let in when many
 * come at once, and who still counts when some have been killed.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "counters.h"

#define SLOTS 32

static const struct source none;

static struct source
from(const char *text)
{
	struct sockaddr_storage ss = {.ss_family = AF_INET};
	struct sockaddr_in *in = (struct sockaddr_in *)&ss;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ss;
	struct source source;

	if (inet_pton(AF_INET, text, &in->sin_addr) != 1) {
		ss.ss_family = AF_INET6;
		assert_int_equal(
		    inet_pton(AF_INET6, text, &in6->sin6_addr), 1);
	}
	source_of(&ss, &source);
	return source;
}

static int
set_up(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < SLOTS; i++) {
		counters_set(i, STAGE_NONE);
		counters_set_source(i, &none);
	}
	return 0;
}

/* A session in that slot, of this process. */
static bool
enter(size_t slot, const char *addr, size_t limit)
{
	struct source source = from(addr);

	counters_set(slot, STAGE_GREETING);
	counters_use(slot);
	return counters_enter_source(&source, limit);
}

static void
test_one_after_the_other(void **state)
{
	(void)state;
	assert_true(enter(0, "192.0.2.1", 2));
	assert_true(enter(1, "192.0.2.1", 2));
	assert_false(enter(2, "192.0.2.1", 2));
	assert_false(enter(3, "192.0.2.1", 2));
	assert_true(enter(4, "192.0.2.2", 2));
	/* IPv6 by networks of 64 bits, and none of them is an IPv4 address. */
	assert_true(enter(5, "2001:db8::1", 1));
	assert_false(enter(6, "2001:db8::ffff:2", 1));
	assert_true(enter(7, "2001:db8:0:1::1", 1));
	assert_true(enter(8, "32.1.13.184", 1));
	assert_true(enter(9, "2001:db8:0:2::", 1));
	assert_false(enter(10, "::ffff:192.0.2.1", 2));
	/* One leaves, and one may come: those who were refused do not count. */
	counters_set(0, STAGE_NONE);
	assert_true(enter(11, "192.0.2.1", 2));
	assert_false(enter(12, "192.0.2.1", 2));
	/* Whoever comes into a slot begins anew. */
	counters_set(0, STAGE_GREETING);
	counters_set_source(0, &none);
	assert_true(enter(13, "192.0.2.1", 3));
}

/* Those that the listener has counted count here, too. */
static void
test_known_to_the_listener(void **state)
{
	struct source source = from("192.0.2.1");

	(void)state;
	counters_set(20, STAGE_DIALOGUE);
	counters_set_source(20, &source);
	assert_false(enter(0, "192.0.2.1", 1));
	assert_true(enter(0, "192.0.2.1", 2));
}

static void
test_of_no_network(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < 4; i++) {
		counters_set(i, STAGE_GREETING);
		counters_use(i);
		assert_true(counters_enter_source(&none, 1));
	}
}

/* What the sessions of one round are given. */
struct round {
	size_t limit;
	int start[2], answers[2], end[2];
};

/* A session process: comes with all others, says "y" or "n", stays. */
static void
be_session(const struct round *r, size_t slot)
{
	struct source source = from("192.0.2.1");
	char byte;

	(void)close(r->start[1]);
	(void)close(r->end[1]);
	counters_use(slot);
	(void)!read(r->start[0], &byte, 1);
	byte = counters_enter_source(&source, r->limit) ? 'y' : 'n';
	(void)!write(r->answers[1], &byte, 1);
	(void)!read(r->end[0], &byte, 1);
	_exit(0);
}

static size_t
count_in(const struct round *r, size_t n)
{
	size_t i, in = 0;
	char byte;

	for (i = 0; i < n; i++) {
		assert_int_equal(read(r->answers[0], &byte, 1), 1);
		in += byte == 'y';
	}
	return in;
}

static void
run_round(size_t n, size_t limit)
{
	struct round r = {.limit = limit};
	pid_t pids[SLOTS];
	size_t i;

	assert_int_equal(pipe(r.start), 0);
	assert_int_equal(pipe(r.answers), 0);
	assert_int_equal(pipe(r.end), 0);
	for (i = 0; i < n; i++) {
		counters_set(i, STAGE_GREETING);
		counters_set_source(i, &none);
		pids[i] = fork();
		assert_int_not_equal(pids[i], -1);
		if (pids[i] == 0)
			be_session(&r, i);
	}
	(void)close(r.start[1]);
	assert_int_equal(count_in(&r, n), limit < n ? limit : n);
	(void)close(r.end[1]);
	for (i = 0; i < n; i++) {
		assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
		counters_set(i, STAGE_NONE);
	}
	(void)close(r.start[0]);
	(void)close(r.answers[0]);
	(void)close(r.answers[1]);
	(void)close(r.end[0]);
}

/* Neither one too many nor one too few, however they meet. */
static void
test_at_once(void **state)
{
	static const size_t limits[] = {1, 3, 10, SLOTS - 1, SLOTS};
	size_t i;

	(void)state;
	for (i = 0; i < 20; i++)
		run_round(12, 1 + i % 4);
	for (i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		run_round(SLOTS, limits[i]);
}

/* Killed, and as the listener then has it: it counts no more. */
static void
test_killed(void **state)
{
	struct round r = {.limit = 1};
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(r.start), 0);
	assert_int_equal(pipe(r.answers), 0);
	assert_int_equal(pipe(r.end), 0);
	counters_set(0, STAGE_GREETING);
	pid = fork();
	if (pid == 0)
		be_session(&r, 0);
	(void)close(r.start[1]);
	assert_int_equal(count_in(&r, 1), 1);
	assert_false(enter(1, "192.0.2.1", 1));
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	counters_set(0, STAGE_NONE);
	assert_true(enter(1, "192.0.2.1", 1));
	(void)close(r.start[0]);
	(void)close(r.end[0]);
	(void)close(r.end[1]);
	(void)close(r.answers[0]);
	(void)close(r.answers[1]);
}

/* Before there is a listener everybody is alone. */
static void
test_without_memory(void **state)
{
	struct source source = from("192.0.2.1");

	(void)state;
	assert_true(counters_enter_source(&source, 1));
	assert_true(counters_enter_source(&source, 1));
	counters_set_source(0, &source);
	counters_add(COUNTER_ACCEPTED, 1);
	assert_int_equal(counters_get(COUNTER_ACCEPTED), 0);
	assert_int_equal(counters_open("", SLOTS), 0);
	counters_add(COUNTER_ACCEPTED, 2);
	assert_int_equal(counters_get(COUNTER_ACCEPTED), 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_without_memory),
	    cmocka_unit_test_setup(test_one_after_the_other, set_up),
	    cmocka_unit_test_setup(test_known_to_the_listener, set_up),
	    cmocka_unit_test_setup(test_of_no_network, set_up),
	    cmocka_unit_test_setup(test_at_once, set_up),
	    cmocka_unit_test_setup(test_killed, set_up),
	};

	return cmocka_run_group_tests_name("counters", tests, NULL, NULL);
}
