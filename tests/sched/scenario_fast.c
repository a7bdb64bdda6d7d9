/* SPDX-License-Identifier: MIT */
/* The fast path against what takes a cluster away from under it. */
#include "scenarios.h"

#include <errno.h>

#include "world.h"

static struct request *write_of(uint32_t cluster, uint32_t sector, char byte)
{
    return begin_write(world->queue, (uint64_t)cluster * CLUSTER + sector * SECTOR, SECTOR, byte, 0);
}

/* ---- the only host cluster there is goes from guest cluster 0 to guest cluster 1 ---- */

static void write_zero(void *unused)
{
    (void)unused;
    int result = end(write_of(0, 0, 'a'));
    if (result != -ENOSPC) {
        must_be(result, 0, "the write");
    }
}

static void move_cluster(void *unused)
{
    (void)unused;
    must_be(end(begin_discard(world->queue, 0, CLUSTER)), 0, "discard");
    must_be(end(begin_flush(world->queue)), 0, "flush");
    int result = end(write_of(1, 1, 'b'));
    if (result != -ENOSPC) {
        must_be(result, 0, "the other write");
    }
}

static void discard_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_INLINE, .mapped = 1, .full = true});
    sched_spawn("writer", write_zero, NULL, false);
    sched_spawn("discard", move_cluster, NULL, false);
}

static void discard_finish(void)
{
    world_is_quiet();
    expect_one_of(0, SECTOR, "a0", "the cluster that was discarded");
    expect(SECTOR, CLUSTER - SECTOR, '0', "the rest of it");
    expect_one_of(CLUSTER + SECTOR, SECTOR, "b0", "the cluster that was written");
    expect(CLUSTER, SECTOR, '0', "what is before it");
    expect(CLUSTER + 2 * SECTOR, CLUSTER - 2 * SECTOR, '0', "what is behind it");
}

const struct scenario fast_discard = {
    .name = "fast-discard",
    .about = "a fast write against a discard of its cluster, whose place another cluster then gets",
    .set_up = discard_set_up,
    .finish = discard_finish,
    .bound = 2,
    .random = 1000,
};
