/*
 * The directives: every type of value, the three places they come from and
 * which of them wins, the file's format, contradictions, --help and --check.
 */
#include <sys/stat.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "config_table.h"

/* What the directives allocate lives until exit, on purpose. */
const char *__asan_default_options(void);

const char *
__asan_default_options(void)
{
	return "detect_leaks=0";
}

static struct config conf;
static char err[CONFIG_ERROR_SIZE];
static char *args[64];
static char path[] = "/tmp/t-config-XXXXXX";

static enum config_result
load_words(const char *first, va_list ap)
{
	const char *word;
	int n = 0;

	args[n++] = (char *)"smtp-frontd";
	for (word = first; word != NULL; word = va_arg(ap, const char *)) {
		assert_true(n + 1 < (int)(sizeof(args) / sizeof(*args)));
		args[n++] = (char *)word;
	}
	args[n] = NULL;
	return config_load(&conf, n, args, err);
}

/* Loads with these arguments, ended by NULL, and wants it to succeed. */
static void
good(const char *first, ...)
{
	enum config_result result;
	va_list ap;

	va_start(ap, first);
	result = load_words(first, ap);
	va_end(ap);
	if (result != CONFIG_OK)
		fail_msg("%s", err);
	assert_string_equal(err, "");
}

/* ... wants `expected` and `reason` in the one line that says why. */
static void
bad(enum config_result expected, const char *reason, const char *first, ...)
{
	enum config_result result;
	va_list ap;

	va_start(ap, first);
	result = load_words(first, ap);
	va_end(ap);
	if (result != expected || strstr(err, reason) == NULL)
		fail_msg("%d, not %d, or not \"%s\": %s", result, expected,
		    reason, err);
	assert_null(strchr(err, '\n'));
}

static void
write_file(const void *text, size_t len)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static void
file(const char *text)
{
	write_file(text, strlen(text));
}

/* A configuration that is complete, so that tests can vary one thing. */
static int
setup(void **state)
{
	(void)state;
	clearenv();
	setenv("SMTP_BACKEND", "mx.example.org:25", 1);
	setenv("SMTP_AUTH_PROVIDER", "file:/etc/users", 1);
	setenv("SMTP_SERVER_NAME", "front.example.org", 1);
	return 0;
}

static void
test_defaults(void **state)
{
	(void)state;
	good(NULL);
	assert_int_equal(conf.smtp_auth, CONFIG_AUTH_PLAIN | CONFIG_AUTH_LOGIN);
	assert_true(conf.smtp_auth_unlisted);
	assert_int_equal(conf.smtp_capabilities.count, 0);
	assert_int_equal(conf.smtp_client_buffer, sysconf(_SC_PAGESIZE));
	assert_int_equal(conf.smtp_greeting_delay, 0);
	assert_int_equal(conf.timeout, 60000);
	assert_int_equal(conf.max_errors, 5);
	assert_int_equal(conf.max_auth_attempts, 5);
	assert_string_equal(conf.resolver, "");
	assert_int_equal(conf.resolver_timeout, 30000);
	assert_false(conf.socket & CONFIG_SOCKET_SSL);
	assert_int_equal(conf.starttls, CONFIG_STARTTLS_OFF);
	assert_string_equal(conf.ssl_password_file, "");
	assert_string_equal(conf.ssl_protocols, "TLSv1.2 TLSv1.3");
	assert_string_equal(conf.ssl_ecdh_curve, "auto");
	assert_int_equal(conf.xclient, CONFIG_XCLIENT_AUTO);
	assert_int_equal(conf.proxy_timeout, 900000);
	assert_int_equal(conf.proxy_buffer, sysconf(_SC_PAGESIZE));
	assert_int_equal(conf.relay_at, CONFIG_RELAY_AT_AUTH);
	assert_null(conf.relay);
	assert_string_equal(conf.user, "");
	assert_int_equal(conf.log, LOG_TO_AUTO);
	assert_false(conf.check || conf.help || conf.version);
}

static void
test_server_name(void **state)
{
	char host[256];

	(void)state;
	good(NULL);
	assert_string_equal(conf.server_name, "front.example.org");
	bad(CONFIG_USAGE, "must be a host name", "--server-name", "a_b", NULL);
	bad(CONFIG_USAGE, "must be a host name", "--server-name", "", NULL);
	unsetenv("SMTP_SERVER_NAME");
	assert_int_equal(gethostname(host, sizeof(host)), 0);
	if (strpbrk(host, "_ ") == NULL) {
		good(NULL);
		assert_string_equal(conf.server_name, host);
	}
}

static void
test_switch_and_words(void **state)
{
	(void)state;
	good("--proxy-smtp-auth", "on", "--smtp-auth-unlisted=OFF", NULL);
	assert_true(conf.proxy_smtp_auth);
	assert_false(conf.smtp_auth_unlisted);
	bad(CONFIG_USAGE, "must be on or off", "--proxy-smtp-auth", "yes",
	    NULL);
	good("--log", "stderr", "--xclient", "off", NULL);
	assert_int_equal(conf.log, LOG_TO_STDERR);
	assert_int_equal(conf.xclient, CONFIG_XCLIENT_OFF);
	bad(CONFIG_USAGE, "must be auto, on or off", "--xclient=maybe", NULL);
	bad(CONFIG_USAGE, "must be off, on or only", "--starttls=", NULL);
	bad(CONFIG_USAGE, "must be auth or greeting", "--relay-at=x", NULL);
	bad(CONFIG_USAGE, "must be auto, journal", "--log=x", NULL);
}

static void
test_sets(void **state)
{
	(void)state;
	good("--smtp-auth", "cram-md5  NONE \"external\"", NULL);
	assert_int_equal(conf.smtp_auth,
	    CONFIG_AUTH_CRAM_MD5 | CONFIG_AUTH_NONE | CONFIG_AUTH_EXTERNAL);
	good("--smtp-auth", "plain", "--smtp-auth", "none", NULL);
	assert_int_equal(conf.smtp_auth, CONFIG_AUTH_PLAIN | CONFIG_AUTH_NONE);
	bad(CONFIG_USAGE, "must be words of: plain", "--smtp-auth",
	    "plain gssapi", NULL);
	bad(CONFIG_USAGE, "must be words of: plain", "--smtp-auth", "\"plain",
	    NULL);
	bad(CONFIG_USAGE, "must be words of: ssl", "--socket", "tls", NULL);
	good("--socket", "ssl", "--ssl-certificate=a",
	    "--ssl-certificate-key=b", NULL);
	assert_true(conf.socket & CONFIG_SOCKET_SSL);
	good("--socket", "", NULL);
	assert_false(conf.socket & CONFIG_SOCKET_SSL);
}

