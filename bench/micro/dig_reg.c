/* bench-dig-reg: what the DIG registry and PEX cost (proto/dig_reg.h, proto/pex.h), all members on
 * one network, which is the worst case for both.
 *     bench-dig-reg [MEMBERS...]    default: 1000 4096 100000
 * Prints CPU time, the mean of one pass: filling the table, replacing a member at full size,
 * finding one by id, a list for one of them, all links opened, and deltas while each is told the
 * rest. */
#include "proto/crypto.h"
#include "proto/pex.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { REPLACED = 20000, FOUND = 200000, LISTS = 2000, DELTA_ROUNDS = 25 };

static struct dig_reg reg;
static struct pex pex;
static struct pex_out out;
static uint64_t dice = 1;
static char (*ids)[65];
static const struct dig_member *list[DIG_REG_LIST_MAX];

static uint64_t next_u64(void *arg)
{
    uint64_t z = *(uint64_t *)arg += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint64_t last_seen(void *arg, const struct dig_member *m)
{
    (void)arg;
    return m->connected_at_unix_s;
}

static double now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static uint32_t any(uint32_t n)
{
    return (uint32_t)(next_u64(&dice) % n);
}

static void add(uint32_t i)
{
    struct dig_member *m;
    struct dig_claim c = { .id = bytes_of(ids[i], 64),
                           .network = bytes_str("DIG_MAINNET"),
                           .protocol_version = 1,
                           .connected_at_unix_s = i,
                           .home = { .slot = i } };

    put_u32(c.source.b, i);
    ASSERT(dig_reg_add(&reg, &c, &m) == DIG_REG_ADDED);
    pex_on_join(&pex, 0, m);
}

static void replace(uint32_t i)
{
    struct dig_home home = { .slot = i };

    pex_on_leave(&pex, 0, dig_reg_of(&reg, &home));
    ASSERT(dig_reg_remove(&reg, &home));
    add(i);
}

static void per(const char *what, double from, double n, double unit, const char *name)
{
    printf("  %-28s %8.2f %s\n", what, (now_ns() - from) / n / unit, name);
}

static void bench_registry(uint32_t n)
{
    struct dig_rng rng = { next_u64, &dice };
    double from = now_ns();
    size_t listed = 0;
    uintptr_t kept = 0;
    char what[64];

    for (uint32_t i = 0; i < n; i++)
        add(i);
    per("add, from empty to full", from, n, 1, "ns");
    from = now_ns();
    for (uint32_t i = 0; i < REPLACED; i++)
        replace(any(n));
    per("remove and add, when full", from, REPLACED, 1, "ns");
    from = now_ns();
    for (uint32_t i = 0; i < FOUND; i++)
        kept ^= (uintptr_t)dig_reg_find(&reg, bytes_of(ids[any(n)], 64));
    per(kept == 1 ? "" : "find by id", from, FOUND, 1, "ns");
    from = now_ns();
    for (uint32_t i = 0; i < LISTS; i++)
        listed = dig_reg_list(&reg, reg.member[0].network, &reg.member[any(n)], &rng, list,
                              DIG_REG_LIST_MAX);
    snprintf(what, sizeof(what), "list of %zu", listed);
    per(what, from, LISTS, 1000, "us");
}

static void bench_pex(uint32_t n)
{
    struct pex_frame hello = {
        .kind = DIG_PEX_HANDSHAKE, .version = 1, .network_matches = true, .interval_s = 60
    };
    double from = now_ns();
    uint64_t now_ms = 0, calls = 0, deltas = 0;
    char what[64];

    for (uint32_t i = 0; i < n; i++)
        pex_on_frame(&pex, 0, &reg.member[i], &hello, &out);
    per("handshake and snapshot", from, n, 1000, "us");
    from = now_ns();
    for (int i = 0; i < DELTA_ROUNDS; i++) {
        now_ms += 66000;
        do {
            pex_tick(&pex, now_ms, &out);
            calls++;
            deltas += out.n;
        } while (pex_deadline_ms(&pex) <= now_ms);
    }
    snprintf(what, sizeof(what), "tick (%u deltas)", (unsigned)deltas);
    per(what, from, (double)calls, 1000, "us");
}

static void bench(uint32_t n)
{
    static const uint8_t key[16] = { 1 };
    void *mem = calloc(1, dig_reg_bytes(n)), *pex_mem = calloc(1, pex_bytes(n));

    ids = calloc(n, sizeof(*ids));
    ASSERT(mem);
    ASSERT(pex_mem);
    ASSERT(ids);
    for (uint32_t i = 0; i < n; i++)
        snprintf(ids[i], sizeof(ids[i]), "%016llx%048x", (unsigned long long)next_u64(&dice), i);
    dig_reg_init(&reg, mem, n, key);
    pex_init(
        &pex, pex_mem, n,
        &(struct pex_setup){ .reg = &reg, .rng = { next_u64, &dice }, .last_seen = last_seen });
    printf("%u members, %zu + %zu bytes reserved for each\n", n, dig_reg_bytes(n) / n,
           pex_bytes(n) / n);
    bench_registry(n);
    bench_pex(n);
    free(mem);
    free(pex_mem);
    free(ids);
}

int main(int argc, char **argv)
{
    crypto_init();
    for (int i = 1; i < argc; i++) {
        unsigned long n = strtoul(argv[i], NULL, 10);

        if (n < 2 || n > DIG_REG_SEATS_MAX) {
            fprintf(stderr, "bench-dig-reg: %s: 2..%d members\n", argv[i], DIG_REG_SEATS_MAX);
            return 2;
        }
        bench((uint32_t)n);
    }
    if (argc < 2) {
        bench(1000);
        bench(4096);
        bench(100000);
    }
    return 0;
}
