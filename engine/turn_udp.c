/* Datagrams in: from clients to the door, from peers to relayed addresses. A train that the kernel
 * brings in one receive is looked up once and goes on as one (design.md path 3). */
#include <poll.h>

#include "engine/rng.h"
#include "engine/shard.h"
#include "engine/turn_shard.h"
#include "engine/turn_stream.h"

enum { BURST_MIN = 2 }; /* one, and the knowledge that there is no other */

/* ---- sockets ----------------------------------------------------------------------------------
 */

static void sock_poll(struct turn_sock *k)
{
    ring_poll_in(k->ts->s->ring, k->out.fd, ud_make(OP_TURN_POLL, k->head.gen, k->head.idx));
    k->polled = true;
}

struct turn_sock *turn_sock_new(struct turn_shard *ts, int fd, const struct netaddr *local)
{
    struct turn_sock *k = slab_new(&ts->socks);

    if (!k)
        return NULL;
    k->ts = ts;
    k->local = *local;
    k->burst = BURST_MIN;
    k->out.fd = fd;
    k->out.v6 = !netaddr_is4(local);
    sock_poll(k);
    return k;
}

static void sock_free(struct turn_sock *k)
{
    struct turn_shard *ts = k->ts;

    ring_close(ts->s->ring, k->out.fd);
    if (k->port)
        turn_ports_give(ts->host->ports[k->family], ts->s->now_ms, k->port);
    slab_free(&ts->socks, k);
}

void turn_sock_close(struct turn_sock *k)
{
    struct turn_shard *ts = k->ts;

    if (k->closing)
        return;
    trains_flush(&ts->trains); /* what is on its way out through it */
    k->closing = true;
    k->client = NULL;
    if (k->is_ready)
        list_remove(&ts->ready, &k->ready);
    k->is_ready = false;
    if (k->polled)
        ring_cancel_ud(ts->s->ring, ud_make(OP_TURN_POLL, k->head.gen, k->head.idx),
                       ud_make(OP_BELL, 0, 0));
    else
        sock_free(k);
}

static void sock_ready(struct turn_sock *k)
{
    if (k->is_ready)
        return;
    k->is_ready = true;
    list_append(&k->ts->ready, &k->ready);
}

void turn_on_poll(struct turn_shard *ts, const struct ring_cqe *cqe)
{
    struct turn_sock *k = slab_find24(&ts->socks, ud_idx(cqe->ud), ud_gen(cqe->ud));

    ASSERT(k && "a poll of a socket that is gone");
    if (!cqe->more)
        k->polled = false;
    if (k->closing) {
        if (!k->polled)
            sock_free(k);
        return;
    }
    if (!k->polled)
        sock_poll(k);
    k->errors_due |= cqe->res > 0 && (cqe->res & POLLERR);
    sock_ready(k);
}

/* ---- from clients -----------------------------------------------------------------------------
 */

/* What is known of the 5-tuple while its train is cut up. */
struct look {
    struct turn_tuple tuple;
    struct turn_path path;
    struct turn_client *client; /* its allocation, whose channels may be taken by the shortcut */
    struct netaddr peer;        /* of channel `number`, as addressed on this host's wire */
    struct turn_sock *relay;
    uint16_t number; /* 0: none looked up yet */
    bool looked;
};

static void look_up(struct turn_shard *ts, struct look *l)
{
    struct turn_alloc *a = turn_find(&ts->machine, &l->tuple);

    l->looked = true;
    l->number = 0;
    /* While it moves, the machine wants to hear of every message; and it answers for TCP. */
    l->client = a && !a->pending && !a->tcp && !turn_is_moving(a) ? turn_client_of(a) : NULL;
}

static bool look_channel(struct turn_shard *ts, struct look *l, uint16_t number)
{
    enum turn_drop drop =
        turn_on_channel(&ts->machine, ts->s->now_ms, l->client->alloc, number, &l->peer);

    l->number = 0;
    if (drop != TURN_DROP_NONE) {
        turn_count_drop(ts, drop, 1);
        return false;
    }
    turn_host_internal(ts->host, &l->peer);
    l->relay = l->client->sock[netaddr_is4(&l->peer) ? TURN_V4 : TURN_V6];
    l->number = l->relay ? number : 0;
    return l->relay != NULL;
}

/* Is it the channel that was looked up last, or one that there is? */
static bool on_channel(struct turn_shard *ts, struct look *l, uint16_t number)
{
    return number == l->number || look_channel(ts, l, number);
}

