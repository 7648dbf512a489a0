/*
 * Channel bindings, server side: octets that both ends of one TLS connection
 * have and nobody who sits between two of them. tls-unique is not among them:
 * without the extended master secret it was forged (RFC 7627), and TLS 1.3 has
 * none.
 */
#include <string.h>

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "tls_binding.h"

#define EXPORTER_SIZE 32

/*
 * RFC 9266. Before TLS 1.3 the exporter's secret is the connection's own only
 * with the extended master secret (section 4.2).
 */
static ssize_t
exporter(SSL *ssl, unsigned char *out, size_t size)
{
	static const char label[] = "EXPORTER-Channel-Binding";

	if (size < EXPORTER_SIZE ||
	    (SSL_version(ssl) < TLS1_3_VERSION &&
		SSL_get_extms_support(ssl) != 1) ||
	    SSL_export_keying_material(ssl, out, EXPORTER_SIZE, label,
		strlen(label), (const unsigned char *)"", 0, 1) != 1)
		return -1;
	return EXPORTER_SIZE;
}

/*
 * RFC 5929 section 4.1: the certificate, hashed as its own signature is; one
 * signed with no hash or several has no such binding. In a resumed session no
 * certificate was shown, and there may be several that could have been.
 */
static ssize_t
end_point(SSL *ssl, unsigned char *out, size_t size)
{
	X509 *cert = SSL_get_certificate(ssl);
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned len = 0;
	int nid = NID_undef;

	if (cert == NULL || SSL_session_reused(ssl) ||
	    X509_get_signature_info(cert, &nid, NULL, NULL, NULL) != 1 ||
	    nid == NID_undef)
		return -1;
	if (nid == NID_md5 || nid == NID_sha1)
		nid = NID_sha256;
	if (EVP_get_digestbynid(nid) == NULL ||
	    X509_digest(cert, EVP_get_digestbynid(nid), hash, &len) != 1 ||
	    len > size)
		return -1;
	memcpy(out, hash, len);
	return len;
}

ssize_t
tls_binding_make(SSL *ssl, const char *type, unsigned char *out, size_t size)
{
	static const struct {
		const char *type;
		ssize_t (*make)(SSL *ssl, unsigned char *out, size_t size);
	} rows[] = {
	    {"tls-exporter", exporter},
	    {"tls-server-end-point", end_point},
	};
	size_t i;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (strcmp(rows[i].type, type) == 0)
			return rows[i].make(ssl, out, size);
	return -1;
}
