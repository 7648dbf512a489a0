/*
 * smtp-frontd-passwd: adds, changes, deletes, verifies and lists the entries of
 * a password file. It owns the conversation with the person at the terminal and
 * the safe replacement of the file; what a line means is lib/passwd.c's.
 */
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/passwd.h"
#include "lib/text.h"

/* In ms. Another run holds the lock for a few; a stuck one is given up. */
#define LOCK_WAIT 10000

enum status {
	DONE = 0,
	REFUSED = 1, /* wrong password, unknown user, unfit password */
	USAGE = 64,
	SYSTEM = 71 /* the file cannot be read or written */
};

struct options {
	char action; /* 'a'dd, or the option's letter: D v l */
	bool create;
	const char *scheme, *backend; /* backend: NULL leaves it as it is */
	const char *file, *user;
};

static const char usage_text[] =
    "usage: smtp-frontd-passwd [-c] [-b backend] [-s scheme] file user\n"
    "       smtp-frontd-passwd -D file user\n"
    "       smtp-frontd-passwd -v file user\n"
    "       smtp-frontd-passwd -l file\n";

static enum status complain(enum status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Says on standard error why it ends with `status`, and returns that. */
static enum status
complain(enum status status, const char *format, ...)
{
	va_list ap;

	fputs("smtp-frontd-passwd: ", stderr);
	va_start(ap, format);
	(void)vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	return status;
}

/*
 * The password.
 */

static struct termios loud; /* the terminal as it was, echo and all */

/* Dies of the signal, which has its default action again, with the echo on. */
static void
die(int number)
{
	(void)tcsetattr(STDIN_FILENO, TCSANOW, &loud);
	(void)raise(number);
}

/* What signals do while the echo is off: to stop then is not possible. */
static const struct {
	int number;
	struct sigaction action;
} signals[] = {
    {SIGINT, {.sa_handler = die, .sa_flags = (int)SA_RESETHAND}},
    {SIGTERM, {.sa_handler = die, .sa_flags = (int)SA_RESETHAND}},
    {SIGHUP, {.sa_handler = die, .sa_flags = (int)SA_RESETHAND}},
    {SIGQUIT, {.sa_handler = die, .sa_flags = (int)SA_RESETHAND}},
    {SIGTSTP, {.sa_handler = SIG_IGN}},
};

#define SIGNALS (sizeof(signals) / sizeof(signals[0]))

/*
 * Reads one line of standard input, octet by octet, so that what follows it
 * stays there for others; the rest of an over-long line is read too, lest a
 * terminal hands it to the shell.
 */
static enum status
read_password(char password[PASSWD_PASSWORD_MAX + 1])
{
	char c;
	size_t len = 0;
	ssize_t n;
	bool nul = false;

	while ((n = read(STDIN_FILENO, &c, 1)) != 0) {
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return complain(
			    SYSTEM, "standard input: %s", strerror(errno));
		if (c == '\n')
			break;
		nul = nul || c == '\0';
		if (len < PASSWD_PASSWORD_MAX)
			password[len] = c;
		len++;
	}
	if (nul)
		return complain(REFUSED, "a NUL in the password");
	if (len > PASSWD_PASSWORD_MAX)
		return complain(REFUSED,
		    "the password is longer than %d octets",
		    PASSWD_PASSWORD_MAX);
	if (len > 0 && password[len - 1] == '\r')
		len--;
	password[len] = '\0';
	if (len == 0)
		return complain(REFUSED, "the password is empty");
	return DONE;
}

/* Asks at the terminal without echo. */
static enum status
prompt(const char *question, char password[PASSWD_PASSWORD_MAX + 1])
{
	struct sigaction before[SIGNALS];
	struct termios quiet;
	enum status status;
	size_t i;

	if (tcgetattr(STDIN_FILENO, &loud) == -1)
		return complain(SYSTEM, "terminal: %s", strerror(errno));
	for (i = 0; i < SIGNALS; i++) {
		(void)sigaction(signals[i].number, NULL, &before[i]);
		/* What nohup(1) made us deaf to stays so. */
		if (before[i].sa_handler != SIG_IGN)
			(void)sigaction(
			    signals[i].number, &signals[i].action, NULL);
	}
	quiet = loud;
	quiet.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
	if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet) == -1) {
		status = complain(SYSTEM, "terminal: %s", strerror(errno));
	} else {
		fputs(question, stderr);
		status = read_password(password);
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &loud);
		fputc('\n', stderr);
	}
	for (i = 0; i < SIGNALS; i++)
		(void)sigaction(signals[i].number, &before[i], NULL);
	return status;
}

