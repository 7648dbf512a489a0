/*
 * CRC-32C, the sum that Castagnoli's polynomial makes (RFC 3720 section 12.1).
 */
#ifndef LIB_CRC32C_H
#define LIB_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The sum of what had the sum `crc` (0: of nothing) and of `data` behind it. */
uint32_t crc32c_add(uint32_t crc, const void *data, size_t len);

#endif
