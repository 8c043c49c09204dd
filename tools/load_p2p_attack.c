/* tools/load_p2p_attack.c: peers that break the rules on purpose, natively and for as long as they
 * are let: what stands against a relay at full speed must not be slower than the relay.
 *
 * A foe is one connection that comes back, at a bounded rate, whenever it was ended. An op is what
 * it does over and over: a frame, a request, a record; for kinds that a relay ends at once
 * (random, oversize, half-open handshakes) an op is a connection. */
#include "tools/load_p2p_foe.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    EVENTS = 256,
    BACKLOG = 1 << 16,    /* unsent bytes of a foe: enough to keep its socket busy */
    NO_MUXERS = 16,       /* the stream_muxers extension at the end of a Noise payload */
    SHARE = 1024,         /* ops of a foe in one turn */
    OPENS_MAX = 256,      /* connections begun per turn */
    RANDOM_PER_LIFE = 32, /* random messages to streams before the next stage */
    PEERS = 1 << 20,      /* identities are nobody else's */
    SPEAK_MS = 10000,     /* to be connected, and to have said the first of it */
    ENDED_MS = 1500,      /* behind that a relay has ended what it must end */
    ALIVE_MS = 250,       /* of a stage that a relay may bear in silence */
};

static const char *const names[] = { "random", "oversize", "window",  "syn",      "ping", "rst",
                                     "tiny",   "reserve",  "connect", "halfopen", NULL };

static struct {
    unsigned first; /* whose turn it is */
    int epoll;      /* of the raw ones */
    double budget;  /* ops */
    uint64_t refilled_ns;
    uint64_t opened, ended, spared, ops;
    unsigned live;
} g;

const char *const *lp_attack_names(void)
{
    return names;
}

/* What is too long is known to be so at once, but for messages on a stream, which alone suffers. */
static bool must_end(const struct foe *f)
{
    return attack.kind == OVERSIZE && f->stage <= ST_YAMUX;
}

/* Its time runs from its first words, however long they took to be said on a busy machine. */
static void spoke(struct foe *f)
{
    if (!f->spoke)
        f->until_ns = load_now_ns() + (uint64_t)(must_end(f) ? ENDED_MS : ALIVE_MS) * 1000000;
    f->spoke = true;
}

/* ---- raw ones ------------------------------------------------------------------------------- */

static void raw_close(struct foe *f, bool by_relay)
{
    close(f->fd);
    f->fd = -1;
    g.live--;
    g.ended += by_relay;
    f->life++;
}

/* Whatever comes before the record layer. */
static struct bytes raw_words(const struct foe *f, uint8_t *buf, size_t cap)
{
    struct wcur w = wcur_of(buf, cap);
    size_t n = 1 + foe_any() % 600;

    if (attack.kind == HALFOPEN) { /* silence; a hello; half of a Noise message; a whole one */
        if (f->stage == 0)
            return bytes_of(buf, 0);
        mss_dial_hello(&w, "/noise");
        if (f->stage == 1)
            return bytes_of(buf, 3 + foe_any() % 8);
        put_u16(buf + w.wrote, 32);
        foe_any_bytes(buf + w.wrote + 2, 32);
        return bytes_of(buf, w.wrote + (f->stage == 2 ? 2 + foe_any() % 32 : 34));
    }
    if (f->stage == ST_RAW_FIRST) {
        foe_any_bytes(buf, n);
        return bytes_of(buf, n);
    }
    mss_dial_hello(&w, "/noise");
    if (f->stage == ST_RAW_MSS)
        w.wrote = 20; /* the header's frame alone */
    if (attack.kind == RANDOM) {
        foe_any_bytes(buf + w.wrote, n);
        return bytes_of(buf, w.wrote + n);
    }
    memset(buf + w.wrote, 0xff, 4); /* a length of 64 KiB, or past 2^28 */
    memset(buf + w.wrote + 4, 0x0f, cap - w.wrote - 4);
    return bytes_of(buf, cap);
}

static void raw_speak(struct foe *f)
{
    static uint8_t buf[16384];
    struct bytes b = raw_words(f, buf, sizeof(buf));

    f->said = true;
    spoke(f);
    if (b.n && send(f->fd, b.p, b.n, MSG_NOSIGNAL) > 0)
        attack.bytes += b.n;
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = f };

    ASSERT(epoll_ctl(g.epoll, EPOLL_CTL_MOD, f->fd, &ev) == 0);
}

static void raw_poll(void)
{
    struct epoll_event ev[EVENTS];
    int n = epoll_wait(g.epoll, ev, EVENTS, 0);
    uint8_t buf[4096];

    for (int i = 0; i < n; i++) {
        struct foe *f = ev[i].data.ptr;
        ssize_t got = 1;

        if (f->fd < 0)
            continue;
        if (ev[i].events & EPOLLIN)
            got = recv(f->fd, buf, sizeof(buf), MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN) || ev[i].events & (EPOLLERR | EPOLLHUP))
            raw_close(f, true);
        else if (!f->said)
            raw_speak(f);
    }
}

