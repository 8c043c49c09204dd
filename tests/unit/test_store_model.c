/* The store against a plain model of it: seeded operations, commits, aborts and restarts; after
 * each of these everything that can be asked is compared. */
#include "tests/unit/store_dir.h"

#include <errno.h>

enum {
    PEERS = 9,
    NAMESPACES = 5,
    ENVELOPES = 3,
    BANS = 6,
    DAYS = 40,
    SEEDS = 20,
    TXNS = 60,
    OPS_MAX = 40,
    PER_PEER = 3,
    PER_NS = 6,
    TOTAL = 18,
    PROFILES_MAX = 5,
    BANS_MAX = 4,
};
#define SEED "seed %llu, transaction %u", (unsigned long long)seed, txn

struct m_reg {
    bool there;
    unsigned envelope;
    uint64_t record_seq, expires, seq;
    uint32_t ttl, tag;
};

struct model {
    struct m_reg regs[PEERS][NAMESPACES];
    struct {
        bool there;
        unsigned name;
        uint64_t since, seen;
    } profiles[PEERS];
    struct {
        bool there;
        uint64_t until;
    } bans[BANS];
    uint64_t in[DAYS][PEERS + 1]; /* by day since NOW; the last: others */
    bool day_peer[DAYS][PEERS + 1];
};

static struct model m, kept;
static uint64_t seed, now, next;
static unsigned txn;
static bool compared;

static unsigned below(unsigned n)
{
    return (unsigned)(sd_u64() % n);
}

static const char *ns_of(unsigned i)
{
    static const char *const ns[NAMESPACES] = { "", "a", "dusk/peers", "ab", "b" };

    return ns[i];
}

static const char *envelope_of(unsigned i)
{
    static const char *const text[ENVELOPES] = { "first", "second", "third" };

    return text[i];
}

static unsigned count(unsigned peer, unsigned ns)
{
    unsigned n = 0;

    for (unsigned p = 0; p < PEERS; p++)
        for (unsigned k = 0; k < NAMESPACES; k++)
            n +=
                m.regs[p][k].there && (peer == PEERS || peer == p) && (ns == NAMESPACES || ns == k);
    return n;
}

/* ---- operations on both -------------------------------------------------------------------- */

static enum store_verdict m_put(unsigned peer, unsigned ns, const struct store_reg *r,
                                unsigned envelope, uint64_t *seq)
{
    struct m_reg *at = &m.regs[peer][ns];
    bool alive = at->there && at->expires > now;

    if (alive && (compared || r->tag) && r->record_seq < at->record_seq)
        return STORE_OLD_SEQ;
    if (alive && at->envelope == envelope) {
        *seq = at->seq;
    } else {
        if (!at->there && count(PEERS, NAMESPACES) >= TOTAL)
            return STORE_FULL_TOTAL;
        if (!at->there && count(PEERS, ns) >= PER_NS)
            return STORE_FULL_NS;
        if (!at->there && count(peer, NAMESPACES) >= PER_PEER)
            return STORE_FULL_PEER;
        *seq = next++;
    }
    *at =
        (struct m_reg){ true, envelope, r->record_seq, r->expires_unix_s, *seq, r->ttl_s, r->tag };
    return STORE_OK;
}

static void op_put(void)
{
    unsigned peer = below(PEERS), ns = below(NAMESPACES), envelope = below(ENVELOPES);
    struct store_reg r = sd_reg(peer, ns_of(ns), envelope_of(envelope));
    uint64_t seq = 0, want = 0;
    enum store_verdict v;

    r.ttl_s = 1 + below(500);
    r.expires_unix_s = now + r.ttl_s;
    r.record_seq = below(20);
    r.tag = below(3);
    v = m_put(peer, ns, &r, envelope, &want);
    cr_assert(eq(int, store_reg_put(sd, &r, &seq), v), SEED);
    if (v == STORE_OK)
        cr_assert(eq(u64, seq, want), SEED);
}

