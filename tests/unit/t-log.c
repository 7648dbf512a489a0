/*
 * lib/log: what a line looks like, that no value can forge one, and that no
 * target is ever the client's socket. The journal and syslog are played by
 * functions below that keep what they are given.
 */
#undef _FORTIFY_SOURCE /* it would turn syslog() into another function */

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/systemd.h"
#include "lib/log.h"
#include "lib/module.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

static char out[8192]; /* what went to fd 2 */
static char to_syslog[4096]; /* the last line to syslog */
static char journal[64][4096];
static size_t journal_count;
static int priority_seen;

void __syslog_chk(int priority, int flag, const char *format, ...);

static int
play_journal(const struct iovec *iov, int n)
{
	int i;

	assert_in_range(n, 1, LENGTH(journal));
	for (i = 0; i < n; i++) {
		assert_in_range(iov[i].iov_len, 1, sizeof(journal[0]) - 1);
		memcpy(journal[i], iov[i].iov_base, iov[i].iov_len);
		journal[i][iov[i].iov_len] = '\0';
	}
	journal_count = (size_t)n;
	return 0;
}

static bool no_module;

const void *
module_load(const char *name, const char *symbol, char *err, size_t err_size)
{
	static const struct systemd_api api = {.journal_send = play_journal};

	assert_string_equal(name, "systemd");
	assert_string_equal(symbol, "systemd_api");
	if (!no_module)
		return &api;
	(void)snprintf(err, err_size, "not there");
	return NULL;
}

void
openlog(const char *ident, int option, int facility)
{
	assert_string_equal(ident, "test");
	assert_int_equal(option & LOG_PERROR, 0);
	assert_int_equal(option & LOG_PID, LOG_PID);
	assert_int_equal(facility, LOG_MAIL);
}

static void
keep_syslog(int priority, const char *format, va_list ap)
{
	assert_string_equal(format, "%s");
	priority_seen = priority;
	(void)snprintf(
	    to_syslog, sizeof(to_syslog), "%s", va_arg(ap, const char *));
}

void
syslog(int priority, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	keep_syslog(priority, format, ap);
	va_end(ap);
}

void
__syslog_chk(int priority, int flag, const char *format, ...)
{
	va_list ap;

	(void)flag;
	va_start(ap, format);
	keep_syslog(priority, format, ap);
	va_end(ap);
}

/* fd 2 for a while; -1 closes it. What to give back to restore(). */
static int
replace_stderr(int fd)
{
	int kept = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);

	assert_int_not_equal(kept, -1);
	if (fd == -1)
		(void)close(STDERR_FILENO);
	else
		assert_int_equal(dup2(fd, STDERR_FILENO), STDERR_FILENO);
	return kept;
}

static void
restore_stderr(int kept)
{
	assert_int_equal(dup2(kept, STDERR_FILENO), STDERR_FILENO);
	(void)close(kept);
}

/* What a socket or pipe holds, without waiting. */
static void
take(int fd)
{
	ssize_t n;

	(void)fcntl(fd, F_SETFL, O_NONBLOCK);
	n = read(fd, out, sizeof(out) - 1);
	out[n > 0 ? n : 0] = '\0';
}

static int
set_up(void **state)
{
	(void)state;
	out[0] = to_syslog[0] = '\0';
	journal_count = 0;
	priority_seen = -1;
	log_session("");
	(void)unsetenv("JOURNAL_STREAM");
	return 0;
}

/* One line with one value, through a pipe as fd 2, into out[]. */
static void
line_of(const char *value)
{
	int kept, p[2];

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	kept = replace_stderr(p[1]);
	log_open(LOG_TO_STDERR, "test", -1);
	log_event(LOG_INFO, "auth", "result", "denied", "client", "192.0.2.7",
	    "left-out", NULL, "user", value, NULL);
	restore_stderr(kept);
	take(p[0]);
	(void)close(p[0]);
	(void)close(p[1]);
}

static void
plain_line(void **state)
{
	(void)state;
	log_session("5f2c");
	errno = ENOENT;
	line_of("me@example.org");
	assert_string_equal(out, "session=5f2c event=auth result=denied "
				 "client=192.0.2.7 user=me@example.org\n");
	log_session("");
	line_of("a b");
	assert_string_equal(out, "event=auth result=denied client=192.0.2.7 "
				 "user=\"a b\"\n");
}

