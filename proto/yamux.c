#include "proto/yamux.h"

/* One frame is processed in this order, whatever was in its flags (libp2p.md §6.1.2). Every phase
 * but HEAD may end in an event, so the phase is kept between calls. */
enum phase {
    PHASE_HEAD,
    PHASE_ANSWER, /* OPEN was given: waits for yamux_attach or yamux_refuse */
    PHASE_BODY,
    PHASE_DELTA,
    PHASE_FIN,
    PHASE_RST,
};

enum { YAMUX_VERSION = 0 };

/* ---- the table --------------------------------------------------------------------------- */

/* Multiply-shift over the vector (pointer low, pointer high, id), high half: strongly universal for
 * random keys, so that ids chosen by peers who do not know the key spread like random ones. The
 * constants only make an all-zero key usable. */
static struct yamux_stream **bucket_of(const struct yamux_table *t, const struct yamux *y,
                                       uint32_t id)
{
    uint64_t session = (uint64_t)(uintptr_t)y;
    uint64_t h = (t->key[0] ^ 0x9e3779b97f4a7c15U) * (session & 0xffffffffU) +
                 (t->key[1] ^ 0xc2b2ae3d27d4eb4fU) * (session >> 32) +
                 (t->key[2] ^ 0x165667b19e3779f9U) * id + t->key[3];

    return &t->bucket[(uint32_t)(h >> 32) & t->mask];
}

static struct yamux_stream *find(const struct yamux *y, uint32_t id)
{
    struct yamux_stream *s = *bucket_of(y->table, y, id);

    while (s && !(s->id == id && s->session == y))
        s = s->next_in_bucket;
    return s;
}

static bool is_ours(const struct yamux *y, uint32_t id)
{
    return ((id & 1) != 0) == y->dialer;
}

static void enter(struct yamux *y, struct yamux_stream *s, uint32_t id)
{
    struct yamux_stream **bucket = bucket_of(y->table, y, id);

    *s = (struct yamux_stream){ .next_in_bucket = *bucket,
                                .session = y,
                                .id = id,
                                .send_credit = YAMUX_WINDOW,
                                .recv_credit = YAMUX_WINDOW };
    *bucket = s;
    y->streams++;
}

void yamux_detach(struct yamux_stream *s)
{
    struct yamux *y = s->session;

    if (!y)
        return;
    struct yamux_stream **at = bucket_of(y->table, y, s->id);

    while (*at != s) {
        ASSERT(*at != NULL);
        at = &(*at)->next_in_bucket;
    }
    *at = s->next_in_bucket;
    s->next_in_bucket = NULL;
    s->session = NULL;
    ASSERT(y->streams > 0);
    y->streams--;
    if (!is_ours(y, s->id)) {
        ASSERT(y->inbound > 0);
        y->inbound--;
    }
    if (y->cur_stream == s)
        y->cur_stream = NULL; /* the rest of its body is drained */
}

/* ---- session ----------------------------------------------------------------------------- */

void yamux_init(struct yamux *y, struct yamux_table *table, bool dialer, uint16_t streams_max)
{
    ASSERT(table->bucket != NULL);
    ASSERT((table->mask & (table->mask + 1)) == 0);
    *y = (struct yamux){
        .table = table, .dialer = dialer, .streams_max = streams_max, .next_id = dialer ? 1 : 2
    };
}

bool yamux_open(struct yamux *y, struct yamux_stream *s)
{
    /* A peer that chose ids of our parity was failed at its SYN, so ours is free. */
    if (y->failed || y->remote_gone || y->next_id == 0 || y->streams == UINT16_MAX)
        return false;
    enter(y, s, y->next_id);
    s->syn_due = true;
    y->next_id = y->next_id > UINT32_MAX - 2 ? 0 : y->next_id + 2;
    return true;
}

void yamux_attach(struct yamux *y, struct yamux_stream *s)
{
    ASSERT(y->cur_phase == PHASE_ANSWER);
    enter(y, s, y->cur_id);
    s->ack_due = true;
    y->inbound++;
    y->cur_stream = s;
    y->cur_phase = PHASE_BODY;
}

void yamux_refuse(struct yamux *y)
{
    ASSERT(y->cur_phase == PHASE_ANSWER);
    y->cur_stream = NULL;
    y->cur_phase = PHASE_BODY;
}

/* ---- reading ----------------------------------------------------------------------------- */

static bool fail(struct yamux *y, struct yamux_ev *ev)
{
    y->failed = true;
    *ev = (struct yamux_ev){ .kind = YAMUX_EV_FAIL, .value = YAMUX_PROTOCOL_ERROR };
    return true;
}

