#include "engine/mbox.h"

bool mbox_push(struct mbox *m, struct mnode *n)
{
    struct mnode *top = atomic_load_explicit(&m->head, memory_order_relaxed);

    /* A stack whose one consumer always takes everything: a node that leaves and comes back between
     * the load and the exchange does no harm, because next is never followed here. */
    do
        n->next = top;
    /* Release for what n says; in one order with everything sequentially consistent, so that a
     * consumer that falls asleep and a producer that looks whether it does cannot miss each other
     * (ring_doorbell). */
    while (!atomic_compare_exchange_weak_explicit(&m->head, &top, n, memory_order_seq_cst,
                                                  memory_order_relaxed));
    return top == NULL;
}

struct mnode *mbox_take(struct mbox *m)
{
    struct mnode *oldest = NULL;

    if (!atomic_load_explicit(&m->head, memory_order_relaxed))
        return NULL;
    struct mnode *n = atomic_exchange_explicit(&m->head, NULL, memory_order_acquire);

    while (n) {
        struct mnode *next = n->next;

        n->next = oldest;
        oldest = n;
        n = next;
    }
    return oldest;
}

bool mwork_post(struct mwork *w, struct mbox *to, uint32_t bits)
{
    ASSERT(bits != 0);
    /* Release publishes what this poster wrote to the consumer's take; acquire orders the push
     * behind that take when the bits were empty, so that the consumer is done with node.next. */
    if (atomic_fetch_or_explicit(&w->bits, bits, memory_order_acq_rel))
        return false;
    return mbox_push(to, &w->node);
}

uint32_t mwork_take(struct mwork *w)
{
    return atomic_exchange_explicit(&w->bits, 0, memory_order_acq_rel);
}
