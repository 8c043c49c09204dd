/* Addresses of the DIG relay's wire: read, printed, published and punched. */
#include "tests/fuzz/fuzz.h"

#include "proto/dig_addr.h"

static bool routes_like(const struct netaddr *a, const struct netaddr *observed)
{
    return memcmp(a->ip, observed->ip, netaddr_is4(a) ? 16 : 8) == 0 &&
           netaddr_is4(a) == netaddr_is4(observed);
}

static void check_text(const struct dig_addr *a)
{
    uint8_t text[DIG_ADDR_TEXT_MAX], again[DIG_ADDR_TEXT_MAX];
    struct wcur w = wcur_of(text, sizeof(text)), v = wcur_of(again, sizeof(again));
    struct dig_addr b;

    dig_addr_put(&w, a);
    CHECK(!w.bad);
    CHECK(dig_addr_parse(bytes_of(text, w.wrote), &b));
    CHECK(memcmp(a->at.ip, b.at.ip, 16) == 0 && a->at.port == b.at.port);
    CHECK(a->scope == b.scope && a->v6 == b.v6);
    dig_addr_put(&v, &b);
    CHECK(bytes_eq(bytes_of(text, w.wrote), bytes_of(again, v.wrote)));
    CHECK(a->v6 || netaddr_is4(&a->at));
    CHECK(a->v6 || a->scope == 0);
}

/* Blanks separate addresses; the first is the observed one. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct netaddr out[DIG_DIALABLE_MAX];
    struct dig_addr a, first = { .scope = 0 };
    struct dig_dial dial;
    size_t given = 0;

    for (size_t from = 0, i = 0; i <= size; i++) {
        if (i < size && data[i] != ' ')
            continue;
        if (dig_addr_parse(bytes_of(data + from, i - from), &a)) {
            check_text(&a);
            if (given++ == 0) {
                first = a;
                dig_dial_init(&dial, &a.at);
            } else {
                dig_dial_add(&dial, &a);
                CHECK(!dig_punch_ok(&a, &first.at, true) || routes_like(&a.at, &first.at));
                CHECK(!dig_punch_ok(&a, &first.at, true) || dig_punch_ok(&a, &first.at, false));
            }
        }
        from = i + 1;
    }
    if (given == 0)
        return 0;
    struct dig_source key = dig_source_key(first.at.ip);
    size_t n = dig_dial_done(&dial, out);

    CHECK(n <= DIG_DIALABLE_MAX);
    for (size_t i = 0; i < n;
         i++) { /* what is published belongs to whoever is connected (D2, D10) */
        struct dig_source own = dig_source_key(out[i].ip);

        CHECK(out[i].port != 0);
        CHECK(routes_like(&out[i], &first.at));
        CHECK(memcmp(&own, &key, sizeof(key)) == 0);
        CHECK(i == 0 || netaddr_is4(&out[i]) || !netaddr_is4(&out[i - 1]));
        for (size_t k = 0; k < i; k++)
            CHECK(memcmp(out[i].ip, out[k].ip, 16) != 0 || out[i].port != out[k].port);
    }
    return 0;
}
