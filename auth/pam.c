/*
 * The provider `pam:service`. Neither PAM nor any of its modules is loaded into
 * the keeper: each question is a process of the helper's (auth/pam_judge.c). So
 * a module that hangs or crashes, or that knows nothing of threads, costs that
 * process alone, and none of them sees the keeper's memory, which holds keys
 * and the passwords of others.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/provider.h"
#include "lib/clock.h"
#include "lib/module.h"
#include "lib/spawn.h"
#include "lib/text.h"

#include "auth/pam.h"

#define PATH_SIZE 4096

struct pam {
	const struct config *conf;
	const char *service;
	char helper[PATH_SIZE];
};

/* Fields, one after the other; their length, or 0 when one is too long. */
static size_t
put_fields(char *out, const char *const *field, size_t count)
{
	size_t i, n, len = 0;

	for (i = 0; i < count; i++) {
		n = strlen(field[i]) + 1;
		if (n > PAM_FIELD_SIZE)
			return 0;
		memcpy(out + len, field[i], n);
		len += n;
	}
	return len;
}

static bool
get_fields(const char *text, size_t len, const char **field, size_t count)
{
	const char *end;
	size_t i;

	for (i = 0; i < count; i++) {
		end = memchr(text, '\0', len);
		if (end == NULL)
			return false;
		field[i] = text;
		len -= (size_t)(end + 1 - text);
		text = end + 1;
	}
	return true;
}

/* An address, or "": the facts come from a session that may be taken over. */
static const char *
client_address(const struct message *q)
{
	const char *addr = message_text(q, M_CLIENT_ADDR);
	unsigned char bytes[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, addr, bytes) == 1 ||
		    inet_pton(AF_INET6, addr, bytes) == 1
	    ? addr
	    : "";
}

static enum auth_result
unavailable(struct message *verdict, const char *what, int number,
    const struct spawn *s)
{
	char reason[AUTH_ERROR_SIZE];
	int len = (int)strnlen(s->err.text, s->err.len);

	(void)snprintf(reason, sizeof(reason), "pam: %s %d%s%.*s", what,
	    number, len > 0 ? ": " : "", len, s->err.text);
	message_put(verdict, M_REASON, reason);
	return AUTH_UNAVAILABLE;
}

/* It goes into commands to the backend and the relay's environment. */
static bool
is_name(const char *user)
{
	const char *p;

	for (p = user; *p != '\0'; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return false;
	return p > user;
}

/*
 * What the helper may find. Those with a code, which the client is told, come
 * after the right password only: a guesser of names learns nothing from them.
 * An expired password is one that is no longer valid; 5.7.13 is for an account
 * (RFC 5248 section 2.4), where another password would not help.
 */
static const struct finding {
	const char *word;
	enum auth_result result;
	const char *code, *words;
} findings[] = {
    {PAM_ACCEPTED, AUTH_ACCEPTED, NULL, NULL},
    {PAM_DENIED, AUTH_DENIED, NULL, NULL},
    {PAM_PASSWORD_EXPIRED, AUTH_DENIED, "535 5.7.8", "Password expired"},
    {PAM_ACCOUNT_EXPIRED, AUTH_DENIED, "535 5.7.13", "Account expired"},
    {PAM_ACCOUNT_FORBIDDEN, AUTH_DENIED, "535 5.7.13", "Account disabled"},
    {PAM_UNAVAILABLE, AUTH_UNAVAILABLE, NULL, NULL},
};

static enum auth_result
believe(const char *const *a, struct message *verdict)
{
	const struct finding *f = findings;
	uint64_t delay = 0;

	while (f->result != AUTH_UNAVAILABLE &&
	    strcmp(f->word, a[PAM_A_RESULT]) != 0)
		f++;
	if (f->result == AUTH_ACCEPTED && is_name(a[PAM_A_USER])) {
		message_put(verdict, M_USER, a[PAM_A_USER]);
		return AUTH_ACCEPTED;
	}
	message_put(verdict, M_CODE, f->code);
	message_put(verdict, M_REASON,
	    f->words != NULL ? f->words : a[PAM_A_REASON]);
	if (text_number(a[PAM_A_DELAY], INT32_MAX, &delay) == 0 && delay > 0)
		message_put_number(verdict, M_DELAY, delay);
	return f->result == AUTH_DENIED ? AUTH_DENIED : AUTH_UNAVAILABLE;
}

static enum auth_result
conclude(const struct spawn *s, enum spawn_end end, struct message *verdict)
{
	const char *answer[PAM_ANSWERS];

	switch (end) {
	case SPAWN_TIMED_OUT:
		message_put(
		    verdict, M_REASON, "pam: no answer within auth_timeout");
		return AUTH_UNAVAILABLE;
	case SPAWN_KILLED:
		return unavailable(
		    verdict, "a module has crashed: signal", s->status, s);
	case SPAWN_FAILED:
		return unavailable(
		    verdict, "cannot be asked: error", s->status, s);
	case SPAWN_EXITED:
		if (s->status == 0 &&
		    get_fields(s->out.text, s->out.len, answer, PAM_ANSWERS))
			return believe(answer, verdict);
		break;
	case SPAWN_TOO_MUCH:
		break;
	}
	return unavailable(verdict, "no answer: exit", s->status, s);
}

static enum auth_result
judge(void *provider, const struct message *question, struct message *verdict)
{
	static char *const no_environment[] = {NULL};
	struct pam *p = provider;
	char *argv[] = {p->helper, NULL};
	char input[PAM_QUESTIONS * PAM_FIELD_SIZE];
	char out[PAM_ANSWERS * PAM_FIELD_SIZE + 1], err[128];
	const char *field[PAM_QUESTIONS] = {
	    [PAM_Q_SERVICE] = p->service,
	    [PAM_Q_USER] = message_text(question, M_USER),
	    [PAM_Q_PASSWORD] = message_text(question, M_PASSWORD),
	    [PAM_Q_CLIENT] = client_address(question)};
	struct spawn s = {.argv = argv,
	    .envp = no_environment,
	    .input = input,
	    .out = {out, sizeof(out), 0},
	    .err = {err, sizeof(err), 0}};
	enum auth_result result;

	s.input_len = put_fields(input, field, PAM_QUESTIONS);
	if (s.input_len == 0) {
		message_put(verdict, M_REASON,
		    "pam: a name or a password of more than 511 octets");
		result = AUTH_DENIED;
	} else {
		result = conclude(&s,
		    spawn_run(&s, clock_in(p->conf->auth_timeout)), verdict);
	}
	explicit_bzero(input, sizeof(input));
	return result;
}

static void *
open_provider(const char *value, const struct config *conf, char *err)
{
	static const char scheme[] = "pam:";
	struct pam *p = calloc(1, sizeof(*p));

	if (p == NULL) {
		(void)snprintf(err, AUTH_ERROR_SIZE, "out of memory");
		return NULL;
	}
	p->conf = conf;
	p->service = value + strlen(scheme);
	if (module_path(PAM_JUDGE, p->helper, sizeof(p->helper)) == 0)
		return p;
	(void)snprintf(err, AUTH_ERROR_SIZE, "pam: no path to " PAM_JUDGE);
	free(p);
	return NULL;
}

const struct auth_provider auth_provider = {
    .scheme = "pam",
    .can = AUTH_CAN_VERIFY,
    .open = open_provider,
    .close = free,
    .judge = judge,
};
