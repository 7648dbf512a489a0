/*
 * Time for deadlines: milliseconds of the monotonic clock, so that nobody who
 * sets the wall clock can stretch or cut a wait.
 */
#ifndef LIB_CLOCK_H
#define LIB_CLOCK_H

#include <stdint.h>
#include <time.h>

/* A deadline that never comes. */
#define CLOCK_NEVER INT64_MAX

/* Milliseconds since some fixed point in the past; never goes back. */
static inline int64_t
clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* The deadline `ms` milliseconds from now. */
static inline int64_t
clock_in(int64_t ms)
{
	return clock_ms() + ms;
}

/*
 * What poll(2) may wait until `deadline`: milliseconds, 0 when it has passed,
 * -1 for CLOCK_NEVER. Long waits come in slices of a day at most, so callers
 * loop and ask again.
 */
static inline int
clock_left(int64_t deadline)
{
	int64_t left;

	if (deadline == CLOCK_NEVER)
		return -1;
	left = deadline - clock_ms();
	if (left <= 0)
		return 0;
	return left > 86400000 ? 86400000 : (int)left;
}

#endif
