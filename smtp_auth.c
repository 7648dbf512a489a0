/*
 * Credentials in the dialogue: the AUTH command, and the envelope that a
 * provider judges where no authentication is asked for. The mechanisms are
 * sasl.c's and the keeper's, the judgement is the keeper's; which of them are
 * there to be had is smtp_offer.c's.
 */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <syslog.h>

#include "auth.h"
#include "counters.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/text.h"
#include "sasl.h"
#include "sasl_token.h"
#include "smtp_delay.h"
#include "smtp_external.h"
#include "smtp_offer.h"
#include "smtp_reply.h"

#include "smtp_auth.h"

bool
smtp_needs_tls(const struct session *s)
{
	return s->conf->starttls == CONFIG_STARTTLS_ONLY && s->tls == NULL;
}

/* --- the verdict --------------------------------------------------------- */

/*
 * A refusal that the provider made: its own words when it has a code for them,
 * else `reply`.
 */
static enum smtp_event
say_refusal(struct session *s, enum smtp_reply reply)
{
	const char *code = message_get(&s->verdict, M_CODE);
	char words[512];

	if (code == NULL)
		return smtp_refuse(s, reply);
	(void)snprintf(words, sizeof(words), "%s %s\r\n", code,
	    message_text(&s->verdict, M_REASON));
	return smtp_refuse_words(s, words);
}

/* The same, after the delay that the provider asks for. */
static enum smtp_event
refuse_verdict(struct session *s, enum smtp_reply reply)
{
	if (!smtp_delay(s))
		return smtp_over(s, "left");
	return say_refusal(s, reply);
}

static void
log_verdict(struct session *s, const char *result, const char *user,
    const char *mechanism)
{
	log_event(LOG_INFO, "auth", "result", result, "client", s->peer.addr,
	    "user", user, "mech", mechanism, "reason",
	    message_get(&s->verdict, M_REASON), NULL);
}

enum smtp_event
smtp_auth_envelope(struct session *s)
{
	struct message *m = &s->verdict;
	char mail[ENVELOPE_SIZE + 8];
	enum smtp_event event;

	message_init(m, ANSWER_VERDICT);
	if (!smtp_offer_can(s, "route"))
		return SMTP_ENVELOPE;
	message_init(m, ASK_VERDICT);
	s->envelopes++;
	smtp_offer_facts(s, m);
	message_put(m, M_METHOD, "none");
	(void)snprintf(mail, sizeof(mail), "MAIL %s", s->mail);
	message_put(m, M_MAIL_FROM, mail);
	(void)snprintf(mail, sizeof(mail), "RCPT %s", s->rcpt);
	message_put(m, M_RCPT_TO, mail);
	switch (auth_ask(&s->keeper, m, smtp_offer_deadline(s))) {
	case AUTH_IS_ACCEPTED:
		s->status = EX_OK;
		return SMTP_ENVELOPE;
	case AUTH_IS_DENIED:
		log_verdict(s, "denied", NULL, "none");
		event = refuse_verdict(s, REPLY_RECIPIENT_DENIED);
		break;
	default:
		log_verdict(s, "unavailable", NULL, "none");
		s->status = EX_TEMPFAIL;
		event = smtp_refuse(s, REPLY_UPSTREAM_FAILED);
		break;
	}
	message_wipe(m);
	return event;
}

/* --- AUTH ---------------------------------------------------------------- */

enum outcome {
	OUTCOME_ACCEPTED,
	OUTCOME_DENIED,
	OUTCOME_UNAVAILABLE,
	OUTCOME_MALFORMED,
	OUTCOME_CANCELLED,
	OUTCOME_TOO_LONG,
	OUTCOME_ENDED /* the connection: s->cause says why */
};

