/* Reading the DIG relay's wire (dig.md §4.1, §5, §10.2, §15.3): checks 3 to 6, 16, 24, 30, 32, 42
 * and 57 of dig.md §20 as far as they are about one message. */
#include "tests/unit/dig_golden.h"

#define REGISTER                                                                                   \
    "{\"type\":\"register\",\"peer_id\":\"a\",\"network_id\":\"n\",\"protocol_version\":1"
#define RELAY "{\"type\":\"relay_message\",\"from\":\"x\",\"to\":\"b\",\"payload\":"

/* ---- golden lines -------------------------------------------------------------------------- */

static const struct {
    const char *name;
    enum dig_type type;
    enum dig_verdict verdict;
} client[] = {
    { "register", DIG_REGISTER, DIG_OK },
    { "register-listen", DIG_REGISTER, DIG_OK },
    { "unregister", DIG_UNREGISTER, DIG_OK },
    { "relay_message", DIG_RELAY_MESSAGE, DIG_OK },
    { "broadcast", DIG_BROADCAST, DIG_OK },
    { "get_peers", DIG_GET_PEERS, DIG_OK },
    { "get_peers-null", DIG_GET_PEERS, DIG_OK },
    { "get_peers-absent", DIG_GET_PEERS, DIG_OK },
    { "ping", DIG_PING, DIG_OK },
    { "hole_punch_request", DIG_HOLE_PUNCH_REQUEST, DIG_OK },
    { "hole_punch_result", DIG_HOLE_PUNCH_RESULT, DIG_OK },
    { "dht_records", DIG_DHT_RECORDS, DIG_OK },
    { "pex_handshake", DIG_PEX_HANDSHAKE, DIG_OK },
    { "pex_snapshot", DIG_PEX_SNAPSHOT, DIG_OK },
    { "pex_delta", DIG_PEX_DELTA, DIG_OK },
    { "pex_error", DIG_PEX_ERROR, DIG_OK },
    { "register_ack", DIG_REGISTER_ACK, DIG_IGNORED },
    { "peers", DIG_PEERS, DIG_IGNORED },
    { "peer_connected", DIG_PEER_CONNECTED, DIG_IGNORED },
    { "peer_disconnected", DIG_PEER_DISCONNECTED, DIG_IGNORED },
    { "pong", DIG_PONG, DIG_IGNORED },
    { "hole_punch_coordinate", DIG_HOLE_PUNCH_COORDINATE, DIG_IGNORED },
    { "error", DIG_ERROR, DIG_IGNORED },
    { "get_dht_records", DIG_GET_DHT_RECORDS, DIG_OK },
};

Test(dig_decode, reads_every_golden_line)
{
    const struct golden *g = golden_of("client.txt");
    bool seen[DIG_TYPES] = { false };
    struct dig_msg m;

    cr_assert(eq(sz, g->n, ARRAY_LEN(client)));
    for (size_t i = 0; i < g->n; i++) {
        cr_assert_str_eq(g->name[i], client[i].name);
        cr_expect(decode(g->text[i], &m) == client[i].verdict, "%s", g->name[i]);
        cr_expect(m.type == client[i].type, "%s", g->name[i]);
        seen[m.type] = true;
    }
    for (size_t i = 0; i < DIG_TYPES; i++)
        cr_expect(seen[i], "no line for type %zu", i);
}

Test(dig_decode, refuses_every_truncation)
{
    const struct golden *g = golden_of("client.txt");
    struct dig_msg m;

    for (size_t i = 0; i < g->n; i++)
        for (size_t n = 0; n < strlen(g->text[i]); n++)
            cr_expect(decode_n(bytes_of(g->text[i], n), (struct dig_rules){ false }, &m) == DIG_BAD,
                      "%zu bytes of %s", n, g->name[i]);
}

