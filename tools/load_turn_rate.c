/* tools/load_turn_rate.c: allocations per second: slots that allocate, release and begin again. A
 * life is an Allocate and its Refresh with lifetime 0; with --fresh also the socket and the 401. */
#include "tools/load_turn.h"

enum { END_MS = 3000 };

static bool ending;

static void step(struct lt_alloc *a)
{
    if (lt_opt.fresh) {
        lt_client_close(a);
        lt_client_open(a);
    }
    lt_client_allocate(a);
}

static void on_rate_state(struct lt_alloc *a, const char *why)
{
    if (why) {
        lt_totals.failed++;
        lt_progress("slot %u: %s", a->id, why);
    } else if (a->state == LT_ALLOCATED) {
        if (lt_measuring)
            load_hist_add(&lt_latency, load_now_ns() - a->began_ns);
        lt_client_release(a);
        return;
    } else {
        lt_totals.lives++;
    }
    if (!ending)
        a->again = true; /* not from within its own socket's reading */
}

/* lives: so many more, or 0. */
static void run_for(double s, uint64_t lives)
{
    uint64_t until = load_now_ns() + (uint64_t)(s * 1e9), enough = lt_totals.lives + lives;

    while (load_now_ns() < until && !(lives && lt_totals.lives >= enough)) {
        lt_poll(1);
        lt_tick_all(lt_now_ms());
        for (unsigned i = 0; i < lt_opt.slots; i++)
            if (lt_allocs[i].again) {
                lt_allocs[i].again = false;
                step(&lt_allocs[i]);
            }
        lt_progress("%llu allocations", (unsigned long long)lt_totals.lives);
    }
}

int lt_run_rate(void)
{
    static struct lt_report report;

    lt_on_state = on_rate_state;
    for (unsigned i = 0; i < lt_opt.slots; i++) {
        if (!lt_opt.fresh)
            lt_client_open(&lt_allocs[i]);
        step(&lt_allocs[i]);
    }
    run_for(lt_opt.warm_s, 0);
    lt_measuring = true;
    lt_report_begin(&report);
    run_for(lt_opt.duration_s, lt_opt.lives);
    lt_report_end(&report);
    lt_measuring = false;
    ending = true; /* lives under way end as all do */
    for (uint64_t until = lt_now_ms() + END_MS; lt_waiting && lt_now_ms() < until;) {
        lt_poll(1);
        lt_tick_all(lt_now_ms());
    }
    return lt_report_print(&report);
}
