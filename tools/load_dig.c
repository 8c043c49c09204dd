/* load-dig: load on a relay of the DIG network. What each part does: tools/load_dig.h. */
#include "tools/load_dig.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

int main(int argc, char **argv)
{
    struct rlimit files;

    ld_parse(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    (void)prctl(PR_SET_TIMERSLACK, 1);
    ld_counters_init();
    if (ld_opt.foe)
        return ld_run_foe();
    ld_conns_init();
    switch (ld_opt.mode) {
    case LD_RELAY:
    case LD_BROADCAST:
    case LD_PING:
    case LD_PEERS:
        return ld_run_flow();
    case LD_JOIN:
        return ld_run_join();
    case LD_IDLE:
        return ld_run_idle();
    }
    return 2;
}
