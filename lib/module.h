/*
 * Parts of the program that are loaded only by the process that needs them,
 * when it needs them: OpenSSL's, and one a provider. A library that is merely
 * mapped makes every start and every fork dearer, and a client that talks too
 * early should pay for none of them.
 */
#ifndef LIB_MODULE_H
#define LIB_MODULE_H

#include <stddef.h>

/*
 * Loads `name`.so from the module directory (MODULE_DIR, relative to the
 * folder of the running executable) and returns its symbol `symbol`. A second
 * call for the same module costs nothing.
 * NULL with one line of explanation in `err`.
 */
const void *module_load(
    const char *name, const char *symbol, char *err, size_t err_size);

/* The path of another file in the module directory. 0, or -1. */
int module_path(const char *file, char *path, size_t size);

#endif
