/*
 * The server half of struct tls_api (lib/tls.h), which has the contracts. A
 * private part of the TLS module.
 */
#ifndef LIB_TLS_SERVER_H
#define LIB_TLS_SERVER_H

#include <openssl/ssl.h>

#include "tls.h"

struct tls_server *tls_server_new(
    const struct tls_settings *settings, char *err);
int tls_server_keys(
    struct tls_server *server, const struct tls_keyring *keyring, char *err);
int tls_server_warm_up(struct tls_server *server, char *err);
int tls_server_tickets(struct tls_server *server,
    const struct ticket_keys *keys, int64_t lifetime, char *err);
void tls_server_free(struct tls_server *server);

/* A connection's SSL, in accept state; NULL without memory. */
SSL *tls_server_accept(struct tls_server *server);

#endif
