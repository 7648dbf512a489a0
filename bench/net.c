/*
 * Loopback sockets and the rest of net.h. Nothing here is measured.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

#include "net.h"

_Noreturn void
net_die(const char *what)
{
	(void)fflush(stdout);
	fprintf(stderr, "%s%s%s\n", what, errno != 0 ? ": " : "",
	    errno != 0 ? strerror(errno) : "");
	exit(1);
}

static struct sockaddr_in
loopback(uint16_t port)
{
	struct sockaddr_in sin = {
	    .sin_family = AF_INET,
	    .sin_port = htons(port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};

	return sin;
}

int
net_listen(uint16_t *port)
{
	struct sockaddr_in sin = loopback(0);
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd == -1 || bind(fd, (struct sockaddr *)&sin, len) == -1 ||
	    listen(fd, SOMAXCONN) == -1 ||
	    getsockname(fd, (struct sockaddr *)&sin, &len) == -1)
		net_die("listening");
	*port = ntohs(sin.sin_port);
	return fd;
}

int
net_announce(void)
{
	uint16_t port;
	int fd = net_listen(&port);

	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	printf("%u\n", (unsigned)port);
	(void)fflush(stdout);
	return fd;
}

int
net_connect(uint16_t port)
{
	return net_connect_from(port, 0);
}

int
net_connect_from(uint16_t port, uint32_t offset)
{
	struct sockaddr_in sin = loopback(port), own = loopback(0);
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	own.sin_addr.s_addr = htonl(INADDR_LOOPBACK + offset);
	if (offset != 0 && bind(fd, (struct sockaddr *)&own, sizeof(own)) == -1)
		net_die("an address of my own");
	if (fd == -1 || connect(fd, (struct sockaddr *)&sin, sizeof(sin)) == -1)
		net_die("connecting");
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

bool
net_send(int fd, const void *data, size_t len)
{
	const char *p = data;
	ssize_t n;

	for (; len > 0; p += n, len -= (size_t)n) {
		n = send(fd, p, len, MSG_NOSIGNAL);
		if (n <= 0)
			return false;
	}
	return true;
}

uint64_t
net_number(const char *text, uint64_t max)
{
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || n > max)
		net_die("not a number, or too large");
	return n;
}

int64_t
net_now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}
