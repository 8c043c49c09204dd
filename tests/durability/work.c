#include "tests/durability/work.h"

#include "proto/crypto.h"
#include "tests/durability/trace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    NOW = 1700000000,
    PEERS = 40,
    NAMESPACES = 8,
    OPS_MAX = 12,
    ENVELOPE_LONG = 9000, /* takes pages of its own */
};

static struct dice dice;

uint32_t dice_any(struct dice *d, uint32_t n)
{
    uint64_t z = d->z += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ z >> 31) % n);
}

static void rng(void *to, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)to)[i] = (uint8_t)dice_any(&dice, 256);
}

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "the workload itself failed: %s\n", what);
        exit(1);
    }
}

static struct peer_id peer_of(uint32_t i)
{
    struct peer_id p = { .n = 38, .b = { 0x00, 0x24, 0x08, 0x01, 0x12, 0x20, (uint8_t)i } };

    return p;
}

/* ---- operations ----------------------------------------------------------------------------- */

static void op_register(struct store *s)
{
    static uint64_t newest;
    static uint8_t envelope[ENVELOPE_LONG];
    char ns[32];
    struct store_reg r = { .peer = peer_of(dice_any(&dice, PEERS)), .ttl_s = 7200 };
    uint32_t n = 200 + dice_any(&dice, dice_any(&dice, 4) ? 200 : ENVELOPE_LONG - 200);

    rng(envelope, 16);
    memset(envelope + 16, envelope[0], n - 16);
    snprintf(ns, sizeof(ns), "room/%u", dice_any(&dice, NAMESPACES));
    r.ns = bytes_str(ns);
    r.envelope = bytes_of(envelope, n);
    r.record_seq = ++newest; /* an older one from another relay is refused */
    r.expires_unix_s = NOW + 1 + dice_any(&dice, 1000);
    r.tag = dice_any(&dice, 100);
    must(store_reg_put(s, &r, NULL) == STORE_OK, "a registration");
}

/* Comes and goes within one transaction: its pages are taken and never written. */
static void op_brief(struct store *s)
{
    static const uint8_t envelope[5 * ENVELOPE_LONG];
    struct peer_id p = peer_of(PEERS + 1);
    struct store_reg r = { .peer = p,
                           .ns = bytes_str("brief"),
                           .envelope = bytes_of(envelope, sizeof(envelope)),
                           .expires_unix_s = NOW + 1 };

    must(store_reg_put(s, &r, NULL) == STORE_OK, "a brief registration");
    must(store_reg_del(s, &p, r.ns) == STORE_OK, "its end");
}

static void op_unregister(struct store *s)
{
    struct peer_id p = peer_of(dice_any(&dice, PEERS));
    enum store_verdict v;
    char ns[32];

    snprintf(ns, sizeof(ns), "room/%u", dice_any(&dice, NAMESPACES));
    v = store_reg_del(s, &p, bytes_str(ns));
    must(v == STORE_OK || v == STORE_ABSENT, "an unregistration");
}

static void op_profile(struct store *s)
{
    struct peer_id p = peer_of(dice_any(&dice, PEERS));
    enum store_verdict v = STORE_OK;
    char name[64];

    snprintf(name, sizeof(name), "somebody %u", dice_any(&dice, 100000));
    if (dice_any(&dice, 4))
        v = store_profile_put(s, &p, bytes_str(name), bytes_str("/ip4/192.0.2.1/tcp/1"),
                              NOW + dice_any(&dice, 1000));
    else
        v = store_profile_del(s, &p);
    must(v == STORE_OK || v == STORE_ABSENT, "a profile");
}

static void op_other(struct store *s)
{
    uint8_t key[4] = { (uint8_t)dice_any(&dice, 20) };
    struct store_ban ban = { 1, bytes_of(key, sizeof(key)), NOW + dice_any(&dice, 500) };
    struct store_usage use = { peer_of(dice_any(&dice, PEERS)), 1000, dice_any(&dice, 9), 1, 60 };
    struct store_turn_user user = { .name = bytes_str("ann"), .realm = bytes_str("sluice") };
    bool left;

    switch (dice_any(&dice, 5)) {
    case 0:
        must(store_ban_put(s, &ban) == STORE_OK, "a ban");
        break;
    case 1:
        must(store_ban_del(s, 1, ban.key) <= STORE_ABSENT, "the end of a ban");
        break;
    case 2:
        must(store_usage_add(s, NOW, &use) == STORE_OK, "usage");
        break;
    case 3:
        rng(user.key_md5, sizeof(user.key_md5));
        must(store_turn_user_put(s, &user) == STORE_OK, "a TURN user");
        break;
    default:
        must(store_expire(s, NOW + dice_any(&dice, 300), 5, &left) == STORE_OK, "expiry");
    }
}

static void transaction(struct store *s)
{
    uint32_t ops = 1 + dice_any(&dice, OPS_MAX);

    must(store_begin(s) == 0, "begin");
    for (uint32_t i = 0; i < ops; i++) {
        uint32_t what = dice_any(&dice, 10);

        if (what < 4)
            op_register(s);
        else if (what < 5)
            op_unregister(s);
        else if (what < 8)
            op_profile(s);
        else
            op_other(s);
    }
    if (dice_any(&dice, 4) == 0)
        op_brief(s);
}

struct store *work_open(const char *dir, char *why, size_t cap)
{
    struct store_opts o = { .dir = dir, .rng = rng, .map_bytes = (uint64_t)64 << 20 };
    struct store *s = NULL;
    bool done = false;

