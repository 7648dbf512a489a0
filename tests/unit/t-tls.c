/*
 * The TLS module: both halves of it, wired together in one process, against
 * OpenSSL's own client. The client lives on memory, and pump() carries its
 * bytes, so that a test decides what the server sees and when.
 */
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "lib/tls.h"

extern const struct tls_api tls_api;
static const struct tls_api *const api = &tls_api;

enum {
	RSA_KEY,
	P256_KEY,
	P384_KEY,
	ED_KEY,
	KEYS
};

static struct {
	const char *name;
	EVP_PKEY *pkey;
	X509 *x509;
	char key[64], certificate[64];
} made[KEYS] = {
    {.name = "rsa"}, {.name = "p256"}, {.name = "p384"}, {.name = "ed"}};

static char folder[] = "/tmp/t-tls-XXXXXX";
static char err[TLS_ERROR_SIZE];

/* Making keys and files. */

static FILE *
create(const char *path, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

	assert_true(fd != -1);
	assert_int_equal(fchmod(fd, mode), 0);
	return fdopen(fd, "w");
}

/* Until some calls later. */
static const char *
in_folder(const char *name)
{
	static char paths[8][64];
	static unsigned next;
	char *path = paths[next++ % 8];

	(void)snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

/* A server's keys. */
static struct tls_keys *
load_files(char *const *certificates, char *const *keys, size_t count,
    const char *passwords)
{
	const struct tls_key_files files = {.certificates = certificates,
	    .keys = keys,
	    .count = count,
	    .passwords = passwords};

	return api->keys_load(TLS_ROLE_SERVER, &files, err);
}

static const char *
write_text(const char *name, const char *text)
{
	const char *path = in_folder(name);
	FILE *f = create(path, 0600);

	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
	return path;
}

static X509 *
make_certificate(EVP_PKEY *pkey)
{
	X509 *x509 = X509_new();
	X509_NAME *name = X509_get_subject_name(x509);
	bool ed = EVP_PKEY_is_a(pkey, "ED25519");

	assert_true(X509_set_version(x509, X509_VERSION_3));
	assert_true(ASN1_INTEGER_set(X509_get_serialNumber(x509), 7));
	assert_non_null(X509_gmtime_adj(X509_getm_notBefore(x509), -60));
	assert_non_null(X509_gmtime_adj(X509_getm_notAfter(x509), 3600));
	assert_true(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
	    (const unsigned char *)"mx.example", -1, -1, 0));
	assert_true(X509_set_issuer_name(x509, name));
	assert_true(X509_set_pubkey(x509, pkey));
	assert_true(X509_sign(x509, pkey, ed ? NULL : EVP_sha256()) > 0);
	return x509;
}

static const char *
name_of(int i, const char *suffix)
{
	char name[32];

	(void)snprintf(name, sizeof(name), "%s.%s", made[i].name, suffix);
	return in_folder(name);
}

static void
write_key(const char *path, EVP_PKEY *pkey, const EVP_CIPHER *cipher,
    const char *passphrase, bool traditional)
{
	int len = passphrase != NULL ? (int)strlen(passphrase) : 0;
	BIO *bio = BIO_new_fp(create(path, 0640), BIO_CLOSE);

	if (traditional)
		assert_true(
		    PEM_write_bio_PrivateKey_traditional(bio, pkey, cipher,
			(const unsigned char *)passphrase, len, NULL, NULL));
	else
		assert_true(PEM_write_bio_PKCS8PrivateKey(
		    bio, pkey, cipher, passphrase, len, NULL, NULL));
	assert_int_equal(BIO_free(bio), 1);
}

static void
make(int i, EVP_PKEY *pkey)
{
	X509 *x509 = make_certificate(pkey);
	FILE *f = create(name_of(i, "crt"), 0644);

	assert_true(PEM_write_X509(f, x509));
	assert_int_equal(fclose(f), 0);
	X509_free(x509);
	write_key(name_of(i, "key"), pkey, NULL, NULL, false);
	write_key(name_of(i, "256"), pkey, EVP_aes_256_cbc(), "secret", false);
	write_key(name_of(i, "128"), pkey, EVP_aes_128_cbc(), "other", false);
	write_key(name_of(i, "bad"), pkey, EVP_aes_256_cbc(), "Secret", false);
	if (i != ED_KEY) {
		write_key(name_of(i, "old"), pkey, NULL, NULL, true);
		write_key(name_of(i, "old-aes"), pkey, EVP_aes_256_cbc(),
		    "secret", true);
		write_key(name_of(i, "old-des"), pkey, EVP_des_ede3_cbc(),
		    "other", true);
		write_key(name_of(i, "old-bad"), pkey, EVP_aes_256_cbc(),
		    "Secret", true);
	}
	EVP_PKEY_free(pkey);
}

static void
take(int i)
{
	FILE *f;

	(void)snprintf(
	    made[i].key, sizeof(made[i].key), "%s", name_of(i, "key"));
	(void)snprintf(made[i].certificate, sizeof(made[i].certificate), "%s",
	    name_of(i, "crt"));
	f = fopen(made[i].key, "re");
	assert_non_null(f);
	made[i].pkey = PEM_read_PrivateKey(f, NULL, NULL, NULL);
	(void)fclose(f);
	f = fopen(made[i].certificate, "re");
	assert_non_null(f);
	made[i].x509 = PEM_read_X509(f, NULL, NULL, NULL);
	(void)fclose(f);
	assert_non_null(made[i].pkey);
	assert_non_null(made[i].x509);
}

/*
 * The files are made by a process of its own, whose OpenSSL is started in the
 * ordinary way; in this one the module is the first to start it.
 */
static int
make_all(void **state)
{
	int i, status;
	pid_t pid;

	(void)state;
	if (mkdtemp(folder) == NULL)
		return -1;
	pid = fork();
	if (pid == 0) {
		make(RSA_KEY, EVP_RSA_gen(2048));
		make(P256_KEY, EVP_EC_gen("P-256"));
		make(P384_KEY, EVP_EC_gen("P-384"));
		make(ED_KEY, EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"));
		_exit(0);
	}
	if (pid == -1 || waitpid(pid, &status, 0) != pid || status != 0)
		return -1;
	api->keys_free(load_files(NULL, NULL, 0, ""));
	for (i = 0; i < KEYS; i++)
		take(i);
	return 0;
}

static int
remove_all(void **state)
{
	char command[64];
	int i;

	(void)state;
	for (i = 0; i < KEYS; i++) {
		EVP_PKEY_free(made[i].pkey);
		X509_free(made[i].x509);
	}
	(void)snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command);
}

/* Both ends. */

