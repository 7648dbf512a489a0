/*
 * Mechanisms that carry a bearer token; sasl.c's and the dialogue's.
 */
#ifndef SASL_TOKEN_H
#define SASL_TOKEN_H

#include "sasl.h"

/*
 * Steps (sasl.h). The token stays in the response: sasl->token leads there. It
 * is empty where the client only asks what it would be refused with.
 */
enum sasl_result sasl_token_xoauth2(struct sasl *sasl, const char *response,
    size_t len, const char **challenge);
enum sasl_result sasl_token_oauthbearer(struct sasl *sasl,
    const char *response, size_t len, const char **challenge);

/*
 * What a client is shown whose token is refused, and answers with nothing of
 * worth (RFC 7628 section 3.2.2): JSON, with `scope` unless that is empty. It
 * may hold what OAuth allows in a scope (RFC 6749 section 3.3).
 */
void sasl_token_refusal(const struct sasl_mechanism *mechanism,
    const char *scope, char *out, size_t size);

#endif
