/*
 * The greeting's wait. One poll loop for the clock, the client and the name
 * servers; nothing that the client sends is parsed.
 */
#include <poll.h>

#include "lib/clock.h"
#include "lib/text.h"

#include "greeting.h"

static const char early[] =
    "503 5.5.0 Improper use of SMTP command pipelining\r\n";

/* Whether the look-up is over; writes what became of it. */
static bool
name_is_known(struct session *s, struct dns *dns)
{
	if (dns == NULL)
		return true;
	switch (dns_reverse_result(dns, s->peer.host)) {
	case DNS_PENDING:
		return false;
	case DNS_FOUND:
		return true;
	case DNS_NOT_FOUND:
		(void)text_copy(
		    s->peer.host, sizeof(s->peer.host), "[UNAVAILABLE]");
		return true;
	case DNS_FAILED:
		break;
	}
	(void)text_copy(s->peer.host, sizeof(s->peer.host), "[TEMPUNAVAIL]");
	return true;
}

static struct dns *
begin_look_up(struct session *s)
{
	struct dns *dns;

	(void)text_copy(s->peer.host, sizeof(s->peer.host), "[UNAVAILABLE]");
	if (s->conf->resolver[0] == '\0')
		return NULL;
	if (s->peer.have_addr) {
		dns = dns_new(
		    s->conf->resolver, clock_in(s->conf->resolver_timeout));
		if (dns != NULL) {
			dns_reverse_start(
			    dns, (const struct sockaddr *)&s->peer.sock);
			return dns;
		}
	}
	(void)text_copy(s->peer.host, sizeof(s->peer.host), "[TEMPUNAVAIL]");
	return NULL;
}

/* Sleeps until the client (if `watch`), a name server or the clock stirs. */
static void
sleep_until(struct session *s, struct dns *dns, bool watch, int64_t until)
{
	struct pollfd fds[1 + DNS_MAX_POLLFDS];
	int timeout = clock_left(until), n = 0;

	fds[0].fd = watch ? s->client.rfd : -1;
	fds[0].events = POLLIN;
	fds[0].revents = 0;
	if (dns != NULL) {
		/* The delay may be over with the name still out. */
		if (timeout == 0)
			timeout = 1000;
		n = dns_poll_fds(dns, fds + 1, &timeout);
	}
	(void)conn_poll(fds, (nfds_t)n + 1, timeout);
	if (dns != NULL)
		dns_process(dns, fds + 1, n);
}

enum greeting
greeting_wait(struct session *s)
{
	int64_t until = clock_in(s->conf->smtp_greeting_delay);
	bool watch = s->conf->smtp_greeting_delay > 0;
	enum greeting result = GREETING_DUE;
	struct dns *dns = begin_look_up(s);
	bool known;
	int said;

	for (;;) {
		said = watch ? conn_peek(&s->client) : 0;
		if (said != 0) {
			result = said > 0 ? GREETING_EARLY : GREETING_LEFT;
			break;
		}
		if (conn_is_stopped()) {
			result = GREETING_STOPPED;
			break;
		}
		known = name_is_known(s, dns);
		if (known && clock_left(until) == 0)
			break;
		sleep_until(s, known ? NULL : dns, watch, until);
	}
	dns_free(dns);
	if (result == GREETING_EARLY)
		(void)conn_write(&s->client, early, sizeof(early) - 1);
	return result;
}
