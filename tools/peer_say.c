#include "tools/peer_say.h"

#include "proto/wire.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

bool peer_json;

const char peer_usage[] =
    "Usage: sluice-peer reserve RELAY [options]\n"
    "       sluice-peer dial RELAY/p2p-circuit/p2p/TARGET [options]\n"
    "\n"
    "A small libp2p peer (TCP, Noise, yamux) for trying a circuit relay. RELAY is its address,\n"
    "with or without /p2p/ID; with it, a relay that proves another identity is refused.\n"
    "\n"
    "reserve asks the relay for a slot, prints `reserved ADDRESS`, and then lives at that "
    "address:\n"
    "it accepts every circuit, renews in time, and prints what each circuit carried.\n"
    "dial opens a circuit to TARGET, sends N bytes made from a seed while it reads what comes "
    "back,\n"
    "and prints both SHA-256, whether they match, and the seconds it took.\n"
    "Inside the circuit run raw bytes, without a second handshake between the two peers; other\n"
    "libp2p programs therefore cannot talk to `reserve`, and `dial` cannot talk to them.\n"
    "\n"
    "  In one terminal    sluice-peer reserve /ip4/127.0.0.1/tcp/4001 --seed 1\n"
    "  in another         sluice-peer dial ADDRESS --bytes 1000000\n"
    "  where ADDRESS is what the first one printed.\n"
    "\n"
    "reserve:\n"
    "  --mode echo|sink|hash  send every byte back; only count; answer with the SHA-256 (echo)\n"
    "  --circuits N           leave after N circuits have ended (stay)\n"
    "  --stay S               leave S seconds after the reservation (stay)\n"
    "dial:\n"
    "  --bytes N              how much to send (65536)\n"
    "  --data-seed N          other bytes (1)\n"
    "  --expect echo|sink|hash|any\n"
    "                         fail unless the answer was that (any: echo, hash or nothing)\n"
    "both:\n"
    "  --seed N               identity from 32 times the byte N, 0..255 (random)\n"
    "  --key FILE             identity from a key file, made when it does not exist\n"
    "  --bind IP              local address to connect from\n"
    "  --forbid IP            fail if this address is in anything the relay tells us; repeatable.\n"
    "                         Give the other side's --bind: the relay must not reveal it\n"
    "  --timeout S            dial: for everything (60); reserve: until reserved (10)\n"
    "  --json                 one JSON object per line instead of text\n"
    "  --help\n"
    "\n"
    "Exit status: 0 done, 1 failed (why is on stderr), 2 wrong usage.\n";

static void json_text(const char *s)
{
    putchar('"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            printf("\\%c", *s);
        else if ((unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f)
            printf("\\u%04x", (unsigned char)*s);
        else
            putchar(*s);
    }
    putchar('"');
}

void say(const char *event, const char *name, const char *value, ...)
{
    va_list ap;
    const char *key;

    if (peer_json) {
        printf("{\"event\":\"%s\",\"%s\":", event, name);
        json_text(value);
    } else {
        printf("%s %s", event, value);
    }
    va_start(ap, value);
    while ((key = va_arg(ap, const char *))) {
        const char *text = va_arg(ap, const char *);

        if (peer_json) {
            printf(",\"%s\":", key);
            json_text(text);
        } else {
            printf(" %s=%s", key, text);
        }
    }
    va_end(ap);
    printf(peer_json ? "}\n" : "\n");
    fflush(stdout);
}

const char *number(char buf[NUMBER_TEXT], uint64_t v)
{
    snprintf(buf, NUMBER_TEXT, "%" PRIu64, v);
    return buf;
}

const char *status_text(enum hop_status s)
{
    static char buf[16];

    switch (s) {
    case HOP_OK:
        return "OK";
    case HOP_RESERVATION_REFUSED:
        return "RESERVATION_REFUSED";
    case HOP_RESOURCE_LIMIT_EXCEEDED:
        return "RESOURCE_LIMIT_EXCEEDED";
    case HOP_PERMISSION_DENIED:
        return "PERMISSION_DENIED";
    case HOP_CONNECTION_FAILED:
        return "CONNECTION_FAILED";
    case HOP_NO_RESERVATION:
        return "NO_RESERVATION";
    case HOP_MALFORMED_MESSAGE:
        return "MALFORMED_MESSAGE";
    case HOP_UNEXPECTED_MESSAGE:
        return "UNEXPECTED_MESSAGE";
    default:
        snprintf(buf, sizeof(buf), "%u", (unsigned)s);
        return buf;
    }
}

static bool contains(struct bytes hay, struct bytes needle)
{
    return needle.n && hay.n && memmem(hay.p, hay.n, needle.p, needle.n) != NULL;
}

bool tells_address(struct bytes got, const char *forbidden)
{
    uint8_t binary[17] = { MADDR_IP4 };
    size_t n = 5;

    if (inet_pton(AF_INET, forbidden, binary + 1) != 1) {
        binary[0] = MADDR_IP6;
        n = inet_pton(AF_INET6, forbidden, binary + 1) == 1 ? 17 : 0;
    }
    return contains(got, bytes_of(binary, n)) || contains(got, bytes_str(forbidden));
}

/* An address would be beside the id of the peer: field 2 of both messages (libp2p.md §11.1). */
unsigned stop_addresses(struct bytes msg)
{
    struct cur rest = cur_of(msg);
    struct bytes peer, addr;
    unsigned n = 0;

    while (wire_next(&rest, 2, &peer)) {
        struct cur fields = cur_of(peer);

        while (wire_next(&fields, 2, &addr))
            n++;
    }
    return n;
}
