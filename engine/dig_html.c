#include "engine/dig_html.h"

const struct dig_doc *dig_doc_find(struct bytes path)
{
    static const char overview[] = "<!doctype html><meta charset=utf-8><title>DIG relay</title>"
                                   "<p>See <a href=/stats.json>/stats.json</a>.";
    static const struct dig_doc docs[] = {
        { "/",
          "text/html; charset=utf-8",
          NULL,
          { (const uint8_t *)overview, sizeof(overview) - 1 } },
    };

    for (size_t i = 0; i < ARRAY_LEN(docs); i++)
        if (bytes_eq(path, bytes_str(docs[i].path)))
            return &docs[i];
    return NULL;
}
