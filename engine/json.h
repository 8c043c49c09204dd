/* engine/json.h: the little JSON that leaves and enters by the operator's doors: objects written
 * into a bounded buffer, and one flat request object read. Pure. The wire's JSON is not this
 * (design.md "message" path). */
#ifndef SLUICE_ENGINE_JSON_H
#define SLUICE_ENGINE_JSON_H

#include "proto/base.h"

/* Output that does not fit sets bad; what was written before stays well-formed only if the caller
 * throws it away. Commas are put where they belong. */
struct jw {
    char *p;
    size_t n, cap; /* p[n] is the terminator while !bad */
    bool bad;
    bool comma;
};
struct jw jw_of(char *p, size_t cap);
void jw_open(struct jw *j, char bracket);  /* { or [ */
void jw_close(struct jw *j, char bracket); /* } or ] */
void jw_key(struct jw *j, const char *key);
/* Bytes that are no UTF-8 become U+FFFD; control characters are escaped; NULL is null. */
void jw_str(struct jw *j, const char *text);
void jw_u64(struct jw *j, uint64_t v);
void jw_bool(struct jw *j, bool v);
/* key and value at once */
void jw_kstr(struct jw *j, const char *key, const char *text);
void jw_ku64(struct jw *j, const char *key, uint64_t v);
void jw_kbool(struct jw *j, const char *key, bool v);

/* The length of the UTF-8 sequence at p, of which n bytes are there; 0 if it is none (RFC 3629 §4:
 * no overlong forms, no surrogates, nothing above U+10FFFF). */
size_t json_utf8_len(const uint8_t *p, size_t n);

/* A request: one object whose values are strings, whole numbers or booleans, at most
 * JSON_FIELDS_MAX of them; nothing nested, nothing behind it but blanks. */
enum { JSON_FIELDS_MAX = 8, JSON_TEXT_MAX = 128 };
struct json_field {
    char key[32];
    char text[JSON_TEXT_MAX]; /* strings unescaped; numbers and booleans as written */
};
struct json_flat {
    struct json_field field[JSON_FIELDS_MAX];
    unsigned n;
};
MUST_USE bool json_flat_decode(struct bytes in, struct json_flat *out);
const char *json_flat_get(const struct json_flat *o, const char *key); /* NULL: absent */

#endif
