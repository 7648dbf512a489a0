/*
 * SCRAM (RFC 5802, RFC 7677) with channel binding (RFC 5929 section 4, RFC
 * 9266), server side. The proof's arithmetic is lib/scram.c's; what the client
 * sends is taken apart here and believed in nothing.
 */
#include <sys/random.h>

#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "lib/scram.h"
#include "lib/text.h"
#include "sasl_prep.h"

#include "sasl_secret.h"

/* Bounds of ours; clients stay far below them. */
#define FIRST_MAX	 1024
#define FINAL_MAX	 2048
#define CLIENT_NONCE_MAX 256

#define SERVER_NONCE_SIZE 18
#define FALSE_SALT_SIZE	  16

struct scram {
	struct sasl_secret x;
	const struct sasl_binding *binding; /* that the client named, or NULL */
	bool has_first, known;
	struct scram_keys keys;
	char gs2[FIRST_MAX + 1];  /* the header of the first message */
	char bare[FIRST_MAX + 1]; /* the rest of it */
	char nonce[CLIENT_NONCE_MAX + TEXT_BASE64_SIZE(SERVER_NONCE_SIZE)];
	char server_first[SASL_SECRET_OUT_SIZE];
};

static enum sasl_secret_result
denied(struct scram *s, const char *reason)
{
	s->x.reason = reason;
	return SASL_SECRET_DENIED;
}

static enum scram_hash
hash_of(const struct scram *s)
{
	return strcmp(s->x.mechanism->keys, "SCRAM-SHA-1") == 0
		   ? SCRAM_SHA_1
		   : SCRAM_SHA_256;
}

/* --- the client's first message ------------------------------------------ */

/* The data of the channel binding type in p[0..len); NULL: not to be had. */
static const struct sasl_binding *
find_binding(const struct scram *s, const char *p, size_t len)
{
	const struct {
		const char *type;
		const struct sasl_binding *binding;
	} rows[] = {
	    {"tls-exporter", &s->x.exporter},
	    {"tls-server-end-point", &s->x.end_point},
	};
	size_t i;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (strlen(rows[i].type) == len &&
		    strncmp(rows[i].type, p, len) == 0)
			return rows[i].binding->len > 0 ? rows[i].binding
							: NULL;
	return NULL;
}

/*
 * RFC 5802 section 6. *p is moved behind the flag's comma. NULL, or why not.
 *
 * 'y' says that the client could bind but was not offered it: when it was,
 * somebody between us has taken the -PLUS forms out of our EHLO reply.
 */
static const char *
take_binding(struct scram *s, const char **p)
{
	bool offered = s->x.exporter.len > 0 || s->x.end_point.len > 0;
	bool plus = s->x.mechanism->binds;
	size_t len = strcspn(*p, ",");

	if ((*p)[len] != ',')
		return "malformed response";
	if (len > 2 && strncmp(*p, "p=", 2) == 0) {
		if (!plus)
			return "channel binding without -PLUS";
		s->binding = find_binding(s, *p + 2, len - 2);
		if (s->binding == NULL)
			return "unsupported channel binding";
	} else if (len != 1 || (**p != 'n' && **p != 'y')) {
		return "malformed response";
	} else if (plus) {
		return "no channel binding with -PLUS";
	} else if (**p == 'y' && offered) {
		return "downgrade: -PLUS was hidden from the client";
	}
	*p += len + 1;
	return NULL;
}

/*
 * A saslname (RFC 5802 section 5.1) up to a comma, which *p is moved behind;
 * prepared, into `out` of SASL_SECRET_USER_SIZE octets. 0 or -1.
 */
static int
take_name(const char **p, char *out)
{
	char raw[SASL_SECRET_USER_SIZE];
	size_t n = 0;
	const char *s;

	for (s = *p; *s != ','; s++) {
		if (*s == '\0' || n == sizeof(raw) - 1)
			return -1;
		raw[n] = *s;
		if (*s == '=') {
			if (strncmp(s, "=2C", 3) != 0 &&
			    strncmp(s, "=3D", 3) != 0)
				return -1;
			raw[n] = s[1] == '2' ? ',' : '=';
			s += 2;
		}
		n++;
	}
	raw[n] = '\0';
	*p = s + 1;
	return sasl_prep(raw, out, SASL_SECRET_USER_SIZE);
}

