/* Bytes of DIG clients, from the socket to whole messages: a balancer's header, TLS, the request
 * head, WebSocket frames. A message that lies whole in what came is handled in place; only one that
 * was cut is gathered, and is then put into one piece once. */
#include <errno.h>

#include "engine/dig_int.h"
#include "engine/proxy2.h"

/* ---- what is not whole yet -------------------------------------------------------------------
 */

void dig_part_drop(struct dig_conn *c)
{
    struct dig_shard *ds = c->ds;

    if (!c->in_parts)
        return;
    c->in_parts = false;
    list_remove(&ds->parts, &c->part_link);
    ds->part_bytes -= c->part.bytes;
    chunkq_clear(&c->part, &ds->s->chunks);
}

/* Who began first and is not done goes: an honest message is whole within moments, and what peers
 * can begin and leave lying has its part of the pool (engine/README.md). false: it went itself. */
static bool part_room(struct dig_conn *c)
{
    struct dig_shard *ds = c->ds;
    size_t max = chunk_bytes_max(&ds->s->chunks) / DIG_PART_PART;

    while (ds->part_bytes > max || (shard_pool_full(ds->s) && ds->parts.count)) {
        struct dig_conn *old = CONTAINER_OF(ds->parts.first, struct dig_conn, part_link);

        STAT_INC(&ds->s->stats, dig_hoard);
        dig_close(old, "began a message and did not end it, and memory is short");
        if (old == c)
            return false;
    }
    return true;
}

/* false: closed. */
static bool part_keep(struct dig_conn *c, struct bytes in)
{
    struct dig_shard *ds = c->ds;

    if (!chunkq_append(&c->part, &ds->s->chunks, in)) {
        STAT_INC(&ds->s->stats, chunks_dry);
        dig_close(c, "no memory for its message");
        return false;
    }
    if (!c->in_parts) {
        c->in_parts = true;
        list_append(&ds->parts, &c->part_link);
    }
    ds->part_bytes += in.n;
    return part_room(c);
}

/* Behind what waits already; nothing of it has been looked at. */
static void put_late(struct dig_conn *c, struct bytes in)
{
    struct dig_shard *ds = c->ds;

    if (in.n && !chunkq_append(&c->late, &ds->s->chunks, in)) {
        STAT_INC(&ds->s->stats, chunks_dry);
        dig_close(c, "no memory for what it sends");
        return;
    }
    if (!c->is_late && !dig_waits(c) && c->late.bytes) {
        c->is_late = true;
        list_append(&ds->late, &c->late_link);
    }
    if (c->late.bytes > DIG_LATE_MAX || !dig_waits(c))
        dig_pause(c);
}

void dig_go_on(struct dig_conn *c)
{
    if (c->state >= DIG_FLUSH || dig_waits(c))
        return;
    if (c->late.bytes)
        put_late(c, bytes_of(NULL, 0));
    else if (c->tls && tls_verdict(c->tls) == TLS_CLOSED)
        dig_finish_after(c, "closed by peer"); /* behind all that it had said */
    else
        dig_resume(c);
}

/* ---- the request head ------------------------------------------------------------------------
 */

/* Gathers a head that came in pieces: all of it so far, in ds->join. */
static bool head_join(struct dig_conn *c, struct bytes *in)
{
    struct dig_shard *ds = c->ds;

    if (!c->part.bytes)
        return true;
    if (!part_keep(c, *in))
        return false;
    size_t n = chunkq_copy(&c->part, ds->join, ds->join_bytes);

    *in = bytes_of(ds->join, n);
    return true;
}

static void upgrade(struct dig_conn *c, const struct http_head *h)
{
    char answer[WS_ACCEPT_MAX];
    struct bytes out = bytes_of(answer, 0);

    if (!ws_upgrade_ok(h)) {
        STAT_INC(&c->ds->s->stats, dig_bad_heads);
        dig_close(c, "not the upgrade that RFC 6455 asks for");
        return;
    }
    out.n = ws_accept_encode(h, answer);
    if (!dig_send(c, &out, 1))
        return;
    ws_rx_init(&c->ws, c->ds->host->cfg->dig_message_bytes_max);
    c->state = DIG_WS;
}

