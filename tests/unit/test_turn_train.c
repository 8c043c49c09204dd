/* tests/unit/test_turn_train.c: engine/turn_train.c with a kernel of our own: what is sent is what
 * was added, in order per destination, and equal lengths travel together. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>

#include "engine/stats.h"
#include "engine/turn_train.h"
#include "tests/unit/seeded.h"

enum { SENT_MAX = 8192, BYTES_MAX = 4 << 20, LONGEST = 65507 };

static struct {
    struct netaddr to;
    bool local;
    size_t at, n, segment;
} sent[SENT_MAX]; /* by call */
static size_t sent_n;
static uint8_t wire[BYTES_MAX];
static size_t wire_n;
static int df_now, df_calls;
static int refuse; /* what sends with a segment answer; 0: all is well */
static size_t refuse_above;
static size_t segments_max; /* of a train: more is refused */
static uint16_t refuse_to;  /* port of the only destination that is refused; 0: of any */
static int stale;           /* so many sends are told of an old ICMP error */
static int stale_error;     /* as what */
static size_t refused;      /* calls */

int ring_udp_dont_fragment(int fd, bool v6, bool on)
{
    (void)fd;
    (void)v6;
    df_now = on;
    df_calls++;
    return 0;
}

int ring_udp_send(int fd, const struct ring_udp_out *o)
{
    size_t n = 0;

    (void)fd;
    if (stale) {
        stale--;
        return stale_error;
    }
    if (o->segment && refuse && o->segment > refuse_above &&
        (!refuse_to || o->to->port == refuse_to)) {
        refused++;
        return refuse;
    }
    for (size_t i = 0; o->segment && i < o->iov_n; i++)
        n += o->iov[i].iov_len;
    if (o->segment && (n + o->segment - 1) / o->segment > segments_max) {
        refused++;
        return -EINVAL;
    }
    n = 0;
    cr_assert(lt(sz, sent_n, SENT_MAX));
    sent[sent_n].to = *o->to;
    sent[sent_n].local = o->local;
    sent[sent_n].segment = o->segment;
    sent[sent_n].at = wire_n;
    for (size_t i = 0; i < o->iov_n; i++) {
        memcpy(wire + wire_n + n, o->iov[i].iov_base, o->iov[i].iov_len);
        n += o->iov[i].iov_len;
    }
    cr_assert(le(sz, n, LONGEST));
    if (o->segment)
        cr_assert(le(sz, (n + o->segment - 1) / o->segment, TRAIN_SEGMENTS_MAX));
    sent[sent_n++].n = n;
    wire_n += n;
    return (int)n;
}

static struct turn_trains trains;
static struct stats stats;
static struct turn_egress one = { .fd = 5 }, other = { .fd = 6 };

static void begin(void)
{
    sent_n = wire_n = 0;
    refuse = stale = df_calls = 0;
    refuse_above = refused = refuse_to = 0;
    segments_max = TRAIN_SEGMENTS_MAX;
    stale_error = -ECONNREFUSED;
    memset(&stats, 0, sizeof(stats));
    one = (struct turn_egress){ .fd = 5 };
    other = (struct turn_egress){ .fd = 6 };
    cr_assert(eq(int, trains_init(&trains, &stats), 0));
}

static void end(void)
{
    trains_fini(&trains);
}

TestSuite(turn_train, .init = begin, .fini = end, .timeout = 60);

static struct netaddr host(unsigned i)
{
    struct netaddr a = { .ip = { [10] = 0xff, [11] = 0xff, [12] = 192, [15] = (uint8_t)i },
                         .port = (uint16_t)(1000 + i) };

    return a;
}

static uint8_t payload[4096];

static void add(struct turn_egress *e, unsigned to, const char *head, size_t n)
{
    struct netaddr a = host(to);
    struct turn_piece p = { .head = bytes_str(head), .data = bytes_of(payload, n) };

    trains_add(&trains, e, &a, NULL, &p);
}

