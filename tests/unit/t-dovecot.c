/*
 * auth/dovecot.c against an auth server of our own: a thread that listens on a
 * UNIX socket and on 127.0.0.1, keeps the lines it gets, and greets and answers
 * with what the test has laid down, well formed or not, or never. With Dovecot
 * itself it is tried in tests/wire/test_dovecot.py.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "auth/dovecot.h"
#include "lib/clock.h"
#include "lib/text.h"

extern const struct auth_provider auth_provider;

#define MAX_CONNECTIONS 4
#define MAX_LINES	8
#define LENGTH(a)	(sizeof(a) / sizeof((a)[0]))

#define MECHS                                         \
	"MECH\tPLAIN\tplaintext\n"                    \
	"MECH\tLOGIN\tplaintext\n"                    \
	"MECH\tCRAM-MD5\tdictionary\tactive\n"        \
	"MECH\tSCRAM-SHA-256\tmutual-auth\n"          \
	"MECH\tSCRAM-SHA-256-PLUS\tmutual-auth\t"     \
	"channel-binding\n"                           \
	"MECH\tXOAUTH2\tplaintext\n"                  \
	"MECH\tANONYMOUS\tanonymous\n"                \
	"MECH\tAPOP\tprivate\tdictionary\tactive\n"
#define REST	"SPID\t12\nCUID\t3\nCOOKIE\tc0ffee\nDONE\n"
#define GREETING "VERSION\t1\t2\n" MECHS REST

/* Behind the last answer: the end of the connection instead of silence. */
static const char close_now[] = "close";

/* What is said on one connection: at its beginning, and to each line. */
struct script {
	const char *greeting;
	const char *answer[MAX_LINES];
};

static struct {
	pthread_t thread;
	int listener[2], port, stop[2];
	char dir[32], path[64];
	struct script script[MAX_CONNECTIONS];
	unsigned connections;
	char hello[2][64];			/* VERSION and CPID, the last */
	char line[MAX_CONNECTIONS][MAX_LINES][20000];
} server;

static struct config conf;
static struct message question, verdict;
static void *provider, *exchange;

/* --- the server ---------------------------------------------------------- */

/* -1 at the end. */
static int
read_line(FILE *in, char *to, size_t size)
{
	if (fgets(to, (int)size, in) == NULL)
		return -1;
	to[strcspn(to, "\n")] = '\0';
	return 0;
}

static void
say(int fd, const char *text)
{
	if (text != NULL)
		(void)send(fd, text, strlen(text), MSG_NOSIGNAL);
}

static void
converse(int fd, const struct script *s, char (*line)[20000])
{
	FILE *in = fdopen(fd, "r");
	unsigned i;
	char c;

	if (read_line(in, server.hello[0], sizeof(server.hello[0])) == 0 &&
	    read_line(in, server.hello[1], sizeof(server.hello[1])) == 0 &&
	    s->greeting != close_now) {
		say(fd, s->greeting);
		for (i = 0; i < MAX_LINES && s->answer[i] != close_now; i++) {
			if (read_line(in, line[i], sizeof(line[i])) == -1)
				break;
			say(fd, s->answer[i]);
		}
		if (i == MAX_LINES)
			while (read(fd, &c, 1) > 0)
				;
	}
	(void)fclose(in);
}

static void *
serve_one(void *arg)
{
	int fd = (int)(intptr_t)arg;
	unsigned i = server.connections++;
	struct script s = server.script[i];

	converse(fd, &s, server.line[i]);
	return NULL;
}

/* Each connection in a thread of its own: one may wait while another serves. */
static void *
serve(void *arg)
{
	struct pollfd fds[3] = {{server.listener[0], POLLIN, 0},
	    {server.listener[1], POLLIN, 0}, {server.stop[0], POLLIN, 0}};
	pthread_t thread;
	int i, fd;

	while (poll(fds, 3, -1) > 0 && fds[2].revents == 0)
		for (i = 0; i < 2; i++) {
			if (fds[i].revents == 0)
				continue;
			fd = accept4(fds[i].fd, NULL, NULL, SOCK_CLOEXEC);
			if (server.connections >= MAX_CONNECTIONS ||
			    pthread_create(&thread, NULL, serve_one,
				(void *)(intptr_t)fd) != 0)
				(void)close(fd);
			else
				(void)pthread_detach(thread);
		}
	return arg;
}

static int
listen_at(const void *addr, socklen_t len)
{
	int fd = socket(((const struct sockaddr *)addr)->sa_family,
	    SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (bind(fd, addr, len) == -1 || listen(fd, 8) == -1)
		abort();
	return fd;
}

static int
start_server(void **state)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(sin);

	(void)state;
	(void)snprintf(server.dir, sizeof(server.dir), "/tmp/t-dove-XXXXXX");
	if (mkdtemp(server.dir) == NULL || pipe(server.stop) == -1)
		return -1;
	(void)snprintf(server.path, sizeof(server.path), "%s/s", server.dir);
	(void)snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", server.path);
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	server.listener[0] = listen_at(&sun, sizeof(sun));
	server.listener[1] = listen_at(&sin, sizeof(sin));
	if (getsockname(server.listener[1], (void *)&sin, &len) == -1)
		return -1;
	server.port = ntohs(sin.sin_port);
	return pthread_create(&server.thread, NULL, serve, NULL);
}

static int
stop_server(void **state)
{
	(void)state;
	(void)close(server.stop[1]);
	(void)pthread_join(server.thread, NULL);
	(void)close(server.listener[0]);
	(void)close(server.listener[1]);
	(void)unlink(server.path);
	return rmdir(server.dir);
}

/* --- a test -------------------------------------------------------------- */

static void
new_question(void)
{
	message_wipe(&question);
	message_init(&question, ASK_VERDICT);
	message_put(&question, M_METHOD, "plain");
	message_put(&question, M_USER, "jo");
	message_put(&question, M_PASSWORD, "secret");
}

