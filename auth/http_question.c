/*
 * A question: the headers of one GET request, as nginx writes them, but for two
 * things. User and password have %XX for 0x7f as well as for 0x00-0x20 and '%'.
 * What nginx sends as it came (HELO's argument, MAIL, RCPT, host names, salt)
 * has %XX for control characters and 8-bit octets, so that no client writes a
 * header of its own. '%' itself stays there, as servers know it from nginx:
 * these are for reading, not for decoding.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "auth/http.h"

/* What is %XX in a user and a password. */
static bool
is_unsafe_credential(unsigned char c)
{
	return http_text_is_control(c) || c == ' ' || c == '%';
}

void
http_question_line(struct http_question *q, const char *line)
{
	struct curl_slist *lines = curl_slist_append(q->lines, line);

	if (lines == NULL)
		q->failed = true;
	else
		q->lines = lines;
}

/*
 * Adds a header. libcurl drops one whose value is empty or blank, unless it is
 * written with a ';' instead of the ':'.
 */
static void
add(struct http_question *to, const char *name, const char *value,
    bool (*is_unsafe)(unsigned char))
{
	static const char hex[] = "0123456789ABCDEF";
	size_t name_len = strlen(name);
	size_t size = name_len + 3 * strlen(value) + sizeof(": ");
	char *line = malloc(size), *out;
	unsigned char c;

	if (line == NULL) {
		to->failed = true;
		return;
	}
	(void)snprintf(line, size, "%s: ", name);
	out = line + name_len + 2;
	for (; *value != '\0'; value++) {
		c = (unsigned char)*value;
		if (is_unsafe(c)) {
			*out++ = '%';
			*out++ = hex[c >> 4];
			*out++ = hex[c & 0xf];
		} else {
			*out++ = (char)c;
		}
	}
	*out = '\0';
	if (line[name_len + 1 + strspn(line + name_len + 1, " ")] == '\0')
		(void)snprintf(line, size, "%s;", name);
	http_question_line(to, line);
	explicit_bzero(line, size);
	free(line);
}

/* What only some methods have, or only some have filled. */
static void
add_credentials(
    struct http_question *to, const struct message *m, const char *method)
{
	bool cram = strcmp(method, "cram-md5") == 0;
	bool has_password = strcmp(method, "external") != 0 &&
			    strcmp(method, "none") != 0;

	add(to, "Auth-User", message_text(m, M_USER), is_unsafe_credential);
	/* Never one from an earlier attempt with another method. */
	add(to, "Auth-Pass", has_password ? message_text(m, M_PASSWORD) : "",
	    is_unsafe_credential);
	if (cram)
		add(to, "Auth-Salt", message_text(m, M_SALT),
		    http_text_is_unsafe);
}

static void
add_client(struct http_question *to, const struct message *m)
{
	const char *addr = message_text(m, M_CLIENT_ADDR);
	const char *host = message_text(m, M_CLIENT_HOST);
	char attempt[24];

	(void)snprintf(attempt, sizeof(attempt), "%u",
	    (unsigned)message_get_number(m, M_ATTEMPT, UINT_MAX, 1));
	add(to, "Auth-Protocol", "smtp", http_text_is_unsafe);
	add(to, "Auth-Login-Attempt", attempt, http_text_is_unsafe);
	add(to, "Client-IP",
	    *addr != '\0' ? addr : "unix:", http_text_is_unsafe);
	add(to, "Client-Host", *host != '\0' ? host : "[UNAVAILABLE]",
	    http_text_is_unsafe);
}

