#include "proto/gossip.h"

#include "proto/crypto.h"
#include "proto/varint.h"

/* Field numbers (dusk.md §10.2); wire types as protobuf has them. */
enum { RPC_SUBSCRIPTION = 1, RPC_PUBLISH = 2, RPC_CONTROL = 3 };
enum { SUB_SUBSCRIBE = 1, SUB_TOPIC = 2 };
enum { MSG_FROM = 1, MSG_DATA, MSG_SEQNO, MSG_TOPIC, MSG_SIGNATURE, MSG_KEY };
enum { CTL_IHAVE = 1, CTL_IWANT = 2, CTL_GRAFT = 3, CTL_PRUNE = 4 };
enum { IHAVE_TOPIC = 1, IHAVE_ID = 2, IWANT_ID = 1, GRAFT_TOPIC = 1, PRUNE_BACKOFF = 3 };
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_LEN = 2, WIRE_32 = 5, FIELD_MAX = 15 };

static const char sign_domain[] = "libp2p-pubsub:";

const char *const gossip_topic_name[GOSSIP_TOPICS] = {
    "dusk/sync",
    "dusk/directory",
    "dusk/relay/federation",
    "sluice/relay/records",
};

bool gossip_topic_find(struct bytes name, enum gossip_topic *topic)
{
    for (int i = 0; i < GOSSIP_TOPICS; i++) {
        if (bytes_eq(name, bytes_str(gossip_topic_name[i]))) {
            *topic = (enum gossip_topic)i;
            return true;
        }
    }
    return false;
}

/* ---- reading -------------------------------------------------------------------------------- */

struct field {
    uint64_t tag;
    unsigned type;
    uint64_t value;    /* of a varint; past 63 bits it is all ones */
    struct bytes body; /* of WIRE_LEN */
};

/* Negative int32s and 64-bit hashes take ten bytes, which varint.h refuses; here nobody reads them,
 * but a message that has one is whole. */
static uint64_t any_varint(struct cur *c)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < 10; i++) {
        uint8_t b = cur_u8(c);

        if (i < 9)
            v |= (uint64_t)(b & 0x7f) << (7 * i);
        if (!(b & 0x80))
            return i < 9 ? v : UINT64_MAX;
    }
    c->bad = true;
    c->n = 0;
    return 0;
}

/* The next field of any message; false at the end or when c->bad. */
static bool next_field(struct cur *c, struct field *f)
{
    if (!c->n)
        return false;
    uint64_t key = any_varint(c);

    *f = (struct field){ .tag = key >> 3, .type = (unsigned)(key & 7) };
    switch (f->type) {
    case WIRE_VARINT:
        f->value = any_varint(c);
        break;
    case WIRE_64:
        cur_take(c, 8);
        break;
    case WIRE_32:
        cur_take(c, 4);
        break;
    case WIRE_LEN: {
        uint64_t n = any_varint(c);

        f->body = cur_take(c, n > c->n ? c->n + 1 : (size_t)n);
        break;
    }
    default: /* groups, and what nobody has defined */
        c->bad = true;
    }
    if (f->tag == 0)
        c->bad = true;
    if (c->bad)
        c->n = 0;
    return !c->bad;
}

/* Of a singular field the last one wins. */
static struct bytes field_last(struct bytes in, uint64_t tag)
{
    struct cur c = cur_of(in);
    struct bytes found = { NULL, 0 };
    struct field f;

    while (next_field(&c, &f))
        if (f.tag == tag && f.type == WIRE_LEN)
            found = f.body;
    return found;
}

/* Well-formed to its end, and no field of ours by another wire type; `varints` says which of ours
 * are varints, `lens` which have a length. */
static bool fields_valid(struct bytes in, unsigned lens, unsigned varints)
{
    struct cur c = cur_of(in);
    struct field f;

    while (next_field(&c, &f)) {
        if (f.tag > FIELD_MAX)
            continue;
        if ((lens >> f.tag & 1 && f.type != WIRE_LEN) ||
            (varints >> f.tag & 1 && f.type != WIRE_VARINT))
            return false;
    }
    return !c.bad;
}

