/*
 * Client certificates: the CAs and revocation lists that they are verified
 * with, the verification, and the facts of one. Whether a client is admitted
 * with what was found, and who it is to be, is decided by the session.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "lib/tls_settings.h"

#include "lib/tls_verify.h"

/* --- the verification ---------------------------------------------------- */

/* The errors that nginx's optional_no_ca passes over: there is no known CA. */
static bool
is_no_ca(long error)
{
	return error == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT ||
	    error == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN ||
	    error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY ||
	    error == X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE;
}

/*
 * Goes on after every error, and keeps the worst. OpenSSL keeps the last one: a
 * certificate that is revoked and whose CA is unknown would be taken for one
 * whose CA is unknown.
 */
static int
note_error(int ok, X509_STORE_CTX *store)
{
	int *worst = X509_STORE_CTX_get_app_data(store);
	int error = X509_STORE_CTX_get_error(store);

	if (!ok && (*worst == X509_V_OK || is_no_ca(*worst)) &&
	    (*worst == X509_V_OK || !is_no_ca(error)))
		*worst = error;
	return 1;
}

static int
verify(X509_STORE_CTX *store, void *arg)
{
	int worst = X509_V_OK;

	(void)arg;
	/* What is left in OpenSSL's queue would be taken for a TLS error. */
	(void)ERR_set_mark();
	(void)X509_STORE_CTX_set_app_data(store, &worst);
	X509_STORE_CTX_set_verify_cb(store, note_error);
	if (X509_verify_cert(store) != 1 && worst == X509_V_OK)
		worst = X509_V_ERR_UNSPECIFIED;
	X509_STORE_CTX_set_error(store, worst);
	(void)X509_STORE_CTX_set_app_data(store, NULL);
	(void)ERR_pop_to_mark();
	return 1;
}

/* --- what it is verified with -------------------------------------------- */

/* Where the contents of files go. */
struct loader {
	SSL_CTX *ctx;
	EVP_MD_CTX *digest; /* of everything that was loaded */
	char *err;
};

/* A key in the file is not wanted, and nobody is asked how to open it. */
static int
no_passphrase(char *buf, int size, int writing, void *arg)
{
	(void)buf, (void)size, (void)writing, (void)arg;
	return -1;
}

static bool
digest_item(const struct loader *l, const X509_INFO *item, bool crl)
{
	unsigned char md[EVP_MAX_MD_SIZE];
	unsigned len = 0;
	int r;

	r = crl ? X509_CRL_digest(item->crl, EVP_sha256(), md, &len)
		: X509_digest(item->x509, EVP_sha256(), md, &len);
	return r == 1 && EVP_DigestUpdate(l->digest, md, len) == 1;
}

/* 1: taken; 0: it is of another kind; -1: OpenSSL does not take it. */
static int
add_ca(const struct loader *l, const X509_INFO *item)
{
	X509_STORE *store = SSL_CTX_get_cert_store(l->ctx);

	if (item->x509 == NULL)
		return 0;
	return digest_item(l, item, false) &&
		X509_STORE_add_cert(store, item->x509) == 1
	    ? 1
	    : -1;
}

/* One whose name clients are told, so that they choose the right one. */
static int
add_named_ca(const struct loader *l, const X509_INFO *item)
{
	if (item->x509 != NULL &&
	    SSL_CTX_add_client_CA(l->ctx, item->x509) != 1)
		return -1;
	return add_ca(l, item);
}

static int
add_crl(const struct loader *l, const X509_INFO *item)
{
	X509_STORE *store = SSL_CTX_get_cert_store(l->ctx);

	if (item->crl == NULL)
		return 0;
	return digest_item(l, item, true) &&
		X509_STORE_add_crl(store, item->crl) == 1 &&
		X509_STORE_set_flags(store,
		    X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL) == 1
	    ? 1
	    : -1;
}

/* A directive that names a PEM file, and what is made of the items in it. */
struct source {
	const char *directive, *path, *wanted;
	int (*add)(const struct loader *l, const X509_INFO *item);
};

static int
load_failed(const struct loader *l, const struct source *from, const char *why)
{
	ERR_clear_error();
	(void)snprintf(l->err, TLS_ERROR_SIZE, "%s %s: %s", from->directive,
	    from->path, why);
	return -1;
}

static int
load_items(const struct loader *l, const struct source *from,
    const STACK_OF(X509_INFO) * items)
{
	int i, r, taken = 0;

	for (i = 0; i < sk_X509_INFO_num(items); i++) {
		r = from->add(l, sk_X509_INFO_value(items, i));
		if (r == -1)
			return load_failed(l, from, "OpenSSL cannot use it");
		taken += r;
	}
	return taken > 0 ? 0 : load_failed(l, from, from->wanted);
}

static int
load_file(const struct loader *l, const struct source *from)
{
	STACK_OF(X509_INFO) * items;
	BIO *file;
	int r;

	if (from->path == NULL || from->path[0] == '\0')
		return 0;
	file = BIO_new_file(from->path, "re");
	if (file == NULL)
		return load_failed(l, from, "cannot be opened");
	items = PEM_X509_INFO_read_bio(file, NULL, no_passphrase, NULL);
	(void)BIO_free(file);
	if (items == NULL)
		return load_failed(l, from, "is not PEM");
	r = load_items(l, from, items);
	sk_X509_INFO_pop_free(items, X509_INFO_free);
	return r;
}

