#include "tests/sim/sim_turn_crowd.h"

#include <stdlib.h>

enum {
    REFRESH_MS = 60000, /* before the end of what is to be kept */
    TOKEN_MS = 30000,
};

static uint64_t below(struct sim_turn_crowd *w, uint64_t n)
{
    return sim_below(w->t.s->net, n);
}

static bool chance(struct sim_turn_crowd *w, unsigned pct)
{
    return sim_chance(w->t.s->net, pct);
}

void sim_turn_crowd_init(struct sim_turn_crowd *w, struct sim *s, const struct sim_opts *net)
{
    sim_turn_init(&w->t, s, net);
    w->t.exact = w->t.exact && !w->capped;
    w->t.faithful = w->t.exact && !w->hostile;
    for (unsigned i = 0; i < w->peers; i++) {
        /* Now and then two on one host, for a permission is of an IP. */
        unsigned p =
            sim_turn_peer(&w->t, i - (i % 4 == 3), (uint16_t)(7000 + i), w->v6 && i % 3 == 2);

        w->t.peer[p].echo_pct = 50;
    }
    for (unsigned i = 0; i < w->clients; i++) {
        struct sim_turn_client *c = sim_turn_client(&w->t, i % SIM_TURN_USERS, -1);

        if (w->tcp_every > 0 && i % w->tcp_every == w->tcp_every - 1) {
            c->tcp = true;
            c->at = sim_turn_end(c, -1);
        }
        c->sha256 = i % 2;
        c->fingerprint = i % 3 == 0;
        if (w->v6 && i % 4 == 3) {
            c->server = sim_turn_server6;
            c->at = sim_turn_end(c, -1);
        }
    }
}

void sim_turn_crowd_fini(struct sim_turn_crowd *w)
{
    sim_turn_fini(&w->t);
}

/* ---- asking --------------------------------------------------------------------------------- */

static void allocate(struct sim_turn_crowd *w, struct sim_turn_client *c)
{
    struct sim_turn_ask ask = { .method = STUN_ALLOCATE, .lifetime_s = -1 };

    if (chance(w, 30))
        ask.lifetime_s = (int32_t)below(w, 5000);
    ask.mobile = w->mobile && chance(w, 50);
    if (w->has_token && w->token_user == c->user && chance(w, 60)) {
        ask.has_token = true;
        memcpy(ask.token, w->token, TURN_TOKEN);
        w->has_token = chance(w, 20); /* somebody may try it again */
    } else if (chance(w, 30)) {
        ask.even = true;
        ask.reserve = chance(w, 60);
    } else if (w->v6) {
        ask.family = (uint8_t)below(w, 4);
    }
    if (chance(w, 70) || !c->at->open) {
        struct sim_turn_end *old = c->at;

        c->at = sim_turn_end(c, -1); /* so that nothing of the last one is mistaken for this */
        c->nonce_n = chance(w, 50) ? c->nonce_n : 0;
        if (chance(w, 50))
            sim_turn_end_close(old);
    }
    sim_turn_do(c, &ask, NULL);
}

static unsigned some_peer(struct sim_turn_crowd *w, const struct sim_turn_client *c)
{
    unsigned p = (unsigned)below(w, w->t.peers_n);
    const struct sim_turn_life *l = c->life;

    for (unsigned i = 0; i < w->t.peers_n; i++, p = (p + 1) % w->t.peers_n)
        if (l->has[netaddr_is4(&w->t.peer[p].at) ? TURN_V4 : TURN_V6])
            break;
    return p;
}

static void permit(struct sim_turn_crowd *w, struct sim_turn_client *c)
{
    struct sim_turn_ask ask = { .method = STUN_CREATE_PERMISSION, .lifetime_s = -1 };

    ask.peers_n = 1 + (unsigned)below(w, 3);
    for (unsigned i = 0; i < ask.peers_n; i++)
        ask.peer[i] = some_peer(w, c);
    sim_turn_do(c, &ask, NULL);
}

