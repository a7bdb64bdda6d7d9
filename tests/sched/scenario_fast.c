/* SPDX-License-Identifier: MIT */
/* The fast path against requests that take a cluster away from under it. */
#include "scenarios.h"

#include <errno.h>

#include "world.h"

/*
 * The thread that takes the cluster away has a separate queue: in a shared one it would wait for
 * the ring until the fast request has been sent.
 */
static ploop_queue *other_queue(void)
{
    return ploop_dev_queue(world->dev, 1);
}

static struct request *write_of(ploop_queue *queue, uint32_t cluster, uint32_t sector, char byte)
{
    return begin_write(queue, (uint64_t)cluster * CLUSTER + sector * SECTOR, SECTOR, byte, 0);
}

/* ---- the only host cluster moves from guest cluster 0 to guest cluster 1 ---- */

static void write_zero(void *unused)
{
    (void)unused;
    int result = end(write_of(world->queue, 0, 0, 'a'));
    if (result != -ENOSPC) {
        must_be(result, 0, "the write");
    }
}

static void move_cluster(void *unused)
{
    (void)unused;
    must_be(end(begin_discard(other_queue(), 0, CLUSTER)), 0, "discard");
    must_be(end(begin_flush(other_queue())), 0, "flush");
    int result = end(write_of(other_queue(), 1, 1, 'b'));
    if (result != -ENOSPC) {
        must_be(result, 0, "the other write");
    }
}

static void discard_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_INLINE, .mapped = 1, .full = true, .queue_count = 2});
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

static void read_zero(void *unused)
{
    (void)unused;
    struct request *request = begin_read(world->queue, SECTOR, SECTOR);
    must_be(end(request), 0, "the read");
    char byte = *(const char *)request->iov.iov_base;
    if (byte != 'm' && byte != 0) {
        sched_fail("a read shows '%c', which is another cluster's", byte);
    }
}

static void read_discard_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_DEVICE, .mapped = 1, .full = true, .queue_count = 2});
    sched_spawn("reader", read_zero, NULL, false);
    sched_spawn("discard", move_cluster, NULL, false);
}

static void read_discard_finish(void)
{
    world_is_quiet();
    expect(0, CLUSTER, '0', "the cluster that was discarded");
    expect_one_of(CLUSTER + SECTOR, SECTOR, "b0", "the cluster that was written");
}

const struct scenario read_discard = {
    .name = "read-discard",
    .about = "a fast read against a discard of its cluster, whose place another cluster then gets",
    .set_up = read_discard_set_up,
    .finish = read_discard_finish,
    .bound = 1,
    .random = 5000,
};

/* ---- copy on write ---- */

static void write_and_read(void *argument)
{
    uint32_t sector = (uint32_t)(uintptr_t)argument;
    ploop_queue *queue = ploop_dev_queue(world->dev, sector);
    char byte = (char)('a' + sector);
    must_be(end(write_of(queue, 0, sector, byte)), 0, "the write");
    struct request *request = begin_read(queue, (uint64_t)sector * SECTOR, SECTOR);
    must_be(end(request), 0, "the read");
    must_be(*(const char *)request->iov.iov_base, byte, "what was written before");
}

static void copy_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_DEVICE, .lower = 1, .queue_count = 2});
    sched_spawn("first", write_and_read, (void *)(uintptr_t)0, false);
    sched_spawn("second", write_and_read, (void *)(uintptr_t)1, false);
}

static void copy_finish(void)
{
    world_is_quiet();
    expect(0, SECTOR, 'a', "the first write");
    expect(SECTOR, SECTOR, 'b', "the second write");
    expect(2 * SECTOR, CLUSTER - 2 * SECTOR, 'l', "what was copied");
}

const struct scenario fast_copy = {
    .name = "fast-copy",
    .about = "two threads write to a cluster of the delta below, and read it again",
    .set_up = copy_set_up,
    .finish = copy_finish,
    .bound = 1,
    .random = 5000,
};
