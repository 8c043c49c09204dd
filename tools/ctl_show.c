#include "tools/ctl_show.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/ctl_json.h"

const char *ctl_size_text(uint64_t v, char *out, size_t cap)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double d = (double)v;
    size_t u = 0;

    while (d >= 1024 && u + 1 < sizeof(units) / sizeof(units[0])) {
        d /= 1024;
        u++;
    }
    snprintf(out, cap, u ? "%.1f %s" : "%.0f %s", d, units[u]);
    return out;
}

const char *ctl_age_text(uint64_t s, char *out, size_t cap)
{
    if (s >= 86400)
        snprintf(out, cap, "%" PRIu64 "d%02uh", s / 86400, (unsigned)(s / 3600 % 24));
    else if (s >= 3600)
        snprintf(out, cap, "%uh%02um", (unsigned)(s / 3600), (unsigned)(s / 60 % 60));
    else if (s >= 60)
        snprintf(out, cap, "%um%02us", (unsigned)(s / 60), (unsigned)(s % 60));
    else
        snprintf(out, cap, "%us", (unsigned)s);
    return out;
}

static void row_of(const char *name, uint64_t used, uint64_t max)
{
    if (max)
        printf("%-14s %" PRIu64 " of %" PRIu64 "\n", name, used, max);
    else
        printf("%-14s %" PRIu64 "\n", name, used);
}

/* What a TURN server is asked about first: is it full, and does it carry anything. */
static void show_turn(const char *j)
{
    const char *turn = strstr(j, "\"turn\":"), *limits = strstr(j, "\"limits\":");
    char list[CTL_VALUE], in[32], out[32];

    if (!turn || !ctl_is(turn, "on")) {
        printf("%-14s closed\n", "turn");
        return;
    }
    ctl_get(turn, "addresses", list);
    for (char *save = NULL, *one = strtok_r(list, "\",", &save); one;
         one = strtok_r(NULL, "\",", &save))
        if (strpbrk(one, ":")) /* not the brackets of the list */
            printf("%-14s %s\n", "turn", one);
    row_of("allocations", ctl_number(turn, "allocations"),
           limits ? ctl_number(limits, "max_turn_allocations") : 0);
    printf("%-14s %" PRIu64 " permissions, %" PRIu64 " channels; %s from clients, %s to them\n", "",
           ctl_number(turn, "permissions"), ctl_number(turn, "channels"),
           ctl_size_text(ctl_number(turn, "bytes_from_clients"), in, sizeof(in)),
           ctl_size_text(ctl_number(turn, "bytes_to_clients"), out, sizeof(out)));
}

static void show_dig(const char *j)
{
    const char *dig = strstr(j, "\"dig\":{"), *limits = strstr(j, "\"limits\":");
    char address[CTL_VALUE], bytes[32];

    dig = dig ? dig + sizeof("\"dig\":") - 1 : "{}";
    if (!ctl_is(dig, "on")) {
        printf("%-14s closed\n", "dig");
        return;
    }
    printf("%-14s %s%s\n", "dig", ctl_get(dig, "address", address),
           ctl_is(dig, "tls") ? " (TLS)" : "");
    row_of("dig conns", ctl_number(dig, "connections"),
           limits ? ctl_number(limits, "max_dig_connections") : 0);
    printf("%-14s %" PRIu64 " registered in %" PRIu64 " networks; %" PRIu64
           " messages relayed, %s in them\n",
           "", ctl_number(dig, "registered"), ctl_number(dig, "networks"),
           ctl_number(dig, "relayed") + ctl_number(dig, "broadcasts"),
           ctl_size_text(ctl_number(dig, "relayed_bytes"), bytes, sizeof(bytes)));
}

