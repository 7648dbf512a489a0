/*
 * Password files: lines, reading, verifying, making; and the provider over
 * them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/stat.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "auth/provider.h"
#include "lib/clock.h"
#include "lib/passwd.h"

extern const struct auth_provider auth_provider;

/* RFC 7677 section 3, in Dovecot's form. */
#define PENCIL "{SCRAM-SHA-256}4096" KEYS
#define KEYS                                            \
	",W22ZaJ0SNY7soEsUEjb6gQ=="                     \
	",WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=" \
	",wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
#define SHA512                                                             \
	"$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjn" \
	"QJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"
#define BCRYPT "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
#define APR1   "$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/"

static char path[] = "/tmp/t-passwd.XXXXXX";

/* A file that holds `text`, in the place of the last one. */
static void
write_bytes(const char *text, size_t len)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static void
write_file(const char *text)
{
	write_bytes(text, strlen(text));
}

static int
make_path(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	return fd == -1 ? -1 : close(fd);
}

static int
remove_path(void **state)
{
	(void)state;
	return unlink(path);
}

/*
 * Lines.
 */

static void
check_line(const char *line, const char *user, const char *secret,
    const char *rest, const char *backend)
{
	struct passwd_entry e;

	assert_true(passwd_parse(line, strlen(line), &e));
	assert_string_equal(e.user, user);
	assert_string_equal(e.secret, secret);
	if (rest == NULL)
		assert_null(e.rest);
	else
		assert_string_equal(e.rest, rest);
	if (backend == NULL)
		assert_null(e.backend);
	else
		assert_string_equal(e.backend, backend);
}

static void
test_lines(void **state)
{
	(void)state;
	check_line("a:{PLAIN}x\n", "a", "{PLAIN}x", NULL, NULL);
	check_line("a:{PLAIN}x\r\n", "a", "{PLAIN}x", NULL, NULL);
	check_line("a b@c:$6$x$y", "a b@c", "$6$x$y", NULL, NULL);
	check_line("a::", "a", "", "", NULL);
	check_line("a:s:mail.example:25", "a", "s", "mail.example:25",
	    "mail.example:25");
	check_line("a:s:[2001:db8::1]:587\n", "a", "s", "[2001:db8::1]:587",
	    "[2001:db8::1]:587");
	check_line(
	    "a:s:unix:/run/a:b", "a", "s", "unix:/run/a:b", "unix:/run/a:b");
	/* Dovecot's: uid, gid, gecos, home, shell, extra. */
	check_line("a:{CRYPT}h:1000:1000:G:/home/a:/bin/sh:x=y", "a",
	    "{CRYPT}h", "1000:1000:G:/home/a:/bin/sh:x=y", NULL);
	check_line("a:h:1000:1000", "a", "h", "1000:1000", NULL);
	check_line("a:h::::::", "a", "h", ":::::", NULL);
}

static void
test_no_entry(void **state)
{
	static const char *const lines[] = {
	    "", "\n", "\r\n", "   \n", "# a:b\n", "user\n", ":{PLAIN}x\n"};
	static const char nul[] = "a:{PLAIN}x\0y";
	struct passwd_entry e;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		assert_false(passwd_parse(lines[i], strlen(lines[i]), &e));
	assert_false(passwd_parse(nul, sizeof(nul) - 1, &e));
}

static void
test_backends(void **state)
{
	char path_of[128] = "unix:/";
	static const char *const good[] = {"localhost:25", "10.0.0.1:25",
	    "mail-1.example:65535", "[::1]:25", "unix:/s", "unix:/run/a b"};
	static const char *const bad[] = {"", ":", ":25", "host",
	    "host:", "host:0", "host:65536", "host:+25", "host:25x",
	    "1000:1000", "10.0.0:25", "::1:25", "[::1]25", "[::1:25",
	    "[host]:25", "a b:25", "unix:", "unix:s", "a:b:25", "unix:/a\nb"};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		if (!passwd_is_backend(good[i]))
			fail_msg("refused: %s", good[i]);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (passwd_is_backend(bad[i]))
			fail_msg("taken: %s", bad[i]);
	/* what a socket's address has room for */
	memset(path_of + 6, 'x', 106);
	assert_true(passwd_is_backend(path_of));
	path_of[112] = 'x';
	assert_false(passwd_is_backend(path_of));
}

