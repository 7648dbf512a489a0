/*
 * libcurl: one question, one answer. Owns the connection to the auth server,
 * which is kept open between questions. It blocks, by a deadline. Certificates
 * of https servers are verified against the system's authorities. Unlike
 * nginx's the request is HTTP/1.1, and its Host header has the port.
 */
#include <sys/socket.h>

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curl/curl.h>

#include "lib/clock.h"

#include "auth/http.h"

/*
 * libcurl copies our headers into buffers of its own and the answer's, which
 * may hold a password, into others. It gets memory that is wiped when freed.
 * The last answer's headers stay in the open handle until the next question.
 */
static void
wiping_free(void *p)
{
	if (p != NULL)
		explicit_bzero(p, malloc_usable_size(p));
	free(p);
}

static void *
wiping_realloc(void *p, size_t size)
{
	void *to = malloc(size);
	size_t old;

	if (to == NULL || p == NULL)
		return to;
	old = malloc_usable_size(p);
	memcpy(to, p, old < size ? old : size);
	wiping_free(p);
	return to;
}

/* libcurl's sockets would be inherited by programs that the keeper starts. */
static curl_socket_t
on_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *addr)
{
	(void)arg;
	(void)purpose;
	return socket(
	    addr->family, addr->socktype | SOCK_CLOEXEC, addr->protocol);
}

/* What libcurl is never to do: it is all there is between us and a server. */
static CURLcode
restrain(CURL *curl)
{
	static const struct {
		CURLoption option;
		long value;
	} numbers[] = {
	    {CURLOPT_HTTPGET, 1},
	    {CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1},
	    {CURLOPT_HTTP09_ALLOWED, 0},
	    {CURLOPT_FOLLOWLOCATION, 0},
	    {CURLOPT_NETRC, CURL_NETRC_IGNORED},
	    {CURLOPT_PATH_AS_IS, 1},
	    {CURLOPT_NOSIGNAL, 1},
	    {CURLOPT_NOPROGRESS, 1},
	    {CURLOPT_QUICK_EXIT, 1}, /* a slow resolver ends in time */
	    {CURLOPT_MAXCONNECTS, 1},
	    {CURLOPT_SSL_VERIFYPEER, 1},
	    {CURLOPT_SSL_VERIFYHOST, 2},
	    {CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2},
	};
	CURLcode rc = CURLE_OK;
	size_t i;

	for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]) && !rc; i++)
		rc =
		    curl_easy_setopt(curl, numbers[i].option, numbers[i].value);
	if (!rc)
		rc =
		    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	/* No http_proxy of the environment may see a password. */
	if (!rc)
		rc = curl_easy_setopt(curl, CURLOPT_PROXY, "");
	if (!rc)
		rc = curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
	return rc;
}

/* What this one question is, and how long it may take in milliseconds. */
static CURLcode
prepare(CURL *c, const struct http_url *url, const struct http_question *q,
    int left)
{
	CURLcode rc = restrain(c);

	if (!rc)
		rc = curl_easy_setopt(c, CURLOPT_URL, url->url);
	if (!rc && url->socket_path[0] != '\0')
		rc = curl_easy_setopt(
		    c, CURLOPT_UNIX_SOCKET_PATH, url->socket_path);
	if (!rc)
		rc = curl_easy_setopt(c, CURLOPT_HTTPHEADER, q->lines);
	if (!rc && q->post != NULL)
		rc = curl_easy_setopt(c, CURLOPT_POSTFIELDS, q->post);
	if (!rc)
		rc = curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)left);
	if (!rc)
		rc = curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)left);
	return rc;
}

/* Where the answer goes. `error` has CURL_ERROR_SIZE octets. */
static CURLcode
receive(CURL *c, struct http_answer *a, char *error)
{
	CURLcode rc = curl_easy_setopt(c, CURLOPT_ERRORBUFFER, error);

	if (!rc)
		rc = curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, on_socket);
	if (!rc)
		rc = curl_easy_setopt(
		    c, CURLOPT_HEADERFUNCTION, http_answer_header);
	if (!rc)
		rc = curl_easy_setopt(c, CURLOPT_HEADERDATA, a);
	if (!rc)
		rc = curl_easy_setopt(
		    c, CURLOPT_WRITEFUNCTION, http_answer_body);
	if (!rc)
		rc = curl_easy_setopt(c, CURLOPT_WRITEDATA, a);
	return rc;
}

/*
 * Makes libcurl ready, at the first question of this process: a keeper that is
 * never asked does not pay for it. After a fork the connection is the parent's.
 * It is left alone rather than closed, for two who read from one connection
 * would get each other's verdicts, and closing it may say so on it.
 */
static int
start(struct http_fetch *h)
{
	if (h->curl != NULL && h->owner == getpid())
		return 0;
	if (h->owner == 0 &&
	    curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, wiping_free,
		wiping_realloc, strdup, calloc) != CURLE_OK)
		return -1;
	h->inherited = h->curl;
	h->owner = getpid();
	h->curl = curl_easy_init();
	return h->curl != NULL ? 0 : -1;
}

/* What became of it, where the answer itself has not said. */
static void
explain(struct http_answer *a, CURLcode rc, const char *text, long status)
{
	if (text[0] == '\0')
		text = curl_easy_strerror(rc);
	if (rc != CURLE_OK)
		http_text_copy(a->error, sizeof(a->error), text, strlen(text));
	else if (!a->complete)
		http_answer_fail(a, "the answer is cut short");
	else if (status < 200 || status > 299)
		(void)snprintf(
		    a->error, sizeof(a->error), "HTTP status %ld", status);
}

int
http_fetch(struct http_fetch *h, const struct http_url *url,
    const struct http_question *q, int64_t deadline, struct http_answer *a)
{
	char text[CURL_ERROR_SIZE] = "";
	int left = clock_left(deadline);
	long status = 0;
	CURLcode rc;

	explicit_bzero(a, sizeof(*a));
	a->body = q->body;
	a->body_room = q->body_room;
	if (left == 0 || start(h) == -1) {
		http_answer_fail(a, left == 0 ? "timed out" : "out of memory");
		return -1;
	}
	rc = prepare(h->curl, url, q, left);
	if (rc == CURLE_OK)
		rc = receive(h->curl, a, text);
	if (rc == CURLE_OK)
		rc = curl_easy_perform(h->curl);
	(void)curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &status);
	/* It keeps its connection, and nothing that points to us. */
	curl_easy_reset(h->curl);
	if (a->error[0] == '\0')
		explain(a, rc, text, status);
	return a->error[0] == '\0' ? 0 : -1;
}

void
http_fetch_close(struct http_fetch *h)
{
	if (h->curl != NULL && h->owner == getpid())
		curl_easy_cleanup(h->curl);
	if (h->owner != 0)
		curl_global_cleanup();
}
