/*
 * What all sessions of a listener count together, in memory that they share.
 * A process without a listener counts nothing.
 */
#ifndef COUNTERS_H
#define COUNTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "lib/source.h"

/* name, kind and help of OpenMetrics */
#define COUNTERS(X)                                                            \
	X(ACCEPTED, "accepted", "Connections accepted")                        \
	X(FULL, "refused_max_connections",                                     \
	    "Connections refused by max_connections")                          \
	X(FULL_SOURCE, "refused_max_connections_per_source",                   \
	    "Connections refused by max_connections_per_source")               \
	X(EARLY, "early", "Early talkers refused")                             \
	X(AUTHENTICATED, "authenticated", "Logins accepted")                   \
	X(DENIED, "denied", "Logins denied")                                   \
	X(UPSTREAM_FAILED, "upstream_failed",                                  \
	    "Sessions without an upstream that takes them")                    \
	X(CRASHED, "crashed", "Sessions ended by a signal")                    \
	X(BYTES_UP, "bytes_up", "Octets copied to upstreams")                  \
	X(BYTES_DOWN, "bytes_down", "Octets copied from upstreams")

enum counter {
#define X(id, name, help) COUNTER_##id,
	COUNTERS(X)
#undef X
	    COUNTER_COUNT
};

/* Where sessions are now. */
enum stage {
	STAGE_NONE, /* nobody in this slot */
	STAGE_GREETING,
	STAGE_DIALOGUE,
	STAGE_UPSTREAM,
	STAGE_PROXY,
	STAGE_COUNT
};

/*
 * Makes the shared memory, before the first fork, with a slot for each of `max`
 * sessions: in the file `path`, so that --status can read it, or in none for
 * "". 0, or -1 with errno.
 */
int counters_open(const char *path, size_t max);

/* In a child: the file is held by the listener alone. */
void counters_detach(void);

void counters_add(enum counter counter, uint64_t n);
uint64_t counters_get(enum counter counter);

/*
 * Where the session in `slot` is. The listener sets it before the fork and to
 * STAGE_NONE when the process has ended, however it did; the session, told its
 * slot by counters_use(), only moves on.
 */
void counters_set(size_t slot, enum stage stage);
void counters_use(size_t slot);
void counters_enter(enum stage stage);

/*
 * Where the session in `slot` comes from: the listener sets it for those that
 * it knows itself, and to none for the others, before the fork.
 */
void counters_set_source(size_t slot, const struct source *source);

/*
 * Says where the session of this process comes from, once that is known. False
 * when `limit` others of that source did before it: then it does not count.
 * True without a listener.
 */
bool counters_enter_source(const struct source *source, size_t limit);

/*
 * Prints, for a person, what the listener that owns `path` counts. 0, or -1:
 * none that runs.
 */
int counters_print(const char *path, FILE *out);

/* Replaces `path` in one step with the same as OpenMetrics text. 0 or -1. */
int counters_export(const char *path);

#endif
