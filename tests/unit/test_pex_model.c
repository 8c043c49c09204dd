/* The PEX machine beside a model that keeps, for each link, the book of everything that it was told
 * and compares it with the registry whenever something is said. */
#include "tests/unit/pex_world.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

enum { SEATS = 420, IDS = 600, NETS = 3, ODD = 5 };

struct node {
    struct dig_member *m; /* NULL: not registered */
    uint32_t id, net, own_s, remote_s;
    uint64_t sent_ms;
    bool linked;
    uint64_t book[IDS];  /* serial of the registration that was told; 0: none */
    uint32_t twice[IDS]; /* told again before the departure in between was read */
};
static struct node node[SEATS];
static struct dig_member *holder[IDS]; /* who has the id now */
static struct seeded dice;
static char why[48];
static uint64_t changed_ms[NETS];
/* How often each path was taken, over all seeds. */
static uint32_t full, lagging, repeats;
static const char *const nets[NETS] = { "DIG_MAINNET", "DIG_TESTNET", "" };

static uint32_t rnd(uint64_t n)
{
    return (uint32_t)seeded_below(&dice, n);
}

/* The last few are not hexadecimal: never told. */
static struct bytes id_bytes(uint32_t id, char text[65])
{
    struct bytes b = hex_id(text, id);

    if (id >= IDS - ODD)
        text[id % 64] = id % 2 ? 'G' : 'A';
    return b;
}

