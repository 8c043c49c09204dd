/* TLS by wolfSSL over memory: who gets in, who they are, what is carried (dig.md §12). */
#include "tests/unit/tls_pair.h"

static const char *const SERVERS[] = { "p256", "p384", "p521", "ed25519", "rsa2048", "rsa4096" };
static const int VERSIONS[] = { 12, 13 };

static void echo(struct pair *p)
{
    char back[64];

    client_says(p, "ping", 4);
    pair_feed(p);
    cr_assert_eq(p->got_n, 4);
    cr_assert(memcmp(p->got, "ping", 4) == 0);
    cr_assert(tls_write(p->t, bytes_str("pong!")));
    cr_assert_eq(client_hears(p, back, sizeof(back)), 5);
    cr_assert(memcmp(back, "pong!", 5) == 0);
    p->got_n = 0;
}

Test(tls, shakes_hands_with_every_kind_of_server_key)
{
    for (size_t i = 0; i < ARRAY_LEN(SERVERS); i++) {
        for (size_t v = 0; v < ARRAY_LEN(VERSIONS); v++) {
            struct pair *p = pair_new(server_of(SERVERS[i], TLS_SERVER_ONLY), VERSIONS[v], NULL);
            char hex[TLS_PEER_ID + 1];

            cr_assert(pair_shake(p), "%s %d: client %d, server %s", SERVERS[i], VERSIONS[v],
                      p->client_error, tls_why_text(tls_why(p->t)));
            cr_assert_str_eq(wolfSSL_get_version(p->client),
                             VERSIONS[v] == 12 ? "TLSv1.2" : "TLSv1.3");
            cr_assert_not(tls_peer_id(p->t, hex));
            echo(p);
            tls_server_id(p->server, hex);
            cr_assert_str_eq(hex, id_of(SERVERS[i]));
            pair_free(p);
        }
    }
}

Test(tls, knows_a_client_by_its_key)
{
    static const char *const clients[] = { "p256",    "p384",    "p521",  "ed25519", "rsa2048",
                                           "rsa4096", "rsa8192", "usage", "past",    "chain" };

    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        for (size_t v = 0; v < ARRAY_LEN(VERSIONS); v++) {
            struct pair *p =
                pair_new(server_of("p256", TLS_CLIENT_REQUIRED), VERSIONS[v], clients[i]);
            char hex[TLS_PEER_ID + 1] = "";

            cr_assert_not(tls_peer_id(p->t, hex));
            cr_assert(pair_shake(p), "%s %d: client %d, server %s", clients[i], VERSIONS[v],
                      p->client_error, tls_why_text(tls_why(p->t)));
            cr_assert(tls_peer_id(p->t, hex));
            cr_assert_str_eq(hex, id_of(clients[i]));
            echo(p);
            cr_assert_leq(tls_bytes_used(p->t), 16384); /* idle: 11.6 to 15 KiB */
            pair_free(p);
        }
    }
}

static void refused(const char *cert, int version, enum tls_mode mode, enum tls_why why)
{
    struct pair *p = pair_new(server_of("p256", mode), version, cert);
    char hex[TLS_PEER_ID + 1];

    cr_expect_not(pair_shake(p), "%s %d", cert ? cert : "none", version);
    cr_expect_eq(p->verdict, TLS_FAILED, "%s %d", cert ? cert : "none", version);
    cr_expect_eq(tls_why(p->t), why, "%s %d: %s", cert ? cert : "none", version,
                 tls_why_text(tls_why(p->t)));
    cr_expect_not(tls_established(p->t));
    cr_expect_not(tls_peer_id(p->t, hex));
    cr_expect_not(tls_write(p->t, bytes_str("no")));
    cr_expect_eq(tls_feed(p->t, bytes_str("more")), TLS_FAILED);
    pair_free(p);
}

Test(tls, refuses_keys_that_it_does_not_compute_with)
{
    static const char *const clients[] = { "rsa1024", "exponent", "k256", "badchain", "v1" };

    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        for (size_t v = 0; v < ARRAY_LEN(VERSIONS); v++) {
            refused(clients[i], VERSIONS[v], TLS_CLIENT_REQUIRED, TLS_WHY_BAD_CERT);
            refused(clients[i], VERSIONS[v], TLS_CLIENT_OPTIONAL, TLS_WHY_BAD_CERT);
        }
    }
}

