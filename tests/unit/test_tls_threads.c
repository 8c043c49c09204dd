/* Two threads, each with a pool of its own, and one server between them that is replaced meanwhile:
 * as shards do it. Runs under the thread sanitizer too. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "tests/unit/tls_pair.h"

enum { THREADS = 2, HANDSHAKES = 30 };

static _Atomic(struct tls_server *) server;
static atomic_uint done;

static void one(int version, const char *cert)
{
    /* As a shard does: whoever replaces the server keeps the old one for long enough. */
    struct tls_server *s = tls_server_keep(atomic_load_explicit(&server, memory_order_acquire));
    struct pair *p = pair_new(s, version, cert);
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
    for (int i = 0; i < HANDSHAKES; i++)
        one(i % 3 ? 13 : 12, i % 2 ? (const char *)arg : NULL);
    (void)atomic_fetch_add(&done, 1);
    return NULL;
}

Test(tls_threads, share_a_server_that_is_replaced, .timeout = 60)
{
    static const char *const names[] = { "p256", "ed25519", "rsa2048" };
    struct tls_server *retired = NULL;
    pthread_t thread[THREADS];

    tls_init();
    atomic_store(&server, server_of("p256", TLS_CLIENT_OPTIONAL));
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&thread[i], NULL, shard, i ? "chain" : "ed25519"), 0);
    for (unsigned i = 0; atomic_load(&done) < THREADS; i++) {
        struct tls_server *next = server_of(names[i % ARRAY_LEN(names)], TLS_CLIENT_OPTIONAL);

        usleep(50000); /* longer than between a shard's look and its keeping */
        tls_server_drop(retired);
        retired = atomic_exchange_explicit(&server, next, memory_order_acq_rel);
    }
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_join(thread[i], NULL), 0);
    tls_server_drop(retired);
    tls_server_drop(atomic_load(&server));
}
