/*
 * A session's stages in their order. Each stage tells what it found; what comes
 * next is decided here and nowhere else.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sysexits.h>
#include <syslog.h>
#include <unistd.h>

#include "counters.h"
#include "greeting.h"
#include "handover.h"
#include "keeper.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/sandbox.h"
#include "lib/source.h"
#include "lib/text.h"
#include "peer.h"
#include "smtp.h"
#include "smtp_reply.h"
#include "starttls.h"

#include "session.h"

/* How long the last reply is given to arrive. */
#define LINGER 2000

/* What a session has beside its facts. */
struct helpers {
	bool is_protected; /* protect() was called */
	pid_t keeper;	   /* a private one; 0: none */
	struct handover handover;
};

/* --- the beginning ------------------------------------------------------- */

static int
make_id(char *id)
{
	unsigned char random[(SESSION_ID_SIZE - 1) / 2];
	size_t i;

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return -1;
	for (i = 0; i < sizeof(random); i++)
		(void)snprintf(id + 2 * i, 3, "%02x", random[i]);
	return 0;
}

static int
begin(struct session *s, const struct config *conf, int rfd, int wfd)
{
	size_t size = conf->smtp_client_buffer > SASL_LINE_MAX
	    ? conf->smtp_client_buffer
	    : SASL_LINE_MAX;
	/*
	 * A malloc() of this size makes the heap tidy itself up, and under the
	 * listener each page of it that is written is a page copied.
	 */
	static char usual[SASL_LINE_MAX];
	void *buffer = size > sizeof(usual) ? malloc(size) : usual;

	s->conf = conf;
	s->keeper.fd = -1;
	if (conf->keeper_socket[0] != '\0')
		auth_address(&s->keeper, conf->keeper_socket);
	s->started = clock_ms();
	s->cause = "broken";
	if (buffer == NULL || make_id(s->id) == -1)
		return -1;
	log_session(s->id);
	conn_init(&s->client, rfd, wfd, buffer, size);
	s->client.stoppable = true;
	peer_identify(&s->peer, rfd);
	/* Typed by hand, a line ends with the Enter key. */
	s->client.lf_ends_line = !s->client.is_socket && !s->peer.have_addr;
	return 0;
}

/*
 * The first event of a session; it waits until the greeting is on its way. On
 * an implicit TLS port the client's name is not known yet.
 */
static void
log_connect(struct session *s)
{
	bool named = s->conf->resolver[0] != '\0' && s->peer.host[0] != '\0';
	const char *other =
	    s->peer.other.addr[0] != '\0' ? s->peer.other.addr : NULL;

	if (s->announced)
		return;
	s->announced = true;
	log_event(LOG_INFO, "connect", "client", s->peer.addr, "port",
	    s->peer.port != 0 ? log_number(s->peer.port) : NULL, "host",
	    named ? s->peer.host : NULL, "proxy",
	    s->peer.trusted ? other : NULL, "claim",
	    s->peer.trusted ? NULL : other, "id",
	    s->proxy.unique_id[0] != '\0' ? s->proxy.unique_id : NULL, NULL);
	if (s->tls == &s->proxy_tls)
		log_event(LOG_INFO, "tls", "result", "ok", "client",
		    s->peer.addr, "protocol", s->tls->protocol, "cipher",
		    s->tls->cipher, "name",
		    s->tls->server_name[0] != '\0' ? s->tls->server_name
						   : NULL,
		    "verify", s->tls->client->verify, "subject",
		    s->tls->client->subject[0] != '\0'
			? s->tls->client->subject
			: NULL, "from", "proxy", NULL);
}

/*
 * Public files that are read when TLS begins, which may be later, and when a
 * backend's certificate is seen: a system's directory of authorities holds
 * links to where Debian keeps them.
 */
static void
allow_files(const struct config *conf)
{
	sandbox_allow(conf->ssl_client_certificate);
	sandbox_allow(conf->ssl_trusted_certificate);
	sandbox_allow(conf->ssl_crl);
	sandbox_allow(conf->ssl_dhparam);
	if (conf->proxy_ssl == CONFIG_PROXY_SSL_OFF &&
	    conf->auth_provider[0] == '\0')
		return;
	sandbox_allow(conf->proxy_ssl_trusted_certificate);
	sandbox_allow("/usr/share/ca-certificates");
	sandbox_allow("/usr/local/share/ca-certificates");
	sandbox_allow(conf->proxy_ssl_crl);
}

