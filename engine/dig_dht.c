/* RLY-009 (dig.md §15.3): every minute all registrants are asked which content they provide; five
 * seconds later what they answered becomes the view that /dht.json shows. Answers are the peers'
 * claims: one per registration and round, so many records of it, keys that are 64 hexadecimal
 * digits (D13), and so many keys in all. */
#include <stdlib.h>

#include "engine/control.h"
#include "engine/dig_control.h"

enum {
    ROUND_MS = 60000,
    ANSWERS_MS = 5000,
    KEYS_MAX = 32768, /* distinct ones of a round; more are not counted, and the view says so */
    SLOTS = 2 * KEYS_MAX,
};

struct answered {
    uint64_t serial; /* of the registration; never 0 */
    uint64_t round;
};

struct dig_dht {
    struct dig_dht_view view;
    struct dig_dht_key *key; /* open addressing; reported_by 0: free. NULL between rounds */
    uint32_t keys;
    uint32_t answers;
    bool truncated;
    uint64_t round, ask_ms, show_ms;
    struct answered *answered; /* by member->index */
};

struct dig_dht *dig_dht_new(uint32_t members_max)
{
    struct dig_dht *d = calloc(1, sizeof(*d));

    if (!d)
        return NULL;
    d->answered = calloc(members_max, sizeof(*d->answered));
    d->show_ms = UINT64_MAX;
    if (!d->answered) {
        free(d);
        return NULL;
    }
    return d;
}

void dig_dht_free(struct dig_dht *d)
{
    if (!d)
        return;
    free(d->key);
    free(d->answered);
    free(d);
}

const struct dig_dht_view *dig_dht_view(const struct dig_dht *d)
{
    return &d->view;
}

/* Keys are hashes of content, or what a peer pretends to be one: mixed with a number of ours. */
static struct dig_dht_key *slot_of(struct dig_control *dc, const uint8_t key[32])
{
    struct dig_dht *d = dc->dht;
    uint32_t i = (uint32_t)dig_hash_id(dc->host, bytes_of(key, 32)) & (SLOTS - 1);

    while (d->key[i].reported_by && memcmp(d->key[i].key, key, 32) != 0)
        i = (i + 1) & (SLOTS - 1);
    return &d->key[i];
}

static void count(struct dig_control *dc, const struct dig_record *r)
{
    struct dig_dht *d = dc->dht;
    struct dig_dht_key *k = slot_of(dc, r->key);

    if (!k->reported_by) {
        if (d->keys == KEYS_MAX) {
            d->truncated = true;
            return;
        }
        d->keys++;
        memcpy(k->key, r->key, sizeof(k->key));
    }
    k->reported_by++;
    if (r->providers > k->providers)
        k->providers = r->providers;
}

void dig_dht_answer(struct dig_control *dc, const struct dig_member *m,
                    const struct chunkq *records, bool truncated)
{
    struct dig_dht *d = dc->dht;
    struct answered *a = &d->answered[m->index];
    const struct chunk *k = records->first;
    struct dig_record r;
    size_t at = 0, filled = 0;

    if (a->serial == m->serial && a->round == d->round)
        return;
    *a = (struct answered){ m->serial, d->round };
    if (!d->key)
        d->key = calloc(SLOTS, sizeof(*d->key));
    if (!d->key)
        return;
    d->answers++;
    d->truncated |= truncated;
    while (k) { /* a record may be cut by the end of a chunk */
        size_t n = min_sz(sizeof(r) - filled, k->len - at);

        memcpy((uint8_t *)&r + filled, k->data + k->off + at, n);
        filled += n;
        at += n;
        if (filled == sizeof(r)) {
            filled = 0;
            count(dc, &r);
        }
        if (at == k->len) {
            k = k->next;
            at = 0;
        }
    }
}

static int by_weight(const void *a, const void *b)
{
    const struct dig_dht_key *x = a, *y = b;

    if (x->reported_by != y->reported_by)
        return x->reported_by < y->reported_by ? 1 : -1;
    if (x->providers != y->providers)
        return x->providers < y->providers ? 1 : -1;
    return memcmp(x->key, y->key, sizeof(x->key));
}

static void show(struct dig_dht *d)
{
    struct dig_dht_view *v = &d->view;
    uint32_t n = 0;

    for (uint32_t i = 0; d->key && i < SLOTS; i++)
        if (d->key[i].reported_by)
            d->key[n++] = d->key[i];
    if (n)
        qsort(d->key, n, sizeof(*d->key), by_weight);
    v->reporting = d->answers;
    v->total = n;
    v->truncated = d->truncated || n > DIG_DHT_SHOWN_MAX;
    v->n = n < DIG_DHT_SHOWN_MAX ? n : DIG_DHT_SHOWN_MAX;
    if (v->n)
        memcpy(v->key, d->key, v->n * sizeof(*v->key));
    free(d->key);
    d->key = NULL;
    d->keys = d->answers = 0;
    d->truncated = false;
}

static void ask(struct dig_control *dc)
{
    struct shared *frame = shared_new(&dc->host->shared, WS_HEAD_MAX + DIG_MESSAGE_MAX);
    struct dig_news *n = frame ? dig_news_new(dc->host, dc->c->d->shards_n, 0, 0) : NULL;
    struct wcur w, text;

    if (!n) {
        shared_drop(frame);
        return;
    }
    w = wcur_of(frame->data, frame->cap);
    text = dig_frames_text(&w);
    dig_put_get_dht_records(&text);
    dig_frames_done(&w, &text);
    ASSERT(!w.bad);
    frame->n = (uint32_t)w.wrote;
    n->kind = DIG_NEWS_NET;
    n->net = DIG_NET_ALL;
    n->frames = frame;
    dig_news_post(dc, n);
}

void dig_dht_tick(struct dig_control *dc)
{
    struct dig_dht *d = dc->dht;
    uint64_t now_ms = dc->c->now_ms;

    if (now_ms >= d->show_ms) {
        show(d);
        d->show_ms = UINT64_MAX;
    }
    if (now_ms < d->ask_ms)
        return;
    d->round++;
    d->ask_ms = now_ms + ROUND_MS;
    d->show_ms = now_ms + ANSWERS_MS;
    if (dig_reg_count(&dc->reg))
        ask(dc);
}

uint64_t dig_dht_due_ms(const struct dig_control *dc)
{
    return min_u64(dc->dht->ask_ms, dc->dht->show_ms);
}
