/* engine/wheel.h: timers of one thread: a hierarchical wheel, 10 ms x 512, 5.12 s x 512, 2^18 x 10
 * ms (43 min) x 64. Arm and cancel are O(1); re-arming to a later time is lazy: the stored deadline
 * is compared when the slot comes up (io_uring.md §15). Time is monotonic milliseconds, told. */
#ifndef SLUICE_ENGINE_WHEEL_H
#define SLUICE_ENGINE_WHEEL_H

#include "proto/list.h"

enum { WHEEL_TICK_MS = 10, WHEEL_L0 = 512, WHEEL_L1 = 512, WHEEL_L2 = 64 };

struct timer {
    struct link link;
    struct list *slot; /* the list that holds it; NULL = not armed */
    uint64_t at_ms;    /* when to fire */
    uint64_t slot_ms;  /* lower bound of its slot's time: at_ms may be later (lazy) */
    uint8_t kind;      /* who the containing object is: the owner's own enum */
};

struct wheel {
    uint64_t now_tick;
    uint64_t next_ms; /* cached lower bound of the earliest deadline, UINT64_MAX if none */
    size_t armed;
    uint64_t busy0[WHEEL_L0 / 64], busy1[WHEEL_L1 / 64], busy2[WHEEL_L2 / 64]; /* slots in use */
    struct list l0[WHEEL_L0], l1[WHEEL_L1], l2[WHEEL_L2];
};

void wheel_init(struct wheel *w, uint64_t now_ms);
/* Re-arms if armed. A deadline that has passed fires with the next tick, never within the same one,
 * so that a handler which re-arms for "now" cannot keep the owner in its loop. */
void wheel_arm(struct wheel *w, struct timer *t, uint64_t at_ms);
void wheel_cancel(struct wheel *w, struct timer *t); /* idempotent */
static inline bool timer_armed(const struct timer *t)
{
    return t->slot != NULL;
}
/* One due timer at a time, already disarmed; NULL when none is due at now_ms. Never early; at most
 * WHEEL_TICK_MS late. Bounded work per call: slots passed are skipped by bitmap or count. */
struct timer *wheel_expire(struct wheel *w, uint64_t now_ms);
/* The monotonic ms (a point in time, not a duration) until which the owner may sleep; UINT64_MAX:
 * nothing armed. May be early, never late. Valid once wheel_expire has answered NULL. */
uint64_t wheel_next_ms(const struct wheel *w);

#endif