Test(dig_decode, finds_what_register_says)
{
    struct dig_msg m;
    struct dig_addr a;

    cr_assert(decode(golden("client.txt", "register-listen"), &m) == DIG_OK);
    EXPECT_TEXT(m.u.reg.peer_id, ID_A);
    EXPECT_TEXT(m.u.reg.network_id, "DIG_MAINNET");
    cr_expect(eq(u32, m.u.reg.protocol_version, 1));
    cr_expect(eq(sz, m.u.reg.listen_addrs.left, 2));
    cr_assert(dig_listen_next(&m.u.reg.listen_addrs, &a));
    cr_expect(a.v6 && a.at.port == 9444);
    cr_assert(dig_listen_next(&m.u.reg.listen_addrs, &a));
    cr_expect(a.at.ip[15] == 2 && !a.v6);
    cr_expect(not(dig_listen_next(&m.u.reg.listen_addrs, &a)));
    cr_assert(decode(golden("client.txt", "register"), &m) == DIG_OK);
    cr_expect(eq(sz, m.u.reg.listen_addrs.left, 0));
    cr_expect(not(dig_listen_next(&m.u.reg.listen_addrs, &a)));
}

Test(dig_decode, finds_what_the_others_say)
{
    struct dig_msg m;

    cr_assert(decode(golden("client.txt", "relay_message"), &m) == DIG_OK);
    EXPECT_TEXT(m.u.relay.from, "x");
    EXPECT_TEXT(m.u.relay.to, ID_B);
    cr_expect(m.u.relay.payload_count == 5 && m.u.relay.seq == 42);
    cr_assert(decode(golden("client.txt", "broadcast"), &m) == DIG_OK);
    EXPECT_TEXT(m.u.relay.from, "x");
    cr_expect(m.u.relay.payload_count == 2 && m.u.relay.exclude_count == 1);
    cr_assert(decode(golden("client.txt", "get_peers"), &m) == DIG_OK);
    cr_expect(m.u.get_peers.given);
    EXPECT_TEXT(m.u.get_peers.network_id, "DIG_MAINNET");
    cr_assert(decode(golden("client.txt", "get_peers-null"), &m) == DIG_OK);
    cr_expect(not(m.u.get_peers.given));
    cr_assert(decode(golden("client.txt", "get_peers-absent"), &m) == DIG_OK);
    cr_expect(not(m.u.get_peers.given));
    cr_assert(decode(golden("client.txt", "ping"), &m) == DIG_OK);
    cr_expect(eq(u64, m.u.ping.timestamp, 1795150400));
    cr_assert(decode(golden("client.txt", "hole_punch_request"), &m) == DIG_OK);
    EXPECT_TEXT(m.u.punch.target_peer_id, ID_B);
    cr_expect(m.u.punch.external_addr.at.port == 40001 && !m.u.punch.external_addr.v6);
    cr_assert(decode(golden("client.txt", "hole_punch_result"), &m) == DIG_OK);
    EXPECT_TEXT(m.u.punch_result.peer_id, ID_B);
    cr_expect(not(m.u.punch_result.success));
}

Test(dig_decode, finds_what_pex_says)
{
    struct dig_msg m;

    cr_assert(decode(golden("client.txt", "pex_handshake"), &m) == DIG_OK);
    cr_expect(m.u.pex_handshake.version == 1 && m.u.pex_handshake.interval == 60);
    EXPECT_TEXT(m.u.pex_handshake.network_id, "DIG_MAINNET");
    cr_assert(decode(golden("client.txt", "pex_snapshot"), &m) == DIG_OK);
    cr_expect(eq(sz, m.u.pex_snapshot.peers, 1));
    cr_assert(decode(golden("client.txt", "pex_delta"), &m) == DIG_OK);
    cr_expect(m.u.pex_delta.added == 1 && m.u.pex_delta.dropped == 1);
    cr_expect(not(m.u.pex_delta.overlap));
    cr_assert(decode(golden("client.txt", "pex_error"), &m) == DIG_OK);
    cr_expect(eq(u16, m.u.pex_error.code, 3));
}

/* ---- JSON (dig.md §4.1; checks 3 to 6) ------------------------------------------------------ */