static struct tls_keys *
load(const char *certificate, const char *key, const char *password_file)
{
	char *certificates[] = {(char *)(uintptr_t)certificate};
	char *keys[] = {(char *)(uintptr_t)key};

	(void)snprintf(err, sizeof(err), "untouched");
	return load_files(certificates, keys, 1, password_file);
}

static struct tls_keys *
load_made(int i)
{
	struct tls_keys *keys = load(made[i].certificate, made[i].key, "");

	if (keys == NULL)
		fail_msg("%s", err);
	return keys;
}

static enum tls_scheme asked_scheme;
static unsigned asked_key;

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
	asked_scheme = scheme;
	asked_key = key;
	return api->keys_sign(
	    arg, name, key, scheme, data, len, sig, size);
}

static const struct tls_settings settings_default;

static struct tls_server *
new_server(const struct tls_settings *settings, struct tls_keys *keys)
{
	struct tls_keyring ring = {keys, ring_certificates, ring_sign};
	struct tls_server *server = api->server_new(settings, err);

	if (server == NULL || api->server_keys(server, &ring, err) == -1)
		fail_msg("%s", err);
	return server;
}

/* The two ends of one connection; `fd` is the network's end of `tls`. */
struct pair {
	struct tls_server *server;
	struct tls *tls;
	int in, out; /* the test's side: to the server, from it */
	int rfd, wfd;
	SSL_CTX *ctx;
	SSL *ssl;
	enum tls_want want; /* the server's last outcome of a handshake */
};

static void
connect_fds(struct pair *p, bool pipes)
{
	int fds[2], back[2];

	if (pipes) {
		assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
		assert_int_equal(pipe2(back, O_NONBLOCK | O_CLOEXEC), 0);
		p->rfd = fds[0];
		p->in = fds[1];
		p->out = back[0];
		p->wfd = back[1];
	} else {
		assert_int_equal(
		    socketpair(AF_UNIX,
			SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds),
		    0);
		p->rfd = p->wfd = fds[0];
		p->in = p->out = fds[1];
	}
}

static void
open_pair(struct pair *p, struct tls_server *server, int version)
{
	memset(p, 0, sizeof(*p));
	p->server = server;
	connect_fds(p, false);
	p->tls = api->accept(server, p->rfd, p->wfd);
	assert_non_null(p->tls);
	p->ctx = SSL_CTX_new(TLS_client_method());
	assert_non_null(p->ctx);
	assert_true(SSL_CTX_set_min_proto_version(p->ctx, version));
	assert_true(SSL_CTX_set_max_proto_version(p->ctx, version));
	p->ssl = SSL_new(p->ctx);
	assert_non_null(p->ssl);
	SSL_set_bio(p->ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	SSL_set_connect_state(p->ssl);
}

static void
close_pair(struct pair *p)
{
	api->free(p->tls);
	SSL_free(p->ssl);
	SSL_CTX_free(p->ctx);
	(void)close(p->in);
	(void)close(p->rfd);
	if (p->out != p->in)
		(void)close(p->out);
	if (p->wfd != p->rfd)
		(void)close(p->wfd);
}

/* To the server, `max` octets at most. */
static size_t
pump_in(struct pair *p, size_t max)
{
	static char buf[1 << 20];
	int n;

	if (max > sizeof(buf))
		max = sizeof(buf);
	n = BIO_read(SSL_get_wbio(p->ssl), buf, (int)max);
	if (n <= 0)
		return 0;
	assert_int_equal(write(p->in, buf, (size_t)n), n);
	return (size_t)n;
}

static size_t
pump_out(struct pair *p)
{
	char buf[65536];
	ssize_t n = read(p->out, buf, sizeof(buf));

	if (n <= 0)
		return 0;
	assert_int_equal(BIO_write(SSL_get_rbio(p->ssl), buf, (int)n), n);
	return (size_t)n;
}

/* Runs both handshakes as far as they go. Whether the client's is done. */
static bool
shake(struct pair *p)
{
	bool done = false;
	int i;

	p->want = TLS_WANT_READ;
	for (i = 0; i < 10; i++) {
		done = SSL_do_handshake(p->ssl) == 1;
		(void)pump_in(p, SIZE_MAX);
		if (p->want == TLS_WANT_READ)
			p->want = api->handshake(p->tls);
		(void)pump_out(p);
		if (done && p->want == TLS_DONE)
			break;
	}
	return done;
}

static void
must_shake(struct pair *p)
{
	if (!shake(p) || p->want != TLS_DONE) {
		ERR_print_errors_fp(stderr);
		fail_msg("handshake: %d %s", p->want, api->error(p->tls));
	}
	assert_string_equal(api->error(p->tls), "");
}

/* `text` from the client is what the server reads, and the other way. */
static void
talk(struct pair *p)
{
	char buf[64];
	size_t n;

	assert_true(SSL_write(p->ssl, "EHLO x\r\n", 8) == 8);
	(void)pump_in(p, SIZE_MAX);
	assert_int_equal(api->read(p->tls, buf, sizeof(buf), &n), TLS_DONE);
	assert_int_equal(n, 8);
	assert_memory_equal(buf, "EHLO x\r\n", 8);
	assert_int_equal(
	    api->read(p->tls, buf, sizeof(buf), &n), TLS_WANT_READ);
	assert_false(api->pending(p->tls));
	assert_int_equal(api->write(p->tls, "250 y\r\n", 7, &n), TLS_DONE);
	assert_int_equal(n, 7);
	(void)pump_out(p);
	assert_int_equal(SSL_read(p->ssl, buf, sizeof(buf)), 7);
	assert_memory_equal(buf, "250 y\r\n", 7);
}

/* Handshakes. */

static void
handshake_with(int key, int version, const char *protocol)
{
	struct tls_keys *keys = load_made(key);
	struct tls_server *server = new_server(&settings_default, keys);
	const struct tls_facts *facts;
	struct pair p;
	X509 *shown;

	open_pair(&p, server, version);
	must_shake(&p);
	facts = api->facts(p.tls);
	assert_string_equal(facts->protocol, protocol);
	assert_string_equal(facts->cipher, SSL_get_cipher_name(p.ssl));
	assert_string_equal(facts->server_name, "");
	assert_false(facts->resumed);
	shown = SSL_get1_peer_certificate(p.ssl);
	assert_int_equal(X509_cmp(shown, made[key].x509), 0);
	X509_free(shown);
	talk(&p);
	close_pair(&p);
	api->server_free(server);
	api->keys_free(keys);
}

static void
shakes_hands_with_every_key(void **state)
{
	int i;

	(void)state;
	for (i = 0; i < KEYS; i++) {
		handshake_with(i, TLS1_2_VERSION, "TLSv1.2");
		handshake_with(i, TLS1_3_VERSION, "TLSv1.3");
	}
}

/* Keys 0 and 1, of which the client's algorithms choose. */
static void
chooses_between_rsa_and_ecdsa(void **state)
{
	static const struct {
		const char *algorithms;
		int version;
		unsigned key;
		enum tls_scheme scheme;
	} rows[] = {{"ECDSA+SHA256", TLS1_3_VERSION, 1, TLS_ECDSA_SHA256},
	    {"ECDSA+SHA256", TLS1_2_VERSION, 1, TLS_ECDSA_SHA256},
	    {"ECDSA+SHA512", TLS1_2_VERSION, 1, TLS_ECDSA_SHA512},
	    {"RSA-PSS+SHA256", TLS1_3_VERSION, 0, TLS_RSA_PSS_SHA256},
	    {"RSA-PSS+SHA384", TLS1_3_VERSION, 0, TLS_RSA_PSS_SHA384},
	    {"RSA-PSS+SHA512", TLS1_2_VERSION, 0, TLS_RSA_PSS_SHA512},
	    {"RSA+SHA256", TLS1_2_VERSION, 0, TLS_RSA_PKCS1_SHA256},
	    {"RSA+SHA384", TLS1_2_VERSION, 0, TLS_RSA_PKCS1_SHA384},
	    {"RSA+SHA512", TLS1_2_VERSION, 0, TLS_RSA_PKCS1_SHA512}};
	char *certificates[] = {
	    made[RSA_KEY].certificate, made[P256_KEY].certificate};
	char *files[] = {made[RSA_KEY].key, made[P256_KEY].key};
	struct tls_keys *keys;
	struct tls_server *server;
	struct pair p;
	size_t i;

	(void)state;
	keys = load_files(certificates, files, 2, NULL);
	assert_non_null(keys);
	server = new_server(&settings_default, keys);
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		open_pair(&p, server, rows[i].version);
		assert_true(SSL_set1_sigalgs_list(p.ssl, rows[i].algorithms));
		must_shake(&p);
		assert_int_equal(asked_key, rows[i].key);
		assert_int_equal(asked_scheme, rows[i].scheme);
		talk(&p);
		close_pair(&p);
	}
	/* A digest that no scheme has is no common ground. */
	open_pair(&p, server, TLS1_2_VERSION);
	assert_true(SSL_set1_sigalgs_list(p.ssl, "ECDSA+SHA224"));
	assert_false(shake(&p));
	assert_int_equal(p.want, TLS_ERROR);
	close_pair(&p);
	api->server_free(server);
	api->keys_free(keys);
}

