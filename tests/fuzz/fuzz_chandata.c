/* ChannelData and the framing of a stream. The first bytes choose the bound and where the stream is
 * cut; the units must be those that the whole gives. */
#include "tests/fuzz/fuzz.h"

#include "proto/chandata.h"

enum { UNITS_MAX = 256, CAP_MIN = 20, CAP_MAX = 600 };

struct units {
    size_t n;
    enum frame end;
    size_t left; /* bytes of an incomplete unit */
    struct {
        enum frame what;
        size_t at, n;
    } unit[UNITS_MAX];
};

/* The definition: one unit after the other off the front of everything. */
static void take_whole(struct bytes in, size_t cap, struct units *u)
{
    struct cur c = cur_of(in);
    struct bytes unit;
    size_t need;

    u->n = 0;
    while (u->n < UNITS_MAX) {
        struct cur before = c;

        u->end = frame_take(&c, cap, &unit, &need);
        if (u->end == FRAME_MORE) {
            CHECK(c.n == before.n && need > c.n && need <= cap);
            u->left = c.n;
            return;
        }
        if (u->end == FRAME_BAD || u->end == FRAME_TOO_LONG)
            return;
        CHECK(unit.p == before.p && unit.n == before.n - c.n && unit.n >= CHAN_HEADER);
        u->unit[u->n].what = u->end;
        u->unit[u->n].at = (size_t)(unit.p - in.p);
        u->unit[u->n++].n = unit.n;
    }
}

static void take_pieces(struct bytes in, struct bytes cuts, size_t cap, const struct units *want)
{
    static uint8_t buf[CAP_MAX];
    struct frame_carry f;
    struct cur c = cur_of(in);
    size_t seen = 0, at = 0;

    frame_init(&f, buf, cap);
    while (c.n) {
        size_t n = cuts.n ? (size_t)cuts.p[at++ % cuts.n] + 1 : c.n;
        struct cur piece = cur_of(cur_take(&c, min_sz(n, c.n)));
        struct bytes unit;
        enum frame got;

        while ((got = frame_next(&f, &piece, &unit)) != FRAME_MORE) {
            if (got == FRAME_BAD || got == FRAME_TOO_LONG) {
                CHECK(seen == want->n && got == want->end);
                return;
            }
            CHECK(seen < want->n && got == want->unit[seen].what);
            CHECK(bytes_eq(unit, bytes_of(in.p + want->unit[seen].at, want->unit[seen].n)));
            if (++seen == UNITS_MAX)
                return;
        }
        CHECK(piece.n == 0 && f.n < cap + 1);
    }
    CHECK(seen == want->n && want->end == FRAME_MORE && f.n == (f.shown ? f.n : want->left));
}

static void one_message(struct bytes in)
{
    static uint8_t out[70000];
    struct chandata m, again;
    struct wcur w = wcur_of(out, sizeof(out));

    if (!chandata_decode(in, &m))
        return;
    CHECK(m.data.n + CHAN_HEADER <= in.n && m.channel >= CHAN_MIN && m.channel <= CHAN_COMPAT_MAX);
    chandata_put(&w, &m, in.p[0] & 1);
    CHECK(!w.bad && memcmp(out, in.p, CHAN_HEADER + m.data.n) == 0);
    CHECK(chandata_decode(bytes_of(out, w.wrote), &again));
    CHECK(again.channel == m.channel && bytes_eq(again.data, m.data));
    CHECK(!(in.p[0] & 1) || w.wrote % 4 == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct units want;
    struct cur c = cur_of(bytes_of(data, size));
    size_t cap = CAP_MIN + (size_t)fuzz_u8(&c) * 4 % (CAP_MAX - CAP_MIN);
    struct bytes cuts = fuzz_bytes(&c), in = fuzz_rest(&c);

    one_message(in);
    if (in.n) {
        first_byte(in.p[0], false);
        CHECK(stream_kind(in) == STREAM_TURN || first_byte(in.p[0], true) != FIRST_STUN);
    }
    take_whole(in, cap, &want);
    take_pieces(in, cuts, cap, &want);
    return 0;
}
