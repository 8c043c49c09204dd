/* What comes in: told apart, answered where no allocation is needed, and relayed. */
#include "proto/turn.h"

#include "proto/crypto.h"
#include "proto/turn_int.h"

/* ---- answers ------------------------------------------------------------------------------- */

void turn_reply_begin(struct turn_out *out, struct stun_build *b, uint16_t type,
                      const uint8_t id[STUN_ID])
{
    stun_begin(b, out->buf, out->cap, type, id);
}

void turn_reply_end(struct turn_out *out, struct stun_build *b, const struct turn_seal *seal)
{
    if (seal->mac != STUN_MAC_NONE)
        stun_put_integrity(b, seal->mac, stun_key_bytes(&seal->key), STUN_SHA256_TAG);
    if (seal->fingerprint)
        stun_put_fingerprint(b);
    ASSERT(stun_end(b, &out->reply)); /* TURN_REPLY_MAX holds every answer */
}

void turn_reply_error(struct turn_out *out, const struct stun_msg *m, unsigned code,
                      const struct turn_seal *seal)
{
    struct stun_build b;

    turn_reply_begin(out, &b, stun_type(stun_method_of(m->type), STUN_ERROR), stun_id(m));
    stun_put_error(&b, code, bytes_of(NULL, 0)); /* no phrases: replies stay small (turn.md §4) */
    turn_reply_end(out, &b, seal);
    out->code = (uint16_t)code;
}

void turn_reply_unknown(struct turn_out *out, const struct stun_msg *m, const uint16_t *types,
                        size_t n, const struct turn_seal *seal)
{
    struct stun_build b;

    turn_reply_begin(out, &b, stun_type(stun_method_of(m->type), STUN_ERROR), stun_id(m));
    stun_put_error(&b, 420, bytes_of(NULL, 0));
    stun_put_unknown(&b, types, n);
    turn_reply_end(out, &b, seal);
    out->code = 420;
}

/* ---- client to peer ------------------------------------------------------------------------ */

/* May this allocation send there now? Permissions first: they are the cheaper question. */
static enum turn_drop may_relay(struct turn *t, uint64_t now_ms, const struct turn_alloc *a,
                                const struct netaddr *peer)
{
    const struct turn_config *c = &t->config;

    if (!a->half[turn_family_of(peer)].live || peer->port == 0)
        return TURN_DROP_PEER;
    if (!turn_perm_find(t, now_ms, a, peer->ip))
        return TURN_DROP_PERMISSION;
    return c->peer_ok(c->arg, peer) ? TURN_DROP_NONE : TURN_DROP_PEER; /* it may have changed */
}

static void relay(struct turn_out *out, enum turn_drop drop, const struct netaddr *peer,
                  struct bytes data)
{
    out->drop = drop;
    if (drop != TURN_DROP_NONE)
        return;
    out->act = TURN_RELAY;
    out->peer = *peer;
    out->data = data;
}

/* Never refreshes anything, is never answered (RFC 8656 §11.3). */
static void on_send(struct turn *t, uint64_t now_ms, const struct stun_msg *m, struct turn_out *out)
{
    struct stun_addr peer;
    uint16_t types[STUN_UNKNOWN_MAX];

    if (stun_refused(m, turn_supported(t), types))
        out->drop = TURN_DROP_UNKNOWN;
    else if (!out->alloc)
        out->drop = TURN_DROP_ALLOCATION;
    else if (out->alloc->tcp)
        out->drop = TURN_DROP_STREAM;
    else if (!stun_addr(m, STUN_XOR_PEER_ADDRESS, &peer) || !stun_has(m, STUN_DATA))
        out->drop = TURN_DROP_MALFORMED;
    else if (peer.v6 && netaddr_is4(&peer.addr))
        out->drop = TURN_DROP_PEER;
    else
        relay(out, may_relay(t, now_ms, out->alloc, &peer.addr), &peer.addr,
              stun_value(m, STUN_DATA));
    out->dont_fragment = out->act == TURN_RELAY && stun_has(m, STUN_DONT_FRAGMENT);
}

enum turn_drop turn_on_channel(struct turn *t, uint64_t now_ms, const struct turn_alloc *a,
                               uint16_t number, struct netaddr *peer)
{
    const struct turn_chan *c = turn_chan_by_number(t, now_ms, a, number);

    if (!c)
        return TURN_DROP_CHANNEL;
    *peer = c->peer;
    return may_relay(t, now_ms, a, peer);
}

