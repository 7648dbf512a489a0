/*
 * A super-server that counts: each connection gets a process with the
 * connection as fd 0 and 1, and the CPU of that process and of all that it
 * started is taken from the kernel when the last of them has gone. One
 * connection at a time.
 *
 *	spawn [-l] serve N program [argument...]
 *	spawn [-l] greet|early N program [argument...]
 *
 * serve: prints its port and serves N connections. greet: makes N connections
 * itself and leaves when it has read a line; early: the same, with a command
 * under way before the program starts. -l: /dev/log and the journal's socket
 * are there, in a mount namespace of their own, and lead nowhere.
 *
 * Prints a line for each connection: CPU, CPU at the moment of the line (both
 * in microseconds; the second 0 with serve), page faults, context switches,
 * exit status.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "net.h"

/* A process that does not end is a failure of the measurement. */
#define PATIENCE 300

#define SINKS 2

extern char **environ;

/* --- where log lines go -------------------------------------------------- */

static int sinks[SINKS] = {-1, -1};

static int
datagram_sink(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	(void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	if (fd == -1 || bind(fd, (struct sockaddr *)&un, sizeof(un)) == -1)
		net_die(path);
	return fd;
}

static void
private_logs(void)
{
	if (unshare(CLONE_NEWNS) == -1 ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == -1 ||
	    mount("bench", "/dev", "tmpfs", 0, NULL) == -1 ||
	    mount("bench", "/run", "tmpfs", 0, NULL) == -1)
		net_die("a mount namespace of its own");
	if (mknod("/dev/null", S_IFCHR | 0666, makedev(1, 3)) == -1 ||
	    mknod("/dev/urandom", S_IFCHR | 0666, makedev(1, 9)) == -1 ||
	    mkdir("/run/systemd", 0755) == -1 ||
	    mkdir("/run/systemd/journal", 0755) == -1)
		net_die("making /dev and /run");
	sinks[0] = datagram_sink("/dev/log");
	sinks[1] = datagram_sink("/run/systemd/journal/socket");
}

/* How many lines came: a log that says nothing would be cheap. */
static unsigned
drain(void)
{
	char line[65536];
	unsigned n = 0;
	size_t i;

	for (i = 0; i < SINKS; i++)
		while (sinks[i] != -1 &&
		       recv(sinks[i], line, sizeof(line), 0) >= 0)
			n++;
	return n;
}

/* --- one process --------------------------------------------------------- */

static pid_t
start(char **argv, int fd)
{
	posix_spawn_file_actions_t actions;
	pid_t pid;

	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawn_file_actions_adddup2(&actions, fd, STDIN_FILENO);
	(void)posix_spawn_file_actions_adddup2(&actions, fd, STDOUT_FILENO);
	errno = posix_spawn(&pid, argv[0], &actions, NULL, argv, environ);
	if (errno != 0)
		net_die(argv[0]);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)close(fd);
	return pid;
}

/* CPU of a process that still is, precise to the nanosecond. */
static long
cpu_now(pid_t pid)
{
	struct timespec ts;
	clockid_t id;

	if (clock_getcpuclockid(pid, &id) != 0 || clock_gettime(id, &ts) == -1)
		net_die("reading the CPU clock of a process");
	return ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* Waits for the process and for orphans of its, which become ours. */
static void
account(pid_t pid, long at_line)
{
	long cpu = 0, faults = 0, switches = 0;
	struct rusage ru;
	int status, exit_status = -1;
	pid_t ended;

	(void)alarm(PATIENCE);
	while ((ended = wait4(-1, &status, 0, &ru)) != -1) {
		cpu += (ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1000000 +
		       ru.ru_utime.tv_usec + ru.ru_stime.tv_usec;
		faults += ru.ru_minflt;
		switches += ru.ru_nvcsw + ru.ru_nivcsw;
		if (ended == pid)
			exit_status =
			    WIFEXITED(status) ? WEXITSTATUS(status) : 256;
	}
	(void)alarm(0);
	if (sinks[0] != -1 && drain() == 0) {
		errno = 0;
		net_die("nothing was logged");
	}
	printf("%ld %ld %ld %ld %d\n", cpu, at_line, faults, switches,
	    exit_status);
	(void)fflush(stdout);
}

/* --- the two ways -------------------------------------------------------- */

static void
serve(uint64_t times, char **argv)
{
	int fd, listener = net_announce();

	for (; times > 0; times--) {
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd == -1)
			net_die("accept");
		account(start(argv, fd), 0);
	}
}

static void
read_line(int fd)
{
	char buf[512];
	ssize_t n;

	do {
		n = recv(fd, buf, sizeof(buf), 0);
		if (n <= 0)
			net_die("no line came");
	} while (memchr(buf, '\n', (size_t)n) == NULL);
}

static void
greet(uint64_t times, bool early, char **argv)
{
	static const char command[] = "EHLO x\r\n";
	int client, fd, listener;
	uint16_t port;
	long at_line;
	pid_t pid;

	listener = net_listen(&port);
	for (; times > 0; times--) {
		client = net_connect(port);
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd == -1 ||
		    (early && !net_send(client, command, sizeof(command) - 1)))
			net_die("connecting to myself");
		pid = start(argv, fd);
		read_line(client);
		at_line = cpu_now(pid);
		(void)close(client);
		account(pid, at_line);
	}
}

int
main(int argc, char **argv)
{
	bool logs = argc > 1 && strcmp(argv[1], "-l") == 0;
	uint64_t times;

	argv += 1 + logs;
	argc -= 1 + logs;
	if (argc < 3)
		net_die("usage: spawn [-l] serve|greet|early N program...");
	times = net_number(argv[1], 1000000);
	/* The session's helper may outlive it by a moment. */
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) == -1)
		net_die("prctl");
	if (logs)
		private_logs();
	if (strcmp(argv[0], "serve") == 0)
		serve(times, argv + 2);
	else
		greet(times, strcmp(argv[0], "early") == 0, argv + 2);
	return 0;
}
