/* tools/load_turn_flow.c: what the generator counts as arrived, and what it takes offence at. */
#include "tools/load_turn.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

/* What its neighbours in the program have. */
struct lt_opts lt_opt;
struct lt_alloc *lt_allocs;
uint64_t lt_received_ns;

struct netaddr lt_sa_addr(const union lt_sa *s)
{
    struct netaddr a = { .ip = { [10] = 0xff, [11] = 0xff }, .port = ntohs(s->v4.sin_port) };

    memcpy(a.ip + 12, &s->v4.sin_addr, 4);
    return a;
}

enum { SIZE = 100, ALLOCS = 4 };

static struct lt_alloc allocs[ALLOCS];
static union lt_sa relayed[ALLOCS];

static void set_up(void)
{
    lt_opt = (struct lt_opts){ .allocations = ALLOCS, .size = SIZE, .seed = 1 };
    lt_allocs = allocs;
    lt_flow_init();
    for (uint32_t i = 0; i < ALLOCS; i++) {
        relayed[i].v4 = (struct sockaddr_in){ .sin_family = AF_INET,
                                              .sin_port = htons((uint16_t)(5000 + i)),
                                              .sin_addr.s_addr = htonl(0x7f000001) };
        allocs[i] = (struct lt_alloc){ .id = i,
                                       .channel = (uint16_t)(0x4000 + i),
                                       .relayed = lt_sa_addr(&relayed[i]) };
    }
}

TestSuite(load_turn_flow, .init = set_up);

/* The payloads of a train, as a receiver finds them; then they count as sent. */
static void make(uint32_t id, bool down, unsigned n, uint8_t out[][SIZE])
{
    static struct lt_train t;

    lt_train_make(&t, &allocs[id], down, n);
    allocs[id].flow[down].next += n;
    for (unsigned i = 0; i < n; i++) {
        memcpy(out[i], t.dg[i].head + t.dg[i].head_n - LT_STAMP, LT_STAMP);
        memcpy(out[i] + LT_STAMP, t.dg[i].body.p, t.dg[i].body.n);
    }
}

static void arrive(uint32_t from, const uint8_t payload[SIZE])
{
    lt_payload_in(NULL, &relayed[from], bytes_of(payload, SIZE));
}

/* received, mismatches, doubles, reordered */
static void expect(uint64_t received, uint64_t mismatches, uint64_t doubles, uint64_t reordered)
{
    cr_expect(eq(u64, lt_totals.received, received));
    cr_expect(eq(u64, lt_totals.mismatches, mismatches));
    cr_expect(eq(u64, lt_totals.doubles, doubles));
    cr_expect(eq(u64, lt_totals.reordered, reordered));
}

Test(load_turn_flow, counts_what_arrives_in_order)
{
    uint8_t p[64][SIZE];

    make(1, false, 64, p);
    for (int i = 0; i < 64; i++)
        arrive(1, p[i]);
    expect(64, 0, 0, 0);
    cr_expect(eq(u64, lt_totals.relayed, 64));
    cr_expect(eq(u64, lt_totals.bytes, 64 * SIZE));
}

Test(load_turn_flow, knows_a_double_among_the_last_64_and_tells_it_from_a_late_one)
{
    uint8_t p[64][SIZE];

    make(0, false, 64, p);
    arrive(0, p[0]);
    for (int i = 2; i < 64; i++)
        arrive(0, p[i]);
    arrive(0, p[1]);
    expect(64, 0, 0, 1);
    arrive(0, p[0]);
    arrive(0, p[1]);
    arrive(0, p[63]);
    expect(64, 0, 3, 1);
}

Test(load_turn_flow, counts_what_is_later_than_that_as_reordered)
{
    uint8_t p[64][SIZE], q[64][SIZE];

    make(0, false, 64, p);
    make(0, false, 64, q);
    arrive(0, p[0]);
    arrive(0, q[63]);
    arrive(0, p[10]);
    expect(3, 0, 0, 1);
}

Test(load_turn_flow, refuses_what_was_never_sent)
{
    uint8_t p[2][SIZE];

    make(0, false, 2, p);
    allocs[0].flow[0].next = 1;
    arrive(0, p[1]);
    expect(0, 0, 1, 0);
}

Test(load_turn_flow, refuses_every_changed_byte_but_the_time)
{
    uint8_t p[1][SIZE];

    make(2, false, 1, p);
    for (int i = 0; i < SIZE; i++) {
        p[0][i] ^= 1;
        if (i < 12 || i >= LT_STAMP)
            arrive(2, p[0]);
        p[0][i] ^= 1;
    }
    /* Another number may be one that was never sent, which counts elsewhere. */
    cr_expect(eq(u64, lt_totals.received, 0));
    cr_expect(eq(u64, lt_totals.mismatches + lt_totals.doubles, SIZE - 8));
}

Test(load_turn_flow, refuses_another_length)
{
    uint8_t p[1][SIZE];

    make(0, false, 1, p);
    lt_payload_in(NULL, &relayed[0], bytes_of(p[0], SIZE - 1));
    lt_payload_in(NULL, &relayed[0], bytes_of(p[0], 3));
    lt_payload_in(NULL, &relayed[0], bytes_of(p[0], 0));
    expect(0, 3, 0, 0);
}

Test(load_turn_flow, refuses_what_comes_from_another_relayed_address)
{
    uint8_t p[1][SIZE];

    make(0, false, 1, p);
    arrive(1, p[0]);
    expect(0, 1, 0, 0);
    arrive(0, p[0]);
    expect(1, 1, 0, 0);
}

Test(load_turn_flow, refuses_what_comes_to_the_wrong_end_or_client)
{
    uint8_t up[1][SIZE], down[1][SIZE];

    make(0, false, 1, up);
    make(0, true, 1, down);
    lt_payload_in(&allocs[0], NULL, bytes_of(up[0], SIZE));
    lt_payload_in(&allocs[1], NULL, bytes_of(down[0], SIZE));
    arrive(0, down[0]);
    expect(0, 3, 0, 0);
    lt_payload_in(&allocs[0], NULL, bytes_of(down[0], SIZE));
    arrive(0, up[0]);
    expect(2, 3, 0, 0);
}

Test(load_turn_flow, echoes_end_where_they_began)
{
    uint8_t p[1][SIZE];

    lt_opt.echo = true;
    make(3, false, 1, p);
    arrive(3, p[0]);
    expect(0, 0, 0, 0); /* half way */
    cr_expect(eq(u64, lt_totals.relayed, 1));
    lt_payload_in(&allocs[2], NULL, bytes_of(p[0], SIZE));
    expect(0, 1, 0, 0);
    lt_payload_in(&allocs[3], NULL, bytes_of(p[0], SIZE));
    expect(1, 1, 0, 0);
    cr_expect(eq(u64, lt_totals.relayed, 2));
}

Test(load_turn_flow, pairs_are_each_others_peers)
{
    uint8_t p[1][SIZE];

    lt_opt.c2c = true;
    make(2, false, 1, p);
    arrive(2, p[0]);
    lt_payload_in(&allocs[2], NULL, bytes_of(p[0], SIZE));
    lt_payload_in(&allocs[1], NULL, bytes_of(p[0], SIZE));
    expect(0, 3, 0, 0);
    lt_payload_in(&allocs[3], NULL, bytes_of(p[0], SIZE));
    expect(1, 3, 0, 0);
    cr_expect(eq(u64, lt_totals.relayed, 2));
}
