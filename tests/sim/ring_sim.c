/* tests/sim/ring_sim.c: engine/ring.h over sim_net.c. What the kernel may do, this does by the
 * seed: end a multishot at any completion, complete late and in another order, report a
 * cancellation before its victims, complete a cancelled receive with data, send a part. What an
 * owner may not do is noticed: see sim_net_check. */
#include "tests/sim/ring_sim.h"

#include <errno.h>
#include <stdlib.h>

enum {
    IOV_MAX_SIM = 1024, /* the kernel's */
    BUF_FILL = 0xdb,    /* what a buffer holds after its return */
};

struct ring *ring_new(const struct ring_opts *o, int *err, const char **what)
{
    struct ring *r = sim_must(calloc(1, sizeof(*r)));

    *err = 0;
    *what = "";
    r->net = sim_net_now();
    r->o = *o;
    r->sq = sim_must(calloc(o->sq_entries + RING_BORROW_MAX, sizeof(*r->sq)));
    if (o->bufs > 0) {
        r->bufs = sim_must(calloc(o->bufs, o->buf_bytes));
        r->idle = sim_must(calloc(o->bufs, sizeof(*r->idle)));
        r->back = sim_must(calloc(o->bufs, sizeof(*r->back)));
        r->leased = sim_must(calloc(o->bufs, sizeof(*r->leased)));
        ASAN_POISON_MEMORY_REGION(r->bufs, (size_t)o->bufs * o->buf_bytes);
    }
    for (unsigned i = 0; i < o->bufs; i++)
        r->idle[r->idle_n++] = (uint16_t)i;
    r->next = r->net->rings;
    r->net->rings = r;
    return r;
}

void ring_free(struct ring *r)
{
    struct ring **at = &r->net->rings;

    if (r->leased_n > 0)
        sim_net_break(r->net, "ring freed with %u buffers leased", r->leased_n);
    while (r->requests != NULL) {
        struct sim_request *q = r->requests;

        if (q->file->fd < 0)
            sim_net_break(r->net, "ring freed with a %s on a closed descriptor",
                          sim_op_names[q->op]);
        r->requests = q->next;
        sim_request_free(q);
    }
    for (size_t i = 0; i < r->coming.n; i++) {
        if (r->coming.v[i].op == SIM_ACCEPT && r->coming.v[i].cqe.res >= 0)
            sim_fd_close(r->net, r->coming.v[i].cqe.res); /* as the end of the process would */
        free(r->coming.v[i].iov);
    }
    for (size_t i = r->taken; i < r->here.n; i++) {
        if (r->here.v[i].op == SIM_ACCEPT && r->here.v[i].cqe.res >= 0)
            sim_fd_close(r->net, r->here.v[i].cqe.res);
        free(r->here.v[i].iov);
    }
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    ASAN_UNPOISON_MEMORY_REGION(r->bufs, (size_t)r->o.bufs * r->o.buf_bytes);
    free(r->coming.v);
    free(r->here.v);
    free(r->bufs);
    free(r->idle);
    free(r->back);
    free(r->leased);
    free(r->sq);
    free(r);
}

/* Submission */

static void check_arming(struct ring *r, const struct sim_request *q)
{
    struct sim_file *f = q->file;

    if (f->kind == SIM_UDP ? q->op != SIM_POLL
                           : f->kind != (q->op == SIM_ACCEPT ? SIM_LISTENER : SIM_SOCKET))
        sim_net_break(r->net, "%s on the wrong kind of socket", sim_op_names[q->op]);
    if (q->op == SIM_RECV && f->recvs++ > 0)
        sim_net_break(r->net, "two receives armed on descriptor %d", f->fd);
    if (q->op == SIM_SEND && f->sends++ > 0)
        sim_net_break(r->net, "two sends in flight on descriptor %d (io_uring.md §8)", f->fd);
}

