/* Behaviour discovery (RFC 5780): four addresses, and what a reply may cost. */
#include "tests/unit/turn_world.h"

#define CHANGE(bits) "00030004000000" bits

static const char *const places[2][2] = { { "198.51.100.1:3478", "198.51.100.1:3479" },
                                          { "198.51.100.2:3478", "198.51.100.2:3479" } };
static uint8_t big[2000]; /* room for replies with padding */

static void behaviour(void)
{
    struct netaddr one = at_addr(places[0][0]), two = at_addr(places[1][1]);
    struct turn_behaviour *b = &w.config.behaviour[TURN_V4];

    world();
    *b = (struct turn_behaviour){ .on = true, .port = { one.port, two.port } };
    memcpy(b->ip[0], one.ip, 16);
    memcpy(b->ip[1], two.ip, 16);
    world_begin();
}

TestSuite(turn_behaviour, .init = behaviour);

/* The code of the answer to a Binding with these attributes, and then n bytes of PADDING unless it
 * is negative. */
static int probe(const char *server, enum turn_transport transport, const char *attrs, int padding)
{
    static const uint8_t zeroes[3000];
    struct turn_tuple tuple = { at_addr(CLIENT), at_addr(server), transport };
    struct making *k = making(STUN_BINDING, STUN_REQUEST);
    struct bytes in, more = hex(attrs);

    wcur_put(&k->b.w, more);
    if (padding >= 0)
        stun_put(&k->b, STUN_PADDING, bytes_of(zeroes, (size_t)padding));
    in = made(k);
    memset(big, 0xa5, sizeof(big));
    w.out = turn_out_of(big, sizeof(big));
    turn_on_message(&w.t, w.now, &tuple, in, &w.out);
    cr_assert(w.out.reply.n && stun_decode(w.out.reply, 0, &w.reply) == STUN_OK);
    cr_expect(w.out.code == 0 || !w.out.detour, "errors go back");
    return w.out.code;
}

static bool told(enum stun_attr a, const char *address)
{
    struct stun_addr got;

    return stun_addr(&w.reply, a, &got) && same_addr(&got.addr, address);
}

Test(turn_behaviour, turn_21_each_change_is_answered_from_where_it_asks_for)
{
    static const char *const changes[] = { CHANGE("00"), CHANGE("02"), CHANGE("04"), CHANGE("06") };

    for (unsigned ip = 0; ip < 2; ip++)
        for (unsigned port = 0; port < 2; port++)
            for (unsigned c = 0; c < 4; c++) {
                const char *from = places[ip ^ c >> 1][port ^ (c & 1)];

                cr_assert(probe(places[ip][port], TURN_UDP, changes[c], -1) == 0);
                cr_expect(eq(int, w.out.detour, c != 0));
                cr_expect(told(STUN_XOR_MAPPED_ADDRESS, CLIENT));
                cr_expect(told(STUN_RESPONSE_ORIGIN, from));
                cr_expect(told(STUN_OTHER_ADDRESS, places[!ip][!port]));
                if (c)
                    cr_expect(same_addr(&w.out.from, from) && same_addr(&w.out.to, CLIENT));
            }
    cr_expect(probe(places[0][0], TURN_UDP, "", -1) == 0 && !w.out.detour);
    cr_expect(eq(sz, w.out.reply.n, 56));
    cr_expect(probe(places[0][0], TURN_UDP, CHANGE("f9"), -1) == 0 && !w.out.detour,
              "other bits mean nothing");
}

Test(turn_behaviour, turn_22_other_addresses_and_families_do_not_speak_it)
{
    static const char *const servers[] = { "198.51.100.1:3480", "198.51.100.3:3478",
                                           "[2001:db8::1]:3478" };

    for (size_t i = 0; i < ARRAY_LEN(servers); i++) {
        cr_expect(probe(servers[i], TURN_UDP, "", -1) == 0);
        cr_expect(w.reply.have == STUN_BIT(STUN_XOR_MAPPED_ADDRESS));
        cr_expect(probe(servers[i], TURN_UDP, CHANGE("00"), -1) == 0);
        cr_expect(probe(servers[i], TURN_UDP, CHANGE("02"), -1) == 420);
        cr_expect(stun_u16(&w.reply, STUN_UNKNOWN_ATTRIBUTES) == 3);
        cr_expect(probe(servers[i], TURN_UDP, "0027000413880000", -1) == 420);
        cr_expect(probe(servers[i], TURN_UDP, "", 100) == 420);
    }
}

