/* tools/load_p2p_flow.c: circuits and their bytes. Every byte that arrives is compared with what
 * the sender's position says it must be: stronger than a checksum, and cheaper. */
#include "tools/load_p2p.h"

#include <stdlib.h>

enum { MAGIC = 0x6c6f6164, BODY_MAX = 65536, BACK = 77777, SLACK = 64 }; /* lp_send_whole */

struct lp_totals lp_totals;
struct load_hist lp_latency;
bool lp_flowing, lp_measuring;

static struct {
    uint8_t memory[SLACK + LP_POOL + BODY_MAX];
    uint8_t *pool; /* within memory, behind the slack; its beginning again behind its end */
    struct lp_circuit *all;
    uint32_t all_n;
    struct lp_circuit *over;
    uint64_t budget, refilled_ns; /* --rate */
    uint64_t due_ns;              /* --even: the next body */
    uint32_t turn;                /* whose it is */
} g;

void lp_flow_init(void)
{
    uint64_t z = lp_opt.seed;

    g.pool = g.memory + SLACK;
    for (size_t i = 0; i < LP_POOL; i++) {
        z = z * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        g.pool[i] = (uint8_t)(z >> 56);
    }
    memcpy(g.pool + LP_POOL, g.pool, BODY_MAX);
}

struct lp_circuit *lp_circuits_new(unsigned n)
{
    g.all = calloc(n ? n : 1, sizeof(*g.all));
    ASSERT(g.all != NULL);
    g.all_n = n;
    for (uint32_t i = 0; i < n; i++) {
        g.all[i].id = i;
        g.all[i].phase = (uint32_t)(i * UINT64_C(7919) % LP_POOL);
    }
    return g.all;
}

void lp_circuit_clear(struct lp_circuit *k)
{
    *k = (struct lp_circuit){ .id = k->id, .phase = k->phase, .idle = k->idle, .arg = k->arg };
}

static uint8_t *payload(const struct lp_circuit *k, bool back, uint64_t at)
{
    return g.pool + (k->phase + (back ? BACK : 0) + at) % LP_POOL;
}

struct bytes lp_circuit_payload(const struct lp_circuit *k, bool back, size_t n)
{
    return bytes_of(payload(k, back, k->sent[back]), min_sz(n, BODY_MAX));
}

/* ---- sending ------------------------------------------------------------------------------ */

/* One body of the next circuit that has credit, when it is time for one. */
static void rate_even(uint64_t now_ns)
{
    if (now_ns < g.due_ns)
        return;
    for (uint32_t i = 0; i < g.all_n; i++) {
        struct lp_circuit *k = &g.all[g.turn++ % g.all_n];
        size_t body = lp_opt.framing->body[k->turn[0] % lp_opt.framing->n];

        if (!k->src || k->src->kind != LP_SOURCE)
            continue;
        g.budget = body;
        lp_circuit_pump(k->src);
        if (g.budget == body)
            continue;
        g.budget = 0;
        g.due_ns += (uint64_t)((double)body * 1e9 / (double)lp_opt.rate);
        break;
    }
    if (g.due_ns + 1000000 < now_ns) /* the machine took us away: no burst to make up for it */
        g.due_ns = now_ns;
}

void lp_rate_refill(uint64_t now_ns)
{
    uint64_t most;

    if (!lp_opt.rate)
        return;
    if (lp_opt.even) {
        rate_even(now_ns);
        return;
    }
    if (lp_counters[LP_CT_RATE])
        lp_opt.rate = lp_counters[LP_CT_RATE];
    most = lp_opt.rate / 100; /* 10 ms of it */
    if (g.refilled_ns)
        g.budget += (uint64_t)((double)lp_opt.rate * (double)(now_ns - g.refilled_ns) / 1e9);
    if (g.budget > most)
        g.budget = most;
    g.refilled_ns = now_ns;
    for (uint32_t i = 0; i < g.all_n && g.budget; i++) {
        static uint32_t first; /* takes turns */
        struct lp_circuit *k = &g.all[(first + i) % g.all_n];

        if (k->src && k->src->kind == LP_SOURCE)
            lp_circuit_pump(k->src);
        if (!g.budget)
            first = (first + i + 1) % g.all_n;
    }
}

