/* WebSocket frames: what RFC 6455 publishes, what the relay's page demands, and the cases of the
 * Autobahn test suite's list that a server without extensions can be asked (numbers in brackets).
 */
#include "tests/unit/ws_trace.h"

#define FRAMES(s, ...)                                                                             \
    do {                                                                                           \
        static const uint8_t wire_[] = { __VA_ARGS__ };                                            \
        memcpy((s).p + (s).n, wire_, sizeof(wire_));                                               \
        (s).n += sizeof(wire_);                                                                    \
    } while (0)

/* ---- RFC 6455 §5.7 ------------------------------------------------------------------------- */

Test(ws_next, reads_the_published_frames_of_a_client)
{
    struct stream s = stream_new();

    FRAMES(s, 0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58);
    FRAMES(s, 0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58);
    expect_trace(&s, "T5:Hello Q5:Hello ");
}

Test(ws_next, reads_the_published_frames_of_a_server)
{
    struct stream s = stream_new();
    uint8_t zeroes[65536] = { 0 };

    s.unmasked = true;
    FRAMES(s, 0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f);
    FRAMES(s, 0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f);
    FRAMES(s, 0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f);
    FRAMES(s, 0x82, 0x7e, 0x01, 0x00);
    memcpy(s.p + s.n, zeroes, 256);
    s.n += 256;
    FRAMES(s, 0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0);
    memcpy(s.p + s.n, zeroes, 65536);
    s.n += 65536;
    expect_trace(&s, "T5:Hello T5:Hello P5:Hello B256#e6a1d1c5 B65536#5e509dc5 ");
}

Test(ws_head_encode, writes_the_published_headers)
{
    static const uint8_t key[4] = { 0x37, 0xfa, 0x21, 0x3d };
    uint8_t out[WS_CLIENT_HEAD_MAX];

    cr_assert_eq(ws_head_encode(out, WS_OP_TEXT, 5), 2u);
    cr_expect(memcmp(out, "\x81\x05", 2) == 0);
    cr_assert_eq(ws_head_encode(out, WS_OP_BINARY, 256), 4u);
    cr_expect(memcmp(out, "\x82\x7e\x01\x00", 4) == 0);
    cr_assert_eq(ws_head_encode(out, WS_OP_BINARY, 65536), 10u);
    cr_expect(memcmp(out, "\x82\x7f\0\0\0\0\0\1\0\0", 10) == 0);
    cr_assert_eq(ws_client_head_encode(out, WS_OP_PONG, true, 5, key), 6u);
    cr_expect(memcmp(out, "\x8a\x85\x37\xfa\x21\x3d", 6) == 0);
    cr_assert_eq(ws_client_head_encode(out, WS_OP_TEXT, false, 65535, key), 8u);
    cr_expect(memcmp(out, "\x01\xfe\xff\xff\x37\xfa\x21\x3d", 8) == 0);
}

Test(ws_head_encode, changes_its_width_where_the_rfc_does)
{
    static const struct {
        size_t n, head;
    } rows[] = { { 0, 2 }, { 125, 2 }, { 126, 4 }, { 65535, 4 }, { 65536, 10 }, { 1 << 23, 10 } };
    uint8_t out[WS_HEAD_MAX], client[WS_CLIENT_HEAD_MAX];

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        cr_expect_eq(ws_head_encode(out, WS_OP_TEXT, rows[i].n), rows[i].head);
        cr_expect_eq(ws_client_head_encode(client, WS_OP_TEXT, true, rows[i].n, out),
                     rows[i].head + 4);
    }
}

/* ---- sizes and masks ----------------------------------------------------------------------- */

Test(ws_next, takes_messages_of_every_width_of_length) /* [1.1.1-1.2.8] */
{
    static const struct {
        size_t n;
        const char *want;
    } rows[] = { { 0, "0:" },     { 125, "125#" },     { 126, "126#" },     { 127, "127#" },
                 { 128, "128#" }, { 65535, "65535#" }, { 65536, "65536#" }, { 262144, "262144#" } };
    static uint8_t payload[262144];
    char want[64], sum[16];

    memset(payload, '*', sizeof(payload));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint32_t hash = 2166136261u;

        for (size_t k = 0; k < rows[i].n; k++)
            hash = (hash ^ '*') * 16777619u;
        snprintf(sum, sizeof(sum), "%08x", hash);
        for (int binary = 0; binary < 2; binary++) {
            struct stream s = stream_new();

            frame(&s, binary ? BINARY : TEXT, payload, rows[i].n);
            snprintf(want, sizeof(want), "%c%s%s ", binary ? 'B' : 'T', rows[i].want,
                     rows[i].n ? sum : "");
            expect_trace(&s, want);
        }
    }
}