static void
test_numbers(void **state)
{
	(void)state;
	good("--max-errors", "1", "--max-auth-attempts", "1000000", NULL);
	assert_int_equal(conf.max_errors, 1);
	assert_int_equal(conf.max_auth_attempts, 1000000);
	bad(CONFIG_USAGE, "from 1 to 1000000", "--max-errors", "0", NULL);
	bad(CONFIG_USAGE, "from 1 to 1000000", "--max-errors", "1000001", NULL);
	bad(CONFIG_USAGE, "from 1 to 1000000", "--max-errors", "-1", NULL);
	bad(CONFIG_USAGE, "from 1 to 1000000", "--max-errors", "5x", NULL);
	bad(CONFIG_USAGE, "from 1 to 1000000", "--max-errors", "", NULL);
}

static void
test_sizes(void **state)
{
	(void)state;
	good("--smtp-client-buffer", "128", "--proxy-buffer", "64k", NULL);
	assert_int_equal(conf.smtp_client_buffer, 128);
	assert_int_equal(conf.proxy_buffer, 65536);
	good("--smtp-client-buffer", "1M", NULL);
	assert_int_equal(conf.smtp_client_buffer, 1 << 20);
	bad(CONFIG_USAGE, "from 128 to 1m", "--smtp-client-buffer=127", NULL);
	bad(CONFIG_USAGE, "from 128 to 1m", "--smtp-client-buffer=1025k", NULL);
	bad(CONFIG_USAGE, "from 128 to 1m", "--smtp-client-buffer=4kb", NULL);
	bad(CONFIG_USAGE, "from 1k to 16m", "--proxy-buffer=1000", NULL);
}

static void
test_times(void **state)
{
	(void)state;
	good("--timeout", "500ms", "--smtp-greeting-delay", "5",
	    "--proxy-timeout", "1h 30m", NULL);
	assert_int_equal(conf.timeout, 500);
	assert_int_equal(conf.smtp_greeting_delay, 5000);
	assert_int_equal(conf.proxy_timeout, 5400000);
	good("--timeout", "24d", NULL);
	bad(CONFIG_USAGE, "from 1ms to 24d", "--timeout", "25d", NULL);
	bad(CONFIG_USAGE, "from 1ms to 24d", "--timeout", "0", NULL);
	bad(CONFIG_USAGE, "from 1ms to 24d", "--timeout", "soon", NULL);
	bad(CONFIG_USAGE, "at most 24d", "--smtp-greeting-delay", "1y", NULL);
}

static void
test_texts(void **state)
{
	(void)state;
	good("--user", "mail", "--resolver",
	    "127.0.0.1:5353 [::1] [::1]:53 2001:db8::1 192.0.2.1", NULL);
	assert_string_equal(conf.user, "mail");
	assert_string_equal(conf.resolver,
	    "127.0.0.1:5353 [::1] [::1]:53 2001:db8::1 192.0.2.1");
	good("--resolver", "off", NULL);
	assert_string_equal(conf.resolver, "");
	good("--resolver", " ", NULL);
	assert_string_equal(conf.resolver, "");
	good("--resolver", "System", NULL);
	assert_string_equal(conf.resolver, "system");
	bad(CONFIG_USAGE, "addresses of name", "--resolver", "system ::1",
	    NULL);
	bad(CONFIG_USAGE, "addresses of name", "--resolver", "dns.example",
	    NULL);
	bad(CONFIG_USAGE, "addresses of name", "--resolver", "1.2.3.4:0", NULL);
	bad(CONFIG_USAGE, "addresses of name", "--resolver", "[1.2.3.4]", NULL);
	bad(CONFIG_USAGE, "addresses of name", "--resolver",
	    "1.1.1.1 1.1.1.1 1.1.1.1 1.1.1.1 1.1.1.1 1.1.1.1 1.1.1.1 1.1.1.1 "
	    "1.1.1.1",
	    NULL);
	bad(CONFIG_USAGE, "control character", "--user", "a\nb", NULL);
	bad(CONFIG_USAGE, "\"a\\x0ab\"", "--user", "a\nb", NULL);
	good("--ssl-protocols", "TLSv1.3", NULL);
	good("--ssl-protocols", "TLSv1 tlsv1.2", NULL);
	bad(CONFIG_USAGE, "words of: TLSv1", "--ssl-protocols",
	    "SSLv3 TLSv1.2", NULL);
	bad(CONFIG_USAGE, "must hold TLSv1.2 or TLSv1.3", "--ssl-protocols",
	    "TLSv1 TLSv1.1", NULL);
	bad(CONFIG_USAGE, "must hold TLSv1.2", "--ssl-protocols", "", NULL);
}

/* An argument is one item, as it stands; elsewhere words are separated. */
static void
test_lists(void **state)
{
	(void)state;
	good("--smtp-capabilities", "SIZE 10240000", "--smtp-capabilities",
	    "X \"q\" \\", "--smtp-capabilities=", NULL);
	assert_int_equal(conf.smtp_capabilities.count, 2);
	assert_string_equal(conf.smtp_capabilities.word[0], "SIZE 10240000");
	assert_string_equal(conf.smtp_capabilities.word[1], "X \"q\" \\");
	setenv(
	    "SMTP_CAPABILITIES", " \"SIZE 1\"\tPIPELINING \"a \\\"b\\\\\" ", 1);
	good(NULL);
	assert_int_equal(conf.smtp_capabilities.count, 3);
	assert_string_equal(conf.smtp_capabilities.word[0], "SIZE 1");
	assert_string_equal(conf.smtp_capabilities.word[1], "PIPELINING");
	assert_string_equal(conf.smtp_capabilities.word[2], "a \"b\\");
	setenv("SMTP_CAPABILITIES", "\"SIZE 1", 1);
	bad(CONFIG_BAD, "double quotes", NULL);
	setenv("SMTP_CAPABILITIES", "", 1);
	good(NULL);
	assert_int_equal(conf.smtp_capabilities.count, 0);
	good("--smtp-capabilities", "", NULL);
	assert_int_equal(conf.smtp_capabilities.count, 0);
}

static void
test_capabilities(void **state)
{
	char line[600];

	(void)state;
	bad(CONFIG_USAGE, "auto is not supported by this version",
	    "--smtp-capabilities", "auto", NULL);
	bad(CONFIG_USAGE, "control character", "--smtp-capabilities", "A\r\nB",
	    NULL);
	bad(CONFIG_USAGE, "printable ASCII", "--smtp-capabilities", "A\xc3\xa4",
	    NULL);
	memset(line, 'A', sizeof(line));
	line[506] = '\0';
	good("--smtp-capabilities", line, NULL);
	line[506] = 'A';
	line[507] = '\0';
	bad(CONFIG_USAGE, "longer than a line", "--smtp-capabilities", line,
	    NULL);
}

