/*
 * auth/http.c against an auth server of our own: a thread that listens on
 * 127.0.0.1 and on a UNIX socket, keeps the requests it gets and answers with
 * what the test has laid down, well formed or not, or never.
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
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "auth/provider.h"
#include "lib/clock.h"

extern const struct auth_provider auth_provider;

#define MAX_FDS	     16
#define MAX_REQUESTS 8
#define REQUEST_SIZE 65536

/* What the server does when it has sent `text`. */
enum then {
	KEEP,
	CLOSE,
	HANG, /* says nothing more, and does not close */
	REPEAT /* sends `more` until nobody listens */
};

struct reply {
	const char *text;
	enum then then;
	const char *more;
};

static struct {
	pthread_t thread;
	int port;
	char dir[32], path[64];
	struct pollfd fds[MAX_FDS]; /* two that listen, then connections */
	nfds_t fd_count;
	unsigned accepted, requests;
	char request[MAX_REQUESTS][REQUEST_SIZE];
	struct reply reply[MAX_REQUESTS];
} server;

static struct config conf;
static struct message question, verdict;
static void *provider;
static char error[AUTH_ERROR_SIZE];

/* Reads one request to its blank line; -1 when the peer is gone. */
static int
read_request(int fd, char *to)
{
	size_t len = 0;
	ssize_t n;

	for (;;) {
		n = recv(fd, to + len, REQUEST_SIZE - 1 - len, 0);
		if (n <= 0)
			return -1;
		len += (size_t)n;
		to[len] = '\0';
		if (len >= 4 && strcmp(to + len - 4, "\r\n\r\n") == 0)
			return 0;
	}
}

static void
send_all(int fd, const char *text)
{
	if (text != NULL)
		(void)send(fd, text, strlen(text), MSG_NOSIGNAL);
}

/* Answers one request; -1 when the connection is to be closed. */
static int
answer(int fd)
{
	static char waste[REQUEST_SIZE];
	unsigned i = server.requests;
	struct reply r; /* the next test may begin before we have ended */

	if (read_request(fd, i < MAX_REQUESTS ? server.request[i] : waste) ==
	    -1)
		return -1;
	if (i >= MAX_REQUESTS)
		return -1;
	r = server.reply[i];
	server.requests++;
	send_all(fd, r.text);
	if (r.then != REPEAT)
		return r.then == CLOSE ? -1 : 0;
	while (send(fd, r.more, strlen(r.more), MSG_NOSIGNAL) > 0)
		;
	return -1;
}

static void
accept_one(int fd)
{
	int new = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

	if (new == -1 || server.fd_count == MAX_FDS) {
		(void)close(new);
		return;
	}
	server.accepted++;
	server.fds[server.fd_count++] = (struct pollfd){new, POLLIN, 0};
}

static void *
serve(void *arg)
{
	nfds_t i;

	while (poll(server.fds, server.fd_count, -1) >= 0) {
		for (i = 2; i < server.fd_count; i++) {
			if (server.fds[i].revents == 0 ||
			    answer(server.fds[i].fd) == 0)
				continue;
			(void)close(server.fds[i].fd);
			server.fds[i--] = server.fds[--server.fd_count];
		}
		for (i = 0; i < 2; i++)
			if (server.fds[i].revents != 0)
				accept_one(server.fds[i].fd);
	}
	return arg;
}

static int
listen_at(const void *addr, socklen_t len)
{
	int fd = socket(((const struct sockaddr *)addr)->sa_family,
	    SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_not_equal(fd, -1);
	assert_int_equal(bind(fd, addr, len), 0);
	assert_int_equal(listen(fd, 8), 0);
	server.fds[server.fd_count++] = (struct pollfd){fd, POLLIN, 0};
	return fd;
}

static int
start_server(void **state)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(sin);
	int fd;

	(void)state;
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = listen_at(&sin, sizeof(sin));
	if (getsockname(fd, (void *)&sin, &len) == -1)
		return -1;
	server.port = ntohs(sin.sin_port);
	(void)snprintf(server.dir, sizeof(server.dir), "/tmp/t-auth-XXXXXX");
	if (mkdtemp(server.dir) == NULL)
		return -1;
	(void)snprintf(server.path, sizeof(server.path), "%s/s", server.dir);
	(void)snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", server.path);
	(void)listen_at(&sun, sizeof(sun));
	return pthread_create(&server.thread, NULL, serve, NULL);
}

static int
stop_server(void **state)
{
	nfds_t i;

	(void)state;
	(void)pthread_cancel(server.thread);
	(void)pthread_join(server.thread, NULL);
	for (i = 0; i < server.fd_count; i++)
		(void)close(server.fds[i].fd);
	(void)unlink(server.path);
	return rmdir(server.dir);
}

