/* A HopMessage: what decodes lies within the input, and what we say again of it reads the same. */
#include "tests/fuzz/fuzz.h"

#include "proto/hop.h"
#include "proto/varint.h"

/* An encoder's output: its prefix tells its length, and it decodes. */
static struct hop_msg read_back(const struct wcur *w, const uint8_t *buf)
{
    struct cur c = cur_of(bytes_of(buf, w->wrote));
    struct bytes body = cur_lp(&c);
    struct hop_msg m;

    CHECK(!w->bad);
    CHECK(!c.bad);
    CHECK(c.n == 0);
    CHECK(hop_decode(body, &m));
    return m;
}

static bool same_limit(const struct hop_limit *a, const struct hop_limit *b)
{
    return a->present == b->present && a->duration_s == b->duration_s &&
           a->data_bytes == b->data_bytes;
}

static void check_status(const struct hop_msg *m)
{
    uint8_t buf[64];
    struct wcur w = wcur_of(buf, sizeof(buf));

    hop_put_status(&w, m->status, &m->limit);
    struct hop_msg again = read_back(&w, buf);

    CHECK(again.type == HOP_STATUS);
    CHECK(again.has_status);
    CHECK(again.status == m->status);
    CHECK(same_limit(&again.limit, &m->limit));
}

static void check_connect(const struct hop_msg *m)
{
    uint8_t buf[64];
    struct wcur w = wcur_of(buf, sizeof(buf));

    hop_put_connect(&w, &m->peer);
    struct hop_msg again = read_back(&w, buf);

    CHECK(again.type == HOP_CONNECT);
    CHECK(again.has_peer);
    CHECK(peer_id_eq(&again.peer, &m->peer));
}

static void check_reservation(const struct hop_msg *m, struct bytes in)
{
    static uint8_t buf[HOP_MSG_MAX + VARINT_MAX_BYTES];
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct bytes addrs[8];
    size_t n = min_sz(m->addrs, ARRAY_LEN(addrs));
    bool cut = m->voucher.n > HOP_MSG_MAX / 2; /* ours are 256 bytes at most */
    struct bytes voucher = cut ? bytes_of(NULL, 0) : m->voucher;

    for (size_t i = 0; i < n; i++)
        addrs[i] = in; /* as long as they come */
    hop_put_reservation(&w, m->expire_unix_s, addrs, n, voucher, &m->limit);
    struct hop_msg again = read_back(&w, buf);

    CHECK(w.wrote <= HOP_MSG_MAX + 2);
    CHECK(again.has_status);
    CHECK(again.status == HOP_OK);
    CHECK(again.expire_unix_s == m->expire_unix_s);
    CHECK(again.addrs <= n);
    CHECK(bytes_eq(again.voucher, voucher));
    CHECK(same_limit(&again.limit, &m->limit));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes in = bytes_of(data, size);
    struct hop_msg m;

    if (!hop_decode(in, &m))
        return 0;
    CHECK(size <= HOP_MSG_MAX);
    CHECK(!(m.has_peer && m.peer_bad));
    CHECK(!m.has_peer == (m.peer.n == 0));
    CHECK(m.addrs <= HOP_MSG_MAX / 2);
    if (m.voucher.p)
        CHECK(m.voucher.p > data && m.voucher.n <= (size_t)(data + size - m.voucher.p));
    check_status(&m);
    if (m.has_peer)
        check_connect(&m);
    check_reservation(&m, in);
    return 0;
}
