/*
 * keeper.c, asked by a session that plays by no rules. Modules are ours: a
 * provider, a mechanism and a TLS table of a few lines stand in for them.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "auth/provider.h"
#include "keeper.h"
#include "lib/clock.h"
#include "lib/message.h"
#include "lib/module.h"
#include "lib/tls.h"
#include "sasl_secret.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

#define SOON 2000

static struct config conf;
static struct {
	int channel;
	pid_t pid;
} keeper = {.channel = -1};

static int
begin_keeper(int client_fd)
{
	keeper.channel = keeper_start(&conf, client_fd, &keeper.pid);
	return keeper.channel == -1 ? -1 : 0;
}

static void
end_keeper(void)
{
	if (keeper.channel == -1)
		return;
	(void)close(keeper.channel);
	keeper.channel = -1;
	keeper_wait(keeper.pid);
}
static struct message m;
static int client[2];

/* --- the modules --------------------------------------------------------- */

/* How the provider is to be; a keeper has what was set before its fork. */
static struct {
	unsigned can;
	bool is_broken, knows_backend, has_last_word;
} setting;

static void *
provider_open(const char *value, const struct config *config, char *err)
{
	(void)config;
	if (!setting.is_broken)
		return &setting;
	(void)snprintf(err, AUTH_ERROR_SIZE, "cannot open %s", value);
	return NULL;
}

static enum auth_result
provider_judge(void *provider, const struct message *q, struct message *verdict)
{
	const char *user = message_text(q, M_USER);
	char seen[256];

	(void)provider;
	(void)snprintf(seen, sizeof(seen), "%s %s %s %s",
	    message_text(q, M_METHOD), user, message_text(q, M_PASSWORD),
	    message_text(q, M_SALT));
	message_put(verdict, M_REASON, seen);
	if (setting.knows_backend) {
		message_put(verdict, M_BACKEND_USER, "theirs");
		message_put(verdict, M_BACKEND_PASSWORD, "their-secret");
	}
	if (strcmp(user, "sleeper") == 0)
		(void)sleep(30);
	if (strcmp(user, "away") == 0)
		return AUTH_UNAVAILABLE;
	if (strcmp(message_text(q, M_PASSWORD), "bobs") == 0)
		message_put(verdict, M_USER, "bob");
	return strcmp(message_text(q, M_PASSWORD), "right") == 0 ||
		       strcmp(message_text(q, M_PASSWORD), "bobs") == 0
	    ? AUTH_ACCEPTED
	    : AUTH_DENIED;
}

static enum auth_result
provider_secret(void *provider, const char *user, const char *keys,
    struct sasl_stored *stored, struct message *verdict)
{
	(void)provider;
	(void)verdict;
	assert_null(keys);
	if (strcmp(user, "away") == 0)
		return AUTH_UNAVAILABLE;
	if (strcmp(user, "bob") != 0)
		return AUTH_DENIED;
	(void)snprintf(stored->text, sizeof(stored->text), "hush");
	return AUTH_ACCEPTED;
}

static int
provider_mechanisms(void *provider, char *names, size_t size)
{
	(void)provider;
	if (setting.is_broken)
		return -1;
	(void)snprintf(names, size, "PLAIN DIGEST-MD5");
	return 0;
}

/*
 * Says back what it is told, with a NUL before it, until that is "end",
 * "nameless" or "no".
 */
static enum auth_result
provider_exchange(void *provider, void **exchange, const struct message *q,
    struct message *verdict)
{
	const char *response;
	char echo[64] = "";
	size_t len = 0;

	(void)provider;
	response = message_get_bytes(q, M_RESPONSE, &len);
	if (*exchange == NULL) {
		*exchange = strdup(message_text(q, M_MECHANISM));
		if (response == NULL)
			return AUTH_CHALLENGE;
	}
	assert_non_null(response);
	if (strcmp(response, "no") == 0)
		return AUTH_DENIED;
	if (strcmp(response, "end") != 0 && strcmp(response, "nameless") != 0) {
		memcpy(echo + 1, response, len);
		message_put_bytes(verdict, M_CHALLENGE, echo, len + 1);
		return AUTH_CHALLENGE;
	}
	if (strcmp(response, "end") == 0)
		message_put(verdict, M_USER, *exchange);
	message_put_bytes(verdict, M_CHALLENGE, "bye", 3);
	return AUTH_ACCEPTED;
}

static void
provider_exchange_free(void *provider, void *exchange)
{
	assert_ptr_equal(provider, &setting);
	free(exchange);
}

static struct auth_provider provider = {
    .scheme = "file",
    .open = provider_open,
    .judge = provider_judge,
    .secret = provider_secret,
    .mechanisms = provider_mechanisms,
    .exchange = provider_exchange,
    .exchange_free = provider_exchange_free,
};

/* "user secret+challenge", and a last word that names the user. */
struct toy {
	struct sasl_secret x;
	char challenge[64], proof[128];
};

