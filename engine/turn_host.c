#include "engine/turn_host.h"

#include <errno.h>
#include <stdio.h>

#include "engine/hostinfo.h"
#include "engine/rng.h"
#include "engine/turn_login.h"
#include "engine/turn_users.h"
#include "proto/crypto.h"

static enum turn_family family_of(const struct netaddr *a)
{
    return netaddr_is4(a) ? TURN_V4 : TURN_V6;
}

static bool is_loopback(const struct netaddr *a)
{
    static const uint8_t one[16] = { [15] = 1 };

    return netaddr_is4(a) ? a->ip[12] == 127 : memcmp(a->ip, one, sizeof(one)) == 0;
}

static bool is_link_local(const struct netaddr *a)
{
    return netaddr_is4(a) ? a->ip[12] == 169 && a->ip[13] == 254
                          : a->ip[0] == 0xfe && (a->ip[1] & 0xc0) == 0x80;
}

static bool parse_ip(const char *text, struct netaddr *out)
{
    struct cidr c;

    if (!cidr_parse(bytes_str(text), &c))
        return false;
    *out = (struct netaddr){ .port = 0 };
    memcpy(out->ip, c.ip, sizeof(out->ip));
    return true;
}

/* ---- addresses -----------------------------------------------------------------------------
 */

struct places {
    struct listen_at door[CONFIG_LISTEN_MAX];
    unsigned doors;
    struct netaddr own[PEER_SELVES_MAX];
    size_t owns;
    bool open; /* some door can be reached from another host */
};

static bool first_own(const struct places *p, enum turn_family f,
                      bool (*is)(const struct netaddr *), struct netaddr *out)
{
    for (size_t i = 0; i < p->owns; i++) {
        if (family_of(&p->own[i]) != f || !is(&p->own[i]))
            continue;
        *out = p->own[i];
        return true;
    }
    return false;
}

static bool is_reachable(const struct netaddr *a)
{
    return !is_loopback(a) && !is_link_local(a);
}

/* What the operator names; what he listens at; else the host's first public, then its first other
 * address, but nothing beyond loopback for doors on loopback. Loopback as the last resort only
 * where such doors are all there are, or the doors are everywhere. */
static bool pick_relay_ip(const struct config *c, const struct places *p, enum turn_family f,
                          struct netaddr *out)
{
    bool elsewhere = false;

    for (unsigned i = 0; i < c->turn_relay_ip_n; i++)
        if (parse_ip(c->turn_relay_ip[i], out) && family_of(out) == f)
            return true;
    for (unsigned i = 0; i < p->doors; i++) {
        const struct netaddr *a = &p->door[i].addr;

        if (!netaddr_is_any(a) && family_of(a) == f) {
            *out = *a;
            out->port = 0;
            return true;
        }
        elsewhere |= !netaddr_is_any(a) && !is_loopback(a);
    }
    if (p->open && (first_own(p, f, netaddr_is_public, out) || first_own(p, f, is_reachable, out)))
        return true;
    return !elsewhere && first_own(p, f, is_loopback, out);
}

static bool is_allowed(const struct config *c, const struct netaddr *a, unsigned bits)
{
    bool allowed = false;

    for (unsigned i = 0; i < c->turn_allow_peer_n; i++)
        allowed |= c->turn_allow_peer[i].bits >= bits && cidr_match(&c->turn_allow_peer[i], a->ip);
    return allowed;
}

static void add_self(struct turn_host *h, const struct netaddr *a)
{
    bool relay = false;

    for (size_t i = 0; i < h->policy.self_count; i++)
        if (memcmp(h->self[i].ip, a->ip, sizeof(a->ip)) == 0)
            return;
    if (h->policy.self_count == PEER_SELVES_MAX) {
        h->self_cut = true;
        return;
    }
    for (int f = 0; f < TURN_FAMILIES; f++)
        relay |= h->has[f] && memcmp(h->relay_ip[f].ip, a->ip, sizeof(a->ip)) == 0;
    /* Relaying from loopback is for trying things out, and opens loopback no more than else. */
    if ((is_loopback(a) || is_link_local(a)) && !is_allowed(h->cfg, a, 0))
        relay = false;
    struct peer_self *s = &h->self[h->policy.self_count++];

    memcpy(s->ip, a->ip, sizeof(s->ip));
    s->relay = relay;
}

