/*
 * TLS, server side, and the table of the module. Owns the SSL_CTX that all
 * connections of a process share and the SSL of each. It never waits, never
 * sees a private key (tls_sign.c asks for signatures, tls_keys.c is where they
 * are made) and keeps no sessions: a process serves one client.
 *
 * OpenSSL is started with as little as will do, because every session pays
 * for it: see init().
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "lib/tls_keys.h"
#include "lib/tls_sign.h"
#include "lib/tls_warm.h"

#include "lib/tls.h"

#define NAME_SIZE    256
#define CIPHERS_SIZE 4096
/* Several records a read() where the peer sends much; untouched where not. */
#define READ_SIZE (4 * (5 + 16384 + 256)) /* whole records */

/*
 * The keeper signs, it does not decrypt: without RSA key exchange a key that
 * only signs is enough, and there is no padding oracle. DHE needs parameters
 * that we do not have, and the keeper knows only curves.
 */
#define NEVER	":!kRSA:!kDHE"
#define CIPHERS "HIGH:!aNULL:!MD5"

struct tls_server {
	SSL_CTX *ctx;
	struct tls_keyring keyring;
};

struct tls {
	SSL *ssl;
	bool broken; /* OpenSSL must not be asked anything more */
	bool starved; /* what is buffered is no whole record: read() waits */
	struct tls_facts facts;
	char server_name[NAME_SIZE];
	char error[TLS_ERROR_SIZE];
};

/*
 * No openssl.cnf: the directives say all that is to say. No exit handler: the
 * process ends, with _exit() or not, and its memory with it. No texts of
 * errors: explain() loads those it needs. And not all algorithms by name:
 * libssl fetches what it uses from the provider, and only digests are looked
 * up by name still, for the signatures in certificates. Together that
 * saves more than a third of what OpenSSL's start costs.
 */
static void
init(void)
{
	static bool done;

	if (done)
		return;
	done = true;
	(void)OPENSSL_init_crypto(
	    OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS |
		OPENSSL_INIT_NO_ADD_ALL_CIPHERS |
		OPENSSL_INIT_NO_ADD_ALL_DIGESTS | OPENSSL_INIT_NO_ATEXIT,
	    NULL);
	(void)EVP_add_digest(EVP_sha1());
	(void)EVP_add_digest(EVP_sha224());
	(void)EVP_add_digest(EVP_sha256());
	(void)EVP_add_digest(EVP_sha384());
	(void)EVP_add_digest(EVP_sha512());
}

/*
 * OpenSSL's queue of errors as a few words, and empties it. Of several the
 * first one of libssl says most; what tls_sign.c puts there says more.
 */
static void
explain(char *text, size_t size, const char *otherwise)
{
	const char *data, *reason = NULL;
	unsigned long error;
	int flags;

	(void)OPENSSL_init_ssl(OPENSSL_INIT_LOAD_SSL_STRINGS |
				   OPENSSL_INIT_NO_LOAD_CONFIG |
				   OPENSSL_INIT_NO_ATEXIT,
	    NULL);
	(void)snprintf(text, size, "%s", otherwise);
	while (
	    (error = ERR_get_error_all(NULL, NULL, NULL, &data, &flags)) != 0) {
		if (ERR_GET_LIB(error) == ERR_LIB_USER &&
		    flags & ERR_TXT_STRING) {
			(void)snprintf(text, size, "%s", data);
			break;
		}
		if (ERR_GET_LIB(error) != ERR_LIB_SSL || reason != NULL)
			continue;
		reason = ERR_reason_error_string(error);
		if (reason != NULL)
			(void)snprintf(text, size, "%s", reason);
	}
	ERR_clear_error();
}

/* The server. */

static bool
is_set(const char *setting)
{
	return setting != NULL && setting[0] != '\0';
}

/* Takes nginx's next word for a protocol: its bit, 0 at the end, or -1. */
static int
next_protocol(const char **words)
{
	static const char *const names[] = {
	    "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"};
	size_t i, len;

	*words += strspn(*words, " \t");
	len = strcspn(*words, " \t");
	if (len == 0)
		return 0;
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strlen(names[i]) == len &&
		    strncmp(names[i], *words, len) == 0) {
			*words += len;
			return 1 << i;
		}
	return -1;
}

/*
 * TLS 1.0 and 1.1 are nginx's words, so they are taken; but they sign with MD5
 * and SHA-1, which neither our keeper nor OpenSSL's security level 1 does
 * (and RFC 8996 forbids both).
 */
