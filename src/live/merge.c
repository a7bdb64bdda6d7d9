/* SPDX-License-Identifier: MIT */
/* The states of merge.h, from the beginning to the commit. */
#include "live/merge.h"

#include "engine/engine.h"
#include "engine/state.h"
#include "life/top.h"
#include "pio/queue.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { SLICE_CLUSTERS = 16384, SECURING_ROUNDS = 2 };
#define SYNC_BYTES (UINT64_C(64) << 20)

void merge_set_state(struct merge *merge, enum merge_state state)
{
    static const uint32_t steps[] = {
        [MERGE_LOADING] = PLOOP_JOB_STEP_CHECK,   [MERGE_MARKING] = PLOOP_JOB_STEP_PREPARE,
        [MERGE_COUNTING] = PLOOP_JOB_STEP_CHECK,  [MERGE_FLUSHING] = PLOOP_JOB_STEP_FLUSH,
        [MERGE_MIRRORING] = PLOOP_JOB_STEP_FLUSH, [MERGE_COPYING] = PLOOP_JOB_STEP_COPY,
        [MERGE_SECURING] = PLOOP_JOB_STEP_FLUSH,  [MERGE_DRAINING] = PLOOP_JOB_STEP_HOLD,
        [MERGE_CLEARING] = PLOOP_JOB_STEP_HOLD,   [MERGE_CLOSING_UP] = PLOOP_JOB_STEP_HOLD,
        [MERGE_COMMIT] = PLOOP_JOB_STEP_COMMIT,   [MERGE_LOWERING] = PLOOP_JOB_STEP_FINISH,
        [MERGE_DROPPING] = PLOOP_JOB_STEP_FINISH, [MERGE_SWEEPING] = PLOOP_JOB_STEP_FINISH,
        [MERGE_LEAVING] = PLOOP_JOB_STEP_FINISH,  [MERGE_UNDOING] = PLOOP_JOB_STEP_UNDO,
        [MERGE_CLOSING] = PLOOP_JOB_STEP_UNDO,    [MERGE_RETIRING] = PLOOP_JOB_STEP_FINISH,
    };
    assert(merge->under_way == 0 && !merge->is_busy);
    merge->state = state;
    merge->next = 0;
    job_drains(&merge->job, state == MERGE_DRAINING || state == MERGE_MIRRORING);
    merge->job.watch.polls |= state == MERGE_LEAVING;
    job_set_step(&merge->job, steps[state]);
    turn_again(&merge->job.dev->turn);
}

/* The disk's clusters, of which each has a word. */
uint32_t merge_clusters(const struct merge *merge)
{
    return geometry_guest_clusters(&dev_top(merge->job.dev)->geometry);
}

uint32_t merge_slice_end(const struct merge *merge)
{
    uint32_t left = merge_clusters(merge) - merge->next;
    return merge->next + (left < SLICE_CLUSTERS ? left : SLICE_CLUSTERS);
}

/* NULL: it is raw. */
static struct bat *receiver_bat(const struct merge *merge)
{
    return merge->merging.to->bat;
}

void merge_fail(struct merge *merge, int error)
{
    ploop_dev *dev = merge->job.dev;
    merge->error = merge->error ? merge->error : error;
    merge->merging.error = merge->error; /* no copy begins any more */
    assert(merge->error < 0 && merge->state <= MERGE_COMMIT);
    if (merge->way == MERGE_TOP) {
        job_end(&merge->job, merge->error);
        return;
    }
    if (merge->state >= MERGE_CLEARING && merge->top_mark.header_changed) {
        merge_set_state(merge, MERGE_UNDOING);
        return;
    }
    if (gate_has(dev, GATE_JOB)) {
        gate_change(dev, GATE_JOB, 0);
    }
    merge_set_state(merge, MERGE_CLOSING);
}

/* ---- before the copies ---- */

