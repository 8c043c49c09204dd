#include "engine/turn_list.h"

#include "engine/shard.h"
#include "engine/turn_say.h"
#include "engine/turn_shard.h"

static void row_of(const struct turn_shard *ts, const struct turn_client *c, struct snap_alloc *r)
{
    const struct turn_alloc *a = c->alloc;
    uint64_t now_ms = ts->s->now_ms, until = 0;

    *r = (struct snap_alloc){
        .shard = (uint8_t)ts->s->id,
        .transport = (uint8_t)a->tuple.transport,
        .tcp = a->tcp,
        .away = !a->seat[0].alloc,
        .client = a->tuple.client,
        .age_ms = now_ms - c->born_ms,
        .permissions = (uint32_t)a->perms.count,
        .channels = (uint32_t)a->chans.count,
        .connections = (uint32_t)a->conns.count,
        .datagrams = { c->datagrams[0], c->datagrams[1] },
        .bytes = { c->bytes[0], c->bytes[1] },
    };
    turn_say_user(bytes_str(c->user), r->user);
    for (int f = 0; f < TURN_FAMILIES; f++) {
        if (!a->half[f].live)
            continue;
        r->relayed[r->relayed_n++] = a->half[f].relayed;
        if (a->half[f].expires_ms > until)
            until = a->half[f].expires_ms;
    }
    r->left_ms = until > now_ms ? until - now_ms : 0;
}
static_assert(sizeof(((struct snap_alloc *)0)->user) == TURN_USER_MAX, "one size of names");
static_assert(ARRAY_LEN(((struct snap_alloc *)0)->relayed) >= TURN_FAMILIES, "a dual one fits");

bool turn_list(struct turn_shard *ts, struct snap *snap)
{
    const struct turn_client *c = NULL;

    while (snap->rows < SNAP_ROWS && (c = slab_walk(&ts->clients, &snap->cursor)))
        if (c->alloc && !c->alloc->pending)
            row_of(ts, c, &snap->alloc[snap->rows++]);
    return !c;
}
