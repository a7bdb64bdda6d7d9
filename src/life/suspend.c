/* SPDX-License-Identifier: MIT */
/*
 * Suspend and resume.
 *
 *     running -> gate closed: new requests are held, in order -> quiet: none in flight but those
 *     that wait for space, and a job pauses or waits for its commit -> flushed -> suspended -> held
 *     ones begun again, gate open -> running
 */
#include "life/life.h"
#include "life/rest.h"

#include <assert.h>
#include <errno.h>

static bool is_odd(uint64_t number)
{
    return number & 1;
}

/*
 * For a suspend, by its number: the wait ends once a resume has come, whatever came after that.
 */
static bool is_quiet_or_resumed(ploop_dev *dev, void *argument)
{
    const uint64_t *number = argument;
    return (dev_is_quiet(dev) && !atomic_load(&dev->job_moves)) ||
           atomic_load(&dev->suspends) != *number;
}

/*
 * In the turn: makes it so. However often it was changed before, the last one counts. A resume that
 * comes when a close or an abort has begun changes nothing.
 */
static void follow(ploop_dev *dev)
{
    bool wanted = is_odd(atomic_load(&dev->suspends));
    assert(dev->state != DEV_OPENING);
    if (wanted && dev->state == DEV_RUNNING) {
        dev_set_state(dev, DEV_SUSPENDED);
    } else if (!wanted && dev->state == DEV_SUSPENDED) {
        dev_set_state(dev, DEV_RUNNING);
    }
}

/* Ask for the next suspend, or resume. Its number; 0: that was asked for already. */
static uint64_t ask(ploop_dev *dev, bool suspended)
{
    uint64_t last = atomic_load(&dev->suspends);
    do {
        if (is_odd(last) == suspended) {
            return 0;
        }
    } while (!atomic_compare_exchange_weak(&dev->suspends, &last, last + 1));
    assert(is_odd(last + 1) == suspended);
    return last + 1;
}

int ploop_dev_suspend(ploop_dev *dev)
{
    if (in_callback()) {
        return -EDEADLK;
    }
    uint64_t number = ask(dev, true);
    if (!number) {
        return -EALREADY;
    }
    block_control(dev, follow);
    block_until(dev, is_quiet_or_resumed, &number);
    int error = dev->read_only ? 0 : block_round(dev);
    return atomic_load(&dev->suspends) == number ? error : -ECANCELED;
}

static void resume(struct work *work)
{
    ploop_dev *dev = container_of(work, ploop_dev, resume_work);
    atomic_store(&dev->resume_posted, false);
    follow(dev);
}

int ploop_dev_resume(ploop_dev *dev)
{
    if (!ask(dev, false)) {
        return -EINVAL;
    }
    if (!atomic_exchange(&dev->resume_posted, true)) {
        dev->resume_work.run = resume;
        turn_post(&dev->turn, &dev->resume_work);
    }
    return 0;
}