static void
test_backends(void **state)
{
	static const char shape[] = "must be host:port, [IPv6 address]:port";
	char socket_path[256];

	(void)state;
	setenv("SMTP_BACKEND",
	    "127.0.0.1:25 [::1]:2525 unix:/run/lmtp mx-1.a:1", 1);
	good(NULL);
	assert_int_equal(conf.backend.count, 4);
	assert_string_equal(conf.backend.word[1], "[::1]:2525");
	assert_string_equal(conf.backend.word[3], "mx-1.a:1");
	bad(CONFIG_USAGE, "needs a port", "--backend", "mx.example.org", NULL);
	bad(CONFIG_USAGE, "needs a port", "--backend", "mx:0", NULL);
	bad(CONFIG_USAGE, "needs a port", "--backend", "mx:65536", NULL);
	bad(CONFIG_USAGE, "needs a port", "--backend", "[::1]", NULL);
	bad(CONFIG_USAGE, shape, "--backend", "mx:", NULL);
	bad(CONFIG_USAGE, shape, "--backend", ":25", NULL);
	bad(CONFIG_USAGE, shape, "--backend", "::1:25", NULL);
	bad(CONFIG_USAGE, shape, "--backend", "[::1", NULL);
	bad(CONFIG_USAGE, shape, "--backend", "[::g]:25", NULL);
	bad(CONFIG_USAGE, shape, "--backend", "[127.0.0.1]:25", NULL);
	bad(CONFIG_USAGE, "needs a port", "--backend", "a:25 b:25", NULL);
	bad(CONFIG_USAGE, shape, "--backend", "a_b:25", NULL);
	bad(CONFIG_USAGE, "absolute path", "--backend", "unix:run", NULL);
	memset(socket_path, 'a', sizeof(socket_path));
	memcpy(socket_path, "unix:/", 6);
	socket_path[5 + 108] = '\0';
	bad(CONFIG_USAGE, "at most 107", "--backend", socket_path, NULL);
	socket_path[5 + 107] = '\0';
	good("--backend", socket_path, NULL);
}

static void
test_providers(void **state)
{
	(void)state;
	good("--auth-provider", "https://auth.example.org/smtp", NULL);
	assert_string_equal(
	    conf.auth_provider, "https://auth.example.org/smtp");
	good("--auth-provider", "http+unix:///run/auth", NULL);
	good("--auth-provider", "dovecot:/run/dovecot/auth-client", NULL);
	good("--auth-provider", "dovecot:unix:/run/auth", NULL);
	good("--auth-provider", "dovecot:auth.example:12345", NULL);
	good("--auth-provider", "dovecot:[::1]:12345", NULL);
	bad(CONFIG_USAGE, "after dovecot:", "--auth-provider", "dovecot:",
	    NULL);
	bad(CONFIG_USAGE, "after dovecot:", "--auth-provider", "dovecot:host",
	    NULL);
	bad(CONFIG_USAGE, "after dovecot:", "--auth-provider",
	    "dovecot:::1:12345", NULL);
	bad(CONFIG_USAGE, "absolute path", "--auth-provider", "file:users",
	    NULL);
	bad(CONFIG_USAGE, "must begin with", "--auth-provider", "ldap:x", NULL);
	bad(CONFIG_USAGE, "without blanks", "--auth-provider",
	    "http+unix:///a b", NULL);
	bad(CONFIG_USAGE, "must begin with", "--auth-provider", "http:/x",
	    NULL);
	bad(CONFIG_USAGE, "with a host", "--auth-provider", "http://", NULL);
	bad(CONFIG_USAGE, "with a host", "--auth-provider", "http:///a", NULL);
	bad(CONFIG_USAGE, "without blanks", "--auth-provider", "http://a b",
	    NULL);
	good("--auth-provider", "oauth2:https://a/introspect", NULL);
	good("--auth-provider", "oauth2:http+unix:///run/a:/x", NULL);
	bad(CONFIG_USAGE, "must begin with", "--auth-provider", "oauth2:a",
	    NULL);
	bad(CONFIG_USAGE, "with a host", "--auth-provider", "oauth2:http://",
	    NULL);
}

static void
test_tokens(void **state)
{
	char scope[258];

	(void)state;
	good("--auth-provider", "http://a", "--smtp-auth",
	    "scram-sha-1 scram-sha-256 xoauth2 oauthbearer", NULL);
	assert_int_equal(conf.smtp_auth,
	    CONFIG_AUTH_SCRAM_SHA_1 | CONFIG_AUTH_SCRAM_SHA_256 |
		CONFIG_AUTH_XOAUTH2 | CONFIG_AUTH_OAUTHBEARER);
	assert_string_equal(conf.oauth2_user_claim, "username");
	assert_string_equal(conf.oauth2_scope, "");
	good("--auth-provider", "http://a", "--oauth2-scope", "a b",
	    "--oauth2-user-claim", "https://a/email", NULL);
	/* It goes into JSON as it stands. */
	bad(CONFIG_USAGE, "printable ASCII", "--oauth2-scope", "a\"b", NULL);
	bad(CONFIG_USAGE, "printable ASCII", "--oauth2-scope", "a\\b", NULL);
	bad(CONFIG_USAGE, "printable ASCII", "--oauth2-scope", "\xe4", NULL);
	memset(scope, 's', sizeof(scope));
	scope[256] = '\0';
	bad(CONFIG_USAGE, "255 octets", "--oauth2-scope", scope, NULL);
	bad(CONFIG_USAGE, "name of a claim", "--oauth2-user-claim", "", NULL);
	bad(CONFIG_USAGE, "name of a claim", "--oauth2-user-claim", "a b",
	    NULL);
	bad(CONFIG_USAGE, "absolute path", "--oauth2-client-file", "a", NULL);
	bad(CONFIG_USAGE, "absolute path", "--scram-secret-file", "a", NULL);
}

