/* bench-dig-scan: what finding the way of a relay_message costs (proto/dig_scan.h), with vector
 * instructions and without, beside reading the same bytes once (memchr) and copying them (memcpy).
 *     bench-dig-scan [PAYLOAD_BYTES [BYTE]]    random bytes, or all of them BYTE
 * Prints ns per message and per KiB of text: CPU time, the median of 201 rounds, and the quickest.
 */
#include "proto/dig_scan_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 201, MESSAGES = 256, PAYLOAD_MAX = 1 << 16, TEXTS = 16 };

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t random64(void)
{
    static uint64_t x = 88172645463325252u; /* the same payloads each time */

    x ^= x << 13;
    x ^= x >> 7;
    return x ^= x << 17;
}

static struct bytes message(size_t payload, int byte)
{
    static const char id[] = "4f1d2c3b4a5968778695a4b3c2d1e0f04f1d2c3b4a5968778695a4b3c2d1e0f0";
    char *text = malloc(payload * 4 + 512);
    char *p = text;

    ASSERT(text);
    p += sprintf(p, "{\"type\":\"relay_message\",\"from\":\"%s\",\"to\":\"%s\",\"payload\":[", id,
                 id);
    for (size_t i = 0; i < payload; i++)
        p += sprintf(p, "%s%d", i ? "," : "", byte < 0 ? (int)(random64() >> 32 & 255) : byte);
    p += sprintf(p, "],\"seq\":42}");
    return bytes_of(text, (size_t)(p - text));
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static size_t by(enum dig_vec vec, struct bytes text)
{
    struct dig_scan m;

    return dig_scan_by(vec, text, &m) == DIG_SCAN_RELAY ? m.payload_count : 0;
}

static size_t by_32(struct bytes text)
{
    return by(DIG_VEC_32, text);
}

static size_t by_16(struct bytes text)
{
    return by(DIG_VEC_16, text);
}

static size_t by_bytes(struct bytes text)
{
    return by(DIG_VEC_NONE, text);
}

static size_t by_memchr(struct bytes text)
{
    return memchr(text.p, 0, text.n) == NULL;
}

static size_t by_memcpy(struct bytes text)
{
    static uint8_t copy[PAYLOAD_MAX * 4 + 512];

    memcpy(copy, text.p, text.n);
    __asm__ volatile("" : : "r"(copy) : "memory");
    return copy[0];
}

static void measure(const char *name, size_t (*f)(struct bytes), const struct bytes *texts)
{
    double ns[ROUNDS];
    size_t sum = 0, bytes = 0;

    for (int r = 0; r < ROUNDS; r++) {
        uint64_t from = now_ns();

        for (int i = 0; i < MESSAGES; i++)
            sum += f(texts[i % TEXTS]);
        ns[r] = (double)(now_ns() - from) / MESSAGES;
    }
    for (int i = 0; i < TEXTS; i++)
        bytes += texts[i].n;
    qsort(ns, ROUNDS, sizeof(ns[0]), by_size);
    double kib = (double)bytes / TEXTS / 1024;

    printf("%-10s %8.1f ns a message (quickest %8.1f), %7.1f ns per KiB   [%zu]\n", name,
           ns[ROUNDS / 2], ns[0], ns[ROUNDS / 2] / kib, sum);
}

int main(int argc, char **argv)
{
    size_t payload = argc > 1 ? strtoul(argv[1], NULL, 10) : 1024;
    int byte = argc > 2 ? atoi(argv[2]) & 255 : -1;
    struct bytes texts[TEXTS];

    if (payload > PAYLOAD_MAX)
        payload = PAYLOAD_MAX;
    for (int i = 0; i < TEXTS; i++)
        texts[i] = message(payload, byte);
    printf("%zu bytes of payload, %zu of text\n", payload, texts[0].n);
    if (dig_vec_best() >= DIG_VEC_32)
        measure("32 bytes", by_32, texts);
    if (dig_vec_best() >= DIG_VEC_16)
        measure("16 bytes", by_16, texts);
    measure("scalar", by_bytes, texts);
    measure("memchr", by_memchr, texts);
    measure("memcpy", by_memcpy, texts);
    for (int i = 0; i < TEXTS; i++)
        free((void *)(uintptr_t)texts[i].p);
    return 0;
}
