#include "engine/services.h"

#include "engine/rpc.h"
#include "engine/stream.h"
#include "engine/svc_federation.h"
#include "engine/svc_gossip.h"
#include "engine/turn_cred.h"

/* Credentials are those of this TURN server at a host that others can reach, or not offered: a
 * client's call survives `na`, but not a URI that is none (dusk.md §8). */
static void offer_credentials(struct daemon *d)
{
    if (!d->turn || !turn_host_secrets(d->turn).count ||
        !turn_cred_host(d->turn, d->turn_udp, d->turn_n, d->cred_host))
        return;
    d->cred_udp_port = d->turn_udp[0].port;
    d->cred_tcp_port = d->turn_tcp[0].port;
    daemon_offer(d, DUSK_CREDENTIALS_PROTOCOL, SVC_CREDENTIALS);
}

int services_init(struct daemon *d, struct keeper *k, char *why, size_t cap)
{
    const struct config *cfg = d->cfg;
    int err;

    if (!cfg->p2p_n)
        return 0;
    if (cfg->rendezvous_on || cfg->directory_on || cfg->usage_on) {
        if ((err = keeper_init(k, d, why, cap)))
            return err;
        d->keeper = k;
    }
    if (cfg->rendezvous_on)
        daemon_offer(d, RDV_PROTOCOL, SVC_RDV);
    if (cfg->directory_on) {
        daemon_offer(d, DUSK_DIRECTORY_PROTOCOL, SVC_DIRECTORY);
        offer_credentials(d);
    }
    if (cfg->gif_on)
        daemon_offer(d, DUSK_GIF_PROTOCOL, SVC_GIF);
    if (cfg->gossip_on && (err = gossip_host_new(d)))
        return err;
    federation_init(d);
    return 0;
}
