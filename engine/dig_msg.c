/* What a whole message means on its shard (dig.md §5): forwarded from here, answered from here, or
 * asked of control. */
#include "engine/control.h"
#include "engine/dig_int.h"

/* ---- limits ------------------------------------------------------------------------------------
 */

/* dig.md §14.2: every whole message, valid or not, before it is looked at. */
static bool message_allowed(struct dig_conn *c, size_t n)
{
    const struct config *cfg = c->ds->host->cfg;
    uint64_t now_ms = c->ds->s->now_ms;

    c->life_bytes += n;
    if ((!cfg->dig_messages_per_conn ||
         dig_spend(&c->messages_tat_ns, now_ms, 1, cfg->dig_messages_per_conn)) &&
        (!cfg->dig_bytes_per_conn ||
         dig_spend(&c->bytes_tat_ns, now_ms, n, cfg->dig_bytes_per_conn)) &&
        (!cfg->dig_bytes_per_conn_max || c->life_bytes <= cfg->dig_bytes_per_conn_max))
        return true;
    STAT_INC(&c->ds->s->stats, dig_floods);
    dig_blame(c);
    dig_end(c, WS_CODE_POLICY, "over its budget of messages or bytes");
    return false;
}

/* ---- asking control ----------------------------------------------------------------------------
 */

void dig_ask(struct dig_conn *c, enum dig_ask_kind kind)
{
    ASSERT(!c->asking);
    c->asking = true;
    c->ask.node.kind = CONTROL_MAIL_DIG; /* it came back as an answer, the last time */
    c->ask.kind = (uint8_t)kind;
    c->ask.code = 0;
    if (mbox_push(&c->ds->s->d->control->mbox, &c->ask.node))
        shard_bell_control(c->ds->s);
}

void dig_leave(struct dig_conn *c, const char *why)
{
    if (why && !c->why)
        c->why = why;
    if (c->asking)
        c->leave_due = true;
    else
        dig_ask(c, DIG_ASK_LEAVE);
}

void dig_error(struct dig_conn *c, unsigned code)
{
    uint8_t text[DIG_MESSAGE_MAX];
    struct wcur w = wcur_of(text, sizeof(text));

    dig_put_error(&w, (enum dig_code)code);
    STAT_INC(&c->ds->s->stats, dig_errors);
    (void)dig_send_text(c, bytes_of(text, w.wrote)); /* or it is closed */
}

/* ---- registration ------------------------------------------------------------------------------
 */

static void register_ack(struct dig_conn *c, unsigned code)
{
    uint32_t all = atomic_load_explicit(&c->ds->host->registered, memory_order_relaxed);
    uint8_t text[DIG_MESSAGE_MAX];
    struct wcur w = wcur_of(text, sizeof(text));

    dig_put_register_ack(&w, code == 0, (enum dig_code)code, all);
    if (!dig_send_text(c, bytes_of(text, w.wrote)) || !code)
        return;
    STAT_INC(&c->ds->s->stats, dig_refused);
    dig_error(c, code);
    dig_end(c, WS_CODE_NONE, "registration refused");
}

static void name_set(char *to, uint8_t *n, struct bytes from)
{
    ASSERT(from.n <= DIG_NAME_MAX);
    *n = (uint8_t)from.n;
    if (from.n)
        memcpy(to, from.p, from.n);
}

/* Steps 1 and 3 of dig.md §6.1 are decided here, the rest by control. */
static void on_register(struct dig_conn *c, struct dig_msg *m)
{
    struct dig_shard *ds = c->ds;
    struct dig_host *h = ds->host;
    struct quota *q = h->quota;
    struct dig_source source = dig_source_key(c->observed.ip);
    uint32_t rate = h->cfg->dig_registers_per_ip;
    struct dig_addr a;
    struct dig_dial dial;

    if (rate && !rate_allow(q, quota_key(q, RATE_DIG_REGISTER_IP, bytes_of(source.b, 16)),
                            ds->s->now_ms, rate, 1000 / min_u64(rate, 1000))) {
        dig_blame(c);
        register_ack(c, DIG_CODE_SOURCE_LIMIT);
        return;
    }
    if (c->verified && /* who was required to show a certificate did */
        !bytes_eq(m->u.reg.peer_id, bytes_of(c->cert, TLS_PEER_ID))) {
        register_ack(c, DIG_CODE_CERTIFICATE);
        return;
    }
    dig_dial_init(&dial, &c->observed);
    while (dig_listen_next(&m->u.reg.listen_addrs, &a))
        dig_dial_add(&dial, &a);
    c->ask.u.reg.version = m->u.reg.protocol_version;
    c->ask.u.reg.addrs_n = (uint8_t)dig_dial_done(&dial, c->ask.u.reg.addrs);
    c->ask.u.reg.source = source;
    name_set(c->ask.u.reg.id, &c->ask.u.reg.id_n, m->u.reg.peer_id);
    name_set(c->ask.u.reg.net, &c->ask.u.reg.net_n, m->u.reg.network_id);
    dig_ask(c, DIG_ASK_REGISTER);
}

