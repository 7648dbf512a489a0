/*
 * EXTERNAL (RFC 4422 appendix A): whose name a client has by its certificate.
 * That the certificate is good was found by TLS; whether the name may log in is
 * the provider's to judge.
 */
#include <string.h>

#include "lib/text.h"

#include "smtp_external.h"

const char *
smtp_external_identity(const struct session *s)
{
	const struct tls_client *client =
	    s->tls != NULL ? s->tls->client : NULL;
	const char *identity;

	if (client == NULL || client->state != TLS_CLIENT_VERIFIED)
		return NULL;
	identity = client->identity[s->conf->ssl_identity];
	return identity[0] != '\0' ? identity : NULL;
}

/* It is shown all there is to know of it, and the client's word. */
static bool
provider_judges_certificates(const struct session *s)
{
	return text_prefix(s->conf->auth_provider, "http");
}

bool
smtp_external_offered(const struct session *s)
{
	return smtp_external_identity(s) != NULL ||
	    provider_judges_certificates(s);
}

/*
 * Mail programs fill in what they have: their field for the user's name, or
 * "anonymous". So a name can be ignored, but never believed.
 */
const char *
smtp_external_take(const struct session *s, char *user, size_t size)
{
	const char *identity = smtp_external_identity(s);
	bool given = user[0] != '\0' && s->conf->auth_external_authzid;

	if (given && identity != NULL && strcmp(user, identity) == 0)
		return NULL;
	if (provider_judges_certificates(s) && (given || identity == NULL))
		return NULL;
	if (identity == NULL)
		return "there is no verified identity";
	if (given)
		return "authorization name of another";
	return text_copy(user, size, identity) == 0 ? NULL
						    : "the identity is too long";
}
