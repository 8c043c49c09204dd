#include "proto/dig.h"

#include "proto/dig_scan.h" /* DIG_DEPTH_MAX */

#include <yyjson.h>

/* ---- shapes: what each message must look like (dig.md §5, §10.2, §15.3) --------------------- */

enum kind {
    K_STRING,
    K_STRING_OR_NULL, /* get_peers alone (dig.md §4.1) */
    K_STRINGS,
    K_BOOL,
    K_U16,
    K_U32,
    K_U64,
    K_BYTES, /* array of 0..255 */
    K_ADDR,  /* string that dig_addr_parse() takes */
    K_ADDRS,
    K_OBJECT,
    K_OBJECTS, /* array of them */
};

enum { FIELDS_MAX = 7 }; /* members that one object is asked for, the most: a peer's, and a spare */

struct field {
    const char *name;
    enum kind kind;
    bool required;
    const struct shape *of; /* of a K_OBJECT, of each of K_OBJECTS */
};

struct shape {
    struct field field[FIELDS_MAX]; /* ends at the first without a name */
};

#define MUST(name, kind)                                                                           \
    {                                                                                              \
        name, kind, true, NULL                                                                     \
    }
#define MAY(name, kind)                                                                            \
    {                                                                                              \
        name, kind, false, NULL                                                                    \
    }
#define TYPE MUST("type", K_STRING) /* index 0 of every message; its value is known by then */

static const struct shape peer_shape = {
    { MUST("peer_id", K_STRING), MUST("network_id", K_STRING), MUST("protocol_version", K_U32),
      MUST("connected_at", K_U64), MUST("last_seen", K_U64), MAY("addresses", K_ADDRS) }
};
static const struct shape record_shape = { { MUST("content_key", K_STRING),
                                             MUST("providers", K_U64) } };
static const struct shape pex_addr_shape = { { MAY("host", K_STRING), MAY("port", K_U16),
                                               MAY("kind", K_STRING) } };
static const struct shape pex_entry_shape = { { MAY("peer_id", K_STRING),
                                                { "addresses", K_OBJECTS, false, &pex_addr_shape },
                                                MAY("network_id", K_STRING),
                                                MAY("last_seen", K_U64),
                                                MAY("via", K_STRING),
                                                MAY("flags", K_STRINGS) } };