static bool raw_open(struct foe *f)
{
    struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT, .data.ptr = f };

    f->fd = lp_dial((unsigned)(f - attack.foe));
    if (f->fd < 0)
        return false;
    f->said = false;
    ASSERT(epoll_ctl(g.epoll, EPOLL_CTL_ADD, f->fd, &ev) == 0);
    return true;
}

/* ---- connections ---------------------------------------------------------------------------- */

static bool open_foe(struct foe *f, uint64_t now)
{
    unsigned i = (unsigned)(f - attack.foe);

    f->again_ns = now + (uint64_t)lp_opt.again_ms * 1000000;
    f->ops = 0;
    f->circuit_id = 0;
    f->reserved = f->up = false;
    f->next_id = OWN_IDS - 1;
    f->stage = attack.kind == HALFOPEN ? i % 4 : (uint8_t)((i + f->life) % ST_END);
    f->until_ns = now + (uint64_t)SPEAK_MS * 1000000;
    f->spoke = false;
    if (attack.kind == HALFOPEN ||
        ((attack.kind == RANDOM || attack.kind == OVERSIZE) && f->stage < ST_RAW_END)) {
        if (!raw_open(f))
            return false;
    } else {
        if (!f->payload_n) { /* once: two scalar multiplications */
            lp_peer_make(&f->me, PEERS + i);
            f->payload_n = f->me.noise.payload_n;
        }
        f->me.noise.payload_n = f->payload_n;
        if ((attack.kind == RANDOM || attack.kind == OVERSIZE) && f->stage == ST_MUXER)
            f->me.noise.payload_n -= NO_MUXERS; /* so that the relay waits for the names */
        f->c = lp_conn_new(&f->me, i, 0, true);
        f->c->arg = f;
    }
    g.opened++;
    g.live++;
    return true;
}

static void leave(struct foe *f)
{
    if (f->fd >= 0)
        raw_close(f, false);
    else if (f->c)
        lp_conn_close(f->c, lp_done);
}

/* Another foe that is up, to be dialled or to dial. */
static struct foe *other(const struct foe *f)
{
    for (unsigned i = 1; i < attack.n; i++) {
        struct foe *o = &attack.foe[((size_t)(f - attack.foe) + i) % attack.n];

        if (o->c && o->up && o->stage != ST_MUXER)
            return o;
    }
    return NULL;
}

static void on_up(struct lp_conn *c)
{
    struct foe *f = c->arg;
    bool target = (f - attack.foe) % 2 == 0;

    f->up = true;
    if (((attack.kind == WINDOW || attack.kind == CONNECT) && target) ||
        (attack.kind == RANDOM && f->stage == ST_STOP))
        lp_reserve(c);
}

static void on_reserved(struct lp_conn *c, enum hop_status status)
{
    struct foe *f = c->arg, *o = attack.kind == RANDOM ? other(f) : NULL;

    f->reserved = status == HOP_OK;
    if (o)
        (void)lp_connect(o->c, &f->me.me.id, NULL);
}

static void on_connected(struct lp_stream *s, enum hop_status status)
{
    struct foe *f = s->conn->arg;

    if (status == HOP_OK)
        f->circuit_id = s->y.id;
}

static void on_closed(struct lp_conn *c, const char *why)
{
    struct foe *f = c->arg;

    f->c = NULL;
    f->up = f->reserved = false;
    f->circuit_id = 0;
    f->life++;
    g.live--;
    g.ended += why != lp_done;
    lp_progress("a foe's connection ended: %s", why);
}

static const struct lp_app app = { on_up, on_reserved, on_connected, on_closed };

/* The answer to the relay's STOP: as it should be, or anything. */
size_t lp_attack_stop(uint8_t *buf, size_t cap)
{
    size_t n = 1 + foe_any() % cap;

    if (attack.kind != RANDOM)
        return 0;
    foe_any_bytes(buf, n);
    return n;
}

/* ---- the run -------------------------------------------------------------------------------- */

static bool one_life_is_an_op(void)
{
    return attack.kind == RANDOM || attack.kind == OVERSIZE || attack.kind == HALFOPEN;
}

/* Of WINDOW: the odd ones attack, half of them through a circuit to their neighbour. */
static bool quiet(struct foe *f)
{
    size_t i = (size_t)(f - attack.foe);

    if (attack.kind != WINDOW && attack.kind != CONNECT)
        return attack.kind == RANDOM && f->stage == ST_STOP;
    if (i % 2 == 0)
        return true;
    if (attack.kind == WINDOW && i % 4 == 1 && !f->circuit_id) {
        if (f->ops == 0 && attack.foe[i - 1].reserved) {
            f->ops = 1;
            (void)lp_connect(f->c, &attack.foe[i - 1].me.me.id, NULL);
        }
        return true;
    }
    return false;
}

