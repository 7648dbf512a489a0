/*
 * OpenSSL looks up, allocates and caches much at the first handshake. Before a
 * fork that is done once for all sessions, and their pages stay shared.
 */
#include <openssl/bio.h>
#include <openssl/ssl.h>

#include "lib/tls_warm.h"

/* Flights of a handshake, and some. */
#define TURNS_MAX 16

static int
shake_hands(SSL *server, SSL *client)
{
	int i, done;

	for (i = 0; i < TURNS_MAX; i++) {
		done = SSL_do_handshake(client) == 1;
		done &= SSL_do_handshake(server) == 1;
		if (done)
			return 0;
	}
	return -1;
}

int
tls_warm_up(SSL_CTX *server_ctx)
{
	SSL_CTX *client_ctx = SSL_CTX_new(TLS_client_method());
	SSL *client = client_ctx != NULL ? SSL_new(client_ctx) : NULL;
	SSL *server = SSL_new(server_ctx);
	BIO *near = NULL, *far = NULL;
	int r = -1;

	if (client != NULL && server != NULL &&
	    BIO_new_bio_pair(&near, 0, &far, 0) == 1) {
		SSL_set_bio(client, near, near);
		SSL_set_bio(server, far, far);
		SSL_set_connect_state(client);
		SSL_set_accept_state(server);
		r = shake_hands(server, client);
	}
	SSL_free(server);
	SSL_free(client);
	SSL_CTX_free(client_ctx);
	return r;
}
