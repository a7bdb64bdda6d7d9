/* SPDX-License-Identifier: MIT */
/*
 * Another file in the place of a delta below the top, which holds the same (R20). Nothing is
 * changed in either file, and nobody is held.
 *
 *     COMPARING   the new file's map is read, a few pages at a time, and compared with the words
 *     READING     if asked: the clusters that the disk shows of the old file are read of both
 *     COMMIT      the embedder records the new stack
 *     TURNING     the words that name the old file name the new one, slice by slice
 *     SWEEPING    each cluster's lock was had alone once since
 *     LEAVING     nothing calls the old file any more -> ended
 *     GOING       it does not come about: nothing calls the new file any more -> ended, with error
 *
 *     COMPARING -> READING -> COMMIT -> TURNING -> SWEEPING -> LEAVING -> ended
 *     failed, cancelled or refused: COMPARING, READING, COMMIT -> GOING -> ended
 *
 *  1. The words do not change while the job is under way, but by itself: there is one job, and a
 *     request changes none.
 *  2. No request is sent to the new file before TURNING, but the job's own.
 *  3. Which of the two files a recorded stack names makes no difference to what is read. So an
 *     unknown outcome of the record counts as a refusal.
 */
#include "engine/engine.h"
#include "life/top.h"
#include "live/job.h"
#include "pio/queue.h"
#include "util/bytes.h"
#include "util/error_text.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    REPLACE_MESSAGE_ID = PLOOP_MESSAGE_REPLACE,
    REPLACE_PAGES = 64,
    REPLACE_ENTRIES = 16384,
    REPLACE_ALIGNMENT = 4096,
    SWEEP_LOCKS = 64
};
#define REPLACE_BYTES ((uint64_t)REPLACE_PAGES * BAT_PAGE_SIZE)

enum replace_state {
    REPLACE_COMPARING,
    REPLACE_READING,
    REPLACE_COMMIT,
    REPLACE_TURNING,
    REPLACE_SWEEPING,
    REPLACE_LEAVING,
    REPLACE_GOING
};

struct replace {
    struct ploop_job job;
    enum replace_state state;
    bool is_busy;    /* a step of the state is under way, and will be heard of */
    bool wants_all;  /* PLOOP_REPLACE_COMPARE */
    bool reads_next; /* READING: the old file's bytes are there */
    int error;       /* why it does not come about */
    struct delta *old, *next;
    uint64_t at;      /* COMPARING: bytes of the BAT; READING: of the cluster */
    uint32_t cluster; /* READING and TURNING: the one that comes next */
    uint32_t swept;
    struct lock_waiter lock;
    struct channel_io io;
    struct iovec iov;
    uint8_t *buffers[2]; /* of the old file and the new one */
};

static struct replace *of_job(ploop_job *job)
{
    return container_of(job, struct replace, job);
}

static uint32_t clusters_of(const struct replace *replace)
{
    return geometry_guest_clusters(&dev_top(replace->job.dev)->geometry);
}

static void set_replace_state(struct replace *replace, enum replace_state state)
{
    static const uint32_t steps[] = {
        [REPLACE_COMPARING] = PLOOP_JOB_STEP_CHECK, [REPLACE_READING] = PLOOP_JOB_STEP_CHECK,
        [REPLACE_COMMIT] = PLOOP_JOB_STEP_COMMIT,   [REPLACE_TURNING] = PLOOP_JOB_STEP_FINISH,
        [REPLACE_SWEEPING] = PLOOP_JOB_STEP_FINISH, [REPLACE_LEAVING] = PLOOP_JOB_STEP_FINISH,
        [REPLACE_GOING] = PLOOP_JOB_STEP_UNDO,
    };
    assert(!replace->is_busy);
    replace->state = state;
    replace->at = 0;
    replace->cluster = 0;
    replace->job.watch.polls = state == REPLACE_LEAVING || state == REPLACE_GOING;
    job_set_step(&replace->job, steps[state]);
    turn_again(&replace->job.dev->turn);
}

