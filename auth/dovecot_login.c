/*
 * One login, from AUTH to the server's last word. A connection belongs to it
 * until it is over, for an answer must never be taken for another's; then it may
 * serve the next one. A login that is left unfinished ends with its connection.
 */
#include <string.h>

#include "lib/clock.h"
#include "lib/text.h"

#include "auth/dovecot.h"

/* How long reaching the server may take, its greeting included. */
#define REACH_MS 10000

/*
 * A connection is used no longer than this: after a reload, Dovecot goes on to
 * judge by its old settings on those that it has.
 */
#define KEEP_MS 60000

/* Lines that are no answer to us; a server that says more talks without end. */
#define LINES_MAX 64

#define DECODED_SIZE (DOVECOT_LINE_SIZE / 4 * 3)

/* --- connections --------------------------------------------------------- */

struct dovecot_conn *
dovecot_login_take(struct dovecot *p, bool *kept, int64_t deadline, char *err)
{
	struct dovecot_conn *c = p->spare;
	int64_t reached = clock_in(REACH_MS);

	p->spare = NULL;
	*kept = c != NULL && clock_ms() - c->opened < KEEP_MS &&
	    dovecot_conn_is_quiet(c);
	if (*kept)
		return c;
	dovecot_conn_close(c);
	return dovecot_conn_open(p->where, p->conf->resolver,
	    reached < deadline ? reached : deadline, err);
}

void
dovecot_login_leave(struct dovecot *p, struct dovecot_conn *c)
{
	if (p->spare != NULL || !dovecot_conn_is_quiet(c)) {
		dovecot_conn_close(c);
		return;
	}
	dovecot_conn_wipe(c);
	p->spare = c;
}

/* --- one question, and what is answered ---------------------------------- */

static enum auth_result
lose(struct dovecot_login *x, struct message *verdict, const char *why)
{
	x->lost = true;
	return dovecot_reply_unavailable(verdict, why);
}

/* Whether a line is about this exchange: OK, FAIL or CONT with its number. */
static bool
is_answer(const struct dovecot_login *x, const struct dovecot_line *line)
{
	uint64_t id;

	return (dovecot_line_is(line, "OK", 2) ||
		   dovecot_line_is(line, "FAIL", 2) ||
		   dovecot_line_is(line, "CONT", 2)) &&
	    text_number(line->field[1], UINT32_MAX, &id) == 0 && id == x->id;
}

/* The bytes behind `encoded` become a challenge. */
static enum auth_result
challenge(struct dovecot_login *x, const char *encoded, struct message *verdict)
{
	unsigned char bytes[DECODED_SIZE];
	size_t len = strlen(encoded);

	if (text_base64_decode(encoded, len, bytes, &len) == -1)
		return lose(x, verdict, "its challenge is not base64");
	message_put_bytes(verdict, M_CHALLENGE, bytes, len);
	return AUTH_CHALLENGE;
}

/*
 * "CONT id # channel_binding=type": the server asks for what both ends of the
 * client's TLS know. -1 when there is no such thing.
 */
static int
give_binding(struct dovecot_login *x, const struct dovecot_line *line,
    int64_t deadline, char *err)
{
	static struct dovecot_binding none;
	const char *type = dovecot_line_value(line, 3, "channel_binding");
	const struct dovecot_binding *b = &none;
	struct dovecot_command c;

	if (type != NULL && strcmp(type, "tls-exporter") == 0)
		b = &x->exporter;
	if (type != NULL && strcmp(type, "tls-server-end-point") == 0)
		b = &x->end_point;
	if (b->len == 0) {
		(void)text_copy(err, AUTH_ERROR_SIZE,
		    "it asks for a channel binding that is not to be had");
		return -1;
	}
	dovecot_line_begin(&c, "CONT", x->id);
	dovecot_line_word(&c, "#");
	dovecot_line_base64(&c, "channel_binding=", b->bytes, b->len);
	dovecot_line_end(&c);
	return dovecot_conn_send(x->conn, &c, deadline, err);
}

/*
 * A last word of the mechanism's is no more than one challenge to SMTP (RFC 4954
 * section 4). Dovecot makes it one by itself, as AUTH does not say
 * "final-resp-ok"; a server that sends it along with OK is understood, too.
 */
static enum auth_result
hear_ok(struct dovecot_login *x, const struct dovecot_line *line,
    const struct message *question, struct message *verdict)
{
	const char *last = dovecot_line_value(line, 2, "resp");

	if (last != NULL && *last != '\0' &&
	    challenge(x, last, verdict) != AUTH_CHALLENGE)
		return AUTH_UNAVAILABLE;
	return dovecot_reply_ok(line, question, verdict);
}

/* Waits for what the server says to this exchange. */
static enum auth_result
hear(struct dovecot_login *x, const struct message *question,
    struct message *verdict, int64_t deadline)
{
	char err[AUTH_ERROR_SIZE];
	struct dovecot_line line;
	int i;

