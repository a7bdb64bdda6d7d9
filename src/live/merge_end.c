/* SPDX-License-Identifier: MIT */
/* What a merge does from the answer of its embedder on, and where it does not come about. */
#include "engine/engine.h"
#include "engine/state.h"
#include "life/top.h"
#include "live/merge.h"
#include "pio/queue.h"
#include "util/error_text.h"

#include <assert.h>
#include <errno.h>

enum { SWEEP_LOCKS = 64 };

/* ---- the merged stack ---- */

/*
 * The outcome of the record is not known, and the device is being closed: what is held must not
 * change one of the two stacks.
 */
static void refuse_changes(ploop_dev *dev)
{
    if (!gate_has(dev, GATE_CHANGES_REFUSED)) {
        dev->refusal = -ECANCELED;
        gate_change(dev, 0, GATE_CHANGES_REFUSED);
    }
}

void merge_answered(struct merge *merge)
{
    ploop_job *job = &merge->job;
    int answer;
    if (!job_is_answered(job, &answer)) {
        return;
    }
    if (answer) {
        if (merge->way == MERGE_LOWER && job_outcome_is_open(job)) {
            refuse_changes(job->dev);
        }
        merge_fail(merge, answer);
    } else {
        merge_set_state(merge, merge->way == MERGE_LOWER ? MERGE_LOWERING : MERGE_DROPPING);
    }
}

void merge_become_top(struct merge *merge)
{
    ploop_dev *dev = merge->job.dev;
    struct merging *merging = &merge->merging;
    if (bat_is_quiet(merging->from->bat) && bat_is_quiet(merging->to->bat)) {
        assert(merging->under_way == 0);
        top_lower(dev, merging->to);
        dev->merging = NULL;
        merge_set_state(merge, MERGE_DROPPING);
        gate_change(dev, GATE_JOB | GATE_MIRROR, 0);
    }
}

void merge_drop_words(struct merge *merge)
{
    ploop_dev *dev = merge->job.dev;
    struct stack *stack = &dev->stack;
    struct delta *from = merge->merging.from, *to = merge->merging.to;
    if (to->is_raw && merge->next == 0) {
        merge_raw_has_all(merge);
    }
    if (merge->way == MERGE_BELOW) {
        stack_turn_words(stack, from, to, &merge->next, merge_slice_end(merge));
    } else {
        stack_drop_words(stack, merge->way == MERGE_LOWER ? to : from, &merge->next,
                         merge_slice_end(merge));
    }
    if (merge->next < merge_clusters(merge)) {
        dev_post_run(dev);
        return;
    }
    if (merge->way != MERGE_LOWER) {
        stack_drop(stack, from);
    }
    merge_set_state(merge, merge->way == MERGE_BELOW ? MERGE_SWEEPING : MERGE_LEAVING);
}

static void swept(struct lock_waiter *waiter)
{
    struct merge *merge = container_of(waiter, struct merge, lock);
    merge->swept++;
    merge->is_busy = false;
    lock_release(waiter, &merge->job.dev->turn);
    turn_again(&merge->job.dev->turn);
}

void merge_sweep(struct merge *merge)
{
    ploop_dev *dev = merge->job.dev;
    uint32_t end = merge->swept + SWEEP_LOCKS;
    while (merge->swept < LOCK_COUNT && merge->swept < end && !merge->is_busy) {
        merge->is_busy = true;
        if (lock_take(&dev->locks[merge->swept], &merge->lock, true, swept)) {
            swept(&merge->lock);
        }
    }
    if (merge->swept == LOCK_COUNT && !merge->is_busy) {
        merge_set_state(merge, MERGE_LEAVING);
    }
}

void merge_leave(struct merge *merge)
{
    struct delta *from = merge->merging.from;
    if (channel_is_idle(&from->channel) && top_leave(merge->job.dev, from)) {
        file_give_back(from->file, merge->way == MERGE_LOWER ? FILE_ALONE : FILE_SHARED);
        if (merge->way == MERGE_BELOW) {
            merge_set_state(merge, MERGE_RETIRING);
        } else {
            job_end(&merge->job, 0);
        }
    }
}

/* ---- it does not come about ---- */

static void undone(struct mark *mark, int result)
{
    struct merge *merge = container_of(mark, struct merge, top_mark);
    merge->is_busy = false;
    job_go_back(&merge->job, MERGE_MESSAGE_ID, result);
    merge_set_state(merge, MERGE_CLOSING);
}

void merge_undo(struct merge *merge)
{
    merge->is_busy = true;
    mark_begin(&merge->top_mark, merge->job.dev, merge->merging.from, MARK_AGAIN, undone);
}

static void closed(struct mark *mark, int result)
{
    struct merge *merge = container_of(mark, struct merge, mark);
    merge->is_busy = false;
    if (result) {
        dev_log(merge->job.dev, PLOOP_LOG_WARNING, MERGE_MESSAGE_ID,
                "merge: delta %u is not closed cleanly: %s; the stack needs recovery",
                (unsigned)merge->merging.to->level, ERROR_TEXT(result));
    }
    merge_set_state(merge, MERGE_RETIRING);
}

/* Nothing is mirrored any more, so the copies under way are the last. */
void merge_close_receiver(struct merge *merge)
{
    ploop_dev *dev = merge->job.dev;
    struct merging *merging = &merge->merging;
    if (merging->under_way > 0) {
        return;
    }
    if (dev->merging) {
        dev->merging = NULL;
        if (gate_has(dev, GATE_MIRROR)) {
            gate_change(dev, GATE_MIRROR, 0);
        }
    }
    if (!merging->to->is_raw && merging->to->bat->header.in_use == HEADER_IN_USE) {
        merge->is_busy = true;
        mark_begin(&merge->mark, dev, merging->to, MARK_CLEAR, closed);
    } else {
        merge_set_state(merge, MERGE_RETIRING);
    }
}

/* False: it still does something. */
static bool is_retired(struct delta *to)
{
    alloc_stop(&to->bat->alloc);
    if (!bat_is_idle(to->bat)) {
        return false;
    }
    to->sync_failed |= bat_latch(to->bat) != 0;
    if (bat_is_quiet(to->bat)) {
        bat_retire(to->bat);
    }
    return true;
}

void merge_retire(struct merge *merge)
{
    struct delta *to = merge->merging.to;
    if (!to->is_raw && !is_retired(to)) {
        return;
    }
    merge->job.dev->merging = NULL;
    file_change_claim(to->file, FILE_SHARED);
    job_end(&merge->job, merge->error);
}
