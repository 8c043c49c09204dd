/* engine/usage.h: what each peer had of this relay: bytes from and to it in circuits, circuits,
 * seconds connected (descord.md §8.3). A shard adds up in a table and sends that to the keeper
 * every few seconds, or when it is full; while one is under way the other is filled. Counted at the
 * end of a circuit and of a connection.
 *
 * Bounds: two tables of USAGE_BATCH peers; whoever finds no place is not counted, and that is. */
#ifndef SLUICE_ENGINE_USAGE_H
#define SLUICE_ENGINE_USAGE_H

#include "engine/keeper.h"
#include "engine/wheel.h"

enum { USAGE_BATCH = 512, USAGE_SLOTS = 1024, USAGE_SEND_MS = 2000 };

struct usage_batch {
    struct keep_ask ask; /* comes back by MAIL_USAGE */
    bool out;            /* with the keeper */
    uint32_t n;
    uint64_t unix_s;            /* of sending */
    uint16_t slot[USAGE_SLOTS]; /* row + 1, by hash of the peer */
    struct store_usage row[USAGE_BATCH];
};

struct usage {
    struct shard *shard;
    struct timer timer;
    unsigned filling;
    struct usage_batch batch[2];
};

/* NULL: no memory. */
struct usage *usage_new(struct shard *s);
void usage_free(struct usage *u);
/* Adds one; u NULL: nobody counts. */
void usage_add(struct usage *u, const struct store_usage *one);
void usage_on_timer(struct usage *u);
void usage_on_mail(struct usage *u, struct mnode *n);
/* At the end: sends what is left; true: everything has come back. */
bool usage_ended(struct usage *u);

#endif
