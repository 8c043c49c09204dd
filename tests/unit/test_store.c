/* Rendezvous in the store: keys, order, limits, what a cookie may see, expiry, restart. */
#include "tests/unit/store_dir.h"

#include <errno.h>

TestSuite(store_reg, .init = sd_open, .fini = sd_close, .timeout = 60);

Test(store_reg, gives_back_what_it_was_given_verbatim)
{
    uint8_t envelope[300], ns[] = { 'a', 0, 0xff, 'z' };
    struct sd_got g = { 0 };
    struct store_reg r = sd_reg(1, "", "");
    struct store_discover q = { .ns = bytes_of(ns, 4), .limit = 9, .now_unix_s = NOW };
    struct store_discovered d;

    sd_rng(envelope, sizeof(envelope));
    r.ns = bytes_of(ns, 4);
    r.envelope = bytes_of(envelope, sizeof(envelope));
    r.record_seq = UINT64_MAX - 1;
    r.tag = 0xdeadbeef;
    sd_begin();
    cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
    sd_commit();
    cr_assert(eq(int, store_discover(sd, &q, sd_take, &g, &d), 0));
    cr_assert(eq(u32, d.taken, 1));
    cr_assert(eq(u64, g.last.record_seq, UINT64_MAX - 1));
    cr_assert(eq(u32, g.last.tag, 0xdeadbeef));
    cr_assert(eq(u32, g.last.ttl_s, TTL));
    cr_assert(eq(u64, g.last.expires_unix_s, NOW + TTL));
    cr_assert(peer_id_eq(&g.last.peer, &r.peer));
    cr_assert(not(d.more));
}

static enum store_take same_bytes(void *ctx, const struct store_reg *r)
{
    cr_assert(bytes_eq(r->envelope, *(struct bytes *)ctx));
    return STORE_TAKE;
}

Test(store_reg, envelopes_of_every_size_come_back)
{
    static uint8_t envelope[STORE_ENVELOPE_MAX + 1];
    static const size_t sizes[] = {
        1, 100, 1900, 2100, 4000, 4096, 8192, 60000, STORE_ENVELOPE_MAX
    };
    struct store_reg r = sd_reg(1, "n", "");

    sd_rng(envelope, sizeof(envelope));
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct store_discover q = { .ns = r.ns, .limit = 9, .now_unix_s = NOW };
        struct store_discovered d;

        r.envelope = bytes_of(envelope, sizes[i]);
        sd_begin();
        cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
        sd_commit();
        cr_assert(eq(int, store_discover(sd, &q, same_bytes, &r.envelope, &d), 0));
        cr_assert(eq(u32, d.taken, 1));
    }
    sd_begin();
    r.envelope.n++;
    cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_BAD));
    r.envelope.n = 0;
    cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_BAD));
    sd_commit();
}

Test(store_reg, bounds_of_names_and_peers)
{
    static char long_ns[STORE_NS_MAX + 2];
    struct store_reg r = sd_reg(1, "", "e");

    memset(long_ns, 'x', STORE_NS_MAX + 1);
    sd_begin();
    r.ns = bytes_of(long_ns, STORE_NS_MAX);
    cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
    r.ns.n++;
    cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_BAD));
    cr_assert(eq(int, store_reg_del(sd, &r.peer, r.ns), STORE_BAD));
    r.ns.n = 0; /* dusk.md §5: empty is a namespace */
    cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
    r.peer.n = 0;
    cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_BAD));
    sd_commit();
    cr_assert(eq(u64, store_reg_count_ns(sd, r.ns), 1));
}

