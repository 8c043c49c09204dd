/* Several yamux sessions: the table that they share, and two of them back to back under random
 * writes, grants, resets and cuts of the wire. */
#include "proto/yamux.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

enum { BUCKETS = 64 };
static struct yamux_stream *buckets[BUCKETS];
static struct yamux_table table;

/* ---- the shared table ---------------------------------------------------------------------------
 */

Test(yamux_table, tells_equal_ids_of_many_sessions_apart)
{
    enum { SESSIONS = 64, EACH = 16 };
    static struct yamux session[SESSIONS];
    static struct yamux_stream s[SESSIONS][EACH];
    struct yamux_ev ev;
    uint8_t h[YAMUX_HEADER];

    memset(buckets, 0, sizeof(buckets)); /* 16 streams per bucket: chains are walked */
    table = (struct yamux_table){ .bucket = buckets, .mask = BUCKETS - 1 };
    for (int i = 0; i < SESSIONS; i++) {
        yamux_init(&session[i], &table, true, 512);
        for (int k = 0; k < EACH; k++)
            cr_assert(yamux_open(&session[i], &s[i][k]));
    }
    for (int i = 0; i < SESSIONS; i += 2) /* every other stream of every other session goes */
        for (int k = 0; k < EACH; k += 2)
            yamux_detach(&s[i][k]);
    for (int i = 0; i < SESSIONS; i++)
        for (int k = 0; k < EACH; k++) {
            memset(h, 0, sizeof(h));
            h[1] = YAMUX_WINDOW_UPDATE;
            put_u32(h + 4, (uint32_t)(2 * k + 1));
            put_u32(h + 8, 5);
            struct cur c = cur_of(bytes_of(h, sizeof(h)));
            yamux_feed(&session[i], &c, &ev);
            if (i % 2 == 0 && k % 2 == 0) {
                cr_assert(eq(int, ev.kind, YAMUX_EV_NONE));
            } else {
                cr_assert(eq(int, ev.kind, YAMUX_EV_CREDIT));
                cr_assert(eq(ptr, ev.stream, &s[i][k]));
            }
        }
    for (int i = 0; i < SESSIONS; i++) {
        for (int k = 0; k < EACH; k++)
            yamux_detach(&s[i][k]);
        cr_assert(zero(u16, session[i].streams));
    }
    for (size_t b = 0; b < BUCKETS; b++)
        cr_assert(zero(ptr, buckets[b]));
}

Test(yamux_table, spreads_ids_in_any_stride)
{
    enum { N = 4096, STREAMS = 4096 };
    static struct yamux_stream *b[N];
    static struct yamux_stream s[STREAMS];
    static struct yamux session[8];

    for (int shift = 0; shift < 20; shift++) {
        struct yamux_table t = { .bucket = b, .mask = N - 1 };
        size_t longest = 0;

        for (int k = 0; k < 4; k++) /* any key, here a fixed one, so that the test is stable */
            t.key[k] = 0x0123456789abcdefU * (uint64_t)(2 * k + 3);
        memset(b, 0, sizeof(b));
        memset(s, 0, sizeof(s));
        for (size_t i = 0; i < 8; i++)
            yamux_init(&session[i], &t, true, 512);
        for (uint32_t i = 0; i < STREAMS; i++) {
            session[i % 8].next_id = ((i / 8) << shift) * 2 + 1;
            cr_assert(yamux_open(&session[i % 8], &s[i]));
        }
        for (size_t i = 0; i < N; i++) {
            size_t n = 0;

            for (struct yamux_stream *at = b[i]; at; at = at->next_in_bucket)
                n++;
            longest = n > longest ? n : longest;
        }
        cr_expect(lt(sz, longest, 24), "ids in steps of %u: a chain of %zu", 2U << shift, longest);
    }
}

/* ---- two sessions back to back ------------------------------------------------------------- */

enum { SIDES = 2, SLOTS = 12, WIRE = 1 << 20, CONTROL = 65536 };

