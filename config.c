/*
 * The directives: the table, the types of value, and the three places they come
 * from. It only reads and judges text: what a directive does is the business of
 * the stage that reads struct config, and no file but the --config one is
 * opened (--check asks for the modes of keys and password files). main() calls
 * it, once a process, so that it is in the way of every connection: nothing is
 * allocated for a default, and a value that stays where it is (argv, environ,
 * the text of the file) is not copied. What is allocated lives until exit.
 */
#include <sys/stat.h>
#include <sys/un.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/text.h"
#include "lib/tls.h"

#include "config.h"

#define FILE_MAX      65536
#define WORD_SIZE     4096
#define REPLY_MAX     506 /* 512 (RFC 5321 4.5.3.1.5) less "250-" and CRLF */
#define SUN_PATH_SIZE sizeof(((struct sockaddr_un *)0)->sun_path)
#define MAX_SERVERS   8 /* of resolver */
#define VARIABLE      "SMTP_"
#define NO_MEMORY     "not enough memory"

enum group {
	DIALOGUE,
	PEER,
	TLS,
	CREDENTIALS,
	UPSTREAM,
	PROCESS
};

static const char *const group_titles[] = {
    [DIALOGUE] = "The dialogue with the client",
    [PEER] = "Who the client is",
    [TLS] = "TLS",
    [CREDENTIALS] = "Who judges credentials",
    [UPSTREAM] = "The mail server or program behind",
    [PROCESS] = "The process",
};

/* A word that a directive knows, and what it means in struct config. */
struct word {
	const char *name; /* NULL ends the list */
	unsigned value;
};

struct directive {
	const char *name; /* nginx's; argument and variable follow from it */
	enum group group;
	const char *hint; /* --help: what its value looks like */
	const char *help; /* --help: lines of at most 72 characters */
	const struct type *type;
	size_t offset, size; /* its field of struct config */
	/*
	 * The default, as text. In parentheses: computed by the type. NULL: the
	 * row is another name for the one before it.
	 */
	const char *fallback;
	const char *wants; /* the reason a bad value is given */
	const struct word *words;
	uint64_t min, max; /* sizes in octets, times in ms */
	/*
	 * Judges a text, or an item of a list, and may put another in its
	 * place. The reason to refuse it, or NULL.
	 */
	const char *(*clean)(const char **text);
};

/* A value on its way into its field. */
struct setting {
	const struct directive *d;
	const char *text;
	void *field;
	bool argument; /* of a list it is one item, as it stands */
	bool more; /* it adds to what an earlier argument gave */
};

struct type {
	/* The reason to refuse it, or NULL. */
	const char *(*parse)(const struct setting *s);
	/* Writes the value as parse() wants it from the environment. */
	void (*format)(FILE *out, const struct directive *d, const void *field);
	/* For a default in parentheses; *text is what a reason is about. */
	const char *(*compute)(
	    const struct directive *d, void *field, const char **text);
};

/* Types. */

/* Booleans and enumerations are what they are named; the rest is unsigned. */
static void
store(const struct directive *d, void *field, unsigned value)
{
	if (d->size == sizeof(bool))
		*(bool *)field = value != 0;
	else
		*(unsigned *)field = value;
}

static unsigned
load(const struct directive *d, const void *field)
{
	if (d->size == sizeof(bool))
		return *(const bool *)field;
	return *(const unsigned *)field;
}

static const struct word *
find_word(const struct directive *d, const char *name)
{
	const struct word *w;

	for (w = d->words; w->name != NULL; w++)
		if (text_equal(w->name, name))
			return w;
	return NULL;
}

static const char *
parse_word(const struct setting *s)
{
	const struct word *w = find_word(s->d, s->text);

	if (w == NULL)
		return s->d->wants;
	store(s->d, s->field, w->value);
	return NULL;
}

static void
format_word(FILE *out, const struct directive *d, const void *field)
{
	const struct word *w;

	for (w = d->words; w->name != NULL; w++)
		if (w->value == load(d, field))
			(void)fputs(w->name, out);
}

static const struct type type_word = {parse_word, format_word, NULL};

static const char *
parse_set(const struct setting *s)
{
	unsigned bits = s->more ? load(s->d, s->field) : 0;
	const char *text = s->text;
	const struct word *w;
	char word[32];
	int more;

	while ((more = text_word(&text, word, sizeof(word))) == 1) {
		w = find_word(s->d, word);
		if (w == NULL)
			return s->d->wants;
		bits |= w->value;
	}
	if (more == -1)
		return s->d->wants;
	store(s->d, s->field, bits);
	return NULL;
}

static void
format_set(FILE *out, const struct directive *d, const void *field)
{
	const struct word *w;
	const char *blank = "";

	for (w = d->words; w->name != NULL; w++) {
		if ((w->value & load(d, field)) == 0)
			continue;
		(void)fprintf(out, "%s%s", blank, w->name);
		blank = " ";
	}
}

static const struct type type_set = {parse_set, format_set, NULL};

static bool
in_range(const struct directive *d, uint64_t n)
{
	return n >= d->min && n <= d->max;
}

static const char *
parse_number(const struct setting *s)
{
	uint64_t n;

	if (text_number(s->text, s->d->max, &n) == -1 || !in_range(s->d, n))
		return s->d->wants;
	*(unsigned *)s->field = (unsigned)n;
	return NULL;
}

static void
format_number(FILE *out, const struct directive *d, const void *field)
{
	(void)d;
	(void)fprintf(out, "%u", *(const unsigned *)field);
}

static const struct type type_number = {parse_number, format_number, NULL};

static const char *
parse_size(const struct setting *s)
{
	size_t n;

	if (text_size(s->text, &n) == -1 || !in_range(s->d, n))
		return s->d->wants;
	*(size_t *)s->field = n;
	return NULL;
}

static void
format_size(FILE *out, const struct directive *d, const void *field)
{
	size_t n = *(const size_t *)field;

	(void)d;
	if (n % 1024 == 0)
		(void)fprintf(out, "%zuk", n / 1024);
	else
		(void)fprintf(out, "%zu", n);
}

static const char *
compute_size(const struct directive *d, void *field, const char **text)
{
	long page = sysconf(_SC_PAGESIZE);

	(void)d;
	(void)text;
	*(size_t *)field = page > 0 ? (size_t)page : 4096;
	return NULL;
}

static const struct type type_size = {parse_size, format_size, compute_size};

static const char *
parse_time(const struct setting *s)
{
	int64_t ms;

	if (text_time(s->text, &ms) == -1 || !in_range(s->d, (uint64_t)ms))
		return s->d->wants;
	*(int64_t *)s->field = ms;
	return NULL;
}

