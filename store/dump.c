/* Records as lines that a person reads. Of secrets, keys and envelopes only the length: what a line
 * shows ends up in tickets and chats. */
#include "store/schema.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

enum { LINE = 4096, TEXT = 1100 };

struct dump {
    store_line_fn *fn;
    void *ctx;
    char line[LINE];
};

/* Text that a peer chose: a control character or a byte that is no ASCII shows as \xHH. Cut at cap.
 */
static const char *shown(struct bytes b, char *text, size_t cap)
{
    size_t n = 0;

    for (size_t i = 0; i < b.n && n + 5 < cap; i++) {
        uint8_t c = b.p[i];

        if (c < 0x20 || c >= 0x7f || c == '\\' || c == '"')
            n += (size_t)snprintf(text + n, cap - n, "\\x%02x", c);
        else
            text[n++] = (char)c;
    }
    text[n] = '\0';
    return text;
}

static const char *hex(struct bytes b, char *text, size_t cap)
{
    text[0] = '\0';
    for (size_t i = 0; i < b.n && 2 * i + 3 <= cap; i++)
        snprintf(text + 2 * i, 3, "%02x", b.p[i]);
    return text;
}

static void line_reg(struct dump *d, struct bytes key, struct bytes value)
{
    char peer[PEER_TEXT_MAX], ns[TEXT];
    struct store_reg r;

    if (!open_reg(key, value, &r)) {
        snprintf(d->line, LINE, "registration not sound, %zu bytes", value.n);
        return;
    }
    peer_id_text(&r.peer, peer);
    snprintf(d->line, LINE,
             "registration %" PRIu64 " peer %s namespace \"%s\" ttl %u expires %" PRIu64
             " record-seq %" PRIu64 " tag %u envelope %zu bytes",
             r.seq, peer, shown(r.ns, ns, sizeof(ns)), r.ttl_s, r.expires_unix_s, r.record_seq,
             r.tag, r.envelope.n);
}

static void line_profile(struct dump *d, struct bytes key, struct bytes value)
{
    char peer[PEER_TEXT_MAX], name[TEXT], addr[TEXT];
    struct store_profile p;

    if (!open_profile(key, value, &p)) {
        snprintf(d->line, LINE, "profile not sound, %zu bytes", value.n);
        return;
    }
    peer_id_text(&p.peer, peer);
    snprintf(d->line, LINE,
             "profile peer %s name \"%s\" relay_addr \"%s\" registered %" PRIu64
             " last-seen %" PRIu64,
             peer, shown(p.display_name, name, sizeof(name)),
             shown(p.relay_addr, addr, sizeof(addr)), p.registered_unix_s, p.last_seen_unix_s);
}

static void line_secret(struct dump *d, struct bytes key, struct bytes value)
{
    char name[TEXT];
    struct bytes secret;

    if (open_secret(key, value, &secret))
        snprintf(d->line, LINE, "secret %s %zu bytes", shown(key, name, sizeof(name)), secret.n);
    else
        snprintf(d->line, LINE, "secret %s not sound", shown(key, name, sizeof(name)));
}

static void line_turn(struct dump *d, struct bytes key, struct bytes value)
{
    char name[TEXT], realm[TEXT];
    struct store_turn_user u;

    if (open_turn(key, value, &u))
        snprintf(d->line, LINE, "turn-user \"%s\" realm \"%s\"", shown(u.name, name, sizeof(name)),
                 shown(u.realm, realm, sizeof(realm)));
    else
        snprintf(d->line, LINE, "turn-user not sound, %zu bytes", value.n);
}

static void line_ban(struct dump *d, struct bytes key, struct bytes value)
{
    char text[2 * STORE_BAN_KEY_MAX + 1];
    struct store_ban b;

    if (!open_ban(key, value, &b))
        snprintf(d->line, LINE, "ban not sound, %zu bytes", value.n);
    else if (b.until_unix_s == STORE_FOREVER)
        snprintf(d->line, LINE, "ban kind %u key %s for good", b.kind,
                 hex(b.key, text, sizeof(text)));
    else
        snprintf(d->line, LINE, "ban kind %u key %s until %" PRIu64, b.kind,
                 hex(b.key, text, sizeof(text)), b.until_unix_s);
}

static void line_usage(struct dump *d, struct bytes key, struct bytes value)
{
    char peer[PEER_TEXT_MAX] = "others";
    struct store_usage u;
    uint32_t day, rows;

    if (!open_usage(key, value, &day, &u, &rows)) {
        snprintf(d->line, LINE, "usage not sound, %zu bytes", value.n);
        return;
    }
    if (u.peer.n)
        peer_id_text(&u.peer, peer);
    snprintf(d->line, LINE,
             "usage day %u peer %s in %" PRIu64 " out %" PRIu64 " circuits %" PRIu64
             " connected %" PRIu64 " s",
             day, peer, u.in_bytes, u.out_bytes, u.circuits, u.connected_s);
}

static int each(struct store *s, struct dump *d, enum tree tree,
                void (*line)(struct dump *d, struct bytes key, struct bytes value))
{
    struct db_cur c;
    int rc = cur_open(s, s->r, tree, &c);

    if (rc)
        return rc;
    for (rc = cur_from(&c, (struct bytes){ 0 }); !rc; rc = cur_next(&c)) {
        line(d, c.key, c.value);
        d->fn(d->ctx, d->line);
    }
    cur_close(&c);
    return rc == -ENOENT ? 0 : rc;
}

int store_dump(struct store *s, store_line_fn *fn, void *ctx)
{
    static const struct {
        enum tree tree;
        void (*line)(struct dump *d, struct bytes key, struct bytes value);
    } trees[] = {
        { T_REG, line_reg },   { T_PROFILE, line_profile }, { T_SECRET, line_secret },
        { T_TURN, line_turn }, { T_BAN, line_ban },         { T_USAGE, line_usage },
    };
    struct dump d = { .fn = fn, .ctx = ctx };
    uint64_t next = 0, namespaces = 0;
    int rc = read_begin(s);

    if (rc)
        return rc;
    rc = schema_get_counts(s, &next, &namespaces);
    snprintf(d.line, LINE, "schema %d next %" PRIu64 " namespaces %" PRIu64, STORE_SCHEMA, next,
             namespaces);
    fn(ctx, d.line);
    for (size_t i = 0; !rc && i < ARRAY_LEN(trees); i++)
        rc = each(s, &d, trees[i].tree, trees[i].line);
    read_end(s);
    return rc;
}
