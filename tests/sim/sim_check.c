/* tests/sim/sim_check.c: what must hold between any two turns, seen from outside by walking over
 * everything that lives. The engine's own lists and counters are the claim, the walk is the proof.
 */
#include <stdlib.h>

#include "engine/dig_int.h"
#include "engine/turn_raw_int.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_dig.h"
#include "tests/sim/sim_gossip.h"
#include "tests/sim/sim_turn.h"

enum { TALLY_MAX = 1024 };

/* How what TURN's shards tell each other begins: turn_mail.c. */
struct turn_letter_head {
    struct mnode node;
    struct chunk *chunk;
    int kind;
    uint8_t from, hops;
    int fd;
    struct chunkq late;
};

/* Counts by key, to hold against the quota table. */
struct tally {
    uint64_t key[TALLY_MAX];
    uint32_t count[TALLY_MAX], max[TALLY_MAX];
    const char *what[TALLY_MAX];
    unsigned n;
};

struct census {
    struct sim *s;
    struct tally quota;
    uint32_t chunks[SIM_SHARDS][CHUNK_SIZES];
    uint32_t conns, secured, held, circuits_open, circuits_counted;
    uint32_t reserved;
    struct peer_id reserved_peer[TALLY_MAX];
    uint8_t reserved_ip[TALLY_MAX][16];
    uint32_t peers, peers_in_circuits;
};

static void tally(struct census *x, uint64_t key, uint32_t max, const char *what)
{
    struct tally *t = &x->quota;
    unsigned i = 0;

    while (i < t->n && t->key[i] != key)
        i++;
    if (i == t->n) {
        ASSERT(t->n < TALLY_MAX);
        t->key[i] = key;
        t->count[i] = 0;
        t->max[i] = max;
        t->what[i] = what;
        t->n++;
    }
    t->count[i]++;
}

/* Chunks */

static void count_chunks(struct census *x, const struct chunk *k, size_t *bytes)
{
    for (; k != NULL; k = k->next) {
        for (unsigned i = 0; i < SIM_SHARDS; i++)
            x->chunks[i][k->size] += k->home == &x->s->shard[i].chunks;
        *bytes += k->len;
    }
}

static size_t count_queue(struct census *x, const struct chunkq *q, const char *what)
{
    size_t bytes = 0;

    count_chunks(x, q->first, &bytes);
    if (bytes != q->bytes)
        sim_break(x->s, "%s says %zu bytes and holds %zu", what, q->bytes, bytes);
    return bytes;
}

static void count_letters(struct census *x, const struct mnode *n)
{
    size_t bytes = 0;

    for (; n != NULL; n = n->next) {
        if (n->kind == MAIL_DIG_LETTER)
            count_chunks(x, CONTAINER_OF(n, struct dig_letter, node)->chunk, &bytes);
        if (n->kind == MAIL_TURN) { /* it lies in a chunk, which it names, and may bring others */
            const struct turn_letter_head *l = CONTAINER_OF(n, struct turn_letter_head, node);

            count_chunks(x, l->chunk, &bytes);
            count_queue(x, &l->late, "what a stream brings with it");
        }
    }
}

static void check_chunks(struct census *x)
{
    for (unsigned i = 0; i < SIM_SHARDS; i++) {
        struct chunk_pool *p = &x->s->shard[i].chunks;
        size_t bytes = 0;

        count_chunks(x, atomic_load(&p->returned), &bytes);
        count_letters(x, atomic_load(&x->s->shard[i].mbox.head));
        count_letters(x, x->s->shard[i].kept);
    }
    for (unsigned i = 0; i < SIM_SHARDS; i++)
        for (int size = 0; size < CHUNK_SIZES; size++)
            if (x->chunks[i][size] != x->s->shard[i].chunks.used[size])
                sim_break(x->s, "shard %u: %u chunks of size %d are out, %u can be found", i,
                          x->s->shard[i].chunks.used[size], size, x->chunks[i][size]);
}

/* Streams */

static void check_credit(struct census *x, const struct stream *st)
{
    const struct leg *leg = &st->circuit->leg[st->side];
    uint64_t sum = st->y.recv_credit + (uint64_t)st->consumed + (leg->taken - leg->granted);

    /* What came in after the byte limit was dropped, and its credit with it. */
    if (leg->deaf ? sum > YAMUX_WINDOW : sum != YAMUX_WINDOW)
        sim_break(x->s, "credit of a leg: %u open + %u due + %llu on the way is not the window",
                  st->y.recv_credit, st->consumed, (unsigned long long)(leg->taken - leg->granted));
}

