/* Moves (RFC 8016) and peers' streams (RFC 6062) beside a model of plain arrays, under seeded
 * orders of everything that can happen to them. */
#include "tests/unit/turn_world.h"

enum { STEPS = 300, SEEDS = 60, PATHS = 6, MOBILES = 2, PEERS = 5, NOWHERE = -1 };

static const char *const paths[PATHS] = { "192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1",
                                          "192.0.2.3:1", "192.0.2.4:1", "192.0.2.5:1" };

static struct who at_path(int p)
{
    return (struct who){ paths[p], "alice", "wonder" };
}

static struct turn_tuple tuple_at(int p)
{
    return tuple_of(paths[p]);
}

static void paths_begin(void)
{
    world();
    w.config.limits.mobility = true;
    w.config.limits.conns_max = 4;
    w.config.limits.alloc_conns_max = 3;
    w.config.limits.alloc_perms_max = 16;
    w.config.place = (struct turn_place){ .shards = 1, .key = { 3 } };
    w.transport = TURN_TCP;
}

/* ---- moves --------------------------------------------------------------------------------- */

struct mobile {
    struct turn_alloc *a; /* NULL: gone */
    int path, next;       /* NOWHERE */
    uint64_t until, moved;
    uint8_t ticket[TURN_TICKET], spent[TURN_TICKET];
    bool has_spent;
};

static struct mobile mobiles[MOBILES];

static struct mobile *mobile_on(int p)
{
    for (int i = 0; i < MOBILES; i++)
        if (mobiles[i].a && (mobiles[i].path == p || mobiles[i].next == p))
            return &mobiles[i];
    return NULL;
}

static void check_left(int p)
{
    cr_assert(w.out.left == (p != NOWHERE));
    if (p != NOWHERE)
        cr_assert(same_addr(&w.out.was.client, paths[p]));
}

/* The new path is the only one now. */
static void model_moved(struct mobile *m)
{
    check_left(m->path);
    m->path = m->next;
    m->next = NOWHERE;
}

static void step_begin(struct mobile *m, int p)
{
    struct who who = at_path(p);
    struct making *k = allocate(1);

    stun_put(&k->b, STUN_MOBILITY_TICKET, bytes_of(NULL, 0));
    if (m->a || mobile_on(p))
        return;
    cr_assert(ask(k, &who) == -1 && grant_wish(0) == 0);
    *m = (struct mobile){ w.out.alloc, p, NOWHERE, .until = w.now.ms + TURN_LIFETIME_MS };
    memcpy(m->ticket, stun_value(&w.reply, STUN_MOBILITY_TICKET).p, TURN_TICKET);
}

static void step_resume(struct mobile *m, int p, bool spent, unsigned tid)
{
    struct making *k = w_begin(STUN_REFRESH, tid);
    struct who who = at_path(p);
    const struct mobile *there = mobile_on(p);

    if (!m->a || (spent && !m->has_spent))
        return;
    stun_put(&k->b, STUN_MOBILITY_TICKET, bytes_of(spent ? m->spent : m->ticket, TURN_TICKET));
    int code = ask(k, &who);

    if (spent || (there && there != m)) {
        cr_assert(code == 437 && !w.out.joined && !w.out.left);
        return;
    }
    cr_assert(code == 0 && w.out.joined == (there == NULL));
    memcpy(m->spent, m->ticket, TURN_TICKET);
    memcpy(m->ticket, stun_value(&w.reply, STUN_MOBILITY_TICKET).p, TURN_TICKET);
    m->has_spent = true;
    m->until = w.now.ms + TURN_LIFETIME_MS;
    if (p == m->path) {
        check_left(m->next);
        m->next = NOWHERE;
        return;
    }
    if (m->next != NOWHERE)
        model_moved(m);
    else
        check_left(NOWHERE);
    if (p == m->path)
        return;
    if (m->path == NOWHERE) {
        m->path = p;
        return;
    }
    m->next = p;
    m->moved = w.now.ms + TURN_MOVE_MS;
}

static void step_ask(int p)
{
    struct mobile *m = mobile_on(p);
    struct who who = at_path(p);

    cr_assert(permit(&who, "192.0.2.50:1") == (m ? 0 : 437));
    if (m && m->next == p)
        model_moved(m);
    else
        check_left(NOWHERE);
}