struct judged {
    const char *text;
    enum dig_verdict verdict;
};

static void expect_all(const struct judged *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        cr_expect(eq(int, (int)verdict(list[i].text), (int)list[i].verdict), "%s", list[i].text);
}
#define EXPECT_ALL(list) expect_all(list, ARRAY_LEN(list))

Test(dig_decode, takes_members_in_any_order_and_spelling)
{
    static const struct judged list[] = {
        { "{\"timestamp\":5,\"type\":\"ping\"}", DIG_OK },
        { " \t\r\n{ \"type\" : \"ping\" ,\n\"timestamp\" : 5 } \n", DIG_OK },
        { "{\"t\\u0079pe\":\"p\\u0069ng\",\"timestamp\":5}", DIG_OK },
        { "{\"type\":\"Ping\",\"timestamp\":5}", DIG_BAD },
        { "{\"type\":\"pin\",\"timestamp\":5}", DIG_BAD },
        { "{\"type\":\"sealed\",\"envelope\":[1]}", DIG_BAD },
        { "{\"timestamp\":5}", DIG_BAD },
        { "{\"type\":5,\"timestamp\":5}", DIG_BAD },
        { "{\"type\":null,\"timestamp\":5}", DIG_BAD },
        { "{\"Type\":\"ping\",\"timestamp\":5}", DIG_BAD },
        { "{\"type\":\"ping\"}", DIG_BAD },
        { "[\"ping\",5]", DIG_BAD },
    };
    EXPECT_ALL(list);
}

Test(dig_decode, lets_only_unknown_members_repeat)
{
    static const struct judged list[] = {
        { "{\"type\":\"ping\",\"timestamp\":5,\"x\":1}", DIG_OK },
        { "{\"x\":[{\"type\":7}],\"type\":\"ping\",\"timestamp\":5,\"x\":null}", DIG_OK },
        { "{\"type\":\"ping\",\"timestamp\":5,\"timestamp\":5}", DIG_BAD },
        { "{\"type\":\"ping\",\"type\":\"ping\",\"timestamp\":5}", DIG_BAD },
        { "{\"type\":\"pex_error\",\"type\":\"pex_error\",\"code\":1,\"message\":\"\"}", DIG_BAD },
        { "{\"type\":\"get_peers\",\"network_id\":null,\"network_id\":null}", DIG_BAD },
        { "{\"type\":\"get_peers\",\"peers\":1,\"peers\":2}", DIG_OK }, /* known elsewhere */
        { "{\"type\":\"dht_records\",\"records\":[{\"content_key\":\"\",\"content_key\":\"\","
          "\"providers\":1}],\"total_keys\":0,\"truncated\":true}",
          DIG_BAD },
    };
    EXPECT_ALL(list);
}

Test(dig_decode, takes_whole_numbers_within_their_width)
{
    static const struct judged list[] = {
        { "{\"type\":\"ping\",\"timestamp\":0}", DIG_OK },
        { "{\"type\":\"ping\",\"timestamp\":18446744073709551615}", DIG_OK },
        { "{\"type\":\"ping\",\"timestamp\":18446744073709551616}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":5.0}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":5e0}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":-1}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":-0}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":05}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":+5}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":\"5\"}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":null}", DIG_BAD },
        { "{\"type\":\"error\",\"code\":4294967295,\"message\":\"\"}", DIG_IGNORED },
        { "{\"type\":\"error\",\"code\":4294967296,\"message\":\"\"}", DIG_BAD },
        { "{\"type\":\"pex_error\",\"code\":65535,\"message\":\"\"}", DIG_OK },
        { "{\"type\":\"pex_error\",\"code\":65536,\"message\":\"\"}", DIG_PEX_BAD },
        { RELAY "[0,255],\"seq\":18446744073709551615}", DIG_OK },
        { RELAY "[256],\"seq\":1}", DIG_BAD },
        { RELAY "[1.0],\"seq\":1}", DIG_BAD },
        { RELAY "[-0],\"seq\":1}", DIG_BAD },
        { RELAY "[\"1\"],\"seq\":1}", DIG_BAD },
        { RELAY "[],\"seq\":18446744073709551616}", DIG_BAD },
        { RELAY "\"abc\",\"seq\":1}", DIG_BAD },
        { RELAY "null,\"seq\":1}", DIG_BAD },
        { "{\"type\":\"relay_message\",\"to\":\"b\",\"payload\":[],\"seq\":1}", DIG_BAD },
        /* Nobody asked for it, so its size does not matter. */
        { "{\"type\":\"ping\",\"timestamp\":1,\"x\":1e999999}", DIG_OK },
    };
    EXPECT_ALL(list);
}