static bool control_valid(struct bytes in, uint32_t *items)
{
    static const struct {
        unsigned lens, varints;
    } of[] = { [CTL_IHAVE] = { 1 << IHAVE_TOPIC | 1 << IHAVE_ID, 0 },
               [CTL_IWANT] = { 1 << IWANT_ID, 0 },
               [CTL_GRAFT] = { 1 << GRAFT_TOPIC, 0 },
               [CTL_PRUNE] = { 1 << GRAFT_TOPIC | 1 << 2, 1 << PRUNE_BACKOFF } };
    struct cur c = cur_of(in);
    struct field f;

    while (next_field(&c, &f)) {
        if (f.tag > CTL_PRUNE)
            continue;
        if (f.type != WIRE_LEN || !fields_valid(f.body, of[f.tag].lens, of[f.tag].varints))
            return false;
        ++*items;
    }
    return !c.bad;
}

bool gossip_rpc_valid(struct bytes rpc, uint32_t *items)
{
    struct cur c = cur_of(rpc);
    struct field f;

    *items = 0;
    if (rpc.n > GOSSIP_RPC_MAX)
        return false;
    while (next_field(&c, &f)) {
        bool ok = true;

        if (f.tag > RPC_CONTROL)
            continue;
        if (f.type != WIRE_LEN)
            return false;
        if (f.tag == RPC_SUBSCRIPTION)
            ok = fields_valid(f.body, 1 << SUB_TOPIC, 1 << SUB_SUBSCRIBE);
        else if (f.tag == RPC_PUBLISH)
            ok = fields_valid(f.body, ((1 << MSG_KEY) * 2 - 1) & ~1u, 0);
        else
            ok = control_valid(f.body, items);
        *items += f.tag != RPC_CONTROL;
        if (!ok || *items > GOSSIP_ITEMS_MAX)
            return false;
    }
    return !c.bad;
}

void gossip_walk_start(struct gossip_walk *w, struct bytes rpc)
{
    *w = (struct gossip_walk){ .rpc = cur_of(rpc) };
}

static void item_subscribe(struct bytes in, struct gossip_item *item)
{
    struct cur c = cur_of(in);
    struct field f;

    *item = (struct gossip_item){ .kind = GOSSIP_ITEM_SUBSCRIBE };
    while (next_field(&c, &f)) {
        if (f.tag == SUB_SUBSCRIBE)
            item->on = f.value != 0;
        else if (f.tag == SUB_TOPIC)
            item->topic = f.body;
    }
}

static void item_control(const struct field *f, struct gossip_item *item)
{
    static const enum gossip_item_kind kind[] = { [CTL_IHAVE] = GOSSIP_ITEM_IHAVE,
                                                  [CTL_IWANT] = GOSSIP_ITEM_IWANT,
                                                  [CTL_GRAFT] = GOSSIP_ITEM_GRAFT,
                                                  [CTL_PRUNE] = GOSSIP_ITEM_PRUNE };

    *item = (struct gossip_item){ .kind = kind[f->tag], .body = f->body };
    if (f->tag != CTL_IWANT)
        item->topic = field_last(f->body, 1);
}

bool gossip_walk_next(struct gossip_walk *w, struct gossip_item *item)
{
    struct field f;

    for (;;) {
        while (next_field(&w->control, &f)) {
            if (f.tag > CTL_PRUNE)
                continue;
            item_control(&f, item);
            return true;
        }
        do {
            if (!next_field(&w->rpc, &f))
                return false;
        } while (f.tag > RPC_CONTROL);
        if (f.tag == RPC_CONTROL) {
            w->control = cur_of(f.body);
            continue;
        }
        if (f.tag == RPC_SUBSCRIPTION)
            item_subscribe(f.body, item);
        else
            *item = (struct gossip_item){ .kind = GOSSIP_ITEM_PUBLISH, .body = f.body };
        return true;
    }
}

/* One spelling: no sign, no leading zero, below 2^64. */
static bool id_parse(struct bytes text, uint64_t *id)
{
    uint64_t v = 0;

    if (text.n == 0 || text.n > GOSSIP_ID_TEXT_MAX || (text.n > 1 && text.p[0] == '0'))
        return false;
    for (size_t i = 0; i < text.n; i++) {
        unsigned digit = (unsigned)text.p[i] - '0';

        if (digit > 9 || v > UINT64_MAX / 10 || v * 10 > UINT64_MAX - digit)
            return false;
        v = v * 10 + digit;
    }
    *id = v;
    return true;
}

