/*
 * The wait before the greeting: who talks first is no mail client
 * (smtp_greeting_delay). The peer's name is looked up meanwhile.
 */
#ifndef GREETING_H
#define GREETING_H

#include "facts.h"

enum greeting {
	GREETING_DUE,	/* it waited: greet */
	GREETING_EARLY, /* it talked: it was refused, and the reply flushed */
	GREETING_LEFT,	/* it has gone, or says that it will say nothing */
	GREETING_STOPPED /* the service ends: lib/conn.h */
};

/*
 * Waits for the delay and for the look-up of the client's name, whichever is
 * longer, and writes s->peer.host. Without a delay early bytes are ordinary
 * pipelined commands and stay unread.
 */
enum greeting greeting_wait(struct session *s);

#endif
