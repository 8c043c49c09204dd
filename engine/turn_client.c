/* What an allocation holds: sockets, ports, its place in the quotas. */
#include <errno.h>
#include <stdio.h>

#include "engine/rng.h"
#include "engine/shard.h"
#include "engine/turn_say.h"
#include "engine/turn_shard.h"
#include "engine/turn_stream.h"
#include "proto/crypto.h"

enum { RELAY_BACKLOG = 64 };

/* ---- getting ----------------------------------------------------------------------------------
 */

/* *again: that port is somebody else's; what else is short, another port does not cure. */
static struct turn_sock *relay_sock(struct turn_shard *ts, enum turn_family f, uint16_t port,
                                    bool *again)
{
    struct netaddr at = ts->host->relay_ip[f];
    struct turn_sock *k;
    int fd;

    at.port = port;
    fd = ring_bind_udp(&at, RING_UDP_ERRORS | (f == TURN_V6 ? RING_UDP_V6ONLY : 0),
                       TURN_RELAY_RCVBUF, NULL);
    *again = fd == -EADDRINUSE || fd == -EACCES;
    if (fd < 0)
        return NULL;
    k = turn_sock_new(ts, fd, &at);
    if (!k) {
        ring_close(ts->s->ring, fd);
        return NULL;
    }
    k->port = port;
    k->family = f;
    return k;
}

/* Ports that somebody else on this host has are given back, and rest, and others are drawn. */
static struct turn_sock *relay_draw(struct turn_shard *ts, enum turn_family f, bool even)
{
    bool again = true;

    for (int tries = 0; again && tries < TURN_BIND_TRIES; tries++) {
        uint16_t port = turn_ports_take(ts->host->ports[f], ts->s->now_ms,
                                        even ? TURN_PORT_EVEN : TURN_PORT_ANY);
        struct turn_sock *k = port ? relay_sock(ts, f, port, &again) : NULL;

        if (k || !port)
            return k;
        turn_ports_give(ts->host->ports[f], ts->s->now_ms, port);
    }
    return NULL;
}

static struct turn_reserved *reserved_free(struct turn_shard *ts)
{
    for (unsigned i = 0; i < TURN_RESERVED_MAX; i++)
        if (!ts->reserved[i].used)
            return &ts->reserved[i];
    return NULL;
}

/* An even port and the next one, which waits for whoever brings the token (turn.md §9.4). */
static struct turn_sock *relay_pair(struct turn_shard *ts, enum turn_family f,
                                    const struct turn_alloc *a, struct turn_grant *g)
{
    struct turn_reserved *r = reserved_free(ts);
    bool again = true;

    for (int tries = 0; r && again && tries < TURN_BIND_TRIES; tries++) {
        uint16_t port = turn_ports_take(ts->host->ports[f], ts->s->now_ms, TURN_PORT_PAIR);
        struct turn_sock *even, *odd;

        if (!port)
            return NULL;
        even = relay_sock(ts, f, port, &again);
        odd = even ? relay_sock(ts, f, (uint16_t)(port + 1), &again) : NULL;
        if (odd) {
            *r = (struct turn_reserved){
                .used = true, .sock = odd, .family = f, .until_ms = ts->s->now_ms + TURN_RESERVED_MS
            };
            turn_token_make(&ts->machine, r->token);
            memcpy(r->owner, a->owner, sizeof(r->owner));
            memcpy(g->token, r->token, sizeof(g->token));
            g->has_token = true;
            ts->reserved_n++;
            return even;
        }
        if (even)
            turn_sock_close(even); /* which gives its port back */
        else
            turn_ports_give(ts->host->ports[f], ts->s->now_ms, port);
        turn_ports_give(ts->host->ports[f], ts->s->now_ms, (uint16_t)(port + 1));
    }
    return NULL;
}

/* By the same user, once, in time; else 508 (RFC 8656 §7.2). */
static struct turn_sock *relay_by_token(struct turn_shard *ts, const struct turn_alloc *a,
                                        const uint8_t token[TURN_TOKEN], enum turn_family *f)
{
    for (unsigned i = 0; i < TURN_RESERVED_MAX; i++) {
        struct turn_reserved *r = &ts->reserved[i];

        if (!r->used || !crypto_equal(r->token, token, TURN_TOKEN))
            continue;
        if (!crypto_equal(r->owner, a->owner, TURN_OWNER) || r->until_ms <= ts->s->now_ms)
            return NULL;
        r->used = false;
        ts->reserved_n--;
        *f = r->family;
        return r->sock;
    }
    return NULL;
}

static bool tcp_listen(struct turn_shard *ts, struct turn_client *c, enum turn_family f)
{
    struct turn_ports *ports = ts->host->ports[f];

    for (int tries = 0; tries < TURN_BIND_TRIES; tries++) {
        struct netaddr at = ts->host->relay_ip[f];
        int fd;

        at.port = turn_ports_take(ports, ts->s->now_ms, TURN_PORT_ANY);
        if (!at.port)
            return false;
        fd = ring_listen_tcp(&at, true, false, RELAY_BACKLOG, NULL);
        if (fd >= 0 && ring_share_port(fd) < 0) {
            ring_close(ts->s->ring, fd);
            fd = -1;
        }
        if (fd >= 0) {
            c->listen_fd[f] = fd;
            c->port[f] = at.port;
            turn_raw_listen(ts, c, f);
            return true;
        }
        turn_ports_give(ports, ts->s->now_ms, at.port);
        if (fd != -EADDRINUSE && fd != -EACCES)
            return false;
    }
    return false;
}

