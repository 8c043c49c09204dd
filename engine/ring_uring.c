/* engine/ring_uring.c: ring.h over liburing, for Linux 6.1 and later (io_uring.md §2-§8, §14). */
#include "engine/ring.h"

#include <errno.h>
#include <liburing.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/limits.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

enum {
    GROUP_STREAM = 1,      /* the buffer group of stream receives */
    BUFS_MAX = 32768,      /* the kernel's bound on a provided-buffer ring (§7.2) */
    IOWQ_WORKERS_MAX = 2,  /* of each kind: nothing here should ever be punted (§2) */
    SUBMIT_TRIES_MAX = 64, /* a full submission queue that does not drain is a fault */
    REFUSED_MAX = 16,      /* different doorbells waiting at one target for its eventfd */
    RUNG_MAX = 256,        /* different (target, ud) pairs that one ring rings by MSG_RING */
};

/* Whose turn it is. Only AWAKE <-> ASLEEP while nobody borrows. */
enum turn { TURN_AWAKE, TURN_ASLEEP, TURN_LENT, TURN_LENT_WANTED };

struct ring {
    struct io_uring u;
    const struct mbox *mail;
    _Atomic uint32_t turn;                      /* enum turn: what others look at */
    struct io_uring_sqe aside[RING_BORROW_MAX]; /* a borrower's requests: it must not submit */
    unsigned aside_n;
    int err;                   /* a failed submission while preparing; ring_wait reports it */
    struct io_uring_sqe spill; /* what is prepared after that goes here, and nowhere */

    struct io_uring_buf_ring *group;
    uint8_t *bufs;
    unsigned bufs_count, buf_bytes;
    unsigned bufs_free;      /* own count: not leased */
    unsigned bufs_unsettled; /* returned, not yet advanced over */
    uint64_t leased[BUFS_MAX / 64];

    int wake_fd; /* eventfd: ring_wake, and doorbells that MSG_RING refused */
    bool wake_armed;
    uint64_t wake_value;
    _Atomic uint64_t refused[REFUSED_MAX]; /* user_data of those doorbells; 0: free */
    uint64_t due[REFUSED_MAX];             /* taken from there, handed out by ring_next */
    unsigned due_count;

    bool no_msg_ring;
    struct rung {
        struct ring *target;
        uint64_t ud;
    } rung[RUNG_MAX]; /* what a refusal's completion refers to; filled once, never emptied */
    unsigned rung_count;
    struct ring_counts counts;
};

/* Set-up */

static int setup(struct ring *r, const struct ring_opts *o)
{
    static const unsigned tries[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL,
        IORING_SETUP_SUBMIT_ALL,
    };
    int err = -EINVAL;

    for (size_t i = 0; i < ARRAY_LEN(tries) && err == -EINVAL; i++) {
        struct io_uring_params p = { 0 };

        p.flags = tries[i] | IORING_SETUP_CQSIZE;
        p.cq_entries = o->cq_entries;
        err = io_uring_queue_init_params(o->sq_entries, &r->u, &p);
    }
    return err;
}

static int setup_bufs(struct ring *r, const struct ring_opts *o)
{
    size_t bytes = (size_t)o->bufs * o->buf_bytes;
    int err = 0;
    void *mem;

    ASSERT(o->bufs <= BUFS_MAX);
    ASSERT((o->bufs & (o->bufs - 1)) == 0);
    mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED)
        return -errno;
    /* The kernel cycles through the whole pool in ring order, so it is all touched soon anyway, by
     * the owner's thread and so on its node; huge pages only save TLB misses. A kernel without
     * them refuses, which changes nothing. */
    (void)madvise(mem, bytes, MADV_HUGEPAGE);
    r->group = io_uring_setup_buf_ring(&r->u, o->bufs, GROUP_STREAM, 0, &err);
    if (r->group == NULL) {
        munmap(mem, bytes);
        return err;
    }
    r->bufs = mem;
    r->bufs_count = r->bufs_free = o->bufs;
    r->buf_bytes = o->buf_bytes;
    for (unsigned i = 0; i < o->bufs; i++)
        io_uring_buf_ring_add(r->group, r->bufs + (size_t)i * o->buf_bytes, o->buf_bytes,
                              (unsigned short)i, io_uring_buf_ring_mask(o->bufs), (int)i);
    io_uring_buf_ring_advance(r->group, (int)o->bufs);
    ASAN_POISON_MEMORY_REGION(r->bufs, bytes);
    return 0;
}

