/* tests/sim/sim_dig_hear.c: what DIG's clients are told, held against what is so. */
#include <stdlib.h>
#include <yyjson.h>

#include "tests/sim/sim_dig.h"

#define NOBODY UINT32_MAX

static void wrong(struct sim_dig_link *l, const char *what)
{
    sim_break(l->client->d->s, "link %u of client %u %s", l->serial, l->client->idx, what);
}

static bool is_text(yyjson_val *v, const char *text)
{
    return yyjson_is_str(v) && yyjson_get_len(v) == strlen(text) &&
           memcmp(yyjson_get_str(v), text, strlen(text)) == 0;
}

static unsigned id_of(struct sim_dig_link *l, yyjson_val *v)
{
    const struct sim_dig *d = l->client->d;

    for (unsigned i = 0; i < SIM_DIG_IDS; i++)
        if (is_text(v, d->id[i]))
            return i;
    wrong(l, "hears of an id that nobody has");
    return NOBODY;
}

/* ---- answers ----------------------------------------------------------------------------------
 */

static void on_ack(struct sim_dig_link *l, yyjson_val *root)
{
    struct sim_dig *d = l->client->d;
    bool ok = yyjson_get_bool(yyjson_obj_get(root, "success"));

    if (!sim_dig_wants(l, WANT_ACK, NULL)) {
        wrong(l, "has an ack that it did not ask for, or out of order");
        return;
    }
    l->asks_in = false;
    if (!ok) { /* the last want, whatever else it asked: it will be closed */
        l->want_n = 0;
        sim_dig_want(l, WANT_REFUSAL, 0);
        return;
    }
    d->did.acks++;
    if (l->acked) {
        bool moves = l->net != l->net_in, renamed = l->id != l->id_in;

        *(moves ? &d->did.moved : renamed ? &d->did.renamed : &d->did.refreshed) += 1;
        if (moves || renamed) /* whatever it knew, and was said to it, ended with its name */
            l->has_view = l->has_book = l->asked_pex = false;
    }
    l->acked = true;
    l->id = l->id_in;
    l->net = l->net_in;
    l->ping_ms = sim_now(d->s) + sim_below(d->s->net, SIM_DIG_PING_MS);
}

static void on_error(struct sim_dig_link *l, yyjson_val *root)
{
    struct sim_dig *d = l->client->d;
    unsigned code = (unsigned)yyjson_get_uint(yyjson_obj_get(root, "code"));
    bool good;

    switch (code) {
    case DIG_CODE_NO_TARGET:
        good = sim_dig_wants(l, WANT_MAYBE, NULL);
        d->did.no_target++;
        break;
    case DIG_CODE_INVALID:
        good = sim_dig_wants(l, WANT_INVALID, NULL);
        break;
    case DIG_CODE_FULL:
    case DIG_CODE_ID_TAKEN:
    case DIG_CODE_SOURCE_LIMIT:
        good = sim_dig_wants(l, WANT_REFUSAL, NULL);
        l->refused = code;
        d->did.refused++;
        d->did.taken += code == DIG_CODE_ID_TAKEN;
        break;
    default:
        good = false;
    }
    if (!good)
        sim_break(d->s, "link %u of client %u: error %u out of order", l->serial, l->client->idx,
                  code);
}

static void on_pong(struct sim_dig_link *l, yyjson_val *root)
{
    uint64_t value = 0;

    l->client->d->did.pongs++;
    if (!sim_dig_wants(l, WANT_PONG, &value) ||
        value != yyjson_get_uint(yyjson_obj_get(root, "timestamp")))
        wrong(l, "has a pong out of order");
}

void sim_dig_pong(struct sim_dig_link *l, const struct ws_event *ev)
{
    uint64_t value = 0;
    uint8_t body[8];

    l->client->d->did.pongs++;
    put_u64(body, 0);
    if (sim_dig_wants(l, WANT_WS_PONG, &value))
        put_u64(body, value);
    if (ev->n != sizeof(body) || memcmp(ev->p, body, sizeof(body)) != 0)
        wrong(l, "has a Pong out of order");
}

/* ---- the network ------------------------------------------------------------------------------
 */

