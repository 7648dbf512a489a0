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

/* Waits by the connection's deadline. 0, or -1 with s->cause. */
static int
await_more(struct session *s)
{
	switch (conn_wait(&s->client, POLLIN)) {
	case CONN_OK:
		return 0;
	case CONN_STOPPED:
		s->cause = "stopped";
		return -1;
	case CONN_TIMEOUT:
		s->cause = "timeout";
		return -1;
	default:
		return -1;
	}
}

/* The header by the connection's deadline. 0, or -1 with s->cause. */
static int
read_header(struct session *s)
{
	static unsigned char buf[PROXY_HEADER_MAX];
	struct conn *c = &s->client;
	size_t have = 0;
	ssize_t n, len = 0;

	while (len == 0) {
		if (await_more(s) == -1)
			return -1;
		n = look(c, buf, have, sizeof(buf));
		if (n == -1 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0) {
			s->cause = "left";
			return -1;
		}
		len = proxy_header_parse(buf, (size_t)n, &s->proxy);
		if (len == -1) {
			s->cause = "proxy_protocol";
			return -1;
		}
		/* All of it belongs to the header, or as much as it says. */
		if (c->is_socket &&
		    !consume(c, (size_t)(len == 0 ? n : len) - have))
			return -1;
		have = (size_t)n;
	}
	return 0;
}

/* "CN=" and the name, with what RFC 2253 section 2.4 has before characters. */
static void
write_subject(const char *name, char *out, size_t size)
{
	size_t n = 3;

	if (name[0] == '\0' || 2 * strlen(name) + n >= size)
		return;
	memcpy(out, "CN=", n);
	for (; *name != '\0'; name++) {
		if (strchr(",+\"\\<>;", *name) != NULL ||
		    (n == 3 && *name == '#') ||
		    (*name == ' ' && (n == 3 || name[1] == '\0')))
			out[n++] = '\\';
		out[n++] = *name;
	}
	out[n] = '\0';
}

/* The certificate that the client has shown to the proxy. */
static void
take_certificate(const struct proxy_header *h, struct tls_client *client)
{
	const char *p = h->common_name;

	client->state = TLS_CLIENT_NONE;
	(void)text_copy(client->verify, sizeof(client->verify), "NONE");
	if (!h->certificate)
		return;
	client->state = h->verified ? TLS_CLIENT_VERIFIED : TLS_CLIENT_BAD;
	(void)text_copy(client->verify, sizeof(client->verify),
	    h->verified ? "SUCCESS" : "FAILED:by the proxy");
	write_subject(
	    h->common_name, client->subject, sizeof(client->subject));
	/* Its character set is nobody's promise, but for ASCII. */
	while (*p > 0)
		p++;
	if (*p == '\0')
		(void)text_copy(client->identity[TLS_SUBJECT_CN],
		    TLS_IDENTITY_SIZE, h->common_name);
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
	s->proxy_tls.alpn = h->alpn;
	take_certificate(h, &s->proxy_client);
	s->proxy_tls.client = &s->proxy_client;
	s->tls = &s->proxy_tls;
}

int
peer_receive_header(struct session *s)
{
	struct peer *peer = &s->peer;

	conn_set_timeout(&s->client, s->conf->timeout);
	if (read_header(s) == -1) {
		/* What was not a header says nothing. */
		memset(&s->proxy, 0, sizeof(s->proxy));
		return -1;
	}
	peer->trusted = network_any(s->conf->set_real_ip_from.word,
	    s->conf->set_real_ip_from.count, &peer->sock);
	if (peer->trusted)
		take_tls(s);
	if (s->proxy.has_addresses)
		peer_take_header(peer, &s->proxy);
	return 0;
}
