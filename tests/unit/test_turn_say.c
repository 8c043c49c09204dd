/* The lines of TURN's allocations and their rows in listings: what is said, and that nobody's name
 * says more (engine/turn_say.h, engine/turn_list.h). */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/log_int.h"
#include "engine/shard.h"
#include "engine/turn_list.h"
#include "engine/turn_say.h"
#include "engine/turn_shard.h"

static struct config cfg;
static struct log *lg;
static struct shard shard;
static struct turn_host host;
static struct turn_shard ts;
static struct turn_alloc alloc;
static struct turn_client client;
static char said[256][1024];
static unsigned said_n;

static struct netaddr at(const char *text)
{
    struct netaddr a;

    cr_assert(netaddr_parse(bytes_str(text), &a));
    return a;
}

static void setup(void)
{
    static const uint8_t key[16] = { 7 };

    cfg = (struct config){ .log_level = LOG_INFO };
    lg = log_new(&cfg);
    shard.id = 3;
    shard.now_ms = 1000000;
    shard.log = log_attach(lg, "shard-3");
    host.quota = quota_new(64, 4096, key);
    ts = (struct turn_shard){ .s = &shard, .host = &host };
    cr_assert_eq(slab_init(&ts.clients, "clients", sizeof(struct turn_client), 4096), 0);
    alloc.tuple.client = at("192.0.2.7:4242");
    alloc.tuple.transport = TURN_TCP;
    alloc.had[TURN_V4] = alloc.had[TURN_V6] = true;
    alloc.half[TURN_V4] = (struct turn_half){ true, 0, at("198.51.100.1:50000"), 1600000 };
    alloc.half[TURN_V6] = (struct turn_half){ false, 0, at("[2001:db8::1]:50001"), 1300000 };
    client = (struct turn_client){ .alloc = &alloc,
                                   .born_ms = 995000,
                                   .datagrams = { 11, 12 },
                                   .bytes = { 13, 14 },
                                   .user = "1700000000:alice" };
}

static void teardown(void)
{
    log_free(lg);
    quota_free(host.quota);
    slab_fini(&ts.clients);
}

TestSuite(turn_say, .init = setup, .fini = teardown);
TestSuite(turn_list, .init = setup, .fini = teardown);

static void keep(void *arg, const char *line)
{
    (void)arg;
    cr_assert_lt(said_n, ARRAY_LEN(said));
    snprintf(said[said_n++], sizeof(said[0]), "%s", line);
}

/* How many lines there were since the last time; the first is said[0]. */
static unsigned lines(void)
{
    said_n = 0;
    said[0][0] = '\0';
    log_drain_to(lg, keep, NULL);
    return said_n;
}

static bool says(const char *part)
{
    return strstr(said[0], part) != NULL;
}

Test(turn_say, an_allocation_has_a_first_and_a_last_line)
{
    turn_say_opened(&ts, &client);
    cr_assert_eq(lines(), 1u);
    cr_expect(says(" level=info event=allocation_opened user=1700000000:alice "
                   "client=192.0.2.7:4242 relayed=198.51.100.1:50000,[2001:db8::1]:50001 "
                   "lifetime_s=600"),
              "%s", said[0]);
    turn_say_closed(&ts, &client, "expired");
    cr_assert_eq(lines(), 1u);
    cr_expect(says(" level=info event=allocation_closed user=1700000000:alice "
                   "client=192.0.2.7:4242 relayed=198.51.100.1:50000,[2001:db8::1]:50001 "
                   "datagrams_from_client=11 bytes_from_client=13 datagrams_to_client=12 "
                   "bytes_to_client=14 duration_ms=5000 reason=expired"),
              "%s", said[0]);
}

Test(turn_say, json_has_the_same_fields)
{
    struct event_rec e = { .kind = EV_TURN_CLOSED, .has_addr = true, .relayed_n = 2, .e = 5 };
    char out[1024];

    cfg.log_format = LOG_JSON;
    snprintf(e.text, sizeof(e.text), "a\"b");
    e.addr = at("192.0.2.7:1");
    e.relayed[0] = at("198.51.100.1:2");
    e.relayed[1] = at("[::1]:3");
    log_format(&cfg, &e, out, sizeof(out));
    cr_expect(strstr(out, "\"event\":\"allocation_closed\",\"user\":\"a\\\"b\","
                          "\"client\":\"192.0.2.7:1\","
                          "\"relayed\":[\"198.51.100.1:2\",\"[::1]:3\"],"
                          "\"datagrams_from_client\":0,"),
              "%s", out);
    cfg.log_mask_addresses = true;
    log_format(&cfg, &e, out, sizeof(out));
    cr_expect(strstr(out, "\"user\":\"a\\\"b\",\"datagrams_from_client\"") &&
                  !strstr(out, "192.0") && !strstr(out, "198.51") && !strstr(out, "::1"),
              "%s", out);
}

