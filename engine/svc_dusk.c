/* The CBOR services of Dusk (dusk.md §6 to §9): directory, TURN credentials, gif. */
#include <stdio.h>

#include "engine/gif.h"
#include "engine/log.h"
#include "engine/rpc.h"
#include "engine/shard.h"
#include "engine/stream.h"
#include "engine/turn_host.h"

/* Room for texts that came in pieces: as long as the request is always enough. */
static bool room_for(struct rpc *r, struct wcur *room)
{
    size_t n = r->in->n;

    r->room = shared_new(&r->shard->d->rpc_pool, n ? n : 1);
    if (!r->room)
        return false;
    *room = wcur_of(r->room->data, r->room->cap);
    return true;
}

static void say_dir_event(const struct rpc *r, const char *what)
{
    struct event_rec e = {
        .kind = EV_DIRECTORY, .level = rpc_event_level(r), .peer = r->peer, .reason = what
    };

    log_event(r->shard->log, &e);
}

/* ---- directory: Register -------------------------------------------------------------------- */

static void say_dir_ok(struct rpc *r)
{
    uint8_t msg[16];
    struct wcur w = wcur_of(msg, sizeof(msg));

    dusk_dir_put_ok(&w);
    ASSERT(!w.bad);
    r->ended = !rpc_say(r, bytes_of(msg, w.wrote));
}

static void say_dir_error(struct rpc *r, const char *what, const char *why)
{
    char text[160];
    uint8_t msg[200];
    struct wcur w = wcur_of(msg, sizeof(msg));

    snprintf(text, sizeof(text), "%s%s", what, why);
    dusk_dir_put_error(&w, bytes_str(text));
    ASSERT(!w.bad);
    r->status = 1;
    r->ended = !rpc_say(r, bytes_of(msg, w.wrote));
}

static bool dir_register_run(struct keep_ask *a, struct keeper *k)
{
    struct rpc *r = CONTAINER_OF(a, struct rpc, ask);
    enum store_verdict v;

    if (!keeper_begin(k)) { /* no commit follows that would answer it */
        say_dir_error(r, DUSK_REGISTER_FAILED, store_verdict_text(STORE_FAILED));
        return false;
    }
    v = store_profile_put(k->store, &r->peer, r->dir.display_name, r->dir.relay_addr,
                          k->now_unix_s);
    if (v == STORE_OK)
        say_dir_ok(r);
    else
        say_dir_error(r, DUSK_REGISTER_FAILED, store_verdict_text(v));
    return v == STORE_OK || v == STORE_FAILED;
}

static void dir_failed(struct keep_ask *a, struct keeper *k)
{
    (void)k;
    say_dir_error(CONTAINER_OF(a, struct rpc, ask), DUSK_REGISTER_FAILED,
                  store_verdict_text(STORE_NO_ROOM));
}

static void dir_register_after(struct rpc *r)
{
    if (r->status)
        return;
    STAT_INC(&r->shard->stats, directory_registered);
    say_dir_event(r, "register");
}

static enum rpc_next dir_register(struct rpc *r)
{
    if (!dusk_name_check(r->dir.display_name, &r->dir.display_name)) {
        say_dir_error(r, DUSK_NAME_REFUSED, "");
        return RPC_ANSWERED;
    }
    /* Whoever finds it dials it: nothing but the way through this relay to this peer. */
    if (!dusk_relay_addr_ok(r->dir.relay_addr, &r->shard->d->me.id, &r->peer))
        r->dir.relay_addr = bytes_of(NULL, 0);
    r->ask.run = dir_register_run;
    r->ask.failed = dir_failed;
    r->after = dir_register_after;
    rpc_ask_keeper(r);
    return RPC_ASKED;
}

#define REMOVAL_FAILED "removal failed: "

/* ---- Remove --------------------------------------------------------------------------------- */

static bool dir_remove_run(struct keep_ask *a, struct keeper *k)
{
    struct rpc *r = CONTAINER_OF(a, struct rpc, ask);

    if (!keeper_begin(k)) {
        say_dir_error(r, REMOVAL_FAILED, store_verdict_text(STORE_FAILED));
        return false;
    }
    (void)store_profile_del(k->store, &r->peer);
    say_dir_ok(r); /* absent or not (§7); of a broken transaction the commit says so */
    return true;   /* absent may mean: since another of this very group */
}

/* Not Ok: the row may still be there. */
static void dir_remove_failed(struct keep_ask *a, struct keeper *k)
{
    (void)k;
    say_dir_error(CONTAINER_OF(a, struct rpc, ask), REMOVAL_FAILED,
                  store_verdict_text(STORE_NO_ROOM));
}

static void dir_remove_after(struct rpc *r)
{
    STAT_INC(&r->shard->stats, directory_removed);
    say_dir_event(r, "remove");
}

/* ---- Search --------------------------------------------------------------------------------- */

struct results {
    struct wcur w;
    size_t n;
};

static bool put_profile(void *ctx, const struct store_profile *p)
{
    struct results *to = ctx;
    char id[PEER_TEXT_MAX];

    peer_id_text(&p->peer, id);
    const struct dusk_profile out = {
        .peer_id = bytes_str(id),
        .display_name = p->display_name,
        .last_seen_unix_s = p->last_seen_unix_s,
        .relay_addr = p->relay_addr,
    };

    dusk_dir_put_profile(&to->w, &out);
    to->n++;
    return true;
}

