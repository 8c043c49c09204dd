/* proto/http_head.h: the head of one HTTP/1.1 request, bounded (RFC 9112 §2-§5, RFC 9110 §5). For
 * doors that serve one exchange, or one upgrade, on a connection: a body is not looked at. Pure.
 * Shapes:  every struct bytes borrows from the bytes that were decoded; p is NULL where the request
 *          has no such part, and set with n 0 where the part is empty.
 * Errors:  HTTP_HEAD_BAD and _LARGE; what is answered (400 and 431, or nothing: dig.md §2.7) is the
 *          caller's. Versions and methods are told, not judged. */
#ifndef SLUICE_PROTO_HTTP_HEAD_H
#define SLUICE_PROTO_HTTP_HEAD_H

#include "proto/base.h"

enum { HTTP_HEAD_BYTES_MAX = 16384 }; /* with the empty line that ends it (dig.md §2.7) */

enum http_head_verdict {
    HTTP_HEAD_MORE,  /* not whole yet */
    HTTP_HEAD_READY, /* the fields below are set */
    HTTP_HEAD_BAD,   /* no request */
    HTTP_HEAD_LARGE, /* no end within the bound */
};

struct http_head {
    /* Where reading goes on: the caller leaves these alone. */
    uint32_t max;
    uint32_t line_at, seen_n; /* the line that is not whole, and what was searched of it */
    bool dig_rules, started;

    /* Of the request. */
    size_t used; /* bytes of the head; what follows it is the next protocol's, and not lost */
    struct bytes method, target, version; /* as sent; version may be empty, or anything */
    int minor;                            /* of an HTTP/1.x; -1: another version, or none */
    struct bytes path;                    /* of the target: no scheme, authority or query */
    struct bytes query;                   /* behind the first '?' */
    struct bytes host;                    /* the field as sent */
    bool wants_ws; /* the last Connection has `upgrade`, the last Upgrade is `websocket` */
    struct bytes ws_key, ws_version; /* Sec-WebSocket-Key, Sec-WebSocket-Version */
    bool ws_twice;                   /* one of the two came twice (RFC 6455 §11.3.1, §11.3.5) */
};

/* `max` in 16..HTTP_HEAD_BYTES_MAX. dig_rules: an empty first line is an empty method, and the head
 * must be UTF-8 (dig.md §2.7); otherwise empty lines before the request are skipped (RFC 9112 §2.2)
 * and fields may hold any byte that RFC 9110 §5.5 lets them. */
void http_head_init(struct http_head *h, size_t max, bool dig_rules);
/* Feeds all that came so far, which may have moved since the last call. Looks at each byte a fixed
 * number of times in all, however it comes. A verdict but MORE is final. */
enum http_head_verdict http_head_decode(struct bytes in, struct http_head *h);
/* Whether it is that word in lower case, in whatever case it was sent (ASCII). */
bool http_text_is(struct bytes text, const char *word);

#endif
