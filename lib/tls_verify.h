/*
 * The server's verification of client certificates: what the SSL_CTX is told of
 * it, and what a peer's certificate says. A private part of the TLS module.
 */
#ifndef LIB_TLS_VERIFY_H
#define LIB_TLS_VERIFY_H

#include <openssl/ssl.h>

#include "tls.h"

/* Of what a session is bound to: it is resumed only where that is the same. */
#define TLS_BINDING_LEN 32

/*
 * Loads what certificates are verified with, and binds the sessions that may be
 * resumed to it, by `binding`. A bad certificate does not end the handshake: who
 * is to be refused is told so in SMTP. 0, or -1 with a line in `err`.
 */
int tls_verify_apply(SSL_CTX *ctx, const struct tls_settings *settings,
    unsigned char binding[TLS_BINDING_LEN], char *err);

/*
 * After the handshake: what is known of the client, allocated; NULL where none
 * was asked for a certificate. 0, or -1: out of memory, and nothing is known.
 */
int tls_verify_client(const SSL *ssl, struct tls_client **client);

#endif
