/* Numbers that a client carries from one 5-tuple to another: CONNECTION-ID (RFC 6062) and
 * RESERVATION-TOKEN (RFC 8656 §18.9). Each is a count with the shard before it, through a
 * permutation that only our shards know: none comes twice until the count wraps, whoever saw some
 * cannot say the next, and any shard can tell whose one is. Guessing one is worth nothing without
 * its owner's password besides. */
#include "proto/crypto.h"
#include "proto/turn.h"
#include "proto/turn_int.h"

enum { ROUNDS = 8, ID_BITS = 32, TOKEN_BITS = 8 * TURN_TOKEN, TOKEN_COUNT_BITS = 56 };
static_assert(TURN_SHARDS_MAX == 1 << (ID_BITS - TURN_ID_COUNT_BITS), "the rest of an id");
static_assert(TURN_SHARDS_MAX == 1 << (TOKEN_BITS - TOKEN_COUNT_BITS), "the rest of a token");

void turn_id_init(struct turn *t)
{
    const struct turn_place *place = &t->config.place;
    const struct bytes what = bytes_str("sluice turn numbers");
    static const uint8_t forgotten[32];
    uint8_t key[32];

    if (t->config.limits.mobility || t->config.limits.conns_max)
        ASSERT(memcmp(place->key, forgotten, sizeof(forgotten)) != 0);
    ASSERT(place->shards <= TURN_SHARDS_MAX);
    ASSERT(place->shard < TURN_SHARDS_MAX);
    crypto_hmac_sha256_n(bytes_of(place->key, sizeof(place->key)), &what, 1, key);
    memcpy(t->id_key, key, sizeof(t->id_key));
    crypto_wipe(key, sizeof(key));
}

static uint64_t round_of(const struct turn *t, unsigned bits, unsigned round, uint64_t half)
{
    uint8_t text[10] = { (uint8_t)bits, (uint8_t)round };

    put_u64(text + 2, half);
    return crypto_siphash(t->id_key, bytes_of(text, sizeof(text))) >> (64 - bits / 2);
}

/* A Feistel network over 32 or 64 bits. */
static uint64_t hide(const struct turn *t, unsigned bits, uint64_t v)
{
    uint64_t left = v >> bits / 2, right = v & ((UINT64_C(1) << bits / 2) - 1);

    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t next = left ^ round_of(t, bits, i, right);

        left = right;
        right = next;
    }
    return left << bits / 2 | right;
}

static uint64_t reveal(const struct turn *t, unsigned bits, uint64_t v)
{
    uint64_t left = v >> bits / 2, right = v & ((UINT64_C(1) << bits / 2) - 1);

    for (unsigned i = ROUNDS; i-- > 0;) {
        uint64_t before = right ^ round_of(t, bits, i, left);

        right = left;
        left = before;
    }
    return left << bits / 2 | right;
}

uint32_t turn_id_make(struct turn *t)
{
    t->next_id = (t->next_id + 1) & ((UINT32_C(1) << TURN_ID_COUNT_BITS) - 1);
    return (uint32_t)hide(t, ID_BITS,
                          (uint64_t)t->config.place.shard << TURN_ID_COUNT_BITS | t->next_id);
}

uint16_t turn_id_shard(const struct turn *t, uint32_t id)
{
    return (uint16_t)(reveal(t, ID_BITS, id) >> TURN_ID_COUNT_BITS);
}

void turn_token_make(struct turn *t, uint8_t out[TURN_TOKEN])
{
    uint64_t shard = t->config.place.shard;

    t->next_token++; /* 2^56 of them outlive every machine */
    put_u64(out, hide(t, TOKEN_BITS, shard << TOKEN_COUNT_BITS | t->next_token));
}

uint16_t turn_token_shard(const struct turn *t, struct bytes token)
{
    struct cur c = cur_of(token);

    return (uint16_t)(reveal(t, TOKEN_BITS, cur_u64(&c)) >> TOKEN_COUNT_BITS);
}
