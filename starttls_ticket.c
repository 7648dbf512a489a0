/*
 * Keys for session tickets: the keeper's, who has them from files; or, in a
 * process that forks sessions, its own, which it makes, rotates and forgets.
 */
#include <string.h>
#include <syslog.h>
#include <time.h>

#include "auth.h"
#include "lib/clock.h"
#include "lib/log.h"

#include "starttls.h"

/* How long the keeper may take, in milliseconds. */
#define KEEPER_WAIT 10000

/* Of all contexts that this process has made or will make. */
static struct ticket_keys keys;
static bool are_own;

static int64_t
lifetime(const struct session *s)
{
	return s->conf->ssl_session_timeout / 1000;
}

/* 0, or -1 when it is not a list of keys. */
static int
take_keys(const unsigned char *p, size_t len, struct ticket_keys *out)
{
	struct ticket_key *key;

	memset(out, 0, sizeof(*out));
	while (len > 0 && out->count < TICKET_KEYS_MAX) {
		key = &out->key[out->count++];
		key->len = p[0];
		if ((key->len != 48 && key->len != TICKET_KEY_SIZE) ||
		    key->len > len - 1)
			return -1;
		memcpy(key->bytes, p + 1, key->len);
		p += 1 + key->len;
		len -= 1 + key->len;
	}
	return len == 0 ? 0 : -1;
}

/* What the keeper has. 0, or -1 with M_REASON in `m`. */
static int
ask_keeper(struct session *s, struct message *m, struct ticket_keys *out)
{
	const void *bytes;
	size_t len = 0;

	message_init(m, ASK_TICKETS);
	if (auth_question(
		&s->keeper, m, ANSWER_TICKETS, clock_in(KEEPER_WAIT)) == -1)
		return -1;
	bytes = message_get_bytes(m, M_TICKETS, &len);
	return take_keys(bytes, len, out);
}

static int
use_keys(struct session *s)
{
	char err[TLS_ERROR_SIZE] = "";

	if (keys.count == 0 ||
	    s->tls_api->server_tickets(
		s->tls_server, &keys, lifetime(s), err) == 0)
		return 0;
	log_event(LOG_ERR, "tls", "result", "failed", "reason", err, NULL);
	return -1;
}

int
starttls_tickets(struct session *s)
{
	static struct message m;
	struct ticket_keys given;
	int r;

	if (!s->conf->ssl_session_tickets)
		return 0;
	r = ask_keeper(s, &m, &given);
	if (r == -1)
		log_event(LOG_ERR, "tls", "result", "failed", "reason",
		    message_text(&m, M_REASON), NULL);
	else if (message_get(&m, M_REASON) != NULL)
		log_event(LOG_WARNING, "tls", "result", "no tickets", "reason",
		    message_get(&m, M_REASON), NULL);
	message_wipe(&m);
	if (r == 0 && (given.count > 0 || !are_own)) {
		keys = given;
		are_own = false;
	}
	ticket_wipe(&given);
	return r == -1 ? -1 : use_keys(s);
}

void
starttls_rotate_tickets(struct session *s)
{
	if (s->tls_server == NULL || !s->conf->ssl_session_tickets ||
	    (keys.count > 0 && !are_own))
		return;
	are_own = true;
	if (ticket_rotate(&keys, lifetime(s), time(NULL)) == 1)
		(void)use_keys(s);
}
