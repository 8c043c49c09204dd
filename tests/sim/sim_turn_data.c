/* tests/sim/sim_turn_data.c: what TURN carries, and the proofs that it got where it belongs. */
#include "tests/sim/sim_turn_int.h"

#include <errno.h>

enum { MAGIC = 0x54726e21, OUT = 1, IN = 2, BUF = 66000, MOVE_MS = TURN_MOVE_MS };

static uint64_t be(const uint8_t *p, int bytes)
{
    uint64_t v = 0;

    while (bytes-- > 0)
        v = v << 8 | *p++;
    return v;
}

/* The first bytes of every payload. */
struct proof {
    uint32_t life, peer, seq, epoch;
    uint8_t way; /* OUT: to a peer, IN: from one */
    uint8_t by;
    bool sure;
    uint64_t sent_ms;
};

static uint64_t sum_of(const uint8_t *p, size_t n)
{
    uint64_t sum = 14695981039346656037u ^ n;

    while (n-- > 0)
        sum = (sum ^ *p++) * 1099511628211u;
    return sum;
}

static void proof_put(uint8_t *at, size_t n, const struct proof *p)
{
    ASSERT(n >= SIM_TURN_PAYLOAD_MIN);
    put_u32(at + 8, MAGIC);
    put_u32(at + 12, p->life);
    put_u32(at + 16, p->seq);
    put_u32(at + 20, p->epoch);
    put_u64(at + 24, p->sent_ms);
    at[32] = (uint8_t)p->peer;
    at[33] = p->way;
    at[34] = p->by;
    at[35] = p->sure;
    for (size_t i = 36; i < n; i++)
        at[i] = (uint8_t)(p->seq * 31 + i * 7 + p->life);
    put_u64(at, sum_of(at + 8, n - 8));
}

static bool proof_get(const struct sim_turn *t, struct bytes in, uint8_t way, struct proof *p)
{
    if (in.n < SIM_TURN_PAYLOAD_MIN || be(in.p, 8) != sum_of(in.p + 8, in.n - 8) ||
        be(in.p + 8, 4) != MAGIC || in.p[33] != way) {
        sim_break(t->s, "%zu bytes arrive that nobody sent so", in.n);
        return false;
    }
    if (in.p[32] >= t->peers_n || be(in.p + 12, 4) >= t->lives_n) {
        sim_break(t->s, "what arrives is for nobody");
        return false;
    }
    *p = (struct proof){ .life = (uint32_t)be(in.p + 12, 4),
                         .seq = (uint32_t)be(in.p + 16, 4),
                         .epoch = (uint32_t)be(in.p + 20, 4),
                         .sent_ms = be(in.p + 24, 8),
                         .peer = in.p[32],
                         .way = way,
                         .by = in.p[34],
                         .sure = in.p[35] };
    return true;
}

/* Was there perhaps a permission when it left, or later? */
static bool may(uint64_t tx_ms, uint64_t lasts_ms, uint64_t at_ms)
{
    return tx_ms > 0 && at_ms <= tx_ms + lasts_ms + SIM_TURN_SLACK_MS;
}

/* A permission is of an IP: what any peer there was given counts for all of it. */
static bool may_ip(const struct sim_turn *t, const struct sim_turn_life *l, unsigned peer,
                   uint64_t at_ms)
{
    for (unsigned i = 0; i < t->peers_n; i++)
        if (memcmp(t->peer[i].at.ip, t->peer[peer].at.ip, 16) == 0 &&
            may(l->link[i].perm_tx_ms, TURN_PERMISSION_MS, at_ms))
            return true;
    return false;
}

static bool lives(const struct sim_turn_life *l, uint64_t at_ms)
{
    return at_ms <= l->tx_ms + l->lifetime_max_ms + SIM_TURN_SLACK_MS;
}

/* Is it certain that it is carried? */
static bool sure(const struct sim_turn *t, const struct sim_turn_life *l, unsigned peer, int by)
{
    const struct sim_turn_link *k = &l->link[peer];
    uint64_t later = sim_now(t->s) + SIM_TURN_SLACK_MS;

    return t->exact && !l->over && !l->ending && !l->client->quiet && later < l->ok_ms &&
           later < k->perm_ok_ms && (by == BY_SEND || later < k->chan_ok_ms) &&
           (l->moving_ms == 0 || sim_now(t->s) > l->moving_ms + MOVE_MS + SIM_TURN_SLACK_MS);
}

