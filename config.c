/*
 * Loads the directives: arguments win over the environment, that over the
 * --config file, that over the default. It only reads and judges text: what a
 * directive does is the business of the stage that reads struct config, and no
 * file but the --config one is opened. main() calls it, once a process, so that
 * it is in the way of every connection: nothing is allocated for a default, and
 * a value that stays where it is (argv, environ) is not copied. What is
 * allocated lives until exit. The other files of it: config_table.h.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config_table.h"

static const char *file_name; /* of --config; NULL: none */
static char **unknown; /* variables, for config_unknown() */
static size_t unknown_count;

static enum config_result
refuse_usage(char *err, const char *word, const char *reason)
{
	char quoted[256];

	(void)snprintf(err, CONFIG_ERROR_SIZE,
	    "%s: %s (--help lists the arguments)",
	    log_quote(quoted, sizeof(quoted), word), reason);
	return CONFIG_USAGE;
}

static enum config_result
set(struct config *conf, const struct directive *d, const char *text,
    struct source src, char *err)
{
	struct source *old = config_source_of(d);
	struct setting s = {d, text, (char *)conf + d->offset,
	    src.from == FROM_ARGUMENT,
	    src.from == FROM_ARGUMENT && old->from == FROM_ARGUMENT};
	const char *wrong;
	char reason[128];

	src.by = d;
	if (old->by != NULL && old->by != d && old->from == src.from) {
		(void)snprintf(reason, sizeof(reason),
		    "means the same as %s, which is given too", old->by->name);
		config_source_explain(err, d->name, text, reason, &src);
		return CONFIG_BAD;
	}
	wrong = d->type->parse(&s);
	if (wrong == NULL) {
		*old = src;
		return CONFIG_OK;
	}
	config_source_explain(err, d->name, text, wrong, &src);
	return src.from == FROM_ARGUMENT ? CONFIG_USAGE : CONFIG_BAD;
}

/* Arguments. */

struct argument {
	const struct directive *d; /* or */
	const struct option *o;
	const char *value; /* NULL for an option that takes none */
};

/* Takes the argument at argv[*i], and its value, which may be the next word. */
static enum config_result
next_argument(char **argv, int *i, struct argument *arg, char *err)
{
	const char *word = argv[*i];
	size_t len = strcspn(word, "=");
	bool takes;

	*arg = (struct argument){NULL, NULL, NULL};
	if (len > 1) {
		arg->o = config_table_option(word, len);
		arg->d = config_table_by_argument(word, len);
	}
	if (arg->d == NULL && arg->o == NULL)
		return refuse_usage(err, word, "not an argument");
	takes = arg->d != NULL || arg->o->hint != NULL;
	if (word[len] == '=') {
		if (!takes)
			return refuse_usage(err, word, "takes no value");
		arg->value = word + len + 1;
	} else if (takes) {
		if (argv[*i + 1] == NULL || strcmp(argv[*i + 1], "--") == 0)
			return refuse_usage(err, word, "needs a value");
		arg->value = argv[++*i];
	}
	return CONFIG_OK;
}

static void
note_option(struct config *conf, const struct argument *arg)
{
	if (arg->value != NULL)
		file_name = arg->value;
	else
		*(bool *)((char *)conf + arg->o->offset) = true;
}

/*
 * Twice over the arguments: for the options (and whether all is well formed)
 * before the file is read, for the directives after the environment.
 */
static enum config_result
load_arguments(struct config *conf, char **argv, bool directives_too, char *err)
{
	struct source src = {.from = FROM_ARGUMENT};
	enum config_result result = CONFIG_OK;
	struct argument arg;
	int i;

	if (argv[0] == NULL)
		return CONFIG_OK;
	for (i = 1; argv[i] != NULL && result == CONFIG_OK; i++) {
		if (strcmp(argv[i], "--") == 0) {
			if (argv[i + 1] == NULL)
				return refuse_usage(
				    err, argv[i], "needs a program after it");
			conf->relay = &argv[i + 1];
			break;
		}
		result = next_argument(argv, &i, &arg, err);
		if (result == CONFIG_OK && arg.d == NULL)
			note_option(conf, &arg);
		else if (result == CONFIG_OK && directives_too)
			result = set(conf, arg.d, arg.value, src, err);
	}
	return result;
}

/* The environment. */

static bool
is_variable(const char *key)
{
	return strncmp(key, CONFIG_VARIABLE, strlen(CONFIG_VARIABLE)) == 0;
}

