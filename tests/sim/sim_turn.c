/* tests/sim/sim_turn.c: TURN's clients: what they ask, and what they know of the answers. */
#include "tests/sim/sim_turn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/crypto.h"
#include "tests/sim/sim_turn_int.h"

#define V4(a, b, c, d, p)                                                                          \
    {                                                                                              \
        .ip = { [10] = 0xff, [11] = 0xff, a, b, c, d }, .port = p                                  \
    }
const struct netaddr sim_turn_server = V4(10, 0, 0, 1, 3478);
const struct netaddr sim_turn_server6 = { .ip = { 0x20, 1, 0x0d, 0xb8, [15] = 1 }, .port = 3478 };
const char *const sim_turn_users[SIM_TURN_USERS][2] = { { "alice", "wonder" },
                                                        { "bob", "builder" },
                                                        { "carol", "sings" } };
#define REALM "sim.example"

void sim_turn_config(struct config *c, uint16_t ports)
{
    sim_config(c, NULL);
    c->turn_on = true;
    c->turn[0].addr = sim_turn_server;
    c->turn[1].addr = sim_turn_server6;
    c->turn_n = 2;
    snprintf(c->turn_realm, sizeof(c->turn_realm), "%s", REALM);
    for (unsigned i = 0; i < SIM_TURN_USERS; i++)
        snprintf(c->turn_user[i], sizeof(c->turn_user[i]), "%s:%s", sim_turn_users[i][0],
                 sim_turn_users[i][1]);
    c->turn_user_n = SIM_TURN_USERS;
    c->turn_port_lo = 50000;
    c->turn_port_hi = (uint16_t)(50000 + ports - 1);
    c->turn_max_allocations = 64;
    c->turn_mobility = true;
    c->turn_replies_per_ip = 0;
    c->turn_lifetime_secs = 3600;
}

/* ---- sockets -------------------------------------------------------------------------------- */

unsigned sim_turn_peer(struct sim_turn *t, unsigned host, uint16_t port, bool v6)
{
    struct sim_turn_peer *p = &t->peer[t->peers_n];

    ASSERT(t->peers_n < SIM_TURN_PEERS);
    p->at = (struct netaddr)V4(8, 8, (uint8_t)host, 1, port);
    if (v6)
        p->at = (struct netaddr){ .ip = { 0x24, 0, [15] = (uint8_t)host }, .port = port };
    p->ep = sim_udp_open(t->s->net, &p->at);
    p->open = true;
    return t->peers_n++;
}

void sim_turn_peer_open(struct sim_turn *t, unsigned peer, bool open)
{
    struct sim_turn_peer *p = &t->peer[peer];

    if (p->open && !open)
        sim_udp_shut(t->s->net, p->ep);
    if (!p->open && open)
        p->ep = sim_udp_open(t->s->net, &p->at);
    p->open = open;
}

struct sim_turn_end *sim_turn_end(struct sim_turn_client *c, int shard)
{
    struct sim_turn *t = c->t;
    struct sim_turn_end *e = sim_turn_must(calloc(1, sizeof(*e)));

    e->client = c;
    e->at = (struct netaddr)V4(9, 0, (uint8_t)(c->idx / 4), (uint8_t)(1 + c->idx % 4), 0);
    if (!netaddr_is4(&c->server))
        e->at = (struct netaddr){ .ip = { 0x26, 0, [15] = (uint8_t)(1 + c->idx) } };
    do
        e->at.port = ++t->next_port;
    while (!c->tcp && shard >= 0 && sim_udp_lands(t->s->net, &c->server, &e->at) != shard);
    if (c->tcp && shard >= 0)
        sim_place_next(t->s->net, (unsigned)shard);
    e->ep = c->tcp ? sim_connect(t->s->net, &c->server, &e->at) : sim_udp_open(t->s->net, &e->at);
    e->wire = c->tcp ? sim_turn_wire_new() : NULL;
    e->open = e->ep >= 0; /* a door that is closing refuses */
    if (t->ends_n == t->ends_cap) {
        t->ends_cap = t->ends_cap ? t->ends_cap * 2 : 64;
        t->ends = sim_turn_must(realloc(t->ends, t->ends_cap * sizeof(struct sim_turn_end *)));
    }
    t->ends[t->ends_n++] = e;
    return e;
}

