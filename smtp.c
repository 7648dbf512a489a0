/*
 * The dialogue: one table of commands, one function each. Called by session.c;
 * what needs credentials is in smtp_auth.c, every text in smtp_reply.c.
 */
#include <string.h>

#include "lib/text.h"
#include "smtp_auth.h"
#include "smtp_offer.h"
#include "smtp_reply.h"

#include "smtp.h"

/* The first octet of a TLS record that holds a ClientHello. */
#define TLS_HANDSHAKE 0x16

/* Commands a client may give before hand-over; endless talk holds a process. */
#define COMMANDS_MAX 1000

void
smtp_greet(struct session *s)
{
	(void)conn_print(
	    &s->client, "220 %s ESMTP ready\r\n", s->conf->server_name);
}

static bool
is_open(const struct session *s)
{
	return (s->conf->smtp_auth & CONFIG_AUTH_NONE) != 0;
}

/* --- EHLO and the simple commands ---------------------------------------- */

/* A reply of several lines: the one before is written when the next comes. */
struct lines {
	struct session *s;
	char last[1024];
};

static void
add_line(struct lines *l, const char *text)
{
	if (l->last[0] != '\0')
		(void)conn_print(&l->s->client, "250-%s\r\n", l->last);
	(void)text_copy(l->last, sizeof(l->last), text);
}

/* One argument without blanks or control characters, RFC 5321 4.1.1.1. */
static bool
is_helo_name(const char *arg)
{
	const unsigned char *p = (const unsigned char *)arg;

	for (; *p != '\0'; p++)
		if (*p <= ' ' || *p == 0x7f)
			return false;
	return p != (const unsigned char *)arg;
}

/* Takes the client's name, and forgets its transaction (RFC 5321 4.1.4). */
static bool
take_hello(struct session *s, const char *arg, bool esmtp)
{
	char name[sizeof(s->helo)];

	if (!is_helo_name(arg) || text_copy(name, sizeof(name), arg) == -1)
		return false;
	memcpy(s->helo, name, sizeof(name));
	s->esmtp = esmtp;
	s->have_mail = false;
	return true;
}

static enum smtp_event
cmd_helo(struct session *s, char *arg)
{
	if (!take_hello(s, arg, false))
		return smtp_refuse(s, REPLY_BAD_ARGUMENT);
	(void)conn_print(&s->client, "250 %s\r\n", s->conf->server_name);
	return SMTP_GO_ON;
}

static enum smtp_event
cmd_ehlo(struct session *s, char *arg)
{
	struct lines lines = {.s = s};
	char line[192]; /* all that there are take 120 */
	size_t i;

	if (!take_hello(s, arg, true))
		return smtp_refuse(s, REPLY_BAD_ARGUMENT);
	add_line(&lines, s->conf->server_name);
	for (i = 0; i < s->conf->smtp_capabilities.count; i++)
		add_line(&lines, s->conf->smtp_capabilities.word[i]);
	if (!smtp_needs_tls(s) && smtp_offer_line(s, line, sizeof(line)))
		add_line(&lines, line);
	if (s->conf->starttls != CONFIG_STARTTLS_OFF && s->tls == NULL)
		add_line(&lines, "STARTTLS");
	(void)conn_print(&s->client, "250 %s\r\n", lines.last);
	return SMTP_GO_ON;
}

static enum smtp_event
cmd_noop(struct session *s, char *arg)
{
	(void)arg;
	smtp_say(s, REPLY_OK);
	return SMTP_GO_ON;
}

static enum smtp_event
cmd_rset(struct session *s, char *arg)
{
	s->have_mail = false;
	return cmd_noop(s, arg);
}

static enum smtp_event
cmd_quit(struct session *s, char *arg)
{
	(void)arg;
	return smtp_end(s, REPLY_BYE, "quit");
}

static enum smtp_event
cmd_vrfy(struct session *s, char *arg)
{
	(void)arg;
	smtp_say(s, REPLY_VRFY);
	return SMTP_GO_ON;
}

static enum smtp_event
cmd_expn(struct session *s, char *arg)
{
	(void)arg;
	return smtp_refuse(s, REPLY_EXPN);
}

static enum smtp_event
cmd_help(struct session *s, char *arg)
{
	(void)arg;
	smtp_say(s, REPLY_HELP);
	return SMTP_GO_ON;
}

