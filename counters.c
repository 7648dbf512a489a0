/*
 * The shared memory: totals that only grow, and a slot a session.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/text.h"

#include "counters.h"

/* At the file's beginning; another version's layout is not read. */
#define MAGIC UINT64_C(0x32746e756f637366)

/* A turn that is being taken, and how long all such are waited for. */
#define TURN_COMING UINT64_MAX
#define PATIENCE_MS 100

/* A session: who takes one over can lie here about itself, and be counted. */
struct slot {
	_Atomic uint64_t turn;	 /* of its source: who came first; 0: none */
	_Atomic uint64_t source; /* as a number */
	_Atomic unsigned char stage;
};

struct shared {
	uint64_t magic, slots;
	_Atomic uint64_t turns;
	_Atomic uint64_t totals[COUNTER_COUNT];
	struct slot slot[];
};

static struct shared *shared;
static int file = -1; /* open as long as the listener runs: its lock */
static size_t own_slot;
static size_t slots; /* ours: what is shared, a session may overwrite */

static const struct {
	const char *name, *help;
} counters[] = {
#define X(id, name, help) {name, help},
    COUNTERS(X)
#undef X
};

static const char *const stages[STAGE_COUNT] = {
    [STAGE_GREETING] = "greeting",
    [STAGE_DIALOGUE] = "dialogue",
    [STAGE_UPSTREAM] = "upstream",
    [STAGE_PROXY] = "proxy",
};

/* Sessions do not inherit such a lock; it ends with the process, however. */
static const struct flock running = {
    .l_type = F_WRLCK, .l_whence = SEEK_SET};

/*
 * A new file: who still reads the old one keeps it. Its room is taken now, as on
 * a full disk the first write to a page without any would be a SIGBUS.
 */
static int
open_file(const char *path, size_t size)
{
	int fd, wrong;

	(void)unlink(path);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
	    0644);
	if (fd == -1)
		return -1;
	wrong = posix_fallocate(fd, 0, (off_t)size);
	if (wrong == 0 && fcntl(fd, F_SETLK, &running) == -1)
		wrong = errno;
	if (wrong == 0)
		return fd;
	(void)close(fd);
	(void)unlink(path);
	errno = wrong;
	return -1;
}

int
counters_open(const char *path, size_t max)
{
	const size_t size = sizeof(*shared) + max * sizeof(struct slot);
	int flags = MAP_SHARED;
	void *map;

	if (path[0] != '\0') {
		file = open_file(path, size);
		if (file == -1)
			return -1;
	} else {
		flags |= MAP_ANONYMOUS;
	}
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, file, 0);
	if (map == MAP_FAILED)
		return -1;
	shared = map;
	shared->slots = slots = max;
	shared->magic = MAGIC;
	return 0;
}

void
counters_detach(void)
{
	if (file != -1)
		(void)close(file);
	file = -1;
}

void
counters_add(enum counter counter, uint64_t n)
{
	if (shared != NULL)
		atomic_fetch_add_explicit(
		    &shared->totals[counter], n, memory_order_relaxed);
}

uint64_t
counters_get(enum counter counter)
{
	return shared == NULL ? 0
			      : atomic_load_explicit(&shared->totals[counter],
				    memory_order_relaxed);
}

void
counters_set(size_t slot, enum stage stage)
{
	if (shared != NULL && slot < slots)
		atomic_store_explicit(&shared->slot[slot].stage,
		    (unsigned char)stage, memory_order_relaxed);
}

void
counters_use(size_t slot)
{
	own_slot = slot;
}

void
counters_enter(enum stage stage)
{
	counters_set(own_slot, stage);
}

/* A source in one number; IPv6 networks like those of IPv4 there are none. */
static uint64_t
number_of(const struct source *source)
{
	uint64_t n = 0;
	size_t i;

	for (i = 1; i < sizeof(source->bytes); i++)
		n = n << 8 | source->bytes[i];
	return source->bytes[0] == 4 ? n >> 32 | UINT64_C(4) << 32 : n;
}

void
counters_set_source(size_t slot, const struct source *source)
{
	if (shared == NULL || slot >= slots)
		return;
	atomic_store(&shared->slot[slot].source, number_of(source));
	atomic_store(&shared->slot[slot].turn,
	    source->bytes[0] == 0 ? 0 : atomic_fetch_add(&shared->turns, 1) + 1);
}

/*
 * Whether the session in a slot came before `own`. One that is about to learn
 * its turn is waited for, with a patience that is the same for all slots: who
 * has been killed at it is never done.
 */
static bool
is_before(size_t slot, uint64_t own, uint64_t number, int *patience)
{
	const struct slot *other = &shared->slot[slot];
	uint64_t turn;

	for (;;) {
		turn = atomic_load(&other->turn);
		if (turn == 0 || atomic_load(&other->source) != number ||
		    atomic_load(&other->stage) == STAGE_NONE)
			return false;
		if (turn != TURN_COMING || --*patience < 0)
			return turn < own;
		(void)poll(NULL, 0, 1);
	}
}

