/* tools/load_stat.c: see the header. */
#include "tools/load_stat.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { KSOFTIRQD_MAX = 64 };

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t load_now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/* The first number in a file; 0 when it is not there. */
static uint64_t first_number(const char *path)
{
    FILE *f = fopen(path, "re");
    unsigned long long v = 0;

    if (!f)
        return 0;
    if (fscanf(f, "%llu", &v) != 1)
        v = 0;
    fclose(f);
    return v;
}

static uint64_t schedstat_ns(pid_t pid)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
    return first_number(path);
}

static uint64_t threads_ns(pid_t pid)
{
    char path[320];
    uint64_t sum = 0;
    struct dirent *e;
    DIR *d;

    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    d = opendir(path);
    if (!d) {
        fprintf(stderr, "no process %d\n", pid);
        exit(1);
    }
    while ((e = readdir(d))) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "/proc/%d/task/%.64s/schedstat", pid, e->d_name);
        sum += first_number(path);
    }
    closedir(d);
    return sum;
}

/* Finds ksoftirqd/N of every core, once. */
static int find_ksoftirqd(pid_t pid[KSOFTIRQD_MAX])
{
    char path[320], name[32];
    struct dirent *e;
    DIR *d = opendir("/proc");
    int n = 0;

    while (d && (e = readdir(d)) && n < KSOFTIRQD_MAX) {
        FILE *f;

        if (e->d_name[0] < '0' || e->d_name[0] > '9')
            continue;
        snprintf(path, sizeof(path), "/proc/%.64s/comm", e->d_name);
        f = fopen(path, "re");
        if (f && fgets(name, sizeof(name), f) && !strncmp(name, "ksoftirqd/", 10))
            pid[n++] = atoi(e->d_name);
        if (f)
            fclose(f);
    }
    if (d)
        closedir(d);
    return n;
}

static uint64_t softirq_ns(void)
{
    static pid_t pid[KSOFTIRQD_MAX];
    static int n = -1;
    uint64_t sum = 0;

    if (n < 0)
        n = find_ksoftirqd(pid);
    for (int i = 0; i < n; i++)
        sum += schedstat_ns(pid[i]);
    return sum;
}

void load_usage_now(pid_t server, const pid_t *kernel, size_t kernel_count, struct load_usage *u)
{
    u->self_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    u->server_ns = server ? threads_ns(server) : 0;
    u->softirq_ns = softirq_ns();
    for (size_t i = 0; i < kernel_count; i++)
        u->softirq_ns += schedstat_ns(kernel[i]);
    u->wall_ns = load_now_ns();
}

struct load_usage load_usage_since(const struct load_usage *now, const struct load_usage *then)
{
    return (struct load_usage){ .wall_ns = now->wall_ns - then->wall_ns,
                                .server_ns = now->server_ns - then->server_ns,
                                .softirq_ns = now->softirq_ns - then->softirq_ns,
                                .self_ns = now->self_ns - then->self_ns };
}

long load_rss_kib(pid_t pid, long *anon_kib)
{
    char path[64], line[160];
    long rss = 0, v;
    FILE *f;

    *anon_kib = 0;
    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
    f = pid ? fopen(path, "re") : NULL;
    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "Rss: %ld", &v) == 1)
            rss = v;
        else if (sscanf(line, "Anonymous: %ld", &v) == 1)
            *anon_kib = v;
    }
    if (f)
        fclose(f);
    return rss;
}

static unsigned bin_of(uint64_t ns)
{
    unsigned exp = 0;

    while (ns >> exp >= 2 * LOAD_HIST_SUB)
        exp++;
    unsigned bin = exp * LOAD_HIST_SUB + (unsigned)(ns >> exp);

    return bin < LOAD_HIST_N ? bin : LOAD_HIST_N - 1;
}

void load_hist_add(struct load_hist *h, uint64_t ns)
{
    h->bin[bin_of(ns)]++;
    h->n++;
    h->sum_ns += ns;
    if (ns > h->max_ns)
        h->max_ns = ns;
}

double load_hist_us(const struct load_hist *h, double q)
{
    uint64_t want = (uint64_t)(q * (double)h->n), seen = 0;

    for (unsigned i = 0; i < LOAD_HIST_N; i++) {
        unsigned exp = i < 2 * LOAD_HIST_SUB ? 0 : i / LOAD_HIST_SUB - 1;

        seen += h->bin[i];
        if (seen > want || (seen && seen == h->n))
            return (double)((uint64_t)(i - exp * LOAD_HIST_SUB) << exp) / 1000;
    }
    return 0;
}
