/*
 * The keepers of a listener: the one at work, and those of earlier loads, which
 * stay as long as sessions know them.
 */
#ifndef LISTEN_KEEPER_H
#define LISTEN_KEEPER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include "children.h"
#include "config.h"

/* Keepers of earlier loads that still have sessions. */
#define LISTEN_KEEPERS_RETIRED 8

struct listen_keeper {
	int fd; /* the listening socket that its sessions connect to */
	struct sockaddr_un addr;
	socklen_t addr_len;
	pid_t pid; /* 0: it has died */
	int channel; /* the listener's own, as a session has one; -1: none */
	unsigned unanswered; /* looks at it since it was asked */
	int64_t started;
	unsigned generation; /* of the sessions that know it; 0: nobody's place */
};

struct listen_keepers {
	struct listen_keeper now;
	struct listen_keeper retired[LISTEN_KEEPERS_RETIRED];
	unsigned generation; /* of loads */
	/* Called in a new keeper: closes what the caller has, but `keep`. */
	void (*detach)(void *arg, int keep);
	void *arg;
};

/* None yet. */
void listen_keepers_init(struct listen_keepers *all,
    void (*detach)(void *arg, int keep), void *arg);

/* Starts one for `conf`, which is in nobody's place yet. 0, or -1 with errno. */
int listen_keeper_start(struct listen_keepers *all, struct listen_keeper *k,
    const struct config *conf);

/*
 * Waits until it answers, ten seconds at most, in which systemd is told that we
 * live. 0, or -1 with the reason in `err` (LISTEN_KEEPER_ERROR octets): it does
 * not, or has a provider that cannot be opened.
 */
#define LISTEN_KEEPER_ERROR 256
int listen_keeper_try(
    struct listen_keeper *k, const struct config *conf, char *err);

/* Ends one that nobody asks any more. */
void listen_keeper_end(struct listen_keeper *k);

/*
 * Puts `k` in the place of the one at work, which stays for its sessions. Who
 * reloads faster than sessions end loses the oldest.
 */
void listen_keepers_adopt(
    struct listen_keepers *all, const struct listen_keeper *k);

/* The process `pid` has ended: whether it was the keeper at work. */
bool listen_keepers_died(struct listen_keepers *all, pid_t pid);

/*
 * To be called each second. Kills the one at work if it has not answered for
 * ten, starts it anew if it has died, but not in a race with what kills it;
 * logged. Lets those go that none of `children` can ask.
 */
void listen_keepers_mind(struct listen_keepers *all,
    const struct children *children, const struct config *conf);

/*
 * Ends them all, and waits until none of our children is left: two seconds,
 * then what is a keeper is killed.
 */
void listen_keepers_end(struct listen_keepers *all);

/* Closes their sockets, in a process that shall not have them, but `keep`. */
void listen_keepers_close(struct listen_keepers *all, int keep);

#endif
