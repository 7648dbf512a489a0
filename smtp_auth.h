/*
 * Credentials in the dialogue; smtp.c's alone.
 */
#ifndef SMTP_AUTH_H
#define SMTP_AUTH_H

#include "smtp.h"

/* In the clear, with `starttls only`: nothing but STARTTLS leads on. */
bool smtp_needs_tls(const struct session *s);

/*
 * With auth_external_implicit: whether MAIL without AUTH is EXTERNAL from this
 * client, which has a certificate that says who it is and an attempt left.
 */
bool smtp_auth_is_implicit(struct session *s);

/*
 * EXTERNAL before s->mail: SMTP_ACCEPTED, or the refusal is queued, or (with
 * `none`) the client is served as one that has no certificate: SMTP_GO_ON with
 * s->have_mail set.
 */
enum smtp_event smtp_auth_implicit(struct session *s);

/* The AUTH command (RFC 4954): the exchange, the verdict and its reply. */
enum smtp_event smtp_auth(struct session *s, char *arg);

/*
 * s->mail and s->rcpt without authentication: shown to a provider that routes
 * or judges them. SMTP_ENVELOPE, or the refusal is queued.
 */
enum smtp_event smtp_auth_envelope(struct session *s);

#endif
