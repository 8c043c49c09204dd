/* tests/unit/stun_vec.h: the published messages (turn.md §19; RFC 5769, RFC 8489 B.1 with its
 * erratum; dusk.md §11; dig.md §11), and helpers of the tests around STUN. */
#ifndef SLUICE_TESTS_UNIT_STUN_VEC_H
#define SLUICE_TESTS_UNIT_STUN_VEC_H

#include "proto/stun.h"
#include "proto/stun_auth.h"
#include "tests/unit/relay_hex.h"
#include "tests/unit/seeded.h"

#define TID "0102030405060708090a0b0c"
#define COOKIE "2112a442"

#define V1                                                                                         \
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e00" \
    "01ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5" \
    "b2d3f249c1b571a280280004e57a3bcf"
#define V2                                                                                         \
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112" \
    "a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
#define V3                                                                                         \
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113" \
    "a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
#define V4                                                                                         \
    "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b900000015" \
    "001c662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578616d706c652e6f726700" \
    "00080014f67024656dd64a3e02b8e0712e85c9a28ca89666"
#define V5                                                                                         \
    "000100902112a44278ad3433c6ad72c029da412e001e00204a3cf38fef6992bda952c6780417da0f24819415569e" \
    "60b205c46e41407f1704001500296f624d61744a6f733241414143662f2f3439396b39353464364f4c33346f4c39" \
    "4653547679363473410000000014000b6578616d706c652e6f726700001d000400020000001c0020b5c7bf005b6c" \
    "52a21c51c5e892f81924136296cb927c43149309278cc6518e65"
#define V8 "00010000" COOKIE TID
#define V8_REPLY "0101000c" COOKIE TID "002000080001a147e112a643"
#define V10 "00030008" COOKIE TID "0019000411000000"
#define V11                                                                                        \
    "00030048" COOKIE TID "00190004110000000006000475736572001400057265616c6d000000001500086e6f6e" \
    "636531323300080014e8cc74e986af34941e32cd92d62cb018a21509fd80280004e847d735"
#define V12                                                                                        \
    "00030094" COOKIE TID "0019000411000000001e00206a3029116b47aa98bcaa325399733dc1a23cd57e26b81b" \
    "ef3ff6531ce624e2da001400057265616c6d000000001500156f624d61744a6f7332774141416162636465666768" \
    "000000800200080002000000010000001d000400020000001c0020390b18eea5df75689388858d234af26a9d21ae" \
    "03e52126800bce0d9d85c551288028000463803bab"
#define V13 "00090014" COOKIE TID "000c000440000000001200080001e118e112a64d"
#define V14 "00160018" COOKIE TID "001200080001e118e112a64d0013000568656c6c6f000000"

#define SHORT_PASSWORD "VOkJxbRl1RmTxUk/WvJxBt" /* V1, V2, V3: the key as it stands */
#define MATRIX "\xe3\x83\x9e\xe3\x83\x88\xe3\x83\xaa\xe3\x83\x83\xe3\x82\xaf\xe3\x82\xb9"
#define KEY_V4 "e8ca7ad59d5eb0518e312911d2dab2a9"
#define KEY_V5 "dd295a613b9058c3c23d6dc7165bda072304d989c9d0af3a8c7e184b4f9bb4a1"
#define KEY_MD5 "8493fbc53ba582fb4c044c456bdc40eb" /* user:realm:pass */
#define KEY_SHA256 "07e934117abd40836e7c6329b54731b2b2d2a5f9a71f544922d75e0730d8251b"
#define USERHASH "6a3029116b47aa98bcaa325399733dc1a23cd57e26b81bef3ff6531ce624e2da"

static const char *const all_vectors[] = {
    V1, V2, V3, V4, V5, V8, V8_REPLY, V10, V11, V12, V13, V14
};

/* The bytes stay until the eighth call after this one. */
static inline struct bytes hex(const char *text)
{
    static struct hex ring[8];
    static unsigned at;
    struct hex *h = &ring[at++ % 8];

    *h = unhex(text);
    return hex_bytes(h);
}

static inline struct bytes key_of(const char *text) /* hexadecimal, or the password of V1 to V3 */
{
    return strcmp(text, SHORT_PASSWORD) == 0 ? bytes_str(text) : hex(text);
}

static inline struct stun_msg decoded(const char *text)
{
    struct stun_msg m;
    enum stun_verdict v = stun_decode(hex(text), 0, &m);

    cr_assert(v == STUN_OK, "verdict %d for %s", v, text);
    return m;
}

static inline enum stun_verdict verdict_of(const char *text)
{
    struct stun_msg m;

    return stun_decode(hex(text), 0, &m);
}

static inline struct netaddr at_addr(const char *text)
{
    struct netaddr a;

    cr_assert(netaddr_parse(bytes_str(text), &a), "%s", text);
    return a;
}

static inline bool same_addr(const struct netaddr *a, const char *text)
{
    struct netaddr b = at_addr(text);

    return memcmp(a->ip, b.ip, sizeof(b.ip)) == 0 && a->port == b.port;
}

/* A message of ours under construction, in poisoned memory: what is not written shows. */
struct making {
    struct stun_build b;
    uint8_t buf[70000];
};

static inline struct making *making(unsigned method, enum stun_class c)
{
    static struct making m;
    uint8_t id[STUN_ID];

    memset(m.buf, 0xa5, sizeof(m.buf));
    stun_id_of(hex(TID).p, id);
    stun_begin(&m.b, m.buf, sizeof(m.buf), stun_type(method, c), id);
    return &m;
}

static inline struct bytes made(struct making *m)
{
    struct bytes out;

    cr_assert(stun_end(&m->b, &out));
    return out;
}

static inline bool is_hex(struct bytes got, const char *text)
{
    return bytes_eq(got, hex(text));
}

static inline void expect_made(struct making *m, const char *text)
{
    struct bytes got = made(m);
    char shown[4096] = "";

    for (size_t i = 0; i < got.n && i < 2000; i++)
        snprintf(shown + 2 * i, 3, "%02x", got.p[i]);
    cr_assert(is_hex(got, text), "made %s\nwant %s", shown, text);
}

#endif
