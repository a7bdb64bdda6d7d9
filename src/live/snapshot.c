/* SPDX-License-Identifier: MIT */
/*
 * A snapshot (R12): another file becomes the top, and the old one stays below it as it is now.
 *
 *     CHECKING    the new top's map is read: nothing is mapped
 *     MARKING     its mark is set, durably (life/mark.c)
 *     FLUSHING    the old top is flushed; nobody is held
 *     DRAINING    the gate is closed for changes; those in flight end, and a request of many parts
 *                 stops between them
 *     CLEARING    the short second flush; the old top at rest as at a close; its mark is cleared,
 *                 durably
 *     COMMIT      the embedder records the new stack
 *     RAISING     its maps are quiet -> the new top is the top, the gate opens
 *     SETTLING    the old top's entries move into the words, slice by slice -> ended
 *     UNDOING     the old top's mark is set again, durably, or changes are refused from now on; the
 *                 gate opens
 *     CLOSING     the new top's mark is cleared
 *     LEAVING     nothing calls the new top's file any more -> ended, with the error
 *
 *     CHECKING -> MARKING -> FLUSHING -> DRAINING -> CLEARING -> COMMIT -> RAISING -> SETTLING
 *     failed, cancelled or refused:
 *         CHECKING -> LEAVING
 *         MARKING, FLUSHING, DRAINING -> CLOSING -> LEAVING
 *         CLEARING, the mark as it was -> CLOSING -> LEAVING
 *         CLEARING, COMMIT -> UNDOING -> CLOSING -> LEAVING
 *
 *  1. From DRAINING to the swap, or to the end of UNDOING, GATE_JOB holds what changes the disk.
 *     Reads go on, over the swap too: the file of an entry that a read has found changes no more.
 *  2. When the mark is cleared nothing of the old top's is at the backend or is going to be, so
 *     what a cut leaves under a cleared mark is whole. A flush has nothing to do then and ends.
 *  3. Nothing is prepared in the map: before the swap the words are as they were, so a refusal has
 *     nothing to undo there. After it `second` answers (delta/stack.h, 4).
 *  4. A new top is never written before it is the top, but for its header.
 *  5. Where the second flush fails the old top has its mark and its space work still: nothing is
 *     undone, because that would fail by the same page, or SYNC, and refuse changes for ever.
 *  6. Nothing parks behind the gate: a step that finds no space fails the job.
 */
#include "engine/engine.h"
#include "engine/state.h"
#include "life/mark.h"
#include "life/top.h"
#include "live/job.h"
#include "pio/queue.h"
#include "util/error_text.h"

#include <ploop/ops.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum { SNAPSHOT_MESSAGE_ID = PLOOP_MESSAGE_SNAPSHOT, SETTLE_ENTRIES = 16384 };

enum snapshot_state {
    SNAPSHOT_CHECKING,
    SNAPSHOT_MARKING,
    SNAPSHOT_FLUSHING,
    SNAPSHOT_DRAINING,
    SNAPSHOT_CLEARING,
    SNAPSHOT_COMMIT,
    SNAPSHOT_RAISING,
    SNAPSHOT_SETTLING,
    SNAPSHOT_UNDOING,
    SNAPSHOT_CLOSING,
    SNAPSHOT_LEAVING
};

struct snapshot {
    struct ploop_job job;
    enum snapshot_state state;
    bool is_busy;       /* a step of the state is under way, and will be heard of */
    bool is_marked;     /* the new top may have its mark */
    int error;          /* why it does not come about */
    struct delta *next; /* the new top */
    struct delta *old;
    struct mark mark;
    struct round_wait round;
    struct channel_io io;
    struct iovec iov;
    uint64_t checked; /* bytes of the new top's BAT */
    uint32_t settled; /* entries of the old top's */
};

static struct snapshot *of_job(ploop_job *job)
{
    return container_of(job, struct snapshot, job);
}

