/*
 * The journal, by libsystemd, in a module of its own (journal.so): the library
 * brings nine others, which double the cost of a start, and a session that logs
 * elsewhere needs none of them.
 */
#ifndef LIB_JOURNAL_H
#define LIB_JOURNAL_H

#include <sys/uio.h>

struct journal_api {
	/* sd_journal_sendv(3): one entry, a field an element. 0 or -errno. */
	int (*send)(const struct iovec *fields, int count);
};

#endif
