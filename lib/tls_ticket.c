/*
 * OpenSSL's callback for tickets: which key, and how the ticket is to be sealed.
 * A ticket that no key of ours opens is none, and the handshake a full one.
 */
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include "lib/tls_ticket.h"

#define NAME_LEN 16

/* The parts of a key, as nginx lays them out for each length. */
struct parts {
	const unsigned char *aes, *mac;
	size_t mac_len;
	const char *cipher;
};

static void
take_apart(const struct ticket_key *key, struct parts *parts)
{
	if (key->len == TICKET_KEY_SIZE)
		*parts = (struct parts){key->bytes + NAME_LEN + 32,
		    key->bytes + NAME_LEN, 32, "AES-256-CBC"};
	else
		*parts = (struct parts){key->bytes + NAME_LEN,
		    key->bytes + NAME_LEN + 16, 16, "AES-128-CBC"};
}

/* 1, or -1 with which the handshake fails. */
static int
set_up(const struct ticket_key *key, const unsigned char *iv,
    EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int seal)
{
	OSSL_PARAM params[3];
	struct parts parts;
	EVP_CIPHER *aes;
	int r;

	take_apart(key, &parts);
	aes = EVP_CIPHER_fetch(NULL, parts.cipher, NULL);
	if (aes == NULL)
		return -1;
	params[0] = OSSL_PARAM_construct_octet_string(
	    OSSL_MAC_PARAM_KEY, (void *)parts.mac, parts.mac_len);
	params[1] = OSSL_PARAM_construct_utf8_string(
	    OSSL_MAC_PARAM_DIGEST, (char *)"SHA256", 0);
	params[2] = OSSL_PARAM_construct_end();
	r = EVP_CipherInit_ex2(cipher, aes, parts.aes, iv, seal, NULL) == 1 &&
		EVP_MAC_CTX_set_params(mac, params) == 1
	    ? 1
	    : -1;
	EVP_CIPHER_free(aes);
	return r;
}

/*
 * 0: no key of ours; 2: ours, but the client shall have a newer one. With
 * TLS 1.3 it always shall: a ticket is for one use (RFC 8446, C.4), and without
 * a new one every second handshake would be a full one.
 */
static int
choose(SSL *ssl, unsigned char *name, unsigned char *iv,
    EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int seal)
{
	const struct ticket_keys *keys =
	    SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	size_t i;

	if (keys == NULL || keys->count == 0)
		return 0;
	if (seal) {
		if (RAND_bytes(iv, EVP_MAX_IV_LENGTH) != 1)
			return -1;
		memcpy(name, keys->key[0].bytes, NAME_LEN);
		return set_up(&keys->key[0], iv, cipher, mac, 1);
	}
	for (i = 0; i < keys->count; i++)
		if (memcmp(name, keys->key[i].bytes, NAME_LEN) == 0)
			break;
	if (i == keys->count)
		return 0;
	if (set_up(&keys->key[i], iv, cipher, mac, 0) != 1)
		return -1;
	return i == 0 && SSL_version(ssl) != TLS1_3_VERSION ? 1 : 2;
}

void
tls_ticket_none(SSL_CTX *ctx)
{
	(void)SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
	(void)SSL_CTX_set_num_tickets(ctx, 0);
	(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
}

int
tls_ticket_use(SSL_CTX *ctx, const struct ticket_keys *keys, int64_t lifetime)
{
	(void)SSL_CTX_set_app_data(ctx, (void *)keys);
	(void)SSL_CTX_clear_options(ctx, SSL_OP_NO_TICKET);
	/* OpenSSL's two would cost each session a record and a signature's
	 * worth of work for a connection that never comes. */
	(void)SSL_CTX_set_num_tickets(ctx, 1);
	(void)SSL_CTX_set_timeout(ctx, (long)lifetime);
	return SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, choose) == 1 ? 0 : -1;
}
