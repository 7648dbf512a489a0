/*
 * The mechanisms' table and the steps of those that only carry credentials.
 * To add a mechanism: one row, and one step function unless the keeper runs it.
 */
#include <string.h>

#include "config.h"
#include "lib/text.h"
#include "sasl_token.h"

#include "sasl.h"

/*
 * Copies `len` octets that must be text: a NUL inside would let two parties see
 * two different names.
 */
static bool
take(char *out, size_t size, const char *s, size_t len)
{
	if (len >= size || memchr(s, '\0', len) != NULL)
		return false;
	memcpy(out, s, len);
	out[len] = '\0';
	return true;
}

/* RFC 4616: [authzid] NUL authcid NUL passwd. */
static enum sasl_result
step_plain(
    struct sasl *sasl, const char *response, size_t len, const char **challenge)
{
	const char *user, *password, *end;

	if (response == NULL) {
		*challenge = "";
		return SASL_CHALLENGE;
	}
	end = response + len;
	user = memchr(response, '\0', len);
	if (user == NULL)
		return SASL_MALFORMED;
	user++;
	password = memchr(user, '\0', (size_t)(end - user));
	if (password == NULL || password == user)
		return SASL_MALFORMED;
	password++;
	if (!take(sasl->authzid, sizeof(sasl->authzid), response,
		(size_t)(user - 1 - response)) ||
	    !take(sasl->user, sizeof(sasl->user), user,
		(size_t)(password - 1 - user)) ||
	    !take(sasl->password, sizeof(sasl->password), password,
		(size_t)(end - password)))
		return SASL_MALFORMED;
	return SASL_CREDENTIALS;
}

/*
 * LOGIN, which no RFC describes: the prompts are those that clients compare
 * letter by letter; an initial response is the user's name.
 */
static enum sasl_result
step_login(
    struct sasl *sasl, const char *response, size_t len, const char **challenge)
{
	if (response == NULL) {
		*challenge = "Username:";
		return SASL_CHALLENGE;
	}
	if (sasl->step++ == 0) {
		if (!take(sasl->user, sizeof(sasl->user), response, len))
			return SASL_MALFORMED;
		*challenge = "Password:";
		return SASL_CHALLENGE;
	}
	if (!take(sasl->password, sizeof(sasl->password), response, len))
		return SASL_MALFORMED;
	return SASL_CREDENTIALS;
}

/* RFC 4422 appendix A: an empty challenge, and a name that may be empty. */
static enum sasl_result
step_external(
    struct sasl *sasl, const char *response, size_t len, const char **challenge)
{
	if (response == NULL) {
		*challenge = "";
		return SASL_CHALLENGE;
	}
	if (!take(sasl->user, sizeof(sasl->user), response, len))
		return SASL_MALFORMED;
	return SASL_CREDENTIALS;
}

static const struct sasl_mechanism mechanisms[] = {
    {.name = "PLAIN",
	.bit = CONFIG_AUTH_PLAIN,
	.method = "plain",
	.can = "verify",
	.step = step_plain},
    {.name = "LOGIN",
	.bit = CONFIG_AUTH_LOGIN,
	.method = "plain",
	.can = "verify",
	.step = step_login},
    {.name = "CRAM-MD5",
	.bit = CONFIG_AUTH_CRAM_MD5,
	.method = "cram-md5",
	.can = "secret digest",
	.server_first = true},
    {.name = "EXTERNAL",
	.bit = CONFIG_AUTH_EXTERNAL,
	.method = "external",
	.can = "authorize",
	.step = step_external},
    {.name = "SCRAM-SHA-1",
	.bit = CONFIG_AUTH_SCRAM_SHA_1,
	.method = "scram-sha-1",
	.can = "secret"},
    {.name = "SCRAM-SHA-256",
	.bit = CONFIG_AUTH_SCRAM_SHA_256,
	.method = "scram-sha-256",
	.can = "secret"},
    {.name = "SCRAM-SHA-1-PLUS",
	.bit = CONFIG_AUTH_SCRAM_SHA_1,
	.method = "scram-sha-1",
	.can = "secret",
	.binds = true},
    {.name = "SCRAM-SHA-256-PLUS",
	.bit = CONFIG_AUTH_SCRAM_SHA_256,
	.method = "scram-sha-256",
	.can = "secret",
	.binds = true},
    {.name = "XOAUTH2",
	.bit = CONFIG_AUTH_XOAUTH2,
	.method = "xoauth2",
	.can = "token",
	.refusal = "401",
	.step = sasl_token_xoauth2},
    {.name = "OAUTHBEARER",
	.bit = CONFIG_AUTH_OAUTHBEARER,
	.method = "oauthbearer",
	.can = "token",
	.refusal = "invalid_token",
	.step = sasl_token_oauthbearer},
};

#define MECHANISMS (sizeof(mechanisms) / sizeof(mechanisms[0]))

const struct sasl_mechanism *
sasl_mechanism(size_t i)
{
	return i < MECHANISMS ? &mechanisms[i] : NULL;
}

const struct sasl_mechanism *
sasl_find(const char *name)
{
	size_t i;

	for (i = 0; i < MECHANISMS; i++)
		if (text_equal(mechanisms[i].name, name))
			return &mechanisms[i];
	return NULL;
}

void
sasl_init(struct sasl *sasl, const struct sasl_mechanism *mechanism)
{
	memset(sasl, 0, sizeof(*sasl));
	sasl->mechanism = mechanism;
}

enum sasl_result
sasl_step(struct sasl *sasl, const char *response, size_t len,
    const char **challenge)
{
	return sasl->mechanism->step(sasl, response, len, challenge);
}

void
sasl_wipe(struct sasl *sasl)
{
	explicit_bzero(sasl, sizeof(*sasl));
}
