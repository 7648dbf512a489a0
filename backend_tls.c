/*
 * TLS towards a backend. It is never tried and then left out: where it is asked
 * for, a failure is the connection's end.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "keyring.h"
#include "lib/dns_tlsa.h"
#include "lib/text.h"

#include "backend_tls.h"

/* Of this process's certificates for backends; its keeper is the session's. */
static struct keyring keyring = {.role = TLS_ROLE_CLIENT};

struct records {
	struct tls_tlsa tlsa[DNS_MAX_TLSA];
	size_t count;
};

static int
fail(char *err, const char *why)
{
	const int room = BACKEND_ERROR_SIZE - (int)sizeof("TLS: ");

	(void)snprintf(err, BACKEND_ERROR_SIZE, "TLS: %.*s", room, why);
	return -1;
}

/* Puts one word of the verdict's in its place; false: it is not known. */
static bool
take_word(struct backend_tls *how, const char *word)
{
	static const struct {
		const char *word;
		enum config_proxy_ssl mode;
	} modes[] = {
	    {"off", CONFIG_PROXY_SSL_OFF},
	    {"on", CONFIG_PROXY_SSL_ON},
	    {"starttls", CONFIG_PROXY_SSL_STARTTLS},
	};
	size_t i;

	if (text_equal(word, "any-cert")) {
		how->verify = how->dane = CONFIG_NO;
		return true;
	}
	if (text_equal(word, "verify")) {
		how->verify = CONFIG_YES;
		return true;
	}
	for (i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		if (text_equal(word, modes[i].word)) {
			how->mode = modes[i].mode;
			return true;
		}
	return false;
}

int
backend_tls_choose(
    const struct session *s, struct backend_tls *how, char *err)
{
	const char *words = message_text(&s->verdict, M_BACKEND_SSL);
	char word[16];
	int more;

	how->mode = s->conf->proxy_ssl;
	how->verify = s->conf->proxy_ssl_verify;
	how->dane = s->conf->proxy_ssl_dane;
	/* Whose client names are not looked up may have no such resolver. */
	if (how->dane == CONFIG_AUTO && s->conf->resolver[0] == '\0')
		how->dane = CONFIG_NO;
	while ((more = text_word(&words, word, sizeof(word))) == 1)
		if (!take_word(how, word))
			break;
	if (more == 0)
		return 0;
	(void)snprintf(err, BACKEND_ERROR_SIZE,
	    "the verdict asks for a kind of TLS that is not known");
	return -1;
}

/* Sets our own certificates, if there are any. `why` has TLS_ERROR_SIZE. */
static int
use_keys(struct session *s, struct tls_connector *connector, char *why)
{
	struct tls_keyring ring;

	if (s->conf->proxy_ssl_certificate.count == 0)
		return 0;
	keyring.keeper = &s->keeper;
	keyring.reason[0] = '\0';
	ring = keyring_for_tls(&keyring);
	if (s->tls_api->connector_keys(connector, &ring, why) == 0)
		return 0;
	if (keyring.reason[0] != '\0')
		(void)text_copy(why, TLS_ERROR_SIZE, keyring.reason);
	return -1;
}

int
backend_tls_prepare(struct session *s, char *err)
{
	const struct tls_settings settings = {
	    .role = TLS_ROLE_CLIENT,
	    .protocols = s->conf->proxy_ssl_protocols,
	    .ciphers = s->conf->proxy_ssl_ciphers,
	    .trusted_certificate = s->conf->proxy_ssl_trusted_certificate,
	    .crl = s->conf->proxy_ssl_crl,
	};
	char why[TLS_ERROR_SIZE] = "";
	struct tls_connector *connector;

	if (s->tls_connector != NULL)
		return 0;
	s->tls_api = tls_load(why);
	if (s->tls_api == NULL)
		return fail(err, why);
	connector = s->tls_api->connector_new(&settings, why);
	if (connector == NULL)
		return fail(err, why);
	if (use_keys(s, connector, why) == -1) {
		s->tls_api->connector_free(connector);
		return fail(err, why);
	}
	s->tls_connector = connector;
	return 0;
}

static int
shake_hands(struct conn *c, char *err)
{
	const enum conn_result r = conn_handshake(c);

	if (r == CONN_OK)
		return 0;
	if (r == CONN_TIMEOUT)
		return fail(err, "no handshake in time");
	if (r == CONN_EOF)
		return fail(err, "connection lost");
	return fail(err, keyring.reason[0] != '\0' ? keyring.reason
						  : c->tls_api->error(c->tls));
}

static bool
is_address(const char *host)
{
	unsigned char addr[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, host, addr) == 1 ||
	    inet_pton(AF_INET6, host, addr) == 1;
}

/*
 * What DNS says of the backend's certificate. Where that cannot be learnt, it
 * might be a no, which somebody keeps from us: the backend is not spoken to
 * (RFC 7672 section 2.1.3). 0, or -1.
 */
static int
find_records(const struct config *conf, const struct backend_tls *how,
    const struct backend_place *place, int64_t deadline, struct records *found)
{
	enum dns_tlsa r;
	struct dns *dns;

	if (how->dane == CONFIG_NO || place->host[0] == '\0' ||
	    is_address(place->host))
		return 0;
	dns = dns_new(conf->resolver, deadline);
	if (dns == NULL)
		return -1;
	r = dns_tlsa_find(
	    dns, place->host, place->port, found->tlsa, &found->count);
	dns_free(dns);
	return r == DNS_TLSA_FAILED ||
		(r == DNS_TLSA_NOT_TRUSTED && how->dane == CONFIG_YES)
	    ? -1
	    : 0;
}

static int
try_connect(struct session *s, const struct backend_tls *how,
    const struct backend_place *place, struct conn *c, char *err)
{
	struct records found = {.count = 0};
	const char *name = s->conf->proxy_ssl_name;
	struct tls_peer peer = {
	    .name = name[0] != '\0' ? name : place->host,
	    .verify = how->verify == CONFIG_YES ||
		(how->verify == CONFIG_AUTO && !place->is_local),
	    .tlsa = found.tlsa,
	};
	char why[TLS_ERROR_SIZE] = "";

	if (backend_tls_prepare(s, err) == -1)
		return -1;
	if (find_records(s->conf, how, place, c->deadline, &found) == -1)
		return fail(err, "no resolver on this host tells whether "
				 "there are TLSA records");
	peer.tlsa_count = found.count;
	keyring.reason[0] = '\0';
	c->tls_api = s->tls_api;
	c->tls = s->tls_api->connect(s->tls_connector, &peer, c->wfd, why);
	return c->tls != NULL ? shake_hands(c, err) : fail(err, why);
}

int
backend_tls_connect(struct session *s, const struct backend_tls *how,
    const struct backend_place *place, struct conn *c, char *err)
{
	if (try_connect(s, how, place, c, err) == 0)
		return 0;
	/* What follows would be said in the clear, or to a stranger. */
	c->failed = true;
	return -1;
}
