/*
 * smtp-frontd-pam: one process, one transaction of PAM's. Authentication and
 * the account's state, no session and no credentials. It is run by the provider
 * auth-pam (auth/pam.h), and modules may do with it what they like.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include <security/pam_appl.h>

#include "lib/sandbox.h"

#include "auth/pam.h"

#define QUESTION_FD 3

/* What a module asks with that has taken PAM_USER away again. */
#define USER_PROMPT "user name of smtp-frontd: "

/* Where we are: what pam_access and pam_time may speak of. */
#define TERMINAL "smtp"

struct transaction {
	char question[PAM_QUESTIONS * PAM_FIELD_SIZE];
	const char *field[PAM_QUESTIONS];
	unsigned delay_us;
	char said[128]; /* the last complaint of a module */
};

/* --- what the modules ask ------------------------------------------------ */

/* A password for what is asked unseen; nothing else is known here. */
static const char *
reply_to(struct transaction *t, const struct pam_message *m)
{
	switch (m->msg_style) {
	case PAM_PROMPT_ECHO_OFF:
		return t->field[PAM_Q_PASSWORD];
	case PAM_PROMPT_ECHO_ON:
		return strcmp(m->msg, USER_PROMPT) == 0
		    ? t->field[PAM_Q_USER]
		    : NULL;
	case PAM_ERROR_MSG:
		(void)snprintf(t->said, sizeof(t->said), "%s", m->msg);
		return "";
	case PAM_TEXT_INFO:
		return "";
	default:
		return NULL;
	}
}

static void
free_replies(struct pam_response *r, int count)
{
	int i;

	for (i = 0; i < count; i++) {
		if (r[i].resp != NULL)
			explicit_bzero(r[i].resp, strlen(r[i].resp));
		free(r[i].resp);
	}
	free(r);
}

/* The replies are the modules' to wipe and to free. */
static int
converse(int count, const struct pam_message **m, struct pam_response **reply,
    void *data)
{
	struct transaction *t = data;
	struct pam_response *r;
	const char *text;
	int i;

	if (count <= 0 || count > PAM_MAX_NUM_MSG)
		return PAM_CONV_ERR;
	r = calloc((size_t)count, sizeof(*r));
	if (r == NULL)
		return PAM_BUF_ERR;
	for (i = 0; i < count; i++) {
		text = reply_to(t, m[i]);
		if (text != NULL)
			r[i].resp = strdup(text);
		if (r[i].resp == NULL) {
			(void)snprintf(t->said, sizeof(t->said),
			    "a module asks for more than a password: %s",
			    m[i]->msg);
			free_replies(r, count);
			return PAM_CONV_ERR;
		}
	}
	*reply = r;
	return PAM_SUCCESS;
}

/* In place of PAM's own sleep: the session waits, and nobody else. */
static void
note_delay(int result, unsigned delay_us, void *data)
{
	struct transaction *t = data;

	if (result != PAM_SUCCESS)
		t->delay_us = delay_us;
}

/* --- what comes of it ---------------------------------------------------- */

struct meaning {
	int code;
	const char *result;
};

/* Before the password was found right, all refusals look the same. */
static const struct meaning of_authentication[] = {
    {PAM_AUTH_ERR, PAM_DENIED},
    {PAM_USER_UNKNOWN, PAM_DENIED},
    {PAM_MAXTRIES, PAM_DENIED},
    {PAM_PERM_DENIED, PAM_DENIED},
    {PAM_ACCT_EXPIRED, PAM_DENIED},
    {PAM_CRED_EXPIRED, PAM_DENIED},
    {PAM_AUTHTOK_EXPIRED, PAM_DENIED},
    {PAM_NEW_AUTHTOK_REQD, PAM_DENIED},
    {0, NULL},
};

static const struct meaning of_account[] = {
    {PAM_NEW_AUTHTOK_REQD, PAM_PASSWORD_EXPIRED},
    {PAM_AUTHTOK_EXPIRED, PAM_PASSWORD_EXPIRED},
    {PAM_CRED_EXPIRED, PAM_PASSWORD_EXPIRED},
    {PAM_ACCT_EXPIRED, PAM_ACCOUNT_EXPIRED},
    {PAM_PERM_DENIED, PAM_ACCOUNT_FORBIDDEN},
    {PAM_AUTH_ERR, PAM_DENIED},
    {PAM_USER_UNKNOWN, PAM_DENIED},
    {PAM_MAXTRIES, PAM_DENIED},
    {0, NULL},
};