static void
test_checkpassword(void **state)
{
	char many[] = "checkpassword:/p 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17"
		      " 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33";

	(void)state;
	good("--auth-provider", "checkpassword:/p \"a b\" c", NULL);
	assert_string_equal(
	    conf.auth_provider, "checkpassword:/p \"a b\" c");
	assert_int_equal(conf.checkpassword_cram, CONFIG_CHALLENGE_RESPONSE);
	bad(CONFIG_USAGE, "absolute path of a program", "--auth-provider",
	    "checkpassword:p", NULL);
	bad(CONFIG_USAGE, "absolute path of a program", "--auth-provider",
	    "checkpassword:", NULL);
	bad(CONFIG_USAGE, "at most 31", "--auth-provider",
	    "checkpassword:/p \"a", NULL);
	bad(CONFIG_USAGE, "at most 31", "--auth-provider", many, NULL);
	*strrchr(many, ' ') = '\0';
	good("--auth-provider", many, "--checkpassword-cram",
	    "response_challenge", NULL);
	assert_int_equal(conf.checkpassword_cram, CONFIG_RESPONSE_CHALLENGE);
}

static void
test_pam(void **state)
{
	static const char *const names[] = {
	    "", "a/b", "../b", ".a", "/etc/pam.d/smtp", "Smtp", "a b"};
	char value[32];
	size_t i;

	(void)state;
	good("--auth-provider", "pam:smtp", NULL);
	good("--auth-provider", "pam:smtp-frontd_2.x", NULL);
	for (i = 0; i < sizeof(names) / sizeof(*names); i++) {
		(void)snprintf(value, sizeof(value), "pam:%s", names[i]);
		bad(CONFIG_USAGE, "a service's name", "--auth-provider", value,
		    NULL);
	}
}

static void
test_auth_http(void **state)
{
	static const char same[] = "means the same as";

	(void)state;
	unsetenv("SMTP_AUTH_PROVIDER");
	good("--auth-http", "127.0.0.1:9000/auth", NULL);
	assert_string_equal(conf.auth_provider, "http://127.0.0.1:9000/auth");
	good("--auth-http", "https://a/b", NULL);
	assert_string_equal(conf.auth_provider, "https://a/b");
	bad(CONFIG_USAGE, "must be an http://", "--auth-http", "file:///a",
	    NULL);
	good("--auth-http", "unix:/run/a:/b", NULL);
	assert_string_equal(conf.auth_provider, "http+unix:///run/a:/b");
	good("--auth-http", "http://unix:/run/a", NULL);
	assert_string_equal(conf.auth_provider, "http+unix:///run/a");
	bad(CONFIG_USAGE, "absolute path", "--auth-http", "unix:a", NULL);
	bad(CONFIG_USAGE, "with a host", "--auth-http", "/a", NULL);
	bad(CONFIG_BAD, same, "--auth-http", "a", "--auth-provider", "file:/a",
	    NULL);
	setenv("SMTP_AUTH_HTTP", "env", 1);
	good(NULL);
	assert_string_equal(conf.auth_provider, "http://env");
	/* In two places one wins, as always. */
	good("--auth-provider", "file:/a", NULL);
	assert_string_equal(conf.auth_provider, "file:/a");
	setenv("SMTP_AUTH_PROVIDER", "file:/a", 1);
	bad(CONFIG_BAD, same, NULL);
}

static void
test_auth_timeout(void **state)
{
	(void)state;
	good("--auth-http-timeout", "2s", NULL);
	assert_int_equal(conf.auth_timeout, 2000);
	good("--auth-timeout", "3s", NULL);
	assert_int_equal(conf.auth_timeout, 3000);
	bad(CONFIG_BAD, "means the same as", "--auth-timeout", "3s",
	    "--auth-http-timeout", "2s", NULL);
}

static void
test_headers(void **state)
{
	(void)state;
	setenv("SMTP_AUTH_HTTP_HEADER", "\"X-Key a b\" \"X-B:c\" X-C:d", 1);
	good(NULL);
	assert_int_equal(conf.auth_http_header.count, 3);
	assert_string_equal(conf.auth_http_header.word[0], "X-Key: a b");
	assert_string_equal(conf.auth_http_header.word[1], "X-B: c");
	assert_string_equal(conf.auth_http_header.word[2], "X-C: d");
	bad(CONFIG_USAGE, "control", "--auth-http-header", "A b\r\nC: d", NULL);
	bad(CONFIG_USAGE, "name of", "--auth-http-header", "A\xe4: b", NULL);
	bad(CONFIG_USAGE, "name of", "--auth-http-header", "(a): b", NULL);
	bad(CONFIG_USAGE, "name of", "--auth-http-header", ": b", NULL);
	bad(CONFIG_USAGE, "needs a value", "--auth-http-header", "A", NULL);
	bad(CONFIG_USAGE, "needs a value", "--auth-http-header", "A: ", NULL);
}

static void
test_arguments(void **state)
{
	(void)state;
	good("--check", "--timeout=5s", "--timeout", "6s", NULL);
	assert_true(conf.check);
	assert_int_equal(conf.timeout, 6000);
	bad(CONFIG_USAGE, "not an argument", "--nonsense", "1", NULL);
	bad(CONFIG_USAGE, "not an argument", "--smtp_auth", "plain", NULL);
	bad(CONFIG_USAGE, "not an argument", "--time", "1", NULL);
	bad(CONFIG_USAGE, "not an argument", "word", NULL);
	bad(CONFIG_USAGE, "not an argument", "-x", NULL);
	bad(CONFIG_USAGE, "not an argument", "-", NULL);
	bad(CONFIG_USAGE, "not an argument", "", NULL);
	bad(CONFIG_USAGE, "not an argument", "--=", NULL);
	bad(CONFIG_USAGE, "\"a\\x0ab\"", "a\nb", NULL);
	bad(CONFIG_USAGE, "needs a value", "--timeout", NULL);
	bad(CONFIG_USAGE, "needs a value", "--timeout", "--", "relay", NULL);
	bad(CONFIG_USAGE, "needs a value", "--config", NULL);
	bad(CONFIG_USAGE, "takes no value", "--check=yes", NULL);
	bad(CONFIG_USAGE, "needs a program", "--", NULL);
	bad(CONFIG_USAGE, "(from --timeout)", "--timeout", "x", NULL);
}

/* Asked for help, nothing else is looked at. */
static void
test_help_wins(void **state)
{
	(void)state;
	clearenv();
	setenv("SMTP_TIMEOUT", "never", 1);
	good("-h", "--timeout", "nor this", NULL);
	assert_true(conf.help);
	good("--help", NULL);
	assert_true(conf.help);
	good("-V", NULL);
	assert_true(conf.version);
	good("--version", NULL);
	assert_true(conf.version);
}

static void
test_relay(void **state)
{
	(void)state;
	unsetenv("SMTP_BACKEND");
	good("--timeout", "5s", "--", "/bin/relay", "--timeout", "x", "--",
	    NULL);
	assert_string_equal(conf.relay[0], "/bin/relay");
	assert_string_equal(conf.relay[1], "--timeout");
	assert_string_equal(conf.relay[3], "--");
	assert_null(conf.relay[4]);
	assert_int_equal(conf.timeout, 5000);
}

