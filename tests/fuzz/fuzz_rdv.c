/* A rendezvous message. The first byte chooses the rules and the side: what decodes lies within the
 * input, reads the same after it was written again, and whatever the rules grant is within them. */
#include "tests/fuzz/fuzz.h"

#include "proto/crypto.h"
#include "proto/rdv.h"
#include "proto/varint.h"

static const uint8_t key[16] = "sixteen bytes...";

static uint8_t out[RDV_REPLY_MAX + VARINT_MAX_BYTES];

static struct bytes body_of(const struct wcur *w)
{
    struct cur c = cur_of(bytes_of(out, w->wrote));
    struct bytes body = cur_lp(&c);

    CHECK(!w->bad);
    CHECK(!c.bad);
    CHECK(c.n == 0);
    return body;
}

static void check_within(struct bytes part, struct bytes in)
{
    if (part.n)
        CHECK(part.p > in.p && part.n <= (size_t)(in.p + in.n - part.p));
}

static void check_same(const struct rdv_msg *a, const struct rdv_msg *b)
{
    CHECK(a->type == b->type);
    CHECK(a->has_ns == b->has_ns && bytes_eq(a->ns, b->ns));
    CHECK(bytes_eq(a->record, b->record));
    CHECK(a->has_ttl == b->has_ttl && a->ttl_s == b->ttl_s);
    CHECK(a->has_limit == b->has_limit && a->limit == b->limit);
    CHECK(a->has_cookie == b->has_cookie && bytes_eq(a->cookie, b->cookie));
}

static bool within_63_bits(const struct rdv_msg *m)
{
    return !(m->ttl_s >> 63) && !(m->limit >> 63);
}

static void check_register(const struct rdv_rules *r, const struct rdv_msg *m)
{
    struct peer_record record;
    struct peer_id remote = { .n = 3, .b = { 0, 1, 1 } };
    struct rdv_register reg;

    (void)(peer_record_open(m->record, &record) && (remote = record.id, true));
    if (rdv_check_register(r, m, &remote, &reg) != RDV_OK)
        return;
    CHECK(reg.ns.n <= RDV_NS_MAX && (reg.ns.n || r->empty_ns));
    CHECK(reg.ttl_s >= r->ttl_min_s && reg.ttl_s <= r->ttl_max_s);
    CHECK(bytes_eq(reg.record, m->record) && reg.record.n <= RDV_RECORD_MAX);
}

/* What was found goes out with a cookie that continues there. */
static void check_discover(const struct rdv_rules *r, const struct rdv_msg *m)
{
    struct rdv_query q, again;
    uint8_t cookie[RDV_COOKIE_MAX];
    struct rdv_msg next = *m;

    if (rdv_check_discover(r, m, key, &q) != RDV_OK)
        return;
    CHECK(q.limit <= r->results_max && q.after <= RDV_SEQ_MAX && q.ns.n <= RDV_NS_MAX);
    next.has_cookie = true;
    next.cookie =
        bytes_of(cookie, rdv_cookie_make(key, q.after + 1 <= RDV_SEQ_MAX ? q.after + 1 : 0, q.all,
                                         q.ns, cookie));
    CHECK(rdv_check_discover(r, &next, key, &again) == RDV_OK);
    CHECK(again.after == (q.after + 1 <= RDV_SEQ_MAX ? q.after + 1 : 0));
}

static void check_request(const struct rdv_rules *r, struct bytes in)
{
    struct rdv_msg m, again;
    struct bytes ns;

    if (!rdv_request_decode(in, &m))
        return;
    CHECK(in.n <= RDV_REQUEST_MAX);
    check_within(m.ns, in);
    check_within(m.record, in);
    check_within(m.cookie, in);
    if (within_63_bits(&m)) { /* no bound of the encoder's: nanopb writes all 64 */
        struct wcur w = wcur_of(out, sizeof(out));

        rdv_put_request(&w, &m);
        CHECK(rdv_request_decode(body_of(&w), &again));
        check_same(&m, &again);
    }
    if (m.type == RDV_REGISTER)
        check_register(r, &m);
    else if (m.type == RDV_DISCOVER)
        check_discover(r, &m);
    else if (rdv_check_unregister(r, &m, &ns))
        CHECK(ns.n <= RDV_NS_MAX);
}

/* A page of the same records reads as they did, as far as there was room. */
static void check_page(const struct rdv_reply *reply)
{
    struct cur from = cur_of(reply->records), back;
    struct rdv_page p;
    struct rdv_record a, b;
    struct rdv_reply again;
    struct bytes cookie = { reply->cookie.p, min_sz(reply->cookie.n, RDV_COOKIE_MAX) };
    size_t cap = RDV_PAGE_MIN + (reply->ttl_s + reply->records.n) % 4096;
    uint32_t n = 0;

    rdv_page_begin(&p, out, cap);
    while (rdv_reply_next(&from, &a) && rdv_page_put(&p, a.ns, a.record, a.ttl_s >> 1))
        n++;
    struct bytes whole = rdv_page_end(&p, cookie);
    struct cur c = cur_of(whole);

    CHECK(whole.p >= out && whole.p + whole.n <= out + cap);
    CHECK(rdv_reply_decode(cur_lp(&c), &again) && c.n == 0);
    CHECK(again.n == n && again.status == RDV_OK && bytes_eq(again.cookie, cookie));
    from = cur_of(reply->records);
    back = cur_of(again.records);
    for (; n; n--) {
        CHECK(rdv_reply_next(&from, &a) && rdv_reply_next(&back, &b));
        CHECK(bytes_eq(a.ns, b.ns) && bytes_eq(a.record, b.record) && b.ttl_s == a.ttl_s >> 1);
    }
}

static void check_reply(struct bytes in)
{
    struct rdv_reply reply, again;
    struct wcur w = wcur_of(out, sizeof(out));

    if (!rdv_reply_decode(in, &reply))
        return;
    if (reply.type == RDV_DISCOVER_REPLY) {
        struct cur rest = cur_of(reply.records);
        struct rdv_record one;
        uint32_t n = 0;

        while (rdv_reply_next(&rest, &one))
            n++;
        CHECK(n == reply.n && !rest.bad);
        check_page(&reply);
        return;
    }
    if (reply.status == RDV_SILENT || reply.text.n > RDV_TEXT_MAX)
        return;
    rdv_put_register_reply(&w, reply.status, (uint32_t)reply.ttl_s, reply.text);
    CHECK(rdv_reply_decode(body_of(&w), &again));
    CHECK(again.has_status && again.status == reply.status);
    if (reply.status == RDV_OK)
        CHECK(again.has_ttl && again.ttl_s == (uint32_t)reply.ttl_s);
    else
        CHECK(bytes_eq(again.text, reply.text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cur c = cur_of(bytes_of(data, size));
    uint8_t choice = fuzz_u8(&c);
    struct bytes in = fuzz_rest(&c);

    crypto_init();
    if (choice & 1)
        check_reply(in);
    else
        check_request(choice & 2 ? &rdv_rules_dusk : &rdv_rules_default, in);
    return 0;
}
