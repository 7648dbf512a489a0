/*
 * Networks in directives.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "lib/network.h"

static struct sockaddr_storage
peer(const char *text)
{
	struct sockaddr_storage ss;
	struct sockaddr_in *in = (struct sockaddr_in *)&ss;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ss;

	memset(&ss, 0, sizeof(ss));
	if (strcmp(text, "unix:") == 0)
		ss.ss_family = AF_UNIX;
	else if (inet_pton(AF_INET, text, &in->sin_addr) == 1)
		ss.ss_family = AF_INET;
	else if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1)
		ss.ss_family = AF_INET6;
	else
		fail_msg("%s", text);
	return ss;
}

static void
test_members(void **state)
{
	static const struct {
		const char *network, *peer;
		bool has;
	} cases[] = {
	    {"192.0.2.1", "192.0.2.1", true},
	    {"192.0.2.1", "192.0.2.2", false},
	    {"192.0.2.0/25", "192.0.2.127", true},
	    {"192.0.2.0/25", "192.0.2.128", false},
	    {"192.0.2.0/24", "::ffff:192.0.2.9", true},
	    {"0.0.0.0/0", "203.0.113.9", true},
	    {"0.0.0.0/0", "2001:db8::1", false},
	    {"::/0", "2001:db8::1", true},
	    {"::/0", "192.0.2.1", false},
	    {"::/0", "::ffff:192.0.2.1", false},
	    {"2001:db8::/33", "2001:db8:7fff::1", true},
	    {"2001:db8::/33", "2001:db8:8000::1", false},
	    {"unix:", "unix:", true},
	    {"unix:", "192.0.2.1", false},
	    {"0.0.0.0/0", "unix:", false},
	};
	struct sockaddr_storage ss;
	struct network network;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ss = peer(cases[i].peer);
		assert_int_equal(network_parse(cases[i].network, &network), 0);
		if (network_has(&network, &ss) != cases[i].has)
			fail_msg("%s %s", cases[i].network, cases[i].peer);
	}
}

static void
test_refused(void **state)
{
	static const char *const wrong[] = {"", "x", "192.0.2.1/33",
	    "192.0.2.1/24", "192.0.2.0/", "192.0.2.0/-1", "192.0.2/24",
	    "2001:db8::1/64", "::/129", "unix:/run/x", "192.0.2.0/24 ",
	    "1111:2222:3333:4444:5555:6666:7777:8888:9999:1111:2222:3333/1"};
	struct network network;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		if (network_parse(wrong[i], &network) == 0)
			fail_msg("%s", wrong[i]);
}

static void
test_any(void **state)
{
	char first[] = "rubbish", second[] = "192.0.2.0/24", third[] = "unix:";
	char *const texts[] = {first, second, third};
	struct sockaddr_storage a = peer("192.0.2.7"), b = peer("198.51.100.1");

	(void)state;
	assert_true(network_any(texts, 3, &a));
	assert_false(network_any(texts, 3, &b));
	assert_false(network_any(texts, 0, &a));
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_members),
	    cmocka_unit_test(test_refused),
	    cmocka_unit_test(test_any),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
