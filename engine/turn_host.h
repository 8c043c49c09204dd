/* engine/turn_host.h: what all shards share of the TURN server: configuration made ready for the
 * machine (proto/turn.h), users, secrets, the policy about peers, relayed and external addresses,
 * ports. Built before the threads start; const afterwards but for what says atomic. */
#ifndef SLUICE_ENGINE_TURN_HOST_H
#define SLUICE_ENGINE_TURN_HOST_H

#include <stdatomic.h>

#include "engine/config.h"
#include "engine/quota.h"
#include "engine/turn_ports.h"
#include "proto/peer_policy.h"
#include "proto/turn.h"

struct turn_users; /* turn_users.h */
struct turn_login; /* turn_login.h */

enum {
    TURN_EXTERNALS = 4, /* one in use, and what those who read just now may still look at */
    TURN_ALLOC_PERMS_MAX = 1024, /* of one allocation; turn.md §14 */
    TURN_ALLOC_CHANS_MAX = 256,
    TURN_CONNS_MAX = 4096, /* RFC 6062, of one shard */
    TURN_ALLOC_CONNS_MAX = 64,
    TURN_OWN_PORTS_MAX = 32,
    TURN_SECRET_BYTES = 32, /* of one that nobody gave (presets.md, dusk) */
};

struct turn_host {
    const struct config *cfg;   /* keeps */
    bool on;                    /* the door is open */
    bool relays;                /* there is a secret or a user; else STUN only: Allocate -> 403 */
    struct turn_config machine; /* for turn_init: a shard fills in place.shard, find_user's and
                                   peer_ok's arg is this host */
    struct stun_nonce_keys nonce;
    uint8_t realm[TURN_REALM_MAX];
    struct bytes secret[STUN_SECRETS_MAX];
    char own_secret[2 * TURN_SECRET_BYTES + 1]; /* empty, or what nobody gave: turn_secret.h */
    struct turn_users *users;
    _Atomic(const struct turn_login *) login; /* by a reload; NULL: what the machine has */
    struct peer_policy policy;
    struct peer_self self[PEER_SELVES_MAX];
    bool self_cut; /* this host has more addresses than that: they are not all known as ours */
    uint16_t own_port[TURN_OWN_PORTS_MAX]; /* of our doors: no peers, even within the relay range */
    unsigned own_ports;
    struct netaddr relay_ip[TURN_FAMILIES]; /* where relay sockets are bound; port 0 */
    bool relay_allowed[TURN_FAMILIES];      /* the operator allows that very address: any port */
    bool has[TURN_FAMILIES];                /* that family can be relayed */
    struct turn_ports *ports[TURN_FAMILIES];
    struct quota *quota; /* keeps: the daemon's */
    uint64_t key_total;
    /* Has this source a connection to another door, which proves its address? Called on shard
     * threads, rarely. NULL: nobody has. */
    bool (*is_known)(void *arg, const struct netaddr *client);
    void *known_by;
    /* What clients are told instead of relay_ip (--turn-external-ip); the errand thread renews it
     * when it was given by name, in a place that nobody has looked at for a minute at least. */
    _Atomic uint64_t external[TURN_FAMILIES][TURN_EXTERNALS][2];
    _Atomic uint32_t external_at[TURN_FAMILIES]; /* index + 1; 0: none */
};

/* 0; or -errno with one line in `why` that names flag, value and range. Opens nothing. */
MUST_USE int turn_host_init(struct turn_host *h, const struct config *cfg, struct quota *quota,
                            unsigned shards, char *why, size_t cap);
void turn_host_fini(struct turn_host *h);

/* Before shards serve. */
void turn_host_add_own_port(struct turn_host *h, uint16_t port);

/* By the errand thread, once a minute at most, or before threads start. */
void turn_host_set_external(struct turn_host *h, enum turn_family f, const uint8_t ip[16]);
bool turn_host_has_external(const struct turn_host *h, enum turn_family f, struct netaddr *out);
/* The relayed address as clients are told it: the external IP of that family, if there is one. */
void turn_host_external(const struct turn_host *h, const struct netaddr *relayed,
                        struct netaddr *out);
/* A peer addressed by our external IP is behind our own relay IP: where to send really, so that
 * hairpin traffic never leaves the host (turn.md §18). */
void turn_host_internal(const struct turn_host *h, struct netaddr *peer);

/* From now on these log in; the one before may be freed when every shard has begun another turn. */
void turn_host_set_login(struct turn_host *h, const struct turn_login *l);
/* The secrets in force: borrows, for the rest of the turn. */
struct stun_secrets turn_host_secrets(const struct turn_host *h);

/* For turn_config: arg is the host. Called on shard threads; borrow nothing past the call. */
bool turn_host_find_user(void *arg, const struct stun_auth *a, struct stun_key *key);
bool turn_host_peer_ok(void *arg, const struct netaddr *peer);

/* Quotas (turn.md §14): all or nothing, exact across shards, one release per take. `user` is
 * turn_wish.quota. 0, or 486. */
struct turn_charge {
    uint64_t user, ip; /* quota keys; 0: nothing taken */
};
MUST_USE uint16_t turn_host_charge(struct turn_host *h, struct bytes user,
                                   const struct netaddr *client, struct turn_charge *out);
void turn_host_release(struct turn_host *h, struct turn_charge *c);

/* May so many bytes of a reply to somebody unauthenticated go there (turn.md §15.2)? By its /32 or
 * /64, and by its /24 or /48 or, with --turn-replies-total, by all of them together; exact across
 * shards. UDP only. */
bool turn_host_may_reply(struct turn_host *h, uint64_t now_ms, const struct netaddr *client);
/* May this user's allocations carry n bytes more (--turn-bps-per-user)? Shared by all shards. */
bool turn_host_may_carry(struct turn_host *h, uint64_t now_ms, uint64_t user_key, size_t n);

#endif
