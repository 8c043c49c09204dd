#include "proto/dig.h"

/* What the relay writes (dig.md §4.2): no blanks, members in the order of the spec, `type` first.
 */

static void put(struct wcur *w, const char *text)
{
    wcur_put(w, bytes_str(text));
}

/* Only what JSON asks for is escaped; everything else goes as it is, in one piece. */
void dig_put_string(struct wcur *w, struct bytes text)
{
    static const char hex[] = "0123456789abcdef", with[] = "btn-fr"; /* U+0008 to U+000D */
    size_t from = 0;

    wcur_u8(w, '"');
    for (size_t i = 0; i < text.n; i++) {
        uint8_t ch = text.p[i];

        if (ch >= 0x20 && ch != '"' && ch != '\\')
            continue;
        wcur_put(w, bytes_of(text.p + from, i - from));
        from = i + 1;
        wcur_u8(w, '\\');
        if (ch >= 0x20) {
            wcur_u8(w, ch);
        } else if (ch >= '\b' && ch <= '\r' && ch != '\v') {
            wcur_u8(w, (uint8_t)with[ch - '\b']);
        } else {
            put(w, "u00");
            wcur_u8(w, (uint8_t)hex[ch >> 4]);
            wcur_u8(w, (uint8_t)hex[ch & 15]);
        }
    }
    if (from < text.n)
        wcur_put(w, bytes_of(text.p + from, text.n - from));
    wcur_u8(w, '"');
}

static void put_bool(struct wcur *w, bool v)
{
    put(w, v ? "true" : "false");
}

void dig_put_comma(struct wcur *w)
{
    wcur_u8(w, ',');
}

/* Free text for people (dig.md §5.10). None of it comes from a client (D9). */
static const char *text_of(enum dig_code code)
{
    switch (code) {
    case DIG_CODE_NOT_REGISTERED:
        return "not registered";
    case DIG_CODE_INVALID:
        return "invalid message";
    case DIG_CODE_NO_TARGET:
        return "target peer not connected";
    case DIG_CODE_FULL:
        return "relay is full";
    case DIG_CODE_ID_TAKEN:
        return "peer_id is already registered";
    case DIG_CODE_CERTIFICATE:
        return "peer_id does not match the client certificate";
    case DIG_CODE_SOURCE_LIMIT:
        return "too many registrations from this address";
    }
    return "error";
}

void dig_put_register_ack(struct wcur *w, bool success, enum dig_code why, uint64_t connected_peers)
{
    put(w, "{\"type\":\"register_ack\",\"success\":");
    put_bool(w, success);
    put(w, ",\"message\":");
    dig_put_string(w, bytes_str(success ? "registered" : text_of(why)));
    put(w, ",\"connected_peers\":");
    netaddr_put_decimal(w, connected_peers);
    put(w, "}");
}

void dig_put_error(struct wcur *w, enum dig_code code)
{
    put(w, "{\"type\":\"error\",\"code\":");
    netaddr_put_decimal(w, (uint64_t)code);
    put(w, ",\"message\":");
    dig_put_string(w, bytes_str(text_of(code)));
    put(w, "}");
}

void dig_put_pong(struct wcur *w, uint64_t timestamp)
{
    put(w, "{\"type\":\"pong\",\"timestamp\":");
    netaddr_put_decimal(w, timestamp);
    put(w, "}");
}

void dig_put_hole_punch_coordinate(struct wcur *w, struct bytes peer_id, const struct dig_addr *a)
{
    put(w, "{\"type\":\"hole_punch_coordinate\",\"peer_id\":");
    dig_put_string(w, peer_id);
    put(w, ",\"external_addr\":\"");
    dig_addr_put(w, a);
    put(w, "\"}");
}

void dig_put_hole_punch_result(struct wcur *w, struct bytes peer_id, bool success)
{
    put(w, "{\"type\":\"hole_punch_result\",\"peer_id\":");
    dig_put_string(w, peer_id);
    put(w, ",\"success\":");
    put_bool(w, success);
    put(w, "}");
}

void dig_put_get_dht_records(struct wcur *w)
{
    static_assert(DIG_RECORDS_MAX == 500, "the text below says so");
    put(w, "{\"type\":\"get_dht_records\",\"max_keys\":500}");
}

/* ---- peers --------------------------------------------------------------------------------- */

void dig_put_peers_head(struct wcur *w)
{
    put(w, "{\"type\":\"peers\",\"peers\":[");
}

void dig_put_peers_tail(struct wcur *w)
{
    put(w, "]}");
}

