/* tools/load_turn_foe.c: what breaks the rules, by the kinds of turn.md §15 and §20: each in as
 * many variants as there are ways to do it. What a server owes them is said where it is checked
 * (tests/e2e/test_turn_hostile.py). */
#include "tools/load_turn.h"

#include <stdio.h>

enum {
    PEERS_MOST = 100, /* in one CreatePermission: about what a datagram of LT_FOE_MAX holds */
    NONCE_KINDS = 4,
};

static size_t any_bytes(uint8_t *to, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (uint8_t)lt_random();
    return n;
}

static void begin(struct stun_build *b, uint8_t *buf, size_t cap, uint16_t type)
{
    uint8_t tid[STUN_TID], id[STUN_ID];

    any_bytes(tid, sizeof(tid));
    stun_id_of(tid, id);
    stun_begin(b, buf, cap, type, id);
}

static size_t end(struct stun_build *b)
{
    struct bytes out;

    if (!stun_end(b, &out))
        lt_die("a message of a foe does not fit");
    return out.n;
}

static struct stun_addr ip4(unsigned a, unsigned b, unsigned c, unsigned d, uint16_t port)
{
    return (struct stun_addr){
        .addr = { .ip = { [10] = 0xff, 0xff, (uint8_t)a, (uint8_t)b, (uint8_t)c, (uint8_t)d },
                  .port = port }
    };
}

/* A request that would be served: Refresh, CreatePermission or ChannelBind, signed. */
static void owners_request(unsigned variant, struct stun_build *b, uint8_t *buf, size_t cap)
{
    static const enum stun_method methods[] = { STUN_REFRESH, STUN_CREATE_PERMISSION,
                                                STUN_CHANNEL_BIND };
    enum stun_method method = methods[variant % ARRAY_LEN(methods)];
    struct stun_addr peer = ip4(127, 1, 1, 1, 9);

    begin(b, buf, cap, stun_type(method, STUN_REQUEST));
    if (method == STUN_REFRESH)
        stun_put_u32(b, STUN_LIFETIME, 600);
    else
        stun_put_addr(b, STUN_XOR_PEER_ADDRESS, &peer);
    if (method == STUN_CHANNEL_BIND)
        stun_put_u16(b, STUN_CHANNEL_NUMBER, CHAN_MIN);
}

static size_t channel(uint8_t *buf, uint16_t number, uint16_t says, size_t n)
{
    chandata_head(buf, number, says);
    return CHAN_HEADER + any_bytes(buf + CHAN_HEADER, n);
}

/* ---- without an allocation --------------------------------------------------------------------
 */

/* First bytes of every protocol of turn.md §1, and all the others. */
static size_t make_random(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    (void)a;
    (void)cap;
    size_t n = any_bytes(buf, 1 + lt_random() % 1200);

    buf[0] = (uint8_t)variant;
    return n;
}

/* No foe: what a client says to keep its NAT open (RFC 8489 §2.3), for figures to compare with. */
static size_t make_keepalive(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    struct stun_build b;

    (void)a;
    (void)variant;
    begin(&b, buf, cap, stun_type(STUN_BINDING, STUN_INDICATION));
    return end(&b);
}

static size_t make_empty(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    (void)a;
    (void)variant;
    (void)buf;
    (void)cap;
    return 0;
}

static size_t make_truncated(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    struct stun_build b;

    (void)a;
    begin(&b, buf, cap, stun_type(variant & 32 ? STUN_ALLOCATE : STUN_BINDING, STUN_REQUEST));
    (void)end(&b);
    return 1 + variant % (STUN_HEADER - 1);
}

/* No multiple of four; longer and shorter than what is there; an attribute that ends behind it. */
static size_t make_length(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    static const uint16_t says[] = { 1, 3, 4, 0xfffc, 0xffff, 0x0400, 7 };
    struct stun_build b;
    size_t n;

    (void)a;
    begin(&b, buf, cap, stun_type(variant & 1 ? STUN_ALLOCATE : STUN_BINDING, STUN_REQUEST));
    stun_put(&b, STUN_SOFTWARE, bytes_str("foe of lengths"));
    n = end(&b);
    if (variant % 8 == 7)
        put_u16(buf + STUN_HEADER + 2, 400);
    else
        put_u16(buf + 2, says[variant % 8]);
    return n;
}

