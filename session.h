/*
 * The story of one connection, from its first moment to its last log line.
 */
#ifndef SESSION_H
#define SESSION_H

#include "config.h"

/*
 * Serves the client on `rfd` and `wfd`, and closes nothing of theirs: the
 * process ends after it. Returns its exit status: 0 the session is over,
 * whatever the client did; 71, 75, 78 as sysexits.h has them.
 */
int session_run(const struct config *conf, int rfd, int wfd);

#endif
