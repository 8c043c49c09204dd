/* A request head, whole and in pieces, under both rules.
 * Input: u8 bit 0 the rules, the rest of it chooses the bound; u8 the size of pieces; the bytes. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "proto/ws.h"

static void within(struct bytes part, struct bytes in)
{
    static const char root[] = "/"; /* what an absolute target without a path stands for */

    if (part.p && !(part.n == 1 && part.p[0] == root[0])) {
        CHECK(part.p >= in.p && part.n <= in.n);
        CHECK((size_t)(part.p - in.p) <= in.n - part.n);
    }
    for (size_t i = 0; i < part.n; i++) /* it may be written into an answer */
        CHECK((part.p[i] >= ' ' || part.p[i] == '\t') && part.p[i] != 0x7f);
}

static void check(const struct http_head *h, struct bytes in)
{
    char out[WS_ACCEPT_MAX];
    struct bytes head = { in.p, h->used };

    CHECK(h->used <= in.n && h->used <= h->max && in.p[h->used - 1] == '\n');
    within(h->method, head);
    within(h->target, head);
    within(h->version, head);
    within(h->path, head);
    within(h->query, head);
    within(h->host, head);
    within(h->ws_key, head);
    within(h->ws_version, head);
    CHECK(h->method.n && h->target.n && h->minor >= -1 && h->minor <= 9);
    CHECK(h->path.n + h->query.n <= h->target.n + 1);
    if (ws_upgrade_ok(h)) {
        CHECK(h->wants_ws && h->ws_key.p);
        CHECK(ws_accept_encode(h, out) == 129);
    }
}

static bool same(struct bytes a, struct bytes b)
{
    return !a.p == !b.p && bytes_eq(a, b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cur c = cur_of(bytes_of(data, size));
    uint8_t how = fuzz_u8(&c);
    size_t part = fuzz_u8(&c) + 1u, max = how < 128 ? HTTP_HEAD_BYTES_MAX : 16u + how;
    struct bytes in = fuzz_rest(&c);
    enum http_head_verdict want, got = HTTP_HEAD_MORE;
    struct http_head whole, h;

    http_head_init(&whole, max, how & 1);
    want = http_head_decode(in, &whole);
    CHECK(want != HTTP_HEAD_MORE || in.n < max);
    CHECK(want != HTTP_HEAD_LARGE || in.n >= max);
    if (want == HTTP_HEAD_READY)
        check(&whole, in);

    http_head_init(&h, max, how & 1);
    for (size_t n = 0; got == HTTP_HEAD_MORE; n = min_sz(n + part, in.n)) {
        uint8_t *copy = malloc(n ? n : 1); /* each time elsewhere, and of that size */

        CHECK(copy != NULL);
        if (n)
            memcpy(copy, in.p, n);
        got = http_head_decode(bytes_of(copy, n), &h);
        if (got == HTTP_HEAD_READY) {
            CHECK(want == HTTP_HEAD_READY && h.used == whole.used && h.wants_ws == whole.wants_ws);
            CHECK(same(h.path, whole.path) && same(h.query, whole.query));
            CHECK(same(h.host, whole.host) && same(h.ws_key, whole.ws_key));
            CHECK(h.minor == whole.minor && h.ws_twice == whole.ws_twice);
        }
        free(copy);
        if (n == in.n)
            break;
        CHECK(got != HTTP_HEAD_MORE || h.seen_n == n);
    }
    CHECK(got == want);
    return 0;
}