static void step_lose(struct mobile *m, int p)
{
    struct turn_tuple tuple = tuple_at(p);

    if (!m->a)
        return;
    w.out = turn_out_of(w.buf, sizeof(w.buf));
    cr_assert(turn_lost(&w.t, m->a, &tuple, &w.out));
    if (m->path == p && m->next != NOWHERE) {
        model_moved(m);
    } else if (m->path == p) {
        check_left(p);
        m->path = NOWHERE;
    } else if (m->next == p) {
        check_left(p);
        m->next = NOWHERE;
    } else {
        check_left(NOWHERE);
    }
}

static void step_wait(uint64_t ms)
{
    pass_ms(ms);
    w.out = turn_out_of(w.buf, sizeof(w.buf));
    while (turn_expire(&w.t, w.now.ms, &w.out)) {
        struct mobile *m = mobiles[0].a == w.out.alloc ? &mobiles[0] : &mobiles[1];

        cr_assert(m->a == w.out.alloc);
        if (w.out.gone) {
            cr_assert(m->until <= w.now.ms);
            m->a = NULL;
        } else {
            cr_assert(m->next != NOWHERE && m->moved <= w.now.ms);
            model_moved(m);
        }
    }
    for (int i = 0; i < MOBILES; i++)
        if (mobiles[i].a) {
            cr_assert(mobiles[i].until > w.now.ms);
            cr_assert(mobiles[i].next == NOWHERE || mobiles[i].moved > w.now.ms);
        }
}

static void check_paths(void)
{
    size_t moving = 0, live = 0;

    for (int p = 0; p < PATHS; p++) {
        struct turn_tuple tuple = tuple_at(p);
        const struct mobile *m = mobile_on(p);

        cr_assert(turn_find(&w.t, &tuple) == (m ? m->a : NULL));
    }
    for (int i = 0; i < MOBILES; i++) {
        const struct mobile *m = &mobiles[i];

        if (!m->a)
            continue;
        live++;
        moving += m->next != NOWHERE;
        cr_assert(turn_is_moving(m->a) == (m->next != NOWHERE));
        if (m->path != NOWHERE)
            cr_assert(same_addr(&m->a->tuple.client, paths[m->path]));
    }
    cr_assert(eq(sz, w.t.moving.count, moving));
    cr_assert(eq(sz, w.t.allocs, live));
}

Test(turn_paths, moves_agree_with_the_model, .init = paths_begin, .timeout = 60)
{
    static const uint64_t waits[] = { 1, 1000, 29999, 30000, 599999, 600000 };
    unsigned tid = 0, moves = 0;

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct seeded s = { seed };

        memset(mobiles, 0, sizeof(mobiles));
        world_begin();
        for (int step = 0; step < STEPS; step++) {
            struct mobile *m = &mobiles[seeded_below(&s, MOBILES)];
            int p = (int)seeded_below(&s, PATHS);

            switch (seeded_below(&s, 8)) {
            case 0:
                step_begin(m, p);
                break;
            case 1:
            case 2:
                step_resume(m, p, seeded_below(&s, 4) == 0, ++tid);
                break;
            case 3:
            case 4:
                step_ask(p);
                break;
            case 5:
                step_lose(m, p);
                break;
            default:
                step_wait(waits[seeded_below(&s, 3) ? seeded_below(&s, 3) : seeded_below(&s, 6)]);
                break;
            }
            moves += m->a && m->next != NOWHERE;
            check_paths();
        }
    }
    cr_expect(moves > 1000, "only %u", moves);
}

/* ---- streams of peers ---------------------------------------------------------------------- */

struct stream {
    struct turn_conn *c; /* NULL: none */
    int on;              /* the path of its allocation */
    enum turn_conn_state state;
    uint64_t until;
};

static bool has_alloc[2];
static struct stream streams[2][PEERS];

static const char *peer_at(int p)
{
    static char text[32];

    snprintf(text, sizeof(text), "192.0.2.50:%d", 1000 + p);
    return text;
}

static unsigned streams_of(int on)
{
    unsigned n = 0;

    for (int p = 0; p < PEERS; p++)
        n += streams[on][p].c && streams[on][p].state != TURN_CONN_ENDED;
    return n;
}

