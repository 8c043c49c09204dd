/* A binary multiaddr: what is valid reads as text and comes back byte for byte. */
#include "tests/fuzz/fuzz.h"

#include "proto/maddr.h"

static void check_helpers(struct bytes in, bool valid)
{
    struct peer_id id = { 2, { 0, 0 } }, got;
    struct netaddr a, b;
    struct bytes rest;
    struct maddr m;

    (void)maddr_has(in, MADDR_P2P_CIRCUIT);
    bool is_public = maddr_is_public(in);

    CHECK(valid || !is_public);
    if (maddr_to_tcp(in, &a, &rest)) {
        CHECK(rest.n < in.n);
        maddr_from_tcp(&a, &m);
        CHECK(maddr_to_tcp(maddr_bytes(&m), &b, NULL));
        CHECK(memcmp(a.ip, b.ip, sizeof(a.ip)) == 0);
        CHECK(a.port == b.port);
    }
    if (!valid)
        return;
    bool named = maddr_p2p(in, &got);

    memcpy(m.b, in.p, in.n);
    m.n = (uint16_t)in.n;
    if (maddr_append_p2p(&m, &id)) {
        CHECK(maddr_valid(maddr_bytes(&m)));
        CHECK(maddr_p2p(maddr_bytes(&m), &got));
        CHECK(named || peer_id_eq(&id, &got));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes in = bytes_of(data, size);
    struct cur c = cur_of(in);
    struct maddr_part part;
    size_t parts = 0;
    char text[MADDR_TEXT_MAX];
    struct maddr back;

    while (maddr_next(&c, &part)) {
        CHECK(part.value.p + part.value.n == c.p);
        parts++;
    }
    bool valid = maddr_valid(in);

    CHECK(valid == (!c.bad && parts > 0 && in.n <= MADDR_MAX));
    if (maddr_text(in, text, sizeof(text))) {
        CHECK(valid);
        CHECK(maddr_parse(bytes_str(text), &back));
        CHECK(bytes_eq(maddr_bytes(&back), in));
    }
    check_helpers(in, valid);
    return 0;
}