static enum smtp_event
cmd_http(struct session *s, char *arg)
{
	(void)arg;
	/* A browser made to speak to us (ALPACA) gets no second line. */
	return smtp_end(s, REPLY_NOT_HTTP, "http");
}

static enum smtp_event
cmd_starttls(struct session *s, char *arg)
{
	if (*arg != '\0')
		return smtp_refuse(s, REPLY_BAD_ARGUMENT);
	if (s->conf->starttls == CONFIG_STARTTLS_OFF || s->tls != NULL)
		return smtp_refuse(s, REPLY_TLS_NOT_OFFERED);
	return SMTP_STARTTLS;
}

void
smtp_starttls(struct session *s, bool ready)
{
	if (!ready) {
		(void)smtp_refuse(s, REPLY_TLS_AWAY);
		return;
	}
	smtp_say(s, REPLY_TLS_READY);
	(void)conn_flush(&s->client);
	/* Plaintext behind STARTTLS is not the TLS client's (RFC 3207 6). */
	conn_forget_input(&s->client);
	s->helo[0] = '\0';
	s->esmtp = false;
	s->have_mail = false;
}

/* --- MAIL and RCPT, with `none` ------------------------------------------ */

static enum smtp_event
data_refusal(struct session *s)
{
	if (smtp_needs_tls(s))
		return smtp_refuse(s, REPLY_TLS_FIRST);
	return smtp_refuse(s, REPLY_NOT_YET);
}

static enum smtp_event
cmd_mail(struct session *s, char *arg)
{
	bool implicit = !s->have_mail && smtp_auth_is_implicit(s);

	if (!is_open(s) && !implicit)
		return smtp_refuse(s, REPLY_AUTH_FIRST);
	if (s->have_mail)
		return smtp_refuse(s, REPLY_BAD_SEQUENCE);
	if (!text_prefix(arg, "FROM:") ||
	    text_copy(s->mail, sizeof(s->mail), arg) == -1)
		return smtp_refuse(s, REPLY_BAD_ARGUMENT);
	if (implicit)
		return smtp_auth_implicit(s);
	s->have_mail = true;
	smtp_say(s, REPLY_MAIL_OK);
	return SMTP_GO_ON;
}

static enum smtp_event
cmd_data(struct session *s, char *arg)
{
	(void)arg;
	return data_refusal(s);
}

/* RFC 3030: the chunk follows its command whatever the reply is. */
static enum smtp_event
cmd_bdat(struct session *s, char *arg)
{
	enum conn_result r;
	char size[24];
	const char *rest = arg;
	uint64_t n;

	if (text_word(&rest, size, sizeof(size)) != 1 ||
	    text_number(size, INT64_MAX, &n) == -1)
		return smtp_refuse(s, REPLY_BAD_ARGUMENT);
	r = conn_skip(&s->client, n);
	return r == CONN_OK ? data_refusal(s) : smtp_no_line(s, r);
}

static enum smtp_event
cmd_rcpt(struct session *s, char *arg)
{
	if (!is_open(s))
		return smtp_refuse(s, REPLY_AUTH_FIRST);
	if (!s->have_mail)
		return smtp_refuse(s, REPLY_BAD_SEQUENCE);
	if (!text_prefix(arg, "TO:") ||
	    text_copy(s->rcpt, sizeof(s->rcpt), arg) == -1)
		return smtp_refuse(s, REPLY_BAD_ARGUMENT);
	return smtp_auth_envelope(s);
}

void
smtp_welcome(struct session *s)
{
	smtp_say(s, REPLY_AUTH_OK);
}

enum smtp_event
smtp_pass_on(struct session *s, const char *words)
{
	(void)conn_write(&s->client, words, strlen(words));
	return strncmp(words, "421", 3) == 0 ? smtp_over(s, "upstream")
					     : SMTP_GO_ON;
}

enum smtp_event
smtp_upstream_refused(struct session *s, const char *words)
{
	/* A MAIL that was to be its first command has not been taken. */
	if (s->mechanism != NULL)
		s->have_mail = false;
	s->mechanism = NULL;
	if (words == NULL)
		return smtp_refuse(s, REPLY_UPSTREAM_FAILED);
	return smtp_refuse_words(s, words);
}

