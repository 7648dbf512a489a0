/*
 * peer.c: what the kernel says goes before what the environment says, and the
 * environment is believed only as far as it is an address.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "peer.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

static struct peer peer;

static const char *const variables[] = {"TCP6REMOTEIP", "TCP6REMOTEPORT",
    "TCPREMOTEIP", "TCPREMOTEPORT", "REMOTE_ADDR", "REMOTE_PORT",
    "REMOTE_HOST", "TCP6LOCALIP", "TCP6LOCALPORT", "TCPLOCALIP",
    "TCPLOCALPORT", "TCPREMOTEHOST", "LISTEN_FDS", "LISTEN_PID"};

static int
set_up(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(variables); i++)
		(void)unsetenv(variables[i]);
	memset(&peer, 'x', sizeof(peer));
	return 0;
}

static void
set(const char *name, const char *value)
{
	assert_int_equal(setenv(name, value, 1), 0);
}

static void
expect_nobody(void)
{
	assert_false(peer.network);
	assert_false(peer.have_addr);
	assert_string_equal(peer.addr, "unix:");
	assert_string_equal(peer.local_addr, "");
	assert_string_equal(peer.host, "");
	assert_int_equal(peer.port, 0);
	assert_int_equal(peer.local_port, 0);
}

static void
expect_addr(const char *addr, uint16_t port, sa_family_t family)
{
	assert_true(peer.have_addr);
	assert_string_equal(peer.addr, addr);
	assert_int_equal(peer.port, port);
	assert_int_equal(peer.sock.ss_family, family);
}

/* --- the kernel ---------------------------------------------------------- */

/* A listener on all addresses of a family; -1 where there is no such. */
static int
listen_on(int family, uint16_t *port)
{
	struct sockaddr_in6 any = {.sin6_family = (sa_family_t)family};
	socklen_t len = sizeof(any);
	int off = 0, fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd == -1)
		return -1;
	(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)) == -1 ||
	    listen(fd, 1) == -1 ||
	    getsockname(fd, (struct sockaddr *)&any, &len) == -1) {
		(void)close(fd);
		return -1;
	}
	*port = ntohs(any.sin6_port);
	return fd;
}

/* Connects over the loopback of a family; the client's own port too. */
static int
connect_by(int family, uint16_t port, uint16_t *own)
{
	struct sockaddr_in6 to = {.sin6_family = (sa_family_t)family,
	    .sin6_port = htons(port),
	    .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct sockaddr_in *to4 = (struct sockaddr_in *)&to;
	socklen_t len = sizeof(to);
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (family == AF_INET)
		to4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == -1 ||
	    getsockname(fd, (struct sockaddr *)&to, &len) == -1) {
		(void)close(fd);
		return -1;
	}
	*own = ntohs(to.sin6_port);
	return fd;
}

/* What is found out about a client of one family at a listener of another. */
static void
expect_network(int listener_family, int client_family, const char *addr)
{
	uint16_t port = 0, own = 0;
	int listener, client, fd;

	listener = listen_on(listener_family, &port);
	if (listener == -1)
		skip();
	client = connect_by(client_family, port, &own);
	if (client == -1) {
		(void)close(listener);
		skip();
	}
	fd = accept(listener, NULL, NULL);
	assert_true(fd >= 0);
	/* Who is on the network is not whom the environment names. */
	set("REMOTE_ADDR", "203.0.113.9");
	set("TCPREMOTEIP", "203.0.113.9");
	set("TCP6REMOTEIP", "2001:db8::9");
	set("TCPLOCALIP", "203.0.113.9");
	set("REMOTE_PORT", "9");
	peer_identify(&peer, fd);
	assert_true(peer.network);
	expect_addr(addr, own, (sa_family_t)client_family);
	assert_string_equal(peer.local_addr, addr);
	assert_int_equal(peer.local_port, port);
	assert_string_equal(peer.host, "");
	(void)close(fd);
	(void)close(client);
	(void)close(listener);
}

static void
ipv4(void **state)
{
	(void)state;
	expect_network(AF_INET, AF_INET, "127.0.0.1");
}

