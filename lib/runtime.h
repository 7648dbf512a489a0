/*
 * The directory in which processes of one installation share what must outlive
 * each of them.
 */
#ifndef LIB_RUNTIME_H
#define LIB_RUNTIME_H

/*
 * Opens the directory `path`, if nobody but us and root may put anything there:
 * what is found in it is believed. A descriptor, or -1 with errno (EPERM:
 * others may write there).
 */
int runtime_open(const char *path);

#endif