/* What follows a head; the rest is not consumed. false: no more of it now. */
static bool head_feed(struct dig_conn *c, uint8_t **p, size_t *n)
{
    struct bytes in = bytes_of(*p, *n);
    bool joined = c->part.bytes != 0;
    struct http_head h = c->http;

    if (!head_join(c, &in))
        return false;
    enum http_head_verdict v = http_head_decode(in, &h);

    if (v == HTTP_HEAD_MORE) {
        c->http = h;
        if (!joined)
            (void)part_keep(c, in); /* or it is closed */
        return false;
    }
    if (v != HTTP_HEAD_READY) {
        STAT_INC(&c->ds->s->stats, dig_bad_heads);
        dig_close(c, "no request head");
        return false;
    }
    size_t rest = in.n - h.used;

    /* Of what came last, all behind the head is the next protocol's. */
    ASSERT(rest <= *n);
    *p += *n - rest;
    *n = rest;
    if (h.wants_ws)
        upgrade(c, &h);
    else
        dig_on_request(c, &h);
    dig_part_drop(c);
    return c->state == DIG_WS;
}

/* ---- frames ----------------------------------------------------------------------------------
 */

/* Control frames are counted as messages are (dig.md §21 "Control frames uncounted"). */
static bool control_allowed(struct dig_conn *c)
{
    uint32_t per_s = c->ds->host->cfg->dig_messages_per_conn;

    if (!per_s || dig_spend(&c->control_tat_ns, c->ds->s->now_ms, 1, per_s))
        return true;
    STAT_INC(&c->ds->s->stats, dig_floods);
    dig_blame(c);
    dig_end(c, WS_CODE_POLICY, "too many control frames");
    return false;
}

static void on_ping(struct dig_conn *c, const struct ws_event *ev)
{
    uint8_t head[WS_HEAD_MAX];
    const struct bytes parts[2] = { bytes_of(head, ws_head_encode(head, WS_OP_PONG, ev->n)),
                                    bytes_of(ev->p, ev->n) };

    if (control_allowed(c))
        (void)dig_send(c, parts, 2); /* or it is closed */
}

static void on_close(struct dig_conn *c, const struct ws_event *ev)
{
    uint8_t head[WS_HEAD_MAX], body[WS_CONTROL_MAX];
    size_t n = ws_close_reply(ev, body);
    const struct bytes parts[2] = { bytes_of(head, ws_head_encode(head, WS_OP_CLOSE, n)),
                                    bytes_of(body, n) };

    if (dig_send(c, parts, 2))
        dig_finish_after(c, "closed by peer");
}

static void on_piece(struct dig_conn *c, const struct ws_event *ev)
{
    struct dig_shard *ds = c->ds;
    struct bytes text = bytes_of(ev->p, ev->n);

    if (!ev->last || c->in_parts) {
        if (!part_keep(c, text) || !ev->last)
            return;
        ASSERT(c->part.bytes <= ds->join_bytes);
        text = bytes_of(ds->join, chunkq_copy(&c->part, ds->join, ds->join_bytes));
        dig_part_drop(c);
    }
    dig_on_message(c, text);
}

static void ws_feed(struct dig_conn *c, uint8_t *p, size_t n)
{
    struct ws_event ev;

    for (int done = 0; c->state == DIG_WS; done++) {
        /* A frame costs something however short it is: what waits is looked at in the next turn. */
        if (dig_waits(c) || done == DIG_MESSAGES_MAX || c->ds->work_left <= 0) {
            if (n)
                put_late(c, bytes_of(p, n));
            return;
        }
        c->ds->work_left--; /* parts of messages and pings count */
        switch (ws_next(&c->ws, &p, &n, &ev)) {
        case WS_NEED_MORE:
            return;
        case WS_PIECE:
            on_piece(c, &ev);
            break;
        case WS_PING:
            on_ping(c, &ev);
            break;
        case WS_PONG:
            (void)control_allowed(c); /* or it closes */
            break;
        case WS_CLOSE:
            on_close(c, &ev);
            return;
        case WS_BAD:
            STAT_INC(&c->ds->s->stats, dig_bad_frames);
            dig_end(c, ev.code, "a fault of its WebSocket");
            return;
        }
    }
}

static void plain_feed(struct dig_conn *c, uint8_t *p, size_t n)
{
    if (c->state >= DIG_FLUSH || c->state == DIG_PAGE)
        return; /* a request has one answer, and what follows is not heard */
    if (c->late.bytes || dig_waits(c)) {
        put_late(c, bytes_of(p, n));
        return;
    }
    if (c->state == DIG_HEAD && !head_feed(c, &p, &n))
        return;
    if (n)
        ws_feed(c, p, n);
}

