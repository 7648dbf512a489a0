/*
 * The sessions that run now, for a listener: found by their process when one
 * ends, counted by their source before one begins. All memory is taken at the
 * start, so no client can make it grow.
 */
#ifndef CHILDREN_H
#define CHILDREN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/source.h"

struct children;

/* Room for `max` sessions; NULL without memory. */
struct children *children_new(size_t max);
void children_free(struct children *c);

size_t children_count(const struct children *c);
size_t children_count_from(const struct children *c, const struct source *s);

/* The slot that the next session will have, below `max`; `max` if full. */
size_t children_next(const struct children *c);

/* A session began, in that slot. There must be room. */
void children_add(struct children *c, pid_t pid, const struct source *s,
    unsigned generation);

/* Sessions that began in generation `last` or before. */
size_t children_count_until(const struct children *c, unsigned last);

/* A process ended: whether it was a session, and the slot it had. */
bool children_remove(struct children *c, pid_t pid, size_t *slot);

/* Sends `signal` to all of them. */
void children_kill(const struct children *c, int signal);

#endif
