/*
 * The PROXY protocol, written. Pure, and the counterpart of proxy_header.c,
 * which reads what is written here. What a proxy says of the client's TLS is
 * checked by nobody, so it says no more than it knows.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "lib/crc32c.h"
#include "lib/proxy_header_format.h"

#include "lib/proxy_header.h"

/* Everything in struct proxy_header, with the head of each: far below MAX. */
struct out {
	unsigned char *p;
	size_t len;
};

static void
put(struct out *out, const void *data, size_t len)
{
	memcpy(out->p + out->len, data, len);
	out->len += len;
}

/* Type and length of a TLV; where the latter is, for set_length(). */
static size_t
open_tlv(struct out *out, unsigned char type)
{
	put(out, &type, 1);
	put(out, "\0\0", 2);
	return out->len - 2;
}

static void
set_length(struct out *out, size_t at)
{
	const uint16_t len = htons((uint16_t)(out->len - at - 2));

	memcpy(out->p + at, &len, sizeof(len));
}

/* A text that is known. */
static void
put_text(struct out *out, unsigned char type, const char *text)
{
	size_t at;

	if (text[0] == '\0')
		return;
	at = open_tlv(out, type);
	put(out, text, strlen(text));
	set_length(out, at);
}

static void
put_tls(struct out *out, const struct proxy_header *h)
{
	unsigned char client = PROXY_CLIENT_SSL;
	/* 0 is for a certificate that is there and good, and nothing else. */
	uint32_t verify = htonl(h->verified ? 0 : 1);
	size_t at;

	if (!h->tls)
		return;
	if (h->certificate)
		client |= PROXY_CLIENT_CERT_CONN | PROXY_CLIENT_CERT_SESS;
	at = open_tlv(out, PROXY_TLV_SSL);
	put(out, &client, 1);
	put(out, &verify, sizeof(verify));
	put_text(out, PROXY_TLV_SSL_VERSION, h->tls_version);
	put_text(out, PROXY_TLV_SSL_CIPHER, h->tls_cipher);
	if (h->certificate)
		put_text(out, PROXY_TLV_SSL_CN, h->common_name);
	set_length(out, at);
}

/* Over all that is there, with the sum itself as 0. */
static void
put_sum(struct out *out, size_t length_at)
{
	uint32_t sum = 0;
	size_t at = open_tlv(out, PROXY_TLV_CRC32C);

	put(out, &sum, sizeof(sum));
	set_length(out, at);
	set_length(out, length_at);
	sum = htonl(crc32c_add(0, out->p, out->len));
	memcpy(out->p + out->len - sizeof(sum), &sum, sizeof(sum));
}

static void
put_addresses(struct out *out, const struct proxy_header *h)
{
	const struct sockaddr_in *from = (const void *)&h->source;
	const struct sockaddr_in *to = (const void *)&h->destination;
	const struct sockaddr_in6 *from6 = (const void *)&h->source;
	const struct sockaddr_in6 *to6 = (const void *)&h->destination;

	if (h->source.ss_family == AF_INET) {
		put(out, &from->sin_addr, 4);
		put(out, &to->sin_addr, 4);
	} else {
		put(out, &from6->sin6_addr, 16);
		put(out, &to6->sin6_addr, 16);
	}
	/* The port lies at the same place in both. */
	put(out, &from->sin_port, 2);
	put(out, &to->sin_port, 2);
}

static size_t
write_v2(const struct proxy_header *h, struct out *out)
{
	const unsigned char command = 0x20 | h->has_addresses;
	const unsigned char family = !h->has_addresses ? 0
	    : h->source.ss_family == AF_INET	       ? 0x11
						       : 0x21;
	size_t length_at;

	put(out, PROXY_SIGNATURE, PROXY_SIGNATURE_LEN);
	put(out, &command, 1);
	/* The header's own length follows its family as a TLV's its type. */
	length_at = open_tlv(out, family);
	if (!h->has_addresses)
		return out->len;
	put_addresses(out, h);
	put_text(out, PROXY_TLV_ALPN, h->alpn);
	put_text(out, PROXY_TLV_AUTHORITY, h->authority);
	put_text(out, PROXY_TLV_UNIQUE_ID, h->unique_id);
	put_tls(out, h);
	put_sum(out, length_at);
	return out->len;
}

static void
write_addr(const struct sockaddr_storage *ss, char *addr)
{
	const struct sockaddr_in *in = (const void *)ss;
	const struct sockaddr_in6 *in6 = (const void *)ss;

	(void)inet_ntop(ss->ss_family,
	    ss->ss_family == AF_INET ? (const void *)&in->sin_addr
				     : (const void *)&in6->sin6_addr,
	    addr, INET6_ADDRSTRLEN);
}

static size_t
write_v1(const struct proxy_header *h, struct out *out)
{
	const struct sockaddr_in *from = (const void *)&h->source;
	const struct sockaddr_in *to = (const void *)&h->destination;
	char source[INET6_ADDRSTRLEN], destination[INET6_ADDRSTRLEN];

	if (!h->has_addresses)
		return (size_t)snprintf(
		    (char *)out->p, PROXY_HEADER_MAX, "PROXY UNKNOWN\r\n");
	write_addr(&h->source, source);
	write_addr(&h->destination, destination);
	return (size_t)snprintf((char *)out->p, PROXY_HEADER_MAX,
	    "PROXY %s %s %s %u %u\r\n",
	    h->source.ss_family == AF_INET ? "TCP4" : "TCP6", source,
	    destination, ntohs(from->sin_port), ntohs(to->sin_port));
}

size_t
proxy_header_write(const struct proxy_header *header, unsigned char *out)
{
	struct out o = {.p = out};

	return header->version == 1 ? write_v1(header, &o)
				    : write_v2(header, &o);
}
