/* Doing a sleeping shard's work (engine/README.md "Doorbells"). */
#include "engine/shard.h"
#include "engine/svc_gossip.h"

static_assert(2 * LEND_MAIL_MAX <= RING_BORROW_MAX, "a piece of mail ends two connections at most");

/* Only what moves a circuit's bytes; the rest is rare and waits for the owner. */
static void lend_mail(struct shard *to)
{
    struct mnode **kept = &to->kept, *n;

    for (unsigned done = 0; done < LEND_MAIL_MAX && (n = mbox_take(&to->mbox));) {
        for (struct mnode *next; n; n = next) {
            next = n->next;
            if ((n->kind == MAIL_LEG0 || n->kind == MAIL_LEG1) && done < LEND_MAIL_MAX) {
                shard_on_mail(to, n);
                done++;
                continue;
            }
            n->next = NULL;
            *kept = n;
            kept = &n->next;
        }
    }
}

static void lend_flush(struct shard *to)
{
    uint64_t before = STAT_GET(&to->stats, tx_bytes);
    size_t n = to->dirty.count;

    while (n-- && to->dirty.count && STAT_GET(&to->stats, tx_bytes) - before < LEND_BYTES_MAX) {
        struct conn *c = CONTAINER_OF(list_pop(&to->dirty), struct conn, turn_link);

        c->dirty = false;
        conn_flush(c);
        /* By its own records, which are out, or will be with the send that is. */
        if (c->dirty && (c->send_armed || !conn_unsent(c))) {
            c->dirty = false;
            list_remove(&to->dirty, &c->turn_link);
        }
    }
    fwd_stage_flush(to);
}

/* Is there something that only its own thread does, or does better? */
static bool lend_owed(const struct shard *to)
{
    return to->kept || to->dirty.count || to->closed.count || gossip_busy(to) ||
           to->rpc_ready.count || wheel_next_ms(&to->wheel) < to->slept_until_ms;
}

static bool lend_left(const struct shard *to)
{
    return lend_owed(to) || to->stopping ||
           atomic_load_explicit(&to->mbox.head, memory_order_relaxed);
}

/* A message for a shard that sleeps costs two wake-ups and a context switch more than its bytes do,
 * so they are sent from here; a bulk load is worth the other core. */
static bool shard_lend(struct shard *s, struct shard *to)
{
    if (s->across_bytes > LEND_BYTES_MAX || !ring_borrow(to->ring))
        return false;
    to->lent = true;
    /* Else its owner is being woken already. What is set aside for it would add up, too: each piece
     * of mail ends at most the two connections of its circuit (RING_BORROW_MAX). */
    if (!lend_owed(to)) {
        if (to->now_ms < s->now_ms) { /* our turn may have begun before its last one */
            to->now_ms = s->now_ms;
            to->now_unix_s = s->now_unix_s;
        }
        chunk_drain(&to->chunks);
        lend_mail(to);
        lend_flush(to);
        STAT_INC(&s->stats, turns_lent);
    }
    s->bells |= to->bells & ~(1ull << s->id); /* our own box is looked into before we sleep */
    s->bell_control |= to->bell_control;
    s->bell_keeper |= to->bell_keeper;
    to->bells = 0;
    to->bell_control = to->bell_keeper = false;
    bool left = lend_left(to);

    to->lent = false;
    return !ring_give_back(to->ring) && !left;
}

/* Each shard that has mail of ours once; who must be woken for it keeps its bell, and so does a
 * third one that got mail on the way. */
void shard_lend_all(struct shard *s)
{
    uint64_t bells = s->bells;

    s->bells = 0;
    for (uint64_t left = bells; left; left &= left - 1) {
        unsigned id = (unsigned)__builtin_ctzll(left);

        if (shard_lend(s, s->d->shard[id]))
            bells &= ~(1ull << id);
    }
    s->bells |= bells;
}
