/*
 * What the texts of single directives must be: the clean() functions of the
 * rows. They judge form only, and nothing is opened, resolved or connected to.
 */
#include <sys/un.h>

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "lib/listen_spec.h"
#include "lib/network.h"
#include "lib/text.h"

#include "config_table.h"

#define REPLY_MAX     506 /* 512 (RFC 5321 4.5.3.1.5) less "250-" and CRLF */
#define SUN_PATH_SIZE sizeof(((struct sockaddr_un *)0)->sun_path)
#define MAX_SERVERS   8 /* of resolver */

const char *
config_clean_server_name(const char **text)
{
	if (!text_is_hostname(*text) || strlen(*text) > 255)
		return "must be a host name: letters, digits, '-' and '.'";
	return NULL;
}

const char *
config_clean_listen(const char **text)
{
	struct listen_spec spec;

	return listen_spec_parse(*text, &spec);
}

const char *
config_clean_network(const char **text)
{
	struct network network;

	return network_parse(*text, &network) == 0
	    ? NULL
	    : "must be an address, a network with /bits, or unix:";
}

const char *
config_clean_path(const char **text)
{
	if (**text != '\0' && **text != '/')
		return "must be an absolute path";
	return strlen(*text) < SUN_PATH_SIZE ? NULL : "is too long a path";
}

const char *
config_clean_capability(const char **text)
{
	const char *p = *text;

	if (text_equal(p, "auto"))
		return "auto is not supported by this version";
	for (; *p != '\0'; p++)
		if (*p < ' ' || *p > '~')
			return "must be printable ASCII";
	if (p - *text > REPLY_MAX)
		return "is longer than a line of a reply may be";
	return NULL;
}

/*
 * Takes "host", "host:port", "[v6]" or "[v6]:port" apart. Returns the port, ""
 * for none, or NULL when it is nothing like that.
 */
static const char *
split_endpoint(const char *text, char *host, size_t size)
{
	bool bracket = *text == '[';
	size_t len;

	if (bracket)
		text++;
	len = strcspn(text, bracket ? "]" : ":");
	if (len == 0 || len >= size)
		return NULL;
	memcpy(host, text, len);
	host[len] = '\0';
	text += len;
	if (bracket && *text++ != ']')
		return NULL;
	if (*text == ':' && text[1] != '\0')
		return text + 1;
	return *text == '\0' ? text : NULL;
}

static bool
is_port(const char *text)
{
	uint64_t port;

	return text_number(text, UINT16_MAX, &port) == 0 && port > 0;
}

static bool
is_address(int family, const char *text)
{
	unsigned char addr[sizeof(struct in6_addr)];

	return inet_pton(family, text, addr) == 1;
}

const char *
config_clean_backend(const char **text)
{
	const char *s = *text, *port;
	char host[256];

	if (strncmp(s, "unix:", 5) == 0) {
		if (s[5] != '/' || strlen(s + 5) >= SUN_PATH_SIZE)
			return "must be unix: and an absolute path of at most "
			       "107 octets";
		return NULL;
	}
	port = split_endpoint(s, host, sizeof(host));
	if (port == NULL ||
	    (*s == '[' ? !is_address(AF_INET6, host) : !text_is_hostname(host)))
		return "must be host:port, [IPv6 address]:port or unix:/path";
	if (!is_port(port))
		return "needs a port from 1 to 65535";
	return NULL;
}

const char *
config_clean_proxy_name(const char **text)
{
	if (**text == '\0' || is_address(AF_INET6, *text) ||
	    (text_is_hostname(*text) && strlen(*text) <= 255))
		return NULL;
	return "must be a host name or an address, as certificates have them";
}

static bool
is_name_server(const char *word)
{
	const char *port;
	char host[INET6_ADDRSTRLEN];

	if (is_address(AF_INET6, word))
		return true;
	port = split_endpoint(word, host, sizeof(host));
	return port != NULL && (*port == '\0' || is_port(port)) &&
	       is_address(*word == '[' ? AF_INET6 : AF_INET, host);
}

