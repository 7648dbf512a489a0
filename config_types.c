/*
 * The types of value: how a text becomes the field of struct config, and the
 * field a text again for --check. What is particular to one directive is in its
 * row, or in its clean(). A text is not copied, for it stays where it is (argv,
 * environ, a file's values); the items of lists are.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/text.h"

#include "config_table.h"

#define WORD_SIZE 4096

_Static_assert(sizeof(enum config_starttls) == sizeof(unsigned) &&
		   sizeof(enum config_xclient) == sizeof(unsigned) &&
		   sizeof(enum config_relay_at) == sizeof(unsigned) &&
		   sizeof(enum log_target) == sizeof(unsigned),
    "store() and load() take enumerations for unsigned");

/* Booleans and enumerations are what they are named; the rest is unsigned. */
static void
store(const struct directive *d, void *field, unsigned value)
{
	if (d->size == sizeof(bool))
		*(bool *)field = value != 0;
	else
		*(unsigned *)field = value;
}

static unsigned
load(const struct directive *d, const void *field)
{
	if (d->size == sizeof(bool))
		return *(const bool *)field;
	return *(const unsigned *)field;
}

static const struct word *
find_word(const struct directive *d, const char *name)
{
	const struct word *w;

	for (w = d->words; w->name != NULL; w++)
		if (text_equal(w->name, name))
			return w;
	return NULL;
}

static const char *
parse_word(const struct setting *s)
{
	const struct word *w = find_word(s->d, s->text);

	if (w == NULL)
		return s->d->wants;
	store(s->d, s->field, w->value);
	return NULL;
}

static void
format_word(FILE *out, const struct directive *d, const void *field)
{
	const struct word *w;

	for (w = d->words; w->name != NULL; w++)
		if (w->value == load(d, field))
			(void)fputs(w->name, out);
}

const struct type config_types_word = {parse_word, format_word, NULL};

static const char *
parse_set(const struct setting *s)
{
	unsigned bits = s->more ? load(s->d, s->field) : 0;
	const char *text = s->text;
	const struct word *w;
	char word[32];
	int more;

	while ((more = text_word(&text, word, sizeof(word))) == 1) {
		w = find_word(s->d, word);
		if (w == NULL)
			return s->d->wants;
		bits |= w->value;
	}
	if (more == -1)
		return s->d->wants;
	store(s->d, s->field, bits);
	return NULL;
}

static void
format_set(FILE *out, const struct directive *d, const void *field)
{
	const struct word *w;
	const char *blank = "";

	for (w = d->words; w->name != NULL; w++) {
		if ((w->value & load(d, field)) == 0)
			continue;
		(void)fprintf(out, "%s%s", blank, w->name);
		blank = " ";
	}
}

const struct type config_types_set = {parse_set, format_set, NULL};

static bool
in_range(const struct directive *d, uint64_t n)
{
	return n >= d->min && n <= d->max;
}

static const char *
parse_number(const struct setting *s)
{
	uint64_t n;

	if (text_number(s->text, s->d->max, &n) == -1 || !in_range(s->d, n))
		return s->d->wants;
	*(unsigned *)s->field = (unsigned)n;
	return NULL;
}

static void
format_number(FILE *out, const struct directive *d, const void *field)
{
	(void)d;
	(void)fprintf(out, "%u", *(const unsigned *)field);
}

const struct type config_types_number = {parse_number, format_number, NULL};

static const char *
parse_size(const struct setting *s)
{
	size_t n;

	if (text_size(s->text, &n) == -1 || !in_range(s->d, n))
		return s->d->wants;
	*(size_t *)s->field = n;
	return NULL;
}

static void
format_size(FILE *out, const struct directive *d, const void *field)
{
	size_t n = *(const size_t *)field;

	(void)d;
	if (n % 1024 == 0)
		(void)fprintf(out, "%zuk", n / 1024);
	else
		(void)fprintf(out, "%zu", n);
}

static const char *
compute_size(const struct directive *d, void *field, const char **text)
{
	long page = sysconf(_SC_PAGESIZE);

	(void)d;
	(void)text;
	*(size_t *)field = page > 0 ? (size_t)page : 4096;
	return NULL;
}

const struct type config_types_size = {parse_size, format_size, compute_size};

static const char *
parse_time(const struct setting *s)
{
	int64_t ms;

	if (text_time(s->text, &ms) == -1 || !in_range(s->d, (uint64_t)ms))
		return s->d->wants;
	*(int64_t *)s->field = ms;
	return NULL;
}

