/*
 * Private keys and their certificates, in the keeper: reading them from PEM
 * files. Who may ask is the keeper's business, what is signed lib/tls_scheme.c's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>

#include "lib/tls_key.h"
#include "lib/tls_scheme.h"

#include "lib/tls_keys.h"

struct key {
	EVP_PKEY *pkey;
	int type; /* EVP_PKEY_RSA, EVP_PKEY_EC, EVP_PKEY_ED25519 */
	unsigned char *chain;
	size_t chain_len;
};

struct tls_keys {
	enum tls_role role;
	size_t count;
	struct key key[TLS_MAX_KEYS];
};

/* What the directives of a role are called. */
static const struct {
	const char *certificate, *key;
} directives[] = {
    [TLS_ROLE_SERVER] = {"ssl_certificate", "ssl_certificate_key"},
    [TLS_ROLE_CLIENT] = {"proxy_ssl_certificate", "proxy_ssl_certificate_key"},
};

static int
take_key(const struct tls_place *at, struct tls_pem *pem,
    struct tls_bytes lines, const struct tls_leaf *leaf, struct key *key)
{
	const char *why =
	    "not a key of a kind that is served: RSA, EC or Ed25519";
	enum tls_match m = tls_key_parse(pem, lines, leaf, &key->pkey);

	ERR_clear_error();
	key->type = leaf->type;
	if (m == TLS_KEY_MATCH)
		return 0;
	if (m == TLS_KEY_MISMATCH)
		why = "the key does not belong to the certificate";
	else if (tls_key_is_encrypted(pem))
		why = "encrypted, and no line of ssl_password_file opens it";
	return tls_file_fail(at, why);
}

static bool
is_key(const struct tls_pem *pem)
{
	static const char end[] = "PRIVATE KEY";
	size_t len = strlen(pem->name);

	return len >= sizeof(end) - 1 &&
	       strcmp(pem->name + len - (sizeof(end) - 1), end) == 0;
}

/* The first key of the file; what else is in it does not matter. */
static int
load_key(const struct tls_place *at, struct tls_bytes lines,
    const struct tls_leaf *leaf, struct key *key)
{
	struct tls_file file = {0};
	struct tls_pem pem = {0};
	BIO *bio;
	int r;

	if (tls_file_read(at, true, &file) == -1)
		return -1;
	bio = BIO_new_mem_buf(file.p, (int)file.len);
	r = bio != NULL ? tls_pem_next(bio, &pem) : -1;
	while (r == 1 && !is_key(&pem)) {
		tls_pem_free(&pem);
		r = tls_pem_next(bio, &pem);
	}
	if (r == 1)
		r = take_key(at, &pem, lines, leaf, key);
	else
		r = tls_file_fail(at, "no private key in it");
	tls_pem_free(&pem);
	BIO_free(bio);
	tls_file_wipe(&file);
	return r;
}

static const char *
append(struct key *key, const struct tls_pem *pem)
{
	size_t len = (size_t)pem->len;
	unsigned char *p;

	if (len > TLS_MAX_CHAIN || key->chain_len + 3 + len > TLS_MAX_CHAIN)
		return "the certificates are too many";
	p = realloc(key->chain, key->chain_len + 3 + len);
	if (p == NULL)
		return strerror(errno);
	key->chain = p;
	p += key->chain_len;
	*p++ = (unsigned char)(len >> 16);
	*p++ = (unsigned char)(len >> 8);
	*p++ = (unsigned char)len;
	memcpy(p, pem->data, len);
	key->chain_len += 3 + len;
	return NULL;
}

