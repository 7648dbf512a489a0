/*
 * Finds and loads the program's own shared objects. They are looked for beside
 * the executable that runs, never along a search path: neither the environment
 * nor the current directory can put another one in their place. What a module
 * exports, and who may load which, is its users' business.
 */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/text.h"

#include "lib/module.h"

#define PATH_SIZE 4096

/* The executable's folder, found at the first call; "" before. */
static char folder[PATH_SIZE];

static int
find_folder(void)
{
	char path[PATH_SIZE], *slash;
	ssize_t n;

	if (folder[0] != '\0')
		return 0;
	n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	if (n <= 0)
		return -1;
	path[n] = '\0';
	slash = strrchr(path, '/');
	if (slash == NULL)
		return -1;
	*slash = '\0';
	return text_copy(folder, sizeof(folder), path);
}

/* Part of a name may come from a directive: no "/", no "..", no end. */
static bool
is_name(const char *name)
{
	return name[0] != '\0' &&
	       name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-")] == '\0';
}

int
module_path(const char *file, char *path, size_t size)
{
	int n;

	if (find_folder() == -1)
		return -1;
	n = snprintf(path, size, "%s/%s/%s", folder, MODULE_DIR, file);
	return n >= 0 && (size_t)n < size ? 0 : -1;
}

const void *
module_load(const char *name, const char *symbol, char *err, size_t err_size)
{
	char path[PATH_SIZE];
	const void *found;
	void *handle;
	int n;

	if (!is_name(name)) {
		(void)snprintf(err, err_size, "not the name of a module");
		return NULL;
	}
	if (find_folder() == -1) {
		(void)snprintf(err, err_size,
		    "module %s: cannot find the program's folder in /proc",
		    name);
		return NULL;
	}
	n = snprintf(
	    path, sizeof(path), "%s/%s/%s.so", folder, MODULE_DIR, name);
	if (n < 0 || (size_t)n >= sizeof(path)) {
		(void)snprintf(err, err_size, "module %s: path too long", name);
		return NULL;
	}
	/* A path that is loaded already is known by its name: no system call */
	handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	found = handle != NULL ? dlsym(handle, symbol) : NULL;
	if (found == NULL)
		(void)snprintf(err, err_size, "module %s: %s", name, dlerror());
	return found;
}