static void
use(const char *value)
{
	char error[AUTH_ERROR_SIZE] = "";

	auth_provider.close(provider);
	provider = auth_provider.open(value, &conf, error);
	assert_non_null(provider);
}

/* The scripts of the connections to come. */
static void
lay_down(const struct script *scripts, size_t n)
{
	memcpy(server.script, scripts, n * sizeof(*scripts));
	server.connections = 0;
	memset(server.line, 0, sizeof(server.line));
}

#define SCRIPT(...)                                                      \
	lay_down((const struct script[]){__VA_ARGS__},                   \
	    sizeof((const struct script[]){__VA_ARGS__}) /               \
		sizeof(struct script))

static int
begin(void **state)
{
	static char value[80];

	(void)state;
	memset(&conf, 0, sizeof(conf));
	conf.auth_timeout = 5000;
	conf.resolver = "";
	memset(server.script, 0, sizeof(server.script));
	server.connections = 0;
	new_question();
	(void)snprintf(value, sizeof(value), "dovecot:%s", server.path);
	use(value);
	return 0;
}

static int
end(void **state)
{
	(void)state;
	auth_provider.exchange_free(provider, exchange);
	exchange = NULL;
	auth_provider.close(provider);
	provider = NULL;
	return 0;
}

static enum auth_result
judge(void)
{
	message_wipe(&verdict);
	message_init(&verdict, ANSWER_VERDICT);
	return auth_provider.judge(provider, &question, &verdict);
}

/* The first step, or (`mechanism` NULL) another one. */
static enum auth_result
step(const char *mechanism, const char *response)
{
	message_put(&question, M_MECHANISM, mechanism);
	message_init(&verdict, ANSWER_CHALLENGE);
	if (response != NULL)
		message_put_bytes(
		    &question, M_RESPONSE, response, strlen(response));
	return auth_provider.exchange(
	    provider, &exchange, &question, &verdict);
}

/* As a new session's first step would be. */
static enum auth_result
first_step(const char *mechanism, const char *response)
{
	auth_provider.exchange_free(provider, exchange);
	exchange = NULL;
	message_wipe(&question);
	message_init(&question, ASK_EXCHANGE);
	return step(mechanism, response);
}

static void
assert_field(enum message_field f, const char *want)
{
	const char *got = message_get(&verdict, f);

	if (want == NULL) {
		assert_null(got);
		return;
	}
	assert_non_null(got);
	assert_string_equal(got, want);
}

static void
assert_unavailable(enum auth_result result, const char *why)
{
	int f;

	assert_int_equal(result, AUTH_UNAVAILABLE);
	if (strstr(message_text(&verdict, M_REASON), why) == NULL)
		fail_msg("%s: %s", why, message_text(&verdict, M_REASON));
	for (f = 0; f < MESSAGE_FIELD_COUNT; f++)
		assert_true(f == M_REASON || f == M_USER ||
		    verdict.field[f].at == 0);
}

static void
assert_challenge(const char *want)
{
	size_t len = 0;
	const void *got = message_get_bytes(&verdict, M_CHALLENGE, &len);

	assert_non_null(got);
	assert_int_equal(len, strlen(want));
	assert_memory_equal(got, want, len);
}

/* --- lines --------------------------------------------------------------- */

static void
parses_lines(void **state)
{
	struct dovecot_line line;
	char text[512], many[DOVECOT_FIELDS_MAX + 2];
	size_t i;
	static const struct {
		const char *text;
		size_t len, count;
		const char *second; /* NULL: it is no line */
	} cases[] = {
	    {"OK\t1", 4, 2, "1"},
	    {"OK\t", 3, 2, ""},
	    {"OK\t1\t\t", 6, 4, "1"},
	    {"OK\t\001t\001n\001r\0011\001x", 13, 2, "\t\n\r\001x"},
	    {"OK\t\001\001t", 6, 2, "\001t"},
	    {"OK\ta\001", 5, 0, NULL},
	    {"OK\001\ta", 5, 0, NULL},
	    {"OK\ta\0010b", 7, 0, NULL},
	    {"OK\ta\0b", 6, 0, NULL},
	};

	(void)state;
	for (i = 0; i < LENGTH(cases); i++) {
		memcpy(text, cases[i].text, cases[i].len);
		if (cases[i].second == NULL) {
			assert_int_equal(dovecot_line_parse(
			    &line, text, cases[i].len), -1);
			continue;
		}
		assert_int_equal(
		    dovecot_line_parse(&line, text, cases[i].len), 0);
		assert_int_equal(line.count, cases[i].count);
		assert_string_equal(line.field[0], "OK");
		assert_string_equal(line.field[1], cases[i].second);
	}
	memset(many, '\t', sizeof(many));
	assert_int_equal(dovecot_line_parse(
	    &line, many, DOVECOT_FIELDS_MAX - 1), 0);
	assert_int_equal(line.count, DOVECOT_FIELDS_MAX);
	memset(many, '\t', sizeof(many));
	assert_int_equal(
	    dovecot_line_parse(&line, many, DOVECOT_FIELDS_MAX), -1);
}

static void
finds_values(void **state)
{
	char text[] = "OK\tuser=no\tuser=a\tusers=b\tproxy\tx=\tuser=c=d\tuse";
	struct dovecot_line line;

	(void)state;
	assert_int_equal(
	    dovecot_line_parse(&line, text, sizeof(text) - 1), 0);
	assert_string_equal(dovecot_line_value(&line, 2, "user"), "c=d");
	assert_string_equal(dovecot_line_value(&line, 1, "users"), "b");
	assert_string_equal(dovecot_line_value(&line, 1, "proxy"), "");
	assert_string_equal(dovecot_line_value(&line, 1, "x"), "");
	assert_null(dovecot_line_value(&line, 1, "OK"));
	assert_null(dovecot_line_value(&line, 1, "us"));
	assert_true(dovecot_line_is(&line, "OK", 8));
	assert_false(dovecot_line_is(&line, "OK", 9));
	assert_false(dovecot_line_is(&line, "O", 1));
}

