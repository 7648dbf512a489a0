/*
 * lib/dns.c against a name server of our own: a thread on 127.0.0.1 that
 * answers from the table below, rightly, wrongly or not at all.
 */
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/clock.h"
#include "lib/dns.h"
#include "lib/dns_tlsa.h"

enum how {
	SAYS, /* a record: `data` */
	RAW, /* a PTR whose name is these octets, a NUL ends it */
	CODE, /* an error: `len` */
	SILENCE, /* nothing */
	GARBAGE, /* two packets that are no answers to the question */
	CUT /* the right question, then half a record */
};

/* Records of one name and type follow each other. */
struct row {
	const char *name;
	int type;
	enum how how;
	const char *data;
	size_t len;
};

#define PTR4(n) "" #n ".2.0.192.in-addr.arpa"
#define EVIL(s) RAW, s, sizeof(s)

static const struct row rows[] = {
    {PTR4(1), ns_t_ptr, SAYS, "mail.example", 0},
    {"mail.example", ns_t_a, SAYS, "192.0.2.77", 0},
    {"mail.example", ns_t_a, SAYS, "192.0.2.1", 0},
    {PTR4(2), ns_t_ptr, CODE, NULL, ns_r_nxdomain},
    {PTR4(3), ns_t_ptr, CODE, NULL, ns_r_servfail},
    {PTR4(4), ns_t_ptr, SILENCE, NULL, 0},
    {PTR4(5), ns_t_ptr, SAYS, "mail.example", 0}, /* not its address */
    {PTR4(6), ns_t_ptr,
	EVIL("\x06"
	     "a\r\nb: c\x07"
	     "example")},
    {PTR4(7), ns_t_ptr,
	EVIL("\x03"
	     "a_b\x07"
	     "example")},
    {PTR4(8), ns_t_ptr,
	EVIL("\x03"
	     "a\0b\x07"
	     "example")},
    {PTR4(9), ns_t_ptr,
	EVIL("\x03"
	     "a.b\x07"
	     "example")},
    {PTR4(10), ns_t_ptr,
	EVIL("\x03"
	     "a/b\x07"
	     "example")},
    {PTR4(11), ns_t_ptr, EVIL("")}, /* the root */
    {"a_b.example", ns_t_a, SAYS, "192.0.2.7", 0},
    {"a/b.example", ns_t_a, SAYS, "192.0.2.10", 0},
    {PTR4(12), ns_t_ptr, SAYS, "one.example", 0},
    {PTR4(12), ns_t_ptr, SAYS, "two.example", 0},
    {PTR4(12), ns_t_ptr, SAYS, "three.example", 0},
    {"two.example", ns_t_a, SAYS, "192.0.2.1", 0},
    {"three.example", ns_t_a, SAYS, "192.0.2.12", 0},
    {PTR4(13), ns_t_ptr, SAYS, "n1.example", 0},
    {PTR4(13), ns_t_ptr, SAYS, "n2.example", 0},
    {PTR4(13), ns_t_ptr, SAYS, "n3.example", 0},
    {PTR4(13), ns_t_ptr, SAYS, "n4.example", 0},
    {PTR4(13), ns_t_ptr, SAYS, "n5.example", 0},
    {"n5.example", ns_t_a, SAYS, "192.0.2.13", 0},
    {PTR4(14), ns_t_ptr, GARBAGE, NULL, 0},
    {PTR4(15), ns_t_ptr, CUT, NULL, 0},
    {PTR4(16), ns_t_ptr, SAYS, "lame.example", 0},
    {"lame.example", ns_t_a, CODE, NULL, ns_r_servfail},
    {PTR4(17), ns_t_ptr, SAYS, "mute.example", 0},
    {"mute.example", ns_t_a, SILENCE, NULL, 0},
    {"mute.example", ns_t_aaaa, SILENCE, NULL, 0},
    {PTR4(18), ns_t_ptr, CODE, NULL, ns_r_refused},
    {PTR4(19), ns_t_ptr, CODE, NULL, ns_r_noerror}, /* no data */
    {PTR4(20), ns_t_ptr, SAYS, "localhost", 0},
    {PTR4(21), ns_t_ptr, SAYS, "lame.example", 0},
    {PTR4(21), ns_t_ptr, SAYS, "good.example", 0},
    {"good.example", ns_t_a, SAYS, "192.0.2.21", 0},
    {"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2."
     "ip6.arpa",
	ns_t_ptr, SAYS, "six.example", 0},
    {"six.example", ns_t_aaaa, SAYS, "2001:db8::1", 0},
    {"six.example", ns_t_a, SAYS, "192.0.2.66", 0},
    {"gone.example", ns_t_a, CODE, NULL, ns_r_nxdomain},
    {"gone.example", ns_t_aaaa, CODE, NULL, ns_r_nxdomain},
    {"_25._tcp.mail.example", 52, RAW, "\3\1\1ab", 5},
    {"_25._tcp.bogus.example", 52, CODE, NULL, ns_r_servfail},
    {"_25._tcp.mute.example", 52, SILENCE, NULL, 0},
    {"_25._tcp.broken.example", 52, CUT, NULL, 0},
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

static struct {
	int fd;
	pthread_t thread;
	char address[32]; /* for dns_new() */
	unsigned questions; /* read after the look-up that asked them */
	bool authentic; /* tells who asks for it that it has validated */
} server;

struct packet {
	unsigned char at[2048];
	size_t len;
};

static void
put(struct packet *p, const void *data, size_t len)
{
	assert(p->len + len <= sizeof(p->at));
	memcpy(p->at + p->len, data, len);
	p->len += len;
}

static void
put16(struct packet *p, unsigned n)
{
	unsigned char b[2] = {(unsigned char)(n >> 8), (unsigned char)n};

	put(p, b, 2);
}

static void
put_name(struct packet *p, const char *name)
{
	unsigned char len;

	for (; *name != '\0'; name += len + (name[len] == '.')) {
		len = (unsigned char)strcspn(name, ".");
		put(p, &len, 1);
		put(p, name, len);
	}
	put(p, "", 1);
}

static void
put_record(struct packet *p, const struct row *row)
{
	struct packet data = {.len = 0};
	unsigned char addr[16];

	if (row->how == RAW)
		put(&data, row->data, row->len);
	else if (row->type == ns_t_ptr)
		put_name(&data, row->data);
	else if (inet_pton(row->type == ns_t_a ? AF_INET : AF_INET6, row->data,
		     addr) == 1)
		put(&data, addr, row->type == ns_t_a ? 4 : 16);
	put16(p, 0xc00c); /* the question's name */
	put16(p, (unsigned)row->type);
	put16(p, ns_c_in);
	put(p, "\0\0\0\x3c", 4);
	put16(p, (unsigned)data.len);
	put(p, data.at, data.len);
}

/* Reads the question of `p` and cuts `p` behind it; its type. */
static int
read_question(struct packet *p, char *name, size_t size)
{
	size_t at = 12, len, out = 0;

	while (at < p->len && p->at[at] != 0) {
		len = p->at[at];
		assert(at + len + 5 < p->len && out + len + 2 < size);
		memcpy(name + out, p->at + at + 1, len);
		out += len;
		name[out++] = '.';
		at += len + 1;
	}
	name[out > 0 ? out - 1 : 0] = '\0';
	p->len = at + 5;
	return p->at[at + 1] << 8 | p->at[at + 2];
}

/* Turns the question `p` into its answer; false for none. */
static bool
answer(struct packet *p)
{
	char name[256];
	int type = read_question(p, name, sizeof(name));
	unsigned char rcode = ns_r_nxdomain, count = 0;
	const unsigned char ad = server.authentic ? p->at[3] & 0x20 : 0;
	size_t i;

	for (i = 0; i < ROWS; i++) {
		if (strcasecmp(rows[i].name, name) != 0 || rows[i].type != type)
			continue;
		rcode = ns_r_noerror;
		if (rows[i].how == SILENCE)
			return false;
		if (rows[i].how == CODE) {
			rcode = (unsigned char)rows[i].len;
		} else if (rows[i].how == CUT) {
			count = 3;
			put(p, "\xc0\x0c\x00\x0c", 4);
		} else if (rows[i].how == GARBAGE) {
			memset(p->at + 2, 0xff, sizeof(p->at) - 2);
			p->len = 600;
			return true;
		} else {
			put_record(p, &rows[i]);
			count++;
		}
	}
	p->at[2] = 0x81;
	p->at[3] = 0x80 | ad | rcode;
	memcpy(p->at + 4, "\0\1\0\0\0\0\0\0", 8);
	p->at[7] = count;
	return true;
}

static void *
serve(void *arg)
{
	struct sockaddr_in from;
	struct packet p;
	socklen_t len;
	ssize_t got;

	for (;;) {
		len = sizeof(from);
		got = recvfrom(
		    server.fd, p.at, sizeof(p.at), 0, (void *)&from, &len);
		if (got < 17)
			return arg; /* the end: stop_server() */
		p.len = (size_t)got;
		server.questions++;
		if (answer(&p))
			(void)sendto(
			    server.fd, p.at, p.len, 0, (void *)&from, len);
		(void)sendto(server.fd, "x", 1, 0, (void *)&from, len);
	}
}

static int
start_server(void **state)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	socklen_t len = sizeof(sin);

	(void)state;
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	server.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (server.fd == -1 ||
	    bind(server.fd, (void *)&sin, sizeof(sin)) == -1 ||
	    getsockname(server.fd, (void *)&sin, &len) == -1)
		return -1;
	(void)snprintf(server.address, sizeof(server.address), "127.0.0.1:%u",
	    ntohs(sin.sin_port));
	return pthread_create(&server.thread, NULL, serve, NULL);
}

