/* Between shards: a message that belongs to another one, and a 5-tuple whose allocation lives
 * elsewhere. The kernel keeps bringing its datagrams to the shard that its hash chose, which passes
 * them on (turn.md §13; RESERVATION-TOKEN and MOBILITY-TICKET name the shard). */
#include <errno.h>

#include "engine/mem.h"
#include "engine/shard.h"
#include "engine/turn_shard.h"
#include "engine/turn_stream.h"
#include "proto/crypto.h"

enum {
    HOPS_MAX = 3,
    AWAY_BUCKETS = 4096,
    LETTERS_PART = 8, /* of the pool's chunks of either size, and TURN_LETTERS_MAX at most */
};

static_assert((AWAY_BUCKETS & (AWAY_BUCKETS - 1)) == 0, "a mask");

enum letter_kind {
    LETTER_UNIT,    /* one datagram, or a stream with its first unit */
    LETTER_CONFIRM, /* to who sent one: an allocation stands there now */
};

/* Lies in a chunk of the sender's, aligned. */
struct letter {
    struct mnode node;
    struct chunk *chunk;
    enum letter_kind kind;
    uint8_t from, hops;
    bool fresh;         /* who sent it does not know yet that an allocation stands there */
    int fd;             /* of a stream; -1 */
    struct chunkq late; /* what came on it and was not looked at; in chunks of the sender's, too */
    struct turn_tuple tuple;
    uint32_t unit_n;
    uint8_t bytes[];
};

/* ---- 5-tuples that live elsewhere -------------------------------------------------------------
 */

struct away_entry {
    struct turn_tuple tuple;
    uint16_t next; /* in its bucket, + 1 */
    uint8_t shard;
    bool used, confirmed;
    struct link by_use; /* in `fresh` or `stands`: least recently used first */
};

struct turn_away {
    uint8_t key[16];
    uint16_t bucket[AWAY_BUCKETS];
    struct away_entry entry[TURN_AWAY_MAX];
    unsigned n;
    struct list fresh, stands, idle;
    _Atomic uint32_t letters[CHUNK_SIZES]; /* of ours that nobody has read yet */
};

static_assert(TURN_AWAY_MAX < UINT16_MAX, "entries are named by 16 bits");

int turn_away_init(struct turn_shard *ts)
{
    int err = 0;

    ts->away = mem_reserve(1, sizeof(*ts->away), &err);
    return ts->away ? 0 : err;
}

void turn_away_fini(struct turn_shard *ts)
{
    mem_release(ts->away, 1, sizeof(*ts->away));
    ts->away = NULL;
}

static uint16_t *away_bucket(struct turn_shard *ts, const struct turn_tuple *t)
{
    uint8_t text[16 + 2 + 16 + 2];

    memcpy(text, t->client.ip, 16);
    memcpy(text + 16, &t->client.port, 2);
    memcpy(text + 18, t->server.ip, 16);
    memcpy(text + 34, &t->server.port, 2);
    uint64_t h = crypto_siphash(ts->machine.key, bytes_of(text, sizeof(text)));

    return &ts->away->bucket[h & (AWAY_BUCKETS - 1)];
}

static bool same_ends(const struct turn_tuple *a, const struct turn_tuple *b)
{
    return turn_same_addr(&a->client, &b->client) && turn_same_addr(&a->server, &b->server);
}

static struct away_entry *away_entry(struct turn_shard *ts, const struct turn_tuple *tuple)
{
    struct turn_away *w = ts->away;
    uint16_t at;

    if (!w->fresh.count && !w->stands.count)
        return NULL;
    for (at = *away_bucket(ts, tuple); at; at = w->entry[at - 1].next)
        if (same_ends(&w->entry[at - 1].tuple, tuple))
            return &w->entry[at - 1];
    return NULL;
}

static struct list *away_list(struct turn_away *w, const struct away_entry *e)
{
    return e->confirmed ? &w->stands : &w->fresh;
}

