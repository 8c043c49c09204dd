/* tests/unit/turn_host.h: a TURN host made from flags, for the tests of turn_host.c. */
#ifndef SLUICE_TESTS_TURN_HOST_H
#define SLUICE_TESTS_TURN_HOST_H

#include "engine/turn_host.h"

#include "config_load.h"

static struct turn_host h;
static struct quota *quota;
static char why[512];

static inline int init(void)
{
    static const uint8_t key[16] = "turn host test.";

    quota = quota_new(1000, 64, key);
    cr_assert(quota != NULL);
    cr_assert_eq(quota_meters(quota, 4096), 0);
    return turn_host_init(&h, &c, quota, 3, why, sizeof(why));
}

#define HOST(...)                                                                                  \
    do {                                                                                           \
        cr_assert_eq(LOAD("--listen-turn=127.0.0.1:3478", __VA_ARGS__), 0, "%s", said);            \
        cr_assert_eq(init(), 0, "%s", why);                                                        \
    } while (0)

static inline void finish(void)
{
    cr_assert_eq(quota_live(quota), 0, "something is still charged");
    turn_host_fini(&h);
    quota_free(quota);
    config_free(&c);
}

static inline struct netaddr at_of(const char *text)
{
    struct netaddr a;

    cr_assert(netaddr_parse(bytes_str(text), &a), "%s", text);
    return a;
}

#endif
