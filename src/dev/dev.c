/* SPDX-License-Identifier: MIT */
/* What every room above asks of a device: the time, a word to the embedder, a run, a wake-up. */
#include "dev/dev.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

uint64_t dev_now(const ploop_dev *dev)
{
    assert(dev->clock.now_ns);
    return dev->clock.now_ns(dev->clock.context);
}

void dev_log(const ploop_dev *dev, uint32_t level, uint32_t message_id, const char *format, ...)
{
    assert(level >= PLOOP_LOG_ERROR && level <= PLOOP_LOG_INFO);
    if (!dev->config.log) {
        return;
    }
    char text[320];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    dev->config.log(dev->config.user_data, level, message_id, text);
}

void dev_event(const ploop_dev *dev, uint32_t event, uint64_t value)
{
    assert(event >= PLOOP_EVENT_RESIZED && event <= PLOOP_EVENT_BITMAPS_DROPPED);
    if (dev->config.event) {
        dev->config.event(dev->config.user_data, event, value);
    }
}

void dev_post_run(ploop_dev *dev)
{
    if (!atomic_exchange(&dev->run_posted, true)) {
        turn_post(&dev->turn, &dev->run_work);
    } else {
        turn_visit(&dev->turn); /* it may lie where a thread has handed the turn over */
    }
}

int dev_reap(ploop_dev *dev, uint32_t queue)
{
    int done = 0;
    assert(queue <= dev->queue_count); /* the last one is the engine's */
    uint32_t slot = 0;
    for (const struct delta *delta; (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        const struct ploop_file *file = delta->file;
        int reaped = file->ops.reap ? file->ops.reap(file->context, queue) : 0;
        done += reaped > 0 ? reaped : 0;
    }
    return done;
}

void dev_wake(ploop_dev *dev)
{
    if (atomic_load(&dev->waiting)) {
        pthread_mutex_lock(&dev->wait_mutex);
        atomic_fetch_add(&dev->rings, 1);
        pthread_cond_broadcast(&dev->wait_cond);
        pthread_mutex_unlock(&dev->wait_mutex);
    }
}