static void show_store(const char *j)
{
    const char *st = strstr(j, "\"store\":{");
    char used[16], max[16];

    st = st ? st + sizeof("\"store\":") - 1 : "{}";
    if (!ctl_is(st, "on"))
        return;
    printf("%-14s %" PRIu64 " registrations in %" PRIu64 " namespaces, %" PRIu64
           " profiles; %s of %s%s\n",
           "store", ctl_number(st, "registrations"), ctl_number(st, "namespaces"),
           ctl_number(st, "profiles"),
           ctl_size_text(ctl_number(st, "used_bytes"), used, sizeof(used)),
           ctl_size_text(ctl_number(st, "map_bytes"), max, sizeof(max)),
           ctl_is(st, "refuses") ? "; FULL: nothing new is kept" : "");
}

static void show_status(const char *j)
{
    char a[CTL_VALUE], b[CTL_VALUE], size[32], limit[32];
    const char *limits = strstr(j, "\"limits\":");

    limits = limits ? limits : "{}";
    printf("%-14s %s\n", "peer id", ctl_get(j, "peer_id", a));
    printf("%-14s %s (preset %s)\n", "version", ctl_get(j, "version", a), ctl_get(j, "preset", b));
    printf("%-14s %s\n", "up", ctl_age_text(ctl_number(j, "uptime_seconds"), size, sizeof(size)));
    if (ctl_is(j, "draining"))
        printf("%-14s draining, %" PRIu64 " s left\n", "state",
               ctl_number(j, "drain_left_seconds"));
    else
        printf("%-14s %s\n", "state", ctl_is(j, "ready") ? "ready" : "not ready");
    ctl_get(j, "addresses", a); /* a list as it stands: ["...","..."] */
    for (char *save = NULL, *one = strtok_r(a, "[]\",", &save); one;
         one = strtok_r(NULL, "[]\",", &save))
        printf("%-14s %s\n", "announced", one);
    printf("%-14s %" PRIu64 "\n", "shards", ctl_number(j, "shards"));
    printf("%-14s %" PRIu64 " connected, %" PRIu64 " with a reservation, %" PRIu64 " in circuits\n",
           "peers", ctl_number(j, "peers"), ctl_number(j, "peers_with_reservations"),
           ctl_number(j, "peers_with_circuits"));
    if (ctl_number(j, "peer_relays"))
        printf("%-14s %" PRIu64 " of %" PRIu64 " connected\n", "peer relays",
               ctl_number(j, "peer_relays_connected"), ctl_number(j, "peer_relays"));
    row_of("connections", ctl_number(j, "connections"), ctl_number(limits, "max_conns"));
    row_of("reservations", ctl_number(j, "reservations"), ctl_number(limits, "max_reservations"));
    row_of("circuits", ctl_number(j, "circuits"), ctl_number(limits, "max_circuits"));
    show_turn(j);
    show_dig(j);
    show_store(j);
    printf("%-14s %s\n", "relayed",
           ctl_size_text(ctl_number(j, "bandwidth_bytes"), size, sizeof(size)));
    printf("%-14s %s of %s\n", "buffers",
           ctl_size_text(ctl_number(j, "buffer_bytes"), size, sizeof(size)),
           ctl_size_text(ctl_number(j, "buffer_bytes_max"), limit, sizeof(limit)));
    printf("%-14s %s, %" PRIu64 " lines lost\n", "log", ctl_get(j, "log_level", a),
           ctl_number(j, "log_lines_lost"));
}

#define CONN_ROW "%-52s %-28s %5s %-8s %-8s %7s %7s %10s %10s %10s\n"
#define CIRCUIT_ROW "%8s %-7s %-52s %-52s %6s %7s %10s %10s\n"
#define DIG_ROW "%-64s %-24s %-28s %7s %5s %7s %7s %10s %10s\n"
#define ALLOC_ROW "%-24s %-28s %-9s %-24s %5s %7s %7s %5s %5s %10s %10s %10s %10s\n"

static void head_conns(void)
{
    printf(CONN_ROW, "PEER", "REMOTE", "SHARD", "STATE", "RESERVED", "STREAMS", "AGE", "IN", "OUT",
           "QUEUED");
}

