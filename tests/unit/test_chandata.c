/* ChannelData, the first byte, and the framing of a stream in every split. */
#include "proto/chandata.h"
#include "tests/unit/stun_vec.h"

/* ---- one message --------------------------------------------------------------------------- */

Test(chandata_decode, rejects_every_truncation)
{
    static const uint8_t wire[] = { 0x40, 0x01, 0x00, 0x03, 'a', 'b', 'c', 0x00 };
    struct chandata m;

    for (size_t n = 0; n < sizeof(wire) - 1; n++) { /* the last byte is padding and may go */
        uint8_t *copy;
        struct bytes in = tight(bytes_of(wire, n), &copy);

        cr_expect(not(chandata_decode(in, &m)), "accepted %zu bytes", n);
        free(copy);
    }
    for (size_t n = sizeof(wire) - 1; n <= sizeof(wire); n++) {
        cr_assert(chandata_decode(bytes_of(wire, n), &m));
        cr_expect(m.channel == 0x4001 && bytes_eq(m.data, bytes_str("abc")));
    }
}

Test(chandata_decode, reads_and_writes_the_published_message)
{
    struct chandata m, hello = { 0x4000, bytes_str("hello") };
    uint8_t buf[16];
    struct wcur w = wcur_of(buf, sizeof(buf));

    chandata_put(&w, &hello, false);
    expect_wrote(&w, buf, "4000000568656c6c6f");
    memset(buf, 0xa5, sizeof(buf));
    w = wcur_of(buf, sizeof(buf));
    chandata_put(&w, &hello, true);
    expect_wrote(&w, buf, "4000000568656c6c6f000000");
    cr_assert(chandata_decode(hex("4000000568656c6c6f000000"), &m));
    cr_expect(m.channel == 0x4000 && bytes_eq(m.data, bytes_str("hello")));
    EXPECT_BAD_IN_EVERY_SMALLER_ROOM(12, tiny, chandata_put(&tiny, &hello, true));
}

Test(chandata_decode, turn_69_lengths_are_the_header_s)
{
    struct chandata m;

    cr_expect(not(chandata_decode(hex("400000040102 03"), &m)));
    cr_assert(chandata_decode(hex("40000001 01 ffffff"), &m)); /* three bytes too many */
    cr_expect(eq(sz, m.data.n, 1));
    cr_assert(chandata_decode(hex("40000001 01 ffffffffff"), &m)); /* or more */
    cr_expect(eq(sz, m.data.n, 1));
    cr_assert(chandata_decode(hex("40000000"), &m)); /* an empty datagram */
    cr_expect(zero(sz, m.data.n));
}

Test(chandata_decode, takes_the_channels_of_both_rfcs_and_no_others)
{
    for (unsigned n = 0; n <= UINT16_MAX; n++) {
        uint8_t wire[CHAN_HEADER] = { (uint8_t)(n >> 8), (uint8_t)n };
        struct chandata m;

        cr_assert(chandata_decode(bytes_of(wire, sizeof(wire)), &m) ==
                      (n >= CHAN_MIN && n <= CHAN_COMPAT_MAX),
                  "%04x", n);
    }
}

Test(chandata_padding, completes_a_word)
{
    for (size_t n = 0; n < 100; n++)
        cr_expect(chandata_padding(n) < 4 && (n + chandata_padding(n)) % 4 == 0);
    cr_expect(eq(sz, chandata_padding(65535), 1));
}

/* ---- the first byte ------------------------------------------------------------------------ */

Test(first_byte, matches_the_table_of_turn_md_1)
{
    static const struct {
        unsigned from, to;
        enum first_byte what;
    } rows[] = {
        { 0x00, 0x03, FIRST_STUN }, { 0x04, 0x0f, FIRST_NOTHING }, { 0x10, 0x13, FIRST_ZRTP },
        { 0x14, 0x3f, FIRST_DTLS }, { 0x40, 0x4f, FIRST_CHANNEL }, { 0x50, 0x7f, FIRST_QUIC },
        { 0x80, 0xbf, FIRST_RTP },  { 0xc0, 0xff, FIRST_QUIC },
    };
    unsigned seen = 0;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (unsigned b = rows[i].from; b <= rows[i].to; b++, seen++) {
            bool old = b >= 0x50 && b <= 0x7f; /* turn_66: a channel in compatibility mode only */

            cr_expect(first_byte((uint8_t)b, false) == rows[i].what, "%02x", b);
            cr_expect(first_byte((uint8_t)b, true) == (old ? FIRST_CHANNEL : rows[i].what));
        }
    cr_expect(seen == 256);
}

