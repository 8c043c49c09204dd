/* The strict scan of relay_message and broadcast (dig.md §4.1, §5.4, §5.5; checks 5, 6, 24 and 25
 * of dig.md §20). Each text goes through the scan with vectors and without and through
 * dig_decode(), and the three must agree. */
#include "proto/dig_scan_int.h"
#include "tests/unit/dig_golden.h"
#include "tests/unit/seeded.h"

#define HEAD "{\"type\":\"relay_message\",\"from\":\"x\",\"to\":\"b\","
#define SEQ ",\"seq\":42}"

static bool same_span(struct bytes a, struct bytes b)
{
    return a.p == b.p && a.n == b.n;
}

static void expect_same(const struct dig_scan *a, const struct dig_scan *b)
{
    cr_expect(same_span(a->payload, b->payload) && a->payload_count == b->payload_count);
    cr_expect(same_span(a->to, b->to) && a->to_escaped == b->to_escaped);
    cr_expect(same_span(a->seq, b->seq) && same_span(a->tail, b->tail));
    cr_expect(same_span(a->exclude, b->exclude) && a->exclude_count == b->exclude_count);
}

/* What the scan and dig_decode() say about one message. */
static void expect_same_message(const struct dig_scan *s, enum dig_scan_kind kind,
                                const struct dig_msg *m)
{
    uint8_t to[1024];
    uint64_t seq;
    size_t n;

    cr_expect(eq(sz, s->payload_count, m->u.relay.payload_count));
    if (kind == DIG_SCAN_RELAY) {
        cr_assert(dig_unescape(s->to, to, sizeof(to), &n));
        cr_expect(bytes_eq(bytes_of(to, n), m->u.relay.to));
        cr_assert(netaddr_parse_decimal(s->seq, UINT64_MAX, &seq));
        cr_expect(eq(u64, seq, m->u.relay.seq));
    } else {
        cr_expect(eq(sz, s->exclude_count, m->u.relay.exclude_count));
    }
}

static uint8_t *kept; /* the text that the spans of the last result point into */

static enum dig_scan_kind scanned_n(struct bytes text, struct dig_scan *out)
{
    struct dig_scan plain;
    struct dig_msg m;

    free(kept);
    kept = malloc(text.n ? text.n : 1);
    memcpy(kept, text.p, text.n);
    text.p = kept;

    enum dig_scan_kind kind = dig_scan(text, out);
    enum dig_verdict v = decode_n(text, (struct dig_rules){ .hex_ids = false }, &m);
    bool relay = v == DIG_OK && m.type == DIG_RELAY_MESSAGE;
    bool broadcast = v == DIG_OK && m.type == DIG_BROADCAST;

    for (int vec = DIG_VEC_NONE; vec <= (int)dig_vec_best(); vec++) {
        enum dig_scan_kind same = dig_scan_by((enum dig_vec)vec, text, &plain);

        cr_assert(eq(int, (int)kind, (int)same), "%d: %.*s", vec, (int)text.n,
                  (const char *)text.p);
        if (kind != DIG_SCAN_OTHER)
            expect_same(out, &plain);
    }
    cr_assert(relay == (kind == DIG_SCAN_RELAY) && broadcast == (kind == DIG_SCAN_BROADCAST),
              "scan %d, decode %d: %.*s", (int)kind, (int)v, (int)text.n, (const char *)text.p);
    if (kind != DIG_SCAN_OTHER)
        expect_same_message(out, kind, &m);
    return kind;
}

static enum dig_scan_kind scanned(const char *text, struct dig_scan *out)
{
    return scanned_n(bytes_str(text), out);
}

static enum dig_scan_kind kind_of(const char *text)
{
    struct dig_scan s;

    return scanned(text, &s);
}

/* ---- messages ------------------------------------------------------------------------------ */

