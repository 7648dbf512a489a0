/*
 * upstream.c against a server of ours that follows a script: what it is told,
 * to the octet, and what comes of everything it may say.
 */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/clock.h"
#include "lib/text.h"
#include "upstream.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

#define SOON  3000
#define BRIEF 60

#define GREETING "220 backend.example ESMTP\r\n"
#define EHLO_OK	 "250 backend.example\r\n"

/* What is awaited from the client (NULL: nothing), and what is then said. */
struct step {
	const char *want, *say;
};

static struct config conf;
static struct session session;
static struct upstream up;
static unsigned char buffer[4096];

static struct {
	pthread_t thread;
	int fd;
	const struct step *steps;
	size_t count;
	char heard[65536];
	size_t heard_len;
	bool differs, stays; /* stays: silent at the end, until it is left */
} server;

/* --- the server ---------------------------------------------------------- */

/* Hears `n` octets more; false when they do not come. */
static bool
hear(size_t n)
{
	struct pollfd pfd = {.fd = server.fd, .events = POLLIN};
	ssize_t got;

	while (n > 0) {
		if (poll(&pfd, 1, SOON) <= 0 ||
		    server.heard_len + n > sizeof(server.heard))
			return false;
		got = recv(
		    server.fd, server.heard + server.heard_len, n, 0);
		if (got <= 0)
			return false;
		server.heard_len += (size_t)got;
		n -= (size_t)got;
	}
	return true;
}

static void
tell(const char *text)
{
	size_t len = strlen(text);
	ssize_t n;

	while (len > 0) {
		n = send(server.fd, text, len, MSG_NOSIGNAL);
		if (n <= 0)
			return;
		text += n;
		len -= (size_t)n;
	}
}

static void *
serve(void *arg)
{
	const char *want;
	size_t i, len;

	(void)arg;
	for (i = 0; i < server.count; i++) {
		want = server.steps[i].want != NULL ? server.steps[i].want : "";
		len = strlen(want);
		if (!hear(len) ||
		    memcmp(server.heard + server.heard_len - len, want, len) !=
			0) {
			server.differs = true;
			break;
		}
		tell(server.steps[i].say);
	}
	if (!server.stays)
		(void)shutdown(server.fd, SHUT_WR);
	while (hear(1))
		;
	return NULL;
}

static int pair[2];

static void
start(const struct step *steps, size_t count)
{
	assert_int_equal(
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	server.fd = pair[1];
	server.steps = steps;
	server.count = count;
	server.heard_len = 0;
	server.differs = false;
	conn_init(&up.conn, pair[0], pair[0], buffer, sizeof(buffer));
	conn_set_timeout(&up.conn, SOON);
	assert_int_equal(
	    pthread_create(&server.thread, NULL, serve, NULL), 0);
}

static void
finish(void)
{
	(void)shutdown(pair[0], SHUT_RDWR);
	assert_int_equal(pthread_join(server.thread, NULL), 0);
	(void)close(pair[0]);
	(void)close(pair[1]);
}

static enum upstream_result
run(const struct step *steps, size_t count)
{
	enum upstream_result r;

	start(steps, count);
	r = upstream_introduce(&session, &up);
	finish();
	if (server.differs)
		print_message("heard: %.*s\n", (int)server.heard_len,
		    server.heard);
	return r;
}

#define RUN(steps) run(steps, LENGTH(steps))

/* The script was followed to its end. */
#define EXPECT_READY(steps)                                \
	do {                                                  \
		server.stays = true;                          \
		assert_int_equal(RUN(steps), UPSTREAM_READY); \
		assert_false(server.differs);                 \
	} while (0)

static int
set_up(void **state)
{
	(void)state;
	memset(&conf, 0, sizeof(conf));
	memset(&session, 0, sizeof(session));
	memset(&up, 0, sizeof(up));
	server.stays = false;
	conf.server_name = "front.example";
	conf.xclient = CONFIG_XCLIENT_AUTO;
	session.conf = &conf;
	session.mechanism = "PLAIN";
	session.esmtp = true;
	(void)snprintf(session.helo, sizeof(session.helo), "client.example");
	(void)snprintf(
	    session.peer.addr, sizeof(session.peer.addr), "192.0.2.1");
	(void)snprintf(session.peer.local_addr,
	    sizeof(session.peer.local_addr), "192.0.2.25");
	(void)snprintf(
	    session.peer.host, sizeof(session.peer.host), "[UNAVAILABLE]");
	session.peer.have_addr = true;
	session.peer.port = 40000;
	session.peer.local_port = 587;
	message_init(&session.verdict, ANSWER_VERDICT);
	message_put(&session.verdict, M_USER, "bob");
	return 0;
}

/* --- replies ------------------------------------------------------------- */

static void
the_least(void **state)
{
	static const struct step steps[] = {
	    {NULL, GREETING}, {"EHLO client.example\r\n", EHLO_OK}};
	static const struct step anonymous[] = {
	    {NULL, GREETING}, {"EHLO front.example\r\n", EHLO_OK}};

	(void)state;
	EXPECT_READY(steps);
	assert_false(up.committed);
	session.helo[0] = '\0';
	EXPECT_READY(anonymous);
}

static void
good_greetings(void **state)
{
	static const char *const texts[] = {"220\r\n", "220 \r\n",
	    "220-a\r\n220-\r\n220 b\r\n", "220-a\r\n220\r\n", "299 x\r\n",
	    "220 \xc3\xbc \x1b[31m\r\n"};
	struct step steps[] = {
	    {NULL, NULL}, {"EHLO client.example\r\n", EHLO_OK}};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(texts); i++) {
		steps[0].say = texts[i];
		EXPECT_READY(steps);
	}
}

