/* The gif service's cache and its asks (gif.h), beside a service that nobody can reach: what has an
 * answer is in tests/e2e/test_gif.py. */
#include "engine/gif.h"

#include <pthread.h>
#include <sched.h>

#include "config_load.h"
#include "engine/clock.h"

enum { MAIL = 9 };

static struct gif *g;
static struct errand *e;
static struct mbox answers;
static struct log *log_of_test;

static const struct errand_opts always = { .interval_ms = 60000, .always = true };

static void start(const char *key, const char *url)
{
    char flag[2][128];

    snprintf(flag[0], sizeof(flag[0]), key[0] ? "--gif-key=%s" : "--gif=on%s", key);
    snprintf(flag[1], sizeof(flag[1]), "--gif-url=%s", url);
    cr_assert_eq(LOAD(flag[0], flag[1]), 0, "%s", said);
    log_of_test = log_new(&c);
    cr_assert_eq(errand_start(NULL, log_attach(log_of_test, "errand"), &always, &e), 0);
    cr_assert_eq(gif_new(&c, e, log_attach(log_of_test, "gif"), &g), 0);
}

static void finish(void)
{
    errand_stop(e);
    gif_free(g);
    config_free(&c);
}

static struct gif_ask *ask(const char *kind, size_t query_n, uint32_t limit, uint64_t cookie)
{
    static uint8_t query[4096];
    struct dusk_gif_req r = { .kind = bytes_str(kind), .limit = limit };

    memset(query, 'q', sizeof(query));
    r.query = bytes_of(query, query_n);
    return gif_ask(g, &r, MAIL, &answers, NULL, cookie);
}

static struct gif_ask *hear(void)
{
    struct mnode *m;

    while (!(m = mbox_take(&answers)))
        usleep(500);
    cr_assert(m->next == NULL);
    cr_assert_eq(m->kind, MAIL);
    return gif_of(m);
}

static char lines[16384];

static void collect(void *arg, const char *line)
{
    (void)arg;
    strncat(lines, line, sizeof(lines) - strlen(lines) - 2);
}

static bool logged(const char *what)
{
    log_drain_to(log_of_test, collect, NULL);
    return strstr(lines, what) != NULL;
}

Test(gif, without_a_key_is_empty_and_says_so_once, .timeout = 20)
{
    start("", "https://192.0.2.1");
    cr_assert(ask("search", 3, 20, 1) == NULL);
    cr_assert(ask("trending", 0, 20, 1) == NULL);
    cr_assert(logged("gif: no API key"));
    finish();
}

Test(gif, is_empty_without_a_service_at_all)
{
    cr_assert(ask("search", 3, 20, 1) == NULL);
}

/* Refused before anybody connects: 127.0.0.1 without --gif-allow-private. */
Test(gif, a_failure_is_an_empty_reply, .timeout = 20)
{
    struct gif_ask *a;
    struct bytes reply;
    static const uint8_t empty[] = { 0xa1, 0x67, 'r', 'e', 's', 'u', 'l', 't', 's', 0x80 };

    start("k", "https://127.0.0.1:1");
    cr_assert(ask("search", 3, 20, 0x700000005) != NULL);
    a = hear();
    cr_assert_eq(a->cookie, 0x700000005);
    reply = gif_reply(a);
    cr_assert(bytes_eq(reply, bytes_of(empty, sizeof(empty))));
    gif_done(a);
    cr_assert(logged("gif: the service fails: its name leads to private addresses"));
    finish();
}

Test(gif, what_cannot_be_asked_is_empty_at_once, .timeout = 20)
{
    start("k", "https://127.0.0.1:1");
    cr_assert(ask("search", GIF_QUERY_MAX + 1, 20, 1) == NULL);
    cr_assert(ask("search", 3, 0, 1) == NULL);
    cr_assert(ask("trending", 4096, 20, 1) != NULL, "its query is not asked");
    gif_done(hear());
    cr_assert(ask("search", GIF_QUERY_MAX, 20, 1) != NULL);
    gif_done(hear());
    finish();
}

/* A burst beyond the asks that there are, all answered, and none lost: again and again. */
Test(gif, asks_are_bounded_and_come_back, .timeout = 60)
{
    start("k", "https://127.0.0.1:1");
    for (int round = 0; round < 20; round++) {
        unsigned asked = 0, heard = 0;

        /* Answered ones stay in use until gif_done. */
        while (ask("search", 1 + asked % 7, 20, asked))
            asked++;
        cr_assert_eq(asked, GIF_ASKS_MAX);
        while (heard < asked) {
            for (struct mnode *m = mbox_take(&answers), *next; m; m = next, heard++) {
                next = m->next;
                gif_done(gif_of(m));
            }
            sched_yield();
        }
    }
    finish();
}

/* Two askers at once, as two shards. */
enum { EACH = 2000 };

static void *ask_many(void *arg)
{
    struct mbox *box = arg;
    unsigned heard = 0, asked = 0;
    const struct dusk_gif_req r = { .kind = bytes_str("trending"), .limit = 20 };

    while (heard < EACH) {
        while (asked < EACH && gif_ask(g, &r, MAIL, box, NULL, asked))
            asked++;
        for (struct mnode *m = mbox_take(box), *next; m; m = next, heard++) {
            next = m->next;
            gif_done(gif_of(m));
        }
        sched_yield();
    }
    return NULL;
}

Test(gif, two_shards_ask_at_once, .timeout = 60)
{
    static struct mbox box[2];
    pthread_t t[2];

    start("k", "https://127.0.0.1:1");
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, ask_many, &box[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    finish();
}

/* Nobody listens on discard's address range, 100::/64: the call is under way as all ends. */
Test(gif, a_stop_in_the_middle_leaves_nothing, .timeout = 20)
{
    uint64_t before = clock_mono_ms();

    start("k", "https://gif.example");
    for (unsigned i = 0; i < 50; i++)
        cr_assert(ask("search", 1 + i, 20, i) != NULL);
    usleep(20000);
    finish();
    cr_assert(clock_mono_ms() - before < 5000);
}
