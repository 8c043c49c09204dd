#include "proto/hop.h"
#include "proto/ident.h"
#include "tests/unit/relay_hex.h"

#define ID_HEX "1a0e 2f697066732f69642f312e302e30"
#define PING_HEX "1a10 2f697066732f70696e672f312e302e30"
#define HOP_HEX "1a1f 2f6c69627032702f636972637569742f72656c61792f302e322e302f686f70"
#define STOP_HEX "1a20 2f6c69627032702f636972637569742f72656c61792f302e322e302f73746f70"
#define TCP_HEX "1208 04cb007107062328"
#define QUIC_HEX "120b 04cb00710791022328cd03"
#define OBSERVED_HEX "2208 04c633641406c738" /* /ip4/198.51.100.20/tcp/51000 */
#define PUBLISHED                                                                                  \
    "0a24" K_PB TCP_HEX QUIC_HEX ID_HEX PING_HEX HOP_HEX OBSERVED_HEX                              \
    "2a0a 697066732f302e312e30 320c 72656c6179642f312e302e30"

static const char *const protocols[] = { IDENT_PROTOCOL, PING_PROTOCOL, HOP_PROTOCOL, NULL };

/* The example of libp2p.md §9; the caller gives the memory that everything borrows. */
static struct ident published(struct hex mem[4], struct bytes addrs[2])
{
    mem[0] = unhex(K_PB);
    mem[1] = unhex("04cb007107062328");
    mem[2] = unhex("04cb00710791022328cd03");
    mem[3] = unhex("04c633641406c738");
    addrs[0] = hex_bytes(&mem[1]);
    addrs[1] = hex_bytes(&mem[2]);
    return (struct ident){
        .key_pb = hex_bytes(&mem[0]),
        .listen_addrs = addrs,
        .listen_addrs_n = 2,
        .protocols = protocols,
        .observed_addr = hex_bytes(&mem[3]),
        .protocol_version = "ipfs/0.1.0",
        .agent_version = "relayd/1.0.0",
    };
}

static bool decodes(const char *wire, struct ident_remote *r)
{
    struct hex h = unhex(wire);
    uint8_t *copy;
    struct bytes in = tight(hex_bytes(&h), &copy);
    bool ok = ident_decode(in, r);

    free(copy);
    return ok;
}

Test(ident_put, writes_the_published_message)
{
    struct hex mem[4];
    struct bytes addrs[2];
    struct ident id = published(mem, addrs);
    uint8_t buf[512];
    struct wcur w = wcur_of(buf, sizeof(buf));

    ident_put(&w, &id);
    expect_wrote(&w, buf, "a401" PUBLISHED);
    EXPECT_BAD_IN_EVERY_SMALLER_ROOM(166, cut, ident_put(&cut, &id));
}

Test(ident_put, writes_the_message_of_dusk)
{
    static const char *const ping_only[] = { PING_PROTOCOL, NULL };
    struct hex key = unhex(K_PB), addr = unhex("04c0000201060fa1");
    struct bytes addrs[] = { hex_bytes(&addr) };
    struct ident id = {
        hex_bytes(&key),     addrs, 1, ping_only, hex_bytes(&addr), "/dusk/relay/1.0.0",
        "rust-libp2p/0.45.0"
    };
    uint8_t buf[512];
    struct wcur w = wcur_of(buf, sizeof(buf));

    ident_put(&w, &id);
    expect_wrote(&w, buf,
                 "73 0a24" K_PB "1208 04c0000201060fa1" PING_HEX "2208 04c0000201060fa1"
                 "2a11 2f6475736b2f72656c61792f312e302e30"
                 "3212 727573742d6c69627032702f302e34352e30");
}

Test(ident_put, omits_an_unknown_observed_address)
{
    struct hex mem[4];
    struct bytes addrs[2];
    struct ident id = published(mem, addrs);
    struct ident_remote r;
    uint8_t buf[512];
    struct wcur w = wcur_of(buf, sizeof(buf));

    id.observed_addr = bytes_of("", 0); /* an empty one makes js throw (libp2p.md §9) */
    ident_put(&w, &id);
    cr_assert(not(w.bad));
    cr_expect(eq(sz, w.wrote, 166 - 10));
    cr_assert(ident_decode(bytes_of(buf + 2, w.wrote - 2), &r));
    cr_expect(eq(ptr, (void *)r.observed_addr.p, NULL));
}

