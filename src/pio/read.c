/* SPDX-License-Identifier: MIT */
/* Reads that did not take the fast path: of a cluster whose shared lock is held. */
#include "pio/partial.h"
#include "pio/queue.h"
#include "pio/steps.h"

#include <assert.h>
#include <errno.h>

static void read_heard(struct channel_io *io, int result)
{
    part_settle(part_heard(io), result, SYNC_NONE);
}

/* ---- zeros ---- */

static void fill_with_zeros(const struct part *part)
{
    struct iov_cursor rest = part->cursor;
    iov_advance(&rest, part->filled);
    iov_zero(&rest, part->length - part->filled);
}

/* What lies below is there, and what is the top's of a partial cluster is not yet. */
static void zeros_filled(struct part *part)
{
    ploop_dev *dev = part->dev;
    if (partial_find(dev, part->cluster)) {
        partial_read_over(part);
    } else if (stack_maps(&dev->stack, part->cluster) &&
               bat_entry(dev_bat(dev), part->cluster) != 0) {
        read_locked(part); /* the guest has filled it meanwhile */
    } else {
        part_settle(part, 0, SYNC_NONE);
    }
}

static void read_zeros(struct part *part)
{
    part_do_bulk(part, part->length - part->filled, fill_with_zeros, zeros_filled);
}

/* ---- what the lower delta has, then zeros over the rest ---- */

static void below_heard(struct channel_io *io, int result)
{
    struct part *part = part_heard(io);
    if (result) {
        part_settle(part, result, SYNC_NONE);
    } else {
        read_zeros(part);
    }
}

static void read_below(struct part *part, struct place place)
{
    uint64_t offset;
    assert(place.delta && place.delta != dev_top(part->dev));
    if (place.entry == BAT_ENTRY_BAD) {
        part_settle(part, -EIO, SYNC_NONE);
        return;
    }
    uint64_t in_file = delta_fill(place.delta, part->cluster, place.entry, part->inside,
                                  part->length, &part->cursor, &offset, &part->filled);
    if (in_file == 0) {
        read_zeros(part);
        return;
    }
    part_transfer(part, place.delta, PLOOP_IO_READ, 0, part->cursor, offset, in_file, below_heard);
}

void read_locked(struct part *part)
{
    ploop_dev *dev = part->dev;
    struct delta *top = dev_top(dev);
    uint32_t entry = bat_entry(top->bat, part->cluster);
    assert(part->state == PART_LOCKED && !part->lock.exclusive);
    const struct partial *partial = partial_find(dev, part->cluster);
    if (partial && partial_read_alone(part, partial)) {
        return;
    }
    if (entry == 0 && stack_maps(&dev->stack, part->cluster)) {
        read_below(part, stack_place(&dev->stack, part->cluster));
    } else if (entry == 0) {
        part->filled = 0;
        read_zeros(part);
    } else if (entry == BAT_ENTRY_BAD) {
        part_settle(part, -EIO, SYNC_NONE);
    } else {
        uint64_t offset = geometry_entry_offset(&top->geometry, entry) + part->inside;
        part_transfer(part, top, PLOOP_IO_READ, 0, part->cursor, offset, part->length, read_heard);
    }
}
