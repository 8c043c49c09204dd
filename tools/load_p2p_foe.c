/* tools/load_p2p_foe.c: what foes say, one op of each kind of attack. */
#include "tools/load_p2p_foe.h"

enum {
    PLAIN = 16384,      /* frames of one turn share a record of at most this */
    ONE_OP = 1024,      /* room for another one */
    CIRCUITS_KEPT = 32, /* CONNECT flood: a request is reset when so many are behind it */
};

struct attack attack;
static struct {
    uint64_t rng;
    uint8_t plain[PLAIN + ONE_OP];
    size_t plain_n;
    uint8_t hello[2][256]; /* RESERVE, CONNECT to nobody */
    size_t hello_n[2];
} g;

uint64_t foe_any(void)
{
    g.rng ^= g.rng << 13;
    g.rng ^= g.rng >> 7;
    g.rng ^= g.rng << 17;
    return g.rng;
}

void foe_any_bytes(uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(foe_any() >> 24);
}

/* ---- frames ------------------------------------------------------------------------------- */

static void frame(enum yamux_type type, uint16_t flags, uint32_t id, uint32_t length)
{
    uint8_t *at = g.plain + g.plain_n;

    ASSERT(g.plain_n + YAMUX_HEADER <= sizeof(g.plain));
    at[0] = 0;
    at[1] = (uint8_t)type;
    put_u16(at + 2, flags);
    put_u32(at + 4, id);
    put_u32(at + 8, length);
    g.plain_n += YAMUX_HEADER;
}

static void body(struct bytes b)
{
    ASSERT(g.plain_n + b.n <= sizeof(g.plain));
    memcpy(g.plain + g.plain_n, b.p, b.n);
    g.plain_n += b.n;
}

void foe_say(struct foe *f)
{
    struct bytes part = bytes_of(g.plain, g.plain_n);

    if (f->c && g.plain_n)
        lp_seal(f->c, &part, 1, part.n);
    attack.bytes += g.plain_n;
    g.plain_n = 0;
}

static uint32_t fresh_id(struct foe *f)
{
    f->next_id += 2;
    return f->next_id;
}

static void request(struct foe *f, uint16_t flags, struct bytes b)
{
    frame(YAMUX_DATA, flags, fresh_id(f), (uint32_t)b.n);
    body(b);
}

/* A stream of its own that agrees on `protocol` and then says n more bytes. */
static void stream_with(struct foe *f, const char *protocol, struct bytes more)
{
    uint8_t head[128];
    struct wcur w = wcur_of(head, sizeof(head));

    mss_dial_hello(&w, protocol);
    ASSERT(!w.bad);
    frame(YAMUX_DATA, YAMUX_SYN, fresh_id(f), (uint32_t)(w.wrote + more.n));
    body(bytes_of(head, w.wrote));
    body(more);
}

/* ---- one op of each kind -------------------------------------------------------------------- */

static void random_op(struct foe *f)
{
    uint8_t junk[600];
    struct bytes b = bytes_of(junk, 1 + foe_any() % sizeof(junk));

    foe_any_bytes(junk, b.n);
    switch ((enum stage)f->stage) {
    case ST_RECORD:
        lp_put_raw(f->c, b);
        attack.bytes += b.n;
        return;
    case ST_MUXER:
    case ST_YAMUX:
        body(b);
        return;
    case ST_HOP:
        stream_with(f, HOP_PROTOCOL, b);
        return;
    case ST_IDENT:
        stream_with(f, IDENT_PROTOCOL, b);
        return;
    case ST_PUSH:
        stream_with(f, IDENT_PUSH_PROTOCOL, b);
        return;
    case ST_PING:
        stream_with(f, PING_PROTOCOL, b);
        return;
    default:
        return;
    }
}

