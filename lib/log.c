/*
 * The log: which target, what a line looks like, and the one place where text
 * from peers is made harmless. What is worth a line, and which words it has, is
 * decided by the callers. Nothing is allocated; what is too long is cut where
 * it can be seen.
 */
#include <sys/stat.h>
#include <sys/uio.h>

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/systemd.h"
#include "lib/module.h"

#include "lib/log.h"

#define LINE_SIZE    2048
#define VALUE_SIZE   512 /* of one value in a line, escaped, with its NUL */
#define PAIRS	     24
#define FIELDS	     (PAIRS + 5) /* and ours, but for MESSAGE */
#define FIELD_SIZE   (VALUE_SIZE + 64)
#define SESSION_SIZE 64

/* A line that was cut, and a value that was cut. */
#define CUT_LINE  " ..."
#define CUT_VALUE "..."

/* Until log_open() has looked at fd 2, nothing may be written to it. */
static enum log_target target = LOG_TO_NOWHERE;
static const char *ident = "";
static char session[SESSION_SIZE];

static struct {
	char text[LINE_SIZE]; /* there is always room left for CUT_LINE "\n" */
	size_t len;
	bool cut;
} line;

static struct {
	char text[FIELDS][FIELD_SIZE];
	size_t count;
} fields;

/* Whether fd 2 is the stream that systemd gave us into the journal. */
static bool
is_journal(const struct stat *err)
{
	const char *stream = getenv("JOURNAL_STREAM");
	char ours[64];

	(void)snprintf(ours, sizeof(ours), "%ju:%ju", (uintmax_t)err->st_dev,
	    (uintmax_t)err->st_ino);
	return stream != NULL && strcmp(stream, ours) == 0;
}

static bool
is_client(const struct stat *err, int client_fd)
{
	struct stat client;

	return client_fd != -1 && fstat(client_fd, &client) == 0 &&
	       client.st_dev == err->st_dev && client.st_ino == err->st_ino;
}

/*
 * Under inetd fd 2 is the client's socket, and a line there would be a reply.
 * AUTO trusts no socket but the journal's; who asks for standard error by name
 * gets any but the client's. A terminal is no socket: by hand, the log and the
 * dialogue share it.
 */
static enum log_target
choose(enum log_target wanted, int client_fd)
{
	struct stat err;

	if (wanted != LOG_TO_AUTO && wanted != LOG_TO_STDERR)
		return wanted;
	if (fstat(STDERR_FILENO, &err) == -1)
		return LOG_TO_SYSLOG;
	if (wanted == LOG_TO_AUTO && is_journal(&err))
		return LOG_TO_JOURNAL;
	if (!S_ISSOCK(err.st_mode))
		return LOG_TO_STDERR;
	if (wanted == LOG_TO_STDERR && !is_client(&err, client_fd))
		return LOG_TO_STDERR;
	return LOG_TO_SYSLOG;
}

static void
open_syslog(void)
{
	target = LOG_TO_SYSLOG;
	openlog(ident, LOG_PID | LOG_NDELAY, LOG_MAIL);
}

void
log_open(enum log_target wanted, const char *name, int client_fd)
{
	target = choose(wanted, client_fd);
	ident = name;
	/* At once, while the path to the daemon is still within reach. */
	if (target == LOG_TO_SYSLOG)
		open_syslog();
}

void
log_session(const char *id)
{
	(void)snprintf(session, sizeof(session), "%s", id);
}

const char *
log_number(int64_t n)
{
	static char ring[PAIRS][24];
	static unsigned next;
	char *text = ring[next];

	next = (next + 1) % PAIRS;
	(void)snprintf(text, sizeof(ring[0]), "%" PRId64, n);
	return text;
}

static bool
is_plain(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c >= '0' && c <= '9') ||
	       (c != '\0' && strchr("._:@/+,[]-=<>()!#%*?^{}~&", c) != NULL);
}

/*
 * One octet of a quoted value. '=' is escaped too: a user called
 * "x event=auth result=denied client=192.0.2.1" must not get that address
 * banned by a pattern that looks for pairs without minding the quotes.
 */
static size_t
quote_octet(unsigned char c, char out[static 5])
{
	size_t n = 0;

	if (c == '"' || c == '\\') {
		out[n++] = '\\';
		out[n++] = (char)c;
	} else if (c >= ' ' && c <= '~' && c != '=') {
		out[n++] = (char)c;
	} else {
		n = (size_t)snprintf(out, 5, "\\x%02x", c);
	}
	return n;
}

/*
 * Octets of `value` from `*used` on, in the form that `quoted` says, that take
 * at most `room` octets of `buf`. How many they take; `*used` is moved on.
 */
static size_t
quote_part(char *buf, size_t room, const char *value, bool quoted, size_t *used)
{
	char out[5];
	size_t n = 0, len = 1;

	for (; value[*used] != '\0'; (*used)++) {
		out[0] = value[*used];
		if (quoted)
			len = quote_octet((unsigned char)value[*used], out);
		if (len > room - n)
			break;
		if (buf != NULL)
			memcpy(buf + n, out, len);
		n += len;
	}
	return n;
}