static int
set_protocols(SSL_CTX *ctx, const char *words, char *err)
{
	int bit, set = 0;
	bool v12, v13;

	if (!is_set(words))
		words = "TLSv1.2 TLSv1.3";
	while ((bit = next_protocol(&words)) > 0)
		set |= bit;
	if (bit == -1) {
		(void)snprintf(err, TLS_ERROR_SIZE,
		    "ssl_protocols: \"%.*s\" is not one of TLSv1 TLSv1.1 "
		    "TLSv1.2 TLSv1.3",
		    (int)strcspn(words, " \t"), words);
		return -1;
	}
	v12 = set & 1 << 2;
	v13 = set & 1 << 3;
	if (!v12 && !v13) {
		(void)snprintf(err, TLS_ERROR_SIZE,
		    "ssl_protocols: needs TLSv1.2 or TLSv1.3");
		return -1;
	}
	(void)SSL_CTX_set_min_proto_version(
	    ctx, v12 ? TLS1_2_VERSION : TLS1_3_VERSION);
	(void)SSL_CTX_set_max_proto_version(
	    ctx, v13 ? TLS1_3_VERSION : TLS1_2_VERSION);
	return 0;
}

static int
set_ciphers(SSL_CTX *ctx, const char *ciphers, char *err)
{
	char list[CIPHERS_SIZE];
	int n;

	n = snprintf(list, sizeof(list), "%s" NEVER,
	    is_set(ciphers) ? ciphers : CIPHERS);
	if (n < 0 || (size_t)n >= sizeof(list) ||
	    SSL_CTX_set_cipher_list(ctx, list) != 1) {
		ERR_clear_error();
		(void)snprintf(err, TLS_ERROR_SIZE,
		    "ssl_ciphers: no cipher "
		    "that can be served (RSA and DHE key exchange cannot)");
		return -1;
	}
	return 0;
}

static int
set_curves(SSL_CTX *ctx, const char *curves, char *err)
{
	if (!is_set(curves) || strcmp(curves, "auto") == 0 ||
	    SSL_CTX_set1_curves_list(ctx, curves) == 1)
		return 0;
	ERR_clear_error();
	(void)snprintf(err, TLS_ERROR_SIZE,
	    "ssl_ecdh_curve: unknown curve in \"%s\"", curves);
	return -1;
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
	(void)SSL_CTX_set_options(
	    ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
		     SSL_OP_NO_TICKET | SSL_OP_IGNORE_UNEXPECTED_EOF |
		     SSL_OP_CLEANSE_PLAINTEXT);
	/* The next process could not resume what this one has forgotten. */
	(void)SSL_CTX_set_num_tickets(ctx, 0);
	(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	/* The chain is sent as it is configured, nothing is built or verified */
	(void)SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
					SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					SSL_MODE_NO_AUTO_CHAIN);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_default_read_buffer_len(ctx, READ_SIZE);
	SSL_CTX_set_alpn_select_cb(ctx, select_protocol, NULL);
}

static void
server_free(struct tls_server *server)
{
	if (server == NULL)
		return;
	SSL_CTX_free(server->ctx);
	free(server);
}