static void set_snapshot_state(struct snapshot *snapshot, enum snapshot_state state)
{
    static const uint32_t steps[] = {
        [SNAPSHOT_CHECKING] = PLOOP_JOB_STEP_CHECK, [SNAPSHOT_MARKING] = PLOOP_JOB_STEP_PREPARE,
        [SNAPSHOT_FLUSHING] = PLOOP_JOB_STEP_FLUSH, [SNAPSHOT_DRAINING] = PLOOP_JOB_STEP_HOLD,
        [SNAPSHOT_CLEARING] = PLOOP_JOB_STEP_HOLD,  [SNAPSHOT_COMMIT] = PLOOP_JOB_STEP_COMMIT,
        [SNAPSHOT_RAISING] = PLOOP_JOB_STEP_FINISH, [SNAPSHOT_SETTLING] = PLOOP_JOB_STEP_FINISH,
        [SNAPSHOT_UNDOING] = PLOOP_JOB_STEP_UNDO,   [SNAPSHOT_CLOSING] = PLOOP_JOB_STEP_UNDO,
        [SNAPSHOT_LEAVING] = PLOOP_JOB_STEP_UNDO,
    };
    assert(!snapshot->is_busy);
    snapshot->state = state;
    job_drains(&snapshot->job, state == SNAPSHOT_DRAINING);
    snapshot->job.watch.polls |= state == SNAPSHOT_LEAVING;
    job_set_step(&snapshot->job, steps[state]);
    turn_again(&snapshot->job.dev->turn);
}

/* ---- it does not come about ---- */

static void fail(struct snapshot *snapshot, int error)
{
    ploop_dev *dev = snapshot->job.dev;
    snapshot->error = snapshot->error ? snapshot->error : error;
    assert(snapshot->error < 0);
    bool is_gated = snapshot->state >= SNAPSHOT_DRAINING && snapshot->state <= SNAPSHOT_COMMIT;
    if (snapshot->state >= SNAPSHOT_CLEARING && snapshot->mark.header_changed) {
        set_snapshot_state(snapshot, SNAPSHOT_UNDOING);
        return;
    }
    if (is_gated) {
        gate_change(dev, GATE_JOB, 0);
    }
    set_snapshot_state(snapshot, snapshot->is_marked ? SNAPSHOT_CLOSING : SNAPSHOT_LEAVING);
}

/* The old top goes on, if it has its mark. */
static void undone(struct mark *mark, int result)
{
    struct snapshot *snapshot = container_of(mark, struct snapshot, mark);
    assert(snapshot->state == SNAPSHOT_UNDOING);
    snapshot->is_busy = false;
    job_go_back(&snapshot->job, SNAPSHOT_MESSAGE_ID, result);
    set_snapshot_state(snapshot, SNAPSHOT_CLOSING);
}

static void closed(struct mark *mark, int result)
{
    struct snapshot *snapshot = container_of(mark, struct snapshot, mark);
    assert(snapshot->state == SNAPSHOT_CLOSING);
    snapshot->is_busy = false;
    if (result) {
        dev_log(snapshot->job.dev, PLOOP_LOG_WARNING, SNAPSHOT_MESSAGE_ID,
                "new top: not closed cleanly: %s", ERROR_TEXT(result));
    }
    set_snapshot_state(snapshot, SNAPSHOT_LEAVING);
}

/* ---- checking ---- */

static bool is_zero(const uint8_t *bytes, uint64_t length)
{
    uint8_t any = 0;
    for (uint64_t i = 0; i < length; i++) {
        any |= bytes[i];
    }
    return any == 0;
}

static uint8_t *buffer_of(const struct snapshot *snapshot)
{
    return snapshot->next->bat->images[0]
        .bytes; /* nothing is written there before the check ends */
}

static void checked(struct channel_io *io, int result)
{
    struct snapshot *snapshot = container_of(io, struct snapshot, io);
    uint64_t end = geometry_bat_bytes(&snapshot->next->geometry), at = snapshot->checked;
    uint64_t length = snapshot->iov.iov_len, skip = at == 0 ? HEADER_SIZE : 0;
    snapshot->is_busy = false;
    snapshot->checked += length;
    atomic_fetch_add(&snapshot->job.bytes_done, length);
    length = at + length > end ? end - at : length;
    if (!result && !is_zero(buffer_of(snapshot) + skip, length - skip)) {
        dev_log(snapshot->job.dev, PLOOP_LOG_ERROR, SNAPSHOT_MESSAGE_ID,
                "new top: its BAT maps clusters: it is not empty");
        result = -EINVAL;
    }
    if (result) {
        fail(snapshot, result);
    } else if (snapshot->checked >= end) {
        set_snapshot_state(snapshot, SNAPSHOT_MARKING);
    }
    turn_again(&snapshot->job.dev->turn);
}

