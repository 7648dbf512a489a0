/*
 * SCRAM as a keeper runs it, against a client of a few lines: what is taken,
 * and everything that is not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "lib/scram.h"
#include "lib/text.h"
#include "sasl_secret.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

static struct sasl_secret *x;
static enum scram_hash hash;

static void
begin(const char *name)
{
	const struct sasl_secret_mechanism *const *m = sasl_secret_mechanisms;

	while (strcmp((*m)->name, name) != 0)
		assert_non_null(*++m);
	free(x);
	x = calloc(1, (*m)->size);
	x->mechanism = *m;
	x->server_name = "mx.example";
	x->salt_key.len = 32;
	memset(x->salt_key.data, 'k', 32);
	hash = strstr(name, "256") != NULL ? SCRAM_SHA_256 : SCRAM_SHA_1;
}

static void
offer_bindings(void)
{
	x->exporter.len = x->end_point.len = 32;
	memset(x->exporter.data, 'e', 32);
	memset(x->end_point.data, 'p', 32);
}

static int
tear_down(void **state)
{
	(void)state;
	free(x);
	x = NULL;
	return 0;
}

static enum sasl_secret_result
step(const char *response)
{
	return x->mechanism->step(x, response, strlen(response));
}

static enum sasl_secret_result
reveal(const char *secret, bool is_keys, bool known)
{
	struct sasl_stored stored = {.is_keys = is_keys};

	(void)snprintf(stored.text, sizeof(stored.text), "%s", secret);
	return x->mechanism->reveal(x, &stored, known);
}

/* --- the client ---------------------------------------------------------- */

/* What the server's first message says. */
static struct {
	char text[SASL_SECRET_OUT_SIZE];
	char nonce[512], salt[128];
	struct scram_keys keys;
} first;

static void
read_first(void)
{
	assert_true(x->out_len < sizeof(first.text));
	memcpy(first.text, x->out, x->out_len);
	first.text[x->out_len] = '\0';
	assert_int_equal(sscanf(first.text, "r=%511[^,],s=%127[^,],i=%u",
			     first.nonce, first.salt, &first.keys.iterations),
	    3);
	assert_int_equal(text_base64_decode(first.salt, strlen(first.salt),
			     first.keys.salt, &first.keys.salt_len),
	    0);
}

/* The final message of one who knows `password`. `c` and `r` as they go. */
static void
make_final(const char *bare, const char *c, const char *r,
    const char *password, char *out, size_t size)
{
	const EVP_MD *md = hash == SCRAM_SHA_1 ? EVP_sha1() : EVP_sha256();
	unsigned char salted[64], client[64], stored[64], signature[64];
	char proof[128], message[4096];
	int i, n = (int)scram_size(hash);

	assert_int_equal(PKCS5_PBKDF2_HMAC(password, (int)strlen(password),
			     first.keys.salt, (int)first.keys.salt_len,
			     (int)first.keys.iterations, md, n, salted),
	    1);
	(void)HMAC(md, salted, n, (const unsigned char *)"Client Key", 10,
	    client, NULL);
	(void)EVP_Digest(client, (size_t)n, stored, NULL, md, NULL);
	(void)snprintf(message, sizeof(message), "%s,%s,c=%s,r=%s", bare,
	    first.text, c, r);
	(void)HMAC(md, stored, n, (const unsigned char *)message,
	    strlen(message), signature, NULL);
	for (i = 0; i < n; i++)
		client[i] ^= signature[i];
	text_base64_encode(client, (size_t)n, proof);
	(void)snprintf(out, size, "c=%s,r=%s,p=%s", c, r, proof);
}

static void
bind_header(const char *header, const struct sasl_binding *b, char *out)
{
	unsigned char bytes[2048];
	size_t len = strlen(header);

	memcpy(bytes, header, len);
	if (b != NULL) {
		memcpy(bytes + len, b->data, b->len);
		len += b->len;
	}
	text_base64_encode(bytes, len, out);
}

/* A whole exchange as the RFC has it. */
static enum sasl_secret_result
run(const char *header, const struct sasl_binding *b, const char *bare,
    const char *password)
{
	char response[2048], c[2048], final[4096];
	enum sasl_secret_result result;

	(void)snprintf(response, sizeof(response), "%s%s", header, bare);
	result = step(response);
	if (result != SASL_SECRET_LOOK_UP)
		return result;
	assert_int_equal(reveal("pencil", false, true), SASL_SECRET_CHALLENGE);
	read_first();
	bind_header(header, b, c);
	make_final(bare, c, first.nonce, password, final, sizeof(final));
	return step(final);
}

/* --- what is taken ------------------------------------------------------- */

