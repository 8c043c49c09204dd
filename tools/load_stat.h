/* tools/load_stat.h: time, CPU, memory and percentiles, for load generators. CPU is what the
 * scheduler counted in ns (schedstat): tick accounting is wrong by an order of magnitude on shared
 * machines. A server that is gone ends the program: what it would have cost is not known. */
#ifndef SLUICE_TOOLS_LOAD_STAT_H
#define SLUICE_TOOLS_LOAD_STAT_H

#include "proto/base.h"

#include <sys/types.h>

uint64_t load_now_ns(void);

struct load_usage {
    uint64_t wall_ns;
    uint64_t server_ns;  /* all threads of a process */
    uint64_t softirq_ns; /* kernel threads that finish network work which nobody's call did */
    uint64_t self_ns;
};
/* server: 0 for none. kernel: further threads of the kernel that work for it (threaded NAPI). */
void load_usage_now(pid_t server, const pid_t *kernel, size_t kernel_count, struct load_usage *u);
struct load_usage load_usage_since(const struct load_usage *now, const struct load_usage *then);
long load_rss_kib(pid_t pid, long *anon_kib);

/* 64 linear bins per power of two: 1.6 % wide. */
enum { LOAD_HIST_SUB = 64, LOAD_HIST_N = LOAD_HIST_SUB * 40 };
struct load_hist {
    uint64_t n, sum_ns, max_ns;
    uint32_t bin[LOAD_HIST_N];
};
void load_hist_add(struct load_hist *h, uint64_t ns);
double load_hist_us(const struct load_hist *h, double q);

#endif
