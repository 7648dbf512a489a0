/*
 * Connecting to a backend. `where` may come from an auth server, so it is
 * parsed as strictly here as in the directives.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/text.h"

#include "backend.h"

static int
fail(char *err, const char *what, int error)
{
	snprintf(err, BACKEND_ERROR_SIZE, "%s%s%s", what,
	    error != 0 ? ": " : "", error != 0 ? strerror(error) : "");
	return -1;
}

/* Waits for a connect(2) that goes on. 0 or errno. */
static int
wait_connected(int fd, int64_t deadline)
{
	struct pollfd pfd = {.fd = fd, .events = POLLOUT};
	socklen_t len = sizeof(int);
	int error = 0, left;

	do {
		left = clock_left(deadline);
		if (poll(&pfd, 1, left) > 0) {
			if (getsockopt(
				fd, SOL_SOCKET, SO_ERROR, &error, &len) == -1)
				return errno;
			return error;
		}
	} while (left != 0);
	return ETIMEDOUT;
}

static int
connect_to(
    const struct sockaddr *addr, socklen_t len, int64_t deadline, char *err)
{
	int error = 0, fd;

	fd = socket(addr->sa_family,
	    SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd == -1)
		return fail(err, "socket", errno);
	if (connect(fd, addr, len) == -1)
		error = errno == EINPROGRESS ? wait_connected(fd, deadline)
					     : errno;
	if (error == 0)
		return fd;
	(void)close(fd);
	return fail(err, "connect", error);
}

static int
connect_unix(const char *path, int64_t deadline, char *err)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	if (text_copy(un.sun_path, sizeof(un.sun_path), path) == -1)
		return fail(err, "path is too long", 0);
	return connect_to(
	    (const struct sockaddr *)&un, sizeof(un), deadline, err);
}

static bool
is_loopback(const struct sockaddr_storage *addr)
{
	const struct sockaddr_in *v4 = (const void *)addr;
	const struct sockaddr_in6 *v6 = (const void *)addr;

	if (addr->ss_family == AF_INET)
		return ntohl(v4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

static int
connect_host(const struct config *conf, struct backend_place *place,
    int64_t deadline, char *err)
{
	struct dns_addr addrs[DNS_MAX_ADDRS];
	struct dns *dns = dns_new(conf->resolver, deadline);
	int i, n, fd = -1;

	if (dns == NULL)
		return fail(err, "resolver", ENOMEM);
	n = dns_addresses(
	    dns, place->host, place->port, addrs, DNS_MAX_ADDRS);
	dns_free(dns);
	if (n <= 0)
		return fail(err, n == 0 ? "host has no address"
					: "host name cannot be resolved", 0);
	for (i = 0; fd == -1 && i < n; i++)
		fd = connect_to((const struct sockaddr *)&addrs[i].addr,
		    addrs[i].len,
		    clock_in((deadline - clock_ms()) / (n - i)), err);
	if (fd != -1)
		place->is_local = is_loopback(&addrs[i - 1].addr);
	return fd;
}

int
backend_connect(const struct config *conf, const char *where,
    struct backend_place *place, int64_t deadline, char *err)
{
	memset(place, 0, sizeof(*place));
	if (strncmp(where, "unix:", 5) == 0) {
		place->is_local = true;
		return connect_unix(where + 5, deadline, err);
	}
	if (text_endpoint(where, place->host, sizeof(place->host), &place->port) == -1)
		return fail(err, "address is not host:port", 0);
	return connect_host(conf, place, deadline, err);
}
