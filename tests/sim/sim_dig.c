/* tests/sim/sim_dig.c: links of DIG's clients: their bytes, their coming and going. */
#include "tests/sim/sim_dig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { READ_BYTES = 16384, MESSAGE_MAX = 16 << 20, SLOW_MS = 5000 };

static const char UPGRADE[] = "GET /ws HTTP/1.1\r\nHost: relay.example\r\nUpgrade: websocket\r\n"
                              "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

static void *must(void *p)
{
    ASSERT(p != NULL);
    return p;
}

const char *sim_dig_net_name(unsigned net)
{
    static const char *const name[SIM_DIG_NETS] = { "DIG_SIM", "DIG_SIM2", "" };

    ASSERT(net < SIM_DIG_NETS);
    return name[net];
}

void sim_dig_config(struct config *c)
{
    sim_config(c, NULL);
    c->dig_on = true;
    c->dig.addr = (struct netaddr){ .ip = { [10] = 0xff, [11] = 0xff, 10, 0, 0, 1 }, .port = 9450 };
    c->dig_conns_max = 64;
}

static void grow(uint8_t **p, size_t *cap, size_t n)
{
    if (n <= *cap)
        return;
    while (*cap < n)
        *cap = *cap ? *cap * 2 : 1024;
    *p = must(realloc(*p, *cap));
}

/* ---- wants ------------------------------------------------------------------------------------
 */

static struct sim_dig_want *want_at(struct sim_dig_link *l, unsigned i)
{
    return &l->want[(l->want_first + i) % SIM_DIG_WANTS];
}

void sim_dig_want(struct sim_dig_link *l, enum sim_dig_want_kind kind, uint64_t value)
{
    struct sim_dig_want *last = l->want_n ? want_at(l, l->want_n - 1) : NULL;

    if (kind == WANT_MAYBE && last != NULL && last->kind == kind) {
        last->value += value;
        return;
    }
    ASSERT(l->want_n < SIM_DIG_WANTS);
    *want_at(l, l->want_n++) = (struct sim_dig_want){ kind, value };
}

bool sim_dig_wants(struct sim_dig_link *l, enum sim_dig_want_kind kind, uint64_t *value)
{
    struct sim_dig_want *w = l->want_n ? want_at(l, 0) : NULL;

    if (w != NULL && w->kind == WANT_MAYBE && (kind != WANT_MAYBE || w->value == 0)) {
        l->want_first++;
        l->want_n--;
        w = l->want_n ? want_at(l, 0) : NULL;
    }
    if (w == NULL || w->kind != kind)
        return false;
    if (value != NULL)
        *value = w->value;
    if (kind == WANT_MAYBE) {
        w->value--;
        return true;
    }
    l->want_first++;
    l->want_n--;
    return true;
}

/* ---- bytes out --------------------------------------------------------------------------------
 */

static void flush(struct sim_dig_link *l)
{
    long n;

    if (!l->open || l->out_from == l->out_to)
        return;
    n = sim_send(l->client->d->s->net, l->ep, l->out + l->out_from, l->out_to - l->out_from);
    if (n > 0)
        l->out_from += (size_t)n;
    if (l->out_from == l->out_to)
        l->out_from = l->out_to = 0;
}

static void put(struct sim_dig_link *l, const void *p, size_t n)
{
    if (l->out_to - l->out_from + n > SIM_DIG_OUT_MAX) {
        sim_break(l->client->d->s, "link %u cannot get rid of its bytes", l->serial);
        return;
    }
    grow(&l->out, &l->out_cap, l->out_to + n);
    memcpy(l->out + l->out_to, p, n);
    l->out_to += n;
}

static void frame(struct sim_dig_link *l, enum ws_opcode op, bool fin, const void *p, size_t n)
{
    struct sim_net *net = l->client->d->s->net;
    uint8_t head[WS_CLIENT_HEAD_MAX], key[4];
    size_t at;

    put_u32(key, (uint32_t)sim_below(net, UINT32_MAX));
    put(l, head, ws_client_head_encode(head, op, fin, n, key));
    at = l->out_to;
    put(l, p, n);
    if (n > 0 && l->out_to == at + n)
        ws_mask(l->out + at, n, key, 0);
}

void sim_dig_emit(struct sim_dig_link *l, enum ws_opcode op, const void *p, size_t n)
{
    struct sim_dig *d = l->client->d;
    size_t cut;

    if (!l->open || l->vanished)
        return;
    if (op == WS_OP_TEXT && n > 1 && sim_chance(d->s->net, 10)) {
        cut = 1 + sim_below(d->s->net, n - 1);
        frame(l, op, false, p, cut);
        if (sim_chance(d->s->net, 50))
            frame(l, WS_OP_PONG, true, "idle", 4);
        frame(l, WS_OP_CONTINUATION, true, (const uint8_t *)p + cut, n - cut);
        d->did.fragments++;
    } else {
        frame(l, op, true, p, n);
    }
    if (op == WS_OP_TEXT) /* nothing else is a sign of life for the sweep */
        l->ping_ms = sim_now(d->s) + SIM_DIG_PING_MS;
    flush(l);
}

