/*
 * A pool of nodes, each in two chains: by process and by source.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "children.h"

#define NONE UINT32_MAX

struct node {
	pid_t pid; /* 0: free */
	struct source source;
	unsigned generation;
	uint32_t next_by_pid; /* of a free node: the next free one */
	uint32_t next_by_source;
};

struct children {
	size_t max, count, buckets;
	uint32_t free;
	uint32_t *by_pid, *by_source; /* buckets: the first of a chain */
	struct node *nodes;
};

struct children *
children_new(size_t max)
{
	struct children *c = calloc(1, sizeof(*c));
	size_t i;

	if (c == NULL)
		return NULL;
	c->max = max;
	for (c->buckets = 64; c->buckets < max; c->buckets *= 2)
		;
	c->by_pid = malloc(c->buckets * sizeof(*c->by_pid));
	c->by_source = malloc(c->buckets * sizeof(*c->by_source));
	c->nodes = calloc(max, sizeof(*c->nodes));
	if (c->by_pid == NULL || c->by_source == NULL || c->nodes == NULL) {
		children_free(c);
		return NULL;
	}
	for (i = 0; i < c->buckets; i++)
		c->by_pid[i] = c->by_source[i] = NONE;
	for (i = 0; i < max; i++)
		c->nodes[i].next_by_pid = i + 1 < max ? (uint32_t)i + 1 : NONE;
	c->free = 0;
	return c;
}

void
children_free(struct children *c)
{
	if (c == NULL)
		return;
	free(c->by_pid);
	free(c->by_source);
	free(c->nodes);
	free(c);
}

static uint32_t *
pid_bucket(const struct children *c, pid_t pid)
{
	return &c->by_pid[(size_t)pid & (c->buckets - 1)];
}

/* FNV-1a: whoever fills one chain has as many addresses as it is long. */
static uint32_t *
source_bucket(const struct children *c, const struct source *s)
{
	uint32_t hash = 2166136261u;
	size_t i;

	for (i = 0; i < sizeof(s->bytes); i++)
		hash = (hash ^ s->bytes[i]) * 16777619u;
	return &c->by_source[hash & (c->buckets - 1)];
}

size_t
children_count(const struct children *c)
{
	return c->count;
}

size_t
children_count_from(const struct children *c, const struct source *s)
{
	uint32_t i;
	size_t n = 0;

	for (i = *source_bucket(c, s); i != NONE;
	     i = c->nodes[i].next_by_source)
		n += memcmp(&c->nodes[i].source, s, sizeof(*s)) == 0;
	return n;
}

size_t
children_next(const struct children *c)
{
	return c->free != NONE ? c->free : c->max;
}

void
children_add(struct children *c, pid_t pid, const struct source *s,
    unsigned generation)
{
	uint32_t i = c->free, *by_pid = pid_bucket(c, pid),
		 *by_source = source_bucket(c, s);
	struct node *node = &c->nodes[i];

	c->free = node->next_by_pid;
	node->pid = pid;
	node->source = *s;
	node->generation = generation;
	node->next_by_pid = *by_pid;
	node->next_by_source = *by_source;
	*by_pid = *by_source = i;
	c->count++;
}

bool
children_remove(struct children *c, pid_t pid, size_t *slot)
{
	uint32_t i, *link;
	struct node *node;

	for (link = pid_bucket(c, pid); *link != NONE;
	     link = &c->nodes[*link].next_by_pid)
		if (c->nodes[*link].pid == pid)
			break;
	if (*link == NONE)
		return false;
	i = *link;
	node = &c->nodes[i];
	*link = node->next_by_pid;
	for (link = source_bucket(c, &node->source); *link != i;
	     link = &c->nodes[*link].next_by_source)
		;
	*link = node->next_by_source;
	node->pid = 0;
	node->next_by_pid = c->free;
	c->free = i;
	c->count--;
	*slot = i;
	return true;
}

size_t
children_count_until(const struct children *c, unsigned last)
{
	size_t i, n = 0;

	for (i = 0; i < c->max; i++)
		n += c->nodes[i].pid != 0 && c->nodes[i].generation <= last;
	return n;
}

void
children_kill(const struct children *c, int signal)
{
	size_t i;

	for (i = 0; i < c->max; i++)
		if (c->nodes[i].pid != 0)
			(void)kill(c->nodes[i].pid, signal);
}