/* Every address of this host is refused as a peer, but for the ports of relayed addresses (turn.md
 * §15.1). External ones need no entry: they are judged as what they lead to. */
static void init_policy(struct turn_host *h, const struct places *p)
{
    const struct config *c = h->cfg;

    for (int f = 0; f < TURN_FAMILIES; f++)
        if (h->has[f]) {
            add_self(h, &h->relay_ip[f]);
            h->relay_allowed[f] = is_allowed(c, &h->relay_ip[f], 128);
        }
    for (unsigned i = 0; i < p->doors; i++)
        if (!netaddr_is_any(&p->door[i].addr))
            add_self(h, &p->door[i].addr);
    for (size_t i = 0; i < p->owns; i++)
        add_self(h, &p->own[i]);
    h->policy.self = h->self;
    h->policy.allow = c->turn_allow_peer;
    h->policy.allow_count = c->turn_allow_peer_n;
    h->policy.deny = c->turn_deny_peer;
    h->policy.deny_count = c->turn_deny_peer_n;
    h->policy.relay_port_min = c->turn_port_lo;
    h->policy.relay_port_max = c->turn_port_hi;
}

static int init_addresses(struct turn_host *h)
{
    const struct config *c = h->cfg;
    struct places p = { .owns = 0 };
    struct netaddr ip;

    p.doors = config_turn_doors(c, p.door);
    p.owns = hostinfo_own_addrs(p.own, ARRAY_LEN(p.own), &h->self_cut);
    for (unsigned i = 0; i < p.doors; i++)
        p.open |= netaddr_is_any(&p.door[i].addr) || !is_loopback(&p.door[i].addr);
    for (int f = 0; f < TURN_FAMILIES; f++) {
        h->has[f] = h->relays && pick_relay_ip(c, &p, (enum turn_family)f, &h->relay_ip[f]);
        if (!h->has[f])
            continue;
        h->ports[f] = turn_ports_new(c->turn_port_lo, c->turn_port_hi, TURN_PORT_REST_MS);
        if (!h->ports[f])
            return -ENOMEM;
    }
    for (unsigned i = 0; i < c->turn_external_n; i++)
        if (parse_ip(c->turn_external[i], &ip))
            turn_host_set_external(h, family_of(&ip), ip.ip);
    init_policy(h, &p);
    return 0;
}

/* RFC 5780: the door whose family the alternate is of, and the alternate. */
static void init_behaviour(struct turn_host *h)
{
    const struct config *c = h->cfg;

    for (unsigned i = 0; i < c->turn_alternate_n; i++) {
        const struct netaddr *b = &c->turn_alternate[i].addr;
        struct turn_behaviour *way = &h->machine.behaviour[family_of(b)];

        for (unsigned k = 0; k < c->turn_n && !way->on; k++) {
            const struct netaddr *a = &c->turn[k].addr;

            if (netaddr_is_any(a) || family_of(a) != family_of(b))
                continue;
            way->on = true;
            memcpy(way->ip[0], a->ip, 16);
            memcpy(way->ip[1], b->ip, 16);
            way->port[0] = a->port;
            way->port[1] = b->port;
        }
    }
}

/* ---- credentials --------------------------------------------------------------------------- */

/* Dusk's relay has always had a secret that it shares with the service that hands out credentials
 * (presets.md): one that nobody gave is made anew at each start. */
static void make_secret(struct turn_host *h)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t raw[TURN_SECRET_BYTES];

    rng_bytes(raw, sizeof(raw));
    for (size_t i = 0; i < sizeof(raw); i++) {
        h->own_secret[2 * i] = digits[raw[i] >> 4];
        h->own_secret[2 * i + 1] = digits[raw[i] & 15];
    }
    crypto_wipe(raw, sizeof(raw));
    h->secret[0] = bytes_str(h->own_secret);
    h->machine.secrets.count = 1;
}

