/* engine/svc_federation.h: what other relays announce, into our store. */
#ifndef SLUICE_ENGINE_SVC_FEDERATION_H
#define SLUICE_ENGINE_SVC_FEDERATION_H

struct daemon;
struct mnode;
struct shard;

enum {
    FEDERATION_TAG = 1,       /* store_reg.tag: not registered here */
    FEDERATION_OUT_MAX = 256, /* of one shard, with the keeper; what comes beyond is forgotten */
};

/* Believes the relays that the operator named; after gossip_host_new. */
void federation_init(struct daemon *d);
void federation_on_mail(struct shard *s, struct mnode *n);

#endif