const char *
config_clean_resolver(const char **text)
{
	const char *list = *text;
	char word[64];
	size_t count = 0;
	int more;

	if (text_equal(list, "system")) {
		*text = "system";
		return NULL;
	}
	if (text_equal(list, "off"))
		list = "";
	while ((more = text_word(&list, word, sizeof(word))) == 1)
		if (!is_name_server(word) || ++count > MAX_SERVERS)
			break;
	if (more != 0)
		return "must be off, system or at most 8 addresses of name "
		       "servers, each with :port if need be";
	if (count == 0)
		*text = ""; /* off */
	return NULL;
}

/*
 * The old versions may be added to the new ones, never stand alone: where all
 * are broken, TLS is but a promise that is not kept.
 */
const char *
config_clean_protocols(const char **text)
{
	static const char old[] = "TLSv1 TLSv1.1", sound[] = "TLSv1.2 TLSv1.3";
	const char *list = *text;
	bool is_sound = false;
	char word[16];
	int more;

	while ((more = text_word(&list, word, sizeof(word))) == 1) {
		if (text_has_word(sound, word))
			is_sound = true;
		else if (!text_has_word(old, word))
			break;
	}
	if (more != 0)
		return "must be words of: TLSv1 TLSv1.1 TLSv1.2 TLSv1.3";
	return is_sound ? NULL : "must hold TLSv1.2 or TLSv1.3";
}

/* What OpenSSL makes of it is seen when TLS is made ready. */
const char *
config_clean_command(const char **text)
{
	size_t name = strcspn(*text, " ");

	if (name == 0 || (*text)[name] == '\0')
		return "must be a command and its value, as \"Options KTLS\"";
	if (strncmp(*text, "CipherString ", name + 1) == 0)
		return "has no CipherString here: there is ssl_ciphers";
	return NULL;
}

static bool
has_blank(const char *text)
{
	return text[strcspn(text, " \t")] != '\0';
}

static bool
is_http(const char *provider)
{
	return strncmp(provider, "http", 4) == 0;
}

/* --- providers: what follows the scheme ---------------------------------- */

static const char *
check_file(const char *rest)
{
	return *rest == '/' ? NULL : "needs an absolute path after file:";
}

static const char *
check_http(const char *rest)
{
	return *rest == '\0' || *rest == '/' || has_blank(rest)
	    ? "must be a URL with a host and without blanks"
	    : NULL;
}

static const char *
check_http_unix(const char *rest)
{
	if (*rest != '/')
		return "needs an absolute path after http+unix://";
	return has_blank(rest) ? "must be a URL without blanks" : NULL;
}

/* A program and its arguments, which are words as in a list. */
static const char *
check_checkpassword(const char *rest)
{
	char word[CONFIG_WORD_SIZE];
	size_t count = 0;
	int more;

	if (*rest != '/')
		return "needs the absolute path of a program after "
		       "checkpassword:";
	while ((more = text_word(&rest, word, sizeof(word))) == 1)
		count++;
	return more == 0 && count <= CONFIG_WORDS_MAX
	    ? NULL
	    : "must be a program and at most 31 arguments, each of at most 255 "
	      "octets";
}

/*
 * A file's name below /etc/pam.d, in small letters, as PAM makes them. A path
 * would name a file elsewhere.
 */
static const char *
check_pam(const char *rest)
{
	static const char letters[] =
	    "abcdefghijklmnopqrstuvwxyz0123456789-_.";

	return *rest != '\0' && *rest != '.' && strlen(rest) <= 64 &&
		    rest[strspn(rest, letters)] == '\0'
	    ? NULL
	    : "needs a service's name after pam:, of small letters, digits, "
	      "'-', '_' and '.'";
}

