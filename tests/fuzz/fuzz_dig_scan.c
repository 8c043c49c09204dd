/* relay_message and broadcast: the scan by vectors of each width, the scan without, and
 * dig_decode() say the same, and what would be forwarded is the same message again, with another
 * sender. An input whose first byte is below 0x20 is not a text but a recipe for one: each byte is
 * a piece of it. */
#include "tests/fuzz/fuzz.h"

#include "proto/dig.h"
#include "proto/dig_scan_int.h"

#include <stdlib.h>

enum { TEXT_MAX = 1 << 16 };

static enum dig_verdict decode(struct bytes text, struct dig_msg *m)
{
    static uint8_t *pool;

    if (!pool)
        pool = malloc(dig_pool_bytes(2 * TEXT_MAX));
    return dig_decode(text, (struct dig_rules){ .hex_ids = false }, pool, dig_pool_bytes(text.n),
                      m);
}

static bool same(struct bytes a, struct bytes b)
{
    return a.p == b.p && a.n == b.n;
}

static void check_exclude(struct dig_scan s)
{
    static uint8_t name[TEXT_MAX];
    struct bytes string;
    size_t n = 0, length;

    for (; dig_exclude_next(&s.exclude, &string); n++)
        CHECK(dig_unescape(string, name, sizeof(name), &length));
    CHECK(n == s.exclude_count);
}

/* What the relay would send on. */
static struct wcur forwarded(const struct dig_scan *s, enum dig_scan_kind kind, bool tail)
{
    static uint8_t out[2][2 * TEXT_MAX];
    struct wcur w = wcur_of(out[tail], sizeof(out[tail]));

    if (kind == DIG_SCAN_BROADCAST) {
        dig_put_broadcast_head(&w, bytes_str("me"));
        wcur_put(&w, s->payload);
        wcur_put(&w, bytes_str(DIG_BROADCAST_END));
        return w;
    }
    dig_put_relay_head(&w, bytes_str("me"));
    if (tail) {
        wcur_put(&w, s->tail);
        return w;
    }
    wcur_put(&w, s->to);
    wcur_put(&w, bytes_str(DIG_RELAY_PAYLOAD));
    wcur_put(&w, s->payload);
    wcur_put(&w, bytes_str(DIG_RELAY_SEQ));
    wcur_put(&w, s->seq);
    wcur_put(&w, bytes_str(DIG_RELAY_END));
    return w;
}

static struct bytes written(struct wcur w)
{
    CHECK(!w.bad);
    return bytes_of(w.p - w.wrote, w.wrote);
}

static void check_message(const struct dig_scan *s, enum dig_scan_kind kind,
                          const struct dig_msg *was)
{
    static uint8_t to[TEXT_MAX];
    struct bytes text = written(forwarded(s, kind, false));
    struct dig_scan again;
    struct dig_msg m;
    uint64_t seq = was->u.relay.seq;
    size_t n = 0;

    CHECK(s->payload_count == was->u.relay.payload_count);
    if (kind == DIG_SCAN_BROADCAST) {
        CHECK(s->exclude_count == was->u.relay.exclude_count);
        check_exclude(*s);
    } else {
        CHECK(dig_unescape(s->to, to, sizeof(to), &n));
        CHECK(bytes_eq(bytes_of(to, n), was->u.relay.to));
        CHECK(s->to_escaped || s->to.n == n + 2);
        CHECK(s->tail.n == 0 || bytes_eq(text, written(forwarded(s, kind, true))));
    }
    CHECK(dig_scan(text, &again) == kind);
    CHECK(bytes_eq(again.payload, s->payload));
    CHECK(decode(text, &m) == DIG_OK); /* `was` borrows from the pool: over with it */
    CHECK(m.u.relay.payload_count == s->payload_count);
    CHECK(bytes_eq(m.u.relay.from, bytes_str("me")));
    if (kind == DIG_SCAN_RELAY)
        CHECK(m.u.relay.seq == seq && bytes_eq(m.u.relay.to, bytes_of(to, n)));
}

static void check_same(const struct dig_scan *a, const struct dig_scan *b)
{
    CHECK(same(a->payload, b->payload) && a->payload_count == b->payload_count);
    CHECK(same(a->to, b->to) && same(a->seq, b->seq) && same(a->tail, b->tail));
    CHECK(same(a->exclude, b->exclude) && a->exclude_count == b->exclude_count);
    CHECK(a->to_escaped == b->to_escaped);
}

static void check(struct bytes text)
{
    struct dig_scan s, other;
    struct dig_msg m;
    enum dig_scan_kind kind = dig_scan(text, &s);
    enum dig_verdict v = decode(text, &m);

    for (int vec = DIG_VEC_NONE; vec <= (int)dig_vec_best(); vec++) {
        CHECK(kind == dig_scan_by((enum dig_vec)vec, text, &other));
        if (kind != DIG_SCAN_OTHER)
            check_same(&s, &other);
    }
    CHECK((kind == DIG_SCAN_RELAY) == (v == DIG_OK && m.type == DIG_RELAY_MESSAGE));
    CHECK((kind == DIG_SCAN_BROADCAST) == (v == DIG_OK && m.type == DIG_BROADCAST));
    if (kind != DIG_SCAN_OTHER)
        check_message(&s, kind, &m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const piece[] = {
        "{\"type\":\"relay_message\",",
        "{\"type\":\"broadcast\",",
        "\"from\":\"x\",",
        "\"to\":\"b\",",
        "\"payload\":[",
        "\"seq\":42",
        "\"exclude\":[\"a\"]",
        "\"x\":",
        "],\"seq\":1}",
        "],\"exclude\":[]}",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        " ",
        "0",
        "1",
        "2",
        "5",
        "6",
        "9",
        "25",
        "255",
        "256",
        "0,",
        "1,",
        "10,",
        "99,",
        "100,",
        "249,",
        "255,",
        "7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,",
        "255,255,255,255,255,255,255,255,",
        "-",
        ".",
        "e",
        "true",
        "null",
        "\\u0041",
        "\\ud800",
        "\\udc00",
        "\\\"",
        "\\n",
        "\xc3\xa9",
        "\xff",
        "\n",
        "{\"a\":[",
        "\"\":",
    };
    static uint8_t text[TEXT_MAX];
    struct wcur w = wcur_of(text, sizeof(text));

    if (size > TEXT_MAX)
        return 0;
    if (size == 0 || data[0] >= 0x20) {
        check(bytes_of(data, size));
        return 0;
    }
    for (size_t i = 1; i < size; i++)
        wcur_put(&w, bytes_str(piece[data[i] % ARRAY_LEN(piece)]));
    if (!w.bad) {
        uint8_t *copy = malloc(w.wrote ? w.wrote : 1); /* of exactly that size */

        CHECK(copy);
        memcpy(copy, text, w.wrote);
        check(bytes_of(copy, w.wrote));
        free(copy);
    }
    return 0;
}