static void
format_time(FILE *out, const struct directive *d, const void *field)
{
	long long ms = *(const int64_t *)field;

	(void)d;
	if (ms % 1000 != 0)
		(void)fprintf(out, "%lldms", ms);
	else if (ms == 0 || ms % 60000 != 0)
		(void)fprintf(out, "%llds", ms / 1000);
	else
		(void)fprintf(out, "%lldm", ms / 60000);
}

static const struct type type_time = {parse_time, format_time, NULL};

/*
 * No text holds a control character but the tab: one in a header, a reply or a
 * log line would end it and begin another.
 */
static bool
has_control(const char *text)
{
	for (; *text != '\0'; text++)
		if (((unsigned char)*text < ' ' && *text != '\t') ||
		    *text == '\x7f')
			return true;
	return false;
}

static const char *
clean_text(const struct directive *d, const char **text)
{
	if (has_control(*text))
		return "must hold no control character";
	return d->clean == NULL ? NULL : d->clean(text);
}

static const char *
parse_text(const struct setting *s)
{
	const char *text = s->text, *wrong = clean_text(s->d, &text);

	if (wrong == NULL)
		*(const char **)s->field = text;
	return wrong;
}

static void
format_text(FILE *out, const struct directive *d, const void *field)
{
	(void)d;
	(void)fputs(*(const char *const *)field, out);
}

/* The host's own name; a bad one is refused as if it were given. */
static const char *
compute_text(const struct directive *d, void *field, const char **text)
{
	static char name[HOST_NAME_MAX + 1];
	struct setting s = {d, name, field, false, false};

	if (gethostname(name, sizeof(name)) == -1)
		name[0] = '\0';
	name[sizeof(name) - 1] = '\0';
	*text = name;
	return parse_text(&s);
}

static const struct type type_text = {parse_text, format_text, compute_text};

static const char *
add_item(const struct directive *d, struct config_list *list, const char *text)
{
	const char *wrong;
	char **word, *copy;

	if (*text == '\0')
		return NULL;
	wrong = clean_text(d, &text);
	if (wrong != NULL)
		return wrong;
	word = realloc(list->word, (list->count + 1) * sizeof(*word));
	if (word == NULL)
		return NO_MEMORY;
	list->word = word;
	copy = strdup(text);
	if (copy == NULL)
		return NO_MEMORY;
	list->word[list->count++] = copy;
	return NULL;
}

static const char *
parse_list(const struct setting *s)
{
	struct config_list *list = s->field;
	const char *text = s->text, *wrong;
	char word[WORD_SIZE];
	int more;

	if (!s->more)
		*list = (struct config_list){NULL, 0};
	if (s->argument)
		return add_item(s->d, list, text);
	while ((more = text_word(&text, word, sizeof(word))) == 1) {
		wrong = add_item(s->d, list, word);
		if (wrong != NULL)
			return wrong;
	}
	if (more == -1)
		return "must be words, in double quotes if they have blanks";
	return NULL;
}

static void
format_list(FILE *out, const struct directive *d, const void *field)
{
	const struct config_list *list = field;
	const char *p;
	size_t i;

	(void)d;
	for (i = 0; i < list->count; i++) {
		p = list->word[i];
		if (i > 0)
			(void)fputc(' ', out);
		if (p[strcspn(p, " \t\"")] == '\0') {
			(void)fputs(p, out);
			continue;
		}
		(void)fputc('"', out);
		for (; *p != '\0'; p++) {
			if (*p == '"' || *p == '\\')
				(void)fputc('\\', out);
			(void)fputc(*p, out);
		}
		(void)fputc('"', out);
	}
}

static const struct type type_list = {parse_list, format_list, NULL};

/* What the texts of single directives must be. */

static const char *
clean_server_name(const char **text)
{
	if (!text_is_hostname(*text) || strlen(*text) > 255)
		return "must be a host name: letters, digits, '-' and '.'";
	return NULL;
}

static const char *
clean_capability(const char **text)
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

static const char *
clean_backend(const char **text)
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

static const char *
clean_resolver(const char **text)
{
	const char *list = *text;
	char word[64];
	size_t count = 0;
	int more;

	if (text_equal(list, "off"))
		*text = "";
	if (**text == '\0')
		return NULL;
	while ((more = text_word(&list, word, sizeof(word))) == 1)
		if (!is_name_server(word) || ++count > MAX_SERVERS)
			break;
	if (more != 0)
		return "must be off or at most 8 addresses of name servers, "
		       "each with :port if need be";
	return NULL;
}

static const char *
clean_protocols(const char **text)
{
	static const char known[] = "TLSv1 TLSv1.1 TLSv1.2 TLSv1.3";
	const char *list = *text;
	char word[16];
	int more;

	while ((more = text_word(&list, word, sizeof(word))) == 1)
		if (!text_has_word(known, word))
			break;
	return more == 0 ? NULL
			 : "must be words of: TLSv1 TLSv1.1 TLSv1.2 TLSv1.3";
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

static const char *
clean_provider(const char **text)
{
	static const char *const schemes[] = {
	    "http://", "https://", "http+unix://"};
	const char *rest, *s = *text;
	bool local;
	size_t i;

	if (*s == '\0')
		return NULL;
	if (strncmp(s, "file:", 5) == 0)
		return s[5] == '/' ? NULL
				   : "needs an absolute path after file:";
	for (i = 0; i < sizeof(schemes) / sizeof(*schemes); i++) {
		if (strncmp(s, schemes[i], strlen(schemes[i])) != 0)
			continue;
		rest = s + strlen(schemes[i]);
		local = strstr(schemes[i], "unix") != NULL;
		if (local && *rest != '/')
			return "needs an absolute path after http+unix://";
		if (*rest == '\0' || has_blank(rest) ||
		    (*rest == '/' && !local))
			return "must be a URL with a host and without blanks";
		return NULL;
	}
	return "must begin with file:/, http://, https:// or http+unix://";
}

/* nginx's auth_http: http:// may be left out, and unix:/path:/uri be there. */
static const char *
clean_auth_http(const char **text)
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
		return is_http(rest) ? clean_provider(text)
				     : "must be an http:// or https:// URL";
	}
	url = malloc(strlen(scheme) + strlen(rest) + 1);
	if (url == NULL)
		return NO_MEMORY;
	memcpy(url, scheme, strlen(scheme));
	memcpy(url + strlen(scheme), rest, strlen(rest) + 1);
	*text = url;
	return clean_provider(text);
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
static const char *
clean_header(const char **text)
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
		return NO_MEMORY;
	memcpy(line, *text, name);
	memcpy(line + name, ": ", 2);
	memcpy(line + name + 2, value, strlen(value) + 1);
	*text = line;
	return NULL;
}

