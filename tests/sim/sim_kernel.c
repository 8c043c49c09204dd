/* tests/sim/sim_kernel.c: what becomes of requests: ring_sim.c's other half. */
#include "tests/sim/ring_sim.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

enum {
    RECVS_PER_TURN = 8, /* completions of one receive before others have their turn */
};

const char *const sim_op_names[] = { "accept", "receive",  "send",      "poll",  "read",
                                     "cancel", "doorbell", "poll once", "cancel" };

void sim_request_free(struct sim_request *q)
{
    q->file->recvs -= q->op == SIM_RECV;
    q->file->sends -= q->op == SIM_SEND;
    sim_file_drop(q->file);
    free(q->iov);
    free(q);
}

/* Completions */

void sim_events_push(struct sim_events *e, struct sim_event ev)
{
    if (e->n == e->cap) {
        e->cap = e->cap ? e->cap * 2 : 64;
        e->v = sim_must(realloc(e->v, e->cap * sizeof(*e->v)));
    }
    e->v[e->n++] = ev;
}

struct sim_event *sim_post(struct ring *r, struct sim_request *q, enum sim_op op,
                           struct ring_cqe cqe)
{
    const struct sim_opts *o = &r->net->o;
    struct sim_event ev = { .cqe = cqe, .op = op };

    ev.due_ns = r->net->now_ns;
    ev.key = sim_below(r->net, 1u << 30);
    if (o->cqe_delay_ms_max > 0 && sim_chance(r->net, o->late_cqe_pct)) {
        ev.due_ns += sim_below(r->net, (uint64_t)o->cqe_delay_ms_max * SIM_NS_PER_MS);
        r->net->counts.late_cqes++;
    }
    if (q != NULL) { /* within one request the order stays */
        if (ev.due_ns < q->last_due)
            ev.due_ns = q->last_due;
        if (ev.due_ns == q->last_due && ev.key <= q->last_key)
            ev.key = q->last_key + 1;
        q->last_due = ev.due_ns;
        q->last_key = ev.key;
    }
    sim_events_push(&r->coming, ev);
    return &r->coming.v[r->coming.n - 1];
}

static bool lose_more(struct ring *r)
{
    bool lost = sim_chance(r->net, r->net->o.lost_more_pct);

    r->net->counts.lost_more += lost;
    return lost;
}

uint64_t sim_payload_sum(const struct iovec *iov, size_t iov_n, size_t bytes)
{
    uint64_t sum = 14695981039346656037u; /* FNV-1a */

    for (size_t i = 0; i < iov_n && bytes > 0; i++) {
        const uint8_t *p = iov[i].iov_base;
        size_t n = min_sz(bytes, iov[i].iov_len);

        bytes -= n;
        while (n-- > 0)
            sum = (sum ^ *p++) * 1099511628211u;
    }
    return sum;
}

/* Each of these returns true when the request is over. */

static bool go_accept(struct ring *r, struct sim_request *q)
{
    struct sim_counts *counts = &r->net->counts;
    struct sim_file *f;

    if (q->file->shut_rd) {
        sim_post(r, q, q->op, (struct ring_cqe){ .ud = q->ud, .res = -EINVAL });
        return true;
    }
    while ((f = sim_file_pending(q->file)) != NULL) {
        bool fault = sim_chance(r->net, r->net->o.emfile_pct);
        int fd = fault ? -EMFILE : sim_fd_open(r->net, f);
        bool more = fd >= 0 && !lose_more(r);

        sim_post(r, q, q->op, (struct ring_cqe){ .ud = q->ud, .res = fd, .more = more });
        if (fd >= 0) {
            f->listener = NULL;
            counts->accepts++;
        } else {
            counts->emfile++;
        }
        if (!more)
            return true;
    }
    return false;
}

