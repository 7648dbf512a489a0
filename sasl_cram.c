/*
 * CRAM-MD5 (RFC 2195): one challenge, one response. Who has which secret is not
 * known here.
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

struct cram {
	struct sasl_secret x;
	char challenge[SASL_SECRET_OUT_SIZE];
	char digest[MD5_HEX_SIZE + 1];
};

static enum sasl_secret_result
denied(struct sasl_secret *x, const char *reason)
{
	x->reason = reason;
	return SASL_SECRET_DENIED;
}

/*
 * RFC 2195 section 2: a message id. The random number makes it one that cannot
 * be foreseen, so that no proof overheard or coaxed out before will serve.
 */
static enum sasl_secret_result
challenge(struct cram *c)
{
	uint64_t number;
	int n;

	if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number))
		return SASL_SECRET_FAILED;
	n = snprintf(c->challenge, sizeof(c->challenge),
	    "<%" PRIu64 ".%lld@%s>", number, (long long)time(NULL),
	    c->x.server_name);
	if (n < 0 || (size_t)n >= sizeof(c->challenge))
		return SASL_SECRET_FAILED;
	memcpy(c->x.out, c->challenge, (size_t)n);
	c->x.out_len = (size_t)n;
	return SASL_SECRET_CHALLENGE;
}

/*
 * "user SP digest". A user's name may hold blanks; the digest holds none. A NUL
 * would let two parties see two different names.
 */
static enum sasl_secret_result
cram_step(struct sasl_secret *x, const char *response, size_t len)
{
	struct cram *c = (struct cram *)x;
	const char *blank;
	size_t user_len;

	if (response == NULL)
		return challenge(c);
	blank = strrchr(response, ' ');
	if (strlen(response) != len || blank == NULL || blank == response)
		return denied(x, "malformed response");
	user_len = (size_t)(blank - response);
	if (user_len >= sizeof(x->user) || strlen(blank + 1) != MD5_HEX_SIZE ||
	    strspn(blank + 1, "0123456789abcdefABCDEF") != MD5_HEX_SIZE)
		return denied(x, "malformed response");
	memcpy(x->user, response, user_len);
	x->user[user_len] = '\0';
	(void)text_copy(c->digest, sizeof(c->digest), blank + 1);
	x->salt = c->challenge;
	x->digest = c->digest;
	return SASL_SECRET_LOOK_UP;
}

static bool
matches(const struct cram *c, const char *secret)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char md5[MD5_SIZE];
	char hex[MD5_HEX_SIZE], given[MD5_HEX_SIZE];
	bool same;
	size_t i;

	if (HMAC(EVP_md5(), secret, (int)strlen(secret),
		(const unsigned char *)c->challenge, strlen(c->challenge), md5,
		NULL) == NULL)
		return false;
	for (i = 0; i < MD5_SIZE; i++) {
		hex[2 * i] = digits[md5[i] >> 4];
		hex[2 * i + 1] = digits[md5[i] & 15];
	}
	/* A hexadecimal digit's lower case, without a branch to be timed. */
	for (i = 0; i < MD5_HEX_SIZE; i++)
		given[i] = (char)(c->digest[i] | 0x20);
	same = text_same_secret(hex, given, sizeof(hex)) && secret[0] != '\0';
	explicit_bzero(md5, sizeof(md5));
	explicit_bzero(hex, sizeof(hex));
	return same;
}

static enum sasl_secret_result
cram_reveal(
    struct sasl_secret *x, const struct sasl_stored *stored, bool known)
{
	bool right = matches((struct cram *)x, stored->text);

	return right && known ? SASL_SECRET_PROVED
			      : denied(x, "wrong response");
}

const struct sasl_secret_mechanism sasl_cram_md5 = {
    .name = "CRAM-MD5",
    .size = sizeof(struct cram),
    .step = cram_step,
    .reveal = cram_reveal,
};
