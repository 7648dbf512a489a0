/*
 * lib/spawn.c with programs of a few lines of sh: what they are given, what is
 * heard of them, and that none of them outlives the call.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/clock.h"
#include "lib/spawn.h"

#define SOON 5000

static char out[1024], err[64];

/* Runs `sh -c script`; what it says ends in a NUL, for there is room. */
static enum spawn_end
run(struct spawn *s, const char *script, const char *input, int64_t ms)
{
	static char *environment[] = {(char *)(uintptr_t) "PATH=/usr/bin:/bin",
	    (char *)(uintptr_t) "A=b", NULL};
	char *words[] = {(char *)(uintptr_t) "/bin/sh",
	    (char *)(uintptr_t) "-c", (char *)(uintptr_t)script, NULL};
	enum spawn_end end;

	*s = (struct spawn){.argv = words,
	    .envp = environment,
	    .input = input,
	    .input_len = strlen(input),
	    .out = {out, sizeof(out), 0},
	    .err = {err, sizeof(err), 0}};
	end = spawn_run(s, clock_in(ms));
	out[s->out.len < sizeof(out) ? s->out.len : sizeof(out) - 1] = '\0';
	err[s->err.len < sizeof(err) ? s->err.len : sizeof(err) - 1] = '\0';
	/* No zombie is left, whatever became of it. */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	return end;
}

static void
what_it_is_given(void **state)
{
	struct spawn s;

	(void)state;
	assert_int_equal(run(&s, "cat <&3; echo oops >&2; exit 7", "hello\n",
	    SOON), SPAWN_EXITED);
	assert_int_equal(s.status, 7);
	assert_string_equal(out, "hello\n");
	assert_string_equal(err, "oops\n");
	assert_int_equal(run(&s, "env | grep -v PWD= | grep -v _=", "", SOON),
	    SPAWN_EXITED);
	assert_non_null(strstr(out, "A=b\n"));
	assert_null(strstr(out, "HOME"));
}

static void
its_descriptors_and_signals(void **state)
{
	int extra = fcntl(STDERR_FILENO, F_DUPFD, 100);
	const char *ignored;
	sigset_t all, old;
	struct spawn s;
	int i;

	(void)state;
	sigfillset(&all);
	/* Who started the test may ignore some, and they are inherited. */
	for (i = 1; i < SIGRTMIN; i++)
		(void)signal(i, i == SIGPIPE ? SIG_IGN : SIG_DFL);
	assert_int_equal(pthread_sigmask(SIG_SETMASK, &all, &old), 0);
	/*
	 * No pipe of the shell's own may be among them; and while it waits for
	 * a child it blocks signals itself.
	 */
	assert_int_equal(run(&s, "ls /proc/$$/fd; "
	    "readlink /proc/$$/fd/0; exec grep -E 'Sig(Blk|Ign)' /proc/self/status",
	    "x",
	    SOON), SPAWN_EXITED);
	assert_int_equal(pthread_sigmask(SIG_SETMASK, &old, NULL), 0);
	(void)signal(SIGPIPE, SIG_DFL);
	(void)close(extra);
	assert_int_equal(strncmp(out, "0\n1\n2\n3\n/dev/null\n", 18), 0);
	assert_non_null(strstr(out, "SigBlk:\t0000000000000000"));
	/* The C library's own two are not ours to set: make ignores them. */
	ignored = strstr(out, "SigIgn:\t");
	assert_non_null(ignored);
	assert_int_equal(strtoull(ignored + 8, NULL, 16) & 0x7fffffff, 0);
}

static void
too_much_to_give(void **state)
{
	static char input[SPAWN_INPUT_MAX + 2];
	struct spawn s;

	(void)state;
	memset(input, 'x', SPAWN_INPUT_MAX);
	assert_int_equal(run(&s, "cat <&3 | wc -c", input, SOON), SPAWN_EXITED);
	assert_string_equal(out, "4096\n");
	input[SPAWN_INPUT_MAX] = 'x';
	assert_int_equal(run(&s, "exit 0", input, SOON), SPAWN_FAILED);
	assert_int_equal(s.status, EMSGSIZE);
}

static void
too_much_is_said(void **state)
{
	struct spawn s;

	(void)state;
	assert_int_equal(run(&s, "yes", "", SOON), SPAWN_TOO_MUCH);
	assert_int_equal(
	    run(&s, "head -c 1024 /dev/zero", "", SOON), SPAWN_TOO_MUCH);
	assert_int_equal(
	    run(&s, "head -c 1023 /dev/zero", "", SOON), SPAWN_EXITED);
	assert_int_equal(s.out.len, 1023);
	/* Complaints are cut. */
	assert_int_equal(
	    run(&s, "seq 100000 >&2; exit 3", "", SOON), SPAWN_EXITED);
	assert_int_equal(s.status, 3);
	assert_int_equal(s.err.len, sizeof(err));
}