static void half_bind(struct turn_shard *ts, struct turn_client *c, const struct turn_wish *w,
                      enum turn_family f, struct turn_grant *g)
{
    struct netaddr at = ts->host->relay_ip[f];
    struct turn_sock *k = NULL;

    if (!ts->host->has[f]) {
        g->family_error[f] = 440;
        return;
    }
    if (w->tcp ? !tcp_listen(ts, c, f)
               : !(k = w->reserve ? relay_pair(ts, f, c->alloc, g) : relay_draw(ts, f, w->even))) {
        g->family_error[f] = 508;
        return;
    }
    if (k) {
        k->client = c;
        c->sock[f] = k;
    }
    at.port = w->tcp ? c->port[f] : k->port;
    g->has[f] = true;
    turn_host_external(ts->host, &at, &g->relayed[f]);
}

static void bind_all(struct turn_shard *ts, struct turn_client *c, const struct turn_wish *w,
                     struct turn_grant *g)
{
    if (w->has_token) {
        enum turn_family f = TURN_V4;
        struct turn_sock *k = relay_by_token(ts, c->alloc, w->token, &f);

        g->error = k ? 0 : 508;
        if (!k)
            return;
        k->client = c;
        c->sock[f] = k;
        g->has[f] = true;
        turn_host_external(ts->host, &k->local, &g->relayed[f]);
        return;
    }
    for (int f = 0; f < TURN_FAMILIES; f++)
        if (w->family[f])
            half_bind(ts, c, w, (enum turn_family)f, g);
    if (!g->has[TURN_V4] && !g->has[TURN_V6])
        g->error = g->family_error[TURN_V4] ? g->family_error[TURN_V4] : g->family_error[TURN_V6];
}

/* Another server, rather than no (turn.md §14): one of the client's family, drawn. */
static void redirect(struct turn_shard *ts, const struct netaddr *client, struct turn_grant *g)
{
    const struct config *cfg = ts->s->d->cfg;
    unsigned from = cfg->turn_redirect_n ? (unsigned)rng_below(cfg->turn_redirect_n) : 0;

    for (unsigned i = 0; i < cfg->turn_redirect_n; i++) {
        const struct netaddr *to = &cfg->turn_redirect[(from + i) % cfg->turn_redirect_n].addr;

        if (netaddr_is4(to) != netaddr_is4(client))
            continue;
        g->error = 300;
        g->alternate = *to;
        return;
    }
}

/* Whose it is, for people: printable, and cut. */
static void name_client(struct turn_client *c, struct bytes user)
{
    size_t n = 0;

    for (; n < user.n && n < sizeof(c->user) - 1; n++) {
        uint8_t b = user.p[n];

        c->user[n] = b > ' ' && b < 0x7f && b != '"' && b != '\\' ? (char)b : '?';
    }
    c->user[n] = '\0';
}

void turn_client_bind(struct turn_shard *ts, struct turn_out *out)
{
    struct turn_alloc *a = out->alloc;
    struct turn_grant g = { .error = 508 };
    struct turn_client *c = slab_new(&ts->clients);
    uint8_t buf[TURN_ROOM];
    struct turn_out answer = turn_out_of(buf, sizeof(buf));

    ts->work_left -= TURN_WORK_BIND;
    turn_streams_worked(ts, TURN_WORK_BIND);
    if (c) {
        c->alloc = a;
        c->listen_fd[TURN_V4] = c->listen_fd[TURN_V6] = -1;
        c->born_ms = ts->s->now_ms;
        name_client(c, out->wish.quota);
        a->user = c;
        g.error = turn_host_charge(ts->host, out->wish.quota, &a->tuple.client, &c->charge);
    }
    if (ts->draining)
        g.error = 403;
    if (!g.error)
        bind_all(ts, c, &out->wish, &g);
    if (ts->draining || (g.error == 508 && !out->wish.has_token))
        redirect(ts, &a->tuple.client, &g);
    turn_on_bound(&ts->machine, turn_now(ts), a, &g, &answer);
    if (answer.code)
        STAT_INC(&ts->s->stats, turn_alloc_failed);
    else
        STAT_INC(&ts->s->stats, turn_allocated);
    /* The answer goes to where the client is, which is looked up through what we keep of it. */
    if (!c) {
        struct turn_path path = { .sock = turn_door_find(ts, &a->tuple.server) };
        struct turn_tuple tuple = a->tuple;

        if (tuple.transport != TURN_UDP)
            path = (struct turn_path){ .stream = turn_stream_find(ts, &tuple) };
        answer.alloc = NULL;
        answer.act = TURN_NOTHING;
        if (path.sock || path.stream)
            turn_act(ts, &answer, &tuple, &path, bytes_of(NULL, 0));
        return;
    }
    bool failed = answer.gone;

    answer.act = TURN_NOTHING; /* what it would release is released here */
    turn_act(ts, &answer, NULL, NULL, bytes_of(NULL, 0));
    if (failed)
        turn_client_end(ts, c, NULL);
    else
        turn_say_opened(ts, c);
}