void dig_late_pass(struct dig_shard *ds)
{
    size_t n = ds->late.count;

    ds->work_left = DIG_WORK;
    while (n-- && ds->late.count && ds->work_left > 0) {
        struct dig_conn *c = CONTAINER_OF(list_pop(&ds->late), struct dig_conn, late_link);
        struct chunkq q = c->late;

        c->late = (struct chunkq){ 0 };
        c->is_late = false;
        while (q.first) {
            struct chunk *k = q.first;

            q.first = k->next;
            k->next = NULL;
            /* Behind the first that was not looked at to its end, order is all that matters. */
            if (c->state < DIG_FLUSH && (c->late.bytes || dig_waits(c))) {
                chunkq_push(&c->late, k);
                continue;
            }
            plain_feed(c, chunk_head(k), k->len);
            chunk_free(&ds->s->chunks, k);
        }
        dig_go_on(c);
    }
    ds->work_left = DIG_WORK; /* of what the next turn receives */
}

/* ---- TLS -------------------------------------------------------------------------------------
 */

static void on_established(struct dig_conn *c)
{
    c->state = DIG_HEAD;
    http_head_init(&c->http, HTTP_HEAD_BYTES_MAX, true);
    c->verified = tls_peer_id(c->tls, c->cert);
    STAT_INC(&c->ds->s->stats, dig_tls_ok);
}

static void tls_ingest(struct dig_conn *c, struct bytes in)
{
    struct dig_shard *ds = c->ds;
    enum tls_verdict v = tls_feed(c->tls, in);
    size_t n;

    if (c->state == DIG_SHAKE && tls_established(c->tls))
        on_established(c);
    if (tls_worked(c->tls))
        ds->shakes_left--;
    while (c->state != DIG_CLOSED && (n = tls_read(c->tls, ds->plain, DIG_TLS_READ)))
        plain_feed(c, ds->plain, n);
    if (c->state == DIG_CLOSED)
        return;
    if (dig_owed(c) > DIG_CONTROL_ROOM && dig_alive(c))
        dig_pause(c);
    v = tls_verdict(c->tls);
    if (v == TLS_FAILED) {
        STAT_INC(&ds->s->stats, dig_tls_failed);
        if (c->wire.bytes) /* the alert that tells it why */
            dig_finish_after(c, tls_why_text(tls_why(c->tls)));
        else
            dig_close(c, tls_why_text(tls_why(c->tls)));
    } else if (v == TLS_CLOSED && !c->late.bytes && !dig_waits(c)) {
        dig_finish_after(c, "closed by peer");
    }
}

/* After admission: what is spoken first. Memory for TLS is taken with the first byte: who connects
 * and says nothing costs a slot and no more. */
void dig_greet(struct dig_conn *c)
{
    bool tls = c->ds->host->tls_on;

    c->state = tls ? DIG_SHAKE : DIG_HEAD;
    if (!tls)
        http_head_init(&c->http, HTTP_HEAD_BYTES_MAX, true);
}

/* false: closed. */
static bool tls_begin(struct dig_conn *c)
{
    struct dig_shard *ds = c->ds;
    struct tls_server *server = tls_next_take(&ds->host->tls[ds->s->id], &ds->tls);

    c->tls = tls_new(server, ds->tls_pool, dig_tls_out, c);
    if (c->tls)
        return true;
    STAT_INC(&ds->s->stats, dig_tls_failed);
    dig_close(c, "no memory for TLS");
    return false;
}

/* ---- off the socket --------------------------------------------------------------------------
 */

/* A step of a handshake is work for hundreds of messages: a crowd of them goes on a few at a time,
 * and what it sends meanwhile is kept as it came. */
static void shake_later(struct dig_conn *c, struct bytes in)
{
    struct dig_shard *ds = c->ds;

    if (!chunkq_append(&c->late, &ds->s->chunks, in)) {
        STAT_INC(&ds->s->stats, chunks_dry);
        dig_close(c, "no memory for what it sends");
        return;
    }
    if (!c->is_shaking)
        list_append(&ds->shaking, &c->late_link);
    c->is_shaking = true;
    dig_pause(c);
}

static void ingest(struct dig_conn *c, uint8_t *p, size_t n)
{
    if (c->state == DIG_SHAKE && n && (c->is_shaking || c->ds->shakes_left <= 0)) {
        shake_later(c, bytes_of(p, n));
        return;
    }
    if (c->state == DIG_SHAKE && !c->tls && !tls_begin(c))
        return;
    if (c->tls)
        tls_ingest(c, bytes_of(p, n));
    else
        plain_feed(c, p, n);
}

