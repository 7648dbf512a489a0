/*
 * nginx's auth_http protocol: a question is the headers of one GET request, an
 * answer the headers of its reply. Owns both sets of headers, what is believed
 * of an answer, and the connection to the auth server, which libcurl keeps
 * open between questions. Only a keeper loads it; it blocks, by
 * auth_http_timeout. It does not retry, delay a client, or talk to a backend.
 *
 * The value of auth_provider is one of
 *
 *	http://host[:port][/uri]	host a name, an IPv4 address or [IPv6]
 *	https://host[:port][/uri]
 *	http+unix:///path/of/socket[:/uri]
 *
 * where /uri is "/" when it is left out. Certificates of https servers are
 * verified against the system's authorities.
 *
 * What differs from nginx, on purpose:
 *
 * - Only "Auth-Status: OK" in a whole answer of status 2xx is a success. nginx
 *   ignores the status, and takes an answer without Auth-Status for a yes.
 * - User and password have %XX for 0x7f as well as for 0x00-0x20 and '%'. What
 *   nginx sends as it came (HELO's argument, MAIL, RCPT, host names, salt) has
 *   %XX for control characters and 8-bit octets, so that no client writes a
 *   header of its own. '%' itself stays there, as servers know it from nginx:
 *   these are for reading, not for decoding.
 * - The request is HTTP/1.1, and its Host header has the port.
 */
#include <sys/socket.h>
#include <sys/un.h>

#include <arpa/inet.h>
#include <limits.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curl/curl.h>

#include "lib/clock.h"
#include "lib/text.h"

#include "auth/provider.h"

#define UNIX_PREFIX "http+unix://"
#define URI_MAX	    2048

/* The most of an answer that is read. */
#define MAX_HEADER_SIZE	 16384
#define MAX_HEADER_COUNT 100
#define MAX_BODY_SIZE	 65536

#define REASON_SIZE	 (200 + 1) /* fits a reply line, with its code */
#define MAX_WAIT_S	 60
#define SOCKET_PATH_SIZE sizeof(((struct sockaddr_un *)0)->sun_path)
#define BACKEND_SIZE	 320

struct http {
	const struct config *conf;
	char *url;
	char socket_path[SOCKET_PATH_SIZE]; /* "": over the network */
	struct curl_slist *extra; /* auth_http_header */
	CURL *curl; /* NULL until the first question */
	CURL *inherited; /* of a parent: not to be touched */
	pid_t owner; /* of curl's connections; 0: none */
};

/* Headers of a question, on the way. */
struct list {
	struct curl_slist *head;
	bool failed; /* no memory: the list is not whole */
};

/* What an answer's headers say. Over-long values make it broken. */
struct fields {
	bool ok, wait, refused; /* kinds of Auth-Status that were seen */
	char text[REASON_SIZE]; /* the first refusal, printable */
	char server[256];
	char port[16];
	char user[512];
	char password[1024];
	char wait_s[16];
	char code[64];
};

struct answer {
	struct fields f;
	bool started; /* the status line of these headers came */
	bool interim; /* and they are a 1xx answer's */
	bool complete; /* the blank line behind the final headers came */
	size_t header_size, header_count, body_size;
	char error[AUTH_ERROR_SIZE]; /* why it is no answer; "" */
};

/*
 * libcurl copies our headers into buffers of its own and the answer's, which
 * may hold a password, into others. It gets memory that is wiped when freed.
 * The last answer's headers stay in the open handle until the next question.
 */
static void
wiping_free(void *p)
{
	if (p != NULL)
		explicit_bzero(p, malloc_usable_size(p));
	free(p);
}

static void *
wiping_realloc(void *p, size_t size)
{
	void *to = malloc(size);
	size_t old;

	if (to == NULL || p == NULL)
		return to;
	old = malloc_usable_size(p);
	memcpy(to, p, old < size ? old : size);
	wiping_free(p);
	return to;
}

static void
wipe_list(struct curl_slist *list)
{
	struct curl_slist *i;

	for (i = list; i != NULL; i = i->next)
		explicit_bzero(i->data, strlen(i->data));
	curl_slist_free_all(list);
}

