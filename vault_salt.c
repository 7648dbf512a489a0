/*
 * The secret of this installation with which salts are made for users who have
 * none, the unknown among them. It has to be the same in every keeper, at every
 * start and on every host behind one name, or a client that asks twice would
 * see who is known by whose salt stays; and nobody outside may foresee it.
 *
 * It is a file of the administrator's, or the machine's id, which is never
 * shown: only its HMACs are.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vault_parts.h"

#define MACHINE_ID "/etc/machine-id"
/* Where there is none (a container): the same until the machine starts anew. */
#define BOOT_ID "/proc/sys/kernel/random/boot_id"

#define SALT_KEY_MIN 16

/* 0 with at least SALT_KEY_MIN octets of the file, or -1 with errno. */
static int
read_key(const char *path, struct sasl_binding *key)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	ssize_t n;

	if (fd == -1)
		return -1;
	n = read(fd, key->data, sizeof(key->data));
	if (n >= 0 && n < SALT_KEY_MIN)
		errno = EINVAL;
	(void)close(fd);
	key->len = n < SALT_KEY_MIN ? 0 : (size_t)n;
	return key->len > 0 ? 0 : -1;
}

const struct sasl_binding *
vault_salt_key(struct vault *v, char *err)
{
	const char *path = v->conf->scram_secret_file;

	if (v->salt_key.len > 0)
		return &v->salt_key;
	if (path[0] != '\0') {
		if (read_key(path, &v->salt_key) == 0)
			return &v->salt_key;
		(void)snprintf(err, AUTH_ERROR_SIZE,
		    "scram_secret_file %.180s: %s", path,
		    errno == EINVAL ? "less than 16 octets" : strerror(errno));
		return NULL;
	}
	if (read_key(MACHINE_ID, &v->salt_key) == 0 ||
	    read_key(BOOT_ID, &v->salt_key) == 0)
		return &v->salt_key;
	(void)snprintf(err, AUTH_ERROR_SIZE, "%s: %s", BOOT_ID,
	    strerror(errno));
	return NULL;
}
