/*
 * Names and addresses, by c-ares. Owns the two look-ups that the program
 * needs: the verified name of a client, and the addresses of a backend; and
 * carries the questions of dns_tlsa.c. It
 * keeps no cache and reads no settings but the list of servers. c-ares is not
 * initialised before the first question that needs it, so a session that asks
 * nothing pays for nothing.
 *
 * The reverse look-up asks name servers only, for absolute names: neither
 * /etc/hosts nor a search domain may turn a stranger's PTR record into one of
 * our own names. The look-up of a backend is the administrator's, and hears
 * both.
 */
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ares.h>

#include "lib/clock.h"
#include "lib/dns_parts.h"
#include "lib/text.h"

#include "lib/dns.h"

#define MAX_SERVERS 8

/*
 * PTR records tried before we give up: each costs a question, and their number
 * is the peer's to choose.
 */
#define MAX_NAMES 4

/*
 * For servers of our own choice: the first retry after 2 s, then 4, 8 and 16,
 * which is resolver_timeout's default. For the system's servers the options in
 * /etc/resolv.conf hold.
 */
#define TRY_MS 2000
#define TRIES  4

#define DNS_PORT 53

_Static_assert(DNS_MAX_POLLFDS >= ARES_GETSOCK_MAXNUM,
    "every socket of c-ares can be polled");

/* The one reverse look-up. */
struct reverse {
	enum dns_result result;
	bool doubt; /* some name was bad, or nobody answered about it */
	int family;
	unsigned char addr[sizeof(struct in6_addr)];
	size_t addr_len;
	char names[MAX_NAMES][DNS_NAME_SIZE]; /* PTR's, fit for use */
	int count, at; /* names[at] is being looked up, or is the result */
};

/* The addresses being waited for. */
struct forward {
	bool pending;
	int count; /* -1: nobody answered */
	uint16_t port;
	struct dns_addr addrs[DNS_MAX_ADDRS];
};

/* The answer to a question of somebody else's making. */
struct raw {
	bool pending;
	unsigned char *answer;
	size_t size;
	ssize_t len; /* -1: there is none */
};

struct dns {
	int64_t deadline;
	struct ares_addr_port_node servers[MAX_SERVERS];
	int server_count; /* 0: the system's */
	ares_channel channel; /* NULL until it is needed */
	struct reverse reverse;
	struct forward forward;
	struct raw raw;
};

/* One of "192.0.2.1", "192.0.2.1:53", "2001:db8::1", "[2001:db8::1]:53". */
static int
parse_server(char *word, struct ares_addr_port_node *server)
{
	char *host = word, *port = NULL, *colon = strchr(word, ':'), *end;
	uint64_t number = DNS_PORT;

	if (*word == '[') {
		host = word + 1;
		end = strchr(host, ']');
		if (end == NULL || (end[1] != '\0' && end[1] != ':'))
			return -1;
		if (end[1] == ':')
			port = end + 2;
		*end = '\0';
	} else if (colon != NULL && strchr(colon + 1, ':') == NULL) {
		port = colon + 1;
		*colon = '\0';
	}
	if (port != NULL &&
	    (text_number(port, UINT16_MAX, &number) == -1 || number == 0))
		return -1;
	server->udp_port = server->tcp_port = (int)number;
	server->family =
	    *word == '[' || strchr(host, ':') != NULL ? AF_INET6 : AF_INET;
	return inet_pton(server->family, host, &server->addr) == 1 ? 0 : -1;
}

static int
parse_servers(struct dns *d, const char *list)
{
	char word[INET6_ADDRSTRLEN + sizeof("[]:65535")];
	int more;

	while ((more = text_word(&list, word, sizeof(word))) == 1) {
		if (d->server_count == MAX_SERVERS ||
		    parse_server(word, &d->servers[d->server_count]) == -1)
			return -1;
		if (d->server_count > 0)
			d->servers[d->server_count - 1].next =
			    &d->servers[d->server_count];
		d->server_count++;
	}
	return more;
}

struct dns *
dns_new(const char *resolver, int64_t deadline)
{
	struct dns *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return NULL;
	d->deadline = deadline;
	d->reverse.result = DNS_FAILED;
	if (!text_equal(resolver, "system") &&
	    parse_servers(d, resolver) == -1) {
		free(d);
		return NULL;
	}
	return d;
}

static void
stop(struct dns *d)
{
	if (d->channel == NULL)
		return;
	ares_destroy(d->channel);
	ares_library_cleanup();
	d->channel = NULL;
}

void
dns_free(struct dns *d)
{
	if (d == NULL)
		return;
	stop(d);
	free(d);
}