struct end { /* one side's view of one stream */
    struct yamux_stream s;
    bool used;
    uint64_t sent, got, granted, allowed; /* allowed: what we let the peer send in all */
    bool reset;
};

struct side {
    struct yamux y;
    struct end end[SLOTS];
    uint8_t wire[WIRE]; /* bytes on their way to this side */
    size_t wire_n, wire_at;
    uint32_t pings, pongs;
    uint32_t refused;
};

static struct side side[SIDES];

static uint64_t rng_state;

static uint32_t rnd(uint32_t below)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)((rng_state >> 16) % below);
}

/* The byte at `at` of what side `from` writes into stream `id`. */
static uint8_t byte_at(int from, uint32_t id, uint64_t at)
{
    return (uint8_t)((at * 167 + (at >> 8) * 31 + id * 7 + (uint32_t)from * 101) >> 1);
}

/* NULL when full. The last CONTROL bytes are kept for answers, which cannot wait. */
static uint8_t *wire_room(int to, size_t n, size_t keep)
{
    struct side *d = &side[to];

    if (d->wire_at) {
        memmove(d->wire, d->wire + d->wire_at, d->wire_n - d->wire_at);
        d->wire_n -= d->wire_at;
        d->wire_at = 0;
    }
    if (n + keep > WIRE - d->wire_n)
        return NULL;
    d->wire_n += n;
    return d->wire + d->wire_n - n;
}

static struct end *free_end(int me)
{
    for (size_t i = 0; i < SLOTS; i++)
        if (!side[me].end[i].used)
            return &side[me].end[i];
    return NULL;
}

static struct end *some_end(int me)
{
    struct end *e = &side[me].end[rnd(SLOTS)];
    return e->used ? e : NULL;
}

static void end_start(struct end *e)
{
    struct yamux_stream s = e->s;

    *e = (struct end){ .s = s, .used = true, .allowed = YAMUX_WINDOW };
}

static void maybe_done(struct end *e)
{
    if (e->s.rx_fin && e->s.tx_fin) {
        yamux_detach(&e->s);
        e->used = false;
    }
}

static void act_write(int me, struct end *e, bool all)
{
    uint32_t n = all ? e->s.send_credit : rnd(e->s.send_credit + 1);
    bool fin = all || rnd(20) == 0;
    uint8_t *at;

    n = n > 70000 ? 70000 : n;
    if (e->s.tx_fin || !(at = wire_room(1 - me, YAMUX_HEADER + n, CONTROL)))
        return;
    yamux_put_data(&e->s, at, n, fin ? YAMUX_FIN : 0);
    for (uint32_t i = 0; i < n; i++)
        at[YAMUX_HEADER + i] = byte_at(me, e->s.id, e->sent + i);
    e->sent += n;
    maybe_done(e);
}

static void act(int me)
{
    struct end *e = some_end(me);
    uint8_t *at;
    uint32_t what = rnd(100);

    if (what < 10) {
        e = free_end(me);
        if (e && yamux_open(&side[me].y, &e->s))
            end_start(e);
    } else if (what < 60 && e) {
        act_write(me, e, false);
    } else if (what < 85 && e && !e->s.rx_fin && (at = wire_room(1 - me, YAMUX_HEADER, CONTROL))) {
        uint32_t delta = (uint32_t)(e->got + YAMUX_WINDOW - e->allowed);
        yamux_put_grant(&e->s, at, delta);
        e->allowed += delta;
    } else if (what < 90 && (at = wire_room(1 - me, YAMUX_HEADER, CONTROL))) {
        yamux_put_ping(at, side[me].pings++);
    } else if (what < 92 && e && (at = wire_room(1 - me, YAMUX_HEADER, CONTROL))) {
        if (e->s.syn_due) /* the peer must have heard of it to reset it */
            yamux_put_ack(&e->s, at);
        else
            yamux_put_rst(at, e->s.id), yamux_detach(&e->s), e->used = false;
    }
}

