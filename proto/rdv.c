#include "proto/rdv.h"

#include "proto/crypto.h"
#include "proto/maddr.h"
#include "proto/utf8.h"

#define OWN_NS "dusk/peer/" /* where a Dusk client is looked for by its id (dusk.md §5) */

static_assert(RDV_COOKIE_ID == 6 + 2, "48 bits of sequence number, 16 of tag");

const struct rdv_rules rdv_rules_default = {
    .ttl_min_s = 2 * 3600,
    .ttl_max_s = 72 * 3600,
    .ttl_default_s = 2 * 3600,
    .per_peer_max = 32, /* rust's, as is the total (libp2p.md §13) */
    .per_ns_max = 10000,
    .total_max = 10000,
    .results_max = 1000,
    .reply_max = RDV_REPLY_MAX - 1024,
    .zero_ttl_default = true,
    .remaining_ttl = true,
    .lower_seq_refused = true,
    .unknown_cookie_103 = true,
    .status_text = true,
};

/* The original bounds nothing (dusk.md §14); these are far above what its clients do: a
 * registration per community, and one DISCOVER's worth of dials every two minutes. */
const struct rdv_rules rdv_rules_dusk = {
    .ttl_min_s = 7200,
    .ttl_max_s = 259200,
    .ttl_default_s = 7200,
    .per_peer_max = 1000,
    .per_ns_max = 100000,
    .total_max = 1 << 20,
    .results_max = 1000,
    .reply_max = RDV_REPLY_MAX - 1024,
    .empty_ns = true,
    .discover_all = true,
    .rust_records = true,
    .short_cookie_silent = true,
    .own_peer_ns = true,
};

static enum rdv_status check_ns(const struct rdv_rules *r, struct bytes ns)
{
    struct utf8 u = { 0 };

    if (ns.n > RDV_NS_MAX || (ns.n == 0 && !r->empty_ns))
        return RDV_INVALID_NAMESPACE;
    if (ns.n && (!utf8_feed(&u, ns.p, ns.n) || !utf8_whole(&u)))
        return RDV_INVALID_NAMESPACE; /* a string field of protobuf */
    return RDV_OK;
}

/* What rust's multiaddr has always had. It knows neither http-path nor a certhash past 64 bytes. */
static bool rust_address(struct bytes multiaddr)
{
    struct cur rest = cur_of(multiaddr);
    struct maddr_part part;

    if (!maddr_valid(multiaddr))
        return false;
    while (maddr_next(&rest, &part)) {
        switch (part.code) {
        case MADDR_IP4:
        case MADDR_IP6:
        case MADDR_DNS:
        case MADDR_DNS4:
        case MADDR_DNS6:
        case MADDR_DNSADDR:
        case MADDR_TCP:
        case MADDR_UDP:
        case MADDR_P2P:
        case MADDR_P2P_CIRCUIT:
        case MADDR_QUIC:
        case MADDR_QUIC_V1:
        case MADDR_TLS:
        case MADDR_NOISE:
        case MADDR_WS:
        case MADDR_WSS:
            break;
        default:
            return false;
        }
    }
    return true;
}

bool rdv_rust_reads(const struct peer_record *record)
{
    struct cur rest = cur_of(record->addresses);
    struct bytes multiaddr;

    if (!record->legacy || record->key != KEY_ED25519) /* the others need features of its build */
        return false;
    while (peer_record_next(&rest, &multiaddr)) /* within RDV_RECORD_MAX */
        if (!rust_address(multiaddr))
            return false;
    return !rest.bad;
}

static bool of_another(struct bytes ns, const struct peer_id *remote)
{
    size_t head = strlen(OWN_NS);
    char text[PEER_TEXT_MAX];

    if (ns.n < head || memcmp(ns.p, OWN_NS, head) != 0)
        return false;
    peer_id_text(remote, text);
    return !bytes_eq(bytes_of(ns.p + head, ns.n - head), bytes_str(text));
}

enum rdv_status rdv_check_register(const struct rdv_rules *r, const struct rdv_msg *m,
                                   const struct peer_id *remote, struct rdv_register *out)
{
    struct peer_record record;
    uint64_t ttl_s = m->ttl_s;

    if (!m->has_ns || check_ns(r, m->ns) != RDV_OK)
        return RDV_INVALID_NAMESPACE;
    if (!peer_record_open(m->record, &record) || (r->rust_records && !rdv_rust_reads(&record)))
        return RDV_INVALID_RECORD;
    if (!peer_id_eq(&record.id, remote) || (r->own_peer_ns && of_another(m->ns, remote)))
        return RDV_NOT_AUTHORIZED;
    if (!m->has_ttl || (ttl_s == 0 && r->zero_ttl_default))
        ttl_s = r->ttl_default_s;
    if (ttl_s < r->ttl_min_s || ttl_s > r->ttl_max_s)
        return RDV_INVALID_TTL;
    *out = (struct rdv_register){ m->ns, m->record, (uint32_t)ttl_s, record.seq };
    return RDV_OK;
}

