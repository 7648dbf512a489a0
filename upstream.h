/*
 * The client side of SMTP, as far as a session must be introduced to the server
 * that takes it over: greeting, EHLO, XCLIENT, AUTH, MAIL and RCPT. The server
 * is a backend or a relay program; either's replies are hostile input.
 */
#ifndef UPSTREAM_H
#define UPSTREAM_H

#include "facts.h"

/* The longest reply that is passed on; a longer one is broken. */
#define UPSTREAM_WORDS 4096

enum upstream_result {
	UPSTREAM_READY,	  /* hand the session over */
	UPSTREAM_REFUSED, /* it said no: words */
	UPSTREAM_FAILED	  /* it is gone, silent or talks nonsense */
};

struct upstream {
	struct conn conn;  /* the caller's, with its deadline set */
	bool is_relay;	   /* a program: it is told nothing by XCLIENT, AUTH */
	/*
	 * Where STARTTLS is to come first: makes `conn` a TLS one. 0, or -1
	 * with `reason`. NULL: not asked for.
	 */
	int (*secure)(void *arg);
	void *secure_arg;
	unsigned xclient;  /* the attributes it offers, a bit a row */
	bool starttls, pipelining, auth_plain, auth_login;
	/*
	 * Set once the server has been told who the client is: what it refuses
	 * after that is not asked of another.
	 */
	bool committed;
	bool announced; /* by a PROXY header that nothing has answered yet */
	char words[UPSTREAM_WORDS]; /* its last reply, CRLF at each line's end */
	char reason[256];	    /* for the log, when not READY */
};

/*
 * With `proxy_protocol`: sends the header that says who the client is, before
 * anything else is said. READY or, with a reason, FAILED.
 */
enum upstream_result upstream_header(
    const struct session *s, struct upstream *up);

/*
 * Whether the client waits for the upstream's own words: with `none` about its
 * RCPT; about its MAIL, where that was taken for a login (s->mechanism).
 */
bool upstream_has_envelope(const struct session *s);

/*
 * Introduces the session; before STARTTLS, where it is asked for, nothing is
 * said of it, and without it nothing at all. With an envelope that is sent too,
 * and at READY `words` is what the client is to be told.
 */
enum upstream_result upstream_introduce(
    struct session *s, struct upstream *up);

/* Leaves before hand-over: QUIT. The descriptors stay the caller's. */
void upstream_leave(struct upstream *up);

#endif
