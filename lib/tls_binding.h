/*
 * What ties an authentication to its TLS connection. A private part of the TLS
 * module.
 */
#ifndef LIB_TLS_BINDING_H
#define LIB_TLS_BINDING_H

#include <openssl/ssl.h>

#include <sys/types.h>

/*
 * The channel binding of `ssl`, whose handshake is over, of a type as
 * "tls-exporter". The length, or -1: there is none.
 */
ssize_t tls_binding_make(
    SSL *ssl, const char *type, unsigned char *out, size_t size);

#endif
