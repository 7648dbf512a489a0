/* CRAM-MD5 as a keeper runs it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "sasl_secret.h"

static struct sasl_secret *x;

static int
find_cram(void **state)
{
	(void)state;
	return strcmp(sasl_secret_mechanisms[0]->name, "CRAM-MD5") == 0 ? 0
									: -1;
}

static int
set_up(void **state)
{
	(void)state;
	x = calloc(1, sasl_secret_mechanisms[0]->size);
	x->mechanism = sasl_secret_mechanisms[0];
	x->server_name = "mx.example";
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	free(x);
	return 0;
}

static enum sasl_secret_result
step(const char *response)
{
	return x->mechanism->step(x, response, strlen(response));
}

/* Begins it: the challenge as text. */
static void
begin(char *challenge, size_t size)
{
	assert_int_equal(
	    x->mechanism->step(x, NULL, 0), SASL_SECRET_CHALLENGE);
	assert_true(x->out_len < size);
	memcpy(challenge, x->out, x->out_len);
	challenge[x->out_len] = '\0';
}

/* The response of one who knows `secret`, in the given case. */
static void
answer(const char *challenge, const char *user, const char *secret,
    bool upper, char *out, size_t size)
{
	unsigned char md5[16];
	size_t i, n;

	assert_non_null(HMAC(EVP_md5(), secret, (int)strlen(secret),
	    (const unsigned char *)challenge, strlen(challenge), md5, NULL));
	n = (size_t)snprintf(out, size, "%s ", user);
	for (i = 0; i < sizeof(md5); i++)
		n += (size_t)snprintf(
		    out + n, size - n, upper ? "%02X" : "%02x", md5[i]);
}

static enum sasl_secret_result
reveal(const char *secret)
{
	struct sasl_stored stored = {0};

	(void)snprintf(stored.text, sizeof(stored.text), "%s",
	    secret != NULL ? secret : "another's");
	return x->mechanism->reveal(x, &stored, secret != NULL);
}

static enum sasl_secret_result
run(const char *answered_with, const char *stored, bool upper)
{
	char challenge[128], response[256];

	begin(challenge, sizeof(challenge));
	answer(challenge, "tim", answered_with, upper, response,
	    sizeof(response));
	assert_int_equal(step(response), SASL_SECRET_LOOK_UP);
	assert_string_equal(x->user, "tim");
	assert_string_equal(x->salt, challenge);
	assert_string_equal(x->digest, response + 4);
	return reveal(stored);
}

static void
test_proofs(void **state)
{
	char long_secret[81];

	(void)state;
	assert_int_equal(run("tanstaaf", "tanstaaf", false), SASL_SECRET_PROVED);
	assert_int_equal(run("tanstaaf", "tanstaaf", true), SASL_SECRET_PROVED);
	/* A key longer than the hash's block is hashed first (RFC 2104). */
	memset(long_secret, 0xaa, 80);
	long_secret[80] = '\0';
	assert_int_equal(
	    run(long_secret, long_secret, false), SASL_SECRET_PROVED);
	assert_int_equal(x->out_len, strlen(x->salt));
}

/* RFC 2195 section 2. */
static void
test_example(void **state)
{
	static const char given[] =
	    "<1896.697170952@postoffice.reston.mci.net>";
	char challenge[128];

	(void)state;
	begin(challenge, sizeof(challenge));
	assert_int_equal(
	    step("tim b913a602c7eda7a495b4e6e7334d3890"), SASL_SECRET_LOOK_UP);
	/* Not the one that it made. */
	memcpy((char *)(uintptr_t)x->salt, given, sizeof(given));
	assert_int_equal(reveal("tanstaaftanstaaf"),
	    SASL_SECRET_PROVED);
}

static void
test_mismatches(void **state)
{
	(void)state;
	assert_int_equal(run("tanstaaf", "tanstaa", false), SASL_SECRET_DENIED);
	assert_string_equal(x->reason, "wrong response");
	assert_int_equal(run("tanstaaf", NULL, false), SASL_SECRET_DENIED);
	/* Right, and still no proof. */
	assert_int_equal(run("", "", false), SASL_SECRET_DENIED);
	assert_int_equal(run("another's", NULL, false), SASL_SECRET_DENIED);
}

/* Each digit of the proof counts. */
static void
test_every_digit(void **state)
{
	char challenge[128], response[256];
	size_t i, at = strlen("tim ");

	(void)state;
	for (i = 0; i < 32; i++) {
		begin(challenge, sizeof(challenge));
		answer(challenge, "tim", "tanstaaf", false, response,
		    sizeof(response));
		response[at + i] = response[at + i] == '0' ? '1' : '0';
		assert_int_equal(step(response), SASL_SECRET_LOOK_UP);
		assert_int_equal(reveal("tanstaaf"),
		    SASL_SECRET_DENIED);
	}
}

#define DIGEST "b913a602c7eda7a495b4e6e7334d3890"

static void
test_malformed(void **state)
{
	static const char *const responses[] = {"", " ", DIGEST, " " DIGEST,
	    "tim", "tim ", "tim" DIGEST, "tim\t" DIGEST, "tim " DIGEST "0",
	    "tim " DIGEST " ", "tim b913a602c7eda7a495b4e6e7334d389",
	    "tim b913a602c7eda7a495b4e6e7334d389g",
	    "tim b913a602c7eda7a4 5b4e6e7334d3890"};
	char name[SASL_SECRET_USER_SIZE + 64];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(responses) / sizeof(responses[0]); i++)
		if (step(responses[i]) != SASL_SECRET_DENIED)
			fail_msg("taken: \"%s\"", responses[i]);
	assert_int_equal(x->mechanism->step(x, "tim\0 " DIGEST, 37),
	    SASL_SECRET_DENIED);
	assert_int_equal(x->mechanism->step(x, "tim " DIGEST "\0", 37),
	    SASL_SECRET_DENIED);
	/* At the last blank: names may hold others. */
	assert_int_equal(step("a b  " DIGEST), SASL_SECRET_LOOK_UP);
	assert_string_equal(x->user, "a b ");
	memset(name, 'n', sizeof(name));
	(void)snprintf(name + SASL_SECRET_USER_SIZE - 1, 64, " " DIGEST);
	assert_int_equal(step(name), SASL_SECRET_LOOK_UP);
	assert_int_equal(strlen(x->user), SASL_SECRET_USER_SIZE - 1);
	memset(name, 'n', sizeof(name));
	(void)snprintf(name + SASL_SECRET_USER_SIZE, 64, " " DIGEST);
	assert_int_equal(step(name), SASL_SECRET_DENIED);
}

static void
test_challenges(void **state)
{
	char one[128], two[128], *end, name[SASL_SECRET_OUT_SIZE];
	long long when;

	(void)state;
	begin(one, sizeof(one));
	begin(two, sizeof(two));
	assert_string_not_equal(one, two);
	assert_int_equal(one[0], '<');
	assert_true(strtoull(one + 1, &end, 10) != 0);
	assert_int_equal(*end, '.');
	when = strtoll(end + 1, &end, 10);
	assert_string_equal(end, "@mx.example>");
	assert_true(
	    when <= (long long)time(NULL) && when > (long long)time(NULL) - 60);
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	x->server_name = name;
	assert_int_equal(x->mechanism->step(x, NULL, 0), SASL_SECRET_FAILED);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_proofs, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_example, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_mismatches, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(
		test_every_digit, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_malformed, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_challenges, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, find_cram, NULL);
}
