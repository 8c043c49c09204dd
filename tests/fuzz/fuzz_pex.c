/* The PEX machine under any order of joins, leaves, frames and ticks: what each link is told is
 * compared with the book that it would have, and in the end every book is the network. */
#include "tests/fuzz/fuzz.h"

#include "proto/crypto.h"
#include "proto/pex_int.h"

#include <stdio.h>
#include <stdlib.h>

enum { SEATS = 256, LINKS = 8, STEPS_MAX = 1024, CALLS_MAX = 4096 };

struct book {
    uint64_t told[SEATS];  /* serial of the registration; 0: none */
    uint32_t twice[SEATS]; /* told again before the departure in between was read */
    uint64_t sent_ms;
    bool open;
    uint32_t strikes;
};
struct model {
    struct dig_reg r;
    struct pex p;
    struct pex_out out;
    struct dig_member *m[SEATS]; /* by slot, which is the number of the id too */
    struct book book[LINKS];     /* slots 0..LINKS-1 may open links */
    uint64_t now_ms, dice, seen;
};

static uint64_t next_u64(void *arg)
{
    return *(uint64_t *)arg = *(uint64_t *)arg * UINT64_C(6364136223846793005) + 1;
}

static uint64_t last_seen(void *arg, const struct dig_member *m)
{
    const struct model *model = arg;

    return model->seen ^ (m->index & 3);
}

/* Every 16th is not told: its id is no hex. */
static bool told_of(uint32_t slot)
{
    return slot % 16 != 15;
}

static void join(struct model *m, uint32_t slot, uint8_t net)
{
    char id[65];
    struct dig_claim c = { .id = bytes_of(id, 64),
                           .network = bytes_str(net & 1 ? "n" : "m"),
                           .home = { .slot = slot } };

    if (m->m[slot])
        return;
    snprintf(id, sizeof(id), "%064x", slot);
    if (!told_of(slot))
        id[0] = 'Z';
    CHECK(dig_reg_add(&m->r, &c, &m->m[slot]) == DIG_REG_ADDED);
    pex_on_join(&m->p, m->now_ms, m->m[slot]);
    if (slot < LINKS)
        memset(&m->book[slot], 0, sizeof(m->book[slot]));
}

static void leave(struct model *m, uint32_t slot)
{
    struct dig_home home = { .slot = slot };

    if (!m->m[slot])
        return;
    pex_on_leave(&m->p, m->now_ms, m->m[slot]);
    CHECK(dig_reg_remove(&m->r, &home));
    m->m[slot] = NULL;
}

static bool advertised(const struct model *m, uint32_t slot, const struct dig_member *to)
{
    return m->m[slot] && told_of(slot) && m->m[slot] != to && m->m[slot]->network == to->network;
}

static uint32_t slot_of(const char *text)
{
    uint32_t v = 0;

    for (size_t i = 56; i < 64; i++)
        v = v << 4 | (uint32_t)(text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10);
    CHECK(v < SEATS);
    return v;
}

static void hear(struct model *m, uint32_t peers_max)
{
    struct pex_out *o = &m->out;
    uint32_t to = o->to->home.slot;

    CHECK(to < LINKS && m->m[to] == o->to);
    struct book *b = &m->book[to];

    CHECK(o->peers <= peers_max && o->dropped_n <= DIG_PEX_DELTA_MAX);
    for (uint32_t i = 0; i < o->peers; i++) {
        const struct dig_member *who = o->peer[i].member;
        uint32_t slot = who->home.slot;

        CHECK(m->m[slot] == who && advertised(m, slot, o->to));
        CHECK(b->told[slot] != who->serial);
        b->twice[slot] += b->told[slot] != 0;
        b->told[slot] = who->serial;
        CHECK(i == 0 || o->peer[i - 1].last_seen_unix_s >= o->peer[i].last_seen_unix_s);
    }
    for (uint32_t i = 0; i < o->dropped_n; i++) {
        uint32_t slot = slot_of(o->dropped[i]);

        if (!b->told[slot])
            CHECK(b->twice[slot]-- > 0);
        CHECK(!advertised(m, slot, o->to) || b->told[slot] != m->m[slot]->serial);
        CHECK(i == 0 || memcmp(o->dropped[i - 1], o->dropped[i], PEX_ID_TEXT) < 0);
        b->told[slot] = 0;
    }
    b->sent_ms = m->now_ms;
    if (m->p.link[o->to->index].read == m->p.net[o->to->network->index].newest)
        memset(b->twice, 0, sizeof(b->twice));
}

