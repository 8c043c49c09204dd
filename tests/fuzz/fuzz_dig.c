/* Messages of the DIG relay's wire: what is read is within its bounds, and what is written of it is
 * read as the same. */
#include "tests/fuzz/fuzz.h"

#include "proto/dig.h"

#include <stdlib.h>

enum { TEXT_MAX = 1 << 16 };

static enum dig_verdict decode(struct bytes text, struct dig_msg *m)
{
    static uint8_t *pool; /* from malloc, so that AddressSanitizer sees its end */

    if (!pool)
        pool = malloc(dig_pool_bytes(4 * TEXT_MAX));
    return dig_decode(text, (struct dig_rules){ .hex_ids = false }, pool, dig_pool_bytes(text.n),
                      m);
}

static uint8_t buf[4 * TEXT_MAX];

/* The message that was just written is one of that type. */
static struct dig_msg reread(const struct wcur *w, enum dig_type type, enum dig_verdict want)
{
    struct dig_msg m;

    CHECK(!w->bad);
    CHECK(decode(bytes_of(buf, w->wrote), &m) == want);
    CHECK(m.type == type);
    return m;
}

static void check_name(struct bytes name)
{
    struct bytes kept = name;
    struct wcur w = wcur_of(buf, sizeof(buf));
    static uint8_t copy[TEXT_MAX]; /* the pool under `name` is about to be used again */

    CHECK(name.n <= sizeof(copy));
    memcpy(copy, name.p, name.n);
    kept.p = copy;
    wcur_put(&w, bytes_str("{\"type\":\"get_peers\",\"network_id\":"));
    dig_put_string(&w, kept);
    wcur_u8(&w, '}');
    struct dig_msg m = reread(&w, DIG_GET_PEERS, DIG_OK);

    CHECK(m.u.get_peers.given && bytes_eq(m.u.get_peers.network_id, kept));
    w = wcur_of(buf, sizeof(buf));
    dig_put_peer_disconnected(&w, kept);
    (void)reread(&w, DIG_PEER_DISCONNECTED, DIG_IGNORED);
    w = wcur_of(buf, sizeof(buf));
    dig_put_hole_punch_result(&w, kept, true);
    m = reread(&w, DIG_HOLE_PUNCH_RESULT, DIG_OK);
    CHECK(bytes_eq(m.u.punch_result.peer_id, kept));
}

static void check_register(struct dig_msg *m)
{
    struct netaddr from, out[DIG_DIALABLE_MAX];
    struct dig_dial dial;
    struct dig_addr a;
    size_t n = m->u.reg.listen_addrs.left, seen = 0;

    CHECK(netaddr_parse(bytes_str("203.0.113.9:1"), &from));
    dig_dial_init(&dial, &from);
    while (dig_listen_next(&m->u.reg.listen_addrs, &a)) {
        dig_dial_add(&dial, &a);
        seen++;
    }
    CHECK(seen == n);
    CHECK(dig_dial_done(&dial, out) <= DIG_DIALABLE_MAX);
    CHECK(m->u.reg.peer_id.n <= DIG_NAME_MAX && m->u.reg.network_id.n <= DIG_NAME_MAX);

    struct dig_peer peer = { m->u.reg.peer_id,
                             m->u.reg.network_id,
                             m->u.reg.protocol_version,
                             1,
                             UINT64_MAX,
                             out,
                             dig_dial_done(&dial, out) };
    struct dig_pex_entry entry = { m->u.reg.peer_id, m->u.reg.network_id, from, 7 };
    static uint8_t element[DIG_PEER_TEXT_MAX];
    struct wcur e = wcur_of(element, sizeof(element)), w = wcur_of(buf, sizeof(buf));

    dig_put_peer(&e, &peer);
    CHECK(!e.bad);
    e = wcur_of(element, DIG_PEX_ENTRY_TEXT_MAX);
    dig_put_pex_entry(&e, &entry);
    CHECK(!e.bad);
    dig_put_peer_connected(&w, &peer); /* before the pool under the names is used again */
    (void)reread(&w, DIG_PEER_CONNECTED, DIG_IGNORED);
    w = wcur_of(buf, sizeof(buf));
    dig_put_pex_snapshot_head(&w);
    wcur_put(&w, bytes_of(element, e.wrote));
    dig_put_pex_snapshot_tail(&w);
    CHECK(reread(&w, DIG_PEX_SNAPSHOT, DIG_OK).u.pex_snapshot.peers == 1);
}

static void check_records(struct dig_list list)
{
    struct dig_record r;
    size_t n = 0;

    CHECK(list.left <= DIG_RECORDS_MAX);
    while (dig_record_next(&list, &r))
        n++;
    CHECK(n <= DIG_RECORDS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct dig_msg m;

    if (size > TEXT_MAX)
        return 0;
    enum dig_verdict v = decode(bytes_of(data, size), &m);

    if (v != DIG_OK && v != DIG_IGNORED)
        return 0;
    CHECK((v == DIG_IGNORED) == (m.type >= DIG_REGISTER_ACK && m.type <= DIG_ERROR));
    switch (m.type) {
    case DIG_REGISTER:
        check_register(&m);
        break;
    case DIG_RELAY_MESSAGE:
        check_name(m.u.relay.to);
        break;
    case DIG_GET_PEERS:
        if (m.u.get_peers.given)
            check_name(m.u.get_peers.network_id);
        break;
    case DIG_PING:
        dig_put_pong(&w, m.u.ping.timestamp);
        (void)reread(&w, DIG_PONG, DIG_IGNORED);
        break;
    case DIG_HOLE_PUNCH_REQUEST:
        dig_put_hole_punch_coordinate(&w, m.u.punch.target_peer_id, &m.u.punch.external_addr);
        (void)reread(&w, DIG_HOLE_PUNCH_COORDINATE, DIG_IGNORED);
        break;
    case DIG_DHT_RECORDS:
        check_records(m.u.dht.records);
        break;
    case DIG_PEX_HANDSHAKE:
        check_name(m.u.pex_handshake.network_id);
        break;
    default:
        break;
    }
    return 0;
}