/* One server for the tests that do not care which. */
struct common {
	struct tls_keys *keys;
	struct tls_server *server;
	struct pair p;
};

static void
set_up(struct common *c, int version)
{
	c->keys = load_made(P256_KEY);
	c->server = new_server(&settings_default, c->keys);
	open_pair(&c->p, c->server, version);
}

static void
tear_down(struct common *c)
{
	close_pair(&c->p);
	api->server_free(c->server);
	api->keys_free(c->keys);
}

static void
records_the_server_name(void **state)
{
	static const struct {
		const char *sent, *seen;
	} names[] = {{"mail.example", "mail.example"},
	    {"MX-1.example.", "MX-1.example."}, {"mail\r\nevent=auth", ""},
	    {"a b", ""}, {"a_b", ""}, {"\xc3\xa9.example", ""}};
	struct common c;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		set_up(&c, i % 2 == 0 ? TLS1_2_VERSION : TLS1_3_VERSION);
		assert_true(SSL_set_tlsext_host_name(c.p.ssl, names[i].sent));
		must_shake(&c.p);
		assert_string_equal(
		    api->facts(c.p.tls)->server_name, names[i].seen);
		tear_down(&c);
	}
}

static bool
shake_with_alpn(const char *list, size_t len, char *selected)
{
	const unsigned char *name;
	struct common c;
	unsigned n;
	bool done;

	set_up(&c, TLS1_3_VERSION);
	assert_int_equal(SSL_set_alpn_protos(c.p.ssl,
			     (const unsigned char *)list, (unsigned)len),
	    0);
	done = shake(&c.p) && c.p.want == TLS_DONE;
	SSL_get0_alpn_selected(c.p.ssl, &name, &n);
	(void)snprintf(selected, 16, "%.*s", (int)n, (const char *)name);
	if (!done) {
		assert_int_equal(c.p.want, TLS_ERROR);
		assert_int_equal(ERR_GET_REASON(ERR_peek_last_error()),
		    SSL_AD_REASON_OFFSET + SSL_AD_NO_APPLICATION_PROTOCOL);
		assert_string_equal(
		    api->error(c.p.tls), "no application protocol");
	}
	ERR_clear_error();
	tear_down(&c);
	return done;
}

static void
speaks_no_other_application_protocol(void **state)
{
	char selected[16];

	(void)state;
	assert_true(shake_with_alpn(NULL, 0, selected));
	assert_string_equal(selected, "");
	assert_true(shake_with_alpn("\4smtp", 5, selected));
	assert_string_equal(selected, "smtp");
	assert_true(shake_with_alpn("\2h2\4smtp", 8, selected));
	assert_string_equal(selected, "smtp");
	assert_false(shake_with_alpn("\2h2", 3, selected));
	assert_false(shake_with_alpn("\4imap\5smtps\4SMTP", 16, selected));
}

/* Data. */

static void
sees_data_behind_the_handshake(void **state)
{
	struct pollfd pfd = {.events = POLLIN};
	struct common c;
	char buf[64];
	size_t n;

	(void)state;
	set_up(&c, TLS1_3_VERSION);
	assert_false(SSL_do_handshake(c.p.ssl) == 1);
	(void)pump_in(&c.p, SIZE_MAX);
	assert_int_equal(api->handshake(c.p.tls), TLS_WANT_READ);
	(void)pump_out(&c.p);
	assert_true(SSL_do_handshake(c.p.ssl) == 1);
	/* The client talks at once: Finished and words come together. */
	assert_int_equal(SSL_write(c.p.ssl, "EHLO early\r\n", 12), 12);
	(void)pump_in(&c.p, SIZE_MAX);
	assert_int_equal(api->handshake(c.p.tls), TLS_DONE);
	pfd.fd = c.p.rfd;
	assert_int_equal(poll(&pfd, 1, 0), 0); /* nothing in the socket */
	assert_true(api->pending(c.p.tls));
	assert_int_equal(api->read(c.p.tls, buf, 4, &n), TLS_DONE);
	assert_int_equal(n, 4);
	assert_true(api->pending(c.p.tls));
	assert_int_equal(api->read(c.p.tls, buf, sizeof(buf), &n), TLS_DONE);
	assert_int_equal(n, 8);
	assert_false(api->pending(c.p.tls));
	tear_down(&c);
}

