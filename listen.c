/*
 * The accept loop and what it watches: sockets, signals, the clock. Everything
 * that sessions share is made before the first of them, and made anew by a
 * reload; a failure here is a line in the log and a short pause, never an end.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "children.h"
#include "counters.h"
#include "lib/clock.h"
#include "lib/conn.h"
#include "lib/log.h"
#include "lib/network.h"
#include "listen_keeper.h"
#include "listen_load.h"
#include "listen_socket.h"
#include "notify.h"
#include "session.h"
#include "smtp_reply.h"

#include "listen.h"

/* How long to wait for better times: no descriptors, no memory, no processes. */
#define PAUSE_MS 200

/* How often --status, systemd and metrics_file hear of us. */
#define TICK_MS 1000

/* Connections taken in one go, before signals and the clock have their turn. */
#define BATCH 64

/* Connections turned away that still have a moment. */
#define PARTING_MAX 64

struct listener {
	struct listen_load load;
	struct listen_socket sockets[LISTEN_SOCKETS];
	size_t socket_count;
	struct children *children;
	int signals;
	sigset_t old_mask;
	bool stopping;
	int64_t deadline; /* of the sessions, when stopping */
	int64_t resume;	  /* no accept before; 0 */
	int64_t tick;
	uint64_t accepted_before; /* at the last tick */
	bool metrics_failed;
	int parting[PARTING_MAX]; /* turned away, not closed yet; 0: none */
	unsigned parting_next;
};

/* --- descriptors ----------------------------------------------------------- */

/*
 * Keeps a connection open for a moment more: closed at once, with what the
 * client had said unread, it would be reset, and our line be lost.
 */
static void
part_from(struct listener *l, int fd)
{
	int *place = &l->parting[l->parting_next++ % PARTING_MAX];

	if (*place > 0)
		(void)close(*place);
	*place = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (*place != -1)
		(void)shutdown(*place, SHUT_WR);
}

static void
part_from_all(struct listener *l)
{
	size_t i;

	for (i = 0; i < PARTING_MAX; i++) {
		if (l->parting[i] > 0)
			(void)close(l->parting[i]);
		l->parting[i] = 0;
	}
}

/* What a child shall not have: all that is the listener's, but `keep`. */
static void
close_ours(struct listener *l, int keep)
{
	size_t i;

	for (i = 0; i < l->socket_count; i++)
		(void)close(l->sockets[i].fd);
	part_from_all(l);
	(void)close(l->signals);
	counters_detach();
	listen_keepers_close(&l->load.keepers, keep);
}

/* The same in a keeper, which waits for its signals itself. */
static void
detach_keeper(void *arg, int keep)
{
	struct listener *l = arg;

	close_ours(l, keep);
	(void)sigprocmask(SIG_SETMASK, &l->old_mask, NULL);
}

/* --- connections --------------------------------------------------------- */

static void
become_session(struct listener *l, const struct listen_socket *ls, int fd,
    size_t slot)
{
	const struct config *conf = l->load.by_kind[ls->kind];

	close_ours(l, -1);
	counters_use(slot);
	/* SIGTERM says that the service ends: lib/conn.h. */
	conn_heed_sigterm(&l->old_mask);
	_exit(session_run(conf, fd, fd));
}

/* A line to a client that is not served; none where TLS was to come first. */
static void
say_no(struct listener *l, const struct listen_socket *ls, int fd,
    enum smtp_reply reply)
{
	const char *line = smtp_reply(reply);

	if (ls->kind & CONFIG_SOCKET_SSL)
		return;
	(void)send(fd, line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL);
	part_from(l, fd);
}

static void
turn_away(struct listener *l, const struct listen_socket *ls, int fd,
    const struct sockaddr_storage *peer, enum smtp_reply reply,
    enum counter counter)
{
	char addr[LISTEN_ADDR_SIZE];

	counters_add(counter, 1);
	listen_socket_print(peer, addr);
	log_event(LOG_NOTICE, "limit", "result", "refused", "client", addr,
	    "limit", counter == COUNTER_FULL ? "max_connections"
					     : "max_connections_per_source",
	    NULL);
	say_no(l, ls, fd, reply);
}

static void
pause_accepting(struct listener *l, const char *what)
{
	log_event(LOG_ERR, "listen", "result", "failed", "reason", what, NULL);
	l->resume = clock_in(PAUSE_MS);
}

/*
 * Where a connection counts. One of a proxy that is trusted counts nowhere yet:
 * the session reads whose it is, and counts itself.
 */
static void
source_of_client(const struct listener *l, const struct listen_socket *ls,
    const struct sockaddr_storage *peer, struct source *source)
{
	source_of(peer, source);
	if (ls->kind & CONFIG_SOCKET_PROXY &&
	    network_any(l->load.conf->set_real_ip_from.word,
		l->load.conf->set_real_ip_from.count, peer))
		memset(source, 0, sizeof(*source));
}

