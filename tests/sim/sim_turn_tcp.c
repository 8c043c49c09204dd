/* tests/sim/sim_turn_tcp.c: a client's stream: units out, padded to four, and units in. */
#include "tests/sim/sim_turn_int.h"

#include <errno.h>
#include <stdlib.h>

enum { OUT_MAX = 1 << 20, READ_BYTES = 16384 };

struct sim_turn_wire {
    uint8_t out[OUT_MAX];
    size_t from, to; /* of out: what still has to go */
    bool ended;      /* a data connection: the peer has sent its last */
    struct frame_carry in;
    uint8_t carry[FRAME_MAX];
};

struct sim_turn_wire *sim_turn_wire_new(void)
{
    struct sim_turn_wire *w = sim_turn_must(calloc(1, sizeof(*w)));

    frame_init(&w->in, w->carry, sizeof(w->carry));
    return w;
}

static long max_long(long a, long b)
{
    return a > b ? a : b;
}

static void flush(struct sim_turn_end *e)
{
    struct sim_turn_wire *w = e->wire;
    long n;

    if (w->from == w->to)
        return;
    n = sim_send(e->client->t->s->net, e->ep, w->out + w->from, w->to - w->from);
    if (n > 0)
        w->from += (size_t)n;
    if (w->from == w->to)
        w->from = w->to = 0;
}

void sim_turn_emit(struct sim_turn_end *e, const void *p, size_t n)
{
    struct sim *s = e->client->t->s;
    struct sim_turn_wire *w = e->wire;
    size_t pad = chandata_padding(n);

    if (!e->open)
        return;
    if (w == NULL) {
        sim_udp_emit(s->net, e->ep, &e->client->server, p, n);
        return;
    }
    if (w->to + n + pad > OUT_MAX) {
        sim_break(s, "client %u cannot get rid of its bytes", e->client->idx);
        return;
    }
    memcpy(w->out + w->to, p, n);
    memset(w->out + w->to + n, 0, pad);
    w->to += n + pad;
    flush(e);
}

size_t sim_turn_emit_raw(struct sim_turn_end *e, const void *p, size_t n)
{
    struct sim_turn_wire *w = e->wire;

    flush(e);
    n = e->open && w->to == 0 ? n : 0; /* behind what still has to go */
    if (n > 0)
        n = (size_t)max_long(0, sim_send(e->client->t->s->net, e->ep, p, n));
    return n;
}

/* The server has closed it. That is its right only when nothing lives there any more. */
static void closed(struct sim_turn_end *e)
{
    struct sim_turn_client *c = e->client;

    e->open = false;
    sim_close(c->t->s->net, e->ep);
    if (c->at != e || (sim_turn_asking(c) && c->ask.resume))
        return; /* it has moved, or is about to hear that it has */
    if (c->t->faithful && c->life != NULL && !c->life->ending && sim_now(c->t->s) < c->life->ok_ms)
        sim_break(c->t->s, "the stream of client %u is closed", c->idx);
    sim_turn_over(c);
}

void sim_turn_wire_look(struct sim_turn_end *e)
{
    struct sim_net *net = e->client->t->s->net;
    uint8_t buf[READ_BYTES];
    struct bytes unit;
    long n = -EAGAIN;

    flush(e);
    while (e->open && !e->wire->ended && (n = sim_recv(net, e->ep, buf, sizeof(buf))) > 0) {
        struct cur in = cur_of(bytes_of(buf, (size_t)n));
        enum frame f;

        while (!e->raw && (f = frame_next(&e->wire->in, &in, &unit)) != FRAME_MORE && e->open) {
            if (f != FRAME_STUN && f != FRAME_CHANNEL) {
                sim_break(e->client->t->s, "client %u is told what is no unit", e->client->idx);
                return;
            }
            sim_turn_on_unit(e, unit);
        }
        if (e->raw && in.n > 0)
            e->on_raw(e, bytes_of(in.p, in.n));
    }
    if (e->open && n != -EAGAIN && e->raw) {
        e->wire->ended = true;
        e->on_raw(e, bytes_of(NULL, 0)); /* this way; the other one may go on */
    } else if (e->open && n != -EAGAIN) {
        closed(e);
    }
}

void sim_turn_wire_close(struct sim_turn_end *e)
{
    struct sim_net *net = e->client->t->s->net;

    switch (sim_below(net, 3)) {
    case 0:
        sim_close(net, e->ep);
        break;
    case 1:
        sim_reset(net, e->ep);
        break;
    default:
        sim_vanish(net, e->ep);
    }
}
