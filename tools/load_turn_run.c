/* tools/load_turn_run.c: flows of datagrams; allocations that only stand. */
#include "tools/load_turn.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

enum {
    STALL_NS = 20000000, /* nothing came for so long: what is under way is lost */
    DRAIN_NS = 300000000,
    COLD_NS = 5000000, /* sockets without data are looked at so often */
    NAP_NS = 50000,
    BURST_NAP_NS = 400000, /* a part of the time between bursts, per ms of it */
    HELLO_TRIES = 20,
};

static struct {
    bool flowing, direct; /* the few sockets with data are asked without epoll */
    struct lt_due due;
    uint64_t lost; /* given up */
    uint64_t last_in_ns, cold_ns;
    unsigned next;
} g;

static uint64_t under_way(void)
{
    uint64_t done = lt_totals.received + g.lost;

    if (done > lt_totals.sent) /* it was late, not lost */
        g.lost = lt_totals.sent - lt_totals.received;
    return lt_totals.sent - lt_totals.received - g.lost;
}

/* ---- sending ------------------------------------------------------------------------------- */

static bool send_stream(struct lt_alloc *a, const struct lt_train *t)
{
    static const uint8_t zeroes[4];

    if (!lt_stream_flush(a->fd, a->stream))
        return false;
    for (unsigned i = 0; i < t->n; i++) {
        lt_stream_put(a->stream, bytes_of(t->dg[i].head, t->dg[i].head_n));
        lt_stream_put(a->stream, t->dg[i].body);
        lt_stream_put(a->stream, bytes_of(zeroes, t->dg[i].pad));
    }
    (void)lt_stream_flush(a->fd, a->stream);
    return true;
}

static bool send_one(struct lt_alloc *a, bool down)
{
    static struct lt_train t;
    union lt_sa to;
    bool sent;

    lt_train_make(&t, a, down, lt_opt.train);
    if (down) {
        socklen_t n = lt_sa_of(&a->relayed, &to);

        sent = lt_send_train(lt_peers[a->peer_idx].fd, &to, n, &t);
    } else {
        sent = a->stream ? send_stream(a, &t) : lt_send_train(a->fd, NULL, 0, &t);
    }
    if (!sent)
        return false;
    a->flow[down].next += t.n;
    lt_totals.sent += t.n;
    return true;
}

/* So many datagrams may leave now. */
static uint64_t budget(uint64_t now_ns)
{
    if (!lt_opt.rate) {
        uint64_t n = under_way();

        return n < lt_opt.window ? lt_opt.window - n : 0;
    }
    return lt_due(&g.due, now_ns);
}

static bool send_some(uint64_t now_ns)
{
    uint64_t left = budget(now_ns);
    bool some = false;

    for (unsigned i = 0; i < lt_opt.allocations && left >= lt_opt.train; i++) {
        struct lt_alloc *a = &lt_allocs[g.next];

        g.next = (g.next + 1) % lt_opt.allocations;
        for (unsigned b = 0; a->ready && b < lt_opt.batch; b++)
            for (int down = 0; down < 2 && left >= lt_opt.train; down++)
                if (lt_opt.way & 1 << down && send_one(a, down)) {
                    left -= lt_opt.train;
                    g.due.n -= lt_opt.train;
                    some = true;
                }
    }
    return some;
}

/* ---- receiving ----------------------------------------------------------------------------- */

static bool peers_receive(void)
{
    return !lt_opt.c2c && (lt_opt.way & LT_UP);
}

static bool clients_receive(void)
{
    return lt_opt.c2c || lt_opt.echo || (lt_opt.way & LT_DOWN);
}

/* A relay that wakes nobody is cheaper to measure: with few sockets there is no epoll between. */
static void choose_direct(void)
{
    unsigned n =
        (peers_receive() ? lt_opt.peers : 0) + (clients_receive() ? lt_opt.allocations : 0);

    g.direct = n <= LT_HOT_MAX;
    if (!g.direct)
        return;
    for (unsigned i = 0; peers_receive() && i < lt_opt.peers; i++)
        lt_poll_forget(lt_peers[i].fd);
    for (unsigned i = 0; clients_receive() && i < lt_opt.allocations; i++)
        lt_poll_forget(lt_allocs[i].fd);
}

static void undo_direct(void)
{
    if (!g.direct)
        return;
    for (unsigned i = 0; clients_receive() && i < lt_opt.allocations; i++)
        if (!lt_allocs[i].stream || !lt_allocs[i].stream->over)
            lt_poll_add(lt_allocs[i].fd, &lt_allocs[i]);
}