struct ring *ring_new(const struct ring_opts *o, int *err, const char **what)
{
    unsigned workers[2] = { IOWQ_WORKERS_MAX, IOWQ_WORKERS_MAX };
    struct ring *r = calloc(1, sizeof(*r));

    *what = "allocate ring";
    *err = -ENOMEM;
    if (r == NULL)
        return NULL;
    r->no_msg_ring = o->no_msg_ring;
    r->mail = o->mail;
    *what = "io_uring_setup";
    *err = setup(r, o);
    if (*err < 0)
        goto free_ring;
    /* Both came before multishot receive did; without them the loop cannot work at all. */
    *err = -EINVAL;
    if (!(r->u.features & IORING_FEAT_EXT_ARG) || !(r->u.features & IORING_FEAT_CQE_SKIP))
        goto exit_queue;
    *what = "bound io_uring workers";
    *err = io_uring_register_iowq_max_workers(&r->u, workers);
    if (*err < 0)
        goto exit_queue;
    *what = "eventfd";
    r->wake_fd = eventfd(0, EFD_CLOEXEC); /* not EFD_NONBLOCK: the ring's read has to wait */
    *err = -errno;
    if (r->wake_fd < 0)
        goto exit_queue;
    *what = "register buffer ring";
    *err = o->bufs > 0 ? setup_bufs(r, o) : 0;
    if (*err < 0)
        goto close_wake;
    *what = "";
    return r;

close_wake:
    close(r->wake_fd);
exit_queue:
    io_uring_queue_exit(&r->u);
free_ring:
    free(r);
    return NULL;
}

void ring_free(struct ring *r)
{
    struct io_uring_sync_cancel_reg all = { .flags = IORING_ASYNC_CANCEL_ANY };

    if (r == NULL)
        return;
    /* Leaving it to the exit would cancel in the background: a listener would still hold its port
     * and a receive its buffer after this returned. */
    all.timeout.tv_sec = 1;
    all.timeout.tv_nsec = 0;
    (void)io_uring_register_sync_cancel(&r->u, &all);
    (void)io_uring_get_events(&r->u); /* runs what the cancelled requests left to do */
    if (r->group != NULL)
        io_uring_free_buf_ring(&r->u, r->group, r->bufs_count, GROUP_STREAM);
    io_uring_queue_exit(&r->u);
    if (r->bufs != NULL) {
        size_t bytes = (size_t)r->bufs_count * r->buf_bytes;

        ASAN_UNPOISON_MEMORY_REGION(r->bufs, bytes);
        munmap(r->bufs, bytes);
    }
    close(r->wake_fd);
    free(r);
}

/* Preparing */

static struct io_uring_sqe *get_sqe(struct ring *r)
{
    int err = 0;

    if (atomic_load_explicit(&r->turn, memory_order_relaxed) != TURN_AWAKE) { /* a borrower */
        ASSERT(r->aside_n < RING_BORROW_MAX);
        memset(&r->aside[r->aside_n], 0, sizeof(r->aside[0]));
        return &r->aside[r->aside_n++];
    }
    for (int i = 0; i < SUBMIT_TRIES_MAX && r->err == 0; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&r->u);

        if (sqe != NULL)
            return sqe;
        err = io_uring_submit(&r->u); /* full: submit now and go on, never drop (§3) */
        if (err < 0 && err != -EINTR && err != -EAGAIN && err != -EBUSY)
            break;
    }
    if (r->err == 0)
        r->err = err < 0 ? err : -EAGAIN;
    return &r->spill;
}