static void fail(struct replace *replace, int error)
{
    assert(error < 0);
    replace->error = error;
    set_replace_state(replace, REPLACE_GOING);
}

/* What does not fit of a guest cluster, in one line. */
static int reject(const struct replace *replace, uint32_t guest, const char *what)
{
    const struct delta *old = replace->old;
    assert(old);
    dev_log(replace->job.dev, PLOOP_LOG_ERROR, REPLACE_MESSAGE_ID,
            "replace: level %" PRIu32 ": cluster %" PRIu32 ": %s", old->level, guest, what);
    return -EINVAL;
}

static void read_begin(struct replace *replace, struct delta *delta, uint8_t *buffer,
                       uint64_t offset, uint64_t length, channel_fn *then)
{
    replace->iov = (struct iovec){buffer, (size_t)length};
    replace->is_busy = true;
    channel_io_init(&replace->io, &delta->channel);
    channel_transfer(&replace->io, PLOOP_IO_READ, 0,
                     (struct iov_cursor){.iov = &replace->iov, .count = 1}, offset, length, then);
}

/* ---- comparing the maps ---- */

static void compared(struct replace *replace)
{
    if (replace->wants_all) {
        set_replace_state(replace, REPLACE_READING);
    } else {
        set_replace_state(replace, REPLACE_COMMIT);
        job_ask(&replace->job);
    }
}

/* An entry of the new file against what the disk shows there. */
static int judge_entry(const struct replace *replace, uint32_t guest, uint32_t entry)
{
    const struct delta *next = replace->next;
    struct place place = stack_place(&replace->job.dev->stack, (struct guest_cluster){guest});
    bool is_good = entry && geometry_judge_entry(&next->geometry, next->channel.file_size, entry) ==
                                ENTRY_GOOD;
    if (place.delta == replace->old) {
        uint32_t as_loaded = entry && !is_good ? BAT_ENTRY_BAD : entry;
        return as_loaded == place.entry ? 0 : reject(replace, guest, "it lies elsewhere");
    }
    bool is_hidden = place.delta ? place.delta->level > replace->old->level : place.entry != 0;
    return entry && !is_hidden ? reject(replace, guest, "the new file has it and the old not") : 0;
}

static void map_read(struct channel_io *io, int result)
{
    struct replace *replace = container_of(io, struct replace, io);
    uint64_t end = geometry_bat_bytes(&replace->next->geometry), done = replace->iov.iov_len;
    uint64_t first = replace->at ? replace->at : HEADER_SIZE, last = replace->at + done;
    uint32_t *entries = (uint32_t *)(void *)(replace->buffers[1] + (first - replace->at));
    uint32_t limit = geometry_guest_clusters(&replace->next->geometry);
    last = last < end ? last : end;
    replace->is_busy = false;
    words_from_le32(entries, (uint32_t)((last - first) / sizeof(*entries)));
    for (uint64_t at = first; at < last && !result; at += sizeof(*entries)) {
        uint32_t guest = (uint32_t)((at - HEADER_SIZE) / sizeof(*entries));
        result = guest < limit ? judge_entry(replace, guest, *entries++) : 0;
    }
    replace->at += done;
    if (result) {
        fail(replace, result);
    } else if (replace->at >= end) {
        compared(replace);
    }
    turn_again(&replace->job.dev->turn);
}

static void compare(struct replace *replace)
{
    uint64_t left = geometry_bat_bytes(&replace->next->geometry) - replace->at;
    if (replace->next->is_raw) {
        compared(replace);
        return;
    }
    left = (left + SECTOR_SIZE - 1) / SECTOR_SIZE * SECTOR_SIZE;
    read_begin(replace, replace->next, replace->buffers[1], replace->at,
               left < REPLACE_BYTES ? left : REPLACE_BYTES, map_read);
}

/* ---- comparing the bytes ---- */

static void read_piece(struct replace *replace);

