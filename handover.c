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

/* Opens one upstream, by its name in the log. */
static enum upstream_result
open_one(struct session *s, struct handover *h, const char *name,
    int64_t deadline)
{
	struct upstream *up = &h->upstream;
	int fd;

	up->is_relay = name == NULL;
	up->committed = false;
	up->xclient = 0;
	if (up->is_relay && s->conf->relay == NULL) {
		(void)text_copy(up->reason, sizeof(up->reason),
		    "neither the verdict nor a directive names one");
		return UPSTREAM_FAILED;
	}
	if (up->is_relay) {
		fd = relay_start(&h->relay, s) == 0 ? h->relay.fd : -1;
		if (fd == -1)
			(void)text_copy(up->reason, sizeof(up->reason),
			    strerror(errno));
	} else {
		fd = h->backend =
		    backend_connect(s->conf, name, deadline, up->reason);
	}
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
	return upstream_introduce(s, up);
}

static void
log_upstream(const struct session *s, const struct upstream *up,
    const char *name, enum upstream_result r)
{
	static const char *const words[] = {[UPSTREAM_READY] = "ok",
	    [UPSTREAM_REFUSED] = "refused",
	    [UPSTREAM_FAILED] = "failed"};

	log_event(r == UPSTREAM_READY ? LOG_INFO : LOG_WARNING, "upstream",
	    "result", words[r], "backend",
	    name != NULL ? name : s->conf->relay != NULL ? s->conf->relay[0]
						  : NULL, "reason",
	    r == UPSTREAM_READY ? NULL : up->reason, NULL);
}

static void
close_backend(struct handover *h)
{
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
	if (s->mechanism != NULL)
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
