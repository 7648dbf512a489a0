/*
 * What is believed of an answer. Only "Auth-Status: OK" in a whole answer of
 * status 2xx is a success; nginx ignores the status, and takes an answer
 * without Auth-Status for a yes. Whatever goes on to the client, the backend or
 * the log is looked at first.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "lib/text.h"

#include "auth/http.h"

#define BACKEND_SIZE 320

enum auth_result
http_verdict_unavailable(struct message *verdict, const char *why)
{
	char reason[AUTH_ERROR_SIZE + sizeof("auth server: ")];

	(void)snprintf(reason, sizeof(reason), "auth server: %s", why);
	message_put(verdict, M_REASON, reason);
	return AUTH_UNAVAILABLE;
}

/*
 * Whether `s` is a reply code that refuses, alone or with an enhanced code of
 * the same class (RFC 5321 section 4.2, RFC 3463 section 2). Anything else in
 * its place would let the auth server write our reply.
 */
static bool
is_refusal_code(const char *s)
{
	static const char digits[] = "0123456789";
	size_t n;

	if ((s[0] != '4' && s[0] != '5') || s[1] < '0' || s[1] > '5' ||
	    s[2] < '0' || s[2] > '9')
		return false;
	if (s[3] == '\0')
		return true;
	if (s[3] != ' ' || s[4] != s[0] || s[5] != '.')
		return false;
	s += 6;
	n = strspn(s, digits);
	if (n < 1 || n > 3 || s[n] != '.')
		return false;
	s += n + 1;
	n = strspn(s, digits);
	return n >= 1 && n <= 3 && s[n] == '\0';
}

/* Of credentials (RFC 4954 section 6); of a sender and recipient. */
static const char *
default_code(const struct message *question)
{
	return strcmp(message_text(question, M_METHOD), "none") == 0
		   ? "550 5.7.1"
		   : "535 5.7.8";
}

static enum auth_result
deny(const struct http_answer *a, const struct message *question,
    struct message *verdict)
{
	const struct http_fields *f = &a->f;
	unsigned s = http_answer_wait_s(a);

	if (s > 0)
		message_put_number(verdict, M_DELAY, s * UINT64_C(1000));
	if (f->text[0] == '\0') {
		/* For the log: there are no words for the client. */
		message_put(verdict, M_REASON, "no Auth-Status");
		return AUTH_DENIED;
	}
	message_put(verdict, M_REASON, f->text);
	message_put(verdict, M_CODE,
	    is_refusal_code(f->code) ? f->code : default_code(question));
	return AUTH_DENIED;
}

/*
 * The backend that the answer names, into `to` (BACKEND_SIZE); "" when it names
 * none. NULL, or what is wrong with it.
 */
static const char *
route(const struct http_fields *f, char *to)
{
	char v6[INET6_ADDRSTRLEN];
	uint64_t port;

	*to = '\0';
	if (f->server[0] == '\0' && f->port[0] == '\0')
		return NULL;
	if (strncmp(f->server, "unix:", 5) == 0) {
		if (f->server[5] != '/' || !http_text_is_printable(f->server) ||
		    strlen(f->server + 5) >= HTTP_SOCKET_PATH_SIZE)
			return "Auth-Server is not valid";
		(void)text_copy(to, BACKEND_SIZE, f->server);
		return NULL;
	}
	if (f->server[0] == '\0' || f->port[0] == '\0')
		return "Auth-Server or Auth-Port is missing";
	if (text_number(f->port, UINT16_MAX, &port) == -1 || port == 0)
		return "Auth-Port is not valid";
	if (http_text_is_ipv6(f->server, v6))
		(void)snprintf(to, BACKEND_SIZE, "[%s]:%u", v6, (unsigned)port);
	else if (text_is_hostname(f->server))
		(void)snprintf(
		    to, BACKEND_SIZE, "%s:%u", f->server, (unsigned)port);
	else
		return "Auth-Server is not valid";
	return NULL;
}

static enum auth_result
accept_user(const struct config *conf, const struct http_fields *f,
    const struct message *question, struct message *verdict)
{
	char backend[BACKEND_SIZE];
	const char *wrong = route(f, backend);

	if (wrong != NULL)
		return http_verdict_unavailable(verdict, wrong);
	if (*backend == '\0' && conf->backend.count == 0 && conf->relay == NULL)
		return http_verdict_unavailable(
		    verdict, "no Auth-Server, and no backend");
	/* It goes into commands to the backend and the relay's environment. */
	if (http_text_has_control(f->user))
		return http_verdict_unavailable(
		    verdict, "Auth-User is not valid");
	if (*backend != '\0')
		message_put(verdict, M_BACKEND, backend);
	if (f->user[0] != '\0') {
		message_put(verdict, M_USER, f->user);
		message_put(verdict, M_BACKEND_USER, f->user);
	} else {
		message_put(verdict, M_USER, message_get(question, M_USER));
	}
	if (f->password[0] != '\0')
		message_put(verdict, M_BACKEND_PASSWORD, f->password);
	return AUTH_ACCEPTED;
}

enum auth_result
http_verdict(const struct config *conf, const struct http_answer *a,
    const struct message *question, struct message *verdict)
{
	if (a->error[0] != '\0')
		return http_verdict_unavailable(verdict, a->error);
	if (a->f.refused || !a->f.ok)
		return deny(a, question, verdict);
	return accept_user(conf, &a->f, question, verdict);
}
