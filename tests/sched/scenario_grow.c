/* SPDX-License-Identifier: MIT */
/*
 * The disk becomes larger, against requests, a suspend and a close on other threads. The longer BAT
 * takes the place of the first cluster, which moves while it is used.
 */
#include "scenarios.h"

#include <errno.h>
#include <stdlib.h>

#include <ploop/ops.h>

#include "live/job.h"
#include "world.h"

/* More entries than fit into the one page that the BAT has at first. */
enum { GROWN_CLUSTERS = 1100, SECTORS_WRITTEN = 7 };

static const uint64_t old_size = (uint64_t)DISK_CLUSTERS * CLUSTER;
static const uint64_t grown_size = (uint64_t)GROWN_CLUSTERS * CLUSTER;

static bool *over; /* the job of grow() */

static uint64_t disk_size(void)
{
    struct ploop_dev_info info = {.size = sizeof(info)};
    must_be(ploop_dev_info(world->dev, &info), 0, "the device's information");
    return info.disk_size;
}

static void grow(void *unused)
{
    ploop_job *job;
    (void)unused;
    must_be(ploop_dev_grow(world->dev, grown_size, NULL, NULL, &job), 0, "a grow");
    must_be(ploop_job_wait(job), 0, "the job");
    *over = true;
    must_be(ploop_job_free(job), 0, "the handle");
    must_be(disk_size() == grown_size, true, "the new size");
    must_be(end(begin_write(world->queue, grown_size - CLUSTER, SECTOR, 'n', 0)), 0,
            "a write to the new part");
}

static void set_up(const char *name, fiber_fn *beside)
{
    sched_let_memory_grow();
    world_open(&(struct plan){.mode = DISK_DEVICE, .mapped = 2, .queue_count = 2});
    over = calloc(1, sizeof(*over));
    sched_spawn("grow", grow, NULL, false);
    sched_spawn(name, beside, NULL, false);
}

static void expect_grown(void)
{
    world_is_quiet();
    expect(CLUSTER, CLUSTER, 'm', "what was there");
    expect(old_size - CLUSTER, 2 * CLUSTER, '0', "what nobody has written");
    expect(grown_size - CLUSTER, SECTOR, 'n', "what was written to the new part");
    expect(grown_size - CLUSTER + SECTOR, CLUSTER - SECTOR, '0', "the rest of that cluster");
}

/* ---- beside requests ---- */

static ploop_queue *other_queue(void)
{
    return ploop_dev_queue(world->dev, 1);
}

static bool moves_or_is_over(void *unused)
{
    const ploop_job *job = world->dev->job;
    (void)unused;
    return job ? job->step == PLOOP_JOB_STEP_MOVE : *over;
}

/*
 * Some before the cluster moves, the others then. Each to a sector of its own, so that none hides
 * that another was lost.
 */
static void write_often(void *unused)
{
    (void)unused;
    for (uint64_t i = 0; i < SECTORS_WRITTEN; i++) {
        if (i == 1) {
            sched_wait(HERE, "waits for the move", moves_or_is_over, NULL, 0);
        }
        must_be(end(begin_write(other_queue(), i * SECTOR, SECTOR, 'a', 0)), 0, "a write");
    }
}

static void write_set_up(void)
{
    set_up("writer", write_often);
}

static void write_finish(void)
{
    expect_grown();
    expect(0, SECTORS_WRITTEN * SECTOR, 'a', "what was written");
    expect(SECTORS_WRITTEN * SECTOR, CLUSTER - SECTORS_WRITTEN * SECTOR, 'm', "what was there");
}

const struct scenario grow_write = {
    .name = "grow-write",
    .about = "a disk grows while another thread writes to the cluster that moves",
    .set_up = write_set_up,
    .finish = write_finish,
    .bound = 0,
    .random = 3000,
    .may_expire = true,
};

static void read_twice(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < 2; i++) {
        struct request *request = begin_read(other_queue(), 0, SECTOR);
        must_be(end(request), 0, "a read");
        must_be(*(const char *)request->iov.iov_base, 'm', "what was there");
        if (disk_size() == grown_size) {
            struct request *behind = begin_read(other_queue(), old_size, SECTOR);
            must_be(end(behind), 0, "a read of the new part");
            must_be(*(const char *)behind->iov.iov_base, 0, "what nobody has written");
        }
    }
}

