/* tests/sim/test_sim_turn_tcp.c: peers' streams (RFC 6062) through the engine, by hand and by seed:
 * what a client sends on its data connection arrives at its peer and the other way round, byte for
 * byte, on one shard and across two. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_turn.h"

enum { PIPES_MAX = 8, PIECE = 4096 };

/* One data connection: 0 is the client's end, 1 the peer's. */
struct pipe {
    uint32_t key;
    struct sim_turn_end *end;
    int ep; /* -1: nobody there yet */
    uint64_t total[2], sent[2], got[2];
    bool last;                           /* the client has its say when the peer has had his */
    bool may_send[2], shut[2], ended[2]; /* ended: what this side reads has ended */
};

static struct config cfg;
static struct sim_turn t;
static struct pipe pipes[PIPES_MAX];
static unsigned pipes_n;

static uint8_t byte_of(const struct pipe *p, int way, uint64_t at)
{
    uint64_t z = (at / 8 + p->key) * 0x9e3779b97f4a7c15u + (unsigned)way;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    return (uint8_t)((z ^ z >> 27) >> at % 8 * 8);
}

static void got(struct pipe *p, int side, const uint8_t *at, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (at[i] != byte_of(p, !side, p->got[side] + i)) {
            sim_break(t.s, "byte %llu of a stream is wrong",
                      (unsigned long long)(p->got[side] + i));
            return;
        }
    p->got[side] += n;
    if (p->got[side] > p->sent[!side])
        sim_break(t.s, "a stream brings more than was sent");
}

static void on_raw(struct sim_turn_end *e, struct bytes in)
{
    struct pipe *p = e->arg;

    if (in.n > 0)
        got(p, 0, in.p, in.n);
    else
        p->ended[0] = p->may_send[0] = true;
}

static long put(struct pipe *p, int side, const uint8_t *at, size_t n)
{
    return side == 0 ? (long)sim_turn_emit_raw(p->end, at, n) : sim_send(t.s->net, p->ep, at, n);
}

static bool push_piece(struct pipe *p, int side)
{
    uint8_t piece[PIECE];
    size_t n = min_sz(PIECE, p->total[side] - p->sent[side]);
    long sent;

    for (size_t i = 0; i < n; i++)
        piece[i] = byte_of(p, side, p->sent[side] + i);
    sent = n > 0 ? put(p, side, piece, n) : 0;
    if (sent > 0)
        p->sent[side] += (uint64_t)sent;
    return sent == PIECE;
}

static void push(struct pipe *p, int side)
{
    if (!p->may_send[side] || p->shut[side] || (side == 0 && !p->end->open) ||
        (side == 1 && p->ep < 0))
        return;
    while (push_piece(p, side))
        ;
    if (p->sent[side] < p->total[side])
        return;
    p->shut[side] = true;
    sim_shut(t.s->net, side == 0 ? p->end->ep : p->ep);
}

/* What is for the peer may stand right behind a ConnectionBind (turn.md §12). */
static void on_asked(struct sim_turn_end *e)
{
    struct pipe *p = e->arg;

    if (p->last)
        return;
    p->may_send[0] = true;
    push(p, 0);
}

static void look(struct sim_turn *turn)
{
    for (unsigned i = 0; i < pipes_n; i++) {
        struct pipe *p = &pipes[i];
        uint8_t buf[PIECE];
        long n;

        p->may_send[0] |= p->end->raw && !p->last;
        push(p, 0);
        push(p, 1);
        while (p->ep >= 0 && !p->ended[1] &&
               (n = sim_recv(turn->s->net, p->ep, buf, PIECE)) != -EAGAIN)
            if (n > 0)
                got(p, 1, buf, (size_t)n);
            else
                p->ended[1] = true;
    }
}

static struct sim *world(uint64_t seed, struct sim_opts net)
{
    struct sim *s;

    sim_turn_config(&cfg, 64);
    cfg.turn_tcp_relay = true;
    s = sim_new(seed, net, &cfg);
    sim_turn_init(&t, s, &net);
    t.on_look = look;
    pipes_n = 0;
    return s;
}

static void ended(struct sim *s)
{
    sim_run_ms(s, SIM_TURN_SLACK_MS);
    SIM_OK(s);
    sim_end(s);
    SIM_OK(s);
    sim_turn_fini(&t);
    sim_free(s);
}

static int answer(struct sim_turn_client *c, struct sim_turn_ask ask, struct sim_turn_end *at)
{
    ask.lifetime_s = ask.method == STUN_REFRESH ? ask.lifetime_s : -1;
    sim_turn_do(c, &ask, at);
    SIM_UNTIL(c->t->s, !sim_turn_asking(c), 60000);
    return c->code;
}

