/* SPDX-License-Identifier: MIT */
/*
 * Discard and writes of zeros.
 *
 * A whole cluster is removed from the map, under its exclusive lock, so that nothing is in flight
 * to its old place (R7). What then becomes of that place is the bat's business.
 *
 * A part of a cluster, or one that shall keep its space, is an overwrite: punched where that is
 * allowed and possible, else written. After a failed SYNC no space is given up any more, so it is
 * written then too. What is not mapped reads as zeros already. Of a partial cluster (partial.h) the
 * same is done in the host cluster that it has; a discard does nothing there.
 */
#include "pio/partial.h"
#include "pio/queue.h"
#include "pio/steps.h"
#include "util/refusal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static void zeros_write(struct part *part);

static struct sync_number durable_number(const struct part *part)
{
    return sync_next(&dev_bat(part->dev)->syncer);
}

/* Where the part begins in the top's file. */
static uint64_t place_of(const struct part *part)
{
    const struct delta *top = dev_top(part->dev);
    const struct partial *partial = partial_find(part->dev, part->cluster);
    uint32_t entry = bat_entry(top->bat, part->cluster);
    assert(entry != BAT_ENTRY_BAD && !entry == (partial != NULL));
    return part->inside + (partial ? geometry_host_offset(&top->geometry, partial->host)
                                   : geometry_entry_offset(&top->geometry, entry));
}

static bool is_partial(const struct part *part)
{
    return partial_find(part->dev, part->cluster) != NULL;
}

static void zeros_written(struct channel_io *io, int result)
{
    struct part *part = part_heard(io);
    assert(part->zeroed <= part->length);
    if (!result && part->zeroed < part->length) {
        zeros_write(part);
    } else if (is_partial(part)) {
        partial_changed(part, result);
    } else if (is_no_space(result)) {
        part_no_space(part, result);
    } else {
        part_settle(part, result, durable_number(part));
    }
}

/* As many zeros as one window holds. */
static void zeros_write(struct part *part)
{
    struct delta *top = dev_top(part->dev);
    struct iov_cursor cursor = {.iov = top->bat->zero_iov, .count = CHANNEL_WINDOW};
    uint64_t most = iov_length(top->bat->zero_iov, CHANNEL_WINDOW);
    uint64_t length = part->length - part->zeroed < most ? part->length - part->zeroed : most;
    uint64_t offset = place_of(part) + part->zeroed;
    uint32_t flags = is_partial(part) ? PLOOP_IO_ALLOCATES : 0;
    assert(length > 0);
    part->zeroed += length;
    part_transfer(part, top, PLOOP_IO_WRITE, flags, cursor, offset, length, zeros_written);
}

static void zeros_begin(struct part *part)
{
    if (part->pio->flags & PLOOP_PIO_FAST_ONLY) {
        part_settle(part, -ENOTSUP, SYNC_NONE);
    } else {
        part->zeroed = 0;
        zeros_write(part);
    }
}

/* ---- a punch, and where the backend has none ---- */

static void punched(struct channel_io *io, int result)
{
    struct part *part = part_heard(io);
    if (is_refusal(result)) {
        alloc_cannot_punch(&dev_bat(part->dev)->alloc);
        part->kind->locked(part); /* decides again */
    } else if (is_partial(part)) {
        partial_changed(part, result);
    } else if (is_no_space(result)) {
        part_no_space(part, result);
    } else {
        part_settle(part, result, durable_number(part));
    }
}

/* Once a SYNC has failed no space is given up any more. */
static bool can_punch(const struct bat *bat)
{
    return alloc_can_punch(&bat->alloc) && !bat_latch(bat);
}

static void punch(struct part *part)
{
    part_order(part, dev_top(part->dev), PLOOP_IO_PUNCH, place_of(part), part->length, punched);
}

/* ---- removal from the map ---- */

static void unmap(struct part *part)
{
    struct bat *bat = dev_bat(part->dev);
    assert(part_is_whole(part) && part->lock.exclusive);
    assert(!stack_maps(&part->dev->stack, part->cluster));
    if (bat_entry(bat, part->cluster) == 0) {
        part_settle(part, 0, SYNC_NONE);
    } else if (bat_can_keep_track(bat) || part->reclaimed) {
        bat_unmap(bat, part->cluster);
        part_settle(part, 0, SYNC_NONE);
    } else {
        part_wait_for_record(part);
    }
}

/* ---- zeros ---- */

static bool zeroes_unmap(const struct part *part)
{
    return part_is_whole(part) && !(part->pio->flags & PLOOP_PIO_NO_UNMAP);
}

/*
 * Alone to remove the cluster from the map or to copy it, and over blocks in part (R17). And where
 * it is not mapped: zeros over it are there already, but not in the place that a write has reserved
 * for it. What a write that failed left there would show when another one enters the place in the
 * map, so zeros wait until no write is left.
 */
bool zeroes_wants_alone(const struct part *part)
{
    return zeroes_unmap(part) || bat_entry(dev_bat(part->dev), part->cluster) == 0 ||
           !part_fills_blocks(part);
}

void zeroes_fill(const struct part *part, uint64_t from, uint8_t *bytes, uint64_t length)
{
    (void)part;
    (void)from;
    memset(bytes, 0, length);
}

void zeroes_locked(struct part *part)
{
    const struct bat *bat = dev_bat(part->dev);
    bool below = stack_maps(&part->dev->stack, part->cluster);
    if (zeroes_unmap(part) && !below) {
        unmap(part);
    } else if (bat_entry(bat, part->cluster) == 0) {
        below ? cow_locked(part) : part_settle(part, 0, SYNC_NONE);
    } else if (can_punch(bat) && !(part->pio->flags & PLOOP_PIO_NO_UNMAP)) {
        punch(part);
    } else {
        zeros_begin(part);
    }
}

/*
 * Of a partial cluster, with the lock held alone. Without writing where that is asked for: what
 * would have to be completed is not done then.
 */
void zeroes_partial(struct part *part)
{
    bool may_punch = can_punch(dev_bat(part->dev)) && !(part->pio->flags & PLOOP_PIO_NO_UNMAP);
    bool completes = part->pio->flags & PLOOP_PIO_FUA && !part_is_whole(part);
    assert(part->lock.exclusive && is_partial(part));
    if (may_punch && !(completes && part->pio->flags & PLOOP_PIO_FAST_ONLY)) {
        punch(part);
    } else {
        zeros_begin(part);
    }
}

/* ---- discard ---- */

bool discard_wants_alone(const struct part *part)
{
    (void)part;
    return true;
}

/* What a lower delta has must not be uncovered: such a cluster is punched in place, or left. */
void discard_locked(struct part *part)
{
    const struct bat *bat = dev_bat(part->dev);
    assert(part->lock.exclusive);
    if (!part_is_whole(part)) {
        part_settle(part, 0,
                    SYNC_NONE); /* the disk has grown: its last cluster is not whole any more */
    } else if (!stack_maps(&part->dev->stack, part->cluster)) {
        unmap(part);
    } else if (bat_entry(bat, part->cluster) == 0 || !can_punch(bat)) {
        part_settle(part, 0, SYNC_NONE);
    } else {
        punch(part);
    }
}
