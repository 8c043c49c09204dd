#include "engine/dig_list.h"

#include "engine/dig_int.h"
#include "engine/printable.h"

static void row_of(const struct dig_shard *ds, const struct dig_conn *c, struct snap_dig *r)
{
    const struct dig_gate *g = dig_gate_of(ds->host, dig_home_of(c));
    uint64_t seen = atomic_load_explicit(&g->seen_unix_s, memory_order_relaxed);

    *r = (struct snap_dig){
        .shard = (uint8_t)ds->s->id,
        .tls = c->tls != NULL,
        .verified = c->verified,
        .masked = ds->host->cfg->log_mask_addresses,
        .observed = c->observed,
        .version = c->version,
        .connected_unix_s = c->connected_unix_s,
        .seen_unix_s = seen > c->connected_unix_s ? seen : c->connected_unix_s, /* D3 */
        .rx_bytes = c->life_bytes,
        .queued_bytes = dig_unsent(c),
    };
    printable(bytes_of(c->id, c->id_n), r->id, sizeof(r->id));
    printable(bytes_of(c->net, c->net_n), r->net, sizeof(r->net));
    if (r->masked)
        memset(&r->observed, 0, sizeof(r->observed));
}
static_assert((int)SNAP_DIG_NAME == DIG_NAME_MAX + 1, "a whole name");

bool dig_list(struct dig_shard *ds, struct snap *snap)
{
    const struct dig_conn *c = NULL;

    while (snap->rows < SNAP_ROWS && (c = slab_walk(&ds->slab, &snap->cursor)))
        if (c->registered && dig_alive(c))
            row_of(ds, c, &snap->dig[snap->rows++]);
    return !c;
}
