/* tests/unit/mmdb_write.h: a small database in MaxMind's format, made from nothing but its
 * published description: a binary tree over the bits of addresses, records of 24 bits, a data
 * section, and the metadata behind it. For test_geoip.c. */
#ifndef SLUICE_TESTS_MMDB_WRITE_H
#define SLUICE_TESTS_MMDB_WRITE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base.h"

enum { MMDB_NODES = 4096, MMDB_DATA = 1 << 22, MMDB_SEPARATOR = 16 };
enum {
    MMDB_STR = 2,
    MMDB_DBL = 3,
    MMDB_U16 = 5,
    MMDB_U32 = 6,
    MMDB_MAP = 7,
    MMDB_U64 = 9,
    MMDB_ARR = 11,
    MMDB_FLT = 15
};

struct mmdb_write {
    uint32_t node[MMDB_NODES][2]; /* 0: nobody; 1 + n: node n; 1 << 24 | offset of data */
    uint32_t nodes;
    uint8_t data[MMDB_DATA];
    size_t n;
};

static inline void mw_u8(struct mmdb_write *w, unsigned v)
{
    ASSERT(w->n < MMDB_DATA);
    w->data[w->n++] = (uint8_t)v;
}

static inline void mw_be(struct mmdb_write *w, uint64_t v, int bytes)
{
    while (bytes--)
        mw_u8(w, (unsigned)(v >> (8 * bytes)) & 0xff);
}

static inline void mw_ctrl(struct mmdb_write *w, int type, unsigned size)
{
    ASSERT(size < 29);
    if (type > 7) {
        mw_u8(w, size);
        mw_u8(w, (unsigned)type - 7);
    } else {
        mw_u8(w, (unsigned)type << 5 | size);
    }
}

static inline void mw_str(struct mmdb_write *w, const char *s)
{
    mw_ctrl(w, MMDB_STR, (unsigned)strlen(s));
    while (*s)
        mw_u8(w, (uint8_t)*s++);
}

static inline void mw_uint(struct mmdb_write *w, const char *key, int type, uint64_t v, int bytes)
{
    mw_str(w, key);
    mw_ctrl(w, type, (unsigned)bytes);
    mw_be(w, v, bytes);
}

static inline void mw_real(struct mmdb_write *w, const char *key, int type, double v)
{
    float f = (float)v;
    uint64_t bits = 0;
    uint32_t bits32;

    memcpy(&bits, &v, 8);
    memcpy(&bits32, &f, 4);
    mw_str(w, key);
    mw_ctrl(w, type, type == MMDB_FLT ? 4 : 8);
    mw_be(w, type == MMDB_FLT ? bits32 : bits, type == MMDB_FLT ? 4 : 8);
}

/* A record as those of cities are: other things first. Its offset. */
static inline uint32_t mw_city(struct mmdb_write *w, int type, double lat, double lon)
{
    uint32_t at = (uint32_t)w->n;

    mw_ctrl(w, MMDB_MAP, 2);
    mw_str(w, "city");
    mw_ctrl(w, MMDB_MAP, 1);
    mw_str(w, "name");
    mw_str(w, "Somewhere");
    mw_str(w, "location");
    mw_ctrl(w, MMDB_MAP, 3);
    mw_uint(w, "accuracy_radius", MMDB_U16, 100, 2);
    mw_real(w, "latitude", type, lat);
    mw_real(w, "longitude", type, lon);
    return at;
}

/* Whoever's address begins with so many bits of ip has the record there. */
static inline void mw_net(struct mmdb_write *w, const uint8_t *ip, int bits, uint32_t offset)
{
    uint32_t at = 0;

    if (!w->nodes)
        w->nodes = 1;
    for (int i = 0; i < bits; i++) {
        uint32_t *to = &w->node[at][ip[i / 8] >> (7 - i % 8) & 1];

        if (i == bits - 1) {
            *to = 1u << 24 | offset;
            return;
        }
        if (!*to) {
            ASSERT(w->nodes < MMDB_NODES);
            *to = 1 + w->nodes++;
        }
        at = *to - 1;
    }
}

/* The whole file; from malloc. */
static inline uint8_t *mw_file(struct mmdb_write *w, int ip_version, size_t *n)
{
    uint8_t *file, *p;
    size_t data_n = w->n;

    memcpy(w->data + w->n, "\xab\xcd\xefMaxMind.com", 14);
    w->n += 14;
    mw_ctrl(w, MMDB_MAP, 9);
    mw_uint(w, "binary_format_major_version", MMDB_U16, 2, 2);
    mw_uint(w, "binary_format_minor_version", MMDB_U16, 0, 2);
    mw_uint(w, "build_epoch", MMDB_U64, 1700000000, 8);
    mw_str(w, "database_type");
    mw_str(w, "Test-City");
    mw_str(w, "description");
    mw_ctrl(w, MMDB_MAP, 1);
    mw_str(w, "en");
    mw_str(w, "of a test");
    mw_uint(w, "ip_version", MMDB_U16, (uint64_t)ip_version, 2);
    mw_str(w, "languages");
    mw_ctrl(w, MMDB_ARR, 1);
    mw_str(w, "en");
    mw_uint(w, "node_count", MMDB_U32, w->nodes, 4);
    mw_uint(w, "record_size", MMDB_U16, 24, 2);
    *n = 6 * (size_t)w->nodes + MMDB_SEPARATOR + w->n;
    file = p = calloc(1, *n);
    ASSERT(file != NULL);
    for (uint32_t i = 0; i < w->nodes; i++)
        for (int side = 0; side < 2; side++, p += 3) {
            uint32_t to = w->node[i][side], v = w->nodes;

            if (to >> 24)
                v = w->nodes + MMDB_SEPARATOR + (to & 0xffffff);
            else if (to)
                v = to - 1;
            p[0] = (uint8_t)(v >> 16);
            p[1] = (uint8_t)(v >> 8);
            p[2] = (uint8_t)v;
        }
    memcpy(p + MMDB_SEPARATOR, w->data, w->n);
    w->n = data_n;
    return file;
}

#endif
