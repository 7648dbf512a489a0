/*
 * sd_notify(3), by the module that has libsystemd.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/module.h"
#include "lib/systemd.h"

#include "notify.h"

static void
tell(const char *text)
{
	const struct systemd_api *systemd;
	char err[256];

	if (getenv("NOTIFY_SOCKET") == NULL)
		return;
	systemd = module_load("systemd", "systemd_api", err, sizeof(err));
	if (systemd != NULL)
		(void)systemd->notify(text);
}

void
notify_state(enum notify_state state)
{
	static const char *const texts[] = {
	    [NOTIFY_READY] = "READY=1",
	    [NOTIFY_RELOADING] = "RELOADING=1",
	    [NOTIFY_STOPPING] = "STOPPING=1",
	};

	tell(texts[state]);
}

void
notify_alive(void)
{
	tell("WATCHDOG=1");
}

void
notify_status(uint64_t sessions, uint64_t per_second, uint64_t refused)
{
	char text[256];

	(void)snprintf(text, sizeof(text),
	    "STATUS=%" PRIu64 " sessions, %" PRIu64 " a second, %" PRIu64
	    " refused\nWATCHDOG=1",
	    sessions, per_second, refused);
	tell(text);
}