static void read_set_up(void)
{
    set_up("reader", read_twice);
}

static void read_finish(void)
{
    expect_grown();
    expect(0, CLUSTER, 'm', "what was there");
}

const struct scenario grow_read = {
    .name = "grow-read",
    .about = "a disk grows while another thread reads the cluster that moves, and behind the end",
    .set_up = read_set_up,
    .finish = read_finish,
    .bound = 0,
    .random = 3000,
    .may_expire = true,
};

static void discard_and_write(void *unused)
{
    (void)unused;
    must_be(end(begin_discard(other_queue(), 0, CLUSTER)), 0, "a discard");
    must_be(end(begin_write(other_queue(), 0, SECTOR, 'c', 0)), 0, "a write");
}

static void discard_set_up(void)
{
    set_up("discard", discard_and_write);
}

static void discard_finish(void)
{
    expect_grown();
    expect(0, SECTOR, 'c', "what was written");
    expect(SECTOR, CLUSTER - SECTOR, '0', "what was discarded");
}

const struct scenario grow_discard = {
    .name = "grow-discard",
    .about = "a disk grows while the cluster in the way is discarded and written",
    .set_up = discard_set_up,
    .finish = discard_finish,
    .bound = 0,
    .random = 3000,
    .may_expire = true,
};

/* ---- beside a suspend ---- */

/* Work on free space may be on its way; data is not. */
static unsigned transfers(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < world->disk.held_count; i++) {
        uint32_t op = world->disk.held[i]->op;
        count += op == PLOOP_IO_READ || op == PLOOP_IO_WRITE;
    }
    return count;
}

static void suspend_and_resume(void *unused)
{
    (void)unused;
    must_be(ploop_dev_suspend(world->dev), 0, "suspend");
    uint64_t written = world->disk.written;
    for (unsigned i = 0; i < 2; i++) {
        must_be((int)transfers(), 0, "transfers at the backend of a suspended device");
        must_be((int)(world->disk.written - written), 0, "writes while it is suspended");
        sched_point(HERE, "suspended", &world->disk, true);
    }
    must_be(ploop_dev_resume(world->dev), 0, "resume");
}

static void suspend_set_up(void)
{
    set_up("suspend", suspend_and_resume);
}

const struct scenario grow_suspend = {
    .name = "grow-suspend",
    .about = "a disk grows against a suspend: no data moves while it is suspended",
    .set_up = suspend_set_up,
    .finish = read_finish,
    .bound = 0,
    .random = 3000,
    .may_expire = true,
};

/* ---- against a close ---- */

static void begin_and_close(void *unused)
{
    ploop_job *job;
    (void)unused;
    must_be(ploop_dev_grow(world->dev, grown_size, NULL, NULL, &job), 0, "a grow");
    must_be(end(begin_write(world->queue, 0, SECTOR, 'a', 0)), 0, "a write");
    must_be(ploop_dev_close(world->dev), 0, "close");
    world->disk.shut = true;
    int result = ploop_job_wait(job);
    if (result != -ECANCELED) {
        must_be(result, 0, "the job");
    }
    must_be(ploop_job_free(job), 0, "the handle");
}

static void close_set_up(void)
{
    sched_let_memory_grow();
    world_open(&(struct plan){.mode = DISK_DEVICE, .mapped = 2});
    sched_spawn("closer", begin_and_close, NULL, false);
}

static void close_finish(void)
{
    struct ploop_dev_config config;
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = PLOOP_DEV_READ_ONLY;
    world->disk.shut = false;
    must_be(ploop_dev_open(world->deltas, 1, &config, &world->dev), 0, "opening again");
    must_be(disk_size() == grown_size || disk_size() == old_size, true, "one of the two sizes");
    expect(0, SECTOR, 'a', "what was written");
    expect(SECTOR, 2 * CLUSTER - SECTOR, 'm', "what was there");
}

const struct scenario grow_close = {
    .name = "grow-close",
    .about = "a device is closed while its disk grows: the old size or the new, and all is there",
    .set_up = close_set_up,
    .finish = close_finish,
    .bound = 0,
    .random = 3000,
    .may_expire = true,
};
