/*
 * The certificates and signatures of a session's handshakes, asked of its
 * keeper: the private keys never come here.
 */
#ifndef KEYRING_H
#define KEYRING_H

#include "auth.h"
#include "lib/tls.h"

struct keyring {
	struct auth_channel *keeper;
	enum tls_role role;
	/* Why the keeper could not: OpenSSL's calls do not bring it back. */
	char reason[TLS_ERROR_SIZE];
};

/* `k` as the TLS module wants it, which refers to `k` from then on. */
struct tls_keyring keyring_for_tls(struct keyring *k);

#endif
