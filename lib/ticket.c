/*
 * Ticket keys in files: nginx's, which an administrator makes and renews, and
 * one of our own in the runtime directory.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/runtime.h"

#include "lib/ticket.h"

/* Our own file: this, then for each key its time (8, big endian) and itself. */
static const char magic[] = "smtp-frontd ticket keys 1\n";

#define MAGIC_LEN  (sizeof(magic) - 1)
#define ENTRY_LEN  (8 + TICKET_KEY_SIZE)
#define FILE_MAX   (MAGIC_LEN + TICKET_KEYS_MAX * ENTRY_LEN)

static int
fail(char *err, const char *path, const char *why)
{
	(void)snprintf(err, TICKET_ERROR_SIZE, "%.160s: %s", path, why);
	return -1;
}

void
ticket_wipe(struct ticket_keys *keys)
{
	explicit_bzero(keys, sizeof(*keys));
}

/* --- nginx's files ------------------------------------------------------- */

static int
read_one(const char *path, struct ticket_key *key, char *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	const char *why = NULL;
	struct stat st;

	if (fd == -1)
		return fail(err, path, strerror(errno));
	if (fstat(fd, &st) == -1)
		why = strerror(errno);
	else if (!S_ISREG(st.st_mode))
		why = "not a regular file";
	else if (st.st_mode & 007)
		why = "others than owner and group have access (try chmod o=)";
	else if (st.st_size != 48 && st.st_size != 80)
		why = "a ticket key has 48 or 80 octets";
	else if (read(fd, key->bytes, (size_t)st.st_size) != st.st_size)
		why = "cannot be read";
	(void)close(fd);
	if (why != NULL)
		return fail(err, path, why);
	key->len = (size_t)st.st_size;
	key->made = 0;
	return 0;
}

int
ticket_read(
    char *const *paths, size_t count, struct ticket_keys *keys, char *err)
{
	size_t i;

	memset(keys, 0, sizeof(*keys));
	if (count > TICKET_KEYS_MAX)
		return fail(err, paths[0], "more than 8 ticket keys");
	for (i = 0; i < count; i++)
		if (read_one(paths[i], &keys->key[i], err) == -1) {
			ticket_wipe(keys);
			return -1;
		}
	keys->count = count;
	return 0;
}

/* --- rotation ------------------------------------------------------------ */

/* A key from the future is one from before the clock was set right. */
static bool
is_older(const struct ticket_key *key, int64_t seconds, int64_t now)
{
	return key->made > now || now - key->made >= seconds;
}

int
ticket_rotate(struct ticket_keys *keys, int64_t lifetime, int64_t now)
{
	struct ticket_key fresh = {.made = now, .len = TICKET_KEY_SIZE};
	size_t before = keys->count;

	/* The last ticket was sealed when a key ceased to be the first. */
	while (keys->count > 0 &&
	    is_older(&keys->key[keys->count - 1], 2 * lifetime, now))
		explicit_bzero(
		    &keys->key[--keys->count], sizeof(keys->key[0]));
	if (keys->count > 0 && !is_older(&keys->key[0], lifetime, now))
		return keys->count != before;
	if (getrandom(fresh.bytes, sizeof(fresh.bytes), 0) !=
	    sizeof(fresh.bytes))
		return -1;
	if (keys->count == TICKET_KEYS_MAX)
		keys->count--;
	memmove(&keys->key[1], &keys->key[0],
	    keys->count * sizeof(keys->key[0]));
	keys->key[0] = fresh;
	keys->count++;
	explicit_bzero(&fresh, sizeof(fresh));
	return 1;
}

/* --- the shared file ----------------------------------------------------- */

static void
put_time(unsigned char *p, int64_t t)
{
	int i;

	for (i = 7; i >= 0; i--, t >>= 8)
		p[i] = (unsigned char)t;
}

static int64_t
get_time(const unsigned char *p)
{
	uint64_t t = 0;
	int i;

	for (i = 0; i < 8; i++)
		t = t << 8 | p[i];
	return (int64_t)t;
}

