/*
 * The inside of config: what a row of the table is made of, and what the files
 * that make something of the rows owe each other. config*.c's alone.
 *
 *	config_table	the rows, and how they are found
 *	config_types	types of value: from text into the field and back
 *	config_clean	what the texts of single directives must be
 *	config_source	where each value came from, and complaints about it
 *	config_file	the format of --config files
 *	config_check	contradictions, and warnings of what is unsafe
 *	config_print	--help and --check
 */
#ifndef CONFIG_TABLE_H
#define CONFIG_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "config.h"

#define CONFIG_VARIABLE	 "SMTP_" /* what a variable's name begins with */
#define CONFIG_NO_MEMORY "not enough memory"

/* A word that a directive knows, and what it means in struct config. */
struct word {
	const char *name; /* NULL ends the list */
	unsigned value;
};

struct directive {
	const char *name; /* nginx's; argument and variable follow from it */
	const char *group; /* --help: its title; one pointer for all of it */
	const char *hint; /* --help: what its value looks like */
	const char *help; /* --help: lines of at most 72 characters */
	const struct type *type;
	size_t offset, size; /* its field of struct config */
	/*
	 * The default, as text. In parentheses: computed by the type. NULL: the
	 * row is another name for the one before it.
	 */
	const char *fallback;
	const char *wants; /* the reason a bad value is given */
	const struct word *words;
	uint64_t min, max; /* sizes in octets, times in ms */
	/*
	 * Judges a text, or an item of a list, and may put another in its
	 * place. The reason to refuse it, or NULL.
	 */
	const char *(*clean)(const char **text);
	bool secret; /* the value may be one: --check says so */
};

/* An argument that is no directive. */
struct option {
	const char *name;
	char letter;
	const char *hint, *help;
	size_t offset; /* a bool, but of --config, which has a hint */
};

/* A value on its way into its field. */
struct setting {
	const struct directive *d;
	const char *text;
	void *field;
	bool argument; /* of a list it is one item, as it stands */
	bool more; /* it adds to what an earlier argument gave */
};

struct type {
	/* The reason to refuse it, or NULL. */
	const char *(*parse)(const struct setting *s);
	/* Writes the value as parse() wants it from the environment. */
	void (*format)(FILE *out, const struct directive *d, const void *field);
	/* For a default in parentheses; *text is what a reason is about. */
	const char *(*compute)(
	    const struct directive *d, void *field, const char **text);
};

/* config_table.c */

#define CONFIG_TABLE_MAX 192 /* rows, of which a NULL name ends either table */
extern const struct directive config_table_rows[];
extern const struct option config_table_options[];

/* The row, or the option, that an argument of `len` letters names; or NULL. */
const struct directive *config_table_by_argument(const char *word, size_t len);
const struct option *config_table_option(const char *word, size_t len);

/* The row that a variable names; `key` begins with SMTP_. NULL for none. */
const struct directive *config_table_by_variable(const char *key, size_t len);

/* The row whose field it is: the first of those that share one. */
const struct directive *config_table_owner(size_t offset);

/* A directive's name as an argument; a row's as a variable. */
void config_table_argument(char *out, size_t size, const char *name);
void config_table_variable(char *out, size_t size, const struct directive *d);

/* config_types.c */

extern const struct type config_types_word; /* one of d->words */
extern const struct type config_types_set; /* any of them, as bits */
extern const struct type config_types_number;
extern const struct type config_types_size;
extern const struct type config_types_time;
extern const struct type config_types_text;
extern const struct type config_types_directory; /* a text */
extern const struct type config_types_list; /* texts */

/* The value as the environment would have it, allocated; NULL: no memory. */
char *config_types_value(const struct config *conf, const struct directive *d);

/* config_clean.c: as clean() of struct directive. */

const char *config_clean_server_name(const char **text);
const char *config_clean_listen(const char **text);
const char *config_clean_path(const char **text);
const char *config_clean_capability(const char **text);
const char *config_clean_network(const char **text);
const char *config_clean_backend(const char **text);
const char *config_clean_resolver(const char **text);
const char *config_clean_proxy_name(const char **text);
const char *config_clean_command(const char **text);
const char *config_clean_protocols(const char **text);
const char *config_clean_provider(const char **text);
const char *config_clean_auth_http(const char **text);
const char *config_clean_header(const char **text);
const char *config_clean_claim(const char **text);
const char *config_clean_scope(const char **text);

/* config_source.c */

enum origin {
	FROM_DEFAULT,
	FROM_FILE,
	FROM_ENVIRONMENT,
	FROM_ARGUMENT
};

struct source {
	enum origin from;
	const char *file; /* FROM_FILE, with the line */
	unsigned line;
	const struct directive *by; /* the row it was named by; NULL: none */
};

/* Forgets all of them: every value is the default. */
void config_source_reset(void);

/* Of the field of `d`, to be read or written. */
struct source *config_source_of(const struct directive *d);

/* "from the environment" and so on. */
void config_source_print(char *out, size_t size, const struct source *src);

/* The one form of all complaints about values, into `err`. */
void config_source_explain(char *err, const char *name, const char *value,
    const char *reason, const struct source *src);

/* config_file.c */

struct config_file {
	char *text; /* of the file */
	char *values; /* what is taken out of it */
	const char *at; /* in the text, which ends in a NUL */
	char *out; /* where the next octet of a value goes */
	unsigned line;
};

/* A line of the form KEY=value. */
struct assignment {
	const char *key; /* `len` octets of the text */
	size_t len;
	const char *value; /* NULL: there is no '=' in the line */
	unsigned line;
};

/* Reads all of the file. NULL, or the reason it cannot. */
const char *config_file_open(struct config_file *f, const char *path);

/* The next assignment; false at the end. */
bool config_file_next(struct config_file *f, struct assignment *a);

/* Values that config_file_next() gave stay where they are until exit. */
void config_file_close(struct config_file *f);

/* config_check.c */

/* CONFIG_BAD, with one line in `err`, when two directives contradict. */
enum config_result config_check_clashes(const struct config *conf, char *err);

/* A "# warning: ..." line for each unsafe setting. */
void config_check_warn(const struct config *conf, FILE *out);

#endif
