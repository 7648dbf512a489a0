/*
 * smtp-frontd: the front door of a mail server. One connection, one process:
 * what one client does to it, that client alone has done.
 *
 * main reads the directives, opens the log, finds the connection, and leaves
 * the rest to its session.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>
#include <unistd.h>

#include "config.h"
#include "counters.h"
#include "keeper_pool.h"
#include "lib/log.h"
#include "lib/sandbox.h"
#include "listen.h"
#include "peer.h"
#include "probe.h"
#include "session.h"

/*
 * A closed fd 0, 1 or 2 would be given to the next file that is opened, and
 * what is meant for one of them would go there.
 */
static bool
has_standard_fds(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd == -1)
		return false;
	(void)close(fd);
	return true;
}

static int
complain(const char *text, int status)
{
	fprintf(stderr, "smtp-frontd: %s\n", text);
	return status;
}

static void
warn_of_unknown(void)
{
	size_t i;

	for (i = 0; i < config_unknown_count(); i++)
		log_event(LOG_WARNING, "config", "unknown", config_unknown(i),
		    NULL);
}

/* A client at fd 2 (inetd) must not be told of our troubles. */
static int
refuse_to_serve(const char *reason, int client_fd, int status)
{
	log_open(LOG_TO_AUTO, "smtp-frontd", client_fd);
	log_event(LOG_CRIT, "fatal", "reason", reason, NULL);
	return status;
}

/* --status: what the listener that has the same status_file counts. */
static int
show_status(const struct config *conf)
{
	if (counters_print(conf->status_file, stdout) == -1)
		return complain("no listener runs that has this status_file", EX_OSERR);
	return fflush(stdout) == 0 ? EX_OK : EX_OSERR;
}

/* --keeper: a service of its own, for sessions that name its socket. */
static int
serve_as_keeper(const struct config *conf, enum peer_found found, int fd)
{
	if (found != PEER_LISTENING)
		return complain("--keeper wants a listening socket", EX_USAGE);
	return keeper_pool_run(conf, fd);
}

/* --check: what is in effect, and what a try of it shows. */
static void
check(const struct config *conf)
{
	config_print_check(conf, stdout);
	(void)fflush(stdout);
	if (conf->relay_at == CONFIG_RELAY_AT_GREETING)
		return;
	probe_tls(conf, stdout);
	(void)fflush(stdout);
	probe_provider(conf, stdout);
}

static int
inform(const struct config *conf)
{
	if (conf->status)
		return show_status(conf);
	if (conf->help)
		config_print_help(stdout);
	else if (conf->version)
		puts("smtp-frontd " VERSION);
	else
		check(conf);
	return fflush(stdout) == 0 ? EX_OK : EX_OSERR;
}

int
main(int argc, char **argv)
{
	static struct config conf;
	char err[CONFIG_ERROR_SIZE] = "";
	enum config_result loaded;
	enum peer_found found;
	int rfd = -1, wfd = -1;
	bool complete, passed;

	sandbox_private();
	(void)signal(SIGPIPE, SIG_IGN);
	/* Ignored by who started us, it would hide how a relay ended. */
	(void)signal(SIGCHLD, SIG_DFL);
	found = peer_find(&rfd, &wfd);
	passed = found == PEER_CONNECTION && rfd == wfd;
	complete = has_standard_fds();

	loaded = config_load(&conf, argc, argv, err);
	if (loaded != CONFIG_OK && passed)
		return refuse_to_serve(err, rfd, (int)loaded);
	if (loaded != CONFIG_OK)
		return complain(err, (int)loaded);
	if (conf.help || conf.version || conf.check || conf.status)
		return inform(&conf);

	if (!complete)
		return EX_OSERR;
	if (passed && config_listen_is_argument())
		return refuse_to_serve(
		    "--listen with a connection on fd 0 or 3", rfd, EX_USAGE);
	if (found == PEER_MISSING && conf.listen.count == 0)
		return complain("no connection on fd 0 and 1", EX_OSERR);

	/* What a super-server left open beside them; before any file of ours. */
	(void)close_range((unsigned)peer_passed_end(), ~0u, 0);
	log_open(conf.log, "smtp-frontd", found == PEER_CONNECTION ? rfd : -1);
	warn_of_unknown();
	if (conf.keeper)
		return serve_as_keeper(&conf, found, rfd);
	/* One file may serve a listener and xinetd: a connection is served. */
	if ((conf.listen.count > 0 && !passed) || found == PEER_LISTENING)
		return listen_run(
		    &conf, found == PEER_LISTENING ? rfd : -1, argc, argv);
	return session_run(&conf, rfd, wfd);
}