Test(tls, insists_on_a_certificate_only_where_it_is_required)
{
    for (size_t v = 0; v < ARRAY_LEN(VERSIONS); v++) {
        char hex[TLS_PEER_ID + 1];
        struct pair *p = pair_new(server_of("p256", TLS_CLIENT_OPTIONAL), VERSIONS[v], NULL);

        cr_assert(pair_shake(p), "%d: client %d, server %s", VERSIONS[v], p->client_error,
                  tls_why_text(tls_why(p->t)));
        cr_assert_not(tls_peer_id(p->t, hex));
        echo(p);
        pair_free(p);
        p = pair_new(server_of("p256", TLS_CLIENT_OPTIONAL), VERSIONS[v], "ed25519");
        cr_assert(pair_shake(p));
        cr_assert(tls_peer_id(p->t, hex));
        cr_assert_str_eq(hex, id_of("ed25519"));
        pair_free(p);
        p = pair_new(server_of("p256", TLS_SERVER_ONLY), VERSIONS[v], "ed25519");
        cr_assert(pair_shake(p));
        cr_assert_not(tls_peer_id(p->t, hex)); /* nobody asked for it */
        pair_free(p);
        refused(NULL, VERSIONS[v], TLS_CLIENT_REQUIRED, TLS_WHY_NO_CERT);
    }
}

Test(tls, refuses_a_certificate_whose_key_the_client_does_not_have)
{
    for (size_t v = 0; v < ARRAY_LEN(VERSIONS); v++) {
        struct pair *p = pair_new(server_of("rsa2048", TLS_CLIENT_REQUIRED), VERSIONS[v], "p256");

        cr_assert_eq(
            wolfSSL_use_PrivateKey_file(p->client, key_path("usage", ".key"), WOLFSSL_FILETYPE_PEM),
            WOLFSSL_SUCCESS);
        cr_assert_not(pair_shake(p));
        cr_assert_eq(tls_why(p->t), TLS_WHY_BAD_PROOF, "%s", tls_why_text(tls_why(p->t)));
        pair_free(p);
    }
}

Test(tls, does_not_mind_how_the_stream_is_cut)
{
    static const size_t cuts[] = { 1, 2, 3, 5, 7, 64, 1000 };

    for (size_t v = 0; v < ARRAY_LEN(VERSIONS); v++) {
        for (size_t i = 0; i < ARRAY_LEN(cuts); i++) {
            struct pair *p = pair_new(server_of("p256", TLS_CLIENT_REQUIRED), VERSIONS[v], "p384");

            p->cut = cuts[i];
            cr_assert(pair_shake(p), "%zu", cuts[i]);
            echo(p);
            pair_free(p);
        }
    }
}

/* The first flight in two parts, at each place; then the whole of the second and data at once, as a
 * client sends it that does not wait. */
Test(tls, takes_every_split_of_a_client_hello)
{
    for (size_t v = 0; v < ARRAY_LEN(VERSIONS); v++) {
        size_t hello = 2; /* as the client says, once it has spoken */

        for (size_t at = 1; at < hello; at++) {
            struct pair *p = pair_new(server_of("ed25519", TLS_SERVER_ONLY), VERSIONS[v], NULL);

            (void)wolfSSL_connect(p->client);
            hello = p->to_server.n;
            p->to_server.n = at;
            pair_feed(p);
            cr_assert_eq(p->verdict, TLS_MORE);
            cr_assert_eq(p->to_client.n, 0);
            p->to_server.n = hello;
            pair_feed(p);
            cr_assert_gt(p->to_client.n, 0);
            if (at % 16 == 1)
                cr_assert(pair_shake(p));
            pair_free(p);
        }
        cr_assert_gt(hello, 100);
    }
}