Test(turn_behaviour, turn_23_turn_24_what_would_make_a_reflector_is_400)
{
    cr_expect(probe(places[0][0], TURN_UDP, "0027000413880000", 0) == 400);
    cr_expect(probe(places[0][0], TURN_UDP, "0027000413880000", 100) == 400);
    cr_expect(probe(places[0][0], TURN_UDP, "0027000400000000", -1) == 400, "port 0");
    cr_expect(probe(places[0][0], TURN_UDP, "0027000113000000", -1) == 400);
    cr_expect(probe(places[0][0], TURN_UDP, "0003000300000000", -1) == 400);
    for (int t = TURN_TCP; t <= TURN_DTLS; t++) {
        enum turn_transport transport = (enum turn_transport)t;

        cr_expect(probe(places[0][0], transport, "0027000413880000", -1) == 400);
        cr_expect(probe(places[0][0], transport, CHANGE("02"), -1) == 400);
        cr_expect(probe(places[0][0], transport, "", 100) == 400);
        cr_expect(probe(places[0][0], transport, CHANGE("00"), -1) == 0 && !w.out.detour);
        cr_expect(w.reply.have == STUN_BIT(STUN_XOR_MAPPED_ADDRESS));
    }
}

Test(turn_behaviour, response_port_turns_the_reply_aside_on_the_same_host)
{
    cr_expect(probe(places[0][0], TURN_UDP, "0027000413880000", -1) == 0 && w.out.detour);
    cr_expect(same_addr(&w.out.from, places[0][0]) && same_addr(&w.out.to, "192.0.2.7:5000"));
    cr_expect(told(STUN_XOR_MAPPED_ADDRESS, CLIENT));
    cr_expect(probe(places[0][0], TURN_UDP, "0027000213880000" CHANGE("06"), -1) == 0);
    cr_expect(same_addr(&w.out.from, places[1][1]) && same_addr(&w.out.to, "192.0.2.7:5000"));
    cr_expect(probe(places[0][0], TURN_UDP, "0027000430390000", -1) == 0 && !w.out.detour,
              "its own port");
}

/* No padded reply is longer than its request, longer than the MTU asks for, or than there is room.
 */
Test(turn_behaviour, padding_never_amplifies)
{
    size_t longest = 0;

    for (int n = 0; n < 3000; n++) {
        cr_assert(probe(places[0][0], TURN_UDP, "", n) == 0);
        size_t request = 24 + (((size_t)n + 3) & ~(size_t)3);
        size_t padding = stun_value(&w.reply, STUN_PADDING).n;

        if (stun_has(&w.reply, STUN_PADDING))
            cr_assert(le(sz, w.out.reply.n, request));
        else
            cr_assert(request < 60 && w.out.reply.n == 56);
        cr_assert(padding % 4 == 0 && padding <= 1500);
        for (size_t i = 0; i < padding; i++)
            cr_assert(stun_value(&w.reply, STUN_PADDING).p[i] == 0);
        longest = padding > longest ? padding : longest;
    }
    cr_expect(longest == 1500);
    w.t.config.behaviour[TURN_V4].mtu = 1279;
    cr_expect(probe(places[0][0], TURN_UDP, "", 2900) == 0);
    cr_expect(stun_value(&w.reply, STUN_PADDING).n == 1276);
    w.t.config.behaviour[TURN_V4].mtu = 9000;
    cr_expect(probe(places[0][0], TURN_UDP, "", 2900) == 0);
    cr_expect(eq(sz, w.out.reply.n, sizeof(big)), "no more than the caller has room for");
}

Test(turn_behaviour, padding_leaves_room_for_a_fingerprint)
{
    struct turn_tuple tuple = { at_addr(CLIENT), at_addr(places[0][0]), TURN_UDP };

    for (size_t n = 0; n < 100; n += 4) {
        struct making *k = making(STUN_BINDING, STUN_REQUEST);

        stun_put_padding(&k->b, n);
        stun_put_fingerprint(&k->b);
        struct bytes in = made(k);

        w.out = turn_out_of(w.buf, sizeof(w.buf));
        turn_on_message(&w.t, w.now, &tuple, in, &w.out);
        cr_assert(stun_decode(w.out.reply, 0, &w.reply) == STUN_OK);
        cr_expect(stun_has(&w.reply, STUN_FINGERPRINT));
        cr_expect(w.out.reply.n <= in.n || !stun_has(&w.reply, STUN_PADDING));
    }
}

/* ---- the DIG relay's way (dig.md §11) ------------------------------------------------------ */

#define DIG_ASK "000100002112a442a1b2c3d4e5f60718293a4b5c"
#define DIG_TOLD "0101000c2112a442a1b2c3d4e5f60718293a4b5c002000080001bd53e721c055"
#define DIG_CLIENT "198.51.100.23:40001"

static void dig(void)
{
    world();
    w.config.limits.binding_dig = true;
    world_begin();
}

TestSuite(turn_binding_dig, .init = dig);

