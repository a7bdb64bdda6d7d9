/* SPDX-License-Identifier: MIT */
/* Backends that are full, or that complete requests during a flush. */
#include "scenarios.h"

#include <stdlib.h>
#include <string.h>

#include "world.h"

/* ---- a full ring ---- */

static void write_one(void *argument)
{
    uint64_t cluster = (uint64_t)(uintptr_t)argument;
    must_be(end(begin_write(world->queue, cluster * CLUSTER, SECTOR, (char)('a' + cluster), 0)), 0,
            "a write");
}

static bool *second_is_done;

static bool may_run(void *unused)
{
    (void)unused;
    return *second_is_done;
}

/*
 * It does not run its queue before the other write is done, and only that write can bring this on.
 */
static void write_and_sleep(void *unused)
{
    struct request *request = begin_write(ploop_dev_queue(world->dev, 1), 0, SECTOR, 'a', 0);
    sched_wait(HERE, "is at lunch", may_run, unused, 0);
    must_be(end(request), 0, "the first write");
}

static void write_second(void *unused)
{
    (void)unused;
    write_one((void *)(uintptr_t)1);
    *second_is_done = true;
}

static void full_ring_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_DEVICE, .mapped = 2, .room = 1, .queue_count = 2});
    second_is_done = calloc(1, sizeof(*second_is_done));
    sched_spawn("first", write_and_sleep, NULL, false);
    sched_spawn("second", write_second, NULL, false);
}

static void full_ring_finish(void)
{
    world_is_quiet();
    expect(0, SECTOR, 'a', "the first write");
    expect(CLUSTER, SECTOR, 'b', "the second write");
}

const struct scenario full_ring = {
    .name = "full-ring",
    .about = "two fast writes to a backend with room for one: the refused one is sent again",
    .set_up = full_ring_set_up,
    .finish = full_ring_finish,
    .bound = 2,
    .random = 2000,
};

/* ---- flush ---- */

static void write_and_flush(void *argument)
{
    uint64_t cluster = (uint64_t)(uintptr_t)argument;
    must_be(end(begin_write(world->queue, cluster * CLUSTER, SECTOR, (char)('a' + cluster), 0)), 0,
            "a write");
    sched_point(HERE, "looks", &world->disk, false);
    uint64_t written = world->disk.written;
    must_be(end(begin_flush(world->queue)), 0, "flush");
    if (world->disk.durable < written) {
        sched_fail("a flush ended before a SYNC that covers what was completed before it");
    }
}

static void flush_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_DEVICE, .mapped = 1});
    sched_spawn("fast", write_and_flush, (void *)(uintptr_t)0, false);
    sched_spawn("new", write_and_flush, (void *)(uintptr_t)1, false);
}

const struct scenario flush_completion = {
    .name = "flush-completion",
    .about = "two threads write and flush while another completes: a flush covers what was "
             "completed before",
    .set_up = flush_set_up,
    .finish = full_ring_finish,
    .bound = 1,
    .random = 3000,
};

/* ---- calls that wait ---- */

static void write_and_flush_blocking(void *argument)
{
    uint64_t cluster = (uint64_t)(uintptr_t)argument;
    char bytes[SECTOR];
    memset(bytes, (char)('a' + cluster), sizeof(bytes));
    must_be((int)ploop_dev_pwrite(world->dev, bytes, SECTOR, cluster * CLUSTER), SECTOR, "pwrite");
    must_be(ploop_dev_flush(world->dev), 0, "flush");
}

static void blocking_set_up(enum disk_mode mode)
{
    world_open(&(struct plan){.mode = mode, .mapped = 1});
    sched_spawn("fast", write_and_flush_blocking, (void *)(uintptr_t)0, false);
    sched_spawn("new", write_and_flush_blocking, (void *)(uintptr_t)1, false);
}

static void blocking_device_set_up(void)
{
    blocking_set_up(DISK_DEVICE);
}

static void blocking_reap_set_up(void)
{
    blocking_set_up(DISK_REAP);
}

static void blocking_help_set_up(void)
{
    blocking_set_up(DISK_HELP);
}

const struct scenario blocking_device = {
    .name = "blocking-device",
    .about = "two threads in calls that wait, another one completes: no wake-up is lost",
    .set_up = blocking_device_set_up,
    .finish = full_ring_finish,
    .bound = 1,
    .random = 10000,
};

const struct scenario blocking_reap = {
    .name = "blocking-reap",
    .about = "two threads in calls that wait reap for each other",
    .set_up = blocking_reap_set_up,
    .finish = full_ring_finish,
    .bound = 1,
    .random = 10000,
    .may_expire = true, /* completions that another thread reaps end no wait in the backend */
};

