/* SPDX-License-Identifier: MIT */
/* Suspend, resume, close and abort against requests on other threads. */
#include "scenarios.h"

#include <errno.h>
#include <stdlib.h>

#include "world.h"

static void write_mapped(void *argument)
{
    uint64_t cluster = (uint64_t)(uintptr_t)argument;
    must_be(end(begin_write(world->queue, cluster * CLUSTER, SECTOR, 'a', 0)), 0, "a write");
}

/* ---- suspend ---- */

static void suspend_and_resume(void *unused)
{
    (void)unused;
    must_be(ploop_dev_suspend(world->dev), 0, "suspend");
    must_be((int)world->disk.held_count, 0, "requests at the backend of a suspended device");
    world->disk.shut = true;
    sched_point(HERE, "suspended", &world->disk, true);
    world->disk.shut = false;
    must_be(ploop_dev_resume(world->dev), 0, "resume");
}

static void suspend_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_DEVICE, .mapped = 1});
    sched_spawn("writer", write_mapped, NULL, false);
    sched_spawn("suspend", suspend_and_resume, NULL, false);
}

static void one_write_finish(void)
{
    world_is_quiet();
    expect(0, SECTOR, 'a', "what was written");
    expect(SECTOR, CLUSTER - SECTOR, 'm', "what was there");
}

const struct scenario fast_suspend = {
    .name = "fast-suspend",
    .about =
        "a fast write against a suspend: nothing is at the backend while the device is suspended",
    .set_up = suspend_set_up,
    .finish = one_write_finish,
    .bound = 2,
    .random = 1000,
    .may_expire = true, /* a fast completion wakes no waiter */
};

static void adopt_set_up(void)
{
    suspend_set_up();
    world->disk.refusals = 1;
}

const struct scenario adopt_suspend = {
    .name = "adopt-suspend",
    .about = "a fast write that the backend refuses and the engine adopts, against a suspend",
    .set_up = adopt_set_up,
    .finish = one_write_finish,
    .bound = 1,
    .random = 4000,
    .may_expire = true,
};

/* ---- resume against suspend ---- */

/* The number of suspends less the number of resumes. */
static int *balance;

static void suspend_meanwhile(void *unused)
{
    (void)unused;
    int result = ploop_dev_suspend(world->dev);
    if (result != -EALREADY) {
        must_be(result == -ECANCELED ? 0 : result, 0, "suspend");
        ++*balance;
    }
    result = ploop_dev_resume(world->dev);
    if (result != -EINVAL) {
        must_be(result, 0, "resume");
        --*balance;
    }
}

static void resume_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_INLINE, .mapped = 1});
    sched_spawn("writer", write_mapped, NULL, false);
    balance = calloc(1, sizeof(*balance));
    sched_spawn("one", suspend_meanwhile, NULL, false);
    sched_spawn("other", suspend_meanwhile, NULL, false);
}

static void resume_finish(void)
{
    one_write_finish();
    must_be(ploop_dev_resume(world->dev), -EINVAL, "a resume too many");
    must_be(*balance, 0, "suspends without a resume");
}

const struct scenario resume_suspend = {
    .name = "resume-suspend",
    .about = "two threads suspend and resume while a third one writes: in the end the device runs",
    .set_up = resume_set_up,
    .finish = resume_finish,
    .bound = 1,
    .random = 3000,
    .may_expire = true,
};

/* ---- close and abort ---- */

static void begin_two(struct request *requests[2])
{
    requests[0] = begin_write(world->queue, 0, SECTOR, 'a', 0);           /* fast */
    requests[1] = begin_write(world->queue, 3 * CLUSTER, SECTOR, 'b', 0); /* the engine's */
}

static void write_and_close(void *unused)
{
    (void)unused;
    struct request *requests[2];
    begin_two(requests);
    ploop_dev *dev = world->dev;
    must_be(ploop_dev_close(dev), 0, "close");
    for (unsigned i = 0; i < 2; i++) {
        must_be((int)requests[i]->calls, 1, "callbacks before close returns");
        must_be(requests[i]->result, 0, "a write");
    }
    world->disk.shut = true;
}

static void close_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_DEVICE, .mapped = 1});
    sched_spawn("closer", write_and_close, NULL, false);
}

static void reopen(void)
{
    struct ploop_dev_config config;
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = PLOOP_DEV_READ_ONLY;
    world->disk.shut = false;
    must_be(ploop_dev_open(world->deltas, 1, &config, &world->dev), 0, "opening again");
}

static void close_finish(void)
{
    reopen();
    expect(0, SECTOR, 'a', "the fast write");
    expect(3 * CLUSTER, SECTOR, 'b', "the other write");
    expect(SECTOR, CLUSTER - SECTOR, 'm', "what was there");
}

const struct scenario close_completion = {
    .name = "close-completion",
    .about = "close while the backend completes on another thread",
    .set_up = close_set_up,
    .finish = close_finish,
    .bound = 1,
    .random = 10000,
    .may_expire = true,
};

static void runner_close_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_DEVICE, .mapped = 1, .runner_count = 1});
    sched_spawn("closer", write_and_close, NULL, false);
}

const struct scenario runner_close = {
    .name = "runner-close",
    .about = "close while a runner delivers: it ends, and every callback has run",
    .set_up = runner_close_set_up,
    .finish = close_finish,
    .bound = 0,
    .random = 3000,
    .may_expire = true,
};

static void write_and_abort(void *unused)
{
    (void)unused;
    struct request *requests[2];
    begin_two(requests);
    ploop_dev_abort(world->dev);
    for (unsigned i = 0; i < 2; i++) {
        must_be((int)requests[i]->calls, 1, "callbacks before abort returns");
        if (requests[i]->result != -ECANCELED) {
            must_be(requests[i]->result, 0, "a write");
        }
    }
    world->disk.shut = true;
}

static void abort_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_DEVICE, .mapped = 1});
    sched_spawn("aborter", write_and_abort, NULL, false);
}

const struct scenario abort_completion = {
    .name = "abort-completion",
    .about = "abort while the backend completes on another thread",
    .set_up = abort_set_up,
    .bound = 2,
    .random = 3000,
    .may_expire = true,
};
