/* engine/admin.c: what sluicectl is told. One request line per connection, as words (`drain 5`) or
 * as a flat JSON object ({"cmd":"drain","secs":5}); the answer is JSON, one object per line, the
 * last of them {"ok":true,...} or {"ok":false,"error":"..."}. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/metrics.h"
#include "engine/ops_int.h"
#include "proto/crypto.h"

enum { CREDENTIALS_TTL_S = 86400 };

static struct jw line_of(struct opsconn *c)
{
    struct jw j = jw_of(c->out + c->out_n, c->out_cap - c->out_n);

    jw_open(&j, '{');
    return j;
}

/* false: it did not fit, nothing was added. */
static bool line_end(struct opsconn *c, struct jw *j)
{
    jw_close(j, '}');
    if (j->bad || j->n + 1 > c->out_cap - c->out_n)
        return false;
    c->out[c->out_n + j->n] = '\n';
    c->out_n += j->n + 1;
    return true;
}

static void finish(struct opsdoor *d, struct opsconn *c, struct jw *j)
{
    bool fits = line_end(c, j);

    ASSERT(fits); /* OPS_ADMIN_OUT_BYTES holds a page and a last line */
    opsconn_send(d, c, true);
}

static void refuse(struct opsdoor *d, struct opsconn *c, const char *error)
{
    struct jw j = line_of(c);

    jw_kbool(&j, "ok", false);
    jw_kstr(&j, "error", error);
    finish(d, c, &j);
}

/* ---- requests ------------------------------------------------------------------------------ */

struct request {
    char cmd[32];
    char arg[JSON_TEXT_MAX], arg2[JSON_TEXT_MAX]; /* empty: none */
    bool too_many;
};

static bool decode_arg(char **save, char out[JSON_TEXT_MAX])
{
    const char *word = strtok_r(NULL, " \t\r\n", save);

    if (word && strlen(word) >= JSON_TEXT_MAX)
        return false;
    snprintf(out, JSON_TEXT_MAX, "%s", word ? word : "");
    return true;
}

static bool decode_words(struct bytes in, struct request *q)
{
    char line[OPS_REQUEST_MAX], *save = NULL, *word;

    if (in.n >= sizeof(line) || memchr(in.p, '\0', in.n))
        return false;
    memcpy(line, in.p, in.n);
    line[in.n] = '\0';
    word = strtok_r(line, " \t\r\n", &save);
    if (!word || strlen(word) >= sizeof(q->cmd))
        return false;
    snprintf(q->cmd, sizeof(q->cmd), "%s", word);
    if (!decode_arg(&save, q->arg) || !decode_arg(&save, q->arg2))
        return false;
    q->too_many = q->arg2[0] && strtok_r(NULL, " \t\r\n", &save);
    return true;
}

/* secs, level, name: one argument, whatever it is called; ttl is the second. */
static bool decode_json(struct bytes in, struct request *q)
{
    struct json_flat o;
    const char *cmd, *arg = NULL, *ttl;
    unsigned known;

    if (!json_flat_decode(in, &o))
        return false;
    cmd = json_flat_get(&o, "cmd");
    ttl = json_flat_get(&o, "ttl");
    for (unsigned i = 0; i < o.n && !arg; i++)
        if (strcmp(o.field[i].key, "cmd") != 0 && strcmp(o.field[i].key, "ttl") != 0)
            arg = o.field[i].text;
    if (!cmd || strlen(cmd) >= sizeof(q->cmd))
        return false;
    snprintf(q->cmd, sizeof(q->cmd), "%s", cmd);
    snprintf(q->arg, sizeof(q->arg), "%s", arg ? arg : "");
    snprintf(q->arg2, sizeof(q->arg2), "%s", ttl ? ttl : "");
    known = 1u + (arg != NULL) + (ttl != NULL);
    q->too_many = o.n > known;
    return true;
}

