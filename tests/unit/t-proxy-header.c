/*
 * The PROXY protocol: what is a header, how much of one there is, and what it
 * says.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/crc32c.h"
#include "lib/proxy_header.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

/* A header that is being made. */
struct made {
	unsigned char p[70000];
	size_t len;
};

static struct made made;
static struct proxy_header header;

static void
add(const void *data, size_t len)
{
	assert_true(made.len + len <= sizeof(made.p));
	memcpy(made.p + made.len, data, len);
	made.len += len;
}

static void
add_tlv(unsigned type, const void *data, size_t len)
{
	const unsigned char head[] = {(unsigned char)type,
	    (unsigned char)(len >> 8), (unsigned char)len};

	add(head, sizeof(head));
	add(data, len);
}

static void
set_length(void)
{
	made.p[14] = (unsigned char)((made.len - 16) >> 8);
	made.p[15] = (unsigned char)(made.len - 16);
}

/* Version 2 up to its addresses. */
static void
begin(unsigned command, unsigned family)
{
	const unsigned char rest[] = {
	    (unsigned char)(0x20 | command), (unsigned char)family, 0, 0};

	made.len = 0;
	add(SIGNATURE, 12);
	add(rest, sizeof(rest));
}

static void
add_inet(void)
{
	add("\300\000\002\007\313\000\161\011\x9c\x40\x02\x4b", 12);
}

static void
add_inet6(void)
{
	unsigned char addr[16];

	inet_pton(AF_INET6, "2001:db8::7", addr);
	add(addr, sizeof(addr));
	inet_pton(AF_INET6, "2001:db8::9", addr);
	add(addr, sizeof(addr));
	add("\x9c\x40\x02\x4b", 4);
}

static void
begin_inet(void)
{
	begin(1, 0x11);
	add_inet();
}

/*
 * From a copy of just that size, so that a sanitizer sees an octet read too
 * many.
 */
static ssize_t
parse_bytes(const void *data, size_t len)
{
	unsigned char *copy = malloc(len > 0 ? len : 1);
	ssize_t n;

	assert_non_null(copy);
	memcpy(copy, data, len);
	n = proxy_header_parse(copy, len, &header);
	free(copy);
	return n;
}

static ssize_t
parse_made(void)
{
	set_length();
	return parse_bytes(made.p, made.len);
}

static ssize_t
parse_text(const char *text)
{
	return parse_bytes(text, strlen(text));
}

static void
check_end(
    const struct sockaddr_storage *ss, int family, const char *addr, int port)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)ss;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ss;
	char text[INET6_ADDRSTRLEN];

	assert_int_equal(ss->ss_family, family);
	assert_non_null(inet_ntop(family,
	    family == AF_INET ? (const void *)&in->sin_addr
			      : (const void *)&in6->sin6_addr,
	    text, sizeof(text)));
	assert_string_equal(text, addr);
	assert_int_equal(
	    ntohs(family == AF_INET ? in->sin_port : in6->sin6_port), port);
}

static void
check_ends(int family, const char *from, int port, const char *to, int to_port)
{
	assert_true(header.has_addresses);
	check_end(&header.source, family, from, port);
	check_end(&header.destination, family, to, to_port);
}

/* --- version 1 ----------------------------------------------------------- */

static const char line4[] =
    "PROXY TCP4 192.0.2.7 203.0.113.9 40000 587\r\n";
static const char line6[] =
    "PROXY TCP6 2001:db8::7 2001:db8::9 65535 1\r\n";
static const char longest[] =
    "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe 65535 65535\r\n";

static void
test_v1(void **state)
{
	(void)state;
	assert_int_equal(parse_text(line4), strlen(line4));
	assert_int_equal(header.version, 1);
	check_ends(AF_INET, "192.0.2.7", 40000, "203.0.113.9", 587);
	assert_int_equal(parse_text(line6), strlen(line6));
	check_ends(AF_INET6, "2001:db8::7", 65535, "2001:db8::9", 1);
	assert_int_equal(parse_text(longest), strlen(longest));
	assert_true(header.has_addresses);
	assert_false(header.tls);
}

