/* Dusk's CBOR messages: what decodes lies within the input or in the room that was given, is UTF-8,
 * and says the same after it was written and read again; what is written again has the shortest
 * form, so that it needs no room for pieces and is never longer than its own second writing. Names
 * and queries that were taken are taken as they stand. */
#include "tests/fuzz/fuzz.h"

#include "proto/dusk.h"
#include "proto/utf8.h"

enum { INPUT_MAX = 65536, WIDE = 16 }; /* a field that the original leaves out is written */

static uint8_t joined[INPUT_MAX], wire[2 * INPUT_MAX], wire2[2 * INPUT_MAX];
static struct bytes source;

static struct wcur fresh_room(size_t n)
{
    return wcur_of(joined, n);
}

static void check_text(struct bytes s)
{
    struct utf8 u = { .need = 0 };
    bool in_source = s.p >= source.p && s.n <= (size_t)(source.p + source.n - s.p);
    bool in_room = s.p >= joined && s.n <= (size_t)(joined + sizeof(joined) - s.p);

    CHECK(s.n == 0 || in_source || in_room);
    CHECK(utf8_feed(&u, s.p, s.n));
    CHECK(utf8_whole(&u));
}

static void check_names(struct bytes raw)
{
    struct bytes name, again;

    if (dusk_name_check(raw, &name)) {
        CHECK(name.n > 0);
        CHECK(name.n <= DUSK_NAME_MAX);
        CHECK(dusk_name_check(name, &again));
        CHECK(bytes_eq(name, again));
        CHECK(dusk_query_check(raw, &again));
        CHECK(bytes_eq(name, again));
    }
    name = dusk_trim(raw);
    CHECK(bytes_eq(dusk_trim(name), name));
}

static void try_dir_req(void)
{
    struct wcur room = fresh_room(source.n), none = wcur_of(joined, 0), w, w2;
    struct dusk_dir_req r, again;
    static const struct peer_id nobody;

    if (!dusk_dir_req_decode(source, &room, &r))
        return;
    w = wcur_of(wire, sizeof(wire));
    dusk_dir_req_put(&w, &r);
    CHECK(!w.bad);
    CHECK(w.wrote <= source.n + WIDE);
    CHECK(dusk_dir_req_decode(bytes_of(wire, w.wrote), &none, &again));
    CHECK(again.call == r.call);
    if (r.call == DUSK_DIR_REGISTER) {
        check_text(r.display_name);
        check_text(r.relay_addr);
        CHECK(bytes_eq(again.display_name, r.display_name));
        CHECK(bytes_eq(again.relay_addr, r.relay_addr));
        check_names(r.display_name);
        CHECK(!dusk_relay_addr_ok(r.relay_addr, &nobody, &nobody));
    } else if (r.call == DUSK_DIR_SEARCH) {
        check_text(r.query);
        CHECK(bytes_eq(again.query, r.query));
        check_names(r.query);
    }
    w2 = wcur_of(wire2, sizeof(wire2));
    dusk_dir_req_put(&w2, &again);
    CHECK(bytes_eq(bytes_of(wire, w.wrote), bytes_of(wire2, w2.wrote)));
}

static void put_dir_reply(struct wcur *w, const struct dusk_dir_reply *r)
{
    if (r->answer == DUSK_DIR_OK) {
        dusk_dir_put_ok(w);
    } else if (r->answer == DUSK_DIR_ERROR) {
        dusk_dir_put_error(w, r->error);
    } else {
        dusk_dir_put_results(w, r->results_n);
        for (size_t i = 0; i < r->results_n; i++)
            dusk_dir_put_profile(w, &r->results[i]);
    }
}

static void try_dir_reply(void)
{
    static struct dusk_dir_reply r, again;
    struct wcur room = fresh_room(source.n), none = wcur_of(joined, 0), w, w2;

    if (!dusk_dir_reply_decode(source, &room, &r))
        return;
    CHECK(r.results_n <= DUSK_RESULTS_MAX);
    for (size_t i = 0; i < r.results_n; i++) {
        check_text(r.results[i].peer_id);
        check_text(r.results[i].display_name);
        check_text(r.results[i].relay_addr);
    }
    w = wcur_of(wire, sizeof(wire));
    put_dir_reply(&w, &r);
    CHECK(!w.bad);
    CHECK(dusk_dir_reply_decode(bytes_of(wire, w.wrote), &none, &again));
    CHECK(again.answer == r.answer);
    CHECK(again.results_n == r.results_n);
    w2 = wcur_of(wire2, sizeof(wire2));
    put_dir_reply(&w2, &again);
    CHECK(bytes_eq(bytes_of(wire, w.wrote), bytes_of(wire2, w2.wrote)));
}

