/*
 * Running a program. What decides about relaying in the worlds of qmail and its
 * kin is the environment, so no variable of that kind is taken from outside: a
 * RELAYCLIENT that leaks through would be an open relay.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <syslog.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/sandbox.h"
#include "lib/text.h"

#include "relay.h"

/* Of a provider's variables for a login. */
#define LOGIN_MAX 16384

/* Variables "NAME=value", each ended by a NUL; a later one wins. */
struct environment {
	char text[8192 + LOGIN_MAX];
	size_t len;
};

/* Names beginning so are removed from what we were given. */
static const char *const scrubbed[] = {
    "PROTO=", "TCP", "REMOTE_", "RELAYCLIENT=", "AUTH", "SMTP_", "SMTPAUTH",
    "SMTPS=", "SSL", "UCSPITLS=", "LISTEN_", "NOTIFY_SOCKET=", "WATCHDOG_",
    "CREDENTIALS_DIRECTORY=", "LD_",
};

static bool
is_scrubbed(const char *variable)
{
	size_t i;

	for (i = 0; i < sizeof(scrubbed) / sizeof(scrubbed[0]); i++)
		if (strncmp(variable, scrubbed[i], strlen(scrubbed[i])) == 0)
			return true;
	return false;
}

static void
scrub(void)
{
	extern char **environ;
	char **from, **to = environ;

	for (from = environ; *from != NULL; from++)
		if (!is_scrubbed(*from))
			*to++ = *from;
	*to = NULL;
}

/* A variable whose value is not known is not set. */
static void
put(struct environment *e, const char *name, const char *value)
{
	size_t room = sizeof(e->text) - e->len;
	int n;

	if (value == NULL)
		return;
	n = snprintf(e->text + e->len, room, "%s=%s", name, value);
	if (n > 0 && (size_t)n < room)
		e->len += (size_t)n + 1;
}

static const char *
decimal(uint16_t n, char *buf, size_t size)
{
	if (n == 0)
		return NULL;
	(void)snprintf(buf, size, "%u", (unsigned)n);
	return buf;
}

static const char *
if_known(const char *value)
{
	return value[0] != '\0' ? value : NULL;
}

/* The two ends, in the words of ucspi-tcp and of systemd and xinetd. */
static void
put_peer(struct environment *e, const struct peer *p)
{
	bool v6 = strchr(p->addr, ':') != NULL;
	const char *name = text_is_hostname(p->host) ? p->host : NULL;
	char port[8], local_port[8];
	const char *remote = decimal(p->port, port, sizeof(port));
	const char *local =
	    decimal(p->local_port, local_port, sizeof(local_port));

	if (!p->have_addr)
		return;
	put(e, "PROTO", v6 ? "TCP6" : "TCP");
	put(e, "TCPREMOTEIP", p->addr);
	put(e, "TCPREMOTEPORT", remote);
	put(e, "TCPREMOTEHOST", name);
	put(e, "TCPLOCALIP", if_known(p->local_addr));
	put(e, "TCPLOCALPORT", local);
	if (v6) {
		put(e, "TCP6REMOTEIP", p->addr);
		put(e, "TCP6REMOTEPORT", remote);
		put(e, "TCP6REMOTEHOST", name);
		put(e, "TCP6LOCALIP", if_known(p->local_addr));
		put(e, "TCP6LOCALPORT", local);
	}
	put(e, "REMOTE_ADDR", p->addr);
	put(e, "REMOTE_PORT", remote);
}

/*
 * In mod_ssl's words. A program must look at the first: with
 * `ssl_verify_client optional_no_ca` anybody may be named in the others.
 */
static void
put_certificate(struct environment *e, const struct tls_client *client)
{
	put(e, "SSL_CLIENT_VERIFY", client->verify);
	put(e, "SSL_CLIENT_S_DN", if_known(client->subject));
	put(e, "SSL_CLIENT_I_DN", if_known(client->issuer));
	put(e, "SSL_CLIENT_M_SERIAL", if_known(client->serial));
}

/* What the provider found for this login: first, so that ours win. */
static void
put_login(struct environment *e, const struct message *verdict)
{
	size_t len = 0;
	const char *text = message_get_bytes(verdict, M_ENVIRONMENT, &len);

	if (text == NULL || len == 0 || len > LOGIN_MAX ||
	    text[len - 1] != '\0')
		return;
	memcpy(e->text, text, len);
	e->len = len;
}

static void
describe(struct environment *e, const struct session *s)
{
	const char *user = message_get(&s->verdict, M_USER);

	e->len = 0;
	if (s->mechanism != NULL)
		put_login(e, &s->verdict);
	put(e, "SMTP_SESSION", s->id);
	put_peer(e, &s->peer);
	if (s->tls != NULL) {
		put(e, "SSL_PROTOCOL", s->tls->protocol);
		put(e, "SSL_CIPHER", s->tls->cipher);
		if (s->tls->client != NULL)
			put_certificate(e, s->tls->client);
	}
	if (s->mechanism == NULL)
		return;
	/* Empty: its value is appended to each recipient. */
	put(e, "RELAYCLIENT", "");
	put(e, "TCPREMOTEINFO", user);
	put(e, "SMTPAUTHUSER", user);
	put(e, "AUTHENTICATED", user);
}