static void act(struct foe *f, double share)
{
    unsigned n = 0;
    bool separate = attack.kind == TINY || attack.kind == WINDOW || one_life_is_an_op();

    spoke(f);
    if (quiet(f))
        return;
    while (f->c && f->up && f->c->out_n < BACKLOG && n < share) {
        foe_op(f);
        n++;
        if (one_life_is_an_op())
            break;
        if (f->c && (separate || foe_record_full()))
            foe_say(f);
    }
    foe_say(f);
    if (!one_life_is_an_op()) {
        g.ops += n;
        g.budget -= n;
    }
}

static void step(struct foe *f, uint64_t now, double share, unsigned *opens)
{
    if (f->fd < 0 && !f->c) {
        if (now < f->again_ns || *opens == 0 || (one_life_is_an_op() && g.budget < 1))
            return;
        --*opens;
        if (open_foe(f, now) && one_life_is_an_op()) {
            g.ops++;
            g.budget--;
        }
        return;
    }
    if (one_life_is_an_op() && attack.kind != HALFOPEN && now > f->until_ns) {
        g.spared += f->spoke && must_end(f);
        leave(f);
        return;
    }
    if (f->c && f->up && !(one_life_is_an_op() && f->ops >= RANDOM_PER_LIFE))
        act(f, share);
}

/* In bursts, so that the cost of an op can be told from that of waking up for it. */
static void refill(uint64_t now)
{
    double most = lp_opt.ops ? (double)lp_opt.ops * (lp_opt.burst_ms + 10) / 1000 + 1 : 1e9;

    if (g.refilled_ns && now - g.refilled_ns < (uint64_t)(lp_opt.burst_ms - 1) * 1000000)
        return;
    if (!lp_opt.ops)
        g.budget = most;
    else if (g.refilled_ns)
        g.budget += (double)lp_opt.ops * (double)(now - g.refilled_ns) / 1e9;
    g.budget = g.budget > most ? most : g.budget;
    g.refilled_ns = now;
}

static void publish(void)
{
    uint64_t *at = lp_counters;

    at[LP_CT_OPS] = g.ops;
    at[LP_CT_OPENED] = g.opened;
    at[LP_CT_ENDED] = g.ended;
    at[LP_CT_LIVE] = g.live;
    at[LP_CT_BYTES] = attack.bytes;
}

static void run_until(uint64_t end_ns)
{
    for (uint64_t now; (now = load_now_ns()) < end_ns && !lp_stopped();) {
        unsigned opens = OPENS_MAX;

        (void)lp_poll(lp_opt.ops ? 1000000 : 0);
        raw_poll();
        now = load_now_ns();
        refill(now);
        for (unsigned i = 0; i < attack.n && !lp_paused() && (g.budget >= 1 || opens); i++) {
            double share = g.budget < SHARE ? g.budget : SHARE;

            step(&attack.foe[(g.first + i) % attack.n], now, share, &opens);
        }
        g.first = attack.n ? (g.first + 1 + (unsigned)(foe_any() % attack.n)) % attack.n : 0;
        publish();
        lp_progress("%s: %" PRIu64 " ops, %" PRIu64 " connections, %" PRIu64 " ended, %u live",
                    names[attack.kind], g.ops, g.opened, g.ended, g.live);
    }
}

int lp_run_attack(void)
{
    struct lp_report r = { 0 };
    uint64_t ops, opened, ended;

    attack.kind = (enum foe_kind)lp_opt.attack;
    attack.n = lp_opt.slots;
    attack.foe = calloc(attack.n, sizeof(*attack.foe));
    g.epoll = epoll_create1(EPOLL_CLOEXEC);
    ASSERT(attack.foe && g.epoll >= 0);
    for (unsigned i = 0; i < attack.n; i++)
        attack.foe[i].fd = -1;
    foe_init();
    lp_app = &app;
    run_until(load_now_ns() + (uint64_t)(lp_opt.warm_s * 1e9));
    ops = g.ops;
    opened = g.opened;
    ended = g.ended;
    lp_report_begin(&r);
    run_until(r.at.wall_ns + (uint64_t)(lp_opt.duration_s * 1e9));
    lp_report_end(&r);

    double s = (double)r.used.wall_ns / 1e9, cpu = (double)r.used.server_ns / 1e9;

    ops = g.ops - ops;
    printf("{\"ok\":true,\"mode\":\"attack\",\"attack\":\"%s\",\"seconds\":%.3f,\"ops\":%" PRIu64
           ",\"ops_per_s\":%.0f,\"opened\":%" PRIu64 ",\"ended\":%" PRIu64 ",\"spared\":%" PRIu64
           ",\"live\":%u,"
           "\"server_cpu_s\":%.4f,\"server_share\":%.4f,\"server_cpu_us_per_op\":%.3f,"
           "\"generator_cpu_s\":%.4f}\n",
           names[attack.kind], s, ops, (double)ops / s, g.opened - opened, g.ended - ended,
           g.spared, g.live, cpu, cpu / s, ops ? cpu * 1e6 / (double)ops : 0,
           (double)r.used.self_ns / 1e9);
    return 0;
}
