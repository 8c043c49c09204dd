/* The format, as LMDB 0.9 writes it on a 64-bit machine: numbers in the machine's order.
 *   page      pgno u64, pad u16, flags u16, lower u16, upper u16 (of an overflow: pages u32);
 *             then lower's worth of u16 offsets of nodes, which fill the page from its end
 *   node      lo u16, hi u16, flags u16, key size u16, key, data
 *             branch: lo, hi, flags are the child's number; leaf: lo, hi are the size of the data
 *   tree      pad u32, flags u16, depth u16, branch, leaf and overflow pages, entries, root u64
 *   meta      page 0 and 1: behind the header magic u32, version u32, address, map size u64,
 *             the free list's tree, the main tree, last page, transaction u64 */
#include "store/page.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PAGE = 4096,
    HEAD = 16,
    NODE_HEAD = 8,
    TREE_BYTES = 48,
    F_BRANCH = 1, /* of pages */
    F_LEAF = 2,
    F_OVERFLOW = 4,
    F_META = 8,
    N_BIG = 1, /* of nodes: the data is on overflow pages */
    N_TREE = 2,
    DEPTH_MAX = 32, /* LMDB's */
    TREE_NAME_MAX = 64,
};
#define MAGIC 0xBEEFC0DEu
#define NO_PAGE UINT64_MAX
/* A file may end this many pages before what it counts: those taken and given back by one commit.
 */
#define SHORT_MAX 1000000u

struct walk {
    int fd;
    bool deep;
    uint64_t pages;                           /* that the snapshot counts */
    uint64_t file_pages;                      /* that are there */
    uint8_t *seen;                            /* bits */
    char tree[TREE_NAME_MAX];                 /* being walked */
    uint64_t branch, leaf, overflow, entries; /* of it, met */
    char *why;
    size_t cap;
};

struct tree {
    uint16_t flags, depth;
    uint64_t branch, leaf, overflow, entries, root;
};

