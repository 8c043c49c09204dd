#include "proto/yamux.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define EXPECT_EV(ev, want) cr_assert(eq(int, (ev).kind, YAMUX_EV_##want))

/* ---- helpers ----------------------------------------------------------------------------- */

enum { BUCKETS = 64 };
static struct yamux_stream *buckets[BUCKETS];
static struct yamux_table table;
static struct yamux y;

static void start(bool dialer)
{
    memset(buckets, 0, sizeof(buckets));
    table = (struct yamux_table){ .bucket = buckets, .mask = BUCKETS - 1 };
    yamux_init(&y, &table, dialer, 512);
}

static struct bytes hex(const char *text, uint8_t *out)
{
    size_t n = 0;

    for (; *text; text += *text == ' ' ? 1 : 2)
        if (*text != ' ')
            out[n++] = (uint8_t)strtoul((char[3]){ text[0], text[1], 0 }, NULL, 16);
    return bytes_of(out, n);
}

static void head(uint8_t *at, uint8_t type, uint16_t flags, uint32_t id, uint32_t length)
{
    at[0] = 0;
    at[1] = type;
    put_u16(at + 2, flags);
    put_u32(at + 4, id);
    put_u32(at + 8, length);
}

/* Feeds bytes and returns the first event; what follows it in the input must be nothing. */
static struct yamux_ev feed(struct bytes in)
{
    struct cur c = cur_of(in);
    struct yamux_ev ev;

    yamux_feed(&y, &c, &ev);
    cr_assert(zero(sz, c.n));
    return ev;
}

static struct yamux_ev feed_head(uint8_t type, uint16_t flags, uint32_t id, uint32_t length)
{
    uint8_t h[YAMUX_HEADER];

    head(h, type, flags, id, length);
    return feed(bytes_of(h, sizeof(h)));
}

static struct yamux_ev feed_none(void)
{
    return feed(bytes_of("", 0));
}

/* An inbound stream, accepted, its ACK sent. */
static void accept_stream(struct yamux_stream *s, uint32_t id)
{
    uint8_t h[YAMUX_HEADER];

    EXPECT_EV(feed_head(YAMUX_WINDOW_UPDATE, YAMUX_SYN, id, 0), OPEN);
    yamux_attach(&y, s);
    EXPECT_EV(feed_none(), NONE);
    yamux_put_ack(s, h);
}

static void expect_fail(struct yamux_ev ev)
{
    EXPECT_EV(ev, FAIL);
    cr_assert(eq(u32, ev.value, YAMUX_PROTOCOL_ERROR));
}

/* ---- vectors of libp2p.md §6 --------------------------------------------------------------- */

static void expect_bytes(const uint8_t *got, const char *want)
{
    uint8_t w[64];
    struct bytes b = hex(want, w);

    cr_expect(zero(int, memcmp(got, b.p, b.n)), "%s", want);
}

Test(yamux_put, writes_the_golden_headers)
{
    uint8_t h[YAMUX_HEADER];
    struct yamux_stream s = { 0 };

    start(true);
    cr_assert(yamux_open(&y, &s));
    yamux_put_ack(&s, h);
    expect_bytes(h, "000100010000000100000000"); /* go/js open */
    yamux_put_grant(&s, h, 131072);
    expect_bytes(h, "000100000000000100020000");
    yamux_put_data(&s, h, 0, YAMUX_FIN);
    expect_bytes(h, "000000040000000100000000");
    yamux_put_rst(h, 1);
    expect_bytes(h, "000100080000000100000000");
    yamux_put_ping(h, 42);
    expect_bytes(h, "00020001000000000000002a");
    yamux_put_pong(h, 42);
    expect_bytes(h, "00020002000000000000002a");
    yamux_put_go_away(h, 0);
    expect_bytes(h, "000300000000000000000000");
    yamux_detach(&s);

    start(true);
    cr_assert(yamux_open(&y, &s));
    yamux_put_data(&s, h, 20, 0);
    expect_bytes(h, "000000010000000100000014"); /* rust open */

    start(false);
    EXPECT_EV(feed_head(YAMUX_WINDOW_UPDATE, YAMUX_SYN, 1, 0), OPEN);
    yamux_attach(&y, &s);
    yamux_put_ack(&s, h);
    expect_bytes(h, "000100020000000100000000"); /* our ack */
}

