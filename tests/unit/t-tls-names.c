/*
 * Certificates by name, through the module's table: the two layouts, wildcards,
 * case, names that are no hosts, and files that are no good, each for a keeper
 * that loads all at once and for one that looks when it is asked.
 */
#include <sys/stat.h>

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <openssl/pem.h>
#include <openssl/x509.h>

#include "lib/tls.h"

extern const struct tls_api tls_api;
static const struct tls_api *const api = &tls_api;

static char folder[] = "/tmp/t-tls-names-XXXXXX";
static char err[TLS_ERROR_SIZE];
static struct tls_chain chain;
static EVP_PKEY *pkey, *other;

/* --- files --------------------------------------------------------------- */

static FILE *
create(const char *name, mode_t mode)
{
	char path[512], *end;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	end = strrchr(path, '/');
	*end = '\0';
	(void)mkdir(path, 0700);
	*end = '/';
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	assert_true(fd != -1);
	assert_int_equal(fchmod(fd, mode), 0);
	return fdopen(fd, "w");
}

static void
put_certificate(FILE *f, EVP_PKEY *key, const char *common_name)
{
	X509 *x509 = X509_new();
	X509_NAME *name = X509_get_subject_name(x509);

	assert_true(X509_set_version(x509, X509_VERSION_3));
	assert_non_null(X509_gmtime_adj(X509_getm_notBefore(x509), -60));
	assert_non_null(X509_gmtime_adj(X509_getm_notAfter(x509), 3600));
	assert_true(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
	    (const unsigned char *)common_name, -1, -1, 0));
	assert_true(X509_set_issuer_name(x509, name));
	assert_true(X509_set_pubkey(x509, key));
	assert_true(X509_sign(x509, key, EVP_sha256()) > 0);
	assert_true(PEM_write_X509(f, x509));
	X509_free(x509);
}

static void
put_key(FILE *f, EVP_PKEY *key)
{
	assert_true(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL));
}

/* NAME.pem, or NAME/fullchain.pem and NAME/privkey.pem. */
static void
put_pair(const char *name, bool one_file, const char *common_name)
{
	char path[300];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s%s", name,
	    one_file ? ".pem" : "/fullchain.pem");
	f = create(path, 0600);
	put_certificate(f, pkey, common_name);
	if (!one_file) {
		assert_int_equal(fclose(f), 0);
		(void)snprintf(path, sizeof(path), "%s/privkey.pem", name);
		f = create(path, 0600);
	}
	put_key(f, pkey);
	assert_int_equal(fclose(f), 0);
}

static int
set_up(void **state)
{
	(void)state;
	memset(folder + sizeof(folder) - 7, 'X', 6);
	return mkdtemp(folder) == NULL ? -1 : 0;
}

static int
tear_down(void **state)
{
	char command[64];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command);
}

static int
make_keys(void **state)
{
	(void)state;
	/* The module is the first to start OpenSSL. */
	api->keys_free(api->keys_load(
	    TLS_ROLE_SERVER, &(struct tls_key_files){0}, err));
	pkey = EVP_EC_gen("P-256");
	other = EVP_EC_gen("P-256");
	return pkey != NULL && other != NULL ? 0 : -1;
}

static int
free_keys(void **state)
{
	(void)state;
	EVP_PKEY_free(pkey);
	EVP_PKEY_free(other);
	return 0;
}

/* --- asking -------------------------------------------------------------- */

static struct tls_keys *
load(bool all)
{
	const struct tls_key_files files = {.directory = folder, .all = all};

	(void)snprintf(err, sizeof(err), "untouched");
	return api->keys_load(TLS_ROLE_SERVER, &files, err);
}

static int
ask(const struct tls_keys *keys, const char *name)
{
	return api->keys_certificates(keys, name, 0, &chain, err);
}

/* The common name of the leaf that came last. */
static const char *
shown(void)
{
	static char text[256];
	const unsigned char *p = chain.bytes + 3;
	X509 *x509 = d2i_X509(NULL, &p, (long)chain.len - 3);

	assert_non_null(x509);
	assert_true(X509_NAME_get_text_by_NID(X509_get_subject_name(x509),
			NID_commonName, text, sizeof(text)) > 0);
	X509_free(x509);
	return text;
}