/* A new provider for a test, and a question in full. */
static int
begin(void **state)
{
	(void)state;
	memset(&conf, 0, sizeof(conf));
	conf.auth_timeout = 3000;
	server.accepted = 0;
	message_init(&question, ASK_VERDICT);
	message_put(&question, M_METHOD, "plain");
	message_put(&question, M_USER, "jo");
	message_put(&question, M_PASSWORD, "secret");
	message_put(&question, M_ATTEMPT, "1");
	message_put(&question, M_CLIENT_ADDR, "192.0.2.7");
	message_put(&question, M_CLIENT_HOST, "client.example");
	message_put(&question, M_HELO, "helo.example");
	return 0;
}

static int
end(void **state)
{
	(void)state;
	auth_provider.close(provider);
	provider = NULL;
	return 0;
}

static void *
open_value(const char *value)
{
	error[0] = '\0';
	return auth_provider.open(value, &conf, error);
}

/* Asks once; the server answers with `replies`, to the first without text. */
static enum auth_result
ask(const struct reply *replies)
{
	char value[64];
	size_t i;

	server.requests = 0;
	memset(server.request, 0, sizeof(server.request));
	for (i = 0; i < MAX_REQUESTS; i++) {
		server.reply[i] = *replies;
		replies += replies->text != NULL;
	}
	if (provider == NULL) {
		(void)snprintf(value, sizeof(value), "http://127.0.0.1:%d/auth",
		    server.port);
		provider = open_value(value);
		assert_non_null(provider);
	}
	message_init(&verdict, ANSWER_VERDICT);
	return auth_provider.judge(provider, &question, &verdict);
}

#define ASK(...) ask((const struct reply[]){__VA_ARGS__, {NULL, HANG, NULL}})

#define HEAD	"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"
#define BACKEND "Auth-Server: 192.0.2.25\r\nAuth-Port: 25\r\n"
#define YES	HEAD "Auth-Status: OK\r\n" BACKEND "\r\n"

