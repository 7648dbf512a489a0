/*
 * vfork(2), execve(2), and one poll(2) loop over the pipes and a pidfd. Until
 * the exec the child has our memory, so it makes system calls and nothing else;
 * a fork would copy a keeper's page tables and a third of the time be spent on
 * that. Input is in its pipe before the program is there, so nobody waits for
 * one that does not read.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/clock.h"

#include "lib/spawn.h"

#define INPUT_FD 3

/* How long what was killed may take to go. */
#define DEATH_MS 1000

/* The pipes: the end that the program has, and ours. */
struct pipes {
	int in, out, err; /* its ends */
	int from_out, from_err;
};

static void
close_fd(int *fd)
{
	if (*fd != -1)
		(void)close(*fd);
	*fd = -1;
}

static void
close_pipes(struct pipes *p)
{
	close_fd(&p->in);
	close_fd(&p->out);
	close_fd(&p->err);
	close_fd(&p->from_out);
	close_fd(&p->from_err);
}

/* 0, or -1 with errno. */
static int
open_pipe(int *reader, int *writer)
{
	int pair[2];

	if (pipe2(pair, O_CLOEXEC) == -1)
		return -1;
	*reader = pair[0];
	*writer = pair[1];
	return 0;
}

/* A pipe with all of the input in it, its writer closed: 0, or -1 with errno */
static int
open_input(int *reader, const void *input, size_t len)
{
	int writer;
	ssize_t n;

	if (len > SPAWN_INPUT_MAX) {
		errno = EMSGSIZE;
		return -1;
	}
	if (open_pipe(reader, &writer) == -1)
		return -1;
	(void)fcntl(writer, F_SETFL, O_NONBLOCK);
	n = write(writer, input, len);
	(void)close(writer);
	if (n == (ssize_t)len)
		return 0;
	errno = EIO;
	return -1;
}

static int
open_pipes(struct pipes *p, const struct spawn *s)
{
	*p = (struct pipes){-1, -1, -1, -1, -1};
	if (open_input(&p->in, s->input, s->input_len) == -1 ||
	    open_pipe(&p->from_out, &p->out) == -1 ||
	    open_pipe(&p->from_err, &p->err) == -1 ||
	    fcntl(p->from_out, F_SETFL, O_NONBLOCK) == -1 ||
	    fcntl(p->from_err, F_SETFL, O_NONBLOCK) == -1)
		return -1;
	return 0;
}

/*
 * What we ignore and block, it would too. What we have handlers for is reset
 * before it is let through: they would run in our memory.
 */
