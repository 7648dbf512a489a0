/*
 * sasl.c: each mechanism's way from nothing to credentials, and everything that
 * is not one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "config.h"
#include "sasl.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

static struct sasl sasl;
static const char *challenge;

static void
begin(const char *name)
{
	memset(&sasl, 'x', sizeof(sasl));
	challenge = NULL;
	sasl_init(&sasl, sasl_find(name));
}

/* Steps with a response of `len` octets, which has its NUL behind it. */
static enum sasl_result
step(const char *response, size_t len)
{
	char copy[SASL_RESPONSE_SIZE + 1];

	if (response == NULL)
		return sasl_step(&sasl, NULL, 0, &challenge);
	memcpy(copy, response, len);
	copy[len] = '\0';
	return sasl_step(&sasl, copy, len, &challenge);
}

static enum sasl_result
step_text(const char *response)
{
	return step(response, strlen(response));
}

static void
expect_credentials(const char *authzid, const char *user, const char *password)
{
	assert_string_equal(sasl.authzid, authzid);
	assert_string_equal(sasl.user, user);
	assert_string_equal(sasl.password, password);
}

/* --- the table ----------------------------------------------------------- */

static void
the_table(void **state)
{
	static const struct {
		const char *name, *method;
		unsigned bit;
		bool in_keeper;
	} rows[] = {
	    {"PLAIN", "plain", CONFIG_AUTH_PLAIN, false},
	    {"LOGIN", "plain", CONFIG_AUTH_LOGIN, false},
	    {"CRAM-MD5", "cram-md5", CONFIG_AUTH_CRAM_MD5, true},
	    {"EXTERNAL", "external", CONFIG_AUTH_EXTERNAL, false},
	    {"SCRAM-SHA-1", "scram-sha-1", CONFIG_AUTH_SCRAM_SHA_1, true},
	    {"SCRAM-SHA-256", "scram-sha-256", CONFIG_AUTH_SCRAM_SHA_256, true},
	    {"SCRAM-SHA-1-PLUS", "scram-sha-1", CONFIG_AUTH_SCRAM_SHA_1, true},
	    {"SCRAM-SHA-256-PLUS", "scram-sha-256", CONFIG_AUTH_SCRAM_SHA_256,
		true},
	};
	const struct sasl_mechanism *m;
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(rows); i++) {
		m = sasl_mechanism(i);
		assert_non_null(m);
		assert_string_equal(m->name, rows[i].name);
		assert_string_equal(m->method, rows[i].method);
		assert_int_equal(m->bit, rows[i].bit);
		assert_int_equal(m->step == NULL, rows[i].in_keeper);
		assert_int_equal(
		    m->server_first, strcmp(m->name, "CRAM-MD5") == 0);
		assert_int_equal(m->binds, strstr(m->name, "-PLUS") != NULL);
		assert_ptr_equal(sasl_find(rows[i].name), m);
	}
	assert_null(sasl_mechanism(i));
	assert_null(sasl_mechanism(SIZE_MAX));
}

static void
names(void **state)
{
	static const char *const unknown[] = {"", "PLAI", "PLAINX", "PLAIN ",
	    " PLAIN", "NONE", "none", "ANONYMOUS", "CRAM", "CRAM_MD5",
	    "SCRAM-SHA-512", "SCRAM", "XOAUTH", "PLAIN LOGIN"};
	size_t i;

	(void)state;
	assert_ptr_equal(sasl_find("plain"), sasl_find("PLAIN"));
	assert_ptr_equal(sasl_find("Cram-Md5"), sasl_find("CRAM-MD5"));
	for (i = 0; i < LENGTH(unknown); i++)
		assert_null(sasl_find(unknown[i]));
}

/* --- PLAIN --------------------------------------------------------------- */

static void
plain(void **state)
{
	(void)state;
	begin("PLAIN");
	assert_int_equal(step("\0user\0secret", 12), SASL_CREDENTIALS);
	expect_credentials("", "user", "secret");
	begin("PLAIN");
	assert_int_equal(step("a b\0c d\0 e ", 11), SASL_CREDENTIALS);
	expect_credentials("a b", "c d", " e ");
	/* Whether nothing is a password is for others to judge. */
	begin("PLAIN");
	assert_int_equal(step("\0user\0", 6), SASL_CREDENTIALS);
	expect_credentials("", "user", "");
	/* Octets are octets. */
	begin("PLAIN");
	assert_int_equal(step("\0\xc3\xbc\0\r\n\xff", 7), SASL_CREDENTIALS);
	expect_credentials("", "\xc3\xbc", "\r\n\xff");
}

static void
plain_without_initial_response(void **state)
{
	(void)state;
	begin("PLAIN");
	assert_int_equal(step(NULL, 0), SASL_CHALLENGE);
	assert_string_equal(challenge, "");
	assert_int_equal(step("\0user\0secret", 12), SASL_CREDENTIALS);
	expect_credentials("", "user", "secret");
}

static void
malformed_plain(void **state)
{
	static const struct {
		const char *text;
		size_t len;
	} bad[] = {
#define BAD(s) {s, sizeof(s) - 1}
	    BAD(""), BAD("user"), BAD("\0"), BAD("\0user"), BAD("\0\0"),
	    BAD("\0\0secret"), BAD("user\0"), BAD("user\0secret"),
	    BAD("admin\0\0secret"), BAD("\0user\0sec\0ret"),
	    BAD("\0user\0secret\0"), BAD("\0\0\0\0\0"), BAD("a\0b\0c\0d"),
#undef BAD
	};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(bad); i++) {
		begin("PLAIN");
		assert_int_equal(
		    step(bad[i].text, bad[i].len), SASL_MALFORMED);
	}
}