/* The table. */

static const struct word words_switch[] = {{"off", 0}, {"on", 1}, {NULL, 0}};

static const struct word words_auth[] = {
    {"plain", CONFIG_AUTH_PLAIN},
    {"login", CONFIG_AUTH_LOGIN},
    {"cram-md5", CONFIG_AUTH_CRAM_MD5},
    {"external", CONFIG_AUTH_EXTERNAL},
    {"none", CONFIG_AUTH_NONE},
    {NULL, 0},
};

static const struct word words_socket[] = {{"ssl", 1}, {NULL, 0}};

static const struct word words_starttls[] = {
    {"off", CONFIG_STARTTLS_OFF},
    {"on", CONFIG_STARTTLS_ON},
    {"only", CONFIG_STARTTLS_ONLY},
    {NULL, 0},
};

static const struct word words_xclient[] = {
    {"off", CONFIG_XCLIENT_OFF},
    {"on", CONFIG_XCLIENT_ON},
    {"auto", CONFIG_XCLIENT_AUTO},
    {NULL, 0},
};

static const struct word words_relay_at[] = {
    {"auth", CONFIG_RELAY_AT_AUTH},
    {"greeting", CONFIG_RELAY_AT_GREETING},
    {NULL, 0},
};

static const struct word words_log[] = {
    {"auto", LOG_TO_AUTO},
    {"journal", LOG_TO_JOURNAL},
    {"syslog", LOG_TO_SYSLOG},
    {"stderr", LOG_TO_STDERR},
    {NULL, 0},
};

_Static_assert(sizeof(enum config_starttls) == sizeof(unsigned) &&
		   sizeof(enum config_xclient) == sizeof(unsigned) &&
		   sizeof(enum config_relay_at) == sizeof(unsigned) &&
		   sizeof(enum log_target) == sizeof(unsigned),
    "store() and load() take enumerations for unsigned");

#define FIELD(f)                              \
	.offset = offsetof(struct config, f), \
	.size = sizeof(((struct config *)0)->f)
#define SWITCH .wants = "must be on or off", .words = words_switch
/* poll(2) counts milliseconds in an int: 24 days and a little. */
#define DAYS_24 ((uint64_t)24 * 86400 * 1000)
#define TIMEOUT                                                               \
	.wants = "must be a time from 1ms to 24d, such as 500ms, 60s or 15m", \
	.min = 1, .max = DAYS_24
#define COUNT \
	.wants = "must be a number from 1 to 1000000", .min = 1, .max = 1000000

static const struct directive directives[] = {
    {"server_name", DIALOGUE, "NAME", "the name to greet with", &type_text,
	FIELD(server_name), .fallback = "(the host's name)",
	.clean = clean_server_name},
    {"smtp_auth", DIALOGUE, "WORDS",
	"mechanisms to offer, of: plain login cram-md5 external none;\n"
	"with none, authentication is not required",
	&type_set, FIELD(smtp_auth), .fallback = "plain login",
	.wants = "must be words of: plain login cram-md5 external none",
	.words = words_auth},
    {"smtp_auth_unlisted", DIALOGUE, "on|off",
	"take PLAIN and LOGIN even where smtp_auth does not list them",
	&type_word, FIELD(smtp_auth_unlisted), .fallback = "on", SWITCH},
    {"smtp_capabilities", DIALOGUE, "LINE...",
	"lines of the EHLO reply, as they stand and in this order;\n"
	"AUTH and STARTTLS are added by the program",
	&type_list, FIELD(smtp_capabilities), .fallback = "",
	.clean = clean_capability},
    {"smtp_client_buffer", DIALOGUE, "SIZE",
	"the longest command line that is read", &type_size,
	FIELD(smtp_client_buffer), .fallback = "(one page)",
	.wants = "must be a size from 128 to 1m, such as 512, 4k or 1m",
	.min = 128, .max = 1 << 20},
    {"smtp_greeting_delay", DIALOGUE, "TIME",
	"wait before the greeting, and refuse whoever talks meanwhile",
	&type_time, FIELD(smtp_greeting_delay), .fallback = "0",
	.wants = "must be a time of at most 24d, such as 0, 500ms or 5s",
	.max = DAYS_24},
    {"timeout", DIALOGUE, "TIME", "how long the client may take for a command",
	&type_time, FIELD(timeout), .fallback = "60s", TIMEOUT},
    {"max_errors", DIALOGUE, "NUMBER",
	"refused commands after which the session ends", &type_number,
	FIELD(max_errors), .fallback = "5", COUNT},
    {"max_auth_attempts", DIALOGUE, "NUMBER",
	"failed authentications after which the session ends", &type_number,
	FIELD(max_auth_attempts), .fallback = "5", COUNT},

    {"socket", PEER, "WORDS",
	"what the inherited socket is: ssl, if TLS begins at once", &type_set,
	FIELD(socket_ssl), .fallback = "", .wants = "must be ssl or nothing",
	.words = words_socket},
    {"resolver", PEER, "ADDRESSES",
	"name servers that are asked for the client's name, each with :port\n"
	"if need be; off: nobody is asked",
	&type_text, FIELD(resolver), .fallback = "", .clean = clean_resolver},
    {"resolver_timeout", PEER, "TIME",
	"how long the client's name may take to be found", &type_time,
	FIELD(resolver_timeout), .fallback = "30s", TIMEOUT},

    {"starttls", TLS, "off|on|only",
	"offer STARTTLS; only: refuse AUTH and MAIL before it", &type_word,
	FIELD(starttls), .fallback = "off", .wants = "must be off, on or only",
	.words = words_starttls},
    {"ssl_certificate", TLS, "FILE...",
	"PEM files of certificate chains, at most 4 (as RSA and ECDSA)",
	&type_list, FIELD(ssl_certificate), .fallback = ""},
    {"ssl_certificate_key", TLS, "FILE...",
	"PEM files of their private keys, in the same order", &type_list,
	FIELD(ssl_certificate_key), .fallback = ""},
    {"ssl_password_file", TLS, "FILE",
	"passphrases of the keys, one a line; all are tried", &type_text,
	FIELD(ssl_password_file), .fallback = ""},
    {"ssl_protocols", TLS, "WORDS",
	"versions, of: TLSv1 TLSv1.1 TLSv1.2 TLSv1.3", &type_text,
	FIELD(ssl_protocols), .fallback = "TLSv1.2 TLSv1.3",
	.clean = clean_protocols},
    {"ssl_ciphers", TLS, "LIST",
	"ciphers of TLS 1.2, as openssl ciphers takes them", &type_text,
	FIELD(ssl_ciphers), .fallback = ""},
    {"ssl_ecdh_curve", TLS, "LIST",
	"curves, as X25519:prime256v1; auto: OpenSSL's", &type_text,
	FIELD(ssl_ecdh_curve), .fallback = "auto"},
    {"ssl_prefer_server_ciphers", TLS, "on|off",
	"the order of ssl_ciphers before the client's", &type_word,
	FIELD(ssl_prefer_server_ciphers), .fallback = "off", SWITCH},

    {"auth_provider", CREDENTIALS, "PROVIDER",
	"what judges credentials: file:/path (see smtp-frontd-passwd),\n"
	"http://host/path, https://host/path or http+unix:///socket[:/path]",
	&type_text, FIELD(auth_provider), .fallback = "",
	.clean = clean_provider},
    {"auth_http", CREDENTIALS, "[http://]URL",
	"nginx's name for auth_provider with a URL", &type_text,
	FIELD(auth_provider), .clean = clean_auth_http},
    {"auth_http_header", CREDENTIALS, "HEADER...",
	"headers to add to each question: \"Name value\" or \"Name: value\"",
	&type_list, FIELD(auth_http_header), .fallback = "",
	.clean = clean_header},
    {"auth_http_timeout", CREDENTIALS, "TIME", "how long the answer may take",
	&type_time, FIELD(auth_http_timeout), .fallback = "60s", TIMEOUT},

    {"backend", UPSTREAM, "ADDRESS...",
	"mail servers, the next where one fails: host:port, [IPv6]:port or\n"
	"unix:/path",
	&type_list, FIELD(backend), .fallback = "", .clean = clean_backend},
    {"xclient", UPSTREAM, "auto|on|off",
	"tell the backend who the client is; auto: if it offers XCLIENT,\n"
	"on: refuse a backend that does not",
	&type_word, FIELD(xclient), .fallback = "auto",
	.wants = "must be auto, on or off", .words = words_xclient},
    {"proxy_smtp_auth", UPSTREAM, "on|off",
	"authenticate to the backend as the client did", &type_word,
	FIELD(proxy_smtp_auth), .fallback = "off", SWITCH},
    {"proxy_pass_error_message", UPSTREAM, "on|off",
	"pass the backend's own refusals on to the client", &type_word,
	FIELD(proxy_pass_error_message), .fallback = "off", SWITCH},
    {"proxy_connect_timeout", UPSTREAM, "TIME",
	"how long reaching a backend may take, all together", &type_time,
	FIELD(proxy_connect_timeout), .fallback = "60s", TIMEOUT},
    {"proxy_timeout", UPSTREAM, "TIME",
	"how long either direction may be idle after the hand-over", &type_time,
	FIELD(proxy_timeout), .fallback = "15m", TIMEOUT},
    {"proxy_buffer", UPSTREAM, "SIZE",
	"buffer for each direction after the hand-over", &type_size,
	FIELD(proxy_buffer), .fallback = "(one page)",
	.wants = "must be a size from 1k to 16m, such as 4k or 1m", .min = 1024,
	.max = 16 << 20},
    {"relay_at", UPSTREAM, "auth|greeting",
	"run the relay program after authentication, or in place of the\n"
	"greeting, which it then says itself",
	&type_word, FIELD(relay_at), .fallback = "auth",
	.wants = "must be auth or greeting", .words = words_relay_at},

    {"user", PROCESS, "NAME", "the user to become, if started by root",
	&type_text, FIELD(user), .fallback = ""},
    {"log", PROCESS, "auto|journal|syslog|stderr",
	"where the log goes; never to the client", &type_word, FIELD(log),
	.fallback = "auto", .wants = "must be auto, journal, syslog or stderr",
	.words = words_log},
};

