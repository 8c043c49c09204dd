#include "proto/peer_policy.h"

enum { LOW_PORTS_END = 1024, ALL_BITS = 128 };

#define V4(a, b, c, d, bits)                                                                       \
    {                                                                                              \
        { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d }, 96 + (bits)                      \
    }
/* A prefix is compared bit by bit from the left: no range here has a lower end and an upper end
 * that could be compared part by part (CVE-2026-73213). */
static const struct cidr special4[] = {
    V4(0, 0, 0, 0, 8),          /* "this network": 0.0.0.0 reaches loopback (CVE-2020-26262) */
    V4(10, 0, 0, 0, 8),         /* RFC 1918 */
    V4(100, 64, 0, 0, 10),      /* RFC 6598 */
    V4(127, 0, 0, 0, 8),        /* loopback (CVE-2018-4058) */
    V4(169, 254, 0, 0, 16),     /* link-local */
    V4(169, 254, 169, 254, 32), /* the metadata service of clouds, whoever opens link-local */
    V4(172, 16, 0, 0, 12),      /* RFC 1918 */
    V4(192, 0, 0, 0, 24),       /* RFC 6890 */
    V4(192, 0, 2, 0, 24),       /* RFC 5737 */
    V4(192, 88, 99, 0, 24),     /* RFC 7526, relays of 6to4 */
    V4(192, 168, 0, 0, 16),     /* RFC 1918 */
    V4(198, 18, 0, 0, 15),      /* RFC 2544 */
    V4(198, 51, 100, 0, 24),    /* RFC 5737 */
    V4(203, 0, 113, 0, 24),     /* RFC 5737 */
    V4(224, 0, 0, 0, 4),        /* multicast */
    V4(240, 0, 0, 0, 4),        /* reserved */
    V4(255, 255, 255, 255, 32), /* broadcast, whoever opens 240.0.0.0/4 */
};
#undef V4

static const struct cidr special6[] = {
    { { 0 }, 128 },                                 /* the unspecified address */
    { { [15] = 1 }, 128 },                          /* loopback */
    { { 0 }, 96 },                                  /* IPv4-compatible, retired by RFC 4291 */
    { { [8] = 0xff, [9] = 0xff }, 96 },             /* IPv4-translated, retired by RFC 6145 */
    { { 0x00, 0x64, 0xff, 0x9b, 0x00, 0x01 }, 48 }, /* NAT64 of this site (RFC 8215) */
    { { 0x01, 0x00 }, 64 },                         /* discard (RFC 6666) */
    { { 0x20, 0x01, 0x00 }, 23 },                   /* of protocols (RFC 2928) */
    { { 0x20, 0x01, 0x0d, 0xb8 }, 32 },             /* RFC 3849 */
    { { 0x3f, 0xff }, 20 },                         /* RFC 9637 */
    { { 0x5f, 0x00 }, 16 },                         /* segment identifiers (RFC 9602) */
    { { 0xfc }, 7 },                                /* unique local (RFC 4193) */
    { { 0xfd, 0x00, 0x0e, 0xc2, [14] = 0x02, [15] = 0x54 }, 128 }, /* metadata again */
    { { 0xfe, 0x80 }, 10 },                                        /* link-local */
    { { 0xfe, 0xc0 }, 10 }, /* site-local, retired by RFC 3879 */
    { { 0xff }, 8 },        /* multicast */
};

/* ---- what is carried ----------------------------------------------------------------------- */

static bool is4(const uint8_t ip[16])
{
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

    return memcmp(ip, mapped, sizeof(mapped)) == 0;
}

static bool begins(const uint8_t ip[16], const void *prefix, size_t n)
{
    return memcmp(ip, prefix, n) == 0;
}

static bool is_isatap(const uint8_t ip[16])
{
    return (ip[8] & ~3) == 0 && ip[9] == 0 && ip[10] == 0x5e && ip[11] == 0xfe; /* u and g: any */
}

enum peer_form peer_reduce(const uint8_t in[16], uint8_t out[16])
{
    static const uint8_t zero[12] = { 0 }, translated[12] = { [8] = 0xff, [9] = 0xff };
    static const uint8_t nat64[12] = { 0x00, 0x64, 0xff, 0x9b };
    static const uint8_t nat64_local[6] = { 0x00, 0x64, 0xff, 0x9b, 0x00, 0x01 };
    static const uint8_t teredo[4] = { 0x20, 0x01 };
    enum peer_form form = PEER_PLAIN;
    size_t at = 12;
    uint8_t flip = 0;

