#include "engine/acl.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#include "seeded.h"

static struct acl_rule net_rule(bool deny, unsigned scopes, const char *cidr)
{
    struct acl_rule r = { .deny = deny, .scopes = scopes };

    cr_assert(acl_subject_parse(bytes_str(cidr), &r), "%s", cidr);
    cr_assert(!r.by_peer);
    return r;
}

static struct peer_id peer_no(uint8_t n)
{
    struct peer_id p = { .n = 34 };

    p.b[0] = 0x12;
    p.b[1] = 0x20;
    memset(p.b + 2, n, 32);
    return p;
}

static struct acl_rule peer_rule(bool deny, unsigned scopes, uint8_t n)
{
    return (struct acl_rule){ .deny = deny, .scopes = scopes, .by_peer = true, .peer = peer_no(n) };
}

static bool allows_ip(const struct acl *a, enum acl_scope scope, const char *ip)
{
    struct acl_rule r = net_rule(false, 0, ip);

    cr_assert_eq(r.net.bits, 128, "an address, not a network");
    return acl_allows(a, scope, NULL, r.net.ip);
}

static bool allows_peer(const struct acl *a, enum acl_scope scope, uint8_t n)
{
    struct peer_id p = peer_no(n);

    return acl_allows(a, scope, &p, NULL);
}

Test(acl, allows_everybody_without_rules)
{
    struct acl *a = acl_new(NULL, 0);

    cr_assert_not_null(a);
    cr_assert(allows_ip(NULL, ACL_CONN, "1.2.3.4"));
    cr_assert(allows_ip(a, ACL_CONN, "1.2.3.4"));
    cr_assert(allows_peer(a, ACL_RESERVE, 1));
    cr_assert(acl_allows(a, ACL_RESERVE, NULL, NULL));
    acl_free(a);
    acl_free(NULL);
}

Test(acl, refuses_what_is_denied_whatever_else_is_said)
{
    struct acl_rule r[] = {
        net_rule(false, ACL_IN(ACL_CONN), "10.0.0.0/8"),
        net_rule(true, ACL_IN(ACL_CONN), "10.1.0.0/16"),
        peer_rule(false, ACL_IN(ACL_CONN), 1),
        peer_rule(true, ACL_IN(ACL_CONN), 1),
    };
    struct acl *a = acl_new(r, ARRAY_LEN(r));

    cr_assert(allows_ip(a, ACL_CONN, "10.0.255.255"));
    cr_assert(!allows_ip(a, ACL_CONN, "10.1.0.0"));
    cr_assert(!allows_ip(a, ACL_CONN, "10.1.255.255"));
    cr_assert(allows_ip(a, ACL_CONN, "10.2.0.0"));
    cr_assert(!allows_ip(a, ACL_CONN, "11.0.0.0"), "allows exist, and it is in none");
    cr_assert(!allows_ip(a, ACL_CONN, "9.255.255.255"));
    cr_assert(!allows_ip(a, ACL_CONN, "::1"));
    cr_assert(!allows_peer(a, ACL_CONN, 1));
    cr_assert(!allows_peer(a, ACL_CONN, 2));
    acl_free(a);
}

Test(acl, wants_both_lists_to_agree)
{
    struct acl_rule r[] = {
        net_rule(false, ACL_IN(ACL_RESERVE), "2001:db8::/32"),
        peer_rule(false, ACL_IN(ACL_RESERVE), 7),
    };
    struct acl *a = acl_new(r, ARRAY_LEN(r));
    struct peer_id seven = peer_no(7), eight = peer_no(8);
    uint8_t in[16] = { 0x20, 0x01, 0x0d, 0xb8 }, out[16] = { 0x20, 0x01, 0x0d, 0xb9 };

    cr_assert(acl_allows(a, ACL_RESERVE, &seven, in));
    cr_assert(!acl_allows(a, ACL_RESERVE, &seven, out));
    cr_assert(!acl_allows(a, ACL_RESERVE, &eight, in));
    cr_assert(acl_allows(a, ACL_RESERVE, NULL, in), "who it is is not known yet");
    cr_assert(acl_allows(a, ACL_RESERVE, &seven, NULL), "the address is not asked");
    acl_free(a);
}

Test(acl, keeps_scopes_apart)
{
    for (unsigned scope = 0; scope < ACL_SCOPES; scope++) {
        struct acl_rule r[] = { peer_rule(true, ACL_IN(scope), 1),
                                net_rule(true, ACL_IN(scope), "192.0.2.7") };
        struct acl *a = acl_new(r, 2);

        for (unsigned other = 0; other < ACL_SCOPES; other++) {
            cr_assert_eq(allows_peer(a, other, 1), other != scope);
            cr_assert_eq(allows_ip(a, other, "192.0.2.7"), other != scope);
            cr_assert(allows_ip(a, other, "192.0.2.6") && allows_ip(a, other, "192.0.2.8"));
            cr_assert(allows_peer(a, other, 2));
        }
        acl_free(a);
    }
}

