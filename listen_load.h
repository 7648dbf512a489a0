/*
 * The directives that a listener has in force, and the keepers that know them.
 */
#ifndef LISTEN_LOAD_H
#define LISTEN_LOAD_H

#include "config.h"
#include "listen_keeper.h"

/* Kinds of socket: every set of enum config_socket. */
#define LISTEN_KINDS ((CONFIG_SOCKET_SSL | CONFIG_SOCKET_PROXY) + 1)

struct listen_load {
	const struct config *first; /* what only a start takes is of this */
	const struct config *conf;
	const struct config *by_kind[LISTEN_KINDS]; /* of socket */
	int argc;
	char **argv;
	size_t room; /* sessions that there is room for */
	struct listen_keepers keepers;
};

/* Puts `conf` in force. 0, or -1, logged: all is as it was. */
int listen_load_adopt(struct listen_load *l, const struct config *conf);

/* Reads the directives anew, and adopts them if they are good; logged. */
void listen_load_again(struct listen_load *l);

#endif