Test(store_reg, another_envelope_takes_the_next_seq_and_the_same_one_keeps_it)
{
    struct sd_got g = { 0 };
    uint64_t a = sd_put(1, "n", "one"), b = sd_put(2, "n", "two"), c, d;
    struct store_discovered seen = sd_discover("n", 0, 100, NOW, &g);
    struct store_reg r = sd_reg(1, "n", "one");

    cr_assert(eq(u32, seen.taken, 2));
    cr_assert(lt(u64, a, b));
    c = sd_put(1, "n", "one");
    cr_assert(eq(u64, c, a));
    seen = sd_discover("n", seen.last, 100, NOW, &g);
    cr_assert(eq(u32, seen.taken, 0), "a cookie repeated a registration");
    /* later, so that it ends later */
    r.expires_unix_s += 100;
    r.ttl_s += 100;
    r.tag = 7;
    sd_begin();
    cr_assert(eq(int, store_reg_put(sd, &r, &c), STORE_OK));
    sd_commit();
    cr_assert(eq(u64, c, a));
    sd_discover("n", 0, 1, NOW + TTL + 50, &g);
    cr_assert(eq(u32, g.last.ttl_s, TTL + 100));
    cr_assert(eq(u32, g.last.tag, 7));
    d = sd_put(1, "n", "three");
    cr_assert(lt(u64, b, d));
    seen = sd_discover("n", b, 100, NOW, &g);
    cr_assert(eq(u32, seen.taken, 1));
    cr_assert(eq(str, g.text[0], "three"));
    cr_assert(eq(u64, store_reg_count_ns(sd, bytes_str("n")), 2));
}

Test(store_reg, one_that_is_over_comes_back_as_a_new_one)
{
    struct sd_got g = { 0 };
    uint64_t a = sd_put(1, "n", "one");
    struct store_reg r = sd_reg(1, "n", "one");
    uint64_t b;

    /* Whoever had it by a cookie has dropped it with its ttl. */
    r.expires_unix_s += TTL;
    sd_begin();
    cr_assert(eq(int, store_reg_put(sd, &r, &b), STORE_OK));
    sd_commit();
    cr_assert(lt(u64, a, b));
    cr_assert(eq(u32, sd_discover("n", a, 9, NOW + TTL, &g).taken, 1));
}

Test(store_reg, comes_in_order_of_seq_by_namespace_or_all)
{
    static const char *const ns[] = { "b", "a", "c" };
    struct sd_got g = { 0 };
    struct store_discovered d;

    for (unsigned i = 0; i < 30; i++)
        sd_put(i, ns[i % 3], i % 2 ? "odd" : "even");
    d = sd_discover("a", 0, 100, NOW, &g);
    cr_assert(eq(u32, d.taken, 10));
    for (unsigned i = 1; i < g.n; i++)
        cr_assert(lt(u64, g.seq[i - 1], g.seq[i]));
    d = sd_discover(NULL, 0, 100, NOW, &g);
    cr_assert(eq(u32, d.taken, 30));
    for (unsigned i = 1; i < g.n; i++)
        cr_assert(lt(u64, g.seq[i - 1], g.seq[i]));
    cr_assert(eq(u32, sd_discover("", 0, 100, NOW, &g).taken, 0));
    cr_assert(eq(u32, sd_discover("nobody's", 0, 100, NOW, &g).taken, 0));
    cr_assert(eq(u32, sd_discover(NULL, UINT64_MAX, 100, NOW, &g).taken, 0));
}

Test(store_reg, pages_by_limit_and_by_what_fits_without_loss_or_repetition)
{
    struct sd_got g = { 0 };
    uint64_t after = 0, last = 0;
    unsigned sum = 0;
    struct store_discovered d;

    for (unsigned i = 0; i < 23; i++)
        sd_put(i, "n", "e");
    do {
        d = sd_discover("n", after, 5, NOW, &g);
        cr_assert(le(u32, d.taken, 5));
        for (unsigned i = 0; i < g.n; i++) {
            cr_assert(lt(u64, last, g.seq[i]));
            last = g.seq[i];
        }
        sum += d.taken;
        after = d.last;
    } while (d.more);
    cr_assert(eq(u32, sum, 23));
    g.stop_at = 4; /* the fifth did not fit */
    d = sd_discover("n", 0, 100, NOW, &g);
    cr_assert(eq(u32, d.taken, 4));
    cr_assert(d.more);
    cr_assert(eq(u64, d.last, g.seq[3]));
    g.stop_at = 0;
    cr_assert(eq(u32, sd_discover("n", d.last, 100, NOW, &g).taken, 19));
    d = sd_discover("n", 0, 0, NOW, &g);
    cr_assert(eq(u32, d.taken, 0));
    cr_assert(eq(u64, d.last, 0));
}

static enum store_take skip(void *ctx, const struct store_reg *r)
{
    (void)ctx;
    return r->tag ? STORE_SKIP : STORE_TAKE;
}

