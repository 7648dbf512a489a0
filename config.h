/*
 * The directives: one table (config_table.c) from which arguments, the
 * environment, --config files, --help and --check are all made. struct config
 * is what the rest of the program reads; it does not change once loaded.
 */
#ifndef CONFIG_H
#define CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "lib/log.h"
#include "lib/tls.h"

/* Bits of smtp_auth; sasl.c has rows for each but `none`. */
enum config_auth {
	CONFIG_AUTH_PLAIN = 1u << 0,
	CONFIG_AUTH_LOGIN = 1u << 1,
	CONFIG_AUTH_CRAM_MD5 = 1u << 2,
	CONFIG_AUTH_EXTERNAL = 1u << 3,
	CONFIG_AUTH_NONE = 1u << 4, /* authentication is not required */
	CONFIG_AUTH_SCRAM_SHA_1 = 1u << 5, /* with its -PLUS form */
	CONFIG_AUTH_SCRAM_SHA_256 = 1u << 6,
	CONFIG_AUTH_XOAUTH2 = 1u << 7,
	CONFIG_AUTH_OAUTHBEARER = 1u << 8
};

/* Bits of socket: what an inherited one, or one that was accepted, is. */
enum config_socket {
	CONFIG_SOCKET_SSL = 1u << 0,  /* TLS from the first byte */
	CONFIG_SOCKET_PROXY = 1u << 1 /* a PROXY protocol header comes first */
};

enum config_starttls {
	CONFIG_STARTTLS_OFF,
	CONFIG_STARTTLS_ON,
	CONFIG_STARTTLS_ONLY
};

enum config_xclient {
	CONFIG_XCLIENT_OFF,
	CONFIG_XCLIENT_ON,  /* refuse a backend that does not offer it */
	CONFIG_XCLIENT_AUTO /* when the backend offers it */
};

enum config_proxy_ssl {
	CONFIG_PROXY_SSL_OFF,
	CONFIG_PROXY_SSL_ON,	  /* from the first byte */
	CONFIG_PROXY_SSL_STARTTLS /* nothing is said before it but EHLO */
};

/* What is not said is decided by what is met. */
enum config_decision {
	CONFIG_NO,
	CONFIG_YES,
	CONFIG_AUTO
};

enum config_proxy_protocol {
	CONFIG_PROXY_PROTOCOL_OFF,
	CONFIG_PROXY_PROTOCOL_ON, /* version 1 */
	CONFIG_PROXY_PROTOCOL_V2
};

enum config_relay_at {
	CONFIG_RELAY_AT_AUTH,
	CONFIG_RELAY_AT_GREETING
};

/* The third field that checkpassword is given is for CRAM-MD5: their order. */
enum config_checkpassword_cram {
	CONFIG_CHALLENGE_RESPONSE,
	CONFIG_RESPONSE_CHALLENGE
};

/* The command of auth_provider checkpassword: its words, and one of them. */
#define CONFIG_WORDS_MAX 32
#define CONFIG_WORD_SIZE 256

/* A directive that is a list: its words, in order. */
struct config_list {
	char **word;
	size_t count;
};

