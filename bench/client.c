/*
 * A mail client with a stopwatch. It reads each reply before it sends the next
 * command, as the simplest clients do, so that a delay anywhere shows.
 *
 *	client [-t|-s] [-a] [-m LINES] [-n TIMES] [-w MS] PORT
 *	client -c|-i [-n TIMES] [-w MS] PORT
 *
 * -t STARTTLS, -s TLS from the first octet, -a AUTH PLAIN as bench with the
 * password secret, -m a message of so many lines of 80 octets, -n so many
 * sessions one after another, -w with a pause before each but the first. -i:
 * only a handshake, at once; -c: only a connection; both wait for the server's
 * end.
 *
 * Prints a line for each session: microseconds from connect to the reply to
 * QUIT (with -c, to the server's end), those of the longest step (from sending
 * to the whole reply), its name, and those from the message's first octet to
 * its reply.
 */
#include <errno.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "net.h"

#define LINE	80
#define LINES	8192 /* in the buffer */
#define PROGRAM "client"

static const char last[] = ".\r\n";

static struct {
	bool tls, at_once, auth, handshake, connect;
	uint64_t lines, times, pause_ms;
	uint16_t port;
} options = {.times = 1};

struct session {
	int fd;
	SSL *ssl;
	char reply[4096];
	int64_t began, sent, longest, message;
	const char *step, *longest_step;
};

static char data[LINES * LINE + sizeof(last)];
static SSL_CTX *ctx;

/* --- bytes --------------------------------------------------------------- */

static void
fail(const struct session *s, const char *what)
{
	fprintf(stderr, PROGRAM ": at %s: %s: %s\n", s->step, what, s->reply);
	exit(1);
}

static void
put(struct session *s, const char *p, size_t len)
{
	if (s->ssl == NULL ? !net_send(s->fd, p, len)
			   : SSL_write(s->ssl, p, (int)len) != (int)len)
		fail(s, "connection lost");
}

static size_t
get(struct session *s, char *p, size_t size)
{
	ssize_t n = s->ssl == NULL ? recv(s->fd, p, size, 0)
				   : SSL_read(s->ssl, p, (int)size);

	if (n <= 0)
		fail(s, "connection lost");
	return (size_t)n;
}

/* Whether `reply` is whole: its last line has a space behind the code. */
static bool
is_whole(const char *reply, size_t len)
{
	const char *p, *lf;

	if (len < 4 || reply[len - 1] != '\n')
		return false;
	for (p = reply; (lf = strchr(p, '\n')) != NULL && lf[1] != '\0';)
		p = lf + 1;
	return strlen(p) > 3 && p[3] != '-';
}

/* --- steps --------------------------------------------------------------- */

static void
begin_step(struct session *s, const char *name)
{
	s->step = name;
	s->sent = net_now();
}

static void
end_step(struct session *s)
{
	int64_t took = net_now() - s->sent;

	if (took > s->longest) {
		s->longest = took;
		s->longest_step = s->step;
	}
}

static void
expect(struct session *s, char code)
{
	size_t len = 0;

	s->reply[0] = '\0';
	do {
		if (len + 1 == sizeof(s->reply))
			fail(s, "the reply is too long");
		len += get(s, s->reply + len, sizeof(s->reply) - 1 - len);
		s->reply[len] = '\0';
	} while (!is_whole(s->reply, len));
	end_step(s);
	if (s->reply[0] != code)
		fail(s, "not what was expected");
}

static void
ask(struct session *s, const char *name, const char *command, char code)
{
	begin_step(s, name);
	put(s, command, strlen(command));
	expect(s, code);
}

static void
shake_hands(struct session *s)
{
	begin_step(s, "handshake");
	s->ssl = SSL_new(ctx);
	if (s->ssl == NULL || SSL_set_fd(s->ssl, s->fd) != 1 ||
	    SSL_connect(s->ssl) != 1)
		fail(s, "TLS failed");
	end_step(s);
}

