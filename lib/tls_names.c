/*
 * Names and their pairs: a sorted list, filled at once from the directory or,
 * in a keeper that serves one session, with the one that is asked for.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/text.h"

#include "lib/tls_names.h"

#define DIRECTIVE "ssl_sni_directory"
#define NAME_SIZE 256 /* a host's name has 253 at most */
#define PATH_SIZE 1024

struct site {
	char *name;
	struct tls_pair pair;
};

struct tls_names {
	char *directory;
	struct tls_bytes passphrases;
	bool complete; /* what is not in the list is not there */
	size_t count;
	struct site *site; /* sorted by name once it is complete */
};

/*
 * How the files of a name may lie, by what follows the name; the first whose
 * chain is there is taken.
 */
static const struct layout {
	const char *chain, *key, *staple;
} layouts[] = {
    {".pem", ".pem", ".ocsp"},
    {"/fullchain.pem", "/privkey.pem", "/ocsp.der"},
};

#define LAYOUTS (sizeof(layouts) / sizeof(layouts[0]))

static void
no_memory(char *err)
{
	(void)snprintf(err, TLS_ERROR_SIZE, DIRECTIVE ": %s", strerror(ENOMEM));
}

struct tls_names *
tls_names_new(const char *directory, struct tls_bytes passphrases, char *err)
{
	struct tls_names *names = calloc(1, sizeof(*names));

	if (names != NULL)
		names->directory = strdup(directory);
	if (names != NULL && names->directory != NULL) {
		names->passphrases = passphrases;
		return names;
	}
	free(names);
	no_memory(err);
	return NULL;
}

void
tls_names_free(struct tls_names *names)
{
	size_t i;

	if (names == NULL)
		return;
	for (i = 0; i < names->count; i++) {
		tls_pair_free(&names->site[i].pair);
		free(names->site[i].name);
	}
	free(names->site);
	free(names->directory);
	free(names);
}

/*
 * A client's name becomes part of a path: letters, digits, '-' and single dots
 * between them, in lower case. What begins with a dot would be hidden, or "..".
 */
static bool
clean(const char *name, char out[NAME_SIZE])
{
	size_t i;

	if (text_copy(out, NAME_SIZE, name) == -1 || !text_is_hostname(out) ||
	    out[0] == '.' || strstr(out, "..") != NULL)
		return false;
	for (i = 0; out[i] != '\0'; i++)
		if (out[i] >= 'A' && out[i] <= 'Z')
			out[i] = (char)(out[i] - 'A' + 'a');
	return true;
}

/* --- loading one --------------------------------------------------------- */

static bool
make_path(const struct tls_names *names, const char *name, const char *suffix,
    char path[PATH_SIZE])
{
	return snprintf(path, PATH_SIZE, "%s/%s%s", names->directory, name,
		   suffix) < PATH_SIZE;
}

/* The layout that the files of a name have; NULL: there are none. */
static const struct layout *
find_layout(const struct tls_names *names, const char *name)
{
	char path[PATH_SIZE];
	size_t i;

	for (i = 0; i < LAYOUTS; i++)
		if (make_path(names, name, layouts[i].chain, path) &&
		    access(path, F_OK) == 0)
			return &layouts[i];
	return NULL;
}

static int
load_pair(struct tls_names *names, const char *name,
    const struct layout *layout, struct tls_pair *pair, char *err)
{
	char chain[PATH_SIZE], key[PATH_SIZE], staple[PATH_SIZE];
	struct tls_pair_files files = {{DIRECTIVE, chain, err},
	    {DIRECTIVE, key, err}, {DIRECTIVE, NULL, err}};

	if (!make_path(names, name, layout->chain, chain) ||
	    !make_path(names, name, layout->key, key))
		return tls_file_fail(&files.chain, "is too long a path");
	if (make_path(names, name, layout->staple, staple) &&
	    access(staple, F_OK) == 0)
		files.staple.path = staple;
	return tls_pair_load(pair, &files, names->passphrases);
}

/* Puts a name's pair into the list. 0, or -1. */
static int
add(struct tls_names *names, const char *name, const struct layout *layout,
    char *err)
{
	struct site *more =
	    reallocarray(names->site, names->count + 1, sizeof(*names->site));
	struct site *site;

	if (more == NULL) {
		no_memory(err);
		return -1;
	}
	names->site = more;
	site = &names->site[names->count++];
	memset(site, 0, sizeof(*site));
	site->name = strdup(name);
	if (site->name == NULL) {
		no_memory(err);
		return -1;
	}
	if (load_pair(names, name, layout, &site->pair, err) == 0)
		return 0;
	/* Nothing of it is used, and so it is known to be no good. */
	tls_pair_free(&site->pair);
	return -1;
}