static bool has_room(int on)
{
    unsigned all = 0;

    for (int i = 0; i < 2; i++)
        for (int p = 0; p < PEERS; p++)
            all += streams[i][p].c != NULL;
    return streams_of(on) < w.config.limits.alloc_conns_max && all < w.config.limits.conns_max;
}

static void stream_begins(int on, int p, enum turn_conn_state state)
{
    cr_assert(w.out.conn && w.out.conn->state == state);
    streams[on][p] = (struct stream){ w.out.conn, on, state, w.now.ms + TURN_CONN_MS };
}

static void step_connect(int on, int p)
{
    struct making *k = w_begin(STUN_CONNECT, 3);
    struct who who = at_path(on);
    const struct stream *s = &streams[on][p];

    if (s->c && s->state == TURN_CONN_ENDED) /* one name for two would confuse the model */
        return;
    put_peer(k, peer_at(p));
    int code = ask(k, &who);

    if (!has_alloc[on])
        cr_assert(code == 437);
    else if (s->c)
        cr_assert(code == 446);
    else if (!has_room(on))
        cr_assert(code == (streams_of(on) < w.config.limits.alloc_conns_max ? 508 : 486));
    else
        stream_begins(on, p, TURN_CONN_CONNECTING);
    cr_assert(code > 0 || w.out.act == TURN_CONNECT);
}

static void step_incoming(int on, int p)
{
    static const uint8_t tid[STUN_TID];
    struct turn_tuple tuple = tuple_at(on);
    struct netaddr peer = at_addr(peer_at(p));
    const struct stream *s = &streams[on][p];

    if (!has_alloc[on] || (s->c && s->state == TURN_CONN_ENDED))
        return;
    struct turn_alloc *a = turn_find(&w.t, &tuple);

    a->half[TURN_V4].expires_ms = w.now.ms + 10 * TURN_LIFETIME_MS; /* time is for streams here */
    turn_heap_set(&w.t, a);
    turn_perm_put(&w.t, w.now.ms, a, peer.ip);
    w.out = turn_out_of(w.buf, sizeof(w.buf));
    turn_on_incoming(&w.t, w.now.ms, a, &peer, tid, &w.out);
    if (s->c || !has_room(on))
        cr_assert(w.out.drop == TURN_DROP_ROOM);
    else
        stream_begins(on, p, TURN_CONN_WAITING);
}

static void step_connected(struct stream *s, bool ok)
{
    if (!s->c || (s->state != TURN_CONN_CONNECTING && s->state != TURN_CONN_ENDED))
        return;
    w.out = turn_out_of(w.buf, sizeof(w.buf));
    turn_on_connected(&w.t, w.now.ms, s->c, ok, &w.out);
    if (s->state == TURN_CONN_ENDED) {
        cr_assert(w.out.drop == TURN_DROP_ALLOCATION && w.out.reply.n == 0);
        return;
    }
    cr_assert(w.out.code == (ok ? 0 : 447) && w.out.reply.n);
    *s = ok ? (struct stream){ s->c, s->on, TURN_CONN_WAITING, w.now.ms + TURN_CONN_MS }
            : (struct stream){ 0 };
}

static void step_join(struct stream *s)
{
    struct making *k = w_begin(STUN_CONNECTION_BIND, 4);
    struct who who = at_path(5);

    if (!s->c)
        return;
    stun_put_u32(&k->b, STUN_CONNECTION_ID, s->c->id);
    int code = ask(k, &who);

    cr_assert(code == (s->state == TURN_CONN_WAITING ? 0 : 400));
    if (code == 0) {
        cr_assert(w.out.act == TURN_JOIN && w.out.conn == s->c);
        s->state = TURN_CONN_BOUND;
    }
}

static void step_alloc(int on)
{
    struct who who = at_path(on);
    struct making *k = w_begin(STUN_ALLOCATE, 1);

    stun_put_u8(&k->b, STUN_REQUESTED_TRANSPORT, 6);
    if (!has_alloc[on]) {
        cr_assert(ask(k, &who) == -1 && grant_wish(0) == 0);
        has_alloc[on] = true;
        return;
    }
    cr_assert(refresh(&who, 0) == 0 && w.out.gone);
    has_alloc[on] = false;
    for (int p = 0; p < PEERS; p++)
        if (streams[on][p].c)
            streams[on][p].state = TURN_CONN_ENDED;
}