/*
 * Reading. The pieces put together are the file, whatever it holds.
 */

static size_t
read_whole(const char *text, size_t len)
{
	static struct passwd_reader r;
	struct passwd_line line;
	size_t at = 0, whole = 0;
	int fd, n;

	write_bytes(text, len);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	passwd_reader_init(&r, fd);
	while ((n = passwd_read(&r, &line)) == 1) {
		assert_true(at + line.len <= len);
		assert_memory_equal(line.text, text + at, line.len);
		at += line.len;
		whole += line.whole;
	}
	assert_int_equal(n, 0);
	assert_int_equal(at, len);
	assert_int_equal(close(fd), 0);
	return whole;
}

static void
test_long_lines(void **state)
{
	static char text[40000];
	size_t n;

	(void)state;
	assert_int_equal(read_whole("", 0), 0);
	assert_int_equal(read_whole("a", 1), 1);
	assert_int_equal(read_whole("\n\na\n", 4), 3);
	memset(text, 'x', sizeof(text));
	for (n = PASSWD_LINE_MAX - 1; n <= PASSWD_LINE_MAX + 1; n++) {
		/* alone, without an end */
		assert_int_equal(read_whole(text, n), n <= PASSWD_LINE_MAX);
		/* between two others */
		text[1] = text[n + 2] = '\n';
		assert_int_equal(
		    read_whole(text, n + 4), 2 + (n <= PASSWD_LINE_MAX));
		text[1] = text[n + 2] = 'x';
	}
	text[sizeof(text) - 2] = '\n';
	assert_int_equal(read_whole(text, sizeof(text)), 1);
	assert_int_equal(read_whole(text, sizeof(text) - 1), 0);
}

static enum passwd_found
find(const char *user, struct passwd_entry *e)
{
	enum passwd_found found;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	found = passwd_find(fd, user, e);
	assert_int_equal(close(fd), 0);
	return found;
}

static void
test_find(void **state)
{
	struct passwd_entry e, again;

	(void)state;
	write_file("# x\n\nann:{PLAIN}1\nbob:{PLAIN}2:h:25\nann:{PLAIN}3\n"
		   "Eve:{PLAIN}4");
	assert_int_equal(find("ann", &e), PASSWD_FOUND);
	assert_string_equal(e.secret, "{PLAIN}1");
	assert_int_equal(find("bob", &e), PASSWD_FOUND);
	assert_string_equal(e.backend, "h:25");
	assert_int_equal(find("Eve", &e), PASSWD_FOUND);
	/* exactly, and the stand-in is the same each time */
	assert_int_equal(find("eve", &e), PASSWD_UNKNOWN);
	assert_non_null(e.secret);
	assert_int_equal(find("eve", &again), PASSWD_UNKNOWN);
	assert_string_equal(e.user, again.user);
	assert_int_equal(find("", &e), PASSWD_UNKNOWN);
	assert_int_equal(find("# x", &e), PASSWD_UNKNOWN);
	write_file("# nobody\n");
	assert_int_equal(find("ann", &e), PASSWD_UNKNOWN);
	assert_null(e.secret);
	assert_int_equal(passwd_find(-1, "ann", &e), PASSWD_UNREADABLE);
}

/* An over-long line is no entry, nor is what stands at a piece's beginning. */
static void
test_find_behind_long_line(void **state)
{
	static char text[PASSWD_LINE_MAX * 3];
	struct passwd_entry e;
	size_t n;

	(void)state;
	for (n = PASSWD_LINE_MAX + 1; n < PASSWD_LINE_MAX * 2 + 3; n += 7) {
		memset(text, 'x', n);
		memcpy(text + n, "ann:{PLAIN}1\nbob:{PLAIN}2\n", 26);
		write_bytes(text, n + 26);
		assert_int_equal(find("ann", &e), PASSWD_UNKNOWN);
		assert_int_equal(find("bob", &e), PASSWD_FOUND);
	}
}

