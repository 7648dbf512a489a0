/*
 * The session's end of the channel to its keeper. One question at a time; the
 * answer takes the question's place, so that no copy of a password is left.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/text.h"

#include "auth.h"

int
auth_address(struct auth_channel *keeper, const char *path)
{
	keeper->keeper.sun_family = AF_UNIX;
	keeper->keeper_len = sizeof(keeper->keeper);
	return text_copy(keeper->keeper.sun_path,
	    sizeof(keeper->keeper.sun_path), path);
}

/*
 * Whether the other end may be told a password: it is root's, our own user's or
 * that of whoever owns the socket's file.
 */
static bool
is_trusted(const struct auth_channel *keeper)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	struct stat st;

	if (getsockopt(keeper->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == -1)
		return false;
	if (peer.uid == 0 || peer.uid == geteuid())
		return true;
	return keeper->keeper.sun_path[0] == '/' &&
	    stat(keeper->keeper.sun_path, &st) == 0 && st.st_uid == peer.uid;
}

void
auth_hang_up(struct auth_channel *keeper)
{
	if (keeper->fd != -1)
		(void)close(keeper->fd);
	keeper->fd = -1;
}

/* NULL when the channel is open, else why it is not. */
static const char *
open_channel(struct auth_channel *keeper)
{
	if (keeper->fd != -1)
		return NULL;
	if (keeper->keeper_len == 0)
		return "there is no keeper";
	keeper->fd = socket(
	    AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (keeper->fd == -1)
		return "no socket for the keeper";
	/* A queue that is full is a keeper that does not keep up. */
	if (connect(keeper->fd, (const struct sockaddr *)&keeper->keeper,
		keeper->keeper_len) == -1) {
		auth_hang_up(keeper);
		return "the keeper takes no questions";
	}
	if (!is_trusted(keeper)) {
		auth_hang_up(keeper);
		return "the keeper is another user's";
	}
	return NULL;
}

/* Leaves M_REASON alone in `m`. */
static int
no_answer(struct message *m, const char *reason)
{
	message_wipe(m);
	message_init(m, ANSWER_FAILURE);
	message_put(m, M_REASON, reason);
	return -1;
}

/* Sends `m` and receives what comes back. 0, or -1 with M_REASON in `m`. */
static int
converse(struct auth_channel *keeper, struct message *m, int64_t deadline)
{
	const char *reason = m->overflow ? "the question is too long"
					 : open_channel(keeper);
	int r;

	if (reason != NULL)
		return no_answer(m, reason);
	reason = "the keeper has gone";
	if (message_send(keeper->fd, m, deadline) == 0) {
		message_wipe(m);
		r = message_receive(keeper->fd, m, deadline);
		if (r == 1)
			return 0;
		if (r == -1)
			reason = errno == ETIMEDOUT
			    ? "the keeper did not answer in time"
			    : "the keeper's answer is broken";
	}
	/*
	 * An answer that comes late would be taken for the one to the next
	 * question, and a refused login be let in on it.
	 */
	auth_hang_up(keeper);
	return no_answer(m, reason);
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
	return no_answer(m, reason);
}

int
auth_question(struct auth_channel *keeper, struct message *m,
    enum message_type expected, int64_t deadline)
{
	if (converse(keeper, m, deadline) == -1)
		return -1;
	return m->type == expected ? 0 : unexpected(m);
}

enum auth_answer
auth_ask(struct auth_channel *keeper, struct message *m, int64_t deadline)
{
	enum message_type asked = m->type;
	size_t len;

	if (converse(keeper, m, deadline) == -1)
		return AUTH_IS_UNAVAILABLE;
	if (m->type == ANSWER_CHALLENGE && asked != ASK_VERDICT &&
	    message_get_bytes(m, M_CHALLENGE, &len) != NULL)
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
