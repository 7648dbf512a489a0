/*
 * TLS, by OpenSSL, in a module of its own (tls.so): a table of functions that
 * tls_load() finds. Everything that includes <openssl/ssl.h> is behind it.
 *
 * The process that talks to the client never has a private key. It asks for
 * certificates and signatures through the two functions of struct tls_keyring;
 * the session fills them with questions to its keeper, and the keeper answers
 * with keys_load() and sign() of the same module.
 */
#ifndef LIB_TLS_H
#define LIB_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ticket.h"

struct tls;	   /* one connection */
struct tls_server; /* what all connections of a process share */
struct tls_connector; /* the same for connections to servers */
struct tls_keys;   /* private keys and their certificates, in a keeper */

#define TLS_MAX_KEYS	   4
#define TLS_MAX_SIGNATURE  1024
#define TLS_MAX_CHAIN	   20000
#define TLS_MAX_STAPLE	   8192
#define TLS_MAX_NAME	   256 /* of a host, with its NUL */
#define TLS_MAX_BINDING	   64
#define TLS_ERROR_SIZE	   256
#define TLS_MAX_TLSA	   512 /* octets of a record's data */

/* Which side of a handshake a directive, or a key, is for. */
enum tls_role {
	TLS_ROLE_SERVER,
	TLS_ROLE_CLIENT
};

/* Of what a client's certificate says; what is longer is left out. */
#define TLS_NAME_SIZE	     1024
#define TLS_IDENTITY_SIZE    256
#define TLS_CERTIFICATE_SIZE 12288

/* The kinds of signature, named as TLS 1.3 names them (RFC 8446 4.2.3). */
enum tls_scheme {
	TLS_RSA_PKCS1_SHA256 = 0x0401,
	TLS_RSA_PKCS1_SHA384 = 0x0501,
	TLS_RSA_PKCS1_SHA512 = 0x0601,
	TLS_ECDSA_SHA256 = 0x0403,
	TLS_ECDSA_SHA384 = 0x0503,
	TLS_ECDSA_SHA512 = 0x0603,
	TLS_RSA_PSS_SHA256 = 0x0804,
	TLS_RSA_PSS_SHA384 = 0x0805,
	TLS_RSA_PSS_SHA512 = 0x0806,
	TLS_ED25519 = 0x0807
};

/* nginx's ssl_verify_client: whether clients are asked for a certificate. */
enum tls_verify {
	TLS_VERIFY_OFF,
	TLS_VERIFY_ON,	     /* and must have one */
	TLS_VERIFY_OPTIONAL, /* and one that they have must be good */
	TLS_VERIFY_OPTIONAL_NO_CA /* the same, but its CA may be unknown */
};

/*
 * nginx's ssl_* directives, for a client its proxy_ssl_* ones, as text; "" or
 * NULL for OpenSSL's default.
 */
struct tls_settings {
	enum tls_role role;
	const char *protocols; /* "TLSv1.2 TLSv1.3" */
	const char *ciphers;   /* OpenSSL's list for TLS 1.2 */
	const char *ecdh_curve; /* "auto" or a list as X25519:prime256v1 */
	bool prefer_server_ciphers;
	/* Commands of OpenSSL's configuration, "Name value" each. */
	char *const *commands;
	size_t command_count;
	/* A server's alone. */
	const char *dhparam; /* PEM file; without it there is no DHE */
	bool names; /* the keyring has other certificates for some names */
	enum tls_verify verify;
	unsigned verify_depth;
	const char *client_certificate; /* PEM file: CAs that clients are told */
	/* PEM file of CAs; a client's may be a directory of hashed names. */
	const char *trusted_certificate;
	const char *crl; /* PEM file of revocation lists */
};

/* A TLSA record (RFC 6698 section 2.1). */
struct tls_tlsa {
	uint8_t usage, selector, matching;
	size_t len;
	unsigned char data[TLS_MAX_TLSA];
};

/* Whom a client means to reach. */
struct tls_peer {
	const char *name; /* of a host, or its address; "": there is none */
	bool verify;	  /* its certificate, and that it is for that name */
	/*
	 * Its TLSA records, from an answer that was validated. If one of them
	 * is usable, they decide and `verify` does not.
	 */
	const struct tls_tlsa *tlsa;
	size_t tlsa_count;
};