static void
errno_kept(void **state)
{
	int kept, fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

	(void)state;
	assert_int_not_equal(fd, -1);
	kept = replace_stderr(fd);
	log_open(LOG_TO_STDERR, "test", -1);
	errno = ENOENT;
	log_event(LOG_INFO, "close", NULL);
	assert_int_equal(errno, ENOENT);
	restore_stderr(kept);
	(void)close(fd);
}

static void
forged_line(void **state)
{
	(void)state;
	line_of("x\r\nevent=auth result=denied client=192.0.2.1");
	assert_string_equal(out,
	    "event=auth result=denied client=192.0.2.7 user=\"x\\x0d\\x0aevent"
	    "\\x3dauth result\\x3ddenied client\\x3d192.0.2.1\"\n");
	line_of("x\" result=accepted \"");
	assert_string_equal(out, "event=auth result=denied client=192.0.2.7 "
				 "user=\"x\\\" result\\x3daccepted \\\"\"\n");
	line_of("\033[2J");
	assert_non_null(strstr(out, " user=\"\\x1b[2J\"\n"));
	line_of("%s%n");
	assert_non_null(strstr(out, " user=%s%n\n"));
}

static void
long_line(void **state)
{
	static char big[5000];
	int kept, p[2];

	(void)state;
	memset(big, 'x', sizeof(big) - 1);
	line_of(big);
	assert_in_range(strlen(out), 500, 2048);
	assert_string_equal(out + strlen(out) - 4, "...\n");
	/* several such: the line ends, marked, and is one line */
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	kept = replace_stderr(p[1]);
	log_open(LOG_TO_STDERR, "test", -1);
	log_event(LOG_INFO, "message", "a", big, "b", big, "c", big, "d", big,
	    "e", big, "f", "small", NULL);
	restore_stderr(kept);
	take(p[0]);
	assert_in_range(strlen(out), 1500, 2048);
	assert_string_equal(out + strlen(out) - 8, "... ...\n");
	assert_ptr_equal(strchr(out, '\n'), out + strlen(out) - 1);
	assert_null(strstr(out, "small"));
	(void)close(p[0]);
	(void)close(p[1]);
}

/* The limit itself: whatever the length, one line of at most 2048 octets. */
static void
every_length(void **state)
{
	static char value[600];
	char key[600];
	int kept, p[2];
	size_t i;

	(void)state;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	kept = replace_stderr(p[1]);
	log_open(LOG_TO_STDERR, "test", -1);
	memset(value, 'v', 500);
	for (i = 1; i < sizeof(key); i++) {
		memset(key, 'k', i);
		key[i] = '\0';
		log_event(LOG_INFO, "e", "a", value, "b", value, "c", value,
		    key, "v", "x", "y", NULL);
		take(p[0]);
		if (strlen(out) > 2048 ||
		    strchr(out, '\n') != out + strlen(out) - 1)
			break;
	}
	restore_stderr(kept);
	assert_int_equal(i, sizeof(key));
	(void)close(p[0]);
	(void)close(p[1]);
}

static void
many_pairs(void **state)
{
	int kept, p[2];
	char *s;
	size_t n = 0;

	(void)state;
#define FIVE "k", "v", "k", "v", "k", "v", "k", "v", "k", "v"
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	kept = replace_stderr(p[1]);
	log_open(LOG_TO_STDERR, "test", -1);
	log_event(LOG_INFO, "e", FIVE, FIVE, FIVE, FIVE, FIVE, FIVE, NULL);
	restore_stderr(kept);
	take(p[0]);
	for (s = out; (s = strstr(s, "k=v")) != NULL; s++)
		n++;
	assert_int_equal(n, 24);
	(void)close(p[0]);
	(void)close(p[1]);
}

static void
quoting(void **state)
{
	static const struct {
		const char *value, *text;
	} all[] = {{"plain", "plain"}, {"", "\"\""}, {"a b", "\"a b\""},
	    {"a\"b", "\"a\\\"b\""}, {"a\\b", "\"a\\\\b\""}, {"\t", "\"\\x09\""},
	    {"\x7f", "\"\\x7f\""}, {"\xc3\xa9", "\"\\xc3\\xa9\""},
	    {"'", "\"'\""},
	    {"<a+b=c@[192.0.2.1]:25>,(x)/_.-",
		"<a+b=c@[192.0.2.1]:25>,(x)/_.-"},
	    {"a=b c", "\"a\\x3db c\""}, {"\x01\xff", "\"\\x01\\xff\""}};
	char buf[64];
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(all); i++) {
		assert_ptr_equal(
		    log_quote(buf, sizeof(buf), all[i].value), buf);
		assert_string_equal(buf, all[i].text);
	}
}

