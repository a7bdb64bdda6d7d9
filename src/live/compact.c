/* SPDX-License-Identifier: MIT */
/*
 * The file of the top becomes shorter, while the guest goes on: clusters at its end move into
 * holes, and the end is cut off. The disk keeps its size.
 *
 *     COUNTING   what is in use could lie below a certain place, without holes: the target
 *     MOVING     guest clusters from the target on move into holes below it, one after another
 *     FLUSHING   a round: their old places are in no map on the disk, and free
 *     RESTING    until no space work is under way and nobody waits for space
 *     CUTTING    the file is cut behind the last cluster in use
 *     SYNCING    that is durable, and space is handed out again -> ended
 *
 *     COUNTING -> MOVING -> ... -> SYNCING -> ended
 *     cancelled or failed: COUNTING ... RESTING -> ended: what has moved has moved
 *     failed: CUTTING and SYNCING -> ended; where the file ends is not known then, and what lay
 *             behind the last cluster in use is not used again
 *
 *  1. A cluster that moves is copied as a whole, so a hole needs not be zeroed before; its entry
 *     has R1's barrier, and its old place is pending (R7).
 *  2. What is cut off is free: no map on the disk names it, and nothing is in flight there.
 *  3. From the cut until it is durable no host cluster is handed out: writes that need one wait.
 *     A suspend waits for them, so the job does not pause there, and the suspend waits for it too.
 *  4. What the guest writes meanwhile may take clusters behind the target: then less is cut off.
 *     Clusters that no guest cluster is in (of the format extension) do not move.
 */
#include "engine/engine.h"
#include "live/job.h"
#include "live/relocate.h"
#include "util/error_text.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { COMPACT_MESSAGE_ID = PLOOP_MESSAGE_COMPACT, COMPACT_ENTRIES = 16384 };

enum compact_state {
    COMPACT_COUNTING,
    COMPACT_MOVING,
    COMPACT_FLUSHING,
    COMPACT_RESTING,
    COMPACT_CUTTING,
    COMPACT_SYNCING
};

struct compact {
    struct ploop_job job;
    enum compact_state state;
    bool is_busy;   /* a step of the state is under way, and will be heard of */
    uint32_t entry; /* the next one to look at */
    uint64_t target;
    struct job_rate rate;
    struct relocate relocate;
    struct round_wait round;
    struct sync_wait sync;
};

static struct compact *of_job(ploop_job *job)
{
    return container_of(job, struct compact, job);
}

static struct bat *bat_of(const struct compact *compact)
{
    return dev_bat(compact->job.dev);
}

static void set_compact_state(struct compact *compact, enum compact_state state)
{
    static const uint32_t steps[] = {
        [COMPACT_COUNTING] = PLOOP_JOB_STEP_CHECK, [COMPACT_MOVING] = PLOOP_JOB_STEP_MOVE,
        [COMPACT_FLUSHING] = PLOOP_JOB_STEP_FLUSH, [COMPACT_RESTING] = PLOOP_JOB_STEP_FLUSH,
        [COMPACT_CUTTING] = PLOOP_JOB_STEP_FINISH, [COMPACT_SYNCING] = PLOOP_JOB_STEP_FINISH,
    };
    assert(!compact->is_busy);
    compact->state = state;
    compact->entry = 0;
    compact->job.watch.polls = state == COMPACT_RESTING || state == COMPACT_CUTTING;
    job_set_step(&compact->job, steps[state]);
    turn_again(&compact->job.dev->turn);
}

static void finish(struct compact *compact, int result)
{
    assert(!compact->is_busy);
    alloc_prefer_holes(&bat_of(compact)->alloc, false);
    if (result && result != -ECANCELED) {
        dev_log(compact->job.dev, PLOOP_LOG_ERROR, COMPACT_MESSAGE_ID,
                "the file cannot be made shorter: %s", ERROR_TEXT(result));
    }
    job_end(&compact->job, result);
}

/* A step was heard of: on to the next state, or it has failed. */
static void step_done(struct compact *compact, int result, enum compact_state next)
{
    compact->is_busy = false;
    if (result) {
        finish(compact, result);
    } else {
        set_compact_state(compact, next);
    }
}

/* ---- moving ---- */

static uint32_t slice_end(const struct compact *compact)
{
    uint32_t left = bat_of(compact)->geometry.bat_entries - compact->entry;
    return compact->entry + (left < COMPACT_ENTRIES ? left : COMPACT_ENTRIES);
}

static bool is_behind(const struct compact *compact, struct guest_cluster guest)
{
    const struct bat *bat = bat_of(compact);
    uint32_t entry = bat_entry(bat, guest);
    return entry && entry != BAT_ENTRY_BAD &&
           geometry_host(&bat->geometry, entry).n >= compact->target;
}

static void go_through(struct compact *compact, enum compact_state next)
{
    if (compact->entry == bat_of(compact)->geometry.bat_entries) {
        set_compact_state(compact, next);
    } else {
        dev_post_run(compact->job.dev);
    }
}