static void
format_time(FILE *out, const struct directive *d, const void *field)
{
	long long ms = *(const int64_t *)field;

	(void)d;
	if (ms % 1000 != 0)
		(void)fprintf(out, "%lldms", ms);
	else if (ms == 0 || ms % 60000 != 0)
		(void)fprintf(out, "%llds", ms / 1000);
	else
		(void)fprintf(out, "%lldm", ms / 60000);
}

const struct type config_types_time = {parse_time, format_time, NULL};

/*
 * No text holds a control character but the tab: one in a header, a reply or a
 * log line would end it and begin another.
 */
static bool
has_control(const char *text)
{
	for (; *text != '\0'; text++)
		if (((unsigned char)*text < ' ' && *text != '\t') ||
		    *text == '\x7f')
			return true;
	return false;
}

static const char *
clean_text(const struct directive *d, const char **text)
{
	if (has_control(*text))
		return "must hold no control character";
	return d->clean == NULL ? NULL : d->clean(text);
}

static const char *
parse_text(const struct setting *s)
{
	const char *text = s->text, *wrong = clean_text(s->d, &text);

	if (wrong == NULL)
		*(const char **)s->field = text;
	return wrong;
}

static void
format_text(FILE *out, const struct directive *d, const void *field)
{
	(void)d;
	(void)fputs(*(const char *const *)field, out);
}

/* The host's own name; a bad one is refused as if it were given. */
static const char *
compute_text(const struct directive *d, void *field, const char **text)
{
	static char name[HOST_NAME_MAX + 1];
	struct setting s = {d, name, field, false, false};

	if (gethostname(name, sizeof(name)) == -1)
		name[0] = '\0';
	name[sizeof(name) - 1] = '\0';
	*text = name;
	return parse_text(&s);
}

const struct type config_types_text = {parse_text, format_text, compute_text};

/* The one that systemd has made; the first, if there are several. */
static const char *
compute_directory(const struct directive *d, void *field, const char **text)
{
	const char *given = getenv("RUNTIME_DIRECTORY");
	struct setting s = {d, "", field, false, false};

	if (given != NULL) {
		s.text = strndup(given, strcspn(given, ":"));
		if (s.text == NULL)
			return CONFIG_NO_MEMORY;
	}
	*text = s.text;
	return parse_text(&s);
}

const struct type config_types_directory = {
    parse_text, format_text, compute_directory};

static const char *
add_item(const struct directive *d, struct config_list *list, const char *text)
{
	const char *wrong;
	char **word, *copy;

	if (*text == '\0')
		return NULL;
	wrong = clean_text(d, &text);
	if (wrong != NULL)
		return wrong;
	word = realloc(list->word, (list->count + 1) * sizeof(*word));
	if (word == NULL)
		return CONFIG_NO_MEMORY;
	list->word = word;
	copy = strdup(text);
	if (copy == NULL)
		return CONFIG_NO_MEMORY;
	list->word[list->count++] = copy;
	return NULL;
}

static const char *
parse_list(const struct setting *s)
{
	struct config_list *list = s->field;
	const char *text = s->text, *wrong;
	char word[WORD_SIZE];
	int more;

	if (!s->more)
		*list = (struct config_list){NULL, 0};
	if (s->argument)
		return add_item(s->d, list, text);
	while ((more = text_word(&text, word, sizeof(word))) == 1) {
		wrong = add_item(s->d, list, word);
		if (wrong != NULL)
			return wrong;
	}
	if (more == -1)
		return "must be words, in double quotes if they have blanks";
	return NULL;
}

static void
format_list(FILE *out, const struct directive *d, const void *field)
{
	const struct config_list *list = field;
	const char *p;
	size_t i;

	(void)d;
	for (i = 0; i < list->count; i++) {
		p = list->word[i];
		if (i > 0)
			(void)fputc(' ', out);
		if (p[strcspn(p, " \t\"")] == '\0') {
			(void)fputs(p, out);
			continue;
		}
		(void)fputc('"', out);
		for (; *p != '\0'; p++) {
			if (*p == '"' || *p == '\\')
				(void)fputc('\\', out);
			(void)fputc(*p, out);
		}
		(void)fputc('"', out);
	}
}

const struct type config_types_list = {parse_list, format_list, NULL};

char *
config_types_value(const struct config *conf, const struct directive *d)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (out == NULL)
		return NULL;
	d->type->format(out, d, (const char *)conf + d->offset);
	if (fclose(out) == 0)
		return text;
	free(text);
	return NULL;
}
