/* Reads the input as a request, writes what was read and reads it again; and writes the input
 * itself as one string, which must come out as text without anything that ends it early. */
#include "tests/fuzz/fuzz.h"

#include "engine/json.h"

/* \u is written for these, and a request may not hold it. */
static bool plain(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || (unsigned char)*text >= 0x7f)
            return false;
    return true;
}

static void again(const struct json_flat *o)
{
    char out[4096];
    struct jw j = jw_of(out, sizeof(out));
    struct json_flat back;
    bool same = true;

    jw_open(&j, '{');
    for (unsigned i = 0; i < o->n; i++) {
        jw_kstr(&j, o->field[i].key, o->field[i].text);
        same = same && plain(o->field[i].key) && plain(o->field[i].text);
    }
    jw_close(&j, '}');
    CHECK(!j.bad);
    if (!same)
        return;
    CHECK(json_flat_decode(bytes_of(out, j.n), &back));
    CHECK(back.n == o->n);
    for (unsigned i = 0; i < o->n; i++)
        CHECK(strcmp(back.field[i].key, o->field[i].key) == 0 &&
              strcmp(back.field[i].text, o->field[i].text) == 0);
}

static void as_string(const uint8_t *data, size_t size)
{
    char text[512], out[4096];
    struct jw j = jw_of(out, sizeof(out));
    size_t n = min_sz(size, sizeof(text) - 1);

    if (n)
        memcpy(text, data, n);
    text[n] = '\0';
    jw_str(&j, text);
    CHECK(!j.bad && j.n >= 2 && out[0] == '"' &&
          out[j.n - 1] == '"'); /* six bytes for one at most */
    for (size_t i = 1; i < j.n - 1; i++) {
        CHECK((unsigned char)out[i] >= ' ' && out[i] != '"' && out[i] != 0x7f);
        if (out[i] == '\\')
            CHECK(strchr("\"\\u", out[++i]));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json_flat o;

    if (json_flat_decode(bytes_of(data, size), &o)) {
        CHECK(o.n <= JSON_FIELDS_MAX);
        CHECK(json_flat_get(&o, "no such key, it is longer than any") == NULL);
        again(&o);
    }
    as_string(data, size);
    return 0;
}