Test(yamux_put, takes_a_due_flag_along_once)
{
    uint8_t h[YAMUX_HEADER];
    struct yamux_stream s = { 0 };

    start(false);
    EXPECT_EV(feed_head(YAMUX_WINDOW_UPDATE, YAMUX_SYN, 1, 0), OPEN);
    yamux_attach(&y, &s);
    yamux_put_data(&s, h, 5, YAMUX_FIN);
    expect_bytes(h, "000000060000000100000005");
    cr_expect(s.tx_fin);
    yamux_put_grant(&s, h, 4096); /* the other direction lives on behind our FIN */
    expect_bytes(h, "000100000000000100001000");
    cr_expect(eq(u32, s.send_credit, YAMUX_WINDOW - 5));
    cr_expect(eq(u32, s.recv_credit, YAMUX_WINDOW + 4096));
}

/* ---- opening ------------------------------------------------------------------------------- */

Test(yamux_feed, opens_by_window_update_and_by_data) /* check 30 */
{
    struct yamux_stream a = { 0 }, b = { 0 };
    uint8_t buf[64];
    struct yamux_ev ev;

    start(false);
    ev = feed_head(YAMUX_WINDOW_UPDATE, YAMUX_SYN, 1, 1000); /* credit on top of the window */
    EXPECT_EV(ev, OPEN);
    cr_assert(eq(u32, ev.id, 1));
    yamux_attach(&y, &a);
    ev = feed_none();
    EXPECT_EV(ev, CREDIT);
    cr_assert(eq(ptr, ev.stream, &a));
    cr_assert(eq(u32, ev.value, 1000));
    cr_assert(eq(u32, a.send_credit, YAMUX_WINDOW + 1000));
    EXPECT_EV(feed_none(), NONE);

    /* Everything in one frame: OPEN, DATA, FIN, in successive calls (libp2p.md §6.1.2). */
    head(buf, YAMUX_DATA, YAMUX_SYN | YAMUX_FIN, 3, 4);
    memcpy(buf + YAMUX_HEADER, "abcd", 4);
    struct cur c = cur_of(bytes_of(buf, YAMUX_HEADER + 4));
    yamux_feed(&y, &c, &ev);
    EXPECT_EV(ev, OPEN);
    yamux_attach(&y, &b);
    yamux_feed(&y, &c, &ev);
    EXPECT_EV(ev, DATA);
    cr_assert(eq(ptr, ev.stream, &b));
    cr_assert(bytes_eq(ev.data, bytes_str("abcd")));
    cr_assert(ev.body_end);
    cr_assert(eq(u32, b.recv_credit, YAMUX_WINDOW - 4));
    yamux_feed(&y, &c, &ev);
    EXPECT_EV(ev, FIN);
    cr_assert(eq(ptr, ev.stream, &b));
    cr_assert(b.rx_fin);
    yamux_feed(&y, &c, &ev);
    EXPECT_EV(ev, NONE);
    cr_assert(eq(u16, y.streams, 2));
}

Test(yamux_feed, refuses_wrong_parity_live_ids_and_id_zero)
{
    static const uint32_t bad[] = { 0, 2, 5 }; /* session, ours, live */
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct yamux_stream s = { 0 };

        start(false);
        accept_stream(&s, 5);
        expect_fail(feed_head(YAMUX_WINDOW_UPDATE, YAMUX_SYN, bad[i], 0));
    }
    start(true); /* the dialer sees even ids open */
    expect_fail(feed_head(YAMUX_DATA, YAMUX_SYN, 1, 0));
    start(true);
    EXPECT_EV(feed_head(YAMUX_DATA, YAMUX_SYN, 2, 0), OPEN);
    yamux_refuse(&y);
}