Test(tls, gives_data_that_comes_with_the_last_flight)
{
    struct pair *p = pair_new(server_of("p256", TLS_CLIENT_REQUIRED), 13, "p256");

    (void)wolfSSL_connect(p->client);
    pair_feed(p);
    cr_assert_eq(wolfSSL_connect(p->client), WOLFSSL_SUCCESS);
    client_says(p, "GET", 3);
    pair_feed(p); /* certificate, proof, Finished and data in one piece */
    cr_assert_eq(p->verdict, TLS_READY);
    cr_assert_eq(p->got_n, 3);
    pair_free(p);
}

Test(tls, carries_bulk_both_ways_and_holds_nothing_when_idle)
{
    enum { BULK = 700000 };
    static uint8_t out[BULK], back[BULK];

    for (size_t i = 0; i < BULK; i++)
        out[i] = (uint8_t)(i * 2654435761U >> 13);
    for (size_t v = 0; v < ARRAY_LEN(VERSIONS); v++) {
        struct pair *p = pair_new(server_of("p256", TLS_CLIENT_REQUIRED), VERSIONS[v], "ed25519");
        struct bytes parts[] = {
            { out, 1 },         { out + 1, 16382 },     { out + 16383, 3 },
            { out + 16386, 0 }, { out + 16386, 40000 }, { out + 56386, BULK - 56386 }
        };

        cr_assert(pair_shake(p));
        size_t idle = tls_bytes_used(p->t);

        p->cut = 10007;
        client_says(p, out, BULK);
        pair_feed(p);
        cr_assert_eq(p->got_n, BULK);
        cr_assert(memcmp(p->got, out, BULK) == 0);
        cr_assert(tls_writev(p->t, parts, ARRAY_LEN(parts)));
        cr_assert_leq(p->to_client.n - p->to_client.read, tls_sealed_bytes(BULK));
        cr_assert_eq(client_hears(p, back, BULK), BULK);
        cr_assert(memcmp(back, out, BULK) == 0);
        cr_assert_leq(tls_bytes_used(p->t), idle);
        cr_assert_leq(tls_bytes_used(p->t), 16384);
        pair_free(p);
    }
}

Test(tls, gathers_short_parts_into_one_record)
{
    struct pair *p = pair_new(server_of("p256", TLS_SERVER_ONLY), 13, NULL);
    struct bytes parts[] = { bytes_str("he"), bytes_str("ad"), bytes_str("body"), { NULL, 0 } };
    char back[16];

    cr_assert(pair_shake(p));
    (void)client_hears(p, back, sizeof(back));
    cr_assert_eq(p->to_client.n, p->to_client.read);
    cr_assert(tls_writev(p->t, parts, ARRAY_LEN(parts)));
    cr_assert_eq(p->to_client.n - p->to_client.read, 5 + 8 + 1 + 16);
    cr_assert_eq(client_hears(p, back, sizeof(back)), 8);
    cr_assert(memcmp(back, "headbody", 8) == 0);
    cr_assert(tls_writev(p->t, parts, 0));
    cr_assert(tls_write(p->t, bytes_of(NULL, 0)));
    cr_assert_eq(p->to_client.n, p->to_client.read); /* nothing is no record */
    pair_free(p);
}

/* A reader that stops keeps what has not been decrypted, and feeds it later. */
Test(tls, gives_back_what_was_not_read)
{
    struct pair *p = pair_new(server_of("p256", TLS_SERVER_ONLY), 13, NULL);
    uint8_t some[3];
    struct bytes in, rest;

    cr_assert(pair_shake(p));
    client_says(p, "first", 5);
    client_says(p, "second", 6);
    in = bytes_of(p->to_server.bytes + p->to_server.read, p->to_server.n - p->to_server.read);
    cr_assert_eq(tls_feed(p->t, in), TLS_READY);
    cr_assert_eq(tls_read(p->t, some, 3), 3);
    rest = tls_rest(p->t);
    cr_assert_eq(rest.n, 6 + 1 + 16 + 5); /* the second record, untouched */
    cr_assert_eq(rest.p, in.p + in.n - rest.n);
    cr_assert_eq(tls_rest(p->t).n, 0);
    cr_assert_eq(tls_read(p->t, some, 3), 2); /* of the first one, which is in there */
    cr_assert_eq(tls_read(p->t, some, 3), 0);
    cr_assert_eq(tls_verdict(p->t), TLS_READY);
    cr_assert_eq(tls_feed(p->t, rest), TLS_READY);
    cr_assert_eq(tls_read(p->t, some, 3), 3);
    cr_assert(memcmp(some, "sec", 3) == 0);
    cr_assert_eq(tls_rest(p->t).n, 0);
    p->to_server.read = p->to_server.n;
    pair_free(p);
}

