/* SPDX-License-Identifier: MIT */
/*
 * ploop_pio_execute(): a request, and the thread that waits for it.
 *
 *     submitted -> done at once: the thread did the I/O in submit
 *               -> waits -> done
 *
 * Several threads may wait on one queue. One of them, the leader, runs the queue for all; the
 * others sleep. The leader wakes them after each run, for their requests may be done, and again
 * when its own is done and it goes: then one of them runs the queue.
 *
 *  1. has_leader belongs to call_mutex. While it is set one thread of those counted in `callers`
 *     runs the queue, or sleeps on its descriptor.
 *  2. pio_call_over() sets `finished`, then looks at `callers`, then rings the queue; a caller is
 *     counted, then looks at `finished`. The leader wakes the others between the run that takes a
 *     ring back and its sleep. So none sleeps on when its request is done.
 *  3. On a queue that a runner runs (runner.c) nobody leads: pio_call_over() wakes the callers.
 *  4. A thread helps (help.c) before it sleeps, and leaves nothing unkicked when it does.
 */
#include "engine/engine.h"
#include "pio/pio.h"
#include "pio/queue.h"

#include <assert.h>

static bool is_finished(const ploop_pio *pio)
{
    return atomic_load(&pio->finished);
}

/* With call_mutex, which it gives back meanwhile. */
static void run_for_all(ploop_queue *queue, const ploop_pio *pio)
{
    assert(!queue->has_leader);
    queue->has_leader = true;
    pthread_mutex_unlock(&queue->call_mutex);
    bool goes_on = ploop_queue_run(queue) > 0; /* which kicks */
    pthread_mutex_lock(&queue->call_mutex);
    pthread_cond_broadcast(&queue->call_changed);
    if (!goes_on && !is_finished(pio)) {
        pthread_mutex_unlock(&queue->call_mutex);
        queue_sleep(queue, UINT64_MAX);
        pthread_mutex_lock(&queue->call_mutex);
    }
    queue->has_leader = false;
    pthread_cond_broadcast(&queue->call_changed);
}

static void wait_for(ploop_queue *queue, const ploop_pio *pio)
{
    atomic_fetch_add(&queue->callers, 1);
    while (!is_finished(pio) && help_once(queue->dev)) {
        continue;
    }
    pthread_mutex_lock(&queue->call_mutex);
    while (!is_finished(pio)) {
        if (queue->has_leader || queue->dev->config.runner_count) {
            pthread_cond_wait(&queue->call_changed, &queue->call_mutex);
        } else {
            run_for_all(queue, pio);
        }
    }
    pthread_mutex_unlock(&queue->call_mutex);
    atomic_fetch_sub(&queue->callers, 1);
}

int ploop_pio_execute(ploop_pio *pio)
{
    ploop_queue *queue = pio->queue;
    if (in_callback()) {
        return -EDEADLK;
    }
    pio->blocking = true;
    atomic_store(&pio->finished, false);
    int result = pio_validate(pio);
    if (!result) {
        help_begin(queue->dev);
        pio_submit_blocking(pio);
        if (!is_finished(pio)) {
            wait_for(queue, pio);
        }
        help_end(queue->dev);
        result = pio->result;
    }
    pio->blocking = false;
    fast_rest(pio);
    return result;
}