static enum sasl_secret_result
toy_step(struct sasl_secret *x, const char *response, size_t len)
{
	static unsigned number;
	struct toy *toy = (struct toy *)x;
	size_t user;

	if (response == NULL) {
		(void)snprintf(toy->challenge, sizeof(toy->challenge), "<%u@%s>",
		    ++number, x->server_name);
		x->out_len = (size_t)snprintf(
		    x->out, sizeof(x->out), "%s", toy->challenge);
		return SASL_SECRET_CHALLENGE;
	}
	user = strcspn(response, " ");
	if (strlen(response) != len || response[user] == '\0') {
		x->reason = "malformed response";
		return SASL_SECRET_DENIED;
	}
	(void)snprintf(
	    x->user, sizeof(x->user), "%.*s", (int)user, response);
	(void)snprintf(
	    toy->proof, sizeof(toy->proof), "%s", response + user + 1);
	x->salt = toy->challenge;
	x->digest = toy->proof;
	return SASL_SECRET_LOOK_UP;
}

static enum sasl_secret_result
toy_reveal(
    struct sasl_secret *x, const struct sasl_stored *stored, bool known)
{
	struct toy *toy = (struct toy *)x;
	char right[1024];

	(void)snprintf(right, sizeof(right), "%s+%s",
	    known ? stored->text : "nobody", toy->challenge);
	if (setting.has_last_word)
		x->out_len = (size_t)snprintf(
		    x->out, sizeof(x->out), "v=%s", x->user);
	if (strcmp(right, toy->proof) == 0)
		return SASL_SECRET_PROVED;
	x->reason = "wrong response";
	return SASL_SECRET_DENIED;
}

static const struct sasl_secret_mechanism cram = {
    .name = "CRAM-MD5",
    .size = sizeof(struct toy),
    .step = toy_step,
    .reveal = toy_reveal,
};
static const struct sasl_secret_mechanism *const mechanisms[] = {&cram, NULL};

static char key_sets[2]; /* of enum tls_role */

static struct tls_keys *
keys_load(enum tls_role role, const struct tls_key_files *files, char *err)
{
	(void)err;
	return files->count > 0 ? (struct tls_keys *)&key_sets[role] : NULL;
}

static int
keys_certificates(const struct tls_keys *keys, const char *name, unsigned key,
    struct tls_chain *chain, char *err)
{
	(void)err;
	assert_string_equal(name, "");
	memcpy(chain->bytes,
	    (const char *)keys == key_sets ? "\0\0\1c" : "\0\0\1b", 4);
	chain->len = 4;
	chain->staple_len = 0;
	return key == 0;
}

static ssize_t
keys_sign(const struct tls_keys *keys, const char *name, unsigned key,
    enum tls_scheme scheme, const void *data, size_t len, unsigned char *sig,
    size_t size)
{
	(void)keys, (void)scheme, (void)name;
	if (key != 0 || len > size)
		return -1;
	memcpy(sig, data, len);
	return (ssize_t)len;
}

static const struct tls_api tls_api = {
    .keys_load = keys_load,
    .keys_certificates = keys_certificates,
    .keys_sign = keys_sign,
};

/* In place of lib/module.c. */
const void *
module_load(const char *name, const char *symbol, char *err, size_t err_size)
{
	if (strcmp(name, "auth-file") == 0 &&
	    strcmp(symbol, "auth_provider") == 0)
		return &provider;
	if (strcmp(name, "sasl-secret") == 0)
		return mechanisms;
	if (strcmp(name, "tls") == 0)
		return &tls_api;
	(void)snprintf(err, err_size, "no module %s", name);
	return NULL;
}

/* --- one keeper ---------------------------------------------------------- */

static int
set_up(void **state)
{
	static char *paths[] = {(char *)(uintptr_t) "/nowhere"};

	(void)state;
	memset(&setting, 0, sizeof(setting));
	memset(&conf, 0, sizeof(conf));
	setting.can = AUTH_CAN_VERIFY | AUTH_CAN_SECRET;
	conf.auth_provider = "file:/nowhere";
	conf.server_name = "front.example";
	conf.max_auth_attempts = 3;
	conf.smtp_auth = CONFIG_AUTH_EXTERNAL;
	conf.ssl_certificate.word = conf.ssl_certificate_key.word = paths;
	conf.ssl_certificate.count = conf.ssl_certificate_key.count = 1;
	conf.ssl_password_file = "";
	conf.scram_secret_file = "";
	keeper.channel = -1;
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, client);
}

static int
tear_down(void **state)
{
	(void)state;
	end_keeper();
	(void)close(client[0]);
	(void)close(client[1]);
	return 0;
}

static void
start(void)
{
	provider.can = setting.can;
	assert_int_equal(begin_keeper(client[0]), 0);
	assert_true(fcntl(keeper.channel, F_GETFD) & FD_CLOEXEC);
}