/* No reply at all: the words of it go to nobody. */
static void
what_is_no_reply(void **state)
{
	static const char *const texts[] = {"\r\n", "22\r\n", "2200\r\n",
	    "220x\r\n", "220_a\r\n", "120 x\r\n", "620 x\r\n", "abc x\r\n",
	    " 220 x\r\n", "2 20 x\r\n", "-220 x\r\n", "+20 x\r\n",
	    "220 a\n220 b\r\n", "220 a\rb\r\n", "HTTP/1.1 200 OK\r\n",
	    "* OK IMAP\r\n", "+OK POP3\r\n",
	    "220-a\r\n221 b\r\n", "220-a\r\n550 b\r\n", "220-a\r\nb\r\n",
	    "220-a\r\n\r\n", "550-a\r\n220 b\r\n", "\x16\x03\x01 x\r\n"};
	struct step steps[] = {{NULL, NULL}};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(texts); i++) {
		steps[0].say = texts[i];
		assert_int_equal(RUN(steps), UPSTREAM_FAILED);
		assert_string_equal(
		    up.reason, "greeting: the reply is not SMTP");
		assert_string_equal(up.words, "");
	}
}

static void
a_nul_is_no_reply(void **state)
{
	(void)state;
	server.stays = true;
	start(NULL, 0);
	assert_int_equal(send(pair[1], "220 a\0b\r\n", 9, 0), 9);
	assert_int_equal(
	    upstream_introduce(&session, &up), UPSTREAM_FAILED);
	finish();
}

/* What a greeting of `text` fails with. */
static void
expect_bad_greeting(const char *text, const char *reason)
{
	const struct step steps[] = {{NULL, text}};

	assert_int_equal(RUN(steps), UPSTREAM_FAILED);
	assert_string_equal(up.reason, reason);
	assert_string_equal(up.words, "");
}

static void
endless_lines(void **state)
{
	static char text[129 * 7 + 1];
	int i;

	(void)state;
	for (i = 0; i < 128; i++)
		memcpy(text + 7 * i, "220-x\r\n", 7);
	memcpy(text + 7 * i, "220 x\r\n", 8);
	expect_bad_greeting(text, "greeting: the reply is too long");
	/* One less is one that is read. */
	expect_bad_greeting(text + 7, "EHLO: connection lost");
}

static void
endless_octets(void **state)
{
	static char text[100001];
	int i;

	(void)state;
	/* Few lines, but too much of them. */
	memset(text, 'x', sizeof(text) - 1);
	for (i = 0; i < 5; i++) {
		memcpy(text + 1000 * i, "220-", 4);
		memcpy(text + 1000 * i + 998, "\r\n", 2);
	}
	memcpy(text + 5000, "220 x\r\n", 8);
	expect_bad_greeting(text, "greeting: the reply is too long");
	/* A line longer than what it is read into. */
	memset(text, 'x', sizeof(text) - 1);
	memcpy(text, "220 ", 4);
	memcpy(text + 99998, "\r\n", 2);
	expect_bad_greeting(text, "greeting: the reply is not SMTP");
	/* One without any end. */
	memset(text, 'x', sizeof(text) - 1);
	expect_bad_greeting(text, "greeting: connection lost");
}

