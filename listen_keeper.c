/*
 * Starting keepers, replacing those that die, and knowing when one of an
 * earlier load is of no use to anybody any more. What a keeper does is
 * keeper_pool.c's.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "keeper_pool.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/message.h"
#include "lib/text.h"
#include "notify.h"

#include "listen_keeper.h"

/* A keeper that dies is not restarted more often than this. */
#define PAUSE_MS 1000

/* How long they have at the end; and how long the kernel, for a killed one. */
#define END_MS	  2000
#define KILLED_MS 500

/* How long one may take until it answers: seconds. */
#define PATIENCE 10

void
listen_keepers_init(struct listen_keepers *all,
    void (*detach)(void *arg, int keep), void *arg)
{
	memset(all, 0, sizeof(*all));
	all->now.fd = all->now.channel = -1;
	all->detach = detach;
	all->arg = arg;
}

/* --- the listener's own channel ------------------------------------------ */

static void
hang_up(struct listen_keeper *k)
{
	if (k->channel != -1)
		(void)close(k->channel);
	k->channel = -1;
}

static int
open_channel(struct listen_keeper *k)
{
	if (k->channel == -1)
		k->channel = socket(
		    AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return k->channel == -1 ? -1 : 0;
}

/*
 * Asks what costs nothing to answer; the answer is for later. A queue that is
 * full (EAGAIN) is that of a keeper that does not keep up.
 */
static int
ask(struct listen_keeper *k)
{
	static struct message m;

	if (connect(k->channel, (const struct sockaddr *)&k->addr,
		k->addr_len) == -1 &&
	    errno != EISCONN)
		return -1;
	message_init(&m, ASK_MECHANISMS);
	return message_send(k->channel, &m, clock_in(0));
}

int
listen_keeper_try(
    struct listen_keeper *k, const struct config *conf, char *err)
{
	static struct message m;
	int i, r = -1;

	if (open_channel(k) == 0 && ask(k) == 0) {
		errno = ETIMEDOUT;
		for (i = 0; i < PATIENCE && r == -1 && errno == ETIMEDOUT; i++) {
			if (i > 0)
				notify_alive();
			r = message_receive(k->channel, &m, clock_in(1000));
		}
	}
	if (r == 1 &&
	    (m.type == ANSWER_MECHANISMS || conf->auth_provider[0] == '\0' ||
		conf->keeper_socket[0] != '\0'))
		return 0;
	(void)text_copy(err, LISTEN_KEEPER_ERROR,
	    r == 1 ? message_text(&m, M_REASON) : "it does not answer");
	return -1;
}

/* The end of the channel is an answer, too: who hangs up is alive. */
static bool
has_answered(struct listen_keeper *k)
{
	static struct message m;
	int r = message_receive(k->channel, &m, clock_in(0));

	if (r == -1 && errno == ETIMEDOUT)
		return false;
	if (r != 1)
		hang_up(k);
	return true;
}

/*
 * Looks after the one at work, without waiting for it: the answer is for the
 * next look. Looks are counted, as the clock goes on while the machine stands.
 */
static void
watch(struct listen_keeper *k)
{
	if (k->pid == 0)
		return;
	if (k->channel != -1 && has_answered(k))
		k->unanswered = 0;
	if (k->unanswered == PATIENCE) {
		log_event(LOG_ERR, "keeper", "result", "killed", "reason",
		    "it does not answer", NULL);
		(void)kill(k->pid, SIGKILL);
		hang_up(k);
		k->unanswered = 0;
		return;
	}
	if (k->unanswered == 0 || k->channel == -1) {
		/* Without descriptors it is not its fault. */
		if (open_channel(k) == -1)
			return;
		if (ask(k) == -1)
			hang_up(k);
	}
	k->unanswered++;
}

/* --- its life ------------------------------------------------------------ */

/* The socket lives longer than the process: its queue survives a crash. */
static int
open_socket(struct listen_keeper *k)
{
	const struct sockaddr_un any = {.sun_family = AF_UNIX};

	k->addr_len = sizeof(k->addr);
	k->fd = socket(
	    AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* An address of the kernel's choice, in no file system. */
	if (k->fd == -1 ||
	    bind(k->fd, (const struct sockaddr *)&any, sizeof(sa_family_t)) ==
		-1 ||
	    getsockname(k->fd, (struct sockaddr *)&k->addr, &k->addr_len) ==
		-1 ||
	    listen(k->fd, SOMAXCONN) == -1)
		return -1;
	return 0;
}

static int
start_process(struct listen_keepers *all, struct listen_keeper *k,
    const struct config *conf)
{
	pid_t parent = getpid();

	hang_up(k);
	k->unanswered = 0;
	k->started = clock_ms();
	k->pid = fork();
	if (k->pid == 0) {
		all->detach(all->arg, k->fd);
		/* It is of no use to anybody when its listener is killed. */
		(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (getppid() != parent)
			_exit(EX_OK);
		_exit(keeper_pool_run(conf, k->fd));
	}
	return k->pid == -1 ? -1 : 0;
}

int
listen_keeper_start(struct listen_keepers *all, struct listen_keeper *k,
    const struct config *conf)
{
	int saved;

	memset(k, 0, sizeof(*k));
	k->channel = -1;
	if (open_socket(k) == 0 && start_process(all, k, conf) == 0)
		return 0;
	saved = errno;
	k->pid = 0;
	listen_keeper_end(k);
	errno = saved;
	return -1;
}

void
listen_keeper_end(struct listen_keeper *k)
{
	if (k->pid > 0)
		(void)kill(k->pid, SIGTERM);
	if (k->fd != -1)
		(void)close(k->fd);
	hang_up(k);
	memset(k, 0, sizeof(*k));
	k->fd = k->channel = -1;
}

static void
put_aside(struct listen_keepers *all)
{
	struct listen_keeper *place = &all->retired[0];
	size_t i;

	if (all->now.fd == -1)
		return;
	for (i = 1; i < LISTEN_KEEPERS_RETIRED; i++)
		if (all->retired[i].generation < place->generation)
			place = &all->retired[i];
	if (place->generation != 0)
		listen_keeper_end(place);
	hang_up(&all->now);
	*place = all->now;
	all->now.fd = -1;
}

void
listen_keepers_adopt(struct listen_keepers *all, const struct listen_keeper *k)
{
	put_aside(all);
	all->now = *k;
	all->now.generation = ++all->generation;
}

bool
listen_keepers_died(struct listen_keepers *all, pid_t pid)
{
	size_t i;

	if (pid == all->now.pid) {
		all->now.pid = 0;
		return true;
	}
	/* Its number may be another process's soon. */
	for (i = 0; i < LISTEN_KEEPERS_RETIRED; i++)
		if (all->retired[i].pid == pid)
			all->retired[i].pid = 0;
	return false;
}

static void
replace(struct listen_keepers *all, const struct config *conf)
{
	if (all->now.pid != 0 || clock_ms() - all->now.started < PAUSE_MS)
		return;
	if (start_process(all, &all->now, conf) == 0) {
		log_event(LOG_WARNING, "keeper", "result", "restarted", NULL);
		return;
	}
	all->now.pid = 0;
	log_event(LOG_ERR, "keeper", "result", "failed", "reason",
	    strerror(errno), NULL);
}

void
listen_keepers_mind(struct listen_keepers *all, const struct children *children,
    const struct config *conf)
{
	size_t i;

	watch(&all->now);
	replace(all, conf);
	for (i = 0; i < LISTEN_KEEPERS_RETIRED; i++)
		if (all->retired[i].generation != 0 &&
		    children_count_until(
			children, all->retired[i].generation) == 0)
			listen_keeper_end(&all->retired[i]);
}

static void
signal_all(const struct listen_keepers *all, int number)
{
	size_t i;

	if (all->now.pid > 0)
		(void)kill(all->now.pid, number);
	for (i = 0; i < LISTEN_KEEPERS_RETIRED; i++)
		if (all->retired[i].pid > 0)
			(void)kill(all->retired[i].pid, number);
}

/* Whether all children have ended by `deadline`. */
static bool
wait_for_all(struct listen_keepers *all, int64_t deadline)
{
	static const struct timespec pause = {0, 10 * 1000000L};
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) != -1) {
		if (pid > 0)
			(void)listen_keepers_died(all, pid);
		else if (clock_left(deadline) == 0)
			return false;
		else
			(void)nanosleep(&pause, NULL);
	}
	return true;
}

void
listen_keepers_end(struct listen_keepers *all)
{
	signal_all(all, SIGTERM);
	if (wait_for_all(all, clock_in(END_MS)))
		return;
	signal_all(all, SIGKILL);
	(void)wait_for_all(all, clock_in(KILLED_MS));
}

void
listen_keepers_close(struct listen_keepers *all, int keep)
{
	size_t i;

	for (i = 0; i < LISTEN_KEEPERS_RETIRED; i++)
		if (all->retired[i].generation != 0)
			(void)close(all->retired[i].fd);
	hang_up(&all->now);
	if (all->now.fd != -1 && all->now.fd != keep)
		(void)close(all->now.fd);
}
