#include "engine/rpc.h"

#include "engine/clock.h"
#include "engine/shard.h"
#include "engine/stream.h"
#include "proto/varint.h"

static size_t request_max(const struct rpc *r)
{
    return r->svc == SVC_RDV ? RDV_REQUEST_MAX + VARINT_MAX_BYTES : DUSK_REQUEST_MAX;
}

static void rpc_free(struct rpc *r)
{
    struct shard *s = r->shard;

    ASSERT(!r->asked && !r->stream);
    if (r->ready)
        list_remove(&s->rpc_ready, &r->ready_link);
    shared_drop(r->in);
    shared_drop(r->room);
    shared_drop(r->out);
    slab_free(&s->rpcs, r);
}

void rpc_forget(struct stream *st)
{
    struct conn *c = st->conn;
    struct rpc *r = st->rpc;

    if (!r)
        return;
    ASSERT(c->rpc_bytes >= r->charged);
    ASSERT(c->rpc_due >= r->due);
    c->rpc_bytes -= r->charged;
    c->rpc_due -= r->due;
    if (r->held)
        list_remove(&c->held, &r->ready_link);
    r->held = false;
    st->rpc = NULL;
    r->stream = NULL;
    atomic_store_explicit(&r->gone, true, memory_order_relaxed);
    if (!r->asked)
        rpc_free(r);
    rpc_go_on(c);
}

void rpc_start(struct stream *st, int svc)
{
    struct conn *c = st->conn;
    struct shard *s = c->shard;
    struct rpc *r = NULL;

    st->kind = ST_RPC;
    wheel_arm(&s->wheel, &st->timer, s->now_ms + DUSK_EXCHANGE_MS);
    if (!gcra_step(&c->rpc_tat_ms, s->now_ms, RPC_BURST, RPC_MS)) {
        if (mux_forgive(c))
            stream_reset(st);
        return;
    }
    if (stream_count(st, COUNT_RPC, RPC_STREAMS_MAX))
        r = slab_new(&s->rpcs);
    if (!r) {
        STAT_INC(&s->stats, rpc_refused);
        stream_reset(st);
        return;
    }
    r->shard = s;
    r->stream = st;
    r->svc = (uint8_t)svc;
    r->peer = c->peer;
    st->rpc = r;
    STAT_INC(&s->stats, rpc_requests);
}

/* Room for n bytes of the request, all in all. */
static bool request_room(struct rpc *r, size_t n)
{
    struct conn *c = r->stream->conn;
    size_t cap = r->len ? r->len : RPC_FIRST_BYTES;
    struct shared *bigger;

    if (r->in && n <= r->in->cap)
        return true;
    while (cap < n)
        cap *= 2;
    cap = min_sz(cap, request_max(r));
    size_t share = shared_share(&r->shard->d->rpc_pool);

    share = share < RPC_PAGE_MIN ? RPC_PAGE_MIN : min_sz(share, RPC_CONN_BYTES_MAX);
    if (c->rpc_bytes - r->charged + cap > share ||
        !(bigger = shared_new(&r->shard->d->rpc_pool, cap)))
        return false;
    if (r->in) {
        memcpy(bigger->data, r->in->data, r->in->n);
        bigger->n = r->in->n;
        shared_drop(r->in);
    }
    r->in = bigger;
    c->rpc_bytes += (uint32_t)cap - r->charged;
    r->charged = (uint32_t)cap;
    return true;
}

static bool request_add(struct rpc *r, struct bytes b)
{
    size_t had = r->in ? r->in->n : 0;

    if (had + b.n > request_max(r) || !request_room(r, had + b.n))
        return false;
    memcpy(r->in->data + had, b.p, b.n);
    r->in->n += (uint32_t)b.n;
    return true;
}

static void rpc_ready(struct rpc *r)
{
    r->stream->kind = ST_RPC_WAIT;
    r->ready = true;
    list_append(&r->shard->rpc_ready, &r->ready_link);
}

void rpc_go_on(struct conn *c)
{
    struct link *k = list_pop(&c->held);

    if (!k)
        return;
    struct rpc *r = CONTAINER_OF(k, struct rpc, ready_link);

    r->held = false;
    rpc_ready(r);
}

bool rpc_reserve(struct rpc *r, size_t n)
{
    struct conn *c = r->stream->conn;
    size_t share = shared_share(&r->shard->d->rpc_pool);
    size_t waits = c->rpc_due + c->said_bytes;

    ASSERT(!r->due);
    n = rpc_page_room(r, n);
    if (waits && waits + n > min_sz(share, RPC_ANSWERS_MAX)) {
        r->held = true;
        list_append(&c->held, &r->ready_link);
        return false;
    }
    r->due = (uint32_t)n;
    c->rpc_due += r->due;
    rpc_go_on(c); /* one by one, as long as there is room */
    return true;
}