static enum status
ask_password(bool twice, char password[PASSWD_PASSWORD_MAX + 1])
{
	char again[PASSWD_PASSWORD_MAX + 1];
	enum status status;

	if (!isatty(STDIN_FILENO))
		return read_password(password);
	status = prompt("Password: ", password);
	if (status == DONE && twice) {
		status = prompt("Again: ", again);
		if (status == DONE && strcmp(password, again) != 0)
			status = complain(REFUSED, "the two are not the same");
		explicit_bzero(again, sizeof(again));
	}
	return status;
}

/*
 * Replacing the file.
 */

struct edit {
	const struct options *options;
	const char *secret; /* of the new entry; NULL: delete */
	char path[PATH_MAX], folder[PATH_MAX], temp[PATH_MAX];
	int lock; /* the folder: the file is replaced, a lock on it is lost */
	int old; /* -1: the file is not there yet */
	FILE *new;
	char buf[BUFSIZ]; /* of `new`, here so that it can be wiped */
	char line[PASSWD_LINE_MAX + 2];
};

/* Finds out which file is meant, behind symbolic links, which are to stay. */
static enum status
locate(struct edit *e)
{
	const char *file = e->options->file;
	char *slash;
	int n;

	if (realpath(file, e->path) == NULL) {
		if (errno != ENOENT)
			return complain(
			    SYSTEM, "%s: %s", file, strerror(errno));
		(void)text_copy(e->path, sizeof(e->path), file);
	}
	(void)text_copy(e->folder, sizeof(e->folder), e->path);
	slash = strrchr(e->folder, '/');
	if (slash == NULL)
		(void)text_copy(e->folder, sizeof(e->folder), ".");
	else
		slash[slash == e->folder] = '\0';
	n = snprintf(e->temp, sizeof(e->temp), "%s/.smtp-frontd-passwd.XXXXXX",
	    e->folder);
	if (n < 0 || (size_t)n >= sizeof(e->temp))
		return complain(SYSTEM, "%s: path too long", file);
	return DONE;
}