void sim_turn_end_close(struct sim_turn_end *e)
{
    if (e->open && e->wire != NULL)
        sim_turn_wire_close(e);
    else if (e->open)
        sim_udp_shut(e->client->t->s->net, e->ep);
    e->open = false;
}

struct sim_turn_client *sim_turn_client(struct sim_turn *t, unsigned user, int shard)
{
    struct sim_turn_client *c = &t->client[t->clients_n];

    ASSERT(t->clients_n < SIM_TURN_CLIENTS);
    *c = (struct sim_turn_client){ .t = t, .idx = t->clients_n++, .user = user };
    c->server = sim_turn_server;
    c->code = TURN_OK;
    c->settled = true;
    c->at = sim_turn_end(c, shard);
    return c;
}

void sim_turn_init(struct sim_turn *t, struct sim *s, const struct sim_opts *net)
{
    *t = (struct sim_turn){ .s = s, .next_port = 1024 };
    t->ordered = net->udp_late_pct == 0;
    t->once = net->udp_dup_pct == 0;
    t->exact = t->ordered && t->once && net->udp_loss_pct == 0 && net->udp_again_pct == 0 &&
               net->udp_truncate_pct == 0 && net->udp_queue == 0;
    s->turn = t;
}

void sim_turn_fini(struct sim_turn *t)
{
    for (size_t i = 0; i < t->ends_n; i++) {
        free(t->ends[i]->wire);
        free(t->ends[i]);
    }
    for (size_t i = 0; i < t->lives_n; i++)
        free(t->lives[i]);
    free(t->ends);
    free(t->lives);
    t->s->turn = NULL;
}

/* ---- asking --------------------------------------------------------------------------------- */

static struct stun_key key_of(const struct sim_turn_client *c)
{
    struct stun_key k;

    stun_key_make(c->sha256 ? STUN_ALG_SHA256 : STUN_ALG_MD5, bytes_str(sim_turn_users[c->user][0]),
                  bytes_str(REALM), bytes_str(sim_turn_users[c->user][1]), &k);
    return k;
}

static void put_ask(struct sim_turn_client *c, struct stun_build *b)
{
    const struct sim_turn_ask *a = &c->ask;

    if (a->method == STUN_ALLOCATE)
        stun_put_u8(b, STUN_REQUESTED_TRANSPORT, a->relays_tcp ? 6 : 17);
    if (a->method == STUN_ALLOCATE && (a->family == 1 || a->family == 2))
        stun_put_u8(b, STUN_REQUESTED_ADDRESS_FAMILY, a->family);
    if (a->even)
        stun_put_even_port(b, a->reserve);
    if (a->has_token)
        stun_put(b, STUN_RESERVATION_TOKEN, bytes_of(a->token, TURN_TOKEN));
    if (a->lifetime_s >= 0)
        stun_put_u32(b, STUN_LIFETIME, (uint32_t)a->lifetime_s);
    if (a->method == STUN_CONNECTION_BIND)
        stun_put_u32(b, STUN_CONNECTION_ID, a->conn);
    if (a->method == STUN_CHANNEL_BIND)
        stun_put_u16(b, STUN_CHANNEL_NUMBER, a->number);
    for (unsigned i = 0; i < a->peers_n; i++) {
        struct stun_addr peer = stun_addr_of(&c->t->peer[a->peer[i]].at);

        stun_put_addr(b, STUN_XOR_PEER_ADDRESS, &peer);
    }
    if (a->method == STUN_ALLOCATE && a->family == 3)
        stun_put_u8(b, STUN_ADDITIONAL_ADDRESS_FAMILY, 2);
    if (a->mobile)
        stun_put(b, STUN_MOBILITY_TICKET, bytes_of(NULL, 0));
    if (a->resume)
        stun_put(b, STUN_MOBILITY_TICKET, bytes_of(c->life->ticket, TURN_TICKET));
}

