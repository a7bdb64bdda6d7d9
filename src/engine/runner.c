/* SPDX-License-Identifier: MIT */
/*
 * Runners: threads of the library that run a device's queues, so that the embedder need not.
 *
 *     running: its queues are run, and bulk work done that the turn has left
 *         -> nothing was delivered -> asleep, until a descriptor of its queues is readable; the
 *            first runner also until the device's deadline -> running
 *         -> told to stop -> ended
 *
 *  1. With n runners queue q is run by runner q % n, and by no other thread: ploop_queue_run() and
 *     ploop_queue_wait() are refused. The queues of a runner share one epoll set, that of its first
 *     queue.
 *  2. A runner that is awake is not rung: queue_ring(). Of the runners that sleep, a completion on
 *     the engine's queue wakes one; the deadline wakes the first, and so does a deadline that moves
 *     forward: engine.c rings its first queue only.
 *  3. Requests come from any thread; who submits sends, on the fast path or in the turn. Bulk work
 *     on memory is done by runners only. It is never left to a thread that submits.
 *  4. A runner lives until its device is at rest: close and abort wait for callbacks and run none.
 */
#include "engine/runner.h"

#include "engine/engine.h"
#include "pio/queue.h"
#include "util/thread.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

static _Thread_local bool is_runner;

bool on_runner(void)
{
    return is_runner;
}

/* One look at all of its queues. */
static int run_queues(struct runner *runner, bool looks_again)
{
    ploop_dev *dev = runner->dev;
    int delivered = 0;
    for (uint32_t i = runner->index; i < dev->queue_count; i += dev->config.runner_count) {
        delivered += queue_run(&dev->queues[i], looks_again);
    }
    if (!inbox_is_empty(&dev->bulk)) {
        bulk_run(dev);
        turn_take(&dev->turn);
    }
    return delivered;
}

/* Some other thread is in a ring of its queues, or will do the run that was posted. */
static bool others_are_at_it(const struct runner *runner)
{
    const ploop_dev *dev = runner->dev;
    bool busy = atomic_load(&dev->run_posted);
    for (uint32_t i = runner->index; i < dev->queue_count; i += dev->config.runner_count) {
        busy |= queue_is_entered(&dev->queues[i]);
    }
    return busy;
}

static void runner_sleep(const struct runner *runner)
{
    const ploop_dev *dev = runner->dev;
    int ms = runner->index == 0 ? queue_sleep_ms(dev, UINT64_MAX) : -1;
    if (!others_are_at_it(runner)) {
        queue_await(&dev->queues[runner->index], ms);
        return;
    }
    struct pollfd events[CHANNEL_QUEUES_MAX];
    nfds_t count = 0;
    for (uint32_t i = runner->index; i < dev->queue_count; i += dev->config.runner_count) {
        events[count++] = (struct pollfd){.fd = dev->queues[i].event_fd, .events = POLLIN};
    }
    (void)poll(events, count, ms < 0 || ms > QUEUE_BUSY_MS ? QUEUE_BUSY_MS : ms);
}

static void *runner_thread(void *argument)
{
    struct runner *runner = argument;
    is_runner = true;
    thread_name_self("ploop-run", runner->index % 1000);
    for (;;) {
        if (run_queues(runner, true) > 0) {
            continue;
        }
        /* After a run: who tells it to stop rings it, which a run would have made unnecessary. */
        if (atomic_load(&runner->stop)) {
            return NULL;
        }
        runner_sleep(runner);
        if (run_queues(runner, true) == 0) {
            run_queues(runner, false); /* a descriptor may have woken it for nothing */
        }
    }
}

void runners_do_bulk(ploop_dev *dev)
{
    assert(dev->config.runner_count > 0 && !is_runner);
    uint32_t next = atomic_fetch_add_explicit(&dev->bulk_runner, 1, memory_order_relaxed);
    queue_ring(&dev->queues[next % dev->config.runner_count]);
}

static void stop(struct runner *runner)
{
    atomic_store(&runner->stop, true);
    queue_ring(&runner->dev->queues[runner->index]);
    pthread_join(runner->thread, NULL);
}

void runners_stop(ploop_dev *dev)
{
    for (uint32_t i = 0; i < dev->runners_started; i++) {
        stop(&dev->runners[i]);
    }
    dev->runners_started = 0;
    free(dev->runners);
    dev->runners = NULL;
}

int runners_start(ploop_dev *dev)
{
    uint32_t count = dev->config.runner_count;
    assert(!dev->runners && count <= dev->queue_count);
    dev->runners = count ? calloc(count, sizeof(*dev->runners)) : NULL;
    if (count && !dev->runners) {
        return -ENOMEM;
    }
    int error = 0;
    for (uint32_t i = 0; i < count && !error; i++) {
        struct runner *runner = &dev->runners[i];
        runner->dev = dev;
        runner->index = i;
        error = thread_start(&runner->thread, runner_thread, runner);
        dev->runners_started += !error;
    }
    if (error) {
        runners_stop(dev);
    }
    return error;
}