/*
 * The helpers that hold what this process is about to give up, then the giving
 * up. From here on bytes of the client's may be parsed. 0, or -1, logged.
 */
static int
protect(struct session *s, struct helpers *h)
{
	const struct config *conf = s->conf;
	bool needs_keeper = s->keeper.keeper_len == 0 &&
	    (conf->auth_provider[0] != '\0' ||
		conf->ssl_certificate.count > 0 ||
		conf->proxy_ssl_certificate.count > 0);
	char err[256];

	if (h->is_protected)
		return 0;
	h->is_protected = true;
	if (conf->relay != NULL &&
	    relay_prepare(&h->handover.relay, conf, s->client.rfd) == -1)
		goto err;
	if (needs_keeper) {
		s->keeper.fd = keeper_start(conf, s->client.rfd, &h->keeper);
		if (s->keeper.fd == -1)
			goto err;
	}
	if (conf->user[0] != '\0' &&
	    sandbox_become(conf->user, err, sizeof(err)) == -1) {
		log_event(LOG_CRIT, "fatal", "reason", err, NULL);
		return -1;
	}
	allow_files(conf);
	(void)sandbox_session();
	return 0;
err:
	log_event(LOG_CRIT, "fatal", "reason", strerror(errno), NULL);
	return -1;
}

/*
 * Loads OpenSSL where a client that speaks can go nowhere but to TLS, once for
 * this process and the keeper that it is about to fork.
 */
static int
preload_tls(struct session *s)
{
	return s->conf->socket & CONFIG_SOCKET_SSL ||
		s->conf->starttls == CONFIG_STARTTLS_ONLY
	    ? starttls_preload(s)
	    : 0;
}

/*
 * A client behind a proxy that is trusted counts where the listener could not
 * count it, which reads nothing. The proxy's own connections have no limit: it
 * asks whether we live. 0, or -1: told, and over.
 */
static int
count_client(struct session *s)
{
	struct source source;

	if (!s->peer.trusted || !s->proxy.has_addresses)
		return 0;
	source_of(&s->peer.sock, &source);
	if (counters_enter_source(
		&source, s->conf->max_connections_per_source))
		return 0;
	counters_add(COUNTER_FULL_SOURCE, 1);
	log_event(LOG_NOTICE, "limit", "result", "refused", "client",
	    s->peer.addr, "limit", "max_connections_per_source", NULL);
	s->cause = "limit";
	if (s->conf->socket & CONFIG_SOCKET_SSL)
		return -1;
	(void)smtp_end(s, REPLY_TOO_MANY_FROM_SOURCE, "limit");
	return -1;
}

/*
 * `proxy_protocol`: what comes before the session, from a proxy or from anybody
 * who has found the port. 0, or -1 when it is over.
 */
static int
receive_header(struct session *s, struct helpers *h)
{
	if (preload_tls(s) == -1 || protect(s, h) == -1) {
		s->status = EX_TEMPFAIL;
		return -1;
	}
	return peer_receive_header(s) == -1 ? -1 : count_client(s);
}

