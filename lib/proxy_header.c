/*
 * The PROXY protocol, read strictly: whoever may send one says who the client
 * is, and what is not exactly a header is refused whole. Pure: no I/O.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

#include "lib/crc32c.h"
#include "lib/proxy_header_format.h"
#include "lib/text.h"

#include "lib/proxy_header.h"

#define V1_MAX 107 /* with CRLF */

/* What follows the signature: command, family, length (2). */
#define V2_HEAD 16

/* A part of the header that is yet to be looked at. */
struct part {
	const unsigned char *p;
	size_t len;
};

/* --- version 1 ----------------------------------------------------------- */

static bool
take_port(const char *text, in_port_t *port)
{
	uint64_t number;

	if (text_number(text, 65535, &number) == -1)
		return false;
	*port = htons((uint16_t)number);
	return true;
}

static bool
take_end(int family, const char *addr, const char *port,
    struct sockaddr_storage *end)
{
	struct sockaddr_in *in = (struct sockaddr_in *)end;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)end;

	end->ss_family = (sa_family_t)family;
	if (family == AF_INET)
		return inet_pton(family, addr, &in->sin_addr) == 1 &&
		    take_port(port, &in->sin_port);
	return inet_pton(family, addr, &in6->sin6_addr) == 1 &&
	    take_port(port, &in6->sin6_port);
}

/* "PROXY TCP4 source destination port port", one blank between two. */
static bool
parse_line(char *line, struct proxy_header *h)
{
	char *word[6], *next = line;
	size_t n;
	int family;

	for (n = 0; n < 6 && next != NULL; n++)
		word[n] = strsep(&next, " ");
	if (n < 2 || strcmp(word[0], "PROXY") != 0)
		return false;
	/* Whatever else it says is to be ignored. */
	if (strcmp(word[1], "UNKNOWN") == 0)
		return true;
	family = strcmp(word[1], "TCP4") == 0 ? AF_INET
	    : strcmp(word[1], "TCP6") == 0    ? AF_INET6
					      : AF_UNSPEC;
	if (family == AF_UNSPEC || n != 6 || next != NULL)
		return false;
	h->has_addresses = take_end(family, word[2], word[4], &h->source) &&
	    take_end(family, word[3], word[5], &h->destination);
	return h->has_addresses;
}

static ssize_t
parse_v1(const unsigned char *p, size_t len, struct proxy_header *h)
{
	static const char start[] = "PROXY ";
	const unsigned char *lf;
	char line[V1_MAX];
	size_t n = sizeof(start) - 1;

	if (memcmp(p, start, len < n ? len : n) != 0)
		return -1;
	lf = memchr(p, '\n', len < V1_MAX ? len : V1_MAX);
	if (lf == NULL)
		return len < V1_MAX ? 0 : -1;
	n = (size_t)(lf - p);
	if (lf[-1] != '\r' || memchr(p, '\0', n) != NULL)
		return -1;
	memcpy(line, p, n - 1);
	line[n - 1] = '\0';
	h->version = 1;
	return parse_line(line, h) ? (ssize_t)n + 1 : -1;
}

/* --- version 2 ----------------------------------------------------------- */

static bool
take(struct part *from, size_t len, struct part *out)
{
	if (from->len < len)
		return false;
	*out = (struct part){from->p, len};
	from->p += len;
	from->len -= len;
	return true;
}

/* A type, a length in two octets, a value. */
static bool
take_tlv(struct part *from, unsigned *type, struct part *value)
{
	struct part head;

	if (!take(from, 3, &head))
		return false;
	*type = head.p[0];
	return take(from, (size_t)head.p[1] << 8 | head.p[2], value);
}

/* It goes to a log, and to judges: nothing in it may end a line. */
static void
take_text(const struct part *value, char *out, size_t size)
{
	size_t i;

	if (value->len >= size)
		return;
	for (i = 0; i < value->len; i++)
		if (value->p[i] < ' ' || value->p[i] == 0x7f)
			return;
	memcpy(out, value->p, value->len);
	out[value->len] = '\0';
}

/* An identifier as it is, for whoever looks for it in two logs, or its octets. */
static void
take_id(const struct part *value, char *out, size_t size)
{
	static const char digits[] = "0123456789abcdef";
	size_t i;

	for (i = 0; i < value->len && value->p[i] > ' '; i++)
		if (value->p[i] >= 0x7f)
			break;
	if (i == value->len) {
		take_text(value, out, size);
		return;
	}
	if (2 * value->len >= size)
		return;
	for (i = 0; i < value->len; i++) {
		*out++ = digits[value->p[i] >> 4];
		*out++ = digits[value->p[i] & 0xf];
	}
	*out = '\0';
}

/*
 * A client octet, the outcome of the verification in four (0: good), and TLVs.
 * A certificate counts when this very session has it, resumed or not.
 */
