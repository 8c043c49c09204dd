/* engine/opsconn.c: the doors' connections. Nothing here waits: a client that is slow, silent or
 * hostile costs a slot until its deadline, and never a turn of control's loop. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/guard.h"
#include "engine/ops_int.h"

enum {
    OP_ACCEPT = OPS_OP_FIRST,
    OP_READ,
    OP_SEND,
    OP_CANCEL,
};
enum { AT_HTTP, AT_ADMIN }; /* idx of OP_ACCEPT */

static void arm_accepts(struct opsdoor *d)
{
    if (d->http_fd >= 0 && !d->http_armed) {
        ring_accept(d->ring, d->http_fd, ud_make(OP_ACCEPT, 0, AT_HTTP));
        d->http_armed = true;
    }
    if (d->admin_fd >= 0 && !d->admin_armed) {
        ring_accept(d->ring, d->admin_fd, ud_make(OP_ACCEPT, 0, AT_ADMIN));
        d->admin_armed = true;
    }
}

/* ---- connections --------------------------------------------------------------------------- */

static void arm_read(struct opsdoor *d, struct opsconn *c)
{
    size_t at = c->state == OC_READING ? c->in_n : 0; /* lingering forgets what it reads */

    ring_read(d->ring, c->fd, c->in + at, (unsigned)(sizeof(c->in) - at),
              ud_make(OP_READ, c->gen, c->idx));
    c->inflight++;
}

static void next_waiting(struct opsdoor *d);

static void free_slot(struct opsdoor *d, struct opsconn *c)
{
    ring_close(d->ring, c->fd);
    c->fd = -1;
    c->state = OC_FREE;
    c->gen = (c->gen + 1) & 0xffffff;
    if (!c->admin)
        next_waiting(d);
}

/* Whatever is in flight ends by the shutdown; the slot is free when it has. The cancel is for a
 * socket that is not connected any more, which shutdown refuses. */
void opsconn_close(struct opsdoor *d, struct opsconn *c)
{
    if (c->state == OC_CLOSING)
        return;
    if (c->listing)
        d->ops->list_cancel(d->ops->ctx, opsconn_owner(c));
    c->listing = false;
    if (!c->inflight) {
        free_slot(d, c);
        return;
    }
    c->state = OC_CLOSING;
    (void)ring_shutdown(c->fd, SHUT_RDWR);
    ring_cancel_fd(d->ring, c->fd, ud_make(OP_CANCEL, c->gen, c->idx));
}

static struct opsconn *oldest_of(struct opsdoor *d, bool idle_only)
{
    struct opsconn *best = NULL;

    for (unsigned i = 0; i < OPS_HTTP_SLOTS; i++) {
        struct opsconn *c = &d->conn[i];
        bool idle = c->state == OC_READING || c->state == OC_LINGER;

        if (c->state == OC_FREE || c->state == OC_CLOSING || (idle_only && !idle))
            continue;
        if (!best || c->serial < best->serial)
            best = c;
    }
    return best;
}

/* Scrapers that open and say nothing push each other out, not those who ask. */
static void make_room(struct opsdoor *d)
{
    unsigned open = 0;
    struct opsconn *c;

    for (unsigned i = 0; i < OPS_HTTP_SLOTS; i++)
        open += d->conn[i].state != OC_FREE && d->conn[i].state != OC_CLOSING;
    if (open < OPS_HTTP_MAX)
        return;
    c = oldest_of(d, true);
    c = c ? c : oldest_of(d, false);
    opsconn_close(d, c);
}

static struct opsconn *free_conn(struct opsdoor *d, bool admin)
{
    for (unsigned i = admin ? OPS_HTTP_SLOTS : 0; i < (admin ? OPS_SLOTS : OPS_HTTP_SLOTS); i++)
        if (d->conn[i].state == OC_FREE)
            return &d->conn[i];
    return NULL;
}

static void start(struct opsdoor *d, struct opsconn *c, int fd)
{
    c->fd = fd;
    c->state = OC_READING;
    c->serial = ++d->serial;
    c->deadline_ms = d->now_ms + OPS_EXCHANGE_MS;
    c->in_n = c->out_n = c->out_sent = 0;
    c->rows = 0;
    c->last = c->listing = false;
    arm_read(d, c);
}

/* A burst is accepted faster than the old ones can leave: it waits for them, and should even the
 * queue be full, its oldest goes, for it is idle too. */
static void wait_for_slot(struct opsdoor *d, int fd)
{
    if (d->waiting_n == OPS_WAITING) {
        ring_close(d->ring, d->waiting[d->waiting_from]);
        d->waiting_from = (d->waiting_from + 1) % OPS_WAITING;
        d->waiting_n--;
    }
    d->waiting[(d->waiting_from + d->waiting_n++) % OPS_WAITING] = fd;
}