static bool is_moving(const struct sim_turn_life *l)
{
    const struct sim_turn_client *c = l->client;

    return (l->moving_ms > 0 && sim_now(c->t->s) < l->moving_ms + MOVE_MS + SIM_TURN_SLACK_MS) ||
           (sim_turn_asking(c) && c->ask.resume);
}

/* In order, and once, where the network does not say otherwise. */
static void check_order(struct sim_turn *t, const struct proof *p, uint32_t *seen, uint32_t *epoch,
                        const char *what)
{
    if (*epoch == p->epoch && t->ordered && p->seq + 1 < *seen)
        sim_break(t->s, "%s %u of life %u and peer %u after %u", what, p->seq, p->life, p->peer,
                  *seen - 1);
    if (t->ordered && t->once && *seen == p->seq + 1)
        sim_break(t->s, "%s %u of life %u and peer %u twice", what, p->seq, p->life, p->peer);
    *epoch = p->epoch;
    if (p->seq + 1 > *seen)
        *seen = p->seq + 1;
}

/* ---- from clients to peers ------------------------------------------------------------------ */

static size_t wrap(struct sim_turn_client *c, uint8_t *to, unsigned peer, int by, const uint8_t *p,
                   size_t n)
{
    struct stun_addr at = stun_addr_of(&c->t->peer[peer].at);
    uint8_t tid[STUN_TID];
    size_t head = CHAN_HEADER, pad = 0;

    if (by == BY_CHANNEL) {
        chandata_head(to, c->life->link[peer].number, (uint16_t)n);
    } else {
        for (int i = 0; i < STUN_TID; i++)
            tid[i] = (uint8_t)sim_below(c->t->s->net, 256);
        head = stun_data_head(to, STUN_SEND, tid, &at, (uint16_t)n, &pad);
    }
    if (n > 0)
        memcpy(to + head, p, n);
    memset(to + head + n, 0, pad);
    return head + n + pad;
}

void sim_turn_send(struct sim_turn_client *c, unsigned peer, int by, unsigned n, size_t bytes,
                   size_t last)
{
    static uint8_t payload[BUF], wire[BUF];
    struct sim_turn_life *l = c->life;
    struct sim_turn_link *k = &l->link[peer];

    for (unsigned i = 0; i < n && c->at->open; i++) {
        size_t size = i + 1 < n ? bytes : last;

        if (size > 0) {
            struct proof p = { .life = l->id,
                               .peer = peer,
                               .seq = k->out_seq++,
                               .epoch = l->epoch,
                               .way = OUT,
                               .by = (uint8_t)by,
                               .sure = sure(c->t, l, peer, by),
                               .sent_ms = sim_now(c->t->s) };

            k->out_sure += p.sure;
            proof_put(payload, size, &p);
        }
        size = wrap(c, wire, peer, by, payload, size);
        sim_turn_emit(c->at, wire, size);
    }
}

static void on_peer(struct sim_turn *t, unsigned peer, const struct netaddr *from, struct bytes in)
{
    struct sim *s = t->s;
    struct sim_turn_life *l;
    struct sim_turn_link *k;
    struct proof p;
    enum turn_family f = netaddr_is4(from) ? TURN_V4 : TURN_V6;

    t->peer[peer].got++;
    if (in.n == 0) {
        t->peer[peer].empty++;
        return;
    }
    if (!proof_get(t, in, OUT, &p))
        return;
    if (p.peer != peer) {
        sim_break(s, "what was for peer %u arrives at peer %u", p.peer, peer);
        return;
    }
    l = t->lives[p.life];
    k = &l->link[peer];
    if (!l->has[f] || memcmp(&l->relayed[f], from, sizeof(*from)) != 0)
        sim_break(s, "life %u comes from a relayed address that is not its own", l->id);
    if (!may_ip(t, l, peer, p.sent_ms))
        sim_break(s, "life %u sends to peer %u without permission", l->id, peer);
    if (p.by == BY_CHANNEL && !may(k->chan_tx_ms, TURN_CHANNEL_MS, p.sent_ms))
        sim_break(s, "life %u sends to peer %u by a channel that it does not have", l->id, peer);
    if (!lives(l, p.sent_ms))
        sim_break(s, "life %u is over, and sends", l->id);
    check_order(t, &p, &k->out_seen, &k->out_epoch, "to a peer:");
    k->out_sure_got += p.sure;
    t->carried_out++;
    if (sim_chance(s->net, t->peer[peer].echo_pct))
        sim_turn_peer_send(t, peer, l, 1 + (unsigned)sim_below(s->net, 3), in.n, in.n);
}

