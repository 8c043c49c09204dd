/* engine/stats.h: one block of counters per shard, written by its owner with relaxed stores, summed
 * on read by control (scrapes are live and never stall a shard). Names are for /metrics. */
#ifndef SLUICE_ENGINE_STATS_H
#define SLUICE_ENGINE_STATS_H

#include <stdatomic.h>

#include "proto/base.h"

/* clang-format off */
/* X(name): monotonic counters; G(name): gauges (may go down). */
#define STATS_COUNTERS(X)                                                                          \
    X(conns_accepted) X(conns_closed) X(conns_refused_total) X(conns_refused_ip)                   \
    X(conns_refused_subnet) X(conns_refused_peer) X(conns_denied) X(conns_idle_closed)             \
    X(sniff_rejects) X(proxy_rejects)                                                              \
    X(handshakes_ok) X(handshake_fail_mss) X(handshake_fail_noise) X(handshake_fail_mux)           \
    X(handshake_timeouts) X(yamux_errors) X(record_errors)                                         \
    X(streams_in) X(streams_refused) X(streams_reset) X(pings_in) X(ping_floods)                   \
    X(identify_served) X(ping_echoes) X(push_received) X(push_sent)                                \
    X(reserve_ok) X(reserve_renewed) X(reserve_status_200) X(reserve_status_201)                   \
    X(reserve_status_202) X(reserve_status_400)                                                    \
    X(reserve_opened) X(reserve_expired) X(reserve_closed)                                         \
    X(connect_ok) X(connect_status_201) X(connect_status_202) X(connect_status_203)                \
    X(connect_status_204) X(connect_status_400) X(connect_status_401) X(connect_cancelled)         \
    X(circuits_opened) X(circuits_closed_normal) X(circuits_closed_reset)                          \
    X(circuits_closed_limit_bytes) X(circuits_closed_limit_time) X(circuits_closed_drain)          \
    X(circuits_closed_nomem) X(circuit_ms_total)                                                   \
    X(bytes_src_to_dst) X(bytes_dst_to_src)                                                        \
    X(rx_bytes) X(tx_bytes) X(rx_records) X(tx_records) X(rx_nobufs) X(accept_errors)              \
    X(chunks_dry) X(slow_closed) X(doorbells) X(turns_lent) X(loop_turns) X(stale_cqes)            \
    /* Sojourn: turns that issued sends, by the time from seeing completions to issuing them. */   \
    X(sojourn_10us) X(sojourn_25us) X(sojourn_50us) X(sojourn_100us) X(sojourn_250us)              \
    X(sojourn_1ms) X(sojourn_more)
#define STATS_GAUGES(X)                                                                            \
    X(conns) X(conns_secured) X(reservations) X(circuits) X(streams) X(chunk_bytes) X(tx_queued)
/* clang-format on */

#define STATS_FIELD(name) _Atomic uint64_t name;
struct stats {
    STATS_COUNTERS(STATS_FIELD)
    STATS_GAUGES(STATS_FIELD)
};
#undef STATS_FIELD

/* Owner only: no read-modify-write bus lock is needed. */
#define STAT_ADD(s, name, v)                                                                       \
    atomic_store_explicit(&(s)->name,                                                              \
                          atomic_load_explicit(&(s)->name, memory_order_relaxed) + (uint64_t)(v),  \
                          memory_order_relaxed)
#define STAT_INC(s, name) STAT_ADD(s, name, 1)
#define STAT_DEC(s, name) STAT_ADD(s, name, -1)
#define STAT_SET(s, name, v) atomic_store_explicit(&(s)->name, (uint64_t)(v), memory_order_relaxed)
#define STAT_GET(s, name) atomic_load_explicit(&(s)->name, memory_order_relaxed)

#endif