static void
test_precedence(void **state)
{
	(void)state;
	file("SMTP_TIMEOUT=1s\nSMTP_MAX_ERRORS=1\nSMTP_CAPABILITIES='A B'\n"
	     "SMTP_LOG=syslog\nSMTP_AUTH=none\n");
	setenv("SMTP_TIMEOUT", "2s", 1);
	setenv("SMTP_MAX_ERRORS", "2", 1);
	good("--config", path, "--timeout", "3s", "--smtp-capabilities", "C",
	    "--smtp-capabilities", "D", "--smtp-auth", "plain", NULL);
	assert_int_equal(conf.timeout, 3000);
	assert_int_equal(conf.max_errors, 2);
	assert_int_equal(conf.log, LOG_TO_SYSLOG);
	/* A list and a set are replaced as a whole. */
	assert_int_equal(conf.smtp_capabilities.count, 2);
	assert_string_equal(conf.smtp_capabilities.word[0], "C");
	assert_int_equal(conf.smtp_auth, CONFIG_AUTH_PLAIN);
	/* What is overridden is still judged. */
	setenv("SMTP_TIMEOUT", "x", 1);
	bad(CONFIG_BAD, "timeout: value \"x\": must be a time", "--timeout",
	    "3s", NULL);
	bad(CONFIG_BAD, "(from the environment)", NULL);
}

static void
test_unknown(void **state)
{
	(void)state;
	setenv("SMTP_SESION", "x", 1);
	setenv("SMTP_CONFIG", "/etc/x", 1);
	setenv("SMTP_Timeout", "1s", 1);
	setenv("SMTP_", "1s", 1);
	setenv("SMTPTIMEOUT", "1s", 1);
	good(NULL);
	assert_int_equal(conf.timeout, 60000);
	assert_int_equal(config_unknown_count(), 4);
	assert_string_equal(config_unknown(0), "SMTP_SESION");
	assert_string_equal(config_unknown(1), "SMTP_CONFIG");
	setup(NULL);
	good(NULL);
	assert_int_equal(config_unknown_count(), 0);
}

/* `line` in the file gives `user`. */
static void
reads(const char *line, const char *user)
{
	file(line);
	good("--config", path, NULL);
	assert_string_equal(conf.user, user);
}

static void
test_file_format(void **state)
{
	(void)state;
	reads("SMTP_USER=a", "a");
	reads("  SMTP_USER \t=\t a b  \t\n", "a b");
	reads("SMTP_USER=\n", "");
	reads("SMTP_USER=a\r\nSMTP_LOG=auto\r\n", "a");
	reads("# SMTP_USER=x\n ; SMTP_USER=y\nSMTP_USER=a # b\n", "a # b");
	reads("# it goes on \\\nSMTP_USER=x\nSMTP_USER=a\n", "a");
	reads("# it goes on \\\nSMTP_USER=x\n", "");
	reads("SMTP_USER=a\\\n  b\n", "a  b");
	reads("SMTP_USER=a \\ \n", "a  ");
	reads("SMTP_USER=a\\\\b\\c\\\"\n", "a\\bc\"");
	reads("SMTP_USER=a\\", "a");
	reads("SMTP_USER='a \"\\b$' \n", "a \"\\b$");
	reads("SMTP_USER=\"a 'b' \\\" \\\\ \\$ \\` \\n\"\n",
	    "a 'b' \" \\ $ ` \\n");
	reads("SMTP_USER=\"a\\\nb\"\n", "ab");
	reads("SMTP_USER='a ' \"b \" c'd' \n", "a b c'd'");
	reads("SMTP_USER=a\"b c\"\n", "a\"b c\"");
	reads("SMTP_USER='a", "a");
	reads("SMTP_USER=a\nSMTP_USER=b\n", "b");
	reads("OTHER='x\nSMTP_USER=x'\nPATH\nexport X=1\nSMTP_USER=a\n", "a");
	file("SMTP_CAPABILITIES='\"SIZE 10240000\" PIPELINING'\n");
	good("--config", path, NULL);
	assert_int_equal(conf.smtp_capabilities.count, 2);
	assert_string_equal(conf.smtp_capabilities.word[0], "SIZE 10240000");
	assert_string_equal(conf.smtp_capabilities.word[1], "PIPELINING");
}

/* The message names the file and the line. */
static void
refuses(const char *text, const char *reason, unsigned line)
{
	char where[64];

	if (text != NULL)
		file(text);
	bad(CONFIG_BAD, reason, "--config", path, NULL);
	(void)snprintf(where, sizeof(where), "%s:%u)", path, line);
	assert_non_null(strstr(err, where));
}

static void
test_file_refused(void **state)
{
	static char big[65537];

	(void)state;
	refuses("\n# c\\\n\nSMTP_TIMEOUT=0\n", "timeout: value \"0\"", 4);
	refuses(
	    "A='\n\n'\nSMTP_TIMEOT=1s\n", "SMTP_TIMEOT: not a directive", 4);
	refuses("SMTP_CONFIG=/x\n", "SMTP_CONFIG: not a directive", 1);
	refuses("SMTP_STARTTLS only\n", "no '='", 1);
	refuses("\r\nSMTP_USER='a\nb'\n", "control character", 2);
	bad(CONFIG_BAD, "No such file", "--config", "/nonexistent/f", NULL);
	bad(CONFIG_BAD, "(from --config)", "--config", "/nonexistent/f", NULL);
	bad(CONFIG_BAD, "directory", "--config", "/", NULL);
	write_file("SMTP_USER=a\0b\n", 14);
	bad(CONFIG_BAD, "NUL", "--config", path, NULL);
	memset(big, '\n', sizeof(big));
	write_file(big, 65536);
	good("--config", path, NULL);
	write_file(big, 65537);
	bad(CONFIG_BAD, "64 kB", "--config", path, NULL);
}