/* To be warned of. Without memory the warning is all that is lost. */
static void
remember_unknown(const char *key, size_t len)
{
	char **names = realloc(unknown, (unknown_count + 1) * sizeof(*names));

	if (names == NULL)
		return;
	unknown = names;
	unknown[unknown_count] = strndup(key, len);
	if (unknown[unknown_count] != NULL)
		unknown_count++;
}

static enum config_result
load_environment(struct config *conf, char *err)
{
	struct source src = {.from = FROM_ENVIRONMENT};
	enum config_result result = CONFIG_OK;
	const struct directive *d;
	size_t len;
	char **e;

	for (e = environ; e != NULL && *e != NULL; e++) {
		if (!is_variable(*e))
			continue;
		len = strcspn(*e, "=");
		d = config_table_by_variable(*e, len);
		if (d == NULL)
			remember_unknown(*e, len);
		else if ((*e)[len] == '=')
			result = set(conf, d, *e + len + 1, src, err);
		if (result != CONFIG_OK)
			return result;
	}
	return CONFIG_OK;
}

/* The file. */

static enum config_result
refuse_key(char *err, const struct assignment *a)
{
	char name[128], quoted_name[160], quoted_file[256];

	(void)snprintf(name, sizeof(name), "%.*s",
	    (int)(a->len < sizeof(name) ? a->len : sizeof(name)), a->key);
	(void)snprintf(err, CONFIG_ERROR_SIZE, "%s: %s (%s:%u)",
	    log_quote(quoted_name, sizeof(quoted_name), name),
	    a->value != NULL ? "not a directive"
			     : "there is no '=' in the line",
	    log_quote(quoted_file, sizeof(quoted_file), file_name), a->line);
	return CONFIG_BAD;
}

static enum config_result
take_assignments(struct config *conf, struct config_file *f, char *err)
{
	struct source src = {.from = FROM_FILE, .file = file_name};
	enum config_result result = CONFIG_OK;
	const struct directive *d;
	struct assignment a;

	while (result == CONFIG_OK && config_file_next(f, &a)) {
		if (!is_variable(a.key))
			continue;
		d = config_table_by_variable(a.key, a.len);
		if (d == NULL || a.value == NULL)
			return refuse_key(err, &a);
		src.line = a.line;
		result = set(conf, d, a.value, src, err);
	}
	return result;
}

static enum config_result
load_file(struct config *conf, char *err)
{
	static const struct directive config = {.name = "config"};
	struct source src = {.from = FROM_ARGUMENT, .by = &config};
	enum config_result result = CONFIG_BAD;
	struct config_file f;
	const char *wrong = config_file_open(&f, file_name);

	if (wrong == NULL)
		result = take_assignments(conf, &f, err);
	else
		config_source_explain(err, "config", file_name, wrong, &src);
	config_file_close(&f);
	return result;
}

static enum config_result
load_defaults(struct config *conf, char *err)
{
	const struct directive *d;
	struct setting s = {0};
	const char *wrong;

	for (d = config_table_rows; d->name != NULL; d++) {
		if (d->fallback == NULL ||
		    config_source_of(d)->from != FROM_DEFAULT)
			continue;
		s = (struct setting){.d = d,
		    .text = d->fallback,
		    .field = (char *)conf + d->offset};
		if (d->fallback[0] == '(')
			wrong = d->type->compute(d, s.field, &s.text);
		else
			wrong = d->type->parse(&s);
		if (wrong == NULL)
			continue;
		config_source_explain(
		    err, d->name, s.text, wrong, config_source_of(d));
		return CONFIG_BAD;
	}
	return CONFIG_OK;
}

enum config_result
config_load(struct config *conf, int argc, char **argv, char *err)
{
	enum config_result result;

	(void)argc;
	memset(conf, 0, sizeof(*conf));
	config_source_reset();
	file_name = NULL;
	unknown_count = 0;
	err[0] = '\0';
	result = load_arguments(conf, argv, false, err);
	if (result != CONFIG_OK || conf->help || conf->version)
		return result;
	if (file_name != NULL)
		result = load_file(conf, err);
	if (result == CONFIG_OK)
		result = load_environment(conf, err);
	if (result == CONFIG_OK)
		result = load_arguments(conf, argv, true, err);
	if (result == CONFIG_OK)
		result = load_defaults(conf, err);
	if (result == CONFIG_OK)
		result = config_check_clashes(conf, err);
	return result;
}

bool
config_listen_is_argument(void)
{
	const struct directive *d =
	    config_table_owner(offsetof(struct config, listen));

	return config_source_of(d)->from == FROM_ARGUMENT;
}

size_t
config_unknown_count(void)
{
	return unknown_count;
}

const char *
config_unknown(size_t i)
{
	return unknown[i];
}