/* Certificates of a key, as they go from the keeper to the session. */
struct tls_chain {
	/* DER, each preceded by its length in 3 octets, leaf first */
	size_t len;
	unsigned char bytes[TLS_MAX_CHAIN];
	size_t staple_len; /* 0: none; an OCSP response in DER */
	unsigned char staple[TLS_MAX_STAPLE];
};

/* Where either side finds what only the keeper has. */
struct tls_keyring {
	void *arg;
	/*
	 * Fills `chain` for key number `key` of `name`, the server's that the
	 * client asks for; "": of those that serve any other. 1; 0 when there
	 * is no such key; -1 when the keeper failed.
	 */
	int (*certificates)(void *arg, const char *name, unsigned key,
	    struct tls_chain *chain);
	/*
	 * Signs the `len` octets of `data` (not their hash). The length of the
	 * signature, or -1.
	 */
	ssize_t (*sign)(void *arg, const char *name, unsigned key,
	    enum tls_scheme scheme, const void *data, size_t len,
	    unsigned char *sig, size_t size);
};

/* A keeper's files; of NULL or "" there are none. */
struct tls_key_files {
	char *const *certificates, *const *keys;
	size_t count;
	const char *passwords;
	char *const *staples; /* of the first certificates */
	size_t staple_count;
	const char *directory; /* nginx has none: ssl_sni_directory */
	bool all; /* of the directory are loaded now, not when asked for */
};

enum tls_want {
	TLS_DONE,
	TLS_WANT_READ,
	TLS_WANT_WRITE,
	TLS_END,   /* the peer sent close_notify, or its FIN */
	TLS_ERROR  /* error() says why */
};

enum tls_client_state {
	TLS_CLIENT_NONE,     /* it showed no certificate */
	TLS_CLIENT_VERIFIED,
	TLS_CLIENT_NO_CA, /* good but for its CA, which nobody knows */
	TLS_CLIENT_BAD
};

/* Where in a certificate it says who the client is. */
enum tls_identity {
	TLS_SUBJECT_CN,
	TLS_SAN_EMAIL, /* an rfc822Name */
	TLS_SAN_UPN,   /* Microsoft's User Principal Name, an otherName */
	TLS_FINGERPRINT, /* SHA-256, in hexadecimal */
	TLS_IDENTITIES
};

/* A client that was asked for its certificate; "" for what is not known. */
struct tls_client {
	enum tls_client_state state;
	/* nginx's words: NONE, SUCCESS, or FAILED: and OpenSSL's reason */
	char verify[128];
	char subject[TLS_NAME_SIZE], issuer[TLS_NAME_SIZE]; /* RFC 2253 */
	char serial[128];	/* hexadecimal */
	char fingerprint[41];	/* SHA-1, hexadecimal, as nginx has it */
	char certificate[TLS_CERTIFICATE_SIZE]; /* PEM */
	/* Where there is exactly one; UTF-8 without control characters. */
	char identity[TLS_IDENTITIES][TLS_IDENTITY_SIZE];
};

struct tls_facts {
	const char *protocol;	 /* "TLSv1.3" */
	const char *cipher;	 /* "TLS_AES_256_GCM_SHA384" */
	const char *group;	 /* of the key exchange: "x25519"; NULL: none */
	const char *server_name; /* what the client asked for; "" for nothing */
	/* of a server, by what: "pkix", "dane-ta", "dane-ee", or "off" */
	const char *verified;
	const char *alpn; /* what was agreed on: "smtp", or "" */
	bool resumed;
	const struct tls_client *client; /* NULL: it was not asked */
};

struct tls_api {
	/*
	 * Server side, once a process. server_new() makes what needs no
	 * certificate and may be called before a fork; server_keys() asks the
	 * keyring for the certificates, which must be called before accept().
	 * NULL or -1 with a line in `err` (TLS_ERROR_SIZE octets).
	 */
	struct tls_server *(*server_new)(
	    const struct tls_settings *settings, char *err);
	int (*server_keys)(struct tls_server *server,
	    const struct tls_keyring *keyring, char *err);
	/*
	 * Makes a handshake with itself, so that what OpenSSL makes at the
	 * first one is made before a fork, and the keys are known to work.
	 */
	int (*server_warm_up)(struct tls_server *server, char *err);
	/*
	 * Session tickets are sealed and opened with `keys`, which must outlive
	 * the server and may change meanwhile, for `lifetime` seconds. Without
	 * this there are none. 0, or -1 with a line in `err`.
	 */
	int (*server_tickets)(struct tls_server *server,
	    const struct ticket_keys *keys, int64_t lifetime, char *err);
	void (*server_free)(struct tls_server *server);

