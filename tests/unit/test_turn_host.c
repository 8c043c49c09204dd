/* What all shards share of TURN: users, limits, addresses, policy. */
#include "turn_host.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "engine/rng.h"
#include "engine/turn_users.h"

static bool peer_ok(const char *text)
{
    struct netaddr a = at_of(text);

    return turn_host_peer_ok(&h, &a);
}

static const char *ip_text(const struct netaddr *a)
{
    static char text[NETADDR_TEXT_MAX];

    netaddr_ip_text(a, text);
    return text;
}

/* ---- users and secrets ------------------------------------------------------------------------
 */

static void expect_key(const struct stun_auth *a, const char *hex)
{
    struct stun_key key;

    cr_assert(turn_host_find_user(&h, a, &key));
    cr_assert_eq(key.n * 2u, strlen(hex));
    for (size_t i = 0; i < key.n; i++) {
        char two[3];

        snprintf(two, sizeof(two), "%02x", key.b[i]);
        cr_assert(memcmp(two, hex + 2 * i, 2) == 0, "byte %zu of %s", i, hex);
    }
}

/* turn.md V6. */
Test(turn_host, a_user_is_two_keys_under_two_names)
{
    static const char md5[] = "8493fbc53ba582fb4c044c456bdc40eb";
    static const char sha[] = "07e934117abd40836e7c6329b54731b2b2d2a5f9a71f544922d75e0730d8251b";
    uint8_t hash[STUN_USERHASH_BYTES];
    struct stun_auth by_name = { .alg = STUN_ALG_MD5, .username = bytes_str("user") };
    struct stun_auth by_hash = { .alg = STUN_ALG_MD5, .userhash = bytes_of(hash, sizeof(hash)) };
    struct stun_key key;

    HOST("--turn-realm=realm", "--turn-user=other:pass", "--turn-user=user:pass");
    stun_userhash(bytes_str("user"), bytes_str("realm"), hash);
    expect_key(&by_name, md5);
    expect_key(&by_hash, md5);
    by_name.alg = by_hash.alg = STUN_ALG_SHA256;
    expect_key(&by_name, sha);
    expect_key(&by_hash, sha);
    hash[31] ^= 1;
    cr_assert(!turn_host_find_user(&h, &by_hash, &key));
    by_name.username = bytes_str("User");
    cr_assert(!turn_host_find_user(&h, &by_name, &key));
    by_name.username = bytes_str("use");
    cr_assert(!turn_host_find_user(&h, &by_name, &key));
    cr_assert(h.relays && h.machine.realm.algorithms && h.machine.realm.anonymity);
    finish();
}

Test(turn_host, as_many_users_as_the_configuration_takes)
{
    cr_assert_eq(LOAD("--listen-turn=127.0.0.1:3478"), 0);
    for (int i = 0; i < CONFIG_TURN_USERS_MAX; i++)
        snprintf(c.turn_user[i], sizeof(c.turn_user[i]), "user%d:p%d", i, i);
    c.turn_user_n = CONFIG_TURN_USERS_MAX;
    cr_assert_eq(init(), 0, "%s", why);
    for (int i = 0; i < CONFIG_TURN_USERS_MAX; i++) {
        char name[32], word[32];
        struct stun_auth a = { .alg = STUN_ALG_SHA256 };
        struct stun_key key, want;

        snprintf(name, sizeof(name), "user%d", i);
        snprintf(word, sizeof(word), "p%d", i);
        a.username = bytes_str(name);
        cr_assert(turn_host_find_user(&h, &a, &key), "%s", name);
        stun_key_make(STUN_ALG_SHA256, a.username, bytes_str("sluice"), bytes_str(word), &want);
        cr_assert(memcmp(&key, &want, sizeof(key)) == 0, "%s", name);
    }
    finish();
}

Test(turn_host, what_is_no_user_is_refused_without_its_password)
{
    static const char *const bad[][2] = {
        { "--turn-user=bob:one", "--turn-user=bob:two" },
        { "--turn-user=bob:a\tb", "--turn-user=eve:x" },
        { "--turn-user=b\xff:hunter", "--turn-user=eve:x" },
        { "--turn-user=bob:hunter", "--turn-realm=a\nb" },
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int refused = LOAD("--listen-turn=127.0.0.1:3478", bad[i][0], bad[i][1]);

        if (refused == 0) {
            cr_assert_eq(init(), -EINVAL, "%s", bad[i][0]);
            snprintf(said, sizeof(said), "%s", why);
            quota_free(quota);
        }
        cr_assert(strstr(said, "--turn-"), "%s", said);
        cr_assert(!strstr(said, "hunter") && !strstr(said, "two"), "%s", said);
    }
    config_free(&c);
}