static void bind_channel(struct sim_turn_crowd *w, struct sim_turn_client *c)
{
    struct sim_turn_ask ask = { .method = STUN_CHANNEL_BIND, .lifetime_s = -1, .peers_n = 1 };

    ask.peer[0] = some_peer(w, c);
    ask.number = (uint16_t)(CHAN_MIN + 11 * ask.peer[0] + c->life->id % 11);
    sim_turn_do(c, &ask, NULL);
}

static void refresh(struct sim_turn_crowd *w, struct sim_turn_client *c, bool end)
{
    struct sim_turn_ask ask = { .method = STUN_REFRESH, .lifetime_s = -1 };

    if (end)
        ask.lifetime_s = 0;
    else if (chance(w, 40))
        ask.lifetime_s = 1 + (int32_t)below(w, 5000);
    sim_turn_do(c, &ask, NULL);
}

static void move(struct sim_turn_crowd *w, struct sim_turn_client *c)
{
    struct sim_turn_ask ask = { .method = STUN_REFRESH, .lifetime_s = -1, .resume = true };
    struct sim_turn_end *to;
    int was = sim_udp_lands(w->t.s->net, &c->server, &c->at->at);

    if (!c->life->mobile || c->life->ends_n == SIM_TURN_ENDS)
        return;
    to = sim_turn_end(c, -1);
    w->did.moved++;
    w->did.moved_across += sim_udp_lands(w->t.s->net, &c->server, &to->at) != was;
    sim_turn_do(c, &ask, to);
}

/* What is under way when a client leaves its 5-tuple is lost, as it should be: who is to be sure
 * that nothing is lost waits first. */
static void leave(struct sim_turn_crowd *w, struct sim_turn_client *c, bool end)
{
    if (!w->t.exact) {
        if (end)
            refresh(w, c, true);
        else
            move(w, c);
        return;
    }
    c->quiet = true;
    w->later[c->idx].end = end;
    w->later[c->idx].move = !end;
    w->later[c->idx].at_ms = sim_now(w->t.s) + SIM_TURN_SLACK_MS;
}

static void leave_now(struct sim_turn_crowd *w, struct sim_turn_client *c)
{
    if (!c->quiet || sim_turn_asking(c))
        return;
    if (sim_now(w->t.s) < w->later[c->idx].at_ms) {
        sim_net_alarm(w->t.s->net, w->later[c->idx].at_ms);
        return;
    }
    c->quiet = false;
    if (c->life == NULL)
        return;
    if (w->later[c->idx].end)
        refresh(w, c, true);
    else
        move(w, c);
}

/* ---- sending -------------------------------------------------------------------------------- */

static size_t some_size(struct sim_turn_crowd *w)
{
    if (chance(w, 3))
        return 8000;
    return SIM_TURN_PAYLOAD_MIN + below(w, chance(w, 50) ? 100 : 1200 - SIM_TURN_PAYLOAD_MIN);
}

static void send_some(struct sim_turn_crowd *w, struct sim_turn_client *c, bool honest)
{
    struct sim_turn_life *l = c->life;
    unsigned peer = some_peer(w, c), n = chance(w, 40) ? 1 + (unsigned)below(w, 40) : 1;
    uint64_t now_ms = sim_now(w->t.s);
    size_t bytes = some_size(w), last = chance(w, 60) ? bytes : SIM_TURN_PAYLOAD_MIN;
    int by = BY_SEND;

    for (unsigned i = 0; honest && i < w->t.peers_n && l->link[peer].perm_ok_ms < now_ms; i++)
        peer = (peer + 1) % w->t.peers_n;
    if (honest && l->link[peer].perm_ok_ms < now_ms)
        return;
    if (l->link[peer].number != 0 && (l->link[peer].chan_ok_ms > now_ms || !honest) &&
        chance(w, 70))
        by = BY_CHANNEL;
    if (chance(w, 3))
        bytes = last = 0;
    sim_turn_send(c, peer, by, n, bytes, last);
}