Test(ws_next, takes_a_length_in_more_bytes_than_it_needs)
{
    struct stream s = stream_new();

    frame_raw(&s, TEXT, 2, 2, "ab", 2);
    frame_raw(&s, TEXT, 2, 8, "cd", 2);
    frame_raw(&s, BINARY, 0, 8, "", 0);
    expect_trace(&s, "T2:ab T2:cd B0: ");
}

Test(ws_mask, is_the_same_by_lanes_and_by_bytes_at_every_length_and_phase)
{
    static const uint8_t key[4] = { 0x5a, 0x01, 0xfe, 0x80 };
    uint8_t lanes[320], bytes[320], plain[320];
    struct seeded r = { 1 };

    for (size_t i = 0; i < sizeof(plain); i++)
        plain[i] = (uint8_t)seeded_u64(&r);
    for (size_t n = 0; n <= 300; n++)
        for (size_t at = 0; at < 9; at++) {
            memcpy(lanes, plain, sizeof(plain));
            memcpy(bytes, plain, sizeof(plain));
            ws_mask(lanes + at, n, key, at);
            ws_mask_scalar(bytes + at, n, key, at);
            cr_assert(memcmp(lanes, bytes, sizeof(lanes)) == 0, "%zu bytes at %zu", n, at);
            for (size_t i = 0; i < n; i++)
                cr_assert_eq(bytes[at + i], plain[at + i] ^ key[(at + i) % 4]);
        }
}

/* ---- control frames ------------------------------------------------------------------------ */

Test(ws_next, gives_pings_and_pongs_with_what_they_carry) /* [2.1-2.11] */
{
    struct stream s = stream_new();
    uint8_t full[WS_CONTROL_MAX];

    memset(full, 0xfe, sizeof(full));
    frame(&s, PING, "", 0);
    frame_text(&s, PING, "Hello,world!");
    frame(&s, PING, "\x00\xff\xfe\xfd\xfc\xfb\x00\xff", 8);
    frame(&s, PING, full, sizeof(full));
    frame(&s, PONG, "", 0);
    frame_text(&s, PONG, "unsolicited");
    for (int i = 0; i < 10; i++)
        frame_text(&s, PING, "p");
    expect_trace(&s, "P0: P12:Hello,world! P8#ae45616d P125#f046f9d1 Q0: Q11:unsolicited "
                     "P1:p P1:p P1:p P1:p P1:p P1:p P1:p P1:p P1:p P1:p ");
}

Test(ws_next, refuses_a_control_frame_of_126_bytes) /* [2.5, 7.3.6] */
{
    static const uint8_t firsts[] = { PING, PONG, CLOSE };
    uint8_t payload[126] = { 0x03, 0xe8 };

    for (size_t i = 0; i < ARRAY_LEN(firsts); i++) {
        struct stream s = stream_new();

        frame_text(&s, TEXT, "before");
        frame(&s, firsts[i], payload, sizeof(payload));
        expect_trace(&s, "T6:before !1002 ");
        s = stream_new();
        frame_raw(&s, firsts[i], 2, 2, payload, 2); /* small, but not said in seven bits */
        expect_trace(&s, "!1002 ");
    }
}

Test(ws_next, refuses_a_control_frame_in_parts) /* [5.1, 5.2] */
{
    static const uint8_t firsts[] = { PING & 0x7f, PONG & 0x7f, CLOSE & 0x7f };

    for (size_t i = 0; i < ARRAY_LEN(firsts); i++) {
        struct stream s = stream_new();

        frame_text(&s, firsts[i], "fr");
        frame_text(&s, REST, "ag");
        expect_trace(&s, "!1002 ");
    }
}

/* ---- headers that nobody may send ---------------------------------------------------------- */

Test(ws_next, refuses_every_reserved_bit) /* [3.1-3.7] */
{
    for (unsigned rsv = 1; rsv < 8; rsv++)
        for (unsigned op = 0; op < 16; op++) {
            struct stream s = stream_new();

            frame_text(&s, TEXT, "small");
            frame_text(&s, (uint8_t)(0x80 | rsv << 4 | op), "x");
            frame_text(&s, PING, "unheard");
            expect_trace(&s, "T5:small !1002 ");
        }
}

