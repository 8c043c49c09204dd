#include "engine/wheel.h"

/* A timer waits in level 0 when it is due within the next 511 ticks, so that each slot holds one
 * tick; in level 1 when its block of 512 ticks is among the next 511 blocks; else in level 2, and
 * in level 2's last slot when it is beyond that, to be placed again when the slot comes up. Slots
 * that were passed are empty: wheel_expire goes from one slot in use to the next. */
enum { BLOCK1_BITS = 9, BLOCK2_BITS = 18 };

static_assert(WHEEL_L0 == 1 << BLOCK1_BITS, "level 1 counts whole turns of level 0");
static_assert((uint64_t)WHEEL_L0 * WHEEL_L1 == 1 << BLOCK2_BITS, "level 2 those of level 1");
static_assert(WHEEL_L2 == 64, "one word of slots in use");

void wheel_init(struct wheel *w, uint64_t now_ms)
{
    memset(w, 0, sizeof(*w));
    w->now_tick = now_ms / WHEEL_TICK_MS;
    w->next_ms = UINT64_MAX;
}

static uint64_t tick_of_deadline(uint64_t at_ms) /* the first tick that is not early */
{
    return at_ms / WHEEL_TICK_MS + (at_ms % WHEEL_TICK_MS != 0);
}

/* Distance from slot `from` to the next one in use, 1..slots-1, going round; 0 = none. The slot
 * itself is not looked at. */
static unsigned busy_next(const uint64_t *busy, unsigned slots, unsigned from)
{
    unsigned words = slots / 64, first = (from + 1) % slots;
    unsigned word = first / 64;
    uint64_t bits = busy[word] & (UINT64_MAX << first % 64);

    for (unsigned i = 0; i <= words; i++) {
        if (bits) {
            unsigned slot = word * 64 + (unsigned)__builtin_ctzll(bits);

            return (slot + slots - from) % slots;
        }
        word = (word + 1) % words;
        bits = busy[word];
    }
    return 0;
}

/* The next tick after now_tick at which a slot comes up; UINT64_MAX = none. */
static uint64_t next_tick(const struct wheel *w)
{
    uint64_t next = UINT64_MAX;
    uint64_t block1 = w->now_tick >> BLOCK1_BITS, block2 = w->now_tick >> BLOCK2_BITS;
    unsigned d = busy_next(w->busy0, WHEEL_L0, (unsigned)(w->now_tick % WHEEL_L0));

    if (d)
        next = w->now_tick + d;
    d = busy_next(w->busy1, WHEEL_L1, (unsigned)(block1 % WHEEL_L1));
    if (d)
        next = min_u64(next, (block1 + d) << BLOCK1_BITS);
    d = busy_next(w->busy2, WHEEL_L2, (unsigned)(block2 % WHEEL_L2));
    if (d)
        next = min_u64(next, (block2 + d) << BLOCK2_BITS);
    return next;
}

static void slot_put(struct timer *t, struct list *slots, uint64_t *busy, unsigned i,
                     uint64_t slot_tick)
{
    list_append(&slots[i], &t->link);
    busy[i / 64] |= UINT64_C(1) << i % 64;
    t->slot = &slots[i];
    t->slot_ms = slot_tick * WHEEL_TICK_MS;
}

/* Not before `from_tick`, which is now_tick only while that tick's own slot is being emptied. */
static void place(struct wheel *w, struct timer *t, uint64_t from_tick)
{
    uint64_t tick = tick_of_deadline(t->at_ms);
    uint64_t now1 = w->now_tick >> BLOCK1_BITS, now2 = w->now_tick >> BLOCK2_BITS;

    if (tick < from_tick)
        tick = from_tick;
    uint64_t block1 = tick >> BLOCK1_BITS, block2 = tick >> BLOCK2_BITS;

    if (tick - w->now_tick < WHEEL_L0) {
        slot_put(t, w->l0, w->busy0, (unsigned)(tick % WHEEL_L0), tick);
    } else if (block1 - now1 < WHEEL_L1) {
        slot_put(t, w->l1, w->busy1, (unsigned)(block1 % WHEEL_L1), block1 << BLOCK1_BITS);
    } else {
        if (block2 - now2 >= WHEEL_L2)
            block2 = now2 + WHEEL_L2 - 1;
        slot_put(t, w->l2, w->busy2, (unsigned)(block2 % WHEEL_L2), block2 << BLOCK2_BITS);
    }
    w->armed++;
}

static void unplace(struct wheel *w, struct timer *t)
{
    struct list *slot = t->slot;

    list_remove(slot, &t->link);
    t->slot = NULL;
    w->armed--;
    if (slot->count)
        return;

    uint64_t *busy; /* which slot it was follows from the array that it lies in */
    size_t i;

    if (slot >= w->l2) {
        busy = w->busy2;
        i = (size_t)(slot - w->l2);
    } else if (slot >= w->l1) {
        busy = w->busy1;
        i = (size_t)(slot - w->l1);
    } else {
        busy = w->busy0;
        i = (size_t)(slot - w->l0);
    }
    busy[i / 64] &= ~(UINT64_C(1) << i % 64);
}

void wheel_arm(struct wheel *w, struct timer *t, uint64_t at_ms)
{
    t->at_ms = at_ms;
    if (t->slot) {
        if (at_ms >= t->slot_ms)
            return; /* later than its slot: looked at when that comes up */
        unplace(w, t);
    }
    place(w, t, w->now_tick + 1);
    w->next_ms = min_u64(w->next_ms, t->slot_ms);
}

void wheel_cancel(struct wheel *w, struct timer *t)
{
    if (t->slot)
        unplace(w, t);
}

static void cascade(struct wheel *w, struct list *slot)
{
    while (slot->first) {
        struct timer *t = CONTAINER_OF(slot->first, struct timer, link);

        unplace(w, t);
        place(w, t, w->now_tick);
    }
}

/* Goes to the next tick with something in it, at most to `last`. false: `last` is reached. */
static bool advance(struct wheel *w, uint64_t last)
{
    uint64_t next = next_tick(w);

    if (next > last) {
        w->next_ms = next > UINT64_MAX / WHEEL_TICK_MS ? UINT64_MAX : next * WHEEL_TICK_MS;
        if (w->now_tick < last)
            w->now_tick = last;
        return false;
    }
    w->now_tick = next;
    if (next % (UINT64_C(1) << BLOCK2_BITS) == 0)
        cascade(w, &w->l2[(next >> BLOCK2_BITS) % WHEEL_L2]);
    if (next % WHEEL_L0 == 0)
        cascade(w, &w->l1[(next >> BLOCK1_BITS) % WHEEL_L1]);
    return true;
}

struct timer *wheel_expire(struct wheel *w, uint64_t now_ms)
{
    uint64_t last = now_ms / WHEEL_TICK_MS;

    do {
        struct list *slot = &w->l0[w->now_tick % WHEEL_L0];

        while (slot->first) {
            struct timer *t = CONTAINER_OF(slot->first, struct timer, link);

            unplace(w, t);
            if (tick_of_deadline(t->at_ms) <= w->now_tick)
                return t;
            place(w, t, w->now_tick + 1); /* re-armed lazily */
        }
    } while (advance(w, last));
    return NULL;
}

uint64_t wheel_next_ms(const struct wheel *w)
{
    return w->next_ms;
}
