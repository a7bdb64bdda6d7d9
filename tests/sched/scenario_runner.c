/* SPDX-License-Identifier: MIT */
/*
 * Runners: threads submit and do nothing else, and a thread of the library does the rest. Nobody
 * wakes it but the library: a lost ring leaves a fiber that waits for ever.
 */
#include "scenarios.h"

#include <stdlib.h>
#include <string.h>

#include "world.h"

static bool is_called_back(void *argument)
{
    const struct request *request = argument;
    return request->calls > 0;
}

static void wait_for(struct request *request)
{
    sched_wait(HERE, "waits for the callback", is_called_back, request, 0);
    must_be(request->result, 0, "a request");
}

/* On the fast path, twice: for the second time the runner may be about to sleep. */
static void write_mapped_twice(void *unused)
{
    (void)unused;
    wait_for(begin_write(world->queue, 0, SECTOR, 'a', 0));
    wait_for(begin_write(world->queue, 0, SECTOR, 'c', 0));
}

static void write_new(void *unused)
{
    (void)unused;
    wait_for(begin_write(ploop_dev_queue(world->dev, 1), 3 * CLUSTER, SECTOR, 'b', 0));
}

static void write_mapped(void *unused)
{
    (void)unused;
    wait_for(begin_write(ploop_dev_queue(world->dev, 1), CLUSTER, SECTOR, 'b', 0));
}

static void device_set_up(void)
{
    world_open(&(struct plan){
        .mode = DISK_DEVICE, .mapped = 2, .queue_count = 2, .runner_count = 1, .no_wake_at = true});
    sched_spawn("one", write_mapped_twice, NULL, false);
    sched_spawn("two", write_mapped, NULL, false);
}

static void device_finish(void)
{
    world_is_quiet();
    expect(0, SECTOR, 'c', "the writes of one queue");
    expect(CLUSTER, SECTOR, 'b', "the write of the other");
}

static void reap_set_up(void)
{
    world_open(&(struct plan){
        .mode = DISK_REAP, .mapped = 1, .queue_count = 2, .runner_count = 1, .no_wake_at = true});
    sched_spawn("one", write_mapped_twice, NULL, false);
    sched_spawn("two", write_new, NULL, false);
}

static void writes_finish(void)
{
    world_is_quiet();
    expect(0, SECTOR, 'c', "the fast writes");
    expect(3 * CLUSTER, SECTOR, 'b', "the other write");
}

const struct scenario runner_device = {
    .name = "runner-device",
    .about = "a runner over a backend that completes on a thread of its own: no ring is lost",
    .set_up = device_set_up,
    .finish = device_finish,
    .bound = 1,
    .random = 5000,
    .may_expire = true,
};

const struct scenario runner_reap = {
    .name = "runner-reap",
    .about = "a runner of two queues, which reaps their rings and the engine's",
    .set_up = reap_set_up,
    .finish = writes_finish,
    .bound = 1,
    .random = 5000,
    .may_expire = true,
};

/* ---- calls that wait ---- */

static void execute_write(void *unused)
{
    (void)unused;
    char bytes[SECTOR];
    const struct iovec iov = {bytes, SECTOR};
    ploop_pio *pio = ploop_pio_get(world->queue);
    memset(bytes, 'a', sizeof(bytes));
    ploop_pio_prep_writev(pio, 0, &iov, 1, 0);
    must_be(ploop_pio_execute(pio), 0, "a write");
    ploop_pio_put(pio);
}

static void execute_set_up(void)
{
    world_open(
        &(struct plan){.mode = DISK_DEVICE, .mapped = 1, .runner_count = 1, .no_wake_at = true});
    world->disk.refusals = 1;
    sched_spawn("executes", execute_write, NULL, false);
}

static void execute_finish(void)
{
    world_is_quiet();
    expect(0, SECTOR, 'a', "what was written");
}

const struct scenario runner_execute = {
    .name = "runner-execute",
    .about = "a thread executes a request that is refused, on the queue of a runner that sleeps",
    .set_up = execute_set_up,
    .finish = execute_finish,
    .bound = 1,
    .random = 3000,
    .may_expire = true,
};

/* ---- a close while callbacks submit ---- */

/* The requests of the chain: a write, a read of nothing on the other queue, a flush. */
static struct chain {
    ploop_pio *pios[3];
    struct iovec write, read;
    unsigned calls;
} * chain;

static void next_of_chain(ploop_pio *pio, int result, void *user_data)
{
    unsigned number = (unsigned)(uintptr_t)user_data;
    must_be(result, 0, "a request that a callback has submitted before the close was over");
    must_be((int)chain->calls++, (int)number, "callbacks before this one");
    sched_point(HERE, "callback", chain, true);
    if (number < 2) {
        ploop_pio *next = chain->pios[number + 1];
        must_be(ploop_queue_submit(ploop_dev_queue(world->dev, number == 0 ? 0 : 1), &next, 1), 1,
                "submit");
    }
    (void)pio;
}

static void begin_chain_and_close(void *unused)
{
    (void)unused;
    ploop_dev *dev = world->dev;
    must_be(ploop_queue_submit(ploop_dev_queue(dev, 1), &chain->pios[0], 1), 1, "submit");
    must_be(ploop_dev_close(dev), 0, "close");
    must_be((int)chain->calls, 3, "callbacks before close returns");
}

static void chain_set_up(void)
{
    world_open(&(struct plan){
        .mode = DISK_INLINE, .mapped = 1, .queue_count = 2, .runner_count = 2, .no_wake_at = true});
    chain = calloc(1, sizeof(*chain));
    chain->write = (struct iovec){calloc(1, SECTOR), SECTOR};
    chain->read = (struct iovec){calloc(1, SECTOR), SECTOR};
    for (unsigned i = 0; i < 3; i++) {
        chain->pios[i] = ploop_pio_get(ploop_dev_queue(world->dev, i == 1 ? 0 : 1));
        ploop_pio_set_callback(chain->pios[i], next_of_chain, (void *)(uintptr_t)i);
    }
    ploop_pio_prep_writev(chain->pios[0], 0, &chain->write, 1, 0);
    ploop_pio_prep_readv(chain->pios[1], 4 * CLUSTER, &chain->read, 1);
    ploop_pio_prep_flush(chain->pios[2]);
    sched_spawn("closer", begin_chain_and_close, NULL, false);
}

const struct scenario runner_chain = {
    .name = "runner-chain",
    .about = "close while the callbacks of two runners submit to each other: it waits for all",
    .set_up = chain_set_up,
    .bound = 1,
    .random = 3000,
    .may_expire = true,
};

/* ---- bulk work ---- */

static void write_below(void *unused)
{
    (void)unused;
    wait_for(begin_write(world->queue, 0, SECTOR, 'a', 0));
}

static void copy_set_up(void)
{
    world_open(
        &(struct plan){.mode = DISK_INLINE, .lower = 1, .runner_count = 1, .no_wake_at = true});
    sched_spawn("one", write_below, NULL, false);
}

static void copy_finish(void)
{
    world_is_quiet();
    expect(0, SECTOR, 'a', "what was written");
    expect(SECTOR, CLUSTER - SECTOR, 'l', "what was copied");
}

const struct scenario runner_copy = {
    .name = "runner-copy",
    .about = "a copy from a lower delta: the thread that submits leaves the bulk work to a runner",
    .set_up = copy_set_up,
    .finish = copy_finish,
    .bound = 2,
    .random = 5000,
    .may_expire = true,
};
