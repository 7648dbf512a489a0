/*
 * OCSP responses that are sent with certificates, so that a client need not ask
 * their authority about it (RFC 6066 section 8). A private part of the TLS
 * module.
 */
#ifndef LIB_TLS_STAPLE_H
#define LIB_TLS_STAPLE_H

#include <openssl/ssl.h>

#include "tls.h"

/* A server's own certificates, and the one for a name. */
#define TLS_STAPLES_MAX (TLS_MAX_KEYS + 1)

struct tls_staple {
	X509 *leaf; /* whose it is */
	unsigned char *der;
	size_t len;
};

struct tls_staples {
	size_t count;
	struct tls_staple staple[TLS_STAPLES_MAX];
};

/* Keeps a copy of a response, for `leaf`. 0, or -1. */
int tls_staple_add(struct tls_staples *staples, X509 *leaf,
    const unsigned char *der, size_t len);

/* From now on clients that ask get them; `staples` must outlive `ctx`. */
void tls_staple_serve(SSL_CTX *ctx, struct tls_staples *staples);

void tls_staple_free(struct tls_staples *staples);

#endif
