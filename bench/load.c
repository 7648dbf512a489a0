/*
 * Mail clients, many at a time, in one process that only waits in poll(): what
 * a front end is measured with. Each client reads each reply before it sends
 * the next command. A new one begins when one has ended.
 *
 *	load [-t|-s] [-r] [-g|-i] [-m LINES] [-k AT-A-TIME] [-n TIMES] PORT
 *
 * -t STARTTLS, -s TLS from the first octet, -r each handshake resumes an
 * earlier session if the server lets it. A session is EHLO, AUTH PLAIN as bench
 * with the password secret, a message of so many lines of 80 octets, QUIT; with
 * -g no more than the greeting and QUIT. -i: no message and no QUIT; when all
 * are authenticated the line "ready" is printed, and they stay until our
 * standard input ends.
 *
 * Prints one line: sessions, how many of their handshakes were resumed, seconds
 * of all, and in microseconds p50 and p99 of a session (connect to the reply to
 * QUIT) and p50 and p99 of its greeting (connect to the whole line).
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net.h"

#define AT_A_TIME	1000
#define STEPS		16
#define IDLE_PER_SOURCE 10
#define LINE		80
#define LINES		200

/* Nothing has happened for so long: the measurement has failed. */
#define PATIENCE_MS 60000

/* What is said, and how the answer begins. */
struct step {
	const char *name, *text; /* NULL: nothing is said */
	char code; /* '\0': a handshake */
};

static const struct step greeting = {"greeting", NULL, '2'};
static const struct step ehlo = {"EHLO", "EHLO client.example\r\n", '2'};
static const struct step starttls = {"STARTTLS", "STARTTLS\r\n", '2'};
static const struct step handshake = {"handshake", NULL, '\0'};
static const struct step auth = {
    "AUTH", "AUTH PLAIN AGJlbmNoAHNlY3JldA==\r\n", '2'};
static const struct step rcpt = {"RCPT", "RCPT TO:<b@bench.example>\r\n", '2'};
static const struct step data = {"DATA", "DATA\r\n", '3'};
static const struct step quit = {"QUIT", "QUIT\r\n", '2'};

static char mail_text[80], message_text[LINES * LINE + 4];
static const struct step mail = {"MAIL", mail_text, '2'};
static const struct step message = {"message", message_text, '2'};

static struct {
	bool starttls, tls, resume, greeting, idle;
	uint64_t lines, at_a_time, times;
	uint16_t port;
} options = {.lines = 13, .at_a_time = 1, .times = 1};

struct client {
	int fd;
	SSL *ssl;
	size_t step;
	size_t sent; /* of its text */
	char reply[2048];
	size_t len;
	short events;
	int64_t began;
};

static const struct step *plan[STEPS];
static size_t steps;
static struct client clients[AT_A_TIME];
static struct pollfd fds[AT_A_TIME];
static uint64_t begun, greeted, ended, resumed;
static int64_t *session_took, *greeting_took;
static SSL_CTX *ctx;
static SSL_SESSION *ticket;

/* --- bytes --------------------------------------------------------------- */

_Noreturn static void
fail(const struct client *c, const char *what)
{
	ERR_print_errors_fp(stderr);
	fprintf(stderr, "load: session %llu, at %s: %s: %.*s\n",
	    (unsigned long long)ended, plan[c->step]->name, what, (int)c->len,
	    c->reply);
	exit(1);
}

/* What TLS waits for after `r`, which is no success. */
static void
await_tls(struct client *c, int r)
{
	switch (SSL_get_error(c->ssl, r)) {
	case SSL_ERROR_WANT_READ:
		c->events = POLLIN;
		break;
	case SSL_ERROR_WANT_WRITE:
		c->events = POLLOUT;
		break;
	default:
		fail(c, "TLS failed");
	}
}

/* Octets moved, or 0: wait for c->events. */
static size_t
put(struct client *c, const char *p, size_t len)
{
	ssize_t n;

	if (c->ssl != NULL) {
		n = SSL_write(c->ssl, p, (int)len);
		if (n > 0)
			return (size_t)n;
		await_tls(c, (int)n);
		return 0;
	}
	n = send(c->fd, p, len, MSG_NOSIGNAL);
	if (n == -1 && errno != EAGAIN)
		fail(c, "sending failed");
	c->events = POLLOUT;
	return n > 0 ? (size_t)n : 0;
}

