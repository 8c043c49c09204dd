/* tools/load_turn_client.c: allocations, from the client's side: one transaction at a time each. */
#include "tools/load_turn.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
    REFRESH_MS = 120000, /* well before a permission ends */
    STALE_MAX = 3,       /* nonces in a row that the server says are old */
    MOVES_MAX = 16,      /* and 5-tuples that it says are taken */
    EXPIRY_S = 86400,
    REQUEST_MAX = 1500,
    TCP_ANSWER_MS = 10000,
    PROTO_UDP = 17,
    PROTO_TCP = 6,
};

struct lt_alloc *lt_allocs;
struct lt_peer lt_peers[LT_PEERS_MAX];
void (*lt_on_state)(struct lt_alloc *a, const char *why);
unsigned lt_waiting;

/* splitmix64: one seed, one run. */
uint64_t lt_random(void)
{
    static uint64_t state;

    state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = state + lt_opt.seed * UINT64_C(0xd1342543de82ef95);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

void lt_client_init(struct lt_alloc *a, uint32_t id)
{
    *a = (struct lt_alloc){ .id = id, .fd = -1 };
    a->channel = (uint16_t)(CHAN_MIN + id % (CHAN_MAX - CHAN_MIN + 1));
    if (lt_opt.secret)
        snprintf(a->user, sizeof(a->user), "%llu:load%u", (unsigned long long)time(NULL) + EXPIRY_S,
                 id % lt_opt.users);
    else
        snprintf(a->user, sizeof(a->user), "%s", lt_opt.user ? lt_opt.user : "");
}

void lt_client_open(struct lt_alloc *a)
{
    const struct netaddr *from = lt_opt.binds ? &lt_opt.bind[a->id % lt_opt.binds] : NULL;

    if (lt_opt.tcp || lt_opt.mode == LT_TCP_RELAY) {
        a->fd = lt_tcp(from, &lt_opt.at);
        a->stream = lt_stream_new();
    } else {
        a->fd = lt_udp(from, &lt_opt.at, lt_opt.gro);
    }
    a->local = lt_local(a->fd);
    lt_poll_add(a->fd, a);
}

void lt_client_close(struct lt_alloc *a)
{
    if (a->fd >= 0)
        close(a->fd);
    lt_stream_free(a->stream);
    lt_waiting -= a->waits;
    a->waits = a->ready = false;
    a->stream = NULL;
    a->fd = -1;
    a->state = LT_NEW;
    a->nonce_n = 0;
}

/* ---- requests ------------------------------------------------------------------------------ */

static void make_key(struct lt_alloc *a)
{
    uint8_t made[STUN_PASSWORD_MAX];
    struct bytes password = lt_opt.password ? bytes_str(lt_opt.password) : bytes_of("", 0);

    if (lt_opt.secret)
        password = bytes_of(made, stun_ephemeral_password(STUN_MAC_SHA1, bytes_str(lt_opt.secret),
                                                          bytes_str(a->user), made));
    stun_key_make(a->alg, bytes_str(a->user), bytes_of(a->realm, a->realm_n), password, &a->key);
}

void lt_client_credentials(struct lt_alloc *a, struct stun_build *b)
{
    static const uint8_t sha256[4] = { 0, STUN_ALG_SHA256, 0, 0 };
    enum stun_mac mac = a->alg == STUN_ALG_SHA256 ? STUN_MAC_SHA256 : STUN_MAC_SHA1;

    if (!a->nonce_n)
        return; /* the first one, to be told realm and nonce */
    stun_put(b, STUN_USERNAME, bytes_str(a->user));
    stun_put(b, STUN_REALM, bytes_of(a->realm, a->realm_n));
    stun_put(b, STUN_NONCE, bytes_of(a->nonce, a->nonce_n));
    if (mac == STUN_MAC_SHA256) {
        stun_put(b, STUN_PASSWORD_ALGORITHMS, bytes_of(a->algorithms, a->algorithms_n));
        stun_put(b, STUN_PASSWORD_ALGORITHM, bytes_of(sha256, sizeof(sha256)));
    }
    stun_put_integrity(b, mac, stun_key_bytes(&a->key), STUN_SHA256_TAG);
}

static void put_body(struct lt_alloc *a, struct stun_build *b)
{
    struct stun_addr peer = stun_addr_of(&a->peer);

    switch (a->method) {
    case STUN_ALLOCATE:
        stun_put_u8(b, STUN_REQUESTED_TRANSPORT,
                    lt_opt.mode == LT_TCP_RELAY ? PROTO_TCP : PROTO_UDP);
        if (!netaddr_is4(&lt_peers[0].addr) && lt_peers[0].addr.port)
            stun_put_u8(b, STUN_REQUESTED_ADDRESS_FAMILY, 2);
        break;
    case STUN_REFRESH:
        stun_put_u32(b, STUN_LIFETIME, a->asked_lifetime);
        break;
    case STUN_CHANNEL_BIND:
        stun_put_u16(b, STUN_CHANNEL_NUMBER, a->channel);
        stun_put_addr(b, STUN_XOR_PEER_ADDRESS, &peer);
        break;
    case STUN_CREATE_PERMISSION:
    case STUN_CONNECT:
        stun_put_addr(b, STUN_XOR_PEER_ADDRESS, &peer);
        break;
    default:
        break;
    }
}

/* The same bytes as last time if nothing has changed: a retransmission. */
static void transmit(struct lt_alloc *a)
{
    uint8_t buf[REQUEST_MAX], id[STUN_ID];
    struct stun_build b;
    struct bytes out;

    stun_id_of(a->tid, id);
    stun_begin(&b, buf, sizeof(buf), stun_type(a->method, STUN_REQUEST), id);
    put_body(a, &b);
    lt_client_credentials(a, &b);
    if (!stun_end(&b, &out))
        lt_die("a request does not fit");
    a->asked_ms = lt_now_ms();
    a->tries++;
    if (a->stream) {
        lt_stream_put(a->stream, out);
        (void)lt_stream_flush(a->fd, a->stream);
    } else if (send(a->fd, out.p, out.n, MSG_DONTWAIT) < 0) {
        lt_refused++; /* the timer sends it again */
    }
}

static void request(struct lt_alloc *a, enum stun_method method)
{
    uint64_t r = lt_random();

    a->method = method;
    put_u64(a->tid, r);
    put_u32(a->tid + 8, a->id);
    a->tries = 0;
    lt_waiting += !a->waits;
    a->waits = true;
    transmit(a);
}

void lt_client_allocate(struct lt_alloc *a)
{
    a->state = LT_ALLOCATING;
    a->began_ns = load_now_ns();
    request(a, STUN_ALLOCATE);
}

void lt_client_permit(struct lt_alloc *a)
{
    a->state = LT_PERMITTING;
    request(a, STUN_CREATE_PERMISSION);
}

void lt_client_bind(struct lt_alloc *a)
{
    if (lt_opt.send_mode || lt_opt.mode == LT_TCP_RELAY) {
        lt_client_permit(a);
        return;
    }
    a->state = LT_BINDING;
    request(a, STUN_CHANNEL_BIND);
}

void lt_client_connect(struct lt_alloc *a)
{
    a->state = LT_CONNECTING;
    request(a, STUN_CONNECT);
}

void lt_client_release(struct lt_alloc *a)
{
    a->state = LT_RELEASING;
    a->asked_lifetime = 0;
    request(a, STUN_REFRESH);
}

size_t lt_client_connection_bind(struct lt_alloc *a, uint32_t id, uint8_t *buf, size_t cap)
{
    uint8_t tid[STUN_TID], full[STUN_ID];
    struct stun_build b;
    struct bytes out;

    put_u64(tid, lt_random());
    put_u32(tid + 8, id);
    stun_id_of(tid, full);
    stun_begin(&b, buf, cap, stun_type(STUN_CONNECTION_BIND, STUN_REQUEST), full);
    stun_put_u32(&b, STUN_CONNECTION_ID, id);
    lt_client_credentials(a, &b);
    if (!stun_end(&b, &out))
        lt_die("a request does not fit");
    return out.n;
}

/* ---- answers ------------------------------------------------------------------------------- */

static void told(struct lt_alloc *a, enum lt_state state, const char *why)
{
    a->state = state;
    lt_on_state(a, why);
}

static void fail(struct lt_alloc *a, const char *what)
{
    lt_waiting -= a->waits;
    a->waits = a->ready = false;
    told(a, LT_GONE, what);
}

static bool remember(struct bytes v, uint8_t *to, size_t cap, uint8_t *n)
{
    if (v.n == 0 || v.n > cap || v.n > UINT8_MAX)
        return false;
    memcpy(to, v.p, v.n);
    *n = (uint8_t)v.n;
    return true;
}

/* 401 and 438: realm and nonce of the server. false: nothing to go on with. */
static bool on_challenge(struct lt_alloc *a, const struct stun_msg *m)
{
    struct bytes algorithms = stun_value(m, STUN_PASSWORD_ALGORITHMS);

    if (!remember(stun_value(m, STUN_NONCE), a->nonce, sizeof(a->nonce), &a->nonce_n) ||
        !remember(stun_value(m, STUN_REALM), a->realm, sizeof(a->realm), &a->realm_n))
        return false;
    if (lt_opt.realm[0] && !bytes_eq(bytes_of(a->realm, a->realm_n), bytes_str(lt_opt.realm)))
        return false;
    a->alg = STUN_ALG_MD5;
    if (lt_opt.sha256 &&
        remember(algorithms, a->algorithms, sizeof(a->algorithms), &a->algorithms_n))
        a->alg = STUN_ALG_SHA256;
    make_key(a);
    return true;
}

unsigned lt_client_answer(struct lt_alloc *a, struct bytes stun)
{
    struct stun_msg m;
    struct bytes phrase;
    uint16_t code = 1;

    if (stun_decode(stun, 0, &m) != STUN_OK)
        return 1;
    if (stun_class_of(m.type) == STUN_SUCCESS)
        return 0;
    if (stun_class_of(m.type) == STUN_ERROR)
        (void)stun_error(&m, &code, &phrase);
    if (code == 401 || code == 438)
        (void)on_challenge(a, &m);
    return code;
}

static void on_error(struct lt_alloc *a, const struct stun_msg *m)
{
    struct bytes phrase = { 0 };
    char why[128];
    uint16_t code = 0;
    bool had = a->nonce_n > 0;
    unsigned tries = a->tries;

    (void)stun_error(m, &code, &phrase);
    if (((code == 401 && !had) || (code == 438 && tries < STALE_MAX)) && on_challenge(a, m)) {
        request(a, a->method);
        a->tries = code == 438 ? tries + 1 : a->tries;
        return;
    }
    if (code == 437 && a->state == LT_ALLOCATING && !a->stream && a->moves < MOVES_MAX) {
        /* Somebody's allocation is still there from before: another 5-tuple (RFC 8656 §6.4). */
        a->moves++;
        lt_totals.moves++;
        lt_client_close(a);
        lt_client_open(a);
        lt_client_allocate(a);
        return;
    }
    snprintf(why, sizeof(why), "%u %.*s", code, (int)min_sz(phrase.n, 60),
             phrase.p ? (const char *)phrase.p : "");
    fail(a, why);
}

static void on_allocated(struct lt_alloc *a, const struct stun_msg *m)
{
    struct stun_addr relayed;

    if (!stun_addr(m, STUN_XOR_RELAYED_ADDRESS, &relayed)) {
        fail(a, "no relayed address");
        return;
    }
    a->relayed = relayed.addr;
    a->moves = 0;
    a->refresh_ms = lt_now_ms() + REFRESH_MS + a->id % 10000;
    told(a, LT_ALLOCATED, NULL);
}

static void on_success(struct lt_alloc *a, const struct stun_msg *m)
{
    bool was_ready = a->ready;

    switch (a->state) {
    case LT_ALLOCATING:
        on_allocated(a, m);
        break;
    case LT_REFRESHING:
        lt_client_bind(a);
        break;
    case LT_PERMITTING:
    case LT_BINDING:
        a->ready = true;
        a->refresh_ms = lt_now_ms() + REFRESH_MS + a->id % 10000;
        a->state = LT_READY;
        if (!was_ready) /* else it was a renewal */
            told(a, LT_READY, NULL);
        break;
    case LT_CONNECTING:
        a->connection_id = stun_u32(m, STUN_CONNECTION_ID);
        told(a, LT_CONNECTING, NULL);
        break;
    case LT_RELEASING:
        a->ready = false;
        told(a, LT_GONE, NULL);
        break;
    default:
        break;
    }
}

void lt_client_message(struct lt_alloc *a, struct bytes stun)
{
    struct stun_msg m;
    enum stun_class c;

    if (stun_decode(stun, 0, &m) != STUN_OK) {
        lt_totals.mismatches++;
        return;
    }
    c = stun_class_of(m.type);
    /* What answers nothing that waits is late, of a retransmission, or a ConnectionAttempt. */
    if (!a->waits || (c != STUN_SUCCESS && c != STUN_ERROR) ||
        stun_method_of(m.type) != a->method || memcmp(stun_id(&m) + 4, a->tid, STUN_TID) != 0)
        return;
    if (c == STUN_ERROR) {
        lt_waiting--;
        a->waits = false;
        on_error(a, &m);
        return;
    }
    if (!stun_integrity_ok(&m, stun_mac_of(&m), stun_key_bytes(&a->key), STUN_SHA256_TAG)) {
        lt_totals.mismatches++;
        return;
    }
    lt_waiting--;
    a->waits = false;
    on_success(a, &m);
}

void lt_client_tick(struct lt_alloc *a, uint64_t now_ms)
{
    if (a->waits && a->stream) {
        if (now_ms - a->asked_ms > TCP_ANSWER_MS)
            fail(a, "no answer");
    } else if (a->waits && now_ms - a->asked_ms >= LT_RTO_MS) {
        if (a->tries >= LT_TRIES)
            fail(a, "no answer");
        else
            transmit(a);
    } else if (a->state == LT_READY && now_ms >= a->refresh_ms) {
        a->state = LT_REFRESHING;
        a->asked_lifetime = 600;
        request(a, STUN_REFRESH);
    }
}
