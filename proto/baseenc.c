#include "proto/baseenc.h"

static const char base58[] = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
static const char base36[] = "0123456789abcdefghijklmnopqrstuvwxyz";
static const char base32[] = "abcdefghijklmnopqrstuvwxyz234567";
static const char base64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char base64i2p[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-~";

/* The digit's value, or `radix` for a character outside the alphabet. */
static unsigned digit_of(const char *alphabet, unsigned radix, uint8_t ch)
{
    const char *at = memchr(alphabet, ch, radix);

    return at ? (unsigned)(at - alphabet) : radix;
}

/* Text in a radix that is no power of two is one big number; each leading zero digit stands for a
 * leading zero byte. Schoolbook, and so quadratic: both bounds keep it under 2^15 steps. */
static bool radix_decode(const char *alphabet, unsigned radix, struct wcur *w, struct bytes text)
{
    uint8_t number[BASE_BYTES_MAX]; /* big-endian, its last `n` bytes in use */
    size_t n = 0;
    size_t zeros = 0;

    if (text.n > BASE_TEXT_MAX)
        return false;
    while (zeros < text.n && text.p[zeros] == (uint8_t)alphabet[0])
        zeros++;
    for (size_t i = zeros; i < text.n; i++) {
        unsigned carry = digit_of(alphabet, radix, text.p[i]);

        if (carry == radix)
            return false;
        for (size_t k = 0; k < n; k++) {
            uint8_t *at = &number[BASE_BYTES_MAX - 1 - k];

            carry += *at * radix;
            *at = (uint8_t)carry;
            carry >>= 8;
        }
        if (carry == 0)
            continue;
        if (n == BASE_BYTES_MAX) {
            w->bad = true;
            return false;
        }
        number[BASE_BYTES_MAX - 1 - n++] = (uint8_t)carry;
    }
    if (zeros + n > BASE_BYTES_MAX)
        w->bad = true;
    for (size_t i = 0; i < zeros; i++)
        wcur_u8(w, 0);
    wcur_put(w, bytes_of(number + BASE_BYTES_MAX - n, n));
    return !w->bad;
}

bool base58_decode(struct wcur *w, struct bytes text)
{
    return radix_decode(base58, 58, w, text);
}

bool base36_decode(struct wcur *w, struct bytes text)
{
    return radix_decode(base36, 36, w, text);
}

void base58_encode(struct wcur *w, struct bytes in)
{
    uint8_t digits[BASE_BYTES_MAX * 11 / 8 + 1]; /* log 256 / log 58 < 11 / 8 */
    size_t n = 0;                                /* the last `n` are in use */
    size_t zeros = 0;

    if (in.n > BASE_BYTES_MAX) {
        w->bad = true;
        return;
    }
    while (zeros < in.n && in.p[zeros] == 0)
        zeros++;
    for (size_t i = zeros; i < in.n; i++) {
        unsigned carry = in.p[i];

        for (size_t k = 0; k < n; k++) {
            uint8_t *at = &digits[sizeof(digits) - 1 - k];

            carry += (unsigned)*at << 8;
            *at = (uint8_t)(carry % 58);
            carry /= 58;
        }
        for (; carry; carry /= 58) {
            ASSERT(n < sizeof(digits));
            digits[sizeof(digits) - 1 - n++] = (uint8_t)(carry % 58);
        }
    }
    for (size_t i = 0; i < zeros; i++)
        wcur_u8(w, (uint8_t)base58[0]);
    for (size_t i = sizeof(digits) - n; i < sizeof(digits); i++)
        wcur_u8(w, (uint8_t)base58[digits[i]]);
}

/* Radix 2^bits: characters and bytes shift through one small accumulator. */
static bool bits_decode(const char *alphabet, unsigned bits, struct wcur *w, struct bytes text)
{
    unsigned have = 0;
    uint32_t acc = 0;

    for (size_t i = 0; i < text.n; i++) {
        unsigned digit = digit_of(alphabet, 1u << bits, text.p[i]);

        if (digit == 1u << bits)
            return false;
        acc = acc << bits | digit;
        have += bits;
        if (have >= 8) {
            have -= 8;
            wcur_u8(w, (uint8_t)(acc >> have));
            acc &= (1u << have) - 1;
        }
    }
    /* Left-over bits are zero and fewer than a character: anything else is a second spelling. */
    return have < bits && acc == 0 && !w->bad;
}

static void bits_encode(const char *alphabet, unsigned bits, struct wcur *w, struct bytes in)
{
    unsigned have = 0;
    uint32_t acc = 0;

    for (size_t i = 0; i < in.n; i++) {
        acc = acc << 8 | in.p[i];
        have += 8;
        while (have >= bits) {
            have -= bits;
            wcur_u8(w, (uint8_t)alphabet[acc >> have]);
            acc &= (1u << have) - 1;
        }
    }
    if (have)
        wcur_u8(w, (uint8_t)alphabet[acc << (bits - have)]);
}

bool base32_decode(struct wcur *w, struct bytes text)
{
    return bits_decode(base32, 5, w, text);
}

void base32_encode(struct wcur *w, struct bytes in)
{
    bits_encode(base32, 5, w, in);
}

bool base64url_decode(struct wcur *w, struct bytes text)
{
    return bits_decode(base64url, 6, w, text);
}

void base64url_encode(struct wcur *w, struct bytes in)
{
    bits_encode(base64url, 6, w, in);
}

bool base64i2p_decode(struct wcur *w, struct bytes text)
{
    if (text.n % 4 != 0)
        return false;
    for (int pad = 0; pad < 2 && text.n && text.p[text.n - 1] == '='; pad++)
        text.n--;
    return bits_decode(base64i2p, 6, w, text);
}

static void padded_encode(const char *alphabet, struct wcur *w, struct bytes in)
{
    bits_encode(alphabet, 6, w, in);
    for (size_t n = in.n; n % 3 != 0; n++)
        wcur_u8(w, '=');
}

void base64_encode(struct wcur *w, struct bytes in)
{
    padded_encode(base64, w, in);
}

void base64i2p_encode(struct wcur *w, struct bytes in)
{
    padded_encode(base64i2p, w, in);
}
