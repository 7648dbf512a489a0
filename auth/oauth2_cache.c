/*
 * Tokens that were found good, for as long as they say that they live, so that
 * a client that connects again costs the endpoint nothing. A token itself is
 * not kept, but its SHA-256. A keeper that lives on has one for all its workers.
 */
#include <pthread.h>
#include <string.h>

#include <openssl/sha.h>

#include "auth/oauth2.h"

/* A token has one place; another one's takes it over. */
#define PLACES 1024

static struct {
	unsigned char hash[SHA256_DIGEST_LENGTH];
	struct oauth2_token token; /* expires 0: nothing is here */
} places[PLACES];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Its place, and the hash; only tokens that are good get into the table. */
static size_t
place_of(const char *token, unsigned char *hash)
{
	(void)SHA256((const unsigned char *)token, strlen(token), hash);
	return (hash[0] << 8 | hash[1]) % PLACES;
}

bool
oauth2_cache_find(const char *token, int64_t now, struct oauth2_token *found)
{
	unsigned char hash[SHA256_DIGEST_LENGTH];
	size_t i = place_of(token, hash);
	bool known;

	pthread_mutex_lock(&lock);
	known = places[i].token.expires > now &&
		memcmp(places[i].hash, hash, sizeof(hash)) == 0;
	if (known)
		*found = places[i].token;
	pthread_mutex_unlock(&lock);
	return known;
}

void
oauth2_cache_put(
    const char *token, int64_t now, const struct oauth2_token *found)
{
	unsigned char hash[SHA256_DIGEST_LENGTH];
	size_t i = place_of(token, hash);

	if (found->expires <= now)
		return;
	pthread_mutex_lock(&lock);
	memcpy(places[i].hash, hash, sizeof(hash));
	places[i].token = *found;
	pthread_mutex_unlock(&lock);
}
