/* Yamux events of one connection, handed to streams (libp2p.md §6). */
#include "engine/conn.h"
#include "engine/dial.h"
#include "engine/shard.h"
#include "engine/svc_gossip.h"

void mux_start(struct conn *c)
{
    struct shard *s = c->shard;

    handshake_free(c);
    yamux_init(&c->mux, &s->table, c->dial != NULL, (uint16_t)s->d->cfg->streams_per_conn_max);
    c->active_ms = s->now_ms;
    wheel_arm(&s->wheel, &c->timer, s->now_ms + s->d->cfg->idle_timeout_ms);
    if (c->dial)
        dial_up(c->dial);
    svc_gossip_start(c);
    if (s->draining && conn_alive(c))
        svc_push_start(c);
}

bool mux_forgive(struct conn *c)
{
    STAT_INC(&c->shard->stats, streams_refused);
    if (gcra_step(&c->refused_tat_ms, c->shard->now_ms, REFUSED_BURST, REFUSED_MS))
        return true;
    conn_farewell(c, YAMUX_PROTOCOL_ERROR, "goes on opening streams past every refusal");
    return false;
}

/* One stream too many is answered by RST, never by GoAway (check 32). */
static void mux_refused(struct conn *c, uint32_t id)
{
    uint8_t frame[YAMUX_HEADER];

    if (!mux_forgive(c))
        return;
    yamux_put_rst(frame, id);
    conn_ctl(c, bytes_of(frame, sizeof(frame)));
}

static void mux_open(struct conn *c, uint32_t id)
{
    struct shard *s = c->shard;
    bool slow = gcra_step(&c->syn_tat_ms, s->now_ms, SYN_BURST, SYN_MS);
    struct stream *st = slow ? stream_new(c, ST_NEGOTIATE) : NULL;
    uint8_t frame[YAMUX_HEADER];

    if (!st) {
        yamux_refuse(&c->mux);
        mux_refused(c, id);
        return;
    }
    STAT_INC(&s->stats, streams_in);
    yamux_attach(&c->mux, &st->y);
    /* ACK at once: rust and go stop opening streams after 256 without one (libp2p.md §6.2.1). */
    yamux_put_ack(&st->y, frame);
    conn_ctl(c, bytes_of(frame, sizeof(frame)));
}

/* Exactly one pong, ahead of data; a flood ends the connection (libp2p.md §6.1.5). */
static void mux_ping(struct conn *c, uint32_t value)
{
    uint8_t frame[YAMUX_HEADER];

    STAT_INC(&c->shard->stats, pings_in);
    if (!gcra_step(&c->ping_tat_ms, c->shard->now_ms, MUX_PING_BURST, MUX_PING_MS)) {
        STAT_INC(&c->shard->stats, ping_floods);
        conn_farewell(c, YAMUX_PROTOCOL_ERROR, "muxer ping flood");
        return;
    }
    yamux_put_pong(frame, value);
    conn_ctl(c, bytes_of(frame, sizeof(frame)));
}

static struct stream *stream_of(struct yamux_stream *y)
{
    return CONTAINER_OF(y, struct stream, y);
}

void mux_feed(struct conn *c, struct cur *plain)
{
    struct yamux_ev ev;

    while (c->state == CONN_MUX) {
        yamux_feed(&c->mux, plain, &ev);
        switch (ev.kind) {
        case YAMUX_EV_NONE:
            return;
        case YAMUX_EV_OPEN:
            mux_open(c, ev.id);
            break;
        case YAMUX_EV_REFUSED:
            mux_refused(c, ev.id);
            break;
        case YAMUX_EV_DATA:
            stream_on_data(stream_of(ev.stream), ev.data);
            break;
        case YAMUX_EV_CREDIT:
            stream_on_credit(stream_of(ev.stream));
            break;
        case YAMUX_EV_FIN:
            stream_on_fin(stream_of(ev.stream));
            break;
        case YAMUX_EV_RST:
            stream_on_rst(stream_of(ev.stream));
            break;
        case YAMUX_EV_PING:
            mux_ping(c, ev.value);
            break;
        case YAMUX_EV_PONG:    /* we send none, so it answers nothing */
        case YAMUX_EV_GO_AWAY: /* running streams may finish (libp2p.md §6.1.6) */
            break;
        case YAMUX_EV_FAIL:
            STAT_INC(&c->shard->stats, yamux_errors);
            conn_farewell(c, ev.value, "muxer protocol error");
            break;
        }
    }
}
