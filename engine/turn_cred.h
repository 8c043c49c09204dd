/* engine/turn_cred.h: credentials for a limited time, made from the secret that the TURN server
 * shares with whoever may hand them out (turn.md §8.3), and the URIs to use them at (RFC 7064,
 * 7065). Nothing is kept: the name says until when. */
#ifndef SLUICE_ENGINE_TURN_CRED_H
#define SLUICE_ENGINE_TURN_CRED_H

#include "engine/ops.h"
#include "engine/turn_host.h"

struct turn_cred_place {
    const struct turn_host *host;    /* NULL: that door is closed */
    const struct netaddr *udp, *tcp; /* as bound, each n; borrows */
    unsigned n;
    uint64_t unix_s;
};

/* name: "" for none. 0, or -errno with a line in `why`. The caller wipes *out. */
MUST_USE int turn_cred_make(const struct turn_cred_place *at, const char *name, uint32_t ttl_s,
                            struct ops_cred *out, char *why, size_t cap);

/* The host of those URIs for peers who ask over libp2p (dusk.md §8): the name or address that the
 * operator gave, else the one bound, if it is one that anybody can use. false: there is none. */
bool turn_cred_host(const struct turn_host *h, const struct netaddr *bound, unsigned n,
                    char out[CONFIG_TEXT_MAX]);

#endif