static void on_registered(struct dig_conn *c)
{
    struct dig_shard *ds = c->ds;
    struct dig_ask *a = &c->ask;

    if (a->code) {
        if (a->code == DIG_CODE_SOURCE_LIMIT)
            dig_blame(c);
        if (c->state < DIG_FLUSH)
            register_ack(c, a->code);
        return;
    }
    name_set(c->id, &c->id_n, bytes_of(a->u.reg.id, a->u.reg.id_n));
    name_set(c->net, &c->net_n, bytes_of(a->u.reg.net, a->u.reg.net_n));
    c->id_hash = dig_hash_id(ds->host, bytes_of(c->id, c->id_n));
    dig_hash_network(ds->host, bytes_of(c->net, c->net_n), c->net_key);
    const struct peer_id key = dig_home_key(ds->host, c->net_key, bytes_of(c->id, c->id_n));

    c->name = dig_name_of(&key);
    if (c->in_net)
        list_remove(&ds->net[c->net_index], &c->net_link);
    c->net_index = a->u.reg.net_index;
    if (c->net_index >= ds->nets_used)
        ds->nets_used = c->net_index + 1;
    c->join_seq = a->u.reg.join_seq;
    c->version = a->u.reg.version;
    c->connected_unix_s = a->u.reg.connected_unix_s;
    c->registered = true;
    c->in_net = c->state < DIG_FLUSH;
    if (c->in_net) {
        list_append(&ds->net[c->net_index], &c->net_link);
        register_ack(c, 0);
        dig_deadlines(c);
    } else {
        dig_leave(c, NULL);
    }
}

/* ---- answers -----------------------------------------------------------------------------------
 */

static void give_reply(struct dig_conn *c)
{
    struct shared *sh = c->ask.reply;

    c->ask.reply = NULL;
    /* Who waits for an answer that cannot be made is closed: it comes again. */
    if (sh ? c->state == DIG_WS && !dig_send_shared(c, sh, 0, sh->n, 0) : c->ask.code != 0)
        dig_close(c, "no memory for its replies");
    shared_drop(sh);
    if (dig_alive(c) && dig_owed(c) > DIG_CONTROL_ROOM)
        dig_pause(c);
}

void dig_on_answer(struct dig_conn *c)
{
    struct dig_ask *a = &c->ask;

    ASSERT(c->asking);
    c->asking = false;
    switch (a->kind) {
    case DIG_ASK_REGISTER:
        on_registered(c);
        break;
    case DIG_ASK_LEAVE:
        c->registered = c->leave_due = false;
        break;
    case DIG_ASK_PEERS:
    case DIG_ASK_PEX:
        give_reply(c);
        break;
    case DIG_ASK_DHT:
        chunkq_clear(&a->u.dht.records, &c->ds->s->chunks);
        break;
    case DIG_ASK_PAGE:
        dig_on_page(c);
        break;
    }
    if (c->leave_due && c->registered && !c->asking) {
        c->leave_due = false;
        dig_ask(c, DIG_ASK_LEAVE);
    }
    dig_go_on(c);
}

/* ---- the messages ------------------------------------------------------------------------------
 */

static void on_relay(struct dig_conn *c, const struct dig_scan *m)
{
    uint8_t frame[WS_HEAD_MAX], head[DIG_MESSAGE_MAX], id[DIG_NAME_MAX];
    struct wcur w = wcur_of(head, sizeof(head));
    struct dig_to to;
    size_t n;

    STAT_ADD(&c->ds->s->stats, dig_relayed_bytes, m->payload_count);
    if (!dig_unescape(m->to, id, sizeof(id), &n) || !dig_find(c, bytes_of(id, n), &to)) {
        dig_error(c, DIG_CODE_NO_TARGET);
        return;
    }
    dig_put_relay_head(&w, bytes_of(c->id, c->id_n));
    struct bytes parts[8] = { { NULL, 0 }, bytes_of(head, w.wrote) };
    size_t parts_n = 2, total = w.wrote;

    if (m->tail.n) {
        parts[parts_n++] = m->tail;
    } else {
        parts[parts_n++] = m->to;
        parts[parts_n++] = bytes_str(DIG_RELAY_PAYLOAD);
        parts[parts_n++] = m->payload;
        parts[parts_n++] = bytes_str(DIG_RELAY_SEQ);
        parts[parts_n++] = m->seq;
        parts[parts_n++] = bytes_str(DIG_RELAY_END);
    }
    for (size_t i = 2; i < parts_n; i++)
        total += parts[i].n;
    parts[0] = bytes_of(frame, ws_head_encode(frame, WS_OP_TEXT, total));
    STAT_INC(&c->ds->s->stats, dig_relayed);
    dig_deliver(c, to, parts, parts_n);
}

