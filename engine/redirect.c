#include "engine/redirect.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { OP_ACCEPT = REDIRECT_OP_FIRST, OP_READ, OP_SEND, OP_CANCEL };
static_assert((int)OP_CANCEL <= (int)OPS_OP_LAST, "the doors' operations");

static const char DEFAULT_HOST[] = "relay.dig.net"; /* dig.md §15.4 */

enum state { ST_FREE, ST_READING, ST_SENDING, ST_LINGER, ST_CLOSING };

struct slot {
    enum state state;
    int fd;
    uint32_t idx, gen; /* gen is 24 bits, as in user_data */
    unsigned inflight;
    uint64_t serial, deadline_ms; /* serial: who came first */
    size_t in_n, out_n, out_sent;
    struct http_head head;
    struct iovec iov;
    struct msghdr msg;
    uint8_t in[HTTP_HEAD_BYTES_MAX];
    char out[REDIRECT_OUT_BYTES];
};

struct redirect {
    struct ring *ring;
    int fd;
    bool armed;
    uint64_t now_ms, serial;
    struct slot slot[REDIRECT_SLOTS]; /* touched as they are used */
};

/* ---- the answer ---------------------------------------------------------------------------- */

/* What stands in a URL's authority, and nothing that would end it or begin another field. */
static bool host_ok(struct bytes host)
{
    if (host.n > REDIRECT_HOST_MAX)
        return false;
    for (size_t i = 0; i < host.n; i++)
        if (host.p[i] <= ' ' || host.p[i] >= 0x7f || strchr("\"#/<>?@\\^`{|}", host.p[i]))
            return false;
    return true;
}

size_t redirect_answer(const struct http_head *h, char *out, size_t cap)
{
    struct bytes host = h->host.n ? h->host : bytes_str(DEFAULT_HOST);
    bool rooted = h->path.n && h->path.p[0] == '/'; /* else "*", or CONNECT's authority */
    struct bytes path = rooted ? h->path : bytes_str("/");
    struct bytes query = rooted ? h->query : bytes_of(NULL, 0);
    int n;

    if (!host_ok(host))
        return 0;
    n = snprintf(out, cap,
                 "HTTP/1.1 301 Moved Permanently\r\nLocation: https://%.*s%.*s%s%.*s\r\n"
                 "Content-Length: 0\r\nConnection: close\r\n\r\n",
                 (int)host.n, (const char *)host.p, (int)path.n, (const char *)path.p,
                 query.p ? "?" : "", (int)query.n, query.n ? (const char *)query.p : "");
    return n > 0 && (size_t)n < cap ? (size_t)n : 0;
}

/* ---- connections --------------------------------------------------------------------------- */

static void arm_accept(struct redirect *d)
{
    if (d->armed)
        return;
    ring_accept(d->ring, d->fd, ud_make(OP_ACCEPT, 0, 0));
    d->armed = true;
}

static void arm_read(struct redirect *d, struct slot *s)
{
    size_t at = s->state == ST_READING ? s->in_n : 0; /* lingering forgets what it reads */

    ring_read(d->ring, s->fd, s->in + at, (unsigned)(sizeof(s->in) - at),
              ud_make(OP_READ, s->gen, s->idx));
    s->inflight++;
}

static void free_slot(struct redirect *d, struct slot *s)
{
    ring_close(d->ring, s->fd);
    s->fd = -1;
    s->state = ST_FREE;
    s->gen = (s->gen + 1) & 0xffffff;
}

/* As opsconn_close: what is in flight ends by the shutdown, or by the cancel. */
static void close_slot(struct redirect *d, struct slot *s)
{
    if (s->state == ST_CLOSING)
        return;
    if (!s->inflight) {
        free_slot(d, s);
        return;
    }
    s->state = ST_CLOSING;
    (void)ring_shutdown(s->fd, SHUT_RDWR);
    ring_cancel_fd(d->ring, s->fd, ud_make(OP_CANCEL, s->gen, s->idx));
}

static bool is_open(const struct slot *s)
{
    return s->state != ST_FREE && s->state != ST_CLOSING;
}

unsigned redirect_open_slots(const struct redirect *d)
{
    unsigned n = 0;

    for (unsigned i = 0; i < REDIRECT_SLOTS; i++)
        n += is_open(&d->slot[i]);
    return n;
}

/* Who opens and says nothing pushes out his like, who has waited longer. */
static void make_room(struct redirect *d)
{
    struct slot *oldest = NULL;

    if (redirect_open_slots(d) < REDIRECT_MAX)
        return;
    for (unsigned i = 0; i < REDIRECT_SLOTS; i++) {
        struct slot *s = &d->slot[i];

        if (is_open(s) && (!oldest || s->serial < oldest->serial))
            oldest = s;
    }
    close_slot(d, oldest);
}

