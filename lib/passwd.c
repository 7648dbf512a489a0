/*
 * Password files: their lines, and making and verifying the secrets in them.
 * Hashes are crypt(3)'s, but for SCRAM's keys, which are lib/scram.c's. Writing files is not done here.
 */
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <arpa/inet.h>
#include <crypt.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/passwd.h"
#include "lib/scram.h"
#include "lib/text.h"

/* Of keys that are made here. */
#define SCRAM_ITERATIONS 100000
#define SCRAM_SALT_SIZE	 16

#define BCRYPT_PASSWORD_MAX 72

enum kind {
	KIND_PLAIN,
	KIND_CRYPT,
	KIND_SCRAM_SHA_1,
	KIND_SCRAM_SHA_256,
	KIND_UNSUPPORTED
};

static const struct {
	const char *prefix; /* of the secret, any case */
	enum kind kind;
} schemes[] = {
    {"{PLAIN}", KIND_PLAIN},
    {"{CLEARTEXT}", KIND_PLAIN},
    {"{CLEAR}", KIND_PLAIN},
    {"{SCRAM-SHA-1}", KIND_SCRAM_SHA_1},
    {"{SCRAM-SHA-256}", KIND_SCRAM_SHA_256},
    {"{CRYPT}", KIND_CRYPT},
    {"{BLF-CRYPT}", KIND_CRYPT},
    {"{BCRYPT}", KIND_CRYPT},
    {"{SHA256-CRYPT}", KIND_CRYPT},
    {"{SHA512-CRYPT}", KIND_CRYPT},
};

/*
 * Finds the scheme of `secret`; *value is what stands behind its name. Without
 * a name only crypt(3)'s $id$ is believed: to take anything else as a password
 * would make a hash that is not known here the password.
 */
static enum kind
find_scheme(const char *secret, const char **value)
{
	size_t i;

	*value = secret;
	if (secret[0] == '$')
		return KIND_CRYPT;
	for (i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		if (text_prefix(secret, schemes[i].prefix)) {
			*value = secret + strlen(schemes[i].prefix);
			return schemes[i].kind;
		}
	}
	return KIND_UNSUPPORTED;
}

/*
 * Lines.
 */

static bool
is_control(char c)
{
	return (unsigned char)c < 0x20 || c == 0x7f;
}

static bool
has_control(const char *s)
{
	for (; *s != '\0'; s++)
		if (is_control(*s))
			return true;
	return false;
}

static bool
is_port(const char *s)
{
	uint64_t port;

	return text_number(s, 65535, &port) == 0 && port > 0;
}

bool
passwd_is_backend(const char *s)
{
	char host[256];
	const char *end;
	unsigned char addr[sizeof(struct in6_addr)];
	size_t path_max = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;

	if (strncmp(s, "unix:/", 6) == 0)
		return strlen(s + 5) <= path_max && !has_control(s);
	end = strrchr(s, ':');
	if (end == NULL || end == s || (size_t)(end - s) >= sizeof(host) ||
	    !is_port(end + 1))
		return false;
	memcpy(host, s, (size_t)(end - s));
	host[end - s] = '\0';
	if (host[0] == '[') {
		if (end[-1] != ']')
			return false;
		host[end - s - 1] = '\0';
		return inet_pton(AF_INET6, host + 1, addr) == 1;
	}
	if (strspn(host, "0123456789.") == strlen(host))
		return inet_pton(AF_INET, host, addr) == 1;
	return text_is_hostname(host);
}

bool
passwd_parse(const char *line, size_t len, struct passwd_entry *entry)
{
	char *user = entry->text, *secret, *rest;

	if (len > 0 && line[len - 1] == '\n')
		len--;
	if (len > 0 && line[len - 1] == '\r')
		len--;
	/* A NUL inside would let two readers see two different lines. */
	if (len == 0 || len > PASSWD_LINE_MAX || line[0] == '#' ||
	    memchr(line, '\0', len) != NULL)
		return false;
	memcpy(entry->text, line, len);
	entry->text[len] = '\0';
	secret = strchr(user, ':');
	if (secret == NULL || secret == user)
		return false;
	*secret++ = '\0';
	rest = strchr(secret, ':');
	if (rest != NULL)
		*rest++ = '\0';
	entry->user = user;
	entry->secret = secret;
	entry->rest = rest;
	entry->backend = rest != NULL && passwd_is_backend(rest) ? rest : NULL;
	return true;
}