static void
is_not_pending_for_half_a_record(void **state)
{
	struct common c;
	char buf[64];
	size_t n;

	(void)state;
	set_up(&c, TLS1_3_VERSION);
	must_shake(&c.p);
	assert_int_equal(SSL_write(c.p.ssl, "NOOP\r\n", 6), 6);
	assert_int_equal(pump_in(&c.p, 9), 9);
	assert_int_equal(
	    api->read(c.p.tls, buf, sizeof(buf), &n), TLS_WANT_READ);
	assert_false(api->pending(c.p.tls));
	(void)pump_in(&c.p, SIZE_MAX);
	assert_int_equal(api->read(c.p.tls, buf, sizeof(buf), &n), TLS_DONE);
	assert_int_equal(n, 6);
	assert_false(api->pending(c.p.tls));
	/* Two records and a half: the second is read ahead, and some of it. */
	assert_int_equal(SSL_write(c.p.ssl, "NOOP\r\n", 6), 6);
	assert_int_equal(SSL_write(c.p.ssl, "RSET\r\n", 6), 6);
	n = pump_in(&c.p, SIZE_MAX);
	assert_int_equal(SSL_write(c.p.ssl, "QUIT\r\n", 6), 6);
	(void)pump_in(&c.p, n / 4);
	assert_int_equal(api->read(c.p.tls, buf, sizeof(buf), &n), TLS_DONE);
	assert_memory_equal(buf, "NOOP\r\n", 6);
	assert_true(api->pending(c.p.tls));
	assert_int_equal(api->read(c.p.tls, buf, sizeof(buf), &n), TLS_DONE);
	assert_memory_equal(buf, "RSET\r\n", 6);
	assert_int_equal(
	    api->read(c.p.tls, buf, sizeof(buf), &n), TLS_WANT_READ);
	assert_false(api->pending(c.p.tls));
	tear_down(&c);
}

/* A key update holds no data: read() goes on to the record behind it. */
static void
reads_over_records_without_data(void **state)
{
	struct common c;
	char buf[64];
	size_t n;

	(void)state;
	set_up(&c, TLS1_3_VERSION);
	must_shake(&c.p);
	assert_true(SSL_key_update(c.p.ssl, SSL_KEY_UPDATE_REQUESTED));
	assert_int_equal(SSL_write(c.p.ssl, "NOOP\r\n", 6), 6);
	(void)pump_in(&c.p, SIZE_MAX);
	assert_int_equal(api->read(c.p.tls, buf, sizeof(buf), &n), TLS_DONE);
	assert_int_equal(n, 6);
	talk(&c.p);
	tear_down(&c);
}

static void
carries_much_both_ways(void **state)
{
	enum {
		SIZE = 300000
	};
	static unsigned char sent[SIZE], got[SIZE];
	size_t n, at, read_at = 0;
	enum tls_want want;
	struct common c;
	int i;

	(void)state;
	for (i = 0; i < SIZE; i++)
		sent[i] = (unsigned char)(i * 7 >> 3);
	set_up(&c, TLS1_2_VERSION);
	must_shake(&c.p);
	assert_int_equal(SSL_write(c.p.ssl, sent, SIZE), SIZE);
	while (read_at < SIZE) {
		if (!api->pending(c.p.tls))
			(void)pump_in(&c.p, 50001);
		want = api->read(c.p.tls, got + read_at, SIZE - read_at, &n);
		if (want == TLS_DONE)
			read_at += n;
		else
			assert_int_equal(want, TLS_WANT_READ);
	}
	assert_memory_equal(got, sent, SIZE);
	memset(got, 0, sizeof(got));
	for (at = read_at = 0; read_at < SIZE;) {
		want = TLS_DONE;
		/* Moving the buffer between tries is allowed. */
		while (want == TLS_DONE && at < SIZE) {
			want = api->write(c.p.tls, sent + at, SIZE - at, &n);
			if (want == TLS_DONE)
				at += n;
			else
				assert_int_equal(want, TLS_WANT_WRITE);
		}
		(void)pump_out(&c.p);
		while ((i = SSL_read(
			    c.p.ssl, got + read_at, (int)(SIZE - read_at))) > 0)
			read_at += (size_t)i;
	}
	assert_memory_equal(got, sent, SIZE);
	tear_down(&c);
}

static void
works_over_two_pipes(void **state)
{
	struct common c;

	(void)state;
	set_up(&c, TLS1_3_VERSION);
	api->free(c.p.tls);
	(void)close(c.p.in);
	(void)close(c.p.rfd);
	connect_fds(&c.p, true);
	c.p.tls = api->accept(c.server, c.p.rfd, c.p.wfd);
	must_shake(&c.p);
	talk(&c.p);
	tear_down(&c);
}

static void
takes_every_end_for_an_end(void **state)
{
	struct common c;
	char buf[8];
	size_t n;
	int i;

	(void)state;
	for (i = 0; i < 2; i++) {
		set_up(&c, TLS1_3_VERSION);
		must_shake(&c.p);
		if (i == 0)
			(void)SSL_shutdown(c.p.ssl);
		(void)pump_in(&c.p, SIZE_MAX);
		if (i == 1)
			(void)shutdown(c.p.in, SHUT_WR);
		assert_int_equal(
		    api->read(c.p.tls, buf, sizeof(buf), &n), TLS_END);
		assert_false(api->pending(c.p.tls));
		/* Half closed: what is due can still be said. */
		assert_int_equal(
		    api->write(c.p.tls, "221\r\n", 5, &n), TLS_DONE);
		api->shutdown(c.p.tls);
		(void)pump_out(&c.p);
		assert_int_equal(SSL_read(c.p.ssl, buf, sizeof(buf)), 5);
		assert_int_equal(SSL_read(c.p.ssl, buf, sizeof(buf)), 0);
		assert_true(SSL_get_shutdown(c.p.ssl) & SSL_RECEIVED_SHUTDOWN);
		tear_down(&c);
	}
	set_up(&c, TLS1_3_VERSION);
	(void)SSL_do_handshake(c.p.ssl);
	(void)pump_in(&c.p, 20);
	(void)shutdown(c.p.in, SHUT_WR);
	assert_int_equal(api->handshake(c.p.tls), TLS_END);
	api->shutdown(c.p.tls);
	tear_down(&c);
}

/* Hostile peers. */