static void check_streams(struct census *x, const struct conn *c)
{
    unsigned by_count[COUNT_STOP + 1] = { 0 }, attached = 0, inbound = 0, runnable = 0;
    size_t n = 0;

    for (const struct link *k = c->streams.first; k != NULL; k = k->next, n++) {
        const struct stream *st = CONTAINER_OF(k, struct stream, link);

        by_count[st->counted]++;
        attached += yamux_attached(&st->y);
        inbound += yamux_attached(&st->y) && (st->y.id & 1) != c->mux.dialer;
        count_queue(x, &st->in, "a stream's input");
        if (st->conn != c || (yamux_attached(&st->y) && st->y.session != &c->mux))
            sim_break(x->s, "a stream of another connection");
        if (st->kind == ST_GOSSIP_IN)
            sim_check_gossip_in(x->s, st);
        else if (st->in.bytes > STREAM_INPUT_MAX)
            sim_break(x->s, "a stream keeps %zu bytes of input", st->in.bytes);
        if (st->y.recv_credit > YAMUX_WINDOW || st->consumed > YAMUX_WINDOW)
            sim_break(x->s, "a window of %u, %u due", st->y.recv_credit, st->consumed);
        if ((st->kind == ST_CIRCUIT || st->kind == ST_STOP) != (st->circuit != NULL))
            sim_break(x->s, "a stream of kind %u %s circuit", st->kind,
                      st->circuit ? "with a" : "without");
        if (st->circuit == NULL)
            continue;
        if (st->circuit->leg[st->side].stream != st)
            sim_break(x->s, "a circuit's leg points elsewhere");
        runnable += st->circuit->leg[st->side].runnable;
        if (st->kind == ST_CIRCUIT)
            check_credit(x, st);
    }
    if (n != c->streams.count || attached != c->mux.streams || inbound != c->mux.inbound)
        sim_break(x->s, "streams: list %zu of %zu, attached %u of %u, inbound %u of %u", n,
                  c->streams.count, attached, c->mux.streams, inbound, c->mux.inbound);
    if (by_count[COUNT_HOP] != c->hop_streams || by_count[COUNT_STOP] != c->stop_streams ||
        by_count[COUNT_PING] != c->ping_streams || by_count[COUNT_IDENT] != c->ident_streams ||
        by_count[COUNT_PUSH] != c->push_streams)
        sim_break(x->s, "places for streams: hop %u of %u, stop %u of %u, ping %u of %u",
                  by_count[COUNT_HOP], c->hop_streams, by_count[COUNT_STOP], c->stop_streams,
                  by_count[COUNT_PING], c->ping_streams);
    if (c->mux.inbound > x->s->cfg.streams_per_conn_max)
        sim_break(x->s, "%u streams on one connection", c->mux.inbound);
    if (runnable != c->runnable.count)
        sim_break(x->s, "%u runnable legs, %zu in the list", runnable, c->runnable.count);
}

/* Connections */

static void check_home(struct census *x, const struct conn *c)
{
    struct home homes[HOMES_PER_PEER];
    size_t n = homes_find(x->s->d.homes, &c->peer, homes);
    bool found = false;

    for (size_t i = 0; i < n; i++)
        found |= homes[i].slot == c->head.idx && homes[i].gen == c->head.gen &&
                 homes[i].shard == c->shard->id;
    if (found != c->resv.slot.reserved)
        sim_break(x->s, found ? "a home without a reservation" : "a reservation without a home");
    if (!c->resv.slot.reserved)
        return;
    if (!c->resv.used)
        sim_break(x->s, "a reservation that its connection does not know of");
    ASSERT(x->reserved < TALLY_MAX);
    x->reserved_peer[x->reserved] = c->peer;
    memcpy(x->reserved_ip[x->reserved++], c->remote.ip, 16);
}