void dig_put_peer(struct wcur *w, const struct dig_peer *peer)
{
    put(w, "{\"peer_id\":");
    dig_put_string(w, peer->peer_id);
    put(w, ",\"network_id\":");
    dig_put_string(w, peer->network_id);
    put(w, ",\"protocol_version\":");
    netaddr_put_decimal(w, peer->protocol_version);
    put(w, ",\"connected_at\":");
    netaddr_put_decimal(w, peer->connected_at);
    put(w, ",\"last_seen\":");
    netaddr_put_decimal(w, peer->last_seen);
    for (size_t i = 0; i < peer->addresses_n; i++) { /* none: the member is omitted */
        put(w, i ? ",\"" : ",\"addresses\":[\"");
        dig_netaddr_put(w, &peer->addresses[i]);
        put(w, "\"");
    }
    put(w, peer->addresses_n ? "]}" : "}");
}

void dig_put_peer_connected(struct wcur *w, const struct dig_peer *peer)
{
    put(w, "{\"type\":\"peer_connected\",\"peer\":");
    dig_put_peer(w, peer);
    put(w, "}");
}

void dig_put_peer_disconnected(struct wcur *w, struct bytes peer_id)
{
    put(w, "{\"type\":\"peer_disconnected\",\"peer_id\":");
    dig_put_string(w, peer_id);
    put(w, "}");
}

/* ---- what is forwarded --------------------------------------------------------------------- */

void dig_put_relay_head(struct wcur *w, struct bytes from)
{
    put(w, "{\"type\":\"relay_message\",\"from\":");
    dig_put_string(w, from);
    put(w, ",\"to\":");
}

void dig_put_broadcast_head(struct wcur *w, struct bytes from)
{
    put(w, "{\"type\":\"broadcast\",\"from\":");
    dig_put_string(w, from);
    put(w, ",\"payload\":");
}

/* ---- PEX (dig.md §10.2) -------------------------------------------------------------------- */

void dig_put_pex_handshake(struct wcur *w, struct bytes network_id, uint32_t interval)
{
    put(w, "{\"type\":\"pex_handshake\",\"version\":1,\"network_id\":");
    dig_put_string(w, network_id);
    put(w, ",\"interval\":");
    netaddr_put_decimal(w, interval);
    put(w, ",\"flags\":[\"introducer\"]}");
}

void dig_put_pex_entry(struct wcur *w, const struct dig_pex_entry *entry)
{
    put(w, "{\"peer_id\":");
    dig_put_string(w, entry->peer_id);
    put(w, ",\"addresses\":[{\"host\":\"");
    if (netaddr_is4(&entry->observed)) /* a bare literal: no brackets; IPv4 unmapped (D2) */
        netaddr_put_ip4(w, entry->observed.ip + 12);
    else
        netaddr_put_ip6(w, entry->observed.ip);
    put(w, "\",\"port\":");
    netaddr_put_decimal(w, entry->observed.port);
    put(w, ",\"kind\":\"reflexive\"}],\"network_id\":");
    dig_put_string(w, entry->network_id);
    put(w, ",\"last_seen\":");
    netaddr_put_decimal(w, entry->last_seen);
    put(w, ",\"via\":\"introducer\",\"flags\":[\"relay-only\"]}");
}

void dig_put_pex_snapshot_head(struct wcur *w)
{
    put(w, "{\"type\":\"pex_snapshot\",\"peers\":[");
}

void dig_put_pex_snapshot_tail(struct wcur *w)
{
    put(w, "]}");
}

void dig_put_pex_delta_head(struct wcur *w)
{
    put(w, "{\"type\":\"pex_delta\",\"added\":[");
}

void dig_put_pex_delta_dropped(struct wcur *w)
{
    put(w, "],\"dropped\":[");
}

void dig_put_pex_delta_tail(struct wcur *w)
{
    put(w, "]}");
}

void dig_put_pex_error(struct wcur *w, enum dig_pex_code code)
{
    static const char *const texts[] = {
        [DIG_PEX_CODE_BAD_MESSAGE] = "bad message",  [DIG_PEX_CODE_VERSION] = "unsupported version",
        [DIG_PEX_CODE_RATE] = "rate violation",      [DIG_PEX_CODE_OVERSIZED] = "oversized",
        [DIG_PEX_CODE_NETWORK] = "network mismatch", [DIG_PEX_CODE_PROTOCOL] = "protocol violation",
    };

    ASSERT(code >= DIG_PEX_CODE_BAD_MESSAGE && code <= DIG_PEX_CODE_PROTOCOL);
    put(w, "{\"type\":\"pex_error\",\"code\":");
    netaddr_put_decimal(w, (uint64_t)code);
    put(w, ",\"message\":");
    dig_put_string(w, bytes_str(texts[code]));
    put(w, "}");
}
