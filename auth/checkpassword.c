/*
 * The provider `checkpassword:/program arguments`: the interface that D. J.
 * Bernstein's checkpassword has. The program gets the login on descriptor 3,
 * and its exit status is the judgement. On success it runs the program that
 * follows its arguments: env(1), by which the login's environment comes back.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/provider.h"
#include "lib/clock.h"
#include "lib/spawn.h"
#include "lib/text.h"

/* "There must be at most 512 bytes of data". */
#define LOGIN_MAX 512

#define OUTPUT_MAX 16384

#define PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static char follower[] = "/usr/bin/env", follower_option[] = "-0";

struct checkpassword {
	const struct config *conf;
	char word[CONFIG_WORDS_MAX][CONFIG_WORD_SIZE];
	char *argv[CONFIG_WORDS_MAX + 3];
};

/* --- what the program gets ----------------------------------------------- */

/* Its environment: nothing of ours. */
struct environment {
	char text[2048];
	size_t len, count;
	char *var[24];
};

static void
put(struct environment *e, const char *name, const char *value)
{
	size_t room = sizeof(e->text) - e->len;
	int n;

	if (value == NULL || *value == '\0')
		return;
	n = snprintf(e->text + e->len, room, "%s=%s", name, value);
	/* One place is the NULL's. */
	if (n < 0 || (size_t)n >= room ||
	    e->count + 1 >= sizeof(e->var) / sizeof(*e->var))
		return;
	e->var[e->count++] = e->text + e->len;
	e->len += (size_t)n + 1;
}

/* In the words of ucspi-tcp, and of its kin that knows IPv6. */
static void
put_end(struct environment *e, const char *end, bool v6, const char *addr,
    uint64_t port, const char *host)
{
	static const char *const families[] = {"TCP", "TCP6"};
	char name[32], number[8] = "";
	int i, count = v6 ? 2 : 1;

	if (port > 0)
		(void)snprintf(
		    number, sizeof(number), "%u", (unsigned)(uint16_t)port);
	for (i = 0; i < count; i++) {
		(void)snprintf(
		    name, sizeof(name), "%s%sIP", families[i], end);
		put(e, name, addr);
		(void)snprintf(
		    name, sizeof(name), "%s%sPORT", families[i], end);
		put(e, name, number);
		(void)snprintf(
		    name, sizeof(name), "%s%sHOST", families[i], end);
		put(e, name, host);
	}
}

/* An address, or NULL: the facts come from a session that may be taken over. */
static const char *
get_address(const struct message *q, enum message_field f)
{
	const char *addr = message_text(q, f);
	unsigned char bytes[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, addr, bytes) == 1 ||
		    inet_pton(AF_INET6, addr, bytes) == 1
	    ? addr
	    : NULL;
}

static void
put_facts(struct environment *e, const struct message *q)
{
	const char *remote = get_address(q, M_CLIENT_ADDR);
	const char *host = message_text(q, M_CLIENT_HOST);
	bool v6 = remote != NULL && strchr(remote, ':') != NULL;
	static char path[] = PATH;

	e->len = e->count = 0;
	e->var[e->count++] = path;
	if (remote != NULL) {
		put(e, "PROTO", v6 ? "TCP6" : "TCP");
		put_end(e, "REMOTE", v6, remote,
		    message_get_number(q, M_CLIENT_PORT, UINT16_MAX, 0),
		    text_is_hostname(host) ? host : NULL);
		put_end(e, "LOCAL", v6, get_address(q, M_LOCAL_ADDR),
		    message_get_number(q, M_LOCAL_PORT, UINT16_MAX, 0), NULL);
	}
	e->var[e->count] = NULL;
}

/*
 * The three fields, into `out` (LOGIN_MAX octets): their length, 0 when they
 * are too long. The third is empty but with CRAM-MD5: programs made for SMTP
 * know a password from a response by that.
 */
static size_t
put_login(const struct checkpassword *p, const struct message *q, char *out)
{
	const char *user = message_text(q, M_USER);
	const char *second = message_text(q, M_PASSWORD), *third = "";
	int n;

	if (strcmp(message_text(q, M_METHOD), "cram-md5") == 0) {
		third = message_text(q, M_SALT);
		if (p->conf->checkpassword_cram == CONFIG_CHALLENGE_RESPONSE) {
			third = second;
			second = message_text(q, M_SALT);
		}
	}
	n = snprintf(out, LOGIN_MAX, "%s%c%s%c%s", user, '\0', second, '\0',
	    third);
	return n < 0 || n >= LOGIN_MAX ? 0 : (size_t)n + 1;
}

/* --- what comes back ----------------------------------------------------- */

/*
 * The variables of a login that a relay program may get. The rest stays out,
 * above all what decides about relaying and what changes how programs are run:
 * RELAYCLIENT, PATH, IFS, LD_PRELOAD and their kin.
 */
static const char *const login_names[] = {"USER=", "LOGNAME=", "HOME=",
    "SHELL=", "UID=", "GID=", "GROUP=", "NAME=", "REALNAME=", "DOMAIN=",
    "MAIL=", "MAILBOX=", "MAILDIR="};
static const char *const login_families[] = {"AUTH", "VPOP"};

static bool
is_login_name(const char *variable)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
	size_t i;

	for (i = 0; i < sizeof(login_names) / sizeof(*login_names); i++)
		if (strncmp(variable, login_names[i],
			strlen(login_names[i])) == 0)
			return true;
	if (variable[strspn(variable, letters)] != '=')
		return false;
	for (i = 0; i < sizeof(login_families) / sizeof(*login_families); i++)
		if (strncmp(variable, login_families[i],
			strlen(login_families[i])) == 0)
			return true;
	return false;
}

