/*
 * Private keys and their certificates, in the keeper: those that the directives
 * name, and those of a directory that are found by the name that a client asks
 * for. Who may ask is the keeper's business, what is signed lib/tls_scheme.c's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/tls_names.h"
#include "lib/tls_pair.h"
#include "lib/tls_scheme.h"

#include "lib/tls_keys.h"

struct tls_keys {
	enum tls_role role;
	size_t count;
	struct tls_pair pair[TLS_MAX_KEYS];
	struct tls_names *names; /* NULL: none */
	struct tls_file passphrases;
};

/* What the directives of a role are called. */
static const struct {
	const char *certificate, *key;
} directives[] = {
    [TLS_ROLE_SERVER] = {"ssl_certificate", "ssl_certificate_key"},
    [TLS_ROLE_CLIENT] = {"proxy_ssl_certificate", "proxy_ssl_certificate_key"},
};

static bool
is_given(const char *path)
{
	return path != NULL && path[0] != '\0';
}

static int
load_pairs(
    struct tls_keys *loaded, const struct tls_key_files *files, char *err)
{
	const struct tls_bytes lines = {
	    loaded->passphrases.p, loaded->passphrases.len};
	const enum tls_role role = loaded->role;
	size_t i;

	for (i = 0; i < files->count; i++) {
		const struct tls_pair_files pair = {
		    {directives[role].certificate, files->certificates[i], err},
		    {directives[role].key, files->keys[i], err},
		    {"ssl_stapling_file",
			i < files->staple_count ? files->staples[i] : NULL,
			err}};

		loaded->count++;
		if (tls_pair_load(&loaded->pair[i], &pair, lines) == -1)
			return -1;
	}
	return 0;
}

static int
load_names(
    struct tls_keys *loaded, const struct tls_key_files *files, char *err)
{
	const struct tls_bytes lines = {
	    loaded->passphrases.p, loaded->passphrases.len};

	if (!is_given(files->directory))
		return 0;
	loaded->names = tls_names_new(files->directory, lines, err);
	if (loaded->names == NULL)
		return -1;
	return files->all ? tls_names_load(loaded->names, err) : 0;
}

struct tls_keys *
tls_keys_load(enum tls_role role, const struct tls_key_files *files, char *err)
{
	const struct tls_place words = {
	    "ssl_password_file", files->passwords, err};
	struct tls_keys *loaded = calloc(1, sizeof(*loaded));

	if (loaded == NULL || files->count > TLS_MAX_KEYS) {
		(void)snprintf(err, TLS_ERROR_SIZE, "%s: %s",
		    directives[role].certificate,
		    loaded == NULL ? strerror(errno) : "more than 4");
		free(loaded);
		return NULL;
	}
	loaded->role = role;
	if ((is_given(files->passwords) &&
		tls_file_read(&words, false, &loaded->passphrases) == -1) ||
	    load_pairs(loaded, files, err) == -1 ||
	    load_names(loaded, files, err) == -1) {
		tls_keys_free(loaded);
		return NULL;
	}
	/* Whoever looks names up as they come needs them again. */
	if (loaded->names == NULL || files->all)
		tls_file_wipe(&loaded->passphrases);
	return loaded;
}

void
tls_keys_free(struct tls_keys *keys)
{
	size_t i;

	if (keys == NULL)
		return;
	for (i = 0; i < keys->count; i++)
		tls_pair_free(&keys->pair[i]);
	tls_names_free(keys->names);
	tls_file_wipe(&keys->passphrases);
	free(keys);
}

/*
 * A pair by its number; of a name there is one, number 0. 1, 0 when there is no
 * such pair, -1 with a line in `err`.
 */
static int
find(const struct tls_keys *keys, const char *name, unsigned number,
    const struct tls_pair **pair, char *err)
{
	if (name[0] != '\0')
		return keys->names == NULL || number > 0
			   ? 0
			   : tls_names_find(keys->names, name, pair, err);
	if (number >= keys->count)
		return 0;
	*pair = &keys->pair[number];
	return 1;
}

int
tls_keys_certificates(const struct tls_keys *keys, const char *name,
    unsigned number, struct tls_chain *chain, char *err)
{
	const struct tls_pair *pair;
	int r = find(keys, name, number, &pair, err);

	chain->len = chain->staple_len = 0;
	if (r != 1)
		return r;
	chain->len = pair->chain_len;
	memcpy(chain->bytes, pair->chain, pair->chain_len);
	chain->staple_len = pair->staple_len;
	if (pair->staple != NULL)
		memcpy(chain->staple, pair->staple, pair->staple_len);
	return 1;
}

ssize_t
tls_keys_sign(const struct tls_keys *keys, const char *name, unsigned number,
    enum tls_scheme scheme, const void *data, size_t len, unsigned char *sig,
    size_t size)
{
	const struct tls_scheme_data tbs = {keys->role, data, len};
	const struct tls_pair *pair;
	char err[TLS_ERROR_SIZE];

	if (find(keys, name, number, &pair, err) != 1)
		return -1;
	return tls_scheme_sign(pair->pkey, pair->type, scheme, &tbs, sig, size);
}
