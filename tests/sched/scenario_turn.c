/* SPDX-License-Identifier: MIT */
/* The turn: work that two threads bring at the same time. */
#include "scenarios.h"

#include "world.h"

static void write_new(void *argument)
{
    uint64_t cluster = (uint64_t)(uintptr_t)argument;
    must_be(end(begin_write(world->queue, cluster * CLUSTER, CLUSTER, (char)('a' + cluster), 0)), 0, "a write");
}

static void two_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_INLINE});
    sched_spawn("first", write_new, (void *)(uintptr_t)0, false);
    sched_spawn("second", write_new, (void *)(uintptr_t)1, false);
}

static void two_finish(void)
{
    world_is_quiet();
    expect(0, CLUSTER, 'a', "the first cluster");
    expect(CLUSTER, CLUSTER, 'b', "the second cluster");
}

const struct scenario two_submitters = {
    .name = "two-submitters",
    .about = "two threads write to new clusters and sleep: one of them does the work of both",
    .set_up = two_set_up,
    .finish = two_finish,
    .bound = 2,
    .random = 1000,
};
