/*
 * The story of one connection, from its first moment to its last log line.
 */
#ifndef SESSION_H
#define SESSION_H

#include <sys/socket.h>
#include <sys/un.h>

#include "config.h"

/*
 * For a process that will fork sessions: makes once what each of them needs,
 * with the keeper at `keeper` to ask, which must be at work. Called again, it
 * makes it anew from another `conf`. 0, or -1, logged.
 */
int session_prepare(const struct config *conf, const struct sockaddr_un *keeper,
    socklen_t keeper_len);

/* For the same process, now and then: what is only good for a time. */
void session_refresh(void);

/*
 * Serves the client on `rfd` and `wfd`, and closes nothing of theirs: the
 * process ends after it. Returns its exit status: 0 the session is over,
 * whatever the client did; 71, 75, 78 as sysexits.h has them.
 */
int session_run(const struct config *conf, int rfd, int wfd);

#endif