static const struct {
    const char *name;
    struct shape shape;
} messages[DIG_TYPES] = {
    [DIG_REGISTER] = { "register",
                       { { TYPE, MUST("peer_id", K_STRING), MUST("network_id", K_STRING),
                           MUST("protocol_version", K_U32), MAY("listen_addrs", K_ADDRS) } } },
    [DIG_UNREGISTER] = { "unregister", { { TYPE, MUST("peer_id", K_STRING) } } },
    [DIG_RELAY_MESSAGE] = { "relay_message",
                            { { TYPE, MUST("from", K_STRING), MUST("to", K_STRING),
                                MUST("payload", K_BYTES), MUST("seq", K_U64) } } },
    [DIG_BROADCAST] = { "broadcast",
                        { { TYPE, MUST("from", K_STRING), MUST("payload", K_BYTES),
                            MUST("exclude", K_STRINGS) } } },
    [DIG_GET_PEERS] = { "get_peers", { { TYPE, MAY("network_id", K_STRING_OR_NULL) } } },
    [DIG_PING] = { "ping", { { TYPE, MUST("timestamp", K_U64) } } },
    [DIG_HOLE_PUNCH_REQUEST] = { "hole_punch_request",
                                 { { TYPE, MUST("peer_id", K_STRING),
                                     MUST("target_peer_id", K_STRING),
                                     MUST("external_addr", K_ADDR) } } },
    [DIG_HOLE_PUNCH_RESULT] = { "hole_punch_result",
                                { { TYPE, MUST("peer_id", K_STRING), MUST("success", K_BOOL) } } },
    [DIG_DHT_RECORDS] = { "dht_records",
                          { { TYPE,
                              { "records", K_OBJECTS, true, &record_shape },
                              MUST("total_keys", K_U64),
                              MUST("truncated", K_BOOL) } } },
    [DIG_GET_DHT_RECORDS] = { "get_dht_records", { { TYPE, MUST("max_keys", K_U64) } } },
    [DIG_REGISTER_ACK] = { "register_ack",
                           { { TYPE, MUST("success", K_BOOL), MUST("message", K_STRING),
                               MUST("connected_peers", K_U64) } } },
    [DIG_PEERS] = { "peers", { { TYPE, { "peers", K_OBJECTS, true, &peer_shape } } } },
    [DIG_PEER_CONNECTED] = { "peer_connected",
                             { { TYPE, { "peer", K_OBJECT, true, &peer_shape } } } },
    [DIG_PEER_DISCONNECTED] = { "peer_disconnected", { { TYPE, MUST("peer_id", K_STRING) } } },
    [DIG_PONG] = { "pong", { { TYPE, MUST("timestamp", K_U64) } } },
    [DIG_HOLE_PUNCH_COORDINATE] = { "hole_punch_coordinate",
                                    { { TYPE, MUST("peer_id", K_STRING),
                                        MUST("external_addr", K_ADDR) } } },
    [DIG_ERROR] = { "error", { { TYPE, MUST("code", K_U32), MUST("message", K_STRING) } } },
    [DIG_PEX_HANDSHAKE] = { "pex_handshake",
                            { { TYPE, MUST("version", K_U32), MUST("network_id", K_STRING),
                                MUST("interval", K_U32), MAY("flags", K_STRINGS) } } },
    [DIG_PEX_SNAPSHOT] = { "pex_snapshot",
                           { { TYPE, { "peers", K_OBJECTS, true, &pex_entry_shape } } } },
    [DIG_PEX_DELTA] = { "pex_delta",
                        { { TYPE,
                            { "added", K_OBJECTS, true, &pex_entry_shape },
                            MUST("dropped", K_STRINGS) } } },
    [DIG_PEX_ERROR] = { "pex_error", { { TYPE, MUST("code", K_U16), MUST("message", K_STRING) } } },
};

/* ---- values -------------------------------------------------------------------------------- */

static struct bytes text_of(yyjson_val *v) /* of a string, of a number that is left as it came */
{
    return bytes_of(unsafe_yyjson_get_raw(v), unsafe_yyjson_get_len(v));
}

static struct dig_list list_of(yyjson_val *array) /* NULL: an optional one that is not there */
{
    struct dig_list none = { .left = 0 };

    return array ? (struct dig_list){ unsafe_yyjson_get_first(array), yyjson_arr_size(array) }
                 : none;
}

static yyjson_val *list_next(struct dig_list *list)
{
    yyjson_val *v = (yyjson_val *)(uintptr_t)list->next; /* yyjson takes no const */

    if (list->left == 0)
        return NULL;
    list->next = unsafe_yyjson_get_next(v);
    list->left--;
    return v;
}

/* Numbers are kept as text (see parse()), so that 5.0, 5e0, -1 and what is too large fall through
 * here and u64 survives whole (dig.md §4.1). */
static bool is_uint(yyjson_val *v, uint64_t max)
{
    uint64_t ignored;

    return yyjson_is_raw(v) && netaddr_parse_decimal(text_of(v), max, &ignored);
}

static uint64_t uint_of(yyjson_val *v)
{
    uint64_t u = 0;
    bool fine = netaddr_parse_decimal(text_of(v), UINT64_MAX, &u);

    ASSERT(fine); /* is_uint() was asked */
    return u;
}

static bool is_addr(yyjson_val *v)
{
    struct dig_addr ignored;

    return yyjson_is_str(v) && dig_addr_parse(text_of(v), &ignored);
}

