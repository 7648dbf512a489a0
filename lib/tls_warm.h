/*
 * The first handshake of a process, made with itself: lib/tls.c's alone.
 */
#ifndef LIB_TLS_WARM_H
#define LIB_TLS_WARM_H

#include <openssl/types.h>

/* Makes a whole handshake of `server` with a client in memory. 0 or -1. */
int tls_warm_up(SSL_CTX *server);

#endif
