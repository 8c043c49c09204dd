/* Writing the DIG relay's wire, byte for byte (dig.md §4.2, §5, §10.2; check 26 of dig.md §20). */
#include "tests/unit/dig_golden.h"

static struct bytes id_a, id_b, network;
static uint8_t buf[4096];

static struct netaddr addr(const char *text)
{
    struct netaddr a;

    cr_assert(netaddr_parse(bytes_str(text), &a), "%s", text);
    return a;
}

static struct dig_addr dig_addr(const char *text)
{
    struct dig_addr a;

    cr_assert(dig_addr_parse(bytes_str(text), &a), "%s", text);
    return a;
}

/* ---- one writer for each line of relay.txt -------------------------------------------------- */

static void put_raw(struct wcur *w, const char *text)
{
    wcur_put(w, bytes_str(text));
}

static void relay_message(struct wcur *w)
{
    dig_put_relay_head(w, id_a);
    put_raw(w, "\"" ID_B "\"" DIG_RELAY_PAYLOAD "[22,3,1,0,255]" DIG_RELAY_SEQ "42" DIG_RELAY_END);
}

static void broadcast(struct wcur *w)
{
    dig_put_broadcast_head(w, id_a);
    put_raw(w, "[1,255]" DIG_BROADCAST_END);
}

static void peers(struct wcur *w, bool any)
{
    struct netaddr both[] = { addr("[2001:db8:7::9]:9444"), addr("203.0.113.9:9444") };
    struct dig_peer a = { id_a, network, 1, 1795150343, 1795150343, NULL, 0 };
    struct dig_peer b = { id_b, network, 1, 1795150399, 1795150399, both, 2 };

    dig_put_peers_head(w);
    if (any) {
        dig_put_peer(w, &a);
        dig_put_comma(w);
        dig_put_peer(w, &b);
    }
    dig_put_peers_tail(w);
}

static void peer_connected(struct wcur *w)
{
    struct netaddr one = addr("203.0.113.9:9444");
    struct dig_peer b = { id_b, network, 1, 1795150399, 1795150399, &one, 1 };

    dig_put_peer_connected(w, &b);
}

static void hole_punch_coordinate(struct wcur *w)
{
    struct dig_addr a = dig_addr("[::FFFF:1.2.3.4]:9");

    dig_put_hole_punch_coordinate(w, id_a, &a);
}

static void entry(struct wcur *w, struct bytes id, const char *at, uint64_t last_seen)
{
    struct dig_pex_entry e = { id, network, addr(at), last_seen };

    dig_put_pex_entry(w, &e);
}

static void pex_snapshot(struct wcur *w, bool any)
{
    dig_put_pex_snapshot_head(w);
    if (any) {
        entry(w, id_b, "203.0.113.9:51234", 1795150440);
        dig_put_comma(w);
        entry(w, id_a, "[2001:db8:7::9]:9", 1795150439);
    }
    dig_put_pex_snapshot_tail(w);
}

static void pex_delta(struct wcur *w)
{
    dig_put_pex_delta_head(w);
    entry(w, id_b, "203.0.113.9:51234", 1795150440);
    dig_put_pex_delta_dropped(w);
    dig_put_string(w, id_a);
    dig_put_pex_delta_tail(w);
}

static void ack(struct wcur *w, const char *why)
{
    if (strcmp(why, "") == 0)
        dig_put_register_ack(w, true, (enum dig_code)0, 17);
    else if (strcmp(why, "-full") == 0)
        dig_put_register_ack(w, false, DIG_CODE_FULL, 4096);
    else if (strcmp(why, "-taken") == 0)
        dig_put_register_ack(w, false, DIG_CODE_ID_TAKEN, 17);
    else if (strcmp(why, "-certificate") == 0)
        dig_put_register_ack(w, false, DIG_CODE_CERTIFICATE, 17);
    else
        dig_put_register_ack(w, false, DIG_CODE_SOURCE_LIMIT, 17);
}

