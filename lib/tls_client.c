/*
 * The client side: the SSL_CTX that all connections of a process to servers
 * share, and what each must find at its other end: a certificate for a name
 * from somebody trusted, or what the TLSA records of the name say (DANE). The
 * key of our own certificate is elsewhere (tls_sign.c).
 */
#include <sys/stat.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include "lib/tls_chain.h"
#include "lib/tls_settings.h"

#include "lib/tls_client.h"

/* Several records a read() where the peer sends much; untouched where not. */
#define READ_SIZE (4 * (5 + 16384 + 256)) /* whole records */

/* Usages of TLSA records that mean something to SMTP (RFC 7672 section 3.1). */
#define DANE_TA 2
#define DANE_EE 3

struct tls_connector {
	SSL_CTX *ctx;
	struct tls_keyring keyring;
};

/*
 * Where nothing is asked of the certificate, OpenSSL would still look for its
 * authority, file by file, and then not heed what it finds.
 */
static int
verify(X509_STORE_CTX *store, void *arg)
{
	const SSL *ssl = X509_STORE_CTX_get_ex_data(
	    store, SSL_get_ex_data_X509_STORE_CTX_idx());

	(void)arg;
	if (ssl != NULL && SSL_get_verify_mode(ssl) == SSL_VERIFY_NONE)
		return 1;
	return X509_verify_cert(store);
}

static void
set_behaviour(SSL_CTX *ctx)
{
	/*
	 * An end without close_notify is an end: SMTP itself says where a
	 * reply is over.
	 */
	(void)SSL_CTX_set_options(ctx,
	    SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
		SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_CLEANSE_PLAINTEXT);
	/* A process has one session: there is nobody to resume it. */
	(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
					SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					SSL_MODE_NO_AUTO_CHAIN);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_default_read_buffer_len(ctx, READ_SIZE);
	SSL_CTX_set_cert_verify_callback(ctx, verify, NULL);
}

/* --- whom it trusts ------------------------------------------------------ */

static int
cannot_use(char *err, const char *directive, const char *path, const char *why)
{
	ERR_clear_error();
	(void)snprintf(
	    err, TLS_ERROR_SIZE, "%s %s: %s", directive, path, why);
	return -1;
}

/*
 * Of a directory only the files that a verification asks for are read, by
 * hashed names: to parse all authorities of a system takes milliseconds.
 */
static int
trust(X509_STORE *store, const char *path, char *err)
{
	static const char directive[] = "proxy_ssl_trusted_certificate";
	struct stat st;

	if (path == NULL || path[0] == '\0')
		return 0;
	if (stat(path, &st) == -1)
		return cannot_use(err, directive, path, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return X509_STORE_load_path(store, path) == 1
		    ? 0
		    : cannot_use(err, directive, path, "cannot be used");
	if (X509_STORE_load_file(store, path) != 1)
		return cannot_use(
		    err, directive, path, "there is no certificate in it");
	/* Whatever is in the file is trusted, not self-signed ones alone. */
	(void)X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
	return 0;
}

/* As nginx does: every certificate of the chain needs its issuer's list. */
static int
use_revocations(X509_STORE *store, const char *path, char *err)
{
	X509_LOOKUP *lookup;

	if (path == NULL || path[0] == '\0')
		return 0;
	lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());
	if (lookup == NULL ||
	    X509_load_crl_file(lookup, path, X509_FILETYPE_PEM) <= 0)
		return cannot_use(err, "proxy_ssl_crl", path,
		    "there is no list of revoked certificates in it");
	(void)X509_STORE_set_flags(
	    store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
	return 0;
}

/* --- what all connections share ------------------------------------------ */

void
tls_client_free(struct tls_connector *connector)
{
	if (connector == NULL)
		return;
	SSL_CTX_free(connector->ctx);
	free(connector);
}

struct tls_connector *
tls_client_new(const struct tls_settings *settings, char *err)
{
	struct tls_connector *connector = calloc(1, sizeof(*connector));
	X509_STORE *store;

	tls_settings_init();
	if (connector == NULL) {
		(void)snprintf(err, TLS_ERROR_SIZE, "%s", strerror(errno));
		return NULL;
	}
	connector->ctx = SSL_CTX_new(TLS_client_method());
	if (connector->ctx == NULL || SSL_CTX_dane_enable(connector->ctx) != 1) {
		tls_settings_explain(
		    err, TLS_ERROR_SIZE, "OpenSSL does not start");
		tls_client_free(connector);
		return NULL;
	}
	set_behaviour(connector->ctx);
	store = SSL_CTX_get_cert_store(connector->ctx);
	if (tls_settings_apply(connector->ctx, settings, err) == -1 ||
	    trust(store, settings->trusted_certificate, err) == -1 ||
	    use_revocations(store, settings->crl, err) == -1) {
		tls_client_free(connector);
		return NULL;
	}
	return connector;
}

int
tls_client_keys(
    struct tls_connector *connector, const struct tls_keyring *keyring, char *err)
{
	connector->keyring = *keyring;
	return tls_chain_use(
	    connector->ctx, &connector->keyring, NULL,
	    "proxy_ssl_certificate", err);
}

/* --- one connection ------------------------------------------------------ */

/* 1: `name` is an address, and the certificate has to be for it; 0: it is not. */
static int
set_address(SSL *ssl, const char *name)
{
	int r = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name);

	ERR_clear_error();
	return r;
}