static void
right_and_wrong(void **state)
{
	static const char *const names[] = {"SCRAM-SHA-1", "SCRAM-SHA-256"};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(names); i++) {
		begin(names[i]);
		assert_int_equal(run("n,,", NULL, "n=user,r=abc", "pencil"),
		    SASL_SECRET_PROVED);
		assert_string_equal(x->user, "user");
		assert_memory_equal(x->out, "v=", 2);
		assert_int_equal(x->out_len,
		    2 + TEXT_BASE64_SIZE(scram_size(hash)) - 1);
		assert_memory_equal(first.nonce, "abc", 3);
		assert_true(strlen(first.nonce) >= 3 + 24);
		begin(names[i]);
		assert_int_equal(run("n,,", NULL, "n=user,r=abc", "Pencil"),
		    SASL_SECRET_DENIED);
		assert_string_equal(x->reason, "wrong response");
	}
}

static void
the_client_is_asked_to_begin(void **state)
{
	(void)state;
	begin("SCRAM-SHA-256");
	assert_int_equal(
	    x->mechanism->step(x, NULL, 0), SASL_SECRET_CHALLENGE);
	assert_int_equal(x->out_len, 0);
	assert_int_equal(run("n,,", NULL, "n=user,r=abc", "pencil"),
	    SASL_SECRET_PROVED);
}

static void
stored_keys(void **state)
{
	char response[4096], c[64], text[SCRAM_TEXT_SIZE];
	struct scram_keys keys = {.iterations = 5000, .salt_len = 7};

	(void)state;
	begin("SCRAM-SHA-256");
	memcpy(keys.salt, "sodium!", 7);
	assert_int_equal(scram_derive(hash, "pencil", &keys), 0);
	scram_format(hash, &keys, text);
	assert_int_equal(step("n,,n=user,r=abc"), SASL_SECRET_LOOK_UP);
	assert_int_equal(reveal(text, true, true), SASL_SECRET_CHALLENGE);
	read_first();
	assert_int_equal(first.keys.iterations, 5000);
	assert_memory_equal(first.keys.salt, "sodium!", 7);
	bind_header("n,,", NULL, c);
	make_final("n=user,r=abc", c, first.nonce, "pencil", response,
	    sizeof(response));
	assert_int_equal(step(response), SASL_SECRET_PROVED);
}

static void
names_are_unescaped_and_prepared(void **state)
{
	static const struct {
		const char *sent, *is;
	} rows[] = {
	    {"n=a=2Cb=3Dc,r=x", "a,b=c"},
	    {"n=user@example.org,r=x", "user@example.org"},
	    /* RFC 4013 section 3: soft hyphen, ordinal, roman numeral. */
	    {"n=I\xc2\xadX,r=x", "IX"},
	    {"n=\xc2\xaa,r=x", "a"},
	    {"n=\xe2\x85\xa8,r=x", "IX"},
	    {"n=user,r=x,e=extension", "user"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(rows); i++) {
		begin("SCRAM-SHA-1");
		assert_int_equal(run("n,,", NULL, rows[i].sent, "pencil"),
		    SASL_SECRET_PROVED);
		assert_string_equal(x->user, rows[i].is);
	}
	begin("SCRAM-SHA-1");
	assert_int_equal(run("n,a=us=3Der,", NULL, "n=us=3Der,r=x", "pencil"),
	    SASL_SECRET_PROVED);
	begin("SCRAM-SHA-1");
	assert_int_equal(run("n,a=admin,", NULL, "n=user,r=x", "pencil"),
	    SASL_SECRET_DENIED);
	assert_string_equal(x->reason, "authorization name of another");
}

/* --- channel binding ----------------------------------------------------- */

static void
bindings(void **state)
{
	static const struct {
		const char *name, *header;
		int data; /* 'e'xporter, end 'p'oint, 0: none */
		const char *reason; /* NULL: it is proved */
	} rows[] = {
	    {"SCRAM-SHA-256-PLUS", "p=tls-exporter,,", 'e', NULL},
	    {"SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,", 'p', NULL},
	    {"SCRAM-SHA-1-PLUS", "p=tls-exporter,a=user,", 'e', NULL},
	    {"SCRAM-SHA-256", "n,,", 0, NULL},
	    /* Another channel's. */
	    {"SCRAM-SHA-256-PLUS", "p=tls-exporter,,", 'p',
		"another channel or nonce"},
	    {"SCRAM-SHA-256-PLUS", "p=tls-exporter,,", 0,
		"another channel or nonce"},
	    {"SCRAM-SHA-256", "n,,", 'e', "another channel or nonce"},
	    {"SCRAM-SHA-256-PLUS", "p=tls-unique,,", 'e',
		"unsupported channel binding"},
	    {"SCRAM-SHA-256-PLUS", "p=tls-exporte,,", 'e',
		"unsupported channel binding"},
	    {"SCRAM-SHA-256-PLUS", "n,,", 0, "no channel binding with -PLUS"},
	    {"SCRAM-SHA-256-PLUS", "y,,", 0, "no channel binding with -PLUS"},
	    {"SCRAM-SHA-256", "p=tls-exporter,,", 'e',
		"channel binding without -PLUS"},
	    /* Somebody hid from it that we could. */
	    {"SCRAM-SHA-256", "y,,", 0,
		"downgrade: -PLUS was hidden from the client"},
	};
	enum sasl_secret_result result;
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(rows); i++) {
		begin(rows[i].name);
		offer_bindings();
		result = run(rows[i].header,
		    rows[i].data == 'e'	  ? &x->exporter
		    : rows[i].data == 'p' ? &x->end_point
					  : NULL,
		    "n=user,r=abc", "pencil");
		if (rows[i].reason == NULL)
			assert_int_equal(result, SASL_SECRET_PROVED);
		else
			assert_string_equal(x->reason, rows[i].reason);
	}
	/* Where there is none, 'y' is true, and nothing can be bound. */
	begin("SCRAM-SHA-256");
	assert_int_equal(run("y,,", NULL, "n=user,r=abc", "pencil"),
	    SASL_SECRET_PROVED);
	begin("SCRAM-SHA-256-PLUS");
	assert_int_equal(step("p=tls-exporter,,n=user,r=abc"),
	    SASL_SECRET_DENIED);
	assert_string_equal(x->reason, "unsupported channel binding");
}