/* The auth server's UNIX socket, or where it listens. */
static const char *
check_dovecot(const char *rest)
{
	if (*rest == '/')
		return config_clean_path(&rest);
	return config_clean_backend(&rest) == NULL
	    ? NULL
	    : "needs an absolute path, host:port or [IPv6 address]:port after "
	      "dovecot:";
}

static const struct {
	const char *scheme;
	const char *(*check)(const char *rest);
} providers[] = {
    {"file:", check_file},
    {"http://", check_http},
    {"https://", check_http},
    {"http+unix://", check_http_unix},
    {"checkpassword:", check_checkpassword},
    {"pam:", check_pam},
    {"dovecot:", check_dovecot},
    {"oauth2:http://", check_http},
    {"oauth2:https://", check_http},
    {"oauth2:http+unix://", check_http_unix},
};

const char *
config_clean_provider(const char **text)
{
	size_t i, len;

	if (**text == '\0')
		return NULL;
	for (i = 0; i < sizeof(providers) / sizeof(*providers); i++) {
		len = strlen(providers[i].scheme);
		if (strncmp(*text, providers[i].scheme, len) == 0)
			return providers[i].check(*text + len);
	}
	return "must begin with file:/, http://, https://, http+unix://, "
	       "checkpassword:/, pam:, dovecot: or oauth2:";
}

/* nginx's auth_http: http:// may be left out, and unix:/path:/uri be there. */
const char *
config_clean_auth_http(const char **text)
{
	const char *scheme = "http://", *rest = *text;
	char *url;

	if (*rest == '\0')
		return NULL;
	if (strncmp(rest, "http://unix:", 12) == 0)
		rest += strlen("http://");
	if (strncmp(rest, "unix:", 5) == 0) {
		scheme = "http+unix://";
		rest += strlen("unix:");
	} else if (strstr(rest, "://") != NULL) {
		return is_http(rest) ? config_clean_provider(text)
				     : "must be an http:// or https:// URL";
	}
	url = malloc(strlen(scheme) + strlen(rest) + 1);
	if (url == NULL)
		return CONFIG_NO_MEMORY;
	memcpy(url, scheme, strlen(scheme));
	memcpy(url + strlen(scheme), rest, strlen(rest) + 1);
	*text = url;
	return config_clean_provider(text);
}

/* A letter of a token (RFC 9110 section 5.6.2). */
static bool
is_token(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c >= '0' && c <= '9') ||
	       (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

/*
 * "Name value" as nginx's two words, or "Name: value", to the latter. A name
 * that is no token would let a slip of the pen break the request apart.
 */
const char *
config_clean_header(const char **text)
{
	const char *value = *text;
	size_t name;
	char *line;

	while (is_token(*value))
		value++;
	name = (size_t)(value - *text);
	if (name == 0 || strchr(": \t", *value) == NULL)
		return "must begin with the name of an HTTP header";
	if (*value == ':')
		value++;
	value += strspn(value, " \t");
	if (*value == '\0')
		return "needs a value after the header's name";
	line = malloc(name + sizeof(": ") + strlen(value));
	if (line == NULL)
		return CONFIG_NO_MEMORY;
	memcpy(line, *text, name);
	memcpy(line + name, ": ", 2);
	memcpy(line + name + 2, value, strlen(value) + 1);
	*text = line;
	return NULL;
}

const char *
config_clean_claim(const char **text)
{
	const char *p = *text;

	while (*p > ' ' && *p <= '~')
		p++;
	return p != *text && *p == '\0'
		   ? NULL
		   : "must be the name of a claim, in printable ASCII";
}

/* RFC 6749 section 3.3, which leaves out what JSON would have to escape. */
const char *
config_clean_scope(const char **text)
{
	const char *p;

	for (p = *text; *p != '\0'; p++)
		if (*p < ' ' || *p > '~' || *p == '"' || *p == '\\')
			return "must be words of printable ASCII, without \" "
			       "and \\";
	return strlen(*text) <= 255 ? NULL : "is longer than 255 octets";
}
