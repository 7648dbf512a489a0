/*
 * The copy, both ways, between a client and its upstream once the session is
 * handed over. Not a byte is changed, none is invented but the last line of a
 * session whose upstream is lost, and that line is never a success.
 */
#ifndef PROXY_H
#define PROXY_H

#include <stdint.h>

#include "lib/conn.h"

enum proxy_end {
	PROXY_DONE,	     /* both sides said that they are through */
	PROXY_CLIENT_LOST,   /* the client's connection broke */
	PROXY_UPSTREAM_LOST, /* the upstream went without 221 or 421 */
	PROXY_TIMEOUT	     /* nothing moved for timeout_ms */
};

struct proxy {
	struct conn *client, *upstream;
	int64_t timeout_ms; /* of idleness */
	/*
	 * What the client is told, with CRLF, where the upstream is lost or
	 * idle and the client is between two replies.
	 */
	const char *lost, *idle;
	uint64_t bytes_up, bytes_down; /* result: to the upstream, from it */
};

/*
 * Copies until the session is over. What either connection has buffered goes
 * first. Half-closes are carried on. The descriptors stay the caller's.
 */
enum proxy_end proxy_run(struct proxy *p);

#endif