/* The verdict for an answer of status 200 with these header lines. */
static enum auth_result
ask_lines(const char *lines)
{
	static char text[40000];

	(void)snprintf(text, sizeof(text), "%s%s\r\n", HEAD, lines);
	return ASK({text, KEEP, NULL});
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

/* Nothing was judged: a reason for the log, and nothing else. */
static void
assert_unavailable(enum auth_result result)
{
	int f;

	assert_int_equal(result, AUTH_UNAVAILABLE);
	for (f = 0; f < MESSAGE_FIELD_COUNT; f++)
		assert_true(f == M_REASON ? *message_text(&verdict, f) != '\0'
					  : message_get(&verdict,
						(enum message_field)f) == NULL);
}

static void __attribute__((format(printf, 2, 3)))
assert_request(unsigned i, const char *format, ...)
{
	char want[4096];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(want, sizeof(want), format, ap);
	va_end(ap);
	assert_string_equal(server.request[i], want);
}

/* The first request has this line. */
static void
assert_line(const char *line)
{
	char want[1024];

	(void)snprintf(want, sizeof(want), "\r\n%s\r\n", line);
	if (strstr(server.request[0], want) == NULL)
		fail_msg("no \"%s\" in\n%s", line, server.request[0]);
}

static void
assert_begins(const char *want)
{
	server.request[0][strlen(want)] = '\0';
	assert_string_equal(server.request[0], want);
}

static void
asks_as_nginx_does(void **state)
{
	(void)state;
	assert_int_equal(ASK({YES, KEEP, NULL}), AUTH_ACCEPTED);
	assert_request(0,
	    "GET /auth HTTP/1.1\r\n"
	    "Host: 127.0.0.1:%d\r\n"
	    "Auth-Method: plain\r\n"
	    "Auth-User: jo\r\n"
	    "Auth-Pass: secret\r\n"
	    "Auth-Protocol: smtp\r\n"
	    "Auth-Login-Attempt: 1\r\n"
	    "Client-IP: 192.0.2.7\r\n"
	    "Client-Host: client.example\r\n"
	    "\r\n",
	    server.port);
	assert_field(M_USER, "jo");
	assert_field(M_BACKEND, "192.0.2.25:25");
	assert_field(M_BACKEND_USER, NULL);
	assert_field(M_BACKEND_PASSWORD, NULL);
}

static void
asks_about_none_under_tls_with_extra_headers(void **state)
{
	char *words[] = {"X-Key 42", "X-Name: a b", "X-Empty", "X-None:"};

	(void)state;
	conf.auth_http_header.word = words;
	conf.auth_http_header.count = 4;
	message_init(&question, ASK_VERDICT);
	message_put(&question, M_METHOD, "none");
	message_put(&question, M_HELO, "helo.example");
	message_put(&question, M_MAIL_FROM, "MAIL FROM:<a%b@example> SIZE=9");
	message_put(&question, M_RCPT_TO, "RCPT TO:<c@example>");
	message_put(&question, M_TLS_PROTOCOL, "TLSv1.3");
	message_put(&question, M_TLS_CIPHER, "TLS_AES_256_GCM_SHA384");
	assert_int_equal(ASK({YES, KEEP, NULL}), AUTH_ACCEPTED);
	assert_request(0,
	    "GET /auth HTTP/1.1\r\n"
	    "Host: 127.0.0.1:%d\r\n"
	    "Auth-Method: none\r\n"
	    "Auth-User:\r\n"
	    "Auth-Pass:\r\n"
	    "Auth-Protocol: smtp\r\n"
	    "Auth-Login-Attempt: 1\r\n"
	    "Client-IP: unix:\r\n"
	    "Client-Host: [UNAVAILABLE]\r\n"
	    "Auth-SMTP-Helo: helo.example\r\n"
	    "Auth-SMTP-From: MAIL FROM:<a%%b@example> SIZE=9\r\n"
	    "Auth-SMTP-To: RCPT TO:<c@example>\r\n"
	    "Auth-SSL: on\r\n"
	    "Auth-SSL-Protocol: TLSv1.3\r\n"
	    "Auth-SSL-Cipher: TLS_AES_256_GCM_SHA384\r\n"
	    "X-Key: 42\r\n"
	    "X-Name: a b\r\n"
	    "X-Empty:\r\n"
	    "X-None:\r\n"
	    "\r\n",
	    server.port);
	assert_field(M_USER, NULL);
}

static void
sends_what_is_known_of_a_certificate(void **state)
{
	(void)state;
	message_put(&question, M_TLS_PROTOCOL, "TLSv1.3");
	message_put(&question, M_TLS_CIPHER, "X");
	message_put(&question, M_TLS_VERIFY, "FAILED:certificate revoked");
	message_put(&question, M_TLS_SUBJECT, "CN=a\\,b\r\nX: \xc3\xa9%");
	message_put(&question, M_TLS_ISSUER, "");
	message_put(&question, M_TLS_SERIAL, "0F");
	message_put(&question, M_TLS_FINGERPRINT, "ab12");
	message_put(&question, M_TLS_CERTIFICATE, "-A B-\nx+/=\n");
	assert_int_equal(ASK({YES, KEEP, NULL}), AUTH_ACCEPTED);
	assert_line("Auth-SSL: on\r\n"
		    "Auth-SSL-Protocol: TLSv1.3\r\n"
		    "Auth-SSL-Cipher: X\r\n"
		    "Auth-SSL-Verify: FAILED:certificate revoked\r\n"
		    "Auth-SSL-Subject: CN=a\\,b%0D%0AX: %C3%A9%\r\n"
		    "Auth-SSL-Serial: 0F\r\n"
		    "Auth-SSL-Fingerprint: ab12\r\n"
		    "Auth-SSL-Cert: -A%20B-%0Ax+/=%0A");
}

static void
sends_salt_and_digest_of_cram_md5(void **state)
{
	(void)state;
	message_put(&question, M_METHOD, "cram-md5");
	message_put(&question, M_SALT, "<1.2@mail.example>");
	message_put(&question, M_PASSWORD, "d41d8cd98f00b204e9800998ecf8427e");
	message_put(&question, M_ATTEMPT, "3");
	assert_int_equal(ASK({YES, KEEP, NULL}), AUTH_ACCEPTED);
	assert_line("Auth-Method: cram-md5\r\n"
		    "Auth-User: jo\r\n"
		    "Auth-Pass: d41d8cd98f00b204e9800998ecf8427e\r\n"
		    "Auth-Salt: <1.2@mail.example>\r\n"
		    "Auth-Protocol: smtp\r\n"
		    "Auth-Login-Attempt: 3");
}

static void
never_sends_an_earlier_password(void **state)
{
	(void)state;
	message_put(&question, M_METHOD, "external");
	assert_int_equal(ASK({YES, KEEP, NULL}), AUTH_ACCEPTED);
	assert_line("Auth-Method: external\r\nAuth-User: jo\r\nAuth-Pass:");
	message_put(&question, M_METHOD, "none");
	assert_int_equal(ASK({YES, KEEP, NULL}), AUTH_ACCEPTED);
	assert_line("Auth-Method: none\r\nAuth-User: jo\r\nAuth-Pass:");
	assert_null(strstr(server.request[0], "secret"));
}

static void
escapes_what_a_client_sent(void **state)
{
	(void)state;
	message_put(&question, M_USER, "a b%c\r\nX: \x7f\xc3\xa9");
	message_put(&question, M_PASSWORD, " \t\n");
	message_put(&question, M_CLIENT_HOST, "h\r\nAuth-SSL: on");
	assert_int_equal(ASK({YES, KEEP, NULL}), AUTH_ACCEPTED);
	assert_line("Auth-User: a%20b%25c%0D%0AX:%20%7F\xc3\xa9\r\n"
		    "Auth-Pass: %20%09%0A");
	assert_line("Client-Host: h%0D%0AAuth-SSL: on");

	message_put(&question, M_METHOD, "none");
	message_put(&question, M_HELO, "\x01\xe9");
	message_put(&question, M_MAIL_FROM, "MAIL FROM:<>\nX: y\x7f");
	message_put(&question, M_RCPT_TO, " ");
	assert_int_equal(ASK({YES, KEEP, NULL}), AUTH_ACCEPTED);
	assert_line("Auth-SMTP-Helo: %01%E9\r\n"
		    "Auth-SMTP-From: MAIL FROM:<>%0AX: y%7F\r\n"
		    "Auth-SMTP-To:");
}

static void
judges_no_other_method(void **state)
{
	(void)state;
	message_put(&question, M_METHOD, "apop");
	assert_unavailable(ASK({YES, KEEP, NULL}));
	assert_int_equal(server.requests, 0);
}

static void
takes_only_ok_for_a_yes(void **state)
{
	static const char *const refusals[] = {"Auth-Status: ok\r\n" BACKEND,
	    "Auth-Status: OK, really\r\n" BACKEND,
	    "Auth-Status: OK\r\nAuth-Status: no\r\n" BACKEND,
	    "Auth-Status: no\r\nAuth-Status: OK\r\n" BACKEND,
	    "Auth-Status: WAIT\r\nAuth-Status: no\r\n" BACKEND};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		assert_int_equal(ask_lines(refusals[i]), AUTH_DENIED);
		assert_field(M_CODE, "535 5.7.8");
		assert_field(M_BACKEND, NULL);
		assert_field(M_USER, NULL);
		assert_field(M_DELAY, NULL);
	}
	assert_int_equal(
	    ask_lines("aUTH-sTATUS:\t OK \t\r\n" BACKEND), AUTH_ACCEPTED);
	assert_int_equal(
	    ask_lines("Auth-Status:OK\r\n" BACKEND), AUTH_ACCEPTED);
}

