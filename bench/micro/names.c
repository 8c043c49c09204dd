/* bench-names: the directory's index of names (store/names.h): building it, what a put, a touch and
 * a search of every kind cost, and its memory.
 *     bench-names [PROFILES [ROUNDS]]    default: 1000000 400
 * Three populations: names as people choose them (mean of 12 bytes), names of Cyrillic letters, and
 * names of 64 random letters, the longest that a client may have. In the first, the last tenth of
 * the profiles is an enemy's, as new as the rest: pieces of a text, so that every triple of it is
 * in all of them and the text in none; and names of one letter. Prints CPU time (median, 99th per
 * cent, worst) of single calls, and how many finds were cut. */
#include "store/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SEEN = 1800000000, SPREAD_S = 86400 };

static uint64_t dice = 1;
static struct names *names;
static uint32_t profiles = 1000000;
static uint32_t rounds = 400;
static double *sample;

static uint64_t next_u64(void)
{
    uint64_t z = dice += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint32_t any(uint32_t n)
{
    return (uint32_t)(next_u64() % n);
}

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* ---- populations ---------------------------------------------------------------------------- */

enum population { PEOPLE, CYRILLIC, LONG };

static size_t person(char *to)
{
    static const char *const a[] = { "al",  "ma", "jo",     "an",  "ka",  "be", "ro",  "li",
                                     "da",  "sa", "ni",     "to",  "chr", "mi", "ste", "el",
                                     "vi",  "pa", "ge",     "fra", "su",  "ya", "ken", "lu",
                                     "dra", "wi", "Shadow", "The", "xX",  "Dr", "no",  "hu" };
    static const char *const b[] = { "ice",    "ria",  "hn",   "na",  "rin",   "njamin", "bert",
                                     "sa",     "vid",  "ra",   "ck",  "mas",   "is",     "chael",
                                     "fan",    "len",  "ktor", "ul",  "org",   "nk",     "san",
                                     "suke",   "ji",   "cas",  "gon", "lliam", "wolf",   "king",
                                     "Killer", "nova", "va",   "go" };
    int n = snprintf(to, 64, "%s%s", a[any(32)], b[any(32)]);

    if (any(2))
        n += snprintf(to + n, 64 - (size_t)n, "%c%s%s", " ._-"[any(4)], a[any(32)], b[any(32)]);
    if (any(2))
        n += snprintf(to + n, 64 - (size_t)n, "%u", any(any(2) ? 100 : 3000));
    return (size_t)n;
}

static size_t cyrillic(char *to)
{
    static const char often[] = "ОЕАИНТСРВЛКМДПУЯЫЬГЗБЧЙХЖШЮЦЩЭФЪ";
    size_t n = 0;
    uint32_t letters = 4 + any(9);

    for (uint32_t i = 0; i < letters; i++, n += 2)
        memcpy(to + n, often + (size_t)2 * (any(32) * any(33) / 33), 2);
    return n;
}

static size_t long_one(char *to)
{
    for (uint32_t i = 0; i < 64; i++)
        to[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[any(36)];
    return 64;
}

/* Every pair and triple of this text is in the enemy's names, again and again, and the text is not;
 * of his other names there is one letter. */
static const char text_of_enemy[] = "abcabcabcabd";

static size_t enemy(char *to, uint32_t i)
{
    static const char pieces[] = "abcabcabcab abd abcabcabcab abd abcabcabcab abd abcabcabcab abd ";

    memset(to, 'a', 64);
    if (i % 20)
        memcpy(to, pieces, 64);
    return 64;
}

static size_t make(enum population kind, char *to, uint32_t i)
{
    if (kind == CYRILLIC)
        return cyrillic(to);
    if (kind == LONG)
        return long_one(to);
    return i >= profiles / 10 * 9 ? enemy(to, i) : person(to);
}

static struct bytes peer(uint32_t i)
{
    static uint8_t id[38] = { 0x00, 0x24, 0x08, 0x01, 0x12, 0x20 };
    uint64_t z = (i + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15);

    memcpy(id + 6, &z, sizeof(z));
    return bytes_of(id, sizeof(id));
}

static void build(enum population kind)
{
    static const uint8_t seed[16] = "a bench's seed";
    char(*text)[65] = malloc((size_t)profiles * sizeof(*text));
    uint8_t *len = malloc(profiles);
    struct names_stats s;
    double start, worst = 0;
    bool more = true;
    uint64_t bytes = 0;

    if (!text || !len || names_new(seed, 0, profiles, &names) != 0)
        abort();
    for (uint32_t i = 0; i < profiles; i++) {
        len[i] = (uint8_t)make(kind, text[i], i);
        bytes += len[i];
    }
    start = now_us();
    for (uint32_t i = 0; i < profiles; i++)
        if (names_load(names, peer(i), bytes_of(text[i], len[i]), SEEN + any(SPREAD_S)) != 0)
            abort();
    printf("  load                  %8.1f ms", (now_us() - start) / 1e3);
    while (more) {
        double step = now_us();

        if (names_settle(names, 0, &more) != 0)
            abort();
        step = now_us() - step;
        worst = step > worst ? step : worst;
    }
    names_stats_get(names, &s);
    printf(
        ", and settled %.1f ms (longest step %.1f ms); %.1f bytes a profile beside %.1f of name\n",
        (now_us() - start) / 1e3, worst / 1e3, (double)(s.bytes - bytes) / profiles,
        (double)bytes / profiles);
    free(text);
    free(len);
}

/* ---- figures ------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

static void print(const char *what, uint32_t n, const char *more)
{
    qsort(sample, n, sizeof(*sample), by_size);
    printf("  %-36s %9.2f %9.2f %9.2f us%s\n", what, sample[n / 2], sample[n - 1 - n / 100],
           sample[n - 1], more);
}

typedef size_t query_fn(char *to);

static void finds(const char *what, query_fn *make_query)
{
    struct names_hit hits[NAMES_FIND_MAX];
    struct names_stats before, after;
    uint64_t hits_n = 0;
    char more[96];

    names_stats_get(names, &before);
    for (uint32_t i = 0; i < rounds; i++) {
        char text[NAMES_BYTES_MAX];
        size_t n = make_query(text);
        double start = now_us();

        hits_n += names_find(names, bytes_of(text, n), bytes_of(NULL, 0), NAMES_FIND_MAX, hits);
        sample[i] = now_us() - start;
    }
    names_stats_get(names, &after);
    snprintf(more, sizeof(more), "  %5.1f hits, %7.0f compared, %5.1f %% cut",
             (double)hits_n / rounds, (double)(after.compared - before.compared) / rounds,
             100.0 * (double)(after.finds_cut - before.finds_cut) / rounds);
    print(what, rounds, more);
}

static void touches(uint32_t count, bool puts)
{
    struct names_stats before, after;
    char more[64];

    names_stats_get(names, &before);
    for (uint32_t i = 0; i < count; i++) {
        char text[65];
        size_t n = puts ? person(text) : 0;
        struct bytes id = peer(any(profiles));
        double start = now_us();

        if ((puts ? names_put(names, id, bytes_of(text, n), SEEN + 3 * SPREAD_S + i / 8000)
                  : names_touch(names, id, SEEN + SPREAD_S + i / 8000)) != 0)
            abort();
        sample[i] = now_us() - start;
    }
    names_stats_get(names, &after);
    snprintf(more, sizeof(more), "  %.2f moved together a call; %.1f MB",
             (double)(after.moved - before.moved) / count, (double)after.bytes / 1e6);
    print(puts ? "put with another name" : "touch", count, more);
}

static size_t word(char *to, const char *w)
{
    size_t n = strlen(w);

    memcpy(to, w, n);
    return n;
}

static size_t nothing(char *to)
{
    (void)to;
    return 0;
}

static size_t one_byte(char *to)
{
    to[0] = "abcdefghijklmnopqrstuvwxyz0123456789 ._-%!"[any(42)];
    return 1;
}

static size_t two_bytes(char *to)
{
    one_byte(to);
    return 1 + one_byte(to + 1);
}

static size_t common_triple(char *to)
{
    static const char *const w[] = { "ali", "mar", "joh", "san", "the", "wol", "kin", "cha" };

    return word(to, w[any(8)]);
}

static size_t any_triple(char *to)
{
    for (int i = 0; i < 3; i++)
        to[i] = (char)('a' + any(26));
    return 3;
}

static size_t rare(char *to)
{
    size_t n = person(to);

    return n + (size_t)snprintf(to + n, 8, "%u", any(10));
}

static size_t absent(char *to)
{
    size_t n = person(to);

    to[any((uint32_t)n)] = 'q';
    return n;
}

static size_t piece_of_long(char *to)
{
    long_one(to);
    return 3 + any(3);
}

static size_t sixty_four(char *to)
{
    for (size_t n = 0; n < 64;)
        n += person(to + n);
    return 64;
}

static size_t enemy_text(char *to)
{
    return word(to, text_of_enemy);
}

static size_t enemy_letters(char *to)
{
    memset(to, 'a', 64);
    to[any(64)] = "b1 "[any(3)];
    return 2 + any(63);
}

static size_t one_cyrillic(char *to)
{
    return (size_t)0 * cyrillic(to) + 2;
}

static size_t two_cyrillic(char *to)
{
    return (size_t)0 * cyrillic(to) + 4;
}

static size_t rare_cyrillic(char *to)
{
    return word(to, any(2) ? "Ъ" : "Ё");
}

int main(int argc, char **argv)
{
    if (argc > 1)
        profiles = (uint32_t)strtoul(argv[1], NULL, 10);
    if (argc > 2)
        rounds = (uint32_t)strtoul(argv[2], NULL, 10);
    if (profiles < 1000 || rounds < 100)
        return 2;
    sample = malloc((profiles > rounds ? profiles : rounds) * sizeof(*sample));
    if (!sample)
        return 1;
    printf("%u profiles; median, 99th per cent, worst\n", profiles);
    for (int turn = 0; turn < 2; turn++) {
        if (turn == 0) {
            printf("people, and an enemy's tenth\n");
            build(PEOPLE);
        } else {
            printf("the same after touches in no order\n");
            touches(profiles, false);
            touches(profiles / 10, true);
        }
        finds("empty", nothing);
        finds("1 byte", one_byte);
        finds("2 bytes", two_bytes);
        finds("a common triple", common_triple);
        finds("any three letters", any_triple);
        finds("rare: a name and a digit", rare);
        finds("absent: a name with a letter changed", absent);
        finds("64 bytes", sixty_four);
        finds("enemy: all triples, not the text", enemy_text);
        finds("enemy: a's and another", enemy_letters);
    }
    names_free(names);
    printf("Cyrillic\n");
    build(CYRILLIC);
    finds("1 letter", one_cyrillic);
    finds("2 letters", two_cyrillic);
    finds("a rare or absent letter", rare_cyrillic);
    names_free(names);
    printf("64 random letters\n");
    build(LONG);
    finds("1 byte", one_byte);
    finds("2 bytes", two_bytes);
    finds("3 to 5 letters", piece_of_long);
    finds("64 bytes", sixty_four);
    touches(profiles / 4, false);
    names_free(names);
    free(sample);
    return 0;
}