static struct tls_server *
server_new(const struct tls_settings *settings, char *err)
{
	struct tls_server *server = calloc(1, sizeof(*server));

	init();
	if (server == NULL) {
		(void)snprintf(err, TLS_ERROR_SIZE, "%s", strerror(errno));
		return NULL;
	}
	server->ctx = SSL_CTX_new(TLS_server_method());
	if (server->ctx == NULL) {
		explain(err, TLS_ERROR_SIZE, "OpenSSL does not start");
		free(server);
		return NULL;
	}
	set_behaviour(server->ctx);
	if (settings->prefer_server_ciphers)
		(void)SSL_CTX_set_options(
		    server->ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
	if (set_protocols(server->ctx, settings->protocols, err) == -1 ||
	    set_ciphers(server->ctx, settings->ciphers, err) == -1 ||
	    set_curves(server->ctx, settings->ecdh_curve, err) == -1) {
		server_free(server);
		return NULL;
	}
	return server;
}

/* One certificate of a chain as the keeper sends it; NULL when it is none. */
static X509 *
take_certificate(const unsigned char **chain, size_t *left)
{
	const unsigned char *p = *chain, *end;
	X509 *x509;
	size_t len;

	if (*left < 3)
		return NULL;
	len = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
	p += 3;
	if (len > *left - 3)
		return NULL;
	end = p + len;
	x509 = d2i_X509(NULL, &p, (long)len);
	if (x509 != NULL && p != end) {
		X509_free(x509);
		return NULL;
	}
	*chain = end;
	*left -= 3 + len;
	return x509;
}

/* All certificates of a chain, leaf first; NULL when one is broken. */
static STACK_OF(X509) * take_chain(const unsigned char *chain, size_t left)
{
	STACK_OF(X509) *all = sk_X509_new_null();
	X509 *x509;

	while (all != NULL && left > 0) {
		x509 = take_certificate(&chain, &left);
		if (x509 == NULL || sk_X509_push(all, x509) == 0) {
			X509_free(x509);
			sk_X509_pop_free(all, X509_free);
			return NULL;
		}
	}
	return all;
}

/*
 * Without the override a second certificate of one type, which OpenSSL would
 * put in the first one's place, is an error.
 */
static bool
use_chain(struct tls_server *server, unsigned number, STACK_OF(X509) * chain)
{
	X509 *leaf = sk_X509_shift(chain);
	EVP_PKEY *public = leaf != NULL ? X509_get0_pubkey(leaf) : NULL;
	EVP_PKEY *key = NULL;
	bool used;

	if (public != NULL)
		key = tls_sign_key(public, &server->keyring, number);
	used = key != NULL &&
	       SSL_CTX_use_cert_and_key(server->ctx, leaf, key, chain, 0) == 1;
	EVP_PKEY_free(key);
	X509_free(leaf);
	return used;
}

static int
use_certificates(struct tls_server *server, unsigned number,
    const unsigned char *bytes, size_t len, char *err)
{
	STACK_OF(X509) *chain = take_chain(bytes, len);
	char why[TLS_ERROR_SIZE / 2];
	bool used;

	used = chain != NULL && use_chain(server, number, chain);
	sk_X509_pop_free(chain, X509_free);
	if (used)
		return 0;
	explain(why, sizeof(why), "OpenSSL cannot read it");
	(void)snprintf(err, TLS_ERROR_SIZE, "ssl_certificate number %u: %s",
	    number + 1, why);
	return -1;
}

static int
server_keys(
    struct tls_server *server, const struct tls_keyring *keyring, char *err)
{
	unsigned char chain[TLS_MAX_CHAIN];
	unsigned number;
	ssize_t n = 0;

	server->keyring = *keyring;
	for (number = 0; number < TLS_MAX_KEYS; number++) {
		n = keyring->certificates(
		    keyring->arg, number, chain, sizeof(chain));
		if (n <= 0 || (size_t)n > sizeof(chain))
			break;
		if (use_certificates(server, number, chain, (size_t)n, err) ==
		    -1)
			return -1;
	}
	if (number > 0 && (n == 0 || number == TLS_MAX_KEYS))
		return 0;
	(void)snprintf(err, TLS_ERROR_SIZE, "%s",
	    n == 0 ? "there is no ssl_certificate" : "the keeper has failed");
	return -1;
}

static int
server_warm_up(struct tls_server *server, char *err)
{
	if (tls_warm_up(server->ctx) == 0) {
		ERR_clear_error();
		return 0;
	}
	explain(err, TLS_ERROR_SIZE, "a handshake with ourselves failed");
	return -1;
}

/* A connection. */

static void
connection_free(struct tls *tls)
{
	if (tls == NULL)
		return;
	SSL_free(tls->ssl);
	free(tls);
}

static struct tls *
connection_new(struct tls_server *server, int rfd, int wfd)
{
	struct tls *tls = calloc(1, sizeof(*tls));

	if (tls == NULL)
		return NULL;
	tls->ssl = SSL_new(server->ctx);
	if (tls->ssl == NULL || SSL_set_rfd(tls->ssl, rfd) != 1 ||
	    SSL_set_wfd(tls->ssl, wfd) != 1) {
		ERR_clear_error();
		connection_free(tls);
		return NULL;
	}
	SSL_set_accept_state(tls->ssl);
	return tls;
}

/* What comes before each call of OpenSSL whose outcome is asked for. */
static void
prepare(struct tls *tls)
{
	ERR_clear_error();
	errno = 0;
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
		(void)snprintf(
		    tls->error, sizeof(tls->error), "%s", strerror(cause));
		return broken(tls);
	default:
		if (!SSL_is_init_finished(tls->ssl) &&
		    is_plain_text(ERR_peek_error())) {
			ERR_clear_error();
			(void)snprintf(tls->error, sizeof(tls->error),
			    "not TLS (plain SMTP or HTTP)");
		} else
			explain(tls->error, sizeof(tls->error), "TLS failed");
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
	int result;

	if (tls->broken)
		return TLS_ERROR;
	prepare(tls);
	result = SSL_do_handshake(tls->ssl);
	if (result != 1)
		return outcome(tls, result);
	take_server_name(tls);
	tls->facts.protocol = SSL_get_version(tls->ssl);
	tls->facts.cipher = SSL_get_cipher_name(tls->ssl);
	tls->facts.server_name = tls->server_name;
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

static const char *
error(const struct tls *tls)
{
	return tls->error;
}

/* The keeper. */

static struct tls_keys *
keys_load(char *const *certificates, char *const *keys, size_t count,
    const char *password_file, char *err)
{
	init();
	return tls_keys_load(certificates, keys, count, password_file, err);
}

/* Found by its name in the module: see lib/module.h. */
extern const struct tls_api tls_api;

const struct tls_api tls_api = {.server_new = server_new,
    .server_keys = server_keys,
    .server_warm_up = server_warm_up,
    .server_free = server_free,
    .accept = connection_new,
    .handshake = handshake,
    .read = receive,
    .write = transmit,
    .pending = pending,
    .shutdown = end,
    .free = connection_free,
    .facts = facts,
    .error = error,
    .keys_load = keys_load,
    .keys_free = tls_keys_free,
    .keys_certificates = tls_keys_certificates,
    .keys_sign = tls_keys_sign};