static void
test_tls_clashes(void **state)
{
	static const char needs[] =
	    "needs ssl_certificate and ssl_certificate_key";

	(void)state;
	bad(CONFIG_BAD, needs, "--starttls", "on", NULL);
	bad(CONFIG_BAD, needs, "--starttls", "only", NULL);
	bad(CONFIG_BAD, needs, "--socket", "ssl", NULL);
	bad(CONFIG_BAD, "socket: value \"ssl\"", "--socket", "ssl", NULL);
	bad(CONFIG_BAD, "as many files", "--ssl-certificate", "a", NULL);
	bad(CONFIG_BAD, "as many files", "--ssl-certificate-key", "a", NULL);
	setenv("SMTP_SSL_CERTIFICATE", "a b c d", 1);
	setenv("SMTP_SSL_CERTIFICATE_KEY", "a b c d", 1);
	good("--starttls", "only", NULL);
	assert_int_equal(conf.ssl_certificate_key.count, 4);
	bad(CONFIG_BAD, "cannot be with socket ssl", "--starttls", "on",
	    "--socket", "ssl", NULL);
	setenv("SMTP_SSL_CERTIFICATE", "a b c d e", 1);
	setenv("SMTP_SSL_CERTIFICATE_KEY", "a b c d e", 1);
	bad(CONFIG_BAD, "more than 4", NULL);
	assert_non_null(strstr(err, "\"a b c d e\""));
	assert_non_null(strstr(err, "(from the environment)"));
}

static void
test_client_certificates(void **state)
{
	static const char needs[] =
	    "needs ssl_client_certificate or ssl_trusted_certificate";

	(void)state;
	good(NULL);
	assert_int_equal(conf.ssl_verify_client, TLS_VERIFY_OFF);
	assert_int_equal(conf.ssl_verify_depth, 1);
	assert_int_equal(conf.ssl_identity, TLS_SUBJECT_CN);
	assert_true(conf.auth_external_authzid);
	assert_false(conf.auth_external_implicit);
	bad(CONFIG_BAD, "needs ssl_certificate and", "--ssl-verify-client",
	    "optional_no_ca", NULL);
	setenv("SMTP_SSL_CERTIFICATE", "a", 1);
	setenv("SMTP_SSL_CERTIFICATE_KEY", "b", 1);
	bad(CONFIG_BAD, needs, "--ssl-verify-client", "on", NULL);
	bad(CONFIG_BAD, needs, "--ssl-verify-client", "optional", NULL);
	bad(CONFIG_USAGE, "off, on, optional or optional_no_ca",
	    "--ssl-verify-client", "yes", NULL);
	bad(CONFIG_USAGE, "from 0 to 100", "--ssl-verify-depth", "101", NULL);
	good("--ssl-verify-client", "optional_no_ca", NULL);
	assert_int_equal(conf.ssl_verify_client, TLS_VERIFY_OPTIONAL_NO_CA);
	good("--ssl-verify-client", "on", "--ssl-trusted-certificate", "c",
	    "--ssl-verify-depth", "0", "--ssl-identity", "fingerprint",
	    "--auth-external-authzid", "ignore", NULL);
	assert_int_equal(conf.ssl_verify_client, TLS_VERIFY_ON);
	assert_string_equal(conf.ssl_trusted_certificate, "c");
	assert_int_equal(conf.ssl_verify_depth, 0);
	assert_int_equal(conf.ssl_identity, TLS_FINGERPRINT);
	assert_false(conf.auth_external_authzid);
}

static void
test_upstream_clashes(void **state)
{
	(void)state;
	setenv("SMTP_RELAY_AT", "greeting", 1);
	bad(CONFIG_BAD, "needs a relay program", NULL);
	good("--", "relay", NULL);
	setenv("SMTP_SSL_CERTIFICATE", "a", 1);
	setenv("SMTP_SSL_CERTIFICATE_KEY", "a", 1);
	bad(CONFIG_BAD, "cannot be with socket or", "--starttls=on", "--", "r",
	    NULL);
	bad(CONFIG_BAD, "cannot be with socket or", "--socket=ssl", "--", "r",
	    NULL);
	unsetenv("SMTP_RELAY_AT");
	unsetenv("SMTP_BACKEND");
	/* Lines of the password file may name one. */
	good(NULL);
	assert_string_equal(conf.auth_provider, "file:/etc/users");
	unsetenv("SMTP_AUTH_PROVIDER");
	setenv("SMTP_AUTH", "none", 1);
	bad(CONFIG_BAD, "nothing behind", NULL);
	assert_non_null(strstr(err, "(the default)"));
	good("--backend", "mx.example.org:25", NULL);
	good("--", "relay", NULL);
	good("--auth-provider", "http://a/", NULL);
	good("--auth-http", "a", NULL);
	assert_string_equal(conf.auth_provider, "http://a");
}

static void
test_auth_clashes(void **state)
{
	(void)state;
	unsetenv("SMTP_AUTH_PROVIDER");
	bad(CONFIG_BAD, "lets nobody in", NULL);
	bad(CONFIG_BAD, "needs an auth_provider", "--smtp-auth", "plain", NULL);
	bad(CONFIG_BAD, "needs an auth_provider", "--smtp-auth", "plain none",
	    NULL);
	bad(CONFIG_BAD, "lets nobody in", "--smtp-auth", "", NULL);
	good("--smtp-auth", "none", NULL);
	good("--relay-at", "greeting", "--", "relay", NULL);
	good("--proxy-smtp-auth", "on", "--smtp-auth", "none", "--", "r", NULL);
}

/* --check's output for what is loaded; free() it. */
static char *
check_text(void)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(out);
	config_print_check(&conf, out);
	assert_int_equal(fclose(out), 0);
	return text;
}

/* Takes the comments out, in place. */
static void
drop_comments(char *text)
{
	char *out = text, *end;

	for (; *text != '\0'; text = end + 1) {
		end = strchr(text, '\n');
		assert_non_null(end);
		if (*text == '#')
			continue;
		memmove(out, text, (size_t)(end + 1 - text));
		out += end + 1 - text;
	}
	*out = '\0';
}

static void
test_round_trip(void **state)
{
	char *first, *second;

	(void)state;
	good("--smtp-capabilities", "SIZE 1", "--smtp-capabilities",
	    "'$x' `y` \"z\" \\", "--smtp-capabilities", "back\\slash", "--user",
	    "it's $HOME\\ ", "--ssl-ciphers", "a\"b", "--timeout", "1500ms",
	    "--smtp-greeting-delay", "1m", "--smtp-client-buffer", "1000",
	    "--proxy-buffer", "1m", "--smtp-auth", "none login",
	    "--auth-http-header", "X-A it's", "--socket", "ssl",
	    "--ssl-certificate", "/a b", "--ssl-certificate-key", "/#k;",
	    "--log", "journal", "--", "relay", "a\\", NULL);
	first = check_text();
	assert_non_null(strstr(first, "# from --user\nSMTP_USER="));
	assert_non_null(strstr(first, "# the default\nSMTP_MAX_ERRORS=5\n"));
	assert_non_null(strstr(first, "# from the environment\nSMTP_BACKEND="));
	assert_non_null(strstr(first, "# relay program: relay "));
	file(first);
	clearenv();
	good("--config", path, NULL);
	assert_int_equal(conf.smtp_capabilities.count, 3);
	assert_string_equal(
	    conf.smtp_capabilities.word[1], "'$x' `y` \"z\" \\");
	assert_string_equal(conf.smtp_capabilities.word[2], "back\\slash");
	assert_string_equal(conf.user, "it's $HOME\\ ");
	assert_string_equal(conf.ssl_ciphers, "a\"b");
	assert_string_equal(conf.ssl_certificate.word[0], "/a b");
	assert_string_equal(conf.auth_http_header.word[0], "X-A: it's");
	assert_int_equal(conf.timeout, 1500);
	assert_int_equal(conf.smtp_greeting_delay, 60000);
	assert_int_equal(conf.smtp_client_buffer, 1000);
	assert_int_equal(conf.proxy_buffer, 1 << 20);
	assert_true(conf.socket & CONFIG_SOCKET_SSL);
	second = check_text();
	assert_non_null(strstr(second, path));
	drop_comments(first);
	drop_comments(second);
	assert_string_equal(first, second);
	free(first);
	free(second);
}

