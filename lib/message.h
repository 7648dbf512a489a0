/*
 * What a session and its keeper say to each other: one message a question, one
 * message an answer, over a SOCK_SEQPACKET socket that keeps their borders.
 *
 * A message is a type and a set of fields; a field is a name from the list
 * below and bytes. Text fields are C strings (a NUL inside is refused when the
 * message is received, so no value can be cut short by one); the fields marked
 * "bytes" may hold anything. Nothing else crosses the socket, so a session
 * that was taken over can only ask what is written here.
 *
 * On the wire: type (1 octet), then for each field name (1), length (2, big
 * endian), value, NUL. A message that does not parse to its last octet is
 * refused whole.
 */
#ifndef LIB_MESSAGE_H
#define LIB_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Room for a chain of certificates or a full SASL line, with all facts. */
#define MESSAGE_SIZE 49152

enum message_type {
	/* questions of a session */
	ASK_MECHANISMS = 1, /* what can be judged: -> ANSWER_MECHANISMS */
	ASK_VERDICT,	    /* METHOD and credentials: -> ANSWER_VERDICT */
	ASK_EXCHANGE,	    /* begin MECHANISM: -> _CHALLENGE or _VERDICT */
	ASK_STEP,	    /* RESPONSE: -> ANSWER_CHALLENGE or _VERDICT */
	/* ROLE, SERVER_NAME, KEY: -> ANSWER_CERTIFICATES */
	ASK_CERTIFICATES,
	/* ROLE, SERVER_NAME, KEY, SCHEME, DATA: -> ANSWER_SIGNATURE */
	ASK_SIGNATURE,
	ASK_TICKETS,	    /* keys of session tickets: -> ANSWER_TICKETS */
	ASK_PENALTY, /* AUTH where it is not offered: -> ANSWER_PENALTY */
	/* answers of a keeper */
	ANSWER_MECHANISMS,
	ANSWER_VERDICT,
	ANSWER_CHALLENGE,
	ANSWER_CERTIFICATES,
	ANSWER_SIGNATURE,
	ANSWER_TICKETS,
	ANSWER_PENALTY, /* it is counted; DELAY where the client must wait */
	ANSWER_FAILURE, /* the keeper could not: REASON says why */
	MESSAGE_TYPES
};

/* Adding a field is one row here; the name is used in traces and tests. */
#define MESSAGE_FIELDS(X)                                                      \
	/* facts of the session, with every question about credentials */      \
	X(SESSION) X(CLIENT_ADDR) X(CLIENT_PORT) X(CLIENT_HOST)                \
	X(LOCAL_ADDR) X(LOCAL_PORT) X(HELO) X(ATTEMPT)                         \
	X(TLS_PROTOCOL) X(TLS_CIPHER)                                          \
	/* the addresses of a PROXY header, believed or not; and the           \
	 * connection's own, where the facts above are the header's */         \
	X(PROXY_ADDR) X(PROXY_PORT) X(PROXY_LOCAL_ADDR) X(PROXY_LOCAL_PORT)    \
	X(REAL_ADDR) X(REAL_PORT) X(REAL_LOCAL_ADDR) X(REAL_LOCAL_PORT)        \
	/* of its certificate, when it was asked for: VERIFY as nginx has it, \
	 * CERTIFICATE in PEM */                                              \
	X(TLS_VERIFY) X(TLS_SUBJECT) X(TLS_ISSUER) X(TLS_SERIAL)               \
	X(TLS_FINGERPRINT) X(TLS_CERTIFICATE)                                  \
	/* the name in it, where it was verified */                            \
	X(CERTIFICATE_USER)                                                    \
	/* bytes: channel bindings (RFC 9266, RFC 5929 section 4) */           \
	X(BINDING_EXPORTER) X(BINDING_END_POINT)                               \
	/* credentials: METHOD is plain, cram-md5, external, xoauth2,          \
	 * oauthbearer or none; bytes in RESPONSE */                           \
	X(METHOD) X(MECHANISM) X(USER) X(PASSWORD) X(AUTHZID) X(SALT)          \
	X(MAIL_FROM) X(RCPT_TO) X(RESPONSE)                                    \
	/* a verdict: RESULT is accepted, denied or unavailable; bytes in      \
	 * CHALLENGE, which is the last word of an exchange here */            \
	X(RESULT) X(REASON) X(CODE) X(DELAY) X(BACKEND)                        \
	X(BACKEND_USER) X(BACKEND_PASSWORD) X(BACKEND_SSL) X(CHALLENGE)        \
	/* "on" where AUTH to BACKEND is part of the judgement */              \
	X(BACKEND_AUTH)                                                        \
	/* bytes: NAME=value NUL ..., for a relay program */                   \
	X(ENVIRONMENT)                                                         \
	/* lists of words: what the provider can do, and what it runs */       \
	X(CAN) X(MECHANISMS)                                                   \
	/* TLS: bytes in DATA, SIGNATURE and CHAIN (DER, each certificate     \
	 * preceded by its length in 3 octets, leaf first); the keys are the  \
	 * server's, with ROLE "client" those that are shown to backends */    \
	X(SERVER_NAME) X(ROLE) X(KEY) X(SCHEME) X(DATA) X(SIGNATURE) X(CHAIN) \
	X(STAPLE)                                                              \
	/* bytes: each key preceded by its length in one octet */              \
	X(TICKETS)

