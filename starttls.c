/*
 * The handshake with the client. The private key never comes here: the two
 * functions of the keyring are questions to the keeper.
 */
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "auth.h"
#include "lib/clock.h"
#include "lib/log.h"

#include "starttls.h"

/* How long the keeper may take to load keys or to sign, in milliseconds. */
#define KEEPER_WAIT 10000

/* Why the keeper could not, from inside OpenSSL's calls to what is logged. */
static char keeper_reason[TLS_ERROR_SIZE];

/* Asks the keeper; the length of `field` copied to `out`, 0 if not there. */
static ssize_t
ask(struct session *s, struct message *m, enum message_type expected,
    enum message_field field, unsigned char *out, size_t size)
{
	const void *bytes;
	size_t len = 0;

	if (auth_question(&s->keeper, m, expected, clock_in(KEEPER_WAIT)) ==
	    -1) {
		(void)snprintf(keeper_reason, sizeof(keeper_reason), "%s",
		    message_text(m, M_REASON));
		return -1;
	}
	bytes = message_get_bytes(m, field, &len);
	if (bytes == NULL)
		return 0;
	if (len > size)
		return -1;
	memcpy(out, bytes, len);
	return (ssize_t)len;
}

static ssize_t
certificates(void *arg, unsigned key, unsigned char *chain, size_t size)
{
	static struct message m;

	message_init(&m, ASK_CERTIFICATES);
	message_put_number(&m, M_KEY, key);
	return ask(arg, &m, ANSWER_CERTIFICATES, M_CHAIN, chain, size);
}

static ssize_t
sign(void *arg, unsigned key, enum tls_scheme scheme, const void *data,
    size_t len, unsigned char *sig, size_t size)
{
	static struct message m;

	message_init(&m, ASK_SIGNATURE);
	message_put_number(&m, M_KEY, key);
	message_put_number(&m, M_SCHEME, scheme);
	message_put_bytes(&m, M_DATA, data, len);
	return ask(arg, &m, ANSWER_SIGNATURE, M_SIGNATURE, sig, size);
}

static int
failed(const struct session *s, const char *reason)
{
	if (keeper_reason[0] != '\0')
		reason = keeper_reason;
	log_event(LOG_ERR, "tls", "result", "failed", "client",
	    s->peer.addr[0] != '\0' ? s->peer.addr : NULL,
	    "reason", reason, NULL);
	return -1;
}

int
starttls_preload(struct session *s)
{
	const struct tls_settings settings = {
	    .protocols = s->conf->ssl_protocols,
	    .ciphers = s->conf->ssl_ciphers,
	    .ecdh_curve = s->conf->ssl_ecdh_curve,
	    .prefer_server_ciphers = s->conf->ssl_prefer_server_ciphers,
	    .verify = s->conf->ssl_verify_client,
	    .verify_depth = s->conf->ssl_verify_depth,
	    .client_certificate = s->conf->ssl_client_certificate,
	    .trusted_certificate = s->conf->ssl_trusted_certificate,
	    .crl = s->conf->ssl_crl,
	};
	char err[TLS_ERROR_SIZE] = "";

	if (s->tls_server != NULL)
		return 0;
	s->tls_api = tls_load(err);
	if (s->tls_api == NULL)
		return failed(s, err);
	s->tls_server = s->tls_api->server_new(&settings, err);
	return s->tls_server == NULL ? failed(s, err) : 0;
}

int
starttls_prepare(struct session *s)
{
	const struct tls_keyring keyring = {s, certificates, sign};
	char err[TLS_ERROR_SIZE] = "";

	keeper_reason[0] = '\0';
	if (s->tls_has_keys)
		return 0;
	if (starttls_preload(s) == -1)
		return -1;
	if (s->tls_api->server_keys(s->tls_server, &keyring, err) == -1)
		return failed(s, err);
	s->tls_has_keys = true;
	return starttls_tickets(s);
}

int
starttls_warm_up(struct session *s)
{
	char err[TLS_ERROR_SIZE] = "";

	return s->tls_api->server_warm_up(s->tls_server, err) == -1
	    ? failed(s, err)
	    : 0;
}

enum starttls_client
starttls_client(const struct session *s)
{
	enum tls_verify verify = s->conf->ssl_verify_client;
	const struct tls_client *client = s->tls->client;

	if (verify == TLS_VERIFY_OFF)
		return STARTTLS_ADMITTED;
	/* Asked for, and nothing known: it cannot be vouched for. */
	if (client == NULL)
		return STARTTLS_BAD_CERTIFICATE;
	switch (client->state) {
	case TLS_CLIENT_NONE:
		return verify == TLS_VERIFY_ON ? STARTTLS_NO_CERTIFICATE
					       : STARTTLS_ADMITTED;
	case TLS_CLIENT_VERIFIED:
		return STARTTLS_ADMITTED;
	case TLS_CLIENT_NO_CA:
		return verify == TLS_VERIFY_OPTIONAL_NO_CA
		    ? STARTTLS_ADMITTED
		    : STARTTLS_BAD_CERTIFICATE;
	case TLS_CLIENT_BAD:
		break;
	}
	return STARTTLS_BAD_CERTIFICATE;
}

/* The handshake is done; whether the client is served is another matter. */
static void
log_handshake(const struct session *s)
{
	const struct tls_client *client = s->tls->client;
	bool admitted = starttls_client(s) == STARTTLS_ADMITTED;
	const char *name = s->tls->server_name;

	log_event(LOG_INFO, "tls", "result", admitted ? "ok" : "refused",
	    "client", s->peer.addr, "protocol", s->tls->protocol, "cipher",
	    s->tls->cipher, "name", name[0] != '\0' ? name : NULL, "verify",
	    client != NULL ? client->verify : NULL, "subject",
	    client != NULL && client->subject[0] != '\0' ? client->subject
							 : NULL, NULL);
}

int
starttls_accept(struct session *s)
{
	struct conn *c = &s->client;
	enum conn_result r;
	const char *why;

	c->tls_api = s->tls_api;
	keeper_reason[0] = '\0';
	c->tls = c->tls_api->accept(s->tls_server, c->rfd, c->wfd);
	if (c->tls == NULL)
		return failed(s, "out of memory");
	conn_set_timeout(c, s->conf->timeout);
	r = conn_handshake(c);
	if (r == CONN_OK) {
		s->tls = c->tls_api->facts(c->tls);
		log_handshake(s);
		return 0;
	}
	why = r == CONN_TIMEOUT ? "timeout"
	    : r == CONN_EOF	? "the client left"
	    : keeper_reason[0] != '\0' ? keeper_reason
				       : c->tls_api->error(c->tls);
	/* A log of the clients' doings, not of ours. */
	log_event(LOG_INFO, "tls", "result", "failed", "client", s->peer.addr,
	    "reason", why, NULL);
	c->failed = true;
	return -1;
}
