/*
 * lib/scram: the RFCs' examples, and what is no key.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/scram.h"
#include "lib/text.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

/* RFC 5802 section 5 and RFC 7677 section 3: one password, one user. */
static const struct example {
	enum scram_hash hash;
	const char *salt, *message, *proof, *signature;
} examples[] = {
    {SCRAM_SHA_1, "QSXCR+Q6sek8bf92",
	"n=user,r=fyko+d2lbbFgONRv9qkxdawL,"
	"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,"
	"s=QSXCR+Q6sek8bf92,i=4096,"
	"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j",
	"v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", "rmF9pqV8S7suAoZWja4dJRkFsKQ="},
    {SCRAM_SHA_256, "W22ZaJ0SNY7soEsUEjb6gQ==",
	"n=user,r=rOprNGfwEbeRWgbNEkqO,"
	"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
	"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
	"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
	"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
	"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="},
};

static void
derive(const struct example *e, struct scram_keys *keys)
{
	keys->iterations = 4096;
	assert_int_equal(text_base64_decode(e->salt, strlen(e->salt),
			     keys->salt, &keys->salt_len),
	    0);
	assert_int_equal(scram_derive(e->hash, "pencil", keys), 0);
}

static void
the_examples(void **state)
{
	unsigned char proof[64], signature[SCRAM_KEY_MAX];
	char text[TEXT_BASE64_SIZE(SCRAM_KEY_MAX)];
	struct scram_keys keys;
	size_t i, j, len;

	(void)state;
	for (i = 0; i < LENGTH(examples); i++) {
		const struct example *e = &examples[i];

		derive(e, &keys);
		assert_int_equal(text_base64_decode(e->proof,
				     strlen(e->proof), proof, &len),
		    0);
		assert_int_equal(len, scram_size(e->hash));
		assert_true(scram_verify(
		    e->hash, &keys, e->message, proof, signature));
		text_base64_encode(signature, len, text);
		assert_string_equal(text, e->signature);
		assert_false(scram_verify(
		    e->hash, &keys, e->message + 1, proof, signature));
		for (j = 0; j < len; j++) {
			proof[j] ^= 0x10;
			assert_false(scram_verify(
			    e->hash, &keys, e->message, proof, signature));
			proof[j] ^= 0x10;
		}
	}
}

static void
there_and_back(void **state)
{
	struct scram_keys keys, again;
	char text[SCRAM_TEXT_SIZE];
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(examples); i++) {
		memset(&keys, 0, sizeof(keys));
		memset(&again, 0, sizeof(again));
		derive(&examples[i], &keys);
		scram_format(examples[i].hash, &keys, text);
		assert_memory_equal(text, "4096,", 5);
		assert_int_equal(
		    scram_parse(examples[i].hash, text, &again), 0);
		assert_memory_equal(&keys, &again, sizeof(keys));
		/* Not the other hash's. */
		assert_int_equal(
		    scram_parse(examples[1 - i].hash, text, &again), -1);
	}
}

#define KEY "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
#define LONG_SALT                                                  \
	"QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB" \
	"QUFBQUFBQUFBQUFBQUFBQUFBQUFB"

static void
no_keys(void **state)
{
	static const char *const texts[] = {"", ",", ",,,", "4096",
	    "4096,QUFB," KEY, "4096,QUFB," KEY "," KEY ",",
	    "4096,QUFB," KEY "," KEY "," KEY, "4096,," KEY "," KEY,
	    "0,QUFB," KEY "," KEY, "1000001,QUFB," KEY "," KEY,
	    "-1,QUFB," KEY "," KEY, " 4096,QUFB," KEY "," KEY,
	    "0x10,QUFB," KEY "," KEY, "4096,QUF," KEY "," KEY,
	    "4096,QUFB,QUFB," KEY, "4096,QUFB," KEY ",QUFB",
	    "99999999999999999999,QUFB," KEY "," KEY,
	    "4096," LONG_SALT "," KEY "," KEY};
	struct scram_keys keys;
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(texts); i++)
		if (scram_parse(SCRAM_SHA_256, texts[i], &keys) == 0)
			fail_msg("taken: %s", texts[i]);
	assert_int_equal(scram_parse(SCRAM_SHA_256,
			     "1000000,QUFB," KEY "," KEY, &keys),
	    0);
	assert_int_equal(keys.iterations, 1000000);
	assert_int_equal(keys.salt_len, 3);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_examples),
	    cmocka_unit_test(there_and_back),
	    cmocka_unit_test(no_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
