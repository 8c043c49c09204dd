/* tests/sim/test_sim_limits.c: limits and deadlines, to the byte and to the tick of the wheel. */
#include "proto/ident.h"
#include "tests/sim/sim_script.h"

static struct sim *with(const struct config *cfg, uint64_t seed, struct sim_opts o)
{
    return sim_new(seed, o, cfg);
}

/* Time */

Test(sim_deadline, a_reservation_expires_on_time_and_connect_is_204_then, .timeout = 60)
{
    for (int cross = 0; cross < CROSS; cross++) {
        struct config cfg;
        struct home homes[HOMES_PER_PEER];
        uint64_t expires_ms;

        sim_config(&cfg, NULL);
        struct sim *s = calm(&cfg);
        struct sim_conn *from, *to = client(s, TARGET, cross);
        struct sim_stream *st = reserved(to);

        expires_ms = st->status_ms + cfg.hop.reservation_ms;
        cr_assert(eq(u64, st->reply.expire_unix_s,
                     1700000000 + (st->status_ms + cfg.hop.reservation_ms) / 1000));
        sim_run_ms(s, expires_ms - sim_now(s) - TOLERANCE_MS - 100);
        from = client(s, SOURCE, 0);
        cr_assert(eq(int, connect_status(from, TARGET, NULL), HOP_OK));
        while (sim_now(s) < expires_ms - TOLERANCE_MS)
            sim_run_ms(s, 1);
        cr_assert(eq(sz, homes_find(s->d.homes, sim_peer_id(s, TARGET), homes), 1));
        sim_run_ms(s, 2 * TOLERANCE_MS);
        cr_assert(eq(sz, homes_find(s->d.homes, sim_peer_id(s, TARGET), homes), 0));
        cr_assert(eq(int, connect_status(from, TARGET, NULL), HOP_NO_RESERVATION));
        reserved(to); /* and it may come back */
        cr_assert(eq(int, connect_status(from, TARGET, NULL), HOP_OK));
        ended(s);
    }
}

Test(sim_deadline, a_renewal_moves_the_expiry, .timeout = 60)
{
    struct config cfg;

    sim_config(&cfg, NULL);
    struct sim *s = calm(&cfg);
    struct sim_conn *to = client(s, TARGET, 1);

    reserved(to);
    for (int i = 0; i < 4; i++) {
        sim_run_ms(s, cfg.hop.reservation_ms - 1000);
        reserved(to);
        cr_assert(eq(u32, reservations_of(s), 1));
    }
    cr_assert(eq(int, connect_status(client(s, SOURCE, 0), TARGET, NULL), HOP_OK));
    ended(s);
}

Test(sim_deadline, the_duration_limit_ends_a_busy_circuit_on_time, .timeout = 60)
{
    for (int cross = 0; cross < CROSS; cross++) {
        struct config cfg;

        sim_config(&cfg, NULL);
        cfg.circuit_limit = (struct hop_limit){ true, 5, 0 };
        struct sim *s = calm(&cfg);
        struct pair p = join(s, cross);
        uint64_t ends_ms = p.source->status_ms + 5000;

        cr_assert(eq(u32, p.source->reply.limit.duration_s, 5));
        p.source->excused = p.target->excused = true;
        sim_flow_start(p.source, 8, 1000, false);
        sim_flow_start(p.target, 8, 1000, false);
        while (p.source->live && p.target->live && sim_now(s) < ends_ms + 1000) {
            p.source->tx->total += 500; /* both directions are busy all the time */
            p.target->tx->total += 500;
            sim_run_ms(s, 5);
        }
        sim_run_ms(s, 50);
        SIM_OK(s);
        cr_assert(p.source->rst_seen && p.target->rst_seen);
        cr_assert(le(u64, ends_ms, p.source->ended_ms));
        cr_assert(le(u64, p.source->ended_ms, ends_ms + TOLERANCE_MS));
        cr_assert(le(u64, p.target->ended_ms, ends_ms + TOLERANCE_MS));
        cr_assert(eq(u64, STAT_GET(&s->shard[0].stats, circuits_closed_limit_time), 1));
        ended(s);
    }
}

