/*
 * One private key with what belongs to it: its chain of certificates, and what
 * its authority says of it. A private part of the TLS module.
 */
#ifndef LIB_TLS_PAIR_H
#define LIB_TLS_PAIR_H

#include <openssl/evp.h>

#include "tls_key.h"

struct tls_pair {
	EVP_PKEY *pkey;
	int type; /* EVP_PKEY_RSA, EVP_PKEY_EC, EVP_PKEY_ED25519 */
	unsigned char *chain; /* as struct tls_chain has it */
	size_t chain_len;
	unsigned char *staple; /* an OCSP response in DER; NULL: none */
	size_t staple_len;
};

/* Where its parts are, and how complaints call them. */
struct tls_pair_files {
	struct tls_place chain, key, staple; /* staple.path NULL: none */
};

/*
 * Loads a pair, whose key is the chain's first certificate's; `passphrases` as
 * tls_key_parse() has them. 0, or -1 with the place's err; tls_pair_free() it
 * either way.
 */
int tls_pair_load(struct tls_pair *pair, const struct tls_pair_files *files,
    struct tls_bytes passphrases);

/* Frees what is in it. */
void tls_pair_free(struct tls_pair *pair);

#endif
