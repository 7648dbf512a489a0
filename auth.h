/*
 * Asks the keeper: credentials in, a verdict out. A keeper that does not answer
 * in time, or answers something else than was asked, is unavailable; it is
 * never a success.
 */
#ifndef AUTH_H
#define AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/socket.h>
#include <sys/un.h>

#include "lib/message.h"

/*
 * The way to a keeper: a channel that is open, or the address of one that lives
 * on, to which a channel is opened by the first question.
 */
struct auth_channel {
	int fd; /* -1: not open */
	struct sockaddr_un keeper;
	socklen_t keeper_len; /* 0: there is no address */
};

enum auth_answer {
	AUTH_IS_ACCEPTED,
	AUTH_IS_DENIED,
	AUTH_IS_UNAVAILABLE,
	AUTH_IS_CHALLENGE /* an exchange goes on: the bytes of M_CHALLENGE */
};

/*
 * How long a verdict is waited for beyond what the provider may take by its own
 * deadline, in milliseconds.
 */
#define AUTH_GRACE 5000

/*
 * Sends `m` (ASK_VERDICT, ASK_EXCHANGE or ASK_STEP) to the keeper and receives
 * the answer in its place; the question, which holds the credentials, is wiped.
 * At AUTH_IS_UNAVAILABLE the message holds M_REASON alone; at AUTH_IS_ACCEPTED
 * M_CHALLENGE, where it is there, is the mechanism's last word to the client.
 */
enum auth_answer auth_ask(
    struct auth_channel *keeper, struct message *m, int64_t deadline);

/*
 * Any question: sends `m`, wipes it, receives the answer of type `expected`.
 * 0, or -1 when there is none; then `m` holds M_REASON alone.
 */
int auth_question(struct auth_channel *keeper, struct message *m,
    enum message_type expected, int64_t deadline);

/* Sets the address of a keeper that lives on: a path. 0, or -1: too long. */
int auth_address(struct auth_channel *keeper, const char *path);

/* Closes the channel. To an address, the next question opens another. */
void auth_hang_up(struct auth_channel *keeper);

#endif
