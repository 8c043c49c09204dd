/* RFC 8016: an allocation follows its client from one 5-tuple to another (turn.md §13). */
#include "proto/crypto.h"
#include "proto/turn.h"
#include "proto/turn_int.h"

/* A ticket: shard, slot, its generation, the ticket's number in it, then a MAC over these. Whoever
 * has the key can say whose it is without a table; only the slot's own machine knows whether it is
 * still good. What it tells of us is how many allocations there have been. */
enum { TICKET_SAYS = 16, TICKET_TAG = 16 };
static_assert(TICKET_SAYS + TICKET_TAG == TURN_TICKET, "says, and is ours");

static void ticket_tag(const struct turn *t, const uint8_t *says, uint8_t out[TICKET_TAG])
{
    const struct bytes parts[] = { bytes_str("sluice turn ticket"), bytes_of(says, TICKET_SAYS) };
    uint8_t full[32];

    crypto_hmac_sha256_n(bytes_of(t->config.place.key, sizeof(t->config.place.key)), parts,
                         ARRAY_LEN(parts), full);
    memcpy(out, full, TICKET_TAG);
    crypto_wipe(full, sizeof(full));
}

void turn_ticket_put(const struct turn *t, const struct turn_alloc *a, struct stun_build *b)
{
    uint8_t ticket[TURN_TICKET];
    struct wcur w = wcur_of(ticket, TICKET_SAYS);

    wcur_u32(&w, t->config.place.shard);
    wcur_u32(&w, (uint32_t)(a - t->slots));
    wcur_u32(&w, a->generation);
    wcur_u32(&w, a->serial);
    ASSERT(!w.bad);
    ticket_tag(t, ticket, ticket + TICKET_SAYS);
    stun_put(b, STUN_MOBILITY_TICKET, bytes_of(ticket, sizeof(ticket)));
}

void turn_ticket_read(struct turn *t, struct bytes value, struct turn_ticket *out)
{
    struct cur c = cur_of(value);
    uint8_t tag[TICKET_TAG];
    uint32_t shard = cur_u32(&c), slot = cur_u32(&c), generation = cur_u32(&c);

    *out = (struct turn_ticket){ .serial = cur_u32(&c) };
    if (value.n != TURN_TICKET)
        return;
    ticket_tag(t, value.p, tag);
    if (!crypto_equal(tag, value.p + TICKET_SAYS, TICKET_TAG))
        return;
    out->ours = true;
    out->shard = (uint16_t)shard;
    if (shard != t->config.place.shard || slot >= t->config.limits.allocs_max)
        return;
    struct turn_alloc *a = &t->slots[slot];

    if (a->generation == generation && a->mobile && !a->pending)
        out->alloc = a;
}

/* ---- the move ------------------------------------------------------------------------------ */

static void leave(struct turn *t, struct turn_alloc *a, int seat, struct turn_out *out)
{
    out->alloc = a;
    out->left = true;
    out->was = a->seat[seat].tuple;
    turn_seat_leave(t, &a->seat[seat]);
}

void turn_move_end(struct turn *t, struct turn_alloc *a, struct turn_out *out)
{
    struct turn_tuple tuple = a->seat[1].tuple;

    ASSERT(turn_is_moving(a));
    list_remove(&t->moving, &a->by_move);
    turn_seat_leave(t, &a->seat[1]);
    leave(t, a, 0, out);
    turn_seat_take(t, &a->seat[0], a, &tuple);
    a->tuple = tuple;
}

void turn_heard(struct turn *t, const struct turn_tuple *tuple, struct turn_alloc *a,
                struct turn_out *out)
{
    if (turn_is_moving(a) && turn_same_tuple(&a->seat[1].tuple, tuple))
        turn_move_end(t, a, out);
}

/* The owner is asked for before the number: only he may learn that a ticket is spent (coturn 4.15
 * let anybody resume who had an account). */
unsigned turn_resume_judge(struct turn_req *r)
{
    struct turn_alloc *a = r->ticket.alloc;

    if (!r->t->config.limits.mobility)
        return 405;
    if (!a)
        return 437;
    if (!crypto_equal(r->owner, a->owner, TURN_OWNER))
        return 441;
    if (r->alloc && r->alloc != a) /* this 5-tuple has another one */
        return 437;
    r->again = r->alloc == a && r->ticket.serial + 1 == a->serial &&
               memcmp(a->resume_tid, stun_id(r->m) + 4, STUN_TID) == 0;
    if (r->ticket.serial != a->serial && !r->again)
        return 437;
    r->alloc = a;
    return 0;
}

void turn_resume(struct turn_req *r)
{
    struct turn_alloc *a = r->alloc;
    bool here = a->seat[0].alloc && turn_same_tuple(&a->seat[0].tuple, r->tuple);

    a->serial++;
    memcpy(a->resume_tid, stun_id(r->m) + 4, STUN_TID);
    if (here) { /* it has not moved, or has come back */
        if (turn_is_moving(a)) {
            list_remove(&r->t->moving, &a->by_move);
            leave(r->t, a, 1, r->out);
        }
        return;
    }
    if (turn_is_moving(a)) { /* heard on the new path, or on a third: the first one is over */
        bool there = turn_same_tuple(&a->seat[1].tuple, r->tuple);

        turn_move_end(r->t, a, r->out);
        if (there)
            return;
    }
    r->out->joined = true;
    if (a->seat[0].alloc) {
        turn_seat_take(r->t, &a->seat[1], a, r->tuple);
        a->move_ms = r->now.ms + TURN_MOVE_MS;
        list_append(&r->t->moving, &a->by_move);
    } else { /* nobody is left on the old path */
        turn_seat_take(r->t, &a->seat[0], a, r->tuple);
        a->tuple = *r->tuple;
    }
}

bool turn_lost(struct turn *t, struct turn_alloc *a, const struct turn_tuple *tuple,
               struct turn_out *out)
{
    bool old = a->seat[0].alloc && turn_same_tuple(&a->seat[0].tuple, tuple);

    *out = turn_out_of(out->buf, out->cap);
    if (!a->mobile || a->pending)
        return false;
    if (!turn_is_moving(a)) {
        if (old)
            leave(t, a, 0, out);
    } else if (old) {
        turn_move_end(t, a, out);
    } else if (turn_same_tuple(&a->seat[1].tuple, tuple)) {
        list_remove(&t->moving, &a->by_move);
        leave(t, a, 1, out);
    }
    return true;
}
