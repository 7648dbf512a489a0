/*
 * The peer, before it has said a word. Called once by main to find the
 * connection and once by session.c.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/text.h"

#include "peer.h"

/* The first descriptor that systemd passes: SD_LISTEN_FDS_START. */
#define LISTEN_FDS_START 3

/*
 * How many sockets systemd passed to this very process: sd_listen_fds(3). Not
 * by libsystemd, whose mere loading doubles the time to the greeting.
 */
static uint64_t
listen_fds(void)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	uint64_t number;

	if (pid == NULL || fds == NULL ||
	    text_number(pid, INT32_MAX, &number) == -1 ||
	    (pid_t)number != getpid() ||
	    text_number(fds, 1024, &number) == -1)
		return 0;
	return number;
}

int
peer_passed_end(void)
{
	return LISTEN_FDS_START + (int)listen_fds();
}

static bool
has_option(int fd, int option, int value)
{
	socklen_t len = sizeof(int);
	int is;

	return getsockopt(fd, SOL_SOCKET, option, &is, &len) == 0 &&
	    is == value;
}

/* A super-server passes one socket twice; a shell may pass two. */
static bool
is_same_socket(int a, int b)
{
	struct stat sa, sb;

	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 &&
	    sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

enum peer_found
peer_find(int *rfd, int *wfd)
{
	uint64_t n = listen_fds();

	*rfd = *wfd = n > 0 ? LISTEN_FDS_START : STDIN_FILENO;
	if (has_option(*rfd, SO_ACCEPTCONN, 1))
		return PEER_LISTENING;
	if (has_option(*rfd, SO_TYPE, SOCK_STREAM) && n < 2 &&
	    (n == 1 || is_same_socket(STDIN_FILENO, STDOUT_FILENO)))
		return PEER_CONNECTION;
	if (n > 0 || fcntl(STDIN_FILENO, F_GETFD) == -1 ||
	    fcntl(STDOUT_FILENO, F_GETFD) == -1)
		return PEER_MISSING;
	*wfd = STDOUT_FILENO;
	return PEER_CONNECTION;
}

/* An IPv4-mapped address becomes the IPv4 address that it is. */
static void
unmap(struct sockaddr_storage *ss)
{
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;
	struct sockaddr_in in = {.sin_family = AF_INET};

	if (ss->ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
		return;
	in.sin_port = in6->sin6_port;
	memcpy(&in.sin_addr, &in6->sin6_addr.s6_addr[12], 4);
	memset(ss, 0, sizeof(*ss));
	memcpy(ss, &in, sizeof(in));
}

static void
write_addr(const struct sockaddr_storage *ss, char *addr, uint16_t *port)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)ss;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ss;

	if (ss->ss_family == AF_INET) {
		inet_ntop(AF_INET, &in->sin_addr, addr, INET6_ADDRSTRLEN);
		*port = ntohs(in->sin_port);
	} else {
		inet_ntop(AF_INET6, &in6->sin6_addr, addr, INET6_ADDRSTRLEN);
		*port = ntohs(in6->sin6_port);
	}
}

static bool
is_inet(const struct sockaddr_storage *ss)
{
	return ss->ss_family == AF_INET || ss->ss_family == AF_INET6;
}

/* Both ends as the kernel knows them; false when it is no network socket. */
static bool
ask_kernel(struct peer *peer, int fd)
{
	socklen_t len = sizeof(peer->sock);

	if (getpeername(fd, (struct sockaddr *)&peer->sock, &len) == -1)
		return false;
	if (!is_inet(&peer->sock))
		return false;
	unmap(&peer->sock);
	write_addr(&peer->sock, peer->addr, &peer->port);
	len = sizeof(peer->local);
	if (getsockname(fd, (struct sockaddr *)&peer->local, &len) == 0 &&
	    is_inet(&peer->local)) {
		unmap(&peer->local);
		write_addr(&peer->local, peer->local_addr, &peer->local_port);
	}
	return true;
}

