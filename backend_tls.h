/*
 * TLS towards a backend: whether, as what the backend must prove itself, and
 * the handshake. The private keys of our own certificates are in the keeper.
 */
#ifndef BACKEND_TLS_H
#define BACKEND_TLS_H

#include "backend.h"
#include "facts.h"

/* How a session's backend is to be spoken to. */
struct backend_tls {
	enum config_proxy_ssl mode;
	enum config_decision verify, dane;
};

/*
 * What the verdict says, else the directives. 0; -1 with a line in `err`
 * (BACKEND_ERROR_SIZE octets) when the verdict's words are not known: then no
 * backend may be spoken to.
 */
int backend_tls_choose(
    const struct session *s, struct backend_tls *how, char *err);

/*
 * Loads OpenSSL and makes what all connections share, certificates included,
 * if that was not done. 0, or -1 with a line in `err`.
 */
int backend_tls_prepare(struct session *s, char *err);

/*
 * Does the handshake on `c` by its deadline. 0; -1 with a line in `err`: then
 * nothing more can be said on it.
 */
int backend_tls_connect(struct session *s, const struct backend_tls *how,
    const struct backend_place *place, struct conn *c, char *err);

#endif
