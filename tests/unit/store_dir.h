/* tests/unit/store_dir.h: a store in a directory of its own, and short words for what tests ask of
 * it. One test is one process, and so has one store. */
#ifndef SLUICE_TESTS_STORE_DIR_H
#define SLUICE_TESTS_STORE_DIR_H

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/store.h"

enum { NOW = 1700000000, TTL = 7200 };

static char sd_dir[64];
static char sd_why[STORE_WHY_MAX];
static struct store *sd;
static uint64_t sd_dice = 1;

__attribute__((unused)) static uint64_t sd_u64(void)
{
    uint64_t z = sd_dice += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

__attribute__((unused)) static void sd_rng(void *to, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)to)[i] = (uint8_t)sd_u64();
}

__attribute__((unused)) static const char *sd_path(const char *name)
{
    static char path[4][128];
    static int i;

    i = (i + 1) % 4;
    snprintf(path[i], sizeof(path[i]), "%s/%s", sd_dir, name);
    return path[i];
}

__attribute__((unused)) static void sd_make_dir(void)
{
    /* in memory where that can be had: what is tested here is not the disk */
    snprintf(sd_dir, sizeof(sd_dir), "%s/sluice-store-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    cr_assert_not_null(mkdtemp(sd_dir));
}

__attribute__((unused)) static struct store_opts sd_opts(void)
{
    return (struct store_opts){ .dir = sd_dir, .rng = sd_rng, .map_bytes = (uint64_t)1 << 30 };
}

__attribute__((unused)) static int sd_try(const struct store_opts *o)
{
    sd_why[0] = '\0';
    sd = NULL;
    return store_open(o, &sd, sd_why, sizeof(sd_why));
}

__attribute__((unused)) static void sd_load(void)
{
    bool done = false;

    while (!done)
        cr_assert(eq(int, store_load(sd, 100, &done), 0));
}

__attribute__((unused)) static void sd_open_with(const struct store_opts *o)
{
    if (!sd_dir[0])
        sd_make_dir();

    struct store_opts here = *o;

    here.dir = sd_dir;
    cr_assert(eq(int, sd_try(&here), 0), "%s", sd_why);
    sd_load();
}

__attribute__((unused)) static void sd_open(void)
{
    struct store_opts o = sd_opts();

    sd_open_with(&o);
}

__attribute__((unused)) static void sd_reopen(void)
{
    store_close(sd);
    sd_open();
}

__attribute__((unused)) static void sd_no_finding(void *ctx, const char *line)
{
    (void)ctx;
    (void)line;
}

__attribute__((unused)) static uint64_t sd_findings(void)
{
    uint64_t bad = 0;

    cr_assert(eq(int, store_check(sd, sd_no_finding, NULL, &bad), 0));
    return bad;
}

/* At a test's end: the store is sound, and nothing is left behind. */
__attribute__((unused)) static void sd_close(void)
{
    cr_expect(eq(u64, sd_findings(), 0));
    store_close(sd);
    sd = NULL;
    unlink(sd_path(STORE_FILE));
    unlink(sd_path(STORE_FILE "-lock"));
    rmdir(sd_dir);
}

__attribute__((unused)) static struct peer_id sd_peer(unsigned i)
{
    struct peer_id p = { .n = 38, .b = { 0, 0x24, 8, 1, 0x12, 0x20 } };

    for (unsigned k = 0; k < 4; k++)
        p.b[6 + k] = (uint8_t)(i >> 8 * (3 - k));
    p.b[37] = 1;
    return p;
}

__attribute__((unused)) static struct store_reg sd_reg(unsigned peer, const char *ns,
                                                       const char *envelope)
{
    return (struct store_reg){ .peer = sd_peer(peer),
                               .ns = bytes_str(ns),
                               .envelope = bytes_str(envelope),
                               .ttl_s = TTL,
                               .expires_unix_s = NOW + TTL };
}

__attribute__((unused)) static void sd_begin(void)
{
    cr_assert(eq(int, store_begin(sd), 0));
}

__attribute__((unused)) static void sd_commit(void)
{
    cr_assert(eq(int, store_commit(sd), 0));
}

/* One registration in a commit of its own; its seq. */
__attribute__((unused)) static uint64_t sd_put(unsigned peer, const char *ns, const char *envelope)
{
    struct store_reg r = sd_reg(peer, ns, envelope);
    uint64_t seq = 0;

    sd_begin();
    cr_assert(eq(int, store_reg_put(sd, &r, &seq), STORE_OK));
    sd_commit();
    return seq;
}

/* What a discover gave: seqs and the first bytes of envelopes. */
struct sd_got {
    unsigned n;
    unsigned stop_at; /* 0: never */
    uint64_t seq[256];
    char text[256][24];
    struct store_reg last;
};

__attribute__((unused)) static enum store_take sd_take(void *ctx, const struct store_reg *r)
{
    struct sd_got *g = ctx;

    if (g->stop_at && g->n == g->stop_at)
        return STORE_STOP;
    if (g->n < 256) {
        g->seq[g->n] = r->seq;
        snprintf(g->text[g->n], sizeof(g->text[0]), "%.*s", (int)min_sz(r->envelope.n, 20),
                 (const char *)r->envelope.p);
    }
    g->n++;
    g->last = *r;
    return STORE_TAKE;
}

__attribute__((unused)) static struct store_discovered
sd_discover(const char *ns, uint64_t after, uint32_t limit, uint64_t now, struct sd_got *g)
{
    struct store_discover q = {
        .ns = bytes_str(ns ? ns : ""), .all = !ns, .after = after, .limit = limit, .now_unix_s = now
    };
    struct store_discovered d;

    g->n = 0;
    cr_assert(eq(int, store_discover(sd, &q, sd_take, g, &d), 0));
    return d;
}

#endif
