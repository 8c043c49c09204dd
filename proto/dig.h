/* proto/dig.h: the messages of the DIG relay's wire (dig.md §4, §5, §10.2, §15.3), read by yyjson
 * on memory of the caller and written byte for byte as §4.2 has it. Pure and reentrant.
 * Shapes: strings are unescaped and borrow, like the lists, from the pool: they die with the next
 *         dig_decode() on it. Written strings are given unescaped.
 * Units:  times are unix seconds as the wire has them; lengths in bytes.
 * Errors: enum dig_verdict, always the peer's fault; a text larger than the pool was made for is
 *         DIG_BAD. Writers set w->bad when the message does not fit, and that sticks. */
#ifndef SLUICE_PROTO_DIG_H
#define SLUICE_PROTO_DIG_H

#include "proto/cur.h"
#include "proto/dig_addr.h"

enum {
    DIG_NAME_MAX = 128,         /* bytes of a registration's peer_id and of its network_id (D9) */
    DIG_RECORDS_MAX = 500,      /* dht_records taken from one answer (D13) */
    DIG_PEX_DELTA_MAX = 50,     /* added, and dropped, of one delta (dig.md §10.5) */
    DIG_PEX_SNAPSHOT_MAX = 200, /* entries of one snapshot (dig.md §10.4) */
    DIG_NAME_TEXT_MAX =
        2 * DIG_NAME_MAX + 2, /* a name as a JSON string; no control characters in it */
};

/* Every type of the wire. From DIG_PEX_HANDSHAKE on they are PEX. */
enum dig_type {
    DIG_REGISTER,
    DIG_UNREGISTER,
    DIG_RELAY_MESSAGE, /* for comparison with dig_scan() only; its text is what is forwarded */
    DIG_BROADCAST,     /* likewise */
    DIG_GET_PEERS,
    DIG_PING,
    DIG_HOLE_PUNCH_REQUEST,
    DIG_HOLE_PUNCH_RESULT,
    DIG_DHT_RECORDS,
    DIG_GET_DHT_RECORDS, /* from a registrant: code 2 all the same (dig.md §5.11) */
    /* What a registrant may send and nobody reads (dig.md §5.11); unregistered: code 1. */
    DIG_REGISTER_ACK,
    DIG_PEERS,
    DIG_PEER_CONNECTED,
    DIG_PEER_DISCONNECTED,
    DIG_PONG,
    DIG_HOLE_PUNCH_COORDINATE,
    DIG_ERROR,
    DIG_PEX_HANDSHAKE,
    DIG_PEX_SNAPSHOT,
    DIG_PEX_DELTA,
    DIG_PEX_ERROR,
    DIG_TYPES,
};

enum dig_verdict {
    DIG_OK,      /* *out is the message, of a type that is listed before DIG_REGISTER_ACK, or PEX */
    DIG_IGNORED, /* well-formed, DIG_REGISTER_ACK to DIG_ERROR: out->type is set, nothing else */
    DIG_BAD,     /* not a valid message: code 2 */
    DIG_PEX_BAD, /* JSON whose type begins with pex_, and no valid message: dig.md §10.1, §10.6 */
};

/* Elements of a list that was validated whole, still in the pool. */
struct dig_list {
    const void *next;
    size_t left;
};

struct dig_msg {
    enum dig_type type;
    union {
        struct {
            struct bytes peer_id, network_id; /* DIG_NAME_MAX at most, no control characters */
            uint32_t protocol_version;
            struct dig_list listen_addrs; /* dig_listen_next() */
        } reg;
        struct {
            struct bytes from, to; /* `to`, `seq`: relay_message only */
            size_t payload_count;
            uint64_t seq;
            size_t exclude_count; /* broadcast only */
        } relay;
        struct {
            bool given; /* false: absent or null, the caller's own network */
            struct bytes network_id;
        } get_peers;
        struct {
            uint64_t timestamp;
        } ping;
        struct {
            struct bytes target_peer_id;
            struct dig_addr external_addr;
        } punch;
        struct {
            struct bytes peer_id; /* the destination */
            bool success;
        } punch_result;
        struct {
            struct dig_list records; /* dig_record_next() */
            uint64_t total_keys;
            bool truncated;
        } dht;
        struct {
            uint32_t version, interval;
            struct bytes network_id;
        } pex_handshake;
        struct {
            size_t peers;
        } pex_snapshot;
        struct {
            size_t added, dropped;
            bool overlap; /* an id in both; judged only while neither exceeds DIG_PEX_DELTA_MAX */
        } pex_delta;
        struct {
            uint16_t code;
        } pex_error;
    } u;
};

struct dig_rules {
    bool hex_ids; /* D9's option: register's peer_id must be 64 lower-case hexadecimal digits */
};

/* Room that yyjson needs at worst for a text of that many bytes: its copy and its values (16 bytes
 * each, a value takes two bytes of text, growing by half). A power of two it is not: 3.3 MiB for a
 * text of 256 KiB; one pool per thread is enough. */
static inline size_t dig_pool_bytes(size_t text_max)
{
    return text_max * 13 + 1024;
}

/* `pool` is aligned like malloc's. Writes *out for DIG_OK and DIG_IGNORED. */
enum dig_verdict dig_decode(struct bytes text, struct dig_rules rules, void *pool,
                            size_t pool_bytes, struct dig_msg *out);

