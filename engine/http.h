/* engine/http.h: the one HTTP/1.1 exchange that the monitoring door serves (RFC 9112): one request
 * head, one answer, close. Pure. */
#ifndef SLUICE_ENGINE_HTTP_H
#define SLUICE_ENGINE_HTTP_H

#include "proto/base.h"

enum { HTTP_HEAD_MAX = 8192, HTTP_REPLY_HEAD_MAX = 512 };

enum http_verdict {
    HTTP_MORE,            /* the head is not whole yet */
    HTTP_READY,           /* *req is filled */
    HTTP_BAD,             /* 400 */
    HTTP_LARGE,           /* 431: no end of the head within HTTP_HEAD_MAX */
    HTTP_VERSION_UNKNOWN, /* 505 */
};

struct http_req {
    bool get, head;    /* neither: a method that we do not serve, 405 */
    struct bytes path; /* borrows; without query, always with a leading slash */
};

/* Feeds the whole input so far. A body that follows is not looked at. */
enum http_verdict http_decode(struct bytes in, struct http_req *req);

struct http_reply {
    int status;
    const char *type;  /* Content-Type; NULL: no body */
    const char *allow; /* of a 405 */
    struct bytes body;
};
/* Writes head and body (the head alone for HEAD); returns the length, 0 if it does not fit. */
size_t http_encode(const struct http_reply *r, bool head_only, char *out, size_t cap);
const char *http_reason(int status);

#endif
