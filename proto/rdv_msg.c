#include "proto/rdv.h"

#include "proto/pb/rendezvous.pb.h"
#include "proto/varint.h"
#include "proto/wire.h"

/* The numbers of the wire are ours; the casts between the two enums below lean on it. */
static_assert((int)RDV_REGISTER == (int)wire_RdvMessage_Type_REGISTER, "Message.Type");
static_assert((int)RDV_REGISTER_REPLY == (int)wire_RdvMessage_Type_REGISTER_REPLY, "Message.Type");
static_assert((int)RDV_UNREGISTER == (int)wire_RdvMessage_Type_UNREGISTER, "Message.Type");
static_assert((int)RDV_DISCOVER == (int)wire_RdvMessage_Type_DISCOVER, "Message.Type");
static_assert((int)RDV_DISCOVER_REPLY == (int)wire_RdvMessage_Type_DISCOVER_REPLY, "Message.Type");

enum { TAG_LP = 2, TAG_VARINT = 0 }; /* protobuf wire types */

#define TAG(field, wire_type) ((uint8_t)((field) << 3 | (wire_type)))

/* What a page needs around its records; RDV_PAGE_HEAD and RDV_PAGE_TAIL are sums of these. */
static_assert(RDV_REPLY_MAX <= 1 << 21, "a length takes three bytes of a varint");
static_assert(RDV_PAGE_HEAD == 3 + 2 + 1 + 3, "length, type, tag, length");
static_assert(RDV_COOKIE_MAX < 1 << 14, "a cookie's length takes two bytes");

static void read_register(const wire_RdvRegister *pb, struct rdv_msg *m)
{
    m->has_ns = pb->ns.p != NULL;
    m->ns = pb->ns;
    m->record = pb->record;
    m->has_ttl = pb->has_ttl;
    m->ttl_s = pb->ttl;
}

static void read_discover(const wire_RdvDiscover *pb, struct rdv_msg *m)
{
    m->has_ns = pb->ns.p != NULL;
    m->ns = pb->ns;
    m->has_limit = pb->has_limit;
    m->limit = pb->limit;
    m->has_cookie = pb->cookie.p != NULL;
    m->cookie = pb->cookie;
}

bool rdv_request_decode(struct bytes in, struct rdv_msg *m)
{
    wire_RdvMessage pb = { 0 };
    struct rdv_msg got = { 0 };

    if (in.n > RDV_REQUEST_MAX || !wire_decode(in, wire_RdvMessage_fields, &pb) || !pb.has_type)
        return false;
    got.type = (enum rdv_type)pb.type;
    if (got.type == RDV_REGISTER && pb.has_reg) {
        read_register(&pb.reg, &got);
    } else if (got.type == RDV_DISCOVER && pb.has_disc) {
        read_discover(&pb.disc, &got);
    } else if (got.type == RDV_UNREGISTER && pb.has_unreg) {
        got.has_ns = pb.unreg.ns.p != NULL;
        got.ns = pb.unreg.ns;
    } else {
        return false;
    }
    *m = got;
    return true;
}

/* Present and empty is not absent: an empty view still points somewhere. */
static struct bytes present(bool has, struct bytes b)
{
    static const uint8_t nothing[1];

    if (!has)
        return (struct bytes){ 0 };
    return b.n ? b : bytes_of(nothing, 0);
}

void rdv_put_request(struct wcur *w, const struct rdv_msg *m)
{
    wire_RdvMessage pb = { .has_type = true, .type = (wire_RdvMessage_Type)m->type };
    struct bytes ns = present(m->has_ns, m->ns);

    switch (m->type) {
    case RDV_REGISTER:
        pb.has_reg = true;
        pb.reg =
            (wire_RdvRegister){ ns, present(m->record.n > 0, m->record), m->has_ttl, m->ttl_s };
        break;
    case RDV_UNREGISTER:
        pb.has_unreg = true;
        pb.unreg.ns = ns;
        break;
    default:
        ASSERT(m->type == RDV_DISCOVER);
        pb.has_disc = true;
        pb.disc =
            (wire_RdvDiscover){ ns, m->has_limit, m->limit, present(m->has_cookie, m->cookie) };
    }
    wire_put_delimited(w, wire_RdvMessage_fields, &pb);
}