static void do_status(struct opsdoor *d, struct opsconn *c, const struct request *q)
{
    struct ops_status s;
    struct jw j = line_of(c);

    (void)q;
    d->ops->status(d->ops->ctx, &s);
    jw_kbool(&j, "ok", true);
    metrics_json(&s, &j);
    jw_kstr(&j, "log_level", config_level_name(log_level_of(d->ops->log)));
    jw_ku64(&j, "log_lines_lost", log_lost(d->ops->log));
    finish(d, c, &j);
}

static bool seconds_of(const char *text, uint32_t max, uint32_t *out)
{
    unsigned long v;
    char *end;

    if (text[0] < '0' || text[0] > '9')
        return false;
    v = strtoul(text, &end, 10);
    if (*end || v > max)
        return false;
    *out = (uint32_t)v;
    return true;
}

static void do_drain(struct opsdoor *d, struct opsconn *c, const struct request *q)
{
    uint32_t secs = d->cfg->drain_s;
    struct jw j;

    if (q->arg[0] && !seconds_of(q->arg, 86400, &secs)) {
        refuse(d, c, "drain: accepted is a whole number of seconds from 0 to 86400");
        return;
    }
    d->ops->drain(d->ops->ctx, secs);
    j = line_of(c);
    jw_kbool(&j, "ok", true);
    jw_ku64(&j, "drain_seconds", secs);
    finish(d, c, &j);
}

static void do_log_level(struct opsdoor *d, struct opsconn *c, const struct request *q)
{
    enum log_level level = log_level_of(d->ops->log);
    struct jw j;

    if (q->arg[0] && !config_level_parse(q->arg, &level)) {
        refuse(d, c, "log-level: accepted is one of error, warn, info, debug, trace");
        return;
    }
    if (q->arg[0]) {
        log_set_level(d->ops->log, level);
        log_text(d->log, LOG_WARN, "log level is now %s", config_level_name(level));
    }
    j = line_of(c);
    jw_kbool(&j, "ok", true);
    jw_kstr(&j, "log_level", config_level_name(level));
    finish(d, c, &j);
}

static void do_reload(struct opsdoor *d, struct opsconn *c, const struct request *q)
{
    char why[256] = "";
    struct jw j;

    (void)q;
    if (d->ops->reload(d->ops->ctx, why, sizeof(why))) {
        refuse(d, c, why[0] ? why : "reload failed; nothing changed");
        return;
    }
    j = line_of(c);
    jw_kbool(&j, "ok", true);
    finish(d, c, &j);
}

/* Whoever may open this socket runs the daemon, whose secret this comes from. Nothing of it is
 * logged, here or anywhere. "-" is no name, so that a time can follow. */
static void do_credentials(struct opsdoor *d, struct opsconn *c, const struct request *q)
{
    uint32_t ttl_s = CREDENTIALS_TTL_S;
    struct ops_cred cred;
    char why[256] = "";
    struct jw j;

    if (q->arg2[0] && !seconds_of(q->arg2, OPS_CRED_TTL_MAX, &ttl_s)) {
        refuse(d, c, "turn-credentials: the time is a whole number of seconds, a year at most");
        return;
    }
    if (!d->ops->turn_credentials) {
        refuse(d, c, "turn-credentials: there is no TURN here");
        return;
    }
    if (d->ops->turn_credentials(d->ops->ctx, strcmp(q->arg, "-") == 0 ? "" : q->arg, ttl_s, &cred,
                                 why, sizeof(why))) {
        refuse(d, c, why);
        return;
    }
    j = line_of(c);
    jw_kbool(&j, "ok", true);
    jw_kstr(&j, "username", cred.username);
    jw_kstr(&j, "password", cred.password);
    jw_ku64(&j, "ttl", cred.ttl_s);
    jw_key(&j, "uris");
    jw_open(&j, '[');
    for (unsigned i = 0; i < cred.uris_n; i++)
        jw_str(&j, cred.uris[i]);
    jw_close(&j, ']');
    crypto_wipe(&cred, sizeof(cred));
    finish(d, c, &j);
}

/* ---- listings ------------------------------------------------------------------------------ */

