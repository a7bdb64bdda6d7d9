/* SPDX-License-Identifier: MIT */
/*
 * Running a queue: reap it, have done what is due, deliver.
 *
 * The order matters: what the reap completes may be what the run then finds due, and both may
 * complete requests whose callbacks this run delivers.
 */
#include "engine/engine.h"
#include "pio/queue.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/epoll.h>

/*
 * The descriptor of the engine's queue may be readable for nothing, as a backend's may; only a reap
 * makes it quiet again. So a run that found nothing has the engine's queue reaped: the first of a
 * row of such runs, and then one in IDLE_RUNS, as a thread that polls without sleeping makes many.
 */
static void after_idle_run(ploop_queue *queue)
{
    enum { IDLE_RUNS = 16 };
    if (queue->dev->reaps &&
        atomic_fetch_add_explicit(&queue->idle_runs, 1, memory_order_relaxed) % IDLE_RUNS == 0) {
        dev_post_run(queue->dev);
    }
}

/*
 * Without anything due, a run of one queue does not touch what others do: it neither takes the turn
 * nor writes a word that they read.
 */
static inline __attribute__((always_inline)) int run(ploop_queue *queue, bool looks_again,
                                                     struct reaping *reaping)
{
    ploop_dev *dev = queue->dev;
    assert(queue->index < dev->queue_count); /* never the engine's */
    uint64_t deadline_ns = queue_run_begins(queue);
    queue_reap(queue);
    if (engine_is_due(dev)) {
        dev_post_run(dev);
    } else {
        turn_take(&dev->turn);
    }
    help_kick(dev); /* a callback may take long */
    int delivered = queue_run_ends(queue, deadline_ns, looks_again, reaping);
    if (delivered > 0) {
        atomic_store_explicit(&queue->idle_runs, 0, memory_order_relaxed);
    } else if (!looks_again) {
        after_idle_run(queue);
    }
    return delivered;
}

int queue_run(ploop_queue *queue, bool looks_again)
{
    return run(queue, looks_again, NULL);
}

int ploop_queue_reap(ploop_queue *queue, struct ploop_completion *completions, uint32_t count)
{
    struct reaping reaping = {.list = completions, .room = count};
    if (queue->dev->config.runner_count) {
        return -EBUSY;
    }
    if (!completions || count > INT_MAX) {
        return -EINVAL;
    }
    if (in_callback()) {
        engine_run(queue->dev);
        return 0; /* what is to be delivered stays announced */
    }
    run(queue, false, &reaping);
    return (int)reaping.count;
}

int ploop_queue_run(ploop_queue *queue)
{
    if (queue->dev->config.runner_count) {
        return -EBUSY;
    }
    if (in_callback()) {
        engine_run(queue->dev);
        return 0; /* what is to be delivered stays announced */
    }
    return queue_run(queue, false);
}

/* Until the device's deadline, or the timeout: in milliseconds, and never too short. */
int queue_sleep_ms(const ploop_dev *dev, uint64_t timeout_ns)
{
    const uint64_t ms = 1000000;
    uint64_t deadline = ploop_dev_next_deadline(dev), now = dev_now(dev);
    uint64_t due = deadline == UINT64_MAX ? UINT64_MAX : deadline > now ? deadline - now : 0;
    uint64_t sleep = due < timeout_ns ? due : timeout_ns;
    if (sleep > INT_MAX * ms) {
        return sleep == UINT64_MAX ? -1 : INT_MAX;
    }
    return (int)((sleep + ms - 1) / ms);
}

void queue_await(const ploop_queue *queue, int ms)
{
    struct epoll_event event;
    (void)epoll_wait(queue->poll_fd, &event, 1, ms);
}

/*
 * While another thread has the turn, and this one's run is still to be done by it, or is in the
 * queue's ring, what waits to be reaped there would wake this one at once, again and again. Then
 * only completions wake it, and it looks again soon.
 */
void queue_sleep(const ploop_queue *queue, uint64_t timeout_ns)
{
    int ms = queue_sleep_ms(queue->dev, timeout_ns);
    if (atomic_load(&queue->dev->run_posted) || queue_is_entered(queue)) {
        struct pollfd event = {.fd = queue->event_fd, .events = POLLIN};
        (void)poll(&event, 1, ms < 0 || ms > QUEUE_BUSY_MS ? QUEUE_BUSY_MS : ms);
    } else {
        queue_await(queue, ms);
    }
}

int ploop_queue_wait(ploop_queue *queue, uint64_t timeout_ns)
{
    if (queue->dev->config.runner_count) {
        return -EBUSY;
    }
    if (in_callback()) {
        return -EDEADLK;
    }
    assert(queue->event_fd >= 0 && queue->poll_fd >= 0);
    bool was_quiet = atomic_load(&queue->quiet);
    if (was_quiet) {
        ploop_queue_set_notify(queue, 1); /* for the time of the sleep */
    }
    int delivered = queue_run(queue, true);
    if (delivered == 0) {
        queue_sleep(queue, timeout_ns);
        delivered = queue_run(queue, false);
    }
    if (was_quiet) {
        ploop_queue_set_notify(queue, 0);
    }
    return delivered;
}
