/*
 * The log: one line an event, to the journal, to syslog or to standard error,
 * never to the client's socket (under inetd, fd 2 may be it).
 *
 *	session=5f2c event=auth result=denied client=192.0.2.7 user="a b"
 *
 * Values come as they are; this file alone escapes them, so that no peer can
 * forge a line, a field or a terminal's command. To the journal each event goes
 * with its keys as fields too: SMTP_EVENT=auth SMTP_RESULT=denied and so on.
 */
#ifndef LIB_LOG_H
#define LIB_LOG_H

#include <stddef.h>
#include <stdint.h>
#include <syslog.h>

enum log_target {
	LOG_TO_AUTO, /* journal if fd 2 is the journal's, else as below */
	LOG_TO_JOURNAL,
	LOG_TO_SYSLOG,
	LOG_TO_STDERR,
	LOG_TO_NOWHERE
};

/*
 * Chooses the target, once, before the first byte is written to a client.
 * `client_fd` is the client's connection (-1: none): when fd 2 is the same
 * socket, or is closed, standard error is not used and AUTO means syslog.
 * `ident` is a static string.
 */
void log_open(enum log_target target, const char *ident, int client_fd);

/* The session's id, put at the front of each line; "" for none. Copied. */
void log_session(const char *id);

/*
 * One event: pairs of key and value, both C strings, ended by a NULL key. A
 * pair whose value is NULL is left out. `priority` is syslog's (LOG_INFO, ...).
 */
void log_event(int priority, const char *event, ...)
    __attribute__((sentinel));

/* A number as a value: text in one of a few rotating static buffers. */
const char *log_number(int64_t n);

/*
 * `value` as it stands in a log line, at most `size` octets with the NUL:
 * as it is when it is plain, else in double quotes with \" \\ \xNN; longer
 * values end in "...". Returns `buf`.
 */
char *log_quote(char *buf, size_t size, const char *value);

#endif
