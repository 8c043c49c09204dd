/* tools/load_turn_flood.c: messages of foes on their way, at the rate that was asked for. They are
 * made before the flood begins: it shall not be the generator that cannot keep up. An op is a
 * datagram, a unit, a byte, or a connection where that is all that a foe does with it. */
#include "tools/load_turn.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    VARIANTS = 256, /* of each foe: as many as there are first bytes */
    VARIANTS_HUGE = 6,
    BATCH = 32, /* datagrams in one call */
    READ_NS = 4000000,
    LATE_MS = 100,   /* answers on their way when the flood is over */
    NAP_NS = 400000, /* per ms between bursts */
    CODES = 700,
    SLOW_STEP = 8, /* bytes of a connection before the next one's turn */
};

struct foe {
    struct lt_alloc *a;
    struct bytes *said; /* its messages */
    unsigned at;
    size_t byte; /* of a slow one */
};

static struct {
    struct foe *foes;
    unsigned variants, next;
    struct lt_due due;
    uint64_t ops, opened, ended, read_ns;
    uint64_t success, code[CODES], strange;
} g;

static bool is_owner(unsigned i)
{
    return lt_opt.foe->way == LT_FOE_OWNER || lt_opt.foe->way == LT_FOE_PEER ||
           (lt_opt.foe->way == LT_FOE_MIXED && i % 2 == 0);
}

static bool on_streams(void)
{
    return lt_opt.foe->way >= LT_FOE_UNITS;
}

/* ---- getting ready ----------------------------------------------------------------------------
 */

static void on_state(struct lt_alloc *a, const char *why)
{
    if (why)
        lt_die("foe %u: %s", a->id, why);
}

static void make_one(struct foe *f, unsigned variant)
{
    static uint8_t buf[LT_SIZE_MAX];
    const struct lt_foe *k = lt_opt.foe;
    unsigned v = f->a->id + variant;
    size_t n;

    if (k->way == LT_FOE_MIXED)
        k = lt_foe_mixed(v, is_owner(f->a->id));
    n = k->make(f->a, v, buf, k->huge ? sizeof(buf) : LT_FOE_MAX);
    uint8_t *copy = malloc(n + 1);

    ASSERT(copy);
    memcpy(copy, buf, n);
    f->said[variant] = bytes_of(copy, n);
}

static void get_ready(void)
{
    unsigned n = lt_opt.slots;

    lt_on_state = on_state;
    lt_peers_open();
    g.variants = lt_opt.foe->huge ? VARIANTS_HUGE : VARIANTS;
    ASSERT((g.foes = calloc(n, sizeof(*g.foes))) != NULL);
    for (unsigned i = 0; i < n; i++) {
        if (is_owner(i))
            lt_each(i, i + 1, lt_allocate_one, "allocating");
        else if (!on_streams())
            lt_client_open(&lt_allocs[i]);
        if (!on_streams())
            lt_poll_forget(lt_allocs[i].fd); /* answers are only counted */
    }
    for (unsigned i = 0; i < n; i++) {
        struct foe *f = &g.foes[i];

        f->a = &lt_allocs[i];
        ASSERT((f->said = calloc(g.variants, sizeof(*f->said))) != NULL);
        for (unsigned v = 0; v < g.variants; v++)
            make_one(f, v);
    }
}

/* ---- what is answered -------------------------------------------------------------------------
 */

static void on_answer(void *arg, enum frame f, struct bytes unit)
{
    struct bytes phrase;
    struct stun_msg m;
    uint16_t code = 0;

    (void)arg;
    if (f != FRAME_STUN || stun_decode(unit, 0, &m) != STUN_OK)
        g.strange++;
    else if (stun_class_of(m.type) == STUN_SUCCESS)
        g.success++;
    else if (stun_class_of(m.type) == STUN_ERROR && stun_error(&m, &code, &phrase) && code < CODES)
        g.code[code]++;
    else
        g.strange++;
}