static int
stop_server(void **state)
{
	struct sockaddr_in sin;
	socklen_t len = sizeof(sin);

	(void)state;
	if (getsockname(server.fd, (void *)&sin, &len) == -1 ||
	    sendto(server.fd, "end", 3, 0, (void *)&sin, len) != 3)
		return -1;
	(void)pthread_join(server.thread, NULL);
	return close(server.fd);
}

static enum dns_result
wait_for(struct dns *d, char *name)
{
	struct pollfd fds[DNS_MAX_POLLFDS];
	enum dns_result result;
	int n, timeout_ms;

	while ((result = dns_reverse_result(d, name)) == DNS_PENDING) {
		timeout_ms = -1;
		n = dns_poll_fds(d, fds, &timeout_ms);
		assert_true(timeout_ms >= 0); /* never waits without end */
		assert_true(poll(fds, (nfds_t)n, timeout_ms) >= 0);
		dns_process(d, fds, n);
	}
	timeout_ms = 12345;
	assert_int_equal(dns_poll_fds(d, fds, &timeout_ms), 0);
	assert_int_equal(timeout_ms, 12345);
	return result;
}

/* The whole reverse look-up of `addr`, an IPv4 or IPv6 address. */
static enum dns_result
reverse(const char *addr, int64_t ms, char *name)
{
	struct sockaddr_storage ss = {.ss_family = AF_INET};
	enum dns_result result;
	struct dns *d;

	if (inet_pton(AF_INET, addr, &((struct sockaddr_in *)&ss)->sin_addr) !=
	    1) {
		ss.ss_family = AF_INET6;
		assert_int_equal(inet_pton(AF_INET6, addr,
				     &((struct sockaddr_in6 *)&ss)->sin6_addr),
		    1);
	}
	d = dns_new(server.address, clock_in(ms));
	assert_non_null(d);
	dns_reverse_start(d, (struct sockaddr *)&ss);
	(void)strncpy(name, "untouched", DNS_NAME_SIZE);
	result = wait_for(d, name);
	if (result != DNS_FOUND)
		assert_string_equal(name, "untouched");
	dns_free(d);
	return result;
}

