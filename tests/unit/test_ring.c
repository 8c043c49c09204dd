/* tests/unit/test_ring.c: engine/ring_uring.c against the kernel: rings, waiting, doorbells,
 * buffers. */
#include "tests/unit/ring_loop.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

Test(ring, returning_a_buffer_twice_stops_the_process, .signal = SIGABRT, .timeout = 20)
{
    struct ring *r = ring_of(&small);

    ring_buf_return(r, 3); /* never leased */
}

Test(ring, waits_no_longer_than_told_and_not_at_all_for_zero, .timeout = 20)
{
    struct ring *r = ring_of(&small);
    uint64_t began = now_ms();

    expect_quiet(r, 30);
    cr_assert(le(u64, 29, now_ms() - began));
    cr_assert(lt(u64, now_ms() - began, 2000));
    for (int i = 0; i < 100; i++)
        expect_quiet(r, 0);
    ring_free(r);
}

static void *wake_soon(void *arg)
{
    usleep(20 * 1000);
    ring_wake(arg);
    return NULL;
}

static struct ring *woken_by_signal;

static void on_signal(int sig)
{
    (void)sig;
    ring_wake(woken_by_signal);
}

Test(ring, is_woken_by_a_thread_and_by_a_signal_handler_again_and_again, .timeout = 20)
{
    struct ring *r = woken_by_signal = ring_of(&small);

    signal(SIGUSR1, on_signal);
    for (int i = 0; i < 3; i++) {
        pthread_t t;

        pthread_create(&t, NULL, wake_soon, r);
        cr_assert(eq(int, ring_wait(r, UINT64_MAX), 0));
        pthread_join(t, NULL);
        cr_assert(eq(int, ud_op(next(r).ud), RING_WAKE_OP));
        raise(SIGUSR1);
        raise(SIGUSR1); /* two before the owner looks are one */
        cr_assert(eq(int, ud_op(next(r).ud), RING_WAKE_OP));
        expect_quiet(r, 0);
    }
    ring_free(r);
}

Test(ring, a_wake_before_the_first_wait_is_not_lost, .timeout = 20)
{
    struct ring *r = ring_of(&small);

    ring_wake(r);
    cr_assert(eq(int, ud_op(next(r).ud), RING_WAKE_OP));
    ring_free(r);
}

/* Two owners that answer each other's doorbells. */
enum { BELLS = 200 };
struct bell_side {
    const struct ring_opts *opts;
    struct ring *_Atomic ring;
    struct bell_side *other;
    bool first;
    unsigned heard;
    atomic_uint *left;
};

static void *bell_owner(void *arg)
{
    struct bell_side *s = arg;
    struct ring *r = ring_of(s->opts);
    struct ring *other;

    s->ring = r;
    while ((other = s->other->ring) == NULL)
        usleep(100);
    if (s->first)
        ring_doorbell(r, other, ud_make(OP_BELL, 0, 1));
    while (s->heard < BELLS) {
        struct ring_cqe cqe = next(r);

        if (ud_op(cqe.ud) == RING_WAKE_OP)
            continue;
        cr_assert(eq(u64, cqe.ud, ud_make(OP_BELL, 0, 1)));
        cr_assert(not(cqe.more));
        s->heard++;
        ring_doorbell(r, other, ud_make(OP_BELL, 0, 1));
    }
    cr_assert(eq(int, ring_wait(r, 0), 0)); /* the last doorbell goes out */
    atomic_fetch_sub(s->left, 1);
    while (atomic_load(s->left) > 0)
        usleep(100); /* nobody may ring a ring that is gone */
    struct ring_counts counts;

    ring_counts(r, &counts);
    cr_assert(eq(int, counts.doorbells_refused > 0, s->opts->no_msg_ring));
    ring_free(r);
    return NULL;
}