Test(turn_host, several_secrets_and_no_hashes_of_their_names)
{
    HOST("--turn-user=user:pass", "--turn-secret=south", "--turn-secret=north");
    cr_assert_eq(h.machine.secrets.count, 2);
    cr_assert(bytes_eq(h.machine.secrets.secret[0], bytes_str("south")), "the first signs");
    cr_assert(bytes_eq(h.machine.secrets.secret[1], bytes_str("north")));
    cr_assert(!h.machine.realm.anonymity && h.machine.realm.algorithms && h.relays);
    finish();
}

Test(turn_host, without_credentials_it_is_stun_only)
{
    HOST("--max-circuits=9");
    cr_assert(!h.relays && !h.has[TURN_V4] && !h.has[TURN_V6]);
    cr_assert_eq(h.own_secret[0], 0);
    cr_assert(h.users == NULL && h.machine.secrets.count == 0);
    finish();
}

/* presets.md "TURN without secret and user". */
Test(turn_host, dusk_makes_a_secret_of_its_own)
{
    char first[sizeof(h.own_secret)];

    HOST("--preset=dusk");
    cr_assert(h.relays && h.machine.secrets.count == 1);
    cr_assert_eq(h.secret[0].n, 2 * TURN_SECRET_BYTES);
    memcpy(first, h.own_secret, sizeof(first));
    finish();
    HOST("--preset=dusk");
    cr_assert(memcmp(first, h.own_secret, sizeof(first)) != 0, "at each start another one");
    finish();
    HOST("--preset=dusk", "--turn-secret=x");
    cr_assert_eq(h.own_secret[0], 0);
    finish();
}

Test(turn_host, limits_come_from_ports_and_flags)
{
    HOST("--turn-secret=x", "--turn-ports=50000-50999", "--turn-relay-ip=127.0.0.1",
         "--turn-lifetime-secs=1200", "--turn-mobility", "--turn-tcp-relay=off",
         "--turn-nonce-secs=60");
    const struct turn_limits *l = &h.machine.limits;
    uint32_t ports = 1000u * (1 + h.has[TURN_V6]);

    cr_assert_eq(l->allocs_max, ports);
    cr_assert_eq(l->perms_max, 4 * ports);
    cr_assert_eq(l->lifetime_max_ms, 1200000);
    cr_assert(l->mobility && !l->classic && !l->strict_expiry && l->conns_max == 0);
    cr_assert(l->family[TURN_V4] && l->family[TURN_V6] == h.has[TURN_V6]);
    cr_assert_eq(h.machine.realm.nonce_ms, 60000);
    cr_assert_eq(h.machine.place.shards, 3);
    finish();
    HOST("--turn-secret=x", "--turn-max-allocations=10");
    cr_assert_eq(h.machine.limits.allocs_max, 10);
    cr_assert_eq(h.machine.limits.perms_max, TURN_ALLOC_PERMS_MAX, "one may have all of its own");
    cr_assert(h.machine.limits.conns_max > 0);
    finish();
}

Test(turn_host, keys_are_drawn_anew)
{
    uint8_t nonce[32], place[32], none[32] = { 0 };

    HOST("--turn-secret=x");
    memcpy(nonce, h.nonce.current, 32);
    memcpy(place, h.machine.place.key, 32);
    finish();
    HOST("--turn-secret=x");
    cr_assert(memcmp(nonce, h.nonce.current, 32) != 0 && memcmp(nonce, none, 32) != 0);
    cr_assert(memcmp(place, h.machine.place.key, 32) != 0 && memcmp(place, none, 32) != 0);
    finish();
}

/* ---- addresses --------------------------------------------------------------------------------
 */