const struct scenario blocking_help = {
    .name = "blocking-help",
    .about = "two threads in calls that wait do the I/O themselves: none is left that nobody does",
    .set_up = blocking_help_set_up,
    .finish = full_ring_finish,
    .bound = 1,
    .random = 10000,
};

/* ---- requests that threads execute, on one queue ---- */

static int execute(ploop_pio *pio)
{
    int result = ploop_pio_execute(pio);
    ploop_pio_put(pio);
    return result;
}

static void write_and_flush_execute(void *argument)
{
    uint64_t cluster = (uint64_t)(uintptr_t)argument;
    char bytes[SECTOR];
    struct iovec iov = {bytes, SECTOR};
    ploop_pio *pio = ploop_pio_get(world->queue);
    memset(bytes, (char)('a' + cluster), sizeof(bytes));
    ploop_pio_prep_writev(pio, cluster * CLUSTER, &iov, 1, 0);
    must_be(execute(pio), 0, "a write");
    pio = ploop_pio_get(world->queue);
    ploop_pio_prep_flush(pio);
    must_be(execute(pio), 0, "flush");
}

static void execute_set_up(enum disk_mode mode)
{
    world_open(&(struct plan){.mode = mode, .mapped = 1});
    sched_spawn("fast", write_and_flush_execute, (void *)(uintptr_t)0, false);
    sched_spawn("new", write_and_flush_execute, (void *)(uintptr_t)1, false);
}

static void execute_device_set_up(void)
{
    execute_set_up(DISK_DEVICE);
}

static void execute_reap_set_up(void)
{
    execute_set_up(DISK_REAP);
}

static void execute_help_set_up(void)
{
    execute_set_up(DISK_HELP);
}

/* ---- a callback that takes long, on a thread that waits ---- */

static bool *was_long;

static bool second_is_called_back(void *unused)
{
    (void)unused;
    return world->request_count > 0 && world->requests[0].calls > 0;
}

static bool long_one_is_over(void *unused)
{
    (void)unused;
    return *was_long;
}

/* It is over when the request is that it submits to another queue. */
static void take_long(ploop_pio *pio, int result, void *unused)
{
    (void)pio;
    must_be(result, 0, "the request whose callback takes long");
    (void)begin_write(ploop_dev_queue(world->dev, 1), 2 * CLUSTER, SECTOR, 'd', 0);
    sched_wait(HERE, "takes long", second_is_called_back, unused, 0);
    *was_long = true;
}

static void submit_and_execute(void *unused)
{
    ploop_pio *pio = ploop_pio_get(world->queue);
    ploop_pio_prep_discard(pio, 4 * CLUSTER, CLUSTER);
    ploop_pio_set_callback(pio, take_long, unused);
    must_be(ploop_queue_submit(world->queue, &pio, 1), 1, "submit");
    write_and_flush_execute((void *)(uintptr_t)0);
    write_and_flush_execute((void *)(uintptr_t)1);
    run_until(world->queue, long_one_is_over, unused);
}

static void run_other_queue(void *unused)
{
    run_until(ploop_dev_queue(world->dev, 1), second_is_called_back, unused);
}

static void execute_callback_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_HELP, .mapped = 1, .queue_count = 2});
    was_long = calloc(1, sizeof(*was_long));
    sched_spawn("executes", submit_and_execute, NULL, false);
    sched_spawn("other queue", run_other_queue, NULL, false);
}

const struct scenario execute_callback = {
    .name = "execute-callback",
    .about = "a thread that waits runs a callback that takes long: it keeps no request of others",
    .set_up = execute_callback_set_up,
    .finish = full_ring_finish,
    .bound = 1,
    .random = 5000,
};

const struct scenario execute_device = {
    .name = "execute-device",
    .about = "two threads execute requests on one queue, another one completes: none sleeps on",
    .set_up = execute_device_set_up,
    .finish = full_ring_finish,
    .bound = 1,
    .random = 10000,
};

const struct scenario execute_reap = {
    .name = "execute-reap",
    .about = "two threads execute requests on one queue and reap for each other",
    .set_up = execute_reap_set_up,
    .finish = full_ring_finish,
    .bound = 1,
    .random = 10000,
    .may_expire = true, /* one that finds the turn taken looks again soon: queue_sleep() */
};

const struct scenario execute_help = {
    .name = "execute-help",
    .about = "two threads execute requests on one queue and do the I/O themselves",
    .set_up = execute_help_set_up,
    .finish = full_ring_finish,
    .bound = 1,
    .random = 10000,
};