/* How much of a guest cluster lies in the two files. */
static uint64_t bytes_of(const struct replace *replace, uint32_t guest)
{
    const struct delta *old = replace->old;
    assert(old);
    uint64_t cluster = old->geometry.cluster_size, begin = guest * cluster, end = old->tail_at;
    return end <= begin ? 0 : end - begin < cluster ? end - begin : cluster;
}

static void piece_read(struct channel_io *io, int result)
{
    struct replace *replace = container_of(io, struct replace, io);
    uint64_t length = replace->iov.iov_len;
    replace->is_busy = false;
    if (!result && !replace->reads_next) {
        replace->reads_next = true;
        read_piece(replace);
        return;
    }
    replace->reads_next = false;
    if (!result && memcmp(replace->buffers[0], replace->buffers[1], (size_t)length) != 0) {
        result = reject(replace, replace->cluster, "its bytes differ");
    }
    atomic_fetch_add(&replace->job.bytes_done, length);
    replace->at += length;
    if (result) {
        fail(replace, result);
    } else if (replace->at >= bytes_of(replace, replace->cluster)) {
        replace->at = 0;
        replace->cluster++;
    }
    turn_again(&replace->job.dev->turn);
}

/* Of the old file first, then of the new one. Both have the cluster at the same entry. */
static void read_piece(struct replace *replace)
{
    struct delta *delta = replace->reads_next ? replace->next : replace->old;
    struct guest_cluster guest = {replace->cluster};
    struct place place = stack_place(&replace->job.dev->stack, guest);
    uint64_t left = bytes_of(replace, guest.n) - replace->at;
    assert(place.delta == replace->old && left > 0);
    read_begin(replace, delta, replace->buffers[replace->reads_next],
               geometry_entry_offset(&delta->geometry, place.entry) + replace->at,
               left < REPLACE_BYTES ? left : REPLACE_BYTES, piece_read);
}

static void read_next(struct replace *replace)
{
    uint32_t clusters = clusters_of(replace), end = replace->cluster + REPLACE_ENTRIES;
    for (; replace->cluster < clusters && replace->cluster < end; replace->cluster++) {
        struct place place =
            stack_place(&replace->job.dev->stack, (struct guest_cluster){replace->cluster});
        if (place.delta == replace->old && place.entry != BAT_ENTRY_BAD &&
            bytes_of(replace, replace->cluster) > replace->at) {
            read_piece(replace);
            return;
        }
    }
    if (replace->cluster < clusters) {
        dev_post_run(replace->job.dev);
    } else {
        set_replace_state(replace, REPLACE_COMMIT);
        job_ask(&replace->job);
    }
}

/* ---- from the commit on ---- */

static void answered(struct replace *replace)
{
    int answer;
    if (!job_is_answered(&replace->job, &answer)) {
        return;
    }
    if (answer) {
        fail(replace, answer);
    } else {
        stack_replace(&replace->job.dev->stack, replace->old, replace->next);
        set_replace_state(replace, REPLACE_TURNING);
    }
}

static void turn_words(struct replace *replace)
{
    uint32_t clusters = clusters_of(replace), left = clusters - replace->cluster;
    uint32_t end = replace->cluster + (left < REPLACE_ENTRIES ? left : REPLACE_ENTRIES);
    stack_rename_words(&replace->job.dev->stack, replace->old, replace->next, &replace->cluster,
                       end);
    if (replace->cluster < clusters) {
        dev_post_run(replace->job.dev);
    } else {
        set_replace_state(replace, REPLACE_SWEEPING);
    }
}

static void swept(struct lock_waiter *waiter)
{
    struct replace *replace = container_of(waiter, struct replace, lock);
    replace->swept++;
    replace->is_busy = false;
    lock_release(waiter, &replace->job.dev->turn);
    turn_again(&replace->job.dev->turn);
}

static void sweep(struct replace *replace)
{
    ploop_dev *dev = replace->job.dev;
    uint32_t end = replace->swept + SWEEP_LOCKS;
    while (replace->swept < LOCK_COUNT && replace->swept < end && !replace->is_busy) {
        replace->is_busy = true;
        if (lock_take(&dev->locks[replace->swept], &replace->lock, true, swept)) {
            swept(&replace->lock);
        }
    }
    if (replace->swept == LOCK_COUNT && !replace->is_busy) {
        set_replace_state(replace, REPLACE_LEAVING);
    }
}

