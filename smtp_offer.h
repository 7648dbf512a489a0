/*
 * Which mechanisms are there to be had; smtp*.c's alone.
 */
#ifndef SMTP_OFFER_H
#define SMTP_OFFER_H

#include "facts.h"
#include "sasl.h"

/* The facts of the session that a provider may want to see, into `m`. */
void smtp_offer_facts(struct session *s, struct message *m);

/* The channel bindings that the client was offered, into `m`. */
void smtp_offer_bindings(struct session *s, struct message *m);

/* By when a verdict is waited for that is asked for now. */
int64_t smtp_offer_deadline(const struct session *s);

/*
 * Whether the provider can do one of `words`. It is asked once a session. A
 * keeper that does not answer is taken to be able: 454 to the AUTH that follows
 * is true, to say that there is no AUTH would not be.
 */
bool smtp_offer_can(struct session *s, const char *words);

/*
 * "AUTH PLAIN LOGIN" and so on into `line`: the mechanisms that are listed in
 * smtp_auth and that the provider can make succeed. False if there are none.
 */
bool smtp_offer_line(struct session *s, char *line, size_t size);

/* Whether an AUTH command may name it, which is more than is offered. */
bool smtp_offer_takes(struct session *s, const struct sasl_mechanism *m);

/*
 * Whether its steps are made in the keeper, and not here. A password that the
 * provider judges is collected here, whatever exchanges it runs: the backend may
 * have to be shown it.
 */
bool smtp_offer_is_carried(struct session *s, const struct sasl_mechanism *m);

#endif