void ring_accept(struct ring *r, int fd, uint64_t ud)
{
    struct io_uring_sqe *sqe = get_sqe(r);

    /* No address: its storage would be shared between completions (§6); ring_peername tells. */
    io_uring_prep_multishot_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
    io_uring_sqe_set_data64(sqe, ud);
}

void ring_recv(struct ring *r, int fd, uint64_t ud, bool empty_now)
{
    struct io_uring_sqe *sqe = get_sqe(r);

    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = GROUP_STREAM;
    if (empty_now)
        sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    io_uring_sqe_set_data64(sqe, ud);
}

void ring_sendmsg(struct ring *r, int fd, const struct msghdr *msg, uint64_t ud)
{
    struct io_uring_sqe *sqe = get_sqe(r);

    io_uring_prep_sendmsg(sqe, fd, msg, MSG_NOSIGNAL);
    io_uring_sqe_set_data64(sqe, ud);
}

void ring_poll_in(struct ring *r, int fd, uint64_t ud)
{
    struct io_uring_sqe *sqe = get_sqe(r);

    io_uring_prep_poll_multishot(sqe, fd, POLLIN);
    io_uring_sqe_set_data64(sqe, ud);
}

void ring_poll_once(struct ring *r, int fd, int mask, uint64_t ud)
{
    struct io_uring_sqe *sqe = get_sqe(r);

    io_uring_prep_poll_add(sqe, fd, (unsigned)mask);
    io_uring_sqe_set_data64(sqe, ud);
}

void ring_cancel_ud(struct ring *r, uint64_t target, uint64_t ud)
{
    struct io_uring_sqe *sqe = get_sqe(r);

    io_uring_prep_cancel64(sqe, target, 0);
    io_uring_sqe_set_data64(sqe, ud);
}

void ring_read(struct ring *r, int fd, void *p, unsigned n, uint64_t ud)
{
    struct io_uring_sqe *sqe = get_sqe(r);

    io_uring_prep_read(sqe, fd, p, n, (uint64_t)-1);
    io_uring_sqe_set_data64(sqe, ud);
}

void ring_write(struct ring *r, int fd, const void *p, unsigned n, uint64_t ud)
{
    struct io_uring_sqe *sqe = get_sqe(r);

    io_uring_prep_write(sqe, fd, p, n, (uint64_t)-1);
    io_uring_sqe_set_data64(sqe, ud);
}

void ring_cancel_fd(struct ring *r, int fd, uint64_t ud)
{
    struct io_uring_sqe *sqe = get_sqe(r);

    io_uring_prep_cancel_fd(sqe, fd, IORING_ASYNC_CANCEL_ALL);
    io_uring_sqe_set_data64(sqe, ud);
}

/* Doorbells */

void ring_wake(struct ring *target)
{
    static const uint64_t one = 1;
    int saved = errno; /* a signal handler must not change it under whom it interrupted */

    /* Fails only when the counter is at its end, and then the owner has been told already. */
    ssize_t n = write(target->wake_fd, &one, sizeof(one));
    (void)n;
    errno = saved;
}

/* Any thread. The slots merge equal doorbells; without a free one the bare wake has to do. */
static void doorbell_by_eventfd(struct ring *target, uint64_t ud)
{
    for (size_t i = 0; i < REFUSED_MAX; i++) {
        uint64_t was = 0;

        if (atomic_compare_exchange_strong(&target->refused[i], &was, ud) || was == ud)
            break;
    }
    ring_wake(target);
}

static unsigned rung_find(struct ring *r, struct ring *target, uint64_t ud)
{
    unsigned i = 0;

    while (i < r->rung_count && (r->rung[i].target != target || r->rung[i].ud != ud))
        i++;
    if (i == r->rung_count && i < RUNG_MAX)
        r->rung[r->rung_count++] = (struct rung){ target, ud };
    return i;
}