Test(dig_decode, is_strict_about_json)
{
    static const struct judged list[] = {
        { "", DIG_BAD },
        { " ", DIG_BAD },
        { "5", DIG_BAD },
        { "{}", DIG_BAD },
        { "[]", DIG_BAD },
        { "null", DIG_BAD },
        { "\xef\xbb\xbf{\"type\":\"ping\",\"timestamp\":5}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":5} x", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":5}{}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":5,}", DIG_BAD },
        { "{\"type\":\"ping\",/**/\"timestamp\":5}", DIG_BAD },
        { "{'type':\"ping\",\"timestamp\":5}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":5,\"x\":nan}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":5,\"x\":\"\\ud800\"}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":5,\"x\":\"\\udc00\"}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":5,\"x\":\"\\ud83d\\ude00\"}", DIG_OK },
        { "{\"type\":\"ping\",\"timestamp\":5,\"x\":\"\\x41\"}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":5,\"x\":\"\t\"}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":5,\"x\":\"\x7f\"}", DIG_OK },
        { "{\"type\":\"ping\",\"timestamp\":5,\"x\":\"\xc3\xa9\"}", DIG_OK },
        { "{\"type\":\"ping\",\"timestamp\":5,\"x\":\"\xc3\"}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":5,\"x\":\"\xc0\x80\"}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":5,\"x\":\"\xed\xa0\x80\"}", DIG_BAD },
        { "{\"type\":\"ping\",\"timestamp\":5,\"x\":\"\xf4\x90\x80\x80\"}", DIG_BAD },
    };
    EXPECT_ALL(list);
    struct dig_msg m; /* a NUL is a character like others */

    cr_expect(decode_n(bytes_of("{}\0", 3), (struct dig_rules){ false }, &m) == DIG_BAD);
}

/* {"type":"ping","timestamp":1,"x":[[…]]}, of so many levels with the message's own. */
static size_t nested(char *text, unsigned levels, char open, char close)
{
    size_t n = (size_t)sprintf(text, "{\"type\":\"ping\",\"timestamp\":1,\"x\":");

    for (unsigned i = 1; i < levels; i++)
        n += (size_t)sprintf(text + n, open == '{' && i + 1 < levels ? "{\"\":" : "%c", open);
    for (unsigned i = 1; i < levels; i++)
        text[n++] = close;
    text[n++] = '}';
    return n;
}

Test(dig_decode, nests_to_128_levels)
{
    static char text[2048];
    struct dig_rules rules = { .hex_ids = false };
    struct dig_msg m;

    for (const char *c = "[]{}"; *c; c += 2) {
        size_t n = nested(text, 121, c[0], c[1]); /* check 6: a 120-deep one inside */
        cr_expect(decode_n(bytes_of(text, n), rules, &m) == DIG_OK);
        n = nested(text, DIG_DEPTH_MAX, c[0], c[1]);
        cr_expect(decode_n(bytes_of(text, n), rules, &m) == DIG_OK);
        n = nested(text, DIG_DEPTH_MAX + 1, c[0], c[1]);
        cr_expect(decode_n(bytes_of(text, n), rules, &m) == DIG_BAD);
        n = nested(text, 201, c[0], c[1]);
        cr_expect(decode_n(bytes_of(text, n), rules, &m) == DIG_BAD);
    }
    /* Brackets in strings are not levels, and many beside each other are one. */
    size_t n = (size_t)sprintf(text, "{\"type\":\"ping\",\"timestamp\":1,\"x\":\"\\\"");

    memset(text + n, '[', 300);
    n += 300;
    n += (size_t)sprintf(text + n, "\",\"y\":[");
    for (int i = 0; i < 150; i++)
        n += (size_t)sprintf(text + n, "%s", i ? ",[]" : "[]");
    n += (size_t)sprintf(text + n, "]}");
    cr_expect(decode_n(bytes_of(text, n), rules, &m) == DIG_OK);
}