/* RFC 4954 sections 4 and 6 give each code. */
static const struct {
	const char *result; /* in the log */
	enum smtp_reply reply;
} outcomes[] = {
    /* the answer waits until the upstream is ready: smtp_welcome() */
    [OUTCOME_ACCEPTED] = {"accepted", REPLY_AUTH_OK},
    /* "credentials are invalid or insufficient" */
    [OUTCOME_DENIED] = {"denied", REPLY_AUTH_DENIED},
    /* "a temporary server failure" */
    [OUTCOME_UNAVAILABLE] = {"unavailable", REPLY_AUTH_UNAVAILABLE},
    /* "the server cannot decode" what it was sent */
    [OUTCOME_MALFORMED] = {"malformed", REPLY_AUTH_MALFORMED},
    /* a line of "*" alone */
    [OUTCOME_CANCELLED] = {"cancelled", REPLY_AUTH_CANCELLED},
    /* over 12288 octets */
    [OUTCOME_TOO_LONG] = {"malformed", REPLY_LINE_TOO_LONG},
    /* nobody is there to be told */
    [OUTCOME_ENDED] = {"cancelled", SMTP_REPLIES},
};

/* A response as it came, decoded in place of its buffer. */
struct response {
	bool given;
	size_t len;
	char bytes[SASL_RESPONSE_SIZE + 4];
};

/* The longest challenge, decoded: what a line of 12288 octets holds. */
#define CHALLENGE_SIZE (12288 / 4 * 3)

/* "=" is an empty response where one must be told from none (RFC 4954 4). */
static bool
decode(struct response *r, const char *text, size_t len, bool initial)
{
	r->given = true;
	r->len = 0;
	if (!initial || len != 1 || *text != '=') {
		if (len / 4 * 3 > SASL_RESPONSE_SIZE ||
		    text_base64_decode(
			text, len, (unsigned char *)r->bytes, &r->len) == -1)
			return false;
	}
	r->bytes[r->len] = '\0';
	return true;
}

/*
 * Sends a challenge and reads the response. OUTCOME_ACCEPTED: there is one.
 */
static enum outcome
ask_client(
    struct session *s, const void *challenge, size_t len, struct response *r)
{
	char encoded[TEXT_BASE64_SIZE(CHALLENGE_SIZE)];
	struct conn_line line;
	enum conn_result read;
	enum outcome outcome = OUTCOME_ACCEPTED;

	if (len > CHALLENGE_SIZE)
		return OUTCOME_UNAVAILABLE;
	text_base64_encode(challenge, len, encoded);
	(void)conn_write(&s->client, "334 ", 4);
	(void)conn_write(&s->client, encoded, strlen(encoded));
	(void)conn_write(&s->client, "\r\n", 2);
	conn_set_timeout(&s->client, s->conf->timeout);
	read = conn_read_line(&s->client, SASL_LINE_MAX, &line);
	if (read != CONN_OK) {
		(void)smtp_no_line(s, read);
		return OUTCOME_ENDED;
	}
	if (line.too_long)
		outcome = OUTCOME_TOO_LONG;
	else if (!line.malformed && strcmp(line.text, "*") == 0)
		outcome = OUTCOME_CANCELLED;
	else if (line.malformed || !decode(r, line.text, line.len, false))
		outcome = OUTCOME_MALFORMED;
	conn_wipe_line(&line);
	return outcome;
}

static enum outcome
judged(enum auth_answer answer)
{
	switch (answer) {
	case AUTH_IS_ACCEPTED:
		return OUTCOME_ACCEPTED;
	case AUTH_IS_DENIED:
		return OUTCOME_DENIED;
	case AUTH_IS_UNAVAILABLE:
	case AUTH_IS_CHALLENGE:
		break;
	}
	return OUTCOME_UNAVAILABLE;
}

/* Complete credentials. */
static enum outcome
have_judged(struct session *s, struct sasl *sasl)
{
	struct message *m = &s->verdict;
	enum outcome outcome;

	message_init(m, ASK_VERDICT);
	smtp_offer_facts(s, m);
	message_put(m, M_METHOD, sasl->mechanism->method);
	message_put(m, M_MECHANISM, sasl->mechanism->name);
	message_put(m, M_USER, sasl->user);
	if (sasl->token != NULL)
		message_put_bytes(
		    m, M_PASSWORD, sasl->token, sasl->token_len);
	else
		message_put(m, M_PASSWORD, sasl->password);
	message_put(m, M_AUTHZID, sasl->authzid);
	outcome = judged(auth_ask(&s->keeper, m, smtp_offer_deadline(s)));
	/* A token may tell what its bearer has not. */
	if (sasl->user[0] == '\0')
		(void)text_copy(sasl->user, sizeof(sasl->user),
		    message_text(m, M_USER));
	return outcome;
}