/* An address is no name for a server to choose by (RFC 6066 section 3). */
static bool
set_name(SSL *ssl, const char *name)
{
	if (set_address(ssl, name) == 1)
		return true;
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(ssl, name) == 1 &&
	       SSL_set_tlsext_host_name(ssl, name) == 1;
}

/*
 * The records that say something about this server; others, the two usages of
 * the public authorities among them, are no records (RFC 7672 section 3.1.3).
 * With DANE-EE neither name nor dates matter (section 3.1.1). True when one of
 * them is usable.
 */
static bool
use_records(SSL *ssl, const struct tls_peer *peer)
{
	const struct tls_tlsa *t;
	bool usable = false;

	if (peer->tlsa_count == 0 || SSL_dane_enable(ssl, peer->name) != 1)
		return false;
	(void)SSL_dane_set_flags(ssl, DANE_FLAG_NO_DANE_EE_NAMECHECKS);
	for (t = peer->tlsa; t < peer->tlsa + peer->tlsa_count; t++)
		if ((t->usage == DANE_TA || t->usage == DANE_EE) &&
		    SSL_dane_tlsa_add(ssl, t->usage, t->selector, t->matching,
			t->data, t->len) == 1)
			usable = true;
	return usable;
}

static SSL *
cannot_connect(SSL *ssl, char *err, const char *otherwise)
{
	tls_settings_explain(err, TLS_ERROR_SIZE, otherwise);
	SSL_free(ssl);
	return NULL;
}

SSL *
tls_client_connect(
    struct tls_connector *connector, const struct tls_peer *peer, char *err)
{
	SSL *ssl = SSL_new(connector->ctx);
	bool named = peer->name[0] != '\0';

	if (ssl == NULL)
		return cannot_connect(ssl, err, "out of memory");
	SSL_set_connect_state(ssl);
	if (named && !set_name(ssl, peer->name))
		return cannot_connect(
		    ssl, err, "this name cannot be asked for");
	if ((named && use_records(ssl, peer)) || peer->verify)
		SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL);
	/* A certificate for anybody would be good. */
	if (peer->verify && !named)
		return cannot_connect(ssl, err,
		    "there is no name to verify its certificate against");
	ERR_clear_error();
	return ssl;
}

bool
tls_client_explain(const SSL *ssl, char *text, size_t size)
{
	long result = SSL_get_verify_result(ssl);

	if (SSL_is_server(ssl) || SSL_is_init_finished(ssl) ||
	    result == X509_V_OK)
		return false;
	ERR_clear_error();
	(void)snprintf(text, size, "the certificate is not good: %s",
	    X509_verify_cert_error_string(result));
	return true;
}

const char *
tls_client_verified(SSL *ssl)
{
	uint8_t usage;

	if (SSL_get_verify_mode(ssl) == SSL_VERIFY_NONE)
		return "off";
	if (SSL_get0_dane_tlsa(ssl, &usage, NULL, NULL, NULL, NULL) < 0)
		return "pkix";
	return usage == DANE_EE ? "dane-ee" : "dane-ta";
}
