/*
 * Keys of session tickets: nginx's files, rotation by a clock that the test has
 * in its hand, and the file that processes share.
 */
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/ticket.h"

#define HOUR	  3600
#define PROCESSES 50

static char folder[] = "/tmp/t-ticket-XXXXXX";
static char err[TICKET_ERROR_SIZE];
static struct ticket_keys keys, others;

/* Until some calls later. */
static char *
in_folder(const char *name)
{
	static char paths[8][64];
	static unsigned next;
	char *path = paths[next++ % 8];

	(void)snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static char *
write_file(const char *name, const void *bytes, size_t len, mode_t mode)
{
	char *path = in_folder(name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

	assert_true(fd != -1);
	assert_int_equal(write(fd, bytes, len), len);
	assert_int_equal(fchmod(fd, mode), 0);
	(void)close(fd);
	return path;
}

static size_t
read_file(const char *name, unsigned char *buf, size_t size)
{
	int fd = open(in_folder(name), O_RDONLY | O_CLOEXEC);
	ssize_t n;

	assert_true(fd != -1);
	n = read(fd, buf, size);
	assert_true(n >= 0);
	(void)close(fd);
	return (size_t)n;
}

static bool
is_there(const char *name)
{
	struct stat st;

	return lstat(in_folder(name), &st) == 0;
}

static bool
is_key(const struct ticket_key *key, const struct ticket_key *other)
{
	return key->len == other->len && key->made == other->made &&
	       memcmp(key->bytes, other->bytes, key->len) == 0;
}

/* A folder for each test. */
static int
set_up(void **state)
{
	(void)state;
	(void)umask(077);
	memset(&keys, 0, sizeof(keys));
	memset(&others, 0, sizeof(others));
	err[0] = '\0';
	memset(folder + sizeof(folder) - 7, 'X', 6);
	return mkdtemp(folder) == NULL ? -1 : 0;
}

static int
tear_down(void **state)
{
	char command[64];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command);
}

/* --- nginx's files ------------------------------------------------------- */

static int
read_paths(char *first, char *second)
{
	char *paths[] = {first, second};

	err[0] = '\0';
	return ticket_read(paths, second != NULL ? 2 : 1, &keys, err);
}

static void
test_both_lengths(void **state)
{
	unsigned char bytes[80];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(i + 1);
	assert_int_equal(read_paths(write_file("80", bytes, 80, 0640),
			     write_file("48", bytes, 48, 0400)),
	    0);
	assert_int_equal(keys.count, 2);
	assert_int_equal(keys.key[0].len, 80);
	assert_int_equal(keys.key[1].len, 48);
	assert_memory_equal(keys.key[0].bytes, bytes, 80);
	assert_memory_equal(keys.key[1].bytes, bytes, 48);
	assert_int_equal(keys.key[0].made, 0);
}

static void
test_other_lengths(void **state)
{
	static const size_t lengths[] = {0, 1, 47, 49, 79, 81, 128};
	unsigned char bytes[128] = {0};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		assert_int_equal(read_paths(write_file("key", bytes,
					lengths[i], 0600), NULL),
		    -1);
		assert_non_null(strstr(err, "48 or 80"));
		assert_non_null(strstr(err, in_folder("key")));
	}
}

static void
test_modes(void **state)
{
	static const struct {
		mode_t mode;
		int result;
	} cases[] = {
	    {0600, 0}, {0400, 0}, {0640, 0}, {0660, 0}, {0604, -1},
	    {0602, -1}, {0601, -1}, {0644, -1}, {0666, -1},
	};
	unsigned char bytes[80] = {0};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(read_paths(write_file("key", bytes, 80,
					cases[i].mode), NULL),
		    cases[i].result);
		if (cases[i].result == -1)
			assert_non_null(strstr(err, "chmod o="));
	}
}