static int init_credentials(struct turn_host *h, char *why, size_t cap)
{
    const struct config *c = h->cfg;
    struct turn_config *m = &h->machine;
    struct wcur w = wcur_of(h->realm, sizeof(h->realm));
    int err = 0;

    if (!stun_opaque(bytes_str(c->turn_realm), &w)) {
        snprintf(why, cap, "--turn-realm=%s: accepted is printable text of at most %d bytes",
                 c->turn_realm, TURN_REALM_MAX);
        return -EINVAL;
    }
    m->realm = (struct stun_realm){
        .name = bytes_of(h->realm, w.wrote),
        .nonce = &h->nonce,
        .nonce_ms = (uint64_t)c->turn_nonce_secs * 1000,
        .algorithms = true,
        /* Names made from a secret are found by no hash (turn.md §6). */
        .anonymity = c->turn_user_n > 0 && c->turn_secret_n == 0,
    };
    rng_bytes(h->nonce.current, sizeof(h->nonce.current));
    m->secrets = (struct stun_secrets){
        .secret = h->secret, .count = c->turn_secret_n, .separator = ':', .sha256 = true
    };
    for (unsigned i = 0; i < c->turn_secret_n; i++)
        h->secret[i] = bytes_str(c->turn_secret[i]);
    if (c->turn_user_n) {
        h->users = turn_users_new(c, m->realm.name, &err, why, cap);
    } else if (c->turn_secret_n == 0 && c->preset == PRESET_DUSK) {
        make_secret(h);
    }
    h->relays = m->secrets.count > 0 || c->turn_user_n > 0;
    return err;
}

