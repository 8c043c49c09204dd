/* engine/svc_gossip.h: the gossip hub on the shards (dusk.md §10): /meshsub/1.1.0 and 1.0.0, one
 * long-lived stream per direction and connection. proto/gossip_hub.h decides who gets what; here
 * are streams, queues' way out under yamux credit, and letters between shards. The shard that
 * received a message verifies it and posts it once to each other shard.
 * Payloads live in a shared buffer each (engine/shared.h), never in the log. */
#ifndef SLUICE_ENGINE_SVC_GOSSIP_H
#define SLUICE_ENGINE_SVC_GOSSIP_H

#include "engine/mbox.h"
#include "engine/stream.h"
#include "proto/gossip_fed.h"

struct daemon;
struct gossip_host;  /* what all shards share; NULL in the daemon: no gossip */
struct gossip_shard; /* one shard's hub */

/* A registration that another relay of ours announced with its signed record, already verified as
 * a REGISTER's would be. Borrows. */
typedef void gossip_foreign_fn(struct shard *s, const struct gossip_fed *reg);

/* Before the shards start; d->gossip. 0 or -errno. */
MUST_USE int gossip_host_new(struct daemon *d);
void gossip_host_free(struct daemon *d);
/* Who stores foreign registrations; on the thread of one shard. Set before the
 * shards start. */
void gossip_on_foreign(struct daemon *d, gossip_foreign_fn *take);
/* Whose records are believed: the relays that the operator named (DUSK_PEER_RELAYS). Before the
 * shards start. */
void gossip_add_relay(struct daemon *d, const struct peer_id *relay);

MUST_USE int gossip_shard_new(struct shard *s);
void gossip_shard_free(struct shard *s);
void gossip_assert_empty(const struct shard *s);

/* After each successful REGISTER, refreshes too (§10.4): published on dusk/relay/federation, and
 * with its record to relays that want it. Costs a signature only if somebody listens. */
void gossip_announce(struct shard *s, const struct peer_id *peer, struct bytes ns, uint64_t ttl_s,
                     struct bytes envelope);

/* ---- called by the layers of a connection; all do nothing where gossip is off ---- */
void svc_gossip_start(struct conn *c); /* the muxer is up: opens our stream */
void svc_gossip_end(struct conn *c);   /* it closes; its streams may be gone or not */
void svc_gossip_room(struct conn *c);  /* something of it was sent */
/* An inbound stream negotiated: it replaces the one before. false: st is gone. */
bool svc_gossip_accept(struct stream *st);
void svc_gossip_data(struct stream *st, struct bytes data);  /* ST_GOSSIP_IN; may free st */
bool svc_gossip_out_feed(struct stream *st, struct cur *in); /* ST_GOSSIP_OUT */
void svc_gossip_credit(struct stream *st);                   /* ST_GOSSIP_OUT */
void svc_gossip_gone(struct stream *st); /* either role: st is about to be freed */
/* A turn's share of verifying and of writing; busy: more is ready, do not wait. */
void gossip_pass(struct shard *s);
bool gossip_busy(const struct shard *s);
void gossip_on_letter(struct shard *s, struct mnode *node);
void gossip_on_timer(struct shard *s);

#endif