static void check_conn(struct census *x, const struct conn *c)
{
    const struct config *cfg = &x->s->cfg;

    x->conns += c->counted_conn;
    x->secured += c->counted_peer;
    x->held += c->resv.held;
    if (c->counted_conn)
        tally(x, x->s->d.key_conns, cfg->conns_max, "connections");
    if (c->counted_ip) {
        tally(x, c->key_ip, cfg->conns_per_ip_max, "connections of an address");
        tally(x, c->key_subnet, cfg->conns_per_subnet_max, "connections of a subnet");
    }
    if (c->counted_peer)
        tally(x, c->key_peer, cfg->conns_per_peer_max, "connections of a peer");
    count_queue(x, &c->in, "a connection's input");
    count_queue(x, &c->ctl, "its control frames");
    count_queue(x, &c->tx, "its egress");
    if (c->in.bytes > INPUT_MAX || c->ctl.bytes > CTL_MAX ||
        c->tx.bytes > TX_HIGH + CTL_MAX + 4 * RECORD_SEALED_MAX)
        sim_break(x->s, "a connection holds %zu in, %zu control, %zu out", c->in.bytes,
                  c->ctl.bytes, c->tx.bytes);
    if (c->ops != c->recv_armed + c->send_armed + c->cancel_armed)
        sim_break(x->s, "%u operations in flight, receive %d, send %d", c->ops, c->recv_armed,
                  c->send_armed);
    if (c->state != CONN_CLOSED && !c->recv_armed && !c->dry)
        sim_break(x->s, "a connection in state %u that nobody reads", c->state);
    if (c->state == CONN_CLOSED && (c->dirty || c->dry || c->streams.count))
        sim_break(x->s, "a closed connection with work");
    if (c->state < CONN_CLOSED && !timer_armed(&c->timer))
        sim_break(x->s, "a connection in state %u without a deadline", c->state);
    if (c->state < CONN_CLOSED && c->tx.bytes > 0 && !c->send_armed && !c->dirty)
        sim_break(x->s, "bytes to send that nobody sends");
    check_streams(x, c);
    if (c->peer.n > 0)
        check_home(x, c);
}

/* Circuits */

static void check_direction(struct census *x, const struct circuit *c, unsigned from)
{
    const struct leg *in = &c->leg[from], *out = &c->leg[1 - from];
    size_t queued = count_queue(x, &out->q, "a leg's queue");

    count_chunks(x, atomic_load(&out->inbox), &queued);
    count_chunks(x, in->stage, &queued);
    if (from == 0)
        queued += count_queue(x, &c->early, "early bytes");
    if (queued > YAMUX_WINDOW)
        sim_break(x->s, "%zu bytes wait in one direction of a circuit", queued);
    /* Nothing may be lost while the leg that sends lives. */
    if (!out->done && !in->done && in->taken != atomic_load(&out->drained) + queued)
        sim_break(x->s, "a circuit took %llu bytes, passed on %llu and holds %zu",
                  (unsigned long long)in->taken, (unsigned long long)atomic_load(&out->drained),
                  queued);
    if (in->granted > atomic_load(&out->drained))
        sim_break(x->s, "credit for bytes that have not gone on");
    if (c->limit.present && c->limit.data_bytes > 0 &&
        atomic_load(&out->drained) > c->limit.data_bytes)
        sim_break(x->s, "%llu bytes through a limit of %llu",
                  (unsigned long long)atomic_load(&out->drained),
                  (unsigned long long)c->limit.data_bytes);
}

static void check_circuit(struct census *x, const struct circuit *c)
{
    const struct config *cfg = &x->s->cfg;
    uint64_t through = atomic_load(&c->leg[0].drained) + atomic_load(&c->leg[1].drained);

    /* Of those that make room for others, the last may still be on their way out. */
    uint32_t per_peer = cfg->circuits_per_peer_max << (cfg->circuits_full == FULL_SHED);

    if (c->counted) {
        x->circuits_counted++;
        tally(x, x->s->d.key_circuits, cfg->circuits_max, "circuits");
        tally(x, c->key_source, per_peer, "circuits of a peer");
        tally(x, c->key_target, per_peer, "circuits of a peer");
    }
    x->circuits_open += c->opened;
    check_direction(x, c, 0);
    check_direction(x, c, 1);
    if (cfg->byte_count == COUNT_SUM && c->limit.present && c->limit.data_bytes > 0 &&
        through > c->limit.data_bytes)
        sim_break(x->s, "%llu bytes through a limit of %llu in sum", (unsigned long long)through,
                  (unsigned long long)c->limit.data_bytes);
    for (unsigned i = 0; i < 2; i++) {
        const struct leg *leg = &c->leg[i];

        if (leg->done && (leg->stream || leg->runnable || leg->staged || leg->stage))
            sim_break(x->s, "leg %u is over and still holds something", i);
        if (leg->stream != NULL && leg->stream->circuit != c)
            sim_break(x->s, "leg %u has somebody else's stream", i);
        if (leg->stream != NULL && leg->ready && leg->q.bytes > 0 &&
            leg->stream->y.send_credit > 0 && !leg->runnable)
            sim_break(x->s, "leg %u has bytes and credit and is not runnable", i);
    }
    if (!timer_armed(&c->timer))
        sim_break(x->s, "a circuit without a deadline");
}