#define DIRECTIVES (sizeof(directives) / sizeof(*directives))

/* Arguments that are no directives. */
static const struct option {
	const char *name;
	char letter;
	const char *hint, *help;
	size_t offset; /* a bool, but of --config, which has a hint */
} options[] = {
    {"config", '\0', "FILE",
	"read directives from a file of EnvironmentFile= format", 0},
    {"check", '\0', NULL,
	"print every value and where it came from, and warnings",
	offsetof(struct config, check)},
    {"help", 'h', NULL, "print this", offsetof(struct config, help)},
    {"version", 'V', NULL, "print the version",
	offsetof(struct config, version)},
};

#define OPTIONS (sizeof(options) / sizeof(*options))

/* Where values came from, and what else config_load() leaves for later. */

enum origin {
	FROM_DEFAULT,
	FROM_FILE,
	FROM_ENVIRONMENT,
	FROM_ARGUMENT
};

struct source {
	enum origin from;
	unsigned line; /* in the file */
	const struct directive *by; /* the row it was named by; NULL: none */
};

static struct source sources[DIRECTIVES];
static const char *file_name; /* of --config; NULL: none */
static char **unknown;
static size_t unknown_count;

/* The row whose field it is: the first of those that share one. */
static const struct directive *
owner(size_t offset)
{
	const struct directive *d = directives;

	while (d->offset != offset)
		d++;
	return d;
}

static struct source *
source_of(const struct directive *d)
{
	return &sources[owner(d->offset) - directives];
}

static void
print_argument(char *out, size_t size, const char *name)
{
	char *p;

	(void)snprintf(out, size, "--%s", name);
	for (p = out; *p != '\0'; p++)
		if (*p == '_')
			*p = '-';
}

