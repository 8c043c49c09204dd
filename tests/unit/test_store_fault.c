/* A disk that fails: each write and each sync of a commit in its turn, with EIO, with ENOSPC and by
 * writing less than it was given. What was committed stays, nothing of what failed is seen, and the
 * next transaction goes through. Linked with LMDB's archive, so that its calls come by here. */
#include <errno.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "tests/unit/store_dir.h"

TestSuite(store_fault, .timeout = 90);

enum call { PWRITE, WRITEV, SYNC, CALLS };
enum fault { F_EIO, F_ENOSPC, F_SHORT, FAULTS };

static struct {
    bool armed, fired;
    enum call call;
    enum fault fault;
    unsigned after; /* so many calls succeed first */
} plan;

/* true: this call fails; errno is set unless it is to be short. */
static bool fails(enum call call)
{
    if (!plan.armed || plan.call != call || plan.after--)
        return false;
    plan.armed = false;
    plan.fired = true;
    errno = plan.fault == F_EIO ? EIO : ENOSPC;
    return true;
}

ssize_t __real_pwrite(int fd, const void *p, size_t n, off_t at);
ssize_t __real_writev(int fd, const struct iovec *v, int n);
int __real_fdatasync(int fd);
ssize_t __wrap_pwrite(int fd, const void *p, size_t n, off_t at);
ssize_t __wrap_writev(int fd, const struct iovec *v, int n);
int __wrap_fdatasync(int fd);

ssize_t __wrap_pwrite(int fd, const void *p, size_t n, off_t at)
{
    if (!fails(PWRITE))
        return __real_pwrite(fd, p, n, at);
    return plan.fault == F_SHORT ? __real_pwrite(fd, p, n / 2, at) : -1;
}

ssize_t __wrap_writev(int fd, const struct iovec *v, int n)
{
    if (!fails(WRITEV))
        return __real_writev(fd, v, n);
    return plan.fault == F_SHORT ? __real_writev(fd, v, 1) / 2 : -1;
}

int __wrap_fdatasync(int fd)
{
    return fails(SYNC) ? -1 : __real_fdatasync(fd);
}

static void append(void *ctx, const char *line)
{
    uint64_t *sum = ctx;

    for (; *line; line++)
        *sum = (*sum ^ (uint8_t)*line) * UINT64_C(0x100000001b3);
}

static uint64_t dumped(void)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325);

    cr_assert(eq(int, store_dump(sd, append, &sum), 0));
    return sum;
}

/* Some of each kind, spread over pages; false: refused for want of room. */
static bool change(unsigned round)
{
    static char envelope[6001];

    memset(envelope, 'x', 6000);
    for (unsigned i = 0; i < 20; i++) {
        struct store_reg r = sd_reg((round + i) % 50, i % 2 ? "n" : "m", i % 7 ? "e" : envelope);
        struct store_usage u = { r.peer, 1, 1, 1, 1 };
        enum store_verdict v;

        r.tag = round;
        v = store_reg_put(sd, &r, NULL);
        if (v == STORE_NO_ROOM)
            return false;
        cr_assert(eq(int, v, STORE_OK));
        cr_assert(eq(int,
                     store_profile_put(sd, &r.peer, bytes_str(i % 2 ? "ann" : "bob"), bytes_str(""),
                                       NOW + round),
                     STORE_OK));
        cr_assert(eq(int, store_usage_add(sd, NOW, &u), STORE_OK));
    }
    return true;
}

/* One failed commit and what comes after it. false: the commit does not make so many calls. */
static bool strike(enum call call, enum fault fault, unsigned after, unsigned round)
{
    uint64_t before = dumped();
    int rc = 0;
    bool put = false;

    sd_begin();
    cr_assert(change(round));
    plan.call = call;
    plan.fault = fault;
    plan.after = after;
    plan.fired = false;
    plan.armed = true;
    rc = store_commit(sd);
    plan.armed = false;
    if (!plan.fired) {
        cr_assert(eq(int, rc, 0));
        return false;
    }
    cr_assert(not(rc == 0), "call %d, fault %d, the %u.: committed", call, fault, after);
    cr_assert(eq(u64, dumped(), before), "call %d, fault %d, the %u.: half of it", call, fault,
              after);
    cr_assert(eq(u64, sd_findings(), 0));
    for (unsigned tries = 0; !put; tries++) { /* after ENOSPC some only delete */
        cr_assert(lt(u32, tries, 12));
        sd_begin();
        put = change(round);
        sd_commit();
    }
    cr_assert(not(dumped() == before));
    cr_assert(eq(u64, sd_findings(), 0));
    return true;
}

Test(store_fault, each_write_and_sync_may_fail_and_nothing_is_lost_or_half)
{
    unsigned struck[CALLS] = { 0 }, round = 0;

    sd_open();
    sd_begin();
    cr_assert(change(0));
    sd_commit();
    for (enum call call = 0; call < CALLS; call++)
        for (enum fault fault = 0; fault < (call == SYNC ? F_SHORT : FAULTS); fault++)
            for (unsigned after = 0; strike(call, fault, after, ++round); after++)
                struck[call]++;
    cr_log_info("struck %u, %u and %u calls\n", struck[PWRITE], struck[WRITEV], struck[SYNC]);
    cr_assert(lt(u32, 6, struck[PWRITE]));
    cr_assert(lt(u32, 2, struck[WRITEV]));
    cr_assert(lt(u32, 1, struck[SYNC]));
    store_close(sd);
    sd_open();
    sd_close();
}