void sim_dig_text(struct sim_dig_link *l, const char *text)
{
    sim_dig_emit(l, WS_OP_TEXT, text, strlen(text));
}

/* ---- coming and going -------------------------------------------------------------------------
 */

struct sim_dig_link *sim_dig_connect(struct sim_dig_client *c, int shard)
{
    struct sim_dig *d = c->d;
    struct sim_dig_link *l = must(calloc(1, sizeof(*l)));
    const struct netaddr from = {
        .ip = { [10] = 0xff, [11] = 0xff, 9, 1, 0, (uint8_t)(1 + c->idx / 2) },
        .port = ++d->next_port,
    };

    ASSERT(c->at == NULL && d->links_n < SIM_DIG_LINKS_MAX);
    l->client = c;
    l->serial = d->links_n;
    d->links[d->links_n++] = l;
    d->did.links++;
    ws_rx_init_client(&l->ws, MESSAGE_MAX);
    if (shard >= 0)
        sim_place_next(d->s->net, (unsigned)shard);
    l->ep = sim_connect(d->s->net, &d->s->cfg.dig.addr, &from);
    l->open = l->ep >= 0; /* a door that is closing refuses */
    if (!l->open)
        return l;
    c->at = l;
    put(l, UPGRADE, sizeof(UPGRADE) - 1);
    l->ping_ms = UINT64_MAX;
    if (sim_chance(d->s->net, 50))
        flush(l);
    return l;
}

/* It may miss what was said to it, and what it said may be missed. */
void sim_dig_unsure(struct sim_dig *d, const struct sim_dig_client *c)
{
    for (unsigned i = 0; i < d->links_n; i++)
        for (size_t k = 0; k < d->links[i]->said_n; k++)
            d->links[i]->said[k].sure &= ~(UINT32_C(1) << c->idx);
}

static void gone(struct sim_dig_link *l)
{
    l->open = l->acked = false;
    sim_dig_unsure(l->client->d, l->client);
    if (l->client->at == l)
        l->client->at = NULL;
}

static void unsaid(struct sim_dig_link *l)
{
    for (size_t k = 0; k < l->said_n; k++)
        l->said[k].sure = 0;
}

void sim_dig_bye(struct sim_dig_link *l, enum sim_dig_bye how)
{
    struct sim_dig *d = l->client->d;
    static const uint8_t normal[2] = { WS_CODE_NORMAL >> 8, WS_CODE_NORMAL & 255 };

    if (!l->open || l->leaving)
        return;
    l->leaving = true;
    sim_dig_unsure(d, l->client);
    switch (how) {
    case BYE_UNREGISTER:
        sim_dig_text(l, "{\"type\":\"unregister\",\"peer_id\":\"\"}");
        d->did.left++;
        return;
    case BYE_CLOSE:
        sim_dig_emit(l, WS_OP_CLOSE, normal, sizeof(normal));
        d->did.closed++;
        return;
    case BYE_FIN:
        sim_close(d->s->net, l->ep);
        d->did.fins++;
        break;
    case BYE_RST:
        sim_reset(d->s->net, l->ep);
        d->did.resets++;
        break;
    case BYE_SILENCE:
        sim_vanish(d->s->net, l->ep);
        l->vanished = true;
        d->did.vanished++;
        break;
    }
    unsaid(l);
    gone(l);
}

/* What ends a connection waits two seconds for a client that does not read, and then is not heard;
 * a register may be refused. */
static bool may_end(const struct sim_dig_link *l)
{
    const struct sim_dig *d = l->client->d;
    bool slow = l->sip != 0 || sim_now(d->s) < l->deaf_ms + SLOW_MS;

    return l->leaving || l->excused || l->refused != 0 || d->ending || d->memory ||
           (l->asks_in && slow);
}

/* The relay has ended it. */
static void closed(struct sim_dig_link *l)
{
    struct sim_dig *d = l->client->d;

    if (!may_end(l))
        sim_break(d->s, "link %u of client %u: its stream ends", l->serial, l->client->idx);
    if (!l->leaving || d->memory)
        unsaid(l);
    sim_close(d->s->net, l->ep);
    gone(l);
}

/* ---- bytes in ---------------------------------------------------------------------------------
 */

static void on_close(struct sim_dig_link *l, const struct ws_event *ev)
{
    struct sim_dig *d = l->client->d;
    uint8_t body[WS_CONTROL_MAX];

    l->got_close = true;
    l->close_code = ev->code;
    d->did.away += ev->code == WS_CODE_AWAY;
    if (!may_end(l))
        sim_break(d->s, "link %u of client %u: Close %u", l->serial, l->client->idx, ev->code);
    if (!l->leaving)
        sim_dig_emit(l, WS_OP_CLOSE, body, ws_close_reply(ev, body));
}

static void on_piece(struct sim_dig_link *l, const struct ws_event *ev)
{
    if (!ev->text)
        sim_break(l->client->d->s, "link %u is sent what is no text", l->serial);
    grow(&l->in, &l->in_cap, l->in_n + ev->n);
    if (ev->n > 0)
        memcpy(l->in + l->in_n, ev->p, ev->n);
    l->in_n += ev->n;
    if (!ev->last)
        return;
    sim_dig_hear(l, bytes_of(l->in, l->in_n));
    l->in_n = 0;
}

