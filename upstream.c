/*
 * The introduction is a sequence of calls under one deadline, no machine: each
 * step sends, reads one reply, and the first that is not READY ends it.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lib/text.h"

#include "upstream.h"

/* Lines of one reply; EHLO's are the longest. */
#define REPLY_LINES_MAX 128

/* A command with XCLIENT attributes (Postfix's XCLIENT README). */
#define XCLIENT_MAX 512

static enum upstream_result
failed(struct upstream *up, const char *step, const char *why)
{
	(void)snprintf(
	    up->reason, sizeof(up->reason), "%s: %s", step, why);
	up->words[0] = '\0';
	return UPSTREAM_FAILED;
}

/* A command of any length: no buffer but the connection's. */
static void
send_line(struct upstream *up, const char *before, const char *text)
{
	(void)conn_write(&up->conn, before, strlen(before));
	(void)conn_write(&up->conn, text, strlen(text));
	(void)conn_write(&up->conn, "\r\n", 2);
}

/* --- replies ------------------------------------------------------------- */

/* The code of a line "250 text" or "250-text" or "250"; -1 for another. */
static int
line_code(const struct conn_line *line)
{
	const char *t = line->text;

	if (line->too_long || line->malformed || line->len < 3 ||
	    t[0] < '2' || t[0] > '5' || !isdigit((unsigned char)t[1]) ||
	    !isdigit((unsigned char)t[2]) ||
	    (line->len > 3 && t[3] != ' ' && t[3] != '-'))
		return -1;
	return (t[0] - '0') * 100 + (t[1] - '0') * 10 + (t[2] - '0');
}

/* Adds a line to the words, with nothing in it that a terminal would obey. */
static bool
keep_words(struct upstream *up, size_t *used, const struct conn_line *line)
{
	size_t i;

	if (*used + line->len + 3 > sizeof(up->words))
		return false;
	for (i = 0; i < line->len; i++) {
		unsigned char ch = (unsigned char)line->text[i];

		up->words[(*used)++] = ch >= ' ' && ch < 0x7f ? (char)ch : '?';
	}
	up->words[(*used)++] = '\r';
	up->words[(*used)++] = '\n';
	up->words[*used] = '\0';
	return true;
}

/* What a line of EHLO's reply is for: NULL for other replies. */
typedef void offer_fn(struct upstream *up, const char *text);

/*
 * Reads one reply. Its code, or -1 with the reason set. With `offer` each
 * line of a 2xx is shown to it, and none is kept but the last.
 */
static int
read_reply(struct upstream *up, const char *step, offer_fn *offer)
{
	struct conn_line line;
	enum conn_result r;
	size_t used = 0;
	int n, code, first = 0;

	for (n = 0; n < REPLY_LINES_MAX; n++) {
		r = conn_read_line(&up->conn, up->conn.in_size, &line);
		if (r != CONN_OK) {
			(void)failed(up, step,
			    r == CONN_TIMEOUT ? "no reply in time"
					      : "connection lost");
			return -1;
		}
		code = line_code(&line);
		if (code == -1 || (n > 0 && code != first)) {
			(void)failed(up, step, "the reply is not SMTP");
			return -1;
		}
		first = code;
		if (offer != NULL && code / 100 == 2) {
			used = 0;
			if (n > 0 && line.len > 4)
				offer(up, line.text + 4);
		}
		if (!keep_words(up, &used, &line))
			break;
		if (line.text[3] != '-')
			return code;
	}
	(void)failed(up, step, "the reply is too long");
	return -1;
}

/* One reply whose code must be of the class of `want` (2 for 2xx). */
static enum upstream_result
expect_one(struct upstream *up, const char *step, int want, offer_fn *offer)
{
	int code = read_reply(up, step, offer);

	if (code == -1)
		return UPSTREAM_FAILED;
	if (code / 100 == want)
		return UPSTREAM_READY;
	(void)snprintf(up->reason, sizeof(up->reason), "%s: %.*s", step,
	    (int)strcspn(up->words, "\r"), up->words);
	return UPSTREAM_REFUSED;
}

/*
 * The same, and nothing behind it: a server that says more than it was asked
 * would be out of step from here on, and a stray 250 be taken for the answer to
 * the client's message.
 */
static enum upstream_result
expect(struct upstream *up, const char *step, int want, offer_fn *offer)
{
	enum upstream_result r = expect_one(up, step, want, offer);

	if (r != UPSTREAM_FAILED && conn_buffered(&up->conn) > 0)
		return failed(up, step, "it says more than it was asked");
	return r;
}

/* --- EHLO ---------------------------------------------------------------- */