    if (is4(in)) {
        form = PEER_PLAIN;
    } else if (begins(in, zero, 12) && (in[12] || in[13] || in[14] || in[15] > 1)) {
        form = PEER_COMPATIBLE; /* :: and ::1 are themselves */
    } else if (begins(in, translated, 12)) {
        form = PEER_TRANSLATED;
    } else if (begins(in, nat64, 12)) {
        form = PEER_NAT64;
    } else if (begins(in, nat64_local, 6)) {
        form = PEER_NAT64_LOCAL;
    } else if (in[0] == 0x20 && in[1] == 0x02) {
        form = PEER_6TO4;
        at = 2;
    } else if (begins(in, teredo, 4)) {
        form = PEER_TEREDO;
        flip = 0xff;
    } else if (is_isatap(in)) {
        form = PEER_ISATAP;
    }
    if (form == PEER_PLAIN) {
        memcpy(out, in, 16);
        return form;
    }
    uint8_t carried[16] = { [10] = 0xff, [11] = 0xff };

    for (size_t i = 0; i < 4; i++)
        carried[12 + i] = in[at + i] ^ flip;
    memcpy(out, carried, 16);
    return form;
}

/* The operator of 64:ff9b:1::/48 may have split it into /64s, and then the IPv4 address stands
 * behind an octet of zeroes in the middle, with zeroes at the end (RFC 6052 §2.2). The longer forms
 * of that kind end in 32 zeroes, which is 0.0.0.0 for who reads the end. */
static bool carried_by_64(const uint8_t in[16], uint8_t out[16])
{
    uint8_t carried[16] = { [10] = 0xff, [11] = 0xff };

    if (in[8] || in[13] || in[14] || in[15])
        return false;
    memcpy(carried + 12, in + 9, 4);
    memcpy(out, carried, 16);
    return true;
}

/* ---- who decides --------------------------------------------------------------------------- */

struct decision {
    int bits; /* of the entry that decides so far; -1: none */
    enum peer_verdict verdict;
};

/* Later lists win where they are as specific. Most entries are done with after one byte: it is
 * asked for nearly each datagram. */
static void consult(struct decision *d, const struct cidr *list, size_t count, const uint8_t ip[16],
                    enum peer_verdict verdict)
{
    for (size_t i = 0; i < count; i++) {
        const struct cidr *c = &list[i];

        if (c->bits < d->bits || (c->bits >= 8 && c->ip[0] != ip[0]) ||
            (c->bits >= 104 && c->ip[12] != ip[12]))
            continue;
        if (cidr_match(c, ip))
            *d = (struct decision){ c->bits, verdict };
    }
}

/* Port 0 stands for any. */
static void consult_self(struct decision *d, const struct peer_policy *p, const uint8_t ip[16],
                         uint16_t port)
{
    for (size_t i = 0; i < p->self_count; i++) {
        const struct peer_self *s = &p->self[i];

        if (memcmp(s->ip, ip, sizeof(s->ip)) != 0)
            continue;
        bool relayed = port == 0 || (port >= p->relay_port_min && port <= p->relay_port_max);

        *d = (struct decision){ ALL_BITS, !s->relay ? PEER_SELF : relayed ? PEER_OK : PEER_PORT };
    }
}

static enum peer_verdict judge_ip(const struct peer_policy *p, const uint8_t ip[16], uint16_t port)
{
    struct decision d = { -1, PEER_OK };

    if (is4(ip))
        consult(&d, special4, ARRAY_LEN(special4), ip, PEER_SPECIAL);
    else
        consult(&d, special6, ARRAY_LEN(special6), ip, PEER_SPECIAL);
    consult_self(&d, p, ip, port);
    consult(&d, p->allow, p->allow_count, ip, PEER_OK);
    consult(&d, p->deny, p->deny_count, ip, PEER_DENIED);
    return d.verdict;
}

static enum peer_verdict judge(const struct peer_policy *p, const uint8_t ip[16], uint16_t port)
{
    uint8_t carried[16];
    enum peer_form form = peer_reduce(ip, carried);

    ASSERT(p->allow_count <= PEER_RULES_MAX);
    ASSERT(p->deny_count <= PEER_RULES_MAX);
    ASSERT(p->self_count <= PEER_SELVES_MAX);
    if (form == PEER_6TO4 || form == PEER_TEREDO)
        return PEER_TUNNEL;
    enum peer_verdict v = judge_ip(p, ip, port);

    if (v == PEER_OK && form != PEER_PLAIN) /* CVE-2026-73212: it arrives at what is carried */
        v = judge_ip(p, carried, port);
    if (v == PEER_OK && form == PEER_NAT64_LOCAL && carried_by_64(ip, carried))
        v = judge_ip(p, carried, port);
    return v;
}

enum peer_verdict peer_judge(const struct peer_policy *p, const struct netaddr *peer)
{
    if (peer->port == 0 || (p->low_ports_closed && peer->port < LOW_PORTS_END))
        return PEER_PORT;
    return judge(p, peer->ip, peer->port);
}

enum peer_verdict peer_judge_ip(const struct peer_policy *p, const uint8_t ip[16])
{
    return judge(p, ip, 0);
}