static void
put_response(const char *response)
{
	message_put_bytes(&m, M_RESPONSE, response, strlen(response));
}

/* Asks what is in `m`; the type of the answer that takes its place. */
static enum message_type
ask(void)
{
	assert_int_equal(
	    message_send(keeper.channel, &m, clock_in(SOON)), 0);
	message_wipe(&m);
	assert_int_equal(
	    message_receive(keeper.channel, &m, clock_in(SOON)), 1);
	return m.type;
}

static void
expect_failure(const char *reason)
{
	assert_int_equal(ask(), ANSWER_FAILURE);
	assert_string_equal(message_text(&m, M_REASON), reason);
	assert_null(message_get(&m, M_RESULT));
}

static void
expect_verdict(const char *result)
{
	assert_int_equal(ask(), ANSWER_VERDICT);
	assert_string_equal(message_text(&m, M_RESULT), result);
}

static void
put_plain(const char *user, const char *password)
{
	message_init(&m, ASK_VERDICT);
	message_put(&m, M_METHOD, "plain");
	message_put(&m, M_USER, user);
	message_put(&m, M_PASSWORD, password);
}

/* The keeper's end, by itself: its exit status. */
static void
expect_end(void)
{
	int status, i;

	for (i = 0; i < SOON / 10; i++) {
		if (waitpid(keeper.pid, &status, WNOHANG) == keeper.pid) {
			assert_true(WIFEXITED(status));
			assert_int_equal(WEXITSTATUS(status), 0);
			(void)close(keeper.channel);
			keeper.channel = -1;
			return;
		}
		(void)usleep(10000);
	}
	fail_msg("the keeper goes on");
}

/* --- judging ------------------------------------------------------------- */