static void head_circuits(void)
{
    printf(CIRCUIT_ROW, "ID", "STATE", "SOURCE", "TARGET", "SHARDS", "AGE", "FORTH", "BACK");
}

static void head_allocs(void)
{
    printf(ALLOC_ROW, "USER", "CLIENT", "TRANSPORT", "RELAYED", "SHARD", "AGE", "EXPIRES", "PERMS",
           "CHANS", "DGRAMS IN", "DGRAMS OUT", "BYTES IN", "BYTES OUT");
}

static void head_dig(void)
{
    printf(DIG_ROW, "PEER", "NETWORK", "OBSERVED", "VERSION", "SHARD", "AGE", "SILENT", "BYTES IN",
           "QUEUED");
}

static void show_conn(const char *j)
{
    char peer[CTL_VALUE], remote[CTL_VALUE], shard[CTL_VALUE], state[CTL_VALUE], streams[CTL_VALUE];
    char age[32], in[32], out[32], queued[32];

    ctl_get(j, "peer", peer);
    printf(CONN_ROW, peer[0] ? peer : "-", ctl_get(j, "remote", remote), ctl_get(j, "shard", shard),
           ctl_get(j, "state", state), ctl_is(j, "reserved") ? "yes" : "-",
           ctl_get(j, "streams", streams),
           ctl_age_text(ctl_number(j, "age_seconds"), age, sizeof(age)),
           ctl_size_text(ctl_number(j, "rx_bytes"), in, sizeof(in)),
           ctl_size_text(ctl_number(j, "tx_bytes"), out, sizeof(out)),
           ctl_size_text(ctl_number(j, "queued_bytes"), queued, sizeof(queued)));
}

static void show_circuit(const char *j)
{
    char id[CTL_VALUE], state[CTL_VALUE], src[CTL_VALUE], dst[CTL_VALUE], shards[32];
    char age[32], forth[32], back[32];

    snprintf(shards, sizeof(shards), "%" PRIu64 "-%" PRIu64, ctl_number(j, "src_shard"),
             ctl_number(j, "dst_shard"));
    printf(CIRCUIT_ROW, ctl_get(j, "id", id), ctl_get(j, "state", state), ctl_get(j, "src", src),
           ctl_get(j, "dst", dst), shards,
           ctl_age_text(ctl_number(j, "age_seconds"), age, sizeof(age)),
           ctl_size_text(ctl_number(j, "bytes_src_to_dst"), forth, sizeof(forth)),
           ctl_size_text(ctl_number(j, "bytes_dst_to_src"), back, sizeof(back)));
}

/* ["a","b"] as a,b; what it holds has neither quotes nor blanks. */
static const char *list_text(const char *json, const char *key, char out[CTL_VALUE])
{
    char *to = out;

    ctl_get(json, key, out);
    for (const char *p = out; *p; p++)
        if (*p != '"' && !(p == out && *p == '[') && !(p[1] == '\0' && *p == ']'))
            *to++ = *p;
    *to = '\0';
    return out;
}

static void show_alloc(const char *j)
{
    char user[CTL_VALUE], client[CTL_VALUE], relayed[CTL_VALUE], shard[CTL_VALUE], perms[CTL_VALUE],
        chans[CTL_VALUE], in[CTL_VALUE], out[CTL_VALUE];
    char transport[32], age[32], left[32], bytes_in[32], bytes_out[32], value[CTL_VALUE];

    snprintf(transport, sizeof(transport), "%.8s%s%s", ctl_get(j, "transport", value),
             strcmp(ctl_get(j, "relays", user), "tcp") == 0 ? ">tcp" : "",
             ctl_is(j, "away") ? " -" : "");
    printf(ALLOC_ROW, ctl_get(j, "user", user)[0] ? user : "-", ctl_get(j, "client", client),
           transport, list_text(j, "relayed", relayed), ctl_get(j, "shard", shard),
           ctl_age_text(ctl_number(j, "age_seconds"), age, sizeof(age)),
           ctl_age_text(ctl_number(j, "expires_seconds"), left, sizeof(left)),
           ctl_get(j, "permissions", perms), ctl_get(j, "channels", chans),
           ctl_get(j, "datagrams_from_client", in), ctl_get(j, "datagrams_to_client", out),
           ctl_size_text(ctl_number(j, "bytes_from_client"), bytes_in, sizeof(bytes_in)),
           ctl_size_text(ctl_number(j, "bytes_to_client"), bytes_out, sizeof(bytes_out)));
}

