/* store/store.h: what outlives the process: rendezvous registrations, directory profiles, generated
 * secrets, TURN users, bans and usage, in one LMDB file. A library: no thread, no mailbox, no
 * clock. One thread calls; it says what time it is.
 *
 * Writing: store_begin, any number of operations, store_commit. What a commit answered with 0
 * survives a crash; until then nobody may be told that it is kept. Operations see what earlier ones
 * of the same transaction did.
 * Reading: always the last commit, also between store_begin and store_commit: a record that is not
 * durable is handed to nobody.
 *
 * Shapes:  struct bytes given out borrow from the map and die with the callback.
 * Units:   unix seconds, bytes; a day is unix seconds / 86400.
 * Errors:  0 or -errno for the system's; enum store_verdict for what a request may be told.
 * Source:  dusk.md §5, §7, §12, libp2p.md §13, descord.md §8. */
#ifndef SLUICE_STORE_STORE_H
#define SLUICE_STORE_STORE_H

#include "proto/base.h"
#include "proto/peer.h"

enum {
    STORE_SCHEMA = 1,               /* of the files that we write; older ones are migrated */
    STORE_NS_MAX = 255,             /* bytes of a namespace (dusk.md §5) */
    STORE_ENVELOPE_MAX = 64 * 1024, /* requests are capped there (libp2p.md §13) */
    STORE_NAME_MAX = 256,           /* 64 code points of UTF-8 (dusk.md §7) */
    STORE_ADDR_MAX = 1024,          /* relay_addr of a profile */
    STORE_SECRET_MAX = 64,          /* bytes of one generated secret */
    STORE_SECRET_NAME_MAX = 32,     /* and of what it is called */
    STORE_TURN_TEXT_MAX = 254,      /* of a TURN user's name, and of the realm */
    STORE_BAN_KEY_MAX = 64,
    STORE_USAGE_DAYS = 31,         /* today and the thirty before */
    STORE_TXN_OPS_MAX = 64 * 1024, /* in one transaction */
    STORE_WALK_MAX = 4096,         /* records that one discover looks at */
    STORE_WHY_MAX = 512,           /* room that a `why` should have */
};
#define STORE_MAP_DEFAULT ((uint64_t)1 << 40) /* address space only (design.md) */
#define STORE_MAP_MIN ((uint64_t)4 << 20)
#define STORE_FILE "store.mdb" /* in the data directory; LMDB's lock file beside it, "-lock" */
#define STORE_FOREVER UINT64_MAX

enum store_verdict {
    STORE_OK,
    STORE_ABSENT,     /* there is no such record: nothing was done */
    STORE_OLD_SEQ,    /* a newer record is kept; the rules, or a tag, say that it matters */
    STORE_FULL_PEER,  /* this peer has as many registrations as one may have */
    STORE_FULL_NS,    /* this namespace has */
    STORE_FULL_TOTAL, /* the store has as many records of this kind as it may have */
    STORE_NO_ROOM,    /* map or disk nearly full: what adds is refused, what deletes is not */
    STORE_BAD,        /* longer than the bounds above, or of a shape that is none */
    STORE_FAILED,     /* the transaction is broken, store_commit says why; nothing of it is kept */
};
const char *store_verdict_text(enum store_verdict v);

/* 0: no bound, as in rdv_rules. */
struct store_limits {
    uint32_t regs_per_peer;
    uint32_t regs_per_ns;
    uint32_t regs;     /* in all */
    uint32_t profiles; /* --directory-max */
    uint32_t turn_users;
    uint32_t bans;
    uint32_t usage_peers;  /* per day; quieter ones are added up as "others" */
    bool reg_seq_compared; /* refuse a record whose seq is lower (libp2p.md §13; not dusk). With a
                            * tag it always is */
};
extern const struct store_limits store_limits_default;

struct store_opts {
    const char *dir;                 /* exists; the file is made in it, mode 0600 */
    uint64_t map_bytes;              /* 0: STORE_MAP_DEFAULT; less when the kernel gives less */
    bool read_only;                  /* for sluicectl beside a running daemon: no begin, no secret
                                      * made, a missing file is -ENOENT */
    bool verify;                     /* read every page of the file first: sluicectl store check.
                                      * Not of a file whose pages are other than 4 KiB */
    void (*rng)(void *to, size_t n); /* for hash keys and secrets; NULL only if read_only */
    struct store_limits limits;
};

struct store;

/* 0, or -errno and one line in `why`, naming the file and the way out. *out is given. A process
 * opens a file once at a time (LMDB's locks are the process's); after fork the child opens anew.
 * A cut file and one whose trees lead nowhere are refused; damage to single records is met later,
 * counted (store_stats.corrupt) and passed over. Takes milliseconds; store_load follows. */
