#include "tests/sim/sim_crowd.h"

#include "proto/ident.h"
#include "tests/sim/sim_peer.h"

enum {
    SUBNETS = 3,
    SETTLE_MS = 60000,
    LATE_ANSWER_MS = 12000, /* behind the relay's own patience */
};

static uint64_t below(struct crowd *c, uint64_t n)
{
    return sim_below(c->s->net, n);
}

static bool chance(struct crowd *c, unsigned pct)
{
    return sim_chance(c->s->net, pct);
}

/* Later */

static void later(struct crowd *c, enum later_kind kind, uint64_t in_ms, struct sim_stream *st,
                  struct sim_conn *conn)
{
    for (unsigned i = 0; i < CROWD_LATER_MAX; i++) {
        if (c->later[i].kind != LATER_NONE)
            continue;
        c->later[i] = (struct later){ kind, sim_now(c->s) + in_ms, st, conn };
        return;
    }
    if (kind == LATER_HEAR) /* nobody stays deaf for good */
        conn->deaf = false;
    else
        st->excused = true;
}

static void later_due(struct crowd *c)
{
    for (unsigned i = 0; i < CROWD_LATER_MAX; i++) {
        struct later l = c->later[i];

        if (l.kind == LATER_NONE)
            continue;
        if (l.at_ms > sim_now(c->s)) {
            sim_net_alarm(c->s->net, l.at_ms);
            continue;
        }
        c->later[i].kind = LATER_NONE;
        if (l.kind == LATER_ANSWER)
            sim_stop_answer(l.st, HOP_OK);
        else if (l.kind == LATER_RST)
            sim_stream_rst(l.st);
        else
            l.conn->deaf = false;
    }
}

/* Streams */

static void on_stop(struct sim_stream *st)
{
    static const enum hop_status noes[] = { HOP_RESERVATION_REFUSED, HOP_RESOURCE_LIMIT_EXCEEDED,
                                            HOP_PERMISSION_DENIED,   HOP_CONNECTION_FAILED,
                                            HOP_MALFORMED_MESSAGE,   (enum hop_status)999 };
    struct crowd *c = st->conn->s->arg;
    uint64_t what = below(c, 100);

    if (what < 64) {
        sim_stop_answer(st, HOP_OK);
    } else if (what < 78) {
        later(c, LATER_ANSWER, below(c, 400), st, NULL);
    } else if (what < 86) {
        sim_stop_answer(st, noes[below(c, ARRAY_LEN(noes))]);
    } else if (what < 89) {
        st->excused = true;
        later(c, LATER_ANSWER, below(c, LATE_ANSWER_MS), st, NULL);
    } else if (what < 92) {
        st->excused = true; /* no answer, ever */
    } else if (what < 95) {
        sim_stream_rst(st);
    } else if (what < 97) {
        st->excused = true;
        sim_stream_put(st, bytes_of(NULL, 0), true);
    } else if (what < 99 || !c->hostile) {
        sim_hang_up(st->conn, chance(c, 50) ? HANG_FIN : HANG_RST);
    } else {
        st->conn->excused = true;
        sim_stream_put(st, bytes_str("\xff\xff\xff\xff what is this"), false);
    }
}

static uint64_t total_of(struct crowd *c)
{
    switch (below(c, 8)) {
    case 0:
        return 0;
    case 1:
        return 8 + below(c, 40);
    case 2:
        return 8 + below(c, c->bytes_max);
    default:
        return 8 + below(c, 12000);
    }
}

static void on_joined(struct sim_stream *st)
{
    struct crowd *c = st->conn->s->arg;
    uint64_t total = total_of(c);
    size_t frame_max = total < 200 && chance(c, 50) ? 1 : 1 + (size_t)below(c, 30000);
    bool fin = chance(c, 80);

    if (chance(c, 10))
        frame_max = YAMUX_WINDOW;
    c->joined += st->kind == SS_CONNECT;
    if (st->tx != NULL)
        return; /* it did not wait for the answer */
    st->excused = st->excused || c->no_promises || (c->slow && !fin);
    if (chance(c, 5))
        st->excused = st->greedy = true;
    if (chance(c, 8))
        st->stingy = true;
    else if (chance(c, 8)) /* go opens up to 16 MiB at once */
        sim_grant(st, 1 << 24);
    if (chance(c, 10))
        later(c, LATER_RST, below(c, 300), st, NULL);
    sim_flow_start(st, total, frame_max, fin);
}

/* Acts */

static struct sim_conn *any_conn(struct crowd *c)
{
    struct sim *s = c->s;
    struct sim_conn *up[64];
    size_t n = 0;

    for (size_t i = s->conns_n; i-- > 0 && n < ARRAY_LEN(up);)
        if (s->conns[i]->state == SC_UP)
            up[n++] = s->conns[i];
    return n > 0 ? up[below(c, n)] : NULL;
}

