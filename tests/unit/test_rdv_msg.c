#include "proto/rdv.h"
#include "proto/varint.h"
#include "tests/unit/relay_hex.h"
#include "tests/unit/vectors.h"

#define PEERS "0a0a 6475736b2f7065657273" /* field 1: "dusk/peers" */

static const uint8_t record[] = { 0xde, 0xad, 0xbe, 0xef };
static const uint8_t upstream_id[] = { 1, 2, 3, 4, 5, 6, 7, 8 };

static struct bytes peers(void)
{
    return bytes_str("dusk/peers");
}

static struct bytes some_record(void)
{
    return bytes_of(record, sizeof(record));
}

static struct bytes golden(const char *name)
{
    return vector(vectors_of("rdv/messages.txt"), name);
}

static void expect_golden(struct bytes got, const char *name)
{
    cr_expect(bytes_eq(got, golden(name)), "%s: %zu bytes", name, got.n);
}

/* A message without its prefix. */
static struct bytes body(struct bytes framed)
{
    struct cur c = cur_of(framed);
    struct bytes b = cur_lp(&c);

    cr_assert(not(c.bad));
    cr_assert(zero(sz, c.n));
    return b;
}

static bool asked(const char *wire, struct rdv_msg *m)
{
    static struct hex h;

    h = unhex(wire);
    return rdv_request_decode(hex_bytes(&h), m);
}

static struct bytes cookie_of(struct bytes ns, uint8_t room[RDV_COOKIE_MAX])
{
    memcpy(room, upstream_id, sizeof(upstream_id));
    memcpy(room + sizeof(upstream_id), ns.p, ns.n);
    return bytes_of(room, sizeof(upstream_id) + ns.n);
}

Test(rdv_put_request, writes_the_published_requests)
{
    const struct {
        const char *name;
        struct rdv_msg m;
    } all[] = {
        { "dusk-register",
          { .type = RDV_REGISTER, .has_ns = true, .ns = peers(), .record = some_record() } },
        { "dusk-unregister", { .type = RDV_UNREGISTER, .has_ns = true, .ns = peers() } },
        { "dusk-discover", { .type = RDV_DISCOVER, .has_ns = true, .ns = peers() } },
        { "libp2p-unregister",
          { .type = RDV_UNREGISTER, .has_ns = true, .ns = bytes_str("test") } },
        { "libp2p-discover-limit",
          { .type = RDV_DISCOVER,
            .has_ns = true,
            .ns = bytes_str("test"),
            .has_limit = true,
            .limit = 10 } },
    };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        uint8_t buf[64];
        struct wcur w = wcur_of(buf, sizeof(buf));
        size_t full = golden(all[i].name).n;

        rdv_put_request(&w, &all[i].m);
        cr_assert(not(w.bad));
        expect_golden(bytes_of(buf, w.wrote), all[i].name);
        EXPECT_BAD_IN_EVERY_SMALLER_ROOM(full, cut, rdv_put_request(&cut, &all[i].m));
    }
}

Test(rdv_request_decode, reads_the_published_requests)
{
    struct rdv_msg m;

    cr_assert(rdv_request_decode(body(golden("dusk-register")), &m));
    cr_expect(m.type == RDV_REGISTER && m.has_ns && bytes_eq(m.ns, peers()));
    cr_expect(bytes_eq(m.record, some_record()));
    cr_expect(not(m.has_ttl));
    cr_assert(rdv_request_decode(body(golden("dusk-unregister")), &m));
    cr_expect(m.type == RDV_UNREGISTER && m.has_ns && bytes_eq(m.ns, peers()));
    cr_assert(rdv_request_decode(body(golden("dusk-discover")), &m));
    cr_expect(m.type == RDV_DISCOVER && m.has_ns && bytes_eq(m.ns, peers()));
    cr_expect(not(m.has_limit));
    cr_expect(not(m.has_cookie));
    cr_assert(rdv_request_decode(body(golden("libp2p-discover-limit")), &m));
    cr_expect(bytes_eq(m.ns, bytes_str("test")));
    cr_expect(m.has_limit && m.limit == 10);
    cr_assert(rdv_request_decode(body(golden("libp2p-unregister")), &m));
    cr_expect(bytes_eq(m.ns, bytes_str("test")));
}