static void
send_message(struct session *s)
{
	size_t whole = sizeof(data) - sizeof(last), n;
	uint64_t left = options.lines * LINE;
	char mail[128], reply[64];

	n = strlen(last);
	(void)snprintf(mail, sizeof(mail),
	    "MAIL FROM:<a@bench.example> SIZE=%llu\r\n",
	    (unsigned long long)(left + n));
	(void)snprintf(reply, sizeof(reply), "250 2.0.0 %llu octets\r\n",
	    (unsigned long long)(left + n));
	ask(s, "MAIL", mail, '2');
	ask(s, "RCPT", "RCPT TO:<b@bench.example>\r\n", '2');
	ask(s, "DATA", "DATA\r\n", '3');
	begin_step(s, "message");
	s->message = s->sent;
	for (; left > whole; left -= whole)
		put(s, data, whole);
	/* The last piece has the dot behind it. */
	put(s, data + whole - left, (size_t)left + n);
	expect(s, '2');
	s->message = net_now() - s->message;
	if (strcmp(s->reply, reply) != 0)
		fail(s, "the message has changed on its way");
}

static void
converse(struct session *s)
{
	expect(s, '2');
	ask(s, "EHLO", "EHLO client.example\r\n", '2');
	if (options.tls) {
		ask(s, "STARTTLS", "STARTTLS\r\n", '2');
		shake_hands(s);
		ask(s, "EHLO", "EHLO client.example\r\n", '2');
	}
	if (options.auth)
		ask(s, "AUTH", "AUTH PLAIN AGJlbmNoAHNlY3JldA==\r\n", '2');
	if (options.lines > 0)
		send_message(s);
	ask(s, "QUIT", "QUIT\r\n", '2');
}

/* --- sessions ------------------------------------------------------------ */

static void
run_session(void)
{
	struct session s = {.step = "connect", .longest_step = "none"};
	int64_t ended;
	char byte;

	s.began = net_now();
	begin_step(&s, "greeting");
	s.fd = net_connect(options.port);
	if (options.handshake || options.at_once)
		shake_hands(&s);
	if (!options.handshake && !options.connect)
		converse(&s);
	ended = net_now();
	if (s.ssl != NULL)
		(void)SSL_shutdown(s.ssl);
	(void)shutdown(s.fd, SHUT_WR);
	while (recv(s.fd, &byte, 1, 0) > 0)
		;
	if (options.connect)
		ended = net_now();
	printf("%lld %lld %s %lld\n", (long long)(ended - s.began) / 1000,
	    (long long)s.longest / 1000, s.longest_step,
	    (long long)s.message / 1000);
	SSL_free(s.ssl);
	(void)close(s.fd);
}

static void
prepare(void)
{
	size_t i;

	for (i = 0; i < LINES; i++) {
		memset(data + i * LINE, 'x', LINE - 2);
		memcpy(data + i * LINE, "X-Bench: ", 9);
		memcpy(data + (i + 1) * LINE - 2, "\r\n", 2);
	}
	memcpy(data + LINES * LINE, last, sizeof(last));
	ctx = SSL_CTX_new(TLS_client_method());
	if (ctx == NULL)
		net_die("SSL_CTX_new");
	/* Each handshake is a full one. */
	(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
}

static void
read_options(int argc, char **argv)
{
	int c;

	while ((c = getopt(argc, argv, "tsaicm:n:w:")) != -1) {
		switch (c) {
		case 's':
			options.at_once = true;
			break;
		case 't':
			options.tls = true;
			break;
		case 'a':
			options.auth = true;
			break;
		case 'i':
			options.handshake = true;
			break;
		case 'c':
			options.connect = true;
			break;
		case 'm':
			options.lines = net_number(optarg, 1ull << 40);
			break;
		case 'n':
			options.times = net_number(optarg, 1000000);
			break;
		case 'w':
			options.pause_ms = net_number(optarg, 999);
			break;
		default:
			exit(64);
		}
	}
	if (optind + 1 != argc)
		net_die("usage: client [options] PORT");
	options.port = (uint16_t)net_number(argv[optind], 65535);
}

int
main(int argc, char **argv)
{
	struct timespec pause = {0, 0};
	uint64_t i;

	read_options(argc, argv);
	prepare();
	pause.tv_nsec = (long)options.pause_ms * 1000000;
	for (i = 0; i < options.times; i++) {
		if (i > 0)
			(void)nanosleep(&pause, NULL);
		run_session();
	}
	return 0;
}