static void next_waiting(struct opsdoor *d)
{
    struct opsconn *c = d->waiting_n ? free_conn(d, false) : NULL;

    if (!c)
        return;
    int fd = d->waiting[d->waiting_from];

    d->waiting_from = (d->waiting_from + 1) % OPS_WAITING;
    d->waiting_n--;
    start(d, c, fd);
    if (d->waiting_n)
        make_room(d);
}

static void on_accept(struct opsdoor *d, const struct ring_cqe *cqe)
{
    bool admin = ud_idx(cqe->ud) == AT_ADMIN;
    struct opsconn *c;

    if (!cqe->more) /* over, for want of descriptors perhaps: armed again by the tick */
        *(admin ? &d->admin_armed : &d->http_armed) = false;
    if (cqe->res < 0)
        return;
    if (!admin)
        make_room(d);
    c = !admin && d->waiting_n ? NULL : free_conn(d, admin);
    if (c)
        start(d, c, cqe->res);
    else if (admin)
        ring_close(d->ring, cqe->res);
    else
        wait_for_slot(d, cqe->res);
}

static void on_read(struct opsdoor *d, struct opsconn *c, int32_t res)
{
    if (res < 0 && res != -EINTR && res != -EAGAIN) {
        opsconn_close(d, c);
        return;
    }
    if (c->state == OC_LINGER) {
        if (res == 0)
            opsconn_close(d, c);
        else
            arm_read(d, c); /* bounded by the deadline */
        return;
    }
    c->in_n += res > 0 ? (size_t)res : 0;
    (c->admin ? admin_on_input : http_on_input)(d, c, res == 0);
    if (c->state == OC_READING) { /* not whole yet */
        if (res == 0 || c->in_n == sizeof(c->in))
            opsconn_close(d, c);
        else
            arm_read(d, c);
    }
}

static void arm_send(struct opsdoor *d, struct opsconn *c)
{
    c->iov = (struct iovec){ c->out + c->out_sent, c->out_n - c->out_sent };
    c->msg = (struct msghdr){ .msg_iov = &c->iov, .msg_iovlen = 1 };
    ring_sendmsg(d->ring, c->fd, &c->msg, ud_make(OP_SEND, c->gen, c->idx));
    c->inflight++;
}

void opsconn_send(struct opsdoor *d, struct opsconn *c, bool last)
{
    c->state = OC_SENDING;
    c->last = last;
    c->out_sent = 0;
    arm_send(d, c);
}

static void on_sent(struct opsdoor *d, struct opsconn *c, int32_t res)
{
    if (res < 0 && res != -EINTR && res != -EAGAIN) {
        opsconn_close(d, c);
        return;
    }
    c->out_sent += res > 0 ? (size_t)res : 0;
    if (c->out_sent < c->out_n) {
        arm_send(d, c);
        return;
    }
    c->out_n = c->out_sent = 0;
    if (!c->last) {
        c->deadline_ms = d->now_ms + OPS_EXCHANGE_MS; /* it reads: another page, another deadline */
        admin_on_sent(d, c);
        return;
    }
    /* Closing while something unread lies in the socket would reset it and take the answer along.
     */
    (void)ring_shutdown(c->fd, SHUT_WR);
    c->state = OC_LINGER;
    c->deadline_ms = min_u64(c->deadline_ms, d->now_ms + OPS_LINGER_MS);
    arm_read(d, c);
}

void opsdoor_on_cqe(struct opsdoor *d, const struct ring_cqe *cqe, uint64_t now_ms)
{
    uint32_t idx = ud_idx(cqe->ud);
    struct opsconn *c;

    d->now_ms = now_ms;
    if (ud_op(cqe->ud) >= REDIRECT_OP_FIRST) {
        redirect_on_cqe(d->redirect, cqe, now_ms);
        return;
    }
    if (ud_op(cqe->ud) == OP_ACCEPT) {
        on_accept(d, cqe);
        return;
    }
    if (ud_op(cqe->ud) == OP_CANCEL || idx >= OPS_SLOTS)
        return;
    c = &d->conn[idx];
    if (c->state == OC_FREE || c->gen != ud_gen(cqe->ud))
        return; /* cannot be: a slot is freed when nothing of it is in flight */
    ASSERT(c->inflight > 0);
    c->inflight--;
    if (c->state == OC_CLOSING) {
        if (!c->inflight)
            free_slot(d, c);
    } else if (ud_op(cqe->ud) == OP_READ) {
        on_read(d, c, cqe->res);
    } else {
        on_sent(d, c, cqe->res);
    }
}

void opsdoor_tick(struct opsdoor *d, uint64_t now_ms)
{
    d->now_ms = now_ms;
    for (unsigned i = 0; i < OPS_SLOTS; i++) {
        struct opsconn *c = &d->conn[i];

        if (c->state != OC_FREE && c->state != OC_CLOSING && now_ms >= c->deadline_ms)
            opsconn_close(d, c);
    }
    arm_accepts(d);
    if (d->redirect)
        redirect_tick(d->redirect, now_ms);
}

/* ---- the doors ----------------------------------------------------------------------------- */

