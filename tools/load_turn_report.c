/* tools/load_turn_report.c: what was measured, for people and as JSON. */
#include "tools/load_turn.h"

#include <inttypes.h>
#include <stdio.h>

void lt_report_begin(struct lt_report *r)
{
    r->then = lt_totals;
    r->then.reads = lt_reads;
    load_usage_now(lt_opt.server_pid, lt_opt.kernel_pid, lt_opt.kernel_pids, &r->at);
}

void lt_report_end(struct lt_report *r)
{
    struct load_usage now;

    r->in = lt_totals;
    load_usage_now(lt_opt.server_pid, lt_opt.kernel_pid, lt_opt.kernel_pids, &now);
    r->used = load_usage_since(&now, &r->at);
    r->in.sent -= r->then.sent;
    r->in.received -= r->then.received;
    r->in.relayed -= r->then.relayed;
    r->in.bytes -= r->then.bytes;
    r->in.lives -= r->then.lives;
    r->in.reads = lt_reads - r->then.reads;
}

void lt_report_memory(struct lt_report *r, unsigned allocations)
{
    ASSERT(r->memories < ARRAY_LEN(r->memory));
    struct lt_memory *m = &r->memory[r->memories++];

    m->allocations = allocations;
    m->rss_kib = load_rss_kib(lt_opt.server_pid, &m->anon_kib);
}

static double per(double a, double b)
{
    return b > 0 ? a / b : 0;
}

/* All that was sent and never came, warm-up included. */
static uint64_t lost(void)
{
    return lt_totals.sent > lt_totals.received ? lt_totals.sent - lt_totals.received : 0;
}

/* KiB per allocation, between the first step and the last. */
static double slope(const struct lt_report *r)
{
    const struct lt_memory *a = &r->memory[r->memories > 2 ? 1 : 0],
                           *b = &r->memory[r->memories - 1];

    return per((double)(b->rss_kib - a->rss_kib), (double)(b->allocations - a->allocations));
}

static void print_json(const struct lt_report *r, bool ok)
{
    double s = (double)r->used.wall_ns / 1e9;
    double cpu_ns = (double)(r->used.server_ns + r->used.softirq_ns);
    const struct load_hist *h = &lt_latency;

    printf(
        "{\"ok\":%s,\"mode\":\"%s\",\"allocations\":%u,\"train\":%u,\"size\":%u,\"seed\":%" PRIu64
        ",\"seconds\":%.4f,\"server_cpu_s\":%.6f,\"softirq_cpu_s\":%.6f,"
        "\"generator_cpu_s\":%.6f,",
        ok ? "true" : "false", lt_mode_name(), lt_opt.allocations, lt_opt.train, lt_opt.size,
        lt_opt.seed, s, (double)r->used.server_ns / 1e9, (double)r->used.softirq_ns / 1e9,
        (double)r->used.self_ns / 1e9);
    printf("\"sent\":%" PRIu64 ",\"received\":%" PRIu64 ",\"relayed\":%" PRIu64
           ",\"bytes\":%" PRIu64 ",\"reads\":%" PRIu64
           ",\"datagrams_per_s\":%.1f,\"cpu_ns_per_datagram\":%.2f,"
           "\"cpu_s_per_gib\":%.4f,",
           r->in.sent, r->in.received, r->in.relayed, r->in.bytes, r->in.reads,
           per((double)r->in.received, s), per(cpu_ns, (double)r->in.relayed),
           per(cpu_ns / 1e9, (double)r->in.bytes / 1073741824));
    printf("\"lives\":%" PRIu64 ",\"lives_per_s\":%.1f,\"cpu_us_per_life\":%.3f,", r->in.lives,
           per((double)r->in.lives, s), per(cpu_ns / 1000, (double)r->in.lives));
    printf("\"total_sent\":%" PRIu64 ",\"total_received\":%" PRIu64 ",", lt_totals.sent,
           lt_totals.received);
    printf("\"lost\":%" PRIu64 ",\"mismatches\":%" PRIu64 ",\"doubles\":%" PRIu64
           ",\"reordered\":%" PRIu64 ",\"stalls\":%" PRIu64 ",\"failed\":%" PRIu64
           ",\"refused\":%" PRIu64 ",\"moves\":%" PRIu64 ",",
           lost(), lt_totals.mismatches, lt_totals.doubles, lt_totals.reordered, lt_totals.stalls,
           lt_totals.failed, lt_refused, lt_totals.moves);
    printf("\"latency_us\":{\"n\":%" PRIu64 ",\"mean\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,"
           "\"p999\":%.1f,\"max\":%.1f},\"memory\":[",
           h->n, per((double)h->sum_ns / 1000, (double)h->n), load_hist_us(h, 0.5),
           load_hist_us(h, 0.9), load_hist_us(h, 0.99), load_hist_us(h, 0.999),
           (double)h->max_ns / 1000);
    for (unsigned i = 0; i < r->memories; i++)
        printf("%s{\"allocations\":%u,\"rss_kib\":%ld,\"anon_kib\":%ld}", i ? "," : "",
               r->memory[i].allocations, r->memory[i].rss_kib, r->memory[i].anon_kib);
    printf("],\"kib_per_allocation\":%.3f}\n", r->memories ? slope(r) : 0.0);
}

