/*
 * The value of listen. No names are looked up: what is listened to is an
 * address.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

#include "lib/text.h"

#include "lib/listen_spec.h"

static const char *
parse_unix(const char *path, struct listen_spec *w)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&w->addr;

	un->sun_family = AF_UNIX;
	w->len = sizeof(*un);
	if (path[0] != '/' ||
	    text_copy(un->sun_path, sizeof(un->sun_path), path) == -1)
		return "unix: needs a path that is absolute and not too long";
	return NULL;
}

/* ADDR:PORT, [v6]:PORT, *:PORT or PORT alone, as nginx has them. */
static const char *
parse_inet(char *text, struct listen_spec *w)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&w->addr;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&w->addr;
	static char any[] = "0.0.0.0";
	char *colon = strrchr(text, ':'), *host = text;
	uint64_t port;
	size_t len;

	if (text_number(colon != NULL ? colon + 1 : text, 65535, &port) == -1 ||
	    port == 0)
		return "needs a port from 1 to 65535";
	if (colon != NULL)
		*colon = '\0';
	if (colon == NULL || strcmp(host, "*") == 0)
		host = any;
	len = strlen(host);
	if (len > 2 && host[0] == '[' && host[len - 1] == ']') {
		host[len - 1] = '\0';
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)port);
		w->len = sizeof(*in6);
		return inet_pton(AF_INET6, host + 1, &in6->sin6_addr) == 1
		    ? NULL
		    : "is no IPv6 address";
	}
	in->sin_family = AF_INET;
	in->sin_port = htons((uint16_t)port);
	w->len = sizeof(*in);
	return inet_pton(AF_INET, host, &in->sin_addr) == 1
	    ? NULL
	    : "is neither address:port nor unix:/path";
}

static const char *
parse_option(const char *word, struct listen_spec *w)
{
	uint64_t n;

	if (strcmp(word, "ssl") == 0) {
		w->ssl = true;
		return NULL;
	}
	if (strcmp(word, "proxy_protocol") == 0) {
		w->proxy_protocol = true;
		return NULL;
	}
	if (text_prefix(word, "backlog=") &&
	    text_number(word + strlen("backlog="), 65535, &n) == 0 && n > 0) {
		w->backlog = (int)n;
		return NULL;
	}
	return "knows only the options ssl, proxy_protocol and backlog=N";
}

const char *
listen_spec_parse(const char *value, struct listen_spec *w)
{
	const char *wrong;
	char word[160];
	int more;

	memset(w, 0, sizeof(*w));
	w->backlog = SOMAXCONN;
	if (text_word(&value, word, sizeof(word)) != 1)
		return "needs an address";
	wrong = strncmp(word, "unix:", 5) == 0 ? parse_unix(word + 5, w)
					       : parse_inet(word, w);
	while (wrong == NULL &&
	    (more = text_word(&value, word, sizeof(word))) != 0)
		wrong = more == -1 ? "is not well formed"
				   : parse_option(word, w);
	return wrong;
}
