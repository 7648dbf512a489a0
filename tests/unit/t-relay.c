/*
 * relay.c with programs of a few lines of sh: what they are given, what they
 * are not, and how they end. The log is ours.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "relay.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

#define SOON 3000

static struct config conf;
static struct session session;
static struct relay relay;
static int client[2];
static char logged[64]; /* the status of the last event=relay */

/* In place of lib/log.c. */
void
log_event(int priority, const char *event, ...)
{
	const char *key;
	va_list ap;

	(void)priority;
	assert_string_equal(event, "relay");
	va_start(ap, event);
	while ((key = va_arg(ap, const char *)) != NULL)
		if (strcmp(key, "status") == 0)
			(void)snprintf(logged, sizeof(logged), "%s",
			    va_arg(ap, const char *));
	va_end(ap);
}

static int
set_up(void **state)
{
	(void)state;
	memset(&conf, 0, sizeof(conf));
	memset(&session, 0, sizeof(session));
	conf.user = "";
	logged[0] = '\0';
	relay.fd = relay.channel = -1;
	relay.started = false;
	session.conf = &conf;
	(void)snprintf(session.id, sizeof(session.id), "0123456789abcdef");
	(void)snprintf(
	    session.peer.addr, sizeof(session.peer.addr), "192.0.2.1");
	(void)snprintf(session.peer.local_addr,
	    sizeof(session.peer.local_addr), "192.0.2.25");
	(void)snprintf(
	    session.peer.host, sizeof(session.peer.host), "mail.example");
	session.peer.have_addr = true;
	session.peer.port = 40000;
	session.peer.local_port = 587;
	session.mechanism = "PLAIN";
	message_init(&session.verdict, ANSWER_VERDICT);
	message_put(&session.verdict, M_USER, "bob");
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, client);
}

static int
tear_down(void **state)
{
	(void)state;
	relay_stop(&relay, 0);
	(void)close(client[0]);
	(void)close(client[1]);
	return 0;
}