/* --- what is not taken --------------------------------------------------- */

static void
malformed_first(void **state)
{
	static const char *const responses[] = {"", ",", "n", "n,", "n,,",
	    "n,,n=user", "n,,n=user,", "n,,n=user,r=", "n,,n=,r=x",
	    "n,,r=x,n=user", "n,,n=us=er,r=x", "n,,n=us=2c,r=x",
	    "n,,n=us=3,r=x", "n,,n=user,r=\x01x", "n,,n=user,r=x y",
	    "n,,n=user,r=\x7f", "n,,m=ext,n=user,r=x", "n,user,n=user,r=x",
	    "n,b=user,n=user,r=x", "n,a=,n=user,r=x", "x,,n=user,r=x",
	    "nn,,n=user,r=x", "p,,n=user,r=x", "p=,,n=user,r=x",
	    "N,,n=user,r=x", "n,,n=us\x07" "er,r=x", "n,,n=\xff,r=x",
	    "n,,n=\xd8\xa7" "1,r=x"};
	char response[2048];
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(responses); i++) {
		begin("SCRAM-SHA-256");
		if (step(responses[i]) != SASL_SECRET_DENIED)
			fail_msg("taken: %s", responses[i]);
		assert_string_equal(x->reason, "malformed response");
	}
	begin("SCRAM-SHA-256");
	assert_int_equal(
	    x->mechanism->step(x, "n,,n=user\0,r=x", 14), SASL_SECRET_DENIED);
	/* A name of 511 octets is one, of 512 it is none. */
	for (i = 511; i <= 512; i++) {
		(void)snprintf(response, sizeof(response), "n,,n=%0*d,r=x",
		    (int)i, 7);
		begin("SCRAM-SHA-256");
		assert_int_equal(step(response),
		    i == 511 ? SASL_SECRET_LOOK_UP : SASL_SECRET_DENIED);
	}
	for (i = 256; i <= 257; i++) {
		(void)snprintf(response, sizeof(response), "n,,n=user,r=%0*d",
		    (int)i, 7);
		begin("SCRAM-SHA-256");
		assert_int_equal(step(response),
		    i == 256 ? SASL_SECRET_LOOK_UP : SASL_SECRET_DENIED);
	}
	(void)snprintf(response, sizeof(response), "n,,n=user,r=x,e=%01100d", 7);
	begin("SCRAM-SHA-256");
	assert_int_equal(step(response), SASL_SECRET_DENIED);
}

static void
malformed_final(void **state)
{
	static const char *const formats[] = {"", "c=biws", "c=biws,r=%s",
	    "c=biws,r=%s,p=", "c=biws,r=%s,p=QUFB", "c=biws,r=%s,p=!",
	    "c=biws,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=,r=%s",
	    "c=biws,r=%sx,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
	    "c=biws,r=x%s,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
	    "c=biwt,r=%s,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
	    "r=%s,c=biws,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
	    "m=x,c=biws,r=%s,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="};
	char response[4096], *at;
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(formats); i++) {
		begin("SCRAM-SHA-1");
		assert_int_equal(step("n,,n=user,r=abc"), SASL_SECRET_LOOK_UP);
		(void)reveal("pencil", false, true);
		read_first();
		(void)snprintf(response, sizeof(response), "%s", formats[i]);
		at = strstr(response, "%s");
		if (at != NULL)
			(void)snprintf(at,
			    sizeof(response) - (size_t)(at - response),
			    "%s%s", first.nonce,
			    strstr(formats[i], "%s") + 2);
		if (step(response) != SASL_SECRET_DENIED)
			fail_msg("taken: %s", formats[i]);
		assert_string_not_equal(x->reason, "wrong response");
	}
}

