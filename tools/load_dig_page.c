/* tools/load_dig_page.c: a page of counters that others may map, and what is due by a rate that
 * they may change. */
#include "tools/load_dig.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LATE_MS = 100 }; /* beside others, what could not be sent for longer is not owed */

static uint64_t own_page[LD_CT_N];
volatile uint64_t *ld_counters = own_page;

void ld_counters_init(void)
{
    const size_t size = sizeof(own_page);
    void *page;
    int fd;

    if (!ld_opt.counters)
        return;
    fd = open(ld_opt.counters, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        ld_die("--counters %s: %s", ld_opt.counters, strerror(errno));
    page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        ld_die("--counters %s: %s", ld_opt.counters, strerror(errno));
    ld_counters = page;
    close(fd);
}

uint64_t ld_rate(void)
{
    return ld_counters[LD_CT_RATE] ? ld_counters[LD_CT_RATE] : ld_opt.rate;
}

uint64_t ld_due(struct ld_due *d, uint64_t now_ns)
{
    uint64_t rate = ld_rate();
    double most = (double)rate * LATE_MS / 1000 + 1;

    if (ld_counters[LD_CT_PAUSE]) {
        *d = (struct ld_due){ .at_ns = now_ns };
        return 0;
    }
    if (now_ns - d->at_ns >= ld_opt.burst_ms * UINT64_C(1000000)) {
        d->n += (double)rate * (double)(now_ns - d->at_ns) / 1e9;
        if (d->n > most && (ld_opt.foe || ld_opt.counters))
            d->n = most;
        d->at_ns = now_ns;
    }
    return d->n > 0 ? (uint64_t)d->n : 0;
}