/* A SYN: true with an event, or false with the frame to be drained. */
static bool on_syn(struct yamux *y, struct yamux_ev *ev)
{
    if (y->cur_id == 0 || is_ours(y, y->cur_id) || y->cur_stream)
        return fail(y, ev); /* wrong parity, or a live id (libp2p.md §6.1.3) */
    if (y->body_left > YAMUX_WINDOW)
        return fail(y, ev); /* more than the credit every stream starts with */
    if (y->cur_flags & YAMUX_RST)
        return false; /* opened and gone in one frame: nothing is left to tell */
    if (y->inbound >= y->streams_max || y->streams == UINT16_MAX) {
        *ev = (struct yamux_ev){ .kind = YAMUX_EV_REFUSED, .id = y->cur_id };
        return true;
    }
    y->cur_phase = PHASE_ANSWER;
    *ev = (struct yamux_ev){ .kind = YAMUX_EV_OPEN, .id = y->cur_id };
    return true;
}

static bool on_stream_frame(struct yamux *y, uint32_t length, struct yamux_ev *ev)
{
    y->cur_phase = PHASE_BODY;
    y->cur_stream = find(y, y->cur_id);
    y->body_left = y->cur_type == YAMUX_DATA ? length : 0;
    /* go's RST carries an error code where credit would be (libp2p.md §18, Q26). */
    y->cur_delta = y->cur_type == YAMUX_WINDOW_UPDATE && !(y->cur_flags & YAMUX_RST) ? length : 0;

    if (y->cur_flags & YAMUX_SYN)
        return on_syn(y, ev);
    if (y->cur_stream && y->body_left > y->cur_stream->recv_credit)
        return fail(y, ev);
    return false;
}

static bool on_ping(struct yamux *y, uint32_t value, struct yamux_ev *ev)
{
    bool syn = y->cur_flags & YAMUX_SYN, ack = y->cur_flags & YAMUX_ACK;

    if (syn == ack) /* neither question nor answer: the three clients disagree on what it means */
        return fail(y, ev);
    *ev = (struct yamux_ev){ .kind = syn ? YAMUX_EV_PING : YAMUX_EV_PONG, .value = value };
    return true;
}

/* The header is complete. true: *ev is set. */
static bool on_header(struct yamux *y, struct bytes head, struct yamux_ev *ev)
{
    struct cur c = cur_of(head);
    uint8_t version = cur_u8(&c);
    uint32_t length;

    y->cur_type = cur_u8(&c);
    y->cur_flags = cur_u16(&c);
    y->cur_id = cur_u32(&c);
    length = cur_u32(&c);
    ASSERT(!c.bad);
    if (version != YAMUX_VERSION)
        return fail(y, ev);

    switch (y->cur_type) {
    case YAMUX_DATA:
    case YAMUX_WINDOW_UPDATE:
        return on_stream_frame(y, length, ev);
    case YAMUX_PING:
        return on_ping(y, length, ev);
    case YAMUX_GO_AWAY:
        y->remote_gone = true; /* no new streams from us; those there may finish (§6.1.6) */
        *ev = (struct yamux_ev){ .kind = YAMUX_EV_GO_AWAY, .value = length };
        return true;
    default:
        return fail(y, ev);
    }
}

/* true: *ev is set. false: go on with the next phase, or stop for want of input. */
static bool read_head(struct yamux *y, struct cur *in, struct yamux_ev *ev)
{
    if (y->head_n == 0 && in->n >= YAMUX_HEADER) /* the common case: no copy */
        return on_header(y, cur_take(in, YAMUX_HEADER), ev);

    struct bytes part = cur_take(in, min_sz(in->n, (size_t)YAMUX_HEADER - y->head_n));

    if (part.n)
        memcpy(y->head + y->head_n, part.p, part.n);
    y->head_n = (uint8_t)(y->head_n + part.n);
    if (y->head_n < YAMUX_HEADER)
        return false;
    y->head_n = 0;
    return on_header(y, bytes_of(y->head, YAMUX_HEADER), ev);
}

static bool read_body(struct yamux *y, struct cur *in, struct yamux_ev *ev)
{
    struct yamux_stream *s = y->cur_stream;
    struct bytes data = cur_take(in, min_sz(in->n, y->body_left));

    y->body_left -= (uint32_t)data.n;
    /* Drained: frames of streams that are gone, and bytes behind a FIN, which nobody expects. */
    if (data.n == 0 || !s || s->rx_fin)
        return false;
    ASSERT(s->recv_credit >= data.n); /* the whole body was checked at its header */
    s->recv_credit -= (uint32_t)data.n;
    *ev = (struct yamux_ev){
        .kind = YAMUX_EV_DATA, .stream = s, .id = s->id, .data = data, .body_end = y->body_left == 0
    };
    return true;
}

static bool apply_delta(struct yamux *y, struct yamux_ev *ev)
{
    struct yamux_stream *s = y->cur_stream;

    if (!s || y->cur_delta == 0)
        return false;
    if (y->cur_delta > UINT32_MAX - s->send_credit) /* saturate (libp2p.md §6.1.4, check 34) */
        s->send_credit = UINT32_MAX;
    else
        s->send_credit += y->cur_delta;
    *ev = (struct yamux_ev){
        .kind = YAMUX_EV_CREDIT, .stream = s, .id = s->id, .value = y->cur_delta
    };
    return true;
}

