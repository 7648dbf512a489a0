/*
 * Loading a private key and its certificates from PEM files, and an OCSP
 * response that goes with them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>

#include "lib/tls_pair.h"

static int
take_key(const struct tls_place *at, struct tls_pem *pem,
    struct tls_bytes lines, const struct tls_leaf *leaf, struct tls_pair *key)
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
    const struct tls_leaf *leaf, struct tls_pair *key)
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
append(struct tls_pair *key, const struct tls_pem *pem)
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
collect(struct tls_file *file, struct tls_pair *key)
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
load_chain(
    const struct tls_place *at, struct tls_pair *key, struct tls_leaf *leaf)
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

/*
 * It is only looked at so far as to be one: who signed it is for the client to
 * judge. But an error's response (RFC 6960 section 4.2.1) says nothing.
 */
static bool
is_response(const struct tls_file *file)
{
	const unsigned char *p = file->p;
	OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &p, (long)file->len);
	bool is =
	    response != NULL && p == file->p + file->len &&
	    OCSP_response_status(response) == OCSP_RESPONSE_STATUS_SUCCESSFUL;

	OCSP_RESPONSE_free(response);
	ERR_clear_error();
	return is;
}

static int
load_staple(const struct tls_place *at, struct tls_pair *pair)
{
	struct tls_file file = {0};

	if (tls_file_read(at, false, &file) == -1)
		return -1;
	if (file.len > TLS_MAX_STAPLE || !is_response(&file)) {
		tls_file_wipe(&file);
		return tls_file_fail(at, "no OCSP response in DER");
	}
	pair->staple = file.p;
	pair->staple_len = file.len;
	return 0;
}

int
tls_pair_load(struct tls_pair *pair, const struct tls_pair_files *files,
    struct tls_bytes passphrases)
{
	struct tls_leaf leaf;

	if (load_chain(&files->chain, pair, &leaf) == -1 ||
	    load_key(&files->key, passphrases, &leaf, pair) == -1)
		return -1;
	return files->staple.path != NULL ? load_staple(&files->staple, pair)
					  : 0;
}

void
tls_pair_free(struct tls_pair *pair)
{
	EVP_PKEY_free(pair->pkey);
	free(pair->chain);
	free(pair->staple);
	memset(pair, 0, sizeof(*pair));
}
