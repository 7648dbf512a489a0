/*
 * The table of directives: a row each, from which arguments, variables, files,
 * --help and --check all follow, and how a row is found by what it is called.
 * The table says what may be set; it knows no value.
 */
#include <string.h>

#include "config_table.h"

/* The groups of the rows, in --help's order. */
static const char dialogue[] = "The dialogue with the client";
static const char peer[] = "Who the client is";
static const char tls[] = "TLS";
static const char credentials[] = "Who judges credentials";
static const char upstream[] = "The mail server or program behind";
static const char upstream_tls[] = "TLS towards the mail server";
static const char listener[] = "A listener, and the keeper that lives on";
static const char process[] = "The process";

static const struct word words_switch[] = {{"off", 0}, {"on", 1}, {NULL, 0}};

static const struct word words_auth[] = {
    {"plain", CONFIG_AUTH_PLAIN},
    {"login", CONFIG_AUTH_LOGIN},
    {"cram-md5", CONFIG_AUTH_CRAM_MD5},
    {"external", CONFIG_AUTH_EXTERNAL},
    {"none", CONFIG_AUTH_NONE},
    {"scram-sha-1", CONFIG_AUTH_SCRAM_SHA_1},
    {"scram-sha-256", CONFIG_AUTH_SCRAM_SHA_256},
    {"xoauth2", CONFIG_AUTH_XOAUTH2},
    {"oauthbearer", CONFIG_AUTH_OAUTHBEARER},
    {NULL, 0},
};

static const struct word words_socket[] = {
    {"ssl", CONFIG_SOCKET_SSL},
    {"proxy_protocol", CONFIG_SOCKET_PROXY},
    {NULL, 0},
};

static const struct word words_starttls[] = {
    {"off", CONFIG_STARTTLS_OFF},
    {"on", CONFIG_STARTTLS_ON},
    {"only", CONFIG_STARTTLS_ONLY},
    {NULL, 0},
};

static const struct word words_verify[] = {
    {"off", TLS_VERIFY_OFF},
    {"on", TLS_VERIFY_ON},
    {"optional", TLS_VERIFY_OPTIONAL},
    {"optional_no_ca", TLS_VERIFY_OPTIONAL_NO_CA},
    {NULL, 0},
};

static const struct word words_proxy_protocol[] = {
    {"off", CONFIG_PROXY_PROTOCOL_OFF},
    {"on", CONFIG_PROXY_PROTOCOL_ON},
    {"v2", CONFIG_PROXY_PROTOCOL_V2},
    {NULL, 0},
};

static const struct word words_authzid[] = {
    {"match", true}, {"ignore", false}, {NULL, 0}};

static const struct word words_identity[] = {
    {"subject_cn", TLS_SUBJECT_CN},
    {"san_email", TLS_SAN_EMAIL},
    {"san_upn", TLS_SAN_UPN},
    {"fingerprint", TLS_FINGERPRINT},
    {NULL, 0},
};

static const struct word words_xclient[] = {
    {"off", CONFIG_XCLIENT_OFF},
    {"on", CONFIG_XCLIENT_ON},
    {"auto", CONFIG_XCLIENT_AUTO},
    {NULL, 0},
};

static const struct word words_proxy_ssl[] = {
    {"off", CONFIG_PROXY_SSL_OFF},
    {"on", CONFIG_PROXY_SSL_ON},
    {"starttls", CONFIG_PROXY_SSL_STARTTLS},
    {NULL, 0},
};

static const struct word words_decision[] = {
    {"auto", CONFIG_AUTO},
    {"on", CONFIG_YES},
    {"off", CONFIG_NO},
    {NULL, 0},
};

static const struct word words_checkpassword_cram[] = {
    {"challenge_response", CONFIG_CHALLENGE_RESPONSE},
    {"response_challenge", CONFIG_RESPONSE_CHALLENGE},
    {NULL, 0},
};

static const struct word words_relay_at[] = {
    {"auth", CONFIG_RELAY_AT_AUTH},
    {"greeting", CONFIG_RELAY_AT_GREETING},
    {NULL, 0},
};

