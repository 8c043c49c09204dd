/* tests/unit/store_file.h: what tests of the store's file share: its bytes, and something in it. */
#ifndef SLUICE_TESTS_STORE_FILE_H
#define SLUICE_TESTS_STORE_FILE_H

#include "tests/unit/store_dir.h"

enum { PAGE = 4096 };

__attribute__((unused)) static uint8_t *slurp(const char *path, size_t *n)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    uint8_t *all;

    cr_assert(le(int, 0, fd), "%s", path);
    cr_assert(eq(int, fstat(fd, &st), 0));
    *n = (size_t)st.st_size;
    all = malloc(*n + 1);
    cr_assert(eq(sz, (size_t)read(fd, all, *n), *n));
    close(fd);
    return all;
}

__attribute__((unused)) static void spill(const char *path, const uint8_t *p, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    cr_assert(le(int, 0, fd));
    cr_assert(eq(sz, (size_t)write(fd, p, n), n));
    close(fd);
}

/* Some of everything; envelopes with pages of their own among them. */
__attribute__((unused)) static void furnish(unsigned regs)
{
    static uint8_t envelope[9000];
    uint8_t secret[16];
    struct store_turn_user u = { .name = bytes_str("ann"), .realm = bytes_str("r") };

    sd_begin();
    for (unsigned i = 0; i < regs; i++) {
        struct store_reg r = sd_reg(i, i % 3 ? "shared" : "", "");
        char own[16];

        snprintf(own, sizeof(own), "own/%u", i);
        if (i % 3 == 2)
            r.ns = bytes_str(own);
        sd_rng(envelope, 8);
        r.envelope = bytes_of(envelope, i % 10 == 9 ? sizeof(envelope) : 250);
        cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
        cr_assert(eq(int, store_profile_put(sd, &r.peer, bytes_str("alice"), bytes_str("/a"), NOW),
                     STORE_OK));
        struct store_usage use = { r.peer, i, i, 1, 1 };

        cr_assert(eq(int, store_usage_add(sd, NOW, &use), STORE_OK));
    }
    struct store_ban b = { 1, bytes_str("x"), NOW + 5 };

    cr_assert(eq(int, store_ban_put(sd, &b), STORE_OK));
    cr_assert(eq(int, store_turn_user_put(sd, &u), STORE_OK));
    sd_commit();
    cr_assert(eq(int, store_secret(sd, STORE_SECRET_COOKIE, secret, sizeof(secret)), 0));
}

__attribute__((unused)) static void append(void *ctx, const char *line)
{
    uint64_t *sum = ctx;

    for (; *line; line++)
        *sum = (*sum ^ (uint8_t)*line) * UINT64_C(0x100000001b3);
}

__attribute__((unused)) static uint64_t dumped(void)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325);

    cr_assert(eq(int, store_dump(sd, append, &sum), 0));
    return sum;
}

__attribute__((unused)) static void clean(void)
{
    store_close(sd);
    sd = NULL;
    unlink(sd_path(STORE_FILE));
    unlink(sd_path(STORE_FILE "-lock"));
    rmdir(sd_dir);
}

#endif