/* Across shards */

static void check_quota(struct census *x)
{
    const struct tally *t = &x->quota;
    const struct quota *q = x->s->d.quota;

    for (unsigned i = 0; i < t->n; i++) {
        if (quota_count(q, t->key[i]) != t->count[i])
            sim_break(x->s, "%s: %u counted, %u there are", t->what[i], quota_count(q, t->key[i]),
                      t->count[i]);
        if (t->max[i] > 0 && t->count[i] > t->max[i])
            sim_break(x->s, "%s: %u, allowed are %u", t->what[i], t->count[i], t->max[i]);
        x->peers += strcmp(t->what[i], "connections of a peer") == 0;
        x->peers_in_circuits += strcmp(t->what[i], "circuits of a peer") == 0;
    }
    if (quota_live(q) != t->n + x->s->turn_keys)
        sim_break(x->s, "%zu keys are counted, %u have an owner", quota_live(q),
                  t->n + x->s->turn_keys);
    if (atomic_load(&x->s->d.peers_connected) != x->peers ||
        atomic_load(&x->s->d.peers_in_circuits) != x->peers_in_circuits)
        sim_break(x->s, "peers: %u connected of %u, %u in circuits of %u",
                  atomic_load(&x->s->d.peers_connected), x->peers,
                  atomic_load(&x->s->d.peers_in_circuits), x->peers_in_circuits);
}

static void check_reservations(struct census *x)
{
    const struct hop_limits *max = &x->s->cfg.hop;
    const struct hop *h = &x->s->control.hop;
    uint32_t peers = 0;

    for (uint32_t i = 0; i < x->reserved; i++) {
        uint32_t same_peer = 0, same_ip = 0;
        bool first = true;

        for (uint32_t k = 0; k < x->reserved; k++) {
            bool same = peer_id_eq(&x->reserved_peer[i], &x->reserved_peer[k]);

            same_peer += same;
            same_ip += memcmp(x->reserved_ip[i], x->reserved_ip[k], 16) == 0;
            first = first && !(same && k < i);
        }
        peers += first;
        if (max->per_peer_max > 0 && same_peer > max->per_peer_max)
            sim_break(x->s, "%u reservations of one peer", same_peer);
        if (max->per_ip_max > 0 && same_ip > max->per_ip_max)
            sim_break(x->s, "%u reservations of one address", same_ip);
    }
    if (x->reserved != h->by_expiry.count || x->reserved > max->reservations_max)
        sim_break(x->s, "reservations: %zu in the list, %u there are, %u allowed",
                  h->by_expiry.count, x->reserved, max->reservations_max);
    if (homes_peers(x->s->d.homes) != peers || h->peers != peers)
        sim_break(x->s, "peers with a reservation: homes %u, hop %u, there are %u",
                  homes_peers(x->s->d.homes), h->peers, peers);
    /* Control expires at its next turn, and it may be late for one or two. */
    for (const struct link *k = h->by_expiry.first; k != NULL && k->next != NULL; k = k->next)
        if (CONTAINER_OF(k, struct hop_slot, by_expiry)->expires_ms >
            CONTAINER_OF(k->next, struct hop_slot, by_expiry)->expires_ms)
            sim_break(x->s, "reservations out of order");
}

static void check_gauges(const struct census *x)
{
    uint64_t resv = 0, circuits = 0, secured = 0;

    for (unsigned i = 0; i < SIM_SHARDS; i++) {
        resv += STAT_GET(&x->s->shard[i].stats, reservations);
        circuits += STAT_GET(&x->s->shard[i].stats, circuits);
        secured += STAT_GET(&x->s->shard[i].stats, conns_secured);
    }
    if (resv != x->held || circuits != x->circuits_open || secured != x->secured)
        sim_break(x->s, "gauges: %llu reservations of %u, %llu circuits of %u, %llu peers of %u",
                  (unsigned long long)resv, x->held, (unsigned long long)circuits, x->circuits_open,
                  (unsigned long long)secured, x->secured);
}