static void
admit(struct listener *l, const struct listen_socket *ls, int fd,
    const struct sockaddr_storage *peer)
{
	struct source source;
	size_t slot;
	pid_t pid;

	source_of_client(l, ls, peer, &source);
	slot = children_next(l->children);
	/* After a reload the limit may be greater than the room there is. */
	if (children_count(l->children) >= l->load.conf->max_connections ||
	    slot >= l->load.room) {
		turn_away(l, ls, fd, peer, REPLY_TOO_MANY_CONNECTIONS,
		    COUNTER_FULL);
		return;
	}
	if (source.bytes[0] != 0 &&
	    children_count_from(l->children, &source) >=
		l->load.conf->max_connections_per_source) {
		turn_away(l, ls, fd, peer, REPLY_TOO_MANY_FROM_SOURCE,
		    COUNTER_FULL_SOURCE);
		return;
	}
	counters_set(slot, STAGE_GREETING);
	counters_set_source(slot, &source);
	pid = fork();
	if (pid == 0)
		become_session(l, ls, fd, slot);
	if (pid == -1) {
		counters_set(slot, STAGE_NONE);
		pause_accepting(l, strerror(errno));
		say_no(l, ls, fd, REPLY_TOO_MANY_CONNECTIONS);
		return;
	}
	children_add(l->children, pid, &source, l->load.keepers.generation);
	counters_add(COUNTER_ACCEPTED, 1);
}

/* Somebody else has shut it down: it would be ready, and fail, for ever. */
static void
give_up(struct listen_socket *ls)
{
	log_event(LOG_ERR, "listen", "result", "failed", "reason",
	    "the socket was shut down", NULL);
	(void)close(ls->fd);
	ls->fd = -1;
}

static void
accept_from(struct listener *l, struct listen_socket *ls)
{
	struct sockaddr_storage peer;
	socklen_t len;
	int fd, n;

	for (n = 0; n < BATCH && l->resume == 0; n++) {
		len = sizeof(peer);
		memset(&peer, 0, sizeof(peer));
		fd = accept4(ls->fd, (struct sockaddr *)&peer, &len,
		    SOCK_CLOEXEC);
		if (fd == -1) {
			/* The rest is a client that has gone again. */
			if (errno == EMFILE || errno == ENFILE ||
			    errno == ENOMEM || errno == ENOBUFS)
				pause_accepting(l, strerror(errno));
			if (errno == EINVAL)
				give_up(ls);
			if (ls->fd == -1)
				return;
			if (errno == EAGAIN || errno == EWOULDBLOCK)
				return;
			continue;
		}
		admit(l, ls, fd, &peer);
		(void)close(fd);
	}
}

/* --- ends ---------------------------------------------------------------- */

static void
log_signal(const char *event, int status)
{
	if (WIFSIGNALED(status))
		log_event(LOG_ERR, event, "result", "died", "signal",
		    log_number(WTERMSIG(status)), NULL);
}

static void
reap(struct listener *l)
{
	size_t slot;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (children_remove(l->children, pid, &slot)) {
			counters_set(slot, STAGE_NONE);
			if (WIFSIGNALED(status) && !l->stopping) {
				counters_add(COUNTER_CRASHED, 1);
				log_signal("session", status);
			}
		} else if (listen_keepers_died(&l->load.keepers, pid) &&
		    !l->stopping) {
			log_signal("keeper", status);
		}
	}
}

static void
stop(struct listener *l)
{
	size_t i;

	if (l->stopping)
		return;
	l->stopping = true;
	l->deadline = clock_in(l->load.conf->shutdown_timeout);
	notify_state(NOTIFY_STOPPING);
	log_event(LOG_INFO, "stop", "sessions",
	    log_number((int64_t)children_count(l->children)), NULL);
	/* What is in their queues is for who has them after us. */
	for (i = 0; i < l->socket_count; i++)
		(void)close(l->sockets[i].fd);
	l->socket_count = 0;
	children_kill(l->children, SIGTERM);
}

static void
heed_signals(struct listener *l)
{
	struct signalfd_siginfo info;

	while (read(l->signals, &info, sizeof(info)) == sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGCHLD:
			reap(l);
			break;
		case SIGHUP:
			if (!l->stopping)
				listen_load_again(&l->load);
			break;
		default:
			stop(l);
			break;
		}
	}
}

/* --- the loop ------------------------------------------------------------ */

