/* engine/config_dump.c: the whole effective configuration as text that the same table would read
 * again, and the version. */
#include "engine/config_int.h"

#include <ares.h>
#include <curl/curl.h>
#include <cyaml/cyaml.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <sodium.h>
#include <stdio.h>
#if __has_include(".deps/versions.h")
#include ".deps/versions.h" /* written by tools/deps */
#endif

static uint64_t number_at(const void *at, bool wide)
{
    uint64_t v;
    uint32_t narrow;

    if (wide) {
        memcpy(&v, at, sizeof(v));
        return v;
    }
    memcpy(&narrow, at, sizeof(narrow));
    return narrow;
}

static void listen_text(const struct listen_at *at, char *out, size_t cap)
{
    char text[NETADDR_TEXT_MAX];

    netaddr_text(&at->addr, text);
    snprintf(out, cap, "%s", text);
}

static void cidr_text(const struct cidr *c, char *out, size_t cap)
{
    struct netaddr a = { .port = 0 };
    char text[NETADDR_TEXT_MAX];

    memcpy(a.ip, c->ip, sizeof(a.ip));
    netaddr_ip_text(&a, text);
    snprintf(out, cap, "%s/%d", text, netaddr_is4(&a) && c->bits >= 96 ? c->bits - 96 : c->bits);
}

static void rate_text(const struct setting *s, const char *base, char *out, size_t cap)
{
    uint64_t burst = number_at(base + s->off, false);
    uint64_t ms = number_at(base + s->off_n, s->cap == sizeof(uint64_t));

    if (burst)
        snprintf(out, cap, "%" PRIu64 "/%" PRIu64, burst, ms / 1000);
    else
        snprintf(out, cap, "0");
}

unsigned setting_elements(const struct config *c, const struct setting *s)
{
    unsigned n;

    if (s->kind == SET_CALL)
        return 0;
    if (s->kind < SET_TEXTS || s->kind > SET_ADDRS)
        return 1;
    memcpy(&n, (const char *)c + s->off_n, sizeof(n));
    return n;
}

void setting_text(const struct config *c, const struct setting *s, unsigned i, char *out,
                  size_t cap)
{
    const char *base = (const char *)c, *at = base + s->off;
    int word;

    out[0] = '\0';
    if (s->secret) {
        snprintf(out, cap, "%s", s->kind == SET_TEXT && !at[0] ? "" : "***");
        return;
    }
    switch (s->kind) {
    case SET_FLAG:
    case SET_BOOL:
        snprintf(out, cap, "%s", *(const bool *)(const void *)at ? "true" : "false");
        break;
    case SET_U32:
    case SET_U64:
        snprintf(out, cap, "%" PRIu64, number_at(at, s->kind == SET_U64) / s->scale);
        break;
    case SET_RATE:
        rate_text(s, base, out, cap);
        break;
    case SET_WORD:
        memcpy(&word, at, sizeof(word));
        snprintf(out, cap, "%s", s->words[word]);
        break;
    case SET_TEXT:
    case SET_PATH:
        snprintf(out, cap, "%s", at);
        break;
    case SET_TEXTS:
        snprintf(out, cap, "%s", at + (size_t)i * s->width);
        break;
    case SET_CIDRS:
        cidr_text((const struct cidr *)(const void *)at + i, out, cap);
        break;
    case SET_MADDRS:
        if (!maddr_text(maddr_bytes((const struct maddr *)(const void *)at + i), out, cap))
            out[0] = '\0';
        break;
    case SET_ADDRS:
        listen_text((const struct listen_at *)(const void *)at + i, out, cap);
        break;
    case SET_ADDR:
        if (*(const bool *)(const void *)(base + s->off_n))
            listen_text((const struct listen_at *)(const void *)at, out, cap);
        else
            snprintf(out, cap, "off");
        break;
    case SET_CALL:
        break;
    }
}

void config_dump(const struct config *c, void (*line)(void *arg, const char *text), void *arg)
{
    char value[CONFIG_PATH_MAX], text[CONFIG_PATH_MAX + 64];

    snprintf(text, sizeof(text), "preset = %s", config_preset_name(c->preset));
    line(arg, text);
    for (size_t i = 0; i < config_settings_n; i++) {
        const struct setting *s = &config_settings[i];
        unsigned n = setting_elements(c, s);

        for (unsigned k = 0; k < n; k++) {
            setting_text(c, s, k, value, sizeof(value));
            snprintf(text, sizeof(text), "%s = %s", s->name, value);
            line(arg, text);
        }
        if (n == 0 && s->kind != SET_CALL) {
            snprintf(text, sizeof(text), "%s = %s", s->name, s->kind == SET_ADDRS ? "off" : "");
            line(arg, text);
        }
    }
    snprintf(text, sizeof(text), "turn-ports = %u-%u", c->turn_port_lo, c->turn_port_hi);
    line(arg, text);
}

void config_version_text(char *out, size_t cap)
{
#ifdef DEPS_VERSIONS
    const char *built = DEPS_VERSIONS;
#else
    const char *built = "built without tools/deps";
#endif

    snprintf(out, cap, "sluice %s\n%s\nlibsodium %s, %s, libcurl %s, c-ares %s, libcyaml %s\n",
             SLUICE_VERSION, built, sodium_version_string(), OpenSSL_version(OPENSSL_VERSION),
             curl_version_info(CURLVERSION_NOW)->version, ares_version(NULL), cyaml_version_str);
}
