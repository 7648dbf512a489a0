/*
 * SASL mechanisms, server side, as far as a session may go by itself: bytes in,
 * a challenge or credentials out. Pure: no I/O, no judgement. What needs a
 * stored secret (CRAM-MD5) is only named here and runs in the keeper.
 */
#ifndef SASL_H
#define SASL_H

#include <stdbool.h>
#include <stddef.h>

#define SASL_USER_SIZE	   512
#define SASL_PASSWORD_SIZE 1024

/* The longest response, decoded (RFC 4954 section 4: 12288 octets encoded). */
#define SASL_RESPONSE_SIZE 9217

struct sasl_mechanism;

/* One exchange. The credentials in it are its owner's to wipe. */
struct sasl {
	const struct sasl_mechanism *mechanism;
	unsigned step;
	char user[SASL_USER_SIZE];
	char authzid[SASL_USER_SIZE];
	char password[SASL_PASSWORD_SIZE];
	/* A bearer token, in the last response; NULL: there is none. */
	const char *token;
	size_t token_len;
};

enum sasl_result {
	SASL_CHALLENGE,	  /* send the challenge, step with the response */
	SASL_CREDENTIALS, /* complete: have them judged */
	SASL_MALFORMED	  /* not what the mechanism's definition allows */
};

struct sasl_mechanism {
	const char *name;
	unsigned bit;	    /* of smtp_auth (enum config_auth) */
	const char *method; /* Auth-Method, and M_METHOD for the keeper */
	/* A provider that can do one of these words makes it succeed. */
	const char *can;
	bool server_first; /* an initial response is against the rules */
	/* Of a token: the status in what the client is shown; else NULL. */
	const char *refusal;
	bool binds; /* of use only where TLS offers a channel binding */
	/*
	 * One step of it; NULL where the keeper runs the exchange. The challenge
	 * is text to be encoded, static.
	 */
	enum sasl_result (*step)(struct sasl *sasl, const char *response,
	    size_t len, const char **challenge);
};

/* Row `i` in the order in which AUTH lists them; NULL past the last. */
const struct sasl_mechanism *sasl_mechanism(size_t i);

/* By name, any case; NULL for one that this program does not know. */
const struct sasl_mechanism *sasl_find(const char *name);

/* Begins an exchange. */
void sasl_init(struct sasl *sasl, const struct sasl_mechanism *mechanism);

/*
 * One step with the client's decoded response, which is followed by a NUL;
 * `response` is NULL before the first one (no initial response). At
 * SASL_CHALLENGE *challenge is what to send.
 */
enum sasl_result sasl_step(struct sasl *sasl, const char *response, size_t len,
    const char **challenge);

/* Overwrites all of it. */
void sasl_wipe(struct sasl *sasl);

#endif