/* A relay program that is a script meets no line that the user has made. */
static bool
has_control(const char *s)
{
	for (; *s != '\0'; s++)
		if ((unsigned char)*s < ' ' || *s == 0x7f)
			return true;
	return false;
}

/* Puts what may pass of env's output into the verdict; `text` is used up. */
static void
put_environment(struct message *verdict, char *text, size_t len)
{
	char *from = text, *to = text, *end;
	size_t n;

	while ((end = memchr(from, '\0', len - (size_t)(from - text))) !=
	    NULL) {
		n = (size_t)(end + 1 - from);
		if (is_login_name(from) && !has_control(from)) {
			memmove(to, from, n);
			to += n;
		}
		from = end + 1;
	}
	if (to > text)
		message_put_bytes(
		    verdict, M_ENVIRONMENT, text, (size_t)(to - text));
}

/*
 * The first line of what it complained of, with `before` it, as the reason for
 * the log. Not where the password stands in it: that is in no log.
 */
static void
put_reason(struct message *verdict, const char *before, const struct spawn *s,
    const char *password)
{
	char reason[AUTH_ERROR_SIZE];
	const char *text = s->err.text, *end;
	size_t len = s->err.len;

	end = memchr(text, '\n', len);
	if (end != NULL)
		len = (size_t)(end - text);
	if (memchr(text, '\0', len) != NULL ||
	    (*password != '\0' &&
		memmem(text, len, password, strlen(password)) != NULL))
		len = 0;
	(void)snprintf(reason, sizeof(reason), "checkpassword: %s%s%.*s",
	    before, len > 0 ? ": " : "", (int)len, text);
	message_put(verdict, M_REASON, reason);
}

/* Of an exit status: only these are about the credentials. */
static enum auth_result
result_of(int status)
{
	switch (status) {
	case 0:
		return AUTH_ACCEPTED;
	case 1: /* "the password is unacceptable" */
	case 2: /* "misused", and what some have for an unknown user */
	case 100: /* what cvm-checkpassword has for both */
		return AUTH_DENIED;
	default:
		return AUTH_UNAVAILABLE;
	}
}

static enum auth_result
conclude(const struct spawn *s, enum spawn_end end, const char *password,
    struct message *verdict)
{
	static const char *const ends[] = {
	    [SPAWN_EXITED] = "exit",
	    [SPAWN_KILLED] = "signal",
	    [SPAWN_TIMED_OUT] = "no end within auth_timeout",
	    [SPAWN_TOO_MUCH] = "an environment of 16 kB or more",
	    [SPAWN_FAILED] = "cannot be run: error",
	};
	enum auth_result result = AUTH_UNAVAILABLE;
	char words[64];

	if (end == SPAWN_EXITED)
		result = result_of(s->status);
	if (result == AUTH_ACCEPTED) {
		put_environment(verdict, s->out.text, s->out.len);
		return result;
	}
	if (end == SPAWN_TIMED_OUT || end == SPAWN_TOO_MUCH)
		(void)text_copy(words, sizeof(words), ends[end]);
	else
		(void)snprintf(
		    words, sizeof(words), "%s %d", ends[end], s->status);
	put_reason(verdict, words, s, password);
	return result;
}

/* --- the provider -------------------------------------------------------- */

static enum auth_result
judge(void *provider, const struct message *question, struct message *verdict)
{
	struct checkpassword *p = provider;
	char login[LOGIN_MAX], out[OUTPUT_MAX], err[AUTH_ERROR_SIZE];
	struct environment e;
	struct spawn s = {.argv = p->argv,
	    .envp = e.var,
	    .input = login,
	    .out = {out, sizeof(out), 0},
	    .err = {err, sizeof(err), 0}};
	enum auth_result result = AUTH_DENIED;

	s.input_len = put_login(p, question, login);
	if (s.input_len == 0) {
		message_put(verdict, M_REASON,
		    "checkpassword: a login of more than 512 octets");
	} else {
		put_facts(&e, question);
		result = conclude(&s,
		    spawn_run(&s, clock_in(p->conf->auth_timeout)),
		    message_text(question, M_PASSWORD), verdict);
	}
	explicit_bzero(login, sizeof(login));
	explicit_bzero(out, sizeof(out));
	explicit_bzero(err, sizeof(err));
	return result;
}

static void *
open_provider(const char *value, const struct config *conf, char *err)
{
	static const char scheme[] = "checkpassword:";
	struct checkpassword *p = calloc(1, sizeof(*p));
	const char *command = value + strlen(scheme);
	size_t n = 0;
	int more = 0;

	if (p == NULL) {
		(void)snprintf(err, AUTH_ERROR_SIZE, "out of memory");
		return NULL;
	}
	p->conf = conf;
	while (n < CONFIG_WORDS_MAX &&
	    (more = text_word(&command, p->word[n], CONFIG_WORD_SIZE)) == 1) {
		p->argv[n] = p->word[n];
		n++;
	}
	if (n == 0 || more == -1 || *p->word[0] != '/') {
		(void)snprintf(
		    err, AUTH_ERROR_SIZE, "no program in \"%.180s\"", value);
		free(p);
		return NULL;
	}
	p->argv[n] = follower;
	p->argv[n + 1] = follower_option;
	return p;
}

const struct auth_provider auth_provider = {
    .scheme = "checkpassword",
    .can = AUTH_CAN_VERIFY | AUTH_CAN_DIGEST,
    .open = open_provider,
    .close = free,
    .judge = judge,
};
