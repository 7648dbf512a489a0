/*
 * Exchanges: mechanisms that take several steps and need what only the keeper
 * has. They are run here with the secrets that a provider stores (sasl_secret),
 * or by a provider that owns them whole. Between two steps nothing waits: the
 * state stays with the asker, and any worker takes the next step.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/module.h"
#include "lib/text.h"
#include "sasl_secret.h"

#include "vault_parts.h"

/* Steps of one exchange; no mechanism needs so many. */
#define STEPS_MAX 16

/* What the look-up of a user said, until the verdict is told. */
struct look_up {
	enum auth_result result;
	char reason[256], user[512], backend[512];
};

struct vault_exchange {
	unsigned steps;
	/* one of ours, ... */
	struct sasl_secret *secret;
	struct look_up found;
	/* ... or a provider's own */
	const struct auth_provider *owner;
	void *owned;
};

void
vault_exchange_end(struct vault *v, struct asker *asker)
{
	struct vault_exchange *x = asker->exchange;
	size_t size;

	asker->exchange = NULL;
	if (x == NULL)
		return;
	if (x->secret != NULL) {
		size = x->secret->mechanism->size;
		explicit_bzero(x->secret, size);
		free(x->secret);
	}
	if (x->owner != NULL && v->provider_state != NULL)
		x->owner->exchange_free(v->provider_state, x->owned);
	explicit_bzero(x, sizeof(*x));
	free(x);
}

/* --- with a stored secret ------------------------------------------------ */

static const struct sasl_secret_mechanism *
find_mechanism(const char *name, char *err, size_t err_size)
{
	const struct sasl_secret_mechanism *const *list;

	list = module_load(
	    "sasl-secret", "sasl_secret_mechanisms", err, err_size);
	if (list == NULL)
		return NULL;
	for (; *list != NULL; list++)
		if (strcmp((*list)->name, name) == 0)
			return *list;
	(void)text_copy(err, err_size, "no such mechanism");
	return NULL;
}

/* A session that was taken over may lie: its client's channel suffers alone. */
static void
take_binding(const struct message *q, enum message_field f,
    struct sasl_binding *binding)
{
	size_t len = 0;
	const void *data = message_get_bytes(q, f, &len);

	if (data == NULL || len > sizeof(binding->data))
		return;
	memcpy(binding->data, data, len);
	binding->len = len;
}

/* 0, or -1 with the failure as the answer. */
static int
begin_secret(struct vault *v, struct vault_exchange *x)
{
	const struct sasl_secret_mechanism *mechanism;
	const struct sasl_binding *salt_key;
	char err[AUTH_ERROR_SIZE] = "";

	salt_key = vault_salt_key(v, err);
	if (salt_key == NULL) {
		vault_fail(v, err);
		return -1;
	}
	mechanism = find_mechanism(
	    message_text(v->question, M_MECHANISM), err, sizeof(err));
	if (mechanism == NULL) {
		vault_fail(v, err);
		return -1;
	}
	x->secret = calloc(1, mechanism->size);
	if (x->secret == NULL) {
		vault_fail(v, "out of memory");
		return -1;
	}
	x->secret->mechanism = mechanism;
	x->secret->server_name = v->conf->server_name;
	x->secret->salt_key = *salt_key;
	take_binding(v->question, M_BINDING_EXPORTER, &x->secret->exporter);
	take_binding(v->question, M_BINDING_END_POINT, &x->secret->end_point);
	x->found.result = AUTH_DENIED;
	return 0;
}

/* A provider that judges digests itself sees what nginx would show it. */
static enum auth_result
judge_digest(struct vault *v, const struct sasl_secret *secret)
{
	struct message *q = v->question;

	message_put(q, M_METHOD, "cram-md5");
	message_put(q, M_USER, secret->user);
	message_put(q, M_PASSWORD, secret->digest);
	message_put(q, M_SALT, secret->salt);
	if (q->overflow)
		return AUTH_UNAVAILABLE;
	return v->provider->judge(v->provider_state, q, v->answer);
}

/* What was found is told with the verdict, which may be some steps away. */
static void
keep(struct look_up *found, const struct message *m)
{
	(void)text_copy(found->reason, sizeof(found->reason),
	    message_text(m, M_REASON));
	(void)text_copy(
	    found->user, sizeof(found->user), message_text(m, M_USER));
	(void)text_copy(found->backend, sizeof(found->backend),
	    message_text(m, M_BACKEND));
}

/* Goes on with what is stored, or with another's for nobody's. */
static enum sasl_secret_result
reveal(struct vault *v, struct vault_exchange *x)
{
	const struct sasl_secret_mechanism *mechanism = x->secret->mechanism;
	struct sasl_stored stored = {0};
	enum sasl_secret_result result = SASL_SECRET_DENIED;

	message_init(v->answer, ANSWER_VERDICT);
	x->found.result = v->provider->secret(v->provider_state,
	    x->secret->user, mechanism->keys, &stored, v->answer);
	keep(&x->found, v->answer);
	if (x->found.result != AUTH_UNAVAILABLE)
		result = mechanism->reveal(
		    x->secret, &stored, x->found.result == AUTH_ACCEPTED);
	explicit_bzero(&stored, sizeof(stored));
	return result;
}

