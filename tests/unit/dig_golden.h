/* tests/unit/dig_golden.h: reads tests/vectors/dig/ (its README says how it is laid out), and the
 * helpers of the tests around the DIG relay's messages. */
#ifndef SLUICE_TESTS_UNIT_DIG_GOLDEN_H
#define SLUICE_TESTS_UNIT_DIG_GOLDEN_H

#include "proto/dig.h"
#include "proto/dig_scan.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>

#define ID_A "4f1d2c3b4a5968778695a4b3c2d1e0f04f1d2c3b4a5968778695a4b3c2d1e0f0"
#define ID_B "9ab0c1d2e3f405162738495a6b7c8d9e9ab0c1d2e3f405162738495a6b7c8d9e"

enum { GOLDEN_MAX = 64, GOLDEN_LINE_MAX = 2048, POOL_TEXT_MAX = 1 << 19 };

struct golden {
    size_t n;
    char name[GOLDEN_MAX][48];
    char text[GOLDEN_MAX][GOLDEN_LINE_MAX];
};

static inline const struct golden *golden_of(const char *file)
{
    static struct golden g;
    static char line[GOLDEN_LINE_MAX + 64];
    char path[512];

    snprintf(path, sizeof(path), "%s/vectors/dig/%s", TEST_DIR, file);
    FILE *f = fopen(path, "r");

    cr_assert(f != NULL, "%s", path);
    g.n = 0;
    while (fgets(line, sizeof(line), f)) {
        char *text = strchr(line, ' '), *end = strchr(line, '\n');

        if (line[0] == '#')
            continue;
        cr_assert(text && end && g.n < GOLDEN_MAX && end - text <= GOLDEN_LINE_MAX);
        *text++ = 0;
        *end = 0;
        snprintf(g.name[g.n], sizeof(g.name[0]), "%s", line);
        snprintf(g.text[g.n++], GOLDEN_LINE_MAX, "%s", text);
    }
    fclose(f);
    cr_assert(g.n > 0, "%s is empty", path);
    return &g;
}

static inline const char *golden(const char *file, const char *name)
{
    const struct golden *g = golden_of(file);

    for (size_t i = 0; i < g->n; i++)
        if (strcmp(g->name[i], name) == 0)
            return g->text[i];
    cr_assert(false, "no line %s in %s", name, file);
    return "";
}

/* One pool for all, and a text of exactly its size, so that AddressSanitizer sees a read past its
 * end. What was decoded stays until the next call. */
static inline enum dig_verdict decode_n(struct bytes text, struct dig_rules rules,
                                        struct dig_msg *m)
{
    static uint8_t *pool;
    uint8_t *copy = malloc(text.n ? text.n : 1);

    if (!pool)
        pool = malloc(dig_pool_bytes(POOL_TEXT_MAX));
    cr_assert(pool && copy && text.n <= POOL_TEXT_MAX);
    memcpy(copy, text.p, text.n);
    enum dig_verdict v = dig_decode(bytes_of(copy, text.n), rules, pool, dig_pool_bytes(text.n), m);

    free(copy);
    return v;
}

static inline enum dig_verdict decode(const char *text, struct dig_msg *m)
{
    return decode_n(bytes_str(text), (struct dig_rules){ .hex_ids = false }, m);
}

static inline enum dig_verdict verdict(const char *text)
{
    struct dig_msg m;

    return decode(text, &m);
}

#define EXPECT_TEXT(got, want)                                                                     \
    cr_expect(bytes_eq((got), bytes_str(want)), "%.*s instead of %s", (int)(got).n,                \
              (const char *)(got).p, (want))

#endif