Test(ws_next, refuses_every_reserved_opcode) /* [4.1.1-4.2.5] */
{
    static const uint8_t ops[] = { 3, 4, 5, 6, 7, 11, 12, 13, 14, 15 };

    for (size_t i = 0; i < ARRAY_LEN(ops); i++)
        for (int fin = 0; fin < 2; fin++) {
            struct stream s = stream_new();

            frame_text(&s, TEXT, "small");
            frame_text(&s, (uint8_t)((fin ? 0x80 : 0) | ops[i]), i % 2 ? "x" : "");
            frame_text(&s, PING, "unheard");
            expect_trace(&s, "T5:small !1002 ");
        }
}

Test(ws_next, wants_a_mask_of_clients_and_none_of_servers) /* RFC 6455 §5.1 */
{
    struct stream s = stream_new(), from_server = stream_new();
    struct trace t;

    s.unmasked = true;
    frame_text(&s, TEXT, "plain");
    trace_init(&t, 100, false);
    trace_feed(&t, s.p, s.n);
    cr_expect_str_eq(t.text, "!1002 ");
    free(t.message);
    frame_text(&from_server, TEXT, "masked");
    trace_init(&t, 100, true);
    trace_feed(&t, from_server.p, from_server.n);
    cr_expect_str_eq(t.text, "!1002 ");
    free(t.message);
    free(s.p);
    free(from_server.p);
}

Test(ws_next, is_sure_after_two_bytes)
{
    static const uint8_t heads[][2] = { { 0xc1, 0x85 }, { 0x83, 0x80 }, { 0x81, 0x05 },
                                        { 0x09, 0x80 }, { 0x89, 0xfe }, { 0x80, 0x80 } };

    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        struct trace t;

        trace_init(&t, 100, false);
        trace_feed(&t, heads[i], 1);
        cr_expect_str_eq(t.text, "");
        trace_feed(&t, heads[i] + 1, 1);
        cr_expect_str_eq(t.text, "!1002 ");
        trace_feed(&t, heads[i], 2); /* it asserts that the fault stays */
        free(t.message);
    }
}

/* ---- fragments ----------------------------------------------------------------------------- */

Test(ws_next, puts_fragments_together) /* [5.3-5.8, 5.19, 5.20] */
{
    struct stream s = stream_new();

    frame_text(&s, TEXT_PART, "fragment1");
    frame_text(&s, REST, "fragment2");
    frame_text(&s, 0x02, "bin");
    frame_text(&s, PING, "between");
    frame_text(&s, REST, "ary");
    frame_text(&s, TEXT_PART, "1");
    frame_text(&s, REST_PART, "2");
    frame_text(&s, PING, "ping1");
    frame_text(&s, REST_PART, "3");
    frame_text(&s, REST_PART, "4");
    frame_text(&s, PONG, "pong2");
    frame_text(&s, PING, "ping2");
    frame_text(&s, REST, "5");
    expect_trace(&s, "T18:fragment1fragment2 P7:between B6:binary P5:ping1 Q5:pong2 P5:ping2 "
                     "T5:12345 ");
}

Test(ws_next, gives_empty_fragments_too) /* [6.1.1-6.1.3] */
{
    struct stream s = stream_new();

    frame_text(&s, TEXT, "");
    frame_text(&s, TEXT_PART, "");
    frame_text(&s, REST_PART, "");
    frame_text(&s, REST, "");
    frame_text(&s, TEXT_PART, "");
    frame_text(&s, REST_PART, "middle");
    frame_text(&s, REST, "");
    expect_trace(&s, "T0: T0: T6:middle ");
}

Test(ws_next, refuses_a_continuation_of_nothing) /* [5.9-5.17] */
{
    struct stream s = stream_new();

    frame_text(&s, REST, "alone");
    expect_trace(&s, "!1002 ");
    s = stream_new();
    frame_text(&s, REST_PART, "alone");
    frame_text(&s, TEXT, "x");
    expect_trace(&s, "!1002 ");
    s = stream_new();
    frame_text(&s, TEXT_PART, "a");
    frame_text(&s, REST, "b");
    frame_text(&s, REST_PART, "c");
    frame_text(&s, TEXT, "x");
    expect_trace(&s, "T2:ab !1002 ");
}

Test(ws_next, refuses_a_message_within_a_message) /* [5.18] */
{
    static const uint8_t firsts[] = { TEXT, BINARY, TEXT_PART, 0x02 };

    for (size_t i = 0; i < ARRAY_LEN(firsts); i++) {
        struct stream s = stream_new();

        frame_text(&s, TEXT_PART, "begun");
        frame_text(&s, firsts[i], "another");
        expect_trace(&s, "!1002 ");
    }
}

