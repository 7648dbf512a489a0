/*
 * The inside of the provider auth-dovecot: what its files owe each other. They
 * are dovecot*.c's alone.
 *
 *	dovecot		  the provider: judges, lists mechanisms, runs exchanges
 *	dovecot_conn	  a connection to the auth server, and its handshake
 *	dovecot_login	  one login: AUTH, and what is said until it is over
 *	dovecot_line	  the lines of the protocol, both ways
 *	dovecot_question  what is told of a session with AUTH
 *	dovecot_reply	  what is believed of OK and FAIL
 */
#ifndef AUTH_DOVECOT_H
#define AUTH_DOVECOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/provider.h"

/* auth/dovecot_line.c */

/* AUTH_CLIENT_MAX_LINE_LENGTH of Dovecot's own, for both directions. */
#define DOVECOT_LINE_SIZE 16384

/* A passdb may add fields of its own to a reply; nobody adds that many. */
#define DOVECOT_FIELDS_MAX 128

/* A line that came: its fields, the first of which is the command. */
struct dovecot_line {
	size_t count;
	const char *field[DOVECOT_FIELDS_MAX];
};

/*
 * Takes a line apart in its place, without its LF, of `len` octets and one more
 * that is overwritten. 0, or -1 when it is none: too many fields, a NUL, an
 * escape without its letter.
 */
int dovecot_line_parse(struct dovecot_line *to, char *text, size_t len);

/* Whether the line's command is this one, with at least so many fields. */
bool dovecot_line_is(
    const struct dovecot_line *line, const char *command, size_t fields);

/*
 * The value of the field `key`, of those from number `from` on: "" where it
 * stands alone, NULL where it is not there. Of several the last one counts, as
 * it does with Dovecot's own programs.
 */
const char *dovecot_line_value(
    const struct dovecot_line *line, size_t from, const char *key);

/* A line to be sent. It may hold a password: wipe it. */
struct dovecot_command {
	size_t len;
	bool overflow; /* it has become too long, and must not be sent */
	char text[DOVECOT_LINE_SIZE];
};

/* "AUTH" and the like, and the number of the request. */
void dovecot_line_begin(
    struct dovecot_command *c, const char *name, uint32_t id);

/* One more field: a word, or with `value` (which may be NULL) key=value. */
void dovecot_line_word(struct dovecot_command *c, const char *word);
void dovecot_line_field(
    struct dovecot_command *c, const char *key, const char *value);

/* The same in base64, behind `key`, which has its '=' where there is to be one. */
void dovecot_line_base64(struct dovecot_command *c, const char *key,
    const void *data, size_t len);

void dovecot_line_end(struct dovecot_command *c);

/* auth/dovecot_conn.c */

#define DOVECOT_MECHANISMS_MAX	   64
#define DOVECOT_MECHANISM_SIZE	   32

/* What the server says of a mechanism. */
enum dovecot_mechanism_flag {
	DOVECOT_PRIVATE = 1u << 0,   /* not to be offered */
	DOVECOT_PLAINTEXT = 1u << 1, /* shows the secret: for TLS alone */
	DOVECOT_ANONYMOUS = 1u << 2,
	DOVECOT_BINDING = 1u << 3    /* is bound to the TLS channel */
};

struct dovecot_mechanism {
	char name[DOVECOT_MECHANISM_SIZE];
	unsigned flags; /* enum dovecot_mechanism_flag */
};

/* One connection, on which one question at a time is asked. */
struct dovecot_conn {
	int fd;
	int64_t opened; /* lib/clock.h */
	uint32_t last_id;
	size_t count;
	struct dovecot_mechanism mechanism[DOVECOT_MECHANISMS_MAX];
	size_t start, end; /* unread: in[start, end) */
	char in[DOVECOT_LINE_SIZE + 1];
};

/*
 * Connects to a path, host:port or [v6]:port and shakes hands, by `deadline`.
 * NULL with a line in `err` (AUTH_ERROR_SIZE octets).
 */
struct dovecot_conn *dovecot_conn_open(
    const char *where, const char *resolver, int64_t deadline, char *err);

