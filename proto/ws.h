/* proto/ws.h: WebSocket (RFC 6455), the server's side, and as much of a client's as tools and tests
 * need. No extension, no subprotocol. Pure: parses and unmasks in the caller's buffer; what is kept
 * between inputs is a header or a control payload that was cut, never a byte of a message.
 * Shapes:  ws_event.p borrows from the fed buffer (messages, and control payloads that lie whole in
 *          it) or from the ws_rx; valid until the next call.
 * Units:   bytes of payload, without headers.
 * Errors:  WS_BAD names the close code of RFC 6455 §7.4.1 and is final. */
#ifndef SLUICE_PROTO_WS_H
#define SLUICE_PROTO_WS_H

#include "proto/http_head.h"
#include "proto/utf8.h"

enum {
    WS_HEAD_MAX = 10,         /* of a server's frame, which has no mask */
    WS_CLIENT_HEAD_MAX = 14,  /* with mask */
    WS_CONTROL_MAX = 125,     /* RFC 6455 §5.5 */
    WS_ACCEPT_MAX = 136,      /* the answer to an upgrade */
    WS_MESSAGE_MAX = 1 << 30, /* the largest limit that ws_rx_init takes */
};

enum ws_opcode { /* RFC 6455 §5.2 */
                 WS_OP_CONTINUATION = 0,
                 WS_OP_TEXT = 1,
                 WS_OP_BINARY = 2,
                 WS_OP_CLOSE = 8,
                 WS_OP_PING = 9,
                 WS_OP_PONG = 10,
};

enum ws_code {                   /* RFC 6455 §7.4.1 */
               WS_CODE_NONE = 0, /* ours: a Close without a payload; never sent */
               WS_CODE_NORMAL = 1000,
               WS_CODE_AWAY = 1001,
               WS_CODE_PROTOCOL = 1002,
               WS_CODE_DATA = 1007, /* a text that is no UTF-8 */
               WS_CODE_POLICY = 1008,
               WS_CODE_TOO_BIG = 1009,
};

/* ---- the opening handshake (RFC 6455 §4.2, dig.md §3.1) ------------------------------------ */

/* Of a head that wants_ws: GET, HTTP/1.1, version 13, a key (whatever is in it). Else close. */
bool ws_upgrade_ok(const struct http_head *h);
/* The 101 with nothing but what it needs; returns its length. */
size_t ws_accept_encode(const struct http_head *h, char out[WS_ACCEPT_MAX]);

/* ---- receiving ----------------------------------------------------------------------------- */

enum ws_step {
    WS_NEED_MORE, /* the input is consumed */
    WS_PIECE,     /* payload of a data message */
    WS_PING,      /* whole, <= WS_CONTROL_MAX bytes; answer with the same payload */
    WS_PONG,
    WS_CLOSE, /* answer with ws_close_reply; whatever follows is consumed and ignored */
    WS_BAD,
};

struct ws_event {
    uint8_t *p;
    size_t n;       /* of a piece: 0 for an empty frame only */
    bool text;      /* of a piece: the message is text, and valid UTF-8 so far */
    bool first;     /* this piece begins a message */
    bool last;      /* and this one ends it; both: the message lies whole at p */
    bool final;     /* the piece is of the message's last frame: message_n will not grow */
    size_t frame_n; /* declared length of the frame that the piece is of */
    /* Of the message up to the end of that frame, <= the limit: what to reserve. */
    size_t message_n;
    uint16_t code; /* WS_CLOSE: as sent, or WS_CODE_NONE; WS_BAD: why */
};

struct ws_rx {
    uint32_t max;       /* bytes of a message */
    uint32_t left;      /* payload of the frame that has not come */
    uint32_t frame_n;   /* its length */
    uint32_t message_n; /* payload of the message up to the end of this frame */
    uint16_t code;      /* of the fault that ended it */
    uint8_t state;      /* enum in ws.c */
    uint8_t first;      /* byte 0 of the frame's header: FIN, RSV, opcode */
    uint8_t message;    /* opcode of the message being received; 0: none */
    bool begun;         /* a piece of it was given */
    bool client;        /* we are the client: frames come unmasked */
    uint8_t kept_n;
    struct utf8 utf8;             /* of the text; whole between messages */
    uint8_t mask[4];              /* turned so that [0] is the next byte's */
    uint8_t kept[WS_CONTROL_MAX]; /* of a header, or of a control payload */
};
static_assert(sizeof(struct ws_rx) <= 160, "held by every idle connection");

void ws_rx_init(struct ws_rx *w, size_t max_message_bytes);        /* a server's */
void ws_rx_init_client(struct ws_rx *w, size_t max_message_bytes); /* of tools and tests */
/* Takes one event off the front of the input and moves *p and *n past it; unmasks in place. Call
 * until WS_NEED_MORE. However a stream is cut, the events are the same, but for the cuts between
 * the pieces of one message; and a message with a fault in it (WS_BAD) may have given pieces, which
 * are void. `n` of one call is at most UINT32_MAX. */
enum ws_step ws_next(struct ws_rx *w, uint8_t **p, size_t *n, struct ws_event *ev);

/* The payload of our Close in answer to a WS_CLOSE (dig.md §3.3): the same; 1002 for a code that
 * may not be sent. Returns its length. */
size_t ws_close_reply(const struct ws_event *ev, uint8_t out[WS_CONTROL_MAX]);
bool ws_code_ok(uint16_t code); /* whether a Close may carry it (RFC 6455 §7.4) */

/* ---- sending ------------------------------------------------------------------------------- */

/* The header of a whole, unmasked frame; returns its length. */
size_t ws_head_encode(uint8_t out[WS_HEAD_MAX], enum ws_opcode op, size_t payload_n);
/* A client's: FIN or not, and the mask that ws_mask will put over the payload. */
size_t ws_client_head_encode(uint8_t out[WS_CLIENT_HEAD_MAX], enum ws_opcode op, bool fin,
                             size_t payload_n, const uint8_t key[4]);
/* XORs n bytes that begin `at` bytes into the payload (RFC 6455 §5.3): masks, and unmasks. */
void ws_mask(uint8_t *p, size_t n, const uint8_t key[4], size_t at);
void ws_mask_scalar(uint8_t *p, size_t n, const uint8_t key[4], size_t at); /* its plain twin */

#endif