Test(turn_train, equal_lengths_to_one_destination_are_one_send)
{
    for (int i = 0; i < 10; i++)
        add(&one, 1, "head", 1000);
    add(&one, 1, "head", 500);
    trains_flush(&trains);
    cr_expect(eq(sz, sent_n, 1));
    cr_expect(eq(sz, sent[0].segment, 1004));
    cr_expect(eq(sz, sent[0].n, 10 * 1004 + 504));
    cr_expect(eq(u64, stats.turn_train_16, 1));
}

Test(turn_train, a_shorter_one_ends_it_and_a_longer_one_begins_another)
{
    add(&one, 1, "", 100);
    add(&one, 1, "", 50);
    add(&one, 1, "", 50);
    add(&one, 1, "", 70);
    trains_flush(&trains);
    cr_expect(eq(sz, sent_n, 3));
    cr_expect(eq(sz, sent[0].n, 150));
    cr_expect(eq(sz, sent[1].n, 50));
    cr_expect(eq(sz, sent[2].n, 70));
}

Test(turn_train, sockets_destinations_and_addresses_do_not_mix)
{
    struct netaddr a = host(1);
    struct turn_piece p = { .data = bytes_of(payload, 100) };
    const uint8_t from[2][16] = { { 1 }, { 2 } };

    add(&one, 1, "", 100);
    add(&other, 1, "", 100);
    add(&one, 2, "", 100);
    trains_add(&trains, &one, &a, from[0], &p);
    trains_add(&trains, &one, &a, from[1], &p);
    p.df = true;
    trains_add(&trains, &one, &a, from[1], &p);
    trains_flush(&trains);
    cr_expect(eq(sz, sent_n, 6));
    cr_expect(eq(int, df_now, 1));
    cr_expect(sent[3].local && !sent[0].local);
}

Test(turn_train, the_dont_fragment_bit_goes_back)
{
    struct netaddr a = host(1);
    struct turn_piece p = { .data = bytes_of(payload, 100), .df = true };

    trains_add(&trains, &one, &a, NULL, &p);
    trains_flush(&trains);
    cr_expect(eq(int, df_now, 1));
    add(&one, 1, "", 10);
    trains_flush(&trains);
    cr_expect(eq(int, df_now, 0));
    cr_expect(eq(int, df_calls, 2));
}

Test(turn_train, an_empty_datagram_is_one)
{
    add(&one, 1, "", 0);
    add(&one, 1, "", 0);
    trains_flush(&trains);
    cr_expect(eq(sz, sent_n, 2));
    cr_expect(eq(sz, sent[0].n, 0));
    cr_expect(eq(sz, sent[0].segment, 0));
}

static void add_some(struct turn_egress *e, unsigned to, size_t n)
{
    for (int i = 0; i < 4; i++)
        add(e, to, "", n);
    trains_flush(&trains);
}

Test(turn_train, a_host_that_cannot_segment_is_soon_not_asked_again)
{
    refuse = -EIO;
    for (unsigned i = 0; i < 2 * TRAIN_PLAIN_AFTER; i++)
        add_some(&one, i, 300);
    cr_expect(eq(sz, sent_n, 4 * 2 * TRAIN_PLAIN_AFTER));
    cr_expect(eq(sz, refused, TRAIN_PLAIN_AFTER));
    for (size_t i = 0; i < sent_n; i++)
        cr_expect(eq(sz, sent[i].segment, 0));
    cr_expect(eq(u64, stats.turn_gso_refused, TRAIN_PLAIN_AFTER));
}

Test(turn_train, one_way_out_that_cannot_segment_is_no_other_ones)
{
    add_some(&one, 1, 300);
    refuse = -EIO;
    refuse_to = host(2).port;
    for (unsigned i = 0; i < 3 * TRAIN_PLAIN_AFTER; i++)
        add_some(&one, 2, 300);
    cr_expect(eq(sz, refused, 1), "it is remembered");
    sent_n = 0;
    add_some(&one, 1, 300);
    cr_expect(eq(sz, sent_n, 1));
    cr_expect(eq(sz, sent[0].segment, 300));
}

