/*
 * What is believed of the auth server's last word on a login. FAIL becomes what
 * Dovecot's own submission service answers for the same code. OK alone lets
 * nobody in: it may say that there is no login for this user, or that another
 * server has the last word (proxy). What goes on to the client, the backend or
 * the log is looked at first. Pure: no I/O.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "lib/text.h"

#include "auth/dovecot.h"

/* Where fields begin that are key=value: behind the command and its number. */
#define PARAMETERS 2

#define REASON_SIZE  200
#define BACKEND_SIZE 320
#define USER_MAX     511

/* Of a backend, as in Dovecot's proxy for submission. */
#define PORT_SUBMISSION	 "587"
#define PORT_SUBMISSIONS "465"

static const char *
parameter(const struct dovecot_line *line, const char *key)
{
	return dovecot_line_value(line, PARAMETERS, key);
}

enum auth_result
dovecot_reply_unavailable(struct message *verdict, const char *why)
{
	char reason[AUTH_ERROR_SIZE + sizeof("auth server: ")];

	(void)snprintf(reason, sizeof(reason), "auth server: %s", why);
	message_put(verdict, M_REASON, reason);
	return AUTH_UNAVAILABLE;
}

/* --- FAIL ---------------------------------------------------------------- */

/*
 * FAIL's codes, and before Dovecot 2.3 words of their own. The replies are those
 * of RFC 4954 sections 4 and 6 and RFC 5248 section 2.4. Without `reply` it is
 * no refusal of the user's.
 */
static const struct code {
	const char *code, *word, *reply, *text;
} codes[] = {
    {"temp_fail", "temp", NULL, "temporary failure"},
    {"authz_fail", "authz", "535 5.7.8", "Authorization failed"},
    {"user_disabled", "user_disabled", "525 5.7.13",
	"This account is disabled"},
    {"pass_expired", "pass_expired", "535 5.7.8", "The password has expired"},
    {"invalid_base64", NULL, "501 5.5.2", "This is not base64"},
    {"auth_mech_invalid", NULL, "504 5.5.4", "No such mechanism"},
    {"auth_mech_ssl_required", NULL, "523 5.7.10",
	"This mechanism needs TLS"},
    {"anonymous_denied", NULL, "525 5.7.13", "Nobody logs in without a name"},
    {"login_disabled", NULL, "525 5.7.13", "There is no login for this user"},
};

#define CODES (sizeof(codes) / sizeof(codes[0]))

static const struct code *
find_code(const char *name)
{
	size_t i;

	for (i = 0; i < CODES; i++)
		if (strcmp(codes[i].code, name) == 0)
			return &codes[i];
	return NULL;
}

static const struct code *
code_of(const struct dovecot_line *line)
{
	const char *code = parameter(line, "code");
	size_t i;

	if (code != NULL)
		return find_code(code);
	for (i = 0; i < CODES; i++)
		if (codes[i].word != NULL &&
		    parameter(line, codes[i].word) != NULL)
			return &codes[i];
	return NULL;
}

static bool
is_control(char c)
{
	return (unsigned char)c < ' ' || c == 0x7f;
}

static bool
has_control(const char *s)
{
	while (*s != '\0' && !is_control(*s))
		s++;
	return *s != '\0';
}

/* What an SMTP reply line may hold (RFC 5321 section 4.2), cut to fit. */
static void
copy_words(char *to, size_t size, const char *text)
{
	size_t n = 0;

	for (; *text != '\0' && n < size - 1; text++)
		if (!is_control(*text))
			to[n++] = (unsigned char)*text < 0x80 ? *text : '?';
	to[n] = '\0';
}

/* The passdb's words for the client, where there are any, before ours. */
static enum auth_result
refuse(const struct code *code, const char *words, struct message *verdict)
{
	char reason[REASON_SIZE] = "";

	if (words != NULL)
		copy_words(reason, sizeof(reason), words);
	if (*reason == '\0' && code != NULL)
		(void)text_copy(reason, sizeof(reason), code->text);
	if (*reason == '\0') {
		/* For the log alone. */
		message_put(verdict, M_REASON, "refused");
		return AUTH_DENIED;
	}
	message_put(verdict, M_REASON, reason);
	message_put(
	    verdict, M_CODE, code != NULL ? code->reply : "535 5.7.8");
	return AUTH_DENIED;
}

enum auth_result
dovecot_reply_refuse(const char *code, struct message *verdict)
{
	return refuse(find_code(code), NULL, verdict);
}

enum auth_result
dovecot_reply_fail(const struct dovecot_line *line, struct message *verdict)
{
	const char *user = parameter(line, "user");
	const struct code *code = code_of(line);

	/* For the log: of some mechanisms nobody else knows it. */
	if (user != NULL && strlen(user) <= USER_MAX && !has_control(user))
		message_put(verdict, M_USER, user);
	if (code != NULL && code->reply == NULL)
		return dovecot_reply_unavailable(verdict, code->text);
	return refuse(code, parameter(line, "reason"), verdict);
}

