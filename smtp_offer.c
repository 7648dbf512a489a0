/*
 * What may be offered: smtp_auth's words, less what the provider cannot make
 * succeed. The provider is asked through the keeper.
 */
#include <stdio.h>
#include <string.h>

#include "auth.h"
#include "lib/clock.h"
#include "lib/text.h"
#include "lib/tls.h"
#include "smtp_external.h"

#include "smtp_offer.h"

/* Two ends of a connection in four fields that follow each other. */
static void
put_ends(struct message *m, enum message_field first, const char *addr,
    uint16_t port, const char *local_addr, uint16_t local_port)
{
	message_put(m, first, addr);
	message_put_number(m, first + 1, port);
	message_put(m, first + 2, local_addr);
	message_put_number(m, first + 3, local_port);
}

/* What a PROXY header said, and what it stands in front of. */
static void
put_header(const struct peer *p, struct message *m)
{
	if (p->other.addr[0] == '\0')
		return;
	if (p->trusted) {
		put_ends(m, M_PROXY_ADDR, p->addr, p->port, p->local_addr,
		    p->local_port);
		put_ends(m, M_REAL_ADDR, p->other.addr, p->other.port,
		    p->other_local.addr, p->other_local.port);
	} else {
		put_ends(m, M_PROXY_ADDR, p->other.addr, p->other.port,
		    p->other_local.addr, p->other_local.port);
	}
}

/* What is known of the client's certificate, as far as it has one. */
static void
put_certificate(const struct session *s, const struct tls_client *client,
    struct message *m)
{
	message_put(m, M_TLS_VERIFY, client->verify);
	if (client->state == TLS_CLIENT_NONE)
		return;
	message_put(m, M_TLS_SUBJECT, client->subject);
	message_put(m, M_TLS_ISSUER, client->issuer);
	message_put(m, M_TLS_SERIAL, client->serial);
	message_put(m, M_TLS_FINGERPRINT, client->fingerprint);
	if (client->state == TLS_CLIENT_VERIFIED &&
	    client->identity[TLS_SUBJECT_CN][0] != '\0')
		message_put(m, M_CERTIFICATE_USER,
		    client->identity[TLS_SUBJECT_CN]);
	if (s->conf->auth_http_pass_client_cert)
		message_put(m, M_TLS_CERTIFICATE, client->certificate);
}

void
smtp_offer_facts(struct session *s, struct message *m)
{
	message_put(m, M_SESSION, s->id);
	message_put(m, M_CLIENT_ADDR, s->peer.addr);
	message_put_number(m, M_CLIENT_PORT, s->peer.port);
	message_put(m, M_CLIENT_HOST, s->peer.host);
	message_put(m, M_LOCAL_ADDR, s->peer.local_addr);
	message_put_number(m, M_LOCAL_PORT, s->peer.local_port);
	message_put(m, M_HELO, s->helo);
	message_put_number(m, M_ATTEMPT, s->auth_attempts + s->envelopes);
	put_header(&s->peer, m);
	if (s->tls != NULL) {
		message_put(m, M_TLS_PROTOCOL, s->tls->protocol);
		message_put(m, M_TLS_CIPHER, s->tls->cipher);
		if (s->tls->server_name[0] != '\0')
			message_put(m, M_SERVER_NAME, s->tls->server_name);
		if (s->tls->client != NULL)
			put_certificate(s, s->tls->client, m);
	}
}

/* Puts it, if there is one of that type, into `m`, unless that is NULL. */
static bool
put_binding(struct session *s, const char *type, struct message *m,
    enum message_field f)
{
	unsigned char data[TLS_MAX_BINDING];
	ssize_t len = -1;

	if (s->tls != NULL)
		len = s->tls_api->binding(
		    s->client.tls, type, data, sizeof(data));
	if (len > 0 && m != NULL)
		message_put_bytes(m, f, data, (size_t)len);
	return len > 0;
}

static bool
has_binding(struct session *s)
{
	return put_binding(s, "tls-exporter", NULL, M_BINDING_EXPORTER) ||
	       put_binding(s, "tls-server-end-point", NULL, M_BINDING_END_POINT);
}

void
smtp_offer_bindings(struct session *s, struct message *m)
{
	(void)put_binding(s, "tls-exporter", m, M_BINDING_EXPORTER);
	(void)put_binding(s, "tls-server-end-point", m, M_BINDING_END_POINT);
}

int64_t
smtp_offer_deadline(const struct session *s)
{
	return clock_in(s->conf->auth_timeout + AUTH_GRACE);
}

static void
ask_provider(struct session *s)
{
	struct message *m = &s->verdict;

	s->provider_asked = true;
	message_init(m, ASK_MECHANISMS);
	if (auth_question(&s->keeper, m, ANSWER_MECHANISMS,
		smtp_offer_deadline(s)) == -1)
		return;
	(void)text_copy(s->provider_can, sizeof(s->provider_can),
	    message_text(m, M_CAN));
	(void)text_copy(s->provider_runs, sizeof(s->provider_runs),
	    message_text(m, M_MECHANISMS));
}

bool
smtp_offer_can(struct session *s, const char *words)
{
	char word[32];

	if (s->conf->auth_provider[0] == '\0')
		return false;
	if (!s->provider_asked)
		ask_provider(s);
	if (s->provider_can[0] == '\0')
		return true;
	while (text_word(&words, word, sizeof(word)) == 1)
		if (text_has_word(s->provider_can, word))
			return true;
	return false;
}

/*
 * Whether the provider makes it succeed. One that runs exchanges runs all of
 * them; when it cannot tell which those are, it is taken at smtp_auth's word.
 */
static bool
is_possible(struct session *s, const struct sasl_mechanism *m)
{
	if (m->binds && !has_binding(s))
		return false;
	if (!smtp_offer_can(s, m->can) && !smtp_offer_can(s, "exchange"))
		return false;
	return !text_has_word(s->provider_can, "exchange") ||
	    s->provider_runs[0] == '\0' ||
	    text_has_word(s->provider_runs, m->name);
}

static bool
is_offered(struct session *s, const struct sasl_mechanism *m)
{
	return (s->conf->smtp_auth & m->bit) &&
	    (m->bit != CONFIG_AUTH_EXTERNAL || smtp_external_offered(s)) &&
	    is_possible(s, m);
}

bool
smtp_offer_takes(struct session *s, const struct sasl_mechanism *m)
{
	if (is_offered(s, m))
		return true;
	/* nginx takes both, listed or not; smtp_auth_unlisted off does not. */
	return s->conf->smtp_auth_unlisted &&
	    (m->bit & (CONFIG_AUTH_PLAIN | CONFIG_AUTH_LOGIN)) &&
	    is_possible(s, m);
}

bool
smtp_offer_is_carried(struct session *s, const struct sasl_mechanism *m)
{
	return m->step == NULL ||
	    (text_has_word(s->provider_can, "exchange") &&
		!smtp_offer_can(s, m->can));
}

bool
smtp_offer_line(struct session *s, char *line, size_t size)
{
	const struct sasl_mechanism *m;
	size_t i, len = strlen("AUTH");

	(void)text_copy(line, size, "AUTH");
	for (i = 0; (m = sasl_mechanism(i)) != NULL; i++)
		if (is_offered(s, m) && len + strlen(m->name) + 1 < size)
			len += (size_t)snprintf(
			    line + len, size - len, " %s", m->name);
	return len > strlen("AUTH");
}
