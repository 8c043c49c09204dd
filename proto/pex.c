/* proto/pex.c: links, their frames and their time (dig.md §10). */
#include "proto/pex_int.h"

enum { ALIGN = 64, LEAVES_MIN = 1024 };

static uint32_t leaves_kept(uint32_t registrants_max)
{
    uint32_t n = LEAVES_MIN;

    while (n < registrants_max)
        n *= 2;
    return n;
}

static size_t carve(uint8_t **mem, size_t bytes)
{
    size_t n = (bytes + ALIGN - 1) / ALIGN * ALIGN;

    if (*mem)
        *mem += n;
    return n;
}

static size_t lay_out(struct pex *p, uint8_t *mem, uint32_t max)
{
    size_t n = ALIGN;

    if (mem)
        mem += (ALIGN - (uintptr_t)mem % ALIGN) % ALIGN;
    p->link = (void *)mem;
    n += carve(&mem, max * sizeof(*p->link));
    p->told = (void *)mem;
    n += carve(&mem, max * sizeof(*p->told));
    p->net = (void *)mem;
    n += carve(&mem, max * sizeof(*p->net));
    p->leave = (void *)mem;
    n += carve(&mem, leaves_kept(max) * sizeof(*p->leave));
    p->heap = (void *)mem;
    n += carve(&mem, max * sizeof(*p->heap));
    p->pool.chunk = (void *)mem;
    return n + carve(&mem, dig_order_pool_bytes(max)); /* no chunk is empty: one each at most */
}

size_t pex_bytes(uint32_t registrants_max)
{
    struct pex p = { 0 };

    return lay_out(&p, NULL, registrants_max);
}

void pex_init(struct pex *p, void *mem, uint32_t registrants_max, const struct pex_setup *setup)
{
    ASSERT(registrants_max >= setup->reg->seats);
    *p = (struct pex){ .reg = setup->reg,
                       .rng = setup->rng,
                       .last_seen = setup->last_seen,
                       .last_seen_arg = setup->last_seen_arg,
                       .leaves_mask = leaves_kept(registrants_max) - 1 };
    lay_out(p, mem, registrants_max);
    dig_order_pool_init(&p->pool, p->pool.chunk, registrants_max, p->rng.u64(p->rng.arg));
    pex_ring_init(&p->ready);
}

struct pex_frame pex_frame_of(const struct dig_msg *msg, struct bytes network)
{
    if (!msg)
        return (struct pex_frame){ .undecodable = true };
    struct pex_frame f = { .kind = msg->type };

    switch (msg->type) {
    case DIG_PEX_HANDSHAKE:
        f.version = msg->u.pex_handshake.version;
        f.interval_s = msg->u.pex_handshake.interval;
        f.network_matches = bytes_eq(msg->u.pex_handshake.network_id, network);
        break;
    case DIG_PEX_SNAPSHOT:
        f.peers = (uint32_t)min_sz(msg->u.pex_snapshot.peers, UINT32_MAX);
        break;
    case DIG_PEX_DELTA:
        f.peers = (uint32_t)min_sz(msg->u.pex_delta.added, UINT32_MAX);
        f.dropped = (uint32_t)min_sz(msg->u.pex_delta.dropped, UINT32_MAX);
        f.same_id_in_both = msg->u.pex_delta.overlap;
        break;
    default:
        f.code = msg->u.pex_error.code;
        break;
    }
    return f;
}

/* ---- links by the time they are due: a binary heap ---- */

static uint64_t heap_due(const struct pex *p, uint32_t at)
{
    return p->link[p->heap[at]].due_ms;
}

static void heap_put(struct pex *p, uint32_t at, uint32_t link)
{
    p->heap[at] = link;
    p->link[link].heap_at = at + 1;
}

