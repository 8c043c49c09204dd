/* The registry beside a model that looks at every entry. */
#include "tests/unit/dig_world.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

enum { SEATS = 120, SLOTS = 160, IDS = 200, NETS = 6, SOURCES = 12, OPS = 1500 };

struct model_entry {
    bool live, verified;
    uint32_t id, net, source, gen;
    struct dig_member *member;
};
static struct model_entry entry[SLOTS];
static struct seeded dice;
static char why[32];

static const char *id_text(uint32_t i)
{
    static char text[65];

    if (i % 3 == 0) /* a shared beginning, and ids that begin others */
        snprintf(text, sizeof(text), "sameprefix%.*s", (int)(i / 3 % 50),
                 "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb");
    if (i % 3 == 0 && i >= 150)
        snprintf(text, sizeof(text), "q%u", i);
    if (i % 3)
        hex_id(text, i);
    return text;
}

static const char *net_text(uint32_t i)
{
    static const char *const nets[NETS] = { "", "DIG_MAINNET", "DIG_MAINNET2", "dig", "x", "DIG" };

    return nets[i];
}

static uint32_t count_if(bool by_net, bool by_source, uint32_t net, uint32_t source)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < SLOTS; i++)
        n += entry[i].live && (!by_net || entry[i].net == net) &&
             (!by_source || entry[i].source == source);
    return n;
}

static struct model_entry *holder(uint32_t id)
{
    for (uint32_t i = 0; i < SLOTS; i++) {
        if (entry[i].live && entry[i].id == id)
            return &entry[i];
    }
    return NULL;
}

static struct dig_home home_of(uint32_t slot)
{
    struct dig_home home = home_at(slot);

    home.gen = entry[slot].gen;
    return home;
}

static void model_add(void)
{
    uint32_t slot = (uint32_t)seeded_below(&dice, SLOTS), id = (uint32_t)seeded_below(&dice, IDS);
    struct model_entry *e = &entry[slot], *incumbent = holder(id);
    uint32_t net = (uint32_t)seeded_below(&dice, NETS);
    struct dig_member *m = NULL;
    enum dig_reg_verdict want;

    if (e->live && seeded_below(&dice, 2)) {
        id = e->id;
        net = seeded_below(&dice, 3) ? e->net : net;
        incumbent = e;
    }
    uint32_t source = e->live ? e->source : (uint32_t)seeded_below(&dice, SOURCES);
    struct dig_claim c = claim_of(bytes_str(id_text(id)), net_text(net), slot);

    c.home = home_of(slot);
    c.source = (struct dig_source){ { (uint8_t)source } };
    c.verified = e->live ? e->verified : seeded_below(&dice, 4) == 0;
    if (e->live)
        want = e->id == id && e->net == net ? DIG_REG_REFRESHED : DIG_REG_EVICT;
    else if (reg.source_max && count_if(false, true, 0, source) >= reg.source_max)
        want = DIG_REG_SOURCE_FULL;
    else if (count_if(false, false, 0, 0) >= SEATS)
        want = DIG_REG_FULL;
    else if (incumbent)
        want = c.verified ? DIG_REG_EVICT : DIG_REG_TAKEN;
    else
        want = DIG_REG_ADDED;
    cr_assert(eq(int, dig_reg_add(&reg, &c, &m), want), "%s", why);
    if (want == DIG_REG_ADDED)
        *e = (struct model_entry){ true, c.verified, id, net, source, e->gen, m };
    else if (want == DIG_REG_EVICT)
        cr_assert(m == (e->live ? e : incumbent)->member, "%s", why);
    else if (want == DIG_REG_TAKEN)
        cr_assert(m == incumbent->member, "%s", why);
}

static void model_remove(void)
{
    uint32_t slot = (uint32_t)seeded_below(&dice, SLOTS);
    struct dig_home home = home_of(slot);

    cr_assert(eq(int, dig_reg_remove(&reg, &home), entry[slot].live), "%s", why);
    entry[slot].live = false;
    entry[slot].gen++; /* the next connection there */
    home.gen += 2;
    cr_assert(not(dig_reg_remove(&reg, &home)), "%s", why);
}