Test(yamux_feed, refuses_the_513th_stream_by_reset_alone) /* check 32 */
{
    static struct yamux_stream s[512];
    struct yamux_stream one = { 0 };
    uint8_t frame[YAMUX_HEADER + 3], h[YAMUX_HEADER];
    struct yamux_ev ev;

    memset(s, 0, sizeof(s));
    start(false);
    for (uint32_t i = 0; i < 512; i++)
        accept_stream(&s[i], 2 * i + 1);
    head(frame, YAMUX_DATA, YAMUX_SYN | YAMUX_FIN, 2001, 3);
    memcpy(frame + YAMUX_HEADER, "xyz", 3);
    struct cur c = cur_of(bytes_of(frame, sizeof(frame)));
    yamux_feed(&y, &c, &ev);
    EXPECT_EV(ev, REFUSED);
    cr_assert(eq(u32, ev.id, 2001));
    yamux_feed(&y, &c, &ev);
    EXPECT_EV(ev, NONE);
    cr_assert(zero(sz, c.n));
    yamux_put_rst(h, 2001);
    expect_bytes(h, "0001000800 0007d100000000");

    cr_assert(yamux_open(&y, &one)); /* our own streams have their own bound */
    yamux_detach(&s[100]);
    EXPECT_EV(feed_head(YAMUX_WINDOW_UPDATE, YAMUX_SYN, 2003, 0), OPEN);
    yamux_attach(&y, &s[100]);
    EXPECT_EV(feed_head(YAMUX_WINDOW_UPDATE, YAMUX_SYN, 2005, 0), REFUSED);
    cr_assert(eq(u16, y.inbound, 512));
    cr_assert(eq(u16, y.streams, 513));
}

Test(yamux_feed, drains_what_a_refused_stream_carries)
{
    uint8_t frame[YAMUX_HEADER + 3];
    struct yamux_ev ev;

    start(false);
    head(frame, YAMUX_DATA, YAMUX_SYN, 1, 3);
    memcpy(frame + YAMUX_HEADER, "xyz", 3);
    struct cur c = cur_of(bytes_of(frame, sizeof(frame)));
    yamux_feed(&y, &c, &ev);
    EXPECT_EV(ev, OPEN);
    yamux_refuse(&y);
    yamux_feed(&y, &c, &ev);
    EXPECT_EV(ev, NONE);
    cr_assert(zero(sz, c.n));
    cr_assert(zero(u16, y.streams));
}

Test(yamux_feed, forgets_a_stream_that_opens_and_resets_in_one_frame)
{
    start(false);
    EXPECT_EV(feed_head(YAMUX_DATA, YAMUX_SYN | YAMUX_RST, 1, 0), NONE);
    cr_assert(zero(u16, y.streams));
    EXPECT_EV(feed_head(YAMUX_PING, YAMUX_SYN, 0, 9), PING);
}

Test(yamux_open, counts_up_until_ids_or_the_peer_end_it)
{
    struct yamux_stream s[4] = { 0 };

    for (int dialer = 0; dialer < 2; dialer++) {
        uint32_t last = dialer ? UINT32_MAX : UINT32_MAX - 1;

        start(dialer);
        cr_assert(yamux_open(&y, &s[0]));
        cr_assert(yamux_open(&y, &s[1]));
        cr_assert(eq(u32, s[0].id, dialer ? 1 : 2));
        cr_assert(eq(u32, s[1].id, dialer ? 3 : 4));
        y.next_id = last - 2;
        cr_assert(yamux_open(&y, &s[2]));
        cr_assert(yamux_open(&y, &s[3]));
        cr_assert(eq(u32, s[3].id, last));
        struct yamux_stream more = { 0 };
        cr_assert(not(yamux_open(&y, &more)));
        cr_assert(not(yamux_attached(&more)));
    }
    start(true);
    EXPECT_EV(feed_head(YAMUX_GO_AWAY, 0, 0, 0), GO_AWAY);
    cr_assert(not(yamux_open(&y, &s[0])));
}

/* ---- data, credit, ends ---------------------------------------------------------------------- */

Test(yamux_feed, accepts_the_whole_credit_and_fails_one_byte_beyond) /* check 33 */
{
    static uint8_t body[YAMUX_WINDOW];
    struct yamux_stream s = { 0 };

    start(false);
    accept_stream(&s, 1);
    EXPECT_EV(feed_head(YAMUX_DATA, 0, 1, YAMUX_WINDOW), NONE);
    EXPECT_EV(feed(bytes_of(body, sizeof(body))), DATA);
    cr_assert(zero(u32, s.recv_credit));
    EXPECT_EV(feed_head(YAMUX_DATA, 0, 1, 0), NONE);
    expect_fail(feed_head(YAMUX_DATA, 0, 1, 1));

    start(false);
    accept_stream(&s, 1);
    expect_fail(feed_head(YAMUX_DATA, 0, 1, YAMUX_WINDOW + 1));

    start(false); /* the first body of a stream has no more */
    EXPECT_EV(feed_head(YAMUX_DATA, YAMUX_SYN, 1, YAMUX_WINDOW), OPEN);
    yamux_refuse(&y);
    start(false);
    expect_fail(feed_head(YAMUX_DATA, YAMUX_SYN, 1, YAMUX_WINDOW + 1));

    uint8_t h[YAMUX_HEADER];
    start(false); /* a grant is worth exactly its delta */
    accept_stream(&s, 1);
    yamux_put_grant(&s, h, 4096);
    EXPECT_EV(feed_head(YAMUX_DATA, 0, 1, YAMUX_WINDOW + 4096), NONE);
    start(false);
    accept_stream(&s, 1);
    yamux_put_grant(&s, h, 4096);
    expect_fail(feed_head(YAMUX_DATA, 0, 1, YAMUX_WINDOW + 4097));
}

