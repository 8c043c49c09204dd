/* store/names_int.h: what names*.c share. Not for anybody else. */
#ifndef SLUICE_STORE_NAMES_INT_H
#define SLUICE_STORE_NAMES_INT_H

#include "store/names.h"

#ifndef NAMES_BLOCK
#define NAMES_BLOCK 4096 /* profiles of a block; tests make it small */
#endif

enum {
    /* Rows of bits, 64 bytes a profile in all. Printable ASCII has a row for each byte, for a query
     * of one byte has nothing else. Of other bytes it is the letter that tells them apart: the
     * first two bytes of one have a row of LETTERS and a second one among TRIPLES, for a query of
     * one such letter has nothing else but its pair. */
    ROW_ASCII = 69, /* 95 printable, less A-Z; then one for control bytes, one for >= 0x80 */
    ROW_LETTERS = 71,
    ROW_PAIRS = 96,
    ROW_TRIPLES = 256,
    ROWS = 512,

    WORDS = NAMES_BLOCK / 64,
    SEGMENT = 1024, /* buckets that the table grows by */

    /* Moving together. A call that takes a column moves so many more; at three quarters full, eight
     * blocks become six for 6/8 of their columns, so that three moves a call keep up. */
    MOVES = 8,
    WINDOW = 8,
    SLACK = 8, /* blocks that may be ill filled at any time */
};
static_assert(NAMES_BLOCK % 64 == 0, "a block is whole words");
static_assert(NAMES_BLOCK <= 1 << 16, "a column is 16 bits");

struct block;

struct profile {
    struct profile *next; /* of its bucket */
    uint64_t key;         /* last_seen_s << 32 | the count of moves: the order of all profiles */
    struct block *block;  /* NULL: loaded, not yet placed */
    uint16_t col;
    uint16_t name_n;
    uint8_t peer_n;
    bool listed; /* in the list of what was loaded, which frees it if it is gone */
    bool gone;
    uint8_t text[]; /* the folded name, then the peer */
};

/* Blocks are in order: what is in order[i] has keys >= order[i]->lo and <= order[i + 1]->lo. */
struct block {
    uint64_t lo, hi; /* hi: of what was ever placed here */
    uint32_t at;     /* in order[] */
    uint32_t used;   /* columns taken, the dead ones included; none is taken twice */
    uint32_t live_n;
    bool mixed; /* columns are not in the order of keys */
    uint64_t live[WORDS];
    struct profile *col[NAMES_BLOCK];
    uint64_t row[ROWS][WORDS];
};

struct ranked {
    uint64_t key;
    struct profile *p;
};

struct names {
    uint8_t seed[16];
    uint32_t k_letter, k_pair, k_triple; /* odd */
    uint8_t row_of[256];                 /* of a byte */
    uint32_t row_n[ROWS];                /* how often rows were marked, by profiles now placed */

    struct block **order;
    uint32_t blocks_n, blocks_max;
    uint32_t seq;

    struct profile ***segment; /* linear hashing: buckets_n buckets, one split at a time */
    uint32_t segments_max, buckets_n, base;
    uint32_t profiles_n, profiles_max;

    struct {
        struct block *dest; /* NULL: nothing is being moved together */
        uint32_t left;      /* blocks behind it still to be emptied into it */
        uint32_t rest;      /* calls until the next look whether there is something to gain */
    } job;

    struct {
        struct ranked *v, *w;
        uint32_t n, cap, pass, at;
    } load;

    uint64_t text_bytes; /* of profiles, as allocated */
    uint64_t finds, finds_cut, compared, moved;
    struct ranked scratch[NAMES_BLOCK];
};

/* A hash to 0..width-1. */
static inline uint32_t row_within(uint32_t hash, uint32_t width)
{
    return (uint32_t)((uint64_t)hash * width >> 32);
}

static inline uint32_t row_pair(const struct names *n, uint32_t a, uint32_t b)
{
    return ROW_PAIRS + row_within((a | b << 8) * n->k_pair, ROW_TRIPLES - ROW_PAIRS);
}

static inline uint32_t row_triple(const struct names *n, uint32_t a, uint32_t b, uint32_t c)
{
    return ROW_TRIPLES + ((a | b << 8 | c << 16) * n->k_triple >> 24);
}
static_assert(ROWS - ROW_TRIPLES == 256, "row_triple takes eight bits");

/* A byte that begins a letter of several (RFC 3629 §3). */
static inline bool row_leads(uint8_t a)
{
    return a >= 0xc0;
}

static inline uint32_t row_letter(const struct names *n, uint32_t a, uint32_t b)
{
    return ROW_LETTERS + row_within((a | b << 8) * n->k_letter, ROW_PAIRS - ROW_LETTERS);
}

static inline uint32_t row_letter_too(const struct names *n, uint32_t a, uint32_t b)
{
    return ROW_TRIPLES + ((a | b << 8) * n->k_triple >> 24);
}

/* ---- names_block.c ------------------------------------------------------------------------- */

/* Gives p its first column, by its key, and counts its rows. */
int MUST_USE names_place(struct names *n, struct profile *p);
/* Gives up p's column and its rows' counts; the block goes with its last column. */
void names_lift(struct names *n, struct profile *p);
/* Takes p to the place of another key. -ENOMEM: it is where it was. */
int MUST_USE names_replace(struct names *n, struct profile *p, uint64_t key);
/* A new block for keys from lo on, if nothing that low is here: for what comes in order. */
int MUST_USE names_open_block(struct names *n, uint64_t lo);
void names_together(struct names *n, uint32_t moves);
void names_sort(struct ranked *v, size_t count);

/* ---- names.c ------------------------------------------------------------------------------- */

struct profile *names_get(const struct names *n, struct bytes peer);
void names_fold(uint8_t *to, struct bytes from);

#endif
