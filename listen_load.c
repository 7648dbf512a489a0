/*
 * Directives put in force by a listener, the first time and at a reload: with a
 * keeper of their own, and tried before those that are there give way.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "lib/log.h"
#include "notify.h"
#include "session.h"

#include "listen_load.h"

/* The directives as the sessions of one kind of socket have them. */
static const struct config *
derive(const struct config *conf, unsigned kind)
{
	struct config *twin = malloc(sizeof(*twin));

	if (twin == NULL)
		return NULL;
	*twin = *conf;
	twin->socket = kind;
	if (kind & CONFIG_SOCKET_SSL)
		twin->starttls = CONFIG_STARTTLS_OFF;
	return twin;
}

/* For every kind. 0, or -1 without memory. */
static int
derive_all(const struct config *conf, const struct config *by_kind[LISTEN_KINDS])
{
	unsigned kind;

	for (kind = 0; kind < LISTEN_KINDS; kind++) {
		by_kind[kind] = derive(conf, kind);
		if (by_kind[kind] == NULL)
			return -1;
	}
	return 0;
}

int
listen_load_adopt(struct listen_load *l, const struct config *conf)
{
	struct listen_keeper keeper;
	const struct config *by_kind[LISTEN_KINDS];
	char err[LISTEN_KEEPER_ERROR];

	if (derive_all(conf, by_kind) == -1 ||
	    listen_keeper_start(&l->keepers, &keeper, conf) == -1) {
		log_event(LOG_ERR, "keeper", "result", "failed", "reason",
		    strerror(errno), NULL);
		return -1;
	}
	if (listen_keeper_try(&keeper, conf, err) == -1) {
		log_event(LOG_ERR, "keeper", "result", "failed", "reason", err,
		    NULL);
		/* At the start there is nothing better that could stay. */
		if (l->conf != NULL) {
			listen_keeper_end(&keeper);
			return -1;
		}
	}
	if (session_prepare(conf, &keeper.addr, keeper.addr_len) == -1) {
		listen_keeper_end(&keeper);
		return -1;
	}
	listen_keepers_adopt(&l->keepers, &keeper);
	l->conf = conf;
	memcpy(l->by_kind, by_kind, sizeof(by_kind));
	return 0;
}

static bool
is_same_list(const struct config_list *a, const struct config_list *b)
{
	size_t i;

	if (a->count != b->count)
		return false;
	for (i = 0; i < a->count; i++)
		if (strcmp(a->word[i], b->word[i]) != 0)
			return false;
	return true;
}

/* Which directives of `conf` wait for a restart, in words; NULL for none. */
static const char *
find_waiting(const struct listen_load *l, const struct config *conf)
{
	static char text[128];
	const struct {
		const char *name;
		bool same;
	} rows[] = {
	    {"listen", is_same_list(&conf->listen, &l->first->listen)},
	    {"socket", conf->socket == l->first->socket},
	    {"max_connections", conf->max_connections <= l->room},
	    {"status_file",
		strcmp(conf->status_file, l->first->status_file) == 0},
	    {"log", conf->log == l->first->log},
	};
	size_t i, len, named = 0;

	len = (size_t)snprintf(text, sizeof(text), "needs a restart:");
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (rows[i].same)
			continue;
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s %s",
		    named++ > 0 ? "," : "", rows[i].name);
	}
	return named > 0 ? text : NULL;
}

/*
 * The directives of an earlier load stay in memory: sessions of that time may
 * have them still, and a reload is rare.
 */
void
listen_load_again(struct listen_load *l)
{
	struct config *conf = calloc(1, sizeof(*conf));
	char err[CONFIG_ERROR_SIZE] = "out of memory";
	const char *waiting;

	notify_state(NOTIFY_RELOADING);
	if (conf == NULL ||
	    config_load(conf, l->argc, l->argv, err) != CONFIG_OK)
		log_event(LOG_ERR, "reload", "result", "failed", "reason", err,
		    NULL);
	else if (listen_load_adopt(l, conf) == -1)
		log_event(LOG_ERR, "reload", "result", "failed", "reason",
		    "see the line before", NULL);
	else if ((waiting = find_waiting(l, conf)) != NULL)
		log_event(LOG_WARNING, "reload", "result", "ok", "reason",
		    waiting, NULL);
	else
		log_event(LOG_INFO, "reload", "result", "ok", NULL);
	notify_state(NOTIFY_READY);
}
