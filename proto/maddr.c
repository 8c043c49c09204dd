#include "proto/maddr.h"

#include "proto/maddr_table.h"
#include "proto/varint.h"

enum {
    NAME_MAX_BYTES = 255, /* a DNS name (RFC 1035 §2.3.4); the other names share the bound */
    ONION3_BYTES = 37,    /* key, checksum and version of 35 bytes, then the port */
    GARLIC64_MIN = 386,   /* an I2P destination without a certificate's tail, as go has it */
    GARLIC32_MIN = 35,    /* encrypted lease sets; plain ones have exactly 32 */
};

static const struct maddr_proto protos[] = {
    { MADDR_IP4, MADDR_KIND_IP4, "ip4" },
    { MADDR_TCP, MADDR_KIND_PORT, "tcp" },
    { MADDR_IP6, MADDR_KIND_IP6, "ip6" },
    { MADDR_IP6ZONE, MADDR_KIND_NAME, "ip6zone" },
    { MADDR_IPCIDR, MADDR_KIND_CIDR, "ipcidr" },
    { MADDR_DNS, MADDR_KIND_NAME, "dns" },
    { MADDR_DNS4, MADDR_KIND_NAME, "dns4" },
    { MADDR_DNS6, MADDR_KIND_NAME, "dns6" },
    { MADDR_DNSADDR, MADDR_KIND_NAME, "dnsaddr" },
    { MADDR_UDP, MADDR_KIND_PORT, "udp" },
    { MADDR_WEBRTC_DIRECT, MADDR_KIND_NONE, "webrtc-direct" },
    { MADDR_WEBRTC, MADDR_KIND_NONE, "webrtc" },
    { MADDR_P2P_CIRCUIT, MADDR_KIND_NONE, "p2p-circuit" },
    { MADDR_UNIX, MADDR_KIND_PATH, "unix" },
    { MADDR_P2P, MADDR_KIND_PEER, "p2p" },
    { MADDR_P2P, MADDR_KIND_PEER, "ipfs" }, /* read, never written: the first entry of a code is */
    { MADDR_HTTPS, MADDR_KIND_NONE, "https" },
    { MADDR_ONION3, MADDR_KIND_ONION3, "onion3" },
    { MADDR_GARLIC64, MADDR_KIND_GARLIC64, "garlic64" },
    { MADDR_GARLIC32, MADDR_KIND_GARLIC32, "garlic32" },
    { MADDR_TLS, MADDR_KIND_NONE, "tls" },
    { MADDR_SNI, MADDR_KIND_NAME, "sni" },
    { MADDR_NOISE, MADDR_KIND_NONE, "noise" },
    { MADDR_QUIC, MADDR_KIND_NONE, "quic" },
    { MADDR_QUIC_V1, MADDR_KIND_NONE, "quic-v1" },
    { MADDR_WEBTRANSPORT, MADDR_KIND_NONE, "webtransport" },
    { MADDR_CERTHASH, MADDR_KIND_CERTHASH, "certhash" },
    { MADDR_WS, MADDR_KIND_NONE, "ws" },
    { MADDR_WSS, MADDR_KIND_NONE, "wss" },
    { MADDR_HTTP, MADDR_KIND_NONE, "http" },
    { MADDR_HTTP_PATH, MADDR_KIND_PERCENT, "http-path" },
    { MADDR_MEMORY, MADDR_KIND_U64, "memory" },
};

const struct maddr_proto *maddr_proto_by_code(uint64_t code)
{
    for (size_t i = 0; i < ARRAY_LEN(protos); i++)
        if (protos[i].code == code)
            return &protos[i];
    return NULL;
}

const struct maddr_proto *maddr_proto_by_name(struct bytes name)
{
    for (size_t i = 0; i < ARRAY_LEN(protos); i++)
        if (bytes_eq(name, bytes_str(protos[i].name)))
            return &protos[i];
    return NULL;
}

size_t maddr_value_size(enum maddr_kind kind)
{
    switch (kind) {
    case MADDR_KIND_NONE:
        return 0;
    case MADDR_KIND_CIDR:
        return 1;
    case MADDR_KIND_PORT:
        return 2;
    case MADDR_KIND_IP4:
        return 4;
    case MADDR_KIND_U64: /* the registry says lp, go and rust write 8 bytes: so do we */
        return 8;
    case MADDR_KIND_IP6:
        return 16;
    case MADDR_KIND_ONION3:
        return ONION3_BYTES;
    default:
        return MADDR_SIZE_LP;
    }
}