static void on_frames(struct sim_dig_link *l, uint8_t *p, size_t n)
{
    struct ws_event ev;

    while (l->open)
        switch (ws_next(&l->ws, &p, &n, &ev)) {
        case WS_NEED_MORE:
            return;
        case WS_PIECE:
            on_piece(l, &ev);
            break;
        case WS_PING:
            sim_dig_emit(l, WS_OP_PONG, ev.p, ev.n);
            break;
        case WS_PONG:
            sim_dig_pong(l, &ev);
            break;
        case WS_CLOSE:
            on_close(l, &ev);
            break;
        case WS_BAD:
            sim_break(l->client->d->s, "link %u: a frame out of step", l->serial);
            return;
        }
}

static void on_bytes(struct sim_dig_link *l, uint8_t *p, size_t n)
{
    static const char yes[] = "HTTP/1.1 101 ";
    uint8_t *end, *rest;

    if (l->upgraded) {
        on_frames(l, p, n);
        return;
    }
    grow(&l->in, &l->in_cap, l->in_n + n);
    memcpy(l->in + l->in_n, p, n);
    l->in_n += n;
    end = memmem(l->in, l->in_n, "\r\n\r\n", 4);
    if (end == NULL)
        return;
    if (memcmp(l->in, yes, sizeof(yes) - 1) != 0)
        sim_break(l->client->d->s, "link %u is not upgraded", l->serial);
    l->upgraded = true;
    end += 4;
    n = l->in_n - (size_t)(end - l->in);
    rest = must(malloc(n + 1));
    memcpy(rest, end, n);
    l->in_n = 0;
    on_frames(l, rest, n);
    free(rest);
}

static void read_on(struct sim_dig_link *l)
{
    struct sim *s = l->client->d->s;
    uint8_t buf[READ_BYTES];
    size_t most = l->sip ? l->sip : sizeof(buf);
    long n;

    while (l->open && (n = sim_recv(s->net, l->ep, buf, most)) != -EAGAIN) {
        if (n <= 0) {
            closed(l);
            return;
        }
        on_bytes(l, buf, (size_t)n);
        if (l->sip != 0) {
            sim_net_alarm(s->net, sim_now(s) + 1);
            return;
        }
    }
}

static void look(struct sim_dig_link *l)
{
    struct sim *s = l->client->d->s;

    flush(l);
    if (sim_now(s) < l->deaf_ms) {
        sim_net_alarm(s->net, l->deaf_ms);
        return;
    }
    read_on(l);
    if (!sim_dig_stays(l) || l->client->d->still)
        return;
    if (sim_now(s) >= l->ping_ms)
        sim_dig_ping(l);
    sim_net_alarm(s->net, l->ping_ms);
}

void sim_dig_look(struct sim_dig *d)
{
    for (unsigned i = 0; i < d->clients_n; i++)
        if (d->client[i].at != NULL)
            look(d->client[i].at);
}

void sim_dig_hang_up(struct sim_dig *d)
{
    for (unsigned i = 0; i < d->clients_n; i++)
        if (d->client[i].at != NULL) {
            d->client[i].at->leaving = false;
            sim_dig_bye(d->client[i].at, (enum sim_dig_bye)sim_below(d->s->net, 4));
        }
}

/* ---- all of them ------------------------------------------------------------------------------
 */

void sim_dig_init(struct sim_dig *d, struct sim *s)
{
    *d = (struct sim_dig){ .s = s, .next_port = 1024 };
    d->links = must(calloc(SIM_DIG_LINKS_MAX, sizeof(struct sim_dig_link *)));
    for (unsigned i = 0; i < SIM_DIG_IDS; i++) {
        if (sim_dig_is_hex(i)) {
            for (unsigned k = 0; k < 32; k++)
                snprintf(d->id[i] + 2 * k, 3, "%02x", (i * 77 + k * (i + 1)) & 255);
            memcpy(d->id_json[i], d->id[i], sizeof(d->id[i]));
        } else {
            snprintf(d->id[i], sizeof(d->id[i]), "node \"%u\" \xc3\xbc", i);
            snprintf(d->id_json[i], sizeof(d->id_json[i]), "node \\\"%u\\\" \xc3\xbc", i);
        }
    }
    s->dig = d;
}

void sim_dig_fini(struct sim_dig *d)
{
    for (unsigned i = 0; i < d->links_n; i++) {
        free(d->links[i]->in);
        free(d->links[i]->out);
        free(d->links[i]->said);
        free(d->links[i]->last);
        free(d->links[i]);
    }
    free(d->links);
    d->s->dig = NULL;
}

struct sim_dig_client *sim_dig_client(struct sim_dig *d, unsigned id, unsigned net)
{
    struct sim_dig_client *c = &d->client[d->clients_n];

    ASSERT(d->clients_n < SIM_DIG_CLIENTS && id < SIM_DIG_IDS);
    *c = (struct sim_dig_client){ .d = d, .idx = d->clients_n++, .id = id, .net = net };
    return c;
}
