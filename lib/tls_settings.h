/*
 * What all of the TLS module has in common. A private part of it.
 */
#ifndef LIB_TLS_SETTINGS_H
#define LIB_TLS_SETTINGS_H

#include <stddef.h>

#include <openssl/ssl.h>

#include "tls.h"

/* Starts OpenSSL, once a process. */
void tls_settings_init(void);

/*
 * OpenSSL's queue of errors as a few words, and empties it. Of several the
 * first one of libssl says most; what tls_sign.c puts there says more.
 * `otherwise` is said when there is nothing in it.
 */
void tls_settings_explain(char *text, size_t size, const char *otherwise);

/* Puts protocols, ciphers and curves in force. 0, or -1 with a line in `err`. */
int tls_settings_apply(
    SSL_CTX *ctx, const struct tls_settings *settings, char *err);

#endif