/* How long ago: the daemon's clock is ours. */
static const char *ago_text(uint64_t unix_s, char *out, size_t cap)
{
    uint64_t now = (uint64_t)time(NULL);

    return ctl_age_text(now > unix_s ? now - unix_s : 0, out, cap);
}

static void show_registrant(const char *j)
{
    char id[CTL_VALUE], net[CTL_VALUE], observed[CTL_VALUE], version[CTL_VALUE], shard[CTL_VALUE];
    char age[32], silent[32], in[32], queued[32];

    printf(DIG_ROW, ctl_get(j, "peer_id", id), ctl_get(j, "network_id", net),
           ctl_get(j, "observed", observed)[0] ? observed : "-",
           ctl_get(j, "protocol_version", version), ctl_get(j, "shard", shard),
           ago_text(ctl_number(j, "connected_at"), age, sizeof(age)),
           ago_text(ctl_number(j, "last_seen"), silent, sizeof(silent)),
           ctl_size_text(ctl_number(j, "rx_bytes"), in, sizeof(in)),
           ctl_size_text(ctl_number(j, "queued_bytes"), queued, sizeof(queued)));
}

static const struct list {
    const char *command;
    void (*head)(void);
    void (*row)(const char *json);
    const char *noun; /* its plural, for the last line */
} lists[] = {
    { "conns", head_conns, show_conn, "connections" },
    { "circuits", head_circuits, show_circuit, "circuits" },
    { "allocations", head_allocs, show_alloc, "allocations" },
    { "dig", head_dig, show_registrant, "nodes" },
};

static const struct list *list_of(const char *command)
{
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        if (strcmp(lists[i].command, command) == 0)
            return &lists[i];
    return NULL;
}

bool ctl_is_list(const char *command)
{
    return list_of(command) != NULL;
}

void ctl_show_head(const char *command)
{
    list_of(command)->head();
}

void ctl_show_row(const char *command, const char *json)
{
    const struct list *l = list_of(command);

    if (l) /* other commands have no rows; a daemon that says some is not ours */
        l->row(json);
}

/* JSON for people too, because it goes into other programs: without "ok", which is for us. */
static void show_credentials(const char *json)
{
    static const char ok[] = "{\"ok\":true,";

    printf("%s%s\n", strncmp(json, ok, sizeof(ok) - 1) == 0 ? "{" : "",
           strncmp(json, ok, sizeof(ok) - 1) == 0 ? json + sizeof(ok) - 1 : json);
}

void ctl_show_end(const char *command, const char *json)
{
    const struct list *l = list_of(command);
    char text[CTL_VALUE];

    if (l)
        printf("%" PRIu64 " %s\n", ctl_number(json, "rows"), l->noun);
    else if (strcmp(command, "status") == 0)
        show_status(json);
    else if (strcmp(command, "turn-credentials") == 0)
        show_credentials(json);
    else if (strcmp(command, "drain") == 0)
        printf("draining: no new reservations and allocations; what runs may run on for %" PRIu64
               " s, then the daemon ends\n",
               ctl_number(json, "drain_seconds"));
    else if (strcmp(command, "log-level") == 0)
        printf("log level: %s\n", ctl_get(json, "log_level", text));
    else
        printf("reloaded\n");
}
