/*
 * The provider `dovecot:/path` (or unix:/path) or `dovecot:host:port`: Dovecot's
 * auth client protocol. PLAIN and LOGIN are judged with AUTH PLAIN; of all other
 * mechanisms the server runs the whole exchange. Blocking, by auth_timeout;
 * Dovecot delays what it refuses by up to 17 seconds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/text.h"

#include "auth/dovecot.h"

/* --- judge --------------------------------------------------------------- */

/* RFC 4616: authorization name, user, password. 0, or -1: they are too long. */
static int
plain(const struct message *question, char *text, size_t size, size_t *len)
{
	const char *user = message_text(question, M_USER);
	const char *password = message_text(question, M_PASSWORD);
	int n = snprintf(text, size, "%c%s%c%s", 0, user, 0, password);

	if (n < 0 || (size_t)n >= size)
		return -1;
	*len = (size_t)n;
	return 0;
}

static enum auth_result
judge(void *provider, const struct message *question, struct message *verdict)
{
	struct dovecot *p = provider;
	struct dovecot_login x = {.mechanism = "PLAIN"};
	enum auth_result result;
	char text[4096];
	size_t len;

	if (strcmp(message_text(question, M_METHOD), "plain") != 0)
		return dovecot_reply_unavailable(verdict, "no such method");
	if (plain(question, text, sizeof(text), &len) == -1) {
		explicit_bzero(text, sizeof(text));
		message_put(verdict, M_REASON, "too long");
		return AUTH_DENIED;
	}
	result = dovecot_login_begin(
	    p, &x, question, (struct dovecot_bytes){text, len}, verdict);
	explicit_bzero(text, sizeof(text));
	if (result == AUTH_CHALLENGE) {
		message_init(verdict, verdict->type);
		x.lost = true;
		result = dovecot_reply_unavailable(
		    verdict, "it asks for more than PLAIN has");
	}
	dovecot_login_end(p, &x, true);
	return result;
}

/* --- exchanges ----------------------------------------------------------- */

static struct dovecot_bytes
response_of(const struct message *question)
{
	struct dovecot_bytes r = {NULL, 0};

	r.data = message_get_bytes(question, M_RESPONSE, &r.len);
	return r;
}

static void
exchange_free(void *provider, void *exchange)
{
	struct dovecot_login *x = exchange;

	if (x == NULL)
		return;
	dovecot_login_end(provider, x, false);
	explicit_bzero(x, sizeof(*x));
	free(x);
}

static enum auth_result
exchange(void *provider, void **exchange, const struct message *question,
    struct message *verdict)
{
	const char *mechanism = message_text(question, M_MECHANISM);
	struct dovecot_login *x = *exchange;
	enum auth_result result;

	if (x != NULL) {
		result = dovecot_login_go_on(
		    provider, x, question, response_of(question), verdict);
	} else {
		*exchange = x = calloc(1, sizeof(*x));
		if (x == NULL)
			return dovecot_reply_unavailable(
			    verdict, "out of memory");
		(void)text_copy(
		    x->mechanism, sizeof(x->mechanism), mechanism);
		result = dovecot_login_begin(
		    provider, x, question, response_of(question), verdict);
	}
	if (result != AUTH_CHALLENGE)
		dovecot_login_end(provider, x, true);
	return result;
}

static bool
is_offered(const struct dovecot_mechanism *m)
{
	return (m->flags & (DOVECOT_PRIVATE | DOVECOT_ANONYMOUS)) == 0 &&
	    strcmp(m->name, "LOGIN") != 0;
}

/* Adds a name if there is room for it. */
static void
list(char *names, size_t size, const char *name)
{
	size_t len = strlen(names);

	if (len + strlen(name) + 2 <= size)
		(void)snprintf(names + len, size - len, "%s%s",
		    len > 0 ? " " : "", name);
}

/* LOGIN is what judge() makes of PLAIN. */
static int
mechanisms(void *provider, char *names, size_t size)
{
	struct dovecot *p = provider;
	char err[AUTH_ERROR_SIZE];
	struct dovecot_conn *c;
	bool kept;
	size_t i;

	c = dovecot_login_take(p, &kept, clock_in(p->conf->auth_timeout), err);
	if (c == NULL)
		return -1;
	*names = '\0';
	for (i = 0; i < c->count; i++)
		if (is_offered(&c->mechanism[i]))
			list(names, size, c->mechanism[i].name);
	if (dovecot_conn_mechanism(c, "PLAIN") != NULL)
		list(names, size, "LOGIN");
	dovecot_login_leave(p, c);
	return 0;
}

/* --- the provider -------------------------------------------------------- */

static void *
open_provider(const char *value, const struct config *conf, char *err)
{
	static const char scheme[] = "dovecot:";
	struct dovecot *p = calloc(1, sizeof(*p));

	if (p == NULL || strncmp(value, scheme, strlen(scheme)) != 0) {
		(void)snprintf(err, AUTH_ERROR_SIZE, "%.180s: %s", value,
		    p == NULL ? "out of memory" : "not dovecot:");
		free(p);
		return NULL;
	}
	p->conf = conf;
	p->where = value + strlen(scheme);
	if (strncmp(p->where, "unix:", 5) == 0)
		p->where += 5;
	return p;
}

static void
close_provider(void *provider)
{
	struct dovecot *p = provider;

	if (p == NULL)
		return;
	dovecot_conn_close(p->spare);
	free(p);
}

const struct auth_provider auth_provider = {
    .scheme = "dovecot",
    .can = AUTH_CAN_VERIFY | AUTH_CAN_EXCHANGE,
    .open = open_provider,
    .close = close_provider,
    .judge = judge,
    .mechanisms = mechanisms,
    .exchange = exchange,
    .exchange_free = exchange_free,
};
