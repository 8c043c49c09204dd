/* Reservations: the hop machine's verdicts, the home table, and the answer to the shard. An OK
 * leaves after its home is visible; a removal is published before the slot can be used again. */
#include "engine/control.h"
#include "engine/shard.h"

static struct home home_of(const struct conn *conn)
{
    return (struct home){ conn->head.idx, conn->head.gen, (uint8_t)conn->shard->id };
}

static void tell_shard(struct control *c, struct conn *conn, uint32_t bits)
{
    struct shard *s = conn->shard;

    control_to_shard(c, s->id, mwork_post(&conn->resv.to_shard, &s->mbox, bits));
}

static void resv_log(struct control *c, enum event kind, const struct conn *conn,
                     const char *reason)
{
    struct event_rec e = { .kind = (uint8_t)kind,
                           .level = LOG_INFO,
                           .peer = conn->peer,
                           .status = (uint16_t)conn->resv.status,
                           .a = c->hop.by_expiry.count,
                           .b = c->hop.limits.reservation_ms / 1000,
                           .reason = reason };

    log_event(c->log, &e);
}

static void resv_ask(struct control *c, struct conn *conn)
{
    struct resv *r = &conn->resv;
    enum hop_verdict v = hop_on_reserve(&c->hop, c->now_ms, &r->slot, &conn->peer, conn->remote.ip);

    if ((v == HOP_ACCEPTED || v == HOP_RENEWED) &&
        !homes_add(c->d->homes, &conn->peer, home_of(conn))) {
        hop_on_close(&c->hop, &r->slot);
        homes_remove(c->d->homes, &conn->peer, home_of(conn));
        v = HOP_DENIED_PEER; /* more than HOMES_PER_PEER connections hold one */
    }
    r->verdict = v;
    r->status = hop_verdict_status(&c->hop, v);
    r->expire_unix_s = c->now_unix_s + c->hop.limits.reservation_ms / 1000;
    if (v == HOP_ACCEPTED)
        resv_log(c, EV_RESERVATION_ACCEPTED, conn, NULL);
    else if (v == HOP_RENEWED)
        resv_log(c, EV_RESERVATION_RENEWED, conn, NULL);
    else
        resv_log(c, EV_RESERVATION_DENIED, conn, hop_verdict_reason(v));
    tell_shard(c, conn, RESV_ANSWER);
}

static void resv_gone(struct control *c, struct conn *conn)
{
    struct resv *r = &conn->resv;

    if (r->slot.reserved) {
        hop_on_close(&c->hop, &r->slot);
        homes_remove(c->d->homes, &conn->peer, home_of(conn));
        resv_log(c, EV_RESERVATION_CLOSED, conn, "connection closed");
    }
    tell_shard(c, conn, RESV_REMOVED);
}

/* The peer answered a STOP with NO_RESERVATION: it lost its state (libp2p.md Q5). */
static void resv_drop(struct control *c, struct conn *conn)
{
    struct resv *r = &conn->resv;

    if (!r->slot.reserved)
        return;
    hop_on_close(&c->hop, &r->slot);
    homes_remove(c->d->homes, &conn->peer, home_of(conn));
    resv_log(c, EV_RESERVATION_CLOSED, conn, "unknown to its peer");
    tell_shard(c, conn, RESV_EXPIRED);
}

void control_on_resv(struct control *c, struct mnode *n)
{
    struct conn *conn = CONTAINER_OF(n, struct conn, resv.to_control.node);
    uint32_t bits = mwork_take(&conn->resv.to_control);

    if (bits & RESV_GONE) { /* an unanswered ASK died with the connection */
        resv_gone(c, conn);
        return;
    }
    if (bits & RESV_DROP)
        resv_drop(c, conn);
    if (bits & RESV_ASK)
        resv_ask(c, conn);
}

void control_expire(struct control *c)
{
    enum { EXPIRE_PER_TURN = 4096 };
    struct hop_slot *slot;

    for (int i = 0; i < EXPIRE_PER_TURN && (slot = hop_expire(&c->hop, c->now_ms)); i++) {
        struct conn *conn = CONTAINER_OF(slot, struct conn, resv.slot);

        homes_remove(c->d->homes, &conn->peer, home_of(conn));
        resv_log(c, EV_RESERVATION_TIMEOUT, conn, NULL);
        tell_shard(c, conn, RESV_EXPIRED);
    }
}