static void submit_one(struct ring *r, struct sim_sqe *s)
{
    const struct sim_opts *o = &r->net->o;
    struct sim_file *f = sim_fd_file(r->net, s->fd);
    struct sim_request *q;

    if (s->op == SIM_BELL) {
        sim_bell(r, s);
        return;
    }
    if (s->op == SIM_CANCEL_UD) {
        sim_cancel(r, s, NULL);
        return;
    }
    if (f == NULL || f->serial != s->serial) {
        sim_net_break(r->net, "%s on descriptor %d, which was closed %s", sim_op_names[s->op],
                      s->fd, s->serial ? "before it was submitted" : "already");
        sim_post(r, NULL, s->op, (struct ring_cqe){ .ud = s->ud, .res = -EBADF });
        return;
    }
    if (s->op == SIM_CANCEL) {
        sim_cancel(r, s, f);
        return;
    }
    q = sim_must(calloc(1, sizeof(*q)));
    q->op = s->op;
    q->file = f;
    q->ud = s->ud;
    q->mask = s->mask;
    sim_file_hold(f);
    if (s->op == SIM_SEND || s->op == SIM_READ) {
        q->iov_n = s->msg != NULL ? s->msg->msg_iovlen : 1;
        ASSERT(q->iov_n <= IOV_MAX_SIM);
        q->iov = sim_must(calloc(q->iov_n + 1, sizeof(*q->iov)));
        memcpy(q->iov, s->msg != NULL ? s->msg->msg_iov : &s->one, q->iov_n * sizeof(*q->iov));
        for (size_t i = 0; i < q->iov_n; i++)
            q->total += q->iov[i].iov_len;
        if (s->op == SIM_SEND && sim_chance(r->net, o->late_send_pct)) {
            q->start_ns = r->net->now_ns + sim_delay_ns(r->net, o->cqe_delay_ms_max);
            r->net->counts.late_sends++;
        }
    }
    check_arming(r, q);
    q->next = r->requests;
    r->requests = q;
}

static void submit(struct ring *r)
{
    for (unsigned i = 0; i < r->sq_n; i++)
        submit_one(r, &r->sq[i]);
    r->sq_n = r->aside_n = 0;
}

static struct sim_sqe *prepare(struct ring *r, enum sim_op op, int fd, uint64_t ud)
{
    const struct sim_file *f = sim_fd_file(r->net, fd);
    struct sim_sqe *s;

    if (r->sq_n == r->o.sq_entries && !r->lent) {
        submit(r);
        sim_pump(r);
    }
    s = &r->sq[r->sq_n++];
    *s = (struct sim_sqe){ .op = op, .fd = fd, .serial = f ? f->serial : 0, .ud = ud };
    return s;
}

void ring_accept(struct ring *r, int fd, uint64_t ud)
{
    prepare(r, SIM_ACCEPT, fd, ud);
}

void ring_recv(struct ring *r, int fd, uint64_t ud, bool empty_now)
{
    (void)empty_now; /* a hint: a poll that finds data goes on at once */
    ASSERT(r->o.bufs > 0);
    prepare(r, SIM_RECV, fd, ud);
}

void ring_sendmsg(struct ring *r, int fd, const struct msghdr *msg, uint64_t ud)
{
    prepare(r, SIM_SEND, fd, ud)->msg = msg;
}

void ring_poll_in(struct ring *r, int fd, uint64_t ud)
{
    prepare(r, SIM_POLL, fd, ud);
}

void ring_poll_once(struct ring *r, int fd, int mask, uint64_t ud)
{
    prepare(r, SIM_POLL_ONCE, fd, ud)->mask = mask;
}

void ring_cancel_ud(struct ring *r, uint64_t target, uint64_t ud)
{
    prepare(r, SIM_CANCEL_UD, -1, ud)->target_ud = target;
}

void ring_read(struct ring *r, int fd, void *p, unsigned n, uint64_t ud)
{
    prepare(r, SIM_READ, fd, ud)->one = (struct iovec){ p, n };
}

void ring_write(struct ring *r, int fd, const void *p, unsigned n, uint64_t ud)
{
    prepare(r, SIM_SEND, fd, ud)->one = (struct iovec){ (void *)(uintptr_t)p, n };
}

void ring_cancel_fd(struct ring *r, int fd, uint64_t ud)
{
    prepare(r, SIM_CANCEL, fd, ud);
}

/* Its thread is still in ring_wait, although completions may have come: it has not run yet. */
static bool asleep(const struct ring *r)
{
    return !(r->busy || r->again || r->sq_n > r->aside_n || r->taken < r->here.n);
}

void ring_doorbell(struct ring *r, struct ring *target, uint64_t ud)
{
    ASSERT(ud != 0);
    if (target->o.mail != NULL && !asleep(target)) {
        r->net->counts.bells_spared++;
        return;
    }
    prepare(r, SIM_BELL, -1, ud)->target = target;
}

bool ring_borrow(struct ring *target)
{
    if (target->lent || !asleep(target) || !sim_chance(target->net, target->net->o.lend_pct))
        return false;
    target->lent = true;
    target->net->counts.lent++;
    return true;
}