/* One train on the wire, of all channels, or of all peers with a permission, in turn. */
static void send_mixed(struct sim_turn_crowd *w, struct sim_turn_client *c)
{
    uint64_t now_ms = sim_now(w->t.s);
    size_t bytes = some_size(w);
    int by = chance(w, 70) ? BY_CHANNEL : BY_SEND;

    for (unsigned n = 2 + (unsigned)below(w, 20); n > 0; n--) {
        unsigned peer = (unsigned)below(w, w->t.peers_n);
        const struct sim_turn_link *k = &c->life->link[peer];

        if (k->perm_ok_ms > now_ms && (by == BY_SEND || k->chan_ok_ms > now_ms))
            sim_turn_send(c, peer, by, 1, bytes, bytes);
    }
}

static void peer_sends(struct sim_turn_crowd *w, struct sim_turn_client *c, bool honest)
{
    unsigned peer = some_peer(w, c);
    size_t bytes = some_size(w);
    unsigned n = chance(w, 40) ? 1 + (unsigned)below(w, 40) : 1;
    uint64_t now_ms = sim_now(w->t.s);

    if (c->life->ok_ms < now_ms || c->life->ending)
        return; /* the port may be another's by now */
    if (!honest || c->life->link[peer].perm_ok_ms > now_ms)
        sim_turn_peer_send(&w->t, peer, c->life, n, bytes, chance(w, 60) ? bytes : 40);
}

static void garbage(struct sim_turn_crowd *w, struct sim_turn_client *c)
{
    uint8_t junk[256];
    size_t n = below(w, sizeof(junk));

    w->did.garbage++;
    for (size_t i = 0; i < n; i++)
        junk[i] = (uint8_t)below(w, 256);
    if (n > 1 && chance(w, 30))
        junk[0] = 0x40;
    if (c->tcp && (junk[0] & 0xc0) == 0x40) /* it would swallow what follows, which then arrives */
        junk[0] |= 0x80;
    if (chance(w, 30) && c->request_n > 0) { /* a request that was damaged on the way */
        c->garbled = true;
        n = 1 + below(w, c->request_n);
        memcpy(junk, c->request, n = min_sz(n, sizeof(junk)));
        junk[below(w, n)] ^= (uint8_t)(1 + below(w, 255));
    }
    sim_turn_emit(c->at, junk, n);
}

/* ---- what became of it ---------------------------------------------------------------------- */

static void lost(struct sim_turn_crowd *w, struct sim_turn_client *c)
{
    sim_turn_over(c);
    c->nonce_n = 0;
    c->at = sim_turn_end(c, -1); /* nobody knows what the server thinks of the old one */
    w->did.timeouts++;
}

static void allocated(struct sim_turn_crowd *w, struct sim_turn_client *c)
{
    const struct sim_turn_life *l = c->life;

    w->did.allocated++;
    c->keeps = chance(w, 80);
    if (c->got_token) {
        w->did.reserved++;
        w->has_token = true;
        memcpy(w->token, c->token, TURN_TOKEN);
        w->token_user = c->user;
        w->token_port = (uint16_t)(l->relayed[TURN_V4].port + 1);
        w->token_ms = sim_now(w->t.s);
    }
    if (!c->ask.has_token)
        return;
    w->did.redeemed++;
    if (memcmp(c->ask.token, w->token, TURN_TOKEN) == 0 &&
        l->relayed[TURN_V4].port != w->token_port)
        sim_break(w->t.s, "a token is worth port %u, and gives port %u", w->token_port,
                  l->relayed[TURN_V4].port);
}

/* A request has come to its end. */
static void settle(struct sim_turn_crowd *w, struct sim_turn_client *c)
{
    enum stun_method method = c->ask.method;

    if (sim_turn_asking(c) || c->settled)
        return;
    c->settled = true;
    if (c->code != TURN_OK) {
        w->did.refused++;
        w->did.token_refused += c->ask.has_token;
        if (method == STUN_REFRESH || method == STUN_ALLOCATE || c->code == 437 ||
            c->code == TURN_TIMEOUT)
            lost(w, c);
    } else if (method == STUN_ALLOCATE) {
        allocated(w, c);
    } else if (method == STUN_REFRESH) {
        *(c->ask.lifetime_s == 0 ? &w->did.ended : &w->did.refreshed) += 1;
    } else {
        *(method == STUN_CHANNEL_BIND ? &w->did.bound : &w->did.permitted) += 1;
    }
}

