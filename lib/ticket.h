/*
 * Keys of TLS session tickets: where they come from and how long they live. What
 * is done with them is lib/tls_ticket.c's.
 */
#ifndef LIB_TICKET_H
#define LIB_TICKET_H

#include <stddef.h>
#include <stdint.h>

#define TICKET_KEYS_MAX	  8
#define TICKET_KEY_SIZE	  80
#define TICKET_ERROR_SIZE 256

/*
 * As nginx has them in its files: 16 octets of name, then of 80 octets 32 for
 * HMAC and 32 for AES-256, or of 48 octets 16 for AES-128 and 16 for HMAC.
 */
struct ticket_key {
	int64_t made; /* seconds since 1970; 0 for one from a file */
	size_t len;   /* 48 or 80 */
	unsigned char bytes[TICKET_KEY_SIZE];
};

/* The first one encrypts, all decrypt. Their owner wipes them. */
struct ticket_keys {
	size_t count;
	struct ticket_key key[TICKET_KEYS_MAX];
};

/*
 * Reads nginx's files, which nobody but owner and group may read. 0, or -1 with
 * a line in `err` (TICKET_ERROR_SIZE octets).
 */
int ticket_read(char *const *paths, size_t count, struct ticket_keys *keys,
    char *err);

/*
 * Puts a new key first when the one there has served for `lifetime` seconds at
 * the time `now`, and forgets those that no ticket in use is sealed with any
 * more. 1 when something changed, 0, or -1 without randomness.
 */
int ticket_rotate(struct ticket_keys *keys, int64_t lifetime, int64_t now);

/*
 * The keys that all processes of this user share in `directory`, which must be
 * his or root's and no other's to write: made by whoever comes first, rotated
 * by whoever finds them old. Waits for nobody: whoever is second while they are
 * made goes without. 0, or -1 with a line in `err` and no keys: also where new
 * ones cannot be stored.
 */
int ticket_share(const char *directory, int64_t lifetime,
    struct ticket_keys *keys, char *err);

void ticket_wipe(struct ticket_keys *keys);

#endif
