/* SPDX-License-Identifier: MIT */
/*
 * Discard and writes of zeros.
 *
 * A whole cluster is removed from the map, under its exclusive lock, so that nothing is in flight
 * to its old place (R7). What then becomes of that place is the bat's business.
 *
 * A part of a cluster, or one that shall keep its space, is an overwrite: punched where that is
 * allowed and possible, else written. After a failed SYNC no space is given up any more, so it is
 * written then too. What is not mapped reads as zeros already.
 */
#include "dev/dev.h"

#include <errno.h>

static void zeros_write(struct part *part);

static uint64_t durable_number(const struct part *part)
{
    return sync_next(&dev_bat(part->dev)->syncer);
}

static void zeros_written(struct channel_io *io, int result)
{
    struct part *part = container_of(io, struct part, io);
    if (!result && part->zeroed < part->length) {
        zeros_write(part);
    } else if (is_no_space(result)) {
        part_no_space(part, result);
    } else {
        part_settle(part, result, durable_number(part));
    }
}

/* As many zeros as one window holds. */
static void zeros_write(struct part *part)
{
    ploop_dev *dev = part->dev;
    struct iov_cursor cursor = {.iov = dev_bat(dev)->zero_iov, .count = CHANNEL_WINDOW};
    uint64_t most = iov_length(dev_bat(dev)->zero_iov, CHANNEL_WINDOW);
    uint64_t length = part->length - part->zeroed < most ? part->length - part->zeroed : most;
    uint64_t offset =
        geometry_entry_offset(&dev_top(dev)->geometry, bat_entry(dev_bat(dev), part->cluster)) +
        part->inside + part->zeroed;
    part->zeroed += length;
    channel_transfer(&part->io, PLOOP_IO_WRITE, 0, cursor, offset, length, zeros_written);
}

static void zeros_begin(struct part *part)
{
    if (part->pio->flags & PLOOP_PIO_FAST_ONLY) {
        part_settle(part, -ENOTSUP, 0);
    } else {
        part->zeroed = 0;
        zeros_write(part);
    }
}

static void punched(struct channel_io *io, int result)
{
    struct part *part = container_of(io, struct part, io);
    if (result == -ENOTSUP) {
        alloc_cannot_punch(&dev_bat(part->dev)->alloc);
        if (part->pio->op == PIO_DISCARD) {
            part_settle(part, 0, 0);
        } else {
            zeros_begin(part);
        }
    } else if (is_no_space(result)) {
        part_no_space(part, result);
    } else {
        part_settle(part, result, durable_number(part));
    }
}

void zero_locked(struct part *part)
{
    ploop_dev *dev = part->dev;
    uint32_t entry = bat_entry(dev_bat(dev), part->cluster);
    if (entry == 0) {
        part_settle(part, 0, 0);
    } else if (alloc_can_punch(&dev_bat(dev)->alloc) && !(part->pio->flags & PLOOP_PIO_NO_UNMAP) &&
               !bat_latch(dev_bat(dev))) {
        uint64_t offset = geometry_entry_offset(&dev_top(dev)->geometry, entry) + part->inside;
        channel_order(&part->io, PLOOP_IO_PUNCH, offset, part->length, punched);
    } else {
        zeros_begin(part);
    }
}

void unmap_locked(struct part *part)
{
    struct bat *bat = dev_bat(part->dev);
    if (bat_entry(bat, part->cluster) == 0) {
        part_settle(part, 0, 0);
    } else if (bat_can_keep_track(bat) || part->reclaimed) {
        bat_unmap(bat, part->cluster);
        part_settle(part, 0, 0);
    } else {
        part_wait_for_record(part);
    }
}