static void
takes_silence_for_a_no(void **state)
{
	static const char *const missing[] = {BACKEND,
	    "Auth-Status:\r\n" BACKEND, "Auth-Status: \x01\r\n" BACKEND,
	    "Auth-Status: OK\r\nAuth-Status:\r\n" BACKEND};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(missing) / sizeof(missing[0]); i++) {
		assert_int_equal(ask_lines(missing[i]), AUTH_DENIED);
		assert_field(M_REASON, "no Auth-Status");
		assert_field(M_CODE, NULL); /* no words for the client */
	}
}

static void
passes_a_refusal_on(void **state)
{
	char lines[700] = "Auth-Status: ", want[201];

	(void)state;
	assert_int_equal(
	    ask_lines("Auth-Status: Go a\x01way\x7f, J\xc3\xb6\r\n"
		      "Auth-Wait: 3\r\nAuth-Error-Code: 550 5.7.1\r\n"),
	    AUTH_DENIED);
	assert_field(M_REASON, "Go away, J??");
	assert_field(M_CODE, "550 5.7.1");
	assert_field(M_DELAY, "3000");
	memset(lines + 13, 'x', 600);
	(void)strcat(lines, "\r\n");
	memset(want, 'x', 200);
	want[200] = '\0';
	assert_int_equal(ask_lines(lines), AUTH_DENIED);
	assert_field(M_REASON, want);
}

static void
bounds_the_delay(void **state)
{
	static const char *const waits[][2] = {{"3600", "60000"},
	    {"99999999999999999999999", NULL}, {"0", NULL}, {"-1", NULL},
	    {"2x", NULL}, {"", NULL}};
	char lines[128];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
		(void)snprintf(lines, sizeof(lines),
		    "Auth-Status: no\r\nAuth-Wait: %s\r\n", waits[i][0]);
		if (strlen(waits[i][0]) > 15) {
			assert_unavailable(ask_lines(lines));
			continue;
		}
		assert_int_equal(ask_lines(lines), AUTH_DENIED);
		assert_field(M_DELAY, waits[i][1]);
	}
}

