/*
 * A side's own certificates: a chain as the keeper sends it, put in an SSL_CTX
 * with a key that asks the keeper. A private part of the TLS module.
 */
#ifndef LIB_TLS_CHAIN_H
#define LIB_TLS_CHAIN_H

#include <openssl/ssl.h>

#include "tls.h"
#include "tls_staple.h"

/*
 * Puts all certificates of `keyring`, which must outlive `ctx`, in it, and keys
 * that ask it; what is said of them goes to `staples`, if that is not NULL. 0;
 * -1 with a line in `err` (TLS_ERROR_SIZE octets) when there is none, or one is
 * no good: `directive` names them.
 */
int tls_chain_use(SSL_CTX *ctx, const struct tls_keyring *keyring,
    struct tls_staples *staples, const char *directive, char *err);

/*
 * Puts the certificate for `name`, which must outlive `ssl` as well, in the
 * place of those that `ssl` has. 1; 0 when there is none; -1.
 */
int tls_chain_use_name(SSL *ssl, const struct tls_keyring *keyring,
    const char *name, struct tls_staples *staples);

#endif
