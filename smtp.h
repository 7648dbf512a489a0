/*
 * The dialogue up to the hand-over: commands in, replies out, in order and in
 * as few writes as can be. It judges nothing and opens nothing; what is due
 * next is an event for session.c.
 */
#ifndef SMTP_H
#define SMTP_H

#include "facts.h"

enum smtp_event {
	SMTP_GO_ON,    /* (inside smtp.c: the next command) */
	SMTP_STARTTLS, /* TLS is asked for: answer with smtp_starttls() */
	/* credentials are accepted: open the upstream; and with s->have_mail
	 * the client waits for its answer to MAIL, not for a 235 */
	SMTP_ACCEPTED,
	SMTP_ENVELOPE, /* MAIL and RCPT are kept, with `none`: the same */
	SMTP_OVER      /* s->cause says why; the last reply is queued */
};

/* Queues the greeting (RFC 5321 section 4.3.1). */
void smtp_greet(struct session *s);

/* Talks until something is due that is not the dialogue's. */
enum smtp_event smtp_converse(struct session *s);

/*
 * The answer to STARTTLS (RFC 3207): 220 when `ready`, and then all that was
 * known of the client and all that it sent behind it is forgotten; else 454.
 */
void smtp_starttls(struct session *s, bool ready);

/* The upstream is ready: 235 to the client that authenticated. */
void smtp_welcome(struct session *s);

/*
 * The upstream is ready, and the client waits for its answer to MAIL or, with
 * `none`, to RCPT: these words, lines with CRLF. SMTP_OVER when it was a 421, the upstream's last word.
 */
enum smtp_event smtp_pass_on(struct session *s, const char *words);

/*
 * The upstream refused the session: `words` is what the client may be told, a
 * reply of one or more lines with CRLF, or NULL for 451 4.3.0. The client may
 * try again, except after a 421. SMTP_GO_ON or SMTP_OVER.
 */
enum smtp_event smtp_upstream_refused(struct session *s, const char *words);

#endif
