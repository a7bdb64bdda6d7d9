/* SPDX-License-Identifier: MIT */
/*
 * Runners: threads submit and do nothing else, and a thread of the library does the rest. Nobody
 * wakes it but the library: a lost ring leaves a fiber that waits for ever.
 */
#include "scenarios.h"

#include "world.h"

static bool is_called_back(void *argument)
{
    const struct request *request = argument;
    return request->calls > 0;
}

static void wait_for(struct request *request)
{
    sched_wait(HERE, "waits for the callback", is_called_back, request, 0);
    must_be(request->result, 0, "a request");
}

/* On the fast path, twice: for the second time the runner may be about to sleep. */
static void write_mapped_twice(void *unused)
{
    (void)unused;
    wait_for(begin_write(world->queue, 0, SECTOR, 'a', 0));
    wait_for(begin_write(world->queue, 0, SECTOR, 'c', 0));
}

static void write_new(void *unused)
{
    (void)unused;
    wait_for(begin_write(ploop_dev_queue(world->dev, 1), 3 * CLUSTER, SECTOR, 'b', 0));
}

static void write_mapped(void *unused)
{
    (void)unused;
    wait_for(begin_write(ploop_dev_queue(world->dev, 1), CLUSTER, SECTOR, 'b', 0));
}

static void device_set_up(void)
{
    world_open(&(struct plan){
        .mode = DISK_DEVICE, .mapped = 2, .queue_count = 2, .runner_count = 1, .no_wake_at = true});
    sched_spawn("one", write_mapped_twice, NULL, false);
    sched_spawn("two", write_mapped, NULL, false);
}

static void device_finish(void)
{
    world_is_quiet();
    expect(0, SECTOR, 'c', "the writes of one queue");
    expect(CLUSTER, SECTOR, 'b', "the write of the other");
}

static void reap_set_up(void)
{
    world_open(&(struct plan){
        .mode = DISK_REAP, .mapped = 1, .queue_count = 2, .runner_count = 1, .no_wake_at = true});
    sched_spawn("one", write_mapped_twice, NULL, false);
    sched_spawn("two", write_new, NULL, false);
}

static void writes_finish(void)
{
    world_is_quiet();
    expect(0, SECTOR, 'c', "the fast writes");
    expect(3 * CLUSTER, SECTOR, 'b', "the other write");
}

const struct scenario runner_device = {
    .name = "runner-device",
    .about = "a runner over a backend that completes on a thread of its own: no ring is lost",
    .set_up = device_set_up,
    .finish = device_finish,
    .bound = 1,
    .random = 5000,
    .may_expire = true,
};

const struct scenario runner_reap = {
    .name = "runner-reap",
    .about = "a runner of two queues, which reaps their rings and the engine's",
    .set_up = reap_set_up,
    .finish = writes_finish,
    .bound = 1,
    .random = 5000,
    .may_expire = true,
};

/* ---- bulk work ---- */

static void write_below(void *unused)
{
    (void)unused;
    wait_for(begin_write(world->queue, 0, SECTOR, 'a', 0));
}

static void copy_set_up(void)
{
    world_open(
        &(struct plan){.mode = DISK_INLINE, .lower = 1, .runner_count = 1, .no_wake_at = true});
    sched_spawn("one", write_below, NULL, false);
}

static void copy_finish(void)
{
    world_is_quiet();
    expect(0, SECTOR, 'a', "what was written");
    expect(SECTOR, CLUSTER - SECTOR, 'l', "what was copied");
}

const struct scenario runner_copy = {
    .name = "runner-copy",
    .about = "a copy from a lower delta: the thread that submits leaves the bulk work to a runner",
    .set_up = copy_set_up,
    .finish = copy_finish,
    .bound = 2,
    .random = 5000,
    .may_expire = true,
};