static void
builds_lines(void **state)
{
	static struct dovecot_command c;
	static char filler[DOVECOT_LINE_SIZE];

	(void)state;
	dovecot_line_begin(&c, "AUTH", 4294967295);
	dovecot_line_word(&c, "PLAIN");
	dovecot_line_field(&c, "k", "a\tb\nc\rd\001e");
	dovecot_line_field(&c, "nothing", NULL);
	dovecot_line_base64(&c, "resp=", "", 0);
	dovecot_line_base64(&c, "", "\0a", 2);
	dovecot_line_end(&c);
	assert_false(c.overflow);
	c.text[c.len] = '\0';
	assert_string_equal(c.text,
	    "AUTH\t4294967295\tPLAIN\tk=a\001tb\001nc\001rd\0011e\tnothing\t"
	    "resp=\tAGE=\n");

	memset(filler, 'x', sizeof(filler));
	dovecot_line_begin(&c, "AUTH", 1);
	filler[DOVECOT_LINE_SIZE - 8] = '\0';
	dovecot_line_word(&c, filler);
	dovecot_line_end(&c);
	assert_false(c.overflow);
	assert_int_equal(c.len, DOVECOT_LINE_SIZE);
	dovecot_line_end(&c);
	assert_true(c.overflow);
	dovecot_line_begin(&c, "AUTH", 1);
	dovecot_line_base64(&c, "", filler, DOVECOT_LINE_SIZE / 4 * 3);
	assert_true(c.overflow);
	dovecot_line_begin(&c, "AUTH", 1);
	dovecot_line_base64(&c, "", filler, SIZE_MAX);
	assert_true(c.overflow);
}

/* --- the handshake ------------------------------------------------------- */

static void
introduces_itself(void **state)
{
	char first[64];

	(void)state;
	SCRIPT({GREETING, {"OK\t1\tuser=jo\n", close_now}},
	    {GREETING, {"OK\t1\tuser=jo\n"}});
	assert_int_equal(judge(), AUTH_ACCEPTED);
	assert_string_equal(server.hello[0], "VERSION\t1\t4");
	assert_memory_equal(server.hello[1], "CPID\t", 5);
	(void)text_copy(first, sizeof(first), server.hello[1]);
	assert_int_equal(judge(), AUTH_ACCEPTED);
	assert_int_equal(server.connections, 2);
	/* The server hangs up on one that has another's. */
	assert_string_not_equal(server.hello[1], first);
}

