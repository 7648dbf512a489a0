/*
 * The inside of the provider auth-http: what its files owe each other. They
 * are http*.c's alone.
 *
 *	http		the provider: opens, asks until it is answered, closes
 *	http_url	where the auth server is
 *	http_question	the headers of a question
 *	http_answer	the headers of an answer
 *	http_fetch	libcurl: one question, one answer
 *	http_verdict	what is believed of an answer
 *	http_text	letters that are safe somewhere
 */
#ifndef AUTH_HTTP_H
#define AUTH_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/un.h>

#include "auth/provider.h"

#define HTTP_SOCKET_PATH_SIZE sizeof(((struct sockaddr_un *)0)->sun_path)

/* auth/http_text.c */

bool http_text_is_control(unsigned char c);

/* A control character or an 8-bit octet. */
bool http_text_is_unsafe(unsigned char c);

bool http_text_has_control(const char *s);

/* No control character, no blank, no 8-bit octet. */
bool http_text_is_printable(const char *s);

/*
 * Copies what an SMTP reply line may hold (RFC 5321 section 4.2), cut to fit:
 * whatever else stood in it, the client and the log see one printable line.
 */
void http_text_copy(char *to, size_t size, const char *text, size_t len);

/*
 * Whether `host` is an IPv6 address, in brackets or not. Copies it to `bare`
 * (INET6_ADDRSTRLEN octets) without them.
 */
bool http_text_is_ipv6(const char *host, char *bare);

/* auth/http_url.c */

struct http_url {
	char *url; /* for libcurl; allocated */
	char socket_path[HTTP_SOCKET_PATH_SIZE]; /* "": over the network */
};

/*
 * Takes the value of auth_provider apart. NULL, or what is wrong with it; the
 * url is to be freed in either case.
 */
const char *http_url_parse(struct http_url *to, const char *value);

/* auth/http_question.c */

struct curl_slist;

/* The headers of a question, on the way. */
struct http_question {
	struct curl_slist *lines;
	bool failed; /* no memory: the list is not whole */
	const char *post; /* the body of a POST; NULL: it is a GET */
	char *body;	  /* where the answer's goes; NULL: nowhere */
	size_t body_room;
};

/* Adds a header line; look at `failed`. */
void http_question_line(struct http_question *to, const char *line);

/* One item of auth_http_header, "Name value" or "Name: value". 0 or -1. */
int http_question_extra(struct http_question *to, const char *item);

/* All of them, in nginx's order, with `extra` at the end; look at `failed`. */
void http_question_build(struct http_question *to, const struct message *m,
    const struct http_question *extra);

/* Overwrites and frees them. */
void http_question_wipe(struct http_question *q);

/* auth/http_answer.c */

/* What an answer's headers say. Over-long values make it broken. */
struct http_fields {
	bool ok, wait, refused; /* kinds of Auth-Status that were seen */
	char text[200 + 1]; /* the first refusal, printable: fits a reply */
	char server[256];
	char port[16];
	char user[512];
	char password[1024];
	char wait_s[16];
	char code[64];
};

/* All octets zero at first. It may hold a password: wipe it. */
struct http_answer {
	struct http_fields f;
	bool started; /* the status line of these headers came */
	bool interim; /* and they are a 1xx answer's */
	bool complete; /* the blank line behind the final headers came */
	size_t header_size, header_count, body_size;
	char *body; /* kept here, or NULL: read and thrown away */
	size_t body_room;
	char error[AUTH_ERROR_SIZE]; /* why it is no answer; "" */
};

void http_answer_fail(struct http_answer *a, const char *why);

/*
 * For libcurl, `arg` is the answer: a status line, a header, a blank line or a
 * trailer was read; a part of the body was. Less than size * count: give up.
 */
size_t http_answer_header(char *data, size_t size, size_t count, void *arg);
size_t http_answer_body(char *data, size_t size, size_t count, void *arg);

/* Auth-Wait, at most a minute; 0 when there is no number. */
unsigned http_answer_wait_s(const struct http_answer *a);

/* auth/http_fetch.c */

/* All octets zero at first. */
struct http_fetch {
	void *curl; /* a CURL; NULL until the first question */
	void *inherited; /* of a parent: not to be touched */
	pid_t owner; /* of curl's connections; 0: none */
};

/*
 * Asks once, by `deadline`. 0 with a whole answer of status 2xx in `a`, or -1
 * with a->error.
 */
int http_fetch(struct http_fetch *h, const struct http_url *url,
    const struct http_question *q, int64_t deadline, struct http_answer *a);

void http_fetch_close(struct http_fetch *h);

/* auth/http_verdict.c */

/* The verdict that follows from the answer; its words into `verdict`. */
enum auth_result http_verdict(const struct config *conf,
    const struct http_answer *a, const struct message *question,
    struct message *verdict);

/* There is none, and why. */
enum auth_result http_verdict_unavailable(
    struct message *verdict, const char *why);

#endif