static int
load_all(const struct loader *l, const struct tls_settings *settings)
{
	const struct source sources[] = {
	    {"ssl_client_certificate", settings->client_certificate,
		"there is no certificate in it", add_named_ca},
	    {"ssl_trusted_certificate", settings->trusted_certificate,
		"there is no certificate in it", add_ca},
	    {"ssl_crl", settings->crl, "there is no revocation list in it",
		add_crl},
	};
	size_t i;

	for (i = 0; i < sizeof(sources) / sizeof(sources[0]); i++)
		if (load_file(l, &sources[i]) == -1)
			return -1;
	return 0;
}

/*
 * A session that is resumed brings the verdict that was made of its client's
 * certificate. It is worth something only where the same certificates and lists
 * would be asked: not on another port whose tickets have the same key, and not
 * after a revocation list was replaced.
 */
static int
bind_sessions(const struct loader *l, const struct tls_settings *settings,
    unsigned char binding[TLS_BINDING_LEN])
{
	char text[64];
	unsigned len = 0;
	int n;

	n = snprintf(text, sizeof(text), "smtp-frontd verify %d depth %u",
	    (int)settings->verify, settings->verify_depth);
	if (EVP_DigestUpdate(l->digest, text, (size_t)n) == 1 &&
	    EVP_DigestFinal_ex(l->digest, binding, &len) == 1 &&
	    SSL_CTX_set_session_id_context(l->ctx, binding, len) == 1)
		return 0;
	ERR_clear_error();
	(void)snprintf(l->err, TLS_ERROR_SIZE, "out of memory");
	return -1;
}

int
tls_verify_apply(SSL_CTX *ctx, const struct tls_settings *settings,
    unsigned char binding[TLS_BINDING_LEN], char *err)
{
	struct loader l = {.ctx = ctx, .digest = EVP_MD_CTX_new(), .err = err};
	int r = -1;

	if (l.digest == NULL ||
	    EVP_DigestInit_ex(l.digest, EVP_sha256(), NULL) != 1) {
		ERR_clear_error();
		(void)snprintf(err, TLS_ERROR_SIZE, "out of memory");
	} else if (settings->verify == TLS_VERIFY_OFF) {
		r = bind_sessions(&l, settings, binding);
	} else if (load_all(&l, settings) == 0) {
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
		SSL_CTX_set_verify_depth(ctx, (int)settings->verify_depth);
		SSL_CTX_set_cert_verify_callback(ctx, verify, NULL);
		r = bind_sessions(&l, settings, binding);
	}
	EVP_MD_CTX_free(l.digest);
	return r;
}

/* --- the facts of a certificate ------------------------------------------ */

/*
 * Copies text that will stand in a log, a header, a variable. What does not fit
 * or has control characters in it is left out whole: half a name is another's.
 */
static void
take_text(char *out, size_t size, const void *text, long len)
{
	const unsigned char *p = text;
	long i;

	if (len <= 0 || (size_t)len >= size)
		return;
	for (i = 0; i < len; i++)
		if (p[i] < ' ' || p[i] == 0x7f)
			return;
	memcpy(out, p, (size_t)len);
	out[len] = '\0';
}

/* A name as nginx writes it (RFC 2253): printable ASCII. */
static void
take_name(char *out, size_t size, const X509_NAME *name)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text = NULL;
	long len;

	if (bio != NULL &&
	    X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) >= 0) {
		len = BIO_get_mem_data(bio, &text);
		take_text(out, size, text, len);
	}
	(void)BIO_free(bio);
}

/* `digits` are 16; what does not fit is left out whole. */
static void
take_hex(char *out, size_t size, const unsigned char *p, size_t len,
    const char *digits)
{
	size_t i;

	if (2 * len >= size)
		return;
	for (i = 0; i < len; i++) {
		out[2 * i] = digits[p[i] >> 4];
		out[2 * i + 1] = digits[p[i] & 0xf];
	}
	out[2 * len] = '\0';
}

static void
take_digest(char *out, size_t size, const X509 *x509, const EVP_MD *type)
{
	unsigned char md[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	if (X509_digest(x509, type, md, &len) == 1)
		take_hex(out, size, md, len, "0123456789abcdef");
}

/* In upper case, with a sign, as OpenSSL and so nginx has it. */
static void
take_serial(char *out, size_t size, const X509 *x509)
{
	const ASN1_INTEGER *serial = X509_get0_serialNumber(x509);

	if (ASN1_STRING_type(serial) == V_ASN1_NEG_INTEGER) {
		*out++ = '-';
		size--;
	}
	take_hex(out, size, ASN1_STRING_get0_data(serial),
	    (size_t)ASN1_STRING_length(serial), "0123456789ABCDEF");
}

static void
take_pem(char *out, size_t size, const X509 *x509)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text = NULL;
	long len;

	if (bio != NULL && PEM_write_bio_X509(bio, x509) == 1) {
		len = BIO_get_mem_data(bio, &text);
		if (len > 0 && (size_t)len < size) {
			memcpy(out, text, (size_t)len);
			out[len] = '\0';
		}
	}
	(void)BIO_free(bio);
}