Test(rdv_request_decode, tells_present_from_absent)
{
    struct rdv_msg m;

    cr_assert(asked("0803 2a00", &m));
    cr_expect(not(m.has_ns));
    cr_expect(not(m.has_cookie));
    cr_assert(asked("0803 2a06 0a00 1000 1a00", &m));
    cr_expect(m.has_ns && m.ns.n == 0);
    cr_expect(m.has_limit && m.limit == 0);
    cr_expect(m.has_cookie && m.cookie.n == 0);
    cr_assert(asked("0800 1206 0a00 1200 1800", &m));
    cr_expect(m.has_ns && m.ns.n == 0 && m.record.n == 0);
    cr_expect(m.has_ttl && m.ttl_s == 0);
    cr_assert(asked("0800 120b 18ffffffffffffffffff01", &m)); /* ten bytes: all 64 bits (§1.1) */
    cr_expect(m.has_ttl && m.ttl_s == UINT64_MAX);
    cr_assert(asked("0802 2200", &m));
    cr_expect(not(m.has_ns));
}

Test(rdv_request_decode, is_as_tolerant_as_protobuf)
{
    struct rdv_msg m;

    cr_expect(asked("2a0c" PEERS "0803", &m), "any order");
    cr_expect(m.type == RDV_DISCOVER);
    cr_expect(asked("0803 2a0f" PEERS "220101 3801 420100", &m), "unknown fields");
    cr_expect(bytes_eq(m.ns, peers()));
    cr_expect(asked("088300 2a00", &m), "a long varint (§1.1)");
    cr_expect(asked("0800 0803 2a00", &m) && m.type == RDV_DISCOVER, "the last type counts");
    cr_expect(asked("0803 2a03 0a0161 2a03 0a0162", &m) && bytes_eq(m.ns, bytes_str("b")));
    cr_expect(asked("0800 120c" PEERS "2204 0a026162", &m) && bytes_eq(m.ns, peers()),
              "the part of another type does not matter");
}

Test(rdv_request_decode, refuses_what_is_no_request)
{
    static const char *const all[] = {
        "",
        "2a00",              /* no type */
        "1202 0a00",         /* nor is REGISTER one that is meant */
        "0803",              /* no part */
        ("0800 2a0c" PEERS), /* another's part */
        "0801 1a020800",     /* a reply */
        "0804 3202 1800",    /* a reply */
        "0805 2a00",         /* a type that nobody has given a meaning */
        "08ffffffffffffffffff01 2a00",
        "0803 2a02 0801",       /* a namespace as a number */
        "0803 2a05 0d61626364", /* as a fixed */
        "0803 2a01",            /* longer than there is */
        "0803 2a02 0a05",       /* inside, too */
        "0803 2d 2a000000",     /* a part as a fixed */
        "0803 2b 2c",           /* groups */
        "0b 0803 2a00",
        "0003 2a00", /* field number 0 */
    };
    struct rdv_msg m = { .limit = 77 };

    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        cr_expect(not(asked(all[i], &m)), "case %zu", i);
    cr_expect(eq(u64, m.limit, 77), "left alone");
}

Test(rdv_request_decode, refuses_every_truncation)
{
    static const char *const all[] = { "dusk-register", "dusk-unregister", "dusk-discover",
                                       "libp2p-discover-limit", "libp2p-unregister" };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct bytes whole = body(golden(all[i]));
        struct rdv_msg m;

        for (size_t n = 0; n < whole.n; n++) {
            uint8_t *copy;
            struct bytes cut = tight(bytes_of(whole.p, n), &copy);

            cr_expect(not(rdv_request_decode(cut, &m)), "%s: accepted %zu", all[i], n);
            free(copy);
        }
    }
}