void ring_doorbell(struct ring *r, struct ring *target, uint64_t ud)
{
    unsigned i = r->no_msg_ring ? RUNG_MAX : rung_find(r, target, ud);
    struct io_uring_sqe *sqe;

    ASSERT(ud != 0);
    /* Its mail was pushed before this load, and it looks for mail after it has said that it
     * sleeps; all of that in one order, so one of the two sees the other. */
    if (target->mail && atomic_load(&target->turn) == TURN_AWAKE)
        return;
    if (i == RUNG_MAX) {
        r->counts.doorbells_refused++;
        doorbell_by_eventfd(target, ud);
        return;
    }
    sqe = get_sqe(r);
    io_uring_prep_msg_ring(sqe, target->u.ring_fd, 0, ud, 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, ud_make(RING_INTERNAL_OP, 0, i));
}

/* The sender's side of a refused MSG_RING: -EOVERFLOW, -EBADFD, or its owner is gone (§14). */
static void on_refused(struct ring *r, uint64_t ud, int res)
{
    unsigned i = ud_idx(ud);

    ASSERT(i < r->rung_count);
    if (res >= 0)
        return;
    r->counts.doorbells_refused++;
    doorbell_by_eventfd(r->rung[i].target, r->rung[i].ud);
}

static void on_woken(struct ring *r)
{
    r->wake_armed = false;
    for (size_t i = 0; i < REFUSED_MAX; i++) {
        uint64_t ud = atomic_exchange(&r->refused[i], 0);

        if (ud == 0)
            continue;
        if (r->due_count < REFUSED_MAX)
            r->due[r->due_count++] = ud;
        /* else: what fills due is a wake-up already, and ring_wait does not sleep on it */
    }
}

/* Completions */

static void settle_bufs(struct ring *r)
{
    if (r->bufs_unsettled == 0)
        return;
    io_uring_buf_ring_advance(r->group, (int)r->bufs_unsettled);
    r->bufs_unsettled = 0;
}

/* Sleeping, and lending the turn */

bool ring_borrow(struct ring *target)
{
    uint32_t was = TURN_ASLEEP;

    return atomic_compare_exchange_strong(&target->turn, &was, TURN_LENT);
}

