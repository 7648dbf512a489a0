/*
 * Each of the two functions of a keyring is a question to the keeper. Which of
 * its keys may answer follows from the role, that is from whose handshake it is.
 */
#include <stdio.h>
#include <string.h>

#include "lib/clock.h"

#include "keyring.h"

/* How long the keeper may take to load keys or to sign, in milliseconds. */
#define KEEPER_WAIT 10000

static void
begin(const struct keyring *k, struct message *m, enum message_type type)
{
	message_init(m, type);
	if (k->role == TLS_ROLE_CLIENT)
		message_put(m, M_ROLE, "client");
}

/* Asks the keeper; the length of `field` copied to `out`, 0 if not there. */
static ssize_t
ask(struct keyring *k, struct message *m, enum message_field field,
    unsigned char *out, size_t size)
{
	const enum message_type expected = field == M_CHAIN
	    ? ANSWER_CERTIFICATES
	    : ANSWER_SIGNATURE;
	const void *bytes;
	size_t len = 0;

	if (auth_question(k->keeper, m, expected, clock_in(KEEPER_WAIT)) ==
	    -1) {
		(void)snprintf(k->reason, sizeof(k->reason), "%s",
		    message_text(m, M_REASON));
		return -1;
	}
	bytes = message_get_bytes(m, field, &len);
	if (bytes == NULL)
		return 0;
	if (len > size)
		return -1;
	memcpy(out, bytes, len);
	return (ssize_t)len;
}

static ssize_t
certificates(void *arg, unsigned key, unsigned char *chain, size_t size)
{
	static struct message m;

	begin(arg, &m, ASK_CERTIFICATES);
	message_put_number(&m, M_KEY, key);
	return ask(arg, &m, M_CHAIN, chain, size);
}

static ssize_t
sign(void *arg, unsigned key, enum tls_scheme scheme, const void *data,
    size_t len, unsigned char *sig, size_t size)
{
	static struct message m;

	begin(arg, &m, ASK_SIGNATURE);
	message_put_number(&m, M_KEY, key);
	message_put_number(&m, M_SCHEME, scheme);
	message_put_bytes(&m, M_DATA, data, len);
	return ask(arg, &m, M_SIGNATURE, sig, size);
}

struct tls_keyring
keyring_for_tls(struct keyring *k)
{
	return (struct tls_keyring){k, certificates, sign};
}
