/*
 * --help and --check: the table as a person reads it, and the values as a
 * --config file that gives them again.
 */
#include <stdlib.h>
#include <string.h>

#include "config_table.h"

static const char intro[] =
    "Usage: smtp-frontd [DIRECTIVE...] [-- RELAY PROGRAM [ARGUMENT...]]\n"
    "\n"
    "Stands in front of a mail server for one SMTP connection, which it has\n"
    "as its standard input or from systemd: greets, speaks TLS,\n"
    "authenticates, and hands the session over to a backend or to a relay\n"
    "program.\n"
    "\n"
    "A directive is an argument (--max-errors 3), a variable of the\n"
    "environment (SMTP_MAX_ERRORS=3) or such a line in a --config file;\n"
    "arguments win over the environment, that over the file. An argument with\n"
    "... may be repeated, one item each; elsewhere its items are separated by\n"
    "blanks, with double quotes around one that has blanks itself. Sizes are\n"
    "as 4k or 1m, times as 500ms, 5s or 15m. Defaults are in brackets.\n";

static void
print_lines(FILE *out, const char *text)
{
	size_t len;

	for (;;) {
		len = strcspn(text, "\n");
		(void)fprintf(out, "      %.*s\n", (int)len, text);
		if (text[len] == '\0')
			return;
		text += len + 1;
	}
}

static void
print_row(FILE *out, const struct directive *d)
{
	char argument[64], head[128];

	config_table_argument(argument, sizeof(argument), d->name);
	(void)snprintf(head, sizeof(head), "  %s %s", argument, d->hint);
	if (d->fallback == NULL || d->fallback[0] == '\0')
		(void)fprintf(out, "%s\n", head);
	else if (d->fallback[0] == '(')
		(void)fprintf(out, "%-54s [%.*s]\n", head,
		    (int)strlen(d->fallback) - 2, d->fallback + 1);
	else
		(void)fprintf(out, "%-54s [%s]\n", head, d->fallback);
	print_lines(out, d->help);
}

void
config_print_help(FILE *out)
{
	const struct directive *d;
	const struct option *o;
	const char *group = NULL;

	(void)fputs(intro, out);
	(void)fputs("\nWhat to do\n", out);
	for (o = config_table_options; o->name != NULL; o++) {
		(void)fprintf(out, "  --%s", o->name);
		if (o->letter != '\0')
			(void)fprintf(out, ", -%c", o->letter);
		(void)fprintf(out, "%s%s\n", o->hint != NULL ? " " : "",
		    o->hint != NULL ? o->hint : "");
		print_lines(out, o->help);
	}
	for (d = config_table_rows; d->name != NULL; d++) {
		if (d->group != group)
			(void)fprintf(out, "\n%s\n", d->group);
		group = d->group;
		print_row(out, d);
	}
}

/* `text` for the file, so that config_file.c and systemd read it as it is. */
static void
print_quoted(FILE *out, const char *text)
{
	static const char plain[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	    "-_./:@,+%[]";

	if (text[strspn(text, plain)] == '\0') {
		(void)fputs(text, out);
		return;
	}
	if (strchr(text, '\'') == NULL) {
		(void)fprintf(out, "'%s'", text);
		return;
	}
	(void)fputc('"', out);
	for (; *text != '\0'; text++) {
		if (strchr("\"\\`$", *text) != NULL)
			(void)fputc('\\', out);
		(void)fputc(*text, out);
	}
	(void)fputc('"', out);
}

static void
print_value(FILE *out, const struct config *conf, const struct directive *d)
{
	char source[320], variable[64], *text = config_types_value(conf, d);

	if (text == NULL)
		return;
	config_source_print(source, sizeof(source), config_source_of(d));
	config_table_variable(variable, sizeof(variable), d);
	(void)fprintf(out, "# %s\n", source);
	if (d->secret && *text != '\0')
		(void)fputs("# (may hold a secret)\n", out);
	(void)fprintf(out, "%s=", variable);
	print_quoted(out, text);
	(void)fputc('\n', out);
	free(text);
}

void
config_print_check(const struct config *conf, FILE *out)
{
	const struct directive *d;
	char quoted[256];
	char **word;

	for (d = config_table_rows; d->name != NULL; d++)
		if (d->fallback != NULL)
			print_value(out, conf, d);
	if (conf->relay != NULL) {
		(void)fputs("# relay program:", out);
		for (word = conf->relay; *word != NULL; word++)
			(void)fprintf(out, " %s",
			    log_quote(quoted, sizeof(quoted), *word));
		/* After a backslash the next line would be a comment, too. */
		(void)fputs(" .\n", out);
	}
	config_check_warn(conf, out);
}