static void channel_data(struct turn_shard *ts, struct look *l, struct bytes in)
{
    struct chandata m;

    if (!chandata_decode(in, &m)) {
        turn_count_drop(ts, TURN_DROP_MALFORMED, 1);
        return;
    }
    if (!on_channel(ts, l, m.channel))
        return;
    if (!turn_carry(ts, l->client, 0, m.data.n))
        return;
    struct turn_piece p = { .data = m.data };

    STAT_INC(&ts->s->stats, turn_peer_tx);
    STAT_ADD(&ts->s->stats, turn_peer_tx_bytes, m.data.n);
    trains_add(&ts->trains, &l->relay->out, &l->peer, NULL, &p);
}

/* Like datagrams, as trains bring them: looked at once, and added at once. How many it took, 0 when
 * each has to be looked at. */
static unsigned channel_run(struct turn_shard *ts, struct look *l, const struct ring_dgram *d,
                            size_t at, size_t step)
{
    const uint8_t *first = d->buf + at;
    size_t most = (d->n - at) / step, count = 1;
    struct chandata m;

    while (count < most && memcmp(first + count * step, first, CHAN_HEADER) == 0)
        count++;
    if (count < 2 || !chandata_decode(bytes_of(first, step), &m))
        return 0;
    if (!on_channel(ts, l, m.channel))
        return 1;
    if (!turn_carry_run(ts, l->client, 0, m.data.n, (unsigned)count))
        return 0;
    struct turn_piece p = { .data = m.data };

    STAT_ADD(&ts->s->stats, turn_peer_tx, count);
    STAT_ADD(&ts->s->stats, turn_peer_tx_bytes, count * m.data.n);
    trains_add_run(&ts->trains, &l->relay->out, &l->peer, NULL, &p, step, (unsigned)count);
    return (unsigned)count;
}

static void door_unit(struct turn_shard *ts, struct look *l, struct bytes in)
{
    ts->work_left -= TURN_WORK_UNIT;
    turn_on_unit(ts, &l->tuple, &l->path, in);
    l->looked = false; /* it may have changed everything */
}

static bool is_channel(struct bytes in)
{
    return in.n >= CHAN_HEADER && in.p[0] >= 0x40 && in.p[0] <= 0x7f;
}

static void door_train(struct turn_sock *k, const struct ring_dgram *d)
{
    struct turn_shard *ts = k->ts;
    struct look l = { .tuple = { .client = d->from, .server = k->local, .transport = TURN_UDP },
                      .path = { .sock = k } };
    size_t step = d->segment ? d->segment : d->n;
    int away;

    if (k->wildcard && d->has_local)
        memcpy(l.tuple.server.ip, d->local, sizeof(d->local));
    away = turn_away_find(ts, &l.tuple);
    for (size_t at = 0; at < d->n || at == 0; at += step) {
        struct bytes in = bytes_of(d->buf + at, min_sz(step, d->n - at));

        if (away >= 0) {
            if (!turn_mail_send(ts, (unsigned)away, &l.tuple, in))
                STAT_INC(&ts->s->stats, turn_drop_mail);
        } else if (is_channel(in)) {
            unsigned run = 0;

            if (!l.looked)
                look_up(ts, &l);
            if (l.client && d->segment)
                run = channel_run(ts, &l, d, at, step);
            if (run)
                at += (run - 1) * step;
            else if (l.client)
                channel_data(ts, &l, in);
            else
                door_unit(ts, &l, in);
        } else {
            door_unit(ts, &l, in);
        }
        if (step == 0)
            break;
    }
}

/* ---- from peers -------------------------------------------------------------------------------
 */

/* What IPv6 can carry is more than a message has room for behind an address (RFC 8656 §11.3). */
static bool indication_holds(const struct netaddr *peer, size_t n)
{
    size_t before = netaddr_is4(peer) ? 4 + 8 + 4 : 4 + 20 + 4;

    return n <= STUN_BODY_MAX - before; /* both are fours */
}

static void peer_piece(struct turn_shard *ts, struct turn_client *c, const struct netaddr *peer,
                       uint16_t channel, struct bytes data)
{
    uint8_t head[STUN_DATA_HEAD_MAX];
    struct turn_piece p = { .data = data };
    size_t n = CHAN_HEADER, pad = 0;

    if (channel) {
        chandata_head(head, channel, (uint16_t)data.n);
    } else if (!indication_holds(peer, data.n)) {
        STAT_INC(&ts->s->stats, turn_drop_truncated);
        return;
    } else {
        struct stun_addr from = stun_addr_of(peer);
        uint8_t tid[STUN_TID];

        rng_bytes(tid, sizeof(tid));
        n = stun_data_head(head, STUN_DATA_METHOD, tid, &from, (uint16_t)data.n, &pad);
    }
    p.head = bytes_of(head, n);
    p.pad = (uint8_t)pad;
    STAT_INC(&ts->s->stats, turn_client_tx);
    STAT_ADD(&ts->s->stats, turn_client_tx_bytes, data.n);
    turn_to_client(ts, c, &p, true);
}

