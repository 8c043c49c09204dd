/* proto/dusk_int.h: CBOR as dusk.md §6 wants it read and written (RFC 8949), for proto/dusk*.c.
 *
 * Every item is read by libcbor's cbor_stream_decode, which looks at one head at a time and keeps
 * nothing; its cbor_load believes a nine-byte input that announces 16 GiB. Containers, pieces and
 * bounds are ours. */
#ifndef SLUICE_PROTO_DUSK_INT_H
#define SLUICE_PROTO_DUSK_INT_H

#include "proto/dusk.h"

struct dusk_in {
    struct cur c;
    struct wcur *room;
    unsigned items; /* read so far, DUSK_ITEMS_MAX at most */
};

/* One field of a struct. `read` takes its value and writes to `to`. */
struct dusk_field {
    const char *name;
    bool (*read)(struct dusk_in *in, void *to);
    void *to;
    bool optional;
};
enum { DUSK_FIELDS_MAX = 8 };

bool dusk_read_struct(struct dusk_in *in, const struct dusk_field *fields, size_t n);
/* `each` is called for each element, with its index, until the array ends. */
bool dusk_read_array(struct dusk_in *in, bool (*each)(struct dusk_in *in, size_t i, void *to),
                     void *to, size_t max, size_t *n);
bool dusk_read_text(struct dusk_in *in, void *to); /* struct bytes */
bool dusk_read_u64(struct dusk_in *in, void *to);
bool dusk_read_u32(struct dusk_in *in, void *to);
/* The head of an enum: a text, which names a variant without a value, or exactly the byte a1 and
 * then the name (§6). *has_value tells which. */
bool dusk_read_variant(struct dusk_in *in, struct bytes *name, bool *has_value);
bool dusk_skip(struct dusk_in *in); /* one value of any kind */

/* Heads in the shortest form, as Rust's encoder writes them. */
void dusk_put_uint(struct wcur *w, uint64_t v);
void dusk_put_array(struct wcur *w, uint64_t n);
void dusk_put_map(struct wcur *w, uint64_t pairs);
void dusk_put_text(struct wcur *w, struct bytes text);
void dusk_put_key(struct wcur *w, const char *key);

#endif