Test(acl, covers_whole_families)
{
    struct acl_rule v4[] = { net_rule(true, ACL_IN(ACL_CONN), "0.0.0.0/0") };
    struct acl_rule all[] = { net_rule(true, ACL_IN(ACL_CONN), "::/0") };
    struct acl *a = acl_new(v4, 1), *b = acl_new(all, 1);

    cr_assert(!allows_ip(a, ACL_CONN, "0.0.0.0") && !allows_ip(a, ACL_CONN, "255.255.255.255"));
    cr_assert(allows_ip(a, ACL_CONN, "::1") && allows_ip(a, ACL_CONN, "2001:db8::1"));
    cr_assert(!allows_ip(b, ACL_CONN, "::") && !allows_ip(b, ACL_CONN, "1.2.3.4"));
    cr_assert(!allows_ip(b, ACL_CONN, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
    acl_free(a);
    acl_free(b);
}

Test(acl, reads_subjects_as_operators_type_them)
{
    struct acl_rule r = { 0 };
    struct peer_id p = peer_no(9);
    char text[PEER_TEXT_MAX];

    peer_id_text(&p, text);
    cr_assert(acl_subject_parse(bytes_str(text), &r));
    cr_assert(r.by_peer && peer_id_eq(&r.peer, &p));
    peer_id_text_cid(&p, text);
    cr_assert(acl_subject_parse(bytes_str(text), &r));
    cr_assert(r.by_peer && peer_id_eq(&r.peer, &p));
    cr_assert(acl_subject_parse(bytes_str("192.0.2.0/24"), &r));
    cr_assert(!r.by_peer && r.net.bits == 120);
    static const char *const bad[] = { "",         "x",  "10.0.0.0/33", "10.0.0/8",
                                       "12D3KooW", "/8", "::/129" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_assert(!acl_subject_parse(bytes_str(bad[i]), &r), "%s", bad[i]);
}

Test(acl, refuses_more_rules_than_its_bound)
{
    struct acl_rule *r = calloc(ACL_RULES_MAX + 1, sizeof(*r));

    for (size_t i = 0; i <= ACL_RULES_MAX; i++) {
        r[i] = peer_rule(true, ACL_IN(ACL_CONN), 0);
        memcpy(r[i].peer.b + 2, &i, sizeof(i));
    }
    struct acl *a = acl_new(r, ACL_RULES_MAX);
    cr_assert_not_null(a);
    for (size_t i = 0; i < ACL_RULES_MAX; i += 97)
        cr_assert(!acl_allows(a, ACL_CONN, &r[i].peer, NULL));
    cr_assert(acl_allows(a, ACL_CONN, &r[ACL_RULES_MAX].peer, NULL));
    acl_free(a);
    cr_assert_null(acl_new(r, ACL_RULES_MAX + 1));
    free(r);
}

/* Networks that nest, touch and overlap, in a small part of the address space, against asking every
 * rule in turn. */
Test(acl, agrees_with_a_naive_model_for_many_seeds)
{
    enum { RULES = 40 };

    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct seeded s = { seed };
        struct acl_rule r[RULES];
        size_t n = seeded_below(&s, RULES + 1), allow_nets = 0;

        for (size_t i = 0; i < n; i++) {
            r[i] = net_rule(seeded_below(&s, 2), ACL_IN(ACL_CONN), "::");
            for (int k = 0; k < 2; k++)
                r[i].net.ip[seeded_below(&s, 2) ? 15 : 0] = (uint8_t)seeded_u64(&s);
            r[i].net.bits =
                (uint8_t)(seeded_below(&s, 2) ? seeded_below(&s, 129) : 120 + seeded_below(&s, 9));
            allow_nets += !r[i].deny;
        }
        struct acl *a = acl_new(r, n);

        for (int q = 0; q < 500; q++) {
            uint8_t ip[16] = { 0 };
            bool denied = false, allowed = allow_nets == 0;

            if (seeded_below(&s, 2))
                ip[0] = (uint8_t)seeded_u64(&s);
            ip[15] = (uint8_t)seeded_u64(&s);
            for (size_t i = 0; i < n; i++) {
                if (cidr_match(&r[i].net, ip))
                    *(r[i].deny ? &denied : &allowed) = true;
            }
            cr_assert_eq(acl_allows(a, ACL_CONN, NULL, ip), allowed && !denied, "seed %lu", seed);
        }
        acl_free(a);
    }
}