bool gossip_id_next(struct cur *body, uint32_t tag, uint64_t *id, bool *known)
{
    struct field f;

    while (next_field(body, &f)) {
        if (f.tag != tag || f.type != WIRE_LEN)
            continue;
        *known = id_parse(f.body, id);
        return true;
    }
    return false;
}

/* ---- messages --------------------------------------------------------------------------------
 */

/* The author's key: the message's, or the one within an identity-hashed id. */
static bool msg_key(const struct gossip_msg *m, struct pubkey *key)
{
    /* 00 and the length: the identity hash (libp2p.md §1.2) */
    struct bytes pb = m->key.n                             ? m->key
                      : m->from.n > 2 && m->from.p[0] == 0 ? bytes_of(m->from.p + 2, m->from.n - 2)
                                                           : (struct bytes){ NULL, 0 };

    return pb.n && pubkey_decode(pb, key);
}

bool gossip_msg_decode(struct bytes body, struct gossip_msg *m, struct peer_id *author)
{
    struct cur c = cur_of(body);
    struct bytes *const to[] = { NULL,      &m->from,      &m->data, &m->seqno,
                                 &m->topic, &m->signature, &m->key };
    struct peer_id of_key;
    struct pubkey key;
    struct field f;

    memset(m, 0, sizeof(*m));
    while (next_field(&c, &f))
        if (f.tag <= MSG_KEY && f.type == WIRE_LEN)
            *to[f.tag] = f.body;
    if (c.bad || m->seqno.n != GOSSIP_SEQNO || !m->topic.p || !m->signature.n)
        return false;
    if (!peer_id_decode(m->from, author) || !msg_key(m, &key))
        return false;
    peer_id_of_key(key.pb, &of_key);
    return peer_id_eq(&of_key, author);
}

static size_t field_bytes(struct bytes b)
{
    return b.p ? 1 + varint_len(b.n) + b.n : 0;
}

static void put_field(struct wcur *w, unsigned tag, struct bytes b)
{
    if (!b.p)
        return;
    wcur_u8(w, (uint8_t)(tag << 3 | WIRE_LEN));
    wcur_lp(w, b);
}

static void put_signed_part(struct wcur *w, const struct gossip_msg *m)
{
    put_field(w, MSG_FROM, m->from);
    put_field(w, MSG_DATA, m->data);
    put_field(w, MSG_SEQNO, m->seqno);
    put_field(w, MSG_TOPIC, m->topic);
}

static struct bytes signed_bytes(const struct gossip_msg *m, uint8_t *room)
{
    struct wcur w = wcur_of(room, GOSSIP_SIGN_MAX);

    wcur_put(&w, bytes_str(sign_domain));
    put_signed_part(&w, m);
    return w.bad ? (struct bytes){ NULL, 0 } : bytes_of(room, w.wrote);
}

bool gossip_msg_verify(const struct gossip_msg *m, uint8_t *room)
{
    struct bytes text = signed_bytes(m, room);
    struct pubkey key;

    return text.n && msg_key(m, &key) && pubkey_verify(&key, text, m->signature);
}

unsigned gossip_msg_cost(const struct gossip_msg *m)
{
    struct pubkey key;
    unsigned hashing = (unsigned)(m->data.n / 16384); /* 1.3 GB/s of SHA against 60 us */

    if (!msg_key(m, &key))
        return 1;
    return (key.type == KEY_ED25519 ? 1 : key.type == KEY_RSA ? 4 : 12) + hashing;
}

static size_t msg_bytes(const struct gossip_msg *m)
{
    return field_bytes(m->from) + field_bytes(m->data) + field_bytes(m->seqno) +
           field_bytes(m->topic) + field_bytes(m->signature) + field_bytes(m->key);
}

/* ---- writing -------------------------------------------------------------------------------- */

