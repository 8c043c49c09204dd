#include "proto/dusk.h"

#include "proto/dusk_int.h"

static struct dusk_in in_of(struct bytes in, struct wcur *room)
{
    return (struct dusk_in){ .c = cur_of(in), .room = room };
}

static bool is(struct bytes name, const char *what)
{
    return bytes_eq(name, bytes_str(what));
}

static void put_pair(struct wcur *w, const char *key, struct bytes text)
{
    dusk_put_key(w, key);
    dusk_put_text(w, text);
}

/* ---- directory -------------------------------------------------------------------------------
 */

bool dusk_dir_req_decode(struct bytes wire, struct wcur *room, struct dusk_dir_req *r)
{
    struct dusk_in in = in_of(wire, room);
    struct dusk_dir_req q = { .relay_addr = bytes_str("") }; /* serde's default (§7) */
    const struct dusk_field reg[] = {
        { "display_name", dusk_read_text, &q.display_name, false },
        { "relay_addr", dusk_read_text, &q.relay_addr, true },
    };
    const struct dusk_field search[] = { { "query", dusk_read_text, &q.query, false } };
    struct bytes name;
    bool has_value;

    if (!dusk_read_variant(&in, &name, &has_value))
        return false;
    if (is(name, "Remove")) {
        q.call = DUSK_DIR_REMOVE;
        if (has_value && !dusk_skip(&in)) /* what stands for no value differs between encoders */
            return false;
    } else if (is(name, "Register")) {
        q.call = DUSK_DIR_REGISTER;
        if (!has_value || !dusk_read_struct(&in, reg, ARRAY_LEN(reg)))
            return false;
    } else if (is(name, "Search")) {
        q.call = DUSK_DIR_SEARCH;
        if (!has_value || !dusk_read_struct(&in, search, ARRAY_LEN(search)))
            return false;
    } else {
        return false;
    }
    *r = q;
    return true;
}

void dusk_dir_req_put(struct wcur *w, const struct dusk_dir_req *r)
{
    if (r->call == DUSK_DIR_REMOVE) {
        dusk_put_key(w, "Remove");
        return;
    }
    dusk_put_map(w, 1);
    if (r->call == DUSK_DIR_SEARCH) {
        dusk_put_key(w, "Search");
        dusk_put_map(w, 1);
        put_pair(w, "query", r->query);
        return;
    }
    ASSERT(r->call == DUSK_DIR_REGISTER);
    dusk_put_key(w, "Register");
    dusk_put_map(w, 2);
    put_pair(w, "display_name", r->display_name);
    put_pair(w, "relay_addr", r->relay_addr);
}

void dusk_dir_put_ok(struct wcur *w)
{
    dusk_put_key(w, "Ok");
}

void dusk_dir_put_error(struct wcur *w, struct bytes text)
{
    dusk_put_map(w, 1);
    put_pair(w, "Error", text);
}

void dusk_dir_put_results(struct wcur *w, size_t n)
{
    dusk_put_map(w, 1);
    dusk_put_key(w, "Results");
    dusk_put_array(w, n);
}

void dusk_dir_put_profile(struct wcur *w, const struct dusk_profile *p)
{
    dusk_put_map(w, 4);
    put_pair(w, "peer_id", p->peer_id);
    put_pair(w, "display_name", p->display_name);
    dusk_put_key(w, "last_seen");
    dusk_put_uint(w, p->last_seen_unix_s);
    put_pair(w, "relay_addr", p->relay_addr);
}

static bool read_profile(struct dusk_in *in, size_t i, void *to)
{
    struct dusk_profile *p = (struct dusk_profile *)to + i;
    const struct dusk_field fields[] = {
        { "peer_id", dusk_read_text, &p->peer_id, false },
        { "display_name", dusk_read_text, &p->display_name, false },
        { "last_seen", dusk_read_u64, &p->last_seen_unix_s, false },
        { "relay_addr", dusk_read_text, &p->relay_addr, true }, /* R1 has none */
    };

    p->relay_addr = bytes_str("");
    return dusk_read_struct(in, fields, ARRAY_LEN(fields));
}

bool dusk_dir_reply_decode(struct bytes wire, struct wcur *room, struct dusk_dir_reply *r)
{
    struct dusk_in in = in_of(wire, room);
    struct bytes name;
    bool has_value;

    r->error = bytes_str("");
    r->results_n = 0;
    if (!dusk_read_variant(&in, &name, &has_value))
        return false;
    if (is(name, "Ok")) {
        r->answer = DUSK_DIR_OK;
        return !has_value || dusk_skip(&in);
    }
    if (is(name, "Results")) {
        r->answer = DUSK_DIR_RESULTS;
        return has_value &&
               dusk_read_array(&in, read_profile, r->results, DUSK_RESULTS_MAX, &r->results_n);
    }
    r->answer = DUSK_DIR_ERROR;
    return is(name, "Error") && has_value && dusk_read_text(&in, &r->error);
}

/* ---- TURN credentials ------------------------------------------------------------------------
 */