char *
log_quote(char *buf, size_t size, const char *value)
{
	const char *cut = "", *quote = "";
	size_t i = 0, n = 0, around = 1, used = 0;
	bool quoted;

	if (size == 0)
		return buf;
	while (is_plain((unsigned char)value[i]))
		i++;
	quoted = i == 0 || value[i] != '\0';
	if (quoted) {
		quote = "\"";
		around += 2;
	}
	buf[0] = '\0';
	if (size < around + strlen(CUT_VALUE))
		return buf;
	(void)quote_part(NULL, size - around, value, quoted, &used);
	if (value[used] != '\0') {
		cut = CUT_VALUE;
		around += strlen(CUT_VALUE);
	}
	if (quoted)
		buf[n++] = '"';
	used = 0;
	n += quote_part(buf + n, size - around, value, quoted, &used);
	(void)snprintf(buf + n, size - n, "%s%s", cut, quote);
	return buf;
}

static void
add_to_line(const char *key, const char *value)
{
	char quoted[VALUE_SIZE];
	size_t room = sizeof(line.text) - line.len - sizeof(CUT_LINE "\n") + 1;
	int n;

	if (line.cut)
		return;
	n = snprintf(line.text + line.len, room, "%s%s=%s",
	    line.len > 0 ? " " : "", key,
	    log_quote(quoted, sizeof(quoted), value));
	if (n >= 0 && (size_t)n < room) {
		line.len += (size_t)n;
		return;
	}
	memcpy(line.text + line.len, CUT_LINE, sizeof(CUT_LINE));
	line.len += sizeof(CUT_LINE) - 1;
	line.cut = true;
}

/*
 * A field of the journal. Its value goes as it is: the journal keeps lengths,
 * and shows what is no text as a blob.
 */
static void
add_field(const char *prefix, const char *key, const char *value)
{
	char *p, *text;
	int n;

	if (fields.count == FIELDS)
		return;
	text = fields.text[fields.count];
	n = snprintf(text, FIELD_SIZE, "%s%s=%s", prefix, key, value);
	if (n < 0)
		return;
	for (p = text; *p != '=' && *p != '\0'; p++) {
		if (*p >= 'a' && *p <= 'z')
			*p -= 'a' - 'A';
		if (*p == '-')
			*p = '_';
	}
	fields.count++;
}

static void
add_pair(const char *key, const char *value)
{
	add_to_line(key, value);
	if (target == LOG_TO_JOURNAL)
		add_field("SMTP_", key, value);
}

static void
write_journal(const struct systemd_api *systemd, int priority)
{
	static char message[sizeof("MESSAGE=") + LINE_SIZE];
	struct iovec iov[FIELDS + 1];
	size_t i;
	int n;

	add_field("", "PRIORITY", log_number(priority));
	add_field("", "SYSLOG_IDENTIFIER", ident);
	add_field("", "SYSLOG_FACILITY", log_number(LOG_MAIL >> 3));
	n = snprintf(message, sizeof(message), "MESSAGE=%s", line.text);
	iov[0] = (struct iovec){message, (size_t)n};
	for (i = 0; i < fields.count; i++)
		iov[i + 1] =
		    (struct iovec){fields.text[i], strlen(fields.text[i])};
	(void)systemd->journal_send(iov, (int)fields.count + 1);
}

static void
write_stderr(void)
{
	ssize_t n;

	/* One write a line: lines of several sessions do not mix. */
	line.text[line.len++] = '\n';
	do
		n = write(STDERR_FILENO, line.text, line.len);
	while (n == -1 && errno == EINTR);
}

static void
write_line(int priority)
{
	const struct systemd_api *systemd;
	char err[256];

	switch (target) {
	case LOG_TO_JOURNAL:
		/* libsystemd comes with the first event, not at the start. */
		systemd = module_load(
		    "systemd", "systemd_api", err, sizeof(err));
		if (systemd != NULL) {
			write_journal(systemd, priority);
			break;
		}
		/* Not there: the next best, which is from now on the first. */
		open_syslog();
		__attribute__((fallthrough));
	case LOG_TO_SYSLOG:
		syslog(priority, "%s", line.text);
		break;
	case LOG_TO_STDERR:
		write_stderr();
		break;
	case LOG_TO_AUTO:
	case LOG_TO_NOWHERE:
		break;
	}
}

void
log_event(int priority, const char *event, ...)
{
	const char *key, *value;
	int pairs = 0, saved = errno;
	va_list ap;

	if (target == LOG_TO_NOWHERE)
		return;
	line.len = 0;
	line.cut = false;
	fields.count = 0;
	if (session[0] != '\0')
		add_pair("session", session);
	add_pair("event", event);
	va_start(ap, event);
	while (pairs < PAIRS && (key = va_arg(ap, const char *)) != NULL) {
		value = va_arg(ap, const char *);
		if (value == NULL)
			continue;
		add_pair(key, value);
		pairs++;
	}
	va_end(ap);
	write_line(priority);
	errno = saved;
}
