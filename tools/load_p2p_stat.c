/* tools/load_p2p_stat.c: what is said on stderr, and a page of counters that others may map. */
#include "tools/load_p2p.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

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
    uint64_t now = load_now_ns();
    va_list ap;

    if (lp_opt.quiet || now - last < 1000000000)
        return;
    last = now;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
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