static bool apply_fin(struct yamux *y, struct yamux_ev *ev)
{
    struct yamux_stream *s = y->cur_stream;

    if (!s || !(y->cur_flags & YAMUX_FIN) || s->rx_fin)
        return false;
    s->rx_fin = true;
    *ev = (struct yamux_ev){ .kind = YAMUX_EV_FIN, .stream = s, .id = s->id };
    return true;
}

static bool apply_rst(struct yamux *y, struct yamux_ev *ev)
{
    struct yamux_stream *s = y->cur_stream;

    if (!s || !(y->cur_flags & YAMUX_RST))
        return false;
    yamux_detach(s);
    *ev = (struct yamux_ev){ .kind = YAMUX_EV_RST, .stream = s, .id = s->id };
    return true;
}

void yamux_feed(struct yamux *y, struct cur *in, struct yamux_ev *ev)
{
    *ev = (struct yamux_ev){ .kind = YAMUX_EV_NONE };
    if (y->failed) {
        (void)fail(y, ev);
        return;
    }
    for (;;) { /* every turn uses input up or ends a phase, so the input bounds it */
        switch ((enum phase)y->cur_phase) {
        case PHASE_HEAD:
            if (read_head(y, in, ev))
                return;
            if (y->cur_phase == PHASE_HEAD && in->n == 0)
                return;
            break;
        case PHASE_ANSWER:
            ASSERT(y->cur_phase != PHASE_ANSWER); /* OPEN has not been answered */
            break;
        case PHASE_BODY:
            if (read_body(y, in, ev))
                return;
            if (y->body_left > 0) /* the input is used up */
                return;
            y->cur_phase = PHASE_DELTA;
            break;
        case PHASE_DELTA:
            y->cur_phase = PHASE_FIN;
            if (apply_delta(y, ev))
                return;
            break;
        case PHASE_FIN:
            y->cur_phase = PHASE_RST;
            if (apply_fin(y, ev))
                return;
            break;
        case PHASE_RST:
            y->cur_phase = PHASE_HEAD;
            if (apply_rst(y, ev)) {
                y->cur_stream = NULL;
                return;
            }
            y->cur_stream = NULL;
            break;
        }
    }
}

/* ---- writing ----------------------------------------------------------------------------- */

static void put_header(uint8_t *at, enum yamux_type type, uint16_t flags, uint32_t id,
                       uint32_t length)
{
    at[0] = YAMUX_VERSION;
    at[1] = (uint8_t)type;
    put_u16(at + 2, flags);
    put_u32(at + 4, id);
    put_u32(at + 8, length);
}

/* A due SYN or ACK goes out with the first frame of the stream, whatever it is. */
static uint16_t take_due(struct yamux_stream *s)
{
    uint16_t flags = s->syn_due ? YAMUX_SYN : s->ack_due ? YAMUX_ACK : 0;

    s->syn_due = s->ack_due = false;
    return flags;
}

void yamux_put_data(struct yamux_stream *s, uint8_t *at, uint32_t len, uint16_t flags)
{
    ASSERT(yamux_attached(s));
    ASSERT(!s->tx_fin);
    ASSERT((flags & ~YAMUX_FIN) == 0);
    ASSERT(len <= s->send_credit);
    s->send_credit -= len;
    s->tx_fin = (flags & YAMUX_FIN) != 0;
    put_header(at, YAMUX_DATA, (uint16_t)(flags | take_due(s)), s->id, len);
}

void yamux_put_ack(struct yamux_stream *s, uint8_t *at)
{
    ASSERT(yamux_attached(s));
    put_header(at, YAMUX_WINDOW_UPDATE, take_due(s), s->id, 0);
}

void yamux_put_grant(struct yamux_stream *s, uint8_t *at, uint32_t delta)
{
    ASSERT(yamux_attached(s));
    ASSERT(delta <=
           UINT32_MAX - s->recv_credit); /* rust ends the connection on overflow (§6.1.4) */
    s->recv_credit += delta;
    put_header(at, YAMUX_WINDOW_UPDATE, take_due(s), s->id, delta);
}

void yamux_put_rst(uint8_t *at, uint32_t id)
{
    put_header(at, YAMUX_WINDOW_UPDATE, YAMUX_RST, id, 0);
}

void yamux_put_ping(uint8_t *at, uint32_t value)
{
    put_header(at, YAMUX_PING, YAMUX_SYN, 0, value);
}

void yamux_put_pong(uint8_t *at, uint32_t value)
{
    put_header(at, YAMUX_PING, YAMUX_ACK, 0, value);
}

void yamux_put_go_away(uint8_t *at, uint32_t code)
{
    put_header(at, YAMUX_GO_AWAY, 0, 0, code);
}
