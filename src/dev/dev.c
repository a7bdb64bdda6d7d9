/* SPDX-License-Identifier: MIT */
/* What every room above asks of a device: the time, a word to the embedder, a run, a wake-up. */
#include "dev/dev.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "util/error_text.h"

/* What ploop_dev_open() is to store: NULL outside of it. */
static _Thread_local char *open_text;
static _Thread_local size_t open_text_size;

void dev_text_begin(char *text, size_t size)
{
    assert(!open_text);
    if (text && size > 0) {
        open_text = text;
        open_text_size = size;
        text[0] = '\0';
    }
}

void dev_text_end(int error)
{
    if (open_text && error == 0) {
        open_text[0] = '\0';
    } else if (open_text && !open_text[0]) {
        (void)snprintf(open_text, open_text_size, "%s", ERROR_TEXT(error));
    }
    open_text = NULL;
}

static void keep_text(uint32_t level, const char *text)
{
    if (open_text && !open_text[0] && level == PLOOP_LOG_ERROR) {
        (void)snprintf(open_text, open_text_size, "%s", text);
    }
}

uint64_t dev_now(const ploop_dev *dev)
{
    assert(dev->clock.now_ns);
    return dev->clock.now_ns(dev->clock.context);
}

void dev_log(const ploop_dev *dev, uint32_t level, uint32_t message_id, const char *format, ...)
{
    assert(level >= PLOOP_LOG_ERROR && level <= PLOOP_LOG_INFO);
    if (!dev->config.log && !open_text) {
        return;
    }
    char text[320];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    keep_text(level, text);
    if (dev->config.log) {
        dev->config.log(dev->config.user_data, level, message_id, text);
    }
}

void dev_event(const ploop_dev *dev, uint32_t event, uint64_t value)
{
    assert(event >= PLOOP_EVENT_RESIZED && event <= PLOOP_EVENT_COPY_FAILED);
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
