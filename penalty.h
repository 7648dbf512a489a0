/*
 * How long a failed login is delayed: a table of sources and their failures.
 * Pure: the time is an argument, the table is wherever the caller has it, and
 * all that it may hold is survived (it may come from a file).
 */
#ifndef PENALTY_H
#define PENALTY_H

#include <stddef.h>
#include <stdint.h>

#include "lib/siphash.h"
#include "lib/source.h"

/* A source that has not failed for so long is forgotten (ms). */
#define PENALTY_IDLE (15 * 60 * 1000)

/* Failures of one source whose repeats are recognized. */
#define PENALTY_MARKS 10

/* A source can be in one set only, and there takes the oldest one's place. */
#define PENALTY_WAYS  8
#define PENALTY_SETS  512
#define PENALTY_SOURCES (PENALTY_WAYS * PENALTY_SETS)

struct penalty_entry {
	int64_t last; /* lib/clock.h: when it failed */
	/*
	 * Of 16 bits: enough to know a repeat by, and so few that whoever reads
	 * them, and the key, has not much to try passwords on.
	 */
	uint16_t marks[PENALTY_MARKS]; /* 0: none */
	struct source source;
	uint8_t count; /* 0: the entry is free */
	uint8_t unused[2];
};

struct penalty_set {
	struct penalty_entry entry[PENALTY_WAYS];
};

struct penalty_table {
	unsigned char key[SIPHASH_KEY_SIZE]; /* random */
	struct penalty_set set[PENALTY_SETS];
};

/* A failure. `secret` NULL: it is no repeat of another whatever it was. */
struct penalty_guess {
	struct source source;
	const char *user;
	const void *secret;
	size_t secret_len;
};

/* Which of the sets a source belongs to. */
size_t penalty_place(const unsigned char *key, const struct source *source);

/*
 * Counts a failure in its source's set, unless it is a repeat, and returns the
 * delay of its answer (ms).
 */
int64_t penalty_count(struct penalty_set *set, const unsigned char *key,
    const struct penalty_guess *guess, int64_t now);

/* Forgets a source. Returns whether there was anything to forget. */
bool penalty_clear(struct penalty_set *set, const struct source *source);

#endif