/* The limit's timer may be armed by another shard's thread, while the source's own sleeps until
 * some later deadline. */
Test(sim_deadline, the_duration_limit_ends_an_idle_circuit_on_time, .timeout = 60)
{
    for (int cross = 0; cross < CROSS; cross++) {
        struct config cfg;

        sim_config(&cfg, NULL);
        cfg.circuit_limit = (struct hop_limit){ true, 2, 0 };
        struct sim *s = calm(&cfg);
        struct pair p = join(s, cross);
        uint64_t ends_ms = p.source->status_ms + 2000;

        p.source->excused = p.target->excused = true;
        SIM_UNTIL(s, !p.source->live && !p.target->live, 2000 + 2 * TOLERANCE_MS);
        cr_assert(le(u64, ends_ms, p.source->ended_ms));
        cr_assert(le(u64, p.source->ended_ms, ends_ms + TOLERANCE_MS));
        ended(s);
    }
}

Test(sim_deadline, a_handshake_that_stands_still_is_closed_on_time, .timeout = 60)
{
    for (int stage = 0; stage < 2; stage++) {
        struct config cfg;
        struct netaddr at = sim_host(1, 1);
        uint64_t from_ms;

        sim_config(&cfg, NULL);
        struct sim *s = calm(&cfg);
        struct sim_conn *c = sim_dial(s, SOURCE, &at, 0);

        from_ms = sim_now(s);
        c->out.n = stage ? 22 : 0; /* silence, or a header and then silence */
        SIM_UNTIL(s, c->state == SC_CLOSED, 2 * cfg.handshake_timeout_ms);
        cr_assert(le(u64, from_ms + cfg.handshake_timeout_ms, c->closed_ms));
        cr_assert(le(u64, c->closed_ms, from_ms + cfg.handshake_timeout_ms + TOLERANCE_MS));
        cr_assert(eq(u64, STAT_GET(&s->shard[0].stats, handshake_timeouts), 1));
        ended(s);
    }
}

Test(sim_deadline, an_idle_connection_is_closed_and_a_reserved_one_stays, .timeout = 60)
{
    struct config cfg;
    uint64_t from_ms;

    sim_config(&cfg, NULL);
    struct sim *s = calm(&cfg);
    struct sim_conn *idle = client(s, SOURCE, 0), *kept = client(s, TARGET, 0);

    idle->excused = true; /* it need not explain */
    from_ms = sim_now(s);
    reserved(kept);
    SIM_UNTIL(s, idle->state == SC_CLOSED, 3 * cfg.idle_timeout_ms);
    cr_assert(idle->go_away);
    cr_assert(le(u64, from_ms + cfg.idle_timeout_ms - 1000, idle->closed_ms));
    cr_assert(le(u64, idle->closed_ms, from_ms + cfg.idle_timeout_ms + 1000));
    sim_run_ms(s, 3 * cfg.idle_timeout_ms);
    cr_assert(eq(int, kept->state, SC_UP));
    ended(s);
}

Test(sim_deadline, dusk_closes_a_refused_client_after_a_second, .timeout = 60)
{
    struct config cfg;
    struct sim_stream *st;

    sim_config(&cfg, "dusk");
    cfg.hop.reservations_max = 1;
    struct sim *s = calm(&cfg);
    struct sim_conn *first = client(s, SOURCE, 0), *second = client(s, TARGET, 1);

    second->excused = true;
    reserved(first);
    st = sim_reserve(second);
    SIM_UNTIL(s, second->state == SC_CLOSED, 10000);
    cr_assert(eq(int, st->status, HOP_RESOURCE_LIMIT_EXCEEDED));
    cr_assert(second->go_away);
    cr_assert(le(u64, st->status_ms + REFUSED_CLOSE_MS, second->closed_ms));
    cr_assert(le(u64, second->closed_ms, st->status_ms + REFUSED_CLOSE_MS + TOLERANCE_MS));
    cr_assert(eq(int, first->state, SC_UP));
    ended(s);
}

/* Bytes */