/* Makes c-ares ready, once. */
static int
start(struct dns *d)
{
	char lookups[] = "fb"; /* /etc/hosts, then the servers */
	struct ares_options options = {
	    .lookups = lookups, .timeout = TRY_MS, .tries = TRIES};
	int mask = ARES_OPT_LOOKUPS;

	if (d->channel != NULL)
		return 0;
	if (d->server_count > 0)
		mask |= ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES;
	if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
		return -1;
	if (ares_init_options(&d->channel, &options, mask) != ARES_SUCCESS) {
		d->channel = NULL;
		ares_library_cleanup();
		return -1;
	}
	if (d->server_count > 0 &&
	    ares_set_servers_ports(d->channel, d->servers) != ARES_SUCCESS) {
		stop(d);
		return -1;
	}
	return 0;
}

static bool
is_waiting(const struct dns *d)
{
	return d->channel != NULL &&
	       (d->reverse.result == DNS_PENDING || d->forward.pending ||
		   d->raw.pending);
}

/* Whether c-ares was told to stop: nothing more may be asked then. */
static bool
is_stopped(int status)
{
	return status == ARES_ECANCELLED || status == ARES_EDESTRUCTION;
}

/* Whether a server said that there is nothing, rather than nothing at all. */
static bool
is_no(int status)
{
	return status == ARES_ENOTFOUND || status == ARES_ENODATA;
}

/* Ends everything at the deadline, whatever the servers do. */
static void
expire(struct dns *d)
{
	if (!is_waiting(d) || clock_left(d->deadline) != 0)
		return;
	ares_cancel(d->channel);
	if (d->reverse.result == DNS_PENDING)
		d->reverse.result = DNS_FAILED;
	d->forward.pending = false;
	d->raw.pending = false;
}

static void
lower(int *timeout_ms, int ms)
{
	if (ms >= 0 && (*timeout_ms < 0 || ms < *timeout_ms))
		*timeout_ms = ms;
}

int
dns_poll_fds(struct dns *d, struct pollfd *fds, int *timeout_ms)
{
	ares_socket_t socks[ARES_GETSOCK_MAXNUM];
	struct timeval tv;
	unsigned bits;
	short events;
	int i, n = 0;

	if (!is_waiting(d))
		return 0;
	bits = (unsigned)ares_getsock(d->channel, socks, ARES_GETSOCK_MAXNUM);
	for (i = 0; i < ARES_GETSOCK_MAXNUM; i++) {
		events = 0;
		/* ares.h's own macros shift a signed 1 into the sign. */
		if (bits & 1u << i)
			events |= POLLIN;
		if (bits & 1u << (i + ARES_GETSOCK_MAXNUM))
			events |= POLLOUT;
		if (events != 0)
			fds[n++] = (struct pollfd){socks[i], events, 0};
	}
	lower(timeout_ms, clock_left(d->deadline));
	if (ares_timeout(d->channel, NULL, &tv) != NULL)
		lower(timeout_ms,
		    (int)(tv.tv_sec * 1000 + (tv.tv_usec + 999) / 1000));
	return n;
}

