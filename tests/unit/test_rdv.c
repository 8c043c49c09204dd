#include "proto/rdv.h"
#include "proto/varint.h"
#include "tests/unit/relay_hex.h"

/* libp2p.md §1.4: K's record with seq 1 and one address, in both domains. */
#define PAYLOAD "0a26" K_ID "1001 1a0a 0a08 04cb007107062328"
#define RECORD                                                                                     \
    "0a24" K_PB "12020301 1a36" PAYLOAD "2a40"                                                     \
    "b5d6f4451e633f4dd5c0d0a62079959134992c79320a8930bbfb689d30eabd12"                             \
    "56d41be2b4d6e76a4bd8ef88622e5bb68802c422b81a77992c4c0b7d87c92102"
#define LEGACY                                                                                     \
    "0a24" K_PB "121c 2f6c69627032702f726f7574696e672d73746174652d7265636f7264 1a36" PAYLOAD       \
    "2a40 de7e7a1bc0f53e38727ad026bb3aab56ac1e98d17def0257912b7194e20ea04e"                        \
    "b94ed824a35aeaa3c6f843553e920380ee654e725f6f048164216860a073ce08"

static const uint8_t key[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
static const uint8_t other_key[16] = { 1 };
static const struct rdv_rules *const both[] = { &rdv_rules_default, &rdv_rules_dusk };

static struct bytes test_ns(void)
{
    return bytes_str("test");
}

static struct rdv_msg registering(const struct hex *record)
{
    return (struct rdv_msg){
        .type = RDV_REGISTER, .has_ns = true, .ns = test_ns(), .record = hex_bytes(record)
    };
}

/* In rust's domain, which nothing of ours writes: what is sealed in the other is sealed again. */
static struct hex record_of(uint64_t seq, const char *addr)
{
    struct identity k = identity_k();
    struct hex a = unhex(addr), standard, out;
    struct bytes multiaddr = hex_bytes(&a);
    struct wcur w = wcur_of(standard.b, sizeof(standard.b));
    struct envelope e;

    peer_record_seal(&w, &k, seq, &multiaddr, 1);
    cr_assert(not(w.bad));
    cr_assert(envelope_decode(bytes_of(standard.b, w.wrote), &e));
    w = wcur_of(out.b, sizeof(out.b));
    envelope_seal(&w, &k, bytes_str("libp2p-routing-state"),
                  bytes_str("/libp2p/routing-state-record"), e.payload);
    cr_assert(not(w.bad));
    out.n = w.wrote;
    return out;
}

static enum rdv_status judge(const struct rdv_rules *r, const struct rdv_msg *m)
{
    struct peer_id k = id_of(K_ID);
    struct rdv_register out;

    return rdv_check_register(r, m, &k, &out);
}

Test(rdv_check_register, takes_records_of_both_domains_and_of_rusts_for_dusk)
{
    static const char *const records[] = { LEGACY, RECORD };
    struct peer_id k = id_of(K_ID);

    for (size_t i = 0; i < 4; i++) {
        struct hex record = unhex(records[i % 2]);
        struct rdv_msg m = registering(&record);
        struct rdv_register out;

        if (i == 3) { /* rust-libp2p would drop the whole reply that it is in */
            cr_expect(eq(int, judge(&rdv_rules_dusk, &m), RDV_INVALID_RECORD));
            continue;
        }
        cr_assert(eq(int, rdv_check_register(both[i / 2], &m, &k, &out), RDV_OK));
        cr_expect(bytes_eq(out.ns, test_ns()));
        cr_expect(bytes_eq(out.record, hex_bytes(&record)), "verbatim");
        cr_expect(eq(u32, out.ttl_s, 7200));
        cr_expect(eq(u64, out.seq, 1));
    }
}

Test(rdv_check_register, grants_ttls_within_their_bounds)
{
    static const struct {
        bool has;
        uint64_t asked_s;
        enum rdv_status by_default, dusk;
        uint32_t granted_s;
    } all[] = {
        { false, 0, RDV_OK, RDV_OK, 7200 },
        { true, 0, RDV_OK, RDV_INVALID_TTL, 7200 },
        { true, 1, RDV_INVALID_TTL, RDV_INVALID_TTL, 0 },
        { true, 7199, RDV_INVALID_TTL, RDV_INVALID_TTL, 0 },
        { true, 7200, RDV_OK, RDV_OK, 7200 },
        { true, 7201, RDV_OK, RDV_OK, 7201 },
        { true, 259200, RDV_OK, RDV_OK, 259200 },
        { true, 259201, RDV_INVALID_TTL, RDV_INVALID_TTL, 0 },
        { true, (UINT64_C(1) << 32) + 7200, RDV_INVALID_TTL, RDV_INVALID_TTL, 0 },
        { true, UINT64_MAX, RDV_INVALID_TTL, RDV_INVALID_TTL, 0 },
    };
    struct hex record = unhex(LEGACY);
    struct peer_id k = id_of(K_ID);

    for (size_t i = 0; i < 2 * ARRAY_LEN(all); i++) {
        size_t c = i / 2;
        enum rdv_status want = i % 2 ? all[c].dusk : all[c].by_default;
        struct rdv_msg m = registering(&record);
        struct rdv_register out = { 0 };

        m.has_ttl = all[c].has;
        m.ttl_s = all[c].asked_s;
        cr_expect(eq(int, rdv_check_register(both[i % 2], &m, &k, &out), want), "case %zu", i);
        cr_expect(eq(u32, out.ttl_s, want == RDV_OK ? all[c].granted_s : 0), "case %zu", i);
    }
}

Test(rdv_check_register, bounds_namespaces)
{
    static uint8_t ns[RDV_NS_MAX + 1];
    struct hex record = unhex(LEGACY);
    struct rdv_msg m = registering(&record);

    memset(ns, 'n', sizeof(ns));
    for (size_t i = 0; i < ARRAY_LEN(both); i++) {
        m.has_ns = true;
        m.ns = bytes_of(ns, RDV_NS_MAX);
        cr_expect(eq(int, judge(both[i], &m), RDV_OK));
        m.ns = bytes_of(ns, RDV_NS_MAX + 1);
        cr_expect(eq(int, judge(both[i], &m), RDV_INVALID_NAMESPACE));
        m.ns = bytes_of(ns, 1);
        cr_expect(eq(int, judge(both[i], &m), RDV_OK));
        m.ns = bytes_str("\xc3\xa9");
        cr_expect(eq(int, judge(both[i], &m), RDV_OK));
        m.ns = bytes_str("\xc3");
        cr_expect(eq(int, judge(both[i], &m), RDV_INVALID_NAMESPACE));
        m.ns = bytes_str("a\xff");
        cr_expect(eq(int, judge(both[i], &m), RDV_INVALID_NAMESPACE));
        m.ns = bytes_of(ns, 0); /* dusk.md §5: only the empty namespace */
        cr_expect(eq(int, judge(both[i], &m), i ? RDV_OK : RDV_INVALID_NAMESPACE));
        m.has_ns = false;
        m.ns = bytes_of(NULL, 0);
        cr_expect(eq(int, judge(both[i], &m), RDV_INVALID_NAMESPACE));
    }
}

Test(rdv_check_register, refuses_broken_records)
{
    struct hex record = unhex(LEGACY);
    struct rdv_msg m = registering(&record);

    for (size_t n = 0; n < record.n; n++) {
        uint8_t *copy;

        m.record = tight(bytes_of(record.b, n), &copy);
        cr_expect(eq(int, judge(&rdv_rules_dusk, &m), RDV_INVALID_RECORD), "%zu bytes", n);
        free(copy);
    }
    m.record = hex_bytes(&record);
    for (size_t bit = 0; bit < 8 * record.n; bit++) {
        record.b[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_expect(eq(int, judge(&rdv_rules_dusk, &m), RDV_INVALID_RECORD), "bit %zu", bit);
        record.b[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    cr_expect(eq(int, judge(&rdv_rules_dusk, &m), RDV_OK));
    m.record = bytes_of(NULL, 0);
    cr_expect(eq(int, judge(&rdv_rules_dusk, &m), RDV_INVALID_RECORD));
}

Test(rdv_check_register, refuses_the_record_of_another)
{
    struct hex record = unhex(LEGACY);
    struct rdv_msg m = registering(&record);
    struct peer_id a = id_of(A_ID);
    struct rdv_register out;

    for (size_t i = 0; i < ARRAY_LEN(both); i++)
        cr_expect(eq(int, rdv_check_register(both[i], &m, &a, &out), RDV_NOT_AUTHORIZED));
}

Test(rdv_check_register, names_the_first_fault_in_the_order_of_the_header)
{
    struct hex record = unhex(LEGACY);
    struct rdv_msg m = registering(&record);
    struct peer_id a = id_of(A_ID);
    struct rdv_register out;

    m.has_ttl = true;
    m.ttl_s = 1;
    cr_expect(eq(int, rdv_check_register(both[0], &m, &a, &out), RDV_NOT_AUTHORIZED));
    record.b[record.n - 1] ^= 1;
    cr_expect(eq(int, rdv_check_register(both[0], &m, &a, &out), RDV_INVALID_RECORD));
    m.ns.n = 0;
    cr_expect(eq(int, rdv_check_register(both[0], &m, &a, &out), RDV_INVALID_NAMESPACE));
}

Test(rdv_check_register, judges_addresses_by_the_rules)
{
    static const struct {
        const char *addr;
        bool read;
    } all[] = {
        { "04cb007107062328", true },
        { "04cb0071070623 28a50326" K_ID "a202", true },
        { "04cb00710706", false },              /* cut */
        { "04cb007107062328 ef7f", false },     /* an unknown code (libp2p.md §1.3) */
        { "04cb007107062328 e1030178", false }, /* an http-path, of which rust knows nothing */
        { "04cb007107062328 d203 0412024141", false }, /* a certhash: rust's have a longest */
    };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct hex record = record_of(1, all[i].addr);
        struct rdv_msg m = registering(&record);

        cr_expect(eq(int, judge(&rdv_rules_default, &m), RDV_OK), "case %zu", i);
        cr_expect(eq(int, judge(&rdv_rules_dusk, &m), all[i].read ? RDV_OK : RDV_INVALID_RECORD),
                  "case %zu", i);
    }
}

Test(rdv_check_register, keeps_the_place_of_a_peer_for_that_peer)
{
    static const struct {
        const char *head;
        bool own, allowed;
    } all[] = {
        { "dusk/peer/", true, true },      { "dusk/peer/", false, false },
        { "dusk/peer/x", true, false },    { "dusk/peers", false, true },
        { "dusk/community/", true, true }, { "dusk/peer", false, true },
    };
    struct hex record = unhex(LEGACY);
    struct peer_id k = id_of(K_ID);
    char text[PEER_TEXT_MAX], ns[PEER_TEXT_MAX + 32];

    peer_id_text(&k, text);
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct rdv_msg m = registering(&record);

        snprintf(ns, sizeof(ns), "%s%s", all[i].head, all[i].own ? text : "");
        m.ns = bytes_str(ns);
        cr_expect(eq(int, judge(&rdv_rules_default, &m), RDV_OK), "%s", ns);
        cr_expect(eq(int, judge(&rdv_rules_dusk, &m), all[i].allowed ? RDV_OK : RDV_NOT_AUTHORIZED),
                  "%s", ns);
    }
}

Test(rdv_may_replace, compares_sequence_numbers_only_by_default)
{
    cr_expect(not(rdv_may_replace(&rdv_rules_default, 7, 6)));
    cr_expect(rdv_may_replace(&rdv_rules_default, 7, 7));
    cr_expect(rdv_may_replace(&rdv_rules_default, 7, 8));
    cr_expect(rdv_may_replace(&rdv_rules_dusk, 7, 0));
}

Test(rdv_shown_ttl, is_what_is_left_or_what_was_granted)
{
    cr_expect(eq(u64, rdv_shown_ttl(&rdv_rules_default, 7200, 1000, 400), 600));
    cr_expect(eq(u64, rdv_shown_ttl(&rdv_rules_default, 7200, 1000, 1000), 0));
    cr_expect(eq(u64, rdv_shown_ttl(&rdv_rules_default, 7200, 1000, 1001), 0));
    cr_expect(eq(u64, rdv_shown_ttl(&rdv_rules_dusk, 7200, 1000, 400), 7200));
}

Test(rdv_check_unregister, wants_a_namespace_that_can_exist)
{
    static uint8_t ns[RDV_NS_MAX + 1];
    struct rdv_msg m = { .type = RDV_UNREGISTER, .has_ns = true, .ns = test_ns() };
    struct bytes got;

    for (size_t i = 0; i < ARRAY_LEN(both); i++) {
        m.has_ns = true;
        m.ns = test_ns();
        cr_expect(rdv_check_unregister(both[i], &m, &got));
        cr_expect(bytes_eq(got, test_ns()));
        m.ns = bytes_of(ns, sizeof(ns));
        cr_expect(not(rdv_check_unregister(both[i], &m, &got)));
        m.ns.n = 0;
        cr_expect(eq(int, rdv_check_unregister(both[i], &m, &got), both[i]->empty_ns));
        m.has_ns = false;
        cr_expect(not(rdv_check_unregister(both[i], &m, &got)));
    }
}

Test(rdv_check_discover, asks_for_one_namespace_or_for_all)
{
    static uint8_t ns[RDV_NS_MAX + 1];
    struct rdv_msg m = { .type = RDV_DISCOVER };
    struct rdv_query q;

    cr_expect(eq(int, rdv_check_discover(both[0], &m, key, &q), RDV_INVALID_NAMESPACE));
    cr_assert(eq(int, rdv_check_discover(both[1], &m, key, &q), RDV_OK));
    cr_expect(q.all && q.ns.n == 0 && q.after == 0 && q.limit == 1000);
    m.has_ns = true;
    cr_expect(eq(int, rdv_check_discover(both[0], &m, key, &q), RDV_INVALID_NAMESPACE));
    cr_assert(eq(int, rdv_check_discover(both[1], &m, key, &q), RDV_OK));
    cr_expect(not(q.all));
    for (size_t i = 0; i < ARRAY_LEN(both); i++) {
        m.ns = bytes_of(ns, RDV_NS_MAX);
        cr_assert(eq(int, rdv_check_discover(both[i], &m, key, &q), RDV_OK));
        cr_expect(bytes_eq(q.ns, m.ns) && !q.all);
        m.ns.n++;
        cr_expect(eq(int, rdv_check_discover(both[i], &m, key, &q), RDV_INVALID_NAMESPACE));
        m.ns = bytes_str("\xff");
        cr_expect(eq(int, rdv_check_discover(both[i], &m, key, &q), RDV_INVALID_NAMESPACE));
    }
}

Test(rdv_check_discover, caps_the_limit)
{
    static const uint64_t asked[] = { 0, 1, 999, 1000, 1001, UINT64_C(1) << 32, UINT64_MAX };
    struct rdv_msg m = { .type = RDV_DISCOVER, .has_ns = true, .ns = test_ns() };
    struct rdv_query q;

    for (size_t i = 0; i < 2 * ARRAY_LEN(asked); i++) {
        m.has_limit = true;
        m.limit = asked[i / 2];
        cr_assert(eq(int, rdv_check_discover(both[i % 2], &m, key, &q), RDV_OK));
        cr_expect(eq(u64, q.limit, m.limit < 1000 ? m.limit : 1000));
    }
}

Test(rdv_check_discover, judges_cookies_by_the_rules)
{
    uint8_t ours[RDV_COOKIE_MAX], others[RDV_COOKIE_MAX], old[RDV_COOKIE_MAX];
    size_t n = rdv_cookie_make(key, 77, false, test_ns(), ours);
    size_t others_n = rdv_cookie_make(key, 77, false, bytes_str("tesT"), others);
    size_t old_n = rdv_cookie_make(other_key, 77, false, test_ns(), old);
    const struct {
        struct bytes cookie;
        enum rdv_status by_default, dusk;
        uint64_t after; /* where it passes */
    } all[] = {
        { bytes_of(ours, n), RDV_OK, RDV_OK, 77 },
        { bytes_of(others, others_n), RDV_INVALID_COOKIE, RDV_INVALID_COOKIE, 0 },
        { bytes_of(old, old_n), RDV_INVALID_COOKIE, RDV_OK, 0 },
        { bytes_of(ours, 8), RDV_INVALID_COOKIE, RDV_INVALID_COOKIE, 0 }, /* names none */
        { bytes_of(ours, 7), RDV_INVALID_COOKIE, RDV_SILENT, 0 },
        { bytes_of(ours, 1), RDV_INVALID_COOKIE, RDV_SILENT, 0 },
        { bytes_of(ours, 0), RDV_OK, RDV_SILENT, 0 },
    };

    for (size_t i = 0; i < 2 * ARRAY_LEN(all); i++) {
        struct rdv_msg m = { .type = RDV_DISCOVER, .has_ns = true, .ns = test_ns() };
        enum rdv_status want = i % 2 ? all[i / 2].dusk : all[i / 2].by_default;
        struct rdv_query q = { .after = 99 };

        m.has_cookie = true;
        m.cookie = all[i / 2].cookie;
        cr_expect(eq(int, rdv_check_discover(both[i % 2], &m, key, &q), want), "case %zu", i);
        cr_expect(eq(u64, q.after, want == RDV_OK ? all[i / 2].after : 99), "case %zu", i);
    }
}

Test(rdv_check_discover, refuses_a_cookie_of_a_namespace_where_all_are_asked)
{
    uint8_t cookie[RDV_COOKIE_MAX];
    struct rdv_msg m = { .type = RDV_DISCOVER, .has_cookie = true };
    struct rdv_query q;

    m.cookie = bytes_of(cookie, rdv_cookie_make(key, 5, false, test_ns(), cookie));
    cr_expect(eq(int, rdv_check_discover(both[1], &m, key, &q), RDV_INVALID_COOKIE));
    m.cookie = bytes_of(cookie, rdv_cookie_make(key, 5, true, bytes_of(NULL, 0), cookie));
    cr_assert(eq(int, rdv_check_discover(both[1], &m, key, &q), RDV_OK));
    cr_expect(eq(u64, q.after, 5));
}

Test(rdv_unknown_cookie, is_a_refusal_or_a_fresh_start)
{
    struct rdv_query q = { .after = 9 };

    cr_expect(eq(int, rdv_unknown_cookie(&rdv_rules_default, &q), RDV_INVALID_COOKIE));
    cr_expect(eq(int, rdv_unknown_cookie(&rdv_rules_dusk, &q), RDV_OK));
    cr_expect(eq(u64, q.after, 0));
}

Test(rdv_cookie, carries_any_sequence_number_under_any_namespace)
{
    static const uint64_t seqs[] = { 0,
                                     1,
                                     255,
                                     65536,
                                     UINT64_C(0xffffffff),
                                     UINT64_C(0x100000000),
                                     UINT64_C(0x123456789abc),
                                     RDV_SEQ_MAX };
    static uint8_t ns[RDV_NS_MAX];
    uint8_t cookie[RDV_COOKIE_MAX];
    uint64_t seq;

    for (size_t i = 0; i < ARRAY_LEN(seqs); i++) {
        for (size_t n = 0; n <= RDV_NS_MAX; n += 51) {
            size_t len = rdv_cookie_make(key, seqs[i], false, bytes_of(ns, n), cookie);

            cr_assert(eq(sz, len, RDV_COOKIE_ID + n));
            cr_assert(eq(int,
                         rdv_cookie_parse(key, bytes_of(cookie, len), false, bytes_of(ns, n), &seq),
                         RDV_COOKIE_OK));
            cr_expect(eq(u64, seq, seqs[i]));
        }
    }
}

Test(rdv_cookie, is_known_by_its_tag)
{
    uint8_t cookie[RDV_COOKIE_MAX];
    struct bytes whole = bytes_of(cookie, rdv_cookie_make(key, 77, false, test_ns(), cookie));
    uint64_t seq = 1;

    for (size_t bit = 0; bit < 8 * RDV_COOKIE_ID; bit++) {
        cookie[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_expect(eq(int, rdv_cookie_parse(key, whole, false, test_ns(), &seq), RDV_COOKIE_UNKNOWN),
                  "bit %zu", bit);
        cookie[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t n = 0; n < RDV_COOKIE_ID; n++)
        cr_expect(eq(int, rdv_cookie_parse(key, bytes_of(cookie, n), false, test_ns(), &seq),
                     RDV_COOKIE_SHORT));
    for (size_t n = RDV_COOKIE_ID; n < whole.n; n++)
        cr_expect(eq(int, rdv_cookie_parse(key, bytes_of(cookie, n), false, test_ns(), &seq),
                     RDV_COOKIE_OTHER_NS));
    cr_expect(
        eq(int, rdv_cookie_parse(other_key, whole, false, test_ns(), &seq), RDV_COOKIE_UNKNOWN));
    cr_expect(eq(u64, seq, 1), "written only on success");
    cookie[RDV_COOKIE_ID] = 'T';
    cr_expect(
        eq(int, rdv_cookie_parse(key, whole, false, bytes_str("Test"), &seq), RDV_COOKIE_UNKNOWN));
}

/* The text of both is eight bytes; only the tag tells them apart. */
Test(rdv_cookie, of_the_empty_namespace_is_not_one_of_all)
{
    uint8_t cookie[RDV_COOKIE_MAX];
    struct bytes none = bytes_of(NULL, 0);
    uint64_t seq;

    cr_assert(eq(sz, rdv_cookie_make(key, 77, false, none, cookie), RDV_COOKIE_ID));
    cr_expect(
        eq(int, rdv_cookie_parse(key, bytes_of(cookie, 8), true, none, &seq), RDV_COOKIE_UNKNOWN));
    cr_expect(
        eq(int, rdv_cookie_parse(key, bytes_of(cookie, 8), false, none, &seq), RDV_COOKIE_OK));
}
