/*
 * Private keys and their certificates, in the keeper: reading them from PEM
 * files, and signing with them what a TLS server has to sign, nothing else.
 * Who may ask is the keeper's business.
 *
 * Keys are taken apart here and not by OpenSSL's decoders, which try all
 * formats there are and cost a private keeper more than the signature does.
 * For the same reason no certificate is decoded: of the leaf only the public
 * key is looked at, to see that the private one belongs to it.
 */
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/asn1.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/pemerr.h>
#include <openssl/pkcs12.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "lib/tls_keys.h"

#define MAX_FILE       (256 * 1024)
#define MAX_PASSPHRASE 1024
#define MAX_POINT      133 /* P-521's */
#define MAX_NUMBER     1024 /* octets: an RSA key of 8192 bits */
#define RSA_NUMBERS    8

struct key {
	EVP_PKEY *pkey;
	int type; /* EVP_PKEY_RSA, EVP_PKEY_EC, EVP_PKEY_ED25519 */
	unsigned char *chain;
	size_t chain_len;
};

struct tls_keys {
	size_t count;
	struct key key[TLS_MAX_KEYS];
};

/* A file's contents. */
struct file {
	unsigned char *p;
	size_t len;
};

/* A part of them, or of something in DER, that is yet to be looked at. */
struct bytes {
	const unsigned char *p;
	size_t len;
};

struct pem {
	char *name, *header;
	unsigned char *data;
	long len;
};

/* The public key of a certificate; `bits` lie in the chain. */
struct leaf {
	int type, curve;
	struct bytes bits;
};

enum match {
	MATCH,
	MISMATCH,
	UNREADABLE
};

/* Where a key's fault is, for the one line of text. */
struct place {
	const char *directive, *path;
	char *err;
};

static int
fail(const struct place *at, const char *why)
{
	(void)snprintf(
	    at->err, TLS_ERROR_SIZE, "%s %s: %s", at->directive, at->path, why);
	return -1;
}

/* Files. */

static void
wipe(struct file *file)
{
	if (file->p != NULL)
		explicit_bzero(file->p, file->len);
	free(file->p);
	file->p = NULL;
	file->len = 0;
}

static int
read_whole(int fd, struct file *file)
{
	size_t got = 0;
	ssize_t n;

	while (got < file->len) {
		n = read(fd, file->p + got, file->len - got);
		if (n == 0)
			errno = EIO; /* was cut while we read */
		if (n == 0 || (n == -1 && errno != EINTR))
			return -1;
		if (n > 0)
			got += (size_t)n;
	}
	return 0;
}