static struct sim_stream *any_stream(struct crowd *c, struct sim_conn *conn)
{
    for (size_t tries = 0; conn->streams_n > 0 && tries < 4; tries++) {
        struct sim_stream *st = conn->streams[below(c, conn->streams_n)];

        if (st->live)
            return st;
    }
    return NULL;
}

/* What else knocks at a port. */
static void strange(struct crowd *c, struct sim_conn *conn)
{
    conn->excused = true;
    if (chance(c, 60)) { /* half a handshake */
        conn->out.n = (size_t)below(c, conn->out.n);
        return;
    }
    sim_queue_drop(&conn->out, conn->out.n);
    sim_put_raw(conn, chance(c, 50) ? bytes_str("GET / HTTP/1.1\r\n\r\n")
                                    : bytes_str("\x16\x03\x01 client hello"));
}

static void come(struct crowd *c)
{
    unsigned alive = 0, ident = (unsigned)below(c, c->idents + 1);
    struct netaddr at = sim_host((unsigned)below(c, SUBNETS), (unsigned)below(c, 4));
    struct sim_conn *conn;

    for (size_t i = 0; i < c->s->conns_n; i++)
        alive += c->s->conns[i]->state != SC_CLOSED;
    if (alive >= c->conns_max)
        return;
    conn = sim_dial(c->s, ident, &at, -1);
    if (conn == NULL)
        return;
    conn->excused = c->no_promises;
    if (chance(c, 30))
        conn->record_max = chance(c, 50) ? NOISE_PLAIN_MAX : 1 + (size_t)below(c, 2000);
    if (chance(c, 4))
        conn->no_stop = true;
    if (c->hostile && chance(c, 12))
        strange(c, conn);
}

/* Mostly somebody who can be reached; anybody else's answer is a status. */
static const struct peer_id *any_target(struct crowd *c)
{
    struct home homes[HOMES_PER_PEER];
    const struct peer_id *id = NULL;

    for (int tries = 0; tries < 3; tries++) {
        id = sim_peer_id(c->s, 1 + (unsigned)below(c, c->idents));
        if (homes_find(c->s->d.homes, id, homes) > 0)
            break;
    }
    return id;
}

static void call(struct crowd *c, struct sim_conn *conn)
{
    static const struct peer_id nobody = { .n = 38, .b = { 0, 36, 8, 1, 18, 32, 7 } };
    struct sim_stream *st;
    unsigned what = (unsigned)below(c, 100);

    c->circuits++;
    if (what < 92)
        st = sim_connect_to(conn, any_target(c));
    else if (what < 95)
        st = sim_connect_to(conn, &c->s->me.id);
    else if (what < 97)
        st = sim_connect_to(conn, &nobody);
    else
        st = sim_connect_to(conn, &conn->ident->me.id);
    if (st != NULL && chance(c, 15)) {
        st->excused = c->no_promises;
        sim_flow_start(st, 8 + below(c, chance(c, 80) ? 5000 : c->bytes_max), 4000, true);
    }
    if (st != NULL && chance(c, 6))
        later(c, LATER_RST, below(c, 200), st, NULL); /* also while STOP is pending */
}

static void small_talk(struct crowd *c, struct sim_conn *conn)
{
    uint8_t bytes[64] = { 0 }, frame[YAMUX_HEADER];
    struct sim_stream *st;

    switch (below(c, 6)) {
    case 0:
        sim_open(conn, PING_PROTOCOL, SS_PING, bytes_of(bytes, 32 * (1 + below(c, 2))));
        break;
    case 1:
        sim_open(conn, IDENT_PROTOCOL, SS_OTHER, bytes_of(NULL, 0));
        break;
    case 2:
        sim_open(conn, "/nobody/speaks/this/1.0.0", SS_OTHER, bytes_of(NULL, 0));
        break;
    case 3:
        sim_open(conn, IDENT_PUSH_PROTOCOL, SS_OTHER, bytes_of(bytes, sizeof(bytes)));
        break;
    case 4:
        st = sim_open(conn, HOP_PROTOCOL, SS_OTHER, bytes_str("\x02\x08\x02"));
        if (st != NULL && chance(c, 50))
            sim_stream_rst(st);
        break;
    default:
        yamux_put_ping(frame, (uint32_t)below(c, 1000));
        sim_put_plain(conn, bytes_of(frame, sizeof(frame)));
    }
}

/* It asks and asks, and does not read the answers. */
static void flood(struct sim_conn *conn)
{
    static const uint8_t pings[32 * 4096];

    conn->deaf = true;
    for (int i = 0; i < 8; i++)
        sim_open(conn, PING_PROTOCOL, SS_PING, bytes_of(pings, 2048));
    for (size_t i = 0; i < conn->streams_n; i++)
        if (conn->streams[i]->kind == SS_PING)
            sim_stream_put(conn->streams[i], bytes_of(pings, sizeof(pings)), false);
}

