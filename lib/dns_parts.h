/*
 * The inside of the look-ups: what lib/dns.c does for the others of its name.
 * They are lib/dns*.c's alone.
 */
#ifndef LIB_DNS_PARTS_H
#define LIB_DNS_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "dns.h"

/*
 * Sends a question of `len` octets as it stands, and waits for the answer by
 * the deadline. The answer's length, at most `size`; -1 when there is none that
 * is one: nobody answered, or said that he cannot.
 */
ssize_t dns_exchange(struct dns *d, const unsigned char *question, size_t len,
    unsigned char *answer, size_t size);

/*
 * Whether all servers that would be asked are on this host. False as well when
 * there are none.
 */
bool dns_is_local(struct dns *d);

#endif