MUST_USE int store_open(const struct store_opts *o, struct store **out, char *why, size_t cap);
void store_close(struct store *s); /* aborts what is open; NULL is fine */
/* Brings at most `max` profiles more into the search index. *done: all are. Until then searches
 * find what is loaded; writing is allowed at once. */
MUST_USE int store_load(struct store *s, size_t max, bool *done);
size_t store_map_bytes(const struct store *s); /* what was reserved really */

/* ---- transactions -------------------------------------------------------------------------- */

MUST_USE int store_begin(struct store *s);
/* 0; -ENOSPC: map or disk full; -EIO and others: the disk's. Whatever it says the transaction is
 * over and the store can be used; unless 0, nothing of it happened. */
MUST_USE int store_commit(struct store *s);
void store_abort(struct store *s);
bool store_in_txn(const struct store *s);
size_t store_txn_ops(const struct store *s); /* operations since begin; < STORE_TXN_OPS_MAX */

/* ---- rendezvous ---------------------------------------------------------------------------- */

struct store_reg {
    struct peer_id peer;
    struct bytes ns;       /* may be empty */
    struct bytes envelope; /* kept and given back verbatim */
    uint64_t record_seq;   /* the signed record's own */
    uint32_t ttl_s;        /* as granted */
    uint32_t tag; /* the caller's, kept and given back: which relay it is from. 0: this one;
                   * from others an older record never replaces a newer one */
    uint64_t expires_unix_s;
    uint64_t seq; /* ours: 1, 2, ... in order of arrival, never used again; given out, not taken */
};

/* Replaces (peer, ns). The very same envelope keeps its seq, so that a cookie never repeats it, and
 * only ttl, tag and expiry change; another one gets the next. *seq (may be NULL) on STORE_OK. */
enum store_verdict store_reg_put(struct store *s, const struct store_reg *r, uint64_t *seq);
enum store_verdict store_reg_del(struct store *s, const struct peer_id *peer, struct bytes ns);

struct store_discover {
    struct bytes ns;
    bool all;       /* every namespace; ns is ignored */
    uint64_t after; /* a seq: only later ones; 0 from the start */
    uint64_t now_unix_s;
    uint32_t limit; /* at most so many are taken; 0: none */
};
enum store_take { STORE_TAKE, STORE_SKIP, STORE_STOP }; /* STOP: it did not fit, ask again later */
typedef enum store_take store_reg_fn(void *ctx, const struct store_reg *r);
struct store_discovered {
    uint64_t last; /* seq of the last one taken or passed over, `after` if none: the next after */
    uint32_t taken;
    bool more; /* stopped by limit, STORE_STOP or STORE_WALK_MAX; there may be more */
};
/* In order of seq, expired ones never. fn borrows *r. */
MUST_USE int store_discover(struct store *s, const struct store_discover *q, store_reg_fn *fn,
                            void *ctx, struct store_discovered *d);
/* The next registration's seq, as the last commit has it: 1 in an empty store. Nobody was ever told
 * of this seq or a later one, unless the file is an older one that was put in its place. */
uint64_t store_next_seq(const struct store *s);
/* Kept ones, expired but not yet swept included: what the limits count. */
uint64_t store_reg_count_peer(struct store *s, const struct peer_id *peer);
uint64_t store_reg_count_ns(struct store *s, struct bytes ns);

/* ---- directory ----------------------------------------------------------------------------- */

struct store_profile {
    struct peer_id peer;
    struct bytes display_name; /* checked and trimmed by the caller */
    struct bytes relay_addr;   /* checked by the caller; may be empty */
    uint64_t last_seen_unix_s;
    uint64_t registered_unix_s;
};

/* last_seen becomes now; registered_at too if the peer is new, else it stays. */
enum store_verdict store_profile_put(struct store *s, const struct peer_id *peer,
                                     struct bytes display_name, struct bytes relay_addr,
                                     uint64_t now_unix_s);
enum store_verdict store_profile_del(struct store *s, const struct peer_id *peer);
typedef bool store_profile_fn(void *ctx, const struct store_profile *p); /* false: stop */
/* 0 and one call; -ENOENT. */
MUST_USE int store_profile_get(struct store *s, const struct peer_id *peer, store_profile_fn *fn,
                               void *ctx);
/* dusk.md §7: ASCII-case-insensitive substring of the name, or the exact text of a peer id; newest
 * last_seen first, at most `limit`. The query is trimmed by the caller. */
MUST_USE int store_profile_search(struct store *s, struct bytes query, size_t limit,
                                  store_profile_fn *fn, void *ctx);

/* ---- secrets ------------------------------------------------------------------------------- */

#define STORE_SECRET_TURN "turn"     /* dusk's TURN secret (presets.md) */
#define STORE_SECRET_COOKIE "cookie" /* tags of rendezvous cookies: 16 bytes */

/* Made by rng at the first call, durable before it returns, the same ever after; another `n` than
 * then is -EINVAL. Commits by itself: not between begin and commit (-EBUSY). */
