/* dusk.md §10.4: what relays tell each other of registrations. */
#include <stdarg.h>

#include "proto/crypto.h"
#include "proto/gossip_fed.h"
#include "tests/unit/relay_hex.h"

static uint8_t pool[GOSSIP_FED_POOL], out[GOSSIP_FED_MAX];

static struct gossip_fed some(struct bytes ns)
{
    return (
        struct gossip_fed){ .peer = id_of(A_ID), .source = id_of(K_ID), .ns = ns, .ttl_s = 7200 };
}

static bool parses(const char *text)
{
    struct gossip_fed r;
    uint8_t *copy;
    bool ok = gossip_fed_parse(tight(bytes_str(text), &copy), pool, &r);

    free(copy);
    return ok;
}

Test(gossip_fed_put, writes_the_originals_text_byte_for_byte)
{
    char want[512], a[PEER_TEXT_MAX], k[PEER_TEXT_MAX];
    struct gossip_fed r = some(bytes_str("dusk/peers"));
    struct wcur w = wcur_of(out, sizeof(out));

    peer_id_text(&r.peer, a);
    peer_id_text(&r.source, k);
    snprintf(want, sizeof(want),
             "{\"peer_id\":\"%s\",\"namespace\":\"dusk/peers\",\"ttl\":7200,"
             "\"source_relay\":\"%s\"}",
             a, k);
    gossip_fed_put(&w, &r);
    cr_assert(not(w.bad));
    cr_expect(bytes_eq(bytes_of(out, w.wrote), bytes_str(want)));
    EXPECT_BAD_IN_EVERY_SMALLER_ROOM(strlen(want), cut, gossip_fed_put(&cut, &r));
}

Test(gossip_fed, reads_what_it_wrote_whatever_the_namespace)
{
    static const char nasty[] = "a\"b\\c\x01\n\t\x7f\xc3\xa9/\xf0\x9f\x98\x80";
    uint8_t record[3] = { 0, 0xab, 0xff };
    struct gossip_fed r = some(bytes_of(nasty, sizeof(nasty))), back;
    struct wcur w = wcur_of(out, sizeof(out));

    r.record = bytes_of(record, sizeof(record));
    gossip_fed_put(&w, &r);
    cr_assert(not(w.bad));
    cr_assert(gossip_fed_parse(bytes_of(out, w.wrote), pool, &back));
    cr_expect(bytes_eq(back.ns, r.ns) && bytes_eq(back.record, r.record));
    cr_expect(peer_id_eq(&back.peer, &r.peer) && peer_id_eq(&back.source, &r.source));
    cr_expect(eq(u64, back.ttl_s, 7200));
    r.ns = bytes_of("\xff", 1);
    w = wcur_of(out, sizeof(out));
    gossip_fed_put(&w, &r);
    cr_expect(w.bad, "no UTF-8, no JSON");
}

/* Behind a good peer_id. */
static bool PRINTF_LIKE(1, 2) rest(const char *fmt, ...)
{
    struct peer_id id = id_of(A_ID);
    char a[PEER_TEXT_MAX], text[1024];
    va_list args;
    int n;

    peer_id_text(&id, a);
    n = snprintf(text, sizeof(text), "{\"peer_id\":\"%s\",\"namespace\":", a);
    va_start(args, fmt);
    n += vsnprintf(text + n, sizeof(text) - n, fmt, args);
    va_end(args);
    snprintf(text + n, sizeof(text) - n, "}");
    return parses(text);
}

Test(gossip_fed_parse, refuses_what_is_not_whole_or_out_of_bounds)
{
    char a[PEER_TEXT_MAX], good[1024], bad[1024];
    struct peer_id id = id_of(A_ID);

    peer_id_text(&id, a);
    snprintf(good, sizeof(good),
             "{\"peer_id\":\"%s\",\"namespace\":\"n\",\"ttl\":1,\"source_relay\":\"%s\"}", a, a);
    cr_assert(parses(good));
    for (size_t n = 0; n < strlen(good); n++) {
        snprintf(bad, sizeof(bad), "%.*s", (int)n, good);
        cr_expect(not(parses(bad)), "%s", bad);
    }
    cr_expect(rest("\"\",\"ttl\":259200,\"more\":[1],\"source_relay\":\"%s\"", a));
    cr_expect(not(rest("\"n\",\"ttl\":0,\"source_relay\":\"%s\"", a)));
    cr_expect(not(rest("\"n\",\"ttl\":259201,\"source_relay\":\"%s\"", a)));
    cr_expect(not(rest("\"n\",\"ttl\":-1,\"source_relay\":\"%s\"", a)));
    cr_expect(not(rest("\"n\",\"ttl\":\"1\",\"source_relay\":\"%s\"", a)));
    cr_expect(not(rest("7,\"ttl\":1,\"source_relay\":\"%s\"", a)));
    cr_expect(not(rest("\"n\",\"ttl\":1,\"source_relay\":\"%sx\"", a)));
    cr_expect(not(rest("\"n\",\"ttl\":1,\"source_relay\":\"%s\",\"record\":\"abc\"", a)));
    cr_expect(not(rest("\"n\",\"ttl\":1,\"source_relay\":\"%s\",\"record\":\"AB\"", a)));
    cr_expect(rest("\"n\",\"ttl\":1,\"source_relay\":\"%s\",\"record\":\"ab\"", a));
    cr_expect(not(parses("[]")));
    cr_expect(not(parses("\"x\"")));
    char ns[258];

    memset(ns, 'x', sizeof(ns));
    ns[255] = 0;
    cr_expect(rest("\"%s\",\"ttl\":1,\"source_relay\":\"%s\"", ns, a));
    ns[255] = 'x';
    ns[256] = 0;
    cr_expect(not(rest("\"%s\",\"ttl\":1,\"source_relay\":\"%s\"", ns, a)));
}

Test(gossip_fed_verify, believes_a_record_of_the_peer_itself_only)
{
    struct identity k = identity_k();
    static uint8_t env[1024];
    struct wcur w = wcur_of(env, sizeof(env));
    struct gossip_fed r = some(bytes_str("n"));

    crypto_init();
    peer_record_seal(&w, &k, 1, NULL, 0);
    cr_assert(not(w.bad));
    cr_expect(not(gossip_fed_verify(&r)), "none");
    r.record = bytes_of(env, w.wrote);
    cr_expect(not(gossip_fed_verify(&r)), "another's");
    r.peer = k.id;
    cr_expect(gossip_fed_verify(&r));
    env[w.wrote - 1] ^= 1;
    cr_expect(not(gossip_fed_verify(&r)));
}