/* The written form of an id with escapes is ours, not the sender's (dig.md §4.2). */
static void on_relay_escaped(struct dig_conn *c, const struct dig_scan *m)
{
    uint8_t id[DIG_NAME_MAX], text[DIG_NAME_TEXT_MAX];
    struct wcur w = wcur_of(text, sizeof(text));
    struct dig_scan again = *m;
    size_t n;

    if (!dig_unescape(m->to, id, sizeof(id), &n)) {
        dig_error(c, DIG_CODE_NO_TARGET);
        return;
    }
    dig_put_string(&w, bytes_of(id, n));
    if (w.bad) { /* more escapes than a name may need: nobody's */
        dig_error(c, DIG_CODE_NO_TARGET);
        return;
    }
    again.to = bytes_of(text, w.wrote);
    again.tail = (struct bytes){ NULL, 0 };
    on_relay(c, &again);
}

static void send_small(struct dig_conn *c, struct bytes id, struct bytes text)
{
    uint8_t frame[WS_HEAD_MAX];
    struct dig_to to;
    const struct bytes parts[2] = { bytes_of(frame, ws_head_encode(frame, WS_OP_TEXT, text.n)),
                                    text };

    if (dig_find(c, id, &to))
        dig_deliver(c, to, parts, 2);
    else
        dig_error(c, DIG_CODE_NO_TARGET);
}

/* Coordinates are rare, and each makes somebody send datagrams: few per requester and per target
 * (D10). */
static void on_punch(struct dig_conn *c, const struct dig_msg *m)
{
    struct quota *q = c->ds->host->quota;
    struct bytes target = m->u.punch.target_peer_id;
    struct peer_id key;
    uint8_t text[DIG_MESSAGE_MAX];
    struct wcur w = wcur_of(text, sizeof(text));
    uint64_t now_ms = c->ds->s->now_ms;

    STAT_INC(&c->ds->s->stats, dig_punch_requests);
    if (target.n > DIG_NAME_MAX) {
        dig_error(c, DIG_CODE_NO_TARGET);
        return;
    }
    key = dig_home_key(c->ds->host, c->net_key, target);
    if (!dig_punch_ok(&m->u.punch.external_addr, &c->observed,
                      c->ds->host->cfg->dig_punch_strict) ||
        !rate_allow(q, quota_key(q, RATE_DIG_PUNCH_FROM, bytes_of(&c->id_hash, 8)), now_ms,
                    DIG_PUNCH_BURST, DIG_PUNCH_MS) ||
        !rate_allow(q, quota_key(q, RATE_DIG_PUNCH_TO, bytes_of(key.b, 16)), now_ms,
                    DIG_PUNCH_BURST, DIG_PUNCH_MS)) {
        STAT_INC(&c->ds->s->stats, dig_punch_dropped);
        return;
    }
    dig_put_hole_punch_coordinate(&w, bytes_of(c->id, c->id_n), &m->u.punch.external_addr);
    send_small(c, target, bytes_of(text, w.wrote));
}

static void on_punch_result(struct dig_conn *c, const struct dig_msg *m)
{
    uint8_t text[DIG_MESSAGE_MAX];
    struct wcur w = wcur_of(text, sizeof(text));

    if (m->u.punch_result.success)
        STAT_INC(&c->ds->s->stats, dig_punch_successes);
    else
        STAT_INC(&c->ds->s->stats, dig_punch_failures);
    if (m->u.punch_result.peer_id.n > DIG_NAME_MAX) {
        dig_error(c, DIG_CODE_NO_TARGET);
        return;
    }
    dig_put_hole_punch_result(&w, m->u.punch_result.peer_id, m->u.punch_result.success);
    send_small(c, m->u.punch_result.peer_id, bytes_of(text, w.wrote));
}

/* The answer that was asked for in this round, once (D13); control knows the round. */
static void on_dht(struct dig_conn *c, struct dig_msg *m)
{
    struct dig_shard *ds = c->ds;
    struct chunkq q = { 0 };
    struct dig_record r;

    while (dig_record_next(&m->u.dht.records, &r)) {
        if (!chunkq_append(&q, &ds->s->chunks, bytes_of(&r, sizeof(r)))) {
            STAT_INC(&ds->s->stats, chunks_dry);
            chunkq_clear(&q, &ds->s->chunks);
            return;
        }
    }
    c->ask.u.dht.records = q;
    c->ask.u.dht.truncated = m->u.dht.truncated;
    dig_ask(c, DIG_ASK_DHT);
}

