/* Identify: what decodes lies within the input; a message of ours made of it stays within its bound
 * and reads the same. */
#include "tests/fuzz/fuzz.h"

#include "proto/hop.h"
#include "proto/ident.h"
#include "proto/varint.h"

static void check_within(struct bytes in, struct bytes field)
{
    CHECK(!field.p || (field.p > in.p && field.n <= (size_t)(in.p + in.n - field.p)));
}

static void check_ours(struct bytes in, const struct ident_remote *r)
{
    static uint8_t buf[IDENT_OURS_MAX + VARINT_MAX_BYTES];
    static const char *const hop[] = { HOP_PROTOCOL, NULL },
                             *const stop[] = { STOP_PROTOCOL, NULL }, *const none[] = { NULL };
    struct bytes addrs[] = { in, r->agent_version, in };
    struct ident id = {
        .key_pb = r->key_pb,
        .listen_addrs = addrs,
        .listen_addrs_n = r->agent_version.p ? 3 : 1,
        .protocols = r->speaks_hop    ? hop
                     : r->speaks_stop ? stop
                                      : none,
        .observed_addr = r->observed_addr,
        .protocol_version = IDENT_PROTOCOL,
        .agent_version = "fuzz/0",
    };
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct ident_remote again;

    if (r->key_pb.n > KEY_PB_MAX || r->observed_addr.n > 256)
        return; /* ours never are */
    ident_put(&w, &id);
    struct cur c = cur_of(bytes_of(buf, w.wrote));
    struct bytes body = cur_lp(&c);

    CHECK(!w.bad);
    CHECK(!c.bad);
    CHECK(c.n == 0);
    CHECK(body.n <= IDENT_OURS_MAX);
    CHECK(ident_decode(body, &again));
    CHECK(bytes_eq(again.key_pb, r->key_pb));
    CHECK(bytes_eq(again.observed_addr, r->observed_addr));
    CHECK(!again.observed_addr.p == !again.observed_addr.n);
    CHECK(again.speaks_hop == r->speaks_hop);
    CHECK(again.speaks_stop == (r->speaks_stop && !r->speaks_hop));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes in = bytes_of(data, size);
    struct ident_remote r;

    if (!ident_decode(in, &r))
        return 0;
    CHECK(size <= IDENT_PUSH_MAX);
    check_within(in, r.key_pb);
    check_within(in, r.agent_version);
    check_within(in, r.protocol_version);
    check_within(in, r.observed_addr);
    check_within(in, r.signed_peer_record);
    check_ours(in, &r);
    return 0;
}
