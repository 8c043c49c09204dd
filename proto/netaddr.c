#include "proto/maddr.h"

static const uint8_t mapped[12] = {
    [10] = 0xff, [11] = 0xff
}; /* ::ffff:0:0/96 (RFC 4291 §2.5.5.2) */

bool netaddr_is4(const struct netaddr *a)
{
    return memcmp(a->ip, mapped, sizeof(mapped)) == 0;
}

void netaddr_put_decimal(struct wcur *w, uint64_t v)
{
    uint8_t digits[20];
    size_t n = sizeof(digits);

    do {
        digits[--n] = (uint8_t)('0' + v % 10);
        v /= 10;
    } while (v);
    wcur_put(w, bytes_of(digits + n, sizeof(digits) - n));
}

bool netaddr_parse_decimal(struct bytes text, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;

    if (text.n == 0 || (text.n > 1 && text.p[0] == '0')) /* 010 is eight to some readers */
        return false;
    for (size_t i = 0; i < text.n; i++) {
        unsigned digit = (unsigned)text.p[i] - '0';

        if (digit > 9 || v > max / 10 || digit > max - v * 10)
            return false;
        v = v * 10 + digit;
    }
    *out = v;
    return true;
}

/* Splits at the first `ch`: *head before it, *text behind it. false when there is none. */
static bool split(struct bytes *text, char ch, struct bytes *head)
{
    const uint8_t *at = text->n ? memchr(text->p, ch, text->n) : NULL;

    if (!at)
        return false;
    *head = bytes_of(text->p, (size_t)(at - text->p));
    *text = bytes_of(at + 1, text->n - head->n - 1);
    return true;
}

bool netaddr_parse_ip4(struct bytes text, uint8_t ip[4])
{
    for (int i = 0; i < 4; i++) {
        struct bytes part = text;
        uint64_t v;

        if ((i < 3 && !split(&text, '.', &part)) || !netaddr_parse_decimal(part, 255, &v))
            return false;
        ip[i] = (uint8_t)v;
    }
    return true;
}

static bool parse_hex16(struct bytes text, uint8_t out[2])
{
    unsigned v = 0;

    if (text.n == 0 || text.n > 4)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        uint8_t ch = text.p[i];

        if (ch >= '0' && ch <= '9')
            v = v << 4 | (unsigned)(ch - '0');
        else if ((ch | 0x20) >= 'a' && (ch | 0x20) <= 'f')
            v = v << 4 | (unsigned)((ch | 0x20) - 'a' + 10);
        else
            return false;
    }
    put_u16(out, (uint16_t)v);
    return true;
}

/* RFC 4291 §2.2, all three forms; no zone. */
bool netaddr_parse_ip6(struct bytes text, uint8_t ip[16])
{
    uint8_t got[16] = { 0 };
    size_t n = 0;            /* bytes read */
    size_t gap = SIZE_MAX;   /* where :: stood */
    bool more = text.n != 0; /* a group must follow */

    if (text.n >= 2 && text.p[0] == ':' && text.p[1] == ':') {
        gap = 0;
        text = bytes_of(text.p + 2, text.n - 2);
        more = text.n != 0;
    } else if (!more) {
        return false;
    }
    while (more) {
        struct bytes group = text;
        bool colon = split(&text, ':', &group);

        if (!colon && n <= 12 && netaddr_parse_ip4(group, got + n)) {
            n += 4;
            break;
        }
        if (n == 16 || !parse_hex16(group, got + n))
            return false;
        n += 2;
        more = colon;
        if (colon && text.n && text.p[0] == ':') { /* :: */
            if (gap != SIZE_MAX)
                return false;
            gap = n;
            text = bytes_of(text.p + 1, text.n - 1);
            more = text.n != 0;
        }
    }
    if (gap == SIZE_MAX ? n != 16 : n > 14) /* :: stands for at least one group */
        return false;
    if (gap != SIZE_MAX) {
        memmove(got + gap + (16 - n), got + gap, n - gap);
        memset(got + gap, 0, 16 - n);
    }
    memcpy(ip, got, 16);
    return true;
}

void netaddr_put_ip4(struct wcur *w, const uint8_t ip[4])
{
    for (int i = 0; i < 4; i++) {
        if (i)
            wcur_u8(w, '.');
        netaddr_put_decimal(w, ip[i]);
    }
}

static void put_hex16(struct wcur *w, unsigned v)
{
    static const char hex[] = "0123456789abcdef";
    bool begun = false;

    for (int shift = 12; shift >= 0; shift -= 4) {
        unsigned digit = v >> shift & 15;

        begun = begun || digit || shift == 0; /* no leading zeros (RFC 5952 §4.1) */
        if (begun)
            wcur_u8(w, (uint8_t)hex[digit]);
    }
}

void netaddr_put_ip6(struct wcur *w, const uint8_t ip[16])
{
    int best = -1, best_n = 1; /* one zero group alone is not shortened (RFC 5952 §4.2.2) */

    if (memcmp(ip, mapped, sizeof(mapped)) == 0) { /* mixed notation (RFC 5952 §5) */
        wcur_put(w, bytes_str("::ffff:"));
        netaddr_put_ip4(w, ip + 12);
        return;
    }
    for (int i = 0; i < 8; i++) {
        int n = 0;

        while (i + n < 8 && ip[2 * (i + n)] == 0 && ip[2 * (i + n) + 1] == 0)
            n++;
        if (n > best_n) { /* the first of equals wins (RFC 5952 §4.2.3) */
            best = i;
            best_n = n;
        }
        i += n;
    }
    for (int i = 0; i < 8; i++) {
        if (i == best) {
            wcur_put(w, bytes_str("::"));
            i += best_n - 1;
            continue;
        }
        if (i && i != best + best_n)
            wcur_u8(w, ':');
        put_hex16(w, (unsigned)ip[2 * i] << 8 | ip[2 * i + 1]);
    }
}

