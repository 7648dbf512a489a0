/*
 * The provider `file:/path`: a password file (lib/passwd.h), opened anew for
 * each question, so that an edit counts at once and nothing is kept. What a
 * line means and how a secret is verified is lib/passwd.c's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "auth/provider.h"
#include "lib/passwd.h"
#include "lib/text.h"

static void *
file_open(const char *value, const struct config *conf, char *err)
{
	static const char scheme[] = "file:";
	char *path = NULL;

	(void)conf;
	if (!text_prefix(value, scheme) || value[strlen(scheme)] == '\0')
		(void)snprintf(
		    err, AUTH_ERROR_SIZE, "no path in \"%.180s\"", value);
	else if ((path = strdup(value + strlen(scheme))) == NULL)
		(void)snprintf(err, AUTH_ERROR_SIZE, "%s", strerror(errno));
	return path;
}

static enum auth_result
denied(struct message *verdict, const char *reason)
{
	message_put(verdict, M_REASON, reason);
	return AUTH_DENIED;
}

static enum passwd_found
look_up(const char *path, const char *user, struct passwd_entry *entry,
    struct message *verdict)
{
	char err[PASSWD_ERROR_SIZE];
	enum passwd_found found = PASSWD_UNREADABLE;
	int fd;

	fd = passwd_open(path, err);
	if (fd != -1) {
		found = passwd_find(fd, user, entry);
		(void)snprintf(
		    err, sizeof(err), "%.180s: %s", path, strerror(errno));
		(void)close(fd);
	}
	if (found == PASSWD_UNREADABLE)
		message_put(verdict, M_REASON, err);
	return found;
}

/* What a verification means, the stand-in's for an unknown user included. */
static enum auth_result
conclude(enum passwd_found found, enum passwd_result result,
    const struct passwd_entry *entry, struct message *verdict)
{
	char scheme[PASSWD_SCHEME_SIZE], reason[PASSWD_SCHEME_SIZE + 64];

	if (found != PASSWD_FOUND)
		return denied(verdict, "unknown user");
	switch (result) {
	case PASSWD_MATCH:
		message_put(verdict, M_USER, entry->user);
		message_put(verdict, M_BACKEND, entry->backend);
		return AUTH_ACCEPTED;
	case PASSWD_MISMATCH:
		return denied(verdict, "wrong password");
	case PASSWD_UNSUPPORTED:
		break;
	}
	passwd_describe(entry->secret, scheme);
	(void)snprintf(
	    reason, sizeof(reason), "unsupported secret: %s", scheme);
	return denied(verdict, reason);
}

/*
 * A secret with a '!' or '*' in front, as usermod(8) and others lock a user. One
 * that is nothing else is no password's, and says nothing of the user.
 */
static bool
is_locked(const char *secret)
{
	static const char crypt[] = "{CRYPT}";

	if (text_prefix(secret, crypt))
		secret += strlen(crypt);
	return (secret[0] == '!' || secret[0] == '*') && secret[1] != '\0';
}

/*
 * EXTERNAL: TLS has proved who the client is, and the file says whether that is
 * a user. Its secret is not asked for, and may be one that no password matches.
 */
static enum auth_result
judge_identity(
    const char *path, const char *user, struct message *verdict)
{
	struct passwd_entry entry;
	enum passwd_found found = look_up(path, user, &entry, verdict);
	enum auth_result answer = AUTH_ACCEPTED;

	if (found == PASSWD_UNREADABLE) {
		answer = AUTH_UNAVAILABLE;
	} else if (found == PASSWD_UNKNOWN) {
		answer = denied(verdict, "unknown user");
	} else if (is_locked(entry.secret)) {
		answer = denied(verdict, "the user is locked");
	} else {
		message_put(verdict, M_USER, entry.user);
		message_put(verdict, M_BACKEND, entry.backend);
	}
	explicit_bzero(&entry, sizeof(entry));
	return answer;
}

static enum auth_result
file_judge(
    void *provider, const struct message *question, struct message *verdict)
{
	const char *user = message_get(question, M_USER);
	const char *password = message_get(question, M_PASSWORD);
	const char *authzid = message_text(question, M_AUTHZID);
	struct passwd_entry entry;
	enum passwd_result result = PASSWD_MISMATCH;
	enum passwd_found found;
	enum auth_result answer;

	if (strcmp(message_text(question, M_METHOD), "external") == 0 &&
	    user != NULL && user[0] != '\0')
		return judge_identity(provider, user, verdict);
	if (strcmp(message_text(question, M_METHOD), "plain") != 0 ||
	    user == NULL || password == NULL)
		return denied(verdict, "not a user and a password");
	/* RFC 4616: to act as another one takes rights that nobody has here. */
	if (authzid[0] != '\0' && strcmp(authzid, user) != 0)
		return denied(verdict, "authorization name");
	found = look_up(provider, user, &entry, verdict);
	if (found == PASSWD_UNREADABLE) {
		explicit_bzero(&entry, sizeof(entry));
		return AUTH_UNAVAILABLE;
	}
	if (entry.secret != NULL)
		result = passwd_verify(entry.secret, password);
	answer = conclude(found, result, &entry, verdict);
	explicit_bzero(&entry, sizeof(entry));
	return answer;
}

/*
 * The entry's secret where it will do, as such or as keys. An empty one proves
 * nothing. False: it will not.
 */
static bool
take_secret(const struct passwd_entry *entry, const char *keys,
    struct sasl_stored *stored)
{
	const char *text = NULL;

	if (entry->secret == NULL)
		return false;
	if (keys != NULL)
		text = passwd_scram(entry->secret, keys);
	stored->is_keys = text != NULL;
	if (text == NULL)
		text = passwd_plain(entry->secret);
	return text != NULL && text[0] != '\0' &&
	       text_copy(stored->text, sizeof(stored->text), text) == 0;
}

static enum auth_result
file_secret(void *provider, const char *user, const char *keys,
    struct sasl_stored *stored, struct message *verdict)
{
	struct passwd_entry entry;
	enum passwd_found found;
	enum auth_result answer = AUTH_ACCEPTED;
	bool taken;

	stored->is_keys = false;
	stored->text[0] = '\0';
	found = look_up(provider, user, &entry, verdict);
	taken = found != PASSWD_UNREADABLE &&
		take_secret(&entry, keys, stored);
	if (found == PASSWD_UNREADABLE) {
		answer = AUTH_UNAVAILABLE;
	} else if (found == PASSWD_UNKNOWN) {
		answer = denied(verdict, "unknown user");
	} else if (!taken) {
		answer = denied(verdict, "the secret is stored hashed");
	} else {
		message_put(verdict, M_USER, entry.user);
		message_put(verdict, M_BACKEND, entry.backend);
	}
	explicit_bzero(&entry, sizeof(entry));
	return answer;
}

const struct auth_provider auth_provider = {
    .scheme = "file",
    .can = AUTH_CAN_VERIFY | AUTH_CAN_SECRET | AUTH_CAN_AUTHORIZE,
    .open = file_open,
    .close = free,
    .judge = file_judge,
    .secret = file_secret,
};
