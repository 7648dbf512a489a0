/*
 * Failures by source. A repeat of the very same wrong password is a mail
 * program that was not told of the new one, not a guess: it is delayed and does
 * not make the next delay longer, for it would lock out whoever shares its
 * address.
 */
#include <string.h>

#include "penalty.h"

static const int64_t delays[] = {2000, 4000, 8000, 15000};

#define DELAYS (sizeof(delays) / sizeof(delays[0]))

_Static_assert(sizeof(struct penalty_entry) == 40, "no gaps: it is in files");

size_t
penalty_place(const unsigned char *key, const struct source *source)
{
	/* With the key: nobody can aim at the set of another. */
	return (size_t)(siphash_of(key, source->bytes, sizeof(source->bytes)) %
	    PENALTY_SETS);
}

/* A time that has not come yet is one from before the machine was started. */
static bool
is_live(const struct penalty_entry *e, int64_t now)
{
	return e->count > 0 && e->last >= 0 && e->last <= now &&
	    now - e->last < PENALTY_IDLE;
}

static bool
is_of(const struct penalty_entry *e, const struct source *source)
{
	return memcmp(&e->source, source, sizeof(*source)) == 0;
}

/* Whether `e` is given away before `other`. */
static bool
is_less(const struct penalty_entry *e, const struct penalty_entry *other,
    int64_t now)
{
	if (!is_live(e, now) || !is_live(other, now))
		return is_live(other, now);
	return e->last < other->last;
}

/* The source's entry, or the one that it takes, emptied. */
static struct penalty_entry *
find(struct penalty_set *set, const struct source *source, int64_t now)
{
	struct penalty_entry *least = &set->entry[0];
	size_t i;

	for (i = 0; i < PENALTY_WAYS; i++) {
		if (is_of(&set->entry[i], source) &&
		    is_live(&set->entry[i], now))
			return &set->entry[i];
		if (is_less(&set->entry[i], least, now))
			least = &set->entry[i];
	}
	memset(least, 0, sizeof(*least));
	least->source = *source;
	return least;
}

static uint16_t
mark_of(const unsigned char *key, const struct penalty_guess *guess)
{
	uint64_t parts[2];
	uint16_t mark;

	if (guess->secret == NULL)
		return 0;
	parts[0] = siphash_of(key, guess->user, strlen(guess->user));
	parts[1] = siphash_of(key, guess->secret, guess->secret_len);
	mark = (uint16_t)siphash_of(key, parts, sizeof(parts));
	explicit_bzero(parts, sizeof(parts));
	return mark != 0 ? mark : 1;
}

static bool
is_repeat(const struct penalty_entry *e, uint16_t mark)
{
	size_t i;

	for (i = 0; i < PENALTY_MARKS; i++)
		if (mark != 0 && e->marks[i] == mark)
			return true;
	return false;
}

int64_t
penalty_count(struct penalty_set *set, const unsigned char *key,
    const struct penalty_guess *guess, int64_t now)
{
	struct penalty_entry *e = find(set, &guess->source, now);
	uint16_t mark = mark_of(key, guess);

	if (!is_repeat(e, mark)) {
		e->marks[e->count % PENALTY_MARKS] = mark;
		if (e->count < UINT8_MAX)
			e->count++;
		e->last = now;
	}
	return delays[e->count < DELAYS ? e->count - 1 : (int)DELAYS - 1];
}

bool
penalty_clear(struct penalty_set *set, const struct source *source)
{
	bool found = false;
	size_t i;

	for (i = 0; i < PENALTY_WAYS; i++)
		if (set->entry[i].count > 0 && is_of(&set->entry[i], source)) {
			memset(&set->entry[i], 0, sizeof(set->entry[i]));
			found = true;
		}
	return found;
}