static void op_del(void)
{
    unsigned peer = below(PEERS), ns = below(NAMESPACES);
    struct peer_id p = sd_peer(peer);
    bool there = m.regs[peer][ns].there;

    m.regs[peer][ns].there = false;
    cr_assert(eq(int, store_reg_del(sd, &p, bytes_str(ns_of(ns))), there ? STORE_OK : STORE_ABSENT),
              SEED);
}

static void op_profile(void)
{
    unsigned peer = below(PEERS), name = below(5), n = 0;
    struct peer_id p = sd_peer(peer);
    char text[16];

    for (unsigned i = 0; i < PEERS; i++)
        n += m.profiles[i].there;
    if (below(3) == 0) {
        cr_assert(
            eq(int, store_profile_del(sd, &p), m.profiles[peer].there ? STORE_OK : STORE_ABSENT),
            SEED);
        m.profiles[peer].there = false;
        return;
    }
    snprintf(text, sizeof(text), "Name%u", name);
    if (!m.profiles[peer].there && n >= PROFILES_MAX) {
        cr_assert(eq(int, store_profile_put(sd, &p, bytes_str(text), bytes_str(""), now),
                     STORE_FULL_TOTAL),
                  SEED);
        return;
    }
    cr_assert(eq(int, store_profile_put(sd, &p, bytes_str(text), bytes_str(""), now), STORE_OK),
              SEED);
    if (!m.profiles[peer].there)
        m.profiles[peer].since = now;
    m.profiles[peer].there = true;
    m.profiles[peer].seen = now;
    m.profiles[peer].name = name;
}

static void op_ban(void)
{
    unsigned i = below(BANS), n = 0;
    uint8_t key[2] = { 'k', (uint8_t)i };
    struct store_ban b = { (uint8_t)(i % 2), bytes_of(key, 2),
                           below(4) ? now + 1 + below(500) : STORE_FOREVER };

    for (unsigned k = 0; k < BANS; k++)
        n += m.bans[k].there;
    if (below(3) == 0) {
        cr_assert(
            eq(int, store_ban_del(sd, b.kind, b.key), m.bans[i].there ? STORE_OK : STORE_ABSENT),
            SEED);
        m.bans[i].there = false;
        return;
    }
    if (!m.bans[i].there && n >= BANS_MAX) {
        cr_assert(eq(int, store_ban_put(sd, &b), STORE_FULL_TOTAL), SEED);
        return;
    }
    cr_assert(eq(int, store_ban_put(sd, &b), STORE_OK), SEED);
    m.bans[i].there = true;
    m.bans[i].until = b.until_unix_s;
}

static uint64_t day(uint64_t t)
{
    return t / 86400 - NOW / 86400;
}

static void op_usage(void)
{
    unsigned peer = below(PEERS);
    struct store_usage u = { sd_peer(peer), 1 + below(1000), 1, 1, 1 };

    cr_assert(eq(int, store_usage_add(sd, now, &u), STORE_OK), SEED);
    m.in[day(now)][peer] += u.in_bytes;
    m.day_peer[day(now)][peer] = true;
    m.day_peer[day(now)][PEERS] = true; /* the row that counts them */
}

/* All at once, or one record: which one among equals is the store's to say, so all. */
static void op_expire(void)
{
    bool left;

    cr_assert(eq(int, store_expire(sd, now, 100000, &left), STORE_OK), SEED);
    cr_assert(not(left), SEED);
    for (unsigned p = 0; p < PEERS; p++)
        for (unsigned k = 0; k < NAMESPACES; k++)
            m.regs[p][k].there = m.regs[p][k].there && m.regs[p][k].expires > now;
    for (unsigned i = 0; i < BANS; i++)
        m.bans[i].there = m.bans[i].there && m.bans[i].until > now;
    for (uint64_t d = 0; d + 31 <= day(now); d++) {
        memset(m.in[d], 0, sizeof(m.in[d]));
        memset(m.day_peer[d], 0, sizeof(m.day_peer[d]));
    }
}

