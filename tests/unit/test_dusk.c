/* The messages of dusk.md §7, §8 and §9, byte for byte, in both directions (checks 35 and 43). */
#include "proto/dusk.h"
#include "tests/unit/relay_hex.h"
#include "tests/unit/vectors.h"

static uint8_t joined[4096];
static struct wcur pieces;

static struct bytes published(const char *name)
{
    pieces = wcur_of(joined, sizeof(joined));
    return vector(vectors_of("dusk/messages.txt"), name);
}

static struct bytes str(const char *s)
{
    return bytes_str(s);
}

static void expect(const char *name, const struct wcur *w, const uint8_t *buf)
{
    struct bytes want = published(name);

    cr_assert(not(w->bad));
    cr_expect(bytes_eq(bytes_of(buf, w->wrote), want), "%s: wrote %zu bytes, want %zu", name,
              w->wrote, want.n);
}

#define WRITES(name, call)                                                                         \
    do {                                                                                           \
        uint8_t buf[512];                                                                          \
        size_t full;                                                                               \
        {                                                                                          \
            struct wcur w = wcur_of(buf, sizeof(buf));                                             \
                                                                                                   \
            call;                                                                                  \
            expect(name, &w, buf);                                                                 \
            full = w.wrote;                                                                        \
        }                                                                                          \
        EXPECT_BAD_IN_EVERY_SMALLER_ROOM(full, w, call);                                           \
    } while (0)

/* ---- requests of the directory ---------------------------------------------------------------
 */

static struct dusk_dir_req dir(const char *name)
{
    struct dusk_dir_req r;

    cr_assert(dusk_dir_req_decode(published(name), &pieces, &r), "%s", name);
    return r;
}

Test(dusk_dir_req, reads_what_clients_send)
{
    struct dusk_dir_req r = dir("register");

    cr_expect(eq(int, r.call, DUSK_DIR_REGISTER));
    cr_expect(bytes_eq(r.display_name, str("alice")));
    cr_expect(bytes_eq(r.relay_addr, str("/x")));
    r = dir("search");
    cr_expect(eq(int, r.call, DUSK_DIR_SEARCH));
    cr_expect(bytes_eq(r.query, str("ali")));
    r = dir("remove");
    cr_expect(eq(int, r.call, DUSK_DIR_REMOVE));
    cr_expect(zero(sz, pieces.wrote), "nothing came in pieces");
}

Test(dusk_dir_req, takes_old_clients_without_an_address)
{
    struct dusk_dir_req r = dir("register_old");

    cr_expect(eq(int, r.call, DUSK_DIR_REGISTER));
    cr_expect(bytes_eq(r.display_name, str("alice")));
    cr_expect(zero(sz, r.relay_addr.n));
}

Test(dusk_dir_req, writes_what_clients_send)
{
    const struct dusk_dir_req reg = { .call = DUSK_DIR_REGISTER,
                                      .display_name = str("alice"),
                                      .relay_addr = str("/x") },
                              search = { .call = DUSK_DIR_SEARCH, .query = str("ali") },
                              gone = { .call = DUSK_DIR_REMOVE };

    WRITES("register", dusk_dir_req_put(&w, &reg));
    WRITES("search", dusk_dir_req_put(&w, &search));
    WRITES("remove", dusk_dir_req_put(&w, &gone));
}

/* ---- replies of the directory ---------------------------------------------------------------- */

static const struct dusk_profile *one_profile(void)
{
    static struct dusk_profile p;

    p = (struct dusk_profile){ .peer_id = str("P"),
                               .display_name = str("alice"),
                               .last_seen_unix_s = 1767225600,
                               .relay_addr = str("") };
    return &p;
}

Test(dusk_dir_reply, is_written_as_published)
{
    WRITES("ok", dusk_dir_put_ok(&w));
    WRITES("results_none", dusk_dir_put_results(&w, 0));
    WRITES("results_one", (dusk_dir_put_results(&w, 1), dusk_dir_put_profile(&w, one_profile())));
    WRITES("error", dusk_dir_put_error(&w, str(DUSK_NAME_REFUSED)));
}

Test(dusk_dir_reply, is_read_as_published)
{
    struct dusk_dir_reply r;

    cr_assert(dusk_dir_reply_decode(published("ok"), &pieces, &r));
    cr_expect(eq(int, r.answer, DUSK_DIR_OK));
    cr_assert(dusk_dir_reply_decode(published("results_none"), &pieces, &r));
    cr_expect(eq(int, r.answer, DUSK_DIR_RESULTS));
    cr_expect(zero(sz, r.results_n));
    cr_assert(dusk_dir_reply_decode(published("results_one"), &pieces, &r));
    cr_expect(eq(int, r.answer, DUSK_DIR_RESULTS));
    cr_assert(eq(sz, r.results_n, 1));
    cr_expect(bytes_eq(r.results[0].peer_id, str("P")));
    cr_expect(bytes_eq(r.results[0].display_name, str("alice")));
    cr_expect(eq(u64, r.results[0].last_seen_unix_s, 1767225600));
    cr_expect(zero(sz, r.results[0].relay_addr.n));
    cr_assert(dusk_dir_reply_decode(published("error"), &pieces, &r));
    cr_expect(eq(int, r.answer, DUSK_DIR_ERROR));
    cr_expect(bytes_eq(r.error, str("display_name must be 1-64 characters")));
}

