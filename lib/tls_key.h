/*
 * The parts of a keeper's keys: files, the PEM in them, a private key and the
 * certificate that it must belong to. A private part of the TLS module.
 */
#ifndef LIB_TLS_KEY_H
#define LIB_TLS_KEY_H

#include <stdbool.h>
#include <stddef.h>

#include <openssl/bio.h>
#include <openssl/evp.h>

#include "tls.h"

/* A file's contents. */
struct tls_file {
	unsigned char *p;
	size_t len;
};

/* A part of them, or of something in DER, that is yet to be looked at. */
struct tls_bytes {
	const unsigned char *p;
	size_t len;
};

struct tls_pem {
	char *name, *header;
	unsigned char *data;
	long len;
};

/* The public key of a certificate; `bits` lie in the certificate. */
struct tls_leaf {
	int type, curve; /* EVP_PKEY_RSA, EVP_PKEY_EC, EVP_PKEY_ED25519 */
	struct tls_bytes bits;
};

enum tls_match {
	TLS_KEY_MATCH,
	TLS_KEY_MISMATCH,
	TLS_KEY_UNREADABLE
};

/* Where a fault is, for the one line of text. */
struct tls_place {
	const char *directive, *path;
	char *err; /* TLS_ERROR_SIZE octets */
};

/* Writes "directive path: why" into at->err. -1. */
int tls_file_fail(const struct tls_place *at, const char *why);

/*
 * Reads a whole regular file; a `secret` one that others than owner and group
 * may read is an error. 0, or -1 with at->err. The caller wipes it.
 */
int tls_file_read(
    const struct tls_place *at, bool secret, struct tls_file *file);
void tls_file_wipe(struct tls_file *file);

/* The next block: 1; 0 at the end of the file; -1 when it is broken. */
int tls_pem_next(BIO *bio, struct tls_pem *pem);
void tls_pem_free(struct tls_pem *pem);

/* The public key of a certificate in DER; false when there is none in it. */
bool tls_leaf_parse(struct tls_bytes certificate, struct tls_leaf *leaf);

/* Whether the key needs a passphrase. */
bool tls_key_is_encrypted(const struct tls_pem *pem);

/*
 * Makes the private key in `pem`, which must be that of `leaf`; one that is
 * encrypted is opened by one of the lines of `passphrases`. At TLS_KEY_MATCH
 * *pkey is the caller's.
 */
enum tls_match tls_key_parse(struct tls_pem *pem, struct tls_bytes passphrases,
    const struct tls_leaf *leaf, EVP_PKEY **pkey);

#endif
