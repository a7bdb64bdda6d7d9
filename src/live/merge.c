/* SPDX-License-Identifier: MIT */
/*
 * A merge up into the top (R13): the top gets all that only the delta right below it has, and that
 * delta is let go.
 *
 *     COUNTING    the words that name the delta are counted, slice by slice
 *     COPYING     each cluster that the top does not map is copied, under its lock (pio/cow.c)
 *     FLUSHING    a round: the copies, and their entries, are durable
 *     COMMIT      the embedder records the shorter stack
 *     DROPPING    the words name the delta no more, slice by slice
 *     LEAVING     nothing calls the delta's file any more -> ended
 *
 *     COUNTING -> COPYING -> FLUSHING -> COMMIT -> DROPPING -> LEAVING
 *     failed, cancelled or refused, from the first four on: copies end -> ended, with the error
 *
 *  1. No gate is closed: the guest's writes have the same owner in both records.
 *  2. A cluster that the top maps stays there (R8), so one look at each cluster is enough, whatever
 *     the guest does meanwhile, and every cluster that COPYING has left behind is in the top.
 *  3. Until the commit the delta counts as below: a discard punches and removes no entry. After it,
 *     where deltas are left below, the entry stays as well (delta/stack.h, 5).
 *  4. Who has read a word that names the delta has the cluster's lock, shared at least, and has
 *     found no entry in the top. A copy holds that lock alone. So after COPYING nobody is on the
 *     way to the delta's file who is not counted in its channel.
 *  5. A rate limit is waited for with no lock held. A pause begins when the copies under way have
 *     ended.
 */
#include "engine/engine.h"
#include "life/top.h"
#include "live/job.h"
#include "pio/queue.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum { MERGE_MESSAGE_ID = 11, SLICE_CLUSTERS = 16384, COPIES = 2 };

enum merge_state {
    MERGE_COUNTING,
    MERGE_COPYING,
    MERGE_FLUSHING,
    MERGE_COMMIT,
    MERGE_DROPPING,
    MERGE_LEAVING
};

struct merge {
    struct ploop_job job;
    enum merge_state state;
    bool is_busy;       /* a round is under way */
    uint32_t under_way; /* copies */
    int error;          /* of the first that failed */
    struct delta *lower;
    uint32_t next; /* the cluster that comes next */
    ploop_pio copies[COPIES];
    struct round_wait round;
    uint64_t rate, since_ns, moved; /* the rate that holds since then, and what was copied since */
};

static struct merge *of_job(ploop_job *job)
{
    return container_of(job, struct merge, job);
}

static void set_merge_state(struct merge *merge, enum merge_state state)
{
    static const uint32_t steps[] = {
        [MERGE_COUNTING] = PLOOP_JOB_STEP_CHECK,  [MERGE_COPYING] = PLOOP_JOB_STEP_COPY,
        [MERGE_FLUSHING] = PLOOP_JOB_STEP_FLUSH,  [MERGE_COMMIT] = PLOOP_JOB_STEP_COMMIT,
        [MERGE_DROPPING] = PLOOP_JOB_STEP_FINISH, [MERGE_LEAVING] = PLOOP_JOB_STEP_FINISH,
    };
    assert(merge->under_way == 0 && !merge->is_busy);
    merge->state = state;
    merge->next = 0;
    merge->job.watch.polls = state == MERGE_LEAVING;
    job_set_step(&merge->job, steps[state]);
    turn_again(&merge->job.dev->turn);
}

/* The disk's clusters, of which each has a word. */
static uint32_t clusters_of(const struct merge *merge)
{
    return geometry_guest_clusters(&dev_top(merge->job.dev)->geometry);
}

static uint32_t slice_end(const struct merge *merge)
{
    uint32_t left = clusters_of(merge) - merge->next;
    return merge->next + (left < SLICE_CLUSTERS ? left : SLICE_CLUSTERS);
}

/* Whether the top still has to get it. */
static bool is_to_copy(const struct merge *merge, struct guest_cluster guest)
{
    const ploop_dev *dev = merge->job.dev;
    return stack_place(&dev->stack, guest).delta == merge->lower &&
           bat_entry(dev_bat(dev), guest) == 0;
}

static void count_words(struct merge *merge)
{
    ploop_dev *dev = merge->job.dev;
    uint64_t count = 0;
    for (uint32_t end = slice_end(merge); merge->next < end; merge->next++) {
        count += is_to_copy(merge, (struct guest_cluster){merge->next});
    }
    atomic_fetch_add(&merge->job.bytes_total, count * dev_disk(dev)->cluster_size);
    if (merge->next == clusters_of(merge)) {
        set_merge_state(merge, MERGE_COPYING);
    } else {
        dev_post_run(dev);
    }
}

/* ---- copying ---- */

static void copied(struct part *part)
{
    ploop_job *job = part->pio->user_data;
    struct merge *merge = of_job(job);
    uint64_t bytes = dev_disk(job->dev)->cluster_size;
    merge->under_way--;
    merge->moved += bytes;
    merge->error = merge->error ? merge->error : part->result;
    atomic_fetch_add(&job->bytes_done, bytes);
    turn_again(&job->dev->turn);
}

