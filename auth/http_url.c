/*
 * Where the auth server is. The value of auth_provider is one of
 *
 *	http://host[:port][/uri]	host a name, an IPv4 address or [IPv6]
 *	https://host[:port][/uri]
 *	http+unix:///path/of/socket[:/uri]
 *
 * where /uri is "/" when it is left out. What libcurl would find in a URL
 * beyond that (a user, a password, a fragment) is refused here.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "lib/text.h"

#include "auth/http.h"

#define UNIX_PREFIX "http+unix://"
#define URI_MAX	    2048

/* ":port" or nothing. */
static bool
is_port(const char *s)
{
	uint64_t n;

	return *s == '\0' ||
	       (*s == ':' && text_number(s + 1, UINT16_MAX, &n) == 0 && n != 0);
}

/* host, host:port, [v6] or [v6]:port; no user and password before it. */
static bool
is_authority(const char *s, size_t len)
{
	char host[256], v6[INET6_ADDRSTRLEN], *end;

	if (len >= sizeof(host))
		return false;
	memcpy(host, s, len);
	host[len] = '\0';
	if (*host == '[') {
		end = strchr(host, ']');
		if (end == NULL || !is_port(end + 1))
			return false;
		end[1] = '\0';
		return http_text_is_ipv6(host, v6);
	}
	end = host + strcspn(host, ":");
	if (!is_port(end))
		return false;
	*end = '\0';
	return text_is_hostname(host);
}

static bool
is_uri(const char *s)
{
	return *s == '\0' ||
	       (*s == '/' && strlen(s) < URI_MAX && http_text_is_printable(s) &&
		   strchr(s, '#') == NULL);
}

const char *
http_url_parse(struct http_url *to, const char *value)
{
	bool is_unix = strncmp(value, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0;
	const char *at, *uri;
	int n;

	if (!is_unix && strncmp(value, "http://", 7) != 0 &&
	    strncmp(value, "https://", 8) != 0)
		return "it begins with none of http:// https:// http+unix://";
	at = strstr(value, "://") + 3;
	uri = at + strcspn(at, is_unix ? ":" : "/");
	n = (int)(uri - value);
	if (is_unix) {
		if (*at != '/' || (size_t)(uri - at) >= HTTP_SOCKET_PATH_SIZE)
			return "the path of the socket is not valid";
		memcpy(to->socket_path, at, (size_t)(uri - at));
		value = "http://localhost";
		n = (int)strlen(value);
		uri += *uri == ':';
	} else if (!is_authority(at, (size_t)(uri - at))) {
		return "the host or its port is not valid";
	}
	if (!is_uri(uri))
		return "the URI is not valid";
	if (asprintf(&to->url, "%.*s%s", n, value, *uri != '\0' ? uri : "/") ==
	    -1) {
		to->url = NULL;
		return "out of memory";
	}
	return NULL;
}