static char
upper(char c)
{
	return (char)(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
}

/* What the variable's name has after SMTP_, in small letters. */
static const char *
variable_part(const struct directive *d)
{
	return strncmp(d->name, "smtp_", 5) == 0 ? d->name + 5 : d->name;
}

static void
print_source(char *out, size_t size, const struct source *src)
{
	char quoted[256], argument[64];

	switch (src->from) {
	case FROM_FILE:
		(void)snprintf(out, size, "from %s:%u",
		    log_quote(quoted, sizeof(quoted), file_name), src->line);
		break;
	case FROM_ENVIRONMENT:
		(void)snprintf(out, size, "from the environment");
		break;
	case FROM_ARGUMENT:
		print_argument(argument, sizeof(argument), src->by->name);
		(void)snprintf(out, size, "from %s", argument);
		break;
	case FROM_DEFAULT:
		(void)snprintf(out, size, "the default");
		break;
	}
}

/* The one form of all complaints about values. */
static void
explain(char *err, const char *name, const char *value, const char *reason,
    const struct source *src)
{
	char quoted[256], source[320];
	const char *quote;

	print_source(source, sizeof(source), src);
	(void)log_quote(quoted, sizeof(quoted), value);
	quote = quoted[0] == '"' ? "" : "\"";
	(void)snprintf(err, CONFIG_ERROR_SIZE, "%s: value %s%s%s: %s (%s)",
	    name, quote, quoted, quote, reason, source);
}

static enum config_result
refuse_usage(char *err, const char *word, const char *reason)
{
	char quoted[256];

	(void)snprintf(err, CONFIG_ERROR_SIZE,
	    "%s: %s (--help lists the arguments)",
	    log_quote(quoted, sizeof(quoted), word), reason);
	return CONFIG_USAGE;
}

static enum config_result
set(struct config *conf, const struct directive *d, const char *text,
    struct source src, char *err)
{
	struct source *old = source_of(d);
	struct setting s = {d, text, (char *)conf + d->offset,
	    src.from == FROM_ARGUMENT,
	    src.from == FROM_ARGUMENT && old->from == FROM_ARGUMENT};
	const char *wrong;
	char reason[128];

	src.by = d;
	if (old->by != NULL && old->by != d && old->from == src.from) {
		(void)snprintf(reason, sizeof(reason),
		    "means the same as %s, which is given too", old->by->name);
		explain(err, d->name, text, reason, &src);
		return CONFIG_BAD;
	}
	wrong = d->type->parse(&s);
	if (wrong == NULL) {
		*old = src;
		return CONFIG_OK;
	}
	explain(err, d->name, text, wrong, &src);
	return src.from == FROM_ARGUMENT ? CONFIG_USAGE : CONFIG_BAD;
}

/* Arguments. */

struct argument {
	const struct directive *d; /* or */
	const struct option *o;
	const char *value; /* NULL for an option that takes none */
};

/* Whether `word` of `len` letters is the directive's name with hyphens. */
static bool
is_argument(const struct directive *d, const char *word, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (word[i] != (d->name[i] == '_' ? '-' : d->name[i]))
			return false;
	return d->name[len] == '\0';
}

/* Fills in `d` or `o`; neither, if the word is no argument. */
static void
find_argument(struct argument *arg, const char *word, size_t len)
{
	size_t i;

	for (i = 0; i < OPTIONS; i++) {
		if ((strlen(options[i].name) == len - 2 &&
			strncmp(word, "--", 2) == 0 &&
			strncmp(options[i].name, word + 2, len - 2) == 0) ||
		    (len == 2 && word[0] == '-' && options[i].letter != '\0' &&
			word[1] == options[i].letter))
			arg->o = &options[i];
	}
	if (strncmp(word, "--", 2) != 0)
		return;
	for (i = 0; i < DIRECTIVES && arg->d == NULL; i++)
		if (is_argument(&directives[i], word + 2, len - 2))
			arg->d = &directives[i];
}

/* Takes the argument at argv[*i], and its value, which may be the next word. */
static enum config_result
next_argument(char **argv, int *i, struct argument *arg, char *err)
{
	const char *word = argv[*i];
	size_t len = strcspn(word, "=");
	bool takes;

	*arg = (struct argument){NULL, NULL, NULL};
	if (len > 1)
		find_argument(arg, word, len);
	if (arg->d == NULL && arg->o == NULL)
		return refuse_usage(err, word, "not an argument");
	takes = arg->d != NULL || arg->o->hint != NULL;
	if (word[len] == '=') {
		if (!takes)
			return refuse_usage(err, word, "takes no value");
		arg->value = word + len + 1;
	} else if (takes) {
		if (argv[*i + 1] == NULL || strcmp(argv[*i + 1], "--") == 0)
			return refuse_usage(err, word, "needs a value");
		arg->value = argv[++*i];
	}
	return CONFIG_OK;
}

static void
note_option(struct config *conf, const struct argument *arg)
{
	if (arg->value != NULL)
		file_name = arg->value;
	else
		*(bool *)((char *)conf + arg->o->offset) = true;
}

/*
 * Twice over the arguments: for the options (and whether all is well formed)
 * before the file is read, for the directives after the environment.
 */
static enum config_result
load_arguments(struct config *conf, char **argv, bool directives_too, char *err)
{
	struct source src = {FROM_ARGUMENT, 0, NULL};
	enum config_result result = CONFIG_OK;
	struct argument arg;
	int i;

	if (argv[0] == NULL)
		return CONFIG_OK;
	for (i = 1; argv[i] != NULL && result == CONFIG_OK; i++) {
		if (strcmp(argv[i], "--") == 0) {
			if (argv[i + 1] == NULL)
				return refuse_usage(
				    err, argv[i], "needs a program after it");
			conf->relay = &argv[i + 1];
			break;
		}
		result = next_argument(argv, &i, &arg, err);
		if (result == CONFIG_OK && arg.d == NULL)
			note_option(conf, &arg);
		else if (result == CONFIG_OK && directives_too)
			result = set(conf, arg.d, arg.value, src, err);
	}
	return result;
}

/* The environment, and names of variables. */

/* `key` begins with SMTP_. */
static const struct directive *
find_variable(const char *key, size_t len)
{
	const char *name;
	size_t i, k;

	key += strlen(VARIABLE);
	len -= strlen(VARIABLE);
	for (i = 0; i < DIRECTIVES; i++) {
		name = variable_part(&directives[i]);
		for (k = 0; k < len && key[k] == upper(name[k]); k++)
			;
		if (k == len && name[k] == '\0')
			return &directives[i];
	}
	return NULL;
}

/* To be warned of. Without memory the warning is all that is lost. */
static void
remember_unknown(const char *key, size_t len)
{
	char **names = realloc(unknown, (unknown_count + 1) * sizeof(*names));

	if (names == NULL)
		return;
	unknown = names;
	unknown[unknown_count] = strndup(key, len);
	if (unknown[unknown_count] != NULL)
		unknown_count++;
}

static enum config_result
load_environment(struct config *conf, char *err)
{
	struct source src = {FROM_ENVIRONMENT, 0, NULL};
	enum config_result result = CONFIG_OK;
	const struct directive *d;
	size_t len;
	char **e;

	for (e = environ; e != NULL && *e != NULL; e++) {
		if (strncmp(*e, VARIABLE, strlen(VARIABLE)) != 0)
			continue;
		len = strcspn(*e, "=");
		d = find_variable(*e, len);
		if (d == NULL)
			remember_unknown(*e, len);
		else if ((*e)[len] == '=')
			result = set(conf, d, *e + len + 1, src, err);
		if (result != CONFIG_OK)
			return result;
	}
	return CONFIG_OK;
}

/*
 * The file. One file is to serve the unit, too, so that it is read as
 * systemd 252 reads an EnvironmentFile=, oddities included:
 *
 *	# a comment, also with ';'; a backslash takes the next line into it
 *	KEY = unquoted; blanks at the end are cut, quotes inside are letters
 *	KEY='as it is, \ too' "escaped: \" \\ \$ \` "and all of it joined
 *
 * In unquoted values a backslash keeps the next octet as it is, in double
 * quotes one before anything else stands for itself; before the end of a line
 * both vanish. A carriage return ends a line as well. What is left open at the
 * end of the file is closed there.
 */

struct cursor {
	const char *p; /* in the text of the file, which ends in a NUL */
	char *out; /* where the next octet of a value goes */
	unsigned line;
};

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool
ends_line(char c)
{
	return c == '\n' || c == '\r';
}

static void
step(struct cursor *c)
{
	if (*c->p++ == '\n')
		c->line++;
}

static void
skip_comment(struct cursor *c)
{
	for (; *c->p != '\0' && !ends_line(*c->p); step(c))
		if (*c->p == '\\' && c->p[1] != '\0')
			step(c);
}

static void
read_quoted(struct cursor *c)
{
	char quote = *c->p;

	for (step(c); *c->p != '\0' && *c->p != quote; step(c)) {
		if (quote == '"' && *c->p == '\\') {
			step(c);
			if (*c->p == '\0')
				return;
			if (*c->p == '\n')
				continue;
			if (strchr("\"\\`$", *c->p) == NULL)
				*c->out++ = '\\';
		}
		*c->out++ = *c->p;
	}
	if (*c->p != '\0')
		step(c);
}

static void
read_unquoted(struct cursor *c)
{
	char *keep = c->out; /* behind it are but blanks that may be cut */

	for (; *c->p != '\0' && !ends_line(*c->p); step(c)) {
		if (*c->p == '\\') {
			step(c);
			keep = c->out;
			if (*c->p == '\0')
				break;
			if (!ends_line(*c->p)) {
				*c->out++ = *c->p;
				keep = c->out;
			}
			continue;
		}
		*c->out++ = *c->p;
		if (!is_blank(*c->p))
			keep = c->out;
	}
	c->out = keep;
}

static const char *
read_value(struct cursor *c)
{
	const char *value = c->out;

	for (;;) {
		while (is_blank(*c->p))
			step(c);
		if (*c->p != '"' && *c->p != '\'')
			break;
		read_quoted(c);
	}
	read_unquoted(c);
	*c->out++ = '\0';
	return value;
}

/*
 * The next key: its length in *len, the line in *line, the cursor behind the
 * '='; for a line without one, which systemd skips, at its end, and *given is
 * false. NULL at the end of the file.
 */
static const char *
read_key(struct cursor *c, size_t *len, unsigned *line, bool *given)
{
	const char *key;

	for (;;) {
		while (is_blank(*c->p) || ends_line(*c->p))
			step(c);
		if (*c->p != '#' && *c->p != ';')
			break;
		skip_comment(c);
	}
	if (*c->p == '\0')
		return NULL;
	key = c->p;
	*line = c->line;
	do
		step(c);
	while (*c->p != '\0' && *c->p != '=' && !ends_line(*c->p));
	*len = (size_t)(c->p - key);
	while (is_blank(key[*len - 1]))
		--*len;
	*given = *c->p == '=';
	if (*given)
		step(c);
	return key;
}

static enum config_result
refuse_key(char *err, const char *key, size_t len, unsigned line, bool given)
{
	char name[128], quoted_name[160], quoted_file[256];

	(void)snprintf(name, sizeof(name), "%.*s",
	    (int)(len < sizeof(name) ? len : sizeof(name)), key);
	(void)snprintf(err, CONFIG_ERROR_SIZE, "%s: %s (%s:%u)",
	    log_quote(quoted_name, sizeof(quoted_name), name),
	    given ? "not a directive" : "there is no '=' in the line",
	    log_quote(quoted_file, sizeof(quoted_file), file_name), line);
	return CONFIG_BAD;
}

/* `out` has as much room as `text`; values stay there. */
static enum config_result
parse_file(struct config *conf, const char *text, char *out, char *err)
{
	struct cursor c = {text, out, 1};
	struct source src = {FROM_FILE, 0, NULL};
	enum config_result result = CONFIG_OK;
	const struct directive *d;
	const char *key, *value;
	size_t len;
	bool given;

	while (result == CONFIG_OK &&
	       (key = read_key(&c, &len, &src.line, &given)) != NULL) {
		value = given ? read_value(&c) : NULL;
		if (strncmp(key, VARIABLE, strlen(VARIABLE)) != 0)
			continue;
		d = find_variable(key, len);
		if (d == NULL || !given)
			return refuse_key(err, key, len, src.line, given);
		result = set(conf, d, value, src, err);
	}
	return result;
}

/* Reads all of `fd` into `buf` (FILE_MAX + 1 octets). The reason it cannot. */
static const char *
read_all(int fd, char *buf)
{
	size_t len = 0;
	ssize_t n;

	do {
		n = read(fd, buf + len, FILE_MAX + 1 - len);
		if (n > 0)
			len += (size_t)n;
	} while ((n > 0 && len <= FILE_MAX) || (n == -1 && errno == EINTR));
	if (n == -1)
		return strerror(errno);
	if (len > FILE_MAX)
		return "is longer than 64 kB";
	if (memchr(buf, '\0', len) != NULL)
		return "holds a NUL";
	buf[len] = '\0';
	return NULL;
}

static enum config_result
load_file(struct config *conf, char *err)
{
	static const struct directive config = {.name = "config"};
	struct source src = {FROM_ARGUMENT, 0, &config};
	enum config_result result = CONFIG_BAD;
	char *text = malloc(FILE_MAX + 1), *out = NULL;
	const char *wrong = NO_MEMORY;
	int fd = -1;

	if (text != NULL) {
		fd = open(file_name, O_RDONLY | O_CLOEXEC);
		wrong = fd == -1 ? strerror(errno) : read_all(fd, text);
	}
	if (wrong == NULL && (out = malloc(strlen(text) + 1)) == NULL)
		wrong = NO_MEMORY;
	if (wrong == NULL)
		result = parse_file(conf, text, out, err);
	else
		explain(err, "config", file_name, wrong, &src);
	if (fd != -1)
		(void)close(fd);
	free(text);
	return result;
}

/* Defaults and contradictions. */

static enum config_result
load_defaults(struct config *conf, char *err)
{
	const struct directive *d;
	struct setting s = {0};
	const char *wrong;

	for (d = directives; d < directives + DIRECTIVES; d++) {
		if (d->fallback == NULL || source_of(d)->from != FROM_DEFAULT)
			continue;
		s = (struct setting){.d = d,
		    .text = d->fallback,
		    .field = (char *)conf + d->offset};
		if (d->fallback[0] == '(')
			wrong = d->type->compute(d, s.field, &s.text);
		else
			wrong = d->type->parse(&s);
		if (wrong == NULL)
			continue;
		explain(err, d->name, s.text, wrong, source_of(d));
		return CONFIG_BAD;
	}
	return CONFIG_OK;
}

/* Two directives that cannot both be meant. */
struct clash {
	size_t offset; /* of the directive to complain of */
	const char *reason; /* NULL: none */
};

#define CLASH(f, why) ((struct clash){offsetof(struct config, f), why})
#define NO_CLASH      ((struct clash){0, NULL})

static struct clash
tls_clash(const struct config *conf)
{
	bool starttls = conf->starttls != CONFIG_STARTTLS_OFF;

	if (conf->ssl_certificate.count > TLS_MAX_KEYS)
		return CLASH(ssl_certificate, "is more than 4 certificates");
	if (conf->ssl_certificate.count != conf->ssl_certificate_key.count)
		return CLASH(ssl_certificate_key,
		    "must be as many files as ssl_certificate names, in the "
		    "same order");
	if (starttls && conf->socket_ssl)
		return CLASH(starttls,
		    "cannot be with socket ssl: TLS is on from the start");
	if (starttls && conf->ssl_certificate.count == 0)
		return CLASH(
		    starttls, "needs ssl_certificate and ssl_certificate_key");
	if (conf->socket_ssl && conf->ssl_certificate.count == 0)
		return CLASH(socket_ssl,
		    "needs ssl_certificate and ssl_certificate_key");
	return NO_CLASH;
}

static struct clash
upstream_clash(const struct config *conf)
{
	if (conf->relay_at == CONFIG_RELAY_AT_GREETING) {
		if (conf->relay == NULL)
			return CLASH(
			    relay_at, "needs a relay program after --");
		if (conf->socket_ssl || conf->starttls != CONFIG_STARTTLS_OFF)
			return CLASH(relay_at,
			    "cannot be with TLS (socket ssl, starttls): the "
			    "relay program gets the connection as it is");
	}
	if (conf->backend.count == 0 && conf->relay == NULL &&
	    !is_http(conf->auth_provider))
		return CLASH(backend,
		    "there is nothing behind: no backend, no relay program "
		    "after --, and no auth_provider of http that names one");
	return NO_CLASH;
}

static struct clash
auth_clash(const struct config *conf)
{
	size_t offset = offsetof(struct config, smtp_auth);

	if (conf->auth_provider[0] != '\0')
		return NO_CLASH;
	if ((conf->smtp_auth & ~(unsigned)CONFIG_AUTH_NONE) != 0 &&
	    source_of(owner(offset))->from != FROM_DEFAULT)
		return CLASH(smtp_auth, "needs an auth_provider");
	if ((conf->smtp_auth & CONFIG_AUTH_NONE) == 0 &&
	    conf->relay_at != CONFIG_RELAY_AT_GREETING)
		return CLASH(smtp_auth,
		    "lets nobody in: there is neither an auth_provider nor "
		    "none among the words");
	return NO_CLASH;
}

/* The value as the environment would have it, allocated; "" without memory. */
static char *
value_text(const struct config *conf, const struct directive *d)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (out == NULL)
		return NULL;
	d->type->format(out, d, (const char *)conf + d->offset);
	if (fclose(out) == 0)
		return text;
	free(text);
	return NULL;
}