/* --- the commands -------------------------------------------------------- */

enum command_flag {
	CLEAR = 1u << 0, /* allowed in the clear with `starttls only` */
};

static const struct command {
	const char *verb;
	unsigned flags;
	enum smtp_event (*run)(struct session *s, char *arg);
} commands[] = {
    {"EHLO", CLEAR, cmd_ehlo},
    {"HELO", CLEAR, cmd_helo},
    {"STARTTLS", CLEAR, cmd_starttls},
    {"AUTH", CLEAR, smtp_auth}, /* refuses by itself, with 538 */
    {"MAIL", 0, cmd_mail},
    {"RCPT", 0, cmd_rcpt},
    {"DATA", 0, cmd_data},
    {"BDAT", CLEAR, cmd_bdat}, /* refuses by itself, behind its chunk */
    {"NOOP", CLEAR, cmd_noop},
    {"RSET", CLEAR, cmd_rset},
    {"QUIT", CLEAR, cmd_quit},
    {"VRFY", 0, cmd_vrfy},
    {"EXPN", 0, cmd_expn},
    {"HELP", 0, cmd_help},
    {"GET", CLEAR, cmd_http},
    {"HEAD", CLEAR, cmd_http},
    {"POST", CLEAR, cmd_http},
    {"PUT", CLEAR, cmd_http},
    {"OPTIONS", CLEAR, cmd_http},
    {"CONNECT", CLEAR, cmd_http},
};

static const struct command *
find_command(const char *verb)
{
	size_t i;

	for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (text_equal(commands[i].verb, verb))
			return &commands[i];
	return NULL;
}

/* Splits off the verb; the argument loses the blanks around it. */
static char *
split_verb(struct conn_line *line)
{
	char *arg, *end = line->text + line->len;

	while (end > line->text && end[-1] == ' ')
		*--end = '\0';
	arg = line->text + strcspn(line->text, " ");
	if (*arg != '\0')
		*arg++ = '\0';
	return arg + strspn(arg, " ");
}

/* Only AUTH may be longer than the buffer for commands is said to be. */
static bool
is_too_long(const struct session *s, const struct conn_line *line)
{
	return line->too_long ||
	    (line->len + 2 > s->conf->smtp_client_buffer &&
		!text_prefix(line->text, "AUTH "));
}

static enum smtp_event
run_command(struct session *s, struct conn_line *line)
{
	const struct command *command;
	char *arg;

	if (++s->commands > COMMANDS_MAX) {
		return smtp_end(s, REPLY_TOO_MANY_COMMANDS, "commands");
	}
	if (is_too_long(s, line))
		return smtp_refuse(s, REPLY_LINE_TOO_LONG);
	if (line->malformed)
		return smtp_refuse(s, REPLY_BAD_LINE_END);
	arg = split_verb(line);
	command = find_command(line->text);
	if (command == NULL)
		return smtp_refuse(s,
		    smtp_needs_tls(s) ? REPLY_TLS_FIRST
				      : REPLY_UNKNOWN_COMMAND);
	if (smtp_needs_tls(s) && !(command->flags & CLEAR))
		return smtp_refuse(s, REPLY_TLS_FIRST);
	return command->run(s, arg);
}

static size_t
line_max(const struct session *s)
{
	return s->conf->smtp_client_buffer > SASL_LINE_MAX
	    ? s->conf->smtp_client_buffer
	    : SASL_LINE_MAX;
}

/* A TLS client on a port that speaks first would wait for us, and we for it. */
static bool
is_tls_hello(struct session *s)
{
	return s->commands == 0 && s->tls == NULL &&
	    conn_await(&s->client) == CONN_OK &&
	    s->client.in[s->client.in_start] == TLS_HANDSHAKE;
}

enum smtp_event
smtp_converse(struct session *s)
{
	enum smtp_event event;
	enum conn_result r;
	struct conn_line line;

	do {
		conn_set_timeout(&s->client, s->conf->timeout);
		if (is_tls_hello(s)) {
			return smtp_end(s, REPLY_NOT_TLS, "tls");
		}
		r = conn_read_line(&s->client, line_max(s), &line);
		if (r != CONN_OK)
			return smtp_no_line(s, r);
		event = run_command(s, &line);
	} while (event == SMTP_GO_ON);
	return event;
}
