/*
 * What --check tries itself.
 *
 * One question to a keeper, from --check instead of a session. The user is a
 * random one, so that no real one is locked out. A server that lets others judge
 * (Dovecot as a proxy, a passdb with nopassword) says yes to everything: as an
 * auth provider it lets everybody in.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "auth.h"
#include "keeper.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "starttls.h"
#include "vault.h"

#include "probe.h"

#define PROBE_WAIT 5000

/* 0, or -1: no random numbers. */
static int
make_question(struct message *m)
{
	uint64_t random[2];
	char text[64];

	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return -1;
	message_init(m, ASK_VERDICT);
	message_put(m, M_METHOD, "plain");
	message_put(m, M_MECHANISM, "PLAIN");
	(void)snprintf(
	    text, sizeof(text), "smtp-frontd-check-%016" PRIx64, random[0]);
	message_put(m, M_USER, text);
	(void)snprintf(text, sizeof(text), "%016" PRIx64, random[1]);
	message_put(m, M_PASSWORD, text);
	return 0;
}

static void
warn(FILE *out, const char *reason)
{
	char quoted[512];

	(void)log_quote(quoted, sizeof(quoted), reason);
	(void)fprintf(
	    out, "# warning: auth_provider: unavailable: %s\n", quoted);
}

/* The keeper that sessions would ask: *pid is 0 for one that lives on. */
static int
find_keeper(
    const struct config *conf, struct auth_channel *keeper, pid_t *pid)
{
	*pid = 0;
	if (conf->keeper_socket[0] != '\0')
		return auth_address(keeper, conf->keeper_socket);
	keeper->fd = keeper_start(conf, -1, pid);
	return keeper->fd != -1 ? 0 : -1;
}

void
probe_provider(const struct config *conf, FILE *out)
{
	struct auth_channel keeper = {.fd = -1};
	static struct message m;
	pid_t pid;

	if (conf->auth_provider[0] == '\0')
		return;
	if (make_question(&m) == -1 ||
	    find_keeper(conf, &keeper, &pid) == -1) {
		warn(out, strerror(errno));
		return;
	}
	switch (auth_ask(&keeper, &m, clock_in(PROBE_WAIT))) {
	case AUTH_IS_ACCEPTED:
		(void)fputs("# warning: auth_provider: accepts a wrong "
			    "password\n", out);
		break;
	case AUTH_IS_DENIED:
		break;
	default:
		warn(out, message_text(&m, M_REASON));
		break;
	}
	message_wipe(&m);
	auth_hang_up(&keeper);
	if (pid != 0)
		keeper_wait(pid);
}

/* --- TLS ----------------------------------------------------------------- */

static void
warn_tls(FILE *out, const char *reason)
{
	char quoted[2 * TLS_ERROR_SIZE];

	(void)log_quote(quoted, sizeof(quoted), reason);
	(void)fprintf(out, "# warning: TLS: %s\n", quoted);
}

void
probe_tls(const struct config *conf, FILE *out)
{
	struct tls_server *server = NULL;
	const struct tls_api *api;
	char err[TLS_ERROR_SIZE] = "";

	if (conf->ssl_certificate.count > 0) {
		api = tls_load(err);
		if (api == NULL ||
		    starttls_server(api, conf, &server, err) == -1 ||
		    vault_try_keys(conf, TLS_ROLE_SERVER, err) == -1)
			warn_tls(out, err);
		if (server != NULL)
			api->server_free(server);
	}
	if (conf->proxy_ssl_certificate.count > 0 &&
	    vault_try_keys(conf, TLS_ROLE_CLIENT, err) == -1)
		warn_tls(out, err);
}