Test(turn_train, a_path_too_narrow_takes_shorter_trains)
{
    refuse = -EMSGSIZE;
    refuse_above = 500;
    add_some(&one, 1, 600);
    cr_expect(eq(sz, sent_n, 4));
    for (int i = 0; i < 4; i++)
        add(&one, 1, "", 600);
    for (int i = 0; i < 4; i++)
        add(&one, 1, "", 400);
    trains_flush(&trains);
    cr_expect(eq(sz, sent_n, 9));
    cr_expect(eq(sz, sent[8].segment, 400));
    cr_expect(eq(sz, refused, 2), "once, and once more in case an old error was told");
}

static void add_many(unsigned to, unsigned n, size_t bytes)
{
    for (unsigned i = 0; i < n; i++)
        add(&one, to, "", bytes);
    trains_flush(&trains);
}

Test(turn_train, a_kernel_before_6_9_is_asked_once_for_long_trains)
{
    segments_max = TRAIN_SEGMENTS_OLD;
    add_many(1, 100, 300);
    cr_expect(eq(sz, sent_n, 100));
    sent_n = 0;
    add_many(1, 256, 300);
    add_many(2, 65, 300);
    cr_expect(eq(sz, sent_n, 6));
    cr_expect(eq(sz, sent[0].n, 64 * 300), "it is no path that is narrow");
    cr_expect(eq(sz, refused, 1));
}

Test(turn_train, a_kernel_that_has_taken_a_long_train_is_not_doubted_for_a_narrow_path)
{
    add_many(1, 100, 300);
    cr_expect(eq(u64, stats.turn_train_128, 1));
    refuse = -EINVAL;
    refuse_to = host(2).port;
    add_many(2, 100, 300);
    refuse = 0;
    sent_n = 0;
    add_many(2, 100, 300);
    cr_expect(eq(sz, sent_n, 100), "the path is remembered");
    sent_n = 0;
    add_many(1, 128, 300);
    cr_expect(eq(sz, sent_n, 1));
}

/* Else whoever has a narrow path, or says so by ICMP, ends the trains of all who share the door. */
Test(turn_train, a_narrow_path_is_nobody_elses)
{
    refuse = -EINVAL;
    refuse_to = host(1).port;
    add_some(&one, 1, 600);
    sent_n = 0;
    for (unsigned i = 2; i < 200; i++)
        add_some(&one, i, 600);
    cr_expect(eq(sz, sent_n, 198));
}

Test(turn_train, a_path_is_asked_again_in_time)
{
    refuse = -EMSGSIZE;
    add_some(&one, 1, 600);
    refuse = 0;
    for (int i = 0; i < 2 * TRAIN_NARROW_USES; i++) {
        sent_n = wire_n = 0;
        add_some(&one, 1, 600);
        if (sent_n == 1)
            return;
    }
    cr_fatal("it never was");
}

Test(turn_train, an_old_icmp_error_costs_no_datagram)
{
    static const int all[] = { -ECONNREFUSED, -EHOSTUNREACH, -ENETUNREACH, -EPROTO, -EMSGSIZE,
                               -EOPNOTSUPP,   -EHOSTDOWN,    -ENONET,      -EACCES, -ENOPROTOOPT };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        sent_n = 0;
        stale_error = all[i];
        stale = 1;
        add(&one, 1, "", 100);
        trains_flush(&trains);
        cr_expect(eq(sz, sent_n, 1));
        stale = 1;
        add_some(&one, 1, 100);
        cr_expect(eq(sz, sent_n, 2), "and no train is cut up for it: %d", all[i]);
        cr_expect(eq(u64, stats.turn_drop_send, 0));
    }
}

