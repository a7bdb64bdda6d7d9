/* SPDX-License-Identifier: MIT */
/*
 * A raw base as the receiver of a merge. It has no map: each cluster has its place, and the words
 * that named the source name that place when the stack is recorded without the source.
 *
 *     SYNC, made long enough (MARKING) -> copies -> SYNC (CLEARING) -> commit -> `end` -> the words
 *
 *  1. What it held when it was opened may be only in a cache: it is made durable before it is
 *     changed (R11).
 *  2. A file that was made longer reads as before, zeros where it ended, whether the merge comes
 *     about or not.
 *  3. A SYNC of it that fails is its last one as a receiver (R6).
 */
#include "engine/engine.h"
#include "live/merge.h"
#include "util/error_text.h"

#include <assert.h>

static void synced(struct channel_io *io, int result)
{
    struct merge *merge = container_of(io, struct merge, io);
    if (result) {
        merge->merging.to->sync_failed = true;
        dev_log(merge->job.dev, PLOOP_LOG_ERROR, MERGE_MESSAGE_ID,
                "merge: a SYNC of the raw base has failed: %s", ERROR_TEXT(result));
    }
    merge->synced(&merge->round, result);
    turn_again(&merge->job.dev->turn);
}

void merge_sync(struct merge *merge, round_fn *then)
{
    merge->synced = then;
    channel_io_init(&merge->io, &merge->merging.to->channel);
    channel_order(&merge->io, PLOOP_IO_SYNC, 0, 0, synced);
}

static void lengthened(struct channel_io *io, int result)
{
    struct merge *merge = container_of(io, struct merge, io);
    merge_is_prepared(merge, result);
    turn_again(&merge->job.dev->turn);
}

static void found_is_durable(struct round_wait *round, int result)
{
    struct merge *merge = container_of(round, struct merge, round);
    struct channel *channel = &merge->merging.to->channel;
    uint64_t end = merge->merging.from->end;
    if (result || channel->file_size >= end) {
        merge_is_prepared(merge, result);
    } else {
        channel_io_init(&merge->io, channel);
        channel_order(&merge->io, PLOOP_IO_TRUNCATE, end, 0, lengthened);
    }
}

void merge_prepare_raw(struct merge *merge)
{
    assert(merge->merging.to->is_raw && merge->way == MERGE_BELOW);
    merge_sync(merge, found_is_durable);
}

void merge_raw_has_all(struct merge *merge)
{
    struct delta *to = merge->merging.to;
    uint64_t end = merge->merging.from->end;
    assert(to->channel.file_size >= end && to->end <= end);
    if (to->geometry.disk_size < to->channel.file_size) {
        to->geometry.disk_size = to->channel.file_size;
    }
    atomic_store_explicit(&to->end, end, memory_order_relaxed);
    atomic_store_explicit(&to->tail_at, end, memory_order_release);
}