static void
what_it_can(void **state)
{
	static const struct {
		unsigned can;
		const char *words;
	} rows[] = {
	    {0, ""},
	    {AUTH_CAN_VERIFY, "verify"},
	    {AUTH_CAN_VERIFY | AUTH_CAN_SECRET, "verify secret"},
	    {AUTH_CAN_VERIFY | AUTH_CAN_SECRET | AUTH_CAN_DIGEST |
		    AUTH_CAN_AUTHORIZE | AUTH_CAN_ROUTE,
		"verify secret digest authorize route"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(rows); i++) {
		setting.can = rows[i].can;
		start();
		message_init(&m, ASK_MECHANISMS);
		assert_int_equal(ask(), ANSWER_MECHANISMS);
		assert_string_equal(message_text(&m, M_CAN), rows[i].words);
		end_keeper();
	}
}

static void
verdicts(void **state)
{
	(void)state;
	conf.max_auth_attempts = 9;
	start();
	put_plain("bob", "right");
	expect_verdict("accepted");
	assert_string_equal(message_text(&m, M_USER), "bob");
	assert_null(message_get(&m, M_PASSWORD));
	put_plain("bob", "wrong");
	expect_verdict("denied");
	put_plain("away", "right");
	expect_verdict("unavailable");
	put_plain("bob", "right");
	expect_verdict("accepted");
}

/* A method that the provider does not judge is not judged as another. */
static void
other_methods(void **state)
{
	static const char *const methods[] = {"external", "none", "cram-md5",
	    "CRAM-MD5", "", "PLAIN", "plain ", "login"};
	size_t i;

	(void)state;
	start();
	for (i = 0; i < LENGTH(methods); i++) {
		put_plain("bob", "right");
		message_put(&m, M_METHOD, methods[i]);
		expect_failure("the provider does not judge this");
	}
	message_init(&m, ASK_VERDICT);
	expect_failure("the provider does not judge this");
	/* None of them was an attempt. */
	put_plain("bob", "right");
	expect_verdict("accepted");
}

static void
put_token(const char *user, const char *token)
{
	put_plain(user, token);
	message_put(&m, M_METHOD, "oauthbearer");
}

static void
tokens_need_an_owner(void **state)
{
	(void)state;
	conf.max_auth_attempts = 9;
	conf.proxy_smtp_auth = true;
	put_token("", "bobs");
	start();
	expect_failure("the provider does not judge this");
	end_keeper();
	setting.can = AUTH_CAN_TOKEN;
	start();
	put_token("", "bobs");
	expect_verdict("accepted");
	assert_string_equal(message_text(&m, M_USER), "bob");
	/* It is no password for the backend. */
	assert_null(message_get(&m, M_BACKEND_PASSWORD));
	put_token("", "wrong");
	expect_verdict("denied");
	put_token("bob", "right");
	expect_verdict("unavailable");
	assert_string_equal(
	    message_text(&m, M_REASON), "the provider names no user");
	put_token("bob", "");
	expect_verdict("denied");
	assert_string_equal(message_text(&m, M_REASON), "no token");
}

static void
a_provider_that_verifies_nothing(void **state)
{
	(void)state;
	setting.can = AUTH_CAN_SECRET | AUTH_CAN_AUTHORIZE;
	start();
	put_plain("bob", "right");
	expect_failure("the provider does not judge this");
	put_plain("bob", "right");
	message_put(&m, M_METHOD, "external");
	expect_verdict("accepted");
}

/* Whoever takes a session over could be anybody, and needs no password. */
static void
external_has_to_be_listed(void **state)
{
	(void)state;
	setting.can |= AUTH_CAN_AUTHORIZE;
	conf.smtp_auth = CONFIG_AUTH_PLAIN | CONFIG_AUTH_NONE;
	start();
	put_plain("bob", "right");
	message_put(&m, M_METHOD, "external");
	expect_failure("the provider does not judge this");
	put_plain("bob", "right");
	expect_verdict("accepted");
}

static void
attempts_are_bounded(void **state)
{
	int i;

	(void)state;
	setting.can |= AUTH_CAN_ROUTE;
	start();
	for (i = 0; i < 3; i++) {
		put_plain("bob", "wrong");
		expect_verdict("denied");
	}
	for (i = 0; i < 3; i++) {
		put_plain("bob", "right");
		expect_failure("too many attempts");
	}
	/* A challenge is no way round. */
	message_init(&m, ASK_EXCHANGE);
	message_put(&m, M_MECHANISM, "CRAM-MD5");
	expect_failure("too many attempts");
	message_init(&m, ASK_STEP);
	put_response("bob hush+<1@front.example>");
	expect_failure("no exchange goes on");
	/* An envelope is no attempt. */
	put_plain("bob", "right");
	message_put(&m, M_METHOD, "none");
	expect_verdict("accepted");
}

static void
envelopes_are_bounded(void **state)
{
	int i;

	(void)state;
	setting.can |= AUTH_CAN_ROUTE;
	start();
	for (i = 0; i < 1000; i++) {
		put_plain("", "wrong");
		message_put(&m, M_METHOD, "none");
		expect_verdict("denied");
	}
	put_plain("", "wrong");
	message_put(&m, M_METHOD, "none");
	expect_failure("too many attempts");
	put_plain("bob", "right");
	expect_verdict("accepted");
}

static void
nobody_acts_for_another(void **state)
{
	static const char *const others[] = {"admin", "Bob", "bob ", " bob"};
	size_t i;

	(void)state;
	conf.max_auth_attempts = 9;
	start();
	for (i = 0; i < LENGTH(others); i++) {
		put_plain("bob", "right");
		message_put(&m, M_AUTHZID, others[i]);
		expect_verdict("denied");
		assert_string_equal(message_text(&m, M_REASON),
		    "authorization name of another");
	}
	put_plain("bob", "right");
	message_put(&m, M_AUTHZID, "bob");
	expect_verdict("accepted");
	put_plain("bob", "right");
	message_put(&m, M_AUTHZID, "");
	expect_verdict("accepted");
}

static void
a_provider_that_cannot_be_opened(void **state)
{
	(void)state;
	setting.is_broken = true;
	start();
	message_init(&m, ASK_MECHANISMS);
	expect_failure("cannot open file:/nowhere");
	put_plain("bob", "right");
	expect_failure("cannot open file:/nowhere");
	message_init(&m, ASK_EXCHANGE);
	message_put(&m, M_MECHANISM, "CRAM-MD5");
	expect_failure("cannot open file:/nowhere");
	message_init(&m, ASK_STEP);
	put_response("bob x");
	expect_failure("no exchange goes on");
}

static void
a_provider_that_is_not_there(void **state)
{
	(void)state;
	conf.auth_provider = "dovecot:/run/auth";
	start();
	put_plain("bob", "right");
	expect_failure("no module auth-dovecot");
}

/* --- the password for the backend ---------------------------------------- */

static void
no_password_comes_back(void **state)
{
	(void)state;
	start();
	put_plain("bob", "right");
	expect_verdict("accepted");
	assert_null(message_get(&m, M_BACKEND_PASSWORD));
	assert_null(message_get(&m, M_BACKEND_USER));
}

static void
with_proxy_smtp_auth_the_right_one_does(void **state)
{
	(void)state;
	conf.proxy_smtp_auth = true;
	conf.max_auth_attempts = 9;
	setting.can |= AUTH_CAN_AUTHORIZE | AUTH_CAN_ROUTE;
	start();
	put_plain("bob", "right");
	expect_verdict("accepted");
	assert_string_equal(message_text(&m, M_BACKEND_PASSWORD), "right");
	assert_string_equal(message_text(&m, M_BACKEND_USER), "bob");
	put_plain("bob", "wrong");
	expect_verdict("denied");
	assert_null(message_get(&m, M_BACKEND_PASSWORD));
	put_plain("away", "right");
	expect_verdict("unavailable");
	assert_null(message_get(&m, M_BACKEND_PASSWORD));
	put_plain("bob", "right");
	message_put(&m, M_METHOD, "external");
	expect_verdict("accepted");
	assert_null(message_get(&m, M_BACKEND_PASSWORD));
}

static void
the_providers_own_comes_first(void **state)
{
	(void)state;
	conf.proxy_smtp_auth = true;
	setting.knows_backend = true;
	start();
	put_plain("bob", "right");
	expect_verdict("accepted");
	assert_string_equal(
	    message_text(&m, M_BACKEND_PASSWORD), "their-secret");
	assert_string_equal(message_text(&m, M_BACKEND_USER), "theirs");
}

/* --- exchanges ----------------------------------------------------------- */

static char challenge[64];

static void
take_challenge(void)
{
	size_t len = 0;
	const void *bytes = message_get_bytes(&m, M_CHALLENGE, &len);

	assert_non_null(bytes);
	assert_true(len < sizeof(challenge));
	memcpy(challenge, bytes, len);
	challenge[len] = '\0';
}

static void
begin_exchange(void)
{
	message_init(&m, ASK_EXCHANGE);
	message_put(&m, M_MECHANISM, "CRAM-MD5");
	assert_int_equal(ask(), ANSWER_CHALLENGE);
	take_challenge();
}

static void
put_step(const char *user, const char *secret)
{
	char response[256];

	(void)snprintf(response, sizeof(response), "%s %s+%s", user, secret,
	    challenge);
	message_init(&m, ASK_STEP);
	put_response(response);
}

static void
an_exchange(void **state)
{
	(void)state;
	conf.max_auth_attempts = 9;
	conf.proxy_smtp_auth = true;
	start();
	begin_exchange();
	assert_string_equal(challenge, "<1@front.example>");
	put_step("bob", "hush");
	expect_verdict("accepted");
	assert_string_equal(message_text(&m, M_USER), "bob");
	assert_null(message_get(&m, M_BACKEND_PASSWORD));
	begin_exchange();
	put_step("bob", "hash");
	expect_verdict("denied");
	begin_exchange();
	put_step("nobody", "hush");
	expect_verdict("denied");
	begin_exchange();
	put_step("nobody", "");
	expect_verdict("denied");
	begin_exchange();
	put_step("away", "hush");
	expect_verdict("unavailable");
}

/* The same challenge twice, a challenge answered twice, or never given. */
static void
a_challenge_is_good_for_one_answer(void **state)
{
	char first[64];

	(void)state;
	conf.max_auth_attempts = 9;
	start();
	put_step("bob", "hush");
	expect_failure("no exchange goes on");
	begin_exchange();
	memcpy(first, challenge, sizeof(first));
	put_step("bob", "wrong");
	expect_verdict("denied");
	put_step("bob", "hush");
	expect_failure("no exchange goes on");
	begin_exchange();
	assert_string_not_equal(first, challenge);
	begin_exchange();
	/* An answer to one that another took the place of. */
	memcpy(challenge, first, sizeof(challenge));
	put_step("bob", "hush");
	expect_verdict("denied");
}

static void
malformed_responses(void **state)
{
	(void)state;
	start();
	begin_exchange();
	message_init(&m, ASK_STEP);
	put_response("noblank");
	expect_verdict("denied");
	assert_string_equal(message_text(&m, M_REASON), "malformed response");
	begin_exchange();
	message_init(&m, ASK_STEP);
	expect_verdict("denied");
}

static void
unknown_mechanisms(void **state)
{
	static const char *const names[] = {"", "PLAIN", "cram-md5", "SCRAM"};
	size_t i;

	(void)state;
	conf.max_auth_attempts = 9;
	start();
	for (i = 0; i < LENGTH(names); i++) {
		message_init(&m, ASK_EXCHANGE);
		message_put(&m, M_MECHANISM, names[i]);
		expect_failure("no such mechanism");
		put_step("bob", "hush");
		expect_failure("no exchange goes on");
	}
}

/* A name beside the response, from a session that was taken over. */
static void
the_name_is_the_responses(void **state)
{
	char response[128];

	(void)state;
	start();
	begin_exchange();
	(void)snprintf(
	    response, sizeof(response), "bob hush+%s", challenge);
	message_init(&m, ASK_STEP);
	message_put(&m, M_USER, "admin");
	message_put(&m, M_METHOD, "plain");
	put_response(response);
	expect_verdict("accepted");
	assert_string_equal(message_text(&m, M_USER), "bob");
}

static void
a_provider_that_judges_digests(void **state)
{
	char seen[128];

	(void)state;
	setting.can = AUTH_CAN_DIGEST;
	conf.proxy_smtp_auth = true;
	start();
	begin_exchange();
	message_init(&m, ASK_STEP);
	put_response("bob right");
	expect_verdict("accepted");
	(void)snprintf(
	    seen, sizeof(seen), "cram-md5 bob right %s", challenge);
	assert_string_equal(message_text(&m, M_REASON), seen);
	assert_null(message_get(&m, M_BACKEND_PASSWORD));
}

/* A mechanism's last word comes with the verdict, and with that alone. */
static void
a_last_word(void **state)
{
	const void *word;
	size_t len = 0;

	(void)state;
	setting.has_last_word = true;
	start();
	begin_exchange();
	put_step("bob", "hush");
	expect_verdict("accepted");
	word = message_get_bytes(&m, M_CHALLENGE, &len);
	assert_int_equal(len, 5);
	assert_memory_equal(word, "v=bob", 5);
	begin_exchange();
	put_step("bob", "wrong");
	expect_verdict("denied");
	assert_null(message_get_bytes(&m, M_CHALLENGE, &len));
	begin_exchange();
	put_step("nobody", "nobody");
	expect_verdict("denied");
	assert_string_equal(message_text(&m, M_USER), "nobody");
	assert_null(message_get_bytes(&m, M_CHALLENGE, &len));
}

static void
an_initial_response(void **state)
{
	(void)state;
	start();
	message_init(&m, ASK_EXCHANGE);
	message_put(&m, M_MECHANISM, "CRAM-MD5");
	put_response("bob hush+");
	expect_verdict("accepted");
}

static void
expect_challenge(const void *bytes, size_t size)
{
	const void *got;
	size_t len = 0;

	assert_int_equal(ask(), ANSWER_CHALLENGE);
	assert_null(message_get(&m, M_RESULT));
	got = message_get_bytes(&m, M_CHALLENGE, &len);
	assert_non_null(got);
	assert_int_equal(len, size);
	assert_memory_equal(got, bytes, size);
}

static void
step_with(const char *response)
{
	message_init(&m, ASK_STEP);
	/* None of it is believed. */
	message_put(&m, M_USER, "admin");
	message_put(&m, M_METHOD, "plain");
	message_put(&m, M_PASSWORD, "claimed");
	put_response(response);
}

static void
begin_owned(void)
{
	message_init(&m, ASK_EXCHANGE);
	message_put(&m, M_MECHANISM, "DIGEST-MD5");
	expect_challenge("", 0);
}

static void
a_provider_that_owns_exchanges(void **state)
{
	size_t len;

	(void)state;
	setting.can = AUTH_CAN_EXCHANGE;
	conf.proxy_smtp_auth = true;
	start();
	message_init(&m, ASK_MECHANISMS);
	assert_int_equal(ask(), ANSWER_MECHANISMS);
	assert_string_equal(message_text(&m, M_CAN), "exchange");
	assert_string_equal(
	    message_text(&m, M_MECHANISMS), "PLAIN DIGEST-MD5");
	begin_owned();
	step_with("one");
	expect_challenge("\0one", 4);
	message_init(&m, ASK_STEP);
	expect_challenge("", 1);
	step_with("end");
	expect_verdict("accepted");
	assert_string_equal(message_text(&m, M_USER), "DIGEST-MD5");
	assert_null(message_get(&m, M_BACKEND_PASSWORD));
	assert_non_null(message_get_bytes(&m, M_CHALLENGE, &len));
	step_with("end");
	expect_failure("no exchange goes on");
	begin_owned();
	step_with("no");
	expect_verdict("denied");
	assert_string_equal(message_text(&m, M_USER), "");
	begin_owned();
	step_with("nameless");
	expect_failure("the provider names no user");
	step_with("end");
	expect_failure("no exchange goes on");
}

static void
exchanges_have_an_end(void **state)
{
	int i;

	(void)state;
	setting.can = AUTH_CAN_EXCHANGE;
	start();
	begin_owned();
	for (i = 0; i < 14; i++) {
		step_with("x");
		expect_challenge("\0x", 2);
	}
	step_with("x");
	expect_failure("the exchange has no end");
	/* One takes another's place, and one is left open at the end. */
	begin_owned();
	begin_owned();
}

/* --- signing ------------------------------------------------------------- */

static enum message_type
ask_signature(void)
{
	message_init(&m, ASK_SIGNATURE);
	message_put_number(&m, M_KEY, 0);
	message_put_number(&m, M_SCHEME, TLS_ED25519);
	message_put_bytes(&m, M_DATA, "d\0ta", 4);
	return ask();
}

static void
certificates(void **state)
{
	size_t len = 0;

	(void)state;
	start();
	message_init(&m, ASK_CERTIFICATES);
	message_put_number(&m, M_KEY, 0);
	assert_int_equal(ask(), ANSWER_CERTIFICATES);
	assert_non_null(message_get_bytes(&m, M_CHAIN, &len));
	assert_int_equal(len, 4);
	message_init(&m, ASK_CERTIFICATES);
	message_put_number(&m, M_KEY, 1);
	assert_int_equal(ask(), ANSWER_CERTIFICATES);
	assert_null(message_get_bytes(&m, M_CHAIN, &len));
	message_init(&m, ASK_CERTIFICATES);
	message_put(&m, M_KEY, "-1");
	assert_int_equal(ask(), ANSWER_CERTIFICATES);
	assert_null(message_get_bytes(&m, M_CHAIN, &len));
}

static void
signatures_are_bounded(void **state)
{
	size_t len = 0;

	(void)state;
	start();
	message_init(&m, ASK_SIGNATURE);
	expect_failure("no more is signed for this session");
	assert_int_equal(ask_signature(), ANSWER_SIGNATURE);
	assert_memory_equal(
	    message_get_bytes(&m, M_SIGNATURE, &len), "d\0ta", 4);
	assert_int_equal(len, 4);
	assert_int_equal(ask_signature(), ANSWER_SIGNATURE);
	assert_int_equal(ask_signature(), ANSWER_FAILURE);
	assert_int_equal(ask_signature(), ANSWER_FAILURE);
}

/* One that cannot be made counts as well. */
static void
refused_signatures_count(void **state)
{
	int i;

	(void)state;
	start();
	for (i = 0; i < 2; i++) {
		message_init(&m, ASK_SIGNATURE);
		message_put_number(&m, M_KEY, 7);
		message_put_bytes(&m, M_DATA, "data", 4);
		expect_failure("this is not signed");
	}
	assert_int_equal(ask_signature(), ANSWER_FAILURE);
}

/* --- keys for backends --------------------------------------------------- */

static enum message_type
ask_as_client(enum message_type type)
{
	message_init(&m, type);
	message_put(&m, M_ROLE, "client");
	message_put_number(&m, M_KEY, 0);
	message_put_number(&m, M_SCHEME, TLS_ED25519);
	message_put_bytes(&m, M_DATA, "data", 4);
	return ask();
}

static void
keys_for_backends_are_others(void **state)
{
	static char *paths[] = {"x"};
	size_t len;
	int i;

	(void)state;
	conf.proxy_ssl_certificate = (struct config_list){paths, 1};
	conf.proxy_ssl_certificate_key = (struct config_list){paths, 1};
	start();
	assert_int_equal(
	    ask_as_client(ASK_CERTIFICATES), ANSWER_CERTIFICATES);
	assert_memory_equal(
	    message_get_bytes(&m, M_CHAIN, &len), "\0\0\1b", 4);
	/* Each role's signatures are counted by themselves. */
	for (i = 0; i < 16; i++)
		assert_int_equal(
		    ask_as_client(ASK_SIGNATURE), ANSWER_SIGNATURE);
	assert_int_equal(ask_as_client(ASK_SIGNATURE), ANSWER_FAILURE);
	assert_int_equal(ask_signature(), ANSWER_SIGNATURE);
}

static void
no_keys_for_backends(void **state)
{
	(void)state;
	start();
	assert_int_equal(ask_as_client(ASK_SIGNATURE), ANSWER_FAILURE);
	assert_int_equal(ask_signature(), ANSWER_SIGNATURE);
}

/* --- its end ------------------------------------------------------------- */

static void
what_is_no_question_ends_it(void **state)
{
	static const enum message_type types[] = {ANSWER_MECHANISMS,
	    ANSWER_VERDICT, ANSWER_CHALLENGE, ANSWER_CERTIFICATES,
	    ANSWER_SIGNATURE, ANSWER_FAILURE};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(types); i++) {
		start();
		message_init(&m, types[i]);
		assert_int_equal(
		    message_send(keeper.channel, &m, clock_in(SOON)), 0);
		expect_end();
	}
}