/* "r=" and printable ASCII but for commas; what follows are extensions. */
static bool
take_nonce(struct scram *s, const char *p)
{
	size_t len, i;

	if (strncmp(p, "r=", 2) != 0)
		return false;
	p += 2;
	len = strcspn(p, ",");
	if (len == 0 || len > CLIENT_NONCE_MAX)
		return false;
	for (i = 0; i < len; i++)
		if (p[i] <= ' ' || p[i] > '~')
			return false;
	memcpy(s->nonce, p, len);
	s->nonce[len] = '\0';
	return true;
}

static enum sasl_secret_result
take_first(struct scram *s, const char *response)
{
	char authzid[SASL_SECRET_USER_SIZE] = "";
	const char *p = response, *wrong;

	s->has_first = true;
	wrong = take_binding(s, &p);
	if (wrong != NULL)
		return denied(s, wrong);
	if (*p == ',') {
		p++;
	} else {
		if (strncmp(p, "a=", 2) != 0)
			return denied(s, "malformed response");
		p += 2;
		if (take_name(&p, authzid) == -1)
			return denied(s, "malformed response");
	}
	memcpy(s->gs2, response, (size_t)(p - response));
	(void)text_copy(s->bare, sizeof(s->bare), p);
	/* "m=" is an extension that must be understood; there are none. */
	if (strncmp(p, "n=", 2) != 0)
		return denied(s, "malformed response");
	p += 2;
	if (take_name(&p, s->x.user) == -1 || !take_nonce(s, p))
		return denied(s, "malformed response");
	/* Nobody acts for another here. */
	if (authzid[0] != '\0' && strcmp(authzid, s->x.user) != 0)
		return denied(s, "authorization name of another");
	return SASL_SECRET_LOOK_UP;
}

/* --- the secret ---------------------------------------------------------- */

/*
 * A salt for whoever has none stored: always the same for one name, and to be
 * foreseen by nobody, so that the unknown look like the known. It is made for
 * the known as well, and not used, so that they take as long.
 */
static int
make_salt(struct scram *s, bool use)
{
	static const char label[] = "smtp-frontd SCRAM salt";
	char text[sizeof(label) + 16 + SASL_SECRET_USER_SIZE];
	unsigned char mac[EVP_MAX_MD_SIZE];

	(void)snprintf(text, sizeof(text), "%s %s %s", label,
	    s->x.mechanism->keys, s->x.user);
	if (HMAC(EVP_sha256(), s->x.salt_key.data, (int)s->x.salt_key.len,
		(const unsigned char *)text, strlen(text), mac, NULL) == NULL)
		return -1;
	if (!use)
		return 0;
	s->keys.salt_len = FALSE_SALT_SIZE;
	memcpy(s->keys.salt, mac, FALSE_SALT_SIZE);
	return 0;
}

/* Keys of a secret that is stored as such. */
static int
make_keys(struct scram *s, const char *secret)
{
	char prepared[SASL_STORED_SIZE];
	int r;

	/* One that cannot be prepared was never made so: it is nobody's. */
	if (sasl_prep(secret, prepared, sizeof(prepared)) == -1)
		s->known = false;
	s->keys.iterations = SCRAM_ITERATIONS_MIN;
	r = make_salt(s, true);
	if (r == 0)
		r = scram_derive(hash_of(s), prepared, &s->keys);
	explicit_bzero(prepared, sizeof(prepared));
	return r;
}

/*
 * `stored` is the user's own, or another's whose kind is shown in its place:
 * then all but the number of iterations is replaced.
 */
static int
take_keys(struct scram *s, const struct sasl_stored *stored)
{
	if (!stored->is_keys)
		return make_keys(s, stored->text);
	if (scram_parse(hash_of(s), stored->text, &s->keys) == -1) {
		s->known = false;
		return make_keys(s, "nobody's");
	}
	return make_salt(s, !s->known);
}

static enum sasl_secret_result
scram_reveal(
    struct sasl_secret *x, const struct sasl_stored *stored, bool known)
{
	struct scram *s = (struct scram *)x;
	unsigned char random[SERVER_NONCE_SIZE];
	char salt[TEXT_BASE64_SIZE(SCRAM_SALT_MAX)];
	int n;

