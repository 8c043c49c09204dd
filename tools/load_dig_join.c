/* tools/load_dig_join.c: everybody arrives, each tells the others; or everybody stays, and weighs.
 */
#include "tools/load_dig.h"

enum { NEWS_MS = 20000, QUIET_MS = 250 };

/* What the first so many have to hear: of everybody who came later, on their network. */
static uint64_t news_due(unsigned conns)
{
    uint64_t n = 0;

    for (unsigned k = 0; ld_members(k, conns); k++) {
        uint64_t m = ld_members(k, conns);

        n += m * (m - 1) / 2;
    }
    return n;
}

/* Until all news of who came has arrived; or none comes any more, from relays that tell none. */
void ld_settle(void)
{
    uint64_t due = ld_opt.null ? 0 : news_due(ld_ready), seen = ld_totals.news;
    uint64_t last = load_now_ns();

    while (ld_totals.news < due && load_now_ns() < last + QUIET_MS * 1000000ull) {
        ld_poll(10);
        if (ld_totals.news != seen)
            last = load_now_ns();
        seen = ld_totals.news;
    }
}

int ld_run_join(void)
{
    static struct ld_report report;
    uint64_t due = news_due(ld_opt.conns), began, until;
    unsigned opened = 0;

    ld_report_begin(&report);
    began = load_now_ns();
    while (ld_ready < ld_opt.conns && !ld_totals.failed) {
        double at = (double)(load_now_ns() - began) / 1e9;

        while (opened < ld_opt.conns && at * ld_opt.conns >= opened * ld_opt.join_s)
            ld_open(&ld_conns[opened++]);
        ld_poll(1);
        if (at > ld_opt.join_s + 60)
            ld_die("%u of %u registered, and nobody more for long", ld_ready, ld_opt.conns);
    }
    report.join_s = (double)(load_now_ns() - began) / 1e9;
    until = load_now_ns() + NEWS_MS * 1000000ull;
    while (ld_totals.news < due && load_now_ns() < until && !ld_totals.failed)
        ld_poll(1);
    report.spread_s = (double)(load_now_ns() - began) / 1e9;
    ld_report_end(&report);
    for (until = load_now_ns() + 200000000; load_now_ns() < until;)
        ld_poll(1); /* nobody hears of anybody twice */
    ld_totals.sent = due;
    ld_totals.received = ld_totals.news;
    return ld_report_print(&report);
}

int ld_run_idle(void)
{
    static struct ld_report report;

    ld_report_memory(&report, 0);
    for (unsigned i = 0; i < ld_opt.steps; i++) {
        uint64_t until;

        ld_setup(ld_opt.step[i]);
        ld_settle();
        until = load_now_ns() + (uint64_t)(ld_opt.settle_s * 1e9);
        while (load_now_ns() < until)
            ld_poll(10);
        ld_report_memory(&report, ld_opt.step[i]);
    }
    ld_report_begin(&report);
    for (uint64_t until = load_now_ns() + (uint64_t)(ld_opt.duration_s * 1e9);
         load_now_ns() < until;)
        ld_poll(10);
    ld_report_end(&report);
    return ld_report_print(&report);
}