void lp_circuit_start(struct lp_circuit *k)
{
    uint8_t head[LP_HEAD];

    put_u32(head, MAGIC);
    put_u32(head + 4, k->id);
    (void)lp_send(k->src, bytes_of(head, sizeof(head)), false);
    lp_circuit_pump(k->src);
}

static bool pumps(const struct lp_stream *s)
{
    const struct lp_circuit *k = s->circuit;

    return lp_flowing && !lp_paused() && lp_opt.mode == LP_BULK && k && !k->idle && !k->closing &&
           !s->y.tx_fin && (s->kind == LP_SOURCE || lp_opt.both);
}

void lp_circuit_pump(struct lp_stream *s)
{
    struct lp_circuit *k = s->circuit;
    const struct lp_framing *f = lp_opt.framing;
    bool back = s->kind == LP_SINK;

    if (lp_opt.mode == LP_SOAK) {
        lp_soak_pump(s);
        return;
    }
    if (!pumps(s))
        return;
    for (;;) {
        size_t body = f->body[k->turn[back] % f->n];
        size_t n = min_sz(body, s->y.send_credit);

        if (n == 0 || (f->whole && n < body) || s->conn->polled_out)
            return;
        if (s->conn->out_n >= LP_BURST) {
            s->conn->more = true;
            return;
        }
        if (lp_opt.rate && g.budget < n) {
            g.budget = 0;
            return;
        }
        g.budget -= lp_opt.rate ? n : 0;
        lp_send_whole(s, payload(k, back, k->sent[back]), n);
        k->sent[back] += n;
        k->turn[back]++;
    }
}

void lp_circuit_bytes(struct lp_circuit *k, size_t n)
{
    ASSERT(n <= BODY_MAX);
    k->sent[0] += lp_send(k->src, bytes_of(payload(k, false, k->sent[0]), n), false);
}

/* seq, circuit and time in front of a piece of the pool that hangs on both. */
bool lp_circuit_message(struct lp_circuit *k)
{
    uint8_t m[LP_MSG];

    if (!k->src || k->src->kind != LP_SOURCE || k->src->y.send_credit < LP_MSG ||
        k->src->y.tx_fin || k->src->conn->out_n > LP_BURST) {
        lp_totals.late++;
        return false;
    }
    put_u32(m, k->seq);
    put_u32(m + 4, k->id);
    put_u64(m + 8, load_now_ns());
    memcpy(m + 16, payload(k, false, k->seq), sizeof(m) - 16);
    (void)lp_send(k->src, bytes_of(m, sizeof(m)), false);
    k->seq++;
    k->sent[0] += sizeof(m);
    return true;
}

void lp_circuit_finish(struct lp_circuit *k)
{
    k->closing = true;
    if (k->src && !k->src->y.tx_fin)
        (void)lp_send(k->src, bytes_of(NULL, 0), true);
}

/* ---- receiving ---------------------------------------------------------------------------- */

static void message_in(struct lp_circuit *k, const uint8_t *m)
{
    struct cur c = cur_of(bytes_of(m, LP_MSG));
    uint32_t seq = cur_u32(&c), id = cur_u32(&c);
    uint64_t then = cur_u64(&c), now = load_now_ns();

    if (seq != k->seq_in || id != k->id || memcmp(c.p, payload(k, false, seq), LP_MSG - 16) != 0)
        lp_totals.mismatches++;
    k->seq_in = seq + 1;
    lp_totals.messages += !k->idle;
    if (lp_measuring && !k->idle)
        load_hist_add(&lp_latency, now - then);
}

static void messages_in(struct lp_circuit *k, struct bytes data)
{
    while (data.n) {
        size_t n = min_sz(data.n, LP_MSG - k->gather_n);

        memcpy(k->gather + k->gather_n, data.p, n);
        k->gather_n += (uint32_t)n;
        data = bytes_of(data.p + n, data.n - n);
        if (k->gather_n == LP_MSG) {
            k->gather_n = 0;
            message_in(k, k->gather);
        }
    }
}