/* Entries of a list; they must be of this network and each there once. */
static uint64_t peers_of(struct sim_dig_link *l, yyjson_val *list, unsigned net)
{
    yyjson_val *one;
    yyjson_arr_iter it;
    uint64_t set = 0;

    if (!yyjson_is_arr(list))
        wrong(l, "has no list");
    yyjson_arr_iter_init(list, &it);
    while ((one = yyjson_arr_iter_next(&it)) != NULL) {
        unsigned id = id_of(l, yyjson_obj_get(one, "peer_id"));

        if (id == NOBODY)
            return set;
        if (net >= SIM_DIG_NETS ||
            !is_text(yyjson_obj_get(one, "network_id"), sim_dig_net_name(net)))
            wrong(l, "hears of a peer on another network");
        if (set >> id & 1)
            wrong(l, "hears of a peer twice");
        set |= UINT64_C(1) << id;
    }
    return set;
}

static void on_peers(struct sim_dig_link *l, yyjson_val *root)
{
    uint64_t net = 0, set;
    bool mine;

    if (!sim_dig_wants(l, WANT_PEERS, &net)) {
        wrong(l, "has a list that it did not ask for, or out of order");
        return;
    }
    mine = net >= SIM_DIG_NETS || net == l->net;
    set = peers_of(l, yyjson_obj_get(root, "peers"), l->net);
    l->client->d->did.lists++;
    if (!mine && set != 0) /* D8 */
        wrong(l, "is told of another network");
    if (!mine)
        return;
    if (!(set >> l->id & 1))
        wrong(l, "has a list without itself");
    l->view = set;
    l->has_view = true;
}

static void on_joined(struct sim_dig_link *l, yyjson_val *root)
{
    yyjson_val *peer = yyjson_obj_get(root, "peer");
    unsigned id = id_of(l, yyjson_obj_get(peer, "peer_id"));

    if (id == NOBODY)
        return;
    l->client->d->did.pushes++;
    if (!l->acked || !is_text(yyjson_obj_get(peer, "network_id"), sim_dig_net_name(l->net)))
        wrong(l, "hears who joined another network");
    if (id == l->id)
        wrong(l, "hears that it has joined");
    l->view |= UINT64_C(1) << id;
}

static void on_left(struct sim_dig_link *l, yyjson_val *root)
{
    unsigned id = id_of(l, yyjson_obj_get(root, "peer_id"));

    if (id == NOBODY)
        return;
    l->client->d->did.pushes++;
    if (!l->acked || id == l->id)
        wrong(l, "hears that it has left");
    l->view &= ~(UINT64_C(1) << id);
}

/* ---- PEX --------------------------------------------------------------------------------------
 */

static uint64_t dropped_of(struct sim_dig_link *l, yyjson_val *list)
{
    yyjson_val *one;
    yyjson_arr_iter it;
    uint64_t set = 0;

    yyjson_arr_iter_init(list, &it);
    while ((one = yyjson_arr_iter_next(&it)) != NULL) {
        unsigned id = id_of(l, one);

        if (id != NOBODY)
            set |= UINT64_C(1) << id;
    }
    return set;
}

static void check_told(struct sim_dig_link *l, uint64_t set)
{
    for (unsigned i = 0; i < SIM_DIG_IDS; i++)
        if ((set >> i & 1) && (!sim_dig_is_hex(i) || i == l->id))
            wrong(l, "is told of itself, or of an id that is not told");
}

static void on_pex(struct sim_dig_link *l, yyjson_val *root, const char *kind)
{
    struct sim_dig *d = l->client->d;

    if (strcmp(kind, "handshake") == 0) {
        if (!sim_dig_wants(l, WANT_PEX, NULL) ||
            !is_text(yyjson_obj_get(root, "network_id"), sim_dig_net_name(l->net)))
            wrong(l, "has a handshake that it did not ask for");
    } else if (strcmp(kind, "snapshot") == 0) {
        if (!sim_dig_wants(l, WANT_SNAPSHOT, NULL))
            wrong(l, "has a snapshot that it did not ask for");
        l->book = peers_of(l, yyjson_obj_get(root, "peers"), l->net);
        l->has_book = true;
        check_told(l, l->book);
        d->did.snapshots++;
    } else if (strcmp(kind, "delta") == 0) {
        uint64_t added = peers_of(l, yyjson_obj_get(root, "added"), l->net);
        uint64_t dropped = dropped_of(l, yyjson_obj_get(root, "dropped"));

        if (!l->has_book || (added & dropped) != 0 || (added | dropped) == 0)
            wrong(l, "has a delta of nothing, or both ways");
        if ((dropped & ~l->book) != 0)
            wrong(l, "is to drop what it was not told");
        check_told(l, added);
        l->book = (l->book | added) & ~dropped;
        d->did.deltas++;
    } else {
        wrong(l, "is blamed for its PEX");
    }
}

