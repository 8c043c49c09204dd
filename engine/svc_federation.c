/* Registrations that another relay of ours announced, kept as a REGISTER's are, so that DISCOVER
 * finds them here too (dusk.md §10.4). They were verified; the peer's signature is what makes them
 * worth as much as one of its own words. */
#include "engine/svc_federation.h"
#include "engine/rpc.h"
#include "engine/shard.h"
#include "engine/svc_gossip.h"

/* Lives in the data of its `self`. */
struct foreign {
    struct keep_ask ask; /* comes back by MAIL_FOREIGN */
    struct shared *self;
    struct peer_id peer;
    uint64_t ttl_s, record_seq;
    uint32_t ns_n, record_n;
    uint8_t bytes[]; /* namespace, envelope */
};

static bool foreign_run(struct keep_ask *a, struct keeper *k)
{
    const struct foreign *f = CONTAINER_OF(a, struct foreign, ask);
    const struct store_reg reg = {
        .peer = f->peer,
        .ns = bytes_of(f->bytes, f->ns_n),
        .envelope = bytes_of(f->bytes + f->ns_n, f->record_n),
        .record_seq = f->record_seq,
        .ttl_s = (uint32_t)f->ttl_s,
        .tag = FEDERATION_TAG,
        .expires_unix_s = k->now_unix_s + f->ttl_s,
    };

    return keeper_begin(k) && store_reg_put(k->store, &reg, NULL) == STORE_OK;
}

static void foreign_failed(struct keep_ask *a, struct keeper *k)
{
    (void)a; /* it comes again with the peer's next refresh, in two minutes */
    (void)k;
}

static void foreign_take(struct shard *s, const struct gossip_fed *reg)
{
    /* As if the peer had come here: what would be refused from itself, another relay's word makes
     * no better, and a record that its readers cannot read would cost them all the others. */
    const struct rdv_msg m = { .type = RDV_REGISTER,
                               .has_ns = true,
                               .has_ttl = true,
                               .ns = reg->ns,
                               .ttl_s = reg->ttl_s,
                               .record = reg->record };
    struct rdv_register own;
    struct shared *self;
    struct foreign *f;

    if (s->foreign_out >= FEDERATION_OUT_MAX ||
        rdv_check_register(&s->d->cfg->rdv, &m, &reg->peer, &own) != RDV_OK ||
        !(self = shared_new(&s->d->rpc_pool, sizeof(*f) + reg->ns.n + reg->record.n))) {
        STAT_INC(&s->stats, federation_refused);
        return;
    }
    f = (struct foreign *)(void *)self->data;
    *f = (struct foreign){ .self = self,
                           .peer = reg->peer,
                           .ttl_s = own.ttl_s,
                           .record_seq = own.seq,
                           .ns_n = (uint32_t)reg->ns.n,
                           .record_n = (uint32_t)reg->record.n };
    memcpy(f->bytes, reg->ns.p, reg->ns.n);
    memcpy(f->bytes + reg->ns.n, reg->record.p, reg->record.n);
    f->ask = (struct keep_ask){
        .node.kind = MAIL_FOREIGN, .shard = s, .run = foreign_run, .failed = foreign_failed
    };
    s->foreign_out++;
    STAT_INC(&s->stats, federation_taken);
    keeper_ask(s, &f->ask);
}

void federation_on_mail(struct shard *s, struct mnode *n)
{
    struct foreign *f = CONTAINER_OF(n, struct foreign, ask.node);

    ASSERT(s->foreign_out > 0);
    s->foreign_out--;
    shared_drop(f->self);
}

void federation_init(struct daemon *d)
{
    const struct config *cfg = d->cfg;
    struct peer_id relay;

    if (!d->keeper || !cfg->rendezvous_on || !cfg->gossip_on)
        return;
    for (unsigned i = 0; i < cfg->peer_relays_n; i++)
        if (maddr_p2p(maddr_bytes(&cfg->peer_relay[i]), &relay))
            gossip_add_relay(d, &relay);
    gossip_on_foreign(d, foreign_take);
}