Test(ident_put, stays_within_two_kilobytes_by_leaving_out_addresses)
{
    static uint8_t blob[512];
    struct hex mem[4];
    struct bytes addrs[2], many[300];
    struct ident id = published(mem, addrs);
    uint8_t buf[4096];
    struct ident_remote r;

    id.listen_addrs = many;
    id.listen_addrs_n = ARRAY_LEN(many);
    for (size_t len = 1; len <= sizeof(blob); len++) {
        struct wcur w = wcur_of(buf, sizeof(buf));
        size_t each = 1 + (len < 128 ? 1 : 2) + len;

        for (size_t i = 0; i < ARRAY_LEN(many); i++)
            many[i] = bytes_of(blob, len);
        ident_put(&w, &id);
        cr_assert(not(w.bad));
        cr_assert(le(sz, w.wrote, IDENT_OURS_MAX + 2));
        cr_assert(ident_decode(bytes_of(buf + 2, w.wrote - 2), &r));
        cr_expect(r.speaks_hop && r.observed_addr.n == 8);
        if (len >= 8) /* full, and not one address more left out than must be */
            cr_expect(lt(sz, IDENT_OURS_MAX - each, w.wrote - 2), "length %zu", len);
    }
}

Test(ident_decode, reads_the_published_message)
{
    struct hex wire = unhex(PUBLISHED), key = unhex(K_PB), observed = unhex("04c633641406c738");
    struct ident_remote r;

    cr_assert(ident_decode(hex_bytes(&wire), &r));
    cr_expect(bytes_eq(r.key_pb, hex_bytes(&key)));
    cr_expect(bytes_eq(r.observed_addr, hex_bytes(&observed)));
    cr_expect(bytes_eq(r.protocol_version, bytes_str("ipfs/0.1.0")));
    cr_expect(bytes_eq(r.agent_version, bytes_str("relayd/1.0.0")));
    cr_expect(r.speaks_hop && !r.speaks_stop && !r.signed_peer_record.p);
}

Test(ident_decode, knows_the_protocols_of_a_target_by_their_whole_names)
{
    struct ident_remote r;

    cr_assert(decodes(STOP_HEX, &r));
    cr_expect(r.speaks_stop && !r.speaks_hop);
    cr_assert(decodes(STOP_HEX HOP_HEX "1a00" STOP_HEX, &r));
    cr_expect(r.speaks_stop && r.speaks_hop);
    /* One byte short, one byte long. */
    cr_assert(decodes("1a1e 2f6c69627032702f636972637569742f72656c61792f302e322e302f686f"
                      "1a20 2f6c69627032702f636972637569742f72656c61792f302e322e302f686f7070",
                      &r));
    cr_expect(not(r.speaks_stop || r.speaks_hop));
}

Test(ident_decode, tells_absent_fields_of_a_push_from_empty_ones)
{
    struct ident_remote r;

    cr_assert(decodes("", &r)); /* a push of nothing changes nothing */
    cr_expect(not(r.key_pb.p || r.agent_version.p || r.observed_addr.p || r.speaks_hop));
    cr_assert(decodes("2200 3200", &r));
    cr_expect(r.observed_addr.p && !r.observed_addr.n && r.agent_version.p && !r.agent_version.n);
    cr_expect(not(r.key_pb.p || r.protocol_version.p));
}

Test(ident_decode, skips_unknown_fields_and_takes_the_last)
{
    struct hex wire = unhex("3a03616263 3203313131 781f 4202beef 3203323232 7d01020304");
    struct hex record = unhex("beef");
    struct ident_remote r;

    cr_assert(ident_decode(hex_bytes(&wire), &r));
    cr_expect(bytes_eq(r.agent_version, bytes_str("222")));
    cr_expect(bytes_eq(r.signed_peer_record, hex_bytes(&record)));
}

Test(ident_decode, refuses_truncations_within_a_field)
{
    static const size_t whole[] = { 0, 38, 48, 61, 77, 95, 128, 138, 150, 164 };
    struct hex wire = unhex(PUBLISHED);
    size_t next = 0;

    for (size_t n = 0; n <= wire.n; n++) {
        uint8_t *copy;
        struct bytes in = tight(bytes_of(wire.b, n), &copy);
        struct ident_remote r;
        bool field_ends = next < ARRAY_LEN(whole) && n == whole[next];

        cr_expect(eq(int, ident_decode(in, &r), field_ends), "%zu bytes", n);
        next += field_ends;
        free(copy);
    }
    cr_expect(eq(sz, next, ARRAY_LEN(whole)));
}

Test(ident_decode, refuses_malformed_messages)
{
    static const char *const bad[] = { "0801",       "0a24",     "1001",
                                       "1801",       "20ffff01", "2800",
                                       "3180808080", "00",       "0b",
                                       "0a80808080", "420202",   "0affffffffffffffffff01" };
    struct ident_remote r;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect(not(decodes(bad[i], &r)), "accepted %s", bad[i]);
}

Test(ident_decode, accepts_eight_kilobytes_and_not_one_byte_more)
{
    static uint8_t in[IDENT_PUSH_MAX + 1] = { 0x7a, 0xfd, 0x3f };
    struct ident_remote r;

    cr_expect(ident_decode(bytes_of(in, IDENT_PUSH_MAX), &r));
    in[1] = 0xfe;
    cr_expect(not(ident_decode(bytes_of(in, IDENT_PUSH_MAX + 1), &r)));
}