/* Whatever a message is made of, the pool that dig_pool_bytes() names is enough, and a smaller one
 * is a verdict, not an accident. */
Test(dig_decode, has_room_for_the_worst_of_a_size)
{
    static char text[1 << 16];
    static const char *const fill[] = { "0,", "[],", "\"\",", "1,[],", "\"\\u0001\"," };
    struct dig_rules rules = { .hex_ids = false };
    struct dig_msg m;

    for (size_t i = 0; i < ARRAY_LEN(fill); i++)
        for (size_t size = 64; size <= sizeof(text); size = size * 5 / 3) {
            size_t n = (size_t)sprintf(text, "{\"type\":\"ping\",\"timestamp\":1,\"x\":[");

            while (n + strlen(fill[i]) + 4 < size)
                n += (size_t)sprintf(text + n, "%s", fill[i]);
            n += (size_t)sprintf(text + n, "0]}");
            cr_expect(decode_n(bytes_of(text, n), rules, &m) == DIG_OK, "%s %zu", fill[i], n);
        }
    for (size_t pool = 0; pool < 4096; pool += 8) {
        uint8_t *small = malloc(pool ? pool : 1);

        (void)dig_decode(bytes_str(REGISTER "}"), rules, small, pool, &m);
        free(small);
    }
}

/* ---- names and addresses ------------------------------------------------------------------- */

Test(dig_decode, limits_what_names_a_registration)
{
    char text[1024], name[DIG_NAME_MAX + 2];
    const char *const form[] = {
        "{\"type\":\"register\",\"peer_id\":\"%s\",\"network_id\":\"n\",\"protocol_version\":1}",
        "{\"type\":\"register\",\"peer_id\":\"a\",\"network_id\":\"%s\",\"protocol_version\":1}",
    };
    const struct judged list[] = {
        { "", DIG_OK },         { "peerA", DIG_OK },    { "\xc3\xa9", DIG_OK },
        { "\\n", DIG_BAD },     { "\\u0000", DIG_BAD }, { "\\u001f", DIG_BAD },
        { "\x7f", DIG_BAD },    { "\\u0085", DIG_BAD }, { "\xc2\x9f", DIG_BAD },
        { "\xc2\xa0", DIG_OK }, { "\\\"\\\\", DIG_OK },
    };

    for (size_t f = 0; f < ARRAY_LEN(form); f++) {
        for (size_t i = 0; i < ARRAY_LEN(list); i++) {
            snprintf(text, sizeof(text), form[f], list[i].text);
            cr_expect(eq(int, (int)verdict(text), (int)list[i].verdict), "%s", text);
        }
        memset(name, 'a', sizeof(name));
        name[DIG_NAME_MAX] = 0;
        snprintf(text, sizeof(text), form[f], name);
        cr_expect(verdict(text) == DIG_OK);
        name[DIG_NAME_MAX] = 'a';
        name[DIG_NAME_MAX + 1] = 0;
        snprintf(text, sizeof(text), form[f], name);
        cr_expect(verdict(text) == DIG_BAD);
    }
    /* Elsewhere a name is only compared: what nobody has is code 3 (check 26). */
    cr_expect(verdict("{\"type\":\"hole_punch_result\",\"peer_id\":\"\\n\",\"success\":true}") ==
              DIG_OK);
}

