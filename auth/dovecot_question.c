/*
 * What the auth server is told of a session with AUTH: the facts that are
 * known, each as the field that Dovecot's own login processes send for it. Pure:
 * no I/O.
 */
#include <arpa/inet.h>
#include <string.h>

#include "auth/dovecot.h"

/* As what the server's settings and passdbs know us. */
#define SERVICE "smtp"

static bool
is_address(const char *text)
{
	unsigned char addr[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, text, addr) == 1 ||
	    inet_pton(AF_INET6, text, addr) == 1;
}

/* 0 is what stands for a port that is not known. */
static bool
is_port(const char *text)
{
	return strcmp(text, "0") != 0;
}

static bool
is_text(const char *text)
{
	return *text != '\0';
}

static const struct {
	const char *key;
	enum message_field field;
	bool (*is_known)(const char *text);
} facts[] = {
    {"session", M_SESSION, is_text},
    {"lip", M_LOCAL_ADDR, is_address},
    {"rip", M_CLIENT_ADDR, is_address},
    {"lport", M_LOCAL_PORT, is_port},
    {"rport", M_CLIENT_PORT, is_port},
    {"real_lip", M_REAL_LOCAL_ADDR, is_address},
    {"real_rip", M_REAL_ADDR, is_address},
    {"real_lport", M_REAL_LOCAL_PORT, is_port},
    {"real_rport", M_REAL_PORT, is_port},
    {"local_name", M_SERVER_NAME, is_text},
    {"tls_protocol", M_TLS_PROTOCOL, is_text},
    {"tls_cipher", M_TLS_CIPHER, is_text},
};

/* With TLS; or within one host, which Dovecot's login processes trust, too. */
bool
dovecot_question_is_secured(const struct message *question)
{
	const char *client = message_text(question, M_CLIENT_ADDR);

	return message_get(question, M_TLS_PROTOCOL) != NULL ||
	    strncmp(client, "unix:", 5) == 0 ||
	    (is_address(client) &&
		strcmp(client, message_text(question, M_LOCAL_ADDR)) == 0);
}

static void
put_security(struct dovecot_command *c, const struct message *question)
{
	const char *user = message_get(question, M_CERTIFICATE_USER);

	if (dovecot_question_is_secured(question))
		dovecot_line_field(c, "secured",
		    message_get(question, M_TLS_PROTOCOL) != NULL ? "tls"
								  : NULL);
	if (strcmp(message_text(question, M_TLS_VERIFY), "SUCCESS") != 0)
		return;
	dovecot_line_word(c, "valid-client-cert");
	if (user != NULL)
		dovecot_line_field(c, "cert_username", user);
}

void
dovecot_question_begin(struct dovecot_command *c, uint32_t id,
    const char *mechanism, const struct message *question)
{
	const char *value;
	size_t i;

	dovecot_line_begin(c, "AUTH", id);
	dovecot_line_word(c, mechanism);
	dovecot_line_field(c, "service", SERVICE);
	/* Nobody will ask for this login's mail. */
	dovecot_line_word(c, "nologin");
	put_security(c, question);
	for (i = 0; i < sizeof(facts) / sizeof(facts[0]); i++) {
		value = message_text(question, facts[i].field);
		if (*value != '\0' && facts[i].is_known(value))
			dovecot_line_field(c, facts[i].key, value);
	}
}
