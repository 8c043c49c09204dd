/* tools/load_dig_run.c: flows for a while: a window per sender that what arrives opens again, or a
 * rate over all. By a rate, latency counts from when a message was due, whether or not the
 * generator or the relay was ready for it: who stalls is charged for what he kept waiting. */
#include "tools/load_dig.h"

static uint64_t rate_given;
static struct ld_due rate_due = { .n = 1 }; /* number 0 is due at once */

static void give_by_rate(void)
{
    uint64_t now = load_now_ns();
    unsigned senders = ld_senders();

    for (uint64_t due = ld_due(&rate_due, now); due; due--) {
        struct ld_conn *c = &ld_conns[rate_given % senders];

        if (c->allowed - ld_conns[ld_opt.mode == LD_RELAY ? c->id ^ 1 : c->id].expect >=
            ld_opt.window)
            return; /* its turn is kept, and its time */
        ld_allow(c, rate_due.at_ns - (uint64_t)((rate_due.n - 1) * 1e9 / (double)ld_rate()));
        rate_due.n -= 1;
        rate_given++;
    }
}

static void run_for(double s)
{
    uint64_t until = load_now_ns() + (uint64_t)(s * 1e9);

    while (load_now_ns() < until && !ld_counters[LD_CT_STOP]) {
        if (ld_opt.rate)
            give_by_rate();
        ld_poll(1);
        ld_counters[LD_CT_RECEIVED] = ld_totals.received;
        if (ld_totals.failed)
            return;
        ld_progress("%llu messages", (unsigned long long)ld_totals.received);
    }
}

/* As long as something still arrives: a machine that was elsewhere for a while loses nothing. */
static void drain(void)
{
    uint64_t last = load_now_ns(), seen = ld_totals.received;
    uint64_t wait_ns = (uint64_t)(ld_opt.patience_s * 1e9);

    while (ld_totals.received < ld_owed() && load_now_ns() < last + wait_ns && !ld_totals.failed) {
        ld_poll(1);
        if (ld_totals.received != seen)
            last = load_now_ns();
        seen = ld_totals.received;
    }
}

int ld_run_flow(void)
{
    static struct ld_report report;

    ld_flow_init();
    for (unsigned i = 0; i < ld_opt.conns; i++)
        ld_flow_of(&ld_conns[i]);
    ld_setup(ld_opt.conns);
    ld_settle();
    rate_due.at_ns = load_now_ns();
    for (unsigned i = 0; !ld_opt.rate && i < ld_senders(); i++)
        for (unsigned k = 0; k < ld_opt.window; k++)
            ld_allow(&ld_conns[i], load_now_ns());
    run_for(ld_opt.warm_s);
    ld_measuring = true;
    ld_report_begin(&report);
    run_for(ld_opt.duration_s);
    ld_report_end(&report);
    ld_measuring = false;
    ld_stopping = true;
    drain();
    return ld_report_print(&report);
}

uint64_t ld_owed(void)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < ld_senders(); i++)
        n += ld_conns[i].allowed;
    return n;
}
