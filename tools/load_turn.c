/* load-turn: load on a TURN server. What each part does: tools/load_turn.h. */
#include "tools/load_turn.h"

#include "proto/crypto.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>

int main(int argc, char **argv)
{
    struct rlimit files;

    lt_parse(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    (void)prctl(PR_SET_TIMERSLACK, 1);
    crypto_init();
    lt_sock_init();
    lt_flow_init();
    lt_poll_init();
    lt_counters_init();
    lt_allocs = calloc(lt_opt.allocations, sizeof(*lt_allocs));
    ASSERT(lt_allocs);
    for (unsigned i = 0; i < lt_opt.allocations; i++)
        lt_client_init(&lt_allocs[i], i);
    switch (lt_opt.mode) {
    case LT_FLOW:
        return lt_run_flow();
    case LT_ALLOC_RATE:
        return lt_run_rate();
    case LT_IDLE:
        return lt_run_idle();
    case LT_TCP_RELAY:
        return lt_run_tcp();
    case LT_FOE:
        return lt_run_foe();
    }
    return 2;
}