Test(tls, closes_in_order)
{
    for (size_t v = 0; v < ARRAY_LEN(VERSIONS); v++) {
        struct pair *p = pair_new(server_of("p256", TLS_SERVER_ONLY), VERSIONS[v], NULL);
        char back[8];

        cr_assert(pair_shake(p));
        client_says(p, "last", 4);
        (void)wolfSSL_shutdown(p->client);
        pair_feed(p);
        cr_assert_eq(p->got_n, 4);
        cr_assert_eq(p->verdict, TLS_CLOSED);
        cr_assert_eq(tls_why(p->t), TLS_WHY_NONE);
        cr_assert_eq(tls_feed(p->t, bytes_str("?")), TLS_CLOSED);
        cr_assert_eq(tls_rest(p->t).n, 0);
        pair_free(p);

        p = pair_new(server_of("p256", TLS_SERVER_ONLY), VERSIONS[v], NULL);
        tls_close_notify(p->t); /* nobody to say it to yet */
        cr_assert_eq(p->to_client.n, 0);
        cr_assert(pair_shake(p));
        cr_assert(tls_write(p->t, bytes_str("bye")));
        tls_close_notify(p->t);
        size_t n = p->to_client.n;

        tls_close_notify(p->t);
        cr_assert_eq(p->to_client.n, n);
        cr_assert_not(tls_write(p->t, bytes_str("more")));
        cr_assert_eq(client_hears(p, back, 3), 3);
        cr_assert_leq(wolfSSL_read(p->client, back, 1), 0);
        cr_assert_eq(wolfSSL_get_error(p->client, 0), WOLFSSL_ERROR_ZERO_RETURN);
        pair_free(p);
    }
}

Test(tls, settles_on_a_protocol_that_both_have)
{
    static const struct {
        const char *offer, *chosen;
    } cases[] = {
        { "stun.turn", "stun.turn" },
        { "h2,stun.nat-discovery", "stun.nat-discovery" },
        { "stun.nat-discovery,stun.turn", "stun.nat-discovery" },
        { "h2,http/1.1", NULL },
        { NULL, NULL },
    };
    static const struct tls_alpn ours = { { "stun.turn", "stun.nat-discovery" }, 2 };

    for (size_t v = 0; v < ARRAY_LEN(VERSIONS); v++) {
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
            char why[256], offer[64];
            struct tls_server *s =
                tls_server_load(key_path("p256", ".pem"), key_path("p256", ".key"), TLS_SERVER_ONLY,
                                &ours, why, sizeof(why));
            struct pair *p = pair_new(s, VERSIONS[v], NULL);

            if (cases[i].offer) {
                snprintf(offer, sizeof(offer), "%s", cases[i].offer);
                cr_assert_eq(wolfSSL_UseALPN(p->client, offer, (unsigned)strlen(offer),
                                             WOLFSSL_ALPN_CONTINUE_ON_MISMATCH),
                             WOLFSSL_SUCCESS);
            }
            cr_assert_null(tls_alpn(p->t));
            cr_assert(pair_shake(p), "%zu: %s", i, tls_why_text(tls_why(p->t)));
            if (cases[i].chosen)
                cr_assert_str_eq(tls_alpn(p->t), cases[i].chosen);
            else
                cr_assert_null(tls_alpn(p->t));
            pair_free(p);
        }
    }
}

/* A reload: who came before it stays with what it began with, until it goes. */
Test(tls, lives_on_when_its_server_is_replaced)
{
    struct tls_server *s = server_of("p256", TLS_CLIENT_REQUIRED);
    struct pair *old = pair_new(tls_server_keep(s), 13, "ed25519");
    struct pair *half = pair_new(tls_server_keep(s), 13, "ed25519");

    cr_assert(pair_shake(old));
    (void)wolfSSL_connect(half->client);
    pair_feed(half);
    tls_server_drop(old->server);
    tls_server_drop(half->server);
    old->server = half->server = NULL;
    tls_server_drop(s); /* the last but those of the connections */
    struct pair *new = pair_new(server_of("rsa2048", TLS_SERVER_ONLY), 13, NULL);

    cr_assert(pair_shake(new));
    cr_assert(pair_shake(half));
    echo(old);
    echo(half);
    echo(new);
    pair_free(old);
    pair_free(half);
    pair_free(new);
}