Test(dusk_dir_reply, of_twenty_of_the_longest_profiles_fits_its_bound)
{
    static uint8_t buf[DUSK_RESULTS_PUT_MAX], text[DUSK_ADDR_MAX], wide[DUSK_NAME_MAX];
    struct dusk_profile p = { .peer_id = bytes_of(text, PEER_TEXT_MAX - 1),
                              .display_name = bytes_of(wide, sizeof(wide)),
                              .last_seen_unix_s = UINT64_MAX,
                              .relay_addr = bytes_of(text, sizeof(text)) };
    struct wcur w = wcur_of(buf, sizeof(buf));
    static struct dusk_dir_reply r;

    memset(text, 'x', sizeof(text));
    for (size_t i = 0; i < sizeof(wide); i += 4)
        memcpy(wide + i, "\xf0\x9f\xa6\x86", 4);
    dusk_dir_put_results(&w, DUSK_RESULTS_MAX);
    for (int i = 0; i < DUSK_RESULTS_MAX; i++)
        dusk_dir_put_profile(&w, &p);
    cr_assert(not(w.bad));
    pieces = wcur_of(joined, 0);
    cr_assert(dusk_dir_reply_decode(bytes_of(buf, w.wrote), &pieces, &r));
    cr_assert(eq(sz, r.results_n, DUSK_RESULTS_MAX));
    cr_expect(bytes_eq(r.results[19].relay_addr, p.relay_addr));
    cr_expect(eq(u64, r.results[19].last_seen_unix_s, UINT64_MAX));
}

Test(dusk_dir_reply, of_more_than_twenty_is_refused)
{
    static uint8_t buf[2048];
    struct wcur w = wcur_of(buf, sizeof(buf));
    static struct dusk_dir_reply r;

    dusk_dir_put_results(&w, DUSK_RESULTS_MAX + 1);
    for (int i = 0; i <= DUSK_RESULTS_MAX; i++)
        dusk_dir_put_profile(&w, one_profile());
    cr_assert(not(w.bad));
    pieces = wcur_of(joined, sizeof(joined));
    cr_expect(not(dusk_dir_reply_decode(bytes_of(buf, w.wrote), &pieces, &r)));
}

/* ---- credentials ----------------------------------------------------------------------------- */

#define PID "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB"

static struct dusk_cred_ask example(struct peer_id *peer)
{
    cr_assert(peer_id_parse(str(PID), peer));
    return (struct dusk_cred_ask){ .secret = str("test-secret"),
                                   .now_unix_s = 1767312000 - 86400,
                                   .peer = peer,
                                   .host = str("192.0.2.1"),
                                   .udp_port = 3478,
                                   .tcp_port = 3478 };
}

Test(dusk_cred, request_is_read_and_written_as_published)
{
    struct dusk_cred_req r;

    cr_assert(dusk_cred_req_decode(published("cred_request"), &pieces, &r));
    cr_expect(bytes_eq(r.peer_id, str(PID)));
    WRITES("cred_request", dusk_cred_req_put(&w, &r));
}

Test(dusk_cred, reply_of_184_bytes_is_made_as_published)
{
    struct peer_id peer;
    struct dusk_cred_ask ask = example(&peer);
    uint8_t texts[DUSK_CRED_ROOM];
    struct wcur r = wcur_of(texts, sizeof(texts));
    struct dusk_cred c;

    dusk_cred_make(&ask, &r, &c);
    cr_expect(eq(sz, published("cred_reply").n, 184));
    WRITES("cred_reply", dusk_cred_put(&w, &c));
}

Test(dusk_cred, reply_is_read_as_published)
{
    struct dusk_cred c;

    cr_assert(dusk_cred_decode(published("cred_reply"), &pieces, &c));
    cr_expect(bytes_eq(c.username, str("1767312000:" PID)));
    cr_expect(bytes_eq(c.password, str("SqYA/HwuA8CkrAJS4/M0wCGuNP4=")));
    cr_expect(eq(u64, c.ttl_s, 86400));
    cr_assert(eq(sz, c.uris_n, 2));
    cr_expect(bytes_eq(c.uris[0], str("turn:192.0.2.1:3478")));
    cr_expect(bytes_eq(c.uris[1], str("turn:192.0.2.1:3478?transport=tcp")));
}

