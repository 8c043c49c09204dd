/* Rendezvous (libp2p.md §13, dusk.md §5): requests are judged on the shard, which has the
 * signature to verify; the store's thread keeps and finds. */
#include "engine/log.h"
#include "engine/rpc.h"
#include "engine/shard.h"
#include "engine/stream.h"
#include "engine/svc_gossip.h"
#include "proto/varint.h"

static const struct rdv_rules *rules_of(const struct rpc *r)
{
    return &r->shard->d->cfg->rdv;
}

/* ---- REGISTER ------------------------------------------------------------------------------- */

static void say_registered(struct rpc *r, enum rdv_status status)
{
    uint8_t msg[128];
    struct wcur w = wcur_of(msg, sizeof(msg));

    r->status = status;
    rdv_put_register_reply(&w, status, r->reg.ttl_s, rdv_status_text(rules_of(r), status));
    ASSERT(!w.bad);
    r->ended = !rpc_say(r, bytes_of(msg, w.wrote));
}

static enum rdv_status status_of(enum store_verdict v)
{
    switch (v) {
    case STORE_OK:
        return RDV_OK;
    case STORE_OLD_SEQ:
    case STORE_BAD:
        return RDV_INVALID_RECORD;
    default: /* one of the limits, no room, a broken transaction */
        return RDV_UNAVAILABLE;
    }
}

static bool register_run(struct keep_ask *a, struct keeper *k)
{
    struct rpc *r = CONTAINER_OF(a, struct rpc, ask);
    const struct store_reg reg = {
        .peer = r->peer,
        .ns = r->reg.ns,
        .envelope = r->reg.record,
        .record_seq = r->reg.seq,
        .ttl_s = r->reg.ttl_s,
        .expires_unix_s = k->now_unix_s + r->reg.ttl_s,
    };
    enum store_verdict v;

    if (!keeper_begin(k)) { /* no commit follows that would answer it */
        say_registered(r, RDV_UNAVAILABLE);
        return false;
    }
    v = store_reg_put(k->store, &reg, NULL);
    say_registered(r, status_of(v));
    return v == STORE_OK || v == STORE_FAILED;
}

static void register_failed(struct keep_ask *a, struct keeper *k)
{
    (void)k;
    say_registered(CONTAINER_OF(a, struct rpc, ask), RDV_UNAVAILABLE);
}

static void register_after(struct rpc *r)
{
    struct shard *s = r->shard;
    struct event_rec e = { .kind = EV_RDV_REGISTERED,
                           .level = rpc_event_level(r),
                           .peer = r->peer };

    if (r->status != RDV_OK) {
        STAT_INC(&s->stats, rdv_refused);
        return;
    }
    STAT_INC(&s->stats, rdv_registered);
    e.a = r->reg.ttl_s;
    memcpy(e.text, r->reg.ns.p, min_sz(r->reg.ns.n, sizeof(e.text) - 1));
    log_event(s->log, &e);
    gossip_announce(s, &r->peer, r->reg.ns, r->reg.ttl_s, r->reg.record);
}

static enum rpc_next serve_register(struct rpc *r, const struct rdv_msg *m)
{
    enum rdv_status status = rdv_check_register(rules_of(r), m, &r->peer, &r->reg);

    if (status == RDV_SILENT)
        return RPC_ANSWERED;
    if (status != RDV_OK) {
        STAT_INC(&r->shard->stats, rdv_refused);
        say_registered(r, status);
        return RPC_ANSWERED;
    }
    r->ask.run = register_run;
    r->ask.failed = register_failed;
    r->after = register_after;
    rpc_ask_keeper(r);
    return RPC_ASKED;
}

/* ---- UNREGISTER ----------------------------------------------------------------------------- */

static bool unregister_run(struct keep_ask *a, struct keeper *k)
{
    struct rpc *r = CONTAINER_OF(a, struct rpc, ask);

    return keeper_begin(k) && store_reg_del(k->store, &r->peer, r->ns) != STORE_ABSENT;
}

/* It has no answer, so that there is nothing to take back. */
static void unregister_failed(struct keep_ask *a, struct keeper *k)
{
    (void)a;
    (void)k;
}

static enum rpc_next serve_unregister(struct rpc *r, const struct rdv_msg *m)
{
    if (!rdv_check_unregister(rules_of(r), m, &r->ns))
        return RPC_ANSWERED;
    STAT_INC(&r->shard->stats, rdv_unregistered);
    r->ask.run = unregister_run;
    r->ask.failed = unregister_failed;
    rpc_ask_keeper(r);
    return RPC_ASKED;
}

