/* CRAM-MD5 as a keeper runs it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sasl_secret.h"

/* RFC 2195 section 2. */
#define CHALLENGE "<1896.697170952@postoffice.reston.mci.net>"
#define SECRET	  "tanstaaftanstaaf"
#define DIGEST	  "b913a602c7eda7a495b4e6e7334d3890"

static const struct sasl_secret_mechanism *cram;

static int
find_cram(void **state)
{
	(void)state;
	cram = sasl_secret_mechanisms[0];
	return strcmp(cram->name, "CRAM-MD5") == 0 &&
		       sasl_secret_mechanisms[1] == NULL
		   ? 0
		   : -1;
}

static void
test_example(void **state)
{
	const char *proof = NULL;
	char user[64];

	(void)state;
	assert_int_equal(
	    cram->parse("tim " DIGEST, user, sizeof(user), &proof), 0);
	assert_string_equal(user, "tim");
	assert_string_equal(proof, DIGEST);
	assert_true(cram->matches(CHALLENGE, SECRET, proof));
	assert_true(cram->matches(
	    CHALLENGE, SECRET, "B913A602c7eda7a495b4e6e7334D3890"));
}

static void
test_mismatches(void **state)
{
	char digest[] = DIGEST;
	size_t i;

	(void)state;
	assert_false(cram->matches(CHALLENGE "x", SECRET, DIGEST));
	assert_false(cram->matches(CHALLENGE, SECRET "x", DIGEST));
	assert_false(cram->matches(CHALLENGE, SECRET, ""));
	assert_false(cram->matches(CHALLENGE, SECRET, DIGEST "0"));
	for (i = 0; i < strlen(DIGEST); i++) {
		digest[i] = DIGEST[i] == '0' ? '1' : '0';
		assert_false(cram->matches(CHALLENGE, SECRET, digest));
		digest[i] = DIGEST[i];
	}
	/* HMAC-MD5 of "" with the key "": right, and still no proof. */
	assert_false(cram->matches("", "", "74e6f7298a9c2d168935f58c001bad88"));
}

/* A key longer than the hash's block is hashed first (RFC 2104). */
static void
test_long_secret(void **state)
{
	char secret[81];

	(void)state;
	memset(secret, 0xaa, 80);
	secret[80] = '\0';
	assert_true(cram->matches(
	    "Test Using Larger Than Block-Size Key - Hash Key First", secret,
	    "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd"));
}

static void
test_malformed(void **state)
{
	static const char *const responses[] = {"", " ", DIGEST, " " DIGEST,
	    "tim", "tim ", "tim" DIGEST, "tim\t" DIGEST, "tim " DIGEST "0",
	    "tim " DIGEST " ", "tim b913a602c7eda7a495b4e6e7334d389",
	    "tim b913a602c7eda7a495b4e6e7334d389g",
	    "tim b913a602c7eda7a4 5b4e6e7334d3890", "12345678 " DIGEST};
	const char *proof;
	char user[8];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(responses) / sizeof(responses[0]); i++)
		if (cram->parse(responses[i], user, sizeof(user), &proof) != -1)
			fail_msg("taken: \"%s\"", responses[i]);
	/* At the last blank: names may hold others. */
	assert_int_equal(
	    cram->parse("a b  " DIGEST, user, sizeof(user), &proof), 0);
	assert_string_equal(user, "a b ");
	assert_int_equal(
	    cram->parse("1234567 " DIGEST, user, sizeof(user), &proof), 0);
}

static void
test_challenges(void **state)
{
	char one[128], two[128], *end;
	uint64_t number;
	long long when;

	(void)state;
	assert_int_equal(cram->challenge("mx.example", one, sizeof(one)), 0);
	assert_int_equal(cram->challenge("mx.example", two, sizeof(two)), 0);
	assert_string_not_equal(one, two);
	assert_int_equal(one[0], '<');
	number = strtoull(one + 1, &end, 10);
	assert_int_equal(*end, '.');
	when = strtoll(end + 1, &end, 10);
	assert_string_equal(end, "@mx.example>");
	assert_true(number != 0);
	assert_true(
	    when <= (long long)time(NULL) && when > (long long)time(NULL) - 60);
	assert_int_equal(cram->challenge("mx.example", one, 20), -1);
	assert_int_equal(cram->challenge("mx.example", one, 0), -1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_example),
	    cmocka_unit_test(test_mismatches),
	    cmocka_unit_test(test_long_secret),
	    cmocka_unit_test(test_malformed),
	    cmocka_unit_test(test_challenges),
	};

	return cmocka_run_group_tests(tests, find_cram, NULL);
}
