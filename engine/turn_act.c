/* Carries out what the machine of proto/turn.h decides. */
#include "engine/shard.h"
#include "engine/turn_say.h"
#include "engine/turn_shard.h"
#include "engine/turn_stream.h"

/* ---- counting ---------------------------------------------------------------------------------
 */

void turn_count_drop(struct turn_shard *ts, enum turn_drop drop, unsigned n)
{
    struct stats *st = &ts->s->stats;
    _Atomic uint64_t *const at[TURN_DROPS] = {
        [TURN_DROP_FOREIGN] = &st->turn_drop_foreign,
        [TURN_DROP_MALFORMED] = &st->turn_drop_malformed,
        [TURN_DROP_FINGERPRINT] = &st->turn_drop_fingerprint,
        [TURN_DROP_CLASS] = &st->turn_drop_class,
        [TURN_DROP_METHOD] = &st->turn_drop_method,
        [TURN_DROP_UNKNOWN] = &st->turn_drop_unknown,
        [TURN_DROP_ALLOCATION] = &st->turn_drop_allocation,
        [TURN_DROP_PERMISSION] = &st->turn_drop_permission,
        [TURN_DROP_CHANNEL] = &st->turn_drop_channel,
        [TURN_DROP_PEER] = &st->turn_drop_peer,
        [TURN_DROP_PENDING] = &st->turn_drop_pending,
        [TURN_DROP_LOST] = &st->turn_drop_lost,
        [TURN_DROP_STREAM] = &st->turn_drop_stream,
        [TURN_DROP_ROOM] = &st->turn_drop_room,
    };

    if (at[drop])
        atomic_store_explicit(at[drop], atomic_load_explicit(at[drop], memory_order_relaxed) + n,
                              memory_order_relaxed);
}