/* What an RPC of one field begins with. */
static void put_rpc_head(struct wcur *w, unsigned tag, size_t n)
{
    if (n > GOSSIP_RPC_MAX) {
        w->bad = true;
        return;
    }
    wcur_varint(w, 1 + varint_len(n) + n);
    wcur_u8(w, (uint8_t)(tag << 3 | WIRE_LEN));
    wcur_varint(w, n);
}

size_t gossip_publish_bytes(const struct gossip_msg *m)
{
    size_t n = msg_bytes(m), rpc = 1 + varint_len(n) + n;

    return varint_len(rpc) + rpc;
}

void gossip_put_publish(struct wcur *w, const struct gossip_msg *m)
{
    put_rpc_head(w, RPC_PUBLISH, msg_bytes(m));
    put_signed_part(w, m);
    put_field(w, MSG_SIGNATURE, m->signature);
    put_field(w, MSG_KEY, m->key);
}

void gossip_put_own(struct wcur *w, const struct identity *me, struct bytes topic, uint64_t seqno,
                    struct bytes data, uint8_t *room)
{
    uint8_t number[GOSSIP_SEQNO], signature[64];
    struct gossip_msg m = { .from = peer_id_bytes(&me->id),
                            .data = data,
                            .seqno = bytes_of(number, sizeof(number)),
                            .topic = topic };

    put_u64(number, seqno);
    struct bytes text = signed_bytes(&m, room);

    if (!text.n) {
        w->bad = true;
        return;
    }
    crypto_ed25519_sign(me->sk, text, signature);
    m.signature = bytes_of(signature, sizeof(signature));
    gossip_put_publish(w, &m);
}

void gossip_put_subscribe(struct wcur *w, struct bytes topic, bool on)
{
    put_rpc_head(w, RPC_SUBSCRIPTION, 2 + field_bytes(topic));
    wcur_u8(w, SUB_SUBSCRIBE << 3 | WIRE_VARINT);
    wcur_u8(w, on);
    put_field(w, SUB_TOPIC, topic);
}

/* A control message of one part of n bytes, up to those. */
static void put_control_head(struct wcur *w, unsigned part, size_t n)
{
    put_rpc_head(w, RPC_CONTROL, 1 + varint_len(n) + n);
    wcur_u8(w, (uint8_t)(part << 3 | WIRE_LEN));
    wcur_varint(w, n);
}

void gossip_put_graft(struct wcur *w, struct bytes topic)
{
    put_control_head(w, CTL_GRAFT, field_bytes(topic));
    put_field(w, GRAFT_TOPIC, topic);
}

void gossip_put_prune(struct wcur *w, struct bytes topic, uint64_t backoff_s)
{
    put_control_head(w, CTL_PRUNE, field_bytes(topic) + 1 + varint_len(backoff_s));
    put_field(w, GRAFT_TOPIC, topic);
    wcur_u8(w, PRUNE_BACKOFF << 3 | WIRE_VARINT);
    wcur_varint(w, backoff_s);
}

static struct bytes id_text(uint64_t id, uint8_t text[GOSSIP_ID_TEXT_MAX])
{
    size_t at = GOSSIP_ID_TEXT_MAX;

    do {
        text[--at] = (uint8_t)('0' + id % 10);
    } while (id /= 10);
    return bytes_of(text + at, GOSSIP_ID_TEXT_MAX - at);
}

static void put_ids(struct wcur *w, unsigned part, struct bytes topic, unsigned tag,
                    const uint64_t *ids, size_t n)
{
    uint8_t text[GOSSIP_ID_TEXT_MAX];
    size_t bytes = field_bytes(topic);

    for (size_t i = 0; i < n; i++)
        bytes += field_bytes(id_text(ids[i], text));
    put_control_head(w, part, bytes);
    put_field(w, IHAVE_TOPIC, topic);
    for (size_t i = 0; i < n; i++)
        put_field(w, tag, id_text(ids[i], text));
}

void gossip_put_ihave(struct wcur *w, struct bytes topic, const uint64_t *ids, size_t n)
{
    put_ids(w, CTL_IHAVE, topic, IHAVE_ID, ids, n);
}

void gossip_put_iwant(struct wcur *w, const uint64_t *ids, size_t n)
{
    put_ids(w, CTL_IWANT, (struct bytes){ NULL, 0 }, IWANT_ID, ids, n);
}