	for (i = 0; i < LINES_MAX; i++) {
		if (dovecot_conn_receive(x->conn, &line, deadline, err) == -1)
			return lose(x, verdict, err);
		if (!is_answer(x, &line))
			continue;
		x->heard = true;
		if (dovecot_line_is(&line, "OK", 2))
			return hear_ok(x, &line, question, verdict);
		if (dovecot_line_is(&line, "FAIL", 2))
			return dovecot_reply_fail(&line, verdict);
		if (line.count == 2 || strcmp(line.field[2], "#") != 0)
			return challenge(x,
			    line.count > 2 ? line.field[2] : "", verdict);
		if (give_binding(x, &line, deadline, err) == -1)
			return lose(x, verdict, err);
	}
	return lose(x, verdict, "it talks without an answer");
}

/* Sends a line, which ends here with the secrets in it, and waits. */
static enum auth_result
ask(struct dovecot_login *x, struct dovecot_command *c,
    const struct message *question, struct message *verdict, int64_t deadline)
{
	char err[AUTH_ERROR_SIZE];
	int sent;

	dovecot_line_end(c);
	sent = dovecot_conn_send(x->conn, c, deadline, err);
	explicit_bzero(c, sizeof(*c));
	return sent == 0 ? hear(x, question, verdict, deadline)
			 : lose(x, verdict, err);
}

/* --- the beginning of a login -------------------------------------------- */

/*
 * Why the server's mechanism is not for this session: one of FAIL's codes.
 * NULL: it is. The server hangs up on whoever asks for one that it has not.
 */
static const char *
unfit(const struct dovecot_login *x, const struct message *question)
{
	const struct dovecot_mechanism *m =
	    dovecot_conn_mechanism(x->conn, x->mechanism);

	if (m == NULL || (m->flags & DOVECOT_PRIVATE))
		return "auth_mech_invalid";
	if (m->flags & DOVECOT_ANONYMOUS)
		return "anonymous_denied";
	if ((m->flags & DOVECOT_BINDING) && x->exporter.len == 0 &&
	    x->end_point.len == 0)
		return "auth_mech_invalid";
	/* PLAIN in the clear is for the directives to forbid: judge(). */
	if ((m->flags & DOVECOT_PLAINTEXT) && strcmp(m->name, "PLAIN") != 0 &&
	    !dovecot_question_is_secured(question))
		return "auth_mech_ssl_required";
	return NULL;
}

static enum auth_result
try_once(struct dovecot_login *x, const struct message *question,
    struct dovecot_bytes response, struct message *verdict, int64_t deadline)
{
	const char *code = unfit(x, question);
	struct dovecot_command c;

	if (code != NULL)
		return dovecot_reply_refuse(code, verdict);
	x->id = ++x->conn->last_id;
	dovecot_question_begin(&c, x->id, x->mechanism, question);
	/* It must be the last one. */
	if (response.data != NULL)
		dovecot_line_base64(
		    &c, "resp=", response.data, response.len);
	return ask(x, &c, question, verdict, deadline);
}

static void
keep_binding(struct dovecot_binding *to, const struct message *question,
    enum message_field f)
{
	size_t len = 0;
	const void *bytes = message_get_bytes(question, f, &len);

	if (bytes == NULL || len > sizeof(to->bytes))
		return;
	memcpy(to->bytes, bytes, len);
	to->len = len;
}

/*
 * A connection that was kept may turn out closed (Dovecot was restarted): then
 * once more, as long as nothing was answered.
 */
enum auth_result
dovecot_login_begin(struct dovecot *p, struct dovecot_login *x,
    const struct message *question, struct dovecot_bytes response,
    struct message *verdict)
{
	int64_t deadline = clock_in(p->conf->auth_timeout);
	char err[AUTH_ERROR_SIZE];
	enum auth_result result;
	bool kept;

	keep_binding(&x->exporter, question, M_BINDING_EXPORTER);
	keep_binding(&x->end_point, question, M_BINDING_END_POINT);
	for (;;) {
		x->conn = dovecot_login_take(p, &kept, deadline, err);
		if (x->conn == NULL)
			return lose(x, verdict, err);
		result =
		    try_once(x, question, response, verdict, deadline);
		if (!x->lost || x->heard || !kept ||
		    clock_left(deadline) == 0)
			return result;
		dovecot_conn_close(x->conn);
		x->lost = false;
		message_init(verdict, verdict->type);
	}
}

enum auth_result
dovecot_login_go_on(struct dovecot *p, struct dovecot_login *x,
    const struct message *question, struct dovecot_bytes response,
    struct message *verdict)
{
	struct dovecot_command c;

	if (x->conn == NULL)
		return dovecot_reply_unavailable(verdict, "it is over");
	dovecot_line_begin(&c, "CONT", x->id);
	dovecot_line_base64(&c, "", response.data, response.len);
	return ask(
	    x, &c, question, verdict, clock_in(p->conf->auth_timeout));
}

void
dovecot_login_end(struct dovecot *p, struct dovecot_login *x, bool over)
{
	if (x->conn != NULL && over && !x->lost)
		dovecot_login_leave(p, x->conn);
	else
		dovecot_conn_close(x->conn);
	x->conn = NULL;
}
