/*
 * The keeper's process in its private form; what it answers is vault.c's.
 */
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/sandbox.h"
#include "vault.h"

#include "keeper.h"

/* How long an answer may wait for a session that does not read. */
#define ANSWER_WAIT 10000

/* Serves one session until it hangs up or says what is no question. */
static void
serve(int channel, const struct config *conf)
{
	static struct message question, answer;
	struct asker asker = {0};
	struct vault vault;

	vault_init(&vault, conf);
	/* While the client reads its greeting. */
	vault_prepare(&vault, false);
	while (message_receive(channel, &question, CLOCK_NEVER) == 1) {
		if (!vault_answer(&vault, &asker, &question, &answer) ||
		    message_send(channel, &answer, clock_in(ANSWER_WAIT)) == -1)
			break;
		message_wipe(&answer);
	}
	vault_forget(&vault, &asker);
}

int
keeper_start(const struct config *conf, int client_fd, pid_t *pid)
{
	pid_t parent = getpid();
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == -1)
		return -1;
	*pid = fork();
	if (*pid == -1) {
		(void)close(pair[0]);
		(void)close(pair[1]);
		return -1;
	}
	if (*pid == 0) {
		/* A keeper does not outlive a session that is killed. */
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == parent &&
		    sandbox_detach(client_fd, -1, pair[1]) == 0)
			serve(pair[1], conf);
		_exit(0);
	}
	(void)close(pair[1]);
	return pair[0];
}

void
keeper_wait(pid_t pid)
{
	struct pollfd pfd = {.events = POLLIN};

	/* Its death signal ends one that is still busy. */
	pfd.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pfd.fd != -1) {
		(void)poll(&pfd, 1, 1000);
		(void)close(pfd.fd);
	}
	(void)waitpid(pid, NULL, WNOHANG);
}