static void
ipv6(void **state)
{
	(void)state;
	expect_network(AF_INET6, AF_INET6, "::1");
}

static void
ipv4_mapped(void **state)
{
	(void)state;
	expect_network(AF_INET6, AF_INET, "127.0.0.1");
}

static void
unix_sockets_and_pipes(void **state)
{
	int fds[2];

	(void)state;
	assert_int_equal(
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	peer_identify(&peer, fds[0]);
	expect_nobody();
	(void)close(fds[0]);
	(void)close(fds[1]);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	peer_identify(&peer, fds[0]);
	expect_nobody();
	(void)close(fds[0]);
	(void)close(fds[1]);
	peer_identify(&peer, -1);
	expect_nobody();
}

/* --- the environment ----------------------------------------------------- */

static void
identify_pipe(void)
{
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	peer_identify(&peer, fds[0]);
	(void)close(fds[0]);
	(void)close(fds[1]);
	assert_false(peer.network);
}

static void
the_environment_is_believed(void **state)
{
	(void)state;
	set("REMOTE_ADDR", "192.0.2.1");
	set("REMOTE_PORT", "65535");
	identify_pipe();
	expect_addr("192.0.2.1", 65535, AF_INET);
	assert_string_equal(peer.local_addr, "");
	set("TCPREMOTEIP", "192.0.2.2");
	set("TCPREMOTEPORT", "2");
	set("TCPLOCALIP", "192.0.2.25");
	set("TCPLOCALPORT", "587");
	identify_pipe();
	expect_addr("192.0.2.2", 2, AF_INET);
	assert_string_equal(peer.local_addr, "192.0.2.25");
	assert_int_equal(peer.local_port, 587);
	set("TCP6REMOTEIP", "2001:db8::3");
	set("TCP6REMOTEPORT", "3");
	set("TCP6LOCALIP", "::ffff:192.0.2.26");
	identify_pipe();
	expect_addr("2001:db8::3", 3, AF_INET6);
	assert_string_equal(peer.local_addr, "192.0.2.26");
	assert_int_equal(peer.local_port, 0);
}

static void
a_mapped_address_in_the_environment(void **state)
{
	(void)state;
	set("REMOTE_HOST", "::FFFF:192.0.2.1");
	set("REMOTE_PORT", "25");
	identify_pipe();
	expect_addr("192.0.2.1", 25, AF_INET);
}

/* What is no address is nobody's. */
static void
hostile_addresses(void **state)
{
	static const char *const values[] = {"", " ", "localhost", "1",
	    "127.1", "0x7f.0.0.1", "192.0.2.1 ", " 192.0.2.1", "192.0.2.1\n",
	    "192.0.2.256", "192.0.2.1.1", "192.0.2.1:25", "[::1]", "fe80::1%lo",
	    "2001:db8::1/64", "192.0.2.1 user=root",
	    "1111:2222:3333:4444:5555:6666:7777:8888:9999",
	    "2001:db8::1\r\nRCPT TO:<x>", "unix:", "../../etc/passwd"};
	char large[5000];
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(values); i++) {
		set("REMOTE_ADDR", values[i]);
		set("REMOTE_HOST", values[i]);
		set("TCPREMOTEIP", values[i]);
		set("TCP6REMOTEIP", values[i]);
		set("TCPLOCALIP", values[i]);
		identify_pipe();
		expect_nobody();
	}
	memset(large, '1', sizeof(large));
	large[sizeof(large) - 1] = '\0';
	set("REMOTE_ADDR", large);
	identify_pipe();
	expect_nobody();
	/* The next name in the list is looked at all the same. */
	(void)unsetenv("TCP6REMOTEIP");
	set("REMOTE_HOST", "192.0.2.7");
	identify_pipe();
	expect_addr("192.0.2.7", 0, AF_INET);
}

static void
hostile_ports(void **state)
{
	static const char *const values[] = {"", "-1", "65536", "+25", " 25",
	    "25 ", "25\n", "0x19", "99999999999999999999", "smtp"};
	size_t i;

	(void)state;
	set("REMOTE_ADDR", "192.0.2.1");
	for (i = 0; i < LENGTH(values); i++) {
		set("REMOTE_PORT", values[i]);
		identify_pipe();
		expect_addr("192.0.2.1", 0, AF_INET);
	}
}