Test(yamux_feed, streams_one_large_body_as_it_comes) /* check 38 */
{
    static uint8_t body[YAMUX_WINDOW];
    struct yamux_stream s = { 0 };
    size_t got = 0;

    start(false);
    accept_stream(&s, 1);
    EXPECT_EV(feed_head(YAMUX_DATA, YAMUX_FIN, 1, YAMUX_WINDOW), NONE);
    while (got < sizeof(body)) {
        size_t n = min_sz(1400, sizeof(body) - got);
        struct yamux_ev ev = feed(bytes_of(body + got, n));

        EXPECT_EV(ev, DATA);
        cr_assert(eq(ptr, (void *)ev.data.p, body + got));
        cr_assert(eq(sz, ev.data.n, n));
        got += n;
        cr_assert(eq(int, ev.body_end, got == sizeof(body)));
        cr_assert(eq(u32, s.recv_credit, (uint32_t)(YAMUX_WINDOW - got)));
    }
    EXPECT_EV(feed_none(), FIN);
}

Test(yamux_feed, drains_a_body_whose_stream_is_detached_in_the_middle) /* check 36 */
{
    struct yamux_stream s = { 0 };
    uint8_t wire[20 + 2 * YAMUX_HEADER];
    struct yamux_ev ev;

    start(false);
    accept_stream(&s, 1);
    EXPECT_EV(feed_head(YAMUX_DATA, YAMUX_FIN | YAMUX_RST, 1, 30), NONE);
    EXPECT_EV(feed(bytes_str("0123456789")), DATA);
    yamux_detach(&s);
    yamux_detach(&s);
    memset(&s, 0xee, sizeof(s)); /* its memory is the caller's again */
    memset(wire, 'x', 20);
    head(wire + 20, YAMUX_WINDOW_UPDATE, YAMUX_RST, 1, 0);
    head(wire + 20 + YAMUX_HEADER, YAMUX_PING, YAMUX_SYN, 0, 7);
    struct cur c = cur_of(bytes_of(wire, sizeof(wire)));
    yamux_feed(&y, &c, &ev);
    EXPECT_EV(ev, PING);
    cr_assert(eq(u32, ev.value, 7));
    cr_assert(zero(u16, y.streams));
    cr_assert(zero(u16, y.inbound));
}

Test(yamux_feed, drains_frames_of_unknown_streams) /* check 37 */
{
    static const uint32_t ids[] = { 0, 1, 2, 77, UINT32_MAX };
    uint8_t body[100] = { 0 };

    start(false);
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        EXPECT_EV(feed_head(YAMUX_DATA, YAMUX_FIN, ids[i], 100), NONE);
        EXPECT_EV(feed(bytes_of(body, 100)), NONE);
        EXPECT_EV(feed_head(YAMUX_WINDOW_UPDATE, 0, ids[i], 9), NONE);
        EXPECT_EV(feed_head(YAMUX_WINDOW_UPDATE, YAMUX_RST, ids[i], 0), NONE);
        EXPECT_EV(feed_head(YAMUX_PING, YAMUX_SYN, 0, ids[i]), PING);
    }
    /* Far more than any credit: nobody promised to keep it. */
    EXPECT_EV(feed_head(YAMUX_DATA, 0, 9, UINT32_MAX), NONE);
}