/* The file that was opened is asked, not its name: that may be another one. */
static int
read_file(const struct place *at, bool secret, struct file *file)
{
	int fd = open(at->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	const char *why = NULL;
	struct stat st;

	if (fd == -1)
		return fail(at, strerror(errno));
	if (fstat(fd, &st) == -1)
		why = strerror(errno);
	else if (!S_ISREG(st.st_mode))
		why = "not a regular file";
	else if (secret && (st.st_mode & 007) != 0)
		why = "others than owner and group have access (try chmod o=)";
	else if (st.st_size == 0 || st.st_size > MAX_FILE)
		why = "empty or larger than 256k";
	if (why == NULL) {
		file->len = (size_t)st.st_size;
		file->p = malloc(file->len);
		if (file->p == NULL || read_whole(fd, file) == -1)
			why = strerror(errno);
	}
	(void)close(fd);
	if (why == NULL)
		return 0;
	wipe(file);
	return fail(at, why);
}

static void
pem_free(struct pem *pem)
{
	OPENSSL_free(pem->name);
	OPENSSL_free(pem->header);
	if (pem->data != NULL)
		OPENSSL_clear_free(pem->data, (size_t)pem->len);
	memset(pem, 0, sizeof(*pem));
}

/* The next block: 1; 0 at the end of the file; -1 when it is broken. */
static int
pem_next(BIO *bio, struct pem *pem)
{
	unsigned long error;

	if (PEM_read_bio(
		bio, &pem->name, &pem->header, &pem->data, &pem->len) == 1)
		return 1;
	error = ERR_peek_last_error();
	ERR_clear_error();
	memset(pem, 0, sizeof(*pem));
	return ERR_GET_REASON(error) == PEM_R_NO_START_LINE ? 0 : -1;
}

/* DER. */

/*
 * Takes the next element, which must have this tag and class, from `in`; its
 * contents are in `body`.
 */
static bool
der_take(struct bytes *in, int want_tag, int want_class, struct bytes *body)
{
	const unsigned char *p = in->p;
	int flags, tag, class;
	long len;

	flags = ASN1_get_object(&p, &len, &tag, &class, (long)in->len);
	/* 0x80: broken, or longer than `in`; 1: without a length, no DER */
	if (flags & 0x81 || tag != want_tag || class != want_class || len < 0)
		return false;
	body->p = p;
	body->len = (size_t)len;
	in->len -= (size_t)(p - in->p) + body->len;
	in->p = p + len;
	return true;
}

static bool
der_sequence(struct bytes *in, struct bytes *body)
{
	return der_take(in, V_ASN1_SEQUENCE, V_ASN1_UNIVERSAL, body);
}

static bool
der_integer(struct bytes *in, struct bytes *body)
{
	return der_take(in, V_ASN1_INTEGER, V_ASN1_UNIVERSAL, body) &&
	       body->len > 0;
}

static bool
der_octets(struct bytes *in, struct bytes *body)
{
	return der_take(in, V_ASN1_OCTET_STRING, V_ASN1_UNIVERSAL, body);
}

static bool
same(const struct bytes *a, const struct bytes *b)
{
	return a->len == b->len && memcmp(a->p, b->p, a->len) == 0;
}

/*
 * The subjectPublicKeyInfo of a certificate (RFC 5280 section 4.1): behind
 * version, serial number, algorithm, issuer, validity and subject.
 */
static bool
find_public_key(struct bytes certificate, struct bytes *info)
{
	struct bytes all, tbs, skipped;
	int i;

	if (!der_sequence(&certificate, &all) || certificate.len != 0 ||
	    !der_sequence(&all, &tbs))
		return false;
	(void)der_take(&tbs, 0, V_ASN1_CONTEXT_SPECIFIC, &skipped);
	if (!der_integer(&tbs, &skipped))
		return false;
	for (i = 0; i < 4; i++)
		if (!der_sequence(&tbs, &skipped))
			return false;
	return der_sequence(&tbs, info);
}

static int
curve_of(const X509_ALGOR *algorithm)
{
	const void *value;
	int type;

	X509_ALGOR_get0(NULL, &type, &value, algorithm);
	return type == V_ASN1_OBJECT ? OBJ_obj2nid(value) : NID_undef;
}

static bool
parse_leaf(struct bytes certificate, struct leaf *leaf)
{
	const ASN1_OBJECT *oid;
	const unsigned char *p;
	X509_ALGOR *algorithm;
	struct bytes info;

	if (!find_public_key(certificate, &info))
		return false;
	p = info.p;
	algorithm = d2i_X509_ALGOR(NULL, &p, (long)info.len);
	if (algorithm == NULL)
		return false;
	X509_ALGOR_get0(&oid, NULL, NULL, algorithm);
	leaf->type = OBJ_obj2nid(oid);
	leaf->curve = curve_of(algorithm);
	X509_ALGOR_free(algorithm);
	info.len -= (size_t)(p - info.p);
	info.p = p;
	if (!der_take(
		&info, V_ASN1_BIT_STRING, V_ASN1_UNIVERSAL, &leaf->bits) ||
	    leaf->bits.len < 2 || leaf->bits.p[0] != 0)
		return false;
	leaf->bits.p++; /* the number of unused bits */
	leaf->bits.len--;
	return true;
}

/* Keys. */

static EVP_PKEY *
make_key(const char *type, OSSL_PARAM *params)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY *pkey = NULL;

	if (ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
	    EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_KEYPAIR, params) != 1)
		pkey = NULL;
	EVP_PKEY_CTX_free(ctx);
	return pkey;
}