Test(store_reg, what_is_skipped_is_passed_over_and_not_counted)
{
    struct store_discover q = { .ns = bytes_str("n"), .limit = 2, .now_unix_s = NOW };
    struct store_discovered d;

    sd_begin();
    for (unsigned i = 0; i < 6; i++) {
        struct store_reg r = sd_reg(i, "n", "e");

        r.tag = i % 2;
        cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
    }
    sd_commit();
    cr_assert(eq(int, store_discover(sd, &q, skip, NULL, &d), 0));
    cr_assert(eq(u32, d.taken, 2));
    cr_assert(d.more);
    q.after = d.last;
    q.limit = 9;
    cr_assert(eq(int, store_discover(sd, &q, skip, NULL, &d), 0));
    cr_assert(eq(u32, d.taken, 1));
    cr_assert(eq(u64, d.last, 6));
}

Test(store_reg, one_discover_looks_at_a_bounded_number_of_records)
{
    struct sd_got g = { 0 };
    struct store_discovered d;

    sd_begin();
    for (unsigned i = 0; i < STORE_WALK_MAX + 10; i++) {
        struct store_reg r = sd_reg(i, "n", "e");

        if (i < STORE_WALK_MAX + 5)
            r.expires_unix_s = NOW - 1;
        cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
    }
    sd_commit();
    d = sd_discover("n", 0, 100, NOW, &g);
    cr_assert(eq(u32, d.taken, 0));
    cr_assert(d.more);
    cr_assert(eq(u64, d.last, STORE_WALK_MAX));
    d = sd_discover("n", d.last, 100, NOW, &g);
    cr_assert(eq(u32, d.taken, 5));
    cr_assert(not(d.more));
}

Test(store_reg, unregisters_one_and_no_other)
{
    struct peer_id p = sd_peer(1), q = sd_peer(2);
    struct sd_got g = { 0 };

    sd_put(1, "n", "e");
    sd_put(1, "m", "e");
    sd_put(2, "n", "e");
    sd_begin();
    cr_assert(eq(int, store_reg_del(sd, &p, bytes_str("n")), STORE_OK));
    cr_assert(eq(int, store_reg_del(sd, &p, bytes_str("n")), STORE_ABSENT));
    cr_assert(eq(int, store_reg_del(sd, &q, bytes_str("m")), STORE_ABSENT));
    sd_commit();
    cr_assert(eq(u32, sd_discover(NULL, 0, 9, NOW, &g).taken, 2));
    cr_assert(eq(u64, store_reg_count_peer(sd, &p), 1));
    cr_assert(eq(u64, store_reg_count_peer(sd, &q), 1));
    cr_assert(eq(u64, store_reg_count_ns(sd, bytes_str("n")), 1));
}

Test(store_reg, reads_see_the_last_commit_only)
{
    struct store_reg r = sd_reg(1, "n", "e");
    struct sd_got g = { 0 };

    sd_begin();
    cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
    cr_assert(eq(u32, sd_discover("n", 0, 9, NOW, &g).taken, 0));
    cr_assert(eq(u64, store_reg_count_ns(sd, bytes_str("n")), 0));
    sd_commit();
    cr_assert(eq(u32, sd_discover("n", 0, 9, NOW, &g).taken, 1));
}

Test(store_reg, an_abort_leaves_nothing_but_the_seq_that_it_used)
{
    struct store_reg r = sd_reg(1, "n", "e");
    struct store_stats st;
    uint64_t a, b;

    sd_begin();
    cr_assert(eq(int, store_reg_put(sd, &r, &a), STORE_OK));
    store_abort(sd);
    cr_assert(not(store_in_txn(sd)));
    cr_assert(eq(u64, store_reg_count_ns(sd, bytes_str("n")), 0));
    cr_assert(eq(int, store_stats(sd, &st), 0));
    cr_assert(eq(u64, st.namespaces, 0));
    b = sd_put(2, "n", "e");
    cr_assert(lt(u64, a, b), "a seq was given twice");
}

