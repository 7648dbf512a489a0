/*
 * The server side: the SSL_CTX that all connections of a process share, its
 * behaviour and its certificates, whose keys are elsewhere (tls_sign.c).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>

#include "lib/tls_chain.h"
#include "lib/tls_settings.h"
#include "lib/tls_ticket.h"
#include "lib/tls_verify.h"
#include "lib/tls_warm.h"

#include "lib/tls_server.h"

/* Several records a read() where the peer sends much; untouched where not. */
#define READ_SIZE (4 * (5 + 16384 + 256)) /* whole records */

struct tls_server {
	SSL_CTX *ctx;
	struct tls_keyring keyring;
	struct tls_staples staples;
	char name[TLS_MAX_NAME]; /* whose certificate is used; "": the usual */
	unsigned char binding[TLS_BINDING_LEN];
};

/*
 * The name in a hello's extension (RFC 6066 section 3): a list, in which
 * OpenSSL, too, takes one name of a host and nothing else. NULL: there is none.
 */
static const unsigned char *
asked_name(SSL *ssl, size_t *len)
{
	const unsigned char *p;
	size_t left;

	if (SSL_client_hello_get0_ext(
		ssl, TLSEXT_TYPE_server_name, &p, &left) != 1 ||
	    left < 5 || p[2] != TLSEXT_NAMETYPE_host_name)
		return NULL;
	*len = (size_t)p[3] << 8 | p[4];
	return *len == left - 5 && *len < TLS_MAX_NAME ? p + 5 : NULL;
}

/*
 * RFC 6066 section 3: a session of one name must not be resumed for another,
 * which OpenSSL leaves to its caller. So they are bound to their name, in any
 * case, beside what they are bound to anyway.
 */
static int
bind_to_name(SSL *ssl, int *alert, void *arg)
{
	const struct tls_server *server = arg;
	unsigned char text[TLS_BINDING_LEN + TLS_MAX_NAME];
	unsigned char binding[TLS_BINDING_LEN];
	const unsigned char *name;
	size_t i, len = 0;

	name = asked_name(ssl, &len);
	if (name == NULL)
		return SSL_CLIENT_HELLO_SUCCESS;
	memcpy(text, server->binding, TLS_BINDING_LEN);
	for (i = 0; i < len; i++)
		text[TLS_BINDING_LEN + i] = name[i] >= 'A' && name[i] <= 'Z'
		    ? (unsigned char)(name[i] - 'A' + 'a')
		    : name[i];
	if (EVP_Digest(text, TLS_BINDING_LEN + len, binding, NULL,
		EVP_sha256(), NULL) == 1 &&
	    SSL_set_session_id_context(ssl, binding, sizeof(binding)) == 1)
		return SSL_CLIENT_HELLO_SUCCESS;
	*alert = SSL_AD_INTERNAL_ERROR;
	return SSL_CLIENT_HELLO_ERROR;
}

/* Has OpenSSL keep the name in the session, where a resumed one has it from. */
static int
keep_name(SSL *ssl, int *alert, void *arg)
{
	(void)ssl, (void)alert, (void)arg;
	return SSL_TLSEXT_ERR_OK;
}

/*
 * The client has said which server it means: if the keeper has a certificate
 * for that name, it is used in the place of the usual ones. A name that is no
 * host's is nobody's (the keeper looks again before it makes a path of it).
 */
static int
choose_certificate(SSL *ssl, void *arg)
{
	struct tls_server *server = arg;
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

	if (name == NULL || name[0] == '\0' || strlen(name) >= TLS_MAX_NAME)
		return 1;
	(void)snprintf(server->name, sizeof(server->name), "%s", name);
	return tls_chain_use_name(ssl, &server->keyring, server->name,
		   &server->staples) != -1;
}

/*
 * A client that means to speak another protocol has been led here by somebody
 * in its way, to make our certificate speak for that protocol's server
 * (ALPACA). RFC 7301 has the alert; RFC 9325 section 3.7 the demand.
 */
