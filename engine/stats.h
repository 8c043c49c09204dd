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
    X(dials) X(dials_failed)                                                                       \
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
    X(sojourn_1ms) X(sojourn_more)                                                                 \
    /* Requests with answers: all, refused for a bound, not decoded; then by what they asked. */   \
    X(rpc_requests) X(rpc_refused) X(rpc_malformed)                                                \
    X(rdv_registered) X(rdv_unregistered) X(rdv_discovers) X(rdv_records) X(rdv_refused)           \
    X(directory_registered) X(directory_removed) X(directory_searches)                             \
    X(credentials_issued) X(gif_requests) X(usage_lost) X(federation_taken) X(federation_refused)                                                          \
    /* TURN. Datagrams and payload bytes: from and to clients, from and to peers. */               \
    X(turn_bindings) X(turn_allocated) X(turn_alloc_expired) X(turn_alloc_released)                \
    X(turn_alloc_lost) X(turn_alloc_failed)                                                        \
    X(turn_client_rx) X(turn_client_rx_bytes) X(turn_client_tx) X(turn_client_tx_bytes)            \
    X(turn_peer_rx) X(turn_peer_rx_bytes) X(turn_peer_tx) X(turn_peer_tx_bytes)                    \
    X(turn_tcp_peer_bytes) X(turn_tcp_client_bytes) X(turn_icmp_told)                              \
    X(turn_error_300) X(turn_error_400) X(turn_error_401) X(turn_error_403) X(turn_error_420)      \
    X(turn_error_437) X(turn_error_438) X(turn_error_440) X(turn_error_441) X(turn_error_442)      \
    X(turn_error_443) X(turn_error_446) X(turn_error_447) X(turn_error_486) X(turn_error_508)      \
    X(turn_error_other)                                                                            \
    /* Not answered, or not carried, by cause: those of enum turn_drop, then the engine's. */      \
    X(turn_drop_foreign) X(turn_drop_malformed) X(turn_drop_fingerprint) X(turn_drop_class)        \
    X(turn_drop_method) X(turn_drop_unknown) X(turn_drop_allocation) X(turn_drop_permission)       \
    X(turn_drop_channel) X(turn_drop_peer) X(turn_drop_pending) X(turn_drop_lost)                  \
    X(turn_drop_stream) X(turn_drop_room) X(turn_drop_reply_rate) X(turn_drop_bandwidth)           \
    X(turn_drop_send) X(turn_drop_slow) X(turn_drop_mail) X(turn_drop_truncated)                   \
    /* Sends, by how many datagrams each carried; and trains that came. */                         \
    X(turn_train_1) X(turn_train_4) X(turn_train_16) X(turn_train_64) X(turn_train_128)            \
    X(turn_train_datagrams) X(turn_train_in) X(turn_gso_refused) X(turn_mailed)                    \
    X(turn_streams_accepted)                                                                       \
    X(turn_streams_closed)                                                                         \
    /* Streams closed for a unit that is not whole, or no allocation, for too long; no framing; TLS\
     * and other strangers; more kept than there is room. And connections with peers: made, come,  \
     * refused, joined with a client's, gone over to splice. */                                    \
    X(turn_stream_timeouts) X(turn_stream_bad) X(turn_stream_tls) X(turn_stream_strange)           \
    X(turn_stream_hoard) X(turn_tcp_connected) X(turn_tcp_incoming) X(turn_tcp_refused)            \
    X(turn_tcp_joined) X(turn_tcp_bulk)                                                            \
    /* DIG. Connections, messages, what was refused or lost. */                                    \
    X(dig_accepted) X(dig_closed) X(dig_timeouts) X(dig_swept) X(dig_hoard) X(dig_floods)          \
    X(dig_bad_heads) X(dig_bad_frames) X(dig_tls_ok) X(dig_tls_failed) X(dig_refused)              \
    X(dig_http) X(dig_messages) X(dig_errors) X(dig_relayed) X(dig_relayed_bytes)                  \
    X(dig_broadcasts) X(dig_held) X(dig_lost) X(dig_presence_lost) X(dig_mailed)                   \
    /* Gossip: messages that came, were passed on, written to peers; dropped, by cause. */          \
    X(gossip_offered) X(gossip_accepted) X(gossip_sent) X(gossip_out_bytes) X(gossip_own)          \
    X(gossip_own_unheard) X(gossip_invalid) X(gossip_strange) X(gossip_duplicate)                  \
    X(gossip_over_sender) X(gossip_over_author) X(gossip_over_topic) X(gossip_over_receiver)       \
    X(gossip_no_memory) X(gossip_unread) X(gossip_stalled)                                         \
    X(gossip_fed_heard) X(gossip_fed_bad) X(gossip_fed_taken)                                      \
    X(dig_punch_requests) X(dig_punch_successes) X(dig_punch_failures) X(dig_punch_dropped)
#define STATS_GAUGES(X)                                                                            \
    X(conns) X(conns_secured) X(reservations) X(circuits) X(streams) X(chunk_bytes) X(tx_queued)\
    X(turn_allocations) X(turn_permissions) X(turn_channels) X(turn_tcp_conns) X(turn_streams)     \
    X(dig_conns)
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
