/*
 * Values that are good one by one and bad together: contradictions, which end
 * the program, and unsafe settings, of which --check warns. The files of keys
 * and passwords are asked for their modes here, and not opened.
 */
#include <sys/socket.h>
#include <sys/stat.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/listen_spec.h"
#include "lib/network.h"
#include "lib/text.h"
#include "lib/tls.h"

#include "config_table.h"

/* Two directives that cannot both be meant. */
struct clash {
	size_t offset; /* of the directive to complain of */
	const char *reason; /* NULL: none */
};

#define CLASH(f, why) ((struct clash){offsetof(struct config, f), why})
#define NO_CLASH      ((struct clash){0, NULL})

/* Whether `host`, which may have a port or a path behind it, is this one. */
static bool
is_loopback(const char *host)
{
	size_t len = strcspn(host, ":/?#");

	if (strncmp(host, "[::1]", 5) == 0 || strcmp(host, "::1") == 0)
		return true;
	return (len == 9 && strncmp(host, "localhost", 9) == 0) ||
	       (strncmp(host, "127.", 4) == 0 &&
		   strspn(host, "0123456789.") >= len);
}

static struct clash
tls_clash(const struct config *conf)
{
	bool starttls = conf->starttls != CONFIG_STARTTLS_OFF;

	if (conf->ssl_certificate.count > TLS_MAX_KEYS)
		return CLASH(ssl_certificate, "is more than 4 certificates");
	if (conf->ssl_certificate.count != conf->ssl_certificate_key.count)
		return CLASH(ssl_certificate_key,
		    "must be as many files as ssl_certificate names, in the "
		    "same order");
	if (starttls && (conf->socket & CONFIG_SOCKET_SSL))
		return CLASH(starttls,
		    "cannot be with socket ssl: TLS is on from the start");
	if (starttls && conf->ssl_certificate.count == 0)
		return CLASH(
		    starttls, "needs ssl_certificate and ssl_certificate_key");
	if ((conf->socket & CONFIG_SOCKET_SSL) &&
	    conf->ssl_certificate.count == 0)
		return CLASH(
		    socket, "needs ssl_certificate and ssl_certificate_key");
	return NO_CLASH;
}

/* As nginx has it. */
static struct clash
verify_clash(const struct config *conf)
{
	bool needs_ca = conf->ssl_verify_client == TLS_VERIFY_ON ||
	    conf->ssl_verify_client == TLS_VERIFY_OPTIONAL;

	if (needs_ca && conf->ssl_client_certificate[0] == '\0' &&
	    conf->ssl_trusted_certificate[0] == '\0')
		return CLASH(ssl_verify_client,
		    "needs ssl_client_certificate or ssl_trusted_certificate");
	if (conf->ssl_verify_client != TLS_VERIFY_OFF &&
	    conf->ssl_certificate.count == 0)
		return CLASH(ssl_verify_client,
		    "needs ssl_certificate and ssl_certificate_key");
	return NO_CLASH;
}

/* Whether all name servers of a list are on this host. */
static bool
is_local_resolver(const char *list)
{
	char word[64];

	while (text_word(&list, word, sizeof(word)) == 1)
		if (!is_loopback(word))
			return false;
	return true;
}

static struct clash
proxy_tls_clash(const struct config *conf)
{
	if (conf->proxy_ssl_certificate.count > TLS_MAX_KEYS)
		return CLASH(
		    proxy_ssl_certificate, "is more than 4 certificates");
	if (conf->proxy_ssl_certificate.count !=
	    conf->proxy_ssl_certificate_key.count)
		return CLASH(proxy_ssl_certificate_key,
		    "must be as many files as proxy_ssl_certificate names, in "
		    "the same order");
	/* Whoever is between could say that he has validated his lies. */
	if (conf->proxy_ssl_dane == CONFIG_YES &&
	    !text_equal(conf->resolver, "system") &&
	    !is_local_resolver(conf->resolver))
		return CLASH(proxy_ssl_dane,
		    "needs a resolver on this host (127.0.0.1, ::1): what "
		    "another says of DNSSEC is not authenticated");
	return NO_CLASH;
}

static struct clash
listen_clash(const struct config *conf)
{
	struct listen_spec spec;
	size_t i;

	for (i = 0; i < conf->listen.count; i++) {
		if (listen_spec_parse(conf->listen.word[i], &spec) != NULL)
			continue;
		if (spec.ssl && conf->ssl_certificate.count == 0)
			return CLASH(listen, "ssl needs ssl_certificate and "
					     "ssl_certificate_key");
		if ((spec.ssl || spec.proxy_protocol) &&
		    conf->relay_at == CONFIG_RELAY_AT_GREETING)
			return CLASH(listen,
			    "ssl and proxy_protocol cannot be with relay_at "
			    "greeting: the relay program gets the connection "
			    "as it is");
	}
	return NO_CLASH;
}