static enum config_result
check_clashes(const struct config *conf, char *err)
{
	static struct clash (*const checks[])(const struct config *) = {
	    tls_clash, upstream_clash, auth_clash};
	const struct directive *d;
	struct source *src;
	struct clash clash;
	char *value;
	size_t i;

	for (i = 0; i < sizeof(checks) / sizeof(*checks); i++) {
		clash = checks[i](conf);
		if (clash.reason == NULL)
			continue;
		d = owner(clash.offset);
		src = source_of(d);
		value = value_text(conf, d);
		explain(err, src->by != NULL ? src->by->name : d->name,
		    value != NULL ? value : "", clash.reason, src);
		free(value);
		return CONFIG_BAD;
	}
	return CONFIG_OK;
}

enum config_result
config_load(struct config *conf, int argc, char **argv, char *err)
{
	enum config_result result;

	(void)argc;
	memset(conf, 0, sizeof(*conf));
	memset(sources, 0, sizeof(sources));
	file_name = NULL;
	unknown_count = 0;
	err[0] = '\0';
	result = load_arguments(conf, argv, false, err);
	if (result != CONFIG_OK || conf->help || conf->version)
		return result;
	if (file_name != NULL)
		result = load_file(conf, err);
	if (result == CONFIG_OK)
		result = load_environment(conf, err);
	if (result == CONFIG_OK)
		result = load_arguments(conf, argv, true, err);
	if (result == CONFIG_OK)
		result = load_defaults(conf, err);
	if (result == CONFIG_OK)
		result = check_clashes(conf, err);
	return result;
}