static void
takes_greetings(void **state)
{
	static const char *const good[] = {
	    "VERSION\t1\t0\nMECH\tPLAIN\nDONE\n",
	    "VERSION\t1\t99\tmore\nNEW\tthing\n\nMECH\nMECH\tplain\nSPID\n"
	    "MECH\tPLAIN\nMECH\tTOO-LONG-FOR-THE-NAME-OF-A-MECHANISM\nDONE\n",
	};
	static char many[400 * 16];
	static const struct {
		const char *greeting, *why;
	} bad[] = {
	    {"VERSION\t2\t0\n" MECHS REST, "another one"},
	    {"VERSION\t1\n" MECHS REST, "no auth server"},
	    {MECHS REST, "no auth server"},
	    {"220 mail.example ESMTP\r\n", "no auth server"},
	    {"VERSION\t1\t2\nDONE\n", "no mechanism"},
	    {"VERSION\t1\t2\nMECH\tPLAIN\ta\001\nDONE\n", "malformed"},
	    {many, "no end"},
	    {close_now, "hung up"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(good); i++) {
		SCRIPT({good[i], {"OK\t1\tuser=jo\n", close_now}});
		assert_int_equal(judge(), AUTH_ACCEPTED);
	}
	(void)snprintf(many, sizeof(many), "VERSION\t1\t2\n");
	for (i = 0; i < 300; i++)
		(void)strncat(many, "MECH\tPLAIN\n",
		    sizeof(many) - strlen(many) - 1);
	for (i = 0; i < LENGTH(bad); i++) {
		SCRIPT({bad[i].greeting, {NULL}});
		assert_unavailable(judge(), bad[i].why);
	}
}

static void
bounds_a_greeting(void **state)
{
	static char endless[2 * DOVECOT_LINE_SIZE];
	int64_t began;

	(void)state;
	memset(endless, 'x', sizeof(endless) - 1);
	SCRIPT({endless, {NULL}});
	assert_unavailable(judge(), "too long");

	/* As auth-master begins, and as a stopped server does. */
	conf.auth_timeout = 200;
	began = clock_ms();
	SCRIPT({"VERSION\t1\t2\nSPID\t7\n", {NULL}}, {NULL, {NULL}});
	assert_unavailable(judge(), "is it for clients?");
	assert_unavailable(judge(), "in time");
	assert_in_range(clock_ms() - began, 400, 3000);
}

static void
finds_no_server(void **state)
{
	char error[AUTH_ERROR_SIZE] = "";

	(void)state;
	use("dovecot:/nonexistent/socket");
	assert_unavailable(judge(), "No such file");
	use("dovecot:127.0.0.1:1");
	assert_unavailable(judge(), "refused");
	use("dovecot:nonsense");
	assert_unavailable(judge(), "not host:port");
	assert_null(auth_provider.open("file:/x", &conf, error));
	assert_non_null(strstr(error, "not dovecot:"));
}

static void
goes_over_tcp(void **state)
{
	char value[64];

	(void)state;
	(void)snprintf(
	    value, sizeof(value), "dovecot:127.0.0.1:%d", server.port);
	use(value);
	SCRIPT({GREETING, {"OK\t1\tuser=jo\n"}});
	assert_int_equal(judge(), AUTH_ACCEPTED);
}

/* --- what AUTH says ------------------------------------------------------ */

static void
tells_little(void **state)
{
	(void)state;
	SCRIPT({GREETING, {"OK\t1\tuser=jo\n"}});
	message_put(&question, M_CLIENT_ADDR, "");
	message_put(&question, M_CLIENT_PORT, "0");
	assert_int_equal(judge(), AUTH_ACCEPTED);
	assert_string_equal(server.line[0][0],
	    "AUTH\t1\tPLAIN\tservice=smtp\tnologin\tresp=AGpvAHNlY3JldA==");
}

static void
tells_all_facts(void **state)
{
	(void)state;
	SCRIPT({GREETING, {"OK\t1\tuser=jo\n"}});
	message_put(&question, M_SESSION, "5e551");
	message_put(&question, M_CLIENT_ADDR, "2001:db8::1");
	message_put(&question, M_CLIENT_PORT, "4711");
	message_put(&question, M_LOCAL_ADDR, "192.0.2.2");
	message_put(&question, M_LOCAL_PORT, "587");
	message_put(&question, M_REAL_ADDR, "192.0.2.3");
	message_put(&question, M_REAL_PORT, "4712");
	message_put(&question, M_REAL_LOCAL_ADDR, "192.0.2.4");
	message_put(&question, M_REAL_LOCAL_PORT, "588");
	message_put(&question, M_TLS_PROTOCOL, "TLSv1.3");
	message_put(&question, M_TLS_CIPHER, "AES");
	message_put(&question, M_SERVER_NAME, "a\tsecured\nb");
	message_put(&question, M_TLS_VERIFY, "SUCCESS");
	message_put(&question, M_CERTIFICATE_USER, "jo\001");
	assert_int_equal(judge(), AUTH_ACCEPTED);
	assert_string_equal(server.line[0][0],
	    "AUTH\t1\tPLAIN\tservice=smtp\tnologin\tsecured=tls\t"
	    "valid-client-cert\tcert_username=jo\0011\tsession=5e551\t"
	    "lip=192.0.2.2\trip=2001:db8::1\tlport=587\trport=4711\t"
	    "real_lip=192.0.2.4\treal_rip=192.0.2.3\treal_lport=588\t"
	    "real_rport=4712\tlocal_name=a\001tsecured\001nb\t"
	    "tls_protocol=TLSv1.3\ttls_cipher=AES\tresp=AGpvAHNlY3JldA==");
}

/* A name in a certificate is worth what the certificate is. */
static void
tells_of_valid_certificates(void **state)
{
	(void)state;
	SCRIPT({GREETING, {"FAIL\t1\n", "FAIL\t2\n"}});
	message_put(&question, M_TLS_VERIFY, "FAILED:self-signed");
	message_put(&question, M_CERTIFICATE_USER, "jo");
	assert_int_equal(judge(), AUTH_DENIED);
	assert_null(strstr(server.line[0][0], "cert"));
	new_question();
	message_put(&question, M_TLS_VERIFY, "SUCCESS");
	assert_int_equal(judge(), AUTH_DENIED);
	assert_non_null(
	    strstr(server.line[0][1], "\tvalid-client-cert\tresp="));
}

static void
calls_secured_what_is(void **state)
{
	static const struct {
		const char *client, *local, *tls;
		bool secured;
	} cases[] = {
	    {"192.0.2.1", "192.0.2.2", NULL, false},
	    {"192.0.2.1", "192.0.2.1", NULL, true},
	    {"192.0.2.1", "192.0.2.2", "TLSv1.2", true},
	    {"unix:", "", NULL, true},
	    {"", "", NULL, false},
	    {"127.0.0.1", "192.0.2.2", NULL, false},
	};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(cases); i++) {
		new_question();
		message_put(&question, M_CLIENT_ADDR, cases[i].client);
		message_put(&question, M_LOCAL_ADDR, cases[i].local);
		message_put(&question, M_TLS_PROTOCOL, cases[i].tls);
		assert_int_equal(dovecot_question_is_secured(&question),
		    cases[i].secured);
	}
}

static void
judges_plain_alone(void **state)
{
	static char huge[5000];

	(void)state;
	SCRIPT({GREETING, {NULL}});
	message_put(&question, M_METHOD, "external");
	assert_unavailable(judge(), "no such method");
	new_question();
	memset(huge, 'x', sizeof(huge) - 1);
	message_put(&question, M_PASSWORD, huge);
	assert_int_equal(judge(), AUTH_DENIED);
	assert_int_equal(server.connections, 0);
	/* A server without PLAIN. */
	new_question();
	SCRIPT({"VERSION\t1\t2\nMECH\tCRAM-MD5\nDONE\n", {NULL}});
	assert_int_equal(judge(), AUTH_DENIED);
	assert_field(M_CODE, "504 5.5.4");
}

/* --- the answers --------------------------------------------------------- */