static void on_accept(struct redirect *d, const struct ring_cqe *cqe)
{
    struct slot *s = NULL;

    if (!cqe->more) /* over, for want of descriptors perhaps: armed again by the tick */
        d->armed = false;
    if (cqe->res < 0)
        return;
    make_room(d);
    for (unsigned i = 0; i < REDIRECT_SLOTS && !s; i++)
        if (d->slot[i].state == ST_FREE)
            s = &d->slot[i];
    if (!s) { /* a burst, faster than the old ones can leave */
        ring_close(d->ring, cqe->res);
        return;
    }
    s->fd = cqe->res;
    s->state = ST_READING;
    s->serial = ++d->serial;
    s->deadline_ms = d->now_ms + REDIRECT_MS;
    s->in_n = s->out_n = s->out_sent = 0;
    http_head_init(&s->head, sizeof(s->in), true);
    arm_read(d, s);
}

static void arm_send(struct redirect *d, struct slot *s)
{
    s->iov = (struct iovec){ s->out + s->out_sent, s->out_n - s->out_sent };
    s->msg = (struct msghdr){ .msg_iov = &s->iov, .msg_iovlen = 1 };
    ring_sendmsg(d->ring, s->fd, &s->msg, ud_make(OP_SEND, s->gen, s->idx));
    s->inflight++;
}

static void on_read(struct redirect *d, struct slot *s, int32_t res)
{
    bool end = res == 0 || (res < 0 && res != -EINTR && res != -EAGAIN);

    if (end) {
        close_slot(d, s);
        return;
    }
    if (s->state == ST_LINGER) {
        arm_read(d, s); /* bounded by the deadline */
        return;
    }
    s->in_n += res > 0 ? (size_t)res : 0;
    switch (http_head_decode(bytes_of(s->in, s->in_n), &s->head)) {
    case HTTP_HEAD_MORE:
        arm_read(d, s); /* there is room: a full buffer is HTTP_HEAD_LARGE */
        return;
    case HTTP_HEAD_READY:
        s->out_n = redirect_answer(&s->head, s->out, sizeof(s->out));
        break;
    case HTTP_HEAD_BAD:
    case HTTP_HEAD_LARGE:
        break;
    }
    if (s->out_n == 0) { /* without a word (dig.md §15.4) */
        close_slot(d, s);
        return;
    }
    s->state = ST_SENDING;
    arm_send(d, s);
}

static void on_sent(struct redirect *d, struct slot *s, int32_t res)
{
    if (res < 0 && res != -EINTR && res != -EAGAIN) {
        close_slot(d, s);
        return;
    }
    s->out_sent += res > 0 ? (size_t)res : 0;
    if (s->out_sent < s->out_n) {
        arm_send(d, s);
        return;
    }
    /* Closing while something unread lies in the socket would reset it, and take the answer along.
     */
    (void)ring_shutdown(s->fd, SHUT_WR);
    s->state = ST_LINGER;
    s->deadline_ms = min_u64(s->deadline_ms, d->now_ms + REDIRECT_LINGER_MS);
    arm_read(d, s);
}

void redirect_on_cqe(struct redirect *d, const struct ring_cqe *cqe, uint64_t now_ms)
{
    uint32_t idx = ud_idx(cqe->ud);
    struct slot *s;

    d->now_ms = now_ms;
    if (ud_op(cqe->ud) == OP_ACCEPT) {
        on_accept(d, cqe);
        return;
    }
    if (ud_op(cqe->ud) == OP_CANCEL || idx >= REDIRECT_SLOTS)
        return;
    s = &d->slot[idx];
    if (s->state == ST_FREE || s->gen != ud_gen(cqe->ud))
        return; /* cannot be: a slot is freed when nothing of it is in flight */
    ASSERT(s->inflight > 0);
    s->inflight--;
    if (s->state == ST_CLOSING) {
        if (!s->inflight)
            free_slot(d, s);
    } else if (ud_op(cqe->ud) == OP_READ) {
        on_read(d, s, cqe->res);
    } else {
        on_sent(d, s, cqe->res);
    }
}

void redirect_tick(struct redirect *d, uint64_t now_ms)
{
    d->now_ms = now_ms;
    for (unsigned i = 0; i < REDIRECT_SLOTS; i++)
        if (is_open(&d->slot[i]) && now_ms >= d->slot[i].deadline_ms)
            close_slot(d, &d->slot[i]);
    arm_accept(d);
}

struct redirect *redirect_new(struct ring *r, int fd)
{
    struct redirect *d = calloc(1, sizeof(*d));

    if (!d)
        return NULL;
    d->ring = r;
    d->fd = fd;
    for (unsigned i = 0; i < REDIRECT_SLOTS; i++) {
        d->slot[i].idx = i;
        d->slot[i].fd = -1;
    }
    arm_accept(d);
    return d;
}

void redirect_free(struct redirect *d)
{
    if (!d)
        return;
    for (unsigned i = 0; i < REDIRECT_SLOTS; i++) {
        if (d->slot[i].state == ST_FREE)
            continue;
        (void)ring_shutdown(d->slot[i].fd, SHUT_RDWR); /* ends what still reads into our memory */
        ring_close(NULL, d->slot[i].fd);
    }
    ring_close(NULL, d->fd);
    free(d);
}
