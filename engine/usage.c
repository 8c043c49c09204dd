#include "engine/usage.h"

#include <stdlib.h>

#include "engine/shard.h"

struct usage *usage_new(struct shard *s)
{
    struct usage *u = calloc(1, sizeof(*u));

    if (!u)
        return NULL;
    u->shard = s;
    u->timer.kind = TIMER_USAGE;
    return u;
}

void usage_free(struct usage *u)
{
    free(u);
}

/* On the keeper's thread. */
static bool batch_run(struct keep_ask *a, struct keeper *k)
{
    struct usage_batch *b = CONTAINER_OF(a, struct usage_batch, ask);

    if (!keeper_begin(k))
        return false;
    for (uint32_t i = 0; i < b->n; i++)
        if (store_usage_add(k->store, b->unix_s, &b->row[i]) == STORE_FAILED)
            break; /* the commit says why */
    return true;
}

static void batch_failed(struct keep_ask *a, struct keeper *k)
{
    (void)a; /* said by the keeper; statistics are not worth more */
    (void)k;
}

static void usage_send(struct usage *u)
{
    struct shard *s = u->shard;
    struct usage_batch *b = &u->batch[u->filling];

    if (!b->n || u->batch[1 - u->filling].out)
        return;
    wheel_cancel(&s->wheel, &u->timer);
    b->out = true;
    b->unix_s = s->now_unix_s;
    b->ask = (struct keep_ask){
        .node.kind = MAIL_USAGE, .shard = s, .run = batch_run, .failed = batch_failed
    };
    u->filling = 1 - u->filling;
    keeper_ask(s, &b->ask);
}

/* Ids end in a key or a hash, so their last bytes are spread well enough; who makes his collide
 * makes his own bytes slow to add. */
static uint32_t hash_of(const struct peer_id *id)
{
    uint32_t h = 2166136261u;

    for (unsigned i = 0; i < id->n; i++)
        h = (h ^ id->b[i]) * 16777619u;
    return h % USAGE_SLOTS;
}

static struct store_usage *row_of(struct usage_batch *b, const struct peer_id *peer)
{
    uint32_t h = hash_of(peer);

    for (unsigned i = 0; i < USAGE_SLOTS; i++, h = (h + 1) % USAGE_SLOTS) {
        if (b->slot[h] && peer_id_eq(&b->row[b->slot[h] - 1].peer, peer))
            return &b->row[b->slot[h] - 1];
        if (b->slot[h])
            continue;
        if (b->n == USAGE_BATCH)
            return NULL;
        b->slot[h] = (uint16_t)++b->n;
        b->row[b->n - 1] = (struct store_usage){ .peer = *peer };
        return &b->row[b->n - 1];
    }
    return NULL;
}

void usage_add(struct usage *u, const struct store_usage *one)
{
    struct shard *s;
    struct store_usage *row;

    if (!u || !one->peer.n)
        return;
    s = u->shard;
    row = row_of(&u->batch[u->filling], &one->peer);
    if (!row) {
        STAT_INC(&s->stats, usage_lost);
        return;
    }
    row->in_bytes += one->in_bytes;
    row->out_bytes += one->out_bytes;
    row->circuits += one->circuits;
    row->connected_s += one->connected_s;
    if (u->batch[u->filling].n == USAGE_BATCH)
        usage_send(u);
    else if (!timer_armed(&u->timer))
        wheel_arm(&s->wheel, &u->timer, s->now_ms + USAGE_SEND_MS);
}

void usage_on_timer(struct usage *u)
{
    usage_send(u);
}

void usage_on_mail(struct usage *u, struct mnode *n)
{
    struct usage_batch *b = CONTAINER_OF(n, struct usage_batch, ask.node);

    b->out = false;
    b->n = 0;
    memset(b->slot, 0, sizeof(b->slot));
    if (u->batch[u->filling].n && !timer_armed(&u->timer))
        usage_send(u); /* its time had come while this one was under way */
}

bool usage_ended(struct usage *u)
{
    if (!u)
        return true;
    usage_send(u);
    return !u->batch[0].out && !u->batch[1].out && !u->batch[u->filling].n;
}
