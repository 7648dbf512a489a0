/*
 * The keeper says how long a refusal waits; the wait is the session's, which
 * has nothing else to do.
 */
#include <poll.h>

#include "auth.h"
#include "lib/clock.h"
#include "smtp_offer.h"

#include "smtp_delay.h"

/* The longest wait that a provider may ask for. */
#define DELAY_MAX 60000

/*
 * Or all guesses could be sent at once with the end behind them, and none would
 * cost its time.
 */
bool
smtp_delay(struct session *s)
{
	struct pollfd pfd = {.fd = s->client.rfd, .events = POLLRDHUP};
	uint64_t ms = message_get_number(&s->verdict, M_DELAY, DELAY_MAX, 0);
	int64_t until = clock_in((int64_t)ms);

	if (ms == 0)
		return true;
	if (conn_flush(&s->client) != CONN_OK)
		return false;
	while (clock_left(until) > 0)
		if (poll(&pfd, 1, clock_left(until)) > 0)
			return false;
	return true;
}

bool
smtp_delay_misplaced(struct session *s)
{
	struct message *m = &s->verdict;
	bool stays;

	/* Nobody has anything to guess where nobody judges. */
	if (!s->conf->auth_penalty || s->conf->auth_provider[0] == '\0')
		return true;
	message_init(m, ASK_PENALTY);
	smtp_offer_facts(s, m);
	(void)auth_question(
	    &s->keeper, m, ANSWER_PENALTY, smtp_offer_deadline(s));
	stays = smtp_delay(s);
	message_wipe(m);
	return stays;
}