static void
test_v1_leaves_what_follows(void **state)
{
	char text[256];

	(void)state;
	strcpy(text, line4);
	strcat(text, "EHLO client.example\r\nPROXY UNKNOWN\r\n");
	assert_int_equal(parse_text(text), strlen(line4));
}

/* The longest line that the protocol's text allows. */
#define LONGEST                                                   \
	"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff " \
	"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"

static void
test_v1_unknown(void **state)
{
	static const char *const lines[] = {
	    "PROXY UNKNOWN\r\n",
	    "PROXY UNKNOWN 192.0.2.7 203.0.113.9 40000 587\r\n",
	    "PROXY UNKNOWN whatever it  says\r\n",
	    LONGEST,
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		assert_int_equal(parse_text(lines[i]), strlen(lines[i]));
		assert_int_equal(header.version, 1);
		assert_false(header.has_addresses);
	}
	/* The longest that the protocol's text has, and one octet more. */
	assert_int_equal(strlen(lines[3]), 107);
	assert_int_equal(
	    parse_text("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
		       "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 "
		       "655355\r\n"),
	    -1);
}

static void
test_v1_refused(void **state)
{
	static const char *const lines[] = {
	    "EHLO client.example\r\n",
	    "GET / HTTP/1.1\r\n",
	    "PROXY\r\n",
	    "PROXY \r\n",
	    "PROXYTCP4",
	    "Proxy TCP4 192.0.2.7 203.0.113.9 40000 587\r\n",
	    "PROXY tcp4 192.0.2.7 203.0.113.9 40000 587\r\n",
	    "PROXY TCP5 192.0.2.7 203.0.113.9 40000 587\r\n",
	    "PROXY UDP4 192.0.2.7 203.0.113.9 40000 587\r\n",
	    "PROXY  TCP4 192.0.2.7 203.0.113.9 40000 587\r\n",
	    "PROXY TCP4 192.0.2.7  203.0.113.9 40000 587\r\n",
	    "PROXY TCP4\t192.0.2.7 203.0.113.9 40000 587\r\n",
	    "PROXY TCP4 192.0.2.7 203.0.113.9 40000 587 \r\n",
	    "PROXY TCP4 192.0.2.7 203.0.113.9 40000 587 more\r\n",
	    "PROXY TCP4 192.0.2.7 203.0.113.9 40000\r\n",
	    "PROXY TCP4 192.0.2.7 203.0.113.9 40000 \r\n",
	    "PROXY TCP4\r\n",
	    "PROXY TCP4 192.0.2.7 203.0.113.9 40000 65536\r\n",
	    "PROXY TCP4 192.0.2.7 203.0.113.9 -1 587\r\n",
	    "PROXY TCP4 192.0.2.7 203.0.113.9 +1 587\r\n",
	    "PROXY TCP4 192.0.2.7 203.0.113.9 0x10 587\r\n",
	    "PROXY TCP4 192.0.2.7 203.0.113.9 99999999999999999999999 1\r\n",
	    "PROXY TCP4 192.0.2 203.0.113.9 40000 587\r\n",
	    "PROXY TCP4 192.0.2.256 203.0.113.9 40000 587\r\n",
	    "PROXY TCP4 client.example 203.0.113.9 40000 587\r\n",
	    "PROXY TCP4 2001:db8::7 2001:db8::9 40000 587\r\n",
	    "PROXY TCP6 192.0.2.7 203.0.113.9 40000 587\r\n",
	    "PROXY TCP6 [2001:db8::7] 2001:db8::9 40000 587\r\n",
	    "PROXY TCP6 fe80::1%lo 2001:db8::9 40000 587\r\n",
	    "PROXY TCP4 192.0.2.7 203.0.113.9 40000 587\n",
	    "PROXY TCP4 192.0.2.7 203.0.113.9 40000 587\r\r\n",
	    "PROXY TCP4 192.0.2.7 203.0.113.9 40000\r587\r\n",
	    "PROXY UNKNOWNTCP4\r\n",
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		if (parse_text(lines[i]) != -1)
			fail_msg("taken: %s", lines[i]);
	/* A NUL ends no address. */
	assert_int_equal(
	    parse_bytes("PROXY TCP4 192.0.2.7\0 203.0.113.9 1 2\r\n", 39), -1);
	assert_int_equal(parse_bytes("PROXY UNKNOWN \0\r\n", 17), -1);
}

/* A line that does not end is over when it is too long, not before. */
static void
test_v1_without_end(void **state)
{
	char text[200];

	(void)state;
	memset(text, 'x', sizeof(text));
	memcpy(text, "PROXY ", 6);
	assert_int_equal(parse_bytes(text, 106), 0);
	assert_int_equal(parse_bytes(text, 107), -1);
	assert_int_equal(parse_bytes(text, sizeof(text)), -1);
}

/* --- version 2 ----------------------------------------------------------- */

static void
test_v2(void **state)
{
	(void)state;
	begin_inet();
	assert_int_equal(parse_made(), 28);
	assert_int_equal(header.version, 2);
	check_ends(AF_INET, "192.0.2.7", 40000, "203.0.113.9", 587);
	begin(1, 0x21);
	add_inet6();
	assert_int_equal(parse_made(), 52);
	check_ends(AF_INET6, "2001:db8::7", 40000, "2001:db8::9", 587);
	/* What follows is not the header's. */
	set_length();
	add("EHLO", 4);
	assert_int_equal(parse_bytes(made.p, made.len), 52);
}

/* No client that can be named: the connection is the proxy's own. */
static void
test_v2_without_addresses(void **state)
{
	static const unsigned char paths[216];
	static const unsigned families[] = {0x00, 0x12, 0x22, 0x31, 0x32};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
		begin(1, families[i]);
		if (families[i] >> 4 == 1)
			add_inet();
		else if (families[i] >> 4 == 2)
			add_inet6();
		else if (families[i] >> 4 == 3)
			add(paths, sizeof(paths));
		assert_int_equal(parse_made(), made.len);
		assert_false(header.has_addresses);
	}
	/* LOCAL: whatever it carries. */
	begin(0, 0x11);
	add_inet();
	add_tlv(0x20, "\001\0\0\0\0", 5);
	assert_int_equal(parse_made(), made.len);
	assert_int_equal(header.version, 2);
	assert_false(header.has_addresses);
	assert_false(header.tls);
	begin(0, 0x00);
	assert_int_equal(parse_made(), 16);
	begin(0, 0xff);
	add("junk", 4);
	assert_int_equal(parse_made(), 20);
	/* Not specified: its octets are skipped. */
	begin(1, 0x00);
	add("\377\377\377", 3);
	assert_int_equal(parse_made(), 19);
	assert_false(header.has_addresses);
}