static void
refusals(void **state)
{
	static const struct {
		const char *say, *words, *reason;
	} rows[] = {
	    {"554 go away\r\n", "554 go away\r\n", "greeting: 554 go away"},
	    {"421-a\r\n421 b\r\n", "421-a\r\n421 b\r\n", "greeting: 421-a"},
	    {"354 what\r\n", "354 what\r\n", "greeting: 354 what"},
	    {"550 \x1b]0;x\x07 \xc3\xbc\x7f\t.\r\n",
		"550 ?]0;x? ????.\r\n", "greeting: 550 ?]0;x? ????."},
	    {"450\r\n", "450\r\n", "greeting: 450"},
	};
	struct step steps[] = {{NULL, NULL}};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(rows); i++) {
		steps[0].say = rows[i].say;
		assert_int_equal(RUN(steps), UPSTREAM_REFUSED);
		assert_string_equal(up.words, rows[i].words);
		assert_string_equal(up.reason, rows[i].reason);
		assert_false(up.committed);
	}
}

static void
a_refused_ehlo(void **state)
{
	static const struct step steps[] = {
	    {NULL, GREETING}, {"EHLO client.example\r\n", "502 no\r\n"}};

	(void)state;
	assert_int_equal(RUN(steps), UPSTREAM_REFUSED);
	assert_string_equal(up.words, "502 no\r\n");
	assert_string_equal(up.reason, "EHLO: 502 no");
}

/* Silence, and an end, at each step. */
static const struct step all_steps[] = {{NULL, GREETING},
    {"EHLO client.example\r\n",
	"250-backend.example\r\n250-XCLIENT ADDR\r\n250 AUTH LOGIN\r\n"},
    {"XCLIENT ADDR=192.0.2.1\r\n", GREETING},
    {"EHLO client.example\r\n",
	"250-backend.example\r\n250 AUTH LOGIN\r\n"},
    {"AUTH LOGIN\r\n", "334 VXNlcm5hbWU6\r\n"},
    {"Ym9i\r\n", "334 UGFzc3dvcmQ6\r\n"},
    {"c2VjcmV0\r\n", "235 ok\r\n"}};

static const char *const all_names[] = {
    "greeting", "EHLO", "XCLIENT", "EHLO", "AUTH", "AUTH", "AUTH"};

static void
an_end_at_each_step(void **state)
{
	char reason[64];
	size_t i;

	(void)state;
	conf.proxy_smtp_auth = true;
	message_put(&session.verdict, M_BACKEND_PASSWORD, "secret");
	for (i = 0; i < LENGTH(all_steps); i++) {
		assert_int_equal(run(all_steps, i), UPSTREAM_FAILED);
		(void)snprintf(reason, sizeof(reason), "%s: connection lost",
		    all_names[i]);
		assert_string_equal(up.reason, reason);
		assert_string_equal(up.words, "");
		assert_int_equal(up.committed, i > 1);
		up.committed = false;
		up.xclient = 0;
	}
	EXPECT_READY(all_steps);
}

static void
silence_at_each_step(void **state)
{
	char reason[64];
	int64_t began;
	size_t i;

	(void)state;
	conf.proxy_smtp_auth = true;
	server.stays = true;
	message_put(&session.verdict, M_BACKEND_PASSWORD, "secret");
	for (i = 0; i < LENGTH(all_steps); i++) {
		start(all_steps, i);
		began = clock_ms();
		conn_set_timeout(&up.conn, BRIEF);
		assert_int_equal(
		    upstream_introduce(&session, &up), UPSTREAM_FAILED);
		assert_in_range(clock_ms() - began, BRIEF, SOON);
		finish();
		(void)snprintf(reason, sizeof(reason), "%s: no reply in time",
		    all_names[i]);
		assert_string_equal(up.reason, reason);
		up.xclient = 0;
	}
}

/* --- XCLIENT ------------------------------------------------------------- */

/* What it is told when it offers these attributes. */
static void
expect_xclient(const char *offer, const char *command)
{
	char ehlo[256];
	struct step steps[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n", ehlo}, {command, GREETING},
	    {"EHLO client.example\r\n", EHLO_OK}};

	(void)snprintf(ehlo, sizeof(ehlo),
	    "250-backend.example\r\n250-SIZE 1\r\n250 XCLIENT %s\r\n", offer);
	up.xclient = 0;
	up.committed = false;
	EXPECT_READY(steps);
	assert_true(up.committed);
}