struct config {
	/* the dialogue */
	const char *server_name; /* never empty: the host's name by default */
	unsigned smtp_auth;	 /* enum config_auth */
	bool smtp_auth_unlisted; /* PLAIN and LOGIN accepted when not listed */
	struct config_list smtp_capabilities; /* lines of the EHLO reply */
	size_t smtp_client_buffer;	      /* octets */
	int64_t smtp_greeting_delay;	      /* ms */
	int64_t timeout;		      /* ms, a command */
	unsigned max_errors;
	unsigned max_auth_attempts;
	/* who is there */
	struct config_list set_real_ip_from; /* networks, or unix: */
	const char *resolver; /* servers, or "system"; "" is off */
	int64_t resolver_timeout;
	unsigned socket; /* enum config_socket */
	/* TLS */
	enum config_starttls starttls;
	struct config_list ssl_certificate;	/* paths */
	struct config_list ssl_certificate_key; /* as many, in this order */
	const char *ssl_password_file;
	const char *ssl_protocols;
	const char *ssl_ciphers;
	const char *ssl_ecdh_curve;
	bool ssl_prefer_server_ciphers;
	const char *ssl_dhparam;
	struct config_list ssl_conf_command; /* "Name value" each */
	struct config_list ssl_stapling_file; /* of the first certificates */
	const char *ssl_sni_directory;
	bool ssl_session_tickets;
	struct config_list ssl_session_ticket_key; /* paths; first encrypts */
	int64_t ssl_session_timeout;		   /* ms */
	/* certificates of clients */
	enum tls_verify ssl_verify_client;
	const char *ssl_client_certificate; /* paths; "" for none */
	const char *ssl_trusted_certificate;
	const char *ssl_crl;
	unsigned ssl_verify_depth;
	enum tls_identity ssl_identity;
	/* credentials */
	const char *auth_provider; /* "" for none */
	bool auth_external_authzid; /* it must match; else it is ignored */
	bool auth_external_implicit; /* at MAIL, without AUTH */
	struct config_list auth_http_header; /* "Name: value" each */
	bool auth_http_pass_client_cert;
	int64_t auth_timeout; /* ms */
	bool auth_penalty;
	struct config_list auth_penalty_exempt; /* networks */
	enum config_checkpassword_cram checkpassword_cram;
	const char *oauth2_client_file; /* "" for none */
	const char *oauth2_user_claim;
	const char *oauth2_scope; /* words; "" for none */
	const char *scram_secret_file; /* "": the machine's id */
	/* upstream */
	struct config_list backend; /* host:port, [v6]:port, unix:/path */
	enum config_proxy_protocol proxy_protocol;
	enum config_xclient xclient;
	bool proxy_smtp_auth;
	bool proxy_pass_error_message;
	int64_t proxy_connect_timeout;
	int64_t proxy_timeout;
	size_t proxy_buffer;
	enum config_proxy_ssl proxy_ssl;
	enum config_decision proxy_ssl_verify; /* auto: not of this host */
	enum config_decision proxy_ssl_dane; /* auto: with a resolver here */
	const char *proxy_ssl_name; /* "": the backend's own */
	const char *proxy_ssl_trusted_certificate;
	const char *proxy_ssl_crl;
	struct config_list proxy_ssl_certificate;	  /* paths */
	struct config_list proxy_ssl_certificate_key; /* as many */
	const char *proxy_ssl_protocols;
	const char *proxy_ssl_ciphers;
	enum config_relay_at relay_at;
	char **relay; /* the program after "--" and its arguments; or NULL */
	/* a listener, or the keeper that lives on */
	struct config_list listen;  /* "ADDR:PORT [ssl] [backlog=N]" */
	unsigned max_connections;
	unsigned max_connections_per_source;
	int64_t shutdown_timeout;
	const char *keeper_socket; /* of the keeper to ask; "": a private one */
	unsigned keeper_workers;
	const char *runtime_directory; /* what processes share; "": nothing */
	const char *status_file, *metrics_file; /* "" for none */
	/* the process */
	const char *user; /* "" for none */
	enum log_target log;
	/* what was asked for instead of a session */
	bool check, help, version, keeper, status;
};

/* Outcomes, as exit statuses (sysexits.h). */
enum config_result {
	CONFIG_OK = 0,
	CONFIG_USAGE = 64, /* a bad argument */
	CONFIG_BAD = 78	   /* a bad value, file or contradiction */
};

/*
 * Loads the directives from the defaults, the --config file, the environment
 * and the arguments, later ones winning, into `conf`.
 * On failure one line is in `err` (CONFIG_ERROR_SIZE octets) naming the
 * directive, the value and where it came from. Memory is kept until exit.
 */
#define CONFIG_ERROR_SIZE 1024
enum config_result config_load(
    struct config *conf, int argc, char **argv, char *err);

/*
 * Whether the listen in effect was given as an argument, and so is meant for
 * this very process: a file may serve others, too.
 */
bool config_listen_is_argument(void);

/* --help: the directives in groups, with their defaults. */
void config_print_help(FILE *out);

/*
 * --check: every effective value in the form of a --config file, each with a
 * comment line that says where it came from. Then the unsafe settings, a
 * "# warning: ..." line each (SECURITY CONSIDERATIONS in the manual).
 */
void config_print_check(const struct config *conf, FILE *out);

/* Unknown SMTP_... variables in the environment: names, for a log line each. */
size_t config_unknown_count(void);
const char *config_unknown(size_t i);

#endif