static struct clash
upstream_clash(const struct config *conf)
{
	if (conf->relay_at == CONFIG_RELAY_AT_GREETING) {
		if (conf->relay == NULL)
			return CLASH(
			    relay_at, "needs a relay program after --");
		if (conf->socket != 0 || conf->starttls != CONFIG_STARTTLS_OFF)
			return CLASH(relay_at,
			    "cannot be with socket or starttls: the relay "
			    "program gets the connection as it is");
	}
	/* Any provider may name a backend with its verdict. */
	if (conf->backend.count == 0 && conf->relay == NULL &&
	    conf->auth_provider[0] == '\0')
		return CLASH(backend,
		    "there is nothing behind: no backend, no relay program "
		    "after --, and no auth_provider that may name one");
	return NO_CLASH;
}

static struct clash
auth_clash(const struct config *conf)
{
	size_t offset = offsetof(struct config, smtp_auth);

	if (conf->auth_provider[0] != '\0')
		return NO_CLASH;
	if ((conf->smtp_auth & ~(unsigned)CONFIG_AUTH_NONE) != 0 &&
	    config_source_of(config_table_owner(offset))->from != FROM_DEFAULT)
		return CLASH(smtp_auth, "needs an auth_provider");
	if ((conf->smtp_auth & CONFIG_AUTH_NONE) == 0 &&
	    conf->relay_at != CONFIG_RELAY_AT_GREETING)
		return CLASH(smtp_auth,
		    "lets nobody in: there is neither an auth_provider nor "
		    "none among the words");
	return NO_CLASH;
}

enum config_result
config_check_clashes(const struct config *conf, char *err)
{
	static struct clash (*const checks[])(const struct config *) = {
	    tls_clash, verify_clash, proxy_tls_clash, listen_clash,
	    upstream_clash, auth_clash};
	const struct directive *d;
	struct source *src;
	struct clash clash;
	char *value;
	size_t i;

	/* Neither serves a client. */
	if (conf->status || conf->keeper)
		return CONFIG_OK;
	for (i = 0; i < sizeof(checks) / sizeof(*checks); i++) {
		clash = checks[i](conf);
		if (clash.reason == NULL)
			continue;
		d = config_table_owner(clash.offset);
		src = config_source_of(d);
		value = config_types_value(conf, d);
		config_source_explain(err,
		    src->by != NULL ? src->by->name : d->name,
		    value != NULL ? value : "", clash.reason, src);
		free(value);
		return CONFIG_BAD;
	}
	return CONFIG_OK;
}

static void
warn(FILE *out, const char *text)
{
	(void)fprintf(out, "# warning: %s\n", text);
}

/* The program that judges, without its arguments. */
static void
warn_program(FILE *out, const char *command)
{
	char path[CONFIG_WORD_SIZE], quoted[512];

	if (text_word(&command, path, sizeof(path)) != 1)
		return;
	(void)log_quote(quoted, sizeof(quoted), path);
	if (access(path, X_OK) == -1)
		(void)fprintf(out,
		    "# warning: auth_provider: %s cannot be run: %s\n", quoted,
		    strerror(errno));
}

/* Where Linux-PAM looks; for a service that it does not find, to `other`. */
static void
warn_pam(FILE *out, const char *service)
{
	static const char *const folders[] = {
	    "/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d"};
	char path[256];
	bool found = false;
	size_t i;

	for (i = 0; i < sizeof(folders) / sizeof(*folders); i++) {
		(void)snprintf(
		    path, sizeof(path), "%s/%s", folders[i], service);
		found = found || access(path, F_OK) == 0;
	}
	if (!found)
		(void)fprintf(out,
		    "# warning: auth_provider: there is no /etc/pam.d/%s: PAM "
		    "takes /etc/pam.d/other\n", service);
	if (geteuid() != 0)
		warn(out, "auth_provider: PAM is asked by another user than "
			  "root: pam_unix, and what else reads /etc/shadow, "
			  "knows that user alone");
}

static void
warn_provider(FILE *out, const char *provider)
{
	const char *rest = strchr(provider, ':');

	if (rest == NULL)
		return;
	rest++;
	if (strncmp(provider, "checkpassword:", 14) == 0)
		warn_program(out, rest);
	else if (strncmp(provider, "pam:", 4) == 0)
		warn_pam(out, rest);
}

/* A file that holds secrets, or (`secret` false) only has to be there. */
static void
warn_file(FILE *out, const char *name, const char *path, bool secret)
{
	char quoted[512];
	struct stat st;

	(void)log_quote(quoted, sizeof(quoted), path);
	if (stat(path, &st) == -1 || access(path, R_OK) == -1)
		(void)fprintf(out, "# warning: %s: %s cannot be read: %s\n",
		    name, quoted, strerror(errno));
	else if (secret && (st.st_mode & S_IROTH) != 0)
		(void)fprintf(out,
		    "# warning: %s: %s can be read by everybody\n", name,
		    quoted);
}

