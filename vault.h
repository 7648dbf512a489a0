/*
 * What a keeper holds, and its answers: a provider with its library, private
 * keys. Each part is made when it is first asked for.
 */
#ifndef VAULT_H
#define VAULT_H

#include <stdbool.h>

#include "auth/provider.h"
#include "config.h"
#include "lib/message.h"
#include "lib/source.h"
#include "lib/tls.h"

struct vault_exchange;

/* One that asks: what has been done for a session, and its open exchange. */
struct asker {
	struct vault_exchange *exchange; /* NULL: none goes on */
	unsigned judged, envelopes;
	unsigned signatures[2]; /* of enum tls_role */
	/* of its client, as it was told first: vault_penalty.c */
	bool placed;
	struct source source; /* bytes[0] 0: its failures do not count */
	unsigned misplaced;   /* AUTH where it is not offered */
	int64_t wait; /* no credentials are judged before (lib/clock.h) */
};

/* One worker's: a provider answers one question at a time. */
struct vault {
	const struct config *conf;
	bool many; /* sessions ask: vault_prepare() */
	const struct auth_provider *provider;
	void *provider_state;
	const struct tls_api *tls;
	struct tls_keys *keys[2]; /* of enum tls_role */
	struct sasl_binding salt_key; /* vault_salt_key() */
	/* the question that is being answered */
	struct asker *asker;
	struct message *question, *answer;
};

/* An empty vault. `conf` outlives it. */
void vault_init(struct vault *v, const struct config *conf);

/*
 * Makes at once what is sure to be asked for: the keys, where every session is
 * led to TLS or the vault is for `many`. What fails is told when it is asked
 * for.
 */
void vault_prepare(struct vault *v, bool many);

/*
 * Loads all keys of a role, as for many, and for a server the keys of session
 * tickets, and lets go of them again. 0, or -1 with a line in `err`
 * (TLS_ERROR_SIZE octets).
 */
int vault_try_keys(const struct config *conf, enum tls_role role, char *err);

/*
 * Answers `question`, which is wiped. False when it is none: whoever sends
 * that is not a session of ours, and gets nothing more.
 */
bool vault_answer(struct vault *v, struct asker *asker,
    struct message *question, struct message *answer);

/* The asker has gone: ends the exchange that it may have left open. */
void vault_forget(struct vault *v, struct asker *asker);

/*
 * Whether the answer to such a question may take its time: it waits for a
 * provider, or is work for one.
 */
bool vault_is_slow(struct vault *v, enum message_type type);

#endif