static void
uses_only_well_formed_codes(void **state)
{
	static const char *const codes[][2] = {{"454 4.7.0", "454 4.7.0"},
	    {"550", "550"}, {"535 5.7.99", "535 5.7.99"}, {"235 2.7.0", NULL},
	    {"foo bar", NULL}, {"535 4.7.0", NULL}, {"535  5.7.0", NULL},
	    {"535-5.7.0", NULL}, {"5355", NULL}, {"575", NULL}, {"53", NULL},
	    {"535 5.7", NULL}, {"535 5.7.0 no", NULL}, {"535 5.7777.0", NULL},
	    {"535 5..0", NULL}, {"535 ", "535"}, {"535 5.7.0.", NULL}};
	char lines[128];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		(void)snprintf(lines, sizeof(lines),
		    "Auth-Error-Code: %s\r\nAuth-Status: no\r\n", codes[i][0]);
		assert_int_equal(ask_lines(lines), AUTH_DENIED);
		assert_field(
		    M_CODE, codes[i][1] != NULL ? codes[i][1] : "535 5.7.8");
	}
}

static void
routes(void **state)
{
	static const char *const good[][3] = {
	    {"192.0.2.1", "25", "192.0.2.1:25"},
	    {"2001:db8::1", "587", "[2001:db8::1]:587"},
	    {"[2001:db8::1]", "65535", "[2001:db8::1]:65535"},
	    {"mail.example", "025", "mail.example:25"},
	    {"unix:/run/mail.sock", "", "unix:/run/mail.sock"},
	    {"unix:/run/mail.sock", "25", "unix:/run/mail.sock"}};
	char lines[128];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		(void)snprintf(lines, sizeof(lines),
		    "Auth-Status: OK\r\n"
		    "Auth-Server: %s\r\nAuth-Port: %s\r\n",
		    good[i][0], good[i][1]);
		assert_int_equal(ask_lines(lines), AUTH_ACCEPTED);
		assert_field(M_BACKEND, good[i][2]);
	}
}

static void
refuses_a_bad_route(void **state)
{
	static const char *const bad[][2] = {{"192.0.2.1", ""}, {"", "25"},
	    {"192.0.2.1", "0"}, {"192.0.2.1", "65536"}, {"192.0.2.1", "25x"},
	    {"192.0.2.1", "-1"}, {"a b", "25"}, {"a:b", "25"}, {"[mail]", "25"},
	    {"[::1", "25"}, {"mail_1", "25"}, {"a/b", "25"}, {"unix:run", "25"},
	    {"unix:", "25"}, {"unix:/a b", ""}, {"m\xc3\xb6", "25"}, {"", ""}};
	char lines[128];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		(void)snprintf(lines, sizeof(lines),
		    "Auth-Status: OK\r\n"
		    "Auth-Server: %s\r\nAuth-Port: %s\r\n",
		    bad[i][0], bad[i][1]);
		assert_unavailable(ask_lines(lines));
	}
}

static void
needs_no_route_with_another_upstream(void **state)
{
	char *relay[] = {"relay", NULL};

	(void)state;
	assert_unavailable(ask_lines("Auth-Status: OK\r\n"));
	conf.relay = relay;
	assert_int_equal(ask_lines("Auth-Status: OK\r\n"), AUTH_ACCEPTED);
	assert_field(M_BACKEND, NULL);
	conf.relay = NULL;
	conf.backend.word = relay;
	conf.backend.count = 1;
	assert_int_equal(ask_lines("Auth-Status: OK\r\n"), AUTH_ACCEPTED);
	assert_unavailable(ask_lines("Auth-Status: OK\r\nAuth-Port: 25\r\n"));
}

static void
replaces_user_and_password(void **state)
{
	(void)state;
	assert_int_equal(
	    ask_lines("Auth-Status: OK\r\n" BACKEND
		      "Auth-User: jo@example\r\nAuth-Pass: o t\r\n"),
	    AUTH_ACCEPTED);
	assert_field(M_USER, "jo@example");
	assert_field(M_BACKEND_USER, "jo@example");
	assert_field(M_BACKEND_PASSWORD, "o t");
	assert_int_equal(ask_lines("Auth-Status: OK\r\n" BACKEND
				   "Auth-User:\r\nAuth-Pass:\r\n"),
	    AUTH_ACCEPTED);
	assert_field(M_USER, "jo");
	assert_field(M_BACKEND_USER, NULL);
	assert_field(M_BACKEND_PASSWORD, NULL);
	assert_unavailable(
	    ask_lines("Auth-Status: OK\r\n" BACKEND "Auth-User: jo\x01x\r\n"));
	assert_unavailable(
	    ask_lines("Auth-Status: OK\r\n" BACKEND "Auth-User: jo\rX\r\n"));
}

static void
asks_again_when_told_to_wait(void **state)
{
	int64_t began = clock_ms();

	(void)state;
	assert_int_equal(ASK({HEAD "Auth-Status: WAIT\r\n\r\n", KEEP, NULL},
			     {YES, KEEP, NULL}),
	    AUTH_ACCEPTED);
	assert_in_range(clock_ms() - began, 990, 2500);
	assert_int_equal(server.requests, 2);
	assert_int_equal(server.accepted, 1);
	assert_string_equal(server.request[0], server.request[1]);
	assert_field(M_DELAY, NULL);
}