void rdv_put_register_reply(struct wcur *w, enum rdv_status status, uint32_t ttl_s,
                            struct bytes text)
{
    wire_RdvMessage pb = { .has_type = true, .type = wire_RdvMessage_Type_REGISTER_REPLY };

    ASSERT(status != RDV_SILENT);
    ASSERT(text.n <= RDV_TEXT_MAX);
    pb.has_reg_reply = pb.reg_reply.has_status = true;
    pb.reg_reply.status = (uint32_t)status;
    if (status == RDV_OK) {
        pb.reg_reply.has_ttl = true;
        pb.reg_reply.ttl = ttl_s;
    } else {
        pb.reg_reply.text = present(text.n > 0, text);
    }
    wire_put_delimited(w, wire_RdvMessage_fields, &pb);
}

void rdv_put_discover_refusal(struct wcur *w, enum rdv_status status, struct bytes text)
{
    uint8_t buf[2 + VARINT_MAX_BYTES + 2 + RDV_TEXT_MAX];
    struct wcur inner = wcur_of(buf, sizeof(buf));
    wire_RdvDiscoverReply refusal = { .has_status = true, .status = (uint32_t)status };
    wire_RdvMessage pb = { .has_type = true, .type = wire_RdvMessage_Type_DISCOVER_REPLY };

    ASSERT(status != RDV_OK);
    ASSERT(status != RDV_SILENT);
    ASSERT(text.n <= RDV_TEXT_MAX);
    refusal.text = present(text.n > 0, text);
    wire_put(&inner, wire_RdvDiscoverReply_fields, &refusal);
    ASSERT(!inner.bad);
    pb.disc_reply = bytes_of(buf, inner.wrote);
    wire_put_delimited(w, wire_RdvMessage_fields, &pb);
}

void rdv_page_begin(struct rdv_page *p, void *buf, size_t cap)
{
    ASSERT(cap >= RDV_PAGE_MIN);
    cap = min_sz(cap, RDV_REPLY_MAX - 1);
    *p = (struct rdv_page){ buf, { 0 }, 0 };
    p->w = wcur_of(p->buf + RDV_PAGE_HEAD, cap - RDV_PAGE_MIN);
}

static size_t registration_size(struct bytes ns, struct bytes record, uint64_t ttl_s)
{
    return 1 + varint_len(ns.n) + ns.n + 1 + varint_len(record.n) + record.n + 1 +
           varint_len(ttl_s);
}

size_t rdv_page_cost(struct bytes ns, struct bytes record, uint64_t ttl_s)
{
    size_t n = registration_size(ns, record, ttl_s);

    return 1 + varint_len(n) + n;
}

bool rdv_page_put(struct rdv_page *p, struct bytes ns, struct bytes record, uint64_t ttl_s)
{
    if (rdv_page_cost(ns, record, ttl_s) > p->w.n)
        return false;
    wcur_u8(&p->w, TAG(wire_RdvDiscoverReply_registrations_tag, TAG_LP));
    wcur_varint(&p->w, registration_size(ns, record, ttl_s));
    wcur_u8(&p->w, TAG(wire_RdvRegister_ns_tag, TAG_LP));
    wcur_lp(&p->w, ns);
    wcur_u8(&p->w, TAG(wire_RdvRegister_record_tag, TAG_LP));
    wcur_lp(&p->w, record);
    wcur_u8(&p->w, TAG(wire_RdvRegister_ttl_tag, TAG_VARINT));
    wcur_varint(&p->w, ttl_s);
    ASSERT(!p->w.bad);
    p->n++;
    return true;
}