static void
maps_refusals(void **state)
{
	static const struct {
		const char *fields;
		enum auth_result result;
		const char *code, *reason;
	} cases[] = {
	    {"", AUTH_DENIED, NULL, "refused"},
	    {"\tnodelay", AUTH_DENIED, NULL, "refused"},
	    {"\tcode=new", AUTH_DENIED, NULL, "refused"},
	    {"\treason=Go away", AUTH_DENIED, "535 5.7.8", "Go away"},
	    {"\treason=", AUTH_DENIED, NULL, "refused"},
	    {"\tcode=temp_fail", AUTH_UNAVAILABLE, NULL,
		"auth server: temporary failure"},
	    {"\tcode=temp_fail\treason=x", AUTH_UNAVAILABLE, NULL,
		"auth server: temporary failure"},
	    {"\ttemp", AUTH_UNAVAILABLE, NULL,
		"auth server: temporary failure"},
	    {"\tcode=authz_fail", AUTH_DENIED, "535 5.7.8",
		"Authorization failed"},
	    {"\tauthz", AUTH_DENIED, "535 5.7.8", "Authorization failed"},
	    {"\tcode=user_disabled", AUTH_DENIED, "525 5.7.13",
		"This account is disabled"},
	    {"\tuser_disabled", AUTH_DENIED, "525 5.7.13",
		"This account is disabled"},
	    {"\tcode=user_disabled\treason=Unpaid", AUTH_DENIED,
		"525 5.7.13", "Unpaid"},
	    {"\tcode=pass_expired", AUTH_DENIED, "535 5.7.8",
		"The password has expired"},
	    {"\tcode=invalid_base64", AUTH_DENIED, "501 5.5.2",
		"This is not base64"},
	    {"\tcode=auth_mech_invalid", AUTH_DENIED, "504 5.5.4",
		"No such mechanism"},
	    {"\tcode=auth_mech_ssl_required", AUTH_DENIED, "523 5.7.10",
		"This mechanism needs TLS"},
	    {"\tcode=anonymous_denied", AUTH_DENIED, "525 5.7.13",
		"Nobody logs in without a name"},
	    /* the client's reply, and its log */
	    {"\treason=a\001r\001nb\001tc\303\244\177d", AUTH_DENIED,
		"535 5.7.8", "abc??d"},
	};
	static char answer[256]; /* the server may outlive us a little */
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(cases); i++) {
		(void)snprintf(answer, sizeof(answer),
		    "FAIL\t1\tuser=Jo%s\n", cases[i].fields);
		SCRIPT({GREETING, {answer, close_now}});
		assert_int_equal(judge(), cases[i].result);
		assert_field(M_CODE, cases[i].code);
		assert_field(M_REASON, cases[i].reason);
		assert_field(M_USER, "Jo");
	}
}

static void
names_refused_users_with_care(void **state)
{
	static char answer[1024];

	(void)state;
	SCRIPT({GREETING, {"FAIL\t1\tuser=a\001nb\n", answer, "FAIL\t3\n"}});
	assert_int_equal(judge(), AUTH_DENIED);
	assert_field(M_USER, NULL);
	(void)snprintf(answer, sizeof(answer), "FAIL\t2\tuser=%0600d\n", 0);
	assert_int_equal(judge(), AUTH_DENIED);
	assert_field(M_USER, NULL);
	assert_int_equal(judge(), AUTH_DENIED);
	assert_field(M_USER, NULL);
}

/* OK with these fields is a yes for nobody. */
static void
distrusts_ok(void **state)
{
	static const struct {
		const char *fields;
		enum auth_result result;
		const char *code, *reason;
	} cases[] = {
	    {"", AUTH_UNAVAILABLE, NULL, "without a user"},
	    {"\tuser=", AUTH_UNAVAILABLE, NULL, "without a user"},
	    {"\tuser", AUTH_UNAVAILABLE, NULL, "without a user"},
	    {"\tuser=a\001nb", AUTH_UNAVAILABLE, NULL, "without a user"},
	    {"\tuser=jo\tnologin", AUTH_DENIED, "525 5.7.13",
		"There is no login for this user"},
	    {"\tuser=jo\tnologin=\treason=On leave", AUTH_DENIED,
		"525 5.7.13", "On leave"},
	    {"\tuser=jo\tnologin=y\tcode=temp_fail", AUTH_DENIED,
		"525 5.7.13", "There is no login for this user"},
	    {"\tuser=jo\tnologin\thost=other", AUTH_DENIED, "525 5.7.13",
		"There is no login for this user"},
	    {"\tuser=anonymous\tanonymous", AUTH_DENIED, "525 5.7.13",
		"Nobody logs in without a name"},
	    {"\tuser=jo\tproxy", AUTH_UNAVAILABLE, NULL, "without a host"},
	    {"\tuser=jo\tproxy\thost=", AUTH_UNAVAILABLE, NULL,
		"without a host"},
	    {"\tuser=jo\tproxy\thost=a b", AUTH_UNAVAILABLE, NULL,
		"host is not valid"},
	    {"\tuser=jo\tproxy\thost=unix:/x", AUTH_UNAVAILABLE, NULL,
		"host is not valid"},
	    {"\tuser=jo\tproxy\thost=h\tport=0", AUTH_UNAVAILABLE, NULL,
		"port is not valid"},
	    {"\tuser=jo\tproxy\thost=h\tport=25x", AUTH_UNAVAILABLE, NULL,
		"port is not valid"},
	    {"\tuser=jo\tproxy\thost=h\tdestuser=a\001nb",
		AUTH_UNAVAILABLE, NULL, "user is not valid"},
	    {"\tuser=jo\tproxy\thost=h\tmaster=root", AUTH_UNAVAILABLE,
		NULL, "master user"},
	};
	static char answer[256]; /* the server may outlive us a little */
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(cases); i++) {
		(void)snprintf(answer, sizeof(answer), "OK\t1%s\n",
		    cases[i].fields);
		SCRIPT({GREETING, {answer, close_now}});
		if (cases[i].result == AUTH_UNAVAILABLE) {
			assert_unavailable(judge(), cases[i].reason);
			continue;
		}
		assert_int_equal(judge(), cases[i].result);
		assert_field(M_CODE, cases[i].code);
		assert_field(M_REASON, cases[i].reason);
	}
}