size_t
config_unknown_count(void)
{
	return unknown_count;
}

const char *
config_unknown(size_t i)
{
	return unknown[i];
}

/* --help. */

static const char intro[] =
    "Usage: smtp-frontd [DIRECTIVE...] [-- RELAY PROGRAM [ARGUMENT...]]\n"
    "\n"
    "Stands in front of a mail server for one SMTP connection, which it has\n"
    "as its standard input or from systemd: greets, speaks TLS,\n"
    "authenticates, and hands the session over to a backend or to a relay\n"
    "program.\n"
    "\n"
    "A directive is an argument (--max-errors 3), a variable of the\n"
    "environment (SMTP_MAX_ERRORS=3) or such a line in a --config file;\n"
    "arguments win over the environment, that over the file. An argument with\n"
    "... may be repeated, one item each; elsewhere its items are separated by\n"
    "blanks, with double quotes around one that has blanks itself. Sizes are\n"
    "as 4k or 1m, times as 500ms, 5s or 15m. Defaults are in brackets.\n";

static void
print_lines(FILE *out, const char *text)
{
	size_t len;

	for (;;) {
		len = strcspn(text, "\n");
		(void)fprintf(out, "      %.*s\n", (int)len, text);
		if (text[len] == '\0')
			return;
		text += len + 1;
	}
}