void
dns_process(struct dns *d, const struct pollfd *fds, int n)
{
	ares_socket_t rfd, wfd;
	int i;

	if (!is_waiting(d))
		return;
	for (i = 0; i < n; i++) {
		rfd = wfd = ARES_SOCKET_BAD;
		if (fds[i].revents & (POLLIN | POLLERR | POLLHUP))
			rfd = fds[i].fd;
		if (fds[i].revents & POLLOUT)
			wfd = fds[i].fd;
		if (rfd != ARES_SOCKET_BAD || wfd != ARES_SOCKET_BAD)
			ares_process_fd(d->channel, rfd, wfd);
	}
	/* What has waited long enough is sent again. */
	ares_process_fd(d->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	expire(d);
}

/*
 * Whether a PTR's name may be used. It will stand in headers, log lines and
 * commands to the backend, and its owner is the peer: letters, digits, '-' and
 * '.' are all that a host name needs (RFC 1123 section 2.1). c-ares writes any
 * other octet as a backslash and digits, which is refused as well.
 */
static bool
is_usable(const char *name)
{
	size_t len = strlen(name);

	return len > 0 && len < DNS_NAME_SIZE && text_is_hostname(name) &&
	       name[0] != '.' && strstr(name, "..") == NULL;
}

static void ask_about_name(struct dns *d);

/* Whether the addresses of an A or AAAA answer hold the peer's. */
static int
find_address(
    const struct reverse *r, const unsigned char *answer, int len, bool *found)
{
	struct hostent *host = NULL;
	int i, status;

	status = r->family == AF_INET
		     ? ares_parse_a_reply(answer, len, &host, NULL, NULL)
		     : ares_parse_aaaa_reply(answer, len, &host, NULL, NULL);
	if (status != ARES_SUCCESS)
		return status;
	for (i = 0; host->h_addr_list[i] != NULL && !*found; i++)
		*found =
		    memcmp(host->h_addr_list[i], r->addr, r->addr_len) == 0;
	ares_free_hostent(host);
	return status;
}

static void
addresses_came(
    void *arg, int status, int timeouts, unsigned char *answer, int len)
{
	struct dns *d = arg;
	struct reverse *r = &d->reverse;
	bool found = false;

	(void)timeouts;
	if (is_stopped(status)) {
		r->result = DNS_FAILED;
		return;
	}
	if (status == ARES_SUCCESS)
		status = find_address(r, answer, len, &found);
	if (found) {
		r->result = DNS_FOUND;
		return;
	}
	if (status != ARES_SUCCESS && !is_no(status))
		r->doubt = true;
	r->at++;
	ask_about_name(d);
}

/* Asks for the addresses of the next name, or ends for want of one. */
static void
ask_about_name(struct dns *d)
{
	struct reverse *r = &d->reverse;

	if (r->at == r->count) {
		r->result = r->doubt ? DNS_FAILED : DNS_NOT_FOUND;
		return;
	}
	ares_query(d->channel, r->names[r->at], ns_c_in,
	    r->family == AF_INET ? ns_t_a : ns_t_aaaa, addresses_came, d);
}

/*
 * Keeps the usable names of a PTR answer. c-ares refuses the whole answer when
 * one of its names is no host name.
 */
static int
keep_names(struct reverse *r, const unsigned char *answer, int len)
{
	struct hostent *host = NULL;
	int i, status;

	status = ares_parse_ptr_reply(answer, len, NULL, 0, r->family, &host);
	if (status != ARES_SUCCESS)
		return status;
	for (i = 0; host->h_aliases[i] != NULL && i < MAX_NAMES; i++) {
		if (is_usable(host->h_aliases[i]))
			(void)text_copy(r->names[r->count++], DNS_NAME_SIZE,
			    host->h_aliases[i]);
		else
			r->doubt = true;
	}
	ares_free_hostent(host);
	return status;
}

static void
names_came(void *arg, int status, int timeouts, unsigned char *answer, int len)
{
	struct dns *d = arg;
	struct reverse *r = &d->reverse;

	(void)timeouts;
	if (status == ARES_SUCCESS)
		status = keep_names(r, answer, len);
	if (status == ARES_SUCCESS)
		ask_about_name(d);
	else
		r->result = is_no(status) ? DNS_NOT_FOUND : DNS_FAILED;
}

/* Takes the peer's address; an IPv4-mapped one is IPv4's. */
static int
take_address(struct reverse *r, const struct sockaddr *addr)
{
	const struct sockaddr_in *v4 = (const void *)addr;
	const struct sockaddr_in6 *v6 = (const void *)addr;
	const unsigned char *at;

	if (addr->sa_family == AF_INET) {
		r->family = AF_INET;
		at = (const unsigned char *)&v4->sin_addr;
	} else if (addr->sa_family != AF_INET6) {
		return -1;
	} else if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
		r->family = AF_INET;
		at = v6->sin6_addr.s6_addr + 12;
	} else {
		r->family = AF_INET6;
		at = v6->sin6_addr.s6_addr;
	}
	r->addr_len = r->family == AF_INET ? sizeof(struct in_addr)
					   : sizeof(struct in6_addr);
	memcpy(r->addr, at, r->addr_len);
	return 0;
}

/* The name that the PTR records hang on (RFC 1035 3.5, RFC 3596 2.5). */
static void
reverse_name(const struct reverse *r, char *name, size_t size)
{
	size_t i, at = 0;

	if (r->family == AF_INET) {
		(void)snprintf(name, size, "%u.%u.%u.%u.in-addr.arpa",
		    r->addr[3], r->addr[2], r->addr[1], r->addr[0]);
		return;
	}
	for (i = sizeof(struct in6_addr); i-- > 0; at += 4)
		(void)snprintf(name + at, size - at, "%x.%x.", r->addr[i] & 0xf,
		    r->addr[i] >> 4);
	(void)snprintf(name + at, size - at, "ip6.arpa");
}

void
dns_reverse_start(struct dns *d, const struct sockaddr *addr)
{
	struct reverse *r = &d->reverse;
	char name[DNS_NAME_SIZE];

	if (take_address(r, addr) == -1 || start(d) == -1)
		return; /* it is DNS_FAILED from the beginning */
	r->result = DNS_PENDING;
	reverse_name(r, name, sizeof(name));
	ares_query(d->channel, name, ns_c_in, ns_t_ptr, names_came, d);
}

enum dns_result
dns_reverse_result(struct dns *d, char *name)
{
	const struct reverse *r = &d->reverse;

	expire(d);
	if (r->result == DNS_FOUND)
		(void)text_copy(name, DNS_NAME_SIZE, r->names[r->at]);
	return r->result;
}