/* What arrives is N bytes, not one more and not one less, whatever the kernel does on the way. */
static void byte_limit(uint64_t seed, int cross, uint64_t n, size_t frame_max)
{
    struct config cfg;
    struct sim_opts faults = { .short_send_pct = 30, .short_recv_pct = 30, .lost_more_pct = 10 };

    sim_config(&cfg, NULL);
    cfg.circuit_limit = (struct hop_limit){ true, 0, n };
    struct sim *s = with(&cfg, seed, faults);
    struct pair p = join(s, cross);

    p.source->excused = p.target->excused = true;
    cr_assert(eq(u64, p.source->reply.limit.data_bytes, n));
    sim_flow_start(p.target, n, frame_max, false); /* its own direction is full, and not over */
    SIM_UNTIL(s, p.source->rx && p.source->rx->got == n, 5000);
    sim_run_ms(s, 100);
    cr_assert(p.source->live && p.target->live);
    sim_flow_start(p.source, n + 1, frame_max, false);
    SIM_UNTIL(s, !p.source->live && !p.target->live, 5000);
    cr_assert(p.source->rst_seen && p.target->rst_seen);
    cr_assert(eq(u64, p.target->rx->got, n), "seed %llu", (unsigned long long)seed);
    SIM_UNTIL(s, circuits_of(s) == 0, 100);
    cr_assert(eq(u64, STAT_GET(&s->shard[0].stats, circuits_closed_limit_bytes), 1));
    ended(s);
}

Test(sim_limit, n_bytes_pass_in_each_direction_and_not_one_more, .timeout = 60)
{
    for (int cross = 0; cross < CROSS; cross++)
        for (uint64_t seed = 1; seed <= 4; seed++) {
            byte_limit(seed, cross, 131072, 16384);
            byte_limit(seed, cross, 1000, 1);
            byte_limit(seed, cross, 77777, YAMUX_WINDOW);
        }
}

Test(sim_limit, n_bytes_pass_in_sum_and_not_one_more, .timeout = 60)
{
    enum { N = 50000 };

    for (int cross = 0; cross < CROSS; cross++)
        for (uint64_t seed = 1; seed <= 8; seed++) {
            struct config cfg;

            sim_config(&cfg, NULL);
            cfg.circuit_limit = (struct hop_limit){ true, 0, N };
            cfg.byte_count = COUNT_SUM;
            struct sim *s = with(&cfg, seed, (struct sim_opts){ .short_send_pct = 30 });
            struct pair p = join(s, cross);

            p.source->excused = p.target->excused = true;
            sim_flow_start(p.target, 20000, 3000, false);
            SIM_UNTIL(s, p.source->rx && p.source->rx->got == 20000, 5000);
            sim_flow_start(p.source, N - 20000 + (seed % 2 ? 1 : 0), 3000, false);
            SIM_UNTIL(s, p.target->rx && p.target->rx->got == N - 20000, 5000);
            if (seed % 2) {
                SIM_UNTIL(s, !p.source->live && !p.target->live, 1000);
            } else { /* exactly N is within the limit */
                sim_run_ms(s, 1000);
                cr_assert(p.source->live && p.target->live);
                p.target->tx->total += 1;
                SIM_UNTIL(s, !p.source->live && !p.target->live, 1000);
            }
            cr_assert(eq(u64, p.source->rx->got + p.target->rx->got, N));
            ended(s);
        }
}

/* What the source says before the answer counts like all else. */
Test(sim_limit, bytes_before_the_answer_count, .timeout = 60)
{
    enum { N = 5000 };

    for (int cross = 0; cross < CROSS; cross++)
        for (unsigned over = 0; over < 2; over++) {
            struct config cfg;
            struct sim_stream *st, *stop;

            sim_config(&cfg, NULL);
            cfg.circuit_limit = (struct hop_limit){ true, 0, N };
            struct sim *s = calm(&cfg);
            struct sim_conn *from = client(s, SOURCE, 0), *to = client(s, TARGET, cross);

            reserved(to);
            s->on_stop = wait_with_it;
            st = sim_connect_to(from, sim_peer_id(s, TARGET));
            SIM_UNTIL(s, (stop = sim_newest(to, SS_STOP)) != NULL && stop->asked, 1000);
            st->excused = stop->excused = true;
            sim_flow_start(st, N + over, 1000, false);
            sim_run_ms(s, 100);
            cr_assert(eq(int, st->rst_seen, over), "one byte too many ends it at once");
            if (!over) {
                sim_stop_answer(stop, HOP_OK);
                SIM_UNTIL(s, stop->rx && stop->rx->got == N, 1000);
                cr_assert(st->live && stop->live);
                st->tx->total++;
                SIM_UNTIL(s, st->rst_seen && stop->rst_seen, 1000);
                cr_assert(eq(u64, stop->rx->got, N));
            }
            SIM_UNTIL(s, circuits_of(s) == 0, TOLERANCE_MS);
            ended(s);
        }
}