static const char *
client_addr(const struct session *s, char *buf, size_t size)
{
	if (!s->peer.have_addr)
		return "[UNAVAILABLE]";
	(void)snprintf(buf, size, "%s%s",
	    strchr(s->peer.addr, ':') != NULL ? "IPV6:" : "", s->peer.addr);
	return buf;
}

static const char *
local_addr(const struct session *s, char *buf, size_t size)
{
	if (s->peer.local_addr[0] == '\0')
		return NULL;
	(void)snprintf(buf, size, "%s%s",
	    strchr(s->peer.local_addr, ':') != NULL ? "IPV6:" : "",
	    s->peer.local_addr);
	return buf;
}

static const char *
number(uint16_t n, char *buf, size_t size)
{
	if (n == 0)
		return NULL;
	(void)snprintf(buf, size, "%u", (unsigned)n);
	return buf;
}

static const char *
client_port(const struct session *s, char *buf, size_t size)
{
	return number(s->peer.port, buf, size);
}

static const char *
local_port(const struct session *s, char *buf, size_t size)
{
	return number(s->peer.local_port, buf, size);
}

static const char *
client_name(const struct session *s, char *buf, size_t size)
{
	(void)buf, (void)size;
	return s->peer.host;
}

static const char *
client_helo(const struct session *s, char *buf, size_t size)
{
	(void)buf, (void)size;
	return s->helo[0] != '\0' ? s->helo : NULL;
}

static const char *
client_protocol(const struct session *s, char *buf, size_t size)
{
	(void)buf, (void)size;
	return s->esmtp ? "ESMTP" : "SMTP";
}

/*
 * Whether AUTH tells the backend who the client is: by directive, or because the
 * provider leaves the last word on the password to the backend.
 */
static bool
needs_auth(const struct session *s)
{
	return s->mechanism != NULL &&
	    (s->conf->proxy_smtp_auth ||
		message_get(&s->verdict, M_BACKEND_AUTH) != NULL);
}

/*
 * Not where AUTH tells it: the two could part, and who is believed without a
 * password needs none.
 */
static const char *
client_login(const struct session *s, char *buf, size_t size)
{
	(void)buf, (void)size;
	if (s->mechanism == NULL || needs_auth(s))
		return NULL;
	return message_get(&s->verdict, M_USER);
}

static const struct attribute {
	const char *name;
	const char *(*value)(const struct session *s, char *buf, size_t size);
} attributes[] = {
    {"NAME", client_name},
    {"ADDR", client_addr},
    {"PORT", client_port},
    {"PROTO", client_protocol},
    {"HELO", client_helo},
    {"LOGIN", client_login},
    {"DESTADDR", local_addr},
    {"DESTPORT", local_port},
};

#define ATTRIBUTES (sizeof(attributes) / sizeof(attributes[0]))

/* A line of the reply to EHLO. */
static void
take_offer(struct upstream *up, const char *text)
{
	size_t i;

	if (text_equal(text, "PIPELINING"))
		up->pipelining = true;
	else if (text_equal(text, "STARTTLS"))
		up->starttls = true;
	else if (text_prefix(text, "AUTH ")) {
		up->auth_plain = text_has_word(text + 5, "PLAIN");
		up->auth_login = text_has_word(text + 5, "LOGIN");
	} else if (text_prefix(text, "XCLIENT ")) {
		for (i = 0; i < ATTRIBUTES; i++)
			if (text_has_word(text + 8, attributes[i].name))
				up->xclient |= 1u << i;
	}
}

/* 500, 502, 503: what a server says to what it does not know. */
static bool
is_unknown(const char *words)
{
	return strncmp(words, "50", 2) == 0 && strchr("023", words[2]) != NULL;
}

static enum upstream_result
hello_as(struct upstream *up, const char *verb, const char *name)
{
	enum upstream_result r;

	up->starttls = up->pipelining = false;
	up->auth_plain = up->auth_login = false;
	(void)conn_print(&up->conn, "%s %s\r\n", verb, name);
	r = expect(up, verb, 2, take_offer);
	/* No refusal, of nobody: the answer to a command that was none. */
	if (r == UPSTREAM_REFUSED && up->announced && is_unknown(up->words))
		return failed(up, verb,
		    "it takes the PROXY header for a command");
	up->announced = false;
	return r;
}

/* The client's own name, so that a backend without XCLIENT hears it too. */
static enum upstream_result
hello(struct session *s, struct upstream *up, const char *verb)
{
	return hello_as(
	    up, verb, s->helo[0] != '\0' ? s->helo : s->conf->server_name);
}

