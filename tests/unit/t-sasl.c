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
#include "sasl_token.h"

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
	    {"XOAUTH2", "xoauth2", CONFIG_AUTH_XOAUTH2, false},
	    {"OAUTHBEARER", "oauthbearer", CONFIG_AUTH_OAUTHBEARER, false},
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

/* --- tokens -------------------------------------------------------------- */

/* Steps with a response that stays, for the token is in it. */
static enum sasl_result
step_kept(const char *response)
{
	static char kept[SASL_RESPONSE_SIZE + 1];
	size_t len = strlen(response);

	assert_true(len < sizeof(kept));
	memcpy(kept, response, len + 1);
	return sasl_step(&sasl, kept, len, &challenge);
}

static void
expect_token(const char *mechanism, const char *response, const char *user,
    const char *token)
{
	begin(mechanism);
	if (step_kept(response) != SASL_CREDENTIALS)
		fail_msg("not taken: %s", response);
	expect_credentials("", user, "");
	assert_int_equal(sasl.token_len, strlen(token));
	if (*token == '\0')
		assert_null(sasl.token);
	else
		assert_memory_equal(sasl.token, token, strlen(token));
}

static void
tokens(void **state)
{
	(void)state;
	expect_token("XOAUTH2", "user=a@b.example\1auth=Bearer ya29.v-_~+/==\1\1",
	    "a@b.example", "ya29.v-_~+/==");
	expect_token("XOAUTH2", "auth=bearer   t\1x=y\1user=u\1\1", "u", "t");
	expect_token("XOAUTH2", "user=\1auth=\1\1", "", "");
	expect_token("OAUTHBEARER", "n,a=a@b.example,\1host=h\1port=143\1"
				    "auth=Bearer vF9df=\1\1",
	    "a@b.example", "vF9df=");
	expect_token("OAUTHBEARER", "n,,\1auth=Bearer t\1\1", "", "t");
	expect_token("OAUTHBEARER", "y,a=a=2Cb=3D,\1auth=BEARER t\1\1", "a,b=",
	    "t");
	/* What would it be refused with? RFC 7628 section 4.3. */
	expect_token("OAUTHBEARER", "n,a=u,\1host=h\1auth=\1\1", "u", "");
	expect_token("OAUTHBEARER", "n,a=u,\1\1", "u", "");
	begin("OAUTHBEARER");
	assert_int_equal(step(NULL, 0), SASL_CHALLENGE);
	assert_string_equal(challenge, "");
}