/* Takes over what describe() wrote; the text must last. */
static int
adopt(struct environment *e)
{
	size_t at;

	scrub();
	for (at = 0; at < e->len; at += strlen(e->text + at) + 1)
		if (putenv(e->text + at) != 0)
			return -1;
	return 0;
}

/* A program begins with the signals as they come. */
static void
reset_signals(void)
{
	sigset_t none;

	(void)signal(SIGPIPE, SIG_DFL);
	(void)signal(SIGTERM, SIG_DFL);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The last steps of the child. Does not return. */
static void
wait_and_run(const struct config *conf, int channel)
{
	static struct environment e;
	char err[256];
	ssize_t n;

	if (conf->user[0] != '\0' &&
	    sandbox_become(conf->user, err, sizeof(err)) == -1)
		_exit(EX_OSERR);
	do
		n = recv(channel, e.text, sizeof(e.text) - 1, 0);
	while (n == -1 && errno == EINTR);
	if (n <= 0)
		_exit(0); /* not wanted */
	e.len = (size_t)n;
	(void)close(channel);
	reset_signals();
	if (adopt(&e) == 0)
		(void)execvp(conf->relay[0], conf->relay);
	_exit(errno == ENOENT ? 127 : 126);
}

int
relay_prepare(struct relay *relay, const struct config *conf, int client_fd)
{
	int talk[2], channel[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, talk) == -1)
		return -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) ==
	    -1)
		goto err1;
	relay->pid = fork();
	if (relay->pid == -1)
		goto err2;
	if (relay->pid == 0) {
		if (sandbox_detach(client_fd, talk[1], channel[1]) == -1)
			_exit(EX_OSERR);
		wait_and_run(conf, channel[1]);
	}
	(void)close(talk[1]);
	(void)close(channel[1]);
	relay->fd = talk[0];
	relay->channel = channel[0];
	return 0;
err2:
	(void)close(channel[0]);
	(void)close(channel[1]);
err1:
	(void)close(talk[0]);
	(void)close(talk[1]);
	return -1;
}

int
relay_start(struct relay *relay, const struct session *s)
{
	static struct environment e;

	describe(&e, s);
	if (send(relay->channel, e.text, e.len, MSG_NOSIGNAL) == -1)
		return -1;
	relay->started = true;
	return 0;
}

static void
log_end(int status)
{
	bool killed = WIFSIGNALED(status);
	char text[32];

	(void)snprintf(text, sizeof(text), "%s:%d", killed ? "signal" : "exit",
	    killed ? WTERMSIG(status) : WEXITSTATUS(status));
	log_event(status == 0 ? LOG_INFO : LOG_WARNING, "relay", "status",
	    text, NULL);
}

/* Waits for its end. */
static bool
has_ended(pid_t pid, int wait_ms)
{
	struct pollfd pfd = {.events = POLLIN};
	bool ended;

	pfd.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pfd.fd == -1)
		return false; /* so it is killed, and waitpid(2) returns */
	ended = poll(&pfd, 1, wait_ms) > 0;
	(void)close(pfd.fd);
	return ended;
}

void
relay_stop(struct relay *relay, int wait_ms)
{
	int status;

	if (relay->fd == -1)
		return;
	(void)close(relay->fd);
	(void)close(relay->channel);
	relay->fd = relay->channel = -1;
	if (!has_ended(relay->pid, wait_ms)) {
		(void)kill(relay->pid, SIGTERM);
		if (!has_ended(relay->pid, 1000))
			(void)kill(relay->pid, SIGKILL);
	}
	if (waitpid(relay->pid, &status, 0) == relay->pid && relay->started)
		log_end(status);
}

/* The relay's own descriptors block, and a pipe's end was never ours. */
static void
set_blocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags != -1 && (flags & O_NONBLOCK))
		(void)fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
}

int
relay_become(const struct session *s)
{
	static struct environment e;
	const struct conn *c = &s->client;

	set_blocking(c->rfd);
	if ((c->rfd != STDIN_FILENO &&
		dup2(c->rfd, STDIN_FILENO) == -1) ||
	    (c->wfd != STDOUT_FILENO && dup2(c->wfd, STDOUT_FILENO) == -1))
		return -1;
	describe(&e, s);
	if (adopt(&e) == -1)
		return -1;
	/* Under inetd fd 2 is the client, too: no error text goes there. */
	if (sandbox_hide_client(STDIN_FILENO) == -1)
		return -1;
	(void)close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC);
	reset_signals();
	return execvp(s->conf->relay[0], s->conf->relay);
}
