/* The configuration file: what it says, what it beats, and that a mistake is found by its line. */
#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/config_int.h"

static struct config c;
static char said[4096];
static char path[] = "/tmp/sluice-yaml-XXXXXX";
static char *no_env[] = { "HOME=/", NULL };

static int load_file(const char *yaml, char **env, char *extra)
{
    char *argv[] = { "sluice", "--config", path, extra, NULL };
    FILE *err = stderr;
    char *text = NULL;
    size_t n = 0;
    int r, fd;

    memcpy(path + strlen(path) - 6, "XXXXXX", 6);
    fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, yaml, strlen(yaml)), (ssize_t)strlen(yaml));
    close(fd);
    stderr = open_memstream(&text, &n);
    r = config_load(&c, extra ? 4 : 3, argv, env);
    fclose(stderr);
    stderr = err;
    snprintf(said, sizeof(said), "%s", text);
    free(text);
    unlink(path);
    return r;
}

#define FILE_(yaml) load_file(yaml, no_env, NULL)

Test(config_yaml, keys_are_the_flags)
{
    cr_assert_eq(FILE_("# a relay\n"
                       "preset: descord\n"
                       "port: 9100\n"
                       "max-circuits: 77\n"
                       "log-mask-addresses: true\n"
                       "announce:\n"
                       "  - /ip4/1.2.3.4/tcp/9100\n"
                       "  - \"/dns4/r.example/tcp/9100\"\n"
                       "deny: [ 10.0.0.0/8, fd00::/8 ]\n"
                       "listen-http: off\n"
                       "circuit-rate-per-peer: 5/60\n"),
                 0, "%s", said);
    cr_expect_eq(c.preset, PRESET_DESCORD);
    cr_expect_eq(c.p2p[0].addr.port, 9100);
    cr_expect_eq(c.circuits_max, 77u);
    cr_expect_eq(c.hop.reservations_max, 1024u, "the preset stays below");
    cr_expect(c.log_mask_addresses);
    cr_expect_eq(c.announce_n, 2u);
    cr_expect_eq(c.deny_n, 2u);
    cr_expect_not(c.http_on);
    cr_expect_eq(c.connect_peer_burst, 5u);
    config_free(&c);
}

Test(config_yaml, flag_beats_environment_beats_file_beats_preset)
{
    static const char yaml[] =
        "preset: descord\nmax-circuits: 3\nannounce: [ /ip4/1.2.3.4/tcp/1 ]\n";

    cr_assert_eq(FILE_(yaml), 0);
    cr_expect_eq(c.circuits_max, 3u);
    cr_assert_eq(load_file(yaml, ((char *[]){ "SLUICE_MAX_CIRCUITS=4", "HOME=/", NULL }), NULL), 0);
    cr_expect_eq(c.circuits_max, 4u);
    cr_assert_eq(load_file(yaml, ((char *[]){ "SLUICE_MAX_CIRCUITS=4", "HOME=/", NULL }),
                           "--max-circuits=5"),
                 0);
    cr_expect_eq(c.circuits_max, 5u);
    cr_assert_eq(load_file(yaml, no_env, "--announce=/ip4/9.9.9.9/tcp/1"), 0);
    cr_expect_eq(c.announce_n, 1u, "a stronger list replaces");
    cr_assert_eq(load_file(yaml, no_env, "--preset=none"), 0);
    cr_expect_eq(c.hop.reservations_max, 16384u);
    cr_assert_eq(load_file("log-level: error\n", ((char *[]){ "RUST_LOG=debug", NULL }), NULL), 0);
    cr_expect_eq(c.log_level, LOG_DEBUG);
}

Test(config_yaml, a_mistake_is_found_by_its_line)
{
    static const struct {
        const char *yaml;
        unsigned line;
        const char *says;
    } rows[] = {
        { "max-conns: 7\nmax-circuits: 0\n", 2, "from 1 to 1000000" },
        { "max-conns: 7\n\n# x\nmax-circuits: abc\n", 4, "max-circuits: abc" },
        { "announce:\n  - /ip4/1.2.3.4/tcp/1\n  - nonsense\n  - /ip4/1.2.3.4/tcp/2\n", 3,
          "nonsense" },
        { "deny:\n- 10.0.0.0/8\n- 10.0.0.0/99\n", 3, "10.0.0.0/99" },
        { "max-conns: 7\n\nmax-cons: 8\n", 3, "max-cons" },
        { "max-conns: 7\nmax-circuits: 2\nmax-conns: 8\n", 3, "already" },
        { "preset: dune\n", 1, "descord" },
        { "max-conns: 7\nlog-level: [ info ]\n", 2, "SEQUENCE" },
        { "max-conns: 7\nannounce: /ip4/1.2.3.4/tcp/1\n", 2, "SEQUENCE" },
        { "max-conns: 7\nmax-circuits: *x\n", 2, "alias" },
        { "config: other.yaml\n", 1, "config" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char where[128];

        cr_expect_eq(FILE_(rows[i].yaml), 2, "accepted: %s", rows[i].yaml);
        snprintf(where, sizeof(where), "%s:%u: ", path, rows[i].line);
        cr_expect(strstr(said, where) && strstr(said, rows[i].says), "row %zu wants %s%s: %s", i,
                  where, rows[i].says, said);
        cr_expect_eq(strchr(said, '\n'), said + strlen(said) - 1, "one line: %s", said);
    }
}

Test(config_yaml, secrets_are_not_echoed)
{
    cr_expect_eq(FILE_("turn-user: [ hunter2 ]\n"), 2);
    cr_expect(strstr(said, ":1: turn-user: ***") && !strstr(said, "hunter2"), "%s", said);
}

Test(config_yaml, an_empty_file_says_nothing)
{
    cr_expect_eq(FILE_(""), 0, "%s", said);
    cr_expect_eq(FILE_("# only\n   # comments\n\n"), 0, "%s", said);
}

Test(config_yaml, broken_files_are_refused_and_never_crash)
{
    static const char *const bad[] = { "just text\n",
                                       "- a\n- b\n",
                                       "max-conns: 7\n\tx: [\n",
                                       "{",
                                       "[",
                                       "a: b: c",
                                       "\"",
                                       "%YAML 9.9\n---\n",
                                       "&a *a",
                                       "max-conns: !!binary x\nx",
                                       "max-conns: 7\n...\n...\n---\nfoo: 1\n",
                                       "\xff\xfe\x01" };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        FILE_(bad[i]); /* whatever it says, it comes back */
    cr_expect_eq(FILE_("just text\n"), 2);
    cr_expect_eq(FILE_("{"), 2);
    cr_expect_eq(FILE_("max-conns:\n"), 2, "a key without a value");
}

Test(config_yaml, unreadable_and_oversized_files_are_named)
{
    char *argv[] = { "sluice", "--config=/no/such/x.yaml", NULL };

    cr_expect_eq(config_load(&c, 2, argv, no_env), 2);
    argv[1] = "--config=/";
    cr_expect_eq(config_load(&c, 2, argv, no_env), 2);
    argv[1] = "--config=/dev/zero";
    cr_expect_eq(config_load(&c, 2, argv, no_env), 2, "not a regular file: would never end");
}