static void
does_not_wait_for_ever(void **state)
{
	int64_t began = clock_ms();

	(void)state;
	conf.auth_timeout = 1500;
	assert_unavailable(
	    ASK({HEAD "Auth-Status: WAIT\r\nAuth-Wait: 0\r\n\r\n", KEEP, NULL},
		{HEAD "Auth-Status: WAIT\r\nAuth-Wait: 1\r\n\r\n", KEEP, NULL},
		{YES, KEEP, NULL}));
	assert_int_equal(server.requests, 2);
	assert_in_range(clock_ms() - began, 990, 2500);
	began = clock_ms();
	assert_unavailable(ASK({HEAD "Auth-Status: OK\r\nAuth-Status: WAIT\r\n"
				     "Auth-Wait: 3600\r\n\r\n",
				   KEEP, NULL},
	    {YES, KEEP, NULL}));
	assert_in_range(clock_ms() - began, 0, 900);
}

#define NO_BODY "Content-Length: 0\r\nAuth-Status: OK\r\n" BACKEND "\r\n"

static void
needs_a_status_of_2xx(void **state)
{
	static const char *const status[] = {"401 Unauthorized",
	    "403 Forbidden", "404 Not Found", "500 Oops", "503 Away",
	    "304 Not Modified", "301 Moved", "302 Found", "600 What"};
	char text[512];
	size_t i;

	(void)state;
	assert_int_equal(
	    ASK({"HTTP/1.1 204 No Content\r\nAuth-Status: OK\r\n" BACKEND
		 "\r\n",
		KEEP, NULL}),
	    AUTH_ACCEPTED);
	assert_int_equal(
	    ASK({"HTTP/1.0 200 OK\r\n" NO_BODY, CLOSE, NULL}), AUTH_ACCEPTED);
	for (i = 0; i < sizeof(status) / sizeof(status[0]); i++) {
		(void)snprintf(text, sizeof(text), "HTTP/1.1 %s\r\n%s",
		    status[i], NO_BODY);
		assert_unavailable(ASK({text, KEEP, NULL}));
	}
}

static void
follows_no_redirect(void **state)
{
	char text[512];

	(void)state;
	(void)snprintf(text, sizeof(text),
	    "HTTP/1.1 302 Found\r\n"
	    "Location: http://127.0.0.1:%d/else\r\n" NO_BODY,
	    server.port);
	assert_unavailable(ASK({text, KEEP, NULL}, {YES, KEEP, NULL}));
	assert_int_equal(server.requests, 1);
}

static void
believes_no_interim_answer_and_no_trailer(void **state)
{
	(void)state;
	assert_int_equal(
	    ASK({"HTTP/1.1 103 Early Hints\r\nAuth-Status: OK\r\n" BACKEND
		 "\r\n" HEAD "\r\n",
		KEEP, NULL}),
	    AUTH_DENIED);
	assert_int_equal(
	    ASK({"HTTP/1.1 100 Continue\r\nAuth-Status: no\r\n\r\n" YES, KEEP,
		NULL}),
	    AUTH_ACCEPTED);
	assert_int_equal(ASK({"HTTP/1.1 200 OK\r\n"
			      "Transfer-Encoding: chunked\r\n"
			      "Trailer: Auth-Status\r\n" BACKEND
			      "\r\n0\r\nAuth-Status: OK\r\n\r\n",
			     KEEP, NULL}),
	    AUTH_DENIED);
	assert_unavailable(
	    ASK({"HTTP/1.1 100 Continue\r\nAuth-Status: OK\r\n" BACKEND "\r\n",
		CLOSE, NULL}));
}

static void
reads_bodies_and_forgets_them(void **state)
{
	(void)state;
	assert_int_equal(ASK({"HTTP/1.1 200 OK\r\nContent-Length: 21\r\n"
			      "Auth-Status: OK\r\n" BACKEND
			      "\r\nAuth-Status: no\r\n\r\n\r\n",
			     KEEP, NULL}),
	    AUTH_ACCEPTED);
	assert_int_equal(
	    ASK({"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
		 "Auth-Status: OK\r\n" BACKEND "\r\n4\r\nbody\r\n0\r\n\r\n",
		KEEP, NULL}),
	    AUTH_ACCEPTED);
	assert_int_equal(server.accepted, 1);
}

