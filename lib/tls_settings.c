/*
 * What client and server side have in common: OpenSSL's start, its errors in
 * words, and the directives that say how TLS is spoken.
 *
 * OpenSSL is started with as little as will do, because every session pays
 * for it: see tls_settings_init().
 */
#include <stdio.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>

#include "lib/tls_settings.h"

#define CIPHERS_SIZE 4096

#define CIPHERS "HIGH:!aNULL:!MD5"

static bool
is_set(const char *setting)
{
	return setting != NULL && setting[0] != '\0';
}

/*
 * What no directive can turn on. The keeper signs, it does not decrypt: without
 * RSA key exchange a key that only signs is enough, and there is no padding
 * oracle. DHE needs parameters. And to a client, a server without a certificate
 * is one that verified.
 */
static const char *
never(const struct tls_settings *settings)
{
	if (settings->role == TLS_ROLE_CLIENT)
		return ":!aNULL:!eNULL";
	return is_set(settings->dhparam) ? ":!kRSA" : ":!kRSA:!kDHE";
}

/* How a role's directives begin, for the errors. */
static const char *const prefixes[] = {
    [TLS_ROLE_SERVER] = "",
    [TLS_ROLE_CLIENT] = "proxy_",
};

/*
 * No openssl.cnf: the directives say all that is to say. No exit handler: the
 * process ends, with _exit() or not, and its memory with it. No texts of
 * errors: explain() loads those it needs. And not all algorithms by name:
 * libssl fetches what it uses from the provider, and only digests are looked
 * up by name still, for the signatures in certificates. Together that
 * saves more than a third of what OpenSSL's start costs.
 */
void
tls_settings_init(void)
{
	static bool done;

	if (done)
		return;
	done = true;
	(void)OPENSSL_init_crypto(
	    OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS |
		OPENSSL_INIT_NO_ADD_ALL_CIPHERS |
		OPENSSL_INIT_NO_ADD_ALL_DIGESTS | OPENSSL_INIT_NO_ATEXIT,
	    NULL);
	(void)EVP_add_digest(EVP_sha1());
	(void)EVP_add_digest(EVP_sha224());
	(void)EVP_add_digest(EVP_sha256());
	(void)EVP_add_digest(EVP_sha384());
	(void)EVP_add_digest(EVP_sha512());
}

void
tls_settings_explain(char *text, size_t size, const char *otherwise)
{
	const char *data, *reason = NULL;
	unsigned long error;
	int flags;

	(void)OPENSSL_init_ssl(OPENSSL_INIT_LOAD_SSL_STRINGS |
				   OPENSSL_INIT_NO_LOAD_CONFIG |
				   OPENSSL_INIT_NO_ATEXIT,
	    NULL);
	(void)snprintf(text, size, "%s", otherwise);
	while (
	    (error = ERR_get_error_all(NULL, NULL, NULL, &data, &flags)) != 0) {
		if (ERR_GET_LIB(error) == ERR_LIB_USER &&
		    flags & ERR_TXT_STRING) {
			(void)snprintf(text, size, "%s", data);
			break;
		}
		if (ERR_GET_LIB(error) != ERR_LIB_SSL || reason != NULL)
			continue;
		reason = ERR_reason_error_string(error);
		if (reason != NULL)
			(void)snprintf(text, size, "%s", reason);
	}
	ERR_clear_error();
}

/* Takes nginx's next word for a protocol: its bit, 0 at the end, or -1. */
static int
next_protocol(const char **words)
{
	static const char *const names[] = {
	    "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"};
	size_t i, len;

	*words += strspn(*words, " \t");
	len = strcspn(*words, " \t");
	if (len == 0)
		return 0;
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strlen(names[i]) == len &&
		    strncmp(names[i], *words, len) == 0) {
			*words += len;
			return 1 << i;
		}
	return -1;
}

/*
 * TLS 1.0 and 1.1 are nginx's words, so they are taken; but they sign with MD5
 * and SHA-1, which neither our keeper nor OpenSSL's security level 1 does
 * (and RFC 8996 forbids both).
 */
static int
set_protocols(SSL_CTX *ctx, const struct tls_settings *settings, char *err)
{
	const char *const prefix = prefixes[settings->role];
	const char *words = settings->protocols;
	int bit, set = 0;
	bool v12, v13;

	if (!is_set(words))
		words = "TLSv1.2 TLSv1.3";
	while ((bit = next_protocol(&words)) > 0)
		set |= bit;
	if (bit == -1) {
		(void)snprintf(err, TLS_ERROR_SIZE,
		    "%sssl_protocols: \"%.*s\" is not one of TLSv1 TLSv1.1 "
		    "TLSv1.2 TLSv1.3",
		    prefix, (int)strcspn(words, " \t"), words);
		return -1;
	}
	v12 = set & 1 << 2;
	v13 = set & 1 << 3;
	if (!v12 && !v13) {
		(void)snprintf(err, TLS_ERROR_SIZE,
		    "%sssl_protocols: needs TLSv1.2 or TLSv1.3", prefix);
		return -1;
	}
	(void)SSL_CTX_set_min_proto_version(
	    ctx, v12 ? TLS1_2_VERSION : TLS1_3_VERSION);
	(void)SSL_CTX_set_max_proto_version(
	    ctx, v13 ? TLS1_3_VERSION : TLS1_2_VERSION);
	return 0;
}