static bool
is_control(unsigned char c)
{
	return c < 0x20 || c == 0x7f;
}

/* What is %XX in a user and a password. */
static bool
is_unsafe_credential(unsigned char c)
{
	return is_control(c) || c == ' ' || c == '%';
}

/* What is %XX elsewhere. */
static bool
is_unsafe_text(unsigned char c)
{
	return is_control(c) || c >= 0x80;
}

static void
add_line(struct list *l, const char *line)
{
	struct curl_slist *head = curl_slist_append(l->head, line);

	if (head == NULL)
		l->failed = true;
	else
		l->head = head;
}

/*
 * Adds a header. libcurl drops one whose value is empty or blank, unless it is
 * written with a ';' instead of the ':'.
 */
static void
add(struct list *l, const char *name, const char *value,
    bool (*is_unsafe)(unsigned char))
{
	static const char hex[] = "0123456789ABCDEF";
	size_t name_len = strlen(name);
	size_t size = name_len + 3 * strlen(value) + sizeof(": ");
	char *line = malloc(size), *to;
	unsigned char c;

	if (line == NULL) {
		l->failed = true;
		return;
	}
	(void)snprintf(line, size, "%s: ", name);
	to = line + name_len + 2;
	for (; *value != '\0'; value++) {
		c = (unsigned char)*value;
		if (is_unsafe(c)) {
			*to++ = '%';
			*to++ = hex[c >> 4];
			*to++ = hex[c & 0xf];
		} else {
			*to++ = (char)c;
		}
	}
	*to = '\0';
	if (line[name_len + 1 + strspn(line + name_len + 1, " ")] == '\0')
		(void)snprintf(line, size, "%s;", name);
	add_line(l, line);
	explicit_bzero(line, size);
	free(line);
}

/* What only some methods have, or only some have filled. */
static void
add_credentials(struct list *l, const struct message *q, const char *method)
{
	bool cram = strcmp(method, "cram-md5") == 0;
	bool has_password = cram || strcmp(method, "plain") == 0;

	add(l, "Auth-User", message_text(q, M_USER), is_unsafe_credential);
	/* Never one from an earlier attempt with another method. */
	add(l, "Auth-Pass", has_password ? message_text(q, M_PASSWORD) : "",
	    is_unsafe_credential);
	if (cram)
		add(l, "Auth-Salt", message_text(q, M_SALT), is_unsafe_text);
}

static void
add_client(struct list *l, const struct message *q)
{
	const char *addr = message_text(q, M_CLIENT_ADDR);
	const char *host = message_text(q, M_CLIENT_HOST);
	char attempt[24];

	(void)snprintf(attempt, sizeof(attempt), "%u",
	    (unsigned)message_get_number(q, M_ATTEMPT, UINT_MAX, 1));
	add(l, "Auth-Protocol", "smtp", is_unsafe_text);
	add(l, "Auth-Login-Attempt", attempt, is_unsafe_text);
	add(l, "Client-IP", *addr != '\0' ? addr : "unix:", is_unsafe_text);
	add(l, "Client-Host", *host != '\0' ? host : "[UNAVAILABLE]",
	    is_unsafe_text);
}

/* All headers of a question, in nginx's order. NULL without memory. */
static struct curl_slist *
question_headers(const struct http *p, const struct message *q)
{
	const char *method = message_text(q, M_METHOD);
	const char *protocol = message_text(q, M_TLS_PROTOCOL);
	const struct curl_slist *extra;
	struct list l = {NULL, false};

	add_line(&l, "Accept:"); /* libcurl's own is left out */
	add(&l, "Auth-Method", method, is_unsafe_text);
	add_credentials(&l, q, method);
	add_client(&l, q);
	if (strcmp(method, "none") == 0) {
		add(&l, "Auth-SMTP-Helo", message_text(q, M_HELO),
		    is_unsafe_text);
		add(&l, "Auth-SMTP-From", message_text(q, M_MAIL_FROM),
		    is_unsafe_text);
		add(&l, "Auth-SMTP-To", message_text(q, M_RCPT_TO),
		    is_unsafe_text);
	}
	if (*protocol != '\0') {
		add(&l, "Auth-SSL", "on", is_unsafe_text);
		add(&l, "Auth-SSL-Protocol", protocol, is_unsafe_text);
		add(&l, "Auth-SSL-Cipher", message_text(q, M_TLS_CIPHER),
		    is_unsafe_text);
	}
	for (extra = p->extra; extra != NULL; extra = extra->next)
		add_line(&l, extra->data);
	if (l.failed) {
		wipe_list(l.head);
		return NULL;
	}
	return l.head;
}

