/*
 * A side's own certificates: a chain as the keeper sends it, put in an SSL_CTX
 * with a key that asks the keeper. A private part of the TLS module.
 */
#ifndef LIB_TLS_CHAIN_H
#define LIB_TLS_CHAIN_H

#include <openssl/ssl.h>

#include "tls.h"

/*
 * Puts all certificates of `keyring`, which must outlive `ctx`, in it, and keys
 * that ask it. 0; -1 with a line in `err` (TLS_ERROR_SIZE octets) when there is
 * none, or one is no good: `directive` names them.
 */
int tls_chain_use(SSL_CTX *ctx, const struct tls_keyring *keyring,
    const char *directive, char *err);

#endif
