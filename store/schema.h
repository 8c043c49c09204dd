/* store/schema.h: how records look on disk, and which version of them a file has. README.md says
 * the same in words. Integers are big-endian, so that keys sort as numbers do. Every value but
 * those of pure indexes begins with a CRC-32 of its key XOR that of what follows. */
#ifndef SLUICE_STORE_SCHEMA_H
#define SLUICE_STORE_SCHEMA_H

#include "proto/cur.h"
#include "store/env.h"

enum {
    CRC_BYTES = 4,
    HASH_BYTES = 8,
    SEQ_KEY = 8,
    OWN_KEY = HASH_BYTES + HASH_BYTES,           /* peer, namespace */
    NS_KEY = HASH_BYTES + SEQ_KEY,               /* namespace, seq; seq 0 is the namespace's head */
    NS_HEAD = 4,                                 /* bytes of a head: how many; from two on */
    END_SEQ_KEY = 8 + 1 + SEQ_KEY,               /* when, END_REG, seq */
    END_BAN_KEY = 8 + 1 + 1 + STORE_BAN_KEY_MAX, /* when, END_BAN, kind, key */
    TURN_KEY = 1 + 2 * STORE_TURN_TEXT_MAX,
    DAY_KEY = 4,
    USAGE_KEY = DAY_KEY + PEER_ID_MAX,
    END_REG = 0,
    END_BAN = 1,
};
static_assert(TURN_KEY - KEY_MAX <= 0, "LMDB's bound");
#define DAY_S 86400u

/* T_META: "schema" u32 and its CRC, "hash" 16 bytes, "counts": next seq u64, namespaces u64. */
MUST_USE int schema_open(struct store *s, char *why, size_t cap); /* reads, makes or migrates */
MUST_USE int schema_put_counts(struct store *s);
/* As the snapshot s->r has them. */
MUST_USE int schema_get_counts(struct store *s, uint64_t *next_seq, uint64_t *namespaces);

/* ---- keys ---------------------------------------------------------------------------------- */

struct key { /* a key being made */
    struct wcur w;
    uint8_t b[KEY_MAX];
};
static inline struct bytes key_bytes(const struct key *k)
{
    ASSERT(!k->w.bad);
    return bytes_of(k->b, k->w.wrote);
}
void key_u64(struct wcur *w, uint64_t v);

uint64_t hash_of(const struct store *s, struct bytes b);
void key_seq(struct key *k, uint64_t seq);
void key_own(struct key *k, uint64_t peer_hash, uint64_t ns_hash);
void key_ns(struct key *k, uint64_t ns_hash, uint64_t seq);
void key_end_reg(struct key *k, uint64_t when_unix_s, uint64_t seq);
void key_end_ban(struct key *k, uint64_t when_unix_s, uint8_t kind, struct bytes ban);
void key_turn(struct key *k, struct bytes name, struct bytes realm);
void key_ban(struct key *k, uint8_t kind, struct bytes ban);
void key_usage(struct key *k, uint32_t day, const struct peer_id *peer);

/* ---- values: made in `at`, with their CRC; opened ones borrow ------------------------------- */

struct bytes val_reg(uint8_t at[VALUE_MAX], struct bytes key, const struct store_reg *r);
struct bytes val_profile(uint8_t at[VALUE_MAX], struct bytes key, const struct store_profile *p);
struct bytes val_turn(uint8_t at[VALUE_MAX], struct bytes key, const struct store_turn_user *u);
struct bytes val_secret(uint8_t at[VALUE_MAX], struct bytes key, struct bytes secret);
struct bytes val_ban(uint8_t at[VALUE_MAX], struct bytes key, uint64_t until_unix_s);
/* rows: of the whole day, kept with "others" only */
struct bytes val_usage(uint8_t at[VALUE_MAX], struct bytes key, const struct store_usage *u,
                       uint32_t rows);

/* false: its CRC or its shape is wrong. */
MUST_USE bool open_reg(struct bytes key, struct bytes v, struct store_reg *r);
MUST_USE bool open_profile(struct bytes key, struct bytes v, struct store_profile *p);
MUST_USE bool open_turn(struct bytes key, struct bytes v, struct store_turn_user *u);
MUST_USE bool open_secret(struct bytes key, struct bytes v, struct bytes *secret);
MUST_USE bool open_ban(struct bytes key, struct bytes v, struct store_ban *b);
MUST_USE bool open_usage(struct bytes key, struct bytes v, uint32_t *day, struct store_usage *u,
                         uint32_t *rows);

#endif
