/*
 * A small provider, in OpenSSL's sense of the word, built into the program. It
 * owns one kind of key, which wraps the public key of a certificate and answers
 * all questions with that key's answers, and one operation: a signature over
 * whole data, which the keyring makes. It holds no private key, computes
 * nothing, and hashes nothing: the keeper gets the data itself, so that it can
 * see what it signs.
 *
 * OpenSSL's default provider stays the one for everything else. Both call
 * their keys RSA, EC and ED25519, since libssl knows keys by these names; ours
 * are only made by asking for the provider by name, and our key asks for its
 * signature under a name that nobody else has.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>

#include "lib/tls_sign.h"

/* Behind "default" in the alphabet: where names are equal, that one wins. */
#define PROVIDER "smtp-frontd"
#define PROPERTY "provider=" PROVIDER
/* How our own key is handed to its import function; nobody else has it. */
#define PARAM_KEY PROVIDER "-key"

struct key {
	EVP_PKEY *public;
	const struct tls_keyring *keyring;
	const char *name;
	unsigned number;
};

enum kind {
	RSA_PKCS1,
	RSA_PSS,
	ECDSA,
	ED25519,
	KINDS
};

/* Digests; the last is for what is signed without one. */
enum digest {
	SHA256,
	SHA384,
	SHA512,
	NONE,
	DIGESTS
};

/* One signature in the making. */
struct signing {
	const struct key *key;
	enum kind kind;
	enum digest digest;
};

static const enum tls_scheme schemes[KINDS][DIGESTS] = {
    [RSA_PKCS1] = {TLS_RSA_PKCS1_SHA256, TLS_RSA_PKCS1_SHA384,
	TLS_RSA_PKCS1_SHA512, 0},
    [RSA_PSS] = {TLS_RSA_PSS_SHA256, TLS_RSA_PSS_SHA384, TLS_RSA_PSS_SHA512, 0},
    [ECDSA] = {TLS_ECDSA_SHA256, TLS_ECDSA_SHA384, TLS_ECDSA_SHA512, 0},
    [ED25519] = {0, 0, 0, TLS_ED25519}};

/* The key. */

static void *
key_new(void *provctx)
{
	(void)provctx;
	return calloc(1, sizeof(struct key));
}

static void
key_free(void *data)
{
	struct key *key = data;

	if (key == NULL)
		return;
	EVP_PKEY_free(key->public);
	free(key);
}

/* Called with our own parameter, by tls_sign_key(); others' keys stay out. */
static int
key_import(void *data, int selection, const OSSL_PARAM params[])
{
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, PARAM_KEY);
	struct key *key = data;

	(void)selection;
	if (p == NULL || p->data_size != sizeof(*key) || key->public != NULL)
		return 0;
	memcpy(key, p->data, sizeof(*key));
	return EVP_PKEY_up_ref(key->public);
}

static const OSSL_PARAM *
key_import_types(int selection)
{
	static const OSSL_PARAM types[] = {
	    OSSL_PARAM_octet_string(PARAM_KEY, NULL, 0), OSSL_PARAM_END};

	(void)selection;
	return types;
}

/*
 * libssl compares this key with the certificate's by having both in one
 * provider, so the public half can be taken out. Whoever asks for the private
 * one too wants to sign without us, and has to be told that he cannot.
 */
static int
key_export(void *data, int selection, OSSL_CALLBACK *callback, void *arg)
{
	const struct key *key = data;

	if (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY)
		return 0;
	return EVP_PKEY_export(key->public, selection, callback, arg);
}

static const OSSL_PARAM *
key_export_types(int selection)
{
	static const OSSL_PARAM none[] = {OSSL_PARAM_END};

	(void)selection;
	return none;
}

/* For all that libssl looks at, the private half is there. */
static int
key_has(const void *data, int selection)
{
	(void)data;
	(void)selection;
	return 1;
}

static int
key_get_params(void *data, OSSL_PARAM params[])
{
	const struct key *key = data;

	return EVP_PKEY_get_params(key->public, params);
}

static const OSSL_PARAM *
key_gettable_params(void *provctx)
{
	static const OSSL_PARAM gettable[] = {
	    OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
	    OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
	    OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
	    OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
	    OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, NULL, 0),
	    OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_MANDATORY_DIGEST, NULL, 0),
	    OSSL_PARAM_END};

	(void)provctx;
	return gettable;
}

