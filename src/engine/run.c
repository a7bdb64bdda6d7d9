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

int ploop_queue_run(ploop_queue *queue)
{
    if (in_callback()) {
        engine_run(queue->dev);
        return 0; /* what is to be delivered stays announced */
    }
    assert(queue->index < queue->dev->queue_count); /* never the engine's */
    queue_run_begins(queue);
    queue_reap(queue);
    dev_post_run(queue->dev);
    return queue_run_ends(queue);
}

/* Until the device's deadline, or the timeout: in milliseconds, and never too short. */
static int sleep_ms(const ploop_queue *queue, uint64_t timeout_ns)
{
    const uint64_t ms = 1000000;
    uint64_t deadline = ploop_dev_next_deadline(queue->dev), now = dev_now(queue->dev);
    uint64_t due = deadline == UINT64_MAX ? UINT64_MAX : deadline > now ? deadline - now : 0;
    uint64_t sleep = due < timeout_ns ? due : timeout_ns;
    if (sleep > INT_MAX * ms) {
        return sleep == UINT64_MAX ? -1 : INT_MAX;
    }
    return (int)((sleep + ms - 1) / ms);
}

/*
 * While another thread has the turn, and this one's run is still to be done by it, or is in the
 * queue's ring, what waits to be reaped there would wake this one at once, again and again. Then
 * only completions wake it, and it looks again soon.
 */
void queue_sleep(const ploop_queue *queue, uint64_t timeout_ns)
{
    enum { BUSY_MS = 2 };
    int ms = sleep_ms(queue, timeout_ns);
    if (atomic_load(&queue->dev->run_posted) || atomic_load(&queue->entered)) {
        struct pollfd event = {.fd = queue->event_fd, .events = POLLIN};
        (void)poll(&event, 1, ms < 0 || ms > BUSY_MS ? BUSY_MS : ms);
    } else {
        struct epoll_event event;
        (void)epoll_wait(queue->poll_fd, &event, 1, ms);
    }
}

int ploop_queue_wait(ploop_queue *queue, uint64_t timeout_ns)
{
    if (in_callback()) {
        return -EDEADLK;
    }
    assert(queue->event_fd >= 0 && queue->poll_fd >= 0);
    int delivered = ploop_queue_run(queue);
    if (delivered == 0) {
        queue_sleep(queue, timeout_ns);
        delivered = ploop_queue_run(queue);
    }
    return delivered;
}
