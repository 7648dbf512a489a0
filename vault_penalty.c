/*
 * Guessing: each failed login makes the answer to the next one slower for its
 * source. The keeper knows the delay and tells it with the verdict; the session
 * sleeps. A keeper that lives on has the table in memory, a private one shares
 * a file; where that cannot be had, its own session's failures are counted.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include "lib/clock.h"
#include "lib/network.h"
#include "penalty_file.h"

#include "vault_parts.h"

/* The longest delay of a provider that counts; a session waits no longer. */
#define DELAY_MAX 60000

static struct {
	pthread_mutex_t lock; /* of all below; nobody waits with it */
	bool has_key;
	struct penalty_table table;
} memory = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* --- whose failures ------------------------------------------------------ */

static bool
parse_address(const char *text, struct sockaddr_storage *ss)
{
	struct sockaddr_in *in = (struct sockaddr_in *)ss;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;

	memset(ss, 0, sizeof(*ss));
	if (inet_pton(AF_INET, text, &in->sin_addr) == 1)
		ss->ss_family = AF_INET;
	else if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1)
		ss->ss_family = AF_INET6;
	return ss->ss_family != AF_UNSPEC;
}

/*
 * Whether the asker's client is one whose failures count. A session is believed
 * about its client's address once: one that was taken over cannot spread its
 * guesses over many, nor blame many others.
 */
static bool
counts(struct vault *v)
{
	const struct config_list *exempt = &v->conf->auth_penalty_exempt;
	struct asker *asker = v->asker;
	struct sockaddr_storage client;

	if (!v->conf->auth_penalty)
		return false;
	if (!asker->placed) {
		asker->placed = true;
		if (parse_address(
			message_text(v->question, M_CLIENT_ADDR), &client) &&
		    !network_any(exempt->word, exempt->count, &client))
			source_of(&client, &asker->source);
	}
	return asker->source.bytes[0] != 0;
}

/* --- the table ----------------------------------------------------------- */

static bool
is_shared_by_file(const struct vault *v)
{
	return !v->many && v->conf->runtime_directory[0] != '\0';
}

static struct penalty_set *
set_in_memory(const struct source *source)
{
	if (!memory.has_key)
		memory.has_key = getrandom(memory.table.key,
		    sizeof(memory.table.key), 0) == sizeof(memory.table.key);
	return &memory.table.set[penalty_place(memory.table.key, source)];
}

static int64_t
count(struct vault *v, const struct penalty_guess *guess)
{
	int64_t delay = -1;

	if (is_shared_by_file(v))
		delay = penalty_file_count(v->conf->runtime_directory, guess);
	if (delay == -1) {
		(void)pthread_mutex_lock(&memory.lock);
		delay = penalty_count(set_in_memory(&guess->source),
		    memory.table.key, guess, clock_ms());
		(void)pthread_mutex_unlock(&memory.lock);
	}
	return delay;
}

static void
forget(struct vault *v)
{
	const struct source *source = &v->asker->source;

	if (is_shared_by_file(v))
		penalty_file_clear(v->conf->runtime_directory, source);
	(void)pthread_mutex_lock(&memory.lock);
	(void)penalty_clear(set_in_memory(source), source);
	(void)pthread_mutex_unlock(&memory.lock);
}

/* Counts, and puts the delay into the answer unless a longer one is there. */
static void
penalize(struct vault *v, struct penalty_guess *guess)
{
	uint64_t delay, own;

	guess->source = v->asker->source;
	own = (uint64_t)count(v, guess);
	delay = message_get_number(v->answer, M_DELAY, DELAY_MAX, 0);
	message_put_number(v->answer, M_DELAY, own > delay ? own : delay);
	v->asker->wait = clock_in((int64_t)own);
}

/* --- the keeper's side --------------------------------------------------- */

/*
 * What was tried, as far as it can be compared: a response to a challenge never
 * is the same twice. False where nothing was proved or guessed: an envelope, a
 * certificate's name, a client that asks what its token is refused with.
 */
static bool
take_guess(const struct vault *v, struct penalty_guess *guess)
{
	const struct message *q = v->question;
	const char *method = message_text(q, M_METHOD);

	memset(guess, 0, sizeof(*guess));
	guess->user = message_text(v->answer, M_USER);
	guess->secret =
	    message_get_bytes(q, M_PASSWORD, &guess->secret_len);
	/* An exchange is one, whatever the asker calls its method. */
	if (q->type != ASK_VERDICT) {
		if (guess->secret == NULL)
			guess->secret = message_get_bytes(
			    q, M_RESPONSE, &guess->secret_len);
		return true;
	}
	if (strcmp(method, "none") == 0 || strcmp(method, "external") == 0)
		return false;
	return strcmp(method, "plain") == 0 || guess->secret_len > 0;
}

void
vault_penalty(struct vault *v, enum auth_result result)
{
	struct penalty_guess guess;

	if (strcmp(message_text(v->question, M_METHOD), "none") == 0 &&
	    v->question->type == ASK_VERDICT)
		return;
	if (!counts(v))
		return;
	if (result == AUTH_ACCEPTED)
		forget(v);
	else if (result == AUTH_DENIED && take_guess(v, &guess))
		penalize(v, &guess);
}

bool
vault_penalty_is_over(const struct vault *v)
{
	return clock_left(v->asker->wait) == 0;
}

void
vault_penalty_count(struct vault *v)
{
	struct penalty_guess guess = {.user = ""};

	/* No session asks more often than it may be mistaken. */
	if (!vault_take_one(&v->asker->misplaced, v->conf->max_errors + 1)) {
		vault_fail(v, "too many attempts");
		return;
	}
	message_init(v->answer, ANSWER_PENALTY);
	if (counts(v))
		penalize(v, &guess);
}