/* backlog: exchanges at a time. The descriptor, or -errno and the line. */
static int tcp_listen(const struct listen_at *door, const char *flag, int backlog,
                      struct netaddr *bound, char *why, size_t cap)
{
    static const uint8_t any4[16] = { [10] = 0xff, [11] = 0xff };
    struct netaddr at = door->addr;
    char text[NETADDR_TEXT_MAX], holder[96] = "";
    int fd = ring_listen_tcp(&at, false, false, backlog, bound);

    if ((fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL) && !door->named) { /* a host without IPv6 */
        memcpy(at.ip, any4, sizeof(at.ip));
        fd = ring_listen_tcp(&at, false, false, backlog, bound);
    }
    if (fd >= 0)
        return fd;
    netaddr_text(&at, text);
    if (fd == -EADDRINUSE)
        guard_port_holder(at.port, holder, sizeof(holder));
    snprintf(why, cap, "port %u (%s %s): %s%s%s", (unsigned)at.port, flag, text, strerror(-fd),
             holder[0] ? "; held by " : "", holder);
    return fd;
}

/* Everything else serves without it (dig.md §1). */
static void open_redirect(struct opsdoor *d, const struct config *c)
{
    char why[512];
    int fd = tcp_listen(&c->dig_redirect, "--listen-redirect", REDIRECT_MAX, &d->redirect_at, why,
                        sizeof(why));

    if (fd >= 0 && !(d->redirect = redirect_new(d->ring, fd))) {
        ring_close(NULL, fd);
        snprintf(why, sizeof(why), "port %u: not enough memory", (unsigned)d->redirect_at.port);
    }
    if (!d->redirect && d->log)
        log_text(d->log, LOG_WARN, "nothing is redirected to https: %s", why);
}

struct opsdoor *opsdoor_new(struct ring *r, const struct ops *ops, const struct config *c,
                            struct logq *log, int *err, char *why, size_t cap)
{
    struct opsdoor *d = calloc(1, sizeof(*d));
    size_t at = 0;

    *err = -ENOMEM;
    snprintf(why, cap, "not enough memory for the HTTP and admin doors");
    if (!d)
        return NULL;
    *d = (struct opsdoor){
        .ring = r, .ops = ops, .cfg = c, .log = log, .http_fd = -1, .admin_fd = -1
    };
    /* Touched as slots are used: an unused one costs address space only. */
    d->outs = malloc((size_t)OPS_HTTP_SLOTS * OPS_HTTP_OUT_BYTES +
                     (size_t)OPS_ADMIN_MAX * OPS_ADMIN_OUT_BYTES);
    if (!d->outs)
        goto free_door;
    for (unsigned i = 0; i < OPS_SLOTS; i++) {
        struct opsconn *k = &d->conn[i];

        k->idx = i;
        k->fd = -1;
        k->admin = i >= OPS_HTTP_SLOTS;
        k->out = d->outs + at;
        k->out_cap = k->admin ? OPS_ADMIN_OUT_BYTES : OPS_HTTP_OUT_BYTES;
        at += k->out_cap;
    }
    if (c->http_on) {
        d->http_fd = tcp_listen(&c->http, "--listen-http", OPS_HTTP_MAX, &d->http_at, why, cap);
        if (d->http_fd < 0) {
            *err = d->http_fd;
            goto free_door;
        }
    }
    if (c->admin_path[0]) {
        d->admin_fd = admin_listen(c->admin_path, why, cap);
        if (d->admin_fd < 0) {
            *err = d->admin_fd;
            goto close_http;
        }
    }
    arm_accepts(d);
    if (c->dig_redirect_on)
        open_redirect(d, c);
    *err = 0;
    why[0] = '\0';
    return d;
close_http:
    if (d->http_fd >= 0)
        ring_close(NULL, d->http_fd);
free_door:
    free(d->outs);
    free(d);
    return NULL;
}

void opsdoor_free(struct opsdoor *d)
{
    if (!d)
        return;
    for (unsigned i = 0; i < OPS_SLOTS; i++)
        if (d->conn[i].state != OC_FREE) {
            (void)ring_shutdown(d->conn[i].fd,
                                SHUT_RDWR); /* ends what still reads into our memory */
            ring_close(NULL, d->conn[i].fd);
        }
    for (unsigned i = 0; i < d->waiting_n; i++)
        ring_close(NULL, d->waiting[(d->waiting_from + i) % OPS_WAITING]);
    if (d->http_fd >= 0)
        ring_close(NULL, d->http_fd);
    if (d->admin_fd >= 0) {
        ring_close(NULL, d->admin_fd);
        unlink(d->cfg->admin_path);
    }
    redirect_free(d->redirect);
    free(d->outs);
    free(d);
}

bool opsdoor_redirect_bound(const struct opsdoor *d, struct netaddr *at)
{
    if (!d->redirect)
        return false;
    *at = d->redirect_at;
    return true;
}

bool opsdoor_http_bound(const struct opsdoor *d, struct netaddr *at)
{
    if (d->http_fd < 0)
        return false;
    *at = d->http_at;
    return true;
}