/* The link at `at` goes to where it belongs. */
static void heap_settle(struct pex *p, uint32_t at)
{
    uint32_t link = p->heap[at];
    uint64_t due_ms = p->link[link].due_ms;

    while (at > 0 && heap_due(p, (at - 1) / 2) > due_ms) {
        heap_put(p, at, p->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * at + 1;

        if (child + 1 < p->heap_n && heap_due(p, child + 1) < heap_due(p, child))
            child++;
        if (child >= p->heap_n || heap_due(p, child) >= due_ms)
            break;
        heap_put(p, at, p->heap[child]);
        at = child;
    }
    heap_put(p, at, link);
}

static void heap_add(struct pex *p, uint32_t link)
{
    heap_put(p, p->heap_n++, link);
    heap_settle(p, p->heap_n - 1);
}

static void heap_remove(struct pex *p, uint32_t link)
{
    uint32_t at = p->link[link].heap_at;

    if (!at)
        return;
    p->link[link].heap_at = 0;
    p->heap_n--;
    if (at - 1 == p->heap_n)
        return;
    heap_put(p, at - 1, p->heap[p->heap_n]);
    heap_settle(p, at - 1);
}

/* ---- members ---- */

static bool is_hex_id(const struct dig_member *m)
{
    if (m->id_n != PEX_ID_TEXT)
        return false;
    for (size_t i = 0; i < PEX_ID_TEXT; i++) {
        uint8_t c = m->id[i];

        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
    }
    return true;
}

/* Something changed: links that wait for it are looked at when the next second begins (§10.5). */
static void wake(struct pex *p, uint64_t now_ms, uint32_t network)
{
    struct pex_net *net = &p->net[network];

    if (net->awake || pex_ring_empty(&net->waiting))
        return;
    if (!p->awake)
        p->awake_ms = (now_ms / PEX_CHECK_MS + 1) * PEX_CHECK_MS;
    net->awake = true;
    net->next_awake = p->awake;
    p->awake = network + 1;
}

void pex_on_join(struct pex *p, uint64_t now_ms, const struct dig_member *m)
{
    struct pex_told *t = &p->told[m->index];
    struct pex_net *net = &p->net[m->network->index];
    struct dig_order_by by = pex_by_age(p);

    ASSERT(p->link[m->index].state == PEX_CLOSED);
    *t = (struct pex_told){ .advertised = is_hex_id(m) }; /* D9 */
    if (!t->advertised)
        return;
    t->joined = ++net->seq;
    dig_order_insert(&p->pool, &net->by_age, &by, m->index);
    wake(p, now_ms, m->network->index);
}

static void link_close(struct pex *p, const struct dig_member *m)
{
    struct pex_link *k = &p->link[m->index];
    struct pex_net *net = &p->net[m->network->index];

    if (k->state == PEX_CLOSED)
        return;
    if (k->state == PEX_OPEN) {
        heap_remove(p, m->index);
        pex_ring_remove(&k->ring);
        p->links--;
        if (--net->links == 0)
            net->oldest = net->newest = 0; /* nobody is left to be told */
    }
    memset(k, 0, sizeof(*k));
}

void pex_on_leave(struct pex *p, uint64_t now_ms, const struct dig_member *m)
{
    struct pex_told *t = &p->told[m->index];
    struct pex_net *net = &p->net[m->network->index];
    struct dig_order_by by = pex_by_age(p);

    link_close(p, m);
    if (!t->advertised)
        return;
    dig_order_remove(&p->pool, &net->by_age, &by, m->index);
    if (t->someone && net->links) {
        pex_record_leave(p, m);
        wake(p, now_ms, m->network->index);
    }
    *t = (struct pex_told){ 0 };
}

/* ---- time ---- */

static uint64_t interval_ms(const struct pex_link *k)
{
    return (uint64_t)(k->own_s > k->remote_s ? k->own_s : k->remote_s) * 1000;
}

static uint64_t due_ms(const struct pex_link *k)
{
    uint64_t e = interval_ms(k);

    return k->sent_ms + e + ((e * PEX_JITTER_PCT / 100 * k->jitter) >> 32);
}

/* Data goes out now (§10.5). */
static void link_sent(struct pex *p, uint64_t now_ms, uint32_t link)
{
    struct pex_link *k = &p->link[link];

    k->sent_ms = now_ms;
    k->doubled = false;
    k->jitter = (uint32_t)p->rng.u64(p->rng.arg);
    k->due_ms = due_ms(k);
    heap_add(p, link);
}

static bool soon(uint64_t now_ms, uint64_t since_ms, uint32_t interval_s)
{
    return now_ms - since_ms < (uint64_t)(interval_s - PEX_RATE_SLACK_S) * 1000;
}

static void emit(struct pex_out *out, struct pex_event event)
{
    ASSERT(out->n < PEX_OUT_MAX);
    out->ev[out->n++] = event;
}

/* ---- frames ---- */

static void link_open(struct pex *p, uint64_t now_ms, struct dig_member *m,
                      const struct pex_frame *f, struct pex_out *out)
{
    struct pex_link *k = &p->link[m->index];
    struct pex_net *net = &p->net[m->network->index];

    if (f->version != PEX_VERSION || !f->network_matches) { /* §10.4: 1, 2 */
        k->state = PEX_REFUSED;
        emit(out, (struct pex_event){ .type = PEX_SEND_ERROR,
                                      .code = f->version != PEX_VERSION ? DIG_PEX_CODE_VERSION
                                                                        : DIG_PEX_CODE_NETWORK });
        return;
    }
    k->state = PEX_OPEN;
    k->own_s = PEX_OWN_INTERVAL_S;
    k->remote_s = f->interval_s < PEX_INTERVAL_MIN_S   ? PEX_INTERVAL_MIN_S
                  : f->interval_s > PEX_INTERVAL_MAX_S ? PEX_INTERVAL_MAX_S
                                                       : f->interval_s;
    if (!net->waiting.next)
        pex_ring_init(&net->waiting);
    net->links++;
    p->links++;
    pex_pick_snapshot(p, m, out);
    link_sent(p, now_ms, m->index);
    emit(out, (struct pex_event){ .type = PEX_SEND_HANDSHAKE, .interval_s = k->own_s });
    emit(out, (struct pex_event){ .type = PEX_SEND_SNAPSHOT });
}

/* The error that §10.6 answers the frame with; 0: none, it is accepted. */
static enum dig_pex_code judge(const struct pex_link *k, uint64_t now_ms, const struct pex_frame *f)
{
    switch (f->kind) {
    case DIG_PEX_HANDSHAKE:
        return DIG_PEX_CODE_PROTOCOL; /* a second one */
    case DIG_PEX_SNAPSHOT:
        if (k->had_snapshot)
            return DIG_PEX_CODE_PROTOCOL;
        return f->peers > DIG_PEX_SNAPSHOT_MAX ? DIG_PEX_CODE_OVERSIZED : 0;
    case DIG_PEX_DELTA:
        if (!k->had_snapshot)
            return DIG_PEX_CODE_PROTOCOL;
        if (soon(now_ms, k->heard_ms, k->remote_s))
            return DIG_PEX_CODE_RATE;
        if (f->peers > DIG_PEX_DELTA_MAX || f->dropped > DIG_PEX_DELTA_MAX)
            return DIG_PEX_CODE_OVERSIZED;
        return f->same_id_in_both ? DIG_PEX_CODE_BAD_MESSAGE : 0;
    default:
        return 0;
    }
}

/* The node says that we speak too often: once per interval, and only if it can be so, the interval
 * doubles. */
static void slow_down(struct pex *p, uint64_t now_ms, uint32_t link)
{
    struct pex_link *k = &p->link[link];

    if (k->doubled || !soon(now_ms, k->sent_ms, k->own_s))
        return;
    k->doubled = true;
    k->own_s = (uint32_t)min_sz(2 * k->own_s, PEX_INTERVAL_MAX_S);
    k->due_ms = due_ms(k);
    if (k->heap_at)
        heap_settle(p, k->heap_at - 1);
}

void pex_on_frame(struct pex *p, uint64_t now_ms, struct dig_member *m, const struct pex_frame *f,
                  struct pex_out *out)
{
    struct pex_link *k = &p->link[m->index];
    enum dig_pex_code code = DIG_PEX_CODE_BAD_MESSAGE;

    out->to = m;
    out->n = out->peers = out->dropped_n = 0;
    if (k->state == PEX_CLOSED && !f->undecodable && f->kind == DIG_PEX_HANDSHAKE) {
        link_open(p, now_ms, m, f, out);
        return;
    }
    if (k->state != PEX_OPEN)
        return; /* §10.1; §10.4: nothing is ever sent on a refused link */
    if (!f->undecodable) {
        if (k->strikes >= PEX_STRIKES_MAX)
            return; /* muted; what cannot be decoded is answered all the same */
        if (f->kind == DIG_PEX_ERROR) {
            if (f->code == DIG_PEX_CODE_RATE)
                slow_down(p, now_ms, m->index);
            return;
        }
        code = judge(k, now_ms, f);
        if (!code) {
            k->had_snapshot = true;
            k->heard_ms = now_ms;
            return;
        }
    }
    if (k->strikes < PEX_STRIKES_MAX)
        k->strikes++;
    emit(out, (struct pex_event){ .type = PEX_SEND_ERROR, .code = code });
}

/* ---- deltas ---- */

/* All links that wait in networks where something changed become ready: a splice each. */
static void wake_networks(struct pex *p, uint64_t now_ms)
{
    for (size_t n = 0; n < PEX_LINKS_PER_TICK && p->awake && p->awake_ms <= now_ms; n++) {
        struct pex_net *net = &p->net[p->awake - 1];

        p->awake = net->next_awake;
        net->awake = false;
        if (pex_ring_empty(&net->waiting))
            continue;
        struct pex_ring *first = net->waiting.next, *last = net->waiting.prev;

        first->prev = p->ready.prev;
        p->ready.prev->next = first;
        last->next = &p->ready;
        p->ready.prev = last;
        pex_ring_init(&net->waiting);
    }
}

/* The next link to look at, taken out of where it stood. */
static bool next_link(struct pex *p, uint64_t now_ms, uint32_t *link)
{
    if (!pex_ring_empty(&p->ready)) {
        struct pex_link *k = CONTAINER_OF(p->ready.next, struct pex_link, ring);

        pex_ring_remove(&k->ring);
        *link = (uint32_t)(k - p->link);
        return true;
    }
    if (p->heap_n == 0 || heap_due(p, 0) > now_ms)
        return false;
    *link = p->heap[0];
    heap_remove(p, *link);
    return true;
}

void pex_tick(struct pex *p, uint64_t now_ms, struct pex_out *out)
{
    uint32_t link;

    out->to = NULL;
    out->n = out->peers = out->dropped_n = 0;
    wake_networks(p, now_ms);
    for (size_t n = 0; n < PEX_LINKS_PER_TICK && next_link(p, now_ms, &link); n++) {
        struct dig_member *m = &p->reg->member[link];

        switch (pex_pick_delta(p, m, out)) {
        case PEX_SAYS:
            out->to = m;
            link_sent(p, now_ms, link);
            emit(out, (struct pex_event){ .type = PEX_SEND_DELTA });
            return;
        case PEX_SILENT:
            pex_ring_append(&p->net[m->network->index].waiting, &p->link[link].ring);
            break;
        case PEX_READS_ON:
            pex_ring_append(&p->ready, &p->link[link].ring);
            break;
        }
    }
}

uint64_t pex_deadline_ms(const struct pex *p)
{
    uint64_t first_ms = p->awake ? p->awake_ms : UINT64_MAX;

    if (!pex_ring_empty(&p->ready))
        return 0;
    return p->heap_n ? min_u64(first_ms, heap_due(p, 0)) : first_ms;
}