static void deliver(int me, uint32_t cut)
{
    struct side *d = &side[me];
    size_t n = min_sz(d->wire_n - d->wire_at, cut);
    struct cur c = cur_of(bytes_of(d->wire + d->wire_at, n));
    struct yamux_ev ev;

    /* The answers below move the wire of the other side only. */
    d->wire_at += n;
    for (yamux_feed(&d->y, &c, &ev); ev.kind != YAMUX_EV_NONE; yamux_feed(&d->y, &c, &ev)) {
        struct end *e = ev.stream ? CONTAINER_OF(ev.stream, struct end, s) : NULL;
        uint8_t *at = NULL;

        cr_assert(ne(int, ev.kind, YAMUX_EV_FAIL));
        switch (ev.kind) {
        case YAMUX_EV_OPEN:
            if ((e = free_end(me))) {
                yamux_attach(&d->y, &e->s);
                end_start(e);
                break;
            }
            yamux_refuse(&d->y);
            __attribute__((fallthrough));
        case YAMUX_EV_REFUSED:
            d->refused++;
            cr_assert(ne(ptr, (at = wire_room(1 - me, YAMUX_HEADER, 0)), NULL));
            yamux_put_rst(at, ev.id);
            break;
        case YAMUX_EV_DATA:
            for (size_t i = 0; i < ev.data.n; i++)
                if (ev.data.p[i] != byte_at(1 - me, ev.id, e->got + i))
                    cr_fatal("byte %zu of stream %u", (size_t)e->got + i, ev.id);
            e->got += ev.data.n;
            cr_assert(le(u64, e->got, e->allowed));
            cr_assert(eq(u64, e->allowed - e->got, e->s.recv_credit));
            break;
        case YAMUX_EV_FIN:
            maybe_done(e);
            break;
        case YAMUX_EV_RST:
            e->used = false;
            break;
        case YAMUX_EV_PING:
            cr_assert(ne(ptr, (at = wire_room(1 - me, YAMUX_HEADER, 0)), NULL));
            yamux_put_pong(at, ev.value);
            break;
        case YAMUX_EV_PONG:
            cr_assert(eq(u32, ev.value, d->pongs++));
            break;
        default:
            break;
        }
    }
    cr_assert(zero(sz, c.n));
}

static uint64_t drain(void) /* everybody finishes; returns the streams left */
{
    uint64_t left = 1;

    for (int turn = 0; left && turn < 1000; turn++) {
        left = 0;
        for (int me = 0; me < SIDES; me++) {
            deliver(me, UINT32_MAX);
            for (size_t i = 0; i < SLOTS; i++)
                if (side[me].end[i].used)
                    act_write(me, &side[me].end[i], true);
            left += side[me].y.streams;
        }
        left += side[0].wire_n - side[0].wire_at + side[1].wire_n - side[1].wire_at;
    }
    return left;
}

Test(yamux, two_sessions_keep_credit_and_lose_no_byte, .timeout = 60)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        rng_state = seed * 0x9e3779b97f4a7c15U;
        memset(buckets, 0, sizeof(buckets));
        memset(side, 0, sizeof(side));
        table = (struct yamux_table){ .bucket = buckets, .mask = BUCKETS - 1, .key = { seed } };
        yamux_init(&side[0].y, &table, true, 8);
        yamux_init(&side[1].y, &table, false, 8);
        for (int step = 0; step < 4000; step++) {
            act((int)rnd(2));
            if (rnd(3) == 0)
                deliver((int)rnd(2), 1 + rnd(rnd(4) ? 40000 : 30));
            for (int me = 0; me < SIDES; me++)
                cr_assert(le(u16, side[me].y.inbound, 8), "seed %lu", (unsigned long)seed);
        }
        cr_assert(zero(u64, drain()), "seed %lu", (unsigned long)seed);
        for (int me = 0; me < SIDES; me++) {
            cr_assert(eq(u32, side[me].pongs, side[me].pings), "seed %lu", (unsigned long)seed);
            cr_assert(zero(u16, side[me].y.inbound));
        }
        for (size_t b = 0; b < BUCKETS; b++)
            cr_assert(zero(ptr, buckets[b]), "seed %lu", (unsigned long)seed);
    }
}