static uint32_t more(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* All of a host's allocations may come to one shard: each has tables for all, which are touched as
 * they are used. */
static void init_limits(struct turn_host *h)
{
    const struct config *c = h->cfg;
    struct turn_limits *l = &h->machine.limits;
    uint32_t ports = 0;

    for (int f = 0; f < TURN_FAMILIES; f++) {
        l->family[f] = h->has[f];
        ports += h->has[f] ? turn_ports_count(h->ports[f]) : 0;
    }
    l->allocs_max = more(ports, 1); /* STUN only: tables of nothing would be a special case */
    if (c->turn_max_allocations && c->turn_max_allocations < ports)
        l->allocs_max = c->turn_max_allocations;
    l->alloc_perms_max = TURN_ALLOC_PERMS_MAX;
    l->alloc_chans_max = TURN_ALLOC_CHANS_MAX;
    l->perms_max = more(4 * l->allocs_max, l->alloc_perms_max);
    l->chans_max = more(4 * l->allocs_max, l->alloc_chans_max);
    l->conns_max = c->turn_tcp_relay ? TURN_CONNS_MAX : 0;
    l->alloc_conns_max = TURN_ALLOC_CONNS_MAX;
    l->lifetime_max_ms = c->turn_lifetime_secs * 1000;
    l->dont_fragment = true;
    l->compat_channels = c->turn_compat_channels;
    l->classic = c->turn_classic;
    l->binding_dig = c->turn_binding_dig && c->turn_alternate_n == 0;
    l->binding_only = c->turn_binding_dig && !h->relays;
    l->strict_expiry = c->turn_strict_expiry;
    l->mobility = c->turn_mobility;
}

int turn_host_init(struct turn_host *h, const struct config *cfg, struct quota *quota,
                   unsigned shards, char *why, size_t cap)
{
    int err;

    static_assert((int)CONFIG_CIDR_MAX <= (int)PEER_RULES_MAX, "the policy takes every rule");
    static_assert((int)CONFIG_TURN_SECRETS_MAX <= (int)STUN_SECRETS_MAX, "and every secret");
    memset(h, 0, sizeof(*h));
    snprintf(why, cap, "not enough memory for TURN");
    h->cfg = cfg;
    h->quota = quota;
    h->on = cfg->turn_on;
    h->key_total = quota_key(quota, QUOTA_TURN_TOTAL, bytes_of(NULL, 0));
    if ((err = init_credentials(h, why, cap)) || (err = init_addresses(h))) {
        turn_host_fini(h);
        return err;
    }
    init_limits(h);
    init_behaviour(h);
    h->machine.place.shards = (uint16_t)shards;
    rng_bytes(h->machine.place.key, sizeof(h->machine.place.key));
    h->machine.find_user = turn_host_find_user;
    h->machine.peer_ok = turn_host_peer_ok;
    h->machine.arg = h;
    why[0] = '\0';
    return 0;
}

void turn_host_fini(struct turn_host *h)
{
    turn_users_free(h->users);
    for (int f = 0; f < TURN_FAMILIES; f++)
        turn_ports_free(h->ports[f]);
    crypto_wipe(h, sizeof(*h));
}

/* ---- what clients are told ----------------------------------------------------------------- */

void turn_host_set_external(struct turn_host *h, enum turn_family f, const uint8_t ip[16])
{
    uint32_t at = atomic_load_explicit(&h->external_at[f], memory_order_relaxed) % TURN_EXTERNALS;
    uint64_t word[2];

    memcpy(word, ip, sizeof(word));
    for (int i = 0; i < 2; i++)
        atomic_store_explicit(&h->external[f][at][i], word[i], memory_order_relaxed);
    atomic_store_explicit(&h->external_at[f], at + 1, memory_order_release);
}

bool turn_host_has_external(const struct turn_host *h, enum turn_family f, struct netaddr *out)
{
    uint32_t at = atomic_load_explicit(&h->external_at[f], memory_order_acquire);
    uint64_t word[2];

    if (at == 0)
        return false;
    for (int i = 0; i < 2; i++)
        word[i] = atomic_load_explicit(&h->external[f][at - 1][i], memory_order_relaxed);
    *out = (struct netaddr){ .port = 0 };
    memcpy(out->ip, word, sizeof(word));
    return true;
}

void turn_host_external(const struct turn_host *h, const struct netaddr *relayed,
                        struct netaddr *out)
{
    struct netaddr ip;

    *out = *relayed;
    if (turn_host_has_external(h, family_of(relayed), &ip))
        memcpy(out->ip, ip.ip, sizeof(out->ip));
}

void turn_host_internal(const struct turn_host *h, struct netaddr *peer)
{
    enum turn_family f = family_of(peer);
    struct netaddr ip;

    if (h->has[f] && turn_host_has_external(h, f, &ip) && memcmp(ip.ip, peer->ip, 16) == 0)
        memcpy(peer->ip, h->relay_ip[f].ip, sizeof(peer->ip));
}

/* ---- what the machine asks ----------------------------------------------------------------- */

bool turn_host_find_user(void *arg, const struct stun_auth *a, struct stun_key *key)
{
    const struct turn_host *h = arg;
    const struct turn_login *l = atomic_load_explicit(&h->login, memory_order_acquire);
    const struct turn_users *users = l ? l->users : h->users;

    return users && turn_users_find(users, a, key);
}

void turn_host_set_login(struct turn_host *h, const struct turn_login *l)
{
    atomic_store_explicit(&h->login, l, memory_order_release);
}

struct stun_secrets turn_host_secrets(const struct turn_host *h)
{
    const struct turn_login *l = atomic_load_explicit(&h->login, memory_order_acquire);
    struct stun_secrets s = h->machine.secrets;

    if (l) {
        s.secret = l->secret;
        s.count = l->secrets_n;
    }
    return s;
}

void turn_host_add_own_port(struct turn_host *h, uint16_t port)
{
    if (port == 0) /* a door that is closed */
        return;
    ASSERT(h->own_ports < TURN_OWN_PORTS_MAX);
    h->own_port[h->own_ports++] = port;
}

static bool is_own_door(const struct turn_host *h, const struct netaddr *at)
{
    bool port = false;

    for (unsigned i = 0; i < h->own_ports; i++)
        port |= h->own_port[i] == at->port;
    for (size_t i = 0; port && i < h->policy.self_count; i++)
        if (memcmp(h->self[i].ip, at->ip, sizeof(at->ip)) == 0)
            return true;
    return false;
}

/* Our relay IP leads to our relayed addresses only, not to whatever else this host has in that
 * range of ports. */
static bool is_relayed(const struct turn_host *h, const struct netaddr *at)
{
    enum turn_family f = family_of(at);

    return !h->has[f] || h->relay_allowed[f] ||
           memcmp(h->relay_ip[f].ip, at->ip, sizeof(at->ip)) != 0 ||
           turn_ports_is_taken(h->ports[f], at->port);
}

/* By where it really goes (turn.md §15.1): an external address of ours is our relay IP. What the
 * operator has denied by its outer name stays denied. */
bool turn_host_peer_ok(void *arg, const struct netaddr *peer)
{
    const struct turn_host *h = arg;
    struct netaddr at = *peer;

    turn_host_internal(h, &at);
    if (memcmp(at.ip, peer->ip, sizeof(at.ip)) != 0 &&
        peer_judge_ip(&h->policy, peer->ip) == PEER_DENIED)
        return false;
    if (at.port == 0)
        return peer_judge_ip(&h->policy, at.ip) == PEER_OK;
    return peer_judge(&h->policy, &at) == PEER_OK && !is_own_door(h, &at) && is_relayed(h, &at);
}

/* ---- quotas and rates ---------------------------------------------------------------------- */

/* The first so many bytes of a client's address: of IPv4 its four, of IPv6 its 64 or 48 bits. */
static struct bytes prefix(const struct netaddr *a, bool net)
{
    if (netaddr_is4(a))
        return bytes_of(a->ip + 12, net ? 3 : 4);
    return bytes_of(a->ip, net ? 6 : 8);
}

static uint64_t user_key(const struct quota *q, struct bytes user)
{
    uint8_t hash[32];

    if (user.n <= sizeof(hash) - 1) /* a name of 32 bytes could be another one's hash */
        return quota_key(q, QUOTA_TURN_USER, user);
    crypto_sha256(user, hash);
    return quota_key(q, QUOTA_TURN_USER, bytes_of(hash, sizeof(hash)));
}

uint16_t turn_host_charge(struct turn_host *h, struct bytes user, const struct netaddr *client,
                          struct turn_charge *out)
{
    const struct config *c = h->cfg;
    struct turn_charge t = { .user = user_key(h->quota, user),
                             .ip = quota_key(h->quota, QUOTA_TURN_IP, prefix(client, false)) };

    *out = (struct turn_charge){ 0, 0 };
    if (!quota_take(h->quota, h->key_total, c->turn_max_allocations))
        return 486;
    if (quota_take(h->quota, t.user, c->turn_max_per_user)) {
        if (quota_take(h->quota, t.ip, c->turn_max_per_ip)) {
            *out = t;
            return 0;
        }
        quota_drop(h->quota, t.user);
    }
    quota_drop(h->quota, h->key_total);
    return 486;
}

void turn_host_release(struct turn_host *h, struct turn_charge *c)
{
    if (c->user == 0)
        return;
    quota_drop(h->quota, c->ip);
    quota_drop(h->quota, c->user);
    quota_drop(h->quota, h->key_total);
    *c = (struct turn_charge){ 0, 0 };
}

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

/* Replies to everybody, where there is a limit to them (dig.md §11: 1000 per second). A flood from
 * made-up addresses would use them all up, so the last quarter of a second's is kept for those who
 * have a connection to the DIG door, and who are thereby who they say (dig.md §21 "STUN"). */
static bool may_reply_to_all(struct turn_host *h, uint64_t now_ns, const struct netaddr *client)
{
    uint64_t n = h->cfg->turn_replies_total, second = NS_PER_S - NS_PER_S / (n ? n : 1);
    uint64_t key = quota_key(h->quota, RATE_TURN_REPLY_ALL, bytes_of(NULL, 0));

    return n == 0 || rate_spend(h->quota, key, now_ns, NS_PER_S / n, second) ||
           (h->is_known && h->is_known(h->known_by, client) &&
            rate_spend(h->quota, key, now_ns, NS_PER_S / n, second + NS_PER_S / 4));
}

/* The source's own limit first: who is past it must not use up what his neighbours have. Networks
 * have a limit of their own where nothing bounds all replies together. */
bool turn_host_may_reply(struct turn_host *h, uint64_t now_ms, const struct netaddr *client)
{
    uint64_t n = h->cfg->turn_replies_per_ip, now_ns = now_ms * NS_PER_MS;
    struct quota *q = h->quota;

    if (n && !rate_spend(q, quota_key(q, RATE_TURN_REPLY_IP, prefix(client, false)), now_ns,
                         NS_PER_S / n, NS_PER_S / n * (n - 1)))
        return false;
    if (h->cfg->turn_replies_total)
        return may_reply_to_all(h, now_ns, client);
    return n == 0 || rate_spend(q, quota_key(q, RATE_TURN_REPLY_NET, prefix(client, true)), now_ns,
                                NS_PER_S / (10 * n), NS_PER_S / (10 * n) * (10 * n - 1));
}

/* A quarter of a second's bytes at once: a train, or a frame of video, is no reason to drop. */
bool turn_host_may_carry(struct turn_host *h, uint64_t now_ms, uint64_t user_key, size_t n)
{
    uint64_t bps = h->cfg->turn_bps_per_user, cost;

    if (bps == 0 || user_key == 0)
        return true;
    if (__builtin_mul_overflow((uint64_t)n, NS_PER_S, &cost))
        cost = UINT64_MAX;
    return rate_spend(h->quota, user_key, now_ms * NS_PER_MS, cost / bps, NS_PER_S / 4);
}