/* ---- comparison ---------------------------------------------------------------------------- */

static void same_regs(unsigned ns)
{
    static struct sd_got g;
    const char *text = ns == NAMESPACES ? NULL : ns_of(ns);
    uint64_t after = 0, last = 0;
    struct store_discovered d;
    unsigned want = 0, got = 0;

    for (unsigned p = 0; p < PEERS; p++)
        for (unsigned k = 0; k < NAMESPACES; k++)
            want += m.regs[p][k].there && m.regs[p][k].expires > now && (!text || k == ns);
    do {
        d = sd_discover(text, after, 1 + below(10), now, &g);
        for (unsigned i = 0; i < g.n; i++) {
            bool found = false;

            cr_assert(lt(u64, last, g.seq[i]), SEED);
            last = g.seq[i];
            for (unsigned p = 0; p < PEERS; p++)
                for (unsigned k = 0; k < NAMESPACES; k++)
                    found = found || (m.regs[p][k].there && m.regs[p][k].seq == last &&
                                      m.regs[p][k].expires > now && (!text || k == ns) &&
                                      !strcmp(envelope_of(m.regs[p][k].envelope), g.text[i]));
            cr_assert(found, SEED);
        }
        got += g.n;
        after = d.last;
    } while (d.more);
    cr_assert(eq(u32, got, want), SEED);
}

static bool one_profile(void *ctx, const struct store_profile *p)
{
    unsigned peer = *(unsigned *)ctx;
    char text[16];

    snprintf(text, sizeof(text), "Name%u", m.profiles[peer].name);
    cr_assert(bytes_eq(p->display_name, bytes_str(text)), SEED);
    cr_assert(eq(u64, p->registered_unix_s, m.profiles[peer].since), SEED);
    cr_assert(eq(u64, p->last_seen_unix_s, m.profiles[peer].seen), SEED);
    return true;
}

static bool count_profile(void *ctx, const struct store_profile *p)
{
    (void)p;
    ++*(unsigned *)ctx;
    return true;
}

static void same_profiles(void)
{
    for (unsigned i = 0; i < PEERS; i++) {
        struct peer_id p = sd_peer(i);

        cr_assert(
            eq(int, store_profile_get(sd, &p, one_profile, &i), m.profiles[i].there ? 0 : -ENOENT),
            SEED);
    }
    for (unsigned name = 0; name < 5; name++) {
        unsigned want = 0, got = 0;
        char text[16];

        snprintf(text, sizeof(text), "nAME%u", name);
        for (unsigned i = 0; i < PEERS; i++)
            want += m.profiles[i].there && m.profiles[i].name == name;
        cr_assert(eq(int, store_profile_search(sd, bytes_str(text), 20, count_profile, &got), 0));
        cr_assert(eq(u32, got, want), SEED);
    }
}

static bool one_ban(void *ctx, const struct store_ban *b)
{
    unsigned i = b->key.p[1];

    cr_assert(m.bans[i].there, SEED);
    cr_assert(eq(u64, b->until_unix_s, m.bans[i].until), SEED);
    ++*(unsigned *)ctx;
    return true;
}

static bool one_usage(void *ctx, const struct store_usage *u)
{
    unsigned peer = u->peer.n ? (unsigned)u->peer.b[9] : PEERS;
    uint64_t want = 0;

    for (uint64_t d = day(now) > 30 ? day(now) - 30 : 0; d <= day(now); d++)
        want += m.in[d][peer];
    cr_assert(eq(u64, u->in_bytes, want), SEED);
    ++*(unsigned *)ctx;
    return true;
}

