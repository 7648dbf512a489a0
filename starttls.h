/*
 * TLS towards the client: the module that holds OpenSSL is loaded when TLS
 * begins, certificates and signatures come from the keeper.
 */
#ifndef STARTTLS_H
#define STARTTLS_H

#include "facts.h"

/*
 * Makes what needs no certificate, as the directives have it. 0, or -1 with
 * NULL and a line in `err` (TLS_ERROR_SIZE octets): one of them, or its file,
 * is no good.
 */
int starttls_server(const struct tls_api *api, const struct config *conf,
    struct tls_server **server, char *err);

/*
 * Loads OpenSSL and makes what needs no certificate. Called before the keeper
 * is forked where TLS is sure to come, so that both share one copy; else
 * starttls_prepare() does it. 0, or -1, logged.
 */
int starttls_preload(struct session *s);

/* All that a handshake needs, certificates included. 0, or -1, logged. */
int starttls_prepare(struct session *s);

/*
 * Session tickets, once the context is there: with the keys that the keeper
 * has, if it has any. starttls_prepare() does it. 0, or -1, logged.
 */
int starttls_tickets(struct session *s);

/*
 * For a process that forks sessions, now and then: makes keys where nobody has
 * given any, and new ones when those are old.
 */
void starttls_rotate_tickets(struct session *s);

/* For a process that forks sessions: a handshake with itself. 0, or -1, logged. */
int starttls_warm_up(struct session *s);

/*
 * Does the handshake by `timeout` and writes s->tls. 0, or -1, logged as
 * event=tls: then nothing more can be said to the client.
 */
int starttls_accept(struct session *s);

/* Whether a client that has done its handshake is served (ssl_verify_client). */
enum starttls_client {
	STARTTLS_ADMITTED,
	STARTTLS_NO_CERTIFICATE, /* and it needs one */
	STARTTLS_BAD_CERTIFICATE
};

enum starttls_client starttls_client(const struct session *s);

#endif
