/*
 * What a session asks of the keeper for its handshake: certificates, which are
 * public, and signatures, of which it gets as many as one handshake needs.
 */
#include <stdio.h>
#include <string.h>

#include "vault_parts.h"

/*
 * One handshake a session; one more for a client that tries it twice. Backends
 * may be many, and be tried anew for a client that does not give up.
 */
static const unsigned signatures_max[] = {
    [TLS_ROLE_SERVER] = 2,
    [TLS_ROLE_CLIENT] = 16,
};

int
vault_load_keys(struct vault *v, enum tls_role role, char *err)
{
	const struct config *conf = v->conf;
	const struct tls_key_files files[] = {
	    [TLS_ROLE_SERVER] = {.certificates = conf->ssl_certificate.word,
		.keys = conf->ssl_certificate_key.word,
		.count = conf->ssl_certificate.count,
		.passwords = conf->ssl_password_file,
		.staples = conf->ssl_stapling_file.word,
		.staple_count = conf->ssl_stapling_file.count,
		.directory = conf->ssl_sni_directory,
		.all = v->many},
	    [TLS_ROLE_CLIENT] =
		{.certificates = conf->proxy_ssl_certificate.word,
		    .keys = conf->proxy_ssl_certificate_key.word,
		    .count = conf->proxy_ssl_certificate.count,
		    .passwords = conf->ssl_password_file},
	};

	if (v->keys[role] != NULL)
		return 0;
	v->tls = tls_load(err);
	if (v->tls != NULL)
		v->keys[role] = v->tls->keys_load(role, &files[role], err);
	return v->keys[role] != NULL ? 0 : -1;
}

/* The keys of a role; NULL with the failure as the answer. */
static const struct tls_keys *
open_keys(struct vault *v, enum tls_role role)
{
	char err[TLS_ERROR_SIZE] = "";

	if (vault_load_keys(v, role, err) == 0)
		return v->keys[role];
	vault_fail(v, err);
	return NULL;
}

static enum tls_role
asked_role(const struct vault *v)
{
	return strcmp(message_text(v->question, M_ROLE), "client") == 0
	    ? TLS_ROLE_CLIENT
	    : TLS_ROLE_SERVER;
}

static unsigned
asked_key(const struct vault *v)
{
	return (unsigned)message_get_number(
	    v->question, M_KEY, TLS_MAX_KEYS, TLS_MAX_KEYS);
}

void
vault_certificates(struct vault *v)
{
	const struct tls_keys *keys = open_keys(v, asked_role(v));
	char err[TLS_ERROR_SIZE] = "";
	struct tls_chain chain;
	int r;

	if (keys == NULL)
		return;
	r = v->tls->keys_certificates(keys,
	    message_text(v->question, M_SERVER_NAME), asked_key(v), &chain,
	    err);
	if (r == -1) {
		vault_fail(v, err);
		return;
	}
	message_init(v->answer, ANSWER_CERTIFICATES);
	if (r == 0)
		return;
	message_put_bytes(v->answer, M_CHAIN, chain.bytes, chain.len);
	if (chain.staple_len > 0)
		message_put_bytes(
		    v->answer, M_STAPLE, chain.staple, chain.staple_len);
}

void
vault_signature(struct vault *v)
{
	unsigned char sig[TLS_MAX_SIGNATURE];
	const struct message *q = v->question;
	const enum tls_role role = asked_role(v);
	const struct tls_keys *keys = open_keys(v, role);
	const void *data;
	size_t data_len = 0;
	ssize_t len;

	if (keys == NULL)
		return;
	data = message_get_bytes(q, M_DATA, &data_len);
	if (data == NULL ||
	    !vault_take_one(
		&v->asker->signatures[role], signatures_max[role])) {
		vault_fail(v, "no more is signed for this session");
		return;
	}
	len = v->tls->keys_sign(keys, message_text(q, M_SERVER_NAME),
	    asked_key(v), (enum tls_scheme)message_get_number(q, M_SCHEME, 0xffff, 0), data,
	    data_len, sig, sizeof(sig));
	if (len <= 0) {
		vault_fail(v, "this is not signed");
		return;
	}
	message_init(v->answer, ANSWER_SIGNATURE);
	message_put_bytes(v->answer, M_SIGNATURE, sig, (size_t)len);
}

/*
 * The keys that all sessions share: from the administrator's files, or from the
 * runtime directory. A keeper that a listener has made gives none, since the
 * listener makes them itself and forgets them sooner.
 */
static int
gather_tickets(struct vault *v, struct ticket_keys *keys, char *err)
{
	const struct config *conf = v->conf;

	memset(keys, 0, sizeof(*keys));
	if (conf->ssl_session_ticket_key.count > 0)
		return ticket_read(conf->ssl_session_ticket_key.word,
		    conf->ssl_session_ticket_key.count, keys, err);
	/* Without them sessions begin anew: no reason to refuse one. */
	if (conf->runtime_directory[0] != '\0' && (!v->many || conf->keeper))
		(void)ticket_share(conf->runtime_directory,
		    conf->ssl_session_timeout / 1000, keys, err);
	return 0;
}

void
vault_tickets(struct vault *v)
{
	unsigned char list[TICKET_KEYS_MAX * (1 + TICKET_KEY_SIZE)];
	char err[TICKET_ERROR_SIZE] = "";
	struct ticket_keys keys;
	size_t i, len = 0;

	if (gather_tickets(v, &keys, err) == -1) {
		vault_fail(v, err);
		return;
	}
	for (i = 0; i < keys.count; i++) {
		list[len++] = (unsigned char)keys.key[i].len;
		memcpy(list + len, keys.key[i].bytes, keys.key[i].len);
		len += keys.key[i].len;
	}
	message_init(v->answer, ANSWER_TICKETS);
	message_put_bytes(v->answer, M_TICKETS, list, len);
	if (err[0] != '\0')
		message_put(v->answer, M_REASON, err);
	explicit_bzero(list, sizeof(list));
	ticket_wipe(&keys);
}

int
vault_try_keys(const struct config *conf, enum tls_role role, char *err)
{
	struct ticket_keys tickets;
	struct vault v;
	int r;

	vault_init(&v, conf);
	v.many = true;
	r = vault_load_keys(&v, role, err);
	if (r == 0 && role == TLS_ROLE_SERVER && conf->ssl_session_tickets) {
		r = gather_tickets(&v, &tickets, err);
		ticket_wipe(&tickets);
	}
	if (v.keys[role] != NULL)
		v.tls->keys_free(v.keys[role]);
	return r;
}