Test(store_reg, survives_a_restart_and_goes_on_counting)
{
    struct sd_got g = { 0 };
    uint64_t a = sd_put(1, "n", "one"), b = sd_put(2, "m", "two");
    struct peer_id p = sd_peer(2);

    sd_begin();
    cr_assert(eq(int, store_reg_del(sd, &p, bytes_str("m")), STORE_OK));
    sd_commit();
    sd_reopen();
    cr_assert(eq(u32, sd_discover(NULL, 0, 9, NOW, &g).taken, 1));
    cr_assert(eq(u64, g.seq[0], a));
    cr_assert(lt(u64, b, sd_put(2, "m", "two")), "a deleted one's seq came back");
    cr_assert(eq(u64, sd_put(1, "n", "one"), a));
}

Test(store_reg, the_next_seq_is_that_of_the_last_commit)
{
    struct store_reg r = sd_reg(3, "n", "e");
    uint64_t a, b;

    cr_assert(eq(u64, store_next_seq(sd), 1));
    a = sd_put(1, "n", "one");
    cr_assert(eq(u64, store_next_seq(sd), a + 1));
    sd_put(1, "n", "one"); /* the same one: nothing was given */
    cr_assert(eq(u64, store_next_seq(sd), a + 1));
    sd_begin();
    cr_assert(eq(int, store_reg_put(sd, &r, &b), STORE_OK));
    cr_assert(eq(u64, store_next_seq(sd), a + 1), "told of a seq that is not durable");
    store_abort(sd);
    cr_assert(eq(u64, store_next_seq(sd), a + 1));
    b = sd_put(2, "n", "two");
    cr_assert(eq(u64, store_next_seq(sd), b + 1));
    sd_reopen();
    cr_assert(eq(u64, store_next_seq(sd), b + 1));
}

Test(store_reg, expires_in_order_in_bounded_steps_and_says_when)
{
    struct sd_got g = { 0 };
    bool left;

    cr_assert(eq(u64, store_deadline_unix_s(sd), STORE_FOREVER));
    sd_begin();
    for (unsigned i = 0; i < 10; i++) {
        struct store_reg r = sd_reg(i, "n", "e");

        r.expires_unix_s = NOW + 100 - i;
        cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
    }
    sd_commit();
    cr_assert(eq(u64, store_deadline_unix_s(sd), NOW + 91));
    /* Over is over, swept or not. */
    cr_assert(eq(u32, sd_discover("n", 0, 99, NOW + 95, &g).taken, 5));
    cr_assert(eq(u32, sd_discover("n", 0, 99, NOW + 100, &g).taken, 0));
    sd_begin();
    cr_assert(eq(int, store_expire(sd, NOW + 90, 100, &left), STORE_OK));
    cr_assert(not(left));
    cr_assert(eq(int, store_expire(sd, NOW + 95, 3, &left), STORE_OK));
    cr_assert(left);
    sd_commit();
    cr_assert(eq(u64, store_reg_count_ns(sd, bytes_str("n")), 7));
    sd_begin();
    cr_assert(eq(int, store_expire(sd, NOW + 95, 3, &left), STORE_OK));
    cr_assert(not(left));
    sd_commit();
    cr_assert(eq(u64, store_reg_count_ns(sd, bytes_str("n")), 5));
    cr_assert(eq(u64, store_deadline_unix_s(sd), NOW + 96));
    sd_begin();
    cr_assert(eq(int, store_expire(sd, NOW + 1000, 100, &left), STORE_OK));
    sd_commit();
    cr_assert(eq(u64, store_reg_count_ns(sd, bytes_str("n")), 0));
    cr_assert(eq(u64, store_deadline_unix_s(sd), STORE_FOREVER));
}

/* ---- limits -------------------------------------------------------------------------------- */

static void limited(struct store_limits l)
{
    struct store_opts o = sd_opts();

    store_close(sd);
    o.limits = l;
    sd_open_with(&o);
}

static enum store_verdict verdict(unsigned peer, const char *ns, const char *envelope)
{
    struct store_reg r = sd_reg(peer, ns, envelope);
    enum store_verdict v;

    sd_begin();
    v = store_reg_put(sd, &r, NULL);
    sd_commit();
    return v;
}

