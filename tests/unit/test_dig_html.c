/* The documents of the relay port (dig.md §15.2): found to the letter, small, whole, and without a
 * word to anybody else. */
#include <criterion/criterion.h>

#include "engine/dig_html.h"
#include "proto/utf8.h"

enum { DOC_MAX = 64 * 1024, ALL_MAX = 60 * 1024, VERSION = 16 };

static const char *const paths[] = { "/", "/map", "/dht", "/page.css", "/page.js", "/icon.svg" };
static const char *const data[] = { "/stats.json", "/map.json", "/dht.json", "/health" };
enum { PAGES = 3 }; /* of the paths: what a person goes to */

static const struct dig_doc *doc_at(const char *path)
{
    const struct dig_doc *d = dig_doc_find(bytes_str(path));

    cr_assert(d, "%s", path);
    return d;
}

static const uint8_t *found(struct bytes in, const char *text)
{
    return memmem(in.p, in.n, text, strlen(text));
}

Test(dig_html, a_document_is_found_by_its_path_to_the_letter)
{
    static const char *const none[] = { "",      "//",   "/Map",  "/map/", "/ma",       "/mapp",
                                        "/dht ", "/DHT", "/dht/", "map",   "/page.css/" };

    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        const struct dig_doc *d = doc_at(paths[i]);

        cr_expect_str_eq(d->path, paths[i]);
        for (size_t n = 1; n < strlen(paths[i]); n++)
            cr_expect(n == 1 || !dig_doc_find(bytes_of(paths[i], n)), "%zu of %s", n, paths[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(none); i++)
        cr_expect(!dig_doc_find(bytes_str(none[i])), "%s", none[i]);
    for (size_t i = 0; i < ARRAY_LEN(data); i++)
        cr_expect(!dig_doc_find(bytes_str(data[i])), "%s", data[i]);
    cr_expect(!dig_doc_find(bytes_of("/map\0", 5)));
}

Test(dig_html, what_a_page_loads_is_kept_and_the_page_is_not)
{
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        const struct dig_doc *d = doc_at(paths[i]);

        if (i < PAGES)
            cr_expect_str_eq(d->type, "text/html; charset=utf-8");
        cr_expect_str_eq(d->cache, i < PAGES ? "no-cache" : "public, max-age=31536000, immutable");
    }
}

Test(dig_html, documents_are_small_whole_text)
{
    size_t all = 0;

    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct bytes body = doc_at(paths[i])->body;
        struct utf8 u = { 0 };

        all += body.n;
        cr_expect(body.n > 100 && body.n < DOC_MAX, "%s has %zu bytes", paths[i], body.n);
        cr_expect(utf8_feed(&u, body.p, body.n) && utf8_whole(&u), "%s", paths[i]);
        for (size_t j = 0; j < body.n; j++)
            cr_assert(body.p[j] >= ' ' || body.p[j] == '\n', "%s at %zu", paths[i], j);
    }
    cr_expect(all < ALL_MAX, "%zu bytes in all", all);
}

/* The namespace of SVG is a name that looks like an address. */
Test(dig_html, nothing_is_loaded_from_elsewhere)
{
    static const char ns[] = "http://www.w3.org/2000/svg";
    static const char *const elsewhere[] = { "://", "=\"//", "='//", "(//", "@import", "url(" };

    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct bytes left = doc_at(paths[i])->body;
        const uint8_t *at = found(left, ns);

        if (at) {
            cr_expect_str_eq(paths[i], "/icon.svg");
            left.n -= (size_t)(at - left.p) + sizeof(ns) - 1;
            left.p = at + sizeof(ns) - 1;
        }
        for (size_t j = 0; j < ARRAY_LEN(elsewhere); j++)
            cr_expect(!found(left, elsewhere[j]), "%s: %s", paths[i], elsewhere[j]);
    }
}

/* What the policy of our own answers would refuse, and what would make HTML of a peer's name. */
Test(dig_html, text_stays_text)
{
    static const char *const never[] = {
        "innerHTML",      "outerHTML",   "insertAdjacentHTML",
        "document.write", "eval(",       "Function(",
        "DOMParser",      "srcdoc",      " style=\"",
        "<style",         " onload=",    " onerror=",
        " onclick=",      "javascript:", "createContextualFragment",
        "setHTML",        "<script>",
    };

    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        for (size_t j = 0; j < ARRAY_LEN(never); j++)
            cr_expect(!found(doc_at(paths[i])->body, never[j]), "%s: %s", paths[i], never[j]);
}

/* The addresses within `d` that follow `attribute`: each leads somewhere here. */
static unsigned follow(const struct dig_doc *d, const char *attribute, char version[VERSION])
{
    struct bytes left = d->body;
    const uint8_t *at, *end;
    unsigned n = 0;

    for (; (at = found(left, attribute)) != NULL; n++) {
        at += strlen(attribute);
        left.n -= (size_t)(at - left.p);
        left.p = at;
        end = memchr(left.p, '"', left.n);
        cr_assert(end);
        struct bytes to = bytes_of(at, (size_t)(end - at));
        const uint8_t *query = memchr(to.p, '?', to.n);
        struct bytes path = bytes_of(to.p, query ? (size_t)(query - to.p) : to.n);
        const struct dig_doc *there = dig_doc_find(path);
        bool known = there != NULL;

        for (size_t i = 0; i < ARRAY_LEN(data); i++)
            known |= bytes_eq(path, bytes_str(data[i]));
        cr_expect(known, "%s leads to %.*s", d->path, (int)to.n, (const char *)to.p);
        cr_expect_eq(query != NULL, there && strstr(there->cache, "immutable"), "%s: %.*s", d->path,
                     (int)to.n, (const char *)to.p);
        if (!query)
            continue;
        cr_assert_eq(to.n - path.n, 3 + VERSION);
        cr_expect_eq(memcmp(query, "?v=", 3), 0);
        if (!version[0])
            memcpy(version, query + 3, VERSION);
        cr_expect_eq(memcmp(query + 3, version, VERSION), 0, "one build, one version");
        for (int i = 0; i < VERSION; i++)
            cr_expect(strchr("0123456789abcdef", query[3 + i]));
    }
    return n;
}

Test(dig_html, every_address_leads_somewhere_here)
{
    char version[VERSION] = { 0 };

    for (size_t i = 0; i < PAGES; i++) {
        const struct dig_doc *d = doc_at(paths[i]);

        cr_expect_geq(follow(d, "href=\"", version), 9U, "%s", paths[i]);
        cr_expect_eq(follow(d, "src=\"", version), 2U, "%s", paths[i]);
        cr_expect(!found(d->body, "@V@"));
    }
}