/* As hexadecimal digits, empty for silence. */
static const char *dig_told(const char *client, const char *in)
{
    static char text[2 * TURN_REPLY_MAX + 1];
    struct turn_tuple tuple = tuple_of(client);

    memset(w.buf, 0xa5, sizeof(w.buf));
    w.out = turn_out_of(w.buf, sizeof(w.buf));
    turn_on_message(&w.t, w.now, &tuple, hex(in), &w.out);
    text[0] = '\0';
    for (size_t i = 0; i < w.out.reply.n; i++)
        snprintf(text + 2 * i, 3, "%02x", w.out.reply.p[i]);
    return text;
}

Test(turn_binding_dig, dig_46_both_vectors)
{
    cr_expect(eq(str, (char *)dig_told(DIG_CLIENT, DIG_ASK), DIG_TOLD));
    cr_expect(eq(str, (char *)dig_told("[2001:db8:7::9]:40001", DIG_ASK),
                 "010100182112a442a1b2c3d4e5f60718293a4b5c"
                 "002000140002bd530113a9faa1b5c3d4e5f60718293a4b55"));
}

Test(turn_binding_dig, dig_47_what_comes_with_it_changes_nothing)
{
    static const char *const same[] = {
        DIG_ASK "00",                                               /* behind the message */
        DIG_ASK "0000000000000000",                                 /* */
        "000100022112a442a1b2c3d4e5f60718293a4b5c0000",             /* no multiple of four */
        "000100032112a442a1b2c3d4e5f60718293a4b5cffffffff",         /* and one beyond */
        "000100042112a442a1b2c3d4e5f60718293a4b5c7fff0000",         /* must be understood */
        "000100042112a442a1b2c3d4e5f60718293a4b5c0006ffff",         /* ends behind the end */
        "000100082112a442a1b2c3d4e5f60718293a4b5c0006000461626364", /* USERNAME */
        "000100082112a442a1b2c3d4e5f60718293a4b5c80280004deadbeef", /* a wrong FINGERPRINT */
        "000100082112a442a1b2c3d4e5f60718293a4b5c0003000400000006", /* CHANGE-REQUEST */
    };

    for (size_t i = 0; i < ARRAY_LEN(same); i++)
        cr_expect(eq(str, (char *)dig_told(DIG_CLIENT, same[i]), DIG_TOLD), "%s", same[i]);
    cr_expect(eq(sz, w.out.reply.n, 32), "FINGERPRINT and SOFTWARE are not added");
}

Test(turn_binding_dig, dig_47_all_else_is_met_with_silence)
{
    static const char *const silent[] = {
        "",
        "000100002112a442a1b2c3d4e5f60718293a4b",   /* 19 bytes */
        "000100002112a443a1b2c3d4e5f60718293a4b5c", /* another cookie: RFC 3489 */
        "001100002112a442a1b2c3d4e5f60718293a4b5c", /* an indication */
        "010100002112a442a1b2c3d4e5f60718293a4b5c", /* a response */
        "011100002112a442a1b2c3d4e5f60718293a4b5c", /* an error */
        "000100042112a442a1b2c3d4e5f60718293a4b5c", /* more than is there */
        "000100042112a442a1b2c3d4e5f60718293a4b5c000000",
        "400100002112a442a1b2c3d4e5f60718293a4b5c", /* the top bits */
        "800100002112a442a1b2c3d4e5f60718293a4b5c",
        "c00100002112a442a1b2c3d4e5f60718293a4b5c",
        "000200002112a442a1b2c3d4e5f60718293a4b5c",
    };

    for (size_t i = 0; i < ARRAY_LEN(silent); i++)
        cr_expect(eq(str, (char *)dig_told(DIG_CLIENT, silent[i]), ""), "%s", silent[i]);
    w.t.config.limits.binding_only = true;
    cr_expect(eq(str, (char *)dig_told(DIG_CLIENT, "000300002112a442a1b2c3d4e5f60718293a4b5c"), ""),
              "nobody learns that Allocate has a name here");
    cr_expect(eq(str, (char *)dig_told(DIG_CLIENT, DIG_ASK), DIG_TOLD));
    w.t.config.limits.binding_only = false;
    cr_expect(
        eq(sz, strlen(dig_told(DIG_CLIENT, "000300002112a442a1b2c3d4e5f60718293a4b5c")) > 0, 1),
        "with credentials there is TURN");
}

Test(turn_binding_dig, elsewhere_and_over_streams_the_rules_are_stuns)
{
    w.t.config.limits.binding_dig = false;
    cr_expect(eq(str, (char *)dig_told(DIG_CLIENT, DIG_ASK), DIG_TOLD));
    cr_expect(eq(str, (char *)dig_told(DIG_CLIENT, DIG_ASK "00"), ""));
    w.t.config.limits.binding_dig = true;
    w.transport = TURN_TCP;
    cr_expect(eq(str, (char *)dig_told(DIG_CLIENT, DIG_ASK "00"), ""));
    w.transport = TURN_UDP;
}