/* The whole ones of a train, behind one header. How many; 0 when each has to be asked for. */
static size_t peer_run(struct turn_shard *ts, struct turn_client *c, uint16_t channel,
                       const struct ring_dgram *d)
{
    size_t n = d->segment, count = n ? d->n / n : 0;
    uint8_t head[CHAN_HEADER];

    if (!channel || count < 2 || !turn_carry_run(ts, c, 1, n, (unsigned)count))
        return 0;
    chandata_head(head, channel, (uint16_t)n);
    struct turn_piece p = { .head = bytes_of(head, sizeof(head)), .data = bytes_of(d->buf, n) };

    STAT_ADD(&ts->s->stats, turn_client_tx, count);
    STAT_ADD(&ts->s->stats, turn_client_tx_bytes, count * n);
    turn_to_client_run(ts, c, &p, n, (unsigned)count);
    return count;
}

static void peer_train(struct turn_sock *k, const struct ring_dgram *d)
{
    struct turn_shard *ts = k->ts;
    struct turn_client *c = k->client;
    size_t step = d->segment ? d->segment : d->n;
    size_t count = step ? (d->n + step - 1) / step : 1;
    struct netaddr peer = d->from;
    uint8_t buf[TURN_ROOM];
    struct turn_out out = turn_out_of(buf, sizeof(buf));
    uint16_t channel = 0;

    STAT_ADD(&ts->s->stats, turn_peer_rx, count);
    STAT_ADD(&ts->s->stats, turn_peer_rx_bytes, d->n);
    if (!c || c->alloc->pending) { /* reserved, or not answered for yet */
        turn_count_drop(ts, TURN_DROP_PERMISSION, (unsigned)count);
        return;
    }
    if (memcmp(peer.ip, k->local.ip, sizeof(peer.ip)) == 0) /* a neighbour (turn.md §18) */
        turn_host_external(ts->host, &d->from, &peer);
    turn_on_peer(&ts->machine, ts->s->now_ms, c->alloc, &peer, &out, &channel);
    if (out.act != TURN_RELAY) {
        turn_count_drop(ts, out.drop, (unsigned)count);
        return;
    }
    size_t i = peer_run(ts, c, channel, d);

    for (size_t at = i * step; i < count; at += step, i++) {
        struct bytes data = bytes_of(d->buf + at, min_sz(step, d->n - at));

        if (turn_carry(ts, c, 1, data.n))
            peer_piece(ts, c, &peer, channel, data);
    }
}

/* ---- what ICMP says ---------------------------------------------------------------------------
 */

/* RFC 8656 §11.5 and turn.md §10: unreachable and too big, to who may hear of that peer. */
static void tell_icmp(struct turn_sock *k, const struct ring_icmp *e)
{
    struct turn_shard *ts = k->ts;
    struct turn_client *c = k->client;
    uint8_t buf[TURN_ROOM], id[STUN_ID], tid[STUN_TID];
    struct turn_out out = turn_out_of(buf, sizeof(buf));
    struct stun_icmp icmp = { .type = e->type, .code = e->code, .data = e->mtu };
    struct netaddr peer = e->peer;
    struct stun_build b;
    struct bytes m;
    uint16_t channel;

    if (!c || c->alloc->pending || !(e->v6 ? e->type == 1 || e->type == 2 : e->type == 3) ||
        (k->icmp_ms && ts->s->now_ms < k->icmp_ms + TURN_ICMP_MS))
        return;
    if (memcmp(peer.ip, k->local.ip, sizeof(peer.ip)) == 0)
        turn_host_external(ts->host, &e->peer, &peer);
    turn_on_peer(&ts->machine, ts->s->now_ms, c->alloc, &peer, &out, &channel);
    if (out.act != TURN_RELAY)
        return;
    k->icmp_ms = ts->s->now_ms;
    struct stun_addr from = stun_addr_of(&peer);

    rng_bytes(tid, sizeof(tid));
    stun_id_of(tid, id);
    stun_begin(&b, buf, sizeof(buf), stun_type(STUN_DATA_METHOD, STUN_INDICATION), id);
    stun_put_addr(&b, STUN_XOR_PEER_ADDRESS, &from);
    stun_put_icmp(&b, &icmp);
    if (!stun_end(&b, &m))
        return;
    STAT_INC(&ts->s->stats, turn_icmp_told);
    turn_to_client(ts, c, &(struct turn_piece){ .head = m }, true);
}

static void read_errors(struct turn_sock *k)
{
    struct ring_icmp e;

    for (int n = 0; n < TURN_ERRORS_MAX && ring_udp_error(k->out.fd, &e); n++) {
        if (e.peer.port == 0 && memcmp(e.peer.ip, k->out.too_big.ip, sizeof(e.peer.ip)) == 0)
            e.peer = k->out.too_big;
        tell_icmp(k, &e);
    }
}

/* ---- reading ----------------------------------------------------------------------------------
 */