static void
malformed_packets_end_it(void **state)
{
	static const struct {
		const char *text;
		size_t len;
	} bad[] = {
#define BAD(s) {s, sizeof(s) - 1}
	    BAD(""), BAD("\0"), BAD("\xff"), BAD("\x0d"), BAD("\x02x"),
	    BAD("\x02\x0a\xff\xffplain"), BAD("\x02\x0a\0\x05plainx"),
	    BAD("\x02\x0a\0\x05pl\0in\0"),
	    BAD("\x02\x0a\0\x01p\0\x0a\0\x01p\0"), /* the same field twice */
#undef BAD
	};
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(bad); i++) {
		start();
		assert_int_equal(send(keeper.channel, bad[i].text, bad[i].len,
				     MSG_NOSIGNAL),
		    (int)bad[i].len);
		expect_end();
	}
}

static void
it_goes_with_its_session(void **state)
{
	pid_t pid;

	(void)state;
	start();
	(void)shutdown(keeper.channel, SHUT_RDWR);
	expect_end();
	start();
	pid = keeper.pid;
	end_keeper();
	assert_int_equal(keeper.channel, -1);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(errno, ESRCH);
	end_keeper();
}

/* Gone, or dead and not yet buried by whoever inherited it. */
static bool
is_dead(pid_t pid)
{
	char path[64], text[256] = "";
	const char *after;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (f == NULL)
		return true;
	(void)!fgets(text, sizeof(text), f);
	(void)fclose(f);
	after = strrchr(text, ')');
	return after == NULL || after[2] == 'Z' || after[2] == 'X';
}

