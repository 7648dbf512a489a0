/*
 * The same table in a file of the runtime directory, for keepers that live no
 * longer than one session.
 */
#ifndef PENALTY_FILE_H
#define PENALTY_FILE_H

#include "penalty.h"

/* Its name in the directory. */
#define PENALTY_FILE "penalties"

/*
 * penalty_count(), now, in the file below `directory`, which is made if need be. -1
 * when the file cannot be had, or its lock not in a fifth of a second.
 */
int64_t penalty_file_count(
    const char *directory, const struct penalty_guess *guess);

/* penalty_clear() there, as far as it can be had. */
void penalty_file_clear(const char *directory, const struct source *source);

#endif