static void
test_secret(void **state)
{
	static const char remark[] = "# (may hold a secret)\n";
	char *text;

	(void)state;
	good(NULL);
	text = check_text();
	assert_null(strstr(text, remark));
	free(text);
	good("--auth-http-header", "X-Key: 1", NULL);
	text = check_text();
	assert_non_null(strstr(text,
	    "# from --auth-http-header\n# (may hold a secret)\n"
	    "SMTP_AUTH_HTTP_HEADER="));
	assert_null(strstr(strstr(text, remark) + 1, remark));
	free(text);
}

/* Whether --check warns with these words. */
static bool
warns(const char *words)
{
	char *text = check_text(), *at, *end;
	bool found = false;

	for (at = text; (at = strstr(at, "\n# warning: ")) != NULL; at = end) {
		end = strchr(++at, '\n');
		assert_non_null(end);
		if (memmem(at, (size_t)(end - at), words, strlen(words)))
			found = true;
	}
	free(text);
	return found;
}

static void
test_warnings(void **state)
{
	(void)state;
	setenv("SMTP_SSL_CERTIFICATE", path, 1);
	setenv("SMTP_SSL_CERTIFICATE_KEY", path, 1);
	setenv("SMTP_AUTH_PROVIDER", "http://127.0.0.1:80/a", 1);
	assert_int_equal(chmod(path, 0640), 0);
	good("--starttls", "only", NULL);
	assert_false(warns(""));
	good("--starttls", "on", NULL);
	assert_true(warns("passwords are taken without TLS"));
	good("--socket", "ssl", "--smtp-auth", "login", NULL);
	assert_true(warns("PLAIN and LOGIN are taken"));
	assert_false(warns("without TLS"));
	good("--smtp-auth", "none", "--xclient", "off", NULL);
	assert_true(warns("open relay"));
	good("--smtp-auth", "none", NULL);
	assert_false(warns("open relay"));
	assert_int_equal(chmod(path, 0644), 0);
	good("--starttls", "only", NULL);
	assert_true(warns("can be read by everybody"));
	good("--ssl-password-file", "/nonexistent", NULL);
	assert_true(warns("ssl_password_file: /nonexistent cannot be read"));
	good("--auth-provider", "file:/nonexistent", NULL);
	assert_true(warns("auth_provider: /nonexistent cannot be read"));
	good("--relay-at", "greeting", "--", "relay", NULL);
	assert_false(warns("without TLS"));
}

/* A header of a proxy's: from nobody, from everybody, or not at all. */
static void
test_warnings_of_proxies(void **state)
{
	const char *to = "--backend=127.0.0.1:25", *none = "--smtp-auth=none";

	(void)state;
	good(to, none, "--socket=proxy_protocol", NULL);
	assert_true(warns("set_real_ip_from: is empty"));
	good(to, none, "--listen", "587 proxy_protocol", NULL);
	assert_true(warns("set_real_ip_from: is empty"));
	good(to, none, "--socket=proxy_protocol", "--set-real-ip-from=unix:",
	    "--set-real-ip-from=192.0.2.0/24", NULL);
	assert_int_equal(conf.set_real_ip_from.count, 2);
	assert_false(warns("set_real_ip_from"));
	good(to, none, "--set-real-ip-from=unix:", NULL);
	assert_true(warns("set_real_ip_from: has no effect"));
	good(to, none, "--listen=587 proxy_protocol",
	    "--set-real-ip-from=0.0.0.0/0", NULL);
	assert_true(warns("set_real_ip_from: whoever"));
	bad(CONFIG_USAGE, "must be an address, a network",
	    "--set-real-ip-from=192.0.2.1/24", NULL);
	bad(CONFIG_USAGE, "must be an address, a network",
	    "--set-real-ip-from=proxy.example", NULL);
	good("--socket=ssl proxy_protocol", "--ssl-certificate=a",
	    "--ssl-certificate-key=b", NULL);
	assert_int_equal(conf.socket, CONFIG_SOCKET_SSL | CONFIG_SOCKET_PROXY);
}

static void
test_warnings_of_guessing(void **state)
{
	(void)state;
	good("--auth-provider=file:/x", NULL);
	assert_true(conf.auth_penalty);
	assert_int_equal(conf.auth_penalty_exempt.count, 2);
	assert_false(warns("auth_penalty"));
	good("--auth-provider=file:/x", "--auth-penalty=off", NULL);
	assert_true(warns("auth_penalty: passwords can be guessed"));
	good("--auth-provider=file:/x", "--auth-penalty-exempt=192.0.2.0/24",
	    "--auth-penalty-exempt=::/0", NULL);
	assert_true(warns("auth_penalty_exempt: whoever"));
	good("--smtp-auth=none", "--auth-provider=", "--auth-penalty=off",
	    NULL);
	assert_false(warns("auth_penalty"));
	bad(CONFIG_USAGE, "must be an address, a network",
	    "--auth-penalty-exempt=192.0.2.1/24", NULL);
}

/* Its penalties are no failures. */
static void
test_warning_of_haste(void **state)
{
	(void)state;
	good("--auth-provider", "dovecot:/run/x", NULL);
	assert_false(warns("auth_timeout"));
	good("--auth-provider", "dovecot:/run/x", "--auth-timeout", "17s",
	    NULL);
	assert_true(warns("auth_timeout: Dovecot delays"));
	good("--auth-provider", "file:/x", "--auth-timeout", "1s", NULL);
	assert_false(warns("auth_timeout"));
}

