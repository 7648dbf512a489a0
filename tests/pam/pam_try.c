/*
 * A PAM module that does as its arguments say, for tests/wire/test_pam.py. Its
 * password is the user's name in reverse; the user "nobody-knows" is unknown.
 *
 *	auth=N acct=N	the result of a phase, after the right password
 *	rename=NAME	what PAM_USER is in the end
 *	delay=USEC	the delay of a failure
 *	say=WORD	a complaint, shown in the conversation
 *	record=FILE	what it is told, and its descriptors
 *	and the words of `doings`
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <security/pam_ext.h>
#include <security/pam_modules.h>

static const char *
argument(int argc, const char **argv, const char *name)
{
	size_t len = strlen(name);
	int i;

	for (i = 0; i < argc; i++)
		if (strncmp(argv[i], name, len) == 0)
			return argv[i] + len;
	return NULL;
}

static int
number(int argc, const char **argv, const char *name)
{
	const char *text = argument(argc, argv, name);

	return text != NULL ? (int)strtol(text, NULL, 10) : PAM_SUCCESS;
}

static int
ask(pam_handle_t *pam, int style, const char *text)
{
	char *reply = NULL;
	int r = pam_prompt(pam, style, &reply, "%s", text);

	free(reply);
	return r;
}

static int
ask_user(pam_handle_t *pam)
{
	const char *user, *before;
	char name[64];
	int r;

	(void)pam_get_user(pam, &before, NULL);
	(void)snprintf(name, sizeof(name), "%s", before);
	(void)pam_set_item(pam, PAM_USER, NULL);
	r = pam_get_user(pam, &user, NULL);
	if (r == PAM_SUCCESS && strcmp(user, name) != 0)
		r = PAM_AUTH_ERR;
	return r;
}

static int
hang(pam_handle_t *pam)
{
	(void)pam;
	/* With a child, which must go as well. */
	(void)fork();
	for (;;)
		(void)pause();
	return PAM_ABORT;
}

static int
crash(pam_handle_t *pam)
{
	(void)pam;
	(void)signal(SIGSEGV, SIG_DFL);
	(void)raise(SIGSEGV);
	return PAM_SUCCESS;
}

static int
leave(pam_handle_t *pam)
{
	(void)pam;
	_exit(0);
}

static int
chatter(pam_handle_t *pam)
{
	int i;

	(void)pam;
	for (i = 0; i < 10000; i++) {
		(void)!write(STDOUT_FILENO, "accepted\0" "0\0root", 15);
		(void)!write(STDERR_FILENO, "accepted\n", 9);
	}
	return PAM_SUCCESS;
}

static int
code(pam_handle_t *pam)
{
	return ask(pam, PAM_PROMPT_ECHO_ON, "One-time code: ");
}

static int
radio(pam_handle_t *pam)
{
	return ask(pam, PAM_RADIO_TYPE, "Yes or no? ");
}

static int
info(pam_handle_t *pam)
{
	return ask(pam, PAM_TEXT_INFO, "Welcome");
}

static const struct {
	const char *word;
	int (*run)(pam_handle_t *pam);
} doings[] = {
    {"ask-user", ask_user}, {"ask-code", code}, {"ask-radio", radio},
    {"tell", info}, {"hang", hang}, {"crash", crash}, {"leave", leave},
    {"chatter", chatter},
};

static const char *
item(pam_handle_t *pam, int which)
{
	const void *value = NULL;

	if (pam_get_item(pam, which, &value) != PAM_SUCCESS || value == NULL)
		return "(null)";
	return value;
}

static void
record(pam_handle_t *pam, const char *path)
{
	extern char **environ;
	struct dirent *entry;
	FILE *out = fopen(path, "w");
	DIR *fds = opendir("/proc/self/fd");
	char **variable;

	if (out == NULL || fds == NULL)
		abort();
	fprintf(out, "service %s\nuser %s\nrhost %s\ntty %s\n",
	    item(pam, PAM_SERVICE), item(pam, PAM_USER),
	    item(pam, PAM_RHOST), item(pam, PAM_TTY));
	for (variable = environ; *variable != NULL; variable++)
		fprintf(out, "environment %s\n", *variable);
	while ((entry = readdir(fds)) != NULL)
		if (entry->d_name[0] != '.' &&
		    strtol(entry->d_name, NULL, 10) != dirfd(fds) &&
		    strtol(entry->d_name, NULL, 10) != fileno(out))
			fprintf(out, "descriptor %s\n", entry->d_name);
	(void)closedir(fds);
	(void)fclose(out);
}

static int
do_all(pam_handle_t *pam, int argc, const char **argv)
{
	int r = PAM_SUCCESS;
	size_t i;

	for (i = 0; i < sizeof(doings) / sizeof(*doings); i++)
		if (r == PAM_SUCCESS &&
		    argument(argc, argv, doings[i].word) != NULL)
			r = doings[i].run(pam);
	return r;
}

static int
check_password(pam_handle_t *pam)
{
	const char *user, *password;
	size_t i, len;
	int r;

	if (pam_get_user(pam, &user, NULL) != PAM_SUCCESS)
		return PAM_AUTH_ERR;
	r = pam_get_authtok(pam, PAM_AUTHTOK, &password, NULL);
	if (r != PAM_SUCCESS)
		return r;
	if (strcmp(user, "nobody-knows") == 0)
		return PAM_USER_UNKNOWN;
	len = strlen(user);
	if (strlen(password) != len)
		return PAM_AUTH_ERR;
	for (i = 0; i < len; i++)
		if (user[i] != password[len - 1 - i])
			return PAM_AUTH_ERR;
	return PAM_SUCCESS;
}

int
pam_sm_authenticate(pam_handle_t *pam, int flags, int argc, const char **argv)
{
	const char *text;
	int r;

	(void)flags;
	if (argument(argc, argv, "delay=") != NULL)
		(void)pam_fail_delay(
		    pam, (unsigned)number(argc, argv, "delay="));
	if ((text = argument(argc, argv, "record=")) != NULL)
		record(pam, text);
	if ((text = argument(argc, argv, "say=")) != NULL)
		(void)ask(pam, PAM_ERROR_MSG, text);
	r = do_all(pam, argc, argv);
	if (r == PAM_SUCCESS)
		r = check_password(pam);
	if (r == PAM_SUCCESS &&
	    (text = argument(argc, argv, "rename=")) != NULL)
		r = pam_set_item(pam, PAM_USER, text);
	return r == PAM_SUCCESS ? number(argc, argv, "auth=") : r;
}

int
pam_sm_setcred(pam_handle_t *pam, int flags, int argc, const char **argv)
{
	(void)pam, (void)flags, (void)argc, (void)argv;
	abort(); /* it is not asked for */
}

int
pam_sm_open_session(pam_handle_t *pam, int flags, int argc, const char **argv)
{
	(void)pam, (void)flags, (void)argc, (void)argv;
	abort();
}

int
pam_sm_acct_mgmt(pam_handle_t *pam, int flags, int argc, const char **argv)
{
	(void)pam, (void)flags;
	return number(argc, argv, "acct=");
}