static void
survives_broken_answers(void **state)
{
	static const char *const broken[] = {"", "\r\n\r\n",
	    "220 mail ESMTP\r\n", "\x16\x03\x01\x02\x03\xff\xfe",
	    "HTTP/1.1\r\n\r\n",
	    "Auth-Status: OK\r\n" BACKEND "\r\n", /* no status line */
	    "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\n" BACKEND, /* no end */
	    "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\n" BACKEND
	    "Content-Length: 9\r\n\r\nshort",
	    "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\n" BACKEND
	    "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
	    HEAD "Auth-Status: OK\r\nnonsense\r\n" BACKEND "\r\n",
	    HEAD "Auth-Status: no\r\nHTTP/1.1 200 OK\r\n"
		 "Auth-Status: OK\r\n" BACKEND "\r\n",
	    HEAD "Auth-Status: OK\r\n, but no\r\n" BACKEND "\r\n",
	    HEAD "Auth-Status : OK\r\n" BACKEND "\r\n",
	    HEAD ": OK\r\nAuth-Status: OK\r\n" BACKEND "\r\n",
	    HEAD "X: y\r\n Auth-Status: OK\r\nAuth-Status: OK\r\n" BACKEND
		 "\r\n"};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(broken) / sizeof(broken[0]); i++)
		assert_unavailable(ASK({broken[i], CLOSE, NULL}));
	assert_int_equal(ASK({YES, KEEP, NULL}), AUTH_ACCEPTED);
}

static void
gives_up_on_endless_answers(void **state)
{
	static char body[1025], user[700];

	(void)state;
	memset(body, 'b', sizeof(body) - 1);
	assert_unavailable(ASK(
	    {HEAD "Auth-Status: OK\r\n" BACKEND, REPEAT, "X-Filler: y\r\n"}));
	assert_unavailable(
	    ASK({HEAD "Auth-Status: OK\r\n" BACKEND "X: ", REPEAT, body}));
	assert_unavailable(ASK({"", REPEAT, "HTTP/1.1 100 Continue\r\n\r\n"}));
	assert_unavailable(
	    ASK({"HTTP/1.1 200 OK\r\nAuth-Status: OK\r\n" BACKEND "\r\n",
		REPEAT, body}));
	(void)snprintf(user, sizeof(user),
	    "Auth-Status: OK\r\n" BACKEND "Auth-User: %.600s\r\n", body);
	assert_unavailable(ask_lines(user));
	assert_int_equal(ASK({YES, KEEP, NULL}), AUTH_ACCEPTED);
}

static void
gives_up_on_a_silent_server(void **state)
{
	static const char *const starts[] = {"", "HTTP/1.1 200 OK\r\n",
	    "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\n" BACKEND
	    "Content-Length: 5\r\n\r\nab"};
	int64_t began;
	size_t i;

	(void)state;
	conf.auth_timeout = 200;
	for (i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		began = clock_ms();
		assert_unavailable(ASK({starts[i], HANG, NULL}));
		assert_in_range(clock_ms() - began, 190, 1500);
	}
}

static void
keeps_its_connection(void **state)
{
	(void)state;
	assert_int_equal(ASK({YES, KEEP, NULL}), AUTH_ACCEPTED);
	message_put(&question, M_PASSWORD, "wrong");
	assert_int_equal(
	    ASK({HEAD "Auth-Status: no\r\n\r\n", KEEP, NULL}), AUTH_DENIED);
	assert_line("Auth-Pass: wrong");
	assert_int_equal(server.accepted, 1);
	/* The server has closed it meanwhile: a new one. */
	assert_int_equal(ASK({YES, CLOSE, NULL}), AUTH_ACCEPTED);
	assert_int_equal(ASK({YES, KEEP, NULL}), AUTH_ACCEPTED);
	assert_int_equal(server.accepted, 2);
}

/* Two processes on one connection would read each other's verdicts. */
static void
shares_no_connection_with_a_child(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(ASK({YES, KEEP, NULL}), AUTH_ACCEPTED);
	server.requests = 0;
	pid = fork();
	if (pid == 0) {
		message_init(&verdict, ANSWER_VERDICT);
		_exit((int)auth_provider.judge(provider, &question, &verdict));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), AUTH_ACCEPTED);
	assert_int_equal(server.accepted, 2);
	assert_int_equal(ASK({YES, KEEP, NULL}), AUTH_ACCEPTED);
	assert_int_equal(server.accepted, 2);
}

static void
speaks_over_a_unix_socket(void **state)
{
	char value[128];

	(void)state;
	(void)snprintf(
	    value, sizeof(value), "http+unix://%s:/a/../b?c=d", server.path);
	provider = open_value(value);
	assert_non_null(provider);
	assert_int_equal(ASK({YES, KEEP, NULL}), AUTH_ACCEPTED);
	assert_begins("GET /a/../b?c=d HTTP/1.1\r\nHost: localhost\r\n");
	auth_provider.close(provider);
	(void)snprintf(value, sizeof(value), "http+unix://%s", server.path);
	provider = open_value(value);
	assert_non_null(provider);
	assert_int_equal(ASK({YES, KEEP, NULL}), AUTH_ACCEPTED);
	assert_begins("GET / HTTP/1.1\r\n");
}

