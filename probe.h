/*
 * --check's try of the provider: a login that nobody has.
 */
#ifndef PROBE_H
#define PROBE_H

#include <stdio.h>

#include "config.h"

/*
 * Has a random user with a random password judged, as a session would, and
 * prints a "# warning: ..." line where that is a success or nobody judges. Takes
 * 5 seconds at most.
 */
void probe_provider(const struct config *conf, FILE *out);

#endif
