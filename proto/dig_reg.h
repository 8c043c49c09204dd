/* proto/dig_reg.h: who is registered at the DIG relay, and in which network (dig.md §6, §5.6, §5.7,
 * §14.2): the decision about a registration, lookups, sorted and sampled lists, and networks that
 * are gone when their last member is. Owned by one thread, the control thread's. Pure.
 * Shapes: a member is named by pointer while it is registered, and by `index`, which is below the
 *         registrants_max of dig_reg_init() and goes to somebody else after it has left. Nothing
 *         that this header lends may be changed by the caller, but for what is marked so.
 * Memory: given at init, touched only as far as it is used; the size does not depend on who comes.
 *         Every call but the lists costs a bounded number of hash and tree steps.
 * Errors: a verdict about a peer's claim. What dig_decode() refuses (a longer name, D9) must not
 *         get here. */
#ifndef SLUICE_PROTO_DIG_REG_H
#define SLUICE_PROTO_DIG_REG_H

#include "proto/dig.h"
#include "proto/dig_order.h"

enum {
    DIG_REG_LIST_MAX = 1024,     /* what clients keep of a list (dig.md §18) */
    DIG_REG_SEATS_MAX = 1 << 21, /* registrants; config checks. About 1 KiB of address space each */
};

/* A random number at a time, given by the caller; arg is borrowed for the call. */
struct dig_rng {
    uint64_t (*u64)(void *arg);
    void *arg;
};

/* The connection that an entry belongs to (D1). */
struct dig_home {
    uint32_t slot, gen;
    uint8_t shard;
};
static inline bool dig_home_eq(const struct dig_home *a, const struct dig_home *b)
{
    return a->slot == b->slot && a->gen == b->gen && a->shard == b->shard;
}

struct dig_network {
    uint32_t index; /* below registrants_max */
    /* Another number after every join and leave, never the same twice in the registry's life, also
     * not for another network: what was built under one value is good while it stands. */
    uint64_t events;
    struct dig_order by_id; /* its count: members */
    uint32_t next_in_bucket;
    uint8_t name_n;
    uint8_t name[DIG_NAME_MAX];
};

struct dig_member {
    uint32_t index;
    uint8_t id_n;
    uint8_t addrs_n;
    bool verified; /* the id was proven by a certificate (D14, "Reconnect lock-out") */
    uint8_t id[DIG_NAME_MAX];
    struct dig_network *network;
    struct dig_home home;
    uint32_t protocol_version;
    uint64_t connected_at_unix_s;
    uint64_t serial;          /* of this registration; never the same twice */
    struct netaddr observed;  /* with its source port */
    struct dig_source source; /* what is counted against source_max */
    uint64_t id_prefix;       /* ours, from here */
    uint32_t id_hash, home_hash;
    uint32_t next_by_id, next_by_home;
    uint32_t source_at;
    struct netaddr addr[DIG_DIALABLE_MAX];
};

static inline struct bytes dig_member_id(const struct dig_member *m)
{
    return bytes_of(m->id, m->id_n);
}
static inline struct bytes dig_network_name(const struct dig_network *n)
{
    return bytes_of(n->name, n->name_n);
}
static inline uint32_t dig_network_members(const struct dig_network *n)
{
    return n->by_id.count;
}

struct dig_source_count; /* in dig_reg.c */
struct dig_reg {
    uint32_t registrants_max; /* may be set lower while running, and back */
    uint32_t source_max;      /* concurrent registrations of one source key; 0: no limit */
    /* Ours. */
    uint8_t key[16];
    uint32_t seats; /* registrants_max of init */
    uint32_t buckets_mask;
    uint64_t events, serials;
    struct dig_member *member;
    struct dig_network *network;
    struct dig_source_count *source;
    uint32_t *by_id, *by_home, *by_name, *by_source;
    uint32_t members_fresh, members_free, networks_fresh, networks_free, sources_fresh,
        sources_free;
    struct dig_order_pool pool;
    struct dig_order all; /* members by id; its count: registrants */
    struct dig_order networks;
    uint64_t *sampled; /* a bit a rank, all zero between calls */
};