/* ---- DISCOVER ------------------------------------------------------------------------------- */

static void say_refused(struct rpc *r, enum rdv_status status)
{
    uint8_t msg[128];
    struct wcur w = wcur_of(msg, sizeof(msg));

    rdv_put_discover_refusal(&w, status, rdv_status_text(rules_of(r), status));
    ASSERT(!w.bad);
    r->ended = !rpc_say(r, bytes_of(msg, w.wrote));
}

struct page_writer {
    struct rdv_page page;
    const struct rdv_rules *rules;
    uint64_t now_unix_s;
};

static enum store_take write_record(void *ctx, const struct store_reg *reg)
{
    struct page_writer *pw = ctx;
    uint64_t ttl = rdv_shown_ttl(pw->rules, reg->ttl_s, reg->expires_unix_s, pw->now_unix_s);

    return rdv_page_put(&pw->page, reg->ns, reg->envelope, ttl) ? STORE_TAKE : STORE_STOP;
}

static bool discover_run(struct keep_ask *a, struct keeper *k)
{
    struct rpc *r = CONTAINER_OF(a, struct rpc, ask);
    const struct rdv_rules *rules = rules_of(r);
    struct page_writer pw = { .rules = rules, .now_unix_s = k->now_unix_s };
    struct rdv_query asked = r->query;
    struct store_discover q = {
        .ns = asked.ns,
        .all = asked.all,
        .now_unix_s = k->now_unix_s,
        .limit = asked.limit,
    };
    struct store_discovered d;
    uint8_t cookie[RDV_COOKIE_MAX];

    if (atomic_load_explicit(&r->gone, memory_order_relaxed)) /* nobody would read it */
        return false;
    /* Of a state that a restored backup has undone. */
    if (asked.after >= store_next_seq(k->store) && rdv_unknown_cookie(rules, &asked) != RDV_OK) {
        say_refused(r, RDV_INVALID_COOKIE);
        return false;
    }
    q.after = asked.after;
    rdv_page_begin(&pw.page, k->scratch, rpc_page_room(r, min_sz(rules->reply_max, KEEP_SCRATCH)));
    if (store_discover(k->store, &q, write_record, &pw, &d)) {
        say_refused(r, RDV_INTERNAL_ERROR);
        return false;
    }
    r->found = d.taken;
    r->ended =
        !rpc_say(r, rdv_page_end(&pw.page, bytes_of(cookie, rdv_cookie_make(k->cookie_key, d.last,
                                                                            q.all, q.ns, cookie))));
    return false;
}

static void discover_after(struct rpc *r)
{
    struct shard *s = r->shard;
    struct event_rec e = {
        .kind = EV_RDV_SERVED, .level = rpc_event_level(r), .peer = r->peer, .a = r->found
    };

    STAT_INC(&s->stats, rdv_discovers);
    STAT_ADD(&s->stats, rdv_records, r->found);
    log_event(s->log, &e);
}

static enum rpc_next serve_discover(struct rpc *r, const struct rdv_msg *m)
{
    enum rdv_status status =
        rdv_check_discover(rules_of(r), m, r->shard->d->keeper->cookie_key, &r->query);

    if (status == RDV_SILENT)
        return RPC_ANSWERED;
    if (status != RDV_OK) {
        STAT_INC(&r->shard->stats, rdv_refused);
        say_refused(r, status);
        return RPC_ANSWERED;
    }
    if (!rpc_reserve(r, rules_of(r)->reply_max))
        return RPC_HELD;
    r->ask.run = discover_run;
    r->after = discover_after;
    rpc_ask_keeper(r);
    return RPC_ASKED;
}

enum rpc_next svc_rdv_serve(struct rpc *r)
{
    struct cur in = cur_of(bytes_of(r->in->data, r->len));
    struct rdv_msg m;
    uint64_t len;
    size_t used;

    if (varint_peek(bytes_of(in.p, in.n), &len, &used) != VARINT_OK)
        return RPC_REFUSED;
    cur_take(&in, used);
    if (!rdv_request_decode(bytes_of(in.p, in.n), &m)) {
        STAT_INC(&r->shard->stats, rdv_refused);
        return RPC_ANSWERED; /* libp2p.md §13: it ends in silence */
    }
    switch (m.type) {
    case RDV_REGISTER:
        return serve_register(r, &m);
    case RDV_UNREGISTER:
        return serve_unregister(r, &m);
    default:
        return serve_discover(r, &m);
    }
}