/* Counts */

Test(sim_limit, a_full_table_renews_and_refuses, .timeout = 60)
{
    struct config cfg;
    struct sim_stream *st;

    sim_config(&cfg, NULL);
    cfg.hop.reservations_max = 3;
    struct sim *s = calm(&cfg);
    struct sim_conn *c[4];

    for (int i = 0; i < 4; i++)
        c[i] = client(s, 1 + i, i % 2);
    for (int i = 0; i < 3; i++)
        reserved(c[i]);
    for (int round = 0; round < 3; round++) {
        st = sim_reserve(c[3]);
        SIM_UNTIL(s, st->status != 0, 1000);
        cr_assert(eq(int, st->status, HOP_RESERVATION_REFUSED));
        for (int i = 0; i < 3; i++)
            reserved(c[i]); /* whatever the table says, a renewal is granted */
        cr_assert(eq(u32, reservations_of(s), 3));
    }
    sim_hang_up(c[0], HANG_RST);
    SIM_UNTIL(s, reservations_of(s) == 2, 1000);
    reserved(c[3]); /* the slot is free at once */
    ended(s);
}

Test(sim_limit, circuits_of_a_peer_and_in_total_are_201, .timeout = 60)
{
    for (int total = 0; total < 2; total++) {
        struct config cfg;
        struct sim_stream *st[3];

        sim_config(&cfg, NULL);
        *(total ? &cfg.circuits_max : &cfg.circuits_per_peer_max) = 2;
        struct sim *s = calm(&cfg);
        struct sim_conn *from = client(s, SOURCE, 0), *to = client(s, TARGET, 1);

        reserved(to);
        for (int i = 0; i < 2; i++)
            cr_assert(eq(int, connect_status(from, TARGET, &st[i]), HOP_OK));
        cr_assert(eq(int, connect_status(from, TARGET, NULL), HOP_RESOURCE_LIMIT_EXCEEDED));
        /* Another source has room for one, and the target has not: that counts nowhere. */
        cr_assert(eq(int, connect_status(client(s, OTHER, 0), TARGET, NULL),
                     HOP_RESOURCE_LIMIT_EXCEEDED));
        sim_stream_rst(st[0]);
        SIM_UNTIL(s, circuits_of(s) == 1, 100);
        cr_assert(eq(int, connect_status(from, TARGET, &st[2]), HOP_OK));
        ended(s);
    }
}

/* dusk.md §14: the oldest goes, never the newest, and of the pair that has most. */
Test(sim_limit, circuits_of_a_peer_make_room_where_they_are_shed, .timeout = 60)
{
    for (int shard = 0; shard < 2; shard++) {
        struct config cfg;
        struct sim_stream *st[5], *first;

        sim_config(&cfg, "dusk");
        cr_assert(eq(int, cfg.circuits_full, FULL_SHED));
        cfg.circuits_per_peer_max = 3;
        struct sim *s = calm(&cfg);
        struct sim_conn *from = client(s, SOURCE, 0), *to = client(s, TARGET, shard);

        reserved(to);
        cr_assert(eq(int, connect_status(client(s, OTHER, 1), TARGET, &first), HOP_OK));
        for (int i = 0; i < 5; i++) { /* from the third on the target has one too many */
            cr_assert(eq(int, connect_status(from, TARGET, &st[i]), HOP_OK));
            SIM_UNTIL(s, circuits_of(s) == (i < 2 ? 2u + (unsigned)i : 3u), 1000);
            for (int k = 0; k <= i; k++)
                cr_expect(eq(int, st[k]->rst_seen, k + 2 <= i), "circuit %d after %d", k, i);
            cr_expect(not(first->rst_seen), "it is older than all, and the only one of its pair");
        }
        ended(s);
    }
}

