/*
 * Threads on one epoll set. A channel is armed for one event, so one worker has
 * it at a time; who takes an event sees to it that somebody is left to take the
 * next. Questions for a judge beyond keeper_workers wait in line unread, which
 * is why there is always a worker for a signature.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "vault.h"

#include "keeper_pool.h"

/* Workers beside those that judge. */
#define SIGNERS 2

/* Sessions connected at once; more are refused at their connect. */
#define CHANNELS_MAX 20000

/* A pause where the system has no more descriptors or memory. */
#define PAUSE_MS 100

struct channel {
	int fd;
	struct asker asker;
	struct channel *next; /* in the line of those that wait for a judge */
};

static struct pool {
	const struct config *conf;
	int listener, epoll;
	uid_t session_uid;
	struct vault keys; /* read once, used by all */
	pthread_mutex_t lock; /* of all below */
	unsigned workers, idle, judging;
	size_t channels;
	struct channel *first, *last; /* the line */
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* What one worker has; only its own thread touches it. */
struct worker {
	struct vault vault;
	struct message question, answer;
};

static void start_worker(void);

static bool
arm(struct channel *c, int operation)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT};

	event.data.ptr = c;
	return epoll_ctl(pool.epoll, operation, c->fd, &event) == 0;
}

static void
drop(struct channel *c)
{
	(void)close(c->fd);
	explicit_bzero(c, sizeof(*c));
	free(c);
	pthread_mutex_lock(&pool.lock);
	pool.channels--;
	pthread_mutex_unlock(&pool.lock);
}

/* Sessions become `user` where that is named. */
static uid_t
session_uid(const struct config *conf)
{
	const struct passwd *pw =
	    conf->user[0] != '\0' ? getpwnam(conf->user) : NULL;

	return pw != NULL ? pw->pw_uid : geteuid();
}

/*
 * Only sessions of ours, or root's: the socket may be within the reach of
 * others.
 */
static bool
is_ours(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
	    (peer.uid == geteuid() || peer.uid == pool.session_uid ||
		peer.uid == 0);
}

static bool
may_take_channel(void)
{
	bool room;

	pthread_mutex_lock(&pool.lock);
	room = pool.channels < CHANNELS_MAX;
	if (room)
		pool.channels++;
	pthread_mutex_unlock(&pool.lock);
	return room;
}

static void
accept_sessions(void)
{
	static const struct timespec pause = {0, PAUSE_MS * 1000000L};
	struct channel *c;
	int fd;

	while ((fd = accept4(pool.listener, NULL, NULL, SOCK_CLOEXEC)) != -1) {
		c = is_ours(fd) ? calloc(1, sizeof(*c)) : NULL;
		if (c == NULL || !may_take_channel()) {
			free(c);
			(void)close(fd);
			continue;
		}
		c->fd = fd;
		if (!arm(c, EPOLL_CTL_ADD))
			drop(c);
	}
	if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
		(void)nanosleep(&pause, NULL);
}

/* --- the line of those that wait for a judge ----------------------------- */

/* Takes a judge's place for `c`, or puts it in line. */
static bool
begin_judging(struct channel *c)
{
	bool now;

	pthread_mutex_lock(&pool.lock);
	now = pool.judging < pool.conf->keeper_workers;
	if (now) {
		pool.judging++;
	} else {
		c->next = NULL;
		if (pool.first == NULL)
			pool.first = c;
		else
			pool.last->next = c;
		pool.last = c;
	}
	pthread_mutex_unlock(&pool.lock);
	return now;
}

/* Gives the place to the next in line, which is returned; or back. */
static struct channel *
end_judging(void)
{
	struct channel *next;

	pthread_mutex_lock(&pool.lock);
	next = pool.first;
	if (next != NULL)
		pool.first = next->next;
	else
		pool.judging--;
	pthread_mutex_unlock(&pool.lock);
	return next;
}

/* --- a question ---------------------------------------------------------- */

/* Whether the question that waits on `c` is for a judge, who may be slow. */
static bool
is_for_judge(struct worker *w, const struct channel *c)
{
	unsigned char type = 0;

	(void)recv(c->fd, &type, 1, MSG_PEEK | MSG_DONTWAIT);
	return vault_is_slow(&w->vault, (enum message_type)type);
}

/*
 * Answers one question; the channel is armed anew, or gone. Who has asked waits
 * for the answer, so there is room for it; who does not read gets none.
 */
static void
serve(struct worker *w, struct channel *c)
{
	if (message_receive(c->fd, &w->question, clock_in(0)) == 1 &&
	    vault_answer(&w->vault, &c->asker, &w->question, &w->answer) &&
	    message_send(c->fd, &w->answer, clock_in(0)) == 0) {
		message_wipe(&w->answer);
		if (arm(c, EPOLL_CTL_MOD))
			return;
	}
	message_wipe(&w->question);
	message_wipe(&w->answer);
	vault_forget(&w->vault, &c->asker);
	drop(c);
}

static void
take(struct worker *w, struct channel *c)
{
	if (!is_for_judge(w, c)) {
		serve(w, c);
		return;
	}
	if (!begin_judging(c))
		return;
	for (; c != NULL; c = end_judging())
		serve(w, c);
}

/* --- workers ------------------------------------------------------------- */

/* Before a worker begins something long: another one must be waiting. */
static void
leave_watch(void)
{
	bool needed;

	pthread_mutex_lock(&pool.lock);
	needed = --pool.idle == 0 &&
	    pool.workers < pool.conf->keeper_workers + SIGNERS;
	pthread_mutex_unlock(&pool.lock);
	if (needed)
		start_worker();
}

static void
return_to_watch(void)
{
	pthread_mutex_lock(&pool.lock);
	pool.idle++;
	pthread_mutex_unlock(&pool.lock);
}

static void *
work(void *arg)
{
	struct worker *w = arg;
	struct epoll_event event;

	for (;;) {
		if (epoll_wait(pool.epoll, &event, 1, -1) != 1)
			continue;
		if (event.data.ptr == NULL) {
			accept_sessions();
			continue;
		}
		leave_watch();
		take(w, event.data.ptr);
		return_to_watch();
	}
	return NULL;
}

static void
start_worker(void)
{
	struct worker *w = calloc(1, sizeof(*w));
	pthread_t thread;

	if (w == NULL)
		return;
	/* The keys of the load, whatever has become of their files since. */
	w->vault = pool.keys;
	pthread_mutex_lock(&pool.lock);
	pool.workers++;
	pool.idle++;
	pthread_mutex_unlock(&pool.lock);
	if (pthread_create(&thread, NULL, work, w) == 0) {
		(void)pthread_detach(thread);
		return;
	}
	/* Those that there are will do; the next event tries again. */
	pthread_mutex_lock(&pool.lock);
	pool.workers--;
	pool.idle--;
	pthread_mutex_unlock(&pool.lock);
	free(w);
}

int
keeper_pool_run(const struct config *conf, int fd)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE};
	sigset_t ends;
	int signal;

	pool.conf = conf;
	pool.listener = fd;
	/* systemd's are blocking. */
	(void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	pool.session_uid = session_uid(conf);
	pool.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (pool.epoll == -1 ||
	    epoll_ctl(pool.epoll, EPOLL_CTL_ADD, fd, &event) == -1)
		return EX_OSERR;
	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	(void)pthread_sigmask(SIG_BLOCK, &ends, NULL);
	vault_init(&pool.keys, conf);
	vault_prepare(&pool.keys, true);
	start_worker();
	if (pool.workers == 0)
		return EX_OSERR;
	(void)sigwait(&ends, &signal);
	return EX_OK;
}
