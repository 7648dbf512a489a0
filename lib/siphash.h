/*
 * A short keyed hash: who does not know the key can neither foresee nor invert
 * it. For tables that others fill, not for passwords that are stored.
 */
#ifndef LIB_SIPHASH_H
#define LIB_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

#define SIPHASH_KEY_SIZE 16

/* SipHash-2-4 of `len` octets of `data`. */
uint64_t siphash_of(
    const unsigned char key[SIPHASH_KEY_SIZE], const void *data, size_t len);

#endif
