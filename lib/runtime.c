/*
 * The runtime directory's owner and mode, looked at through the descriptor that
 * is used afterwards: no other can be put in its place in between.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/runtime.h"

static bool
is_ours_alone(int directory)
{
	struct stat st;

	return fstat(directory, &st) == 0 &&
	    (st.st_uid == geteuid() || st.st_uid == 0) &&
	    (st.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

int
runtime_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd == -1 || is_ours_alone(fd))
		return fd;
	(void)close(fd);
	errno = EPERM;
	return -1;
}
