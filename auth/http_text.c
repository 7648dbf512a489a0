/*
 * Letters: which of them may stand where. What a client or an auth server said
 * goes into lines that others read: a header of the request, a reply of ours, a
 * command to the backend, the log.
 */
#include <arpa/inet.h>
#include <string.h>

#include "auth/http.h"

bool
http_text_is_control(unsigned char c)
{
	return c < 0x20 || c == 0x7f;
}

bool
http_text_is_unsafe(unsigned char c)
{
	return http_text_is_control(c) || c >= 0x80;
}

bool
http_text_has_control(const char *s)
{
	for (; *s != '\0'; s++)
		if (http_text_is_control((unsigned char)*s))
			return true;
	return false;
}

bool
http_text_is_printable(const char *s)
{
	for (; *s != '\0'; s++)
		if (http_text_is_unsafe((unsigned char)*s) || *s == ' ')
			return false;
	return true;
}

void
http_text_copy(char *to, size_t size, const char *text, size_t len)
{
	size_t i, n = 0;
	unsigned char c;

	for (i = 0; i < len && n < size - 1; i++) {
		c = (unsigned char)text[i];
		if (!http_text_is_control(c))
			to[n++] = c < 0x80 ? (char)c : '?';
	}
	to[n] = '\0';
}

bool
http_text_is_ipv6(const char *host, char *bare)
{
	size_t len = strlen(host);
	struct in6_addr addr;

	if (len > 2 && host[0] == '[' && host[len - 1] == ']') {
		host++;
		len -= 2;
	}
	if (len >= INET6_ADDRSTRLEN)
		return false;
	memcpy(bare, host, len);
	bare[len] = '\0';
	return inet_pton(AF_INET6, bare, &addr) == 1;
}
