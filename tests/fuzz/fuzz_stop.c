/* A StopMessage: what we say again of it reads the same, and only three statuses pass to the
 * source. */
#include "tests/fuzz/fuzz.h"

#include "proto/stop.h"
#include "proto/varint.h"

static struct stop_msg read_back(const struct wcur *w, const uint8_t *buf)
{
    struct cur c = cur_of(bytes_of(buf, w->wrote));
    struct bytes body = cur_lp(&c);
    struct stop_msg m;

    CHECK(!w->bad);
    CHECK(!c.bad);
    CHECK(c.n == 0);
    CHECK(stop_decode(body, &m));
    return m;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t buf[128];
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct stop_msg m, again;

    if (!stop_decode(bytes_of(data, size), &m))
        return 0;
    CHECK(size <= HOP_MSG_MAX);
    CHECK(!m.has_peer == (m.peer.n == 0));

    enum hop_status answer = stop_to_hop_status(&m);

    CHECK(answer == HOP_CONNECTION_FAILED || (m.type == STOP_STATUS && answer == m.status));
    CHECK(answer == HOP_CONNECTION_FAILED || answer == HOP_OK ||
          answer == HOP_RESOURCE_LIMIT_EXCEEDED || answer == HOP_PERMISSION_DENIED);

    stop_put_status(&w, m.status);
    again = read_back(&w, buf);
    CHECK(again.has_type);
    CHECK(again.type == STOP_STATUS);
    CHECK(again.status == m.status);
    if (!m.has_peer)
        return 0;
    w = wcur_of(buf, sizeof(buf));
    stop_put_connect(&w, &m.peer, &m.limit);
    again = read_back(&w, buf);
    CHECK(again.has_type);
    CHECK(again.type == STOP_CONNECT);
    CHECK(peer_id_eq(&again.peer, &m.peer));
    CHECK(again.limit.present == m.limit.present);
    CHECK(again.limit.duration_s == m.limit.duration_s);
    CHECK(again.limit.data_bytes == m.limit.data_bytes);
    return 0;
}
