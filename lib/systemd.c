/*
 * The module's table. log.c loads it at the first event to the journal,
 * listen.c to tell systemd how it is.
 */
#define SD_JOURNAL_SUPPRESS_LOCATION

#include <systemd/sd-daemon.h>
#include <systemd/sd-journal.h>

#include "lib/systemd.h"

extern const struct systemd_api systemd_api;

static int
notify(const char *state)
{
	return sd_notify(0, state);
}

static int
watchdog(uint64_t *usec)
{
	return sd_watchdog_enabled(0, usec);
}

const struct systemd_api systemd_api = {
    .journal_send = sd_journal_sendv,
    .notify = notify,
    .watchdog = watchdog,
};
