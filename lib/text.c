/*
 * Small pure functions on text: numbers as the directives and replies write
 * them, words of lists, base64, xtext, comparisons. Everybody uses them. There
 * is no I/O, no state, no locale and no memory here, and nothing that knows
 * SMTP.
 */
#include <string.h>

#include "lib/text.h"

/* Not INT64_MAX: a time is added to the clock, and the sum must hold it. */
#define TIME_MAX ((uint64_t)INT64_MAX / 2)

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static unsigned char
lower(char c)
{
	return (unsigned char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

/* Digits at the front of `s`, at most `max`. What follows them, or NULL. */
static const char *
parse_digits(const char *s, uint64_t max, uint64_t *out)
{
	uint64_t n = 0, digit;

	if (!is_digit(*s))
		return NULL;
	for (; is_digit(*s); s++) {
		digit = (uint64_t)(*s - '0');
		if (digit > max || n > (max - digit) / 10)
			return NULL;
		n = n * 10 + digit;
	}
	*out = n;
	return s;
}

int
text_number(const char *s, uint64_t max, uint64_t *out)
{
	uint64_t n;

	s = parse_digits(s, max, &n);
	if (s == NULL || *s != '\0')
		return -1;
	*out = n;
	return 0;
}

int
text_size(const char *s, size_t *out)
{
	uint64_t n;
	unsigned shift = 0;

	s = parse_digits(s, SIZE_MAX, &n);
	if (s == NULL)
		return -1;
	switch (lower(*s)) {
	case 'k':
		shift = 10;
		break;
	case 'm':
		shift = 20;
		break;
	case 'g':
		shift = 30;
		break;
	}
	if (shift != 0)
		s++;
	if (*s != '\0' || n > (SIZE_MAX >> shift))
		return -1;
	*out = (size_t)n << shift;
	return 0;
}

/* From small to great, and "ms" before the "m" it begins with. */
static const struct unit {
	const char *name;
	uint64_t ms;
} units[] = {
    {"ms", 1},
    {"s", 1000},
    {"m", 60 * 1000},
    {"h", 3600 * 1000},
    {"d", UINT64_C(86400) * 1000},
    {"w", UINT64_C(7) * 86400 * 1000},
    {"M", UINT64_C(30) * 86400 * 1000},
    {"y", UINT64_C(365) * 86400 * 1000},
};

#define UNIT_COUNT   (sizeof(units) / sizeof(units[0]))
#define UNIT_SECONDS 1

/* The unit that `s` begins with, as an index; UNIT_COUNT for none. */
static size_t
find_unit(const char *s)
{
	size_t i;

	for (i = 0; i < UNIT_COUNT; i++)
		if (strncmp(s, units[i].name, strlen(units[i].name)) == 0)
			break;
	return i;
}

int
text_time(const char *s, int64_t *out_ms)
{
	uint64_t n, total = 0;
	size_t unit, above = UNIT_COUNT;

	do {
		s = parse_digits(s, TIME_MAX, &n);
		if (s == NULL)
			return -1;
		unit = find_unit(s);
		if (unit < UNIT_COUNT)
			s += strlen(units[unit].name);
		while (*s == ' ')
			s++;
		if (unit == UNIT_COUNT && *s == '\0')
			unit = UNIT_SECONDS;
		if (unit >= above || n > (TIME_MAX - total) / units[unit].ms)
			return -1;
		total += n * units[unit].ms;
		above = unit;
	} while (*s != '\0');
	*out_ms = (int64_t)total;
	return 0;
}

/* What no octet is. */
#define QUOTE_END 256

/*
 * One octet of a quoted word at *s, which is moved on. It is QUOTE_END at the
 * closing quote; -1 when the text ends first or a backslash is before anything
 * but a quote or a backslash, which is a slip that must not pass as a value.
 */
static int
quoted_octet(const char **s)
{
	const char *p = *s;

	if (*p == '"') {
		*s = p + 1;
		return QUOTE_END;
	}
	if (*p == '\\' && *++p != '"' && *p != '\\')
		return -1;
	if (*p == '\0')
		return -1;
	*s = p + 1;
	return (unsigned char)*p;
}

static int
quoted_word(const char **s, char *word, size_t size)
{
	const char *p = *s + 1;
	size_t n = 0;
	int c;

	while ((c = quoted_octet(&p)) != QUOTE_END) {
		if (c == -1 || n + 1 >= size)
			return -1;
		word[n++] = (char)c;
	}
	if (*p != '\0' && !is_blank(*p))
		return -1;
	word[n] = '\0';
	*s = p;
	return 1;
}

int
text_word(const char **s, char *word, size_t size)
{
	const char *p = *s;
	size_t n = 0;

	if (size == 0)
		return -1;
	while (is_blank(*p))
		p++;
	if (*p == '"') {
		if (quoted_word(&p, word, size) == -1)
			return -1;
		*s = p;
		return 1;
	}
	for (; *p != '\0' && !is_blank(*p); p++) {
		/* name:"a b" would fall apart at the blank without a word */
		if (*p == '"' || n + 1 >= size)
			return -1;
		word[n++] = *p;
	}
	*s = p;
	if (n == 0)
		return 0;
	word[n] = '\0';
	return 1;
}

static bool
equal_n(const char *a, const char *b, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (lower(a[i]) != lower(b[i]))
			return false;
	return true;
}

bool
text_has_word(const char *list, const char *a)
{
	size_t n, len = strlen(a);

	if (len == 0)
		return false;
	for (;;) {
		list += strspn(list, " \t");
		n = strcspn(list, " \t");
		if (n == 0)
			return false;
		if (n == len && equal_n(list, a, n))
			return true;
		list += n;
	}
}

static int
base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (is_digit(c))
		return c - '0' + 52;
	if (c == '+')
		return 62;
	return c == '/' ? 63 : -1;
}

/*
 * Four digits, the last `pad` of them '=', to 3 - `pad` octets. Bits that the
 * padding cuts off must be 0: otherwise several texts would mean the same
 * secret.
 */
static int
base64_group(const char *s, unsigned pad, unsigned char *out)
{
	uint32_t bits = 0;
	unsigned i;
	int value;

	for (i = 0; i < 4; i++) {
		value = i < 4 - pad ? base64_value(s[i]) : 0;
		if (value == -1)
			return -1;
		bits = bits << 6 | (uint32_t)value;
	}
	if ((bits & ((1u << 8 * pad) - 1)) != 0)
		return -1;
	for (i = 0; i < 3 - pad; i++)
		out[i] = (unsigned char)(bits >> (16 - 8 * i));
	return 0;
}

int
text_base64_decode(
    const char *s, size_t len, unsigned char *out, size_t *out_len)
{
	unsigned char *start = out;
	unsigned pad;
	size_t i;

	if (len % 4 != 0)
		return -1;
	for (i = 0; i < len; i += 4) {
		pad = 0;
		if (i + 4 == len && s[i + 3] == '=')
			pad = s[i + 2] == '=' ? 2 : 1;
		if (base64_group(s + i, pad, out) == -1)
			return -1;
		out += 3 - pad;
	}
	*out_len = (size_t)(out - start);
	return 0;
}

void
text_base64_encode(const void *data, size_t len, char *out)
{
	const unsigned char *p = data;
	uint32_t bits;
	size_t n;

	for (; len > 0; p += n, len -= n, out += 4) {
		n = len < 3 ? len : 3;
		bits = (uint32_t)p[0] << 16;
		if (n > 1)
			bits |= (uint32_t)p[1] << 8;
		if (n > 2)
			bits |= p[2];
		out[0] = base64_digits[bits >> 18];
		out[1] = base64_digits[bits >> 12 & 63];
		out[2] = n > 1 ? base64_digits[bits >> 6 & 63] : '=';
		out[3] = n > 2 ? base64_digits[bits & 63] : '=';
	}
	*out = '\0';
}

int
text_xtext(const char *s, char *out, size_t size)
{
	static const char hex[] = "0123456789ABCDEF";
	unsigned char c;
	size_t n = 0;
	bool plain;

	if (size == 0)
		return -1;
	for (; (c = (unsigned char)*s) != '\0'; s++) {
		plain = c >= '!' && c <= '~' && c != '+' && c != '=';
		if (size - n <= (plain ? 1 : 3)) {
			out[0] = '\0';
			return -1;
		}
		if (plain) {
			out[n++] = (char)c;
			continue;
		}
		out[n++] = '+';
		out[n++] = hex[c >> 4];
		out[n++] = hex[c & 15];
	}
	out[n] = '\0';
	return 0;
}

int
text_copy(char *out, size_t size, const char *s)
{
	size_t len = strlen(s);

	if (len >= size) {
		if (size > 0)
			out[0] = '\0';
		return -1;
	}
	memcpy(out, s, len + 1);
	return 0;
}

bool
text_is_hostname(const char *s)
{
	if (*s == '\0')
		return false;
	for (; *s != '\0'; s++)
		if (!(lower(*s) >= 'a' && lower(*s) <= 'z') && !is_digit(*s) &&
		    *s != '.' && *s != '-')
			return false;
	return true;
}

bool
text_equal(const char *a, const char *b)
{
	size_t len = strlen(a);

	return strlen(b) == len && equal_n(a, b, len);
}

bool
text_prefix(const char *s, const char *prefix)
{
	for (; *prefix != '\0'; s++, prefix++)
		if (lower(*s) != lower(*prefix))
			return false;
	return true;
}

bool
text_same_secret(const void *a, const void *b, size_t n)
{
	/* volatile: so that no compiler finds an early way out of the loop */
	const volatile unsigned char *x = a, *y = b;
	unsigned char differ = 0;
	size_t i;

	for (i = 0; i < n; i++)
		differ |= (unsigned char)(x[i] ^ y[i]);
	return differ == 0;
}

int
text_endpoint(const char *where, char *host, size_t size, uint16_t *port)
{
	const char *colon = strrchr(where, ':');
	uint64_t number;
	size_t len;

	if (colon == NULL ||
	    text_number(colon + 1, UINT16_MAX, &number) == -1 || number == 0)
		return -1;
	len = (size_t)(colon - where);
	if (len > 2 && where[0] == '[' && colon[-1] == ']') {
		where++;
		len -= 2;
	}
	if (len == 0 || len >= size)
		return -1;
	memcpy(host, where, len);
	host[len] = '\0';
	*port = (uint16_t)number;
	return 0;
}
