/*
 * Signing what one side of TLS has to sign, and nothing else: the forms of
 * data, and the kinds of signature that go with each type of key. No form of
 * one side is one of the other's, so that a key for talking to backends cannot
 * be made to speak for this server, nor its keys for a client.
 */
#include <stdbool.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

#include "lib/tls_scheme.h"

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
 * to 48. The words keep a signature for the other side's part, or for
 * another version, from ever being had here.
 */
static bool
is_certificate_verify(
    enum tls_role role, const unsigned char *data, size_t len)
{
	static const char words[][34] = {
	    [TLS_ROLE_SERVER] = "TLS 1.3, server CertificateVerify",
	    [TLS_ROLE_CLIENT] = "TLS 1.3, client CertificateVerify",
	};
	size_t i, head = 64 + sizeof(words[role]); /* with the NUL */

	if (len != head + 32 && len != head + 48)
		return false;
	for (i = 0; i < 64; i++)
		if (data[i] != ' ')
			return false;
	return memcmp(data + 64, words[role], sizeof(words[role])) == 0;
}

/*
 * RFC 5246 section 7.4.3 and RFC 8422 section 5.4: both sides' random octets,
 * and behind them the server's parameters.
 */
#define RANDOMS 64

/* ServerECDHParams: a named curve (3), its number, a point of that curve. */
static bool
is_curve(const unsigned char *params, size_t len)
{
	static const struct {
		unsigned curve;
		size_t point;
	} curves[] = {
	    {23, 65}, {24, 97}, {25, 133}, /* P-256, P-384, P-521 */
	    {26, 65}, {27, 97}, {28, 129}, /* Brainpool's */
	    {29, 32}, {30, 56} /* X25519, X448 */
	};
	size_t i;

	if (len < 4 || params[0] != 3 || len != 4u + params[3])
		return false;
	for (i = 0; i < sizeof(curves) / sizeof(curves[0]); i++)
		if (curves[i].curve == (params[1] * 256u + params[2]))
			return curves[i].point == params[3];
	return false;
}

/* ServerDHParams: prime, generator and public value, each with its length. */
static bool
is_dh(const unsigned char *params, size_t len)
{
	size_t i, n[3];

	for (i = 0; i < 3; i++) {
		if (len < 2)
			return false;
		n[i] = (size_t)params[0] << 8 | params[1];
		if (n[i] == 0 || n[i] > len - 2)
			return false;
		params += 2 + n[i];
		len -= 2 + n[i];
	}
	/* 1024 to 8192 bits, and nothing greater than the prime. */
	return len == 0 && n[0] >= 128 && n[0] <= 1024 && n[1] <= n[0] &&
	    n[2] <= n[0];
}

static bool
is_key_exchange(const unsigned char *data, size_t len)
{
	return len > RANDOMS &&
	    (is_curve(data + RANDOMS, len - RANDOMS) ||
		is_dh(data + RANDOMS, len - RANDOMS));
}

/* A handshake's message: its type, its length in 3 octets (RFC 5246 7.4). */
#define HEAD	     4
#define SERVER_HELLO 2

/* Takes the message's type; the octets it has, or 0 when it is none. */
static size_t
next_message(const unsigned char *data, size_t len, unsigned *type)
{
	size_t body;

	if (len < HEAD)
		return 0;
	*type = data[0];
	body = (size_t)data[1] << 16 | (size_t)data[2] << 8 | data[3];
	return body <= len - HEAD ? HEAD + body : 0;
}

/*
 * RFC 5246 section 7.4.8: the messages of the handshake from the ClientHello to
 * the client's key exchange, in the order of section 7.3, of a server that
 * speaks TLS 1.2 and wants a certificate.
 */
static bool
is_transcript(const unsigned char *data, size_t len)
{
	static const struct {
		unsigned type;
		bool may_miss;
	} order[] = {{1, false}, {SERVER_HELLO, false}, {11, false},
	    {22, true}, /* status of the certificate (RFC 6066 section 8) */
	    {12, true}, /* key exchange: none with RSA's */
	    {13, false}, {14, false}, {11, false}, {16, false}};
	const size_t count = sizeof(order) / sizeof(order[0]);
	size_t i, n;
	unsigned type = 0;

	for (i = 0; len > 0 && i < count; i++, data += n, len -= n) {
		n = next_message(data, len, &type);
		while (order[i].type != type && order[i].may_miss)
			i++;
		if (n == 0 || order[i].type != type)
			return false;
		if (type == SERVER_HELLO &&
		    (n < HEAD + 2 || data[HEAD] != 3 || data[HEAD + 1] != 3))
			return false;
	}
	return len == 0 && i == count;
}

/* TLS 1.3 has done away with the old padding (RFC 8446 section 4.2.3). */
static bool
may_sign(const struct scheme *s, const struct tls_scheme_data *data)
{
	if (is_certificate_verify(data->role, data->p, data->len))
		return s->padding != RSA_PKCS1_PADDING;
	return data->role == TLS_ROLE_CLIENT
	    ? is_transcript(data->p, data->len)
	    : is_key_exchange(data->p, data->len);
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
tls_scheme_sign(EVP_PKEY *pkey, int type, enum tls_scheme scheme,
    const struct tls_scheme_data *data, unsigned char *sig, size_t size)
{
	const struct scheme *s = find_scheme(scheme, type);
	EVP_PKEY_CTX *pctx;
	EVP_MD_CTX *ctx;
	ssize_t n = -1;

	if (s == NULL || !may_sign(s, data))
		return -1;
	ctx = EVP_MD_CTX_new();
	if (ctx != NULL &&
	    EVP_DigestSignInit_ex(
		ctx, &pctx, s->digest, NULL, NULL, pkey, NULL) == 1 &&
	    set_padding(pctx, s) &&
	    EVP_DigestSign(ctx, sig, &size, data->p, data->len) == 1)
		n = (ssize_t)size;
	EVP_MD_CTX_free(ctx);
	ERR_clear_error();
	return n;
}