static void
xclient_subsets(void **state)
{
	(void)state;
	expect_xclient("ADDR", "XCLIENT ADDR=192.0.2.1\r\n");
	expect_xclient("NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT",
	    "XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.1 PORT=40000 PROTO=ESMTP "
	    "HELO=client.example LOGIN=bob DESTADDR=192.0.2.25 "
	    "DESTPORT=587\r\n");
	expect_xclient("login Foo PORT ADDRESS",
	    "XCLIENT PORT=40000 LOGIN=bob\r\n");
	session.peer.port = session.peer.local_port = 0;
	session.peer.local_addr[0] = '\0';
	session.mechanism = "PLAIN";
	expect_xclient("PORT DESTPORT DESTADDR ADDR",
	    "XCLIENT ADDR=192.0.2.1\r\n");
	session.peer.have_addr = false;
	expect_xclient("ADDR", "XCLIENT ADDR=[UNAVAILABLE]\r\n");
}

static void
xclient_for_ipv6(void **state)
{
	(void)state;
	(void)snprintf(session.peer.addr, sizeof(session.peer.addr),
	    "2001:db8::1");
	(void)snprintf(session.peer.local_addr,
	    sizeof(session.peer.local_addr), "::1");
	expect_xclient("ADDR DESTADDR",
	    "XCLIENT ADDR=IPV6:2001:db8::1 DESTADDR=IPV6:::1\r\n");
}

/* What a client chose to be called cannot become an attribute. */
static void
xclient_is_xtext(void **state)
{
	static const struct step steps[] = {{NULL, GREETING},
	    {"EHLO a+b=c;\xff\r\n",
		"250-backend.example\r\n250 XCLIENT HELO LOGIN\r\n"},
	    {"XCLIENT HELO=a+2Bb+3Dc;+FF LOGIN=bob+20ADDR+3D::1\r\n",
		GREETING},
	    {"EHLO a+b=c;\xff\r\n", EHLO_OK}};

	(void)state;
	(void)snprintf(
	    session.helo, sizeof(session.helo), "a+b=c;\xff");
	message_put(&session.verdict, M_USER, "bob ADDR=::1");
	EXPECT_READY(steps);
}

static void
xclient_login_is_told_once(void **state)
{
	static const struct step steps[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n",
		"250-backend.example\r\n250 XCLIENT LOGIN ADDR\r\n"},
	    {"XCLIENT ADDR=192.0.2.1\r\n", GREETING},
	    {"EHLO client.example\r\n", EHLO_OK},
	    {"AUTH PLAIN AGJvYgBzZWNyZXQ=\r\n", "235 ok\r\n"}};

	(void)state;
	conf.proxy_smtp_auth = true;
	message_put(&session.verdict, M_BACKEND_PASSWORD, "secret");
	EXPECT_READY(steps);
}

static void
helo_is_told_again_as_helo(void **state)
{
	static const struct step steps[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n",
		"250-backend.example\r\n250 XCLIENT PROTO\r\n"},
	    {"XCLIENT PROTO=SMTP\r\n", GREETING},
	    {"HELO client.example\r\n", EHLO_OK}};

	(void)state;
	session.esmtp = false;
	EXPECT_READY(steps);
}

static void
fill(char *text, size_t size, size_t len)
{
	assert_true(len < size);
	memset(text, 'x', len);
	text[len] = '\0';
}

/* A name and a HELO of so many octets, told in so many commands. */
static void
expect_commands(size_t count, size_t name, size_t helo)
{
	static char ehlo[300], first[600], second[300];
	const struct step steps[] = {{NULL, GREETING},
	    {ehlo, "250-b\r\n250 XCLIENT NAME HELO\r\n"},
	    {first, GREETING}, {count == 2 ? second : "", count == 2 ? GREETING
								   : ""},
	    {ehlo, EHLO_OK}};
	int len;

	fill(session.peer.host, sizeof(session.peer.host), name);
	fill(session.helo, sizeof(session.helo), helo);
	(void)snprintf(ehlo, sizeof(ehlo), "EHLO %s\r\n", session.helo);
	len = snprintf(first, sizeof(first), "XCLIENT NAME=%s%s%s\r\n",
	    session.peer.host, count == 1 ? " HELO=" : "",
	    count == 1 ? session.helo : "");
	assert_in_range(len, 0, 512);
	(void)snprintf(
	    second, sizeof(second), "XCLIENT HELO=%s\r\n", session.helo);
	up.xclient = 0;
	EXPECT_READY(steps);
}

static void
xclient_holds_512_octets(void **state)
{
	(void)state;
	/* "XCLIENT NAME= HELO=" and CRLF are 21. */
	expect_commands(1, 255, 235);
	expect_commands(1, 255, 236);
	expect_commands(2, 255, 237);
	expect_commands(1, 236, 255);
	expect_commands(2, 237, 255);
	expect_commands(2, 255, 255);
}