static void bells_between_two_threads(const struct ring_opts *o)
{
    atomic_uint left = 2;
    struct bell_side a = { .opts = o, .first = true, .left = &left };
    struct bell_side b = { .opts = o, .left = &left };
    pthread_t ta, tb;

    a.other = &b;
    b.other = &a;
    pthread_create(&ta, NULL, bell_owner, &a);
    pthread_create(&tb, NULL, bell_owner, &b);
    pthread_join(ta, NULL);
    pthread_join(tb, NULL);
    cr_assert(eq(uint, a.heard, BELLS));
    cr_assert(eq(uint, b.heard, BELLS));
}

Test(ring, doorbells_wake_the_other_thread_and_leave_no_completion_at_home, .timeout = 20)
{
    bells_between_two_threads(&small);
}

Test(ring, doorbells_by_eventfd_carry_the_same_user_data, .timeout = 20)
{
    struct ring_opts o = small;

    o.no_msg_ring = true;
    bells_between_two_threads(&o);
}

Test(ring, different_doorbells_by_eventfd_all_arrive_and_a_surplus_is_a_wake, .timeout = 20)
{
    enum { DIFFERENT = 20 };
    struct ring_opts o = small;
    struct ring *r;
    unsigned bells = 0, wakes = 0;

    o.no_msg_ring = true;
    r = ring_of(&o);
    for (uint32_t i = 1; i <= DIFFERENT; i++) {
        ring_doorbell(r, r, ud_make(OP_BELL, 0, i));
        ring_doorbell(r, r, ud_make(OP_BELL, 0, i)); /* merges */
    }
    for (struct ring_cqe cqe = next(r);;) {
        *(ud_op(cqe.ud) == RING_WAKE_OP ? &wakes : &bells) += 1;
        if (!ring_next(r, &cqe))
            break;
    }
    cr_assert(eq(uint, bells, 16));
    cr_assert(eq(uint, wakes, 1));
    expect_quiet(r, 0);
    ring_free(r);
}

/* The descriptor of the ring made last. */
static int last_ring_fd(void)
{
    char path[64], to[64];

    for (int fd = 1000; fd-- > 0;) {
        ssize_t n;

        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        n = readlink(path, to, sizeof(to));
        if (n == (ssize_t)strlen("anon_inode:[io_uring]") && memcmp(to + 12, "io_uring", 8) == 0)
            return fd;
    }
    return -1;
}

Test(ring, a_refused_doorbell_goes_by_eventfd_and_shows_nowhere_else, .timeout = 20)
{
    struct ring *r = ring_of(&small), *target = ring_of(&small);
    struct ring_counts counts = { 0 };
    int fd = last_ring_fd(), real = dup(fd);
    struct ring_cqe cqe;

    cr_assert(le(int, 0, fd));
    cr_assert(lt(int, 0, dup2(0, fd))); /* not a ring: MSG_RING answers -EBADFD */
    ring_doorbell(r, target, ud_make(OP_BELL, 0, 5));
    for (int i = 0; i < 100 && counts.doorbells_refused == 0; i++) {
        expect_quiet(r, 10);
        ring_counts(r, &counts);
    }
    cr_assert(eq(u64, counts.doorbells_refused, 1));
    dup2(real, fd);
    do
        cqe = next(target);
    while (ud_op(cqe.ud) == RING_WAKE_OP);
    cr_assert(eq(u64, cqe.ud, ud_make(OP_BELL, 0, 5)));
    ring_free(r);
    ring_free(target);
}

Test(ring, cancel_reports_itself_and_every_victim, .timeout = 20)
{
    struct ring *r = ring_of(&small);
    struct pair p = pair_of(r);
    bool cancelled = false, recv_over = false;

    ring_recv(r, p.server, ud_make(OP_RECV, 1, 0), true);
    expect_quiet(r, 0);
    ring_cancel_fd(r, p.server, ud_make(OP_CANCEL, 1, 0));
    while (!cancelled || !recv_over) {
        struct ring_cqe cqe = next(r);

        if (ud_op(cqe.ud) == OP_CANCEL) {
            cr_assert(eq(int, cqe.res, 1));
            cancelled = true;
        } else {
            cr_assert(eq(int, ud_op(cqe.ud), OP_RECV));
            cr_assert(eq(int, cqe.res, -ECANCELED));
            cr_assert(not(cqe.more));
            recv_over = true;
        }
    }
    ring_cancel_fd(r, p.server, ud_make(OP_CANCEL, 2, 0));
    cr_assert(le(int, next(r).res, 0)); /* none left */
    pair_close(r, &p);
}

