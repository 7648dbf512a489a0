/*
 * TLS: one connection, and the table of the module. It never waits, and keeps
 * nothing of a connection that is over.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "lib/tls_binding.h"
#include "lib/tls_client.h"
#include "lib/tls_keys.h"
#include "lib/tls_server.h"
#include "lib/tls_settings.h"
#include "lib/tls_verify.h"

#include "lib/tls.h"

#define NAME_SIZE 256

/*
 * How much is read from the socket for one read() of data, or one step of a
 * handshake. A record has 16 KB at most: so much without data is nothing but a
 * flood of KeyUpdates, or of hellos for a renegotiation.
 */
#define FLOOD (1024 * 1024)

struct tls {
	SSL *ssl;
	bool broken; /* OpenSSL must not be asked anything more */
	bool starved; /* what is buffered is no whole record: read() waits */
	size_t taken; /* from the socket, by the call that goes on */
	struct tls_facts facts;
	struct tls_client *client; /* what facts.client leads to */
	char server_name[NAME_SIZE];
	char error[TLS_ERROR_SIZE];
};

static void
connection_free(struct tls *tls)
{
	if (tls == NULL)
		return;
	SSL_free(tls->ssl);
	free(tls->client);
	free(tls);
}

/*
 * Comes before and behind each read of the socket. A peer that is faster than
 * we are could hold OpenSSL in one call for ever, past every deadline.
 */
static long
limit_flood(BIO *bio, int operation, const char *buf, size_t len, int argi,
    long argl, int ret, size_t *processed)
{
	struct tls *tls = (struct tls *)BIO_get_callback_arg(bio);

	(void)buf, (void)len, (void)argi, (void)argl;
	if (operation == (BIO_CB_READ | BIO_CB_RETURN) && ret > 0)
		tls->taken += *processed;
	if (operation != BIO_CB_READ || tls->taken < FLOOD)
		return ret;
	errno = EPROTO;
	return -1;
}

/* Takes `ssl` over, which may be NULL; it is freed on failure. */
static struct tls *
connection_new(SSL *ssl, int rfd, int wfd)
{
	struct tls *tls = calloc(1, sizeof(*tls));

	if (tls != NULL && ssl != NULL && SSL_set_rfd(ssl, rfd) == 1 &&
	    SSL_set_wfd(ssl, wfd) == 1) {
		tls->ssl = ssl;
		BIO_set_callback_ex(SSL_get_rbio(ssl), limit_flood);
		BIO_set_callback_arg(SSL_get_rbio(ssl), (char *)tls);
		return tls;
	}
	ERR_clear_error();
	SSL_free(ssl);
	free(tls);
	return NULL;
}

static struct tls *
connection_accept(struct tls_server *server, int rfd, int wfd)
{
	return connection_new(tls_server_accept(server), rfd, wfd);
}

static struct tls *
connection_connect(struct tls_connector *connector, const struct tls_peer *peer,
    int fd, char *err)
{
	SSL *ssl = tls_client_connect(connector, peer, err);
	struct tls *tls = NULL;

	if (ssl != NULL && (tls = connection_new(ssl, fd, fd)) == NULL)
		(void)snprintf(err, TLS_ERROR_SIZE, "%s", strerror(ENOMEM));
	return tls;
}

/* What comes before each call of OpenSSL whose outcome is asked for. */
static void
prepare(struct tls *tls)
{
	ERR_clear_error();
	errno = 0;
	tls->taken = 0;
	tls->error[0] = '\0';
}

static enum tls_want
broken(struct tls *tls)
{
	tls->broken = true;
	return TLS_ERROR;
}

/*
 * On a port where TLS is spoken from the first byte, the commonest error by
 * far is a peer that does not: so it is said in plain words.
 */
static bool
is_plain_text(unsigned long error)
{
	int reason = ERR_GET_REASON(error);

	return ERR_GET_LIB(error) == ERR_LIB_SSL &&
	       (reason == SSL_R_WRONG_VERSION_NUMBER ||
		   reason == SSL_R_HTTP_REQUEST ||
		   reason == SSL_R_HTTPS_PROXY_REQUEST);
}

/* The outcome of a call that did not return 1. */
static enum tls_want
outcome(struct tls *tls, int result)
{
	int cause = errno;

	switch (SSL_get_error(tls->ssl, result)) {
	case SSL_ERROR_WANT_READ:
		return TLS_WANT_READ;
	case SSL_ERROR_WANT_WRITE:
		return TLS_WANT_WRITE;
	case SSL_ERROR_ZERO_RETURN:
		return TLS_END;
	case SSL_ERROR_SYSCALL:
		if (cause == 0)
			return TLS_END;
		(void)snprintf(tls->error, sizeof(tls->error), "%s",
		    cause == EPROTO ? "a flood of records without data"
				    : strerror(cause));
		return broken(tls);
	default:
		if (tls_client_explain(
			tls->ssl, tls->error, sizeof(tls->error)))
			return broken(tls);
		if (!SSL_is_init_finished(tls->ssl) &&
		    is_plain_text(ERR_peek_error())) {
			ERR_clear_error();
			(void)snprintf(tls->error, sizeof(tls->error),
			    "not TLS (plain SMTP or HTTP)");
		} else
			tls_settings_explain(
			    tls->error, sizeof(tls->error), "TLS failed");
		return broken(tls);
	}
}