static void
accepts_users(void **state)
{
	(void)state;
	SCRIPT({GREETING, {"OK\t1\tuser=jo@example\toriginal_user=jo\n",
	    "OK\t2\tuser=jo\thost=other.example\tuserdb_x=y\n",
	    "OK\t3\tuser=jo\tresp=dj1h\n"}});
	assert_int_equal(judge(), AUTH_ACCEPTED);
	assert_field(M_USER, "jo@example");
	assert_field(M_BACKEND, NULL);
	assert_field(M_BACKEND_AUTH, NULL);
	assert_field(M_REASON, NULL);
	/* A referral that is but advice. */
	assert_int_equal(judge(), AUTH_ACCEPTED);
	assert_field(M_BACKEND, NULL);
	/* A last word that PLAIN has not. */
	assert_int_equal(judge(), AUTH_ACCEPTED);
	assert_field(M_USER, "jo");
}

static void
proxies(void **state)
{
	static const struct {
		const char *fields, *backend, *user, *password, *ssl, *auth;
	} cases[] = {
	    {"\tproxy\thost=h.example", "h.example:587", "jo", "secret", NULL,
		"on"},
	    {"\tproxy\thost=192.0.2.1\tport=2525\tdestuser=d\tpass=p",
		"192.0.2.1:2525", "d", "p", NULL, "on"},
	    {"\tproxy=y\thost=2001:db8::1\tnologin\tpass=",
		"[2001:db8::1]:587", "jo", "", NULL, "on"},
	    {"\tproxy\thost=h\thostip=192.0.2.9", "192.0.2.9:587", "jo",
		"secret", NULL, "on"},
	    {"\tproxy\thost=h\thostip=x", "h:587", "jo", "secret", NULL,
		"on"},
	    {"\tproxy\thost=h\tssl=yes\thostip=192.0.2.9", "h:465", "jo",
		"secret", "on verify", "on"},
	    {"\tproxy\thost=h\tssl=any-cert\thostip=::1", "[::1]:465", "jo",
		"secret", "on any-cert", "on"},
	    {"\tproxy\thost=h\tstarttls=yes", "h:587", "jo", "secret",
		"starttls verify", "on"},
	    {"\tproxy\thost=h\tstarttls=any-cert", "h:587", "jo", "secret",
		"starttls any-cert", "on"},
	    {"\tproxy\thost=h\tssl=yes\tstarttls", "h:587", "jo", "secret",
		"starttls verify", "on"},
	    {"\tproxy\thost=h\tssl=no\tstarttls=no", "h:587", "jo", "secret",
		NULL, "on"},
	    {"\tproxy\thost=h\tmaster=\tproxy_timeout=3\tproxy_noauth",
		"h:587", "jo", "secret", NULL, NULL},
	};
	static char answer[256]; /* the server may outlive us a little */
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(cases); i++) {
		(void)snprintf(answer, sizeof(answer), "OK\t1\tuser=jo%s\n",
		    cases[i].fields);
		SCRIPT({GREETING, {answer, close_now}});
		assert_int_equal(judge(), AUTH_ACCEPTED);
		assert_field(M_USER, "jo");
		assert_field(M_BACKEND, cases[i].backend);
		assert_field(M_BACKEND_USER, cases[i].user);
		assert_field(M_BACKEND_PASSWORD, cases[i].password);
		assert_field(M_BACKEND_SSL, cases[i].ssl);
		assert_field(M_BACKEND_AUTH, cases[i].auth);
	}
}

/* Whoever proved himself otherwise has no password for the backend. */
static void
proxies_without_a_password(void **state)
{
	(void)state;
	SCRIPT({GREETING, {"OK\t1\tuser=jo\tproxy\thost=h\n",
	    "OK\t2\tuser=jo\tproxy\thost=h\tproxy_noauth\n",
	    "OK\t3\tuser=jo\tproxy\thost=h\tpass=p\n"}});
	assert_unavailable(
	    first_step("CRAM-MD5", NULL), "without a password");
	assert_int_equal(first_step("CRAM-MD5", NULL), AUTH_ACCEPTED);
	assert_field(M_BACKEND_PASSWORD, NULL);
	assert_field(M_BACKEND_AUTH, NULL);
	assert_int_equal(first_step("CRAM-MD5", NULL), AUTH_ACCEPTED);
	assert_field(M_BACKEND_PASSWORD, "p");
	assert_field(M_BACKEND_AUTH, "on");
}

static void
hears_its_own_answer(void **state)
{
	static const char noise[] = "OK\t2\tuser=eve\nOK\t0\tuser=eve\n"
	    "OK\t11\tuser=eve\nOK\t-1\tuser=eve\nOK\t\tuser=eve\nOK\n"
	    "OK\t4294967297\tuser=eve\nNEW\t1\n\nok\t1\tuser=eve\nCONT\n"
	    "FAIL\nFAIL\t01\n";
	static char text[2048];

	(void)state;
	(void)snprintf(
	    text, sizeof(text), "%sOK\t1\tuser=jo\n", noise);
	/* "01" is the number 1, too. */
	SCRIPT({GREETING, {text, close_now}});
	assert_int_equal(judge(), AUTH_DENIED);
	text[strstr(text, "FAIL\t01") - text] = 'X';
	SCRIPT({GREETING, {text, close_now}});
	assert_int_equal(judge(), AUTH_ACCEPTED);
	assert_field(M_USER, "jo");
}

