/*
 * A mail server that throws away, as fast as the kernel can: messages are
 * discarded in the socket, without being copied. How long one is has to be said
 * in MAIL's SIZE (RFC 1870), counted with its final dot; it is accepted only if
 * the dot is exactly there.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net.h"

#define BUFFER	4096
#define DISCARD (1 << 20)

static const char end_of_data[] = "\r\n.\r\n";
#define END (sizeof(end_of_data) - 1)

struct peer {
	int fd;
	char buf[BUFFER + 1];
	size_t len;
	uint64_t size; /* of the message that was announced */
};

static bool
say(struct peer *p, const char *text)
{
	return net_send(p->fd, text, strlen(text));
}

/* The next line, without CRLF, in `line`. False: the peer is gone. */
static bool
read_line(struct peer *p, char *line)
{
	size_t len;
	ssize_t n;
	char *lf;

	while ((lf = memchr(p->buf, '\n', p->len)) == NULL) {
		if (p->len == BUFFER)
			return false;
		n = recv(p->fd, p->buf + p->len, BUFFER - p->len, 0);
		if (n <= 0)
			return false;
		p->len += (size_t)n;
	}
	len = (size_t)(lf + 1 - p->buf);
	memcpy(line, p->buf, len);
	line[len - 1] = '\0';
	if (len > 1 && line[len - 2] == '\r')
		line[len - 2] = '\0';
	p->len -= len;
	memmove(p->buf, p->buf + len, p->len);
	return true;
}

/* Discards `n` octets, of those in the buffer first. */
static bool
discard(struct peer *p, uint64_t n)
{
	size_t have = p->len < n ? p->len : (size_t)n;
	ssize_t got;

	p->len -= have;
	memmove(p->buf, p->buf + have, p->len);
	for (n -= have; n > 0; n -= (uint64_t)got) {
		got = recv(
		    p->fd, NULL, n < DISCARD ? (size_t)n : DISCARD, MSG_TRUNC);
		if (got <= 0)
			return false;
	}
	return true;
}

static bool
take_message(struct peer *p)
{
	char reply[64];
	ssize_t n;

	if (p->size < END)
		return say(p, "503 5.5.1 MAIL with SIZE first\r\n");
	if (!say(p, "354 Go on\r\n") || !discard(p, p->size - END))
		return false;
	while (p->len < END) {
		n = recv(p->fd, p->buf + p->len, BUFFER - p->len, 0);
		if (n <= 0)
			return false;
		p->len += (size_t)n;
	}
	if (memcmp(p->buf, end_of_data, END) != 0) {
		(void)say(p, "554 5.6.0 The dot is not where it should be\r\n");
		return false;
	}
	p->len -= END;
	memmove(p->buf, p->buf + END, p->len);
	(void)snprintf(reply, sizeof(reply), "250 2.0.0 %llu octets\r\n",
	    (unsigned long long)p->size);
	p->size = 0;
	return say(p, reply);
}

/* Answers one command. False: the session is over. */
static bool
obey(struct peer *p, const char *line)
{
	const char *size;

	if (strncasecmp(line, "EHLO", 4) == 0)
		return say(p,
		    "250-sink.example\r\n250-PIPELINING\r\n"
		    "250-8BITMIME\r\n250-SIZE\r\n250-AUTH PLAIN\r\n"
		    "250 XCLIENT NAME ADDR PORT PROTO HELO LOGIN\r\n");
	if (strncasecmp(line, "XCLIENT", 7) == 0)
		return say(p, "220 sink.example ESMTP\r\n");
	if (strncasecmp(line, "AUTH", 4) == 0)
		return say(p, "235 2.7.0 OK\r\n");
	if (strncasecmp(line, "DATA", 4) == 0)
		return take_message(p);
	if (strncasecmp(line, "QUIT", 4) == 0) {
		(void)say(p, "221 2.0.0 Bye\r\n");
		return false;
	}
	if (strncasecmp(line, "MAIL", 4) == 0) {
		size = strcasestr(line, " SIZE=");
		p->size = size != NULL ? strtoull(size + 6, NULL, 10) : 0;
	}
	return say(p, "250 2.0.0 OK\r\n");
}

static void *
serve(void *arg)
{
	char line[BUFFER + 1];
	struct peer *p = arg;
	int on = 1;

	(void)setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (say(p, "220 sink.example ESMTP\r\n"))
		while (read_line(p, line) && obey(p, line))
			;
	(void)close(p->fd);
	free(p);
	return NULL;
}

int
main(void)
{
	int listener = net_announce();
	struct peer *p;
	pthread_t thread;

	for (;;) {
		p = calloc(1, sizeof(*p));
		if (p == NULL)
			net_die("calloc");
		p->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (p->fd == -1 || pthread_create(&thread, NULL, serve, p) != 0)
			net_die("accept");
		(void)pthread_detach(thread);
	}
}
