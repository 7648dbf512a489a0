/*
 * Every text that a client is told by the dialogue, and the ways to tell it.
 * (greeting.c has the one refusal of its own.)
 */
#ifndef SMTP_REPLY_H
#define SMTP_REPLY_H

#include "smtp.h"

enum smtp_reply {
	REPLY_HELP,
	REPLY_TLS_READY,
	REPLY_BYE,
	REPLY_AUTH_OK,
	REPLY_OK,
	REPLY_MAIL_OK,
	REPLY_VRFY,
	REPLY_TOO_MANY_CONNECTIONS,
	REPLY_TOO_MANY_FROM_SOURCE,
	REPLY_NO_CERTIFICATE,
	REPLY_BAD_CERTIFICATE,
	REPLY_STOPPING,
	REPLY_TOO_MANY_ERRORS,
	REPLY_TOO_MANY_COMMANDS,
	REPLY_TOO_MANY_ATTEMPTS,
	REPLY_TIMEOUT,
	REPLY_UPSTREAM_AWAY,
	REPLY_UPSTREAM_LOST,
	REPLY_UPSTREAM_IDLE,
	REPLY_UPSTREAM_FAILED,
	REPLY_TLS_AWAY,
	REPLY_AUTH_UNAVAILABLE,
	REPLY_UNKNOWN_COMMAND,
	REPLY_BAD_LINE_END,
	REPLY_LINE_TOO_LONG,
	REPLY_NOT_HTTP,
	REPLY_NOT_TLS,
	REPLY_BAD_ARGUMENT,
	REPLY_AUTH_SERVER_FIRST,
	REPLY_AUTH_MALFORMED,
	REPLY_AUTH_CANCELLED,
	REPLY_EXPN,
	REPLY_BAD_SEQUENCE,
	REPLY_NOT_YET,
	REPLY_TLS_NOT_OFFERED,
	REPLY_AUTH_IN_MAIL,
	REPLY_AUTH_UNKNOWN,
	REPLY_TLS_FIRST,
	REPLY_AUTH_FIRST,
	REPLY_AUTH_DENIED,
	REPLY_AUTH_NEEDS_TLS,
	REPLY_RECIPIENT_DENIED,
	SMTP_REPLIES
};

/* The reply's line, with CRLF. */
const char *smtp_reply(enum smtp_reply reply);

/* Queues a reply. */
void smtp_say(struct session *s, enum smtp_reply reply);

/*
 * Queues a refusal, and counts it: guessing and probing end with a 421 at
 * max_errors. SMTP_GO_ON, or SMTP_OVER when that was the end.
 */
enum smtp_event smtp_refuse(struct session *s, enum smtp_reply reply);

/* The same in words that are not ours: lines with CRLF. A 421 is an end. */
enum smtp_event smtp_refuse_words(struct session *s, const char *words);

/* Ends the dialogue for `cause`, with a reply or in silence: SMTP_OVER. */
enum smtp_event smtp_end(
    struct session *s, enum smtp_reply reply, const char *cause);
enum smtp_event smtp_over(struct session *s, const char *cause);

/* The end that a read without a line means: 421 for a timeout. */
enum smtp_event smtp_no_line(struct session *s, enum conn_result r);

#endif
