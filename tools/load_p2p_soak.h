/* tools/load_p2p_soak.h: what the two parts of soak share. Seats are filled by peers that reserve,
 * renew, leave in every way and come back (load_p2p_soak.c); circuits between them carry bytes of
 * which each is compared, and some are cut on purpose while they do (load_p2p_soak_flow.c).
 *
 * What counts as a failure: a byte that is not the one that was sent there, a FIN before the last
 * byte, an end that nobody wished, a refusal of a peer that was there all the time, and anything
 * that has not happened after a patience of many seconds. */
#ifndef SLUICE_TOOLS_LOAD_P2P_SOAK_H
#define SLUICE_TOOLS_LOAD_P2P_SOAK_H

#include "tools/load_p2p.h"

enum seat_state { SEAT_AWAY, SEAT_COMING, SEAT_STANDING, SEAT_LEAVING };

/* How a peer that stands leaves. */
enum way {
    WAY_KILL,    /* RST of the connection, unsent and unread bytes and all */
    WAY_CLOSE,   /* close(2), whatever that does to what is on its way */
    WAY_FIN,     /* half-close, then waits for the relay's end */
    WAY_GO_AWAY, /* GoAway, a moment later close(2) */
    WAY_RESETS,  /* RST of all streams, then half-close */
    WAY_POLITE,  /* lets its circuits end, then half-close */
    WAYS
};

/* How a peer leaves that only just comes. */
enum quit { QUIT_NOT, QUIT_AT_ONCE, QUIT_SHAKING, QUIT_UP, QUIT_RESERVING, QUITS };

/* An identity; some are held by two seats at once. */
struct who {
    struct lp_peer peer;
    uint64_t changed_ns; /* a connection of it came or left */
};

struct seat {
    struct who *who;
    struct lp_conn *conn; /* NULL: away */
    uint32_t step;        /* grows with each change of state: names what is on the agenda */
    uint8_t state, quit, way;
    bool renewing, lapsed; /* its reservation may run out */
};

/* What happens to a circuit. */
enum cut {
    CUT_NOT,
    CUT_SOURCE_RST,
    CUT_TARGET_RST,
    CUT_BOTH_RST,
    CUT_SOURCE_LEAVES,
    CUT_TARGET_LEAVES,
    CUT_BOTH_LEAVE,
    CUTS
};
enum plan { PLAN_BULK, PLAN_MESSAGES };

struct plot {
    struct lp_circuit *k;
    struct who *target;
    struct seat *from, *to; /* another seat of that identity may take the circuit */
    uint32_t life;          /* names what is on the agenda */
    bool used, dialing, closing;
    bool cut;     /* it may end at any time */
    bool cut_due; /* is on the agenda */
    bool blind;   /* the target was not there for sure when it was dialled */
    bool fin[2];  /* a FIN arrived, [1]: at the source */
    uint8_t plan, cut_as;
    uint64_t want[2]; /* bytes to send */
    uint64_t cut_at;  /* once so many were received */
    uint32_t body;    /* of a frame */
    uint64_t began_ns;
};

enum event {
    EV_RETURN = 1, /* of a seat */
    EV_QUIT,
    EV_RENEW,
    EV_RENEWED,
    EV_HANG_UP,
    EV_CLOSE,
    EV_POLITE,
    EV_UNPAUSE,
    EV_SEAT_LATE,
    EV_MESSAGE = 32, /* of a circuit */
    EV_FINISH,
    EV_RELEASE,
    EV_CUT,
    EV_PLOT_LATE,
};

struct soak_counts {
    uint64_t came, left[WAYS], quit[QUITS], reserved, renewed, lapsed;
    uint64_t dials, refused, dial_cut; /* refused, cut: because the target was leaving */
    uint64_t clean, cut[CUTS], cut_else;
    uint64_t clean_bytes[2];               /* sent and received alike */
    uint64_t cut_sent[2], cut_received[2]; /* [1]: the way back */
    uint64_t heads, cut_heads;             /* LP_HEAD bytes more each, source to target */
    uint64_t failures;
};
extern struct soak_counts soak;
extern bool soak_ending; /* nobody comes back, nothing begins */
extern bool soak_surge;  /* more of everything, and receivers that hold back */

/* load_p2p_soak.c */
uint64_t soak_random(uint64_t below);
bool soak_chance(unsigned percent);
void soak_fail(const char *fmt, ...) PRINTF_LIKE(1, 2);
void soak_at(uint64_t at_ns, enum event what, uint32_t index, uint32_t step);
struct seat *soak_standing(void); /* any; NULL: found none */
struct seat *soak_any(void);
void soak_leave(struct seat *s, enum way way);
void soak_pause(struct seat *s, uint64_t for_ns);

/* load_p2p_soak_flow.c */
void plots_init(unsigned n);
void plots_begin(void);  /* one more dial, if there is room */
void plots_finish(void); /* all that runs comes to its end */
unsigned plots_open(void);
void plots_cut_of(struct lp_conn *c);    /* those that c carries may end now */
void plots_finish_of(struct lp_conn *c); /* those that c carries come to their end */
bool plots_carried(const struct lp_conn *c);
void plots_event(enum event what, uint32_t index, uint32_t life);
void plots_connected(struct lp_stream *s, enum hop_status status);
void plots_reap(void);

#endif