/* EXTERNAL: whose name it is does not lie with the client alone. */
static enum outcome
check_external(struct session *s, struct sasl *sasl)
{
	const char *refusal =
	    smtp_external_take(s, sasl->user, sizeof(sasl->user));

	if (refusal == NULL)
		return OUTCOME_ACCEPTED;
	message_init(&s->verdict, ANSWER_VERDICT);
	message_put(&s->verdict, M_REASON, refusal);
	return OUTCOME_DENIED;
}

/* The mechanism only carries credentials: collect them, have them judged. */
static enum outcome
collect(struct session *s, struct sasl *sasl, struct response *r)
{
	const char *challenge;
	enum outcome outcome;

	for (;;) {
		switch (sasl_step(
		    sasl, r->given ? r->bytes : NULL, r->len, &challenge)) {
		case SASL_MALFORMED:
			return OUTCOME_MALFORMED;
		case SASL_CHALLENGE:
			outcome = ask_client(
			    s, challenge, strlen(challenge), r);
			if (outcome != OUTCOME_ACCEPTED)
				return outcome;
			continue;
		case SASL_CREDENTIALS:
			break;
		}
		break;
	}
	if (sasl->mechanism->bit == CONFIG_AUTH_EXTERNAL &&
	    check_external(s, sasl) != OUTCOME_ACCEPTED)
		return OUTCOME_DENIED;
	return have_judged(s, sasl);
}

/* The challenge of the keeper's answer to the client, and its response. */
static enum outcome
pass_challenge(struct session *s, struct response *r)
{
	const void *challenge;
	size_t len = 0;

	challenge = message_get_bytes(&s->verdict, M_CHALLENGE, &len);
	return ask_client(s, challenge, len, r);
}

/*
 * The last word of a mechanism that has one beside its success is one more
 * challenge, to which there is nothing to say (RFC 4954 section 4). Before it
 * is answered the client may not have made sure of us, and gets no 235.
 */
static enum outcome
pass_last_word(struct session *s, struct response *r)
{
	enum outcome outcome;
	size_t len;

	if (message_get_bytes(&s->verdict, M_CHALLENGE, &len) == NULL)
		return OUTCOME_ACCEPTED;
	outcome = pass_challenge(s, r);
	if (outcome == OUTCOME_ACCEPTED && r->len != 0)
		outcome = OUTCOME_MALFORMED;
	return outcome;
}

/* The keeper runs the mechanism: carry challenges and responses. */
static enum outcome
carry(struct session *s, struct sasl *sasl, struct response *r)
{
	struct message *m = &s->verdict;
	enum auth_answer answer;
	enum outcome outcome;

	message_init(m, ASK_EXCHANGE);
	smtp_offer_bindings(s, m);
	for (;;) {
		smtp_offer_facts(s, m);
		message_put(m, M_METHOD, sasl->mechanism->method);
		message_put(m, M_MECHANISM, sasl->mechanism->name);
		if (r->given)
			message_put_bytes(m, M_RESPONSE, r->bytes, r->len);
		explicit_bzero(r->bytes, r->len);
		answer = auth_ask(&s->keeper, m, smtp_offer_deadline(s));
		if (answer != AUTH_IS_CHALLENGE)
			break;
		outcome = pass_challenge(s, r);
		if (outcome != OUTCOME_ACCEPTED)
			return outcome;
		message_init(m, ASK_STEP);
	}
	(void)text_copy(
	    sasl->user, sizeof(sasl->user), message_text(m, M_USER));
	outcome = judged(answer);
	return outcome == OUTCOME_ACCEPTED ? pass_last_word(s, r) : outcome;
}

