/* tests/unit/vectors.h: reads tests/vectors/NAME.txt, lines of "name hex" ("-" is empty). */
#ifndef SLUICE_TESTS_UNIT_VECTORS_H
#define SLUICE_TESTS_UNIT_VECTORS_H

#include "proto/base.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

enum { VECTORS_MAX = 256, VECTOR_BYTES_MAX = 1 << 16 };

struct vectors {
    size_t n;
    size_t used;
    char name[VECTORS_MAX][48];
    struct bytes value[VECTORS_MAX];
    uint8_t arena[VECTOR_BYTES_MAX];
};

static inline uint8_t hex_nibble(char ch)
{
    const char *digits = "0123456789abcdef";
    const char *at = ch ? strchr(digits, ch) : NULL;

    cr_assert(at != NULL, "not hexadecimal: %c", ch);
    return (uint8_t)(at - digits);
}

/* Blanks are skipped, so that long vectors can be laid out in lines. */
static inline size_t hex_decode(const char *hex, uint8_t *out, size_t cap)
{
    size_t n = 0;

    while (*hex) {
        if (*hex == ' ' || *hex == '\n') {
            hex++;
            continue;
        }
        cr_assert(n < cap && hex[1], "too long or odd");
        out[n++] = (uint8_t)(hex_nibble(hex[0]) << 4 | hex_nibble(hex[1]));
        hex += 2;
    }
    return n;
}

static inline const struct vectors *vectors_of(const char *file)
{
    static struct vectors v;
    static char line[8192];
    char path[512];

    if (v.n)
        return &v;
    snprintf(path, sizeof(path), "%s/vectors/%s", TEST_DIR, file);
    FILE *f = fopen(path, "r");

    cr_assert(f != NULL, "%s", path);
    while (fgets(line, sizeof(line), f)) {
        char *hex = strchr(line, ' ');

        cr_assert(hex && v.n < VECTORS_MAX && strchr(hex, '\n'));
        *hex++ = 0;
        snprintf(v.name[v.n], sizeof(v.name[0]), "%.47s", line);
        size_t n = hex[0] == '-' ? 0 : hex_decode(hex, v.arena + v.used, sizeof(v.arena) - v.used);

        v.value[v.n++] = bytes_of(v.arena + v.used, n);
        v.used += n;
    }
    fclose(f);
    return &v;
}

static inline struct bytes vector(const struct vectors *v, const char *name)
{
    for (size_t i = 0; i < v->n; i++)
        if (strcmp(v->name[i], name) == 0)
            return v->value[i];
    cr_assert(false, "no vector %s", name);
    return (struct bytes){ 0 };
}

#endif
