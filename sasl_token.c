/*
 * XOAUTH2, which is Google's, and OAUTHBEARER (RFC 7628): one message of pairs
 * that end with ^A, and one ^A more. What a token is worth is not known here.
 */
#include <stdio.h>
#include <string.h>

#include "lib/text.h"

#include "sasl_token.h"

#define END '\1' /* of a pair */

/* A saslname (RFC 5802 section 5.1) of `len` octets. */
static bool
take_name(char *out, size_t size, const char *s, size_t len)
{
	size_t i, n = 0;

	for (i = 0; i < len; i++) {
		if (n == size - 1)
			return false;
		out[n] = s[i];
		if (s[i] == '=') {
			if (len - i < 3 || (strncmp(s + i, "=2C", 3) != 0 &&
					       strncmp(s + i, "=3D", 3) != 0))
				return false;
			out[n] = s[i + 1] == '2' ? ',' : '=';
			i += 2;
		}
		n++;
	}
	out[n] = '\0';
	return true;
}

/*
 * "Bearer" and a token (RFC 6750 section 2.1). Its letters are all that is let
 * through: it goes into headers and forms.
 */
static bool
take_token(struct sasl *sasl, const char *s, size_t len)
{
	static const char letters[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	    "0123456789-._~+/";
	const char *end = s + len;
	size_t n;

	if (len == 0)
		return true;
	if (!text_prefix(s, "Bearer "))
		return false;
	s += strlen("Bearer");
	s += strspn(s, " ");
	n = strspn(s, letters);
	if (n == 0 || s + n + strspn(s + n, "=") != end)
		return false;
	sasl->token = s;
	sasl->token_len = (size_t)(end - s);
	return true;
}

/*
 * The pairs from `p` on. A key that stands there twice could be read by one
 * party as the first and by another as the second; what is not known is passed
 * over (RFC 7628 section 3.1).
 */
static bool
take_pairs(struct sasl *sasl, const char *p, bool has_user)
{
	bool auth = false, user = false;
	size_t len;

	while (*p != '\0' && *p != END) {
		len = strcspn(p, "\1");
		if (p[len] != END)
			return false;
		if (strncmp(p, "auth=", 5) == 0) {
			if (auth || !take_token(sasl, p + 5, len - 5))
				return false;
			auth = true;
		} else if (has_user && strncmp(p, "user=", 5) == 0) {
			if (user || len - 5 >= sizeof(sasl->user))
				return false;
			memcpy(sasl->user, p + 5, len - 5);
			user = true;
		} else if (memchr(p, '=', len) == NULL) {
			return false;
		}
		p += len + 1;
	}
	return p[0] == END && p[1] == '\0' && (!has_user || user);
}

static enum sasl_result
ask_to_begin(const char **challenge)
{
	*challenge = "";
	return SASL_CHALLENGE;
}

enum sasl_result
sasl_token_xoauth2(struct sasl *sasl, const char *response, size_t len,
    const char **challenge)
{
	if (response == NULL)
		return ask_to_begin(challenge);
	if (strlen(response) != len || !take_pairs(sasl, response, true))
		return SASL_MALFORMED;
	return SASL_CREDENTIALS;
}

/* A GS2 header without channel binding stands before the pairs. */
enum sasl_result
sasl_token_oauthbearer(struct sasl *sasl, const char *response, size_t len,
    const char **challenge)
{
	const char *p = response;
	size_t name;

	if (response == NULL)
		return ask_to_begin(challenge);
	if (strlen(response) != len || (*p != 'n' && *p != 'y') || p[1] != ',')
		return SASL_MALFORMED;
	p += 2;
	name = strcspn(p, ",");
	if (name > 0 && (strncmp(p, "a=", 2) != 0 ||
			    !take_name(sasl->user, sizeof(sasl->user), p + 2,
				name - 2)))
		return SASL_MALFORMED;
	p += name;
	if (p[0] != ',' || p[1] != END || !take_pairs(sasl, p + 2, false))
		return SASL_MALFORMED;
	return SASL_CREDENTIALS;
}

void
sasl_token_refusal(const struct sasl_mechanism *mechanism, const char *scope,
    char *out, size_t size)
{
	(void)snprintf(out, size, "{\"status\":\"%s\",\"schemes\":\"bearer\"%s%s%s}",
	    mechanism->refusal, scope[0] != '\0' ? ",\"scope\":\"" : "", scope,
	    scope[0] != '\0' ? "\"" : "");
}