static const struct word words_log[] = {
    {"auto", LOG_TO_AUTO},
    {"journal", LOG_TO_JOURNAL},
    {"syslog", LOG_TO_SYSLOG},
    {"stderr", LOG_TO_STDERR},
    {NULL, 0},
};

#define FIELD(f)                              \
	.offset = offsetof(struct config, f), \
	.size = sizeof(((struct config *)0)->f)
#define SWITCH .wants = "must be on or off", .words = words_switch
#define DECISION                            \
	.wants = "must be auto, on or off", \
	.words = words_decision, .fallback = "auto"
/* poll(2) counts milliseconds in an int: 24 days and a little. */
#define DAYS_24 ((uint64_t)24 * 86400 * 1000)
#define TIMEOUT                                                               \
	.wants = "must be a time from 1ms to 24d, such as 500ms, 60s or 15m", \
	.min = 1, .max = DAYS_24
#define COUNT \
	.wants = "must be a number from 1 to 1000000", .min = 1, .max = 1000000

const struct directive config_table_rows[] = {
    {"server_name", dialogue, "NAME", "the name to greet with",
	&config_types_text, FIELD(server_name), .fallback = "(the host's name)",
	.clean = config_clean_server_name},
    {"smtp_auth", dialogue, "WORDS",
	"mechanisms to offer, of: plain login cram-md5 external\n"
	"scram-sha-1 scram-sha-256 xoauth2 oauthbearer, and none:\n"
	"authentication is not required",
	&config_types_set, FIELD(smtp_auth), .fallback = "plain login",
	.wants = "must be words of: plain login cram-md5 external none "
		 "scram-sha-1 scram-sha-256 xoauth2 oauthbearer",
	.words = words_auth},
    {"smtp_auth_unlisted", dialogue, "on|off",
	"take PLAIN and LOGIN even where smtp_auth does not list them",
	&config_types_word, FIELD(smtp_auth_unlisted), .fallback = "on",
	SWITCH},
    {"smtp_capabilities", dialogue, "LINE...",
	"lines of the EHLO reply, as they stand and in this order;\n"
	"AUTH and STARTTLS are added by the program",
	&config_types_list, FIELD(smtp_capabilities), .fallback = "",
	.clean = config_clean_capability},
    {"smtp_client_buffer", dialogue, "SIZE",
	"the longest command line that is read", &config_types_size,
	FIELD(smtp_client_buffer), .fallback = "(one page)",
	.wants = "must be a size from 128 to 1m, such as 512, 4k or 1m",
	.min = 128, .max = 1 << 20},
    {"smtp_greeting_delay", dialogue, "TIME",
	"wait before the greeting, and refuse whoever talks meanwhile",
	&config_types_time, FIELD(smtp_greeting_delay), .fallback = "0",
	.wants = "must be a time of at most 24d, such as 0, 500ms or 5s",
	.max = DAYS_24},
    {"timeout", dialogue, "TIME", "how long the client may take for a command",
	&config_types_time, FIELD(timeout), .fallback = "60s", TIMEOUT},
    {"max_errors", dialogue, "NUMBER",
	"refused commands after which the session ends", &config_types_number,
	FIELD(max_errors), .fallback = "5", COUNT},
    {"max_auth_attempts", dialogue, "NUMBER",
	"failed authentications after which the session ends",
	&config_types_number, FIELD(max_auth_attempts), .fallback = "5", COUNT},

    {"socket", peer, "WORDS",
	"what the inherited socket is: ssl, if TLS begins at once;\n"
	"proxy_protocol, if a PROXY header comes before all else",
	&config_types_set, FIELD(socket), .fallback = "",
	.wants = "must be words of: ssl proxy_protocol", .words = words_socket},
    {"set_real_ip_from", peer, "NETWORK...",
	"proxies whose PROXY header says who the client is: addresses,\n"
	"networks as 192.0.2.0/24 and 2001:db8::/32, or unix:",
	&config_types_list, FIELD(set_real_ip_from), .fallback = "",
	.clean = config_clean_network},
    {"resolver", peer, "ADDRESSES",
	"name servers that are asked for the client's name, each with :port\n"
	"if need be; system: the system's; off: nobody is asked",
	&config_types_text, FIELD(resolver), .fallback = "",
	.clean = config_clean_resolver},
    {"resolver_timeout", peer, "TIME",
	"how long the client's name may take to be found", &config_types_time,
	FIELD(resolver_timeout), .fallback = "30s", TIMEOUT},

    {"starttls", tls, "off|on|only",
	"offer STARTTLS; only: refuse AUTH and MAIL before it",
	&config_types_word, FIELD(starttls), .fallback = "off",
	.wants = "must be off, on or only", .words = words_starttls},
    {"ssl_certificate", tls, "FILE...",
	"PEM files of certificate chains, at most 4 (as RSA and ECDSA)",
	&config_types_list, FIELD(ssl_certificate), .fallback = ""},
    {"ssl_certificate_key", tls, "FILE...",
	"PEM files of their private keys, in the same order",
	&config_types_list, FIELD(ssl_certificate_key), .fallback = ""},
    {"ssl_password_file", tls, "FILE",
	"passphrases of the keys, one a line; all are tried",
	&config_types_text, FIELD(ssl_password_file), .fallback = ""},
    {"ssl_protocols", tls, "WORDS",
	"versions, of: TLSv1 TLSv1.1 TLSv1.2 TLSv1.3", &config_types_text,
	FIELD(ssl_protocols), .fallback = "TLSv1.2 TLSv1.3",
	.clean = config_clean_protocols},
    {"ssl_ciphers", tls, "LIST",
	"ciphers of TLS 1.2, as openssl ciphers takes them", &config_types_text,
	FIELD(ssl_ciphers), .fallback = ""},
    {"ssl_ecdh_curve", tls, "LIST",
	"curves, as X25519:prime256v1; auto: OpenSSL's", &config_types_text,
	FIELD(ssl_ecdh_curve), .fallback = "auto"},
    {"ssl_prefer_server_ciphers", tls, "on|off",
	"the order of ssl_ciphers before the client's", &config_types_word,
	FIELD(ssl_prefer_server_ciphers), .fallback = "off", SWITCH},
    {"ssl_dhparam", tls, "FILE",
	"parameters for DHE in PEM; without them there is no DHE in TLS 1.2",
	&config_types_text, FIELD(ssl_dhparam), .fallback = "",
	.clean = config_clean_path},
    {"ssl_conf_command", tls, "COMMAND...",
	"commands of OpenSSL's configuration: \"Options -SessionTicket\",\n"
	"\"Ciphersuites TLS_AES_128_GCM_SHA256\"",
	&config_types_list, FIELD(ssl_conf_command), .fallback = "",
	.clean = config_clean_command},
    {"ssl_stapling_file", tls, "FILE...",
	"OCSP responses in DER to send with the first of ssl_certificate",
	&config_types_list, FIELD(ssl_stapling_file), .fallback = ""},
    {"ssl_sni_directory", tls, "PATH",
	"NAME.pem, or NAME/fullchain.pem and privkey.pem, for clients that ask\n"
	"for a server of that name; *.NAME stands for all with one label more",
	&config_types_text, FIELD(ssl_sni_directory), .fallback = "",
	.clean = config_clean_path},
    {"ssl_session_tickets", tls, "on|off",
	"let a client's next session begin where this one ended",
	&config_types_word, FIELD(ssl_session_tickets), .fallback = "on",
	SWITCH},
    {"ssl_session_ticket_key", tls, "FILE...",
	"keys for that, of 48 or 80 random octets, shared by hosts: the first\n"
	"encrypts, all decrypt; without any, they are made and rotated",
	&config_types_list, FIELD(ssl_session_ticket_key), .fallback = ""},
    {"ssl_session_timeout", tls, "TIME",
	"how long a ticket is good, and a key that was made encrypts",
	&config_types_time, FIELD(ssl_session_timeout), .fallback = "5m",
	.wants = "must be a time from 1s to 7d, such as 5m or 1h", .min = 1000,
	.max = (uint64_t)7 * 86400 * 1000},
    {"ssl_verify_client", tls, "off|on|optional|optional_no_ca",
	"ask clients for a certificate; on: refuse those without one;\n"
	"optional_no_ca: take those whose CA is not known",
	&config_types_word, FIELD(ssl_verify_client), .fallback = "off",
	.wants = "must be off, on, optional or optional_no_ca",
	.words = words_verify},
    {"ssl_client_certificate", tls, "FILE",
	"PEM file of the CAs that sign them, whose names clients are told",
	&config_types_text, FIELD(ssl_client_certificate), .fallback = ""},
    {"ssl_trusted_certificate", tls, "FILE",
	"PEM file of further CAs, whose names they are not told",
	&config_types_text, FIELD(ssl_trusted_certificate), .fallback = ""},
    {"ssl_crl", tls, "FILE",
	"PEM file of the revocation lists of all these CAs", &config_types_text,
	FIELD(ssl_crl), .fallback = ""},
    {"ssl_verify_depth", tls, "NUMBER",
	"CAs between a client's certificate and one that is trusted",
	&config_types_number, FIELD(ssl_verify_depth), .fallback = "1",
	.wants = "must be a number from 0 to 100", .max = 100},
    {"ssl_identity", tls, "subject_cn|san_email|san_upn|fingerprint",
	"where a client's certificate has the login name, for EXTERNAL",
	&config_types_word, FIELD(ssl_identity), .fallback = "subject_cn",
	.wants = "must be subject_cn, san_email, san_upn or fingerprint",
	.words = words_identity},

    {"auth_provider", credentials, "PROVIDER",
	"what judges credentials: file:/path (see smtp-frontd-passwd),\n"
	"http://host/path, https://host/path, http+unix:///socket[:/path],\n"
	"checkpassword:/program arguments, pam:service,\n"
	"dovecot:/socket or dovecot:host:port (its auth server), or\n"
	"oauth2: and a URL of an introspection endpoint",
	&config_types_text, FIELD(auth_provider), .fallback = "",
	.clean = config_clean_provider},
    {"auth_http", credentials, "[http://]URL",
	"nginx's name for auth_provider with a URL", &config_types_text,
	FIELD(auth_provider), .clean = config_clean_auth_http},
    {"auth_external_authzid", credentials, "match|ignore",
	"what a name that comes with EXTERNAL is: it must be the\n"
	"certificate's, or nobody looks at it",
	&config_types_word, FIELD(auth_external_authzid), .fallback = "match",
	.wants = "must be match or ignore", .words = words_authzid},
    {"auth_external_implicit", credentials, "on|off",
	"take MAIL from a client that has a verified certificate for\n"
	"EXTERNAL, where it has not said AUTH",
	&config_types_word, FIELD(auth_external_implicit), .fallback = "off",
	SWITCH},
    {"auth_http_header", credentials, "HEADER...",
	"headers to add to each question: \"Name value\" or \"Name: value\"",
	&config_types_list, FIELD(auth_http_header), .fallback = "",
	.clean = config_clean_header, .secret = true},
    {"auth_http_pass_client_cert", credentials, "on|off",
	"show the auth server the client's certificate itself",
	&config_types_word, FIELD(auth_http_pass_client_cert),
	.fallback = "off", SWITCH},
    {"auth_timeout", credentials, "TIME", "how long a judgement may take",
	&config_types_time, FIELD(auth_timeout), .fallback = "60s", TIMEOUT},
    {"auth_http_timeout", credentials, "TIME", "nginx's name for auth_timeout",
	&config_types_time, FIELD(auth_timeout), TIMEOUT},
    {"auth_penalty", credentials, "on|off",
	"answer failed logins later, the more of them a source has had",
	&config_types_word, FIELD(auth_penalty), .fallback = "on", SWITCH},
    {"auth_penalty_exempt", credentials, "NETWORK...",
	"whose failed logins are answered at once", &config_types_list,
	FIELD(auth_penalty_exempt), .fallback = "127.0.0.0/8 ::1",
	.clean = config_clean_network},
    {"checkpassword_cram", credentials, "ORDER",
	"with CRAM-MD5, what follows the user's name on descriptor 3:\n"
	"challenge_response or response_challenge",
	&config_types_word, FIELD(checkpassword_cram),
	.fallback = "challenge_response",
	.wants = "must be challenge_response or response_challenge",
	.words = words_checkpassword_cram},
    {"oauth2_client_file", credentials, "FILE",
	"id:secret, which the introspection endpoint knows us by",
	&config_types_text, FIELD(oauth2_client_file), .fallback = "",
	.clean = config_clean_path},
    {"oauth2_user_claim", credentials, "NAME",
	"the claim that names a token's user, as username, sub or email",
	&config_types_text, FIELD(oauth2_user_claim), .fallback = "username",
	.clean = config_clean_claim},
    {"oauth2_scope", credentials, "WORDS",
	"scopes that a token must have", &config_types_text,
	FIELD(oauth2_scope), .fallback = "", .clean = config_clean_scope},
    {"scram_secret_file", credentials, "FILE",
	"octets that salts of unknown users are made with, the same on all\n"
	"hosts; by default the machine's id",
	&config_types_text, FIELD(scram_secret_file), .fallback = "",
	.clean = config_clean_path},

    {"backend", upstream, "ADDRESS...",
	"mail servers, the next where one fails: host:port, [IPv6]:port or\n"
	"unix:/path",
	&config_types_list, FIELD(backend), .fallback = "",
	.clean = config_clean_backend},
    {"proxy_protocol", upstream, "off|on|v2",
	"begin with a PROXY header that says who the client is, of version 1\n"
	"(on) or 2",
	&config_types_word, FIELD(proxy_protocol), .fallback = "off",
	.wants = "must be off, on or v2", .words = words_proxy_protocol},
    {"xclient", upstream, "auto|on|off",
	"tell the backend who the client is; auto: if it offers XCLIENT,\n"
	"on: refuse a backend that does not",
	&config_types_word, FIELD(xclient), .fallback = "auto",
	.wants = "must be auto, on or off", .words = words_xclient},
    {"proxy_smtp_auth", upstream, "on|off",
	"authenticate to the backend as the client did", &config_types_word,
	FIELD(proxy_smtp_auth), .fallback = "off", SWITCH},
    {"proxy_pass_error_message", upstream, "on|off",
	"pass the backend's own refusals on to the client", &config_types_word,
	FIELD(proxy_pass_error_message), .fallback = "off", SWITCH},
    {"proxy_connect_timeout", upstream, "TIME",
	"how long reaching a backend may take, all together",
	&config_types_time, FIELD(proxy_connect_timeout), .fallback = "60s",
	TIMEOUT},
    {"proxy_timeout", upstream, "TIME",
	"how long nothing may move, in either direction, after the hand-over",
	&config_types_time, FIELD(proxy_timeout), .fallback = "15m", TIMEOUT},
    {"proxy_buffer", upstream, "SIZE",
	"buffer for the backend's replies before the hand-over",
	&config_types_size,
	FIELD(proxy_buffer), .fallback = "(one page)",
	.wants = "must be a size from 1k to 16m, such as 4k or 1m", .min = 1024,
	.max = 16 << 20},
    {"relay_at", upstream, "auth|greeting",
	"run the relay program after authentication, or in place of the\n"
	"greeting, which it then says itself",
	&config_types_word, FIELD(relay_at), .fallback = "auth",
	.wants = "must be auth or greeting", .words = words_relay_at},

    {"proxy_ssl", upstream_tls, "off|on|starttls",
	"speak TLS with the backend, from the first byte or by STARTTLS;\n"
	"one that has none is given nothing",
	&config_types_word, FIELD(proxy_ssl), .fallback = "off",
	.wants = "must be off, on or starttls", .words = words_proxy_ssl},
    {"proxy_ssl_verify", upstream_tls, "auto|on|off",
	"whether its certificate must be good and be for its name; auto: of\n"
	"a backend that is not on this host",
	&config_types_word, FIELD(proxy_ssl_verify), DECISION},
    {"proxy_ssl_name", upstream_tls, "NAME",
	"the name to ask for and to verify, in place of the backend's",
	&config_types_text, FIELD(proxy_ssl_name), .fallback = "",
	.clean = config_clean_proxy_name},
    {"proxy_ssl_trusted_certificate", upstream_tls, "PATH",
	"whom to trust: a PEM file, or a directory as openssl rehash makes it",
	&config_types_text, FIELD(proxy_ssl_trusted_certificate),
	.fallback = "/etc/ssl/certs"},
    {"proxy_ssl_crl", upstream_tls, "FILE",
	"PEM file of lists of revoked certificates", &config_types_text,
	FIELD(proxy_ssl_crl), .fallback = ""},
    {"proxy_ssl_certificate", upstream_tls, "FILE...",
	"PEM files of certificate chains, at most 4, for a backend that asks\n"
	"for one",
	&config_types_list, FIELD(proxy_ssl_certificate), .fallback = ""},
    {"proxy_ssl_certificate_key", upstream_tls, "FILE...",
	"PEM files of their private keys, in the same order",
	&config_types_list, FIELD(proxy_ssl_certificate_key), .fallback = ""},
    {"proxy_ssl_protocols", upstream_tls, "WORDS",
	"versions, of: TLSv1 TLSv1.1 TLSv1.2 TLSv1.3", &config_types_text,
	FIELD(proxy_ssl_protocols), .fallback = "TLSv1.2 TLSv1.3",
	.clean = config_clean_protocols},
    {"proxy_ssl_ciphers", upstream_tls, "LIST",
	"ciphers of TLS 1.2, as openssl ciphers takes them", &config_types_text,
	FIELD(proxy_ssl_ciphers), .fallback = ""},
    {"proxy_ssl_dane", upstream_tls, "auto|on|off",
	"heed TLSA records that a validating resolver on this host vouches\n"
	"for; auto: where resolver is set",
	&config_types_word, FIELD(proxy_ssl_dane), DECISION},

    {"listen", listener, "ADDRESS...",
	"serve these sockets: address:port or unix:/path, each followed by\n"
	"ssl, if TLS begins at once, proxy_protocol, if a PROXY header comes\n"
	"before all else, and backlog=N if need be",
	&config_types_list, FIELD(listen), .fallback = "",
	.clean = config_clean_listen},
    {"max_connections", listener, "NUMBER", "sessions at one time",
	&config_types_number, FIELD(max_connections), .fallback = "1000",
	.wants = "must be a number from 1 to 100000", .min = 1,
	.max = 100000},
    {"max_connections_per_source", listener, "NUMBER",
	"sessions at one time from one IPv4 address or IPv6 /64",
	&config_types_number, FIELD(max_connections_per_source),
	.fallback = "20", .wants = "must be a number from 1 to 100000",
	.min = 1, .max = 100000},
    {"shutdown_timeout", listener, "TIME",
	"how long sessions may go on after SIGTERM", &config_types_time,
	FIELD(shutdown_timeout), .fallback = "30s", TIMEOUT},
    {"runtime_directory", listener, "PATH",
	"where processes without a listener share keys of session tickets\n"
	"and failed logins",
	&config_types_directory, FIELD(runtime_directory),
	.fallback = "($RUNTIME_DIRECTORY)", .clean = config_clean_path},
    {"status_file", listener, "PATH", "what --status reads",
	&config_types_text, FIELD(status_file), .fallback = "",
	.clean = config_clean_path},
    {"metrics_file", listener, "PATH",
	"the same for OpenMetrics, written every second", &config_types_text,
	FIELD(metrics_file), .fallback = "", .clean = config_clean_path},
    {"keeper_socket", listener, "PATH",
	"the keeper to ask, in place of a private one", &config_types_text,
	FIELD(keeper_socket), .fallback = "", .clean = config_clean_path},
    {"keeper_workers", listener, "NUMBER",
	"credentials that a keeper judges at one time", &config_types_number,
	FIELD(keeper_workers), .fallback = "16",
	.wants = "must be a number from 1 to 256", .min = 1, .max = 256},

    {"user", process, "NAME", "the user to become, if started by root",
	&config_types_text, FIELD(user), .fallback = ""},
    {"log", process, "auto|journal|syslog|stderr",
	"where the log goes; never to the client", &config_types_word,
	FIELD(log), .fallback = "auto",
	.wants = "must be auto, journal, syslog or stderr", .words = words_log},
    {.name = NULL},
};