static size_t
fail(struct answer *a, const char *why)
{
	(void)text_copy(a->error, sizeof(a->error), why);
	return 0; /* to libcurl: give up */
}

/*
 * Copies what an SMTP reply line may hold (RFC 5321 section 4.2): whatever else
 * stood in it, the client and the log see one printable line.
 */
static void
copy_printable(char *to, size_t size, const char *text, size_t len)
{
	size_t i, n = 0;
	unsigned char c;

	for (i = 0; i < len && n < size - 1; i++) {
		c = (unsigned char)text[i];
		if (!is_control(c))
			to[n++] = c < 0x80 ? (char)c : '?';
	}
	to[n] = '\0';
}

/* Several Auth-Status: each is kept, and judge() lets the worst one win. */
static void
take_status(struct fields *f, const char *value, size_t len)
{
	if (len == 2 && memcmp(value, "OK", 2) == 0) {
		f->ok = true;
	} else if (len == 4 && memcmp(value, "WAIT", 4) == 0) {
		f->wait = true;
	} else {
		f->refused = true;
		if (f->text[0] == '\0')
			copy_printable(f->text, sizeof(f->text), value, len);
	}
}

/* Keeps the header `name` if it is one that we know; a later one wins. */
static int
take_field(struct answer *a, const char *name, const char *value, size_t len)
{
#define FIELD(name, member)                              \
	{                                                \
		name, offsetof(struct fields, member),   \
		    sizeof(((struct fields *)0)->member) \
	}
	static const struct {
		const char *name;
		size_t at, size;
	} known[] = {
	    FIELD("Auth-Server", server),
	    FIELD("Auth-Port", port),
	    FIELD("Auth-User", user),
	    FIELD("Auth-Pass", password),
	    FIELD("Auth-Wait", wait_s),
	    FIELD("Auth-Error-Code", code),
	};
#undef FIELD
	char *to;
	size_t i;

	if (text_equal(name, "Auth-Status"))
		take_status(&a->f, value, len);
	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (!text_equal(name, known[i].name))
			continue;
		if (len >= known[i].size)
			return -1;
		to = (char *)&a->f + known[i].at;
		memcpy(to, value, len);
		to[len] = '\0';
	}
	return 0;
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/*
 * One header line without its end. -1 when it is none: continued lines and
 * blanks before the ':' are how one header is made to look like another
 * (RFC 9112 sections 5.1 and 5.2).
 */
static int
take_header(struct answer *a, const char *line, size_t len)
{
	const char *colon = memchr(line, ':', len), *value;
	size_t i, name_len;
	char name[64];

	if (colon == NULL || colon == line || memchr(line, '\0', len) != NULL)
		return -1;
	name_len = (size_t)(colon - line);
	for (i = 0; i < name_len; i++)
		if (is_unsafe_text((unsigned char)line[i]) || line[i] == ' ')
			return -1;
	value = colon + 1;
	len -= name_len + 1;
	for (; len > 0 && is_blank(*value); value++)
		len--;
	while (len > 0 && is_blank(value[len - 1]))
		len--;
	if (name_len >= sizeof(name))
		return 0; /* none that we know */
	memcpy(name, line, name_len);
	name[name_len] = '\0';
	return take_field(a, name, value, len);
}

