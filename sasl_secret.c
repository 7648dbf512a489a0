/*
 * The table in which a keeper finds the mechanisms that need a stored secret.
 * To add one: a file with its two functions, and a row.
 */
#include "sasl_secret.h"

const struct sasl_secret_mechanism *const sasl_secret_mechanisms[] = {
    &sasl_cram_md5,
    &sasl_scram_sha_1,
    &sasl_scram_sha_256,
    &sasl_scram_sha_1_plus,
    &sasl_scram_sha_256_plus,
    NULL,
};
