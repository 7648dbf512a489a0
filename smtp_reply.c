/*
 * The replies' table. All have the enhanced codes of RFC 3463 and RFC 5248.
 */
#include <string.h>

#include "smtp_reply.h"

static const char *const replies[SMTP_REPLIES] = {
    [REPLY_HELP] = "214 2.0.0 See RFC 5321\r\n",
    [REPLY_TLS_READY] = "220 2.0.0 Ready to start TLS\r\n",
    [REPLY_BYE] = "221 2.0.0 Bye\r\n",
    [REPLY_AUTH_OK] = "235 2.7.0 Authentication successful\r\n",
    [REPLY_OK] = "250 2.0.0 OK\r\n",
    [REPLY_MAIL_OK] = "250 2.1.0 OK\r\n",
    [REPLY_VRFY] = "252 2.5.0 Cannot VRFY, send some mail\r\n",
    [REPLY_TOO_MANY_CONNECTIONS] = "421 4.3.2 Too many connections\r\n",
    [REPLY_TOO_MANY_FROM_SOURCE] =
	"421 4.7.0 Too many connections from your address\r\n",
    [REPLY_NO_CERTIFICATE] = "421 4.7.1 No required SSL certificate\r\n",
    [REPLY_BAD_CERTIFICATE] = "421 4.7.1 SSL certificate error\r\n",
    [REPLY_STOPPING] = "421 4.3.2 Service is shutting down\r\n",
    [REPLY_TOO_MANY_ERRORS] = "421 4.7.0 Too many errors\r\n",
    [REPLY_TOO_MANY_COMMANDS] = "421 4.7.0 Too many commands\r\n",
    [REPLY_TOO_MANY_ATTEMPTS] = "421 4.7.0 Too many login attempts\r\n",
    [REPLY_TIMEOUT] = "421 4.4.2 Timeout waiting for a command\r\n",
    [REPLY_UPSTREAM_AWAY] = "421 4.3.0 Mail server is not available\r\n",
    [REPLY_UPSTREAM_LOST] = "421 4.3.0 Mail server is gone\r\n",
    [REPLY_UPSTREAM_IDLE] = "421 4.4.2 Idle for too long\r\n",
    [REPLY_UPSTREAM_FAILED] = "451 4.3.0 Mail server refused session\r\n",
    [REPLY_TLS_AWAY] = "454 4.7.0 TLS is not available now\r\n",
    [REPLY_AUTH_UNAVAILABLE] = "454 4.7.0 Temporary authentication failure\r\n",
    [REPLY_UNKNOWN_COMMAND] = "500 5.5.2 Invalid command\r\n",
    [REPLY_BAD_LINE_END] = "500 5.5.2 Line is not ended by CRLF alone\r\n",
    [REPLY_LINE_TOO_LONG] = "500 5.5.6 Line too long\r\n",
    [REPLY_NOT_HTTP] = "500 5.5.1 This is SMTP, not HTTP\r\n",
    [REPLY_NOT_TLS] = "500 5.5.1 TLS does not begin here\r\n",
    [REPLY_BAD_ARGUMENT] = "501 5.5.4 Invalid argument\r\n",
    [REPLY_AUTH_SERVER_FIRST] =
	"501 5.7.0 Mechanism takes no initial response\r\n",
    [REPLY_AUTH_MALFORMED] = "501 5.5.2 Cannot decode response\r\n",
    [REPLY_AUTH_CANCELLED] = "501 5.7.0 Authentication cancelled\r\n",
    [REPLY_EXPN] = "502 5.5.1 EXPN is not implemented\r\n",
    [REPLY_BAD_SEQUENCE] = "503 5.5.1 Bad sequence of commands\r\n",
    [REPLY_NOT_YET] = "503 5.5.1 No recipients yet\r\n",
    [REPLY_TLS_NOT_OFFERED] = "503 5.5.1 STARTTLS is not offered\r\n",
    [REPLY_AUTH_IN_MAIL] = "503 5.5.1 AUTH is not allowed after MAIL\r\n",
    [REPLY_AUTH_UNKNOWN] =
	"504 5.5.4 Authentication mechanism is not supported\r\n",
    [REPLY_TLS_FIRST] = "530 5.7.0 Must issue a STARTTLS command first\r\n",
    [REPLY_AUTH_FIRST] = "530 5.7.0 Authentication required\r\n",
    [REPLY_AUTH_DENIED] = "535 5.7.8 Authentication failed\r\n",
    [REPLY_AUTH_NEEDS_TLS] =
	"538 5.7.11 Encryption required for authentication\r\n",
    [REPLY_RECIPIENT_DENIED] = "550 5.7.1 Recipient refused\r\n",
};

const char *
smtp_reply(enum smtp_reply reply)
{
	return replies[reply];
}

void
smtp_say(struct session *s, enum smtp_reply reply)
{
	(void)conn_write(&s->client, replies[reply], strlen(replies[reply]));
}

enum smtp_event
smtp_over(struct session *s, const char *cause)
{
	s->cause = cause;
	return SMTP_OVER;
}

enum smtp_event
smtp_end(struct session *s, enum smtp_reply reply, const char *cause)
{
	smtp_say(s, reply);
	return smtp_over(s, cause);
}

enum smtp_event
smtp_refuse_words(struct session *s, const char *words)
{
	if (++s->errors > s->conf->max_errors)
		return smtp_end(s, REPLY_TOO_MANY_ERRORS, "errors");
	(void)conn_write(&s->client, words, strlen(words));
	return strncmp(words, "421", 3) == 0 ? smtp_over(s, "refused")
					     : SMTP_GO_ON;
}

enum smtp_event
smtp_refuse(struct session *s, enum smtp_reply reply)
{
	return smtp_refuse_words(s, replies[reply]);
}

enum smtp_event
smtp_no_line(struct session *s, enum conn_result r)
{
	if (r == CONN_TIMEOUT)
		return smtp_end(s, REPLY_TIMEOUT, "timeout");
	if (r == CONN_STOPPED)
		return smtp_end(s, REPLY_STOPPING, "stopped");
	return smtp_over(s, r == CONN_EOF ? "eof" : "broken");
}
