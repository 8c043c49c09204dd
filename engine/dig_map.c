/* Where registrants are, for /map.json (dig.md §15.2). Another thread reads the database (geoip.h);
 * here is who has been asked about, the answers, and a count per cell that is kept as they come and
 * go, so that the page costs what it shows and not a walk over everybody. */
#include <stdlib.h>

#include "engine/dig_control.h"
#include "engine/geoip.h"
#include "engine/mem.h"

static_assert((int)GEOIP_ADDRS >= (int)DIG_DIALABLE_MAX, "all of a registrant's");

enum place_state {
    PLACE_NONE,
    PLACE_FRESH, /* to be asked about */
    PLACE_ASKED,
    PLACE_KNOWN,
};

struct place {
    const struct dig_member *m;
    struct link link; /* in fresh or known */
    uint64_t serial;
    uint32_t edition;
    uint16_t cell;
    uint8_t state;
};

struct dig_map {
    struct geoip *geoip; /* NULL: none, and everybody stays fresh */
    struct place *place; /* by member->index */
    uint32_t max;
    struct list fresh, known; /* known: of the oldest edition first */
    uint32_t count[GEOIP_CELLS];
    uint32_t located;
};

struct dig_map *dig_map_new(uint32_t members_max)
{
    struct dig_map *map = calloc(1, sizeof(*map));
    int err;

    if (!map)
        return NULL;
    map->max = members_max;
    map->place = mem_reserve(members_max, sizeof(*map->place), &err);
    if (err) {
        free(map);
        return NULL;
    }
    return map;
}

void dig_map_free(struct dig_map *map)
{
    if (!map)
        return;
    mem_release(map->place, map->max, sizeof(*map->place));
    free(map);
}

void dig_control_set_geoip(struct dig_control *dc, struct geoip *g)
{
    dc->map->geoip = g;
}

void dig_control_reopen_geoip(struct dig_control *dc, const char *path)
{
    if (dc->map->geoip)
        geoip_reopen(dc->map->geoip, path);
}

/* ---- who is where ------------------------------------------------------------------------------
 */

static void put_at(struct dig_map *map, struct place *p, uint16_t cell)
{
    if (p->cell != GEOIP_NOWHERE) {
        ASSERT(map->count[p->cell] > 0);
        map->count[p->cell]--;
        map->located--;
    }
    if (cell != GEOIP_NOWHERE) {
        map->count[cell]++;
        map->located++;
    }
    p->cell = cell;
}

static void leave_list(struct dig_map *map, struct place *p)
{
    if (p->state == PLACE_FRESH)
        list_remove(&map->fresh, &p->link);
    else if (p->state == PLACE_KNOWN)
        list_remove(&map->known, &p->link);
    p->state = PLACE_NONE;
}

static void enter(struct dig_map *map, struct place *p, enum place_state state)
{
    leave_list(map, p);
    p->state = (uint8_t)state;
    list_append(state == PLACE_FRESH ? &map->fresh : &map->known, &p->link);
}

void dig_map_joined(struct dig_map *map, const struct dig_member *m)
{
    struct place *p = &map->place[m->index];

    ASSERT(p->state == PLACE_NONE);
    p->m = m;
    p->serial = m->serial;
    p->cell = GEOIP_NOWHERE;
    enter(map, p, PLACE_FRESH);
}

/* It stays where it was until the answer about its new addresses is there. */
void dig_map_moved(struct dig_map *map, const struct dig_member *m)
{
    enter(map, &map->place[m->index], PLACE_FRESH);
}

void dig_map_left(struct dig_map *map, const struct dig_member *m)
{
    struct place *p = &map->place[m->index];

    put_at(map, p, GEOIP_NOWHERE);
    leave_list(map, p);
    p->m = NULL;
}

/* ---- asking ----------------------------------------------------------------------------------
 */

/* What was asked about may have gone, or moved, and be asked about again. */
static void take_answers(struct dig_map *map, const struct geoip_batch *b)
{
    for (uint32_t i = 0; i < b->n; i++) {
        const struct geoip_one *one = &b->one[i];
        struct place *p = &map->place[one->index];

        if (p->state != PLACE_ASKED || p->serial != one->serial)
            continue;
        if (b->edition)
            put_at(map, p, one->cell);
        p->edition = b->edition;
        enter(map, p, b->edition ? PLACE_KNOWN : PLACE_FRESH);
    }
}

/* Who is new, then who is known by another file than this one. */
static struct place *next_to_ask(struct dig_map *map, uint32_t edition)
{
    struct link *k = map->fresh.first ? map->fresh.first : map->known.first;
    struct place *p = k ? CONTAINER_OF(k, struct place, link) : NULL;

    return p && (p->state == PLACE_FRESH || p->edition != edition) ? p : NULL;
}

void dig_map_tick(struct dig_map *map)
{
    struct geoip_batch *b = map->geoip ? geoip_batch(map->geoip) : NULL;
    uint32_t edition;
    struct place *p;

    if (!b)
        return;
    take_answers(map, b);
    b->n = 0;
    edition = geoip_edition(map->geoip);
    while (edition && b->n < GEOIP_BATCH && (p = next_to_ask(map, edition))) {
        struct geoip_one *one = &b->one[b->n++];

        leave_list(map, p);
        p->state = PLACE_ASKED;
        one->index = p->m->index;
        one->serial = p->serial;
        one->addrs_n = p->m->addrs_n;
        memcpy(one->addr, p->m->addr, p->m->addrs_n * sizeof(*one->addr));
    }
    if (b->n)
        geoip_ask(map->geoip);
}

uint32_t dig_map_count(const struct dig_map *map, unsigned cell)
{
    return map->count[cell];
}

uint32_t dig_map_located(const struct dig_map *map)
{
    return map->located;
}
