/* Two threads, each with a pool of its own, and one server between them that is replaced meanwhile:
 * as shards do it. Runs under the thread sanitizer too. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>

#include "engine/tls_next.h"
#include "tests/unit/tls_pair.h"

enum { THREADS = 2, HANDSHAKES = 30 };

static struct tls_next next[THREADS];
static atomic_uint done;

static void one(struct tls_server *s, int version, const char *cert)
{
    struct pair *p = pair_new(tls_server_keep(s), version, cert);
    char back[8];

    cr_assert(pair_shake(p), "%s", tls_why_text(tls_why(p->t)));
    client_says(p, "ping", 4);
    pair_feed(p);
    cr_assert_eq(p->got_n, 4);
    cr_assert(tls_write(p->t, bytes_str("pong")));
    cr_assert_eq(client_hears(p, back, 4), 4);
    pair_free(p);
}

static void *shard(void *arg)
{
    struct tls_next *mine = arg;
    const char *cert = mine == next ? "ed25519" : "chain";
    struct tls_server *s = NULL;

    for (int i = 0; i < HANDSHAKES; i++) {
        for (int looks = 0; looks < 1000; looks++) /* as often as others are put */
            (void)tls_next_take(mine, &s);
        one(s, i % 3 ? 13 : 12, i % 2 ? cert : NULL);
    }
    tls_server_drop(s);
    (void)atomic_fetch_add(&done, 1);
    return NULL;
}

Test(tls_threads, share_a_server_that_is_replaced, .timeout = 60)
{
    static const char *const names[] = { "p256", "ed25519", "rsa2048" };
    struct tls_server *server[ARRAY_LEN(names)];
    pthread_t thread[THREADS];

    tls_init();
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        server[i] = server_of(names[i], TLS_CLIENT_OPTIONAL);
    for (int i = 0; i < THREADS; i++) {
        tls_next_put(&next[i], server[0]);
        cr_assert_eq(pthread_create(&thread[i], NULL, shard, &next[i]), 0);
    }
    /* One reload after the other: no pause between two saves a thread that is slow. */
    for (unsigned n = 0; atomic_load(&done) < THREADS; n++)
        for (int i = 0; i < THREADS; i++)
            tls_next_put(&next[i], server[n % ARRAY_LEN(names)]);
    for (int i = 0; i < THREADS; i++) {
        cr_assert_eq(pthread_join(thread[i], NULL), 0);
        tls_next_put(&next[i], NULL);
    }
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        tls_server_drop(server[i]);
}

/* The last reference goes with who holds it, wherever that is. */
Test(tls_threads, a_server_that_was_never_taken_goes, .timeout = 60)
{
    struct tls_next n = { NULL };
    struct tls_server *mine = NULL, *one = server_of("p256", TLS_CLIENT_OPTIONAL),
                      *two = server_of("ed25519", TLS_CLIENT_OPTIONAL);

    cr_assert(tls_next_take(&n, &mine) == NULL);
    tls_next_put(&n, one);
    tls_next_put(&n, two);
    tls_server_drop(one); /* the last: the address sanitizer sees one that stays */
    cr_assert(tls_next_take(&n, &mine) == two);
    cr_assert(tls_next_take(&n, &mine) == two);
    tls_next_put(&n, two);
    tls_server_drop(two);
    tls_next_put(&n, NULL);
    tls_server_drop(mine);
}