static void recv_some(struct ring *r, struct sim_request *q, bool more)
{
    const struct sim_opts *o = &r->net->o;
    struct sim_counts *counts = &r->net->counts;
    size_t n = min_sz(sim_file_ready(q->file), r->o.buf_bytes);
    uint16_t bid = r->idle[r->idle_first];
    uint8_t *buf = r->bufs + (size_t)bid * r->o.buf_bytes;

    if (sim_chance(r->net, o->short_recv_pct)) {
        n = 1 + sim_below(r->net, n);
        counts->short_recvs++;
    }
    r->idle_first = (r->idle_first + 1) % r->o.bufs;
    r->idle_n--;
    ASAN_UNPOISON_MEMORY_REGION(buf, r->o.buf_bytes);
    sim_file_take(q->file, buf, n);
    ASAN_POISON_MEMORY_REGION(buf, r->o.buf_bytes); /* until the owner sees the completion */
    counts->recvs++;
    counts->bytes_in += n;
    sim_post(r, q, q->op,
             (struct ring_cqe){ .ud = q->ud,
                                .res = (int32_t)n,
                                .more = more,
                                .nonempty = sim_file_ready(q->file) > 0,
                                .has_buf = true,
                                .bid = bid,
                                .buf = buf });
}

static bool go_recv(struct ring *r, struct sim_request *q)
{
    struct sim_counts *counts = &r->net->counts;
    int res;

    for (unsigned i = 0; i < RECVS_PER_TURN; i++) {
        bool more, fault;

        if (sim_file_ended(q->file, &res)) {
            sim_post(r, q, q->op, (struct ring_cqe){ .ud = q->ud, .res = res });
            return true;
        }
        if (sim_file_ready(q->file) == 0)
            return false;
        fault = sim_chance(r->net, r->net->o.enobufs_pct);
        if (r->idle_n == 0 || fault) {
            *(r->idle_n == 0 ? &counts->enobufs_dry : &counts->enobufs_fault) += 1;
            sim_post(r, q, q->op,
                     (struct ring_cqe){ .ud = q->ud, .res = -ENOBUFS, .nonempty = true });
            return true;
        }
        more = !lose_more(r);
        recv_some(r, q, more);
        if (!more)
            return true;
    }
    return false;
}

static bool go_send(struct ring *r, struct sim_request *q)
{
    struct sim_counts *counts = &r->net->counts;
    size_t n = min_sz(q->total, sim_file_room(q->file)), left;
    struct sim_event *ev;
    int err;

    if (q->start_ns > r->net->now_ns)
        return false;
    err = sim_file_send_error(q->file);
    if (err < 0) {
        sim_post(r, q, q->op, (struct ring_cqe){ .ud = q->ud, .res = err });
        return true;
    }
    if (n == 0 && q->total > 0) {
        counts->waiting_sends += !q->waited;
        q->waited = true;
        return false;
    }
    if (n > 1 && sim_chance(r->net, r->net->o.short_send_pct))
        n = 1 + sim_below(r->net, n - 1);
    counts->short_sends += n < q->total;
    counts->sends++;
    counts->bytes_out += n;
    left = n;
    for (size_t i = 0; i < q->iov_n && left > 0; i++) {
        size_t part = min_sz(left, q->iov[i].iov_len);

        sim_file_put(q->file, q->iov[i].iov_base, part);
        left -= part;
    }
    ev = sim_post(r, q, q->op, (struct ring_cqe){ .ud = q->ud, .res = (int32_t)n });
    ev->sum = sim_payload_sum(q->iov, q->iov_n, n);
    ev->iov = q->iov;
    ev->iov_n = q->iov_n;
    q->iov = NULL;
    return true;
}

static bool go_poll(struct ring *r, struct sim_request *q)
{
    const struct sim_file *f = q->file;
    bool ready =
        f->kind == SIM_UDP ? sim_udp_ready(f) : sim_file_ready(f) > 0 || f->in.fin_ready || f->dead;
    bool error = f->kind == SIM_UDP && (f->udp->errors_n > 0 || f->udp->err != 0);
    bool more;

    if (!ready || q->seen == f->arrivals)
        return false;
    q->seen = f->arrivals; /* several arrivals may be one edge, and none is without */
    more = !lose_more(r);
    sim_post(r, q, q->op,
             (struct ring_cqe){ .ud = q->ud, .res = POLLIN | (error ? POLLERR : 0), .more = more });
    return !more;
}

static int poll_mask(const struct sim_file *f)
{
    bool in = sim_file_ready(f) > 0 || f->in.fin_ready || f->dead;
    bool out = f->dead || (!f->shut_wr && sim_file_room(f) > 0);

    return (in ? POLLIN : 0) | (out ? POLLOUT : 0) | (f->dead ? POLLERR | POLLHUP : 0);
}

