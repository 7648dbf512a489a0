/*
 * Towards a mail server: finding its addresses and connecting to one of them.
 * What is said on the connection is upstream.c's.
 */
#ifndef BACKEND_H
#define BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "lib/dns.h"

#define BACKEND_ERROR_SIZE 256

/* What is known of a backend once there is a connection to it. */
struct backend_place {
	char host[DNS_NAME_SIZE]; /* a name or address; "": a UNIX socket */
	uint16_t port;
	bool is_local;		  /* the connection stays on this host */
};

/*
 * Connects to `where`: host:port, [v6]:port or unix:/path. The addresses of a
 * name are tried in order, each for its share of the time to `deadline`.
 * A non-blocking socket, the caller's, and *place; -1 with a line in `err`
 * (BACKEND_ERROR_SIZE octets).
 */
int backend_connect(const struct config *conf, const char *where,
    struct backend_place *place, int64_t deadline, char *err);

#endif
