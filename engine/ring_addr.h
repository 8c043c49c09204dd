/* engine/ring_addr.h: socket addresses and options, for the files behind ring.h and nobody else. */
#ifndef SLUICE_ENGINE_RING_ADDR_H
#define SLUICE_ENGINE_RING_ADDR_H

#include <sys/socket.h>

#include "proto/maddr.h"

/* IPv4 as mapped gives AF_INET. Returns the length. */
socklen_t sockaddr_of(const struct netaddr *a, struct sockaddr_storage *ss);
/* AF_INET6 whatever it is: for sockets of that family. */
socklen_t sockaddr6_of(const struct netaddr *a, struct sockaddr_storage *ss);
/* 0 or -EAFNOSUPPORT. */
int netaddr_of(const struct sockaddr_storage *ss, struct netaddr *out);
/* setsockopt; 0 or -errno. */
int ring_set_int(int fd, int level, int name, int value);

#endif
