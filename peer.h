/*
 * Who is there: which descriptor is the connection, and what the kernel, or
 * where it has nothing to say the environment, tells of its two ends.
 */
#ifndef PEER_H
#define PEER_H

#include "facts.h"

enum peer_found {
	PEER_CONNECTION,
	PEER_LISTENING, /* one or more listening sockets were passed */
	PEER_MISSING	/* fd 0 is closed, or several connections passed */
};

/*
 * Finds the connection: fd 3 when systemd passed one (LISTEN_FDS, LISTEN_PID),
 * else fd 0 with fd 1. What a descriptor is, is asked of the kernel.
 */
enum peer_found peer_find(int *rfd, int *wfd);

/* The first descriptor beyond 0, 1, 2 and what systemd passed. */
int peer_passed_end(void);

/*
 * Fills `peer` for the connection `fd`. A network peer's address is the
 * kernel's; only where the descriptor has none are TCP6REMOTEIP, TCPREMOTEIP,
 * REMOTE_ADDR and REMOTE_HOST believed, and their ports. IPv4-mapped addresses
 * are written as IPv4.
 */
void peer_identify(struct peer *peer, int fd);

/*
 * Reads the PROXY protocol header that comes before all else, by `timeout`, and
 * nothing behind it. If the connection is of set_real_ip_from, the header says
 * who the client is, and of its TLS; else it is noted and changes nothing.
 * 0, or -1 when the session is over, for the reason in s->cause: none came, or
 * none that is well formed.
 */
int peer_receive_header(struct session *s);

/* The addresses of a header, which become the client's if peer->trusted. */
void peer_take_header(struct peer *peer, const struct proxy_header *header);

#endif
