#include "engine/daemon.h"

#include <errno.h>

#include "engine/rng.h"
#include "engine/rpc.h"
#include "engine/stream.h"
#include "engine/svc_gossip.h"
#include "proto/ident.h"

enum { TURN_METERS = 131072 }; /* sources that were answered within the last second, and users */

/* Addresses as they are told to peers; checked once that a reservation with all of them fits. */
static int daemon_addresses(struct daemon *d)
{
    const struct config *cfg = d->cfg;

    for (unsigned i = 0; i < cfg->announce_n; i++) {
        d->announce[i] = cfg->announce[i];
        d->announce_p2p[i] = cfg->announce[i];
        if (!maddr_append_p2p(&d->announce_p2p[i], &d->me.id))
            return -EINVAL;
    }
    d->announce_n = cfg->announce_n;
    return 0;
}

void daemon_offer(struct daemon *d, const char *protocol, int svc)
{
    unsigned n = 0;

    while (d->protocols[n].name)
        n++;
    ASSERT(n < PROTOCOLS_MAX);
    d->protocols[n] = (struct mss_proto){ protocol, svc };
    d->ident_protocols[n] = protocol;
}

int daemon_init(struct daemon *d, const struct config *cfg, const struct identity *me,
                struct log *log, unsigned shards_n)
{
    uint8_t key[16], noise_sk[32];
    uint32_t relayed = cfg->turn_on ? 2u * (cfg->turn_port_hi - cfg->turn_port_lo + 1u) : 0;
    uint32_t keys = cfg->conns_max * 3 + cfg->circuits_max * 2 + relayed * 2 + 64;

    memset(d, 0, sizeof(*d));
    d->cfg = cfg;
    atomic_store_explicit(&d->acl, cfg->acl, memory_order_relaxed);
    d->me = *me;
    d->log = log;
    d->shards_n = shards_n;
    rng_bytes(noise_sk, sizeof(noise_sk));
    noise_ident_init(&d->noise, &d->me, noise_sk);
    crypto_wipe(noise_sk, sizeof(noise_sk));
    rng_bytes(key, sizeof(key));
    d->quota = quota_new(keys, 65536, key);
    if (d->quota && cfg->turn_on && quota_meters(d->quota, TURN_METERS)) {
        daemon_fini(d);
        return -ENOMEM;
    }
    rng_bytes(key, sizeof(key));
    d->homes = homes_new(cfg->hop.reservations_max, key);
    if (!d->quota || !d->homes) {
        daemon_fini(d);
        return -ENOMEM;
    }
    d->key_conns = quota_key(d->quota, QUOTA_CONN_TOTAL, bytes_of(NULL, 0));
    d->key_circuits = quota_key(d->quota, QUOTA_CIRCUIT_TOTAL, bytes_of(NULL, 0));
    daemon_offer(d, HOP_PROTOCOL, SVC_HOP);
    daemon_offer(d, IDENT_PROTOCOL, SVC_IDENT);
    daemon_offer(d, IDENT_PUSH_PROTOCOL, SVC_PUSH);
    daemon_offer(d, PING_PROTOCOL, SVC_PING);
    d->rpc_pool.max = RPC_POOL_BYTES_MAX;
    return daemon_addresses(d);
}

void daemon_fini(struct daemon *d)
{
    gossip_host_free(d);
    quota_free(d->quota);
    homes_free(d->homes);
    identity_wipe(&d->me);
    crypto_wipe(&d->noise, sizeof(d->noise));
    d->quota = NULL;
    d->homes = NULL;
}