/* The head holds how many there are, one byte for up to 20: written last. */
static void say_results(struct rpc *r, struct keeper *k, struct bytes query)
{
    uint8_t *msg = k->scratch, head[16];
    struct wcur h = wcur_of(head, sizeof(head));
    struct results to = { .w = wcur_of(msg + sizeof(head), DUSK_RESULTS_PUT_MAX) };

    if (query.n && store_profile_search(k->store, query, DUSK_RESULTS_MAX, put_profile, &to) != 0) {
        to.w = wcur_of(msg + sizeof(head), DUSK_RESULTS_PUT_MAX);
        to.n = 0; /* §7: a failure is an empty list */
    }
    dusk_dir_put_results(&h, to.n);
    ASSERT(!h.bad && !to.w.bad && h.wrote <= sizeof(head));
    memcpy(msg + sizeof(head) - h.wrote, head, h.wrote);
    r->found = (uint32_t)to.n;
    r->ended = !rpc_say(r, bytes_of(msg + sizeof(head) - h.wrote, h.wrote + to.w.wrote));
}

static bool dir_search_run(struct keep_ask *a, struct keeper *k)
{
    struct rpc *r = CONTAINER_OF(a, struct rpc, ask);

    if (atomic_load_explicit(&r->gone, memory_order_relaxed)) /* nobody would read it */
        return false;
    say_results(r, k, r->dir.query);
    return false;
}

static void dir_search_after(struct rpc *r)
{
    STAT_INC(&r->shard->stats, directory_searches);
    say_dir_event(r, "search");
}

enum rpc_next svc_directory_serve(struct rpc *r)
{
    struct wcur room;

    if (!room_for(r, &room))
        return RPC_REFUSED;
    if (!dusk_dir_req_decode(rpc_request(r), &room, &r->dir)) {
        STAT_INC(&r->shard->stats, rpc_malformed);
        return RPC_ANSWERED; /* §6: the stream ends without bytes */
    }
    switch (r->dir.call) {
    case DUSK_DIR_REGISTER:
        return dir_register(r);
    case DUSK_DIR_REMOVE:
        r->ask.run = dir_remove_run;
        r->ask.failed = dir_remove_failed;
        r->after = dir_remove_after;
        break;
    case DUSK_DIR_SEARCH:
        if (!dusk_query_check(r->dir.query, &r->dir.query))
            r->dir.query = bytes_of(NULL, 0);
        r->ask.run = dir_search_run;
        r->after = dir_search_after;
    }
    rpc_ask_keeper(r);
    return RPC_ASKED;
}

/* ---- TURN credentials ----------------------------------------------------------------------- */

enum rpc_next svc_credentials_serve(struct rpc *r)
{
    struct shard *s = r->shard;
    const struct daemon *d = s->d;
    struct stun_secrets secrets = turn_host_secrets(d->turn);
    struct event_rec e = { .kind = EV_CREDENTIALS, .level = rpc_event_level(r), .peer = r->peer };
    uint8_t made[DUSK_CRED_ROOM], msg[DUSK_CRED_ROOM];
    struct wcur room, texts = wcur_of(made, sizeof(made)), w = wcur_of(msg, sizeof(msg));
    struct dusk_cred_req req;
    struct dusk_cred cred;

    if (!room_for(r, &room))
        return RPC_REFUSED;
    if (!dusk_cred_req_decode(rpc_request(r), &room, &req)) {
        STAT_INC(&s->stats, rpc_malformed);
        return RPC_ANSWERED;
    }
    if (!secrets.count) /* a reload took the last one */
        return RPC_ANSWERED;
    const struct dusk_cred_ask ask = {
        .secret = secrets.secret[0],
        .now_unix_s = s->now_unix_s,
        .peer = &r->peer, /* not the one that the request names (§8) */
        .host = bytes_str(d->cred_host),
        .udp_port = d->cred_udp_port,
        .tcp_port = d->cred_tcp_port,
    };

    dusk_cred_make(&ask, &texts, &cred);
    dusk_cred_put(&w, &cred);
    ASSERT(!w.bad);
    r->ended = !rpc_say(r, bytes_of(msg, w.wrote));
    crypto_wipe(made, sizeof(made));
    crypto_wipe(msg, sizeof(msg));
    STAT_INC(&s->stats, credentials_issued);
    log_event(s->log, &e);
    return RPC_ANSWERED;
}

/* ---- gif ------------------------------------------------------------------------------------ */

enum rpc_next svc_gif_serve(struct rpc *r)
{
    struct shard *s = r->shard;
    uint8_t msg[16];
    struct wcur room, w = wcur_of(msg, sizeof(msg));

    if (!room_for(r, &room))
        return RPC_REFUSED;
    if (!dusk_gif_req_decode(rpc_request(r), &room, &r->gif)) {
        STAT_INC(&s->stats, rpc_malformed);
        return RPC_ANSWERED;
    }
    STAT_INC(&s->stats, gif_requests);
    if (gcra_step(&r->stream->conn->gif_tat_ms, s->now_ms, GIF_BURST, GIF_MS) &&
        gif_ask(s->d->gif, &r->gif, MAIL_GIF, &s->mbox, s->ring,
                (uint64_t)r->head.gen << 32 | r->head.idx))
        return RPC_ASKED;
    dusk_gif_put_results(&w, 0);
    ASSERT(!w.bad);
    r->ended = !rpc_say(r, bytes_of(msg, w.wrote));
    return RPC_ANSWERED;
}

/* The exchange was not kept for this: it may be gone with its stream, and another in its place. */
void svc_gif_on_mail(struct shard *s, struct mnode *n)
{
    struct gif_ask *a = gif_of(n);
    struct rpc *r = slab_find(&s->rpcs, (uint32_t)a->cookie, (uint32_t)(a->cookie >> 32));

    if (r) {
        r->ended = !rpc_say(r, gif_reply(a));
        r->asked = true; /* until now it was its stream's to free */
        rpc_answered(r);
    }
    gif_done(a);
}