static size_t datagrams_in(const struct ring_dgram *d)
{
    return d->segment ? (d->n + d->segment - 1) / d->segment : 1;
}

static void count_door(struct turn_shard *ts, const struct ring_dgram *d)
{
    STAT_ADD(&ts->s->stats, turn_client_rx, datagrams_in(d));
    STAT_ADD(&ts->s->stats, turn_client_rx_bytes, d->n);
}

static void sock_datagram(struct turn_sock *k, const struct ring_dgram *d)
{
    struct turn_shard *ts = k->ts;

    ts->work_left -= TURN_WORK_READ + (int)datagrams_in(d);
    if (d->segment)
        STAT_INC(&ts->s->stats, turn_train_in);
    if (d->truncated) /* the longest datagram fits; a longer train is a kernel that breaks its word
                       */
        STAT_INC(&ts->s->stats, turn_drop_truncated);
    else if (k->port)
        peer_train(k, d);
    else if (d->from.port == 0 || d->to_many) /* no answer leads there, or can come from there */
        STAT_ADD(&ts->s->stats, turn_drop_foreign, datagrams_in(d));
    else {
        count_door(ts, d);
        door_train(k, d);
    }
}

/* How many receives at once: no more than what is left of its share, if they bring as much as the
 * last one did. */
static unsigned burst_of(const struct turn_sock *k, int left, unsigned last)
{
    unsigned most = last && left > 0 ? (unsigned)left / last : k->burst;

    return most == 0 ? 1 : most < k->burst ? most : k->burst;
}

/* Until it is empty, or has had its share of this pass. */
void turn_udp_read(struct turn_sock *k)
{
    struct turn_shard *ts = k->ts;
    uint32_t gen = k->head.gen;
    int share = TURN_SHARE;
    unsigned last = 0;

    if (k->errors_due && k->port)
        read_errors(k);
    k->errors_due = false;
    for (unsigned done = 0, errors = 0; done < TURN_READS_MAX && share > 0 && ts->work_left > 0;) {
        struct ring_dgram d[RING_DGRAMS_MAX];
        unsigned burst = burst_of(k, share, last);

        if (ts->slots_used + burst > TURN_SLOTS) {
            trains_flush(&ts->trains);
            ts->slots_used = 0;
        }
        for (unsigned i = 0; i < burst; i++) {
            d[i].buf = ts->slots + (size_t)(ts->slots_used + i) * TURN_SLOT_BYTES;
            d[i].cap = TURN_SLOT_BYTES;
            d[i].to_many = false;
        }
        int n = ring_udp_recv(k->out.fd, d, burst);

        if (n < 0) { /* what ICMP said about something sent; the next call goes on */
            read_errors(k);
            ts->work_left -= TURN_WORK_READ;
            if (++errors < TURN_ERRORS_MAX)
                continue;
            break;
        }
        if (n == 0) {
            if (k->port && !done) /* woken for nothing to read: an error lies in its queue */
                read_errors(k);
            return;
        }
        ts->slots_used += (unsigned)n;
        for (int i = 0; i < n; i++) {
            last = (unsigned)datagrams_in(&d[i]);
            share -= (int)last;
            sock_datagram(k, &d[i]);
            if (k->head.gen != gen || k->closing)
                return;
        }
        done += (unsigned)n;
        if ((unsigned)n < burst) {
            k->burst = BURST_MIN;
            return;
        }
        k->burst = k->burst * 2 > RING_DGRAMS_MAX ? RING_DGRAMS_MAX : (uint8_t)(k->burst * 2);
    }
    sock_ready(k);
}

/* ---- the door ---------------------------------------------------------------------------------
 */

struct turn_sock *turn_door_find(struct turn_shard *ts, const struct netaddr *server)
{
    struct turn_sock *both = NULL; /* of all addresses; [::] is IPv4's only where no other is */

    for (unsigned i = 0; i < ts->doors_n; i++) {
        struct turn_sock *k = ts->door[i];

        if (k->local.port != server->port)
            continue;
        if (k->wildcard ? k->out.v6 != netaddr_is4(server)
                        : memcmp(k->local.ip, server->ip, sizeof(server->ip)) == 0)
            return k;
        if (k->wildcard && k->out.v6)
            both = k;
    }
    return both;
}

void turn_send_run(struct turn_shard *ts, struct turn_sock *door, const struct turn_tuple *tuple,
                   const struct turn_piece *p, size_t stride, unsigned count)
{
    trains_add_run(&ts->trains, &door->out, &tuple->client,
                   door->wildcard ? tuple->server.ip : NULL, p, stride, count);
}

void turn_send_from(struct turn_shard *ts, struct turn_sock *door, const struct turn_tuple *tuple,
                    const struct turn_piece *p)
{
    turn_send_run(ts, door, tuple, p, 0, 1);
}