Test(dig_decode, asks_for_hexadecimal_ids_when_told)
{
    static const struct judged list[] = {
        { ID_A, DIG_OK },
        { "4F1D2C3B4a5968778695a4b3c2d1e0f04f1d2c3b4a5968778695a4b3c2d1e0f0", DIG_BAD },
        { "gf1d2c3b4a5968778695a4b3c2d1e0f04f1d2c3b4a5968778695a4b3c2d1e0f0", DIG_BAD },
        { ID_A "0", DIG_BAD },
        { "peerA", DIG_BAD },
        { "", DIG_BAD },
    };
    char text[512];
    struct dig_msg m;

    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        int n = snprintf(text, sizeof(text),
                         "{\"type\":\"register\",\"peer_id\":\"%s\",\"network_id\":\"any name\","
                         "\"protocol_version\":1}",
                         list[i].text);
        struct bytes b = bytes_of(text, (size_t)n);

        cr_expect(decode_n(b, (struct dig_rules){ .hex_ids = true }, &m) == list[i].verdict, "%s",
                  text);
        cr_expect(decode_n(b, (struct dig_rules){ .hex_ids = false }, &m) == DIG_OK, "%s", text);
    }
}

Test(dig_decode, refuses_a_register_that_is_not_one) /* check 16 */
{
    static const struct judged list[] = {
        { REGISTER "}", DIG_OK },
        { REGISTER ",\"listen_addrs\":[]}", DIG_OK },
        { REGISTER ",\"listen_addrs\":null}", DIG_BAD },
        { REGISTER ",\"listen_addrs\":\"a\"}", DIG_BAD },
        { REGISTER ",\"listen_addrs\":[1]}", DIG_BAD },
        { REGISTER ",\"listen_addrs\":[\"x\"]}", DIG_BAD },
        { REGISTER ",\"listen_addrs\":[\"1.2.3.4:5\",\"x\"]}", DIG_BAD },
        { "{\"type\":\"register\",\"peer_id\":\"a\",\"protocol_version\":1}", DIG_BAD },
        { "{\"type\":\"register\",\"peer_id\":\"a\",\"network_id\":null,\"protocol_version\":1}",
          DIG_BAD },
        { "{\"type\":\"register\",\"peer_id\":\"a\",\"network_id\":\"n\",\"protocol_version\":"
          "\"1\"}",
          DIG_BAD },
        { "{\"type\":\"register\",\"peer_id\":\"a\",\"network_id\":\"n\","
          "\"protocol_version\":4294967295}",
          DIG_OK },
        { "{\"type\":\"register\",\"peer_id\":\"a\",\"network_id\":\"n\","
          "\"protocol_version\":4294967296}",
          DIG_BAD },
        { "{\"type\":\"unregister\"}", DIG_BAD },
        { "{\"type\":\"unregister\",\"peer_id\":5}", DIG_BAD },
    };
    EXPECT_ALL(list);
}

Test(dig_decode, judges_what_it_ignores) /* check 32 */
{
    static const struct judged list[] = {
        { "{\"type\":\"peers\",\"peers\":[]}", DIG_IGNORED },
        { "{\"type\":\"peers\"}", DIG_BAD },
        { "{\"type\":\"peers\",\"peers\":[5]}", DIG_BAD },
        { "{\"type\":\"peers\",\"peers\":[{}]}", DIG_BAD },
        { "{\"type\":\"peer_connected\",\"peer\":{\"peer_id\":\"\",\"network_id\":\"\","
          "\"protocol_version\":1,\"connected_at\":1,\"last_seen\":1,\"addresses\":[\"h:1\"]}}",
          DIG_BAD },
        { "{\"type\":\"peer_connected\",\"peer\":{\"peer_id\":\"\",\"network_id\":\"\","
          "\"protocol_version\":1,\"connected_at\":1,\"last_seen\":1,\"addresses\":null}}",
          DIG_BAD },
        { "{\"type\":\"register_ack\",\"success\":\"true\",\"message\":\"\",\"connected_peers\":1}",
          DIG_BAD },
        { "{\"type\":\"pong\"}", DIG_BAD },
        { "{\"type\":\"hole_punch_request\",\"peer_id\":\"\",\"target_peer_id\":\"\","
          "\"external_addr\":\"host:1\"}",
          DIG_BAD }, /* check 30 */
        { "{\"type\":\"get_dht_records\",\"max_keys\":-5}", DIG_BAD },
    };
    EXPECT_ALL(list);
}