Test(turn_host, relays_where_it_listens_or_is_told)
{
    HOST("--turn-secret=x");
    cr_assert(h.has[TURN_V4] && strcmp(ip_text(&h.relay_ip[TURN_V4]), "127.0.0.1") == 0);
    cr_assert_eq(h.relay_ip[TURN_V4].port, 0);
    if (h.has[TURN_V6])
        cr_assert(strcmp(ip_text(&h.relay_ip[TURN_V6]), "::1") == 0,
                  "a door on loopback opens nothing beyond it");
    finish();
    HOST("--turn-secret=x", "--turn-relay-ip=127.0.0.9", "--turn-relay-ip=::1");
    cr_assert(strcmp(ip_text(&h.relay_ip[TURN_V4]), "127.0.0.9") == 0);
    cr_assert(h.has[TURN_V6] && strcmp(ip_text(&h.relay_ip[TURN_V6]), "::1") == 0);
    finish();
    cr_assert_eq(LOAD("--listen-turn=[::]:3478", "--turn-secret=x"), 0);
    cr_assert_eq(init(), 0);
    cr_assert(h.has[TURN_V4], "every host has some IPv4 address");
    finish();
    cr_assert_eq(LOAD("--listen-turn=198.51.100.7:3478", "--turn-secret=x"), 0);
    cr_assert_eq(init(), 0);
    cr_assert(!h.has[TURN_V6] || strcmp(ip_text(&h.relay_ip[TURN_V6]), "::1") != 0,
              "loopback is no way out of a door that others reach");
    finish();
}

Test(turn_host, two_addresses_show_the_behaviour_of_nats)
{
    HOST("--turn-secret=x", "--turn-alternate=127.0.0.2:3479");
    const struct turn_behaviour *b = &h.machine.behaviour[TURN_V4];
    struct netaddr one = at_of("127.0.0.1:3478"), two = at_of("127.0.0.2:3479");

    cr_assert(b->on && !h.machine.behaviour[TURN_V6].on);
    cr_assert(memcmp(b->ip[0], one.ip, 16) == 0 && memcmp(b->ip[1], two.ip, 16) == 0);
    cr_assert(b->port[0] == 3478 && b->port[1] == 3479);
    finish();
}

Test(turn_host, external_addresses_are_told_and_lead_back)
{
    struct netaddr in = at_of("127.0.0.1:50000"), six = at_of("[::1]:7"), out;

    HOST("--turn-secret=x", "--turn-external-ip=8.8.4.4");
    turn_host_external(&h, &in, &out);
    cr_assert(strcmp(ip_text(&out), "8.8.4.4") == 0 && out.port == 50000);
    turn_host_internal(&h, &out);
    cr_assert(memcmp(&out, &in, sizeof(out.ip)) == 0 && out.port == 50000);
    turn_host_external(&h, &six, &out);
    cr_assert(strcmp(ip_text(&out), "::1") == 0, "each family by itself");
    out = at_of("8.8.8.8:9");
    turn_host_internal(&h, &out);
    cr_assert(strcmp(ip_text(&out), "8.8.8.8") == 0);
    finish();
    HOST("--turn-secret=x", "--turn-external-ip=turn.example.org");
    turn_host_external(&h, &in, &out);
    cr_assert(strcmp(ip_text(&out), "127.0.0.1") == 0, "the bound one until the name is known");
    finish();
}

static _Atomic bool stop;
static _Atomic uint32_t looks;

/* As slow against a look as once a minute is: one look at least ends between two changes. */
static void *change_external(void *arg)
{
    uint8_t ip[16];

    (void)arg;
    for (uint32_t i = 1; !atomic_load(&stop); i++) {
        uint32_t seen = atomic_load(&looks);

        memset(ip, (int)(i % 200) + 1, sizeof(ip));
        turn_host_set_external(&h, TURN_V6, ip);
        while (!atomic_load(&stop) && atomic_load(&looks) - seen < 2)
            sched_yield();
    }
    return NULL;
}

Test(turn_host, nobody_sees_half_an_external_address, .timeout = 60)
{
    struct netaddr in = at_of("[::1]:7"), out;
    pthread_t t;

    HOST("--turn-secret=x");
    cr_assert_eq(pthread_create(&t, NULL, change_external, NULL), 0);
    while (!turn_host_has_external(&h, TURN_V6, &out))
        sched_yield();
    for (int i = 0; i < 500000; i++) {
        turn_host_external(&h, &in, &out);
        atomic_fetch_add(&looks, 1);
        for (int k = 1; k < 16 && out.ip[0]; k++)
            cr_assert_eq(out.ip[k], out.ip[0]);
    }
    atomic_store(&stop, true);
    cr_assert_eq(pthread_join(t, NULL), 0);
    finish();
}

/* ---- policy -----------------------------------------------------------------------------------
 */

