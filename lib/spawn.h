/*
 * Runs a program for one answer, under a deadline: octets for it on its fd 3,
 * what it says on 1 and 2, how it ended. Thread-safe: no signal handler, and it
 * waits for its own child alone. What the answer means is the caller's.
 */
#ifndef LIB_SPAWN_H
#define LIB_SPAWN_H

#include <stddef.h>
#include <stdint.h>

/* What any pipe takes at once. */
#define SPAWN_INPUT_MAX 4096

struct spawn_output {
	char *text; /* the caller's, of `size` octets; no NUL is added */
	size_t size, len;
};

struct spawn {
	char *const *argv; /* argv[0] is a path: no shell, no search */
	char *const *envp; /* all that it gets */
	const void *input; /* on fd 3, then its end */
	size_t input_len;
	struct spawn_output out; /* full is SPAWN_TOO_MUCH */
	struct spawn_output err; /* what does not fit is dropped */
	int status; /* the exit status, the signal, or errno */
};

enum spawn_end {
	SPAWN_EXITED,	/* status is its exit status; 127: it cannot be run */
	SPAWN_KILLED,	/* by the signal `status` */
	SPAWN_TIMED_OUT,
	SPAWN_TOO_MUCH,
	SPAWN_FAILED	/* it was not run: errno in `status` */
};

/*
 * Runs it in a process group of its own, all of which is killed at the deadline
 * (lib/clock.h) and after its end: whatever it leaves behind goes with it. It
 * has no descriptor but 0 (/dev/null) to 3, dies with the thread that called,
 * and begins with the signals as they come. Why it cannot be run is in `err`.
 */
enum spawn_end spawn_run(struct spawn *s, int64_t deadline);

#endif
