/*
 * Keys that are elsewhere: an OpenSSL key that knows its public half only, and
 * asks a keyring whenever it has to sign. A private part of the TLS module.
 */
#ifndef LIB_TLS_SIGN_H
#define LIB_TLS_SIGN_H

#include <openssl/evp.h>

#include "tls.h"

/*
 * Makes such a key for `public`, an RSA, EC or Ed25519 key from a certificate,
 * which it refers to. It asks `keyring`, which must outlive it, for signatures
 * by key `number` of `name`, which must outlive it too. NULL when OpenSSL
 * refuses.
 */
EVP_PKEY *tls_sign_key(EVP_PKEY *public, const struct tls_keyring *keyring,
    const char *name, unsigned number);

#endif