/* ---- what others say --------------------------------------------------------------------------
 */

static bool payload_is(yyjson_val *list, unsigned serial, uint32_t seq, size_t n)
{
    yyjson_arr_iter it;
    yyjson_val *v;

    if (!yyjson_is_arr(list) || yyjson_arr_size(list) != n)
        return false;
    yyjson_arr_iter_init(list, &it);
    for (size_t i = 0; (v = yyjson_arr_iter_next(&it)) != NULL; i++)
        if (i >= 6 && yyjson_get_uint(v) != sim_dig_filler(serial, seq, i))
            return false;
    return true;
}

static struct sim_dig_said *said_of(struct sim_dig_link *l, yyjson_val *list, unsigned *serial,
                                    uint32_t *seq)
{
    const struct sim_dig *d = l->client->d;
    uint8_t b[6];

    for (size_t i = 0; i < sizeof(b); i++)
        b[i] = (uint8_t)yyjson_get_uint(yyjson_arr_get(list, i));
    *serial = (unsigned)b[0] << 8 | b[1];
    *seq = (uint32_t)b[2] << 24 | (uint32_t)b[3] << 16 | (uint32_t)b[4] << 8 | b[5];
    if (*serial >= d->links_n || *seq >= d->links[*serial]->said_n ||
        !payload_is(list, *serial, *seq, d->links[*serial]->said[*seq].payload_n)) {
        wrong(l, "hears what nobody said");
        return NULL;
    }
    return &d->links[*serial]->said[*seq];
}

/* A registration may be done at the relay before its ack is heard. */
static bool net_is(const struct sim_dig_link *l, unsigned net)
{
    return (l->acked && l->net == net) || (l->asks_in && l->net_in == net);
}

static bool id_is(const struct sim_dig_link *l, unsigned id)
{
    return (l->acked && l->id == id) || (l->asks_in && l->id_in == id);
}

static uint32_t *last_of(struct sim_dig_link *l, unsigned serial)
{
    unsigned n = l->last_n;

    if (serial >= n) {
        l->last_n = serial + 32;
        l->last = realloc(l->last, l->last_n * sizeof(*l->last));
        ASSERT(l->last != NULL);
        memset(l->last + n, 0, (l->last_n - n) * sizeof(*l->last));
    }
    return &l->last[serial];
}

static void on_said(struct sim_dig_link *l, yyjson_val *root, bool broadcast)
{
    struct sim_dig *d = l->client->d;
    unsigned serial = 0;
    uint32_t seq = 0, *last;
    struct sim_dig_said *m = said_of(l, yyjson_obj_get(root, "payload"), &serial, &seq);

    if (m == NULL)
        return;
    last = last_of(l, serial);
    *(broadcast ? &d->did.broadcasts_heard : &d->did.heard) += 1;
    if (m->broadcast != broadcast || !is_text(yyjson_obj_get(root, "from"), d->id[m->id]))
        wrong(l, "hears something in another's name");
    if (!net_is(l, m->net))
        sim_break(d->s, "link %u on network %u hears link %u, which said it on network %u",
                  l->serial, l->net, serial, m->net);
    if (broadcast) {
        if (serial == l->serial || (m->exclude >> l->id & 1))
            wrong(l, "hears a broadcast that is not for it");
        if (yyjson_arr_size(yyjson_obj_get(root, "exclude")) != 0)
            wrong(l, "is told who else does not hear a broadcast");
    } else if (!is_text(yyjson_obj_get(root, "to"), d->id[m->to]) || !id_is(l, m->to) ||
               yyjson_get_uint(yyjson_obj_get(root, "seq")) != seq + 1) {
        sim_break(d->s, "link %u, id %u, hears what link %u said to id %u", l->serial, l->id,
                  serial, m->to);
    }
    if (*last > seq)
        sim_break(d->s, "link %u hears message %u of link %u after %u", l->serial, seq, serial,
                  *last - 1);
    *last = seq + 1;
    m->heard++;
    m->sure &= ~(UINT32_C(1) << l->client->idx);
}

/* ---- all of it --------------------------------------------------------------------------------
 */