void merge_is_prepared(struct merge *merge, int result)
{
    merge->is_busy = false;
    if (result) {
        merge_fail(merge, result);
    } else {
        merge->job.dev->merging = &merge->merging;
        merge_set_state(merge, MERGE_COUNTING);
    }
}

static void marked(struct mark *mark, int result)
{
    merge_is_prepared(container_of(mark, struct merge, mark), result);
}

/* Whether the receiver still has to get it. */
static bool is_to_copy(const struct merge *merge, struct guest_cluster guest)
{
    const ploop_dev *dev = merge->job.dev;
    if (merge->way != MERGE_TOP) {
        return merging_wants(&merge->merging, guest);
    }
    return stack_place(&dev->stack, guest).delta == merge->merging.from &&
           bat_entry(dev_bat(dev), guest) == 0;
}

static void count_clusters(struct merge *merge)
{
    ploop_dev *dev = merge->job.dev;
    uint64_t count = 0;
    for (uint32_t end = merge_slice_end(merge); merge->next < end; merge->next++) {
        count += is_to_copy(merge, (struct guest_cluster){merge->next});
    }
    atomic_fetch_add(&merge->job.bytes_total, count * dev_disk(dev)->cluster_size);
    if (merge->next == merge_clusters(merge)) {
        merge_set_state(merge, merge->way == MERGE_LOWER ? MERGE_FLUSHING : MERGE_COPYING);
    } else {
        dev_post_run(dev);
    }
}

static void top_flushed(struct round_wait *round, int result)
{
    struct merge *merge = container_of(round, struct merge, round);
    ploop_dev *dev = merge->job.dev;
    merge->is_busy = false;
    if (result) {
        merge_fail(merge, result);
    } else if (!job_is_cancelled(&merge->job)) {
        merge->merging.mirrors = true;
        gate_change(dev, 0, GATE_MIRROR);
        merge_set_state(merge, MERGE_MIRRORING);
    }
    turn_again(&dev->turn);
}

/* ---- copying ---- */

static void copied(struct part *part)
{
    ploop_job *job = part->pio->user_data;
    struct merge *merge = merge_of_job(job);
    uint64_t bytes = dev_disk(job->dev)->cluster_size;
    merge->under_way--;
    merge->moved += bytes;
    merge->unsynced += bytes;
    merge->error = merge->error ? merge->error : part->result;
    atomic_fetch_add(&job->bytes_done, bytes);
    turn_again(&job->dev->turn);
}

static void copy(struct merge *merge, struct guest_cluster guest)
{
    for (uint32_t i = 0; i < MERGE_COPIES; i++) {
        ploop_pio *pio = &merge->copies[i];
        if (pio->part.state == PART_IDLE) {
            merge->under_way++;
            part_take(&pio->part, pio, copied);
            part_set_cluster(&pio->part, guest);
            part_begin(&pio->part);
            return;
        }
    }
    assert(false);
}

/* Whether the rate allows more now. A new rate counts from when it is seen. */
static bool may_move(struct merge *merge)
{
    uint64_t rate = atomic_load(&merge->job.rate), now = dev_now(merge->job.dev);
    if (rate != merge->rate || now < merge->since_ns) {
        merge->rate = rate;
        merge->since_ns = now;
        merge->moved = 0;
    }
    double seconds = (double)(now - merge->since_ns) / 1e9;
    bool may = rate == 0 || (double)merge->moved <= seconds * (double)rate;
    merge->job.watch.polls = !may;
    return may;
}

static void round_done(struct round_wait *round, int result)
{
    struct merge *merge = container_of(round, struct merge, round);
    merge->is_busy = false;
    merge->error = merge->error ? merge->error : result;
    turn_again(&merge->job.dev->turn);
}

/* What was copied becomes durable. */
static void begin_round(struct merge *merge, round_fn *then)
{
    merge->is_busy = true;
    merge->unsynced = 0;
    if (merge->merging.to->is_raw) {
        merge_sync(merge, then);
    } else {
        bat_join_round(receiver_bat(merge), &merge->round, then);
    }
}

