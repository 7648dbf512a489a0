/*
 * What the listen directive says: nginx's "address:port [ssl]
 * [proxy_protocol] [backlog=N]", with [v6]:port, *:port, port alone, and unix:/path.
 */
#ifndef LIB_LISTEN_SPEC_H
#define LIB_LISTEN_SPEC_H

#include <stdbool.h>
#include <sys/socket.h>

struct listen_spec {
	struct sockaddr_storage addr;
	socklen_t len;
	bool ssl;
	bool proxy_protocol;
	int backlog;
};

/* Takes `value` apart: NULL, or the reason why it is not well formed. */
const char *listen_spec_parse(const char *value, struct listen_spec *spec);

#endif