static void
the_deadline(void **state)
{
	static const char *const scripts[] = {"exec sleep 60",
	    "trap '' TERM HUP INT; sleep 60 & sleep 60; sleep 60",
	    "exec sleep 60 <&- >&- 2>&- 3<&-", "yes >&2"};
	struct spawn s;
	int64_t began;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(scripts) / sizeof(*scripts); i++) {
		began = clock_ms();
		assert_int_equal(
		    run(&s, scripts[i], "", 200), SPAWN_TIMED_OUT);
		assert_in_range(clock_ms() - began, 200, SOON);
	}
}

static void
what_it_leaves_behind(void **state)
{
	int64_t began = clock_ms();
	struct spawn s;
	pid_t pid;

	(void)state;
	assert_int_equal(
	    run(&s, "sleep 60 & echo $!", "", 2 * SOON), SPAWN_EXITED);
	assert_in_range(clock_ms() - began, 0, SOON);
	pid = (pid_t)strtol(out, NULL, 10);
	assert_true(pid > 1);
	/* Killed; buried by whoever its parent is now. */
	began = clock_ms();
	while (kill(pid, 0) == 0 && clock_ms() - began < SOON) {
		char path[64], state_line[256] = "";
		FILE *f;

		(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
		f = fopen(path, "r");
		if (f == NULL)
			break;
		(void)!fgets(state_line, sizeof(state_line), f);
		(void)fclose(f);
		if (strstr(state_line, ") Z ") != NULL)
			break;
	}
	assert_in_range(clock_ms() - began, 0, SOON - 1);
}

static void
its_death(void **state)
{
	struct spawn s;

	(void)state;
	assert_int_equal(run(&s, "echo a; kill -9 $$", "", SOON), SPAWN_KILLED);
	assert_int_equal(s.status, SIGKILL);
	assert_string_equal(out, "a\n");
}

static void
one_that_cannot_be_run(void **state)
{
	char *words[] = {(char *)(uintptr_t) "/nowhere/x", NULL};
	char *none[] = {NULL};
	struct spawn s = {.argv = words,
	    .envp = none,
	    .input = "",
	    .out = {out, sizeof(out), 0},
	    .err = {err, sizeof(err), 0}};

	(void)state;
	assert_int_equal(spawn_run(&s, clock_in(SOON)), SPAWN_EXITED);
	assert_int_equal(s.status, 127);
	assert_memory_equal(err, "No such file", 12);
}

/* --- many at a time ------------------------------------------------------ */

static void *
run_some(void *arg)
{
	static char *none[] = {NULL};
	char *words[] = {(char *)(uintptr_t) "/bin/sh",
	    (char *)(uintptr_t) "-c", (char *)(uintptr_t) "cat <&3; exit 5",
	    NULL};
	char mine[32], said[64], complaint[8];
	struct spawn s = {.argv = words,
	    .envp = none,
	    .input = mine,
	    .out = {said, sizeof(said), 0},
	    .err = {complaint, sizeof(complaint), 0}};
	uintptr_t wrong = 0;
	int i;

	for (i = 0; i < 10; i++) {
		(void)snprintf(mine, sizeof(mine), "%p %d", arg, i);
		s.input_len = strlen(mine);
		if (spawn_run(&s, clock_in(20000)) != SPAWN_EXITED ||
		    s.status != 5 || s.out.len != strlen(mine) ||
		    memcmp(said, mine, s.out.len) != 0)
			wrong++;
	}
	return (void *)wrong;
}

static void
threads(void **state)
{
	static int number[8];
	pthread_t thread[8];
	void *wrong;
	size_t i;

	(void)state;
	for (i = 0; i < 8; i++)
		assert_int_equal(pthread_create(
		    &thread[i], NULL, run_some, &number[i]), 0);
	for (i = 0; i < 8; i++) {
		assert_int_equal(pthread_join(thread[i], &wrong), 0);
		assert_null(wrong);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_it_is_given),
	    cmocka_unit_test(its_descriptors_and_signals),
	    cmocka_unit_test(too_much_to_give),
	    cmocka_unit_test(too_much_is_said),
	    cmocka_unit_test(the_deadline),
	    cmocka_unit_test(what_it_leaves_behind),
	    cmocka_unit_test(its_death),
	    cmocka_unit_test(one_that_cannot_be_run),
	    cmocka_unit_test(threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
