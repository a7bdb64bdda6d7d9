/* SPDX-License-Identifier: MIT */
/*
 * Closing and leaving.
 *
 *     close: a job ends -> no request waits for space any more -> quiet -> shut: what comes now
 *            ends with -ECANCELED -> the in-use mark cleared (mark.c) -> at rest (rest.c) -> freed
 *     abort: the gate closed, the channels cut, every wait ended with -ECANCELED -> at rest ->
 *            freed
 */
#include "engine/runner.h"
#include "life/life.h"
#include "life/mark.h"
#include "life/rest.h"

#include <assert.h>
#include <errno.h>

static void begin_closing(ploop_dev *dev)
{
    dev_set_state(dev, DEV_CLOSING);
    space_fail_all(dev, -ENOSPC);
    assert(list_is_empty(&dev->parked));
}

static void shut(ploop_dev *dev)
{
    dev_set_state(dev, DEV_CLOSED);
}

/* A failed page would be tried again by the clock: nothing reaches the backend from here on. */
static void end_work(ploop_dev *dev)
{
    assert(gate_has(dev, GATE_ENDS));
    uint32_t slot = 0;
    for (struct delta *delta; (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        channel_cut(&delta->channel);
    }
}

/* A job that begins looks at jobs_end after it has become the device's: one of the two is seen. */
static void end_jobs(ploop_dev *dev)
{
    atomic_store(&dev->jobs_end, true);
    void (*end)(ploop_dev *) = atomic_load(&dev->end_jobs);
    if (end) {
        end(dev);
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
    help_begin(dev);
    end_jobs(dev);
    block_control(dev, begin_closing);
    dev_wait_until_quiet(dev);
    block_control(dev, shut);
    dev_wait_until_quiet(dev);
    int error = dev->read_only ? 0 : mark_clear(dev);
    block_control(dev, end_work);
    dev_wait_for_rest(dev);
    runners_stop(dev);
    help_end(dev);
    assert_nothing_left(dev);
    dev_free(dev);
    return error;
}

/* Those that a job has in hand, which ends by their failure. */
static void end_joining(ploop_dev *dev)
{
    uint32_t slot = 0;
    for (struct delta *delta; (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        if (delta->level == STACK_NO_LEVEL && delta->bat) {
            sync_give_up(&delta->bat->syncer, -ECANCELED);
            bat_fail_waiters(delta->bat, -ECANCELED);
        }
    }
}

static void begin_aborting(ploop_dev *dev)
{
    struct bat *bat = dev_bat(dev);
    dev_set_state(dev, DEV_ABORTING);
    sync_give_up(&bat->syncer, -ECANCELED);
    end_work(dev);
    space_fail_all(dev, -ECANCELED);
    partial_fail_waits(dev, -ECANCELED);
    bat_fail_waiters(bat, -ECANCELED);
    end_joining(dev);
    assert(list_is_empty(&dev->parked) && list_is_empty(&dev->held));
}

void ploop_dev_abort(ploop_dev *dev)
{
    if (!dev || in_callback()) {
        return;
    }
    atomic_store(&dev->jobs_end, true); /* none begins any more */
    block_control(dev, begin_aborting);
    uint32_t slot = 0;
    for (struct delta *delta; (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        const struct ploop_file *file = delta->file;
        if (file->ops.cancel && delta_use(delta)) { /* a job's new top may leave just now */
            file->ops.cancel(file->context);
            delta_unuse(delta);
        }
    }
    dev_wait_until_quiet(dev);
    dev_wait_for_rest(dev);
    end_jobs(dev);
    runners_stop(dev);
    assert_nothing_left(dev);
    dev_free(dev);
}