/* A name that grows beyond a command is the client's doing: it is missed. */
static void
xclient_that_cannot_be_told(void **state)
{
	static char ehlo[sizeof(session.helo) + 8];
	const struct step steps[] = {{NULL, GREETING},
	    {ehlo, "250-b\r\n250 XCLIENT HELO\r\n"},
	    {"XCLIENT HELO=[UNAVAILABLE]\r\n", GREETING}, {ehlo, "250 b\r\n"}};

	(void)state;
	memset(session.helo, '+', sizeof(session.helo) - 1);
	(void)snprintf(ehlo, sizeof(ehlo), "EHLO %s\r\n", session.helo);
	EXPECT_READY(steps);
}

static void
a_refused_xclient(void **state)
{
	static const struct step steps[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n",
		"250-backend.example\r\n250 XCLIENT ADDR\r\n"},
	    {"XCLIENT ADDR=192.0.2.1\r\n", "550 not you\r\n"}};

	(void)state;
	assert_int_equal(RUN(steps), UPSTREAM_REFUSED);
	assert_string_equal(up.words, "550 not you\r\n");
	assert_true(up.committed);
}

/* XCLIENT to a backend that has none; and `on`, `off`. */
static void
xclient_only_where_it_is_offered(void **state)
{
	static const struct step none[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n",
		"250-backend.example\r\n250-XCLIENT\r\n250-XCLIENTX ADDR\r\n"
		"250 XCLIENT=ADDR\r\n"}};
	static const struct step offered[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n",
		"250-backend.example\r\n250 XCLIENT ADDR\r\n"}};

	(void)state;
	EXPECT_READY(none);
	conf.xclient = CONFIG_XCLIENT_ON;
	assert_int_equal(RUN(none), UPSTREAM_FAILED);
	assert_string_equal(
	    up.reason, "XCLIENT: the backend does not offer it");
	conf.xclient = CONFIG_XCLIENT_OFF;
	EXPECT_READY(offered);
}

/* The first line of EHLO's reply is a name, whatever it looks like. */
static void
the_first_line_offers_nothing(void **state)
{
	static const struct step steps[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n",
		"250-XCLIENT ADDR\r\n250 HELP\r\n"}};

	(void)state;
	EXPECT_READY(steps);
}

static void
a_relay_is_told_nothing(void **state)
{
	static const struct step steps[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n",
		"250-relay\r\n250-XCLIENT ADDR\r\n250 AUTH PLAIN\r\n"}};

	(void)state;
	up.is_relay = true;
	conf.proxy_smtp_auth = true;
	message_put(&session.verdict, M_BACKEND_PASSWORD, "secret");
	EXPECT_READY(steps);
	assert_false(up.committed);
}

/* --- AUTH ---------------------------------------------------------------- */

static void
expect_auth(const char *offer, const struct step *auth, size_t count)
{
	char ehlo[128];
	struct step steps[8] = {
	    {NULL, GREETING}, {"EHLO client.example\r\n", ehlo}};

	(void)snprintf(ehlo, sizeof(ehlo), "250-b\r\n250 %s\r\n", offer);
	memcpy(steps + 2, auth, count * sizeof(*auth));
	server.stays = true;
	assert_int_equal(run(steps, 2 + count), UPSTREAM_READY);
	assert_false(server.differs);
	assert_true(up.committed);
	/* Nothing of it is left in the queue. */
	assert_null(memmem(up.conn.out, sizeof(up.conn.out), "zZWNyZXQ", 8));
	assert_null(memmem(up.conn.out, sizeof(up.conn.out), "c2VjcmV0", 8));
}

static void
auth_mechanisms(void **state)
{
	static const struct step plain[] = {
	    {"AUTH PLAIN AHRoZWlycwBzZWNyZXQ=\r\n", "235 ok\r\n"}};
	static const struct step login[] = {
	    {"AUTH LOGIN\r\n", "334 VXNlcm5hbWU6\r\n"},
	    {"dGhlaXJz\r\n", "334\r\n"}, {"c2VjcmV0\r\n", "235 ok\r\n"}};

	(void)state;
	conf.proxy_smtp_auth = true;
	message_put(&session.verdict, M_BACKEND_USER, "theirs");
	message_put(&session.verdict, M_BACKEND_PASSWORD, "secret");
	expect_auth("AUTH LOGIN PLAIN", plain, LENGTH(plain));
	expect_auth("AUTH plain", plain, LENGTH(plain));
	expect_auth("HELP", plain, LENGTH(plain));
	expect_auth("AUTH CRAM-MD5 LOGIN", login, LENGTH(login));
}