/* ---- lists --------------------------------------------------------------------------------- */

Test(dig_decode, takes_500_records_with_keys_that_are_keys)
{
    static char text[1 << 17];
    size_t n = (size_t)sprintf(text, "{\"type\":\"dht_records\",\"records\":[");
    struct dig_record r;
    struct dig_msg m;
    uint64_t took = 0;

    for (int i = 0; i < DIG_RECORDS_MAX + 100; i++) {
        const char *form = i == 7   ? "%s{\"content_key\":\"<b>%05d\",\"providers\":%d}"
                           : i == 8 ? "%s{\"content_key\":\"%066d\",\"providers\":%d}"
                                    : "%s{\"content_key\":\"%064d\",\"providers\":%d}";

        n += (size_t)sprintf(text + n, form, i ? "," : "", i, i);
    }
    n += (size_t)sprintf(text + n, "],\"total_keys\":9,\"truncated\":false}");
    cr_assert(decode_n(bytes_of(text, n), (struct dig_rules){ false }, &m) == DIG_OK);
    cr_expect(m.u.dht.total_keys == 9 && !m.u.dht.truncated);
    while (dig_record_next(&m.u.dht.records, &r)) {
        cr_expect(r.providers != 7 && r.providers != 8, "no key (D13)");
        took++;
        cr_expect(eq(u64, r.providers, took <= 7 ? took - 1 : took + 1));
        cr_expect(eq(u8, r.key[31], (uint8_t)(r.providers / 10 % 10 << 4 | r.providers % 10)));
    }
    cr_expect(eq(u64, took, DIG_RECORDS_MAX - 2));
    cr_assert(decode(golden("client.txt", "dht_records"), &m) == DIG_OK);
    cr_assert(dig_record_next(&m.u.dht.records, &r));
    cr_expect(r.key[0] == 0xab && r.key[31] == 0x12 && r.providers == 4);
    cr_expect(m.u.dht.truncated);
    cr_expect(not(dig_record_next(&m.u.dht.records, &r)));
    cr_expect(verdict("{\"type\":\"dht_records\",\"records\":[{\"content_key\":\"k\"}],"
                      "\"total_keys\":9,\"truncated\":true}") == DIG_BAD);
}

