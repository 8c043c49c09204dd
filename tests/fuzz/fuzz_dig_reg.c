/* The registry under any order of calls. The first bytes choose the limits, then each step is a
 * byte for the call and two for its operands; after each everything is compared with a table that
 * is searched. */
#include "tests/fuzz/fuzz.h"

#include "proto/crypto.h"
#include "proto/dig_reg.h"

#include <stdlib.h>

enum { SEATS = 70, SLOTS = 80, STEPS_MAX = 2048 };

struct entry {
    struct dig_member *m; /* NULL: free */
    uint8_t id, net, source;
    uint32_t gen;
};
struct model {
    struct dig_reg r;
    struct entry entry[SLOTS];
    uint64_t dice;
};

static uint64_t next_u64(void *arg)
{
    return *(uint64_t *)arg += UINT64_C(0x9e3779b97f4a7c15);
}

/* Ids that are the beginning of others, that share eight bytes, and that are empty. */
static struct bytes id_of(uint8_t i, uint8_t text[DIG_NAME_MAX])
{
    memset(text, 'i', DIG_NAME_MAX);
    text[i & 64 ? 0 : 20] = i;
    return bytes_of(text, i < 21 ? i : i == 127 ? DIG_NAME_MAX : 64);
}

static struct bytes net_of(uint8_t i)
{
    static const char *const nets[] = { "", "n", "DIG_MAINNET", "DIG_MAINNET2" };

    return bytes_str(nets[i & 3]);
}

static struct dig_home home_of(const struct model *m, uint8_t slot)
{
    return (struct dig_home){ .slot = slot, .gen = m->entry[slot].gen, .shard = slot & 1 };
}

static void on_add(struct model *m, uint8_t slot, uint8_t a, uint8_t b)
{
    struct entry *e = &m->entry[slot];
    uint8_t text[DIG_NAME_MAX], id = a & 127;
    struct netaddr addr[1] = { { .port = b } };
    struct dig_claim c = { .id = id_of(id, text),
                           .network = net_of(b),
                           .addrs = addr,
                           .addrs_n = b >> 7,
                           .protocol_version = b,
                           .home = home_of(m, slot),
                           .verified = a >> 7 };
    struct dig_member *holder = dig_reg_find(&m->r, c.id), *got = NULL;
    uint32_t count = dig_reg_count(&m->r), same = 0;

    c.source.b[0] = e->m ? e->source : (b >> 2 & 7);
    for (size_t i = 0; i < SLOTS; i++)
        same += m->entry[i].m && m->entry[i].source == c.source.b[0];
    CHECK(dig_reg_source_count(&m->r, &c.source) == same);
    switch (dig_reg_add(&m->r, &c, &got)) {
    case DIG_REG_ADDED:
        CHECK(!e->m && !holder && count < SEATS && count < m->r.registrants_max);
        CHECK(!m->r.source_max || same < m->r.source_max);
        *e = (struct entry){ got, id, b & 3, c.source.b[0], e->gen };
        break;
    case DIG_REG_REFRESHED:
        CHECK(e->m == got && e->id == id && e->net == (b & 3));
        break;
    case DIG_REG_EVICT:
        CHECK(e->m ? got == e->m && (e->id != id || e->net != (b & 3))
                   : got == holder && c.verified);
        break;
    case DIG_REG_SOURCE_FULL:
        CHECK(!e->m && m->r.source_max && same >= m->r.source_max);
        break;
    case DIG_REG_FULL:
        CHECK(!e->m && count >= m->r.registrants_max);
        break;
    case DIG_REG_TAKEN:
        CHECK(!e->m && holder && got == holder && !c.verified);
        break;
    }
}

static void on_remove(struct model *m, uint8_t slot)
{
    struct dig_home home = home_of(m, slot);

    CHECK(dig_reg_remove(&m->r, &home) == (m->entry[slot].m != NULL));
    CHECK(!dig_reg_remove(&m->r, &home));
    m->entry[slot].m = NULL;
    m->entry[slot].gen++;
}

