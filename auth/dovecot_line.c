/*
 * The lines of Dovecot's auth client protocol: fields between tabs, each with
 * what would break the line escaped. Pure: no I/O. What a field means is not
 * known here.
 */
#include <stdio.h>
#include <string.h>

#include "lib/text.h"

#include "auth/dovecot.h"

/* The escape octet, and its letters. */
#define ESCAPE '\001'

static const struct {
	char octet, letter;
} escapes[] = {
    {'\0', '0'},
    {ESCAPE, '1'},
    {'\t', 't'},
    {'\r', 'r'},
    {'\n', 'n'},
};

#define ESCAPES (sizeof(escapes) / sizeof(escapes[0]))

/* --- lines that came ----------------------------------------------------- */

/* A letter that is none stands for itself. */
static char
unescaped(char letter)
{
	size_t i;

	for (i = 0; i < ESCAPES; i++)
		if (escapes[i].letter == letter)
			return escapes[i].octet;
	return letter;
}

/*
 * Undoes the escapes of one field in its place. -1 for a NUL, which would cut
 * the value short for whoever reads it, and for an escape at the end.
 */
static int
unescape(char *text, size_t len)
{
	size_t i, n = 0;
	char c;

	for (i = 0; i < len; i++) {
		c = text[i];
		if (c == ESCAPE) {
			if (++i == len)
				return -1;
			c = unescaped(text[i]);
		}
		if (c == '\0')
			return -1;
		text[n++] = c;
	}
	text[n] = '\0';
	return 0;
}

int
dovecot_line_parse(struct dovecot_line *to, char *text, size_t len)
{
	char *end = text + len, *tab;

	to->count = 0;
	for (;;) {
		tab = memchr(text, '\t', (size_t)(end - text));
		if (tab == NULL)
			tab = end;
		if (to->count == DOVECOT_FIELDS_MAX ||
		    unescape(text, (size_t)(tab - text)) == -1)
			return -1;
		to->field[to->count++] = text;
		if (tab == end)
			return 0;
		text = tab + 1;
	}
}

bool
dovecot_line_is(
    const struct dovecot_line *line, const char *command, size_t fields)
{
	return line->count >= fields && line->count > 0 &&
	    strcmp(line->field[0], command) == 0;
}

const char *
dovecot_line_value(const struct dovecot_line *line, size_t from,
    const char *key)
{
	const char *found = NULL, *field;
	size_t i, len = strlen(key);

	for (i = from; i < line->count; i++) {
		field = line->field[i];
		if (strncmp(field, key, len) != 0)
			continue;
		if (field[len] == '=')
			found = field + len + 1;
		else if (field[len] == '\0')
			found = field + len;
	}
	return found;
}

/* --- lines to be sent ---------------------------------------------------- */

static void
put(struct dovecot_command *c, char octet)
{
	if (c->len < sizeof(c->text))
		c->text[c->len++] = octet;
	else
		c->overflow = true;
}

/* Nothing in it ends the field or the line: no peer adds a field of its own. */
static void
put_escaped(struct dovecot_command *c, const char *text)
{
	size_t i;

	for (; *text != '\0'; text++) {
		for (i = 0; i < ESCAPES && escapes[i].octet != *text; i++)
			;
		if (i < ESCAPES)
			put(c, ESCAPE);
		put(c, i < ESCAPES ? escapes[i].letter : *text);
	}
}

void
dovecot_line_begin(struct dovecot_command *c, const char *name, uint32_t id)
{
	char number[12];

	c->len = 0;
	c->overflow = false;
	put_escaped(c, name);
	(void)snprintf(number, sizeof(number), "%lu", (unsigned long)id);
	dovecot_line_word(c, number);
}

void
dovecot_line_word(struct dovecot_command *c, const char *word)
{
	put(c, '\t');
	put_escaped(c, word);
}

void
dovecot_line_field(
    struct dovecot_command *c, const char *key, const char *value)
{
	dovecot_line_word(c, key);
	if (value == NULL)
		return;
	put(c, '=');
	put_escaped(c, value);
}

void
dovecot_line_base64(struct dovecot_command *c, const char *key,
    const void *data, size_t len)
{
	dovecot_line_word(c, key);
	if (len > sizeof(c->text) ||
	    TEXT_BASE64_SIZE(len) > sizeof(c->text) - c->len) {
		c->overflow = true;
		return;
	}
	text_base64_encode(data, len, c->text + c->len);
	c->len += strlen(c->text + c->len);
}

void
dovecot_line_end(struct dovecot_command *c)
{
	put(c, '\n');
}
