/* tools/turn_client.h: one client of a STUN or TURN server, one transaction at a time, blocking up
 * to a deadline. It speaks RFC 8656 with long-term credentials by MD5 and HMAC-SHA1, which every
 * server knows. */
#ifndef SLUICE_TOOLS_TURN_CLIENT_H
#define SLUICE_TOOLS_TURN_CLIENT_H

#include "proto/chandata.h"
#include "proto/stun_auth.h"

enum { TC_IN_BYTES = 4096, TC_TEXT = 256, TC_WHY = 256 };

struct tc {
    int fd;
    bool stream;
    uint64_t deadline_ms;
    struct netaddr server, local;
    const char *user, *password; /* keeps; NULL: none */
    uint8_t realm[TC_TEXT], nonce[TC_TEXT];
    size_t realm_n, nonce_n;
    struct stun_key key;
    struct netaddr relayed; /* of its allocation */
    uint32_t lifetime_s;
    uint8_t in[TC_IN_BYTES]; /* what came and was not looked at: the unit given last is before it */
    size_t in_n, in_used;
    char why[TC_WHY]; /* after a failure: one line */
};

uint64_t tc_now_ms(void);
/* HOST:PORT, a name too; false: why not is on stderr. */
bool tc_resolve(const char *text, struct netaddr *out);
/* from: NULL, or the address to be at. */
bool tc_open(struct tc *c, const struct netaddr *server, bool stream, const struct netaddr *from,
             uint64_t deadline_ms);
void tc_close(struct tc *c);

/* false: c->why. */
bool tc_binding(struct tc *c, struct netaddr *mapped);
bool tc_allocate(struct tc *c);
bool tc_channel(struct tc *c, uint16_t channel, const struct netaddr *peer);
bool tc_release(struct tc *c);

/* ChannelData. tc_next waits until `until_ms` for a unit that is one: true. */
bool tc_send(struct tc *c, uint16_t channel, struct bytes data);
bool tc_next(struct tc *c, uint64_t until_ms, struct chandata *out);

/* A UDP socket at this address; -1. And sockets' addresses as ours. */
int tc_udp(const struct netaddr *at, struct netaddr *bound);
bool tc_recv_from(int fd, uint8_t *buf, size_t cap, size_t *n, struct netaddr *from);
bool tc_send_to(int fd, struct bytes data, const struct netaddr *to);

#endif