static void
names_a_peer_that_does_not_speak_tls(void **state)
{
	static const char *const words[] = {"EHLO client.example\r\n",
	    "QUIT\r\n", "GET / HTTP/1.0\r\n", "POST / HTTP/1.1\r\n",
	    "CONNECT x:25 HTTP/1.0\r\n", "\r\n\r\n\r\n"};
	struct common c;
	size_t i, n;

	(void)state;
	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		set_up(&c, TLS1_3_VERSION);
		n = strlen(words[i]);
		assert_int_equal(write(c.p.in, words[i], n), n);
		assert_int_equal(api->handshake(c.p.tls), TLS_ERROR);
		assert_string_equal(
		    api->error(c.p.tls), "not TLS (plain SMTP or HTTP)");
		/* Broken stays broken, and nothing comes of asking. */
		assert_int_equal(api->handshake(c.p.tls), TLS_ERROR);
		assert_int_equal(api->write(c.p.tls, "x", 1, &n), TLS_ERROR);
		assert_string_equal(
		    api->error(c.p.tls), "not TLS (plain SMTP or HTTP)");
		api->shutdown(c.p.tls);
		tear_down(&c);
	}
}

static void
explains_what_went_wrong(void **state)
{
	struct common c;
	char buf[8];
	size_t n;

	(void)state;
	/* An old version. */
	set_up(&c, TLS1_1_VERSION);
	SSL_set_security_level(c.p.ssl, 0);
	assert_false(shake(&c.p));
	assert_int_equal(c.p.want, TLS_ERROR);
	assert_string_equal(api->error(c.p.tls), "unsupported protocol");
	tear_down(&c);
	/* A record that was tampered with. */
	set_up(&c, TLS1_3_VERSION);
	must_shake(&c.p);
	assert_int_equal(write(c.p.in,
			     "\x17\3\3\0\x20"
			     "0123456789abcdef0123456789abcdef",
			     37),
	    37);
	assert_int_equal(api->read(c.p.tls, buf, sizeof(buf), &n), TLS_ERROR);
	assert_non_null(strstr(api->error(c.p.tls), "bad record mac"));
	assert_false(api->pending(c.p.tls));
	tear_down(&c);
	/* A client that knows none of our certificate's issuers. */
	set_up(&c, TLS1_3_VERSION);
	SSL_set_verify(c.p.ssl, SSL_VERIFY_PEER, NULL);
	(void)shake(&c.p);
	if (c.p.want == TLS_DONE)
		c.p.want = api->read(c.p.tls, buf, sizeof(buf), &n);
	assert_int_equal(c.p.want, TLS_ERROR);
	assert_string_equal(api->error(c.p.tls), "tlsv1 alert unknown ca");
	tear_down(&c);
}

static void
does_not_renegotiate(void **state)
{
	struct common c;
	char buf[8];
	size_t n;

	(void)state;
	set_up(&c, TLS1_2_VERSION);
	must_shake(&c.p);
	assert_true(SSL_renegotiate(c.p.ssl));
	assert_int_equal(SSL_do_handshake(c.p.ssl), -1);
	(void)pump_in(&c.p, SIZE_MAX);
	assert_int_equal(
	    api->read(c.p.tls, buf, sizeof(buf), &n), TLS_WANT_READ);
	(void)pump_out(&c.p);
	assert_int_equal(SSL_do_handshake(c.p.ssl), -1);
	assert_int_equal(
	    ERR_GET_REASON(ERR_peek_last_error()), SSL_R_NO_RENEGOTIATION);
	ERR_clear_error();
	tear_down(&c);
}

static void
never_exchanges_keys_by_rsa_or_dhe(void **state)
{
	static const char *const lists[] = {"kRSA", "DHE+aRSA"};
	struct tls_settings settings = {.ciphers = "ALL:@SECLEVEL=0"};
	struct tls_keys *keys = load_made(RSA_KEY);
	struct tls_server *server = new_server(&settings, keys);
	struct pair p;
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		open_pair(&p, server, TLS1_2_VERSION);
		assert_true(SSL_set_cipher_list(p.ssl, lists[i]));
		assert_false(shake(&p));
		assert_int_equal(p.want, TLS_ERROR);
		assert_string_equal(api->error(p.tls), "no shared cipher");
		close_pair(&p);
	}
	api->server_free(server);
	api->keys_free(keys);
}

static void
gives_no_ticket(void **state)
{
	SSL_SESSION *session;
	struct common c;

	(void)state;
	set_up(&c, TLS1_3_VERSION);
	must_shake(&c.p);
	talk(&c.p);
	session = SSL_get1_session(c.p.ssl);
	assert_false(SSL_SESSION_has_ticket(session));
	SSL_SESSION_free(session);
	tear_down(&c);
}

/* Settings. */

static const char *
refusal(const struct tls_settings *settings)
{
	struct tls_server *server;

	(void)snprintf(err, sizeof(err), "untouched");
	server = api->server_new(settings, err);
	assert_null(server);
	assert_null(strchr(err, '\n'));
	return err;
}

static void
reads_nginxs_words(void **state)
{
	static const char *const good[] = {
	    "TLSv1.2", "TLSv1.3", " TLSv1  TLSv1.1 TLSv1.2\tTLSv1.3 ", ""};
	static const char *const bad[] = {"TLSv1", "TLSv1 TLSv1.1", "SSLv3",
	    "TLSv1.2 tlsv1.3", "TLSv1.4", "TLSv1.2,TLSv1.3", " "};
	struct tls_settings s = {0};
	struct tls_server *server;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		s.protocols = good[i];
		server = api->server_new(&s, err);
		assert_non_null(server);
		api->server_free(server);
	}
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		s.protocols = bad[i];
		assert_memory_equal(refusal(&s), "ssl_protocols: ", 15);
	}
	s = (struct tls_settings){.ciphers = "AES256-SHA"};
	assert_memory_equal(refusal(&s), "ssl_ciphers: ", 13);
	s = (struct tls_settings){.ciphers = "nonsense"};
	assert_memory_equal(refusal(&s), "ssl_ciphers: ", 13);
	s = (struct tls_settings){.ecdh_curve = "X25519:nonsense"};
	assert_memory_equal(refusal(&s), "ssl_ecdh_curve: ", 16);
	api->server_free(NULL);
	api->free(NULL);
	api->keys_free(NULL);
}

static void
does_as_it_is_set(void **state)
{
	struct tls_settings s = {.protocols = "TLSv1.2",
	    .ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256:"
		       "ECDHE-ECDSA-AES256-GCM-SHA384",
	    .ecdh_curve = "secp384r1:prime256v1",
	    .prefer_server_ciphers = true};
	struct tls_keys *keys = load_made(P256_KEY);
	struct tls_server *server = new_server(&s, keys);
	struct pair p;

	(void)state;
	open_pair(&p, server, TLS1_3_VERSION);
	assert_false(shake(&p));
	close_pair(&p);
	open_pair(&p, server, TLS1_2_VERSION);
	assert_true(
	    SSL_set_cipher_list(p.ssl, "ECDHE-ECDSA-AES256-GCM-SHA384:"
				       "ECDHE-ECDSA-AES128-GCM-SHA256"));
	assert_true(SSL_set1_curves_list(p.ssl, "X25519:P-384:P-256"));
	must_shake(&p);
	assert_string_equal(
	    api->facts(p.tls)->cipher, "ECDHE-ECDSA-AES128-GCM-SHA256");
	close_pair(&p);
	api->server_free(server);
	api->keys_free(keys);
}

