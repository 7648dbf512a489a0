/*
 * The identity that TLS proved, for EXTERNAL; smtp_auth.c's alone.
 */
#ifndef SMTP_EXTERNAL_H
#define SMTP_EXTERNAL_H

#include "facts.h"

/*
 * Who the client is by its certificate, which is verified, where
 * `ssl_identity` says; NULL when it does not say.
 */
const char *smtp_external_identity(const struct session *s);

/*
 * Whether EXTERNAL can succeed: there is an identity, or the provider judges
 * certificates itself, as nginx's auth servers do.
 */
bool smtp_external_offered(const struct session *s);

/*
 * Puts the name to be judged in place of the authorization name in `user`
 * (`size` octets). NULL, or why the client may not have that name.
 */
const char *smtp_external_take(
    const struct session *s, char *user, size_t size);

#endif