static void
reset_signals(void)
{
	sigset_t none;

	(void)signal(SIGPIPE, SIG_DFL);
	(void)signal(SIGTERM, SIG_DFL);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The child. It does not return: that would take our stack apart. */
static _Noreturn void
become(const struct spawn *s, const struct pipes *p, pid_t parent)
{
	const char *why;
	int null;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	(void)setpgid(0, 0);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	/* `in` last: the others may lie on fd 3. */
	if (null != -1 && dup2(null, STDIN_FILENO) != -1 &&
	    dup2(p->out, STDOUT_FILENO) != -1 &&
	    dup2(p->err, STDERR_FILENO) != -1 &&
	    (p->in == INPUT_FD ? fcntl(INPUT_FD, F_SETFD, 0)
			       : dup2(p->in, INPUT_FD)) != -1 &&
	    close_range(INPUT_FD + 1, ~0u, 0) != -1) {
		reset_signals();
		(void)execve(s->argv[0], s->argv, s->envp);
	}
	why = strerrordesc_np(errno);
	(void)!write(STDERR_FILENO, why, strlen(why));
	_exit(127);
}

/* One read. False when there was something that does not fit. */
static bool
take(int *fd, struct spawn_output *o)
{
	size_t room = o->size - o->len;
	char rest[512];
	ssize_t n;

	n = read(*fd, room > 0 ? o->text + o->len : rest,
	    room > 0 ? room : sizeof(rest));
	if (n == 0)
		close_fd(fd);
	if (n > 0 && room > 0)
		o->len += (size_t)n;
	return n <= 0 || room > 0;
}

/*
 * Until its end, which `pidfd` tells. A pipe's end is not waited for: somebody
 * else may hold it. SPAWN_EXITED, or why it must be killed.
 */
static enum spawn_end
listen_to(struct spawn *s, struct pipes *p, int pidfd, int64_t deadline)
{
	struct pollfd fds[3];

	for (;;) {
		fds[0] = (struct pollfd){.fd = pidfd, .events = POLLIN};
		fds[1] = (struct pollfd){.fd = p->from_out, .events = POLLIN};
		fds[2] = (struct pollfd){.fd = p->from_err, .events = POLLIN};
		if (poll(fds, 3, clock_left(deadline)) == -1 && errno != EINTR)
			return SPAWN_TIMED_OUT;
		if (fds[1].revents != 0 && !take(&p->from_out, &s->out))
			return SPAWN_TOO_MUCH;
		if (fds[2].revents != 0)
			(void)take(&p->from_err, &s->err);
		if (fds[0].revents != 0)
			return SPAWN_EXITED;
		/* One that never stops talking may not talk itself past it. */
		if (clock_left(deadline) == 0)
			return SPAWN_TIMED_OUT;
	}
}

/* What is left in a pipe, as far as there is room for it. */
static void
drain(int *fd, struct spawn_output *o)
{
	size_t before;

	do {
		before = o->len;
		if (*fd == -1 || o->len == o->size)
			return;
		(void)take(fd, o);
	} while (o->len > before);
}

/*
 * Kills the group and buries the child, which holds the group's number until
 * then. One that has become another user is beyond our reach: it is given up,
 * for the deadline holds.
 */
static enum spawn_end
bury(struct spawn *s, pid_t pid, int pidfd, enum spawn_end end)
{
	struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
	int status = 0;
	pid_t found;

	(void)kill(-pid, SIGKILL);
	(void)kill(pid, SIGKILL);
	if (pidfd != -1)
		(void)poll(&pfd, 1, DEATH_MS);
	do
		found = waitpid(pid, &status, pidfd == -1 ? 0 : WNOHANG);
	while (found == -1 && errno == EINTR);
	if (end != SPAWN_EXITED)
		return end;
	if (found == pid && WIFEXITED(status)) {
		s->status = WEXITSTATUS(status);
		return SPAWN_EXITED;
	}
	s->status = WTERMSIG(status);
	return SPAWN_KILLED;
}

static enum spawn_end
attend(struct spawn *s, struct pipes *p, pid_t pid, int64_t deadline)
{
	enum spawn_end end = SPAWN_FAILED;
	int pidfd;

	/* Here too: whoever comes first. */
	(void)setpgid(pid, pid);
	close_fd(&p->in);
	close_fd(&p->out);
	close_fd(&p->err);
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd == -1)
		s->status = errno;
	else
		end = listen_to(s, p, pidfd, deadline);
	end = bury(s, pid, pidfd, end);
	if (end == SPAWN_EXITED || end == SPAWN_KILLED) {
		drain(&p->from_out, &s->out);
		drain(&p->from_err, &s->err);
	}
	close_fd(&pidfd);
	/* Full is cut: there may have been more. */
	if (end == SPAWN_EXITED && s->out.len == s->out.size)
		end = SPAWN_TOO_MUCH;
	return end;
}

/* Alone in here, for the child comes by first. */
static __attribute__((noinline)) pid_t
start(const struct spawn *s, const struct pipes *p, pid_t parent)
{
	pid_t pid = vfork();

	if (pid == 0)
		become(s, p, parent);
	return pid;
}

enum spawn_end
spawn_run(struct spawn *s, int64_t deadline)
{
	enum spawn_end end = SPAWN_FAILED;
	struct pipes p;
	pid_t pid = -1;

	s->out.len = s->err.len = 0;
	if (open_pipes(&p, s) == 0)
		pid = start(s, &p, getpid());
	s->status = errno;
	if (pid > 0)
		end = attend(s, &p, pid, deadline);
	close_pipes(&p);
	return end;
}
