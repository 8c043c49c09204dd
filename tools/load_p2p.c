/* load-p2p: load on a libp2p circuit relay. What each part does: tools/load_p2p.h. */
#include "tools/load_p2p.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

int main(int argc, char **argv)
{
    struct rlimit files;

    lp_parse(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    (void)prctl(PR_SET_TIMERSLACK, 1);
    lp_conn_init();
    lp_flow_init();
    lp_counters_init();
    return lp_run();
}
