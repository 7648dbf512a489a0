/*
 * The answers: plain blocking code, one question at a time. A question comes
 * from a session that may have been taken over, so each is bounded: so many
 * credentials judged, so many handshakes signed, for one session.
 */
#include <stdio.h>
#include <string.h>

#include "lib/module.h"
#include "lib/text.h"

#include "vault_parts.h"

/* Recipients shown to a provider that routes, with `none`. */
#define ENVELOPES_MAX 1000

void
vault_fail(struct vault *v, const char *reason)
{
	message_init(v->answer, ANSWER_FAILURE);
	message_put(v->answer, M_REASON, reason);
}

/* --- judging ------------------------------------------------------------- */

/* The module of a provider: the scheme, where http has three spellings. */
static void
provider_module(const char *value, char *name, size_t size)
{
	size_t len = strcspn(value, ":");

	if (strncmp(value, "http", 4) == 0)
		len = 4;
	(void)snprintf(name, size, "auth-%.*s", (int)len, value);
}

static int
load_provider(struct vault *v, char *err)
{
	char module[64];

	if (v->provider_state != NULL)
		return 0;
	provider_module(v->conf->auth_provider, module, sizeof(module));
	v->provider = module_load(
	    module, "auth_provider", err, AUTH_ERROR_SIZE);
	if (v->provider != NULL)
		v->provider_state = v->provider->open(
		    v->conf->auth_provider, v->conf, err);
	return v->provider_state != NULL ? 0 : -1;
}

int
vault_open_provider(struct vault *v)
{
	char err[AUTH_ERROR_SIZE] = "";

	if (load_provider(v, err) == 0)
		return 0;
	vault_fail(v, err);
	return -1;
}

static const struct {
	enum auth_can can;
	const char *word;
} can_words[] = {
    {AUTH_CAN_VERIFY, "verify"},
    {AUTH_CAN_SECRET, "secret"},
    {AUTH_CAN_DIGEST, "digest"},
    {AUTH_CAN_AUTHORIZE, "authorize"},
    {AUTH_CAN_ROUTE, "route"},
    {AUTH_CAN_TOKEN, "token"},
    {AUTH_CAN_EXCHANGE, "exchange"},
};

/* Those that the provider runs itself; not there when it cannot tell now. */
static void
put_mechanisms(struct vault *v)
{
	char names[512];

	if ((v->provider->can & AUTH_CAN_EXCHANGE) &&
	    v->provider->mechanisms(
		v->provider_state, names, sizeof(names)) == 0)
		message_put(v->answer, M_MECHANISMS, names);
}

static void
answer_mechanisms(struct vault *v)
{
	char words[64] = "";
	size_t i, len = 0;

	if (vault_open_provider(v) == -1)
		return;
	for (i = 0; i < sizeof(can_words) / sizeof(can_words[0]); i++)
		if (v->provider->can & can_words[i].can)
			len += (size_t)snprintf(words + len,
			    sizeof(words) - len, "%s%s", len > 0 ? " " : "",
			    can_words[i].word);
	message_init(v->answer, ANSWER_MECHANISMS);
	message_put(v->answer, M_CAN, words);
	put_mechanisms(v);
}

static const char *const result_words[] = {
    [AUTH_ACCEPTED] = "accepted",
    [AUTH_DENIED] = "denied",
    [AUTH_UNAVAILABLE] = "unavailable",
};

void
vault_put_result(struct vault *v, enum auth_result result, const char *user)
{
	message_put(v->answer, M_RESULT, result_words[result]);
	if (message_get(v->answer, M_USER) == NULL)
		message_put(v->answer, M_USER, user);
	vault_penalty(v, result);
}

/* With proxy_smtp_auth the backend is shown the client's own password. */
static void
put_password(struct vault *v)
{
	struct message *a = v->answer;
	const struct message *q = v->question;

	if (!v->conf->proxy_smtp_auth ||
	    message_get(a, M_BACKEND_PASSWORD) != NULL ||
	    strcmp(message_text(q, M_METHOD), "plain") != 0)
		return;
	message_put(a, M_BACKEND_PASSWORD, message_get(q, M_PASSWORD));
	if (message_get(a, M_BACKEND_USER) == NULL)
		message_put(a, M_BACKEND_USER, message_get(a, M_USER));
}

bool
vault_take_one(unsigned *count, unsigned max)
{
	if (*count >= max)
		return false;
	(*count)++;
	return true;
}

bool
vault_may_judge(struct vault *v, const char *method)
{
	if (strcmp(method, "none") == 0)
		return vault_take_one(&v->asker->envelopes, ENVELOPES_MAX);
	return vault_penalty_is_over(v) &&
	    vault_take_one(&v->asker->judged, v->conf->max_auth_attempts);
}

static const struct {
	const char *method;
	enum auth_can needs;
	unsigned listed; /* of smtp_auth; 0: need not be */
} methods[] = {
    {"plain", AUTH_CAN_VERIFY, 0},
    /* asks for no secret: so it has to be meant */
    {"external", AUTH_CAN_AUTHORIZE, CONFIG_AUTH_EXTERNAL},
    {"none", AUTH_CAN_ROUTE, 0},
    {"xoauth2", AUTH_CAN_TOKEN, 0},
    {"oauthbearer", AUTH_CAN_TOKEN, 0},
};

