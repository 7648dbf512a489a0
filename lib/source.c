/*
 * A peer's address cut to what counts.
 */
#include <netinet/in.h>
#include <string.h>

#include "lib/source.h"

void
source_of(const struct sockaddr_storage *peer, struct source *source)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)peer;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)peer;

	memset(source, 0, sizeof(*source));
	if (peer->ss_family == AF_INET) {
		source->bytes[0] = 4;
		memcpy(source->bytes + 1, &in->sin_addr, 4);
	} else if (peer->ss_family == AF_INET6 &&
	    IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		source->bytes[0] = 4;
		memcpy(source->bytes + 1, in6->sin6_addr.s6_addr + 12, 4);
	} else if (peer->ss_family == AF_INET6) {
		source->bytes[0] = 6;
		memcpy(source->bytes + 1, in6->sin6_addr.s6_addr, 8);
	}
}
