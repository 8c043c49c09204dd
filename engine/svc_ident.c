/* identify, identify/push (both directions) (libp2p.md §9). */
#include "engine/shard.h"
#include "engine/stream.h"
#include "proto/ident.h"

enum { DUSK_PUSH_MAX = 4096 };

/* While draining hop is not listed, though it still answers (libp2p.md §11.7). */
static size_t ident_message(const struct conn *c, uint8_t *msg, size_t cap)
{
    const struct daemon *d = c->shard->d;
    struct wcur w = wcur_of(msg, cap);
    struct bytes addrs[CONFIG_ANNOUNCE_MAX + 1];
    struct maddr own, observed;
    struct ident id = {
        .key_pb = bytes_of(d->me.key_pb, sizeof(d->me.key_pb)),
        .listen_addrs = addrs,
        .protocols = d->ident_protocols + (c->shard->draining ? 1 : 0),
        .protocol_version = d->cfg->ident_protocol_version,
        .agent_version = d->cfg->ident_agent,
    };

    id.listen_addrs_n = conn_addresses(c, false, &own, addrs);
    maddr_from_tcp(&c->remote, &observed);
    id.observed_addr = maddr_bytes(&observed);
    ident_put(&w, &id);
    return w.bad ? 0 : w.wrote;
}

void svc_ident_serve(struct stream *st)
{
    uint8_t msg[IDENT_OURS_MAX];
    struct shard *s = st->conn->shard;
    uint32_t idx = st->head.idx, gen = st->head.gen;
    size_t n = ident_message(st->conn, msg, sizeof(msg));

    STAT_INC(&s->stats, identify_served);
    stream_write(st, bytes_of(msg, n), true); /* one message, then FIN */
    if (!slab_find(&s->streams, idx, gen))
        return;
    /* Its place stays taken until the peer has ended its half too. */
    if (st->y.rx_fin) {
        stream_free(st);
        return;
    }
    st->kind = ST_LINGER;
    wheel_arm(&s->wheel, &st->timer, s->now_ms + STREAM_LINGER_MS);
}

/* What a peer pushes is read and forgotten: nothing of ours depends on it. */
bool svc_push_feed(struct stream *st, struct cur *in)
{
    st->push_bytes += (uint32_t)in->n;
    cur_take(in, in->n);
    /* dusk.md §3: 4 KiB are an identify message there (check 10). With its length prefix. */
    if (st->push_bytes <=
        (st->conn->shard->d->cfg->preset == PRESET_DUSK ? DUSK_PUSH_MAX : IDENT_PUSH_MAX) + 2)
        return false;
    stream_reset(st); /* only the stream, not the connection (check 48) */
    return false;
}

void svc_push_start(struct conn *c)
{
    struct stream *st;
    uint8_t hello[128], frame[YAMUX_HEADER];
    struct wcur w = wcur_of(hello, sizeof(hello));

    if (c->push_sent)
        return;
    c->push_sent = true;
    st = stream_new(c, ST_PUSH_OUT);
    if (!st)
        return;
    if (!yamux_open(&c->mux, &st->y)) {
        stream_free(st);
        return;
    }
    mss_dial_hello(&w, IDENT_PUSH_PROTOCOL);
    yamux_put_data(&st->y, frame, (uint32_t)w.wrote, 0);
    conn_ctl(c, bytes_of(frame, sizeof(frame)));
    if (conn_alive(c))
        conn_ctl(c, bytes_of(hello, w.wrote));
}

bool svc_push_out_feed(struct stream *st, struct cur *in)
{
    struct shard *s = st->conn->shard;
    uint8_t msg[IDENT_OURS_MAX];

    switch (mss_dial_feed(&st->dial, IDENT_PUSH_PROTOCOL, in)) {
    case MSS_MORE:
        return false;
    case MSS_FAILED: /* na: it does not take pushes */
        stream_finish(st);
        return false;
    case MSS_AGREED:
        break;
    }
    uint32_t idx = st->head.idx, gen = st->head.gen;
    size_t n = ident_message(st->conn, msg, sizeof(msg));

    STAT_INC(&s->stats, push_sent);
    stream_write(st, bytes_of(msg, n), true);
    if (slab_find(&s->streams, idx, gen))
        stream_finish(st);
    return false;
}
