/*
 * The module's table. log.c loads it at the first event.
 */
#define SD_JOURNAL_SUPPRESS_LOCATION

#include <systemd/sd-journal.h>

#include "lib/journal.h"

extern const struct journal_api journal_api;

const struct journal_api journal_api = {sd_journal_sendv};
