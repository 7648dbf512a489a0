/*
 * The TLS module's client side against OpenSSL's own server, over a socketpair:
 * whom it believes, and what the keys of its own certificates sign. The keeper
 * is in the same process, and what it is asked to sign is kept, to be asked for
 * again in other forms.
 */
#include <sys/socket.h>

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "lib/tls.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

extern const struct tls_api tls_api;
static const struct tls_api *const api = &tls_api;

#define NAME "mail.example"

enum {
	RSA_KEY,
	P256_KEY,
	ED_KEY,
	KEYS
};

static struct {
	EVP_PKEY *pkey;
	X509 *x509;
	char key[64], certificate[64];
} made[KEYS];

static char folder[] = "/tmp/t-tls-client-XXXXXX";
static char err[TLS_ERROR_SIZE];

/* --- files --------------------------------------------------------------- */

static FILE *
create(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd != -1);
	return fdopen(fd, "w");
}

static void
add_name(X509 *x509)
{
	X509_EXTENSION *e = X509V3_EXT_conf_nid(
	    NULL, NULL, NID_subject_alt_name, "DNS:" NAME);

	assert_non_null(e);
	assert_true(X509_add_ext(x509, e, -1));
	X509_EXTENSION_free(e);
}

static void
make(int i, EVP_PKEY *pkey)
{
	X509 *x509 = X509_new();
	X509_NAME *name = X509_get_subject_name(x509);
	FILE *f;

	assert_true(X509_set_version(x509, X509_VERSION_3));
	assert_true(ASN1_INTEGER_set(X509_get_serialNumber(x509), i + 1));
	assert_non_null(X509_gmtime_adj(X509_getm_notBefore(x509), -60));
	assert_non_null(X509_gmtime_adj(X509_getm_notAfter(x509), 3600));
	assert_true(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
	    (const unsigned char *)NAME, -1, -1, 0));
	assert_true(X509_set_issuer_name(x509, name));
	assert_true(X509_set_pubkey(x509, pkey));
	add_name(x509);
	assert_true(
	    X509_sign(x509, pkey, i == ED_KEY ? NULL : EVP_sha256()) > 0);
	made[i].pkey = pkey;
	made[i].x509 = x509;
	(void)snprintf(made[i].key, sizeof(made[i].key), "%s/%d.key", folder, i);
	(void)snprintf(made[i].certificate, sizeof(made[i].certificate),
	    "%s/%d.crt", folder, i);
	f = create(made[i].certificate);
	assert_true(PEM_write_X509(f, x509));
	assert_int_equal(fclose(f), 0);
	f = create(made[i].key);
	assert_true(
	    PEM_write_PrivateKey(f, pkey, NULL, NULL, 0, NULL, NULL));
	assert_int_equal(fclose(f), 0);
}

static struct tls_keys *
load(enum tls_role role, int i)
{
	char *certificates[] = {made[i].certificate}, *keys[] = {made[i].key};
	const struct tls_key_files files = {
	    .certificates = certificates, .keys = keys, .count = 1};
	struct tls_keys *loaded = api->keys_load(role, &files, err);

	if (loaded == NULL)
		fail_msg("%s", err);
	return loaded;
}