/* turn.md check 62. */
Test(turn_host, what_is_not_global_is_no_peer)
{
    static const char *const bad[] = {
        "127.0.0.1:50000",    "127.9.9.9:9",     "0.0.0.0:9",           "10.0.0.1:9",
        "169.254.169.254:80", "224.0.0.1:9",     "255.255.255.255:9",   "192.168.1.1:9",
        "[::1]:50000",        "[::]:9",          "[fe80::1]:9",         "[fd00::1]:9",
        "[ff02::1]:9",        "[::127.0.0.1]:9", "[64:ff9b::7f00:1]:9", "[2002:7f00:1::]:9",
        "[fd00:ec2::254]:80",
    };

    HOST("--turn-secret=x");
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct netaddr any_port = at_of(bad[i]);

        any_port.port = 0;
        cr_assert(!peer_ok(bad[i]), "%s", bad[i]);
        cr_assert(!turn_host_peer_ok(&h, &any_port), "%s", bad[i]);
    }
    cr_assert(peer_ok("8.8.8.8:9") && peer_ok("[2a00:1450::1]:9"));
    finish();
}

/* turn.md check 63: of this host only relayed addresses that somebody has. */
Test(turn_host, of_this_host_only_relayed_addresses_are_peers)
{
    char text[64];

    HOST("--turn-secret=x", "--turn-relay-ip=127.0.0.9", "--turn-allow-peer=127.0.0.0/8",
         "--turn-ports=50000-50999");
    uint16_t port = turn_ports_take(h.ports[TURN_V4], 1, TURN_PORT_ANY);

    snprintf(text, sizeof(text), "127.0.0.9:%u", port);
    cr_assert(peer_ok(text), "the hairpin");
    cr_assert(peer_ok("127.0.0.8:22"), "allowed, and not ours");
    cr_assert(!peer_ok("127.0.0.1:3478") && !peer_ok("127.0.0.1:50000"), "where it listens");
    cr_assert(!peer_ok("127.0.0.9:22"), "outside the range");
    turn_ports_give(h.ports[TURN_V4], 1, port);
    cr_assert(!peer_ok(text), "nobody's, or another program's");
    port = turn_ports_take(h.ports[TURN_V4], 1 + TURN_PORT_REST_MS, TURN_PORT_ANY);
    turn_host_add_own_port(&h, port);
    snprintf(text, sizeof(text), "127.0.0.9:%u", port);
    cr_assert(!peer_ok(text), "a door of ours, on a port of the range");
    turn_ports_give(h.ports[TURN_V4], 1 + TURN_PORT_REST_MS, port);
    finish();
}

Test(turn_host, every_address_of_this_host_is_its_own)
{
    cr_assert_eq(LOAD("--listen-turn=127.0.0.77:3478", "--turn-secret=x",
                      "--turn-relay-ip=127.0.0.9", "--turn-allow-peer=127.0.0.0/8"),
                 0, "%s", said);
    cr_assert_eq(init(), 0, "%s", why);
    cr_assert(!peer_ok("127.0.0.1:50000"), "of its loopback interface");
    cr_assert(!peer_ok("127.0.0.77:50000"), "where it listens, although no interface has that");
    cr_assert(peer_ok("127.0.0.78:50000"));
    cr_assert(!h.self_cut);
    finish();
}

Test(turn_host, relaying_from_loopback_does_not_open_it)
{
    char text[64];

    HOST("--turn-secret=x");
    snprintf(text, sizeof(text), "127.0.0.1:%u",
             turn_ports_take(h.ports[TURN_V4], 1, TURN_PORT_ANY));
    cr_assert(!peer_ok(text));
    finish();
    HOST("--turn-secret=x", "--turn-allow-peer=127.0.0.1");
    cr_assert(peer_ok("127.0.0.1:22"), "allowed by its whole address: any port");
    finish();
}

Test(turn_host, an_external_address_is_judged_as_what_it_leads_to)
{
    char text[64];

    HOST("--turn-secret=x", "--turn-external-ip=8.8.4.4", "--turn-allow-peer=127.0.0.0/8");
    struct netaddr any_port = at_of("8.8.4.4:1");

    snprintf(text, sizeof(text), "8.8.4.4:%u", turn_ports_take(h.ports[TURN_V4], 1, TURN_PORT_ANY));
    cr_assert(peer_ok(text));
    cr_assert(!peer_ok("8.8.4.4:3478") && !peer_ok("8.8.4.4:22"));
    any_port.port = 0;
    cr_assert(turn_host_peer_ok(&h, &any_port), "a permission has no port");
    finish();
    HOST("--turn-secret=x", "--turn-external-ip=8.8.4.4", "--turn-allow-peer=127.0.0.0/8",
         "--turn-deny-peer=8.8.4.0/24");
    cr_assert(!turn_host_peer_ok(&h, &any_port), "denied by its outer name");
    finish();
}