static void
test_v2_refused(void **state)
{
	static const struct {
		size_t at;
		unsigned char value;
	} cases[] = {
	    {12, 0x11}, {12, 0x31}, {12, 0x22}, {12, 0x2f}, {13, 0x41},
	    {13, 0xf1}, {15, 11}, {15, 0},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		begin_inet();
		set_length();
		made.p[cases[i].at] = cases[i].value;
		assert_int_equal(parse_bytes(made.p, made.len), -1);
	}
	for (i = 0; i < 12; i++) {
		begin_inet();
		set_length();
		made.p[i] ^= 0x20;
		assert_int_equal(parse_bytes(made.p, made.len), -1);
		/* At that very octet, without waiting for more. */
		assert_int_equal(parse_bytes(made.p, i + 1), -1);
		assert_int_equal(parse_bytes(made.p, i), 0);
	}
	begin(1, 0x21);
	add_inet();
	assert_int_equal(parse_made(), -1);
	begin(1, 0x31);
	add_inet6();
	assert_int_equal(parse_made(), -1);
}

/* A length is believed up to the limit, and refused as soon as it is known. */
static void
test_v2_lengths(void **state)
{
	static const unsigned char zero[PROXY_HEADER_MAX];

	(void)state;
	begin_inet();
	add_tlv(0x04, zero, PROXY_HEADER_MAX - 28 - 3);
	assert_int_equal(made.len, PROXY_HEADER_MAX);
	assert_int_equal(parse_made(), PROXY_HEADER_MAX);
	assert_int_equal(parse_bytes(made.p, made.len - 1), 0);
	begin_inet();
	add_tlv(0x04, zero, PROXY_HEADER_MAX - 28 - 3 + 1);
	assert_int_equal(parse_made(), -1);
	assert_int_equal(parse_bytes(made.p, 16), -1);
	made.p[14] = made.p[15] = 0xff;
	assert_int_equal(parse_bytes(made.p, 16), -1);
	/* A TLV that would reach beyond the header, by one octet and by all. */
	begin_inet();
	add_tlv(0x04, zero, 10);
	made.p[30] = 11;
	assert_int_equal(parse_made(), -1);
	made.p[29] = made.p[30] = 0xff;
	assert_int_equal(parse_made(), -1);
	/* The beginning of one. */
	begin_inet();
	add("\004\000", 2);
	assert_int_equal(parse_made(), -1);
	begin_inet();
	add("\004", 1);
	assert_int_equal(parse_made(), -1);
}