static uint16_t u16(const uint8_t *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static uint32_t u32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static uint64_t u64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

PRINTF_LIKE(2, 3) static int bad(struct walk *w, const char *fmt, ...)
{
    int n = snprintf(w->why, w->cap, "tree %s: ", w->tree);
    va_list ap;

    va_start(ap, fmt);
    if (n >= 0 && (size_t)n < w->cap)
        vsnprintf(w->why + n, w->cap - (size_t)n, fmt, ap);
    va_end(ap);
    return -EIO;
}

/* Claims page `no` for whoever leads to it. */
static int claim(struct walk *w, uint64_t no, bool must_be_there)
{
    unsigned long long n = no;

    if (no < 2 || no >= w->pages)
        return bad(w, "leads to page %llu of %llu", n, (unsigned long long)w->pages);
    if (must_be_there && no >= w->file_pages)
        return bad(w, "page %llu is behind the end of the file, which was cut", n);
    if (w->deep) {
        if (w->seen[no / 8] & 1u << no % 8)
            return bad(w, "page %llu is used twice", n);
        w->seen[no / 8] |= (uint8_t)(1u << no % 8);
    }
    return 0;
}

static int read_page(struct walk *w, uint64_t no, uint8_t page[PAGE])
{
    ssize_t n = pread(w->fd, page, PAGE, (off_t)(no * PAGE));

    if (n < 0)
        return -errno;
    if (n != PAGE)
        return bad(w, "page %llu is behind the end of the file", (unsigned long long)no);
    if (u64(page) != no)
        return bad(w, "page %llu says that it is another", (unsigned long long)no);
    return 0;
}

/* ---- one node ------------------------------------------------------------------------------ */

static int walk_tree(struct walk *w, const uint8_t *raw, const char *name);

/* Data on pages of its own: a head on the first, then the bytes, over all of them. */
static int walk_overflow(struct walk *w, uint64_t no, uint64_t bytes)
{
    uint64_t n = (bytes + HEAD + PAGE - 1) / PAGE;
    uint8_t page[PAGE];
    int rc = 0;

    for (uint64_t i = 0; !rc && i < n; i++)
        rc = claim(w, no + i, true);
    if (!rc)
        rc = read_page(w, no, page);
    if (!rc && (u16(page + 10) != F_OVERFLOW || u32(page + 12) != n))
        rc = bad(w, "page %llu is not the data that is looked for", (unsigned long long)no);
    w->overflow += n;
    return rc;
}

/* Pages that are free are numbers in records: a count, and as many. */
static int walk_free(struct walk *w, const uint8_t *data, uint64_t bytes, uint64_t big)
{
    uint64_t n = 0, at[PAGE / 8];
    size_t have = bytes < sizeof(at) ? (size_t)bytes : sizeof(at);
    int rc = 0;

    for (uint64_t off = 0; !rc && off < bytes; off += have) {
        if (bytes - off < have)
            have = (size_t)(bytes - off);
        if (!big)
            memcpy(at, data, have);
        else if (pread(w->fd, at, have, (off_t)(big * PAGE + HEAD + off)) != (ssize_t)have)
            return bad(w, "page %llu cannot be read", (unsigned long long)big);
        if (off == 0 && (have < 8 || (n = at[0]) > bytes / 8 - 1))
            return bad(w, "a list of %llu pages in %llu bytes", (unsigned long long)n,
                       (unsigned long long)bytes);
        for (size_t i = off == 0; !rc && i < have / 8 && off / 8 + i <= n; i++)
            rc = claim(w, at[i], false);
    }
    return rc;
}

static int walk_leaf_node(struct walk *w, const uint8_t *node, size_t room, bool list)
{
    uint64_t bytes = u16(node) | (uint64_t)u16(node + 2) << 16;
    uint16_t flags = u16(node + 4), key = u16(node + 6);
    const uint8_t *data = node + NODE_HEAD + key;
    size_t left = room - NODE_HEAD - key; /* the caller has seen to the key */
    char name[TREE_NAME_MAX];
    int rc = 0;

    if (flags & ~(unsigned)(N_BIG | N_TREE))
        return bad(w, "a record of a kind that we do not write");
    if ((flags & N_BIG ? sizeof(uint64_t) : bytes) > left)
        return bad(w, "a record that is longer than its page");
    if (flags & N_BIG)
        rc = walk_overflow(w, u64(data), bytes);
    if (!rc && list)
        rc = walk_free(w, data, bytes, flags & N_BIG ? u64(data) : 0);
    if (!rc && flags & N_TREE) {
        if (bytes != TREE_BYTES || strcmp(w->tree, "main") != 0)
            return bad(w, "a tree where none may be");
        snprintf(name, sizeof(name), "%.*s", (int)min_sz(key, sizeof(name) - 1),
                 (const char *)node + NODE_HEAD);
        rc = walk_tree(w, data, name);
    }
    return rc;
}

/* ---- pages and trees ----------------------------------------------------------------------- */

/* true: a sorts before b. */
static bool before(const uint8_t *a, const uint8_t *b, bool integers)
{
    uint16_t an = u16(a + 6), bn = u16(b + 6);
    int rc;

    if (integers)
        return an == 8 && bn == 8 && u64(a + NODE_HEAD) < u64(b + NODE_HEAD);
    rc = memcmp(a + NODE_HEAD, b + NODE_HEAD, min_sz(an, bn));
    return rc < 0 || (rc == 0 && an < bn);
}

/* depth: 1 for a leaf. */
static int walk_page(struct walk *w, uint64_t no, unsigned depth, bool list)
{
    uint16_t lower, upper, last = 0;
    uint8_t page[PAGE];
    int rc = claim(w, no, true);

    if (!rc && depth == 1 && !w->deep &&
        strcmp(w->tree, "main") != 0) /* whose leaf has the trees */
        return 0;
    if (!rc)
        rc = read_page(w, no, page);
    if (rc)
        return rc;
    lower = u16(page + 12);
    upper = u16(page + 14);
    if (u16(page + 10) != (depth == 1 ? F_LEAF : F_BRANCH) || lower <= HEAD || lower % 2 ||
        lower > upper || upper > PAGE)
        return bad(w, "page %llu is not a page of it", (unsigned long long)no);
    *(depth == 1 ? &w->leaf : &w->branch) += 1;
    for (uint16_t at = HEAD; !rc && at < lower; at += 2) {
        uint16_t ptr = u16(page + at);
        size_t room = ptr < PAGE ? (size_t)(PAGE - ptr) : 0;
        const uint8_t *node = page + ptr;

        if (ptr < upper || ptr % 2 || room < NODE_HEAD || u16(node + 6) > room - NODE_HEAD)
            return bad(w, "page %llu has a record outside of it", (unsigned long long)no);
        /* the first key of a branch is not looked at, and may be empty */
        if (last && !(depth > 1 && at == HEAD + 2) && !before(page + last, node, list))
            return bad(w, "page %llu is not in order", (unsigned long long)no);
        last = ptr;
        if (depth > 1)
            rc = walk_page(
                w, u16(node) | (uint64_t)u16(node + 2) << 16 | (uint64_t)u16(node + 4) << 32,
                depth - 1, list);
        else
            rc = walk_leaf_node(w, node, room, list);
    }
    if (depth == 1)
        w->entries += (lower - HEAD) / 2u;
    return rc;
}

static struct tree tree_of(const uint8_t *raw)
{
    return (struct tree){ u16(raw + 4),  u16(raw + 6),  u64(raw + 8), u64(raw + 16),
                          u64(raw + 24), u64(raw + 32), u64(raw + 40) };
}

static int walk_tree(struct walk *w, const uint8_t *raw, const char *name)
{
    struct walk outer = *w;
    struct tree t = tree_of(raw);
    bool list = strcmp(name, "free") == 0;
    int rc = 0;

    snprintf(w->tree, sizeof(w->tree), "%s", name);
    w->branch = w->leaf = w->overflow = w->entries = 0;
    if (!list && t.flags) /* LMDB's kinds of trees that we do not use */
        rc = bad(w, "is of another kind");
    else if (t.root == NO_PAGE)
        rc = t.depth || t.entries ? bad(w, "has no root") : 0;
    else if (!t.depth || t.depth > DEPTH_MAX)
        rc = bad(w, "has a depth of %u", t.depth);
    else
        rc = walk_page(w, t.root, t.depth, list);
    if (!rc && w->deep &&
        (w->branch != t.branch || w->leaf != t.leaf || w->overflow != t.overflow ||
         w->entries != t.entries))
        rc = bad(w, "has %llu records where %llu are counted", (unsigned long long)w->entries,
                 (unsigned long long)t.entries);
    w->branch = outer.branch;
    w->leaf = outer.leaf;
    w->overflow = outer.overflow;
    w->entries = outer.entries;
    memcpy(w->tree, outer.tree, sizeof(w->tree));
    return rc;
}

/* The meta page of that transaction. The writer alternates between the two, so that they are one
 * apart; else one was changed, and an older state would pass for the newest. */
static int find_meta(struct walk *w, uint64_t txn, uint8_t page[2 * PAGE], const uint8_t **meta)
{
    uint64_t of[2];
    int rc = 0;

    for (uint64_t i = 0; !rc && i < 2; i++) {
        const uint8_t *m = page + i * PAGE + HEAD;

        rc = read_page(w, i, page + i * PAGE);
        if (!rc && (u16(m - HEAD + 10) != F_META || u32(m) != MAGIC || u32(m + 24) != PAGE))
            rc = bad(w, "page %d is none of LMDB's", (int)i);
        of[i] = u64(m + 24 + 2 * TREE_BYTES + 8);
        if (of[i] == txn)
            *meta = m;
    }
    if (rc)
        return rc;
    if (!of[0] && !of[1]) /* nothing was ever committed */
        return 0;
    if ((of[0] + 1 != of[1] && of[1] + 1 != of[0]) || (of[0] != txn && of[1] != txn)) {
        (void)bad(w, "transactions %llu and %llu do not follow each other",
                  (unsigned long long)of[0], (unsigned long long)of[1]);
        return -EAGAIN; /* or were written while we read them: the caller asks again */
    }
    return 0;
}

int page_walk(int fd, uint64_t txn, bool deep, char *why, size_t cap)
{
    struct walk w = { .fd = fd, .deep = deep, .why = why, .cap = cap, .tree = "meta" };
    uint8_t page[2 * PAGE];
    const uint8_t *m = NULL;
    struct stat st;
    int rc;

    if (fstat(fd, &st) < 0)
        return -errno;
    w.file_pages = (uint64_t)st.st_size / PAGE;
    rc = find_meta(&w, txn, page, &m);
    if (rc || !m)
        return rc;
    m += 24;
    w.pages = u64(m + 2 * TREE_BYTES) + 1;
    if (w.pages < 2 || w.pages > w.file_pages + SHORT_MAX)
        return bad(&w, "counts %llu pages, and the file has %llu", (unsigned long long)w.pages,
                   (unsigned long long)w.file_pages);
    w.deep = deep || w.file_pages < w.pages;
    w.seen = w.deep ? calloc(w.pages / 8 + 1, 1) : NULL;
    if (w.deep && !w.seen)
        return -ENOMEM;
    rc = walk_tree(&w, m, "free");
    if (!rc)
        rc = walk_tree(&w, m + TREE_BYTES, "main");
    free(w.seen);
    return rc;
}
