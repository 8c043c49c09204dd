#include "proto/chandata.h"

#include "proto/stun.h"

static_assert(FRAME_MAX == STUN_HEADER + STUN_BODY_MAX, "the longest unit of a stream");

bool chandata_decode(struct bytes in, struct chandata *m)
{
    struct cur c = cur_of(in);
    uint16_t channel = cur_u16(&c);
    uint16_t length = cur_u16(&c);
    struct bytes data = cur_take(&c, length);

    if (c.bad || channel < CHAN_MIN || channel > CHAN_COMPAT_MAX)
        return false;
    *m = (struct chandata){ channel, data };
    return true;
}

void chandata_head(uint8_t out[CHAN_HEADER], uint16_t channel, uint16_t n)
{
    ASSERT(channel >= CHAN_MIN && channel <= CHAN_COMPAT_MAX);
    put_u16(out, channel);
    put_u16(out + 2, n);
}

void chandata_put(struct wcur *w, const struct chandata *m, bool stream)
{
    static const uint8_t zero[3];
    uint8_t head[CHAN_HEADER];

    ASSERT(m->data.n <= UINT16_MAX);
    chandata_head(head, m->channel, (uint16_t)m->data.n);
    wcur_put(w, bytes_of(head, sizeof(head)));
    wcur_put(w, m->data);
    if (stream)
        wcur_put(w, bytes_of(zero, chandata_padding(m->data.n)));
}

enum first_byte first_byte(uint8_t b, bool compat_channels)
{
    if (b < 0x04)
        return FIRST_STUN;
    if (b < 0x10)
        return FIRST_NOTHING;
    if (b < 0x14)
        return FIRST_ZRTP;
    if (b < 0x40)
        return FIRST_DTLS;
    if (b < 0x50 || (b < 0x80 && compat_channels))
        return FIRST_CHANNEL;
    return b < 0x80 || b >= 0xc0 ? FIRST_QUIC : FIRST_RTP;
}

enum stream_kind stream_kind(struct bytes in)
{
    if (in.n == 0)
        return STREAM_MORE;
    /* Letters would pass for channels 0x4745 (GET) and 0x5052 (PROXY, POST), and so they may: only
     * an authenticated client has a channel to send on, and a STUN message must come before. */
    if (in.p[0] < 0x04)
        return STREAM_TURN;
    return in.p[0] == 0x16 ? STREAM_TLS : STREAM_OTHER;
}

enum frame frame_take(struct cur *in, size_t max, struct bytes *unit, size_t *need)
{
    struct cur head = *in;
    bool channel;
    size_t total;

    ASSERT(max >= STUN_HEADER && max <= FRAME_MAX);
    if (in->n && in->p[0] >> 7) /* 10 and 11 begin nothing */
        return FRAME_BAD;
    channel = in->n && in->p[0] >> 6;
    cur_u16(&head);
    size_t length = cur_u16(&head);

    if (head.bad) {
        *need = CHAN_HEADER; /* the shorter header; both have the length in the same place */
        return FRAME_MORE;
    }
    if (channel) /* the padding is not counted and must be consumed */
        total = CHAN_HEADER + length + chandata_padding(length);
    else
        total = STUN_HEADER + length;
    if (total > max)
        return FRAME_TOO_LONG;
    if (in->n < total) {
        *need = total;
        return FRAME_MORE;
    }
    *unit = cur_take(in, total);
    return channel ? FRAME_CHANNEL : FRAME_STUN;
}

void frame_init(struct frame_carry *f, uint8_t *buf, size_t cap)
{
    ASSERT(cap >= STUN_HEADER);
    *f = (struct frame_carry){ .buf = buf, .cap = min_sz(cap, FRAME_MAX) };
}

static void carry(struct frame_carry *f, struct cur *in, size_t up_to)
{
    struct bytes more = cur_take(in, min_sz(in->n, up_to - f->n));

    if (more.n)
        memcpy(f->buf + f->n, more.p, more.n);
    f->n += more.n;
}

enum frame frame_next(struct frame_carry *f, struct cur *in, struct bytes *unit)
{
    size_t need = 0;

    if (f->shown) {
        f->shown = false;
        f->n = 0;
    }
    if (f->n == 0) {
        enum frame got = frame_take(in, f->cap, unit, &need);

        if (got != FRAME_MORE)
            return got;
    }
    for (int step = 0; step < 3; step++) { /* to the header, to the end */
        struct cur kept = cur_of(bytes_of(f->buf, f->n));
        enum frame got = frame_take(&kept, f->cap, unit, &need);

        if (got != FRAME_MORE) {
            f->shown = true;
            return got;
        }
        if (in->n == 0)
            break;
        carry(f, in, need);
    }
    return FRAME_MORE;
}
