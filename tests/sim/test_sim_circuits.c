/* tests/sim/test_sim_circuits.c: the real engine on the simulated kernel, by hand: what is hard to
 * do with real clients, because it needs an exact time, an exact byte or an exact shard. */
#include "tests/sim/sim_script.h"

Test(sim_circuit, carries_bytes_both_ways_and_ends_in_order, .timeout = 60)
{
    for (int cross = 0; cross < CROSS; cross++) {
        struct config cfg;

        sim_config(&cfg, NULL);
        struct sim *s = calm(&cfg);
        struct pair p = join(s, cross);

        sim_flow_start(p.source, 1000000, 16384, true);
        sim_flow_start(p.target, 600000, 262144, true);
        SIM_UNTIL(s, sim_flows_settled(s), 10000);
        SIM_UNTIL(s, !p.source->live && !p.target->live, 1000);
        cr_assert(not(p.source->rst_seen || p.target->rst_seen));
        ended(s);
    }
}

Test(sim_circuit, delivers_what_the_source_said_before_the_answer, .timeout = 60)
{
    for (int cross = 0; cross < CROSS; cross++) {
        struct config cfg;

        sim_config(&cfg, NULL);
        struct sim *s = calm(&cfg);
        struct sim_conn *from = client(s, SOURCE, 0), *to = client(s, TARGET, cross);
        struct sim_stream *st;

        reserved(to);
        s->on_stop = wait_with_it;
        st = sim_connect_to(from, sim_peer_id(s, TARGET));
        sim_flow_start(st, YAMUX_WINDOW + 100000, 5000, true);
        SIM_UNTIL(s, sim_newest(to, SS_STOP) && sim_newest(to, SS_STOP)->asked, 1000);
        sim_run_ms(s, 3000);
        cr_assert(eq(int, st->status, 0));
        cr_assert(lt(u64, st->tx->sent, YAMUX_WINDOW + 100000)); /* only what was promised */
        sim_stop_answer(sim_newest(to, SS_STOP), HOP_OK);
        SIM_UNTIL(s, sim_flows_settled(s) && st->tx->fin_got, 1000);
        ended(s);
    }
}

Test(sim_circuit, answers_203_when_the_target_does_not_answer_in_time, .timeout = 60)
{
    for (int cross = 0; cross < CROSS; cross++) {
        struct config cfg;
        struct sim_stream *stop;
        uint64_t from_ms;

        sim_config(&cfg, NULL);
        struct sim *s = calm(&cfg);
        struct sim_conn *from = client(s, SOURCE, 0), *to = client(s, TARGET, cross);
        struct sim_stream *st;

        reserved(to);
        s->on_stop = wait_with_it;
        from_ms = sim_now(s);
        st = sim_connect_to(from, sim_peer_id(s, TARGET));
        SIM_UNTIL(s, sim_newest(to, SS_STOP) && sim_newest(to, SS_STOP)->asked, 1000);
        stop = sim_newest(to, SS_STOP);
        SIM_UNTIL(s, st->status != 0, 20000);
        cr_assert(eq(int, st->status, HOP_CONNECTION_FAILED));
        cr_assert(le(u64, from_ms + cfg.stop_timeout_ms, st->status_ms));
        cr_assert(le(u64, st->status_ms, from_ms + cfg.stop_timeout_ms + TOLERANCE_MS));
        SIM_UNTIL(s, !stop->live, TOLERANCE_MS);
        cr_assert(stop->rst_seen);
        ended(s);
    }
}

Test(sim_circuit, a_source_that_gives_up_takes_the_stop_stream_along, .timeout = 60)
{
    for (int cross = 0; cross < CROSS; cross++)
        for (int how = 0; how < 3; how++) {
            struct config cfg;

            sim_config(&cfg, NULL);
            struct sim *s = calm(&cfg);
            struct sim_conn *from = client(s, SOURCE, 0), *to = client(s, TARGET, cross);
            struct sim_stream *st, *stop;

            reserved(to);
            s->on_stop = wait_with_it;
            st = sim_connect_to(from, sim_peer_id(s, TARGET));
            SIM_UNTIL(s, sim_newest(to, SS_STOP) && sim_newest(to, SS_STOP)->asked, 1000);
            stop = sim_newest(to, SS_STOP);
            if (how == 0)
                sim_stream_rst(st);
            else
                sim_hang_up(from, how == 1 ? HANG_FIN : HANG_RST);
            SIM_UNTIL(s, !stop->live, 100);
            cr_assert(stop->rst_seen);
            SIM_UNTIL(s, circuits_of(s) == 0, 100);
            ended(s);
        }
}

