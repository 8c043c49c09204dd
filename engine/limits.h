/* engine/limits.h: every bound in the program, in one place. Capacities are sums of named terms. A
 * bound that an operator sets has its default in config_preset.c; here are the ones that are ours.
 */
#ifndef SLUICE_ENGINE_LIMITS_H
#define SLUICE_ENGINE_LIMITS_H

#include "engine/chunk.h"
#include "proto/noise.h"
#include "proto/yamux.h"

enum {
    SHARDS_MAX = 64,
    LISTENERS_MAX = 8, /* per shard: one per configured address */

    /* The ring. The completion queue holds four times the multishot burst that a turn can bring, so
     * that overflow, which would end multishots, stays at zero (io_uring.md §3). */
    RING_SQ = 2048,
    RING_CQ = 16384,
    RECV_BUFS = 64, /* a power of two */
    RECV_BUF_BYTES = 131072,
    TURN_CQES_MAX = 256,    /* completions handled before egress is flushed */
    TURN_MAIL_MAX = 4096,   /* mailbox entries handled per turn */
    TURN_NOISE_NS = 150000, /* one that takes longer counts for more */
    TURN_NOISE_MAX = 16,    /* Noise handshake messages, 0.1 ms each (libp2p.md §20.4) */
    SEND_IOV = 32,          /* gathered chunks per send */
    SENDS_PER_TURN = 1024,
    LEND_MAIL_MAX = 16, /* done for another shard that sleeps; what is more wakes it */
    LEND_BYTES_MAX = 65536,
    DRY_RESUME_FREE =
        RECV_BUFS / 4, /* parked receives resume at a quarter free (io_uring.md §7.2) */

    /* Records: 16 KiB bodies are fastest; 64 KiB ones cost a quarter more (design.md path 2). The
     * rest is for what rust-libp2p sends in a record of its own behind each 16 KiB: the end of an
     * inner record, 30 bytes with their header. */
    RECORD_BODY = 16384 + 128,
    RECORD_PLAIN_MAX = RECORD_BODY + YAMUX_HEADER,
    RECORD_SEALED_MAX = NOISE_FRAME_HEAD + RECORD_PLAIN_MAX + AEAD_TAG,
    RECORD_PARTS = 64,
    TRAVEL_MIN = 4096,  /* a record for another shard: opened into the chunk that goes there */
    SCRATCH_SLACK = 64, /* room for a header before a body that starts a record; keeps alignment */
    /* A run may end with the longest record, and the next one is opened behind it. */
    SCRATCH_BYTES = SCRATCH_SLACK + NOISE_PLAIN_MAX + RECORD_PLAIN_MAX + AEAD_TAG + 64,
    INPUT_MAX = NOISE_FRAME_HEAD + NOISE_MSG_MAX, /* an incomplete record */
    HANDSHAKE_INPUT_MAX = 8192,                   /* unconsumed bytes before the record layer */
    JOIN_BYTES = RECV_BUF_BYTES + HANDSHAKE_INPUT_MAX,

    /* Egress of one connection: unsent ciphertext stops being added to at TX_HIGH (libp2p.md
     * §20.3), control frames gather up to CTL_MAX of plaintext behind it, then the peer is not
     * reading. */
    TX_HIGH = 131072,
    CTL_MAX = 65536,

    /* Sixteenths of the pool's chunks of either size: above the first windows stay shut and nothing
     * new is begun, above the second no payload is kept. */
    POOL_HIGH = 12,
    POOL_FULL = 15,
    POOL_HALVES = 8, /* above it half records may fill only their part */

    /* While the pool is above its high mark half a record may wait this long, and all of them may
     * fill this part of it; at most so many are closed in a turn. Honest ones are whole within
     * moments, so whoever has waited longest hoards: 64 KiB each would hold the pool for as long
     * as a connection lives, and others would lose their circuits for want of a chunk. */
    HALF_RECORD_MS = 10000,
    HALF_RECORD_PART = 4,
    STALLED_SEND_MS = 10000, /* or hold TX_HIGH for a peer that reads nothing */
    RELIEF_MAX = 256,
    SHED_LOOK_MAX = 256, /* circuits of one connection that are looked at for one to go */
    SHED_LOOK_MS = 1000,
    SHED_QUIET_BYTES = 16 * 1024, /* in that time or more: pings and the like */
    HOARD_PART = 8, /* of what lies here while memory is short must go on from look to look */
    HALF_MESSAGE_PART = 8, /* streams with half a message: one for so many large chunks */