static void
test_facts(void **state)
{
	unsigned char id[129];

	(void)state;
	begin_inet();
	add_tlv(0x01, "smtp", 4);
	add_tlv(0x02, "mail.example", 12);
	add_tlv(0x04, "\0\0", 2);
	add_tlv(0x05, "\x01\xab\xff", 3);
	add_tlv(0x30, "blue", 4);
	add_tlv(0xe0, "own", 3);
	assert_int_equal(parse_made(), made.len);
	assert_string_equal(header.alpn, "smtp");
	assert_string_equal(header.authority, "mail.example");
	assert_string_equal(header.unique_id, "01abff");
	assert_false(header.tls);
	begin_inet();
	add_tlv(0x05, "C0000207:9C40_0:1", 17);
	assert_int_equal(parse_made(), made.len);
	assert_string_equal(header.unique_id, "C0000207:9C40_0:1");
	/* Nothing of an earlier header stays. */
	begin_inet();
	assert_int_equal(parse_made(), made.len);
	assert_string_equal(header.alpn, "");
	assert_string_equal(header.authority, "");
	assert_string_equal(header.unique_id, "");
	/* The longest identifier; a longer one is left out. */
	memset(id, 0xa5, sizeof(id));
	begin_inet();
	add_tlv(0x05, id, sizeof(id) - 1);
	assert_int_equal(parse_made(), made.len);
	assert_int_equal(strlen(header.unique_id), 256);
	begin_inet();
	add_tlv(0x05, id, sizeof(id));
	assert_int_equal(parse_made(), made.len);
	assert_string_equal(header.unique_id, "");
}

/* Texts go to a log and to judges. */
static void
test_texts_that_are_left_out(void **state)
{
	static const struct {
		const char *text;
		size_t len;
	} names[] = {
	    {"mail.example\r\nX: y", 18}, {"mail\0.example", 13},
	    {"mail example", 12}, {"\177", 1}, {"", 0},
	    {"mail.example/..", 15}, {"m\303\244il.example", 13},
	};
	char name[300];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		begin_inet();
		add_tlv(0x02, names[i].text, names[i].len);
		assert_int_equal(parse_made(), made.len);
		assert_string_equal(header.authority, "");
	}
	memset(name, 'a', sizeof(name));
	begin_inet();
	add_tlv(0x01, name, sizeof(header.alpn));
	add_tlv(0x02, name, sizeof(name));
	assert_int_equal(parse_made(), made.len);
	assert_string_equal(header.alpn, "");
	assert_string_equal(header.authority, "");
	begin_inet();
	add_tlv(0x01, name, sizeof(header.alpn) - 1);
	assert_int_equal(parse_made(), made.len);
	assert_int_equal(strlen(header.alpn), sizeof(header.alpn) - 1);
}

/* --- TLS ----------------------------------------------------------------- */

