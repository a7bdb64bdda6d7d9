/* SPDX-License-Identifier: MIT */
/*
 * One simulated world: an image on a disk, the device that has it open, the guest that uses it, and
 * the promises made to the guest.
 *
 * Everything happens in one thread. The guest's steps are drawn from the seed beforehand
 * (workload.c), each with a separate seed, so that leaving some out (--skip) hardly changes the
 * others. The backend's event hook takes cuts as snapshots; they are judged when no library call is
 * under way.
 */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include <ploop/ops.h>
#include <ploop/ploop.h>

#include "backend.h"
#include "base.h"
#include "clock.h"
#include "counters.h"
#include "cut.h"
#include "disk.h"
#include "extension.h"
#include "image.h"
#include "model.h"
#include "rng.h"

enum { GUEST_OPS = 40, SLEEPS_MAX = 500 };

enum guest_kind {
    GUEST_READ = 1,
    GUEST_WRITE,
    GUEST_ZEROES,
    GUEST_DISCARD,
    GUEST_FLUSH,
    GUEST_BAT_WRITE
};

/* One request of the guest. FREE, then SUBMITTED, then FREE by its callback. */
struct guest_op {
    struct sim *sim;
    ploop_pio *pio;
    uint32_t queue;
    bool submitted;
    enum guest_kind kind;
    uint32_t flags;
    uint64_t first, count; /* sectors; pages for BAT_WRITE */
    uint64_t disk_sectors; /* the disk's size when it was made */
    uint64_t id;
    uint64_t submit;
    bool latched;  /* a SYNC had failed before it was submitted */
    bool is_blank; /* a write of zeros, as data */
    uint8_t *buffer;
    struct iovec iov[3];
    uint32_t iov_count;
};

struct sim {
    struct rng rng;     /* the schedule; seeded anew for each step */
    struct rng cut_rng; /* separate, so that taking a cut changes nothing else */
    struct image image;
    struct base base; /* absent: one delta only */
    struct disk disk;
    struct backend backend;
    struct sim_clock clock;
    struct model model;
    struct ploop_dev_config config;
    ploop_file *file, *base_file;
    ploop_file *lowers[4]; /* in base_file's place: the files below, the base first */
    uint32_t lower_count;
    bool lowest_is_raw; /* of those */
    ploop_dev *dev;
    ploop_queue *queues[BACKEND_QUEUES];
    uint32_t queue_count;
    uint32_t target;  /* of the request that is made now */
    uint32_t running; /* the queue whose run calls callbacks now, plus one; else 0 */
    bool no_wake;     /* the loop uses the next deadline, and gives no wake_at */
    struct guest_op ops[GUEST_OPS];
    unsigned outstanding;
    unsigned sleeps; /* of the thread that executes a request, in which only the clock moved */
    uint64_t next_id;
    unsigned resubmit_permille; /* callbacks that submit again */
    uint64_t resubmissions;     /* the number of times a callback submits its request again */
    bool suspended, aborting, opening, closing;
    bool expect_errors;   /* a request may fail: something was injected */
    uint64_t discards;    /* in this session */
    bool receiver_marked; /* the log says that a receiver of a merge keeps its mark */
    bool new_top_marked;  /* the log says that a file which did not become the top keeps its mark */
    bool discards_may_stay;   /* what is below the top changes: any may leave its clusters */
    bool found_marked;        /* this session's image, as on the disk */
    bool changed;             /* this session: a change was submitted, or opening was one */
    uint32_t expected_in_use; /* when it is closed, if it has changed something */
    uint32_t found_in_use;
    uint64_t resized; /* the size that the guest was told of in this session, in bytes; 0: none */

    unsigned cut_permille; /* per event */
    bool no_cuts;
    struct cut *cuts;           /* taken and not yet judged */
    uint32_t states;            /* of the pages, when last read: a mask of enum page_state */
    uint64_t library_errors[2]; /* events told: FAILED, PARKED */
};

void sim_init(struct sim *sim, uint64_t seed);
enum sim_base { SIM_ALONE, SIM_OVER_IMAGE, SIM_OVER_RAW };
void sim_start(
    struct sim *sim,
    enum sim_base below); /* after sim->image is chosen: builds it, and what lies below */
void sim_make_files(struct sim *sim); /* after the backend's capabilities are chosen */
void sim_free_all(struct sim *sim);
void sim_cut(struct sim *sim); /* take a cut now, to be judged later */

/* workload.c */
void sim_choose_config(struct sim *sim); /* how it is opened, and the backend's abilities */
void sim_choose_copies(struct sim *sim); /* whether copies from lower deltas are put off */
void sim_choose_faults(struct sim *sim); /* which strike, and how often */
void sim_choose_limit(struct sim *sim);  /* of the file's size: space runs out */
void sim_some_steps(struct sim *sim);    /* of the backend */
void sim_suspend(struct sim *sim);       /* or resume */

/* session.c */
enum session_how { SESSION_PLAIN, SESSION_RECOVER, SESSION_RECOVER_CACHED };
int session_open(struct sim *sim, enum session_how how);
int session_close(struct sim *sim);
void session_adopt(struct sim *sim);     /* the model takes the disk's content as it is shown */
void session_crash(struct sim *sim);     /* the process dies, what it wrote stays in the cache */
void session_power_cut(struct sim *sim); /* the machine dies; one of the disks it may have left is
                                            what the next session finds */
void session_size(struct sim *sim);      /* the size of what is shown now is the guest's */
/* Whether this job may write the longer map and the header of a disk of that size: then it may. */
bool session_may_grow(struct sim *sim, ploop_job *job, uint64_t sectors);
void session_found(struct sim *sim); /* what is shown now is what the device opens */
void session_lose(
    struct sim *sim); /* writeback of all that is not durable fails, and no call is told yet */
void session_reopen(
    struct sim *sim); /* however the last one ended; must succeed, without faults if need be */
bool session_run_queue(struct sim *sim, uint32_t queue); /* whether it ran a callback */
/* The same while the owner of a queue does not run it; the backend completes by itself. */
void session_drain_asleep(struct sim *sim, uint32_t sleeper);
void session_drain(
    struct sim *sim); /* everything in flight completes, with the clock standing still */
void session_heal(struct sim *sim); /* no more faults: a flush must succeed, unless latched */
void session_look(struct sim *sim); /* note the pages' states */
void session_check_age(struct sim *sim);
uint32_t session_rules(const struct sim *sim);
void session_run(struct sim *sim);

/* guest.c */
bool guest_do(struct sim *sim, enum guest_kind kind, uint64_t first, uint64_t count,
              uint32_t flags);
bool guest_random(struct sim *sim); /* any request */
/* Any request, by a thread that waits for it: ploop_pio_execute(). */
bool guest_execute(struct sim *sim);

/* judge.c */
void judge_cuts(struct sim *sim);
/*
 * `going_on`: also open it with the library and continue with it; the result depends on the disk
 * only.
 */
void judge_disk(struct sim *sim, const struct snapshot *snapshot, const struct disk_state *state,
                const char *name, bool going_on);
void judge_closed(struct sim *sim); /* after a clean close: the file has no error */

#endif