static bool is(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static void write_line(struct wcur *w, const char *name)
{
    if (is(name, "register_ack"))
        ack(w, name + strlen("register_ack"));
    else if (is(name, "relay_message"))
        relay_message(w);
    else if (is(name, "broadcast"))
        broadcast(w);
    else if (is(name, "peers"))
        peers(w, strcmp(name, "peers") == 0);
    else if (is(name, "peer_connected"))
        peer_connected(w);
    else if (is(name, "peer_disconnected"))
        dig_put_peer_disconnected(w, id_b);
    else if (is(name, "pong"))
        dig_put_pong(w, UINT64_MAX);
    else if (is(name, "hole_punch_coordinate"))
        hole_punch_coordinate(w);
    else if (is(name, "hole_punch_result"))
        dig_put_hole_punch_result(w, id_b, false);
    else if (is(name, "error-"))
        dig_put_error(w, (enum dig_code)atoi(name + strlen("error-")));
    else if (is(name, "get_dht_records"))
        dig_put_get_dht_records(w);
    else if (is(name, "pex_handshake"))
        dig_put_pex_handshake(w, network, 60);
    else if (is(name, "pex_snapshot"))
        pex_snapshot(w, strcmp(name, "pex_snapshot") == 0);
    else if (is(name, "pex_delta"))
        pex_delta(w);
    else if (is(name, "pex_error-"))
        dig_put_pex_error(w, (enum dig_pex_code)atoi(name + strlen("pex_error-")));
    else
        cr_assert(false, "no writer for %s", name);
}

static void set_up(void)
{
    id_a = bytes_str(ID_A);
    id_b = bytes_str(ID_B);
    network = bytes_str("DIG_MAINNET");
}

TestSuite(dig_put, .init = set_up);

Test(dig_put, writes_every_golden_line)
{
    const struct golden *g = golden_of("relay.txt");

    for (size_t i = 0; i < g->n; i++) {
        struct wcur w = wcur_of(buf, sizeof(buf));

        write_line(&w, g->name[i]);
        cr_expect(not(w.bad));
        EXPECT_TEXT(bytes_of(buf, w.wrote), g->text[i]);
    }
}

Test(dig_put, sticks_in_every_smaller_room)
{
    const struct golden *g = golden_of("relay.txt");

    for (size_t i = 0; i < g->n; i++)
        for (size_t room = 0; room < strlen(g->text[i]); room++) {
            uint8_t *tight = malloc(room ? room : 1);
            struct wcur w = wcur_of(tight, room);

            write_line(&w, g->name[i]);
            cr_expect(w.bad, "%s in %zu bytes", g->name[i], room);
            free(tight);
        }
}

/* What the relay writes, its own reader takes: as what a client may say too, or as that which is
 * ignored when a client says it. */
Test(dig_put, writes_what_dig_decode_reads)
{
    const struct golden *g = golden_of("relay.txt");

    for (size_t i = 0; i < g->n; i++) {
        enum dig_verdict v = verdict(g->text[i]);

        cr_expect(v == DIG_OK || v == DIG_IGNORED, "%s", g->name[i]);
    }
}

/* ---- strings ------------------------------------------------------------------------------- */

Test(dig_put_string, escapes_what_it_must_and_nothing_else)
{
    static const struct {
        struct bytes text;
        const char *want;
    } list[] = {
        { { (const uint8_t *)"", 0 }, "\"\"" },
        { { (const uint8_t *)"a/b", 3 }, "\"a/b\"" },
        { { (const uint8_t *)"\"\\", 2 }, "\"\\\"\\\\\"" },
        { { (const uint8_t *)"\b\t\n\f\r", 5 }, "\"\\b\\t\\n\\f\\r\"" },
        { { (const uint8_t *)"\0\x01\x07\x0b\x0e\x1f ", 7 },
          "\"\\u0000\\u0001\\u0007\\u000b\\u000e\\u001f \"" },
        { { (const uint8_t *)"\x7f\xc3\xa9\xe2\x80\xa8", 6 }, "\"\x7f\xc3\xa9\xe2\x80\xa8\"" },
        { { (const uint8_t *)"x\ny", 3 }, "\"x\\ny\"" },
    };

    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        struct wcur w = wcur_of(buf, sizeof(buf));

        dig_put_string(&w, list[i].text);
        cr_expect(not(w.bad));
        EXPECT_TEXT(bytes_of(buf, w.wrote), list[i].want);
    }
}