static bool read_object(yyjson_val *v, const struct shape *shape, yyjson_val *got[FIELDS_MAX]);

static bool is_shape(yyjson_val *v, const struct shape *shape)
{
    yyjson_val *got[FIELDS_MAX];

    return read_object(v, shape, got);
}

/* Recurses as deep as the shapes are nested, which is three; what a peer nests is not followed. */
static bool is_kind(yyjson_val *v, enum kind kind, const struct shape *of)
{
    static const enum kind element[] = {
        [K_STRINGS] = K_STRING, [K_ADDRS] = K_ADDR, [K_OBJECTS] = K_OBJECT
    };

    switch (kind) {
    case K_STRING:
        return yyjson_is_str(v);
    case K_STRING_OR_NULL:
        return yyjson_is_str(v) || yyjson_is_null(v);
    case K_BOOL:
        return yyjson_is_bool(v);
    case K_U16:
        return is_uint(v, UINT16_MAX);
    case K_U32:
        return is_uint(v, UINT32_MAX);
    case K_U64:
        return is_uint(v, UINT64_MAX);
    case K_ADDR:
        return is_addr(v);
    case K_OBJECT:
        return is_shape(v, of);
    case K_BYTES:
    case K_STRINGS:
    case K_ADDRS:
    case K_OBJECTS:
        break;
    }
    if (!yyjson_is_arr(v))
        return false;
    struct dig_list list = list_of(v);

    while ((v = list_next(&list)))
        if (kind == K_BYTES ? !is_uint(v, UINT8_MAX) : !is_kind(v, element[kind], of))
            return false;
    return true;
}

static int field_of(const struct shape *shape, struct bytes name)
{
    for (int i = 0; i < FIELDS_MAX && shape->field[i].name; i++)
        if (bytes_eq(name, bytes_str(shape->field[i].name)))
            return i;
    return -1;
}

/* A member that is not known may be anything and may come twice; one that is known may not
 * (dig.md §4.1). got[i] is the value of field i, NULL if it is absent. */
static bool read_object(yyjson_val *v, const struct shape *shape, yyjson_val *got[FIELDS_MAX])
{
    yyjson_obj_iter members;
    yyjson_val *name;

    memset(got, 0, FIELDS_MAX * sizeof(got[0]));
    if (!yyjson_obj_iter_init(v, &members)) /* no object, or no JSON at all */
        return false;
    while ((name = yyjson_obj_iter_next(&members))) {
        int i = field_of(shape, text_of(name));

        if (i < 0)
            continue;
        v = yyjson_obj_iter_get_val(name);
        if (got[i] || !is_kind(v, shape->field[i].kind, shape->field[i].of))
            return false;
        got[i] = v;
    }
    for (int i = 0; i < FIELDS_MAX && shape->field[i].name; i++)
        if (shape->field[i].required && !got[i])
            return false;
    return true;
}

/* ---- names (D9) ---------------------------------------------------------------------------- */

/* Control characters would forge lines of a log: C0 and DEL, and C1, which begin with 0xc2 in
 * UTF-8. */
bool dig_name_ok(struct bytes name)
{
    if (name.n > DIG_NAME_MAX)
        return false;
    for (size_t i = 0; i < name.n; i++) {
        uint8_t ch = name.p[i];
        bool c1 = ch == 0xc2 && i + 1 < name.n && name.p[i + 1] < 0xa0;

        if (ch < 0x20 || ch == 0x7f || c1)
            return false;
    }
    return true;
}

