/* proto/gossip_int.h: between the files of the gossip hub. */
#ifndef SLUICE_PROTO_GOSSIP_INT_H
#define SLUICE_PROTO_GOSSIP_INT_H

#include "proto/gossip_hub.h"

/* gossip_table.c */
uint64_t gossip_mix(const struct gossip_hub *h, uint64_t a, uint64_t b);
bool gossip_meter_fits(const struct gossip_meter *m, uint64_t now_ms, const struct gossip_budget *b,
                       uint64_t messages, uint64_t bytes);
/* Is at least half of either bucket left? */
bool gossip_meter_half(const struct gossip_meter *m, uint64_t now_ms,
                       const struct gossip_budget *b);
void gossip_meter_spend(struct gossip_meter *m, uint64_t now_ms, const struct gossip_budget *b,
                        uint64_t messages, uint64_t bytes);
bool gossip_seen_has(const struct gossip_hub *h, uint64_t now_ms, uint64_t id);
void gossip_seen_add(struct gossip_hub *h, uint64_t now_ms, uint64_t id);
void gossip_seen_expire(struct gossip_hub *h, uint64_t now_ms);
struct gossip_kept *gossip_kept_find(const struct gossip_hub *h, uint64_t now_ms, uint64_t id);
void gossip_kept_add(struct gossip_hub *h, uint64_t now_ms, const struct gossip_take *t,
                     void *payload, struct bytes wire);
void gossip_kept_expire(struct gossip_hub *h, uint64_t now_ms);
struct gossip_author *gossip_author_of(struct gossip_hub *h, const struct peer_id *author);
/* NULL: nothing is known of it. */
const struct gossip_author *gossip_author_find(const struct gossip_hub *h,
                                               const struct peer_id *author);
/* The cell of (a, b), counted anew when it is older than age_ms. */
struct gossip_cell *gossip_cell(const struct gossip_hub *h, struct gossip_cell *cells,
                                uint64_t now_ms, uint64_t age_ms, uint64_t a, uint64_t b);

/* gossip_queue.c */
void gossip_deliver(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *p, uint64_t id,
                    uint8_t topic, void *payload, struct bytes wire);
void gossip_fifo_clear(struct gossip_hub *h, struct gossip_fifo *f);
bool gossip_fifo_add_id(struct gossip_hub *h, struct gossip_fifo *f, uint64_t now_ms, uint64_t id,
                        uint8_t topic);
struct gossip_node *gossip_fifo_pop(struct gossip_fifo *f);
void gossip_node_free(struct gossip_hub *h, struct gossip_node *n);
void gossip_queue_clear(struct gossip_hub *h, struct gossip_peer *p, enum gossip_cause why);
void gossip_queue_tick(struct gossip_hub *h, uint64_t now_ms);

#endif