/* --- OK ------------------------------------------------------------------ */

static bool
is_address(const char *text)
{
	unsigned char addr[sizeof(struct in_addr)];

	return inet_pton(AF_INET, text, addr) == 1;
}

static bool
is_address6(const char *text)
{
	unsigned char addr[sizeof(struct in6_addr)];

	return inet_pton(AF_INET6, text, addr) == 1;
}

/* "": none; else as M_BACKEND_SSL has it. */
static const char *
ssl_of(const struct dovecot_line *line)
{
	const char *ssl = parameter(line, "ssl");
	const char *starttls = parameter(line, "starttls");
	bool any = (ssl != NULL && strcmp(ssl, "any-cert") == 0) ||
	    (starttls != NULL && strcmp(starttls, "any-cert") == 0);

	/* ssl=no is no promise of Dovecot's, but can mean nothing else. */
	if (starttls != NULL && strcmp(starttls, "no") != 0)
		return any ? "starttls any-cert" : "starttls verify";
	if (ssl != NULL && strcmp(ssl, "no") != 0)
		return any ? "on any-cert" : "on verify";
	return "";
}

/*
 * The backend into `to` (BACKEND_SIZE). NULL, or what is wrong with it. A
 * certificate is for the name, so the address that comes along is left alone
 * where one is to be verified.
 */
static const char *
route(const struct dovecot_line *line, const char *ssl, char *to)
{
	const char *host = parameter(line, "host");
	const char *address = parameter(line, "hostip");
	const char *port = parameter(line, "port");
	uint64_t number;

	if (host == NULL || *host == '\0')
		return "proxy without a host";
	if (address != NULL && strstr(ssl, "verify") == NULL &&
	    (is_address(address) || is_address6(address)))
		host = address;
	if (port == NULL)
		port = strncmp(ssl, "on", 2) == 0 ? PORT_SUBMISSIONS
						  : PORT_SUBMISSION;
	if (text_number(port, UINT16_MAX, &number) == -1 || number == 0)
		return "the proxy's port is not valid";
	if (is_address6(host))
		(void)snprintf(
		    to, BACKEND_SIZE, "[%s]:%u", host, (unsigned)number);
	else if (text_is_hostname(host) && strlen(host) < BACKEND_SIZE - 8)
		(void)snprintf(
		    to, BACKEND_SIZE, "%s:%u", host, (unsigned)number);
	else
		return "the proxy's host is not valid";
	return NULL;
}

/*
 * The backend has the last word on the password: a passdb that proxies may let
 * any pass. So there is no login without one to show to the backend, but where
 * the passdb says that the backend wants none (proxy_noauth).
 */
static enum auth_result
accept_proxy(const struct dovecot_line *line, const struct message *question,
    struct message *verdict)
{
	const char *user = parameter(line, "destuser");
	const char *password = parameter(line, "pass");
	const char *master = parameter(line, "master");
	const char *ssl = ssl_of(line), *wrong;
	char backend[BACKEND_SIZE];

	if (user == NULL || *user == '\0')
		user = message_text(verdict, M_USER);
	if (password == NULL)
		password = message_get(question, M_PASSWORD);
	wrong = route(line, ssl, backend);
	if (wrong == NULL && master != NULL && *master != '\0')
		wrong = "proxy with a master user, which is not supported";
	if (wrong == NULL && has_control(user))
		wrong = "the proxy's user is not valid";
	if (wrong == NULL && password == NULL &&
	    parameter(line, "proxy_noauth") == NULL)
		wrong = "proxy without a password for the backend";
	if (wrong != NULL)
		return dovecot_reply_unavailable(verdict, wrong);
	message_put(verdict, M_BACKEND, backend);
	if (*ssl != '\0')
		message_put(verdict, M_BACKEND_SSL, ssl);
	message_put(verdict, M_BACKEND_USER, user);
	message_put(verdict, M_BACKEND_PASSWORD, password);
	if (parameter(line, "proxy_noauth") == NULL)
		message_put(verdict, M_BACKEND_AUTH, "on");
	return AUTH_ACCEPTED;
}

enum auth_result
dovecot_reply_ok(const struct dovecot_line *line,
    const struct message *question, struct message *verdict)
{
	const char *user = parameter(line, "user");

	/* It goes into commands to the backend and the relay's environment. */
	if (user == NULL || *user == '\0' || strlen(user) > USER_MAX ||
	    has_control(user))
		return dovecot_reply_unavailable(
		    verdict, "OK without a user, or with no valid one");
	message_put(verdict, M_USER, user);
	if (parameter(line, "anonymous") != NULL)
		return dovecot_reply_refuse("anonymous_denied", verdict);
	if (parameter(line, "proxy") != NULL)
		return accept_proxy(line, question, verdict);
	/*
	 * The password was right, and there is no login all the same; with
	 * host=, not here.
	 */
	if (parameter(line, "nologin") != NULL)
		return refuse(find_code("login_disabled"),
		    parameter(line, "reason"), verdict);
	return AUTH_ACCEPTED;
}