static void
quoting_cut(void **state)
{
	char buf[64];
	size_t size;

	(void)state;
	assert_string_equal(log_quote(buf, 9, "12345678"), "12345678");
	assert_string_equal(log_quote(buf, 8, "12345678"), "1234...");
	assert_string_equal(log_quote(buf, 7, "1 34"), "\"1 34\"");
	assert_string_equal(log_quote(buf, 9, "1 345678"), "\"1 3...\"");
	/* an escape is never cut in the middle */
	assert_string_equal(log_quote(buf, 13, "a\n\n\n"), "\"a\\x0a...\"");
	assert_string_equal(log_quote(buf, 12, "a\n\n\n"), "\"a\\x0a...\"");
	assert_string_equal(log_quote(buf, 9, "a\n\n\n"), "\"a...\"");
	for (size = 0; size < 24; size++) {
		memset(buf, '#', sizeof(buf));
		(void)log_quote(buf, size, "a \\\n\" 8-bit \xff and more");
		if (size > 0)
			assert_in_range(strlen(buf), 0, size - 1);
		assert_int_equal(buf[size], '#');
	}
}

static void
numbers(void **state)
{
	const char *a = log_number(INT64_MIN), *b = log_number(0);
	const char *c = log_number(INT64_MAX), *d = log_number(7);

	(void)state;
	assert_string_equal(a, "-9223372036854775808");
	assert_string_equal(b, "0");
	assert_string_equal(c, "9223372036854775807");
	assert_string_equal(d, "7");
}

/* One event to `target` with `fd` as fd 2. */
static void
event_with(enum log_target target, int fd, int client_fd)
{
	int kept = replace_stderr(fd);

	log_open(target, "test", client_fd);
	log_event(LOG_WARNING, "early", "client", "192.0.2.7", NULL);
	restore_stderr(kept);
}

static void
never_the_client(void **state)
{
	int client[2], other[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, client), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, other), 0);
	/* inetd: the same socket */
	event_with(LOG_TO_AUTO, client[0], client[0]);
	assert_string_equal(to_syslog, "event=early client=192.0.2.7");
	assert_int_equal(priority_seen, LOG_WARNING);
	set_up(NULL);
	event_with(LOG_TO_STDERR, client[0], client[0]);
	assert_string_equal(to_syslog, "event=early client=192.0.2.7");
	take(client[1]);
	assert_string_equal(out, "");
	/* a socket that is not known to be anything else */
	set_up(NULL);
	event_with(LOG_TO_AUTO, other[0], -1);
	assert_string_not_equal(to_syslog, "");
	take(other[1]);
	assert_string_equal(out, "");
	/* asked for by name, and not the client's */
	set_up(NULL);
	event_with(LOG_TO_STDERR, other[0], client[0]);
	assert_string_equal(to_syslog, "");
	take(other[1]);
	assert_string_equal(out, "event=early client=192.0.2.7\n");
	(void)close(client[0]);
	(void)close(client[1]);
	(void)close(other[0]);
	(void)close(other[1]);
}

static void
closed_stderr(void **state)
{
	(void)state;
	event_with(LOG_TO_AUTO, -1, 0);
	assert_string_not_equal(to_syslog, "");
	set_up(NULL);
	event_with(LOG_TO_STDERR, -1, 0);
	assert_string_not_equal(to_syslog, "");
}

static void
auto_file(void **state)
{
	FILE *f = tmpfile();

	(void)state;
	assert_non_null(f);
	event_with(LOG_TO_AUTO, fileno(f), -1);
	(void)lseek(fileno(f), 0, SEEK_SET);
	take(fileno(f));
	assert_string_equal(out, "event=early client=192.0.2.7\n");
	assert_string_equal(to_syslog, "");
	assert_int_equal(journal_count, 0);
	(void)fclose(f);
}

static void
auto_journal(void **state)
{
	char stream[64];
	struct stat st;
	int s[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	assert_int_equal(fstat(s[0], &st), 0);
	(void)snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev,
	    (uintmax_t)st.st_ino);
	(void)setenv("JOURNAL_STREAM", stream, 1);
	event_with(LOG_TO_AUTO, s[0], -1);
	assert_int_not_equal(journal_count, 0);
	take(s[1]);
	assert_string_equal(out, "");
	/* inherited from a parent, and about another fd */
	set_up(NULL);
	(void)setenv("JOURNAL_STREAM", "1:2", 1);
	event_with(LOG_TO_AUTO, s[0], -1);
	assert_int_equal(journal_count, 0);
	assert_string_not_equal(to_syslog, "");
	set_up(NULL);
	(void)setenv("JOURNAL_STREAM", "", 1);
	event_with(LOG_TO_AUTO, s[0], -1);
	assert_int_equal(journal_count, 0);
	(void)close(s[0]);
	(void)close(s[1]);
}