static void
assert_reverse(const char *addr, enum dns_result want, const char *name)
{
	char got[DNS_NAME_SIZE];

	assert_int_equal(reverse(addr, 5000, got), want);
	if (name != NULL)
		assert_string_equal(got, name);
}

static void
finds_a_verified_name(void **state)
{
	(void)state;
	assert_reverse("192.0.2.1", DNS_FOUND, "mail.example");
	assert_reverse("2001:db8::1", DNS_FOUND, "six.example");
}

static void
looks_a_mapped_address_up_as_ipv4(void **state)
{
	(void)state;
	assert_reverse("::ffff:192.0.2.1", DNS_FOUND, "mail.example");
}

static void
takes_no_for_an_answer(void **state)
{
	(void)state;
	assert_reverse("192.0.2.2", DNS_NOT_FOUND, NULL);
	assert_reverse("192.0.2.19", DNS_NOT_FOUND, NULL);
	assert_reverse("2001:db8::2", DNS_NOT_FOUND, NULL);
}

static void
refuses_a_name_that_does_not_lead_back(void **state)
{
	(void)state;
	assert_reverse("192.0.2.5", DNS_NOT_FOUND, NULL);
	/* in /etc/hosts everywhere, but no server knows it */
	assert_reverse("192.0.2.20", DNS_NOT_FOUND, NULL);
}

