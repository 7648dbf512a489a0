/*
 * An HTTP auth server as nginx's mail proxy asks it: everybody is let in, and
 * sent to one backend. A connection stays open for who asks by HTTP/1.1, as
 * with the servers that people have.
 *
 *	authd BACKEND-PORT
 */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net.h"

static char answer[256];
static size_t answer_len;

/* Answers one request. False: the connection is over. */
static bool
serve_one(int fd)
{
	char head[8192];
	size_t have = 0;
	ssize_t n;

	do {
		if (have == sizeof(head))
			return false;
		n = recv(fd, head + have, sizeof(head) - have, 0);
		if (n <= 0)
			return false;
		have += (size_t)n;
	} while (memmem(head, have, "\r\n\r\n", 4) == NULL);
	return net_send(fd, answer, answer_len) &&
	       memmem(head, have, " HTTP/1.1\r\n", 11) != NULL;
}

static void *
serve(void *arg)
{
	int fd = (int)(intptr_t)arg;

	while (serve_one(fd))
		;
	(void)close(fd);
	return NULL;
}

int
main(int argc, char **argv)
{
	pthread_t thread;
	int fd, listener;

	if (argc != 2)
		net_die("usage: authd PORT");
	answer_len = (size_t)snprintf(answer, sizeof(answer),
	    "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nAuth-Server: 127.0.0.1\r\n"
	    "Auth-Port: %u\r\nContent-Length: 0\r\n\r\n",
	    (unsigned)net_number(argv[1], 65535));
	listener = net_announce();
	for (;;) {
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd == -1 || pthread_create(&thread, NULL, serve,
				    (void *)(intptr_t)fd) != 0)
			net_die("accept");
		(void)pthread_detach(thread);
	}
}
