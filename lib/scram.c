/*
 * SCRAM's arithmetic, by OpenSSL: keys from a password, proofs from keys. Who
 * has which keys, and what is said between client and server, is not known
 * here.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include "lib/text.h"

#include "lib/scram.h"

static const EVP_MD *
digest_of(enum scram_hash hash)
{
	return hash == SCRAM_SHA_1 ? EVP_sha1() : EVP_sha256();
}

size_t
scram_size(enum scram_hash hash)
{
	return hash == SCRAM_SHA_1 ? SHA_DIGEST_LENGTH : SHA256_DIGEST_LENGTH;
}

static bool
hmac(enum scram_hash hash, const unsigned char *key, const char *text,
    unsigned char *out)
{
	return HMAC(digest_of(hash), key, (int)scram_size(hash),
		   (const unsigned char *)text, strlen(text), out,
		   NULL) != NULL;
}

static bool
digest(enum scram_hash hash, const unsigned char *data, unsigned char *out)
{
	return EVP_Digest(data, scram_size(hash), out, NULL, digest_of(hash),
		   NULL) == 1;
}

int
scram_derive(
    enum scram_hash hash, const char *password, struct scram_keys *keys)
{
	unsigned char salted[SCRAM_KEY_MAX], key[SCRAM_KEY_MAX];
	int r = -1;

	if (PKCS5_PBKDF2_HMAC(password, (int)strlen(password), keys->salt,
		(int)keys->salt_len, (int)keys->iterations, digest_of(hash),
		(int)scram_size(hash), salted) == 1 &&
	    hmac(hash, salted, "Client Key", key) &&
	    digest(hash, key, keys->stored) &&
	    hmac(hash, salted, "Server Key", keys->server))
		r = 0;
	explicit_bzero(salted, sizeof(salted));
	explicit_bzero(key, sizeof(key));
	return r;
}

/* Takes a field of at most `max` octets up to `end`. The length, or 0. */
static size_t
take_field(const char **s, char end, unsigned char *out, size_t max)
{
	unsigned char field[TEXT_BASE64_SIZE(SCRAM_SALT_MAX)];
	size_t n = strcspn(*s, ","), len = 0;

	if (n < sizeof(field) && (*s)[n] == end &&
	    text_base64_decode(*s, n, field, &len) == 0 && len <= max) {
		memcpy(out, field, len);
		*s += n + (end != '\0');
	} else {
		len = 0;
	}
	explicit_bzero(field, sizeof(field));
	return len;
}

int
scram_parse(
    enum scram_hash hash, const char *text, struct scram_keys *keys)
{
	char number[16] = "";
	size_t size = scram_size(hash), n = strcspn(text, ",");
	uint64_t iterations;

	if (text[n] != ',' || n >= sizeof(number))
		return -1;
	memcpy(number, text, n);
	if (text_number(number, SCRAM_ITERATIONS_MAX, &iterations) == -1 ||
	    iterations == 0)
		return -1;
	text += n + 1;
	keys->iterations = (unsigned)iterations;
	keys->salt_len = take_field(&text, ',', keys->salt, SCRAM_SALT_MAX);
	if (keys->salt_len == 0 ||
	    take_field(&text, ',', keys->stored, size) != size ||
	    take_field(&text, '\0', keys->server, size) != size)
		return -1;
	return 0;
}

void
scram_format(enum scram_hash hash, const struct scram_keys *keys, char *text)
{
	char salt[TEXT_BASE64_SIZE(SCRAM_SALT_MAX)];
	char key[2][TEXT_BASE64_SIZE(SCRAM_KEY_MAX)];

	text_base64_encode(keys->salt, keys->salt_len, salt);
	text_base64_encode(keys->stored, scram_size(hash), key[0]);
	text_base64_encode(keys->server, scram_size(hash), key[1]);
	(void)snprintf(text, SCRAM_TEXT_SIZE, "%u,%s,%s,%s", keys->iterations,
	    salt, key[0], key[1]);
	explicit_bzero(key, sizeof(key));
}

bool
scram_verify(enum scram_hash hash, const struct scram_keys *keys,
    const char *message, const unsigned char *proof, unsigned char *signature)
{
	unsigned char key[SCRAM_KEY_MAX], stored[SCRAM_KEY_MAX];
	size_t i, size = scram_size(hash);
	bool same = false;

	/* ClientKey: the proof without what hides it on the wire. */
	if (hmac(hash, keys->stored, message, key) &&
	    hmac(hash, keys->server, message, signature)) {
		for (i = 0; i < size; i++)
			key[i] ^= proof[i];
		same = digest(hash, key, stored) &&
		       text_same_secret(stored, keys->stored, size);
	}
	explicit_bzero(key, sizeof(key));
	explicit_bzero(stored, sizeof(stored));
	return same;
}
