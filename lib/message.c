/*
 * Messages between a session and its keeper: building, sending, receiving and
 * the strict parsing of what the other side, which may have been taken over,
 * put on the socket. What a field means is not known here; only which of them
 * are text, so that a NUL can never cut one short.
 */
#include <sys/socket.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/text.h"

#include "lib/message.h"

/* Before a value: the field's name and its length. After it: a NUL. */
#define FIELD_HEAD 3
#define FIELD_TAIL 1

static bool
is_bytes(enum message_field f)
{
	switch (f) {
	case M_BINDING_EXPORTER:
	case M_BINDING_END_POINT:
	case M_RESPONSE:
	case M_CHALLENGE:
	case M_DATA:
	case M_SIGNATURE:
	case M_CHAIN:
	case M_STAPLE:
	case M_TICKETS:
	case M_ENVIRONMENT:
		return true;
	default:
		return false;
	}
}

/* Remembers for message_wipe() how much of the bytes was ever written. */
static void
touched(struct message *m, size_t len)
{
	if (len > m->used)
		m->used = len < MESSAGE_SIZE ? len : MESSAGE_SIZE;
}

/* A message without fields, and `len` octets long so far. */
static void
clear(struct message *m, size_t len)
{
	memset(m->field, 0, sizeof(m->field));
	m->len = len;
	m->overflow = false;
}

void
message_init(struct message *m, enum message_type type)
{
	clear(m, 1);
	message_set_type(m, type);
}

void
message_set_type(struct message *m, enum message_type type)
{
	m->type = type;
	m->bytes[0] = (unsigned char)type;
}

/* Takes a field out; the place it leaves at the end may have held a secret. */
static void
remove_field(struct message *m, enum message_field f)
{
	size_t start = (size_t)m->field[f].at - FIELD_HEAD;
	size_t size = FIELD_HEAD + (size_t)m->field[f].len + FIELD_TAIL;
	size_t i;

	memmove(
	    m->bytes + start, m->bytes + start + size, m->len - start - size);
	m->len -= size;
	explicit_bzero(m->bytes + m->len, size);
	for (i = 0; i < MESSAGE_FIELD_COUNT; i++)
		if (m->field[i].at > start)
			m->field[i].at -= (uint16_t)size;
	m->field[f].at = 0;
	m->field[f].len = 0;
}

void
message_put_bytes(
    struct message *m, enum message_field f, const void *value, size_t len)
{
	unsigned char *p;
	size_t room;

	if (value == NULL)
		return;
	if (m->field[f].at != 0)
		remove_field(m, f);
	room = MESSAGE_SIZE - m->len;
	/* The other side would refuse a NUL in a text, and the whole with it. */
	if (room < FIELD_HEAD + FIELD_TAIL ||
	    len > room - FIELD_HEAD - FIELD_TAIL ||
	    (!is_bytes(f) && memchr(value, '\0', len) != NULL)) {
		m->overflow = true;
		return;
	}
	p = m->bytes + m->len;
	*p++ = (unsigned char)f;
	*p++ = (unsigned char)(len >> 8);
	*p++ = (unsigned char)len;
	memcpy(p, value, len);
	p[len] = '\0';
	m->field[f].at = (uint16_t)(m->len + FIELD_HEAD);
	m->field[f].len = (uint16_t)len;
	m->len += FIELD_HEAD + len + FIELD_TAIL;
	touched(m, m->len);
}

void
message_put(struct message *m, enum message_field f, const char *value)
{
	if (value != NULL)
		message_put_bytes(m, f, value, strlen(value));
}

void
message_put_number(struct message *m, enum message_field f, uint64_t n)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "%" PRIu64, n);
	message_put(m, f, text);
}

const char *
message_get(const struct message *m, enum message_field f)
{
	/* A field of bytes read as text would end at the first NUL in it. */
	if (m->field[f].at == 0 || is_bytes(f))
		return NULL;
	return (const char *)m->bytes + m->field[f].at;
}

const char *
message_text(const struct message *m, enum message_field f)
{
	const char *value = message_get(m, f);

	return value != NULL ? value : "";
}