_Static_assert(
    sizeof(config_table_rows) / sizeof(*config_table_rows) <= CONFIG_TABLE_MAX,
    "CONFIG_TABLE_MAX has room for all rows");

const struct option config_table_options[] = {
    {"config", '\0', "FILE",
	"read directives from a file of EnvironmentFile= format", 0},
    {"check", '\0', NULL,
	"print every value and where it came from, and warnings",
	offsetof(struct config, check)},
    {"status", '\0', NULL, "print what the listener counts",
	offsetof(struct config, status)},
    {"keeper", '\0', NULL, "be the keeper that other processes ask",
	offsetof(struct config, keeper)},
    {"help", 'h', NULL, "print this", offsetof(struct config, help)},
    {"version", 'V', NULL, "print the version",
	offsetof(struct config, version)},
    {.name = NULL},
};

const struct directive *
config_table_owner(size_t offset)
{
	const struct directive *d = config_table_rows;

	while (d->offset != offset)
		d++;
	return d;
}

void
config_table_argument(char *out, size_t size, const char *name)
{
	char *p;

	(void)snprintf(out, size, "--%s", name);
	for (p = out; *p != '\0'; p++)
		if (*p == '_')
			*p = '-';
}

/* Whether `word` of `len` letters is the directive's name with hyphens. */
static bool
is_argument(const struct directive *d, const char *word, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (word[i] != (d->name[i] == '_' ? '-' : d->name[i]))
			return false;
	return d->name[len] == '\0';
}