static void unloadable(const char *cert, const char *key, const char *line)
{
    char why[512] = "";
    char cert_path[512], key_path_[512];

    snprintf(cert_path, sizeof(cert_path), TLS_KEYS "%s", cert);
    snprintf(key_path_, sizeof(key_path_), TLS_KEYS "%s", key);
    cr_expect_null(tls_server_load(cert_path, key_path_, TLS_SERVER_ONLY, NULL, why, sizeof(why)));
    cr_expect_not_null(strstr(why, line), "%s, not %s", why, line);
}

Test(tls_server, names_the_file_and_the_cause)
{
    unloadable("nowhere.pem", "p256.key", "/nowhere.pem: No such file or directory");
    unloadable("p256.pem", "nowhere.key", "/nowhere.key: No such file or directory");
    unloadable("", "p256.key", "not a regular file");
    unloadable("p256.key", "p256.key", "/p256.key: no certificate in it");
    unloadable("p256.pem", "p256.pem", "/p256.pem: no private key in it");
    unloadable("p256.pem", "p384.key", "/p384.key: the key is not that of the certificate");
    unloadable("p256.pem", "rsa2048.key", "/rsa2048.key: the key is not that of the certificate");
    unloadable("rsa2048.pem", "rsa4096.key",
               "/rsa4096.key: the key is not that of the certificate");
    unloadable("p256.pem", "encrypted.key", "/encrypted.key: the key is encrypted");
    unloadable("v1.pem", "v1.key", "/v1.pem: the first certificate is no X.509 v3");
}

Test(tls_server, reads_keys_in_their_three_spellings)
{
    static const char *const keys[][2] = { { "p256", "p256-sec1" },
                                           { "rsa2048", "rsa2048-pkcs1" },
                                           { "chain", "chain" } };

    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        char why[256] = "", hex[TLS_PEER_ID + 1];
        struct tls_server *s =
            tls_server_load(key_path(keys[i][0], ".pem"), key_path(keys[i][1], ".key"),
                            TLS_SERVER_ONLY, NULL, why, sizeof(why));

        cr_assert_not_null(s, "%s", why);
        cr_assert_eq(tls_server_mode(s), TLS_SERVER_ONLY);
        cr_assert_gt(tls_server_expires_unix_s(s), INT64_C(4000000000)); /* after 2096 */
        cr_assert_lt(tls_server_expires_unix_s(s), INT64_C(6000000000));
        tls_server_id(s, hex);
        cr_assert_str_eq(hex, id_of(keys[i][0]));
        struct pair *p = pair_new(s, 13, NULL);

        cr_assert(pair_shake(p));
        pair_free(p);
    }
}

/* Cut anywhere, a file is refused or, behind the last line that matters, taken; nothing else. */
Test(tls_server, survives_files_that_are_cut_short)
{
    static char chain[16384], key[16384];
    char why[256];
    FILE *f = fopen(key_path("chain", ".pem"), "r");
    size_t chain_n = fread(chain, 1, sizeof(chain), f);

    fclose(f);
    f = fopen(key_path("chain", ".key"), "r");
    size_t key_n = fread(key, 1, sizeof(key), f);

    fclose(f);
    for (size_t n = 0; n < chain_n; n += 13)
        tls_server_drop(tls_server_new(bytes_of(chain, n), bytes_of(key, key_n), TLS_SERVER_ONLY,
                                       NULL, why, sizeof(why)));
    for (size_t n = 0; n + 30 < key_n; n += 3)
        cr_expect_null(tls_server_new(bytes_of(chain, chain_n), bytes_of(key, n), TLS_SERVER_ONLY,
                                      NULL, why, sizeof(why)),
                       "%zu", n);
}
