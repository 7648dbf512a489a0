/*
 * An HTTP auth server as nginx's mail proxy asks it: everybody is let in, and
 * sent to one backend.
 *
 *	authd BACKEND-PORT
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net.h"

/* Reads a request's head. False: none came. */
static bool
read_request(int fd)
{
	char head[8192];
	size_t have = 0;
	ssize_t n;

	while (have < sizeof(head)) {
		n = recv(fd, head + have, sizeof(head) - have, 0);
		if (n <= 0)
			return false;
		have += (size_t)n;
		if (memmem(head, have, "\r\n\r\n", 4) != NULL)
			return true;
	}
	return false;
}

int
main(int argc, char **argv)
{
	int fd, listener, len;
	char answer[256];

	if (argc != 2)
		net_die("usage: authd PORT");
	len = snprintf(answer, sizeof(answer),
	    "HTTP/1.0 200 OK\r\nAuth-Status: OK\r\nAuth-Server: 127.0.0.1\r\n"
	    "Auth-Port: %u\r\nContent-Length: 0\r\n\r\n",
	    (unsigned)net_number(argv[1], 65535));
	listener = net_announce();
	for (;;) {
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd == -1)
			net_die("accept");
		if (read_request(fd))
			(void)net_send(fd, answer, (size_t)len);
		(void)close(fd);
	}
}