/* Whether the client of an implicit TLS port has begun, or has left. */
static bool
has_begun(struct session *s)
{
	struct pollfd pfd = {.fd = s->client.rfd, .events = POLLIN};
	char byte;

	conn_set_timeout(&s->client, s->conf->timeout);
	switch (conn_wait(&s->client, POLLIN)) {
	case CONN_OK:
		break;
	case CONN_STOPPED:
		s->cause = "stopped";
		return false;
	default:
		s->cause = "timeout";
		return false;
	}
	s->cause = "left";
	if (!s->client.is_socket)
		return (poll(&pfd, 1, 0), pfd.revents & POLLIN);
	return recv(pfd.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/*
 * Whether the certificate that the client has shown is good enough. It is told
 * so in SMTP, in place of what was due next: a TLS alert would be taken for a
 * fault of ours, and TLS 1.3 gives a client no other way to know in time.
 */
static bool
admit(struct session *s)
{
	switch (starttls_client(s)) {
	case STARTTLS_ADMITTED:
		return true;
	case STARTTLS_NO_CERTIFICATE:
		(void)smtp_end(s, REPLY_NO_CERTIFICATE, "certificate");
		break;
	case STARTTLS_BAD_CERTIFICATE:
		(void)smtp_end(s, REPLY_BAD_CERTIFICATE, "certificate");
		break;
	}
	return false;
}

/* `socket ssl`: TLS from the first byte. 0, or -1 when it is over. */
static int
begin_with_tls(struct session *s, struct helpers *h)
{
	if (!has_begun(s))
		return -1;
	log_connect(s);
	s->cause = "tls";
	if (preload_tls(s) == -1 || protect(s, h) == -1 ||
	    starttls_prepare(s) == -1) {
		s->status = EX_TEMPFAIL;
		return -1;
	}
	return starttls_accept(s) == -1 || !admit(s) ? -1 : 0;
}

/* The client reads its greeting while its session makes itself ready. */
static int
begin_in_clear(struct session *s, struct helpers *h)
{
	conn_set_timeout(&s->client, s->conf->timeout);
	if (conn_flush(&s->client) != CONN_OK)
		return -1;
	log_connect(s);
	(void)preload_tls(s);
	if (protect(s, h) == -1) {
		/* It was greeted: so it is told. */
		(void)smtp_end(s, REPLY_UPSTREAM_AWAY, "upstream");
		s->status = EX_OSERR;
		return -1;
	}
	return 0;
}

/* The wait before the greeting. 0: greet; -1: the client is not to be greeted. */
static int
wait_to_greet(struct session *s)
{
	enum greeting greeting = greeting_wait(s);

	if (greeting == GREETING_DUE)
		return 0;
	log_connect(s);
	if (greeting == GREETING_LEFT) {
		s->cause = "left";
		return -1;
	}
	if (greeting == GREETING_STOPPED) {
		(void)smtp_end(s, REPLY_STOPPING, "stopped");
		return -1;
	}
	counters_add(COUNTER_EARLY, 1);
	log_event(LOG_INFO, "early", "result", "refused", "client",
	    s->peer.addr, NULL);
	s->cause = "early";
	return -1;
}

/* `relay_at greeting`: this process ends here, or the relay is not there. */
static void
become_relay(struct session *s)
{
	char err[256];

	if (s->conf->user[0] != '\0' &&
	    sandbox_become(s->conf->user, err, sizeof(err)) == -1) {
		log_event(LOG_CRIT, "fatal", "reason", err, NULL);
	} else {
		log_event(LOG_INFO, "upstream", "result", "exec", "backend",
		    s->conf->relay[0], NULL);
		(void)relay_become(s);
		log_event(LOG_ERR, "upstream", "result", "failed", "backend",
		    s->conf->relay[0], "reason", strerror(errno), NULL);
	}
	(void)smtp_end(s, REPLY_UPSTREAM_AWAY, "upstream");
	s->status = EX_TEMPFAIL;
}

/* --- the rest -------------------------------------------------------------- */

/* The session's credentials are no longer needed. */
static void
forget_verdict(struct session *s)
{
	message_wipe(&s->verdict);
	message_init(&s->verdict, ANSWER_VERDICT);
}

/* What the client is told where there is no upstream. */
static enum smtp_event
without_upstream(
    struct session *s, struct helpers *h, enum upstream_result result)
{
	const char *words = h->handover.upstream.words;

	counters_add(COUNTER_UPSTREAM_FAILED, 1);
	counters_enter(STAGE_DIALOGUE);
	s->status = EX_TEMPFAIL;
	if (result == UPSTREAM_FAILED || h->handover.upstream.is_relay) {
		/* An honest good-bye: there is nobody to hand over to. */
		return smtp_end(s, REPLY_UPSTREAM_AWAY, "upstream");
	}
	/* A client that gives up has been told no more than 451. */
	if (!s->conf->proxy_pass_error_message || words[0] < '4')
		words = NULL;
	return smtp_upstream_refused(s, words);
}

/* TLS on request: the answer to STARTTLS, and the handshake. */
static enum smtp_event
secure(struct session *s)
{
	if (starttls_prepare(s) == -1) {
		smtp_starttls(s, false);
		return SMTP_GO_ON;
	}
	smtp_starttls(s, true);
	s->cause = "tls";
	if (starttls_accept(s) == -1)
		return SMTP_OVER;
	return admit(s) ? SMTP_GO_ON : SMTP_OVER;
}

/* The dialogue and what it asks for, until the session is over. */
static void
serve(struct session *s, struct helpers *h)
{
	enum upstream_result result;
	enum smtp_event event;

	do {
		event = smtp_converse(s);
		if (event == SMTP_STARTTLS) {
			event = secure(s);
		} else if (event != SMTP_OVER) {
			result = handover_open(s, &h->handover);
			forget_verdict(s);
			if (result == UPSTREAM_READY) {
				/* No more questions: let the keeper go. */
				auth_hang_up(&s->keeper);
				handover_run(s, &h->handover);
				return;
			}
			event = without_upstream(s, h, result);
		}
	} while (event != SMTP_OVER);
}

static void
greet_and_serve(struct session *s, struct helpers *h)
{
	bool ssl = s->conf->socket & CONFIG_SOCKET_SSL;

	if (s->conf->socket & CONFIG_SOCKET_PROXY && receive_header(s, h) == -1)
		return;
	if (ssl && begin_with_tls(s, h) == -1)
		return;
	if (wait_to_greet(s) == -1)
		return;
	/* TLS that the client speaks with a proxy, which has its certificate. */
	if (s->tls == &s->proxy_tls && !admit(s)) {
		log_connect(s);
		return;
	}
	if (s->conf->relay_at == CONFIG_RELAY_AT_GREETING) {
		log_connect(s);
		become_relay(s);
		return;
	}
	counters_enter(STAGE_DIALOGUE);
	smtp_greet(s);
	if (!ssl && begin_in_clear(s, h) == -1)
		return;
	serve(s, h);
}

static void
log_close(const struct session *s)
{
	log_event(LOG_INFO, "close", "client", s->peer.addr, "cause", s->cause,
	    "commands", log_number(s->commands), "bytes_up",
	    log_number((int64_t)s->bytes_up), "bytes_down",
	    log_number((int64_t)s->bytes_down), "duration_ms",
	    log_number(clock_ms() - s->started), NULL);
}

static void
end(struct session *s, struct helpers *h)
{
	/* First: what was typed may be a secret, wherever it lay. */
	conn_forget_input(&s->client);
	message_wipe(&s->verdict);
	conn_linger(&s->client, LINGER);
	handover_close(&h->handover);
	auth_hang_up(&s->keeper);
	if (h->keeper != 0)
		keeper_wait(h->keeper);
	log_connect(s);
	log_close(s);
}

static struct session session;

static struct helpers helpers = {
    .handover = {.relay = {.fd = -1, .channel = -1}, .backend = -1},
};

/*
 * TLS for all sessions to come: towards clients, where there are certificates,
 * and towards backends, if a directive and no verdict asks for it. 0, or -1,
 * logged.
 */
static int
prepare_tls(struct session *s)
{
	char err[BACKEND_ERROR_SIZE];

	if (s->conf->ssl_certificate.count > 0 &&
	    (starttls_prepare(s) == -1 || starttls_warm_up(s) == -1))
		return -1;
	if (s->conf->proxy_ssl == CONFIG_PROXY_SSL_OFF ||
	    backend_tls_prepare(s, err) == 0)
		return 0;
	log_event(LOG_ERR, "tls", "result", "failed", "reason", err, NULL);
	return -1;
}

static void
free_tls(struct tls_server *server, struct tls_connector *connector)
{
	if (server != NULL)
		session.tls_api->server_free(server);
	if (connector != NULL)
		session.tls_api->connector_free(connector);
}

int
session_prepare(const struct config *conf, const struct sockaddr_un *keeper,
    socklen_t keeper_len)
{
	const struct auth_channel old_keeper = session.keeper;
	const struct config *const old_conf = session.conf;
	struct tls_server *old_server = session.tls_server;
	struct tls_connector *old_connector = session.tls_connector;
	int r;

	session.conf = conf;
	session.keeper.fd = -1;
	session.keeper.keeper = *keeper;
	session.keeper.keeper_len = keeper_len;
	session.tls_server = NULL;
	session.tls_has_keys = false;
	session.tls_connector = NULL;
	r = prepare_tls(&session);
	/* Each session opens its own: what it has asked is counted by that. */
	auth_hang_up(&session.keeper);
	if (r == 0) {
		free_tls(old_server, old_connector);
		allow_files(conf);
		sandbox_prepare();
		session_refresh();
		return 0;
	}
	free_tls(session.tls_server, session.tls_connector);
	session.conf = old_conf;
	session.keeper = old_keeper;
	session.tls_server = old_server;
	session.tls_has_keys = old_server != NULL;
	session.tls_connector = old_connector;
	return -1;
}

void
session_refresh(void)
{
	starttls_rotate_tickets(&session);
}

int
session_run(const struct config *conf, int rfd, int wfd)
{
	if (begin(&session, conf, rfd, wfd) == -1) {
		log_event(LOG_CRIT, "fatal", "reason", strerror(errno), NULL);
		return EX_OSERR;
	}
	greet_and_serve(&session, &helpers);
	end(&session, &helpers);
	return session.status;
}
