/* SPDX-License-Identifier: MIT */
/*
 * Closing and leaving.
 *
 *     close: no request waits for space any more -> quiet -> shut: what comes now ends with
 *     -ECANCELED -> flushed -> the file's
 *            free end cut off -> mark cleared, behind a SYNC of its own and before another ->
 *            nothing at the backend, nobody inside -> freed
 *     abort: the gate closed, the channel cut, every wait ended with -ECANCELED -> nothing at the
 *     backend, nobody inside -> freed
 *
 * The mark is cleared if and only if everything before it succeeded (R11).
 */
#include "dev/dev.h"

#include <errno.h>
#include <string.h>

/*
 * Nothing in flight and nothing to deliver. A callback that is delivered here may submit again, to
 * any queue, so it is only quiet where a look finds nothing that the look before it might have set
 * going.
 */
static bool is_quiet(ploop_dev *dev, void *argument)
{
    (void)argument;
    int delivered = 0;
    for (uint32_t i = 0; i < dev->queue_count; i++) {
        delivered += queue_deliver_all(&dev->queues[i]);
    }
    if (delivered || !dev_is_quiet(dev)) {
        return false;
    }
    for (uint32_t i = 0; i < dev->queue_count; i++) {
        if (!inbox_is_empty(&dev->queues[i].done) || atomic_load(&dev->queues[i].delivering)) {
            return false;
        }
    }
    return dev_is_quiet(dev);
}

/* The owner of the turn is the only one who may look; it leaves what it saw. */
static void look_for_rest(ploop_dev *dev)
{
    dev->at_rest = bat_is_idle(dev_bat(dev));
    for (uint32_t level = 0; level < dev->stack.count; level++) {
        dev->at_rest &= channel_is_idle(&dev->stack.deltas[level]->channel);
    }
}

static bool nobody_inside(ploop_dev *dev, void *argument)
{
    return atomic_load(&dev->turn.visitors) == 0 && is_quiet(dev, argument);
}

static bool never_yet(ploop_dev *dev, void *argument)
{
    (void)dev;
    bool *asked = argument;
    bool before = *asked;
    *asked = true;
    return before;
}

static void wait_for_rest(ploop_dev *dev)
{
    for (;;) {
        block_control(dev, look_for_rest);
        if (dev->at_rest) {
            break;
        }
        bool asked = false;
        block_until(dev, never_yet, &asked);
    }
    block_until(dev, nobody_inside, NULL);
}

static void begin_closing(ploop_dev *dev)
{
    dev->closing = true;
    if (dev->suspended) {
        dev->suspended = false;
        pio_restart_held(dev);
    }
    space_fail_all(dev, -ENOSPC);
}

static void shut(ploop_dev *dev)
{
    dev->closed = true;
    gate_follow(dev);
}

static void stop_space_work(ploop_dev *dev)
{
    dev_bat(dev)->alloc.closing = true;
}

static void trim(ploop_dev *dev)
{
    alloc_trim(&dev_bat(dev)->alloc);
}

static void clear_mark(ploop_dev *dev)
{
    struct bat *bat = dev_bat(dev);
    if (dev->extension.bytes) { /* an open that failed: the image goes back to the one it had */
        bat->header.extension_sector = dev->extension.found_sector;
    }
    bat->header.in_use = bat->header.extension_sector ? HEADER_CLOSED_EXT : 0;
    if (bat->stats.mapped == 0) {
        bat->header.flags |= HEADER_FLAG_EMPTY;
    }
    bat_header_changed(bat, sync_next(&bat->syncer));
}

int close_for_writing(ploop_dev *dev)
{
    int error = block_round(dev);
    if (!error) {
        block_control(dev, stop_space_work);
        wait_for_rest(dev);
        block_control(dev, trim);
        wait_for_rest(dev);
        block_control(dev, clear_mark);
        error = block_round(dev);
    }
    if (error) {
        dev_log(dev, PLOOP_LOG_ERROR, 3, "not closed cleanly, the in-use mark stays (%s)",
                strerror(-error));
    }
    return error;
}

/* A failed page would be tried again by the clock: nothing reaches the backend from here on. */
static void end_work(ploop_dev *dev)
{
    for (uint32_t level = 0; level < dev->stack.count; level++) {
        channel_cut(&dev->stack.deltas[level]->channel);
    }
}

int ploop_dev_close(ploop_dev *dev)
{
    if (!dev) {
        return 0;
    }
    if (in_callback()) {
        return -EDEADLK;
    }
    block_control(dev, begin_closing);
    block_until(dev, is_quiet, NULL);
    block_control(dev, shut);
    block_until(dev, is_quiet, NULL);
    int error = dev->read_only ? 0 : close_for_writing(dev);
    block_control(dev, end_work);
    wait_for_rest(dev);
    dev_free(dev);
    return error;
}

static void begin_aborting(ploop_dev *dev)
{
    struct bat *bat = dev_bat(dev);
    dev->aborting = dev->closing = true;
    gate_follow(dev);
    sync_give_up(&bat->syncer, -ECANCELED);
    end_work(dev);
    dev->suspended = false;
    pio_restart_held(dev);
    space_fail_all(dev, -ECANCELED);
    bat_fail_waiters(bat, -ECANCELED);
}

void ploop_dev_abort(ploop_dev *dev)
{
    if (!dev || in_callback()) {
        return;
    }
    block_control(dev, begin_aborting);
    for (uint32_t level = 0; level < dev->stack.count; level++) {
        const struct ploop_file *file = dev->stack.deltas[level]->file;
        if (file->ops.cancel) {
            file->ops.cancel(file->context);
        }
    }
    block_until(dev, is_quiet, NULL);
    wait_for_rest(dev);
    dev_free(dev);
}