/* DER's order of octets into the machine's, which OSSL_PARAM has. */
static bool
to_native(const struct bytes *number, unsigned char *out)
{
	BIGNUM *bn;
	int n;

	if (number->len > MAX_NUMBER)
		return false;
	bn = BN_bin2bn(number->p, (int)number->len, NULL);
	if (bn == NULL)
		return false;
	n = BN_bn2nativepad(bn, out, (int)number->len);
	BN_clear_free(bn);
	return n == (int)number->len;
}

/* The eight numbers of RFC 8017 A.1.2, in its order. */
static enum match
make_rsa(struct bytes numbers[RSA_NUMBERS], EVP_PKEY **pkey)
{
	static const char *const names[RSA_NUMBERS] = {OSSL_PKEY_PARAM_RSA_N,
	    OSSL_PKEY_PARAM_RSA_E, OSSL_PKEY_PARAM_RSA_D,
	    OSSL_PKEY_PARAM_RSA_FACTOR1, OSSL_PKEY_PARAM_RSA_FACTOR2,
	    OSSL_PKEY_PARAM_RSA_EXPONENT1, OSSL_PKEY_PARAM_RSA_EXPONENT2,
	    OSSL_PKEY_PARAM_RSA_COEFFICIENT1};
	unsigned char native[RSA_NUMBERS][MAX_NUMBER];
	OSSL_PARAM params[RSA_NUMBERS + 1];
	size_t i;

	*pkey = NULL;
	for (i = 0; i < RSA_NUMBERS; i++) {
		if (!to_native(&numbers[i], native[i]))
			break;
		params[i] = OSSL_PARAM_construct_BN(
		    names[i], native[i], numbers[i].len);
	}
	if (i == RSA_NUMBERS) {
		params[i] = OSSL_PARAM_construct_end();
		*pkey = make_key("RSA", params);
	}
	explicit_bzero(native, sizeof(native));
	return *pkey != NULL ? MATCH : UNREADABLE;
}

static enum match
parse_rsa(struct bytes der, const struct leaf *leaf, EVP_PKEY **pkey)
{
	struct bytes key, version, public, bits = leaf->bits, n, e;
	struct bytes numbers[RSA_NUMBERS];
	size_t i;

	if (!der_sequence(&der, &key) || !der_integer(&key, &version))
		return UNREADABLE;
	for (i = 0; i < RSA_NUMBERS; i++)
		if (!der_integer(&key, &numbers[i]))
			return UNREADABLE;
	if (!der_sequence(&bits, &public) || !der_integer(&public, &n) ||
	    !der_integer(&public, &e) || !same(&n, &numbers[0]) ||
	    !same(&e, &numbers[1]))
		return MISMATCH;
	return make_rsa(numbers, pkey);
}

/* A file's key has been given the certificate's point: is it its own? */
static bool
is_pair(EVP_PKEY *pkey)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
	bool pair;

	pair = ctx != NULL && EVP_PKEY_pairwise_check(ctx) == 1;
	EVP_PKEY_CTX_free(ctx);
	return pair;
}

/*
 * RFC 5915: a version and the secret number. The curve and the public point
 * behind them may be missing; the certificate has both.
 */
static enum match
parse_ec(struct bytes der, const struct leaf *leaf, EVP_PKEY **pkey)
{
	unsigned char native[MAX_NUMBER], point[MAX_POINT];
	struct bytes key, version, secret;
	OSSL_PARAM params[4];
	char curve[80];

	if (!der_sequence(&der, &key) || !der_integer(&key, &version) ||
	    !der_octets(&key, &secret) || leaf->bits.len > MAX_POINT ||
	    !to_native(&secret, native))
		return UNREADABLE;
	(void)snprintf(curve, sizeof(curve), "%s", OBJ_nid2sn(leaf->curve));
	memcpy(point, leaf->bits.p, leaf->bits.len);
	params[0] = OSSL_PARAM_construct_utf8_string(
	    OSSL_PKEY_PARAM_GROUP_NAME, curve, 0);
	params[1] = OSSL_PARAM_construct_octet_string(
	    OSSL_PKEY_PARAM_PUB_KEY, point, leaf->bits.len);
	params[2] = OSSL_PARAM_construct_BN(
	    OSSL_PKEY_PARAM_PRIV_KEY, native, secret.len);
	params[3] = OSSL_PARAM_construct_end();
	*pkey = make_key("EC", params);
	explicit_bzero(native, sizeof(native));
	return *pkey != NULL && is_pair(*pkey) ? MATCH : MISMATCH;
}

