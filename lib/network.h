/*
 * Networks in directives, and whether an address is of one.
 */
#ifndef LIB_NETWORK_H
#define LIB_NETWORK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

struct network {
	int family; /* AF_INET, AF_INET6, AF_UNIX */
	unsigned char addr[16];
	unsigned bits;
};

/*
 * Takes "192.0.2.1", "192.0.2.0/24", "2001:db8::/32" or "unix:" apart. Bits
 * beyond the network's own must be 0: "192.0.2.1/24" is a slip of the pen that
 * would trust more than was meant. 0 or -1.
 */
int network_parse(const char *text, struct network *network);

/* Whether `peer` (an IPv4-mapped address is IPv4) is in the network. */
bool network_has(
    const struct network *network, const struct sockaddr_storage *peer);

/* Whether `peer` is in one of `count` networks, each as text; wrong ones: no. */
bool network_any(
    char *const *texts, size_t count, const struct sockaddr_storage *peer);

#endif