Test(dig_decode, judges_pex_by_its_types) /* checks 38 and 42 */
{
    static const struct judged list[] = {
        { "{\"type\":\"pex_snapshot\",\"peers\":[{}]}", DIG_OK },
        { "{\"type\":\"pex_snapshot\",\"peers\":[{\"via\":\"pigeon\",\"flags\":[\"odd\"],"
          "\"addresses\":[{},{\"kind\":\"unheard of\",\"host\":\"not an address\",\"port\":0}]}]}",
          DIG_OK },
        { "{\"type\":\"pex_snapshot\",\"peers\":[5]}", DIG_PEX_BAD },
        { "{\"type\":\"pex_snapshot\",\"peers\":[{\"addresses\":[{\"port\":65535}]}]}", DIG_OK },
        { "{\"type\":\"pex_snapshot\",\"peers\":[{\"addresses\":[{\"port\":65536}]}]}",
          DIG_PEX_BAD },
        { "{\"type\":\"pex_snapshot\",\"peers\":[{\"addresses\":[{\"port\":70000}]}]}",
          DIG_PEX_BAD },
        { "{\"type\":\"pex_snapshot\",\"peers\":[{\"addresses\":[5]}]}", DIG_PEX_BAD },
        { "{\"type\":\"pex_snapshot\",\"peers\":[{\"last_seen\":-1}]}", DIG_PEX_BAD },
        { "{\"type\":\"pex_snapshot\",\"peers\":[{\"via\":null}]}", DIG_PEX_BAD },
        { "{\"type\":\"pex_snapshot\",\"peers\":[{\"flags\":[1]}]}", DIG_PEX_BAD },
        { "{\"type\":\"pex_snapshot\",\"peers\":[{\"peer_id\":\"\",\"peer_id\":\"\"}]}",
          DIG_PEX_BAD },
        { "{\"type\":\"pex_snapshot\"}", DIG_PEX_BAD },
        { "{\"type\":\"pex_bogus\"}", DIG_PEX_BAD },
        { "{\"type\":\"pex_\"}", DIG_PEX_BAD },
        { "{\"type\":\"pex\"}", DIG_BAD },
        { "{\"type\":\"pexy\"}", DIG_BAD },
        { "{\"type\":\"Pex_\"}", DIG_BAD },
        { "{\"type\":\"p\\u0065x_\"}", DIG_PEX_BAD },
        { "{\"type\":\"pex_snapshot\",\"peers\":[{}]", DIG_BAD }, /* no JSON, so no PEX */
        { "{\"type\":\"pex_handshake\",\"version\":4294967295,\"network_id\":\"\",\"interval\":"
          "4294967295}",
          DIG_OK },
        { "{\"type\":\"pex_handshake\",\"version\":4294967296,\"network_id\":\"\",\"interval\":1}",
          DIG_PEX_BAD },
        { "{\"type\":\"pex_handshake\",\"version\":1,\"network_id\":\"\",\"interval\":4294967296}",
          DIG_PEX_BAD },
        { "{\"type\":\"pex_handshake\",\"version\":1,\"network_id\":\"\",\"interval\":1,"
          "\"flags\":null}",
          DIG_PEX_BAD },
        { "{\"type\":\"pex_delta\",\"added\":[],\"dropped\":[1]}", DIG_PEX_BAD },
        { "{\"type\":\"pex_delta\",\"added\":[]}", DIG_PEX_BAD },
    };
    EXPECT_ALL(list);
}

static size_t delta(char *text, int added, int dropped, int first_dropped)
{
    size_t n = (size_t)sprintf(text, "{\"type\":\"pex_delta\",\"added\":[");

    for (int i = 0; i < added; i++)
        n += (size_t)sprintf(text + n, "%s{\"peer_id\":\"%d\"}", i ? "," : "", i);
    n += (size_t)sprintf(text + n, "],\"dropped\":[");
    for (int i = 0; i < dropped; i++)
        n += (size_t)sprintf(text + n, "%s\"%d\"", i ? "," : "", first_dropped + i);
    return n + (size_t)sprintf(text + n, "]}");
}

Test(dig_decode, sees_an_id_on_both_sides_of_a_delta)
{
    static const struct {
        int added, dropped, first;
        bool overlap;
    } list[] = {
        { 50, 50, 50, false }, { 50, 50, 49, true }, { 1, 1, 0, true },    { 0, 50, 0, false },
        { 50, 0, 0, false },   { 51, 50, 0, false }, { 50, 51, 0, false }, /* too large anyway */
    };
    static char text[1 << 14];
    struct dig_msg m;

    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        size_t n = delta(text, list[i].added, list[i].dropped, list[i].first);

        cr_assert(decode_n(bytes_of(text, n), (struct dig_rules){ false }, &m) == DIG_OK);
        cr_expect(eq(sz, m.u.pex_delta.added, (size_t)list[i].added));
        cr_expect(eq(sz, m.u.pex_delta.dropped, (size_t)list[i].dropped));
        cr_expect(m.u.pex_delta.overlap == list[i].overlap, "%zu", i);
    }
    cr_assert(decode("{\"type\":\"pex_delta\",\"added\":[{}],\"dropped\":[\"\"]}", &m) == DIG_OK);
    cr_expect(m.u.pex_delta.overlap, "an entry without an id has the empty one");
}
