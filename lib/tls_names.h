/*
 * A directory of keys and certificates, found by the name that a client asks
 * for: NAME.pem with both, or NAME/fullchain.pem and NAME/privkey.pem as
 * certbot lays them out. A private part of the TLS module.
 *
 * A name of the form *.rest, or _.rest where shells would mind, stands for all
 * names with one label before `rest` that have no file of their own. Beside
 * them NAME.ocsp, or NAME/ocsp.der, may hold an OCSP response.
 */
#ifndef LIB_TLS_NAMES_H
#define LIB_TLS_NAMES_H

#include "tls_pair.h"

struct tls_names;

/*
 * For names of `directory`; nothing of it is read yet. `passphrases` must
 * outlive it unless all names are loaded. NULL without memory.
 */
struct tls_names *tls_names_new(
    const char *directory, struct tls_bytes passphrases, char *err);

/*
 * Loads all that is there, so that tls_names_find() reads no file and may be
 * called by several threads. 0, or -1 with a line in `err`: one is no good.
 */
int tls_names_load(struct tls_names *names, char *err);

/*
 * The pair for a name in any case. 1; 0 when there is none; -1 with a line in
 * `err` when its files are no good.
 */
int tls_names_find(struct tls_names *names, const char *name,
    const struct tls_pair **pair, char *err);

void tls_names_free(struct tls_names *names);

#endif