/* turn.md check 43 and §15.7. */
Test(turn_say, names_stay_on_their_line_and_in_their_field)
{
    static const struct {
        const char *name, *shown;
    } rows[] = {
        { "alice", "alice" },
        { "%s%n%x", "%s%n%x" },
        { "a\nts=1 level=info event=x", "a?ts=1 level=info event=x" },
        { "a\r\x1b[2Jb\x7f", "a??[2Jb?" },
        { "\xe3\x83\x9e\xe3\x83\x88", "\xe3\x83\x9e\xe3\x83\x88" },
        { "a\xc2\x9b\x33", "a?3" }, /* CSI in one character */
        { "a\xe2\x80\xae"
          "b\xe2\x81\xa6"
          "c\xef\xbb\xbf",
          "a?b?c?" }, /* U+202E, U+2066, U+FEFF */
        { "a\xe2\x80\xa8"
          "b",
          "a?b" },                                /* U+2028 is a new line to some */
        { "\xff\xc0\xaf\xed\xa0\x80", "??????" }, /* no UTF-8 */
        { "a\xe3\x83", "a??" },                   /* cut */
        { "", "" },
    };
    char out[TURN_USER_MAX];

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        turn_say_user(bytes_str(rows[i].name), out);
        cr_expect_str_eq(out, rows[i].shown, "row %zu: %s", i, out);
    }
    turn_say_user(bytes_of("a\0b", 3), out);
    cr_expect_str_eq(out, "a?b");
    for (int preset = PRESET_NONE; preset <= PRESET_TURN; preset++) {
        struct event_rec e = { .kind = EV_TURN_OPENED };
        char line[512];

        cfg.preset = (enum preset)preset;
        snprintf(e.text, sizeof(e.text), "a b\nc"); /* even if nobody had made it printable */
        log_format(&cfg, &e, line, sizeof(line));
        cr_expect_null(strchr(line, '\n'), "%s", line);
        cr_expect_not_null(strstr(line, preset == PRESET_DUSK || preset == PRESET_DESCORD
                                            ? "a b\\x0ac"
                                            : "user=\"a b\\x0ac\""),
                           "%s", line);
    }
}

Test(turn_say, a_long_name_is_cut_between_characters)
{
    char name[600], out[TURN_USER_MAX];

    for (size_t skip = 0; skip < 3; skip++) {
        memset(name, 'x', sizeof(name));
        for (size_t i = skip; i + 3 <= sizeof(name); i += 3)
            memcpy(name + i, "\xe3\x83\x9e", 3);
        turn_say_user(bytes_of(name, sizeof(name)), out);
        cr_expect_eq(strlen(out), skip + 45, "%zu", strlen(out));
        cr_expect_null(strchr(out, '?'));
    }
    memset(name, '\x01', sizeof(name));
    turn_say_user(bytes_of(name, sizeof(name)), out);
    cr_expect_eq(strlen(out), TURN_USER_MAX - 1u);
}

Test(turn_say, a_source_is_named_once_a_minute)
{
    struct netaddr a = at("192.0.2.7:1"), near = at("192.0.2.200:9"), far = at("192.0.3.7:1"),
                   six = at("[2001:db8:1:2::3]:4"), six_near = at("[2001:db8:1:ffff::]:4"),
                   six_far = at("[2001:db8:2::]:4");

    turn_say_limited(&ts, &a);
    cr_assert_eq(lines(), 1u);
    cr_expect(says(" level=warn event=replies_limited source=192.0.2.0/24"), "%s", said[0]);
    turn_say_limited(&ts, &a);
    turn_say_limited(&ts, &near);
    cr_expect_eq(lines(), 0u);
    turn_say_limited(&ts, &far);
    cr_expect_eq(lines(), 1u);
    turn_say_limited(&ts, &six);
    cr_assert_eq(lines(), 1u);
    cr_expect(says("source=2001:db8:1::/48"), "%s", said[0]);
    turn_say_limited(&ts, &six_near);
    cr_expect_eq(lines(), 0u);
    turn_say_limited(&ts, &six_far);
    cr_expect_eq(lines(), 1u);
    shard.now_ms += TURN_SAY_SOURCE_MS - 1;
    turn_say_limited(&ts, &a);
    cr_expect_eq(lines(), 0u);
    shard.now_ms += 1;
    turn_say_limited(&ts, &a);
    cr_expect_eq(lines(), 1u);
}