static void
test_what_is_no_file(void **state)
{
	unsigned char bytes[80] = {0};

	(void)state;
	assert_int_equal(read_paths(in_folder("none"), NULL), -1);
	assert_non_null(strstr(err, "No such file"));
	assert_int_equal(read_paths(folder, NULL), -1);
	assert_non_null(strstr(err, "not a regular file"));
	/* Nobody writes to it: that must not be waited for. */
	assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
	assert_int_equal(read_paths(in_folder("fifo"), NULL), -1);
	assert_non_null(strstr(err, "not a regular file"));
	/* One that is bad spoils all, and nothing of the good one stays. */
	memset(bytes, 'x', sizeof(bytes));
	assert_int_equal(read_paths(write_file("good", bytes, 80, 0600),
			     in_folder("none")),
	    -1);
	assert_int_equal(keys.count, 0);
	assert_int_equal(keys.key[0].bytes[0], 0);
}

static void
test_how_many(void **state)
{
	unsigned char bytes[48] = {0};
	char *paths[TICKET_KEYS_MAX + 1];
	char *path = write_file("key", bytes, 48, 0600);
	size_t i;

	(void)state;
	for (i = 0; i <= TICKET_KEYS_MAX; i++)
		paths[i] = path;
	assert_int_equal(ticket_read(paths, TICKET_KEYS_MAX, &keys, err), 0);
	assert_int_equal(keys.count, TICKET_KEYS_MAX);
	assert_int_equal(
	    ticket_read(paths, TICKET_KEYS_MAX + 1, &keys, err), -1);
	assert_non_null(strstr(err, "more than 8"));
}

static void
test_wipe(void **state)
{
	static const struct ticket_keys none;

	(void)state;
	assert_int_equal(ticket_rotate(&keys, HOUR, 1000), 1);
	ticket_wipe(&keys);
	assert_memory_equal(&keys, &none, sizeof(keys));
}

/* --- rotation ------------------------------------------------------------ */

static void
test_rotation(void **state)
{
	int64_t now = 1000000;

	(void)state;
	assert_int_equal(ticket_rotate(&keys, HOUR, now), 1);
	assert_int_equal(keys.count, 1);
	assert_int_equal(keys.key[0].len, TICKET_KEY_SIZE);
	assert_int_equal(keys.key[0].made, now);
	others = keys;
	assert_int_equal(ticket_rotate(&keys, HOUR, now + HOUR - 1), 0);
	assert_memory_equal(&keys, &others, sizeof(keys));

	/* It decrypts on, until its last ticket has expired. */
	assert_int_equal(ticket_rotate(&keys, HOUR, now + HOUR), 1);
	assert_int_equal(keys.count, 2);
	assert_true(is_key(&keys.key[1], &others.key[0]));
	assert_memory_not_equal(
	    keys.key[0].bytes, others.key[0].bytes, TICKET_KEY_SIZE);
	assert_int_equal(keys.key[0].made, now + HOUR);

	/* The first is forgotten, its memory too. */
	assert_int_equal(ticket_rotate(&keys, HOUR, now + 2 * HOUR), 1);
	assert_int_equal(keys.count, 2);
	assert_int_equal(keys.key[0].made, now + 2 * HOUR);
	assert_int_equal(keys.key[1].made, now + HOUR);
	assert_memory_equal(
	    &keys.key[2], &(struct ticket_key){0}, sizeof(keys.key[2]));
}

/* An old key is not dropped before each ticket that it sealed has expired. */
static void
test_no_key_goes_too_soon(void **state)
{
	int64_t now = 1000000, sealed;
	struct ticket_keys later;
	bool found;
	size_t i;

	(void)state;
	for (sealed = now; sealed < now + 1000; sealed += 7) {
		(void)ticket_rotate(&keys, 60, sealed);
		/* Just before its end the ticket of `sealed` is offered. */
		later = keys;
		(void)ticket_rotate(&later, 60, sealed + 59);
		for (found = false, i = 0; i < later.count; i++)
			found |= is_key(&later.key[i], &keys.key[0]);
		assert_true(found);
	}
}

