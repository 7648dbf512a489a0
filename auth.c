/*
 * The session's end of the channel to its keeper. One question at a time; the
 * answer takes the question's place, so that no copy of a password is left.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "auth.h"

/* Sends `m` and receives what comes back. 0, or -1 with M_REASON in `m`. */
static int
converse(int keeper, struct message *m, int64_t deadline)
{
	const char *reason = "the keeper has gone";
	int r;

	if (keeper == -1) {
		reason = "there is no keeper";
	} else if (message_send(keeper, m, deadline) == 0) {
		message_wipe(m);
		r = message_receive(keeper, m, deadline);
		if (r == 1)
			return 0;
		if (r == -1)
			reason = errno == ETIMEDOUT
			    ? "the keeper did not answer in time"
			    : "the keeper's answer is broken";
		/*
		 * An answer that comes late would be taken for the one to the
		 * next question, and a refused login be let in on it.
		 */
		(void)shutdown(keeper, SHUT_RDWR);
	}
	message_wipe(m);
	message_init(m, ANSWER_FAILURE);
	message_put(m, M_REASON, reason);
	return -1;
}

/* An answer that is not one to what was asked. */
static int
unexpected(struct message *m)
{
	const char *reason = "the keeper answered another question";
	char text[256];

	if (m->type == ANSWER_FAILURE && message_get(m, M_REASON) != NULL) {
		strncpy(text, message_get(m, M_REASON), sizeof(text) - 1);
		text[sizeof(text) - 1] = '\0';
		reason = text;
	}
	message_wipe(m);
	message_init(m, ANSWER_FAILURE);
	message_put(m, M_REASON, reason);
	return -1;
}

int
auth_question(int keeper, struct message *m, enum message_type expected,
    int64_t deadline)
{
	if (converse(keeper, m, deadline) == -1)
		return -1;
	return m->type == expected ? 0 : unexpected(m);
}

enum auth_answer
auth_ask(int keeper, struct message *m, int64_t deadline)
{
	enum message_type asked = m->type;

	if (converse(keeper, m, deadline) == -1)
		return AUTH_IS_UNAVAILABLE;
	if (m->type == ANSWER_CHALLENGE && asked != ASK_VERDICT &&
	    message_get(m, M_CHALLENGE) != NULL)
		return AUTH_IS_CHALLENGE;
	if (m->type != ANSWER_VERDICT) {
		(void)unexpected(m);
		return AUTH_IS_UNAVAILABLE;
	}
	/* Failing closed: only this very word is a success. */
	if (strcmp(message_text(m, M_RESULT), "accepted") == 0)
		return AUTH_IS_ACCEPTED;
	if (strcmp(message_text(m, M_RESULT), "denied") == 0)
		return AUTH_IS_DENIED;
	return AUTH_IS_UNAVAILABLE;
}
