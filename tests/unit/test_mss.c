#include "proto/mss.h"
#include "tests/unit/relay_hex.h"

#define HEADER_HEX "132f6d756c746973747265616d2f312e302e300a"
#define NOISE_HEX "072f6e6f6973650a"
#define YAMUX_HEX "0d2f79616d75782f312e302e300a"
#define TLS_HEX "0b2f746c732f312e302e300a"
#define NA_HEX "036e610a"
#define LS_HEX "036c730a"
#define SIMULTANEOUS_HEX "1d2f6c69627032702f73696d756c74616e656f75732d636f6e6e6563740a"

enum { NOISE_ID = 7, TLS_ID = 9 };
static const struct mss_proto security[] = { { "/noise", NOISE_ID },
                                             { "/tls/1.0.0", TLS_ID },
                                             { 0 } };

/* One negotiation as a connection does it: what is not consumed is kept and shown again. */
struct talk {
    struct mss_listen m;
    uint8_t in[8192];
    size_t in_n;
    uint8_t out[8192];
    size_t out_n;
    enum mss_res res;
    int id;
};

static void say(struct talk *t, struct bytes b)
{
    if (t->res != MSS_MORE)
        cr_fatal("the talk is over");
    memcpy(t->in + t->in_n, b.p, b.n);
    t->in_n += b.n;

    struct cur c = cur_of(bytes_of(t->in, t->in_n));
    struct wcur w = wcur_of(t->out + t->out_n, sizeof(t->out) - t->out_n);

    t->res = mss_listen_feed(&t->m, security, &c, &w, &t->id);
    t->out_n += w.wrote;
    memmove(t->in, c.p, c.n);
    t->in_n = c.n;
    if (t->res == MSS_MORE)
        cr_assert(le(sz, t->in_n, MSS_FRAME_MAX + 2));
}

static struct talk heard(const char *wire)
{
    struct talk t = { .id = -1 };
    struct hex h = unhex(wire);

    say(&t, hex_bytes(&h));
    return t;
}

static void expect_out(const struct talk *t, const char *wire)
{
    struct hex want = unhex(wire);

    cr_expect(bytes_eq(bytes_of(t->out, t->out_n), hex_bytes(&want)), "%s", wire);
}

/* ---- listener ------------------------------------------------------------------------------- */

Test(mss_put, writes_the_golden_frames)
{
    static const struct {
        const char *text, *wire;
    } rows[] = { { MSS_HEADER, HEADER_HEX },
                 { "/noise", NOISE_HEX },
                 { "/yamux/1.0.0", YAMUX_HEX },
                 { "na", NA_HEX },
                 { "/libp2p/circuit/relay/0.2.0/hop",
                   "202f6c69627032702f636972637569742f72656c61792f302e322e302f686f700a" } };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint8_t buf[64];
        struct wcur w = wcur_of(buf, sizeof(buf));

        mss_put(&w, rows[i].text);
        expect_wrote(&w, buf, rows[i].wire);
        EXPECT_BAD_IN_EVERY_SMALLER_ROOM(w.wrote, cut, mss_put(&cut, rows[i].text));
    }
}

Test(mss_listen, agrees_on_a_known_name)
{
    struct talk t = heard(HEADER_HEX NOISE_HEX);

    cr_assert(eq(int, t.res, MSS_AGREED));
    cr_assert(eq(int, t.id, NOISE_ID));
    expect_out(&t, HEADER_HEX NOISE_HEX);
}

Test(mss_listen, says_na_and_goes_on) /* checks 7 and 12 */
{
    struct talk t = heard(HEADER_HEX YAMUX_HEX);

    cr_assert(eq(int, t.res, MSS_MORE));
    expect_out(&t, HEADER_HEX NA_HEX);
    struct hex h = unhex(SIMULTANEOUS_HEX NOISE_HEX);
    say(&t, hex_bytes(&h));
    cr_assert(eq(int, t.res, MSS_AGREED));
    cr_assert(eq(int, t.id, NOISE_ID));
    expect_out(&t, HEADER_HEX NA_HEX NA_HEX NOISE_HEX);
}

Test(mss_listen, leaves_what_follows_the_name) /* check 9 */
{
    struct talk t = heard(HEADER_HEX NOISE_HEX "0020 7b4e90 13");

    cr_assert(eq(int, t.res, MSS_AGREED));
    cr_assert(eq(sz, t.in_n, 6));
    cr_assert(zero(int, memcmp(t.in, "\x00\x20\x7b\x4e\x90\x13", 6)));
}

Test(mss_listen, lists_its_protocols) /* check 10 */
{
    struct talk t = heard(HEADER_HEX LS_HEX TLS_HEX);

    cr_assert(eq(int, t.id, TLS_ID));
    expect_out(&t, HEADER_HEX "15" NOISE_HEX TLS_HEX "0a" TLS_HEX);
}