static bool
provider_does(const struct vault *v, const char *method)
{
	size_t i;

	for (i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		if (strcmp(methods[i].method, method) == 0)
			return (v->provider->can & methods[i].needs) != 0 &&
			    (v->conf->smtp_auth & methods[i].listed) ==
			    methods[i].listed;
	return false;
}

/*
 * Nobody acts for another here: an authorization name that is not the user's
 * own is refused before any provider sees it (RFC 4616 section 2).
 */
static bool
acts_for_another(const struct message *q)
{
	const char *authzid = message_text(q, M_AUTHZID);

	return *authzid != '\0' && strcmp(authzid, message_text(q, M_USER)) != 0;
}

static bool
is_token(const char *method)
{
	return strcmp(method, "xoauth2") == 0 ||
	       strcmp(method, "oauthbearer") == 0;
}

static enum auth_result
judge(struct vault *v, const char *method)
{
	const struct message *q = v->question;
	struct message *a = v->answer;
	enum auth_result result;

	if (acts_for_another(q)) {
		message_put(a, M_REASON, "authorization name of another");
		return AUTH_DENIED;
	}
	/* The client only asks what it would be refused with. */
	if (is_token(method) && message_text(q, M_PASSWORD)[0] == '\0') {
		message_put(a, M_REASON, "no token");
		return AUTH_DENIED;
	}
	result = v->provider->judge(v->provider_state, q, a);
	/* A token that nobody says whose it is lets nobody in. */
	if (result == AUTH_ACCEPTED && is_token(method) &&
	    message_text(a, M_USER)[0] == '\0') {
		message_init(a, ANSWER_VERDICT);
		message_put(a, M_REASON, "the provider names no user");
		result = AUTH_UNAVAILABLE;
	}
	return result;
}

static void
answer_verdict(struct vault *v)
{
	const char *method = message_text(v->question, M_METHOD);
	enum auth_result result;

	if (vault_open_provider(v) == -1)
		return;
	if (!provider_does(v, method)) {
		vault_fail(v, "the provider does not judge this");
		return;
	}
	if (!vault_may_judge(v, method)) {
		vault_fail(v, "too many attempts");
		return;
	}
	message_init(v->answer, ANSWER_VERDICT);
	result = judge(v, method);
	vault_put_result(v, result, message_get(v->question, M_USER));
	if (result == AUTH_ACCEPTED)
		put_password(v);
}

/* --- the questions ------------------------------------------------------- */

static void (*const answers[MESSAGE_TYPES])(struct vault *v) = {
    [ASK_MECHANISMS] = answer_mechanisms,
    [ASK_VERDICT] = answer_verdict,
    [ASK_EXCHANGE] = vault_exchange_begin,
    [ASK_STEP] = vault_exchange_step,
    [ASK_CERTIFICATES] = vault_certificates,
    [ASK_SIGNATURE] = vault_signature,
    [ASK_TICKETS] = vault_tickets,
    [ASK_PENALTY] = vault_penalty_count,
};

void
vault_init(struct vault *v, const struct config *conf)
{
	memset(v, 0, sizeof(*v));
	v->conf = conf;
}

void
vault_prepare(struct vault *v, bool many)
{
	char err[TLS_ERROR_SIZE];

	v->many = many;
	if (v->conf->ssl_certificate.count > 0 &&
	    (many || (v->conf->socket & CONFIG_SOCKET_SSL) ||
		v->conf->starttls == CONFIG_STARTTLS_ONLY))
		(void)vault_load_keys(v, TLS_ROLE_SERVER, err);
	if (v->conf->proxy_ssl_certificate.count > 0 && many)
		(void)vault_load_keys(v, TLS_ROLE_CLIENT, err);
}

bool
vault_answer(struct vault *v, struct asker *asker, struct message *question,
    struct message *answer)
{
	if (answers[question->type] == NULL)
		return false;
	v->asker = asker;
	v->question = question;
	v->answer = answer;
	answers[question->type](v);
	message_wipe(question);
	return true;
}

void
vault_forget(struct vault *v, struct asker *asker)
{
	char err[AUTH_ERROR_SIZE];

	if (asker->exchange == NULL)
		return;
	/* It may have begun in another worker. */
	(void)load_provider(v, err);
	vault_exchange_end(v, asker);
}

bool
vault_is_slow(struct vault *v, enum message_type type)
{
	char err[AUTH_ERROR_SIZE];
	unsigned slow = 0;

	if (type == ASK_VERDICT || type == ASK_STEP)
		return true;
	/*
	 * What a provider can do is known at once, but for one that asks; and a
	 * challenge is made at once, but where an initial response with it has
	 * a secret looked up.
	 */
	if (type == ASK_MECHANISMS)
		slow = AUTH_CAN_EXCHANGE;
	if (type == ASK_EXCHANGE)
		slow = AUTH_CAN_EXCHANGE | AUTH_CAN_SECRET;
	return slow != 0 && load_provider(v, err) == 0 &&
	       (v->provider->can & slow);
}