Test(dig_scan, finds_the_two_types_and_leaves_the_rest)
{
    const struct golden *g = golden_of("client.txt");

    for (size_t i = 0; i < g->n; i++) {
        bool relay = strcmp(g->name[i], "relay_message") == 0;
        bool broadcast = strcmp(g->name[i], "broadcast") == 0;

        cr_expect(eq(int, (int)kind_of(g->text[i]),
                     relay       ? DIG_SCAN_RELAY
                     : broadcast ? DIG_SCAN_BROADCAST
                                 : DIG_SCAN_OTHER),
                  "%s", g->name[i]);
        for (size_t n = 0; n < strlen(g->text[i]); n++) {
            struct dig_scan s;

            cr_expect(scanned_n(bytes_of(g->text[i], n), &s) == DIG_SCAN_OTHER);
        }
    }
}

Test(dig_scan, gives_the_text_as_it_stands)
{
    struct dig_scan s;

    cr_assert(scanned(golden("client.txt", "relay_message"), &s) == DIG_SCAN_RELAY);
    EXPECT_TEXT(s.to, "\"" ID_B "\"");
    EXPECT_TEXT(s.payload, "[22,3,1,0,255]");
    EXPECT_TEXT(s.seq, "42");
    EXPECT_TEXT(s.tail, "\"" ID_B "\",\"payload\":[22,3,1,0,255],\"seq\":42}");
    cr_expect(s.payload_count == 5 && !s.to_escaped);
    cr_assert(scanned(golden("client.txt", "broadcast"), &s) == DIG_SCAN_BROADCAST);
    EXPECT_TEXT(s.payload, "[1,255]");
    EXPECT_TEXT(s.exclude, "[\"" ID_B "\"]");
    cr_expect(s.payload_count == 2 && s.exclude_count == 1 && s.tail.n == 0);
    cr_assert(
        scanned("{\"seq\" : 0 , \"payload\" : [ 1 ,\t2\n] ,\"to\":\"\\u0041\\/\",\"from\":\"\","
                "\"type\":\"relay\\u005fmessage\"} ",
                &s) == DIG_SCAN_RELAY);
    EXPECT_TEXT(s.to, "\"\\u0041\\/\"");
    EXPECT_TEXT(s.payload, "[ 1 ,\t2\n]");
    EXPECT_TEXT(s.seq, "0");
    cr_expect(s.to_escaped && s.payload_count == 2 && s.tail.n == 0);
}

/* What goes out is the head of the sender and these spans (dig.md §5.4); the tail is the same text
 * in one piece. */
Test(dig_scan, gives_what_the_outgoing_message_is_made_of)
{
    uint8_t pieces[1024], whole[1024];
    struct wcur w = wcur_of(pieces, sizeof(pieces)), v = wcur_of(whole, sizeof(whole));
    struct dig_scan s;

    cr_assert(scanned(golden("client.txt", "relay_message"), &s) == DIG_SCAN_RELAY);
    dig_put_relay_head(&w, bytes_str(ID_A));
    wcur_put(&w, s.to);
    wcur_put(&w, bytes_str(DIG_RELAY_PAYLOAD));
    wcur_put(&w, s.payload);
    wcur_put(&w, bytes_str(DIG_RELAY_SEQ));
    wcur_put(&w, s.seq);
    wcur_put(&w, bytes_str(DIG_RELAY_END));
    EXPECT_TEXT(bytes_of(pieces, w.wrote), golden("relay.txt", "relay_message"));
    dig_put_relay_head(&v, bytes_str(ID_A));
    wcur_put(&v, s.tail);
    cr_expect(bytes_eq(bytes_of(pieces, w.wrote), bytes_of(whole, v.wrote)));
    cr_assert(scanned(golden("client.txt", "broadcast"), &s) == DIG_SCAN_BROADCAST);
    w = wcur_of(pieces, sizeof(pieces));
    dig_put_broadcast_head(&w, bytes_str(ID_A));
    wcur_put(&w, s.payload);
    wcur_put(&w, bytes_str(DIG_BROADCAST_END));
    EXPECT_TEXT(bytes_of(pieces, w.wrote), golden("relay.txt", "broadcast"));
}

