/*
 * The answer of an introspection endpoint (RFC 7662 section 2.2), by jansson.
 * Only `active` that is true, in an object that says nothing twice, is a yes.
 */
#include <string.h>

#include <jansson.h>

#include "lib/text.h"

#include "auth/oauth2.h"

static enum oauth2_result
bad(const char **reason, const char *why)
{
	*reason = why;
	return OAUTH2_BAD;
}

/*
 * A point in time; false: it is there and is none. 2^53 is where a JSON number
 * ends to be exact.
 */
static bool
take_time(const json_t *root, const char *name, int64_t *out)
{
	const json_t *value = json_object_get(root, name);
	double n = json_number_value(value);

	*out = 0;
	if (value == NULL || json_is_null(value))
		return true;
	if (!json_is_number(value) || !(n > 0 && n < 9007199254740992.0))
		return false;
	*out = (int64_t)n;
	return true;
}

/* Case counts in scopes (RFC 6749 section 3.3). */
static bool
has_word(const char *list, const char *word)
{
	size_t len = strlen(word), n;

	for (; *list != '\0'; list += n + (list[n] == ' ')) {
		n = strcspn(list, " ");
		if (n == len && strncmp(list, word, len) == 0)
			return true;
	}
	return false;
}

static bool
has_scope(const json_t *root, const char *wanted)
{
	const char *given = json_string_value(json_object_get(root, "scope"));
	char word[256];

	while (text_word(&wanted, word, sizeof(word)) == 1)
		if (given == NULL || !has_word(given, word))
			return false;
	return true;
}

/* A login name goes into commands to the backend, the log, an environment. */
static bool
take_user(const json_t *root, const char *claim, char *user)
{
	const char *value = json_string_value(json_object_get(root, claim));
	const char *p;

	if (value == NULL || *value == '\0' ||
	    text_copy(user, OAUTH2_USER_SIZE, value) == -1)
		return false;
	for (p = user; *p != '\0'; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return false;
	return true;
}

static enum oauth2_result
judge(const json_t *root, const char *claim, const char *scope, int64_t now,
    struct oauth2_token *token, const char **reason)
{
	int64_t not_before;

	if (!json_is_boolean(json_object_get(root, "active"))) {
		*reason = "the answer does not say whether it is active";
		return OAUTH2_NO_ANSWER;
	}
	if (!json_is_true(json_object_get(root, "active")))
		return bad(reason, "the token is not active");
	if (!take_time(root, "exp", &token->expires) ||
	    !take_time(root, "nbf", &not_before))
		return bad(reason, "the token has no proper time");
	if (token->expires != 0 && token->expires <= now)
		return bad(reason, "the token has expired");
	if (not_before > now)
		return bad(reason, "the token is not good yet");
	if (!has_scope(root, scope))
		return bad(reason, "the token has not the scope");
	if (!take_user(root, claim, token->user))
		return bad(reason, "the token names no user");
	return OAUTH2_GOOD;
}

enum oauth2_result
oauth2_answer(const char *json, size_t len, const char *claim,
    const char *scope, int64_t now, struct oauth2_token *token,
    const char **reason)
{
	enum oauth2_result result = OAUTH2_NO_ANSWER;
	json_t *root;

	memset(token, 0, sizeof(*token));
	root = json_loadb(json, len, JSON_REJECT_DUPLICATES, NULL);
	if (json_is_object(root))
		result = judge(root, claim, scope, now, token, reason);
	else
		*reason = "the answer is no JSON object";
	json_decref(root);
	return result;
}