static void same(void)
{
    unsigned want = 0, got = 0;
    uint64_t deadline = STORE_FOREVER;

    for (unsigned k = 0; k <= NAMESPACES; k++)
        same_regs(k);
    for (unsigned k = 0; k < NAMESPACES; k++)
        cr_assert(eq(u64, store_reg_count_ns(sd, bytes_str(ns_of(k))), count(PEERS, k)), SEED);
    for (unsigned i = 0; i < PEERS; i++) {
        struct peer_id p = sd_peer(i);

        cr_assert(eq(u64, store_reg_count_peer(sd, &p), count(i, NAMESPACES)), SEED);
    }
    same_profiles();
    for (unsigned i = 0; i < BANS; i++)
        want += m.bans[i].there && m.bans[i].until > now;
    cr_assert(eq(int, store_bans(sd, now, one_ban, &got), 0));
    cr_assert(eq(u32, got, want), SEED);
    got = want = 0;
    for (unsigned p = 0; p <= PEERS; p++) {
        bool any = false;

        for (uint64_t d = day(now) > 30 ? day(now) - 30 : 0; d <= day(now); d++)
            any = any || m.day_peer[d][p];
        want += any;
    }
    cr_assert(eq(int, store_usage_list(sd, now, 31, NULL, 1000, one_usage, &got), 0));
    cr_assert(eq(u32, got, want), SEED);
    for (unsigned p = 0; p < PEERS; p++)
        for (unsigned k = 0; k < NAMESPACES; k++)
            if (m.regs[p][k].there)
                deadline = min_u64(deadline, m.regs[p][k].expires);
    for (unsigned i = 0; i < BANS; i++)
        if (m.bans[i].there)
            deadline = min_u64(deadline, m.bans[i].until);
    for (unsigned d = 0; d < DAYS; d++)
        if (m.day_peer[d][PEERS])
            deadline = min_u64(deadline, (NOW / 86400 + d + 31) * UINT64_C(86400));
    cr_assert(eq(u64, store_deadline_unix_s(sd), deadline), SEED);
    cr_assert(eq(u64, sd_findings(), 0), SEED);
}

/* ---- the run ------------------------------------------------------------------------------- */

static void open_limited(void)
{
    struct store_opts o = sd_opts();

    o.limits = (struct store_limits){ .regs_per_peer = PER_PEER,
                                      .regs_per_ns = PER_NS,
                                      .regs = TOTAL,
                                      .profiles = PROFILES_MAX,
                                      .bans = BANS_MAX,
                                      .reg_seq_compared = compared };
    sd_open_with(&o);
}

static void restart(void)
{
    struct store_stats st;
    uint64_t highest = 0;

    store_close(sd);
    open_limited();
    cr_assert(eq(int, store_stats(sd, &st), 0));
    for (unsigned p = 0; p < PEERS; p++)
        for (unsigned k = 0; k < NAMESPACES; k++)
            if (m.regs[p][k].there && m.regs[p][k].seq > highest)
                highest = m.regs[p][k].seq;
    cr_assert(lt(u64, highest, st.next_seq), SEED);
    next = st.next_seq;
}

static void run(void)
{
    static void (*const ops[])(void) = { op_put, op_put,     op_put, op_put,   op_del,
                                         op_ban, op_profile, op_put, op_usage, op_profile };

    compared = seed % 2;
    now = NOW;
    next = 1;
    memset(&m, 0, sizeof(m));
    open_limited();
    for (txn = 0; txn < TXNS; txn++) {
        kept = m;
        sd_begin();
        for (unsigned n = below(OPS_MAX); n; n--)
            ops[below(ARRAY_LEN(ops))]();
        if (below(4) == 0)
            op_expire();
        if (below(5) == 0) {
            store_abort(sd);
            m = kept;
        } else {
            sd_commit();
        }
        if (below(10) == 0)
            restart();
        same();
        now += below(20) ? below(100) : below(86400);
        if (day(now) >= DAYS)
            break;
    }
    sd_close();
    sd_dir[0] = '\0';
}

Test(store_model, is_what_a_plain_table_would_be, .timeout = 110)
{
    for (seed = 1; seed <= SEEDS; seed++) {
        sd_dice = seed * 7919;
        run();
    }
}
