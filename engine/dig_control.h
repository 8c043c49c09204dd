/* engine/dig_control.h: control's part of the DIG door, shared by its files: dig_control.c
 * (registry, lists, PEX), dig_presence.c (who comes and goes), dig_dht.c (RLY-009), dig_map.c
 * (where they are) and dig_pages.c (statistics). All of it on control's thread; the shards see
 * answers and news only. */
#ifndef SLUICE_ENGINE_DIG_CONTROL_H
#define SLUICE_ENGINE_DIG_CONTROL_H

#include "engine/dig_int.h"

enum {
    DIG_PRESENCE_MS = 25, /* presence that follows other is gathered for so long; at most 50 */
    DIG_PRESENCE_BYTES = 1 << 16, /* or when so much is gathered */
    DIG_LIST_MS = 1000,           /* a list is made anew after this, for its last_seen */
    DIG_PAGE_MS = 1000,
};

/* Presence that is being gathered, and the list that was made last, of one network. */
struct dig_net_state {
    struct link pending; /* by due_ms */
    bool is_pending;
    uint64_t due_ms, flushed_ms;
    uint64_t next_seq; /* of the next event; goes on when the index gets another network */
    uint64_t base;
    uint32_t n;
    struct shared *frames, *offs; /* gathered */
    struct shared *list;          /* `peers`, a whole frame */
    uint64_t list_events, list_ms;
    struct link listed;
};

struct dig_dht;
struct dig_map;
struct dig_stats_job;

struct dig_control {
    struct control *c;
    struct dig_host *host;
    struct dig_reg reg;
    struct pex pex;
    void *reg_mem, *pex_mem;
    size_t reg_bytes, pex_bytes;
    struct dig_net_state *net; /* by network->index */
    uint32_t nets_max;
    struct list ready, pending, listed;
    uint8_t *list_room; /* for a list that is being written */
    struct pex_out pex_out;
    /* What a link was told by pex_tick() and not yet by us, for want of memory; nobody else is told
     * anything before. n == 0: nothing. */
    struct {
        uint8_t *text;
        size_t n;
        uint64_t serial, again_ms;
        struct dig_home home;
    } owed;
    const struct dig_member *picked[DIG_REG_LIST_MAX];
    struct dig_dht *dht;
    struct dig_map *map;
    struct {
        struct shared *page;
        uint64_t made_ms;
        struct mnode *asked, **asked_end; /* asks of who waits for it: /stats.json alone */
    } page[DIG_PAGES][2];                 /* short and whole ids */
    struct dig_stats_job *stats_job;
};

/* Frames behind each other in `w`, each of a text whose length is known only at its end: write it
 * through dig_frames_text, then call dig_frames_done. */
struct wcur dig_frames_text(const struct wcur *w);
void dig_frames_done(struct wcur *w, const struct wcur *text);
struct dig_peer dig_peer_of(const struct dig_control *dc, const struct dig_member *m);
uint64_t dig_last_seen(void *arg, const struct dig_member *m);
void dig_news_post(struct dig_control *dc, struct dig_news *n);
/* One frame for one connection. Takes `frames`. false: there is no memory, and it hears nothing. */
bool dig_tell(struct dig_control *dc, const struct dig_member *m, enum dig_news_kind kind,
              struct shared *frames);
uint64_t dig_rng_u64(void *arg);
/* The question has its answer: back to its shard. */
void dig_answer(struct dig_control *dc, struct dig_conn *c);

/* dig_presence.c */
void dig_presence_joined(struct dig_control *dc, const struct dig_member *m);
void dig_presence_left(struct dig_control *dc, const struct dig_member *m);
void dig_presence_flush(struct dig_control *dc);
uint64_t dig_presence_due_ms(const struct dig_control *dc);

/* dig_dht.c */
enum { DIG_DHT_SHOWN_MAX = 2000 };
struct dig_dht_key {
    uint8_t key[32];
    uint64_t providers; /* the most that anybody reported */
    uint32_t reported_by;
};
struct dig_dht_view {
    uint32_t reporting, total, n;
    bool truncated;
    struct dig_dht_key key[DIG_DHT_SHOWN_MAX]; /* as /dht.json lists them */
};
struct dig_dht *dig_dht_new(uint32_t members_max);
void dig_dht_free(struct dig_dht *d);
const struct dig_dht_view *dig_dht_view(const struct dig_dht *d);
/* records: of struct dig_record, cut anywhere by the ends of chunks. */
void dig_dht_answer(struct dig_control *dc, const struct dig_member *m,
                    const struct chunkq *records, bool truncated);
void dig_dht_tick(struct dig_control *dc);
uint64_t dig_dht_due_ms(const struct dig_control *dc);

/* dig_map.c */
struct dig_map *dig_map_new(uint32_t members_max);
void dig_map_free(struct dig_map *map);
void dig_map_joined(struct dig_map *map, const struct dig_member *m);
void dig_map_moved(struct dig_map *map, const struct dig_member *m); /* it has other addresses */
void dig_map_left(struct dig_map *map, const struct dig_member *m);
void dig_map_tick(struct dig_map *map);
uint32_t dig_map_count(const struct dig_map *map, unsigned cell); /* a cell of geoip.h */
uint32_t dig_map_located(const struct dig_map *map);

/* dig_pages.c: whole HTTP answers, at most DIG_PAGE_MS old when they are asked for. A long one is
 * made in pieces, one a turn, and who asked for it waits: its answer is given by the tick. */
void dig_page_ask(struct dig_control *dc, struct dig_conn *c);
void dig_pages_tick(struct dig_control *dc);
uint64_t dig_pages_due_ms(const struct dig_control *dc);
void dig_pages_free(struct dig_control *dc);

#endif