static void
malformed_tokens(void **state)
{
	static const struct {
		const char *mechanism, *response;
	} rows[] = {
	    {"XOAUTH2", ""}, {"XOAUTH2", "\1"}, {"XOAUTH2", "\1\1"},
	    {"XOAUTH2", "user=u"}, {"XOAUTH2", "user=u\1auth=Bearer t"},
	    {"XOAUTH2", "user=u\1auth=Bearer t\1"},
	    {"XOAUTH2", "user=u\1auth=Bearer t\1\1x"},
	    {"XOAUTH2", "user=u\1auth=Bearer t\1\1\1"},
	    {"XOAUTH2", "auth=Bearer t\1\1"},
	    {"XOAUTH2", "user=u\1auth=t\1\1"},
	    {"XOAUTH2", "user=u\1auth=Basic t\1\1"},
	    {"XOAUTH2", "user=u\1auth=Bearer \1\1"},
	    {"XOAUTH2", "user=u\1auth=Bearer a b\1\1"},
	    {"XOAUTH2", "user=u\1auth=Bearer a\r\nX: y\1\1"},
	    {"XOAUTH2", "user=u\1auth=Bearer a&token=b\1\1"},
	    {"XOAUTH2", "user=u\1auth=Bearer a=b\1\1"},
	    {"XOAUTH2", "user=u\1auth=Bearer =\1\1"},
	    {"XOAUTH2", "user=u\1auth=Bearer t\1auth=Bearer s\1\1"},
	    {"XOAUTH2", "user=u\1user=v\1auth=Bearer t\1\1"},
	    {"XOAUTH2", "user=u\1word\1auth=Bearer t\1\1"},
	    {"OAUTHBEARER", ""}, {"OAUTHBEARER", "\1"}, {"OAUTHBEARER", "n"},
	    {"OAUTHBEARER", "n,"}, {"OAUTHBEARER", "n,,"},
	    {"OAUTHBEARER", "n,,auth=Bearer t\1\1"},
	    {"OAUTHBEARER", "p=tls-exporter,,\1auth=Bearer t\1\1"},
	    {"OAUTHBEARER", "x,,\1auth=Bearer t\1\1"},
	    {"OAUTHBEARER", "n,u,\1auth=Bearer t\1\1"},
	    {"OAUTHBEARER", "n,a=u\1auth=Bearer t\1\1"},
	    {"OAUTHBEARER", "n,a=u=2,\1auth=Bearer t\1\1"},
	    {"OAUTHBEARER", "n,a=u=2c,\1auth=Bearer t\1\1"},
	    {"OAUTHBEARER", "n,a=u=,\1auth=Bearer t\1\1"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(rows); i++) {
		begin(rows[i].mechanism);
		if (step_kept(rows[i].response) != SASL_MALFORMED)
			fail_msg("taken: %s", rows[i].response);
	}
	begin("XOAUTH2");
	assert_int_equal(
	    step("user=u\0\1auth=Bearer t\1\1", 24), SASL_MALFORMED);
	begin("OAUTHBEARER");
	assert_int_equal(
	    step("n,a=u\0,\1auth=Bearer t\1\1", 24), SASL_MALFORMED);
}

static void
long_tokens(void **state)
{
	char response[SASL_RESPONSE_SIZE + 1] = "user=", *p = response + 5;
	size_t i;

	(void)state;
	/* A name of 511 octets is one, of 512 it is none. */
	for (i = 511; i <= 512; i++) {
		memset(p, 'u', i);
		memcpy(p + i, "\1auth=Bearer t\1\1", 17);
		begin("XOAUTH2");
		assert_int_equal(step_kept(response),
		    i == 511 ? SASL_CREDENTIALS : SASL_MALFORMED);
		begin("OAUTHBEARER");
		memcpy(response + 1, "n,a=", 4);
		memcpy(p + i, ",\1auth=Bearer t\1\1", 18);
		assert_int_equal(step_kept(response + 1),
		    i == 511 ? SASL_CREDENTIALS : SASL_MALFORMED);
		memcpy(response, "user=", 5);
	}
	/* As long a token as there is room for. */
	memset(response, 't', sizeof(response));
	memcpy(response, "user=u\1auth=Bearer ", 19);
	memcpy(response + sizeof(response) - 4, "\1\1", 3);
	begin("XOAUTH2");
	assert_int_equal(step_kept(response), SASL_CREDENTIALS);
	assert_int_equal(sasl.token_len, sizeof(response) - 4 - 19);
}

static void
refusals(void **state)
{
	char text[512];

	(void)state;
	sasl_token_refusal(sasl_find("XOAUTH2"), "", text, sizeof(text));
	assert_string_equal(text, "{\"status\":\"401\",\"schemes\":\"bearer\"}");
	sasl_token_refusal(
	    sasl_find("OAUTHBEARER"), "mail send", text, sizeof(text));
	assert_string_equal(text,
	    "{\"status\":\"invalid_token\",\"schemes\":\"bearer\","
	    "\"scope\":\"mail send\"}");
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
	    cmocka_unit_test(tokens),
	    cmocka_unit_test(malformed_tokens),
	    cmocka_unit_test(long_tokens),
	    cmocka_unit_test(refusals),
	    cmocka_unit_test(nothing_is_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