static int
select_protocol(SSL *ssl, const unsigned char **out, unsigned char *outlen,
    const unsigned char *in, unsigned inlen, void *arg)
{
	static const unsigned char ours[] = {'s', 'm', 't', 'p'};
	unsigned len;

	(void)ssl;
	(void)arg;
	for (; inlen > 0; in += 1 + len, inlen -= 1 + len) {
		len = in[0];
		if (len >= inlen)
			break;
		if (len != sizeof(ours) || memcmp(in + 1, ours, len) != 0)
			continue;
		*out = in + 1;
		*outlen = (unsigned char)len;
		return SSL_TLSEXT_ERR_OK;
	}
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void
set_behaviour(SSL_CTX *ctx)
{
	/*
	 * Renegotiation lets a client have us work for nothing. An end without
	 * close_notify is an end: SMTP itself says where a message is over.
	 */
	(void)SSL_CTX_set_options(ctx,
	    SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
		SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_CLEANSE_PLAINTEXT);
	tls_ticket_none(ctx);
	/* The chain is sent as it is configured, nothing is built or verified */
	(void)SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
					SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					SSL_MODE_NO_AUTO_CHAIN);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_default_read_buffer_len(ctx, READ_SIZE);
	SSL_CTX_set_alpn_select_cb(ctx, select_protocol, NULL);
	(void)SSL_CTX_set_tlsext_servername_callback(ctx, keep_name);
}

void
tls_server_free(struct tls_server *server)
{
	if (server == NULL)
		return;
	SSL_CTX_free(server->ctx);
	tls_staple_free(&server->staples);
	free(server);
}

struct tls_server *
tls_server_new(const struct tls_settings *settings, char *err)
{
	struct tls_server *server = calloc(1, sizeof(*server));

	tls_settings_init();
	if (server == NULL) {
		(void)snprintf(err, TLS_ERROR_SIZE, "%s", strerror(errno));
		return NULL;
	}
	server->ctx = SSL_CTX_new(TLS_server_method());
	if (server->ctx == NULL) {
		tls_settings_explain(
		    err, TLS_ERROR_SIZE, "OpenSSL does not start");
		free(server);
		return NULL;
	}
	set_behaviour(server->ctx);
	tls_staple_serve(server->ctx, &server->staples);
	SSL_CTX_set_client_hello_cb(server->ctx, bind_to_name, server);
	if (settings->names)
		SSL_CTX_set_cert_cb(server->ctx, choose_certificate, server);
	if (settings->prefer_server_ciphers)
		(void)SSL_CTX_set_options(
		    server->ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
	if (tls_settings_apply(server->ctx, settings, err) == -1 ||
	    tls_verify_apply(
		server->ctx, settings, server->binding, err) == -1) {
		tls_server_free(server);
		return NULL;
	}
	return server;
}

int
tls_server_keys(
    struct tls_server *server, const struct tls_keyring *keyring, char *err)
{
	server->keyring = *keyring;
	return tls_chain_use(
	    server->ctx, &server->keyring, &server->staples,
	    "ssl_certificate", err);
}

int
tls_server_warm_up(struct tls_server *server, char *err)
{
	if (tls_warm_up(server->ctx) == 0) {
		ERR_clear_error();
		return 0;
	}
	tls_settings_explain(
	    err, TLS_ERROR_SIZE, "a handshake with ourselves failed");
	return -1;
}

int
tls_server_tickets(struct tls_server *server, const struct ticket_keys *keys,
    int64_t lifetime, char *err)
{
	if (tls_ticket_use(server->ctx, keys, lifetime) == 0)
		return 0;
	tls_settings_explain(err, TLS_ERROR_SIZE, "no session tickets");
	return -1;
}

SSL *
tls_server_accept(struct tls_server *server)
{
	SSL *ssl = SSL_new(server->ctx);

	if (ssl != NULL)
		SSL_set_accept_state(ssl);
	return ssl;
}