struct bytes rdv_page_end(struct rdv_page *p, struct bytes cookie)
{
    struct wcur *w = &p->w;
    uint8_t head[RDV_PAGE_HEAD];
    struct wcur h = wcur_of(head, sizeof(head));

    ASSERT(cookie.n <= RDV_COOKIE_MAX);
    w->n += RDV_PAGE_TAIL; /* kept back by rdv_page_begin */
    wcur_u8(w, TAG(wire_RdvDiscoverReply_cookie_tag, TAG_LP));
    wcur_lp(w, cookie);
    wcur_u8(w, TAG(wire_RdvDiscoverReply_status_tag, TAG_VARINT));
    wcur_u8(w, RDV_OK);
    ASSERT(!w->bad);

    wcur_varint(&h, 2 + 1 + varint_len(w->wrote) + w->wrote);
    wcur_u8(&h, TAG(wire_RdvMessage_type_tag, TAG_VARINT));
    wcur_u8(&h, RDV_DISCOVER_REPLY);
    wcur_u8(&h, TAG(wire_RdvMessage_disc_reply_tag, TAG_LP));
    wcur_varint(&h, w->wrote);
    ASSERT(!h.bad);

    uint8_t *start = p->buf + RDV_PAGE_HEAD - h.wrote;

    memcpy(start, head, h.wrote);
    return bytes_of(start, h.wrote + w->wrote);
}

static bool registration_decode(struct bytes in, struct rdv_record *one)
{
    wire_RdvRegister pb = { 0 };

    if (!wire_decode(in, wire_RdvRegister_fields, &pb))
        return false;
    *one = (struct rdv_record){ pb.ns.p != NULL, pb.has_ttl, pb.ns, pb.record, pb.ttl };
    return true;
}

static bool check_registration(void *arg, struct bytes item)
{
    struct rdv_record one;

    (void)arg;
    return registration_decode(item, &one);
}

static bool discover_reply_decode(struct bytes in, struct rdv_reply *reply)
{
    wire_RdvDiscoverReply pb = { 0 };

    pb.registrations.each = check_registration;
    if (!wire_decode(in, wire_RdvDiscoverReply_fields, &pb))
        return false;
    *reply = (struct rdv_reply){
        .type = RDV_DISCOVER_REPLY,
        .has_status = pb.has_status,
        .has_cookie = pb.cookie.p != NULL,
        .status = (enum rdv_status)pb.status,
        .text = pb.text,
        .cookie = pb.cookie,
        .records = in,
        .n = (uint32_t)pb.registrations.n, /* of two bytes each at least, in RDV_REPLY_MAX */
    };
    return true;
}

bool rdv_reply_decode(struct bytes in, struct rdv_reply *reply)
{
    wire_RdvMessage pb = { 0 };

    if (in.n > RDV_REPLY_MAX || !wire_decode(in, wire_RdvMessage_fields, &pb) || !pb.has_type)
        return false;
    if (pb.type == wire_RdvMessage_Type_DISCOVER_REPLY)
        return pb.disc_reply.p && discover_reply_decode(pb.disc_reply, reply);
    if (pb.type != wire_RdvMessage_Type_REGISTER_REPLY || !pb.has_reg_reply)
        return false;
    *reply = (struct rdv_reply){
        .type = RDV_REGISTER_REPLY,
        .has_status = pb.reg_reply.has_status,
        .has_ttl = pb.reg_reply.has_ttl,
        .status = (enum rdv_status)pb.reg_reply.status,
        .text = pb.reg_reply.text,
        .ttl_s = pb.reg_reply.ttl,
    };
    return true;
}

bool rdv_reply_next(struct cur *rest, struct rdv_record *one)
{
    struct bytes item;

    return wire_next(rest, wire_RdvDiscoverReply_registrations_tag, &item) &&
           registration_decode(item, one);
}
