/* Pages of the relay port as control makes them: a short one at once, a long one in pieces, while
 * whoever asked waits and everybody else does not (dig.md §15.2). */
#include "engine/dig_control.h"

#include <stdlib.h>

#include "config_load.h"
#include "engine/quota.h"
#include "engine/shard.h"

enum { MANY = 20000, ASKERS = 8 };

static struct dig_host h;
static struct daemon d;
static struct control ctl;
static struct dig_control *dc;
static struct dig_shard ds;
static struct dig_conn asker[ASKERS];
static struct mnode blocker;

static void begin(void)
{
    static const uint8_t key[16] = "pages test";
    char why[512];
    int err;

    cr_assert_eq(LOAD("--listen-dig=127.0.0.1:0"), 0, "%s", said);
    cr_assert_eq(dig_host_init(&h, &c, quota_new(1000, 64, key), 1, why, sizeof(why)), 0);
    d.cfg = &c;
    d.dig = &h;
    d.shards_n = 1;
    ds.s = d.shard[0] = calloc(1, sizeof(struct shard));
    ctl.d = &d;
    ctl.now_ms = 1000000;
    ctl.now_unix_s = 1795150405;
    dc = dig_control_new(&ctl, &h, &err);
    cr_assert(dc != NULL);
    mbox_push(&ds.s->mbox, &blocker); /* no doorbell: there is no ring */
    for (int i = 0; i < ASKERS; i++)
        asker[i].ds = &ds;
}

static void end(void)
{
    struct quota *q = h.quota;

    dig_control_free(dc);
    cr_expect_eq(atomic_load(&h.shared.used), 0, "%zu bytes are left", atomic_load(&h.shared.used));
    dig_host_fini(&h, 1);
    quota_free(q);
    free(d.shard[0]);
    config_free(&c);
}

/* By number; ids ascend with it, and are 64 digits long. */
static void come(uint32_t i)
{
    struct dig_member *m;
    char id[65];

    snprintf(id, sizeof(id), "%08x%056x", i, i);
    const struct dig_claim claim = {
        .id = bytes_of(id, 64),
        .network = bytes_str(i % 3 ? "DIG_MAINNET" : "other"),
        .protocol_version = 1,
        .connected_at_unix_s = 1795150343,
        .home = { .slot = i, .gen = 1 },
    };

    cr_assert_eq(dig_reg_add(&dc->reg, &claim, &m), DIG_REG_ADDED);
}

static void go(uint32_t i)
{
    const struct dig_home home = { .slot = i, .gen = 1 };

    cr_assert(dig_reg_remove(&dc->reg, &home));
}

static void ask(int who, enum dig_page page, bool full)
{
    struct dig_ask *a = &asker[who].ask;

    a->kind = DIG_ASK_PAGE;
    a->u.page.page = (uint8_t)page;
    a->u.page.full = full;
    dig_control_on_mail(dc, &a->node);
}

/* Whose answers have come, a bit each; they have a reply, or not. */
static unsigned answered(void)
{
    unsigned bits = 0;

    for (struct mnode *n = mbox_take(&ds.s->mbox), *next; n; n = next) {
        next = n->next;
        if (n != &blocker)
            bits |= 1u << (CONTAINER_OF(n, struct dig_conn, ask.node) - asker);
    }
    mbox_push(&ds.s->mbox, &blocker);
    return bits;
}

static void forget(int who)
{
    shared_drop(asker[who].ask.reply);
    asker[who].ask.reply = NULL;
}

static bool has(int who, const char *text)
{
    const struct shared *sh = asker[who].ask.reply;

    return memmem(sh->data, sh->n, text, strlen(text)) != NULL;
}