/* ---- from peers to clients ------------------------------------------------------------------ */

void sim_turn_peer_send(struct sim_turn *t, unsigned peer, struct sim_turn_life *l, unsigned n,
                        size_t bytes, size_t last)
{
    static uint8_t payload[BUF];
    enum turn_family f = netaddr_is4(&t->peer[peer].at) ? TURN_V4 : TURN_V6;
    struct sim_turn_link *k = &l->link[peer];

    for (unsigned i = 0; i < n && l->has[f] && t->peer[peer].open; i++) {
        size_t size = i + 1 < n ? bytes : last;
        struct proof p = { .life = l->id,
                           .peer = peer,
                           .seq = k->in_seq++,
                           .epoch = l->epoch,
                           .way = IN,
                           .sure = !l->client->tcp && sure(t, l, peer, BY_SEND),
                           .sent_ms = sim_now(t->s) };

        if (size > 0) {
            k->in_sure += p.sure;
            proof_put(payload, size, &p);
        }
        sim_udp_emit(t->s->net, t->peer[peer].ep, &l->relayed[f], payload, size);
    }
}

/* From one client to another: the sender's relayed address is the peer, and the peer that was sent
 * to is the relayed address of who receives. */
static bool on_hairpin(struct sim_turn_end *e, const struct netaddr *from, struct bytes in)
{
    struct sim_turn *t = e->client->t;
    const struct sim_turn_life *l, *mine = e->client->life;
    struct proof p;

    if (in.n < SIM_TURN_PAYLOAD_MIN || in.p[33] != OUT)
        return false;
    if (!proof_get(t, in, OUT, &p))
        return true;
    l = t->lives[p.life];
    if (mine == NULL || memcmp(&t->peer[p.peer].at, &mine->relayed[TURN_V4], sizeof(*from)) != 0)
        sim_break(t->s, "what was for peer %u arrives at client %u", p.peer, e->client->idx);
    if (memcmp(from, &l->relayed[TURN_V4], sizeof(*from)) != 0)
        sim_break(t->s, "life %u is said to be another", l->id);
    t->lives[p.life]->link[p.peer].out_sure_got += p.sure;
    return true;
}

static void on_data(struct sim_turn_end *e, const struct netaddr *peer, struct bytes in)
{
    struct sim_turn *t = e->client->t;
    struct sim *s = t->s;
    struct sim_turn_life *l;
    struct sim_turn_link *k;
    struct proof p;
    bool its_end = false;

    if (in.n == 0 || on_hairpin(e, peer, in) || !proof_get(t, in, IN, &p))
        return;
    l = t->lives[p.life];
    k = &l->link[p.peer];
    if (memcmp(&t->peer[p.peer].at, peer, sizeof(*peer)) != 0)
        sim_break(s, "what peer %u sent is said to be another's", p.peer);
    if (l->client != e->client)
        sim_break(s, "what was for client %u arrives at client %u", l->client->idx, e->client->idx);
    for (unsigned i = 0; i < l->ends_n; i++)
        its_end |= l->end[i] == e;
    if (!its_end)
        sim_break(s, "life %u is told on a 5-tuple that it never had", l->id);
    if (e != l->client->at && l->client->life == l && !sim_turn_asking(l->client) &&
        p.sent_ms > l->moving_ms + MOVE_MS + SIM_TURN_SLACK_MS)
        sim_break(s, "life %u has moved, and is told where it was", l->id);
    if (!may_ip(t, l, p.peer, p.sent_ms))
        sim_break(s, "life %u hears of peer %u without permission", l->id, p.peer);
    if (!lives(l, p.sent_ms))
        sim_break(s, "life %u is over, and hears", l->id);
    if (!is_moving(l)) /* else by two ways */
        check_order(t, &p, &k->in_seen, &k->in_epoch, "from a peer:");
    k->in_sure_got += p.sure;
    t->carried_in++;
}