static void put_peer(struct jw *j, const char *key, const struct peer_id *id)
{
    char text[PEER_TEXT_MAX] = "";

    if (id->n)
        peer_id_text(id, text);
    jw_kstr(j, key, text);
}

static void put_conn(struct jw *j, const struct snap_conn *r)
{
    /* enum conn_state */
    static const char *const states[] = { "proxy", "sniff", "security", "noise",
                                          "muxer", "open",  "flush",    "closed" };
    char remote[NETADDR_TEXT_MAX];

    netaddr_text(&r->remote, remote);
    put_peer(j, "peer", &r->peer);
    jw_kstr(j, "remote", remote);
    jw_ku64(j, "shard", r->shard);
    jw_kstr(j, "state", r->state < ARRAY_LEN(states) ? states[r->state] : "?");
    jw_kbool(j, "reserved", r->reserved);
    jw_ku64(j, "streams", r->streams);
    jw_ku64(j, "age_seconds", r->age_ms / 1000);
    jw_ku64(j, "rx_bytes", r->rx_bytes);
    jw_ku64(j, "tx_bytes", r->tx_bytes);
    jw_ku64(j, "queued_bytes", r->tx_queued);
}

static void put_circuit(struct jw *j, const struct snap_circuit *r)
{
    static const char *const states[] = { "opening", "open", "closing" }; /* enum circuit_state */

    jw_ku64(j, "id", r->id);
    jw_kstr(j, "state", r->state < ARRAY_LEN(states) ? states[r->state] : "?");
    put_peer(j, "src", &r->source);
    put_peer(j, "dst", &r->target);
    jw_ku64(j, "src_shard", r->shard[0]);
    jw_ku64(j, "dst_shard", r->shard[1]);
    jw_ku64(j, "bytes_src_to_dst", r->bytes[0]);
    jw_ku64(j, "bytes_dst_to_src", r->bytes[1]);
    jw_ku64(j, "age_seconds", r->age_ms / 1000);
}

static void put_alloc(struct jw *j, const struct snap_alloc *r)
{
    static const char *const transports[] = { "udp", "tcp", "tls", "dtls" }; /* turn_transport */
    char addr[NETADDR_TEXT_MAX];

    netaddr_text(&r->client, addr);
    jw_kstr(j, "user", r->user);
    jw_kstr(j, "client", addr);
    jw_kstr(j, "transport", r->transport < ARRAY_LEN(transports) ? transports[r->transport] : "?");
    jw_key(j, "relayed");
    jw_open(j, '[');
    for (unsigned i = 0; i < r->relayed_n; i++) {
        netaddr_text(&r->relayed[i], addr);
        jw_str(j, addr);
    }
    jw_close(j, ']');
    jw_kstr(j, "relays", r->tcp ? "tcp" : "udp");
    jw_kbool(j, "away", r->away);
    jw_ku64(j, "shard", r->shard);
    jw_ku64(j, "age_seconds", r->age_ms / 1000);
    jw_ku64(j, "expires_seconds", (r->left_ms + 999) / 1000);
    jw_ku64(j, "permissions", r->permissions);
    jw_ku64(j, "channels", r->channels);
    jw_ku64(j, "connections", r->connections);
    jw_ku64(j, "datagrams_from_client", r->datagrams[0]);
    jw_ku64(j, "datagrams_to_client", r->datagrams[1]);
    jw_ku64(j, "bytes_from_client", r->bytes[0]);
    jw_ku64(j, "bytes_to_client", r->bytes[1]);
}

/* Where one is, is not told to operators who asked for masks. */
static void put_dig(struct jw *j, const struct snap_dig *r)
{
    char observed[NETADDR_TEXT_MAX] = "";

    if (!r->masked)
        netaddr_text(&r->observed, observed);
    jw_kstr(j, "peer_id", r->id);
    jw_kstr(j, "network_id", r->net);
    jw_kstr(j, "observed", observed);
    jw_ku64(j, "protocol_version", r->version);
    jw_kbool(j, "tls", r->tls);
    jw_kbool(j, "verified", r->verified);
    jw_ku64(j, "shard", r->shard);
    jw_ku64(j, "connected_at", r->connected_unix_s);
    jw_ku64(j, "last_seen", r->seen_unix_s);
    jw_ku64(j, "rx_bytes", r->rx_bytes);
    jw_ku64(j, "queued_bytes", r->queued_bytes);
}