Test(dig_scan, gives_a_tail_only_when_it_is_the_end_of_the_message)
{
    static const struct {
        const char *text;
        bool tail;
    } list[] = {
        { HEAD "\"payload\":[1]" SEQ, true },
        { " {\"x\":1,\"from\":\"x\",\"type\":\"relay_message\", \"to\":\"b\",\"payload\":[1]" SEQ,
          true },
        { HEAD "\"payload\":[1]" SEQ " ", false },
        { HEAD "\"payload\":[1] " SEQ, false },
        { HEAD " \"payload\":[1]" SEQ, false },
        { HEAD "\"payload\": [1]" SEQ, false },
        { HEAD "\"payload\":[1],\"seq\":42,\"x\":1}", false },
        { HEAD "\"payload\":[1],\"x\":1" SEQ, false },
        { HEAD "\"payload\":[1],\"seq\":42 }", false },
        { HEAD "\"seq\":42,\"payload\":[1]}", false },
        { "{\"type\":\"relay_message\",\"from\":\"x\",\"to\":\"\\/\",\"payload\":[1]" SEQ, false },
        { "{\"payload\":[1],\"seq\":42,\"to\":\"b\",\"type\":\"relay_message\",\"from\":\"x\"}",
          false },
    };
    struct dig_scan s;

    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        cr_assert(scanned(list[i].text, &s) == DIG_SCAN_RELAY, "%s", list[i].text);
        cr_expect(list[i].tail ? s.tail.p == s.to.p && s.tail.p[s.tail.n - 1] == '}'
                               : s.tail.n == 0,
                  "%s", list[i].text);
    }
}

Test(dig_scan, knows_the_members_of_the_type_alone)
{
    static const struct {
        const char *text;
        enum dig_scan_kind kind;
    } list[] = {
        { HEAD "\"payload\":[]" SEQ, DIG_SCAN_RELAY },
        { HEAD "\"exclude\":5,\"exclude\":[\"\"],\"payload\":[]" SEQ, DIG_SCAN_RELAY },
        { HEAD "\"exclude\":[\"a\",5,{}],\"payload\":[]" SEQ, DIG_SCAN_RELAY },
        { HEAD "\"x\":{\"to\":1,\"to\":2},\"x\":-1.5E+7,\"payload\":[]" SEQ, DIG_SCAN_RELAY },
        { HEAD "\"payload\":[],\"payload\":[]" SEQ, DIG_SCAN_OTHER },
        { HEAD "\"to\":\"c\",\"payload\":[]" SEQ, DIG_SCAN_OTHER },
        { HEAD "\"t\\u006f\":\"c\",\"payload\":[]" SEQ, DIG_SCAN_OTHER },
        { HEAD "\"from\":\"c\",\"payload\":[]" SEQ, DIG_SCAN_OTHER },
        { HEAD "\"type\":\"relay_message\",\"payload\":[]" SEQ, DIG_SCAN_OTHER },
        { HEAD "\"type\":\"broadcast\",\"exclude\":[],\"payload\":[]" SEQ, DIG_SCAN_OTHER },
        { HEAD "\"seq\":1,\"payload\":[]" SEQ, DIG_SCAN_OTHER },
        { HEAD "\"payload\":[]}", DIG_SCAN_OTHER },
        { HEAD "\"payload\":[],\"seq\":-1}", DIG_SCAN_OTHER },
        { HEAD "\"payload\":[],\"seq\":1.0}", DIG_SCAN_OTHER },
        { HEAD "\"payload\":[],\"seq\":\"1\"}", DIG_SCAN_OTHER },
        { HEAD "\"payload\":[],\"seq\":18446744073709551615}", DIG_SCAN_RELAY },
        { HEAD "\"payload\":[],\"seq\":18446744073709551616}", DIG_SCAN_OTHER },
        { HEAD "\"payload\":\"abc\"" SEQ, DIG_SCAN_OTHER },
        { HEAD "\"payload\":null" SEQ, DIG_SCAN_OTHER },
        { "{\"type\":\"relay_message\",\"from\":1,\"to\":\"b\",\"payload\":[]" SEQ,
          DIG_SCAN_OTHER },
        { "{\"type\":\"relay_message\",\"from\":\"\",\"to\":1,\"payload\":[]" SEQ, DIG_SCAN_OTHER },
        { "{\"type\":\"relay_message\",\"to\":\"b\",\"payload\":[]" SEQ, DIG_SCAN_OTHER },
        { "{\"type\":\"Broadcast\",\"from\":\"\",\"payload\":[],\"exclude\":[]}", DIG_SCAN_OTHER },
        { "{\"type\":\"broadcast\",\"from\":\"\",\"payload\":[],\"exclude\":[]}",
          DIG_SCAN_BROADCAST },
        { "{\"type\":\"broadcast\",\"from\":\"\",\"payload\":[],\"exclude\":[],\"to\":1,\"to\":1,"
          "\"seq\":-1,\"seq\":null}",
          DIG_SCAN_BROADCAST },
        { "{\"type\":\"broadcast\",\"from\":\"\",\"payload\":[],\"exclude\":[1]}", DIG_SCAN_OTHER },
        { "{\"type\":\"broadcast\",\"from\":\"\",\"payload\":[],\"exclude\":null}",
          DIG_SCAN_OTHER },
        { "{\"type\":\"broadcast\",\"from\":\"\",\"payload\":[],\"exclude\":[],\"exclude\":[]}",
          DIG_SCAN_OTHER },
        { "{\"type\":\"broadcast\",\"from\":\"\",\"payload\":[]}", DIG_SCAN_OTHER },
        { "{\"type\":\"broadcast\",\"from\":\"\",\"exclude\":[]}", DIG_SCAN_OTHER },
    };

    for (size_t i = 0; i < ARRAY_LEN(list); i++)
        cr_expect(eq(int, (int)kind_of(list[i].text), (int)list[i].kind), "%s", list[i].text);
}