/* One part of PLAIN with `n` octets, the others with one. */
static enum sasl_result
plain_of_length(int part, size_t n)
{
	char text[3 * SASL_PASSWORD_SIZE];
	size_t len = 0;
	int i;

	for (i = 0; i < 3; i++) {
		size_t octets = i == part ? n : 1;

		memset(text + len, 'a' + i, octets);
		len += octets;
		text[len++] = '\0';
	}
	begin("PLAIN");
	return step(text, len - 1);
}

static void
plain_at_its_limits(void **state)
{
	static const size_t sizes[] = {sizeof(sasl.authzid), sizeof(sasl.user),
	    sizeof(sasl.password)};
	const char *const values[] = {sasl.authzid, sasl.user, sasl.password};
	int i;

	(void)state;
	for (i = 0; i < 3; i++) {
		assert_int_equal(
		    plain_of_length(i, sizes[i] - 1), SASL_CREDENTIALS);
		assert_int_equal(strlen(values[i]), sizes[i] - 1);
		assert_int_equal(plain_of_length(i, sizes[i]), SASL_MALFORMED);
		assert_int_equal(
		    plain_of_length(i, sizes[i] + 1), SASL_MALFORMED);
	}
}

/* --- LOGIN --------------------------------------------------------------- */

static void
login(void **state)
{
	(void)state;
	begin("LOGIN");
	assert_int_equal(step(NULL, 0), SASL_CHALLENGE);
	assert_string_equal(challenge, "Username:");
	assert_int_equal(step_text("user"), SASL_CHALLENGE);
	assert_string_equal(challenge, "Password:");
	assert_int_equal(step_text("secret"), SASL_CREDENTIALS);
	expect_credentials("", "user", "secret");
}

static void
login_with_initial_response(void **state)
{
	(void)state;
	begin("LOGIN");
	assert_int_equal(step_text("user"), SASL_CHALLENGE);
	assert_string_equal(challenge, "Password:");
	assert_int_equal(step_text(""), SASL_CREDENTIALS);
	expect_credentials("", "user", "");
}

static void
malformed_login(void **state)
{
	char text[SASL_PASSWORD_SIZE + 1];

	(void)state;
	memset(text, 'x', sizeof(text));
	begin("LOGIN");
	assert_int_equal(step("us\0er", 5), SASL_MALFORMED);
	begin("LOGIN");
	assert_int_equal(step("user\0", 5), SASL_MALFORMED);
	begin("LOGIN");
	assert_int_equal(step(text, SASL_USER_SIZE), SASL_MALFORMED);
	begin("LOGIN");
	assert_int_equal(step(text, SASL_USER_SIZE - 1), SASL_CHALLENGE);
	assert_int_equal(step("sec\0ret", 7), SASL_MALFORMED);
	begin("LOGIN");
	assert_int_equal(step_text("user"), SASL_CHALLENGE);
	assert_int_equal(step(text, SASL_PASSWORD_SIZE), SASL_MALFORMED);
	begin("LOGIN");
	assert_int_equal(step_text("user"), SASL_CHALLENGE);
	assert_int_equal(step(text, SASL_PASSWORD_SIZE - 1), SASL_CREDENTIALS);
	assert_int_equal(strlen(sasl.password), SASL_PASSWORD_SIZE - 1);
}

/* --- EXTERNAL ------------------------------------------------------------ */

static void
external(void **state)
{
	(void)state;
	begin("EXTERNAL");
	assert_int_equal(step(NULL, 0), SASL_CHALLENGE);
	assert_string_equal(challenge, "");
	assert_int_equal(step_text(""), SASL_CREDENTIALS);
	expect_credentials("", "", "");
	begin("EXTERNAL");
	assert_int_equal(step_text("user"), SASL_CREDENTIALS);
	expect_credentials("", "user", "");
}

static void
malformed_external(void **state)
{
	char text[SASL_USER_SIZE];

	(void)state;
	memset(text, 'x', sizeof(text));
	begin("EXTERNAL");
	assert_int_equal(step("\0", 1), SASL_MALFORMED);
	begin("EXTERNAL");
	assert_int_equal(step("user\0admin", 10), SASL_MALFORMED);
	begin("EXTERNAL");
	assert_int_equal(step(text, sizeof(text)), SASL_MALFORMED);
	begin("EXTERNAL");
	assert_int_equal(step(text, sizeof(text) - 1), SASL_CREDENTIALS);
}

/* ------------------------------------------------------------------------- */

/* A password kept from an earlier attempt. */
static void
nothing_is_left(void **state)
{
	const unsigned char *p = (const unsigned char *)&sasl;
	size_t i;

	(void)state;
	begin("PLAIN");
	assert_int_equal(step("z\0user\0secret", 13), SASL_CREDENTIALS);
	sasl_wipe(&sasl);
	for (i = 0; i < sizeof(sasl); i++)
		assert_int_equal(p[i], 0);
	begin("LOGIN");
	expect_credentials("", "", "");
	assert_int_equal(sasl.step, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_table),
	    cmocka_unit_test(names),
	    cmocka_unit_test(plain),
	    cmocka_unit_test(plain_without_initial_response),
	    cmocka_unit_test(malformed_plain),
	    cmocka_unit_test(plain_at_its_limits),
	    cmocka_unit_test(login),
	    cmocka_unit_test(login_with_initial_response),
	    cmocka_unit_test(malformed_login),
	    cmocka_unit_test(external),
	    cmocka_unit_test(malformed_external),
	    cmocka_unit_test(nothing_is_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