/* --- STARTTLS ------------------------------------------------------------ */

/*
 * Whoever is between could take the offer out, or answer for the server: where
 * TLS is asked for there is none to be had without it. What was offered in the
 * clear is forgotten (RFC 3207 section 4.2), and expect() sees to it that what
 * was said in the clear behind the answer is not taken for what is said in TLS
 * (CVE-2011-0411, the other way round).
 */
static enum upstream_result
secure(struct session *s, struct upstream *up)
{
	enum upstream_result r;

	r = hello_as(up, "EHLO", s->conf->server_name);
	if (r != UPSTREAM_READY)
		return r;
	if (!up->starttls)
		return failed(up, "STARTTLS", "the backend does not offer it");
	(void)conn_print(&up->conn, "STARTTLS\r\n");
	r = expect(up, "STARTTLS", 2, NULL);
	/* It has refused us, not the client. */
	up->words[0] = '\0';
	if (r != UPSTREAM_READY)
		return r;
	up->xclient = 0;
	return up->secure(up->secure_arg) == 0 ? UPSTREAM_READY
						: UPSTREAM_FAILED;
}

/* --- XCLIENT ------------------------------------------------------------- */

static enum upstream_result
send_attributes(struct upstream *up, const char *command)
{
	(void)conn_print(&up->conn, "%s\r\n", command);
	return expect(up, "XCLIENT", 2, NULL);
}

/*
 * A name that is too long when it is encoded is the client's doing: it may be
 * missed. A login may not.
 */
static bool
stands_in(const struct attribute *a, char *value, size_t size)
{
	return a->value == client_helo &&
	    text_copy(value, size, "[UNAVAILABLE]") == 0;
}

/* As many commands as it takes to hold each to its length. */
static enum upstream_result
xclient(struct session *s, struct upstream *up)
{
	char command[XCLIENT_MAX - 1] = "XCLIENT";
	char buf[INET6_ADDRSTRLEN + 8], value[XCLIENT_MAX - 32];
	const size_t empty = strlen(command);
	enum upstream_result r;
	size_t i, used = empty;
	const char *text;

	for (i = 0; i < ATTRIBUTES; i++) {
		if (!(up->xclient & 1u << i) ||
		    (text = attributes[i].value(s, buf, sizeof(buf))) == NULL)
			continue;
		if (text_xtext(text, value, sizeof(value)) == -1 &&
		    !stands_in(&attributes[i], value, sizeof(value)))
			return failed(up, "XCLIENT", "a value is too long");
		if (used + strlen(attributes[i].name) + strlen(value) + 3 >
		    sizeof(command)) {
			r = send_attributes(up, command);
			if (r != UPSTREAM_READY)
				return r;
			used = empty;
		}
		used += (size_t)snprintf(command + used,
		    sizeof(command) - used, " %s=%s", attributes[i].name,
		    value);
	}
	return used > empty ? send_attributes(up, command) : UPSTREAM_READY;
}

static enum upstream_result
present_client(struct session *s, struct upstream *up)
{
	enum upstream_result r;

	if (up->is_relay || s->conf->xclient == CONFIG_XCLIENT_OFF)
		return UPSTREAM_READY;
	if (up->xclient == 0) {
		if (s->conf->xclient == CONFIG_XCLIENT_AUTO)
			return UPSTREAM_READY;
		return failed(up, "XCLIENT", "the backend does not offer it");
	}
	up->committed = true;
	r = xclient(s, up);
	if (r != UPSTREAM_READY)
		return r;
	return hello(s, up, s->helo[0] != '\0' && !s->esmtp ? "HELO" : "EHLO");
}

/* --- AUTH ---------------------------------------------------------------- */

#define CREDENTIALS_MAX 1536

/* Sends one line of base64, and leaves no copy of it. */
static void
send_secret(
    struct upstream *up, const char *before, const char *data, size_t len)
{
	char encoded[TEXT_BASE64_SIZE(CREDENTIALS_MAX)];

	text_base64_encode(data, len, encoded);
	send_line(up, before, encoded);
	(void)conn_flush(&up->conn);
	explicit_bzero(up->conn.out, sizeof(up->conn.out));
	explicit_bzero(encoded, sizeof(encoded));
}

static enum upstream_result
auth_plain(struct upstream *up, const char *user, const char *password)
{
	char text[CREDENTIALS_MAX];
	int n;

	n = snprintf(text, sizeof(text), "%c%s%c%s", 0, user, 0, password);
	if (n < 0 || (size_t)n >= sizeof(text)) {
		explicit_bzero(text, sizeof(text));
		return failed(up, "AUTH", "the credentials are too long");
	}
	send_secret(up, "AUTH PLAIN ", text, (size_t)n);
	explicit_bzero(text, sizeof(text));
	return expect(up, "AUTH", 2, NULL);
}

