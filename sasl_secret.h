/*
 * SASL mechanisms that need a stored secret, server side: what a keeper runs,
 * so that the secret never leaves it. Pure functions but for the randomness of
 * a challenge. The module "sasl-secret" exports the table below.
 */
#ifndef SASL_SECRET_H
#define SASL_SECRET_H

#include <stdbool.h>
#include <stddef.h>

struct sasl_secret_mechanism {
	const char *name;

	/*
	 * Makes a challenge that was never given before. 0, or -1 when it does
	 * not fit into `size` octets or there is no randomness to be had.
	 */
	int (*challenge)(const char *server_name, char *out, size_t size);

	/*
	 * Splits the client's decoded response into the user's name and, inside
	 * `response`, the proof. 0, or -1 when it is malformed.
	 */
	int (*parse)(
	    const char *response, char *user, size_t size, const char **proof);

	/*
	 * Whether `proof` answers `challenge` for one who knows `secret`. For
	 * an unknown user it is called too, with a random secret, so that the
	 * time is alike. An empty secret is proved by nothing.
	 */
	bool (*matches)(
	    const char *challenge, const char *secret, const char *proof);
};

/* All of them; NULL ends the list. */
extern const struct sasl_secret_mechanism *const sasl_secret_mechanisms[];

#endif
