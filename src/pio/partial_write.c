/* SPDX-License-Identifier: MIT */
/*
 * Changes of a partial cluster (partial.h).
 *
 *     locked, shared --> written into the host cluster -> its sectors are the top's ------> settled
 *     locked, alone  --> the same, and zeros -----------> with FUA: the rest is copied ---> settled
 *     locked, alone, no room for its sectors -> the rest is copied -> locked again: it is mapped
 *
 *  1. A write that failed adds nothing to the record: what was not the top's is read below, and
 *     copied over it.
 *  2. The write that brings the last sector enters the cluster in the map, beside others that are
 *     in flight: theirs are the top's already. These find no record then, and an entry.
 */
#include "pio/partial.h"

#include "pio/pio.h"
#include "pio/queue.h"
#include "pio/steps.h"

#include <assert.h>
#include <errno.h>

bool partial_wants_alone(const struct part *part)
{
    const struct partial *partial = partial_find(part->dev, part->cluster);
    return !partial || part->pio->flags & PLOOP_PIO_FUA || !partial_fits(partial, part);
}

static struct sync_number next_sync(const struct part *part)
{
    return sync_next(&dev_bat(part->dev)->syncer);
}

static void end(struct part *part, int result)
{
    if (is_no_space(result)) {
        part_no_space(part, result);
    } else {
        part_settle(part, result, next_sync(part));
    }
}

/* ---- with a completion ---- */

static void note_failure(const struct part *part, int result)
{
    struct partial *partial = partial_find(part->dev, part->cluster);
    if (result && partial) {
        partial_failed(part->dev, partial, result);
    }
}

static void fua_completed(struct part *part, int result)
{
    note_failure(part, result);
    end(part, result);
}

static void completed(struct part *part, int result)
{
    note_failure(part, result);
    if (result) {
        end(part, result);
    } else {
        part_decide(part); /* it is mapped now */
    }
}

/* ---- the end ---- */

void partial_changed(struct part *part, int result)
{
    ploop_dev *dev = part->dev;
    struct partial *partial = partial_find(dev, part->cluster);
    if (!partial) {
        assert(bat_entry(dev_bat(dev), part->cluster) != 0);
        end(part, result);
        return;
    }
    if (result) {
        partial_drop_empty(dev, partial);
        end(part, result);
        return;
    }
    partial_add(dev, partial, part);
    if (partial->missing == 0) {
        partial_enter(dev, partial);
        end(part, 0);
    } else if (part->pio->flags & PLOOP_PIO_FUA) {
        partial_complete(part, partial, fua_completed);
    } else {
        end(part, 0);
    }
}

static void written(struct channel_io *io, int result)
{
    struct part *part = part_heard(io);
    struct partial *partial = partial_find(part->dev, part->cluster);
    if (partial) {
        assert(partial->in_flight > 0);
        partial->in_flight--;
    }
    partial_changed(part, result);
}

/* ---- the beginning ---- */

static void send(struct part *part, struct partial *partial)
{
    struct delta *top = dev_top(part->dev);
    uint64_t offset = geometry_host_offset(&top->geometry, partial->host) + part->inside;
    partial->in_flight++;
    part_transfer(part, top, PLOOP_IO_WRITE, part_host_flags(part, partial->host), part->cursor,
                  offset, part->length, written);
}

void partial_write_locked(struct part *part, struct partial *partial)
{
    assert(!part->lock.exclusive || partial->in_flight == 0);
    if (!partial_fits(partial, part)) {
        assert(part->lock.exclusive);
        if (part->pio->flags & PLOOP_PIO_FAST_ONLY) {
            part_settle(part, -ENOTSUP, SYNC_NONE);
        } else {
            partial_complete(part, partial, completed);
        }
    } else if (part->kind->has_memory) {
        send(part, partial);
    } else {
        zeroes_partial(part);
    }
}
