/*
 * The file: a header with the key, then the sets, of which one is read and
 * written at a time under a lock that nobody keeps while he waits. Whoever is
 * killed in the middle leaves a wrong count at worst, for what is read is
 * checked, not believed; a file with another header, or of others, is replaced.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/runtime.h"

#include "penalty_file.h"

/* A process that was stopped with the lock must not hold up the others. */
#define LOCK_WAIT_MS 200

struct header {
	char magic[16]; /* with a version: of layout and byte order */
	unsigned char key[SIPHASH_KEY_SIZE];
};

static const char magic[16] = "s-f penalties 1";

#define FILE_SIZE \
	((off_t)(sizeof(struct header) + \
	    PENALTY_SETS * sizeof(struct penalty_set)))

static bool
is_ours(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
	    st.st_uid == geteuid() && (st.st_mode & 077) == 0;
}

static int
open_in(int directory, int flags)
{
	return openat(directory, PENALTY_FILE,
	    O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | flags,
	    0600);
}

/* The file, ours alone; with `create` made, in the place of what is not. */
static int
open_ours(int directory, bool create)
{
	int fd = open_in(directory, create ? O_CREAT : 0);

	if (fd != -1 && is_ours(fd))
		return fd;
	if (fd != -1)
		(void)close(fd);
	if (!create || unlinkat(directory, PENALTY_FILE, 0) == -1)
		return -1;
	return open_in(directory, O_CREAT | O_EXCL);
}

static int
open_file(const char *path, bool create)
{
	int directory = runtime_open(path);
	int fd;

	if (directory == -1)
		return -1;
	fd = open_ours(directory, create);
	(void)close(directory);
	return fd;
}

static bool
lock(int fd)
{
	static const struct timespec pause = {0, 1000000};
	int64_t deadline = clock_in(LOCK_WAIT_MS);

	while (flock(fd, LOCK_EX | LOCK_NB) == -1) {
		if ((errno != EWOULDBLOCK && errno != EINTR) ||
		    clock_left(deadline) == 0)
			return false;
		(void)nanosleep(&pause, NULL);
	}
	return true;
}

/* The key of a file that is whole; otherwise it is made anew, and empty. */
static bool
read_key(int fd, unsigned char *key)
{
	struct header header;
	struct stat st;

	if (fstat(fd, &st) == -1)
		return false;
	if (st.st_size != FILE_SIZE ||
	    pread(fd, &header, sizeof(header), 0) != sizeof(header) ||
	    memcmp(header.magic, magic, sizeof(magic)) != 0) {
		memcpy(header.magic, magic, sizeof(magic));
		if (getrandom(header.key, sizeof(header.key), 0) !=
			sizeof(header.key) ||
		    ftruncate(fd, 0) == -1 || ftruncate(fd, FILE_SIZE) == -1 ||
		    pwrite(fd, &header, sizeof(header), 0) != sizeof(header))
			return false;
	}
	memcpy(key, header.key, sizeof(header.key));
	explicit_bzero(&header, sizeof(header));
	return true;
}

/* Locks the file and reads the source's set. False: nothing can be done. */
static bool
begin(int fd, const struct source *source, unsigned char *key,
    struct penalty_set *set, off_t *at)
{
	if (!lock(fd) || !read_key(fd, key))
		return false;
	*at = (off_t)(sizeof(struct header) +
	    penalty_place(key, source) * sizeof(*set));
	return pread(fd, set, sizeof(*set), *at) == sizeof(*set);
}

int64_t
penalty_file_count(
    const char *directory, const struct penalty_guess *guess)
{
	int fd = open_file(directory, true);
	unsigned char key[SIPHASH_KEY_SIZE];
	struct penalty_set set;
	int64_t delay = -1;
	off_t at;

	if (fd == -1)
		return -1;
	if (begin(fd, &guess->source, key, &set, &at)) {
		/* The time with the lock: it must not be before another's. */
		delay = penalty_count(&set, key, guess, clock_ms());
		if (pwrite(fd, &set, sizeof(set), at) != sizeof(set))
			delay = -1;
	}
	explicit_bzero(key, sizeof(key));
	/* The lock goes with it. */
	(void)close(fd);
	return delay;
}

void
penalty_file_clear(const char *directory, const struct source *source)
{
	int fd = open_file(directory, false);
	unsigned char key[SIPHASH_KEY_SIZE];
	struct penalty_set set;
	off_t at;

	if (fd == -1)
		return;
	if (begin(fd, source, key, &set, &at) && penalty_clear(&set, source))
		(void)!pwrite(fd, &set, sizeof(set), at);
	explicit_bzero(key, sizeof(key));
	(void)close(fd);
}