static size_t make_cookie(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    struct stun_build b;
    size_t n;

    (void)a;
    begin(&b, buf, cap, stun_type(variant & 1 ? STUN_ALLOCATE : STUN_BINDING, STUN_REQUEST));
    n = end(&b);
    put_u32(buf + 4, variant & 2 ? 0 : STUN_COOKIE ^ 1u << variant % 32);
    return n;
}

static size_t make_fingerprint(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    struct stun_build b;
    size_t n;

    (void)a;
    begin(&b, buf, cap, stun_type(variant & 1 ? STUN_ALLOCATE : STUN_BINDING, STUN_REQUEST));
    stun_put(&b, STUN_SOFTWARE, bytes_of(lt_pool_at(variant, 0, &n), 100 + variant % 400));
    stun_put_fingerprint(&b);
    n = end(&b);
    buf[n - 1] ^= 1;
    return n;
}

static size_t make_allocate(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    struct stun_build b;

    (void)a;
    begin(&b, buf, cap, stun_type(STUN_ALLOCATE, STUN_REQUEST));
    stun_put_u8(&b, STUN_REQUESTED_TRANSPORT, 17);
    if (variant & 1)
        stun_put_fingerprint(&b);
    return end(&b);
}

static size_t make_method(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    static const uint16_t methods[] = { 0x000, 0x002, 0x005, 0x00d, 0x080, 0x0ee, 0x0ff };
    struct stun_build b;

    (void)a;
    begin(&b, buf, cap, stun_type(methods[variant % ARRAY_LEN(methods)], STUN_REQUEST));
    stun_put_u8(&b, STUN_REQUESTED_TRANSPORT, 17);
    return end(&b);
}

/* Responses to questions that nobody asked; indications of methods that have none, and Data, which
 * is the server's to send. */
static size_t make_class(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    static const uint16_t asked[] = { STUN_BINDING,           STUN_ALLOCATE,     STUN_REFRESH,
                                      STUN_CREATE_PERMISSION, STUN_CHANNEL_BIND, STUN_CONNECT };
    static const enum stun_class classes[] = { STUN_SUCCESS, STUN_ERROR, STUN_INDICATION };
    struct stun_addr peer = ip4(127, 1, 1, 1, 9);
    struct stun_build b;

    (void)a;
    if (variant % 7 == 6)
        begin(&b, buf, cap, stun_type(STUN_DATA_METHOD, STUN_INDICATION));
    else
        begin(&b, buf, cap, stun_type(asked[variant % 7], classes[variant / 7 % 3]));
    stun_put_addr(&b, STUN_XOR_PEER_ADDRESS, &peer);
    stun_put(&b, STUN_DATA, bytes_str("out of place"));
    return end(&b);
}

static size_t make_orphan(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    struct stun_addr peer = ip4(127, 1, 1, 1, 9);
    struct stun_build b;

    (void)a;
    if (variant & 1)
        return channel(buf, (uint16_t)(CHAN_MIN + variant % 0x1000), 200, 200);
    begin(&b, buf, cap, stun_type(STUN_SEND, STUN_INDICATION));
    stun_put_addr(&b, STUN_XOR_PEER_ADDRESS, &peer);
    stun_put(&b, STUN_DATA, bytes_str("to whom?"));
    return end(&b);
}

/* Types that must be understood and are not: one, a few, more than an answer lists. */
static void put_strange(struct stun_build *b, unsigned variant, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        stun_put_type(b, (uint16_t)(0x7000 + (variant * 64 + i) % 0xf00), bytes_of(NULL, 0));
}

static size_t make_unknown(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    static const unsigned counts[] = { 1, 3, STUN_UNKNOWN_MAX + 1, 60 };
    struct stun_build b;

    if (variant & 1)
        begin(&b, buf, cap, stun_type(STUN_BINDING, STUN_REQUEST));
    else
        owners_request(variant / 2, &b, buf, cap);
    put_strange(&b, variant, counts[variant / 2 % ARRAY_LEN(counts)]);
    if (!(variant & 1))
        lt_client_credentials(a, &b);
    return end(&b);
}

