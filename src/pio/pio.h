/* SPDX-License-Identifier: MIT */
/*
 * A request in the library, from submission to completion. Who leads, from the top down:
 *
 *     submit.c     the fast path; what it cannot do is posted to the turn
 *     request.c    validation; a request comes to the turn, begins, is held
 *     cut.c        a request is cut into parts of one cluster each, in shares of the turn
 *     kind.c       the table of kinds, which names the steps
 *     read.c write.c unmap.c cow.c flush.c    the steps
 *     partial.h    copies that are put off: partial_read.c partial_write.c complete.c
 *     part.c park.c                           a part's states; parts that wait for space
 *     pio.c queue.c lock.c    what is known of a request; the pool and delivery; cluster locks
 */
#ifndef PIO_PIO_H
#define PIO_PIO_H

#include <ploop/ploop.h>

#include "dev/dev.h"
#include "pio/part.h"
#include "pio/partial.h"

/* Why a pio that has begun does not advance: cut.c. */
enum pio_pause { PIO_GOES_ON, PIO_WAITS_FOR_PART, PIO_WAITS_FOR_TURN, PIO_HELD };

struct ploop_pio {
    struct work work; /* to the turn, then to the queue's completions */
    ploop_queue *queue;
    ploop_pio_fn *callback;
    void *user_data;
    const struct iovec *iov;
    uint32_t iov_count;
    uint32_t queue_index; /* beside iov_count, as in ploop_io: both are copied at once */
    uint32_t fast_op;     /* what the fast path sends for it; 0: it goes to the engine */
    uint32_t op;          /* enum pio_op */
    uint32_t flags;
    uint64_t pool_at, pool_push; /* of the pool: queue.c; 0: not of the pool */
    _Atomic uint64_t pool_pop;   /* while it is in the pool */
    uint64_t offset, length;     /* bytes; pages for PIO_BAT_WRITE */
    int result;
    bool blocking; /* a thread waits for it: block.c, call.c; no callback runs */
    atomic_bool finished;
    /* The turn's, while the engine has it: */
    uint64_t next, end; /* what is not yet cut into parts; of a BAT write, the pages left */
    struct iov_cursor cursor;
    uint32_t live, parked, want_space; /* parts */
    uint64_t batch;                    /* of the turn's work, in which it has taken `steps` */
    uint32_t steps;
    enum pio_pause pause;
    bool advancing, stuck;
    struct list link; /* on part_waiters, later or held */
    void (*part_ended)(struct part *part);
    struct round_wait round;
    struct partial_wait copies;
    int copies_error; /* of a partial cluster, before the round */
    struct part part;
};

/* ---- pio.c ---- */
void pio_init(ploop_pio *pio, ploop_queue *queue);
/* Its own part, live and without a lock, for what the request does as a whole. */
struct part *pio_own_part(ploop_pio *pio);
/* Whether all parts that it has are parked: then suspend does not wait for it. */
void pio_set_stuck(ploop_pio *pio);
void pio_note_parked(ploop_pio *pio, bool parked);
void part_wants_space(struct part *part, bool wants);
/* Any thread. queue_announce() follows; in the turn, when it is given back. */
void pio_complete(ploop_pio *pio, int result);
/* Any thread. A pio that a thread waits for is done: its result stands. Before in_flight is. */
void pio_call_over(ploop_pio *pio);

/* ---- cut.c ---- */
/* From the fast path, with the cluster's lock held shared: one part, in its steps. */
void pio_enter(ploop_pio *pio);
void pio_advance(ploop_pio *pio);
void pio_hold(ploop_pio *pio);
void pio_part_ended(struct part *part);
/* Those that have had their share of an earlier turn. Returns how many. */
uint32_t pio_go_on(ploop_dev *dev);

/* ---- park.c ---- */
/* In the turn: tries parked parts again, those that are due or all. Returns how many. */
uint32_t space_retry_parked(ploop_dev *dev, bool all);
/*
 * in_commit begins, and no part is tried again before the embedder has answered: a flush has ended
 * by now, and a thread that waits for a change may be the one that is to answer.
 */
void space_refuse_parked(ploop_dev *dev);
/* At close and abort: no part waits for space any more. */
void space_fail_all(ploop_dev *dev, int error);

/* The top changes, and all is durable: what the parked parts wrote needs no SYNC any more. */
void space_forget_syncs(ploop_dev *dev);

/* ---- cow.c ---- */
/* For a device of several deltas that is open for writing, once. 0 or -ENOMEM; then cow_free(). */
int cow_init(ploop_dev *dev);
void cow_free(ploop_dev *dev);

/*
 * What is reaped besides requests: a pio of PIO_NONE, whose user_data is one of these. `reaped` is
 * called when it was stored, or dropped at the device's end; after that it is not looked at.
 */
struct notice {
    ploop_pio pio;
    struct ploop_completion completion;
    void (*reaped)(struct notice *notice);
};

/* ---- submit.c ---- */
/* Of a pio that nobody has: what its own part sends next may be the fast path's. */
void fast_rest(ploop_pio *pio);
/* What is going to be the top of a running device: makes out whether it is plain (submit.c, 8). */
void fast_look_at_top(const ploop_dev *dev, struct delta *top);
/* Counts it; `work` is to be posted, unless the fast path takes it. */
void pio_accept(ploop_pio *pio);
/* A valid pio that is `blocking`, whose thread holds nothing and waits for it next. */
void pio_submit_blocking(ploop_pio *pio);

/* ---- request.c ---- */
int pio_validate(const ploop_pio *pio);
/* Whether its pieces of memory begin at multiples of this, and end so: at sectors at least. */
bool pio_memory_fits(const ploop_pio *pio, uint32_t alignment);
void pio_begin(struct work *work);     /* the turn's entry */
void pio_refuse_held(ploop_dev *dev);  /* in_commit begins: a thread may wait for itself */
void pio_restart_held(ploop_dev *dev); /* and those that wait for a part: some may be free */

/*
 * What a request counts in in_flight and stuck_count: those that change the disk are counted a
 * second time, in the upper half.
 */
enum { IN_FLIGHT_CHANGES_SHIFT = 32 };
static inline uint64_t pio_weight(const ploop_pio *pio)
{
    return 1 + ((uint64_t)kinds[pio->op].is_change << IN_FLIGHT_CHANGES_SHIFT);
}

/* In the turn: whether the gate holds it. */
static inline bool pio_is_held_back(const ploop_pio *pio, const ploop_dev *dev)
{
    return gate_has(dev, GATE_SUSPENDED) || (gate_has(dev, GATE_JOB) && kinds[pio->op].is_change);
}

static inline struct cluster_lock *lock_of(const ploop_dev *dev, struct guest_cluster cluster)
{
    return &dev->locks[lock_index(cluster)];
}

#endif
