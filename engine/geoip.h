/* engine/geoip.h: in which part of the world an address is, by a database in MaxMind's format
 * (dig.md §15.2), for the map. A thread of its own reads the file: it lies on a disk that may be
 * slow or gone, and what reads it may wait for that. Who asks never waits: it fills the one batch
 * while the batch is its own, and finds the answers in there when it is its own again.
 *
 * A place is a cell of GEOIP_CELL_DEG degrees; nothing finer leaves geoip.c.
 *
 * The file may be anything: what is no database is refused, what breaks while it is read (cut short
 * in place, or nested without end, which libmaxminddb 1.7 follows down its stack) is closed and
 * said, and those who are placed stay where they are. */
#ifndef SLUICE_ENGINE_GEOIP_H
#define SLUICE_ENGINE_GEOIP_H

#include "engine/log.h"
#include "proto/maddr.h"

enum {
    GEOIP_CELL_DEG = 5,
    GEOIP_ROWS = 180 / GEOIP_CELL_DEG + 1, /* the pole has a row of its own: +90 is in 92.5 */
    GEOIP_COLS = 360 / GEOIP_CELL_DEG + 1, /* and so has +180 */
    GEOIP_CELLS = GEOIP_ROWS * GEOIP_COLS,
    GEOIP_NOWHERE = UINT16_MAX, /* no cell: no address, none that is public, none in the file */
    GEOIP_BATCH = 256,          /* whose places are asked for at a time */
    GEOIP_ADDRS = 8,            /* of one of them; the first that is in the file counts */
    GEOIP_STOP_MS = 300,
};

struct geoip_one {
    uint32_t index; /* the asker's, both */
    uint64_t serial;
    uint8_t addrs_n;
    struct netaddr addr[GEOIP_ADDRS];
    uint16_t cell; /* the answer: row * GEOIP_COLS + column, from the south-west */
};
struct geoip_batch {
    uint32_t n;
    uint32_t edition; /* the answer: of what file; 0: there is none, and no cell is an answer */
    struct geoip_one one[GEOIP_BATCH];
};

struct geoip_opts {
    const char *path;        /* copied */
    bool named;              /* by the operator: that it is missing is said */
    struct logq *log;        /* of that thread alone */
    void (*wake)(void *arg); /* on that thread: the batch is back, or there is another edition */
    void *arg;
};

struct geoip; /* geoip.c */

/* Keeps log and arg until geoip_stop. 0 or -errno; that the file cannot be read is no error. */
MUST_USE int geoip_start(const struct geoip_opts *o, struct geoip **out);
/* Of one thread, which never waits in them. */
uint32_t geoip_edition(const struct geoip *g);    /* 0: no file is open; else a new one for each */
struct geoip_batch *geoip_batch(struct geoip *g); /* NULL: it is with that thread. Lends it */
void geoip_ask(struct geoip *g);                  /* gives the batch to that thread */
void geoip_reopen(struct geoip *g, const char *path); /* copied; if it is none, the old one stays */
/* Waits GEOIP_STOP_MS at most, for a disk that hangs. Nobody is told anything after it. NULL is
 * fine. */
void geoip_stop(struct geoip *g);

/* For tests: the cell of a coordinate, GEOIP_NOWHERE of what is none. */
uint16_t geoip_cell(double lat, double lon);

#endif