/*
 * Credentials are refused: that is counted and logged by now, and delayed here,
 * so that a client that goes after the first word of it has won nothing. Whose
 * token is refused is told why and answers that before the refusal itself
 * (RFC 7628 section 3.2.3); what it answers with does not matter.
 */
static enum smtp_event
deny(struct session *s, const struct sasl *sasl, struct response *r)
{
	const struct sasl_mechanism *m = sasl->mechanism;
	enum smtp_reply reply = outcomes[OUTCOME_DENIED].reply;
	char why[512];
	enum outcome outcome;

	if (m->refusal == NULL || smtp_offer_is_carried(s, m))
		return refuse_verdict(s, reply);
	if (!smtp_delay(s))
		return smtp_over(s, "left");
	sasl_token_refusal(m, s->conf->oauth2_scope, why, sizeof(why));
	outcome = ask_client(s, why, strlen(why), r);
	if (outcome == OUTCOME_ENDED)
		return SMTP_OVER;
	if (outcome == OUTCOME_CANCELLED || outcome == OUTCOME_TOO_LONG)
		return smtp_refuse(s, outcomes[outcome].reply);
	return say_refusal(s, reply);
}

/* In the log and the counters. */
static void
note_outcome(struct session *s, const struct sasl *sasl, enum outcome outcome)
{
	if (outcome != OUTCOME_ACCEPTED && outcome != OUTCOME_DENIED &&
	    outcome != OUTCOME_UNAVAILABLE) {
		message_wipe(&s->verdict);
		message_init(&s->verdict, ANSWER_FAILURE);
	}
	log_verdict(s, outcomes[outcome].result, sasl->user,
	    sasl->mechanism->name);
	if (outcome == OUTCOME_ACCEPTED || outcome == OUTCOME_DENIED)
		counters_add(outcome == OUTCOME_ACCEPTED
			? COUNTER_AUTHENTICATED
			: COUNTER_DENIED, 1);
	s->status = outcome == OUTCOME_UNAVAILABLE ? EX_TEMPFAIL : EX_OK;
}

static enum smtp_event
accept_login(struct session *s, const struct sasl *sasl)
{
	s->mechanism = sasl->mechanism->name;
	if (message_get(&s->verdict, M_USER) == NULL)
		message_put(&s->verdict, M_USER, sasl->user);
	return SMTP_ACCEPTED;
}

/* What the client is told, and the log; the one place for all outcomes. */
static enum smtp_event
conclude(struct session *s, struct sasl *sasl, struct response *response,
    enum outcome outcome)
{
	note_outcome(s, sasl, outcome);
	switch (outcome) {
	case OUTCOME_ACCEPTED:
		return accept_login(s, sasl);
	case OUTCOME_ENDED:
		return SMTP_OVER;
	case OUTCOME_DENIED:
		return deny(s, sasl, response);
	default:
		return smtp_refuse(s, outcomes[outcome].reply);
	}
}

/* The mechanism's way from the initial response to a verdict. */
static enum outcome
run_mechanism(struct session *s, struct sasl *sasl, struct response *response,
    char *initial)
{
	bool decoded = initial == NULL ||
	    decode(response, initial, strlen(initial), true);

	/* Now, for what is read next may lie in the same place. */
	if (initial != NULL)
		explicit_bzero(initial, strlen(initial));
	if (!decoded)
		return OUTCOME_MALFORMED;
	return smtp_offer_is_carried(s, sasl->mechanism)
		   ? carry(s, sasl, response)
		   : collect(s, sasl, response);
}

/* The exchange with its secrets, which end here. */
static enum smtp_event
exchange(
    struct session *s, const struct sasl_mechanism *mechanism, char *initial)
{
	static struct sasl sasl;
	static struct response response;
	enum smtp_event event;
	enum outcome outcome;

	sasl_init(&sasl, mechanism);
	response.given = false;
	response.len = 0;
	outcome = run_mechanism(s, &sasl, &response, initial);
	event = conclude(s, &sasl, &response, outcome);
	explicit_bzero(&response, sizeof(response));
	sasl_wipe(&sasl);
	if (event != SMTP_ACCEPTED)
		message_wipe(&s->verdict);
	return event;
}