static void
fails_when_nobody_knows(void **state)
{
	(void)state;
	assert_reverse("192.0.2.3", DNS_FAILED, NULL);
	assert_reverse("192.0.2.15", DNS_FAILED, NULL);
	assert_reverse("192.0.2.16", DNS_FAILED, NULL);
	assert_reverse("192.0.2.18", DNS_FAILED, NULL);
}

static void
ends_at_the_deadline(void **state)
{
	static const char *const addrs[] = {
	    "192.0.2.4", "192.0.2.14", "192.0.2.17"};
	char name[DNS_NAME_SIZE];
	int64_t began, took;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(addrs) / sizeof(addrs[0]); i++) {
		began = clock_ms();
		assert_int_equal(reverse(addrs[i], 150, name), DNS_FAILED);
		took = clock_ms() - began;
		assert_in_range(took, 140, 1500);
	}
	assert_int_equal(reverse("192.0.2.4", -1, name), DNS_FAILED);
}

static void
never_uses_an_evil_name(void **state)
{
	static const char *const addrs[] = {"192.0.2.6", "192.0.2.7",
	    "192.0.2.8", "192.0.2.9", "192.0.2.10", "192.0.2.11"};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(addrs) / sizeof(addrs[0]); i++)
		assert_reverse(addrs[i], DNS_FAILED, NULL);
}

static void
tries_a_few_names(void **state)
{
	unsigned before;

	(void)state;
	assert_reverse("192.0.2.12", DNS_FOUND, "three.example");
	assert_reverse("192.0.2.21", DNS_FOUND, "good.example");
	before = server.questions;
	assert_reverse("192.0.2.13", DNS_NOT_FOUND, NULL);
	assert_int_equal(server.questions - before, 1 + 4);
}

static void
has_no_name_for_a_unix_peer(void **state)
{
	struct sockaddr sa = {.sa_family = AF_UNIX};
	struct dns *d = dns_new("", clock_in(1000));
	char name[DNS_NAME_SIZE];

	(void)state;
	dns_reverse_start(d, &sa);
	assert_int_equal(dns_reverse_result(d, name), DNS_FAILED);
	dns_free(d);
	dns_free(NULL);
}

static void
can_be_given_up(void **state)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	struct dns *d = dns_new(server.address, CLOCK_NEVER);
	char name[DNS_NAME_SIZE];

	(void)state;
	assert_int_equal(inet_pton(AF_INET, "192.0.2.4", &sin.sin_addr), 1);
	dns_reverse_start(d, (struct sockaddr *)&sin);
	assert_int_equal(dns_reverse_result(d, name), DNS_PENDING);
	dns_free(d);
}

static void
reads_lists_of_servers(void **state)
{
	static const char *const good[] = {"", "  ", "system", "127.0.0.1",
	    "127.0.0.1:5353 [::1]", "[2001:db8::1]:53", "::1",
	    "127.0.0.1:65535"};
	static const char *const bad[] = {"dns.example",
	    "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:5x",
	    "[::1", "[::1]53", "[::1]:", "[127.0.0.1]", "127.0.0.1,127.0.0.2",
	    "127.0.0", "::1 x", "[]", ":53", "system ::1",
	    "::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1"};
	struct dns *d;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		d = dns_new(good[i], 0);
		assert_non_null(d);
		dns_free(d);
	}
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_null(dns_new(bad[i], 0));
}