static const char *
key_operation_name(int operation)
{
	(void)operation;
	return PROVIDER;
}

/* The signature. */

static void *
signing_new(void *provctx, const char *propq)
{
	(void)provctx;
	(void)propq;
	return calloc(1, sizeof(struct signing));
}

static void
signing_free(void *data)
{
	free(data);
}

/* DIGESTS for one that no scheme of ours has. */
static enum digest
find_digest(const char *name)
{
	static const char *const names[][2] = {
	    [SHA256] = {"SHA2-256", "SHA256"},
	    [SHA384] = {"SHA2-384", "SHA384"},
	    [SHA512] = {"SHA2-512", "SHA512"},
	    [NONE] = {"", ""}};
	enum digest d;

	if (name == NULL)
		return NONE;
	for (d = 0; d < DIGESTS; d++)
		if (strcasecmp(name, names[d][0]) == 0 ||
		    strcasecmp(name, names[d][1]) == 0)
			break;
	return d;
}

static int
set_padding(struct signing *s, const OSSL_PARAM *p)
{
	int padding;

	if (s->kind != RSA_PKCS1 && s->kind != RSA_PSS)
		return 0;
	if (OSSL_PARAM_get_int(p, &padding) != 1)
		return 0;
	if (padding != RSA_PKCS1_PADDING && padding != RSA_PKCS1_PSS_PADDING)
		return 0;
	s->kind = padding == RSA_PKCS1_PADDING ? RSA_PKCS1 : RSA_PSS;
	return 1;
}

/* TLS has but one length of salt, that of the digest (RFC 8446 4.2.3). */
static bool
is_tls_salt(const OSSL_PARAM *p)
{
	int length;

	if (p->data_type == OSSL_PARAM_UTF8_STRING)
		return strcmp(p->data, OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST) == 0;
	return OSSL_PARAM_get_int(p, &length) == 1 &&
	       length == RSA_PSS_SALTLEN_DIGEST;
}

static int
signing_set_params(void *data, const OSSL_PARAM params[])
{
	struct signing *s = data;
	const OSSL_PARAM *p;

	if (params == NULL)
		return 1;
	p = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PAD_MODE);
	if (p != NULL && !set_padding(s, p))
		return 0;
	p = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PSS_SALTLEN);
	return p == NULL || is_tls_salt(p);
}

static const OSSL_PARAM *
signing_settable_params(void *data, void *provctx)
{
	static const OSSL_PARAM settable[] = {
	    OSSL_PARAM_int(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL),
	    OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0),
	    OSSL_PARAM_END};

	(void)data;
	(void)provctx;
	return settable;
}

static int
signing_init(
    void *data, const char *digest, void *keydata, const OSSL_PARAM params[])
{
	struct signing *s = data;

	s->key = keydata;
	if (EVP_PKEY_is_a(s->key->public, "RSA"))
		s->kind = RSA_PKCS1;
	else if (EVP_PKEY_is_a(s->key->public, "EC"))
		s->kind = ECDSA;
	else
		s->kind = ED25519;
	s->digest = find_digest(digest);
	if (s->digest == DIGESTS || schemes[s->kind][s->digest] == 0)
		return 0;
	return signing_set_params(s, params);
}

/* Called twice: without `sig` for the size, then for the signature. */
static int
signing_sign(void *data, unsigned char *sig, size_t *siglen, size_t sigsize,
    const unsigned char *tbs, size_t tbslen)
{
	const struct signing *s = data;
	const struct tls_keyring *ring = s->key->keyring;
	ssize_t n;

	if (sig == NULL) {
		*siglen = (size_t)EVP_PKEY_get_size(s->key->public);
		return 1;
	}
	n = ring->sign(ring->arg, s->key->name, s->key->number,
	    schemes[s->kind][s->digest], tbs, tbslen, sig, sigsize);
	if (n <= 0 || (size_t)n > sigsize) {
		ERR_raise_data(ERR_LIB_USER, ERR_R_OPERATION_FAIL,
		    "the keeper did not sign the handshake");
		return 0;
	}
	*siglen = (size_t)n;
	return 1;
}

/* The provider. */

#define FUNCTION(f) ((void (*)(void))(f))

