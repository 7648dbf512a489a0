/*
 * Giving up: prctl(2), setuid(2), Landlock. Called by main, by a session and by
 * a keeper, each for itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/landlock.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/sandbox.h"

void
sandbox_private(void)
{
	struct rlimit none = {0, 0};

	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	(void)setrlimit(RLIMIT_CORE, &none);
}

int
sandbox_become(const char *user, char *err, size_t err_size)
{
	const struct passwd *pw;

	errno = 0;
	pw = getpwnam(user);
	if (pw == NULL) {
		snprintf(err, err_size, "user %s is not known", user);
		return -1;
	}
	if (getuid() != 0 && geteuid() != 0) {
		if (getuid() == pw->pw_uid)
			return 0;
		snprintf(err, err_size, "only root can become user %s", user);
		return -1;
	}
	if (initgroups(user, pw->pw_gid) == -1 ||
	    setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) == -1 ||
	    setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) == -1) {
		snprintf(err, err_size, "becoming user %s: %s", user,
		    strerror(errno));
		return -1;
	}
	/* The change of uid has made the process dumpable again. */
	sandbox_private();
	return 0;
}

/*
 * Libraries (modules are loaded late), and what c-ares reads. Directories of
 * keys and passwords are in none of them.
 */
static const char *const readable[] = {
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/host.conf",
};

/* What the directives add to them, for the next rules that are made. */
#define ALLOWED_MAX 16

static const char *allowed[ALLOWED_MAX];
static size_t allowed_count;

void
sandbox_allow(const char *path)
{
	if (path[0] != '\0' && allowed_count < ALLOWED_MAX)
		allowed[allowed_count++] = path;
}

static void
allow_read(int ruleset, const char *path, uint64_t access)
{
	struct landlock_path_beneath_attr rule = {.allowed_access = access};

	rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
	if (rule.parent_fd == -1)
		return;
	/* A rule for a file may not speak of directories. */
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH,
		&rule, 0) == -1) {
		rule.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE;
		(void)syscall(SYS_landlock_add_rule, ruleset,
		    LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
	}
	(void)close(rule.parent_fd);
}

/* The folder of our own modules, which may be anywhere. */
static void
allow_modules(int ruleset, uint64_t access)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	char *slash;

	if (n <= 0)
		return;
	path[n] = '\0';
	slash = strrchr(path, '/');
	if (slash == NULL ||
	    (size_t)(slash - path) + sizeof("/" MODULE_DIR) > sizeof(path))
		return;
	memcpy(slash, "/" MODULE_DIR, sizeof("/" MODULE_DIR));
	allow_read(ruleset, path, access);
}

/* Every right over files that this kernel's Landlock knows; 0: it has none. */
static uint64_t
known_rights(void)
{
	static const unsigned bits[] = {0, 13, 14, 15, 15, 16};
	const long last = sizeof(bits) / sizeof(bits[0]) - 1;
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0,
	    LANDLOCK_CREATE_RULESET_VERSION);

	if (abi < 1)
		return 0;
	return (UINT64_C(1) << bits[abi < last ? abi : last]) - 1;
}

/* The rules, as a descriptor; -1 where the kernel has none. */
static int
make_rules(void)
{
	const uint64_t all = known_rights();
	const uint64_t reading =
	    LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
	struct landlock_ruleset_attr attr = {.handled_access_fs = all};
	int ruleset;
	size_t i;

	ruleset = (int)syscall(
	    SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (ruleset == -1)
		return -1;
	for (i = 0; i < sizeof(readable) / sizeof(readable[0]); i++)
		allow_read(ruleset, readable[i], reading);
	for (i = 0; i < allowed_count; i++)
		allow_read(ruleset, allowed[i], reading);
	allow_modules(ruleset, reading);
	return ruleset;
}

static int prepared_rules = -1;

void
sandbox_prepare(void)
{
	if (prepared_rules != -1)
		(void)close(prepared_rules);
	prepared_rules = make_rules();
	allowed_count = 0;
}

bool
sandbox_session(void)
{
	bool done;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
		return false;
	if (prepared_rules == -1)
		sandbox_prepare();
	if (prepared_rules == -1)
		return false;
	done = syscall(SYS_landlock_restrict_self, prepared_rules, 0) == 0;
	(void)close(prepared_rules);
	prepared_rules = -1;
	return done;
}

static bool
is_same_file(int a, int b)
{
	struct stat sa, sb;

	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 &&
	    sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

int
sandbox_hide_client(int client_fd)
{
	int null, r;

	if (!is_same_file(STDERR_FILENO, client_fd))
		return 0;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null == -1)
		return -1;
	r = dup2(null, STDERR_FILENO);
	(void)close(null);
	return r == -1 ? -1 : 0;
}

int
sandbox_detach(int client_fd, int stdio, int keep)
{
	int null = -1;

	if (sandbox_hide_client(client_fd) == -1)
		return -1;
	if (stdio == -1)
		stdio = null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (stdio == -1 || dup2(stdio, STDIN_FILENO) == -1 ||
	    dup2(stdio, STDOUT_FILENO) == -1)
		return -1;
	if (null > STDERR_FILENO)
		(void)close(null);
	if (keep > STDERR_FILENO + 1 &&
	    close_range(STDERR_FILENO + 1, (unsigned)keep - 1, 0) == -1)
		return -1;
	return close_range((unsigned)keep + 1, ~0u, 0);
}