/* Its numbers in order; `seen` has one per number. Returns how many it lists. */
static uint32_t listed(int who, uint8_t *seen, size_t cap)
{
    const struct shared *sh = asker[who].ask.reply;
    const char *at = (const char *)sh->data, *body;
    uint32_t n = 0;
    long last = -1;

    cr_assert(sh->n == sh->cap && sh->data[sh->n - 1] == '}');
    body = memmem(at, sh->n, "\r\n\r\n", 4);
    cr_assert(body != NULL);
    const char *length = memmem(at, sh->n, "content-length: ", 16);

    char told[16] = { 0 }; /* the page has no terminator */

    memcpy(told, length + 16, 12);
    told[strspn(told, "0123456789")] = '\0';
    cr_assert_eq((size_t)atol(told), (size_t)(at + sh->n - body - 4));
    memset(seen, 0, cap);
    for (const char *end = at + sh->n;
         (at = memmem(at, (size_t)(end - at), "\"peer_id\":\"", 11));) {
        char digits[9] = { 0 };

        memcpy(digits, at += 11, 8);
        long i = strtol(digits, NULL, 16);

        cr_assert(i > last && (size_t)i < cap, "%ld behind %ld", i, last);
        last = i;
        seen[i]++;
        n++;
    }
    return n;
}

static int ticks_until(unsigned who)
{
    int ticks = 0;

    for (unsigned got = 0; (got |= answered()) != who; ticks++) {
        cr_assert(ticks < 10000);
        cr_assert_eq(got & ~who, 0u);
        cr_assert_eq(dig_pages_due_ms(dc), 0u, "it goes on at once");
        dig_pages_tick(dc);
    }
    return ticks;
}

static uint8_t seen[2 * MANY];

Test(dig_pages, a_short_one_is_made_at_once, .timeout = 20)
{
    begin();
    for (uint32_t i = 0; i < 300; i++)
        come(i);
    ask(0, DIG_PAGE_STATS, false);
    ask(1, DIG_PAGE_STATS, true);
    ask(2, DIG_PAGE_DHT, false);
    ask(3, DIG_PAGE_MAP, false);
    cr_expect_eq(answered(), 15u);
    cr_expect_eq(listed(0, seen, sizeof(seen)), 300u);
    cr_expect_eq(listed(1, seen, sizeof(seen)), 300u);
    cr_expect_eq(dig_pages_due_ms(dc), UINT64_MAX, "nothing is left to do");
    cr_expect(has(0,
                  "\"networks\":[{\"network_id\":\"DIG_MAINNET\",\"peers\":200},"
                  "{\"network_id\":\"other\",\"peers\":100}],\"peers\":[{\"peer_id\":\"000000000000"
                  "\xe2\x80\xa6\","));
    for (int i = 0; i < 4; i++)
        forget(i);
    end();
}

Test(dig_pages, a_long_one_is_made_in_pieces, .timeout = 60)
{
    begin();
    for (uint32_t i = 0; i < MANY; i++)
        come(i);
    ask(0, DIG_PAGE_STATS, false);
    cr_expect_eq(answered(), 0u);
    cr_expect_eq(atomic_load(&h.shared.used), 0u, "of the pool it takes what it needs, at its end");
    int ticks = ticks_until(1);

    cr_expect(ticks >= 30, "%d ticks", ticks);
    cr_expect_eq(listed(0, seen, sizeof(seen)), (uint32_t)MANY);
    ask(1, DIG_PAGE_STATS, false); /* the same, within a second */
    cr_expect_eq(answered(), 2u);
    cr_expect(asker[1].ask.reply == asker[0].ask.reply);
    ctl.now_ms += DIG_PAGE_MS;
    ask(2, DIG_PAGE_STATS, false); /* another, later */
    cr_expect_eq(answered(), 0u);
    (void)ticks_until(4);
    cr_expect(asker[2].ask.reply != asker[0].ask.reply);
    for (int i = 0; i < 3; i++)
        forget(i);
    end();
}

Test(dig_pages, all_who_wait_get_theirs, .timeout = 60)
{
    begin();
    for (uint32_t i = 0; i < MANY; i++)
        come(i);
    for (int first = 0; first < 2; first++) { /* of short and whole ids */
        ask(0, DIG_PAGE_STATS, first);
        ask(1, DIG_PAGE_STATS, !first);
        dig_pages_tick(dc);
        ask(2, DIG_PAGE_STATS, first);
        ask(3, DIG_PAGE_STATS, !first);
        ask(4, DIG_PAGE_MAP, false); /* which need not wait for them */
        cr_expect_eq(answered(), 16u);
        (void)ticks_until(15);
        cr_expect(asker[0].ask.reply == asker[2].ask.reply);
        cr_expect(asker[1].ask.reply == asker[3].ask.reply);
        cr_expect(asker[first ? 0 : 1].ask.reply->n > asker[first ? 1 : 0].ask.reply->n,
                  "ids are cut");
        cr_expect_eq(dig_pages_due_ms(dc), UINT64_MAX);
        for (int i = 0; i < 5; i++)
            forget(i);
        ctl.now_ms += DIG_PAGE_MS;
    }
    end();
}

