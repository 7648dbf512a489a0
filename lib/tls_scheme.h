/*
 * What a private key signs. A private part of the TLS module.
 */
#ifndef LIB_TLS_SCHEME_H
#define LIB_TLS_SCHEME_H

#include <openssl/evp.h>

#include "tls.h"

/* What is to be signed, and the side whose key is to do it. */
struct tls_scheme_data {
	enum tls_role role;
	const unsigned char *p;
	size_t len;
};

/*
 * Signs `data`, if it has a form that TLS gives its side to sign, with `pkey`,
 * which is of the type EVP_PKEY_RSA, _EC or _ED25519. The length of the
 * signature, or -1.
 */
ssize_t tls_scheme_sign(EVP_PKEY *pkey, int type, enum tls_scheme scheme,
    const struct tls_scheme_data *data, unsigned char *sig, size_t size);

#endif
