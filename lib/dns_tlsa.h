/*
 * TLSA records (RFC 6698): what a name's owner says of the certificates of its
 * server, where a resolver has validated that it is he who says it.
 */
#ifndef LIB_DNS_TLSA_H
#define LIB_DNS_TLSA_H

#include "dns.h"
#include "tls.h"

#define DNS_MAX_TLSA 8

enum dns_tlsa {
	DNS_TLSA_FOUND,	     /* validated ones */
	DNS_TLSA_NONE,	     /* there is none, or nobody vouches for them */
	DNS_TLSA_NOT_TRUSTED, /* not asked: the resolver is not on this host */
	DNS_TLSA_FAILED	     /* no answer: there may be some */
};

/*
 * The records for TCP port `port` of `host`, a name, by the deadline of `d`: at
 * most DNS_MAX_TLSA into `records`, and how many into *count. Of one whose data
 * is longer than TLS_MAX_TLSA nothing is kept. "system" servers are asked, too,
 * but none that is elsewhere than on this host: the bit that says that an
 * answer was validated (AD) can be set by whoever is between.
 */
enum dns_tlsa dns_tlsa_find(struct dns *d, const char *host, uint16_t port,
    struct tls_tlsa *records, size_t *count);

/*
 * The records in an answer of a name server, in the same way, whether they were
 * validated or not; -1 when it is not an answer, to its last octet.
 */
int dns_tlsa_parse(
    const unsigned char *answer, size_t len, struct tls_tlsa *records);

#endif
