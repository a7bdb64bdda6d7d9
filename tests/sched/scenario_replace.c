/* SPDX-License-Identifier: MIT */
/* Another file in the place of the base (R20), against requests on other threads that read it. */
#include "scenarios.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ops.h>

#include "world.h"

struct copy {
    struct disk disk;
    ploop_file *file;
};

static struct copy *copy;

static void replace(void *unused)
{
    ploop_job *job;
    (void)unused;
    must_be(ploop_dev_replace(world->dev, 0, copy->file, 0, NULL, NULL, NULL, &job), 0, "the call");
    must_be(ploop_job_wait(job), -EAGAIN, "the wait until the commit");
    must_be(ploop_job_committed(job, 0), 0, "the answer");
    must_be(ploop_job_wait(job), 0, "the job");
    must_be(ploop_job_free(job), 0, "the handle");
    must_be((int)world->below.held_count, 0, "requests at the backend of a file let go");
    world->below.shut = true; /* nothing is sent to it any more */
}

static void read_often(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < 4; i++) {
        struct request *request = begin_read(world->queue, CLUSTER, SECTOR);
        must_be(end(request), 0, "a read");
        must_be(*(const char *)request->iov.iov_base, 'l', "what the base has");
    }
}

static void write_parts(void *unused)
{
    (void)unused;
    ploop_queue *queue = ploop_dev_queue(world->dev, 1);
    must_be(end(begin_write(queue, 2 * CLUSTER, SECTOR, 'a', 0)), 0, "a write");
    must_be(end(begin_write(queue, 3 * CLUSTER, SECTOR, 'b', 0)), 0, "another write");
}

static void set_up(const char *name, fiber_fn *beside)
{
    world_open(&(struct plan){.mode = DISK_DEVICE, .lower = 4, .queue_count = 2});
    copy = calloc(1, sizeof(*copy));
    copy->file = disk_open(&copy->disk, world->below.capacity);
    memcpy(copy->disk.bytes, world->below.bytes, world->below.size);
    copy->disk.size = world->below.size;
    copy->disk.mode = DISK_DEVICE;
    sched_spawn("copy", disk_device, &copy->disk, true);
    sched_spawn("replace", replace, NULL, false);
    sched_spawn(name, beside, NULL, false);
}

static void read_set_up(void)
{
    set_up("reader", read_often);
}

static void read_finish(void)
{
    world_is_quiet();
    expect(0, 4 * CLUSTER, 'l', "what the base has");
}

const struct scenario replace_read = {
    .name = "replace-read",
    .about = "the base's file is replaced while another thread reads it: none reads one let go",
    .set_up = read_set_up,
    .finish = read_finish,
    .bound = 0,
    .random = 3000,
    .may_expire = true,
};

static void write_set_up(void)
{
    set_up("writer", write_parts);
}

static void write_finish(void)
{
    world_is_quiet();
    expect(0, 2 * CLUSTER, 'l', "what the base has");
    expect(2 * CLUSTER, SECTOR, 'a', "what was written");
    expect(2 * CLUSTER + SECTOR, CLUSTER - SECTOR, 'l', "what was copied");
    expect(3 * CLUSTER, SECTOR, 'b', "what was written then");
    expect(3 * CLUSTER + SECTOR, CLUSTER - SECTOR, 'l', "what was copied then");
}

const struct scenario replace_write = {
    .name = "replace-write",
    .about = "the base's file is replaced while clusters of it are copied to the top",
    .set_up = write_set_up,
    .finish = write_finish,
    .bound = 0,
    .random = 3000,
    .may_expire = true,
};