/* By a part that was under way when the mirror began, perhaps, and does not know of it. */
static bool is_being_changed(const struct merge *merge, struct guest_cluster guest)
{
    return merge->way == MERGE_LOWER && atomic_load(&lock_of(merge->job.dev, guest)->word) != 0;
}

/* A slice at most, so that others get the turn. */
static void copy_more(struct merge *merge)
{
    ploop_dev *dev = merge->job.dev;
    uint32_t end = merge_slice_end(merge);
    if (merge->unsynced >= SYNC_BYTES) {
        if (merge->under_way == 0) {
            begin_round(merge, round_done);
        }
        return;
    }
    while (merge->next < end && merge->under_way < MERGE_COPIES && may_move(merge)) {
        struct guest_cluster guest = {merge->next++};
        merge->merging.next = merge->next;
        if (is_to_copy(merge, guest) || is_being_changed(merge, guest)) {
            copy(merge, guest);
        }
    }
    if (merge->next == merge_clusters(merge)) {
        if (merge->under_way == 0) {
            merge_set_state(merge, merge->way == MERGE_BELOW ? MERGE_CLEARING : MERGE_SECURING);
        }
    } else if (merge->under_way < MERGE_COPIES && merge->next == end) {
        dev_post_run(dev);
    }
}

/* ---- up to the commit ---- */

static void ask(struct merge *merge)
{
    merge_set_state(merge, MERGE_COMMIT);
    job_ask(&merge->job);
}

static void secured(struct round_wait *round, int result)
{
    struct merge *merge = container_of(round, struct merge, round);
    ploop_dev *dev = merge->job.dev;
    round_done(round, result);
    if (merge->error || job_is_cancelled(&merge->job)) {
        return;
    }
    if (merge->way == MERGE_TOP) {
        ask(merge);
    } else if (++merge->rounds == SECURING_ROUNDS) {
        gate_change(dev, 0, GATE_JOB);
        merge_set_state(merge, MERGE_DRAINING);
    }
}

/* Whichever mark it was. */
static void mark_cleared(struct merge *merge, int result)
{
    merge->is_busy = false;
    if (result || job_is_cancelled(&merge->job)) {
        merge_fail(merge, result ? result : -ECANCELED);
    } else if (merge->way == MERGE_BELOW) {
        ask(merge);
    } else {
        merge_set_state(merge, MERGE_CLOSING_UP);
    }
}

static void receiver_cleared(struct mark *mark, int result)
{
    mark_cleared(container_of(mark, struct merge, mark), result);
}

static void raw_synced(struct round_wait *round, int result)
{
    mark_cleared(container_of(round, struct merge, round), result);
}

static void top_cleared(struct mark *mark, int result)
{
    mark_cleared(container_of(mark, struct merge, top_mark), result);
}

static void clear_mark(struct merge *merge)
{
    ploop_dev *dev = merge->job.dev;
    struct merging *merging = &merge->merging;
    merge->is_busy = true;
    if (merging->to->is_raw) {
        begin_round(merge, raw_synced);
    } else if (merge->way == MERGE_BELOW) {
        mark_begin(&merge->mark, dev, merging->to, MARK_CLEAR, receiver_cleared);
    } else {
        mark_begin(&merge->top_mark, dev, merging->from, MARK_CLEAR, top_cleared);
    }
}

static void closed_up(struct round_wait *round, int result)
{
    struct merge *merge = container_of(round, struct merge, round);
    round_done(round, result);
    if (!merge->error && !job_is_cancelled(&merge->job)) {
        merge->job.dev->all_durable = true;
        ask(merge);
    }
}

/* ---- all of it ---- */