static void copy(struct merge *merge, struct guest_cluster guest)
{
    for (uint32_t i = 0; i < COPIES; i++) {
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

/* A slice at most, so that others get the turn. */
static void copy_more(struct merge *merge)
{
    ploop_dev *dev = merge->job.dev;
    uint32_t end = slice_end(merge);
    while (merge->next < end && merge->under_way < COPIES && may_move(merge)) {
        struct guest_cluster guest = {merge->next++};
        if (is_to_copy(merge, guest)) {
            copy(merge, guest);
        }
    }
    if (merge->next == clusters_of(merge)) {
        if (merge->under_way == 0) {
            set_merge_state(merge, MERGE_FLUSHING);
        }
    } else if (merge->under_way < COPIES && merge->next == end) {
        dev_post_run(dev);
    }
}

/* ---- the rest ---- */

static void flushed(struct round_wait *round, int result)
{
    struct merge *merge = container_of(round, struct merge, round);
    merge->is_busy = false;
    merge->error = result;
    if (!result && !job_is_cancelled(&merge->job)) {
        set_merge_state(merge, MERGE_COMMIT);
        job_ask(&merge->job);
    }
    turn_again(&merge->job.dev->turn);
}

static void answered(struct merge *merge)
{
    ploop_job *job = &merge->job;
    int answer;
    if (!job_is_answered(job, &answer)) {
        return;
    }
    if (answer == -EINPROGRESS) {
        atomic_store(&job->unknown, true);
        atomic_store(&job->dev->job_unknown, job);
    }
    if (answer) {
        job_end(job, answer);
    } else {
        set_merge_state(merge, MERGE_DROPPING);
    }
}

static void drop_words(struct merge *merge)
{
    ploop_dev *dev = merge->job.dev;
    stack_drop_words(&dev->stack, merge->lower, &merge->next, slice_end(merge));
    if (merge->next == clusters_of(merge)) {
        stack_drop(&dev->stack, merge->lower);
        set_merge_state(merge, MERGE_LEAVING);
    } else {
        dev_post_run(dev);
    }
}

static void leave(struct merge *merge)
{
    struct delta *lower = merge->lower;
    if (channel_is_idle(&lower->channel) && top_leave(merge->job.dev, lower)) {
        file_give_back(lower->file, FILE_SHARED);
        job_end(&merge->job, 0);
    }
}

static void go_on(struct merge *merge)
{
    switch (merge->state) {
    case MERGE_COUNTING:
        count_words(merge);
        break;
    case MERGE_COPYING:
        copy_more(merge);
        break;
    case MERGE_FLUSHING:
        merge->is_busy = true;
        bat_join_round(dev_bat(merge->job.dev), &merge->round, flushed);
        break;
    case MERGE_COMMIT:
        answered(merge);
        break;
    case MERGE_DROPPING:
        drop_words(merge);
        break;
    case MERGE_LEAVING:
        leave(merge);
        break;
    }
}

static void look(ploop_job *job)
{
    struct merge *merge = of_job(job);
    bool is_early = merge->state < MERGE_COMMIT;
    bool ends = is_early && (merge->error || job_is_cancelled(job));
    if (merge->is_busy || ((ends || job->dev->state == DEV_SUSPENDED) && merge->under_way > 0)) {
        return;
    }
    if (ends) {
        job_end(job, merge->error ? merge->error : -ECANCELED);
    } else if (!is_early || !job_pauses(job)) {
        go_on(merge);
    }
}

static void destroy(ploop_job *job)
{
    free(of_job(job));
}

static const struct job_kind merge_kind = {
    .kind = PLOOP_JOB_MERGE,
    .look = look,
    .destroy = destroy,
};

static int judge(const ploop_dev *dev, uint32_t level, uint32_t direction)
{
    uint32_t count = stack_count(&dev->stack);
    if ((direction != PLOOP_MERGE_UP && direction != PLOOP_MERGE_DOWN) || level + 1 >= count) {
        dev_log(dev, PLOOP_LOG_ERROR, MERGE_MESSAGE_ID,
                "merge: level %" PRIu32 ": there is no delta above it, of %" PRIu32, level, count);
        return -EINVAL;
    }
    if (direction == PLOOP_MERGE_DOWN || level + 2 != count) {
        dev_log(dev, PLOOP_LOG_ERROR, MERGE_MESSAGE_ID,
                "merge: level %" PRIu32 " %s: this version merges up into the top only", level,
                direction == PLOOP_MERGE_DOWN ? "down" : "up");
        return -ENOTSUP;
    }
    return 0;
}

static struct merge *make(ploop_dev *dev, int *error)
{
    struct merge *merge = NULL;
    if (posix_memalign((void **)&merge, alignof(struct merge), sizeof(*merge))) {
        *error = -ENOMEM;
        return NULL;
    }
    *merge = (struct merge){.error = 0};
    *error = job_claim(dev, &merge->job, &merge_kind);
    if (*error) {
        free(merge);
        return NULL;
    }
    return merge;
}

int ploop_dev_merge(ploop_dev *dev, uint32_t level, uint32_t direction, ploop_job_commit_fn *commit,
                    ploop_job_fn *fn, void *user_data, ploop_job **job)
{
    int error;
    if (!dev || !job) {
        return -EINVAL;
    }
    *job = NULL;
    struct merge *merge = make(dev, &error);
    if (!merge) {
        return error;
    }
    error = judge(dev, level, direction); /* with the claim: the stack does not change */
    if (error) {
        job_drop(&merge->job);
        free(merge);
        return error;
    }
    merge->lower = stack_find(&dev->stack, level);
    assert(merge->lower);
    for (uint32_t i = 0; i < COPIES; i++) {
        pio_init(&merge->copies[i], dev_engine_queue(dev));
        merge->copies[i].op = PIO_COPY_UP;
        merge->copies[i].user_data = &merge->job;
    }
    merge->job.commit = commit;
    merge->job.fn = fn;
    merge->job.user_data = user_data;
    job_set_step(&merge->job, PLOOP_JOB_STEP_CHECK);
    *job = &merge->job;
    job_begin(&merge->job);
    return 0;
}