static void
uses_no_proxy(void **state)
{
	static const char *const names[] = {"http_proxy", "https_proxy",
	    "all_proxy", "HTTP_PROXY", "ALL_PROXY"};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_int_equal(setenv(names[i], "http://127.0.0.1:1", 1), 0);
	assert_int_equal(ASK({YES, KEEP, NULL}), AUTH_ACCEPTED);
	assert_begins("GET /auth HTTP/1.1\r\n");
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_int_equal(unsetenv(names[i]), 0);
}

static void
finds_no_server(void **state)
{
	char value[64];

	(void)state;
	provider = open_value("http+unix:///nonexistent/socket");
	assert_non_null(provider);
	assert_unavailable(ASK({YES, KEEP, NULL}));
	auth_provider.close(provider);
	/* one that speaks no TLS */
	(void)snprintf(
	    value, sizeof(value), "https://127.0.0.1:%d/", server.port);
	conf.auth_timeout = 300;
	provider = open_value(value);
	assert_non_null(provider);
	assert_unavailable(ASK({YES, KEEP, NULL}));
	assert_null(strstr(server.request[0], "secret"));
}

static void
reads_values(void **state)
{
	static const char *const good[] = {"http://a", "http://a/",
	    "http://a.example:80/x?y", "https://192.0.2.1", "http://[::1]",
	    "https://[2001:db8::1]:8443/auth", "http+unix:///a:/b",
	    "http+unix:///a"};
	static const char *const bad[] = {"", "http", "http:", "http://",
	    "http:///x", "ftp://a", "http://a:0", "http://a:65536",
	    "http://a:", "http://a:x", "http://u:p@a/", "http://u@a",
	    "http://a?b", "http://a b", "http://a/b c", "http://a/b#c",
	    "http://a/\r\nX: y", "http://[::1", "http://[a]", "http://[]",
	    "http://[::1]x", "http://::1/", "http+unix://a", "http+unix://",
	    "http+unix:///a:b", "unix:/a", "http://a_b*c",
	    "http+unix:///0123456789012345678901234567890123456789"
	    "012345678901234567890123456789012345678901234567890123456789"
	    "0123456789"};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		provider = open_value(good[i]);
		assert_non_null(provider);
		auth_provider.close(provider);
	}
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		provider = open_value(bad[i]);
		assert_null(provider);
		assert_true(error[0] != '\0');
	}
}

static void
reads_extra_headers(void **state)
{
	static const char *const bad[] = {"", ": x", "X:y", "X;", "X Y: \n",
	    "X\r\nY: z", "\xc3\xa4: x", "X/Y: z"};
	char *word[1];
	size_t i;

	(void)state;
	conf.auth_http_header.word = word;
	conf.auth_http_header.count = 1;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		word[0] = (char *)(uintptr_t)bad[i];
		provider = open_value("http://a/");
		assert_null(provider);
		assert_non_null(strstr(error, "auth_http_header"));
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(asks_as_nginx_does),
	    TEST(asks_about_none_under_tls_with_extra_headers),
	    TEST(sends_what_is_known_of_a_certificate),
	    TEST(sends_salt_and_digest_of_cram_md5),
	    TEST(never_sends_an_earlier_password),
	    TEST(escapes_what_a_client_sent),
	    TEST(judges_no_other_method),
	    TEST(takes_only_ok_for_a_yes),
	    TEST(takes_silence_for_a_no),
	    TEST(passes_a_refusal_on),
	    TEST(bounds_the_delay),
	    TEST(uses_only_well_formed_codes),
	    TEST(routes),
	    TEST(refuses_a_bad_route),
	    TEST(needs_no_route_with_another_upstream),
	    TEST(replaces_user_and_password),
	    TEST(asks_again_when_told_to_wait),
	    TEST(does_not_wait_for_ever),
	    TEST(needs_a_status_of_2xx),
	    TEST(follows_no_redirect),
	    TEST(believes_no_interim_answer_and_no_trailer),
	    TEST(reads_bodies_and_forgets_them),
	    TEST(survives_broken_answers),
	    TEST(gives_up_on_endless_answers),
	    TEST(gives_up_on_a_silent_server),
	    TEST(keeps_its_connection),
	    TEST(shares_no_connection_with_a_child),
	    TEST(speaks_over_a_unix_socket),
	    TEST(uses_no_proxy),
	    TEST(finds_no_server),
	    TEST(reads_values),
	    TEST(reads_extra_headers),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, start_server, stop_server);
}
