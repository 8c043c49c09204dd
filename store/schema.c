#include "store/schema.h"

#include "proto/crypto.h"

uint64_t hash_of(const struct store *s, struct bytes b)
{
    return crypto_siphash(s->hash_key, b);
}

/* ---- keys ---------------------------------------------------------------------------------- */

void key_u64(struct wcur *w, uint64_t v)
{
    wcur_u32(w, (uint32_t)(v >> 32));
    wcur_u32(w, (uint32_t)v);
}

static struct wcur *key_start(struct key *k)
{
    k->w = wcur_of(k->b, sizeof(k->b));
    return &k->w;
}

void key_seq(struct key *k, uint64_t seq)
{
    key_u64(key_start(k), seq);
}

void key_own(struct key *k, uint64_t peer_hash, uint64_t ns_hash)
{
    key_u64(key_start(k), peer_hash);
    key_u64(&k->w, ns_hash);
}

void key_ns(struct key *k, uint64_t ns_hash, uint64_t seq)
{
    key_u64(key_start(k), ns_hash);
    key_u64(&k->w, seq);
}

void key_end_reg(struct key *k, uint64_t when_unix_s, uint64_t seq)
{
    key_u64(key_start(k), when_unix_s);
    wcur_u8(&k->w, END_REG);
    key_u64(&k->w, seq);
}

void key_end_ban(struct key *k, uint64_t when_unix_s, uint8_t kind, struct bytes ban)
{
    key_u64(key_start(k), when_unix_s);
    wcur_u8(&k->w, END_BAN);
    wcur_u8(&k->w, kind);
    wcur_put(&k->w, ban);
}

void key_turn(struct key *k, struct bytes name, struct bytes realm)
{
    wcur_u8(key_start(k), (uint8_t)name.n);
    wcur_put(&k->w, name);
    wcur_put(&k->w, realm);
}

void key_ban(struct key *k, uint8_t kind, struct bytes ban)
{
    wcur_u8(key_start(k), kind);
    wcur_put(&k->w, ban);
}

void key_usage(struct key *k, uint32_t day, const struct peer_id *peer)
{
    wcur_u32(key_start(k), day);
    wcur_put(&k->w, peer_id_bytes(peer));
}

/* ---- values -------------------------------------------------------------------------------- */

static struct wcur val_start(uint8_t *at)
{
    return wcur_of(at + CRC_BYTES, VALUE_MAX - CRC_BYTES);
}

/* Of the key too: another one's record is not sound. */
static uint32_t checksum(struct bytes key, struct bytes rest)
{
    return crypto_crc32(key) ^ crypto_crc32(rest);
}

static struct bytes val_end(uint8_t *at, const struct wcur *w, struct bytes key)
{
    ASSERT(!w->bad); /* op checks bound every part */
    put_u32(at, checksum(key, bytes_of(at + CRC_BYTES, w->wrote)));
    return bytes_of(at, CRC_BYTES + w->wrote);
}

/* The rest of a value whose CRC is right; else a cursor that has failed. */
static struct cur val_open(struct bytes v, struct bytes key)
{
    struct cur c = cur_of(v);
    uint32_t crc = cur_u32(&c);

    if (c.bad || checksum(key, bytes_of(c.p, c.n)) != crc)
        c = (struct cur){ NULL, 0, true };
    return c;
}

static bool peer_from(struct bytes b, struct peer_id *id)
{
    if (b.n > PEER_ID_MAX)
        return false;
    *id = (struct peer_id){ .n = (uint8_t)b.n };
    if (b.n)
        memcpy(id->b, b.p, b.n);
    return true;
}

struct bytes val_reg(uint8_t at[VALUE_MAX], struct bytes key, const struct store_reg *r)
{
    struct wcur w = val_start(at);

    key_u64(&w, r->expires_unix_s);
    key_u64(&w, r->record_seq);
    wcur_u32(&w, r->ttl_s);
    wcur_u32(&w, r->tag);
    wcur_u8(&w, r->peer.n);
    wcur_u8(&w, (uint8_t)r->ns.n);
    wcur_put(&w, peer_id_bytes(&r->peer));
    wcur_put(&w, r->ns);
    wcur_put(&w, r->envelope);
    return val_end(at, &w, key);
}