Test(mss_listen, gives_the_same_answer_however_the_bytes_are_cut) /* check 8 */
{
    static const char wire[] = HEADER_HEX YAMUX_HEX LS_HEX SIMULTANEOUS_HEX NOISE_HEX "0020";
    struct hex h = unhex(wire);
    struct talk whole = heard(wire);

    cr_assert(eq(int, whole.res, MSS_AGREED));
    for (size_t at = 0; at <= h.n - 2; at++) {
        struct talk t = { .id = -1 };

        say(&t, bytes_of(h.b, at));
        if (t.res == MSS_MORE)
            say(&t, bytes_of(h.b + at, h.n - at));
        cr_expect(eq(int, t.res, MSS_AGREED), "cut at %zu", at);
        cr_expect(eq(int, t.id, NOISE_ID));
        cr_expect(bytes_eq(bytes_of(t.out, t.out_n), bytes_of(whole.out, whole.out_n)));
    }
    struct talk t = { .id = -1 };
    for (size_t i = 0; i < h.n - 2; i++)
        say(&t, bytes_of(h.b + i, 1));
    cr_expect(eq(int, t.res, MSS_AGREED));
    cr_expect(bytes_eq(bytes_of(t.out, t.out_n), bytes_of(whole.out, whole.out_n)));
}

Test(mss_listen, waits_on_every_truncation)
{
    struct hex h = unhex(HEADER_HEX NOISE_HEX);

    for (size_t n = 0; n < h.n; n++) {
        struct talk t = { .id = -1 };
        uint8_t *copy;
        struct cur c = cur_of(tight(bytes_of(h.b, n), &copy));
        struct wcur w = wcur_of(t.out, sizeof(t.out));

        cr_expect(eq(int, mss_listen_feed(&t.m, security, &c, &w, &t.id), MSS_MORE), "%zu", n);
        cr_expect(eq(int, t.id, -1));
        cr_expect(eq(sz, c.n, n < 20 ? n : n - 20)); /* whole frames only */
        free(copy);
    }
}

Test(mss_listen, fails_what_is_no_negotiation)
{
    static const char *const rows[] = {
        NOISE_HEX,                                  /* no header */
        HEADER_HEX HEADER_HEX,                      /* a second one */
        "122f6d756c746973747265616d2f312e302e30",   /* no newline */
        "132f6d756c746973747265616d2f312e302e310a", /* another version */
        HEADER_HEX "072f6e6f69736500",              /* another end than a newline */
        HEADER_HEX "00",                            /* an empty frame */
        HEADER_HEX "010a",                          /* an empty name */
        HEADER_HEX "8000",                          /* an over-long prefix */
        HEADER_HEX "8700"
                   "2f6e6f6973650a",
        HEADER_HEX "808080",           /* a prefix past any bound */
        HEADER_HEX "046e6f6e0a",       /* neither a name nor a command */
        HEADER_HEX NA_HEX,             /* an answer, not a question */
        HEADER_HEX YAMUX_HEX "020800", /* a payload behind a refused name (§3) */
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct talk t = heard(rows[i]);

        cr_expect(eq(int, t.res, MSS_FAILED), "%s", rows[i]);
        cr_expect(eq(int, t.id, -1));
    }
    struct talk t = heard(HEADER_HEX YAMUX_HEX "020800");
    expect_out(&t, HEADER_HEX NA_HEX); /* worth sending before the close */
}

Test(mss_listen, takes_frames_of_1024_bytes_and_no_more) /* check 11 */
{
    for (size_t over = 0; over < 2; over++) {
        struct talk t = heard(HEADER_HEX);
        uint8_t frame[2 + MSS_FRAME_MAX + 1];
        size_t len = MSS_FRAME_MAX + over;

        memset(frame, 'x', sizeof(frame));
        frame[0] = (uint8_t)(0x80 | (len & 0x7f));
        frame[1] = (uint8_t)(len >> 7);
        frame[2] = '/';
        frame[2 + len - 1] = '\n';
        say(&t, bytes_of(frame, 2)); /* the prefix alone decides */
        cr_assert(eq(int, t.res, over ? MSS_FAILED : MSS_MORE));
        if (over)
            break;
        say(&t, bytes_of(frame + 2, len));
        cr_assert(eq(int, t.res, MSS_MORE));
        expect_out(&t, HEADER_HEX NA_HEX);
    }
}