static void build(struct sim_turn_client *c)
{
    struct stun_key key = key_of(c);
    struct stun_build b;
    uint8_t id[STUN_ID];
    struct bytes m;

    for (int i = 0; i < STUN_TID; i++)
        c->tid[i] = (uint8_t)sim_below(c->t->s->net, 256);
    stun_id_of(c->tid, id);
    stun_begin(&b, c->request, sizeof(c->request), stun_type(c->ask.method, STUN_REQUEST), id);
    put_ask(c, &b);
    if (c->nonce_n > 0) {
        stun_put(&b, STUN_USERNAME, bytes_str(sim_turn_users[c->user][0]));
        stun_put(&b, STUN_REALM, bytes_str(REALM));
        stun_put(&b, STUN_NONCE, bytes_of(c->nonce, c->nonce_n));
        if (c->sha256) {
            stun_put(&b, STUN_PASSWORD_ALGORITHMS,
                     bytes_of(stun_algorithms, sizeof(stun_algorithms)));
            stun_put_u16(&b, STUN_PASSWORD_ALGORITHM, STUN_ALG_SHA256);
        }
        stun_put_integrity(&b, c->sha256 ? STUN_MAC_SHA256 : STUN_MAC_SHA1, stun_key_bytes(&key),
                           STUN_SHA256_TAG);
    }
    if (c->fingerprint)
        stun_put_fingerprint(&b);
    ASSERT(stun_end(&b, &m));
    c->request_n = m.n;
}

/* What the server may do from the moment on that this leaves. */
static void note_tx(struct sim_turn_client *c)
{
    uint64_t now_ms = sim_now(c->t->s);
    struct sim_turn_life *l = c->life;

    if (l == NULL || c->nonce_n == 0)
        return;
    if (c->ask.method == STUN_REFRESH && c->ask.lifetime_s != 0)
        l->tx_ms = now_ms;
    for (unsigned i = 0; i < c->ask.peers_n && c->ask.method != STUN_CONNECT; i++) {
        struct sim_turn_link *k = &l->link[c->ask.peer[i]];

        k->perm_tx_ms = now_ms;
        if (c->ask.method == STUN_CHANNEL_BIND) {
            k->chan_tx_ms = now_ms;
            k->number = c->ask.number;
        }
    }
}

static void transmit(struct sim_turn_client *c)
{
    note_tx(c);
    sim_turn_emit(c->ask_at, c->request, c->request_n);
    if (c->ask.method == STUN_CONNECTION_BIND && c->nonce_n > 0 && c->ask_at->on_asked)
        c->ask_at->on_asked(c->ask_at);
}

static void begin(struct sim_turn_client *c)
{
    build(c);
    c->tries = c->tcp ? SIM_TURN_TRIES - 1 : 0; /* RFC 8489 §6.2.2: a stream repeats by itself */
    c->first_ms = sim_now(c->t->s);
    c->next_ms = c->first_ms + (c->tcp ? SIM_TURN_TCP_MS : SIM_TURN_RTO_MS);
    transmit(c);
}

void sim_turn_do(struct sim_turn_client *c, const struct sim_turn_ask *ask, struct sim_turn_end *at)
{
    ASSERT(!sim_turn_asking(c));
    c->ask = *ask;
    c->ask_at = at != NULL ? at : c->at;
    c->code = TURN_ASKING;
    c->challenges = 0;
    c->got_token = c->settled = false;
    if (c->life != NULL && ask->method == STUN_REFRESH && ask->lifetime_s == 0)
        c->life->ending = true;
    if (ask->resume) { /* from now on it may be told there, too */
        ASSERT(c->life->ends_n < SIM_TURN_ENDS);
        c->life->end[c->life->ends_n++] = c->ask_at;
        c->life->moving_ms = sim_now(c->t->s);
    }
    begin(c);
}

void sim_turn_repeat(struct sim_turn_client *c)
{
    if (c->request_n > 0 && c->ask_at != NULL && !(c->ask.method == STUN_ALLOCATE && !c->life))
        transmit(c);
}

void sim_turn_over(struct sim_turn_client *c)
{
    if (c->life != NULL)
        c->life->over = true;
    c->life = NULL;
    c->keeps = false;
}

/* ---- answers -------------------------------------------------------------------------------- */

static struct sim_turn_life *life_new(struct sim_turn_client *c)
{
    struct sim_turn *t = c->t;
    struct sim_turn_life *l = sim_turn_must(calloc(1, sizeof(*l)));