Test(ring, more_requests_than_the_queue_holds_are_submitted_on_the_way, .timeout = 20)
{
    enum { SENDS = 100 };
    struct ring_opts o = { 8, 256, 16, 1024, false, NULL };
    struct ring *r = ring_of(&o);
    struct pair p = pair_of(r);

    for (uint32_t i = 0; i < SENDS; i++)
        ring_poll_in(r, p.server, ud_make(OP_POLL, 1, i));
    cr_assert(eq(int, (int)write(p.client, "x", 1), 1));
    for (uint32_t i = 0; i < SENDS; i++)
        cr_assert(eq(int, ud_op(next(r).ud), OP_POLL));
    pair_close(r, &p);
}

Test(ring, reads_and_writes_a_pipe_and_polls_it, .timeout = 20)
{
    struct ring *r = ring_of(&small);
    struct ring_cqe cqe;
    char got[4] = "";
    int fds[2];

    cr_assert(eq(int, pipe(fds), 0));
    ring_poll_in(r, fds[0], ud_make(OP_POLL, 1, 0));
    expect_quiet(r, 0);
    ring_write(r, fds[1], "abc", 3, ud_make(OP_WRITE, 1, 0));
    for (unsigned seen = 0; seen != 3;) {
        cqe = next(r);
        seen |= ud_op(cqe.ud) == OP_WRITE ? 1u : 2u;
        cr_assert(eq(int, cqe.more, ud_op(cqe.ud) == OP_POLL));
    }
    ring_read(r, fds[0], got, 3, ud_make(OP_READ, 1, 0));
    cqe = next(r);
    cr_assert(eq(int, cqe.res, 3));
    cr_assert(eq(str, got, "abc"));
    ring_free(r);
    close(fds[0]);
    close(fds[1]);
}

/* Lets the kernel answer one system call with -err, as a container's default profile answers
 * io_uring_setup (§2); with `op` ≥ 0 only when that is its second argument. */
static void forbid(unsigned call, int op, int err)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 3),
        BPF_STMT(BPF_JMP | BPF_JA, op < 0 ? 3 : 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)op, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)err),
    };
    struct sock_fprog prog = { ARRAY_LEN(code), code };

    cr_assert(eq(int, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0));
    cr_assert(eq(int, prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), 0));
}

static void expect_fails_at(const char *step, int want)
{
    const char *what = NULL;
    int err = 0;

    cr_assert(ring_new(&small, &err, &what) == NULL);
    cr_assert(eq(int, err, want));
    cr_assert(eq(int, strcmp(what, step), 0), "at %s", what);
}

Test(ring, names_the_step_when_io_uring_is_forbidden)
{
    forbid(SYS_io_uring_setup, -1, EPERM);
    expect_fails_at("io_uring_setup", -EPERM);
}

Test(ring, names_the_step_when_the_kernel_has_no_io_uring)
{
    forbid(SYS_io_uring_setup, -1, ENOSYS);
    expect_fails_at("io_uring_setup", -ENOSYS);
}

Test(ring, names_the_step_when_no_flags_are_accepted)
{
    forbid(SYS_io_uring_setup, -1, EINVAL);
    expect_fails_at("io_uring_setup", -EINVAL);
}

Test(ring, names_the_step_when_the_buffer_ring_is_refused)
{
    enum { REGISTER_PBUF_RING = 22 }; /* IORING_REGISTER_PBUF_RING */

    forbid(SYS_io_uring_register, REGISTER_PBUF_RING, ENOMEM);
    expect_fails_at("register buffer ring", -ENOMEM);
}
