/* What may stand in Dusk's messages: names, queries, addresses, and the credentials that are made
 * (dusk.md §7, §8). */
#include "proto/dusk.h"

#include "proto/stun_auth.h"

/* ---- text ------------------------------------------------------------------------------------
 */

/* Unicode's White_Space property, what Rust's trim takes off. */
static bool is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

static bool is_inside(uint8_t b) /* of a character of several bytes: not its first */
{
    return (b & 0xc0) == 0x80;
}

/* The character that begins at s.p; *n is its bytes. All white space has three at most. */
static uint32_t first_char(struct bytes s, size_t *n)
{
    uint8_t b = s.p[0];

    *n = 1;
    while (*n < s.n && *n < 4 && is_inside(s.p[*n]))
        (*n)++;
    if (*n == 2)
        return (uint32_t)(b & 0x1f) << 6 | (s.p[1] & 0x3f);
    if (*n == 3)
        return (uint32_t)(b & 0x0f) << 12 | (uint32_t)(s.p[1] & 0x3f) << 6 | (s.p[2] & 0x3f);
    return *n == 1 ? b : UINT32_MAX;
}

struct bytes dusk_trim(struct bytes s)
{
    size_t n;

    while (s.n > 0 && is_space(first_char(s, &n)))
        s = bytes_of(s.p + n, s.n - n);
    while (s.n > 0) {
        size_t at = s.n - 1;

        while (at > 0 && s.n - at < 4 && is_inside(s.p[at]))
            at--;
        if (!is_space(first_char(bytes_of(s.p + at, s.n - at), &n)))
            break;
        s.n = at;
    }
    return s;
}

bool dusk_name_check(struct bytes text, struct bytes *name)
{
    struct bytes s;
    size_t chars = 0;

    /* A mebibyte of blanks would hold the shard for 3 ms. */
    if (text.n > DUSK_PADDED_MAX)
        return false;
    s = dusk_trim(text);
    if (s.n == 0 || s.n > DUSK_NAME_MAX)
        return false;
    for (size_t at = 0, n; at < s.n; at += n, chars++) {
        uint32_t c = first_char(bytes_of(s.p + at, s.n - at), &n);

        if (c < 0x20 || (c >= 0x7f && c <= 0x9f))
            return false;
    }
    if (chars > DUSK_NAME_CHARS_MAX)
        return false;
    *name = s;
    return true;
}

bool dusk_query_check(struct bytes text, struct bytes *query)
{
    struct bytes s = text.n > DUSK_PADDED_MAX ? bytes_of(NULL, 0) : dusk_trim(text);

    static_assert((int)DUSK_NAME_MAX >= (int)PEER_TEXT_MAX,
                  "a query that is a peer id is none too long");
    if (s.n == 0 || s.n > DUSK_NAME_MAX)
        return false;
    *query = s;
    return true;
}

/* ---- addresses -------------------------------------------------------------------------------
 */

static bool names(const struct maddr_part *part, const struct peer_id *who)
{
    struct peer_id id;

    return part->code == MADDR_P2P && peer_id_decode(part->value, &id) && peer_id_eq(&id, who);
}

bool dusk_relay_addr_ok(struct bytes text, const struct peer_id *relay,
                        const struct peer_id *caller)
{
    struct maddr m;
    struct maddr_part last[3] = { { .code = 0 } }, part;

    if (text.n > DUSK_ADDR_MAX || !maddr_parse(text, &m))
        return false;
    struct cur rest = cur_of(maddr_bytes(&m));

    while (maddr_next(&rest, &part)) {
        /* One relay only: behind somebody else's circuit this would be a way to have everybody who
         * searches dial that somebody. */
        if (last[0].code == MADDR_P2P || last[0].code == MADDR_P2P_CIRCUIT)
            return false;
        last[0] = last[1];
        last[1] = last[2];
        last[2] = part;
    }
    return !rest.bad && names(&last[0], relay) && last[1].code == MADDR_P2P_CIRCUIT &&
           names(&last[2], caller);
}

/* ---- credentials -----------------------------------------------------------------------------
 */

static bool is_zero(const uint8_t *p, size_t n)
{
    while (n > 0 && p[n - 1] == 0)
        n--;
    return n == 0;
}

static bool without_brackets(struct bytes host, struct bytes *inside)
{
    bool has = host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';

    *inside = has ? bytes_of(host.p + 1, host.n - 2) : host;
    return !has;
}

/* Letters, digits, hyphens and what some resolvers add, in labels of 1 to 63. A last label of
 * digits alone would be read as an IPv4 address of an odd kind (WHATWG URL §3.5). */
static bool is_dns_name(struct bytes host)
{
    size_t label = 0, digits = 0;

    if (host.n == 0 || host.n > DUSK_URI_HOST_MAX)
        return false;
    for (size_t i = 0; i < host.n; i++) {
        uint8_t c = host.p[i], lower = c | 0x20;

        if (c == '.') {
            if (label == 0)
                return false;
            label = digits = 0;
            continue;
        }
        bool digit = c >= '0' && c <= '9';

        if (!digit && !(lower >= 'a' && lower <= 'z') && c != '-' && c != '_')
            return false;
        digits += digit;
        if (++label > 63)
            return false;
    }
    return label > 0 && digits < label;
}

bool dusk_cred_host_ok(struct bytes host)
{
    struct bytes inside;
    uint8_t ip[16];

    if (!without_brackets(host, &inside))
        return netaddr_parse_ip6(inside, ip) && !is_zero(ip, 16);
    if (netaddr_parse_ip6(host, ip))
        return !is_zero(ip, 16);
    if (netaddr_parse_ip4(host, ip))
        return !is_zero(ip, 4);
    return is_dns_name(host);
}

static struct bytes uri(struct wcur *w, struct bytes host, uint16_t port, const char *tail)
{
    struct bytes inside;
    uint8_t ip[16], *start = w->p;
    size_t before = w->wrote;

    without_brackets(host, &inside);
    wcur_put(w, bytes_str("turn:"));
    if (netaddr_parse_ip6(inside, ip)) {
        wcur_u8(w, '[');
        wcur_put(w, inside);
        wcur_u8(w, ']');
    } else {
        wcur_put(w, host);
    }
    wcur_u8(w, ':');
    netaddr_put_decimal(w, port);
    wcur_put(w, bytes_str(tail));
    return bytes_of(start, w->wrote - before);
}

void dusk_cred_make(const struct dusk_cred_ask *a, struct wcur *room, struct dusk_cred *out)
{
    char peer[PEER_TEXT_MAX];
    uint8_t *start = room->p;
    size_t before = room->wrote;

    ASSERT(a->secret.n > 0);
    ASSERT(a->udp_port != 0);
    ASSERT(a->tcp_port != 0);
    ASSERT(dusk_cred_host_ok(a->host));
    peer_id_text(a->peer, peer);
    netaddr_put_decimal(room, a->now_unix_s + DUSK_CRED_TTL_S);
    wcur_u8(room, ':');
    wcur_put(room, bytes_str(peer));
    out->username = bytes_of(start, room->wrote - before);

    uint8_t *password = wcur_room(room, STUN_PASSWORD_MAX);

    ASSERT(password != NULL);
    out->password = bytes_of(
        password, stun_ephemeral_password(STUN_MAC_SHA1, a->secret, out->username, password));
    out->ttl_s = DUSK_CRED_TTL_S;
    out->uris_n = 2;
    out->uris[0] = uri(room, a->host, a->udp_port, "");
    out->uris[1] = uri(room, a->host, a->tcp_port, "?transport=tcp");
    ASSERT(!room->bad);
}
