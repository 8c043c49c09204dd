/* PEX links and their frames, rule by rule (dig.md §10.1, §10.4, §10.6; §20 checks 38 to 42). */
#include "tests/unit/pex_world.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static struct seeded dice = { 1 };
static struct dig_member *a, *b, *c;

static struct pex_frame plain(enum dig_type kind)
{
    return (struct pex_frame){ .kind = kind };
}

static struct pex_frame delta_of(uint32_t added, uint32_t dropped)
{
    return (struct pex_frame){ .kind = DIG_PEX_DELTA, .peers = added, .dropped = dropped };
}

static struct pex_frame snapshot_of(uint32_t peers)
{
    return (struct pex_frame){ .kind = DIG_PEX_SNAPSHOT, .peers = peers };
}

/* Its kind means nothing. */
static const struct pex_frame undecodable = {
    .undecodable = true, .kind = DIG_PEX_HANDSHAKE, .version = 1, .network_matches = true
};

static void start(void)
{
    pex_start(600, &dice);
    a = join_hex(1, "n", 1);
}

static void expect_error(struct dig_member *m, struct pex_frame f, enum dig_pex_code code)
{
    send_frame(m, f);
    cr_assert(eq(u32, out.n, 1), "no error %d", code);
    cr_assert(out.to == m);
    cr_assert(eq(int, out.ev[0].type, PEX_SEND_ERROR));
    cr_assert(eq(int, out.ev[0].code, code));
}

static void expect_silence(struct dig_member *m, struct pex_frame f)
{
    send_frame(m, f);
    cr_assert(eq(u32, out.n, 0));
}

Test(pex_frame, is_ignored_before_a_handshake) /* check 38 */
{
    start();
    expect_silence(a, snapshot_of(3));
    expect_silence(a, snapshot_of(201));
    expect_silence(a, delta_of(1, 1));
    expect_silence(a, plain(DIG_PEX_ERROR));
    for (int i = 0; i < 5; i++)
        expect_silence(a, undecodable);
    handshake(a, 60); /* none of it was held against the node */
    cr_expect(eq(u32, out.n, 2));
    expect_error(a, undecodable, 1);
    expect_error(a, undecodable, 1);
    expect_silence(a, snapshot_of(0));
    pex_stop();
}

Test(pex_handshake, is_answered_by_handshake_and_snapshot) /* check 39 */
{
    start();
    handshake(a, 60);
    cr_expect(eq(u32, out.n, 2));
    cr_expect(out.to == a);
    cr_expect(eq(int, out.ev[0].type, PEX_SEND_HANDSHAKE));
    cr_expect(eq(u32, out.ev[0].interval_s, 60));
    cr_expect(eq(int, out.ev[1].type, PEX_SEND_SNAPSHOT));
    cr_expect(eq(u32, out.peers, 0)); /* an empty network's is sent too */
    now_ms += 5000;
    b = join_hex(2, "n", 2);
    now_ms += 5000;
    c = join_hex(3, "n", 3);
    (void)join_hex(4, "m", 4);
    now_ms += 5000;
    struct dig_member *d = join_hex(5, "n", 5);

    handshake(d, 60);
    cr_assert(eq(u32, out.peers, 3)); /* others, of this network, the newest first */
    cr_expect(out.peer[0].member == c);
    cr_expect(out.peer[1].member == b);
    cr_expect(out.peer[2].member == a);
    cr_expect(eq(u64, out.peer[0].last_seen_unix_s, seen_at[c->index]));
    pex_stop();
}

Test(pex_handshake, orders_by_last_seen_then_by_id)
{
    pex_start(600, &dice);
    for (uint32_t i = 0; i < 150; i++) {
        struct dig_member *m = join_hex(i, "n", i);
        seen_at[m->index] = 1795150343 + i * 7 % 10;
    }
    a = join_hex(500, "n", 500);
    handshake(a, 60);
    cr_assert(eq(u32, out.peers, 150));
    for (uint32_t i = 1; i < 150; i++) {
        const struct pex_peer *p = &out.peer[i - 1], *q = &out.peer[i];
        cr_assert(p->last_seen_unix_s > q->last_seen_unix_s ||
                  (p->last_seen_unix_s == q->last_seen_unix_s &&
                   memcmp(p->member->id, q->member->id, 64) < 0));
    }
    pex_stop();
}