bool ring_give_back(struct ring *target)
{
    ASSERT(target->lent);
    ASSERT(target->sq_n <= RING_BORROW_MAX);
    target->lent = false;
    target->aside_n = target->sq_n;
    return target->sq_n > 0;
}

void ring_wake(struct ring *target)
{
    struct sim_event ev = { .cqe = { .ud = ud_make(RING_WAKE_OP, 0, 0), .res = 8 },
                            .op = SIM_BELL };

    for (size_t i = 0; i < target->coming.n; i++)
        if (target->coming.v[i].cqe.ud == ev.cqe.ud)
            return;
    ev.due_ns = target->net->now_ns;
    target->net->counts.wakes++;
    sim_events_push(&target->coming, ev);
}

/* Waiting */

static int event_order(const void *pa, const void *pb)
{
    const struct sim_event *a = pa, *b = pb;

    if (a->due_ns != b->due_ns)
        return a->due_ns < b->due_ns ? -1 : 1;
    return a->key < b->key ? -1 : a->key > b->key;
}

static void gather(struct ring *r)
{
    size_t kept = 0, first;

    if (r->here.n > r->taken)
        memmove(r->here.v, r->here.v + r->taken, (r->here.n - r->taken) * sizeof(*r->here.v));
    r->here.n -= r->taken;
    r->taken = 0;
    first = r->here.n;
    for (size_t i = 0; i < r->coming.n; i++) {
        if (r->coming.v[i].due_ns <= r->net->now_ns)
            sim_events_push(&r->here, r->coming.v[i]);
        else
            r->coming.v[kept++] = r->coming.v[i];
    }
    r->coming.n = kept;
    if (r->here.n > first)
        qsort(r->here.v + first, r->here.n - first, sizeof(*r->here.v), event_order);
}

int ring_wait(struct ring *r, uint64_t timeout_ns)
{
    uint64_t now = r->net->now_ns;

    ASSERT(!r->lent);
    for (unsigned i = 0; i < r->back_n; i++)
        r->idle[(r->idle_first + r->idle_n++) % r->o.bufs] = r->back[i];
    r->back_n = 0;
    submit(r);
    sim_net_deliver(r->net);
    sim_pump(r);
    gather(r);
    r->busy = r->here.n > 0;
    /* The owner said how long it would sleep before it knew what time it is. When it comes back it
     * works, and says so again: that is when it really falls asleep. */
    r->again = r->waited_ns != now;
    r->waited_ns = now;
    r->deadline_ns = timeout_ns > SIM_NEVER - now ? SIM_NEVER : now + timeout_ns;
    return 0;
}

bool ring_next(struct ring *r, struct ring_cqe *out)
{
    struct sim_event *ev;

    if (r->taken == r->here.n)
        return false;
    ev = &r->here.v[r->taken++];
    *out = ev->cqe;
    if (ev->cqe.has_buf) {
        ASAN_UNPOISON_MEMORY_REGION(out->buf, (size_t)out->res); /* and no byte more */
        ASSERT(!r->leased[out->bid]);
        r->leased[out->bid] = true;
        r->leased_n++;
    }
    if (ev->iov != NULL && sim_payload_sum(ev->iov, ev->iov_n, (size_t)ev->cqe.res) != ev->sum)
        sim_net_break(r->net, "the payload of a send changed before its completion");
    free(ev->iov);
    ev->iov = NULL;
    return true;
}

void ring_counts(const struct ring *r, struct ring_counts *out)
{
    *out = r->counts;
}

void ring_buf_return(struct ring *r, uint16_t bid)
{
    uint8_t *buf = r->bufs + (size_t)bid * r->o.buf_bytes;

    ASSERT(bid < r->o.bufs);
    ASSERT(r->leased[bid]);
    r->leased[bid] = false;
    r->leased_n--;
    ASAN_UNPOISON_MEMORY_REGION(buf, r->o.buf_bytes);
    memset(buf, BUF_FILL, r->o.buf_bytes);
    ASAN_POISON_MEMORY_REGION(buf, r->o.buf_bytes);
    r->back[r->back_n++] = bid;
}

unsigned ring_bufs_free(const struct ring *r)
{
    return r->o.bufs - r->leased_n;
}

unsigned ring_buf_bytes(const struct ring *r)
{
    return r->o.buf_bytes;
}

/* What sim_net.c asks. */