static void away_remove(struct turn_shard *ts, struct away_entry *e)
{
    struct turn_away *w = ts->away;
    uint16_t *at = away_bucket(ts, &e->tuple), idx = (uint16_t)(e - w->entry + 1);

    while (*at != idx) {
        ASSERT(*at);
        at = &w->entry[*at - 1].next;
    }
    *at = e->next;
    list_remove(away_list(w, e), &e->by_use);
    e->used = false;
    list_append(&w->idle, &e->by_use);
}

int turn_away_find(struct turn_shard *ts, const struct turn_tuple *tuple)
{
    struct away_entry *e = away_entry(ts, tuple);

    if (!e)
        return -1;
    list_remove(away_list(ts->away, e), &e->by_use);
    list_append(away_list(ts->away, e), &e->by_use);
    return e->shard;
}

/* Anybody can bring a token that he has seen, so what is not confirmed pushes out only its like. */
static struct away_entry *away_slot(struct turn_shard *ts)
{
    struct turn_away *w = ts->away;
    struct link *k;

    if (w->fresh.count >= TURN_AWAY_NEW_MAX)
        away_remove(ts, CONTAINER_OF(w->fresh.first, struct away_entry, by_use));
    else if (!w->idle.count && w->n == TURN_AWAY_MAX)
        away_remove(ts, CONTAINER_OF(w->stands.first, struct away_entry, by_use));
    k = list_pop(&w->idle);
    return k ? CONTAINER_OF(k, struct away_entry, by_use) : &w->entry[w->n++];
}

void turn_away_put(struct turn_shard *ts, const struct turn_tuple *tuple, unsigned shard)
{
    struct away_entry *e = away_entry(ts, tuple);

    if (e) {
        e->shard = (uint8_t)shard;
        return;
    }
    e = away_slot(ts);
    uint16_t *at = away_bucket(ts, tuple);

    *e = (struct away_entry){ .tuple = *tuple, .next = *at, .shard = (uint8_t)shard, .used = true };
    *at = (uint16_t)(e - ts->away->entry + 1);
    list_append(&ts->away->fresh, &e->by_use);
}

static void away_confirm(struct turn_shard *ts, const struct turn_tuple *tuple, unsigned shard)
{
    struct away_entry *e = away_entry(ts, tuple);

    if (!e || e->confirmed || e->shard != shard)
        return;
    list_remove(&ts->away->fresh, &e->by_use);
    e->confirmed = true;
    list_append(&ts->away->stands, &e->by_use);
}

/* ---- letters ----------------------------------------------------------------------------------
 */

/* A shard that is behind with its mail must not cost this one its memory: circuits live off it. */
static bool letter_room(const struct turn_shard *ts, enum chunk_size size)
{
    uint32_t out = atomic_load_explicit(&ts->away->letters[size], memory_order_relaxed);

    return out < TURN_LETTERS_MAX && out < ts->s->chunks.max[size] / LETTERS_PART &&
           !shard_pool_high(ts->s);
}

static struct letter *letter_new(struct turn_shard *ts, size_t bytes)
{
    size_t need = sizeof(struct letter) + bytes + alignof(struct letter);
    bool large = need > CHUNK_SMALL_BYTES - sizeof(struct chunk);
    enum chunk_size size = large ? CHUNK_LARGE : CHUNK_SMALL;
    struct chunk *c;

    if (need > CHUNK_LARGE_BYTES - sizeof(struct chunk) || !letter_room(ts, size))
        return NULL;
    c = chunk_new(&ts->s->chunks, size);
    if (!c)
        return NULL;
    atomic_fetch_add_explicit(&ts->away->letters[size], 1, memory_order_relaxed);
    uintptr_t at = ((uintptr_t)c->data + alignof(struct letter) - 1) &
                   ~(uintptr_t)(alignof(struct letter) - 1);
    struct letter *l = (void *)at;

