/*
 * The sockets of a listener. No names are looked up: what is listened to is an
 * address.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/listen_spec.h"
#include "lib/text.h"

#include "listen_socket.h"

static int
add(struct listen_socket *sockets, size_t *count, int fd, unsigned kind,
    char *err)
{
	int flags = fcntl(fd, F_GETFL);

	if (*count == LISTEN_SOCKETS) {
		(void)snprintf(
		    err, LISTEN_ERROR_SIZE, "more than 16 listening sockets");
		return -1;
	}
	(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	(void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	sockets[(*count)++] = (struct listen_socket){.fd = fd, .kind = kind};
	return 0;
}

/* The name that FileDescriptorName= gave to socket number `i`. */
static void
fd_name(size_t i, char *name, size_t size)
{
	const char *names = getenv("LISTEN_FDNAMES");
	size_t len;

	name[0] = '\0';
	while (names != NULL && i-- > 0) {
		names = strchr(names, ':');
		names = names != NULL ? names + 1 : NULL;
	}
	len = names != NULL ? strcspn(names, ":") : 0;
	if (len == 0 || len >= size)
		return;
	memcpy(name, names, len);
	name[len] = '\0';
}

static bool
is_listening(int fd)
{
	socklen_t len = sizeof(int);
	int is;

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is, &len) == 0 && is;
}

/* inetd's "wait": fd 0, which becomes /dev/null. */
static int
take_stdin(const struct config *conf, struct listen_socket *sockets,
    size_t *count, char *err)
{
	int fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd == -1 || null == -1 || dup2(null, STDIN_FILENO) == -1 ||
	    dup2(null, STDOUT_FILENO) == -1) {
		(void)snprintf(
		    err, LISTEN_ERROR_SIZE, "fd 0: %s", strerror(errno));
		return -1;
	}
	(void)close(null);
	return add(sockets, count, fd, conf->socket, err);
}

static int
take_inherited(const struct config *conf, int first,
    struct listen_socket *sockets, size_t *count, char *err)
{
	const char *fds = getenv("LISTEN_FDS");
	uint64_t i, n = 1;
	unsigned kind;
	char name[32];

	/* A session has no listening socket as its fd 0. */
	if (first == STDIN_FILENO)
		return take_stdin(conf, sockets, count, err);
	if (fds == NULL || text_number(fds, LISTEN_SOCKETS, &n) == -1)
		n = LISTEN_SOCKETS + 1;
	for (i = 0; i < n; i++) {
		if (!is_listening(first + (int)i)) {
			(void)snprintf(err, LISTEN_ERROR_SIZE,
			    "fd %d is not a listening socket", first + (int)i);
			return -1;
		}
		fd_name((size_t)i, name, sizeof(name));
		kind = conf->socket;
		if (strcmp(name, "submissions") == 0 ||
		    strcmp(name, "smtps") == 0)
			kind |= CONFIG_SOCKET_SSL;
		if (add(sockets, count, first + (int)i, kind, err) == -1)
			return -1;
	}
	return 0;
}

/*
 * Removes the socket that a former process has left: one that nobody listens
 * to. Whatever else is there stays, and bind(2) says so.
 */
static void
remove_dead(const struct sockaddr_un *un, socklen_t len)
{
	struct stat st;
	int fd;

	if (lstat(un->sun_path, &st) == -1 || !S_ISSOCK(st.st_mode))
		return;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd == -1)
		return;
	if (connect(fd, (const struct sockaddr *)un, len) == -1 &&
	    errno == ECONNREFUSED)
		(void)unlink(un->sun_path);
	(void)close(fd);
}

static int
open_socket(const struct listen_spec *w)
{
	const struct sockaddr *addr = (const struct sockaddr *)&w->addr;
	const struct sockaddr_un *un = (const struct sockaddr_un *)&w->addr;
	int on = 1, saved;
	int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd == -1)
		return -1;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	/* As in nginx: [::] does not take IPv4 as well. */
	if (addr->sa_family == AF_INET6)
		(void)setsockopt(
		    fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (addr->sa_family == AF_UNIX)
		remove_dead(un, w->len);
	if (bind(fd, addr, w->len) == 0 && listen(fd, w->backlog) == 0)
		return fd;
	saved = errno;
	(void)close(fd);
	errno = saved;
	return -1;
}

static unsigned
kind_of(const struct listen_spec *w)
{
	return (w->ssl ? CONFIG_SOCKET_SSL : 0u) |
	    (w->proxy_protocol ? CONFIG_SOCKET_PROXY : 0u);
}

int
listen_sockets_open(const struct config *conf, int inherited,
    struct listen_socket *sockets, size_t *count, char *err)
{
	struct listen_spec w;
	size_t i;
	int fd;

	*count = 0;
	if (inherited != -1 &&
	    take_inherited(conf, inherited, sockets, count, err) == -1)
		return -1;
	for (i = 0; i < conf->listen.count; i++) {
		/* The directive was checked when it was read. */
		fd = listen_spec_parse(conf->listen.word[i], &w) == NULL ? open_socket(&w)
							     : -1;
		if (fd == -1) {
			(void)snprintf(err, LISTEN_ERROR_SIZE, "%.150s: %s",
			    conf->listen.word[i], strerror(errno));
			return -1;
		}
		if (add(sockets, count, fd, kind_of(&w), err) == -1)
			return -1;
	}
	return 0;
}

void
listen_socket_print(
    const struct sockaddr_storage *addr, char text[LISTEN_ADDR_SIZE])
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;

	if (addr->ss_family == AF_INET)
		(void)inet_ntop(
		    AF_INET, &in->sin_addr, text, LISTEN_ADDR_SIZE);
	else if (addr->ss_family == AF_INET6 &&
	    IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
		(void)inet_ntop(AF_INET, in6->sin6_addr.s6_addr + 12, text,
		    LISTEN_ADDR_SIZE);
	else if (addr->ss_family == AF_INET6)
		(void)inet_ntop(
		    AF_INET6, &in6->sin6_addr, text, LISTEN_ADDR_SIZE);
	else
		(void)text_copy(text, LISTEN_ADDR_SIZE, "unix:");
}
