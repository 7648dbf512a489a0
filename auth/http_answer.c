/*
 * An answer: headers, as they come, into the fields that we know. Only what is
 * well formed and of a bounded size gets through; what it means is not judged
 * here.
 */
#include <string.h>

#include "lib/text.h"

#include "auth/http.h"

/* The most of an answer that is read. */
#define MAX_HEADER_SIZE	 16384
#define MAX_HEADER_COUNT 100
#define MAX_BODY_SIZE	 65536

#define MAX_WAIT_S 60

void
http_answer_fail(struct http_answer *a, const char *why)
{
	(void)text_copy(a->error, sizeof(a->error), why);
}

static size_t
give_up(struct http_answer *a, const char *why)
{
	http_answer_fail(a, why);
	return 0;
}

/* Several Auth-Status: each is kept, and the verdict is the worst one's. */
static void
take_status(struct http_fields *f, const char *value, size_t len)
{
	if (len == 2 && memcmp(value, "OK", 2) == 0) {
		f->ok = true;
	} else if (len == 4 && memcmp(value, "WAIT", 4) == 0) {
		f->wait = true;
	} else {
		f->refused = true;
		if (f->text[0] == '\0')
			http_text_copy(f->text, sizeof(f->text), value, len);
	}
}

/* Keeps the header `name` if it is one that we know; a later one wins. */
static int
take_field(
    struct http_answer *a, const char *name, const char *value, size_t len)
{
#define FIELD(name, member)                                   \
	{                                                     \
		name, offsetof(struct http_fields, member),   \
		    sizeof(((struct http_fields *)0)->member) \
	}
	static const struct {
		const char *name;
		size_t at, size;
	} known[] = {
	    FIELD("Auth-Server", server),
	    FIELD("Auth-Port", port),
	    FIELD("Auth-User", user),
	    FIELD("Auth-Pass", password),
	    FIELD("Auth-Wait", wait_s),
	    FIELD("Auth-Error-Code", code),
	};
#undef FIELD
	char *to;
	size_t i;

	if (text_equal(name, "Auth-Status"))
		take_status(&a->f, value, len);
	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (!text_equal(name, known[i].name))
			continue;
		if (len >= known[i].size)
			return -1;
		to = (char *)&a->f + known[i].at;
		memcpy(to, value, len);
		to[len] = '\0';
	}
	return 0;
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/*
 * One header line without its end. -1 when it is none: continued lines and
 * blanks before the ':' are how one header is made to look like another
 * (RFC 9112 sections 5.1 and 5.2).
 */
static int
take_header(struct http_answer *a, const char *line, size_t len)
{
	const char *colon = memchr(line, ':', len), *value;
	size_t i, name_len;
	char name[64];

	if (colon == NULL || colon == line || memchr(line, '\0', len) != NULL)
		return -1;
	name_len = (size_t)(colon - line);
	for (i = 0; i < name_len; i++)
		if (http_text_is_unsafe((unsigned char)line[i]) ||
		    line[i] == ' ')
			return -1;
	value = colon + 1;
	len -= name_len + 1;
	for (; len > 0 && is_blank(*value); value++)
		len--;
	while (len > 0 && is_blank(value[len - 1]))
		len--;
	if (name_len >= sizeof(name))
		return 0; /* none that we know */
	memcpy(name, line, name_len);
	name[name_len] = '\0';
	return take_field(a, name, value, len);
}

size_t
http_answer_header(char *data, size_t size, size_t count, void *arg)
{
	struct http_answer *a = arg;
	size_t all = size * count, len = all;
	const char *code;

	a->header_size += all;
	a->header_count++;
	if (a->header_size > MAX_HEADER_SIZE ||
	    a->header_count > MAX_HEADER_COUNT)
		return give_up(a, "the answer's header is too long");
	if (a->complete)
		return all; /* a trailer must not change the verdict */
	if (len > 0 && data[len - 1] == '\n')
		len--;
	if (len > 0 && data[len - 1] == '\r')
		len--;
	if (len == 0) {
		a->complete = !a->interim;
		a->started = false;
	} else if (!a->started) {
		/* What a 1xx answer said does not count (RFC 9110 15.2). */
		explicit_bzero(&a->f, sizeof(a->f));
		code = memchr(data, ' ', len - 1);
		a->interim = code != NULL && code[1] == '1';
		a->started = true;
	} else if (take_header(a, data, len) == -1) {
		return give_up(a, "a header of the answer is malformed");
	}
	return all;
}

size_t
http_answer_body(char *data, size_t size, size_t count, void *arg)
{
	struct http_answer *a = arg;
	size_t all = size * count;

	if (all > (a->body != NULL ? a->body_room : MAX_BODY_SIZE) -
		a->body_size)
		return give_up(a, "the answer's body is too long");
	if (a->body != NULL)
		memcpy(a->body + a->body_size, data, all);
	a->body_size += all;
	return all;
}

unsigned
http_answer_wait_s(const struct http_answer *a)
{
	uint64_t s = 0;

	(void)text_number(a->f.wait_s, UINT64_MAX, &s);
	return s < MAX_WAIT_S ? (unsigned)s : MAX_WAIT_S;
}
