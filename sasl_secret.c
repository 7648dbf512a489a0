/*
 * CRAM-MD5 (RFC 2195), and the table that a keeper finds it in. To add a
 * mechanism: three functions and one row. Who has which secret is not known
 * here.
 */
#include <sys/random.h>

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "lib/text.h"

#include "sasl_secret.h"

#define MD5_SIZE     16
#define MD5_HEX_SIZE (2 * MD5_SIZE)

/*
 * RFC 2195 section 2: a message id. The random number makes it one that cannot
 * be foreseen, so that no proof overheard or coaxed out before will serve.
 */
static int
cram_challenge(const char *server_name, char *out, size_t size)
{
	uint64_t number;
	int n;

	if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number))
		return -1;
	n = snprintf(out, size, "<%" PRIu64 ".%lld@%s>", number,
	    (long long)time(NULL), server_name);
	return n > 0 && (size_t)n < size ? 0 : -1;
}

/* "user SP digest". A user's name may hold blanks; the digest holds none. */
static int
cram_parse(const char *response, char *user, size_t size, const char **proof)
{
	const char *blank = strrchr(response, ' ');
	size_t len;

	if (blank == NULL || blank == response)
		return -1;
	len = (size_t)(blank - response);
	if (len >= size || strlen(blank + 1) != MD5_HEX_SIZE ||
	    strspn(blank + 1, "0123456789abcdefABCDEF") != MD5_HEX_SIZE)
		return -1;
	memcpy(user, response, len);
	user[len] = '\0';
	*proof = blank + 1;
	return 0;
}

static bool
cram_matches(const char *challenge, const char *secret, const char *proof)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char md5[MD5_SIZE];
	char hex[MD5_HEX_SIZE], given[MD5_HEX_SIZE];
	bool same;
	size_t i;

	if (strlen(proof) != MD5_HEX_SIZE ||
	    HMAC(EVP_md5(), secret, (int)strlen(secret),
		(const unsigned char *)challenge, strlen(challenge), md5,
		NULL) == NULL)
		return false;
	for (i = 0; i < MD5_SIZE; i++) {
		hex[2 * i] = digits[md5[i] >> 4];
		hex[2 * i + 1] = digits[md5[i] & 15];
	}
	/* A hexadecimal digit's lower case, without a branch to be timed. */
	for (i = 0; i < MD5_HEX_SIZE; i++)
		given[i] = (char)(proof[i] | 0x20);
	same = text_same_secret(hex, given, sizeof(hex)) && secret[0] != '\0';
	explicit_bzero(md5, sizeof(md5));
	explicit_bzero(hex, sizeof(hex));
	return same;
}

static const struct sasl_secret_mechanism cram_md5 = {
    .name = "CRAM-MD5",
    .challenge = cram_challenge,
    .parse = cram_parse,
    .matches = cram_matches,
};

const struct sasl_secret_mechanism *const sasl_secret_mechanisms[] = {
    &cram_md5,
    NULL,
};