static int
addresses(const char *host, int64_t ms, struct dns_addr *addrs, int max)
{
	struct dns *d = dns_new(server.address, clock_in(ms));
	int n;

	assert_non_null(d);
	n = dns_addresses(d, host, 2525, addrs, max);
	dns_free(d);
	return n;
}

static void
assert_address(const struct dns_addr *a, const char *want)
{
	const struct sockaddr_in *v4 = (const void *)&a->addr;
	const struct sockaddr_in6 *v6 = (const void *)&a->addr;
	char got[INET6_ADDRSTRLEN];
	bool is_v4 = a->addr.ss_family == AF_INET;

	assert_non_null(inet_ntop(a->addr.ss_family,
	    is_v4 ? (const void *)&v4->sin_addr : (const void *)&v6->sin6_addr,
	    got, sizeof(got)));
	assert_string_equal(got, want);
	assert_int_equal(ntohs(is_v4 ? v4->sin_port : v6->sin6_port), 2525);
	assert_int_equal(a->len, is_v4 ? sizeof(*v4) : sizeof(*v6));
}

static void
needs_nobody_for_numbers(void **state)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	socklen_t len = sizeof(in);
	int nobody = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct dns_addr a[2];
	char resolver[32], byte;
	struct dns *d;

	(void)state;
	/* A name server of this test alone, to see that it is not asked. */
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(nobody, (struct sockaddr *)&in, len), 0);
	assert_int_equal(getsockname(nobody, (struct sockaddr *)&in, &len), 0);
	(void)snprintf(
	    resolver, sizeof(resolver), "127.0.0.1:%u", ntohs(in.sin_port));
	d = dns_new(resolver, clock_in(-1));
	assert_non_null(d);
	assert_int_equal(dns_addresses(d, "192.0.2.9", 2525, a, 2), 1);
	assert_address(&a[0], "192.0.2.9");
	assert_int_equal(dns_addresses(d, "2001:db8::9", 2525, a, 2), 1);
	assert_address(&a[0], "2001:db8::9");
	assert_int_equal(dns_addresses(d, "192.0.2.9", 2525, a, 0), 0);
	dns_free(d);
	assert_int_equal(recv(nobody, &byte, 1, MSG_DONTWAIT), -1);
	(void)close(nobody);
}

static void
finds_a_backends_addresses(void **state)
{
	struct dns_addr a[DNS_MAX_ADDRS];
	int six;

	(void)state;
	assert_int_equal(addresses("six.example", 5000, a, DNS_MAX_ADDRS), 2);
	six = a[0].addr.ss_family == AF_INET6 ? 0 : 1;
	assert_address(&a[six], "2001:db8::1");
	assert_address(&a[1 - six], "192.0.2.66");
	assert_int_equal(addresses("six.example", 5000, a, 1), 1);
}

static void
hears_the_hosts_file(void **state)
{
	struct dns_addr a[DNS_MAX_ADDRS];
	int i, n, v4 = 0;

	(void)state;
	n = addresses("localhost", 5000, a, DNS_MAX_ADDRS);
	assert_true(n > 0);
	for (i = 0; i < n; i++) {
		if (a[i].addr.ss_family != AF_INET)
			continue;
		assert_address(&a[i], "127.0.0.1");
		v4++;
	}
	assert_true(v4 > 0);
}

static void
has_no_addresses(void **state)
{
	struct dns_addr a[1];
	char name[300];
	int64_t began = clock_ms();

	(void)state;
	assert_int_equal(addresses("gone.example", 5000, a, 1), 0);
	assert_int_equal(addresses("", 5000, a, 1), 0);
	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(addresses(name, 5000, a, 1), 0);
	assert_int_equal(addresses("mute.example", 150, a, 1), -1);
	assert_in_range(clock_ms() - began, 140, 4000);
}

/* One struct dns answers a second question after the first has ended. */
static void
asks_again(void **state)
{
	struct dns *d = dns_new(server.address, clock_in(5000));
	struct dns_addr a[2];

	(void)state;
	assert_int_equal(dns_addresses(d, "gone.example", 1, a, 2), 0);
	assert_int_equal(dns_addresses(d, "six.example", 2525, a, 2), 2);
	dns_free(d);
}

