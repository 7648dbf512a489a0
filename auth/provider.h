/*
 * What judges credentials: one provider a module, loaded by a keeper alone. All
 * that a provider exports is one `const struct auth_provider auth_provider`.
 */
#ifndef AUTH_PROVIDER_H
#define AUTH_PROVIDER_H

#include <stdbool.h>
#include <stddef.h>

#include "config.h"
#include "lib/message.h"
#include "sasl_secret.h"

/* What a provider can do; only mechanisms that can succeed are offered. */
enum auth_can {
	AUTH_CAN_VERIFY = 1u << 0,    /* judge a user and a password */
	AUTH_CAN_SECRET = 1u << 1,    /* give a user's stored secret */
	AUTH_CAN_DIGEST = 1u << 2,    /* judge a CRAM-MD5 response itself */
	AUTH_CAN_AUTHORIZE = 1u << 3, /* judge EXTERNAL: a name without proof */
	AUTH_CAN_ROUTE = 1u << 4,     /* judge and route `none`: from and to */
	AUTH_CAN_TOKEN = 1u << 5,     /* judge a bearer token */
	AUTH_CAN_EXCHANGE = 1u << 6   /* own whole exchanges */
};

enum auth_result {
	AUTH_ACCEPTED,
	AUTH_DENIED,
	AUTH_UNAVAILABLE, /* nothing was judged: file gone, server away */
	AUTH_CHALLENGE	  /* of an exchange: M_CHALLENGE is for the client */
};

#define AUTH_ERROR_SIZE 256

struct auth_provider {
	const char *scheme; /* of auth_provider's value, without ':' */
	unsigned can;	    /* enum auth_can */

	/*
	 * Opens the provider for the whole value of the directive
	 * ("file:/etc/…", "https://…"). NULL with a line in `err`
	 * (AUTH_ERROR_SIZE octets).
	 */
	void *(*open)(
	    const char *value, const struct config *conf, char *err);
	void (*close)(void *provider);

	/*
	 * Judges M_METHOD with M_USER and M_PASSWORD (plain), M_SALT too
	 * (cram-md5), M_USER (external), a token as M_PASSWORD and the M_USER
	 * that the client names, if any (xoauth2, oauthbearer), M_MAIL_FROM and
	 * M_RCPT_TO (none), in the light of the facts. Puts into `verdict`,
	 * which is empty:
	 *   M_USER (the login name to use), M_REASON (one line, for the log
	 *   and, with M_CODE as "535 5.7.8", for the client), M_DELAY (ms to
	 *   wait before the answer), M_BACKEND (host:port, [v6]:port or
	 *   unix:/path), M_BACKEND_USER, M_BACKEND_PASSWORD; M_BACKEND_SSL, in
	 *   place of proxy_ssl and proxy_ssl_verify ("off", "on" or "starttls",
	 *   and "verify" or "any-cert"); M_BACKEND_AUTH ("on") where the backend
	 *   has the last word on the password, which is given to it in any case;
	 *   M_ENVIRONMENT (for a relay program: variables that can do no harm,
	 *   for they are set as they are).
	 * M_REASON without M_CODE is for the log alone.
	 * Blocking, by its own deadline. Must not keep or log a password.
	 */
	enum auth_result (*judge)(void *provider,
	    const struct message *question, struct message *verdict);

	/*
	 * AUTH_CAN_SECRET: what `user` has stored into `stored`: the secret
	 * itself, or keys of the scheme `keys` ("SCRAM-SHA-256"; NULL: no keys
	 * will do). AUTH_DENIED for an unknown user or one whose secret is
	 * stored otherwise: then `stored` is another's, always the same one's
	 * for that name, for the time and the look of it, or empty;
	 * AUTH_UNAVAILABLE. When accepted, M_BACKEND may be put into `verdict`.
	 */
	enum auth_result (*secret)(void *provider, const char *user,
	    const char *keys, struct sasl_stored *stored,
	    struct message *verdict);

	/*
	 * AUTH_CAN_EXCHANGE: the SASL mechanisms that the provider runs itself,
	 * or has judged by judge(), in upper case, separated by blanks. 0, or
	 * -1 when it cannot tell now.
	 */
	int (*mechanisms)(void *provider, char *names, size_t size);

	/*
	 * AUTH_CAN_EXCHANGE: one step of an exchange. At the first *exchange is
	 * NULL, `question` names M_MECHANISM and has the facts, and M_RESPONSE
	 * (bytes) where there was an initial response; the provider makes
	 * *exchange what it likes. Every further step has M_RESPONSE. At
	 * AUTH_CHALLENGE the bytes of M_CHALLENGE are in `verdict`; other
	 * results end the exchange, with what judge() puts into `verdict`.
	 * Between two steps nothing waits: the client takes its time, and
	 * steps of one exchange may come on different threads.
	 */
	enum auth_result (*exchange)(void *provider, void **exchange,
	    const struct message *question, struct message *verdict);
	/*
	 * Ends one, over or not, on whatever thread; `exchange` NULL is
	 * allowed. A provider that runs exchanges runs all that it is asked
	 * for: one that it does not know is denied. Where it accepts it names
	 * the user (M_USER), and M_CHALLENGE, if it is there, is the last word
	 * to the client (RFC 4954 section 4).
	 */
	void (*exchange_free)(void *provider, void *exchange);
};

#endif
