/*
 * The inside of the provider auth-oauth2: what its files owe each other. They
 * are oauth2*.c's alone.
 *
 *	oauth2		the provider: opens, asks, compares, closes
 *	oauth2_answer	what the endpoint's JSON says of a token
 *	oauth2_cache	tokens that were judged, for as long as they live
 */
#ifndef AUTH_OAUTH2_H
#define AUTH_OAUTH2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OAUTH2_USER_SIZE 512

/* What is known of a token that is good. */
struct oauth2_token {
	char user[OAUTH2_USER_SIZE];
	int64_t expires; /* seconds since 1970; 0: not known */
};

enum oauth2_result {
	OAUTH2_GOOD,
	OAUTH2_BAD,	/* *reason says why */
	OAUTH2_NO_ANSWER /* it is none (RFC 7662); *reason */
};

/* auth/oauth2_answer.c */

/*
 * Reads the `len` octets of an answer at `now`. The user is what the claim
 * `claim` says; each word of `scope` has to be in its scope.
 */
enum oauth2_result oauth2_answer(const char *json, size_t len,
    const char *claim, const char *scope, int64_t now,
    struct oauth2_token *token, const char **reason);

/* auth/oauth2_cache.c: one for all threads of the keeper */

/* Whether `token` is known and good at `now`; its user into `found`. */
bool oauth2_cache_find(
    const char *token, int64_t now, struct oauth2_token *found);

/* Keeps it until it expires; one that has no such time is not kept. */
void oauth2_cache_put(
    const char *token, int64_t now, const struct oauth2_token *found);

#endif