/*
 * Whether the AUTH command is in its place: the reply that refuses it, or
 * SMTP_REPLIES. Splits `arg` into the mechanism and the initial response.
 */
static enum smtp_reply
check_auth(struct session *s, char *arg,
    const struct sasl_mechanism **mechanism, char **initial)
{
	*initial = strchr(arg, ' ');
	if (*arg == '\0')
		return REPLY_BAD_ARGUMENT;
	if (smtp_needs_tls(s))
		return REPLY_AUTH_NEEDS_TLS;
	if (s->have_mail)
		return REPLY_AUTH_IN_MAIL;
	if (*initial != NULL) {
		*(*initial)++ = '\0';
		*initial += strspn(*initial, " ");
	}
	*mechanism = sasl_find(arg);
	if (*mechanism == NULL || !smtp_offer_takes(s, *mechanism))
		return REPLY_AUTH_UNKNOWN;
	if (*initial != NULL && (*mechanism)->server_first)
		return REPLY_AUTH_SERVER_FIRST;
	return SMTP_REPLIES;
}

/*
 * Who tries AUTH where it is not offered has not asked what is: that is what
 * programs do that guess, and it is counted as a guess.
 */
static enum smtp_event
refuse_misplaced(struct session *s, enum smtp_reply refusal)
{
	if ((refusal == REPLY_AUTH_UNKNOWN || refusal == REPLY_AUTH_NEEDS_TLS) &&
	    !smtp_delay_misplaced(s))
		return smtp_over(s, "left");
	return smtp_refuse(s, refusal);
}

enum smtp_event
smtp_auth(struct session *s, char *arg)
{
	const struct sasl_mechanism *mechanism;
	size_t len = strlen(arg);
	enum smtp_reply refusal;
	char *initial;

	refusal = check_auth(s, arg, &mechanism, &initial);
	if (refusal != SMTP_REPLIES) {
		/* There may have been a password in it all the same. */
		explicit_bzero(arg, len);
		return refuse_misplaced(s, refusal);
	}
	if (s->auth_attempts >= s->conf->max_auth_attempts)
		return smtp_end(s, REPLY_TOO_MANY_ATTEMPTS, "attempts");
	s->auth_attempts++;
	return exchange(s, mechanism, initial);
}

/* --- without AUTH -------------------------------------------------------- */

bool
smtp_auth_is_implicit(struct session *s)
{
	const struct sasl_mechanism *external = sasl_find("EXTERNAL");

	return s->conf->auth_external_implicit &&
	    s->auth_attempts < s->conf->max_auth_attempts &&
	    smtp_external_identity(s) != NULL &&
	    smtp_offer_takes(s, external) &&
	    !smtp_offer_is_carried(s, external);
}

/* The client has not asked for it, so it is not told that AUTH has failed. */
static enum smtp_event
refuse_mail(struct session *s, enum outcome outcome)
{
	if (outcome != OUTCOME_DENIED)
		return smtp_refuse(s, REPLY_AUTH_UNAVAILABLE);
	if (!smtp_delay(s))
		return smtp_over(s, "left");
	if ((s->conf->smtp_auth & CONFIG_AUTH_NONE) == 0)
		return smtp_refuse(s, REPLY_AUTH_FIRST);
	s->have_mail = true;
	smtp_say(s, REPLY_MAIL_OK);
	return SMTP_GO_ON;
}

enum smtp_event
smtp_auth_implicit(struct session *s)
{
	static struct sasl sasl;
	enum smtp_event event;
	enum outcome outcome;

	s->auth_attempts++;
	sasl_init(&sasl, sasl_find("EXTERNAL"));
	outcome = check_external(s, &sasl);
	if (outcome == OUTCOME_ACCEPTED)
		outcome = have_judged(s, &sasl);
	note_outcome(s, &sasl, outcome);
	if (outcome == OUTCOME_ACCEPTED) {
		s->have_mail = true;
		return accept_login(s, &sasl);
	}
	event = refuse_mail(s, outcome);
	message_wipe(&s->verdict);
	return event;
}