static void
test_open(void **state)
{
	char err[PASSWD_ERROR_SIZE];
	int fd;

	(void)state;
	write_file("a:{PLAIN}x\n");
	fd = passwd_open(path, err);
	assert_true(fd >= 0);
	assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
	assert_int_equal(close(fd), 0);
	assert_int_equal(chmod(path, 0602), 0);
	assert_int_equal(passwd_open(path, err), -1);
	assert_non_null(strstr(err, "writable by others"));
	assert_int_equal(chmod(path, 0600), 0);
	assert_int_equal(passwd_open("/tmp", err), -1);
	assert_non_null(strstr(err, "not a regular file"));
	assert_int_equal(passwd_open("/nonexistent/x", err), -1);
	assert_non_null(strstr(err, "No such file"));
}

/*
 * Verifying.
 */

static void
test_verify(void **state)
{
	static const struct {
		const char *secret, *password;
	} cases[] = {
	    {"{PLAIN}secret", "secret"},
	    {"{plain}$6$x$y", "$6$x$y"},
	    {"{CLEARTEXT}{PLAIN}", "{PLAIN}"},
	    {"{CLEAR} \xc3\xa9 ", " \xc3\xa9 "},
	    {PENCIL, "pencil"},
	    {SHA512, "Hello world!"},
	    {"{CRYPT}" SHA512, "Hello world!"},
	    {"{SHA512-CRYPT}" SHA512, "Hello world!"},
	    {BCRYPT, "U*U"},
	    {"{BLF-CRYPT}" BCRYPT, "U*U"},
	    {"{bcrypt}" BCRYPT, "U*U"},
	};
	char wrong[64];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(
		    passwd_verify(cases[i].secret, cases[i].password),
		    PASSWD_MATCH);
		(void)snprintf(wrong, sizeof(wrong), "%sx", cases[i].password);
		assert_int_equal(
		    passwd_verify(cases[i].secret, wrong), PASSWD_MISMATCH);
		wrong[strlen(wrong) - 2] = '\0';
		assert_int_equal(
		    passwd_verify(cases[i].secret, wrong), PASSWD_MISMATCH);
		assert_int_equal(
		    passwd_verify(cases[i].secret, ""), PASSWD_MISMATCH);
	}
}

static void
test_unsupported(void **state)
{
	static const char *const secrets[] = {"", "x", "x7S4dVmw2zzUY", APR1,
	    "{CRYPT}" APR1, "{CRYPT}", "{CRYPT}!", "{CRYPT}*", "{CRYPT}*0",
	    "{CRYPT}*1", "{CRYPT}!" SHA512, "$", "$$", "$6$",
	    "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "{PLAIN", "PLAIN}x",
	    "{SCRAM-SHA-256}", "{SCRAM-SHA-256}4096",
	    "{SCRAM-SHA-256}4096,AAAA,AAAA,AAAA", "{SCRAM-SHA-256}0" KEYS,
	    "{SCRAM-SHA-256}4000000000" KEYS, "{SCRAM-SHA-256}1000001" KEYS,
	    "{SCRAM-SHA-1}4096" KEYS, PENCIL "A", PENCIL ",",
	    PENCIL ",AAAA"};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(secrets) / sizeof(secrets[0]); i++) {
		enum passwd_result r = passwd_verify(secrets[i], "x");

		/* "$6$" with an empty salt is a setting that crypt(3) takes */
		if (r == PASSWD_MATCH ||
		    (r == PASSWD_MISMATCH && strcmp(secrets[i], "$6$") != 0))
			fail_msg("%s: %d", secrets[i], (int)r);
		assert_int_equal(
		    passwd_verify(secrets[i], ""), PASSWD_MISMATCH);
	}
}

/* An empty or an over-long password matches nothing, not even itself. */
static void
test_sizes(void **state)
{
	char secret[1024] = "{PLAIN}", *password = secret + 7;

	(void)state;
	assert_int_equal(passwd_verify("{PLAIN}", ""), PASSWD_MISMATCH);
	memset(password, 'p', PASSWD_PASSWORD_MAX);
	assert_int_equal(passwd_verify(secret, password), PASSWD_MATCH);
	memset(password, 'p', PASSWD_PASSWORD_MAX + 1);
	assert_int_equal(passwd_verify(secret, password), PASSWD_MISMATCH);
}