Test(sim_circuit, tries_the_second_home_when_the_first_connection_is_dying, .timeout = 60)
{
    static const uint8_t nonsense[12] = { 7, 7 };

    for (int cross = 0; cross < CROSS; cross++) {
        struct config cfg;

        sim_config(&cfg, NULL);
        struct sim *s = calm(&cfg);
        struct sim_conn *from = client(s, SOURCE, 0);
        struct sim_conn *older = client(s, TARGET, 0), *newer;
        struct sim_stream *st;

        reserved(older);
        newer = client(s, TARGET, cross);
        reserved(newer);
        newer->excused = newer->deaf = true; /* it does not read its GoAway, so the relay waits */
        sim_put_plain(newer, bytes_of(nonsense, sizeof(nonsense)));
        sim_run_ms(s, 100);
        cr_assert(eq(u32, reservations_of(s), 2));
        cr_assert(eq(int, connect_status(from, TARGET, &st), HOP_OK));
        cr_assert(sim_newest(older, SS_STOP) != NULL);
        sim_flow_start(st, 10000, 1000, true);
        SIM_UNTIL(s, sim_flows_settled(s) && st->tx->fin_got, 1000);
        ended(s);
    }
}

Test(sim_circuit, ends_when_half_closed_and_silent, .timeout = 60)
{
    for (int cross = 0; cross < CROSS; cross++)
        for (int side = 0; side < 2; side++) {
            struct config cfg;

            sim_config(&cfg, NULL);
            struct sim *s = calm(&cfg);
            struct pair p = join(s, cross);
            struct sim_stream *quits = side ? p.target : p.source;
            uint64_t from_ms = sim_now(s);

            p.source->excused = p.target->excused = true;
            sim_flow_start(quits, 100, 100, true);
            SIM_UNTIL(s, !p.source->live && !p.target->live, 3 * cfg.linger_ms);
            cr_assert(p.source->rst_seen && p.target->rst_seen);
            cr_assert(le(u64, from_ms + cfg.linger_ms / 2, p.source->ended_ms));
            cr_assert(le(u64, p.source->ended_ms, from_ms + 2 * cfg.linger_ms));
            ended(s);
        }
}

/* One direction is over and the other one talks: that is no silence. */
Test(sim_circuit, goes_on_half_closed_as_long_as_bytes_come, .timeout = 60)
{
    for (int cross = 0; cross < CROSS; cross++) {
        struct config cfg;

        sim_config(&cfg, NULL);
        struct sim *s = calm(&cfg);
        struct pair p = join(s, cross);
        struct sim_flow *f;

        sim_flow_start(p.source, 8, 8, true);
        f = sim_flow_start(p.target, 8, 8, false);
        for (int i = 0; i < 30; i++) {
            sim_run_ms(s, cfg.linger_ms / 4);
            f->total += 100;
        }
        f->fin = true;
        SIM_UNTIL(s, sim_flows_settled(s) && f->fin_got, 1000);
        cr_assert(eq(u64, f->got, 3008));
        ended(s);
    }
}

Test(sim_circuit, a_reset_reaches_the_other_side_at_once, .timeout = 60)
{
    for (int cross = 0; cross < CROSS; cross++)
        for (int side = 0; side < 2; side++)
            for (int conn = 0; conn < 2; conn++) {
                struct config cfg;

                sim_config(&cfg, NULL);
                struct sim *s = calm(&cfg);
                struct pair p = join(s, cross);
                struct sim_stream *quits = side ? p.target : p.source;
                struct sim_stream *other = side ? p.source : p.target;

                if (conn)
                    sim_hang_up(quits->conn, HANG_FIN);
                else
                    sim_stream_rst(quits);
                SIM_UNTIL(s, other->rst_seen, TOLERANCE_MS);
                SIM_UNTIL(s, circuits_of(s) == 0, TOLERANCE_MS);
                ended(s);
            }
}

