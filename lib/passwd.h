/*
 * Password files: lines `user:{SCHEME}secret[:backend]`, and the secrets in
 * them. Apache's and Dovecot's files are read too, as far as their hashes are
 * crypt(3)'s.
 *
 * A line is at most PASSWD_LINE_MAX octets, its end apart; a longer one is no
 * entry. Blank lines and lines that begin with '#' are comments.
 */
#ifndef LIB_PASSWD_H
#define LIB_PASSWD_H

#include <stdbool.h>
#include <stddef.h>

#define PASSWD_LINE_MAX	    4096
#define PASSWD_USER_MAX	    511
#define PASSWD_PASSWORD_MAX 511 /* what crypt(3) takes */
#define PASSWD_SECRET_SIZE  640 /* the longest secret passwd_hash() makes */
#define PASSWD_SCHEME_SIZE  64
#define PASSWD_ERROR_SIZE   256

/* One line, split. The pointers lead into `text`: not to be copied. */
struct passwd_entry {
	const char *user;
	const char *secret; /* the second field, scheme and all */
	const char *rest; /* all behind that; NULL: the line ends there */
	const char *backend; /* `rest` where it is a backend, else NULL */
	char text[PASSWD_LINE_MAX + 1];
};

/* Splits a line of `len` octets, with or without its end. False: no entry. */
bool passwd_parse(const char *line, size_t len, struct passwd_entry *entry);

/*
 * Whether `s` is host:port, [v6]:port or unix:/path. A host of digits alone is
 * not one: in Dovecot's files the third and fourth field are uid and gid.
 */
bool passwd_is_backend(const char *s);

/*
 * Opens a password file for reading. -1 with a line in `err`
 * (PASSWD_ERROR_SIZE octets) when it cannot be read, is no file or is writable
 * by others; errno is ENOENT only for a file that is not there.
 */
int passwd_open(const char *path, char *err);

struct passwd_reader {
	int fd;
	bool eof;
	bool amid; /* what comes next goes on with a line that is too long */
	size_t start, end; /* unread: buf[start, end) */
	char buf[2 * PASSWD_LINE_MAX];
};

struct passwd_line {
	const char *text; /* in the reader, until the next read */
	size_t len; /* with the line's end, if it has one */
	bool whole; /* else a piece of a line that is too long */
};

/* Begins to read `fd`, which stays the caller's. */
void passwd_reader_init(struct passwd_reader *r, int fd);

/*
 * Reads the next line, or a piece of one that is too long; all `text`s in a
 * row are the file. 1, 0 at the end, -1 with errno.
 */
int passwd_read(struct passwd_reader *r, struct passwd_line *line);

enum passwd_found {
	PASSWD_FOUND,
	PASSWD_UNKNOWN,
	PASSWD_UNREADABLE /* errno says why */
};

/*
 * Looks for the first entry of `user`, compared exactly, in the file `fd`, and
 * reads on to its end whether it is found or not. At PASSWD_UNKNOWN `entry` is
 * somebody else's, always the same for that name, to be verified against and
 * the result thrown away, so that an unknown user takes as long as a known one;
 * its secret is NULL when the file has no entry at all. The caller wipes it.
 */
enum passwd_found
passwd_find(int fd, const char *user, struct passwd_entry *entry);

enum passwd_result {
	PASSWD_MATCH,
	PASSWD_MISMATCH,
	PASSWD_UNSUPPORTED /* a scheme or hash that is not known here */
};

/*
 * Whether `password` is the one that `secret` was made from. An empty or
 * over-long password never matches.
 */
enum passwd_result passwd_verify(const char *secret, const char *password);

/* The password itself where it is stored as such; else NULL. */
const char *passwd_plain(const char *secret);

/*
 * The keys of the scheme `name` ("SCRAM-SHA-256"), as lib/scram.h reads them,
 * where those are what is stored; else NULL.
 */
const char *passwd_scram(const char *secret, const char *name);

/* The scheme in words for a log or a list, nothing of the secret itself. */
void passwd_describe(const char *secret, char out[PASSWD_SCHEME_SIZE]);

/*
 * Why a secret of the form `scheme` (yescrypt, bcrypt, sha512, scram-sha-256,
 * scram-sha-1, plain) cannot be made from `password`; NULL when it can. A `password` of NULL
 * asks about the scheme's name alone.
 */
const char *passwd_objection(const char *scheme, const char *password);

/*
 * Makes a secret, salted anew, of PASSWD_SECRET_SIZE octets at most, where
 * passwd_objection() had none. 0 or -1.
 */
int passwd_hash(const char *scheme, const char *password, char *out);

#endif
