/* tests/sim/test_sim_memory.c: what peers hold while memory is short, and who goes then. */
#include "tests/sim/sim_script.h"

/* A megabyte of buffers for each shard: 47 large chunks and 128 small ones. */
static struct sim *poor(void)
{
    struct config cfg;

    sim_config(&cfg, NULL);
    cfg.buffer_bytes_max = 2 << 20;
    return calm(&cfg);
}

/* Targets that never read hold all the chunks that make records; when that is noticed, who
 * reads gets them back. */
Test(sim_memory, who_never_reads_is_closed_while_memory_is_short, .timeout = 60)
{
    struct sim *s = poor();
    struct sim_conn *from = client(s, SOURCE, 0), *good = client(s, OTHER, 0), *deaf[3];
    struct sim_stream *st, *to_deaf[3];
    uint64_t began_ms;

    reserved(good);
    cr_assert(eq(int, connect_status(from, OTHER, &st), HOP_OK));
    for (unsigned i = 0; i < ARRAY_LEN(deaf); i++) {
        deaf[i] = client(s, OTHER + 1 + i, 0);
        reserved(deaf[i]);
        cr_assert(eq(int, connect_status(from, OTHER + 1 + i, &to_deaf[i]), HOP_OK));
        deaf[i]->deaf = deaf[i]->excused = to_deaf[i]->excused = true;
    }
    for (unsigned i = 0; i < ARRAY_LEN(deaf); i++)
        sim_flow_start(to_deaf[i], 1000000, 16384, false);
    began_ms = sim_now(s);
    while (sim_now(s) < began_ms + STALLED_SEND_MS + 2000) {
        uint8_t frame[YAMUX_HEADER];

        sim_run_ms(s, 500);
        yamux_put_ping(frame, 7); /* somebody has to bring turns */
        sim_put_plain(good, bytes_of(frame, sizeof(frame)));
    }
    SIM_OK(s);
    cr_assert(eq(u64, STAT_GET(&s->shard[0].stats, slow_closed), ARRAY_LEN(deaf)));
    cr_assert(eq(u32, s->shard[0].conns.live, 2));
    cr_assert(good->state == SC_UP && from->state == SC_UP);
    sim_flow_start(st, 2000000, 16384, true);
    SIM_UNTIL(s, st->tx->fin_got, 2000);
    ended(s);
}

static void open_with_half_a_name(struct sim_conn *c, unsigned from, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint8_t frame[YAMUX_HEADER + 1] = { 0, YAMUX_DATA, 0, YAMUX_SYN };

        put_u32(frame + 4, 1001 + 2 * (from + i));
        put_u32(frame + 8, 1);
        frame[YAMUX_HEADER] = 0x13; /* "/multistream/1.0.0\n" never comes */
        sim_put_plain(c, bytes_of(frame, sizeof(frame)));
    }
}

/* Each first byte of a message takes a chunk: whoever holds most of them must not decide that
 * memory is short for everybody. */
Test(sim_memory, half_messages_do_not_make_memory_short, .timeout = 60)
{
    struct sim *s = poor();
    struct sim_conn *foe = client(s, SOURCE, 0), *good = client(s, OTHER, 0);
    struct sim_stream *st;

    foe->excused = true;
    open_with_half_a_name(foe, 0, 400);
    sim_run_ms(s, 100);
    reserved(good);
    cr_assert(eq(int, connect_status(client(s, TARGET, 0), OTHER, &st), HOP_OK));
    ended(s);
}

/* Half an answer to STOP for which there is no room: the circuit is refused, and that is all. */
Test(sim_memory, half_an_answer_to_stop_while_memory_is_full, .timeout = 60)
{
    struct sim *s = poor();
    struct sim_conn *from = client(s, SOURCE, 0), *to = client(s, TARGET, 0);
    struct sim_stream *source, *stop;
    uint32_t *max = &s->shard[0].chunks.max[CHUNK_SMALL], was = *max;
    uint8_t ping[YAMUX_HEADER];

    s->on_stop = wait_with_it;
    reserved(to);
    to->excused = true;
    source = sim_connect_to(from, sim_peer_id(s, TARGET));
    SIM_UNTIL(s, (stop = sim_newest(to, SS_STOP)) != NULL && stop->asked, 5000);
    *max = 1;                /* as if the rest were taken */
    yamux_put_ping(ping, 1); /* its answer takes that one */
    sim_put_plain(to, bytes_of(ping, sizeof(ping)));
    sim_stream_put(stop, bytes_of("\x02", 1), false);
    SIM_UNTIL(s, source->status != 0, 5000);
    cr_assert(eq(int, source->status, HOP_CONNECTION_FAILED));
    *max = was;
    ended(s);
}

/* Two bytes of a record take a chunk, like two thousand: those count, or whoever sends two on each
 * of many connections makes memory short for everybody. */
Test(sim_memory, half_records_do_not_make_memory_short, .timeout = 60)
{
    struct sim *s = poor();
    struct sim_conn *good = client(s, OTHER, 0);
    struct sim_stream *st;

    for (unsigned i = 0; i < 110; i++) {
        struct sim_conn *foe = client(s, OTHER + 1 + i % 40, 0);

        foe->excused = true;
        sim_put_raw(foe, bytes_of("\x40\x00", 2));
    }
    sim_run_ms(s, 100);
    reserved(good);
    cr_assert(eq(int, connect_status(client(s, TARGET, 0), OTHER, &st), HOP_OK));
    ended(s);
}

/* Windows of bytes that nobody takes, and a byte more now and then: that is not moving. */
Test(sim_memory, who_hoards_does_not_stay_by_a_byte_now_and_then, .timeout = 60)
{
    struct sim *s = poor();
    struct sim_conn *from = client(s, SOURCE, 0), *to[6];
    struct sim_stream *st[6];

    from->excused = true;
    for (unsigned i = 0; i < ARRAY_LEN(to); i++) {
        to[i] = client(s, OTHER + 1 + i, 0);
        reserved(to[i]);
        cr_assert(eq(int, connect_status(from, OTHER + 1 + i, &st[i]), HOP_OK));
        to[i]->excused = st[i]->excused = true;
        sim_newest(to[i], SS_STOP)->greedy = true;
    }
    for (unsigned i = 0; i < ARRAY_LEN(to); i++)
        sim_flow_start(st[i], YAMUX_WINDOW + 120000, 16384, false);
    sim_run_ms(s, 1000);
    cr_assert(shard_pool_high(&s->shard[0]));
    for (unsigned n = 0; n < 12; n++) {
        sim_run_ms(s, 15000);
        for (unsigned i = 0; i < ARRAY_LEN(st); i++)
            if (st[i]->live)
                sim_stream_put(st[i], bytes_of("x", 1), false);
    }
    SIM_OK(s);
    cr_assert(shard_pool_high(&s->shard[0]) == false);
    reserved(client(s, OTHER, 0));
    ended(s);
}
