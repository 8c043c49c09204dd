/* tests/sim/sim_dig_say.c: what DIG's clients say, and the record of it. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_dig.h"

enum { PAYLOAD_MIN = 6 };

static void *must(void *p)
{
    ASSERT(p != NULL);
    return p;
}

void sim_dig_register(struct sim_dig_link *l, unsigned id, unsigned net)
{
    struct sim_dig *d = l->client->d;
    char text[512];

    if (l->acked)
        sim_dig_unsure(d, l->client); /* what is for its old name may not find it */
    l->id_in = id;
    l->net_in = net;
    l->asks_in = true;
    snprintf(text, sizeof(text),
             "{\"type\":\"register\",\"peer_id\":\"%s\",\"network_id\":\"%s\","
             "\"protocol_version\":%u}",
             d->id_json[id], sim_dig_net_name(net), l->serial);
    sim_dig_want(l, WANT_ACK, 0);
    sim_dig_text(l, text);
}

uint8_t sim_dig_filler(unsigned serial, uint32_t seq, size_t i)
{
    return (uint8_t)((serial * 31 + seq * 7 + i * 13 + (i >> 8)) ^ (i * seq >> 3));
}

/* The payload of what is said next, as JSON; the record of it. */
static struct sim_dig_said *payload(struct sim_dig_link *l, size_t n, char *text)
{
    uint32_t seq = (uint32_t)l->said_n;
    uint8_t head[PAYLOAD_MIN];
    char *p = text;

    ASSERT(n >= PAYLOAD_MIN);
    if (l->said_n == l->said_cap) {
        l->said_cap = l->said_cap ? l->said_cap * 2 : 32;
        l->said = must(realloc(l->said, l->said_cap * sizeof(*l->said)));
    }
    put_u16(head, (uint16_t)l->serial);
    put_u32(head + 2, seq);
    *p++ = '[';
    for (size_t i = 0; i < n; i++) {
        unsigned v = i < PAYLOAD_MIN ? head[i] : sim_dig_filler(l->serial, seq, i);

        if (v >= 100)
            *p++ = (char)('0' + v / 100);
        if (v >= 10)
            *p++ = (char)('0' + v / 10 % 10);
        *p++ = (char)('0' + v % 10);
        *p++ = i + 1 < n ? ',' : ']';
    }
    *p = '\0';
    l->said[seq] = (struct sim_dig_said){ .id = (uint8_t)l->id,
                                          .net = (uint8_t)l->net,
                                          .payload_n = (uint32_t)n };
    return &l->said[l->said_n++];
}

void sim_dig_relay(struct sim_dig_link *l, unsigned to, size_t n)
{
    struct sim_dig *d = l->client->d;
    char *list = must(malloc(4 * n + 8)), *text = must(malloc(4 * n + 512));
    struct sim_dig_said *m = payload(l, n, list);
    unsigned seq = (unsigned)l->said_n;

    m->to = (uint8_t)to;
    for (unsigned i = 0; i < d->clients_n; i++) {
        const struct sim_dig_link *t = d->client[i].at;

        if (sim_dig_stays(t) && t->id == to && t->net == l->net)
            m->sure = UINT32_C(1) << i;
    }
    if (sim_chance(d->s->net, 80))
        sprintf(text,
                "{\"type\":\"relay_message\",\"from\":\"x\",\"to\":\"%s\",\"payload\":%s,\"seq\":%"
                "u}",
                d->id_json[to], list, seq);
    else
        sprintf(text,
                "{ \"seq\" : %u, \"payload\" : %s, \"from\" : \"\", \"to\" : \"%s\", \"type\" : "
                "\"relay_message\" }",
                seq, list, d->id_json[to]);
    sim_dig_want(l, WANT_MAYBE, 1);
    d->did.relayed++;
    sim_dig_text(l, text);
    free(text);
    free(list);
}

void sim_dig_broadcast(struct sim_dig_link *l, uint64_t exclude, size_t n)
{
    struct sim_dig *d = l->client->d;
    char *list = must(malloc(4 * n + 8));
    char *text = must(malloc(4 * n + 512 + SIM_DIG_IDS * sizeof(d->id_json[0]))), *p = text;
    struct sim_dig_said *m = payload(l, n, list);

    m->broadcast = true;
    m->exclude = exclude;
    for (unsigned i = 0; i < d->clients_n; i++) {
        const struct sim_dig_link *t = d->client[i].at;

        if (t != l && sim_dig_stays(t) && t->net == l->net && !(exclude >> t->id & 1))
            m->sure |= UINT32_C(1) << i;
    }
    p += sprintf(p, "{\"type\":\"broadcast\",\"from\":\"x\",\"payload\":%s,\"exclude\":[", list);
    for (unsigned i = 0; i < SIM_DIG_IDS; i++)
        if (exclude >> i & 1)
            p += sprintf(p, "%s\"%s\"", p[-1] == '[' ? "" : ",", d->id_json[i]);
    sprintf(p, "]}");
    d->did.broadcasts++;
    sim_dig_text(l, text);
    free(text);
    free(list);
}

void sim_dig_get_peers(struct sim_dig_link *l, unsigned net)
{
    char text[128] = "{\"type\":\"get_peers\"}";

    if (net < SIM_DIG_NETS)
        snprintf(text, sizeof(text), "{\"type\":\"get_peers\",\"network_id\":\"%s\"}",
                 sim_dig_net_name(net));
    sim_dig_want(l, WANT_PEERS, net);
    sim_dig_text(l, text);
}

void sim_dig_ping(struct sim_dig_link *l)
{
    char text[96];

    snprintf(text, sizeof(text), "{\"type\":\"ping\",\"timestamp\":%llu}",
             (unsigned long long)++l->client->d->stamp);
    sim_dig_want(l, WANT_PONG, l->client->d->stamp);
    sim_dig_text(l, text);
}

void sim_dig_ws_ping(struct sim_dig_link *l)
{
    uint8_t body[8];

    put_u64(body, ++l->client->d->stamp);
    sim_dig_want(l, WANT_WS_PONG, l->client->d->stamp);
    sim_dig_emit(l, WS_OP_PING, body, sizeof(body));
}

void sim_dig_pex(struct sim_dig_link *l)
{
    char text[192];

    l->asked_pex = true;
    snprintf(text, sizeof(text),
             "{\"type\":\"pex_handshake\",\"version\":1,\"network_id\":\"%s\",\"interval\":%u}",
             sim_dig_net_name(l->net), l->serial % 90);
    sim_dig_want(l, WANT_PEX, 0);
    sim_dig_want(l, WANT_SNAPSHOT, 0);
    sim_dig_text(l, text);
}

void sim_dig_garbage(struct sim_dig_link *l)
{
    static const char *const text[] = { "",
                                        "{",
                                        "[]",
                                        "{\"type\":\"relay_message\"}",
                                        "{\"type\":\"get_dht_records\"}",
                                        "{\"type\":\"nothing\"}" };

    sim_dig_want(l, WANT_INVALID, 0);
    l->client->d->did.garbage++;
    sim_dig_text(l, text[sim_below(l->client->d->s->net, ARRAY_LEN(text))]);
}
