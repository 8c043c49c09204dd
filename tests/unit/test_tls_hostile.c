/* What a TLS client may try: none of it costs more than its own connection. */
#include "tests/unit/tls_pair.h"

static const int VERSIONS[] = { 12, 13 };

enum { ALERT_BYTES = 7 };

static void expect_refused(struct pair *p, enum tls_why why, const char *what)
{
    cr_expect_eq(p->verdict, TLS_FAILED, "%s", what);
    cr_expect_eq(tls_why(p->t), why, "%s: %s", what, tls_why_text(tls_why(p->t)));
    cr_expect_leq(tls_bytes_used(p->t), (size_t)TLS_CONN_BYTES_MAX);
}

static void put(struct pair *p, const void *bytes, size_t n)
{
    cr_assert(pipe_put(&p->to_server, bytes_of(bytes, n)));
}

Test(tls_hostile, ends_what_is_not_tls)
{
    static const struct {
        const char *bytes;
        size_t n;
    } cases[] = {
        { "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27 },
        { "\0\0\0\0\0\0\0\0\0\0\0\0", 12 },
        { "\xff\xff\xff\xff\xff\xff\xff\xff", 8 },
        { "\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10", 11 }, /* a hello of SSL 2 */
        { "\x17\x03\x03\x00\x05hello", 10 },                    /* data before anything else */
        { "\x15\x03\x03\x00\x02\x02\x28", 7 },                  /* an alert */
        { "\x14\x03\x03\x00\x01\x01\x16\x03\x03\x00\x01\x02", 12 },
        { "\x16\x03\x01\x00\x04\x01\x00\x00\x00", 9 }, /* an empty ClientHello */
        { "\x16\x03\x01\x00\x04\x0b\x00\x00\x00", 9 }, /* a Certificate first */
        { "\x16\x03\x01\x00\x04\x01\xff\xff\xff", 9 }, /* one of 16 MiB */
        { "\x16\x03\x03\x48\x01\x01\x00\x00\x00", 9 }, /* a record past any bound */
        { "\x16\x03\x03\xff\xff\x01\x00\x00\x00", 9 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct pair *p = pair_new(server_of("p256", TLS_CLIENT_REQUIRED), 13, NULL);

        put(p, cases[i].bytes, cases[i].n);
        pair_feed(p);
        cr_expect_eq(p->verdict, TLS_FAILED, "%zu: %d", i, p->verdict);
        cr_expect_leq(p->to_client.n, (size_t)ALERT_BYTES, "%zu", i);
        cr_expect_not(tls_established(p->t));
        pair_free(p);
    }
}

static size_t record_hello(int version, uint8_t *to, size_t cap)
{
    struct pair *p = pair_new(server_of("p256", TLS_SERVER_ONLY), version, NULL);

    (void)wolfSSL_connect(p->client);
    size_t n = p->to_server.n;

    cr_assert_leq(n, cap);
    memcpy(to, p->to_server.bytes, n);
    pair_free(p);
    return n;
}

Test(tls_hostile, survives_a_hello_that_is_cut_or_changed_anywhere)
{
    for (size_t v = 0; v < ARRAY_LEN(VERSIONS); v++) {
        uint8_t hello[2048];
        size_t n = record_hello(VERSIONS[v], hello, sizeof(hello));

        for (size_t i = 0; i < 2 * n; i++) {
            struct pair *p = pair_new(server_of("ed25519", TLS_CLIENT_REQUIRED), 13, NULL);

            if (i < n) { /* cut short, and then nothing */
                put(p, hello, i);
            } else {
                uint8_t old = hello[i - n];

                hello[i - n] = (uint8_t)(old ^ (1U << (i % 8)) ^ (i % 3 ? 0xff : 0));
                put(p, hello, n);
                hello[i - n] = old;
            }
            pair_feed(p);
            cr_expect_neq(p->verdict, TLS_READY);
            if (i < n)
                cr_expect_eq(p->verdict, TLS_MORE);
            cr_expect_leq(tls_bytes_used(p->t), (size_t)TLS_CONN_BYTES_MAX);
            pair_free(p);
        }
    }
}

/* The second flight, certificate and proof, changed in one place: nobody gets in as somebody. */
Test(tls_hostile, lets_nobody_in_by_a_flight_that_was_changed)
{
    for (size_t v = 0; v < ARRAY_LEN(VERSIONS); v++) {
        size_t flight = 2, let_in = 0;

        for (size_t i = 0; i < flight; i += 7) {
            struct pair *p = pair_new(server_of("p256", TLS_CLIENT_REQUIRED), VERSIONS[v], "p256");
            char hex[TLS_PEER_ID + 1];

            (void)wolfSSL_connect(p->client);
            pair_feed(p);
            (void)wolfSSL_connect(p->client);
            flight = p->to_server.n;
            p->to_server.bytes[i] ^= (uint8_t)(1U << (i % 8));
            pair_feed(p);
            if (tls_peer_id(p->t, hex)) { /* a record's version is nobody's concern */
                cr_expect_str_eq(hex, id_of("p256"));
                let_in++;
            }
            pair_free(p);
        }
        cr_expect_gt(flight, 500);
        cr_expect_leq(let_in, 2, "%zu of %zu", let_in, flight / 7);
    }
}

/* A ClientHello of 16 KiB in pieces of one byte; and messages without end. */
Test(tls_hostile, bounds_a_handshake_in_fragments)
{
    struct pair *p = pair_new(server_of("p256", TLS_CLIENT_REQUIRED), 13, NULL);
    static const uint8_t head[] = { 1, 0, 0x40, 0 };
    unsigned records = 0;

    while (p->verdict == TLS_MORE && records < 100000) {
        uint8_t record[] = { 0x16, 3, 1, 0, 1, records < 4 ? head[records] : 3 };

        put(p, record, sizeof(record));
        pair_feed(p);
        records++;
    }
    cr_assert_eq(p->verdict, TLS_FAILED);
    cr_expect_leq(records * 6, (unsigned)TLS_HANDSHAKE_BYTES_MAX + 6);
    cr_expect_leq(p->peak, (size_t)TLS_CONN_BYTES_MAX);
    pair_free(p);

    p = pair_new(server_of("p256", TLS_CLIENT_REQUIRED), 13, NULL);
    for (records = 0; p->verdict == TLS_MORE && records < 100000; records++) {
        static const uint8_t empty[] = { 0x16, 3, 1, 0, 0 };

        put(p, empty, sizeof(empty));
        pair_feed(p);
    }
    cr_assert_eq(p->verdict, TLS_FAILED);
    cr_expect_leq(records * 5, (unsigned)TLS_HANDSHAKE_BYTES_MAX + 5);
    pair_free(p);

    /* After the hello: ChangeCipherSpec, which 1.3 tells us to ignore. */
    p = pair_new(server_of("p256", TLS_CLIENT_REQUIRED), 13, NULL);
    (void)wolfSSL_connect(p->client);
    pair_feed(p);
    for (records = 0; p->verdict == TLS_MORE && records < 100000; records++) {
        put(p, "\x14\x03\x03\x00\x01\x01", 6);
        pair_feed(p);
    }
    cr_assert_eq(p->verdict, TLS_FAILED);
    cr_expect_leq(records * 6, (unsigned)TLS_HANDSHAKE_BYTES_MAX + 6);
    pair_free(p);
}

Test(tls_hostile, bounds_key_updates)
{
    struct pair *p = pair_new(server_of("p256", TLS_SERVER_ONLY), 13, NULL);
    unsigned updates = 0;
    char back[8];

    cr_assert(pair_shake(p));
    (void)client_hears(p, back, sizeof(back));
    while (p->verdict == TLS_READY && updates < 1000) {
        cr_assert_eq(wolfSSL_update_keys(p->client), WOLFSSL_SUCCESS);
        pair_feed(p);
        updates++;
    }
    expect_refused(p, TLS_WHY_TOO_LONG, "KeyUpdate");
    cr_expect_eq(updates, (unsigned)TLS_EMPTY_RECORDS_MAX + 1);
    cr_expect_leq(p->to_client.n - p->to_client.read, (size_t)TLS_EMPTY_RECORDS_MAX * 32);
    pair_free(p);

    /* Whoever says something in between may have as many as they like. */
    p = pair_new(server_of("p256", TLS_SERVER_ONLY), 13, NULL);
    cr_assert(pair_shake(p));
    for (updates = 0; updates < 200; updates++) {
        cr_assert_eq(wolfSSL_update_keys(p->client), WOLFSSL_SUCCESS);
        client_says(p, "x", 1);
        pair_feed(p);
        cr_assert_eq(p->verdict, TLS_READY);
        cr_assert(tls_write(p->t, bytes_str("y")));
        cr_assert_eq(client_hears(p, back, 1), 1);
    }
    cr_expect_eq(p->got_n, updates);
    pair_free(p);
}

Test(tls_hostile, refuses_a_second_handshake_and_forged_records)
{
    for (size_t v = 0; v < ARRAY_LEN(VERSIONS); v++) {
        uint8_t hello[2048];
        size_t n = record_hello(VERSIONS[v], hello, sizeof(hello));
        struct pair *p = pair_new(server_of("p256", TLS_SERVER_ONLY), VERSIONS[v], NULL);

        cr_assert(pair_shake(p));
        put(p, hello, n); /* in the clear */
        pair_feed(p);
        expect_refused(p, TLS_WHY_PROTOCOL, "hello");
        pair_free(p);

        p = pair_new(server_of("p256", TLS_SERVER_ONLY), VERSIONS[v], NULL);
        cr_assert(pair_shake(p));
        client_says(p, "text", 4);
        p->to_server.bytes[p->to_server.n - 1] ^= 1;
        pair_feed(p);
        expect_refused(p, TLS_WHY_PROTOCOL, "forged");
        cr_expect_eq(p->got_n, 0);
        cr_expect_not(tls_write(p->t, bytes_str("no")));
        pair_free(p);

        p = pair_new(server_of("p256", TLS_SERVER_ONLY), VERSIONS[v], NULL);
        cr_assert(pair_shake(p));
        put(p, "\x17\x03\x03\x48\x01", 5); /* too long by one */
        pair_feed(p);
        expect_refused(p, TLS_WHY_PROTOCOL, "long");
        pair_free(p);
    }
}

Test(tls_hostile, says_why_when_nothing_is_in_common)
{
    uint8_t hello[2048];
    size_t n = record_hello(12, hello, sizeof(hello));
    struct pair *p = pair_new(server_of("p256", TLS_SERVER_ONLY), 12, NULL);

    hello[10] = 2; /* the hello's own version: 1.1 */
    put(p, hello, n);
    pair_feed(p);
    expect_refused(p, TLS_WHY_VERSION, "1.1");
    pair_free(p);

    p = pair_new(server_of("p256", TLS_SERVER_ONLY), 12, NULL);
    cr_assert_eq(wolfSSL_set_cipher_list(p->client, "DHE-RSA-AES128-GCM-SHA256:"
                                                    "ECDHE-ECDSA-AES128-SHA256"),
                 WOLFSSL_SUCCESS);
    cr_assert_not(pair_shake(p));
    expect_refused(p, TLS_WHY_NO_COMMON, "ciphers");
    pair_free(p);

    p = pair_new(server_of("rsa2048", TLS_SERVER_ONLY), 12, NULL); /* a key of the other kind */
    cr_assert_eq(wolfSSL_set_cipher_list(p->client, "ECDHE-ECDSA-AES128-GCM-SHA256"),
                 WOLFSSL_SUCCESS);
    cr_assert_not(pair_shake(p));
    expect_refused(p, TLS_WHY_NO_COMMON, "signature");
    pair_free(p);
}

/* The pool is dry at every point of a handshake in turn. The other connection does not notice, and
 * the server is as good afterwards as before. */
Test(tls_hostile, closes_only_whoever_the_pool_is_too_small_for)
{
    static struct pair *p, *fine;
    struct tls_server *s = server_of("p256", TLS_CLIENT_REQUIRED);
    unsigned refused = 0, never = 0, shaken = 0;

    for (size_t bytes = 4096; bytes < 50000; bytes += 400) {
        for (size_t v = 0; v < ARRAY_LEN(VERSIONS); v++) {
            int err;

            p = pair_new(tls_server_keep(s), VERSIONS[v], "chain");
            tls_free(p->t);
            tls_pool_free(p->pool);
            p->pool = tls_pool_new(bytes, &err);
            p->t = tls_new(s, p->pool, pipe_out, &p->to_client);
            if (!p->t) {
                never++;
            } else if (pair_shake(p)) {
                shaken++;
            } else {
                expect_refused(p, TLS_WHY_NO_MEMORY, "pool");
                refused++;
            }
            cr_expect_eq(tls_pool_refused(p->pool) == 0, p->t && tls_established(p->t));
            pair_free(p);
        }
    }
    cr_expect_gt(refused, 10);
    cr_expect_gt(never, 10);
    cr_expect_gt(shaken, 3);
    fine = pair_new(s, 13, "chain");
    cr_assert(pair_shake(fine));
    pair_free(fine);
}

/* Every block that wolfSSL asks for to begin with is refused once; it does not clean up after all.
 */
Test(tls_hostile, gets_back_what_wolfssl_forgets)
{
    static const struct tls_alpn alpn = { { "stun.turn", "stun.nat-discovery" }, 2 };
    char why[256];
    struct tls_server *s = tls_server_load(key_path("p256", ".pem"), key_path("p256", ".key"),
                                           TLS_CLIENT_REQUIRED, &alpn, why, sizeof(why));
    unsigned made = 0;

    for (size_t bytes = 640; bytes < 17000; bytes += 16) {
        int err;
        struct tls_pool *pool = tls_pool_new(bytes, &err);
        struct tls *t = tls_new(s, pool, pipe_out, NULL);

        made += t != NULL;
        tls_free(t);
        cr_assert_eq(tls_pool_used(pool), 0);
        tls_pool_check(pool);
        tls_pool_free(pool);
    }
    cr_expect_gt(made, 0);
    tls_server_drop(s);
}

Test(tls_hostile, lets_one_run_dry_and_others_go_on)
{
    struct pair *p = pair_new(server_of("p256", TLS_SERVER_ONLY), 13, NULL);
    struct tls *hogs[1024];
    struct pipe *sink = calloc(1, sizeof(*sink));
    size_t n = 0;
    char back[8];

    cr_assert(pair_shake(p));
    while (n < ARRAY_LEN(hogs) && (hogs[n] = tls_new(p->server, p->pool, pipe_out, sink)))
        n++;
    cr_assert_gt(n, 100);
    cr_assert_lt(n, ARRAY_LEN(hogs));
    tls_free(hogs[--n]); /* a record's worth is left, no handshake's */
    client_says(p, "ping", 4);
    pair_feed(p);
    cr_assert_eq(p->got_n, 4);
    cr_assert(tls_write(p->t, bytes_str("pong")));
    (void)client_hears(p, back, 4);
    while (n)
        tls_free(hogs[--n]);
    free(sink);
    cr_assert_eq(p->verdict, TLS_READY);
    pair_free(p);
}

Test(tls_hostile, ends_when_its_queue_is_full)
{
    for (size_t max = 1; max < 900; max += 37) {
        struct pair *p = pair_new(server_of("p256", TLS_SERVER_ONLY), 13, NULL);

        p->to_client.max = max;
        if (!pair_shake(p))
            expect_refused(p, TLS_WHY_OUT, "queue");
        cr_expect_leq(p->to_client.n - p->to_client.read, max);
        pair_free(p);
    }
    struct pair *p = pair_new(server_of("p256", TLS_SERVER_ONLY), 13, NULL);
    static uint8_t much[100000];

    cr_assert(pair_shake(p));
    p->to_client.max = 50000;
    cr_assert_not(tls_write(p->t, bytes_of(much, sizeof(much))));
    p->verdict = tls_verdict(p->t);
    expect_refused(p, TLS_WHY_OUT, "write");
    pair_free(p);
}

/* A record of 16 KiB that never ends keeps so much and no more; when it does, nothing. */
Test(tls_hostile, holds_one_half_record_and_no_more)
{
    static uint8_t body[16384];
    struct pair *p = pair_new(server_of("p256", TLS_CLIENT_REQUIRED), 13, "rsa2048");

    cr_assert(pair_shake(p));
    size_t idle = tls_bytes_used(p->t);

    client_says(p, body, sizeof(body));
    size_t all = p->to_server.n;

    p->to_server.n = all - 1;
    pair_feed(p);
    cr_expect_leq(tls_bytes_used(p->t), idle + 17000);
    cr_expect_eq(p->got_n, 0);
    cr_assert(tls_write(p->t, bytes_of(body, sizeof(body)))); /* the other way is open */
    p->to_server.n = all;
    pair_feed(p);
    cr_expect_eq(p->got_n, sizeof(body));
    cr_expect_leq(tls_bytes_used(p->t), idle);
    pair_free(p);
}

static void append(FILE *to, const char *name)
{
    static char text[16384];
    FILE *f = fopen(key_path(name, ".pem"), "r");

    cr_assert_not_null(f);
    cr_assert_gt(fwrite(text, 1, fread(text, 1, sizeof(text), f), to), 0);
    fclose(f);
}

static void use_long_chain(struct pair *p, bool one_more)
{
    static const char *const names[] = { "rsa8192", "chain", "rsa4096", "rsa8192", "p256", "k256" };
    char path[] = "/tmp/sluice-tls-XXXXXX";
    FILE *f = fdopen(mkstemp(path), "w");

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        append(f, names[i]); /* chain has three */
    if (one_more)
        append(f, "rsa8192");
    fclose(f);
    cr_assert_eq(wolfSSL_use_certificate_chain_file(p->client, path), WOLFSSL_SUCCESS);
    remove(path);
}

/* What a client of 1.2 says in the clear, in records of one byte each, but for a message's head,
 * which wolfSSL wants in one piece. */
static void fragment(struct pipe *p)
{
    static uint8_t out[PIPE_BYTES];
    size_t n = 0, at = p->read;

    while (at + 5 <= p->n && p->bytes[at] == 0x16) {
        size_t left = (size_t)p->bytes[at + 3] << 8 | p->bytes[at + 4], take = 4;

        for (at += 5; left; at += take, left -= take, take = 1) {
            uint8_t head[] = { 0x16, 3, 3, 0, (uint8_t)take };

            memcpy(out + n, head, 5);
            memcpy(out + n + 5, p->bytes + at, take);
            n += 5 + take;
        }
    }
    memcpy(out + n, p->bytes + at, p->n - at);
    n += p->n - at;
    memcpy(p->bytes, out, n);
    p->read = 0;
    p->n = n;
}

Test(tls_hostile, bounds_a_flight_in_the_smallest_pieces)
{
    for (int chain = 0; chain < 2; chain++) {
        struct pair *p = pair_new(server_of("p256", TLS_CLIENT_REQUIRED), 12, "rsa8192");

        if (chain)
            use_long_chain(p, false);
        (void)wolfSSL_connect(p->client);
        pair_feed(p);
        (void)wolfSSL_connect(p->client);
        fragment(&p->to_server);
        cr_expect_gt(p->to_server.n, (size_t)(chain ? TLS_HANDSHAKE_BYTES_MAX : 20000));
        pair_feed(p);
        if (chain)
            expect_refused(p, TLS_WHY_TOO_LONG, "chain");
        else
            cr_expect(tls_established(p->t), "%s", tls_why_text(tls_why(p->t)));
        pair_free(p);
    }
}

/* The longest that is taken, with the keys that need most: below the bound of a connection. One
 * certificate more is refused. */
Test(tls_hostile, takes_chains_up_to_its_bound)
{
    for (int extra = 0; extra < 2; extra++) {
        for (size_t v = 0; v < ARRAY_LEN(VERSIONS); v++) {
            struct pair *p =
                pair_new(server_of("rsa4096", TLS_CLIENT_REQUIRED), VERSIONS[v], "rsa8192");

            use_long_chain(p, extra);
            cr_expect_eq(pair_shake(p), !extra, "%d: %s", VERSIONS[v], tls_why_text(tls_why(p->t)));
            if (!extra)
                cr_expect_leq(p->peak, (size_t)TLS_CONN_BYTES_MAX);
            else if (VERSIONS[v] == 13)
                cr_expect_eq(tls_why(p->t), TLS_WHY_BAD_CERT);
            pair_free(p);
        }
    }
}