/* ---- gif ------------------------------------------------------------------------------------- */

Test(dusk_gif, requests_are_read_and_written_as_published)
{
    struct dusk_gif_req r;

    cr_assert(dusk_gif_req_decode(published("gif_search"), &pieces, &r));
    cr_expect(bytes_eq(r.kind, str("search")));
    cr_expect(bytes_eq(r.query, str("cat")));
    cr_expect(eq(u32, r.limit, 20));
    WRITES("gif_search", dusk_gif_req_put(&w, &r));
    cr_assert(dusk_gif_req_decode(published("gif_trending"), &pieces, &r));
    cr_expect(bytes_eq(r.kind, str("trending")));
    cr_expect(zero(sz, r.query.n));
    WRITES("gif_trending", dusk_gif_req_put(&w, &r));
}

Test(dusk_gif, replies_are_written_as_published)
{
    const struct dusk_gif one = { str("1"), str("t"), str("u"), str("p"), { 220, 165 } };

    cr_expect(eq(sz, published("gif_none").n, DUSK_GIF_EMPTY_PUT));
    WRITES("gif_none", dusk_gif_put_results(&w, 0));
    WRITES("gif_one", (dusk_gif_put_results(&w, 1), dusk_gif_put(&w, &one)));
}

Test(dusk_gif, replies_are_read_as_published)
{
    static struct dusk_gif_reply r;

    cr_assert(dusk_gif_reply_decode(published("gif_none"), &pieces, &r));
    cr_expect(zero(sz, r.results_n));
    cr_assert(dusk_gif_reply_decode(published("gif_one"), &pieces, &r));
    cr_assert(eq(sz, r.results_n, 1));
    cr_expect(bytes_eq(r.results[0].id, str("1")));
    cr_expect(bytes_eq(r.results[0].title, str("t")));
    cr_expect(bytes_eq(r.results[0].url, str("u")));
    cr_expect(bytes_eq(r.results[0].preview, str("p")));
    cr_expect(eq(u32, r.results[0].dims[0], 220));
    cr_expect(eq(u32, r.results[0].dims[1], 165));
}

/* ---- of all of them -------------------------------------------------------------------------- */

static bool as_dir_req(struct bytes in)
{
    struct dusk_dir_req r;

    return dusk_dir_req_decode(in, &pieces, &r);
}

static bool as_dir_reply(struct bytes in)
{
    static struct dusk_dir_reply r;

    return dusk_dir_reply_decode(in, &pieces, &r);
}

static bool as_cred_req(struct bytes in)
{
    struct dusk_cred_req r;

    return dusk_cred_req_decode(in, &pieces, &r);
}

static bool as_cred(struct bytes in)
{
    struct dusk_cred r;

    return dusk_cred_decode(in, &pieces, &r);
}

static bool as_gif_req(struct bytes in)
{
    struct dusk_gif_req r;

    return dusk_gif_req_decode(in, &pieces, &r);
}

static bool as_gif_reply(struct bytes in)
{
    static struct dusk_gif_reply r;

    return dusk_gif_reply_decode(in, &pieces, &r);
}

static const struct {
    const char *name;
    bool (*decode)(struct bytes);
} all[] = {
    { "register", as_dir_req },      { "register_old", as_dir_req },
    { "search", as_dir_req },        { "remove", as_dir_req },
    { "ok", as_dir_reply },          { "results_none", as_dir_reply },
    { "results_one", as_dir_reply }, { "error", as_dir_reply },
    { "cred_request", as_cred_req }, { "cred_reply", as_cred },
    { "gif_search", as_gif_req },    { "gif_trending", as_gif_req },
    { "gif_none", as_gif_reply },    { "gif_one", as_gif_reply },
};

Test(dusk, every_truncation_is_refused)
{
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct bytes whole = published(all[i].name);

        for (size_t n = 0; n <= whole.n; n++) {
            uint8_t *copy;
            struct bytes in = tight(bytes_of(whole.p, n), &copy);

            pieces = wcur_of(joined, sizeof(joined));
            cr_expect(eq(int, all[i].decode(in), n == whole.n), "%s of %zu bytes", all[i].name, n);
            free(copy);
        }
    }
}

Test(dusk, bytes_behind_a_message_are_nobodys_business)
{
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct bytes whole = published(all[i].name);
        uint8_t longer[256];

        memcpy(longer, whole.p, whole.n);
        memset(longer + whole.n, 0xff, sizeof(longer) - whole.n);
        pieces = wcur_of(joined, sizeof(joined));
        cr_expect(all[i].decode(bytes_of(longer, sizeof(longer))), "%s", all[i].name);
    }
}
