/* Message ids: SipHash-1-3 as Rust's DefaultHasher computes it (dusk.md §10.2). libsodium has
 * SipHash-2-4 only. The key is zero, so an id is no secret: who keeps them in a table hashes them
 * again. */
#include "proto/gossip.h"
#include "proto/varint.h"

struct sip {
    uint64_t v[4];
    uint64_t word; /* bytes that do not fill one yet, the first one lowest */
    size_t bytes;
};

static uint64_t rotl(uint64_t x, unsigned n)
{
    return x << n | x >> (64 - n);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] = rotl(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] = rotl(v[2], 32);
}

static void sip_word(struct sip *s, uint64_t m)
{
    s->v[3] ^= m;
    sip_round(s->v);
    s->v[0] ^= m;
}

static uint64_t word_le(const uint8_t *p)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < 8; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static void sip_feed(struct sip *s, struct bytes in)
{
    size_t i = 0;

    for (; i < in.n && s->bytes % 8; i++, s->bytes++) {
        s->word |= (uint64_t)in.p[i] << (8 * (s->bytes % 8));
        if (s->bytes % 8 == 7) {
            sip_word(s, s->word);
            s->word = 0;
        }
    }
    for (; in.n - i >= 8; i += 8, s->bytes += 8)
        sip_word(s, word_le(in.p + i));
    for (; i < in.n; i++, s->bytes++)
        s->word |= (uint64_t)in.p[i] << (8 * (s->bytes % 8));
}

uint64_t gossip_sip13(uint64_t k0, uint64_t k1, const struct bytes *parts, size_t n)
{
    struct sip s = { .v = { k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d,
                            k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573 } };

    for (size_t i = 0; i < n; i++)
        sip_feed(&s, parts[i]);
    sip_word(&s, s.word | (uint64_t)(s.bytes & 0xff) << 56);
    s.v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(s.v);
    return s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3];
}

static struct bytes u64_le(uint64_t v, uint8_t at[8])
{
    for (unsigned i = 0; i < 8; i++)
        at[i] = (uint8_t)(v >> (8 * i));
    return bytes_of(at, 8);
}

uint64_t gossip_msg_id(const struct gossip_msg *m, const struct peer_id *author)
{
    struct cur c = cur_of(peer_id_bytes(author));
    uint64_t code = cur_varint(&c);
    struct bytes digest = cur_lp(&c);
    uint8_t data_n[8], code_le[8], digest_n[8];
    const struct bytes parts[] = { u64_le(m->data.n, data_n), m->data, u64_le(code, code_le),
                                   u64_le(digest.n, digest_n), digest };

    ASSERT(!c.bad); /* peer_id_decode() has seen it */
    return gossip_sip13(0, 0, parts, ARRAY_LEN(parts));
}