/* false: not one of ours, or already taken. */
static bool head_in(struct lp_stream *s)
{
    struct cur c = cur_of(bytes_of(s->head, sizeof(s->head)));
    uint32_t magic = cur_u32(&c), id = cur_u32(&c);
    struct lp_circuit *k = g.all_n ? &g.all[id % g.all_n] : NULL; /* soak: a life adds all_n */

    if (magic != MAGIC || !k || k->id != id || k->dst || k->over)
        return false;
    if (k->whom ? k->whom != s->conn->peer : k->to != s->conn)
        return false;
    s->circuit = k;
    k->dst = s;
    if (lp_opt.mode == LP_SOAK)
        lp_soak_attached(k);
    return true;
}

/* Of a circuit that its source has left: soak cuts on purpose, and then begins anew. */
static bool late_head(const struct lp_stream *s)
{
    struct cur c = cur_of(bytes_of(s->head, sizeof(s->head)));
    uint32_t magic = cur_u32(&c), id = cur_u32(&c);
    const struct lp_circuit *k = g.all_n ? &g.all[id % g.all_n] : NULL;

    return lp_opt.mode == LP_SOAK && magic == MAGIC && k &&
           (k->id > id || (k->id == id && k->over));
}

void lp_circuit_data(struct lp_stream *s, struct bytes data)
{
    bool back = s->kind == LP_SOURCE;
    struct lp_circuit *k;

    if (!back && s->head_n < LP_HEAD) {
        size_t n = min_sz(data.n, (size_t)LP_HEAD - s->head_n);

        memcpy(s->head + s->head_n, data.p, n);
        s->head_n = (uint8_t)(s->head_n + n);
        data = bytes_of(data.p + n, data.n - n);
        if (s->head_n == LP_HEAD && !head_in(s)) {
            lp_totals.mismatches += !late_head(s);
            s->kind = LP_DISCARD;
        } else if (s->head_n == LP_HEAD) {
            lp_circuit_pump(s);
        }
    }
    k = s->circuit;
    if (!data.n || !k)
        return;
    if (k->idle || lp_opt.mode == LP_MESSAGE) {
        messages_in(k, data);
    } else {
        for (size_t at = 0, n; at < data.n; at += n) {
            n = min_sz(data.n - at, BODY_MAX);
            if (memcmp(data.p + at, payload(k, back, k->received[back] + at), n) != 0)
                lp_totals.mismatches++;
        }
    }
    k->received[back] += data.n;
    lp_totals.received += k->idle ? 0 : data.n;
    if (lp_opt.mode == LP_SOAK)
        lp_soak_data(k);
}

void lp_circuit_fin(struct lp_stream *s)
{
    const struct lp_circuit *k = s->circuit;
    bool back = s->kind == LP_SOURCE;

    if (lp_opt.mode == LP_SOAK) {
        lp_soak_fin(s);
        return;
    }
    /* Both ends live in this process, so the sender's count is at hand. */
    if (!k || k->received[back] != k->sent[back] || k->gather_n)
        lp_totals.mismatches++;
    if (!s->y.tx_fin)
        (void)lp_send(s, bytes_of(NULL, 0), true);
}

void lp_circuit_gone(struct lp_stream *s, bool reset)
{
    struct lp_circuit *k = s->circuit;

    if (!k)
        return;
    lp_totals.resets += reset && lp_flowing;
    if (k->src == s)
        k->src = NULL;
    if (k->dst == s)
        k->dst = NULL;
    if (!k->src && !k->dst && !k->over) {
        k->over = true;
        k->next_over = g.over;
        g.over = k;
    }
}

void lp_flow_reap(void (*over)(struct lp_circuit *k))
{
    while (g.over) {
        struct lp_circuit *k = g.over;

        g.over = k->next_over;
        k->next_over = NULL;
        over(k);
    }
}
