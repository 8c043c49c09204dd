#include "proto/wire.h"

#include "proto/varint.h"

#include <pb_decode.h>
#include <pb_encode.h>

/* The field callback that all generated messages name in their .options files. */
bool wire_field(pb_istream_t *istream, pb_ostream_t *ostream, const pb_field_t *field);

/* Our own reader instead of nanopb's: its state says where in the caller's buffer we are, which is
 * what lets fields be borrowed, and its address tells a view of that buffer from the scratch copy
 * that nanopb shows to callbacks when the wire type is not a string. */
static bool read_cur(pb_istream_t *s, pb_byte_t *out, size_t n)
{
    struct bytes b = cur_take(s->state, n);

    if (b.n != n)
        return false;
    if (out && n)
        memcpy(out, b.p, n);
    return true;
}

static pb_istream_t istream_of(struct cur *c)
{
    return (pb_istream_t){ .callback = read_cur, .state = c, .bytes_left = c->n };
}

static bool take_field(pb_istream_t *s, const pb_field_t *field)
{
    if (s->callback != read_cur)
        return false; /* a varint or a fixed where bytes belong */

    struct bytes b = cur_take(s->state, s->bytes_left);

    s->bytes_left = 0;
    if (PB_HTYPE(field->type) != PB_HTYPE_REPEATED) {
        *(struct bytes *)field->pData = b;
        return true;
    }
    struct wire_list *list = field->pData;

    list->n++;
    return !list->each || list->each(list->arg, b);
}

static bool put_bytes(pb_ostream_t *s, const pb_field_t *field, struct bytes b)
{
    return pb_encode_tag_for_field(s, field) && pb_encode_string(s, b.p, b.n);
}

static bool put_field(pb_ostream_t *s, const pb_field_t *field)
{
    if (PB_HTYPE(field->type) != PB_HTYPE_REPEATED) {
        const struct bytes *b = field->pData;
        return !b->p || put_bytes(s, field, *b);
    }
    const struct wire_list *list = field->pData;

    for (size_t i = 0; i < list->n; i++) {
        if (!put_bytes(s, field, list->items[i]))
            return false;
    }
    for (const char *const *name = list->names; name && *name; name++) {
        if (!put_bytes(s, field, bytes_str(*name)))
            return false;
    }
    return true;
}

bool wire_field(pb_istream_t *istream, pb_ostream_t *ostream, const pb_field_t *field)
{
    return istream ? take_field(istream, field) : put_field(ostream, field);
}

bool wire_decode(struct bytes in, const pb_msgdesc_t *desc, void *msg)
{
    struct cur c = cur_of(in);
    pb_istream_t s = istream_of(&c);

    return pb_decode(&s, desc, msg);
}

static void put(struct wcur *w, const pb_msgdesc_t *desc, const void *msg, unsigned flags)
{
    pb_ostream_t s = pb_ostream_from_buffer(w->p, w->n);

    if (w->bad || !pb_encode_ex(&s, desc, msg, flags))
        (void)wcur_room(w, SIZE_MAX); /* the first failure sticks */
    else
        (void)wcur_room(w, s.bytes_written);
}

void wire_put(struct wcur *w, const pb_msgdesc_t *desc, const void *msg)
{
    put(w, desc, msg, 0);
}

void wire_put_delimited(struct wcur *w, const pb_msgdesc_t *desc, const void *msg)
{
    put(w, desc, msg, PB_ENCODE_DELIMITED);
}

size_t wire_size(const pb_msgdesc_t *desc, const void *msg)
{
    size_t n = 0;

    ASSERT(pb_get_encoded_size(&n, desc, msg));
    return n;
}

size_t wire_list_fit(const struct bytes *items, size_t n, size_t room)
{
    for (size_t i = 0; i < n; i++) {
        size_t head = 1 + varint_len(items[i].n);

        if (room < head || items[i].n > room - head)
            return i;
        room -= head + items[i].n;
    }
    return n;
}

bool wire_next(struct cur *rest, uint32_t tag, struct bytes *content)
{
    pb_istream_t s = istream_of(rest);
    pb_wire_type_t type;
    uint32_t found;
    bool eof;

    while (pb_decode_tag(&s, &type, &found, &eof)) {
        if (found == tag && type == PB_WT_STRING) {
            uint32_t n;

            if (!pb_decode_varint32(&s, &n) || n > s.bytes_left)
                break;
            *content = cur_take(rest, n);
            return true;
        }
        if (!pb_skip_field(&s, type))
            break;
    }
    if (!eof) {
        rest->bad = true;
        rest->n = 0;
    }
    return false;
}
