/* From accept to the record layer: the sniff, multistream-select and Noise (libp2p.md §2-§4). */
#include "engine/clock.h"
#include "engine/conn.h"
#include "engine/rng.h"
#include "engine/shard.h"

static const struct mss_proto security_protocols[] = { { "/noise", 1 }, { NULL, 0 } };
static const struct mss_proto muxer_protocols[] = { { "/yamux/1.0.0", 1 }, { NULL, 0 } };

static bool is_http(const uint8_t *p)
{
    static const char verbs[][4] = {
        "GET", "HEA", "POS", "PUT", "DEL", "OPT", "PAT", "CON", "TRA"
    };

    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        if (memcmp(p, verbs[i], 3) == 0)
            return true;
    return false;
}

/* Last bytes on a connection that is not ours to serve. */
static void say_and_close(struct conn *c, const char *text, const char *why)
{
    STAT_INC(&c->shard->stats, sniff_rejects);
    if (conn_write_raw(c, bytes_str(text)))
        conn_give_up(c, why);
    else
        conn_close(c, why);
}

/* Three bytes decide, and nothing is written before they do (libp2p.md §2). */
static bool sniff(struct conn *c, struct cur *in)
{
    if (in->n < 3)
        return false;
    if (memcmp(in->p, "\x13/m", 3) == 0) {
        c->state = CONN_MSS_SECURITY;
        return true;
    }
    if (is_http(in->p)) {
        say_and_close(
            c, "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "HTTP on the libp2p port");
        return false;
    }
    STAT_INC(&c->shard->stats, sniff_rejects);
    conn_close(c, in->p[0] == 0x16 && in->p[1] == 3 ? "TLS on a plain port" : "not libp2p");
    return false;
}

/* Our next message of the handshake; what follows it. */
static enum noise_res noise_say(struct conn *c)
{
    uint8_t frame[NOISE_FRAME_HEAD + NOISE_PAYLOAD_MAX + 128];
    struct wcur w = wcur_of(frame + NOISE_FRAME_HEAD, sizeof(frame) - NOISE_FRAME_HEAD);
    enum noise_res res = noise_write(&c->hs->noise, &w);

    if (res == NOISE_FAILED || w.bad)
        return NOISE_FAILED;
    put_u16(frame, (uint16_t)w.wrote);
    return conn_write_raw(c, bytes_of(frame, NOISE_FRAME_HEAD + w.wrote)) ? res : NOISE_FAILED;
}

void secure_dial(struct conn *c)
{
    uint8_t hello[64];
    struct wcur w = wcur_of(hello, sizeof(hello));

    mss_dial_hello(&w, security_protocols[0].name);
    if (!conn_write_raw(c, bytes_of(hello, w.wrote)))
        conn_close(c, "no buffer");
}

static bool negotiate_security(struct conn *c, struct cur *in)
{
    struct shard *s = c->shard;
    uint8_t reply[MSS_REPLY_MAX], ephemeral[32];
    struct wcur w = wcur_of(reply, sizeof(reply));
    int id;
    enum mss_res res = c->dial ? mss_dial_feed(&c->asks, security_protocols[0].name, in)
                               : mss_listen_feed(&c->mss, security_protocols, in, &w, &id);

    if (w.wrote && !conn_write_raw(c, bytes_of(reply, w.wrote))) {
        conn_close(c, "no buffer");
        return false;
    }
    if (res == MSS_MORE)
        return false;
    if (res == MSS_AGREED)
        c->hs = slab_new(&s->handshakes);
    if (!c->hs) {
        STAT_INC(&s->stats, handshake_fail_mss);
        conn_give_up(c, "security negotiation failed");
        return false;
    }
    rng_bytes(ephemeral, sizeof(ephemeral));
    noise_init(&c->hs->noise, &s->d->noise, c->dial ? NOISE_INITIATOR : NOISE_RESPONDER, ephemeral);
    crypto_wipe(ephemeral, sizeof(ephemeral));
    c->state = CONN_NOISE;
    if (c->dial && noise_say(c) == NOISE_FAILED) {
        conn_close(c, "no buffer");
        return false;
    }
    return true;
}

static void ask_for_muxer(struct conn *c)
{
    uint8_t hello[64];
    struct wcur w = wcur_of(hello, sizeof(hello));

    mss_dial_hello(&w, muxer_protocols[0].name);
    struct bytes part = bytes_of(hello, w.wrote);

    c->asks = (struct mss_dial){ 0 };
    if (!conn_seal(c, &part, 1, part.n))
        conn_close(c, "no buffer");
}

static void noise_finish(struct conn *c, const struct noise_remote *remote)
{
    noise_split(&c->hs->noise, &c->tx_key, &c->rx_key);
    c->mss = (struct mss_listen){ 0 };
    /* Both payloads named yamux: it is settled, without another negotiation (libp2p.md §4). */
    c->state = remote->muxer_yamux ? CONN_MUX : CONN_MSS_MUXER;
    conn_secured(c, remote);
    if (c->state == CONN_MUX)
        mux_start(c);
    else if (c->state == CONN_MSS_MUXER && c->dial)
        ask_for_muxer(c);
}

static bool noise_feed(struct conn *c, struct cur *in)
{
    struct cur peek = *in;
    uint16_t len = cur_u16(&peek);
    struct noise_remote remote = { 0 };
    struct shard *s = c->shard;

    if (!peek.bad && len > NOISE_HANDSHAKE_MAX)
        goto failed;
    struct bytes msg = cur_take(&peek, len);

    if (peek.bad)
        return false;
    if (s->noise_n >= TURN_NOISE_MAX) { /* circuits that run do not wait for a flood of these */
        if (!c->shaking)
            list_append(&s->shaking, &c->shake_link);
        c->shaking = true;
        return false;
    }
    uint64_t began_ns = clock_mono_ns();
    enum noise_res res = noise_read(&c->hs->noise, msg, &remote);

    /* A signature on P-521 costs five times one on Ed25519: it has so much more of the budget. */
    s->noise_n += 1 + (unsigned)((clock_mono_ns() - began_ns) / TURN_NOISE_NS);
    *in = peek;
    if (res == NOISE_WRITE)
        res = noise_say(c);
    switch (res) {
    case NOISE_READ:
        return true;
    case NOISE_DONE: /* they had the last word, or, on a connection that we made, we */
        noise_finish(c, &remote);
        return conn_alive(c);
    case NOISE_WRITE:
    case NOISE_FAILED:
        break;
    }
failed: /* silently: Noise has no error message (libp2p.md §4) */
    STAT_INC(&c->shard->stats, handshake_fail_noise);
    conn_close(c, "Noise handshake failed");
    return false;
}

void handshake_free(struct conn *c)
{
    struct handshake *hs = c->hs;

    crypto_wipe(&hs->noise, sizeof(hs->noise)); /* also when it was cut short */
    slab_free(&c->shard->handshakes, hs);
    c->hs = NULL;
}

bool secure_feed(struct conn *c, struct cur *in)
{
    for (;;) {
        switch (c->state) {
        case CONN_SNIFF:
            if (!sniff(c, in))
                return false;
            break;
        case CONN_MSS_SECURITY:
            if (!negotiate_security(c, in))
                return false;
            break;
        case CONN_NOISE:
            if (!noise_feed(c, in))
                return false;
            break;
        case CONN_MSS_MUXER:
        case CONN_MUX:
            return true; /* the record layer goes on */
        default:
            return false;
        }
    }
}

/* Inside the channel. Half a frame is kept in the handshake object. */
bool secure_muxer_feed(struct conn *c, struct cur *plain)
{
    struct handshake *hs = c->hs;
    uint8_t reply[MSS_REPLY_MAX];
    struct wcur w = wcur_of(reply, sizeof(reply));
    uint8_t joined[sizeof(hs->plain) * 2];
    struct cur in = *plain;
    size_t kept = hs->plain_n;
    int id;

    if (kept) { /* join at most as much as one negotiation can need */
        size_t take = min_sz(plain->n, sizeof(joined) - kept);

        memcpy(joined, hs->plain, kept);
        memcpy(joined + kept, plain->p, take);
        in = cur_of(bytes_of(joined, kept + take));
    }
    size_t offered = in.n;
    enum mss_res res = c->dial ? mss_dial_feed(&c->asks, muxer_protocols[0].name, &in)
                               : mss_listen_feed(&c->mss, muxer_protocols, &in, &w, &id);
    size_t used = offered - in.n;

    if (w.wrote) {
        struct bytes part = bytes_of(reply, w.wrote);

        if (!conn_seal(c, &part, 1, part.n)) {
            conn_close(c, "no buffer");
            return false;
        }
    }
    if (res == MSS_FAILED || (res == MSS_MORE && in.n > sizeof(hs->plain)) ||
        used < kept * (res == MSS_AGREED)) {
        STAT_INC(&c->shard->stats, handshake_fail_mux);
        conn_give_up(c, "muxer negotiation failed");
        return false;
    }
    if (res == MSS_MORE) {
        memcpy(hs->plain, in.p, in.n);
        hs->plain_n = (uint16_t)in.n;
        return false;
    }
    cur_take(plain, used - kept);
    c->state = CONN_MUX;
    mux_start(c);
    return true;
}