static int
set_ciphers(SSL_CTX *ctx, const struct tls_settings *settings, char *err)
{
	char list[CIPHERS_SIZE];
	int n;

	n = snprintf(list, sizeof(list), "%s%s",
	    is_set(settings->ciphers) ? settings->ciphers : CIPHERS,
	    never(settings));
	if (n < 0 || (size_t)n >= sizeof(list) ||
	    SSL_CTX_set_cipher_list(ctx, list) != 1) {
		ERR_clear_error();
		(void)snprintf(err, TLS_ERROR_SIZE,
		    "%sssl_ciphers: no cipher that can be %s",
		    prefixes[settings->role],
		    settings->role == TLS_ROLE_CLIENT
			? "used"
			: "served (RSA key exchange cannot; DHE needs "
			  "ssl_dhparam)");
		return -1;
	}
	return 0;
}

/*
 * OpenSSL's own but for TLS 1.3's groups of finite fields: with the largest, a
 * client that computes nothing itself has a server work for 17 ms, where X25519
 * takes a tenth of one. A backend's handshake is ours to begin.
 */
static const char *const auto_curves[] = {
    [TLS_ROLE_SERVER] = "X25519:P-256:X448:P-384:P-521",
    [TLS_ROLE_CLIENT] = NULL,
};

static int
set_curves(SSL_CTX *ctx, const struct tls_settings *settings, char *err)
{
	const char *curves = settings->ecdh_curve;

	if (!is_set(curves) || strcmp(curves, "auto") == 0)
		curves = auto_curves[settings->role];
	if (curves == NULL || SSL_CTX_set1_curves_list(ctx, curves) == 1)
		return 0;
	ERR_clear_error();
	(void)snprintf(err, TLS_ERROR_SIZE,
	    "ssl_ecdh_curve: unknown curve in \"%s\"", curves);
	return -1;
}

/* Finite-field Diffie-Hellman, for what speaks no curves (RFC 7919 warns). */
static int
set_dhparam(SSL_CTX *ctx, const struct tls_settings *settings, char *err)
{
	EVP_PKEY *params = NULL;
	BIO *bio;

	if (!is_set(settings->dhparam))
		return 0;
	bio = BIO_new_file(settings->dhparam, "r");
	if (bio != NULL)
		params = PEM_read_bio_Parameters(bio, NULL);
	BIO_free(bio);
	/* DHX: what "openssl dhparam -dsaparam" makes. */
	if (params != NULL &&
	    (EVP_PKEY_is_a(params, "DH") || EVP_PKEY_is_a(params, "DHX")) &&
	    SSL_CTX_set0_tmp_dh_pkey(ctx, params) == 1)
		return 0;
	EVP_PKEY_free(params);
	ERR_clear_error();
	(void)snprintf(err, TLS_ERROR_SIZE,
	    "ssl_dhparam %s: cannot be read, or no parameters that are long "
	    "enough",
	    settings->dhparam);
	return -1;
}

/*
 * A command "Name value" into its two parts; false where it is none. Ciphers
 * have a directive of their own, which keeps those out that cannot be served.
 */
static bool
split_command(const char *command, char *name, size_t size, const char **value)
{
	size_t len = strcspn(command, " ");

	if (len == 0 || len >= size || command[len] == '\0')
		return false;
	memcpy(name, command, len);
	name[len] = '\0';
	*value = command + len + strspn(command + len, " ");
	return strcmp(name, "CipherString") != 0;
}

static int
set_commands(SSL_CTX *ctx, const struct tls_settings *settings, char *err)
{
	SSL_CONF_CTX *conf = NULL;
	const char *value;
	char name[64];
	size_t i;

	if (settings->command_count == 0)
		return 0;
	conf = SSL_CONF_CTX_new();
	if (conf != NULL) {
		(void)SSL_CONF_CTX_set_flags(conf,
		    SSL_CONF_FLAG_FILE |
			(settings->role == TLS_ROLE_CLIENT
				? SSL_CONF_FLAG_CLIENT
				: SSL_CONF_FLAG_SERVER));
		SSL_CONF_CTX_set_ssl_ctx(conf, ctx);
	}
	for (i = 0; i < settings->command_count; i++)
		if (conf == NULL ||
		    !split_command(settings->commands[i], name, sizeof(name),
			&value) ||
		    SSL_CONF_cmd(conf, name, value) <= 0)
			break;
	if (conf != NULL && i == settings->command_count &&
	    SSL_CONF_CTX_finish(conf) == 1) {
		SSL_CONF_CTX_free(conf);
		return 0;
	}
	SSL_CONF_CTX_free(conf);
	ERR_clear_error();
	(void)snprintf(err, TLS_ERROR_SIZE,
	    "ssl_conf_command: OpenSSL does not take \"%.160s\"",
	    i < settings->command_count ? settings->commands[i] : "");
	return -1;
}

int
tls_settings_apply(SSL_CTX *ctx, const struct tls_settings *settings, char *err)
{
	static int (*const parts[])(SSL_CTX *ctx,
	    const struct tls_settings *settings, char *err) = {
	    set_protocols, set_ciphers, set_curves, set_dhparam, set_commands};
	size_t i;

	for (i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (parts[i](ctx, settings, err) == -1)
			return -1;
	return 0;
}
