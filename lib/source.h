/*
 * Where a connection comes from, as far as limits and delays go.
 */
#ifndef LIB_SOURCE_H
#define LIB_SOURCE_H

#include <stdbool.h>
#include <sys/socket.h>

/*
 * An IPv4 address (mapped ones too), an IPv6 network of 64 bits, since that is
 * what one household is given, or all that is not the network.
 */
struct source {
	unsigned char bytes[9]; /* kind (0: no network), then 4 or 8 octets */
};

/* Fills `source` for any peer; bytes[0] is 0 when it is not of the network. */
void source_of(const struct sockaddr_storage *peer, struct source *source);

#endif