/* --- TLSA ---------------------------------------------------------------- */

/* An answer to _25._tcp.a. for TLSA, with `n` records behind. */
#define HEAD(flags, n)                                                  \
	"\x12\x34" flags "\0\1\0" n "\0\0\0\0"                            \
	"\3_25\4_tcp\1a\0\0\x34\0\1"
#define OWNER	"\xc0\x0c"
#define TLSA(n) OWNER "\0\x34\0\1\0\0\0\x3c\0" n
#define ALIAS	OWNER "\0\5\0\1\0\0\0\x3c\0\4\1b\xc0\x18"

/* Where the next octet is nobody's, for who reads on. */
static int
parse(const char *bytes, size_t len, struct tls_tlsa *records)
{
	unsigned char *copy = malloc(len > 0 ? len : 1);
	int n;

	assert_non_null(copy);
	memcpy(copy, bytes, len);
	n = dns_tlsa_parse(copy, len, records);
	free(copy);
	return n;
}

static void
reads_tlsa_records(void **state)
{
	static const char answer[] = HEAD("\x81\xa0", "\3") ALIAS
	    TLSA("\5") "\3\1\1ab" TLSA("\4") "\2\0\2z";
	struct tls_tlsa records[DNS_MAX_TLSA];

	(void)state;
	assert_int_equal(parse(answer, sizeof(answer) - 1, records), 2);
	assert_int_equal(records[0].usage, 3);
	assert_int_equal(records[0].selector, 1);
	assert_int_equal(records[0].matching, 1);
	assert_int_equal(records[0].len, 2);
	assert_memory_equal(records[0].data, "ab", 2);
	assert_int_equal(records[1].usage, 2);
	assert_int_equal(records[1].len, 1);
	/* No such name, and nothing in an answer, are answers. */
	assert_int_equal(parse(HEAD("\x81\xa3", "\0"),
			     sizeof(HEAD("\x81\xa3", "\0")) - 1, records),
	    0);
}

static void
reads_no_half_answers(void **state)
{
	static const char answer[] =
	    HEAD("\x81\xa0", "\2") ALIAS TLSA("\5") "\3\1\1ab";
	static const char *const flags[] = {"\x01\x20", "\x83\xa0",
	    "\x81\xa2", "\x81\xa5"};
	struct tls_tlsa records[DNS_MAX_TLSA];
	char copy[sizeof(answer)];
	size_t i;

	(void)state;
	assert_int_equal(parse(answer, sizeof(answer) - 1, records), 1);
	for (i = 0; i < sizeof(answer) - 1; i++)
		assert_int_equal(parse(answer, i, records), -1);
	/* A question, one cut short, two that say that they cannot. */
	for (i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		memcpy(copy, answer, sizeof(copy));
		memcpy(copy + 2, flags[i], 2);
		assert_int_equal(
		    parse(copy, sizeof(answer) - 1, records), -1);
	}
	/* A label of a kind that there is none of. */
	memcpy(copy, answer, sizeof(copy));
	copy[12] = (char)0x83;
	assert_int_equal(parse(copy, sizeof(answer) - 1, records), -1);
	/* More records are promised than there are. */
	memcpy(copy, answer, sizeof(copy));
	copy[6] = (char)0xff;
	assert_int_equal(parse(copy, sizeof(answer) - 1, records), -1);
}

