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

/* A question about key `key` of `name`. */
static void
begin(const struct keyring *k, struct message *m, enum message_type type,
    const char *name, unsigned key)
{
	message_init(m, type);
	if (k->role == TLS_ROLE_CLIENT)
		message_put(m, M_ROLE, "client");
	if (name[0] != '\0')
		message_put(m, M_SERVER_NAME, name);
	message_put_number(m, M_KEY, key);
}

/* Asks the keeper: 0, or -1 with the reason kept. */
static int
ask(struct keyring *k, struct message *m, enum message_type expected)
{
	if (auth_question(k->keeper, m, expected, clock_in(KEEPER_WAIT)) == 0)
		return 0;
	(void)snprintf(
	    k->reason, sizeof(k->reason), "%s", message_text(m, M_REASON));
	return -1;
}

/* A field of bytes: its length; 0 when it is not there, -1: too long. */
static ssize_t
take(const struct message *m, enum message_field field, unsigned char *out,
    size_t size)
{
	size_t len = 0;
	const void *bytes = message_get_bytes(m, field, &len);

	if (bytes == NULL)
		return 0;
	if (len > size)
		return -1;
	memcpy(out, bytes, len);
	return (ssize_t)len;
}

static int
certificates(
    void *arg, const char *name, unsigned key, struct tls_chain *chain)
{
	static struct message m;
	ssize_t len, staple_len;

	begin(arg, &m, ASK_CERTIFICATES, name, key);
	if (ask(arg, &m, ANSWER_CERTIFICATES) == -1)
		return -1;
	len = take(&m, M_CHAIN, chain->bytes, sizeof(chain->bytes));
	staple_len = take(&m, M_STAPLE, chain->staple, sizeof(chain->staple));
	if (len == -1 || staple_len == -1)
		return -1;
	chain->len = (size_t)len;
	chain->staple_len = (size_t)staple_len;
	return len > 0;
}

static ssize_t
sign(void *arg, const char *name, unsigned key, enum tls_scheme scheme,
    const void *data, size_t len, unsigned char *sig, size_t size)
{
	static struct message m;

	begin(arg, &m, ASK_SIGNATURE, name, key);
	message_put_number(&m, M_SCHEME, scheme);
	message_put_bytes(&m, M_DATA, data, len);
	if (ask(arg, &m, ANSWER_SIGNATURE) == -1)
		return -1;
	return take(&m, M_SIGNATURE, sig, size);
}

struct tls_keyring
keyring_for_tls(struct keyring *k)
{
	return (struct tls_keyring){k, certificates, sign};
}