static const OSSL_DISPATCH key_functions[] = {
    {OSSL_FUNC_KEYMGMT_NEW, FUNCTION(key_new)},
    {OSSL_FUNC_KEYMGMT_FREE, FUNCTION(key_free)},
    {OSSL_FUNC_KEYMGMT_HAS, FUNCTION(key_has)},
    {OSSL_FUNC_KEYMGMT_IMPORT, FUNCTION(key_import)},
    {OSSL_FUNC_KEYMGMT_IMPORT_TYPES, FUNCTION(key_import_types)},
    {OSSL_FUNC_KEYMGMT_EXPORT, FUNCTION(key_export)},
    {OSSL_FUNC_KEYMGMT_EXPORT_TYPES, FUNCTION(key_export_types)},
    {OSSL_FUNC_KEYMGMT_GET_PARAMS, FUNCTION(key_get_params)},
    {OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, FUNCTION(key_gettable_params)},
    {OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, FUNCTION(key_operation_name)},
    {0, NULL}};

static const OSSL_DISPATCH signature_functions[] = {
    {OSSL_FUNC_SIGNATURE_NEWCTX, FUNCTION(signing_new)},
    {OSSL_FUNC_SIGNATURE_FREECTX, FUNCTION(signing_free)},
    {OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, FUNCTION(signing_init)},
    {OSSL_FUNC_SIGNATURE_DIGEST_SIGN, FUNCTION(signing_sign)},
    {OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, FUNCTION(signing_set_params)},
    {OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS,
	FUNCTION(signing_settable_params)},
    {0, NULL}};

static const OSSL_ALGORITHM *
query(void *provctx, int operation, int *no_cache)
{
	static const OSSL_ALGORITHM keys[] = {
	    {"RSA:rsaEncryption", PROPERTY, key_functions, NULL},
	    {"EC:id-ecPublicKey", PROPERTY, key_functions, NULL},
	    {"ED25519", PROPERTY, key_functions, NULL},
	    {NULL, NULL, NULL, NULL}};
	static const OSSL_ALGORITHM signatures[] = {
	    {PROVIDER, PROPERTY, signature_functions, NULL},
	    {NULL, NULL, NULL, NULL}};

	(void)provctx;
	*no_cache = 0;
	if (operation == OSSL_OP_KEYMGMT)
		return keys;
	return operation == OSSL_OP_SIGNATURE ? signatures : NULL;
}

static int
provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
    const OSSL_DISPATCH **out, void **provctx)
{
	static const OSSL_DISPATCH functions[] = {
	    {OSSL_FUNC_PROVIDER_QUERY_OPERATION, FUNCTION(query)}, {0, NULL}};

	(void)in;
	*out = functions;
	*provctx = (void *)(uintptr_t)handle; /* anything but NULL */
	return 1;
}

/*
 * Who asks for a kind of key by its name alone means the default provider's.
 * But OpenSSL 3.0 remembers what was found for a name, and once our key has
 * been looked up for a signature it would be the answer for everybody: TLS 1.2
 * could make no ephemeral key on a curve. So the right answer is there first.
 */
static void
default_remember(void)
{
	static const char *const names[] = {"RSA", "EC", "ED25519"};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		EVP_KEYMGMT_free(EVP_KEYMGMT_fetch(NULL, names[i], NULL));
}

/* Once a process. To load one provider by name is to lose the default one. */
static bool
provider_load(void)
{
	static bool loaded;

	if (loaded)
		return true;
	loaded = OSSL_PROVIDER_load(NULL, "default") != NULL &&
	    OSSL_PROVIDER_add_builtin(NULL, PROVIDER, provider_init) &&
	    OSSL_PROVIDER_load(NULL, PROVIDER) != NULL;
	if (loaded)
		default_remember();
	return loaded;
}

EVP_PKEY *
tls_sign_key(EVP_PKEY *public, const struct tls_keyring *keyring,
    const char *name, unsigned number)
{
	struct key key = {public, keyring, name, number};
	OSSL_PARAM params[] = {
	    OSSL_PARAM_octet_string(PARAM_KEY, &key, sizeof(key)),
	    OSSL_PARAM_END};
	EVP_PKEY *pkey = NULL;
	EVP_PKEY_CTX *ctx;

	if (!provider_load())
		return NULL;
	ctx = EVP_PKEY_CTX_new_from_name(
	    NULL, EVP_PKEY_get0_type_name(public), PROPERTY);
	if (ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
	    EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_KEYPAIR, params) != 1)
		pkey = NULL;
	EVP_PKEY_CTX_free(ctx);
	return pkey;
}