static void
test_hash(void **state)
{
	static const struct {
		const char *scheme, *prefix;
	} forms[] = {
	    {"yescrypt", "{CRYPT}$y$"},
	    {"bcrypt", "{BLF-CRYPT}$2y$10$"},
	    {"sha512", "{SHA512-CRYPT}$6$rounds="},
	    {"scram-sha-256", "{SCRAM-SHA-256}"},
	    {"scram-sha-1", "{SCRAM-SHA-1}"},
	    {"plain", "{PLAIN}"},
	};
	char secret[PASSWD_SECRET_SIZE], again[PASSWD_SECRET_SIZE];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		const char *scheme = forms[i].scheme;

		assert_null(passwd_objection(scheme, "tr0ub4dor"));
		assert_int_equal(passwd_hash(scheme, "tr0ub4dor", secret), 0);
		assert_memory_equal(
		    secret, forms[i].prefix, strlen(forms[i].prefix));
		assert_null(strchr(secret, ':'));
		assert_int_equal(
		    passwd_verify(secret, "tr0ub4dor"), PASSWD_MATCH);
		assert_int_equal(
		    passwd_verify(secret, "tr0ub4dot"), PASSWD_MISMATCH);
		assert_int_equal(passwd_hash(scheme, "tr0ub4dor", again), 0);
		if (i < 5)
			assert_string_not_equal(secret, again);
		assert_int_equal(passwd_hash(scheme, "", secret), -1);
	}
}

static void
test_objections(void **state)
{
	char text[PASSWD_PASSWORD_MAX + 2] = "", secret[PASSWD_SECRET_SIZE];

	(void)state;
	assert_non_null(passwd_objection("md5", NULL));
	assert_null(passwd_objection("plain", NULL));
	assert_non_null(passwd_objection("plain", ""));
	assert_non_null(passwd_objection("plain", "a:b"));
	assert_non_null(passwd_objection("plain", "a\nb"));
	assert_null(passwd_objection("yescrypt", "a:b\n"));
	memset(text, 'x', 72);
	assert_null(passwd_objection("bcrypt", text));
	text[72] = 'x';
	assert_non_null(passwd_objection("bcrypt", text));
	memset(text, 'x', PASSWD_PASSWORD_MAX);
	assert_null(passwd_objection("plain", text));
	assert_int_equal(passwd_hash("plain", text, secret), 0);
	text[PASSWD_PASSWORD_MAX] = 'x';
	assert_non_null(passwd_objection("yescrypt", text));
}

static void
test_describe(void **state)
{
	static const struct {
		const char *secret, *words;
	} cases[] = {
	    {"{PLAIN}$1$secret", "{PLAIN}"},
	    {"{CRYPT}" SHA512, "{CRYPT}$6$"},
	    {BCRYPT, "$2a$"},
	    {APR1, "$apr1$ (not supported)"},
	    {"{SHA}secret", "{SHA} (not supported)"},
	    {"secret", "no known scheme"},
	    {"{secret", "no known scheme"},
	    {PENCIL, "{SCRAM-SHA-256}"},
	};
	char words[PASSWD_SCHEME_SIZE];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		passwd_describe(cases[i].secret, words);
		assert_string_equal(words, cases[i].words);
	}
}

/*
 * The provider.
 */

static struct message question, verdict;

static const char *method = "plain";

static enum auth_result
judge(const char *user, const char *password, const char *authzid)
{
	char err[AUTH_ERROR_SIZE], value[64];
	enum auth_result result;
	void *provider;

	(void)snprintf(value, sizeof(value), "file:%s", path);
	provider = auth_provider.open(value, NULL, err);
	assert_non_null(provider);
	message_init(&question, ASK_VERDICT);
	message_put(&question, M_METHOD, method);
	message_put(&question, M_USER, user);
	message_put(&question, M_PASSWORD, password);
	message_put(&question, M_AUTHZID, authzid);
	message_init(&verdict, ANSWER_VERDICT);
	result = auth_provider.judge(provider, &question, &verdict);
	auth_provider.close(provider);
	return result;
}

static void
check_denied(const char *user, const char *password, const char *authzid,
    const char *reason)
{
	assert_int_equal(judge(user, password, authzid), AUTH_DENIED);
	assert_string_equal(message_text(&verdict, M_REASON), reason);
	assert_null(message_get(&verdict, M_CODE));
	assert_null(message_get(&verdict, M_USER));
	assert_null(message_get(&verdict, M_BACKEND));
}