static int
make_all(void **state)
{
	const struct tls_key_files none = {.count = 0};

	(void)state;
	if (mkdtemp(folder) == NULL)
		return -1;
	api->keys_free(api->keys_load(TLS_ROLE_CLIENT, &none, err));
	make(RSA_KEY, EVP_RSA_gen(2048));
	make(P256_KEY, EVP_EC_gen("P-256"));
	make(ED_KEY, EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"));
	return 0;
}

static int
remove_all(void **state)
{
	int i;

	(void)state;
	for (i = 0; i < KEYS; i++) {
		(void)unlink(made[i].certificate);
		(void)unlink(made[i].key);
		EVP_PKEY_free(made[i].pkey);
		X509_free(made[i].x509);
	}
	return rmdir(folder);
}

/* --- both ends ----------------------------------------------------------- */

/* What the keeper was asked to sign last. */
static struct {
	enum tls_scheme scheme;
	unsigned char data[32768];
	size_t len;
} asked;

static int
ring_certificates(
    void *arg, const char *name, unsigned key, struct tls_chain *chain)
{
	char why[TLS_ERROR_SIZE];

	return api->keys_certificates(arg, name, key, chain, why);
}

static ssize_t
ring_sign(void *arg, const char *name, unsigned key, enum tls_scheme scheme,
    const void *data, size_t len, unsigned char *sig, size_t size)
{
	assert_true(len <= sizeof(asked.data));
	memcpy(asked.data, data, len);
	asked.len = len;
	asked.scheme = scheme;
	return api->keys_sign(
	    arg, name, key, scheme, data, len, sig, size);
}

struct pair {
	int fds[2];
	struct tls *tls;
	SSL_CTX *ctx;
	SSL *server;
	enum tls_want want; /* how the client's handshake went */
	int done;	    /* and the server's: 1 for well */
};

/* A server with the EC key, which wants the certificate of `wanted`. */
static SSL_CTX *
make_server(int version, const X509 *wanted)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

	assert_true(SSL_CTX_set_max_proto_version(ctx, version));
	assert_true(SSL_CTX_use_certificate(ctx, made[P256_KEY].x509));
	assert_true(SSL_CTX_use_PrivateKey(ctx, made[P256_KEY].pkey));
	if (wanted != NULL) {
		SSL_CTX_set_verify(ctx,
		    SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
		/* The purpose of a server's certificate is as good. */
		assert_true(X509_STORE_add_cert(
		    SSL_CTX_get_cert_store(ctx), (X509 *)(uintptr_t)wanted));
	}
	return ctx;
}

static void
shake_hands(struct pair *p, struct tls_connector *connector,
    const struct tls_peer *peer, SSL_CTX *ctx)
{
	int i;

	memset(p, 0, sizeof(*p));
	assert_int_equal(socketpair(AF_UNIX,
			     SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
			     p->fds),
	    0);
	p->tls = api->connect(connector, peer, p->fds[0], err);
	if (p->tls == NULL)
		fail_msg("%s", err);
	p->ctx = ctx;
	p->server = SSL_new(ctx);
	assert_true(SSL_set_fd(p->server, p->fds[1]));
	SSL_set_accept_state(p->server);
	for (i = 0; i < 16; i++) {
		if (p->want != TLS_ERROR && (i == 0 || p->want != TLS_DONE))
			p->want = api->handshake(p->tls);
		if (p->done != 1)
			p->done = SSL_do_handshake(p->server);
	}
	ERR_clear_error();
}

static void
close_pair(struct pair *p)
{
	api->free(p->tls);
	SSL_free(p->server);
	SSL_CTX_free(p->ctx);
	(void)close(p->fds[0]);
	(void)close(p->fds[1]);
}

static struct tls_connector *
new_connector(const char *trusted, struct tls_keys *keys)
{
	const struct tls_settings settings = {
	    .role = TLS_ROLE_CLIENT, .trusted_certificate = trusted};
	const struct tls_keyring ring = {keys, ring_certificates, ring_sign};
	struct tls_connector *c = api->connector_new(&settings, err);

	if (c == NULL)
		fail_msg("%s", err);
	if (keys != NULL && api->connector_keys(c, &ring, err) == -1)
		fail_msg("%s", err);
	return c;
}

static const struct tls_peer anybody = {.name = ""};
static const struct tls_peer mail = {.name = NAME, .verify = true};

/* --- whom it believes ---------------------------------------------------- */

static void
believes_whom_it_trusts(void **state)
{
	struct tls_connector *c = new_connector(made[P256_KEY].certificate, NULL);
	struct pair p;

	(void)state;
	shake_hands(&p, c, &mail, make_server(TLS1_3_VERSION, NULL));
	assert_int_equal(p.want, TLS_DONE);
	assert_int_equal(p.done, 1);
	assert_string_equal(api->facts(p.tls)->verified, "pkix");
	assert_string_equal(api->facts(p.tls)->protocol, "TLSv1.3");
	assert_non_null(api->facts(p.tls)->group);
	assert_string_equal(
	    SSL_get_servername(p.server, TLSEXT_NAMETYPE_host_name), NAME);
	close_pair(&p);
	api->connector_free(c);
}

static void
refuses(const char *trusted, const struct tls_peer *peer, const char *why)
{
	struct tls_connector *c = new_connector(trusted, NULL);
	struct pair p;

	shake_hands(&p, c, peer, make_server(TLS1_3_VERSION, NULL));
	assert_int_equal(p.want, TLS_ERROR);
	if (strstr(api->error(p.tls), why) == NULL)
		fail_msg("%s, not %s", api->error(p.tls), why);
	/* Nor does it go on afterwards. */
	assert_int_equal(api->handshake(p.tls), TLS_ERROR);
	close_pair(&p);
	api->connector_free(c);
}

static void
refuses_all_others(void **state)
{
	const struct tls_peer other = {.name = "other.example", .verify = true};
	const struct tls_peer address = {.name = "192.0.2.1", .verify = true};

	(void)state;
	refuses(made[RSA_KEY].certificate, &mail, "self-signed");
	refuses("", &mail, "self-signed");
	refuses(folder, &mail, "self-signed"); /* none by a hashed name */
	refuses(made[P256_KEY].certificate, &other, "hostname mismatch");
	refuses(made[P256_KEY].certificate, &address, "IP address mismatch");
}

static void
believes_anybody_if_told_so(void **state)
{
	struct tls_connector *c = new_connector("", NULL);
	struct pair p;

	(void)state;
	shake_hands(&p, c, &anybody, make_server(TLS1_3_VERSION, NULL));
	assert_int_equal(p.want, TLS_DONE);
	assert_string_equal(api->facts(p.tls)->verified, "off");
	close_pair(&p);
	api->connector_free(c);
}

static void
needs_a_name_to_verify(void **state)
{
	const struct tls_peer nobody = {.name = "", .verify = true};
	struct tls_connector *c = new_connector("", NULL);

	(void)state;
	assert_null(api->connect(c, &nobody, -1, err));
	assert_non_null(strstr(err, "no name"));
	api->connector_free(c);
}

/* A record of usage, selector 0 and matching type 0: the certificate itself. */
static struct tls_tlsa
record_of(uint8_t usage, X509 *x509)
{
	struct tls_tlsa t = {.usage = usage};
	unsigned char *der = NULL;
	int len = i2d_X509(x509, &der);

	assert_true(len > 0 && (size_t)len <= sizeof(t.data));
	memcpy(t.data, der, (size_t)len);
	t.len = (size_t)len;
	OPENSSL_free(der);
	return t;
}

static void
heeds_records(void **state)
{
	struct tls_tlsa records[] = {
	    record_of(3, made[ED_KEY].x509), record_of(3, made[P256_KEY].x509)};
	struct tls_peer peer = {.name = "other.example", .tlsa = records};
	struct tls_connector *c = new_connector("", NULL);
	struct pair p;

	(void)state;
	peer.tlsa_count = 2;
	shake_hands(&p, c, &peer, make_server(TLS1_3_VERSION, NULL));
	assert_int_equal(p.want, TLS_DONE);
	assert_string_equal(api->facts(p.tls)->verified, "dane-ee");
	close_pair(&p);
	/* One that is for another, though nothing was to be verified. */
	peer.tlsa_count = 1;
	refuses("", &peer, "is not good");
	/* Usages that ask for an authority say nothing. */
	records[0].usage = 1;
	shake_hands(&p, c, &peer, make_server(TLS1_3_VERSION, NULL));
	assert_int_equal(p.want, TLS_DONE);
	assert_string_equal(api->facts(p.tls)->verified, "off");
	close_pair(&p);
	api->connector_free(c);
}

static void
names_its_directives(void **state)
{
	static const struct {
		struct tls_settings settings;
		const char *words;
	} rows[] = {
	    {{.protocols = "SSLv3"}, "proxy_ssl_protocols: "},
	    {{.protocols = "TLSv1"}, "proxy_ssl_protocols: needs"},
	    {{.ciphers = "NOTHING"}, "proxy_ssl_ciphers: "},
	    {{.ciphers = "aNULL"}, "proxy_ssl_ciphers: "},
	    {{.trusted_certificate = "/nowhere"},
		"proxy_ssl_trusted_certificate /nowhere: No such file"},
	    {{.trusted_certificate = "/dev/null"},
		"proxy_ssl_trusted_certificate /dev/null: there is no"},
	    {{.crl = "/nowhere"}, "proxy_ssl_crl /nowhere: "},
	};
	struct tls_settings settings;
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(rows); i++) {
		settings = rows[i].settings;
		settings.role = TLS_ROLE_CLIENT;
		assert_null(api->connector_new(&settings, err));
		if (strncmp(err, rows[i].words, strlen(rows[i].words)) != 0)
			fail_msg("%s", err);
	}
}

