/*
 * A private key, taken apart by hand and not by OpenSSL's decoders, which try
 * all formats there are and cost a private keeper more than the signature does.
 * For the same reason no certificate is decoded: of the leaf only the public
 * key is looked at, to see that the private one belongs to it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/asn1.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "lib/tls_key.h"

#define MAX_PASSPHRASE 1024
#define MAX_POINT      133 /* P-521's */
#define MAX_NUMBER     1024 /* octets: an RSA key of 8192 bits */
#define RSA_NUMBERS    8

/* DER. */

/*
 * Takes the next element, which must have this tag and class, from `in`; its
 * contents are in `body`.
 */
static bool
der_take(
    struct tls_bytes *in, int want_tag, int want_class, struct tls_bytes *body)
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
der_sequence(struct tls_bytes *in, struct tls_bytes *body)
{
	return der_take(in, V_ASN1_SEQUENCE, V_ASN1_UNIVERSAL, body);
}

static bool
der_integer(struct tls_bytes *in, struct tls_bytes *body)
{
	return der_take(in, V_ASN1_INTEGER, V_ASN1_UNIVERSAL, body) &&
	       body->len > 0;
}

static bool
der_octets(struct tls_bytes *in, struct tls_bytes *body)
{
	return der_take(in, V_ASN1_OCTET_STRING, V_ASN1_UNIVERSAL, body);
}

static bool
same(const struct tls_bytes *a, const struct tls_bytes *b)
{
	return a->len == b->len && memcmp(a->p, b->p, a->len) == 0;
}

/*
 * The subjectPublicKeyInfo of a certificate (RFC 5280 section 4.1): behind
 * version, serial number, algorithm, issuer, validity and subject.
 */
