/*
 * A program as upstream. Run after authentication it is an ordinary -bs mail
 * program on a socket of ours; run at the greeting it takes this process over.
 * In both it gets an environment that is scrubbed and rebuilt, and no
 * descriptor but 0, 1 and 2.
 */
#ifndef RELAY_H
#define RELAY_H

#include <sys/types.h>

#include "facts.h"

struct relay {
	int fd;	     /* its standard input and output; -1: none */
	int channel; /* on which it waits for its environment */
	pid_t pid;
	bool started;
};

/*
 * Forks the process that will be the relay, before the session gives up what
 * the relay may need (a setgid program, files); it waits, and leaves if it is
 * not wanted. 0, or -1 with errno.
 */
int relay_prepare(struct relay *relay, const struct config *conf, int client_fd);

/*
 * Lets it run, with the facts of the session in its environment. relay->fd is
 * the conversation with it. 0, or -1 with errno.
 */
int relay_start(struct relay *relay, const struct session *s);

/*
 * Ends it: its end of file, then after `wait_ms` its death. How a started relay
 * ended is logged (event=relay).
 */
void relay_stop(struct relay *relay, int wait_ms);

/*
 * Becomes the relay, on the client's own descriptors. Returns only when that
 * fails: -1 with errno.
 */
int relay_become(const struct session *s);

#endif
