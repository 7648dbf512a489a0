/*
 * The PROXY protocol header in front of a connection: read to its last octet
 * and not one further, since what follows is the greeting's to see or TLS's.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/network.h"
#include "lib/text.h"

#include "peer.h"

/* Takes what was looked at already; it is there. */
static bool
consume(struct conn *c, size_t n)
{
	static unsigned char sink[PROXY_HEADER_MAX];

	return n == 0 || recv(c->rfd, sink, n, MSG_DONTWAIT) == (ssize_t)n;
}

/*
 * One look at what has come, behind `have` octets: how many there are now. A
 * pipe cannot be looked at without taking, so one octet is taken.
 */
static ssize_t
look(struct conn *c, unsigned char *buf, size_t have, size_t size)
{
	ssize_t n = c->is_socket
	    ? recv(c->rfd, buf + have, size - have, MSG_PEEK | MSG_DONTWAIT)
	    : read(c->rfd, buf + have, 1);

	return n > 0 ? (ssize_t)have + n : n;
}

/* The header by the connection's deadline. NULL, or why there is none. */
static const char *
read_header(struct conn *c, struct proxy_header *header)
{
	static unsigned char buf[PROXY_HEADER_MAX];
	size_t have = 0;
	ssize_t n, len = 0;

	while (len == 0) {
		switch (conn_wait(c, POLLIN)) {
		case CONN_OK:
			break;
		case CONN_STOPPED:
			return "stopped";
		case CONN_TIMEOUT:
			return "timeout";
		default:
			return "broken";
		}
		n = look(c, buf, have, sizeof(buf));
		if (n == -1 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0)
			return "left";
		len = proxy_header_parse(buf, (size_t)n, header);
		if (len == -1)
			return "proxy_protocol";
		/* All of it belongs to the header, or as much as it says. */
		if (c->is_socket &&
		    !consume(c, (size_t)(len == 0 ? n : len) - have))
			return "broken";
		have = (size_t)n;
	}
	return NULL;
}

/* The proxy's word about the client's TLS becomes the session's. */
static void
take_tls(struct session *s)
{
	struct proxy_header *h = &s->proxy;

	if (!h->tls)
		return;
	s->proxy_tls.protocol = h->tls_version;
	s->proxy_tls.cipher = h->tls_cipher;
	s->proxy_tls.server_name = h->authority;
	s->tls = &s->proxy_tls;
}

const char *
peer_receive_header(struct session *s)
{
	struct peer *peer = &s->peer;
	const char *reason;

	conn_set_timeout(&s->client, s->conf->timeout);
	reason = read_header(&s->client, &s->proxy);
	if (reason != NULL)
		return reason;
	peer->trusted = network_any(s->conf->set_real_ip_from.word,
	    s->conf->set_real_ip_from.count, &peer->sock);
	if (peer->trusted)
		take_tls(s);
	if (s->proxy.has_addresses)
		peer_take_header(peer, &s->proxy);
	return NULL;
}