Test(turn_say, forged_sources_do_not_fill_the_log)
{
    struct netaddr a = at("1.0.0.1:1");
    unsigned n = 0;

    for (unsigned i = 0; i < 100000; i++) {
        a.ip[12] = (uint8_t)(i >> 16);
        a.ip[13] = (uint8_t)(i >> 8);
        a.ip[14] = (uint8_t)i;
        turn_say_limited(&ts, &a);
    }
    n = lines();
    cr_expect_eq(n, (unsigned)TURN_SAY_BURST);
    shard.now_ms += TURN_SAY_REFILL_MS * 3;
    for (unsigned i = 0; i < 1000; i++) {
        a.ip[13] = (uint8_t)(100 + (i >> 8));
        a.ip[14] = (uint8_t)i;
        turn_say_limited(&ts, &a);
    }
    cr_expect_eq(lines(), 3u, "%u", said_n);
}

Test(turn_say, masks_hide_the_source_too)
{
    struct event_rec e = { .kind = EV_TURN_LIMITED, .has_addr = true, .a = 24 };
    char out[512];

    e.addr = at("192.0.2.0:0");
    cfg.log_mask_addresses = true;
    for (int preset = PRESET_NONE; preset <= PRESET_TURN; preset++) {
        cfg.preset = (enum preset)preset;
        log_format(&cfg, &e, out, sizeof(out));
        cr_expect_null(strstr(out, "192.0.2"), "%s", out);
    }
}

/* ---- listings ------------------------------------------------------------------------------ */

static struct turn_client *listed(struct turn_alloc *a)
{
    struct turn_client *c = slab_new(&ts.clients);
    struct slab_head head = c->head;

    *c = client;
    c->head = head;
    c->alloc = a;
    return c;
}

Test(turn_list, a_row_says_who_from_where_and_how_much)
{
    static struct snap snap;
    const struct snap_alloc *r = &snap.alloc[0];

    alloc.perms.count = 3;
    alloc.chans.count = 4;
    alloc.conns.count = 5;
    alloc.tcp = true;
    listed(&alloc);
    cr_expect(turn_list(&ts, &snap));
    cr_assert_eq(snap.rows, 1);
    cr_expect_str_eq(r->user, "1700000000:alice");
    cr_expect(memcmp(&r->client, &alloc.tuple.client, sizeof(r->client)) == 0);
    cr_expect(r->shard == 3 && r->transport == TURN_TCP && r->tcp && r->away);
    cr_expect(r->relayed_n == 1 && r->relayed[0].port == 50000, "of halves that live");
    cr_expect(r->age_ms == 5000 && r->left_ms == 600000);
    cr_expect(r->permissions == 3 && r->channels == 4 && r->connections == 5);
    cr_expect(r->datagrams[0] == 11 && r->datagrams[1] == 12 && r->bytes[0] == 13 &&
              r->bytes[1] == 14);
    alloc.seat[0].alloc = &alloc;
    snap.cursor = snap.rows = 0;
    cr_expect(turn_list(&ts, &snap));
    cr_expect_not(r->away);
}

Test(turn_list, what_is_not_there_yet_or_no_more_is_no_row)
{
    static struct turn_alloc pending = { .pending = true };
    static struct snap snap;

    listed(&pending);
    listed(NULL);
    cr_expect(turn_list(&ts, &snap));
    cr_expect_eq(snap.rows, 0);
}

Test(turn_list, pages_hold_what_they_can_and_lose_nobody)
{
    static struct snap snap;
    unsigned total = 0, pages = 0;
    bool end = false;

    for (unsigned i = 0; i < 2 * SNAP_ROWS; i++)
        listed(&alloc);
    while (!end && pages++ < 10) {
        snap.rows = 0;
        end = turn_list(&ts, &snap);
        cr_assert_leq(snap.rows, SNAP_ROWS);
        total += snap.rows;
    }
    cr_expect_eq(total, 2u * SNAP_ROWS);
    cr_expect_eq(pages, 3u, "the last one is empty");
}
