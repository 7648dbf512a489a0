/*
 * SASLprep, by libidn. Printable ASCII, which is nearly all there is, stays as
 * it is (RFC 4013 section 3) and does not come near the library.
 */
#include <string.h>

#include <stringprep.h>

#include "lib/text.h"

#include "sasl_prep.h"

int
sasl_prep(const char *in, char *out, size_t size)
{
	const char *p = in;

	if (text_copy(out, size, in) == -1)
		return -1;
	while (*p >= ' ' && *p <= '~')
		p++;
	if (*p != '\0' &&
	    stringprep(out, size, (Stringprep_profile_flags)0,
		stringprep_saslprep) != STRINGPREP_OK)
		return -1;
	return out[0] != '\0' ? 0 : -1;
}