/* --- all of them --------------------------------------------------------- */

static int
by_name(const void *a, const void *b)
{
	const struct site *x = a, *y = b;

	return strcmp(x->name, y->name);
}

/*
 * The name that an entry of the directory is for, "" for none: a README, or a
 * directory of something else, does no harm.
 */
static void
name_of(const struct dirent *entry, char name[NAME_SIZE])
{
	const char *rest = entry->d_name;
	char plain[NAME_SIZE];
	size_t len;

	if (text_copy(name, NAME_SIZE, rest) == -1)
		return;
	len = strlen(name);
	if (len > 4 && strcmp(name + len - 4, ".pem") == 0)
		name[len - 4] = '\0';
	rest = name;
	if (strncmp(rest, "*.", 2) == 0 || strncmp(rest, "_.", 2) == 0)
		rest += 2;
	/* In another case it would never be found. */
	if (!clean(rest, plain) || strcmp(plain, rest) != 0)
		name[0] = '\0';
}

/* Of two layouts of one name the first of the list counts, as when it is asked. */
static int
load_entry(struct tls_names *names, const struct dirent *entry, char *err)
{
	const struct layout *layout;
	char name[NAME_SIZE], file[NAME_SIZE + 4];

	name_of(entry, name);
	layout = name[0] != '\0' ? find_layout(names, name) : NULL;
	if (layout == NULL)
		return 0;
	/* It is loaded once: as a file, or as a directory without one. */
	(void)snprintf(file, sizeof(file), "%s.pem", name);
	if (layout == &layouts[0] ? strcmp(file, entry->d_name) != 0
				  : strcmp(name, entry->d_name) != 0)
		return 0;
	return add(names, name, layout, err);
}

int
tls_names_load(struct tls_names *names, char *err)
{
	DIR *directory = opendir(names->directory);
	struct dirent *entry;
	int r = 0;

	if (directory == NULL) {
		(void)snprintf(err, TLS_ERROR_SIZE, DIRECTIVE " %s: %s",
		    names->directory, strerror(errno));
		return -1;
	}
	while (r == 0 && (entry = readdir(directory)) != NULL)
		r = load_entry(names, entry, err);
	(void)closedir(directory);
	if (names->count > 0)
		qsort(names->site, names->count, sizeof(*names->site), by_name);
	names->complete = true;
	return r;
}

/* --- looking one up ------------------------------------------------------ */

static bool
is_known(const struct tls_names *names, const char *name)
{
	size_t i;

	for (i = 0; i < names->count; i++)
		if (strcmp(names->site[i].name, name) == 0)
			return true;
	return false;
}

/* As tls_names_find(), for the very name. */
static int
find_exactly(struct tls_names *names, char *name, const struct tls_pair **pair,
    char *err)
{
	const struct site wanted = {.name = name};
	const struct layout *layout;
	struct site *found = NULL;

	if (names->complete && names->count > 0)
		found = bsearch(&wanted, names->site, names->count,
		    sizeof(*names->site), by_name);
	if (names->complete) {
		*pair = found != NULL ? &found->pair : NULL;
		return found != NULL;
	}
	if (!is_known(names, name)) {
		layout = find_layout(names, name);
		if (layout == NULL)
			return 0;
		if (add(names, name, layout, err) == -1)
			return -1;
	}
	for (found = names->site; strcmp(found->name, name) != 0; found++)
		;
	*pair = &found->pair;
	if (found->pair.pkey != NULL)
		return 1;
	(void)snprintf(err, TLS_ERROR_SIZE, DIRECTIVE ": %s is no good", name);
	return -1;
}

int
tls_names_find(struct tls_names *names, const char *name,
    const struct tls_pair **pair, char *err)
{
	static const char *const wild[] = {"*", "_"};
	char exact[NAME_SIZE], pattern[NAME_SIZE];
	const char *rest;
	size_t i;
	int r;

	if (!clean(name, exact))
		return 0;
	r = find_exactly(names, exact, pair, err);
	rest = strchr(exact, '.');
	for (i = 0; r == 0 && rest != NULL && i < 2; i++) {
		(void)snprintf(pattern, sizeof(pattern), "%s%s", wild[i], rest);
		r = find_exactly(names, pattern, pair, err);
	}
	return r;
}