void dig_shake_pass(struct dig_shard *ds)
{
    size_t n = ds->shaking.count;

    ds->shakes_left = DIG_SHAKES;
    while (n-- && ds->shaking.count && ds->shakes_left > 0) {
        struct dig_conn *c = CONTAINER_OF(list_pop(&ds->shaking), struct dig_conn, late_link);
        struct chunkq q = c->late;

        c->late = (struct chunkq){ 0 }; /* where the first messages behind the handshake may wait */
        c->is_shaking = false;
        while (q.first) {
            struct chunk *k = q.first;

            q.first = k->next;
            if (dig_alive(c) && (c->tls || tls_begin(c)))
                tls_ingest(c, chunk_bytes(k));
            chunk_free(&ds->s->chunks, k);
        }
        dig_go_on(c);
    }
    ds->shakes_left = DIG_SHAKES; /* of what the next turn receives */
}

/* A trusted balancer says who the client is; one that does not is the client (dig.md §13). */
static void proxy_feed(struct dig_conn *c, struct bytes in)
{
    struct dig_shard *ds = c->ds;
    uint8_t head[PROXY2_MAX];
    struct proxy2 p = { 0 };

    if (!part_keep(c, in))
        return;
    size_t n = chunkq_copy(&c->part, head, sizeof(head));
    enum proxy2_verdict v = proxy2_parse(bytes_of(head, n), &p);

    if (v == PROXY2_MORE && n < sizeof(head))
        return;
    if (v == PROXY2_OK && p.has_src) {
        c->observed = p.src;
        c->trusted = false;
    }
    struct chunkq q = c->part;
    size_t skip = v == PROXY2_OK ? p.used : 0;

    c->part = (struct chunkq){ 0 };
    ds->part_bytes -= q.bytes;
    dig_part_drop(c);
    chunkq_consume(&q, &ds->s->chunks, skip);
    if (dig_admit(c))
        dig_greet(c);
    else
        dig_close(c, NULL);
    dig_deadlines(c);
    while (q.first) {
        struct chunk *k = q.first;

        q.first = k->next;
        if (c->state != DIG_CLOSED)
            ingest(c, chunk_head(k), k->len);
        chunk_free(&ds->s->chunks, k);
    }
}

static void on_bytes(struct dig_conn *c, uint8_t *p, size_t n)
{
    struct shard *s = c->ds->s;

    STAT_ADD(&s->stats, rx_bytes, n);
    c->any_ms = s->now_ms;
    c->probing = false;
    if (c->state == DIG_PROXY)
        proxy_feed(c, bytes_of(p, n));
    else if (c->state < DIG_FLUSH)
        ingest(c, p, n);
}

/* Its half is over, and the whole with it, unless an answer is still on its way. A reset, too,
 * takes back nothing that was said before it: who closes with something unread sends one. */
static void on_end(struct dig_conn *c, bool reset)
{
    if (!reset && (c->state == DIG_FLUSH || c->state == DIG_PAGE))
        return;
    if (c->state == DIG_WS && (c->late.bytes || dig_waits(c)))
        c->paused = true; /* what it said before is heard first, then its end once more */
    else
        dig_close(c, "closed by peer");
}

void dig_on_recv(struct dig_conn *c, const struct ring_cqe *cqe)
{
    struct dig_shard *ds = c->ds;

    if (!cqe->more) {
        c->recv_armed = false;
        c->ops--;
    }
    if (cqe->has_buf) {
        if (cqe->res > 0 && c->state != DIG_CLOSED)
            on_bytes(c, cqe->buf, (size_t)cqe->res);
        ring_buf_return(ds->s->ring, cqe->bid);
    }
    if (c->state == DIG_CLOSED)
        return;
    if (cqe->res == 0) {
        on_end(c, false);
    } else if (cqe->res == -ENOBUFS) {
        STAT_INC(&ds->s->stats, rx_nobufs);
        if (!c->recv_armed && !c->dry) {
            c->dry = true;
            list_append(&ds->dry, &c->dry_link);
        }
    } else if (cqe->res < 0 && cqe->res != -ECANCELED && cqe->res != -EINTR &&
               cqe->res != -EAGAIN) {
        on_end(c, true);
    } else if (!c->recv_armed && !c->paused) {
        dig_arm_recv(c, false);
    }
}
