/*
 * Listening sockets: those that systemd passed, and those that the listen
 * directive names.
 */
#ifndef LISTEN_SOCKET_H
#define LISTEN_SOCKET_H

#include <stddef.h>
#include <sys/socket.h>

#include "config.h"

#define LISTEN_SOCKETS	  16
#define LISTEN_ERROR_SIZE 256
#define LISTEN_ADDR_SIZE  64

struct listen_socket {
	int fd;	       /* non-blocking */
	unsigned kind; /* enum config_socket */
};

/*
 * Fills `sockets` (LISTEN_SOCKETS): first the inherited ones, which are fd 0 if
 * `inherited` is 0 and what LISTEN_FDS passed if it is 3 (-1: none), then those
 * of `conf->listen`. An inherited socket is what conf->socket says, and `ssl`
 * by its name in LISTEN_FDNAMES, too: submissions, smtps.
 * 0, or -1 with a line in `err` (LISTEN_ERROR_SIZE octets).
 */
int listen_sockets_open(const struct config *conf, int inherited,
    struct listen_socket *sockets, size_t *count, char *err);

/* An address for the log: "192.0.2.1", "2001:db8::1", "unix:". */
void listen_socket_print(
    const struct sockaddr_storage *addr, char text[LISTEN_ADDR_SIZE]);

#endif