static void leave(struct replace *replace, struct delta *delta)
{
    if (channel_is_idle(&delta->channel) && top_leave(replace->job.dev, delta)) {
        file_give_back(delta->file, FILE_SHARED);
        job_end(&replace->job, replace->error);
    }
}

/* ---- all of it ---- */

static void go_on(struct replace *replace)
{
    switch (replace->state) {
    case REPLACE_COMPARING:
        compare(replace);
        break;
    case REPLACE_READING:
        read_next(replace);
        break;
    case REPLACE_COMMIT:
        answered(replace);
        break;
    case REPLACE_TURNING:
        turn_words(replace);
        break;
    case REPLACE_SWEEPING:
        sweep(replace);
        break;
    case REPLACE_LEAVING:
        leave(replace, replace->old);
        break;
    case REPLACE_GOING:
        leave(replace, replace->next);
        break;
    }
}

static void look(ploop_job *job)
{
    struct replace *replace = of_job(job);
    if (replace->is_busy || (replace->state <= REPLACE_READING && job_pauses(job))) {
        return;
    }
    if (replace->state <= REPLACE_READING && job_is_cancelled(job)) {
        fail(replace, -ECANCELED);
    } else {
        go_on(replace);
    }
}

static void destroy(ploop_job *job)
{
    struct replace *replace = of_job(job);
    free(replace->buffers[0]);
    free(replace->buffers[1]);
    free(replace);
}

static const struct job_kind replace_kind = {
    .kind = PLOOP_JOB_REPLACE,
    .look = look,
    .destroy = destroy,
};

/* ---- the call ---- */

static int take_buffers(struct replace *replace)
{
    void *memory = NULL;
    for (int i = 0; i < 2; i++) {
        if (posix_memalign(&memory, REPLACE_ALIGNMENT, REPLACE_BYTES)) {
            return -ENOMEM;
        }
        replace->buffers[i] = memory;
    }
    return 0;
}

static int prepare(struct replace *replace, uint32_t level, ploop_file *file)
{
    ploop_dev *dev = replace->job.dev;
    uint32_t count = stack_count(&dev->stack);
    if (level + UINT64_C(1) >= count) {
        dev_log(dev, PLOOP_LOG_ERROR, REPLACE_MESSAGE_ID,
                "replace: level %" PRIu32 ": not below the top, of %" PRIu32 " deltas", level,
                count);
        return -EINVAL;
    }
    replace->old = stack_find(&dev->stack, level);
    int error = take_buffers(replace);
    return error ? error : top_join_lower(dev, file, replace->old, &replace->next);
}

int ploop_dev_replace(ploop_dev *dev, uint32_t level, ploop_file *file, uint32_t flags,
                      ploop_job_commit_fn *commit, ploop_job_fn *fn, void *user_data,
                      ploop_job **job)
{
    if (!job || !dev || !file || flags & ~(uint32_t)PLOOP_REPLACE_COMPARE ||
        job_is_misled(dev, commit, fn)) {
        return -EINVAL;
    }
    *job = NULL;
    struct replace *replace = calloc(1, sizeof(*replace));
    if (!replace) {
        return -ENOMEM;
    }
    int error = job_claim(dev, &replace->job, &replace_kind);
    if (error) {
        free(replace);
        return error;
    }
    error = prepare(replace, level, file); /* with the claim: the stack does not change */
    if (error) {
        job_drop(&replace->job);
        destroy(&replace->job);
        return error;
    }
    list_init(&replace->lock.link);
    replace->wants_all = flags & PLOOP_REPLACE_COMPARE;
    replace->job.commit = commit;
    replace->job.fn = fn;
    replace->job.user_data = user_data;
    job_set_step(&replace->job, PLOOP_JOB_STEP_CHECK);
    *job = &replace->job;
    job_begin(&replace->job);
    return 0;
}