static void check_network(uint32_t net)
{
    struct dig_network *n = dig_reg_network(&reg, bytes_str(net_text(net)));
    uint32_t want = count_if(true, false, net, 0);
    struct dig_rng rng = { world_u64, &dice };
    const struct dig_member *out[SEATS], *last = NULL;

    cr_assert(eq(int, n != NULL, want > 0), "%s", why);
    if (!n)
        return;
    cr_assert(eq(u32, dig_network_members(n), want), "%s", why);
    uint32_t max = 1 + (uint32_t)seeded_below(&dice, SEATS);
    const struct dig_member *self = NULL;
    bool has_self = false;

    for (uint32_t i = 0; i < SLOTS && seeded_below(&dice, 3); i++) {
        if (entry[i].live && entry[i].net == net)
            self = entry[i].member;
    }
    size_t got = dig_reg_list(&reg, n, self, &rng, out, max);

    cr_assert(eq(sz, got, min_sz(want, max)), "%s", why);
    for (size_t i = 0; i < got; i++) {
        struct bytes a = last ? dig_member_id(last) : bytes_str(""), b = dig_member_id(out[i]);

        cr_assert(out[i]->network == n, "%s", why);
        cr_assert(dig_reg_of(&reg, &out[i]->home) == out[i], "%s", why);
        int d = memcmp(a.p, b.p, min_sz(a.n, b.n));
        cr_assert(last == NULL || d < 0 || (d == 0 && a.n < b.n), "%s", why);
        has_self |= out[i] == self;
        last = out[i];
    }
    cr_assert(self == NULL || has_self, "%s", why);
}

static void check_all(void)
{
    const struct dig_member *out[SEATS];
    const struct dig_network *nets[NETS + 1];
    uint32_t live = 0, networks = 0, id;

    for (uint32_t i = 0; i < SLOTS; i++) {
        struct dig_home home = home_of(i);

        cr_assert(dig_reg_of(&reg, &home) == (entry[i].live ? entry[i].member : NULL), "%s", why);
        live += entry[i].live;
        home.gen++; /* neither a later connection there, nor another shard's */
        cr_assert(dig_reg_of(&reg, &home) == NULL, "%s", why);
        home.gen--;
        home.shard ^= 4;
        cr_assert(dig_reg_of(&reg, &home) == NULL, "%s", why);
    }
    cr_assert(eq(u32, dig_reg_count(&reg), live), "%s", why);
    for (id = 0; id < IDS; id++) {
        struct model_entry *e = holder(id);
        cr_assert(dig_reg_find(&reg, bytes_str(id_text(id))) == (e ? e->member : NULL), "%s", why);
    }
    for (uint32_t net = 0; net < NETS; net++) {
        check_network(net);
        networks += count_if(true, false, net, 0) > 0;
    }
    cr_assert(
        eq(sz, dig_reg_networks_page(&reg, (struct bytes){ NULL, 0 }, nets, NETS + 1), networks),
        "%s", why);
    for (uint32_t i = 1; i < networks; i++)
        cr_assert(lt(int, strcmp((const char *)nets[i - 1]->name, (const char *)nets[i]->name), 0));
    cr_assert(eq(sz, dig_reg_page(&reg, (struct bytes){ NULL, 0 }, out, SEATS), live), "%s", why);
    for (uint32_t s = 0; s < SOURCES; s++) {
        struct dig_source source = { { (uint8_t)s } };
        cr_assert(eq(u32, dig_reg_source_count(&reg, &source), count_if(false, true, 0, s)), "%s",
                  why);
    }
}

Test(dig_reg_model, agrees_with_a_table_that_is_searched, .timeout = 60)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        dice = (struct seeded){ seed };
        snprintf(why, sizeof(why), "seed %d", (int)seed);
        memset(entry, 0, sizeof(entry));
        reg_start(SEATS);
        reg.source_max = seed % 3 ? 20 : 0;
        for (uint32_t op = 0; op < OPS; op++) {
            uint64_t joins = op / 250 % 2 ? 3 : 8; /* waves */

            if (seeded_below(&dice, 10) < joins)
                model_add();
            else
                model_remove();
            if (op % 25 == 0)
                check_all();
        }
        check_all();
        for (uint32_t i = 0; i < SLOTS; i++) {
            struct dig_home home = home_of(i);
            (void)dig_reg_remove(&reg, &home);
            entry[i].live = false;
        }
        check_all();
        cr_assert(eq(u32, reg.pool.used, 0), "%s", why);
        reg_stop();
    }
}