static void on_datagram(void *arg, const union lt_sa *from, struct bytes dg)
{
    (void)from;
    on_answer(arg, FRAME_STUN, dg);
}

static void hang_up(struct foe *f, bool by_server)
{
    static const struct linger now = { .l_onoff = 1 };

    /* No place of this host shall be kept by what has ended; but most do say goodbye. */
    if (lt_random() % 4 == 0 || by_server)
        (void)setsockopt(f->a->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(f->a->fd);
    lt_stream_free(f->a->stream);
    f->a->stream = NULL;
    f->a->fd = -1;
    g.ended += by_server;
}

static void listen_to(struct foe *f)
{
    if (f->a->fd < 0)
        return;
    if (!on_streams()) {
        while (lt_receive(f->a->fd, lt_opt.gro, on_datagram, f) > 0)
            ;
        return;
    }
    if (f->a->stream->over || !lt_stream_read(f->a->fd, f->a->stream, on_answer, f)) {
        hang_up(f, true);
        f->at++; /* or the next one would end just so */
    }
}

static void listen_to_all(uint64_t now_ns)
{
    if (now_ns - g.read_ns < READ_NS)
        return;
    g.read_ns = now_ns;
    for (unsigned i = 0; i < lt_opt.slots; i++)
        listen_to(&g.foes[i]);
}

/* ---- saying it --------------------------------------------------------------------------------
 */

static uint64_t say_datagrams(struct foe *f, uint64_t due)
{
    struct mmsghdr m[BATCH] = { 0 };
    struct iovec iov[BATCH];
    unsigned n = (unsigned)min_u64(due, BATCH);
    struct lt_peer *p = &lt_peers[f->a->id % lt_opt.peers];
    bool from_peer = lt_opt.foe->way == LT_FOE_PEER;
    union lt_sa to;
    socklen_t to_n = from_peer ? lt_sa_of(&f->a->relayed, &to) : 0;
    int sent;

    for (unsigned i = 0; i < n; i++) {
        struct bytes b = f->said[f->at++ % g.variants];

        iov[i] = (struct iovec){ (void *)(uintptr_t)b.p, b.n };
        m[i].msg_hdr = (struct msghdr){ .msg_name = from_peer ? &to : NULL,
                                        .msg_namelen = to_n,
                                        .msg_iov = &iov[i],
                                        .msg_iovlen = 1 };
    }
    sent = sendmmsg(from_peer ? p->fd : f->a->fd, m, n, MSG_DONTWAIT);
    return sent > 0 ? (uint64_t)sent : 0;
}

static void dial(struct foe *f)
{
    const struct netaddr *from = lt_opt.binds ? &lt_opt.bind[g.opened % lt_opt.binds] : NULL;

    f->a->fd = lt_tcp(from, &lt_opt.at);
    f->a->stream = lt_stream_new();
    f->byte = 0;
    g.opened++;
}

static uint64_t say_units(struct foe *f, uint64_t due)
{
    uint64_t n = 0;

    if (f->a->fd < 0)
        dial(f);
    while (n < min_u64(due, BATCH) && lt_stream_flush(f->a->fd, f->a->stream)) {
        lt_stream_put(f->a->stream, f->said[f->at++ % g.variants]);
        n++;
    }
    (void)lt_stream_flush(f->a->fd, f->a->stream);
    return n;
}

static uint64_t say_slowly(struct foe *f, uint64_t due)
{
    uint64_t n = 0;

    if (f->a->fd < 0)
        dial(f);
    while (n < min_u64(due, SLOW_STEP)) {
        struct bytes all = f->said[f->at % g.variants];

        if (send(f->a->fd, all.p + f->byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1)
            break;
        n++;
        if (++f->byte == all.n) { /* the rest of it will never come */
            hang_up(f, false);
            f->at++;
            break;
        }
    }
    return n;
}

/* One that was there goes, and another comes. */
static uint64_t say_hello(struct foe *f)
{
    struct bytes said = f->said[f->at++ % g.variants];

    if (f->a->fd >= 0)
        hang_up(f, false);
    dial(f);
    if (said.n)
        lt_stream_put(f->a->stream, said);
    (void)lt_stream_flush(f->a->fd, f->a->stream);
    return 1;
}

static uint64_t say(struct foe *f, uint64_t due)
{
    switch (lt_opt.foe->way) {
    case LT_FOE_UNITS:
        return say_units(f, due);
    case LT_FOE_SLOW:
        return say_slowly(f, due);
    case LT_FOE_STREAM:
        return say_hello(f);
    default:
        return say_datagrams(f, due);
    }
}

static void publish(void)
{
    lt_counters[LT_CT_OPS] = g.ops;
    lt_counters[LT_CT_OPENED] = g.opened;
    lt_counters[LT_CT_ENDED] = g.ended;
}

static void run_for(double s)
{
    const struct timespec nap = { 0, NAP_NS * (lt_opt.burst_ms ? lt_opt.burst_ms : 1) };
    uint64_t now = load_now_ns(), until = now + (uint64_t)(s * 1e9);

    for (; now < until && !lt_counters[LT_CT_STOP]; now = load_now_ns()) {
        uint64_t due = lt_due(&g.due, now), before = g.ops;

        for (unsigned i = 0; due && i < lt_opt.slots; i++) {
            uint64_t n = say(&g.foes[g.next++ % lt_opt.slots], due);

            due -= n;
            g.due.n -= (double)n;
            g.ops += n;
        }
        listen_to_all(now);
        publish();
        lt_progress("%s: %" PRIu64 " ops", lt_opt.foe->name, g.ops);
        if (g.ops == before || !due)
            nanosleep(&nap, NULL);
    }
}

/* ---- the report -------------------------------------------------------------------------------
 */

static void print_answers(void)
{
    printf("\"answers\":{\"success\":%" PRIu64, g.success);
    for (unsigned i = 0; i < CODES; i++)
        if (g.code[i])
            printf(",\"%u\":%" PRIu64, i, g.code[i]);
    printf("},\"strange\":%" PRIu64, g.strange);
}

int lt_run_foe(void)
{
    static struct lt_report r;
    uint64_t ops;

    get_ready();
    g.due.at_ns = load_now_ns();
    run_for(lt_opt.warm_s);
    ops = g.ops;
    lt_report_begin(&r);
    run_for(lt_opt.duration_s);
    lt_report_end(&r);
    ops = g.ops - ops;
    for (uint64_t until = lt_now_ms() + LATE_MS; lt_now_ms() < until; usleep(1000))
        listen_to_all(load_now_ns());

    double s = (double)r.used.wall_ns / 1e9;
    double cpu = (double)(r.used.server_ns + r.used.softirq_ns);

    printf("{\"ok\":true,\"mode\":\"foe\",\"foe\":\"%s\",\"seconds\":%.3f,\"ops\":%" PRIu64
           ",\"total_ops\":%" PRIu64 ",\"ops_per_s\":%.0f,\"opened\":%" PRIu64 ",\"ended\":%" PRIu64
           ",",
           lt_opt.foe->name, s, ops, g.ops, (double)ops / s, g.opened, g.ended);
    print_answers();
    printf(",\"server_share\":%.4f,\"server_cpu_us_per_op\":%.3f,\"generator_cpu_s\":%.4f}\n",
           cpu / 1e9 / s, ops ? cpu / 1e3 / (double)ops : 0, (double)r.used.self_ns / 1e9);
    for (unsigned i = 0; i < lt_opt.slots; i++) {
        if (is_owner(i))
            lt_poll_add(lt_allocs[i].fd, &lt_allocs[i]);
        else if (lt_allocs[i].fd >= 0)
            hang_up(&g.foes[i], false);
    }
    lt_teardown();
    return 0;
}