static struct sim_turn_client *allocated(int shard)
{
    struct sim_turn_client *c = sim_turn_client(&t, 0, shard);

    sim_turn_end_close(c->at);
    c->tcp = true;
    c->at = sim_turn_end(c, shard);
    cr_assert(
        eq(int,
           answer(c, (struct sim_turn_ask){ .method = STUN_ALLOCATE, .relays_tcp = true }, NULL),
           TURN_OK),
        SIM_SEED(t.s));
    return c;
}

static int connected(struct sim_turn_client *c, unsigned peer)
{
    return answer(
        c, (struct sim_turn_ask){ .method = STUN_CONNECT, .peer = { peer }, .peers_n = 1 }, NULL);
}

/* A data connection that lands on `shard`, for what CONNECTION-ID names. */
static struct pipe *joined(struct sim_turn_client *c, uint32_t conn, int ep, int shard,
                           uint64_t bytes)
{
    struct pipe *p = &pipes[pipes_n++];
    struct sim_turn_end *e = sim_turn_end(c, shard);

    *p = (struct pipe){ .key = conn, .end = e, .ep = ep, .total = { bytes, bytes / 2 } };
    e->on_raw = on_raw;
    e->on_asked = on_asked;
    e->arg = p;
    p->may_send[1] = true;
    p->last = bytes % 2;
    cr_assert(
        eq(int, answer(c, (struct sim_turn_ask){ .method = STUN_CONNECTION_BIND, .conn = conn }, e),
           TURN_OK),
        SIM_SEED(t.s));
    return p;
}

static bool done(const struct pipe *p)
{
    if (getenv("SIM_VERBOSE"))
        fprintf(stderr, "%llu of %llu here%s, %llu of %llu there%s\n",
                (unsigned long long)p->got[0], (unsigned long long)p->total[1],
                p->ended[0] ? ", ended" : "", (unsigned long long)p->got[1],
                (unsigned long long)p->total[0], p->ended[1] ? ", ended" : "");
    return p->got[0] == p->total[1] && p->got[1] == p->total[0] && p->ended[0] && p->ended[1];
}

static int accepted(int listener, const struct sim_turn_client *c)
{
    struct netaddr from;
    int ep = -1;

    SIM_UNTIL(t.s, ep >= 0 || (ep = sim_far_accept(t.s->net, listener, &from)) >= 0, 5000);
    cr_assert(eq(int, memcmp(&from, &c->life->relayed[TURN_V4], sizeof(from)), 0));
    return ep;
}

static void carries(struct sim *s, int shard, uint64_t bytes)
{
    unsigned peer = sim_turn_peer(&t, 1, 7000, false);
    int listener = sim_far_listen(s->net, &t.peer[peer].at), ep;
    struct sim_turn_client *c = allocated(0);
    struct pipe *p;

    while (connected(c, peer) != TURN_OK) /* the network may refuse, or descriptors run out */
        cr_assert(eq(int, c->code, 447), SIM_SEED(s));
    ep = accepted(listener, c);
    p = joined(c, c->conn, ep, shard, bytes);
    SIM_UNTIL(s, done(p), 300000);
    ended(s);
}

Test(sim_turn_tcp, a_peers_stream_and_a_clients_are_one, .timeout = 20)
{
    carries(world(1, (struct sim_opts){ .socket_bytes = 16384 }), 0, 300000);
}

Test(sim_turn_tcp, a_data_connection_that_comes_to_another_shard_is_handed_over, .timeout = 20)
{
    carries(world(1, (struct sim_opts){ .socket_bytes = 16384 }), 1, 300000);
}

Test(sim_turn_tcp, who_has_heard_the_last_of_his_peer_may_still_answer, .timeout = 20)
{
    carries(world(1, (struct sim_opts){ .socket_bytes = 16384 }), 0, 300001);
}

Test(sim_turn_tcp, what_one_pass_may_not_move_is_moved_by_the_next, .timeout = 20)
{
    carries(world(1, (struct sim_opts){ .socket_bytes = 4 << 20 }), 0, 6 << 20);
}

