/* What relays tell each other by gossip (dusk.md §10.4). On dusk/relay/federation anybody may
 * publish, and all that comes of it is a line of the log. Records come by a topic of our own, and
 * only those are believed whose message was signed by a relay that the operator named, and that
 * were signed by the very peer that they speak of. They are not announced again, so there is no
 * loop: each relay tells of its own clients only. */
#include "engine/printable.h"
#include "engine/quota.h"
#include "engine/svc_gossip_int.h"
#include "proto/varint.h"

bool gossip_is_relay(const struct gossip_host *h, const struct peer_id *id)
{
    for (unsigned i = 0; i < h->relays_n; i++)
        if (peer_id_eq(&h->relay[i], id))
            return true;
    return false;
}

static void say(struct gossip_shard *gs, const struct gossip_fed *r)
{
    char ns[192], peer[PEER_TEXT_MAX], source[PEER_TEXT_MAX];

    if (!gcra_step(&gs->say_tat_ms, gs->s->now_ms, GOSSIP_SAY_BURST, GOSSIP_SAY_MS)) {
        gs->unsaid++;
        return;
    }
    if (gs->unsaid)
        log_text(gs->s->log, LOG_INFO, "federation: %llu more were not logged",
                 (unsigned long long)gs->unsaid);
    gs->unsaid = 0;
    printable(r->ns, ns, sizeof(ns)); /* a stranger's text */
    peer_id_text(&r->peer, peer);
    peer_id_text(&r->source, source);
    log_text(gs->s->log, LOG_INFO, "federation: %s registered in %s at relay %s", peer, ns, source);
}

void gossip_fed_heard(struct gossip_shard *gs, const struct gossip_take *t,
                      const struct gossip_msg *m)
{
    struct shard *s = gs->s;
    struct gossip_fed r;

    if (t->topic < GOSSIP_FEDERATION || s->id != GOSSIP_FED_SHARD ||
        peer_id_eq(&t->author, &s->d->me.id))
        return;
    if (!gossip_fed_parse(m->data, gs->fed_pool, &r)) {
        STAT_INC(&s->stats, gossip_fed_bad);
        return;
    }
    if (peer_id_eq(&r.source, &s->d->me.id)) /* the loop guard of §10.4 */
        return;
    STAT_INC(&s->stats, gossip_fed_heard);
    if (t->topic == GOSSIP_FEDERATION) {
        say(gs, &r);
        return;
    }
    if (!gs->host->foreign || !t->trusted || !peer_id_eq(&r.source, &t->author))
        return;
    if (!gcra_step(&gs->foreign_tat_ms, s->now_ms, GOSSIP_FOREIGN_BURST, GOSSIP_FOREIGN_MS) ||
        !gossip_fed_verify(&r)) {
        STAT_INC(&s->stats, gossip_fed_bad);
        return;
    }
    STAT_INC(&s->stats, gossip_fed_taken);
    gs->host->foreign(s, &r);
}

void gossip_fed_mailed(struct gossip_shard *gs, const struct gossip_take *t, struct bytes wire)
{
    struct cur c = cur_of(wire);
    struct gossip_walk walk;
    struct gossip_item item;
    struct gossip_msg m;
    struct peer_id author;

    if (t->topic < GOSSIP_FEDERATION || gs->s->id != GOSSIP_FED_SHARD)
        return;
    gossip_walk_start(&walk, cur_lp(&c));
    if (gossip_walk_next(&walk, &item) && gossip_msg_decode(item.body, &m, &author))
        gossip_fed_heard(gs, t, &m);
}

static void publish_own(struct gossip_shard *gs, enum gossip_topic topic,
                        const struct gossip_fed *r)
{
    struct shard *s = gs->s;
    struct gossip_host *h = gs->host;
    struct gossip_take t = { .topic = topic, .author = s->d->me.id, .trusted = true };
    struct wcur w = wcur_of(gs->join, GOSSIP_WIRE_MAX);
    uint8_t *wire;

    if (!atomic_load_explicit(&h->subs[topic], memory_order_relaxed)) {
        STAT_INC(&s->stats, gossip_own_unheard); /* the original's "no subscriber" */
        return;
    }
    gossip_fed_put(&w, r);
    if (w.bad)
        return;
    const struct gossip_msg m = { .data = bytes_of(gs->join, w.wrote) };

    t.id = gossip_msg_id(&m, &t.author);
    if (!gossip_hub_own(&gs->hub, s->now_ms, &t, w.wrote))
        return; /* said within a minute, or too much at once: counted */
    struct wcur out = wcur_of(gs->wire, GOSSIP_WIRE_MAX);

    gossip_put_own(&out, &s->d->me, bytes_str(gossip_topic_name[topic]),
                   atomic_fetch_add_explicit(&h->seqno, 1, memory_order_relaxed), m.data, gs->sign);
    struct shared *mem = out.bad ? NULL : gossip_letter_new(gs, out.wrote, &wire);

    if (!mem) {
        gossip_hub_refuse(&gs->hub, GOSSIP_MEMORY);
        return;
    }
    memcpy(wire, gs->wire, out.wrote);
    gossip_letter_of(mem)->take = t;
    gossip_hub_push(&gs->hub, s->now_ms, NULL, &t, mem, bytes_of(wire, out.wrote));
    gossip_post_all(gs, mem);
    gossip_beat(gs);
    shared_drop(mem);
    STAT_INC(&s->stats, gossip_own);
}

void gossip_announce(struct shard *s, const struct peer_id *peer, struct bytes ns, uint64_t ttl_s,
                     struct bytes envelope)
{
    struct gossip_fed r = { .ns = ns, .ttl_s = ttl_s };

    if (!s->gossip || s->stopping)
        return;
    r.peer = *peer;
    r.source = s->d->me.id;
    publish_own(s->gossip, GOSSIP_FEDERATION, &r);
    r.record = envelope;
    if (envelope.n)
        publish_own(s->gossip, GOSSIP_RECORDS, &r);
}