Test(yamux_feed, keeps_the_other_direction_open_behind_a_fin) /* check 35 */
{
    struct yamux_stream s = { 0 };
    uint8_t h[YAMUX_HEADER];

    start(false);
    accept_stream(&s, 1);
    EXPECT_EV(feed_head(YAMUX_WINDOW_UPDATE, YAMUX_FIN, 1, 500), CREDIT);
    EXPECT_EV(feed_none(), FIN);
    cr_assert(yamux_attached(&s));
    yamux_put_data(&s, h, 1000, 0);
    EXPECT_EV(feed_head(YAMUX_WINDOW_UPDATE, 0, 1, 1000), CREDIT);
    cr_assert(eq(u32, s.send_credit, YAMUX_WINDOW + 500));
    /* A second FIN says nothing new, and bytes behind a FIN reach nobody. */
    EXPECT_EV(feed_head(YAMUX_DATA, YAMUX_FIN, 1, 2), NONE);
    EXPECT_EV(feed(bytes_str("zz")), NONE);
    EXPECT_EV(feed_head(YAMUX_DATA, YAMUX_RST, 1, 0), RST);
    cr_assert(not(yamux_attached(&s)));
}

Test(yamux_feed, saturates_credit) /* check 34 */
{
    struct yamux_stream s = { 0 };

    start(false);
    accept_stream(&s, 1);
    EXPECT_EV(feed_head(YAMUX_WINDOW_UPDATE, 0, 1, UINT32_MAX - YAMUX_WINDOW), CREDIT);
    cr_assert(eq(u32, s.send_credit, UINT32_MAX));
    EXPECT_EV(feed_head(YAMUX_WINDOW_UPDATE, 0, 1, UINT32_MAX), CREDIT);
    cr_assert(eq(u32, s.send_credit, UINT32_MAX));
    EXPECT_EV(feed_head(YAMUX_WINDOW_UPDATE, 0, 1, 0), NONE);
}

Test(yamux_feed, takes_the_length_of_a_reset_for_a_code) /* Q26 */
{
    struct yamux_stream s = { 0 };
    uint8_t buf[16];

    start(false);
    accept_stream(&s, 1);
    struct yamux_ev ev = feed(hex("000100080000000100001002", buf));
    EXPECT_EV(ev, RST);
    cr_assert(eq(ptr, ev.stream, &s));
    cr_assert(not(yamux_attached(&s)));
    cr_assert(eq(u32, s.send_credit, YAMUX_WINDOW));
    EXPECT_EV(feed_none(), NONE);
}

Test(yamux_feed, delivers_body_fin_and_reset_of_one_frame_in_order)
{
    struct yamux_stream s = { 0 };

    start(false);
    accept_stream(&s, 1);
    EXPECT_EV(feed_head(YAMUX_DATA, YAMUX_ACK | YAMUX_FIN | YAMUX_RST, 1, 1), NONE);
    EXPECT_EV(feed(bytes_str("a")), DATA);
    EXPECT_EV(feed_none(), FIN);
    EXPECT_EV(feed_none(), RST);
    EXPECT_EV(feed_none(), NONE);
}

/* ---- the session ----------------------------------------------------------------------------- */

Test(yamux_feed, answers_pings_by_flag) /* check 31, Q39 */
{
    struct yamux_ev ev;
    uint8_t h[YAMUX_HEADER];

    start(false);
    ev = feed_head(YAMUX_PING, YAMUX_SYN, 0, 0xdeadbeef);
    EXPECT_EV(ev, PING);
    yamux_put_pong(h, ev.value);
    expect_bytes(h, "0002000200000000deadbeef");
    ev = feed_head(YAMUX_PING, YAMUX_ACK, 0, 5);
    EXPECT_EV(ev, PONG);
    cr_assert(eq(u32, ev.value, 5));
    expect_fail(feed_head(YAMUX_PING, 0, 0, 5));
    start(false);
    expect_fail(feed_head(YAMUX_PING, YAMUX_SYN | YAMUX_ACK, 0, 5));
}

Test(yamux_feed, lets_streams_finish_after_a_go_away) /* check 39 */
{
    struct yamux_stream s = { 0 };
    struct yamux_ev ev;

    start(false);
    accept_stream(&s, 1);
    ev = feed_head(YAMUX_GO_AWAY, 0, 0, 2);
    EXPECT_EV(ev, GO_AWAY);
    cr_assert(eq(u32, ev.value, 2));
    cr_assert(y.remote_gone);
    EXPECT_EV(feed_head(YAMUX_DATA, 0, 1, 2), NONE);
    EXPECT_EV(feed(bytes_str("ab")), DATA);
}