static void
finds_names(void **state)
{
	static const struct {
		const char *name, *shown; /* NULL: nobody's */
	} cases[] = {
	    {"a.example", "a"}, {"A.Example", "a"}, {"b.example", "b"},
	    {"both.example", "file"}, {"x.wild.example", "wild"},
	    {"own.wild.example", "own"}, {"x.under.example", "under"},
	    {"wild.example", NULL}, {"x.y.wild.example", NULL},
	    {"example", NULL}, {"c.example", NULL}, {"", NULL},
	    {"*.wild.example", NULL}, {"_.under.example", NULL},
	    {"a.example.", NULL}, {".a.example", NULL}, {"a..example", NULL},
	    {"..", NULL}, {"../a.example", NULL}, {"/a.example", NULL},
	    {"a.example/", NULL}, {"empty.example", NULL}, {"upper", NULL},
	    {"a.example\n", NULL}, {"b.example/fullchain", NULL},
	};
	struct tls_keys *keys;
	size_t i, j;

	(void)state;
	put_pair("a.example", true, "a");
	put_pair("b.example", false, "b");
	put_pair("both.example", false, "directory");
	put_pair("both.example", true, "file");
	put_pair("*.wild.example", false, "wild");
	put_pair("own.wild.example", true, "own");
	put_pair("_.under.example", true, "under");
	put_pair("Upper", true, "upper");
	(void)fclose(create("empty.example/README", 0644));
	(void)fclose(create("notes", 0644));
	for (i = 0; i < 2; i++) {
		keys = load(i == 0);
		if (keys == NULL)
			fail_msg("%s", err);
		for (j = 0; j < sizeof(cases) / sizeof(cases[0]); j++) {
			assert_int_equal(ask(keys, cases[j].name),
			    cases[j].shown != NULL);
			if (cases[j].shown != NULL)
				assert_string_equal(shown(), cases[j].shown);
		}
		/* And again, when they are known. */
		assert_int_equal(ask(keys, "b.example"), 1);
		assert_string_equal(shown(), "b");
		/* A name has one. */
		assert_int_equal(api->keys_certificates(
				     keys, "a.example", 1, &chain, err),
		    0);
		api->keys_free(keys);
	}
}

static void
refuses_names_that_are_too_long(void **state)
{
	struct tls_keys *keys;
	char name[600];
	size_t i, len;

	(void)state;
	put_pair("a.example", true, "a");
	keys = load(false);
	assert_non_null(keys);
	for (len = 240; len < sizeof(name); len++) {
		for (i = 0; i < len; i++)
			name[i] = i % 64 == 63 ? '.' : 'a';
		name[len] = '\0';
		assert_int_equal(ask(keys, name), 0);
	}
	api->keys_free(keys);
}

static void
signs_for_a_name(void **state)
{
	/* RFC 8446 section 4.4.3, with a hash of 32 octets. */
	static const char context[] = "TLS 1.3, server CertificateVerify";
	unsigned char data[64 + sizeof(context) + 32], sig[TLS_MAX_SIGNATURE];
	struct tls_keys *keys;
	size_t i;

	(void)state;
	put_pair("a.example", false, "a");
	memset(data, ' ', 64);
	memcpy(data + 64, context, sizeof(context));
	memset(data + 64 + sizeof(context), 'h', 32);
	for (i = 0; i < 2; i++) {
		keys = load(i == 0);
		assert_non_null(keys);
		assert_true(api->keys_sign(keys, "a.example", 0,
				TLS_ECDSA_SHA256, data, sizeof(data), sig,
				sizeof(sig)) > 0);
		assert_int_equal(api->keys_sign(keys, "b.example", 0,
				     TLS_ECDSA_SHA256, data, sizeof(data),
				     sig, sizeof(sig)),
		    -1);
		assert_int_equal(
		    api->keys_sign(keys, "", 0, TLS_ECDSA_SHA256, data,
			sizeof(data), sig, sizeof(sig)),
		    -1);
		api->keys_free(keys);
	}
}

/* One that is bad spoils all at once, but only itself one by one. */
static void
names_the_file_that_is_no_good(void **state)
{
	struct tls_keys *keys;
	FILE *f;

	(void)state;
	put_pair("a.example", true, "a");
	put_pair("bad.example", false, "bad");
	f = create("bad.example/privkey.pem", 0600);
	put_key(f, other);
	assert_int_equal(fclose(f), 0);

	assert_null(load(true));
	assert_non_null(strstr(err, "bad.example/privkey.pem: "));
	assert_int_equal(strncmp(err, "ssl_sni_directory ", 18), 0);

	keys = load(false);
	assert_non_null(keys);
	assert_int_equal(ask(keys, "bad.example"), -1);
	assert_non_null(strstr(err, "bad.example/privkey.pem: "));
	assert_int_equal(ask(keys, "bad.example"), -1);
	assert_int_equal(ask(keys, "a.example"), 1);
	api->keys_free(keys);
}

static void
needs_no_directory_until_it_is_asked(void **state)
{
	struct tls_keys *keys;

	(void)state;
	assert_int_equal(rmdir(folder), 0);
	assert_null(load(true));
	assert_non_null(strstr(err, folder));
	keys = load(false);
	assert_non_null(keys);
	assert_int_equal(ask(keys, "a.example"), 0);
	api->keys_free(keys);
	assert_int_equal(mkdir(folder, 0700), 0);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
	    TEST(finds_names),
	    TEST(refuses_names_that_are_too_long),
	    TEST(signs_for_a_name),
	    TEST(names_the_file_that_is_no_good),
	    TEST(needs_no_directory_until_it_is_asked),
	};

	return cmocka_run_group_tests(tests, make_keys, free_keys);
}
