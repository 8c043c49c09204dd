/* engine/ops.h: what the HTTP door and the admin socket may ask of the daemon. Both run on
 * control's ring: every call here is made on control's thread and returns at once; listings are
 * asynchronous. Implemented by control.c; a test supplies its own. */
#ifndef SLUICE_ENGINE_OPS_H
#define SLUICE_ENGINE_OPS_H

#include "engine/config.h"
#include "engine/limits.h"
#include "engine/log.h"
#include "engine/ring.h"
#include "engine/snapshot.h"
#include "engine/stats.h"

/* Of what is kept; about a second old. */
struct ops_store {
    bool on, refuses;
    uint64_t regs, namespaces, profiles, used_bytes, map_bytes;
    uint64_t commits, commits_failed, commit_ns, asks, refused_room;
};

/* Sums over all shards plus what only control knows, live at the call. */
struct ops_status {
    uint64_t uptime_ms;
    struct peer_id relay;
    unsigned shards;
    bool draining, ready;
    uint64_t drain_left_ms;
    uint32_t peers_reserved;    /* distinct peers with a reservation */
    uint32_t peers_in_circuits; /* distinct peers, approximated from above when > 10 000 */
    uint32_t peers_connected;
    uint32_t peer_relays, peer_relays_connected; /* that we dial */
    uint32_t dig_registered, dig_networks;
    char dig_address[NETADDR_TEXT_MAX]; /* as bound; empty: that door is closed */
    struct stats sum;                   /* all shards added up */
    struct ops_store store;
    size_t chunk_bytes_max;
    const struct config *config;
    char addresses[8][160]; /* printable listen and announced multiaddrs with /p2p */
    unsigned addresses_n;
    char turn_addresses[LISTENERS_MAX][NETADDR_TEXT_MAX]; /* as bound */
    unsigned turn_addresses_n;
};

/* What a client of TURN needs for a limited time (turn.md §8.3), and where. */
enum { OPS_CRED_NAME_MAX = 128, OPS_CRED_URIS = 24, OPS_CRED_TTL_MAX = 31536000 };
struct ops_cred {
    char username[OPS_CRED_NAME_MAX + 24]; /* EXPIRY:NAME, or EXPIRY */
    char password[48];
    uint32_t ttl_s;
    char uris[OPS_CRED_URIS][320];
    unsigned uris_n;
};

struct ops {
    void *ctx;
    void (*status)(void *ctx, struct ops_status *out);
    /* Starts a listing: `page` is called on control's thread with each filled page, the last one
     * with end set, then never again; a cancelled listing is not called any more. 0 or -EBUSY when
     * OPS_LISTINGS_MAX are under way. */
    int (*list)(void *ctx, enum snap_kind kind, uint32_t owner_id,
                void (*page)(void *arg, uint32_t owner_id, const struct snap *s), void *arg);
    /* After a page without end the listing rests until list_more (which may be called from inside
     * `page`), so that a slow reader never makes anybody hold more than one page. NULL: pages come
     * as they may, and a reader that falls behind loses its listing. */
    void (*list_more)(void *ctx, uint32_t owner_id);
    void (*list_cancel)(void *ctx, uint32_t owner_id);
    void (*drain)(void *ctx, uint32_t seconds);
    int (*reload)(void *ctx, char *why, size_t cap); /* 0, or -errno and a line */
    /* name: "" for none. 0, or -errno and a line. The caller wipes *out. */
    int (*turn_credentials)(void *ctx, const char *name, uint32_t ttl_s, struct ops_cred *out,
                            char *why, size_t cap);
    struct log *log; /* for log-level */
};

/* The HTTP and admin doors as one object on control's ring. user_data operations of its completions
 * are OPS_OP_FIRST.. OPS_OP_LAST; control hands them over. */
enum { OPS_OP_FIRST = 0x80, OPS_OP_LAST = 0x9f };
struct opsdoor;
/* Binds both (a closed door is skipped), and the redirecting one, without which it goes on with a
 * warning (presets.md). NULL: *err = -errno and `why` names address and cause. */
struct opsdoor *opsdoor_new(struct ring *r, const struct ops *ops, const struct config *c,
                            struct logq *log, int *err, char *why, size_t cap);
/* When the ring completes nothing any more. */
void opsdoor_free(struct opsdoor *d);
void opsdoor_on_cqe(struct opsdoor *d, const struct ring_cqe *cqe, uint64_t now_ms);
void opsdoor_tick(struct opsdoor *d, uint64_t now_ms); /* deadlines; call at least each second */
bool opsdoor_http_bound(const struct opsdoor *d, struct netaddr *at);
bool opsdoor_redirect_bound(const struct opsdoor *d, struct netaddr *at); /* false: closed, busy */

#endif