static void check_host(struct bytes host)
{
    static uint8_t texts[DUSK_CRED_ROOM];
    static const uint8_t key[42] = { 0x00, 0x24, 0x08, 0x01, 0x12, 0x20, 1 };
    struct wcur room = wcur_of(texts, sizeof(texts));
    struct peer_id peer;
    struct dusk_cred c;
    struct dusk_cred_ask ask = { bytes_str("s"), 1, &peer, host, 65535, 65535 };

    CHECK(peer_id_decode(bytes_of(key, 38), &peer));
    if (!dusk_cred_host_ok(host))
        return;
    dusk_cred_make(&ask, &room, &c);
    CHECK(!room.bad);
    CHECK(c.uris_n == 2);
}

static void try_cred(void)
{
    struct wcur room = fresh_room(source.n), none = wcur_of(joined, 0), w, w2;
    struct dusk_cred_req q, q2;
    struct dusk_cred c, c2;

    if (dusk_cred_req_decode(source, &room, &q)) {
        check_text(q.peer_id);
        w = wcur_of(wire, sizeof(wire));
        dusk_cred_req_put(&w, &q);
        CHECK(!w.bad);
        CHECK(dusk_cred_req_decode(bytes_of(wire, w.wrote), &none, &q2));
        CHECK(bytes_eq(q.peer_id, q2.peer_id));
    }
    room = fresh_room(source.n);
    if (!dusk_cred_decode(source, &room, &c))
        return;
    check_text(c.username);
    check_text(c.password);
    CHECK(c.uris_n <= DUSK_URIS_MAX);
    for (size_t i = 0; i < c.uris_n; i++) {
        check_text(c.uris[i]);
        check_host(c.uris[i]);
    }
    w = wcur_of(wire, sizeof(wire));
    dusk_cred_put(&w, &c);
    CHECK(!w.bad);
    CHECK(w.wrote <= source.n);
    CHECK(dusk_cred_decode(bytes_of(wire, w.wrote), &none, &c2));
    w2 = wcur_of(wire2, sizeof(wire2));
    dusk_cred_put(&w2, &c2);
    CHECK(bytes_eq(bytes_of(wire, w.wrote), bytes_of(wire2, w2.wrote)));
}

static void put_gifs(struct wcur *w, const struct dusk_gif_reply *r)
{
    dusk_gif_put_results(w, r->results_n);
    for (size_t i = 0; i < r->results_n; i++)
        dusk_gif_put(w, &r->results[i]);
}

static void try_gif(void)
{
    static struct dusk_gif_reply r, again;
    struct wcur room = fresh_room(source.n), none = wcur_of(joined, 0), w, w2;
    struct dusk_gif_req q, q2;

    if (dusk_gif_req_decode(source, &room, &q)) {
        check_text(q.kind);
        check_text(q.query);
        w = wcur_of(wire, sizeof(wire));
        dusk_gif_req_put(&w, &q);
        CHECK(!w.bad);
        CHECK(w.wrote <= source.n);
        CHECK(dusk_gif_req_decode(bytes_of(wire, w.wrote), &none, &q2));
        CHECK(bytes_eq(q.kind, q2.kind));
        CHECK(bytes_eq(q.query, q2.query));
        CHECK(q.limit == q2.limit);
    }
    room = fresh_room(source.n);
    if (!dusk_gif_reply_decode(source, &room, &r))
        return;
    CHECK(r.results_n <= DUSK_GIFS_MAX);
    w = wcur_of(wire, sizeof(wire));
    put_gifs(&w, &r);
    CHECK(!w.bad);
    CHECK(w.wrote <= source.n);
    CHECK(dusk_gif_reply_decode(bytes_of(wire, w.wrote), &none, &again));
    CHECK(again.results_n == r.results_n);
    w2 = wcur_of(wire2, sizeof(wire2));
    put_gifs(&w2, &again);
    CHECK(bytes_eq(bytes_of(wire, w.wrote), bytes_of(wire2, w2.wrote)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    source = bytes_of(data, min_sz(size, INPUT_MAX));
    try_dir_req();
    try_dir_reply();
    try_cred();
    try_gif();
    return 0;
}
