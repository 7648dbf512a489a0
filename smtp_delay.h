/*
 * Refusals that are waited for; smtp_auth.c's alone.
 */
#ifndef SMTP_DELAY_H
#define SMTP_DELAY_H

#include "facts.h"

/*
 * Waits as s->verdict asks before a refusal is said. False when the client has
 * said its last meanwhile: it gets no answer then.
 */
bool smtp_delay(struct session *s);

/*
 * The same for AUTH where it is not offered: the keeper counts it and knows how
 * long. Uses s->verdict.
 */
bool smtp_delay_misplaced(struct session *s);

#endif
