/*
 * What systemd is told of a listener: readiness, reload, status line, watchdog.
 * Nothing, and no library, where it did not ask (NOTIFY_SOCKET).
 */
#ifndef NOTIFY_H
#define NOTIFY_H

#include <stdint.h>

enum notify_state {
	NOTIFY_READY,
	NOTIFY_RELOADING,
	NOTIFY_STOPPING
};

void notify_state(enum notify_state state);

/* The watchdog's sign of life, in a wait that is longer than the others. */
void notify_alive(void);

/* The status line, and with it the watchdog's sign of life. */
void notify_status(uint64_t sessions, uint64_t per_second, uint64_t refused);

#endif
