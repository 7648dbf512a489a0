/*
 * Bit by bit: it is for what is short and rare, and needs no table then.
 */
#include "lib/crc32c.h"

uint32_t
crc32c_add(uint32_t crc, const void *data, size_t len)
{
	const unsigned char *p = data;
	int bit;

	crc = ~crc;
	for (; len > 0; p++, len--) {
		crc ^= *p;
		for (bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0x82f63b78) : 0);
	}
	return ~crc;
}