/* By the verdict: the login is for AUTH alone to tell. */
static void
auth_by_verdict(void **state)
{
	static const struct step steps[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n",
		"250-b\r\n250-XCLIENT ADDR LOGIN\r\n250 AUTH PLAIN\r\n"},
	    {"XCLIENT ADDR=192.0.2.1\r\n", GREETING},
	    {"EHLO client.example\r\n", "250-b\r\n250 AUTH PLAIN\r\n"},
	    {"AUTH PLAIN AHRoZWlycwBzZWNyZXQ=\r\n", "235 ok\r\n"}};

	(void)state;
	message_put(&session.verdict, M_BACKEND_AUTH, "on");
	message_put(&session.verdict, M_BACKEND_USER, "theirs");
	message_put(&session.verdict, M_BACKEND_PASSWORD, "secret");
	EXPECT_READY(steps);
}

static void
refused_auth(void **state)
{
	static const struct step plain[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n", EHLO_OK},
	    {"AUTH PLAIN AGJvYgBzZWNyZXQ=\r\n", "535 5.7.8 no\r\n"}};
	static const struct step prompts[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n", EHLO_OK},
	    {"AUTH PLAIN AGJvYgBzZWNyZXQ=\r\n", "334 more\r\n"}};
	static const struct step at_once[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n", "250-b\r\n250 AUTH LOGIN\r\n"},
	    {"AUTH LOGIN\r\n", "235 come in\r\n"}};

	(void)state;
	conf.proxy_smtp_auth = true;
	message_put(&session.verdict, M_BACKEND_PASSWORD, "secret");
	assert_int_equal(RUN(plain), UPSTREAM_REFUSED);
	assert_string_equal(up.words, "535 5.7.8 no\r\n");
	assert_string_equal(up.reason, "AUTH: 535 5.7.8 no");
	assert_int_equal(RUN(prompts), UPSTREAM_REFUSED);
	assert_int_equal(RUN(at_once), UPSTREAM_REFUSED);
}

static void
auth_without_a_password(void **state)
{
	static const struct step steps[] = {
	    {NULL, GREETING}, {"EHLO client.example\r\n", EHLO_OK}};

	(void)state;
	conf.proxy_smtp_auth = true;
	assert_int_equal(RUN(steps), UPSTREAM_FAILED);
	assert_string_equal(up.reason, "AUTH: there is no password to give");
	/* With `none` nobody has authenticated. */
	conf.proxy_smtp_auth = false;
	EXPECT_READY(steps);
}

/* READY, or it says that they are too long: nothing in between. */
static void
expect_told_or_refused(const struct step *steps, size_t count)
{
	enum upstream_result r = run(steps, count);

	if (r == UPSTREAM_READY) {
		assert_false(server.differs);
		return;
	}
	assert_int_equal(r, UPSTREAM_FAILED);
	assert_string_equal(up.reason, "AUTH: the credentials are too long");
}

/* `before`, the base64 of `len` octets, CRLF. */
static void
encode(char *out, const char *before, const void *data, size_t len)
{
	size_t n = strlen(before);

	memcpy(out, before, n);
	text_base64_encode(data, len, out + n);
	memcpy(out + strlen(out), "\r\n", 3);
}

/* As long as sasl.c lets them be: told whole, or not at all. */
static void
long_credentials(void **state)
{
	static char user[512], password[1024], both[1600];
	static char plain[2300], first[800], second[1500];
	const struct step by_plain[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n", "250-b\r\n250 AUTH PLAIN\r\n"},
	    {plain, "235 ok\r\n"}};
	const struct step by_login[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n", "250-b\r\n250 AUTH LOGIN\r\n"},
	    {"AUTH LOGIN\r\n", "334 a\r\n"}, {first, "334 b\r\n"},
	    {second, "235 ok\r\n"}};
	size_t len;
	int n;

	(void)state;
	conf.proxy_smtp_auth = true;
	server.stays = true;
	fill(user, sizeof(user), sizeof(user) - 1);
	message_put(&session.verdict, M_BACKEND_USER, user);
	encode(first, "", user, strlen(user));
	for (len = 1000; len < sizeof(password); len++) {
		fill(password, sizeof(password), len);
		message_put(&session.verdict, M_BACKEND_PASSWORD, password);
		encode(second, "", password, len);
		n = snprintf(both, sizeof(both), "%c%s%c%s", 0, user, 0,
		    password);
		encode(plain, "AUTH PLAIN ", both, (size_t)n);
		expect_told_or_refused(by_plain, LENGTH(by_plain));
		expect_told_or_refused(by_login, LENGTH(by_login));
	}
}

