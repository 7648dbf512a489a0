/*
 * Networks: prefix and length, compared bit by bit. No names are looked up.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

#include "lib/text.h"

#include "lib/network.h"

/* The bits of octet `i` that lie in the first `bits` ones. */
static unsigned char
mask_of(size_t i, unsigned bits)
{
	if (bits >= 8 * (i + 1))
		return 0xff;
	return bits <= 8 * i ? 0 : (unsigned char)(0xff << (8 * (i + 1) - bits));
}

static size_t
octets(int family)
{
	return family == AF_INET ? 4 : 16;
}

int
network_parse(const char *text, struct network *network)
{
	const char *slash = strchr(text, '/');
	char addr[INET6_ADDRSTRLEN];
	uint64_t bits;
	size_t i, len = slash != NULL ? (size_t)(slash - text) : strlen(text);

	memset(network, 0, sizeof(*network));
	if (strcmp(text, "unix:") == 0) {
		network->family = AF_UNIX;
		return 0;
	}
	if (len >= sizeof(addr))
		return -1;
	memcpy(addr, text, len);
	addr[len] = '\0';
	if (inet_pton(AF_INET, addr, network->addr) == 1)
		network->family = AF_INET;
	else if (inet_pton(AF_INET6, addr, network->addr) == 1)
		network->family = AF_INET6;
	else
		return -1;
	bits = 8 * octets(network->family);
	if (slash != NULL && text_number(slash + 1, bits, &bits) == -1)
		return -1;
	network->bits = (unsigned)bits;
	for (i = 0; i < octets(network->family); i++)
		if (network->addr[i] & ~mask_of(i, network->bits))
			return -1;
	return 0;
}

bool
network_has(const struct network *network, const struct sockaddr_storage *peer)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)peer;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)peer;
	int family = peer->ss_family;
	const unsigned char *addr;
	size_t i;

	if (family == AF_UNIX)
		return network->family == AF_UNIX;
	if (family != AF_INET && family != AF_INET6)
		return false;
	addr = family == AF_INET ? (const unsigned char *)&in->sin_addr
				 : in6->sin6_addr.s6_addr;
	if (family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		family = AF_INET;
		addr += 12;
	}
	if (family != network->family)
		return false;
	for (i = 0; i < octets(family); i++)
		if ((addr[i] ^ network->addr[i]) & mask_of(i, network->bits))
			return false;
	return true;
}

bool
network_any(
    char *const *texts, size_t count, const struct sockaddr_storage *peer)
{
	struct network network;
	size_t i;

	for (i = 0; i < count; i++)
		if (network_parse(texts[i], &network) == 0 &&
		    network_has(&network, peer))
			return true;
	return false;
}
