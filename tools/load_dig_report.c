/* tools/load_dig_report.c: what was measured, for people and as JSON. */
#include "tools/load_dig.h"

#include <dirent.h>
#include <inttypes.h>
#include <unistd.h>

/* Ticks that found the process in user mode, and all. Ticks are too coarse for sums here, but which
 * part of them is the user's is fair over seconds: times schedstat, which is exact. */
static void ticks_of(pid_t pid, uint64_t *user, uint64_t *all)
{
    char path[64], line[1024], *p;
    unsigned long long u = 0, s = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    f = pid ? fopen(path, "re") : NULL;
    if (f && fgets(line, sizeof(line), f) && (p = strrchr(line, ')')))
        (void)sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &u, &s);
    if (f)
        fclose(f);
    *user = u;
    *all = u + s;
}

/* How long threads that could have run did not: what others on this machine took away. */
static uint64_t waited_ns(pid_t pid)
{
    char path[320];
    unsigned long long v;
    uint64_t sum = 0;
    struct dirent *e;
    DIR *d;

    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    d = pid ? opendir(path) : NULL;
    while (d && (e = readdir(d))) {
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%d/task/%.64s/schedstat", pid, e->d_name);
        f = e->d_name[0] == '.' ? NULL : fopen(path, "re");
        if (f && fscanf(f, "%*u %llu", &v) == 1)
            sum += v;
        if (f)
            fclose(f);
    }
    if (d)
        closedir(d);
    return sum;
}

void ld_report_begin(struct ld_report *r)
{
    r->then = ld_totals;
    ticks_of(ld_opt.server_pid, &r->user_ticks, &r->ticks);
    r->server_waited_ns = waited_ns(ld_opt.server_pid);
    r->self_waited_ns = waited_ns(getpid());
    load_usage_now(ld_opt.server_pid, NULL, 0, &r->at);
}

void ld_report_end(struct ld_report *r)
{
    struct load_usage now;
    uint64_t user, all;

    r->in = ld_totals;
    load_usage_now(ld_opt.server_pid, NULL, 0, &now);
    ticks_of(ld_opt.server_pid, &user, &all);
    r->used = load_usage_since(&now, &r->at);
    r->user_ticks = user - r->user_ticks;
    r->ticks = all - r->ticks;
    r->server_waited_ns = waited_ns(ld_opt.server_pid) - r->server_waited_ns;
    r->self_waited_ns = waited_ns(getpid()) - r->self_waited_ns;
    r->in.sent -= r->then.sent;
    r->in.received -= r->then.received;
    r->in.relayed -= r->then.relayed;
    r->in.bytes -= r->then.bytes;
    r->in.news -= r->then.news;
}

void ld_report_memory(struct ld_report *r, unsigned conns)
{
    ASSERT(r->memories < ARRAY_LEN(r->memory));
    struct ld_memory *m = &r->memory[r->memories++];

    m->conns = conns;
    m->rss_kib = load_rss_kib(ld_opt.server_pid, &m->anon_kib);
}

