/* SPDX-License-Identifier: MIT */
/*
 * A snapshot, and a merge down of its new top, against requests on other threads: the top changes
 * between a look at it and what follows.
 */
#include "scenarios.h"

#include <errno.h>
#include <stdlib.h>

#include "life/rest.h"
#include "pio/pio.h"
#include "world.h"

enum { NEXT_BYTES = 1 << 20 };

struct snapshot {
    ploop_file *file;
    uint64_t written; /* to the old top, when its embedder said that it is one */
};

static struct snapshot *next;

/* `only_writes`: then nothing is at the old top's backend while the embedder is asked. */
static void snapshot(void *only_writes)
{
    ploop_job *job;
    must_be(ploop_dev_snapshot(world->dev, next->file, NULL, NULL, NULL, &job), 0, "a snapshot");
    must_be(ploop_job_wait(job), -EAGAIN, "the wait until the commit");
    if (only_writes) {
        must_be((int)world->disk.held_count, 0, "requests at the backend of a closed file");
        next->written = world->disk.written;
        world->disk.shut = true;
        sched_point(HERE, "commit", &world->disk, true);
        world->disk.shut = false;
    }
    must_be(ploop_job_committed(job, 0), 0, "the answer");
    must_be(ploop_job_wait(job), 0, "the job");
    must_be(ploop_job_free(job), 0, "the handle");
}

/* There and back: the new top is merged down again. */
static void merge(void *unused)
{
    ploop_job *job;
    uint32_t down = PLOOP_MERGE_DOWN | PLOOP_MERGE_RECEIVER_IS_OURS;
    snapshot(NULL);
    (void)unused;
    must_be(ploop_dev_merge(world->dev, 0, down, NULL, NULL, NULL, &job), 0, "a merge");
    must_be(ploop_job_wait(job), -EAGAIN, "the wait until the commit");
    must_be(ploop_job_committed(job, 0), 0, "the answer");
    must_be(ploop_job_wait(job), 0, "the job");
    must_be(ploop_job_free(job), 0, "the handle");
    world->below.shut = true; /* nothing is sent to a file that was let go */
}

/* Two, so that one may come after the swap. */
static void write_twice(void *unused)
{
    (void)unused;
    ploop_queue *queue = ploop_dev_queue(world->dev, 1);
    must_be(end(begin_write(queue, 0, SECTOR, 'a', 0)), 0, "a write");
    must_be(end(begin_write(queue, 0, SECTOR, 'b', 0)), 0, "another write");
}

static void read_twice(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < 2; i++) {
        struct request *request = begin_read(world->queue, CLUSTER, SECTOR);
        must_be(end(request), 0, "a read");
        must_be(*(const char *)request->iov.iov_base, 'm', "what was there");
        must_be(end(begin_read(world->queue, 5 * CLUSTER, SECTOR)), 0, "a read of nothing");
    }
}

static void set_up(void (*change)(void *), bool only_writes)
{
    const struct ploop_image_options image = {
        .size = sizeof(image), .cluster_size = CLUSTER, .disk_size = DISK_CLUSTERS * CLUSTER};
    world_open(&(struct plan){.mode = DISK_DEVICE, .mapped = 2, .queue_count = 2});
    next = calloc(1, sizeof(*next));
    next->file = disk_open(&world->below, NEXT_BYTES);
    must_be(ploop_image_create(next->file, &image), 0, "create");
    sched_spawn("next", disk_device, &world->below, true);
    sched_spawn("change", change, only_writes ? world : NULL, false);
}

static void write_set_up(void)
{
    set_up(snapshot, true);
    sched_spawn("writer", write_twice, NULL, false);
}

static void write_finish(void)
{
    world_is_quiet();
    must_be((int)stack_count(&world->dev->stack), 2, "deltas");
    must_be((int)(world->disk.written - next->written), 0, "writes to what is the old top");
    expect(0, SECTOR, 'b', "what was written last");
    expect(SECTOR, CLUSTER - SECTOR, 'm', "what was there");
}

const struct scenario snapshot_write = {
    .name = "snapshot-write",
    .about = "a snapshot while another thread writes: no write is lost, whichever top it meets",
    .set_up = write_set_up,
    .finish = write_finish,
    .bound = 0,
    .random = 10000,
    .may_expire = true,
};

static void read_set_up(void)
{
    set_up(snapshot, false);
    sched_spawn("reader", read_twice, NULL, false);
}

static void read_finish(void)
{
    world_is_quiet();
    expect(CLUSTER, CLUSTER, 'm', "what was there");
    if (!dev_is_quiet(world->dev)) {
        sched_fail("a request has left a lane in which it was not counted");
    }
}

const struct scenario snapshot_read = {
    .name = "snapshot-read",
    .about = "a snapshot while another thread reads what moves from the old map into the words",
    .set_up = read_set_up,
    .finish = read_finish,
    .bound = 0,
    .random = 10000,
    .may_expire = true,
};

static void merge_write_set_up(void)
{
    set_up(merge, false);
    sched_spawn("writer", write_twice, NULL, false);
}

static void merge_write_finish(void)
{
    world_is_quiet();
    must_be((int)stack_count(&world->dev->stack), 1, "deltas");
    expect(0, SECTOR, 'b', "what was written last");
    expect(SECTOR, CLUSTER - SECTOR, 'm', "what was there");
}

const struct scenario merge_write = {
    .name = "merge-write",
    .about = "a merge down of the top while another thread writes: no write is lost",
    .set_up = merge_write_set_up,
    .finish = merge_write_finish,
    .bound = 0,
    .random = 10000,
    .may_expire = true,
};

static void merge_read_set_up(void)
{
    set_up(merge, false);
    sched_spawn("reader", read_twice, NULL, false);
}

const struct scenario merge_read = {
    .name = "merge-read",
    .about = "a merge down of the top while another thread reads: no request meets a file let go",
    .set_up = merge_read_set_up,
    .finish = read_finish,
    .bound = 0,
    .random = 10000,
    .may_expire = true,
};
