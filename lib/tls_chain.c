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
static STACK_OF(X509) *
take_chain(const unsigned char *chain, size_t left)
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

/*
 * Without the override a second certificate of one type, which OpenSSL would
 * put in the first one's place, is an error.
 */
static bool
use_certificates(SSL_CTX *ctx, const struct tls_keyring *keyring,
    unsigned number, STACK_OF(X509) *chain)
{
	X509 *leaf = sk_X509_shift(chain);
	EVP_PKEY *public = leaf != NULL ? X509_get0_pubkey(leaf) : NULL;
	EVP_PKEY *key = NULL;
	bool used;

	if (public != NULL)
		key = tls_sign_key(public, keyring, number);
	used = key != NULL &&
	       SSL_CTX_use_cert_and_key(ctx, leaf, key, chain, 0) == 1;
	EVP_PKEY_free(key);
	X509_free(leaf);
	return used;
}

static bool
use_chain(SSL_CTX *ctx, const struct tls_keyring *keyring, unsigned number,
    const unsigned char *chain, size_t len)
{
	STACK_OF(X509) *all = take_chain(chain, len);
	bool used;

	used = all != NULL && use_certificates(ctx, keyring, number, all);
	sk_X509_pop_free(all, X509_free);
	return used;
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
    const char *directive, char *err)
{
	unsigned char chain[TLS_MAX_CHAIN];
	unsigned number;
	ssize_t n = 0;

	for (number = 0; number < TLS_MAX_KEYS; number++) {
		n = keyring->certificates(
		    keyring->arg, number, chain, sizeof(chain));
		if (n <= 0 || (size_t)n > sizeof(chain))
			break;
		if (!use_chain(ctx, keyring, number, chain, (size_t)n))
			return cannot_use(directive, number, err);
	}
	if (number > 0 && (n == 0 || number == TLS_MAX_KEYS))
		return 0;
	if (n == 0)
		(void)snprintf(
		    err, TLS_ERROR_SIZE, "there is no %s", directive);
	else
		(void)snprintf(err, TLS_ERROR_SIZE, "the keeper has failed");
	return -1;
}
