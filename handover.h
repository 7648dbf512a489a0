/*
 * The last stages, which belong together: an upstream for the session, and the
 * session for the upstream.
 */
#ifndef HANDOVER_H
#define HANDOVER_H

#include "backend_tls.h"
#include "relay.h"
#include "upstream.h"

struct handover {
	struct session *session; /* whose it is; set by handover_open() */
	struct backend_tls how;
	struct backend_place place;
	struct relay relay; /* prepared by session.c before it gives up */
	struct upstream upstream;
	unsigned char *buffer; /* of the upstream's connection */
	int backend;	       /* connected socket; -1: none */
	bool done;	       /* the session was handed over */
};

/*
 * Opens and introduces the first upstream that takes the session, all within
 * proxy_connect_timeout, of which each has its share: the verdict's backend,
 * else the list, else the relay. Once one was told who the client is, its no is
 * no. Each attempt is logged (event=upstream).
 */
enum upstream_result handover_open(struct session *s, struct handover *h);

/*
 * After UPSTREAM_READY: tells the client, and copies until the session is over,
 * which s->cause and the counts then describe.
 */
void handover_run(struct session *s, struct handover *h);

/* Lets the upstream go. */
void handover_close(struct handover *h);

#endif
