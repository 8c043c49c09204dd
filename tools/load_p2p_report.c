/* tools/load_p2p_report.c: what was measured, for people and as JSON. */
#include "tools/load_p2p.h"

#include <inttypes.h>
#include <stdio.h>

void lp_report_begin(struct lp_report *r)
{
    r->received = lp_totals.received;
    r->messages = lp_totals.messages;
    load_usage_now(lp_opt.server_pid, NULL, 0, &r->at);
}

void lp_report_end(struct lp_report *r)
{
    struct load_usage now;

    r->received = lp_totals.received - r->received;
    r->messages = lp_totals.messages - r->messages;
    load_usage_now(lp_opt.server_pid, NULL, 0, &now);
    r->used = (struct load_usage){ .wall_ns = now.wall_ns - r->at.wall_ns,
                                   .server_ns = now.server_ns - r->at.server_ns,
                                   .softirq_ns = now.softirq_ns - r->at.softirq_ns,
                                   .self_ns = now.self_ns - r->at.self_ns };
}

void lp_report_memory(struct lp_report *r, unsigned peers)
{
    ASSERT(r->memories < ARRAY_LEN(r->memory));
    struct lp_memory *m = &r->memory[r->memories++];

    m->peers = peers;
    m->rss_kib = load_rss_kib(lp_opt.server_pid, &m->anon_kib);
}

static double per(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static void print_json(const struct lp_report *r, bool ok)
{
    double s = (double)r->used.wall_ns / 1e9;
    double server_s = (double)(r->used.server_ns + r->used.softirq_ns) / 1e9;
    const struct load_hist *h = &lp_latency;

    printf("{\"ok\":%s,\"mode\":\"%s\",\"framing\":\"%s\",\"placement\":\"%s\",\"circuits\":%u,"
           "\"pairs\":%u,\"idle_circuits\":%u,\"slots\":%u,\"seed\":%" PRIu64 ",\"seconds\":%.3f,",
           ok ? "true" : "false", lp_mode_name(), lp_opt.framing->name, lp_place_name(),
           lp_opt.circuits, lp_opt.pairs, lp_opt.idle_circuits, lp_opt.slots, lp_opt.seed, s);
    printf("\"payload_bytes\":%" PRIu64 ",\"mib_per_s\":%.1f,\"server_cpu_s\":%.4f,"
           "\"softirq_cpu_s\":%.4f,\"generator_cpu_s\":%.4f,\"server_cpu_s_per_gib\":%.4f,",
           r->received, per((double)r->received / 1048576, s), (double)r->used.server_ns / 1e9,
           (double)r->used.softirq_ns / 1e9, (double)r->used.self_ns / 1e9,
           per(server_s, (double)r->received / 1073741824));
    printf("\"messages\":%" PRIu64 ",\"server_cpu_us_per_message\":%.3f,\"lives\":%" PRIu64
           ",\"lives_per_s\":%.1f,\"lives_per_server_cpu_s\":%.1f,\"failed\":%" PRIu64
           ",\"stuck\":%u,\"mismatches\":%" PRIu64 ",\"resets\":%" PRIu64 ",\"late\":%" PRIu64 ",",
           r->messages, per(server_s * 1e6, (double)r->messages), r->lives,
           per((double)r->lives, s), per((double)r->lives, server_s), r->failed, r->stuck,
           lp_totals.mismatches, lp_totals.resets, lp_totals.late);
    printf("\"latency_us\":{\"n\":%" PRIu64 ",\"mean\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,"
           "\"p999\":%.1f,\"max\":%.1f},\"memory\":[",
           h->n, per((double)h->sum_ns / 1000, (double)h->n), load_hist_us(h, 0.5),
           load_hist_us(h, 0.9), load_hist_us(h, 0.99), load_hist_us(h, 0.999),
           (double)h->max_ns / 1000);
    for (unsigned i = 0; i < r->memories; i++)
        printf("%s{\"peers\":%u,\"rss_kib\":%ld,\"anon_kib\":%ld}", i ? "," : "",
               r->memory[i].peers, r->memory[i].rss_kib, r->memory[i].anon_kib);
    printf("]}\n");
}

static void print_text(const struct lp_report *r)
{
    double s = (double)r->used.wall_ns / 1e9;
    double server_s = (double)(r->used.server_ns + r->used.softirq_ns) / 1e9;

    printf("%s, %.2f s: generator %.0f %% of a core", lp_mode_name(), s,
           per((double)r->used.self_ns, (double)r->used.wall_ns) * 100);
    if (lp_opt.server_pid)
        printf(", relay %.0f %%", per(server_s, s) * 100);
    printf("\n");
    if (r->received && lp_opt.server_pid)
        printf("  %.1f MiB/s, %.3f CPU-seconds of the relay per GiB\n",
               per((double)r->received / 1048576, s),
               per(server_s, (double)r->received / 1073741824));
    else if (r->received)
        printf("  %.1f MiB/s\n", per((double)r->received / 1048576, s));
    if (r->messages)
        printf("  %" PRIu64 " messages, %.2f us of CPU each, %" PRIu64 " could not be sent\n",
               r->messages, per(server_s * 1e6, (double)r->messages), lp_totals.late);
    if (r->lives)
        printf("  %" PRIu64 " lives, %.0f/s, %.0f per CPU-second of the relay, %" PRIu64
               " failed, %u stuck\n",
               r->lives, per((double)r->lives, s), per((double)r->lives, server_s), r->failed,
               r->stuck);
    if (lp_latency.n)
        printf("  latency us: p50 %.1f, p90 %.1f, p99 %.1f, p99.9 %.1f, max %.1f\n",
               load_hist_us(&lp_latency, 0.5), load_hist_us(&lp_latency, 0.9),
               load_hist_us(&lp_latency, 0.99), load_hist_us(&lp_latency, 0.999),
               (double)lp_latency.max_ns / 1000);
    for (unsigned i = 0; i < r->memories; i++)
        printf("  %u peers: relay resident %ld KiB, anonymous %ld KiB\n", r->memory[i].peers,
               r->memory[i].rss_kib, r->memory[i].anon_kib);
    printf("  mismatches %" PRIu64 ", resets %" PRIu64 "\n", lp_totals.mismatches,
           lp_totals.resets);
}

int lp_report_print(const struct lp_report *r)
{
    bool ok = !lp_totals.mismatches && !lp_totals.resets && !r->failed && !r->stuck;

    if (lp_opt.json)
        print_json(r, ok);
    else
        print_text(r);
    return ok ? 0 : 1;
}