static void print_text(const struct lt_report *r)
{
    double s = (double)r->used.wall_ns / 1e9;
    double cpu_ns = (double)(r->used.server_ns + r->used.softirq_ns);
    const struct load_hist *h = &lt_latency;

    printf("%s, %.2f s: generator %.0f %% of a core", lt_mode_name(), s,
           per((double)r->used.self_ns, (double)r->used.wall_ns) * 100);
    if (lt_opt.server_pid)
        printf(", server %.0f %%", per(cpu_ns, (double)r->used.wall_ns) * 100);
    printf("\n");
    if (r->in.received)
        printf("  %.0f datagrams/s, %.1f MiB/s, %.1f per receive\n", per((double)r->in.received, s),
               per((double)r->in.bytes / 1048576, s),
               per((double)r->in.received, (double)r->in.reads));
    else if (r->in.bytes)
        printf("  %.1f MiB/s\n", per((double)r->in.bytes / 1048576, s));
    if (r->in.relayed && lt_opt.server_pid)
        printf("  %.0f ns of CPU per relayed datagram\n", per(cpu_ns, (double)r->in.relayed));
    if (lt_opt.mode == LT_TCP_RELAY && lt_opt.server_pid)
        printf("  %.3f CPU-seconds per GiB\n", per(cpu_ns / 1e9, (double)r->in.bytes / 1073741824));
    if (r->in.lives)
        printf("  %" PRIu64 " allocations made, %.0f/s, %.1f us of CPU each\n", r->in.lives,
               per((double)r->in.lives, s), per(cpu_ns / 1000, (double)r->in.lives));
    if (h->n)
        printf("  latency us: p50 %.1f, p90 %.1f, p99 %.1f, p99.9 %.1f, max %.1f\n",
               load_hist_us(h, 0.5), load_hist_us(h, 0.9), load_hist_us(h, 0.99),
               load_hist_us(h, 0.999), (double)h->max_ns / 1000);
    for (unsigned i = 0; i < r->memories; i++)
        printf("  %u allocations: server resident %ld KiB, anonymous %ld KiB\n",
               r->memory[i].allocations, r->memory[i].rss_kib, r->memory[i].anon_kib);
    if (r->memories > 1)
        printf("  %.2f KiB per allocation\n", slope(r));
    if (lt_totals.moves)
        printf("  %" PRIu64 " times another 5-tuple, after a 437\n", lt_totals.moves);
    printf("  sent %" PRIu64 ", lost %" PRIu64 ", reordered %" PRIu64 ", mismatches %" PRIu64
           ", doubles %" PRIu64 ", failed %" PRIu64 "\n",
           lt_totals.sent, lost(), lt_totals.reordered, lt_totals.mismatches, lt_totals.doubles,
           lt_totals.failed);
}

int lt_report_print(const struct lt_report *r)
{
    /* A run in which nothing arrived shows nothing. */
    bool some = r->in.received || r->in.bytes || r->in.lives || r->memories;
    bool ok = some && !lt_totals.mismatches && !lt_totals.doubles && !lt_totals.failed &&
              !(lt_opt.lossless && lost());

    if (lt_opt.json)
        print_json(r, ok);
    else
        print_text(r);
    return ok ? 0 : 1;
}