/* ---- against a model ---------------------------------------------------------------------------
 */

enum { FLOWS = 6, MODEL_MAX = 20000 };
struct expected {
    unsigned flow;
    uint32_t seq;
    size_t n;
};
static struct expected model[MODEL_MAX];
static uint8_t store[64][2048]; /* borrowed data lives until the flush */

static void put(uint8_t *to, uint32_t flow, uint32_t seq, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (uint8_t)(flow * 37 + seq * 11 + i);
}

/* Cuts what was sent into datagrams and compares each flow's with what was added. */
static void compare(size_t model_n)
{
    size_t next[FLOWS] = { 0 }, seen = 0;

    for (size_t i = 0; i < sent_n; i++) {
        unsigned flow = sent[i].to.port - 1000u;
        size_t step = sent[i].segment ? sent[i].segment : sent[i].n;

        for (size_t at = 0; at < sent[i].n || at == 0; at += step) {
            uint8_t want[4096];
            size_t n = min_sz(step, sent[i].n - at), k = next[flow];

            while (k < model_n && model[k].flow != flow)
                k++;
            cr_assert(lt(sz, k, model_n));
            next[flow] = k + 1;
            cr_assert(eq(sz, n, model[k].n), "flow %u datagram %u", flow, model[k].seq);
            put(want, flow, model[k].seq, n);
            cr_assert(memcmp(wire + sent[i].at + at, want, n) == 0);
            seen++;
            if (!step)
                break;
        }
    }
    cr_expect(eq(sz, seen, model_n));
}

static void one_seed(uint64_t seed)
{
    struct seeded r = { seed };
    size_t n = 0;
    uint32_t seq[FLOWS] = { 0 };

    sent_n = wire_n = 0;
    refuse = seeded_below(&r, 4) == 0 ? -EMSGSIZE : 0;
    refuse_above = 200;
    for (int turn = 0; turn < 40; turn++) {
        size_t lengths[3] = { seeded_below(&r, 1200), seeded_below(&r, 100), 0 };
        unsigned adds = (unsigned)seeded_below(&r, 64);

        for (unsigned i = 0; i < adds; i++, n++) {
            unsigned flow = (unsigned)seeded_below(&r, FLOWS);
            size_t bytes = lengths[seeded_below(&r, 8) ? 0 : seeded_below(&r, 3)];
            size_t head = min_sz(bytes, seeded_below(&r, 2) * 4);
            struct netaddr to = host(flow);
            uint8_t whole[2048];
            bool copy = seeded_below(&r, 3) == 0;

            put(whole, flow, seq[flow], bytes);
            memcpy(store[i], whole + head, bytes - head);
            struct turn_piece p = { .head = bytes_of(whole, head),
                                    .data = bytes_of(store[i], bytes - head),
                                    .copy = copy };

            trains_add(&trains, &one, &to, NULL, &p);
            if (copy) /* it is not ours to keep */
                memset(store[i], 0xee, bytes - head);
            model[n] = (struct expected){ flow, seq[flow]++, bytes };
        }
        trains_flush(&trains);
    }
    compare(n);
}

Test(turn_train, whatever_is_added_leaves_once_and_in_order)
{
    for (uint64_t seed = 1; seed <= 200; seed++)
        one_seed(seed);
}

Test(turn_train, more_than_fits_leaves_early)
{
    for (unsigned i = 0; i < 3 * TRAIN_PIECES_MAX / 2; i++)
        add(&one, i % 200, "", i % 7 * 10);
    trains_flush(&trains);
    cr_expect(eq(sz, sent_n > 0 && wire_n > 0, 1));
    cr_expect(eq(uint, trains.pieces_n, 0));
}

/* ---- runs -------------------------------------------------------------------------------------
 */

static uint8_t field[1 << 20];
static size_t first_sent_n, first_wire_n;
static uint8_t first_wire[BYTES_MAX];
static struct {
    size_t at, n, segment;
    uint16_t port;
} first[SENT_MAX];

