/* tests/sim/sim_flow.c: flows that prove themselves, and what may excuse one that did not arrive.
 */
#include "tests/sim/sim_peer.h"

#include <stdlib.h>

enum {
    KEY_BYTES = 8,
    PLAIN_HIGH = 65536, /* unsealed bytes of a connection: above, its flows wait */
};

/* Byte i of the flow is byte i % 8 of word i / 8. Word 0 is the key itself. */
static uint64_t word_of(uint64_t key, uint64_t i)
{
    uint64_t z = key + i * 0x9e3779b97f4a7c15u;

    if (i == 0)
        return key;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    return z ^ z >> 27;
}

static void fill(uint64_t key, uint64_t from, uint8_t *at, size_t n)
{
    while (n > 0) {
        uint64_t word = word_of(key, from / 8);
        size_t skip = from % 8, k = min_sz(n, 8 - skip);
        uint8_t b[8];

        put_u64(b, word);
        memcpy(at, b + skip, k);
        from += k;
        at += k;
        n -= k;
    }
}

/* Where the first difference lies; n: nowhere. */
static size_t differs(uint64_t key, uint64_t from, const uint8_t *at, size_t n)
{
    uint8_t want[512];

    for (size_t done = 0; done < n;) {
        size_t k = min_sz(n - done, sizeof(want));

        fill(key, from + done, want, k);
        if (memcmp(want, at + done, k) != 0) {
            while (want[done % sizeof(want)] == at[done])
                done++;
            return done;
        }
        done += k;
    }
    return n;
}

struct sim_flow *sim_flow_start(struct sim_stream *st, uint64_t total, size_t frame_max, bool fin)
{
    struct sim *s = st->conn->s;
    struct sim_flow *f = calloc(1, sizeof(*f));

    ASSERT(f != NULL);
    ASSERT(total == 0 || total >= KEY_BYTES);
    ASSERT(st->joined || st->kind == SS_CONNECT); /* who calls may speak before the answer */
    ASSERT(st->tx == NULL);
    f->key = sim_below(s->net, UINT64_MAX) | 1;
    f->from = st;
    f->total = total;
    f->frame_max = frame_max;
    f->fin = fin;
    st->tx = f;
    if (s->flows_n == s->flows_cap) {
        s->flows_cap = s->flows_cap ? s->flows_cap * 2 : 64;
        s->flows = realloc(s->flows, s->flows_cap * sizeof(struct sim_flow *));
        ASSERT(s->flows != NULL);
    }
    s->flows[s->flows_n++] = f;
    return f;
}

void sim_flow_pump(struct sim_stream *st)
{
    struct sim_flow *f = st->tx;
    struct sim_conn *c = st->conn;

    while (f != NULL && st->live && !st->y.tx_fin && c->plain.n < PLAIN_HIGH) {
        size_t n = min_sz(min_sz((size_t)(f->total - f->sent), f->frame_max), st->y.send_credit);
        bool fin = f->fin && f->sent + n == f->total;
        uint8_t head[YAMUX_HEADER];

        if (n == 0 && !fin)
            return;
        yamux_put_data(&st->y, head, (uint32_t)n, fin ? YAMUX_FIN : 0);
        sim_put_plain(c, bytes_of(head, sizeof(head)));
        fill(f->key, f->sent, sim_queue_room(&c->plain, n), n);
        c->plain.n += n;
        f->sent += n;
        f->fin_sent = fin;
        if (fin && st->y.rx_fin) {
            st->live = false;
            st->ended_ms = sim_now(c->s);
            yamux_detach(&st->y);
        }
    }
}

