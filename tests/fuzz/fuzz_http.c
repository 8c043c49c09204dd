/* The whole input is what came on a connection; every prefix of it is what had come before. */
#include "tests/fuzz/fuzz.h"

#include "engine/http.h"

enum { PREFIXES_OF = 600 };

/* An answer fits or is not written; it is its head and the body, and HEAD has the same head. */
static void answer(struct bytes body)
{
    char out[2048], head[2048];
    struct http_reply r = { body.n % 2 ? 200 : 405, body.n % 3 ? "text/plain" : NULL,
                            body.n % 5 ? NULL : "GET", body };
    size_t n = http_encode(&r, false, out, sizeof(out));
    size_t m = http_encode(&r, true, head, sizeof(head));

    CHECK(m > 0 && m <= HTTP_REPLY_HEAD_MAX);
    CHECK(n == (body.n <= sizeof(out) - m ? m + body.n : 0));
    if (n) {
        CHECK(memcmp(out, head, m) == 0);
        CHECK(bytes_eq(bytes_of(out + m, n - m), body));
        CHECK(http_encode(&r, false, head, n - 1) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_req whole = { 0 }, part = { 0 };
    enum http_verdict v = http_decode(bytes_of(data, size), &whole);

    if (v == HTTP_READY) {
        CHECK(!(whole.get && whole.head));
        CHECK(whole.path.n == 0 ? !whole.get && !whole.head : whole.path.p[0] == '/');
        for (size_t i = 0; i < whole.path.n; i++)
            CHECK(whole.path.p[i] > ' ' && whole.path.p[i] != '?' && whole.path.p[i] != 0x7f);
    } else {
        CHECK(whole.path.n == 0);
    }
    answer(bytes_of(data, size));
    CHECK(http_reason((int)size)[0]);
    CHECK(v != HTTP_MORE || size < HTTP_HEAD_MAX); /* nobody is waited for without end */
    CHECK(v != HTTP_LARGE || size >= HTTP_HEAD_MAX);

    /* The first prefix that is answered is answered as the whole is. */
    for (size_t n = 0; n < size && size <= PREFIXES_OF; n++) {
        enum http_verdict w = http_decode(bytes_of(data, n), &part);

        if (w == HTTP_MORE)
            continue;
        CHECK(w == v);
        CHECK(part.get == whole.get && part.head == whole.head && bytes_eq(part.path, whole.path));
        break;
    }
    return 0;
}