	/* A connection that has yet to be handshaken; NULL without memory. */
	struct tls *(*accept)(struct tls_server *server, int rfd, int wfd);

	/*
	 * Client side, once a process: trusted certificates and the list of
	 * revoked ones are read, but for those of a directory, which are read
	 * as they are needed. connector_keys() asks the keyring for certificates
	 * to show to servers that want one; without it they get none.
	 */
	struct tls_connector *(*connector_new)(
	    const struct tls_settings *settings, char *err);
	int (*connector_keys)(struct tls_connector *connector,
	    const struct tls_keyring *keyring, char *err);
	void (*connector_free)(struct tls_connector *connector);
	/*
	 * A connection over the socket `fd` that has yet to be handshaken; its
	 * handshake fails where the peer cannot be verified as `peer` wants
	 * it. NULL with a line in `err`.
	 */
	struct tls *(*connect)(struct tls_connector *connector,
	    const struct tls_peer *peer, int fd, char *err);

	/* None of these waits. read() and write() set *moved on TLS_DONE. */
	enum tls_want (*handshake)(struct tls *tls);
	enum tls_want (*read)(
	    struct tls *tls, void *buf, size_t len, size_t *moved);
	enum tls_want (*write)(
	    struct tls *tls, const void *buf, size_t len, size_t *moved);
	/* Whether read() may have something without the socket having it. */
	bool (*pending)(const struct tls *tls);
	/* Sends close_notify, does not wait for the peer's. */
	void (*shutdown)(struct tls *tls);
	void (*free)(struct tls *tls);

	/* After the handshake; lives as long as `tls`. */
	const struct tls_facts *(*facts)(const struct tls *tls);
	/*
	 * After the handshake: the channel binding of `type`, tls-exporter
	 * (RFC 9266) or tls-server-end-point (RFC 5929), at most
	 * TLS_MAX_BINDING octets. The length, or -1: there is none.
	 */
	ssize_t (*binding)(
	    struct tls *tls, const char *type, unsigned char *out, size_t size);
	/* Why the last call failed; "" if none did. */
	const char *(*error)(const struct tls *tls);

	/*
	 * Keeper side. The keys are for one role, whose directives errors
	 * name. At most TLS_MAX_KEYS PEM files, key i belonging to the chain
	 * i; `passwords` holds passphrases, a line each, all tried for each
	 * key (nginx's ssl_password_file). A key that does not belong to its
	 * certificate, and one that others than owner and group may read, are
	 * errors.
	 */
	struct tls_keys *(*keys_load)(
	    enum tls_role role, const struct tls_key_files *files, char *err);
	void (*keys_free)(struct tls_keys *keys);
	/* 1; 0 when there is no such key; -1 with a line in `err`. */
	int (*keys_certificates)(const struct tls_keys *keys, const char *name,
	    unsigned key, struct tls_chain *chain, char *err);
	/*
	 * Signs only what TLS gives the keys' role to sign (RFC 8446 section
	 * 4.4.3 for TLS 1.3; for 1.2 a server's RFC 8422 section 5.4 and RFC
	 * 5246 section 7.4.3, a client's RFC 5246 section 7.4.8), so that the
	 * key is no oracle for another protocol, nor for the other role.
	 */
	ssize_t (*keys_sign)(const struct tls_keys *keys, const char *name,
	    unsigned key, enum tls_scheme scheme, const void *data, size_t len,
	    unsigned char *sig, size_t size);
};

/*
 * The module's table, loaded at the first call; NULL with a line in `err`
 * (TLS_ERROR_SIZE octets). OpenSSL is initialised by the first call of
 * server_new(), connector_new() or keys_load(), not by this.
 */
const struct tls_api *tls_load(char *err);

#endif