    /* Streams. */
    STREAM_INPUT_MAX = 4096 + 16, /* an incomplete hop message or mss frame */
    STREAM_JOIN_BYTES = STREAM_INPUT_MAX + NOISE_PLAIN_MAX,
    STOP_STREAMS_MAX = 256, /* that we open on one connection (libp2p.md Q11) */
    PING_STREAMS_MAX = 2,   /* libp2p.md §10 */
    IDENT_STREAMS_MAX = 2,
    HOP_STREAMS_MAX = 128,
    PUSH_STREAMS_MAX = 2,
    STREAM_NEGOTIATE_MS = 10000, /* libp2p.md §3 */
    HOP_MESSAGE_MS = 30000,      /* libp2p.md §23 */
    STREAM_LINGER_MS = 10000,    /* after our FIN, before RST (libp2p.md Q42) */
    PUSH_MS = 5000,
    CLOSE_LINGER_MS = 2000, /* a closing connection flushing its GoAway */

    /* Long answers and gossip of one connection: so much ahead of circuits' data, then they have
     * their turn. */
    TALK_BYTES = 32768,
    TALK_PIECE = 16384,
    SAYINGS_MAX = 1 << 20, /* of one shard; touched as they are used */

    /* Muxer pings from one peer: burst, then one per second (libp2p.md §6.1.5). A hundred in a row
     * are answered (dusk.md §13, check 4). */
    MUX_PING_BURST = 120,
    MUX_PING_MS = 1000,

    /* Streams that one peer opens, and that it is refused: burst, then one per so many ms. Those
     * past the first are reset unread, past the second the connection ends (libp2p.md §23). */
    SYN_BURST = 4096,
    SYN_MS = 1,
    REFUSED_BURST = 4096,
    REFUSED_MS = 10,

    /* RESERVE from one connection: burst, then one per so many ms; each costs a signature, two
     * visits to other threads and a log line, 40 us in all. Those past it are refused by RST. */
    RESERVE_BURST = 64,
    RESERVE_MS = 1000,

    ACCEPT_RETRY_MS = 100, /* after EMFILE and its kin (io_uring.md §6) */
    ACCEPT_SAY_MS = 60000,
    REFUSED_CLOSE_MS = 1000, /* presets.md, dusk: a refused client's connection is closed */

    /* Credit: reopen the source's window in steps of half of it, tell another shard at a quarter.
     */
    GRANT_STEP = YAMUX_WINDOW / 2,
    CREDIT_NEWS = YAMUX_WINDOW / 4,

    KEEPALIVE_IDLE_S = 30, /* presets.md "vanished peer": gone in 30 + 3 x 10 s and at most 90 s */
    KEEPALIVE_INTERVAL_S = 10,
    KEEPALIVE_COUNT = 3,
    TCP_USER_TIMEOUT_MS = 60000,
    LISTEN_BACKLOG = 4096,

    /* TURN's clients on streams. Unsent: data is dropped above the first, or above the second while
     * memory is short; replies may add so much, then the client does not read. */
    TURN_STREAM_HIGH = 131072,
    TURN_STREAM_SHORT = 16384,
    TURN_STREAM_REPLIES = 65536,
    TURN_STREAM_IDLE_MS = 60000, /* without an allocation (turn.md §10) */
    TURN_PART_MS = 10000,        /* for a unit that has begun to be whole; and to leave quietly */
    TURN_BIGS = 64,              /* units that are longer than a small chunk, being received */
    TURN_UNITS_MAX = 512,        /* of one stream, before others have their turn */
    TURN_STREAM_WORK = 8192,     /* of all: what has come, and what waits; as in turn_shard.h */
    TURN_LATE_MAX = 4 << 20,     /* of one stream, that came before its turn */

    /* Data connections of RFC 6062 (io_uring.md §9). */
    TURN_LISTEN_BUCKETS = 4096,
    TURN_RAW_READ = 65536,
    TURN_RAW_WAY = 1 << 20,  /* bytes of one direction, before others have their turn */
    TURN_RAW_PASS = 4 << 20, /* and of all, before anything else has */
    TURN_PIPES_MAX = 64,     /* that a shard makes; they hold something only while a sink is full */
    TURN_PIPE_BYTES = 1 << 20, /* wished for; shorter than the second, copying is as good */
    TURN_PIPE_LEAST = 65536,
    TURN_HALF_MS = 10000,     /* one side has closed, and the other says nothing */
    TURN_HOLD_MS = 50,        /* who has used up its bandwidth; nothing is dropped from a stream */
    TURN_PAY = 1024,          /* bytes that are charged at a time */
    TURN_BULK_BYTES = 262144, /* a stretch that decides between copying and splice */
    TURN_BULK_READS = 64,     /* or so many reads */
    TURN_BULK_READ = 8192,
    OPS_LISTINGS_MAX = 4,
};

static_assert(RECORD_SEALED_MAX <= CHUNK_LARGE_BYTES - 64, "a record fits a large chunk");
static_assert(RECV_BUF_BYTES >= INPUT_MAX - 1,
              "a record spans at most two receives' worth of parts");
static_assert(TURN_CQES_MAX < RING_CQ / 4, "a turn's burst fits");

#endif