Test(pex_handshake, of_another_version_or_network_mutes_the_link) /* check 40 */
{
    struct pex_frame f = { .kind = DIG_PEX_HANDSHAKE, .version = 2, .interval_s = 60 };

    start();
    b = join_hex(2, "n", 2);
    expect_error(a, f, 2); /* both are wrong: the version comes first */
    f.version = 1;
    expect_error(b, f, 5);
    for (int i = 0; i < 2; i++) {
        struct dig_member *m = i ? b : a;

        handshake(m, 60);
        cr_expect(eq(u32, out.n, 0));
        expect_silence(m, snapshot_of(1));
        expect_silence(m, undecodable);
    }
    cr_expect(eq(u32, pex.links, 0));
    (void)join_hex(3, "n", 3);
    cr_expect(eq(u64, pex_deadline_ms(&pex), UINT64_MAX));
    /* All link state dies with the registration (§10.5). */
    leave(a);
    a = join_hex(1, "n", 1);
    handshake(a, 60);
    cr_expect(eq(u32, out.n, 2));
    pex_stop();
}

Test(pex_frame, out_of_turn_is_a_protocol_violation_and_the_third_mutes) /* check 41 */
{
    start();
    handshake(a, 60);
    expect_error(a, delta_of(0, 0), 6); /* before a snapshot */
    expect_silence(a, snapshot_of(0));
    expect_error(a, plain(DIG_PEX_HANDSHAKE), 6);
    expect_error(a, snapshot_of(0), 6); /* the third is answered still */
    expect_silence(a, snapshot_of(0));
    expect_silence(a, delta_of(51, 51));
    expect_silence(a, plain(DIG_PEX_HANDSHAKE));
    for (int i = 0; i < 600; i++) {
        expect_error(a, undecodable, 1);
        expect_silence(a, plain(DIG_PEX_HANDSHAKE)); /* for good */
    }
    pex_stop();
}

Test(pex_snapshot, holds_200_and_not_one_more) /* check 42 */
{
    start();
    handshake(a, 60);
    expect_error(a, snapshot_of(201), 4);
    expect_silence(a, snapshot_of(200)); /* the refused one was none */
    expect_error(a, snapshot_of(201), 6);
    pex_stop();
}

Test(pex_delta, too_early_is_a_rate_violation) /* check 42 */
{
    static const struct {
        uint32_t declared_s, from_ms;
    } rate[] = { { 0, 25000 },      { 29, 25000 },     { 30, 25000 },
                 { 31, 26000 },     { 100, 95000 },    { 3599, 3594000 },
                 { 3600, 3595000 }, { 3601, 3595000 }, { 4294967295, 3595000 } };

    for (size_t i = 0; i < ARRAY_LEN(rate); i++) {
        start();
        handshake(a, rate[i].declared_s);
        now_ms += 100000000; /* counted from the snapshot */
        expect_silence(a, snapshot_of(0));
        expect_error(a, delta_of(0, 0), 3);
        now_ms += rate[i].from_ms - 1;
        expect_error(a, delta_of(51, 0), 3); /* before its size */
        now_ms += 1;
        expect_silence(a, delta_of(0, 0)); /* refused ones do not count */
        now_ms += rate[i].from_ms;
        expect_silence(a, delta_of(0, 0));
        now_ms += rate[i].from_ms - 1;
        expect_error(a, delta_of(0, 0), 3); /* counted from the accepted one */
        pex_stop();
    }
}

Test(pex_delta, holds_50_of_each_and_no_id_in_both)
{
    struct pex_frame both = delta_of(1, 1);

    both.same_id_in_both = true;
    start();
    handshake(a, 30);
    expect_silence(a, snapshot_of(0));
    now_ms += 25000;
    expect_silence(a, delta_of(50, 50));
    now_ms += 25000;
    expect_error(a, delta_of(51, 0), 4);
    expect_error(a, delta_of(0, 51), 4);
    expect_error(a, both, 1);
    pex_stop();
    start();
    handshake(a, 30);
    expect_silence(a, snapshot_of(0));
    now_ms += 25000;
    both.peers = 51;
    expect_error(a, both, 4); /* size before content */
    pex_stop();
}

Test(pex_frame, that_is_muted_does_not_stop_our_deltas)
{
    start();
    handshake(a, 30);
    for (int i = 0; i < 3; i++)
        expect_error(a, undecodable, 1);
    b = join_hex(2, "n", 2);
    now_ms += 66000;
    pex_tick(&pex, now_ms, &out);
    cr_assert(eq(u32, out.n, 1));
    cr_expect(out.to == a);
    cr_expect(eq(u32, out.peers, 1));
    pex_stop();
}

