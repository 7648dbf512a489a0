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
#include "lib/tls.h"
#include "sasl_secret.h"

/* One that asks: what has been done for a session, and its open exchange. */
struct asker {
	const struct sasl_secret_mechanism *mechanism; /* NULL: none goes on */
	char challenge[512];
	unsigned judged, envelopes, signatures;
};

/* One worker's: a provider answers one question at a time. */
struct vault {
	const struct config *conf;
	const struct auth_provider *provider;
	void *provider_state;
	const struct tls_api *tls;
	struct tls_keys *keys;
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
 * Answers `question`, which is wiped. False when it is none: whoever sends
 * that is not a session of ours, and gets nothing more.
 */
bool vault_answer(struct vault *v, struct asker *asker,
    struct message *question, struct message *answer);

#endif
