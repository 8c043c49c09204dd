#include "engine/acl.h"

#include <stdlib.h>

/* Networks become ranges that neither overlap nor touch each other's inside, so that one binary
 * search finds the only range that can hold an address; peers are sorted by their bytes. */
struct range {
    uint8_t lo[16], hi[16];
};

struct list_of {
    struct range *ranges;
    struct peer_id *peers;
    size_t ranges_count, peers_count;
};

struct acl {
    struct list_of allow[ACL_SCOPES], deny[ACL_SCOPES];
};

static struct range range_of(const struct cidr *net)
{
    struct range r;

    for (unsigned i = 0; i < 16; i++) {
        unsigned fixed = net->bits > 8 * i ? net->bits - 8 * i : 0; /* leading bits of this byte */
        uint8_t host = fixed >= 8 ? 0 : (uint8_t)(0xff >> fixed);

        r.lo[i] = (uint8_t)(net->ip[i] & ~host);
        r.hi[i] = net->ip[i] | host;
    }
    return r;
}

static int range_order(const void *a, const void *b)
{
    const struct range *x = a, *y = b;

    return memcmp(x->lo, y->lo, sizeof(x->lo));
}

static int peer_order(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct peer_id));
}

static size_t ranges_merge(struct range *r, size_t count)
{
    size_t kept = 0;

    if (count == 0)
        return 0;
    qsort(r, count, sizeof(*r), range_order);
    for (size_t i = 1; i < count; i++) {
        if (memcmp(r[i].lo, r[kept].hi, sizeof(r[i].lo)) > 0)
            r[++kept] = r[i];
        else if (memcmp(r[i].hi, r[kept].hi, sizeof(r[i].hi)) > 0)
            memcpy(r[kept].hi, r[i].hi, sizeof(r[i].hi));
    }
    return kept + 1;
}

static void list_add(struct list_of *l, const struct acl_rule *rule)
{
    if (rule->by_peer)
        l->peers[l->peers_count++] = rule->peer;
    else
        l->ranges[l->ranges_count++] = range_of(&rule->net);
}

static void list_finish(struct list_of *l)
{
    l->ranges_count = ranges_merge(l->ranges, l->ranges_count);
    if (l->peers_count)
        qsort(l->peers, l->peers_count, sizeof(*l->peers), peer_order);
}

/* How many of the rules go into one list. */
static void list_size(const struct acl_rule *rules, size_t count, unsigned scope, bool deny,
                      size_t *ranges, size_t *peers)
{
    *ranges = *peers = 0;
    for (size_t i = 0; i < count; i++) {
        if (rules[i].deny == deny && (rules[i].scopes & ACL_IN(scope)))
            ++*(rules[i].by_peer ? peers : ranges);
    }
}

struct acl *acl_new(const struct acl_rule *rules, size_t count)
{
    size_t bytes = sizeof(struct acl), ranges, peers;

    if (count > ACL_RULES_MAX)
        return NULL;
    for (unsigned i = 0; i < 2 * ACL_SCOPES; i++) {
        list_size(rules, count, i / 2, i & 1, &ranges, &peers);
        bytes += ranges * sizeof(struct range) + peers * sizeof(struct peer_id);
    }
    struct acl *a = calloc(1, bytes);

    if (!a)
        return NULL;
    static_assert(_Alignof(struct range) == 1 && _Alignof(struct peer_id) == 1,
                  "both may lie anywhere behind the head");
    uint8_t *at = (uint8_t *)(a + 1);

    for (unsigned i = 0; i < 2 * ACL_SCOPES; i++) {
        struct list_of *l = i & 1 ? &a->deny[i / 2] : &a->allow[i / 2];

        list_size(rules, count, i / 2, i & 1, &ranges, &peers);
        l->ranges = (struct range *)at;
        at += ranges * sizeof(struct range);
        l->peers = (struct peer_id *)at;
        at += peers * sizeof(struct peer_id);
        for (size_t k = 0; k < count; k++) {
            if (rules[k].deny == (i & 1) && (rules[k].scopes & ACL_IN(i / 2)))
                list_add(l, &rules[k]);
        }
        list_finish(l);
    }
    return a;
}

void acl_free(struct acl *a)
{
    free(a);
}

bool acl_subject_parse(struct bytes text, struct acl_rule *rule)
{
    struct cidr net;
    struct peer_id peer;

    if (cidr_parse(text, &net)) {
        rule->by_peer = false;
        rule->net = net;
        return true;
    }
    if (peer_id_parse(text, &peer)) {
        rule->by_peer = true;
        rule->peer = peer;
        return true;
    }
    return false;
}

static bool list_has_ip(const struct list_of *l, const uint8_t ip[16])
{
    size_t lo = 0, hi = l->ranges_count;

    while (lo < hi) { /* the first range that begins behind ip */
        size_t mid = lo + (hi - lo) / 2;

        if (memcmp(l->ranges[mid].lo, ip, 16) > 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo > 0 && memcmp(ip, l->ranges[lo - 1].hi, 16) <= 0;
}

static bool list_has_peer(const struct list_of *l, const struct peer_id *peer)
{
    return l->peers_count &&
           bsearch(peer, l->peers, l->peers_count, sizeof(*l->peers), peer_order) != NULL;
}

bool acl_allows(const struct acl *a, enum acl_scope scope, const struct peer_id *peer,
                const uint8_t *ip)
{
    if (!a)
        return true;
    const struct list_of *allow = &a->allow[scope], *deny = &a->deny[scope];

    if (peer && (list_has_peer(deny, peer) || (allow->peers_count && !list_has_peer(allow, peer))))
        return false;
    if (ip && (list_has_ip(deny, ip) || (allow->ranges_count && !list_has_ip(allow, ip))))
        return false;
    return true;
}