/* --- what its keys sign -------------------------------------------------- */

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

/* Leaves in `asked` what the client signed. */
static void
show_certificate(int i, int version)
{
	struct tls_keys *keys = load(TLS_ROLE_CLIENT, i);
	struct tls_connector *c = new_connector("", keys);
	struct pair p;
	X509 *seen;

	asked.len = 0;
	shake_hands(&p, c, &anybody, make_server(version, made[i].x509));
	if (p.want != TLS_DONE || p.done != 1)
		fail_msg("key %d, version %x: %s", i, (unsigned)version,
		    api->error(p.tls));
	seen = SSL_get0_peer_certificate(p.server);
	assert_non_null(seen);
	assert_int_equal(X509_cmp(seen, made[i].x509), 0);
	assert_true(asked.len > 0);
	close_pair(&p);
	api->connector_free(c);
	api->keys_free(keys);
}

static void
shows_its_certificate(void **state)
{
	size_t v;
	int i;

	(void)state;
	for (v = 0; v < LENGTH(versions); v++)
		for (i = 0; i < KEYS; i++)
			show_certificate(i, versions[v]);
}

static bool
signs(enum tls_role role, const unsigned char *data, size_t len)
{
	struct tls_keys *keys = load(role, P256_KEY);
	unsigned char sig[TLS_MAX_SIGNATURE];
	ssize_t n = api->keys_sign(keys, "", 0, TLS_ECDSA_SHA256, data, len, sig, sizeof(sig));

	api->keys_free(keys);
	return n > 0;
}

