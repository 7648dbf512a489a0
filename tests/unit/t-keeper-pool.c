/*
 * keeper_pool: who waits for whom. The vault is one of our own, whose judge
 * takes as long as it is told; it counts in memory that we share with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/clock.h"
#include "lib/message.h"
#include "vault.h"

#include "keeper_pool.h"

#define WORKERS 3
#define WAIT	5000

static struct {
	atomic_int judging, most, judged, vaults, forgotten;
	atomic_bool open; /* judges may answer */
} *seen;

static struct config conf = {.user = "", .keeper_workers = WORKERS};
static struct sockaddr_un address;
static socklen_t address_len;
static int listener;
static pid_t pool;

static void
rest(int ms)
{
	const struct timespec ts = {ms / 1000, ms % 1000 * 1000000L};

	(void)nanosleep(&ts, NULL);
}

/* Waits until `what` is `n`. */
static void
await(atomic_int *what, int n)
{
	int64_t end = clock_in(WAIT);

	while (atomic_load(what) != n && clock_left(end) > 0)
		rest(1);
	assert_int_equal(atomic_load(what), n);
}

/* --- the vault ----------------------------------------------------------- */

void
vault_init(struct vault *v, const struct config *c)
{
	memset(v, 0, sizeof(*v));
	v->conf = c;
	atomic_fetch_add(&seen->vaults, 1);
}

void
vault_prepare(struct vault *v, bool many)
{
	(void)v;
	assert_true(many);
}

static void
judge(void)
{
	int now = atomic_fetch_add(&seen->judging, 1) + 1;
	int most = atomic_load(&seen->most);

	while (now > most &&
	    !atomic_compare_exchange_weak(&seen->most, &most, now))
		;
	while (!atomic_load(&seen->open))
		rest(1);
	atomic_fetch_sub(&seen->judging, 1);
	atomic_fetch_add(&seen->judged, 1);
}

bool
vault_is_slow(struct vault *v, enum message_type type)
{
	(void)v;
	return type == ASK_VERDICT || type == ASK_STEP;
}

void
vault_forget(struct vault *v, struct asker *asker)
{
	(void)v;
	(void)asker;
	atomic_fetch_add(&seen->forgotten, 1);
}

bool
vault_answer(struct vault *v, struct asker *asker, struct message *question,
    struct message *answer)
{
	bool slow = vault_is_slow(v, question->type);

	if (question->type > ASK_SIGNATURE)
		return false;
	if (slow)
		judge();
	/* What it was asked, and how often: no other asker's. */
	message_init(answer, slow ? ANSWER_VERDICT : ANSWER_MECHANISMS);
	message_put(answer, M_USER, message_get(question, M_USER));
	message_put_number(answer, M_ATTEMPT, ++asker->judged);
	message_wipe(question);
	return true;
}

/* --- askers -------------------------------------------------------------- */

static int
set_up(void **state)
{
	const struct sockaddr_un any = {.sun_family = AF_UNIX};

	(void)state;
	seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	/* Blocking, as systemd passes it on. */
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	address_len = sizeof(address);
	if (seen == MAP_FAILED ||
	    bind(listener, (const struct sockaddr *)&any,
		sizeof(sa_family_t)) == -1 ||
	    getsockname(listener, (struct sockaddr *)&address, &address_len) ==
		-1 ||
	    listen(listener, 64) == -1)
		return -1;
	pool = fork();
	if (pool == 0)
		_exit(keeper_pool_run(&conf, listener));
	return pool == -1 ? -1 : 0;
}