/* TLV_SSL with what HAProxy puts into it; its own length is at `*at`. */
static void
add_ssl(unsigned client, const char *verify)
{
	struct made inner;
	const unsigned char octet = (unsigned char)client;

	inner = made;
	made.len = 0;
	add(&octet, 1);
	add(verify, 4);
	add_tlv(0x21, "TLSv1.3", 7);
	add_tlv(0x22, "alice", 5);
	add_tlv(0x23, "TLS_AES_256_GCM_SHA384", 22);
	add_tlv(0x24, "SHA256", 6);
	add_tlv(0x25, "RSA2048", 7);
	memcpy(inner.p + inner.len + 3, made.p, made.len);
	inner.p[inner.len] = 0x20;
	inner.p[inner.len + 1] = (unsigned char)(made.len >> 8);
	inner.p[inner.len + 2] = (unsigned char)made.len;
	inner.len += 3 + made.len;
	made = inner;
}

static void
test_tls(void **state)
{
	static const struct {
		unsigned client;
		const char *verify;
		bool tls, certificate, verified;
	} cases[] = {
	    {0x00, "\0\0\0\0", false, false, false},
	    {0x01, "\0\0\0\0", true, false, false},
	    /* One that only the connection, not this session, has. */
	    {0x03, "\0\0\0\0", true, false, false},
	    {0x05, "\0\0\0\0", true, true, true},
	    {0x07, "\0\0\0\0", true, true, true},
	    {0x07, "\0\0\0\001", true, true, false},
	    {0x07, "\001\0\0\0", true, true, false},
	    /* A certificate without TLS is none. */
	    {0x06, "\0\0\0\0", false, false, false},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		begin_inet();
		add_ssl(cases[i].client, cases[i].verify);
		assert_int_equal(parse_made(), made.len);
		assert_int_equal(header.tls, cases[i].tls);
		assert_int_equal(header.certificate, cases[i].certificate);
		assert_int_equal(header.verified, cases[i].verified);
		assert_string_equal(header.tls_version, "TLSv1.3");
		assert_string_equal(
		    header.tls_cipher, "TLS_AES_256_GCM_SHA384");
		assert_string_equal(header.common_name, "alice");
	}
}

static void
test_tls_broken(void **state)
{
	const size_t at = 28; /* of TLV_SSL */
	size_t n;

	(void)state;
	/* Cut short, with a length that agrees. */
	begin_inet();
	add_ssl(7, "\0\0\0\0");
	for (n = 0; made.len > at + 3; n++) {
		made.len--;
		made.p[at + 1] = 0;
		made.p[at + 2] = (unsigned char)(made.len - at - 3);
		if (made.len - at - 3 == 5 || made.p[at + 2] == 5 + 10 ||
		    made.p[at + 2] == 5 + 10 + 8 ||
		    made.p[at + 2] == 5 + 10 + 8 + 25 ||
		    made.p[at + 2] == 5 + 10 + 8 + 25 + 9)
			assert_int_equal(parse_made(), made.len);
		else
			assert_int_equal(parse_made(), -1);
	}
	assert_true(n > 50);
	/* One inside that reaches beyond it into what follows. */
	begin_inet();
	add_tlv(0x20, "\001\0\0\0\0\x22\0\x05" "ab", 10);
	add_tlv(0x04, "abcdef", 6);
	assert_int_equal(parse_made(), -1);
}

/* --- CRC32C -------------------------------------------------------------- */

/* Adds the sum's TLV, then `more` of another, and fills the sum in. */
static void
add_sum(size_t more)
{
	static const unsigned char zero[64];
	size_t at = made.len + 3;
	uint32_t sum;

	add_tlv(0x03, zero, 4);
	if (more > 0)
		add_tlv(0x04, zero, more);
	set_length();
	sum = htonl(crc32c_add(0, made.p, made.len));
	memcpy(made.p + at, &sum, sizeof(sum));
}