static void
warn_public(FILE *out, const char *name, const char *path)
{
	if (path[0] != '\0')
		warn_file(out, name, path, false);
}

static void
warn_files(FILE *out, const struct config *conf)
{
	size_t i;

	for (i = 0; i < conf->ssl_certificate.count; i++)
		warn_file(out, "ssl_certificate", conf->ssl_certificate.word[i],
		    false);
	for (i = 0; i < conf->ssl_certificate_key.count; i++)
		warn_file(out, "ssl_certificate_key",
		    conf->ssl_certificate_key.word[i], true);
	for (i = 0; i < conf->proxy_ssl_certificate.count; i++)
		warn_file(out, "proxy_ssl_certificate",
		    conf->proxy_ssl_certificate.word[i], false);
	for (i = 0; i < conf->proxy_ssl_certificate_key.count; i++)
		warn_file(out, "proxy_ssl_certificate_key",
		    conf->proxy_ssl_certificate_key.word[i], true);
	if (conf->proxy_ssl != CONFIG_PROXY_SSL_OFF)
		warn_file(out, "proxy_ssl_trusted_certificate",
		    conf->proxy_ssl_trusted_certificate, false);
	if (conf->proxy_ssl_crl[0] != '\0')
		warn_file(out, "proxy_ssl_crl", conf->proxy_ssl_crl, false);
	if (conf->ssl_password_file[0] != '\0')
		warn_file(
		    out, "ssl_password_file", conf->ssl_password_file, true);
	warn_public(out, "ssl_client_certificate", conf->ssl_client_certificate);
	warn_public(
	    out, "ssl_trusted_certificate", conf->ssl_trusted_certificate);
	warn_public(out, "ssl_crl", conf->ssl_crl);
	if (conf->oauth2_client_file[0] != '\0')
		warn_file(
		    out, "oauth2_client_file", conf->oauth2_client_file, true);
	if (conf->scram_secret_file[0] != '\0')
		warn_file(
		    out, "scram_secret_file", conf->scram_secret_file, true);
	if (strncmp(conf->auth_provider, "file:", 5) == 0)
		warn_file(out, "auth_provider", conf->auth_provider + 5, true);
}

/* Whether a http:// URL stays within the host. */
static bool
is_local_url(const char *url)
{
	const char *host = url + strlen("http://"), *at;

	at = memchr(host, '@', strcspn(host, "/?#"));
	return is_loopback(at != NULL ? at + 1 : host);
}

/* Dovecot waits before it looks at who has failed, and before it says no. */
#define DOVECOT_DELAY_MS 17000

static void
warn_dovecot(FILE *out, const struct config *conf)
{
	const char *where = conf->auth_provider + strlen("dovecot:");

	if (*where != '/' && strncmp(where, "unix:", 5) != 0 &&
	    !is_loopback(where))
		warn(out, "auth_provider: passwords go to another host in the "
			  "clear");
	if (conf->auth_timeout <= DOVECOT_DELAY_MS)
		warn(out, "auth_timeout: Dovecot delays what it refuses by up "
			  "to 17 seconds");
}

static void
warn_passwords(FILE *out, const struct config *conf)
{
	const unsigned both = CONFIG_AUTH_PLAIN | CONFIG_AUTH_LOGIN;
	const unsigned tokens = CONFIG_AUTH_XOAUTH2 | CONFIG_AUTH_OAUTHBEARER;
	const char *url = conf->auth_provider;

	if (conf->auth_provider[0] == '\0')
		return;
	if (((conf->smtp_auth & (both | tokens)) != 0 ||
		conf->smtp_auth_unlisted) &&
	    conf->starttls != CONFIG_STARTTLS_ONLY &&
	    !(conf->socket & CONFIG_SOCKET_SSL))
		warn(out, "starttls: passwords are taken without TLS, too: for "
			  "clients on the loopback interface only");
	if (conf->smtp_auth_unlisted && (conf->smtp_auth & both) != both)
		warn(out, "smtp_auth_unlisted: PLAIN and LOGIN are taken, "
			  "listed in smtp_auth or not");
	if (strncmp(conf->auth_provider, "dovecot:", 8) == 0)
		warn_dovecot(out, conf);
	if (strncmp(url, "oauth2:", 7) == 0)
		url += strlen("oauth2:");
	if (strncmp(url, "http://", 7) == 0 && !is_local_url(url))
		warn(out, "auth_provider: passwords go to another host in the "
			  "clear: use https://");
}