bool dusk_cred_req_decode(struct bytes wire, struct wcur *room, struct dusk_cred_req *r)
{
    struct dusk_in in = in_of(wire, room);
    struct dusk_cred_req q;
    const struct dusk_field fields[] = { { "peer_id", dusk_read_text, &q.peer_id, false } };

    if (!dusk_read_struct(&in, fields, ARRAY_LEN(fields)))
        return false;
    *r = q;
    return true;
}

void dusk_cred_req_put(struct wcur *w, const struct dusk_cred_req *r)
{
    dusk_put_map(w, 1);
    put_pair(w, "peer_id", r->peer_id);
}

void dusk_cred_put(struct wcur *w, const struct dusk_cred *c)
{
    dusk_put_map(w, 4);
    put_pair(w, "username", c->username);
    put_pair(w, "password", c->password);
    dusk_put_key(w, "ttl");
    dusk_put_uint(w, c->ttl_s);
    dusk_put_key(w, "uris");
    dusk_put_array(w, c->uris_n);
    for (size_t i = 0; i < c->uris_n; i++)
        dusk_put_text(w, c->uris[i]);
}

static bool read_uri(struct dusk_in *in, size_t i, void *to)
{
    return dusk_read_text(in, (struct bytes *)to + i);
}

static bool read_uris(struct dusk_in *in, void *to)
{
    struct dusk_cred *c = to;

    return dusk_read_array(in, read_uri, c->uris, DUSK_URIS_MAX, &c->uris_n);
}

bool dusk_cred_decode(struct bytes wire, struct wcur *room, struct dusk_cred *c)
{
    struct dusk_in in = in_of(wire, room);
    struct dusk_cred got;
    const struct dusk_field fields[] = {
        { "username", dusk_read_text, &got.username, false },
        { "password", dusk_read_text, &got.password, false },
        { "ttl", dusk_read_u64, &got.ttl_s, false },
        { "uris", read_uris, &got, false },
    };

    if (!dusk_read_struct(&in, fields, ARRAY_LEN(fields)))
        return false;
    *c = got;
    return true;
}

/* ---- gif -------------------------------------------------------------------------------------
 */

bool dusk_gif_req_decode(struct bytes wire, struct wcur *room, struct dusk_gif_req *r)
{
    struct dusk_in in = in_of(wire, room);
    struct dusk_gif_req q;
    const struct dusk_field fields[] = {
        { "kind", dusk_read_text, &q.kind, false },
        { "query", dusk_read_text, &q.query, false },
        { "limit", dusk_read_u32, &q.limit, false },
    };

    if (!dusk_read_struct(&in, fields, ARRAY_LEN(fields)))
        return false;
    *r = q;
    return true;
}

void dusk_gif_req_put(struct wcur *w, const struct dusk_gif_req *r)
{
    dusk_put_map(w, 3);
    put_pair(w, "kind", r->kind);
    put_pair(w, "query", r->query);
    dusk_put_key(w, "limit");
    dusk_put_uint(w, r->limit);
}

void dusk_gif_put_results(struct wcur *w, size_t n)
{
    dusk_put_map(w, 1);
    dusk_put_key(w, "results");
    dusk_put_array(w, n);
}

void dusk_gif_put(struct wcur *w, const struct dusk_gif *g)
{
    dusk_put_map(w, 5);
    put_pair(w, "id", g->id);
    put_pair(w, "title", g->title);
    put_pair(w, "url", g->url);
    put_pair(w, "preview", g->preview);
    dusk_put_key(w, "dims");
    dusk_put_array(w, ARRAY_LEN(g->dims));
    for (size_t i = 0; i < ARRAY_LEN(g->dims); i++)
        dusk_put_uint(w, g->dims[i]);
}

static bool read_dim(struct dusk_in *in, size_t i, void *to)
{
    return dusk_read_u32(in, (uint32_t *)to + i);
}

static bool read_dims(struct dusk_in *in, void *to)
{
    size_t n;

    return dusk_read_array(in, read_dim, to, 2, &n) && n == 2;
}

static bool read_gif(struct dusk_in *in, size_t i, void *to)
{
    struct dusk_gif *g = (struct dusk_gif *)to + i;
    const struct dusk_field fields[] = {
        { "id", dusk_read_text, &g->id, false },
        { "title", dusk_read_text, &g->title, false },
        { "url", dusk_read_text, &g->url, false },
        { "preview", dusk_read_text, &g->preview, false },
        { "dims", read_dims, g->dims, false },
    };

    return dusk_read_struct(in, fields, ARRAY_LEN(fields));
}

static bool read_gifs(struct dusk_in *in, void *to)
{
    struct dusk_gif_reply *r = to;

    return dusk_read_array(in, read_gif, r->results, DUSK_GIFS_MAX, &r->results_n);
}

bool dusk_gif_reply_decode(struct bytes wire, struct wcur *room, struct dusk_gif_reply *r)
{
    struct dusk_in in = in_of(wire, room);
    const struct dusk_field fields[] = { { "results", read_gifs, r, false } };

    return dusk_read_struct(&in, fields, ARRAY_LEN(fields));
}
