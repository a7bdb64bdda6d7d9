/* SPDX-License-Identifier: MIT */
/*
 * A merge of two neighbours (R13). Three ways, of which each has some of the states:
 *
 *     TOP     up into the top. The receiver is the top, and nothing is mirrored
 *     BELOW   two deltas below the top, up or down. Neither changes by the guest's requests
 *     LOWER   the top, down. What changes it is mirrored (pio/merging.h), and the receiver becomes
 *             the top
 *
 *                                                                                TOP BELOW LOWER
 *     LOADING     the map of the receiver is read, and that of the source             x     x
 *     MARKING     the receiver's mark is set, durably; a raw one is made long enough  x     x
 *     COUNTING    what is to be copied is counted, slice by slice                 x   x     x
 *     FLUSHING    the top is flushed                                                        x
 *     MIRRORING   GATE_MIRROR is closed; what is on the fast path ends                      x
 *     COPYING     each cluster, under its lock; a round now and then              x   x     x
 *     SECURING    a round of the receiver; nobody is held. Twice for LOWER        x         x
 *     DRAINING    the gate is closed for changes; those in flight end                       x
 *     CLEARING    BELOW: the receiver's mark (of a raw one a SYNC); LOWER: the top
 *                 is flushed, at rest, and its mark cleared                           x     x
 *     CLOSING_UP  a last round of the receiver                                              x
 *     COMMIT      the embedder records the shorter stack                          x   x     x
 *     LOWERING    both maps are quiet -> the receiver is the top, the gate opens            x
 *     DROPPING    no word names the delta merged away, slice by slice             x   x     x
 *     SWEEPING    each cluster's lock was had alone once since                        x
 *     LEAVING     nothing calls its file any more                                 x   x     x
 *     RETIRING    the receiver is at rest, and no receiver any more -> ended          x
 *
 *     failed, cancelled or refused, in any state up to COMMIT: copies end, then
 *         TOP    -> ended
 *         BELOW  -> CLOSING: the receiver's mark is cleared, if it may be set -> RETIRING -> ended
 *         LOWER  -> UNDOING: the top's mark is set again, if it was cleared, or changes are
 *                   refused; the gate opens -> CLOSING -> RETIRING -> ended
 *
 *  1. TOP closes no gate: the guest's writes have the same owner in both records. A cluster that
 *     the top maps stays there (R8), so one look at each is enough. Until the commit the delta
 *     counts as below; after it, where deltas are left below, the entry stays as well
 *     (delta/stack.h, 5). Who has read a word that names the delta has the cluster's lock and found
 *     no entry in the top; a copy holds that lock alone. So after COPYING nobody is on the way to
 *     the delta's file who is not counted in its channel.
 *  2. BELOW goes by the two maps in the files, not by the words, which show only what the guest
 *     sees. Before the commit the words stay as they are. Who has read one counts in the top's lane
 *     until it counts in the delta's channel, and has the cluster's lock: so SWEEPING.
 *  3. LOWER: GATE_MIRROR keeps requests from the fast path from MIRRORING on. One that was there
 *     before would write to the top alone, perhaps after the copy, so none is left when the copies
 *     begin. What the engine has under way then has its cluster's lock, so a cluster whose lock is
 *     taken is visited under it, whether the top maps it yet or not. GATE_JOB holds changes from
 *     DRAINING to LOWERING or to the end of UNDOING. While the outcome of the commit is not known
 *     nothing is changed in either file: PLOOP_COMMIT_UNKNOWN is no answer, and a close then fails
 *     what is held.
 *  4. A receiver that is not the top has a bat of its own, which is pumped from here.
 *  5. A raw base can be the receiver of BELOW only: the top is an image. It has no map and no mark:
 *     what is not yet right in it is hidden by the source, until the commit.
 *  6. A rate limit is waited for with no lock held. A pause begins when the copies under way have
 *     ended and what they wrote is durable.
 */
