/* SPDX-License-Identifier: MIT */
/*
 * What suspend, close and abort wait for.
 *
 *     quiet     no request is in flight, but those that wait for space with all their parts
 *     at rest   quiet, and nothing is at a backend or on its way there, and no other thread is
 *               inside the turn: the device may be freed
 */
#include "life/rest.h"

#include "life/life.h"

#include <assert.h>

/*
 * In the order in which a request may move: from the top's lane to that of a lower delta, and from
 * a lane to the engine.
 */
bool dev_is_quiet(ploop_dev *dev)
{
    const struct delta *top = dev_top(dev);
    uint64_t in_flight = channel_in_lanes(&top->channel);
    uint32_t slot = 0;
    for (const struct delta *delta; (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        in_flight += delta == top ? 0 : channel_in_lanes(&delta->channel);
    }
    for (uint32_t i = 0; i <= dev->queue_count; i++) {
        in_flight += atomic_load(&dev->queues[i].in_flight);
    }
    return in_flight == atomic_load(&dev->stuck_count);
}

/* How many requests were ever submitted. */
static uint64_t submitted(const ploop_dev *dev)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i <= dev->queue_count; i++) {
        for (uint32_t op = 0; op < PIO_KINDS; op++) {
            count += queue_requests(&dev->queues[i], op);
        }
    }
    return count;
}

/*
 * Nothing in flight, no suspend that goes on, and nothing to deliver. A callback, on a runner or
 * delivered here, may submit again, to any queue, also to one that was looked at before. So it is
 * only quiet where nothing was submitted during the look: a callback counts what it submits before
 * it ends.
 */
static bool is_quiet(ploop_dev *dev, void *argument)
{
    (void)argument;
    uint64_t before = submitted(dev);
    int delivered = 0;
    help_kick(dev); /* a callback may take long */
    for (uint32_t i = 0; i < dev->queue_count && dev->config.runner_count == 0; i++) {
        delivered += queue_deliver(&dev->queues[i], NULL);
    }
    if (delivered || !dev_is_quiet(dev) || atomic_load(&dev->suspensions)) {
        return false;
    }
    for (uint32_t i = 0; i < dev->queue_count; i++) {
        if (!inbox_is_empty(&dev->queues[i].done) || atomic_load(&dev->queues[i].delivering)) {
            return false;
        }
    }
    return submitted(dev) == before;
}

void dev_wait_until_quiet(ploop_dev *dev)
{
    assert(!in_callback());
    block_until(dev, is_quiet, NULL);
}

void assert_nothing_left(const ploop_dev *dev)
{
    (void)dev;
    assert(dev->state == DEV_CLOSED || dev->state == DEV_ABORTING);
    assert(list_is_empty(&dev->held) && list_is_empty(&dev->later));
    assert(list_is_empty(&dev->parked) && list_is_empty(&dev->part_waiters));
    assert(list_is_empty(&dev->cow_waiters) && dev->parked_count == 0);
    assert(bounces_are_idle(&dev->bounces));
    for (uint32_t i = 0; i < RESERVATION_HASH; i++) {
        assert(list_is_empty(&dev->reservation_hash[i]));
    }
    for (uint32_t i = 0; i < LOCK_COUNT; i++) {
        assert(list_is_empty(&dev->locks[i].waiters) && !dev->locks[i].held_exclusive);
    }
    for (uint32_t i = 0; i < PARTS_MAX; i++) {
        assert(dev->parts[i].state == PART_IDLE && !dev->parts[i].pio);
    }
}

/* Only the owner of the turn may look; it leaves what it saw. */
static void look_for_rest(ploop_dev *dev)
{
    dev->at_rest = bat_is_idle(dev_bat(dev)) && partial_is_idle(dev) && !atomic_load(&dev->job);
    uint32_t slot = 0;
    for (const struct delta *delta; (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        dev->at_rest &= channel_is_idle(&delta->channel);
    }
}

static bool no_thread_inside(ploop_dev *dev, void *argument)
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

void dev_wait_for_rest(ploop_dev *dev)
{
    assert(!in_callback());
    for (;;) {
        block_control(dev, look_for_rest);
        if (dev->at_rest) {
            break;
        }
        bool asked = false;
        block_until(dev, never_yet, &asked);
    }
    block_until(dev, no_thread_inside, NULL);
}
