/*
 * The facts of one session, each written by one stage and read by the later
 * ones. Only session.c knows the stages' order.
 */
#ifndef FACTS_H
#define FACTS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "auth.h"
#include "config.h"
#include "lib/conn.h"
#include "lib/dns.h"
#include "lib/message.h"
#include "lib/proxy_header.h"

/* The longest SASL line that is always read (RFC 4954 section 4), with CRLF. */
#define SASL_LINE_MAX (12288 + 2)

/* Room for a MAIL or RCPT line that is kept: 512 and what extensions add. */
#define ENVELOPE_SIZE 2048
#define LOGIN_SIZE    512
#define SESSION_ID_SIZE 17

/* An end of a connection that is not the one that counts. */
struct endpoint {
	char addr[INET6_ADDRSTRLEN];
	uint16_t port;
};

/* Who is there: peer.c. */
struct peer {
	bool network;		/* a TCP peer; else a pipe, terminal, UNIX */
	bool have_addr;		/* sock and local are what the kernel says */
	struct sockaddr_storage sock, local;
	char addr[INET6_ADDRSTRLEN]; /* "192.0.2.1", "2001:db8::1"; "unix:" */
	char local_addr[INET6_ADDRSTRLEN];
	uint16_t port, local_port; /* 0: not known */
	/*
	 * With a PROXY header that names addresses, which of the two is the
	 * client is decided by set_real_ip_from; the other is kept here: the
	 * proxy, or what an untrusted header claims.
	 */
	bool trusted;
	struct endpoint other, other_local; /* addr "": no header with any */
	/* verified, [UNAVAILABLE] or [TEMPUNAVAIL]; "": not looked up yet */
	char host[DNS_NAME_SIZE];
};

struct session {
	const struct config *conf;
	struct conn client;
	char id[SESSION_ID_SIZE]; /* 16 hexadecimal digits */
	int64_t started;	  /* lib/clock.h */
	bool announced;		  /* event=connect was logged */
	struct peer peer;
	struct proxy_header proxy; /* with `proxy_protocol`: what it said */
	struct tls_facts proxy_tls; /* and of TLS, if that is believed */
	struct tls_client proxy_client;

	struct auth_channel keeper;
	const struct tls_api *tls_api; /* NULL: not loaded */
	struct tls_server *tls_server; /* its too; NULL: none yet */
	bool tls_has_keys;	     /* and its certificates are there */
	struct tls_connector *tls_connector; /* backend_tls.c's; NULL: none yet */
	const struct tls_facts *tls; /* of the client; NULL: in the clear */

	/* the dialogue: smtp.c */
	char helo[DNS_NAME_SIZE]; /* "" until EHLO or HELO */
	bool esmtp;		  /* it was EHLO */
	bool have_mail;
	char mail[ENVELOPE_SIZE]; /* the MAIL line as it came, with `none` */
	char rcpt[ENVELOPE_SIZE];
	unsigned errors, commands;
	unsigned auth_attempts; /* of AUTH */
	unsigned envelopes;	/* shown to the provider, with `none` */
	bool provider_asked;   /* what it can do: provider_can */
	char provider_can[80]; /* words; "" as long as nobody answered */
	/* SASL mechanisms that it runs itself; "": not known, or none */
	char provider_runs[512];

	/* the verdict: auth.c's answer */
	const char *mechanism; /* that succeeded; NULL: not authenticated */
	struct message verdict; /* of the last judgement; wiped after use */

	/* how it ended, for the last log line */
	const char *cause;
	int status; /* of the process: sysexits.h */
	uint64_t bytes_up, bytes_down; /* after hand-over */
};

#endif