/* What the state does when nothing is under way but copies. */
static void go_on(struct merge *merge)
{
    ploop_dev *dev = merge->job.dev;
    switch (merge->state) {
    case MERGE_LOADING:
        merge_load(merge);
        break;
    case MERGE_MARKING:
        merge->is_busy = true;
        merge->is_served = !merge->merging.to->is_raw;
        if (merge->is_served) {
            mark_begin(&merge->mark, dev, merge->merging.to, MARK_NEW, marked);
        } else {
            merge_prepare_raw(merge);
        }
        break;
    case MERGE_COUNTING:
        count_clusters(merge);
        break;
    case MERGE_FLUSHING:
        merge->is_busy = true;
        bat_join_round(dev_bat(dev), &merge->round, top_flushed);
        break;
    case MERGE_MIRRORING:
        if (channel_in_lanes(&dev_top(dev)->channel) == 0) {
            merge_set_state(merge, MERGE_COPYING);
        }
        break;
    case MERGE_COPYING:
        copy_more(merge);
        break;
    case MERGE_SECURING:
        begin_round(merge, secured);
        break;
    case MERGE_DRAINING:
        if (job_changes_are_over(dev) && merge->merging.under_way == 0) {
            merge_set_state(merge, MERGE_CLEARING);
        }
        break;
    case MERGE_CLEARING:
        clear_mark(merge);
        break;
    case MERGE_CLOSING_UP:
        begin_round(merge, closed_up);
        break;
    case MERGE_COMMIT:
        merge_answered(merge);
        break;
    case MERGE_LOWERING:
        merge_become_top(merge);
        break;
    case MERGE_DROPPING:
        merge_drop_words(merge);
        break;
    case MERGE_SWEEPING:
        merge_sweep(merge);
        break;
    case MERGE_LEAVING:
        merge_leave(merge);
        break;
    case MERGE_UNDOING:
        merge_undo(merge);
        break;
    case MERGE_CLOSING:
        merge_close_receiver(merge);
        break;
    case MERGE_RETIRING:
        merge_retire(merge);
        break;
    }
}

/* Whether it waits for a resume. What was copied is made durable first. */
static bool pauses(struct merge *merge)
{
    if (merge->state >= MERGE_DRAINING || merge->job.dev->state != DEV_SUSPENDED) {
        return merge->state < MERGE_DRAINING && job_pauses(&merge->job);
    }
    if (merge->way != MERGE_TOP && merge->unsynced > 0) {
        begin_round(merge, round_done);
        return true;
    }
    return job_pauses(&merge->job);
}

static void look(ploop_job *job)
{
    struct merge *merge = merge_of_job(job);
    struct ploop_dev *dev = job->dev;
    if (merge->is_served && merge->merging.to != dev_top(dev)) {
        bat_pump(receiver_bat(merge));
    }
    merge->error = merge->error ? merge->error : merge->merging.error;
    bool ends = merge->state < MERGE_COMMIT && (merge->error || job_is_cancelled(job));
    if (merge->is_busy || ((ends || dev->state == DEV_SUSPENDED) && merge->under_way > 0)) {
        return;
    }
    if (ends) {
        merge_fail(merge, merge->error ? merge->error : -ECANCELED);
    } else if (!pauses(merge)) {
        go_on(merge);
    }
}

/* The file is only read from now on. */
static void before_fn(ploop_job *job)
{
    struct merge *merge = merge_of_job(job);
    if (merge->way == MERGE_BELOW || (merge->way == MERGE_LOWER && merge->error)) {
        top_lower_file(job->dev, merge->merging.to->file);
    }
}

static void destroy(ploop_job *job)
{
    struct merge *merge = merge_of_job(job);
    free(merge->buffer);
    free(merge->entries);
    free(merge);
}

static bool asks_on(const ploop_job *job)
{
    return container_of(job, struct merge, job)->way == MERGE_LOWER;
}

const struct job_kind merge_kind = {
    .kind = PLOOP_JOB_MERGE,
    .look = look,
    .before_fn = before_fn,
    .destroy = destroy,
    .asks_on = asks_on,
};
