/* store/env.h: inside the library: the LMDB environment, its trees and its two transactions. All
 * that is called of LMDB, and every flag, is in env.c; backup and check lean on it too.
 * Errors: 0 or -errno. -ENOENT: no such key. */
#ifndef SLUICE_STORE_ENV_H
#define SLUICE_STORE_ENV_H

#include "store/names.h"
#include "store/store.h"

typedef struct MDB_env MDB_env;
typedef struct MDB_txn MDB_txn;
typedef struct MDB_cursor MDB_cursor;

enum tree { /* their names on disk: tree_names in env.c; README.md says what each holds */
            T_META,
            T_REG,
            T_OWN,
            T_NS,
            T_END,
            T_PROFILE,
            T_SECRET,
            T_TURN,
            T_BAN,
            T_USAGE,
            TREES,
};
extern const char *const tree_names[TREES];

enum {
    KEY_MAX = 511, /* LMDB's */
    VALUE_MAX = STORE_ENVELOPE_MAX + 1024,
    PAGE_KNOWN = 4096, /* bytes of the pages that page.h can read */
    OP_PAGES = 24,     /* new pages that one operation takes at most, beside its value's own: of six
                        * trees a leaf, its branches, and a split */
    OP_GROWTH = 6,     /* of these, those that make the trees larger */
    SECRETS_MAX = 64,
};

/* What an index over names is to be told once the transaction is durable. */
struct name_change {
    bool gone;
    struct peer_id peer;
    uint16_t name_n;
    uint64_t last_seen_unix_s;
    uint8_t name[STORE_NAME_MAX];
};

struct store {
    MDB_env *env;
    unsigned dbi[TREES];
    MDB_txn *w; /* between begin and commit */
    MDB_txn *r; /* kept, and reset between reads */
    bool reading;
    int broken;             /* the first error within w: nothing of it will be kept */
    size_t ops;             /* of w */
    uint64_t room_pages;    /* that w may take before additions are refused */
    uint64_t reserve_pages; /* beside these: for what deletes */
    uint64_t tree_pages;    /* when w began: copying them all is the most that can happen */
    uint64_t value_pages;   /* of w's values that have pages of their own */
    bool refuses;           /* an addition was, in the last transaction that had one */
    unsigned backoff;       /* so many transactions more refuse additions: the disk was full */
    bool counts_dirty;      /* next_seq or namespaces is to be written */
    uint64_t next_seq;      /* never goes back, not even when a commit fails */
    uint64_t next_seq_kept; /* as the last commit has it */
    uint64_t namespaces, namespaces_before; /* and when w began */
    uint64_t map_bytes, page_bytes; /* page_bytes: LMDB takes those of the machine that made it */
    bool read_only;
    char path[1024];
    void (*rng)(void *to, size_t n);
    struct store_limits limits;
    uint8_t hash_key[16]; /* of peers and namespaces in keys; kept in T_META */
    struct names *names;
    bool load_read, loaded;    /* all profiles read; and placed */
    struct peer_id load_after; /* the last one read */
    struct name_change *changes;
    size_t changes_n, changes_cap;
    uint64_t commits, commits_failed, ops_total, refused_room, corrupt, names_failed;
    uint8_t value[VALUE_MAX]; /* one being made */
};

/* ---- environment --------------------------------------------------------------------------- */

/* Opens o->dir's file into s, trees and all (made if absent); s->path is set first. */
MUST_USE int env_open(struct store *s, const struct store_opts *o, char *why, size_t cap);
void env_close(struct store *s);
MUST_USE int env_copy_to(struct store *s, int fd); /* compacted */
struct env_numbers {
    uint64_t used_bytes, free_bytes, file_bytes;
};
MUST_USE int env_numbers(struct store *s, struct env_numbers *n); /* within read_begin */

/* ---- transactions -------------------------------------------------------------------------- */

MUST_USE int env_begin(struct store *s);
MUST_USE int env_commit(struct store *s);
void env_abort(struct store *s);
/* Around every read: the last commit as it is now, s->r. Not nested. */
MUST_USE int read_begin(struct store *s);
void read_end(struct store *s);

/* ---- records; values borrow from the map, until the next write in s->w ---------------------- */

MUST_USE int db_get(struct store *s, MDB_txn *t, enum tree tree, struct bytes key,
                    struct bytes *value);
MUST_USE int db_put(struct store *s, enum tree tree, struct bytes key, struct bytes value);
/* key is behind all others of the tree */
MUST_USE int db_append(struct store *s, enum tree tree, struct bytes key, struct bytes value);
MUST_USE int db_del(struct store *s, enum tree tree, struct bytes key);
uint64_t db_count(struct store *s, MDB_txn *t, enum tree tree);

struct db_cur {
    MDB_cursor *c;
    struct bytes key, value;
};
MUST_USE int cur_open(struct store *s, MDB_txn *t, enum tree tree, struct db_cur *c);
void cur_close(struct db_cur *c);                          /* before the transaction ends */
MUST_USE int cur_from(struct db_cur *c, struct bytes key); /* the first with >= key; n = 0: first */
MUST_USE int cur_exact(struct db_cur *c, struct bytes key);
MUST_USE int cur_next(struct db_cur *c);
MUST_USE int cur_put(struct db_cur *c, struct bytes value); /* in place of the one it stands at */
MUST_USE int cur_del(struct db_cur *c); /* cur_next then gives what came behind */

/* ---- operations ---------------------------------------------------------------------------- */

/* First in every operation. STORE_OK, or why not: broken, too many, and no room if it adds. */
enum store_verdict op_begin(struct store *s, bool adds, size_t value_bytes);
enum store_verdict op_fail(struct store *s, int err); /* breaks the transaction */
/* May one more be deleted that nobody waits for? Half of what is kept for deletions is theirs. */
bool op_may_sweep(const struct store *s);

static inline bool key_has(struct bytes key, const void *prefix, size_t n)
{
    return key.n >= n && memcmp(key.p, prefix, n) == 0;
}

#endif