/* ---- giving back ------------------------------------------------------------------------------
 */

void turn_client_release(struct turn_shard *ts, struct turn_client *c, enum turn_family f)
{
    if (c->sock[f])
        turn_sock_close(c->sock[f]);
    c->sock[f] = NULL;
    if (c->listen_fd[f] < 0)
        return;
    turn_raw_unlisten(ts, c, f);
    turn_ports_give(ts->host->ports[f], ts->s->now_ms, c->port[f]);
    c->port[f] = 0;
}

/* why: NULL: it never was an allocation. */
void turn_client_end(struct turn_shard *ts, struct turn_client *c, const char *why)
{
    if (why)
        turn_say_closed(ts, c, why);
    turn_client_release(ts, c, TURN_V4);
    turn_client_release(ts, c, TURN_V6);
    turn_host_release(ts->host, &c->charge);
    c->alloc->user = NULL;
    slab_free(&ts->clients, c);
}

void turn_reserved_expire(struct turn_shard *ts, uint64_t now_ms)
{
    for (unsigned i = 0; i < TURN_RESERVED_MAX; i++) {
        struct turn_reserved *r = &ts->reserved[i];

        if (!r->used || r->until_ms > now_ms)
            continue;
        r->used = false;
        ts->reserved_n--;
        turn_sock_close(r->sock);
    }
}

uint64_t turn_reserved_next_ms(const struct turn_shard *ts)
{
    uint64_t at = UINT64_MAX;

    for (unsigned i = 0; ts->reserved_n && i < TURN_RESERVED_MAX; i++)
        if (ts->reserved[i].used)
            at = min_u64(at, ts->reserved[i].until_ms);
    return at;
}

/* ---- reaching it ------------------------------------------------------------------------------
 */

const struct turn_path *turn_client_path(struct turn_shard *ts, struct turn_client *c)
{
    const struct turn_tuple *tuple = &c->alloc->tuple;

    if (tuple->transport != TURN_UDP) { /* a stream may have gone meanwhile */
        c->path = (struct turn_path){ .stream = turn_stream_find(ts, tuple) };
    } else if (!c->path.sock || !turn_same_tuple(tuple, &c->at)) {
        c->path = (struct turn_path){ .sock = turn_door_find(ts, &tuple->server) };
        c->at = *tuple;
    }
    return &c->path;
}

void turn_to_client_run(struct turn_shard *ts, struct turn_client *c, const struct turn_piece *p,
                        size_t stride, unsigned count)
{
    const struct turn_path *path = turn_client_path(ts, c);
    struct turn_piece one = *p;

    if (path->sock) {
        turn_send_run(ts, path->sock, &c->alloc->tuple, p, stride, count);
        return;
    }
    for (unsigned i = 0; i < count; i++, one.data.p += stride)
        turn_to_client(ts, c, &one, true);
}

void turn_to_client(struct turn_shard *ts, struct turn_client *c, const struct turn_piece *p,
                    bool is_data)
{
    const struct turn_path *path = turn_client_path(ts, c);

    if (path->sock)
        turn_send_from(ts, path->sock, &c->alloc->tuple, p);
    else if (path->stream)
        (void)turn_stream_send(path->stream, p->head, p->data, is_data);
    else
        turn_count_drop(ts, TURN_DROP_LOST, 1);
}

bool turn_afford(struct turn_shard *ts, struct turn_client *c, size_t n)
{
    const struct config *cfg = ts->s->d->cfg;
    uint64_t now_ms = ts->s->now_ms;

    if (!cfg->turn_bps_per_allocation && !cfg->turn_bps_per_user)
        return true;
    if (now_ms >= c->carried_ms + 1000) { /* a second's worth at a time */
        c->carried_ms = now_ms;
        c->carried = 0;
    }
    if ((cfg->turn_bps_per_allocation && c->carried + n > cfg->turn_bps_per_allocation) ||
        (cfg->turn_bps_per_user && !turn_host_may_carry(ts->host, now_ms, c->charge.user, n)))
        return false;
    c->carried += n;
    return true;
}

bool turn_carry_run(struct turn_shard *ts, struct turn_client *c, int way, size_t n, unsigned count)
{
    const struct config *cfg = ts->s->d->cfg;

    if (cfg->turn_bps_per_allocation || cfg->turn_bps_per_user)
        return false;
    c->datagrams[way] += count;
    c->bytes[way] += n * count;
    return true;
}

bool turn_carry(struct turn_shard *ts, struct turn_client *c, int way, size_t n)
{
    if (!turn_afford(ts, c, n)) {
        STAT_INC(&ts->s->stats, turn_drop_bandwidth);
        return false;
    }
    c->datagrams[way]++;
    c->bytes[way] += n;
    return true;
}
