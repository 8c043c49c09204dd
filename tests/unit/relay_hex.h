/* tests/unit/relay_hex.h: hexadecimal vectors and the test peers K, A and B of libp2p.md §1.2, for
 * the tests of the relay's messages. */
#ifndef SLUICE_TESTS_RELAY_HEX_H
#define SLUICE_TESTS_RELAY_HEX_H

#include "proto/cur.h"
#include "proto/peer.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>

#define K_SEED "7e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d"
#define K_PB "080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
#define A_PB "080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"
#define B_PB "080112208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"
#define K_ID "0024" K_PB
#define A_ID "0024" A_PB
#define B_ID "0024" B_PB

struct hex {
    uint8_t b[8192];
    size_t n;
};

/* Blanks are skipped. */
static inline struct hex unhex(const char *text)
{
    struct hex h = { .n = 0 };
    unsigned byte;
    int used;

    while (sscanf(text, " %2x%n", &byte, &used) == 1) {
        cr_assert(lt(sz, h.n, sizeof(h.b)));
        h.b[h.n++] = (uint8_t)byte;
        text += used;
    }
    cr_assert(zero(sz, strlen(text)), "not hex: %s", text);
    return h;
}

static inline struct bytes hex_bytes(const struct hex *h)
{
    return bytes_of(h->b, h->n);
}

static inline void expect_wrote(const struct wcur *w, const uint8_t *buf, const char *wire)
{
    struct hex want = unhex(wire);
    char got[8192 * 2 + 1] = "";

    cr_assert(not(w->bad));
    for (size_t i = 0; i < w->wrote; i++)
        snprintf(got + 2 * i, 3, "%02x", buf[i]);
    cr_assert(bytes_eq(bytes_of(buf, w->wrote), hex_bytes(&want)), "wrote %s\n want %s", got, wire);
}

static inline struct peer_id id_of(const char *wire)
{
    struct hex h = unhex(wire);
    struct peer_id id;

    cr_assert(peer_id_decode(hex_bytes(&h), &id));
    return id;
}

static inline struct identity identity_k(void)
{
    struct hex seed = unhex(K_SEED);
    struct identity me;

    identity_from_seed(seed.b, &me);
    return me;
}

/* What every encoder owes: nothing past its room, and `bad` rather than a cut message. */
#define EXPECT_BAD_IN_EVERY_SMALLER_ROOM(full, w, call)                                            \
    do {                                                                                           \
        for (size_t room = 0; room < (full); room++) {                                             \
            uint8_t *small = malloc(room ? room : 1);                                              \
            struct wcur w = wcur_of(small, room);                                                  \
            call;                                                                                  \
            cr_expect(w.bad, "%zu bytes held %zu", room, (size_t)(full));                          \
            free(small);                                                                           \
        }                                                                                          \
    } while (0)

/* The same bytes in memory of just their size, so that a sanitizer sees a read past the end. */
static inline struct bytes tight(struct bytes b, uint8_t **to_free)
{
    *to_free = malloc(b.n ? b.n : 1);
    if (b.n)
        memcpy(*to_free, b.p, b.n);
    return bytes_of(*to_free, b.n);
}

#endif
