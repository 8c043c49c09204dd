/* Who comes and goes, told to the network (dig.md §5.7): written once, gathered for a moment, one
 * buffer for everybody (dig.md §21 "O(n²) presence"). The first event after a quiet time goes at
 * once. */
#include "engine/control.h"
#include "engine/dig_control.h"

enum { FRAMES_MIN = 1024, OFFS_MIN = 16, FLUSHES_MAX = 4096 };

/* Room for `more` bytes behind what is there, by doubling. false: no memory. */
static bool grow(struct dig_host *h, struct shared **sh, size_t more, size_t least)
{
    struct shared *old = *sh, *bigger;
    size_t n = old ? old->n : 0, cap = old ? old->cap : least;

    while (cap < n + more)
        cap *= 2;
    if (old && cap == old->cap)
        return true;
    bigger = shared_new(&h->shared, cap);
    if (!bigger)
        return false;
    if (n)
        memcpy(bigger->data, old->data, n);
    bigger->n = (uint32_t)n;
    shared_drop(old);
    *sh = bigger;
    return true;
}

static void forget(struct dig_net_state *ns)
{
    shared_drop(ns->frames);
    shared_drop(ns->offs);
    ns->frames = ns->offs = NULL;
    ns->n = 0;
}

static void flush_one(struct dig_control *dc, uint32_t index)
{
    struct dig_net_state *ns = &dc->net[index];
    struct dig_news *news;

    ns->flushed_ms = dc->c->now_ms;
    if (!ns->n)
        return;
    news = dig_news_new(dc->host, dc->c->d->shards_n, ns->n + 1, 0);
    if (!news) { /* clients make up for it by get_peers */
        forget(ns);
        return;
    }
    news->kind = DIG_NEWS_NET;
    news->net = index;
    news->base = ns->base;
    news->n = ns->n;
    memcpy(news->off, ns->offs->data, ns->n * sizeof(uint32_t));
    news->off[ns->n] = ns->frames->n;
    news->frames = ns->frames;
    ns->frames = NULL;
    forget(ns);
    dig_news_post(dc, news);
}

static void pend(struct dig_control *dc, struct dig_net_state *ns)
{
    if (ns->is_pending)
        return;
    ns->is_pending = true;
    ns->due_ms = dc->c->now_ms;
    if (dc->c->now_ms < ns->flushed_ms + DIG_PRESENCE_MS) {
        ns->due_ms += DIG_PRESENCE_MS;
        list_append(&dc->pending, &ns->pending); /* so they come in order of due_ms */
    } else {
        list_append(&dc->ready, &ns->pending);
    }
}

static void gather(struct dig_control *dc, uint32_t index, struct bytes text)
{
    struct dig_net_state *ns = &dc->net[index];
    uint8_t head[WS_HEAD_MAX];
    size_t head_n = ws_head_encode(head, WS_OP_TEXT, text.n);
    uint32_t at = ns->frames ? ns->frames->n : 0;

    if (!grow(dc->host, &ns->frames, head_n + text.n, FRAMES_MIN) ||
        !grow(dc->host, &ns->offs, sizeof(at), OFFS_MIN * sizeof(at))) {
        forget(ns);
        return;
    }
    memcpy(ns->frames->data + at, head, head_n);
    memcpy(ns->frames->data + at + head_n, text.p, text.n);
    ns->frames->n += (uint32_t)(head_n + text.n);
    memcpy(ns->offs->data + ns->offs->n, &at, sizeof(at));
    ns->offs->n += (uint32_t)sizeof(at);
    if (!ns->n)
        ns->base = ns->next_seq;
    ns->n++;
    if (ns->frames->n >= DIG_PRESENCE_BYTES)
        flush_one(dc, index);
    else
        pend(dc, ns);
}

/* Events are numbered whether or not anybody is there to hear: gaps would put offsets out of step,
 * so a batch that lost one is begun anew. */
static void event(struct dig_control *dc, const struct dig_member *m, struct bytes text)
{
    uint32_t index = m->network->index;
    struct dig_net_state *ns = &dc->net[index];

    if (dig_network_members(m->network) > 1)
        gather(dc, index, text);
    else
        forget(ns); /* alone: what was gathered is for nobody */
    ns->next_seq++;
}

void dig_presence_joined(struct dig_control *dc, const struct dig_member *m)
{
    uint8_t text[DIG_PEER_TEXT_MAX + 64];
    struct wcur w = wcur_of(text, sizeof(text));
    const struct dig_peer p = dig_peer_of(dc, m);

    dig_put_peer_connected(&w, &p);
    ASSERT(!w.bad);
    event(dc, m, bytes_of(text, w.wrote));
}

void dig_presence_left(struct dig_control *dc, const struct dig_member *m)
{
    uint8_t text[DIG_MESSAGE_MAX];
    struct wcur w = wcur_of(text, sizeof(text));

    dig_put_peer_disconnected(&w, dig_member_id(m));
    ASSERT(!w.bad);
    event(dc, m, bytes_of(text, w.wrote));
}

static struct dig_net_state *next_due(struct dig_control *dc)
{
    struct list *l = dc->ready.count ? &dc->ready : &dc->pending;
    struct dig_net_state *ns;

    if (!l->count)
        return NULL;
    ns = CONTAINER_OF(l->first, struct dig_net_state, pending);
    if (ns->due_ms > dc->c->now_ms)
        return NULL;
    list_remove(l, &ns->pending);
    ns->is_pending = false;
    return ns;
}

void dig_presence_flush(struct dig_control *dc)
{
    struct dig_net_state *ns;

    for (int i = 0; i < FLUSHES_MAX && (ns = next_due(dc)); i++)
        flush_one(dc, (uint32_t)(ns - dc->net));
}

uint64_t dig_presence_due_ms(const struct dig_control *dc)
{
    const struct list *l = dc->ready.count ? &dc->ready : &dc->pending;

    return l->count ? CONTAINER_OF(l->first, struct dig_net_state, pending)->due_ms : UINT64_MAX;
}
