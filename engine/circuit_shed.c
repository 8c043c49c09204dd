/* Room for one circuit more of a peer that has all it may: one of its old ones goes. For clients
 * that dial whom they know again and again and close nothing (dusk.md §1.1, 6; §14): refused, they
 * could be reached by nobody else. */
#include "engine/circuit.h"
#include "engine/shard.h"

struct look {
    struct circuit *c;
    uint8_t side;
    uint64_t other; /* quota key of the peer at the other end */
    uint64_t busy;  /* so many SHED_QUIET_BYTES of late */
};

/* Only what side `side` may read; drained is atomic. CONNECTs come in trains, a moment apart: what
 * moved before counts until a second has passed. */
static void look_at(struct look *k, struct circuit *c, unsigned side)
{
    struct leg *leg = &c->leg[side];
    uint64_t now_ms = c->shard[side]->now_ms;
    uint64_t moved = atomic_load_explicit(&c->leg[0].drained, memory_order_relaxed) +
                     atomic_load_explicit(&c->leg[1].drained, memory_order_relaxed);
    uint64_t lately = (moved - leg->shed_mark) / SHED_QUIET_BYTES;

    *k = (struct look){ c, (uint8_t)side, side ? c->key_source : c->key_target,
                        lately > leg->shed_busy ? lately : leg->shed_busy };
    if (now_ms - leg->shed_at_ms >= SHED_LOOK_MS) {
        leg->shed_at_ms = now_ms;
        leg->shed_mark = moved;
        leg->shed_busy = lately;
    }
}

/* Pings and gossip go on for ever: less than so much is silence, and then the oldest goes. */
static bool goes_first(const struct look *a, const struct look *b)
{
    return a->busy != b->busy ? a->busy < b->busy : a->c->id < b->c->id;
}

/* How many of them lead to the same peer. */
static size_t together(const struct look *all, size_t n, uint64_t other)
{
    size_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += all[i].other == other;
    return count;
}

void circuit_shed(struct conn *conn)
{
    struct look all[SHED_LOOK_MAX], *victim = NULL;
    size_t n = 0, most = 0;

    for (struct link *k = conn->streams.first; k && n < SHED_LOOK_MAX; k = k->next) {
        struct stream *st = CONTAINER_OF(k, struct stream, link);

        if (st->kind != ST_CIRCUIT || !st->circuit)
            continue;
        const struct leg *leg = &st->circuit->leg[st->side];

        if (leg->ready && !leg->rst_due && !leg->done)
            look_at(&all[n++], st->circuit, st->side);
    }
    for (size_t i = 0; i < n; i++) { /* whoever has most of them loses first: nobody else's do */
        size_t count = together(all, n, all[i].other);

        if (count > most || (count == most && goes_first(&all[i], victim))) {
            most = count;
            victim = &all[i];
        }
    }
    if (victim)
        circuit_abort(victim->c, victim->side, END_SHED);
}