static void
test_sum(void **state)
{
	size_t i;

	(void)state;
	assert_int_equal(crc32c_add(0, "123456789", 9), 0xe3069283);
	assert_int_equal(
	    crc32c_add(crc32c_add(0, "1234", 4), "56789", 5), 0xe3069283);
	assert_int_equal(crc32c_add(0, "", 0), 0);
	for (i = 0; i < 3; i++) {
		begin_inet();
		add_tlv(0x05, "id", 2);
		add_sum(7 * i);
		assert_int_equal(parse_made(), made.len);
	}
	/* Whatever octet is changed: no header, or none with a sum. */
	for (i = 0; i < made.len; i++) {
		made.p[i] ^= 0x01;
		if (parse_bytes(made.p, made.len) > 0) {
			/* LOCAL; "not specified"; the TLV's own type */
			assert_true(i == 12 || i == 33);
		}
		made.p[i] ^= 0x01;
	}
	begin_inet();
	add_tlv(0x03, "\0\0\0", 3);
	assert_int_equal(parse_made(), -1);
	begin_inet();
	add_tlv(0x03, "\0\0\0\0\0", 5);
	assert_int_equal(parse_made(), -1);
	begin_inet();
	add_tlv(0x03, "", 0);
	assert_int_equal(parse_made(), -1);
}

/* --- in pieces, and spoilt ----------------------------------------------- */

/* Of the whole of `made` no beginning is taken, and none refused. */
static void
check_beginnings(void)
{
	size_t n;

	for (n = 0; n < made.len; n++)
		if (parse_bytes(made.p, n) != 0)
			fail_msg("%zu octets of %zu", n, made.len);
	assert_int_equal(parse_bytes(made.p, made.len), made.len);
}

static void
make_full(void)
{
	begin(1, 0x21);
	add_inet6();
	add_tlv(0x01, "smtp", 4);
	add_tlv(0x02, "mail.example", 12);
	add_tlv(0x05, "0123456789abcdef", 16);
	add_ssl(7, "\0\0\0\0");
	add_sum(9);
}

static void
test_beginnings(void **state)
{
	static const char *const lines[] = {
	    line4, line6, longest, "PROXY UNKNOWN\r\n"};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		made.len = 0;
		add(lines[i], strlen(lines[i]));
		check_beginnings();
	}
	begin_inet();
	set_length();
	check_beginnings();
	begin(0, 0);
	check_beginnings();
	make_full();
	check_beginnings();
}

/* No octet, whatever it becomes, makes the parser leave its input. */
static void
check_mutations(void)
{
	unsigned char was;
	ssize_t n;
	size_t i;
	int value;

	for (i = 0; i < made.len; i++) {
		was = made.p[i];
		for (value = 0; value < 256; value++) {
			made.p[i] = (unsigned char)value;
			n = parse_bytes(made.p, made.len);
			assert_in_range(n + 1, 0, made.len + 1);
			assert_true(memchr(header.alpn, '\0',
			    sizeof(header.alpn)) != NULL);
			assert_true(memchr(header.common_name, '\0',
			    sizeof(header.common_name)) != NULL);
		}
		made.p[i] = was;
	}
}

static void
test_mutations(void **state)
{
	(void)state;
	make_full();
	check_mutations();
	/* Without the sum, that catches most of it. */
	begin_inet();
	add_tlv(0x02, "mail.example", 12);
	add_ssl(7, "\0\0\0\0");
	set_length();
	check_mutations();
	made.len = 0;
	add(line4, strlen(line4));
	check_mutations();
}

/* --- written ------------------------------------------------------------- */

