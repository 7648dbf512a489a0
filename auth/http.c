/*
 * nginx's auth_http protocol: a question is the headers of one GET request, an
 * answer the headers of its reply. Only a keeper loads it; it blocks, by
 * auth_timeout. It asks again when the server says WAIT, and does not
 * retry, delay a client, or talk to a backend. What differs from nginx stands
 * in the files that see to it (auth/http.h lists them).
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"

#include "auth/http.h"

struct http {
	const struct config *conf;
	struct http_url url;
	struct http_question extra; /* auth_http_header */
	struct http_fetch fetch;
};

/* Whether the answer asks us to ask again; a refusal beats it, OK does not. */
static bool
is_wait(const struct http_answer *a)
{
	return a->f.wait && !a->f.refused;
}

/* Waits before the next question. -1 with a->error when there is no time. */
static int
wait_turn(struct http_answer *a, int64_t deadline)
{
	unsigned s = http_answer_wait_s(a);
	int64_t until = clock_in((s > 0 ? s : 1) * INT64_C(1000));
	int left;

	if (until >= deadline) {
		http_answer_fail(
		    a, "Auth-Status: WAIT beyond auth_timeout");
		return -1;
	}
	while ((left = clock_left(until)) > 0)
		(void)poll(NULL, 0, left);
	return 0;
}

static bool
is_method(const char *method)
{
	static const char *const methods[] = {
	    "plain", "cram-md5", "external", "none", "xoauth2", "oauthbearer"};
	size_t i;

	for (i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		if (strcmp(methods[i], method) == 0)
			return true;
	return false;
}

static enum auth_result
judge(void *provider, const struct message *question, struct message *verdict)
{
	struct http *p = provider;
	int64_t deadline = clock_in(p->conf->auth_timeout);
	enum auth_result result;
	struct http_question q;
	struct http_answer a;

	if (!is_method(message_text(question, M_METHOD)))
		return http_verdict_unavailable(verdict, "no such method");
	http_question_build(&q, question, &p->extra);
	if (q.failed) {
		http_question_wipe(&q);
		return http_verdict_unavailable(verdict, "out of memory");
	}
	while (http_fetch(&p->fetch, &p->url, &q, deadline, &a) == 0 &&
	       is_wait(&a))
		if (wait_turn(&a, deadline) == -1)
			break;
	result = http_verdict(p->conf, &a, question, verdict);
	http_question_wipe(&q);
	explicit_bzero(&a, sizeof(a));
	return result;
}

static void
close_provider(void *provider)
{
	struct http *p = provider;

	if (p == NULL)
		return;
	/* Often a secret that the auth server knows us by. */
	http_question_wipe(&p->extra);
	http_fetch_close(&p->fetch);
	free(p->url.url);
	free(p);
}

static void *
open_provider(const char *value, const struct config *conf, char *err)
{
	struct http *p = calloc(1, sizeof(*p));
	const char *wrong;
	size_t i;

	if (p == NULL) {
		(void)snprintf(err, AUTH_ERROR_SIZE, "out of memory");
		return NULL;
	}
	p->conf = conf;
	wrong = http_url_parse(&p->url, value);
	/* The header itself is not shown: it may be a secret. */
	for (i = 0; i < conf->auth_http_header.count && wrong == NULL; i++)
		if (http_question_extra(
			&p->extra, conf->auth_http_header.word[i]) == -1)
			wrong = "auth_http_header is not \"Name: value\"";
	if (wrong == NULL && p->extra.failed)
		wrong = "out of memory";
	if (wrong != NULL) {
		(void)snprintf(err, AUTH_ERROR_SIZE, "%s: %s", value, wrong);
		close_provider(p);
		return NULL;
	}
	return p;
}

const struct auth_provider auth_provider = {
    .scheme = "http",
    .can =
	AUTH_CAN_VERIFY | AUTH_CAN_DIGEST | AUTH_CAN_AUTHORIZE |
	AUTH_CAN_ROUTE | AUTH_CAN_TOKEN,
    .open = open_provider,
    .close = close_provider,
    .judge = judge,
};