bool open_reg(struct bytes key, struct bytes v, struct store_reg *r)
{
    struct cur k = cur_of(key), c = val_open(v, key);

    r->seq = cur_u64(&k);
    r->expires_unix_s = cur_u64(&c);
    r->record_seq = cur_u64(&c);
    r->ttl_s = cur_u32(&c);
    r->tag = cur_u32(&c);

    size_t peer_n = cur_u8(&c), ns_n = cur_u8(&c);
    struct bytes peer = cur_take(&c, peer_n);

    r->ns = cur_take(&c, ns_n);
    r->envelope = cur_take(&c, c.n);
    return !k.bad && k.n == 0 && !c.bad && peer_from(peer, &r->peer);
}

struct bytes val_profile(uint8_t at[VALUE_MAX], struct bytes key, const struct store_profile *p)
{
    struct wcur w = val_start(at);

    key_u64(&w, p->registered_unix_s);
    key_u64(&w, p->last_seen_unix_s);
    wcur_u16(&w, (uint16_t)p->display_name.n);
    wcur_put(&w, p->display_name);
    wcur_put(&w, p->relay_addr);
    return val_end(at, &w, key);
}

bool open_profile(struct bytes key, struct bytes v, struct store_profile *p)
{
    struct cur c = val_open(v, key);

    p->registered_unix_s = cur_u64(&c);
    p->last_seen_unix_s = cur_u64(&c);
    p->display_name = cur_take(&c, cur_u16(&c));
    p->relay_addr = cur_take(&c, c.n);
    return !c.bad && peer_from(key, &p->peer);
}

struct bytes val_turn(uint8_t at[VALUE_MAX], struct bytes key, const struct store_turn_user *u)
{
    struct wcur w = val_start(at);

    wcur_put(&w, bytes_of(u->key_md5, sizeof(u->key_md5)));
    wcur_put(&w, bytes_of(u->key_sha256, sizeof(u->key_sha256)));
    return val_end(at, &w, key);
}

bool open_turn(struct bytes key, struct bytes v, struct store_turn_user *u)
{
    struct cur k = cur_of(key), c = val_open(v, key);
    struct bytes md5 = cur_take(&c, sizeof(u->key_md5));
    struct bytes sha = cur_take(&c, sizeof(u->key_sha256));

    u->name = cur_take(&k, cur_u8(&k));
    u->realm = cur_take(&k, k.n);
    if (k.bad || c.bad || c.n)
        return false;
    memcpy(u->key_md5, md5.p, md5.n);
    memcpy(u->key_sha256, sha.p, sha.n);
    return true;
}

struct bytes val_secret(uint8_t at[VALUE_MAX], struct bytes key, struct bytes secret)
{
    struct wcur w = val_start(at);

    wcur_put(&w, secret);
    return val_end(at, &w, key);
}

bool open_secret(struct bytes key, struct bytes v, struct bytes *secret)
{
    struct cur c = val_open(v, key);

    *secret = cur_take(&c, c.n);
    return !c.bad;
}

struct bytes val_ban(uint8_t at[VALUE_MAX], struct bytes key, uint64_t until_unix_s)
{
    struct wcur w = val_start(at);

    key_u64(&w, until_unix_s);
    return val_end(at, &w, key);
}

bool open_ban(struct bytes key, struct bytes v, struct store_ban *b)
{
    struct cur k = cur_of(key), c = val_open(v, key);

    b->kind = cur_u8(&k);
    b->key = cur_take(&k, k.n);
    b->until_unix_s = cur_u64(&c);
    return !k.bad && !c.bad && c.n == 0;
}

struct bytes val_usage(uint8_t at[VALUE_MAX], struct bytes key, const struct store_usage *u,
                       uint32_t rows)
{
    struct wcur w = val_start(at);

    key_u64(&w, u->in_bytes);
    key_u64(&w, u->out_bytes);
    key_u64(&w, u->circuits);
    key_u64(&w, u->connected_s);
    wcur_u32(&w, rows);
    return val_end(at, &w, key);
}

bool open_usage(struct bytes key, struct bytes v, uint32_t *day, struct store_usage *u,
                uint32_t *rows)
{
    struct cur k = cur_of(key), c = val_open(v, key);

    *day = cur_u32(&k);
    u->in_bytes = cur_u64(&c);
    u->out_bytes = cur_u64(&c);
    u->circuits = cur_u64(&c);
    u->connected_s = cur_u64(&c);
    *rows = cur_u32(&c);
    return !k.bad && !c.bad && c.n == 0 && peer_from(bytes_of(k.p, k.n), &u->peer);
}
