/*
 * lib/listen_spec: what the listen directive may say, and what it means.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include <cmocka.h>

#include "lib/listen_spec.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

/* What it came to, as "address port". */
static void
describe(const struct listen_spec *w, char *text, size_t size)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)&w->addr;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&w->addr;
	const struct sockaddr_un *un = (const struct sockaddr_un *)&w->addr;
	char addr[INET6_ADDRSTRLEN] = "?";
	int port = 0;

	if (w->addr.ss_family == AF_UNIX) {
		(void)snprintf(text, size, "%s", un->sun_path);
		assert_int_equal(w->len, sizeof(*un));
		return;
	}
	if (w->addr.ss_family == AF_INET) {
		(void)inet_ntop(AF_INET, &in->sin_addr, addr, sizeof(addr));
		port = ntohs(in->sin_port);
		assert_int_equal(w->len, sizeof(*in));
	} else if (w->addr.ss_family == AF_INET6) {
		(void)inet_ntop(AF_INET6, &in6->sin6_addr, addr, sizeof(addr));
		port = ntohs(in6->sin6_port);
		assert_int_equal(w->len, sizeof(*in6));
	}
	(void)snprintf(text, size, "%s %d", addr, port);
}

static void
good(void **state)
{
	static const struct {
		const char *value, *means;
		bool ssl;
		int backlog;
	} cases[] = {
	    {"127.0.0.1:25", "127.0.0.1 25", false, SOMAXCONN},
	    {"25", "0.0.0.0 25", false, SOMAXCONN},
	    {"*:587", "0.0.0.0 587", false, SOMAXCONN},
	    {"0.0.0.0:65535", "0.0.0.0 65535", false, SOMAXCONN},
	    {"[::]:465 ssl", ":: 465", true, SOMAXCONN},
	    {"[::1]:1 backlog=1", "::1 1", false, 1},
	    {"[2001:db8::1]:25", "2001:db8::1 25", false, SOMAXCONN},
	    {"[::ffff:192.0.2.1]:25", "::ffff:192.0.2.1 25", false, SOMAXCONN},
	    {"*:465 backlog=65535 ssl", "0.0.0.0 465", true, 65535},
	    {"  *:465   ssl  ", "0.0.0.0 465", true, SOMAXCONN},
	    {"unix:/run/front", "/run/front", false, SOMAXCONN},
	    {"unix:/run/front ssl", "/run/front", true, SOMAXCONN},
	    {"\"unix:/run/a b\" ssl", "/run/a b", true, SOMAXCONN},
	};
	struct listen_spec spec;
	char text[160];
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(cases); i++) {
		memset(&spec, 0xff, sizeof(spec));
		assert_null(listen_spec_parse(cases[i].value, &spec));
		describe(&spec, text, sizeof(text));
		assert_string_equal(text, cases[i].means);
		assert_int_equal(spec.ssl, cases[i].ssl);
		assert_int_equal(spec.backlog, cases[i].backlog);
	}
}

static void
bad(void **state)
{
	static const char *const values[] = {"", " ", "x", "127.0.0.1", ":25",
	    "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:-1",
	    "127.0.0.1:+25", "127.0.0.1: 25", "127.0.0.1:25x",
	    "127.0.0.1:99999999999999999999", "localhost:25", "256.0.0.1:25",
	    "127.1:25", "[]:25", "[::1]", "[::1", "[::1:25", "::1:25",
	    "[127.0.0.1]:25", "[::1]x:25", "[fe80::1%lo]:25", "[*]:25", "**:25",
	    "unix:", "unix:x", "unix:run/x", "UNIX:/x", "25 tls", "25 ssl=1",
	    "25 backlog", "25 backlog=", "25 backlog=0", "25 backlog=65536",
	    "25 backlog=x", "25 proxy_protocol=on", "25 \"ssl", "\"25", "25 26"};
	struct listen_spec spec;
	const char *wrong;
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(values); i++) {
		wrong = listen_spec_parse(values[i], &spec);
		if (wrong == NULL)
			fail_msg("\"%s\" is taken", values[i]);
		assert_null(strchr(wrong, '\n'));
	}
}

static void
long_paths(void **state)
{
	struct sockaddr_un un;
	struct listen_spec spec;
	char value[400] = "unix:/";
	size_t fits = sizeof("unix:") - 1 + sizeof(un.sun_path) - 1;

	(void)state;
	memset(value + 6, 'x', sizeof(value) - 7);
	value[fits] = '\0';
	assert_null(listen_spec_parse(value, &spec));
	value[fits] = 'x';
	value[fits + 1] = '\0';
	assert_non_null(listen_spec_parse(value, &spec));
	memset(value, 'x', sizeof(value) - 1);
	assert_non_null(listen_spec_parse(value, &spec));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(good),
	    cmocka_unit_test(bad),
	    cmocka_unit_test(long_paths),
	};

	return cmocka_run_group_tests_name("listen_spec", tests, NULL, NULL);
}
