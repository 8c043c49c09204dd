#include "engine/turn_train.h"

#include <errno.h>

#include "engine/mem.h"
#include "engine/stats.h"

enum { PIECE_IOVECS = 3 };

#define NO_PIECE UINT16_MAX

static_assert(TRAIN_PIECES_MAX < NO_PIECE, "pieces are named by 16 bits");
static_assert(TRAINS_MAX < UINT16_MAX, "trains too");

/* Datagrams of one shape: head, data, and zeroes to a multiple of four where the format wants them.
 * The data of each lies `stride` behind that of the one before. */
struct train_piece {
    const uint8_t *head, *data;
    uint32_t data_n, stride;
    uint16_t count;
    uint16_t head_n;
    uint16_t next; /* of the same train */
    uint8_t pad;
};

struct train {
    struct turn_egress *e;
    struct netaddr to;
    uint8_t local[16];
    bool has_local, df;
    bool closed; /* ends with a shorter one, or is full */
    uint16_t first, last, count;
    uint32_t segment; /* bytes of each datagram but the last */
    uint32_t bytes;
};

int trains_init(struct turn_trains *t, struct stats *stats)
{
    int err = 0;

    memset(t, 0, sizeof(*t));
    t->stats = stats;
    t->segments_max = TRAIN_SEGMENTS_MAX;
    t->train = mem_reserve(TRAINS_MAX, sizeof(*t->train), &err);
    t->piece = mem_reserve(TRAIN_PIECES_MAX, sizeof(*t->piece), &err);
    t->heads = mem_reserve(TRAIN_HEADS_BYTES, 1, &err);
    t->flat = mem_reserve(TRAIN_FLAT_BYTES, 1, &err);
    if (t->train && t->piece && t->heads && t->flat)
        return 0;
    trains_fini(t);
    return -ENOMEM;
}

void trains_fini(struct turn_trains *t)
{
    mem_release(t->train, TRAINS_MAX, sizeof(*t->train));
    mem_release(t->piece, TRAIN_PIECES_MAX, sizeof(*t->piece));
    mem_release(t->heads, TRAIN_HEADS_BYTES, 1);
    mem_release(t->flat, TRAIN_FLAT_BYTES, 1);
    memset(t, 0, sizeof(*t));
}

/* ---- gathering --------------------------------------------------------------------------------
 */

/* A cache: a place taken by another destination costs a train less full, never order, because
 * trains leave as they were begun. */
static unsigned place_of(const struct turn_egress *e, const struct netaddr *to)
{
    uint64_t a, h;

    memcpy(&a, to->ip + 8, sizeof(a));
    h = (a ^ (uint64_t)to->port << 32 ^ (uint64_t)(unsigned)e->fd << 48) * 0x9e3779b97f4a7c15u;
    return (unsigned)(h >> 55);
}

static bool train_is(const struct train *tr, const struct turn_egress *e, const struct netaddr *to,
                     const uint8_t *local)
{
    return tr->e == e && tr->to.port == to->port && memcmp(tr->to.ip, to->ip, 16) == 0 &&
           tr->has_local == !!local && (!local || memcmp(tr->local, local, 16) == 0);
}

static bool train_takes(const struct train *tr, size_t n, bool df)
{
    return !tr->closed && n > 0 && n <= tr->segment && tr->df == df &&
           tr->bytes + n <= TRAIN_BYTES_MAX;
}

static struct train_narrow *narrow_at(struct turn_trains *t, const uint8_t ip[16])
{
    uint64_t a, b;

    memcpy(&a, ip, sizeof(a));
    memcpy(&b, ip + 8, sizeof(b));
    return &t->narrow[((a ^ b) * 0x9e3779b97f4a7c15u) >> 32 & (TRAIN_NARROWS - 1)];
}

/* Would a train of such segments be refused, as far as is known? */
static bool is_narrow(struct turn_trains *t, const struct netaddr *to, size_t n)
{
    struct train_narrow *w;

    if (!t->worked && t->refusals >= TRAIN_PLAIN_AFTER)
        return true;
    if (!t->any_narrow)
        return false;
    w = narrow_at(t, to->ip);
    return w->uses && n > w->segment_max && memcmp(w->ip, to->ip, sizeof(w->ip)) == 0;
}

static void narrow_put(struct turn_trains *t, const struct netaddr *to, size_t segment_max)
{
    struct train_narrow *w = narrow_at(t, to->ip);

    *w = (struct train_narrow){ .segment_max = (uint16_t)segment_max, .uses = TRAIN_NARROW_USES };
    memcpy(w->ip, to->ip, sizeof(w->ip));
    t->any_narrow = true;
}

