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

#include "lib/message.h"

enum auth_answer {
	AUTH_IS_ACCEPTED,
	AUTH_IS_DENIED,
	AUTH_IS_UNAVAILABLE,
	AUTH_IS_CHALLENGE /* an exchange goes on: M_CHALLENGE */
};

/*
 * How long a verdict is waited for beyond what the provider may take by its own
 * deadline, in milliseconds.
 */
#define AUTH_GRACE 5000

/*
 * Sends `m` (ASK_VERDICT, ASK_EXCHANGE or ASK_STEP) to the keeper and receives
 * the answer in its place; the question, which holds the credentials, is wiped.
 * At AUTH_IS_UNAVAILABLE the message holds M_REASON alone.
 */
enum auth_answer auth_ask(int keeper, struct message *m, int64_t deadline);

/*
 * Any question: sends `m`, wipes it, receives the answer of type `expected`.
 * 0, or -1 when there is none; then `m` holds M_REASON alone.
 */
int auth_question(int keeper, struct message *m, enum message_type expected,
    int64_t deadline);

#endif