static void garbage(struct crowd *c)
{
    struct sim *s = c->s;
    struct sim_conn *conn =
        s->conns_n > 0 ? s->conns[s->conns_n - 1 - below(c, min_sz(s->conns_n, 8))] : NULL;
    uint8_t bytes[300];
    size_t n = 1 + (size_t)below(c, sizeof(bytes));

    if (conn == NULL || conn->state == SC_CLOSED)
        return;
    conn->excused = true;
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)below(c, 256);
    if (chance(c, 60)) { /* a header that looks like one, so that it gets further */
        bytes[0] = 0;
        bytes[1] = (uint8_t)below(c, 5);
        memset(bytes + 2, 0, min_sz(n > 2 ? n - 2 : 0, 6));
        bytes[3] = (uint8_t)below(c, 16);
        bytes[7] = (uint8_t)below(c, 12);
    }
    if (conn->state == SC_UP && chance(c, 10)) {
        flood(conn);
        return;
    }
    if (conn->state >= SC_MUXER && chance(c, 70))
        sim_put_plain(conn, bytes_of(bytes, n));
    else
        sim_put_raw(conn, bytes_of(bytes, n));
}

/* sluicectl looks in: shards answer between two turns, whatever they do. */
static void page(void *arg, uint32_t owner_id, const struct snap *snap)
{
    struct crowd *c = arg;

    if (owner_id != c->list_id || c->list_done)
        sim_break(c->s, "a page for nobody");
    for (unsigned i = 0; i < snap->rows && snap->kind == SNAP_CONNS; i++)
        if (snap->conn[i].shard >= SIM_SHARDS)
            sim_break(c->s, "a row of shard %u", snap->conn[i].shard);
    c->list_done = snap->end;
}

static void list(struct crowd *c)
{
    struct ops *ops = &c->s->control.ops;

    if (!c->list_done) {
        if (chance(c, 30)) {
            ops->list_cancel(ops->ctx, c->list_id);
            c->list_done = true;
        }
        return;
    }
    c->list_done = false;
    if (ops->list(ops->ctx, chance(c, 50) ? SNAP_CONNS : SNAP_CIRCUITS, ++c->list_id, page, c) != 0)
        c->list_done = true;
}

static void act(struct crowd *c)
{
    uint64_t what = below(c, 100);
    struct sim_conn *conn = any_conn(c);
    struct sim_stream *st;

    if (conn == NULL || what < 18) {
        come(c);
    } else if (what < 36) {
        if (conn->ident_idx != 0 || chance(c, 20))
            for (uint64_t n = chance(c, 5) ? 20 : 1; n > 0; n--)
                sim_reserve(conn);
    } else if (what < 72) {
        call(c, conn);
    } else if (what < 73) {
        list(c);
    } else if (what < 82) {
        small_talk(c, conn);
    } else if (what < 86) {
        st = any_stream(c, conn);
        if (st != NULL)
            sim_stream_rst(st);
    } else if (what < 91) {
        conn->deaf = true;
        conn->excused = conn->excused || c->slow;
        later(c, LATER_HEAR, below(c, 2000), NULL, conn);
    } else if (what < 96) {
        conn = c->s->conns[below(c, c->s->conns_n)]; /* also in the middle of a handshake */
        sim_hang_up(conn, (enum sim_hangup)below(c, 3));
    } else if (c->hostile) {
        garbage(c);
    } else {
        come(c);
    }
}

/* Running */

void crowd_init(struct crowd *c, struct sim *s)
{
    c->s = s;
    c->list_done = true;
    s->on_stop = on_stop;
    s->on_joined = on_joined;
    s->arg = c;
}

void crowd_run(struct crowd *c)
{
    struct sim *s = c->s;
    uint64_t end_ms;

    while (c->acts > 0) {
        while (c->acts > 0 && c->next_ms <= sim_now(s)) {
            act(c);
            if (--c->acts == c->drain_at && c->drain_at > 0) {
                atomic_fetch_add(&s->control.terms, 1);
                ring_wake(s->ring[SIM_SHARDS]);
            }
            c->next_ms = sim_now(s) + below(c, c->gap_ms + 1);
        }
        sim_net_alarm(s->net, c->next_ms);
        later_due(c);
        if (!sim_step(s))
            return;
    }
    sim_net_set_opts(s->net, (struct sim_opts){ 0 });
    for (size_t i = 0; i < s->conns_n; i++)
        s->conns[i]->deaf = false;
    end_ms = sim_now(s) + SETTLE_MS;
    while (sim_now(s) < end_ms && !sim_flows_settled(s)) {
        sim_net_alarm(s->net, end_ms);
        later_due(c);
        if (!sim_step(s))
            return;
    }
    sim_flows_verdict(s);
}