static uint32_t id_of(const void *text)
{
    uint32_t id = 0;

    for (size_t i = 48; i < 64; i++) {
        uint8_t c = ((const uint8_t *)text)[i];
        id = id << 4 | (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return id;
}

static bool advertised(uint32_t id, const struct node *to)
{
    return holder[id] && id < IDS - ODD && holder[id]->network == to->m->network &&
           holder[id] != to->m;
}

static void check_order(void)
{
    for (uint32_t i = 1; i < out.peers; i++) {
        const struct pex_peer *a = &out.peer[i - 1], *b = &out.peer[i];
        cr_assert(le(u64, b->last_seen_unix_s, a->last_seen_unix_s), "%s", why);
        if (a->last_seen_unix_s == b->last_seen_unix_s)
            cr_assert(lt(int, memcmp(a->member->id, b->member->id, 64), 0), "%s", why);
    }
    for (uint32_t i = 1; i < out.dropped_n; i++)
        cr_assert(lt(int, memcmp(out.dropped[i - 1], out.dropped[i], 64), 0), "%s", why);
}

/* Everybody who is told is there, of the network, not the receiver, not told before; and nobody who
 * is left out registered after one who is told. */
static void hear_peers(struct node *n, uint32_t max, bool newest)
{
    uint64_t oldest_told = UINT64_MAX;

    cr_assert(le(u32, out.peers, max), "%s", why);
    for (uint32_t i = 0; i < out.peers; i++) {
        const struct dig_member *m = out.peer[i].member;
        uint32_t id = id_of(m->id);

        cr_assert(lt(u32, id, IDS - ODD), "%s", why);
        cr_assert(holder[id] == m, "%s", why);
        cr_assert(advertised(id, n), "%s", why);
        cr_assert(eq(u64, out.peer[i].last_seen_unix_s, seen_at[m->index]), "%s", why);
        cr_assert(ne(u64, n->book[id], m->serial), "%s", why);
        n->twice[id] += n->book[id] != 0;
        n->book[id] = m->serial;
        oldest_told = min_u64(oldest_told, m->serial);
    }
    for (uint32_t id = 0; id < IDS && newest; id++) {
        if (advertised(id, n) && n->book[id] != holder[id]->serial) {
            cr_assert(eq(u32, out.peers, max), "%s: room, and not told", why);
            cr_assert(lt(u64, holder[id]->serial, oldest_told), "%s", why);
        }
    }
}

static void hear_dropped(struct node *n)
{
    cr_assert(le(u32, out.dropped_n, DIG_PEX_DELTA_MAX), "%s", why);
    for (uint32_t i = 0; i < out.dropped_n; i++) {
        uint32_t id = id_of(out.dropped[i]);
        bool again = false;

        for (uint32_t k = 0; k < out.peers; k++)
            again |= id_of(out.peer[k].member->id) == id;
        cr_assert(not(again), "%s: in both", why);
        if (!n->book[id]) { /* left, came, was told and left again while departures piled up */
            cr_assert(lt(u32, 0, n->twice[id]), "%s", why);
            n->twice[id]--;
            repeats++;
        }
        if (advertised(id, n))
            cr_assert(ne(u64, n->book[id], holder[id]->serial), "%s", why);
        n->book[id] = 0;
    }
}

static void hear_delta(void)
{
    struct node *n = &node[out.to->home.slot];
    const struct pex_link *k = &pex.link[out.to->index];
    uint64_t e_ms = (uint64_t)(n->own_s > n->remote_s ? n->own_s : n->remote_s) * 1000;

    cr_assert(eq(u32, out.n, 1), "%s", why);
    cr_assert(eq(int, out.ev[0].type, PEX_SEND_DELTA), "%s", why);
    cr_assert(n->linked && n->m == out.to, "%s", why);
    cr_assert(le(u64, n->sent_ms + e_ms, now_ms), "%s", why);
    cr_assert(lt(u32, 0, out.peers + out.dropped_n), "%s", why);
    bool behind = k->read != pex.net[out.to->network->index].newest;

    check_order();
    full += out.peers == DIG_PEX_DELTA_MAX;
    lagging += k->passes_n > 0;
    hear_peers(n, DIG_PEX_DELTA_MAX, !behind);
    hear_dropped(n);
    n->sent_ms = now_ms;
    if (!behind)
        memset(n->twice, 0, sizeof(n->twice));
}

static bool owes(struct node *n)
{
    for (uint32_t id = 0; id < IDS; id++) {
        if (n->book[id] != (advertised(id, n) ? holder[id]->serial : 0))
            return true;
    }
    return false;
}

/* Runs what is due; then nobody who is due has been silent with something to say. */
static void run(bool check)
{
    for (uint32_t calls = 0; pex_deadline_ms(&pex) <= now_ms; calls++) {
        cr_assert(lt(u32, calls, 10000), "%s: does not come to rest", why);
        pex_tick(&pex, now_ms, &out);
        if (out.n)
            hear_delta();
    }
    pex_tick(&pex, now_ms, &out);
    cr_assert(eq(u32, out.n, 0), "%s", why);
    for (uint32_t i = 0; i < SEATS && check; i++) {
        struct node *n = &node[i];
        uint64_t e_ms = (uint64_t)(n->own_s > n->remote_s ? n->own_s : n->remote_s) * 1100;

        if (n->m && n->linked && now_ms >= n->sent_ms + e_ms &&
            now_ms >= changed_ms[n->net] + PEX_CHECK_MS)
            cr_assert(not(owes(n)), "%s: silent", why);
    }
}

static void do_join(void)
{
    uint32_t slot = rnd(SEATS), id = rnd(IDS);
    struct node *n = &node[slot];
    char text[65];

    if (n->m || holder[id])
        return;
    *n = (struct node){ .id = id, .net = rnd(10) < 7 ? 0 : 1 + rnd(NETS - 1) };
    n->m = join(id_bytes(id, text), nets[n->net], slot);
    cr_assert(n->m != NULL, "%s", why);
    holder[id] = n->m;
    changed_ms[n->net] = now_ms;
}

static void do_leave(void)
{
    struct node *n = &node[rnd(SEATS)];

    if (!n->m)
        return;
    leave(n->m);
    holder[n->id] = NULL;
    changed_ms[n->net] = now_ms;
    n->m = NULL;
}

static void do_handshake(void)
{
    struct node *n = &node[rnd(SEATS)];

    if (!n->m || n->linked)
        return;
    n->linked = true;
    n->own_s = 60;
    n->remote_s = 30 + rnd(3) * rnd(100);
    n->sent_ms = now_ms;
    handshake(n->m, n->remote_s == 30 ? rnd(31) : n->remote_s);
    cr_assert(eq(u32, out.n, 2), "%s", why);
    cr_assert(eq(int, out.ev[0].type, PEX_SEND_HANDSHAKE), "%s", why);
    cr_assert(eq(int, out.ev[1].type, PEX_SEND_SNAPSHOT), "%s", why);
    cr_assert(out.to == n->m, "%s", why);
    cr_assert(eq(u32, out.dropped_n, 0), "%s", why);
    check_order();
    hear_peers(n, DIG_PEX_SNAPSHOT_MAX, true);
}

static void do_touch(void)
{
    const struct node *n = &node[rnd(SEATS)];

    if (n->m)
        seen_at[n->m->index] = 1795150343 + now_ms / 1000;
}

static void clear_out(void)
{
    for (uint32_t i = 0; i < SEATS; i++) {
        if (node[i].m) {
            leave(node[i].m);
            holder[node[i].id] = NULL;
            node[i].m = NULL;
        }
    }
    cr_assert(eq(u32, pex.links, 0), "%s", why);
    cr_assert(eq(u32, pex.heap_n, 0), "%s", why);
    cr_assert(eq(u32, pex.pool.used, 0), "%s", why);
    cr_assert(pex_ring_empty(&pex.ready), "%s", why);
    for (uint32_t i = 0; i < SEATS; i++) {
        const struct pex_net *net = &pex.net[i];

        cr_assert(net->links == 0 && net->oldest == 0 && net->newest == 0, "%s", why);
        cr_assert(pex_ring_empty(&net->waiting), "%s", why);
        cr_assert(eq(int, pex.link[i].state, PEX_CLOSED), "%s", why);
    }
    cr_assert(eq(u32, dig_reg_count(&reg), 0), "%s", why);
    cr_assert(eq(u32, dig_reg_networks_count(&reg), 0), "%s", why);
    now_ms += PEX_CHECK_MS;
    run(false);
    cr_assert(eq(u64, pex_deadline_ms(&pex), UINT64_MAX), "%s", why);
}

/* Calm seeds, where all fits into frames; stormy ones, where hundreds come and go between two
 * deltas; and some in between. */
static void one_seed(uint64_t seed)
{
    uint32_t storm = seed % 4 == 0 ? 60 : seed % 4 == 1 ? 5 : 1;

    for (uint32_t op = 0; op < 1200; op++) {
        bool up = op / 150 % 2 == 0;

        for (uint32_t i = 0; i < storm; i++) {
            if (rnd(10) < (up ? 7 : 3))
                do_join();
            else
                do_leave();
        }
        if (rnd(8) == 0)
            do_handshake();
        do_touch();
        now_ms += rnd(4) ? rnd(3000) : rnd(30000);
        run(op % 16 == 0);
    }
    /* Nobody comes or goes any more: every book becomes the network. */
    for (uint32_t i = 0; i < 40; i++) {
        now_ms += 60000;
        run(false);
    }
    for (uint32_t i = 0; i < SEATS; i++) {
        if (node[i].m && node[i].linked)
            cr_assert(not(owes(&node[i])), "%s: node %u", why, i);
    }
    cr_assert(eq(u64, pex.forgotten, 0), "%s", why);
}

Test(pex_model, books_become_what_the_network_is, .timeout = 100)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        dice = (struct seeded){ seed };
        snprintf(why, sizeof(why), "seed %d", (int)seed);
        memset(node, 0, sizeof(node));
        memset(holder, 0, sizeof(holder));
        pex_start(SEATS, &dice);
        one_seed(seed);
        clear_out();
        pex_stop();
    }
    cr_assert(lt(u32, 1000, full)); /* the seeds still reach what is rare */
    cr_assert(lt(u32, 1000, lagging));
    cr_assert(lt(u32, 50, repeats));
}