/* --- who it says that the client is -------------------------------------- */

/* Any of ASN.1's texts as UTF-8; its octets are judged by take_text(). */
static void
take_string(char *out, size_t size, const ASN1_STRING *string)
{
	unsigned char *utf8 = NULL;
	int len = ASN1_STRING_to_UTF8(&utf8, string);

	take_text(out, size, utf8, len);
	OPENSSL_free(utf8);
}

/* One name, or none: of two, whose is the login? */
static void
take_common_name(char *out, size_t size, const X509 *x509)
{
	const X509_NAME *name = X509_get_subject_name(x509);
	int i = X509_NAME_get_index_by_NID(name, NID_commonName, -1);

	if (i >= 0 && X509_NAME_get_index_by_NID(name, NID_commonName, i) < 0)
		take_string(out, size,
		    X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, i)));
}

static const ASN1_STRING *
email_of(const GENERAL_NAME *name)
{
	return name->type == GEN_EMAIL ? name->d.rfc822Name : NULL;
}

/* Microsoft's User Principal Name, 1.3.6.1.4.1.311.20.2.3. */
static const ASN1_STRING *
upn_of(const GENERAL_NAME *name)
{
	const OTHERNAME *other = name->d.otherName;

	return name->type == GEN_OTHERNAME &&
		OBJ_obj2nid(other->type_id) == NID_ms_upn &&
		other->value->type == V_ASN1_UTF8STRING
	    ? other->value->value.utf8string
	    : NULL;
}

static void
take_alternative(char *out, size_t size, const GENERAL_NAMES *names,
    const ASN1_STRING *(*value_of)(const GENERAL_NAME *name))
{
	const ASN1_STRING *value, *only = NULL;
	int i;

	for (i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		value = value_of(sk_GENERAL_NAME_value(names, i));
		if (value == NULL)
			continue;
		if (only != NULL)
			return;
		only = value;
	}
	if (only != NULL)
		take_string(out, size, only);
}

static void
take_identities(struct tls_client *c, const X509 *x509)
{
	GENERAL_NAMES *names =
	    X509_get_ext_d2i(x509, NID_subject_alt_name, NULL, NULL);

	take_common_name(
	    c->identity[TLS_SUBJECT_CN], TLS_IDENTITY_SIZE, x509);
	take_digest(c->identity[TLS_FINGERPRINT], TLS_IDENTITY_SIZE, x509,
	    EVP_sha256());
	take_alternative(
	    c->identity[TLS_SAN_EMAIL], TLS_IDENTITY_SIZE, names, email_of);
	take_alternative(
	    c->identity[TLS_SAN_UPN], TLS_IDENTITY_SIZE, names, upn_of);
	GENERAL_NAMES_free(names);
}

/* ------------------------------------------------------------------------- */

/*
 * The verdict of the handshake; that of a session which is resumed was made
 * when the certificate had not expired yet.
 */
static long
verdict(const SSL *ssl, const X509 *x509)
{
	long result = SSL_get_verify_result(ssl);

	if ((result == X509_V_OK || is_no_ca(result)) &&
	    X509_cmp_current_time(X509_get0_notAfter(x509)) <= 0)
		return X509_V_ERR_CERT_HAS_EXPIRED;
	return result;
}

static void
describe(struct tls_client *c, const X509 *x509, long result)
{
	c->state = result == X509_V_OK ? TLS_CLIENT_VERIFIED
	    : is_no_ca(result)	       ? TLS_CLIENT_NO_CA
				       : TLS_CLIENT_BAD;
	(void)snprintf(c->verify, sizeof(c->verify), "%s%s",
	    result == X509_V_OK ? "SUCCESS" : "FAILED:",
	    result == X509_V_OK ? "" : X509_verify_cert_error_string(result));
	take_name(
	    c->subject, sizeof(c->subject), X509_get_subject_name(x509));
	take_name(c->issuer, sizeof(c->issuer), X509_get_issuer_name(x509));
	take_serial(c->serial, sizeof(c->serial), x509);
	take_digest(
	    c->fingerprint, sizeof(c->fingerprint), x509, EVP_sha1());
	take_pem(c->certificate, sizeof(c->certificate), x509);
	take_identities(c, x509);
	ERR_clear_error();
}

int
tls_verify_client(const SSL *ssl, struct tls_client **client)
{
	const X509 *x509;

	if (SSL_get_verify_mode(ssl) == SSL_VERIFY_NONE)
		return 0;
	*client = calloc(1, sizeof(**client));
	if (*client == NULL)
		return -1;
	x509 = SSL_get0_peer_certificate(ssl);
	if (x509 != NULL)
		describe(*client, x509, verdict(ssl, x509));
	else
		(void)snprintf(
		    (*client)->verify, sizeof((*client)->verify), "NONE");
	return 0;
}