    if (t->lives_n == t->lives_cap) {
        t->lives_cap = t->lives_cap ? t->lives_cap * 2 : 64;
        t->lives = sim_turn_must(realloc(t->lives, t->lives_cap * sizeof(struct sim_turn_life *)));
    }
    l->id = (uint32_t)t->lives_n;
    t->lives[t->lives_n++] = l;
    l->client = c;
    l->end[l->ends_n++] = c->ask_at;
    memcpy(l->tid, c->tid, STUN_TID);
    return l;
}

static void keep_ticket(struct sim_turn_life *l, const struct stun_msg *m)
{
    struct bytes ticket = stun_value(m, STUN_MOBILITY_TICKET);

    if (ticket.n == TURN_TICKET) {
        memcpy(l->ticket, ticket.p, TURN_TICKET);
        l->mobile = true;
    }
}

static void relayed_of(const struct stun_msg *m, struct sim_turn_life *l)
{
    struct stun_addr a;
    uint16_t pos = 0;

    while (stun_next_addr(m, STUN_XOR_RELAYED_ADDRESS, &pos, &a)) {
        l->has[a.v6] = true;
        l->relayed[a.v6] = a.addr;
    }
}

static void on_allocated(struct sim_turn_client *c, const struct stun_msg *m)
{
    struct sim *s = c->t->s;
    struct sim_turn_life *l = life_new(c);
    /* An Allocate that is repeated is told what is left (turn.md §9.8), in whole seconds. */
    uint64_t since_ms = sim_now(s) - c->first_ms + 1000;
    uint64_t lifetime_ms = stun_u32(m, STUN_LIFETIME) * (uint64_t)1000;
    struct stun_addr mapped;
    uint16_t low = 1;

    relayed_of(m, l);
    if (!l->has[TURN_V4] && !l->has[TURN_V6])
        sim_break(s, "an allocation without a relayed address");
    if (!stun_addr(m, STUN_XOR_MAPPED_ADDRESS, &mapped) ||
        memcmp(&mapped.addr, &c->ask_at->at, sizeof(mapped.addr)) != 0)
        sim_break(s, "client %u is told another address of its own", c->idx);
    for (int f = 0; f < TURN_FAMILIES; f++)
        low = l->has[f] && c->ask.even ? l->relayed[f].port & 1 : low;
    if (c->ask.even && low != 0)
        sim_break(s, "an odd port for EVEN-PORT");
    if (lifetime_ms + since_ms < TURN_LIFETIME_MS ||
        lifetime_ms > s->cfg.turn_lifetime_secs * 1000ull)
        sim_break(s, "a lifetime of %llu ms", (unsigned long long)lifetime_ms);
    if (stun_has(m, STUN_RESERVATION_TOKEN) != c->ask.reserve)
        sim_break(s, "a token %s", c->ask.reserve ? "is missing" : "that nobody asked for");
    if (c->ask.reserve) {
        memcpy(c->token, stun_value(m, STUN_RESERVATION_TOKEN).p, TURN_TOKEN);
        c->got_token = true;
    }
    keep_ticket(l, m);
    if (l->mobile != c->ask.mobile)
        sim_break(s, "mobility %s", l->mobile ? "that nobody asked for" : "is refused");
    l->tx_ms = sim_now(s);
    l->ok_ms = c->first_ms + TURN_LIFETIME_MS;
    l->lifetime_max_ms = lifetime_ms + since_ms;
    c->life = l;
    c->at = c->ask_at;
}

static void on_refreshed(struct sim_turn_client *c, const struct stun_msg *m)
{
    struct sim_turn_life *l = c->life;
    uint64_t lifetime_ms = stun_u32(m, STUN_LIFETIME) * (uint64_t)1000;

    if (l == NULL)
        return;
    if (c->ask.lifetime_s == 0 && lifetime_ms == 0) {
        sim_turn_over(c);
        return;
    }
    l->ok_ms = c->first_ms + TURN_LIFETIME_MS;
    if (lifetime_ms > l->lifetime_max_ms)
        l->lifetime_max_ms = lifetime_ms;
    if (!c->ask.resume)
        return;
    keep_ticket(l, m);
    l->epoch++;
    l->moving_ms = sim_now(c->t->s);
    c->at = c->ask_at;
}