static int hex_digit(uint8_t ch)
{
    uint8_t low = ch | 0x20;

    if (ch >= '0' && ch <= '9')
        return ch - '0';
    return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

static bool is_hex_id(struct bytes id) /* 64 lower-case digits (dig.md §5, §12) */
{
    for (size_t i = 0; i < id.n; i++)
        if (hex_digit(id.p[i]) < 0 || (id.p[i] >= 'A' && id.p[i] <= 'F'))
            return false;
    return id.n == 64;
}

/* ---- messages ------------------------------------------------------------------------------ */

static bool in_both(struct dig_list added, struct dig_list dropped)
{
    struct bytes ids[DIG_PEX_DELTA_MAX];
    yyjson_val *v, *got[FIELDS_MAX];
    size_t n = 0;

    if (added.left > DIG_PEX_DELTA_MAX || dropped.left > DIG_PEX_DELTA_MAX)
        return false; /* refused for its size before anybody asks (dig.md §10.6) */
    while ((v = list_next(&added))) {
        bool fine = read_object(v, &pex_entry_shape, got);

        ASSERT(fine); /* it was checked with the message */
        ids[n++] = got[0] ? text_of(got[0]) : bytes_str("");
    }
    while ((v = list_next(&dropped)))
        for (size_t i = 0; i < n; i++)
            if (bytes_eq(ids[i], text_of(v)))
                return true;
    return false;
}

static bool fill_register(yyjson_val *const got[], struct dig_rules rules, struct dig_msg *m)
{
    m->u.reg.peer_id = text_of(got[1]);
    m->u.reg.network_id = text_of(got[2]);
    m->u.reg.protocol_version = (uint32_t)uint_of(got[3]);
    m->u.reg.listen_addrs = list_of(got[4]);
    return dig_name_ok(m->u.reg.peer_id) && dig_name_ok(m->u.reg.network_id) &&
           (!rules.hex_ids || is_hex_id(m->u.reg.peer_id));
}

/* got[] is in the order of the message's shape, got[0] its type. */
static bool fill(yyjson_val *const got[], struct dig_rules rules, struct dig_msg *m)
{
    switch (m->type) {
    case DIG_REGISTER:
        return fill_register(got, rules, m);
    case DIG_RELAY_MESSAGE:
        m->u.relay.from = text_of(got[1]);
        m->u.relay.to = text_of(got[2]);
        m->u.relay.payload_count = yyjson_arr_size(got[3]);
        m->u.relay.seq = uint_of(got[4]);
        break;
    case DIG_BROADCAST:
        m->u.relay.from = text_of(got[1]);
        m->u.relay.payload_count = yyjson_arr_size(got[2]);
        m->u.relay.exclude_count = yyjson_arr_size(got[3]);
        break;
    case DIG_GET_PEERS:
        m->u.get_peers.given = yyjson_is_str(got[1]);
        if (m->u.get_peers.given)
            m->u.get_peers.network_id = text_of(got[1]);
        break;
    case DIG_PING:
        m->u.ping.timestamp = uint_of(got[1]);
        break;
    case DIG_HOLE_PUNCH_REQUEST:
        m->u.punch.target_peer_id = text_of(got[2]);
        return dig_addr_parse(text_of(got[3]), &m->u.punch.external_addr);
    case DIG_HOLE_PUNCH_RESULT:
        m->u.punch_result.peer_id = text_of(got[1]);
        m->u.punch_result.success = yyjson_get_bool(got[2]);
        break;
    case DIG_DHT_RECORDS:
        m->u.dht.records = list_of(got[1]);
        m->u.dht.records.left = min_sz(m->u.dht.records.left, DIG_RECORDS_MAX); /* D13 */
        m->u.dht.total_keys = uint_of(got[2]);
        m->u.dht.truncated = yyjson_get_bool(got[3]);
        break;
    case DIG_PEX_HANDSHAKE:
        m->u.pex_handshake.version = (uint32_t)uint_of(got[1]);
        m->u.pex_handshake.network_id = text_of(got[2]);
        m->u.pex_handshake.interval = (uint32_t)uint_of(got[3]);
        break;
    case DIG_PEX_SNAPSHOT:
        m->u.pex_snapshot.peers = yyjson_arr_size(got[1]);
        break;
    case DIG_PEX_DELTA:
        m->u.pex_delta.added = yyjson_arr_size(got[1]);
        m->u.pex_delta.dropped = yyjson_arr_size(got[2]);
        m->u.pex_delta.overlap = in_both(list_of(got[1]), list_of(got[2]));
        break;
    case DIG_PEX_ERROR:
        m->u.pex_error.code = (uint16_t)uint_of(got[1]);
        break;
    default: /* unregister, get_dht_records and what is ignored: the type says it all */
        break;
    }
    return true;
}

/* ---- the text ------------------------------------------------------------------------------ */

/* yyjson nests without end. Brackets outside strings are enough to see it: if the text is no JSON,
 * yyjson says so. */
static bool depth_ok(struct bytes text)
{
    size_t depth = 0;
    bool quoted = false;

    for (size_t i = 0; i < text.n; i++) {
        uint8_t ch = text.p[i];

        if (ch == '"')
            quoted = !quoted;
        else if (quoted)
            i += ch == '\\';
        else if ((ch == '[' || ch == '{') && ++depth > DIG_DEPTH_MAX)
            return false;
        else if ((ch == ']' || ch == '}') && depth)
            depth--;
    }
    return true;
}

/* Numbers stay text: a double would lose what the widths are judged by, and turn a number that
 * nobody asked for into an error when it is too large for one. */
static yyjson_val *parse(struct bytes text, void *pool, size_t pool_bytes)
{
    yyjson_alc alc;

    if (!depth_ok(text) || !yyjson_alc_pool_init(&alc, pool, pool_bytes))
        return NULL;
    char *in = (char *)(uintptr_t)text.p; /* without YYJSON_READ_INSITU it is only read */

    return yyjson_doc_get_root(yyjson_read_opts(in, text.n, YYJSON_READ_NUMBER_AS_RAW, &alc, NULL));
}

/* The string member `type`, NULL if there is none or more than one. */
static yyjson_val *type_of(yyjson_val *root)
{
    static const struct shape any = { { TYPE } };
    yyjson_val *got[FIELDS_MAX];

    return read_object(root, &any, got) ? got[0] : NULL;
}

enum dig_verdict dig_decode(struct bytes text, struct dig_rules rules, void *pool,
                            size_t pool_bytes, struct dig_msg *out)
{
    yyjson_val *root = parse(text, pool, pool_bytes), *got[FIELDS_MAX];
    yyjson_val *tag = type_of(root);
    struct dig_msg m = { .type = DIG_REGISTER };

    if (!tag)
        return DIG_BAD;
    struct bytes name = text_of(tag);
    enum dig_verdict bad = name.n >= 4 && memcmp(name.p, "pex_", 4) == 0 ? DIG_PEX_BAD : DIG_BAD;

    while (m.type < DIG_TYPES && !bytes_eq(name, bytes_str(messages[m.type].name)))
        m.type++;
    if (m.type == DIG_TYPES || !read_object(root, &messages[m.type].shape, got) ||
        !fill(got, rules, &m))
        return bad;
    *out = m;
    return m.type >= DIG_REGISTER_ACK && m.type <= DIG_ERROR ? DIG_IGNORED : DIG_OK;
}

bool dig_listen_next(struct dig_list *list, struct dig_addr *out)
{
    yyjson_val *v = list_next(list);

    return v && dig_addr_parse(text_of(v), out);
}

static bool key_of(struct bytes hex, uint8_t key[32])
{
    if (hex.n != 64)
        return false;
    for (size_t i = 0; i < 32; i++) {
        int high = hex_digit(hex.p[2 * i]), low = hex_digit(hex.p[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        key[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

bool dig_record_next(struct dig_list *list, struct dig_record *out)
{
    yyjson_val *v, *got[FIELDS_MAX];

    while ((v = list_next(list))) {
        bool fine = read_object(v, &record_shape, got);

        ASSERT(fine);
        if (key_of(text_of(got[0]), out->key)) {
            out->providers = uint_of(got[1]);
            return true;
        }
    }
    return false;
}