/* A list as long as a datagram is: of nothing, of one name again and again, of strangers. */
static size_t make_oversize(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    struct stun_build b;

    (void)a;
    begin(&b, buf, cap, stun_type(variant & 1 ? STUN_ALLOCATE : STUN_BINDING, STUN_REQUEST));
    for (unsigned i = 0; i < (min_sz(cap, LT_SIZE_MAX) - 64) / 4; i++)
        stun_put_type(&b,
                      (uint16_t)(variant % 3 == 0   ? 0xc000 + i % 0x2000
                                 : variant % 3 == 1 ? 0x8022
                                                    : 0x7000 + i % 0xf00),
                      bytes_of(NULL, 0));
    return end(&b);
}

/* ---- of the owner of an allocation ------------------------------------------------------------
 */

static size_t make_integrity(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    struct stun_build b;
    size_t n;

    owners_request(variant, &b, buf, cap);
    lt_client_credentials(a, &b);
    n = end(&b);
    buf[n - 1 - variant % 20] ^= 0x10;
    return n;
}

/* Another's, made up, cut off, none that could be ours at all. */
static size_t make_nonce(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    struct lt_alloc other = *a;
    struct stun_build b;

    switch (variant % NONCE_KINDS) {
    case 0:
        other.nonce[other.nonce_n - 1] ^= 1;
        break;
    case 1: /* the time of another */
        other.nonce[other.nonce_n - 18] ^= 2;
        break;
    case 2:
        other.nonce_n -= 5;
        break;
    case 3:
        other.nonce_n = (uint8_t)any_bytes(other.nonce, 100);
        break;
    }
    owners_request(variant / NONCE_KINDS, &b, buf, cap);
    lt_client_credentials(&other, &b);
    return end(&b);
}

static size_t make_channel(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    (void)a;
    (void)cap;
    return channel(buf, (uint16_t)(CHAN_MIN + 1 + variant % 0xffe), 100, 100);
}

static size_t make_channel_length(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    (void)a;
    (void)cap;
    return channel(buf, CHAN_MIN, (uint16_t)(variant & 1 ? 0xffff : 101 + variant), 100);
}

static size_t make_send(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    struct stun_addr peer =
        variant & 1 ? ip4(127, 9, 9, 1 + variant % 250, 9) : ip4(10, 1, 1, 1 + variant % 250, 53);
    struct stun_build b;

    (void)a;
    begin(&b, buf, cap, stun_type(STUN_SEND, STUN_INDICATION));
    stun_put_addr(&b, STUN_XOR_PEER_ADDRESS, &peer);
    stun_put(&b, STUN_DATA, bytes_str("nobody has said that I may"));
    return end(&b);
}

/* The first one counts (RFC 8489 §14). */
static size_t make_duplicate(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    struct stun_build b;

    begin(&b, buf, cap, stun_type(variant & 1 ? STUN_BINDING : STUN_REFRESH, STUN_REQUEST));
    for (unsigned i = 0; i < 40; i++) {
        stun_put_u32(&b, STUN_LIFETIME, 600 * (i + 1));
        stun_put(&b, STUN_SOFTWARE, bytes_str("again"));
    }
    if (!(variant & 1))
        lt_client_credentials(a, &b);
    return end(&b);
}

/* As many peers as there is room for, and only the last of them is forbidden. */
static size_t make_peers(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    struct stun_build b;

    begin(&b, buf, cap, stun_type(STUN_CREATE_PERMISSION, STUN_REQUEST));
    for (unsigned i = 0; i < PEERS_MOST; i++) {
        struct stun_addr peer =
            i + 1 < PEERS_MOST ? ip4(127, 8, variant % 256, i, 9) : ip4(10, 0, 0, 1, 9);

        stun_put_addr(&b, STUN_XOR_PEER_ADDRESS, &peer);
    }
    lt_client_credentials(a, &b);
    return end(&b);
}

static size_t make_stranger(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    (void)a;
    (void)cap;
    return any_bytes(buf, 50 + variant % 100);
}

/* ---- on streams --------------------------------------------------------------------------------
 */