static void
set_end(struct sockaddr_storage *ss, const char *addr, uint16_t port)
{
	struct sockaddr_in *in = (struct sockaddr_in *)ss;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;

	memset(ss, 0, sizeof(*ss));
	if (inet_pton(AF_INET, addr, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
	} else {
		assert_int_equal(
		    inet_pton(AF_INET6, addr, &in6->sin6_addr), 1);
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
	}
}

static void
write_made(const struct proxy_header *h)
{
	unsigned char out[PROXY_HEADER_MAX];

	made.len = 0;
	add(out, proxy_header_write(h, out));
}

static void
check_text(const struct proxy_header *h, const char *text)
{
	write_made(h);
	assert_int_equal(made.len, strlen(text));
	assert_memory_equal(made.p, text, made.len);
}

static void
test_written_v1(void **state)
{
	struct proxy_header h = {.version = 1, .tls = true};

	(void)state;
	check_text(&h, "PROXY UNKNOWN\r\n");
	h.has_addresses = true;
	set_end(&h.source, "192.0.2.7", 40000);
	set_end(&h.destination, "203.0.113.9", 587);
	check_text(&h, line4);
	set_end(&h.source, "2001:db8::7", 65535);
	set_end(&h.destination, "2001:db8::9", 1);
	check_text(&h, line6);
	set_end(&h.source, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535);
	set_end(
	    &h.destination, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", 65535);
	check_text(&h, longest);
}

static void
test_written_v2(void **state)
{
	struct proxy_header h = {.version = 2, .has_addresses = true,
	    .alpn = "smtp", .authority = "mail.example",
	    .unique_id = "0123456789abcdef", .tls = true,
	    .tls_version = "TLSv1.3", .tls_cipher = "TLS_AES_256_GCM_SHA384",
	    .certificate = true, .verified = true, .common_name = "alice"};
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		set_end(&h.source, i ? "2001:db8::7" : "192.0.2.7", 40000);
		set_end(
		    &h.destination, i ? "2001:db8::9" : "203.0.113.9", 587);
		write_made(&h);
		check_beginnings();
		assert_memory_equal(&header, &h, sizeof(h));
	}
	/* One that is not good, and none. */
	h.verified = false;
	write_made(&h);
	check_beginnings();
	assert_memory_equal(&header, &h, sizeof(h));
	h.certificate = false;
	write_made(&h);
	check_beginnings();
	assert_string_equal(header.common_name, "");
	assert_true(header.tls && !header.certificate && !header.verified);
	/* In the clear: nothing of TLS. */
	h.tls = false;
	write_made(&h);
	check_beginnings();
	assert_string_equal(header.tls_version, "");
}

static void
test_written_local(void **state)
{
	const struct proxy_header h = {.version = 2, .tls = true};

	(void)state;
	begin(0, 0);
	write_made(&h);
	assert_int_equal(made.len, 16);
	assert_memory_equal(made.p, SIGNATURE "\x20\0\0\0", 16);
	check_beginnings();
}

/* As long as every part can be. */
static void
test_written_longest(void **state)
{
	struct proxy_header h = {.version = 2, .has_addresses = true,
	    .tls = true, .certificate = true};

	(void)state;
	set_end(&h.source, "2001:db8::7", 40000);
	set_end(&h.destination, "2001:db8::9", 587);
	memset(h.alpn, 'a', sizeof(h.alpn) - 1);
	memset(h.authority, 'b', sizeof(h.authority) - 1);
	memset(h.unique_id, 'c', sizeof(h.unique_id) - 1);
	memset(h.tls_version, 'd', sizeof(h.tls_version) - 1);
	memset(h.tls_cipher, 'e', sizeof(h.tls_cipher) - 1);
	memset(h.common_name, 'f', sizeof(h.common_name) - 1);
	write_made(&h);
	assert_true(made.len < PROXY_HEADER_MAX / 2);
	assert_int_equal(parse_bytes(made.p, made.len), made.len);
	assert_memory_equal(&header, &h, sizeof(h));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_v1),
	    cmocka_unit_test(test_v1_leaves_what_follows),
	    cmocka_unit_test(test_v1_unknown),
	    cmocka_unit_test(test_v1_refused),
	    cmocka_unit_test(test_v1_without_end),
	    cmocka_unit_test(test_v2),
	    cmocka_unit_test(test_v2_without_addresses),
	    cmocka_unit_test(test_v2_refused),
	    cmocka_unit_test(test_v2_lengths),
	    cmocka_unit_test(test_facts),
	    cmocka_unit_test(test_texts_that_are_left_out),
	    cmocka_unit_test(test_tls),
	    cmocka_unit_test(test_tls_broken),
	    cmocka_unit_test(test_sum),
	    cmocka_unit_test(test_beginnings),
	    cmocka_unit_test(test_mutations),
	    cmocka_unit_test(test_written_v1),
	    cmocka_unit_test(test_written_v2),
	    cmocka_unit_test(test_written_local),
	    cmocka_unit_test(test_written_longest),
	};

	return cmocka_run_group_tests_name("proxy-header", tests, NULL, NULL);
}