/* Two runs at once must not lose an entry. */
static enum status
lock(struct edit *e)
{
	int64_t deadline = clock_in(LOCK_WAIT);
	struct timespec nap = {.tv_nsec = 20000000};

	e->lock = open(e->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (e->lock == -1)
		return complain(SYSTEM, "%s: %s", e->folder, strerror(errno));
	while (flock(e->lock, LOCK_EX | LOCK_NB) == -1) {
		if (errno != EWOULDBLOCK || clock_left(deadline) == 0)
			return complain(SYSTEM, "%s: cannot lock: %s",
			    e->folder, strerror(errno));
		(void)nanosleep(&nap, NULL);
	}
	return DONE;
}

/*
 * Writes the new line. What stands behind the secret (a backend, Dovecot's
 * other fields) stays when a password is changed.
 */
static enum status
compose(struct edit *e, const struct passwd_entry *entry)
{
	const struct options *o = e->options;
	const char *rest = entry->rest;
	int n;

	if (o->backend != NULL) {
		if (rest != NULL && rest[0] != '\0' && entry->backend == NULL)
			return complain(REFUSED,
			    "the entry has other fields in a backend's place");
		rest = o->backend[0] == '\0' ? NULL : o->backend;
	}
	n = snprintf(e->line, sizeof(e->line), "%s:%s%s%s", o->user, e->secret,
	    rest == NULL ? "" : ":", rest == NULL ? "" : rest);
	if (n < 0 || n > PASSWD_LINE_MAX)
		return complain(REFUSED, "the line would be too long");
	e->line[n] = '\n';
	e->line[n + 1] = '\0';
	return DONE;
}

/* Opens the old file and looks at the entry that is to be changed. */
static enum status
open_old(struct edit *e)
{
	const struct options *o = e->options;
	char err[PASSWD_ERROR_SIZE];
	struct passwd_entry entry;
	enum passwd_found found = PASSWD_UNKNOWN;
	enum status status = DONE;

	e->old = passwd_open(e->path, err);
	if (e->old != -1)
		found = passwd_find(e->old, o->user, &entry);
	else if (errno != ENOENT || o->action != 'a')
		return complain(SYSTEM, "%s", err);
	else if (!o->create)
		return complain(SYSTEM, "%s (-c creates it)", err);
	/* What is not the user's own is of no use here. */
	if (found != PASSWD_FOUND)
		entry.rest = entry.backend = NULL;
	if (found == PASSWD_UNREADABLE)
		status = complain(SYSTEM, "%s: %s", o->file, strerror(errno));
	else if (found == PASSWD_UNKNOWN && e->secret == NULL)
		status = complain(REFUSED, "%s: no such user", o->user);
	if (status == DONE && e->secret != NULL)
		status = compose(e, &entry);
	explicit_bzero(&entry, sizeof(entry));
	return status;
}

/*
 * Copies the old file, every octet as it is, but for the user's entry: the new
 * line stands in the place of the first; further ones go, for they would count
 * again once the first is deleted. 0, or -1 with errno.
 */
static int
copy(struct edit *e)
{
	struct passwd_reader r;
	struct passwd_line line;
	struct passwd_entry entry;
	bool due = e->secret != NULL; /* the new line is yet to be written */
	char last = '\n';
	int n = 0;

	passwd_reader_init(&r, e->old);
	if (e->old != -1 && lseek(e->old, 0, SEEK_SET) == -1)
		return -1;
	while (e->old != -1 && (n = passwd_read(&r, &line)) == 1) {
		if (line.whole && passwd_parse(line.text, line.len, &entry) &&
		    strcmp(entry.user, e->options->user) == 0) {
			if (due)
				(void)fputs(e->line, e->new);
			due = false;
			continue;
		}
		(void)fwrite(line.text, 1, line.len, e->new);
		last = line.text[line.len - 1];
	}
	if (due) {
		if (last != '\n')
			(void)fputc('\n', e->new);
		(void)fputs(e->line, e->new);
	}
	explicit_bzero(&entry, sizeof(entry));
	explicit_bzero(r.buf, sizeof(r.buf));
	return n;
}

/* Owner first: a change of owner takes bits of the mode away. 0 or -1. */
static int
keep_owner(int old, int new)
{
	struct stat was, is;

	/* A new file: what umask says is no business of a password file. */
	if (old == -1)
		return fchmod(new, 0640);
	if (fstat(old, &was) == -1 || fstat(new, &is) == -1)
		return -1;
	if ((was.st_uid != is.st_uid || was.st_gid != is.st_gid) &&
	    fchown(new, was.st_uid, was.st_gid) == -1)
		return -1;
	return fchmod(new, was.st_mode & 07777);
}

/*
 * Writes the new file beside the old and puts it into its place at once: a
 * reader, or a power cut, finds one or the other.
 */
static enum status
replace(struct edit *e)
{
	int fd, r;

	fd = mkostemp(e->temp, O_CLOEXEC);
	if (fd == -1)
		return complain(SYSTEM, "%s: %s", e->temp, strerror(errno));
	e->new = fdopen(fd, "w");
	if (e->new == NULL) {
		(void)close(fd);
		r = -1;
	} else {
		(void)setvbuf(e->new, e->buf, _IOFBF, sizeof(e->buf));
		r = copy(e);
		if (fflush(e->new) == EOF || ferror(e->new) != 0 ||
		    keep_owner(e->old, fd) == -1 || fsync(fd) == -1)
			r = -1;
		if (fclose(e->new) == EOF)
			r = -1;
	}
	if (r == 0)
		r = rename(e->temp, e->path);
	if (r == -1) {
		(void)complain(SYSTEM, "%s: %s", e->path, strerror(errno));
		(void)unlink(e->temp);
		return SYSTEM;
	}
	(void)fsync(e->lock);
	return DONE;
}

/* Under the lock, with signals held back lest a half-written file be left. */
static enum status
edit(const struct options *o, const char *secret)
{
	static struct edit e;
	enum status status;
	sigset_t all, before;

	e.options = o;
	e.secret = secret;
	e.lock = e.old = -1;
	status = locate(&e);
	if (status == DONE)
		status = lock(&e);
	if (status == DONE)
		status = open_old(&e);
	if (status == DONE) {
		(void)sigfillset(&all);
		(void)sigprocmask(SIG_SETMASK, &all, &before);
		status = replace(&e);
		(void)sigprocmask(SIG_SETMASK, &before, NULL);
	}
	if (e.old != -1)
		(void)close(e.old);
	if (e.lock != -1)
		(void)close(e.lock);
	explicit_bzero(&e, sizeof(e));
	return status;
}

/*
 * The actions.
 */

static enum status
add(const struct options *o)
{
	char password[PASSWD_PASSWORD_MAX + 1], secret[PASSWD_SECRET_SIZE];
	const char *objection;
	enum status status;

	status = ask_password(true, password);
	objection =
	    status == DONE ? passwd_objection(o->scheme, password) : NULL;
	if (objection != NULL)
		status = complain(REFUSED, "%s", objection);
	else if (status == DONE &&
		 passwd_hash(o->scheme, password, secret) == -1)
		status = complain(SYSTEM, "cannot make a %s secret", o->scheme);
	explicit_bzero(password, sizeof(password));
	if (status == DONE)
		status = edit(o, secret);
	explicit_bzero(secret, sizeof(secret));
	return status;
}

static enum status
judge(const struct options *o, const struct passwd_entry *entry)
{
	char password[PASSWD_PASSWORD_MAX + 1];
	enum passwd_result result = PASSWD_MISMATCH;
	enum status status;

	status = ask_password(false, password);
	if (status == DONE)
		result = passwd_verify(entry->secret, password);
	explicit_bzero(password, sizeof(password));
	if (status != DONE || result == PASSWD_MATCH)
		return status;
	return complain(REFUSED, "%s: %s", o->user,
	    result == PASSWD_MISMATCH ? "wrong password"
				      : "a secret of an unsupported kind");
}

static enum status
verify(const struct options *o)
{
	char err[PASSWD_ERROR_SIZE];
	struct passwd_entry entry;
	enum passwd_found found;
	enum status status;
	int fd;

	fd = passwd_open(o->file, err);
	if (fd == -1)
		return complain(SYSTEM, "%s", err);
	found = passwd_find(fd, o->user, &entry);
	if (found == PASSWD_UNREADABLE)
		status = complain(SYSTEM, "%s: %s", o->file, strerror(errno));
	else if (found == PASSWD_UNKNOWN)
		status = complain(REFUSED, "%s: no such user", o->user);
	else
		status = judge(o, &entry);
	explicit_bzero(&entry, sizeof(entry));
	(void)close(fd);
	return status;
}

/* To a terminal a name in the file must not be a command. */
static void
print_text(const char *s)
{
	for (; *s != '\0'; s++)
		putchar((unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s);
}

static enum status
list(const struct options *o)
{
	char err[PASSWD_ERROR_SIZE], scheme[PASSWD_SCHEME_SIZE];
	struct passwd_reader r;
	struct passwd_line line;
	struct passwd_entry entry;
	int fd, n;

	fd = passwd_open(o->file, err);
	if (fd == -1)
		return complain(SYSTEM, "%s", err);
	passwd_reader_init(&r, fd);
	while ((n = passwd_read(&r, &line)) == 1) {
		if (!line.whole || !passwd_parse(line.text, line.len, &entry))
			continue;
		passwd_describe(entry.secret, scheme);
		print_text(entry.user);
		printf("\t%s", scheme);
		if (entry.backend != NULL)
			printf("\t%s", entry.backend);
		putchar('\n');
	}
	explicit_bzero(&entry, sizeof(entry));
	explicit_bzero(r.buf, sizeof(r.buf));
	(void)close(fd);
	if (n == -1 || fflush(stdout) == EOF)
		return complain(SYSTEM, "%s: %s", o->file, strerror(errno));
	return DONE;
}

static enum status
check_user(const char *user)
{
	const char *s;

	if (user[0] == '\0' || user[0] == '#' || strlen(user) > PASSWD_USER_MAX)
		return complain(USAGE,
		    "the user's name is empty, longer than "
		    "%d octets or begins with '#'",
		    PASSWD_USER_MAX);
	for (s = user; *s != '\0'; s++)
		if (*s == ':' || (unsigned char)*s < 0x20 || *s == 0x7f)
			return complain(USAGE, "the user's name holds ':' or a "
					       "control character");
	return DONE;
}

static enum status
check_options(const struct options *o)
{
	if (passwd_objection(o->scheme, NULL) != NULL)
		return complain(USAGE, "%s: unknown scheme", o->scheme);
	if (o->backend != NULL && o->backend[0] != '\0' &&
	    !passwd_is_backend(o->backend))
		return complain(USAGE,
		    "%s: not host:port, [address]:port or "
		    "unix:/path",
		    o->backend);
	return o->user == NULL ? DONE : check_user(o->user);
}

static enum status
parse_options(int argc, char **argv, struct options *o)
{
	int c;
	bool adds = false;

	while ((c = getopt(argc, argv, "b:cDls:v")) != -1) {
		adds = adds || strchr("bcs", c) != NULL;
		if (c == 'b')
			o->backend = optarg;
		else if (c == 'c')
			o->create = true;
		else if (c == 's')
			o->scheme = optarg;
		else if (c != '?' && o->action == 'a')
			o->action = (char)c;
		else
			goto usage;
	}
	if (argc - optind != (o->action == 'l' ? 1 : 2) ||
	    (adds && o->action != 'a') || argv[optind][0] == '\0')
		goto usage;
	o->file = argv[optind];
	o->user = argv[optind + 1];
	return check_options(o);
usage:
	fputs(usage_text, stderr);
	return USAGE;
}

int
main(int argc, char **argv)
{
	struct options o = {.action = 'a', .scheme = "yescrypt"};
	enum status status;

	/* A core dump, or a debugger of the same user, would show secrets. */
	(void)prctl(PR_SET_DUMPABLE, 0);
	status = parse_options(argc, argv, &o);
	if (status != DONE)
		return (int)status;
	switch (o.action) {
	case 'D':
		return (int)edit(&o, NULL);
	case 'v':
		return (int)verify(&o);
	case 'l':
		return (int)list(&o);
	default:
		return (int)add(&o);
	}
}