static void put_row(struct jw *j, const struct snap *s, unsigned i)
{
    switch (s->kind) {
    case SNAP_CONNS:
        put_conn(j, &s->conn[i]);
        break;
    case SNAP_CIRCUITS:
        put_circuit(j, &s->circuit[i]);
        break;
    case SNAP_ALLOCATIONS:
        put_alloc(j, &s->alloc[i]);
        break;
    case SNAP_DIG:
        put_dig(j, &s->dig[i]);
        break;
    }
}

/* Rows that do not fit any more: only without list_more, where pages come whether we can or not. */
static bool put_rows(struct opsconn *c, const struct snap *s)
{
    for (unsigned i = 0; i < s->rows; i++) {
        struct jw j;

        if (c->out_cap - c->out_n < 2 * OPS_ROW_MAX) /* room for this row and a last line */
            return false;
        j = line_of(c);
        put_row(&j, s, i);
        if (!line_end(c, &j))
            return false;
        c->rows++;
    }
    return true;
}

static void on_page(void *arg, uint32_t owner_id, const struct snap *s)
{
    struct opsdoor *d = arg;
    uint32_t idx = owner_id & 0xff;
    struct opsconn *c = idx < OPS_SLOTS ? &d->conn[idx] : NULL;
    bool fits, sending;

    if (!c || !c->listing || opsconn_owner(c) != owner_id)
        return;
    sending = c->state == OC_SENDING;
    fits = put_rows(c, s);
    if (s->end || !fits) {
        struct jw j = line_of(c);

        if (!s->end)
            d->ops->list_cancel(d->ops->ctx, owner_id);
        c->listing = false;
        jw_kbool(&j, "ok", fits);
        if (!fits)
            jw_kstr(&j, "error", "the list was read too slowly and is cut here");
        jw_ku64(&j, "rows", c->rows);
        fits = line_end(c, &j);
        ASSERT(fits);
        c->last = true;
    }
    if (sending)
        return; /* on_sent finds more to send, and then the end */
    if (c->out_n == 0)
        admin_on_sent(d, c); /* an empty page of a shard without rows */
    else
        opsconn_send(d, c, c->last);
}

void admin_on_sent(struct opsdoor *d, struct opsconn *c)
{
    c->state = OC_LISTING;
    if (c->listing && d->ops->list_more)
        d->ops->list_more(d->ops->ctx, opsconn_owner(c));
}

static void do_list(struct opsdoor *d, struct opsconn *c, enum snap_kind kind)
{
    c->listing = true;
    c->state = OC_LISTING;
    if (d->ops->list(d->ops->ctx, kind, opsconn_owner(c), on_page, d)) {
        c->listing = false;
        refuse(d, c, "too many lists are under way: try again");
    }
}

static void do_conns(struct opsdoor *d, struct opsconn *c, const struct request *q)
{
    (void)q;
    do_list(d, c, SNAP_CONNS);
}

static void do_circuits(struct opsdoor *d, struct opsconn *c, const struct request *q)
{
    (void)q;
    do_list(d, c, SNAP_CIRCUITS);
}

static void do_allocations(struct opsdoor *d, struct opsconn *c, const struct request *q)
{
    (void)q;
    do_list(d, c, SNAP_ALLOCATIONS);
}

static void do_dig(struct opsdoor *d, struct opsconn *c, const struct request *q)
{
    (void)q;
    do_list(d, c, SNAP_DIG);
}

static const struct command {
    const char *name;
    unsigned args;
    void (*run)(struct opsdoor *d, struct opsconn *c, const struct request *q);
} commands[] = {
    { "status", 0, do_status },     { "conns", 0, do_conns },
    { "circuits", 0, do_circuits }, { "allocations", 0, do_allocations },
    { "dig", 0, do_dig },           { "turn-credentials", 2, do_credentials },
    { "drain", 1, do_drain },       { "log-level", 1, do_log_level },
    { "reload", 0, do_reload },
};