/* Even in the middle of a question, a killed session takes it along. */
static void
it_dies_with_a_killed_session(void **state)
{
	int tell[2], i, status;
	pid_t pid, victim;

	(void)state;
	assert_int_equal(pipe(tell), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		provider.can = setting.can;
		if (begin_keeper(client[0]) == -1)
			_exit(1);
		put_plain("sleeper", "right");
		(void)message_send(keeper.channel, &m, clock_in(SOON));
		(void)usleep(50000);
		(void)!write(tell[1], &keeper.pid, sizeof(keeper.pid));
		(void)kill(getpid(), SIGKILL);
	}
	assert_int_equal(read(tell[0], &victim, sizeof(victim)),
	    (int)sizeof(victim));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	for (i = 0; i < SOON / 10 && !is_dead(victim); i++)
		(void)usleep(10000);
	assert_true(is_dead(victim));
	(void)close(tell[0]);
	(void)close(tell[1]);
}

/* --- what it keeps ------------------------------------------------------- */

static bool
is_same(const char *path, const char *other)
{
	struct stat a, b;

	return stat(path, &a) == 0 && stat(other, &b) == 0 &&
	    a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Its descriptors: how many, and whether one is the client's. */
static unsigned
count_fds(bool *has_client, bool *has_null)
{
	char folder[64], path[320], ours[64];
	struct dirent *entry;
	unsigned n = 0;
	DIR *dir;

	*has_client = *has_null = false;
	(void)snprintf(folder, sizeof(folder), "/proc/%d/fd", (int)keeper.pid);
	(void)snprintf(ours, sizeof(ours), "/proc/self/fd/%d", client[0]);
	dir = opendir(folder);
	assert_non_null(dir);
	while ((entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		n++;
		(void)snprintf(
		    path, sizeof(path), "%s/%s", folder, entry->d_name);
		*has_client |= is_same(path, ours);
		if (strcmp(entry->d_name, "0") == 0)
			*has_null = is_same(path, "/dev/null");
	}
	(void)closedir(dir);
	return n;
}

/* With the client at each descriptor below 3 too, as inetd has it. */
static void
the_clients_connection_is_not_its(void **state)
{
	bool has_client, has_null;
	int saved, i;
	unsigned n;

	(void)state;
	for (i = -1; i < 3; i++) {
		saved = i == -1 ? -1 : fcntl(i, F_DUPFD_CLOEXEC, 10);
		if (i != -1)
			assert_int_equal(dup2(client[0], i), i);
		provider.can = setting.can;
		assert_int_equal(begin_keeper(client[0]), 0);
		if (i != -1)
			assert_int_equal(dup2(saved, i), i);
		/* Once it answers, it has let go of the rest. */
		message_init(&m, ASK_MECHANISMS);
		assert_int_equal(ask(), ANSWER_MECHANISMS);
		n = count_fds(&has_client, &has_null);
		assert_false(has_client);
		assert_true(has_null);
		assert_int_equal(n, 4); /* 0, 1, 2 and its channel */
		end_keeper();
		if (i != -1)
			(void)close(saved);
	}
}

/* ------------------------------------------------------------------------- */

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(what_it_can),
	    TEST(verdicts),
	    TEST(other_methods),
	    TEST(tokens_need_an_owner),
	    TEST(a_provider_that_verifies_nothing),
	    TEST(external_has_to_be_listed),
	    TEST(attempts_are_bounded),
	    TEST(envelopes_are_bounded),
	    TEST(nobody_acts_for_another),
	    TEST(a_provider_that_cannot_be_opened),
	    TEST(a_provider_that_is_not_there),
	    TEST(no_password_comes_back),
	    TEST(with_proxy_smtp_auth_the_right_one_does),
	    TEST(the_providers_own_comes_first),
	    TEST(an_exchange),
	    TEST(a_challenge_is_good_for_one_answer),
	    TEST(malformed_responses),
	    TEST(unknown_mechanisms),
	    TEST(the_name_is_the_responses),
	    TEST(a_provider_that_judges_digests),
	    TEST(a_last_word),
	    TEST(an_initial_response),
	    TEST(a_provider_that_owns_exchanges),
	    TEST(exchanges_have_an_end),
	    TEST(certificates),
	    TEST(signatures_are_bounded),
	    TEST(refused_signatures_count),
	    TEST(keys_for_backends_are_others),
	    TEST(no_keys_for_backends),
	    TEST(what_is_no_question_ends_it),
	    TEST(malformed_packets_end_it),
	    TEST(it_goes_with_its_session),
	    TEST(it_dies_with_a_killed_session),
	    TEST(the_clients_connection_is_not_its),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