static void
refuses_rubbish(void **state)
{
	static char noise[64 * 8 + 1], endless[2 * DOVECOT_LINE_SIZE];
	static const struct {
		const char *text, *why;
	} cases[] = {
	    {"OK\t1\tuser=jo", "hung up"},
	    {"", "hung up"},
	    {"OK\t1\tuser=jo\001\n", "malformed"},
	    {"CONT\t1\t!\n", "not base64"},
	    {"CONT\t1\tYQ=\n", "not base64"},
	    {"CONT\t1\tYQ==\n", "more than PLAIN"},
	    {"CONT\t1\n", "more than PLAIN"},
	    {"CONT\t1\t#\tchannel_binding=tls-exporter\n", "not to be had"},
	    {"CONT\t1\t#\n", "not to be had"},
	    {noise, "without an answer"},
	    {endless, "too long"},
	};
	size_t i;

	(void)state;
	memset(endless, 'x', sizeof(endless) - 1);
	for (i = 0; i < 64; i++)
		memcpy(noise + 8 * i, "OK\t9999\n", 8);
	for (i = 0; i < LENGTH(cases); i++) {
		SCRIPT({GREETING, {cases[i].text, close_now}});
		assert_unavailable(judge(), cases[i].why);
	}
}

static void
waits_so_long(void **state)
{
	int64_t began = clock_ms();

	(void)state;
	conf.auth_timeout = 300;
	SCRIPT({GREETING, {NULL}},
	    {GREETING, {"OK\t1\tuser=jo\n", close_now}});
	assert_unavailable(judge(), "in time");
	assert_in_range(clock_ms() - began, 300, 2000);
	/* Its late answer is for nobody: on a connection of its own. */
	assert_int_equal(judge(), AUTH_ACCEPTED);
	assert_int_equal(server.connections, 2);
}

/* --- connections --------------------------------------------------------- */

static void
keeps_its_connection(void **state)
{
	(void)state;
	SCRIPT({GREETING, {"FAIL\t1\n", "OK\t2\tuser=jo\n",
	    "OK\t3\tuser=jo\nOK\t4\tuser=eve\n"}},
	    {GREETING, {"FAIL\t1\n"}});
	assert_int_equal(judge(), AUTH_DENIED);
	assert_int_equal(judge(), AUTH_ACCEPTED);
	assert_int_equal(judge(), AUTH_ACCEPTED);
	assert_int_equal(server.connections, 1);
	/* The answer to a question that was not asked yet. */
	assert_int_equal(judge(), AUTH_DENIED);
	assert_int_equal(server.connections, 2);
}

static void
tries_once_more(void **state)
{
	(void)state;
	/* It closes when it is asked the second time. */
	SCRIPT({GREETING, {"OK\t1\tuser=jo\n", "", close_now}},
	    {GREETING, {"OK\t1\tuser=joe\n", "CONT\t2\t!\n"}});
	assert_int_equal(judge(), AUTH_ACCEPTED);
	assert_int_equal(judge(), AUTH_ACCEPTED);
	assert_field(M_USER, "joe");
	assert_field(M_REASON, NULL);
	assert_int_equal(server.connections, 2);
	/* Not when it has answered, however badly. */
	assert_unavailable(judge(), "not base64");
	assert_int_equal(server.connections, 2);
	/* Nor on a connection that is new. */
	SCRIPT({GREETING, {"", close_now}}, {GREETING, {NULL}});
	assert_unavailable(judge(), "hung up");
	assert_int_equal(server.connections, 1);
}

/* --- exchanges ----------------------------------------------------------- */

static void
lists_mechanisms(void **state)
{
	char names[128];

	(void)state;
	SCRIPT({GREETING, {"OK\t1\tuser=jo\n"}});
	assert_int_equal(
	    auth_provider.mechanisms(provider, names, sizeof(names)), 0);
	assert_string_equal(names, "PLAIN CRAM-MD5 SCRAM-SHA-256 "
	    "SCRAM-SHA-256-PLUS XOAUTH2 LOGIN");
	/* What there is no room for is missed, and what is shorter not. */
	assert_int_equal(auth_provider.mechanisms(provider, names, 29), 0);
	assert_string_equal(names, "PLAIN CRAM-MD5 SCRAM-SHA-256");
	assert_int_equal(auth_provider.mechanisms(provider, names, 28), 0);
	assert_string_equal(names, "PLAIN CRAM-MD5 XOAUTH2");
	/* The same connection judges. */
	assert_int_equal(judge(), AUTH_ACCEPTED);
	assert_int_equal(server.connections, 1);
	(void)end(NULL);
	(void)begin(NULL);
	SCRIPT({close_now, {NULL}});
	assert_int_equal(
	    auth_provider.mechanisms(provider, names, sizeof(names)), -1);
}

static void
exchanges(void **state)
{
	(void)state;
	SCRIPT({GREETING, {"CONT\t1\tPDE+\n", "CONT\t1\t\n",
	    "OK\t1\tuser=jo\n"}});
	assert_int_equal(first_step("CRAM-MD5", NULL), AUTH_CHALLENGE);
	assert_challenge("<1>");
	assert_int_equal(step(NULL, "jo 0"), AUTH_CHALLENGE);
	assert_challenge("");
	assert_int_equal(step(NULL, ""), AUTH_ACCEPTED);
	assert_field(M_USER, "jo");
	assert_string_equal(
	    server.line[0][0], "AUTH\t1\tCRAM-MD5\tservice=smtp\tnologin");
	assert_string_equal(server.line[0][1], "CONT\t1\tam8gMA==");
	assert_string_equal(server.line[0][2], "CONT\t1\t");
	/* It is over. */
	assert_unavailable(step(NULL, "x"), "over");
}

static void
tells_empty_from_none(void **state)
{
	(void)state;
	SCRIPT({GREETING, {"FAIL\t1\n", "FAIL\t2\n", "FAIL\t3\tuser=jo\n"}});
	assert_int_equal(first_step("SCRAM-SHA-256", NULL), AUTH_DENIED);
	assert_int_equal(first_step("SCRAM-SHA-256", ""), AUTH_DENIED);
	assert_int_equal(first_step("SCRAM-SHA-256", "n,,"), AUTH_DENIED);
	assert_field(M_USER, "jo");
	assert_string_equal(server.line[0][0],
	    "AUTH\t1\tSCRAM-SHA-256\tservice=smtp\tnologin");
	assert_string_equal(server.line[0][1],
	    "AUTH\t2\tSCRAM-SHA-256\tservice=smtp\tnologin\tresp=");
	assert_string_equal(server.line[0][2],
	    "AUTH\t3\tSCRAM-SHA-256\tservice=smtp\tnologin\tresp=biws");
	assert_int_equal(server.connections, 1);
}