static const char *
collect(struct tls_file *file, struct key *key)
{
	BIO *bio = BIO_new_mem_buf(file->p, (int)file->len);
	const char *why = NULL;
	struct tls_pem pem = {0};
	int r = 1;

	if (bio == NULL)
		return strerror(ENOMEM);
	while (why == NULL && (r = tls_pem_next(bio, &pem)) == 1) {
		if (strcmp(pem.name, PEM_STRING_X509) == 0 ||
		    strcmp(pem.name, PEM_STRING_X509_OLD) == 0)
			why = append(key, &pem);
		tls_pem_free(&pem);
	}
	BIO_free(bio);
	if (r == -1)
		return "broken PEM";
	if (why == NULL && key->chain_len == 0)
		return "no certificate in it";
	return why;
}

static int
load_chain(const struct tls_place *at, struct key *key, struct tls_leaf *leaf)
{
	struct tls_file file = {0};
	struct tls_bytes first;
	const char *why;

	if (tls_file_read(at, false, &file) == -1)
		return -1;
	why = collect(&file, key);
	tls_file_wipe(&file); /* the key may be in it too */
	if (why != NULL)
		return tls_file_fail(at, why);
	first.p = key->chain + 3;
	first.len = (size_t)key->chain[0] << 16 | (size_t)key->chain[1] << 8 |
		    key->chain[2];
	if (!tls_leaf_parse(first, leaf))
		return tls_file_fail(at, "the first certificate is broken");
	if (leaf->type != EVP_PKEY_RSA && leaf->type != EVP_PKEY_EC &&
	    leaf->type != EVP_PKEY_ED25519)
		return tls_file_fail(at, "not RSA, EC or Ed25519");
	return 0;
}

struct tls_keys *
tls_keys_load(
    enum tls_role role, const struct tls_key_files *files, char *err)
{
	struct tls_place words = {"ssl_password_file", files->passwords, err};
	struct tls_keys *loaded = calloc(1, sizeof(*loaded));
	struct tls_file lines = {0};
	struct tls_leaf leaf;
	size_t i;

	if (loaded == NULL || files->count > TLS_MAX_KEYS) {
		(void)snprintf(err, TLS_ERROR_SIZE, "%s: %s",
		    directives[role].certificate,
		    loaded == NULL ? strerror(errno) : "more than 4");
		free(loaded);
		return NULL;
	}
	loaded->role = role;
	if (files->passwords != NULL && files->passwords[0] != '\0' &&
	    tls_file_read(&words, false, &lines) == -1)
		goto err;
	for (i = 0; i < files->count; i++) {
		struct tls_place chain = {
		    directives[role].certificate, files->certificates[i], err};
		struct tls_place key = {
		    directives[role].key, files->keys[i], err};

		loaded->count++;
		if (load_chain(&chain, &loaded->key[i], &leaf) == -1 ||
		    load_key(&key, (struct tls_bytes){lines.p, lines.len},
			&leaf, &loaded->key[i]) == -1)
			goto err;
	}
	tls_file_wipe(&lines);
	return loaded;
err:
	tls_file_wipe(&lines);
	tls_keys_free(loaded);
	return NULL;
}

void
tls_keys_free(struct tls_keys *keys)
{
	size_t i;

	if (keys == NULL)
		return;
	for (i = 0; i < keys->count; i++) {
		EVP_PKEY_free(keys->key[i].pkey);
		free(keys->key[i].chain);
	}
	free(keys);
}

ssize_t
tls_keys_certificates(const struct tls_keys *keys, unsigned key,
    unsigned char *chain, size_t size)
{
	const struct key *k;

	if (key >= keys->count)
		return 0;
	k = &keys->key[key];
	if (k->chain_len > size)
		return -1;
	memcpy(chain, k->chain, k->chain_len);
	return (ssize_t)k->chain_len;
}

ssize_t
tls_keys_sign(const struct tls_keys *keys, unsigned key, enum tls_scheme scheme,
    const void *data, size_t len, unsigned char *sig, size_t size)
{
	const struct tls_scheme_data tbs = {keys->role, data, len};

	if (key >= keys->count)
		return -1;
	return tls_scheme_sign(keys->key[key].pkey, keys->key[key].type, scheme,
	    &tbs, sig, size);
}
