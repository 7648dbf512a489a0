/*
 * The header that a proxy puts before a connection to say whose it is: HAProxy's
 * PROXY protocol, versions 1 (a line of text) and 2 (binary).
 */
#ifndef LIB_PROXY_HEADER_H
#define LIB_PROXY_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

/* Longer ones are broken: a header is one segment, addresses and a few facts. */
#define PROXY_HEADER_MAX 4096

struct proxy_header {
	unsigned version;
	/*
	 * It names two ends of a TCP connection. Else (LOCAL, UNKNOWN, UNIX) the
	 * connection is the proxy's own.
	 */
	bool has_addresses;
	struct sockaddr_storage source, destination;
	/* Of version 2; "" or false where it does not say. */
	char alpn[64];
	char authority[256];	 /* the name that the client asked TLS for */
	char unique_id[2 * 128 + 1]; /* its octets in hexadecimal if no text */
	bool tls;		 /* the client speaks TLS to the proxy */
	char tls_version[32], tls_cipher[64];
	bool certificate;	 /* the client has shown one, in this session */
	bool verified;		 /* and the proxy has found it good */
	char common_name[256];	 /* of its subject */
};

/*
 * Takes a header apart that begins at `p`. Its length; 0 when all `len` octets
 * are a header's and more must come; -1 when they are none. CRC32C is checked
 * where it is there; texts with control characters are left out.
 */
ssize_t proxy_header_parse(
    const unsigned char *p, size_t len, struct proxy_header *header);

/*
 * Writes one of version 1 or 2 into `out` (PROXY_HEADER_MAX octets), with what
 * is there of the facts if it has addresses, which are of one family, and with
 * CRC32C; else UNKNOWN or LOCAL. Its length.
 */
size_t proxy_header_write(
    const struct proxy_header *header, unsigned char *out);

#endif