bool sim_ring_awake(struct ring *r)
{
    uint64_t now = r->net->now_ns;
    bool awake;

    sim_pump(r);
    awake = r->busy || r->again || r->sq_n > 0 || r->taken < r->here.n || r->deadline_ns <= now;
    for (size_t i = 0; i < r->coming.n; i++)
        awake |= r->coming.v[i].due_ns <= now;
    return awake;
}

bool sim_rings_runnable(struct sim_net *net)
{
    bool runnable = false;

    for (struct ring *r = net->rings; r != NULL; r = r->next)
        runnable |= sim_ring_awake(r);
    return runnable;
}

uint64_t sim_rings_next_ns(struct sim_net *net)
{
    uint64_t next = SIM_NEVER;

    for (struct ring *r = net->rings; r != NULL; r = r->next) {
        next = min_u64(next, r->deadline_ns);
        for (size_t i = 0; i < r->coming.n; i++)
            next = min_u64(next, r->coming.v[i].due_ns);
        for (const struct sim_request *q = r->requests; q != NULL; q = q->next)
            if (q->start_ns > net->now_ns)
                next = min_u64(next, q->start_ns);
    }
    return next;
}

const char *sim_rings_check(struct sim_net *net)
{
    for (struct ring *r = net->rings; r != NULL; r = r->next) {
        if (r->leased_n > 0)
            return "a provided buffer is still leased";
        for (const struct sim_request *q = r->requests; q != NULL; q = q->next)
            if (q->file->fd < 0)
                return "a request is in flight on a closed descriptor";
        for (size_t i = 0; i < r->coming.n; i++)
            if (r->coming.v[i].op == SIM_RECV || r->coming.v[i].op == SIM_SEND)
                return "a receive's or send's completion was never taken";
    }
    return NULL;
}

/* Plain socket calls */

int ring_listen_tcp(const struct netaddr *at, bool v6only, bool reuseport, int backlog,
                    struct netaddr *bound)
{
    return sim_listen(sim_net_now(), at, v6only, reuseport, (unsigned)backlog, bound);
}

void ring_close(struct ring *r, int fd)
{
    (void)r;
    sim_fd_close(sim_net_now(), fd);
}

int ring_shutdown(int fd, int how)
{
    struct sim_file *f = sim_fd_file(sim_net_now(), fd);

    if (f == NULL)
        return -EBADF;
    if (f->dead)
        return -ENOTCONN;
    if (how != SHUT_WR)
        f->shut_rd = true;
    if (how != SHUT_RD && f->kind == SIM_SOCKET)
        sim_file_fin(f);
    return 0;
}

int ring_send_now(int fd, const struct msghdr *msg)
{
    struct sim_net *net = sim_net_now();
    struct sim_file *f = sim_fd_file(net, fd);
    size_t left, sent = 0, total = 0;
    int err;

    if (f == NULL)
        return -EBADF;
    if (f->sends > 0)
        sim_net_break(net, "a send at once beside one in flight on descriptor %d", fd);
    if ((err = sim_file_send_error(f)) != 0)
        return err;
    left = sim_file_room(f);
    if (left > 1 && sim_chance(net, net->o.short_send_pct))
        left = 1 + sim_below(net, (unsigned)left);
    for (size_t i = 0; i < msg->msg_iovlen && left > 0; i++) {
        size_t n = min_sz(left, msg->msg_iov[i].iov_len);

        sim_file_put(f, msg->msg_iov[i].iov_base, n);
        left -= n;
        sent += n;
    }
    for (size_t i = 0; i < msg->msg_iovlen; i++)
        total += msg->msg_iov[i].iov_len;
    f->no_space = sent < total;
    net->counts.bytes_out += sent;
    return sent > 0 ? (int)sent : -EAGAIN;
}

int ring_peername(int fd, struct netaddr *out)
{
    struct sim_file *f = sim_fd_file(sim_net_now(), fd);

    if (f == NULL)
        return -EBADF;
    if (f->kind == SIM_LISTENER || f->dead)
        return -ENOTCONN;
    *out = f->remote;
    return 0;
}

int ring_sockname(int fd, struct netaddr *out)
{
    struct sim_file *f = sim_fd_file(sim_net_now(), fd);

    if (f == NULL)
        return -EBADF;
    *out = f->local;
    return 0;
}

int ring_tune_tcp(int fd)
{
    return sim_fd_file(sim_net_now(), fd) != NULL ? 0 : -EBADF;
}