/* The verdict on a proof: of nobody's secret there is none that is right. */
static void
put_verdict(struct vault *v, const struct vault_exchange *x,
    enum sasl_secret_result result)
{
	const struct look_up *found = &x->found;
	enum auth_result verdict = AUTH_DENIED;
	const char *reason = x->secret->reason;

	if (result == SASL_SECRET_PROVED && found->result == AUTH_ACCEPTED)
		verdict = AUTH_ACCEPTED;
	if (found->result == AUTH_UNAVAILABLE)
		verdict = AUTH_UNAVAILABLE;
	if (found->reason[0] != '\0')
		reason = found->reason;
	message_init(v->answer, ANSWER_VERDICT);
	if (found->user[0] != '\0')
		message_put(v->answer, M_USER, found->user);
	if (verdict != AUTH_ACCEPTED) {
		message_put(v->answer, M_REASON, reason);
	} else {
		if (found->backend[0] != '\0')
			message_put(v->answer, M_BACKEND, found->backend);
		if (x->secret->out_len > 0)
			message_put_bytes(v->answer, M_CHALLENGE,
			    x->secret->out, x->secret->out_len);
	}
	vault_put_result(v, verdict, x->secret->user);
}

/* Whether it goes on. */
static bool
step_secret(struct vault *v, struct vault_exchange *x)
{
	struct sasl_secret *secret = x->secret;
	enum sasl_secret_result result;
	const void *response;
	size_t len = 0;

	response = message_get_bytes(v->question, M_RESPONSE, &len);
	secret->out_len = 0;
	result = secret->mechanism->step(secret, response, len);
	if (result == SASL_SECRET_LOOK_UP) {
		if (v->provider->can & AUTH_CAN_SECRET) {
			result = reveal(v, x);
		} else if ((v->provider->can & AUTH_CAN_DIGEST) &&
			   secret->digest != NULL) {
			message_init(v->answer, ANSWER_VERDICT);
			vault_put_result(
			    v, judge_digest(v, secret), secret->user);
			return false;
		}
	}
	switch (result) {
	case SASL_SECRET_CHALLENGE:
		message_init(v->answer, ANSWER_CHALLENGE);
		message_put_bytes(
		    v->answer, M_CHALLENGE, secret->out, secret->out_len);
		return true;
	case SASL_SECRET_PROVED:
	case SASL_SECRET_DENIED:
		put_verdict(v, x, result);
		return false;
	case SASL_SECRET_LOOK_UP:
		vault_fail(v, "the provider does not judge this");
		return false;
	case SASL_SECRET_FAILED:
		break;
	}
	vault_fail(v, "no random numbers or memory");
	return false;
}

/* --- a provider's own ---------------------------------------------------- */

/* Whether it goes on. */
static bool
step_owned(struct vault *v, struct vault_exchange *x)
{
	struct message *a = v->answer;
	enum auth_result result;
	size_t len;

	message_init(a, ANSWER_VERDICT);
	result = x->owner->exchange(
	    v->provider_state, &x->owned, v->question, a);
	if (result == AUTH_CHALLENGE) {
		message_set_type(a, ANSWER_CHALLENGE);
		/* An empty challenge is one, too. */
		if (message_get_bytes(a, M_CHALLENGE, &len) == NULL)
			message_put_bytes(a, M_CHALLENGE, "", 0);
		return true;
	}
	/* No name but the provider's: the asker may have been taken over. */
	if (result == AUTH_ACCEPTED && message_text(a, M_USER)[0] == '\0') {
		vault_fail(v, "the provider names no user");
		return false;
	}
	vault_put_result(v, result, NULL);
	return false;
}

/* --- the questions ------------------------------------------------------- */

static void
step(struct vault *v)
{
	struct vault_exchange *x = v->asker->exchange;
	bool goes_on;

	x->steps++;
	goes_on = x->owner != NULL ? step_owned(v, x) : step_secret(v, x);
	if (goes_on && x->steps == STEPS_MAX) {
		vault_fail(v, "the exchange has no end");
		goes_on = false;
	}
	if (!goes_on)
		vault_exchange_end(v, v->asker);
}

void
vault_exchange_begin(struct vault *v)
{
	struct vault_exchange *x;

	vault_exchange_end(v, v->asker);
	if (vault_open_provider(v) == -1)
		return;
	/* Each counts, with or without an end: its start costs us, too. */
	if (!vault_may_judge(v, "exchange")) {
		vault_fail(v, "too many attempts");
		return;
	}
	x = calloc(1, sizeof(*x));
	if (x == NULL) {
		vault_fail(v, "out of memory");
		return;
	}
	v->asker->exchange = x;
	if (v->provider->can & AUTH_CAN_EXCHANGE) {
		x->owner = v->provider;
	} else if (begin_secret(v, x) == -1) {
		vault_exchange_end(v, v->asker);
		return;
	}
	step(v);
}

void
vault_exchange_step(struct vault *v)
{
	size_t len;

	if (v->asker->exchange == NULL) {
		vault_fail(v, "no exchange goes on");
		return;
	}
	/* It may have begun in another worker. */
	if (vault_open_provider(v) == -1) {
		vault_exchange_end(v, v->asker);
		return;
	}
	/* Only the first step may be without a response. */
	if (message_get_bytes(v->question, M_RESPONSE, &len) == NULL)
		message_put_bytes(v->question, M_RESPONSE, "", 0);
	step(v);
}