static bool go_poll_once(struct ring *r, struct sim_request *q)
{
    int hit = poll_mask(q->file) & (q->mask | POLLERR | POLLHUP);

    if (q->file->connecting || hit == 0)
        return false;
    sim_post(r, q, q->op, (struct ring_cqe){ .ud = q->ud, .res = hit });
    return true;
}

static bool go_read(struct ring *r, struct sim_request *q)
{
    size_t n = min_sz(q->total, sim_file_ready(q->file));
    int res = (int)n;

    if (n > 0)
        sim_file_take(q->file, q->iov[0].iov_base, n);
    else if (!sim_file_ended(q->file, &res))
        return false;
    sim_post(r, q, q->op, (struct ring_cqe){ .ud = q->ud, .res = res });
    return true;
}

static bool go(struct ring *r, struct sim_request *q)
{
    switch (q->op) {
    case SIM_ACCEPT:
        return go_accept(r, q);
    case SIM_RECV:
        return go_recv(r, q);
    case SIM_SEND:
        return go_send(r, q);
    case SIM_POLL:
        return go_poll(r, q);
    case SIM_POLL_ONCE:
        return go_poll_once(r, q);
    case SIM_READ:
        return go_read(r, q);
    case SIM_CANCEL:
    case SIM_CANCEL_UD:
    case SIM_BELL:
        break;
    }
    ASSERT(false); /* a request of no kind */
    return true;
}

void sim_pump(struct ring *r)
{
    struct sim_request **at = &r->requests, *first;

    while (*at != NULL) {
        struct sim_request *q = *at;

        if (!go(r, q)) {
            at = &q->next;
            continue;
        }
        *at = q->next;
        sim_request_free(q);
    }
    first = r->requests;
    if (first != NULL && first->next != NULL &&
        sim_chance(r->net, 50)) { /* nobody is always first */
        r->requests = first->next;
        first->next = NULL;
        *at = first;
    }
}

void sim_cancel(struct ring *r, struct sim_sqe *s, const struct sim_file *f)
{
    const struct sim_opts *o = &r->net->o;
    struct sim_counts *counts = &r->net->counts;
    struct sim_request **at = &r->requests;
    struct sim_event mine = *sim_post(r, NULL, SIM_CANCEL, (struct ring_cqe){ .ud = s->ud });
    size_t mine_at = r->coming.n - 1;
    int victims = 0;

    while (*at != NULL) {
        struct sim_request *q = *at;

        if (f != NULL ? q->file != f : q->ud != s->target_ud || victims > 0) {
            at = &q->next;
            continue;
        }
        victims++;
        if (q->op == SIM_RECV && sim_file_ready(q->file) > 0 && r->idle_n > 0 &&
            sim_chance(r->net, o->cancel_data_pct)) {
            recv_some(r, q, false);
            counts->cancel_data++;
        } else {
            sim_post(r, q, q->op, (struct ring_cqe){ .ud = q->ud, .res = -ECANCELED });
        }
        counts->cancelled++;
        counts->cancel_first +=
            mine.due_ns < q->last_due || (mine.due_ns == q->last_due && mine.key < q->last_key);
        *at = q->next;
        sim_request_free(q);
    }
    r->coming.v[mine_at].cqe.res = f != NULL ? victims : victims > 0 ? 0 : -ENOENT;
}

void sim_bell(struct ring *r, struct sim_sqe *s)
{
    struct sim_events *to = &s->target->coming;
    struct sim_counts *counts = &r->net->counts;
    struct sim_event ev = { .cqe = { .ud = s->ud }, .op = SIM_BELL };

    counts->bells++;
    for (size_t i = 0; i < to->n; i++)
        if (to->v[i].op == SIM_BELL && to->v[i].cqe.ud == s->ud && sim_chance(r->net, 50)) {
            counts->bells_merged++;
            return;
        }
    ev.due_ns = r->net->now_ns + sim_delay_ns(r->net, r->net->o.bell_delay_ms_max);
    ev.key = sim_below(r->net, 1u << 30);
    sim_events_push(to, ev);
}