MUST_USE int store_secret(struct store *s, const char *name, uint8_t *out, size_t n);

/* ---- TURN users ---------------------------------------------------------------------------- */

struct store_turn_user {
    struct bytes name, realm;
    uint8_t key_md5[16];    /* MD5(name:realm:password), RFC 8489 §9.2.2 */
    uint8_t key_sha256[32]; /* SHA-256 of the same, RFC 8489 §18.5.1 */
};
enum store_verdict store_turn_user_put(struct store *s, const struct store_turn_user *u);
enum store_verdict store_turn_user_del(struct store *s, struct bytes name, struct bytes realm);
typedef bool store_turn_user_fn(void *ctx, const struct store_turn_user *u); /* false: stop */
MUST_USE int store_turn_users(struct store *s, store_turn_user_fn *fn, void *ctx);

/* ---- bans ---------------------------------------------------------------------------------- */

struct store_ban {
    uint8_t kind;          /* the caller's: of a peer id, of a prefix, ... */
    struct bytes key;      /* 1..STORE_BAN_KEY_MAX */
    uint64_t until_unix_s; /* STORE_FOREVER */
};
enum store_verdict store_ban_put(struct store *s, const struct store_ban *b); /* replaces */
enum store_verdict store_ban_del(struct store *s, uint8_t kind, struct bytes key);
typedef bool store_ban_fn(void *ctx, const struct store_ban *b); /* false: stop */
MUST_USE int store_bans(struct store *s, uint64_t now_unix_s, store_ban_fn *fn, void *ctx);

/* ---- usage --------------------------------------------------------------------------------- */

struct store_usage {
    struct peer_id peer; /* n = 0: "others", those that are not kept one by one */
    uint64_t in_bytes, out_bytes, circuits, connected_s;
};
/* Adds to the peer's row of that day. A day that is full folds its quietest peers into "others". */
enum store_verdict store_usage_add(struct store *s, uint64_t now_unix_s,
                                   const struct store_usage *u);
/* The sum over `days` (1..31) ending today. Zeroes when nothing is known. */
MUST_USE int store_usage_peer(struct store *s, const struct peer_id *peer, uint64_t now_unix_s,
                              unsigned days, struct store_usage *sum);
typedef bool store_usage_fn(void *ctx, const struct store_usage *u); /* false: stop */
/* One row per peer, summed over the days, ordered by peer id, "others" first; those behind `after`
 * (NULL: from the start), at most `limit`. */
MUST_USE int store_usage_list(struct store *s, uint64_t now_unix_s, unsigned days,
                              const struct peer_id *after, size_t limit, store_usage_fn *fn,
                              void *ctx);

/* ---- expiry -------------------------------------------------------------------------------- */

/* Within a transaction: deletes what is over, oldest first, at most max_ops records. *left: there
 * is more. Never refused for want of room, but on a full map it takes fewer. */
enum store_verdict store_expire(struct store *s, uint64_t now_unix_s, size_t max_ops, bool *left);
/* When store_expire has something to do next; STORE_FOREVER: nothing kept ever ends. */
uint64_t store_deadline_unix_s(struct store *s);

/* ---- for operators ------------------------------------------------------------------------- */

struct store_stats {
    uint64_t map_bytes, used_bytes, free_bytes; /* free: inside the used, to be written again */
    uint64_t file_bytes;
    uint64_t regs, namespaces, profiles, turn_users, bans, usage_rows, secrets;
    uint64_t next_seq;
    uint64_t commits, commits_failed, ops, refused_room; /* since store_open */
    uint64_t corrupt;      /* records and index entries met that were not sound: run check */
    uint64_t names_failed; /* profiles that the search index had no room for */
    bool loaded;           /* store_load is done */
    bool refuses;          /* puts answer STORE_NO_ROOM now */
};
/* A writer also forgets readers whose process is gone, so that what they held can be written again:
 * ask every few seconds. */
MUST_USE int store_stats(struct store *s, struct store_stats *st);

typedef void store_line_fn(void *ctx, const char *line); /* without its newline */
/* Walks everything, cross-checks indexes, counters and checksums; a line per finding, at most 100,
 * and one of sums. *bad = findings. Of the pages below records opts.verify is the check. */
MUST_USE int store_check(struct store *s, store_line_fn *fn, void *ctx, uint64_t *bad);
/* A line per record; of secrets, keys and envelopes only that they are there, and how long. */
MUST_USE int store_dump(struct store *s, store_line_fn *fn, void *ctx);
/* A compacted copy of the last commit: written beside `dest`, mode 0600, synced, renamed to it.
 * Reads the whole file: in another process than the daemon's. `dest` may not exist. */
#define STORE_BACKUP_PART "%s.part-%ld" /* dest, process id: the name until then */
MUST_USE int store_backup(struct store *s, const char *dest, char *why, size_t cap);

#endif