static void
keeps_useful_tlsa_records(void **state)
{
	static const char head[] = HEAD("\x81\xa0", "\x14");
	static const char one[] = TLSA("\4") "\3\1\1a";
	static const char empty[] = TLSA("\3") "\3\1\1";
	struct tls_tlsa records[DNS_MAX_TLSA];
	char answer[2048];
	size_t i, len = sizeof(head) - 1;

	(void)state;
	memcpy(answer, head, len);
	/* One without data, one that is too long, and 18 more. */
	memcpy(answer + len, empty, sizeof(empty) - 1);
	len += sizeof(empty) - 1;
	memcpy(answer + len, one, 10);
	answer[len + 10] = (TLS_MAX_TLSA + 4) >> 8;
	answer[len + 11] = (TLS_MAX_TLSA + 4) & 0xff;
	memset(answer + len + 12, 3, TLS_MAX_TLSA + 4);
	len += 12 + TLS_MAX_TLSA + 4;
	for (i = 0; i < 18; i++, len += sizeof(one) - 1)
		memcpy(answer + len, one, sizeof(one) - 1);
	assert_int_equal(parse(answer, len, records), DNS_MAX_TLSA);
	for (i = 0; i < DNS_MAX_TLSA; i++)
		assert_int_equal(records[i].len, 1);
}

static void
trusts_no_resolver_elsewhere(void **state)
{
	static const char *const lists[] = {"192.0.2.1", "127.0.0.1 192.0.2.1",
	    "[2001:db8::1]:53", "::1 2001:db8::1"};
	struct tls_tlsa records[DNS_MAX_TLSA];
	size_t i, count;
	struct dns *d;

	(void)state;
	for (i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		d = dns_new(lists[i], clock_in(1000));
		assert_int_equal(
		    dns_tlsa_find(d, "mail.example", 25, records, &count),
		    DNS_TLSA_NOT_TRUSTED);
		dns_free(d);
	}
}

static enum dns_tlsa
find_records(const char *host, struct tls_tlsa *records, size_t *count)
{
	struct dns *d = dns_new(server.address, clock_in(300));
	enum dns_tlsa r = dns_tlsa_find(d, host, 25, records, count);

	dns_free(d);
	return r;
}

static void
needs_a_validated_answer(void **state)
{
	static const char long_label[] =
	    "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"
	    "abcdefghijkl.example"; /* 64 */
	struct tls_tlsa records[DNS_MAX_TLSA];
	size_t count = 99;

	(void)state;
	assert_int_equal(find_records("mail.example", records, &count),
	    DNS_TLSA_NONE);
	server.authentic = true;
	assert_int_equal(find_records("none.example", records, &count),
	    DNS_TLSA_NONE);
	assert_int_equal(
	    find_records(long_label, records, &count), DNS_TLSA_NONE);
	assert_int_equal(find_records("bogus.example", records, &count),
	    DNS_TLSA_FAILED);
	assert_int_equal(find_records("mute.example", records, &count),
	    DNS_TLSA_FAILED);
	assert_int_equal(find_records("broken.example", records, &count),
	    DNS_TLSA_FAILED);
	assert_int_equal(count, 99);
	assert_int_equal(find_records("mail.example.", records, &count),
	    DNS_TLSA_FOUND);
	server.authentic = false;
	assert_int_equal(count, 1);
	assert_int_equal(records[0].usage, 3);
	assert_memory_equal(records[0].data, "ab", 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(finds_a_verified_name),
	    cmocka_unit_test(looks_a_mapped_address_up_as_ipv4),
	    cmocka_unit_test(takes_no_for_an_answer),
	    cmocka_unit_test(refuses_a_name_that_does_not_lead_back),
	    cmocka_unit_test(fails_when_nobody_knows),
	    cmocka_unit_test(ends_at_the_deadline),
	    cmocka_unit_test(never_uses_an_evil_name),
	    cmocka_unit_test(tries_a_few_names),
	    cmocka_unit_test(has_no_name_for_a_unix_peer),
	    cmocka_unit_test(can_be_given_up),
	    cmocka_unit_test(reads_lists_of_servers),
	    cmocka_unit_test(needs_nobody_for_numbers),
	    cmocka_unit_test(finds_a_backends_addresses),
	    cmocka_unit_test(hears_the_hosts_file),
	    cmocka_unit_test(has_no_addresses),
	    cmocka_unit_test(asks_again),
	    cmocka_unit_test(reads_tlsa_records),
	    cmocka_unit_test(reads_no_half_answers),
	    cmocka_unit_test(keeps_useful_tlsa_records),
	    cmocka_unit_test(trusts_no_resolver_elsewhere),
	    cmocka_unit_test(needs_a_validated_answer),
	};

	return cmocka_run_group_tests(tests, start_server, stop_server);
}