static void count_error(struct stats *st, uint16_t code)
{
    const struct {
        uint16_t code;
        _Atomic uint64_t *at;
    } all[] = {
        { 300, &st->turn_error_300 }, { 400, &st->turn_error_400 }, { 401, &st->turn_error_401 },
        { 403, &st->turn_error_403 }, { 420, &st->turn_error_420 }, { 437, &st->turn_error_437 },
        { 438, &st->turn_error_438 }, { 440, &st->turn_error_440 }, { 441, &st->turn_error_441 },
        { 442, &st->turn_error_442 }, { 443, &st->turn_error_443 }, { 446, &st->turn_error_446 },
        { 447, &st->turn_error_447 }, { 486, &st->turn_error_486 }, { 508, &st->turn_error_508 },
    };
    _Atomic uint64_t *at = &st->turn_error_other;

    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (all[i].code == code)
            at = all[i].at;
    atomic_store_explicit(at, atomic_load_explicit(at, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* ---- answers ----------------------------------------------------------------------------------
 */

static bool is_binding(const struct turn_out *out)
{
    struct cur c = cur_of(out->reply);

    return stun_method_of(cur_u16(&c)) == STUN_BINDING;
}

/* Without a password nobody has such an answer sent to anybody. */
static bool is_proven(const struct turn_shard *ts, const struct turn_out *out)
{
    return ts->host->relays && !is_binding(out) && out->code != 400 && out->code != 401 &&
           out->code != 420 && out->code != 438;
}

/* A client has its keepalives and new nonces answered, whoever else is behind its address; but that
 * it is there does not prove that it asked. */
static bool is_known(struct turn_shard *ts, const struct turn_out *out)
{
    struct turn_client *c = out->alloc ? turn_client_of(out->alloc) : NULL;

    if (!c)
        return false;
    if (ts->s->now_ms >= c->replied_ms + 1000) {
        c->replied_ms = ts->s->now_ms;
        c->replied = 0;
    }
    return c->replied < TURN_REPLIES_MAX && ++c->replied;
}

/* Who may have written any source address he likes is told little (turn.md §15.2). */
static bool may_reply(struct turn_shard *ts, const struct turn_out *out,
                      const struct turn_tuple *tuple)
{
    if (is_proven(ts, out) || is_known(ts, out) ||
        turn_host_may_reply(ts->host, ts->s->now_ms, &tuple->client))
        return true;
    STAT_INC(&ts->s->stats, turn_drop_reply_rate);
    turn_say_limited(ts, &tuple->client);
    return false;
}

/* RFC 5780: from another of our addresses, perhaps to another of his ports. */
static void send_detour(struct turn_shard *ts, const struct turn_out *out,
                        const struct turn_piece *p)
{
    struct turn_sock *door = turn_door_find(ts, &out->from);
    struct turn_tuple way = { .client = out->to, .server = out->from, .transport = TURN_UDP };

    if (door)
        turn_send_from(ts, door, &way, p);
    else
        STAT_INC(&ts->s->stats, turn_drop_send);
}

static void send_reply(struct turn_shard *ts, const struct turn_out *out,
                       const struct turn_tuple *tuple, const struct turn_path *path)
{
    struct turn_piece p = { .head = out->reply };

    if (out->code)
        count_error(&ts->s->stats, out->code);
    if (!path) { /* nobody asked just now: to where the allocation's client is */
        if (out->alloc && out->alloc->user)
            turn_to_client(ts, turn_client_of(out->alloc), &p, false);
        return;
    }
    if (path->stream) {
        (void)turn_stream_send(path->stream, out->reply, bytes_of(NULL, 0), false);
        return;
    }
    if (!may_reply(ts, out, tuple))
        return;
    if (out->detour)
        send_detour(ts, out, &p);
    else
        turn_send_from(ts, path->sock, tuple, &p);
}

/* ---- acts -------------------------------------------------------------------------------------
 */

static void relay(struct turn_shard *ts, const struct turn_out *out, const struct turn_path *path)
{
    struct turn_client *c = turn_client_of(out->alloc);
    struct netaddr peer = out->peer;
    bool fleeting = !path || path->stream || path->fleeting;
    struct turn_piece p = { .data = out->data,
                            .df = out->dont_fragment,
                            .copy = fleeting && out->data.n <= TRAIN_COPIED_MAX };

    turn_host_internal(ts->host, &peer);
    struct turn_sock *k = c->sock[netaddr_is4(&peer) ? TURN_V4 : TURN_V6];

    if (!k || !turn_carry(ts, c, 0, out->data.n))
        return;
    STAT_INC(&ts->s->stats, turn_peer_tx);
    STAT_ADD(&ts->s->stats, turn_peer_tx_bytes, out->data.n);
    trains_add(&ts->trains, &k->out, &peer, NULL, &p);
    if (fleeting && !p.copy) /* its bytes go when we return */
        trains_flush(&ts->trains);
}

static void release(struct turn_shard *ts, struct turn_out *out, bool asked)
{
    struct turn_client *c = turn_client_of(out->alloc);

    if (!c)
        return;
    for (int f = 0; f < TURN_FAMILIES; f++)
        if (out->released[f])
            turn_client_release(ts, c, (enum turn_family)f);
    if (!out->gone)
        return;
    if (asked)
        STAT_INC(&ts->s->stats, turn_alloc_released);
    else
        STAT_INC(&ts->s->stats, turn_alloc_expired);
    turn_client_end(ts, c, asked ? "released" : "expired");
}

static void elsewhere(struct turn_shard *ts, const struct turn_out *out,
                      const struct turn_tuple *tuple, const struct turn_path *path, struct bytes in)
{
    if (!path)
        return;
    STAT_INC(&ts->s->stats, turn_mailed);
    if (path->stream) {
        turn_stream_hand_over(path->stream, out->shard, in);
        return;
    }
    if (turn_mail_send(ts, out->shard, tuple, in))
        turn_away_put(ts, tuple, out->shard);
    else
        STAT_INC(&ts->s->stats, turn_drop_mail);
}

/* The way that led to it before does so no more. */
static void leave(struct turn_shard *ts, const struct turn_out *out)
{
    struct turn_stream *st =
        out->was.transport == TURN_UDP ? NULL : turn_stream_find(ts, &out->was);

    if (st)
        turn_stream_close(st);
}

static void connect_out(struct turn_shard *ts, const struct turn_out *out)
{
    struct turn_client *c = turn_client_of(out->alloc);
    enum turn_family f = netaddr_is4(&out->peer) ? TURN_V4 : TURN_V6;
    struct netaddr from = ts->host->relay_ip[f];

    from.port = c->port[f];
    turn_raw_connect(ts, out->conn, &from);
}

void turn_act(struct turn_shard *ts, struct turn_out *out, const struct turn_tuple *tuple,
              const struct turn_path *path, struct bytes in)
{
    if (out->drop != TURN_DROP_NONE)
        turn_count_drop(ts, out->drop, 1);
    if (out->act == TURN_BIND) { /* the answer comes with what became of it */
        turn_client_bind(ts, out);
        return;
    }
    if (out->reply.n)
        send_reply(ts, out, tuple, path);
    switch (out->act) {
    case TURN_NOTHING:
    case TURN_BIND:
        break;
    case TURN_RELAY:
        relay(ts, out, path);
        break;
    case TURN_RELEASE:
        release(ts, out, path != NULL);
        break;
    case TURN_CONNECT:
        connect_out(ts, out);
        break;
    case TURN_JOIN:
        turn_raw_join(ts, out->conn, path->stream);
        break;
    case TURN_CLOSE:
        turn_raw_close(ts, out->conn);
        break;
    case TURN_ELSEWHERE:
        elsewhere(ts, out, tuple, path, in);
        break;
    }
    if (out->left)
        leave(ts, out);
}

/* ---- what comes -------------------------------------------------------------------------------
 */

struct turn_now turn_now(const struct turn_shard *ts)
{
    return (struct turn_now){ ts->s->now_ms, ts->s->now_unix_s };
}

/* Without a secret or a user nobody can prove who he is: presets.md has 403 for an Allocate. */
static bool refuse_allocate(struct turn_shard *ts, const struct turn_tuple *tuple,
                            const struct turn_path *path, struct bytes in)
{
    uint8_t buf[TURN_REPLY_MAX];
    struct turn_out out = turn_out_of(buf, sizeof(buf));
    struct stun_build b;
    struct stun_msg m;

    if (stun_decode(in, 0, &m) != STUN_OK || m.type != stun_type(STUN_ALLOCATE, STUN_REQUEST))
        return false;
    stun_begin(&b, buf, sizeof(buf), stun_type(STUN_ALLOCATE, STUN_ERROR), stun_id(&m));
    stun_put_error(&b, 403, bytes_of(NULL, 0));
    ASSERT(stun_end(&b, &out.reply));
    out.code = 403;
    turn_act(ts, &out, tuple, path, in);
    return true;
}

static bool is_binding_reply(const struct turn_out *out)
{
    return out->reply.n && out->reply.p[0] == 0x01 && out->reply.p[1] == 0x01;
}

/* What has the length of a unit and is no message: where the next one begins is anybody's guess, so
 * a stream ends there (turn.md §2). A Send that lacks a part is only dropped. */
static bool ends_stream(const struct turn_shard *ts, const struct turn_out *out, struct bytes unit)
{
    unsigned flags = ts->machine.config.limits.classic ? STUN_CLASSIC : 0;
    struct stun_msg m;

    if (out->drop != TURN_DROP_FOREIGN && out->drop != TURN_DROP_MALFORMED)
        return false;
    return unit.n && first_byte(unit.p[0], true) == FIRST_STUN &&
           stun_decode(unit, flags, &m) != STUN_OK;
}

void turn_on_unit(struct turn_shard *ts, const struct turn_tuple *tuple,
                  const struct turn_path *path, struct bytes unit)
{
    uint8_t buf[TURN_ROOM];
    struct turn_out out = turn_out_of(buf, sizeof(buf));

    if (!ts->host->relays && !ts->host->machine.limits.binding_only &&
        refuse_allocate(ts, tuple, path, unit))
        return;
    turn_on_message(&ts->machine, turn_now(ts), tuple, unit, &out);
    if (is_binding_reply(&out))
        STAT_INC(&ts->s->stats, turn_bindings);
    bool is_end = path->stream && ends_stream(ts, &out, unit);

    turn_act(ts, &out, tuple, path, unit);
    if (is_end)
        turn_stream_close(path->stream);
}

void turn_on_gone(struct turn_shard *ts, const struct turn_tuple *tuple)
{
    struct turn_alloc *a = turn_find(&ts->machine, tuple);
    uint8_t buf[TURN_ROOM];
    struct turn_out out = turn_out_of(buf, sizeof(buf));

    if (!a)
        return;
    if (turn_lost(&ts->machine, a, tuple, &out)) {
        turn_act(ts, &out, tuple, NULL, bytes_of(NULL, 0));
        return;
    }
    STAT_INC(&ts->s->stats, turn_alloc_lost);
    if (a->user)
        turn_client_end(ts, turn_client_of(a), "its client has gone");
    turn_delete(&ts->machine, a);
    turn_act_due(ts); /* its data connections */
}

void turn_act_due(struct turn_shard *ts)
{
    uint8_t buf[TURN_ROOM];
    struct turn_out out = turn_out_of(buf, sizeof(buf));

    for (int n = 0; n < TURN_DUE_MAX && turn_expire(&ts->machine, ts->s->now_ms, &out); n++)
        turn_act(ts, &out, NULL, NULL, bytes_of(NULL, 0));
    if (ts->reserved_n)
        turn_reserved_expire(ts, ts->s->now_ms);
}