static void
test_judge(void **state)
{
	(void)state;
	write_file("ann:{PLAIN}secret:mail.example:25\nbob:" BCRYPT "\n"
		   "cec:" APR1 "\ndan:{PLAIN}\n");
	assert_int_equal(judge("ann", "secret", NULL), AUTH_ACCEPTED);
	assert_string_equal(message_text(&verdict, M_USER), "ann");
	assert_string_equal(
	    message_text(&verdict, M_BACKEND), "mail.example:25");
	assert_int_equal(judge("ann", "secret", ""), AUTH_ACCEPTED);
	assert_int_equal(judge("bob", "U*U", "bob"), AUTH_ACCEPTED);
	assert_null(message_get(&verdict, M_BACKEND));
	check_denied("ann", "Secret", NULL, "wrong password");
	check_denied("ann", "", NULL, "wrong password");
	check_denied("dan", "", NULL, "wrong password");
	check_denied("Ann", "secret", NULL, "unknown user");
	check_denied("", "secret", NULL, "unknown user");
	check_denied("ann", "secret", "bob", "authorization name");
	check_denied(
	    "cec", "x", NULL, "unsupported secret: $apr1$ (not supported)");
	check_denied("ann", NULL, NULL, "not a user and a password");
	/* An edit counts at once. */
	write_file("ann:{PLAIN}other\n");
	check_denied("ann", "secret", NULL, "wrong password");
}

/* EXTERNAL: a user who is there, whatever the secret, but for a lock. */
static void
test_external(void **state)
{
	static const char *const users[] = {
	    "ann", "bob", "bang", "star", "none", "crypt", "word"};
	size_t i;

	(void)state;
	write_file("ann:{PLAIN}secret:mail.example:25\nbob:" BCRYPT "\n"
		   "bang:!\nstar:*\nnone:\ncrypt:{CRYPT}!\n"
		   "word:{PLAIN}!x\nlock:!" BCRYPT "\nstars:*LK*\n"
		   "held:{crypt}!!\n");
	method = "external";
	for (i = 0; i < sizeof(users) / sizeof(users[0]); i++) {
		assert_int_equal(judge(users[i], NULL, NULL), AUTH_ACCEPTED);
		assert_string_equal(message_text(&verdict, M_USER), users[i]);
	}
	assert_int_equal(judge("ann", NULL, NULL), AUTH_ACCEPTED);
	assert_string_equal(
	    message_text(&verdict, M_BACKEND), "mail.example:25");
	check_denied("lock", NULL, NULL, "the user is locked");
	check_denied("stars", NULL, NULL, "the user is locked");
	check_denied("held", NULL, NULL, "the user is locked");
	check_denied("Ann", NULL, NULL, "unknown user");
	check_denied("", NULL, NULL, "not a user and a password");
	check_denied(NULL, NULL, NULL, "not a user and a password");
	/* And none of these is a password. */
	method = "plain";
	check_denied("bang", "!", NULL, "unsupported secret: no known scheme");
	check_denied("none", "", NULL, "wrong password");
	assert_int_equal(unlink(path), 0);
	method = "external";
	assert_int_equal(judge("ann", NULL, NULL), AUTH_UNAVAILABLE);
	method = "plain";
	write_file("");
}

/* An unknown user is never let in by the stand-in's password. */
static void
test_stand_in(void **state)
{
	(void)state;
	write_file("ann:{PLAIN}secret\n");
	check_denied("eve", "secret", NULL, "unknown user");
	write_file("");
	check_denied("eve", "secret", NULL, "unknown user");
}

static void
test_unavailable(void **state)
{
	char err[AUTH_ERROR_SIZE];

	(void)state;
	write_file("ann:{PLAIN}secret\n");
	assert_int_equal(chmod(path, 0606), 0);
	assert_int_equal(judge("ann", "secret", NULL), AUTH_UNAVAILABLE);
	assert_non_null(
	    strstr(message_text(&verdict, M_REASON), "writable by others"));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(judge("ann", "secret", NULL), AUTH_UNAVAILABLE);
	assert_non_null(strstr(message_text(&verdict, M_REASON), path));
	write_file("");
	assert_null(auth_provider.open("file:", NULL, err));
}

static struct sasl_stored stored;

static enum auth_result
ask_secret(const char *user, const char *keys)
{
	message_init(&verdict, ANSWER_VERDICT);
	memset(&stored, 'x', sizeof(stored));
	return auth_provider.secret(path, user, keys, &stored, &verdict);
}