/* RFC 8410 section 7: octets in octets. */
static enum match
parse_ed25519(struct bytes der, const struct leaf *leaf, EVP_PKEY **pkey)
{
	unsigned char raw[32];
	struct bytes secret, public = {raw, sizeof(raw)};

	if (!der_octets(&der, &secret))
		return UNREADABLE;
	*pkey = EVP_PKEY_new_raw_private_key_ex(
	    NULL, "ED25519", NULL, secret.p, secret.len);
	if (*pkey == NULL ||
	    EVP_PKEY_get_raw_public_key(*pkey, raw, &public.len) != 1)
		return UNREADABLE;
	return same(&public, &leaf->bits) ? MATCH : MISMATCH;
}

/* A key of the type `type`, in the form that type has. */
static enum match
parse_key(int type, struct bytes der, const struct leaf *leaf, EVP_PKEY **pkey)
{
	if (type != leaf->type)
		return MISMATCH;
	if (type == EVP_PKEY_RSA)
		return parse_rsa(der, leaf, pkey);
	if (type == EVP_PKEY_EC)
		return parse_ec(der, leaf, pkey);
	return parse_ed25519(der, leaf, pkey);
}

static enum match
parse_pkcs8(PKCS8_PRIV_KEY_INFO *p8, const struct leaf *leaf, EVP_PKEY **pkey)
{
	const ASN1_OBJECT *oid;
	enum match m = UNREADABLE;
	struct bytes der;
	int len;

	if (p8 == NULL)
		return UNREADABLE;
	if (PKCS8_pkey_get0(&oid, &der.p, &len, NULL, p8) == 1 && len > 0) {
		der.len = (size_t)len;
		m = parse_key(OBJ_obj2nid(oid), der, leaf, pkey);
	}
	PKCS8_PRIV_KEY_INFO_free(p8); /* wipes it */
	return m;
}

static enum match
parse_plain(const char *name, struct bytes der, const struct leaf *leaf,
    EVP_PKEY **pkey)
{
	const unsigned char *p = der.p;
	PKCS8_PRIV_KEY_INFO *p8;

	if (strcmp(name, PEM_STRING_PKCS8INF) == 0) {
		p8 = d2i_PKCS8_PRIV_KEY_INFO(NULL, &p, (long)der.len);
		return parse_pkcs8(p8, leaf, pkey);
	}
	if (strcmp(name, PEM_STRING_RSA) == 0)
		return parse_key(EVP_PKEY_RSA, der, leaf, pkey);
	if (strcmp(name, PEM_STRING_ECPRIVATEKEY) == 0)
		return parse_key(EVP_PKEY_EC, der, leaf, pkey);
	return UNREADABLE;
}

/* Encrypted keys. */

static bool
is_encrypted(const struct pem *pem)
{
	return strcmp(pem->name, PEM_STRING_PKCS8) == 0 ||
	       pem->header[0] != '\0';
}

/* Takes the next line; one that is empty or too long is passed over. */
static bool
next_line(struct bytes *lines, char line[MAX_PASSPHRASE])
{
	const unsigned char *end;
	size_t len;

	while (lines->len > 0) {
		end = memchr(lines->p, '\n', lines->len);
		len = end != NULL ? (size_t)(end - lines->p) : lines->len;
		if (len < MAX_PASSPHRASE)
			memcpy(line, lines->p, len);
		lines->p += end != NULL ? len + 1 : len;
		lines->len -= end != NULL ? len + 1 : len;
		if (len >= MAX_PASSPHRASE)
			continue;
		if (len > 0 && line[len - 1] == '\r')
			len--;
		line[len] = '\0';
		if (len > 0)
			return true;
	}
	return false;
}

static int
give_passphrase(char *buf, int size, int rwflag, void *passphrase)
{
	size_t len = strlen(passphrase);

	(void)rwflag;
	if (size < 0 || len > (size_t)size)
		return -1;
	memcpy(buf, passphrase, len);
	return (int)len;
}

