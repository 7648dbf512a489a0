/*
 * Certificates that the keeper holds the keys of, on their way into OpenSSL:
 * the chain is taken apart here, the key is tls_sign.c's. Either side uses it.
 */
#include <stdbool.h>
#include <stdio.h>

#include <openssl/x509.h>

#include "lib/tls_settings.h"
#include "lib/tls_sign.h"

#include "lib/tls_chain.h"

/* One certificate of a chain as the keeper sends it; NULL when it is none. */
static X509 *
take_certificate(const unsigned char **chain, size_t *left)
{
	const unsigned char *p = *chain, *end;
	X509 *x509;
	size_t len;

	if (*left < 3)
		return NULL;
	len = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
	p += 3;
	if (len > *left - 3)
		return NULL;
	end = p + len;
	x509 = d2i_X509(NULL, &p, (long)len);
	if (x509 != NULL && p != end) {
		X509_free(x509);
		return NULL;
	}
	*chain = end;
	*left -= 3 + len;
	return x509;
}

/* All certificates of a chain, leaf first; NULL when one is broken. */
static STACK_OF(X509) * take_chain(const unsigned char *chain, size_t left)
{
	STACK_OF(X509) *all = sk_X509_new_null();
	X509 *x509;

	while (all != NULL && left > 0) {
		x509 = take_certificate(&chain, &left);
		if (x509 == NULL || sk_X509_push(all, x509) == 0) {
			X509_free(x509);
			sk_X509_pop_free(all, X509_free);
			return NULL;
		}
	}
	return all;
}

/* Where certificates go: to all connections (ssl is NULL), or to one. */
struct holder {
	SSL_CTX *ctx;
	SSL *ssl;
	const struct tls_keyring *keyring;
	const char *name;
	struct tls_staples *staples;
};

/*
 * Without the override a second certificate of one type, which OpenSSL would
 * put in the first one's place, is an error.
 */
static bool
use_certificates(
    const struct holder *h, unsigned number, X509 *leaf, STACK_OF(X509) * chain)
{
	EVP_PKEY *public = leaf != NULL ? X509_get0_pubkey(leaf) : NULL;
	EVP_PKEY *key = NULL;
	bool used;

	if (public != NULL)
		key = tls_sign_key(public, h->keyring, h->name, number);
	if (key == NULL)
		return false;
	used = h->ssl != NULL
		   ? SSL_use_cert_and_key(h->ssl, leaf, key, chain, 0) == 1
		   : SSL_CTX_use_cert_and_key(h->ctx, leaf, key, chain, 0) == 1;
	EVP_PKEY_free(key);
	return used;
}

static bool
use_chain(
    const struct holder *h, unsigned number, const struct tls_chain *chain)
{
	STACK_OF(X509) *all = take_chain(chain->bytes, chain->len);
	X509 *leaf = all != NULL ? sk_X509_shift(all) : NULL;
	bool used = leaf != NULL && use_certificates(h, number, leaf, all);

	if (used && h->staples != NULL && chain->staple_len > 0)
		used = tls_staple_add(h->staples, leaf, chain->staple,
			   chain->staple_len) == 0;
	X509_free(leaf);
	sk_X509_pop_free(all, X509_free);
	return used;
}

/* One more of them. 1, 0 when there is none, -1: the keeper's fault. */
static int
ask(const struct holder *h, unsigned number, struct tls_chain *chain)
{
	int r =
	    h->keyring->certificates(h->keyring->arg, h->name, number, chain);

	/* A keeper that has been taken over is not to take us, too. */
	return r == 1 && (chain->len > sizeof(chain->bytes) ||
			     chain->staple_len > sizeof(chain->staple))
		   ? -1
		   : r;
}

static int
cannot_use(const char *directive, unsigned number, char *err)
{
	char why[TLS_ERROR_SIZE / 2];

	tls_settings_explain(why, sizeof(why), "OpenSSL cannot read it");
	(void)snprintf(err, TLS_ERROR_SIZE, "%s number %u: %s", directive,
	    number + 1, why);
	return -1;
}

int
tls_chain_use(SSL_CTX *ctx, const struct tls_keyring *keyring,
    struct tls_staples *staples, const char *directive, char *err)
{
	const struct holder h = {ctx, NULL, keyring, "", staples};
	struct tls_chain chain;
	unsigned number;
	int r = 0;

	for (number = 0; number < TLS_MAX_KEYS; number++) {
		r = ask(&h, number, &chain);
		if (r != 1)
			break;
		if (!use_chain(&h, number, &chain))
			return cannot_use(directive, number, err);
	}
	if (number > 0 && r != -1)
		return 0;
	if (r == 0)
		(void)snprintf(
		    err, TLS_ERROR_SIZE, "there is no %s", directive);
	else
		(void)snprintf(err, TLS_ERROR_SIZE, "the keeper has failed");
	return -1;
}

int
tls_chain_use_name(SSL *ssl, const struct tls_keyring *keyring,
    const char *name, struct tls_staples *staples)
{
	const struct holder h = {NULL, ssl, keyring, name, staples};
	struct tls_chain chain;
	int r = ask(&h, 0, &chain);

	if (r != 1)
		return r;
	SSL_certs_clear(ssl);
	return use_chain(&h, 0, &chain) ? 1 : -1;
}
