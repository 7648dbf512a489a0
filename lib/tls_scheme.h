/*
 * What a private key signs. A private part of the TLS module.
 */
#ifndef LIB_TLS_SCHEME_H
#define LIB_TLS_SCHEME_H

#include <openssl/evp.h>

#include "tls.h"

/*
 * Signs `len` octets of `data`, if they have a form that TLS gives a server to
 * sign, with `pkey`, which is of the type EVP_PKEY_RSA, _EC or _ED25519. The
 * length of the signature, or -1.
 */
ssize_t tls_scheme_sign(EVP_PKEY *pkey, int type, enum tls_scheme scheme,
    const void *data, size_t len, unsigned char *sig, size_t size);

#endif