/*
 * The old form (RFC 1421) names its cipher; tls.c has OpenSSL know none by
 * name, so those that OpenSSL itself writes are made known here.
 */
static enum match
open_traditional(
    struct pem *pem, char *passphrase, const struct leaf *leaf, EVP_PKEY **pkey)
{
	struct file copy = {malloc((size_t)pem->len), (size_t)pem->len};
	enum match m = UNREADABLE;
	EVP_CIPHER_INFO cipher;
	struct bytes der;
	long len = pem->len;

	(void)EVP_add_cipher(EVP_aes_128_cbc());
	(void)EVP_add_cipher(EVP_aes_192_cbc());
	(void)EVP_add_cipher(EVP_aes_256_cbc());
	(void)EVP_add_cipher(EVP_des_ede3_cbc());
	if (copy.p == NULL)
		return UNREADABLE;
	memcpy(copy.p, pem->data, copy.len);
	if (PEM_get_EVP_CIPHER_INFO(pem->header, &cipher) == 1 &&
	    PEM_do_header(&cipher, copy.p, &len, give_passphrase, passphrase) ==
		1) {
		der.p = copy.p;
		der.len = (size_t)len;
		m = parse_plain(pem->name, der, leaf, pkey);
	}
	wipe(&copy);
	return m;
}

static enum match
open_pkcs8(const struct pem *pem, const char *passphrase,
    const struct leaf *leaf, EVP_PKEY **pkey)
{
	const unsigned char *p = pem->data;
	X509_SIG *sealed = d2i_X509_SIG(NULL, &p, pem->len);
	PKCS8_PRIV_KEY_INFO *p8 = NULL;

	if (sealed != NULL)
		p8 = PKCS8_decrypt(sealed, passphrase, (int)strlen(passphrase));
	X509_SIG_free(sealed);
	return parse_pkcs8(p8, leaf, pkey);
}

static enum match
open_encrypted(struct pem *pem, struct bytes lines, const struct leaf *leaf,
    EVP_PKEY **pkey)
{
	char passphrase[MAX_PASSPHRASE];
	enum match m = UNREADABLE;

	while (m == UNREADABLE && next_line(&lines, passphrase)) {
		if (pem->header[0] != '\0')
			m = open_traditional(pem, passphrase, leaf, pkey);
		else
			m = open_pkcs8(pem, passphrase, leaf, pkey);
	}
	explicit_bzero(passphrase, sizeof(passphrase));
	return m;
}

/* Loading. */

static int
take_key(const struct place *at, struct pem *pem, struct bytes lines,
    const struct leaf *leaf, struct key *key)
{
	struct bytes der = {pem->data, (size_t)pem->len};
	const char *why;
	enum match m;

	key->type = leaf->type;
	if (is_encrypted(pem)) {
		m = open_encrypted(pem, lines, leaf, &key->pkey);
		why = "encrypted, and no line of ssl_password_file opens it";
	} else {
		m = parse_plain(pem->name, der, leaf, &key->pkey);
		why = "not a key of a kind that is served: RSA, EC or Ed25519";
	}
	ERR_clear_error();
	if (m == MATCH)
		return 0;
	if (m == MISMATCH)
		why = "the key does not belong to ssl_certificate";
	return fail(at, why);
}

static bool
is_key(const struct pem *pem)
{
	static const char end[] = "PRIVATE KEY";
	size_t len = strlen(pem->name);

	return len >= sizeof(end) - 1 &&
	       strcmp(pem->name + len - (sizeof(end) - 1), end) == 0;
}

/* The first key of the file; what else is in it does not matter. */
static int
load_key(const struct place *at, struct bytes lines, const struct leaf *leaf,
    struct key *key)
{
	struct file file = {0};
	struct pem pem = {0};
	BIO *bio;
	int r;