static void on_list(struct model *m, uint8_t slot, uint8_t max)
{
    const struct dig_member *out[SEATS], *self = m->entry[slot].m;
    const struct dig_network *net = dig_reg_network(&m->r, net_of(slot));
    struct dig_rng rng = { next_u64, &m->dice };
    bool has_self = false;

    if (!net)
        return;
    size_t top = 1 + max % SEATS, n = dig_reg_list(&m->r, net, self, &rng, out, top);

    CHECK(n == min_sz(top, dig_network_members(net)));
    for (size_t i = 0; i < n; i++) {
        CHECK(out[i]->network == net);
        has_self |= out[i] == self;
        if (i)
            CHECK(memcmp(out[i - 1]->id, out[i]->id, DIG_NAME_MAX) != 0 ||
                  out[i - 1]->id_n < out[i]->id_n);
    }
    CHECK(has_self == (self && self->network == net));
}

static void check(const struct model *m)
{
    const struct dig_member *out[SEATS];
    const struct dig_network *nets[5];
    uint32_t live = 0, in_net[4] = { 0 }, networks = 0;

    for (uint8_t i = 0; i < SLOTS; i++) {
        const struct entry *e = &m->entry[i];
        struct dig_home home = home_of(m, i);
        uint8_t text[DIG_NAME_MAX];

        CHECK(dig_reg_of(&m->r, &home) == e->m);
        if (!e->m)
            continue;
        CHECK(bytes_eq(dig_member_id(e->m), id_of(e->id, text)));
        CHECK(dig_reg_find(&m->r, dig_member_id(e->m)) == e->m);
        CHECK(bytes_eq(dig_network_name(e->m->network), net_of(e->net)));
        in_net[e->net]++;
        live++;
    }
    CHECK(dig_reg_count(&m->r) == live);
    CHECK(dig_reg_page(&m->r, (struct bytes){ NULL, 0 }, out, SEATS) == live);
    for (uint32_t i = 1; i < live; i++) {
        struct bytes a = dig_member_id(out[i - 1]), b = dig_member_id(out[i]);
        int d = memcmp(a.p, b.p, min_sz(a.n, b.n));

        CHECK(d < 0 || (d == 0 && a.n < b.n));
    }
    for (uint8_t i = 0; i < 4; i++) {
        const struct dig_network *net = dig_reg_network(&m->r, net_of(i));

        CHECK((net ? dig_network_members(net) : 0) == in_net[i]);
        networks += net != NULL;
    }
    CHECK(dig_reg_networks_page(&m->r, (struct bytes){ NULL, 0 }, nets, 5) == networks);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[16] = { 3, 1, 4, 1, 5, 9 };
    struct model m = { .dice = 1 };
    struct cur c = cur_of(bytes_of(data, size));
    void *mem = calloc(1, dig_reg_bytes(SEATS));

    CHECK(mem);
    crypto_init();
    dig_reg_init(&m.r, mem, SEATS, key);
    m.r.source_max = fuzz_u8(&c) % 32;
    for (size_t i = 0; i < STEPS_MAX && !c.bad && c.n; i++) {
        uint8_t op = fuzz_u8(&c), slot = fuzz_u8(&c) % SLOTS, arg = fuzz_u8(&c);

        switch (op & 7) {
        case 0:
            on_remove(&m, slot);
            break;
        case 1:
            on_list(&m, slot, arg);
            break;
        case 2:
            m.r.registrants_max = 1 + arg % SEATS;
            break;
        default:
            on_add(&m, slot, arg, op);
            break;
        }
        check(&m);
    }
    for (uint8_t i = 0; i < SLOTS; i++)
        on_remove(&m, i);
    check(&m);
    CHECK(m.r.pool.used == 0);
    free(mem);
    return 0;
}
