/* engine/dig_html.h: the pages that people look at (dig.md §15.2): constant documents, compiled in.
 * They fetch /stats.json, /map.json and /dht.json themselves, and load nothing from elsewhere. */
#ifndef SLUICE_ENGINE_DIG_HTML_H
#define SLUICE_ENGINE_DIG_HTML_H

#include "proto/base.h"

struct dig_doc {
    const char *path;  /* "/", "/map", "/dht", and what they load */
    const char *type;  /* of Content-Type */
    const char *cache; /* of Cache-Control; NULL: none is sent */
    struct bytes body;
};
const struct dig_doc *dig_doc_find(struct bytes path); /* NULL: no such document */

#endif