    if (store_open(&o, &s, why, cap) != 0)
        return NULL;
    while (!done)
        if (store_load(s, 1000, &done) != 0) {
            snprintf(why, cap, "the names could not be loaded");
            store_close(s);
            return NULL;
        }
    return s;
}

void work_run(const char *dir, uint64_t seed, uint32_t txns, struct work_state *state,
              uint8_t secret[WORK_SECRET])
{
    char why[STORE_WHY_MAX];
    struct store *s;

    dice.z = seed;
    s = work_open(dir, why, sizeof(why));
    must(s != NULL, why);
    must(store_secret(s, STORE_SECRET_COOKIE, secret, WORK_SECRET) == 0, "a secret");
    must(work_look(s, &state[0], why, sizeof(why)), why);
    trace_mark(0);
    for (uint32_t i = 1; i <= txns; i++) {
        if (i % 29 == 0) { /* another run of the daemon */
            store_close(s);
            s = work_open(dir, why, sizeof(why));
            must(s != NULL, why);
        }
        if (i % 7 == 0) { /* one that comes to nothing */
            transaction(s);
            store_abort(s);
        }
        transaction(s);
        must(store_commit(s) == 0, "commit");
        trace_mark(i);
        must(work_look(s, &state[i], why, sizeof(why)), why);
    }
    store_close(s);
}

/* ---- looking -------------------------------------------------------------------------------- */

struct looking {
    struct work_state *state;
    bool broken;
};

static void add(struct work_state *st, const void *p, size_t n)
{
    static const uint8_t key[16] = "durability";
    uint64_t both[2] = { st->digest, crypto_siphash(key, bytes_of(p, n)) };

    st->digest = crypto_siphash(key, bytes_of(both, sizeof(both)));
}

static void add_u64(struct work_state *st, uint64_t v)
{
    add(st, &v, sizeof(v));
}

static void add_bytes(struct work_state *st, struct bytes b)
{
    add_u64(st, b.n);
    add(st, b.p, b.n);
}

static enum store_take on_reg(void *ctx, const struct store_reg *r)
{
    struct looking *l = ctx;

    /* An envelope is its 16 bytes at random, and the first of them again and again. */
    for (size_t i = 16; i < r->envelope.n; i++)
        if (r->envelope.p[i] != r->envelope.p[0])
            l->broken = true;
    add_bytes(l->state, bytes_of(r->peer.b, r->peer.n));
    add_bytes(l->state, r->ns);
    add_bytes(l->state, r->envelope);
    add_u64(l->state, r->record_seq);
    add_u64(l->state, r->seq);
    add_u64(l->state, r->expires_unix_s);
    add_u64(l->state, (uint64_t)r->ttl_s << 32 | r->tag);
    l->state->records++;
    return STORE_TAKE;
}

static bool on_profile(void *ctx, const struct store_profile *p)
{
    struct looking *l = ctx;

    add_bytes(l->state, bytes_of(p->peer.b, p->peer.n));
    add_bytes(l->state, p->display_name);
    add_bytes(l->state, p->relay_addr);
    add_u64(l->state, p->last_seen_unix_s);
    add_u64(l->state, p->registered_unix_s);
    l->state->records++;
    return true;
}

static bool on_ban(void *ctx, const struct store_ban *b)
{
    struct looking *l = ctx;

    add_bytes(l->state, b->key);
    add_u64(l->state, b->until_unix_s);
    l->state->records++;
    return true;
}

static bool on_user(void *ctx, const struct store_turn_user *u)
{
    struct looking *l = ctx;

    add_bytes(l->state, u->name);
    add(l->state, u->key_md5, sizeof(u->key_md5));
    l->state->records++;
    return true;
}

static bool on_usage(void *ctx, const struct store_usage *u)
{
    struct looking *l = ctx;

    add_bytes(l->state, bytes_of(u->peer.b, u->peer.n));
    add_u64(l->state, u->in_bytes);
    add_u64(l->state, u->out_bytes);
    l->state->records++;
    return true;
}

bool work_look(struct store *s, struct work_state *state, char *why, size_t cap)
{
    struct store_discover q = { .all = true, .limit = 1000 };
    struct store_discovered d = { .more = true };
    struct looking l = { .state = state };
    int rc = 0;

    *state = (struct work_state){ 0 };
    for (; !rc && d.more; q.after = d.last)
        rc = store_discover(s, &q, on_reg, &l, &d);
    for (uint32_t i = 0; i < PEERS && !rc; i++) {
        struct peer_id p = peer_of(i);

        rc = store_profile_get(s, &p, on_profile, &l);
        rc = rc == -ENOENT ? 0 : rc;
    }
    rc = rc ? rc : store_bans(s, 0, on_ban, &l);
    rc = rc ? rc : store_turn_users(s, on_user, &l);
    rc = rc ? rc : store_usage_list(s, NOW, 31, NULL, 1000, on_usage, &l);
    if (rc || l.broken)
        snprintf(why, cap, "%s (%d)", l.broken ? "an envelope is half written" : "reading failed",
                 rc);
    return !rc && !l.broken;
}

bool work_one_more(struct store *s, char *why, size_t cap)
{
    struct peer_id p = peer_of(PEERS);
    int rc = store_begin(s);

    if (!rc && store_profile_put(s, &p, bytes_str("one more"), bytes_str(""), NOW) != STORE_OK)
        rc = -EIO;
    if (!rc)
        rc = store_commit(s);
    if (rc)
        snprintf(why, cap, "nothing can be written any more (%d)", rc);
    return rc == 0;
}