static void run(struct opsdoor *d, struct opsconn *c, struct bytes line)
{
    struct request q = { 0 };

    if (!(line.n && line.p[0] == '{' ? decode_json(line, &q) : decode_words(line, &q))) {
        refuse(d, c, "not understood: one line, words or a flat JSON object with cmd");
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        if (strcmp(q.cmd, commands[i].name) != 0)
            continue;
        if (q.too_many || (q.arg[0] && commands[i].args < 1) || (q.arg2[0] && commands[i].args < 2))
            refuse(d, c, "too many arguments");
        else
            commands[i].run(d, c, &q);
        return;
    }
    refuse(d, c,
           "unknown command: status, conns, circuits, allocations, turn-credentials [NAME [SECS]], "
           "drain [SECS], log-level [LEVEL], reload");
}

void admin_on_input(struct opsdoor *d, struct opsconn *c, bool eof)
{
    const uint8_t *lf = c->in_n ? memchr(c->in, '\n', c->in_n) : NULL;

    if (lf || (eof && c->in_n))
        run(d, c, bytes_of(c->in, lf ? (size_t)(lf - c->in) : min_sz(c->in_n, OPS_REQUEST_MAX)));
    else if (c->in_n >= OPS_REQUEST_MAX)
        refuse(d, c, "a request is one line of at most 1024 bytes");
}

/* ---- the socket ---------------------------------------------------------------------------- */

/* A path longer than sun_path is reached through a descriptor of its directory. */
static int address_of(const char *path, struct sockaddr_un *a, int *dir)
{
    const char *slash = strrchr(path, '/');
    char parent[CONFIG_PATH_MAX];

    *a = (struct sockaddr_un){ .sun_family = AF_UNIX };
    *dir = -1;
    if (strlen(path) < sizeof(a->sun_path)) {
        memcpy(a->sun_path, path, strlen(path) + 1);
        return 0;
    }
    if (!slash || strlen(slash) > 64)
        return -ENAMETOOLONG;
    snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
    *dir = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*dir < 0)
        return -errno;
    snprintf(a->sun_path, sizeof(a->sun_path), "/proc/self/fd/%d%.64s", *dir, slash);
    return 0;
}

/* What a crash left behind is removed; a socket that somebody answers is not. */
static int bind_socket(int fd, const struct sockaddr_un *a, const char *path)
{
    struct stat st;
    int probe, alive;

    if (bind(fd, (const struct sockaddr *)(const void *)a, sizeof(*a)) == 0)
        return 0;
    if (errno != EADDRINUSE)
        return -errno;
    if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return -EADDRINUSE;
    probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0)
        return -errno;
    alive = connect(probe, (const struct sockaddr *)(const void *)a, sizeof(*a)) == 0 ||
            errno == EAGAIN;
    close(probe);
    if (alive)
        return -EADDRINUSE;
    if (unlink(path) < 0)
        return -errno;
    return bind(fd, (const struct sockaddr *)(const void *)a, sizeof(*a)) < 0 ? -errno : 0;
}

int admin_listen(const char *path, char *why, size_t cap)
{
    struct sockaddr_un a;
    int dir = -1, err, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        err = -errno;
    else
        err = address_of(path, &a, &dir);
    /* The mode of an unbound socket is the mode that bind gives the file: private from the start.
     */
    if (!err && fchmod(fd, 0600) < 0)
        err = -errno;
    if (!err)
        err = bind_socket(fd, &a, path);
    if (!err && listen(fd, OPS_ADMIN_MAX) < 0)
        err = -errno;
    if (dir >= 0)
        close(dir);
    if (!err)
        return fd;
    snprintf(why, cap, "admin socket %s (--control): %s", path, strerror(-err));
    if (fd >= 0)
        close(fd);
    return err;
}
