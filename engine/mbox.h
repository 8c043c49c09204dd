/* engine/mbox.h: mailboxes between threads. An entry says "this object has work"; it is linked into
 * the object itself and posted at most once until consumed, so a mailbox can never overflow and
 * needs no memory of its own. Many producers, one consumer, no lock; order is first come first
 * served per batch. A post that finds the box empty asks the caller to ring the doorbell. */
#ifndef SLUICE_ENGINE_MBOX_H
#define SLUICE_ENGINE_MBOX_H

#include <stdalign.h>
#include <stdatomic.h>

#include "proto/base.h"

struct mnode {
    struct mnode *next;
    uint8_t kind; /* who the containing object is: the consumer's own enum */
};

struct mbox {
    alignas(64) _Atomic(struct mnode *) head;
};

/* Release: everything written before is visible to the consumer. true: the box was empty. The node
 * must not be in any mailbox. */
bool mbox_push(struct mbox *m, struct mnode *n);
/* Acquire: takes everything, oldest first, as a NULL-terminated list. */
struct mnode *mbox_take(struct mbox *m);

/* The posting rule for objects that are told about several things: event bits, and the node travels
 * only with the first of them. */
struct mwork {
    struct mnode node;
    _Atomic uint32_t bits;
};
/* Sets bits; true: the node had to be pushed and the box was empty (ring the doorbell). */
bool mwork_post(struct mwork *w, struct mbox *to, uint32_t bits);
/* Consumer, once per taken node: the bits so far; later posts push the node again, so read
 * node.next before this. */
uint32_t mwork_take(struct mwork *w);

#endif