    *l = (struct letter){
        .node = { .kind = MAIL_TURN }, .chunk = c, .from = (uint8_t)ts->s->id, .fd = -1
    };
    return l;
}

static void letter_free(struct turn_shard *ts, struct letter *l)
{
    struct turn_shard *sender = ts->s->d->shard[l->from]->turn;

    atomic_fetch_sub_explicit(&sender->away->letters[l->chunk->size], 1, memory_order_relaxed);
    chunk_free(&ts->s->chunks, l->chunk);
}

static void letter_post(struct turn_shard *ts, struct letter *l, unsigned to)
{
    struct shard *target = ts->s->d->shard[to];

    if (mbox_push(&target->mbox, &l->node))
        shard_bell(ts->s, target);
}

static bool unit_send(struct turn_shard *ts, unsigned to, const struct turn_tuple *tuple,
                      struct bytes in, uint8_t hops)
{
    struct letter *l;

    if (to >= ts->s->d->shards_n || to == ts->s->id || hops > HOPS_MAX)
        return false;
    l = letter_new(ts, in.n);
    if (!l)
        return false;
    struct away_entry *e = away_entry(ts, tuple);

    l->kind = LETTER_UNIT;
    l->hops = hops;
    l->fresh = !e || !e->confirmed;
    l->tuple = *tuple;
    l->unit_n = (uint32_t)in.n;
    if (in.n)
        memcpy(l->bytes, in.p, in.n);
    letter_post(ts, l, to);
    return true;
}

bool turn_mail_send(struct turn_shard *ts, unsigned to, const struct turn_tuple *tuple,
                    struct bytes in)
{
    return unit_send(ts, to, tuple, in, 1);
}

bool turn_mail_stream(struct turn_shard *ts, unsigned to, const struct turn_tuple *tuple, int fd,
                      struct chunkq *late)
{
    struct letter *l;

    if (to >= ts->s->d->shards_n || to == ts->s->id || !(l = letter_new(ts, 0)))
        return false;
    l->kind = LETTER_UNIT;
    l->fd = fd;
    l->tuple = *tuple;
    l->late = *late;
    *late = (struct chunkq){ 0 };
    letter_post(ts, l, to);
    return true;
}

static void confirm(struct turn_shard *ts, const struct letter *l)
{
    struct letter *answer;

    if (!turn_find(&ts->machine, &l->tuple) || !(answer = letter_new(ts, 0)))
        return;
    answer->kind = LETTER_CONFIRM;
    answer->tuple = l->tuple;
    letter_post(ts, answer, l->from);
}

static void on_datagram(struct turn_shard *ts, const struct letter *l)
{
    struct bytes in = bytes_of(l->bytes, l->unit_n);
    struct turn_path path = { .sock = turn_door_find(ts, &l->tuple.server), .fleeting = true };
    struct away_entry *e = away_entry(ts, &l->tuple);

    if (!path.sock) /* the door has closed */
        return;
    if (e && e->shard == l->from) { /* it says that this is ours: it has moved back */
        away_remove(ts, e);
    } else if (e) {
        if (!unit_send(ts, e->shard, &l->tuple, in, (uint8_t)(l->hops + 1)))
            STAT_INC(&ts->s->stats, turn_drop_mail);
        return;
    }
    turn_on_unit(ts, &l->tuple, &path, in);
    if (l->fresh) /* again and again: the word itself may be lost where memory is short */
        confirm(ts, l);
}

void turn_on_mail(struct turn_shard *ts, struct mnode *n)
{
    struct letter *l = CONTAINER_OF(n, struct letter, node);

    if (l->kind == LETTER_CONFIRM)
        away_confirm(ts, &l->tuple, l->from);
    else if (l->fd < 0)
        on_datagram(ts, l);
    else
        turn_stream_adopt(ts, l->fd, &l->tuple, &l->late);
    letter_free(ts, l);
}
