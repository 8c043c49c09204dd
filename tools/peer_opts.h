/* tools/peer_opts.h: the command line of sluice-peer. */
#ifndef SLUICE_TOOLS_PEER_OPTS_H
#define SLUICE_TOOLS_PEER_OPTS_H

#include "proto/maddr.h"

enum { FORBID_MAX = 8 };
enum mode { MODE_ECHO, MODE_SINK, MODE_HASH, MODE_ANY };

struct peer_opts {
    bool reserve;
    const char *forbid[FORBID_MAX];
    size_t forbid_n;
    enum mode mode, expect;
    const char *bind, *key;
    uint64_t bytes, data_seed, circuits_max;
    int seed;                        /* -1: none given */
    double timeout_s, stay_s;        /* 0: none given */
    char relay_text[MADDR_TEXT_MAX]; /* without any peer id */
    char host[256], port[8];
    bool has_relay_id;
    struct peer_id relay_id, target;
};

/* Ends the process at --help (0) and at wrong usage (2, one line on stderr). */
void peer_opts_parse(struct peer_opts *o, int argc, char **argv);
/* The seed of the identity that the options ask for; ends the process when the file is unusable. */
void peer_opts_seed(const struct peer_opts *o, uint8_t seed[32]);

#endif
