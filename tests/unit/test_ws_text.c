/* What WebSocket messages say: that a text is UTF-8 wherever it is cut, and how a Close is answered
 * (RFC 6455 §8.1, §5.5.1, §7.4; dig.md §3.2, §3.3). Numbers in brackets are the Autobahn suite's.
 */
#include "tests/unit/ws_trace.h"

/* ---- texts --------------------------------------------------------------------------------- */

Test(ws_next, checks_a_text_across_fragments_and_pieces) /* [6.2.1-6.2.4] */
{
    static const char text[] = "Hello-\xc2\xb5@\xc3\x9f\xc3\xb6\xc3\xa4\xc3\xbc-UTF-8!!"
                               "\xe2\x82\xac\xf0\x9f\x98\x80.";
    struct stream s = stream_new();

    frame_text(&s, TEXT, text);
    for (size_t cut = 0; cut < sizeof(text); cut++) { /* every split of it in two frames */
        frame(&s, TEXT_PART, text, cut);
        frame(&s, PING, "\xff\xc3", 2); /* what a ping carries is no text, and not part of it */
        frame(&s, REST, text + cut, sizeof(text) - 1 - cut);
    }
    for (size_t i = 0; i < sizeof(text) - 1; i++) /* one byte a frame */
        frame(&s, (uint8_t)((i == sizeof(text) - 2 ? 0x80 : 0) | (i == 0)), text + i, 1);
    const char *got = trace_of(&s, 1000, s.n, 0);
    size_t count = 0;

    for (const char *at = got; (at = strstr(at, "T33#")); at++)
        count++;
    cr_expect_eq(count, 1 + sizeof(text) + 1, "%s", got);
    cr_expect(strstr(got, "!") == NULL);
    char *want = strdup(got);

    expect_trace(&s, want);
    free(want);
}

Test(ws_next, refuses_a_text_that_is_none_wherever_it_is_cut) /* [6.3.1-6.4.4] */
{
    static const char head[] = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5";
    static const char *const bad[] = { "\xed\xa0\x80",
                                       "\xf4\x90\x80\x80",
                                       "\x80",
                                       "\xc0\xaf",
                                       "\xe0\x80\xaf",
                                       "\xf0\x80\x80\xaf",
                                       "\xff",
                                       "\xfe",
                                       "\xf8\x88\x80\x80\x80",
                                       "\xc3(",
                                       "\xe2\x82(" };
    char text[256];

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        for (int pad = 0; pad < 130; pad += 13) { /* the fault in each part of a block */
            int n = snprintf(text, sizeof(text), "%s%.*s%sedited", head, pad,
                             "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                             "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                             bad[i]);
            struct stream s = stream_new();

            frame_text(&s, TEXT, "fine");
            frame(&s, TEXT, text, (size_t)n);
            frame_text(&s, PING, "unheard");
            expect_trace(&s, "T4:fine !1007 ");
            s = stream_new();
            frame(&s, BINARY, text, (size_t)n);
            frame_text(&s, PING, "heard");
            char *want = strdup(trace_of(&s, 1000, s.n, 0));

            cr_expect(want[0] == 'B' && strstr(want, "P5:heard"));
            expect_trace(&s, want);
            free(want);
        }
}

Test(ws_next, does_not_wait_for_the_end_of_a_bad_text) /* [6.4.x] */
{
    struct stream s = stream_new();

    frame_raw(&s, TEXT, 1000, 0, "\xce\xba\xf4\x90", 4);
    expect_trace(&s, "!1007 ");
    s = stream_new();
    frame_raw(&s, TEXT, 1000, 0, "\xce\xba\xf4", 3);
    expect_trace(&s, "");
}

Test(ws_next, refuses_a_text_that_ends_within_a_character) /* [6.6.x] */
{
    static const char text[] = "\xce\xba\xe1\xbd\xb9\xf0\x9f\x98\x80";
    static const bool whole[] = {
        true, false, true, false, false, true, false, false, false, true
    };

    for (size_t n = 0; n < sizeof(text); n++)
        for (int parts = 0; parts < 2; parts++) {
            struct stream s = stream_new();

            if (parts)
                frame(&s, TEXT_PART, text, n);
            frame(&s, parts ? REST : TEXT, text, parts ? 0 : n);
            frame_text(&s, TEXT, "next"); /* which begins anew */
            const char *got = trace_of(&s, 1000, s.n, 0);

            cr_expect_eq(strcmp(got, "!1007 ") == 0, !whole[n], "%zu bytes: %s", n, got);
            cr_expect_eq(strstr(got, "T4:next ") != NULL, whole[n]);
            char *want = strdup(got);

            expect_trace(&s, want);
            free(want);
        }
}

