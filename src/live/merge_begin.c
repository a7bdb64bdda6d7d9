/* SPDX-License-Identifier: MIT */
/* Whether two neighbours can be merged, and the beginning of it. */
#include "life/top.h"
#include "live/merge.h"
#include "pio/queue.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* What is asked for. */
struct wish {
    uint32_t level;
    bool is_down;
    struct delta *lower, *upper;
    char why[160]; /* it cannot be */
};

/* With a line in the log that says why: wish->why. */
static int reject(const ploop_dev *dev, const struct wish *wish, int error)
{
    dev_log(dev, PLOOP_LOG_ERROR, MERGE_MESSAGE_ID, "merge: level %" PRIu32 "%s: %s", wish->level,
            wish->is_down ? " down" : "", wish->why);
    return error;
}

#define WHY(wish, ...) snprintf((wish)->why, sizeof((wish)->why), __VA_ARGS__)

static int judge_call(const ploop_dev *dev, struct wish *wish, uint32_t direction)
{
    uint32_t count = stack_count(&dev->stack);
    wish->is_down = direction & PLOOP_MERGE_DOWN;
    if (direction == PLOOP_MERGE_DOWN) {
        WHY(wish, "other stacks may be built on the lower file: PLOOP_MERGE_RECEIVER_IS_OURS "
                  "says that none is");
        return reject(dev, wish, -EINVAL);
    }
    if (direction != PLOOP_MERGE_UP &&
        direction != (PLOOP_MERGE_DOWN | PLOOP_MERGE_RECEIVER_IS_OURS)) {
        WHY(wish, "no such direction: %" PRIu32, direction);
        return reject(dev, wish, -EINVAL);
    }
    if (wish->level + UINT64_C(1) >= count) {
        WHY(wish, "there is no delta above it, of %" PRIu32, count);
        return reject(dev, wish, -EINVAL);
    }
    wish->lower = stack_find(&dev->stack, wish->level);
    wish->upper = stack_find(&dev->stack, wish->level + 1);
    assert(wish->lower && wish->upper);
    return 0;
}

/* More of a raw file would be seen, where zeros were promised. */
static int judge_raw_base(const ploop_dev *dev, struct wish *wish)
{
    const struct delta *base = stack_find(&dev->stack, 0);
    const struct delta *away = wish->is_down ? wish->upper : wish->lower;
    const struct delta *above = stack_find(&dev->stack, away->level + 1);
    if (away->level == 1 && base->is_raw && above && base->geometry.disk_size > away->end &&
        above->end > away->end) {
        WHY(wish,
            "it would uncover the raw base, whose size is %" PRIu64
            ", where the delta merged away ends at %" PRIu64,
            base->geometry.disk_size, away->end);
        return reject(dev, wish, -EINVAL);
    }
    return 0;
}

static int judge(const ploop_dev *dev, struct wish *wish, uint32_t direction)
{
    int error = judge_call(dev, wish, direction);
    if (error) {
        return error;
    }
    const struct delta *to = wish->is_down ? wish->lower : wish->upper;
    assert(to);
    if (to->is_raw && wish->upper == dev_top(dev)) {
        WHY(wish, "a disk needs an image as its top, and the receiver is a raw base");
        error = reject(dev, wish, -ENOTSUP);
    } else if (!to->is_raw && wish->is_down && wish->lower->end != wish->upper->end) {
        WHY(wish,
            "the receiver's disk has %" PRIu64 " bytes, the other one's %" PRIu64
            ": this version does not merge into a smaller one; grow it first, or merge up",
            wish->lower->end, wish->upper->end);
        error = reject(dev, wish, -ENOTSUP);
    }
    if (error) {
        return error;
    }
    if (to->sync_failed) {
        WHY(wish, "a SYNC of the receiver has failed; open the stack again");
        return reject(dev, wish, -EIO);
    }
    return judge_raw_base(dev, wish);
}

/* ---- the beginning ---- */

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

static void choose(struct merge *merge, const struct wish *wish)
{
    const ploop_dev *dev = merge->job.dev;
    bool with_top = wish->upper == dev_top(dev);
    merge->way = !with_top ? MERGE_BELOW : wish->is_down ? MERGE_LOWER : MERGE_TOP;
    merge->merging = (struct merging){
        .from = wish->is_down ? wish->upper : wish->lower,
        .to = wish->is_down ? wish->lower : wish->upper,
        .overwrites = wish->is_down,
    };
    merge->state = merge->way == MERGE_TOP ? MERGE_COUNTING : MERGE_LOADING;
    list_init(&merge->lock.link);
    for (uint32_t i = 0; i < MERGE_COPIES; i++) {
        pio_init(&merge->copies[i], dev_engine_queue(dev));
        merge->copies[i].op = merge->way == MERGE_TOP ? PIO_COPY_UP : PIO_MERGE;
        merge->copies[i].user_data = &merge->job;
    }
}

/* What the way needs besides. */
static int prepare(struct merge *merge)
{
    const struct delta *from = merge->merging.from;
    if (merge->way == MERGE_BELOW && !from->is_raw) {
        merge->entries = calloc((size_t)from->geometry.bat_entries + 1, sizeof(*merge->entries));
        merge->merging.entries = merge->entries;
        if (!merge->entries) {
            return -ENOMEM;
        }
    }
    if (merge->merging.to->is_raw && posix_memalign((void **)&merge->buffer, BAT_PAGE_SIZE,
                                                    (size_t)IMAGE_PAGES * BAT_PAGE_SIZE)) {
        merge->buffer = NULL;
        return -ENOMEM;
    }
    return merge->way == MERGE_TOP
               ? 0
               : top_make_receiver(merge->job.dev, merge->merging.to, from->end);
}

int ploop_dev_merge(ploop_dev *dev, uint32_t level, uint32_t direction, ploop_job_commit_fn *commit,
                    ploop_job_fn *fn, void *user_data, ploop_job **job)
{
    struct wish wish = {.level = level};
    int error;
    if (!dev || !job || job_is_misled(dev, commit, fn)) {
        return -EINVAL;
    }
    *job = NULL;
    struct merge *merge = make(dev, &error);
    if (!merge) {
        return error;
    }
    error = judge(dev, &wish, direction); /* with the claim: the stack does not change */
    if (!error) {
        choose(merge, &wish);
        error = prepare(merge);
    }
    if (error) {
        job_drop(&merge->job);
        merge_kind.destroy(&merge->job);
        return error;
    }
    merge->job.commit = commit;
    merge->job.fn = fn;
    merge->job.user_data = user_data;
    job_set_step(&merge->job, PLOOP_JOB_STEP_CHECK);
    *job = &merge->job;
    job_begin(&merge->job);
    return 0;
}