Test(rdv_request_decode, reads_its_maximum_and_nothing_longer)
{
    static uint8_t buf[RDV_REQUEST_MAX + 1 + VARINT_MAX_BYTES];
    static uint8_t filler[RDV_REQUEST_MAX];
    struct rdv_msg put = { .type = RDV_REGISTER, .has_ns = true };
    size_t fits = RDV_REQUEST_MAX - 2 - 4 - 4;

    for (size_t more = 0; more < 2; more++) {
        struct wcur w = wcur_of(buf, sizeof(buf));
        struct rdv_msg m;

        put.ns = bytes_of(filler, fits + more);
        rdv_put_request(&w, &put);
        cr_assert(not(w.bad));
        struct bytes in = body(bytes_of(buf, w.wrote));

        cr_assert(eq(sz, in.n, RDV_REQUEST_MAX + more));
        cr_expect(eq(int, rdv_request_decode(in, &m), more == 0));
    }
}

Test(rdv_put_request, writes_what_is_present_and_empty)
{
    const struct rdv_msg m = {
        .type = RDV_DISCOVER, .has_ns = true, .has_limit = true, .has_cookie = true
    };
    uint8_t buf[32];
    struct wcur w = wcur_of(buf, sizeof(buf));

    rdv_put_request(&w, &m);
    expect_wrote(&w, buf, "0a 0803 2a06 0a00 1000 1a00");
}

Test(rdv_put_register_reply, writes_the_published_answers_with_their_zeroes)
{
    const struct {
        const char *name;
        enum rdv_status status;
        struct bytes text;
    } all[] = {
        { "dusk-register-ok", RDV_OK, { 0 } },
        { "libp2p-register-ok", RDV_OK, bytes_str("not said") },
        { "dusk-register-bad-ttl", RDV_INVALID_TTL, { 0 } },
        { "dusk-register-foreign", RDV_NOT_AUTHORIZED, { 0 } },
        { "libp2p-register-bad-ttl", RDV_INVALID_TTL,
          rdv_status_text(&rdv_rules_default, RDV_INVALID_TTL) },
    };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        uint8_t buf[64];
        struct wcur w = wcur_of(buf, sizeof(buf));
        struct rdv_reply reply;
        size_t full = golden(all[i].name).n;

        rdv_put_register_reply(&w, all[i].status, 7200, all[i].text);
        cr_assert(not(w.bad));
        expect_golden(bytes_of(buf, w.wrote), all[i].name);
        EXPECT_BAD_IN_EVERY_SMALLER_ROOM(
            full, cut, rdv_put_register_reply(&cut, all[i].status, 7200, all[i].text));

        cr_assert(rdv_reply_decode(body(golden(all[i].name)), &reply));
        cr_expect(reply.type == RDV_REGISTER_REPLY);
        cr_expect(reply.has_status && reply.status == all[i].status);
        cr_expect(reply.has_ttl == (all[i].status == RDV_OK));
        cr_expect(reply.ttl_s == (reply.has_ttl ? 7200 : 0));
    }
}

Test(rdv_put_register_reply, says_a_ttl_of_zero)
{
    uint8_t buf[64];
    struct wcur w = wcur_of(buf, sizeof(buf));

    rdv_put_register_reply(&w, RDV_OK, 0, bytes_of(NULL, 0));
    expect_wrote(&w, buf, "08 0801 1a04 0800 1800");
}

Test(rdv_put_discover_refusal, writes_the_published_answer)
{
    static const enum rdv_status all[] = { RDV_INVALID_NAMESPACE, RDV_INVALID_COOKIE,
                                           RDV_INTERNAL_ERROR, RDV_UNAVAILABLE };
    uint8_t buf[128];
    struct wcur w = wcur_of(buf, sizeof(buf));

    rdv_put_discover_refusal(&w, RDV_INVALID_COOKIE, bytes_of(NULL, 0));
    expect_golden(bytes_of(buf, w.wrote), "dusk-discover-bad-cookie");
    EXPECT_BAD_IN_EVERY_SMALLER_ROOM(
        7, cut, rdv_put_discover_refusal(&cut, RDV_INVALID_COOKIE, bytes_of(NULL, 0)));
    w = wcur_of(buf, sizeof(buf));
    rdv_put_discover_refusal(&w, RDV_INVALID_COOKIE,
                             rdv_status_text(&rdv_rules_default, RDV_INVALID_COOKIE));
    expect_wrote(&w, buf, "0e 0804 320a 1867 2206 636f6f6b6965");

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct bytes text = rdv_status_text(&rdv_rules_default, all[i]);
        struct rdv_reply reply;

        w = wcur_of(buf, sizeof(buf));
        rdv_put_discover_refusal(&w, all[i], text);
        cr_assert(rdv_reply_decode(body(bytes_of(buf, w.wrote)), &reply));
        cr_expect(reply.type == RDV_DISCOVER_REPLY && reply.n == 0);
        cr_expect(reply.has_status && reply.status == all[i]);
        cr_expect(bytes_eq(reply.text, text) && text.n > 0);
        cr_expect(not(reply.has_cookie));
    }
}