/* The same of a seed each time, as runs or one by one. */
static void add_runs(uint64_t seed, bool runs)
{
    static const size_t lengths[] = { 0, 1, 50, 120, 120, 120, 256, 257, 1200, 1200, 40000, 65500 };
    struct seeded r = { seed };

    sent_n = wire_n = 0;
    for (int i = 0; i < 24; i++) {
        static const uint8_t heads[] = "aaaabbbbcccc";
        size_t n = lengths[seeded_below(&r, ARRAY_LEN(lengths))], head = seeded_below(&r, 2) * 4;
        size_t stride = n + seeded_below(&r, 2) * 4;
        unsigned count = n > 1200 ? 2 : 1 + (unsigned)seeded_below(&r, 200);
        struct netaddr to = host((unsigned)seeded_below(&r, 2));
        struct turn_piece p = {
            .head = bytes_of(heads + 4 * seeded_below(&r, 3), n > 1200 ? 0 : head),
            .data = bytes_of(field + seeded_below(&r, 1000), n),
            .pad = n > 1200 ? 0 : (uint8_t)seeded_below(&r, 4),
        };

        if (runs)
            trains_add_run(&trains, &one, &to, NULL, &p, stride, count);
        for (unsigned k = 0; !runs && k < count; k++, p.data.p += stride)
            trains_add(&trains, &one, &to, NULL, &p);
    }
    trains_flush(&trains);
}

Test(turn_train, a_run_leaves_as_its_datagrams_would_one_by_one)
{
    for (size_t i = 0; i < sizeof(field); i++)
        field[i] = (uint8_t)(i * 31 + (i >> 8) * 7);
    for (uint64_t seed = 1; seed <= 60; seed++) {
        segments_max = trains.segments_max = seed % 2 ? TRAIN_SEGMENTS_MAX : TRAIN_SEGMENTS_OLD;
        add_runs(seed, false);
        first_sent_n = sent_n;
        first_wire_n = wire_n;
        memcpy(first_wire, wire, wire_n);
        for (size_t i = 0; i < sent_n; i++) {
            first[i].at = sent[i].at;
            first[i].n = sent[i].n;
            first[i].segment = sent[i].segment;
            first[i].port = sent[i].to.port;
        }
        add_runs(seed, true);
        cr_assert(eq(sz, wire_n, first_wire_n), "seed %u", (unsigned)seed);
        cr_assert(memcmp(wire, first_wire, wire_n) == 0, "seed %u", (unsigned)seed);
        cr_assert(eq(sz, sent_n, first_sent_n), "seed %u", (unsigned)seed);
        for (size_t i = 0; i < sent_n; i++) {
            cr_assert(eq(sz, sent[i].at, first[i].at));
            cr_assert(eq(sz, sent[i].n, first[i].n));
            cr_assert(eq(sz, sent[i].segment, first[i].segment));
            cr_assert(eq(uint, sent[i].to.port, first[i].port));
        }
    }
}

Test(turn_train, a_refused_run_goes_singly)
{
    struct netaddr to = host(1);
    struct turn_piece p = { .head = bytes_str("head"), .data = bytes_of(field, 300) };

    for (size_t i = 0; i < sizeof(field); i++)
        field[i] = (uint8_t)(i * 31 + (i >> 8) * 7);
    refuse = -EIO;
    trains_add_run(&trains, &one, &to, NULL, &p, 304, 20);
    trains_flush(&trains);
    cr_assert(eq(sz, sent_n, 20));
    for (size_t i = 0; i < 20; i++) {
        cr_assert(eq(sz, sent[i].n, 304));
        cr_assert(memcmp(wire + sent[i].at, "head", 4) == 0);
        cr_assert(memcmp(wire + sent[i].at + 4, field + i * 304, 300) == 0);
    }
}