/*
 * Files.
 */

int
passwd_open(const char *path, char *err)
{
	struct stat st;
	const char *why = NULL;
	int fd, error;

	/* O_NONBLOCK: a FIFO in the file's place must not hold us. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	error = fd == -1 ? errno : EPERM;
	if (fd == -1 || fstat(fd, &st) == -1)
		why = strerror(errno);
	else if (!S_ISREG(st.st_mode))
		why = "not a regular file";
	else if ((st.st_mode & S_IWOTH) != 0)
		why = "writable by others";
	if (why == NULL)
		return fd;
	(void)snprintf(err, PASSWD_ERROR_SIZE, "%.180s: %s", path, why);
	if (fd != -1)
		(void)close(fd);
	errno = error;
	return -1;
}

void
passwd_reader_init(struct passwd_reader *r, int fd)
{
	r->fd = fd;
	r->eof = r->amid = false;
	r->start = r->end = 0;
}

/* Reads more behind what is unread. 0 or -1. */
static int
fill(struct passwd_reader *r)
{
	ssize_t n;

	memmove(r->buf, r->buf + r->start, r->end - r->start);
	r->end -= r->start;
	r->start = 0;
	do
		n = read(r->fd, r->buf + r->end, sizeof(r->buf) - r->end);
	while (n == -1 && errno == EINTR);
	if (n == -1)
		return -1;
	r->end += (size_t)n;
	r->eof = n == 0;
	return 0;
}

int
passwd_read(struct passwd_reader *r, struct passwd_line *line)
{
	const char *end;
	size_t have;

	for (;;) {
		have = r->end - r->start;
		line->text = r->buf + r->start;
		end = memchr(line->text, '\n', have);
		if (end != NULL || r->eof || have > PASSWD_LINE_MAX)
			break;
		if (fill(r) == -1)
			return -1;
	}
	if (have == 0)
		return 0;
	line->len = end != NULL ? (size_t)(end - line->text) + 1 : have;
	line->whole = !r->amid && line->len - (end != NULL) <= PASSWD_LINE_MAX;
	/* The next piece goes on with this line until its end has come. */
	r->amid = end == NULL;
	r->start += line->len;
	return 1;
}

/* FNV-1a, to draw an entry by lot: evenly, and the same one each time. */
static uint64_t
lot(uint64_t h, const char *s)
{
	for (; *s != '\0'; s++)
		h = (h ^ (unsigned char)*s) * UINT64_C(0x100000001b3);
	return h;
}

enum passwd_found
passwd_find(int fd, const char *user, struct passwd_entry *entry)
{
	struct passwd_reader r;
	struct passwd_line line;
	struct passwd_entry other;
	enum passwd_found found = PASSWD_UNKNOWN;
	uint64_t mine = lot(UINT64_C(0xcbf29ce484222325), user), best = 0, h;
	int n;

	entry->user = entry->secret = entry->rest = entry->backend = NULL;
	passwd_reader_init(&r, fd);
	while ((n = passwd_read(&r, &line)) == 1) {
		if (!line.whole || !passwd_parse(line.text, line.len, &other))
			continue;
		h = lot(mine, other.user);
		if (found == PASSWD_FOUND)
			continue;
		if (strcmp(other.user, user) == 0)
			found = PASSWD_FOUND;
		else if (entry->secret != NULL && h <= best)
			continue;
		/*
		 * A stand-in drawn by lot costs an unknown user what known ones
		 * cost in a file of several schemes, where one fixed stand-in
		 * would tell those of another scheme from the unknown.
		 */
		best = h;
		(void)passwd_parse(line.text, line.len, entry);
	}
	explicit_bzero(&other, sizeof(other));
	explicit_bzero(r.buf, sizeof(r.buf));
	return n == -1 ? PASSWD_UNREADABLE : found;
}

/*
 * Verifying.
 */

/* In buffers of one size, so that the time tells nothing of either length. */
static bool
same_text(const char *a, const char *b)
{
	char padded[2][PASSWD_PASSWORD_MAX + 1] = {{0}};
	bool same;

	same = text_copy(padded[0], sizeof(padded[0]), a) == 0 &&
	       text_copy(padded[1], sizeof(padded[1]), b) == 0 &&
	       text_same_secret(padded[0], padded[1], sizeof(padded[0]));
	explicit_bzero(padded, sizeof(padded));
	return same;
}

/*
 * Apache's $apr1$ and every other hash that crypt(3) does not know, a locked
 * account's "!" and "*" included, is "unsupported".
 */
static enum passwd_result
verify_crypt(const char *stored, const char *password)
{
	struct crypt_data data = {0};
	enum passwd_result result = PASSWD_UNSUPPORTED;
	const char *hash;

	hash = crypt_r(password, stored, &data);
	if (hash != NULL && hash[0] != '*')
		result =
		    same_text(hash, stored) ? PASSWD_MATCH : PASSWD_MISMATCH;
	explicit_bzero(&data, sizeof(data));
	return result;
}

static enum passwd_result
verify_scram(enum scram_hash hash, const char *stored, const char *password)
{
	struct scram_keys keys, made;
	enum passwd_result result = PASSWD_UNSUPPORTED;

	if (scram_parse(hash, stored, &keys) == -1)
		return PASSWD_UNSUPPORTED;
	made = keys;
	if (scram_derive(hash, password, &made) == 0)
		result = text_same_secret(made.stored, keys.stored,
			     scram_size(hash))
			     ? PASSWD_MATCH
			     : PASSWD_MISMATCH;
	explicit_bzero(&keys, sizeof(keys));
	explicit_bzero(&made, sizeof(made));
	return result;
}

enum passwd_result
passwd_verify(const char *secret, const char *password)
{
	const char *value;

	if (password[0] == '\0' || strlen(password) > PASSWD_PASSWORD_MAX)
		return PASSWD_MISMATCH;
	switch (find_scheme(secret, &value)) {
	case KIND_PLAIN:
		return same_text(value, password) ? PASSWD_MATCH
						  : PASSWD_MISMATCH;
	case KIND_CRYPT:
		return verify_crypt(value, password);
	case KIND_SCRAM_SHA_1:
		return verify_scram(SCRAM_SHA_1, value, password);
	case KIND_SCRAM_SHA_256:
		return verify_scram(SCRAM_SHA_256, value, password);
	case KIND_UNSUPPORTED:
		break;
	}
	return PASSWD_UNSUPPORTED;
}

const char *
passwd_plain(const char *secret)
{
	const char *value;

	return find_scheme(secret, &value) == KIND_PLAIN ? value : NULL;
}

const char *
passwd_scram(const char *secret, const char *name)
{
	size_t n = strlen(name);

	return secret[0] == '{' && text_prefix(secret + 1, name) &&
		       secret[n + 1] == '}'
		   ? secret + n + 2
		   : NULL;
}

/* The length of a {NAME} or $id$ at the front of `s`; 0 for none. */
static size_t
tag_length(const char *s)
{
	size_t n;
	char end = *s == '{' ? '}' : '$';

	if (*s != '{' && *s != '$')
		return 0;
	n = 1 + strspn(s + 1, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
			      "abcdefghijklmnopqrstuvwxyz0123456789-.");
	return s[n] == end && n < PASSWD_SCHEME_SIZE / 3 ? n + 1 : 0;
}

void
passwd_describe(const char *secret, char out[PASSWD_SCHEME_SIZE])
{
	const char *value;
	enum kind kind = find_scheme(secret, &value);
	size_t scheme = tag_length(secret), id = 0;
	bool known = kind != KIND_UNSUPPORTED;

	/* Behind {PLAIN} a $id$ would be a part of the password. */
	if (kind == KIND_CRYPT) {
		id = value == secret ? 0 : tag_length(value);
		known = crypt_checksalt(value) != CRYPT_SALT_INVALID;
	}
	(void)snprintf(out, PASSWD_SCHEME_SIZE, "%.*s%.*s%s", (int)scheme,
	    secret, (int)id, value,
	    known	  ? ""
	    : scheme == 0 ? "no known scheme"
			  : " (not supported)");
}

/*
 * Making.
 */

struct form {
	const char *name;
	size_t password_max;
	const char *scheme; /* what the secret begins with */
	const char *prefix; /* crypt(3)'s; NULL: not one of its hashes */
	unsigned long cost; /* 0: its default */
	int (*make)(const struct form *form, const char *password, char *out);
};

static int
make_plain(const struct form *form, const char *password, char *out)
{
	int n =
	    snprintf(out, PASSWD_SECRET_SIZE, "%s%s", form->scheme, password);

	return n > 0 && n < PASSWD_SECRET_SIZE ? 0 : -1;
}

static int
make_crypt(const struct form *form, const char *password, char *out)
{
	struct crypt_data data = {0};
	char setting[CRYPT_GENSALT_OUTPUT_SIZE];
	const char *hash;
	int n = -1;

	if (crypt_gensalt_rn(form->prefix, form->cost, NULL, 0, setting,
		sizeof(setting)) == NULL)
		return -1;
	hash = crypt_r(password, setting, &data);
	if (hash != NULL && hash[0] != '*')
		n = snprintf(
		    out, PASSWD_SECRET_SIZE, "%s%s", form->scheme, hash);
	explicit_bzero(&data, sizeof(data));
	return n > 0 && n < PASSWD_SECRET_SIZE ? 0 : -1;
}

static int
make_scram(const struct form *form, const char *password, char *out)
{
	enum scram_hash hash = strcmp(form->scheme, "{SCRAM-SHA-1}") == 0
				   ? SCRAM_SHA_1
				   : SCRAM_SHA_256;
	struct scram_keys keys = {
	    .iterations = SCRAM_ITERATIONS, .salt_len = SCRAM_SALT_SIZE};
	char text[SCRAM_TEXT_SIZE];
	int n = -1;

	if (getrandom(keys.salt, SCRAM_SALT_SIZE, 0) == SCRAM_SALT_SIZE &&
	    scram_derive(hash, password, &keys) == 0) {
		scram_format(hash, &keys, text);
		n = snprintf(
		    out, PASSWD_SECRET_SIZE, "%s%s", form->scheme, text);
		explicit_bzero(text, sizeof(text));
	}
	explicit_bzero(&keys, sizeof(keys));
	return n > 0 && n < PASSWD_SECRET_SIZE ? 0 : -1;
}

/*
 * crypt(3)'s default for bcrypt, 2^5, and for sha512, 5000 rounds, are of
 * another century.
 */
static const struct form forms[] = {
    {"yescrypt", PASSWD_PASSWORD_MAX, "{CRYPT}", "$y$", 0, make_crypt},
    {"bcrypt", BCRYPT_PASSWORD_MAX, "{BLF-CRYPT}", "$2y$", 10, make_crypt},
    {"sha512", PASSWD_PASSWORD_MAX, "{SHA512-CRYPT}", "$6$", 100000,
	make_crypt},
    {"scram-sha-256", PASSWD_PASSWORD_MAX, "{SCRAM-SHA-256}", NULL, 0,
	make_scram},
    {"scram-sha-1", PASSWD_PASSWORD_MAX, "{SCRAM-SHA-1}", NULL, 0, make_scram},
    {"plain", PASSWD_PASSWORD_MAX, "{PLAIN}", NULL, 0, make_plain},
};

static const struct form *
find_form(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
		if (strcmp(forms[i].name, name) == 0)
			return &forms[i];
	return NULL;
}

const char *
passwd_objection(const char *scheme, const char *password)
{
	const struct form *form = find_form(scheme);

	if (form == NULL)
		return "unknown scheme";
	if (password == NULL)
		return NULL;
	if (password[0] == '\0')
		return "an empty password";
	if (strlen(password) > form->password_max)
		return form->password_max == BCRYPT_PASSWORD_MAX
			   ? "bcrypt heeds no more than 72 octets"
			   : "a password of more than 511 octets";
	if (form->make == make_plain &&
	    (has_control(password) || strchr(password, ':') != NULL))
		return "plain cannot hold ':' or a control character";
	return NULL;
}

int
passwd_hash(const char *scheme, const char *password, char *out)
{
	const struct form *form = find_form(scheme);

	if (form == NULL || passwd_objection(scheme, password) != NULL)
		return -1;
	return form->make(form, password, out);
}
