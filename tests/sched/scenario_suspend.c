/* SPDX-License-Identifier: MIT */
/* A suspend that no thread waits for, against requests, a resume and a close on other threads. */
#include "scenarios.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/dev.h"
#include "world.h"

static unsigned *told;
static int *result_told;

static void tell(ploop_dev *dev, int result, void *user_data)
{
    (void)dev;
    (void)user_data;
    ++*told;
    *result_told = result;
}

static bool is_told(void *unused)
{
    (void)unused;
    return *told > 0;
}

/* On the other queue: its owner never runs queue 0. */
static void write_mapped(void *unused)
{
    (void)unused;
    ploop_queue *queue = ploop_dev_queue(world->dev, 1);
    must_be(end(begin_write(queue, 0, SECTOR, 'a', 0)), 0, "a write");
}

static void set_up(void)
{
    world_open(
        &(struct plan){.mode = DISK_DEVICE, .mapped = 1, .queue_count = 2, .no_wake_at = true});
    told = calloc(1, sizeof(*told));
    result_told = calloc(1, sizeof(*result_told));
    sched_spawn("writer", write_mapped, NULL, false);
}

static void finish(void)
{
    world_is_quiet();
    must_be((int)*told, 1, "calls of the suspend's function");
    must_be((int)world->dev->suspensions, 0, "suspends that go on");
    expect(0, SECTOR, 'a', "what was written");
    expect(SECTOR, CLUSTER - SECTOR, 'm', "what was there");
}

/* ---- against a request of the fast path ---- */

static void start_and_resume(void *unused)
{
    must_be(ploop_dev_suspend_start(world->dev, tell, NULL), 0, "a suspend begins");
    run_until(world->queue, is_told, unused);
    must_be(*result_told, 0, "suspend");
    must_be((int)world->disk.held_count, 0, "requests at the backend of a suspended device");
    world->disk.shut = true;
    sched_point(HERE, "suspended", &world->disk, true);
    world->disk.shut = false;
    must_be(ploop_dev_resume(world->dev), 0, "resume");
}

static void start_set_up(void)
{
    set_up();
    sched_spawn("suspend", start_and_resume, NULL, false);
}

const struct scenario start_suspend = {
    .name = "start-suspend",
    .about = "a fast write against a suspend that is told by a callback: nothing is at the backend "
             "then, and who ends the write wakes the queue that tells",
    .set_up = start_set_up,
    .finish = finish,
    .bound = 1,
    .random = 4000,
};

/* ---- against a resume ---- */

static void start(void *unused)
{
    must_be(ploop_dev_suspend_start(world->dev, tell, NULL), 0, "a suspend begins");
    run_until(world->queue, is_told, unused);
    must_be(*result_told == -ECANCELED ? 0 : *result_told, 0, "suspend");
}

static bool was_asked(void *unused)
{
    (void)unused;
    return world->dev->suspends & 1;
}

static void resume(void *unused)
{
    sched_wait(HERE, "waits for the suspend", was_asked, unused, 0);
    must_be(ploop_dev_resume(world->dev), 0, "resume");
}

static void resume_set_up(void)
{
    set_up();
    sched_spawn("suspend", start, NULL, false);
    sched_spawn("resume", resume, NULL, false);
}

const struct scenario start_resumed = {
    .name = "start-resumed",
    .about = "a suspend that a resume overtakes at any step is told once, and the device runs",
    .set_up = resume_set_up,
    .finish = finish,
    .bound = 1,
    .random = 4000,
};
