/*
 * children: sessions found by process and counted by source, with all the
 * memory that was taken at the start and no more; and what a source is.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "children.h"

/* The source of an address; NULL: of a UNIX socket. */
static struct source
from(const char *text)
{
	struct sockaddr_storage ss = {.ss_family = AF_UNIX};
	struct sockaddr_in *in = (struct sockaddr_in *)&ss;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ss;
	struct source source;

	if (text != NULL && strchr(text, ':') != NULL) {
		ss.ss_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)rand());
		in6->sin6_scope_id = (uint32_t)rand();
		assert_int_equal(
		    inet_pton(AF_INET6, text, &in6->sin6_addr), 1);
	} else if (text != NULL) {
		ss.ss_family = AF_INET;
		in->sin_port = htons((uint16_t)rand());
		assert_int_equal(inet_pton(AF_INET, text, &in->sin_addr), 1);
	}
	memset(&source, 0xff, sizeof(source));
	source_of(&ss, &source);
	return source;
}

static bool
same(const char *a, const char *b)
{
	struct source x = from(a), y = from(b);

	return memcmp(&x, &y, sizeof(x)) == 0;
}

static void
sources(void **state)
{
	(void)state;
	assert_true(same("192.0.2.1", "192.0.2.1"));
	assert_false(same("192.0.2.1", "192.0.2.2"));
	assert_true(same("192.0.2.1", "::ffff:192.0.2.1"));
	assert_false(same("::ffff:192.0.2.1", "::ffff:192.0.2.2"));
	assert_true(same("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"));
	assert_false(same("2001:db8::1", "2001:db8:0:1::1"));
	assert_true(same("fe80::1", "fe80::2"));
	/* Not mapped, for all that they look alike. */
	assert_false(same("192.0.2.1", "::192.0.2.1"));
	/* Octets that are the same are not the same source. */
	assert_false(same("32.1.13.184", "2001:db8::"));
	assert_false(same("0.0.0.0", "::"));
	assert_false(same("0.0.0.0", NULL));
	assert_true(same(NULL, NULL));
}

static void
unix_has_no_source(void **state)
{
	struct source source = from(NULL);

	(void)state;
	assert_int_equal(source.bytes[0], 0);
	assert_int_not_equal(from("192.0.2.1").bytes[0], 0);
	assert_int_not_equal(from("::").bytes[0], 0);
}

static void
one(void **state)
{
	struct children *c = children_new(3);
	struct source a = from("192.0.2.1"), b = from("2001:db8::1");
	size_t slot = 99;

	(void)state;
	assert_int_equal(children_count(c), 0);
	assert_false(children_remove(c, 1000, &slot));
	assert_int_equal(slot, 99);
	slot = children_next(c);
	assert_true(slot < 3);
	children_add(c, 1000, &a, 1);
	assert_int_equal(children_count(c), 1);
	assert_int_equal(children_count_from(c, &a), 1);
	assert_int_equal(children_count_from(c, &b), 0);
	assert_int_not_equal(children_next(c), slot);
	assert_false(children_remove(c, 1001, &(size_t){0}));
	assert_true(children_remove(c, 1000, &(size_t){0}));
	assert_false(children_remove(c, 1000, &(size_t){0}));
	assert_int_equal(children_count(c), 0);
	assert_int_equal(children_count_from(c, &a), 0);
	children_free(c);
	children_free(NULL);
}

static void
full(void **state)
{
	struct children *c = children_new(2);
	struct source a = from("192.0.2.1");
	size_t slot;

	(void)state;
	assert_int_equal(children_next(c), 0);
	children_add(c, 7, &a, 1);
	assert_int_equal(children_next(c), 1);
	children_add(c, 7 + 64, &a, 1); /* in the same bucket */
	assert_int_equal(children_next(c), 2);
	assert_int_equal(children_count_from(c, &a), 2);
	assert_true(children_remove(c, 7, &slot));
	assert_int_equal(slot, 0);
	assert_int_equal(children_next(c), 0);
	assert_int_equal(children_count_from(c, &a), 1);
	assert_true(children_remove(c, 7 + 64, &slot));
	assert_int_equal(slot, 1);
	children_free(c);
}

/* What a plain table would say, for a long while of coming and going. */
#define ROOM	100
#define SOURCES 7

static void
against_a_plain_table(void **state)
{
	struct children *c = children_new(ROOM);
	struct {
		pid_t pid; /* 0: free */
		int source;
	} table[ROOM] = {{0, 0}};
	struct source sources_[SOURCES];
	size_t counts[SOURCES] = {0}, count = 0, slot, i;
	char text[32];
	pid_t pid = 0;
	int step;

	(void)state;
	srand(1);
	for (i = 0; i < SOURCES; i++) {
		(void)snprintf(text, sizeof(text), "192.0.2.%zu", i);
		sources_[i] = from(text);
	}
	for (step = 0; step < 200000; step++) {
		slot = children_next(c);
		if (count < ROOM && rand() % 2 == 0) {
			i = (size_t)rand() % SOURCES;
			assert_true(slot < ROOM && table[slot].pid == 0);
			pid = pid % 4000000 + 1 + rand() % 3 * 64;
			table[slot].pid = pid;
			table[slot].source = (int)i;
			children_add(c, pid, &sources_[i], 1);
			counts[i]++;
			count++;
		} else {
			i = (size_t)rand() % ROOM;
			if (table[i].pid == 0)
				continue;
			assert_true(children_remove(c, table[i].pid, &slot));
			assert_int_equal(slot, i);
			counts[table[i].source]--;
			table[i].pid = 0;
			count--;
		}
		assert_int_equal(children_count(c), count);
		i = (size_t)rand() % SOURCES;
		assert_int_equal(
		    children_count_from(c, &sources_[i]), counts[i]);
		assert_true((children_next(c) == ROOM) == (count == ROOM));
	}
	children_free(c);
}

static void
kill_reaches_all_that_are_there(void **state)
{
	struct children *c = children_new(4);
	struct source a = from("192.0.2.1");
	pid_t pids[3];
	size_t i, slot;
	int status;

	(void)state;
	for (i = 0; i < 3; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			for (;;)
				(void)pause();
		children_add(c, pids[i], &a, 1);
	}
	assert_true(children_remove(c, pids[1], &slot));
	children_kill(c, SIGKILL);
	for (i = 0; i < 3; i += 2) {
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_true(WIFSIGNALED(status));
	}
	assert_int_equal(waitpid(pids[1], &status, WNOHANG), 0);
	(void)kill(pids[1], SIGKILL);
	(void)waitpid(pids[1], &status, 0);
	children_free(c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(sources),
	    cmocka_unit_test(unix_has_no_source),
	    cmocka_unit_test(one),
	    cmocka_unit_test(full),
	    cmocka_unit_test(against_a_plain_table),
	    cmocka_unit_test(kill_reaches_all_that_are_there),
	};

	return cmocka_run_group_tests_name("children", tests, NULL, NULL);
}
