/*
 * Which response goes with the certificate that a handshake has come to use.
 */
#include <string.h>

#include <openssl/x509.h>

#include "lib/tls_staple.h"

int
tls_staple_add(struct tls_staples *staples, X509 *leaf,
    const unsigned char *der, size_t len)
{
	struct tls_staple *staple = &staples->staple[staples->count];

	if (staples->count == TLS_STAPLES_MAX)
		return -1;
	staple->der = OPENSSL_memdup(der, len);
	if (staple->der == NULL || X509_up_ref(leaf) != 1) {
		OPENSSL_free(staple->der);
		return -1;
	}
	staple->leaf = leaf;
	staple->len = len;
	staples->count++;
	return 0;
}

void
tls_staple_free(struct tls_staples *staples)
{
	size_t i;

	for (i = 0; i < staples->count; i++) {
		X509_free(staples->staple[i].leaf);
		OPENSSL_free(staples->staple[i].der);
	}
	staples->count = 0;
}

/* OpenSSL takes the copy over. */
static int
give(SSL *ssl, void *arg)
{
	const struct tls_staples *staples = arg;
	X509 *leaf = SSL_get_certificate(ssl);
	unsigned char *copy;
	size_t i;

	for (i = 0; leaf != NULL && i < staples->count; i++) {
		if (X509_cmp(staples->staple[i].leaf, leaf) != 0)
			continue;
		copy = OPENSSL_memdup(
		    staples->staple[i].der, staples->staple[i].len);
		if (copy == NULL)
			break;
		(void)SSL_set_tlsext_status_ocsp_resp(
		    ssl, copy, (long)staples->staple[i].len);
		return SSL_TLSEXT_ERR_OK;
	}
	return SSL_TLSEXT_ERR_NOACK;
}

void
tls_staple_serve(SSL_CTX *ctx, struct tls_staples *staples)
{
	(void)SSL_CTX_set_tlsext_status_cb(ctx, give);
	(void)SSL_CTX_set_tlsext_status_arg(ctx, staples);
}
