/* SPDX-License-Identifier: MIT */
/*
 * Suspend and resume.
 *
 *     running -> gate closed: new requests are held, in order -> quiet: none in flight but those that wait for space ->
 *     flushed -> suspended -> held ones begun again, gate open -> running
 */
#include "dev/dev.h"

#include <errno.h>

bool dev_is_quiet(ploop_dev *dev)
{
    uint64_t in_flight = 0;
    for (uint32_t i = 0; i < dev->queue_count; i++) {
        in_flight += atomic_load(&dev->queues[i].in_flight);
    }
    return in_flight == atomic_load(&dev->stuck_count);
}

static bool is_quiet(ploop_dev *dev, void *argument)
{
    (void)argument;
    return dev_is_quiet(dev);
}

static void hold(ploop_dev *dev)
{
    dev->suspended = true;
    atomic_store(&dev->gate, true);
}

int ploop_dev_suspend(ploop_dev *dev)
{
    if (in_callback()) {
        return -EDEADLK;
    }
    if (atomic_exchange(&dev->suspend_asked, true)) {
        return -EALREADY;
    }
    block_control(dev, hold);
    block_until(dev, is_quiet, NULL);
    return dev->read_only ? 0 : block_round(dev);
}

static void let_go(struct work *work)
{
    ploop_dev *dev = container_of(work, ploop_dev, control_work);
    dev->suspended = false;
    pio_restart_held(dev);
    atomic_store(&dev->gate, false);
}

int ploop_dev_resume(ploop_dev *dev)
{
    if (!atomic_exchange(&dev->suspend_asked, false)) {
        return -EINVAL;
    }
    dev->control_work.run = let_go;
    turn_post(&dev->turn, &dev->control_work);
    return 0;
}
