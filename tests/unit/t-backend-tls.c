/*
 * Which kind of TLS a session's backend is spoken to in: what the directives
 * say, and what a verdict may say instead.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "backend_tls.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

static struct config conf;
static struct session session;
static struct backend_tls how;
static char err[BACKEND_ERROR_SIZE];

static int
choose(const char *words)
{
	session.conf = &conf;
	memset(&how, 0, sizeof(how));
	message_init(&session.verdict, ANSWER_VERDICT);
	message_put(&session.verdict, M_BACKEND_SSL, words);
	return backend_tls_choose(&session, &how, err);
}

static void
directives(void **state)
{
	(void)state;
	conf.proxy_ssl = CONFIG_PROXY_SSL_STARTTLS;
	conf.proxy_ssl_verify = CONFIG_YES;
	conf.proxy_ssl_dane = CONFIG_YES;
	conf.resolver = "";
	assert_int_equal(choose(NULL), 0);
	assert_int_equal(how.mode, CONFIG_PROXY_SSL_STARTTLS);
	assert_int_equal(how.verify, CONFIG_YES);
	assert_int_equal(how.dane, CONFIG_YES);
	/* auto: where a resolver is named. */
	conf.proxy_ssl_dane = CONFIG_AUTO;
	assert_int_equal(choose(NULL), 0);
	assert_int_equal(how.dane, CONFIG_NO);
	conf.resolver = "127.0.0.1";
	assert_int_equal(choose(""), 0);
	assert_int_equal(how.mode, CONFIG_PROXY_SSL_STARTTLS);
	assert_int_equal(how.dane, CONFIG_AUTO);
}

static void
verdicts(void **state)
{
	static const struct {
		const char *words;
		enum config_proxy_ssl mode;
		enum config_decision verify, dane;
	} rows[] = {
	    {"off", CONFIG_PROXY_SSL_OFF, CONFIG_AUTO, CONFIG_AUTO},
	    {"on", CONFIG_PROXY_SSL_ON, CONFIG_AUTO, CONFIG_AUTO},
	    {"starttls", CONFIG_PROXY_SSL_STARTTLS, CONFIG_AUTO, CONFIG_AUTO},
	    {"on any-cert", CONFIG_PROXY_SSL_ON, CONFIG_NO, CONFIG_NO},
	    {"any-cert starttls", CONFIG_PROXY_SSL_STARTTLS, CONFIG_NO,
		CONFIG_NO},
	};
	size_t i, mode;

	(void)state;
	conf.proxy_ssl_verify = conf.proxy_ssl_dane = CONFIG_AUTO;
	conf.resolver = "127.0.0.1";
	for (i = 0; i < LENGTH(rows); i++)
		for (mode = 0; mode <= CONFIG_PROXY_SSL_STARTTLS; mode++) {
			conf.proxy_ssl = (enum config_proxy_ssl)mode;
			assert_int_equal(choose(rows[i].words), 0);
			assert_int_equal(how.mode, rows[i].mode);
			assert_int_equal(how.verify, rows[i].verify);
			assert_int_equal(how.dane, rows[i].dane);
		}
}

static void
unknown_words_fail_closed(void **state)
{
	static const char *const words[] = {"yes", "o", "on,any-cert", "on x",
	    "starttls-or-not", "any-cert on sometimes", "a-very-long-word-of-it",
	    "\"on"};
	size_t i;

	(void)state;
	conf.proxy_ssl = CONFIG_PROXY_SSL_OFF;
	for (i = 0; i < LENGTH(words); i++) {
		err[0] = '\0';
		assert_int_equal(choose(words[i]), -1);
		assert_non_null(strstr(err, "not known"));
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(directives),
	    cmocka_unit_test(verdicts),
	    cmocka_unit_test(unknown_words_fail_closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