Test(dig_pages, who_stays_is_listed_once_while_others_come_and_go, .timeout = 60)
{
    begin();
    for (uint32_t i = 0; i < MANY; i += 2)
        come(i);
    ask(0, DIG_PAGE_STATS, false);
    for (uint32_t k = 1; !(answered() & 1); k += 2) {
        uint32_t i = k * 7919 % MANY | 1; /* odd ones come, and the one before goes */

        if (k < MANY / 2)
            come(i);
        if (k > 1 && k < MANY / 2)
            go((k - 2) * 7919 % MANY | 1);
        dig_pages_tick(dc);
    }
    uint32_t n = listed(0, seen, sizeof(seen));

    cr_expect(n >= MANY / 2 && n < MANY, "%u", n);
    for (uint32_t i = 0; i < MANY; i += 2)
        cr_assert_eq(seen[i], 1, "%u", i);
    forget(0);
    end();
}

/* Who always comes behind the one that was listed last makes no page without end. */
Test(dig_pages, a_list_ends, .timeout = 60)
{
    begin();
    dc->nets_max = 3000;
    for (uint32_t i = 0; i < 2000; i++)
        come(i);
    ask(0, DIG_PAGE_STATS, false);
    for (uint32_t i = 2000; !(answered() & 1); i += 500) {
        cr_assert(i < MANY);
        for (uint32_t k = 0; k < 500; k++) {
            go(i - 2000 + k);
            come(i + k);
        }
        dig_pages_tick(dc);
    }
    cr_expect_eq(listed(0, seen, sizeof(seen)), 3000u);
    forget(0);
    dc->nets_max = h.cfg->dig_conns_max;
    end();
}

Test(dig_pages, the_longest_names_fit, .timeout = 60)
{
    begin();
    for (uint32_t i = 0; i < 1000; i++) {
        struct dig_member *m;
        char id[DIG_NAME_MAX], net[DIG_NAME_MAX];

        memset(id, '"', sizeof(id));
        memset(net, '\\', sizeof(net));
        memcpy(
            id,
            (char[]){ (char)('a' + i / 26 / 26), (char)('a' + i / 26 % 26), (char)('a' + i % 26) },
            3);
        memcpy(net, id, 3);
        const struct dig_claim claim = { .id = bytes_of(id, sizeof(id)),
                                         .network = bytes_of(net, sizeof(net)),
                                         .protocol_version = UINT32_MAX,
                                         .home = { .slot = i, .gen = 1 } };

        cr_assert_eq(dig_reg_add(&dc->reg, &claim, &m), DIG_REG_ADDED);
    }
    ask(0, DIG_PAGE_STATS, true);
    (void)ticks_until(1);
    cr_assert(asker[0].ask.reply != NULL);
    forget(0);
    end();
}

Test(dig_pages, without_memory_the_answer_is_none, .timeout = 60)
{
    begin();
    for (uint32_t i = 0; i < MANY; i++)
        come(i);
    h.shared.max = 1 << 20;
    ask(0, DIG_PAGE_STATS, false);
    (void)ticks_until(1);
    cr_expect(asker[0].ask.reply == NULL);
    h.shared.max = 64 << 20;
    ask(0, DIG_PAGE_STATS, false); /* it is tried again */
    (void)ticks_until(1);
    cr_expect(asker[0].ask.reply != NULL);
    forget(0);
    ctl.now_ms += DIG_PAGE_MS;
    ask(0, DIG_PAGE_STATS, false); /* and one that is under way at the end is no leak */
    dig_pages_tick(dc);
    end();
}