Test(dig_scan, is_as_strict_about_json_as_dig_decode)
{
    static const char *const values[] = {
        "0",
        "-0",
        "01",
        "1.",
        "1.5",
        ".5",
        "1e5",
        "1e",
        "1E+5",
        "1e-",
        "-",
        "+1",
        "--1",
        "0x1",
        "1e999999",
        "123456789012345678901234567890",
        "true",
        "tru",
        "truex",
        "false",
        "null",
        "nul",
        "nan",
        "\"\"",
        "\"",
        "\"\\\"",
        "\"\\\\\"",
        "\"\\/\\b\\f\\n\\r\\t\"",
        "\"\\a\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\uABCD\\uabcd\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\ud800\\ud800\"",
        "\"\\udbff\\udfff\"",
        "\"\\udc00\"",
        "\"\\ud800x\"",
        "\"\\u0000\"",
        "\"\t\"",
        "\"\n\"",
        "\"\x1f\"",
        "\"\x7f\"",
        "\"\xc3\xa9\"",
        "\"\xc3\"",
        "\"\xe2\x82\xac\"",
        "\"\xe2\x82\"",
        "\"\xed\xa0\x80\"",
        "\"\xf0\x9f\x98\x80\"",
        "\"\xf4\x90\x80\x80\"",
        "\"\xff\"",
        "[]",
        "[ ]",
        "[1]",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1",
        "]",
        "{}",
        "{ }",
        "{\"\":1}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\" :\t1 , \"a\":2}",
        "{1:2}",
        "{a:1}",
        "{\"a\":1",
        "{\"a\":[{\"b\":[[],{},[{}]]},1,\"x\"]}",
        "[{]}",
        "[}",
        "{]",
        "[[[]]",
        "",
        " ",
        "1 2",
        "/**/1",
        "\357\273\2771",
        "'a'",
    };
    char text[512];

    for (size_t i = 0; i < ARRAY_LEN(values); i++) { /* scanned() compares the three */
        snprintf(text, sizeof(text), HEAD "\"x\":%s,\"payload\":[1]" SEQ, values[i]);
        (void)kind_of(text);
        snprintf(text, sizeof(text), HEAD "\"payload\":%s" SEQ, values[i]);
        (void)kind_of(text);
        snprintf(text, sizeof(text), HEAD "\"payload\":[1],\"seq\":%s}", values[i]);
        (void)kind_of(text);
        snprintf(text, sizeof(text), HEAD "\"payload\":[1]" SEQ "%s", values[i]);
        (void)kind_of(text);
        snprintf(text, sizeof(text), "%s" HEAD "\"payload\":[1]" SEQ, values[i]);
        (void)kind_of(text);
        snprintf(text, sizeof(text),
                 "{\"type\":\"relay_message\",\"from\":\"\",\"to\":%s,\"payload\":[1]" SEQ,
                 values[i]);
        (void)kind_of(text);
        snprintf(text, sizeof(text),
                 "{\"type\":\"broadcast\",\"from\":%s,\"payload\":[],\"exclude\":[%s]}", values[i],
                 values[i]);
        (void)kind_of(text);
    }
}

