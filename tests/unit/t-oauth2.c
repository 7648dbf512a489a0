/*
 * auth/oauth2: what an endpoint's answer means, and how long it is kept.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "auth/oauth2.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

#define NOW 1700000000

static struct oauth2_token token;
static const char *reason;

static enum oauth2_result
answer(const char *json, const char *claim, const char *scope)
{
	reason = NULL;
	return oauth2_answer(
	    json, strlen(json), claim, scope, NOW, &token, &reason);
}

static void
good(void **state)
{
	static const struct {
		const char *json, *claim, *scope, *user;
		int64_t expires;
	} rows[] = {
	    {"{\"active\":true,\"username\":\"ann\"}", "username", "", "ann", 0},
	    {"{\"active\":true,\"sub\":\"Z5O3\",\"username\":\"ann\","
	     "\"exp\":1700000001,\"nbf\":1700000000,\"x\":[{}]}",
		"sub", "", "Z5O3", NOW + 1},
	    {" {\"active\":true,\"email\":\"a@b\",\"exp\":1.7e10}\n", "email",
		"", "a@b", INT64_C(17000000000)},
	    {"{\"active\":true,\"username\":\"a\",\"scope\":\"x mail y\","
	     "\"exp\":null}",
		"username", "mail x", "a", 0},
	};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(rows); i++) {
		if (answer(rows[i].json, rows[i].claim, rows[i].scope) !=
		    OAUTH2_GOOD)
			fail_msg("%s: %s", rows[i].json, reason);
		assert_string_equal(token.user, rows[i].user);
		assert_int_equal(token.expires, rows[i].expires);
	}
}

#define ANN "\"username\":\"ann\""

static void
bad(void **state)
{
	static const char *const rows[] = {
	    "{\"active\":false}", "{\"active\":false," ANN "}",
	    "{\"active\":true," ANN ",\"exp\":1700000000}",
	    "{\"active\":true," ANN ",\"exp\":1}",
	    "{\"active\":true," ANN ",\"exp\":0}",
	    "{\"active\":true," ANN ",\"exp\":-1}",
	    "{\"active\":true," ANN ",\"exp\":1e300}",
	    "{\"active\":true," ANN ",\"exp\":\"1800000000\"}",
	    "{\"active\":true," ANN ",\"nbf\":1700000001}",
	    "{\"active\":true," ANN ",\"nbf\":true}",
	    "{\"active\":true}", "{\"active\":true,\"username\":\"\"}",
	    "{\"active\":true,\"username\":1}",
	    "{\"active\":true,\"username\":\"a\\r\\nX\"}",
	    "{\"active\":true,\"username\":\"a\\u007f\"}",
	};
	static const char *const scopes[] = {"", "mai", "mailx", "Mail",
	    "x-mail", "mail,", "y mai"};
	char json[1024];
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(rows); i++) {
		if (answer(rows[i], "username", "") != OAUTH2_BAD)
			fail_msg("taken: %s", rows[i]);
		assert_non_null(reason);
	}
	for (i = 0; i < LENGTH(scopes); i++) {
		(void)snprintf(json, sizeof(json),
		    "{\"active\":true," ANN ",\"scope\":\"%s\"}", scopes[i]);
		assert_int_equal(
		    answer(json, "username", "mail"), OAUTH2_BAD);
	}
	assert_int_equal(
	    answer("{\"active\":true," ANN "}", "username", "mail"),
	    OAUTH2_BAD);
	/* A name of 511 octets is one, of 512 it is none. */
	for (i = 511; i <= 512; i++) {
		(void)snprintf(json, sizeof(json),
		    "{\"active\":true,\"username\":\"%0*d\"}", (int)i, 7);
		assert_int_equal(answer(json, "username", ""),
		    i == 511 ? OAUTH2_GOOD : OAUTH2_BAD);
	}
}

/* Nothing is a yes that is not one in so many words. */
static void
no_answer(void **state)
{
	static const char *const rows[] = {"", "{", "true", "[]",
	    "[{\"active\":true," ANN "}]", "{" ANN "}",
	    "{\"active\":\"true\"," ANN "}", "{\"active\":1," ANN "}",
	    "{\"active\":null," ANN "}", "{\"Active\":true," ANN "}",
	    "{\"active\":true," ANN "} x", "{\"active\":true," ANN ",}",
	    "{\"active\":false,\"active\":true," ANN "}",
	    "{\"active\":true," ANN "," ANN "}",
	    "{\"active\":true,\"username\":\"a\\u0000b\"}",
	    "{\"active\":true,\"username\":\"\xff\"}", "<html>"};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(rows); i++)
		if (answer(rows[i], "username", "") != OAUTH2_NO_ANSWER)
			fail_msg("an answer: %s", rows[i]);
}

static void
the_cache(void **state)
{
	struct oauth2_token ann = {"ann", NOW + 10}, found;
	char name[16];
	int i;

	(void)state;
	assert_false(oauth2_cache_find("one", NOW, &found));
	oauth2_cache_put("one", NOW, &ann);
	assert_true(oauth2_cache_find("one", NOW, &found));
	assert_string_equal(found.user, "ann");
	assert_false(oauth2_cache_find("two", NOW, &found));
	assert_true(oauth2_cache_find("one", NOW + 9, &found));
	assert_false(oauth2_cache_find("one", NOW + 10, &found));
	/* What is over, or has no end, is not kept. */
	oauth2_cache_put("old", NOW + 10, &ann);
	assert_false(oauth2_cache_find("old", NOW, &found));
	ann.expires = 0;
	oauth2_cache_put("endless", NOW, &ann);
	assert_false(oauth2_cache_find("endless", NOW, &found));
	/* Many take each other's places, and never each other's names. */
	for (i = 0; i < 5000; i++) {
		(void)snprintf(name, sizeof(name), "t%d", i);
		(void)snprintf(ann.user, sizeof(ann.user), "u%d", i);
		ann.expires = NOW + 10;
		oauth2_cache_put(name, NOW, &ann);
		assert_true(oauth2_cache_find(name, NOW, &found));
		assert_string_equal(found.user, ann.user);
	}
	assert_false(oauth2_cache_find("t0", NOW, &found));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(good),
	    cmocka_unit_test(bad),
	    cmocka_unit_test(no_answer),
	    cmocka_unit_test(the_cache),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
