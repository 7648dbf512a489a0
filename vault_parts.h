/*
 * The inside of the vault: what its files owe each other. They are vault*.c's
 * alone.
 */
#ifndef VAULT_PARTS_H
#define VAULT_PARTS_H

#include "vault.h"

/* vault.c */

/* The answer is that there is none. */
void vault_fail(struct vault *v, const char *reason);

/* Opens the provider. 0, or -1 with the failure as the answer. */
int vault_open_provider(struct vault *v);

/* Takes one of the tries that the asker has; false when none is left. */
bool vault_may_judge(struct vault *v, const char *method);

/*
 * Completes the answer with what the provider found. `user` is who was judged
 * unless the provider has named him.
 */
void vault_put_result(
    struct vault *v, enum auth_result result, const char *user);

/* Counts up to `max`, and stays there: false when it was there already. */
bool vault_take_one(unsigned *count, unsigned max);

/* vault_tls.c: the answers to ASK_CERTIFICATES, ASK_SIGNATURE, ASK_TICKETS. */
void vault_certificates(struct vault *v);
void vault_signature(struct vault *v);
void vault_tickets(struct vault *v);

/* Loads the keys of a role unless they are. 0, or -1 with a line in `err`. */
int vault_load_keys(struct vault *v, enum tls_role role, char *err);

/* vault_exchange.c: the answers to ASK_EXCHANGE and ASK_STEP. */
void vault_exchange_begin(struct vault *v);
void vault_exchange_step(struct vault *v);

/* Ends the exchange of `asker`, if one goes on. */
void vault_exchange_end(struct vault *v, struct asker *asker);

/*
 * vault_penalty.c: with the result of a judgement, once it is in the answer: a
 * failure counts and gets its delay, a success clears what the source has done.
 */
void vault_penalty(struct vault *v, enum auth_result result);

/*
 * Whether the delay of the asker's last failure has passed: a session that was
 * taken over may not have slept.
 */
bool vault_penalty_is_over(const struct vault *v);

/* The answer to ASK_PENALTY. */
void vault_penalty_count(struct vault *v);

/*
 * vault_salt.c: what false salts are made with, read at the first call; NULL
 * with a line in `err` (AUTH_ERROR_SIZE octets).
 */
const struct sasl_binding *vault_salt_key(struct vault *v, char *err);

#endif