/* ---- limits -------------------------------------------------------------------------------- */

Test(ws_next, takes_a_message_at_the_limit_and_none_one_past_it) /* dig.md §3.2, checks 8 */
{
    static uint8_t payload[1001];
    struct stream s = stream_new();

    memset(payload, 'a', sizeof(payload));
    frame(&s, TEXT, payload, 1000);
    frame(&s, TEXT_PART, payload, 600);
    frame(&s, PING, payload, 100); /* control frames are not part of it */
    frame(&s, REST_PART, payload, 0);
    frame(&s, REST, payload, 400);
    frame(&s, TEXT, payload, 1000); /* and each message counts anew */
    expect_trace_max(&s, 1000, "T1000#1dd9658d P100#0a0bb1d9 T1000#1dd9658d T1000#1dd9658d ");
    free(s.p);
    s = stream_new();
    frame(&s, TEXT, payload, 1001);
    expect_trace_max(&s, 1000, "!1009 ");
    free(s.p);
    s = stream_new();
    frame(&s, TEXT_PART, payload, 1000);
    frame(&s, REST_PART, payload, 0);
    frame(&s, REST, payload, 1);
    expect_trace_max(&s, 1000, "!1009 ");
    free(s.p);
    s = stream_new();
    frame(&s, TEXT, payload, 1);
    expect_trace_max(&s, 0, "!1009 ");
    free(s.p);
    s = stream_new();
    frame(&s, TEXT, payload, 0);
    expect_trace_max(&s, 0, "T0: ");
    free(s.p);
}

Test(ws_next, judges_a_length_before_a_byte_of_the_payload_came)
{
    static const struct {
        uint64_t length;
        const char *want;
    } rows[] = {
        { 1000, "" },
        { 1001, "!1009 " },
        { UINT32_MAX, "!1009 " },
        { UINT32_MAX + UINT64_C(1), "!1009 " },
        { UINT32_MAX + UINT64_C(3), "!1009 " }, /* not two, once it is narrowed */
        { INT64_MAX, "!1009 " },
        { INT64_MAX + UINT64_C(1), "!1002 " }, /* RFC 6455 §5.2: the top bit is 0 */
        { UINT64_MAX, "!1002 " },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (int part = 0; part < 2; part++) {
            struct stream s = stream_new();

            if (part)
                frame_text(&s, TEXT_PART, "");
            frame_raw(&s, part ? REST : TEXT, rows[i].length, 8, "", 0);
            expect_trace_max(&s, 1000, rows[i].want);
            free(s.p);
        }
}

/* ---- all of it ---------------------------------------------------------------------------- */

Test(ws_next, goes_through_a_long_stream_of_everything_however_it_is_cut)
{
    struct seeded r = { 42 };
    struct stream s = stream_new();
    uint8_t payload[3700];
    bool open = false;

    for (int i = 0; i < 60; i++) {
        size_t n = seeded_below(&r, i % 7 == 0 ? sizeof(payload) : 60);
        unsigned what = (unsigned)seeded_below(&r, 4);

        for (size_t k = 0; k < n; k++) /* ASCII, so that a text may be cut anywhere */
            payload[k] = (uint8_t)(what ? '!' + seeded_below(&r, 90) : seeded_below(&r, 128));
        if (what < 2)
            frame(&s, what ? PING : PONG, payload, n % (WS_CONTROL_MAX + 1));
        else
            frame(&s, (uint8_t)((what == 2 ? 0x80 : 0) | (open ? 0 : 1 + i % 2)), payload, n);
        open = what == 3 || (what < 2 && open);
    }
    char *want = strdup(trace_of(&s, 262144, s.n, 0));

    cr_expect(strlen(want) > 300 && !strstr(want, " !"), "%s", want);
    for (int i = 0; i < 300; i++) {
        struct trace t;

        trace_init(&t, 262144, false);
        for (size_t at = 0; at < s.n;) {
            size_t n = 1 + seeded_below(&r, seeded_below(&r, 2) ? 9 : 900);

            n = min_sz(n, s.n - at);
            trace_feed(&t, s.p + at, n);
            at += n;
        }
        cr_assert_str_eq(t.text, want, "run %d", i);
        free(t.message);
    }
    expect_trace(&s, want);
    free(want);
}