static void on_channel_data(struct turn *t, uint64_t now_ms, struct bytes in, struct turn_out *out)
{
    struct netaddr peer = { .port = 0 };
    struct chandata m;

    if (!chandata_decode(in, &m))
        out->drop = TURN_DROP_MALFORMED;
    else if (!out->alloc)
        out->drop = TURN_DROP_ALLOCATION;
    else if (out->alloc->tcp)
        out->drop = TURN_DROP_STREAM;
    else
        relay(out, turn_on_channel(t, now_ms, out->alloc, m.channel, &peer), &peer, m.data);
}

/* ---- peer to client ------------------------------------------------------------------------ */

void turn_on_peer(struct turn *t, uint64_t now_ms, struct turn_alloc *a, const struct netaddr *peer,
                  struct turn_out *out, uint16_t *channel)
{
    *out = turn_out_of(out->buf, out->cap);
    out->alloc = a;
    turn_sweep(t, now_ms);
    ASSERT(!a->tcp);
    if (!turn_perm_find(t, now_ms, a, peer->ip))
        out->drop = TURN_DROP_PERMISSION;
    else if (!a->seat[0].alloc)
        out->drop = TURN_DROP_LOST;
    if (out->drop != TURN_DROP_NONE)
        return;
    const struct turn_chan *c = turn_chan_by_peer(t, now_ms, a, peer);

    *channel = c ? c->number : 0;
    out->act = TURN_RELAY;
    out->peer = *peer;
}

/* ---- everything ---------------------------------------------------------------------------- */

static bool is_request_of_turn(const struct turn *t, uint16_t method)
{
    switch (method) {
    case STUN_ALLOCATE:
    case STUN_REFRESH:
    case STUN_CREATE_PERMISSION:
    case STUN_CHANNEL_BIND:
        return true;
    case STUN_CONNECT:
    case STUN_CONNECTION_BIND:
        return t->config.limits.conns_max > 0;
    default:
        return false;
    }
}

static void on_stun(struct turn *t, struct turn_now now, const struct turn_tuple *tuple,
                    const struct stun_msg *m, struct turn_out *out)
{
    enum stun_class class = stun_class_of(m->type);
    uint16_t method = stun_method_of(m->type);

    if (class != STUN_REQUEST && class != STUN_INDICATION) {
        out->drop = TURN_DROP_CLASS;
        return;
    }
    if (method == STUN_BINDING) {
        if (class == STUN_REQUEST) /* an indication keeps the NAT open, and that was all */
            turn_on_binding(t, tuple, m, out);
        return;
    }
    if (t->config.limits.binding_only) {
        out->drop = TURN_DROP_METHOD;
        return;
    }
    if (method == STUN_SEND && class == STUN_INDICATION && !m->classic) {
        on_send(t, now.ms, m, out);
        if (out->act == TURN_RELAY)
            turn_heard(t, tuple, out->alloc, out);
        return;
    }
    if (class != STUN_REQUEST || m->classic || !is_request_of_turn(t, method)) {
        out->drop = TURN_DROP_METHOD;
        return;
    }
    turn_on_request(t, now, tuple, m, out);
}

void turn_on_message(struct turn *t, struct turn_now now, const struct turn_tuple *tuple,
                     struct bytes in, struct turn_out *out)
{
    static const enum turn_drop drops[STUN_VERDICTS] = {
        [STUN_FOREIGN] = TURN_DROP_FOREIGN,
        [STUN_BAD_LENGTH] = TURN_DROP_MALFORMED,
        [STUN_BAD_ATTRIBUTE] = TURN_DROP_MALFORMED,
        [STUN_BAD_FINGERPRINT] = TURN_DROP_FINGERPRINT,
    };
    const struct turn_limits *l = &t->config.limits;
    enum first_byte first = in.n ? first_byte(in.p[0], l->compat_channels) : FIRST_NOTHING;
    struct stun_msg m;

    ASSERT(out->cap >= TURN_REPLY_MAX);
    *out = turn_out_of(out->buf, out->cap);
    turn_sweep(t, now.ms);
    out->alloc = turn_find(t, tuple);
    if (first == FIRST_CHANNEL) {
        on_channel_data(t, now.ms, in, out);
        if (out->act == TURN_RELAY)
            turn_heard(t, tuple, out->alloc, out);
        return;
    }
    if (l->binding_dig && turn_on_binding_dig(tuple, in, out))
        return;
    enum stun_verdict v =
        first == FIRST_STUN ? stun_decode(in, l->classic ? STUN_CLASSIC : 0, &m) : STUN_FOREIGN;

    if (v != STUN_OK)
        out->drop = drops[v];
    else
        on_stun(t, now, tuple, &m, out);
}
