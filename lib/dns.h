/*
 * Names and addresses, by c-ares: a look-up runs while its owner waits for
 * something else, and always ends by its deadline. What a name server says is
 * hostile: only names of letters, digits, '-' and '.' come out of here.
 */
#ifndef LIB_DNS_H
#define LIB_DNS_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define DNS_NAME_SIZE	 256
#define DNS_MAX_POLLFDS	 16
#define DNS_MAX_ADDRS	 16

struct dns;

enum dns_result {
	DNS_PENDING,
	DNS_FOUND,
	DNS_NOT_FOUND, /* an answer, and it is no: nginx's [UNAVAILABLE] */
	DNS_FAILED     /* no answer, or a bad one: nginx's [TEMPUNAVAIL] */
};

/*
 * `resolver`: blank-separated addresses of name servers, with :port if need be
 * ("127.0.0.1:5353 [::1]"), or "system" or "" for those of /etc/resolv.conf.
 * All look-ups of it end at `deadline`. NULL without memory, or for a bad list.
 */
struct dns *dns_new(const char *resolver, int64_t deadline);
void dns_free(struct dns *d);

/*
 * Begins the reverse look-up of `addr` and the forward look-up of the name it
 * gives. The result is DNS_FOUND only when the name's addresses hold `addr`
 * (an IPv4-mapped one counts as IPv4). One a struct dns.
 */
void dns_reverse_start(struct dns *d, const struct sockaddr *addr);

/*
 * What to poll: fills `fds` (DNS_MAX_POLLFDS) and lowers *timeout_ms if c-ares
 * wants to be called sooner. The number of fds.
 */
int dns_poll_fds(struct dns *d, struct pollfd *fds, int *timeout_ms);

/* After poll(2): goes on with what is ready. Call it when none is, too. */
void dns_process(struct dns *d, const struct pollfd *fds, int n);

/* How far it is; at DNS_FOUND `name` (DNS_NAME_SIZE octets) is filled. */
enum dns_result dns_reverse_result(struct dns *d, char *name);

struct dns_addr {
	struct sockaddr_storage addr;
	socklen_t len;
};

/*
 * The addresses of `host` (a name or a numeric address, without brackets) with
 * `port`, waiting for them by the deadline. /etc/hosts is heard as well. At
 * most `max`; returns how many, 0 for none, -1 when nobody answered.
 */
int dns_addresses(struct dns *d, const char *host, uint16_t port,
    struct dns_addr *addrs, int max);

#endif