static bool
find_public_key(struct tls_bytes certificate, struct tls_bytes *info)
{
	struct tls_bytes all, tbs, skipped;
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

bool
tls_leaf_parse(struct tls_bytes certificate, struct tls_leaf *leaf)
{
	const ASN1_OBJECT *oid;
	const unsigned char *p;
	X509_ALGOR *algorithm;
	struct tls_bytes info;

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
to_native(const struct tls_bytes *number, unsigned char *out)
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
static enum tls_match
make_rsa(struct tls_bytes numbers[RSA_NUMBERS], EVP_PKEY **pkey)
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
	return *pkey != NULL ? TLS_KEY_MATCH : TLS_KEY_UNREADABLE;
}

static enum tls_match
parse_rsa(struct tls_bytes der, const struct tls_leaf *leaf, EVP_PKEY **pkey)
{
	struct tls_bytes key, version, public, bits = leaf->bits, n, e;
	struct tls_bytes numbers[RSA_NUMBERS];
	size_t i;

	if (!der_sequence(&der, &key) || !der_integer(&key, &version))
		return TLS_KEY_UNREADABLE;
	for (i = 0; i < RSA_NUMBERS; i++)
		if (!der_integer(&key, &numbers[i]))
			return TLS_KEY_UNREADABLE;
	if (!der_sequence(&bits, &public) || !der_integer(&public, &n) ||
	    !der_integer(&public, &e) || !same(&n, &numbers[0]) ||
	    !same(&e, &numbers[1]))
		return TLS_KEY_MISMATCH;
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
static enum tls_match
parse_ec(struct tls_bytes der, const struct tls_leaf *leaf, EVP_PKEY **pkey)
{
	unsigned char native[MAX_NUMBER], point[MAX_POINT];
	struct tls_bytes key, version, secret;
	OSSL_PARAM params[4];
	char curve[80];

	if (!der_sequence(&der, &key) || !der_integer(&key, &version) ||
	    !der_octets(&key, &secret) || leaf->bits.len > MAX_POINT ||
	    !to_native(&secret, native))
		return TLS_KEY_UNREADABLE;
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
	return *pkey != NULL && is_pair(*pkey) ? TLS_KEY_MATCH
					       : TLS_KEY_MISMATCH;
}

/* RFC 8410 section 7: octets in octets. */
static enum tls_match
parse_ed25519(
    struct tls_bytes der, const struct tls_leaf *leaf, EVP_PKEY **pkey)
{
	unsigned char raw[32];
	struct tls_bytes secret, public = {raw, sizeof(raw)};

	if (!der_octets(&der, &secret))
		return TLS_KEY_UNREADABLE;
	*pkey = EVP_PKEY_new_raw_private_key_ex(
	    NULL, "ED25519", NULL, secret.p, secret.len);
	if (*pkey == NULL ||
	    EVP_PKEY_get_raw_public_key(*pkey, raw, &public.len) != 1)
		return TLS_KEY_UNREADABLE;
	return same(&public, &leaf->bits) ? TLS_KEY_MATCH : TLS_KEY_MISMATCH;
}

/* A key of the type `type`, in the form that type has. */
static enum tls_match
parse_key(int type, struct tls_bytes der, const struct tls_leaf *leaf,
    EVP_PKEY **pkey)
{
	if (type != leaf->type)
		return TLS_KEY_MISMATCH;
	if (type == EVP_PKEY_RSA)
		return parse_rsa(der, leaf, pkey);
	if (type == EVP_PKEY_EC)
		return parse_ec(der, leaf, pkey);
	return parse_ed25519(der, leaf, pkey);
}

static enum tls_match
parse_pkcs8(
    PKCS8_PRIV_KEY_INFO *p8, const struct tls_leaf *leaf, EVP_PKEY **pkey)
{
	const ASN1_OBJECT *oid;
	enum tls_match m = TLS_KEY_UNREADABLE;
	struct tls_bytes der;
	int len;

	if (p8 == NULL)
		return TLS_KEY_UNREADABLE;
	if (PKCS8_pkey_get0(&oid, &der.p, &len, NULL, p8) == 1 && len > 0) {
		der.len = (size_t)len;
		m = parse_key(OBJ_obj2nid(oid), der, leaf, pkey);
	}
	PKCS8_PRIV_KEY_INFO_free(p8); /* wipes it */
	return m;
}

static enum tls_match
parse_plain(const char *name, struct tls_bytes der, const struct tls_leaf *leaf,
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
	return TLS_KEY_UNREADABLE;
}

/* Encrypted keys. */

bool
tls_key_is_encrypted(const struct tls_pem *pem)
{
	return strcmp(pem->name, PEM_STRING_PKCS8) == 0 ||
	       pem->header[0] != '\0';
}

/* Takes the next line; one that is empty or too long is passed over. */
static bool
next_line(struct tls_bytes *lines, char line[MAX_PASSPHRASE])
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
static enum tls_match
open_traditional(struct tls_pem *pem, char *passphrase,
    const struct tls_leaf *leaf, EVP_PKEY **pkey)
{
	struct tls_file copy = {malloc((size_t)pem->len), (size_t)pem->len};
	enum tls_match m = TLS_KEY_UNREADABLE;
	EVP_CIPHER_INFO cipher;
	struct tls_bytes der;
	long len = pem->len;

	(void)EVP_add_cipher(EVP_aes_128_cbc());
	(void)EVP_add_cipher(EVP_aes_192_cbc());
	(void)EVP_add_cipher(EVP_aes_256_cbc());
	(void)EVP_add_cipher(EVP_des_ede3_cbc());
	if (copy.p == NULL)
		return TLS_KEY_UNREADABLE;
	memcpy(copy.p, pem->data, copy.len);
	if (PEM_get_EVP_CIPHER_INFO(pem->header, &cipher) == 1 &&
	    PEM_do_header(&cipher, copy.p, &len, give_passphrase, passphrase) ==
		1) {
		der.p = copy.p;
		der.len = (size_t)len;
		m = parse_plain(pem->name, der, leaf, pkey);
	}
	tls_file_wipe(&copy);
	return m;
}

static enum tls_match
open_pkcs8(const struct tls_pem *pem, const char *passphrase,
    const struct tls_leaf *leaf, EVP_PKEY **pkey)
{
	const unsigned char *p = pem->data;
	X509_SIG *sealed = d2i_X509_SIG(NULL, &p, pem->len);
	PKCS8_PRIV_KEY_INFO *p8 = NULL;

	if (sealed != NULL)
		p8 = PKCS8_decrypt(sealed, passphrase, (int)strlen(passphrase));
	X509_SIG_free(sealed);
	return parse_pkcs8(p8, leaf, pkey);
}

static enum tls_match
open_encrypted(struct tls_pem *pem, struct tls_bytes lines,
    const struct tls_leaf *leaf, EVP_PKEY **pkey)
{
	char passphrase[MAX_PASSPHRASE];
	enum tls_match m = TLS_KEY_UNREADABLE;

	while (m == TLS_KEY_UNREADABLE && next_line(&lines, passphrase)) {
		if (pem->header[0] != '\0')
			m = open_traditional(pem, passphrase, leaf, pkey);
		else
			m = open_pkcs8(pem, passphrase, leaf, pkey);
	}
	explicit_bzero(passphrase, sizeof(passphrase));
	return m;
}

enum tls_match
tls_key_parse(struct tls_pem *pem, struct tls_bytes passphrases,
    const struct tls_leaf *leaf, EVP_PKEY **pkey)
{
	struct tls_bytes der = {pem->data, (size_t)pem->len};

	*pkey = NULL;
	if (tls_key_is_encrypted(pem))
		return open_encrypted(pem, passphrases, leaf, pkey);
	return parse_plain(pem->name, der, leaf, pkey);
}
