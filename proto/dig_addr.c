#include "proto/dig_addr.h"

static const uint8_t *ip4_of(const struct netaddr *a)
{
    return a->ip + 12;
}

static bool same_64(const struct netaddr *a, const struct netaddr *b)
{
    return memcmp(a->ip, b->ip, 8) == 0;
}

static bool is_loopback(const struct netaddr *a)
{
    static const uint8_t loopback6[16] = { [15] = 1 };

    return netaddr_is4(a) ? ip4_of(a)[0] == 127 : memcmp(a->ip, loopback6, 16) == 0;
}

static bool is_unspecified(const struct netaddr *a)
{
    static const uint8_t zero[16];

    return memcmp(netaddr_is4(a) ? ip4_of(a) : a->ip, zero, netaddr_is4(a) ? 4 : 16) == 0;
}

/* The broadcast address counts: who sends there sends to many. */
static bool is_multicast(const struct netaddr *a)
{
    static const uint8_t broadcast[4] = { 255, 255, 255, 255 };

    if (!netaddr_is4(a))
        return a->ip[0] == 0xff;
    return ip4_of(a)[0] >> 4 == 14 || memcmp(ip4_of(a), broadcast, 4) == 0;
}

/* Which IPv6 addresses do not route, dig.md §7. It names IPv4 ranges as well, but an IPv4 candidate
 * is owned only if it is the observed address: kept or replaced by that, it is the same. */
static bool is_unroutable6(const struct netaddr *a)
{
    return is_unspecified(a) || is_loopback(a) || (a->ip[0] & 0xfe) == 0xfc || /* fc00::/7 */
           (a->ip[0] == 0xfe && (a->ip[1] & 0xc0) == 0x80);                    /* fe80::/10 */
}

/* Does whoever sits at `observed` plausibly own `a` (dig.md §7)? Families do not mix. */
static bool owned(const struct netaddr *a, const struct netaddr *observed)
{
    if (netaddr_is4(a) != netaddr_is4(observed))
        return false;
    return netaddr_is4(a) ? memcmp(ip4_of(a), ip4_of(observed), 4) == 0 : same_64(a, observed);
}

static bool take_until(struct cur *c, char ch, struct bytes *head)
{
    const uint8_t *at = c->n ? memchr(c->p, ch, c->n) : NULL;

    if (!at)
        return false;
    *head = cur_take(c, (size_t)(at - c->p));
    (void)cur_take(c, 1);
    return true;
}

/* What stands between the brackets: an address, and the number of a scope behind % (dig.md §4.1;
 * RFC 4007 §11.2 has names too, which mean nothing to another host). */
static bool parse_host6(struct bytes host, struct dig_addr *a)
{
    struct cur c = cur_of(host);
    struct bytes ip;
    uint64_t scope = 0;

    if (!take_until(&c, '%', &ip))
        ip = host;
    else if (!netaddr_parse_decimal(bytes_of(c.p, c.n), UINT32_MAX, &scope))
        return false;
    a->scope = (uint32_t)scope;
    return netaddr_parse_ip6(ip, a->at.ip);
}

bool dig_addr_parse(struct bytes text, struct dig_addr *out)
{
    static const struct netaddr ip4_mapped = { .ip = { [10] = 0xff, [11] = 0xff } };
    struct dig_addr a = { .v6 = text.n && text.p[0] == '[' };
    struct cur c = cur_of(text);
    struct bytes host;
    uint64_t port;

    if (a.v6) {
        (void)cur_take(&c, 1);
        if (!take_until(&c, ']', &host) || !parse_host6(host, &a) || cur_u8(&c) != ':')
            return false;
    } else {
        a.at = ip4_mapped;
        if (!take_until(&c, ':', &host) || !netaddr_parse_ip4(host, a.at.ip + 12))
            return false;
    }
    if (!netaddr_parse_decimal(bytes_of(c.p, c.n), UINT16_MAX, &port))
        return false;
    a.at.port = (uint16_t)port;
    *out = a;
    return true;
}

void dig_addr_put(struct wcur *w, const struct dig_addr *a)
{
    if (a->v6) {
        wcur_u8(w, '[');
        netaddr_put_ip6(w, a->at.ip);
        if (a->scope) {
            wcur_u8(w, '%');
            netaddr_put_decimal(w, a->scope);
        }
        wcur_u8(w, ']');
    } else {
        netaddr_put_ip4(w, ip4_of(&a->at));
    }
    wcur_u8(w, ':');
    netaddr_put_decimal(w, a->at.port);
}

void dig_netaddr_put(struct wcur *w, const struct netaddr *a)
{
    struct dig_addr plain = { .at = *a, .v6 = !netaddr_is4(a) };

    dig_addr_put(w, &plain);
}

void dig_dial_init(struct dig_dial *d, const struct netaddr *observed)
{
    *d = (struct dig_dial){ .observed = *observed };
}

void dig_dial_add(struct dig_dial *d, const struct dig_addr *candidate)
{
    struct netaddr a = d->observed;

    if (d->n == DIG_DIALABLE_MAX || candidate->at.port == 0)
        return;
    if (owned(&candidate->at, &d->observed) && !is_unroutable6(&candidate->at))
        a = candidate->at;
    a.port = candidate->at.port;
    for (size_t i = 0; i < d->n; i++)
        if (memcmp(d->addr[i].ip, a.ip, 16) == 0 && d->addr[i].port == a.port)
            return; /* the first of equals stays where it is */
    d->addr[d->n++] = a;
}

size_t dig_dial_done(const struct dig_dial *d, struct netaddr out[DIG_DIALABLE_MAX])
{
    size_t n = 0;

    for (size_t i = 0; i < d->n; i++)
        if (!netaddr_is4(&d->addr[i]))
            out[n++] = d->addr[i];
    for (size_t i = 0; i < d->n; i++)
        if (netaddr_is4(&d->addr[i]))
            out[n++] = d->addr[i];
    return n;
}

size_t dig_dialable(const struct dig_addr *listen, size_t n, const struct netaddr *observed,
                    struct netaddr out[DIG_DIALABLE_MAX])
{
    struct dig_dial d;

    dig_dial_init(&d, observed);
    for (size_t i = 0; i < n; i++)
        dig_dial_add(&d, &listen[i]);
    return dig_dial_done(&d, out);
}

struct dig_source dig_source_key(const uint8_t ip[16])
{
    struct netaddr a = { .port = 0 };
    struct dig_source key = { { 0 } };

    memcpy(a.ip, ip, 16);
    memcpy(key.b, ip, netaddr_is4(&a) ? 16 : 8);
    return key;
}

bool dig_punch_ok(const struct dig_addr *external, const struct netaddr *from, bool strict)
{
    const struct netaddr *a = &external->at;

    if (a->port == 0 || is_multicast(a) || is_unspecified(a))
        return false;
    if (is_loopback(a) && !is_loopback(from))
        return false;
    return !strict || owned(a, from);
}
