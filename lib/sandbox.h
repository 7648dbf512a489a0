/*
 * What a process gives up, so that who takes it over finds little: memory that
 * others may read, an identity, the files. Each call is safe to repeat and
 * needs no privilege.
 */
#ifndef LIB_SANDBOX_H
#define LIB_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>

/* First thing of all: no core dumps, no ptrace and /proc/PID/mem by others. */
void sandbox_private(void);

/*
 * Becomes `user` for good, its groups included; a process that is not root
 * must be that user already. 0, or -1 with a line in `err`.
 */
int sandbox_become(const char *user, char *err, size_t err_size);

/*
 * A file or directory of public things that a session may read; before
 * sandbox_prepare(), which forgets it. `path` is kept until then; "" is none.
 */
void sandbox_allow(const char *path);

/*
 * For a process that forks sessions: makes their Landlock rules once, so that
 * sandbox_session() has only to put them in force. Made anew, with what was
 * allowed since, by each further call.
 */
void sandbox_prepare(void);

/*
 * What a session gives up before its client's first byte is parsed: new
 * privileges by exec, and by Landlock, where the kernel has it, every file but
 * what the program's libraries and name look-ups read. So it can open neither a
 * key nor a password file that its uid may read. False when the kernel has no Landlock.
 */
bool sandbox_session(void);

/*
 * Puts /dev/null on fd 2 where that is the client's connection `client_fd`, as
 * it is under inetd: what a program complains of is no reply. 0 or -1.
 */
int sandbox_hide_client(int client_fd);

/*
 * For a child that shall have nothing of the session's: puts `stdio` (-1:
 * /dev/null) on 0 and 1, closes every other descriptor but `keep`, and 2 too
 * when it is the client's connection `client_fd`. 0, or -1: then it still has
 * some of it, and must not go on.
 */
int sandbox_detach(int client_fd, int stdio, int keep);

#endif