static void
test_warning_of_far_providers(void **state)
{
	static const char *const near[] = {"http://localhost/",
	    "http://[::1]:1", "http://127.0.0.2", "http://u:p@127.0.0.1:9/a@b",
	    "https://far/", "http+unix:///run/x", "dovecot:/run/x",
	    "dovecot:unix:/run/x", "dovecot:localhost:1", "dovecot:[::1]:1"};
	static const char *const far[] = {"http://far/", "http://127.0.0.1.a/",
	    "http://127.0.0.1@far/", "http://localhost.a:80/x",
	    "http://[::2]/", "dovecot:far:1", "dovecot:127.0.0.1.a:1"};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(near) / sizeof(*near); i++) {
		good("--auth-provider", near[i], NULL);
		assert_false(warns("in the clear"));
	}
	for (i = 0; i < sizeof(far) / sizeof(*far); i++) {
		good("--auth-provider", far[i], NULL);
		assert_true(warns("in the clear"));
	}
}

/* Rows of the table, with those that are another name for a row, or without. */
static unsigned
count_rows(bool aliases)
{
	const struct directive *d;
	unsigned n = 0;

	for (d = config_table_rows; d->name != NULL; d++)
		n += aliases || d->fallback != NULL;
	return n;
}

static unsigned
count_options(void)
{
	const struct option *o;
	unsigned n = 0;

	for (o = config_table_options; o->name != NULL; o++)
		n++;
	return n;
}

/*
 * Each name once, each with a line of help below a group's title, none wider
 * than a terminal. --check has none that nginx has for a row.
 */
static void
test_help(void **state)
{
	char *text = NULL, *line, *save, *end, name[64], *again;
	bool in_group = false, expect = false;
	unsigned names = 0;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	char *copy;

	(void)state;
	config_print_help(out);
	assert_int_equal(fclose(out), 0);
	copy = strdup(text);
	for (line = strtok_r(text, "\n", &save); line != NULL;
	     line = strtok_r(NULL, "\n", &save)) {
		assert_true(strlen(line) <= 80);
		if (expect) {
			assert_int_equal(strncmp(line, "      ", 6), 0);
			assert_true(line[6] > ' ');
		}
		expect = strncmp(line, "  --", 4) == 0;
		if (line[0] != ' ')
			in_group = true;
		if (!expect)
			continue;
		assert_true(in_group);
		end = line + 2 + strcspn(line + 2, " ,\n");
		(void)snprintf(
		    name, sizeof(name), "\n%.*s", (int)(end - line), line);
		again = strstr(copy, name);
		assert_non_null(again);
		len = strlen(name);
		while ((again = strstr(again + 1, name)) != NULL)
			assert_null(strchr(" ,\n", again[len]));
		names++;
	}
	assert_false(expect);
	assert_int_equal(names, count_rows(true) + count_options());
	free(text);
	free(copy);
}

/* Every variable that --check prints is known by its argument, too. */
static void
test_names(void **state)
{
	char *text, *line, *save, *help = NULL, name[64], *p;
	unsigned names = 0;
	size_t len;
	FILE *out = open_memstream(&help, &len);

	(void)state;
	config_print_help(out);
	assert_int_equal(fclose(out), 0);
	good(NULL);
	text = check_text();
	drop_comments(text);
	for (line = strtok_r(text, "\n", &save); line != NULL;
	     line = strtok_r(NULL, "\n", &save)) {
		names++;
		assert_int_equal(strncmp(line, "SMTP_", 5), 0);
		line[strcspn(line, "=")] = '\0';
		(void)snprintf(name, sizeof(name), "\n  --%s ", line);
		for (p = name; *p != '\0'; p++)
			*p = (char)(*p == '_'		     ? '-'
				    : *p >= 'A' && *p <= 'Z' ? *p - 'A' + 'a'
							     : *p);
		if (strstr(help, name) != NULL)
			continue;
		memmove(name + 5, name + 10, strlen(name + 10) + 1);
		if (strstr(help, name) == NULL)
			fail_msg("%s", line);
	}
	assert_int_equal(names, count_rows(false));
	free(text);
	free(help);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(test_defaults, setup),
	    cmocka_unit_test_setup(test_server_name, setup),
	    cmocka_unit_test_setup(test_switch_and_words, setup),
	    cmocka_unit_test_setup(test_sets, setup),
	    cmocka_unit_test_setup(test_numbers, setup),
	    cmocka_unit_test_setup(test_sizes, setup),
	    cmocka_unit_test_setup(test_times, setup),
	    cmocka_unit_test_setup(test_texts, setup),
	    cmocka_unit_test_setup(test_lists, setup),
	    cmocka_unit_test_setup(test_capabilities, setup),
	    cmocka_unit_test_setup(test_backends, setup),
	    cmocka_unit_test_setup(test_providers, setup),
	    cmocka_unit_test_setup(test_tokens, setup),
	    cmocka_unit_test_setup(test_checkpassword, setup),
	    cmocka_unit_test_setup(test_pam, setup),
	    cmocka_unit_test_setup(test_auth_http, setup),
	    cmocka_unit_test_setup(test_auth_timeout, setup),
	    cmocka_unit_test_setup(test_headers, setup),
	    cmocka_unit_test_setup(test_arguments, setup),
	    cmocka_unit_test_setup(test_help_wins, setup),
	    cmocka_unit_test_setup(test_relay, setup),
	    cmocka_unit_test_setup(test_precedence, setup),
	    cmocka_unit_test_setup(test_unknown, setup),
	    cmocka_unit_test_setup(test_file_format, setup),
	    cmocka_unit_test_setup(test_file_refused, setup),
	    cmocka_unit_test_setup(test_tls_clashes, setup),
	    cmocka_unit_test_setup(test_client_certificates, setup),
	    cmocka_unit_test_setup(test_upstream_clashes, setup),
	    cmocka_unit_test_setup(test_auth_clashes, setup),
	    cmocka_unit_test_setup(test_round_trip, setup),
	    cmocka_unit_test_setup(test_secret, setup),
	    cmocka_unit_test_setup(test_warnings, setup),
	    cmocka_unit_test_setup(test_warnings_of_proxies, setup),
	    cmocka_unit_test_setup(test_warning_of_far_providers, setup),
	    cmocka_unit_test_setup(test_warning_of_haste, setup),
	    cmocka_unit_test_setup(test_warnings_of_guessing, setup),
	    cmocka_unit_test_setup(test_help, setup),
	    cmocka_unit_test_setup(test_names, setup),
	};
	int fd = mkstemp(path), failed;

	if (fd == -1)
		return 1;
	(void)close(fd);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	(void)unlink(path);
	return failed;
}
