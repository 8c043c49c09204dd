#include "engine/printable.h"

#include "engine/json.h"

/* U+0080..9F are controls to some terminals; the rest order text about: a name that is written from
 * right to left could swallow the fields behind it. */
static bool unwelcome(const uint8_t *p, size_t n)
{
    uint32_t c = p[0];

    if (n == 1)
        return c < 0x20 || c == 0x7f;
    if (n == 2)
        return c == 0xc2 && p[1] < 0xa0;
    if (n == 3)
        c = (c & 0xf) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    return (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
           (c >= 0x2060 && c <= 0x206f) || c == 0xfeff;
}

void printable(struct bytes name, char *out, size_t cap)
{
    size_t n = 0;

    for (size_t i = 0; i < name.n;) {
        size_t len = json_utf8_len(name.p + i, name.n - i);
        bool shown = len && !unwelcome(name.p + i, len);

        if (n + (shown ? len : 1) >= cap)
            break;
        if (shown)
            memcpy(out + n, name.p + i, len);
        else
            out[n] = '?';
        n += shown ? len : 1;
        i += len ? len : 1;
    }
    out[n] = '\0';
}