/* A name that a super-server gives is not verified, so it is not used. */
static void
names_are_not_taken(void **state)
{
	(void)state;
	set("REMOTE_ADDR", "192.0.2.1");
	set("TCPREMOTEHOST", "mail.example");
	set("REMOTE_HOST", "mail.example");
	identify_pipe();
	assert_string_equal(peer.host, "");
}

/* --- the connection's descriptor ----------------------------------------- */

/* What a child with these descriptors finds: FOUND(), or its enum. */
static int
find_with(int in, int out, int three, const char *fds, bool own_pid)
{
	int status, rfd = 0, wfd = 0;
	char pid[16];
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		(void)(in == -1 ? close(0) : dup2(in, 0));
		(void)(out == -1 ? close(1) : dup2(out, 1));
		(void)(three == -1 ? close(3) : dup2(three, 3));
		(void)snprintf(pid, sizeof(pid), "%d",
		    own_pid ? (int)getpid() : (int)getppid());
		if (fds != NULL) {
			(void)setenv("LISTEN_FDS", fds, 1);
			(void)setenv("LISTEN_PID", pid, 1);
		}
		status = (int)peer_find(&rfd, &wfd);
		_exit(status == PEER_CONNECTION ? 16 * rfd + 4 * wfd + status
						: status);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

#define FOUND(r, w) (16 * (r) + 4 * (w) + PEER_CONNECTION)

static void
finding(void **state)
{
	int stream[2], packets[2], ends[2], listener;
	uint16_t port;

	(void)state;
	assert_int_equal(
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream), 0);
	assert_int_equal(
	    socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, packets), 0);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	listener = listen_on(AF_INET, &port);
	assert_true(listener >= 0);

	assert_int_equal(
	    find_with(stream[0], stream[0], -1, NULL, true), FOUND(0, 0));
	assert_int_equal(
	    find_with(ends[0], ends[1], -1, NULL, true), FOUND(0, 1));
	assert_int_equal(
	    find_with(ends[0], ends[1], stream[0], "1", true), FOUND(3, 3));
	/* Meant for another process. */
	assert_int_equal(
	    find_with(ends[0], ends[1], stream[0], "1", false), FOUND(0, 1));
	assert_int_equal(
	    find_with(listener, listener, -1, NULL, true), PEER_LISTENING);
	assert_int_equal(
	    find_with(ends[0], ends[1], listener, "1", true), PEER_LISTENING);
	assert_int_equal(
	    find_with(ends[0], ends[1], stream[0], "2", true), PEER_MISSING);
	assert_int_equal(
	    find_with(ends[0], ends[1], packets[0], "1", true), PEER_MISSING);
	assert_int_equal(
	    find_with(ends[0], ends[1], -1, "1", true), PEER_MISSING);
	assert_int_equal(find_with(-1, ends[1], -1, NULL, true), PEER_MISSING);
	assert_int_equal(find_with(ends[0], -1, -1, NULL, true), PEER_MISSING);
	/* Not a number of descriptors. */
	assert_int_equal(
	    find_with(ends[0], ends[1], stream[0], "-1", true), FOUND(0, 1));
	assert_int_equal(
	    find_with(ends[0], ends[1], stream[0], "1x", true), FOUND(0, 1));
	(void)close(listener);
	(void)close(stream[0]);
	(void)close(stream[1]);
	(void)close(packets[0]);
	(void)close(packets[1]);
	(void)close(ends[0]);
	(void)close(ends[1]);
}

#define TEST(f) cmocka_unit_test_setup(f, set_up)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(ipv4),
	    TEST(ipv6),
	    TEST(ipv4_mapped),
	    TEST(unix_sockets_and_pipes),
	    TEST(the_environment_is_believed),
	    TEST(a_mapped_address_in_the_environment),
	    TEST(hostile_addresses),
	    TEST(hostile_ports),
	    TEST(names_are_not_taken),
	    TEST(finding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
