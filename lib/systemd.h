/*
 * libsystemd, in a module of its own (systemd.so): the library brings nine
 * others, which double the cost of a start, and a session that logs elsewhere
 * needs none of them.
 */
#ifndef LIB_SYSTEMD_H
#define LIB_SYSTEMD_H

#include <stdint.h>
#include <sys/uio.h>

struct systemd_api {
	/* sd_journal_sendv(3): one entry, a field an element. 0 or -errno. */
	int (*journal_send)(const struct iovec *fields, int count);
	/* sd_notify(3), the environment kept. */
	int (*notify)(const char *state);
	/* sd_watchdog_enabled(3): > 0 and *usec, 0 when it is off. */
	int (*watchdog)(uint64_t *usec);
};

#endif