Test(ws_next, knows_every_border_of_utf8) /* [6.5.x-6.23.x] */
{
    static const struct {
        const char *text;
        bool good;
    } rows[] = {
        { "\xc2\x80", true },
        { "\xe0\xa0\x80", true }, /* the first of each length */
        { "\xf0\x90\x80\x80", true },
        { "\xf8\x88\x80\x80\x80", false },
        { "\xfc\x84\x80\x80\x80\x80", false },
        { "\x7f", true },
        { "\xdf\xbf", true }, /* the last */
        { "\xef\xbf\xbf", true },
        { "\xf4\x8f\xbf\xbf", true },
        { "\xf7\xbf\xbf\xbf", false },
        { "\xed\x9f\xbf", true },
        { "\xee\x80\x80", true }, /* around the surrogates */
        { "\xef\xbf\xbd", true },
        { "\xf4\x90\x80\x80", false },
        { "\x80", false },
        { "\xbf", false },
        { "\x80\xbf\x80", false },
        { "\xc0\xaf", false }, /* longer than need be */
        { "\xe0\x80\xaf", false },
        { "\xf0\x80\x80\xaf", false },
        { "\xc1\xbf", false },
        { "\xe0\x9f\xbf", false },
        { "\xf0\x8f\xbf\xbf", false },
        { "\xf8\x80\x80\x80\xaf", false },
        { "\xc0\x80", false },
        { "\xe0\x80\x80", false },
        { "\xed\xa0\x80", false },
        { "\xed\xbf\xbf", false }, /* surrogates, and pairs of them */
        { "\xed\xa0\x80\xed\xb0\x80", false },
        { "\xef\xbf\xbe", true },
        { "\xf0\x9f\xbf\xbf", true }, /* no characters, but valid */
        { "\xef\xbf\xb9", true },
        { "\xc2 ", false }, /* starts alone */
        { "\xe1\x80 ", false },
        { "\xf1\x80\x80 ", false },
        { "\xdf\xef\xbf", false },
        { "\xfe", false },
        { "\xff", false },
        { "\xfe\xfe\xff\xff", false },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (int as_close = 0; as_close < 2; as_close++) {
            struct stream s = stream_new();
            char reason[16];

            snprintf(reason, sizeof(reason), "\x03\xe8%s", rows[i].text);
            if (as_close)
                frame_text(&s, CLOSE, reason);
            else
                frame_text(&s, TEXT, rows[i].text);
            char *got = strdup(trace_of(&s, 1000, s.n, 0));

            cr_expect_eq(strcmp(got, "!1007 ") == 0, !rows[i].good, "row %zu: %s", i, got);
            expect_trace(&s, got);
            free(got);
        }
}

/* ---- closing ------------------------------------------------------------------------------- */

Test(ws_next, hears_nothing_after_a_close) /* [7.1.1-7.1.6] */
{
    struct stream s = stream_new();

    frame_text(&s, TEXT, "hi");
    frame_text(&s, TEXT_PART, "fragment1");
    frame(&s, CLOSE, "\x03\xe8", 2);
    frame_text(&s, REST, "fragment2");
    frame(&s, CLOSE, "\x03\xe9", 2);
    frame_text(&s, PING, "x");
    frame_text(&s, 0xff, "not even a fault");
    expect_trace(&s, "T2:hi C1000: ");
}

static void expect_close(const void *payload, size_t n, const char *want, const void *reply,
                         size_t reply_n)
{
    struct stream s = stream_new();
    struct ws_rx rx;
    struct ws_event ev;
    uint8_t *p, out[WS_CONTROL_MAX];
    size_t left;

    frame(&s, CLOSE, payload, n);
    cr_expect_str_eq(trace_of(&s, 100, s.n, 0), want);
    ws_rx_init(&rx, 100);
    p = s.p;
    left = s.n;
    if (want[0] == 'C') {
        cr_assert_eq(ws_next(&rx, &p, &left, &ev), WS_CLOSE);
        cr_assert_eq(ws_close_reply(&ev, out), reply_n);
        cr_expect(memcmp(out, reply, reply_n) == 0);
    }
    free(s.p);
    s = stream_new();
    frame(&s, CLOSE, payload, n);
    expect_trace(&s, want);
}

Test(ws_close_reply, is_what_was_said) /* [7.3.1-7.3.6, 7.5.1], dig.md §3.3 */
{
    uint8_t full[WS_CONTROL_MAX] = { 0x03, 0xe8 };

    memset(full + 2, '*', sizeof(full) - 2);
    expect_close("", 0, "C0 ", "", 0);
    expect_close("\x03", 1, "!1002 ", "", 0);
    expect_close("\x03\xe8", 2, "C1000: ", "\x03\xe8", 2);
    expect_close("\x03\xe9"
                 "bye",
                 5, "C1001:bye ",
                 "\x03\xe9"
                 "bye",
                 5);
    expect_close(full, sizeof(full), "C1000#d083a28d ", full, sizeof(full));
    expect_close("\x03\xe8\xce\xba\xe1\xbd", 6, "!1007 ", "", 0);
    expect_close("\x03\xe8\xed\xa0\x80", 5, "!1007 ", "", 0);
}

Test(ws_close_reply, answers_1002_to_a_code_that_may_not_be_sent) /* [7.7.x, 7.9.x, 7.13.x] */
{
    static const uint16_t good[] = { 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010,
                                     1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999 };
    static const uint16_t bad[] = { 0,    999,  1004, 1005, 1006, 1015,
                                    1016, 1100, 2000, 2999, 5000, 65535 };
    char want[16];

    for (size_t i = 0; i < ARRAY_LEN(good) + ARRAY_LEN(bad); i++) {
        bool legal = i < ARRAY_LEN(good);
        uint16_t code = legal ? good[i] : bad[i - ARRAY_LEN(good)];
        uint8_t payload[3] = { (uint8_t)(code >> 8), (uint8_t)code, 'r' };

        cr_expect_eq(ws_code_ok(code), legal, "%u", code);
        snprintf(want, sizeof(want), code ? "C%u:r " : "C%u ", code);
        expect_close(payload, 3, want, legal ? payload : (const uint8_t *)"\x03\xea",
                     legal ? 3 : 2);
    }
}