static void check(struct snapshot *snapshot)
{
    struct delta *next = snapshot->next;
    uint64_t end = geometry_bat_bytes(&next->geometry), left = end - snapshot->checked;
    uint64_t most = (uint64_t)IMAGE_PAGES * BAT_PAGE_SIZE;
    left = (left + SECTOR_SIZE - 1) / SECTOR_SIZE * SECTOR_SIZE;
    snapshot->iov = (struct iovec){buffer_of(snapshot), (size_t)(left < most ? left : most)};
    channel_io_init(&snapshot->io, &next->channel);
    channel_transfer(&snapshot->io, PLOOP_IO_READ, 0,
                     (struct iov_cursor){.iov = &snapshot->iov, .count = 1}, snapshot->checked,
                     snapshot->iov.iov_len, checked);
}

/* ---- until the commit ---- */

static void marked(struct mark *mark, int result)
{
    struct snapshot *snapshot = container_of(mark, struct snapshot, mark);
    snapshot->is_busy = false;
    snapshot->is_marked = mark->header_changed;
    if (result) {
        fail(snapshot, result);
    } else {
        set_snapshot_state(snapshot, SNAPSHOT_FLUSHING);
    }
}

static void flushed(struct round_wait *round, int result)
{
    struct snapshot *snapshot = container_of(round, struct snapshot, round);
    ploop_dev *dev = snapshot->job.dev;
    snapshot->is_busy = false;
    if (result) {
        fail(snapshot, result);
    } else if (!job_is_cancelled(&snapshot->job)) {
        gate_change(dev, 0, GATE_JOB);
        set_snapshot_state(snapshot, SNAPSHOT_DRAINING);
    }
}

static void mark_cleared(struct mark *mark, int result)
{
    struct snapshot *snapshot = container_of(mark, struct snapshot, mark);
    snapshot->is_busy = false;
    if (result) {
        fail(snapshot, result);
    } else if (!job_is_cancelled(&snapshot->job)) {
        snapshot->job.dev->all_durable = true;
        set_snapshot_state(snapshot, SNAPSHOT_COMMIT);
        job_ask(&snapshot->job);
    } else {
        fail(snapshot, -ECANCELED);
    }
}

/* ---- after the commit ---- */

static void answered(struct snapshot *snapshot)
{
    ploop_job *job = &snapshot->job;
    int answer;
    if (!job_is_answered(job, &answer)) {
        return;
    }
    if (answer) {
        fail(snapshot, answer);
    } else {
        set_snapshot_state(snapshot, SNAPSHOT_RAISING);
    }
}

static void raise_top(struct snapshot *snapshot)
{
    ploop_dev *dev = snapshot->job.dev;
    if (bat_is_quiet(snapshot->old->bat) && bat_is_quiet(snapshot->next->bat)) {
        top_raise(dev, snapshot->next);
        set_snapshot_state(snapshot, SNAPSHOT_SETTLING);
        gate_change(dev, GATE_JOB, 0);
    }
}

/* A slice of each run, so that others get the turn in between. */
static void settle(struct snapshot *snapshot)
{
    ploop_dev *dev = snapshot->job.dev;
    struct delta *old = snapshot->old;
    uint32_t entries = old->geometry.bat_entries, left = entries - snapshot->settled;
    uint32_t slice = left < SETTLE_ENTRIES ? left : SETTLE_ENTRIES;
    stack_settle(&dev->stack, &snapshot->settled, snapshot->settled + slice);
    atomic_fetch_add(&snapshot->job.bytes_done, slice * sizeof(uint32_t));
    if (snapshot->settled < entries) {
        dev_post_run(dev);
        return;
    }
    stack_end_second(&dev->stack);
    bat_retire(old->bat);
    job_end(&snapshot->job, 0);
}