/* --- MAIL and RCPT ------------------------------------------------------- */

#define MAIL "MAIL FROM:<a@x> BODY=8BITMIME\r\n"
#define RCPT "RCPT TO:<b@y>\r\n"

static void
use_envelope(void)
{
	session.mechanism = NULL;
	(void)snprintf(session.mail, sizeof(session.mail),
	    "FROM:<a@x> BODY=8BITMIME");
	(void)snprintf(session.rcpt, sizeof(session.rcpt), "TO:<b@y>");
}

/* The words the client is given, and what the server says to each command. */
static void
expect_words(bool pipelined, const char *mail, const char *rcpt,
    const char *words)
{
	struct step steps[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n",
		pipelined ? "250-b\r\n250 pipelining\r\n" : EHLO_OK},
	    {MAIL, pipelined ? "" : mail}, {RCPT, rcpt}};
	char both[256];

	if (pipelined) {
		(void)snprintf(both, sizeof(both), "%s%s", mail, rcpt);
		steps[3].say = both;
	}
	assert_int_equal(
	    run(steps, !pipelined && mail[0] != '2' ? 3 : 4), UPSTREAM_READY);
	assert_false(server.differs);
	assert_string_equal(up.words, words);
	assert_true(up.committed);
}

static void
envelopes(void **state)
{
	int pipelined;

	(void)state;
	use_envelope();
	for (pipelined = 0; pipelined < 2; pipelined++) {
		expect_words(pipelined, "250 m\r\n", "250 r\r\n", "250 r\r\n");
		expect_words(pipelined, "250-m\r\n250 m\r\n",
		    "550-r\r\n550 r\r\n", "550-r\r\n550 r\r\n");
		expect_words(pipelined, "250 m\r\n", "450 r\r\n", "450 r\r\n");
		expect_words(pipelined, "250 m\r\n", "421 r\r\n", "421 r\r\n");
		/* Whatever RCPT got, the answer is MAIL's. */
		expect_words(pipelined, "550 m\r\n", "503 r\r\n", "550 m\r\n");
		expect_words(pipelined, "451 m\r\n", "250 r\r\n", "451 m\r\n");
		expect_words(pipelined, "421 m\r\n", "", "421 m\r\n");
	}
}