/* --- nobody -------------------------------------------------------------- */

/* The salt that one who is not known is shown. */
static void
false_salt(const char *mechanism, const char *user, const char *stored,
    bool is_keys, char *salt)
{
	char response[128];

	begin(mechanism);
	(void)snprintf(response, sizeof(response), "n,,n=%s,r=abc", user);
	assert_int_equal(step(response), SASL_SECRET_LOOK_UP);
	assert_int_equal(
	    reveal(stored, is_keys, false), SASL_SECRET_CHALLENGE);
	read_first();
	(void)snprintf(salt, 128, "%s", first.salt);
}

static void
the_unknown_look_like_the_known(void **state)
{
	char one[128], two[128], keys[SCRAM_TEXT_SIZE], final[4096];
	struct scram_keys k = {.iterations = 9999, .salt_len = 16};

	(void)state;
	false_salt("SCRAM-SHA-256", "eve", "", false, one);
	assert_int_equal(first.keys.iterations, 4096);
	assert_int_equal(first.keys.salt_len, 16);
	/* The same again; another for another name and another hash. */
	false_salt("SCRAM-SHA-256", "eve", "", false, two);
	assert_string_equal(one, two);
	false_salt("SCRAM-SHA-256", "eva", "", false, two);
	assert_string_not_equal(one, two);
	false_salt("SCRAM-SHA-1", "eve", "", false, two);
	assert_string_not_equal(one, two);
	/* As the known would be shown whose secret is stored as such. */
	begin("SCRAM-SHA-256");
	assert_int_equal(step("n,,n=eve,r=abc"), SASL_SECRET_LOOK_UP);
	assert_int_equal(reveal("pencil", false, true), SASL_SECRET_CHALLENGE);
	read_first();
	assert_string_equal(first.salt, one);
	/* Where keys are stored: their number of iterations, not their salt. */
	assert_int_equal(scram_derive(hash, "pencil", &k), 0);
	scram_format(hash, &k, keys);
	false_salt("SCRAM-SHA-256", "eve", keys, true, two);
	assert_string_equal(one, two);
	assert_int_equal(first.keys.iterations, 9999);
	/* Even the right secret of another is not theirs. */
	make_final("n=eve,r=abc", "biws", first.nonce, "pencil", final,
	    sizeof(final));
	assert_int_equal(step(final), SASL_SECRET_DENIED);
	false_salt("SCRAM-SHA-256", "eve", "pencil", false, two);
	make_final("n=eve,r=abc", "biws", first.nonce, "pencil", final,
	    sizeof(final));
	assert_int_equal(step(final), SASL_SECRET_DENIED);
	assert_string_equal(x->reason, "wrong response");
	assert_int_equal(x->out_len, strlen(first.text));
}

/* Nothing that is stored as nothing, or as rubbish, is proved. */
static void
no_secret(void **state)
{
	static const struct {
		const char *stored, *password;
		bool is_keys;
	} rows[] = {
	    {"", "", false},
	    {"rubbish", "nobody's", true},
	    {"rubbish", "rubbish", true},
	    {"\x07", "\x07", false},
	};
	char final[4096];
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(rows); i++) {
		begin("SCRAM-SHA-256");
		assert_int_equal(step("n,,n=bob,r=abc"), SASL_SECRET_LOOK_UP);
		assert_int_equal(reveal(rows[i].stored, rows[i].is_keys, true),
		    SASL_SECRET_CHALLENGE);
		read_first();
		make_final("n=bob,r=abc", "biws", first.nonce,
		    rows[i].password, final, sizeof(final));
		assert_int_equal(step(final), SASL_SECRET_DENIED);
	}
}

static void
nonces_are_never_the_same(void **state)
{
	char one[512];

	(void)state;
	begin("SCRAM-SHA-256");
	(void)run("n,,", NULL, "n=user,r=abc", "pencil");
	(void)snprintf(one, sizeof(one), "%s", first.nonce);
	begin("SCRAM-SHA-256");
	(void)run("n,,", NULL, "n=user,r=abc", "pencil");
	assert_string_not_equal(one, first.nonce);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, tear_down)
	const struct CMUnitTest tests[] = {
	    TEST(right_and_wrong),
	    TEST(the_client_is_asked_to_begin),
	    TEST(stored_keys),
	    TEST(names_are_unescaped_and_prepared),
	    TEST(bindings),
	    TEST(malformed_first),
	    TEST(malformed_final),
	    TEST(the_unknown_look_like_the_known),
	    TEST(no_secret),
	    TEST(nonces_are_never_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