bool rdv_check_unregister(const struct rdv_rules *r, const struct rdv_msg *m, struct bytes *ns)
{
    if (!m->has_ns || check_ns(r, m->ns) != RDV_OK)
        return false;
    *ns = m->ns;
    return true;
}

enum rdv_status rdv_unknown_cookie(const struct rdv_rules *r, struct rdv_query *q)
{
    if (r->unknown_cookie_103)
        return RDV_INVALID_COOKIE;
    q->after = 0;
    return RDV_OK;
}

static enum rdv_status check_cookie(const struct rdv_rules *r, const struct rdv_msg *m,
                                    const uint8_t key[16], struct rdv_query *q)
{
    if (!m->has_cookie || (m->cookie.n == 0 && !r->short_cookie_silent))
        return RDV_OK;
    switch (rdv_cookie_parse(key, m->cookie, q->all, q->ns, &q->after)) {
    case RDV_COOKIE_OK:
        return RDV_OK;
    case RDV_COOKIE_UNKNOWN:
        return rdv_unknown_cookie(r, q);
    case RDV_COOKIE_SHORT:
        return r->short_cookie_silent ? RDV_SILENT : RDV_INVALID_COOKIE;
    case RDV_COOKIE_OTHER_NS:
        break;
    }
    return RDV_INVALID_COOKIE;
}

enum rdv_status rdv_check_discover(const struct rdv_rules *r, const struct rdv_msg *m,
                                   const uint8_t key[16], struct rdv_query *q)
{
    struct rdv_query asked = { .all = !m->has_ns, .limit = r->results_max };

    if (asked.all ? !r->discover_all : check_ns(r, m->ns) != RDV_OK)
        return RDV_INVALID_NAMESPACE;
    if (!asked.all)
        asked.ns = m->ns;
    if (m->has_limit)
        asked.limit = (uint32_t)min_u64(m->limit, r->results_max);

    enum rdv_status status = check_cookie(r, m, key, &asked);

    if (status == RDV_OK)
        *q = asked;
    return status;
}

/* Over `all` too: the namespace "" and no namespace are two questions with the same text. */
static uint16_t cookie_tag(const uint8_t key[16], uint64_t seq, bool all, struct bytes ns)
{
    uint8_t text[8 + 1 + RDV_NS_MAX];
    struct wcur w = wcur_of(text, sizeof(text));

    wcur_u32(&w, (uint32_t)(seq >> 32));
    wcur_u32(&w, (uint32_t)seq);
    wcur_u8(&w, all);
    wcur_put(&w, ns);
    ASSERT(!w.bad);
    return (uint16_t)crypto_siphash(key, bytes_of(text, w.wrote));
}

size_t rdv_cookie_make(const uint8_t key[16], uint64_t seq, bool all, struct bytes ns,
                       uint8_t out[RDV_COOKIE_MAX])
{
    struct wcur w = wcur_of(out, RDV_COOKIE_MAX);

    ASSERT(seq <= RDV_SEQ_MAX);
    ASSERT(!all || ns.n == 0);
    wcur_u16(&w, (uint16_t)(seq >> 32));
    wcur_u32(&w, (uint32_t)seq);
    wcur_u16(&w, cookie_tag(key, seq, all, ns));
    wcur_put(&w, ns);
    ASSERT(!w.bad);
    return w.wrote;
}

enum rdv_cookie rdv_cookie_parse(const uint8_t key[16], struct bytes cookie, bool all,
                                 struct bytes ns, uint64_t *seq)
{
    struct cur c = cur_of(cookie);
    uint64_t high = cur_u16(&c);
    uint64_t got = high << 32 | cur_u32(&c);
    uint16_t tag = cur_u16(&c);

    if (c.bad)
        return RDV_COOKIE_SHORT;
    if (!bytes_eq(bytes_of(c.p, c.n), all ? bytes_of(NULL, 0) : ns))
        return RDV_COOKIE_OTHER_NS;
    if (tag != cookie_tag(key, got, all, ns))
        return RDV_COOKIE_UNKNOWN;
    *seq = got;
    return RDV_COOKIE_OK;
}

struct bytes rdv_status_text(const struct rdv_rules *r, enum rdv_status status)
{
    if (!r->status_text)
        return bytes_of(NULL, 0);
    switch (status) {
    case RDV_INVALID_NAMESPACE:
        return bytes_str("namespace");
    case RDV_INVALID_RECORD:
        return bytes_str("record");
    case RDV_INVALID_TTL:
        return bytes_str("ttl");
    case RDV_INVALID_COOKIE:
        return bytes_str("cookie");
    case RDV_NOT_AUTHORIZED:
        return bytes_str("not yours");
    case RDV_INTERNAL_ERROR:
        return bytes_str("internal error");
    case RDV_UNAVAILABLE:
        return bytes_str("limit reached");
    case RDV_OK:
    case RDV_SILENT:
        break;
    }
    return bytes_of(NULL, 0);
}