static bool
take_ssl(struct part value, struct proxy_header *h)
{
	static const unsigned char good[4];
	struct part head, sub;
	unsigned type;

	if (!take(&value, 5, &head))
		return false;
	h->tls = head.p[0] & PROXY_CLIENT_SSL;
	h->certificate = h->tls && head.p[0] & PROXY_CLIENT_CERT_SESS;
	h->verified = h->certificate && memcmp(head.p + 1, good, 4) == 0;
	while (value.len > 0) {
		if (!take_tlv(&value, &type, &sub))
			return false;
		if (type == PROXY_TLV_SSL_VERSION)
			take_text(
			    &sub, h->tls_version, sizeof(h->tls_version));
		else if (type == PROXY_TLV_SSL_CIPHER)
			take_text(&sub, h->tls_cipher, sizeof(h->tls_cipher));
		else if (type == PROXY_TLV_SSL_CN)
			take_text(
			    &sub, h->common_name, sizeof(h->common_name));
	}
	return true;
}

/* Of all `len` octets at `p`, with those of the sum itself taken as 0. */
static bool
is_intact(const unsigned char *p, size_t len, const struct part *sum)
{
	static const unsigned char zero[4];
	uint32_t crc, said;
	size_t before = (size_t)(sum->p - p);

	if (sum->len != sizeof(zero))
		return false;
	memcpy(&said, sum->p, sizeof(said));
	crc = crc32c_add(0, p, before);
	crc = crc32c_add(crc, zero, sizeof(zero));
	crc = crc32c_add(crc, sum->p + sum->len, len - before - sum->len);
	return ntohl(said) == crc;
}

static bool
take_tlvs(const unsigned char *p, size_t len, struct part rest,
    struct proxy_header *h)
{
	struct part value;
	unsigned type;

	while (rest.len > 0) {
		if (!take_tlv(&rest, &type, &value))
			return false;
		switch (type) {
		case PROXY_TLV_ALPN:
			take_text(&value, h->alpn, sizeof(h->alpn));
			break;
		case PROXY_TLV_AUTHORITY:
			take_text(&value, h->authority, sizeof(h->authority));
			if (!text_is_hostname(h->authority))
				h->authority[0] = '\0';
			break;
		case PROXY_TLV_CRC32C:
			if (!is_intact(p, len, &value))
				return false;
			break;
		case PROXY_TLV_UNIQUE_ID:
			take_id(&value, h->unique_id, sizeof(h->unique_id));
			break;
		case PROXY_TLV_SSL:
			if (!take_ssl(value, h))
				return false;
			break;
		default: /* NOOP, NETNS, and what is to come */
			break;
		}
	}
	return true;
}

/* Addresses of TCP over IPv4 or IPv6; those of another family are left out. */
static bool
take_addresses(unsigned family, struct part *rest, struct proxy_header *h)
{
	struct sockaddr_in *from = (struct sockaddr_in *)&h->source;
	struct sockaddr_in *to = (struct sockaddr_in *)&h->destination;
	struct sockaddr_in6 *from6 = (struct sockaddr_in6 *)&h->source;
	struct sockaddr_in6 *to6 = (struct sockaddr_in6 *)&h->destination;
	struct part all;

	switch (family >> 4) {
	case 0: /* not specified: what follows, TLVs included, is skipped */
		return take(rest, rest->len, &all);
	case 1:
		if (!take(rest, 12, &all))
			return false;
		h->has_addresses = (family & 0xf) == 1;
		from->sin_family = to->sin_family = AF_INET;
		memcpy(&from->sin_addr, all.p, 4);
		memcpy(&to->sin_addr, all.p + 4, 4);
		memcpy(&from->sin_port, all.p + 8, 2);
		memcpy(&to->sin_port, all.p + 10, 2);
		return true;
	case 2:
		if (!take(rest, 36, &all))
			return false;
		h->has_addresses = (family & 0xf) == 1;
		from6->sin6_family = to6->sin6_family = AF_INET6;
		memcpy(&from6->sin6_addr, all.p, 16);
		memcpy(&to6->sin6_addr, all.p + 16, 16);
		memcpy(&from6->sin6_port, all.p + 32, 2);
		memcpy(&to6->sin6_port, all.p + 34, 2);
		return true;
	case 3: /* two UNIX paths */
		return take(rest, 216, &all);
	default:
		return false;
	}
}

static ssize_t
parse_v2(const unsigned char *p, size_t len, struct proxy_header *h)
{
	struct part rest;
	size_t total;

	if (memcmp(p, PROXY_SIGNATURE,
		len < PROXY_SIGNATURE_LEN ? len : PROXY_SIGNATURE_LEN) != 0)
		return -1;
	if (len < V2_HEAD)
		return 0;
	/* Version 2, and of the commands LOCAL and PROXY. */
	total = V2_HEAD + ((size_t)p[14] << 8 | p[15]);
	if (p[12] >> 4 != 2 || (p[12] & 0xf) > 1 || total > PROXY_HEADER_MAX)
		return -1;
	if (len < total)
		return 0;
	h->version = 2;
	/* The proxy's own connection: it asks whether we live. */
	if ((p[12] & 0xf) == 0)
		return (ssize_t)total;
	rest = (struct part){p + V2_HEAD, total - V2_HEAD};
	if (!take_addresses(p[13], &rest, h) || !take_tlvs(p, total, rest, h))
		return -1;
	return (ssize_t)total;
}

/* ------------------------------------------------------------------------- */

ssize_t
proxy_header_parse(
    const unsigned char *p, size_t len, struct proxy_header *header)
{
	memset(header, 0, sizeof(*header));
	if (len == 0)
		return 0;
	return p[0] == 'P' ? parse_v1(p, len, header)
			   : parse_v2(p, len, header);
}
