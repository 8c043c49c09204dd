/* proto/list.h: an intrusive, counted, doubly linked list. The caller owns the memory of every
 * element; an element is in at most one list by each of its links. Pure. */
#ifndef SLUICE_PROTO_LIST_H
#define SLUICE_PROTO_LIST_H

#include "proto/base.h"

struct link {
    struct link *prev, *next; /* both NULL while in no list */
};

struct list {
    struct link *first, *last;
    size_t count;
};

static inline bool link_in_list(const struct list *l, const struct link *k)
{
    return k->prev || k->next || l->first == k;
}

static inline void list_append(struct list *l, struct link *k)
{
    ASSERT(!link_in_list(l, k));
    k->prev = l->last;
    k->next = NULL;
    if (l->last)
        l->last->next = k;
    else
        l->first = k;
    l->last = k;
    l->count++;
}

static inline void list_remove(struct list *l, struct link *k)
{
    ASSERT(l->count > 0);
    if (k->prev)
        k->prev->next = k->next;
    else
        l->first = k->next;
    if (k->next)
        k->next->prev = k->prev;
    else
        l->last = k->prev;
    k->prev = k->next = NULL;
    l->count--;
}

static inline struct link *list_pop(struct list *l)
{
    struct link *k = l->first;

    if (k)
        list_remove(l, k);
    return k;
}

#endif