/* Wipes what was read, closes and frees it; NULL is allowed. */
void dovecot_conn_close(struct dovecot_conn *c);

/*
 * Whether it may be used for another question: the server has not left, and
 * has said nothing that it was not asked.
 */
bool dovecot_conn_is_quiet(const struct dovecot_conn *c);

/* NULL: the server has no such mechanism. */
const struct dovecot_mechanism *dovecot_conn_mechanism(
    const struct dovecot_conn *c, const char *name);

/* Sends a line by `deadline`. 0, or -1 with a line in `err`. */
int dovecot_conn_send(struct dovecot_conn *c,
    const struct dovecot_command *command, int64_t deadline, char *err);

/*
 * Reads a line by `deadline`; its fields are in the connection's buffer until
 * the next call. 0, or -1 with a line in `err`: it is over.
 */
int dovecot_conn_receive(struct dovecot_conn *c, struct dovecot_line *line,
    int64_t deadline, char *err);

/* Overwrites what was read: a reply may hold the password for a backend. */
void dovecot_conn_wipe(struct dovecot_conn *c);

/* auth/dovecot_question.c */

/* Whether nobody can read along on the way from the client. */
bool dovecot_question_is_secured(const struct message *question);

/*
 * The line that begins `mechanism`, but for the initial response and the line's
 * end.
 */
void dovecot_question_begin(struct dovecot_command *c, uint32_t id,
    const char *mechanism, const struct message *question);

/* auth/dovecot_reply.c */

/*
 * The verdict that follows from OK or FAIL. `question` has M_PASSWORD where
 * there is one to be had.
 */
enum auth_result dovecot_reply_ok(const struct dovecot_line *line,
    const struct message *question, struct message *verdict);
enum auth_result dovecot_reply_fail(
    const struct dovecot_line *line, struct message *verdict);

/* A refusal by one of FAIL's codes that is our own. */
enum auth_result dovecot_reply_refuse(
    const char *code, struct message *verdict);

/* There is no verdict, and why. */
enum auth_result dovecot_reply_unavailable(
    struct message *verdict, const char *why);

/* auth/dovecot_login.c */

struct dovecot {
	const struct config *conf;
	const char *where; /* in the value of the directive */
	struct dovecot_conn *spare; /* between two uses; NULL */
};

/* The longest channel binding is a SHA-512 (RFC 5929 section 4.1). */
struct dovecot_binding {
	size_t len; /* 0: there is none */
	unsigned char bytes[64];
};

/* All octets zero at first, but for the mechanism. */
struct dovecot_login {
	char mechanism[DOVECOT_MECHANISM_SIZE];
	struct dovecot_conn *conn;
	uint32_t id;
	bool heard; /* the server has said something to it */
	bool lost;  /* the connection, or the server's senses */
	struct dovecot_binding exporter, end_point;
};

/* A response; `data` NULL: there is none. */
struct dovecot_bytes {
	const void *data;
	size_t len;
};

/*
 * A connection for a new question, by `deadline`; *kept when it has served
 * others before. NULL with a line in `err`.
 */
struct dovecot_conn *dovecot_login_take(
    struct dovecot *p, bool *kept, int64_t deadline, char *err);

/* Nothing is asked on it any more: it is kept, or closed. */
void dovecot_login_leave(struct dovecot *p, struct dovecot_conn *c);

/*
 * Begins a login, or goes on with the client's response to a challenge; by
 * auth_timeout. Results and `verdict` are those of an exchange (provider.h).
 */
enum auth_result dovecot_login_begin(struct dovecot *p,
    struct dovecot_login *x, const struct message *question,
    struct dovecot_bytes response, struct message *verdict);
enum auth_result dovecot_login_go_on(struct dovecot *p,
    struct dovecot_login *x, const struct message *question,
    struct dovecot_bytes response, struct message *verdict);

/*
 * Ends it. Where it is over its connection serves others, unless that is lost;
 * else the server would go on with it.
 */
void dovecot_login_end(struct dovecot *p, struct dovecot_login *x, bool over);

#endif