static void count_entries(struct compact *compact)
{
    uint64_t count = 0;
    if (compact->entry == 0) {
        struct alloc *alloc = &bat_of(compact)->alloc;
        alloc_prefer_holes(alloc, true);
        compact->target = alloc_packed_end(alloc);
        compact->relocate.begin = compact->relocate.holes_end = compact->target;
        compact->relocate.end = UINT64_MAX;
    }
    for (uint32_t end = slice_end(compact); compact->entry < end; compact->entry++) {
        count += is_behind(compact, (struct guest_cluster){compact->entry});
    }
    atomic_fetch_add(&compact->job.bytes_total, count * dev_disk(compact->job.dev)->cluster_size);
    go_through(compact, COMPACT_MOVING);
}

static void moved(struct relocate *relocate, int result)
{
    struct compact *compact = container_of(relocate, struct compact, relocate);
    compact->is_busy = false;
    if (result == -ENOSPC) { /* no hole is left: others had them */
        compact->entry = bat_of(compact)->geometry.bat_entries;
        result = 0;
    }
    if (result) {
        finish(compact, result);
    } else {
        turn_again(&compact->job.dev->turn);
    }
}

static void move_next(struct compact *compact)
{
    if (!job_may_move(&compact->job, &compact->rate)) {
        return;
    }
    for (uint32_t end = slice_end(compact); compact->entry < end;) {
        struct guest_cluster guest = {compact->entry++};
        if (is_behind(compact, guest)) {
            compact->is_busy = true;
            relocate_begin(&compact->relocate, guest, moved);
            return;
        }
    }
    go_through(compact, COMPACT_FLUSHING);
}

static void flushed(struct round_wait *round, int result)
{
    step_done(container_of(round, struct compact, round), result, COMPACT_RESTING);
}

/* ---- the cut ---- */

static void rest(struct compact *compact)
{
    struct alloc *alloc = &bat_of(compact)->alloc;
    if (bat_latch(bat_of(compact))) {
        finish(compact, bat_latch(bat_of(compact)));
    } else if (alloc_can_cut(alloc)) {
        set_compact_state(compact, COMPACT_CUTTING);
        alloc_cut(alloc);
    }
}

static void end_cut(struct compact *compact, int result)
{
    int cut = alloc_end_cut(&bat_of(compact)->alloc, result);
    compact->is_busy = false;
    finish(compact, result ? result : cut);
}

static void synced(struct sync_wait *sync, int result)
{
    end_cut(container_of(sync, struct compact, sync), result);
}

static void sync_cut(struct compact *compact)
{
    struct syncer *syncer = &bat_of(compact)->syncer;
    int wait = sync_wait_for(syncer, &compact->sync, sync_next(syncer), synced);
    if (wait > 0) {
        compact->is_busy = true;
        turn_again(&compact->job.dev->turn); /* it is sent by the pump, which was before this */
    } else {
        end_cut(compact, wait);
    }
}

/* ---- all of it ---- */

static void go_on(struct compact *compact)
{
    switch (compact->state) {
    case COMPACT_COUNTING:
        count_entries(compact);
        break;
    case COMPACT_MOVING:
        move_next(compact);
        break;
    case COMPACT_FLUSHING:
        compact->is_busy = true;
        bat_join_round(bat_of(compact), &compact->round, flushed);
        break;
    case COMPACT_RESTING:
        rest(compact);
        break;
    case COMPACT_CUTTING:
        if (alloc_is_cut(&bat_of(compact)->alloc)) {
            set_compact_state(compact, COMPACT_SYNCING);
        }
        break;
    case COMPACT_SYNCING:
        sync_cut(compact);
        break;
    }
}

static void look(ploop_job *job)
{
    struct compact *compact = of_job(job);
    if (compact->is_busy || (compact->state < COMPACT_CUTTING && job_pauses(job))) {
        return;
    }
    if (compact->state < COMPACT_CUTTING && job_is_cancelled(job)) {
        finish(compact, -ECANCELED);
    } else if (compact->state == COMPACT_SYNCING && job->dev->state == DEV_ABORTING) {
        end_cut(compact, -ECANCELED);
    } else {
        go_on(compact);
    }
}

static void destroy(ploop_job *job)
{
    struct compact *compact = of_job(job);
    relocate_free(&compact->relocate);
    free(compact);
}

static const struct job_kind compact_kind = {
    .kind = PLOOP_JOB_COMPACT,
    .look = look,
    .destroy = destroy,
};

int ploop_dev_compact(ploop_dev *dev, ploop_job_fn *fn, void *user_data, ploop_job **job)
{
    if (!job || !dev || job_is_misled(dev, NULL, fn)) {
        return -EINVAL;
    }
    *job = NULL;
    struct compact *compact = calloc(1, sizeof(*compact));
    if (!compact) {
        return -ENOMEM;
    }
    int error = job_claim(dev, &compact->job, &compact_kind);
    if (error) {
        free(compact);
        return error;
    }
    error = relocate_init(&compact->relocate, dev, &compact->job.bytes_done);
    if (error) {
        job_drop(&compact->job);
        destroy(&compact->job);
        return error;
    }
    compact->job.fn = fn;
    compact->job.user_data = user_data;
    job_set_step(&compact->job, PLOOP_JOB_STEP_CHECK);
    *job = &compact->job;
    job_begin(&compact->job);
    return 0;
}