Test(mss_listen, refuses_twelve_names_and_fails_at_the_next) /* check 14 */
{
    for (int known = 0; known < 2; known++) {
        struct talk t = heard(HEADER_HEX);
        struct hex bad = unhex(YAMUX_HEX), list = unhex(LS_HEX);

        for (int i = 0; i < MSS_TRIES_MAX; i++) {
            say(&t, hex_bytes(i % 2 ? &list : &bad));
            cr_assert(eq(int, t.res, MSS_MORE));
        }
        struct hex last = unhex(known ? NOISE_HEX : YAMUX_HEX);
        say(&t, hex_bytes(&last));
        cr_assert(eq(int, t.res, known ? MSS_AGREED : MSS_FAILED));
    }
}

Test(mss_listen, fails_when_answers_do_not_fit)
{
    struct hex h = unhex(HEADER_HEX NOISE_HEX);

    for (size_t room = 0; room < h.n; room++) {
        struct mss_listen m = { 0 };
        struct cur c = cur_of(hex_bytes(&h));
        uint8_t out[64];
        struct wcur w = wcur_of(out, room);
        int id;

        cr_expect(eq(int, mss_listen_feed(&m, security, &c, &w, &id), MSS_FAILED), "%zu", room);
    }
    /* What MSS_REPLY_MAX promises: a whole negotiation's worth of refusals in one feed. */
    struct talk t = { 0 };
    uint8_t all[20 + MSS_TRIES_MAX * 14];
    struct wcur w = wcur_of(all, sizeof(all));
    mss_put(&w, MSS_HEADER);
    for (int i = 0; i < MSS_TRIES_MAX; i++)
        mss_put(&w, "/yamux/1.0.0");
    struct cur c = cur_of(bytes_of(all, w.wrote));
    uint8_t out[MSS_REPLY_MAX];
    struct wcur answers = wcur_of(out, sizeof(out));
    cr_assert(eq(int, mss_listen_feed(&t.m, security, &c, &answers, &t.id), MSS_MORE));
    cr_assert(zero(sz, c.n));
}

/* ---- dialer ------------------------------------------------------------------------------------
 */

Test(mss_dial, says_header_and_name_in_one_go)
{
    uint8_t buf[64];
    struct wcur w = wcur_of(buf, sizeof(buf));

    mss_dial_hello(&w, "/noise");
    expect_wrote(&w, buf, HEADER_HEX NOISE_HEX);
}

static enum mss_res dial(const char *wire, size_t *left)
{
    struct mss_dial m = { 0 };
    struct hex h = unhex(wire);
    struct cur c = cur_of(hex_bytes(&h));
    enum mss_res res = mss_dial_feed(&m, "/noise", &c);

    *left = c.n;
    return res;
}

Test(mss_dial, takes_the_answer_and_nothing_behind_it)
{
    size_t left;

    cr_assert(eq(int, dial(HEADER_HEX NOISE_HEX "0408", &left), MSS_AGREED));
    cr_assert(eq(sz, left, 2));
    cr_assert(eq(int, dial(HEADER_HEX, &left), MSS_MORE));
    cr_assert(eq(int, dial(HEADER_HEX NA_HEX, &left), MSS_FAILED));
    cr_assert(eq(int, dial(HEADER_HEX TLS_HEX, &left), MSS_FAILED));
    cr_assert(eq(int, dial(HEADER_HEX HEADER_HEX, &left), MSS_FAILED));
    cr_assert(eq(int, dial(NOISE_HEX, &left), MSS_FAILED));
    cr_assert(eq(int, dial("00", &left), MSS_FAILED));
    cr_assert(eq(int, dial("8108", &left), MSS_FAILED)); /* 1025 */
}

Test(mss_dial, understands_every_cut)
{
    struct hex h = unhex(HEADER_HEX NOISE_HEX "ff");

    for (size_t at = 0; at < h.n - 1; at++) {
        struct mss_dial m = { 0 };
        struct cur c = cur_of(bytes_of(h.b, at));

        cr_expect(eq(int, mss_dial_feed(&m, "/noise", &c), MSS_MORE), "cut at %zu", at);
        size_t used = at - c.n;
        c = cur_of(bytes_of(h.b + used, h.n - used));
        cr_expect(eq(int, mss_dial_feed(&m, "/noise", &c), MSS_AGREED), "cut at %zu", at);
        cr_expect(eq(sz, c.n, 1));
    }
}

Test(mss, both_roles_meet)
{
    struct talk t = { 0 };
    struct mss_dial d = { 0 };
    uint8_t hello[64];
    struct wcur w = wcur_of(hello, sizeof(hello));

    mss_dial_hello(&w, "/tls/1.0.0");
    say(&t, bytes_of(hello, w.wrote));
    cr_assert(eq(int, t.res, MSS_AGREED));
    struct cur c = cur_of(bytes_of(t.out, t.out_n));
    cr_assert(eq(int, mss_dial_feed(&d, "/tls/1.0.0", &c), MSS_AGREED));
    cr_assert(zero(sz, c.n));
}
