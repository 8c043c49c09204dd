/* tools/load_turn_flow.c: payload: made, recognised, counted. A payload is magic, flow, number and
 * time, then bytes of one pool at a place that flow and number say. */
#include "tools/load_turn.h"

#include <stdlib.h>

#define MAGIC 0x54524e31u

struct lt_totals lt_totals;
struct load_hist lt_latency;
bool lt_measuring;

static uint8_t *pool; /* LT_POOL bytes, and the first LT_SIZE_MAX again */

void lt_flow_init(void)
{
    uint64_t x = lt_opt.seed * 2 + 1;

    pool = malloc(LT_POOL + LT_SIZE_MAX);
    ASSERT(pool);
    for (size_t i = 0; i < LT_POOL; i++) {
        x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        pool[i] = (uint8_t)(x >> 56);
    }
    memcpy(pool + LT_POOL, pool, LT_SIZE_MAX);
}

struct bytes lt_body(uint32_t flow, uint32_t number, size_t n)
{
    return bytes_of(pool + (flow * UINT64_C(7919) + number * UINT64_C(131)) % LT_POOL, n);
}

const uint8_t *lt_pool_at(uint32_t phase, uint64_t at, size_t *n)
{
    size_t pos = (size_t)((phase * UINT64_C(7919) + at) % LT_POOL);

    *n = LT_POOL + LT_SIZE_MAX - pos;
    return pool + pos;
}

/* What stands in front of a payload on its way up. */
static size_t put_head(uint8_t *head, const struct lt_alloc *a, size_t n, size_t *pad)
{
    struct stun_addr peer = stun_addr_of(&a->peer);

    *pad = 0;
    if (lt_opt.bare)
        return 0;
    if (lt_opt.send_mode)
        return stun_data_head(head, STUN_SEND, a->tid, &peer, (uint16_t)n, pad);
    chandata_head(head, a->channel, (uint16_t)n);
    if (a->stream)
        *pad = chandata_padding(n); /* RFC 8656 §12.5 */
    return CHAN_HEADER;
}

void lt_train_make(struct lt_train *t, struct lt_alloc *a, bool down, unsigned n)
{
    uint32_t flow = a->id * 2 + down, number = a->flow[down].next;
    uint64_t now = load_now_ns();

    t->n = n;
    for (unsigned i = 0; i < n; i++) {
        size_t at = 0, pad = 0;
        uint8_t *head = t->dg[i].head;

        if (!down && i == 0)
            at = put_head(head, a, lt_opt.size, &pad);
        else if (!down) { /* the same in every datagram of a train */
            at = t->dg[0].head_n - LT_STAMP;
            pad = t->dg[0].pad;
            memcpy(head, t->dg[0].head, at);
        }
        put_u32(head + at, MAGIC);
        put_u32(head + at + 4, flow);
        put_u32(head + at + 8, number + i);
        put_u64(head + at + 12, now);
        t->dg[i].head_n = at + LT_STAMP;
        t->dg[i].body = lt_body(flow, number + i, lt_opt.size - LT_STAMP);
        t->dg[i].pad = pad;
    }
    t->segment = t->dg[0].head_n + t->dg[0].body.n + t->dg[0].pad;
}

/* false: it came twice, or was never sent. */
static bool count(struct lt_count *c, uint32_t number)
{
    if (number >= c->next)
        return false;
    if (number >= c->seen) {
        uint32_t by = number + 1 - c->seen;

        c->mask = (by >= 64 ? 0 : c->mask << by) | 1;
        c->seen = number + 1;
    } else {
        uint32_t back = c->seen - 1 - number;

        if (back < 64 && c->mask >> back & 1)
            return false;
        if (back < 64)
            c->mask |= UINT64_C(1) << back;
        lt_totals.reordered++;
    }
    c->received++;
    return true;
}

/* Is this where this flow ends (or turns round)? */
static bool is_place(const struct lt_alloc *a, const union lt_sa *from, uint32_t id, bool down)
{
    if (!a) {
        struct netaddr sender = lt_sa_addr(from);

        return !down && !lt_opt.c2c &&
               (lt_opt.bare || memcmp(&sender, &lt_allocs[id].relayed, sizeof(sender)) == 0);
    }
    if (lt_opt.c2c)
        return !down && a->id == (id ^ 1);
    return a->id == id && down != lt_opt.echo;
}

void lt_payload_in(struct lt_alloc *a, const union lt_sa *from, struct bytes payload)
{
    struct cur in = cur_of(payload);
    uint32_t magic = cur_u32(&in), flow = cur_u32(&in), number = cur_u32(&in);
    uint64_t sent_ns = cur_u64(&in);
    bool down = flow & 1;

    /* The bare loop answers every hello, and a slow one was asked twice. */
    if (lt_opt.bare && payload.n < LT_STAMP &&
        bytes_eq(payload, bytes_of(LT_HELLO, sizeof(LT_HELLO))))
        return;
    if (in.bad || payload.n != lt_opt.size || magic != MAGIC || flow / 2 >= lt_opt.allocations ||
        !is_place(a, from, flow / 2, down) ||
        !bytes_eq(bytes_of(in.p, in.n), lt_body(flow, number, in.n))) {
        lt_totals.mismatches++;
        return;
    }
    lt_totals.relayed += lt_opt.c2c ? 2 : 1;
    if (!a && lt_opt.echo)
        return;
    if (!count(&lt_allocs[flow / 2].flow[down], number)) {
        lt_totals.doubles++;
        return;
    }
    lt_totals.received++;
    lt_totals.bytes += payload.n;
    if (lt_measuring && lt_received_ns > sent_ns)
        load_hist_add(&lt_latency, lt_received_ns - sent_ns);
}
