#include "proto/mss.h"

#include "proto/varint.h"

/* Names beginning with '/' are protocols; na and ls are the only commands (libp2p.md §3). */
static const char na[] = "na";
static const char ls[] = "ls";

static size_t frame_len(struct bytes text)
{
    return varint_len(text.n + 1) + text.n + 1;
}

static void put_frame(struct wcur *out, struct bytes text)
{
    wcur_varint(out, text.n + 1);
    wcur_put(out, text);
    wcur_u8(out, '\n');
}

void mss_put(struct wcur *out, const char *text)
{
    put_frame(out, bytes_str(text));
}

/* Takes one whole frame off the front, without its newline. The bound is checked on the prefix,
 * before anything is waited for (libp2p.md §1.1). */
static enum mss_res take_frame(struct cur *in, struct bytes *text)
{
    uint64_t len;
    size_t head;

    switch (varint_peek(bytes_of(in->p, in->n), &len, &head)) {
    case VARINT_MORE:
        return in->n < 2 ? MSS_MORE : MSS_FAILED; /* two bytes reach past MSS_FRAME_MAX */
    case VARINT_BAD:
        return MSS_FAILED;
    case VARINT_OK:
        break;
    }
    if (len == 0 || len > MSS_FRAME_MAX)
        return MSS_FAILED;
    if (in->n - head < len)
        return MSS_MORE;
    (void)cur_take(in, head);
    *text = cur_take(in, (size_t)len);
    if (text->p[text->n - 1] != '\n')
        return MSS_FAILED;
    text->n--;
    return MSS_AGREED;
}

/* One frame whose text is all the frames of the list (libp2p.md §3). */
static void put_list(struct wcur *out, const struct mss_proto *protos)
{
    size_t n = 1;

    for (const struct mss_proto *p = protos; p->name; p++)
        n += frame_len(bytes_str(p->name));
    ASSERT(n <= MSS_FRAME_MAX); /* our own table: go and js read no longer frames */
    wcur_varint(out, n);
    for (const struct mss_proto *p = protos; p->name; p++)
        mss_put(out, p->name);
    wcur_u8(out, '\n');
}

static const struct mss_proto *find(const struct mss_proto *protos, struct bytes name)
{
    while (protos->name && !bytes_eq(bytes_str(protos->name), name))
        protos++;
    return protos->name ? protos : NULL;
}

/* One frame behind the header. MSS_MORE: answered, go on with the next. */
static enum mss_res on_text(struct mss_listen *m, const struct mss_proto *protos, struct bytes text,
                            struct wcur *out, int *id)
{
    const struct mss_proto *p = find(protos, text);

    if (p) {
        put_frame(out, text);
        *id = p->id;
        return MSS_AGREED;
    }
    /* What a dialer sent along behind a name that we refused (§3 "Optimism") mostly ends here. */
    if (bytes_eq(text, bytes_str(MSS_HEADER)) ||
        !(bytes_eq(text, bytes_str(ls)) || (text.n && text.p[0] == '/')))
        return MSS_FAILED;
    if (m->tries == MSS_TRIES_MAX)
        return MSS_FAILED;
    m->tries++; /* a list is a try too, else four bytes buy a long answer for ever */
    if (text.p[0] == '/')
        mss_put(out, na);
    else
        put_list(out, protos);
    return MSS_MORE;
}

enum mss_res mss_listen_feed(struct mss_listen *m, const struct mss_proto *protos, struct cur *in,
                             struct wcur *out, int *id)
{
    enum mss_res res;
    struct bytes text;

    /* Bounded by the header, MSS_TRIES_MAX answers and one name. */
    while ((res = take_frame(in, &text)) == MSS_AGREED) {
        if (m->header_seen) {
            res = on_text(m, protos, text, out, id);
        } else {
            if (!bytes_eq(text, bytes_str(MSS_HEADER)))
                return MSS_FAILED;
            m->header_seen = true;
            mss_put(out, MSS_HEADER);
            res = MSS_MORE;
        }
        if (out->bad)
            return MSS_FAILED;
        if (res != MSS_MORE)
            return res;
    }
    return res;
}

void mss_dial_hello(struct wcur *out, const char *name)
{
    mss_put(out, MSS_HEADER);
    mss_put(out, name);
}

enum mss_res mss_dial_feed(struct mss_dial *m, const char *name, struct cur *in)
{
    enum mss_res res;
    struct bytes text;

    while ((res = take_frame(in, &text)) == MSS_AGREED) {
        if (m->header_seen) /* na, another name or a second header: the answer is no */
            return bytes_eq(text, bytes_str(name)) ? MSS_AGREED : MSS_FAILED;
        m->header_seen = bytes_eq(text, bytes_str(MSS_HEADER));
        if (!m->header_seen)
            return MSS_FAILED;
    }
    return res;
}