#ifndef LIVE_MERGE_H
#define LIVE_MERGE_H

#include "life/mark.h"
#include "live/job.h"
#include "pio/merging.h"

enum { MERGE_MESSAGE_ID = PLOOP_MESSAGE_MERGE, MERGE_COPIES = 2 };

enum merge_way { MERGE_TOP, MERGE_BELOW, MERGE_LOWER };

enum merge_state {
    MERGE_LOADING,
    MERGE_MARKING,
    MERGE_COUNTING,
    MERGE_FLUSHING,
    MERGE_MIRRORING,
    MERGE_COPYING,
    MERGE_SECURING,
    MERGE_DRAINING,
    MERGE_CLEARING,
    MERGE_CLOSING_UP,
    MERGE_COMMIT,
    MERGE_LOWERING,
    MERGE_DROPPING,
    MERGE_SWEEPING,
    MERGE_LEAVING,
    MERGE_UNDOING,
    MERGE_CLOSING,
    MERGE_RETIRING
};

struct merge {
    struct ploop_job job;
    enum merge_way way;
    enum merge_state state;
    bool is_busy;       /* a step of the state is under way, and will be heard of */
    bool is_served;     /* the receiver's bat is pumped from here */
    uint32_t under_way; /* copies */
    int error;          /* why it does not come about */
    struct merging merging;
    uint32_t next;     /* of a state that goes by slices, the cluster that comes next */
    uint32_t rounds;   /* of SECURING, that have been */
    uint64_t unsynced; /* bytes copied since the last round */
    ploop_pio copies[MERGE_COPIES];
    struct round_wait round;
    struct mark mark;               /* the receiver's */
    struct mark top_mark;           /* LOWER: the old top's */
    uint64_t rate, since_ns, moved; /* the rate that holds since then, and what was copied since */
    /* LOADING: */
    bool reads_receiver; /* the source's map is there, or needs none */
    uint64_t read;       /* bytes of the BAT */
    uint32_t *entries;   /* the source's; NULL: see merging.entries */
    uint8_t *buffer;     /* of IMAGE_PAGES pages, where the receiver has no images */
    struct channel_io io;
    struct iovec iov;
    round_fn *synced; /* of a raw receiver */
    /* SWEEPING: */
    struct lock_waiter lock;
    uint32_t swept;
};

static inline struct merge *merge_of_job(ploop_job *job)
{
    return container_of(job, struct merge, job);
}

extern const struct job_kind merge_kind;

/* The state's beginning. */
void merge_set_state(struct merge *merge, enum merge_state state);

/* It does not come about. */
void merge_fail(struct merge *merge, int error);

/* ---- merge_raw.c: a raw receiver ---- */

/* The receiver has its mark, or needs none: the copies may begin. */
void merge_is_prepared(struct merge *merge, int result);
/* What it holds is made durable, and it as long as what comes into it: MARKING. */
void merge_prepare_raw(struct merge *merge);
/* What was copied becomes durable; a SYNC that fails is the last. */
void merge_sync(struct merge *merge, round_fn *then);
/* It has all that the source has: readers find it there from now on. */
void merge_raw_has_all(struct merge *merge);

/* ---- merge_load.c: one read of the maps, which are the receiver's when all is read ---- */
void merge_load(struct merge *merge);

/* ---- merge_end.c: from the commit on, and what leads back ---- */
void merge_answered(struct merge *merge);
void merge_become_top(struct merge *merge);
void merge_drop_words(struct merge *merge);
void merge_sweep(struct merge *merge);
void merge_leave(struct merge *merge);
void merge_undo(struct merge *merge);
void merge_close_receiver(struct merge *merge);
void merge_retire(struct merge *merge);

/* So many clusters of a slice, so that others get the turn. */
uint32_t merge_slice_end(const struct merge *merge);
uint32_t merge_clusters(const struct merge *merge);

#endif
