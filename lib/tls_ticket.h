/*
 * Session tickets, so that a client's next session may begin where this one
 * ended, in another process. A private part of the TLS module.
 */
#ifndef LIB_TLS_TICKET_H
#define LIB_TLS_TICKET_H

#include <openssl/ssl.h>

#include "ticket.h"

/* Before any keys are there: no tickets are given and none are taken. */
void tls_ticket_none(SSL_CTX *ctx);

/*
 * From now on tickets are sealed and opened with `keys`, which must outlive
 * `ctx` and may change, for `lifetime` seconds. 0, or -1.
 */
int tls_ticket_use(
    SSL_CTX *ctx, const struct ticket_keys *keys, int64_t lifetime);

#endif