Test(stream_kind, turn_75_cve_2020_6061_http_and_proxy_headers_are_never_parsed)
{
    cr_expect(stream_kind(bytes_of(NULL, 0)) == STREAM_MORE);
    cr_expect(stream_kind(bytes_str("GET / HTTP/1.1\r\n")) == STREAM_OTHER);
    cr_expect(stream_kind(bytes_str("POST")) == STREAM_OTHER);
    cr_expect(stream_kind(bytes_str("H")) == STREAM_OTHER);
    cr_expect(stream_kind(bytes_str("PROXY TCP4 ")) == STREAM_OTHER);
    cr_expect(stream_kind(hex("0d0a0d0a000d0a515549540a")) == STREAM_OTHER);
    cr_expect(stream_kind(hex("160301")) == STREAM_TLS);
    cr_expect(stream_kind(hex(V8)) == STREAM_TURN);
    cr_expect(stream_kind(hex("4000000568656c6c6f000000")) == STREAM_OTHER);
}

/* ---- framing ------------------------------------------------------------------------------- */

Test(frame_take, tells_what_it_needs)
{
    struct bytes in = hex(V10);
    struct bytes unit;
    size_t need;

    for (size_t n = 0; n < in.n; n++) {
        struct cur c = cur_of(bytes_of(in.p, n));

        need = 0;
        cr_expect(frame_take(&c, FRAME_MAX, &unit, &need) == FRAME_MORE);
        cr_expect(eq(sz, c.n, n));
        cr_expect(eq(sz, need, n < 4 ? 4 : 28));
    }
    struct cur c = cur_of(in);

    cr_expect(frame_take(&c, FRAME_MAX, &unit, &need) == FRAME_STUN);
    cr_expect(c.n == 0 && bytes_eq(unit, in));
}

Test(frame_take, turn_74_another_first_byte_closes)
{
    for (unsigned b = 0; b < 256; b++) {
        uint8_t wire[1] = { (uint8_t)b };
        struct cur c = cur_of(bytes_of(wire, 1));
        struct bytes unit;
        size_t need;

        cr_expect(frame_take(&c, FRAME_MAX, &unit, &need) == (b & 0x80 ? FRAME_BAD : FRAME_MORE),
                  "%02x", b);
    }
}

Test(frame_take, holds_its_bound_exactly)
{
    static uint8_t wire[FRAME_MAX + 4];
    struct bytes unit;
    size_t need;

    for (unsigned length = 0; length <= UINT16_MAX; length += length < 300 ? 1 : 97) {
        for (unsigned channel = 0; channel < 2; channel++) {
            size_t total = channel ? 4 + (length + 3) / 4 * 4 : 20 + length;

            put_u16(wire, channel ? 0x4000 : 0x0001);
            put_u16(wire + 2, (uint16_t)length);
            for (int off = -1; off <= 1; off++) {
                size_t max = total + (size_t)off;
                struct cur c = cur_of(bytes_of(wire, sizeof(wire)));

                if (max < STUN_HEADER || max > FRAME_MAX)
                    continue;
                enum frame f = frame_take(&c, max, &unit, &need);

                cr_assert(f == (off < 0   ? FRAME_TOO_LONG
                                : channel ? FRAME_CHANNEL
                                          : FRAME_STUN),
                          "%u of %zu", length, max);
                if (off >= 0)
                    cr_assert(unit.n == total && c.n == sizeof(wire) - total);
            }
        }
    }
    put_u16(wire, 0x0001); /* one past what any buffer holds */
    put_u16(wire + 2, 65535);
    struct cur c = cur_of(bytes_of(wire, sizeof(wire)));

    cr_expect(frame_take(&c, FRAME_MAX, &unit, &need) == FRAME_TOO_LONG);
}

/* A stream of units of all kinds, and what must come out of it. */
struct stream {
    uint8_t b[4096];
    size_t n;
    size_t units;
    struct {
        enum frame what;
        size_t at, n;
    } unit[64];
};

static void append(struct stream *s, enum frame what, struct bytes unit)
{
    memcpy(s->b + s->n, unit.p, unit.n);
    s->unit[s->units].what = what;
    s->unit[s->units].at = s->n;
    s->unit[s->units++].n = unit.n;
    s->n += unit.n;
}