Test(dig_put_string, comes_back_as_it_was)
{
    uint8_t all[128], back[128];
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct dig_msg m;
    size_t n;

    for (size_t i = 0; i < sizeof(all); i++)
        all[i] = (uint8_t)i;
    dig_put_string(&w, bytes_of(all, sizeof(all)));
    cr_assert(dig_unescape(bytes_of(buf, w.wrote), back, sizeof(back), &n));
    cr_expect(bytes_eq(bytes_of(back, n), bytes_of(all, sizeof(all))));
    w = wcur_of(buf, sizeof(buf));
    put_raw(&w, "{\"type\":\"get_peers\",\"network_id\":");
    dig_put_string(&w, bytes_of(all, sizeof(all)));
    put_raw(&w, "}");
    cr_assert(decode_n(bytes_of(buf, w.wrote), (struct dig_rules){ false }, &m) == DIG_OK);
    cr_expect(bytes_eq(m.u.get_peers.network_id, bytes_of(all, sizeof(all))));
}

/* ---- bounds -------------------------------------------------------------------------------- */

/* The largest of each kind fits the room that the header names for it, with names that double. */
Test(dig_put, stays_within_its_bounds)
{
    char quotes[DIG_NAME_MAX + 1];
    struct netaddr long6[DIG_DIALABLE_MAX];
    struct dig_addr scoped = dig_addr("[fd00:1111:2222:3333:4444:5555:6666:7777%4294967295]:65535");

    memset(quotes, '"', DIG_NAME_MAX);
    quotes[DIG_NAME_MAX] = 0;
    id_a = id_b = network = bytes_str(quotes);
    for (size_t i = 0; i < DIG_DIALABLE_MAX; i++)
        long6[i] = scoped.at;
    struct dig_peer p = {
        id_a, network, UINT32_MAX, UINT64_MAX, UINT64_MAX, long6, DIG_DIALABLE_MAX
    };
    struct dig_pex_entry e = { id_a, network, scoped.at, UINT64_MAX };
    struct wcur w = wcur_of(buf, DIG_PEER_TEXT_MAX);

    dig_put_peer(&w, &p);
    cr_expect(not(w.bad));
    w = wcur_of(buf, DIG_PEX_ENTRY_TEXT_MAX);
    dig_put_pex_entry(&w, &e);
    cr_expect(not(w.bad));
    w = wcur_of(buf, DIG_ADDR_TEXT_MAX);
    dig_addr_put(&w, &scoped);
    cr_expect(not(w.bad));
    w = wcur_of(buf, DIG_NAME_TEXT_MAX);
    dig_put_string(&w, id_a);
    cr_expect(w.n == 0 && !w.bad);
    static const char *const one_name[] = {
        "register_ack-certificate",
        "peer_disconnected",
        "hole_punch_result",
        "error-6",
        "pex_handshake",
        "pex_error-6",
    };
    for (size_t i = 0; i < ARRAY_LEN(one_name); i++) {
        w = wcur_of(buf, DIG_MESSAGE_MAX);
        write_line(&w, one_name[i]);
        cr_expect(not(w.bad), "%s", one_name[i]);
    }
    w = wcur_of(buf, DIG_MESSAGE_MAX);
    dig_put_hole_punch_coordinate(&w, id_a, &scoped);
    cr_expect(not(w.bad));
    w = wcur_of(buf, DIG_MESSAGE_MAX);
    dig_put_relay_head(&w, id_a);
    cr_expect(not(w.bad));
}