static void run(struct model *m)
{
    uint32_t calls = 0;

    do {
        CHECK(calls++ < CALLS_MAX);
        pex_tick(&m->p, m->now_ms, &m->out);
        if (m->out.n) {
            CHECK(m->out.n == 1 && m->out.ev[0].type == PEX_SEND_DELTA);
            CHECK(m->out.peers + m->out.dropped_n > 0);
            CHECK(m->now_ms >= m->book[m->out.to->home.slot].sent_ms + 60000);
            hear(m, DIG_PEX_DELTA_MAX);
        }
    } while (m->out.n || pex_deadline_ms(&m->p) <= m->now_ms);
}

static void frame(struct model *m, uint32_t slot, struct cur *c)
{
    uint8_t kind = fuzz_u8(c), arg = fuzz_u8(c);
    struct book *b = &m->book[slot];
    struct pex_frame f = {
        .kind = DIG_PEX_HANDSHAKE + kind % 4,
        .undecodable = kind >= 0xf0,
        .network_matches = kind < 0xe0,
        .same_id_in_both = kind & 0x40,
        .version = 1 + (kind >> 5 == 6),
        .interval_s = arg,
        .code = arg & 7,
        .peers = arg,
        .dropped = kind >> 2,
    };

    if (!m->m[slot])
        return;
    bool was_open = b->open;

    pex_on_frame(&m->p, m->now_ms, m->m[slot], &f, &m->out);
    CHECK(m->out.n <= PEX_OUT_MAX && m->out.to == m->m[slot]);
    if (m->out.n == 2) {
        CHECK(!was_open && f.kind == DIG_PEX_HANDSHAKE && !f.undecodable);
        CHECK(m->out.ev[0].type == PEX_SEND_HANDSHAKE && m->out.ev[1].type == PEX_SEND_SNAPSHOT);
        CHECK(m->out.dropped_n == 0);
        b->open = true;
        hear(m, DIG_PEX_SNAPSHOT_MAX);
    } else if (m->out.n == 1) {
        CHECK(m->out.ev[0].type == PEX_SEND_ERROR);
        CHECK(m->out.ev[0].code >= 1 && m->out.ev[0].code <= 6);
        CHECK(m->out.peers == 0 && m->out.dropped_n == 0);
        if (was_open) /* what can be decoded is answered three times at most */
            CHECK(b->strikes++ < PEX_STRIKES_MAX || f.undecodable);
    }
}

static void step(struct model *m, struct cur *c)
{
    uint8_t op = fuzz_u8(c);

    switch (op & 7) {
    case 0:
        join(m, fuzz_u8(c), op >> 3);
        break;
    case 1:
        leave(m, fuzz_u8(c));
        break;
    case 2: /* many at once, so that frames are full */
        for (uint32_t i = fuzz_u8(c), n = fuzz_u8(c); n > 0 && i < SEATS; n--, i++)
            join(m, i, op >> 3);
        break;
    case 3:
        for (uint32_t i = fuzz_u8(c), n = fuzz_u8(c); n > 0 && i < SEATS; n--, i++)
            leave(m, i);
        break;
    case 4:
        frame(m, op >> 3 & 7, c);
        break;
    case 5:
        m->now_ms += fuzz_u8(c) * UINT64_C(100);
        break;
    case 6:
        m->now_ms += 66000;
        run(m);
        break;
    default:
        m->seen = fuzz_u8(c);
        run(m);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[16] = { 3, 1, 4, 1, 5, 9 };
    static struct model m;
    struct cur c = cur_of(bytes_of(data, size));
    void *mem = calloc(1, dig_reg_bytes(SEATS)), *pex_mem = calloc(1, pex_bytes(SEATS));

    CHECK(mem && pex_mem);
    crypto_init();
    memset(&m, 0, sizeof(m));
    dig_reg_init(&m.r, mem, SEATS, key);
    pex_init(&m.p, pex_mem, SEATS,
             &(struct pex_setup){ .reg = &m.r,
                                  .rng = { next_u64, &m.dice },
                                  .last_seen = last_seen,
                                  .last_seen_arg = &m });
    for (size_t i = 0; i < STEPS_MAX && !c.bad && c.n; i++)
        step(&m, &c);
    for (uint32_t i = 0; i < 16; i++) { /* 3600 s is the longest interval, 256 the most to say */
        m.now_ms += 3960000;
        run(&m);
    }
    for (uint32_t i = 0; i < LINKS; i++) {
        for (uint32_t k = 0; m.m[i] && m.book[i].open && k < SEATS; k++)
            CHECK(m.book[i].told[k] == (advertised(&m, k, m.m[i]) ? m.m[k]->serial : 0) ||
                  m.p.forgotten);
    }
    for (uint32_t i = 0; i < SEATS; i++)
        leave(&m, i);
    CHECK(m.p.links == 0 && m.p.heap_n == 0 && m.p.pool.used == 0 && m.r.pool.used == 0);
    run(&m);
    m.now_ms += PEX_CHECK_MS;
    run(&m);
    CHECK(pex_deadline_ms(&m.p) == UINT64_MAX);
    free(mem);
    free(pex_mem);
    return 0;
}