/* The address that `host` is, if it is one. */
static bool
is_numeric(const char *host, uint16_t port, struct dns_addr *out)
{
	struct dns_addr a = {.len = 0};
	struct sockaddr_in *v4 = (void *)&a.addr;
	struct sockaddr_in6 *v6 = (void *)&a.addr;

	if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		a.len = sizeof(*v4);
	} else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		a.len = sizeof(*v6);
	} else {
		return false;
	}
	*out = a;
	return true;
}

/* Keeps one address of an answer, with the port that was asked for. */
static void
keep_address(struct forward *f, const struct ares_addrinfo_node *node)
{
	struct dns_addr *a = &f->addrs[f->count];
	uint16_t port = htons(f->port);

	memset(a, 0, sizeof(*a));
	if (node->ai_family == AF_INET &&
	    node->ai_addrlen == sizeof(struct sockaddr_in)) {
		memcpy(&a->addr, node->ai_addr, node->ai_addrlen);
		((struct sockaddr_in *)&a->addr)->sin_port = port;
	} else if (node->ai_family == AF_INET6 &&
		   node->ai_addrlen == sizeof(struct sockaddr_in6)) {
		memcpy(&a->addr, node->ai_addr, node->ai_addrlen);
		((struct sockaddr_in6 *)&a->addr)->sin6_port = port;
	} else {
		return;
	}
	a->len = node->ai_addrlen;
	f->count++;
}

static void
backend_came(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
	struct dns *d = arg;
	struct forward *f = &d->forward;
	const struct ares_addrinfo_node *node;

	(void)timeouts;
	f->pending = false;
	if (status != ARES_SUCCESS) {
		f->count = is_no(status) ? 0 : -1;
		return;
	}
	f->count = 0;
	for (node = info->nodes; node != NULL && f->count < DNS_MAX_ADDRS;
	     node = node->ai_next)
		keep_address(f, node);
	ares_freeaddrinfo(info);
}

/* Waits for the end of one look-up, which comes by the deadline. */
static void
wait_while(struct dns *d, const bool *pending)
{
	struct pollfd fds[DNS_MAX_POLLFDS];
	int n, timeout_ms;

	while (*pending) {
		timeout_ms = -1;
		n = dns_poll_fds(d, fds, &timeout_ms);
		if (poll(fds, (nfds_t)n, timeout_ms) == -1)
			n = 0; /* EINTR: nothing is ready */
		dns_process(d, fds, n);
	}
}

int
dns_addresses(struct dns *d, const char *host, uint16_t port,
    struct dns_addr *addrs, int max)
{
	struct ares_addrinfo_hints hints = {
	    .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct forward *f = &d->forward;

	if (max < 1)
		return 0;
	if (is_numeric(host, port, addrs))
		return 1;
	if (*host == '\0' || strlen(host) >= DNS_NAME_SIZE)
		return 0;
	if (start(d) == -1)
		return -1;
	*f = (struct forward){.pending = true, .count = -1, .port = port};
	ares_getaddrinfo(d->channel, host, NULL, &hints, backend_came, d);
	wait_while(d, &f->pending);
	if (f->count > max)
		f->count = max;
	if (f->count > 0)
		memcpy(addrs, f->addrs, (size_t)f->count * sizeof(*addrs));
	return f->count;
}

static void
answer_came(void *arg, int status, int timeouts, unsigned char *answer, int len)
{
	struct dns *d = arg;
	struct raw *r = &d->raw;

	(void)timeouts;
	r->pending = false;
	if (status != ARES_SUCCESS || len < 0 || (size_t)len > r->size)
		return;
	memcpy(r->answer, answer, (size_t)len);
	r->len = len;
}

ssize_t
dns_exchange(struct dns *d, const unsigned char *question, size_t len,
    unsigned char *answer, size_t size)
{
	if (start(d) == -1)
		return -1;
	d->raw = (struct raw){
	    .pending = true, .answer = answer, .size = size, .len = -1};
	ares_send(d->channel, question, (int)len, answer_came, d);
	wait_while(d, &d->raw.pending);
	return d->raw.len;
}

static bool
is_loopback(const struct ares_addr_port_node *server)
{
	if (server->family == AF_INET)
		return ntohl(server->addr.addr4.s_addr) >> 24 == IN_LOOPBACKNET;
	return IN6_IS_ADDR_LOOPBACK(
	    (const struct in6_addr *)(const void *)&server->addr.addr6);
}

bool
dns_is_local(struct dns *d)
{
	struct ares_addr_port_node *servers = NULL;
	const struct ares_addr_port_node *s;
	bool local;

	if (start(d) == -1 ||
	    ares_get_servers_ports(d->channel, &servers) != ARES_SUCCESS)
		return false;
	local = servers != NULL;
	for (s = servers; s != NULL && local; s = s->next)
		local = is_loopback(s);
	ares_free_data(servers);
	return local;
}