static size_t
get(struct client *c, char *p, size_t size)
{
	ssize_t n;

	if (c->ssl != NULL) {
		n = SSL_read(c->ssl, p, (int)size);
		if (n > 0)
			return (size_t)n;
		await_tls(c, (int)n);
		return 0;
	}
	n = recv(c->fd, p, size, 0);
	if (n == 0 || (n == -1 && errno != EAGAIN))
		fail(c, "the server has gone");
	c->events = POLLIN;
	return n > 0 ? (size_t)n : 0;
}

/* Whether the reply is whole: its last line has a space behind the code. */
static bool
is_whole(const struct client *c)
{
	const char *last;

	if (c->len < 5 || c->reply[c->len - 1] != '\n')
		return false;
	last = memrchr(c->reply, '\n', c->len - 1);
	last = last != NULL ? last + 1 : c->reply;
	return c->reply + c->len - last > 4 && last[3] == ' ';
}

/* --- steps --------------------------------------------------------------- */

/* Each returns whether the step is done; else c->events is waited for. */

static bool
shake_hands(struct client *c)
{
	int r;

	if (c->ssl == NULL) {
		c->ssl = SSL_new(ctx);
		if (c->ssl == NULL || SSL_set_fd(c->ssl, c->fd) != 1)
			net_die("SSL_new");
		if (options.resume && ticket != NULL)
			(void)SSL_set_session(c->ssl, ticket);
	}
	r = SSL_connect(c->ssl);
	if (r != 1) {
		await_tls(c, r);
		return false;
	}
	if (SSL_session_reused(c->ssl))
		resumed++;
	return true;
}

static bool
converse(struct client *c, const struct step *step)
{
	size_t n, left;

	while (
	    step->text != NULL && (left = strlen(step->text + c->sent)) > 0) {
		n = put(c, step->text + c->sent, left);
		if (n == 0)
			return false;
		c->sent += n;
	}
	while (!is_whole(c)) {
		if (c->len == sizeof(c->reply))
			fail(c, "the reply is too long");
		n = get(c, c->reply + c->len, sizeof(c->reply) - c->len);
		if (n == 0)
			return false;
		c->len += n;
	}
	if (c->reply[0] != step->code)
		fail(c, "not what was expected");
	return true;
}

/* Goes as far as it can. Whether the session is over. */
static bool
go_on(struct client *c)
{
	const struct step *step;

	while (c->step < steps) {
		step = plan[c->step];
		if (!(step->code == '\0' ? shake_hands(c) : converse(c, step)))
			return false;
		if (step == &greeting)
			greeting_took[greeted++] = net_now() - c->began;
		c->sent = c->len = 0;
		c->step++;
	}
	return true;
}

/* --- sessions ------------------------------------------------------------ */

static void
begin(struct client *c)
{
	memset(c, 0, sizeof(*c));
	c->began = net_now();
	/* Many idle ones are no one's: limits by source are not in question. */
	c->fd = net_connect_from(options.port,
	    options.idle ? (uint32_t)(1 + begun / IDLE_PER_SOURCE) : 0);
	if (fcntl(c->fd, F_SETFL, O_NONBLOCK) == -1)
		net_die("fcntl");
	c->events = plan[0] == &greeting ? POLLIN : POLLOUT;
	begun++;
}

static void
end(struct client *c, uint64_t limit)
{
	session_took[ended++] = net_now() - c->began;
	/* An idle one stays as it is; all end with this process. */
	if (!options.idle) {
		if (c->ssl != NULL)
			(void)SSL_shutdown(c->ssl);
		SSL_free(c->ssl);
		(void)close(c->fd);
	}
	if (begun < limit)
		begin(c);
	else
		c->fd = -1;
}

/* Sessions, so many at a time, until there have been `limit`. */
static void
run(size_t at_a_time, uint64_t limit)
{
	size_t i;
	int n;

	for (i = 0; i < at_a_time; i++)
		begin(&clients[i]);
	while (ended < limit) {
		for (i = 0; i < at_a_time; i++) {
			fds[i].fd = clients[i].fd;
			fds[i].events = clients[i].events;
		}
		n = poll(fds, at_a_time, PATIENCE_MS);
		if (n <= 0)
			fail(&clients[0], "nothing happens any more");
		for (i = 0; i < at_a_time; i++)
			if (fds[i].revents != 0 && go_on(&clients[i]))
				end(&clients[i], limit);
	}
}

