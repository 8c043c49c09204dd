/* embed OUT FILE...: OUT is a C header that holds the bytes of the files, each as the array
 * web_NAME (dots of the name become _). "@V@" in a file becomes the version of them all, a hash: so
 * a document can name another by an address that changes when any does, and what is behind that
 * address may be kept for ever.
 *
 * A program, where others have `ld -b binary` or .incbin: it needs nothing of the linker or the
 * assembler, the build knows what depends on what, and the sanitizers see ordinary arrays. */
#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX = 64 * 1024, FILES_MAX = 16, VERSION_CHARS = 16, PER_LINE = 20 };

struct file {
    const char *path;
    size_t n;
    uint8_t data[FILE_MAX + 1];
};

static struct file files[FILES_MAX];

static int failed(const char *path, const char *what)
{
    fprintf(stderr, "embed: %s: %s\n", path, what);
    return 1;
}

static int load(struct file *f, const char *path)
{
    FILE *in = fopen(path, "rb");
    bool bad;

    if (!in)
        return failed(path, "cannot be opened");
    f->path = path;
    f->n = fread(f->data, 1, sizeof(f->data), in);
    bad = ferror(in) != 0;
    fclose(in);
    if (bad)
        return failed(path, "cannot be read");
    return f->n > FILE_MAX ? failed(path, "larger than 64 KiB") : 0;
}

/* FNV-1a: it has to tell one build from another, not to withstand anybody. */
static uint64_t hash(uint64_t h, const struct file *f)
{
    for (size_t i = 0; i < f->n; i++)
        h = (h ^ f->data[i]) * 0x100000001b3U;
    return (h ^ f->n) * 0x100000001b3U;
}

static void byte(FILE *out, size_t *wrote, unsigned value)
{
    fprintf(out, "%s%u,", *wrote % PER_LINE ? "" : "\n    ", value);
    ++*wrote;
}

static void array(FILE *out, const struct file *f, const char *version)
{
    const char *slash = strrchr(f->path, '/');
    char name[64];
    size_t n = 0, wrote = 0;

    snprintf(name, sizeof(name), "%s", slash ? slash + 1 : f->path);
    for (char *p = name; *p; p++)
        if (!isalnum((unsigned char)*p))
            *p = '_';
    fprintf(out, "static const uint8_t web_%s[] = {", name);
    for (; n < f->n; n++) {
        if (f->n - n < 3 || memcmp(f->data + n, "@V@", 3)) {
            byte(out, &wrote, f->data[n]);
            continue;
        }
        for (int i = 0; i < VERSION_CHARS; i++)
            byte(out, &wrote, (unsigned char)version[i]);
        n += 2;
    }
    fputs("\n};\n", out);
}

int main(int argc, char **argv)
{
    uint64_t h = 0xcbf29ce484222325U;
    char version[VERSION_CHARS + 1];
    FILE *out;
    int n = argc - 2;

    if (n < 1 || n > FILES_MAX)
        return failed(argv[0], "usage: embed OUT FILE...");
    for (int i = 0; i < n; i++) {
        if (load(&files[i], argv[i + 2]))
            return 1;
        h = hash(h, &files[i]);
    }
    snprintf(version, sizeof(version), "%016llx", (unsigned long long)h);
    out = fopen(argv[1], "w");
    if (!out)
        return failed(argv[1], "cannot be made");
    fputs("/* Made by tools/embed.c of the documents in engine/web. */\n", out);
    for (int i = 0; i < n; i++)
        array(out, &files[i], version);
    if (fclose(out)) {
        remove(argv[1]);
        return failed(argv[1], "cannot be written");
    }
    return 0;
}
