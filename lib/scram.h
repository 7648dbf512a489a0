/*
 * The keys that SCRAM (RFC 5802, RFC 7677) is proved against: made from a
 * password, and as text in Dovecot's form, iterations,salt,StoredKey,ServerKey,
 * the last three in base64.
 */
#ifndef LIB_SCRAM_H
#define LIB_SCRAM_H

#include <stdbool.h>
#include <stddef.h>

#define SCRAM_SALT_MAX 64
#define SCRAM_KEY_MAX  32
#define SCRAM_TEXT_SIZE 256

/* RFC 5802 section 5.1; a number read must not hold a worker for minutes. */
#define SCRAM_ITERATIONS_MIN 4096
#define SCRAM_ITERATIONS_MAX 1000000

enum scram_hash {
	SCRAM_SHA_1,
	SCRAM_SHA_256
};

/* The caller wipes them. */
struct scram_keys {
	unsigned iterations;
	size_t salt_len;
	unsigned char salt[SCRAM_SALT_MAX];
	unsigned char stored[SCRAM_KEY_MAX], server[SCRAM_KEY_MAX];
};

/* How many octets a key, a signature or a proof has. */
size_t scram_size(enum scram_hash hash);

/* Makes both keys of `password` with the salt and iterations there. 0 or -1. */
int scram_derive(
    enum scram_hash hash, const char *password, struct scram_keys *keys);

/* 0, or -1 when `text` is nothing like it. */
int scram_parse(
    enum scram_hash hash, const char *text, struct scram_keys *keys);

/* `text` has SCRAM_TEXT_SIZE octets. */
void scram_format(
    enum scram_hash hash, const struct scram_keys *keys, char *text);

/*
 * Judges the client's proof of `message` (RFC 5802 section 3, AuthMessage) and
 * makes the server's. Takes as long whether it is right or not.
 */
bool scram_verify(enum scram_hash hash, const struct scram_keys *keys,
    const char *message, const unsigned char *proof, unsigned char *signature);

#endif