static bool receive(uint64_t now_ns)
{
    bool some = false;

    if (!g.direct)
        some = lt_poll(0);
    for (unsigned i = 0; g.direct && peers_receive() && i < lt_opt.peers; i++)
        some |= lt_read_peer(&lt_peers[i]);
    for (unsigned i = 0; g.direct && clients_receive() && i < lt_opt.allocations; i++)
        some |= lt_read_client(&lt_allocs[i]);
    if (now_ns - g.cold_ns > COLD_NS) {
        g.cold_ns = now_ns;
        some |= lt_poll(0);
        lt_tick_all(now_ns / 1000000);
    }
    return some;
}

/* One turn. */
static void turn(void)
{
    uint64_t now = load_now_ns(), before = lt_totals.received;
    bool some = g.flowing && send_some(now);

    some |= receive(now);
    if (lt_totals.received != before)
        g.last_in_ns = now;
    lt_counters[LT_CT_RECEIVED] = lt_totals.received;
    lt_counters[LT_CT_MISMATCHES] = lt_totals.mismatches + lt_totals.doubles;
    if (g.flowing && !lt_opt.rate && now - g.last_in_ns > STALL_NS) {
        g.last_in_ns = now;
        if (under_way()) {
            g.lost += under_way();
            lt_totals.stalls++;
        }
    }
    if (!some && lt_opt.sleep) {
        struct timespec nap = { 0, lt_opt.burst_ms ? lt_opt.burst_ms * BURST_NAP_NS : NAP_NS };

        nanosleep(&nap, NULL);
    }
}

static void run_for(double s)
{
    uint64_t until = load_now_ns() + (uint64_t)(s * 1e9);

    while (load_now_ns() < until && !lt_counters[LT_CT_STOP]) {
        turn();
        lt_progress("%llu datagrams, %llu under way", (unsigned long long)lt_totals.received,
                    (unsigned long long)under_way());
    }
}

/* What is under way arrives, or will not. */
static void drain(void)
{
    uint64_t until = load_now_ns() + DRAIN_NS, seen = lt_totals.received;

    g.flowing = false;
    while (lt_totals.received < lt_totals.sent && load_now_ns() < until) {
        turn();
        if (lt_totals.received != seen)
            until = load_now_ns() + DRAIN_NS;
        seen = lt_totals.received;
    }
}

/* The bare loop learns where the sink is from what the sink sends it. */
static void bare_setup(void)
{
    union lt_sa to;
    socklen_t to_n = lt_sa_of(&lt_opt.at, &to);
    char answer[sizeof(LT_HELLO)];

    lt_client_open(&lt_allocs[0]);
    lt_allocs[0].ready = true;
    for (int i = 0; i < HELLO_TRIES; i++) {
        if (sendto(lt_peers[0].fd, LT_HELLO, sizeof(LT_HELLO), 0, &to.sa, to_n) < 0)
            lt_die("hello: %s", strerror(errno));
        usleep(10000);
        if (recv(lt_peers[0].fd, answer, sizeof(answer), MSG_DONTWAIT) == (ssize_t)sizeof(LT_HELLO))
            return;
    }
    lt_die("no bare loop answers");
}

static void on_flow_state(struct lt_alloc *a, const char *why)
{
    if (!why)
        return;
    lt_progress("allocation %u: %s", a->id, why);
    lt_totals.failed++;
}

int lt_run_flow(void)
{
    static struct lt_report report;

    lt_peers_open();
    if (lt_opt.bare)
        bare_setup();
    else
        lt_setup();
    lt_on_state = on_flow_state;
    choose_direct();
    g.flowing = true;
    g.due.at_ns = g.last_in_ns = load_now_ns();
    run_for(lt_opt.warm_s);
    lt_measuring = true;
    lt_report_begin(&report);
    run_for(lt_opt.duration_s);
    lt_report_end(&report);
    lt_measuring = false;
    drain();
    undo_direct();
    if (!lt_opt.bare)
        lt_teardown();
    return lt_report_print(&report);
}

/* ---- allocations that only stand ------------------------------------------------------------ */

static void on_idle_state(struct lt_alloc *a, const char *why)
{
    if (why)
        lt_die("allocation %u: %s", a->id, why);
}

int lt_run_idle(void)
{
    static struct lt_report report;
    unsigned have = 0;

    lt_on_state = on_idle_state;
    lt_report_memory(&report, 0);
    for (unsigned i = 0; i < lt_opt.steps; i++) {
        lt_each(have, lt_opt.step[i], lt_allocate_one, "allocating");
        have = lt_opt.step[i];
        for (uint64_t until = load_now_ns() + (uint64_t)(lt_opt.settle_s * 1e9);
             load_now_ns() < until;)
            lt_poll(20);
        lt_report_memory(&report, have);
    }
    lt_report_begin(&report);
    for (uint64_t until = load_now_ns() + (uint64_t)(lt_opt.duration_s * 1e9);
         load_now_ns() < until;)
        lt_poll(20);
    lt_report_end(&report);
    lt_totals.lives = have;
    lt_teardown();
    return lt_report_print(&report);
}