size_t dig_reg_bytes(uint32_t registrants_max);
/* Keeps `mem`: dig_reg_bytes(max) of zeroed memory, aligned as malloc does. key: random. */
void dig_reg_init(struct dig_reg *r, void *mem, uint32_t registrants_max, const uint8_t key[16]);

struct dig_claim {
    struct bytes id, network; /* DIG_NAME_MAX at most; copied */
    uint32_t protocol_version;
    uint8_t addrs_n;
    const struct netaddr *addrs; /* dig_dialable(); copied */
    struct netaddr observed;
    struct dig_source source;
    uint64_t connected_at_unix_s;
    struct dig_home home;
    bool verified;
};
enum dig_reg_verdict {
    DIG_REG_ADDED,     /* *member is the new entry */
    DIG_REG_REFRESHED, /* the same id and network on the same connection (D11): *member has the new
                        * version and addresses, everything else stays; no event */
    /* *member is an entry that has to go first: another registration of this connection (D11), or
     * the holder of an id that the newcomer has proven to be its own. Nothing has changed: take
     * leave of it (pex_on_leave, dig_reg_remove, and its peers are told), then ask again. Twice in
     * a row at most. */
    DIG_REG_EVICT,
    DIG_REG_SOURCE_FULL, /* code 7 and a strike */
    DIG_REG_FULL,        /* code 4 */
    DIG_REG_TAKEN, /* code 5; *member is the incumbent, to be probed. If its connection is known to
                    * be dead, take leave of it and ask again */
};
/* Steps 2, 4, 5 and 6 of dig.md §6.1, in that order. Writes *member for the verdicts that say so.
 */
MUST_USE enum dig_reg_verdict dig_reg_add(struct dig_reg *r, const struct dig_claim *claim,
                                          struct dig_member **member);
/* The entry of that very connection, slot and generation, or NULL. */
struct dig_member *dig_reg_of(const struct dig_reg *r, const struct dig_home *home);
/* false: that connection has none (any more), and nothing has changed: an id that somebody else
 * registered meanwhile is his (D1). `home` may be the member's own. */
bool dig_reg_remove(struct dig_reg *r, const struct dig_home *home);

struct dig_member *dig_reg_find(const struct dig_reg *r, struct bytes id);
struct dig_network *dig_reg_network(const struct dig_reg *r, struct bytes name); /* or NULL */
static inline uint32_t dig_reg_count(const struct dig_reg *r)
{
    return r->all.count;
}
static inline uint32_t dig_reg_networks_count(const struct dig_reg *r)
{
    return r->networks.count;
}
uint32_t dig_reg_source_count(const struct dig_reg *r, const struct dig_source *source);

/* What `peers` lists (dig.md §5.6), ascending by id: all members while they are at most max, else a
 * uniform sample of max of them that holds `self` if it is one (NULL: nobody asks). Returns how
 * many; max is at most DIG_REG_LIST_MAX. */
size_t dig_reg_list(struct dig_reg *r, const struct dig_network *net, const struct dig_member *self,
                    const struct dig_rng *rng, const struct dig_member **out, size_t max);

/* Pages, ascending by id or by name, of those behind `after` (n == 0 and p == NULL: from the
 * beginning): for walks over everybody that must not stall the thread; whoever comes or goes
 * between two pages is seen or not. Returns how many; fewer than max: the end. */
size_t dig_reg_page(const struct dig_reg *r, struct bytes after, const struct dig_member **out,
                    size_t max);
size_t dig_reg_network_page(const struct dig_reg *r, const struct dig_network *net,
                            struct bytes after, const struct dig_member **out, size_t max);
size_t dig_reg_networks_page(const struct dig_reg *r, struct bytes after,
                             const struct dig_network **out, size_t max);

#endif
