/*
 * Where each value came from, for --check and for whoever has to mend it, and
 * the one form of all complaints about values. Which source wins is config.c's.
 */
#include <string.h>

#include "config_table.h"

static struct source sources[CONFIG_TABLE_MAX]; /* of the first of its rows */

void
config_source_reset(void)
{
	memset(sources, 0, sizeof(sources));
}

struct source *
config_source_of(const struct directive *d)
{
	return &sources[config_table_owner(d->offset) - config_table_rows];
}

void
config_source_print(char *out, size_t size, const struct source *src)
{
	char quoted[256], argument[64];

	switch (src->from) {
	case FROM_FILE:
		(void)snprintf(out, size, "from %s:%u",
		    log_quote(quoted, sizeof(quoted), src->file), src->line);
		break;
	case FROM_ENVIRONMENT:
		(void)snprintf(out, size, "from the environment");
		break;
	case FROM_ARGUMENT:
		config_table_argument(
		    argument, sizeof(argument), src->by->name);
		(void)snprintf(out, size, "from %s", argument);
		break;
	case FROM_DEFAULT:
		(void)snprintf(out, size, "the default");
		break;
	}
}

void
config_source_explain(char *err, const char *name, const char *value,
    const char *reason, const struct source *src)
{
	char quoted[256], source[320];
	const char *quote;

	config_source_print(source, sizeof(source), src);
	(void)log_quote(quoted, sizeof(quoted), value);
	quote = quoted[0] == '"' ? "" : "\"";
	(void)snprintf(err, CONFIG_ERROR_SIZE, "%s: value %s%s%s: %s (%s)",
	    name, quote, quoted, quote, reason, source);
}
