/*
 * The keeper's half of struct tls_api (lib/tls.h), which has the contracts. A
 * private part of the TLS module. OpenSSL is initialised before it is called.
 */
#ifndef LIB_TLS_KEYS_H
#define LIB_TLS_KEYS_H

#include "tls.h"

struct tls_keys *tls_keys_load(
    enum tls_role role, const struct tls_key_files *files, char *err);
void tls_keys_free(struct tls_keys *keys);
int tls_keys_certificates(const struct tls_keys *keys, const char *name,
    unsigned number, struct tls_chain *chain, char *err);
ssize_t tls_keys_sign(const struct tls_keys *keys, const char *name,
    unsigned number, enum tls_scheme scheme, const void *data, size_t len,
    unsigned char *sig, size_t size);

#endif