/* Must this datagram go alone? Paths widen again: they are asked once in a while. */
static bool goes_alone(struct turn_trains *t, const struct netaddr *to, size_t n)
{
    bool alone = is_narrow(t, to, n);
    struct train_narrow *w = alone ? narrow_at(t, to->ip) : NULL;

    if (alone && w->uses)
        w->uses--;
    return alone;
}

static struct train *train_new(struct turn_trains *t, struct turn_egress *e,
                               const struct netaddr *to, const uint8_t *local, size_t n, bool df)
{
    struct train *tr = &t->train[t->trains_n++];

    *tr = (struct train){ .e = e,
                          .to = *to,
                          .has_local = local,
                          .df = df,
                          .first = NO_PIECE,
                          .segment = (uint32_t)n,
                          .closed = n == 0 || goes_alone(t, to, n) };
    if (local)
        memcpy(tr->local, local, sizeof(tr->local));
    return tr;
}

static struct train *train_for(struct turn_trains *t, struct turn_egress *e,
                               const struct netaddr *to, const uint8_t *local, size_t n, bool df)
{
    uint16_t *at = &t->index[place_of(e, to)];

    if (*at) {
        struct train *tr = &t->train[*at - 1];

        if (train_is(tr, e, to, local) && train_takes(tr, n, df))
            return tr;
    }
    *at = (uint16_t)(t->trains_n + 1);
    return train_new(t, e, to, local, n, df);
}

/* How many more of n bytes each: one, where that ends it, or is a train of its own, too long for a
 * second. */
static unsigned train_room(const struct turn_trains *t, const struct train *tr, size_t n)
{
    if (tr->closed || n < tr->segment || n > TRAIN_BYTES_MAX)
        return 1;
    return (unsigned)min_sz(t->segments_max - tr->count, (TRAIN_BYTES_MAX - tr->bytes) / n);
}

static void train_append(struct turn_trains *t, struct train *tr, const struct train_piece *p,
                         size_t n)
{
    uint16_t idx = (uint16_t)t->pieces_n++;

    t->piece[idx] = *p;
    if (tr->first == NO_PIECE)
        tr->first = idx;
    else
        t->piece[tr->last].next = idx;
    tr->last = idx;
    tr->bytes += (uint32_t)(n * p->count);
    tr->count = (uint16_t)(tr->count + p->count);
    if (tr->count == t->segments_max || n < tr->segment)
        tr->closed = true;
}

static const uint8_t *keep(struct turn_trains *t, struct bytes b)
{
    uint8_t *at = t->heads + t->heads_used;

    if (b.n)
        memcpy(at, b.p, b.n);
    t->heads_used += b.n;
    return at;
}

void trains_add_run(struct turn_trains *t, struct turn_egress *e, const struct netaddr *to,
                    const uint8_t *local, const struct turn_piece *in, size_t stride,
                    unsigned count)
{
    size_t n = in->head.n + in->data.n + in->pad;
    size_t copied = in->head.n + (in->copy ? in->data.n : 0);

    ASSERT(copied <= TRAIN_HEADS_BYTES);
    ASSERT(count == 1 || !in->copy);
    for (size_t done = 0; done < count;) {
        if (t->trains_n == TRAINS_MAX || t->pieces_n == TRAIN_PIECES_MAX ||
            t->heads_used + copied > TRAIN_HEADS_BYTES)
            trains_flush(t);
        struct train *tr = train_for(t, e, to, local, n, in->df);
        struct train_piece p = { .head = keep(t, in->head),
                                 .head_n = (uint16_t)in->head.n,
                                 .data = done ? in->data.p + done * stride : in->data.p,
                                 .data_n = (uint32_t)in->data.n,
                                 .stride = (uint32_t)stride,
                                 .count = (uint16_t)min_sz(count - done, train_room(t, tr, n)),
                                 .next = NO_PIECE,
                                 .pad = in->pad };

        if (in->copy)
            p.data = keep(t, in->data);
        train_append(t, tr, &p, n);
        done += p.count;
    }
}

/* ---- sending ----------------------------------------------------------------------------------
 */

static size_t piece_iov(const struct train_piece *p, unsigned i, struct iovec *iov)
{
    static uint8_t zeroes[4];
    size_t n = 0;

    if (p->head_n)
        iov[n++] = (struct iovec){ (void *)(uintptr_t)p->head, p->head_n };
    if (p->data_n)
        iov[n++] =
            (struct iovec){ (void *)(uintptr_t)(p->data + (size_t)i * p->stride), p->data_n };
    if (p->pad)
        iov[n++] = (struct iovec){ zeroes, p->pad };
    return n;
}