/* libcurl has read a status line, a header, a blank line or a trailer. */
static size_t
on_header(char *data, size_t size, size_t count, void *arg)
{
	struct answer *a = arg;
	size_t all = size * count, len = all;
	const char *code;

	a->header_size += all;
	a->header_count++;
	if (a->header_size > MAX_HEADER_SIZE ||
	    a->header_count > MAX_HEADER_COUNT)
		return fail(a, "the answer's header is too long");
	if (a->complete)
		return all; /* a trailer must not change the verdict */
	if (len > 0 && data[len - 1] == '\n')
		len--;
	if (len > 0 && data[len - 1] == '\r')
		len--;
	if (len == 0) {
		a->complete = !a->interim;
		a->started = false;
	} else if (!a->started) {
		/* What a 1xx answer said does not count (RFC 9110 15.2). */
		explicit_bzero(&a->f, sizeof(a->f));
		code = memchr(data, ' ', len - 1);
		a->interim = code != NULL && code[1] == '1';
		a->started = true;
	} else if (take_header(a, data, len) == -1) {
		return fail(a, "a header of the answer is malformed");
	}
	return all;
}

static size_t
on_body(char *data, size_t size, size_t count, void *arg)
{
	struct answer *a = arg;
	size_t all = size * count;

	(void)data;
	a->body_size += all;
	if (a->body_size > MAX_BODY_SIZE)
		return fail(a, "the answer's body is too long");
	return all;
}

/* libcurl's sockets would be inherited by programs that the keeper starts. */
static curl_socket_t
on_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *addr)
{
	(void)arg;
	(void)purpose;
	return socket(
	    addr->family, addr->socktype | SOCK_CLOEXEC, addr->protocol);
}

/* What libcurl is never to do: it is all there is between us and a server. */
static CURLcode
restrain(CURL *curl)
{
	static const struct {
		CURLoption option;
		long value;
	} numbers[] = {
	    {CURLOPT_HTTPGET, 1},
	    {CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1},
	    {CURLOPT_HTTP09_ALLOWED, 0},
	    {CURLOPT_FOLLOWLOCATION, 0},
	    {CURLOPT_NETRC, CURL_NETRC_IGNORED},
	    {CURLOPT_PATH_AS_IS, 1},
	    {CURLOPT_NOSIGNAL, 1},
	    {CURLOPT_NOPROGRESS, 1},
	    {CURLOPT_QUICK_EXIT, 1}, /* a slow resolver ends in time */
	    {CURLOPT_MAXCONNECTS, 1},
	    {CURLOPT_SSL_VERIFYPEER, 1},
	    {CURLOPT_SSL_VERIFYHOST, 2},
	    {CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2},
	};
	CURLcode rc = CURLE_OK;
	size_t i;

	for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]) && !rc; i++)
		rc =
		    curl_easy_setopt(curl, numbers[i].option, numbers[i].value);
	if (!rc)
		rc =
		    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	/* No http_proxy of the environment may see a password. */
	if (!rc)
		rc = curl_easy_setopt(curl, CURLOPT_PROXY, "");
	if (!rc)
		rc = curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
	return rc;
}

/* What this one question is. `error` has CURL_ERROR_SIZE octets. */
static CURLcode
prepare(struct http *p, struct curl_slist *headers, int left, struct answer *a,
    char *error)
{
	CURL *c = p->curl;
	CURLcode rc = restrain(c);

	if (!rc)
		rc = curl_easy_setopt(c, CURLOPT_URL, p->url);
	if (!rc && p->socket_path[0] != '\0')
		rc = curl_easy_setopt(
		    c, CURLOPT_UNIX_SOCKET_PATH, p->socket_path);
	if (!rc)
		rc = curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	if (!rc)
		rc = curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)left);
	if (!rc)
		rc = curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)left);
	if (!rc)
		rc = curl_easy_setopt(c, CURLOPT_ERRORBUFFER, error);
	if (!rc)
		rc = curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, on_socket);
	if (!rc)
		rc = curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	if (!rc)
		rc = curl_easy_setopt(c, CURLOPT_HEADERDATA, a);
	if (!rc)
		rc = curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	if (!rc)
		rc = curl_easy_setopt(c, CURLOPT_WRITEDATA, a);
	return rc;
}