Test(yamux_feed, fails_unknown_versions_and_types_for_good)
{
    uint8_t h[YAMUX_HEADER];

    for (unsigned v = 1; v < 256; v++) {
        start(false);
        head(h, YAMUX_PING, YAMUX_SYN, 0, 1);
        h[0] = (uint8_t)v;
        expect_fail(feed(bytes_of(h, sizeof(h))));
    }
    for (unsigned t = 4; t < 256; t++) {
        start(false);
        expect_fail(feed_head((uint8_t)t, YAMUX_SYN, 0, 1));
    }
    struct yamux_stream s = { 0 };
    struct cur c = cur_of(bytes_of(h, sizeof(h)));
    struct yamux_ev ev;
    yamux_feed(&y, &c, &ev);
    EXPECT_EV(ev, FAIL);
    cr_assert(not(yamux_open(&y, &s)));
}

/* ---- cuts ---------------------------------------------------------------------------------------
 */

/* A rust client's first half second (libp2p.md §22.1), with a reset and a GoAway behind it. */
static size_t trace(uint8_t *out)
{
    static const char *const lines[] = {
        "000200010000000000000000",          "000000010000000100000005 68656c6c6f",
        "000000000000000100000003020800",    "000000040000000100000000",
        "000000050000000300000002 6162",     "000100000000000300001000",
        "000000000000006300000004 64656164", "000100080000000300000007",
        "000300000000000000000001",
    };
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        n += hex(lines[i], out + n).n;
    return n;
}

struct record {
    size_t events;
    char log[1024]; /* kinds, ids and bytes; neighbouring DATA of one stream joined */
    size_t n;
    struct yamux_stream stream[8];
    size_t streams;
};

static void record_put(struct record *r, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    r->n += (size_t)vsnprintf(r->log + r->n, sizeof(r->log) - r->n, fmt, ap);
    va_end(ap);
    cr_assert(lt(sz, r->n, sizeof(r->log)));
}

static void record_feed(struct record *r, struct bytes in)
{
    struct cur c = cur_of(in);
    struct yamux_ev ev;

    for (yamux_feed(&y, &c, &ev); ev.kind != YAMUX_EV_NONE; yamux_feed(&y, &c, &ev)) {
        r->events++;
        if (ev.kind == YAMUX_EV_OPEN) {
            record_put(r, "O%u;", ev.id);
            yamux_attach(&y, &r->stream[r->streams++]);
        } else if (ev.kind == YAMUX_EV_DATA) {
            record_put(r, "%.*s%s", (int)ev.data.n, ev.data.p, ev.body_end ? ";" : "");
            for (size_t i = 0; i < ev.data.n; i++) /* NULs would end the log */
                if (!ev.data.p[i])
                    record_put(r, "0");
        } else {
            record_put(r, "%d/%u/%u;", ev.kind, ev.id, ev.value);
        }
    }
    cr_assert(zero(sz, c.n));
}

Test(yamux_feed, gives_the_same_events_however_the_bytes_are_cut)
{
    uint8_t wire[256];
    size_t n = trace(wire);
    struct record whole = { 0 };

    start(false);
    record_feed(&whole, bytes_of(wire, n));
    cr_assert(gt(sz, whole.events, 10));
    for (size_t at = 0; at <= n; at++) {
        struct record cut = { 0 };

        start(false);
        record_feed(&cut, bytes_of(wire, at));
        record_feed(&cut, bytes_of(wire + at, n - at));
        cr_assert(eq(str, cut.log, whole.log), "cut at %zu", at);
    }
    struct record bytewise = { 0 };
    start(false);
    for (size_t i = 0; i < n; i++)
        record_feed(&bytewise, bytes_of(wire + i, 1));
    cr_assert(eq(str, bytewise.log, whole.log));
}

Test(yamux_feed, says_nothing_on_a_truncated_header)
{
    uint8_t h[YAMUX_HEADER];

    head(h, YAMUX_PING, YAMUX_SYN, 0, 1);
    for (size_t n = 0; n < sizeof(h); n++) {
        start(false);
        cr_assert(eq(int, feed(bytes_of(h, n)).kind, YAMUX_EV_NONE), "event after %zu bytes", n);
    }
}