static double per(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static uint64_t lost(void)
{
    uint64_t owed = ld_opt.mode == LD_JOIN   ? ld_totals.sent
                    : ld_opt.mode == LD_IDLE ? 0
                                             : ld_owed();

    return owed > ld_totals.received ? owed - ld_totals.received : 0;
}

/* KiB per connection, between the first step and the last. */
static double slope(const struct ld_report *r)
{
    const struct ld_memory *a = &r->memory[r->memories > 2 ? 1 : 0],
                           *b = &r->memory[r->memories - 1];

    return per((double)(b->rss_kib - a->rss_kib), (double)(b->conns - a->conns));
}

static void print_json(const struct ld_report *r, bool ok)
{
    double s = (double)r->used.wall_ns / 1e9;
    double cpu_ns = (double)(r->used.server_ns + r->used.softirq_ns);
    double user = per((double)r->user_ticks, (double)r->ticks);
    const struct load_hist *h = &ld_latency;

    printf(
        "{\"ok\":%s,\"mode\":\"%s\",\"connections\":%u,\"window\":%u,\"size\":%u,\"seed\":%" PRIu64
        ",\"seconds\":%.4f,\"server_cpu_s\":%.6f,\"softirq_cpu_s\":%.6f,\"user_share\":%.4f,"
        "\"generator_cpu_s\":%.6f,\"server_waited_s\":%.6f,\"generator_waited_s\":%.6f,",
        ok ? "true" : "false", ld_mode_name(), ld_opt.conns, ld_opt.window, ld_opt.size,
        ld_opt.seed, s, (double)r->used.server_ns / 1e9, (double)r->used.softirq_ns / 1e9, user,
        (double)r->used.self_ns / 1e9, (double)r->server_waited_ns / 1e9,
        (double)r->self_waited_ns / 1e9);
    printf("\"sent\":%" PRIu64 ",\"received\":%" PRIu64 ",\"relayed\":%" PRIu64
           ",\"bytes\":%" PRIu64
           ",\"messages_per_s\":%.1f,\"cpu_us_per_message\":%.3f,\"user_us_per_message\":%.3f,",
           r->in.sent, r->in.received, r->in.relayed, r->in.bytes, per((double)r->in.received, s),
           per(cpu_ns / 1000, (double)r->in.received),
           per((double)r->used.server_ns / 1000 * user, (double)r->in.received));
    printf("\"total_sent\":%" PRIu64 ",\"total_received\":%" PRIu64 ",\"lost\":%" PRIu64
           ",\"mismatches\":%" PRIu64 ",\"doubles\":%" PRIu64 ",\"gaps\":%" PRIu64
           ",\"errors\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"news\":%" PRIu64 ",",
           ld_totals.sent, ld_totals.received, lost(), ld_totals.mismatches, ld_totals.doubles,
           ld_totals.gaps, ld_totals.errors, ld_totals.failed, ld_totals.news);
    printf("\"join_s\":%.4f,\"spread_s\":%.4f,", r->join_s, r->spread_s);
    printf("\"latency_us\":{\"n\":%" PRIu64 ",\"mean\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,"
           "\"p999\":%.1f,\"max\":%.1f},\"memory\":[",
           h->n, per((double)h->sum_ns / 1000, (double)h->n), load_hist_us(h, 0.5),
           load_hist_us(h, 0.9), load_hist_us(h, 0.99), load_hist_us(h, 0.999),
           (double)h->max_ns / 1000);
    for (unsigned i = 0; i < r->memories; i++)
        printf("%s{\"connections\":%u,\"rss_kib\":%ld,\"anon_kib\":%ld}", i ? "," : "",
               r->memory[i].conns, r->memory[i].rss_kib, r->memory[i].anon_kib);
    printf("],\"kib_per_connection\":%.3f}\n", r->memories ? slope(r) : 0.0);
}

static void print_text(const struct ld_report *r)
{
    double s = (double)r->used.wall_ns / 1e9;
    double cpu_ns = (double)(r->used.server_ns + r->used.softirq_ns);
    const struct load_hist *h = &ld_latency;

    printf("%s, %.2f s: generator %.0f %% of a core", ld_mode_name(), s,
           per((double)r->used.self_ns, (double)r->used.wall_ns) * 100);
    if (ld_opt.server_pid)
        printf(", server %.0f %%, %.0f %% of that as user",
               per(cpu_ns, (double)r->used.wall_ns) * 100,
               per((double)r->user_ticks, (double)r->ticks) * 100);
    if (ld_opt.server_pid)
        printf("; waited for a core: generator %.0f %%, server %.0f %%",
               per((double)r->self_waited_ns, (double)r->used.wall_ns) * 100,
               per((double)r->server_waited_ns, (double)r->used.wall_ns) * 100);
    printf("\n");
    if (r->in.received)
        printf("  %.0f messages/s, %.2f us of CPU each\n", per((double)r->in.received, s),
               per(cpu_ns / 1000, (double)r->in.received));
    if (ld_opt.mode == LD_JOIN)
        printf("  %u registered after %.3f s, %" PRIu64
               " times heard of after %.3f s; %.3f CPU-s\n",
               ld_ready, r->join_s, ld_totals.news, r->spread_s, cpu_ns / 1e9);
    if (h->n)
        printf("  latency us: p50 %.1f, p90 %.1f, p99 %.1f, p99.9 %.1f, max %.1f\n",
               load_hist_us(h, 0.5), load_hist_us(h, 0.9), load_hist_us(h, 0.99),
               load_hist_us(h, 0.999), (double)h->max_ns / 1000);
    for (unsigned i = 0; i < r->memories; i++)
        printf("  %u connections: server resident %ld KiB, anonymous %ld KiB\n", r->memory[i].conns,
               r->memory[i].rss_kib, r->memory[i].anon_kib);
    if (r->memories > 1)
        printf("  %.2f KiB per connection\n", slope(r));
    printf("  sent %" PRIu64 ", lost %" PRIu64 ", gaps %" PRIu64 ", mismatches %" PRIu64
           ", doubles %" PRIu64 ", errors %" PRIu64 ", failed %" PRIu64 "\n",
           ld_totals.sent, lost(), ld_totals.gaps, ld_totals.mismatches, ld_totals.doubles,
           ld_totals.errors, ld_totals.failed);
}

int ld_report_print(const struct ld_report *r)
{
    /* A run in which nothing arrived shows nothing. */
    bool some = r->in.received || r->memories || (ld_opt.mode == LD_JOIN && ld_ready);
    bool ok = some && !lost() && !ld_totals.gaps && !ld_totals.mismatches && !ld_totals.doubles &&
              !ld_totals.errors && !ld_totals.failed;

    if (ld_opt.json)
        print_json(r, ok);
    else
        print_text(r);
    return ok ? 0 : 1;
}