/* The key is complete: whose flow is this, and may it be here? */
static void claim(struct sim_stream *st)
{
    struct sim *s = st->conn->s;
    struct cur c = cur_of(bytes_of(st->rx_head, KEY_BYTES));
    uint64_t key = cur_u64(&c);
    struct sim_flow *f = NULL;

    for (size_t i = s->flows_n; i-- > 0 && f == NULL;)
        if (s->flows[i]->key == key)
            f = s->flows[i];
    if (f == NULL) {
        sim_break(s, "a stream begins with bytes that nobody sent");
        return;
    }
    st->rx = f;
    f->got = KEY_BYTES;
    if (f->to != NULL)
        sim_break(s, "a flow arrives on two circuits");
    else if (!peer_id_eq(&f->from->conn->ident->me.id, &st->other) ||
             !peer_id_eq(&f->from->other, &st->conn->ident->me.id) || f->from->kind == st->kind)
        sim_break(s, "a flow arrives where it was not sent");
    else if (st->tx != NULL && st->tx->to != NULL && st->tx->to != f->from)
        sim_break(s, "the two directions of a circuit end at different streams");
    f->to = st;
}

void sim_flow_on_data(struct sim_stream *st, struct bytes data)
{
    struct sim *s = st->conn->s;
    struct sim_flow *f;
    size_t at;

    while (st->rx == NULL && data.n > 0) {
        st->rx_head[st->rx_head_n++] = data.p[0];
        data.p++;
        data.n--;
        if (st->rx_head_n < KEY_BYTES)
            continue;
        claim(st);
        if (st->rx == NULL)
            return;
    }
    f = st->rx;
    if (f == NULL || data.n == 0)
        return;
    if (f->fin_got)
        sim_break(s, "bytes behind FIN");
    if (data.n > f->sent - f->got)
        sim_break(s, "%zu bytes more than were sent", (size_t)(data.n - (f->sent - f->got)));
    at = differs(f->key, f->got, data.p, data.n);
    if (at < data.n)
        sim_break(s, "byte %llu of a flow of %llu is wrong", (unsigned long long)(f->got + at),
                  (unsigned long long)f->total);
    f->got += data.n;
}

static bool excused(const struct sim_stream *st)
{
    return st->excused || st->conn->excused;
}

void sim_flow_on_fin(struct sim_stream *st)
{
    struct sim *s = st->conn->s;
    struct sim_flow *f = st->rx;

    if (f != NULL) {
        f->fin_got = true;
        if (!f->fin_sent && !excused(f->from)) /* garbage of the sender's may be a FIN */
            sim_break(s, "a FIN that nobody sent");
        if (f->got != f->sent)
            sim_break(s, "FIN after %llu bytes of %llu", (unsigned long long)f->got,
                      (unsigned long long)f->sent);
    }
    if (st->rx == NULL && st->rx_head_n > 0)
        sim_break(s, "FIN within the first bytes");
}

/* The relay ended a circuit. That is right only when somebody wanted it. */
void sim_flow_on_rst(struct sim_stream *st)
{
    struct sim *s = st->conn->s;
    const struct sim_stream *other = st->rx ? st->rx->from : st->tx ? st->tx->to : NULL;

    if (other == NULL || excused(st) || excused(other) || s->control.stopping)
        return;
    sim_break(s, "a circuit is reset although nobody wanted it (%s of %u)",
              st->kind == SS_STOP ? "target" : "source", st->conn->ident_idx);
}

static bool settled(const struct sim_flow *f)
{
    if (excused(f->from) || (f->to != NULL && excused(f->to)))
        return true;
    if (f->to == NULL) /* nothing has arrived: its reader is not known */
        return f->total == 0 || !f->from->live;
    return f->got == f->total && (!f->fin || f->fin_got);
}

bool sim_flows_settled(struct sim *s)
{
    for (size_t i = 0; i < s->flows_n; i++)
        if (!settled(s->flows[i]))
            return false;
    return true;
}

void sim_flows_verdict(struct sim *s)
{
    for (size_t i = 0; i < s->flows_n; i++) {
        const struct sim_flow *f = s->flows[i];

        if (!settled(f))
            sim_break(s, "a flow of %llu bytes stands still: sent %llu, arrived %llu%s",
                      (unsigned long long)f->total, (unsigned long long)f->sent,
                      (unsigned long long)f->got, f->fin_sent ? ", FIN sent" : "");
    }
}
