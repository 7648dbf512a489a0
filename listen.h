/*
 * The listener: accepts, and forks a process a connection. It reads nothing
 * that a client sends, judges nothing, and maps no library that sessions do not
 * use.
 */
#ifndef LISTEN_H
#define LISTEN_H

#include "config.h"

/*
 * Serves the sockets that systemd passed (LISTEN_FDS; fd 0 if `inherited` says
 * so) and those of `conf->listen` until SIGTERM. SIGHUP reads the directives of
 * `argc` and `argv` anew. Returns the exit status of the process; in a session's
 * process it does not return.
 */
int listen_run(
    const struct config *conf, int inherited, int argc, char **argv);

#endif