const void *
message_get_bytes(const struct message *m, enum message_field f, size_t *len)
{
	if (m->field[f].at == 0)
		return NULL;
	*len = m->field[f].len;
	return m->bytes + m->field[f].at;
}

uint64_t
message_get_number(const struct message *m, enum message_field f, uint64_t max,
    uint64_t fallback)
{
	uint64_t n;

	if (text_number(message_text(m, f), max, &n) == -1)
		return fallback;
	return n;
}

/*
 * After a call that could not be done at once: waits for `events`, by
 * `deadline`. 0 to try again, -1 with errno when there is no point in it.
 */
static int
wait_for(int fd, short events, int64_t deadline)
{
	struct pollfd p = {.fd = fd, .events = events};
	int n, left;

	if (errno == EINTR)
		return 0;
	if (errno != EAGAIN && errno != EWOULDBLOCK)
		return -1;
	left = clock_left(deadline);
	if (left == 0) {
		errno = ETIMEDOUT;
		return -1;
	}
	n = poll(&p, 1, left);
	return n == -1 && errno != EINTR ? -1 : 0;
}

int
message_send(int fd, const struct message *m, int64_t deadline)
{
	if (m->overflow) {
		errno = EMSGSIZE;
		return -1;
	}
	/* A packet is taken by the kernel whole or not at all. */
	while (send(fd, m->bytes, m->len, MSG_DONTWAIT | MSG_NOSIGNAL) == -1)
		if (wait_for(fd, POLLOUT, deadline) == -1)
			return -1;
	return 0;
}

/* One field at `at`. Where the next one begins, or 0 when it is not a field. */
static size_t
parse_field(struct message *m, size_t at, size_t total)
{
	const unsigned char *p = m->bytes + at;
	size_t len;
	unsigned f;

	if (total - at < FIELD_HEAD + FIELD_TAIL)
		return 0;
	f = p[0];
	len = (size_t)p[1] << 8 | p[2];
	p += FIELD_HEAD;
	if (f >= MESSAGE_FIELD_COUNT || m->field[f].at != 0 ||
	    len > total - at - FIELD_HEAD - FIELD_TAIL || p[len] != '\0')
		return 0;
	if (!is_bytes(f) && memchr(p, '\0', len) != NULL)
		return 0;
	m->field[f].at = (uint16_t)(at + FIELD_HEAD);
	m->field[f].len = (uint16_t)len;
	return at + FIELD_HEAD + len + FIELD_TAIL;
}

static int
parse(struct message *m, size_t total)
{
	size_t at = 1;

	if (total > MESSAGE_SIZE || m->bytes[0] == 0 ||
	    m->bytes[0] >= MESSAGE_TYPES)
		return -1;
	while (at < total) {
		at = parse_field(m, at, total);
		if (at == 0)
			return -1;
	}
	m->type = m->bytes[0];
	m->len = total;
	return 0;
}

int
message_receive(int fd, struct message *m, int64_t deadline)
{
	ssize_t n;

	clear(m, 0);
	/*
	 * MSG_TRUNC: the packet's own length, so that one that was cut shows.
	 * Without room for control data, descriptors that were sent along are
	 * closed by the kernel: nobody fills our table. An empty packet cannot
	 * be told from the end, and its sender is treated as gone.
	 */
	while ((n = recv(fd, m->bytes, sizeof(m->bytes),
		    MSG_DONTWAIT | MSG_TRUNC)) == -1)
		if (wait_for(fd, POLLIN, deadline) == -1)
			return -1;
	if (n == 0)
		return 0;
	touched(m, (size_t)n);
	if (parse(m, (size_t)n) == -1) {
		clear(m, 0);
		errno = EBADMSG;
		return -1;
	}
	return 1;
}

void
message_wipe(struct message *m)
{
	/*
	 * An earlier, longer message may have stood here, but what was never
	 * written stays untouched: it is most of 48 kB, for each session.
	 */
	explicit_bzero(m->bytes, m->used);
	m->used = 0;
	m->type = (enum message_type)0;
	clear(m, 0);
}
