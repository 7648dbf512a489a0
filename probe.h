/*
 * --check's tries: a login that nobody has, and the files of TLS.
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

/*
 * Loads certificates, keys and all that TLS with clients is made of, and the
 * certificates and keys for backends, as a listener would, and prints a
 * "# warning: ..." line where it would not do.
 */
void probe_tls(const struct config *conf, FILE *out);

#endif