Test(sim_limit, connections_per_address_subnet_peer_and_in_total_hold, .timeout = 60)
{
    for (int which = 0; which < 4; which++) {
        struct config cfg;
        uint32_t *max[] = { &cfg.conns_per_ip_max, &cfg.conns_per_subnet_max,
                            &cfg.conns_per_peer_max, &cfg.conns_max };
        struct sim_conn *c[5];

        sim_config(&cfg, NULL);
        *max[which] = 3;
        struct sim *s = calm(&cfg);

        for (unsigned i = 0; i < 5; i++) {
            struct netaddr at = sim_host(which < 2 ? 1 : i, which == 0 ? 1 : i);

            c[i] = sim_dial(s, which == 2 ? SOURCE : i, &at, (int)(i % 2));
            sim_run_ms(s, 500);
        }
        for (int i = 0; i < 5; i++)
            cr_assert(eq(int, c[i]->state, i < 3 ? SC_UP : SC_CLOSED), "limit %d, %d", which, i);
        sim_hang_up(c[0], HANG_FIN);
        sim_run_ms(s, 500);
        client(s, which == 2 ? SOURCE : 9, 1);
        ended(s);
    }
}

/* Drain */

Test(sim_drain, refuses_reserve_lets_circuits_run_and_ends_at_its_deadline, .timeout = 60)
{
    for (int cross = 0; cross < CROSS; cross++) {
        struct config cfg;
        struct sim_stream *st;
        uint64_t from_ms;

        sim_config(&cfg, NULL);
        cfg.drain_s = 6;
        struct sim *s = calm(&cfg);
        struct pair p = join(s, cross);

        from_ms = sim_now(s);
        atomic_fetch_add(&s->control.terms, 1);
        ring_wake(s->ring[SIM_SHARDS]);
        sim_run_ms(s, 300);
        cr_assert(eq(ptr, sim_dial(s, OTHER, &(struct netaddr){ .port = 1 }, -1), NULL),
                  "the listeners are closed");
        st = sim_reserve(p.to);
        SIM_UNTIL(s, st->status != 0, 1000);
        cr_assert(eq(int, st->status, HOP_RESERVATION_REFUSED));
        sim_flow_start(p.source, 300000, 5000, false);
        sim_flow_start(p.target, 300000, 5000, false);
        SIM_UNTIL(s, sim_flows_settled(s), 3000);
        p.from->excused = p.to->excused = true;
        SIM_UNTIL(s, p.from->state == SC_CLOSED && p.to->state == SC_CLOSED, 10000);
        cr_assert(p.from->go_away && p.to->go_away);
        cr_assert(le(u64, from_ms + 6000, p.from->closed_ms));
        cr_assert(le(u64, p.from->closed_ms, from_ms + 6000 + 1000));
        ended(s);
    }
}

Test(sim_drain, ends_early_when_the_last_circuit_does, .timeout = 60)
{
    struct config cfg;
    uint64_t from_ms;

    sim_config(&cfg, NULL);
    cfg.drain_s = 600;
    struct sim *s = calm(&cfg);
    struct pair p = join(s, 1);

    from_ms = sim_now(s);
    p.from->excused = p.to->excused = true;
    atomic_fetch_add(&s->control.terms, 1);
    ring_wake(s->ring[SIM_SHARDS]);
    sim_run_ms(s, 5000);
    cr_assert(p.source->live);
    sim_stream_rst(p.source);
    SIM_UNTIL(s, s->ended[SIM_SHARDS], 5000);
    cr_assert(le(u64, sim_now(s), from_ms + 9000));
    ended(s);
}

Test(sim_limit, a_client_that_never_reads_its_pongs_is_closed, .timeout = 60)
{
    static const uint8_t pings[YAMUX_WINDOW];
    struct config cfg;

    sim_config(&cfg, NULL);
    struct sim *s = calm(&cfg);
    struct sim_conn *c = client(s, SOURCE, 0);

    c->deaf = c->excused = true;
    for (int i = 0; i < 2; i++) {
        struct sim_stream *st = sim_open(c, PING_PROTOCOL, SS_PING, bytes_of(NULL, 0));

        sim_stream_put(st, bytes_of(pings, sizeof(pings)), false);
    }
    SIM_UNTIL(s, STAT_GET(&s->shard[0].stats, slow_closed) == 1, 1000);
    SIM_UNTIL(s, s->shard[0].conns.live == 0, 1000);
    ended(s);
}