/* Whole units, each of them wrong. */
static size_t make_units(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    switch (variant % 5) {
    case 0:
        return make_allocate(a, variant, buf, cap);
    case 1:
        return make_method(a, variant, buf, cap);
    case 2:
        return make_class(a, variant, buf, cap);
    case 3:
        return make_fingerprint(a, variant, buf, cap);
    default:
        return make_orphan(a, variant, buf, cap); /* 200 bytes, or a message: no padding */
    }
}

/* The beginning of what is never whole: a server has to keep it, for a while. */
static size_t make_slow(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    size_t n = LT_FOE_MAX - 100;
    struct stun_build b;

    (void)a;
    (void)variant;
    begin(&b, buf, cap, stun_type(STUN_ALLOCATE, STUN_REQUEST));
    (void)end(&b);
    put_u16(buf + 2, (uint16_t)n);
    put_u16(buf + STUN_HEADER, 0x8022);
    put_u16(buf + STUN_HEADER + 2, (uint16_t)(n - 4));
    return STUN_HEADER + 4 + any_bytes(buf + STUN_HEADER + 4, n - STUN_HEADER - 4);
}

/* Cut anywhere; ChannelData behind a message that is whole; longer than a stranger's may be. */
static size_t make_half(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap)
{
    size_t n = make_slow(a, variant, buf, cap);

    switch (variant % 4) {
    case 2:
        n = make_method(a, variant, buf, cap);
        return n + channel(buf + n, CHAN_MIN, 1000, variant % 900);
    case 3:
        put_u16(buf + 2, 0x4000);
        return n;
    default:
        return 1 + lt_random() % n;
    }
}

static const struct lt_foe kinds[] = {
    { "random", LT_FOE_UDP, make_random, false },
    { "keepalive", LT_FOE_UDP, make_keepalive, false },
    { "empty", LT_FOE_UDP, make_empty, false },
    { "truncated", LT_FOE_UDP, make_truncated, false },
    { "length", LT_FOE_UDP, make_length, false },
    { "cookie", LT_FOE_UDP, make_cookie, false },
    { "fingerprint", LT_FOE_UDP, make_fingerprint, false },
    { "allocate", LT_FOE_UDP, make_allocate, false },
    { "method", LT_FOE_UDP, make_method, false },
    { "class", LT_FOE_UDP, make_class, false },
    { "orphan", LT_FOE_UDP, make_orphan, false },
    { "oversize", LT_FOE_UDP, make_oversize, false },
    { "huge", LT_FOE_UDP, make_oversize, true },
    { "unknown", LT_FOE_OWNER, make_unknown, false },
    { "duplicate", LT_FOE_OWNER, make_duplicate, false },
    { "integrity", LT_FOE_OWNER, make_integrity, false },
    { "nonce", LT_FOE_OWNER, make_nonce, false },
    { "channel", LT_FOE_OWNER, make_channel, false },
    { "channel-length", LT_FOE_OWNER, make_channel_length, false },
    { "send", LT_FOE_OWNER, make_send, false },
    { "peers", LT_FOE_OWNER, make_peers, false },
    { "stranger", LT_FOE_PEER, make_stranger, false },
    { "mixed", LT_FOE_MIXED, NULL, false },
    { "tcp-units", LT_FOE_UNITS, make_units, false },
    { "tcp-slow", LT_FOE_SLOW, make_slow, false },
    { "tcp-half", LT_FOE_STREAM, make_half, false },
    { "tcp-garbage", LT_FOE_STREAM, make_random, false },
    { "tcp-open", LT_FOE_STREAM, make_empty, false },
};

const struct lt_foe *lt_foe_named(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

const char *lt_foe_names(void)
{
    static char all[512];
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        n += (size_t)snprintf(all + n, sizeof(all) - n, "%s%s", i ? ", " : "", kinds[i].name);
    return all;
}

const struct lt_foe *lt_foe_mixed(unsigned variant, bool owner)
{
    const struct lt_foe *k;

    do /* an orphan's would be another kind's where there is an allocation */
        k = &kinds[variant++ % ARRAY_LEN(kinds)];
    while (k->huge || k->way > LT_FOE_OWNER || (k->way == LT_FOE_OWNER && !owner) ||
           (k->make == make_orphan && owner));
    return k;
}