Test(rdv_status_text, fits_and_is_silent_under_dusk)
{
    static const enum rdv_status all[] = { RDV_OK,          RDV_INVALID_NAMESPACE,
                                           RDV_INVALID_TTL, RDV_INVALID_RECORD,
                                           RDV_UNAVAILABLE, RDV_NOT_AUTHORIZED,
                                           RDV_SILENT,      RDV_INTERNAL_ERROR };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        cr_expect(zero(sz, rdv_status_text(&rdv_rules_dusk, all[i]).n));
        cr_expect(le(sz, rdv_status_text(&rdv_rules_default, all[i]).n, RDV_TEXT_MAX));
    }
}

Test(rdv_page, writes_the_published_answers)
{
    uint8_t buf[RDV_PAGE_MIN + 64], room[RDV_COOKIE_MAX];
    struct bytes cookie = cookie_of(peers(), room);
    struct rdv_page p;

    rdv_page_begin(&p, buf, sizeof(buf));
    expect_golden(rdv_page_end(&p, cookie), "dusk-discover-empty");
    rdv_page_begin(&p, buf, sizeof(buf));
    cr_assert(rdv_page_put(&p, peers(), some_record(), 7200));
    cr_expect(eq(u32, p.n, 1));
    expect_golden(rdv_page_end(&p, cookie), "dusk-discover-one");
}

Test(rdv_page, is_read_back_in_its_order)
{
    static uint8_t buf[8192];
    struct rdv_record one;
    struct rdv_reply reply;
    struct rdv_page p;
    char ns[16];

    rdv_page_begin(&p, buf, sizeof(buf));
    for (unsigned i = 0; i < 100; i++) {
        snprintf(ns, sizeof(ns), "ns-%u", i);
        cr_assert(rdv_page_put(&p, bytes_str(i ? ns : ""), some_record(), i));
    }
    cr_assert(rdv_reply_decode(body(rdv_page_end(&p, bytes_str("12345678"))), &reply));
    cr_expect(reply.has_status && reply.status == RDV_OK);
    cr_expect(bytes_eq(reply.cookie, bytes_str("12345678")));
    cr_assert(eq(u32, reply.n, 100));

    struct cur rest = cur_of(reply.records);

    for (unsigned i = 0; i < 100; i++) {
        snprintf(ns, sizeof(ns), "ns-%u", i);
        cr_assert(rdv_reply_next(&rest, &one));
        cr_expect(one.has_ns && bytes_eq(one.ns, bytes_str(i ? ns : "")));
        cr_expect(bytes_eq(one.record, some_record()));
        cr_expect(one.has_ttl && one.ttl_s == i);
    }
    cr_expect(not(rdv_reply_next(&rest, &one)));
    cr_expect(not(rest.bad));
}

/* Whatever the room, what went in fits, what does not is refused whole, and nothing else changes.
 */
Test(rdv_page, fills_any_room_to_the_last_record_that_fits)
{
    uint8_t longest[RDV_NS_MAX], cookie[RDV_COOKIE_MAX];
    struct bytes ns = bytes_of(longest, sizeof(longest));

    memset(longest, 'n', sizeof(longest));
    memset(cookie, 'c', sizeof(cookie));
    for (size_t extra = 0; extra < 1200; extra++) {
        size_t cap = RDV_PAGE_MIN + extra, each = rdv_page_cost(ns, some_record(), 7200);
        uint8_t *buf = malloc(cap);
        struct rdv_page p;
        struct rdv_reply reply;

        rdv_page_begin(&p, buf, cap);
        while (rdv_page_put(&p, ns, some_record(), 7200)) {
        }
        cr_assert(eq(sz, p.n, extra / each));
        struct bytes whole = rdv_page_end(&p, bytes_of(cookie, sizeof(cookie)));

        cr_assert(whole.p >= buf && whole.p < buf + RDV_PAGE_HEAD);
        cr_assert(le(sz, (size_t)(whole.p - buf) + whole.n, cap));
        cr_assert(rdv_reply_decode(body(whole), &reply));
        cr_assert(eq(u32, reply.n, extra / each));
        free(buf);
    }
}

