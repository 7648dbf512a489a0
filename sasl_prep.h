/*
 * SASLprep (RFC 4013): names and passwords that look the same become the same
 * octets; sasl_*.c's alone.
 */
#ifndef SASL_PREP_H
#define SASL_PREP_H

#include <stddef.h>

/*
 * Prepares `in` into `out` of `size` octets. 0, or -1: it does not fit, is
 * empty afterwards, is not UTF-8 or holds what must not be in there.
 */
int sasl_prep(const char *in, char *out, size_t size);

#endif