static void on_get_peers(struct dig_conn *c, const struct dig_msg *m)
{
    c->ask.u.peers.named = m->u.get_peers.given;
    c->ask.u.peers.n = 0;
    if (m->u.get_peers.given && m->u.get_peers.network_id.n > DIG_NAME_MAX)
        c->ask.u.peers.n = UINT8_MAX; /* nobody's */
    else if (m->u.get_peers.given)
        name_set(c->ask.u.peers.name, &c->ask.u.peers.n, m->u.get_peers.network_id);
    dig_ask(c, DIG_ASK_PEERS);
}

static void on_pex(struct dig_conn *c, const struct dig_msg *m)
{
    c->ask.u.pex = pex_frame_of(m, bytes_of(c->net, c->net_n));
    dig_ask(c, DIG_ASK_PEX);
}

static void on_ping(struct dig_conn *c, const struct dig_msg *m)
{
    uint8_t text[DIG_MESSAGE_MAX];
    struct wcur w = wcur_of(text, sizeof(text));

    dig_put_pong(&w, m->u.ping.timestamp);
    (void)dig_send_text(c, bytes_of(text, w.wrote)); /* or it is closed */
}

/* dig.md §5.11, the second row; RELAY_MESSAGE and BROADCAST were recognised by the scan. */
static void on_decoded(struct dig_conn *c, struct dig_msg *m)
{
    switch (m->type) {
    case DIG_REGISTER:
        on_register(c, m);
        return;
    case DIG_UNREGISTER:
        dig_end(c, WS_CODE_NONE, "unregistered");
        return;
    case DIG_GET_PEERS:
        on_get_peers(c, m);
        return;
    case DIG_PING:
        on_ping(c, m);
        return;
    case DIG_HOLE_PUNCH_REQUEST:
        on_punch(c, m);
        return;
    case DIG_HOLE_PUNCH_RESULT:
        on_punch_result(c, m);
        return;
    case DIG_DHT_RECORDS:
        on_dht(c, m);
        return;
    case DIG_PEX_HANDSHAKE:
    case DIG_PEX_SNAPSHOT:
    case DIG_PEX_DELTA:
    case DIG_PEX_ERROR:
        on_pex(c, m);
        return;
    default:
        dig_error(c, DIG_CODE_INVALID);
    }
}

static void decode(struct dig_conn *c, struct bytes text)
{
    struct dig_shard *ds = c->ds;
    const struct dig_rules rules = { .hex_ids = ds->host->cfg->dig_hex_ids_only };
    struct dig_msg m;

    switch (dig_decode(text, rules, ds->json, ds->json_bytes, &m)) {
    case DIG_OK:
        if (!c->registered && m.type != DIG_REGISTER)
            dig_error(c, DIG_CODE_NOT_REGISTERED);
        else
            on_decoded(c, &m);
        return;
    case DIG_IGNORED:
        if (!c->registered)
            dig_error(c, DIG_CODE_NOT_REGISTERED);
        return;
    case DIG_PEX_BAD:
        if (!c->registered)
            dig_error(c, DIG_CODE_NOT_REGISTERED);
        else
            on_pex(c, NULL);
        return;
    case DIG_BAD:
        dig_error(c, DIG_CODE_INVALID);
        return;
    }
}

void dig_on_message(struct dig_conn *c, struct bytes text)
{
    struct shard *s = c->ds->s;
    struct dig_scan m;

    if (!message_allowed(c, text.n))
        return;
    STAT_INC(&s->stats, dig_messages);
    c->data_ms = s->now_ms;
    if (c->registered)
        atomic_store_explicit(&dig_gate_of(c->ds->host, dig_home_of(c))->seen_unix_s, s->now_unix_s,
                              memory_order_relaxed);
    switch (dig_scan(text, &m)) {
    case DIG_SCAN_RELAY:
        if (!c->registered)
            dig_error(c, DIG_CODE_NOT_REGISTERED);
        else if (m.to_escaped)
            on_relay_escaped(c, &m);
        else
            on_relay(c, &m);
        return;
    case DIG_SCAN_BROADCAST:
        if (!c->registered)
            dig_error(c, DIG_CODE_NOT_REGISTERED);
        else
            dig_broadcast(c, &m);
        return;
    case DIG_SCAN_OTHER:
        decode(c, text);
        return;
    }
}
