/* SPDX-License-Identifier: MIT */
/*
 * Fast reads of what lies in a lower delta: such a request moves from the lane of the top's channel
 * to that of the lower one.
 */
#include "scenarios.h"

#include "world.h"

static void read_below(void *unused)
{
    (void)unused;
    struct request *request = begin_read(world->queue, 0, SECTOR);
    must_be(end(request), 0, "the read");
    must_be(*(const char *)request->iov.iov_base, 'l', "what is below");
}

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
