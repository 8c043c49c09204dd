/* The opening handshake, the server's side (RFC 6455 §4.2). */
#include "proto/ws.h"

#include "proto/baseenc.h"
#include "proto/crypto.h"

bool ws_upgrade_ok(const struct http_head *h)
{
    return h->wants_ws && h->minor == 1 && bytes_eq(h->method, bytes_str("GET")) &&
           bytes_eq(h->ws_version, bytes_str("13")) && h->ws_key.p && !h->ws_twice;
}

/* Spelling and order of the fields are those that dig.md §3.1 gives. */
size_t ws_accept_encode(const struct http_head *h, char out[WS_ACCEPT_MAX])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* RFC 6455 §1.3 */
    struct bytes parts[] = { h->ws_key, bytes_of(guid, sizeof(guid) - 1) };
    struct wcur w = wcur_of(out, WS_ACCEPT_MAX);
    uint8_t digest[20];

    crypto_sha1_n(parts, ARRAY_LEN(parts), digest);
    wcur_put(&w, bytes_str("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\n"
                           "upgrade: websocket\r\nsec-websocket-accept: "));
    base64_encode(&w, bytes_of(digest, sizeof(digest)));
    wcur_put(&w, bytes_str("\r\n\r\n"));
    ASSERT(!w.bad);
    return w.wrote;
}