static const char *
meaning(const struct meaning *m, int code)
{
	while (m->result != NULL && m->code != code)
		m++;
	return m->result != NULL ? m->result : PAM_UNAVAILABLE;
}

/* One field, cut where it is too long; the last octet is its NUL. */
static void __attribute__((format(printf, 2, 3)))
say(int fd, const char *format, ...)
{
	char field[PAM_FIELD_SIZE];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(field, sizeof(field), format, ap);
	va_end(ap);
	(void)!write(fd, field, strlen(field) + 1);
}

/*
 * The answer: the fields of enum pam_answer. Who is not root is told so, for
 * modules do not: to them /etc/shadow is not there, or every password wrong.
 */
static void
answer(int fd, const struct transaction *t, const char *result,
    const char *user, const char *reason)
{
	char identity[64] = "";

	if (geteuid() != 0)
		(void)snprintf(identity, sizeof(identity),
		    " (asked as uid %u, not as root)", (unsigned)geteuid());
	say(fd, "%s", result);
	say(fd, "%u", t->delay_us / 1000);
	say(fd, "%s", user);
	say(fd, "pam: %s%s%s%s", reason, t->said[0] != '\0' ? ": " : "",
	    t->said, identity);
}

/* --- the transaction ----------------------------------------------------- */

static bool
read_question(struct transaction *t)
{
	size_t len = 0, i;
	const char *at = t->question, *end;
	ssize_t n;

	do {
		n = read(QUESTION_FD, t->question + len,
		    sizeof(t->question) - len);
		if (n > 0)
			len += (size_t)n;
	} while (n > 0 && len < sizeof(t->question));
	(void)close(QUESTION_FD);
	for (i = 0; i < PAM_QUESTIONS; i++) {
		end = memchr(at, '\0', len - (size_t)(at - t->question));
		if (end == NULL)
			return false;
		t->field[i] = at;
		at = end + 1;
	}
	return true;
}

/* PAM's code; where *account is set it is about that, not the password. */
static int
transact(pam_handle_t *pam, struct transaction *t, bool *account)
{
	int r;

	r = pam_set_item(pam, PAM_USER_PROMPT, USER_PROMPT);
	if (r == PAM_SUCCESS && t->field[PAM_Q_CLIENT][0] != '\0')
		r = pam_set_item(pam, PAM_RHOST, t->field[PAM_Q_CLIENT]);
	if (r == PAM_SUCCESS)
		r = pam_set_item(pam, PAM_TTY, TERMINAL);
	if (r == PAM_SUCCESS)
		r = pam_set_item(pam, PAM_FAIL_DELAY, (void *)note_delay);
	if (r == PAM_SUCCESS)
		r = pam_authenticate(pam, PAM_DISALLOW_NULL_AUTHTOK);
	if (r == PAM_SUCCESS) {
		*account = true;
		r = pam_acct_mgmt(pam, PAM_DISALLOW_NULL_AUTHTOK);
	}
	return r;
}

static void
judge(int fd, struct transaction *t)
{
	const struct pam_conv conv = {converse, t};
	const void *user = NULL;
	pam_handle_t *pam = NULL;
	bool account = false;
	int r;

	r = pam_start(
	    t->field[PAM_Q_SERVICE], t->field[PAM_Q_USER], &conv, &pam);
	if (r == PAM_SUCCESS)
		r = transact(pam, t, &account);
	/* A module may have made it the account's proper name. */
	if (r == PAM_SUCCESS &&
	    pam_get_item(pam, PAM_USER, &user) == PAM_SUCCESS &&
	    user != NULL && strlen(user) < PAM_FIELD_SIZE)
		answer(fd, t, PAM_ACCEPTED, user, pam_strerror(pam, r));
	else
		answer(fd, t,
		    meaning(account ? of_account : of_authentication, r), "",
		    pam_strerror(pam, r));
	if (pam != NULL)
		(void)pam_end(pam, r);
}

int
main(void)
{
	static struct transaction t;
	int fd, null;

	sandbox_private();
	/* What modules print is no part of the answer. */
	fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, QUESTION_FD + 1);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (fd == -1 || null == -1 || dup2(null, STDOUT_FILENO) == -1 ||
	    !read_question(&t)) {
		fputs("smtp-frontd-pam is run by smtp-frontd\n", stderr);
		return EX_USAGE;
	}
	judge(fd, &t);
	explicit_bzero(&t, sizeof(t));
	return EX_OK;
}
