/* yamux under hostile frames and any order of calls. The input is a script: each step is one byte
 * that chooses the call and its argument; frames to read come from the input too, cut where the
 * script says. Beside the machine runs a model of what was granted and what is open. */
#include "tests/fuzz/fuzz.h"

#include "proto/yamux.h"

enum { BUCKETS = 4, SLOTS = 6, INBOUND_MAX = 4, SCRIPT_MAX = 4096 };

struct slot {
    struct yamux_stream s;
    bool live;
    bool rx_fin;
    uint64_t allowed, got;
};

struct model {
    struct yamux y;
    struct yamux_stream *bucket[BUCKETS];
    struct yamux_table table;
    struct slot slot[SLOTS];
    bool failed;
};

static struct slot *free_slot(struct model *m)
{
    for (size_t i = 0; i < SLOTS; i++)
        if (!m->slot[i].live)
            return &m->slot[i];
    return NULL;
}

static void slot_start(struct slot *k)
{
    k->live = true;
    k->rx_fin = false;
    k->allowed = YAMUX_WINDOW;
    k->got = 0;
}

static void on_event(struct model *m, const struct yamux_ev *ev, bool refuse)
{
    struct slot *k = ev->stream ? CONTAINER_OF(ev->stream, struct slot, s) : NULL;

    CHECK(!k || k->live);
    switch (ev->kind) {
    case YAMUX_EV_OPEN:
        CHECK(ev->id != 0 && ((ev->id & 1) != 0) != m->y.dialer);
        CHECK(m->y.inbound < INBOUND_MAX);
        k = refuse ? NULL : free_slot(m);
        if (k) {
            yamux_attach(&m->y, &k->s);
            slot_start(k);
        } else {
            yamux_refuse(&m->y);
        }
        break;
    case YAMUX_EV_REFUSED:
        CHECK(m->y.inbound == INBOUND_MAX);
        break;
    case YAMUX_EV_DATA:
        CHECK(ev->data.n > 0 && !k->rx_fin);
        k->got += ev->data.n;
        CHECK(k->got <= k->allowed);
        CHECK(k->s.recv_credit == k->allowed - k->got);
        break;
    case YAMUX_EV_CREDIT:
        CHECK(ev->value > 0);
        break;
    case YAMUX_EV_FIN:
        CHECK(!k->rx_fin && k->s.rx_fin);
        k->rx_fin = true;
        break;
    case YAMUX_EV_RST:
        CHECK(!yamux_attached(&k->s));
        k->live = false;
        break;
    case YAMUX_EV_FAIL:
        CHECK(ev->value == YAMUX_PROTOCOL_ERROR);
        m->failed = true;
        break;
    default:
        break;
    }
}

/* Feeds up to `n` bytes. `slow` detaches after an event, in the middle of whatever is read. */
static void feed(struct model *m, struct cur *script, size_t n, bool refuse, bool slow)
{
    struct cur in = cur_of(cur_take(script, min_sz(n, script->n)));
    struct yamux_ev ev;
    size_t events = 0;

    for (;;) {
        yamux_feed(&m->y, &in, &ev);
        CHECK(!m->failed || ev.kind == YAMUX_EV_FAIL);
        if (ev.kind == YAMUX_EV_NONE || m->failed)
            break;
        on_event(m, &ev, refuse);
        CHECK(++events <= 6 * (n + 1)); /* the input bounds the work */
        if (slow && ev.stream && yamux_attached(ev.stream)) {
            yamux_detach(ev.stream);
            CONTAINER_OF(ev.stream, struct slot, s)->live = false;
        }
    }
    CHECK(m->failed || in.n == 0);
}

static void call(struct model *m, uint8_t op)
{
    struct slot *k = &m->slot[(op >> 4) % SLOTS];
    uint8_t h[YAMUX_HEADER];

    switch (op & 7) {
    case 0:
        k = free_slot(m);
        if (k && yamux_open(&m->y, &k->s))
            slot_start(k);
        break;
    case 1:
        yamux_detach(&k->s);
        k->live = false;
        break;
    case 2:
        if (k->live && k->s.recv_credit <= UINT32_MAX / 2) {
            uint32_t delta = op & 8 ? YAMUX_GRANT_MIN : UINT32_MAX / 2;
            yamux_put_grant(&k->s, h, delta);
            k->allowed += delta;
        }
        break;
    case 3:
        if (k->live && !k->s.tx_fin)
            yamux_put_data(&k->s, h, op & 8 ? k->s.send_credit : k->s.send_credit / 2, 0);
        break;
    case 4:
        if (k->live && !k->s.tx_fin)
            yamux_put_data(&k->s, h, 0, YAMUX_FIN);
        break;
    default:
        if (k->live)
            yamux_put_ack(&k->s, h);
        break;
    }
}

static void check_counts(const struct model *m)
{
    unsigned live = 0, inbound = 0;

    for (size_t i = 0; i < SLOTS; i++) {
        const struct slot *k = &m->slot[i];
        CHECK(k->live == yamux_attached(&k->s));
        live += k->live;
        inbound += k->live && ((k->s.id & 1) != 0) != m->y.dialer;
    }
    CHECK(live == m->y.streams && inbound == m->y.inbound && inbound <= INBOUND_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct model m; /* zeroed below; static to keep the stack small */
    struct cur script = cur_of(bytes_of(data, min_sz(size, SCRIPT_MAX)));

    memset(&m, 0, sizeof(m));
    m.table = (struct yamux_table){ .bucket = m.bucket, .mask = BUCKETS - 1 };
    yamux_init(&m.y, &m.table, cur_u8(&script) & 1, INBOUND_MAX);
    while (script.n > 0) {
        uint8_t op = cur_u8(&script);

        if (op & 0x80) /* high: read bytes; low 5 bits say how many */
            feed(&m, &script, (size_t)(op & 0x1f) * 2 + 1, op & 0x40, op & 0x20);
        else
            call(&m, op);
        check_counts(&m);
    }
    for (size_t i = 0; i < SLOTS; i++)
        yamux_detach(&m.slot[i].s);
    for (size_t i = 0; i < BUCKETS; i++)
        CHECK(m.bucket[i] == NULL);
    CHECK(m.y.streams == 0);
    return 0;
}