Test(store_reg, a_peer_has_as_many_as_it_may_and_renews_them)
{
    struct peer_id p = sd_peer(1);

    limited((struct store_limits){ .regs_per_peer = 3 });
    for (unsigned i = 0; i < 3; i++) {
        char ns[2] = { (char)('a' + i), 0 };

        cr_assert(eq(int, verdict(1, ns, "e"), STORE_OK));
    }
    cr_assert(eq(int, verdict(1, "d", "e"), STORE_FULL_PEER));
    cr_assert(eq(int, verdict(1, "b", "other"), STORE_OK));
    cr_assert(eq(int, verdict(2, "d", "e"), STORE_OK));
    sd_begin();
    cr_assert(eq(int, store_reg_del(sd, &p, bytes_str("a")), STORE_OK));
    sd_commit();
    cr_assert(eq(int, verdict(1, "d", "e"), STORE_OK));
    cr_assert(eq(int, verdict(1, "a", "e"), STORE_FULL_PEER));
    cr_assert(eq(u64, store_reg_count_peer(sd, &p), 3));
}

Test(store_reg, a_namespace_has_as_many_as_it_may)
{
    limited((struct store_limits){ .regs_per_ns = 2 });
    cr_assert(eq(int, verdict(1, "n", "e"), STORE_OK));
    cr_assert(eq(int, verdict(2, "n", "e"), STORE_OK));
    cr_assert(eq(int, verdict(3, "n", "e"), STORE_FULL_NS));
    cr_assert(eq(int, verdict(2, "n", "other"), STORE_OK));
    cr_assert(eq(int, verdict(3, "m", "e"), STORE_OK));
}

Test(store_reg, the_store_has_as_many_as_it_may_until_some_end)
{
    bool left;

    limited((struct store_limits){ .regs = 2 });
    cr_assert(eq(int, verdict(1, "n", "e"), STORE_OK));
    cr_assert(eq(int, verdict(2, "m", "e"), STORE_OK));
    cr_assert(eq(int, verdict(3, "n", "e"), STORE_FULL_TOTAL));
    cr_assert(eq(int, verdict(1, "n", "other"), STORE_OK));
    sd_begin();
    cr_assert(eq(int, store_expire(sd, NOW + TTL, 1, &left), STORE_OK));
    sd_commit();
    cr_assert(eq(int, verdict(3, "n", "e"), STORE_OK));
}

Test(store_reg, an_older_record_is_refused_only_where_the_rules_say_so)
{
    struct store_reg r = sd_reg(1, "n", "new");

    for (int compared = 0; compared < 2; compared++) {
        limited((struct store_limits){ .reg_seq_compared = compared });
        sd_begin();
        r.record_seq = 10;
        r.envelope = bytes_str("new");
        cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
        r.record_seq = 9;
        r.envelope = bytes_str("old");
        cr_assert(eq(int, store_reg_put(sd, &r, NULL), compared ? STORE_OLD_SEQ : STORE_OK));
        r.record_seq = 10;
        r.envelope = bytes_str("the same age");
        cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
        r.record_seq = 1; /* once that one is over, anything goes */
        r.envelope = bytes_str("old");
        r.expires_unix_s += TTL;
        cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
        r.expires_unix_s -= TTL;
        cr_assert(eq(int, store_reg_del(sd, &r.peer, r.ns), STORE_OK));
        sd_commit();
    }
}

Test(store_reg, an_older_record_from_another_relay_is_refused_by_any_rules)
{
    struct store_reg r = sd_reg(1, "n", "ours");

    for (int compared = 0; compared < 2; compared++) {
        for (uint32_t kept_tag = 0; kept_tag < 2; kept_tag++) {
            limited((struct store_limits){ .reg_seq_compared = compared });
            sd_begin();
            r.record_seq = 10;
            r.tag = kept_tag;
            r.envelope = bytes_str("kept");
            cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
            r.record_seq = 9;
            r.tag = 7;
            r.envelope = bytes_str("older");
            cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OLD_SEQ));
            r.record_seq = 10; /* as new, and newer */
            r.envelope = bytes_str("as new");
            cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
            r.record_seq = 9; /* once that one is over, anything goes */
            r.expires_unix_s += TTL;
            cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
            r.expires_unix_s -= TTL;
            cr_assert(eq(int, store_reg_del(sd, &r.peer, r.ns), STORE_OK));
            sd_commit();
        }
    }
}