/* TURN's clients on TCP, and their data connections. What is queued to be sent. */
static size_t check_turn_streams(struct census *x, const struct turn_shard *ts)
{
    const struct turn_stream *st;
    const struct turn_raw *raw;
    uint32_t at = 0;
    size_t bytes = 0, queued = 0;

    while ((st = slab_walk(&ts->streams->slab, &at)) != NULL) {
        queued += count_queue(x, &st->tx, "what a client is sent");
        count_queue(x, &st->late, "what a client sent too early");
        count_chunks(x, st->part.chunk, &bytes);
        tally(x, x->s->d.key_conns, x->s->cfg.conns_max, "connections");
        if (st->counted_ip)
            tally(x, st->key_ip, x->s->cfg.conns_per_ip_max, "connections of an address");
        if (st->state < STREAM_CLOSED && !st->recv_armed && !st->dry && !st->paused &&
            st->state != STREAM_LEAVE)
            sim_break(x->s, "a client's stream that nobody reads");
    }
    at = 0;
    while ((raw = slab_walk(&ts->raws->slab, &at)) != NULL) {
        count_queue(x, &raw->late, "what came behind a ConnectionBind");
        if (raw->side[RAW_CLIENT].fd >= 0)
            tally(x, x->s->d.key_conns, x->s->cfg.conns_max, "connections");
        if (raw->key_ip != 0)
            tally(x, raw->key_ip, x->s->cfg.conns_per_ip_max, "connections of an address");
    }
    return queued;
}

/* DIG's connections; sim_check_dig.c has what is DIG's alone. What is queued to be sent. */
static size_t check_dig_conns(struct census *x, const struct dig_shard *ds)
{
    const struct dig_host *h = x->s->d.dig;
    const struct dig_conn *c;
    uint32_t at = 0;
    size_t bytes = 0, queued = 0;

    while ((c = slab_walk(&ds->slab, &at)) != NULL) {
        tally(x, h->key_conns, x->s->cfg.dig_conns_max, "DIG connections");
        if (c->counted_ip)
            tally(x, c->key_ip, x->s->cfg.dig_conns_per_ip_max, "DIG connections of an address");
        count_queue(x, &c->part, "a message that is not whole");
        count_queue(x, &c->late, "what came while a client waits");
        count_queue(x, &c->held, "a message that is held back");
        count_queue(x, &c->wire, "ciphertext");
        if (c->asking && c->ask.kind == DIG_ASK_DHT)
            count_queue(x, &c->ask.u.dht.records, "records on their way");
        for (const struct dig_out *o = c->tx.first; o != NULL; o = o->next)
            if (o->chunk != NULL) {
                ASSERT(o->chunk->next == NULL);
                count_chunks(x, o->chunk, &bytes);
            }
        queued += c->tx.bytes;
    }
    return queued;
}

static void check_shard(struct census *x, const struct shard *sh)
{
    size_t dirty = 0, dry = 0, closed = 0, streams = 0, hs = 0, staged = 0, sending = 0;
    size_t halves = 0, half_chunks = 0, tx_queued = 0, parts = 0;
    uint32_t cursor = 0;
    const struct circuit *circuit;
    const struct stream *stream;
    const struct conn *c;

    while ((c = slab_walk(&sh->conns, &cursor)) != NULL) {
        check_conn(x, c);
        dirty += c->dirty;
        dry += c->dry;
        closed += c->state == CONN_CLOSED;
        sending += c->send_armed;
        halves += c->half;
        half_chunks += c->half_chunks[CHUNK_SMALL] + c->half_chunks[CHUNK_LARGE];
        tx_queued += c->tx.bytes;
        streams += c->streams.count;
        hs += c->hs != NULL;
    }
    if (sh->turn != NULL)
        tx_queued += check_turn_streams(x, sh->turn);
    if (sh->dig != NULL)
        tx_queued += check_dig_conns(x, sh->dig);
    cursor = 0;
    for (uint32_t at = 0; (stream = slab_walk(&sh->streams, &at));)
        parts += stream->in.bytes > 0 && stream->kind != ST_GOSSIP_IN;
    while ((circuit = slab_walk(&sh->circuits, &cursor)) != NULL)
        check_circuit(x, circuit);
    for (const struct link *k = sh->staged.first; k != NULL; k = k->next)
        staged++;
    for (unsigned i = 0; i < sh->listeners_n; i++)
        if (!sh->draining && !sh->listener[i].armed && !timer_armed(&sh->listener[i].timer))
            sim_break(x->s, "shard %u accepts nobody any more", sh->id);
    if (dirty != sh->dirty.count || dry != sh->dry.count || closed != sh->closed.count)
        sim_break(x->s, "shard %u: dirty %zu of %zu, dry %zu of %zu, closed %zu of %zu", sh->id,
                  sh->dirty.count, dirty, sh->dry.count, dry, sh->closed.count, closed);
    if (sending != sh->sending.count || halves != sh->halves.count || parts != sh->parts.count ||
        half_chunks != sh->half_chunks[CHUNK_SMALL] + sh->half_chunks[CHUNK_LARGE] ||
        tx_queued != STAT_GET(&sh->stats, tx_queued))
        sim_break(x->s,
                  "shard %u: sending %zu of %zu, halves %zu of %zu, %zu of %zu chunks, %zu out",
                  sh->id, sh->sending.count, sending, sh->halves.count, halves,
                  (size_t)(sh->half_chunks[CHUNK_SMALL] + sh->half_chunks[CHUNK_LARGE]),
                  half_chunks, tx_queued);
    if (streams != sh->streams.live || hs != sh->handshakes.live)
        sim_break(x->s, "shard %u: %u streams of %zu, %u handshakes of %zu", sh->id,
                  sh->streams.live, streams, sh->handshakes.live, hs);
    if (staged != 0 || sh->run.sink != NULL || sh->travel != NULL)
        sim_break(x->s, "shard %u ends a turn with something in its hands", sh->id);
}