/*
 * Makes libcurl ready, at the first question of this process: a keeper that is
 * never asked does not pay for it. After a fork the connection is the parent's.
 * It is left alone rather than closed, for two who read from one connection
 * would get each other's verdicts, and closing it may say so on it.
 */
static int
start(struct http *p)
{
	if (p->curl != NULL && p->owner == getpid())
		return 0;
	if (p->owner == 0 &&
	    curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, wiping_free,
		wiping_realloc, strdup, calloc) != CURLE_OK)
		return -1;
	p->inherited = p->curl;
	p->owner = getpid();
	p->curl = curl_easy_init();
	return p->curl != NULL ? 0 : -1;
}

/*
 * Asks once, by `deadline`. 0 with a whole answer of status 2xx in `a`, or -1
 * with a->error.
 */
static int
ask(struct http *p, struct curl_slist *headers, int64_t deadline,
    struct answer *a)
{
	char text[CURL_ERROR_SIZE] = "";
	int left = clock_left(deadline);
	long status = 0;
	CURLcode rc;

	explicit_bzero(a, sizeof(*a));
	if (left == 0 || start(p) == -1) {
		(void)fail(a, left == 0 ? "timed out" : "out of memory");
		return -1;
	}
	rc = prepare(p, headers, left, a, text);
	if (rc == CURLE_OK)
		rc = curl_easy_perform(p->curl);
	(void)curl_easy_getinfo(p->curl, CURLINFO_RESPONSE_CODE, &status);
	/* It keeps its connection, and nothing that points to us. */
	curl_easy_reset(p->curl);
	if (a->error[0] != '\0')
		return -1;
	if (rc != CURLE_OK)
		copy_printable(a->error, sizeof(a->error),
		    text[0] != '\0' ? text : curl_easy_strerror(rc),
		    strlen(text[0] != '\0' ? text : curl_easy_strerror(rc)));
	else if (!a->complete)
		(void)fail(a, "the answer is cut short");
	else if (status < 200 || status > 299)
		(void)snprintf(
		    a->error, sizeof(a->error), "HTTP status %ld", status);
	return a->error[0] == '\0' ? 0 : -1;
}

/* Auth-Wait in seconds, at most MAX_WAIT_S; 0 when there is no number. */
static unsigned
wait_seconds(const struct fields *f)
{
	uint64_t s = 0;

	(void)text_number(f->wait_s, UINT64_MAX, &s);
	return s < MAX_WAIT_S ? (unsigned)s : MAX_WAIT_S;
}

/* Whether the answer asks us to ask again; a refusal beats it, OK does not. */
static bool
is_wait(const struct fields *f)
{
	return f->wait && !f->refused;
}

/* Waits before the next question. -1 with a->error when there is no time. */
static int
wait_turn(struct answer *a, int64_t deadline)
{
	unsigned s = wait_seconds(&a->f);
	int64_t until = clock_in((s > 0 ? s : 1) * INT64_C(1000));
	int left;

	if (until >= deadline) {
		(void)fail(a, "Auth-Status: WAIT beyond auth_http_timeout");
		return -1;
	}
	while ((left = clock_left(until)) > 0)
		(void)poll(NULL, 0, left);
	return 0;
}

