/* Noise: the first byte says where the input goes. 0-2: a raw message to the responder's first, the
 * initiator's or the responder's second turn; the AEAD stops nearly all of those, so: 3: a payload
 * that a genuine initiator seals into message 3, which reaches the payload's reader. 4: the whole
 * input instead of a genuine message 1, and on with the handshake as far as it goes. */
#include "tests/fuzz/fuzz.h"

#include "proto/noise.h"

static struct noise_ident ident[2];

static void once(void)
{
    static bool done;
    struct identity me;
    uint8_t seed[32], sk[32];

    if (done)
        return;
    crypto_init();
    for (int i = 0; i < 2; i++) {
        memset(seed, 1 + i, sizeof(seed));
        memset(sk, 0x22 * (1 + i), sizeof(sk));
        identity_from_seed(seed, &me);
        noise_ident_init(&ident[i], &me, sk);
    }
    done = true;
}

struct pair {
    struct noise i, r;
    uint8_t msg[NOISE_PAYLOAD_MAX + 128];
    size_t n;
    struct noise_remote remote;
};

static enum noise_res turn(struct pair *p, struct noise *from, struct noise *to)
{
    struct wcur w = wcur_of(p->msg, sizeof(p->msg));

    if (noise_write(from, &w) == NOISE_FAILED)
        return NOISE_FAILED;
    p->n = w.wrote;
    return to ? noise_read(to, bytes_of(p->msg, p->n), &p->remote) : NOISE_READ;
}

static void start(struct pair *p)
{
    uint8_t e[32];

    memset(e, 0x11, sizeof(e));
    noise_init(&p->i, &ident[0], NOISE_INITIATOR, e);
    memset(e, 0x33, sizeof(e));
    noise_init(&p->r, &ident[1], NOISE_RESPONDER, e);
}

/* A genuine handshake whose last payload is the input. */
static void with_payload(struct pair *p, struct bytes in)
{
    struct noise_ident mine = ident[0];
    enum noise_res res;

    if (in.n > NOISE_PAYLOAD_MAX)
        return;
    if (in.n)
        memcpy(mine.payload, in.p, in.n);
    mine.payload_n = in.n;
    p->i.ident = &mine;
    CHECK(turn(p, &p->i, &p->r) == NOISE_WRITE);
    CHECK(turn(p, &p->r, &p->i) == NOISE_WRITE);
    res = turn(p, &p->i, &p->r);
    CHECK(res == NOISE_DONE || res == NOISE_FAILED);
    if (res == NOISE_DONE) { /* only the key that we sealed with can have signed */
        struct aead_key tx, rx;

        CHECK(p->remote.id.n > 0 && p->remote.id.n <= PEER_ID_MAX);
        CHECK(!p->remote.muxer_yamux || p->remote.muxers_present);
        noise_split(&p->r, &tx, &rx);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pair p;

    once();
    if (size < 1)
        return 0;
    struct bytes in = bytes_of(data + 1, size - 1);

    start(&p);
    switch (data[0] % 5) {
    case 0:
        (void)!noise_read(&p.r, in, &p.remote);
        break;
    case 1:
        CHECK(turn(&p, &p.i, NULL) == NOISE_READ);
        CHECK(noise_read(&p.i, in, &p.remote) == NOISE_FAILED);
        break;
    case 2:
        CHECK(turn(&p, &p.i, &p.r) == NOISE_WRITE);
        CHECK(turn(&p, &p.r, NULL) == NOISE_READ);
        CHECK(noise_read(&p.r, in, &p.remote) == NOISE_FAILED);
        break;
    case 3:
        with_payload(&p, in);
        break;
    case 4:
        if (noise_read(&p.r, in, &p.remote) == NOISE_WRITE && turn(&p, &p.r, NULL) == NOISE_READ)
            CHECK(noise_read(&p.r, in, &p.remote) == NOISE_FAILED);
        break;
    }
    return 0;
}