static void on_permitted(struct sim_turn_client *c)
{
    for (unsigned i = 0; c->life != NULL && i < c->ask.peers_n; i++) {
        struct sim_turn_link *k = &c->life->link[c->ask.peer[i]];

        k->perm_ok_ms = c->first_ms + TURN_PERMISSION_MS;
        if (c->ask.method == STUN_CHANNEL_BIND)
            k->chan_ok_ms = c->first_ms + TURN_CHANNEL_MS;
    }
}

static void on_success(struct sim_turn_client *c, const struct stun_msg *m)
{
    struct stun_key key = key_of(c);
    enum stun_mac mac = c->sha256 ? STUN_MAC_SHA256 : STUN_MAC_SHA1;

    if (!stun_integrity_ok(m, mac, stun_key_bytes(&key), STUN_SHA256_TAG))
        sim_break(c->t->s, "an answer that is not signed as its request was");
    c->code = TURN_OK;
    if (c->ask.method == STUN_ALLOCATE)
        on_allocated(c, m);
    else if (c->ask.method == STUN_REFRESH)
        on_refreshed(c, m);
    else if (c->ask.method == STUN_CONNECT)
        c->conn = stun_u32(m, STUN_CONNECTION_ID);
    else if (c->ask.method == STUN_CONNECTION_BIND)
        c->ask_at->raw = true;
    else
        on_permitted(c);
}

static void on_error(struct sim_turn_client *c, const struct stun_msg *m)
{
    struct bytes nonce = stun_value(m, STUN_NONCE), phrase;
    uint16_t code = 0;

    stun_error(m, &code, &phrase);
    if ((code == 401 && c->challenges == 0) || (code == 438 && c->challenges < 4)) {
        ASSERT(nonce.n <= sizeof(c->nonce));
        c->challenges++;
        memcpy(c->nonce, nonce.p, nonce.n);
        c->nonce_n = nonce.n;
        begin(c);
        return;
    }
    c->code = code;
}

void sim_turn_on_response(struct sim_turn_end *e, const struct stun_msg *m)
{
    struct sim_turn_client *c = e->client;
    struct sim_turn_life *l = c->life, again = { 0 };
    enum stun_class k = stun_class_of(m->type);

    if (c->fingerprint && !c->garbled && !stun_has(m, STUN_FINGERPRINT))
        sim_break(c->t->s, "an answer without the FINGERPRINT that its request had");
    if (l != NULL && k == STUN_SUCCESS && memcmp(stun_id(m) + 4, l->tid, STUN_TID) == 0) {
        relayed_of(m, &again); /* the same Allocate again: idempotent (RFC 8656 §7.2) */
        if (memcmp(again.relayed, l->relayed, sizeof(again.relayed)) != 0)
            sim_break(c->t->s, "the same Allocate has two answers");
        c->repeats++;
        return;
    }
    if (!sim_turn_asking(c) || memcmp(stun_id(m) + 4, c->tid, STUN_TID) != 0) {
        c->repeats++;
        return;
    }
    if ((e != c->ask_at && !c->garbled) || stun_method_of(m->type) != c->ask.method)
        sim_break(c->t->s, "an answer to client %u goes to another 5-tuple", c->idx);
    c->answers++;
    if (k == STUN_SUCCESS)
        on_success(c, m);
    else
        on_error(c, m);
}

/* ---- time ----------------------------------------------------------------------------------- */

static void client_due(struct sim_turn_client *c)
{
    uint64_t now_ms = sim_now(c->t->s);

    if (!sim_turn_asking(c))
        return;
    if (now_ms >= c->next_ms) {
        if (++c->tries == SIM_TURN_TRIES) {
            c->code = TURN_TIMEOUT;
            return;
        }
        c->next_ms = now_ms + ((uint64_t)SIM_TURN_RTO_MS << c->tries);
        transmit(c);
    }
    sim_net_alarm(c->t->s->net, c->next_ms);
}

void sim_turn_look(struct sim_turn *t)
{
    for (size_t i = 0; i < t->ends_n; i++)
        sim_turn_end_look(t->ends[i]);
    for (unsigned i = 0; i < t->peers_n; i++)
        sim_turn_peer_look(t, i);
    if (t->on_look != NULL)
        t->on_look(t);
    for (unsigned i = 0; i < t->clients_n; i++)
        client_due(&t->client[i]);
}