static void oversize_op(struct foe *f)
{
    static const uint8_t prefixes[][10] = { { 0x81, 0x20 }, /* 4097 */
                                            { 0xff, 0xff, 0xff, 0xff, 0x7f },
                                            { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                              0x7f } };
    static const uint8_t much[15000];

    switch ((enum stage)f->stage) {
    case ST_RECORD: /* the longest there is, of nothing that opens */
        lp_put_raw(f->c, bytes_str("\xff\xff"));
        for (int i = 0; i < 5; i++)
            lp_put_raw(f->c, bytes_of(much, 13107));
        attack.bytes += 65537;
        return;
    case ST_YAMUX: /* by the header, four ways in turn */
        frame(foe_any() & 1 ? YAMUX_DATA : YAMUX_WINDOW_UPDATE, YAMUX_SYN, fresh_id(f), 0);
        frame(YAMUX_DATA, f->life & 1 ? YAMUX_SYN : 0, f->life & 1 ? fresh_id(f) : f->next_id,
              f->life & 2 ? YAMUX_WINDOW + 1 : UINT32_MAX);
        return;
    case ST_MUXER:
        body(bytes_str("\xff\xff\xff\xff\x0f/yamux"));
        return;
    case ST_PUSH:
        stream_with(f, IDENT_PUSH_PROTOCOL, bytes_of(much, sizeof(much)));
        return;
    default:
        stream_with(f, HOP_PROTOCOL, bytes_of(prefixes[foe_any() % 3], 10));
        return;
    }
}

/* Data past the credit of a circuit whose target returns none; credit past 2^32. */
static void window_op(struct foe *f)
{
    static const uint8_t zeroes[PLAIN - YAMUX_HEADER];

    if (f->circuit_id) {
        frame(YAMUX_DATA, 0, f->circuit_id, sizeof(zeroes));
        body(bytes_of(zeroes, sizeof(zeroes)));
    } else if (f->ops == 0) {
        frame(YAMUX_WINDOW_UPDATE, YAMUX_SYN, fresh_id(f), UINT32_MAX);
    } else {
        frame(YAMUX_WINDOW_UPDATE, 0, f->next_id, UINT32_MAX);
    }
}

static void connect_op(struct foe *f)
{
    const struct foe *to = &attack.foe[(size_t)(f - attack.foe) ^ 1];
    uint8_t buf[256];
    struct wcur w = wcur_of(buf, sizeof(buf));

    if (f->ops & 1 && to->reserved) {
        mss_dial_hello(&w, HOP_PROTOCOL);
        hop_put_connect(&w, &to->me.me.id);
        request(f, YAMUX_SYN, bytes_of(buf, w.wrote));
    } else {
        request(f, YAMUX_SYN, bytes_of(g.hello[1], g.hello_n[1]));
    }
    if (f->ops >= CIRCUITS_KEPT)
        frame(YAMUX_WINDOW_UPDATE, YAMUX_RST, f->next_id - 2 * CIRCUITS_KEPT, 0);
}

bool foe_record_full(void)
{
    return g.plain_n > PLAIN - ONE_OP;
}

void foe_op(struct foe *f)
{
    switch (attack.kind) {
    case RANDOM:
        random_op(f);
        break;
    case OVERSIZE:
        oversize_op(f);
        break;
    case WINDOW:
        window_op(f);
        break;
    case SYN:
        frame(YAMUX_WINDOW_UPDATE, YAMUX_SYN, fresh_id(f), 0);
        break;
    case PING:
        frame(YAMUX_PING, YAMUX_SYN, 0, f->ops);
        break;
    case RST: /* opened and gone; and of what never was */
        if (f->ops & 1)
            frame(YAMUX_WINDOW_UPDATE, YAMUX_RST, f->next_id, 0);
        else
            frame(YAMUX_WINDOW_UPDATE, YAMUX_SYN, fresh_id(f), 0);
        break;
    case TINY: { /* a record of nothing costs the relay a whole opening */
        struct bytes none = bytes_of(g.plain, 0);

        lp_seal(f->c, &none, 1, 0);
        attack.bytes += NOISE_FRAME_HEAD + AEAD_TAG;
        break;
    }
    case RESERVE:
        request(f, YAMUX_SYN | YAMUX_FIN, bytes_of(g.hello[0], g.hello_n[0]));
        break;
    case CONNECT:
        connect_op(f);
        break;
    case HALFOPEN:
        break;
    }
    f->ops++;
}

void foe_init(void)
{
    struct peer_id nobody;
    struct identity me;
    uint8_t seed[32] = { 0xf0 };

    identity_from_seed(seed, &me);
    nobody = me.id;
    g.rng = lp_opt.seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    for (int i = 0; i < 2; i++) {
        struct wcur w = wcur_of(g.hello[i], sizeof(g.hello[i]));

        mss_dial_hello(&w, HOP_PROTOCOL);
        if (i == 0)
            hop_put_reserve(&w);
        else
            hop_put_connect(&w, &nobody);
        ASSERT(!w.bad);
        g.hello_n[i] = w.wrote;
    }
}