Test(dig_scan, nests_to_128_levels)
{
    static char text[2048];

    for (const char *c = "[]{}"; *c; c += 2)
        for (unsigned levels = DIG_DEPTH_MAX - 2; levels < DIG_DEPTH_MAX + 3; levels++) {
            size_t n = (size_t)sprintf(text, HEAD "\"x\":");

            for (unsigned i = 1; i < levels; i++)
                n += (size_t)sprintf(text + n, c[0] == '{' && i + 1 < levels ? "{\"\":" : "%c",
                                     c[0]);
            for (unsigned i = 1; i < levels; i++)
                text[n++] = c[1];
            snprintf(text + n, sizeof(text) - n, ",\"payload\":[1]" SEQ);
            cr_expect(kind_of(text) == (levels <= DIG_DEPTH_MAX ? DIG_SCAN_RELAY : DIG_SCAN_OTHER),
                      "%u", levels);
        }
}

/* ---- the payload --------------------------------------------------------------------------- */

/* Every kind of element at every place of a vector and across its border, behind elements of every
 * length. */
Test(dig_scan, judges_every_element_at_every_place)
{
    static const char *const odd[] = {
        "0",   "9",    "10",    "99",   "100", "199",  "200",  "249", "250", "255",  "256",
        "259", "260",  "299",   "300",  "999", "1000", "2550", "00",  "01",  "000",  "001",
        "010", "0255", "",      "-1",   "1.0", "1e1",  "a",    " 7 ", "7\t", "\x80", "[",
        "]",   "[1]",  "\"1\"", "1,,2", "1 2", "/",    ":",    "0,0",
    };
    static const char *const behind[] = { "", ",1", ",255",
                                          ",12,0,255,255,1,1,1,1,1,1,1,1,1,1,1,1" };
    static char text[1024];

    for (size_t i = 0; i < ARRAY_LEN(odd); i++)
        for (size_t b = 0; b < ARRAY_LEN(behind); b++)
            for (int first = 1; first <= 3; first++)
                for (int before = 0; before < 40; before++) {
                    size_t n = (size_t)sprintf(text, HEAD "\"payload\":[");

                    for (int k = 0; k < before; k++)
                        n += (size_t)sprintf(text + n, "%s,",
                                             first == 1   ? "7"
                                             : first == 2 ? "77"
                                             : k % 2      ? "255"
                                                          : "0");
                    snprintf(text + n, sizeof(text) - n, "%s%s]" SEQ, odd[i], behind[b]);
                    (void)kind_of(text);
                }
}

Test(dig_scan, takes_all_bytes_and_counts_them)
{
    static char text[1 << 14];
    struct dig_scan s;

    for (int count = 0; count < 300; count++) {
        size_t n = (size_t)sprintf(text, HEAD "\"payload\":[");

        for (int k = 0; k < count; k++)
            n += (size_t)sprintf(text + n, "%s%d", k ? "," : "", k * 7 % 256);
        snprintf(text + n, sizeof(text) - n, "]" SEQ);
        cr_assert(scanned(text, &s) == DIG_SCAN_RELAY, "%s", text);
        cr_expect(eq(sz, s.payload_count, (size_t)count));
    }
    for (int v = 0; v <= 1100; v++) { /* and no number that is none */
        sprintf(text, HEAD "\"payload\":[0,0,0,%d,0,0,0,0,0,0,0,0,0]" SEQ, v);
        cr_expect(kind_of(text) == (v <= 255 ? DIG_SCAN_RELAY : DIG_SCAN_OTHER), "%d", v);
    }
}