static void step_close(uint64_t ms)
{
    pass_ms(ms);
    w.out = turn_out_of(w.buf, sizeof(w.buf));
    while (turn_expire(&w.t, w.now.ms, &w.out)) {
        struct stream *s = NULL;

        if (w.out.act == TURN_RELEASE) {
            for (int on = 0; on < 2; on++)
                if (same_addr(&w.out.alloc->tuple.client, paths[on])) {
                    has_alloc[on] = false;
                    for (int p = 0; p < PEERS; p++)
                        if (streams[on][p].c)
                            streams[on][p].state = TURN_CONN_ENDED;
                }
            continue;
        }
        cr_assert(w.out.act == TURN_CLOSE);
        for (int i = 0; i < 2 * PEERS; i++)
            if (streams[i / PEERS][i % PEERS].c == w.out.conn)
                s = &streams[i / PEERS][i % PEERS];
        cr_assert(s != NULL);
        cr_assert(s->state == TURN_CONN_ENDED ||
                  (s->state != TURN_CONN_BOUND && s->until <= w.now.ms));
        cr_assert(w.out.code == (s->state == TURN_CONN_CONNECTING ? 447 : 0));
        *s = (struct stream){ 0 };
    }
}

static void check_streams(void)
{
    unsigned all = 0, timed = 0, ended = 0;

    for (int i = 0; i < 2 * PEERS; i++) {
        const struct stream *s = &streams[i / PEERS][i % PEERS];

        if (!s->c)
            continue;
        cr_assert(s->c->state == s->state &&
                  (s->c->alloc == NULL) == (s->state == TURN_CONN_ENDED));
        cr_assert(turn_conn_find(&w.t, s->c->id) == (s->state == TURN_CONN_ENDED ? NULL : s->c));
        all++;
        ended += s->state == TURN_CONN_ENDED;
        timed += s->state == TURN_CONN_CONNECTING || s->state == TURN_CONN_WAITING;
    }
    cr_assert(eq(sz, w.t.conns, all));
    cr_assert(eq(sz, w.t.free_conns.count, w.config.limits.conns_max - all));
    cr_assert(eq(sz, w.t.conns_ended.count, ended));
    cr_assert(eq(sz, w.t.conns_by_expiry.count, timed));
    uint64_t before = 0;

    for (const struct link *k = w.t.conns_by_expiry.first; k; k = k->next) {
        const struct turn_conn *c = CONTAINER_OF(k, struct turn_conn, by_expiry);

        cr_assert(c->expires_ms >= before, "not in order");
        before = c->expires_ms;
    }
}

Test(turn_paths, streams_agree_with_the_model, .init = paths_begin, .timeout = 60)
{
    static const uint64_t waits[] = { 0, 1, 5000, 29999, 30000 };
    unsigned bound = 0;

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct seeded s = { seed };

        memset(streams, 0, sizeof(streams));
        memset(has_alloc, 0, sizeof(has_alloc));
        world_begin();
        for (int step = 0; step < STEPS; step++) {
            int on = (int)seeded_below(&s, 2), p = (int)seeded_below(&s, PEERS);
            struct stream *at = &streams[on][p];

            switch (seeded_below(&s, 12)) {
            case 0:
                step_alloc(on);
                break;
            case 1:
            case 2:
            case 3:
                step_connect(on, p);
                break;
            case 4:
            case 5:
                step_incoming(on, p);
                break;
            case 6:
            case 7:
                step_connected(at, seeded_below(&s, 3) != 0);
                break;
            case 8:
            case 9:
                step_join(at);
                break;
            case 10:
                if (at->c)
                    turn_conn_end(&w.t, at->c);
                *at = (struct stream){ 0 };
                break;
            default:
                step_close(waits[seeded_below(&s, ARRAY_LEN(waits))]);
                break;
            }
            bound += at->state == TURN_CONN_BOUND && at->c;
            check_streams();
        }
    }
    cr_expect(bound > 200, "only %u", bound);
}
