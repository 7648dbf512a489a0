/*
 * From a verdict to the copy: which upstream, the way to it, its introduction,
 * and the session given to it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <syslog.h>
#include <unistd.h>

#include "backend.h"
#include "counters.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/text.h"
#include "proxy.h"
#include "smtp.h"
#include "smtp_reply.h"

#include "handover.h"

/* How long a relay that has said its last may take to end. */
#define RELAY_WAIT 3000

/* TLS from here on; of struct upstream's secure() too. 0, or -1. */
static int
secure(void *arg)
{
	struct handover *h = arg;

	return backend_tls_connect(h->session, &h->how, &h->place,
	    &h->upstream.conn, h->upstream.reason);
}

/* Starts the relay. Its descriptor, or -1. */
static int
open_relay(struct session *s, struct handover *h)
{
	struct upstream *up = &h->upstream;

	h->how.mode = CONFIG_PROXY_SSL_OFF;
	if (s->conf->relay == NULL)
		(void)text_copy(up->reason, sizeof(up->reason),
		    "neither the verdict nor a directive names one");
	else if (relay_start(&h->relay, s) == 0)
		return h->relay.fd;
	else
		(void)text_copy(
		    up->reason, sizeof(up->reason), strerror(errno));
	return -1;
}

/* Connects to a backend. The descriptor, or -1. */
static int
open_backend(struct session *s, struct handover *h, const char *name,
    int64_t deadline)
{
	struct upstream *up = &h->upstream;

	if (backend_tls_choose(s, &h->how, up->reason) == -1)
		return -1;
	if (h->how.mode == CONFIG_PROXY_SSL_STARTTLS)
		up->secure = secure;
	h->backend = backend_connect(
	    s->conf, name, &h->place, deadline, up->reason);
	return h->backend;
}

/* Opens one upstream, by its name in the log. */
static enum upstream_result
open_one(struct session *s, struct handover *h, const char *name,
    int64_t deadline)
{
	struct upstream *up = &h->upstream;
	int fd;

	h->session = s;
	up->is_relay = name == NULL;
	up->committed = up->announced = false;
	up->xclient = 0;
	up->secure = NULL;
	up->secure_arg = h;
	fd = up->is_relay ? open_relay(s, h)
			  : open_backend(s, h, name, deadline);
	if (fd == -1)
		return UPSTREAM_FAILED;
	if (h->buffer == NULL)
		h->buffer = malloc(s->conf->proxy_buffer);
	if (h->buffer == NULL) {
		(void)text_copy(
		    up->reason, sizeof(up->reason), "out of memory");
		return UPSTREAM_FAILED;
	}
	conn_init(&up->conn, fd, fd, h->buffer, s->conf->proxy_buffer);
	up->conn.deadline = deadline;
	if (!up->is_relay && upstream_header(s, up) != UPSTREAM_READY)
		return UPSTREAM_FAILED;
	if (h->how.mode == CONFIG_PROXY_SSL_ON && secure(h) == -1)
		return UPSTREAM_FAILED;
	return upstream_introduce(s, up);
}

/* What the handshake with a backend has come to; NULL: there was none. */
static const struct tls_facts *
tls_facts(const struct upstream *up)
{
	if (up->conn.tls == NULL || up->conn.failed)
		return NULL;
	return up->conn.tls_api->facts(up->conn.tls);
}

static void
log_upstream(const struct session *s, const struct upstream *up,
    const char *name, enum upstream_result r)
{
	static const char *const words[] = {[UPSTREAM_READY] = "ok",
	    [UPSTREAM_REFUSED] = "refused",
	    [UPSTREAM_FAILED] = "failed"};

	const struct tls_facts none = {.protocol = NULL};
	const struct tls_facts *tls = tls_facts(up);

	if (tls == NULL)
		tls = &none;
	log_event(r == UPSTREAM_READY ? LOG_INFO : LOG_WARNING, "upstream",
	    "result", words[r], "backend",
	    name != NULL ? name : s->conf->relay != NULL ? s->conf->relay[0]
						  : NULL, "reason",
	    r == UPSTREAM_READY ? NULL : up->reason, "protocol",
	    tls->protocol, "cipher", tls->cipher, "group", tls->group,
	    "verified", tls->verified, "resumed",
	    tls == &none ? NULL : tls->resumed ? "yes" : "no", NULL);
}

static void
close_backend(struct handover *h)
{
	struct conn *c = &h->upstream.conn;

	if (c->tls != NULL)
		c->tls_api->free(c->tls);
	c->tls = NULL;
	if (h->backend != -1)
		(void)close(h->backend);
	h->backend = -1;
}

/*
 * The backends that may serve this session, in order: the verdict's, else the
 * list, else (NULL) the relay.
 */
static const char *
candidate(const struct session *s, size_t i, size_t *count)
{
	const char *routed = message_get(&s->verdict, M_BACKEND);

	*count = routed != NULL || s->conf->backend.count == 0
	    ? 1
	    : s->conf->backend.count;
	return routed != NULL		   ? routed
	    : s->conf->backend.count > 0 ? s->conf->backend.word[i]
					   : NULL;
}

/*
 * Opens the first upstream that takes the session, all within one deadline of
 * which each has its share. Once one was told who the client is, its no is no.
 */
enum upstream_result
handover_open(struct session *s, struct handover *h)
{
	int64_t deadline = clock_in(s->conf->proxy_connect_timeout);
	enum upstream_result r = UPSTREAM_FAILED;
	size_t i, count = 1;
	const char *name;

	counters_enter(STAGE_UPSTREAM);
	for (i = 0; i < count; i++) {
		name = candidate(s, i, &count);
		r = open_one(s, h, name,
		    clock_in((deadline - clock_ms()) / (int64_t)(count - i)));
		log_upstream(s, &h->upstream, name, r);
		if (r == UPSTREAM_READY)
			return r;
		if (h->backend != -1 || h->relay.started)
			upstream_leave(&h->upstream);
		close_backend(h);
		if (h->upstream.committed)
			break;
	}
	return r;
}

void
handover_run(struct session *s, struct handover *h)
{
	static const char *const causes[] = {
	    [PROXY_DONE] = "done",
	    [PROXY_CLIENT_LOST] = "broken",
	    [PROXY_UPSTREAM_LOST] = "upstream",
	    [PROXY_TIMEOUT] = "timeout",
	};
	struct proxy proxy = {
	    .client = &s->client,
	    .upstream = &h->upstream.conn,
	    .timeout_ms = s->conf->proxy_timeout,
	    .lost = smtp_reply(REPLY_UPSTREAM_LOST),
	    .idle = smtp_reply(REPLY_UPSTREAM_IDLE),
	};

	h->done = true;
	s->cause = "broken";
	s->status = EX_OK;
	counters_enter(STAGE_PROXY);
	conn_set_timeout(&s->client, s->conf->timeout);
	if (!upstream_has_envelope(s))
		smtp_welcome(s);
	else if (smtp_pass_on(s, h->upstream.words) == SMTP_OVER)
		return;
	if (conn_flush(&s->client) == CONN_OK)
		s->cause = causes[proxy_run(&proxy)];
	s->bytes_up = proxy.bytes_up;
	s->bytes_down = proxy.bytes_down;
	counters_add(COUNTER_BYTES_UP, proxy.bytes_up);
	counters_add(COUNTER_BYTES_DOWN, proxy.bytes_down);
}

void
handover_close(struct handover *h)
{
	relay_stop(&h->relay, h->done ? RELAY_WAIT : 0);
	close_backend(h);
}