	if (read_file(at, true, &file) == -1)
		return -1;
	bio = BIO_new_mem_buf(file.p, (int)file.len);
	r = bio != NULL ? pem_next(bio, &pem) : -1;
	while (r == 1 && !is_key(&pem)) {
		pem_free(&pem);
		r = pem_next(bio, &pem);
	}
	if (r == 1)
		r = take_key(at, &pem, lines, leaf, key);
	else
		r = fail(at, "no private key in it");
	pem_free(&pem);
	BIO_free(bio);
	wipe(&file);
	return r;
}

static const char *
append(struct key *key, const struct pem *pem)
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
collect(struct file *file, struct key *key)
{
	BIO *bio = BIO_new_mem_buf(file->p, (int)file->len);
	const char *why = NULL;
	struct pem pem = {0};
	int r = 1;

	if (bio == NULL)
		return strerror(ENOMEM);
	while (why == NULL && (r = pem_next(bio, &pem)) == 1) {
		if (strcmp(pem.name, PEM_STRING_X509) == 0 ||
		    strcmp(pem.name, PEM_STRING_X509_OLD) == 0)
			why = append(key, &pem);
		pem_free(&pem);
	}
	BIO_free(bio);
	if (r == -1)
		return "broken PEM";
	if (why == NULL && key->chain_len == 0)
		return "no certificate in it";
	return why;
}

static int
load_chain(const struct place *at, struct key *key, struct leaf *leaf)
{
	struct file file = {0};
	struct bytes first;
	const char *why;

	if (read_file(at, false, &file) == -1)
		return -1;
	why = collect(&file, key);
	wipe(&file); /* the key may be in it too */
	if (why != NULL)
		return fail(at, why);
	first.p = key->chain + 3;
	first.len = (size_t)key->chain[0] << 16 | (size_t)key->chain[1] << 8 |
		    key->chain[2];
	if (!parse_leaf(first, leaf))
		return fail(at, "the first certificate is broken");
	if (leaf->type != EVP_PKEY_RSA && leaf->type != EVP_PKEY_EC &&
	    leaf->type != EVP_PKEY_ED25519)
		return fail(at, "not RSA, EC or Ed25519");
	return 0;
}