/* What a PROXY header said, whether it was believed or not. */
static void
add_header_of_proxy(struct http_question *to, const struct message *m)
{
	static const struct {
		const char *name;
		enum message_field field;
	} headers[] = {
	    {"Proxy-Protocol-Addr", M_PROXY_ADDR},
	    {"Proxy-Protocol-Port", M_PROXY_PORT},
	    {"Proxy-Protocol-Server-Addr", M_PROXY_LOCAL_ADDR},
	    {"Proxy-Protocol-Server-Port", M_PROXY_LOCAL_PORT},
	};
	size_t i;

	for (i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
		if (message_get(m, headers[i].field) != NULL)
			add(to, headers[i].name,
			    message_get(m, headers[i].field),
			    http_text_is_unsafe);
}

/* A header that is not there where there is nothing to say, as nginx has it. */
static const struct {
	enum message_field field;
	const char *name;
	bool (*is_unsafe)(unsigned char);
} certificate_headers[] = {
    {M_TLS_VERIFY, "Auth-SSL-Verify", http_text_is_unsafe},
    {M_TLS_SUBJECT, "Auth-SSL-Subject", http_text_is_unsafe},
    {M_TLS_ISSUER, "Auth-SSL-Issuer", http_text_is_unsafe},
    {M_TLS_SERIAL, "Auth-SSL-Serial", http_text_is_unsafe},
    {M_TLS_FINGERPRINT, "Auth-SSL-Fingerprint", http_text_is_unsafe},
    {M_TLS_CERTIFICATE, "Auth-SSL-Cert", is_unsafe_credential},
};

static void
add_tls(struct http_question *to, const struct message *m)
{
	const char *value;
	size_t i;

	add(to, "Auth-SSL", "on", http_text_is_unsafe);
	add(to, "Auth-SSL-Protocol", message_text(m, M_TLS_PROTOCOL),
	    http_text_is_unsafe);
	add(to, "Auth-SSL-Cipher", message_text(m, M_TLS_CIPHER),
	    http_text_is_unsafe);
	for (i = 0; i <
	     sizeof(certificate_headers) / sizeof(certificate_headers[0]);
	     i++) {
		value = message_text(m, certificate_headers[i].field);
		if (*value != '\0')
			add(to, certificate_headers[i].name, value,
			    certificate_headers[i].is_unsafe);
	}
}

void
http_question_build(struct http_question *to, const struct message *m,
    const struct http_question *extra)
{
	const char *method = message_text(m, M_METHOD);
	const struct curl_slist *i;

	*to = (struct http_question){0};
	http_question_line(to, "Accept:"); /* libcurl's own is left out */
	add(to, "Auth-Method", method, http_text_is_unsafe);
	add_credentials(to, m, method);
	add_client(to, m);
	add_header_of_proxy(to, m);
	if (strcmp(method, "none") == 0) {
		add(to, "Auth-SMTP-Helo", message_text(m, M_HELO),
		    http_text_is_unsafe);
		add(to, "Auth-SMTP-From", message_text(m, M_MAIL_FROM),
		    http_text_is_unsafe);
		add(to, "Auth-SMTP-To", message_text(m, M_RCPT_TO),
		    http_text_is_unsafe);
	}
	if (*message_text(m, M_TLS_PROTOCOL) != '\0')
		add_tls(to, m);
	for (i = extra->lines; i != NULL; i = i->next)
		http_question_line(to, i->data);
}

int
http_question_extra(struct http_question *to, const char *item)
{
	static const char name_chars[] =
	    "abcdefghijklmnopqrstuvwxyz"
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
	size_t len = strspn(item, name_chars);
	const char *value = item + len;
	char name[128];

	value += *value == ':';
	if (len == 0 || len >= sizeof(name) || strchr(" \t", *value) == NULL ||
	    http_text_has_control(value))
		return -1;
	value += strspn(value, " ");
	memcpy(name, item, len);
	name[len] = '\0';
	add(to, name, value, http_text_is_control);
	return 0;
}

void
http_question_wipe(struct http_question *q)
{
	struct curl_slist *i;

	for (i = q->lines; i != NULL; i = i->next)
		explicit_bzero(i->data, strlen(i->data));
	curl_slist_free_all(q->lines);
	q->lines = NULL;
}