/* Access lists (libp2p.md §11.6) */

static struct acl_rule deny(unsigned scope, unsigned ident, bool by_peer, struct sim *s)
{
    struct acl_rule r = { .deny = true, .by_peer = by_peer, .scopes = ACL_IN(scope) };
    struct netaddr at = sim_host(ident, ident);

    r.peer = *sim_peer_id(s, ident);
    memcpy(r.net.ip, at.ip, sizeof(r.net.ip));
    r.net.bits = 128;
    return r;
}

static void enforce(struct sim *s, struct acl_rule r)
{
    s->cfg.acl = acl_new(&r, 1);
    cr_assert(s->cfg.acl != NULL);
    atomic_store(&s->d.acl, s->cfg.acl);
}

static void ended_with_list(struct sim *s)
{
    struct acl *acl = s->cfg.acl;

    ended(s);
    acl_free(acl);
}

Test(sim_access, a_denied_address_is_told_nothing_and_a_denied_peer_who_we_are, .timeout = 60)
{
    for (int by_peer = 0; by_peer < 2; by_peer++)
        for (int allow = 0; allow < 2; allow++) {
            struct config cfg;

            sim_config(&cfg, NULL);
            struct sim *s = calm(&cfg);
            struct acl_rule r = deny(ACL_CONN, allow ? TARGET : SOURCE, by_peer, s);
            struct netaddr at = sim_host(SOURCE, SOURCE);
            struct sim_conn *c;

            r.deny = !allow;
            enforce(s, r);
            c = sim_dial(s, SOURCE, &at, 0);
            SIM_UNTIL(s, c->state == SC_CLOSED, 100);
            cr_assert(eq(u64, STAT_GET(&s->shard[0].stats, conns_denied), 1));
            cr_assert(eq(u64, STAT_GET(&s->shard[0].stats, handshakes_ok), 0));
            cr_assert(eq(int, STAT_GET(&s->shard[0].stats, tx_bytes) > 0, by_peer));
            reserved(client(s, TARGET, 1));
            ended_with_list(s);
        }
}

static enum hop_status reserve_status(struct sim_conn *c)
{
    struct sim_stream *st = sim_reserve(c);

    SIM_UNTIL(c->s, st->status != 0, 1000);
    return st->status;
}

/* A rule holds in its scope, and in no other. */
Test(sim_access, reserve_and_both_ends_of_connect_ask_the_list, .timeout = 60)
{
    for (unsigned scope = ACL_RESERVE; scope <= ACL_CONNECT_DST; scope++)
        for (int by_peer = 0; by_peer < 2; by_peer++) {
            bool dst = scope == ACL_CONNECT_DST && by_peer; /* its address is not asked */
            bool src = scope == ACL_CONNECT_SRC;
            struct config cfg;

            sim_config(&cfg, NULL);
            struct sim *s = calm(&cfg);

            enforce(s, deny(scope, scope == ACL_CONNECT_DST ? TARGET : SOURCE, by_peer, s));
            struct sim_conn *from = client(s, SOURCE, 0), *to = client(s, TARGET, 1);
            struct sim_conn *other = client(s, OTHER, 0);

            cr_assert(eq(int, reserve_status(from),
                         scope == ACL_RESERVE ? HOP_RESERVATION_REFUSED : HOP_OK));
            reserved(to);
            reserved(other);
            cr_assert(eq(int, connect_status(from, TARGET, NULL),
                         src || dst ? HOP_PERMISSION_DENIED : HOP_OK));
            cr_assert(
                eq(int, connect_status(other, TARGET, NULL), dst ? HOP_PERMISSION_DENIED : HOP_OK));
            cr_assert(eq(int, connect_status(to, OTHER, NULL), HOP_OK));
            ended_with_list(s);
        }
}
