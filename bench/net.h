/*
 * What the programs of the benchmark share: loopback sockets, the clock, and
 * the way out. They are started by bench/run, tell it their port as the first
 * line of their output, and do not outlive it.
 */
#ifndef BENCH_NET_H
#define BENCH_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Says what failed, with errno's text if there is one, and exits with 1. */
_Noreturn void net_die(const char *what);

/* A listening socket on a free port of 127.0.0.1. */
int net_listen(uint16_t *port);

/* The same, its port printed; from then on SIGTERM comes if our parent dies. */
int net_announce(void);

/* A blocking connection to 127.0.0.1, without Nagle's delay. */
int net_connect(uint16_t port);

/* The same from an address of the loopback's own, 127.0.0.1 with `offset`. */
int net_connect_from(uint16_t port, uint32_t offset);

/* Sends all of it. False: the connection is gone. */
bool net_send(int fd, const void *data, size_t len);

/* A number of at most `max`, or the end of the program. */
uint64_t net_number(const char *text, uint64_t max);

/* Nanoseconds on the monotonic clock. */
int64_t net_now(void);

#endif
