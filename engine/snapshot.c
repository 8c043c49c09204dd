#include "engine/snapshot.h"

#include "engine/control.h"
#include "engine/dig_list.h"
#include "engine/shard.h"
#include "engine/turn_list.h"

static void snap_conn(const struct conn *c, struct snap_conn *r)
{
    *r = (struct snap_conn){
        .slot = c->head.idx,
        .gen = c->head.gen,
        .shard = (uint8_t)c->shard->id,
        .state = c->state,
        .reserved = c->resv.held,
        .peer = c->peer,
        .remote = c->remote,
        .streams = (uint16_t)c->streams.count,
        .age_ms = c->shard->now_ms - c->born_ms,
        .rx_bytes = c->rx_bytes,
        .tx_bytes = c->tx_bytes,
        .tx_queued = c->tx.bytes,
    };
}

static void snap_circuit(const struct circuit *c, struct snap_circuit *r)
{
    *r = (struct snap_circuit){
        .id = c->id,
        .shard = { (uint8_t)c->shard[0]->id, (uint8_t)c->shard[1]->id },
        .state = c->state,
        .source = c->source,
        .target = c->target,
        .bytes = { atomic_load_explicit(&c->leg[1].drained, memory_order_relaxed),
                   atomic_load_explicit(&c->leg[0].drained, memory_order_relaxed) },
        .age_ms = c->shard[0]->now_ms - c->born_ms,
    };
}

static bool snap_rows(struct shard *s, struct snap *snap)
{
    struct slab *slab = snap->kind == SNAP_CONNS ? &s->conns : &s->circuits;
    void *object = NULL;

    while (snap->rows < SNAP_ROWS && (object = slab_walk(slab, &snap->cursor))) {
        if (snap->kind == SNAP_CONNS)
            snap_conn(object, &snap->conn[snap->rows]);
        else
            snap_circuit(object, &snap->circuit[snap->rows]);
        snap->rows++;
    }
    return !object;
}

void shard_snapshot(struct shard *s, struct snap *snap)
{
    snap->rows = 0;
    if (snap->kind == SNAP_ALLOCATIONS)
        snap->end = !s->turn || turn_list(s->turn, snap);
    else if (snap->kind == SNAP_DIG)
        snap->end = !s->dig || dig_list(s->dig, snap);
    else
        snap->end = snap_rows(s, snap);
    snap->node.kind = CONTROL_MAIL_SNAP;
    if (mbox_push(&s->d->control->mbox, &snap->node))
        shard_bell_control(s);
}