static void
keeps_the_roles_apart(void **state)
{
	static const char words[] = "TLS 1.3, server CertificateVerify";
	unsigned char tbs[64 + sizeof(words) + 32];
	size_t v;

	(void)state;
	memset(tbs, ' ', 64);
	memset(tbs + 64, 'h', sizeof(tbs) - 64);
	memcpy(tbs + 64, words, sizeof(words));
	assert_true(signs(TLS_ROLE_SERVER, tbs, sizeof(tbs)));
	assert_false(signs(TLS_ROLE_CLIENT, tbs, sizeof(tbs)));
	memcpy(tbs + 73, "client", 6);
	assert_false(signs(TLS_ROLE_SERVER, tbs, sizeof(tbs)));
	assert_true(signs(TLS_ROLE_CLIENT, tbs, sizeof(tbs)));
	/* TLS 1.2's key exchange, of a server on X25519. */
	memset(tbs, 'r', sizeof(tbs));
	memcpy(tbs + 64, "\3\0\35\40", 4);
	assert_true(signs(TLS_ROLE_SERVER, tbs, 64 + 4 + 32));
	assert_false(signs(TLS_ROLE_CLIENT, tbs, 64 + 4 + 32));
	for (v = 0; v < LENGTH(versions); v++) {
		show_certificate(P256_KEY, versions[v]);
		assert_true(signs(TLS_ROLE_CLIENT, asked.data, asked.len));
		assert_false(signs(TLS_ROLE_SERVER, asked.data, asked.len));
	}
}

/* Where message `n` of the transcript begins, from 0. */
static size_t
message_at(int n)
{
	size_t at = 0;

	for (; n > 0; n--)
		at += 4 + ((size_t)asked.data[at + 1] << 16 |
			      (size_t)asked.data[at + 2] << 8 |
			      asked.data[at + 3]);
	return at;
}

static void
signs_whole_transcripts_only(void **state)
{
	unsigned char *d = asked.data, saved;
	size_t n;
	int i;

	(void)state;
	show_certificate(P256_KEY, TLS1_2_VERSION);
	n = asked.len;
	assert_true(signs(TLS_ROLE_CLIENT, d, n));
	assert_false(signs(TLS_ROLE_CLIENT, d, n - 1));
	assert_false(signs(TLS_ROLE_CLIENT, d, 0));
	memset(d + n, 0, 8);
	assert_false(signs(TLS_ROLE_CLIENT, d, n + 1));
	assert_false(signs(TLS_ROLE_CLIENT, d, n + 4));
	/* Without its beginning, or its end, at every message. */
	for (i = 1; message_at(i) < n; i++) {
		assert_false(signs(
		    TLS_ROLE_CLIENT, d + message_at(i), n - message_at(i)));
		assert_false(signs(TLS_ROLE_CLIENT, d, message_at(i)));
	}
	/* One of another type, at every place. */
	for (i = 0; message_at(i) < n; i++) {
		saved = d[message_at(i)];
		d[message_at(i)] = 20;
		assert_false(signs(TLS_ROLE_CLIENT, d, n));
		d[message_at(i)] = saved;
	}
	/* A length that leads out of it, or into the next message. */
	for (i = 0; message_at(i) < n; i++) {
		size_t at = message_at(i);

		saved = d[at + 1];
		d[at + 1] = 0xff;
		assert_false(signs(TLS_ROLE_CLIENT, d, n));
		d[at + 1] = saved;
	}
	/* Another version, that the server has chosen. */
	d[message_at(1) + 5] = 2;
	assert_false(signs(TLS_ROLE_CLIENT, d, n));
	d[message_at(1) + 5] = 3;
	assert_true(signs(TLS_ROLE_CLIENT, d, n));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(believes_whom_it_trusts),
	    cmocka_unit_test(refuses_all_others),
	    cmocka_unit_test(believes_anybody_if_told_so),
	    cmocka_unit_test(needs_a_name_to_verify),
	    cmocka_unit_test(heeds_records),
	    cmocka_unit_test(names_its_directives),
	    cmocka_unit_test(shows_its_certificate),
	    cmocka_unit_test(keeps_the_roles_apart),
	    cmocka_unit_test(signs_whole_transcripts_only),
	};

	return cmocka_run_group_tests(tests, make_all, remove_all);
}