static void
a_server_that_leaves_in_the_envelope(void **state)
{
	static const struct step at_mail[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n", EHLO_OK}};
	static const struct step at_rcpt[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n", EHLO_OK}, {MAIL, "250 m\r\n"}};
	static const struct step pipelined[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n", "250-b\r\n250 PIPELINING\r\n"},
	    {MAIL RCPT, "250 m\r\n"}};

	(void)state;
	use_envelope();
	assert_int_equal(RUN(at_mail), UPSTREAM_FAILED);
	assert_string_equal(up.reason, "MAIL: connection lost");
	assert_string_equal(up.words, "");
	assert_int_equal(RUN(at_rcpt), UPSTREAM_FAILED);
	assert_string_equal(up.reason, "RCPT: connection lost");
	assert_int_equal(RUN(pipelined), UPSTREAM_FAILED);
	assert_string_equal(up.words, "");
}

/* A line as long as one that is kept. */
static void
a_long_envelope(void **state)
{
	static char command[ENVELOPE_SIZE + 16];
	const struct step steps[] = {{NULL, GREETING},
	    {"EHLO client.example\r\n", EHLO_OK}, {MAIL, "250 m\r\n"},
	    {command, "250 r\r\n"}};

	(void)state;
	use_envelope();
	fill(session.rcpt, sizeof(session.rcpt), ENVELOPE_SIZE - 1);
	(void)snprintf(
	    command, sizeof(command), "RCPT %s\r\n", session.rcpt);
	EXPECT_READY(steps);
}

/* ------------------------------------------------------------------------- */

static void
leaving(void **state)
{
	static const struct step steps[] = {
	    {NULL, "554 no\r\n"}, {"QUIT\r\n", "221 bye\r\n"}};

	(void)state;
	start(steps, LENGTH(steps));
	assert_int_equal(
	    upstream_introduce(&session, &up), UPSTREAM_REFUSED);
	upstream_leave(&up);
	finish();
	assert_false(server.differs);
	/* Not to one that has left already. */
	assert_int_equal(run(steps, 0), UPSTREAM_FAILED);
	upstream_leave(&up);
}

/* --- STARTTLS ------------------------------------------------------------ */

static int secured;

static int
make_secure(void *arg)
{
	secured++;
	(void)snprintf(up.reason, sizeof(up.reason), "TLS: not today");
	return *(int *)arg;
}

#define OFFER "250-backend.example\r\n250-STARTTLS\r\n250 XCLIENT ADDR\r\n"

static void
starttls_comes_first(void **state)
{
	static const struct step steps[] = {{NULL, GREETING},
	    {"EHLO front.example\r\n", OFFER}, {"STARTTLS\r\n", "220 go\r\n"},
	    /* What was offered before is not offered now. */
	    {"EHLO client.example\r\n", EHLO_OK}};
	int result = 0;

	(void)state;
	secured = 0;
	up.secure = make_secure;
	up.secure_arg = &result;
	EXPECT_READY(steps);
	assert_int_equal(secured, 1);
	/* Where nobody asks for it, it is an offer like others. */
	up.secure = NULL;
	assert_int_equal(run(steps + 1, 0), UPSTREAM_FAILED);
	assert_int_equal(secured, 1);
}

/* Nothing more is said to who has no TLS for us. */
static void
no_way_without_starttls(void **state)
{
	static const struct {
		const char *ehlo, *answer;
		int result;
		enum upstream_result r;
		const char *reason;
	} rows[] = {
	    {EHLO_OK, "", 0, UPSTREAM_FAILED,
		"STARTTLS: the backend does not offer it"},
	    {"250-STARTTLS\r\n250 x\r\n", "", 0, UPSTREAM_FAILED,
		"STARTTLS: the backend does not offer it"},
	    {OFFER, "454 4.7.0 no\r\n", 0, UPSTREAM_REFUSED,
		"STARTTLS: 454 4.7.0 no"},
	    {OFFER, "354 go\r\n", 0, UPSTREAM_REFUSED, "STARTTLS: 354 go"},
	    {OFFER, "220 go\r\n250 sure\r\n", 0, UPSTREAM_FAILED,
		"STARTTLS: it says more than it was asked"},
	    {OFFER, "220 go\r\n\x16", 0, UPSTREAM_FAILED,
		"STARTTLS: it says more than it was asked"},
	    {OFFER, "220 go\r\n", -1, UPSTREAM_FAILED, "TLS: not today"},
	};
	struct step steps[] = {{NULL, GREETING},
	    {"EHLO front.example\r\n", NULL}, {"STARTTLS\r\n", NULL}};
	int result;
	size_t i;

	(void)state;
	up.secure = make_secure;
	up.secure_arg = &result;
	for (i = 0; i < LENGTH(rows); i++) {
		secured = 0;
		result = rows[i].result;
		steps[1].say = rows[i].ehlo;
		steps[2].say = rows[i].answer;
		server.stays = true;
		assert_int_equal(
		    run(steps, rows[i].answer[0] != '\0' ? 3 : 2), rows[i].r);
		assert_string_equal(up.reason, rows[i].reason);
		assert_string_equal(up.words, "");
		assert_int_equal(secured, rows[i].result != 0);
		assert_null(memmem(server.heard, server.heard_len, "XCLIENT",
		    strlen("XCLIENT")));
	}
}

#define TEST(f) cmocka_unit_test_setup(f, set_up)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(the_least),
	    TEST(good_greetings),
	    TEST(what_is_no_reply),
	    TEST(a_nul_is_no_reply),
	    TEST(endless_lines),
	    TEST(endless_octets),
	    TEST(refusals),
	    TEST(a_refused_ehlo),
	    TEST(an_end_at_each_step),
	    TEST(silence_at_each_step),
	    TEST(xclient_subsets),
	    TEST(xclient_for_ipv6),
	    TEST(xclient_is_xtext),
	    TEST(xclient_login_is_told_once),
	    TEST(helo_is_told_again_as_helo),
	    TEST(xclient_holds_512_octets),
	    TEST(xclient_that_cannot_be_told),
	    TEST(a_refused_xclient),
	    TEST(xclient_only_where_it_is_offered),
	    TEST(the_first_line_offers_nothing),
	    TEST(a_relay_is_told_nothing),
	    TEST(auth_mechanisms),
	    TEST(auth_by_verdict),
	    TEST(refused_auth),
	    TEST(auth_without_a_password),
	    TEST(long_credentials),
	    TEST(envelopes),
	    TEST(a_server_that_leaves_in_the_envelope),
	    TEST(a_long_envelope),
	    TEST(leaving),
	    TEST(starttls_comes_first),
	    TEST(no_way_without_starttls),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