/* Whether a PROXY header comes before some session. */
static bool
expects_header(const struct config *conf)
{
	struct listen_spec spec;
	size_t i;

	for (i = 0; i < conf->listen.count; i++)
		if (listen_spec_parse(conf->listen.word[i], &spec) == NULL &&
		    spec.proxy_protocol)
			return true;
	return conf->socket & CONFIG_SOCKET_PROXY;
}

/* Why EXTERNAL, which is asked for, will not be; NULL: it may be. */
static const char *
external_objection(const struct config *conf)
{
	if ((conf->smtp_auth & CONFIG_AUTH_EXTERNAL) != 0)
		return conf->ssl_verify_client == TLS_VERIFY_OFF &&
			strncmp(conf->auth_provider, "file:", 5) == 0
		    ? "smtp_auth: EXTERNAL is never offered, as "
		      "ssl_verify_client is off"
		    : NULL;
	return conf->auth_external_implicit
	    ? "auth_external_implicit: EXTERNAL is not in smtp_auth"
	    : NULL;
}

static void
warn_client_certificates(FILE *out, const struct config *conf)
{
	bool asked = conf->ssl_verify_client != TLS_VERIFY_OFF;

	if (conf->ssl_verify_client == TLS_VERIFY_ON &&
	    conf->starttls == CONFIG_STARTTLS_ON)
		warn(out, "ssl_verify_client: a client that stays in the clear "
			  "is not asked for a certificate: use starttls only");
	if (!asked && (conf->ssl_client_certificate[0] != '\0' ||
			  conf->ssl_trusted_certificate[0] != '\0' ||
			  conf->ssl_crl[0] != '\0'))
		warn(out, "ssl_verify_client: is off, so no client is asked "
			  "for a certificate");
	if (external_objection(conf) != NULL)
		warn(out, external_objection(conf));
}

/* What goes to backends that are not on this host. */
static void
warn_backends(FILE *out, const struct config *conf)
{
	bool far = false;
	size_t i;

	for (i = 0; i < conf->backend.count; i++)
		far |= strncmp(conf->backend.word[i], "unix:", 5) != 0 &&
		    !is_loopback(conf->backend.word[i]);
	if (!far)
		return;
	if (conf->proxy_ssl == CONFIG_PROXY_SSL_OFF && conf->proxy_smtp_auth)
		warn(out, "proxy_ssl: with proxy_smtp_auth, passwords go to "
			  "another host in the clear");
	if (conf->proxy_ssl != CONFIG_PROXY_SSL_OFF &&
	    conf->proxy_ssl_verify == CONFIG_NO)
		warn(out, "proxy_ssl_verify: whoever is between may be taken "
			  "for a backend on another host");
}

static bool
is_everybody(const struct config_list *networks)
{
	struct network network;
	size_t i;

	for (i = 0; i < networks->count; i++)
		if (network_parse(networks->word[i], &network) == 0 &&
		    network.family != AF_UNIX && network.bits == 0)
			return true;
	return false;
}

static void
warn_proxies(FILE *out, const struct config *conf)
{
	const struct config_list *proxies = &conf->set_real_ip_from;

	if (expects_header(conf) && proxies->count == 0)
		warn(out,
		    "set_real_ip_from: is empty, so every client behind a "
		    "proxy has the proxy's address");
	if (!expects_header(conf) && proxies->count > 0)
		warn(out,
		    "set_real_ip_from: has no effect without proxy_protocol of "
		    "socket or listen");
	if (is_everybody(proxies))
		warn(out, "set_real_ip_from: whoever connects may say that "
			  "he is somebody else");
}

static void
warn_guessing(FILE *out, const struct config *conf)
{
	if (conf->auth_provider[0] == '\0')
		return;
	if (!conf->auth_penalty)
		warn(out, "auth_penalty: passwords can be guessed as fast as "
			  "clients can connect");
	else if (is_everybody(&conf->auth_penalty_exempt))
		warn(out, "auth_penalty_exempt: whoever connects may guess "
			  "passwords without delay");
}

void
config_check_warn(const struct config *conf, FILE *out)
{
	if (conf->relay_at != CONFIG_RELAY_AT_GREETING)
		warn_backends(out, conf);
	if (conf->relay_at != CONFIG_RELAY_AT_GREETING)
		warn_passwords(out, conf);
	if ((conf->smtp_auth & CONFIG_AUTH_NONE) != 0 &&
	    conf->backend.count > 0 && conf->xclient == CONFIG_XCLIENT_OFF &&
	    conf->proxy_protocol == CONFIG_PROXY_PROTOCOL_OFF)
		warn(out,
		    "xclient: with smtp_auth none, a backend that "
		    "relays by address takes every client for this host: an "
		    "open relay");
	warn_client_certificates(out, conf);
	warn_proxies(out, conf);
	warn_guessing(out, conf);
	warn_files(out, conf);
	warn_provider(out, conf->auth_provider);
}