/* --- the whole ----------------------------------------------------------- */

static int
compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static void
print_percentiles(int64_t *took)
{
	qsort(took, ended, sizeof(*took), compare);
	printf(" %lld %lld", (long long)took[ended / 2] / 1000,
	    (long long)took[ended * 99 / 100] / 1000);
}

static void
wait_for_end_of_input(void)
{
	char byte;

	printf("ready\n");
	(void)fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
}

/* The newest is for the next; a server may give two a handshake. */
static int
keep_ticket(SSL *ssl, SSL_SESSION *session)
{
	(void)ssl;
	SSL_SESSION_free(ticket);
	ticket = session;
	return 1;
}

static void
prepare_tls(void)
{
	ctx = SSL_CTX_new(TLS_client_method());
	if (ctx == NULL)
		net_die("SSL_CTX_new");
	(void)SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE);
	(void)SSL_CTX_set_session_cache_mode(
	    ctx, !options.resume
		     ? SSL_SESS_CACHE_OFF
		     : SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(ctx, keep_ticket);
}

static void
write_message(void)
{
	char *p = message_text;
	uint64_t i;

	for (i = 0; i < options.lines; i++, p += LINE) {
		memset(p, 'x', LINE - 2);
		memcpy(p, "X-Bench: ", 9);
		memcpy(p + LINE - 2, "\r\n", 2);
	}
	memcpy(p, ".\r\n", 4);
	(void)snprintf(mail_text, sizeof(mail_text),
	    "MAIL FROM:<a@bench.example> SIZE=%zu\r\n", strlen(message_text));
}

static void
add(bool condition, const struct step *step)
{
	if (condition)
		plan[steps++] = step;
}

static void
make_plan(void)
{
	bool whole = !options.greeting && !options.idle;

	add(options.tls, &handshake);
	add(true, &greeting);
	add(!options.greeting, &ehlo);
	add(options.starttls, &starttls);
	add(options.starttls, &handshake);
	add(options.starttls, &ehlo);
	add(!options.greeting, &auth);
	add(whole, &mail);
	add(whole, &rcpt);
	add(whole, &data);
	add(whole, &message);
	add(!options.idle, &quit);
}

static void
read_options(int argc, char **argv)
{
	int c;

	while ((c = getopt(argc, argv, "tsrgim:k:n:")) != -1) {
		options.starttls |= c == 't';
		options.tls |= c == 's';
		options.resume |= c == 'r';
		options.greeting |= c == 'g';
		options.idle |= c == 'i';
		if (c == 'm')
			options.lines = net_number(optarg, LINES);
		else if (c == 'k')
			options.at_a_time = net_number(optarg, AT_A_TIME);
		else if (c == 'n')
			options.times = net_number(optarg, 1000000);
		else if (c == '?')
			exit(64);
	}
	if (optind + 1 != argc)
		net_die("usage: load [options] PORT");
	options.port = (uint16_t)net_number(argv[optind], 65535);
	if (options.resume)
		options.times++;
	if (options.at_a_time > options.times - options.resume)
		options.at_a_time = options.times - options.resume;
}

int
main(int argc, char **argv)
{
	struct rlimit files;
	int64_t began;

	read_options(argc, argv);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	prepare_tls();
	write_message();
	make_plan();
	session_took = calloc(options.times, sizeof(*session_took));
	greeting_took = calloc(options.times, sizeof(*greeting_took));
	if (session_took == NULL || greeting_took == NULL)
		net_die("calloc");
	began = net_now();
	/* Somebody has to be given the first ticket. */
	if (options.resume)
		run(1, 1);
	run(options.at_a_time, options.times);
	if (options.idle)
		wait_for_end_of_input();
	printf("%llu %llu %.6f", (unsigned long long)ended,
	    (unsigned long long)resumed,
	    (double)(net_now() - began) / 1000000000);
	print_percentiles(session_took);
	print_percentiles(greeting_took);
	printf("\n");
	return 0;
}
