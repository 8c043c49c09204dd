/* Runs one fuzz target over its corpus, as a plain test and under any compiler: each file, and each
 * prefix of a short one, so that every truncation of every kept input stays covered too. */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    FILE_MAX = 1 << 16,
    FILES_MAX = 1000,
    PREFIXES_OF_MAX = 512, /* files up to this size are also run cut short */
};

/* A copy of exactly that size, so that AddressSanitizer sees a read one past the end. */
static void run(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);

    ASSERT(copy);
    if (n)
        memcpy(copy, data, n);
    ASSERT(LLVMFuzzerTestOneInput(copy, n) == 0);
    free(copy);
}

static bool replay(const char *dir, const char *name)
{
    static uint8_t data[FILE_MAX + 1];
    char path[4096];
    int len = snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = len > 0 && (size_t)len < sizeof(path) ? fopen(path, "rb") : NULL;

    if (!f) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return false;
    }
    size_t n = fread(data, 1, sizeof(data), f);

    fclose(f);
    if (n > FILE_MAX) {
        fprintf(stderr, "%s: larger than %d bytes, minimise it\n", path, FILE_MAX);
        return false;
    }
    fprintf(stderr, "%s\n", name); /* the last line before a crash names the culprit */
    run(data, n);
    for (size_t cut = 0; n <= PREFIXES_OF_MAX && cut < n; cut++)
        run(data, cut);
    return true;
}

static int visible(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

int main(int argc, char **argv)
{
    struct dirent **names = NULL;
    int n = argc == 2 ? scandir(argv[1], &names, visible, alphasort) : -1;
    bool fine = n > 0 && n <= FILES_MAX; /* an empty corpus tests nothing */

    if (!fine)
        fprintf(stderr, "usage: %s CORPUS, a directory of 1 to %d files\n", argv[0], FILES_MAX);
    for (int i = 0; fine && i < n; i++)
        fine = replay(argv[1], names[i]->d_name);
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
    fprintf(stderr, "%d files, %s\n", n, fine ? "all run" : "failed");
    return fine ? 0 : 1;
}