/* Take the first element off the list; false at its end. */
bool dig_listen_next(struct dig_list *list, struct dig_addr *out);
struct dig_record {
    uint8_t key[32]; /* content_key was 64 hexadecimal digits; others are passed over (D13) */
    uint64_t providers;
};
bool dig_record_next(struct dig_list *list, struct dig_record *out); /* DIG_RECORDS_MAX at most */
/* May these bytes, valid UTF-8, name a registration or a network (D9)? */
bool dig_name_ok(struct bytes name);

/* ---- writing (dig.md §4.2) ------------------------------------------------------------------- */

enum dig_code { /* dig.md §5.10 */
                DIG_CODE_NOT_REGISTERED = 1,
                DIG_CODE_INVALID = 2,
                DIG_CODE_NO_TARGET = 3,
                DIG_CODE_FULL = 4,
                DIG_CODE_ID_TAKEN = 5,
                DIG_CODE_CERTIFICATE = 6,
                DIG_CODE_SOURCE_LIMIT = 7,
};

enum dig_pex_code { /* dig.md §10.6 */
                    DIG_PEX_CODE_BAD_MESSAGE = 1,
                    DIG_PEX_CODE_VERSION = 2,
                    DIG_PEX_CODE_RATE = 3,
                    DIG_PEX_CODE_OVERSIZED = 4,
                    DIG_PEX_CODE_NETWORK = 5,
                    DIG_PEX_CODE_PROTOCOL = 6,
};

/* A peer as `peers` and `peer_connected` show it. */
struct dig_peer {
    struct bytes peer_id, network_id;
    uint32_t protocol_version;
    uint64_t connected_at, last_seen;
    const struct netaddr *addresses; /* dig_dialable(); omitted when there are none */
    size_t addresses_n;
};

/* An entry as the relay advertises it (dig.md §10.3): one reflexive address, the observed one. */
struct dig_pex_entry {
    struct bytes peer_id, network_id;
    struct netaddr observed;
    uint64_t last_seen;
};

enum { /* bounds of what follows, names being at most DIG_NAME_MAX bytes without control characters
        */
       DIG_MESSAGE_MAX = 512, /* every message below that carries at most one name and no list */
       DIG_PEER_TEXT_MAX =
           160 + 2 * DIG_NAME_TEXT_MAX + 16 + DIG_DIALABLE_MAX * (DIG_ADDR_TEXT_MAX + 3),
       DIG_PEX_ENTRY_TEXT_MAX = 224 + 2 * DIG_NAME_TEXT_MAX + DIG_ADDR_TEXT_MAX,
};

void dig_put_string(struct wcur *w, struct bytes text); /* quoted and escaped */

/* ok: "registered"; else the text that belongs to the code that follows it. */
void dig_put_register_ack(struct wcur *w, bool success, enum dig_code why,
                          uint64_t connected_peers);
void dig_put_error(struct wcur *w, enum dig_code code);
void dig_put_pong(struct wcur *w, uint64_t timestamp);
void dig_put_hole_punch_coordinate(struct wcur *w, struct bytes peer_id, const struct dig_addr *a);
void dig_put_hole_punch_result(struct wcur *w, struct bytes peer_id, bool success);
void dig_put_get_dht_records(struct wcur *w);
void dig_put_peer_connected(struct wcur *w, const struct dig_peer *peer);
void dig_put_peer_disconnected(struct wcur *w, struct bytes peer_id);

/* peers: head, elements with dig_put_comma() between them, tail. */
void dig_put_peers_head(struct wcur *w);
void dig_put_peer(struct wcur *w, const struct dig_peer *peer);
void dig_put_comma(struct wcur *w);
void dig_put_peers_tail(struct wcur *w);

/* relay_message: the head ends where the value of `to` begins; then the spans of a dig_scan with
 * these between them, or its `tail` alone. The head is the same for all that one registrant sends.
 *     HEAD to DIG_RELAY_PAYLOAD payload DIG_RELAY_SEQ seq DIG_RELAY_END
 * broadcast: HEAD payload DIG_BROADCAST_END */
#define DIG_RELAY_PAYLOAD ",\"payload\":"
#define DIG_RELAY_SEQ ",\"seq\":"
#define DIG_RELAY_END "}"
#define DIG_BROADCAST_END ",\"exclude\":[]}"
void dig_put_relay_head(struct wcur *w, struct bytes from);
void dig_put_broadcast_head(struct wcur *w, struct bytes from);

/* PEX. snapshot: head, entries with commas, tail. delta: head, entries with commas, dropped, ids as
 * strings with commas, tail. */
void dig_put_pex_handshake(struct wcur *w, struct bytes network_id, uint32_t interval);
void dig_put_pex_entry(struct wcur *w, const struct dig_pex_entry *entry);
void dig_put_pex_snapshot_head(struct wcur *w);
void dig_put_pex_snapshot_tail(struct wcur *w);
void dig_put_pex_delta_head(struct wcur *w);
void dig_put_pex_delta_dropped(struct wcur *w);
void dig_put_pex_delta_tail(struct wcur *w);
void dig_put_pex_error(struct wcur *w, enum dig_pex_code code);

#endif
