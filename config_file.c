/*
 * The format of --config files. One file is to serve the unit, too, so that it
 * is read as systemd 252 reads an EnvironmentFile=, oddities included:
 *
 *	# a comment, also with ';'; a backslash takes the next line into it
 *	KEY = unquoted; blanks at the end are cut, quotes inside are letters
 *	KEY='as it is, \ too' "escaped: \" \\ \$ \` "and all of it joined
 *
 * In unquoted values a backslash keeps the next octet as it is, in double
 * quotes one before anything else stands for itself; before the end of a line
 * both vanish. A carriage return ends a line as well. What is left open at the
 * end of the file is closed there.
 *
 * Directives are not known here: who reads the assignments knows their names.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config_table.h"

#define FILE_MAX 65536

/* Reads all of `fd` into `buf` (FILE_MAX + 1 octets). The reason it cannot. */
static const char *
read_all(int fd, char *buf)
{
	size_t len = 0;
	ssize_t n;

	do {
		n = read(fd, buf + len, FILE_MAX + 1 - len);
		if (n > 0)
			len += (size_t)n;
	} while ((n > 0 && len <= FILE_MAX) || (n == -1 && errno == EINTR));
	if (n == -1)
		return strerror(errno);
	if (len > FILE_MAX)
		return "is longer than 64 kB";
	if (memchr(buf, '\0', len) != NULL)
		return "holds a NUL";
	buf[len] = '\0';
	return NULL;
}

const char *
config_file_open(struct config_file *f, const char *path)
{
	const char *wrong = CONFIG_NO_MEMORY;
	int fd = -1;

	*f = (struct config_file){.text = malloc(FILE_MAX + 1), .line = 1};
	if (f->text != NULL) {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		wrong = fd == -1 ? strerror(errno) : read_all(fd, f->text);
	}
	/* All values together are no longer than the text that they are of. */
	if (wrong == NULL) {
		f->values = malloc(strlen(f->text) + 1);
		if (f->values == NULL)
			wrong = CONFIG_NO_MEMORY;
	}
	if (fd != -1)
		(void)close(fd);
	f->at = f->text;
	f->out = f->values;
	return wrong;
}

void
config_file_close(struct config_file *f)
{
	free(f->text);
	f->text = NULL;
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool
ends_line(char c)
{
	return c == '\n' || c == '\r';
}

static void
step(struct config_file *f)
{
	if (*f->at++ == '\n')
		f->line++;
}

static void
skip_comment(struct config_file *f)
{
	for (; *f->at != '\0' && !ends_line(*f->at); step(f))
		if (*f->at == '\\' && f->at[1] != '\0')
			step(f);
}

static void
read_quoted(struct config_file *f)
{
	char quote = *f->at;

	for (step(f); *f->at != '\0' && *f->at != quote; step(f)) {
		if (quote == '"' && *f->at == '\\') {
			step(f);
			if (*f->at == '\0')
				return;
			if (*f->at == '\n')
				continue;
			if (strchr("\"\\`$", *f->at) == NULL)
				*f->out++ = '\\';
		}
		*f->out++ = *f->at;
	}
	if (*f->at != '\0')
		step(f);
}

static void
read_unquoted(struct config_file *f)
{
	char *keep = f->out; /* behind it are but blanks that may be cut */

	for (; *f->at != '\0' && !ends_line(*f->at); step(f)) {
		if (*f->at == '\\') {
			step(f);
			keep = f->out;
			if (*f->at == '\0')
				break;
			if (!ends_line(*f->at)) {
				*f->out++ = *f->at;
				keep = f->out;
			}
			continue;
		}
		*f->out++ = *f->at;
		if (!is_blank(*f->at))
			keep = f->out;
	}
	f->out = keep;
}

static const char *
read_value(struct config_file *f)
{
	const char *value = f->out;

	for (;;) {
		while (is_blank(*f->at))
			step(f);
		if (*f->at != '"' && *f->at != '\'')
			break;
		read_quoted(f);
	}
	read_unquoted(f);
	*f->out++ = '\0';
	return value;
}

bool
config_file_next(struct config_file *f, struct assignment *a)
{
	for (;;) {
		while (is_blank(*f->at) || ends_line(*f->at))
			step(f);
		if (*f->at != '#' && *f->at != ';')
			break;
		skip_comment(f);
	}
	if (*f->at == '\0')
		return false;
	*a = (struct assignment){.key = f->at, .line = f->line};
	do
		step(f);
	while (*f->at != '\0' && *f->at != '=' && !ends_line(*f->at));
	a->len = (size_t)(f->at - a->key);
	while (is_blank(a->key[a->len - 1]))
		a->len--;
	/* systemd skips a line without one; who reads it may think again. */
	if (*f->at == '=') {
		step(f);
		a->value = read_value(f);
	}
	return true;
}