/*
 * Of two that come at once each sees the other, but only one of them before
 * itself: so just as many are let in as there may be. (Lamport's bakery.)
 */
bool
counters_enter_source(const struct source *source, size_t limit)
{
	uint64_t own, number = number_of(source);
	int patience = PATIENCE_MS;
	struct slot *slot;
	size_t i, n = 0;

	if (shared == NULL || own_slot >= slots || source->bytes[0] == 0)
		return true;
	slot = &shared->slot[own_slot];
	atomic_store(&slot->source, number);
	atomic_store(&slot->turn, TURN_COMING);
	own = atomic_fetch_add(&shared->turns, 1) + 1;
	atomic_store(&slot->turn, own);
	for (i = 0; i < slots && n < limit; i++)
		n += i != own_slot && is_before(i, own, number, &patience);
	if (n < limit)
		return true;
	/* Who is shown the door takes nobody's place. */
	atomic_store(&slot->turn, 0);
	return false;
}

static uint64_t
sessions_in(const struct shared *s, size_t count, enum stage stage)
{
	uint64_t n = 0;
	size_t i;

	for (i = 0; i < count; i++)
		n += s->slot[i].stage == stage;
	return n;
}

/* Whether the process that made it is still there. */
static bool
is_locked(int fd)
{
	struct flock lock = running;

	return fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static const struct shared *
map_file(const char *path, size_t *count)
{
	const struct shared *s = MAP_FAILED;
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd == -1)
		return NULL;
	if (is_locked(fd) && fstat(fd, &st) == 0 && st.st_size >= (off_t)sizeof(*s))
		s = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd,
		    0);
	(void)close(fd);
	if (s == MAP_FAILED)
		return NULL;
	/* Sized by what is there, not by what it says of itself. */
	*count = ((size_t)st.st_size - sizeof(*s)) / sizeof(struct slot);
	if (s->magic != MAGIC || s->slots != *count) {
		errno = EINVAL;
		return NULL;
	}
	return s;
}

int
counters_print(const char *path, FILE *out)
{
	size_t i, count = 0;
	const struct shared *s = map_file(path, &count);

	if (s == NULL)
		return -1;
	for (i = STAGE_NONE + 1; i < STAGE_COUNT; i++)
		fprintf(out, "sessions in %-24s %12" PRIu64 "\n", stages[i],
		    sessions_in(s, count, (enum stage)i));
	for (i = 0; i < COUNTER_COUNT; i++)
		fprintf(out, "%-36s %12" PRIu64 "\n", counters[i].name,
		    (uint64_t)s->totals[i]);
	return 0;
}

static void
write_metrics(FILE *out)
{
	size_t i;

	fputs("# TYPE smtp_frontd_sessions gauge\n"
	      "# HELP smtp_frontd_sessions Sessions now, by stage\n", out);
	for (i = STAGE_NONE + 1; i < STAGE_COUNT; i++)
		fprintf(out,
		    "smtp_frontd_sessions{stage=\"%s\"} %" PRIu64 "\n",
		    stages[i], sessions_in(shared, slots, (enum stage)i));
	for (i = 0; i < COUNTER_COUNT; i++)
		fprintf(out,
		    "# TYPE smtp_frontd_%s counter\n"
		    "# HELP smtp_frontd_%s %s\n"
		    "smtp_frontd_%s_total %" PRIu64 "\n",
		    counters[i].name, counters[i].name, counters[i].help,
		    counters[i].name, (uint64_t)shared->totals[i]);
	fputs("# EOF\n", out);
}

/*
 * The folder may be one that others write to (textfile collectors' often is):
 * what they have put in our way, a symbolic link to a file of ours say, is
 * removed and never followed. Whoever collects is another user.
 */
static FILE *
open_new(const char *path)
{
	FILE *out = NULL;
	int fd;

	(void)unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
	    0644);
	if (fd != -1 && fchmod(fd, 0644) == 0)
		out = fdopen(fd, "w");
	if (fd != -1 && out == NULL)
		(void)close(fd);
	return out;
}

int
counters_export(const char *path)
{
	char temporary[4096];
	FILE *out;
	bool written;

	if (shared == NULL ||
	    snprintf(temporary, sizeof(temporary), "%s.new", path) >=
		(int)sizeof(temporary))
		return -1;
	out = open_new(temporary);
	if (out == NULL)
		return -1;
	write_metrics(out);
	written = fflush(out) == 0 && !ferror(out);
	if (fclose(out) != 0 || !written || rename(temporary, path) == -1) {
		(void)unlink(temporary);
		return -1;
	}
	return 0;
}
