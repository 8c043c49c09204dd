/* proto/pex_link.c: what a link was told, and what to tell it next (dig.md §10.4, §10.5).
 *
 * Told is a set of ages: all up to `seen`, but for a few gaps that were left because a frame was
 * full. It needs no memory per member told, and whether a departure concerns a link is a comparison
 * of numbers. A bitmap per link was rejected: 12 KiB a link with 100 000 members. */
#include "proto/pex_int.h"

static uint64_t youngest_first(const void *arg, uint32_t item)
{
    return UINT64_MAX - ((const struct pex *)arg)->told[item].joined;
}

struct dig_order_by pex_by_age(const struct pex *p)
{
    return (struct dig_order_by){ youngest_first, NULL, p };
}

/* The youngest that joined at `joined` or before. */
static struct dig_order_at from_age(const struct pex *p, const struct pex_net *net, uint64_t joined)
{
    struct dig_order_by by = pex_by_age(p);

    return dig_order_seek(&p->pool, &net->by_age, &by,
                          (struct dig_order_key){ .prefix = UINT64_MAX - joined });
}

static const struct dig_member *member_at(const struct pex *p, struct dig_order_at at)
{
    return &p->reg->member[dig_order_item(&p->pool, at)];
}

static uint64_t joined_at(const struct pex *p, struct dig_order_at at)
{
    return p->told[dig_order_item(&p->pool, at)].joined;
}

/* ---- departures ---- */

static struct pex_leave *leave_at(const struct pex *p, uint64_t position)
{
    return &p->leave[(position - 1) & p->leaves_mask];
}

static bool leave_kept(const struct pex *p, uint64_t position)
{
    return position + p->leaves_mask >= p->leaves;
}