void sim_check_full(struct sim *s)
{
    static struct census x;

    memset(&x.chunks, 0, sizeof(x.chunks));
    x.s = s;
    x.quota.n = 0;
    x.conns = x.secured = x.held = x.circuits_open = x.circuits_counted = x.reserved = 0;
    x.peers = x.peers_in_circuits = 0;
    for (unsigned i = 0; i < SIM_SHARDS; i++)
        check_shard(&x, &s->shard[i]);
    check_chunks(&x);
    if (s->d.turn != NULL)
        sim_check_turn(s);
    if (s->d.dig != NULL)
        sim_check_dig(s);
    if (s->d.gossip != NULL)
        sim_check_gossip(s);
    check_quota(&x);
    check_reservations(&x);
    check_gauges(&x);
}

void sim_check_cheap(struct sim *s)
{
    const struct hop *h = &s->control.hop;
    const struct hop_slot *first =
        h->by_expiry.first ? CONTAINER_OF(h->by_expiry.first, struct hop_slot, by_expiry) : NULL;

    if (s->shard[0].conns.live + s->shard[1].conns.live > s->cfg.conns_max)
        sim_break(s, "%u connections", s->shard[0].conns.live + s->shard[1].conns.live);
    if (quota_count(s->d.quota, s->d.key_circuits) > s->cfg.circuits_max)
        sim_break(s, "%u circuits", quota_count(s->d.quota, s->d.key_circuits));
    if (h->by_expiry.count > s->cfg.hop.reservations_max)
        sim_break(s, "%zu reservations", h->by_expiry.count);
    if (first != NULL && first->expires_ms <= s->control.now_ms)
        sim_break(s, "a reservation outlives its time");
}

void sim_check_ended(struct sim *s)
{
    sim_check_full(s);
    if (s->d.turn != NULL)
        sim_check_turn_ended(s);
    if (s->d.dig != NULL)
        sim_check_dig_ended(s);
    for (unsigned i = 0; i < SIM_SHARDS; i++) {
        struct shard *sh = &s->shard[i];

        chunk_drain(&sh->chunks);
        if (sh->conns.live || sh->streams.live || sh->circuits.live || sh->handshakes.live)
            sim_break(s, "shard %u ended with %u connections, %u streams, %u circuits", i,
                      sh->conns.live, sh->streams.live, sh->circuits.live);
        if (sh->chunks.used[0] || sh->chunks.used[1])
            sim_break(s, "shard %u ended with %u and %u chunks out", i, sh->chunks.used[0],
                      sh->chunks.used[1]);
    }
    if (quota_live(s->d.quota) != 0)
        sim_break(s, "%zu counts are left", quota_live(s->d.quota));
    if (homes_peers(s->d.homes) != 0 || s->control.hop.by_expiry.count != 0)
        sim_break(s, "%u homes, %zu reservations are left", homes_peers(s->d.homes),
                  s->control.hop.by_expiry.count);
    if (sim_net_check(s->net) != NULL)
        sim_break(s, "%s", sim_net_check(s->net));
    if (sim_why(s) == NULL)
        for (unsigned i = 0; i < SIM_SHARDS; i++)
            shard_assert_empty(&s->shard[i]);
}