/* The keeper's answers, which a server must survive whatever they are. */

enum lie {
	NO_ANSWER,
	TOO_LONG,
	WRONG_SIGNATURE,
	NO_KEY,
	GARBAGE,
	CUT
};

struct liar {
	struct tls_keys *keys;
	enum lie lie;
};

static int
liar_certificates(
    void *arg, const char *name, unsigned key, struct tls_chain *chain)
{
	struct liar *liar = arg;
	int r = api->keys_certificates(liar->keys, name, key, chain, err);

	switch (liar->lie) {
	case NO_ANSWER:
		return -1;
	case TOO_LONG:
		chain->len = sizeof(chain->bytes) + 1;
		return 1;
	case NO_KEY:
		return 0;
	case GARBAGE:
		memset(chain->bytes, 'x', 100);
		chain->len = 100;
		return 1;
	case CUT:
		chain->len--;
		return r;
	case WRONG_SIGNATURE:
		break;
	}
	return r;
}

static ssize_t
liar_sign(void *arg, const char *name, unsigned key, enum tls_scheme scheme,
    const void *data, size_t len, unsigned char *sig, size_t size)
{
	struct liar *liar = arg;

	(void)name;
	(void)key;
	(void)scheme;
	(void)data;
	(void)len;
	if (liar->lie == TOO_LONG)
		return (ssize_t)size + 1;
	if (liar->lie != WRONG_SIGNATURE)
		return liar->lie == NO_KEY ? 0 : -1;
	memset(sig, 'x', size);
	return (ssize_t)size;
}

static void
survives_a_keeper_without_certificates(void **state)
{
	struct liar liar = {.keys = load_made(P256_KEY)};
	struct tls_keyring ring = {&liar, liar_certificates, liar_sign};
	static const enum lie lies[] = {
	    NO_ANSWER, TOO_LONG, NO_KEY, GARBAGE, CUT};
	struct tls_server *server;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		liar.lie = lies[i];
		server = api->server_new(&settings_default, err);
		assert_non_null(server);
		err[0] = '\0';
		assert_int_equal(api->server_keys(server, &ring, err), -1);
		assert_string_not_equal(err, "");
		api->server_free(server);
	}
	api->keys_free(liar.keys);
}

static void
survives_a_keeper_that_does_not_sign(void **state)
{
	static const enum lie lies[] = {NO_ANSWER, TOO_LONG, NO_KEY};
	struct liar liar = {NULL, WRONG_SIGNATURE};
	struct tls_keyring ring = {&liar, liar_certificates, liar_sign};
	struct tls_server *server = api->server_new(&settings_default, err);
	struct pair p;
	size_t i;

	(void)state;
	liar.keys = load_made(RSA_KEY);
	assert_int_equal(api->server_keys(server, &ring, err), 0);
	for (i = 0; i < 6; i++) {
		liar.lie = lies[i / 2];
		open_pair(
		    &p, server, i % 2 == 0 ? TLS1_2_VERSION : TLS1_3_VERSION);
		assert_false(shake(&p));
		assert_int_equal(p.want, TLS_ERROR);
		assert_string_equal(
		    api->error(p.tls), "the keeper did not sign the handshake");
		close_pair(&p);
	}
	liar.lie = WRONG_SIGNATURE;
	open_pair(&p, server, TLS1_3_VERSION);
	assert_false(shake(&p));
	close_pair(&p);
	api->server_free(server);
	api->keys_free(liar.keys);
}

/* Keys and certificates in files. */

/* Loads key `i` from the file, and has a handshake done with it. */
static void
must_serve(int i, const char *key, const char *password_file)
{
	struct tls_keys *keys = load(made[i].certificate, key, password_file);
	struct tls_server *server;
	struct pair p;

	if (keys == NULL)
		fail_msg("%s", err);
	server = new_server(&settings_default, keys);
	open_pair(&p, server, TLS1_3_VERSION);
	must_shake(&p);
	close_pair(&p);
	api->server_free(server);
	api->keys_free(keys);
}

