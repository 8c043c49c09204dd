/* A configuration file of any bytes is read or refused, twice the same way, and a setting that was
 * taken is within the range that the table promises. */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>

#include "engine/config_int.h"

static bool load(struct config *c, const uint8_t *data, size_t size)
{
    static char *env[] = { NULL };
    struct draft d = { .c = c, .src = SRC_FILE, .envp = env };
    static FILE *nowhere;
    FILE *before = stderr;
    struct conffile *f;
    bool ok;

    if (!nowhere)
        nowhere = fopen("/dev/null", "w");
    CHECK(nowhere);
    stderr = nowhere; /* each refusal is a line */
    memset(c, 0, sizeof(*c));
    preset_defaults(c);
    f = conffile_parse("input", bytes_of(data, size));
    ok = f && conffile_apply(&d, f);
    conffile_free(f);
    stderr = before;
    return ok;
}

/* As text: the padding of two equal structs may differ. */
struct dump {
    size_t n;
    char text[1 << 20];
};

static void collect(void *arg, const char *line)
{
    struct dump *d = arg;
    size_t n = strlen(line);

    CHECK(n < sizeof(d->text) - d->n);
    memcpy(d->text + d->n, line, n);
    d->n += n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config first, second;
    static struct dump a, b;

    bool ok = load(&first, data, size);

    CHECK(load(&second, data, size) == ok);
    a.n = b.n = 0;
    config_dump(&first, collect, &a);
    config_dump(&second, collect, &b);
    CHECK(bytes_eq(bytes_of(a.text, a.n), bytes_of(b.text, b.n)));
    CHECK(first.p2p_n <= CONFIG_LISTEN_MAX && first.announce_n <= CONFIG_ANNOUNCE_MAX);
    CHECK(first.allow_n <= CONFIG_ACL_MAX && first.deny_n <= CONFIG_ACL_MAX);
    CHECK(first.turn_secret_n <= CONFIG_TURN_SECRETS_MAX &&
          first.turn_user_n <= CONFIG_TURN_USERS_MAX);
    CHECK(first.turn_n <= CONFIG_LISTEN_MAX && first.turn_alternate_n <= TURN_PER_FAMILY);
    CHECK(first.turn_external_n <= TURN_PER_FAMILY && first.proxy_from_n <= CONFIG_CIDR_MAX);
    CHECK(first.circuits_max >= 1 && first.circuits_max <= 1000000);
    CHECK(first.hop.reservations_max >= 1 && first.conns_max >= 1 && first.shards <= 64);
    CHECK(first.turn_port_lo >= 1 && first.turn_port_lo <= first.turn_port_hi);
    CHECK(first.log_level <= LOG_TRACE && first.log_format <= LOG_JSON);
    return 0;
}
