/*
 * SASL mechanisms that need a stored secret, server side: what a keeper runs,
 * so that the secret never leaves it. Bytes in; a challenge, a name to look up
 * or the outcome out. No I/O but for random numbers; who has which secret is
 * not known here. The module "sasl-secret" exports the table below.
 */
#ifndef SASL_SECRET_H
#define SASL_SECRET_H

#include <stdbool.h>
#include <stddef.h>

#define SASL_SECRET_USER_SIZE 512
#define SASL_SECRET_OUT_SIZE  1024
#define SASL_STORED_SIZE      512
#define SASL_BINDING_MAX      64

enum sasl_secret_result {
	SASL_SECRET_CHALLENGE, /* `out` is for the client */
	SASL_SECRET_LOOK_UP,   /* find the secret of `user`, then reveal() it */
	SASL_SECRET_PROVED,    /* `out`, if not empty, is the last word */
	SASL_SECRET_DENIED,    /* `reason` */
	SASL_SECRET_FAILED     /* no random numbers, or no memory */
};

/* What a user's name leads to. The caller wipes it. */
struct sasl_stored {
	bool is_keys; /* as lib/scram.h reads them; else the secret itself */
	char text[SASL_STORED_SIZE];
};

/* Octets that are not text; `len` 0: there are none. */
struct sasl_binding {
	unsigned char data[SASL_BINDING_MAX];
	size_t len;
};

/* One exchange, from one step to the next. A mechanism adds its own to it. */
struct sasl_secret {
	const struct sasl_secret_mechanism *mechanism;
	const char *server_name;
	/* Channel bindings that are there to be had: then they are offered. */
	struct sasl_binding exporter, end_point;
	/* A secret of this installation's, always the same. */
	struct sasl_binding salt_key;
	char user[SASL_SECRET_USER_SIZE];
	/*
	 * Where the proof can be judged by others who know the secret: what it
	 * was made of, and the proof. NULL where only reveal() will do.
	 */
	const char *salt, *digest;
	const char *reason; /* a static line for the log; NULL: none */
	char out[SASL_SECRET_OUT_SIZE];
	size_t out_len;
};

struct sasl_secret_mechanism {
	const char *name;
	size_t size; /* of its exchange, which begins as a struct sasl_secret */
	const char *keys; /* the stored keys that will do; NULL: none */
	bool binds; /* it is of use only with a channel binding */

	/*
	 * One step with the client's decoded response, which is followed by a
	 * NUL; `response` is NULL before the first one.
	 */
	enum sasl_secret_result (*step)(
	    struct sasl_secret *x, const char *response, size_t len);

	/*
	 * After SASL_SECRET_LOOK_UP: goes on with what is stored. When the user
	 * is not `known`, that is another's, or empty; it takes as long, looks
	 * the same to the client, and is never proved.
	 */
	enum sasl_secret_result (*reveal)(struct sasl_secret *x,
	    const struct sasl_stored *stored, bool known);
};

/* All of them; NULL ends the list. */
extern const struct sasl_secret_mechanism *const sasl_secret_mechanisms[];

/* The file of each has its row; they are sasl_secret.c's alone. */
extern const struct sasl_secret_mechanism sasl_cram_md5;
extern const struct sasl_secret_mechanism sasl_scram_sha_1;
extern const struct sasl_secret_mechanism sasl_scram_sha_256;
extern const struct sasl_secret_mechanism sasl_scram_sha_1_plus;
extern const struct sasl_secret_mechanism sasl_scram_sha_256_plus;

#endif