/* Who forgets to refresh goes on sending for a while, and then knows that it is over. */
static bool forgotten(struct sim_turn_crowd *w, struct sim_turn_client *c)
{
    const struct sim_turn_life *l = c->life;

    if (sim_now(w->t.s) < l->tx_ms + l->lifetime_max_ms + 20000)
        return false;
    w->did.expired++;
    lost(w, c);
    return true;
}

static void keep(struct sim_turn_crowd *w, struct sim_turn_client *c)
{
    uint64_t at_ms;

    if (c->life == NULL || sim_turn_asking(c))
        return;
    if (!c->keeps) {
        forgotten(w, c);
        return;
    }
    at_ms = c->life->ok_ms - REFRESH_MS;
    if (sim_now(w->t.s) >= at_ms)
        refresh(w, c, false);
    else
        sim_net_alarm(w->t.s->net, at_ms);
}

/* ---- the crowd ------------------------------------------------------------------------------ */

static void with_life(struct sim_turn_crowd *w, struct sim_turn_client *c)
{
    unsigned dice = (unsigned)below(w, 100);
    bool asks = sim_turn_asking(c);

    if (dice < 7)
        send_mixed(w, c);
    else if (dice < 35)
        send_some(w, c, !w->hostile || chance(w, 70));
    else if (dice < 50)
        peer_sends(w, c, !w->hostile || chance(w, 70));
    else if (dice < 54)
        sim_turn_repeat(c), w->did.repeats++;
    else if (dice < 57 && w->hostile)
        garbage(w, c);
    else if (asks)
        return;
    else if (dice < 70)
        permit(w, c);
    else if (dice < 84)
        bind_channel(w, c);
    else if (dice < 88)
        refresh(w, c, false);
    else if (dice < 94)
        leave(w, c, false);
    else if (dice < 96)
        leave(w, c, true);
    else if (dice < 97)
        c->keeps = false;
    else if (dice < 98 && !w->t.exact) { /* without a word */
        w->did.gone++;
        sim_turn_end_close(c->at);
        sim_turn_over(c);
        c->at = sim_turn_end(c, -1);
        c->nonce_n = 0;
    }
}

static void act(struct sim_turn_crowd *w)
{
    struct sim_turn_client *c = &w->t.client[below(w, w->t.clients_n)];
    unsigned peer = (unsigned)below(w, w->t.peers_n);

    if (!w->t.exact && chance(w, w->t.peer[peer].open ? 2 : 20))
        sim_turn_peer_open(&w->t, peer, !w->t.peer[peer].open);
    if (c->life != NULL)
        with_life(w, c);
    else if (!sim_turn_asking(c))
        allocate(w, c);
}

static uint64_t gap(struct sim_turn_crowd *w)
{
    if (chance(w, w->long_gap_pct))
        return 1000 * (1 + below(w, 120));
    return below(w, w->gap_ms + 1);
}

void sim_turn_crowd_run(struct sim_turn_crowd *w)
{
    struct sim *s = w->t.s;
    uint64_t next_ms = sim_now(s);

    for (unsigned done = 0; done < w->acts && sim_why(s) == NULL;) {
        while (done < w->acts && sim_now(s) >= next_ms) {
            act(w);
            next_ms += gap(w);
            done++;
        }
        sim_net_alarm(s->net, next_ms);
        sim_step(s);
        for (unsigned i = 0; i < w->t.clients_n; i++) {
            settle(w, &w->t.client[i]);
            leave_now(w, &w->t.client[i]);
            keep(w, &w->t.client[i]);
        }
    }
    if (sim_why(s) == NULL)
        sim_run_ms(s, 2 * SIM_TURN_SLACK_MS); /* what is under way arrives */
    w->t.faithful = false;
    if (sim_why(s) == NULL)
        sim_turn_check_sure(&w->t);
}