/* Prepares `sh -c script`, and lets it run. */
static void
prepare(const char *script)
{
	static char *words[4];

	free(words[2]);
	words[0] = (char *)(uintptr_t) "/bin/sh";
	words[1] = (char *)(uintptr_t) "-c";
	words[2] = strdup(script);
	conf.relay = words;
	assert_int_equal(relay_prepare(&relay, &conf, client[0]), 0);
	assert_true(fcntl(relay.fd, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(relay.channel, F_GETFD) & FD_CLOEXEC);
}

static void
start(const char *script)
{
	prepare(script);
	assert_int_equal(relay_start(&relay, &session), 0);
}

/* All that it says until its end, with a newline before it. */
static const char *
hear(void)
{
	static char text[65536];
	struct timeval tv = {.tv_sec = SOON / 1000};
	size_t n = 1;
	ssize_t r;

	text[0] = '\n';
	(void)setsockopt(relay.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	while ((r = recv(relay.fd, text + n, sizeof(text) - 1 - n, 0)) > 0)
		n += (size_t)r;
	assert_int_equal(r, 0);
	text[n] = '\0';
	return text;
}

/* Whether a line is among those that it said. */
static bool
has(const char *text, const char *line)
{
	char whole[256];

	(void)snprintf(whole, sizeof(whole), "\n%s\n", line);
	return strstr(text, whole) != NULL;
}

/* --- the environment ----------------------------------------------------- */

static void
the_facts(void **state)
{
	static const char *const lines[] = {"PROTO=TCP",
	    "TCPREMOTEIP=192.0.2.1", "TCPREMOTEPORT=40000", "TCPREMOTEHOST=mail.example",
	    "TCPLOCALIP=192.0.2.25", "TCPLOCALPORT=587",
	    "REMOTE_ADDR=192.0.2.1", "REMOTE_PORT=40000", "RELAYCLIENT=",
	    "TCPREMOTEINFO=bob", "SMTPAUTHUSER=bob", "AUTHENTICATED=bob",
	    "SMTP_SESSION=0123456789abcdef"};
	const char *text;
	size_t i;

	(void)state;
	start("env");
	text = hear();
	for (i = 0; i < LENGTH(lines); i++)
		if (!has(text, lines[i]))
			fail_msg("no %s", lines[i]);
	assert_null(strstr(text, "\nTCP6"));
	assert_null(strstr(text, "\nSSL_"));
}

static void
the_facts_of_ipv6_and_tls(void **state)
{
	static const struct tls_facts tls = {
	    .protocol = "TLSv1.3", .cipher = "A", .server_name = ""};
	const char *text;

	(void)state;
	session.tls = &tls;
	(void)snprintf(
	    session.peer.addr, sizeof(session.peer.addr), "2001:db8::1");
	(void)snprintf(
	    session.peer.host, sizeof(session.peer.host), "[TEMPUNAVAIL]");
	start("env");
	text = hear();
	assert_true(has(text, "PROTO=TCP6"));
	assert_true(has(text, "TCP6REMOTEIP=2001:db8::1"));
	assert_true(has(text, "TCPREMOTEIP=2001:db8::1"));
	assert_true(has(text, "SSL_PROTOCOL=TLSv1.3"));
	assert_true(has(text, "SSL_CIPHER=A"));
	assert_null(strstr(text, "\nTCPREMOTEHOST"));
}

static const char *const hostile[] = {"RELAYCLIENT", "TCPREMOTEIP",
    "TCPREMOTEINFO", "TCP6REMOTEIP", "TCPREMOTEHOST", "PROTO", "REMOTE_ADDR",
    "REMOTE_HOST", "AUTHENTICATED", "AUTH_USER", "SMTPAUTHUSER",
    "SMTPAUTHMETHOD", "SMTP_AUTH_PROVIDER", "SMTP_SESSION", "SMTPS",
    "SSL_PROTOCOL", "SSL_CLIENT_S_DN", "UCSPITLS", "LISTEN_FDS", "LISTEN_PID",
    "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC",
    "CREDENTIALS_DIRECTORY", "LD_PRELOAD_X", "LD_LIBRARY_PATH"};

/* A RELAYCLIENT that leaks through would be an open relay. */
static void
nothing_of_the_kind_leaks_through(void **state)
{
	const char *text;
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(hostile); i++)
		assert_int_equal(setenv(hostile[i], "EVIL", 1), 0);
	assert_int_equal(setenv("HARMLESS", "kept", 1), 0);
	session.mechanism = NULL;
	session.peer.have_addr = false;
	start("env");
	text = hear();
	for (i = 0; i < LENGTH(hostile); i++)
		(void)unsetenv(hostile[i]);
	assert_null(strstr(text, "EVIL"));
	assert_null(strstr(text, "\nRELAYCLIENT"));
	assert_null(strstr(text, "\nAUTHENTICATED"));
	assert_null(strstr(text, "\nTCP"));
	assert_true(has(text, "HARMLESS=kept"));
	assert_true(has(text, "SMTP_SESSION=0123456789abcdef"));
}

/* --- what a provider found for the login --------------------------------- */

static const char login[] = "HOME=/home/bob\0AUTHENTICATED=eve\0"
			    "TCPREMOTEIP=6.6.6.6\0AUTHUSER=bob";

static void
the_login_s(void **state)
{
	const char *text;

	(void)state;
	message_put_bytes(
	    &session.verdict, M_ENVIRONMENT, login, sizeof(login));
	start("env");
	text = hear();
	assert_true(has(text, "HOME=/home/bob"));
	assert_true(has(text, "AUTHUSER=bob"));
	/* Ours win. */
	assert_true(has(text, "AUTHENTICATED=bob"));
	assert_true(has(text, "TCPREMOTEIP=192.0.2.1"));
	assert_null(strstr(text, "6.6.6.6"));
}

/* Not before there is a login, and not what has no end. */
static void
the_login_s_that_is_none(void **state)
{
	(void)state;
	message_put_bytes(
	    &session.verdict, M_ENVIRONMENT, login, sizeof(login) - 1);
	start("env");
	assert_null(strstr(hear(), "/home/bob"));
	relay_stop(&relay, SOON);
	message_put_bytes(
	    &session.verdict, M_ENVIRONMENT, login, sizeof(login));
	session.mechanism = NULL;
	start("env");
	assert_null(strstr(hear(), "/home/bob"));
}

/* --- descriptors and signals --------------------------------------------- */

static void
it_has_three_descriptors(void **state)
{
	int extra, saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
	char path[64], target[64] = "";
	const char *text;

	(void)state;
	/* Without CLOEXEC, as systemd passes the connection. */
	extra = dup(client[0]);
	assert_int_equal(dup2(client[0], STDERR_FILENO), STDERR_FILENO);
	/* No pipe of the shell's own may be among them. */
	prepare("ls /proc/$$/fd; "
		"readlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2");
	assert_int_equal(dup2(saved, STDERR_FILENO), STDERR_FILENO);
	assert_int_equal(relay_start(&relay, &session), 0);
	text = hear();
	assert_int_equal(strncmp(text, "\n0\n1\n2\nsocket:", 14), 0);
	assert_true(has(text, "/dev/null"));
	/* The client's connection is none of them. */
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", client[0]);
	assert_true(readlink(path, target, sizeof(target) - 1) > 0);
	assert_null(strstr(text, target));
	(void)close(extra);
	(void)close(saved);
}

static void
sigpipe_kills_it_as_it_should(void **state)
{
	(void)state;
	(void)signal(SIGPIPE, SIG_IGN);
	start("kill -PIPE $$; sleep 9");
	(void)hear();
	relay_stop(&relay, SOON);
	assert_string_equal(logged, "signal:13");
	(void)signal(SIGPIPE, SIG_DFL);
}

static void
a_conversation(void **state)
{
	char got[16];

	(void)state;
	start("read -r line; echo \"250 $line\"; read -r line; exit 3");
	assert_int_equal(send(relay.fd, "hello\n", 6, 0), 6);
	assert_int_equal(recv(relay.fd, got, 10, MSG_WAITALL), 10);
	assert_memory_equal(got, "250 hello\n", 10);
	assert_string_equal(logged, "");
	relay_stop(&relay, SOON);
	assert_string_equal(logged, "exit:3");
	assert_int_equal(relay.fd, -1);
	assert_int_equal(relay.channel, -1);
	relay_stop(&relay, SOON);
}

/* --- ends ---------------------------------------------------------------- */

static bool
is_buried(pid_t pid)
{
	return kill(pid, 0) == -1 && waitpid(pid, NULL, WNOHANG) == -1;
}

static void
one_that_is_not_wanted(void **state)
{
	int64_t began = clock_ms();
	char mark[] = "/tmp/t-relay-XXXXXX", script[128];

	(void)state;
	assert_true(close(mkstemp(mark)) == 0);
	assert_int_equal(unlink(mark), 0);
	(void)snprintf(script, sizeof(script), "echo > %s", mark);
	prepare(script);
	relay_stop(&relay, SOON);
	assert_true(is_buried(relay.pid));
	assert_in_range(clock_ms() - began, 0, SOON / 2);
	assert_string_equal(logged, "");
	assert_int_equal(access(mark, F_OK), -1);
}

static void
one_that_cannot_be_run(void **state)
{
	static char *missing[] = {(char *)(uintptr_t) "/nowhere/x", NULL};
	static char *folder[] = {(char *)(uintptr_t) "/tmp", NULL};

	(void)state;
	conf.relay = missing;
	assert_int_equal(relay_prepare(&relay, &conf, client[0]), 0);
	assert_int_equal(relay_start(&relay, &session), 0);
	assert_string_equal(hear(), "\n");
	relay_stop(&relay, SOON);
	assert_string_equal(logged, "exit:127");
	conf.relay = folder;
	assert_int_equal(relay_prepare(&relay, &conf, client[0]), 0);
	assert_int_equal(relay_start(&relay, &session), 0);
	relay_stop(&relay, SOON);
	assert_string_equal(logged, "exit:126");
}

static void
one_that_ends_late(void **state)
{
	(void)state;
	start("read -r line; sleep 0.3; exit 0");
	relay_stop(&relay, SOON);
	assert_string_equal(logged, "exit:0");
}

static void
one_that_is_deaf(void **state)
{
	int64_t began = clock_ms();

	(void)state;
	start("exec sleep 30");
	(void)usleep(100000);
	relay_stop(&relay, 100);
	assert_string_equal(logged, "signal:15");
	assert_true(is_buried(relay.pid));
	assert_in_range(clock_ms() - began, 200, SOON);
}

static void
one_that_is_stubborn(void **state)
{
	char got[4];

	(void)state;
	start("trap '' TERM; echo on; while :; do sleep 0.2; done");
	assert_int_equal(recv(relay.fd, got, 3, MSG_WAITALL), 3);
	relay_stop(&relay, 0);
	assert_string_equal(logged, "signal:9");
	assert_true(is_buried(relay.pid));
}

/* A relay that died before it was wanted. */
static void
one_that_is_dead(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	prepare("exit 0");
	pid = relay.pid;
	(void)kill(pid, SIGKILL);
	/* Left for relay_stop() to bury. */
	(void)waitid(P_PID, (id_t)pid, &(siginfo_t){0}, WEXITED | WNOWAIT);
	assert_int_equal(relay_start(&relay, &session), -1);
	relay_stop(&relay, 0);
	assert_int_equal(waitpid(pid, &status, WNOHANG), -1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(the_facts),
	    TEST(the_facts_of_ipv6_and_tls),
	    TEST(nothing_of_the_kind_leaks_through),
	    TEST(the_login_s),
	    TEST(the_login_s_that_is_none),
	    TEST(it_has_three_descriptors),
	    TEST(sigpipe_kills_it_as_it_should),
	    TEST(a_conversation),
	    TEST(one_that_is_not_wanted),
	    TEST(one_that_cannot_be_run),
	    TEST(one_that_ends_late),
	    TEST(one_that_is_deaf),
	    TEST(one_that_is_stubborn),
	    TEST(one_that_is_dead),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