/* A target that does not read holds up its own circuit and nobody else's. */
Test(sim_circuit, a_slow_reader_holds_a_window_and_no_more, .timeout = 60)
{
    for (int cross = 0; cross < CROSS; cross++) {
        struct config cfg;

        sim_config(&cfg, NULL);
        struct sim *s = calm(&cfg);
        struct pair p = join(s, cross);
        struct sim_conn *quick = client(s, OTHER, cross);
        struct sim_stream *st;

        p.to->deaf = true;
        sim_flow_start(p.source, 5000000, 16384, true);
        sim_run_ms(s, 2000);
        cr_assert(lt(u64, p.source->tx->sent, 2 * YAMUX_WINDOW));
        cr_assert(eq(sz, p.source->y.send_credit, 0));
        reserved(quick);
        cr_assert(eq(int, connect_status(p.from, OTHER, &st), HOP_OK));
        sim_flow_start(st, 2000000, 16384, true);
        SIM_UNTIL(s, st->tx->fin_got, 1000);
        p.to->deaf = false;
        SIM_UNTIL(s, sim_flows_settled(s), 5000);
        ended(s);
    }
}

/* Bytes and a reset in one record: across shards they are still staged when the leg ends. */
Test(sim_circuit, a_reset_right_behind_bytes_leaves_nothing_of_them, .timeout = 60)
{
    static const size_t sizes[] = { 8, 1000, RECORD_PLAIN_MAX - 2 * YAMUX_HEADER };

    for (int cross = 0; cross < CROSS; cross++)
        for (int side = 0; side < 2; side++)
            for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
                struct config cfg;

                sim_config(&cfg, NULL);
                struct sim *s = calm(&cfg);
                struct pair p = join(s, cross);
                struct sim_stream *quits = side ? p.target : p.source;
                struct sim_stream *other = side ? p.source : p.target;

                sim_flow_start(quits, sizes[i], sizes[i], false);
                sim_flow_pump(quits);
                sim_stream_rst(quits);
                SIM_UNTIL(s, other->rst_seen, TOLERANCE_MS);
                SIM_UNTIL(s, circuits_of(s) == 0, TOLERANCE_MS);
                for (unsigned k = 0; k < SIM_SHARDS; k++)
                    for (int size = 0; size < CHUNK_SIZES; size++)
                        cr_assert(eq(u32, s->shard[k].chunks.used[size], 0));
                ended(s);
            }
}

/* A target that lost its state says so, and the next source need not ask it (libp2p.md Q5). */
Test(sim_circuit, a_target_that_knows_of_no_reservation_has_none, .timeout = 60)
{
    for (int cross = 0; cross < CROSS; cross++) {
        struct config cfg;
        struct home homes[HOMES_PER_PEER];
        struct sim_stream *st;

        sim_config(&cfg, NULL);
        struct sim *s = calm(&cfg);
        struct sim_conn *from = client(s, SOURCE, 0), *to = client(s, TARGET, cross);

        reserved(to);
        s->on_stop = wait_with_it;
        st = sim_connect_to(from, sim_peer_id(s, TARGET));
        SIM_UNTIL(s, sim_newest(to, SS_STOP) && sim_newest(to, SS_STOP)->asked, 1000);
        sim_stop_answer(sim_newest(to, SS_STOP), HOP_NO_RESERVATION);
        SIM_UNTIL(s, st->status != 0, 1000);
        cr_assert(eq(int, st->status, HOP_CONNECTION_FAILED));
        SIM_UNTIL(s, reservations_of(s) == 0, TOLERANCE_MS);
        cr_assert(eq(sz, homes_find(s->d.homes, sim_peer_id(s, TARGET), homes), 0));
        s->on_stop = NULL;
        reserved(to); /* and it may ask for one again */
        cr_assert(eq(int, connect_status(from, TARGET, NULL), HOP_OK));
        ended(s);
    }
}

static uint64_t arrived(struct sim_stream *const *st, size_t n)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += st[i]->tx->got;
    return sum;
}

/* Ahead of a pong there is what is sealed, and what the socket holds; nothing that waits for its
 * turn (libp2p.md §20.3, §20.4). */