static enum auth_result
unavailable(struct message *verdict, const char *why)
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
deny(const struct fields *f, const struct message *question,
    struct message *verdict)
{
	unsigned s = wait_seconds(f);

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

static bool
is_printable(const char *s)
{
	for (; *s != '\0'; s++)
		if (is_unsafe_text((unsigned char)*s) || *s == ' ')
			return false;
	return true;
}

/* Takes the brackets off an IPv6 address. Whether `host` held one. */
static bool
is_ipv6(const char *host, char *bare)
{
	size_t len = strlen(host);
	struct in6_addr addr;

	if (len > 2 && host[0] == '[' && host[len - 1] == ']') {
		host++;
		len -= 2;
	}
	if (len >= INET6_ADDRSTRLEN)
		return false;
	memcpy(bare, host, len);
	bare[len] = '\0';
	return inet_pton(AF_INET6, bare, &addr) == 1;
}

/*
 * The backend that the answer names, into `to` (BACKEND_SIZE); "" when it names
 * none. NULL, or what is wrong with it.
 */
static const char *
route(const struct fields *f, char *to)
{
	char v6[INET6_ADDRSTRLEN];
	uint64_t port;

	*to = '\0';
	if (f->server[0] == '\0' && f->port[0] == '\0')
		return NULL;
	if (strncmp(f->server, "unix:", 5) == 0) {
		if (f->server[5] != '/' || !is_printable(f->server) ||
		    strlen(f->server + 5) >= SOCKET_PATH_SIZE)
			return "Auth-Server is not valid";
		(void)text_copy(to, BACKEND_SIZE, f->server);
		return NULL;
	}
	if (f->server[0] == '\0' || f->port[0] == '\0')
		return "Auth-Server or Auth-Port is missing";
	if (text_number(f->port, UINT16_MAX, &port) == -1 || port == 0)
		return "Auth-Port is not valid";
	if (is_ipv6(f->server, v6))
		(void)snprintf(to, BACKEND_SIZE, "[%s]:%u", v6, (unsigned)port);
	else if (text_is_hostname(f->server))
		(void)snprintf(
		    to, BACKEND_SIZE, "%s:%u", f->server, (unsigned)port);
	else
		return "Auth-Server is not valid";
	return NULL;
}

static bool
has_control(const char *s)
{
	for (; *s != '\0'; s++)
		if (is_control((unsigned char)*s))
			return true;
	return false;
}

static enum auth_result
accept_user(const struct http *p, const struct fields *f,
    const struct message *question, struct message *verdict)
{
	char backend[BACKEND_SIZE];
	const char *wrong = route(f, backend);

	if (wrong != NULL)
		return unavailable(verdict, wrong);
	if (*backend == '\0' && p->conf->backend.count == 0 &&
	    p->conf->relay == NULL)
		return unavailable(verdict, "no Auth-Server, and no backend");
	/* It goes into commands to the backend and the relay's environment. */
	if (has_control(f->user))
		return unavailable(verdict, "Auth-User is not valid");
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

static bool
is_method(const char *method)
{
	return strcmp(method, "plain") == 0 ||
	       strcmp(method, "cram-md5") == 0 ||
	       strcmp(method, "external") == 0 || strcmp(method, "none") == 0;
}

static enum auth_result
http_judge(
    void *provider, const struct message *question, struct message *verdict)
{
	struct http *p = provider;
	int64_t deadline = clock_in(p->conf->auth_http_timeout);
	struct curl_slist *headers;
	enum auth_result result;
	struct answer a;

	if (!is_method(message_text(question, M_METHOD)))
		return unavailable(verdict, "no such method");
	headers = question_headers(p, question);
	if (headers == NULL)
		return unavailable(verdict, "out of memory");
	while (ask(p, headers, deadline, &a) == 0 && is_wait(&a.f))
		if (wait_turn(&a, deadline) == -1)
			break;
	if (a.error[0] != '\0')
		result = unavailable(verdict, a.error);
	else if (a.f.refused || !a.f.ok)
		result = deny(&a.f, question, verdict);
	else
		result = accept_user(p, &a.f, question, verdict);
	wipe_list(headers);
	explicit_bzero(&a, sizeof(a));
	return result;
}

/* ":port" or nothing. */
static bool
is_port(const char *s)
{
	uint64_t n;

	return *s == '\0' ||
	       (*s == ':' && text_number(s + 1, UINT16_MAX, &n) == 0 && n != 0);
}

/* host, host:port, [v6] or [v6]:port; no user and password before it. */
static bool
is_authority(const char *s, size_t len)
{
	char host[256], v6[INET6_ADDRSTRLEN], *end;

	if (len >= sizeof(host))
		return false;
	memcpy(host, s, len);
	host[len] = '\0';
	if (*host == '[') {
		end = strchr(host, ']');
		if (end == NULL || !is_port(end + 1))
			return false;
		end[1] = '\0';
		return is_ipv6(host, v6);
	}
	end = host + strcspn(host, ":");
	if (!is_port(end))
		return false;
	*end = '\0';
	return text_is_hostname(host);
}

static bool
is_uri(const char *s)
{
	return *s == '\0' || (*s == '/' && strlen(s) < URI_MAX &&
				 is_printable(s) && strchr(s, '#') == NULL);
}

/* Takes a value apart. NULL, or what is wrong with it. */
static const char *
parse_value(struct http *p, const char *value)
{
	bool is_unix = strncmp(value, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0;
	const char *at, *uri;
	int n;

	if (!is_unix && strncmp(value, "http://", 7) != 0 &&
	    strncmp(value, "https://", 8) != 0)
		return "it begins with none of http:// https:// http+unix://";
	at = strstr(value, "://") + 3;
	uri = at + strcspn(at, is_unix ? ":" : "/");
	n = (int)(uri - value);
	if (is_unix) {
		if (*at != '/' || (size_t)(uri - at) >= SOCKET_PATH_SIZE)
			return "the path of the socket is not valid";
		memcpy(p->socket_path, at, (size_t)(uri - at));
		value = "http://localhost";
		n = (int)strlen(value);
		uri += *uri == ':';
	} else if (!is_authority(at, (size_t)(uri - at))) {
		return "the host or its port is not valid";
	}
	if (!is_uri(uri))
		return "the URI is not valid";
	if (asprintf(&p->url, "%.*s%s", n, value, *uri != '\0' ? uri : "/") ==
	    -1) {
		p->url = NULL;
		return "out of memory";
	}
	return NULL;
}

/* One item of auth_http_header, "Name value" or "Name: value". */
static int
parse_extra(struct list *l, const char *item)
{
	static const char name_chars[] =
	    "abcdefghijklmnopqrstuvwxyz"
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
	size_t len = strspn(item, name_chars);
	const char *value = item + len;
	char name[128];

	value += *value == ':';
	if (len == 0 || len >= sizeof(name) ||
	    (*value != '\0' && !is_blank(*value)) || has_control(value))
		return -1;
	value += strspn(value, " ");
	memcpy(name, item, len);
	name[len] = '\0';
	add(l, name, value, is_control);
	return 0;
}

static void
http_close(void *provider)
{
	struct http *p = provider;

	if (p == NULL)
		return;
	if (p->curl != NULL && p->owner == getpid())
		curl_easy_cleanup(p->curl);
	wipe_list(
	    p->extra); /* often a secret that the auth server knows us by */
	if (p->owner != 0)
		curl_global_cleanup();
	free(p->url);
	free(p);
}

static void *
http_open(const char *value, const struct config *conf, char *err)
{
	struct http *p = calloc(1, sizeof(*p));
	struct list l = {NULL, false};
	const char *wrong;
	size_t i;

	if (p == NULL) {
		(void)snprintf(err, AUTH_ERROR_SIZE, "out of memory");
		return NULL;
	}
	p->conf = conf;
	wrong = parse_value(p, value);
	/* The header itself is not shown: it may be a secret. */
	for (i = 0; i < conf->auth_http_header.count && wrong == NULL; i++)
		if (parse_extra(&l, conf->auth_http_header.word[i]) == -1)
			wrong = "auth_http_header is not \"Name: value\"";
	p->extra = l.head;
	if (wrong == NULL && l.failed)
		wrong = "out of memory";
	if (wrong != NULL) {
		(void)snprintf(err, AUTH_ERROR_SIZE, "%s: %s", value, wrong);
		http_close(p);
		return NULL;
	}
	return p;
}

const struct auth_provider auth_provider = {
    .scheme = "http",
    .can =
	AUTH_CAN_VERIFY | AUTH_CAN_DIGEST | AUTH_CAN_AUTHORIZE | AUTH_CAN_ROUTE,
    .open = http_open,
    .close = http_close,
    .judge = http_judge,
};