/* ---- all of it ---- */

/* What the state does when nothing is under way. */
static void go_on(struct snapshot *snapshot)
{
    ploop_dev *dev = snapshot->job.dev;
    switch (snapshot->state) {
    case SNAPSHOT_CHECKING:
        snapshot->is_busy = true;
        check(snapshot);
        break;
    case SNAPSHOT_MARKING:
        snapshot->is_busy = true;
        mark_begin(&snapshot->mark, dev, snapshot->next, MARK_NEW, marked);
        break;
    case SNAPSHOT_FLUSHING:
        snapshot->is_busy = true;
        bat_join_round(snapshot->old->bat, &snapshot->round, flushed);
        break;
    case SNAPSHOT_DRAINING:
        if (job_changes_are_over(dev)) {
            set_snapshot_state(snapshot, SNAPSHOT_CLEARING);
        }
        break;
    case SNAPSHOT_CLEARING:
        snapshot->is_busy = true;
        mark_begin(&snapshot->mark, dev, snapshot->old, MARK_CLEAR, mark_cleared);
        break;
    case SNAPSHOT_COMMIT:
        answered(snapshot);
        break;
    case SNAPSHOT_RAISING:
        raise_top(snapshot);
        break;
    case SNAPSHOT_SETTLING:
        settle(snapshot);
        break;
    case SNAPSHOT_UNDOING:
        snapshot->is_busy = true;
        mark_begin(&snapshot->mark, dev, snapshot->old, MARK_AGAIN, undone);
        break;
    case SNAPSHOT_CLOSING:
        snapshot->is_busy = true;
        mark_begin(&snapshot->mark, dev, snapshot->next, MARK_CLEAR, closed);
        break;
    case SNAPSHOT_LEAVING:
        if (channel_is_idle(&snapshot->next->channel) && top_leave(dev, snapshot->next)) {
            file_give_back(snapshot->next->file, FILE_ALONE);
            job_end(&snapshot->job, snapshot->error);
        }
        break;
    }
}

static void look(ploop_job *job)
{
    struct snapshot *snapshot = of_job(job);
    if (snapshot->is_busy) {
        return;
    }
    if (snapshot->state <= SNAPSHOT_FLUSHING && job_pauses(job)) {
        return;
    }
    if (snapshot->state <= SNAPSHOT_DRAINING && job_is_cancelled(job)) {
        fail(snapshot, -ECANCELED);
    } else {
        go_on(snapshot);
    }
}

static void before_fn(ploop_job *job)
{
    struct snapshot *snapshot = of_job(job);
    if (!atomic_load(&job->result)) {
        top_lower_file(job->dev, snapshot->old->file);
    }
}

static void destroy(ploop_job *job)
{
    free(of_job(job));
}

static const struct job_kind snapshot_kind = {
    .kind = PLOOP_JOB_SNAPSHOT,
    .look = look,
    .before_fn = before_fn,
    .destroy = destroy,
};

int ploop_dev_snapshot(ploop_dev *dev, ploop_file *new_top, ploop_job_commit_fn *commit,
                       ploop_job_fn *fn, void *user_data, ploop_job **job)
{
    if (!job || !dev || !new_top || job_is_misled(dev, commit, fn)) {
        return -EINVAL;
    }
    *job = NULL;
    struct snapshot *snapshot = calloc(1, sizeof(*snapshot));
    if (!snapshot) {
        return -ENOMEM;
    }
    int error = job_claim(dev, &snapshot->job, &snapshot_kind);
    if (error) {
        free(snapshot);
        return error;
    }
    error = top_join(dev, new_top, &snapshot->next);
    if (error) {
        job_drop(&snapshot->job);
        free(snapshot);
        return error;
    }
    snapshot->old = dev_top(dev);
    snapshot->job.commit = commit;
    snapshot->job.fn = fn;
    snapshot->job.user_data = user_data;
    atomic_store(&snapshot->job.bytes_total, 2 * geometry_bat_bytes(&snapshot->next->geometry));
    job_set_step(&snapshot->job, PLOOP_JOB_STEP_CHECK);
    *job = &snapshot->job;
    job_begin(&snapshot->job);
    return 0;
}