static uint8_t unhex(uint8_t c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

static void id_text(const struct pex_leave *l, char text[PEX_ID_TEXT])
{
    for (size_t i = 0; i < sizeof(l->id); i++) {
        text[2 * i] = "0123456789abcdef"[l->id[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[l->id[i] & 15];
    }
}

/* The oldest record of all makes room. Links that did not read it will never say that departure:
 * what they told ages out at the receiver's (§10.3). */
static void forget_oldest(struct pex *p)
{
    uint64_t position = p->leaves - p->leaves_mask;
    const struct pex_leave *l = leave_at(p, position);
    struct pex_net *net = &p->net[l->net];

    if (net->oldest != position)
        return; /* its network has had no links since */
    net->lost = l->left;
    net->oldest = l->next;
    if (!net->oldest)
        net->newest = 0;
}

void pex_record_leave(struct pex *p, const struct dig_member *m)
{
    struct pex_net *net = &p->net[m->network->index];

    if (p->leaves > p->leaves_mask)
        forget_oldest(p);
    uint64_t position = ++p->leaves;
    struct pex_leave *l = leave_at(p, position);

    *l = (struct pex_leave){ .joined = p->told[m->index].joined,
                             .left = ++net->seq,
                             .net = m->network->index };
    for (size_t i = 0; i < sizeof(l->id); i++)
        l->id[i] = (uint8_t)(unhex(m->id[2 * i]) << 4 | unhex(m->id[2 * i + 1]));
    if (net->newest)
        leave_at(p, net->newest)->next = position;
    else
        net->oldest = position;
    net->newest = position;
}

/* Told: everybody up to `seen` who was there when it got so far, but for the gaps. Who had left by
 * then and whose departure was not read yet, because there were so many, is known by the passes. */
static bool was_told(const struct pex_link *k, uint64_t joined, uint64_t left)
{
    uint64_t from = k->pass_from;

    if (joined > k->seen)
        return false;
    for (size_t i = 0; i < k->gaps_n; i++) {
        if (joined >= k->gap[i].from && joined <= k->gap[i].to)
            return false;
    }
    for (size_t i = 0; i < k->passes_n; i++) {
        if (joined >= from && joined <= k->pass[i].to)
            return left > k->pass[i].seq;
        from = k->pass[i].to + 1;
    }
    return true;
}

/* A delta in the making. */
struct delta {
    const struct dig_member *self;
    struct pex_net *net;
    struct pex_link *link;
    struct pex_out *out;
    bool behind; /* departures are left unread */
    uint32_t left_n;
    uint64_t left[DIG_PEX_DELTA_MAX]; /* positions */
};

/* Passes are needed while a departure before them is unread. */
static void forget_passes(struct pex_link *k, uint64_t next_left)
{
    size_t n = 0;

    while (n < k->passes_n && k->pass[n].seq < next_left)
        k->pass_from = k->pass[n++].to + 1;
    memmove(k->pass, k->pass + n, (k->passes_n - n) * sizeof(k->pass[0]));
    k->passes_n -= (uint8_t)n;
}

/* Reads departures on from where the link stands, up to 50 that concern it. */
static void read_leaves(const struct pex *p, struct delta *d)
{
    struct pex_link *k = d->link;
    uint64_t at = d->net->oldest, next_left = UINT64_MAX;

    if (k->read && leave_kept(p, k->read))
        at = leave_at(p, k->read)->next;
    for (size_t n = 0; at; n++) {
        const struct pex_leave *l = leave_at(p, at);

        if (n == PEX_LEAVES_PER_LINK || d->left_n == DIG_PEX_DELTA_MAX) {
            d->behind = true;
            next_left = l->left;
            break;
        }
        if (was_told(k, l->joined, l->left))
            d->left[d->left_n++] = at;
        k->read = at;
        k->read_left = l->left;
        at = l->next;
    }
    forget_passes(k, next_left);
}

/* ---- joins ---- */

static void pick(struct pex *p, const struct dig_member *m, struct pex_out *out)
{
    p->told[m->index].someone = true;
    out->peer[out->peers++] = (struct pex_peer){ m, p->last_seen(p->last_seen_arg, m) };
}

/* Steps over the link's own member; none when it is older than `from`. */
static struct dig_order_at usable(const struct pex *p, struct dig_order_at at,
                                  const struct dig_member *self, uint64_t from)
{
    if (dig_order_some(at) && member_at(p, at) == self)
        at = dig_order_next(&p->pool, at);
    if (dig_order_some(at) && joined_at(p, at) < from)
        at.chunk = 0;
    return at;
}

/* Picks the youngest of those who joined within the gap, while there is room for `max`; what is
 * left of the gap stays in it, false: nothing. */
static bool pick_gap(struct pex *p, const struct dig_member *self, const struct pex_net *net,
                     struct pex_gap *gap, uint32_t max, struct pex_out *out)
{
    struct dig_order_at at = usable(p, from_age(p, net, gap->to), self, gap->from);

    while (dig_order_some(at) && out->peers < max) {
        gap->to = joined_at(p, at) - 1;
        pick(p, member_at(p, at), out);
        at = usable(p, dig_order_next(&p->pool, at), self, gap->from);
    }
    return dig_order_some(at);
}

/* Every gap is taken: the oldest of those who are new are told instead, and the rest stays new.
 * Gives the last of them. */
static uint64_t pick_oldest_new(struct pex *p, struct delta *d)
{
    struct dig_order_at at = from_age(p, d->net, d->link->seen);
    uint64_t last = 0;

    at = dig_order_some(at) ? dig_order_prev(&p->pool, at)
                            : dig_order_last(&p->pool, &d->net->by_age);
    d->out->peers = 0;
    for (; d->out->peers < DIG_PEX_DELTA_MAX; at = dig_order_prev(&p->pool, at)) {
        ASSERT(dig_order_some(at)); /* there were more than a delta holds */
        pick(p, member_at(p, at), d->out);
        last = joined_at(p, at);
    }
    return last;
}

static void pick_new(struct pex *p, struct delta *d)
{
    struct pex_link *k = d->link;
    struct pex_gap fresh = { k->seen + 1, d->net->seq };
    uint64_t from = fresh.from, to = fresh.to;

    if (d->behind && k->passes_n == PEX_PASSES_MAX)
        return; /* joins wait until more departures are told */
    if (pick_gap(p, d->self, d->net, &fresh, DIG_PEX_DELTA_MAX, d->out)) {
        if (k->gaps_n == PEX_GAPS_MAX)
            to = pick_oldest_new(p, d);
        else
            k->gap[k->gaps_n++] = fresh;
    }
    if (d->behind) {
        if (d->out->peers == 0)
            return;
        if (k->passes_n == 0)
            k->pass_from = from;
        k->pass[k->passes_n++] = (struct pex_pass){ .to = to, .seq = d->net->seq };
    }
    k->seen = to;
}

static void pick_joins(struct pex *p, struct delta *d)
{
    struct pex_link *k = d->link;

    pick_new(p, d);
    if (d->behind)
        return; /* who left a gap is told from who was told out of it only when all is read */
    while (k->gaps_n && d->out->peers < DIG_PEX_DELTA_MAX &&
           !pick_gap(p, d->self, d->net, &k->gap[k->gaps_n - 1], DIG_PEX_DELTA_MAX, d->out))
        k->gaps_n--;
}

/* ---- order ---- */

static bool goes_before(const struct pex_peer *a, const struct pex_peer *b)
{
    if (a->last_seen_unix_s != b->last_seen_unix_s)
        return a->last_seen_unix_s > b->last_seen_unix_s;
    return memcmp(a->member->id, b->member->id, PEX_ID_TEXT) < 0;
}

/* Shell's sort: at most 200, and almost in order. */
static void sort_peers(struct pex_out *out)
{
    static const uint32_t steps[] = { 57, 23, 10, 4, 1 };

    for (size_t s = 0; s < ARRAY_LEN(steps); s++) {
        for (uint32_t i = steps[s]; i < out->peers; i++) {
            struct pex_peer one = out->peer[i];
            uint32_t k = i;

            for (; k >= steps[s] && goes_before(&one, &out->peer[k - steps[s]]); k -= steps[s])
                out->peer[k] = out->peer[k - steps[s]];
            out->peer[k] = one;
        }
    }
}

/* Ascending, each once. */
static void insert_dropped(struct pex_out *out, const char text[PEX_ID_TEXT])
{
    uint32_t k = out->dropped_n;

    while (k > 0 && memcmp(text, out->dropped[k - 1], PEX_ID_TEXT) < 0)
        k--;
    if (k > 0 && memcmp(text, out->dropped[k - 1], PEX_ID_TEXT) == 0)
        return;
    memmove(out->dropped[k + 1], out->dropped[k], (out->dropped_n - k) * PEX_ID_TEXT);
    memcpy(out->dropped[k], text, PEX_ID_TEXT);
    out->dropped_n++;
}

/* Has this id, which has left, come back and been told again, in this very delta or before? Then
 * there is nothing to take back. */
static bool told_again(const struct pex *p, const struct delta *d, const char text[PEX_ID_TEXT])
{
    const struct dig_member *m = dig_reg_find(p->reg, bytes_of(text, PEX_ID_TEXT));

    return m && m->network == d->self->network && p->told[m->index].advertised &&
           was_told(d->link, p->told[m->index].joined, UINT64_MAX);
}

enum pex_say pex_pick_delta(struct pex *p, const struct dig_member *self, struct pex_out *out)
{
    struct delta d = { .self = self,
                       .net = &p->net[self->network->index],
                       .link = &p->link[self->index],
                       .out = out };
    char text[PEX_ID_TEXT];

    if (d.net->lost > d.link->read_left) {
        d.link->read_left = d.net->lost;
        p->forgotten++;
    }
    read_leaves(p, &d);
    if (d.behind && d.left_n == 0)
        return PEX_READS_ON;
    pick_joins(p, &d);
    for (uint32_t i = 0; i < d.left_n; i++) {
        id_text(leave_at(p, d.left[i]), text);
        if (!told_again(p, &d, text))
            insert_dropped(out, text);
    }
    sort_peers(out);
    if (out->peers || out->dropped_n)
        return PEX_SAYS;
    return d.behind ? PEX_READS_ON : PEX_SILENT;
}

void pex_pick_snapshot(struct pex *p, const struct dig_member *self, struct pex_out *out)
{
    struct pex_net *net = &p->net[self->network->index];
    struct pex_link *k = &p->link[self->index];
    struct pex_gap all = { 1, net->seq };

    k->seen = net->seq;
    k->read = net->newest;
    k->read_left = net->seq;
    if (pick_gap(p, self, net, &all, DIG_PEX_SNAPSHOT_MAX, out))
        k->gap[k->gaps_n++] = all;
    sort_peers(out);
}