static bool
parse(const unsigned char *p, size_t len, struct ticket_keys *keys)
{
	size_t i;

	if (len < MAGIC_LEN || memcmp(p, magic, MAGIC_LEN) != 0 ||
	    (len - MAGIC_LEN) % ENTRY_LEN != 0)
		return false;
	p += MAGIC_LEN;
	keys->count = (len - MAGIC_LEN) / ENTRY_LEN;
	for (i = 0; i < keys->count; i++, p += ENTRY_LEN) {
		keys->key[i].made = get_time(p);
		keys->key[i].len = TICKET_KEY_SIZE;
		memcpy(keys->key[i].bytes, p + 8, TICKET_KEY_SIZE);
	}
	return true;
}

/*
 * What is in the file; nothing when it is not there, or not to be believed: one
 * that others could read is as bad as none.
 */
static void
load(int directory, const char *name, struct ticket_keys *keys)
{
	unsigned char buf[FILE_MAX + 1];
	struct stat st;
	ssize_t n;
	int fd;

	memset(keys, 0, sizeof(*keys));
	fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd == -1)
		return;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
	    st.st_uid == geteuid() && (st.st_mode & 077) == 0) {
		n = read(fd, buf, sizeof(buf));
		if (n <= 0 || n > (ssize_t)FILE_MAX ||
		    !parse(buf, (size_t)n, keys))
			memset(keys, 0, sizeof(*keys));
		explicit_bzero(buf, sizeof(buf));
	}
	(void)close(fd);
}

/* Replaces the file in one step, so that a reader has the old or the new. */
static int
store(int directory, const char *name, const struct ticket_keys *keys)
{
	static const char temporary[] = "ticket.keys.new";
	unsigned char buf[FILE_MAX], *p = buf;
	ssize_t n;
	size_t i;
	int fd, why;

	(void)unlinkat(directory, temporary, 0);
	fd = openat(directory, temporary,
	    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd == -1)
		return -1;
	memcpy(p, magic, MAGIC_LEN);
	p += MAGIC_LEN;
	for (i = 0; i < keys->count; i++, p += ENTRY_LEN) {
		put_time(p, keys->key[i].made);
		memcpy(p + 8, keys->key[i].bytes, TICKET_KEY_SIZE);
	}
	errno = ENOSPC; /* if it writes less than all */
	n = write(fd, buf, (size_t)(p - buf));
	explicit_bzero(buf, sizeof(buf));
	why = errno;
	(void)close(fd);
	errno = why;
	if (n == p - buf &&
	    renameat(directory, temporary, directory, name) == 0)
		return 0;
	why = errno;
	(void)unlinkat(directory, temporary, 0);
	errno = why;
	return -1;
}

/*
 * One process rotates, under a lock; whoever does not get it has what is there.
 * A key that could not be stored is not used either: nobody else would open the
 * tickets that it seals. 0, or -1 with errno.
 */
static int
rotate_file(
    int directory, const char *name, int64_t lifetime, struct ticket_keys *keys)
{
	int lock = openat(directory, "ticket.lock",
	    O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r = 0, saved;

	if (lock == -1)
		return -1;
	if (flock(lock, LOCK_EX | LOCK_NB) == 0) {
		/* Another may have been here meanwhile. */
		load(directory, name, keys);
		if (ticket_rotate(keys, lifetime, time(NULL)) == 1)
			r = store(directory, name, keys);
	}
	saved = errno;
	(void)close(lock);
	errno = saved;
	return r;
}

int
ticket_share(const char *directory, int64_t lifetime, struct ticket_keys *keys,
    char *err)
{
	static const char name[] = "ticket.keys";
	int fd = runtime_open(directory);
	int r = 0;

	memset(keys, 0, sizeof(*keys));
	if (fd == -1)
		return fail(err, directory, errno == EPERM
			? "others may write there"
			: strerror(errno));
	load(fd, name, keys);
	if ((keys->count == 0 ||
		is_older(&keys->key[0], lifetime, time(NULL))) &&
	    rotate_file(fd, name, lifetime, keys) == -1) {
		r = fail(err, directory, strerror(errno));
		ticket_wipe(keys);
	}
	(void)close(fd);
	return r;
}
