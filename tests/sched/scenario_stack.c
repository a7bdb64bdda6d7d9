/* SPDX-License-Identifier: MIT */
/*
 * Requests that move: a fast read of what lies in a lower delta goes from the lane of the top's
 * channel to that of the lower one, and one that the backend refuses from a lane to the engine.
 */
#include "scenarios.h"

#include <stdlib.h>

#include "dev/dev.h"
#include "life/rest.h"
#include "pio/queue.h"
#include "world.h"

static void read_below(void *unused)
{
    (void)unused;
    struct request *request = begin_read(world->queue, 0, SECTOR);
    must_be(end(request), 0, "the read");
    must_be(*(const char *)request->iov.iov_base, 'l', "what is below");
}

/* ---- against a look ---- */

static bool *looked;

static bool is_counted(void *unused)
{
    (void)unused;
    const struct ploop_dev *dev = world->dev;
    bool counted = dev->queues[0].in_flight > 0;
    uint32_t slot = 0;
    for (const struct delta *delta; (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        counted |= delta->channel.lanes[0].word > 0;
    }
    return counted;
}

static bool has_looked(void *unused)
{
    (void)unused;
    return *looked;
}

/* Nothing completes the request before the look is over: whatever way it takes, it is counted. */
static void look(void *unused)
{
    sched_wait(HERE, "waits for the request", is_counted, unused, 0);
    if (dev_is_quiet(world->dev)) {
        sched_fail("a request is missed between two places where it is counted");
    }
    *looked = true;
}

static void request_below(void *unused)
{
    struct request *request = begin_read(world->queue, 0, SECTOR);
    sched_wait(HERE, "waits for the look", has_looked, unused, 0);
    must_be(end(request), 0, "the read");
}

static void request_refused(void *unused)
{
    struct request *request = begin_write(world->queue, CLUSTER, SECTOR, 'a', 0);
    sched_wait(HERE, "waits for the look", has_looked, unused, 0);
    must_be(end(request), 0, "the write");
}

static void look_below_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_REAP, .lower = 1});
    looked = calloc(1, sizeof(*looked));
    sched_spawn("request", request_below, NULL, false);
    sched_spawn("look", look, NULL, false);
}

static void look_refused_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_REAP, .mapped = 2});
    world->disk.refusals = 1;
    looked = calloc(1, sizeof(*looked));
    sched_spawn("request", request_refused, NULL, false);
    sched_spawn("look", look, NULL, false);
}

const struct scenario look_below = {
    .name = "look-below",
    .about = "a look whether the device is quiet, while a fast read goes on to a lower delta",
    .set_up = look_below_set_up,
    .finish = world_is_quiet,
    .bound = 2,
    .random = 1000,
};

const struct scenario look_refused = {
    .name = "look-refused",
    .about = "a look whether the device is quiet, while the engine adopts a refused fast write",
    .set_up = look_refused_set_up,
    .finish = world_is_quiet,
    .bound = 2,
    .random = 1000,
};

/* ---- against a suspend ---- */

static void suspend_and_resume(void *unused)
{
    (void)unused;
    must_be(ploop_dev_suspend(world->dev), 0, "suspend");
    must_be((int)world->below.held_count, 0, "reads at the backend of a suspended device");
    world->disk.shut = world->below.shut = true;
    sched_point(HERE, "suspended", &world->below, true);
    world->disk.shut = world->below.shut = false;
    must_be(ploop_dev_resume(world->dev), 0, "resume");
}

static void suspend_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_DEVICE, .lower = 1});
    sched_spawn("reader", read_below, NULL, false);
    sched_spawn("suspend", suspend_and_resume, NULL, false);
}

const struct scenario stack_suspend = {
    .name = "stack-suspend",
    .about = "a fast read of a lower delta against a suspend: it is not missed between two lanes",
    .set_up = suspend_set_up,
    .finish = world_is_quiet,
    .bound = 1,
    .random = 3000,
    .may_expire = true, /* a fast completion wakes no waiter */
};

/* ---- while the top has no room ---- */

static void write_top(void *unused)
{
    (void)unused;
    ploop_queue *queue = ploop_dev_queue(world->dev, 1);
    must_be(end(begin_write(queue, 2 * CLUSTER, SECTOR, 'a', 0)), 0, "the write");
}

static void full_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_DEVICE, .lower = 1, .queue_count = 2});
    world->disk.refusals = 1;
    sched_spawn("writer", write_top, NULL, false);
    sched_spawn("reader", read_below, NULL, false);
}

static void full_finish(void)
{
    world_is_quiet();
    expect(2 * CLUSTER, SECTOR, 'a', "what was written");
}

const struct scenario stack_full = {
    .name = "stack-full",
    .about = "a refused write waits for what a fast read of a lower delta seems to have at the top",
    .set_up = full_set_up,
    .finish = full_finish,
    .bound = 1,
    .random = 3000,
};