struct tls_keys *
tls_keys_load(char *const *certificates, char *const *keys, size_t count,
    const char *password_file, char *err)
{
	struct place words = {"ssl_password_file", password_file, err};
	struct tls_keys *loaded = calloc(1, sizeof(*loaded));
	struct file lines = {0};
	struct leaf leaf;
	size_t i;

	if (loaded == NULL || count > TLS_MAX_KEYS) {
		(void)snprintf(err, TLS_ERROR_SIZE, "ssl_certificate: %s",
		    loaded == NULL ? strerror(errno) : "more than 4");
		free(loaded);
		return NULL;
	}
	if (password_file != NULL && password_file[0] != '\0' &&
	    read_file(&words, false, &lines) == -1)
		goto err;
	for (i = 0; i < count; i++) {
		struct place chain = {"ssl_certificate", certificates[i], err};
		struct place key = {"ssl_certificate_key", keys[i], err};

		loaded->count++;
		if (load_chain(&chain, &loaded->key[i], &leaf) == -1 ||
		    load_key(&key, (struct bytes){lines.p, lines.len}, &leaf,
			&loaded->key[i]) == -1)
			goto err;
	}
	wipe(&lines);
	return loaded;
err:
	wipe(&lines);
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

/* Signing. */

struct scheme {
	enum tls_scheme scheme;
	int type;
	const char *digest; /* NULL: none apart from the signature's own */
	int padding; /* of RSA */
};

static const struct scheme schemes[] = {
    {TLS_RSA_PKCS1_SHA256, EVP_PKEY_RSA, "SHA256", RSA_PKCS1_PADDING},
    {TLS_RSA_PKCS1_SHA384, EVP_PKEY_RSA, "SHA384", RSA_PKCS1_PADDING},
    {TLS_RSA_PKCS1_SHA512, EVP_PKEY_RSA, "SHA512", RSA_PKCS1_PADDING},
    {TLS_RSA_PSS_SHA256, EVP_PKEY_RSA, "SHA256", RSA_PKCS1_PSS_PADDING},
    {TLS_RSA_PSS_SHA384, EVP_PKEY_RSA, "SHA384", RSA_PKCS1_PSS_PADDING},
    {TLS_RSA_PSS_SHA512, EVP_PKEY_RSA, "SHA512", RSA_PKCS1_PSS_PADDING},
    {TLS_ECDSA_SHA256, EVP_PKEY_EC, "SHA256", 0},
    {TLS_ECDSA_SHA384, EVP_PKEY_EC, "SHA384", 0},
    {TLS_ECDSA_SHA512, EVP_PKEY_EC, "SHA512", 0},
    {TLS_ED25519, EVP_PKEY_ED25519, NULL, 0}};

static const struct scheme *
find_scheme(enum tls_scheme scheme, int type)
{
	size_t i;

	for (i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		if (schemes[i].scheme == scheme && schemes[i].type == type)
			return &schemes[i];
	return NULL;
}

/*
 * RFC 8446 section 4.4.3: 64 blanks, who signs what, a NUL, and the hash of
 * the handshake so far. Of TLS 1.3's suites some hash to 32 octets, the others
 * to 48. The words keep a signature for a client's part, or for another
 * version, from ever being had here.
 */
static bool
is_certificate_verify(const unsigned char *data, size_t len)
{
	static const char words[] = "TLS 1.3, server CertificateVerify";
	size_t i, head = 64 + sizeof(words); /* with the NUL */

	if (len != head + 32 && len != head + 48)
		return false;
	for (i = 0; i < 64; i++)
		if (data[i] != ' ')
			return false;
	return memcmp(data + 64, words, sizeof(words)) == 0;
}

/*
 * RFC 5246 section 7.4.3 and RFC 8422 section 5.4: both sides' random octets,
 * then ServerECDHParams, that is a named curve (3), its number, and a point,
 * which has the size that points have on that curve.
 */
static bool
is_key_exchange(const unsigned char *data, size_t len)
{
	static const struct {
		unsigned curve;
		size_t point;
	} curves[] = {
	    {23, 65}, {24, 97}, {25, 133}, /* P-256, P-384, P-521 */
	    {26, 65}, {27, 97}, {28, 129}, /* Brainpool's */
	    {29, 32}, {30, 56} /* X25519, X448 */
	};
	const unsigned char *params = data + 64;
	size_t i;

	if (len < 64 + 4 || params[0] != 3 || len != 64u + 4 + params[3])
		return false;
	for (i = 0; i < sizeof(curves) / sizeof(curves[0]); i++)
		if (curves[i].curve == (params[1] * 256u + params[2]))
			return curves[i].point == params[3];
	return false;
}

/* TLS 1.3 has done away with the old padding (RFC 8446 section 4.2.3). */
static bool
is_servers(const struct scheme *s, const unsigned char *data, size_t len)
{
	if (is_certificate_verify(data, len))
		return s->padding != RSA_PKCS1_PADDING;
	return is_key_exchange(data, len);
}

static bool
set_padding(EVP_PKEY_CTX *ctx, const struct scheme *s)
{
	if (s->type != EVP_PKEY_RSA)
		return true;
	if (EVP_PKEY_CTX_set_rsa_padding(ctx, s->padding) != 1)
		return false;
	return s->padding == RSA_PKCS1_PADDING ||
	       EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) ==
		   1;
}

ssize_t
tls_keys_sign(const struct tls_keys *keys, unsigned key, enum tls_scheme scheme,
    const void *data, size_t len, unsigned char *sig, size_t size)
{
	const struct scheme *s;
	EVP_PKEY_CTX *pctx;
	EVP_MD_CTX *ctx;
	ssize_t n = -1;

	if (key >= keys->count)
		return -1;
	s = find_scheme(scheme, keys->key[key].type);
	if (s == NULL || !is_servers(s, data, len))
		return -1;
	ctx = EVP_MD_CTX_new();
	if (ctx != NULL &&
	    EVP_DigestSignInit_ex(ctx, &pctx, s->digest, NULL, NULL,
		keys->key[key].pkey, NULL) == 1 &&
	    set_padding(pctx, s) &&
	    EVP_DigestSign(ctx, sig, &size, data, len) == 1)
		n = (ssize_t)size;
	EVP_MD_CTX_free(ctx);
	ERR_clear_error();
	return n;
}
