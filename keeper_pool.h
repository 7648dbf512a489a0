/*
 * The keeper that lives on: it serves all sessions that connect to its socket,
 * with blocking workers, one question at a time each. Between two questions a
 * session holds no worker.
 */
#ifndef KEEPER_POOL_H
#define KEEPER_POOL_H

#include "config.h"

/*
 * Serves the listening SOCK_SEQPACKET socket `fd` until SIGTERM, or for good.
 * Workers are started as questions come, up to keeper_workers that judge; those
 * that sign are beside them and never wait for a slow judge. Sessions of other
 * users than our own or root are turned away (SO_PEERCRED).
 * Returns an exit status.
 */
int keeper_pool_run(const struct config *conf, int fd);

#endif
