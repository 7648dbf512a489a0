/*
 * The yardstick of a process a connection: a listener with nothing but libc,
 * that forks. The child says a greeting, answers one command with 221, and
 * ends. What it costs is the floor of every design of that kind, on this
 * machine.
 *
 *	fork PORT
 */
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net.h"

static void
serve(int fd)
{
	static const char greeting[] = "220 bench.example ESMTP ready\r\n";
	static const char bye[] = "221 2.0.0 Bye\r\n";
	char command[512];

	if (net_send(fd, greeting, sizeof(greeting) - 1) &&
	    recv(fd, command, sizeof(command), 0) > 0)
		(void)net_send(fd, bye, sizeof(bye) - 1);
}

int
main(int argc, char **argv)
{
	struct sockaddr_in sin = {
	    .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd, on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
	pid_t pid;

	if (argc != 2)
		net_die("usage: fork PORT");
	sin.sin_port = htons((uint16_t)net_number(argv[1], 65535));
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	(void)signal(SIGCHLD, SIG_IGN);
	if (listener == -1 ||
	    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ==
		-1 ||
	    bind(listener, (struct sockaddr *)&sin, sizeof(sin)) == -1 ||
	    listen(listener, SOMAXCONN) == -1)
		net_die("listening");
	for (;;) {
		fd = accept(listener, NULL, NULL);
		pid = fd != -1 ? fork() : -1;
		if (pid == -1)
			net_die("accept or fork");
		if (pid == 0) {
			serve(fd);
			_exit(0);
		}
		(void)close(fd);
	}
}
