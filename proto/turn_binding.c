/* Binding (RFC 8489 §12, turn.md §7), and what RFC 5780 adds to it where there are two addresses.
 * No state and no credentials. */
#include "proto/turn.h"

#include "proto/turn_int.h"

enum { CHANGE_IP = 4, CHANGE_PORT = 2 }; /* RFC 5780 §7.2 */

/* Which of the four addresses a request came to. */
struct place {
    const struct turn_behaviour *b; /* NULL: none of them, so RFC 5780 is not spoken */
    unsigned ip, port;
};

static struct place place_of(const struct turn *t, const struct turn_tuple *tuple)
{
    const struct turn_behaviour *b = &t->config.behaviour[turn_family_of(&tuple->server)];

    for (unsigned i = 0; b->on && i < 2; i++)
        for (unsigned p = 0; p < 2; p++)
            if (memcmp(b->ip[i], tuple->server.ip, sizeof(b->ip[i])) == 0 &&
                b->port[p] == tuple->server.port)
                return (struct place){ b, i, p };
    return (struct place){ NULL, 0, 0 };
}

static struct netaddr address(const struct turn_behaviour *b, unsigned ip, unsigned port)
{
    struct netaddr a = { .port = b->port[port] };

    memcpy(a.ip, b->ip[ip], sizeof(a.ip));
    return a;
}

/* Clients probe with a CHANGE-REQUEST of nothing: as if it were absent. */
static bool wants_change(const struct stun_msg *m)
{
    return turn_is_there(m, STUN_CHANGE_REQUEST) &&
           (!stun_has(m, STUN_CHANGE_REQUEST) || stun_u32(m, STUN_CHANGE_REQUEST) != 0);
}

/* 400 or 0 (RFC 5780 §6.1; turn.md §7). A reply to port 0 goes nowhere, and padding a reply that
 * goes elsewhere would be a gift to whoever wants to flood. */
static unsigned judge(const struct turn_tuple *tuple, const struct stun_msg *m)
{
    bool elsewhere = turn_is_there(m, STUN_RESPONSE_PORT), padding = turn_is_there(m, STUN_PADDING);

    if (tuple->transport != TURN_UDP)
        return elsewhere || padding || wants_change(m) ? 400 : 0;
    if (stun_is_broken(m, STUN_CHANGE_REQUEST))
        return 400;
    if (elsewhere && (padding || stun_u16(m, STUN_RESPONSE_PORT) == 0)) /* broken reads as 0 */
        return 400;
    return 0;
}

/* As long as the way out asks for (§7.6), and never so that the answer becomes longer than what
 * asked for it: a request of 28 bytes must not fetch 1500. */
static void put_padding(struct stun_build *b, const struct turn_behaviour *behaviour,
                        const struct stun_msg *m, size_t cap, size_t tail)
{
    size_t mtu = behaviour->mtu ? behaviour->mtu : TURN_MTU;
    size_t most = min_sz(cap, m->raw.n), used = b->w.wrote + 4 + tail;

    if (used > most)
        return;
    stun_put_padding(b,
                     min_sz(min_sz(stun_value(m, STUN_PADDING).n, mtu), most - used) & ~(size_t)3);
}

static void put_behaviour(const struct place *at, const struct turn_tuple *tuple,
                          const struct stun_msg *m, struct turn_out *out, struct stun_build *b)
{
    uint32_t change = stun_u32(m, STUN_CHANGE_REQUEST);
    unsigned ip = at->ip ^ ((change & CHANGE_IP) != 0);
    unsigned port = at->port ^ ((change & CHANGE_PORT) != 0);
    struct netaddr other = address(at->b, !at->ip, !at->port);
    struct stun_addr v;

    out->from = address(at->b, ip, port);
    out->to = tuple->client;
    if (stun_has(m, STUN_RESPONSE_PORT))
        out->to.port = stun_u16(m, STUN_RESPONSE_PORT);
    out->detour = ip != at->ip || port != at->port || out->to.port != tuple->client.port;
    v = stun_addr_of(&out->from);
    stun_put_addr(b, STUN_RESPONSE_ORIGIN, &v);
    v = stun_addr_of(&other);
    stun_put_addr(b, STUN_OTHER_ADDRESS, &v);
    if (stun_has(m, STUN_PADDING))
        put_padding(b, at->b, m, out->cap, stun_has(m, STUN_FINGERPRINT) ? 8 : 0);
}

void turn_on_binding(const struct turn *t, const struct turn_tuple *tuple, const struct stun_msg *m,
                     struct turn_out *out)
{
    const struct turn_seal seal = { .mac = STUN_MAC_NONE,
                                    .fingerprint = stun_has(m, STUN_FINGERPRINT) && !m->classic };
    const uint64_t of_5780 =
        STUN_BIT(STUN_RESPONSE_PORT) | STUN_BIT(STUN_PADDING) | STUN_BIT(STUN_CHANGE_REQUEST);
    uint64_t all = ~(STUN_BIT(STUN_ACCESS_TOKEN) | of_5780);
    struct stun_addr mapped = stun_addr_of(&tuple->client);
    struct place at = place_of(t, tuple);
    uint16_t types[STUN_UNKNOWN_MAX];
    struct stun_build b;

    if (m->classic) /* it knows CHANGED-ADDRESS instead, which nobody sends any more */
        at.b = NULL;
    if (at.b)
        all |= of_5780;
    if (!wants_change(m))
        all |= STUN_BIT(STUN_CHANGE_REQUEST);
    size_t unknown = stun_refused(m, all, types);

    if (unknown) { /* what old and ICE clients attach is let by */
        turn_reply_unknown(out, m, types, unknown, &seal);
        return;
    }
    unsigned code = at.b ? judge(tuple, m) : 0;

    if (code) {
        turn_reply_error(out, m, code, &seal);
        return;
    }
    turn_reply_begin(out, &b, stun_type(STUN_BINDING, STUN_SUCCESS), stun_id(m));
    stun_put_addr(&b, m->classic ? STUN_MAPPED_ADDRESS : STUN_XOR_MAPPED_ADDRESS, &mapped);
    if (at.b && tuple->transport == TURN_UDP)
        put_behaviour(&at, tuple, m, out, &b);
    turn_reply_end(out, &b, &seal);
}

/* DIG's STUN answers whoever asks with a whole header: bytes behind the message, attributes that
 * must be understood, a length that is no multiple of four are all the same to it (dig.md §11). The
 * reply is never longer than 44 bytes, the request never shorter than 20. */
bool turn_on_binding_dig(const struct turn_tuple *tuple, struct bytes in, struct turn_out *out)
{
    const struct turn_seal seal = { .mac = STUN_MAC_NONE };
    struct stun_addr mapped = stun_addr_of(&tuple->client);
    struct stun_build b;
    struct stun_head h;

    if (tuple->transport != TURN_UDP || !stun_head_decode(in, &h) || !h.cookie ||
        h.type != stun_type(STUN_BINDING, STUN_REQUEST) || in.n - STUN_HEADER < h.length)
        return false;
    turn_reply_begin(out, &b, stun_type(STUN_BINDING, STUN_SUCCESS), in.p + 4);
    stun_put_addr(&b, STUN_XOR_MAPPED_ADDRESS, &mapped);
    turn_reply_end(out, &b, &seal);
    return true;
}