enum message_field {
#define X(name) M_##name,
	MESSAGE_FIELDS(X)
#undef X
	    MESSAGE_FIELD_COUNT
};

/* All octets zero at first: static, or initialised with {0}. */
struct message {
	enum message_type type;
	struct {
		uint16_t at;	/* of the value in bytes[]; 0: not there */
		uint16_t len;	/* without the NUL that follows it */
	} field[MESSAGE_FIELD_COUNT];
	size_t len;
	size_t used;   /* octets of bytes[] written since the last wipe */
	bool overflow; /* a put did not fit: message_send() refuses */
	unsigned char bytes[MESSAGE_SIZE];
};

/* Makes `m` an empty message of `type`. Does not wipe what it held before. */
void message_init(struct message *m, enum message_type type);

/* Makes it one of another type; its fields stay. */
void message_set_type(struct message *m, enum message_type type);

/*
 * Puts a field. A second put of the same field replaces the first. A `value`
 * of NULL puts nothing. What does not fit marks the message as overflowed.
 */
void message_put(struct message *m, enum message_field f, const char *value);
void message_put_bytes(
    struct message *m, enum message_field f, const void *value, size_t len);
void message_put_number(struct message *m, enum message_field f, uint64_t n);

/* A text field's value, NULL when it is not there. Lives as long as `m`. */
const char *message_get(const struct message *m, enum message_field f);

/* The same, "" when it is not there. */
const char *message_text(const struct message *m, enum message_field f);

/* A field's bytes and their number; NULL when it is not there. */
const void *message_get_bytes(
    const struct message *m, enum message_field f, size_t *len);

/*
 * A field read as a decimal number of at most `max`. `fallback` when it is not
 * there or is no such number.
 */
uint64_t message_get_number(const struct message *m, enum message_field f,
    uint64_t max, uint64_t fallback);

/*
 * Sends `m` as one packet by `deadline` (lib/clock.h).
 * Returns 0, or -1 with errno (EMSGSIZE: it had overflowed, ETIMEDOUT, ...).
 */
int message_send(int fd, const struct message *m, int64_t deadline);

/*
 * Receives one packet by `deadline` into `m`.
 * Returns 1; 0 at the end of the connection; -1 with errno: EBADMSG for a
 * packet that is not a message as described above, ETIMEDOUT.
 */
int message_receive(int fd, struct message *m, int64_t deadline);

/* Overwrites everything in `m`: it may have held a password or a key's work. */
void message_wipe(struct message *m);

#endif
