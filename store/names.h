/* store/names.h: the directory's profiles by name: which of them contain a text, the newest first
 * (dusk.md §7). In memory only, and of one thread; what lasts is the caller's. It knows a profile's
 * peer, folded name and last_seen; whatever else a search answers, the caller reads by peer.
 *
 * How: profiles stand in blocks in the order of last_seen. A block has a row of bits for every
 * class of byte, of pair and of triple of bytes, and a bit in it for each of its profiles; the rows
 * of a query, joined by AND, leave few names to be compared with it. A touch moves a profile to the
 * newest block's end, and what moved away is made up for by moving a few others together with each
 * call, so that no call is long and no call does what grows with the number of profiles.
 *
 * Shapes:  peer is whatever the caller's key is, 1..NAMES_PEER_MAX bytes, compared as bytes. A name
 *          has 0..NAMES_BYTES_MAX bytes of any kind; A-Z and a-z are one in names and queries,
 *          every other byte is itself, and no byte is a wildcard. Queries come trimmed.
 * Units:   last_seen_s in seconds, kept up to 2^32 - 1.
 * Order:   by last_seen_s, the newest first; among equals the one first that was put, or touched
 *          with another last_seen_s, last (while loading: that was put last).
 * Bounds:  profiles_max; names_memory_max bytes; a find compares NAMES_FIND_WORK bytes' worth of
 *          names; a call moves eight profiles at most, and a block's 4096 anew when keys come out
 * of order (the clock was set back): some 2 ms, and in the mean no more than eight again. Errors:
 * -ENOMEM and -ENOSPC leave the index as it was. The caller's own record is then newer than what is
 * found here, until the profile's next put or touch, which repairs it.
 *
 * Everything borrows; a hit's peer is valid until the next call that is not a find. */
#ifndef SLUICE_STORE_NAMES_H
#define SLUICE_STORE_NAMES_H

#include "proto/base.h"

enum {
    NAMES_PEER_MAX = 44, /* PEER_ID_MAX */
    NAMES_BYTES_MAX = 256,
    NAMES_FIND_MAX = 20,        /* dusk.md §7: at most 20 results */
    NAMES_FIND_WORK = 10 << 20, /* bytes, of which a compared name costs 64 and its length */
};

struct names;

struct names_hit {
    struct bytes peer; /* lent by the index, until it changes */
    uint32_t last_seen_s;
};

/* Since names_new; profiles and bytes are of now. */
struct names_stats {
    uint32_t profiles;
    uint64_t bytes; /* of memory held, the allocator's own few bytes for each piece included */
    uint64_t finds;
    uint64_t finds_cut; /* finds that ended at NAMES_FIND_WORK */
    uint64_t compared;  /* names compared with a query */
    uint64_t moved;     /* profiles moved together, besides those put and touched */
};

/* Gives *n. profiles_max 0: 2^26. seed is secret and random: it decides which rows and chains a
 * name and a peer meet, so that nobody can choose them. expected, which may be 0, sizes the table
 * once for that many. */
int MUST_USE names_new(const uint8_t seed[16], uint32_t profiles_max, uint32_t expected,
                       struct names **n);
void names_free(struct names *n); /* NULL is nothing */

/* Loading what was kept: load in any order, with whatever else in between, then names_settle until
 * it says that there is no more; each call is one bounded step of at most `step` profiles placed
 * (0: 20000) or some 10 ms of sorting. A profile that is loaded and not yet placed is found by its
 * exact peer only; put, touch and remove of it are as ever. -EEXIST: the peer is there already, and
 * newer; nothing was done. -ENOMEM from names_settle: call it again, or free the index. */
int MUST_USE names_load(struct names *n, struct bytes peer, struct bytes name,
                        uint64_t last_seen_s);
int MUST_USE names_settle(struct names *n, uint32_t step, bool *more);

/* Adds a profile or replaces it. -ENOMEM, -ENOSPC (profiles_max). -EINVAL: a peer or a name outside
 * the shapes above. */
int MUST_USE names_put(struct names *n, struct bytes peer, struct bytes name, uint64_t last_seen_s);
/* -ENOENT: no such profile. -ENOMEM: it stays where it was. */
int MUST_USE names_touch(struct names *n, struct bytes peer, uint64_t last_seen_s);
bool names_remove(struct names *n, struct bytes peer); /* false: there was none */

/* The newest profiles, at most max (<= NAMES_FIND_MAX), whose name contains query, or whose peer is
 * `exact` (n = 0: none), which the caller has decoded from the query; one that is both comes once.
 * An empty query is contained in every name. Returns how many hits were written.
 *
 * Bounded: having compared NAMES_FIND_WORK bytes' worth of names (counted in finds_cut), a find
 * answers the newest of what it has found by then; the exact peer is among them in any case. Names
 * must be made for that: many thousands that contain all triples of a query and not the query.
 * Whoever can register so many can as well register twenty that contain it, and so gains nothing
 * by it. */
size_t names_find(struct names *n, struct bytes query, struct bytes exact, size_t max,
                  struct names_hit hits[NAMES_FIND_MAX]);

void names_stats_get(const struct names *n, struct names_stats *s);
/* What an index of so many profiles may hold at most, beside the bytes of their names, and but for
 * what loading needs (32 bytes each, until it is settled): some 200 bytes each, 170 as a rule.
 * While the clock is set back and forth it may be a third more. */
uint64_t names_memory_max(uint32_t profiles);

#endif