static void append_channel(struct stream *s, uint16_t channel, size_t n)
{
    uint8_t data[300], unit[320];
    struct chandata m = { channel, { data, n } };
    struct wcur w = wcur_of(unit, sizeof(unit));

    for (size_t i = 0; i < n; i++)
        data[i] = (uint8_t)(i * 7 + n);
    chandata_put(&w, &m, true);
    cr_assert(not(w.bad));
    append(s, FRAME_CHANNEL, bytes_of(unit, w.wrote));
}

static struct stream mixed_stream(void)
{
    struct stream s = { .n = 0 };

    append(&s, FRAME_STUN, hex(V10));
    append_channel(&s, 0x4000, 5); /* turn_74: three bytes of padding, then STUN */
    append(&s, FRAME_STUN, hex(V8));
    append(&s, FRAME_STUN, hex(V11));
    for (size_t n = 0; n < 6; n++)
        append_channel(&s, 0x7ffe, n);
    append(&s, FRAME_STUN, hex(V12));
    append_channel(&s, 0x4fff, 250);
    append(&s, FRAME_STUN, hex(V8));
    return s;
}

/* Feeds one piece, in memory of its own that is gone afterwards. */
static void feed(struct frame_carry *f, const struct stream *s, size_t at, size_t n, size_t *seen)
{
    uint8_t *copy;
    struct cur in = cur_of(tight(bytes_of(s->b + at, n), &copy));
    struct bytes unit;
    enum frame got;

    while ((got = frame_next(f, &in, &unit)) != FRAME_MORE) {
        cr_assert(s->units > *seen && got == s->unit[*seen].what, "unit %zu", *seen);
        cr_assert(bytes_eq(unit, bytes_of(s->b + s->unit[*seen].at, s->unit[*seen].n)));
        ++*seen;
    }
    cr_assert(in.n == 0 && !in.bad);
    free(copy);
}

Test(frame_next, turn_74_gives_the_same_units_at_every_split)
{
    struct stream s = mixed_stream();
    uint8_t buf[512];
    struct frame_carry f;

    for (size_t cut = 0; cut <= s.n; cut++) {
        size_t seen = 0;

        frame_init(&f, buf, sizeof(buf));
        feed(&f, &s, 0, cut, &seen);
        feed(&f, &s, cut, s.n - cut, &seen);
        cr_assert(eq(sz, seen, s.units), "cut at %zu", cut);
    }
    for (size_t piece = 1; piece < 40; piece++) {
        size_t seen = 0;

        frame_init(&f, buf, sizeof(buf));
        for (size_t at = 0; at < s.n; at += piece)
            feed(&f, &s, at, min_sz(piece, s.n - at), &seen);
        cr_assert(eq(sz, seen, s.units), "pieces of %zu", piece);
    }
}

Test(frame_next, gives_the_same_units_at_seeded_splits)
{
    struct stream s = mixed_stream();

    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct seeded r = { seed };
        uint8_t buf[260]; /* exactly the longest unit: 4 + 252 */
        struct frame_carry f;
        size_t seen = 0;

        frame_init(&f, buf, 256);
        for (size_t at = 0, n; at < s.n; at += n) {
            n = min_sz(seeded_below(&r, seeded_below(&r, 4) ? 30 : 300), s.n - at);
            feed(&f, &s, at, n, &seen);
        }
        cr_assert(eq(sz, seen, s.units), "seed %zu", (size_t)seed);
    }
}

Test(frame_next, stops_at_its_bound_and_at_strangers_in_every_split)
{
    uint8_t wire[64] = { 0x40, 0x00, 0x00, 29 }; /* 36 with header and padding */

    for (size_t cut = 0; cut <= 40; cut++)
        for (int kind = 0; kind < 3; kind++) {
            uint8_t buf[36];
            struct frame_carry f;
            struct bytes unit;
            enum frame want = kind == 0 ? FRAME_CHANNEL : kind == 1 ? FRAME_TOO_LONG : FRAME_BAD;
            enum frame got;

            wire[0] = kind == 2 ? 0x80 : 0x40;
            frame_init(&f, buf, kind == 1 ? 35 : 36);
            struct cur a = cur_of(bytes_of(wire, cut)), b = cur_of(bytes_of(wire + cut, 40 - cut));

            got = frame_next(&f, &a, &unit);
            if (got == FRAME_MORE)
                got = frame_next(&f, &b, &unit);
            cr_expect(got == want, "cut %zu, kind %d: %d", cut, kind, got);
        }
}