bool netaddr_parse(struct bytes text, struct netaddr *out)
{
    struct netaddr a = { 0 };
    struct bytes host;
    uint64_t port;
    bool v6 = text.n && text.p[0] == '[';

    if (v6) {
        text = bytes_of(text.p + 1, text.n - 1);
        if (!split(&text, ']', &host) || !netaddr_parse_ip6(host, a.ip) || text.n == 0 ||
            text.p[0] != ':')
            return false;
        text = bytes_of(text.p + 1, text.n - 1);
    } else {
        memcpy(a.ip, mapped, sizeof(mapped));
        if (!split(&text, ':', &host) || !netaddr_parse_ip4(host, a.ip + 12))
            return false;
    }
    if (!netaddr_parse_decimal(text, UINT16_MAX, &port))
        return false;
    a.port = (uint16_t)port;
    *out = a;
    return true;
}

static void put_ip(struct wcur *w, const struct netaddr *a)
{
    if (netaddr_is4(a))
        netaddr_put_ip4(w, a->ip + 12);
    else
        netaddr_put_ip6(w, a->ip);
}

void netaddr_ip_text(const struct netaddr *a, char *text)
{
    struct wcur w = wcur_of(text, NETADDR_TEXT_MAX);

    put_ip(&w, a);
    wcur_u8(&w, 0);
    ASSERT(!w.bad);
}

void netaddr_text(const struct netaddr *a, char *text)
{
    struct wcur w = wcur_of(text, NETADDR_TEXT_MAX);
    bool v6 = !netaddr_is4(a);

    if (v6)
        wcur_u8(&w, '[');
    put_ip(&w, a);
    if (v6)
        wcur_u8(&w, ']');
    wcur_u8(&w, ':');
    netaddr_put_decimal(&w, a->port);
    wcur_u8(&w, 0);
    ASSERT(!w.bad);
}

bool netaddr_is_public(const struct netaddr *a)
{
#define V4(a, b, c, bits)                                                                          \
    {                                                                                              \
        { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, 0 }, 96 + (bits)                      \
    }
    static const struct cidr not_public4[] = {
        V4(0, 0, 0, 8),       /* "this network", the unspecified address among it */
        V4(10, 0, 0, 8),      /* RFC 1918 */
        V4(100, 64, 0, 10),   /* RFC 6598, behind carriers' NATs */
        V4(127, 0, 0, 8),     /* loopback */
        V4(169, 254, 0, 16),  /* link-local; cloud metadata lives there too */
        V4(172, 16, 0, 12),   /* RFC 1918 */
        V4(192, 0, 0, 24),    /* RFC 6890 */
        V4(192, 0, 2, 24),    /* RFC 5737 documentation */
        V4(192, 88, 99, 24),  /* RFC 7526, 6to4 relays, retired */
        V4(192, 168, 0, 16),  /* RFC 1918 */
        V4(198, 18, 0, 15),   /* RFC 2544 benchmarks */
        V4(198, 51, 100, 24), /* RFC 5737 */
        V4(203, 0, 113, 24),  /* RFC 5737 */
        V4(224, 0, 0, 4),     /* multicast */
        V4(240, 0, 0, 4),     /* reserved, and the broadcast address */
    };
#undef V4
    static const struct cidr unicast6 = { { 0x20 }, 3 };
    static const struct cidr documentation6[] = {
        { { 0x20, 0x01, 0x0d, 0xb8 }, 32 }, /* RFC 3849 */
        { { 0x3f, 0xff }, 20 },             /* RFC 9637 */
    };

    if (netaddr_is4(a)) {
        for (size_t i = 0; i < ARRAY_LEN(not_public4); i++)
            if (cidr_match(&not_public4[i], a->ip))
                return false;
        return true;
    }
    for (size_t i = 0; i < ARRAY_LEN(documentation6); i++)
        if (cidr_match(&documentation6[i], a->ip))
            return false;
    return cidr_match(&unicast6, a->ip);
}

bool cidr_parse(struct bytes text, struct cidr *out)
{
    struct cidr c = { .bits = 128 };
    struct bytes host = text;
    bool slash = split(&text, '/', &host);
    uint64_t bits;

    if (!netaddr_parse_ip6(host, c.ip)) {
        memcpy(c.ip, mapped, sizeof(mapped));
        if (!netaddr_parse_ip4(host, c.ip + 12))
            return false;
        if (slash) {
            if (!netaddr_parse_decimal(text, 32, &bits))
                return false;
            c.bits = (uint8_t)(96 + bits);
        }
    } else if (slash) {
        if (!netaddr_parse_decimal(text, 128, &bits))
            return false;
        c.bits = (uint8_t)bits;
    }
    for (unsigned i = c.bits; i < 128; i++) /* 10.1.2.3/8 means 10.0.0.0/8 */
        c.ip[i / 8] &= (uint8_t) ~(0x80u >> i % 8);
    *out = c;
    return true;
}

bool cidr_match(const struct cidr *c, const uint8_t ip[16])
{
    size_t whole = c->bits / 8;
    unsigned left = c->bits % 8;

    if (memcmp(c->ip, ip, whole) != 0)
        return false;
    return left == 0 || (uint8_t)(c->ip[whole] ^ ip[whole]) >> (8 - left) == 0;
}