	s->known = known && stored->text[0] != '\0';
	if (take_keys(s, stored) == -1 ||
	    getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return SASL_SECRET_FAILED;
	text_base64_encode(
	    random, sizeof(random), s->nonce + strlen(s->nonce));
	text_base64_encode(s->keys.salt, s->keys.salt_len, salt);
	n = snprintf(s->server_first, sizeof(s->server_first),
	    "r=%s,s=%s,i=%u", s->nonce, salt, s->keys.iterations);
	memcpy(x->out, s->server_first, (size_t)n);
	x->out_len = (size_t)n;
	return SASL_SECRET_CHALLENGE;
}

/* --- the client's final message ------------------------------------------ */

/* What the message must begin with: "c=" the header and binding, ",r=". */
static void
expect_final(const struct scram *s, char *out, size_t size)
{
	unsigned char bound[FIRST_MAX + SASL_BINDING_MAX];
	char encoded[TEXT_BASE64_SIZE(sizeof(bound))];
	size_t len = strlen(s->gs2);

	memcpy(bound, s->gs2, len);
	if (s->binding != NULL) {
		memcpy(bound + len, s->binding->data, s->binding->len);
		len += s->binding->len;
	}
	text_base64_encode(bound, len, encoded);
	(void)snprintf(out, size, "c=%s,r=%s", encoded, s->nonce);
}

/* The proof at the end of the message, which begins at *comma. 0 or -1. */
static int
take_proof(const struct scram *s, const char *response, const char **comma,
    unsigned char *proof)
{
	unsigned char decoded[FINAL_MAX];
	size_t len = 0;

	*comma = strrchr(response, ',');
	if (*comma == NULL || strncmp(*comma, ",p=", 3) != 0 ||
	    text_base64_decode(
		*comma + 3, strlen(*comma + 3), decoded, &len) == -1 ||
	    len != scram_size(hash_of(s)))
		return -1;
	memcpy(proof, decoded, len);
	return 0;
}

static enum sasl_secret_result
take_final(struct scram *s, const char *response)
{
	char expected[TEXT_BASE64_SIZE(FIRST_MAX + SASL_BINDING_MAX) +
		      sizeof(s->nonce) + 8];
	char message[FIRST_MAX + SASL_SECRET_OUT_SIZE + FINAL_MAX + 4];
	unsigned char proof[SCRAM_KEY_MAX], signature[SCRAM_KEY_MAX];
	const char *comma;
	size_t len;
	bool right;

	if (take_proof(s, response, &comma, proof) == -1)
		return denied(s, "malformed response");
	expect_final(s, expected, sizeof(expected));
	len = strlen(expected);
	/* Another channel, another nonce: somebody passes on what he hears. */
	if (strncmp(response, expected, len) != 0 || response[len] != ',')
		return denied(s, "another channel or nonce");
	(void)snprintf(message, sizeof(message), "%s,%s,%.*s", s->bare,
	    s->server_first, (int)(comma - response), response);
	right = scram_verify(
	    hash_of(s), &s->keys, message, proof, signature);
	if (!right || !s->known)
		return denied(s, "wrong response");
	memcpy(s->x.out, "v=", 2);
	text_base64_encode(signature, scram_size(hash_of(s)), s->x.out + 2);
	s->x.out_len = strlen(s->x.out);
	return SASL_SECRET_PROVED;
}

static enum sasl_secret_result
scram_step(struct sasl_secret *x, const char *response, size_t len)
{
	struct scram *s = (struct scram *)x;

	if (response == NULL) {
		/* The client begins; it is asked to. */
		x->out_len = 0;
		return SASL_SECRET_CHALLENGE;
	}
	/* A NUL would let two parties see two different messages. */
	if (strlen(response) != len ||
	    len > (s->has_first ? FINAL_MAX : FIRST_MAX))
		return denied(s, "malformed response");
	return s->has_first ? take_final(s, response)
			    : take_first(s, response);
}

#define ROW(row, mechanism, scheme, plus)                    \
	const struct sasl_secret_mechanism sasl_scram_##row = { \
	    .name = (mechanism),                             \
	    .size = sizeof(struct scram),                    \
	    .keys = (scheme),                                \
	    .binds = (plus),                                 \
	    .step = scram_step,                              \
	    .reveal = scram_reveal,                          \
	}

ROW(sha_1, "SCRAM-SHA-1", "SCRAM-SHA-1", false);
ROW(sha_256, "SCRAM-SHA-256", "SCRAM-SHA-256", false);
ROW(sha_1_plus, "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", true);
ROW(sha_256_plus, "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", true);