static int
tear_down(void **state)
{
	int status;

	(void)state;
	(void)kill(pool, SIGTERM);
	(void)waitpid(pool, &status, 0);
	(void)close(listener);
	(void)munmap(seen, sizeof(*seen));
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

static int
open_channel(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	assert_int_equal(
	    connect(fd, (const struct sockaddr *)&address, address_len), 0);
	return fd;
}

static void
ask(int fd, enum message_type type, const char *user)
{
	static struct message m;

	message_init(&m, type);
	message_put(&m, M_USER, user);
	assert_int_equal(message_send(fd, &m, clock_in(WAIT)), 0);
}

static void
expect(int fd, enum message_type type, const char *user, unsigned nth)
{
	static struct message m;

	assert_int_equal(message_receive(fd, &m, clock_in(WAIT)), 1);
	assert_int_equal(m.type, type);
	assert_string_equal(message_text(&m, M_USER), user);
	assert_int_equal(message_get_number(&m, M_ATTEMPT, 1000, 0), nth);
}

static void
expect_end(int fd)
{
	static struct message m;

	assert_int_equal(message_receive(fd, &m, clock_in(WAIT)), 0);
	(void)close(fd);
}

static void
questions_and_answers(void **state)
{
	int a = open_channel(), b = open_channel();
	unsigned i;

	(void)state;
	atomic_store(&seen->open, true);
	for (i = 1; i <= 100; i++) {
		ask(a, ASK_VERDICT, "alice");
		ask(b, ASK_MECHANISMS, "bob");
		expect(b, ANSWER_MECHANISMS, "bob", i);
		expect(a, ANSWER_VERDICT, "alice", i);
	}
	/* Two at a time, which a session never does: each is answered. */
	ask(a, ASK_VERDICT, "one");
	ask(a, ASK_VERDICT, "two");
	expect(a, ANSWER_VERDICT, "one", 101);
	expect(a, ANSWER_VERDICT, "two", 102);
	(void)close(a);
	(void)close(b);
}

/* No more than keeper_workers judge; the others wait, and none is lost. */
static void
the_line(void **state)
{
	enum { ASKERS = 12 };
	int fds[ASKERS], i;
	char name[16];

	(void)state;
	for (i = 0; i < ASKERS; i++) {
		(void)snprintf(name, sizeof(name), "user%d", i);
		fds[i] = open_channel();
		ask(fds[i], i % 2 ? ASK_STEP : ASK_VERDICT, name);
	}
	await(&seen->judging, WORKERS);
	rest(100);
	assert_int_equal(atomic_load(&seen->most), WORKERS);
	/* One in line leaves. */
	(void)close(fds[ASKERS - 1]);
	atomic_store(&seen->open, true);
	for (i = 0; i < ASKERS - 1; i++) {
		(void)snprintf(name, sizeof(name), "user%d", i);
		expect(fds[i], ANSWER_VERDICT, name, 1);
		(void)close(fds[i]);
	}
	assert_int_equal(atomic_load(&seen->most), WORKERS);
	assert_in_range(atomic_load(&seen->vaults), 1, WORKERS + 2);
	await(&seen->judging, 0);
}

static void
quick_questions_pass_the_line(void **state)
{
	static const enum message_type quick[] = {ASK_MECHANISMS, ASK_EXCHANGE,
	    ASK_CERTIFICATES, ASK_SIGNATURE};
	enum { ASKERS = 2 * WORKERS };
	int fds[ASKERS], fd = open_channel();
	unsigned i;

	(void)state;
	for (i = 0; i < ASKERS; i++) {
		fds[i] = open_channel();
		ask(fds[i], ASK_VERDICT, "slow");
	}
	await(&seen->judging, WORKERS);
	for (i = 0; i < 40; i++) {
		ask(fd, quick[i % 4], "quick");
		expect(fd, ANSWER_MECHANISMS, "quick", i + 1);
	}
	assert_int_equal(atomic_load(&seen->judged), 0);
	atomic_store(&seen->open, true);
	for (i = 0; i < ASKERS; i++) {
		expect(fds[i], ANSWER_VERDICT, "slow", 1);
		(void)close(fds[i]);
	}
	(void)close(fd);
}

static void
garbage_costs_the_asker_alone(void **state)
{
	int good = open_channel(), bad;
	unsigned i;

	(void)state;
	atomic_store(&seen->open, true);
	for (i = 1; i <= 20; i++) {
		bad = open_channel();
		if (i % 2)
			assert_int_equal(send(bad, "\0garbage", 8, 0), 8);
		else
			ask(bad, ANSWER_VERDICT, "x");
		expect_end(bad);
		ask(good, ASK_VERDICT, "good");
		expect(good, ANSWER_VERDICT, "good", i);
	}
	/* What each of them may have left open is forgotten. */
	await(&seen->forgotten, 20);
	(void)close(good);
}

/* Who asks and asks and never reads is dropped, and holds nobody up. */
static void
the_deaf(void **state)
{
	enum { DEAF = 8 };
	static struct message m;
	int fds[DEAF], i, good = open_channel();
	int64_t begin;

	(void)state;
	atomic_store(&seen->open, true);
	for (i = 0; i < DEAF; i++) {
		fds[i] = open_channel();
		message_init(&m, ASK_MECHANISMS);
		while (message_send(fds[i], &m, clock_in(200)) == 0)
			;
	}
	begin = clock_ms();
	for (i = 1; i <= 20; i++) {
		ask(good, ASK_VERDICT, "good");
		expect(good, ANSWER_VERDICT, "good", (unsigned)i);
	}
	assert_true(clock_ms() - begin < 2000);
	for (i = 0; i < DEAF; i++)
		(void)close(fds[i]);
	(void)close(good);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(
		questions_and_answers, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(the_line, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(
		quick_questions_pass_the_line, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(
		garbage_costs_the_asker_alone, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(the_deaf, set_up, tear_down),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("keeper_pool", tests, NULL, NULL);
}