bool ring_give_back(struct ring *target)
{
    bool prepared = target->aside_n > 0;
    uint32_t was = TURN_LENT;

    /* Who waits for it has it next, or borrowers could pass it on among them for ever. */
    if (atomic_compare_exchange_strong(&target->turn, &was, TURN_ASLEEP))
        return prepared;
    atomic_store(&target->turn, TURN_AWAKE);
    syscall(SYS_futex, &target->turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    return prepared;
}

/* false: there is mail, so no sleep. */
static bool fall_asleep(struct ring *r)
{
    atomic_store(&r->turn, TURN_ASLEEP);
    return !r->mail || !atomic_load(&r->mail->head);
}

static void wake_up(struct ring *r)
{
    uint32_t was = TURN_ASLEEP;

    while (!atomic_compare_exchange_strong(&r->turn, &was, TURN_AWAKE)) {
        if (was == TURN_AWAKE)
            return; /* handed over */
        if (was == TURN_LENT_WANTED ||
            atomic_compare_exchange_strong(&r->turn, &was, TURN_LENT_WANTED))
            syscall(SYS_futex, &r->turn, FUTEX_WAIT_PRIVATE, TURN_LENT_WANTED, NULL, NULL, 0);
        was = TURN_ASLEEP;
    }
}

static void take_aside(struct ring *r)
{
    for (unsigned i = 0; i < r->aside_n; i++)
        *get_sqe(r) = r->aside[i];
    r->aside_n = 0;
}

static int wait_asleep(struct ring *r, uint64_t timeout_ns)
{
    struct __kernel_timespec ts = {
        .tv_sec = (int64_t)(timeout_ns / 1000000000u),
        .tv_nsec = (int64_t)(timeout_ns % 1000000000u),
    };
    struct io_uring_cqe *first;
    int n;

    if (fall_asleep(r))
        n = io_uring_submit_and_wait_timeout(&r->u, &first, 1,
                                             timeout_ns == UINT64_MAX ? NULL : &ts, NULL);
    else
        n = io_uring_submit_and_get_events(&r->u);
    wake_up(r);
    return n;
}

int ring_wait(struct ring *r, uint64_t timeout_ns)
{
    int n;

    take_aside(r);
    settle_bufs(r);
    if (!r->wake_armed) {
        ring_read(r, r->wake_fd, &r->wake_value, sizeof(r->wake_value),
                  ud_make(RING_WAKE_OP, 0, 0));
        r->wake_armed = true;
    }
    if (r->err < 0)
        return r->err;
    if (io_uring_cq_has_overflow(&r->u))
        r->counts.cq_overflows++;
    /* With completions in hand, do not sleep, but still enter with GETEVENTS: under DEFER_TASKRUN
     * nothing else runs what is ready (§4), and one leftover must not starve the others. */
    if (timeout_ns == 0 || r->due_count > 0 || io_uring_cq_ready(&r->u) > 0)
        n = io_uring_submit_and_get_events(&r->u);
    else
        n = wait_asleep(r, timeout_ns);
    if (n >= 0 || n == -ETIME || n == -EINTR || n == -EAGAIN || n == -EBUSY)
        return 0;
    return n; /* -EBADR: completions were lost */
}

static void lease(struct ring *r, struct ring_cqe *out, uint32_t flags)
{
    unsigned bid = flags >> IORING_CQE_BUFFER_SHIFT;

    ASSERT(bid < r->bufs_count);
    ASSERT(!(r->leased[bid / 64] >> bid % 64 & 1));
    r->leased[bid / 64] |= (uint64_t)1 << bid % 64;
    r->bufs_free--;
    out->has_buf = true;
    out->bid = (uint16_t)bid;
    out->buf = r->bufs + (size_t)bid * r->buf_bytes;
    ASAN_UNPOISON_MEMORY_REGION(out->buf, r->buf_bytes);
}

bool ring_next(struct ring *r, struct ring_cqe *out)
{
    for (;;) {
        unsigned head = *r->u.cq.khead;
        struct ring_cqe cqe = { 0 };

        if (r->due_count > 0) {
            *out = (struct ring_cqe){ .ud = r->due[--r->due_count] };
            return true;
        }
        if (head == io_uring_smp_load_acquire(r->u.cq.ktail))
            return false;
        const struct io_uring_cqe *k = &r->u.cq.cqes[head & r->u.cq.ring_mask];

        cqe.ud = k->user_data;
        cqe.res = k->res;
        cqe.more = (k->flags & IORING_CQE_F_MORE) != 0;
        cqe.nonempty = (k->flags & IORING_CQE_F_SOCK_NONEMPTY) != 0;
        if (k->flags & IORING_CQE_F_BUFFER)
            lease(r, &cqe, k->flags);
        io_uring_cq_advance(&r->u, 1);
        if (ud_op(cqe.ud) == RING_INTERNAL_OP) {
            on_refused(r, cqe.ud, cqe.res);
            continue;
        }
        if (ud_op(cqe.ud) == RING_WAKE_OP)
            on_woken(r);
        *out = cqe;
        return true;
    }
}

void ring_counts(const struct ring *r, struct ring_counts *out)
{
    *out = r->counts;
}

void ring_buf_return(struct ring *r, uint16_t bid)
{
    uint8_t *buf = r->bufs + (size_t)bid * r->buf_bytes;

    ASSERT(bid < r->bufs_count);
    ASSERT(r->leased[bid / 64] >> bid % 64 & 1);
    r->leased[bid / 64] &= ~((uint64_t)1 << bid % 64);
    r->bufs_free++;
    ASAN_POISON_MEMORY_REGION(buf, r->buf_bytes);
    io_uring_buf_ring_add(r->group, buf, r->buf_bytes, bid, io_uring_buf_ring_mask(r->bufs_count),
                          (int)r->bufs_unsettled);
    r->bufs_unsettled++;
}

unsigned ring_bufs_free(const struct ring *r)
{
    return r->bufs_free;
}

unsigned ring_buf_bytes(const struct ring *r)
{
    return r->buf_bytes;
}
