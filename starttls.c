/*
 * The handshake with the client. The private key never comes here: the
 * keyring asks the keeper.
 */
#include <syslog.h>

#include "keyring.h"
#include "lib/log.h"

#include "starttls.h"

/* Of this process's certificates; its keeper is the session's. */
static struct keyring keyring = {.role = TLS_ROLE_SERVER};

static int
failed(const struct session *s, const char *reason)
{
	if (keyring.reason[0] != '\0')
		reason = keyring.reason;
	log_event(LOG_ERR, "tls", "result", "failed", "client",
	    s->peer.addr[0] != '\0' ? s->peer.addr : NULL,
	    "reason", reason, NULL);
	return -1;
}

int
starttls_server(const struct tls_api *api, const struct config *conf,
    struct tls_server **server, char *err)
{
	const struct tls_settings settings = {
	    .protocols = conf->ssl_protocols,
	    .ciphers = conf->ssl_ciphers,
	    .ecdh_curve = conf->ssl_ecdh_curve,
	    .prefer_server_ciphers = conf->ssl_prefer_server_ciphers,
	    .commands = conf->ssl_conf_command.word,
	    .command_count = conf->ssl_conf_command.count,
	    .dhparam = conf->ssl_dhparam,
	    .names = conf->ssl_sni_directory[0] != '\0',
	    .verify = conf->ssl_verify_client,
	    .verify_depth = conf->ssl_verify_depth,
	    .client_certificate = conf->ssl_client_certificate,
	    .trusted_certificate = conf->ssl_trusted_certificate,
	    .crl = conf->ssl_crl,
	};

	*server = api->server_new(&settings, err);
	return *server != NULL ? 0 : -1;
}

int
starttls_preload(struct session *s)
{
	char err[TLS_ERROR_SIZE] = "";

	if (s->tls_server != NULL)
		return 0;
	s->tls_api = tls_load(err);
	if (s->tls_api == NULL)
		return failed(s, err);
	return starttls_server(s->tls_api, s->conf, &s->tls_server, err) == -1
	    ? failed(s, err)
	    : 0;
}

int
starttls_prepare(struct session *s)
{
	struct tls_keyring ring;
	char err[TLS_ERROR_SIZE] = "";

	keyring.reason[0] = '\0';
	if (s->tls_has_keys)
		return 0;
	if (starttls_preload(s) == -1)
		return -1;
	keyring.keeper = &s->keeper;
	ring = keyring_for_tls(&keyring);
	if (s->tls_api->server_keys(s->tls_server, &ring, err) == -1)
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
	const struct tls_facts *tls = s->tls;
	const struct tls_client *client = tls->client;
	bool admitted = starttls_client(s) == STARTTLS_ADMITTED;

	log_event(LOG_INFO, "tls", "result", admitted ? "ok" : "refused",
	    "client", s->peer.addr, "protocol", tls->protocol, "cipher",
	    tls->cipher, "group", tls->group, "resumed",
	    tls->resumed ? "yes" : NULL, "name",
	    tls->server_name[0] != '\0' ? tls->server_name : NULL, "verify",
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
	keyring.reason[0] = '\0';
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
	    : keyring.reason[0] != '\0' ? keyring.reason
				       : c->tls_api->error(c->tls);
	/* A log of the clients' doings, not of ours. */
	log_event(LOG_INFO, "tls", "result", "failed", "client", s->peer.addr,
	    "reason", why, NULL);
	c->failed = true;
	return -1;
}