Test(sim_turn_tcp, fifty_seeds_lose_no_byte, .timeout = 3600)
{
    static const unsigned socket_bytes[] = { 4096, 16384, 65536, 200000 };
    const char *first = getenv("SIM_FIRST"), *n = getenv("SIM_SEEDS");
    uint64_t from = first ? strtoull(first, NULL, 10) : 1, many = n ? strtoull(n, NULL, 10) : 50;

    for (uint64_t seed = from; seed < from + many; seed++)
        carries(world(seed, (struct sim_opts){ .short_send_pct = (unsigned)(seed * 7 % 40),
                                               .late_send_pct = (unsigned)(seed * 3 % 30),
                                               .short_recv_pct = (unsigned)(seed * 5 % 40),
                                               .enobufs_pct = (unsigned)(seed % 3 * 6),
                                               .lost_more_pct = (unsigned)(seed * 11 % 25),
                                               .cancel_data_pct = 50,
                                               .late_cqe_pct = (unsigned)(seed * 13 % 40),
                                               .cqe_delay_ms_max = 1 + (unsigned)(seed % 4),
                                               .bell_delay_ms_max = (unsigned)(seed % 5),
                                               .lend_pct = (unsigned)(seed % 3 * 50),
                                               .net_delay_ms_max = (unsigned)(seed % 7 * 5),
                                               .refuse_pct = (unsigned)(seed % 4 * 10),
                                               .socket_bytes = socket_bytes[seed % 4] }),
                (int)(seed / 4 % 2), 20000 + seed * 3001 % 100000);
}

Test(sim_turn_tcp, a_second_connection_to_a_peer_is_446_and_nobody_there_is_447, .timeout = 20)
{
    struct sim *s = world(1, (struct sim_opts){ 0 });
    unsigned peer = sim_turn_peer(&t, 1, 7000, false), none = sim_turn_peer(&t, 2, 7000, false);
    int listener = sim_far_listen(s->net, &t.peer[peer].at);
    struct sim_turn_client *c = allocated(0);

    cr_assert(eq(int, connected(c, peer), TURN_OK));
    accepted(listener, c);
    cr_assert(eq(int, connected(c, peer), 446));
    cr_assert(eq(int, connected(c, none), 447));
    ended(s);
}

static void sees_the_end(struct sim *s, int ep, uint64_t ms)
{
    char c;

    SIM_UNTIL(s, sim_recv(s->net, ep, &c, 1) != -EAGAIN, ms);
    cr_assert(le(long, sim_recv(s->net, ep, &c, 1), 0));
}

Test(sim_turn_tcp, a_peer_whom_nobody_joins_sees_the_end_after_thirty_seconds, .timeout = 20)
{
    struct sim *s = world(1, (struct sim_opts){ 0 });
    unsigned peer = sim_turn_peer(&t, 1, 7000, false);
    int listener = sim_far_listen(s->net, &t.peer[peer].at), ep;
    struct sim_turn_client *c = allocated(0);
    char b;

    cr_assert(eq(int, connected(c, peer), TURN_OK));
    ep = accepted(listener, c);
    sim_run_ms(s, TURN_CONN_MS - 1000);
    cr_assert(eq(long, sim_recv(s->net, ep, &b, 1), -EAGAIN));
    sees_the_end(s, ep, 2000);
    ended(s);
}

Test(sim_turn_tcp, data_connections_end_with_the_clients_stream, .timeout = 20)
{
    struct sim *s = world(1, (struct sim_opts){ 0 });
    unsigned peer = sim_turn_peer(&t, 1, 7000, false);
    int listener = sim_far_listen(s->net, &t.peer[peer].at), ep;
    struct sim_turn_client *c = allocated(0);
    struct pipe *p;

    cr_assert(eq(int, connected(c, peer), TURN_OK));
    ep = accepted(listener, c);
    p = joined(c, c->conn, ep, 0, 1000);
    p->may_send[0] = p->may_send[1] = false;
    sim_close(s->net, c->at->ep);
    c->at->open = false;
    SIM_UNTIL(s, p->ended[0] && p->ended[1], 2000);
    cr_assert(eq(uint, turn_ports_used(s->turn_host.ports[TURN_V4]), 0));
    ended(s);
}

Test(sim_turn_tcp, who_connects_to_a_relayed_address_needs_a_permission, .timeout = 20)
{
    struct sim *s = world(1, (struct sim_opts){ 0 });
    unsigned peer = sim_turn_peer(&t, 1, 7000, false), other = sim_turn_peer(&t, 2, 7000, false);
    struct sim_turn_client *c = allocated(0);
    struct pipe *p;
    int ep;

    cr_assert(eq(int,
                 answer(c,
                        (struct sim_turn_ask){
                            .method = STUN_CREATE_PERMISSION, .peer = { peer }, .peers_n = 1 },
                        NULL),
                 TURN_OK));
    sees_the_end(s, sim_connect(s->net, &c->life->relayed[TURN_V4], &t.peer[other].at), 1000);
    cr_assert(eq(uint, c->attempt, 0));
    ep = sim_connect(s->net, &c->life->relayed[TURN_V4], &t.peer[peer].at);
    SIM_UNTIL(s, c->attempt != 0, 1000);
    cr_assert(eq(int, memcmp(&c->attempt_peer, &t.peer[peer].at, sizeof(c->attempt_peer)), 0));
    p = joined(c, c->attempt, ep, 1, 50000);
    SIM_UNTIL(s, done(p), 60000);
    ended(s);
}