/* The length of the UTF-8 sequence that begins at p (RFC 3629 §4), 0 when there is none. */
static size_t utf8_step(const uint8_t *p, size_t n)
{
    uint8_t low = 0x80, high = 0xbf; /* of the second byte: no surrogates, nothing over-long */
    size_t len;

    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    len = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (p[0] == 0xe0)
        low = 0xa0;
    else if (p[0] == 0xed)
        high = 0x9f;
    else if (p[0] == 0xf0)
        low = 0x90;
    else if (p[0] == 0xf4)
        high = 0x8f;
    if (n < len || p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return len;
}

/* Names end up in logs and in other peers' parsers: UTF-8 as rust demands, no control characters,
 * no blanks, and no slash where that would start the next component. */
static bool name_valid(struct bytes v, bool slashes)
{
    if (v.n == 0 || v.n > NAME_MAX_BYTES)
        return false;
    for (size_t i = 0, step; i < v.n; i += step) {
        step = utf8_step(v.p + i, v.n - i);
        if (step == 0 || v.p[i] <= ' ' || v.p[i] == 0x7f || (v.p[i] == '/' && !slashes))
            return false;
    }
    return true;
}

static bool multihash_valid(struct bytes v)
{
    struct cur c = cur_of(v);

    (void)cur_varint(&c);
    struct bytes digest = cur_lp(&c);

    return !c.bad && c.n == 0 && digest.n > 0;
}

bool maddr_value_valid(const struct maddr_proto *p, struct bytes value)
{
    size_t size = maddr_value_size(p->kind);
    struct peer_id id;

    if (size != MADDR_SIZE_LP)
        return value.n == size;
    switch (p->kind) {
    case MADDR_KIND_NAME:
        return name_valid(value, false);
    case MADDR_KIND_PATH: /* absolute, so that the text's slash belongs to the value */
        return name_valid(value, true) && value.n > 1 && value.p[0] == '/';
    case MADDR_KIND_PEER:
        return peer_id_decode(value, &id);
    case MADDR_KIND_GARLIC64:
        return value.n >= GARLIC64_MIN;
    case MADDR_KIND_GARLIC32:
        return value.n == 32 || value.n >= GARLIC32_MIN;
    case MADDR_KIND_CERTHASH:
        return multihash_valid(value);
    default: /* an http-path: any bytes, as they are escaped in text */
        return value.n > 0;
    }
}

bool maddr_next(struct cur *rest, struct maddr_part *part)
{
    if (rest->bad || rest->n == 0)
        return false;
    const struct maddr_proto *p = maddr_proto_by_code(cur_varint(rest));

    if (p && !rest->bad) {
        size_t size = maddr_value_size(p->kind);
        struct bytes value = size == MADDR_SIZE_LP ? cur_lp(rest) : cur_take(rest, size);

        bool last =
            p->kind != MADDR_KIND_PATH || rest->n == 0; /* text could not say where it ends */

        if (!rest->bad && last && maddr_value_valid(p, value)) {
            *part = (struct maddr_part){ p->code, value };
            return true;
        }
    }
    rest->bad = true;
    rest->n = 0;
    return false;
}

bool maddr_valid(struct bytes binary)
{
    struct cur c = cur_of(binary);
    struct maddr_part part;

    if (binary.n == 0 || binary.n > MADDR_MAX)
        return false;
    while (maddr_next(&c, &part))
        ;
    return !c.bad;
}

bool maddr_has(struct bytes binary, uint32_t code)
{
    struct cur c = cur_of(binary);
    struct maddr_part part;

    while (maddr_next(&c, &part))
        if (part.code == code)
            return true;
    return false;
}

static void put_port(struct wcur *w, uint32_t code, uint16_t port)
{
    wcur_varint(w, code);
    wcur_u16(w, port);
}

void maddr_from_tcp(const struct netaddr *a, struct maddr *out)
{
    struct wcur w = wcur_of(out->b, sizeof(out->b));

    if (netaddr_is4(a)) {
        wcur_varint(&w, MADDR_IP4);
        wcur_put(&w, bytes_of(a->ip + 12, 4));
    } else {
        wcur_varint(&w, MADDR_IP6);
        wcur_put(&w, bytes_of(a->ip, 16));
    }
    put_port(&w, MADDR_TCP, a->port);
    out->n = (uint16_t)w.wrote;
}

bool maddr_to_tcp(struct bytes binary, struct netaddr *out, struct bytes *rest)
{
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
    struct cur c = cur_of(binary);
    struct maddr_part ip, port;

    if (!maddr_next(&c, &ip) || (ip.code != MADDR_IP4 && ip.code != MADDR_IP6))
        return false;
    if (!maddr_next(&c, &port) || port.code != MADDR_TCP)
        return false;
    if (!rest && c.n != 0)
        return false;
    if (ip.code == MADDR_IP4) {
        memcpy(out->ip, mapped, 12);
        memcpy(out->ip + 12, ip.value.p, 4);
    } else {
        memcpy(out->ip, ip.value.p, 16);
    }
    out->port = (uint16_t)(port.value.p[0] << 8 | port.value.p[1]);
    if (rest)
        *rest = bytes_of(c.p, c.n);
    return true;
}

bool maddr_append_p2p(struct maddr *m, const struct peer_id *id)
{
    struct cur c = cur_of(maddr_bytes(m));
    struct maddr_part part = { 0 };

    while (maddr_next(&c, &part))
        ;
    if (c.bad || part.code == MADDR_UNIX) /* nothing can follow a path */
        return false;
    if (part.code == MADDR_P2P)
        return true;
    struct wcur w = wcur_of(m->b + m->n, sizeof(m->b) - m->n);

    wcur_varint(&w, MADDR_P2P);
    wcur_lp(&w, peer_id_bytes(id));
    if (w.bad) /* what was written lies past n, where nobody looks */
        return false;
    m->n = (uint16_t)(m->n + w.wrote);
    return true;
}

bool maddr_p2p(struct bytes binary, struct peer_id *id)
{
    struct cur c = cur_of(binary);
    struct maddr_part part;
    struct bytes last = { 0 };

    while (maddr_next(&c, &part))
        if (part.code == MADDR_P2P)
            last = part.value;
    return !c.bad && last.n && peer_id_decode(last, id);
}

/* Is `name` the suffix itself or below it? Case as DNS has it. */
static bool name_under(struct bytes name, const char *suffix)
{
    size_t n = strlen(suffix);

    if (name.n < n)
        return false;
    for (size_t i = 0; i < n; i++) {
        uint8_t ch = name.p[name.n - n + i];

        if ((ch >= 'A' && ch <= 'Z' ? ch + ('a' - 'A') : ch) != suffix[i])
            return false;
    }
    return name.n == n || name.p[name.n - n - 1] == '.';
}

static bool name_is_public(struct bytes name)
{
    /* Names that the public DNS does not have: RFC 6761, RFC 6762, RFC 7686, RFC 8375, and ICANN's
     * reservation of .internal. */
    static const char *const local[] = { "localhost", "local",   "home.arpa", "internal",
                                         "test",      "invalid", "example",   "onion" };

    if (name.p[name.n - 1] == '.') /* the root, spelled out */
        name.n--;
    for (size_t i = 0; i < ARRAY_LEN(local); i++)
        if (name_under(name, local[i]))
            return false;
    return name.n > 0;
}

bool maddr_is_public(struct bytes binary)
{
    struct cur c = cur_of(binary);
    struct maddr_part part;
    struct netaddr a = { .ip = { [10] = 0xff, [11] = 0xff } };

    if (!maddr_valid(binary) || !maddr_next(&c, &part))
        return false;
    switch (part.code) {
    case MADDR_IP4:
        memcpy(a.ip + 12, part.value.p, 4);
        return netaddr_is_public(&a);
    case MADDR_IP6:
        memcpy(a.ip, part.value.p, 16);
        return netaddr_is_public(&a);
    case MADDR_DNS:
    case MADDR_DNS4:
    case MADDR_DNS6:
    case MADDR_DNSADDR:
        return name_is_public(part.value);
    default: /* a zone too: only link-local addresses have one */
        return false;
    }
}