/* One end from the first variable of the list that holds an address. */
static bool
ask_environment(const char *const names[][2], size_t n,
    struct sockaddr_storage *ss, char *addr, uint16_t *port)
{
	struct sockaddr_in *in = (struct sockaddr_in *)ss;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;
	const char *value;
	uint64_t number;
	size_t i;

	for (i = 0; i < n; i++) {
		value = getenv(names[i][0]);
		if (value == NULL)
			continue;
		memset(ss, 0, sizeof(*ss));
		if (inet_pton(AF_INET, value, &in->sin_addr) == 1)
			ss->ss_family = AF_INET;
		else if (inet_pton(AF_INET6, value, &in6->sin6_addr) == 1)
			ss->ss_family = AF_INET6;
		else
			continue;
		value = names[i][1] != NULL ? getenv(names[i][1]) : NULL;
		if (value != NULL && text_number(value, 65535, &number) == 0)
			in->sin_port = htons((uint16_t)number);
		unmap(ss);
		write_addr(ss, addr, port);
		return true;
	}
	return false;
}

static const char *const remote_names[][2] = {
    {"TCP6REMOTEIP", "TCP6REMOTEPORT"},
    {"TCPREMOTEIP", "TCPREMOTEPORT"},
    {"REMOTE_ADDR", "REMOTE_PORT"},
    {"REMOTE_HOST", "REMOTE_PORT"},
};

static const char *const local_names[][2] = {
    {"TCP6LOCALIP", "TCP6LOCALPORT"},
    {"TCPLOCALIP", "TCPLOCALPORT"},
};

void
peer_identify(struct peer *peer, int fd)
{
	memset(peer, 0, sizeof(*peer));
	if (ask_kernel(peer, fd)) {
		peer->have_addr = peer->network = true;
		return;
	}
	memset(&peer->sock, 0, sizeof(peer->sock));
	/* One that has gone already has no address; nobody lends it one. */
	if (has_option(fd, SO_DOMAIN, AF_INET) ||
	    has_option(fd, SO_DOMAIN, AF_INET6)) {
		(void)text_copy(peer->addr, sizeof(peer->addr), "unknown");
		peer->network = true;
		return;
	}
	peer->have_addr = ask_environment(remote_names,
	    sizeof(remote_names) / sizeof(remote_names[0]), &peer->sock,
	    peer->addr, &peer->port);
	if (!peer->have_addr) {
		/* No address, but a kind that set_real_ip_from may name. */
		if (has_option(fd, SO_DOMAIN, AF_UNIX))
			peer->sock.ss_family = AF_UNIX;
		(void)text_copy(peer->addr, sizeof(peer->addr), "unix:");
		return;
	}
	(void)ask_environment(local_names,
	    sizeof(local_names) / sizeof(local_names[0]), &peer->local,
	    peer->local_addr, &peer->local_port);
}

/* An end of the connection as its other side has it, in the place of ours. */
static void
swap(struct endpoint *other, char *addr, uint16_t *port)
{
	struct endpoint mine;

	(void)text_copy(mine.addr, sizeof(mine.addr), addr);
	mine.port = *port;
	(void)text_copy(addr, sizeof(other->addr), other->addr);
	*port = other->port;
	*other = mine;
}

void
peer_take_header(struct peer *peer, const struct proxy_header *header)
{
	struct sockaddr_storage source = header->source;
	struct sockaddr_storage destination = header->destination;

	unmap(&source);
	unmap(&destination);
	write_addr(&source, peer->other.addr, &peer->other.port);
	write_addr(
	    &destination, peer->other_local.addr, &peer->other_local.port);
	if (!peer->trusted)
		return;
	peer->sock = source;
	peer->local = destination;
	peer->have_addr = peer->network = true;
	swap(&peer->other, peer->addr, &peer->port);
	swap(&peer->other_local, peer->local_addr, &peer->local_port);
}
