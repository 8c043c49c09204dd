/* The index of what ends, damaged: no record goes before its time, and no end holds up the others.
 */
#include "proto/cur.h"
#include "tests/unit/store_raw.h"

TestSuite(store_end, .timeout = 60);

static void end_key(uint8_t key[17], uint64_t when, uint64_t seq)
{
    put_u64(key, when);
    key[8] = 0;
    put_u64(key + 9, seq);
}

static void raw_del_end(uint64_t when, uint64_t seq)
{
    uint8_t key[17];
    MDB_val k = { sizeof(key), key };

    end_key(key, when, seq);
    cr_assert(eq(int, mdb_del(raw_txn, raw_tree("end"), &k, NULL), 0));
}

static void expire(uint64_t now)
{
    bool left = true;

    sd_begin();
    cr_assert(eq(int, store_expire(sd, now, 100, &left), STORE_OK));
    cr_assert(not(left));
    sd_commit();
}

Test(store_end, an_end_that_is_none_stops_no_other_and_deletes_nothing)
{
    static uint8_t key[100];
    struct store_ban b = { 1, bytes_str("x"), NOW + 5 };
    uint64_t one, two;

    sd_open();
    one = sd_put(1, "n", "one");
    two = sd_put(2, "n", "two");
    sd_begin();
    cr_assert(eq(int, store_ban_put(sd, &b), STORE_OK));
    sd_commit();
    store_close(sd);
    raw_open();
    raw_put("end", key, 3, "", 0); /* too short, even for a time */
    end_key(key, NOW, one);
    raw_put("end", key, 16, "", 0);
    raw_put("end", key, 18, "", 0); /* too long */
    key[8] = 7;                     /* of no kind */
    raw_put("end", key, 17, "", 0);
    key[8] = 1;
    raw_put("end", key, 9, "", 0);   /* of no ban */
    raw_put("end", key, 100, "", 0); /* of one that is too long */
    memcpy(key + 9, "\1x", 2);
    raw_put("end", key, 11, "", 0); /* the ban's, at another time */
    raw_del_end(NOW + TTL, one);    /* moved by a flipped bit; that one's record lives */
    end_key(key, NOW - 64, one);
    raw_put("end", key, 17, "", 0);
    end_key(key, NOW - 32, two); /* one too many */
    raw_put("end", key, 17, "", 0);
    raw_close();
    sd_open();
    expire(NOW);
    cr_assert(eq(u64, store_reg_count_ns(sd, bytes_str("n")), 2), "deleted before its end");
    cr_assert(eq(u64, sd_findings(), 0));
    cr_assert(eq(u64, store_deadline_unix_s(sd), NOW + 5));
    expire(NOW + TTL);
    cr_assert(eq(u64, store_reg_count_ns(sd, bytes_str("n")), 0));
    cr_assert(eq(u64, store_deadline_unix_s(sd), STORE_FOREVER));
    sd_close();
}

Test(store_end, an_end_out_of_order_stops_no_other)
{
    for (int high = 0; high < 2; high++) {
        uint8_t key[17], *all, *at;
        size_t n;

        sd_open();
        for (unsigned i = 0; i < 5; i++) {
            struct store_reg r = sd_reg(i, "n", "e");

            r.expires_unix_s = NOW + TTL + i;
            sd_begin();
            cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
            sd_commit();
        }
        store_close(sd);
        all = slurp(sd_path(STORE_FILE), &n);
        end_key(key, NOW + TTL + (high ? 0 : 1), high ? 1 : 2);
        for (at = all; (at = memmem(at, n - (size_t)(at - all), key, 17)); at++)
            at[high ? 0 : 6] ^= 0x40; /* the first ends last, or the second before it */
        spill(sd_path(STORE_FILE), all, n);
        free(all);
        sd_open();
        cr_assert(lt(u64, 0, sd_findings()));
        expire(NOW);
        cr_assert(eq(u64, store_reg_count_ns(sd, bytes_str("n")), 5));
        expire(NOW + TTL + 5);
        cr_assert(eq(u64, store_reg_count_ns(sd, bytes_str("n")), 0), "%d", high);
        cr_assert(eq(u64, store_deadline_unix_s(sd), STORE_FOREVER));
        clean();
        sd_dir[0] = '\0';
    }
}

Test(store_end, a_registration_without_its_end_is_renewed_and_ends)
{
    struct store_reg r = sd_reg(1, "n", "one");
    uint64_t seq, again;

    sd_open();
    seq = sd_put(1, "n", "one");
    store_close(sd);
    raw_open();
    raw_del_end(NOW + TTL, seq);
    raw_close();
    sd_open();
    r.expires_unix_s += 100;
    sd_begin();
    cr_assert(eq(int, store_reg_put(sd, &r, &again), STORE_OK));
    sd_commit();
    cr_assert(eq(u64, again, seq));
    expire(NOW + TTL + 100);
    cr_assert(eq(u64, store_reg_count_ns(sd, bytes_str("n")), 0));
    sd_close();
}
