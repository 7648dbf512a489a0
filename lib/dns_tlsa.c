/*
 * The question for TLSA records and the parsing of what comes back, which c-ares
 * does not do. It does not say either whether an answer was validated: the bit
 * AD is asked for and read here (RFC 6840 section 5.7).
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "lib/dns_parts.h"

#include "lib/dns_tlsa.h"

#define HEADER	  12
#define QUESTION  4  /* what follows the name: type, class */
#define RECORD	  10 /* the same of a record: and TTL, length of the data */
#define LABEL_MAX 63
#define NAME_MAX_WIRE 255

#define TYPE_TLSA 52
#define CLASS_IN  1

/* Of the header's second pair of octets (RFC 1035 4.1.1, RFC 4035 3.1.6). */
#define FLAG_QR	   0x8000u
#define FLAG_TC	   0x0200u
#define FLAG_RD	   0x0100u
#define FLAG_AD	   0x0020u
#define MASK_RCODE 0x000fu
#define NXDOMAIN   3

/* Over TCP more could come; no set of records that is of use is so long. */
#define ANSWER_MAX 8192

static unsigned
pair(const unsigned char *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static void
put_pair(unsigned char *p, unsigned value)
{
	p[0] = (unsigned char)(value >> 8);
	p[1] = (unsigned char)value;
}

/* --- the question -------------------------------------------------------- */

/* A name as labels. Its length, 0 when it is none. */
static size_t
put_name(unsigned char *p, size_t size, const char *name)
{
	size_t used = 0, len;

	for (; *name != '\0'; name += len + (name[len] == '.')) {
		len = strcspn(name, ".");
		if (len == 0 || len > LABEL_MAX || used + len + 2 > size)
			return 0;
		p[used++] = (unsigned char)len;
		memcpy(p + used, name, len);
		used += len;
	}
	p[used++] = 0;
	return used;
}

/* Its length, or 0. */
static size_t
make_question(unsigned char *p, const char *host, uint16_t port)
{
	char name[DNS_NAME_SIZE + sizeof("_65535._tcp.")];
	size_t n;

	memset(p, 0, HEADER);
	/* Its number, which who is to answer shall not be able to guess. */
	if (getrandom(p, 2, 0) != 2)
		return 0;
	put_pair(p + 2, FLAG_RD | FLAG_AD);
	put_pair(p + 4, 1);
	(void)snprintf(name, sizeof(name), "_%u._tcp.%s", (unsigned)port, host);
	n = put_name(p + HEADER, NAME_MAX_WIRE, name);
	if (n == 0)
		return 0;
	put_pair(p + HEADER + n, TYPE_TLSA);
	put_pair(p + HEADER + n + 2, CLASS_IN);
	return HEADER + n + QUESTION;
}

/* --- the answer ---------------------------------------------------------- */

/* What is left of an answer. */
struct rest {
	const unsigned char *p;
	size_t len;
};

static bool
skip(struct rest *r, size_t n)
{
	if (n > r->len)
		return false;
	r->p += n;
	r->len -= n;
	return true;
}

/* A name is not looked at: a pointer in it is its end, and leads nowhere. */
static bool
skip_name(struct rest *r)
{
	while (r->len > 0 && r->p[0] != 0 && r->p[0] <= LABEL_MAX)
		if (!skip(r, 1u + r->p[0]))
			return false;
	if (r->len == 0)
		return false;
	if (r->p[0] == 0)
		return skip(r, 1);
	return (r->p[0] & 0xc0) == 0xc0 && skip(r, 2);
}

/* Usage, selector, matching type, data (RFC 6698 section 2.1). */
static bool
take_data(const unsigned char *p, size_t len, struct tls_tlsa *out)
{
	if (len <= 3 || len - 3 > sizeof(out->data))
		return false;
	out->usage = p[0];
	out->selector = p[1];
	out->matching = p[2];
	out->len = len - 3;
	memcpy(out->data, p + 3, out->len);
	return true;
}

/* The next record, which is kept if it is one of ours. False: it is broken. */
static bool
take_record(struct rest *r, struct tls_tlsa *records, int *count)
{
	const unsigned char *head;
	size_t len;

	if (!skip_name(r))
		return false;
	head = r->p;
	if (!skip(r, RECORD))
		return false;
	len = pair(head + 8);
	if (!skip(r, len))
		return false;
	if (pair(head) == TYPE_TLSA && pair(head + 2) == CLASS_IN &&
	    *count < DNS_MAX_TLSA &&
	    take_data(head + RECORD, len, &records[*count]))
		(*count)++;
	return true;
}

int
dns_tlsa_parse(
    const unsigned char *answer, size_t len, struct tls_tlsa *records)
{
	struct rest r = {answer, len};
	unsigned i, flags, rcode;
	int count = 0;

	if (!skip(&r, HEADER))
		return -1;
	flags = pair(answer + 2);
	rcode = flags & MASK_RCODE;
	if (!(flags & FLAG_QR) || (flags & FLAG_TC) ||
	    (rcode != 0 && rcode != NXDOMAIN) || pair(answer + 4) != 1)
		return -1;
	if (!skip_name(&r) || !skip(&r, QUESTION))
		return -1;
	/*
	 * Aliases may stand before them, and lead to the owner that they have:
	 * who is trusted to have validated the answer has followed them.
	 */
	for (i = 0; i < pair(answer + 6); i++)
		if (!take_record(&r, records, &count))
			return -1;
	return count;
}

enum dns_tlsa
dns_tlsa_find(struct dns *d, const char *host, uint16_t port,
    struct tls_tlsa *records, size_t *count)
{
	unsigned char question[HEADER + NAME_MAX_WIRE + QUESTION];
	unsigned char answer[ANSWER_MAX];
	size_t len = make_question(question, host, port);
	ssize_t got;
	int n;

	if (len == 0)
		return DNS_TLSA_NONE;
	if (!dns_is_local(d))
		return DNS_TLSA_NOT_TRUSTED;
	got = dns_exchange(d, question, len, answer, sizeof(answer));
	if (got == -1)
		return DNS_TLSA_FAILED;
	n = dns_tlsa_parse(answer, (size_t)got, records);
	if (n == -1)
		return DNS_TLSA_FAILED;
	if (n == 0 || !(pair(answer + 2) & FLAG_AD))
		return DNS_TLSA_NONE;
	*count = (size_t)n;
	return DNS_TLSA_FOUND;
}