static void
has_a_last_word(void **state)
{
	(void)state;
	SCRIPT({GREETING, {"OK\t1\tuser=jo\tresp=dj1h\n",
	    "OK\t2\tuser=jo\tresp=\n", "OK\t3\tuser=jo\tresp=!\n"}});
	assert_int_equal(first_step("SCRAM-SHA-256", "n"), AUTH_ACCEPTED);
	assert_challenge("v=a");
	assert_field(M_USER, "jo");
	assert_int_equal(first_step("SCRAM-SHA-256", "n"), AUTH_ACCEPTED);
	assert_int_equal(verdict.field[M_CHALLENGE].at, 0);
	assert_unavailable(
	    first_step("SCRAM-SHA-256", "n"), "not base64");
}

static void
runs_fit_mechanisms_alone(void **state)
{
	static const struct {
		const char *name, *code;
	} cases[] = {
	    {"NTLM", "504 5.5.4"},
	    {"", "504 5.5.4"},
	    {"CRAM-MD5\tsecured", "504 5.5.4"},
	    {"APOP", "504 5.5.4"},
	    {"SCRAM-SHA-256-PLUS", "504 5.5.4"},
	    {"ANONYMOUS", "525 5.7.13"},
	    {"XOAUTH2", "523 5.7.10"},
	};
	size_t i;

	(void)state;
	SCRIPT({GREETING, {"OK\t1\tuser=jo\n"}});
	for (i = 0; i < LENGTH(cases); i++) {
		assert_int_equal(first_step(cases[i].name, "x"), AUTH_DENIED);
		assert_field(M_CODE, cases[i].code);
	}
	assert_string_equal(server.line[0][0], "");
	/* With TLS. */
	auth_provider.exchange_free(provider, exchange);
	exchange = NULL;
	new_question();
	message_put(&question, M_TLS_PROTOCOL, "TLSv1.3");
	assert_int_equal(step("XOAUTH2", "x"), AUTH_ACCEPTED);
	assert_int_equal(server.connections, 1);
}

static void
binds_the_channel(void **state)
{
	(void)state;
	SCRIPT({GREETING, {"CONT\t1\t#\tchannel_binding=tls-exporter\n",
	    "CONT\t1\tcg==\n", "CONT\t1\t#\tchannel_binding="
	    "tls-server-end-point\n", "OK\t1\tuser=jo\n",
	    "CONT\t2\t#\tchannel_binding=tls-unique\n"}});
	message_put_bytes(&question, M_BINDING_EXPORTER, "\0\1", 2);
	message_put_bytes(&question, M_BINDING_END_POINT, "\2\0", 2);
	assert_int_equal(
	    step("SCRAM-SHA-256-PLUS", "p=tls-exporter,,"), AUTH_CHALLENGE);
	assert_challenge("r");
	assert_string_equal(
	    server.line[0][1], "CONT\t1\t#\tchannel_binding=AAE=");
	/* The facts of the first step are those that count. */
	new_question();
	assert_int_equal(step(NULL, "c"), AUTH_ACCEPTED);
	assert_string_equal(
	    server.line[0][3], "CONT\t1\t#\tchannel_binding=AgA=");
	auth_provider.exchange_free(provider, exchange);
	exchange = NULL;
	message_put_bytes(&question, M_BINDING_EXPORTER, "\0\1", 2);
	assert_unavailable(
	    step("SCRAM-SHA-256-PLUS", "p=tls-unique,,"), "not to be had");
}

/* Given up in the middle, it takes its connection along. */
static void
ends_unfinished(void **state)
{
	(void)state;
	SCRIPT({GREETING, {"CONT\t1\tPDE+\n"}},
	    {GREETING, {"CONT\t1\tPDE+\n", "", close_now}});
	assert_int_equal(first_step("CRAM-MD5", NULL), AUTH_CHALLENGE);
	assert_int_equal(first_step("CRAM-MD5", NULL), AUTH_CHALLENGE);
	assert_int_equal(server.connections, 2);
	/* The server has gone: no second try, which would be another challenge. */
	assert_unavailable(step(NULL, "jo 0"), "hung up");
	assert_int_equal(server.connections, 2);
	auth_provider.exchange_free(provider, NULL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(parses_lines),
	    TEST(finds_values),
	    TEST(builds_lines),
	    TEST(introduces_itself),
	    TEST(takes_greetings),
	    TEST(bounds_a_greeting),
	    TEST(finds_no_server),
	    TEST(goes_over_tcp),
	    TEST(tells_little),
	    TEST(tells_all_facts),
	    TEST(tells_of_valid_certificates),
	    TEST(calls_secured_what_is),
	    TEST(judges_plain_alone),
	    TEST(maps_refusals),
	    TEST(names_refused_users_with_care),
	    TEST(distrusts_ok),
	    TEST(accepts_users),
	    TEST(proxies),
	    TEST(proxies_without_a_password),
	    TEST(hears_its_own_answer),
	    TEST(refuses_rubbish),
	    TEST(waits_so_long),
	    TEST(keeps_its_connection),
	    TEST(tries_once_more),
	    TEST(lists_mechanisms),
	    TEST(exchanges),
	    TEST(tells_empty_from_none),
	    TEST(has_a_last_word),
	    TEST(runs_fit_mechanisms_alone),
	    TEST(binds_the_channel),
	    TEST(ends_unfinished),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name(
	    "dovecot", tests, start_server, stop_server);
}
