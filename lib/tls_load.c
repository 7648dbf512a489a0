/*
 * The main program's side of the TLS module: finding its table. Nothing here
 * knows OpenSSL, so a process that has no TLS to speak never maps it.
 */
#include "lib/module.h"

#include "lib/tls.h"

const struct tls_api *
tls_load(char *err)
{
	return module_load("tls", "tls_api", err, TLS_ERROR_SIZE);
}
