/* SPDX-License-Identifier: MIT */
/*
 * A cluster of the delta below whose copy is put off: its first sector is written, and durable is
 * nothing of it yet. Then two threads meet there.
 */
#include "scenarios.h"

#include <stdlib.h>

#include "world.h"

static bool *written;

static bool is_written(void *unused)
{
    (void)unused;
    return *written;
}

static ploop_queue *other_queue(void)
{
    return ploop_dev_queue(world->dev, 1);
}

static void write_sectors(uint32_t first, uint32_t count, char byte)
{
    must_be(end(begin_write(world->queue, first * SECTOR, count * SECTOR, byte, 0)), 0,
            "the write");
}

static void set_up(fiber_fn *writer, fiber_fn *other)
{
    world_open(&(struct plan){
        .mode = DISK_DEVICE, .lower = 1, .queue_count = 2, .cow_delay_ns = UINT64_MAX});
    written = calloc(1, sizeof(*written));
    sched_spawn("writer", writer, NULL, false);
    sched_spawn("other", other, NULL, false);
}

/* ---- a read, while the cluster is filled ---- */

static void write_all(void *unused)
{
    (void)unused;
    write_sectors(0, 1, 'a');
    *written = true;
    sched_point(HERE, "written", written, true);
    write_sectors(1, CLUSTER / SECTOR - 1, 'b');
}

static void read_first(void *unused)
{
    sched_wait(HERE, "waits for the write", is_written, unused, 0);
    struct request *request = begin_read(other_queue(), 0, SECTOR);
    must_be(end(request), 0, "the read");
    must_be(*(const char *)request->iov.iov_base, 'a', "what was written before");
}

static void read_set_up(void)
{
    set_up(write_all, read_first);
}

static void read_finish(void)
{
    world_is_quiet();
    expect(0, SECTOR, 'a', "the first write");
    expect(SECTOR, CLUSTER - SECTOR, 'b', "the second write");
}

const struct scenario partial_read = {
    .name = "partial-read",
    .about = "a read of what was written to a partial cluster, while the guest fills the cluster",
    .set_up = read_set_up,
    .finish = read_finish,
    .bound = 1,
    .random = 3000,
};

/* ---- a second writer, and a flush ---- */

static void write_two(void *unused)
{
    (void)unused;
    write_sectors(0, 1, 'a');
    write_sectors(2, 1, 'b');
}

static void write_and_flush(void *unused)
{
    (void)unused;
    must_be(end(begin_write(other_queue(), 4 * SECTOR, SECTOR, 'c', 0)), 0, "the other write");
    must_be(end(begin_flush(other_queue())), 0, "the flush");
}

static void flush_set_up(void)
{
    set_up(write_two, write_and_flush);
}

static void two_finish(void)
{
    world_is_quiet();
    expect(0, SECTOR, 'a', "the first write");
    expect(SECTOR, SECTOR, 'l', "what is below");
    expect(2 * SECTOR, SECTOR, 'b', "the second write");
    expect(3 * SECTOR, SECTOR, 'l', "what is below");
    expect_one_of(4 * SECTOR, SECTOR, "cl", "the other write");
    expect(5 * SECTOR, CLUSTER - 5 * SECTOR, 'l', "what is below");
}

const struct scenario partial_flush = {
    .name = "partial-flush",
    .about = "two threads write to a cluster of the delta below, and one flushes",
    .set_up = flush_set_up,
    .finish = two_finish,
    .bound = 1,
    .random = 2000,
};

/* ---- a discard ---- */

static void discard(void *unused)
{
    (void)unused;
    must_be(end(begin_discard(other_queue(), 0, CLUSTER)), 0, "the discard");
    struct request *request = begin_read(other_queue(), SECTOR, SECTOR);
    must_be(end(request), 0, "the read");
    must_be(*(const char *)request->iov.iov_base, 'l', "what is below");
}

static void discard_set_up(void)
{
    set_up(write_two, discard);
}

const struct scenario partial_discard = {
    .name = "partial-discard",
    .about = "writes to a partial cluster against a discard of it, and a read",
    .set_up = discard_set_up,
    .finish = two_finish,
    .bound = 1,
    .random = 2000,
};

/* ---- a suspend ---- */

static void suspend_and_resume(void *unused)
{
    (void)unused;
    must_be(ploop_dev_suspend(world->dev), 0, "suspend");
    world->disk.shut = world->below.shut = true;
    sched_point(HERE, "suspended", &world->below, true);
    world->disk.shut = world->below.shut = false;
    must_be(ploop_dev_resume(world->dev), 0, "resume");
}

static void suspend_set_up(void)
{
    set_up(write_two, suspend_and_resume);
}

const struct scenario partial_suspend = {
    .name = "partial-suspend",
    .about = "writes to a partial cluster against a suspend, which completes it",
    .set_up = suspend_set_up,
    .finish = two_finish,
    .bound = 1,
    .random = 2000,
    .may_expire = true, /* a fast completion wakes no waiter */
};
