/*
 * The PROXY header that says to a backend whose session comes: the first octets
 * of the connection, before TLS with the backend, where there is any.
 */
#include <string.h>

#include "lib/proxy_header.h"
#include "lib/text.h"

#include "upstream.h"

/* What is known of the client's certificate. */
static void
take_certificate(const struct tls_client *client, struct proxy_header *h)
{
	if (client == NULL || client->state == TLS_CLIENT_NONE)
		return;
	h->certificate = true;
	h->verified = client->state == TLS_CLIENT_VERIFIED;
	(void)text_copy(h->common_name, sizeof(h->common_name),
	    client->identity[TLS_SUBJECT_CN]);
}

/* What does not fit is left out: it is the backend's to log, no more. */
static void
take_tls(const struct tls_facts *tls, struct proxy_header *h)
{
	if (tls == NULL)
		return;
	h->tls = true;
	(void)text_copy(
	    h->tls_version, sizeof(h->tls_version), tls->protocol);
	(void)text_copy(h->tls_cipher, sizeof(h->tls_cipher), tls->cipher);
	(void)text_copy(h->authority, sizeof(h->authority), tls->server_name);
	(void)text_copy(h->alpn, sizeof(h->alpn), tls->alpn);
	take_certificate(tls->client, h);
}

enum upstream_result
upstream_header(const struct session *s, struct upstream *up)
{
	unsigned char out[PROXY_HEADER_MAX];
	struct proxy_header h = {
	    .version = s->conf->proxy_protocol == CONFIG_PROXY_PROTOCOL_ON
		? 1
		: 2,
	    .has_addresses = s->peer.have_addr &&
		s->peer.local.ss_family == s->peer.sock.ss_family,
	    .source = s->peer.sock,
	    .destination = s->peer.local,
	};

	if (s->conf->proxy_protocol == CONFIG_PROXY_PROTOCOL_OFF)
		return UPSTREAM_READY;
	(void)text_copy(h.unique_id, sizeof(h.unique_id), s->id);
	take_tls(s->tls, &h);
	(void)conn_write(&up->conn, out, proxy_header_write(&h, out));
	up->announced = true;
	if (conn_flush(&up->conn) == CONN_OK)
		return UPSTREAM_READY;
	(void)text_copy(up->reason, sizeof(up->reason),
	    "PROXY header: connection lost");
	return UPSTREAM_FAILED;
}
