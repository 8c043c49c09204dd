/* engine/turn_stream.h: clients on TCP (RFC 8656 §3.1, turn.md §10 "Stream framing") and the data
 * connections of RFC 6062 (turn.md §12). */
#ifndef SLUICE_ENGINE_TURN_STREAM_H
#define SLUICE_ENGINE_TURN_STREAM_H

#include "engine/turn_shard.h"

/* ---- clients -----------------------------------------------------------------------------------
 */

MUST_USE int turn_streams_init(struct turn_shard *ts);
void turn_streams_fini(struct turn_shard *ts);
void turn_stream_listen(struct turn_shard *ts, int fd, const struct netaddr *bound);
/* A stream that another shard accepted; `late` came on it and was not looked at. Takes both. */
void turn_stream_adopt(struct turn_shard *ts, int fd, const struct turn_tuple *tuple,
                       struct chunkq *late);
/* Of a 5-tuple; NULL. */
struct turn_stream *turn_stream_find(struct turn_shard *ts, const struct turn_tuple *tuple);
bool turn_stream_alive(struct turn_shard *ts, const struct turn_tuple *tuple);
/* Queues one unit, padded to four (RFC 8656 §12.5). Copies. A reply is taken unless memory is short
 * or the peer does not read; data is dropped (and counted) above TURN_STREAM_HIGH. */
bool turn_stream_send(struct turn_stream *st, struct bytes head, struct bytes data, bool is_data);
void turn_stream_close(struct turn_stream *st); /* its client has gone, or shall */
/* Its 5-tuple's allocation lives on another shard: fd and all that came behind the unit being
 * handled go there. Called from within turn_on_unit only. */
void turn_stream_hand_over(struct turn_stream *st, unsigned shard, struct bytes unit);

/* OP_TURN_ACCEPT, OP_TURN_RECV, OP_TURN_SEND, OP_TURN_CANCEL; TIMER_TURN_STREAM; the flush and the
 * end of closed ones at the end of a pass. */
void turn_stream_on_cqe(struct turn_shard *ts, const struct ring_cqe *cqe);
void turn_stream_on_timer(struct turn_shard *ts, struct timer *t);
void turn_streams_pass(struct turn_shard *ts);
void turn_streams_worked(struct turn_shard *ts, int work); /* of their share of a turn, too */
void turn_streams_stop(struct turn_shard *ts);
bool turn_streams_ended(const struct turn_shard *ts);
bool turn_streams_busy(const struct turn_shard *ts);

/* ---- data connections (turn_raw.c) -------------------------------------------------------------
 */

MUST_USE int turn_raws_init(struct turn_shard *ts);
void turn_raws_fini(struct turn_shard *ts);
/* The relayed address of a TCP allocation listens; connections to it go to turn_on_incoming. */
void turn_raw_listen(struct turn_shard *ts, struct turn_client *c, enum turn_family f);
void turn_raw_unlisten(struct turn_shard *ts, struct turn_client *c,
                       enum turn_family f); /* closes listen_fd */
void turn_raw_connect(struct turn_shard *ts, struct turn_conn *conn, const struct netaddr *from);
/* After the reply to ConnectionBind: `st`'s bytes are the peer's from now on, those behind the
 * unit being handled included. */
void turn_raw_join(struct turn_shard *ts, struct turn_conn *conn, struct turn_stream *st);
void turn_raw_close(struct turn_shard *ts, struct turn_conn *conn);      /* TURN_CLOSE */
void turn_raw_on_cqe(struct turn_shard *ts, const struct ring_cqe *cqe); /* OP_TURN_RAW */
void turn_raws_pass(struct turn_shard *ts); /* those with more to move than one pass may */
bool turn_raws_busy(const struct turn_shard *ts);
bool turn_raws_ended(const struct turn_shard *ts);

#endif