Test(sim_circuit, a_pong_passes_what_is_not_sealed_yet, .timeout = 60)
{
    enum { CIRCUITS = 8, SOCKET = 65536, VALUE = 0x70696e67 };

    for (int cross = 0; cross < CROSS; cross++) {
        struct config cfg;
        struct sim_stream *st[CIRCUITS];
        uint8_t frame[YAMUX_HEADER];

        sim_config(&cfg, NULL);
        cfg.circuits_per_peer_max = CIRCUITS;
        struct sim *s = calm(&cfg);
        struct pair p = join(s, cross);

        st[0] = p.source;
        for (size_t i = 1; i < CIRCUITS; i++)
            cr_assert(eq(int, connect_status(p.from, TARGET, &st[i]), HOP_OK));
        p.to->deaf = true;
        for (size_t i = 0; i < CIRCUITS; i++)
            sim_flow_start(st[i], 2 * YAMUX_WINDOW, 16384, true);
        sim_run_ms(s, 1000);
        cr_assert(eq(u64, arrived(st, CIRCUITS), 0));
        yamux_put_ping(frame, VALUE);
        sim_put_plain(p.to, bytes_of(frame, sizeof(frame)));
        sim_run_ms(s, 100);
        p.to->deaf = false;
        SIM_UNTIL(s, p.to->pongs == 1, 1000);
        cr_assert(eq(u32, p.to->pong, VALUE));
        cr_assert(lt(u64, arrived(st, CIRCUITS), TX_HIGH + RECORD_SEALED_MAX + 2 * SOCKET));
        SIM_UNTIL(s, sim_flows_settled(s), 10000);
        ended(s);
    }
}

/* More mail than one shard does for another in a turn: the owner is woken for what is left. */
Test(sim_circuit, twenty_small_flows_at_once_reach_a_shard_that_sleeps, .timeout = 60)
{
    enum { FLOWS = LEND_MAIL_MAX + 4 };
    struct config cfg;

    sim_config(&cfg, NULL);
    cfg.circuits_per_peer_max = FLOWS;
    struct sim *s = calm(&cfg);
    struct sim_conn *from = client(s, SOURCE, 0), *to = client(s, TARGET, LENT);
    struct sim_stream *st[FLOWS];

    reserved(to);
    for (int i = 0; i < FLOWS; i++)
        cr_assert(eq(int, connect_status(from, TARGET, &st[i]), HOP_OK));
    sim_run_ms(s, 1000); /* everybody sleeps */
    for (int i = 0; i < FLOWS; i++)
        sim_flow_start(st[i], 100, 100, false);
    SIM_UNTIL(s, sim_flows_settled(s), 100);
    cr_assert(lt(u64, 0, sim_net_counts(s->net)->lent));
    ended(s);
}

/* Each record ends in a byte for another sink than the one before: what is being gathered moves on
 * with each, and must not move past the end of scratch. */
Test(sim_circuit, records_that_change_their_sink_stay_in_scratch, .timeout = 60)
{
    enum { R = RECORD_PLAIN_MAX - 13, RECS = 7 };
    static const uint8_t zero[R];
    struct config cfg;

    sim_config(&cfg, NULL); /* seed 2: receive buffers of RECV_BUF_BYTES */
    struct sim *s = sim_new(2, (struct sim_opts){ .socket_bytes = 262144 }, &cfg);
    struct sim_conn *from = client(s, SOURCE, 0), *a = client(s, TARGET, 0),
                    *b = client(s, OTHER, 0);
    struct sim_stream *st[2];

    reserved(a);
    reserved(b);
    cr_assert(eq(int, connect_status(from, TARGET, &st[0]), HOP_OK));
    cr_assert(eq(int, connect_status(from, OTHER, &st[1]), HOP_OK));
    sim_run_ms(s, 100);
    from->record_max = R;
    from->excused = a->excused = b->excused = st[0]->excused = st[1]->excused = true;
    for (int i = 0; i < RECS; i++) {
        /* A frame of a stream that does not exist, and behind it one byte of one that does. */
        uint8_t head[12] = { 0, 0, 0, 0, 0, 0, 0x77, 0x77, 0, 0, (R - 25) >> 8, (R - 25) & 255 };
        uint8_t d[12];

        sim_put_plain(from, bytes_of(head, 12));
        sim_put_plain(from, bytes_of(zero, R - 25));
        yamux_put_data(&st[i % 2]->y, d, 1, 0);
        sim_put_plain(from, bytes_of(d, 12));
        sim_put_plain(from, bytes_of(zero, 1));
    }
    sim_conn_look(from);
    sim_run_ms(s, 100);
    cr_assert(eq(u64, STAT_GET(&s->shard[0].stats, bytes_src_to_dst), RECS));
    ended(s);
}