/* Messages that are nearly right: one to three bytes changed, put in or taken out. */
Test(dig_scan, agrees_with_dig_decode_on_damaged_messages)
{
    static const char odd[] = "0123456789,,,[]{}\"\\: \t\n-+.eEtfnu/\x7f\xc3\xa9\x01";
    static char text[4096];
    size_t accepted = 0;

    for (uint64_t seed = 1; seed <= 20000; seed++) {
        struct seeded r = { seed };
        size_t n = (size_t)sprintf(
            text, seeded_below(&r, 4) ? HEAD "\"payload\":["
                                      : "{\"type\":\"broadcast\",\"exclude\":[\"aé\",\"\\n\"],"
                                        "\"from\":\"x\",\"payload\":[");
        size_t count = seeded_below(&r, 60);

        for (size_t k = 0; k < count; k++)
            n += (size_t)sprintf(text + n, "%s%d", k ? "," : "", (int)seeded_below(&r, 256));
        n += (size_t)sprintf(text + n, "]%s}", seeded_below(&r, 4) ? ",\"seq\":7" : "");
        for (uint64_t k = seeded_below(&r, 4); k > 0; k--) {
            size_t at = (size_t)seeded_below(&r, n);
            char ch = odd[seeded_below(&r, sizeof(odd) - 1)];

            switch (seeded_below(&r, 3)) {
            case 0:
                text[at] = ch;
                break;
            case 1:
                memmove(text + at + 1, text + at, n++ - at);
                text[at] = ch;
                break;
            default:
                memmove(text + at, text + at + 1, --n - at);
            }
        }
        struct dig_scan s;

        accepted += scanned_n(bytes_of(text, n), &s) != DIG_SCAN_OTHER;
    }
    cr_expect(accepted > 3000 && accepted < 17000, "%zu of 20000: half a test", accepted);
}

/* ---- exclude and unescape ------------------------------------------------------------------ */

Test(dig_exclude, gives_each_string_once)
{
    static const char *const want[] = { "\"a\"", "\"\\\",\\\\\"", "\"]\"", "\"\"", "\"é\"" };
    struct dig_scan s;
    struct bytes string;

    cr_assert(scanned("{\"type\":\"broadcast\",\"from\":\"\",\"payload\":[],\"exclude\":"
                      "[\"a\" ,\"\\\",\\\\\",\n\"]\",\"\",\"é\" ]}",
                      &s) == DIG_SCAN_BROADCAST);
    cr_expect(eq(sz, s.exclude_count, ARRAY_LEN(want)));
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        cr_assert(dig_exclude_next(&s.exclude, &string));
        EXPECT_TEXT(string, want[i]);
    }
    cr_expect(not(dig_exclude_next(&s.exclude, &string)));
    cr_expect(not(dig_exclude_next(&s.exclude, &string)));
    struct bytes none = bytes_str("[]");

    cr_expect(not(dig_exclude_next(&none, &string)));
}

Test(dig_unescape, gives_the_bytes_or_says_that_they_do_not_fit)
{
    static const struct {
        const char *text, *want;
    } list[] = {
        { "\"\"", "" },
        { "\"a b\"", "a b" },
        { "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t" },
        { "\"\\u0041\\u007f\\u0080\\u07ff\\u0800\\uffff\"",
          "A\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf" },
        { "\"\\ud800\\udc00\\uDBFF\\uDFFF\"", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf" },
        { "\"x\xc3\xa9\\u00e9\"", "x\xc3\xa9\xc3\xa9" },
    };

    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        size_t want = strlen(list[i].want), n = 77;

        for (size_t cap = 0; cap <= want + 1; cap++) {
            uint8_t *tight = malloc(cap ? cap : 1);
            bool fits = dig_unescape(bytes_str(list[i].text), tight, cap, &n);

            cr_expect(fits == (cap >= want), "%s in %zu", list[i].text, cap);
            if (fits)
                cr_expect(n == want && memcmp(tight, list[i].want, n) == 0, "%s", list[i].text);
            free(tight);
        }
    }
}