static void told(struct sim_dig_link *l, yyjson_val *root, const char *type)
{
    if (strcmp(type, "relay_message") == 0)
        on_said(l, root, false);
    else if (strcmp(type, "broadcast") == 0)
        on_said(l, root, true);
    else if (strcmp(type, "register_ack") == 0)
        on_ack(l, root);
    else if (strcmp(type, "error") == 0)
        on_error(l, root);
    else if (strcmp(type, "pong") == 0)
        on_pong(l, root);
    else if (strcmp(type, "peers") == 0)
        on_peers(l, root);
    else if (strcmp(type, "peer_connected") == 0)
        on_joined(l, root);
    else if (strcmp(type, "peer_disconnected") == 0)
        on_left(l, root);
    else if (strncmp(type, "pex_", 4) == 0)
        on_pex(l, root, type + 4);
    else if (strcmp(type, "get_dht_records") == 0)
        l->client->d->did.dht++;
    else
        wrong(l, "is told something unheard of");
}

void sim_dig_hear(struct sim_dig_link *l, struct bytes text)
{
    yyjson_doc *doc = yyjson_read((const char *)text.p, text.n, 0);
    yyjson_val *root = yyjson_doc_get_root(doc);
    const char *type = yyjson_get_str(yyjson_obj_get(root, "type"));

    if (type == NULL)
        wrong(l, "is told what is no message");
    else
        told(l, root, type);
    yyjson_doc_free(doc);
}

/* ---- when all is quiet ------------------------------------------------------------------------
 */

static void check_link(struct sim_dig_link *l, const uint64_t *there, bool books)
{
    struct sim *s = l->client->d->s;
    uint64_t hex = 0;

    for (unsigned i = 0; i < SIM_DIG_IDS; i++)
        hex |= (uint64_t)sim_dig_is_hex(i) << i;
    (void)sim_dig_wants(l, WANT_REFUSAL, NULL); /* what may come is not waited for any more */
    if (l->want_n != 0)
        sim_break(s, "link %u of client %u waits for %u answers, first for kind %u", l->serial,
                  l->client->idx, l->want_n, l->want[l->want_first % SIM_DIG_WANTS].kind);
    if (l->has_view && l->view != there[l->net])
        sim_break(s, "link %u, id %u believes that %llx are there, and it is %llx", l->serial,
                  l->id, (unsigned long long)l->view, (unsigned long long)there[l->net]);
    if (books && l->has_book && l->book != (there[l->net] & hex & ~(UINT64_C(1) << l->id)))
        sim_break(s, "link %u, id %u was told of %llx, and there are %llx", l->serial, l->id,
                  (unsigned long long)l->book, (unsigned long long)there[l->net]);
}

void sim_dig_check_quiet(struct sim_dig *d, bool books)
{
    uint64_t there[SIM_DIG_NETS] = { 0 };
    unsigned n = 0;

    for (unsigned i = 0; i < d->clients_n; i++) {
        const struct sim_dig_link *l = d->client[i].at;

        if (l != NULL && !sim_dig_stays(l) && !d->memory)
            sim_break(d->s, "client %u is neither here nor there", i);
        if (!sim_dig_stays(l))
            continue;
        if (there[l->net] >> l->id & 1)
            sim_break(d->s, "two clients have the id %u", l->id);
        there[l->net] |= UINT64_C(1) << l->id;
        n++;
    }
    if (n != atomic_load(&d->s->dig_host.registered))
        sim_break(d->s, "%u clients are registered, %u know of it",
                  atomic_load(&d->s->dig_host.registered), n);
    for (unsigned i = 0; i < d->clients_n; i++)
        if (sim_dig_stays(d->client[i].at))
            check_link(d->client[i].at, there, books);
}

uint64_t sim_dig_lost(struct sim *s)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < SIM_SHARDS; i++)
        n += STAT_GET(&s->shard[i].stats, dig_lost);
    return n;
}

/* A broadcast for which there was no memory is lost once, for all. */
static unsigned missing_of(const struct sim_dig_said *m)
{
    return m->broadcast && m->heard == 0 ? m->sure != 0 : (unsigned)__builtin_popcount(m->sure);
}

unsigned sim_dig_check_said(struct sim_dig *d, uint64_t lost_max)
{
    unsigned missing = 0, link = 0;
    size_t seq = 0;

    for (unsigned i = 0; i < d->links_n; i++)
        for (size_t k = 0; k < d->links[i]->said_n; k++) {
            struct sim_dig_said *m = &d->links[i]->said[k];

            if (m->sure == 0)
                continue;
            missing += missing_of(m);
            m->sure = 0;
            link = i;
            seq = k;
        }
    if (missing > lost_max)
        sim_break(d->s, "%u messages are missing, %llu were lost; message %zu of link %u", missing,
                  (unsigned long long)lost_max, seq, link);
    return missing;
}
