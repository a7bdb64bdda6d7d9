/* SPDX-License-Identifier: MIT */
/*
 * Suspend and resume.
 *
 *     running -> gate closed: new requests are held, in order -> quiet: none in flight but those
 *     that wait for space, and a job pauses or waits for its commit -> flushed -> suspended -> held
 *     ones begun again, gate open -> running
 *
 * A suspension is a suspend that no thread waits for. Its steps are the turn's:
 *
 *     asked for -> draining: the gate is closed -> flushing: a round -> ended -> told, by queue 0
 *         draining -> ended, where a resume, a close or an abort came
 *
 *  1. The gate is closed in the turn: before the call returns, unless another thread has the turn.
 *     Then the fast path may take requests that come after the call; they are in a lane, and the
 *     suspension drains those too.
 *  2. While it drains, who leaves a lane of any delta posts a run, and the turn looks again. The
 *     lanes are marked before they are counted. Several may drain, of which a resume has ended all
 *     but one: the older ones are looked at first, and the last to look marks the lanes.
 *  3. It is counted in dev->suspensions until it was pushed to queue 0: a close or an abort waits
 *     for it, and delivers it.
 */
#include "life/life.h"
#include "life/rest.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

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

/* How a suspend ends whose flush ended so. */
static int result_of(const ploop_dev *dev, uint64_t number, int flushed)
{
    return atomic_load(&dev->suspends) == number ? flushed : -ECANCELED;
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
    return result_of(dev, number, error);
}

/* ---- without a thread that waits ---- */

struct suspension {
    ploop_dev *dev;
    uint64_t number;
    ploop_dev_fn *fn; /* NULL: it is reaped */
    void *user_data;
    struct work begin;
    struct dev_watch watch; /* while it drains */
    struct round_wait round;
    ploop_pio pio; /* to queue 0: it is never submitted */
    struct notice notice;
};

static void suspension_reaped(struct notice *notice)
{
    free(container_of(notice, struct suspension, notice));
}

static void suspension_told(ploop_pio *pio, int result, void *user_data)
{
    struct suspension *suspension = user_data;
    assert(pio == &suspension->pio);
    (void)pio;
    if (suspension->fn) {
        suspension->fn(suspension->dev, result, suspension->user_data);
        free(suspension);
        return;
    }
    suspension->notice = (struct notice){
        .completion = {.user_data = suspension->user_data,
                       .result = result,
                       .kind = PLOOP_COMPLETION_SUSPENDED},
        .reaped = suspension_reaped,
    };
    queue_keep(&suspension->dev->queues[0], &suspension->notice);
}

/* In the turn; nothing of it is looked at after this but by who delivers. */
static void suspension_end(struct suspension *suspension, int result)
{
    ploop_dev *dev = suspension->dev;
    assert(result <= 0 && atomic_load(&dev->suspensions) > 0);
    suspension->pio.result = result;
    queue_push(&dev->queues[0], &suspension->pio);
    atomic_fetch_sub(&dev->suspensions, 1);
    dev_wake(dev);
}

static void suspension_flushed(struct round_wait *wait, int result)
{
    struct suspension *suspension = container_of(wait, struct suspension, round);
    suspension_end(suspension, result_of(suspension->dev, suspension->number, result));
}

static void drain(ploop_dev *dev, bool drains)
{
    uint32_t slot = 0;
    for (struct delta *delta; (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        channel_drain(&delta->channel, CHANNEL_DRAIN_SUSPEND, drains);
    }
}

static void suspension_look(struct dev_watch *watch)
{
    struct suspension *suspension = container_of(watch, struct suspension, watch);
    ploop_dev *dev = suspension->dev;
    bool is_over = dev->state != DEV_SUSPENDED || atomic_load(&dev->suspends) != suspension->number;
    drain(dev, true);
    if (!is_over && !is_quiet_or_resumed(dev, &suspension->number)) {
        watch->polls = atomic_load(&dev->reaps) || atomic_load(&dev->job_moves);
        return;
    }
    drain(dev, false);
    list_remove(&watch->link);
    if (is_over) {
        suspension_end(suspension, -ECANCELED);
    } else if (dev->read_only) {
        suspension_end(suspension, 0);
    } else {
        bat_join_round(dev_bat(dev), &suspension->round, suspension_flushed);
    }
}

static void suspension_begin(struct work *work)
{
    struct suspension *suspension = container_of(work, struct suspension, begin);
    ploop_dev *dev = suspension->dev;
    follow(dev);
    suspension->watch.look = suspension_look;
    list_append(&dev->watches, &suspension->watch.link);
}

int ploop_dev_suspend_start(ploop_dev *dev, ploop_dev_fn *fn, void *user_data)
{
    if (!fn && dev->config.runner_count) {
        return -EINVAL;
    }
    struct suspension *suspension = calloc(1, sizeof(*suspension));
    if (!suspension) {
        return -ENOMEM;
    }
    suspension->number = ask(dev, true);
    if (!suspension->number) {
        free(suspension);
        return -EALREADY;
    }
    suspension->dev = dev;
    suspension->fn = fn;
    suspension->user_data = user_data;
    pio_init(&suspension->pio, &dev->queues[0]);
    suspension->pio.callback = suspension_told;
    suspension->pio.user_data = suspension;
    suspension->begin.run = suspension_begin;
    atomic_fetch_add(&dev->suspensions, 1);
    turn_post(&dev->turn, &suspension->begin);
    return 0;
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