static uint64_t due_in_ms(uint64_t since_ms)
{
    return pex_deadline_ms(&pex) - since_ms;
}

static struct pex_frame error_of(uint16_t code)
{
    return (struct pex_frame){ .kind = DIG_PEX_ERROR, .code = code };
}

Test(pex_error, of_rate_doubles_our_interval_once_in_it)
{
    uint64_t sent_ms;

    start();
    handshake(a, 30);
    sent_ms = now_ms;
    for (uint16_t code = 0; code < 8; code++) {
        if (code != 3)
            expect_silence(a, error_of(code));
    }
    cr_expect(le(u64, due_in_ms(sent_ms), 66000));
    now_ms = sent_ms + 55000; /* as late as the node may complain of nothing */
    expect_silence(a, error_of(3));
    cr_expect(le(u64, due_in_ms(sent_ms), 66000));
    now_ms = sent_ms + 54999;
    expect_silence(a, error_of(3));
    cr_expect(le(u64, 120000, due_in_ms(sent_ms)));
    cr_expect(le(u64, due_in_ms(sent_ms), 132000));
    expect_silence(a, error_of(3));
    cr_expect(le(u64, due_in_ms(sent_ms), 132000)); /* once */
    /* 60, 120, 240, ... 3600, and there it stays. */
    for (uint32_t i = 0, own_s = 120; i < 8; i++) {
        (void)join_hex(10 + i, "n", 10 + i);
        now_ms = sent_ms + own_s * 1100;
        pex_tick(&pex, now_ms, &out);
        cr_assert(eq(u32, out.n, 1));
        sent_ms = now_ms;
        now_ms += (own_s - 5) * 1000 - 1;
        expect_silence(a, error_of(3));
        own_s = (uint32_t)min_u64(2 * own_s, 3600);
        cr_assert(le(u64, own_s * 1000, due_in_ms(sent_ms)));
        cr_assert(le(u64, due_in_ms(sent_ms), own_s * 1100));
    }
    pex_stop();
}

Test(pex_error, of_one_link_leaves_the_others_on_time)
{
    static struct dig_member *m[20];

    pex_start(600, &dice);
    for (uint32_t i = 0; i < 20; i++) {
        m[i] = join_hex(10 + i, "n", 10 + i);
        handshake(m[i], 30);
    }
    for (uint32_t i = 0; i < 19; i++)
        expect_silence(m[i], error_of(3));
    cr_expect(le(u64, due_in_ms(now_ms), 66000)); /* the last one's */
    expect_silence(m[19], error_of(3));
    cr_expect(le(u64, 120000, due_in_ms(now_ms)));
    pex_stop();
}

Test(pex_error, is_no_violation)
{
    start();
    handshake(a, 30);
    for (int i = 0; i < 10; i++)
        expect_silence(a, error_of((uint16_t)i));
    expect_silence(a, snapshot_of(0));
    expect_error(a, undecodable, 1); /* the link is not muted, and strikes are at one */
    expect_error(a, snapshot_of(0), 6);
    pex_stop();
}

Test(pex_frame, is_made_from_a_decoded_message)
{
    struct dig_msg m = { .type = DIG_PEX_HANDSHAKE };
    struct pex_frame f;

    m.u.pex_handshake.version = 1;
    m.u.pex_handshake.interval = 77;
    m.u.pex_handshake.network_id = bytes_str("n");
    f = pex_frame_of(&m, bytes_str("n"));
    cr_expect(f.network_matches && f.version == 1 && f.interval_s == 77 && !f.undecodable);
    cr_expect(not(pex_frame_of(&m, bytes_str("N")).network_matches));
    m.type = DIG_PEX_SNAPSHOT;
    m.u.pex_snapshot.peers = 201;
    cr_expect(eq(u32, pex_frame_of(&m, bytes_str("n")).peers, 201));
    m = (struct dig_msg){ .type = DIG_PEX_DELTA };
    m.u.pex_delta.added = 3;
    m.u.pex_delta.dropped = SIZE_MAX;
    m.u.pex_delta.overlap = true;
    f = pex_frame_of(&m, bytes_str("n"));
    cr_expect(f.peers == 3 && f.dropped == UINT32_MAX && f.same_id_in_both);
    m = (struct dig_msg){ .type = DIG_PEX_ERROR };
    m.u.pex_error.code = 65535;
    cr_expect(eq(u32, pex_frame_of(&m, bytes_str("n")).code, 65535));
    cr_expect(pex_frame_of(NULL, bytes_str("n")).undecodable);
}
