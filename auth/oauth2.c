/*
 * The provider `oauth2:URL`: asks an OAuth 2.0 introspection endpoint (RFC
 * 7662) what a bearer token is worth. libcurl is http_fetch.c's, shared with
 * the provider `http`; what an answer means is oauth2_answer.c's. It blocks, by
 * auth_timeout.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/clock.h"
#include "lib/text.h"

#include "auth/http.h"
#include "auth/oauth2.h"

/* Of an answer. */
#define JSON_MAX 65536

/* "id:secret", encoded. */
#define CLIENT_SIZE 512

struct oauth2 {
	const struct config *conf;
	struct http_url url;
	char authorization[32 + TEXT_BASE64_SIZE(3 * CLIENT_SIZE)];
	struct http_fetch fetch;
};

/*
 * application/x-www-form-urlencoded: all but letters, digits and "-._" as %XX.
 * The length; `out` has room for thrice the text's.
 */
static size_t
form_encode(char *out, const char *s, size_t len)
{
	static const char hex[] = "0123456789ABCDEF";
	static const char safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				   "abcdefghijklmnopqrstuvwxyz0123456789-._";
	char *p = out;
	size_t i;

	for (i = 0; i < len; i++) {
		if (s[i] != '\0' && strchr(safe, s[i]) != NULL) {
			*p++ = s[i];
		} else {
			*p++ = '%';
			*p++ = hex[(unsigned char)s[i] >> 4];
			*p++ = hex[(unsigned char)s[i] & 15];
		}
	}
	*p = '\0';
	return (size_t)(p - out);
}

/* --- who we are ---------------------------------------------------------- */

/*
 * The first line of oauth2_client_file, "id:secret", as a header; both are
 * encoded first (RFC 6749 section 2.3.1). NULL, or what is wrong.
 */
static const char *
read_client(struct oauth2 *o, const char *path)
{
	char line[CLIENT_SIZE + 2] = "", text[3 * CLIENT_SIZE + 3];
	const char *wrong = NULL;
	FILE *f = fopen(path, "re");
	size_t len = 0, n;
	char *colon;

	if (f == NULL)
		return "oauth2_client_file cannot be read";
	setvbuf(f, NULL, _IONBF, 0);
	if (fgets(line, sizeof(line), f) != NULL)
		len = strcspn(line, "\r\n");
	line[len] = '\0';
	(void)fclose(f);
	colon = strchr(line, ':');
	if (len > CLIENT_SIZE || colon == NULL || colon == line) {
		wrong = "oauth2_client_file is not id:secret";
	} else {
		n = form_encode(text, line, (size_t)(colon - line));
		text[n++] = ':';
		n += form_encode(text + n, colon + 1, strlen(colon + 1));
		(void)text_copy(o->authorization, sizeof(o->authorization),
		    "Authorization: Basic ");
		text_base64_encode(text, n,
		    o->authorization + strlen(o->authorization));
	}
	explicit_bzero(line, sizeof(line));
	explicit_bzero(text, sizeof(text));
	return wrong;
}

static void
close_provider(void *provider)
{
	struct oauth2 *o = provider;

	if (o == NULL)
		return;
	http_fetch_close(&o->fetch);
	free(o->url.url);
	explicit_bzero(o, sizeof(*o));
	free(o);
}

static void *
open_provider(const char *value, const struct config *conf, char *err)
{
	struct oauth2 *o = calloc(1, sizeof(*o));
	const char *wrong;

	if (o == NULL) {
		(void)snprintf(err, AUTH_ERROR_SIZE, "out of memory");
		return NULL;
	}
	o->conf = conf;
	wrong = http_url_parse(&o->url, value + strlen("oauth2:"));
	if (wrong == NULL && conf->oauth2_client_file[0] != '\0')
		wrong = read_client(o, conf->oauth2_client_file);
	if (wrong == NULL)
		return o;
	(void)snprintf(err, AUTH_ERROR_SIZE, "%.180s: %s", value, wrong);
	close_provider(o);
	return NULL;
}

/* --- a token ------------------------------------------------------------- */

static enum auth_result
no_verdict(struct message *verdict, const char *why)
{
	char reason[AUTH_ERROR_SIZE + 32];

	(void)snprintf(reason, sizeof(reason), "introspection: %s", why);
	message_put(verdict, M_REASON, reason);
	return AUTH_UNAVAILABLE;
}

/* Asks the endpoint; the answer's octets into `json` of JSON_MAX. */
static int
ask(struct oauth2 *o, const char *token, char *json, struct http_answer *a)
{
	static const char hint[] = "token_type_hint=access_token&token=";
	struct http_question q = {.body = json, .body_room = JSON_MAX};
	size_t size = sizeof(hint) + 3 * strlen(token);
	char *post = malloc(size);
	int r = -1;

	explicit_bzero(a, sizeof(*a));
	http_question_line(
	    &q, "Content-Type: application/x-www-form-urlencoded");
	http_question_line(&q, "Accept: application/json");
	if (o->authorization[0] != '\0')
		http_question_line(&q, o->authorization);
	if (post == NULL || q.failed) {
		http_answer_fail(a, "out of memory");
	} else {
		memcpy(post, hint, sizeof(hint));
		(void)form_encode(
		    post + strlen(hint), token, strlen(token));
		q.post = post;
		r = http_fetch(&o->fetch, &o->url, &q,
		    clock_in(o->conf->auth_timeout), a);
		explicit_bzero(post, size);
	}
	free(post);
	http_question_wipe(&q);
	return r;
}

/* What the endpoint says; kept if it is good. */
static enum auth_result
introspect(struct oauth2 *o, const char *secret, struct oauth2_token *token,
    struct message *verdict)
{
	enum auth_result result = AUTH_ACCEPTED;
	char *json = malloc(JSON_MAX);
	int64_t now = time(NULL);
	const char *reason = "";
	struct http_answer a;

	if (json == NULL)
		return no_verdict(verdict, "out of memory");
	if (ask(o, secret, json, &a) == -1) {
		free(json);
		return no_verdict(verdict, a.error);
	}
	switch (oauth2_answer(json, a.body_size, o->conf->oauth2_user_claim,
	    o->conf->oauth2_scope, now, token, &reason)) {
	case OAUTH2_GOOD:
		oauth2_cache_put(secret, now, token);
		break;
	case OAUTH2_BAD:
		message_put(verdict, M_REASON, reason);
		result = AUTH_DENIED;
		break;
	case OAUTH2_NO_ANSWER:
		result = no_verdict(verdict, reason);
		break;
	}
	explicit_bzero(&a, sizeof(a));
	free(json);
	return result;
}

static enum auth_result
judge(void *provider, const struct message *question, struct message *verdict)
{
	const char *secret = message_text(question, M_PASSWORD);
	const char *user = message_text(question, M_USER);
	struct oauth2 *o = provider;
	struct oauth2_token token;
	enum auth_result result = AUTH_ACCEPTED;

	if (!oauth2_cache_find(secret, time(NULL), &token))
		result = introspect(o, secret, &token, verdict);
	if (result != AUTH_ACCEPTED)
		return result;
	/* Nobody acts for another with a token of his own. */
	if (*user != '\0' && strcmp(user, token.user) != 0) {
		message_put(verdict, M_REASON, "the token is another user's");
		return AUTH_DENIED;
	}
	message_put(verdict, M_USER, token.user);
	return AUTH_ACCEPTED;
}

const struct auth_provider auth_provider = {
    .scheme = "oauth2",
    .can = AUTH_CAN_TOKEN,
    .open = open_provider,
    .close = close_provider,
    .judge = judge,
};