static void
must_refuse(const char *certificate, const char *key, const char *password_file,
    const char *why)
{
	assert_null(load(certificate, key, password_file));
	assert_null(strchr(err, '\n'));
	if (strstr(err, why) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", err, why);
}

static void
opens_keys_in_every_form(void **state)
{
	static const char *const sealed[] = {
	    "256", "128", "old-aes", "old-des"};
	char words[64];
	size_t form;
	int i;

	(void)state;
	(void)snprintf(words, sizeof(words), "%s",
	    write_text("words", "wrong\n\nsecret\r\nother"));
	for (i = 0; i < KEYS; i++) {
		for (form = 0; form < (i == ED_KEY ? 2 : 4); form++) {
			must_serve(i, name_of(i, sealed[form]), words);
			must_refuse(made[i].certificate,
			    name_of(i, sealed[form]), "", "encrypted");
		}
		must_refuse(
		    made[i].certificate, name_of(i, "bad"), words, "encrypted");
		if (i == ED_KEY)
			continue;
		must_serve(i, name_of(i, "old"), "");
		must_refuse(made[i].certificate, name_of(i, "old-bad"), words,
		    "encrypted");
	}
	must_refuse(made[0].certificate, made[0].key, "/nowhere",
	    "ssl_password_file /nowhere: No such file");
}

/* RFC 5915 has the public point optional. */
static void
opens_a_curves_key_without_its_point(void **state)
{
	const char *path = in_folder("pointless.key");

	(void)state;
	assert_true(EVP_PKEY_set_int_param(
	    made[P256_KEY].pkey, OSSL_PKEY_PARAM_EC_INCLUDE_PUBLIC, 0));
	write_key(path, made[P256_KEY].pkey, NULL, NULL, false);
	must_serve(P256_KEY, path, "");
	assert_true(EVP_PKEY_set_int_param(
	    made[P256_KEY].pkey, OSSL_PKEY_PARAM_EC_INCLUDE_PUBLIC, 1));
}

/* A chain of two and the key, behind parameters and words, in one file. */
static void
finds_key_and_chain_in_one_file(void **state)
{
	const char *path = in_folder("all.pem");
	FILE *f = create(path, 0600);
	static struct tls_chain chain;
	struct tls_keys *keys;
	ssize_t leaf;

	(void)state;
	assert_true(fputs("Bag Attributes: none\n-----BEGIN EC PARAMETERS-----"
			  "\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n",
			f) >= 0);
	assert_true(PEM_write_PrivateKey(
	    f, made[P256_KEY].pkey, NULL, NULL, 0, NULL, NULL));
	assert_true(PEM_write_X509(f, made[P256_KEY].x509));
	assert_true(PEM_write_X509(f, made[RSA_KEY].x509));
	assert_int_equal(fclose(f), 0);
	must_serve(P256_KEY, path, "");
	keys = load(path, path, "");
	assert_non_null(keys);
	leaf = i2d_X509(made[P256_KEY].x509, NULL);
	assert_int_equal(api->keys_certificates(keys, "", 0, &chain, err), 1);
	assert_int_equal(
	    chain.len, 6 + leaf + i2d_X509(made[RSA_KEY].x509, NULL));
	assert_int_equal(chain.bytes[0] << 16 | chain.bytes[1] << 8 |
		chain.bytes[2], leaf);
	assert_int_equal(chain.staple_len, 0);
	assert_int_equal(api->keys_certificates(keys, "", 1, &chain, err), 0);
	assert_int_equal(api->keys_certificates(keys, "x", 0, &chain, err), 0);
	api->keys_free(keys);
}

static void
refuses_a_key_that_others_may_read(void **state)
{
	static const mode_t modes[] = {0644, 0604, 0602, 0601};
	const char *path = in_folder("open.key");
	size_t i;

	(void)state;
	write_key(path, made[P256_KEY].pkey, NULL, NULL, false);
	for (i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		assert_int_equal(chmod(path, modes[i]), 0);
		must_refuse(made[P256_KEY].certificate, path, "", "others");
		assert_non_null(strstr(err, path));
	}
	assert_int_equal(chmod(path, 0640), 0);
	must_serve(P256_KEY, path, "");
}

static void
refuses_a_key_of_another_certificate(void **state)
{
	EVP_PKEY *others[KEYS];
	int i, j;

	(void)state;
	for (i = 0; i < KEYS; i++)
		for (j = 0; j < KEYS; j++)
			if (i != j)
				must_refuse(made[i].certificate, made[j].key,
				    "", "does not belong");
	/* Of the same type. */
	others[RSA_KEY] = EVP_RSA_gen(2048);
	others[P256_KEY] = EVP_EC_gen("P-256");
	others[P384_KEY] = EVP_EC_gen("P-384");
	others[ED_KEY] = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	for (i = 0; i < KEYS; i++) {
		const char *path = in_folder("other.key");
		FILE *f = create(path, 0600);

		assert_true(PEM_write_PrivateKey(
		    f, others[i], NULL, NULL, 0, NULL, NULL));
		assert_int_equal(fclose(f), 0);
		must_refuse(made[i].certificate, path, "", "does not belong");
		EVP_PKEY_free(others[i]);
	}
}

static void
refuses_files_that_are_no_keys(void **state)
{
	static const char head[] = "-----BEGIN PRIVATE KEY-----\n";
	static const char tail[] = "-----END PRIVATE KEY-----\n";
	const char *crt = made[P256_KEY].certificate;
	const char *key = made[P256_KEY].key;
	char text[256], *many[TLS_MAX_KEYS + 1] = {NULL};
	EVP_PKEY *ed448 = EVP_PKEY_Q_keygen(NULL, NULL, "ED448");
	FILE *f;

	(void)state;
	must_refuse("/nowhere", key, "", "/nowhere: No such file");
	must_refuse(crt, "/nowhere", "", "/nowhere: No such file");
	must_refuse(folder, key, "", "not a regular file");
	must_refuse(write_text("empty", ""), key, "", "empty");
	must_refuse(key, key, "", "no certificate in it");
	must_refuse(crt, write_text("x", "hello\n"), "", "no private key");
	(void)snprintf(text, sizeof(text), "%sMA==\n%s", head, tail);
	must_refuse(crt, write_text("x", text), "", "not a key of a kind");
	(void)snprintf(text, sizeof(text), "%s!!!\n%s", head, tail);
	must_refuse(crt, write_text("x", text), "", "no private key");
	must_refuse(write_text("x", "-----BEGIN CERTIFICATE-----\nMAA=\n"
				    "-----END CERTIFICATE-----\n"),
	    key, "", "certificate is broken");
	must_refuse(write_text("x", "-----BEGIN CERTIFICATE-----\nMAA\n"), key,
	    "", "broken PEM");
	f = create(in_folder("x"), 0600);
	assert_true(PEM_write_PrivateKey(f, ed448, NULL, NULL, 0, NULL, NULL));
	assert_int_equal(fclose(f), 0);
	must_refuse(crt, in_folder("x"), "", "does not belong");
	EVP_PKEY_free(ed448);
	assert_null(load_files(many, many, TLS_MAX_KEYS + 1, ""));
}

static void
refuses_a_chain_without_end(void **state)
{
	const char *path = in_folder("long.crt");
	FILE *f = create(path, 0644);
	int i;

	(void)state;
	for (i = 0; i < 40; i++)
		assert_true(PEM_write_X509(f, made[RSA_KEY].x509));
	assert_int_equal(fclose(f), 0);
	must_refuse(path, made[RSA_KEY].key, "", "too many");
}

static void
refuses_two_keys_of_one_type(void **state)
{
	char *certificates[] = {
	    made[P256_KEY].certificate, made[P384_KEY].certificate};
	char *files[] = {made[P256_KEY].key, made[P384_KEY].key};
	struct tls_keys *keys;
	struct tls_keyring ring = {NULL, ring_certificates, ring_sign};
	struct tls_server *server = api->server_new(&settings_default, err);

	(void)state;
	keys = load_files(certificates, files, 2, NULL);
	assert_non_null(keys);
	ring.arg = keys;
	assert_int_equal(api->server_keys(server, &ring, err), -1);
	assert_non_null(strstr(err, "ssl_certificate number 2"));
	api->server_free(server);
	api->keys_free(keys);
}

/* The keeper's refusals. */

static unsigned char tbs[512], sig[TLS_MAX_SIGNATURE];

/* What TLS 1.3's server signs. Its length. */
static size_t
fill_13(size_t hash)
{
	static const char words[] = "TLS 1.3, server CertificateVerify";

	memset(tbs, 'h', sizeof(tbs));
	memset(tbs, ' ', 64);
	memcpy(tbs + 64, words, sizeof(words));
	return 64 + sizeof(words) + hash;
}

/* What TLS 1.2's server signs. */
static size_t
fill_12(unsigned curve, unsigned point)
{
	memset(tbs, 'r', sizeof(tbs));
	tbs[64] = 3;
	tbs[65] = (unsigned char)(curve >> 8);
	tbs[66] = (unsigned char)curve;
	tbs[67] = (unsigned char)point;
	return 64 + 4 + point;
}

static bool
signs(struct tls_keys *keys, enum tls_scheme scheme, size_t len)
{
	return api->keys_sign(keys, "", 0, scheme, tbs, len, sig, sizeof(sig)) > 0;
}

static void
signs_for_tls_13_only_what_it_asks(void **state)
{
	struct tls_keys *keys = load_made(P256_KEY);
	size_t n;

	(void)state;
	assert_true(signs(keys, TLS_ECDSA_SHA256, fill_13(32)));
	assert_true(signs(keys, TLS_ECDSA_SHA256, fill_13(48)));
	assert_int_equal(api->keys_sign(keys, "", 1, TLS_ECDSA_SHA256, tbs,
			     fill_13(32), sig, sizeof(sig)),
	    -1);
	assert_int_equal(
	    api->keys_sign(keys, "", 0, TLS_ECDSA_SHA256, tbs, fill_13(32), sig, 8),
	    -1);
	assert_false(signs(keys, TLS_ECDSA_SHA256, fill_13(31)));
	assert_false(signs(keys, TLS_ECDSA_SHA256, fill_13(33)));
	assert_false(signs(keys, TLS_ECDSA_SHA256, fill_13(64)));
	assert_false(signs(keys, TLS_ECDSA_SHA256, fill_13(0)));
	assert_false(signs(keys, TLS_ECDSA_SHA256, 0));
	n = fill_13(32);
	tbs[63] = 'x';
	assert_false(signs(keys, TLS_ECDSA_SHA256, n));
	n = fill_13(32);
	tbs[97] = 1; /* the NUL */
	assert_false(signs(keys, TLS_ECDSA_SHA256, n));
	n = fill_13(32);
	memcpy(tbs + 73, "client", 6);
	assert_false(signs(keys, TLS_ECDSA_SHA256, n));
	api->keys_free(keys);
}

static void
signs_for_tls_12_only_what_it_asks(void **state)
{
	struct tls_keys *keys = load_made(P256_KEY);
	size_t n;

	(void)state;
	assert_true(signs(keys, TLS_ECDSA_SHA256, fill_12(29, 32)));
	assert_true(signs(keys, TLS_ECDSA_SHA384, fill_12(23, 65)));
	assert_true(signs(keys, TLS_ECDSA_SHA512, fill_12(24, 97)));
	assert_false(signs(keys, TLS_ECDSA_SHA256, fill_12(29, 33)));
	assert_false(signs(keys, TLS_ECDSA_SHA256, fill_12(29, 32) + 1));
	assert_false(signs(keys, TLS_ECDSA_SHA256, fill_12(29, 32) - 1));
	assert_false(signs(keys, TLS_ECDSA_SHA256, fill_12(22, 65)));
	assert_false(signs(keys, TLS_ECDSA_SHA256, 67));
	n = fill_12(29, 32);
	tbs[64] = 1; /* an explicit curve */
	assert_false(signs(keys, TLS_ECDSA_SHA256, n));
	memset(tbs, 'x', sizeof(tbs));
	for (n = 0; n <= sizeof(tbs); n++)
		assert_false(signs(keys, TLS_ECDSA_SHA256, n));
	api->keys_free(keys);
}

static void
signs_only_with_schemes_of_the_key(void **state)
{
	static const struct {
		enum tls_scheme scheme;
		bool rsa, ec, ed, in_13;
	} rows[] = {{TLS_RSA_PKCS1_SHA256, true, false, false, false},
	    {TLS_RSA_PKCS1_SHA384, true, false, false, false},
	    {TLS_RSA_PKCS1_SHA512, true, false, false, false},
	    {TLS_RSA_PSS_SHA256, true, false, false, true},
	    {TLS_RSA_PSS_SHA384, true, false, false, true},
	    {TLS_RSA_PSS_SHA512, true, false, false, true},
	    {TLS_ECDSA_SHA256, false, true, false, true},
	    {TLS_ECDSA_SHA384, false, true, false, true},
	    {TLS_ECDSA_SHA512, false, true, false, true},
	    {TLS_ED25519, false, false, true, true},
	    {(enum tls_scheme)0x0201, false, false, false, false},
	    {(enum tls_scheme)0, false, false, false, false}};
	struct tls_keys *keys;
	bool fits;
	size_t i;
	int k;

	(void)state;
	for (k = 0; k < KEYS; k++) {
		keys = load_made(k);
		for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
			fits = k == RSA_KEY  ? rows[i].rsa
			       : k == ED_KEY ? rows[i].ed
					     : rows[i].ec;
			assert_int_equal(
			    signs(keys, rows[i].scheme, fill_12(29, 32)), fits);
			assert_int_equal(
			    signs(keys, rows[i].scheme, fill_13(32)),
			    fits && rows[i].in_13);
		}
		api->keys_free(keys);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(shakes_hands_with_every_key),
	    cmocka_unit_test(chooses_between_rsa_and_ecdsa),
	    cmocka_unit_test(records_the_server_name),
	    cmocka_unit_test(speaks_no_other_application_protocol),
	    cmocka_unit_test(sees_data_behind_the_handshake),
	    cmocka_unit_test(is_not_pending_for_half_a_record),
	    cmocka_unit_test(reads_over_records_without_data),
	    cmocka_unit_test(carries_much_both_ways),
	    cmocka_unit_test(works_over_two_pipes),
	    cmocka_unit_test(takes_every_end_for_an_end),
	    cmocka_unit_test(names_a_peer_that_does_not_speak_tls),
	    cmocka_unit_test(explains_what_went_wrong),
	    cmocka_unit_test(does_not_renegotiate),
	    cmocka_unit_test(never_exchanges_keys_by_rsa_or_dhe),
	    cmocka_unit_test(gives_no_ticket),
	    cmocka_unit_test(reads_nginxs_words),
	    cmocka_unit_test(does_as_it_is_set),
	    cmocka_unit_test(survives_a_keeper_without_certificates),
	    cmocka_unit_test(survives_a_keeper_that_does_not_sign),
	    cmocka_unit_test(opens_keys_in_every_form),
	    cmocka_unit_test(opens_a_curves_key_without_its_point),
	    cmocka_unit_test(finds_key_and_chain_in_one_file),
	    cmocka_unit_test(refuses_a_key_that_others_may_read),
	    cmocka_unit_test(refuses_a_key_of_another_certificate),
	    cmocka_unit_test(refuses_files_that_are_no_keys),
	    cmocka_unit_test(refuses_a_chain_without_end),
	    cmocka_unit_test(refuses_two_keys_of_one_type),
	    cmocka_unit_test(signs_for_tls_13_only_what_it_asks),
	    cmocka_unit_test(signs_for_tls_12_only_what_it_asks),
	    cmocka_unit_test(signs_only_with_schemes_of_the_key),
	};

	return cmocka_run_group_tests(tests, make_all, remove_all);
}