static void on_channel(struct sim_turn_end *e, struct bytes in)
{
    struct sim_turn *t = e->client->t;
    const struct sim_turn_link *k;
    struct chandata m;
    struct proof p;

    e->client->channel_data++;
    if (!chandata_decode(in, &m) || (e->wire == NULL && in.n != CHAN_HEADER + m.data.n)) {
        sim_break(t->s, "ChannelData of %zu bytes says another length, or is padded", in.n);
        return;
    }
    for (unsigned i = 0; e->client->life != NULL && i < t->peers_n; i++)
        if (e->client->life->link[i].number == m.channel && t->peer[i].ep < 0 &&
            on_hairpin(e, &t->peer[i].at, m.data))
            return;
    if (m.data.n == 0 || !proof_get(t, m.data, IN, &p))
        return;
    k = &t->lives[p.life]->link[p.peer];
    if (k->number != m.channel)
        sim_break(t->s, "channel %x to client %u brings peer %u's, which is %x", m.channel,
                  e->client->idx, p.peer, k->number);
    if (!may(k->chan_tx_ms, TURN_CHANNEL_MS, p.sent_ms))
        sim_break(t->s, "channel %x to client %u is over for %lld ms", m.channel, e->client->idx,
                  (long long)(p.sent_ms - k->chan_tx_ms - TURN_CHANNEL_MS));
    on_data(e, &t->peer[p.peer].at, m.data);
}

static void on_indication(struct sim_turn_end *e, const struct stun_msg *m)
{
    struct sim *s = e->client->t->s;
    struct stun_addr peer;

    e->client->indications++;
    if (stun_method_of(m->type) == STUN_CONNECTION_ATTEMPT &&
        stun_addr(m, STUN_XOR_PEER_ADDRESS, &peer)) {
        e->client->attempt = stun_u32(m, STUN_CONNECTION_ID);
        e->client->attempt_peer = peer.addr;
        return;
    }
    if (stun_method_of(m->type) != STUN_DATA_METHOD || !stun_addr(m, STUN_XOR_PEER_ADDRESS, &peer))
        sim_break(s, "an indication of type %x", m->type);
    else if (stun_has(m, STUN_ICMP) != stun_has(m, STUN_DATA))
        e->client->icmp += stun_has(m, STUN_ICMP);
    else
        sim_break(s, "a Data indication with %s", stun_has(m, STUN_DATA) ? "ICMP" : "nothing");
    if (stun_has(m, STUN_DATA))
        on_data(e, &peer.addr, stun_value(m, STUN_DATA));
}

void sim_turn_on_unit(struct sim_turn_end *e, struct bytes in)
{
    struct sim *s = e->client->t->s;
    struct stun_msg m;

    if (in.n > 0 && in.p[0] >= 0x40) {
        on_channel(e, in);
        return;
    }
    if (stun_decode(in, 0, &m) != STUN_OK) {
        sim_break(s, "client %u is told %zu bytes that are no message", e->client->idx, in.n);
        return;
    }
    if (stun_class_of(m.type) == STUN_INDICATION)
        on_indication(e, &m);
    else
        sim_turn_on_response(e, &m);
}

/* ---- looking -------------------------------------------------------------------------------- */

void sim_turn_end_look(struct sim_turn_end *e)
{
    static uint8_t buf[BUF];
    struct sim *s = e->client->t->s;
    struct netaddr from;
    long n;

    if (e->wire != NULL) {
        if (e->open)
            sim_turn_wire_look(e);
        return;
    }
    while (e->open && (n = sim_udp_take(s->net, e->ep, &from, buf, sizeof(buf))) >= 0) {
        if (memcmp(&from, &e->client->server, sizeof(from)) != 0)
            sim_break(s, "client %u is told something from elsewhere", e->client->idx);
        sim_turn_on_unit(e, bytes_of(buf, (size_t)n));
    }
}

void sim_turn_peer_look(struct sim_turn *t, unsigned peer)
{
    static uint8_t buf[BUF];
    struct netaddr from;
    long n;

    while (t->peer[peer].open &&
           (n = sim_udp_take(t->s->net, t->peer[peer].ep, &from, buf, sizeof(buf))) >= 0)
        on_peer(t, peer, &from, bytes_of(buf, (size_t)n));
}

void sim_turn_check_sure(struct sim_turn *t)
{
    for (size_t i = 0; t->exact && i < t->lives_n; i++)
        for (unsigned k = 0; k < t->peers_n; k++) {
            const struct sim_turn_link *link = &t->lives[i]->link[k];

            if (link->out_sure != link->out_sure_got || link->in_sure != link->in_sure_got)
                sim_break(t->s, "life %zu, peer %u: %u of %u arrive there, %u of %u here", i, k,
                          link->out_sure_got, link->out_sure, link->in_sure_got, link->in_sure);
        }
}
