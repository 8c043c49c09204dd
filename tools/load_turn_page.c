/* tools/load_turn_page.c: a page of counters that others may map, and what is due by a rate that
 * they may change. */
#include "tools/load_turn.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t own_page[LT_CT_N];
volatile uint64_t *lt_counters = own_page;

void lt_counters_init(void)
{
    const size_t size = sizeof(own_page);
    void *page;
    int fd;

    if (!lt_opt.counters)
        return;
    fd = open(lt_opt.counters, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        lt_die("--counters %s: %s", lt_opt.counters, strerror(errno));
    page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        lt_die("--counters %s: %s", lt_opt.counters, strerror(errno));
    lt_counters = page;
    close(fd);
}

uint64_t lt_due(struct lt_due *d, uint64_t now_ns)
{
    uint64_t rate = lt_counters[LT_CT_RATE] ? lt_counters[LT_CT_RATE] : lt_opt.rate;
    double most = (double)rate / 10 + LT_TRAIN_MAX;

    if (lt_counters[LT_CT_PAUSE]) {
        *d = (struct lt_due){ .at_ns = now_ns };
        return 0;
    }
    if (now_ns - d->at_ns >= lt_opt.burst_ms * UINT64_C(1000000)) {
        d->n += (double)rate * (double)(now_ns - d->at_ns) / 1e9;
        if (d->n > most)
            d->n = most;
        d->at_ns = now_ns;
    }
    return d->n > 0 ? (uint64_t)d->n : 0;
}