static void
print_row(FILE *out, const struct directive *d)
{
	char argument[64], head[128];

	print_argument(argument, sizeof(argument), d->name);
	(void)snprintf(head, sizeof(head), "  %s %s", argument, d->hint);
	if (d->fallback == NULL || d->fallback[0] == '\0')
		(void)fprintf(out, "%s\n", head);
	else if (d->fallback[0] == '(')
		(void)fprintf(out, "%-54s [%.*s]\n", head,
		    (int)strlen(d->fallback) - 2, d->fallback + 1);
	else
		(void)fprintf(out, "%-54s [%s]\n", head, d->fallback);
	print_lines(out, d->help);
}

void
config_print_help(FILE *out)
{
	const struct directive *d;
	const struct option *o;

	(void)fputs(intro, out);
	(void)fputs("\nWhat to do\n", out);
	for (o = options; o < options + OPTIONS; o++) {
		(void)fprintf(out, "  --%s", o->name);
		if (o->letter != '\0')
			(void)fprintf(out, ", -%c", o->letter);
		(void)fprintf(out, "%s%s\n", o->hint != NULL ? " " : "",
		    o->hint != NULL ? o->hint : "");
		print_lines(out, o->help);
	}
	for (d = directives; d < directives + DIRECTIVES; d++) {
		if (d == directives || d->group != d[-1].group)
			(void)fprintf(out, "\n%s\n", group_titles[d->group]);
		print_row(out, d);
	}
}

/* --check. */

/* `text` for the file, so that parse_file() and systemd read it as it is. */
static void
print_quoted(FILE *out, const char *text)
{
	static const char plain[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	    "-_./:@,+%[]";

	if (text[strspn(text, plain)] == '\0') {
		(void)fputs(text, out);
		return;
	}
	if (strchr(text, '\'') == NULL) {
		(void)fprintf(out, "'%s'", text);
		return;
	}
	(void)fputc('"', out);
	for (; *text != '\0'; text++) {
		if (strchr("\"\\`$", *text) != NULL)
			(void)fputc('\\', out);
		(void)fputc(*text, out);
	}
	(void)fputc('"', out);
}

static void
print_value(FILE *out, const struct config *conf, const struct directive *d)
{
	char source[320], *text = value_text(conf, d);
	const char *p;

	if (text == NULL)
		return;
	print_source(source, sizeof(source), source_of(d));
	(void)fprintf(out, "# %s\n" VARIABLE, source);
	for (p = variable_part(d); *p != '\0'; p++)
		(void)fputc(upper(*p), out);
	(void)fputc('=', out);
	print_quoted(out, text);
	(void)fputc('\n', out);
	free(text);
}

static void
warn(FILE *out, const char *text)
{
	(void)fprintf(out, "# warning: %s\n", text);
}

/* A file that holds secrets, or (`secret` false) only has to be there. */
static void
warn_file(FILE *out, const char *name, const char *path, bool secret)
{
	char quoted[512];
	struct stat st;

	(void)log_quote(quoted, sizeof(quoted), path);
	if (stat(path, &st) == -1 || access(path, R_OK) == -1)
		(void)fprintf(out, "# warning: %s: %s cannot be read: %s\n",
		    name, quoted, strerror(errno));
	else if (secret && (st.st_mode & S_IROTH) != 0)
		(void)fprintf(out,
		    "# warning: %s: %s can be read by everybody\n", name,
		    quoted);
}

static void
warn_files(FILE *out, const struct config *conf)
{
	size_t i;

	for (i = 0; i < conf->ssl_certificate.count; i++)
		warn_file(out, "ssl_certificate", conf->ssl_certificate.word[i],
		    false);
	for (i = 0; i < conf->ssl_certificate_key.count; i++)
		warn_file(out, "ssl_certificate_key",
		    conf->ssl_certificate_key.word[i], true);
	if (conf->ssl_password_file[0] != '\0')
		warn_file(
		    out, "ssl_password_file", conf->ssl_password_file, true);
	if (strncmp(conf->auth_provider, "file:", 5) == 0)
		warn_file(out, "auth_provider", conf->auth_provider + 5, true);
}

/* Whether a http:// URL stays within the host. */
static bool
is_loopback(const char *url)
{
	const char *host = url + strlen("http://"), *at;
	size_t len = strcspn(host, "/?#");

	at = memchr(host, '@', len);
	if (at != NULL) {
		len -= (size_t)(at + 1 - host);
		host = at + 1;
	}
	if (strncmp(host, "[::1]", 5) == 0)
		return true;
	if (memchr(host, ':', len) != NULL)
		len = strcspn(host, ":");
	return (len == 9 && strncmp(host, "localhost", 9) == 0) ||
	       (strncmp(host, "127.", 4) == 0 &&
		   strspn(host, "0123456789.") >= len);
}

static void
warn_passwords(FILE *out, const struct config *conf)
{
	const unsigned both = CONFIG_AUTH_PLAIN | CONFIG_AUTH_LOGIN;

	if (conf->auth_provider[0] == '\0')
		return;
	if (((conf->smtp_auth & both) != 0 || conf->smtp_auth_unlisted) &&
	    conf->starttls != CONFIG_STARTTLS_ONLY && !conf->socket_ssl)
		warn(out, "starttls: passwords are taken without TLS, too: for "
			  "clients on the loopback interface only");
	if (conf->smtp_auth_unlisted && (conf->smtp_auth & both) != both)
		warn(out, "smtp_auth_unlisted: PLAIN and LOGIN are taken, "
			  "listed in smtp_auth or not");
	if (strncmp(conf->auth_provider, "http://", 7) == 0 &&
	    !is_loopback(conf->auth_provider))
		warn(out, "auth_provider: passwords go to another host in the "
			  "clear: use https://");
}

void
config_print_check(const struct config *conf, FILE *out)
{
	const struct directive *d;
	char quoted[256];
	char **word;

	for (d = directives; d < directives + DIRECTIVES; d++)
		if (d->fallback != NULL)
			print_value(out, conf, d);
	if (conf->relay != NULL) {
		(void)fputs("# relay program:", out);
		for (word = conf->relay; *word != NULL; word++)
			(void)fprintf(out, " %s",
			    log_quote(quoted, sizeof(quoted), *word));
		/* After a backslash the next line would be a comment, too. */
		(void)fputs(" .\n", out);
	}
	if (conf->relay_at != CONFIG_RELAY_AT_GREETING)
		warn_passwords(out, conf);
	if ((conf->smtp_auth & CONFIG_AUTH_NONE) != 0 &&
	    conf->backend.count > 0 && conf->xclient == CONFIG_XCLIENT_OFF)
		warn(out,
		    "xclient: with smtp_auth none, a backend that "
		    "relays by address takes every client for this host: an "
		    "open relay");
	warn_files(out, conf);
}