static void
test_clock_goes_backwards(void **state)
{
	(void)state;
	assert_int_equal(ticket_rotate(&keys, HOUR, 1000000), 1);
	others = keys;
	/* What was made tomorrow would serve until then. */
	assert_int_equal(ticket_rotate(&keys, HOUR, 999999), 1);
	assert_int_equal(keys.count, 1);
	assert_int_equal(keys.key[0].made, 999999);
	assert_memory_not_equal(
	    keys.key[0].bytes, others.key[0].bytes, TICKET_KEY_SIZE);
	assert_int_equal(ticket_rotate(&keys, HOUR, 999999), 0);
}

static void
test_long_sleep(void **state)
{
	(void)state;
	assert_int_equal(ticket_rotate(&keys, HOUR, 1000000), 1);
	assert_int_equal(ticket_rotate(&keys, HOUR, 1000000 + 100 * HOUR), 1);
	assert_int_equal(keys.count, 1);
	assert_int_equal(keys.key[0].made, 1000000 + 100 * HOUR);
}

/* --- the shared file ----------------------------------------------------- */

static void
share(struct ticket_keys *out)
{
	if (ticket_share(folder, HOUR, out, err) == -1)
		fail_msg("%s", err);
}

static void
test_first_makes_and_second_finds(void **state)
{
	struct stat st;

	(void)state;
	share(&keys);
	assert_int_equal(keys.count, 1);
	assert_int_equal(keys.key[0].len, TICKET_KEY_SIZE);
	assert_true(llabs((long long)(keys.key[0].made - time(NULL))) < 60);
	share(&others);
	assert_int_equal(others.count, 1);
	assert_true(is_key(&keys.key[0], &others.key[0]));
	assert_int_equal(stat(in_folder("ticket.keys"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_false(is_there("ticket.keys.new"));
}

static void
test_umask_does_not_matter(void **state)
{
	struct stat st;

	(void)state;
	(void)umask(0);
	share(&keys);
	assert_int_equal(stat(in_folder("ticket.keys"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

/* Writes the file anew, with the time of key `i` changed. */
static void
age(size_t i, int64_t seconds)
{
	unsigned char buf[1024], *p;
	size_t len = read_file("ticket.keys", buf, sizeof(buf));
	size_t head = len % 88;
	uint64_t t = 0;
	int j;

	assert_true(len >= head + (i + 1) * 88);
	p = buf + head + i * 88;
	for (j = 0; j < 8; j++)
		t = t << 8 | p[j];
	t -= (uint64_t)seconds;
	for (j = 7; j >= 0; j--, t >>= 8)
		p[j] = (unsigned char)t;
	(void)write_file("ticket.keys", buf, len, 0600);
}

static void
test_whoever_finds_it_old_rotates(void **state)
{
	(void)state;
	share(&keys);
	age(0, HOUR + 1);
	share(&others);
	assert_int_equal(others.count, 2);
	assert_memory_equal(
	    others.key[1].bytes, keys.key[0].bytes, TICKET_KEY_SIZE);
	assert_memory_not_equal(
	    others.key[0].bytes, keys.key[0].bytes, TICKET_KEY_SIZE);
	share(&keys);
	assert_memory_equal(&keys, &others, sizeof(keys));
	/* Of two days ago: as if there were none. */
	age(0, 48 * HOUR);
	age(1, 48 * HOUR);
	share(&others);
	assert_int_equal(others.count, 1);
}

/* The clock was wrong when it was made: it must not serve for ever. */
static void
test_file_of_the_future(void **state)
{
	(void)state;
	share(&keys);
	age(0, -100 * HOUR);
	share(&others);
	assert_int_equal(others.count, 1);
	assert_memory_not_equal(
	    others.key[0].bytes, keys.key[0].bytes, TICKET_KEY_SIZE);
}

static void
test_broken_files_are_replaced(void **state)
{
	unsigned char buf[2048];
	size_t len, cut;

	(void)state;
	share(&keys);
	len = read_file("ticket.keys", buf, sizeof(buf));
	for (cut = 0; cut < len; cut++) {
		(void)write_file("ticket.keys", buf, cut, 0600);
		share(&others);
		assert_int_equal(others.count, 1);
		assert_memory_not_equal(others.key[0].bytes,
		    keys.key[0].bytes, TICKET_KEY_SIZE);
	}
	memset(buf + len, 'x', sizeof(buf) - len);
	(void)write_file("ticket.keys", buf, sizeof(buf), 0600);
	share(&others);
	assert_int_equal(others.count, 1);
	buf[0] ^= 1;
	(void)write_file("ticket.keys", buf, len, 0600);
	share(&others);
	assert_int_equal(others.count, 1);
	assert_memory_not_equal(
	    others.key[0].bytes, keys.key[0].bytes, TICKET_KEY_SIZE);
}

/* What others could have read, or have laid there, seals nothing of ours. */
static void
test_files_that_are_not_believed(void **state)
{
	unsigned char buf[1024];
	size_t len;

	(void)state;
	share(&keys);
	len = read_file("ticket.keys", buf, sizeof(buf));
	(void)write_file("ticket.keys", buf, len, 0644);
	share(&others);
	assert_int_equal(others.count, 1);
	assert_memory_not_equal(
	    others.key[0].bytes, keys.key[0].bytes, TICKET_KEY_SIZE);

	(void)write_file("elsewhere", buf, len, 0600);
	assert_int_equal(unlink(in_folder("ticket.keys")), 0);
	assert_int_equal(
	    symlink(in_folder("elsewhere"), in_folder("ticket.keys")), 0);
	share(&others);
	assert_memory_not_equal(
	    others.key[0].bytes, keys.key[0].bytes, TICKET_KEY_SIZE);
	/* It is replaced itself, not what it leads to. */
	assert_int_equal(read_file("elsewhere", buf, sizeof(buf)), len);

	if (geteuid() != 0)
		return;
	(void)write_file("ticket.keys", buf, len, 0600);
	assert_int_equal(chown(in_folder("ticket.keys"), 65534, 65534), 0);
	share(&others);
	assert_memory_not_equal(
	    others.key[0].bytes, keys.key[0].bytes, TICKET_KEY_SIZE);
}

/* Links where our own names are lead nowhere. */
static void
test_links_in_the_way(void **state)
{
	unsigned char buf[16];

	(void)state;
	(void)write_file("victim", "untouched", 9, 0600);
	assert_int_equal(
	    symlink(in_folder("victim"), in_folder("ticket.keys.new")), 0);
	share(&keys);
	assert_int_equal(keys.count, 1);
	assert_int_equal(unlink(in_folder("ticket.keys")), 0);
	assert_int_equal(unlink(in_folder("ticket.lock")), 0);
	assert_int_equal(
	    symlink(in_folder("victim"), in_folder("ticket.lock")), 0);
	assert_int_equal(ticket_share(folder, HOUR, &keys, err), -1);
	assert_int_equal(keys.count, 0);
	assert_int_equal(read_file("victim", buf, sizeof(buf)), 9);
	assert_memory_equal(buf, "untouched", 9);
}

static void
test_directories(void **state)
{
	static const mode_t open_to_others[] = {0777, 01777, 0770, 0702, 0720};
	char file[64];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(open_to_others) / sizeof(open_to_others[0]);
	     i++) {
		assert_int_equal(chmod(folder, open_to_others[i]), 0);
		assert_int_equal(ticket_share(folder, HOUR, &keys, err), -1);
		assert_int_equal(keys.count, 0);
		assert_non_null(strstr(err, folder));
		assert_false(is_there("ticket.keys"));
	}
	assert_int_equal(chmod(folder, 0755), 0);
	share(&keys);
	(void)snprintf(file, sizeof(file), "%s", in_folder("ticket.keys"));
	assert_int_equal(ticket_share(file, HOUR, &keys, err), -1);
	assert_int_equal(
	    ticket_share(in_folder("none"), HOUR, &keys, err), -1);
	if (geteuid() != 0)
		return;
	assert_int_equal(chown(folder, 65534, 65534), 0);
	assert_int_equal(ticket_share(folder, HOUR, &keys, err), -1);
	assert_int_equal(chown(folder, 0, 0), 0);
}

/* A file cannot grow: as on a full disk, but for this process alone. */
static void
share_without_room(void)
{
	struct rlimit was, none;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	none = was;
	none.rlim_cur = 10;
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	assert_int_equal(ticket_share(folder, HOUR, &others, err), -1);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	assert_non_null(strstr(err, folder));
	assert_int_equal(others.count, 0);
	/* Nothing that is half written stays. */
	assert_false(is_there("ticket.keys.new"));
}

/* A key that could not be stored would seal tickets that nobody opens. */
static void
test_full_disk(void **state)
{
	(void)state;
	share_without_room();
	assert_false(is_there("ticket.keys"));
	share(&keys);
	age(0, HOUR + 1);
	share_without_room();
	share(&others);
	assert_int_equal(others.count, 2);
	assert_memory_equal(
	    others.key[1].bytes, keys.key[0].bytes, TICKET_KEY_SIZE);
}

/* Somebody holds the lock and goes on holding it: nobody waits for him. */
static void
test_lock_that_is_held(void **state)
{
	int lock;

	(void)state;
	share(&keys);
	age(0, HOUR + 1);
	lock = open(in_folder("ticket.lock"), O_RDWR | O_CLOEXEC);
	assert_true(lock != -1);
	assert_int_equal(flock(lock, LOCK_EX), 0);
	share(&others);
	assert_int_equal(others.count, 1);
	assert_memory_equal(
	    others.key[0].bytes, keys.key[0].bytes, TICKET_KEY_SIZE);
	(void)close(lock);
	share(&others);
	assert_int_equal(others.count, 2);
}

/* Many come at once to an empty directory: all that get keys get the same. */
static void
test_many_at_once(void **state)
{
	int results[2], start[2], i, with = 0, status;
	unsigned char name[16], first[16];
	struct ticket_keys found;
	pid_t pids[PROCESSES];

	(void)state;
	assert_int_equal(pipe(results), 0);
	assert_int_equal(pipe(start), 0);
	for (i = 0; i < PROCESSES; i++) {
		pids[i] = fork();
		assert_true(pids[i] != -1);
		if (pids[i] != 0)
			continue;
		(void)close(start[1]);
		/* until all are there */
		if (read(start[0], name, 1) != 0 ||
		    ticket_share(folder, HOUR, &found, err) == -1)
			_exit(1);
		if (found.count > 1)
			_exit(2);
		if (found.count == 1 &&
		    write(results[1], found.key[0].bytes, 16) != 16)
			_exit(3);
		_exit(0);
	}
	(void)close(start[1]);
	(void)close(start[0]);
	(void)close(results[1]);
	for (i = 0; i < PROCESSES; i++) {
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
	share(&keys);
	memcpy(first, keys.key[0].bytes, 16);
	while (read(results[0], name, 16) == 16) {
		assert_memory_equal(name, first, 16);
		with++;
	}
	(void)close(results[0]);
	assert_true(with >= 1);
	assert_int_equal(keys.count, 1);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
	    TEST(test_both_lengths),
	    TEST(test_other_lengths),
	    TEST(test_modes),
	    TEST(test_what_is_no_file),
	    TEST(test_how_many),
	    TEST(test_wipe),
	    TEST(test_rotation),
	    TEST(test_no_key_goes_too_soon),
	    TEST(test_clock_goes_backwards),
	    TEST(test_long_sleep),
	    TEST(test_first_makes_and_second_finds),
	    TEST(test_umask_does_not_matter),
	    TEST(test_whoever_finds_it_old_rotates),
	    TEST(test_file_of_the_future),
	    TEST(test_broken_files_are_replaced),
	    TEST(test_files_that_are_not_believed),
	    TEST(test_links_in_the_way),
	    TEST(test_directories),
	    TEST(test_full_disk),
	    TEST(test_lock_that_is_held),
	    TEST(test_many_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
