/*
 * Small pure functions on text: numbers in nginx's syntax, base64, xtext,
 * words. No I/O, no state.
 */
#ifndef LIB_TEXT_H
#define LIB_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decimal digits only, at most `max`. 0, or -1 and `out` untouched. */
int text_number(const char *s, uint64_t max, uint64_t *out);

/* nginx's size: 4096, 4k, 1m (either case). 0 or -1. */
int text_size(const char *s, size_t *out);

/*
 * nginx's time: a number with a unit (ms s m h d w M y), several of them from
 * great to small ("1h 30m"), or a bare number of seconds. 0 or -1; the result
 * is in milliseconds.
 */
int text_time(const char *s, int64_t *out_ms);

/*
 * Takes the next word of a list: words are separated by blanks, double quotes
 * around a word hold blanks, \" and \\ inside them. *s is moved on; the word is
 * copied to `word`.
 * Returns 1 for a word, 0 at the end, -1 when it is not well formed or longer
 * than `size` - 1.
 */
int text_word(const char **s, char *word, size_t size);

/* Whether `a` is one of the blank-separated words of `list` (any case). */
bool text_has_word(const char *list, const char *a);

/*
 * Strict base64 (RFC 4648 section 4, as RFC 4954 asks): padding is demanded,
 * stray bits and any other octet are refused. `out` needs 3 octets for each 4.
 * 0 with the length in *out_len, or -1.
 */
int text_base64_decode(
    const char *s, size_t len, unsigned char *out, size_t *out_len);

/* `out` needs TEXT_BASE64_SIZE(len) octets; it ends in a NUL. */
#define TEXT_BASE64_SIZE(len) (((len) + 2) / 3 * 4 + 1)
void text_base64_encode(const void *data, size_t len, char *out);

/*
 * xtext (RFC 3461 section 4): '+', '=' and what is not printable ASCII become
 * +XX. `out` of `size` ends in a NUL. 0, or -1 when it does not fit.
 */
int text_xtext(const char *s, char *out, size_t size);

/* Copies `s` if it fits with its NUL. 0, or -1 and `out` is "". */
int text_copy(char *out, size_t size, const char *s);

/* Whether `s` is a host name or address literal's letters: A-Za-z0-9.- only. */
bool text_is_hostname(const char *s);

/*
 * Splits host:port or [v6]:port; `host` of `size` ends in a NUL. 0, or -1 when
 * a part is missing, too long or no port from 1 to 65535.
 */
int text_endpoint(
    const char *where, char *host, size_t size, uint16_t *port);

/*
 * The case of ASCII letters apart, independent of the locale.
 * text_prefix: `s` begins with `prefix`.
 */
bool text_equal(const char *a, const char *b);
bool text_prefix(const char *s, const char *prefix);

/*
 * Compares `n` octets in a time that depends on `n` alone, so that a guesser
 * learns nothing from the clock.
 */
bool text_same_secret(const void *a, const void *b, size_t n);

#endif