size_t rpc_page_room(const struct rpc *r, size_t max)
{
    size_t share = shared_share(&r->shard->d->rpc_pool);

    return min_sz(max, share < RPC_PAGE_MIN ? RPC_PAGE_MIN : share);
}

/* Once its prefix is there, how long the message is with it. false: too long, or none. */
static bool message_length(struct rpc *r)
{
    uint64_t len;
    size_t used;

    if (r->len)
        return true;
    switch (varint_peek(rpc_request(r), &len, &used)) {
    case VARINT_MORE:
        return true;
    case VARINT_BAD:
        return false;
    case VARINT_OK:
        break;
    }
    if (len > RDV_REQUEST_MAX)
        return false;
    r->len = (uint32_t)(len + used);
    return true;
}

bool rpc_feed(struct stream *st, struct cur *in)
{
    struct rpc *r = st->rpc;
    struct bytes b = cur_take(in, in->n);

    if (!request_add(r, b) || (r->svc == SVC_RDV && !message_length(r))) {
        STAT_INC(&r->shard->stats, rpc_refused);
        stream_reset(st);
        return false;
    }
    if (r->svc == SVC_RDV && r->len && r->in->n >= r->len)
        rpc_ready(r);
    return false;
}

void rpc_on_fin(struct stream *st)
{
    struct rpc *r = st->rpc;

    if (st->kind == ST_RPC_WAIT)
        return;
    if (r->svc == SVC_RDV || !r->in) /* half a message, or none: an orderly end */
        stream_finish(st);
    else
        rpc_ready(r);
}

static void rpc_end(struct rpc *r, bool refused)
{
    struct stream *st = r->stream;
    struct shared *out = r->out;

    if (!st) {
        rpc_free(r);
        return;
    }
    r->out = NULL;
    rpc_forget(st);
    if (out && stream_say(st, out)) {
        stream_say_end(st);
        return;
    }
    shared_drop(out);
    if (refused || out)
        stream_reset(st);
    else
        stream_finish(st);
}

static enum rpc_next rpc_serve(struct rpc *r)
{
    switch (r->svc) {
    case SVC_RDV:
        return svc_rdv_serve(r);
    case SVC_DIRECTORY:
        return svc_directory_serve(r);
    case SVC_CREDENTIALS:
        return svc_credentials_serve(r);
    default:
        return svc_gif_serve(r);
    }
}

void rpc_pass(struct shard *s)
{
    uint64_t until_ns = s->rpc_ready.count ? clock_mono_ns() + RPC_TURN_NS : 0;

    for (int i = 0; i < RPC_PER_TURN && s->rpc_ready.count; i++) {
        if (i && clock_mono_ns() >= until_ns)
            return;
        struct rpc *r = CONTAINER_OF(list_pop(&s->rpc_ready), struct rpc, ready_link);

        r->ready = false;
        enum rpc_next next = rpc_serve(r);

        if (next != RPC_ASKED && next != RPC_HELD)
            rpc_end(r, next == RPC_REFUSED || r->ended);
    }
}

void rpc_ask_keeper(struct rpc *r)
{
    r->asked = true;
    r->ask.shard = r->shard;
    r->ask.node.kind = MAIL_RPC;
    keeper_ask(r->shard, &r->ask);
}

void rpc_on_mail(struct shard *s, struct mnode *n)
{
    struct rpc *r = CONTAINER_OF(n, struct rpc, ask.node);

    ASSERT(r->shard == s);
    rpc_answered(r);
}

void rpc_answered(struct rpc *r)
{
    ASSERT(r->asked);
    r->asked = false;
    if (r->after)
        r->after(r);
    rpc_end(r, r->ended);
}

bool rpc_say(struct rpc *r, struct bytes answer)
{
    ASSERT(answer.n > 0);
    shared_drop(r->out);
    r->out = shared_new(&r->shard->d->rpc_pool, answer.n);
    if (!r->out)
        return false;
    memcpy(r->out->data, answer.p, answer.n);
    r->out->n = (uint32_t)answer.n;
    return true;
}

uint8_t rpc_event_level(const struct rpc *r)
{
    return r->shard->d->cfg->preset == PRESET_DUSK ? LOG_INFO : LOG_DEBUG;
}
