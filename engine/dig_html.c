#include "engine/dig_html.h"
#include "engine/web/dig_web.h" /* of the build: the files of engine/web */

/* What a page loads is asked for with the build's hash behind it ("/page.js?v=..."), so it may be
 * kept; the pages themselves are fetched anew, and come with a relay's newer ones. */
#define FOR_EVER "public, max-age=31536000, immutable"
#define HTML "text/html; charset=utf-8"
#define BODY(name)                                                                                 \
    {                                                                                              \
        web_##name, sizeof(web_##name)                                                             \
    }

static const struct dig_doc docs[] = {
    { "/", HTML, "no-cache", BODY(index_html) },
    { "/map", HTML, "no-cache", BODY(map_html) },
    { "/dht", HTML, "no-cache", BODY(dht_html) },
    { "/page.css", "text/css; charset=utf-8", FOR_EVER, BODY(page_css) },
    { "/page.js", "text/javascript; charset=utf-8", FOR_EVER, BODY(page_js) },
    { "/icon.svg", "image/svg+xml", FOR_EVER, BODY(icon_svg) },
};

const struct dig_doc *dig_doc_find(struct bytes path)
{
    for (size_t i = 0; i < ARRAY_LEN(docs); i++)
        if (bytes_eq(path, bytes_str(docs[i].path)))
            return &docs[i];
    return NULL;
}