static size_t piece_copy(const struct train_piece *p, uint8_t *to)
{
    const uint8_t *from = p->data;
    uint8_t *at = to;

    for (unsigned i = 0; i < p->count; i++, from += p->stride) {
        memcpy(at, p->head, p->head_n);
        at += p->head_n;
        if (p->data_n)
            memcpy(at, from, p->data_n);
        at += p->data_n;
        memset(at, 0, p->pad);
        at += p->pad;
    }
    return (size_t)(at - to);
}

static void count_sent(struct stats *st, unsigned n)
{
    STAT_ADD(st, turn_train_datagrams, n);
    if (n == 1)
        STAT_INC(st, turn_train_1);
    else if (n <= 4)
        STAT_INC(st, turn_train_4);
    else if (n <= 16)
        STAT_INC(st, turn_train_16);
    else if (n <= 64)
        STAT_INC(st, turn_train_64);
    else
        STAT_INC(st, turn_train_128);
}

static int send_iov(const struct train *tr, struct iovec *iov, size_t n, uint16_t segment)
{
    struct ring_udp_out o = { .to = &tr->to,
                              .local = tr->has_local ? tr->local : NULL,
                              .v6 = tr->e->v6,
                              .iov = iov,
                              .iov_n = n,
                              .segment = segment };
    int r = ring_udp_send(tr->e->fd, &o);

    /* An error that ICMP brought for an earlier datagram, perhaps to somebody else and perhaps
     * forged, is told by the next call, once; among them are nearly all that exist (icmp(7)). */
    if (r < 0 && r != -EAGAIN && r != -ENOBUFS && r != -ENOMEM && r != -EINVAL && r != -EIO)
        r = ring_udp_send(tr->e->fd, &o);
    return r;
}

static void send_singly(struct turn_trains *t, const struct train *tr)
{
    for (uint16_t i = tr->first; i != NO_PIECE; i = t->piece[i].next) {
        for (unsigned k = 0; k < t->piece[i].count; k++) {
            struct iovec iov[PIECE_IOVECS];
            int r = send_iov(tr, iov, piece_iov(&t->piece[i], k, iov), 0);

            if (r == -EMSGSIZE)
                tr->e->too_big = tr->to;
            if (r < 0)
                STAT_INC(t->stats, turn_drop_send);
            else
                count_sent(t->stats, 1);
        }
    }
}

/* Short datagrams are cheaper copied together than gathered by the kernel piece by piece. */
static size_t gather(struct turn_trains *t, const struct train *tr, struct iovec *iov)
{
    size_t n = 0;

    if (tr->segment <= TRAIN_COPY_MAX) {
        for (uint16_t i = tr->first; i != NO_PIECE; i = t->piece[i].next)
            n += piece_copy(&t->piece[i], t->flat + n);
        iov[0] = (struct iovec){ t->flat, n };
        return 1;
    }
    for (uint16_t i = tr->first; i != NO_PIECE; i = t->piece[i].next)
        for (unsigned k = 0; k < t->piece[i].count; k++)
            n += piece_iov(&t->piece[i], k, iov + n);
    return n;
}

static bool send_train(struct turn_trains *t, const struct train *tr)
{
    struct iovec iov[TRAIN_SEGMENTS_MAX * PIECE_IOVECS];
    int r = send_iov(tr, iov, gather(t, tr, iov), (uint16_t)tr->segment);

    if (r >= 0) {
        t->worked = true;
        t->long_worked |= tr->count > TRAIN_SEGMENTS_OLD;
        count_sent(t->stats, tr->count);
        return true;
    }
    switch (r) {
    case -EIO: /* no checksum offload on the way out (io_uring.md §10.3) */
    case -EOPNOTSUPP:
        narrow_put(t, &tr->to, 0);
        t->refusals += !t->worked;
        break;
    case -EINVAL:
    case -EMSGSIZE:
        if (r == -EINVAL && tr->count > TRAIN_SEGMENTS_OLD && !t->long_worked) {
            t->segments_max = TRAIN_SEGMENTS_OLD; /* or the path is narrow: the next one tells */
            break;
        }
        narrow_put(t, &tr->to, tr->segment - 1);
        break;
    default:
        STAT_ADD(t->stats, turn_drop_send, tr->count);
        return true;
    }
    STAT_INC(t->stats, turn_gso_refused);
    return false;
}

void trains_flush(struct turn_trains *t)
{
    for (unsigned i = 0; i < t->trains_n; i++) {
        const struct train *tr = &t->train[i];
        struct turn_egress *e = tr->e;

        t->index[place_of(e, &tr->to)] = 0;
        if (tr->df != e->df && ring_udp_dont_fragment(e->fd, e->v6, tr->df) == 0)
            e->df = tr->df;
        if (tr->count == 1 || is_narrow(t, &tr->to, tr->segment) || !send_train(t, tr))
            send_singly(t, tr);
    }
    t->trains_n = t->pieces_n = 0;
    t->heads_used = 0;
}
