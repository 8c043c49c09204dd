/* tools/load_p2p_stat.c: time, CPU, memory, percentiles. CPU is what the scheduler counted in ns
 * (schedstat): tick accounting is wrong by an order of magnitude on shared machines. */
#include "tools/load_p2p.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { KSOFTIRQD_MAX = 64 };

uint64_t lp_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

_Noreturn void lp_die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fprintf(stderr, "load-p2p: ");
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
    exit(1);
}

void lp_progress(const char *fmt, ...)
{
    static uint64_t last;
    uint64_t now = lp_now_ns();
    va_list ap;

    if (lp_opt.quiet || now - last < 1000000000)
        return;
    last = now;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
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

static uint64_t threads_ns(int pid)
{
    char path[320];
    uint64_t sum = 0;
    struct dirent *e;
    DIR *d;

    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    d = opendir(path);
    if (!d)
        lp_die("no process %d", pid);
    while ((e = readdir(d))) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "/proc/%d/task/%.64s/schedstat", pid, e->d_name);
        sum += first_number(path);
    }
    closedir(d);
    return sum;
}

/* Kernel threads that finish network work which nobody's system call did. */
static uint64_t softirq_ns(void)
{
    static int pid[KSOFTIRQD_MAX];
    static int n = -1;
    char path[320], name[32];
    uint64_t sum = 0;

    if (n < 0) {
        DIR *d = opendir("/proc");
        struct dirent *e;

        n = 0;
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
    }
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof(path), "/proc/%d/schedstat", pid[i]);
        sum += first_number(path);
    }
    return sum;
}

void lp_usage_now(struct lp_usage *u)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    u->self_ns = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
    u->server_ns = lp_opt.server_pid ? threads_ns(lp_opt.server_pid) : 0;
    u->softirq_ns = softirq_ns();
    u->wall_ns = lp_now_ns();
}

long lp_server_rss_kib(long *anon_kib)
{
    char path[64], line[160];
    long rss = 0, v;
    FILE *f;

    *anon_kib = 0;
    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", lp_opt.server_pid);
    f = lp_opt.server_pid ? fopen(path, "re") : NULL;
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

static uint64_t own_page[LP_CT_N];
uint64_t *lp_counters = own_page;

void lp_counters_init(void)
{
    const size_t size = sizeof(own_page);
    int fd;

    if (!lp_opt.counters)
        return;
    fd = open(lp_opt.counters, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        lp_die("--counters %s: %s", lp_opt.counters, strerror(errno));
    lp_counters = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (lp_counters == MAP_FAILED)
        lp_die("--counters %s: %s", lp_opt.counters, strerror(errno));
    close(fd);
}

void lp_counters_publish(void)
{
    lp_counters[LP_CT_RECEIVED] = lp_totals.received;
    lp_counters[LP_CT_MISMATCHES] = lp_totals.mismatches;
    lp_counters[LP_CT_RESETS] = lp_totals.resets;
    lp_counters[LP_CT_FLOWING] = lp_flowing;
}

bool lp_paused(void)
{
    return *(volatile uint64_t *)&lp_counters[LP_CT_PAUSE] != 0;
}

bool lp_stopped(void)
{
    return *(volatile uint64_t *)&lp_counters[LP_CT_STOP] != 0;
}

/* 64 linear bins per power of two: 1.6 % wide. */
static unsigned bin_of(uint64_t ns)
{
    unsigned exp = 0;

    while (ns >> exp >= 2 * LP_HIST_SUB)
        exp++;
    unsigned bin = exp * LP_HIST_SUB + (unsigned)(ns >> exp);

    return bin < LP_HIST_N ? bin : LP_HIST_N - 1;
}

void lp_hist_add(struct lp_hist *h, uint64_t ns)
{
    h->bin[bin_of(ns)]++;
    h->n++;
    h->sum_ns += ns;
    if (ns > h->max_ns)
        h->max_ns = ns;
}

double lp_hist_us(const struct lp_hist *h, double q)
{
    uint64_t want = (uint64_t)(q * (double)h->n), seen = 0;

    for (unsigned i = 0; i < LP_HIST_N; i++) {
        unsigned exp = i < 2 * LP_HIST_SUB ? 0 : i / LP_HIST_SUB - 1;

        seen += h->bin[i];
        if (seen > want || (seen && seen == h->n))
            return (double)((uint64_t)(i - exp * LP_HIST_SUB) << exp) / 1000;
    }
    return 0;
}
