/* ping: 32 bytes come back as they are, as often as the peer likes (libp2p.md §10). */
#include "engine/shard.h"
#include "engine/stream.h"
#include "proto/ident.h"

bool svc_ping_feed(struct stream *st, struct cur *in)
{
    struct shard *s = st->conn->shard;
    uint32_t idx = st->head.idx, gen = st->head.gen;

    while (in->n >= PING_BYTES) {
        struct bytes block = cur_take(in, PING_BYTES);

        STAT_INC(&s->stats, ping_echoes);
        stream_write(st, block, false);
        if (!slab_find(&s->streams, idx, gen))
            return false;
    }
    return false; /* a part of a block waits for the rest */
}
