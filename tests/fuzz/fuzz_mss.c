/* multistream-select: the same answers and the same rest whether the input comes whole, byte by
 * byte or cut where its first byte says; and neither role reads past the negotiation. */
#include "tests/fuzz/fuzz.h"

#include "proto/mss.h"

enum { INPUT_MAX = 4096, CUTS = 3 };

static const struct mss_proto protos[] = {
    { "/ipfs/id/1.0.0", 1 }, { "/ipfs/ping/1.0.0", 2 }, { "/noise", 3 }, { 0 }
};

struct end {
    enum mss_res res;
    int id;
    size_t used;
    uint8_t out[MSS_REPLY_MAX * 2];
    size_t out_n;
};

static struct bytes piece(struct bytes in, size_t from, size_t step)
{
    return bytes_of(in.p + from, min_sz(step, in.n - from));
}

/* Shows the input in steps; what was not consumed is shown again with more behind it. */
static void listen_in_steps(struct bytes in, size_t step, struct end *e)
{
    struct mss_listen m = { 0 };
    struct wcur w = wcur_of(e->out, sizeof(e->out));
    size_t shown = 0;

    *e = (struct end){ .res = MSS_MORE };
    while (e->res == MSS_MORE && shown < in.n) {
        shown += piece(in, shown, step).n;
        struct cur c = cur_of(bytes_of(in.p + e->used, shown - e->used));

        e->res = mss_listen_feed(&m, protos, &c, &w, &e->id);
        e->used = shown - c.n;
        CHECK(e->res != MSS_MORE || c.n <= MSS_FRAME_MAX + 2);
        CHECK(m.tries <= MSS_TRIES_MAX);
    }
    e->out_n = w.wrote;
    CHECK((e->id != 0) == (e->res == MSS_AGREED));
}

static enum mss_res dial_in_steps(struct bytes in, size_t step, size_t *used)
{
    struct mss_dial m = { 0 };
    enum mss_res res = MSS_MORE;
    size_t shown = 0;

    *used = 0;
    while (res == MSS_MORE && shown < in.n) {
        shown += piece(in, shown, step).n;
        struct cur c = cur_of(bytes_of(in.p + *used, shown - *used));

        res = mss_dial_feed(&m, "/noise", &c);
        *used = shown - c.n;
    }
    return res;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct end whole, cut;
    size_t used, cut_used;

    if (size < 1)
        return 0;
    struct bytes in = bytes_of(data + 1, min_sz(size - 1, INPUT_MAX));
    const size_t steps[CUTS] = { 1, (size_t)data[0] + 1, 2 };

    listen_in_steps(in, INPUT_MAX, &whole);
    enum mss_res dialed = dial_in_steps(in, INPUT_MAX, &used);
    for (size_t i = 0; i < CUTS; i++) {
        listen_in_steps(in, steps[i], &cut);
        CHECK(cut.res == whole.res && cut.id == whole.id);
        CHECK(cut.out_n == whole.out_n && memcmp(cut.out, whole.out, cut.out_n) == 0);
        CHECK(cut.res != MSS_AGREED || cut.used == whole.used);
        CHECK(dial_in_steps(in, steps[i], &cut_used) == dialed);
        CHECK(dialed != MSS_AGREED || cut_used == used);
    }
    return 0;
}
