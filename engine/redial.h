/* engine/redial.h: whom to dial, when, and when again: the part of dial.h that needs no socket.
 * Told the time and some random bits; names its next deadline. One attempt at a time; a peer that
 * has a connection of its own making counts as present and is not dialled (dusk.md §10.4, which
 * dials once and never again: §14).
 *
 * After a failure: 2 s, doubled with each further one up to 120 s, less up to a quarter by chance,
 * so that relays which lost each other do not meet again and again. A connection that lived for
 * REDIAL_LIVED_MS makes all failures before it forgotten; one that was dropped at once does not, or
 * whoever accepts and hangs up would be dialled every two seconds for ever. */
#ifndef SLUICE_ENGINE_REDIAL_H
#define SLUICE_ENGINE_REDIAL_H

#include "proto/maddr.h"

enum {
    REDIAL_FIRST_MS = 2000,
    REDIAL_MAX_MS = 120000,
    REDIAL_LIVED_MS = 30000,
    REDIAL_DEADLINE_MS = 10000, /* for name, connect and handshake together */
    REDIAL_LOOK_MS = 5000,      /* between looks at who is there without our doing */
};

enum redial_state {
    REDIAL_WAIT,    /* until at_ms */
    REDIAL_TRYING,  /* an attempt, until at_ms at most */
    REDIAL_UP,      /* our connection is there; next look at at_ms */
    REDIAL_PRESENT, /* somebody else's is; next look at at_ms */
    REDIAL_OVER,    /* never again: it is ourselves, or we drain */
};

struct redial {
    enum redial_state state;
    unsigned failures; /* in a row */
    uint64_t at_ms;    /* UINT64_MAX: nothing is due */
    uint64_t since_ms; /* of REDIAL_UP and REDIAL_PRESENT */
};

enum redial_do {
    REDIAL_NOTHING,
    REDIAL_DIAL,    /* begin an attempt; it ends by redial_up or redial_down */
    REDIAL_EXPIRED, /* the attempt took too long: end it, then redial_down */
    REDIAL_HERE,    /* the peer has come by itself */
    REDIAL_LOST,    /* and has gone again; a dial follows */
    REDIAL_LOOK,    /* ours is up: is it one too many? */
};

void redial_init(struct redial *r, uint64_t now_ms); /* due at once */
/* At or after at_ms; `present`: the peer has a connection that is not ours. `random`: any bits. */
enum redial_do redial_tick(struct redial *r, uint64_t now_ms, bool present, uint64_t random);
void redial_up(struct redial *r, uint64_t now_ms);
/* The attempt failed, or our connection ended. */
void redial_down(struct redial *r, uint64_t now_ms, uint64_t random);
/* We closed ours, because the peer has another one. */
void redial_yield(struct redial *r, uint64_t now_ms);
void redial_stop(struct redial *r);

/* What a multiaddr of a relay says. */
enum { DIAL_NAME_MAX = 254, DIAL_IP4 = 1, DIAL_IP6 = 2 };
struct dial_target {
    struct peer_id want;      /* n == 0: whoever answers */
    struct netaddr at;        /* its address is unset while there is a name */
    char name[DIAL_NAME_MAX]; /* empty: `at` is all of it */
    uint8_t families;         /* of which a name's addresses may be */
};
/* (ip4|ip6|dns|dns4|dns6)/tcp, and /p2p behind it or not. false: anything else, or port 0. */
bool dial_parse(struct bytes maddr, struct dial_target *out);

#endif