/* A file that cannot be written is told once, and again when it could be. */
static void
export_metrics(struct listener *l)
{
	bool failed;

	if (l->load.conf->metrics_file[0] == '\0')
		return;
	failed = counters_export(l->load.conf->metrics_file) == -1;
	if (failed && !l->metrics_failed)
		log_event(LOG_WARNING, "metrics", "result", "failed", "reason",
		    strerror(errno), NULL);
	l->metrics_failed = failed;
}

static void
tick(struct listener *l)
{
	uint64_t accepted = counters_get(COUNTER_ACCEPTED);

	if (clock_ms() < l->tick)
		return;
	notify_status(children_count(l->children),
	    accepted - l->accepted_before,
	    counters_get(COUNTER_FULL) + counters_get(COUNTER_FULL_SOURCE));
	l->accepted_before = accepted;
	part_from_all(l);
	session_refresh();
	export_metrics(l);
	if (!l->stopping)
		listen_keepers_mind(&l->load.keepers, l->children, l->load.conf);
	l->tick = clock_in(TICK_MS);
}

/* Waits for a connection, a signal or the next tick. */
static void
wait_for_work(struct listener *l)
{
	static const struct timespec pause = {0, PAUSE_MS * 1000000L};
	struct pollfd fds[LISTEN_SOCKETS + 1];
	int64_t until = l->tick;
	size_t i;
	int n;

	if (l->resume != 0 && l->resume < until)
		until = l->resume;
	if (l->stopping && l->deadline < until)
		until = l->deadline;
	fds[0] = (struct pollfd){.fd = l->signals, .events = POLLIN};
	for (i = 0; i < l->socket_count; i++)
		fds[i + 1] = (struct pollfd){
		    .fd = l->resume == 0 ? l->sockets[i].fd : -1,
		    .events = POLLIN};
	n = poll(fds, l->socket_count + 1, clock_left(until));
	if (n <= 0)
		memset(fds, 0, sizeof(fds));
	/* No memory, or fewer descriptors allowed than there are. */
	if (n == -1 && errno != EINTR) {
		(void)nanosleep(&pause, NULL);
		heed_signals(l);
	}
	if (l->resume != 0 && clock_ms() >= l->resume)
		l->resume = 0;
	if (fds[0].revents != 0)
		heed_signals(l);
	for (i = 0; i < l->socket_count; i++)
		if (fds[i + 1].revents != 0)
			accept_from(l, &l->sockets[i]);
}

static bool
is_over(const struct listener *l)
{
	return l->stopping &&
	    (children_count(l->children) == 0 || clock_left(l->deadline) == 0);
}

static int
watch_signals(struct listener *l)
{
	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigaddset(&mask, SIGHUP);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	if (sigprocmask(SIG_BLOCK, &mask, &l->old_mask) == -1)
		return -1;
	l->signals = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
	return l->signals == -1 ? -1 : 0;
}

/* The keeper has a channel of each session that asks: 1024 are too few. */
static void
raise_limit(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == -1)
		return;
	files.rlim_cur = files.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &files);
}

static int
refuse(const char *reason, int status)
{
	log_event(LOG_CRIT, "listen", "result", "failed", "reason", reason,
	    NULL);
	return status;
}

int
listen_run(const struct config *conf, int inherited, int argc, char **argv)
{
	static struct listener l;
	char err[LISTEN_ERROR_SIZE];
	size_t i;

	raise_limit();
	listen_keepers_init(&l.load.keepers, detach_keeper, &l);
	l.load.argc = argc;
	l.load.argv = argv;
	if (listen_sockets_open(conf, inherited, l.sockets, &l.socket_count,
		err) == -1) {
		return refuse(err, EX_CONFIG);
	}
	for (i = 0; i < l.socket_count; i++) {
		if (!(l.sockets[i].kind & CONFIG_SOCKET_SSL) || conf->ssl_certificate.count > 0)
			continue;
		return refuse(
		    "a socket for TLS needs ssl_certificate", EX_CONFIG);
	}
	l.load.first = conf;
	l.load.room = conf->max_connections;
	l.children = children_new(l.load.room);
	if (l.children == NULL || watch_signals(&l) == -1)
		return refuse(strerror(errno), EX_OSERR);
	if (counters_open(conf->status_file, l.load.room) == -1) {
		(void)snprintf(
		    err, sizeof(err), "status_file: %s", strerror(errno));
		return refuse(err, EX_OSERR);
	}
	if (listen_load_adopt(&l.load, conf) == -1)
		return EX_CONFIG;
	notify_state(NOTIFY_READY);
	while (!is_over(&l)) {
		wait_for_work(&l);
		tick(&l);
	}
	children_kill(l.children, SIGKILL);
	listen_keepers_end(&l.load.keepers);
	log_event(LOG_INFO, "stop", "sessions", "0", NULL);
	return EX_OK;
}
