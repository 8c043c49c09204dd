#include "tools/ctl_usage.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/store.h"
#include "tools/ctl_show.h"

enum { ROWS_MAX = 1 << 20, PAGE = 4096 };

const char *ctl_usage_complaint(const char *days)
{
    long n;

    if (!days)
        return NULL;
    n = strspn(days, "0123456789") == strlen(days) && strlen(days) <= 2 ? strtol(days, NULL, 10)
                                                                        : 0;
    return n < 1 || n > STORE_USAGE_DAYS ? "usage takes a number of days, 1 to 31" : NULL;
}

struct rows {
    struct store_usage *row;
    size_t n, cap;
    bool failed;
};

static bool keep(void *ctx, const struct store_usage *u)
{
    struct rows *r = ctx;

    if (r->n == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : PAGE;
        struct store_usage *bigger =
            cap <= ROWS_MAX ? realloc(r->row, cap * sizeof(*r->row)) : NULL;

        if (!bigger) {
            r->failed = true;
            return false;
        }
        r->row = bigger;
        r->cap = cap;
    }
    r->row[r->n++] = *u;
    return true;
}

static int read_all(struct store *s, uint64_t now, unsigned days, struct rows *r)
{
    size_t before;
    int rc;

    do {
        const struct peer_id after = r->n ? r->row[r->n - 1].peer : (struct peer_id){ 0 };

        before = r->n;
        rc = store_usage_list(s, now, days, before ? &after : NULL, PAGE, keep, r);
    } while (!rc && !r->failed && r->n == before + PAGE);
    return rc;
}

static int by_bytes(const void *a, const void *b)
{
    const struct store_usage *x = a, *y = b;
    uint64_t n = x->in_bytes + x->out_bytes, m = y->in_bytes + y->out_bytes;

    return n < m ? 1 : n > m ? -1 : memcmp(&x->peer, &y->peer, sizeof(x->peer));
}

static void name_of(const struct store_usage *u, char name[PEER_TEXT_MAX])
{
    if (u->peer.n)
        peer_id_text(&u->peer, name);
    else
        snprintf(name, PEER_TEXT_MAX, "others");
}

/* The row of those who are not kept one by one is there even when nobody is. */
static bool is_nobody(const struct store_usage *u)
{
    return !u->peer.n && !u->circuits && !u->connected_s;
}

static void show(const struct rows *r, bool json)
{
    size_t shown = 0;
    char name[PEER_TEXT_MAX], in[16], out[16], age[16];

    if (!json)
        printf("%-54s %10s %10s %9s %9s\n", "PEER", "IN", "OUT", "CIRCUITS", "CONNECTED");
    for (size_t i = 0; i < r->n; i++) {
        const struct store_usage *u = &r->row[i];

        if (is_nobody(u))
            continue;
        shown++;
        name_of(u, name);
        if (json)
            printf("{\"peer\":\"%s\",\"in_bytes\":%" PRIu64 ",\"out_bytes\":%" PRIu64
                   ",\"circuits\":%" PRIu64 ",\"connected_seconds\":%" PRIu64 "}\n",
                   name, u->in_bytes, u->out_bytes, u->circuits, u->connected_s);
        else
            printf("%-54s %10s %10s %9" PRIu64 " %9s\n", name,
                   ctl_size_text(u->in_bytes, in, sizeof(in)),
                   ctl_size_text(u->out_bytes, out, sizeof(out)), u->circuits,
                   ctl_age_text(u->connected_s, age, sizeof(age)));
    }
    if (!json)
        printf("%zu peers\n", shown);
}

int ctl_usage(const char *dir, const char *days, bool json)
{
    struct store_opts o = { .dir = dir, .read_only = true };
    unsigned n = days ? (unsigned)strtoul(days, NULL, 10) : STORE_USAGE_DAYS;
    char why[STORE_WHY_MAX] = "";
    struct rows r = { 0 };
    struct store *s;
    int rc = store_open(&o, &s, why, sizeof(why));

    if (rc) {
        fprintf(stderr, "sluicectl: %s\n", why);
        return 1;
    }
    rc = read_all(s, (uint64_t)time(NULL), n, &r);
    store_close(s);
    if (rc || r.failed) {
        fprintf(stderr, "sluicectl: usage: %s\n", rc ? strerror(-rc) : "more peers than memory");
        free(r.row);
        return 1;
    }
    if (!json && r.n)
        qsort(r.row, r.n, sizeof(*r.row), by_bytes);
    show(&r, json);
    free(r.row);
    return fflush(stdout) || ferror(stdout) ? 1 : 0;
}
