/* The operator's JSON: what is written parses, what does not fit is known, what is read is flat. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/json.h"

Test(json_write, puts_commas_where_they_belong)
{
    char out[256];
    struct jw j = jw_of(out, sizeof(out));

    jw_open(&j, '{');
    jw_ku64(&j, "a", 18446744073709551615u);
    jw_key(&j, "list");
    jw_open(&j, '[');
    jw_u64(&j, 1);
    jw_open(&j, '{');
    jw_close(&j, '}');
    jw_str(&j, "x");
    jw_close(&j, ']');
    jw_kbool(&j, "b", true);
    jw_kstr(&j, "c", "");
    jw_close(&j, '}');
    cr_expect_not(j.bad);
    cr_expect_str_eq(out,
                     "{\"a\":18446744073709551615,\"list\":[1,{},\"x\"],\"b\":true,\"c\":\"\"}");
    cr_expect_eq(j.n, strlen(out));
}

Test(json_write, escapes_what_json_cannot_hold)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        { "a\"b\\c", "\"a\\\"b\\\\c\"" },
        { "\n\x01\x1f\x7f", "\"\\u000a\\u0001\\u001f\\u007f\"" },
        { "✅ é 𝄞", "\"✅ é 𝄞\"" },
        { "\xff", "\"\xef\xbf\xbd\"" },
        { "\xc3", "\"\xef\xbf\xbd\"" },                                 /* cut */
        { "\xc0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\"" },                 /* overlong */
        { "\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"" }, /* surrogate */
        { "\xf4\x90\x80\x80",
          "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"" }, /* > 10FFFF */
        { "\xe0\x9f\xbfx", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx\"" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char out[64];
        struct jw j = jw_of(out, sizeof(out));

        jw_str(&j, rows[i].in);
        cr_expect_str_eq(out, rows[i].out, "row %zu", i);
    }
}

Test(json_write, knows_when_it_did_not_fit_and_stays_inside)
{
    for (size_t cap = 1; cap < 40; cap++) {
        char *out = malloc(cap); /* the sanitizer watches its end */
        struct jw j = jw_of(out, cap);

        jw_open(&j, '{');
        jw_kstr(&j, "key", "value \x01");
        jw_close(&j, '}');
        cr_expect_eq(j.bad, cap < sizeof("{\"key\":\"value \\u0001\"}"), "cap %zu", cap);
        cr_expect_lt(strlen(out), cap);
        free(out);
    }
}

static bool decode(const char *text, struct json_flat *o)
{
    return json_flat_decode(bytes_str(text), o);
}

Test(json_read, takes_one_flat_object)
{
    struct json_flat o;

    cr_assert(decode(
        " { \"cmd\" : \"drain\", \"secs\":5,\"force\": true , \"t\":\"a\\\"b\\n\\/\" } \r\n", &o));
    cr_expect_eq(o.n, 4u);
    cr_expect_str_eq(json_flat_get(&o, "cmd"), "drain");
    cr_expect_str_eq(json_flat_get(&o, "secs"), "5");
    cr_expect_str_eq(json_flat_get(&o, "force"), "true");
    cr_expect_str_eq(json_flat_get(&o, "t"), "a\"b\n/");
    cr_expect_null(json_flat_get(&o, "cm"));
    cr_assert(decode("{}", &o));
    cr_expect_eq(o.n, 0u);
}

Test(json_read, refuses_everything_else)
{
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "}",
        "{]",
        "[]",
        "\"x\"",
        "1",
        "{}x",
        "{}{}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,\"a\":1}",
        "{\"a\":1 \"b\":2}",
        "{a:1}",
        "{\"a\":-1}",
        "{\"a\":1.5}",
        "{\"a\":null}",
        "{\"a\":{}}",
        "{\"a\":[]}",
        "{\"a\":\"x}",
        "{\"a\":\"\\u0041\"}",
        "{\"a\":\"\\",
        "{\"a\":\"\n\"}",
        "{\"a\":truefalse}",
        "{\"a\":1e3}",
        "{\"a\":tru}",
        "{\"0123456789012345678901234567890123456789\":1}",
        "{\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1}",
    };
    struct json_flat o;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect_not(decode(bad[i], &o), "accepted %s", bad[i]);
}

Test(json_read, survives_every_truncation_and_every_changed_byte)
{
    static const char good[] =
        "{\"cmd\":\"log-level\",\"level\":\"de\\\"bug\",\"n\":12,\"b\":false}";
    struct json_flat o;

    for (size_t n = 0; n < sizeof(good) - 1; n++) {
        uint8_t *cut = malloc(n ? n : 1);

        memcpy(cut, good, n);
        cr_expect_not(json_flat_decode(bytes_of(cut, n), &o), "accepted %zu bytes", n);
        for (unsigned v = 0; n && v < 256; v++) {
            cut[n - 1] = (uint8_t)v;
            (void)!json_flat_decode(bytes_of(cut, n), &o);
        }
        free(cut);
    }
}
