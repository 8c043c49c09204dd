/* engine/daemon.h: what all threads share. Built before the threads start, const afterwards unless
 * it says atomic. main.c builds one from the kernel's rings, the simulation from its own. */
#ifndef SLUICE_ENGINE_DAEMON_H
#define SLUICE_ENGINE_DAEMON_H

#include <stdatomic.h>

#include "engine/config.h"
#include "engine/homes.h"
#include "engine/limits.h"
#include "engine/log.h"
#include "engine/quota.h"
#include "engine/shared.h"
#include "proto/mss.h"
#include "proto/noise.h"

enum { PROTOCOLS_MAX = 16 };

struct shard;
struct control;
struct turn_host;
struct dig_host;
struct dial_host;
struct gossip_host;
struct gif;
struct keeper;

struct daemon {
    const struct config *cfg; /* keeps */
    struct identity me;
    struct noise_ident noise;
    struct homes *homes;
    struct quota *quota;
    struct log *log;
    struct shard *shard[SHARDS_MAX];
    unsigned shards_n;
    struct control *control;
    struct turn_host *turn;          /* NULL: that door is closed */
    struct dig_host *dig;            /* likewise */
    struct gossip_host *gossip;      /* NULL: no gossip */
    struct dial_host *dial;          /* NULL: nobody is dialled */
    struct keeper *keeper;           /* NULL: nothing is kept, and what needs it not offered */
    struct gif *gif;                 /* NULL: its answers are empty */
    struct shared_pool rpc_pool;     /* of requests and their answers */
    char cred_host[CONFIG_TEXT_MAX]; /* of TURN URIs; "": credentials are not offered */
    uint16_t cred_udp_port, cred_tcp_port;
    uint64_t key_conns, key_circuits; /* quota keys of the totals */
    _Atomic(const struct acl *) acl;  /* a reload replaces it; valid for the rest of the turn */
    _Atomic bool draining;
    _Atomic uint32_t shards_empty;                       /* of those that stop */
    _Atomic uint32_t peers_connected, peers_in_circuits; /* distinct */
    _Atomic uint64_t circuit_ids;
    struct maddr announce[CONFIG_ANNOUNCE_MAX];     /* as configured */
    struct maddr announce_p2p[CONFIG_ANNOUNCE_MAX]; /* with /p2p/<relay> */
    unsigned announce_n;
    struct netaddr bound[LISTENERS_MAX]; /* the libp2p door; set before the threads start */
    unsigned bound_n;
    struct netaddr turn_udp[LISTENERS_MAX], turn_tcp[LISTENERS_MAX]; /* likewise, of TURN */
    unsigned turn_n;
    struct netaddr dig_bound; /* set before the threads start */
    /* What streams are offered, by enum svc_id, and what identify lists (hop first: it is left out
     * while draining); both end with NULL. */
    struct mss_proto protocols[PROTOCOLS_MAX + 1];
    const char *ident_protocols[PROTOCOLS_MAX + 1];
};

static inline const struct acl *daemon_acl(const struct daemon *d)
{
    return atomic_load_explicit(&d->acl, memory_order_acquire);
}

/* Tables, keys and addresses; not the shards. 0 or -errno. The identity is copied. */
MUST_USE int daemon_init(struct daemon *d, const struct config *cfg, const struct identity *me,
                         struct log *log, unsigned shards_n);
/* Offers one more protocol at the libp2p door; before the threads start. */
void daemon_offer(struct daemon *d, const char *protocol, int svc);
void daemon_fini(struct daemon *d);

#endif