const struct directive *
config_table_by_argument(const char *word, size_t len)
{
	const struct directive *d;

	if (strncmp(word, "--", 2) != 0)
		return NULL;
	for (d = config_table_rows; d->name != NULL; d++)
		if (is_argument(d, word + 2, len - 2))
			return d;
	return NULL;
}

const struct option *
config_table_option(const char *word, size_t len)
{
	const struct option *o;

	for (o = config_table_options; o->name != NULL; o++) {
		if (len == 2 && word[0] == '-' && o->letter != '\0' &&
		    word[1] == o->letter)
			return o;
		if (strncmp(word, "--", 2) == 0 && strlen(o->name) == len - 2 &&
		    strncmp(o->name, word + 2, len - 2) == 0)
			return o;
	}
	return NULL;
}

static char
upper(char c)
{
	return (char)(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
}

/* What the variable's name has after SMTP_, in small letters. */
static const char *
variable_part(const struct directive *d)
{
	return strncmp(d->name, "smtp_", 5) == 0 ? d->name + 5 : d->name;
}

void
config_table_variable(char *out, size_t size, const struct directive *d)
{
	(void)snprintf(out, size, CONFIG_VARIABLE "%s", variable_part(d));
	for (; *out != '\0'; out++)
		*out = upper(*out);
}

const struct directive *
config_table_by_variable(const char *key, size_t len)
{
	const struct directive *d;
	const char *name;
	size_t i;

	key += strlen(CONFIG_VARIABLE);
	len -= strlen(CONFIG_VARIABLE);
	for (d = config_table_rows; d->name != NULL; d++) {
		name = variable_part(d);
		for (i = 0; i < len && key[i] == upper(name[i]); i++)
			;
		if (i == len && name[i] == '\0')
			return d;
	}
	return NULL;
}