static void
expect_stored(bool is_keys, const char *text)
{
	assert_int_equal(stored.is_keys, is_keys);
	assert_string_equal(stored.text, text);
}

static void
test_secret(void **state)
{
	(void)state;
	write_file("ann:{PLAIN}secret:h:25\nbob:" BCRYPT "\ndan:{PLAIN}\n");
	assert_int_equal(ask_secret("ann", NULL), AUTH_ACCEPTED);
	expect_stored(false, "secret");
	assert_string_equal(message_text(&verdict, M_BACKEND), "h:25");
	assert_int_equal(ask_secret("ann", "SCRAM-SHA-1"), AUTH_ACCEPTED);
	expect_stored(false, "secret");
	assert_int_equal(ask_secret("bob", NULL), AUTH_DENIED);
	expect_stored(false, "");
	assert_int_equal(ask_secret("dan", NULL), AUTH_DENIED);
	assert_int_equal(ask_secret("eve", NULL), AUTH_DENIED);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(ask_secret("ann", NULL), AUTH_UNAVAILABLE);
	expect_stored(false, "");
	write_file("");
	assert_int_equal(ask_secret("eve", "SCRAM-SHA-1"), AUTH_DENIED);
	expect_stored(false, "");
}

/* Keys are given to whoever asks for their very scheme. */
static void
test_stored_keys(void **state)
{
	(void)state;
	write_file("ann:" PENCIL ":h:25\n");
	assert_int_equal(ask_secret("ann", "SCRAM-SHA-256"), AUTH_ACCEPTED);
	expect_stored(true, &PENCIL[strlen("{SCRAM-SHA-256}")]);
	assert_string_equal(message_text(&verdict, M_BACKEND), "h:25");
	assert_int_equal(ask_secret("ann", "SCRAM-SHA-1"), AUTH_DENIED);
	assert_int_equal(ask_secret("ann", "SCRAM-SHA-25"), AUTH_DENIED);
	assert_int_equal(ask_secret("ann", NULL), AUTH_DENIED);
	expect_stored(false, "");
	/* Nobody's looks like somebody's. */
	assert_int_equal(ask_secret("eve", "SCRAM-SHA-256"), AUTH_DENIED);
	expect_stored(true, &PENCIL[strlen("{SCRAM-SHA-256}")]);
	/* A password that looks like keys is a password. */
	write_file("ann:{PLAIN}" PENCIL "\n");
	assert_int_equal(ask_secret("ann", "SCRAM-SHA-256"), AUTH_ACCEPTED);
	expect_stored(false, PENCIL);
}

/* 10,000 lines: read through for each question, so it must be cheap. */
static void
test_many_lines(void **state)
{
	FILE *f = fopen(path, "w");
	int64_t begun;
	int i;

	(void)state;
	for (i = 0; i < 10000; i++)
		fprintf(f, "user%d@example.org:{PLAIN}%0100d\n", i, i);
	assert_int_equal(fclose(f), 0);
	begun = clock_ms();
	check_denied("eve", "secret", NULL, "unknown user");
	check_denied("user0@example.org", "secret", NULL, "wrong password");
	check_denied("user9999@example.org", "secret", NULL, "wrong password");
	print_message("10000 lines, three questions: %lld ms\n",
	    (long long)(clock_ms() - begun));
	assert_true(clock_ms() - begun < 3000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_lines),
	    cmocka_unit_test(test_no_entry),
	    cmocka_unit_test(test_backends),
	    cmocka_unit_test(test_long_lines),
	    cmocka_unit_test(test_find),
	    cmocka_unit_test(test_find_behind_long_line),
	    cmocka_unit_test(test_open),
	    cmocka_unit_test(test_verify),
	    cmocka_unit_test(test_unsupported),
	    cmocka_unit_test(test_sizes),
	    cmocka_unit_test(test_hash),
	    cmocka_unit_test(test_objections),
	    cmocka_unit_test(test_describe),
	    cmocka_unit_test(test_judge),
	    cmocka_unit_test(test_external),
	    cmocka_unit_test(test_stand_in),
	    cmocka_unit_test(test_unavailable),
	    cmocka_unit_test(test_secret),
	    cmocka_unit_test(test_stored_keys),
	    cmocka_unit_test(test_many_lines),
	};

	return cmocka_run_group_tests(tests, make_path, remove_path);
}
