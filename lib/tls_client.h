/*
 * The client half of struct tls_api (lib/tls.h), which has the contracts. A
 * private part of the TLS module.
 */
#ifndef LIB_TLS_CLIENT_H
#define LIB_TLS_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#include <openssl/ssl.h>

#include "tls.h"

struct tls_connector *tls_client_new(
    const struct tls_settings *settings, char *err);
int tls_client_keys(
    struct tls_connector *connector, const struct tls_keyring *keyring, char *err);
void tls_client_free(struct tls_connector *connector);

/* A connection's SSL, in connect state; NULL with a line in `err`. */
SSL *tls_client_connect(
    struct tls_connector *connector, const struct tls_peer *peer, char *err);

/*
 * Whether a handshake failed because the server's certificate is not what it
 * should be: then why, in words, and OpenSSL's queue of errors is emptied.
 */
bool tls_client_explain(const SSL *ssl, char *text, size_t size);

/* facts.verified, after the handshake. */
const char *tls_client_verified(SSL *ssl);

#endif