/* The name goes to a log and to rules: what cannot be a host's is dropped. */
static void
take_server_name(struct tls *tls)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "abcdefghijklmnopqrstuvwxyz0123456789-.";
	const char *name;
	size_t len;

	name = SSL_get_servername(tls->ssl, TLSEXT_NAMETYPE_host_name);
	len = name != NULL ? strlen(name) : 0;
	if (len < sizeof(tls->server_name) && len > 0 &&
	    strspn(name, letters) == len)
		memcpy(tls->server_name, name, len + 1);
}

static enum tls_want
handshake(struct tls *tls)
{
	const unsigned char *alpn;
	unsigned alpn_len;
	int result, group;

	if (tls->broken)
		return TLS_ERROR;
	prepare(tls);
	result = SSL_do_handshake(tls->ssl);
	if (result != 1)
		return outcome(tls, result);
	/* Not known would be taken for not asked for. */
	if (SSL_is_server(tls->ssl) &&
	    tls_verify_client(tls->ssl, &tls->client) == -1) {
		(void)snprintf(tls->error, sizeof(tls->error), "out of memory");
		return broken(tls);
	}
	tls->facts.client = tls->client;
	if (SSL_is_server(tls->ssl))
		take_server_name(tls);
	else
		tls->facts.verified = tls_client_verified(tls->ssl);
	tls->facts.protocol = SSL_get_version(tls->ssl);
	tls->facts.cipher = SSL_get_cipher_name(tls->ssl);
	group = SSL_get_negotiated_group(tls->ssl);
	tls->facts.group = group != 0 ? SSL_group_to_name(tls->ssl, group)
				      : NULL;
	tls->facts.server_name = tls->server_name;
	/* There is one name that a server of ours agrees on: tls_server.c. */
	SSL_get0_alpn_selected(tls->ssl, &alpn, &alpn_len);
	tls->facts.alpn = alpn_len > 0 ? "smtp" : "";
	tls->facts.resumed = SSL_session_reused(tls->ssl) == 1;
	return TLS_DONE;
}

static enum tls_want
receive(struct tls *tls, void *buf, size_t len, size_t *moved)
{
	enum tls_want want;
	int result;

	if (tls->broken)
		return TLS_ERROR;
	prepare(tls);
	/* Goes on over records that hold no data: SSL_MODE_AUTO_RETRY is on */
	result = SSL_read_ex(tls->ssl, buf, len, moved);
	want = result == 1 ? TLS_DONE : outcome(tls, result);
	tls->starved = want == TLS_WANT_READ;
	return want;
}

static enum tls_want
transmit(struct tls *tls, const void *buf, size_t len, size_t *moved)
{
	int result;

	if (tls->broken)
		return TLS_ERROR;
	prepare(tls);
	result = SSL_write_ex(tls->ssl, buf, len, moved);
	return result == 1 ? TLS_DONE : outcome(tls, result);
}

/*
 * SSL_has_pending() alone counts half a record too, for which a caller that
 * does not wait would ask for ever.
 */
static bool
pending(const struct tls *tls)
{
	return !tls->broken && !tls->starved && SSL_has_pending(tls->ssl) == 1;
}

static void
end(struct tls *tls)
{
	if (tls->broken || !SSL_is_init_finished(tls->ssl))
		return;
	(void)SSL_shutdown(tls->ssl);
	ERR_clear_error();
}

static const struct tls_facts *
facts(const struct tls *tls)
{
	return &tls->facts;
}

static ssize_t
binding(struct tls *tls, const char *type, unsigned char *out, size_t size)
{
	ssize_t len = -1;

	if (!tls->broken && SSL_is_init_finished(tls->ssl))
		len = tls_binding_make(tls->ssl, type, out, size);
	ERR_clear_error();
	return len;
}

static const char *
error(const struct tls *tls)
{
	return tls->error;
}

/* The keeper. */

static struct tls_keys *
keys_load(enum tls_role role, const struct tls_key_files *files, char *err)
{
	tls_settings_init();
	return tls_keys_load(role, files, err);
}

/* Found by its name in the module: see lib/module.h. */
extern const struct tls_api tls_api;

const struct tls_api tls_api = {.server_new = tls_server_new,
    .server_keys = tls_server_keys,
    .server_warm_up = tls_server_warm_up,
    .server_tickets = tls_server_tickets,
    .server_free = tls_server_free,
    .accept = connection_accept,
    .connector_new = tls_client_new,
    .connector_keys = tls_client_keys,
    .connector_free = tls_client_free,
    .connect = connection_connect,
    .handshake = handshake,
    .read = receive,
    .write = transmit,
    .pending = pending,
    .shutdown = end,
    .free = connection_free,
    .facts = facts,
    .binding = binding,
    .error = error,
    .keys_load = keys_load,
    .keys_free = tls_keys_free,
    .keys_certificates = tls_keys_certificates,
    .keys_sign = tls_keys_sign};