static void
assert_field(const char *text)
{
	size_t i;

	for (i = 0; i < journal_count; i++)
		if (strcmp(journal[i], text) == 0)
			return;
	fail_msg("no field %s", text);
}

static void
journal_fields(void **state)
{
	(void)state;
	log_open(LOG_TO_JOURNAL, "test", -1);
	log_session("5f2c");
	log_event(LOG_NOTICE, "auth", "result", "denied", "user", "a\nb=\"",
	    "tls-cipher", "X", "gone", NULL, NULL);
	assert_field("MESSAGE=session=5f2c event=auth result=denied "
		     "user=\"a\\x0ab\\x3d\\\"\" tls-cipher=X");
	assert_field("PRIORITY=5");
	assert_field("SYSLOG_IDENTIFIER=test");
	assert_field("SYSLOG_FACILITY=2");
	assert_field("SMTP_SESSION=5f2c");
	assert_field("SMTP_EVENT=auth");
	assert_field("SMTP_RESULT=denied");
	assert_field("SMTP_USER=a\nb=\"");
	assert_field("SMTP_TLS_CIPHER=X");
	assert_int_equal(journal_count, 9);
	/* nothing stays from the event before, and all fields have room */
	log_event(LOG_INFO, "e", FIVE, FIVE, FIVE, FIVE, FIVE, FIVE, NULL);
	assert_int_equal(journal_count, 24 + 6);
}

static void
journal_long(void **state)
{
	static char big[5000];
	size_t i;

	(void)state;
	memset(big, 'x', sizeof(big) - 1);
	log_open(LOG_TO_JOURNAL, "test", -1);
	log_event(LOG_INFO, "e", "a", big, "b", big, "c", big, "d", big, "e",
	    big, "f", "small", NULL);
	/* cut in the line, there as a field */
	assert_field("SMTP_F=small");
	for (i = 0; i < journal_count; i++)
		assert_in_range(strlen(journal[i]), 1, 2048 + 8);
}

static void
nowhere(void **state)
{
	int s[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	event_with(LOG_TO_NOWHERE, s[0], -1);
	take(s[1]);
	assert_string_equal(out, "");
	assert_string_equal(to_syslog, "");
	assert_int_equal(journal_count, 0);
	(void)close(s[0]);
	(void)close(s[1]);
}

static void
by_name(void **state)
{
	(void)state;
	event_with(LOG_TO_SYSLOG, STDERR_FILENO, -1);
	assert_string_equal(to_syslog, "event=early client=192.0.2.7");
	event_with(LOG_TO_JOURNAL, STDERR_FILENO, -1);
	assert_int_not_equal(journal_count, 0);
}

static void
no_journal(void **state)
{
	(void)state;
	no_module = true;
	event_with(LOG_TO_JOURNAL, STDERR_FILENO, -1);
	no_module = false;
	assert_string_equal(to_syslog, "event=early client=192.0.2.7");
	assert_int_equal(journal_count, 0);
}

static void
session_cut(void **state)
{
	char id[200];

	(void)state;
	memset(id, 's', sizeof(id) - 1);
	id[sizeof(id) - 1] = '\0';
	log_session(id);
	line_of("x");
	assert_int_equal(strcspn(out, " "), strlen("session=") + 63);
}

/* Must be the first: before log_open() has looked, fd 2 may be the client. */
static void
before_open(void **state)
{
	int kept, s[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	kept = replace_stderr(s[0]);
	log_event(LOG_ERR, "start", "error", "x", NULL);
	restore_stderr(kept);
	take(s[1]);
	assert_string_equal(out, "");
	assert_string_equal(to_syslog, "");
	(void)close(s[0]);
	(void)close(s[1]);
}

#define T(f) cmocka_unit_test_setup(f, set_up)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    T(before_open),
	    T(plain_line),
	    T(errno_kept),
	    T(forged_line),
	    T(long_line),
	    T(every_length),
	    T(many_pairs),
	    T(quoting),
	    T(quoting_cut),
	    T(numbers),
	    T(never_the_client),
	    T(closed_stderr),
	    T(auto_file),
	    T(auto_journal),
	    T(journal_fields),
	    T(journal_long),
	    T(nowhere),
	    T(by_name),
	    T(no_journal),
	    T(session_cut),
	};

	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