Test(rdv_page, stays_below_what_rust_reads)
{
    static uint8_t buf[2 * RDV_REPLY_MAX], record_max[RDV_RECORD_MAX], cookie[RDV_COOKIE_MAX];
    struct bytes big = bytes_of(record_max, sizeof(record_max));
    struct rdv_page p;
    struct rdv_reply reply;

    rdv_page_begin(&p, buf, sizeof(buf));
    while (rdv_page_put(&p, peers(), big, 259200)) {
    }
    while (rdv_page_put(&p, bytes_str(""), bytes_of(NULL, 0), 0)) {
    }
    struct bytes whole = rdv_page_end(&p, bytes_of(cookie, sizeof(cookie)));

    cr_expect(lt(sz, whole.n, RDV_REPLY_MAX));
    cr_expect(lt(sz, RDV_REPLY_MAX - 16, whole.n));
    cr_expect(rdv_reply_decode(body(whole), &reply));
    cr_expect(eq(u32, reply.n, p.n));
}

Test(rdv_page_cost, is_what_a_record_takes)
{
    static const size_t sizes[] = { 0, 1, 100, 113, 114, 127, 128, 255 };
    static uint8_t buf[4096], filler[256];

    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        for (uint64_t ttl_s = 1; ttl_s < UINT64_C(1) << 62; ttl_s <<= 7) {
            struct bytes b = bytes_of(filler, sizes[i]);
            struct rdv_page p;

            rdv_page_begin(&p, buf, sizeof(buf));
            cr_assert(rdv_page_put(&p, b, b, ttl_s));
            cr_expect(eq(sz, p.w.wrote, rdv_page_cost(b, b, ttl_s)));
        }
    }
}

Test(rdv_reply_decode, refuses_every_truncation_and_what_is_no_reply)
{
    static const char *const all[] = { "dusk-register-ok",       "dusk-register-bad-ttl",
                                       "dusk-register-foreign",  "dusk-discover-one",
                                       "dusk-discover-empty",    "dusk-discover-bad-cookie",
                                       "libp2p-register-bad-ttl" };
    static const char *const bad[] = {
        "0801", "0804", "0801 3200", "0800 1200", "0804 3203 0a0108", "0804 3202 1a01", "1a00"
    };
    struct rdv_reply reply;

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct bytes whole = body(golden(all[i]));

        for (size_t n = 0; n < whole.n; n++) {
            uint8_t *copy;
            struct bytes cut = tight(bytes_of(whole.p, n), &copy);

            cr_expect(not(rdv_reply_decode(cut, &reply)), "%s: accepted %zu", all[i], n);
            free(copy);
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct hex h = unhex(bad[i]);

        cr_expect(not(rdv_reply_decode(hex_bytes(&h), &reply)), "case %zu", i);
    }
}

Test(rdv_reply_decode, reads_its_maximum_and_nothing_longer)
{
    static uint8_t in[RDV_REPLY_MAX + 1];
    struct rdv_reply reply;

    for (size_t more = 0; more < 2; more++) {
        size_t n = RDV_REPLY_MAX + more;
        struct wcur w = wcur_of(in, n);

        wcur_put(&w, bytes_of("\x08\x01\x1a\x02\x08", 6)); /* status 0 */
        wcur_u8(&w, 0x3a);                                 /* and an unknown field to the end */
        wcur_varint(&w, n - w.wrote - 3);
        cr_assert(eq(sz, w.wrote, 10));
        cr_expect(eq(int, rdv_reply_decode(bytes_of(in, n), &reply), more == 0));
    }
}
