/*
 * The process that knows secrets: private keys, password files, providers and
 * their libraries. It judges credentials and signs handshakes for sessions that
 * ask (lib/message.h), and tells nothing else.
 *
 * Here in its private form: forked for one session, before the first byte of
 * its client is parsed, and gone with it.
 */
#ifndef KEEPER_H
#define KEEPER_H

#include <sys/types.h>

#include "config.h"

/*
 * Forks a keeper. It keeps nothing of the caller's but its channel and its fd
 * 2 (that too goes when it is `client_fd`, the client); it loads and opens only
 * what it is asked for. Call it before what the session gives up
 * (lib/sandbox.h). The channel, a SOCK_SEQPACKET socket and the caller's, with
 * *pid; or -1 with errno.
 */
int keeper_start(const struct config *conf, int client_fd, pid_t *pid);

/* Waits, a second at most, for the end of one whose channel was closed. */
void keeper_wait(pid_t pid);

#endif