static enum upstream_result
auth_login(struct upstream *up, const char *user, const char *password)
{
	enum upstream_result r;

	if (strlen(user) + strlen(password) > CREDENTIALS_MAX)
		return failed(up, "AUTH", "the credentials are too long");
	(void)conn_print(&up->conn, "AUTH LOGIN\r\n");
	r = expect(up, "AUTH", 3, NULL);
	if (r != UPSTREAM_READY)
		return r;
	send_secret(up, "", user, strlen(user));
	r = expect(up, "AUTH", 3, NULL);
	if (r != UPSTREAM_READY)
		return r;
	send_secret(up, "", password, strlen(password));
	return expect(up, "AUTH", 2, NULL);
}

static enum upstream_result
authenticate(struct session *s, struct upstream *up)
{
	const char *user = message_get(&s->verdict, M_BACKEND_USER);
	const char *password = message_get(&s->verdict, M_BACKEND_PASSWORD);

	if (up->is_relay || !needs_auth(s))
		return UPSTREAM_READY;
	up->committed = true;
	if (user == NULL)
		user = message_text(&s->verdict, M_USER);
	if (password == NULL)
		return failed(up, "AUTH", "there is no password to give");
	if (up->auth_plain || !up->auth_login)
		return auth_plain(up, user, password);
	return auth_login(up, user, password);
}

/* --- MAIL and RCPT ------------------------------------------------------- */

bool
upstream_has_envelope(const struct session *s)
{
	return s->mechanism == NULL || s->have_mail;
}

/*
 * Whatever the server says to MAIL and RCPT, it says to the client: as the
 * reply to RCPT, MAIL having been answered. Only its silence is a failure.
 */
static enum upstream_result
present_envelope(struct session *s, struct upstream *up)
{
	enum upstream_result r;
	char refusal[UPSTREAM_WORDS];

	if (!upstream_has_envelope(s))
		return UPSTREAM_READY;
	up->committed = true;
	send_line(up, "MAIL ", s->mail);
	if (s->mechanism != NULL) {
		r = expect(up, "MAIL", 2, NULL);
		return r == UPSTREAM_FAILED ? r : UPSTREAM_READY;
	}
	if (up->pipelining)
		send_line(up, "RCPT ", s->rcpt);
	r = expect_one(up, "MAIL", 2, NULL);
	if (r == UPSTREAM_REFUSED && up->pipelining) {
		(void)text_copy(refusal, sizeof(refusal), up->words);
		/* A 421 may be its last word. */
		(void)read_reply(up, "RCPT", NULL);
		(void)text_copy(up->words, sizeof(up->words), refusal);
	}
	if (r == UPSTREAM_READY) {
		if (!up->pipelining)
			send_line(up, "RCPT ", s->rcpt);
		r = expect(up, "RCPT", 2, NULL);
	}
	return r == UPSTREAM_FAILED ? r : UPSTREAM_READY;
}

/* ------------------------------------------------------------------------- */

enum upstream_result
upstream_introduce(struct session *s, struct upstream *up)
{
	static const struct {
		enum upstream_result (*step)(
		    struct session *s, struct upstream *up);
	} steps[] = {{present_client}, {authenticate}, {present_envelope}};
	enum upstream_result r;
	size_t i;
	int more;

	up->words[0] = up->reason[0] = '\0';
	r = expect(up, "greeting", 2, NULL);
	if (r == UPSTREAM_READY && up->secure != NULL)
		r = secure(s, up);
	if (r == UPSTREAM_READY)
		r = hello(s, up, "EHLO");
	for (i = 0; r == UPSTREAM_READY && i < sizeof(steps) / sizeof(steps[0]);
	     i++)
		r = steps[i].step(s, up);
	/* Before the client hears anything of it, once more. */
	more = r == UPSTREAM_READY ? conn_peek(&up->conn) : 0;
	if (more > 0)
		return failed(up, "hand-over", "it says more than it was asked");
	/* Its words about an envelope, maybe a 421, are for the client. */
	if (more < 0 && !upstream_has_envelope(s))
		return failed(up, "hand-over", "connection lost");
	return r;
}

void
upstream_leave(struct upstream *up)
{
	if (up->conn.failed || up->conn.eof)
		return;
	(void)conn_print(&up->conn, "QUIT\r\n");
	conn_linger(&up->conn, 500);
}
